// Uploads a file by tus-js-client, which goes on by itself where a server goes away. Usage: upload.mjs ENDPOINT FILE CHUNK_BYTES METADATA_JSON
// A line for each step on stdout: `at BYTES`, and at the end `done URL`.
import { createReadStream, statSync } from 'node:fs'
import * as tus from 'tus-js-client'

const [endpoint, file, chunk, metadata] = process.argv.slice(2)
const upload = new tus.Upload(createReadStream(file), {
  endpoint,
  uploadSize: statSync(file).size,
  chunkSize: Number(chunk),
  metadata: JSON.parse(metadata),
  // As a page has it whose user waits: often at first, and then now and then.
  retryDelays: Array.from({ length: 60 }, (_, n) => Math.min(100 * (n + 1), 1000)),
  onChunkComplete: (_, accepted) => console.log(`at ${accepted}`),
  onError: (error) => {
    console.error(String(error))
    process.exit(1)
  },
  onSuccess: () => console.log(`done ${upload.url}`),
})
upload.start()
