#!/usr/bin/env python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a service's schema, and say whether it is the newest that the installed service knows.

    zonestack-schema current FILE SECTION VERSIONS       exit with 0 when `make` has nothing to do
    zonestack-schema make FILE SECTION COMMAND...        run COMMAND, which brings the schema up to date

FILE and SECTION are where `connection` stands in oslo.config's form, VERSIONS is the service's folder of Alembic revisions
below site-packages. A schema is current when table alembic_version holds exactly the newest revisions
(https://alembic.sqlalchemy.org/en/latest/branches.html) and its first making came to its end. `current` prints what is lacking.

The services' own commands know the same after loading the whole service, which costs seconds of every run. This one
parses a few files and asks two questions. It runs with the service's Python, which is the first one on a step's path.

MariaDB commits each change of a table by itself, so a schema whose making is cut short can be neither rolled back nor gone
on with. Before anyone has written to it, it can be made anew: see making(). That is why daemons start only when `current` holds.
"""

from __future__ import annotations

import ast
import contextlib
import subprocess
import sys
import sysconfig
import time
import typing as t
import urllib.parse
from pathlib import Path

#: Table that a database has while its first schema is being made. Its one row is locked as long as the maker lives.
MARK = "zonestack_first_schema"

#: Seconds that another maker is waited for.
PATIENCE = 600


def option(text: str, section: str, key: str) -> str:
    """Look up a value in oslo.config's form of INI; the first `=` ends the key, whatever the value holds."""
    here = ""
    for line in text.splitlines():
        if line.startswith("["):
            here = line.strip("[] ")
        name, equals, value = line.partition("=")
        if here == section and equals and name.strip() == key:
            return value.strip()
    raise LookupError(f"[{section}] {key} is not set")


def revision(source: str) -> tuple[str | None, set[str]]:
    """A migration's own revision, and those that it comes after."""
    found: dict[str, t.Any] = {}
    for node in ast.parse(source).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision", "depends_on"):
                with contextlib.suppress(ValueError):  # computed: no revision file
                    found[target.id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    before: set[str] = set()
    for key in ("down_revision", "depends_on"):
        value = found.get(key)
        before |= {value} if isinstance(value, str) else set(value or ())
    return found.get("revision"), before


def newest(sources: t.Iterable[str]) -> set[str]:
    """Revisions that no other comes after: what alembic_version holds once all are applied."""
    known, before = set(), set()
    for source in sources:
        own, parents = revision(source)
        if own:
            known.add(own)
            before |= parents
    return known - before


def connect(url: str) -> t.Any:
    """Open the database that a SQLAlchemy URL names."""
    import pymysql  # slow to import, and of no use when there is no URL

    parts = urllib.parse.urlsplit(url)
    query = urllib.parse.parse_qs(parts.query)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=urllib.parse.unquote(parts.username or ""),
        password=urllib.parse.unquote(parts.password or ""),
        database=parts.path.lstrip("/"),
        ssl={"ca": query["ssl_ca"][0]} if "ssl_ca" in query else None,
        connect_timeout=10,
        read_timeout=30,
    )


def name(url: str) -> str:
    """The database that a SQLAlchemy URL names."""
    return urllib.parse.urlsplit(url).path.lstrip("/")


def tables(cursor: t.Any) -> set[str]:
    """Names of the tables that a database has."""
    cursor.execute("SHOW TABLES")
    return {row[0] for row in cursor.fetchall()}


def lacks(url: str, versions: str) -> str:
    """What the schema lacks, in words; nothing when it is current."""
    folder = Path(sysconfig.get_path("purelib"), versions)
    want = newest(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    if not want:
        return f"{folder} holds no revisions"
    import pymysql

    try:
        with contextlib.closing(connect(url)) as database, database.cursor() as cursor:
            if MARK in tables(cursor):
                return f"{name(url)}: its first schema is being made, or its making was cut short"
            cursor.execute("SELECT version_num FROM alembic_version")
            have = {row[0] for row in cursor.fetchall()}
    except pymysql.MySQLError as error:
        return str(error)
    return "" if have == want else f"{name(url)} is at {sorted(have)}, the newest is {sorted(want)}"


def is_first(database: t.Any, url: str) -> bool:
    """Whether the first schema is to be made, and by this maker: then it holds the lock of the mark's row.

    A row that is not locked was left by a maker that is dead. No row is left by one that came to its end.
    """
    import pymysql
    from pymysql.constants import ER

    deadline = time.monotonic() + PATIENCE
    with database.cursor() as cursor:
        if not tables(cursor):
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {MARK} (one TINYINT PRIMARY KEY)")
        while MARK in tables(cursor):
            try:
                cursor.execute(f"SELECT one FROM {MARK} FOR UPDATE NOWAIT")
                if cursor.fetchall():
                    return True
                database.rollback()
                if tables(cursor) != {MARK}:
                    return False
                cursor.execute(f"INSERT IGNORE INTO {MARK} VALUES (1)")
                database.commit()
                continue
            except pymysql.MySQLError as error:
                # Locked by another maker, or dropped by it just now, which Galera tells a waiting transaction as a deadlock.
                if error.args[0] not in (ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.NO_SUCH_TABLE):
                    raise
                database.rollback()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{name(url)}: another one has been making its first schema for {PATIENCE} s, and lives"
                )
            time.sleep(1)
    return False


def drop_remains(url: str) -> None:
    """Drop what a maker that is dead has made of a first schema."""
    with contextlib.closing(connect(url)) as database, database.cursor() as cursor:
        remains = tables(cursor) - {MARK}
        if remains:
            print(
                f"{name(url)}: the making of its first schema was cut short; dropping {len(remains)} tables", flush=True
            )
            cursor.execute("SET SESSION foreign_key_checks = 0")
            cursor.execute("DROP TABLE " + ", ".join(f"`{table}`" for table in sorted(remains)))


def unmark(database: t.Any) -> None:
    """Say that the schema is whole. What waits for the row must find it gone, rather than free, so it goes before its table."""
    with database.cursor() as cursor:
        if MARK in tables(cursor):
            cursor.execute(f"DELETE FROM {MARK}")
            database.commit()
            cursor.execute(f"DROP TABLE {MARK}")


@contextlib.contextmanager
def making(url: str) -> t.Iterator[None]:
    """Bring a schema up to date inside; a first one that was cut short is dropped before, and begun again."""
    import pymysql

    with contextlib.closing(connect(url)) as database:
        if is_first(database, url):
            drop_remains(url)  # by a connection of its own: a DROP would end the transaction that holds the lock
        yield
        try:
            unmark(database)
        except pymysql.OperationalError:  # so long idle that a proxy has ended it, and the lock with it
            with contextlib.closing(connect(url)) as another:
                unmark(another)


def main(arguments: list[str]) -> int:
    verb, arguments = (arguments or ["help"])[0], arguments[1:]
    if verb not in ("current", "make") or len(arguments) < 3 or (verb == "current" and len(arguments) > 3):
        print(__doc__, file=sys.stderr)
        return 2
    file, section, *rest = arguments
    url = option(Path(file).read_text(encoding="utf-8"), section, "connection")
    if verb == "make":
        try:
            with making(url):
                subprocess.run(rest, check=True)
        except subprocess.CalledProcessError as error:
            return error.returncode if error.returncode > 0 else 128 - error.returncode
        return 0
    wrong = lacks(url, rest[0])
    if wrong:
        print(wrong)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
