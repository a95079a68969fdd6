// Plays a video that was published. The page's address names it, so that a link to it can be handed on.

import { get, hasKey, post } from './api.js';
import { byId, element, show, write } from './dom.js';

const ADDRESS = /^#\/videos\/([\w-]+)$/;
const LINK_SECONDS = 3600;
// A link that ends while it is played is replaced; one that never did is not.
const LINK_AGAIN_MS = 60_000;
const NO_LINK = [401, 403, 404, 410];

const video = byId('video');
let hls = null;
// Who opened last: an answer for somebody before comes too late.
let turn = 0;

export function start() {
  window.addEventListener('hashchange', () => open(true));
  byId('quality').addEventListener('change', ({ target }) => (hls.nextLevel = level(target.value)));
  byId('sound').addEventListener('change', ({ target }) => (hls.audioTrack = Number(target.value)));
  // Of what hls.js plays it tells itself.
  video.addEventListener('error', () => !hls && video.src && fail(video.error?.message || 'the browser cannot play it'));
  open(false);
}

// With another key there may be more to see.
export const reopen = () => open(false);

// `asked`: somebody asked for it just now, so it may begin by itself.
async function open(asked) {
  const mine = (turn += 1);
  close();
  const id = ADDRESS.exec(location.hash)?.[1];
  show(byId('player'), id !== undefined, byId('jobs-title'));
  title('Video');
  if (!id) return;
  if (asked) {
    byId('player').scrollIntoView();
    byId('player-title').focus({ preventScroll: true });
  }
  try {
    const { name, play } = await get(`/v1/videos/${id}`);
    if (mine !== turn) return;
    title(name);
    if (!play) return fail('it is not published yet');
    await import('./hls.min.js');
    const address = await link(id, play);
    if (mine === turn) load(id, play, address, asked);
  } catch (error) {
    if (mine === turn) fail(error.message);
  }
}

function title(name) {
  write(byId('player-title'), name);
  document.title = byId('player').hidden ? 'Spool' : `${name} · Spool`;
}

function close() {
  hls?.destroy();
  hls = null;
  video.removeAttribute('src');
  video.load();
  for (const name of ['player-error', 'quality-label', 'sound-label']) show(byId(name), false);
}

function fail(reason) {
  write(byId('player-error'), `It does not play: ${reason}`);
  show(byId('player-error'), true);
}

// A player sends no key: it gets a link that ends.
async function link(id, play) {
  return hasKey() ? (await post(`/v1/videos/${id}/links`, { expires_seconds: LINK_SECONDS })).play : play;
}

function load(id, play, address, begins, startPosition = -1) {
  const { Hls } = globalThis;
  const begin = () => begins && video.play().catch(() => {});
  if (!Hls.isSupported()) {
    // As on older iPhones, which play HLS themselves.
    video.src = address;
    return begin();
  }
  const player = (hls = new Hls({ startPosition }));
  const since = performance.now();
  let mended = false;
  const { AUDIO_TRACKS_UPDATED, AUDIO_TRACK_SWITCHED, ERROR, LEVEL_SWITCHED, MANIFEST_PARSED } = Hls.Events;
  player.on(ERROR, (_, { details, error, fatal, response, type }) => {
    if (!fatal) return;
    if (type === Hls.ErrorTypes.MEDIA_ERROR && !mended) {
      mended = true;
      player.recoverMediaError();
    } else if (hasKey() && NO_LINK.includes(response?.code) && performance.now() - since > LINK_AGAIN_MS) {
      again(id, play);
    } else {
      fail(response?.code ? `the server answered ${response.code}` : (error?.message ?? details));
    }
  });
  player.on(MANIFEST_PARSED, () => {
    qualities(player.levels);
    begin();
  });
  player.on(LEVEL_SWITCHED, () => automatic(player));
  for (const event of [AUDIO_TRACKS_UPDATED, AUDIO_TRACK_SWITCHED]) player.on(event, () => sounds(player));
  player.loadSource(address);
  player.attachMedia(video);
}

// The link ended: another, and on from here.
async function again(id, play) {
  const [mine, from, playing] = [turn, video.currentTime, !video.paused];
  const address = await link(id, play).catch((error) => mine === turn && fail(error.message));
  if (!address || mine !== turn) return;
  hls.destroy();
  load(id, play, address, playing, from);
}

function choose(name, entries, chosen) {
  byId(name).replaceChildren(...entries.map(([value, textContent]) => element('option', { value, textContent })));
  byId(name).value = chosen;
  show(byId(`${name}-label`), entries.length > 1);
}

// A quality in words: its height, and its codec where there are several.
function named({ height, videoCodec }) {
  const codec = (level) => level.videoCodec?.split('.')[0];
  const several = new Set(hls.levels.map(codec)).size > 1;
  return [height ? `${height}p` : 'Sound', several && codec({ videoCodec })].filter(Boolean).join(', ');
}

// The level that is meant by words: hls.js has one more for each group of sound.
function level(words) {
  const group = hls.audioTracks[hls.audioTrack]?.groupId;
  const fits = hls.levels.flatMap((level, index) => (named(level) === words ? [index] : []));
  return fits.find((index) => hls.levels[index].audioGroups?.includes(group)) ?? fits[0] ?? -1;
}

function qualities(levels) {
  const words = [...new Set(levels.map(named))].reverse();
  choose('quality', [['', 'Auto'], ...words.map((word) => [word, word])], '');
  show(byId('quality-label'), words.length > 1);
  video.classList.toggle('heard', levels.every((level) => !level.height));
}

// Tells what was chosen by itself.
function automatic({ autoLevelEnabled, currentLevel, levels }) {
  const height = levels[currentLevel]?.height;
  write(byId('quality').options[0], height && autoLevelEnabled ? `Auto (${height}p)` : 'Auto');
}

function sounds({ audioTrack, audioTracks }) {
  const words = ({ channels, lang, name }) => `${name || lang || 'Sound'}${channels > 2 ? `, ${channels} channels` : ''}`;
  choose('sound', audioTracks.map((track, index) => [index, words(track)]), audioTrack);
}
