// One job on the page.

import { get, post } from './api.js';
import { announce, button, element, icon, show, write } from './dom.js';
import { bytes, clock, ended, nameOf, position, stateOf, statusOf } from './text.js';

// Rows shown at first, and added each time.
const ROWS_STEP = 50;
const MAX_ROWS = 1000;
// Shortest time between two requests for the details of a job.
const DETAILS_INTERVAL_MS = 2000;

export class Card {
  #details = new Details();

  // `update` receives the job that the server returns.
  constructor({ id, ...job }, update) {
    const name = nameOf({ id, ...job });
    const act = (action) => () => post(`/v1/jobs/${id}/${action}`).then(update, ({ message }) => this.#fail(message));
    this.icon = icon();
    this.state = element('span');
    this.bar = element('progress', { max: 100, 'aria-label': `Progress of ${name}` });
    this.percent = element('span', { className: 'quiet' });
    this.progress = element('div', { className: 'row progress' }, this.bar, this.percent);
    this.status = element('p', { className: 'quiet' });
    this.reason = element('p', { className: 'reason' });
    this.play = element('a', { className: 'button primary', textContent: 'Play', 'aria-label': `Play: ${name}` });
    this.cancel = button('Cancel', name, act('cancel'));
    this.retry = button('Retry', name, act('retry'));
    this.when = element('time', { className: 'quiet' });
    const state = element('span', { className: 'state' }, this.icon.svg, this.state);
    const head = element('div', { className: 'row' }, element('h3', { textContent: name }), state);
    const buttons = element('div', { className: 'row' }, this.play, this.cancel, this.retry, this.when);
    const parts = [head, this.progress, this.status, this.reason, buttons, this.#details.node];
    this.node = element('li', { className: 'card', tabIndex: -1 }, ...parts);
    this.node.dataset.job = id;
  }

  #fail(message) {
    write(this.status, message);
    announce(message);
  }

  draw(job, percent, ahead) {
    const { error, state, video } = job;
    const { node } = this;
    node.dataset.state = state;
    this.icon.draw(state === 'pending' && error ? 'retry' : state);
    write(this.state, stateOf(job));
    this.bar.value = percent;
    write(this.percent, `${percent} %`);
    show(this.progress, state !== 'published' && !(ended(job) && percent === 0));
    write(this.status, statusOf(job, ahead, Date.now()));
    // The server's message. While a job is retried, it is the error of the attempt before.
    write(this.reason, error ? `${state === 'processing' ? 'Last attempt: ' : ''}${error.message}` : '');
    this.reason.classList.toggle('bad', state === 'failed');
    show(this.reason, error !== null);
    this.play.href = `#/videos/${video}`;
    show(this.play, state === 'published' && video !== null, node);
    show(this.cancel, !ended(job) && !job.cancel_requested, node);
    show(this.retry, state === 'failed' || state === 'canceled', node);
    write(this.when, `${job.ended_ms ? 'ended' : 'created'} ${clock(job.ended_ms ?? job.created_ms)}`);
    this.#details.draw(job);
  }
}

// Facts, rows and failed attempts of a job: requested when the user opens them, and again when the job
// changes.
class Details {
  #job;
  #limit = ROWS_STEP;
  #seenEvents = 0;
  #requestedAt = -DETAILS_INTERVAL_MS;

  constructor() {
    this.facts = element('dl');
    this.error = element('p', { className: 'reason bad', hidden: true });
    this.rows = element('tbody');
    const heads = ['Segment', 'Start', 'Duration', 'State', 'Attempts'].map((text) => element('th', { textContent: text, scope: 'col' }));
    const table = element('table', {}, element('thead', {}, element('tr', {}, ...heads)), this.rows);
    // On a phone the table may be too wide for the page: its region scrolls, also by keyboard.
    this.wide = element('div', { className: 'wide', tabIndex: 0, role: 'region', 'aria-label': 'Segments', hidden: true }, table);
    this.more = element('button', { type: 'button', textContent: 'More segments', hidden: true, onclick: () => this.#more() });
    this.attempts = element('ul', { className: 'list', 'aria-label': 'Failed attempts' });
    const parts = [this.facts, this.error, this.wide, this.more, this.attempts];
    this.node = element('details', {}, element('summary', { textContent: 'Details' }), ...parts);
    this.node.addEventListener('toggle', () => this.draw(this.#job));
  }

  draw(job) {
    this.#job = job;
    if (!this.node.open) return;
    this.#facts(job);
    if (this.#seenEvents !== job.events && performance.now() - this.#requestedAt > DETAILS_INTERVAL_MS) this.#load();
  }

  #more() {
    this.#limit = Math.min(MAX_ROWS, this.#limit + ROWS_STEP);
    this.#load();
  }

  async #load() {
    const { id, events } = this.#job;
    [this.#seenEvents, this.#requestedAt] = [events, performance.now()];
    try {
      const { rows, next } = await get(`/v1/jobs/${id}/rows?limit=${this.#limit}`);
      const { attempts } = await get(`/v1/jobs/${id}/attempts`);
      this.rows.replaceChildren(...rows.map((row) => rowOf(row, ended(this.#job))));
      show(this.wide, rows.length > 0);
      show(this.more, next !== null && this.#limit < MAX_ROWS, this.wide);
      this.attempts.replaceChildren(...attempts.map(attemptOf));
      show(this.error, false);
    } catch (error) {
      write(this.error, error.message);
      show(this.error, true);
    }
  }

  #facts({ id, video, request, result, tries, created_ms: created, started_ms: started }) {
    const facts = {
      Job: id,
      Video: video,
      Source: request.source,
      Destination: request.destination,
      Ladder: request.ladder,
      Renditions: result?.renditions?.map(({ name, codecs, bytes: size }) => `${name} (${codecs}, ${bytes(size)})`).join(', '),
      Attempts: String(tries),
      Created: clock(created),
      Started: started && clock(started),
    };
    const given = Object.entries(facts).filter(([, value]) => value);
    const text = given.flat().join('');
    // Not replaced unless it changed: the user may have selected it, to copy it.
    if (text === this.facts.textContent) return;
    this.facts.replaceChildren(...given.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
  }
}

function rowOf({ track, track_index: index, start_ms: start, duration_ms: length, state, done_ms: done, attempts }, jobEnded) {
  const progress = state === 'running' ? `${state}, ${Math.floor((100 * done) / length)} %` : state;
  const cells = [`${track} ${index}`, position(start), position(length), jobEnded && state !== 'done' ? 'not done' : progress, String(attempts)];
  return element('tr', {}, ...cells.map((textContent) => element('td', { textContent })));
}

function attemptOf({ ordinal, attempt, at_ms: at, reason }) {
  const head = element('p', {}, `Attempt ${attempt} of row ${ordinal}, ${clock(at)}`);
  return element('li', {}, head, element('pre', { textContent: reason, tabIndex: 0, 'aria-label': 'Reason' }));
}
