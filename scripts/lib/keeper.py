# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves to work on a host while it goes on: hold the deployment's lock, and tell whose the deployment is.

hold.py sends this text after that of module_utils/host/ownership.py to the host's Python, and then a request in one line of JSON. The
lock is the kernel's (flock(2)), held by this process. It ends when its standard input ends, as that of an SSH session does whose
client was killed, or when nothing was heard for SILENCE seconds, as when the control machine lost its power. A boot ends it anyway.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible_collections.zonestack.openstack.plugins.module_utils.host.ownership import FOLDERS, Path, owners

RUN = "/var/run"
"""On Linux a link to /run; SmartOS has no other."""
SILENCE = 90.0
"""Seconds without a word after which the run counts as dead."""
POLL = 0.2
"""Seconds between two attempts at a lock that somebody else has."""

Words = queue.Queue[Any]
"""What the run says, line by line; None once it has ended."""


def say(**what: object) -> None:
    """Answer in one line."""
    print(json.dumps(what), flush=True)


def listen(words: Words) -> None:
    """Put every line into the queue, from a thread of its own."""
    for line in sys.stdin.buffer:
        words.put(json.loads(line))
    words.put(None)


def gone(words: Words) -> bool:
    """Whether the run has ended while this waits."""
    while not words.empty():
        if words.get() is None:
            return True
    return False


def acquire(path: str, holder: str, limit: float, words: Words) -> int | None:
    """Take the lock; its descriptor, or None when the run ended or ``limit`` seconds are over. Says for whom it waits."""
    deadline, told = time.monotonic() + limit, ""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(lock), os.stat(path)):
                os.ftruncate(lock, 0)
                os.write(lock, holder.encode())
                return lock
        except BlockingIOError:
            other = os.read(lock, 4096).decode(errors="replace") or "another run"
            if time.monotonic() > deadline:
                say(state="busy", holder=other)
                return None
            if other != told:
                say(state="waiting", holder=other)
                told = other
            time.sleep(POLL)
        os.close(lock)
        if gone(words):
            return None


def note(folder: Path, deployment: str, told: dict[str, str] | None) -> None:
    """Write down whose the deployment is, or with None that it is nobody's any more."""
    path = folder / deployment
    if told is None:
        path.unlink(missing_ok=True)
        for empty in (folder, folder.parent):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
        return
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / f".{deployment}.new"
    trial.write_text(json.dumps(told) + "\n")
    trial.replace(path)


def serve(request: dict[str, Any], words: Words) -> None:
    """Do what the run says until it says nothing more."""
    while True:
        try:
            word = words.get(timeout=SILENCE)
        except queue.Empty:
            return
        if word is None:
            return
        if "note" in word:
            note(FOLDERS[request["backend"]], request["deployment"], word["note"])
        say(state="done")


def main() -> None:
    """Read the request, answer whose the deployment is, and hold its lock if that is asked for."""
    request = json.loads(sys.stdin.buffer.readline())
    deployment, backend = request["deployment"], request["backend"]
    if not request["lock"]:
        say(state="told", owners=owners(deployment, backend))
        return
    words: Words = queue.Queue()
    threading.Thread(target=listen, args=(words,), daemon=True).start()
    path = f"{RUN}/zonestack-run.{deployment}"
    lock = acquire(path, request["holder"], request["wait"], words)
    if lock is None:
        return
    try:
        say(state="held", owners=owners(deployment, backend))
        serve(request, words)
    finally:
        os.unlink(path)  # before the lock goes, so that whoever has opened it sees that it is not the one any more
        os.close(lock)
