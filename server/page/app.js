// Starts the parts of the page, and asks for an API key if the server requires one.

import { hasKey, onKeyRequired, setKey } from './api.js';
import { byId, show, write } from './dom.js';
import * as jobs from './jobs.js';
import * as player from './player.js';
import * as uploads from './uploads.js';

const [form, field, forget] = [byId('key-form'), byId('key'), byId('forget')];

onKeyRequired((refused) => {
  write(byId('key-reason'), refused ? 'The server refused this key: it is mistyped, expired or revoked.' : 'This server requires an API key.');
  show(form, true);
  field.focus();
});

form.addEventListener('submit', (event) => {
  event.preventDefault();
  show(form, false, byId('files'));
  applyKey(field.value.trim());
  form.reset();
});

forget.addEventListener('click', () => applyKey(null));

// Clears what the key before showed: another key may belong to another tenant.
function applyKey(key) {
  setKey(key);
  drawKey();
  jobs.restart();
  player.reopen();
}

function drawKey() {
  show(forget, hasKey(), byId('jobs-title'));
  const header = hasKey() ? ' -H "Authorization: Bearer $SPOOL_API_KEY"' : '';
  write(byId('curl'), `curl --data-binary @video.mp4${header} '${location.origin}/v1/uploads?name=video.mp4'`);
}

drawKey();
uploads.start(jobs.showJob);
jobs.start();
player.start();
