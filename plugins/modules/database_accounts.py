#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: database_accounts
short_description: Databases, their users and exact grants in MariaDB, for all services in one call
version_added: 0.1.0
description:
  - Runs in a galera zone as root and speaks with the server over its unix socket, with the C(mariadb) client and all SQL on its
    standard input.
  - Databases that are missing are created; none is ever dropped or converted. The users that are named have exactly the
    hosts, password, TLS demand and privileges that are asked for; hosts and grants of theirs that are not are removed.
    Other users are not touched.
  - A password is compared by its hash, so C(changed) is true only when it really differs.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: full
    description: Shows databases, users and grants; of a password only that it changes.
options:
  accounts:
    description: Databases with the user that may use each.
    type: list
    elements: dict
    required: true
    suboptions:
      database:
        description: Name of the database.
        type: str
        required: true
      user:
        description: Name of the user. The same user may appear with several databases, then with the same password.
        type: str
        required: true
      password:
        description: The user's password.
        type: str
        required: true
      hosts:
        description: Addresses that the user may come from.
        type: list
        elements: str
        required: true
      privileges:
        description: Privileges on all tables of the database.
        type: list
        elements: str
        default: [ALL PRIVILEGES]
      require_ssl:
        description: Whether the user must connect with TLS.
        type: bool
        default: true
  charset:
    description: Character set of databases that are created.
    type: str
    default: utf8mb4
  collation:
    description: Collation of databases that are created.
    type: str
    default: utf8mb4_general_ci
  nodes:
    description: Members that the Galera cluster must have before anything is done. V(1) suits a server without a cluster of its own.
    type: int
    default: 1
  timeout:
    description: Seconds to wait for O(nodes). In check mode nothing is waited for.
    type: int
    default: 300
  socket:
    description: Path of the server's unix socket.
    type: path
    default: /run/mysqld/mysqld.sock
"""

EXAMPLES = r"""
- name: Create Keystone's database
  zonestack.openstack.database_accounts:
    accounts:
      - database: keystone
        user: keystone
        password: "{{ secrets.database.keystone }}"
        hosts: [10.77.2.40]
"""

RETURN = r"""
actions:
  description: What was done (in check mode would be), in words.
  type: list
  elements: str
  returned: always
  sample: [create database keystone, create user keystone@10.77.2.40]
"""

import hashlib
import re
import time
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run

Grant = tuple[frozenset[str], str]  # privileges and what they are on, as SHOW GRANTS writes them
GRANT_LINE = re.compile(r"^GRANT (?P<privileges>.+?) ON (?P<on>.+) TO `(?:[^`]|``)*`@`(?:[^`]|``)*`(?P<rest>.*)$")
GRANT_OPTION = "GRANT OPTION"


@dataclass(frozen=True)
class User:
    """One user at one host: the password's hash, whether TLS is demanded, and the grants beyond mere log-in."""

    digest: str
    require_ssl: bool
    grants: frozenset[Grant] = frozenset()

    def shown(self, wanted: User | None = None) -> dict[str, t.Any]:
        """For the diff: no hash, only whether it is the wanted one."""
        return {
            "password": "as wanted" if wanted is not None and wanted.digest == self.digest else "another one",
            "require_ssl": self.require_ssl,
            "grants": sorted(f"{', '.join(sorted(privileges))} ON {on}" for privileges, on in self.grants),
        }


@dataclass
class State:
    """Names of databases, and users by (name, host)."""

    databases: set[str] = field(default_factory=set)
    users: dict[tuple[str, str], User] = field(default_factory=dict)


def native_hash(password: str) -> str:
    """Hash of a password as mysql_native_password keeps it (https://mariadb.com/kb/en/authentication-plugin-mysql_native_password/)."""
    return "*" + hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def name(value: str) -> str:
    """A quoted identifier."""
    return "`" + value.replace("`", "``") + "`"


def pattern(database: str) -> str:
    """A database as GRANT takes it: there ``_`` and ``%`` are wildcards unless escaped."""
    return name(re.sub(r"([_%])", r"\\\1", database)) + ".*"


def account(key: tuple[str, str]) -> str:
    return f"{text(key[0])}@{text(key[1])}"


