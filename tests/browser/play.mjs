// Plays a ladder in a real Chromium with hls.js, and prints its observations on stdout, as JSON.
//
//   node play.mjs FOLDER through   from start to end at the lowest rung
//   node play.mjs FOLDER switch    through a change of rung and a seek, then to the end
//   node play.mjs FOLDER sound     from start to end, of a ladder without pictures
//   node play.mjs FOLDER shaka     from start to end, with shaka-player
//   node play.mjs FOLDER early     from start to end, of a ladder that still grows; prints "playing" on stderr once it plays
//
// It checks nothing but its own deadline; the test that runs it checks the rest.

import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const DEADLINE_MS = 120_000;
const STEP_MS = 45_000;
const HERE = dirname(fileURLToPath(import.meta.url)); // Debian 12 has Node 18, without import.meta.dirname

// The types that Spool gives its objects in a bucket.
const TYPES = {
  '.m3u8': 'application/vnd.apple.mpegurl',
  '.m4s': 'video/mp4',
  '.mp4': 'video/mp4',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
};

const OWN = {
  '/': join(HERE, 'page.html'),
  '/shaka': join(HERE, 'shaka.html'),
  '/hls.min.js': join(HERE, 'node_modules/hls.js/dist/hls.min.js'),
  '/shaka-player.compiled.js': join(HERE, 'node_modules/shaka-player/dist/shaka-player.compiled.js'),
};

// Serves the page, hls.js and the ladder on loopback; returns the address and the paths that do not exist.
async function serve(folder) {
  const missing = [];
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
    const file = OWN[path] ?? (path.startsWith('/ladder/') ? join(folder, path.slice('/ladder/'.length)) : undefined);
    const found = file && (await stat(file).catch(() => undefined));
    if (!found?.isFile()) {
      if (path !== '/favicon.ico') missing.push(path);
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream',
      'Content-Length': found.size,
      'Cache-Control': 'no-store',
    });
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, missing, root: `http://127.0.0.1:${server.address().port}` };
}

async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--autoplay-policy=no-user-gesture-required',
    ],
  });
}

// Waits until a condition of the page holds.
const until = (page, condition, argument) => page.waitForFunction(condition, argument, { timeout: STEP_MS, polling: 50 });

// Returns the page's facts, with the name of the step.
const look = async (page, step) => ({ step, ...(await page.evaluate(() => facts())) });

// From start to end: afterwards every frame has been decoded once and everything is still buffered.
async function through(page, steps) {
  await page.evaluate(() => video.play());
  await until(page, () => video.ended || player.errors.length > 0);
  steps.push(await look(page, 'end'));
}

// From start to end, of a ladder that still grows; tells the test when it plays.
async function growing(page, steps) {
  await page.evaluate(() => video.play());
  await until(page, () => video.currentTime > 1 || player.errors.length > 0);
  steps.push(await look(page, 'begun'));
  console.error('playing');
  await until(page, () => video.ended || player.errors.length > 0);
  steps.push(await look(page, 'end'));
}

async function change(page, steps) {
  await page.evaluate(() => video.play());
  await until(page, () => video.currentTime > 2 || player.errors.length > 0);
  steps.push(await look(page, 'start'));

  // Up: the rung is forced, and what is buffered of the other is replaced.
  await page.evaluate(() => { player.hls.nextLevel = player.top; });
  await until(page, () => video.videoHeight === player.hls.levels[player.top].height || player.errors.length > 0);
  steps.push(await look(page, 'up'));

  // A seek over most of the rest, into what may or may not be buffered.
  await page.evaluate(() => { video.currentTime = video.duration * 0.6; });
  await until(page, () => (!video.seeking && video.currentTime > video.duration * 0.6 + 1) || player.errors.length > 0);
  steps.push(await look(page, 'seek'));

  // Down at once: the buffer is emptied and filled again where it plays.
  await page.evaluate(() => { calm(); player.hls.currentLevel = player.bottom; });
  await until(page, () => video.videoHeight === player.hls.levels[player.bottom].height || player.errors.length > 0);
  steps.push(await look(page, 'down'));

  await until(page, () => video.ended || player.errors.length > 0);
  steps.push(await look(page, 'end'));
}

const [folder, scenario] = process.argv.slice(2);
const scenarios = { through, switch: change, sound: through, shaka: through, early: growing };
const playlist = scenario === 'early' ? 'early.m3u8' : 'master.m3u8';
if (!folder || !scenarios[scenario]) {
  console.error('usage: node play.mjs FOLDER through|switch|sound|shaka|early');
  process.exit(2);
}
await readFile(join(folder, playlist));

const { server, missing, root } = await serve(folder);
const browser = await launch();
const deadline = setTimeout(() => {
  console.error(`not done after ${DEADLINE_MS} ms`);
  browser.close().finally(() => process.exit(1));
}, DEADLINE_MS);
const steps = [];
const consoleErrors = [];
let page;
try {
  page = await browser.newPage();
  page.on('pageerror', (error) => consoleErrors.push(String(error)));
  await page.goto(`${root}/${scenario === 'shaka' ? 'shaka' : ''}`);
  const heights = await page.evaluate(async (master) => {
    const heights = await open(master, 0);
    // hls.js sorts its levels, worst first.
    player.bottom = 0;
    player.top = heights.length - 1;
    return heights;
  }, `/ladder/${playlist}`);
  await scenarios[scenario](page, steps);
  console.log(JSON.stringify({ heights, steps, missing, console_errors: consoleErrors }, null, 1));
} catch (error) {
  const now = page ? await look(page, 'failed').catch(() => ({})) : {};
  console.error(`${error}\nso far: ${JSON.stringify({ steps, now, missing, consoleErrors }, null, 1)}`);
  process.exitCode = 1;
} finally {
  clearTimeout(deadline);
  await browser.close();
  server.closeAllConnections();
  server.close();
}
