// What the server is asked, and what its refusals say.

import { keep, kept, pause } from './dom.js';

// The server begins an answer within 30 s, or says that it is late.
const ANSWER_MS = 35_000;
const AGAIN_MS = 500;
const AGAIN_MOST_MS = 15_000;
const KEY = 'spool-key';

// The growing wait after so many failures, never quite the same: many pages do not come back at once.
export const backoff = (failures) => Math.min(AGAIN_MOST_MS, AGAIN_MS * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);

// Why something was refused. Status 0: there was no answer at all.
export class Problem extends Error {
  constructor(status, detail, afterMs = 0) {
    super(detail);
    [this.status, this.afterMs] = [status, afterMs];
  }

  // May the same request do later?
  get passes() {
    return [0, 408, 409, 423, 429].includes(this.status) || this.status >= 500;
  }
}

// A refusal, by its status, its headers and its body.
//
// Source: RFC 9457.
export function refusal(status, header, body) {
  let said;
  try {
    said = JSON.parse(body).detail;
  } catch {
    // It is not of Spool, but of a proxy before it, or has no body.
  }
  return new Problem(status, said ?? `the server answered ${status}`, 1000 * Number(header('Retry-After')) || 0);
}

const refused = async (response) => refusal(response.status, (name) => response.headers.get(name), await response.text());

let key = kept('sessionStorage', KEY);
// Ends once somebody gives a key.
let wanted = null;
let wantKey;

export const hasKey = () => key !== null;
export const auth = () => (hasKey() ? { Authorization: `Bearer ${key}` } : {});

export function setKey(value) {
  key = value;
  keep('sessionStorage', KEY, value);
  wanted?.abort();
  wanted = null;
}

// `want(tried)` asks for a key; `setKey` gives it.
export const onKeyWanted = (want) => (wantKey = want);

// Sends, and where this key does not do, again with the next.
export async function withKey(send) {
  for (;;) {
    const used = key;
    const answer = await send();
    if (answer.status !== 401) return answer;
    if (used !== key) continue;
    if (!wanted) {
      wanted = new AbortController();
      wantKey(hasKey());
    }
    const { signal } = wanted;
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  }
}

// An answer that is no refusal.
export async function ask(path, { method = 'GET', headers, body, signal } = {}) {
  const late = () => AbortSignal.timeout(ANSWER_MS);
  const send = () => fetch(path, { method, body, headers: { ...headers, ...auth() }, cache: 'no-store', signal: signal ?? late() });
  const response = await withKey(send).catch(() => {
    throw new Problem(0, 'the server does not answer');
  });
  if (!response.ok) throw await refused(response);
  return response;
}

export const get = async (path) => (await ask(path)).json();

export async function post(path, body) {
  const typed = body && { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } };
  return (await ask(path, { method: 'POST', ...typed })).json();
}

// Follows a job's events from behind a number until it ends, the signal fires, or the server refuses. `EventSource` sends no key.
export async function follow(id, seen, signal, onEvent) {
  for (let failures = 1; !signal.aborted; failures += 1) {
    try {
      const headers = { Accept: 'text/event-stream', 'Last-Event-ID': String(seen) };
      const { status, body } = await ask(`/v1/jobs/${id}/events`, { headers, signal });
      if (status === 204) return;
      const read = events((data) => {
        const event = JSON.parse(data);
        [seen, failures] = [event.sequence, 0];
        onEvent(event);
      });
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece; !(piece = await reader.read()).done; ) read(piece.value);
    } catch (error) {
      if (error instanceof Problem && !error.passes) return;
    }
    await pause(backoff(Math.max(failures, 1)), signal);
  }
}

// Takes a stream of server-sent events in pieces, wherever they are cut, and hands on the data of each.
//
// Source: HTML Living Standard, section 9.2.6.
export function events(onData) {
  let [rest, data] = ['', []];
  const take = (line) => {
    if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5));
    if (line !== '') return;
    if (data.length) onData(data.join('\n'));
    data = [];
  };
  return (piece) => {
    // A carriage return at the end may be half of an end of line.
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    lines.forEach(take);
  };
}