def wanted_state(accounts: t.Sequence[t.Mapping[str, t.Any]]) -> State:
    """The state asked for. Raises ``ValueError`` when two entries of one user contradict each other."""
    wanted = State()
    for number, entry in enumerate(accounts):
        wanted.databases.add(entry["database"])
        digest = native_hash(entry["password"])
        for field_name in ("database", "user", "password"):
            if not entry[field_name]:
                raise ValueError(f"accounts[{number}].{field_name}: must not be empty")
        if not entry["hosts"]:
            raise ValueError(
                f"accounts[{number}].hosts: user {entry['user']} could not log in from anywhere: name at least one address"
            )
        privileges = frozenset(
            "ALL PRIVILEGES" if item.upper() == "ALL" else item.upper() for item in entry["privileges"]
        )
        for host in entry["hosts"]:
            key = (entry["user"], host)
            before = wanted.users.get(key, User(digest, entry["require_ssl"]))
            if (before.digest, before.require_ssl) != (digest, entry["require_ssl"]):
                raise ValueError(
                    f"accounts[{number}]: user {entry['user']} has another password or require_ssl in an earlier entry"
                )
            wanted.users[key] = User(
                digest, entry["require_ssl"], before.grants | {(privileges, pattern(entry["database"]))}
            )
    return wanted


def parse_grant(line: str) -> Grant | None:
    """One line of SHOW GRANTS; ``None`` for mere log-in. A grant that no one asks for keeps its line as its name."""
    match = GRANT_LINE.match(line)
    if match is None:
        return frozenset({line}), "?"
    privileges = frozenset(item.strip() for item in match["privileges"].split(","))
    if GRANT_OPTION in match["rest"]:
        privileges |= {GRANT_OPTION}
    return None if privileges == {"USAGE"} else (privileges, match["on"])


class Client:
    """The ``mariadb`` client in batch mode."""

    def __init__(self, socket: str) -> None:
        self.argv = [
            "mariadb",
            "--no-defaults",
            f"--socket={socket}",
            "--user=root",
            "--batch",
            "--raw",
            "--skip-column-names",
        ]

    def __call__(self, statements: t.Sequence[str]) -> list[list[str]]:
        """Run statements in one session, stop at the first error; rows of all of them."""
        result = run(self.argv, stdin=";\n".join(statements) + ";\n", timeout=120)
        return [line.split("\t") for line in result.out.splitlines()]


def read_state(query: t.Callable[[t.Sequence[str]], list[list[str]]], users: t.Collection[str]) -> State:
    """What the server holds: all databases, and of the named users everything."""
    state = State()
    names = ", ".join(text(user) for user in sorted(users)) or "''"
    rows = query(
        [
            "SELECT 'database', SCHEMA_NAME FROM information_schema.SCHEMATA",
            "SELECT 'user', User, Host, IFNULL(JSON_VALUE(Priv, '$.authentication_string'), ''),"
            " IFNULL(JSON_VALUE(Priv, '$.plugin'), ''), IFNULL(JSON_VALUE(Priv, '$.ssl_type'), '0')"
            f" FROM mysql.global_priv WHERE User IN ({names})",
        ]
    )
    for kind, *values in rows:
        if kind == "database":
            state.databases.add(values[0])
        else:
            user, host, digest, plugin, ssl_type = values
            native = plugin in ("", "mysql_native_password")
            state.users[user, host] = User(digest if native else f"({plugin})", ssl_type != "0")
    keys = sorted(state.users)
    if keys:
        statements = []
        for number, key in enumerate(keys):
            statements += [f"SELECT 'of', {number}", f"SHOW GRANTS FOR {account(key)}"]
        grants: dict[tuple[str, str], set[Grant]] = {key: set() for key in keys}
        key = keys[0]
        for row in query(statements):
            if row[0] == "of":
                key = keys[int(row[1])]
            elif (grant := parse_grant("\t".join(row))) is not None:
                grants[key].add(grant)
        state.users = {
            key: User(user.digest, user.require_ssl, frozenset(grants[key])) for key, user in state.users.items()
        }
    return state


