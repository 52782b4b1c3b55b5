# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/leave.yml and forget.yml through Ansible: who is asked for what, where. The modules only note what they are given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from .conftest import Checkout

TOPOLOGY = """
release: "2026.2"
networks:
  zone: {cidr: 10.77.0.0/20, interface: eth1}
hosts:
  a: {id: 1, address: 192.0.2.1, groups: [control]}
  b: {id: 2, address: 192.0.2.2, groups: [control]}
  c: {id: 3, address: 192.0.2.3, groups: [control]}
  d: {id: 4, address: 192.0.2.4, groups: [control], leaving: true}
services:
  galera: {hosts: [control]}
  rabbit_mq: {hosts: [control]}
  ovn: {hosts: [control]}
  memcached:
  haproxy: {count: 2}
  keystone:
  placement:
  glance:
  neutron:
  nova: {nova_compute: {per_host: 1}}
  utility: {hosts: [c]}
"""

MODULE = """
import json
import os
from ansible.module_utils import basic

params = basic._load_params() or {}
given = {key: value for key, value in params.items() if not key.startswith("_ansible")}
leaving = params["_ansible_remote_tmp"].endswith("-of-d")
name = "NAME"
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([name, given]) + "\\n")
answer = {"changed": False}
if name == "zone_info":
    there = json.loads(os.environ["THERE"]) if given["backend"] == "lxc" else {}
    answer["zones"] = {name: one for name, one in there.items() if name.startswith("d-") == leaving}
print(json.dumps(answer))
raise SystemExit(0)
"""


class Leaving(Checkout):
    """A deployment that the host d is leaving."""

    def __init__(self, folder: Path) -> None:
        stubbed = ("zone_info", "host_records", "haproxy_server", "rabbitmq_broker", "zones", "zone_image", "lxc_host")
        super().__init__(folder, {name: MODULE.replace("NAME", name) for name in stubbed})
        # What only looks, or is a program of a zone, is not there to be run.
        for name in ("leave", "forget"):
            path = self.collection / f"services/ovn/tasks/{name}.yml"
            path.write_text(path.read_text().replace("/usr/local/sbin/zonestack-ovn", str(folder / "zonestack-ovn")))
        program = folder / "zonestack-ovn"
        program.write_text('#!/bin/sh\necho "[\\"zonestack-ovn\\", \\"$*\\"]" >>"$CALLS"\n')
        program.chmod(0o755)
        self.describe(TOPOLOGY, {"keystone": {"admin_password": "secret"}, "rabbit_mq": {"admin_password": "secret"}})
        for group in ("zones", "zone_hosts", *(f"{name}_zones" for name in "abc"), "lxc_hosts"):
            self.variables(f"group_vars/{group}")
        self.variables("host_vars/d", ansible_remote_tmp=f"{folder}/tmp-of-d")

    def run(self, playbook: str, there: dict, rc: int = 0, **variables: object) -> tuple[list, str]:
        """What was asked of the stubs, and what Ansible said."""
        given = {
            "leave_host": "d",
            "leave_dead": False,
            "leave_lose": [],
            "ansible_python_interpreter": sys.executable,
            **variables,
        }
        done = self.ansible(
            playbook, "-e", json.dumps(given), rc=rc, ANSIBLE_BECOME_ALLOW_SAME_USER="0", THERE=json.dumps(there)
        )
        return self.calls, " ".join(done.stdout.split())


def zone(name: str, component: str, running: bool = True, **more: object) -> dict:
    return {
        name: {
            "uuid": name,
            "running": running,
            "described": {"name": name, "uuid": name, "metadata": {"component": component}, "volumes": {}, **more},
        }
    }


