// Text for numbers, times and states of jobs.

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

// Returns a position in a video, as players show it.
export function position(ms) {
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

// Returns the name of a job: the last component of its source, or its SQL text.
export function nameOf({ id, request: { source, sql } }) {
  const last = sql ?? source?.split(/[?#]/)[0].split('/').pop();
  try {
    return (sql ? last : decodeURIComponent(last)) || id;
  } catch {
    return last;
  }
}

export const ended = (job) => ['published', 'failed', 'canceled'].includes(job.state);

const STATES = { pending: 'Queued', planning: 'Planning', encoding: 'Encoding', publishing: 'Publishing', processing: 'Running' };

export function stateOf({ state, phase, cancel_requested: canceling }) {
  if (state === 'processing') return canceling ? 'Canceling' : (STATES[phase] ?? STATES.processing);
  return STATES[state] ?? state[0].toUpperCase() + state.slice(1);
}

const ERROR_KINDS = {
  not_found: 'A file or a bucket does not exist.',
  not_allowed: 'Access was denied.',
  bad_input: 'The source or the request is invalid.',
  transient: 'A service failed or did not answer. A retry may succeed.',
  bug: 'This is a defect of Spool.',
};

// Returns why a job is queued. `ahead` is { count, more } of the jobs before it, if known.
function queuedText(job, ahead, now) {
  const wait = (job.due_ms - now) / 1000;
  if (job.error) {
    const next = wait > 0 ? `in ${seconds(wait)}, at ${clock(job.due_ms)}` : 'when a slot is free';
    return `Failed ${counted(job.tries, 'time')}. Next attempt ${next}.`;
  }
  if (wait > 1) return `Starts at ${clock(job.due_ms)} or later.`;
  if (!ahead) return 'Queued.';
  const count = `${ahead.more ? 'more than ' : ''}${counted(ahead.count, 'job')}`;
  return ahead.count ? `Queued behind ${count} of yours.` : 'Queued, the next of your jobs.';
}

function runningText(job) {
  if (job.cancel_requested) return 'Cancellation requested.';
  const progress = job.rows ? `${job.rows_done} of ${counted(job.rows, 'segment')} done.` : 'Reading the source.';
  return job.tries > 1 ? `${progress} Attempt ${job.tries}.` : progress;
}

function publishedText({ result, started_ms: started, ended_ms: end }) {
  const parts = [started && end && `took ${seconds((end - started) / 1000)}`];
  if (result?.renditions) {
    parts.unshift(seconds(result.duration_ms / 1000), counted(result.renditions.length, 'rendition'), bytes(result.bytes));
  }
  return parts.filter(Boolean).join(', ');
}

// Returns the status of a job in a sentence.
export function statusOf(job, ahead, now) {
  switch (job.state) {
    case 'pending':
      return queuedText(job, ahead, now);
    case 'processing':
      return runningText(job);
    case 'published':
      return publishedText(job);
    case 'failed':
      return ERROR_KINDS[job.error?.kind] ?? job.error?.kind ?? '';
    default:
      return 'Canceled on request.';
  }
}
