# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.zonestack.openstack.plugins.modules.haproxy_server import (
    Haproxy,
    left_behind,
    missing,
    too_few,
)

STAT = """# pxname,svname,status,scur,last_chk
mysql,FRONTEND,OPEN,3,
mysql,g1,UP,3,
mysql,g2,UP,0,
mysql,g3,DOWN,0,L4TOUT
keystone,k1,UP,1,
keystone,k2,DRAIN,0,
mysql,BACKEND,UP,3,
"""
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state
2 mysql 1 g1 10.0.0.1 2 0
2 mysql 3 g3 10.0.0.3 0 8
3 keystone 2 k2 10.0.0.5 2 1

"""
TABLE = """# table: mysql, type: integer, size:10240, used:1
0x7f71d288ca10: key=1 use=0 exp=0 shard=0 server_id=1 server_key=g1

"""


class Canned(Haproxy):
    """Answers of a real HAProxy 3.0, cut to the columns that are read."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, command: str) -> str:
        self.asked.append(command)
        return {"show stat": STAT, "show servers state": STATE, "show table mysql": TABLE}.get(
            command, "No such table\n"
        )


def test_totals_are_no_servers():
    assert [row["svname"] for row in Canned().servers("")] == ["g1", "g2", "g3", "k1", "k2"]


def test_a_drained_server_is_found_also_while_it_is_down():
    assert Canned().out_of_rotation() == {"mysql/g3", "keystone/k2"}


@pytest.mark.parametrize(
    ("name", "others", "expected"),
    [
        ("g1", 2, "mysql needs 2 other servers that are up before g1 can be drained, and has 1 (g2 UP, g3 DOWN)"),
        ("g1", 1, ""),
        ("k1", 1, "keystone needs 1 other servers that are up before k1 can be drained, and has 0 (k2 DRAIN)"),
        ("k2", 1, ""),
        ("unknown", 9, ""),
    ],
)
def test_nobody_goes_while_too_few_others_serve(name, others, expected):
    assert too_few(Canned(), name, others) == expected


@pytest.mark.parametrize(
    ("others", "members", "expected"),
    [
        (2, ["g1", "g2", "g4"], ""),  # g3 has left, and HAProxy does not know g4 yet
        (2, ["g1", "g3"], "mysql needs 1 other servers that are up before g1 can be drained, and has 0 (g3 DOWN)"),
        (2, ["g1", "g4", "g5"], ""),  # it was alone so far
    ],
)
def test_members_that_come_and_go_are_not_waited_for(others, members, expected):
    assert too_few(Canned(), "g1", others, members) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("g1", ["mysql/g3"]), ("g3", []), ("k1", ["keystone/k2"]), ("unknown", [])]
)
def test_what_a_broken_run_left_out_of_rotation_is_found(name, expected):
    assert left_behind(Canned(), name) == expected


@pytest.mark.parametrize(
    ("front_end", "name", "cleared"),
    [("mysql", "g1", True), ("mysql", "g", False), ("mysql", "g2", False), ("keystone", "k1", False)],
)
def test_clients_that_stick_to_a_drained_server_choose_another(front_end, name, cleared):
    haproxy = Canned()
    haproxy.unstick({"pxname": front_end, "svname": name})
    assert haproxy.asked[1:] == (["clear table mysql"] if cleared else [])


def test_what_is_not_up_is_named_with_its_check():
    rows = Canned().servers("")
    assert missing(rows, every=True) == ["mysql/g3 DOWN (L4TOUT)", "keystone/k2 DRAIN (not checked yet)"]
    assert missing(rows, every=False) == []
