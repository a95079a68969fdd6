// One file's way to the server, in pieces. What breaks off goes on where it was, also where the page was loaded anew.
//
// Source: tus resumable upload protocol 1.0.0.

import { Problem, ask, auth, backoff, get, refusal, withKey } from './api.js';
import { keep, kept, pause } from './dom.js';

// Two of the pieces in which the server keeps an upload. The browser reads them from the disk as it sends them.
const PIECE = 10 * 1024 * 1024;
// Failures in a row without a byte more: about five minutes.
const TRIES = 25;
// How long a request may stand still.
const STILL_MS = 90_000;
// After a request broke off the server has its upload in hand for 5 s at most.
const DELETE_TRIES = 12;
const DELETE_AGAIN_MS = 1000;
// The rate is that of the last seconds.
const RATE_MS = 8000;
const VERSION = { 'Tus-Resumable': '1.0.0' };

const base64 = (text) => btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(''));

// By this a file is known that somebody picks again.
export const fingerprint = (file) => `spool-upload ${file.name} ${file.size} ${file.lastModified}`;

export class Upload {
  // `waiting`, `sending`, `away` (it is tried again), `done`, `failed` or `canceled`
  state = 'waiting';
  // Why it failed or is tried again.
  reason = '';
  // Bytes that were sent. What is sent twice is not taken back.
  sent = 0;
  // The job that it became.
  job = null;

  #url;
  #canceled = false;
  #request;
  #wake = new AbortController();
  #samples = [];

  constructor(file, onChange) {
    this.file = file;
    this.onChange = onChange;
  }

  // Sends until it is done, canceled, or cannot go on.
  async run() {
    this.#url = kept('localStorage', fingerprint(this.file));
    for (let failures = 0; !this.#canceled; ) {
      const before = this.sent;
      try {
        this.#is('sending');
        this.job = await this.#through();
        this.#forget();
        return this.#is('done');
      } catch (error) {
        if (this.#canceled) break;
        failures = this.sent > before ? 1 : failures + 1;
        const problem = await this.#judge(error);
        if (!problem.passes || failures > TRIES) return this.#is('failed', problem.message);
        this.#is('away', problem.message);
        await this.#pause(Math.max(problem.afterMs, backoff(failures)));
      }
    }
    await this.#giveUp();
    this.#is('canceled');
  }

  cancel() {
    this.#canceled = true;
    this.#request?.abort();
    this.hurry();
  }

  // Waits no longer: the network is back, say.
  hurry() {
    this.#wake.abort();
  }

  // Bytes per second, once that can be told.
  get rate() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const ms = last ? last.at - first.at : 0;
    return ms > 1000 ? ((last.sent - first.sent) * 1000) / ms : 0;
  }

  #is(state, reason = '') {
    [this.state, this.reason] = [state, reason];
    this.onChange();
  }

  #pause(ms) {
    this.#wake = new AbortController();
    return pause(ms, this.#wake.signal);
  }

  // Sends what is missing; gives the job.
  async #through() {
    const response = this.#url ? await this.#ask('HEAD') : await this.#begin();
    let offset = Number(response.headers.get('Upload-Offset'));
    this.#samples = [];
    this.#at(offset);
    while (offset < this.file.size) offset = await this.#send(offset, this.file.slice(offset, offset + PIECE));
    let upload = await get(this.#url);
    if (upload.state === 'open') {
      // All of it is there, and the server died before it wrote that down: a piece without bytes has another do it.
      await this.#send(offset, new Blob());
      upload = await get(this.#url);
    }
    return upload.job;
  }

  async #begin() {
    this.sent = 0;
    // `job` without a value: one with every choice left to Spool.
    const metadata = `filename ${base64(this.file.name)},job`;
    const headers = { ...VERSION, 'Upload-Length': String(this.file.size), 'Upload-Metadata': metadata };
    const response = await ask('/v1/uploads', { method: 'POST', headers });
    this.#url = response.headers.get('Location');
    keep('localStorage', fingerprint(this.file), this.#url);
    return response;
  }

  #ask(method) {
    return ask(this.#url, { method, headers: VERSION });
  }

  async #send(offset, piece) {
    const answer = await withKey(() => this.#patch(offset, piece));
    const header = (name) => answer.getResponseHeader(name);
    if (answer.status !== 204) throw refusal(answer.status, header, answer.responseText);
    const reached = Number(header('Upload-Offset'));
    this.#at(reached);
    return reached;
  }

  // By XMLHttpRequest: `fetch` does not tell how much of a body is sent.
  #patch(offset, piece) {
    return new Promise((resolve, reject) => {
      const broken = () => reject(new Problem(0, 'the connection broke off'));
      if (this.#canceled) return broken();
      const request = (this.#request = new XMLHttpRequest());
      let still;
      const moves = (sent) => {
        clearTimeout(still);
        still = setTimeout(() => request.abort(), STILL_MS);
        this.#at(offset + sent);
      };
      request.open('PATCH', this.#url);
      const headers = { ...VERSION, ...auth(), 'Upload-Offset': offset, 'Content-Type': 'application/offset+octet-stream' };
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => moves(event.loaded);
      request.onload = () => resolve(request);
      request.onerror = request.onabort = broken;
      request.onloadend = () => clearTimeout(still);
      moves(0);
      request.send(piece);
    });
  }

  #at(offset) {
    const at = performance.now();
    this.#samples.push({ at, sent: offset });
    while (at - this.#samples[0].at > RATE_MS) this.#samples.shift();
    this.sent = Math.max(this.sent, offset);
    this.onChange();
  }

  // What a failure means.
  async #judge(error) {
    if (!(error instanceof Problem)) return new Problem(400, String(error));
    if (error.status === 404 && this.#url) {
      this.#forget();
      this.#url = null;
      return new Problem(0, 'the server does not have it any more: from the start');
    }
    // A browser does not tell a file that cannot be read from a connection that broke off.
    const start = await this.file.slice(0, 1).arrayBuffer().catch(() => null);
    return start ? error : new Problem(400, 'the file cannot be read: it was changed or removed meanwhile, or is a folder');
  }

  #forget() {
    keep('localStorage', fingerprint(this.file), null);
  }

  // Has the server forget what was sent; what it could not be told it forgets in a day.
  async #giveUp() {
    this.#forget();
    for (let tries = 0; this.#url && tries < DELETE_TRIES; tries += 1) {
      const problem = await this.#ask('DELETE').then(() => null, (problem) => problem);
      if (!problem?.passes) return;
      await this.#pause(DELETE_AGAIN_MS);
    }
  }
}
