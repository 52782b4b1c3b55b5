# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: a chosen call of a command fails, hangs or is killed before or after a named step.

A step is ``command`` (the whole call), any call of the platform by its name (``zone_create``, ``zone_boot``, ...), or one
of the points that the tools name themselves: ``record`` (the VM's description is written) and ``vminfod`` (the change is
made, the daemon that all readers ask is awaited). The faults lie in faults.json of the state directory, each with the
number of times it was met, so that a count goes on from process to process.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import signal
import time
import typing as t
from pathlib import Path

from .files import locked, read_json, write_json
from .platform import Platform, PlatformError

FAULT_ACTIONS = ("fail", "hang", "kill")


class InjectedFault(PlatformError):
    """The step failed because a test asked for it; ``code`` is the exit status when the step is the whole command."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Fault(t.TypedDict):
    """One fault: which call (``call`` is a shell pattern of "TOOL SUBCOMMAND"), at which step, and what happens.

    It strikes at the ``nth`` meeting (1: the first) and the ``times`` - 1 after it.
    """

    id: int
    call: str
    step: str
    when: str
    nth: int
    times: int
    do: str
    message: str
    code: int
    seconds: float
    met: int


class _Command:
    """The running command, and where its faults are written."""

    def __init__(self, state: Path, call: str) -> None:
        self.path = state / "faults.json"
        self.lock = state / "locks" / "faults"
        self.call = call

    def meet(self, step: str, when: str) -> None:
        if not self.path.exists():
            return
        strikes: Fault | None = None
        with locked(self.lock):
            faults: list[Fault] = read_json(self.path, [])
            for fault in faults:
                if fault["step"] == step and fault["when"] == when and fnmatch.fnmatch(self.call, fault["call"]):
                    fault["met"] += 1
                    if fault["nth"] <= fault["met"] < fault["nth"] + fault["times"]:
                        strikes = strikes or fault
            write_json(self.path, faults)
        if strikes is None:
            return
        if strikes["do"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if strikes["do"] == "hang":
            self.hang(strikes)
            return
        raise InjectedFault(strikes["message"], strikes["code"])

    def hang(self, fault: Fault) -> None:
        """Do nothing for as long as the fault asks for, or until it is cleared."""
        end = time.monotonic() + fault["seconds"]
        while time.monotonic() < end and any(one["id"] == fault["id"] for one in read_json(self.path, [])):
            time.sleep(0.05)


_running: list[_Command] = []


def begin(state: Path, call: str | None) -> None:
    """From here on this process is ``call`` ("vmadm create"), or one that meets no faults."""
    _running[:] = [_Command(state, call)] if call else []


@contextlib.contextmanager
def step(name: str) -> t.Iterator[None]:
    """A point of the running command at which a fault may be asked for."""
    for command in _running:
        command.meet(name, "before")
    yield
    for command in _running:
        command.meet(name, "after")


class _Stepped:
    """A platform whose every call is a step."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def __getattr__(self, name: str) -> t.Any:
        call = getattr(self._platform, name)

        def stepped(*args: t.Any, **options: t.Any) -> t.Any:
            with step(name):
                return call(*args, **options)

        return stepped


def stepped(platform: Platform) -> Platform:
    """``platform`` with a step around each of its calls."""
    return t.cast(Platform, _Stepped(platform))


def add(state: Path, **values: t.Any) -> int:
    """Ask for a fault; its number is returned. What is not given is of no consequence: first meeting, once."""
    path = state / "faults.json"
    with locked(state / "locks" / "faults"):
        faults: list[Fault] = read_json(path, [])
        number = max((fault["id"] for fault in faults), default=0) + 1
        defaults: dict[str, t.Any] = {
            "step": "command",
            "when": "before",
            "nth": 1,
            "times": 1,
            "do": "fail",
            "code": 1,
            "seconds": 1e6,
            "message": "Command failed: fault injected",
            "met": 0,
            "id": number,
        }
        faults.append(t.cast(Fault, {**defaults, **values}))
        write_json(path, faults)
    return number
