# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""services/nova/wait.py: a daemon starts when the APIs that it needs answer, and says which one does not."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "services/nova/wait.py"


class Api(http.server.BaseHTTPRequestHandler):
    """An API that is broken for its first two answers, and then wants a token."""

    answered: t.ClassVar[list[int]] = []

    def do_GET(self) -> None:
        self.answered.append(502 if len(self.answered) < 2 or self.path == "/broken" else 401)
        self.send_response(self.answered[-1])
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> t.Iterator[str]:
    Api.answered.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def wait(seconds: str, *urls: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), seconds, *urls], capture_output=True, text=True, timeout=600, check=False
    )
    return done.returncode, done.stderr


def test_it_waits_for_an_answer_that_is_no_failure_of_the_server(api: str) -> None:
    assert wait("300", f"{api}/v3") == (0, "")
    assert Api.answered == [502, 502, 401]


def test_it_names_what_does_not_answer(api: str) -> None:
    rc, said = wait("1", f"{api}/broken")
    assert (rc, said) == (1, f"waited 1 s for {api}/broken: answers 502\n")
    rc, said = wait("1", "http://127.0.0.1:1/")
    assert rc == 1 and "http://127.0.0.1:1/: " in said and "refused" in said
