# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/leave.yml and forget.yml through Ansible: who is asked for what, where. The modules only note what they are given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

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


class Checkout:
    """The collection with stubs for all modules that these playbooks call, and a deployment on this machine's Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.collection = folder / "ansible_collections/zonestack/openstack"
        for name in ("plugins", "playbooks", "services", "locks", "group_vars", "meta", "roles"):
            shutil.copytree(ROOT / name, self.collection / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("ansible.cfg", "galaxy.yml"):
            shutil.copy(ROOT / name, self.collection / name)
        for name in ("zone_info", "host_records", "haproxy_server", "rabbitmq_broker", "zones", "zone_image", "lxc_host"):
            (self.collection / f"plugins/modules/{name}.py").write_text(MODULE.replace("NAME", name))
        # What only looks, or is a program of a zone, is not there to be run.
        for name in ("leave", "forget"):
            path = self.collection / f"playbooks/{name}.yml"
            path.write_text(path.read_text().replace("/usr/local/sbin/zonestack-ovn", str(folder / "zonestack-ovn")))
        program = folder / "zonestack-ovn"
        program.write_text(f'#!/bin/sh\necho "[\\"zonestack-ovn\\", \\"$*\\"]" >>{folder}/calls\n')
        program.chmod(0o755)
        self.topology = folder / "inventory/x/topology.yml"
        (self.topology.parent / "group_vars").mkdir(parents=True)
        self.topology.write_text(TOPOLOGY)
        (self.topology.parent / "secrets.yml").write_text("secrets: {keystone: {admin_password: secret}, rabbit_mq: {admin_password: secret}}\n")
        here = yaml.safe_dump({"ansible_connection": "local", "ansible_python_interpreter": sys.executable})
        for group in ("zones", "zone_hosts", *(f"{name}_zones" for name in "abc"), "lxc_hosts"):
            (self.topology.parent / f"group_vars/{group}.yml").write_text(here)
        (self.topology.parent / "host_vars").mkdir()
        (self.topology.parent / "host_vars/d.yml").write_text(here + f"ansible_remote_tmp: {folder}/tmp-of-d\n")

    def run(self, playbook: str, there: dict, rc: int = 0, **variables: object) -> tuple[list, str]:
        calls = self.folder / "calls"
        calls.write_text("")
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(self.collection / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(self.folder), "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_NOCOLOR": "1", "ANSIBLE_BECOME_ALLOW_SAME_USER": "0", "CALLS": str(calls), "THERE": json.dumps(there),
        }  # fmt: skip
        given = json.dumps({"leave_host": "d", "leave_dead": False, "leave_lose": [], "ansible_python_interpreter": sys.executable, **variables})
        argv = [Path(sys.executable).with_name("ansible-playbook"), "-i", self.topology, "-e", given, self.collection / f"playbooks/{playbook}.yml"]
        done = subprocess.run(argv, cwd=self.folder, env=environment, text=True, capture_output=True, timeout=170, check=False)
        assert done.returncode == rc, done.stdout + done.stderr
        return [json.loads(line) for line in calls.read_text().splitlines()], " ".join(done.stdout.split())


def zone(name: str, component: str, running: bool = True, **more: object) -> dict:
    return {name: {"uuid": name, "running": running, "described": {"name": name, "uuid": name, "metadata": {"component": component}, "volumes": {}, **more}}}


OTHERS = {
    **zone("a-galera-1", "galera"), **zone("a-rabbit-mq-1", "rabbit_mq"), **zone("b-rabbit-mq-1", "rabbit_mq"), **zone("a-haproxy-1", "haproxy"),
    **zone("a-ovn-1", "ovn"), **zone("b-ovn-1", "ovn"), **zone("b-haproxy-1", "haproxy", running=False), **zone("c-utility-1", "utility", running=False),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("leave"))


def named(calls: list, name: str) -> list:
    return [given for called, given in calls if called == name]


def test_a_control_host_stops_when_all_is_well(checkout: Checkout) -> None:
    mine = {**zone("d-galera-1", "galera", volumes={"data": {"path": "/v"}}), **zone("d-rabbit-mq-1", "rabbit_mq"), **zone("d-ovn-1", "ovn")}
    calls, _said = checkout.run("leave", {**OTHERS, **mine} | {name: one | {"running": True} for name, one in OTHERS.items()})
    records = named(calls, "host_records")
    assert [(one["host"], one["state"], one["network"]) for one in records] == [("d", "quiet", True)]
    assert {"nova_compute", "nova_conductor", "nova_scheduler"} <= set(records[0]["components"])
    assert "a-nova-compute-1" in records[0]["members"] and not [name for name in records[0]["members"] if name.startswith("d-")]
    assert [one["nodes"] for one in named(calls, "rabbitmq_broker")] and named(calls, "zonestack-ovn") == ["whole --wait 60"]
    assert named(calls, "haproxy_server")[0] == {"state": "up", "wait": 60}
    drained = {(one["name"], one["wait"]) for one in named(calls, "haproxy_server")[1:]}
    assert {("d-galera-1", 0), ("d-rabbit-mq-1", 20)} <= drained
    stopped = named(calls, "zones")[0]["zones"]
    assert {(one["state"], one["autostart"], one["backend"]) for one in stopped} == {("stopped", False, "lxc")}
    assert "d-ovn-1" in [one["name"] for one in stopped]


def test_a_host_without_which_there_is_no_majority_stays(checkout: Checkout) -> None:
    mine = {**zone("d-ovn-1", "ovn"), **zone("d-rabbit-mq-1", "rabbit_mq"), **zone("d-rabbit-mq-2", "rabbit_mq")}
    calls, said = checkout.run("leave", {**OTHERS, **mine} | {name: one | {"running": True} for name, one in OTHERS.items()}, rc=2)
    assert "d has 2 members of rabbit_mq, all others 2: these are no majority without it" in said
    assert {called for called, _given in calls} == {"zone_info"}


def test_data_that_is_nowhere_else_keeps_a_host(checkout: Checkout) -> None:
    images = {**OTHERS, **zone("d-glance-1", "glance", volumes={"images": {"path": "/v"}})}
    calls, said = checkout.run("leave", images, rc=2)
    assert "d has data that is nowhere else, of glance" in said and "--lose glance" in said
    assert {called for called, _given in calls} == {"zone_info"}


def test_a_dead_host_is_left_alone(checkout: Checkout) -> None:
    calls, _said = checkout.run("leave", OTHERS, leave_dead=True)
    assert [called for called, _given in calls] == ["zone_info"] * 3 + ["host_records"]
    calls, _said = checkout.run("forget", OTHERS, leave_dead=True)
    assert [called for called, _given in calls] == ["host_records", "rabbitmq_broker", "zonestack-ovn"]


def test_everything_of_a_host_is_forgotten(checkout: Checkout) -> None:
    calls, _said = checkout.run("forget", zone("d-nova-compute-1", "nova_compute", running=False))
    assert [called for called, _given in calls] == ["host_records", "rabbitmq_broker", "zonestack-ovn", "zone_info", "zones", "zone_image", "zone_info", "lxc_host"][
        : len(calls)
    ]
    assert named(calls, "host_records")[0]["state"] == "absent"
    queue = named(calls, "rabbitmq_broker")[0]
    assert queue["members"] == ["rabbit@a-rabbit-mq-1", "rabbit@b-rabbit-mq-1", "rabbit@c-rabbit-mq-1"]
    assert queue["abandoned"].startswith("(?<![a-z0-9-])d-(galera|") and "|nova-compute|" in queue["abandoned"]
    assert named(calls, "zonestack-ovn") == ["forget --wait 60"]
    assert [(one["name"], one["state"], one["purge"]) for one in named(calls, "zones")[0]["zones"]] == [("d-nova-compute-1", "absent", True)]
    assert named(calls, "lxc_host")[0]["state"] == "absent"
