# SPDX-License-Identifier: GPL-3.0-or-later
"""The Galera agent's decisions as a table, and its server over real HTTP and TLS. Real clusters: tests/integration."""

from __future__ import annotations

import dataclasses
import http.client
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import ssl
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[3] / "services/galera/agent.py"
loader = importlib.machinery.SourceFileLoader("zonestack_galera", str(SCRIPT))
agent = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
sys.modules[loader.name] = agent
sys.dont_write_bytecode = True
loader.exec_module(agent)

CLUSTER, OTHER = "de364e41-e521-11f1-803f-ff21fad24d60", "7ff533a4-e521-11f1-9ea0-468acff1d92b"
MEMBERS = tuple(agent.Member(name, f"10.0.0.{number}") for number, name in enumerate(("a", "b", "c"), 1))
EMPTY = agent.Position()


def config(name="a", members=MEMBERS, **more):
    return agent.Config(name=name, members=members, **more)


def at(seqno, cluster=CLUSTER):
    return agent.Position(cluster, seqno)


def peer(name, phase="deciding", position=EMPTY, **more):
    values = {
        "safe_to_bootstrap": False,
        "running": phase == "running",
        "primary": False,
        "cluster_size": 0,
        "attempt": "1",
        "bootstrapping": False,
        "members": ["a", "b", "c"],
    }
    return agent.Answer(name=name, phase=phase, uuid=position.uuid, seqno=position.seqno, **{**values, **more})


def decide(me, mine, *peers, **more):
    said = {other.name if isinstance(other, agent.Answer) else other: other for other in peers}
    answers = {name: answer if isinstance(answer, agent.Answer) else "no answer" for name, answer in said.items()}
    return agent.decide(config(me), mine, answers, **more)


PRIMARY = {"phase": "running", "primary": True, "position": at(9)}


@pytest.mark.parametrize(
    ("me", "mine", "peers", "more", "action", "reason"),
    [
        # Somebody runs the cluster: join, whatever the third does.
        ("a", at(5), [peer("b", **PRIMARY), "c"], {}, "join", "b runs"),
        ("a", EMPTY, [peer("b", **PRIMARY), peer("c")], {}, "join", "b runs"),
        # All wait: the latest data leads; among equals the first as configured.
        ("a", at(5), [peer("b", position=at(4)), peer("c", position=at(5))], {}, "bootstrap", "seqno 5"),
        ("c", at(5), [peer("a", position=at(5)), peer("b", position=at(4))], {}, "wait", "a is to bootstrap"),
        (
            "a",
            at(5),
            [peer("b", position=at(6)), peer("c", position=at(4))],
            {},
            "wait",
            "b is to bootstrap (seqno 6, here 5)",
        ),
        # New nodes never lead those with data, and the first of only new ones leads.
        ("a", EMPTY, [peer("b", position=at(0)), peer("c")], {}, "wait", "b is to bootstrap"),
        ("a", EMPTY, [peer("b"), peer("c")], {}, "bootstrap", "no node holds data"),
        ("b", EMPTY, [peer("a"), peer("c")], {}, "wait", "a is to bootstrap"),
        # Who does not take part is waited for, by name.
        ("a", at(5), [peer("b", position=at(4)), "c"], {}, "wait", "c (10.0.0.3): no answer"),
        (
            "a",
            at(5),
            [peer("b", position=at(4)), peer("c", phase="stopped", position=at(4))],
            {},
            "wait",
            "c (10.0.0.3): mariadb is not",
        ),
        # Never beside a mariadbd that lives.
        (
            "a",
            at(5),
            [peer("b", phase="starting", position=at(4)), peer("c")],
            {},
            "wait",
            "b is up but not yet primary",
        ),
        ("a", at(5), [peer("b", phase="starting", position=at(4)), "c"], {"force": True}, "wait", "b is up"),
        ("a", at(5), [peer("b", phase="running", position=at(4)), peer("c")], {}, "wait", "b is up"),
        # A survivor without quorum and the last view on disk: Galera puts the component together again.
        ("a", at(5), [peer("b", phase="running", position=at(6)), "c"], {"has_view": True}, "join", "without quorum"),
        # Two that differ in what the cluster is must not decide.
        ("a", at(5), [peer("b", members=["a", "b"]), peer("c")], {}, "wait", "configured with the members a, b,"),
        # Somebody announced the same.
        ("a", at(5), [peer("b", position=at(5), bootstrapping=True), peer("c")], {}, "wait", "b has announced"),
        # The operator's word stands for the missing ones.
        ("a", at(5), [peer("b", position=at(5)), "c"], {"force": True}, "bootstrap", "seqno 5"),
        ("b", at(5), [peer("a", position=at(5)), "c"], {"force": True}, "bootstrap", "forced"),
    ],
)
def test_decide(me, mine, peers, more, action, reason):
    decision = decide(me, mine, *peers, **more)
    assert decision.action == action
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("mine", "peers", "more", "message"),
    [
        (at(5), [peer("b", position=at(9, OTHER)), peer("c")], {}, "different clusters"),
        (EMPTY, [peer("b", position=at(9, OTHER)), peer("c", position=at(9))], {}, "different clusters"),
        (at(5), [peer("b", phase="running", primary=True, position=at(9, OTHER)), "c"], {}, "different clusters"),
        (at(5), [peer("b", position=at(6)), "c"], {"force": True}, "b holds later data (seqno 6, here 5)"),
        (EMPTY, [peer("b", position=at(6)), "c"], {"force": True}, "b holds later data"),
    ],
)
def test_decide_refuses(mine, peers, more, message):
    with pytest.raises(agent.Refusal) as refusal:
        decide("a", mine, *peers, **more)
    assert message in str(refusal.value)


