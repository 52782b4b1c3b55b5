# SPDX-License-Identifier: GPL-3.0-or-later
"""Which package index is asked before anything is installed, and what is said of one that does not answer."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import package_index


class Index(http.server.BaseHTTPRequestHandler):
    """Knows one package, for those who have the password."""

    def do_GET(self) -> None:
        known = self.path == "/simple/uv/" and self.headers.get("Authorization") == "Basic dXNlcjpwQHNz"
        self.send_response(200 if known else 403)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "*")


def test_the_index_is_the_one_that_uv_and_pip_take(tmp_path: Path) -> None:
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text("[global]\nindex-url = https://file.example.org/simple\n")
    of_uv = {"UV_DEFAULT_INDEX": "https://uv.example.org", "PIP_INDEX_URL": "https://pip.example.org"}
    assert package_index.index_url(of_uv, tmp_path) == "https://uv.example.org"
    assert package_index.index_url({"PIP_INDEX_URL": "https://pip.example.org"}, tmp_path) == "https://pip.example.org"
    assert package_index.index_url({}, tmp_path) == "https://file.example.org/simple"


def test_an_index_is_asked_with_its_password_which_nobody_reads(serve: t.Callable[..., t.Any], tmp_path: Path) -> None:
    server = serve(socketserver.TCPServer(("127.0.0.1", 0), Index))
    at = f"127.0.0.1:{server.server_address[1]}"
    assert package_index.index_finding({"PIP_INDEX_URL": f"http://user:p%40ss@{at}/simple"}, tmp_path) is None
    refused = str(package_index.index_finding({"PIP_INDEX_URL": f"http://user:secret@{at}/simple"}, tmp_path))
    assert f"http://{at}/simple answers 403 Forbidden for uv" in refused and "secret" not in refused


def test_an_index_that_is_not_reached_is_named(tmp_path: Path) -> None:
    found = str(package_index.index_finding({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, tmp_path))
    assert found.startswith(
        "problem: packages: http://127.0.0.1:9/simple, where Python packages come from, is not reached (Connection refused)"
    )
    assert package_index.index_finding({"PIP_INDEX_URL": "file:///srv/index"}, tmp_path) is None


def test_a_checkout_that_has_its_packages_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/control.txt").write_text("uv==1\n")
    assert package_index.needed(tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/zonestack.lock").write_text("uv==1\n")
    assert not package_index.needed(tmp_path)


@pytest.mark.parametrize(("failures", "error", "found"), [(2, socket.EAI_AGAIN, False), (3, socket.EAI_AGAIN, True), (1, socket.EAI_NONAME, True)])  # fmt: skip
def test_a_name_server_that_fails_for_the_moment_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: int, error: int, found: bool
) -> None:
    asked: list[str] = []
    slept: list[float] = []

    def answer(request: urllib.request.Request, **_options: t.Any) -> t.Any:
        asked.append(request.full_url)
        if len(asked) <= failures:
            raise urllib.error.URLError(socket.gaierror(error, "fails"))
        return contextlib.nullcontext()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr(package_index.time, "sleep", slept.append)
    said = package_index.index_finding({"PIP_INDEX_URL": "https://index.example/simple"}, tmp_path)
    assert (said is not None) is found
    assert len(slept) == len(asked) - 1 and len(asked) <= package_index.ATTEMPTS
