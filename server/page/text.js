// How numbers, times and states read.

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

export function bytes(count) {
  const unit = count < 1000 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), UNITS.length - 1);
  const value = count / 1000 ** unit;
  return `${value.toFixed(unit && value < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

export function seconds(count) {
  const whole = Math.max(0, Math.round(count));
  const [h, min, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (h) return `${h} h ${min} min`;
  return min ? `${min} min ${s} s` : `${s} s`;
}

// A place in a video, as players show it.
export function place(ms) {
  const whole = Math.round(ms / 1000);
  const [h, min, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, String(whole % 60).padStart(2, '0')];
  return h ? `${h}:${String(min).padStart(2, '0')}:${s}` : `${min}:${s}`;
}

export function clock(ms) {
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(undefined, { dateStyle: today ? undefined : 'medium', timeStyle: 'medium' });
}

export const counted = (count, one) => `${count.toLocaleString()} ${one}${count === 1 ? '' : 's'}`;

// Of a path or a URI the last part; of a statement all of it.
export function nameOf({ id, request: { source, sql } }) {
  const last = sql ?? source?.split(/[?#]/)[0].split('/').pop();
  try {
    return (sql ? last : decodeURIComponent(last)) || id;
  } catch {
    return last;
  }
}

export const ended = (job) => ['published', 'failed', 'canceled'].includes(job.state);

const WORDS = { pending: 'Waiting', planning: 'Planning', encoding: 'Encoding', publishing: 'Publishing', processing: 'Running' };

export function stateOf({ state, phase, cancel_requested: stops }) {
  if (state === 'processing') return stops ? 'Stopping' : (WORDS[phase] ?? WORDS.processing);
  return WORDS[state] ?? state[0].toUpperCase() + state.slice(1);
}

const KINDS = {
  not_found: 'Something is missing.',
  not_allowed: 'It is not allowed.',
  bad_input: 'This cannot be transcoded.',
  transient: 'Something did not answer or broke off: it may work if it is tried again.',
  bug: 'This is a defect of Spool.',
};

// Why a job waits. `ahead` is { count, more } of those that go before it, where that is known.
function waits(job, ahead, now) {
  const wait = (job.due_ms - now) / 1000;
  if (job.error) {
    const next = wait > 0 ? `in ${seconds(wait)}, at ${clock(job.due_ms)}` : 'when it is its turn';
    return `Tried ${counted(job.tries, 'time')}. It is tried again ${next}.`;
  }
  if (wait > 1) return `It is not begun before ${clock(job.due_ms)}.`;
  if (!ahead) return 'It waits for its turn.';
  const count = `${ahead.more ? 'more than ' : ''}${counted(ahead.count, 'job')}`;
  return ahead.count ? `It waits for its turn, behind ${count} of yours.` : 'It waits for its turn, and is the next of yours.';
}

function runs(job) {
  if (job.cancel_requested) return 'It is being stopped.';
  const far = job.rows ? `${job.rows_done} of ${counted(job.rows, 'segment')} done.` : 'Its source is being looked at.';
  return job.tries > 1 ? `${far} This is try ${job.tries}.` : far;
}

function made({ result, started_ms: started, ended_ms: end }) {
  const parts = [started && end && `took ${seconds((end - started) / 1000)}`];
  if (result?.renditions) {
    parts.unshift(seconds(result.duration_ms / 1000), counted(result.renditions.length, 'rendition'), bytes(result.bytes));
  }
  return parts.filter(Boolean).join(', ');
}

// How a job stands, in a sentence.
export function standing(job, ahead, now) {
  switch (job.state) {
    case 'pending':
      return waits(job, ahead, now);
    case 'processing':
      return runs(job);
    case 'published':
      return made(job);
    case 'failed':
      return KINDS[job.error?.kind] ?? job.error?.kind ?? '';
    default:
      return 'It was stopped.';
  }
}
