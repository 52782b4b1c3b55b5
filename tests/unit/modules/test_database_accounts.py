# SPDX-License-Identifier: GPL-3.0-or-later
"""What database_accounts would send for a given state; real servers are for the deployment's own tests."""

from __future__ import annotations

import pytest

from ansible_collections.zonestack.openstack.plugins.modules import database_accounts as module

HASH = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"  # of "password", as MariaDB's PASSWORD() prints it
ALL = frozenset({"ALL PRIVILEGES"})


def account(**changes):
    base = {"database": "nova", "user": "nova", "password": "password", "hosts": ["10.0.0.1"]}
    return {**base, "privileges": ["ALL"], "require_ssl": True, **changes}


def user(digest=HASH, require_ssl=True, grants=((ALL, "`nova`.*"),)):
    return module.User(digest, require_ssl, frozenset(grants))


def state(users=(), databases=("mysql", "nova")):
    return module.State(set(databases), dict(users))


RIGHT = {("nova", "10.0.0.1"): user()}
LOGIN = f"'nova'@'10.0.0.1' IDENTIFIED VIA mysql_native_password USING '{HASH}' REQUIRE SSL"
GRANT = "GRANT ALL PRIVILEGES ON `nova`.* TO 'nova'@'10.0.0.1'"


def test_the_hash_is_the_servers():
    assert module.native_hash("password") == HASH


@pytest.mark.parametrize(
    ("now", "accounts", "statements"),
    [
        (state(RIGHT), [account()], []),
        (
            state(databases=["mysql"]),
            [account()],
            ["CREATE DATABASE `nova` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", f"CREATE USER {LOGIN}", GRANT],
        ),
        (state({("nova", "10.0.0.1"): user(digest="*0")}), [account()], [f"ALTER USER {LOGIN}"]),
        (state({("nova", "10.0.0.1"): user(require_ssl=False)}), [account()], [f"ALTER USER {LOGIN}"]),
        (state({**RIGHT, ("nova", "%"): user()}), [account()], ["DROP USER 'nova'@'%'"]),
        (state({("nova", "10.0.0.1"): user(grants=())}), [account()], [GRANT]),
        (
            state({("nova", "10.0.0.1"): user(grants=[(ALL, "`nova`.*"), (ALL, "*.*")])}),
            [account()],
            ["REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'nova'@'10.0.0.1'", GRANT],
        ),
        # A second database of the same user; its underscore is no wildcard.
        (
            state(RIGHT, ["nova", "nova_api"]),
            [account(), account(database="nova_api", privileges=["select", "INSERT"])],
            ["GRANT INSERT, SELECT ON `nova\\_api`.* TO 'nova'@'10.0.0.1'"],
        ),
        (
            state(databases=["nova"]),
            [account(user="o'neil", privileges=["ALL"])],
            [
                f"CREATE USER 'o''neil'@'10.0.0.1' IDENTIFIED VIA mysql_native_password USING '{HASH}' REQUIRE SSL",
                "GRANT ALL PRIVILEGES ON `nova`.* TO 'o''neil'@'10.0.0.1'",
            ],
        ),
    ],
)
def test_plan(now, accounts, statements):
    steps = module.plan(now, module.wanted_state(accounts), "utf8mb4", "utf8mb4_general_ci")
    assert [statement for _label, part in steps for statement in part] == statements


def test_no_clear_password_is_ever_sent():
    steps = module.plan(state(databases=[]), module.wanted_state([account(password="hunter2")]), "utf8mb4", "x")
    assert steps
    assert "hunter2" not in repr(steps)


@pytest.mark.parametrize(
    ("accounts", "message"),
    [
        ([account(password="")], "accounts[0].password: must not be empty"),
        ([account(hosts=[])], "accounts[0].hosts: user nova could not log in from anywhere"),
        ([account(), account(database="b", password="x")], "accounts[1]: user nova has another password"),
    ],
)
def test_contradictions_are_refused(accounts, message):
    with pytest.raises(ValueError, match="accounts") as refusal:
        module.wanted_state(accounts)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "grant"),
    [
        ("GRANT USAGE ON *.* TO `nova`@`10.0.0.1` IDENTIFIED BY PASSWORD '*X' REQUIRE SSL", None),
        ("GRANT ALL PRIVILEGES ON `nova`.* TO `nova`@`10.0.0.1`", (ALL, "`nova`.*")),
        ("GRANT SELECT, INSERT ON `a\\_b`.* TO `nova`@`%`", (frozenset({"SELECT", "INSERT"}), "`a\\_b`.*")),
        (
            "GRANT ALL PRIVILEGES ON *.* TO `nova`@`%` IDENTIFIED BY PASSWORD '*X' WITH GRANT OPTION",
            (ALL | {"GRANT OPTION"}, "*.*"),
        ),
        ("GRANT `role` TO `nova`@`%`", (frozenset({"GRANT `role` TO `nova`@`%`"}), "?")),
    ],
)
def test_show_grants_is_understood(line, grant):
    assert module.parse_grant(line) == grant


def test_read_state_joins_users_and_their_grants():
    answers = [
        [["database", "nova"], ["user", "nova", "10.0.0.1", HASH, "mysql_native_password", "1"]],
        [
            ["of", "0"],
            ["GRANT USAGE ON *.* TO `nova`@`10.0.0.1`"],
            ["GRANT ALL PRIVILEGES ON `nova`.* TO `nova`@`10.0.0.1`"],
        ],
    ]
    assert module.read_state(lambda statements: answers.pop(0), {"nova"}) == state(RIGHT, ["nova"])
