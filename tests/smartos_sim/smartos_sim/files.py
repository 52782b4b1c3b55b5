# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that several processes read and write at the same time: JSON, replaced whole, and locks; and the error type."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import typing as t
from pathlib import Path


class ToolError(Exception):
    """A command fails with this message on stderr and exit status ``code``."""

    code = 1


def read_json(path: Path, default: t.Any = None) -> t.Any:
    """The value in ``path``; ``default`` when there is no such file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return default
    return json.loads(text)


def write_json(path: Path, value: t.Any) -> None:
    """Put ``value`` into ``path``; every reader, and a process that finds a killed one's files, sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(part, "w") as out:
        json.dump(value, out, indent=1)
    os.replace(part, path)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> t.Iterator[bool]:
    """Hold the lock ``path`` alone; it ends with the process, so that a killed command leaves none behind.

    Gives whether the lock is held, which is always so unless ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def timestamp(seconds: float | None = None) -> str:
    """A moment (seconds since the epoch, default now) as the SmartOS tools write it: UTC with milliseconds."""
    seconds = time.time() if seconds is None else seconds
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"
