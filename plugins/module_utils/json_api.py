# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client for HTTP APIs that speak JSON, with the standard library only: importing it costs 30 ms, an SDK a second."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
import typing as t
import urllib.parse
from dataclasses import dataclass

RETRY_SECONDS = 0.5
T = t.TypeVar("T")


class ApiError(Exception):
    """An API refused a request. ``str()`` names request, status and the API's own words."""


class NotReady(Exception):
    """No answer, or one that says "not now": worth another try."""


@dataclass(frozen=True)
class Reply:
    """Status, headers (names in lower case) and the decoded JSON body (``None`` when empty, text when it is no JSON)."""

    status: int
    headers: t.Mapping[str, str]
    body: t.Any


class JsonApi:
    """One API. May be used by many threads; each has a connection of its own that stays open."""

    def __init__(
        self,
        url: str,
        *,
        ca: str | None = None,
        headers: t.Mapping[str, str] | None = None,
        timeout: float = 30,
        patience: float = 0,
    ) -> None:
        """Talk with the API at ``url`` (paths of requests are appended to it).

        :param ca: PEM file with the authority to trust instead of the system's.
        :param headers: sent with every request.
        :param timeout: seconds for one request.
        :param patience: seconds for which a GET is tried again that finds the API not ready: a load balancer learns of a server that has
            just been started only when it next looks.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url: {url!r} is not an http or https address")
        self.url = url.rstrip("/")
        self.headers = dict(headers or {})
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._timeout, self._patience = timeout, patience
        self._tls = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca)
            # Python 3.13 demands more of an authority than OpenSSL, curl and the services do; a site may bring its own.
            self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._local = threading.local()

    def call(
        self,
        method: str,
        path: str,
        body: t.Any = None,
        *,
        headers: t.Mapping[str, str] | None = None,
        accept: t.Container[int] = (),
    ) -> Reply:
        """Send one request.

        :param accept: statuses beyond 2xx that are an answer and no error.
        :raise NotReady: the connection failed, or the answer is 502, 503 or 504.
        :raise ApiError: any other status.
        """
        data = None if body is None else json.dumps(body).encode()
        sent = {"Accept": "application/json", "Content-Type": "application/json", **self.headers, **(headers or {})}
        if method != "GET" or not self._patience:
            return self._ask(method, path, data, sent, accept)
        return wait_until_ready(lambda: self._ask(method, path, data, sent, accept), self._patience)

    def upload(self, path: str, source: t.BinaryIO) -> Reply:
        """Send the content of an open file with PUT, piece by piece; raises as :meth:`call` does."""
        size = os.fstat(source.fileno()).st_size
        sent = {**self.headers, "Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return self._ask("PUT", path, source, sent, ())

    def _ask(
        self, method: str, path: str, data: bytes | t.BinaryIO | None, sent: dict[str, str], accept: t.Container[int]
    ) -> Reply:
        try:
            response, raw = self._exchange(method, self._prefix + path, data, sent)
        except (OSError, http.client.HTTPException) as problem:
            raise NotReady(f"{method} {self.url}{path}: {problem or type(problem).__name__}") from None
        try:
            content = json.loads(raw) if raw else None
        except ValueError:
            content = raw.decode(errors="replace")
        status = response.status
        if not (200 <= status < 300 or status in accept):
            message = (
                f"{method} {self.url}{path}: {status} {response.reason}: {raw[:500].decode(errors='replace').strip()}"
            )
            raise (NotReady if status in (502, 503, 504) else ApiError)(message)
        return Reply(status, {name.lower(): value for name, value in response.getheaders()}, content)

    def _exchange(
        self, method: str, path: str, data: bytes | t.BinaryIO | None, headers: t.Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None and method != "GET":
            # A server may close an idle connection at any moment, and a request that changes something must not be sent
            # twice nor fail for that: it goes over a fresh one.
            connection.close()
            connection = None
        reused = connection is not None
        if connection is None:
            if self._tls:
                connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=self._timeout, context=self._tls
                )
            else:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            self._local.connection = connection
        try:
            connection.request(method, path, body=data, headers=dict(headers))
            response = connection.getresponse()
            return response, response.read()
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            self._local.connection = None
            # As above; what only reads is simply asked again.
            if reused and method == "GET" and not isinstance(problem, TimeoutError):
                return self._exchange(method, path, data, headers)
            raise


def wait_until_ready(ask: t.Callable[[], T], limit: float) -> T:
    """Call ``ask`` until it no longer raises :class:`NotReady`, for ``limit`` seconds at most; then raise with the last cause."""
    deadline = time.monotonic() + limit
    while True:
        try:
            return ask()
        except NotReady as problem:
            if time.monotonic() >= deadline:
                raise NotReady(f"not ready after {limit:g} s: {problem}") from None
        time.sleep(RETRY_SECONDS)
