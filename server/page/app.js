// Starts the parts of the page, and asks for a key where the server wants one.

import { hasKey, onKeyWanted, setKey } from './api.js';
import { byId, show, write } from './dom.js';
import * as jobs from './jobs.js';
import * as player from './player.js';
import * as uploads from './uploads.js';

const [form, field, forget] = [byId('key-form'), byId('key'), byId('forget')];

onKeyWanted((tried) => {
  write(byId('key-why'), tried ? 'This key does not do: it is mistyped, ended or revoked.' : 'This server wants to know who asks.');
  show(form, true);
  field.focus();
});

form.addEventListener('submit', (event) => {
  event.preventDefault();
  show(form, false, byId('files'));
  use(field.value.trim());
  form.reset();
});

forget.addEventListener('click', () => use(null));

// Nothing stays of what another key showed.
function use(key) {
  setKey(key);
  known();
  jobs.restart();
  player.reopen();
}

function known() {
  show(forget, hasKey(), byId('jobs-title'));
  const header = hasKey() ? ' -H "Authorization: Bearer $SPOOL_API_KEY"' : '';
  write(byId('curl'), `curl --data-binary @video.mp4${header} '${location.origin}/v1/uploads?name=video.mp4'`);
}

known();
uploads.start(jobs.showJob);
jobs.start();
player.start();
