# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See an instance's screen the way a browser does: the page, the websocket (RFC 6455), and the first words of RFB (RFC 6143)."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import ssl
import struct
import typing as t
import urllib.parse

TIMEOUT = 20.0
"""Seconds for one answer."""
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a server adds to the client's key, so that its answer is meant (RFC 6455, section 1.3)."""
BINARY, TEXT, CLOSE, PING = 2, 1, 8, 9


class NoScreen(Exception):
    """Page or screen did not come. ``str()`` says at what point, and never holds the console's token."""


def trusting(cacert: str | None) -> ssl.SSLContext:
    """TLS that trusts the deployment's authority only, where one is given."""
    context = ssl.create_default_context(cafile=cacert)
    # Python 3.13 demands more of an authority than browsers do; a site may bring its own.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context


def place(url: str) -> tuple[str, str, int, bool]:
    """Address without the token (for messages), host, port, and whether it is TLS."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NoScreen(f"Nova's console address is not a web address: {url.split('?', 1)[0]!r}")
    secure = parts.scheme == "https"
    return url.split("?", 1)[0], parts.hostname, parts.port or (443 if secure else 80), secure


def websocket_path(url: str) -> str:
    """Where the page of ``url`` opens its websocket: its query says ``path=`` with the token, as noVNC reads it."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    path = query.get("path", [""])[0]
    if not path and "token" in query:  # the form of noVNC before 1.1
        path = f"websockify?token={query['token'][0]}"
    if "token=" not in path:
        raise NoScreen(f"the console address {url.split('?', 1)[0]} has no token")
    return f"/{path.lstrip('/')}"


def see_page(url: str, cacert: str | None = None) -> None:
    """The page answers, and is noVNC's."""
    shown, host, port, secure = place(url)
    connection = (
        http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=trusting(cacert))
        if secure
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    )
    parts = urllib.parse.urlsplit(url)
    try:
        connection.request("GET", f"{parts.path or '/'}?{parts.query}")
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as why:
        raise NoScreen(f"the console page {shown} does not answer: {why or type(why).__name__}") from None
    finally:
        connection.close()
    if answer.status != 200 or "novnc" not in text.lower():
        raise NoScreen(
            f"the console page {shown} answered {answer.status} {answer.reason}, which is not noVNC's page: {text[:200]!r}"
        )


def upgrade(path: str, host: str, port: int, secure: bool, key: str) -> bytes:
    """The request that turns a connection into a websocket."""
    origin = f"{'https' if secure else 'http'}://{host}:{port}"
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: binary",
        f"Origin: {origin}",  # the proxy refuses one that is not its own
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def accepted(head: str, key: str) -> None:
    """The answer to :func:`upgrade` must be a websocket's, and to this very request."""
    status = head.split("\r\n", 1)[0]
    headers = {
        name.strip().lower(): value.strip()
        for name, _colon, value in (line.partition(":") for line in head.split("\r\n")[1:])
    }
    right = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()  # noqa: S324 - the protocol's
    if " 101 " not in f"{status} " or headers.get("sec-websocket-accept") != right:
        raise NoScreen(f"the console proxy opened no websocket: {status}")


class Frames:
    """Reads a server's frames from a connection (RFC 6455, section 5.2). A server never masks."""

    def __init__(self, receive: t.Callable[[int], bytes], begun: bytes = b"") -> None:
        self._receive, self._buffer = receive, begun

    def take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            part = self._receive(4096)
            if not part:
                raise NoScreen("the console proxy closed the connection before the screen sent anything")
            self._buffer += part
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def next(self) -> tuple[int, bytes]:
        """Kind and content of the next frame."""
        first, second = self.take(2)
        length = second & 0x7F
        if length == 126:
            length = struct.unpack("!H", self.take(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self.take(8))[0]
        return first & 0x0F, self.take(length)


def see_screen(url: str, cacert: str | None = None) -> str:
    """Open the websocket and return RFB's first line, such as ``RFB 003.008``."""
    shown, host, port, secure = place(url)
    key = base64.b64encode(os.urandom(16)).decode()
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT) as plain:
            link = trusting(cacert).wrap_socket(plain, server_hostname=host) if secure else plain
            with link:
                link.sendall(upgrade(websocket_path(url), host, port, secure, key))
                head = b""
                while b"\r\n\r\n" not in head:
                    part = link.recv(4096)
                    if not part:
                        raise NoScreen(f"the console proxy at {shown} closed the connection when asked for a websocket")
                    head += part
                answer, _end, rest = head.partition(b"\r\n\r\n")
                accepted(answer.decode(errors="replace"), key)
                return banner(Frames(link.recv, rest))
    except OSError as why:
        raise NoScreen(f"the screen behind {shown} does not answer: {why or type(why).__name__}") from None


def banner(frames: Frames) -> str:
    """The version that an RFB server begins with: twelve bytes, whichever frames they come in."""
    said = b""
    while len(said) < 12:
        kind, content = frames.next()
        if kind == CLOSE:
            raise NoScreen(
                f"the console proxy closed the websocket: {content[2:].decode(errors='replace') or 'without a reason'}"
            )
        if kind in (0, BINARY, TEXT):
            said += content
    if not said.startswith(b"RFB "):
        raise NoScreen(f"no screen answers behind the websocket: it begins with {said[:12]!r}, not with RFB's version")
    return said[:11].decode()
