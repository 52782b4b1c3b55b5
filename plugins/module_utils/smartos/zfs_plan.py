# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done about a ZFS dataset, as pure functions: from what is there and what is wanted to the commands between them.

No command destroys what it was not asked to: no ``-r``, ``-R`` or ``-F`` is ever given.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import replace

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.zfs_model import (
    Command,
    Dataset,
    NAME,
    Property,
    Stream,
    Want,
    ZfsError,
    canonical,
    number,
    pool_of,
    same,
)

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
# zfs(8), volsize: sizes are rounded up to multiples of this, the largest block of a volume; such a size is never rounded.
VOLUME_STEP = 128 * 1024


def validate(want: Want) -> None:
    """Refuse a description that is wrong whatever exists."""

    def refuse(where: str, value: object, right: str) -> t.NoReturn:
        raise ZfsError(f"dataset {want.name!r}: {where}: {value!r} is not valid: {right}")

    if not NAME.fullmatch(want.name) or len(want.name) > 255:
        refuse(
            "name",
            want.name,
            "use pool/path or pool/path@snapshot, of letters, digits and _ . : -, at most 255 characters",
        )
    if want.origin is not None:
        if want.snapshot or "@" not in want.origin or not NAME.fullmatch(want.origin):
            refuse("origin", want.origin, "use a snapshot (pool/path@name) for a file system or volume")
        if pool_of(want.origin) != pool_of(want.name):
            refuse("origin", want.origin, "use a snapshot of the same pool")
    if not want.snapshot:
        for where in ("holds", "released", "receive_from", "send_to"):
            if getattr(want, where):
                refuse(where, getattr(want, where), "use it only for a snapshot (pool/path@name)")
    if want.below is not None and (
        want.send_to is None or not NAME.fullmatch(want.below) or not want.below.startswith(f"{want.dataset}@")
    ):
        refuse(
            "incremental_from",
            want.incremental_from,
            "use an earlier snapshot of the same dataset, together with send_to",
        )
    for tag in {*want.holds} & {*want.released}:
        refuse("released", tag, "it is also in holds: name it in one of the two")
    for tag in (*want.holds, *want.released):
        if not re.fullmatch(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*", tag):
            refuse("holds", tag, "use a tag of letters, digits and _ . : -")
    for name in want.asked:
        if not PROPERTY.fullmatch(name):
            refuse(
                "properties",
                name,
                "use a property that zfs(8) lists, in lower case, or a user property, with a colon",
            )
        if want.snapshot and ":" not in name:
            refuse("properties", name, "ZFS gives a snapshot only user properties: use a name with a colon")
    for name in {*want.properties} & {*want.inherited}:
        refuse("inherited", name, "it is also in properties: name it in one of the two")
    for name, value in want.properties.items():
        if "\n" in value or "\t" in value:
            refuse(f"properties.{name}", value, "use a value without tabs and line breaks")
        if name == "refreservation" and value == "auto":
            refuse("properties.refreservation", value, "use a size, which this module can compare with the present one")
    size = want.properties.get("volsize")
    if size is not None and (number(size) or 1) % VOLUME_STEP:
        refuse("properties.volsize", size, "use a multiple of 128K, which ZFS does not round")


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
                f"not a property of a {have.type}"
                if now.value == "-"
                else f"{now.value}, and ZFS cannot change it after creation"
            )
            refuse(f"properties.{name}: cannot be {value}: it is {why}")
    if "volsize" in differing:
        before, after = number(have.properties["volsize"].value) or 0, number(differing["volsize"]) or 0
        if after < before:
            refuse(
                f"properties.volsize: the volume has {before} bytes, and {after} are wanted: this module shrinks no volume, because data would be lost"
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
                f"{where} holds {stream.name}, which is not the present snapshot: destroy the present one or choose another name"
            )
    elif stream.from_guid and stream.from_guid not in (siblings or {}).values():
        names = ", ".join(siblings or ()) or "none"
        raise ZfsError(
            f"{where} starts from a snapshot with GUID {stream.from_guid}, which {want.dataset} does not have (its snapshots: {names}):"
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
