# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nouns of ZFS: a dataset as it is and as it is wanted, a command, a stream; and the spellings of a property's value."""

from __future__ import annotations

import re
import shlex
import typing as t
from dataclasses import dataclass, field

# zfs(8), "ZFS Component Naming": a pool's name begins with a letter, a name has at most 255 characters.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*(@[A-Za-z0-9_.:-]+)?")
UNITS = "BKMGTPEZ"
NO_LIMIT = 2**64 - 1
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
    raise ValueError(f"{value!r} is not valid: use a text, a number or a boolean")


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


def pool_of(name: str) -> str:
    """The pool of a dataset or snapshot."""
    return re.split("[/@]", name)[0]
