# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host was before zonestack changed it, so that the last deployment leaves it as it was found."""

from __future__ import annotations

import functools
import json
import os
import stat
import typing as t
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.host.changes import Change, read, write

FILE = "/var/lib/zonestack/found.json"
"""By kind (``sysctl``, ``lines``, ``modes``, ``packages``) and name, what was there. It goes with the last deployment."""


def remembered() -> dict[str, dict[str, t.Any]]:
    """All that was noted, empty on a host that a version without notes has prepared."""
    try:
        noted = json.loads(read(FILE) or "{}")
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) else {}


def remember(kind: str, name: str, before: object) -> None:
    """Note what was there before the first change; later ones find what zonestack made and note nothing."""
    noted = remembered()
    if name not in noted.setdefault(kind, {}):
        noted[kind][name] = before
        write(FILE, json.dumps(noted, indent=1, sort_keys=True) + "\n")


def raised(name: str, before: int, ours: int) -> None:
    """Note a kernel setting that is raised: what it was before the first time, and what it is from now on."""
    remember("sysctl", name, [before, ours])
    noted = remembered()
    noted["sysctl"][name] = [noted["sysctl"][name][0], ours]
    write(FILE, json.dumps(noted, indent=1, sort_keys=True) + "\n")


def _without(path: str, line: str) -> None:
    lines = (read(path) or "").splitlines(keepends=True)
    write(path, "".join(one for one in lines if one.rstrip("\n") != line), stat.S_IMODE(os.stat(path).st_mode))


def restorations(sysctl_path: t.Callable[[str], str]) -> t.Iterator[Change]:
    """What gives back what was there. What somebody else has changed since stays.

    :param sysctl_path: gives the file of a kernel setting.
    """
    noted = remembered()
    for name, (before, ours) in sorted(noted.get("sysctl", {}).items()):
        path = sysctl_path(name)
        if (read(path) or "").strip() == str(ours):
            yield Change(
                f"sysctl {name}", str(ours), str(before), functools.partial(Path(path).write_text, f"{before}\n")
            )
    for path, line in sorted(noted.get("lines", {}).items()):
        if line in (read(path) or "").splitlines():
            yield Change(f"file {path}", line, "gone", functools.partial(_without, path, line))
    for path, mode in sorted(noted.get("modes", {}).items()):
        if os.path.isdir(path) and f"{stat.S_IMODE(os.stat(path).st_mode):04o}" != mode:
            yield Change(f"folder {path}", "ours", mode, functools.partial(os.chmod, path, int(mode, 8)))
