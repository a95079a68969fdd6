"""A server that is told of jobs: it checks each message's signature with the standard's own library, and says what came.

    webhook.py SECRET ANSWER...

It answers with each status in turn, and with the last one from then on. The secret may be sent to its stdin later, as a line, where
SECRET is `-`: a webhook's secret is known only once its address is. Says its address first, and then a line of JSON for each message.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

secret = sys.argv[1]
answers = [int(answer) for answer in sys.argv[2:]] or [204]
known = threading.Event()
lock = threading.Lock()


class Told(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        known.wait(60)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with lock:
            try:
                said = Webhook(secret).verify(body, headers)
                genuine = True
            except WebhookVerificationError as error:
                said, genuine = str(error), False
            status = answers.pop(0) if len(answers) > 1 else answers[0]
            line = {"id": headers["webhook-id"], "genuine": genuine, "said": said, "body": body.decode(), "status": status}
            print(json.dumps(line), flush=True)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Told)
print(f"http://127.0.0.1:{server.server_address[1]}/told", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
if secret == "-":
    secret = sys.stdin.readline().strip()
known.set()
# Whoever started it ends it by closing its stdin.
sys.stdin.read()
