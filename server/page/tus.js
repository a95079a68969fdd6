// Upload of one file by tus, in parts. An interrupted upload is resumed, also after the page was reloaded.
//
// Source: tus resumable upload protocol 1.0.0.

import { Problem, auth, backoff, get, problemOf, request, withKey } from './api.js';
import { pause, readStorage, writeStorage } from './dom.js';

// Bytes per request: two parts of the server's. The browser reads them from the disk as it sends them.
const CHUNK_BYTES = 10 * 1024 * 1024;
// Failures in a row without progress: about five minutes.
const MAX_FAILURES = 25;
// Longest time without progress of a request.
const STALL_TIMEOUT_MS = 90_000;
// After a request was interrupted, the server keeps the upload locked for 5 s at most.
const MAX_DELETE_ATTEMPTS = 12;
const DELETE_RETRY_DELAY_MS = 1000;
// The transfer rate is measured over this time.
const RATE_WINDOW_MS = 8000;
const VERSION = { 'Tus-Resumable': '1.0.0' };

const base64 = (text) => btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(''));

// Storage item of a file's upload: recognizes a file that is chosen again.
export const fingerprint = (file) => `spool-upload ${file.name} ${file.size} ${file.lastModified}`;

export class Upload {
  // `queued`, `sending`, `retrying`, `done`, `failed` or `canceled`
  state = 'queued';
  // Why the upload failed or is retried.
  reason = '';
  // Bytes sent. Bytes that are sent again do not lower it.
  sent = 0;
  // The job of the finished upload.
  job = null;

  #url;
  #canceled = false;
  #xhr;
  #wake = new AbortController();
  #samples = [];

  constructor(file, onChange) {
    this.file = file;
    this.onChange = onChange;
  }

  // Sends until the upload is done or canceled, or fails for good.
  async run() {
    this.#url = readStorage('localStorage', fingerprint(this.file));
    for (let failures = 0; !this.#canceled; ) {
      const before = this.sent;
      try {
        this.#setState('sending');
        this.job = await this.#resume();
        this.#forget();
        return this.#setState('done');
      } catch (error) {
        if (this.#canceled) break;
        failures = this.sent > before ? 1 : failures + 1;
        const problem = await this.#problemOf(error);
        if (!problem.retryable || failures > MAX_FAILURES) return this.#setState('failed', problem.message);
        this.#setState('retrying', problem.message);
        await this.#pause(Math.max(problem.retryAfterMs, backoff(failures)));
      }
    }
    await this.#delete();
    this.#setState('canceled');
  }

  cancel() {
    this.#canceled = true;
    this.#xhr?.abort();
    this.retryNow();
  }

  // Ends a wait before a retry: the network is back, for example.
  retryNow() {
    this.#wake.abort();
  }

  // Bytes per second; 0 until enough was measured.
  get rate() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const ms = last ? last.at - first.at : 0;
    return ms > 1000 ? ((last.sent - first.sent) * 1000) / ms : 0;
  }

  #setState(state, reason = '') {
    [this.state, this.reason] = [state, reason];
    this.onChange();
  }

  #pause(ms) {
    this.#wake = new AbortController();
    return pause(ms, this.#wake.signal);
  }

  // Sends the bytes that the server does not have; returns the job.
  async #resume() {
    const response = this.#url ? await this.#request('HEAD') : await this.#create();
    let offset = Number(response.headers.get('Upload-Offset'));
    this.#samples = [];
    this.#reached(offset);
    while (offset < this.file.size) offset = await this.#send(offset, this.file.slice(offset, offset + CHUNK_BYTES));
    let upload = await get(this.#url);
    if (upload.state === 'open') {
      // A server died after the last byte, before it finished the upload: an empty chunk has another server
      // finish it.
      await this.#send(offset, new Blob());
      upload = await get(this.#url);
    }
    return upload.job;
  }

  async #create() {
    this.sent = 0;
    // `job` without a value: a job with the server's defaults.
    const metadata = [`filename ${base64(this.file.name)}`, 'job'];
    if (this.file.type) metadata.push(`filetype ${base64(this.file.type)}`);
    const headers = { ...VERSION, 'Upload-Length': String(this.file.size), 'Upload-Metadata': metadata.join() };
    const response = await request('/v1/uploads', { method: 'POST', headers });
    this.#url = response.headers.get('Location');
    writeStorage('localStorage', fingerprint(this.file), this.#url);
    return response;
  }

  #request(method) {
    return request(this.#url, { method, headers: VERSION });
  }

  async #send(offset, chunk) {
    const response = await withKey(() => this.#patch(offset, chunk));
    const header = (name) => response.getResponseHeader(name);
    if (response.status !== 204) throw problemOf(response.status, header, response.responseText);
    const reached = Number(header('Upload-Offset'));
    this.#reached(reached);
    return reached;
  }

  // Uses XMLHttpRequest: `fetch` does not report how much of a body is sent.
  #patch(offset, chunk) {
    return new Promise((resolve, reject) => {
      const fail = () => reject(new Problem(0, 'the connection was interrupted'));
      if (this.#canceled) return fail();
      const xhr = (this.#xhr = new XMLHttpRequest());
      let stall;
      const onProgress = (sent) => {
        clearTimeout(stall);
        stall = setTimeout(() => xhr.abort(), STALL_TIMEOUT_MS);
        this.#reached(offset + sent);
      };
      xhr.open('PATCH', this.#url);
      const headers = { ...VERSION, ...auth(), 'Upload-Offset': offset, 'Content-Type': 'application/offset+octet-stream' };
      for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
      xhr.upload.onprogress = (event) => onProgress(event.loaded);
      xhr.onload = () => resolve(xhr);
      xhr.onerror = xhr.onabort = fail;
      xhr.onloadend = () => clearTimeout(stall);
      onProgress(0);
      xhr.send(chunk);
    });
  }

  #reached(offset) {
    const at = performance.now();
    this.#samples.push({ at, sent: offset });
    while (at - this.#samples[0].at > RATE_WINDOW_MS) this.#samples.shift();
    this.sent = Math.max(this.sent, offset);
    this.onChange();
  }

  // Returns the problem behind an error.
  async #problemOf(error) {
    if (!(error instanceof Problem)) return new Problem(400, String(error));
    if (error.status === 404 && this.#url) {
      this.#forget();
      this.#url = null;
      return new Problem(0, 'the server no longer has this upload; it starts again');
    }
    // A browser reports a file that cannot be read and an interrupted connection alike.
    const start = await this.file.slice(0, 1).arrayBuffer().catch(() => null);
    return start ? error : new Problem(400, 'failed to read the file: it was changed or removed, or is a folder');
  }

  #forget() {
    writeStorage('localStorage', fingerprint(this.file), null);
  }

  // Deletes the upload on the server. If that fails, the upload expires in a day.
  async #delete() {
    this.#forget();
    for (let attempts = 0; this.#url && attempts < MAX_DELETE_ATTEMPTS; attempts += 1) {
      const problem = await this.#request('DELETE').then(() => null, (problem) => problem);
      if (!problem?.retryable) return;
      await this.#pause(DELETE_RETRY_DELAY_MS);
    }
  }
}
