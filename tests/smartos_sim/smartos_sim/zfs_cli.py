# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``zfs`` and ``zpool`` of the global zone: zfs-fuse's own, with what illumos has had since (facts 9).

Added are ``-p`` of the two ``list`` commands, properties that zfs-fuse does not know, which are kept as user properties and
have no effect, and lz4 and zstd, which are on. ``zoned`` is kept so too: zfs-fuse would refuse to mount the dataset. ``destroy``
and ``rename`` wait until zfs-fuse has ended its mount. All else is handed on as it is.
"""

from __future__ import annotations

import contextlib
import getopt
import os
import re
import subprocess
import sys
import time
import typing as t

from . import linux

PREFIX = "smartos-sim:"
KEPT = {
    "zoned": "off", "filesystem_limit": "none", "snapshot_limit": "none", "sync": "standard", "acltype": "nfsv4",
    "encryption": "off", "redundant_metadata": "all", "special_small_blocks": "0", "dnodesize": "legacy",
}  # fmt: skip
"""Properties that are only remembered, and their values when nobody has set them."""
UNLIMITED = str(2**64 - 1)
"""What an unset limit is in ``zfs list -p`` (facts 9)."""
ASSIGNING = {"create": "psb:V:o:", "clone": "po:", "snapshot": "ro:"}
BUSY_LIMIT = 3.0
"""Seconds for which a dataset that was mounted may be busy; after that something uses it, and that is an error as on illumos."""
UNITS = {unit: 1024**power for power, unit in enumerate("BKMGTPE")}


def _real(tool: str, argv: list[str]) -> t.NoReturn:
    """Become the real command; one that has to wait for its turn is run instead, as the turn ends with this process."""
    with linux.turn(tool, *argv) as waited:
        if waited is None:
            os.execv(tool, [os.path.basename(tool), *argv])
        done = subprocess.run([tool, *argv], check=False).returncode
    raise SystemExit(done if done >= 0 else 128 - done)


def _ask(tool: str, *argv: str) -> list[str]:
    """The lines that the real command prints; its failure is this command's, with what it said."""
    with linux.turn(tool, *argv):
        done = subprocess.run([tool, *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise SystemExit(done.returncode)
    return done.stdout.splitlines()


def _print(rows: list[list[str]], head: list[str], script: bool) -> None:
    """A table, or lines of cells with tabs between them."""
    if script:
        sys.stdout.write("".join("\t".join(row) + "\n" for row in rows))
        return
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    for row in [[name.upper() for name in head], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _assignments(pair: str) -> list[str]:
    """A PROPERTY=VALUE as zfs-fuse takes it."""
    name, _equals, value = pair.partition("=")
    if name in KEPT:
        return [f"{PREFIX}{pair}"]
    if name == "compression":
        newer = value.startswith(("lz4", "zstd"))
        return [f"compression={'on' if newer else value}", f"{PREFIX}compression={value if newer else 'none'}"]
    return [pair]


def zfs(argv: list[str]) -> int:
    """Run zfs; the exit status."""
    word, rest = (argv[0], argv[1:]) if argv else ("", [])
    with contextlib.suppress(getopt.GetoptError):  # the real one says what is wrong
        if word == "set" and rest and "=" in rest[0]:
            for pair in _assignments(rest[0]):
                _ask(linux.ZFS, "set", pair, *rest[1:])
            return 0
        if word == "inherit" and len(rest) > 1 and rest[-2] in (*KEPT, "compression"):
            recursive = ["-r"] if "-r" in rest else []
            _ask(linux.ZFS, "inherit", *recursive, f"{PREFIX}{rest[-2]}", rest[-1])
            if rest[-2] in KEPT:
                return 0
        if word in ASSIGNING:
            options, operands = getopt.getopt(rest, ASSIGNING[word])
            words = []
            for letter, value in options:
                pairs = _assignments(value) if letter == "-o" else [value]
                words += [one for pair in pairs for one in ([letter, pair] if pair else [letter])]
            _real(linux.ZFS, [word, *words, *operands])
        if word in ("destroy", "rename"):
            return _unmounting(argv)
        if word == "get":
            return _get(*getopt.getopt(rest, "rHpd:o:s:t:"))
        if word == "list":
            return _list(*getopt.getopt(rest, "rHpd:o:t:s:S:"))
    _real(linux.ZFS, argv)


def _unmounting(argv: list[str]) -> int:
    """Run a command for which zfs-fuse must first unmount: it begins to, says "busy", and does it when asked again."""
    said, until, unmounted = "", 0.0, False
    while True:
        with linux.turn(linux.ZFS, *argv):
            done = subprocess.run([linux.ZFS, *argv], capture_output=True, text=True, check=False)
        if done.stderr != said:  # of the next dataset
            said, until = done.stderr, time.monotonic() + BUSY_LIMIT
        if "dataset is busy" not in done.stderr or time.monotonic() > until:
            sys.stdout.write(done.stdout)
            sys.stderr.write(done.stderr)
            if unmounted:
                linux.quiet(linux.ZFS, "mount", argv[-2] if done.returncode else argv[-1])
            return done.returncode
        if argv[0] == "rename" and len(argv) > 2:
            unmounted = linux.quiet(linux.ZFS, "unmount", argv[-2]) or unmounted
        time.sleep(0.1)


def _values(names: list[str], properties: list[str], exact: bool) -> dict[tuple[str, str], tuple[str, str]]:
    """Value and source of each property of each dataset."""
    asked = [f"{PREFIX}{name}" if name in KEPT else name for name in properties]
    if "compression" in properties:
        asked.append(f"{PREFIX}compression")
    parse = ["-p"] if exact else []
    found = {}
    for line in _ask(linux.ZFS, "get", "-H", *parse, "-o", "name,property,value,source", ",".join(asked), *names):
        name, key, value, source = line.split("\t")
        short = key.removeprefix(PREFIX)
        if key != short and short in KEPT:
            found[name, short] = (KEPT[short], "default") if value == "-" else (value, source)
        elif key == f"{PREFIX}compression":
            if value not in ("-", "none"):
                found[name, short] = (value, source)
        else:
            found[name, key] = (value, source)
    return found


def _get(options: list[tuple[str, str]], operands: list[str]) -> int:
    given = dict(options)
    properties = operands[0].split(",") if operands else []
    touched = any(name in KEPT or name == "compression" for name in properties) or "-t" in given
    if not touched:
        _real(linux.ZFS, ["get", *[word for pair in options for word in pair if word], *operands])
    depth = [*(["-r"] if "-r" in given else []), *(["-d", given["-d"]] if "-d" in given else [])]
    kinds = ["-t", given.get("-t", "filesystem,volume,snapshot")]
    names = _ask(linux.ZFS, "list", "-H", "-o", "name", *depth, *kinds, *operands[1:])
    found = _values(names, properties, "-p" in given)
    fields = given.get("-o", "name,property,value,source").split(",")
    sources = set(given["-s"].split(",")) if "-s" in given else None
    rows = []
    for name in names:
        for key in properties:
            value, source = found.get((name, key), ("-", "-"))
            if sources is None or source.split(" ")[0] in sources:
                cells = {"name": name, "property": key, "value": value, "source": source}
                rows.append([cells[field] for field in fields])
    _print(rows, fields, "-H" in given)
    return 0


def _list(options: list[tuple[str, str]], operands: list[str]) -> int:
    given = dict(options)
    columns = given.get("-o", "name,used,avail,refer,mountpoint").split(",")
    if "-p" not in given and not any(name in KEPT or name == "compression" for name in columns):
        _real(linux.ZFS, ["list", *[word for pair in options for word in pair if word], *operands])
    handed = [word for pair in options if pair[0] not in ("-H", "-p", "-o") for word in pair if word]
    names = _ask(linux.ZFS, "list", "-H", "-o", "name", *handed, *operands)
    if not names:
        return 0
    full = {"avail": "available", "refer": "referenced", "compress": "compression", "recsize": "recordsize"}
    keys = [full.get(name, name) for name in columns]
    found = _values(names, [key for key in keys if key != "name"], "-p" in given)
    rows = []
    for name in names:
        row = [name if key == "name" else found.get((name, key), ("-", "-"))[0] for key in keys]
        if "-p" in given:
            row = [
                UNLIMITED if key.endswith("_limit") and cell == "none" else cell
                for key, cell in zip(keys, row, strict=True)
            ]
        rows.append(row)
    _print(rows, columns, "-H" in given)
    return 0


def zpool(argv: list[str]) -> int:
    """Run zpool; the exit status. Sizes under ``-p`` are as exact as what zfs-fuse prints: three digits."""
    if argv[:1] == ["list"]:
        with contextlib.suppress(getopt.GetoptError):
            options, operands = getopt.getopt(argv[1:], "Hpo:")
            given = dict(options)
            if "-p" in given:
                columns = given.get("-o", "name,size,alloc,free,cap,dedup,health,altroot").split(",")
                rows = [
                    line.split("\t") for line in _ask(linux.ZPOOL, "list", "-H", "-o", ",".join(columns), *operands)
                ]
                _print([[_bytes(cell) for cell in row] for row in rows], columns, "-H" in given)
                return 0
    _real(linux.ZPOOL, argv)


def _bytes(cell: str) -> str:
    size = re.fullmatch(r"([\d.]+)([BKMGTPE])", cell)
    return str(int(float(size[1]) * UNITS[size[2]])) if size else cell.rstrip("%x")
