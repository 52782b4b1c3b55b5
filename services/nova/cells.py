#!/usr/bin/env python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nova's schemas and cells (https://docs.openstack.org/nova/latest/admin/cells.html).

    zonestack-nova-cells check                 exit with 0 when `make` has nothing to do
    zonestack-nova-cells make                  bring all schemas up to date, map cell0 and cell1
    zonestack-nova-cells discovered HOST...    exit with 0 when each of the hypervisors is mapped to its cell
    zonestack-nova-cells discover HOST...      map the hypervisors, once they have registered themselves

Secrets come from Nova's own configuration and from /etc/nova/cells.conf. Cell1 is mapped by templates that each daemon fills
in from its own configuration: so the API database holds no password of it, and none that could grow old.

The two guards ask the databases and load nothing of Nova, whose import alone takes seconds. One process makes what takes
nova-manage five, and the schemas side by side.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

ETC = Path("/etc/nova")
CELL0 = "00000000-0000-0000-0000-000000000000"
DATABASE_TEMPLATE = "{scheme}://{username}:{password}@{hostname}:{port}/{path}?{query}"

#: Seconds in which a hypervisor that has started must have registered itself.
PATIENCE = 120


class CellsError(Exception):
    """What is wrong, in words."""


@dataclass(frozen=True)
class Cell:
    """One row of `cell_mappings`, without its id; `uuid` is empty where any will do."""

    name: str
    uuid: str
    transport_url: str
    database_connection: str

    def described_by(self, other: Cell) -> bool:
        """Whether `other`, found in the database, is this one."""
        return self == Cell(other.name, other.uuid if self.uuid else "", other.transport_url, other.database_connection)


def transport_template(url: str) -> str:
    """The template of a transport URL: with several nodes Nova numbers what it fills in."""
    nodes = url.partition("://")[2].partition("/")[0].count(",") + 1
    numbers = [""] if nodes == 1 else [str(number + 1) for number in range(nodes)]
    return (
        "{scheme}://"
        + ",".join(f"{{username{n}}}:{{password{n}}}@{{hostname{n}}}:{{port{n}}}" for n in numbers)
        + "/{path}"
    )


def wanted_cells(cell0_connection: str, transport_url: str) -> list[Cell]:
    """Both cells as they are to be mapped."""
    return [
        Cell("cell0", CELL0, "none:///", cell0_connection),
        Cell("cell1", "", transport_template(transport_url), DATABASE_TEMPLATE),
    ]


def unmapped(wanted: t.Iterable[Cell], found: t.Sequence[Cell]) -> list[Cell]:
    """The cells that are not mapped, or not so."""
    return [cell for cell in wanted if not any(cell.described_by(other) for other in found)]


