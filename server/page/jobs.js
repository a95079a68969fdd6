// The list of jobs: kept up to date by asking for it, and by streams of events of a few.

import { follow, get } from './api.js';
import { byId, say, show, write } from './dom.js';
import { Card } from './job.js';
import { ended, nameOf, stateOf } from './text.js';

const PAGE = 20;
const MOST = 1000;
const POLL_MS = 2000;
// Many that are shown are asked for less often.
const POLL_EACH_MS = 20;
const POLL_MOST_MS = 20_000;
// A browser opens six connections to a server, over all its windows: most are left for uploads, playback and questions.
const STREAMS = 2;
// So many that wait are looked at to say how many go before one, and so often.
const WAITING = 100;
const WAITING_MS = 5000;

// By id: { job, card, percent }. An id begins with the time: in the order of ids the jobs are listed.
const shown = new Map();
// By id: what ends the stream.
const streams = new Map();
let wanted = PAGE;
let waiting = {};
let failures = 0;
let timer;
// Who asks now: an answer to an earlier question comes too late.
let turn = 0;

export function start() {
  byId('more').addEventListener('click', () => {
    wanted = shown.size + PAGE;
    poll();
  });
  document.addEventListener('visibilitychange', () => (document.hidden ? rest() : poll()));
  poll();
}

// Gives the element of a job that is new.
export async function showJob(id) {
  await poll();
  return shown.get(id)?.card.node;
}

// Begins anew, as somebody else.
export function restart() {
  rest();
  for (const { card } of shown.values()) card.node.remove();
  shown.clear();
  [wanted, waiting] = [PAGE, {}];
  poll();
}

// Nobody looks: nothing is asked, and the connections are for others.
function rest() {
  turn += 1;
  clearTimeout(timer);
  for (const stop of streams.values()) stop.abort();
}

async function poll() {
  clearTimeout(timer);
  const mine = (turn += 1);
  try {
    const limit = Math.min(MOST, Math.max(wanted, shown.size));
    const { jobs, next } = await get(`/v1/jobs?limit=${limit}`);
    const others = await beforeOthers(jobs, next === null);
    if (mine !== turn) return;
    waiting = others;
    jobs.forEach(take);
    show(byId('empty'), jobs.length === 0);
    show(byId('more'), next !== null && limit < MOST, byId('jobs-title'));
    draw();
    failures = 0;
  } catch (error) {
    if (mine !== turn) return;
    failures += 1;
    write(byId('away'), `What is shown may be old: ${error.message}. Trying again.`);
  }
  show(byId('away'), failures > 0);
  timer = setTimeout(poll, Math.min(POLL_MOST_MS, Math.max(POLL_MS * (failures + 1), POLL_EACH_MS * shown.size)));
}

// Those that wait: among all jobs, or, where not all are shown, asked for now and then.
async function beforeOthers(jobs, all) {
  const waits = (job) => job.state === 'pending';
  if (all) return { pending: jobs.filter(waits) };
  const now = performance.now();
  if (now < waiting.until || !jobs.some(waits)) return waiting;
  const { jobs: pending, next } = await get(`/v1/jobs?state=pending&limit=${WAITING}`);
  return { pending, more: next !== null, until: now + WAITING_MS };
}

// How many go before a job, in the order in which the store hands them out: by priority, then by age.
function ahead({ id, priority }) {
  if (!waiting.pending) return null;
  const before = ({ id: other, due_ms: due, priority: its }) =>
    due <= Date.now() && (its > priority || (its === priority && other < id));
  return { count: waiting.pending.filter(before).length, more: waiting.more };
}

// Takes in what is known of a job, unless more is known already.
function take(job) {
  const old = shown.get(job.id);
  if (old && old.job.events > job.events) return;
  if (old && stateOf(old.job) !== stateOf(job)) say(`${nameOf(job)}: ${stateOf(job)}`);
  const card = old?.card ?? new Card(job, takeOne);
  // Who takes a job over begins to count anew: what was said is not taken back.
  shown.set(job.id, { job, card, percent: Math.max(old?.percent ?? 0, job.percent) });
}

function takeOne(job) {
  take(job);
  draw();
}

function draw() {
  const list = byId('jobs');
  let place = list.firstElementChild;
  for (const id of [...shown.keys()].sort().reverse()) {
    const { job, card, percent } = shown.get(id);
    card.draw(job, percent, ahead(job));
    // What is there already stays where it is: moved, it would lose the focus.
    if (card.node === place) place = place.nextElementSibling;
    else list.insertBefore(card.node, place);
  }
  connect();
}

// Follows those that run, and then those that are next.
function connect() {
  const alive = (id) => shown.has(id) && !ended(shown.get(id).job);
  for (const [id, stop] of streams) if (!alive(id)) stop.abort();
  if (document.hidden) return;
  const runs = (id) => Number(shown.get(id).job.state === 'processing');
  const others = [...shown.keys()].filter((id) => alive(id) && !streams.has(id));
  others.sort((a, b) => runs(b) - runs(a) || (a < b ? -1 : 1));
  for (const id of others.slice(0, Math.max(0, STREAMS - streams.size))) {
    const stop = new AbortController();
    streams.set(id, stop);
    follow(id, shown.get(id).job.events, stop.signal, (event) => happened(id, event)).finally(() => streams.delete(id));
  }
}

// Progress says all there is to know of it; after what else happens the job is asked for.
async function happened(id, { kind, sequence, data }) {
  const job = shown.get(id)?.job;
  if (!job || job.events >= sequence) return;
  if (kind === 'job.progress') takeOne({ ...job, ...data, events: sequence });
  else if (kind.startsWith('job.')) takeOne(await get(`/v1/jobs/${id}`).catch(() => job));
}
