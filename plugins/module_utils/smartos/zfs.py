# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ZFS of this machine: what is there, and how it is brought to what is wanted.

:class:`Zfs` asks and acts; what is to be done is decided in zfs_plan. Only what illumos, OpenZFS and zfs-fuse have in common
is used: raw numbers come from ``zfs get -p`` because ``zfs list`` of zfs-fuse has no ``-p``, and one ``zfs set`` sets one
property.
"""

from __future__ import annotations

import os
import shlex
import struct
import tempfile
import time
import typing as t
from dataclasses import replace
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.zfs_model import (
    Command,
    Dataset,
    Property,
    Stream,
    Want,
    ZfsError,
    pool_of,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.zfs_plan import (
    changes,
    creation,
    dependents,
    dispatch,
    foretold,
    reception,
    shown,
    validate,
)

# -- streams -----------------------------------------------------------------------------------------------------------

# sys/zfs_ioctl.h, dmu_replay_record and drr_begin: record type and length, magic number, version and features, time, type
# of the dataset, flags, GUID of the snapshot, GUID of the one below (0: none), name. In the byte order of the sender.
_BEGIN = "IIQQQIIQQ256s"
_MAGIC = 0x2F5BACBAC


def read_stream(path: str) -> Stream:
    """Read the head of a file that ``zfs send`` wrote.

    :raise ZfsError: it is none, or one of several datasets (``zfs send -R`` or ``-p``), which is not handled.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(struct.calcsize("=" + _BEGIN))
    except OSError as error:
        raise ZfsError(f"{path}: {error.strerror}: name a file that `zfs send` wrote") from error
    for order in "<>":
        if len(head) == struct.calcsize("=" + _BEGIN):
            _kind, _length, magic, version, _time, _type, _flags, guid, below, name = struct.unpack(
                order + _BEGIN, head
            )
            if magic == _MAGIC:
                if version & 3 != 1:
                    raise ZfsError(
                        f"{path}: the stream has several datasets or properties: send one snapshot, without -R and -p"
                    )
                return Stream(name.split(b"\0")[0].decode(errors="replace"), guid, below)
    raise ZfsError(f"{path}: the file is not a stream of `zfs send`: decompress it first if it is compressed")


# -- the machine's ZFS -------------------------------------------------------------------------------------------------


class Zfs:
    """This machine's ZFS. Every call raises :class:`CommandError` when ZFS fails; ``timeout`` in seconds holds for each command."""

    def __init__(self, timeout: float = 300) -> None:
        self.timeout = timeout

    def ask(self, *argv: str) -> list[str]:
        """Run one command and return the lines that it prints."""
        try:
            return run(argv, timeout=self.timeout).out.splitlines()
        except CommandError as error:
            # Two pages of usage follow a property that this ZFS does not know.
            raise CommandError(argv, error.rc, error.err.split("\nusage:")[0]) from None

    def do(self, command: Command) -> None:
        """Run one command. A file that it writes is its owner's only, and appears under its name when it is complete."""
        if command.reads is not None:
            with open(command.reads, "rb") as stream:
                run(command.argv, stdin=stream, timeout=self.timeout)
        elif command.writes is not None:
            target = Path(command.writes)
            handle, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as stream:
                    run(command.argv, stdout=stream, timeout=self.timeout)
                    os.fsync(stream.fileno())
                os.replace(part, target)
            except BaseException:
                os.unlink(part)
                raise
        else:
            run(command.argv, timeout=self.timeout)

    def destroy(self, have: Dataset) -> None:
        """Destroy a dataset or snapshot that nothing depends on.

        :param have: as read with its property ``mounted``.
        """
        waits = iter((0.1, 0.2, 0.4, 0.8, 1.6))
        while True:
            try:
                return self.do(Command(("zfs", "destroy", have.name)))
            except CommandError:
                # zfs-fuse has only begun to unmount what was mounted when it says that it is busy.
                now = self.read(have.name, ["mounted"])
                unmounting = now is not None and now.properties["mounted"] != have.properties["mounted"]
                wait = next(waits, None) if unmounting else None
                if wait is None:
                    raise
                time.sleep(wait)

    def datasets(self, pool: str) -> dict[str, str | None]:
        """Names of all datasets and snapshots of a pool with their origins.

        :raise ZfsError: there is no such pool.
        """
        pools = self.ask("zpool", "list", "-H", "-o", "name")
        if pool not in pools:
            raise ZfsError(f"there is no pool {pool!r} on this machine (there are: {', '.join(pools) or 'none'})")
        rows = self.ask("zfs", "list", "-H", "-r", "-t", "filesystem,volume,snapshot", "-o", "name,origin", pool)
        origins = dict(row.split("\t") for row in rows)
        return {name: None if origin == "-" else origin for name, origin in origins.items()}

    def read(self, name: str, properties: t.Collection[str] = ()) -> Dataset | None:
        """The dataset with the named properties, without its holds; None when it is not there.

        A ZFS that does not answer is an error, never "not there": its exit code is 1 for both, so the pool is listed.
        """
        names = ",".join(dict.fromkeys(("type", "guid", "origin", "userrefs", *properties)))
        try:
            rows = self.ask("zfs", "get", "-H", "-p", "-o", "property,value,source", names, name)
        except CommandError:
            if name in self.datasets(pool_of(name)):
                raise
            return None
        found = {key: Property(value, source) for key, value, source in (row.split("\t") for row in rows)}

        def told(key: str) -> str:
            return "" if found[key].value == "-" else found[key].value

        asked = {key: found[key] for key in properties if not (":" in key and found[key] == Property("-", "-"))}
        return Dataset(name, told("type"), int(told("guid")), told("origin") or None, int(told("userrefs") or 0), asked)

    def holds(self, have: Dataset) -> tuple[str, ...]:
        """Tags of the holds of a snapshot.

        :raise ZfsError: there are some, and this ZFS cannot tell them.
        """
        if not have.userrefs:
            return ()
        try:
            rows = self.ask("zfs", "holds", "-H", have.name)
        except CommandError as error:
            raise ZfsError(
                f"{have.name} has {have.userrefs} holds, but this ZFS cannot list their tags: {error}"
            ) from error
        return tuple(sorted(row.split("\t")[1] for row in rows))

    def guids(self, dataset: str) -> dict[str, int]:
        """GUIDs of a dataset's snapshots by full name."""
        rows = (
            row.split("\t") for row in self.ask("zfs", "get", "-H", "-p", "-r", "-o", "name,value", "guid", dataset)
        )
        return {name: int(guid) for name, guid in rows if name.startswith(f"{dataset}@")}