def schema_tool() -> t.Any:
    """The guard of other services' schemas, which lies beside this file."""
    path = Path(__file__).resolve().with_name("zonestack-schema")
    loader = importlib.machinery.SourceFileLoader("zonestack_schema", str(path))
    spec = importlib.util.spec_from_loader("zonestack_schema", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Configuration:
    """Where the databases are, read without loading Nova."""

    def __init__(self) -> None:
        self.schema = schema_tool()
        self.api = self.option("nova.conf.d/database.conf", "api_database", "connection")
        self.cell0 = self.option("cells.conf", "cell0", "connection")
        self.cell1 = self.option("nova.conf.d/database.conf", "database", "connection")
        self.transport = self.option("nova.conf.d/secrets.conf", "DEFAULT", "transport_url")

    def option(self, file: str, section: str, key: str) -> str:
        """One value of a file below /etc/nova."""
        try:
            return str(self.schema.option((ETC / file).read_text(encoding="utf-8"), section, key))
        except (OSError, LookupError) as error:
            raise CellsError(f"{ETC / file}: {error}") from None

    def rows(self, url: str, query: str, *values: str) -> list[tuple[t.Any, ...]]:
        """The answer of one database to one question."""
        import pymysql

        try:
            with contextlib.closing(self.schema.connect(url)) as database, database.cursor() as cursor:
                cursor.execute(query, values)
                return list(cursor.fetchall())
        except pymysql.MySQLError as error:
            raise CellsError(f"the database says: {error}") from None

    def wanted(self) -> list[Cell]:
        return wanted_cells(self.cell0, self.transport)

    def found(self) -> list[Cell]:
        columns = "name, uuid, transport_url, database_connection"
        return [Cell(*row) for row in self.rows(self.api, f"SELECT {columns} FROM cell_mappings WHERE NOT disabled")]


def check() -> str:
    """What `make` would have to do, in words; nothing when all is there."""
    config = Configuration()
    for url, part in ((config.api, "api"), (config.cell0, "main"), (config.cell1, "main")):
        lacks = str(config.schema.lacks(url, f"nova/db/{part}/migrations/versions"))
        if lacks:
            return lacks
    return ", ".join(f"{cell.name} is not mapped, or otherwise" for cell in unmapped(config.wanted(), config.found()))


def unknown_hosts(config: Configuration, hosts: t.Iterable[str]) -> list[str]:
    """The hypervisors that are mapped to no cell."""
    known = {row[0] for row in config.rows(config.api, "SELECT host FROM host_mappings")}
    return sorted(set(hosts) - known)


def load_nova() -> None:
    """Nova with its configuration, on native threads."""
    os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    from nova import monkey_patch

    monkey_patch.patch()
    from nova import config, objects

    config.parse_args(["nova-manage"])
    objects.register_all()


def side_by_side(works: dict[str, t.Callable[[], None]]) -> None:
    """Do each in a process of its own, and wait for all; they share what is loaded already."""
    children = {}
    for name, work in works.items():
        child = os.fork()
        if not child:
            status = 1
            try:
                work()
                status = 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        children[child] = name
    failed = [name for child, name in children.items() if os.waitpid(child, 0)[1]]
    if failed:
        raise CellsError(f"the schema of {' and '.join(failed)} could not be upgraded; see above")


def make() -> None:
    """Bring the schemas up to date, then map the cells."""
    config = Configuration()
    load_nova()
    from nova import context, objects
    from nova.db import migration

    admin = context.get_admin_context()

    cell0 = objects.CellMapping(uuid=CELL0, name="cell0", transport_url="none:///", database_connection=config.cell0)

    def upgrade(url: str, database: str, cell: objects.CellMapping | None = None) -> None:
        with config.schema.making(url), context.target_cell(admin, cell) as targeted:
            migration.db_sync(database=database, context=targeted)

    side_by_side(
        {
            "nova_api": lambda: upgrade(config.api, "api"),
            "nova_cell0": lambda: upgrade(config.cell0, "main", cell0),
            "nova_cell1": lambda: upgrade(config.cell1, "main"),
        }
    )
    # Objects would show the templates filled in, so what is there is asked of the database itself.
    uuids = {cell.name: cell.uuid for cell in config.found()}
    for cell in unmapped(config.wanted(), config.found()):
        urls = {"transport_url": cell.transport_url, "database_connection": cell.database_connection}
        if cell.name in uuids:
            mapping = objects.CellMapping.get_by_uuid(admin, uuids[cell.name])
            for key, url in urls.items():
                setattr(mapping, key, url)
            mapping.save()
        else:
            uuid = cell.uuid or str(uuid4())
            objects.CellMapping(admin, uuid=uuid, name=cell.name, **urls).create()


def discover(hosts: list[str]) -> None:
    """Wait until the hypervisors have registered themselves, and map them to their cell."""
    config = Configuration()
    missing = unknown_hosts(config, hosts)
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = {row[0] for row in config.rows(config.cell1, "SELECT host FROM compute_nodes WHERE deleted = 0")}
        absent = sorted(set(missing) - seen)
        if not absent:
            break
        if time.monotonic() > deadline:
            raise CellsError(
                f"{', '.join(absent)}: nova-compute has not registered itself within {PATIENCE} s; its journal says why"
            )
        time.sleep(1)
    load_nova()
    from nova import context
    from nova.objects import host_mapping

    host_mapping.discover_hosts(context.get_admin_context())
    left = unknown_hosts(config, hosts)
    if left:
        raise CellsError(f"{', '.join(left)}: registered, but mapped to no cell")


def main(arguments: list[str]) -> int:
    verb, hosts = (arguments or ["help"])[0], arguments[1:]
    if verb not in ("check", "make", "discovered", "discover") or bool(hosts) != verb.startswith("discover"):
        print(__doc__, file=sys.stderr)
        return 2
    wrong = ""
    try:
        if verb == "check":
            wrong = check()
        elif verb == "make":
            make()
        elif verb == "discovered":
            wrong = ", ".join(unknown_hosts(Configuration(), hosts))
        else:
            discover(hosts)
    except CellsError as error:
        wrong = str(error)
    if wrong:
        print(wrong, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
