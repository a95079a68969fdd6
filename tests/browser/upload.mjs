// Uploads a file by tus-js-client, which resumes by itself after a server died.
// Usage: upload.mjs ENDPOINT FILE CHUNK_BYTES METADATA_JSON
// Prints a line for each step: `at BYTES`, and at the end `done URL`.
import { createReadStream, statSync } from 'node:fs'
import * as tus from 'tus-js-client'

const [endpoint, file, chunk, metadata] = process.argv.slice(2)
const upload = new tus.Upload(createReadStream(file), {
  endpoint,
  uploadSize: statSync(file).size,
  chunkSize: Number(chunk),
  metadata: JSON.parse(metadata),
  // As a page does whose user waits: often at first, and then every second.
  retryDelays: Array.from({ length: 60 }, (_, n) => Math.min(100 * (n + 1), 1000)),
  onChunkComplete: (_, accepted) => console.log(`at ${accepted}`),
  onError: (error) => {
    console.error(String(error))
    process.exit(1)
  },
  onSuccess: () => console.log(`done ${upload.url}`),
})
upload.start()