OTHERS = {
    **zone("a-galera-1", "galera"), **zone("a-rabbit-mq-1", "rabbit_mq"), **zone("b-rabbit-mq-1", "rabbit_mq"), **zone("a-haproxy-1", "haproxy"),
    **zone("a-ovn-1", "ovn"), **zone("b-ovn-1", "ovn"), **zone("b-haproxy-1", "haproxy", running=False), **zone("c-utility-1", "utility", running=False),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Leaving:
    return Leaving(tmp_path_factory.mktemp("leave"))


def named(calls: list, name: str) -> list:
    return [given for called, given in calls if called == name]


def test_a_control_host_stops_when_all_is_well(checkout: Leaving) -> None:
    mine = {
        **zone("d-galera-1", "galera", volumes={"data": {"path": "/v"}}),
        **zone("d-rabbit-mq-1", "rabbit_mq"),
        **zone("d-ovn-1", "ovn"),
    }
    calls, _said = checkout.run(
        "leave", {**OTHERS, **mine} | {name: one | {"running": True} for name, one in OTHERS.items()}
    )
    records = named(calls, "host_records")
    assert [(one["host"], one["state"], one["network"]) for one in records] == [("d", "quiet", True)]
    assert {"nova_compute", "nova_conductor", "nova_scheduler"} <= set(records[0]["components"])
    assert "a-nova-compute-1" in records[0]["members"] and not [
        name for name in records[0]["members"] if name.startswith("d-")
    ]
    assert [one["nodes"] for one in named(calls, "rabbitmq_broker")] and named(calls, "zonestack-ovn") == [
        "whole --wait 60"
    ]
    assert named(calls, "haproxy_server")[0] == {"state": "up", "wait": 60}
    drained = {(one["name"], one["wait"]) for one in named(calls, "haproxy_server")[1:]}
    assert {("d-galera-1", 0), ("d-rabbit-mq-1", 0)} <= drained
    stopped = named(calls, "zones")[0]["zones"]
    assert {(one["state"], one["autostart"], one["backend"]) for one in stopped} == {("stopped", False, "lxc")}
    assert "d-ovn-1" in [one["name"] for one in stopped]


def test_a_host_without_which_there_is_no_majority_stays(checkout: Leaving) -> None:
    mine = {**zone("d-ovn-1", "ovn"), **zone("d-rabbit-mq-1", "rabbit_mq"), **zone("d-rabbit-mq-2", "rabbit_mq")}
    calls, said = checkout.run(
        "leave", {**OTHERS, **mine} | {name: one | {"running": True} for name, one in OTHERS.items()}, rc=2
    )
    assert "d: 2 of the 4 members of rabbit_mq that run are on it, and the other 2 are not a majority" in said
    assert {called for called, _given in calls} == {"zone_info"}


def test_data_that_is_nowhere_else_keeps_a_host(checkout: Leaving) -> None:
    images = {**OTHERS, **zone("d-glance-1", "glance", volumes={"images": {"path": "/v"}})}
    calls, said = checkout.run("leave", images, rc=2)
    assert "d: no other host has the data of glance" in said and "--lose glance" in said
    assert {called for called, _given in calls} == {"zone_info"}


def test_a_dead_host_is_left_alone(checkout: Leaving) -> None:
    calls, _said = checkout.run("leave", OTHERS, leave_dead=True)
    assert [called for called, _given in calls] == ["zone_info"] * 3 + ["host_records"]
    calls, _said = checkout.run("forget", OTHERS, leave_dead=True)
    forgotten = ["rabbitmq_broker", "zonestack-ovn", "host_records"]
    assert [called for called, _given in calls] == ["zone_info"] * 3 + forgotten


def test_everything_of_a_host_is_forgotten(checkout: Leaving) -> None:
    calls, _said = checkout.run("forget", zone("d-nova-compute-1", "nova_compute", running=False))
    assert [called for called, _given in calls] == [
        *["zone_info"] * 3,
        "rabbitmq_broker",
        "zonestack-ovn",
        "host_records",
        "zone_info",
        "zones",
        "zone_image",
        "zone_info",
        "lxc_host",
    ][: len(calls)]
    assert named(calls, "host_records")[0]["state"] == "absent"
    queue = named(calls, "rabbitmq_broker")[0]
    assert queue["members"] == ["rabbit@a-rabbit-mq-1", "rabbit@b-rabbit-mq-1", "rabbit@c-rabbit-mq-1"]
    assert queue["abandoned"].startswith("(?<![a-z0-9-])(d-(galera|") and "|nova-compute|" in queue["abandoned"]
    assert named(calls, "zonestack-ovn") == ["--config /dev/stdin forget --wait 60"]
    assert [(one["name"], one["state"], one["purge"]) for one in named(calls, "zones")[0]["zones"]] == [
        ("d-nova-compute-1", "absent", True)
    ]
    assert named(calls, "lxc_host")[0]["state"] == "absent"
