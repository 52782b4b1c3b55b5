# SPDX-License-Identifier: GPL-3.0-or-later
"""The screen is looked at over real sockets, with a server that speaks as little as is needed."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.verify.novnc import (
    GUID,
    Frames,
    NoScreen,
    banner,
    place,
    see_page,
    see_screen,
    websocket_path,
)

URL = "https://192.0.2.5:6080/vnc_lite.html?path=%3Ftoken%3D6b1e"


@pytest.fixture
def proxy() -> Iterator[tuple[str, dict[str, bytes]]]:
    """An address, and what its server says after the handshake (``screen``), or instead (``instead``)."""
    said: dict[str, bytes] = {}
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                link, _peer = listener.accept()
            except OSError:
                return
            with link:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += link.recv(4096)
                said["request"] = request
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
                if "instead" in said or not key:
                    link.sendall(
                        said.get("instead", b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n<title>noVNC</titl")
                    )
                    continue
                answer = base64.b64encode(hashlib.sha1(key[1] + GUID.encode()).digest())
                link.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
                    + answer
                    + b"\r\n\r\n"
                )
                link.sendall(said["screen"])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/vnc_lite.html?path=%3Ftoken%3D6b1e", said
    listener.close()


def test_page_and_screen_are_seen(proxy):
    url, said = proxy
    see_page(url)
    said["screen"] = b"\x82\x0cRFB 003.008\n"
    assert see_screen(url) == "RFB 003.008"
    assert said["request"].startswith(b"GET /?token=6b1e HTTP/1.1\r\n")
    assert b"Origin: http://127.0.0.1:" in said["request"]


def test_refused_websocket_is_named_without_the_token(proxy):
    url, said = proxy
    said["instead"] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(NoScreen, match="opened no websocket: HTTP/1.1 403 Forbidden") as refused:
        see_screen(url)
    assert "6b1e" not in str(refused.value)
    with pytest.raises(NoScreen, match="answered 403 Forbidden"):
        see_page(url)


def test_nobody_there_is_named():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NoScreen, match="does not answer: .*refused"):
        see_screen(f"http://127.0.0.1:{port}/vnc.html?path=%3Ftoken%3D1")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (b"\x88\x0c\x03\xf3Wrong token", "closed the websocket: Wrong toke"),
        (b"\x82\x0cHTTP/1.1 400", "no screen answers behind the websocket"),
        (b"", "closed the connection before"),
    ],
)
def test_what_is_no_screen_is_refused(frames: bytes, message: str):
    parts = [frames]
    with pytest.raises(NoScreen, match=message):
        banner(Frames(lambda _count: parts.pop() if parts else b""))


def test_banner_comes_in_any_frames():
    long = b"\x82\x7e\x00\x8cFB 003.008\n" + b"x" * 129
    parts = [long, b"\x82\x01R", b"\x89\x00"]  # taken from the end: a ping first
    assert banner(Frames(lambda _count: parts.pop())) == "RFB 003.008"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (URL, "/?token=6b1e"),
        ("https://a/vnc_auto.html?token=6b1e", "/websockify?token=6b1e"),
        ("https://a/x?path=websockify%3Ftoken%3D1", "/websockify?token=1"),
    ],
)
def test_websocket_lies_where_the_page_looks(url: str, path: str):
    assert websocket_path(url) == path


def test_address_is_taken_apart():
    assert place(URL) == ("https://192.0.2.5:6080/vnc_lite.html", "192.0.2.5", 6080, True)
    with pytest.raises(NoScreen, match="is not a web address"):
        place("ftp://x")
