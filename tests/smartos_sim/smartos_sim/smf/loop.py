# SPDX-License-Identifier: GPL-3.0-or-later
"""The event loop of svc.startd: descriptors that become readable, signals, and timers; no threads."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable

Action = Callable[[], None]


class Loop:
    """Calls what was asked for when a descriptor becomes readable, a child has ended, or a time has come."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Action]] = []
        self._count = itertools.count(1)

    def catch(self, stop: Action, reap: Action) -> None:
        """Call ``stop`` at each signal that asks to end, and ``reap`` after any signal, that of an ended child among them."""
        wake, woken = os.pipe()
        for fd in (wake, woken):
            os.set_blocking(fd, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPWR, signal.SIGRTMIN + 3):
            signal.signal(number, lambda *_event: stop())
        signal.signal(signal.SIGCHLD, lambda *_event: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self.watch(wake, reap)

    def watch(self, source: int | socket.socket, action: Action) -> None:
        """Call ``action`` whenever ``source`` is readable. What a plain descriptor holds is read and thrown away before."""
        self._selector.register(source, selectors.EVENT_READ, action)

    def forget(self, source: int | socket.socket) -> None:
        """End :meth:`watch`."""
        self._selector.unregister(source)

    def after(self, seconds: float, action: Action) -> Action:
        """Call ``action`` in so many seconds; returns what calls that off."""
        entry = (time.monotonic() + seconds, next(self._count), action)
        heapq.heappush(self._timers, entry)

        def call_off() -> None:
            if entry in self._timers:
                self._timers.remove(entry)
                heapq.heapify(self._timers)

        return call_off

    def turn(self) -> None:
        """Wait until at least one thing has happened, and make the calls that were asked for."""
        limit = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, _mask in self._selector.select(limit):
            if isinstance(key.fileobj, int):
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fileobj, 65536)
            key.data()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
