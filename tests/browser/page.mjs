// Uses the server's page in a real Chromium as a user would: uploads a file, waits for its job, plays the video.
// Prints its observations on stdout, as a line of JSON.
//
//   node page.mjs URL FILE SCREENSHOT.png
//     --key KEY        API key to type in
//     --bad FILE       then uploads this file, which is no video: its job fails, and the page shows the reason
//     --cut            breaks off the first part of the upload
//     --width PIXELS   width of the window; default 1200
//     --scheme SCHEME  light or dark; default light
//
// Faults of any page (errors, requests to other origins, bars that go back, buttons without a name, a page wider than a phone)
// are listed as `faults`, and the exit code is 1. The test that runs it checks the rest.

import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const DEADLINE_MS = 180_000;
const STEP_MS = 90_000;
const PHONE = { width: 360, height: 740 };
const MOST_TABS = 20;
// Roles of the accessibility tree that need a name.
const USED = ['button', 'link', 'textbox', 'combobox', 'progressbar', 'DisclosureTriangle', 'Video', 'region'];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    key: { type: 'string' },
    bad: { type: 'string' },
    cut: { type: 'boolean', default: false },
    width: { type: 'string', default: '1200' },
    scheme: { type: 'string', default: 'light' },
  },
});
const [address, file, screenshot] = positionals;
if (!screenshot) {
  console.error('usage: node page.mjs URL FILE SCREENSHOT.png [--key KEY] [--bad FILE] [--cut] [--width PIXELS] [--scheme SCHEME]');
  process.exit(2);
}

const faults = [];
const seen = { requests: 0, refused: [], broken: [] };

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

// Records the requests of the page, and its errors.
function listen(page) {
  page.on('pageerror', (error) => faults.push(`script: ${error.stack ?? error}`));
  page.on('console', (message) => {
    // Failed requests are recorded below.
    const failed = message.text().startsWith('Failed to load resource');
    if (message.type() === 'error' && !failed) faults.push(`console: ${message.text()}`);
  });
  page.on('request', (request) => {
    seen.requests += 1;
    const { protocol, origin } = new URL(request.url());
    const own = ['blob:', 'data:'].includes(protocol) || origin === new URL(address).origin;
    if (!own) faults.push(`another origin: ${request.url()}`);
  });
  page.on('response', (response) => {
    if (response.status() < 400) return;
    seen.refused.push(`${response.status()} ${new URL(response.url()).pathname}`);
    if (!(values.key && response.status() === 401)) faults.push(`refused: ${response.status()} ${response.url()}`);
  });
  page.on('requestfailed', (request) => {
    // The page itself aborts the streams of jobs that ended.
    if (request.failure()?.errorText === 'net::ERR_ABORTED') return;
    seen.broken.push(`${request.method()} ${new URL(request.url()).pathname}`);
  });
}

// Runs in the page, before its own scripts.
function watch() {
  window.watched = { faults: [] };
  const fault = (text) => window.watched.faults.push(text);
  document.addEventListener('securitypolicyviolation', (event) =>
    fault(`against the policy: ${event.violatedDirective} ${event.blockedURI}`));
  const bars = new WeakMap();
  new MutationObserver((changes) => {
    for (const { target: bar } of changes) {
      if (bar.localName !== 'progress') continue;
      if (bar.value < (bars.get(bar) ?? 0)) fault(`${bar.getAttribute('aria-label')}: went back to ${bar.value}`);
      bars.set(bar, bar.value);
    }
  }).observe(document, { subtree: true, attributes: true, attributeFilter: ['value'] });
}

// Breaks off the first part of an upload.
async function cut(page) {
  let first = true;
  await page.route('**/v1/uploads/*', (route) => {
    if (!first || route.request().method() !== 'PATCH') return route.continue();
    first = false;
    return route.abort('connectionreset');
  });
}

// Checks that a file can be chosen by the keyboard alone, and that the focus is visible.
async function reachFiles(page) {
  const there = () => page.evaluate(() => document.activeElement.id === 'files');
  for (let tabs = 0; tabs < MOST_TABS; tabs += 1) {
    if (!(await there())) {
      await page.keyboard.press('Tab');
      continue;
    }
    const outline = await page.evaluate(() => getComputedStyle(document.querySelector('label[for=files]')).outlineStyle);
    if (outline === 'none') faults.push('the file input does not show its focus');
    return;
  }
  faults.push('the keyboard does not reach the file input');
}