def test_one_of_all_possible_positions_leads_and_only_one():
    """Whatever three waiting nodes hold, each computes the same leader, and it holds the latest data."""
    kinds = (EMPTY, at(0), at(1), at(2))
    for held in ((a, b, c) for a in kinds for b in kinds for c in kinds):
        names = ("a", "b", "c")
        leaders = []
        for me, mine in zip(names, held, strict=True):
            others = [peer(name, position=position) for name, position in zip(names, held, strict=True) if name != me]
            if decide(me, mine, *others).action == "bootstrap":
                leaders.append(mine)
        assert len(leaders) == 1
        assert leaders[0].seqno == max(position.seqno for position in held)


def test_a_cluster_of_one_bootstraps_itself():
    assert agent.decide(config(members=MEMBERS[:1]), at(3), {}).action == "bootstrap"


GOOD = {
    "wsrep_cluster_status": "Primary",
    "wsrep_ready": "ON",
    "read_only": "OFF",
    "wsrep_local_state_comment": "Synced",
}


@pytest.mark.parametrize(
    ("changes", "good", "reason"),
    [
        ({}, True, "Synced"),
        ({"wsrep_cluster_status": "non-Primary"}, False, "non-Primary"),
        ({"wsrep_ready": "OFF"}, False, "wsrep_ready"),
        ({"read_only": "ON"}, False, "read-only"),
        ({"wsrep_local_state_comment": "Joined"}, False, "Joined"),
        ({"wsrep_local_state_comment": "Donor/Desynced", "wsrep_sst_method": "mariabackup"}, True, "Donor"),
        ({"wsrep_local_state_comment": "Donor/Desynced", "wsrep_sst_method": "rsync"}, False, "Donor"),
    ],
)
def test_health(changes, good, reason):
    verdict, why = agent.health({**GOOD, **changes})
    assert verdict is good
    assert reason in why


def test_health_of_a_server_that_does_not_answer():
    assert agent.health({}) == (False, "mariadbd does not answer")


def test_grastate_is_read_and_bootstrap_allowed(tmp_path):
    assert agent.read_grastate(tmp_path) is None
    state = tmp_path / "grastate.dat"
    state.write_text(f"# GALERA saved state\nversion: 2.1\nuuid:    {CLUSTER}\nseqno:   -1\nsafe_to_bootstrap: 0\n")
    assert agent.read_grastate(tmp_path) == agent.Position(CLUSTER, -1, False)
    agent.allow_bootstrap(tmp_path)
    assert agent.read_grastate(tmp_path) == agent.Position(CLUSTER, -1, True)
    assert "# GALERA saved state\nversion: 2.1\n" in state.read_text()


def test_the_state_of_a_start_ends_with_its_process(tmp_path):
    """Also when its pid is given to another process later."""
    file = tmp_path / "state"
    process = subprocess.Popen(["sleep", "60"])
    state = agent.StartState(process.pid, agent.process_started(process.pid), "deciding", "x", at(4))
    state.save(file)
    assert agent.StartState.load(file) == state
    dataclasses.replace(state, started="1").save(file)
    assert agent.StartState.load(file) is None
    state.save(file)
    process.kill()
    process.wait()
    assert agent.StartState.load(file) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ('{"name": "a", "members": [], "color": 1}', "unknown key 'color'"),
        ('{"name": "z", "members": [{"name": "a", "address": "10.0.0.1"}]}', "'z' is none of the members"),
        ('{"members": []}', "name"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, text, message):
    file = tmp_path / "galera.json"
    file.write_text(text)
    with pytest.raises(agent.Refusal) as refusal:
        agent.load_config(str(file))
    assert str(file) in str(refusal.value)
    assert message in str(refusal.value)


