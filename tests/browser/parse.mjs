// Reads an MP4 with mp4box.js, an independent parser, and prints its first track on stdout, as JSON.
//
//   node parse.mjs FILE

import { readFile } from 'node:fs/promises';
import { createFile } from 'mp4box';

const [path] = process.argv.slice(2);
if (!path) {
  console.error('usage: node parse.mjs FILE');
  process.exit(2);
}
const bytes = await readFile(path);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
buffer.fileStart = 0;

const file = createFile();
const samples = [];
let description;
file.onError = (module, message) => {
  console.error(`${module}: ${message}`);
  process.exitCode = 1;
};
file.onReady = (info) => {
  const track = info.tracks[0];
  description = { codec: track.codec, timescale: track.timescale, width: track.video?.width, height: track.video?.height };
  file.setExtractionOptions(track.id, null, { nbSamples: 100_000 });
  file.start();
};
file.onSamples = (_id, _user, found) => samples.push(...found);
file.appendBuffer(buffer);
file.flush();
const of = (name) => samples.map((sample) => sample[name]);
console.log(JSON.stringify({ ...description, dts: of('dts'), cts: of('cts'), sync: of('is_sync'), size: of('size') }));
