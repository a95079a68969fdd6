"""Uploads a file with tuspy: a first client breaks off, and a second one resumes.

    upload.py URL FILE CHUNK_BYTES METADATA_JSON

Prints the address of the upload.
"""

import json
import sys

from tusclient.client import TusClient

url, path, chunk, metadata = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
client = TusClient(url)
first = client.uploader(path, chunk_size=chunk, metadata=metadata)
first.upload_chunk()
second = client.uploader(path, url=first.url, chunk_size=chunk, metadata=metadata)
assert second.offset == first.offset > 0, (second.offset, first.offset)
second.upload()
print(second.url)
