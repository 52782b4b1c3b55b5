# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight of a SmartOS host: what its shell is asked, with the tools of a simulated one, and what its answers mean."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import global_zone
import preflight
from checks.finding import Finding
from checks.needs import Bridge, Needs, Place
from cloud import compute
from global_zone import SCRIPT, judge_global_zone, read_answer
from preflight import Answer, look

BIN = Path(__file__).resolve().parents[2] / "smartos_sim/bin"
TOPOLOGY = """\
plugin: zonestack.openstack.topology
deployment: dev
release: "2026.2"
networks: {zone: {cidr: 10.77.0.0/20, bridge: zones}}
hosts: {gz1: {id: 1, address: 192.0.2.11, user: root, backend: smartos}, cmp1: {id: 2, address: 192.0.2.12}}
cloud: {networks: {public: {cidr: 10.78.0.0/24, gateway_host: cmp1}}}
services: {galera: {count: 1, hosts: [gz1]}, memcached: {hosts: [gz1]}, haproxy: {hosts: [gz1]}, keystone: {count: 1, hosts: [gz1]}}
"""
NEEDS = Needs(
    "what topology.yml places there (2 zones)", memory=2048, disk=8 * 1024, cpus=2,
    zones=(Place("gz1-galera-1", 4096, 2, 50), Place("gz1-keystone-1", 2048, 2, 10)),
    bridges=(Bridge("zones", "zone", "10.77.0.0/20", 1500, address="10.77.2.1"), Bridge("zs_dev1", "storage", "10.79.0.0/20", 1500)),
)  # fmt: skip
WELL: dict[str, Any] = {
    "root": True, "zone": "global", "python": "3.12.3", "platform": "20260301T000000Z", "cpus": 8, "memory": 64 * 1024, "zones": {},
    "pool": {"size": 900 * 1024, "free": 500 * 1024, "health": "ONLINE"}, "tags": {"admin": "normal", "zones": "normal"},
    "ips": {"e1000g0": "192.0.2.11", "zones_gz0": "10.77.2.1"},
}  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of a simulated node's global zone, with a pool and a clock that is kept right, for which the simulator has no tools."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, line in {
        "zpool": r"printf 'zones\t1099511627776\t549755813888\tONLINE\n'",
        "svcs": "echo online",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tools}:{BIN}:{os.environ['PATH']}", "SMARTOS_SIM_STATE": str(tmp_path / "state")}


def told(node: dict[str, str], shell: str = "sh") -> str:
    # the script sets a path of its own
    script = SCRIPT.replace("PATH=/opt/tools/sbin", f"PATH={node['PATH']}:/opt/tools/sbin", 1)
    return subprocess.run(
        [shell, "-c", script], env=node, capture_output=True, text=True, timeout=600, check=True
    ).stdout


def test_a_global_zone_tells_all_that_is_judged(node: dict[str, str]) -> None:
    subprocess.run(
        ["smartos-sim", "node", 'platform="20260101T000000Z"', "memory_mib=32768", 'hostname="gz1"'],
        env=node,
        check=True,
        capture_output=True,
    )
    vm = {
        "brand": "bhyve",
        "autoboot": False,
        "alias": "gz1-galera-1",
        "tags": {"zonestack.deployment": "dev"},
        "uuid": "5a7e57ab-0000-4000-8000-000000000001",
    }
    for payload in (vm, {**vm, "uuid": "5a7e57ab-0000-4000-8000-000000000002", "alias": "theirs", "tags": {}}):
        subprocess.run(
            ["vmadm", "create"], input=json.dumps(payload), text=True, env=node, check=True, capture_output=True
        )
    before = time.time()
    facts = read_answer(told(node))
    assert before - 1 <= facts["now"] <= time.time() + 1
    assert (facts["zone"], facts["platform"], facts["memory"], facts["hostname"]) == (
        "global",
        "20260101T000000Z",
        32768,
        "gz1",
    )
    assert facts["pool"] == {"size": 1024 * 1024, "free": 512 * 1024, "health": "ONLINE"}
    assert facts["tags"]["admin"] == "normal" and facts["synchronised"] is True and facts["cpus"] > 0
    assert facts["zones"] == {"gz1-galera-1": "5a7e57ab-0000-4000-8000-000000000001"}
    assert facts["root"] is (os.geteuid() == 0)


def test_what_is_cut_off_is_no_answer(node: dict[str, str]) -> None:
    for cut in ("", "@ user\n0\n", told(node).rpartition("@ end")[0]):
        with pytest.raises(ValueError, match="incomplete"):
            read_answer(cut)


