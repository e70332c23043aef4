"""A server that speaks chat completions over HTTP, in this process, and misbehaves as it is told.

It answers with `model(request, number)`: a string is the answer, a `Reply` anything else. `planted`
is a model that reads the texts between the marked lines and knows their intensities.
"""

import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = re.compile(r"^<(text-[0-9a-f]+) ?(\w*)>\n(.*?)\n</\1 ?\2>$", re.DOTALL | re.MULTILINE)


@dataclass
class Reply:
    body: str | bytes = ""
    status: int = 200
    headers: dict = field(default_factory=dict)
    delay: float = 0.0
    trickle: float = 0.0  # Seconds between bytes.


def completion(text, *, finish="stop", usage=True, **message):
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "planted-2026",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text} | message,
            }
        ],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps(body)


def error(status, message, **more):
    body = {"error": {"message": message, "type": "x", "param": None, "code": None} | more}
    return Reply(json.dumps(body), status)


def planted(intensities, *, delay=0.0):
    """Orders what it is shown by known intensities, or says the one it is asked for."""

    def answer(request, number):
        time.sleep(delay)
        prompt = request["messages"][0]["content"]
        known = {label: intensities[text] for _, label, text in BLOCK.findall(prompt)}
        if list(known) == [""]:
            return json.dumps({"rating": known[""]})
        return json.dumps({"ranking": sorted(map(int, known), key=lambda n: -known[str(n)])})

    return answer


class ChatServer:
    """Its `url`, and what came in: `requests` (bodies), `headers`, `times`."""

    def __init__(self, model):
        self.model = model
        self.requests, self.headers, self.times = [], [], []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append({name.lower(): text for name, text in handler.headers.items()})
            self.times.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            reply = self.model(body, number)
        finally:
            with self.lock:
                self.under_way -= 1
        if isinstance(reply, str):
            reply = Reply(completion(reply))
        self.closing.wait(reply.delay)
        content = reply.body.encode() if isinstance(reply.body, str) else reply.body
        handler.send_response(reply.status)
        headers = {"Content-Type": "application/json", "Content-Length": len(content)}
        for name, value in (headers | reply.headers).items():
            handler.send_header(name, str(value))
        handler.end_headers()
        for part in (
            [content[i : i + 1] for i in range(len(content))] if reply.trickle else [content]
        ):
            self.closing.wait(reply.trickle)
            handler.wfile.write(part)


@contextmanager
def serve(model):
    """A `ChatServer` on a free port of the loopback, gone at the end."""
    server = ChatServer(model)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            server.path = self.path
            try:
                server.handle(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        server.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()
