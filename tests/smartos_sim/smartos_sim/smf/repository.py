# SPDX-License-Identifier: GPL-3.0-or-later
"""The service configuration repository: services, instances, property groups, snapshots; one SQLite file, as on illumos.

Values are kept as the text that the tools print. Groups that are not persistent (``general_ovr``, ``restarter``, ...) lie in
the same file, and svc.startd forgets them when it boots.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .fmri import Fmri

#: The scf_value_create(3SCF) types that manifests and svccfg know.
TYPES = (
    "astring", "ustring", "boolean", "count", "integer", "fmri", "host", "hostname", "net_address", "net_address_v4",
    "net_address_v6", "opaque", "time", "uri",
)  # fmt: skip

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entity (service TEXT, instance TEXT, PRIMARY KEY (service, instance));
CREATE TABLE IF NOT EXISTS pg (service TEXT, instance TEXT, snapshot TEXT, name TEXT, persistent INTEGER, body TEXT,
  PRIMARY KEY (service, instance, snapshot, name));
"""


@dataclass(frozen=True)
class Property:
    """A typed list of values."""

    type: str
    values: tuple[str, ...]


@dataclass
class Group:
    """A property group."""

    type: str
    properties: dict[str, Property] = field(default_factory=dict)
    persistent: bool = True

    def first(self, name: str) -> str | None:
        """The first value of a property, None where there is none."""
        values = self.properties[name].values if name in self.properties else ()
        return values[0] if values else None


Groups = dict[str, Group]


def compose(service: Groups, instance: Groups) -> Groups:
    """What an instance sees: its own properties before its service's, property by property."""
    seen = {name: Group(group.type, dict(group.properties), group.persistent) for name, group in service.items()}
    for name, group in instance.items():
        below = seen[name].properties if name in seen and seen[name].type == group.type else {}
        seen[name] = Group(group.type, {**below, **group.properties}, group.persistent)
    return seen


class Repository:
    """One open repository. Every method is one transaction, unless :meth:`change` encloses many."""

    def __init__(self, path: Path, create: bool = False) -> None:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            raise FileNotFoundError(f"there is no repository {path}")
        # What a killed process wrote is in the page cache; only a crash of the machine could lose it.
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._db.execute("PRAGMA synchronous=OFF")
        if create:
            self._db.executescript(_SCHEMA)
            os.chmod(path, 0o600)

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._db.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """All or nothing, and nobody else writes meanwhile."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Entities

    def entities(self) -> list[Fmri]:
        """All services and instances."""
        return sorted(Fmri(*row) for row in self._db.execute("SELECT service, instance FROM entity"))

    def instances(self) -> list[Fmri]:
        return [one for one in self.entities() if one.instance]

    def add(self, fmri: Fmri) -> None:
        self._db.execute("INSERT OR IGNORE INTO entity VALUES (?, '')", (fmri.service,))
        self._db.execute("INSERT OR IGNORE INTO entity VALUES (?, ?)", (fmri.service, fmri.instance))

    def remove(self, fmri: Fmri) -> None:
        """An instance, or a service with all its instances."""
        where = "service = ?" if not fmri.instance else "service = ? AND instance = ?"
        words = (fmri.service,) if not fmri.instance else (fmri.service, fmri.instance)
        for table in ("entity", "pg"):
            self._db.execute(f"DELETE FROM {table} WHERE {where}", words)

    # Property groups

    def groups(self, fmri: Fmri, snapshot: str = "") -> Groups:
        """The groups that are attached to this very entity, or that a snapshot holds for it."""
        rows = self._db.execute(
            "SELECT name, persistent, body FROM pg WHERE service = ? AND instance = ? AND snapshot = ? ORDER BY name",
            (fmri.service, fmri.instance, snapshot),
        )
        return {name: _group(body, bool(persistent)) for name, persistent, body in rows}

    def put(self, fmri: Fmri, name: str, group: Group, snapshot: str = "") -> None:
        body = {
            "type": group.type,
            "properties": {key: [one.type, one.values] for key, one in group.properties.items()},
        }
        self._db.execute(
            "INSERT OR REPLACE INTO pg VALUES (?, ?, ?, ?, ?, ?)",
            (fmri.service, fmri.instance, snapshot, name, int(group.persistent), json.dumps(body)),
        )

    def drop(self, fmri: Fmri, name: str | None, snapshot: str = "") -> None:
        """Remove a group, or with None all of them."""
        self._db.execute(
            "DELETE FROM pg WHERE service = ? AND instance = ? AND snapshot = ? AND (? IS NULL OR name = ?)",
            (fmri.service, fmri.instance, snapshot, name, name),
        )

    def set(
        self, fmri: Fmri, path: str, kind: str, *values: str, group: str = "framework", persistent: bool = True
    ) -> None:
        """Set ``group/property``, and make the group where it is missing."""
        name, _slash, key = path.partition("/")
        found = self.groups(fmri).get(name) or Group(group, persistent=persistent)
        found.properties[key] = Property(kind, values)
        self.put(fmri, name, found)

    def unset(self, fmri: Fmri, path: str) -> None:
        name, _slash, key = path.partition("/")
        found = self.groups(fmri).get(name)
        if found and found.properties.pop(key, None):
            self.put(fmri, name, found)

    def composed(self, fmri: Fmri, snapshot: str = "") -> Groups:
        """What an instance sees now, or with the name of a snapshot what it saw then, beside what is not persistent."""
        now = compose(self.groups(fmri.parent), self.groups(fmri)) if fmri.instance else self.groups(fmri)
        if not snapshot:
            return now
        return {**self.groups(fmri, snapshot), **{name: one for name, one in now.items() if not one.persistent}}

    def value(self, fmri: Fmri, path: str, snapshot: str = "") -> str | None:
        """The first value of ``group/property`` as :meth:`composed` has it."""
        name, _slash, key = path.partition("/")
        group = self.composed(fmri, snapshot).get(name)
        return group.first(key) if group else None

    # Snapshots

    def has_snapshot(self, fmri: Fmri, snapshot: str) -> bool:
        row = self._db.execute(
            "SELECT 1 FROM pg WHERE service = ? AND instance = ? AND snapshot = ?",
            (fmri.service, fmri.instance, snapshot),
        )
        return row.fetchone() is not None

    def take_snapshot(self, fmri: Fmri, snapshot: str, of: str = "") -> None:
        """Keep what an instance sees (in another snapshot, with ``of``) under a name."""
        seen = self.groups(fmri, of) if of else self.composed(fmri)
        self.drop(fmri, None, snapshot)
        for name, group in seen.items():
            if group.persistent:
                self.put(fmri, name, group, snapshot)

    def forget_transient(self) -> None:
        """What a boot does: everything that was not to outlive it goes."""
        self._db.execute("DELETE FROM pg WHERE persistent = 0")


def _group(body: str, persistent: bool) -> Group:
    data = json.loads(body)
    return Group(
        data["type"],
        {key: Property(kind, tuple(values)) for key, (kind, values) in data["properties"].items()},
        persistent,
    )
