# SPDX-License-Identifier: GPL-3.0-or-later
"""Process contracts (contract(5)) for Linux: all that a method starts stays together, whatever it forks.

Each method runs under a keeper, a process that the kernel makes the parent of every orphan below it
(PR_SET_CHILD_SUBREAPER, prctl(2)). So nothing that a method starts escapes its keeper, and the keeper knows when the last of
it has gone. A keeper whose svc.startd has gone ends all of it: unlike on illumos, services do not outlive a crash of svc.startd.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import typing as t
from collections.abc import Callable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36

Event = dict[str, t.Any]


def become_subreaper() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def family(ancestor: int) -> list[int]:
    """All processes below one, zombies aside."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(stat.parent.name))
    found, todo = [], [ancestor]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


class Contract:
    """The restarter's side of one contract: ``socket`` becomes readable when there are events.

    Events are ``{"method": wait status}``, once, when the method itself has ended; ``{"fault": "signal" or "core"}`` when an
    orphan died that nobody here has killed; and ``{"empty": true}``, the last one.
    """

    def __init__(self, keeper: int, link: socket.socket) -> None:
        self.id = keeper
        self.socket = link
        self.empty = False
        self._rest = b""

    @classmethod
    def run(cls, become: Callable[[], t.NoReturn]) -> Contract:
        """Start a method: ``become`` runs in a process of its own and does not return."""
        ours, theirs = socket.socketpair()
        keeper = os.fork()
        if keeper:
            theirs.close()
            ours.setblocking(False)
            return cls(keeper, ours)
        try:
            ours.close()
            _keep(theirs, become)
        finally:
            os._exit(70)

    def members(self) -> list[int]:
        return [] if self.empty else family(self.id)

    def kill(self, number: int) -> None:
        """Send a signal to every process of the contract."""
        if not self.empty:
            try:
                self.socket.send(json.dumps({"signal": number}).encode() + b"\n")
            except OSError:
                self.empty = True

    def events(self) -> list[Event]:
        """What has happened since the last call."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            found: list[Event] = [] if self.empty else [{"empty": True}]
            self.empty = True
            return found
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = [json.loads(line) for line in lines]
        self.empty = self.empty or any("empty" in event for event in found)
        return found


def _keep(link: socket.socket, become: Callable[[], t.NoReturn]) -> None:
    """The keeper: start the method, wait for everything below, and obey svc.startd."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPWR):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    become_subreaper()
    fd = link.fileno()
    for one in [int(name) for name in os.listdir("/proc/self/fd")]:
        if one > 2 and one != fd:
            with contextlib.suppress(OSError):  # the directory itself was open while it was read
                os.close(one)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_event: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    method = os.fork()
    if method == 0:
        try:
            signal.set_wakeup_fd(-1)
            for one in (wake, woken, fd):
                os.close(one)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPWR, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)
            become()
        finally:
            os._exit(10)  # the status of a method that could not be executed, as svc.startd has it
    killing = gone = False
    while True:
        ready, _w, _x = select.select([wake] + ([] if gone else [link]), [], [], 0.05 if gone else None)
        if wake in ready:
            os.read(wake, 4096)
        if link in ready:
            orders = link.recv(4096)
            gone = not orders
            for order in filter(None, orders.split(b"\n")):
                killing = True
                _signal(json.loads(order)["signal"])
        if gone:
            _signal(signal.SIGKILL)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                _say(link, {"empty": True})
                os._exit(0)
            if pid == 0:
                break
            if pid == method:
                _say(link, {"method": status})
            elif os.WIFSIGNALED(status) and not killing:
                _say(link, {"fault": "core" if os.WCOREDUMP(status) else "signal"})


def _signal(number: int) -> None:
    for pid in family(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _say(link: socket.socket, event: Event) -> None:
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(event).encode() + b"\n")