// Uploads a file on the page, and returns the ID of its job.
async function upload(page, path) {
  const before = await page.$$eval('#jobs > li', (jobs) => jobs.map((job) => job.dataset.job));
  await page.setInputFiles('#files', path);
  const found = await page.waitForFunction(
    ({ before, name }) => {
      const fresh = [...document.querySelectorAll('#jobs > li')].filter((job) => !before.includes(job.dataset.job));
      return fresh.find((job) => job.querySelector('h3').textContent === name)?.dataset.job;
    },
    { before, name: basename(path) },
    { timeout: STEP_MS },
  );
  await page.waitForFunction(() => document.querySelectorAll('#uploads > li').length === 0, null, { timeout: STEP_MS });
  return found.jsonValue();
}

// Waits for a job's end, and returns its element.
async function end(page, job) {
  const card = page.locator(`#jobs > li[data-job="${job}"]`);
  await page.waitForFunction(
    (job) => ['published', 'failed', 'canceled'].includes(document.querySelector(`[data-job="${job}"]`).dataset.state),
    job,
    { timeout: STEP_MS },
  );
  return { card, state: await card.getAttribute('data-state') };
}

// Starts playback by the keyboard, and waits for a second of pictures.
async function play(page, card) {
  await card.getByRole('link', { name: 'Play' }).focus();
  await page.keyboard.press('Enter');
  const moved = () => {
    const video = document.getElementById('video');
    if (!document.getElementById('player-error').hidden) throw new Error(document.getElementById('player-error').textContent);
    return video.currentTime > 1 && video.getVideoPlaybackQuality().totalVideoFrames > 0;
  };
  await page.waitForFunction(moved, null, { timeout: STEP_MS });
  return page.evaluate(() => {
    const video = document.getElementById('video');
    const options = (id) => [...document.getElementById(id).options].map((option) => option.textContent);
    return {
      video: location.hash.split('/').pop(),
      duration: video.duration,
      time: video.currentTime,
      height: video.videoHeight,
      frames: video.getVideoPlaybackQuality().totalVideoFrames,
      qualities: options('quality'),
      sounds: options('sound'),
    };
  });
}

async function details(page, card) {
  await card.locator('summary').focus();
  await page.keyboard.press('Enter');
  await card.locator('tbody tr').first().waitFor({ timeout: STEP_MS });
  return card.locator('tbody tr').count();
}

// Checks names as the browser computes them for assistive technology.
async function names(page) {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send('Accessibility.getFullAXTree');
  await session.detach();
  const used = nodes.filter((node) => !node.ignored && USED.includes(node.role?.value));
  for (const node of used) if (!node.name?.value?.trim()) faults.push(`without a name: ${node.role.value}`);
  return used.length;
}

async function onPhone(page) {
  const before = page.viewportSize();
  await page.setViewportSize(PHONE);
  const [needs, has] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  if (needs > has) faults.push(`on a phone the page is ${needs} px wide, of ${has}`);
  await page.setViewportSize(before);
}

async function use(page) {
  await page.goto(address);
  if (values.key) {
    await page.locator('#key').fill(values.key, { timeout: STEP_MS });
    await page.keyboard.press('Enter');
    await page.locator('#key-form').waitFor({ state: 'hidden', timeout: STEP_MS });
  }
  await reachFiles(page);
  const job = await upload(page, file);
  const { card, state } = await end(page, job);
  const told = { job, state, says: (await card.locator('p').allTextContents()).filter(Boolean) };
  if (state !== 'published') return told;
  Object.assign(told, { rows: await details(page, card), ...(await play(page, card)) });
  await page.screenshot({ path: screenshot, fullPage: true });
  told.named = await names(page);
  await onPhone(page);
  if (!values.bad) return told;
  const bad = await upload(page, values.bad);
  const failed = await end(page, bad);
  const reason = failed.card.locator('.reason').first();
  told.bad = { job: bad, state: failed.state, reason: (await reason.isVisible()) ? await reason.textContent() : '' };
  await page.screenshot({ path: screenshot.replace(/(\.\w+)?$/, '-bad$1'), fullPage: true });
  await onPhone(page);
  return told;
}

const browser = await launch();
const deadline = setTimeout(() => {
  console.error(`not done after ${DEADLINE_MS} ms`);
  browser.close().finally(() => process.exit(1));
}, DEADLINE_MS);
let page;
try {
  page = await browser.newPage({ viewport: { width: Number(values.width), height: 900 }, colorScheme: values.scheme });
  await page.addInitScript(watch);
  listen(page);
  if (values.cut) await cut(page);
  const told = await use(page);
  faults.push(...(await page.evaluate(() => window.watched.faults)));
  console.log(JSON.stringify({ ...told, ...seen, faults }));
  if (faults.length) process.exitCode = 1;
} catch (error) {
  await page?.screenshot({ path: screenshot, fullPage: true }).catch(() => {});
  console.error(`${error}\nso far: ${JSON.stringify({ ...seen, faults }, null, 1)}`);
  process.exitCode = 1;
} finally {
  clearTimeout(deadline);
  await browser.close();
}
