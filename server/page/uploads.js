// The list of uploads, which are sent one after the other: several at a time would share the bandwidth.

import { announce, button, byId, element, show, write } from './dom.js';
import { bytes, counted, seconds } from './text.js';
import { Upload, fingerprint } from './tus.js';

// Cards of unfinished uploads, in the order in which they are sent.
const cards = new Set();
let sending = null;
let showJob;

const isActive = ({ upload }) => ['queued', 'sending', 'retrying'].includes(upload.state);

// `onJob(id)` shows the job of a finished upload, and returns its element.
export function start(onJob) {
  showJob = onJob;
  const files = byId('files');
  files.addEventListener('change', () => {
    add([...files.files]);
    // Without this, choosing an equal file again would not fire an event.
    files.value = '';
  });
  acceptDrops(byId('drop'));
  window.addEventListener('online', () => sending?.upload.retryNow());
  window.addEventListener('beforeunload', (event) => {
    if ([...cards].some(isActive)) event.preventDefault();
  });
}

// Accepts drops anywhere on the page: the browser would open a file that misses a small target in place of
// the page.
function acceptDrops(zone) {
  const over = { dragover: true, dragleave: false, drop: false };
  for (const [name, marked] of Object.entries(over)) {
    document.addEventListener(name, (event) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      zone.classList.toggle('over', marked);
      if (name === 'drop') add([...event.dataTransfer.files]);
    });
  }
}

function add(files) {
  const known = [...cards].filter(isActive).map((card) => fingerprint(card.upload.file));
  const added = files.filter((file) => !known.includes(fingerprint(file)));
  for (const file of added) {
    const card = new Card(file);
    cards.add(card);
    byId('uploads').append(card.node);
  }
  if (added.length) announce(`${counted(added.length, 'file')} to upload`);
  next();
}

async function next() {
  if (sending) return;
  sending = [...cards].find((card) => card.upload.state === 'queued');
  if (!sending) return;
  const { upload } = sending;
  await upload.run();
  if (upload.state === 'failed') announce(`Upload of ${upload.file.name} failed: ${upload.reason}`);
  if (upload.state === 'canceled') sending.removeCard();
  if (upload.state === 'done') {
    announce(`${upload.file.name} is uploaded`);
    // The card of the job takes its place.
    sending.removeCard(upload.job && (await showJob(upload.job)));
  }
  sending = null;
  next();
}

class Card {
  #announcedQuarter = 0;
  #canceling = false;

  constructor(file) {
    this.upload = new Upload(file, () => this.#draw());
    this.bar = element('progress', { max: file.size || 1, value: 0, 'aria-label': `Upload of ${file.name}` });
    this.status = element('p');
    this.cancel = button('Cancel', file.name, () => this.#cancel());
    this.retry = button('Retry', file.name, () => this.#retry());
    this.remove = button('Remove', file.name, () => this.removeCard());
    const title = element('h3', { textContent: file.name });
    const head = element('div', { className: 'row' }, title, this.cancel, this.retry, this.remove);
    this.node = element('li', { className: 'card', tabIndex: -1 }, head, this.bar, this.status);
    this.#draw();
  }

  // Removes the card; if it holds the focus, `next` gets it.
  removeCard(next) {
    show(this.node, false, next || byId('files'));
    this.node.remove();
    cards.delete(this);
  }

  #cancel() {
    if (this.upload.state === 'queued') return this.removeCard();
    this.#canceling = true;
    this.upload.cancel();
    this.#draw();
  }

  #retry() {
    this.upload.state = 'queued';
    this.#draw();
    next();
  }

  #draw() {
    const { upload, node } = this;
    const failed = upload.state === 'failed';
    node.dataset.state = upload.state;
    this.bar.value = upload.sent;
    this.status.className = failed ? 'reason bad' : 'quiet';
    write(this.status, this.#statusText());
    show(this.cancel, isActive(this) && !this.#canceling, node);
    for (const button of [this.retry, this.remove]) show(button, failed, node);
    // Screen readers announce each quarter.
    const quarter = Math.floor((4 * upload.sent) / (upload.file.size || 1));
    if (quarter > this.#announcedQuarter && quarter < 4) announce(`${upload.file.name}: ${quarter * 25} % uploaded`);
    this.#announcedQuarter = quarter;
  }

  #statusText() {
    const { file, rate, reason, sent, state } = this.upload;
    if (this.#canceling) return 'Canceling.';
    if (state === 'queued') return `${bytes(file.size)}, queued`;
    if (state === 'failed') return `Upload failed: ${reason}`;
    const progress = `${bytes(sent)} of ${bytes(file.size)}`;
    if (state === 'retrying') return `${progress}. Retrying: ${reason}`;
    return rate > 0 ? `${progress}, ${bytes(rate)}/s, ${seconds((file.size - sent) / rate)} left` : progress;
  }
}
