# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine is, in words that can be compared before and after: ``python3 snapshot.py`` prints it as JSON.

Each kind of thing is a mapping of name to state. Uses only the standard library, and runs on the machine itself.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

FOLDERS = (
    "/etc",
    "/usr/local",
    "/var/lib",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/home",
    "/var/cache",
    "/var/tmp",
    "/tmp",
    "/dev/shm",
)
"""What is looked at file by file."""


def said(*argv: str) -> str:
    """What a command prints; nothing where it is not installed."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=60, check=False).stdout
    except FileNotFoundError:
        return ""


def files() -> t.Iterator[tuple[str, str]]:
    """Mode, owner and content of every file and folder."""
    for top in FOLDERS:
        for folder, _folders, names in os.walk(top):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                try:
                    info = os.lstat(path)
                    what = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
                    if stat.S_ISLNK(info.st_mode):
                        what += f" -> {os.readlink(path)}"
                    elif stat.S_ISREG(info.st_mode):
                        what += " " + hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
                except OSError:
                    continue
                yield path, what


def settings() -> t.Iterator[tuple[str, str]]:
    """Every kernel setting that can be read."""
    for folder, _folders, names in os.walk("/proc/sys"):
        for name in names:
            path = os.path.join(folder, name)
            try:
                yield path.removeprefix("/proc/sys/").replace("/", "."), Path(path).read_text(errors="replace").strip()
            except OSError:
                continue


def links() -> t.Iterator[tuple[str, str]]:
    """Interfaces with what was set on them, their addresses, and the routes."""
    for link in json.loads(said("ip", "-json", "address", "show") or "[]"):
        addresses = sorted(f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"])
        shown = {key: link.get(key) for key in ("address", "mtu", "master", "operstate", "ifalias")}
        yield f"link {link['ifname']}", f"{shown} {addresses}"
    for line in said("ip", "route", "show", "table", "all").splitlines() + said("ip", "rule").splitlines():
        yield f"route {line.strip()}", ""


def processes() -> t.Iterator[tuple[str, str]]:
    """How many processes of each command line there are; the kernel's own have none."""
    found: collections.Counter[str] = collections.Counter()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.parent.name in (str(os.getpid()), str(os.getppid())):
            continue
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if words:
            found[words] += 1
    return ((words, str(count)) for words, count in found.items())


def rows(text: str, separator: str = ":") -> dict[str, str]:
    """Lines by what stands before the first separator."""
    return {key: rest for key, _separator, rest in (line.partition(separator) for line in text.splitlines() if line)}


def look() -> dict[str, dict[str, str]]:
    """Everything, by kind."""
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    cgroups = (folder for folder, _folders, _names in os.walk("/sys/fs/cgroup"))
    return {
        "package": rows(said("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\n"), " "),
        "sysctl": dict(settings()),
        "nft": {line.strip(): "" for line in said("nft", "list", "ruleset").splitlines()},
        "network": dict(links()),
        "mount": {mount[1]: f"{mount[0]} {mount[2]}" for mount in mounts},
        "user": rows(Path("/etc/passwd").read_text()),
        "group": rows(Path("/etc/group").read_text()),
        "file": dict(files()),
        "unit": rows(re.sub(r" +", " ", said("systemctl", "list-unit-files", "--no-legend", "--plain")), " "),
        "active unit": rows(
            re.sub(r" +", " ", said("systemctl", "list-units", "--no-legend", "--plain", "--all")), " "
        ),
        "cgroup": dict.fromkeys(cgroups, ""),
        "process": dict(processes()),
    }


def differences(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[tuple[str, str, str]]:
    """Kind, name and what became of it, for each thing that is not as before."""
    found = []
    for kind, then in before.items():
        now = after[kind]
        for name in sorted({*then, *now}):
            if then.get(name) != now.get(name):
                what = "added" if name not in then else "gone" if name not in now else f"{then[name]} -> {now[name]}"
                found.append((kind, name, what))
    return found


if __name__ == "__main__":
    json.dump(look(), sys.stdout)
