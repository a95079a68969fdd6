// The list of jobs, kept current by polling, and by event streams of a few jobs.

import { follow, get } from './api.js';
import { announce, byId, show, write } from './dom.js';
import { Card } from './job.js';
import { ended, nameOf, stateOf } from './text.js';

const PAGE = 20;
const MAX_JOBS = 1000;
const POLL_INTERVAL_MS = 2000;
// A longer list is polled less often.
const POLL_INTERVAL_PER_JOB_MS = 20;
const MAX_POLL_INTERVAL_MS = 20_000;
// A browser opens at most six connections to a server, over all its windows: most are left for uploads,
// playback and polls.
const MAX_STREAMS = 2;
// Pending jobs that are requested to find a job's position in the queue, and how often.
const MAX_PENDING = 100;
const PENDING_INTERVAL_MS = 5000;

// By ID: { job, card, percent }. An ID begins with its time, so jobs are listed in the order of their IDs.
const shown = new Map();
// By ID: the abort controller of the job's event stream.
const streams = new Map();
let wanted = PAGE;
let queue = {};
let failures = 0;
let timer;
// Number of the latest poll: answers to earlier ones are ignored.
let latestPoll = 0;

export function start() {
  byId('more').addEventListener('click', () => {
    wanted = shown.size + PAGE;
    poll();
  });
  document.addEventListener('visibilitychange', () => (document.hidden ? stop() : poll()));
  poll();
}

// Returns the element of a new job.
export async function showJob(id) {
  await poll();
  return shown.get(id)?.card.node;
}

// Clears the list and loads it again, for another key.
export function restart() {
  stop();
  for (const { card } of shown.values()) card.node.remove();
  shown.clear();
  [wanted, queue] = [PAGE, {}];
  poll();
}

// Stops polling and closes the streams while the page is hidden: it needs none, and connections are few.
function stop() {
  latestPoll += 1;
  clearTimeout(timer);
  for (const controller of streams.values()) controller.abort();
}

async function poll() {
  clearTimeout(timer);
  const mine = (latestPoll += 1);
  try {
    const limit = Math.min(MAX_JOBS, Math.max(wanted, shown.size));
    const { jobs, next } = await get(`/v1/jobs?limit=${limit}`);
    const pending = await readQueue(jobs, next === null);
    if (mine !== latestPoll) return;
    queue = pending;
    jobs.forEach(update);
    show(byId('empty'), jobs.length === 0);
    show(byId('more'), next !== null && limit < MAX_JOBS, byId('jobs-title'));
    draw();
    failures = 0;
  } catch (error) {
    if (mine !== latestPoll) return;
    failures += 1;
    write(byId('outage'), `This list may be out of date: ${error.message}. Retrying.`);
  }
  show(byId('outage'), failures > 0);
  const interval = Math.max(POLL_INTERVAL_MS * (failures + 1), POLL_INTERVAL_PER_JOB_MS * shown.size);
  timer = setTimeout(poll, Math.min(MAX_POLL_INTERVAL_MS, interval));
}

// Returns the pending jobs: taken from the list if it is complete, else requested at an interval of their
// own.
async function readQueue(jobs, complete) {
  const isPending = (job) => job.state === 'pending';
  if (complete) return { pending: jobs.filter(isPending) };
  const now = performance.now();
  if (now < queue.until || !jobs.some(isPending)) return queue;
  const { jobs: pending, next } = await get(`/v1/jobs?state=pending&limit=${MAX_PENDING}`);
  return { pending, more: next !== null, until: now + PENDING_INTERVAL_MS };
}

// Returns how many jobs are leased before a job: those of higher priority, then the older ones.
function ahead({ id, priority }) {
  if (!queue.pending) return null;
  const before = ({ id: other, due_ms: due, priority: its }) =>
    due <= Date.now() && (its > priority || (its === priority && other < id));
  return { count: queue.pending.filter(before).length, more: queue.more };
}

// Updates a job, unless the list already holds a later state of it.
function update(job) {
  const old = shown.get(job.id);
  if (old && old.job.events > job.events) return;
  if (old && stateOf(old.job) !== stateOf(job)) announce(`${nameOf(job)}: ${stateOf(job)}`);
  const card = old?.card ?? new Card(job, updateOne);
  // A dispatcher that takes over a job counts its progress from 0: the bar does not go back.
  shown.set(job.id, { job, card, percent: Math.max(old?.percent ?? 0, job.percent) });
}

function updateOne(job) {
  update(job);
  draw();
}

function draw() {
  const list = byId('jobs');
  let place = list.firstElementChild;
  for (const id of [...shown.keys()].sort().reverse()) {
    const { job, card, percent } = shown.get(id);
    card.draw(job, percent, ahead(job));
    // An element that is in its place is not moved: it would lose the focus.
    if (card.node === place) place = place.nextElementSibling;
    else list.insertBefore(card.node, place);
  }
  connect();
}

// Opens event streams for running jobs, then for those that are leased next.
function connect() {
  const isActive = (id) => shown.has(id) && !ended(shown.get(id).job);
  for (const [id, controller] of streams) if (!isActive(id)) controller.abort();
  if (document.hidden) return;
  const isRunning = (id) => Number(shown.get(id).job.state === 'processing');
  const candidates = [...shown.keys()].filter((id) => isActive(id) && !streams.has(id));
  candidates.sort((a, b) => isRunning(b) - isRunning(a) || (a < b ? -1 : 1));
  for (const id of candidates.slice(0, Math.max(0, MAX_STREAMS - streams.size))) {
    const controller = new AbortController();
    streams.set(id, controller);
    const { events } = shown.get(id).job;
    follow(id, events, controller.signal, (event) => onEvent(id, event)).finally(() => streams.delete(id));
  }
}

// Applies a progress event, which holds all that changed; after any other event of the job it is requested.
async function onEvent(id, { kind, sequence, data }) {
  const job = shown.get(id)?.job;
  if (!job || job.events >= sequence) return;
  if (kind === 'job.progress') updateOne({ ...job, ...data, events: sequence });
  else if (kind.startsWith('job.')) updateOne(await get(`/v1/jobs/${id}`).catch(() => job));
}
