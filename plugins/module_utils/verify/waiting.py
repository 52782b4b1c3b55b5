# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for what a cloud is to become, and fail with what to look at."""

from __future__ import annotations

import time
import typing as t

POLL = 1.0
"""Seconds between two looks at what is waited for."""

T = t.TypeVar("T")


class Failed(Exception):
    """A step did not do what it should. ``suspects`` are the components in whose journals the cause is likely to be."""

    def __init__(self, what: str, suspects: t.Iterable[str] = ()) -> None:
        super().__init__(what)
        self.suspects = list(suspects)


def wait_for(what: str, look: t.Callable[[], tuple[T | None, str]], limit: float, suspects: t.Iterable[str] = ()) -> T:
    """Look until there is a result, and return it.

    :param look: returns the result (``None`` while there is none) and the state in words.
    :raise Failed: after ``limit`` seconds, naming what was waited for and the last state.
    """
    deadline = time.monotonic() + limit
    while True:
        result, state = look()
        if result is not None:
            return result
        if time.monotonic() >= deadline:
            raise Failed(f"waited {limit:g} s for {what}; last state: {state}", suspects)
        time.sleep(POLL)
