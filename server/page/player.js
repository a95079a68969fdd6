// Plays a published video. The page's address names the video, so that the address can be shared.

import { get, hasKey, post } from './api.js';
import { byId, element, show, write } from './dom.js';

const ADDRESS = /^#\/videos\/([\w-]+)$/;
const LINK_SECONDS = 3600;
// A signed link that expires during playback is replaced; one that fails in its first minute never worked.
const MIN_LINK_AGE_MS = 60_000;
const LINK_REFUSED = [401, 403, 404, 410];

const video = byId('video');
let hls = null;
// Number of the latest `open`: answers for earlier ones are ignored.
let latestOpen = 0;

export function start() {
  window.addEventListener('hashchange', () => open(true));
  byId('quality').addEventListener('change', ({ target }) => (hls.nextLevel = level(target.value)));
  byId('sound').addEventListener('change', ({ target }) => (hls.audioTrack = Number(target.value)));
  // hls.js reports the errors of its own playback.
  video.addEventListener('error', () => !hls && video.src && fail(video.error?.message || 'the browser cannot play this format'));
  open(false);
}

// Another key may give access to the video.
export const reopen = () => open(false);

// `requested`: the user chose the video just now, so playback may start by itself.
async function open(requested) {
  const mine = (latestOpen += 1);
  close();
  const id = ADDRESS.exec(location.hash)?.[1];
  show(byId('player'), id !== undefined, byId('jobs-title'));
  title('Video');
  if (!id) return;
  if (requested) {
    byId('player').scrollIntoView();
    byId('player-title').focus({ preventScroll: true });
  }
  try {
    const { name, play } = await get(`/v1/videos/${id}`);
    if (mine !== latestOpen) return;
    title(name);
    if (!play) return fail('the video is not published yet');
    await import('./hls.min.js');
    const address = await link(id, play);
    if (mine === latestOpen) load(id, play, address, requested);
  } catch (error) {
    if (mine === latestOpen) fail(error.message);
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
  write(byId('player-error'), `Playback failed: ${reason}`);
  show(byId('player-error'), true);
}

// Returns the address to play: a player sends no key, so with one a signed link is created.
async function link(id, play) {
  return hasKey() ? (await post(`/v1/videos/${id}/links`, { expires_seconds: LINK_SECONDS })).play : play;
}

function load(id, play, address, autoplay, startPosition = -1) {
  const { Hls } = globalThis;
  const begin = () => autoplay && video.play().catch(() => {});
  if (!Hls.isSupported()) {
    // Older iPhones have no Media Source Extensions, and play HLS themselves.
    video.src = address;
    return begin();
  }
  const player = (hls = new Hls({ startPosition }));
  const loadedAt = performance.now();
  let recovered = false;
  const { AUDIO_TRACKS_UPDATED, AUDIO_TRACK_SWITCHED, ERROR, LEVEL_SWITCHED, MANIFEST_PARSED } = Hls.Events;
  player.on(ERROR, (_, { details, error, fatal, response, type }) => {
    if (!fatal) return;
    if (type === Hls.ErrorTypes.MEDIA_ERROR && !recovered) {
      recovered = true;
      player.recoverMediaError();
    } else if (hasKey() && LINK_REFUSED.includes(response?.code) && performance.now() - loadedAt > MIN_LINK_AGE_MS) {
      renewLink(id, play);
    } else {
      fail(response?.code ? `the server answered ${response.code}` : (error?.message ?? details));
    }
  });
  player.on(MANIFEST_PARSED, () => {
    drawQualities(player.levels);
    begin();
  });
  player.on(LEVEL_SWITCHED, () => drawAutoQuality(player));
  for (const event of [AUDIO_TRACKS_UPDATED, AUDIO_TRACK_SWITCHED]) player.on(event, () => drawAudioTracks(player));
  player.loadSource(address);
  player.attachMedia(video);
}

// Replaces a link that expired, and continues at the current position.
async function renewLink(id, play) {
  const [mine, from, playing] = [latestOpen, video.currentTime, !video.paused];
  const address = await link(id, play).catch((error) => mine === latestOpen && fail(error.message));
  if (!address || mine !== latestOpen) return;
  hls.destroy();
  load(id, play, address, playing, from);
}

// Fills a selection with entries, and hides it if there is nothing to choose.
function drawSelect(name, entries, chosen) {
  byId(name).replaceChildren(...entries.map(([value, textContent]) => element('option', { value, textContent })));
  byId(name).value = chosen;
  show(byId(`${name}-label`), entries.length > 1);
}

// Returns the label of a level: its height, and its codec if the levels have several.
function labelOf({ height, videoCodec }) {
  const codec = (level) => level.videoCodec?.split('.')[0];
  const several = new Set(hls.levels.map(codec)).size > 1;
  return [height ? `${height}p` : 'Audio', several && codec({ videoCodec })].filter(Boolean).join(', ');
}

// Returns the level that a label stands for: hls.js has one for each group of audio renditions.
function level(label) {
  const group = hls.audioTracks[hls.audioTrack]?.groupId;
  const matches = hls.levels.flatMap((level, index) => (labelOf(level) === label ? [index] : []));
  return matches.find((index) => hls.levels[index].audioGroups?.includes(group)) ?? matches[0] ?? -1;
}

function drawQualities(levels) {
  const labels = [...new Set(levels.map(labelOf))].reverse();
  drawSelect('quality', [['', 'Auto'], ...labels.map((label) => [label, label])], '');
  show(byId('quality-label'), labels.length > 1);
  video.classList.toggle('audio-only', levels.every((level) => !level.height));
}

// Writes which quality the player chose by itself.
function drawAutoQuality({ autoLevelEnabled, currentLevel, levels }) {
  const height = levels[currentLevel]?.height;
  write(byId('quality').options[0], height && autoLevelEnabled ? `Auto (${height}p)` : 'Auto');
}

function drawAudioTracks({ audioTrack, audioTracks }) {
  const label = ({ channels, lang, name }) => `${name || lang || 'Audio'}${channels > 2 ? `, ${channels} channels` : ''}`;
  drawSelect('sound', audioTracks.map((track, index) => [index, label(track)]), audioTrack);
}