def test_a_machine_without_any_of_it_tells_that(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", SCRIPT], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=600, check=True
    )
    facts = read_answer(done.stdout)
    assert facts["pool"] is None and facts["platform"] is None
    (finding,) = judge_global_zone(facts, NEEDS)
    assert "this is not SmartOS" in finding.what


def test_where_all_is_well_nothing_is_found() -> None:
    assert list(judge_global_zone(WELL, NEEDS)) == []
    assert list(judge_global_zone({**WELL, "python": global_zone.UNPREPARED}, NEEDS)) == [], "a run installs it"


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ({"zone": "f00"}, "problem: system: this is zone f00, and backend is smartos"),
        ({"root": False}, "problem: user: the user is not root"),
        ({"platform": "20190101T000000Z"}, "warning: system: its platform is of 20190101T000000Z"),
        ({"python": None}, "problem: python: there is neither Python nor pkgsrc"),
        ({"python": "3.9.1"}, "problem: python: the Python in /opt/tools is 3.9.1. Fix: install 3.11 or newer"),
        ({"pool": None}, "problem: disk: there is no pool zones"),
        ({"pool": {**WELL["pool"], "health": "DEGRADED"}}, "warning: disk: pool zones is DEGRADED"),
        ({"pool": {**WELL["pool"], "health": "SUSPENDED"}}, "problem: disk: pool zones is SUSPENDED"),
        (
            {"pool": {**WELL["pool"], "free": 5000}},
            "problem: disk: pool zones has 5000 MiB free and needs 8192 MiB",
        ),
        (
            {"pool": {**WELL["pool"], "size": 50 * 1024}},
            "warning: disk: pool zones has 50.0 GiB, and its 2 zones may use 60.0 GiB together",
        ),
        ({"memory": 1024}, "problem: memory: 1024 MiB, and what topology.yml places there (2 zones) needs 2048 MiB"),
        ({"memory": 3000}, "problem: memory: 2.9 GiB, and gz1-galera-1 alone may use 4.0 GiB"),
        (
            {"memory": 5000},
            "warning: memory: 4.9 GiB, and its 2 zones may use 6.0 GiB together: if they do, the host pages",
        ),
        ({"cpus": 1}, "problem: cpus: 1, and what topology.yml places there (2 zones) needs 2"),
        (
            {"tags": {"admin": "normal"}},
            "problem: network: network zone: there is no NIC tag zones (there are: admin). Fix: nictagadm add zones MAC",
        ),
        ({"tags": {"zones": "etherstub"}}, "problem: network: network zone: NIC tag zones is an etherstub"),
        (
            {"ips": {"e1000g0": "10.77.9.9"}},
            "problem: network: network zone (10.77.0.0/20) overlaps address 10.77.9.9 of e1000g0",
        ),
    ],
)
def test_one_fault_is_one_line(fault: dict[str, Any], line: str) -> None:
    (finding,) = judge_global_zone({**WELL, **fault}, NEEDS)
    assert str(finding).startswith(line)


def test_a_host_that_has_its_zones_needs_less(node: dict[str, str]) -> None:
    less = {**WELL, "pool": {**WELL["pool"], "free": 3000}}
    assert (
        list(judge_global_zone({**less, "zones": {"gz1-galera-1": "5a7e57ab-0000-4000-8000-000000000001"}}, NEEDS))
        == []
    )


def test_it_is_asked_and_judged_beside_hosts_of_linux(
    node: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock counts among all, and so does that it is one machine. Which of the hosts is asked by what, the topology says."""
    path = tmp_path / "topology.yml"
    path.write_text(TOPOLOGY)
    computed = compute(path)
    own = preflight.ask

    def ask(host: Any, request: Any, way: Any) -> Answer:
        return (
            own(host, request, way)
            if host.backend == "smartos"
            else Answer(silence=Finding("ssh", "it does not answer", "is it on?"))
        )

    monkeypatch.setattr(preflight, "ask", ask)
    answer = told(node)

    def way(_host: Any, script: str, *_ssh: str) -> list[str]:
        assert script == SCRIPT
        return ["printf", "%s", answer]

    said = [str(finding) for finding in look(computed, way)]
    assert "problem: cmp1: ssh: it does not answer. Fix: is it on?." in said
    assert [line for line in said if line.startswith("problem: gz1: network: network zone: there is no NIC tag zones")]
    late = answer.replace("@ now\n", "@ now\n9", 1)
    answer = late
    assert [line for line in map(str, look(computed, way)) if ": clock: " in line]
    answer = "nothing of it"
    assert [
        line
        for line in map(str, look(computed, way))
        if line.startswith("problem: gz1: facts: the program that checks the host failed")
    ]