def plan(now: State, wanted: State, charset: str, collation: str) -> list[tuple[str, list[str]]]:
    """What leads from one state to the other: pairs of a description and its statements."""
    steps: list[tuple[str, list[str]]] = [
        (
            f"create database {database}",
            [f"CREATE DATABASE {name(database)} CHARACTER SET {charset} COLLATE {collation}"],
        )
        for database in sorted(wanted.databases - now.databases)
    ]
    for key in sorted(now.users.keys() - wanted.users.keys()):
        steps.append((f"drop user {key[0]}@{key[1]}", [f"DROP USER {account(key)}"]))
    for key, user in sorted(wanted.users.items(), key=lambda item: item[0]):
        who, old = account(key), now.users.get(key)
        login = f"{who} IDENTIFIED VIA mysql_native_password USING {text(user.digest)} REQUIRE {'SSL' if user.require_ssl else 'NONE'}"
        label = f"user {key[0]}@{key[1]}"
        if old is None:
            steps.append((f"create {label}", [f"CREATE USER {login}", *grant_statements(who, user.grants)]))
            continue
        if (old.digest, old.require_ssl) != (user.digest, user.require_ssl):
            what = "password" if old.digest != user.digest else "TLS demand"
            steps.append((f"change the {what} of {label}", [f"ALTER USER {login}"]))
        if old.grants != user.grants:
            revoke = [f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {who}"] if old.grants - user.grants else []
            missing = user.grants if revoke else user.grants - old.grants
            steps.append((f"change the grants of {label}", [*revoke, *grant_statements(who, missing)]))
    return steps


def grant_statements(who: str, grants: t.Collection[Grant]) -> list[str]:
    """GRANT statements in a stable order."""
    return sorted(f"GRANT {', '.join(sorted(privileges))} ON {on} TO {who}" for privileges, on in grants)


def shown(state: State, wanted: State, databases: t.Collection[str]) -> dict[str, t.Any]:
    """One side of the diff, limited to what this call is about."""
    return {
        "databases": sorted(state.databases & set(databases)),
        "users": {f"{key[0]}@{key[1]}": user.shown(wanted.users.get(key)) for key, user in sorted(state.users.items())},
    }


def wait_for_cluster(client: Client, nodes: int, timeout: float) -> None:
    """Wait until this node serves as a member of a whole cluster; an error names what is missing.

    The nodes of a new cluster start together, and one that was rebuilt copies the data first, which takes its time.
    """
    deadline = time.monotonic() + timeout
    pause = 0.1
    while True:
        try:
            rows = client(["SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_ready')"])
            status = dict(t.cast(t.Iterable[tuple[str, str]], rows))
            # A server without Galera has a cluster of one, itself.
            size, ready = int(status.get("wsrep_cluster_size", 1)) or 1, status.get("wsrep_ready", "ON")
            if size >= nodes and ready == "ON":
                return
            missing = (
                f"the cluster has {size} of {nodes} nodes, and this one is {'ready' if ready == 'ON' else 'not ready'}"
            )
        except CommandError as problem:
            missing = str(problem)
        if time.monotonic() > deadline:
            raise ValueError(
                f"the database cluster is incomplete after {timeout:g} s: {missing}; `journalctl -u mariadb` in each zone shows why"
            )
        time.sleep(pause)
        pause = min(1.0, pause * 1.5)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "accounts": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "database": {"type": "str", "required": True},
                    "user": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "hosts": {"type": "list", "elements": "str", "required": True},
                    "privileges": {"type": "list", "elements": "str", "default": ["ALL PRIVILEGES"]},
                    "require_ssl": {"type": "bool", "default": True},
                },
            },
            "charset": {"type": "str", "default": "utf8mb4"},
            "collation": {"type": "str", "default": "utf8mb4_general_ci"},
            "socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
            "nodes": {"type": "int", "default": 1},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    client = Client(params["socket"])
    try:
        wanted = wanted_state(params["accounts"])
        wait_for_cluster(client, params["nodes"], 0 if module.check_mode else params["timeout"])
        now = read_state(client, {user for user, _host in wanted.users})
        steps = plan(now, wanted, params["charset"], params["collation"])
        if steps and not module.check_mode:
            client([statement for _label, statements in steps for statement in statements])
    except (CommandError, ValueError) as problem:
        module.fail_json(msg=str(problem))
    diff = {
        "before": shown(now, wanted, wanted.databases),
        "after": shown(wanted, wanted, wanted.databases),
    }
    module.exit_json(changed=bool(steps), actions=[label for label, _statements in steps], diff=diff)


if __name__ == "__main__":
    main()