# -- bringing them together --------------------------------------------------------------------------------------------


def converge(zfs: Zfs, want: Want, *, check_mode: bool = False) -> dict[str, t.Any]:
    """Make a dataset as wanted, and return a module's result; with ``check_mode`` only say what would be done."""
    validate(want)
    have = _look(zfs, want)
    if want.receive_from is not None:
        _check_reception(zfs, want, have)
    todo = _creation(zfs, want) if have is None else changes(have, want)
    todo += _dispatch(zfs, want, have)
    written = want.send_to is not None and os.path.exists(want.send_to)
    now = have
    if todo and not check_mode:
        now = _carry_out(zfs, want, todo)
    return {
        "changed": bool(todo),
        "actions": [str(command) for command in todo],
        "dataset": _plain(now),
        "diff": {
            "before": shown(want, have, written),
            "after": foretold(want, have) if check_mode else shown(want, now, want.send_to is not None),
        },
    }


def remove(zfs: Zfs, name: str, *, check_mode: bool = False) -> dict[str, t.Any]:
    """Destroy one dataset or snapshot on which nothing depends, and return a module's result."""
    validate(Want(name))
    if name == pool_of(name):
        raise ZfsError(f"dataset {name!r}: it is the root of the pool: only `zpool destroy` removes it")
    there = zfs.datasets(pool_of(name))
    have = zfs.read(name, ["mounted"]) if name in there else None
    if have is not None:
        others = dependents(name, there)
        if others:
            more = f" and {len(others) - 10} more" if len(others) > 10 else ""
            raise ZfsError(
                f"dataset {name!r}: other datasets depend on it: remove these first: {', '.join(others[:10])}{more}"
            )
        if have.userrefs:
            raise ZfsError(f"dataset {name!r}: a hold keeps it ({_holders(zfs, have)}): release it first")
        if not check_mode:
            zfs.destroy(have)
            if name in zfs.datasets(pool_of(name)):
                raise ZfsError(
                    f"dataset {name!r}: `zfs destroy {name}` succeeded, but the dataset still exists: look for what makes it again"
                )
    return {
        "changed": have is not None,
        "actions": [] if have is None else [f"zfs destroy {shlex.quote(name)}"],
        "dataset": _plain(have) if check_mode else None,
        "diff": {"before": shown(Want(name), have), "after": {"state": "absent"}},
    }


def _look(zfs: Zfs, want: Want, changed: bool = False) -> Dataset | None:
    """What is there of what is wanted; ``changed``: after our commands, of which each ended well."""
    have = zfs.read(want.name, want.asked)
    if have is None or not (want.holds or want.released):
        return have
    try:
        return replace(have, holds=zfs.holds(have))
    except ZfsError:
        # zfs-fuse can only tell how many there are. Before, there can have been none, or it would have ended there.
        if not changed or have.userrefs != len(want.holds):
            raise
        return replace(have, holds=want.holds)


