# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame of small APIs that speak real HTTP, for tests of modules that ask them."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any


class Api(http.server.ThreadingHTTPServer):
    """Listens on a free port of the loopback interface; ``writes`` is for what requests have changed."""

    daemon_threads = True

    def __init__(self, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.writes: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands each request, one at a time, to ``answer`` with its JSON body, which is to call ``reply``."""

    protocol_version = "HTTP/1.1"

    def answer(self, body: Any) -> None:
        raise NotImplementedError

    def reply(self, status: int, body: Any = None, **headers: str) -> None:
        """Send an answer; ``X_Subject_Token`` is the header X-Subject-Token."""
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_in(self, **endpoints: str) -> None:
        """Answer with a token whose catalog names these types of services, each at a path of this API, in the region r."""
        catalog = [
            {"type": kind, "endpoints": [{"interface": "internal", "region_id": "r", "url": self.server.url + path}]}
            for kind, path in endpoints.items()
        ]
        self.reply(201, {"token": {"project": {"id": "p"}, "catalog": catalog}}, X_Subject_Token="t")

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        with self.server.lock:
            self.answer(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    server: Api
