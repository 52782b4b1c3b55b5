# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node of OVN's databases decides; that the clusters form and heal is shown by the scenarios."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import socket
import sys
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "services/ovn/agent.py"


def load():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("zonestack_ovn", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("zonestack_ovn", loader))
    sys.modules["zonestack_ovn"] = module
    loader.exec_module(module)
    return module


agent = load()
MEMBERS = tuple(agent.Member(name, f"10.0.0.{number}") for number, name in enumerate(("a", "b", "c"), 1))
CLUSTER = "bafcaf9d-26e4-49d6-9fdd-6c692a0f9215"
OTHER = "11111111-26e4-49d6-9fdd-6c692a0f9215"
NB = agent.DATABASES["nb"]


def config(name="a", **more):
    return agent.Config(name=name, members=MEMBERS, **more)


def answer(cluster="", server="e5e3c952-ed07-4eb9-82d0-82f4ce4d478d", connected=False, leader=False):
    return agent.Answer(cluster, server, connected, leader)


JOINING, HOLDING = answer(), answer(CLUSTER, connected=True)


@pytest.mark.parametrize(
    ("me", "answers", "action", "reason"),
    [
        # A cluster is made by the first one, once all others have said that they have none.
        ("a", {"b": JOINING, "c": JOINING}, "create", "no node belongs"),
        ("a", {"b": JOINING, "c": "no answer"}, "wait", "c: no answer"),
        ("a", {"b": "no answer", "c": "no answer"}, "wait", "b: no answer; c: no answer"),
        # Who lost its volume joins those who have not, whether they have a majority or not.
        ("a", {"b": HOLDING, "c": "no answer"}, "join", "b belongs"),
        ("a", {"b": JOINING, "c": answer(CLUSTER)}, "join", "c belongs"),
        # All others join, whatever is there.
        ("b", {}, "join", "a makes the cluster"),
        ("c", {}, "join", "a makes the cluster"),
    ],
)
def test_decide(me, answers, action, reason):
    decision = agent.decide(config(me), answers)
    assert decision.action == action
    assert reason in decision.reason


def test_of_nodes_without_data_exactly_one_makes_the_cluster():
    made = [
        me
        for me in "abc"
        if agent.decide(config(me), {name: JOINING for name in "abc" if name != me}).action == "create"
    ]
    assert made == ["a"]


def test_a_cluster_of_one_is_made_at_once():
    assert agent.decide(agent.Config(name="a", members=MEMBERS[:1]), {}).action == "create"


STATUS = """bda3
Name: OVN_Northbound
Cluster ID: bafc (bafcaf9d-26e4-49d6-9fdd-6c692a0f9215)
Status: cluster member
Role: leader
Term: 7
Leader: self
Connections: ->bda3 ->e5e3 <-e5e3 <-bf19
Servers:
    bf19 (bf19 at ssl:10.0.0.3:6643) next_index=12 match_index=11 last msg 1684 ms ago
    1b2c (1b2c at ssl:10.0.0.3:6643) next_index=12 match_index=10 last msg 7380 ms ago
    e5e3 (e5e3 at ssl:10.0.0.2:6643) next_index=12 match_index=11 last msg 1684 ms ago
    bda3 (bda3 at ssl:10.0.0.1:6643) (self) next_index=10 match_index=11
"""


def test_the_status_names_the_other_servers():
    leads, servers = agent.cluster_status(STATUS)
    assert leads
    assert servers == [
        agent.Server("bf19", "ssl:10.0.0.3:6643"),
        agent.Server("1b2c", "ssl:10.0.0.3:6643"),
        agent.Server("e5e3", "ssl:10.0.0.2:6643"),
    ]
    assert not agent.cluster_status(STATUS.replace("Role: leader", "Role: follower"))[0]


@pytest.mark.parametrize(
    ("c_says", "removed"),
    [
        (answer(CLUSTER, "bf19e9ed-2658-4712-b985-79ca9bf961bc"), ["1b2c"]),  # it came back as another server
        (answer("", "bf19e9ed-2658-4712-b985-79ca9bf961bc"), ["1b2c"]),  # and waits to be let in
        (answer(OTHER, "77777777-2658-4712-b985-79ca9bf961bc"), []),  # of another cluster: for people to see
        ("no answer", []),  # it may come back as what it was
    ],
)
def test_only_a_server_whose_node_is_another_one_by_now_is_removed(c_says, removed):
    servers = agent.cluster_status(STATUS)[1]
    answers = {"b": answer(CLUSTER, "e5e3c952-ed07-4eb9-82d0-82f4ce4d478d", True), "c": c_says}
    assert [server.identity for server in agent.gone(config(), NB, CLUSTER, servers, answers)] == removed


def test_a_server_at_an_address_that_nobody_configured_is_left_alone():
    servers = [agent.Server("1b2c", "ssl:10.0.0.9:6643")]
    assert agent.gone(config(), NB, CLUSTER, servers, {"b": HOLDING, "c": HOLDING}) == []


def test_a_server_at_an_address_that_nobody_configured_is_a_stranger():
    known = [agent.Server("e5e3", "ssl:10.0.0.2:6643"), agent.Server("bf19", "ssl:10.0.0.3:6643")]
    assert agent.strangers(config(), NB, known) == []
    assert agent.strangers(config(), NB, [*known, agent.Server("1b2c", "ssl:10.0.0.9:6643")]) == [
        agent.Server("1b2c", "ssl:10.0.0.9:6643")
    ]