def _check_reception(zfs: Zfs, want: Want, have: Dataset | None) -> None:
    stream = read_stream(str(want.receive_from))
    siblings = None
    if have is None and want.dataset in zfs.datasets(pool_of(want.name)):
        siblings = zfs.guids(want.dataset)
    reception(want, stream, have, siblings)


def _creation(zfs: Zfs, want: Want) -> list[Command]:
    """The commands that make the dataset, when all that it stands on is there."""
    there = zfs.datasets(pool_of(want.name))
    above = (
        want.dataset
        if want.dataset in there or (want.snapshot and want.receive_from is None)
        else want.dataset.rpartition("/")[0]
    )
    nearest = above
    while nearest not in there:
        nearest = nearest.rpartition("/")[0]
    if nearest != above and (not want.parents or above == want.dataset):
        right = "create it first" if above == want.dataset else "create it first, or set parents: true"
        raise ZfsError(f"dataset {want.name!r}: {above} does not exist: {right}")
    if want.origin is not None:
        if want.origin not in there:
            names = ", ".join(name for name in there if name.startswith(want.origin.split("@")[0] + "@")) or "none"
            raise ZfsError(f"dataset {want.name!r}: origin: there is no snapshot {want.origin} (there are: {names})")
        parent = zfs.read(want.origin.split("@")[0])
        if "volsize" in want.properties and parent is not None and parent.type != "volume":
            raise ZfsError(
                f"dataset {want.name!r}: properties.volsize: {want.origin} is a snapshot of a {parent.type}, so its clone has no volsize: leave volsize out"
            )
    found = zfs.read(nearest, want.asked)
    return creation(want, found.properties if found is not None else {})


def _dispatch(zfs: Zfs, want: Want, have: Dataset | None) -> list[Command]:
    if want.send_to is None:
        return []
    folder = os.path.dirname(os.path.abspath(want.send_to))
    if not os.path.isdir(folder):
        raise ZfsError(f"dataset {want.name!r}: send_to: there is no directory {folder}: create it first")
    below = zfs.read(want.below) if want.below is not None else None
    if want.below is not None and below is None:
        raise ZfsError(f"dataset {want.name!r}: incremental_from: there is no snapshot {want.below}")
    return dispatch(want, have, below, read_stream(want.send_to) if os.path.exists(want.send_to) else None)


def _carry_out(zfs: Zfs, want: Want, todo: list[Command]) -> Dataset:
    """Run the commands and see that they did what they were for; return what is there then."""
    for command in todo:
        zfs.do(command)
    now = _made(zfs, want)
    left = changes(now, want)
    if left:
        # Such as a property of a newer ZFS that a new dataset does not inherit.
        for command in left:
            zfs.do(command)
        now = _made(zfs, want)
        left = changes(now, want)
    if left:
        have = ", ".join(f"{name}={now.properties[name].value}" for name in want.properties)
        raise ZfsError(
            f"dataset {want.name!r}: ZFS accepted every command, but these are still needed: {'; '.join(str(one) for one in left)}"
            f" (it shows {have}): write each value as ZFS shows it, or look for what else sets it"
        )
    if want.send_to is not None and read_stream(want.send_to).guid != now.guid:
        raise ZfsError(
            f"dataset {want.name!r}: send_to: {want.send_to} does not hold the stream of this snapshot, which was replaced meanwhile: run again"
        )
    return now


def _made(zfs: Zfs, want: Want) -> Dataset:
    now = _look(zfs, want, changed=True)
    if now is None:
        raise ZfsError(
            f"dataset {want.name!r}: every command succeeded, but it does not exist: look for what removes it"
        )
    return now


def _holders(zfs: Zfs, have: Dataset) -> str:
    try:
        return ", ".join(zfs.holds(have))
    except ZfsError:
        return f"{have.userrefs} tags, which this ZFS cannot list"


def _plain(have: Dataset | None) -> dict[str, t.Any] | None:
    """A dataset as plain data, numbers as numbers."""
    if have is None:
        return None
    values = {
        name: {"value": int(one.value) if one.value.isdigit() and ":" not in name else one.value, "source": one.source}
        for name, one in have.properties.items()
    }
    plain = {"name": have.name, "type": have.type, "guid": have.guid, "origin": have.origin, "properties": values}
    return {**plain, "userrefs": have.userrefs, "holds": list(have.holds)} if have.type == "snapshot" else plain
