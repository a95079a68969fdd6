// Client of the HTTP API: requests, problem documents, the API key, and event streams.

import { pause, readStorage, writeStorage } from './dom.js';

// The server answers within 30 s, if only with a timeout.
const REQUEST_TIMEOUT_MS = 35_000;
const RETRY_DELAY_MS = 500;
const MAX_RETRY_DELAY_MS = 15_000;
const KEY_ITEM = 'spool-key';

// Returns the wait after this many failures in a row: exponential, with jitter so that many pages do not
// retry at once.
export const backoff = (failures) =>
  Math.min(MAX_RETRY_DELAY_MS, RETRY_DELAY_MS * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);

// A failed request. Status 0: no answer arrived.
export class Problem extends Error {
  constructor(status, detail, retryAfterMs = 0) {
    super(detail);
    [this.status, this.retryAfterMs] = [status, retryAfterMs];
  }

  // Returns whether an equal request may succeed later.
  get retryable() {
    return [0, 408, 409, 423, 429].includes(this.status) || this.status >= 500;
  }
}

// Returns the problem that a response describes.
//
// Source: RFC 9457.
export function problemOf(status, header, body) {
  let detail;
  try {
    detail = JSON.parse(body).detail;
  } catch {
    // The response is a proxy's, or has no body.
  }
  return new Problem(status, detail ?? `the server answered ${status}`, 1000 * Number(header('Retry-After')) || 0);
}

const readProblem = async (response) =>
  problemOf(response.status, (name) => response.headers.get(name), await response.text());

let key = readStorage('sessionStorage', KEY_ITEM);
// Aborts when a key is set: requests that wait for one are repeated.
let keyRequest = null;
let requestKey;

export const hasKey = () => key !== null;
export const auth = () => (hasKey() ? { Authorization: `Bearer ${key}` } : {});

export function setKey(value) {
  key = value;
  writeStorage('sessionStorage', KEY_ITEM, value);
  keyRequest?.abort();
  keyRequest = null;
}

// Sets the function that asks for a key; its argument tells whether one was refused. `setKey` sets the
// answer.
export const onKeyRequired = (request) => (requestKey = request);

// Sends a request; if the key is refused, repeats it with the next one.
export async function withKey(send) {
  for (;;) {
    const used = key;
    const response = await send();
    if (response.status !== 401) return response;
    if (used !== key) continue;
    if (!keyRequest) {
      keyRequest = new AbortController();
      requestKey(hasKey());
    }
    const { signal } = keyRequest;
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  }
}

// Sends a request and returns its response; throws a `Problem` unless it succeeded.
export async function request(path, { method = 'GET', headers, body, signal } = {}) {
  const timeout = () => AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const options = () => ({ method, body, headers: { ...headers, ...auth() }, cache: 'no-store', signal: signal ?? timeout() });
  const send = () => fetch(path, options());
  const response = await withKey(send).catch(() => {
    throw new Problem(0, 'the server does not answer');
  });
  if (!response.ok) throw await readProblem(response);
  return response;
}

export const get = async (path) => (await request(path)).json();

export async function post(path, body) {
  const json = body && { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } };
  return (await request(path, { method: 'POST', ...json })).json();
}

// Follows a job's events after a sequence number until the job ends, the signal fires, or the server refuses.
// `EventSource` would send no key.
export async function follow(id, seen, signal, onEvent) {
  for (let failures = 1; !signal.aborted; failures += 1) {
    try {
      const headers = { Accept: 'text/event-stream', 'Last-Event-ID': String(seen) };
      const { status, body } = await request(`/v1/jobs/${id}/events`, { headers, signal });
      if (status === 204) return;
      const parse = eventParser((data) => {
        const event = JSON.parse(data);
        [seen, failures] = [event.sequence, 0];
        onEvent(event);
      });
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      for (let chunk; !(chunk = await reader.read()).done; ) parse(chunk.value);
    } catch (error) {
      if (error instanceof Problem && !error.retryable) return;
    }
    await pause(backoff(Math.max(failures, 1)), signal);
  }
}

// Returns a parser of server-sent events, which is called with chunks of the stream and calls `onData` with
// each event's data.
//
// Source: HTML Living Standard, section 9.2.6.
export function eventParser(onData) {
  let [rest, data] = ['', []];
  const parseLine = (line) => {
    if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5));
    if (line !== '') return;
    if (data.length) onData(data.join('\n'));
    data = [];
  };
  return (chunk) => {
    // A carriage return at the end of a chunk may be half of a line end.
    const lines = (rest + chunk).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    lines.forEach(parseLine);
  };
}
