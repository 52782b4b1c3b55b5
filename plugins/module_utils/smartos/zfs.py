# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ZFS datasets: what is there, what is wanted, and the commands that lead there.

:class:`Zfs` asks and acts; everything that decides is pure. Only what illumos, OpenZFS and zfs-fuse have in common is
used: raw numbers come from ``zfs get -p`` because ``zfs list`` of zfs-fuse has no ``-p``, and one ``zfs set`` sets one
property. Nothing here destroys what it was not asked to: no ``-r``, ``-R`` or ``-F`` is ever given.
"""

from __future__ import annotations

import os
import re
import shlex
import struct
import tempfile
import time
import typing as t
from dataclasses import dataclass, field, replace
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run

# zfs(8), "ZFS Component Naming": a pool's name begins with a letter, a name has at most 255 characters.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*(@[A-Za-z0-9_.:-]+)?")
PROPERTY = re.compile(r"[a-z0-9_]+|[a-z0-9_.-]*:[a-z0-9_:.-]*")

# A new dataset is given these as wanted: its parent's value of them says nothing about its own (zfs(8), "Native Properties").
NOT_INHERITED = frozenset(
    (
        "canmount",
        "casesensitivity",
        "encryption",
        "filesystem_limit",
        "keyformat",
        "keylocation",
        "mountpoint",
        "normalization",
    )
    + (
        "pbkdf2iters",
        "quota",
        "refquota",
        "refreservation",
        "reservation",
        "snapshot_limit",
        "utf8only",
        "version",
        "volblocksize",
    )
)
UNITS = "BKMGTPEZ"
NO_LIMIT = 2**64 - 1
# zfs(8), volsize: sizes are rounded up to multiples of this, the largest block of a volume; such a size is never rounded.
VOLUME_STEP = 128 * 1024
# Two spellings of one value; ZFS shows the second.
SAME = {("compression", "gzip-6"): "gzip", ("aclinherit", "secure"): "restricted"}


class ZfsError(Exception):
    """A dataset cannot be made as described; the message names it, says what is wrong, and what would be right."""


@dataclass(frozen=True)
class Property:
    """A value as ``zfs get -p`` prints it, and where it comes from (local, default, inherited from ..., received, -)."""

    value: str
    source: str

    @property
    def own(self) -> bool:
        """Whether the value was set on the dataset itself, so that it could be given up for an inherited one."""
        return self.source in ("local", "received")


@dataclass(frozen=True)
class Dataset:
    """A file system, volume or snapshot that exists; ``userrefs`` is how many holds it has, ``holds`` their tags if asked for."""

    name: str
    type: str
    guid: int
    origin: str | None = None
    userrefs: int = 0
    properties: t.Mapping[str, Property] = field(default_factory=dict)
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Want:
    """A dataset as it should be; a name with @ is a snapshot, one with the property volsize a volume.

    ``properties`` are values as zfs(8) takes them, sizes such as 10G; ``inherited`` must not be set on the dataset itself;
    ``origin`` is the snapshot that it is a clone of; ``holds`` and ``released`` are tags that a snapshot has or has not.
    A snapshot comes from the file ``receive_from``, and its stream is in the file ``send_to``: of all of it, or only of what
    differs from the earlier snapshot ``incremental_from``.
    """

    name: str
    origin: str | None = None
    properties: t.Mapping[str, str] = field(default_factory=dict)
    inherited: tuple[str, ...] = ()
    parents: bool = False
    holds: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    receive_from: str | None = None
    send_to: str | None = None
    incremental_from: str | None = None

    @property
    def snapshot(self) -> bool:
        """Whether this is a snapshot."""
        return "@" in self.name

    @property
    def dataset(self) -> str:
        """The file system or volume: itself, or what it is a snapshot of."""
        return self.name.split("@")[0]

    @property
    def asked(self) -> tuple[str, ...]:
        """The properties that this says something about."""
        return (*self.properties, *self.inherited)

    @property
    def below(self) -> str | None:
        """Full name of the snapshot that an incremental stream starts from."""
        short = self.incremental_from
        return self.dataset + short if short and short.startswith("@") else short


@dataclass(frozen=True)
class Command:
    """One command of ZFS, and the file that it reads or writes."""

    argv: tuple[str, ...]
    reads: str | None = None
    writes: str | None = None

    def __str__(self) -> str:
        files = [f"{sign} {shlex.quote(path)}" for sign, path in (("<", self.reads), (">", self.writes)) if path]
        return " ".join([shlex.join(self.argv), *files])


@dataclass(frozen=True)
class Stream:
    """The head of a stream of ``zfs send``: of which snapshot it is, and for an incremental one, on top of which."""

    name: str
    guid: int
    from_guid: int


# -- values ------------------------------------------------------------------------------------------------------------


def text(value: object) -> str:
    """A property's value as zfs(8) takes it: YAML's true and false are on and off.

    :raise ValueError: it is no single value.
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError(f"{value!r} is not right: a text, a number or a boolean")


