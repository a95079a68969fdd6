// One job on the page.

import { get, post } from './api.js';
import { button, element, icon, say, show, write } from './dom.js';
import { bytes, clock, ended, nameOf, place, standing, stateOf } from './text.js';

// Segments that are shown at first, and more of each time.
const ROWS = 50;
const ROWS_MOST = 1000;
// How often what is open is asked for again, at most.
const DETAILS_MS = 2000;

export class Card {
  #details = new Details();

  // `take` takes in what the server answers about the job.
  constructor({ id, ...job }, take) {
    const name = nameOf({ id, ...job });
    const act = (action) => () => post(`/v1/jobs/${id}/${action}`).then(take, ({ message }) => this.#refused(message));
    this.icon = icon();
    this.word = element('span');
    this.bar = element('progress', { max: 100, 'aria-label': `How far ${name} is` });
    this.percent = element('span', { className: 'quiet' });
    this.far = element('div', { className: 'row far' }, this.bar, this.percent);
    this.says = element('p', { className: 'quiet' });
    this.reason = element('p', { className: 'reason' });
    this.play = element('a', { className: 'button first', textContent: 'Play', 'aria-label': `Play: ${name}` });
    this.cancel = button('Cancel', name, act('cancel'));
    this.retry = button('Try again', name, act('retry'));
    this.when = element('time', { className: 'quiet' });
    const state = element('span', { className: 'state' }, this.icon.svg, this.word);
    const head = element('div', { className: 'row' }, element('h3', { textContent: name }), state);
    const buttons = element('div', { className: 'row' }, this.play, this.cancel, this.retry, this.when);
    const parts = [head, this.far, this.says, this.reason, buttons, this.#details.node];
    this.node = element('li', { className: 'sheet', tabIndex: -1 }, ...parts);
    this.node.dataset.job = id;
  }

  #refused(message) {
    write(this.says, message);
    say(message);
  }

  draw(job, percent, ahead) {
    const { error, state, video } = job;
    const { node } = this;
    node.dataset.state = state;
    this.icon.draw(state === 'pending' && error ? 'again' : state);
    write(this.word, stateOf(job));
    this.bar.value = percent;
    write(this.percent, `${percent} %`);
    show(this.far, state !== 'published' && !(ended(job) && percent === 0));
    write(this.says, standing(job, ahead, Date.now()));
    // The server's own words. Of a job that runs again they are about the try before.
    write(this.reason, error ? `${state === 'processing' ? 'The try before: ' : ''}${error.message}` : '');
    this.reason.classList.toggle('bad', state === 'failed');
    show(this.reason, error !== null);
    this.play.href = `#/videos/${video}`;
    show(this.play, state === 'published' && video !== null, node);
    show(this.cancel, !ended(job) && !job.cancel_requested, node);
    show(this.retry, state === 'failed' || state === 'canceled', node);
    write(this.when, `${job.ended_ms ? 'ended' : 'asked for'} ${clock(job.ended_ms ?? job.created_ms)}`);
    this.#details.draw(job);
  }
}

// What else there is to know: asked for once somebody wants to know, and again as it changes.
class Details {
  #job;
  #limit = ROWS;
  #seen = 0;
  #at = -DETAILS_MS;

  constructor() {
    this.facts = element('dl');
    this.error = element('p', { className: 'reason bad', hidden: true });
    this.rows = element('tbody');
    const heads = ['Segment', 'From', 'Length', 'State', 'Tries'].map((text) => element('th', { textContent: text, scope: 'col' }));
    const table = element('table', {}, element('thead', {}, element('tr', {}, ...heads)), this.rows);
    // On a phone it may be too wide: it scrolls by itself, for keyboards too.
    this.wide = element('div', { className: 'wide', tabIndex: 0, role: 'region', 'aria-label': 'Segments', hidden: true }, table);
    this.more = element('button', { type: 'button', textContent: 'More segments', hidden: true, onclick: () => this.#more() });
    this.attempts = element('ul', { className: 'list', 'aria-label': 'Attempts that gave nothing' });
    const parts = [this.facts, this.error, this.wide, this.more, this.attempts];
    this.node = element('details', {}, element('summary', { textContent: 'Details' }), ...parts);
    this.node.addEventListener('toggle', () => this.draw(this.#job));
  }

  draw(job) {
    this.#job = job;
    if (!this.node.open) return;
    this.#facts(job);
    if (this.#seen !== job.events && performance.now() - this.#at > DETAILS_MS) this.#ask();
  }

  #more() {
    this.#limit = Math.min(ROWS_MOST, this.#limit + ROWS);
    this.#ask();
  }

  async #ask() {
    const { id, events } = this.#job;
    [this.#seen, this.#at] = [events, performance.now()];
    try {
      const { rows, next } = await get(`/v1/jobs/${id}/rows?limit=${this.#limit}`);
      const { attempts } = await get(`/v1/jobs/${id}/attempts`);
      this.rows.replaceChildren(...rows.map((row) => segment(row, ended(this.#job))));
      show(this.wide, rows.length > 0);
      show(this.more, next !== null && this.#limit < ROWS_MOST, this.wide);
      this.attempts.replaceChildren(...attempts.map(attempt));
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
      Made: result?.renditions?.map(({ name, codecs, bytes: size }) => `${name} (${codecs}, ${bytes(size)})`).join(', '),
      Tries: String(tries),
      'Asked for': clock(created),
      Begun: started && clock(started),
    };
    const given = Object.entries(facts).filter(([, value]) => value);
    const text = given.flat().join('');
    // Not drawn anew where nothing changed: it may be selected, to be copied.
    if (text === this.facts.textContent) return;
    this.facts.replaceChildren(...given.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
  }
}

function segment({ track, track_index: index, start_ms: start, duration_ms: length, state, done_ms: done, attempts }, over) {
  const far = state === 'running' ? `${state}, ${Math.floor((100 * done) / length)} %` : state;
  const cells = [`${track} ${index}`, place(start), place(length), over && state !== 'done' ? 'not done' : far, String(attempts)];
  return element('tr', {}, ...cells.map((textContent) => element('td', { textContent })));
}

function attempt({ row, attempt, at_ms: at, reason }) {
  const head = element('p', {}, `Attempt ${attempt} at row ${row}, ${clock(at)}`);
  return element('li', {}, head, element('pre', { textContent: reason, tabIndex: 0, 'aria-label': 'Reason' }));
}