class Cluster:
    """What a server's control socket knows: it forgets who is kicked, if it has a leader."""

    def __init__(self, *strangers, leader=True):
        self.lines = [f"    {identity} ({identity} at ssl:{address}:6643)" for identity, address in strangers]
        self.leader, self.kicked = leader, []

    def __call__(self, _path, method, params):
        if method == "cluster/kick":
            self.kicked.append(params)
            if self.leader:
                self.lines = [line for line in self.lines if params[1] not in line]
            return ""
        assert method == "cluster/status"
        return (
            "x\nServers:\n    e5e3 (e5e3 at ssl:10.0.0.2:6643)\n" + "\n".join(self.lines) + "\n"
            if params[0] == NB.name
            else "\nServers:\n"
        )


@pytest.fixture
def forgetting(monkeypatch):
    """Have ``forget`` run against a cluster in which a stranger says something, or nothing."""

    def run(cluster, says="no answer", wait=5.0, **how):
        class Nodes:
            def __init__(self, _config):
                pass

            def ask(self, _kind, members):
                return {member.name: says for member in members}

        monkeypatch.setattr(agent, "call_unix", cluster)
        monkeypatch.setattr(agent, "Nodes", Nodes)
        monkeypatch.setattr(agent, "POLL_SECONDS", 0.0)
        agent.forget(config(), wait, **how)

    return run


def test_servers_of_no_node_are_forgotten_once(forgetting, capsys):
    cluster = Cluster(("1b2c", "10.0.0.9"))
    forgetting(cluster)
    assert cluster.kicked == [[NB.name, "1b2c"]]
    assert capsys.readouterr().out == f"{NB.name}: removed server 1b2c at ssl:10.0.0.9:6643\n"
    forgetting(cluster)
    assert (len(cluster.kicked), capsys.readouterr().out) == (1, "")


def test_a_stranger_that_runs_is_not_forgotten(forgetting):
    cluster = Cluster(("1b2c", "10.0.0.9"))
    with pytest.raises(agent.Trouble, match=r"1b2c at ssl:10.0.0.9:6643 is no node's and runs: remove its zone first"):
        forgetting(cluster, answer(CLUSTER, "1b2c"))
    assert cluster.kicked == []


def test_a_stranger_that_runs_can_be_spared(forgetting, capsys):
    cluster = Cluster(("1b2c", "10.0.0.9"))
    forgetting(cluster, answer(CLUSTER, "1b2c"), spare=True)
    assert (cluster.kicked, capsys.readouterr().out) == ([], "")


def test_a_cluster_without_a_leader_is_told(forgetting):
    with pytest.raises(agent.Trouble, match=r"still lists 1b2c at ssl:10.0.0.9:6643 after 0 s: is there a leader\?"):
        forgetting(Cluster(("1b2c", "10.0.0.9"), leader=False), wait=0.0)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"cid": ["uuid", CLUSTER], "sid": ["uuid", OTHER], "connected": True, "leader": True, "schema": "{}"},
         agent.Answer(CLUSTER, OTHER, True, True, "{}")),
        ({"cid": ["uuid", agent.NO_UUID], "sid": ["uuid", OTHER], "connected": False, "leader": False, "schema": ["set", []]},
         agent.Answer("", OTHER, False, False, "")),
        ({"cid": ["set", []], "sid": ["set", []], "connected": False, "leader": False, "schema": ["set", []]},
         agent.Answer("", "", False, False, "")),
    ],
)  # fmt: skip
def test_understand(row, expected):
    assert agent.understand([{"rows": [row]}]) == expected


def test_a_database_that_is_not_there_is_no_answer():
    with pytest.raises(ValueError, match="not there"):
        agent.understand([{"rows": []}])
    with pytest.raises(ValueError, match="no db"):
        agent.understand([{"error": "no db"}])


@pytest.mark.parametrize(
    "parts",
    [
        ['{"id":1,"result":[{"rows":[]}],"error":null}'],
        ['{"id":1,"resu', 'lt":[{"rows":[]}],"error":null}'],
        ['{"id":"echo","method":"echo","params":[]}{"id":1,"result":[{"rows":[]}],', '"error":null}'],
    ],
)
def test_call_finds_its_answer(parts):
    here, there = socket.socketpair()
    with here, there:

        def serve():
            assert json.loads(there.recv(65536))["method"] == "transact"
            for part in parts:
                there.sendall(part.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        here.settimeout(60)
        assert agent.call(here, "transact", ["_Server"]) == [{"rows": []}]
        thread.join()


def test_call_names_an_error_and_a_closed_connection():
    here, there = socket.socketpair()
    with here:
        there.sendall(b'{"id":1,"result":null,"error":"unknown command"}')
        with pytest.raises(ValueError, match="unknown command"):
            agent.call(here, "x", [])
        there.close()
        with pytest.raises(OSError):
            agent.call(here, "x", [])


def test_schemas_are_compared_by_number():
    assert agent.version('{"version": "7.10.0"}') > agent.version('{"version": "7.9.1"}')
    assert agent.version("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ('{"name": "a", "members": [], "color": 1}', "'a' is none of the members"),
        ('{"name": "a", "members": [{"name": "a", "address": "10.0.0.1"}], "color": 1}', "color"),
        ('{"members": []}', "name"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, text, message):
    file = tmp_path / "ovn.json"
    file.write_text(text)
    with pytest.raises(agent.Trouble) as trouble:
        agent.load_config(str(file))
    assert str(file) in str(trouble.value)
    assert message in str(trouble.value)


def test_a_node_that_is_away_is_described():
    problem = agent.ask_myself(config(rundir=Path("/nonexistent")), "nb")
    assert "no answer at /nonexistent/ovnnb_db.sock" in problem
