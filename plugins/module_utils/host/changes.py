# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differences between what a host is and what it should be, each with what ends it; and those of its zones' networks."""

from __future__ import annotations

import os
import stat
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import run
from ansible_collections.zonestack.openstack.plugins.module_utils.files import write_atomically

HEADER = "# Written by zonestack (roles/zone_host); changes here are lost.\n"

BRIDGE: dict[str, t.Any] = {
    "bridge": {"type": "str", "required": True},
    "address": {"type": "str"},
    "mtu": {"type": "int", "required": True},
    "nat": {"type": "str"},
    "interface": {"type": "str"},
    "provider": {"type": "bool", "default": False},
}
NETWORK: dict[str, t.Any] = {
    "deployment": {"type": "str", "required": True},
    "bridges": {"type": "list", "elements": "dict", "required": True, "options": BRIDGE},
    "network_command": {"type": "str", "required": True},
}


@dataclass(frozen=True)
class Change:
    """One difference between what is and what should be, and how to end it."""

    what: str
    before: str
    after: str
    apply: t.Callable[[], object]

    def __str__(self) -> str:
        return f"{self.what}: {self.before} -> {self.after}"


def read(path: str) -> str | None:
    """A file's text, None where there is none."""
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return None


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file so that it is there completely or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_atomically(Path(path), text, mode)


def file_change(path: str, text: str, mode: int = 0o644) -> t.Iterator[Change]:
    """A file whose text or mode is not as it should be."""
    before = read(path)
    before_mode = None if before is None else stat.S_IMODE(os.stat(path).st_mode)
    if (before, before_mode) != (text, mode):
        state = "missing" if before is None else "other text" if before != text else f"mode {before_mode:04o}"
        yield Change(f"file {path}", state, f"written, mode {mode:04o}", lambda: write(path, text, mode))


def bridge_lines(bridges: list[dict[str, t.Any]]) -> str:
    """What zonestack-network reads: one line per bridge, a dash for what it has not."""
    rows = [
        [
            one["bridge"],
            one["address"],
            str(one["mtu"]),
            one["nat"],
            one["interface"],
            "provider" if one["provider"] else None,
        ]
        for one in bridges
    ]
    return HEADER + "".join(" ".join(word or "-" for word in row) + "\n" for row in rows)


def network_files(given: t.Mapping[str, t.Any], program: str, folder: str) -> t.Iterator[Change]:
    """The program zonestack-network and what it reads, for the options of :data:`NETWORK`.

    :param program: where the program is kept; ``folder`` where it has a file for each deployment.
    """
    yield from file_change(program, given["network_command"], 0o755)
    yield from file_change(f"{folder}/{given['deployment']}", bridge_lines(given["bridges"]))


def _asked(given: t.Mapping[str, t.Any], verb: str) -> t.Any:
    """What zonestack-network says to a verb that only looks.

    The program and its input travel to a scratch folder, so that check mode asks the same program that acts.
    """
    with tempfile.TemporaryDirectory(prefix="zonestack-") as scratch:
        trial, trials = f"{scratch}/zonestack-network", f"{scratch}/network"
        write(trial, given["network_command"], 0o700)
        write(f"{trials}/{given['deployment']}", bridge_lines(given["bridges"]))
        return run(["bash", trial, verb, given["deployment"]], env={"ZONESTACK_NETWORK": trials}, check=False)


def refuse_conflicts(given: t.Mapping[str, t.Any]) -> None:
    """Refuse bridges of the site that cannot be what the deployment needs, for the options of :data:`NETWORK`.

    :raise ValueError: with a line for each bridge that says what would be right. Nothing is changed.
    """
    asked = _asked(given, "conflicts")
    if asked.rc != 0:
        raise ValueError(asked.out.strip() or asked.err.strip())


def network_changes(given: t.Mapping[str, t.Any], program: str, folder: str) -> t.Iterator[Change]:
    """Networks that are not as they should be, in the words of zonestack-network.

    What :func:`network_files` says is done before these are.
    """
    deployment = given["deployment"]
    checked = _asked(given, "check")
    if checked.rc == 0:
        return
    lacks = checked.out.strip() or checked.err.strip()

    def start() -> None:
        run([program, "start", deployment], env={"ZONESTACK_NETWORK": folder})
        run([program, "check", deployment], env={"ZONESTACK_NETWORK": folder})

    yield Change(f"network of {deployment}", lacks.replace("\n", "; "), "as described", start)


def result(done: t.Sequence[Change]) -> dict[str, t.Any]:
    """What a module says of the differences that it has ended, or in check mode would end."""
    return {
        "changed": bool(done),
        "changes": [str(change) for change in done],
        "diff": {
            "before": "".join(f"{change.what}: {change.before}\n" for change in done),
            "after": "".join(f"{change.what}: {change.after}\n" for change in done),
        },
    }
