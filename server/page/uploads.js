// The files that are on their way, one after the other: several at a time would share the line.

import { button, byId, element, say, show, write } from './dom.js';
import { bytes, counted, seconds } from './text.js';
import { Upload, fingerprint } from './tus.js';

// What is not done, in the order in which it is sent.
const cards = new Set();
let sending = null;
let showJob;

const alive = ({ upload }) => ['waiting', 'sending', 'away'].includes(upload.state);

// `onJob(id)` shows the job that became of an upload, and gives its element.
export function start(onJob) {
  showJob = onJob;
  const files = byId('files');
  files.addEventListener('change', () => {
    add([...files.files]);
    // The same one can be picked again.
    files.value = '';
  });
  takeDrops(byId('drop'));
  window.addEventListener('online', () => sending?.upload.hurry());
  window.addEventListener('beforeunload', (event) => {
    if ([...cards].some(alive)) event.preventDefault();
  });
}

// Anywhere: a file that misses a small target would take the place of the page.
function takeDrops(zone) {
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
  const known = [...cards].filter(alive).map((card) => fingerprint(card.upload.file));
  const fresh = files.filter((file) => !known.includes(fingerprint(file)));
  for (const file of fresh) {
    const card = new Card(file);
    cards.add(card);
    byId('uploads').append(card.node);
  }
  if (fresh.length) say(`${counted(fresh.length, 'file')} to upload`);
  next();
}

async function next() {
  if (sending) return;
  sending = [...cards].find((card) => card.upload.state === 'waiting');
  if (!sending) return;
  const { upload } = sending;
  await upload.run();
  if (upload.state === 'failed') say(`${upload.file.name} is not uploaded: ${upload.reason}`);
  if (upload.state === 'canceled') sending.leave();
  if (upload.state === 'done') {
    say(`${upload.file.name} is uploaded`);
    // From here on the job tells.
    sending.leave(upload.job && (await showJob(upload.job)));
  }
  sending = null;
  next();
}

class Card {
  #told = 0;
  #stops = false;

  constructor(file) {
    this.upload = new Upload(file, () => this.#draw());
    this.bar = element('progress', { max: file.size || 1, value: 0, 'aria-label': `Upload of ${file.name}` });
    this.says = element('p');
    this.cancel = button('Cancel', file.name, () => this.#cancel());
    this.again = button('Try again', file.name, () => this.#again());
    this.remove = button('Remove', file.name, () => this.leave());
    const title = element('h3', { textContent: file.name });
    const head = element('div', { className: 'row' }, title, this.cancel, this.again, this.remove);
    this.node = element('li', { className: 'sheet', tabIndex: -1 }, head, this.bar, this.says);
    this.#draw();
  }

  // Takes it off the page; the focus, if it is here, goes to what comes next.
  leave(next) {
    show(this.node, false, next || byId('files'));
    this.node.remove();
    cards.delete(this);
  }

  #cancel() {
    if (this.upload.state === 'waiting') return this.leave();
    this.#stops = true;
    this.upload.cancel();
    this.#draw();
  }

  #again() {
    this.upload.state = 'waiting';
    this.#draw();
    next();
  }

  #draw() {
    const { upload, node } = this;
    const failed = upload.state === 'failed';
    node.dataset.state = upload.state;
    this.bar.value = upload.sent;
    this.says.className = failed ? 'reason bad' : 'quiet';
    write(this.says, this.#sentence());
    show(this.cancel, alive(this) && !this.#stops, node);
    for (const button of [this.again, this.remove]) show(button, failed, node);
    // A screen reader hears of each quarter.
    const quarter = Math.floor((4 * upload.sent) / (upload.file.size || 1));
    if (quarter > this.#told && quarter < 4) say(`${upload.file.name}: ${quarter * 25} % uploaded`);
    this.#told = quarter;
  }

  #sentence() {
    const { file, rate, reason, sent, state } = this.upload;
    if (this.#stops) return 'It is being canceled.';
    if (state === 'waiting') return `${bytes(file.size)}, waits for the file before it`;
    if (state === 'failed') return `Not uploaded: ${reason}`;
    const far = `${bytes(sent)} of ${bytes(file.size)}`;
    if (state === 'away') return `${far}. Trying again: ${reason}`;
    return rate > 0 ? `${far}, ${bytes(rate)}/s, ${seconds((file.size - sent) / rate)} left` : far;
  }
}