def number(value: str) -> int | None:
    """A size such as 10G, 1.5T, 512 or 10GB in bytes, with units of 1024; None when it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([BKMGTPEZ]?)B?", value.upper())
    if not found:
        return None
    unit = 1024 ** UNITS.index(found[2] or "B")
    return int(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit


def canonical(name: str, value: str) -> str:
    """A value as ``zfs get -p`` prints it, as far as that can be known: sizes in bytes, ``none`` as the number it stands for.

    Values of user properties (with a colon in their name) are texts, whatever they look like.
    """
    if ":" in name or name == "mountpoint":
        return value
    if value == "none" and name.endswith(("quota", "reservation")):
        return "0"
    if value == "none" and name.endswith("_limit"):
        return str(NO_LIMIT)
    size = number(value)
    return SAME.get((name, value), value) if size is None else str(size)


def same(name: str, have: str, want: str) -> bool:
    """Whether two spellings are one value of the property."""
    return canonical(name, have) == canonical(name, want)


# -- decisions ---------------------------------------------------------------------------------------------------------


def validate(want: Want) -> None:
    """Refuse a description that is wrong whatever exists."""

    def refuse(where: str, value: object, right: str) -> t.NoReturn:
        raise ZfsError(f"dataset {want.name!r}: {where}: {value!r} is not right: {right}")

    if not NAME.fullmatch(want.name) or len(want.name) > 255:
        refuse(
            "name", want.name, "pool/path or pool/path@snapshot of letters, digits and _ . : -, at most 255 characters"
        )
    if want.origin is not None:
        if want.snapshot or "@" not in want.origin or not NAME.fullmatch(want.origin):
            refuse("origin", want.origin, "the snapshot (pool/path@name) that a file system or volume is a clone of")
        if pool_of(want.origin) != pool_of(want.name):
            refuse("origin", want.origin, "a snapshot of the same pool")
    if not want.snapshot:
        for where in ("holds", "released", "receive_from", "send_to"):
            if getattr(want, where):
                refuse(where, getattr(want, where), "only for a snapshot (pool/path@name)")
    if want.below is not None and (
        want.send_to is None or not NAME.fullmatch(want.below) or not want.below.startswith(f"{want.dataset}@")
    ):
        refuse("incremental_from", want.incremental_from, "an earlier snapshot of the dataset, for send_to")
    for tag in {*want.holds} & {*want.released}:
        refuse("released", tag, "a tag is either held or released")
    for tag in (*want.holds, *want.released):
        if not re.fullmatch(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*", tag):
            refuse("holds", tag, "a tag of letters, digits and _ . : -")
    for name in want.asked:
        if not PROPERTY.fullmatch(name):
            refuse(
                "properties",
                name,
                "a property in lower case, as zfs(8) lists them, or with a colon for one of your own",
            )
        if want.snapshot and ":" not in name:
            refuse(
                "properties", name, "a snapshot can only be given properties of your own, with a colon in their name"
            )
    for name in {*want.properties} & {*want.inherited}:
        refuse("inherited", name, "a property is either set or inherited")
    for name, value in want.properties.items():
        if "\n" in value or "\t" in value:
            refuse(f"properties.{name}", value, "a value without tabs and line breaks")
        if name == "refreservation" and value == "auto":
            refuse("properties.refreservation", value, "a size, which can be compared with what is there")
    size = want.properties.get("volsize")
    if size is not None and (number(size) or 1) % VOLUME_STEP:
        refuse("properties.volsize", size, "a multiple of 128K, so that ZFS does not round it")


def creation(want: Want, nearest: t.Mapping[str, Property]) -> list[Command]:
    """The commands that make a dataset that is not there.

    :param nearest: the wanted properties of the nearest dataset above; what would be inherited as wanted is not set.
    """
    given = [
        word
        for name, value in want.properties.items()
        if name != "volsize"
        and not (name not in NOT_INHERITED and name in nearest and same(name, nearest[name].value, value))
        for word in ("-o", f"{name}={value}")
    ]
    if want.receive_from is not None:
        above = want.dataset.rpartition("/")[0]
        commands = [Command(("zfs", "create", "-p", above))] if want.parents else []
        commands.append(Command(("zfs", "receive", want.name), reads=want.receive_from))
        commands += [Command(("zfs", "set", pair, want.name)) for pair in given[1::2]]
    elif want.snapshot:
        commands = [Command(("zfs", "snapshot", *given, want.name))]
    else:
        parents = ("-p",) if want.parents else ()
        size = want.properties.get("volsize")
        if want.origin is not None:
            commands = [Command(("zfs", "clone", *parents, *given, want.origin, want.name))]
            commands += [Command(("zfs", "set", f"volsize={size}", want.name))] if size else []
        else:
            commands = [Command(("zfs", "create", *parents, *(("-V", size) if size else ()), *given, want.name))]
    return commands + [Command(("zfs", "hold", tag, want.name)) for tag in want.holds]


def changes(have: Dataset, want: Want) -> list[Command]:
    """The commands that change what is there into what is wanted; none when nothing differs.

    A value that is as wanted is left alone wherever it comes from: inherited, default, received or local.

    :raise ZfsError: it is something else, or cannot be changed without losing data.
    """

    def refuse(message: str) -> t.NoReturn:
        raise ZfsError(f"dataset {want.name!r}: {message}")

    if want.origin is not None and have.origin != want.origin:
        is_now = f"a clone of {have.origin}" if have.origin else "no clone"
        refuse(f"exists and is {is_now}, not a clone of {want.origin}: remove it or choose another name")
    if "volsize" in want.properties and have.type != "volume":
        refuse(f"exists and is a {have.type}, which has no volsize: remove it or choose another name")

    differing = {
        name: value
        for name, value in want.properties.items()
        if name not in have.properties or not same(name, have.properties[name].value, value)
    }
    for name, value in differing.items():
        now = have.properties.get(name)
        if now is not None and now.source == "-" and ":" not in name and name != "volsize":
            why = (
                f"no property of a {have.type}"
                if now.value == "-"
                else f"{now.value}, and not to be changed after creation"
            )
            refuse(f"properties.{name}: cannot be {value}: it is {why}")
    if "volsize" in differing:
        before, after = number(have.properties["volsize"].value) or 0, number(differing["volsize"]) or 0
        if after < before:
            refuse(
                f"properties.volsize: has {before} bytes, {after} are wanted: shrinking would lose data and is not done here"
            )

    def turn(name: str) -> int:
        """Reservations are lowered before, and raised after, the quotas and sizes that must hold them."""
        if not name.endswith("reservation"):
            return 1
        sizes = [number(canonical(name, value)) or 0 for value in (have.properties[name].value, differing[name])]
        return 0 if sizes[0] > sizes[1] else 2

    given_up = [name for name in want.inherited if name in have.properties and have.properties[name].own]
    lists = (
        [("set", f"{name}={differing[name]}") for name in sorted(differing, key=turn)],
        [("inherit", name) for name in given_up],
        [("hold", tag) for tag in want.holds if tag not in have.holds],
        [("release", tag) for tag in want.released if tag in have.holds],
    )
    return [Command(("zfs", *words, want.name)) for one in lists for words in one]


def reception(want: Want, stream: Stream, have: Dataset | None, siblings: t.Mapping[str, int] | None) -> None:
    """Refuse to receive what would not fit, before anything is changed.

    :param have: the wanted snapshot, if it is there.
    :param siblings: GUIDs of the dataset's snapshots by name; None when there is no dataset.
    """
    where = f"dataset {want.name!r}: receive_from: {want.receive_from}"
    if have is not None:
        if have.guid != stream.guid:
            raise ZfsError(
                f"{where} holds {stream.name}, another snapshot than the one that is there: remove it or choose another name"
            )
    elif stream.from_guid and stream.from_guid not in (siblings or {}).values():
        names = ", ".join(siblings or ()) or "none"
        raise ZfsError(
            f"{where} starts from a snapshot with GUID {stream.from_guid}, which {want.dataset} has not (its snapshots: {names}):"
            " receive that one first, or send a full stream"
        )
    elif not stream.from_guid and siblings is not None:
        raise ZfsError(
            f"{where} is a full stream, which makes a new dataset, but {want.dataset} exists: choose another name or remove it"
        )


def dispatch(want: Want, have: Dataset | None, below: Dataset | None, written: Stream | None) -> list[Command]:
    """The command that writes the snapshot's stream; none when the file holds it already.

    :param have: the snapshot, if it is there.
    :param below: the snapshot that an incremental stream starts from.
    :param written: what the file holds now, None when there is no file.
    """
    if want.send_to is None:
        return []
    from_guid = below.guid if below is not None else 0
    if written is not None:
        if have is not None and (written.guid, written.from_guid) == (have.guid, from_guid):
            return []
        raise ZfsError(
            f"dataset {want.name!r}: send_to: {want.send_to} holds another stream, of {written.name}: remove it or choose another file"
        )
    start = ("-i", below.name) if below is not None else ()
    return [Command(("zfs", "send", *start, want.name), writes=want.send_to)]


def dependents(name: str, there: t.Mapping[str, str | None]) -> list[str]:
    """What would have to go before ``name`` could: datasets below, snapshots, and clones of these.

    :param there: all datasets and snapshots of the pool with their origins.
    """
    found = []
    for other, origin in there.items():
        if other.startswith((f"{name}/", f"{name}@")):
            found.append(other)
        elif origin is not None and (origin == name or origin.startswith(f"{name}@")):
            found.append(f"{other} (a clone of {origin})")
    return sorted(found)


def shown(want: Want, have: Dataset | None, written: bool = False) -> dict[str, t.Any]:
    """One side of a diff: of what is there, what the description speaks of; ``written``: whether ``send_to`` is."""
    if have is None:
        return {"state": "absent"}
    side: dict[str, t.Any] = {"state": "present", "type": have.type}
    if want.send_to is not None:
        side["send_to"] = want.send_to if written else None
    if have.origin:
        side["origin"] = have.origin
    values = {name: have.properties[name] for name in want.asked if name in have.properties}
    properties = {name: canonical(name, now.value) for name, now in values.items() if name in want.properties}
    properties |= {
        name: canonical(name, now.value) if now.own else "(inherited)"
        for name, now in values.items()
        if name in want.inherited
    }
    if properties:
        side["properties"] = properties
    if want.holds or want.released:
        side["holds"] = sorted({*have.holds} & {*want.holds, *want.released})
    return side


def foretold(want: Want, have: Dataset | None) -> dict[str, t.Any]:
    """The other side: what :func:`shown` will say when the commands have run."""
    if have is None:
        kind = "snapshot" if want.snapshot else "volume" if "volsize" in want.properties else "filesystem"
        have = Dataset(want.name, kind, 0, want.origin)
    held = ({*have.holds} | {*want.holds}) - {*want.released}
    values = {name: Property(value, "local") for name, value in want.properties.items()}
    values |= {name: Property("-", "inherited") for name in want.inherited}
    return shown(want, replace(have, properties=values, holds=tuple(held)), want.send_to is not None)


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
        raise ZfsError(f"{path}: {error.strerror}: it should be a file that `zfs send` wrote") from error
    for order in "<>":
        if len(head) == struct.calcsize("=" + _BEGIN):
            _kind, _length, magic, version, _time, _type, _flags, guid, below, name = struct.unpack(
                order + _BEGIN, head
            )
            if magic == _MAGIC:
                if version & 3 != 1:
                    raise ZfsError(
                        f"{path}: is a stream of several datasets or with properties; send one snapshot, without -R and -p"
                    )
                return Stream(name.split(b"\0")[0].decode(errors="replace"), guid, below)
    raise ZfsError(f"{path}: is not a stream of `zfs send` (uncompress it first if it is compressed)")


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
                f"{have.name} has {have.userrefs} holds, of which this ZFS does not tell the tags: {error}"
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
        raise ZfsError(f"dataset {name!r}: is the pool's own and goes only with the pool: zpool destroy")
    there = zfs.datasets(pool_of(name))
    have = zfs.read(name, ["mounted"]) if name in there else None
    if have is not None:
        others = dependents(name, there)
        if others:
            more = f" and {len(others) - 10} more" if len(others) > 10 else ""
            raise ZfsError(
                f"dataset {name!r}: others depend on it and are never destroyed with it; remove them first: {', '.join(others[:10])}{more}"
            )
        if have.userrefs:
            raise ZfsError(f"dataset {name!r}: is held by {_holders(zfs, have)}; release it first")
        if not check_mode:
            zfs.destroy(have)
            if name in zfs.datasets(pool_of(name)):
                raise ZfsError(f"dataset {name!r}: `zfs destroy {name}` ended well, and it is still there")
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
        right = "create it first" if above == want.dataset else "create it first, or say parents: true"
        raise ZfsError(f"dataset {want.name!r}: {above} is not there: {right}")
    if want.origin is not None:
        if want.origin not in there:
            names = ", ".join(name for name in there if name.startswith(want.origin.split("@")[0] + "@")) or "none"
            raise ZfsError(f"dataset {want.name!r}: origin: there is no snapshot {want.origin} (there are: {names})")
        parent = zfs.read(want.origin.split("@")[0])
        if "volsize" in want.properties and parent is not None and parent.type != "volume":
            raise ZfsError(
                f"dataset {want.name!r}: properties.volsize: {want.origin} is of a {parent.type}, and so is its clone"
            )
    found = zfs.read(nearest, want.asked)
    return creation(want, found.properties if found is not None else {})


def _dispatch(zfs: Zfs, want: Want, have: Dataset | None) -> list[Command]:
    if want.send_to is None:
        return []
    folder = os.path.dirname(os.path.abspath(want.send_to))
    if not os.path.isdir(folder):
        raise ZfsError(f"dataset {want.name!r}: send_to: there is no directory {folder}: make it first")
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
            f"dataset {want.name!r}: ZFS took every command, and still these would be needed: {'; '.join(str(one) for one in left)}"
            f" (it shows {have}): write each value as ZFS shows it, or see what else sets it"
        )
    if want.send_to is not None and read_stream(want.send_to).guid != now.guid:
        raise ZfsError(
            f"dataset {want.name!r}: send_to: {want.send_to} does not hold its stream: the snapshot was replaced meanwhile; run again"
        )
    return now


def _made(zfs: Zfs, want: Want) -> Dataset:
    now = _look(zfs, want, changed=True)
    if now is None:
        raise ZfsError(
            f"dataset {want.name!r}: is not there although every command ended well: something else removed it"
        )
    return now


def _holders(zfs: Zfs, have: Dataset) -> str:
    try:
        return ", ".join(zfs.holds(have))
    except ZfsError:
        return f"{have.userrefs} tags that this ZFS does not tell"


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


def pool_of(name: str) -> str:
    """The pool of a dataset or snapshot."""
    return re.split("[/@]", name)[0]