def certificate(folder, name):
    """A key and certificate for 127.0.0.1 by an authority in ``folder`` that is made on first use."""
    run = lambda *argv: subprocess.run(argv, check=True, capture_output=True, cwd=folder)  # noqa: E731
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    if not (folder / "ca.crt").exists():
        run("openssl", "req", "-x509", *ec, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    run("openssl", "req", *ec, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
        "-extfile", "ext", "-out", f"{name}.crt")  # fmt: skip
    return agent.Tls(str(folder / f"{name}.crt"), str(folder / f"{name}.key"), str(folder / "ca.crt"))


@pytest.fixture(params=["plain", "tls"])
def served(request, tmp_path, serve):
    """A running agent without a mariadbd; its address is 127.0.0.1 and its port free."""
    tls = certificate(tmp_path, "node") if request.param == "tls" else None
    settings = config(members=(agent.Member("a", "127.0.0.1"),), port=0, datadir=tmp_path, rundir=tmp_path, tls=tls)
    server = serve(agent.Agent(settings))
    # As its peer sees it: another name, the agent's real port.
    peers = (agent.Member("a", "127.0.0.1"), agent.Member("b", "127.0.0.2"))
    return dataclasses.replace(settings, name="b", members=peers, port=server.server_address[1])


def get(settings, path):
    if settings.tls:
        context = ssl.create_default_context(cafile=settings.tls.ca)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        connection = http.client.HTTPSConnection("127.0.0.1", settings.port, timeout=60, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_serve_says_why_no_traffic_may_come(served):
    assert get(served, "/") == (503, "mariadbd does not answer\n")
    assert get(served, "/other")[0] == 404


def test_serve_answers_a_peer_with_what_start_left(served):
    peers = agent.Peers(served)
    stopped = peers.ask()["a"]
    assert (stopped.phase, stopped.uuid) == ("stopped", agent.NO_UUID)
    agent.StartState(os.getpid(), agent.process_started(os.getpid()), "deciding", "x", at(7)).save(served.state_file)
    deciding = peers.ask()["a"]
    assert (deciding.phase, deciding.seqno, deciding.attempt, deciding.members) == ("deciding", 7, "x", ["a"])


def test_serve_tells_positions_only_to_the_deployment(served):
    status, text = get(served, "/position")
    if served.tls:
        assert (status, "client certificate" in text) == (403, True)
    else:
        assert json.loads(text)["name"] == "a"


def test_a_peer_that_is_away_is_described():
    answer = agent.Peers(
        config(members=(agent.Member("a", "127.0.0.1"), agent.Member("b", "127.0.0.1")), port=1)
    ).ask()["b"]
    assert "no answer at port 1" in answer


# The write-set cache's file

IN_RAMFS = ["unshare", "--mount", "sh", "-euc", 'mount -t ramfs none "$1"; shift; exec "$@"', "sh"]


def laid_out(folder, *inside):
    """Lay out the cache in a process of its own, and what the file is then: None, or its length and its bytes on disk."""
    code = (
        "import importlib.machinery, importlib.util, json, pathlib, sys\n"
        "loader = importlib.machinery.SourceFileLoader('agent', sys.argv[1])\n"
        "agent = importlib.util.module_from_spec(importlib.util.spec_from_loader('agent', loader))\n"
        "sys.modules['agent'] = agent; loader.exec_module(agent)\n"
        "member = agent.Member('a', '127.0.0.1'); folder = pathlib.Path(sys.argv[2])\n"
        "agent.lay_out_gcache(agent.Config('a', (member,), datadir=folder))\n"
        "path = folder / 'galera.cache'; stat = path.exists() and path.stat()\n"
        "print(json.dumps([stat.st_size, stat.st_blocks * 512] if stat else None))\n"
    )
    done = subprocess.run(
        [*inside, sys.executable, "-B", "-c", code, SCRIPT, folder], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def test_where_space_can_be_reserved_galera_makes_its_cache_itself(tmp_path):
    assert laid_out(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: needs root")
def test_where_space_cannot_be_reserved_the_cache_is_sparse(tmp_path):
    size, used = laid_out(tmp_path, *IN_RAMFS, tmp_path)
    assert size >= 1 << 40 and used == 0


def test_a_cache_that_is_there_is_kept(tmp_path):
    (tmp_path / "galera.cache").write_bytes(b"write sets")
    assert laid_out(tmp_path) == [10, (tmp_path / "galera.cache").stat().st_blocks * 512]
    assert (tmp_path / "galera.cache").read_bytes() == b"write sets"
