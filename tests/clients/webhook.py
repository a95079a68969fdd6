"""A receiver of webhooks that verifies each message's signature with the library of the standard, and prints the message.

    webhook.py SECRET STATUS...

It statuses with each status in turn, and with the last one from then on. If SECRET is `-`, it is read from stdin: a webhook's
secret is known only after its address is. Prints its address first, and then a line of JSON for each message.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

secret = sys.argv[1]
statuses = [int(answer) for answer in sys.argv[2:]] or [204]
known = threading.Event()
lock = threading.Lock()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        known.wait(60)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with lock:
            try:
                content = Webhook(secret).verify(body, headers)
                genuine = True
            except WebhookVerificationError as error:
                content, genuine = str(error), False
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            line = {"id": headers["webhook-id"], "genuine": genuine, "content": content, "body": body.decode(), "status": status}
            print(json.dumps(line), flush=True)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(f"http://127.0.0.1:{server.server_address[1]}/webhook", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
if secret == "-":
    secret = sys.stdin.readline().strip()
known.set()
# The parent process ends it by closing its stdin.
sys.stdin.read()
