# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command with a limit, and raise an error that carries command, exit code and stderr."""

from __future__ import annotations

import os
import shlex
import subprocess
import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """What a finished command left: exit code and both streams, decoded as UTF-8 (bad bytes replaced)."""

    rc: int
    out: str
    err: str


class CommandError(Exception):
    """A command failed, was not found, or ran past its limit. ``str()`` names command, exit code and stderr."""

    def __init__(self, argv: t.Sequence[str], rc: int, err: str) -> None:
        self.argv = list(argv)
        self.rc = rc
        self.err = err.strip()
        super().__init__(f"`{shlex.join(self.argv)}` ended with exit code {rc}: {self.err or 'no message on stderr'}")


def run(
    argv: t.Sequence[str],
    *,
    stdin: str | bytes | t.IO[bytes] | None = None,
    stdout: t.IO[bytes] | None = None,
    timeout: float = 60,
    env: t.Mapping[str, str] | None = None,
    check: bool = True,
    pass_fds: t.Sequence[int] = (),
) -> Result:
    """Run ``argv`` (no shell) and return its result.

    :param stdin: what the command reads, a text, bytes or an open file; secrets travel here, never in ``argv``.
    :param stdout: an open file that takes what the command prints, for what does not fit into memory; ``out`` is then empty.
    :param timeout: seconds after which the command is killed (exit code 124, as timeout(1) reports it).
    :param env: variables added to the inherited environment; ``LC_ALL=C`` always holds.
    :param check: raise :class:`CommandError` when the exit code is not 0.
    :param pass_fds: descriptors that the command inherits, such as a lock that it is to keep when this process is killed.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    source: dict[str, t.Any] = {"input": data} if isinstance(data, bytes) else {"stdin": data or subprocess.DEVNULL}
    try:
        done = subprocess.run(
            list(argv),
            **source,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            check=False,
            pass_fds=tuple(pass_fds),
        )
    except FileNotFoundError:
        raise CommandError(argv, 127, f"{argv[0]} is not installed on this machine") from None
    except subprocess.TimeoutExpired as late:
        err = (late.stderr or b"").decode(errors="replace")
        raise CommandError(argv, 124, f"still running after {timeout:g} s, killed. {err}") from None
    result = Result(
        done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if check and result.rc != 0:
        raise CommandError(argv, result.rc, result.err or result.out)
    return result


def as_service(user: str, argv: t.Sequence[str]) -> list[str]:
    """``argv`` run as a service's user, who may read the zone's TLS key as the service's daemons may (setpriv(1))."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={user},zonetls", *argv]


def last_words(error: CommandError, lines: int = 12) -> str:
    """The error with only the last lines of what the command said, for commands that end in a long trace."""
    said = error.err.splitlines()
    cut = [f"... {len(said) - lines} lines before"] if len(said) > lines else []
    return str(CommandError(error.argv, error.rc, "\n".join([*cut, *said[-lines:]])))
