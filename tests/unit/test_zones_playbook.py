# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/zones.yml through Ansible: which zones are made by which call, and which stop. The modules only say what they were given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.zone_options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]

TOPOLOGY = """
release: "2026.2"
networks:
  zone: {cidr: 10.77.0.0/21, interface: eth1}
hosts:
  one: {id: 1, connection: local}
  lx-02: {id: 2, address: 192.0.2.12}
services:
  galera: {count: 3}
  memcached:
  haproxy:
"""

STUB = """
import json
import os
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({"zones": {"type": "list", "elements": "dict"}}, supports_check_mode=True)
given = module.params["zones"]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps({"zones": given, "check": module.check_mode}) + "\\n")
results = {one["name"]: {"changed": False, "pending": ["image"] if one["name"].endswith("2") else []} for one in given}
if os.environ["BROKEN"] in results:
    results[os.environ["BROKEN"]] = {"changed": False, "failed": True, "msg": "no"}
    module.fail_json(msg="broken", zones=results)
module.exit_json(changed=False, zones=results)
"""

THERE = """
import json
import os
from ansible.module_utils import basic

# Whose zones it is asked for, only the name of the temporary folder tells.
host = basic._load_params()["_ansible_remote_tmp"].rpartition("-of-")[2]
zones = {name: one for name, one in json.loads(os.environ["THERE"]).items() if name.startswith(host + "-")}
print(json.dumps({"changed": False, "zones": zones}))
raise SystemExit(0)
"""

ROTATION = """
import json
import os
from ansible.module_utils import basic

given = basic._load_params()
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps({"zones": [], "rotation": given["name"], "wait": given["wait"], "state": given["state"]}) + "\\n")
print(json.dumps({"changed": False}))
raise SystemExit(0)
"""

SHOW = """
- import_playbook: {zones}
- hosts: zones_stale
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {{msg: "stale {{{{ zone.name }}}}"}}
      when: "'zones_stale' in group_names"
"""


class Checkout:
    """The collection with the stub in the place of its module, and a deployment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        collection = folder / "ansible_collections/zonestack/openstack"
        for name in ("plugins", "playbooks", "services", "locks", "group_vars", "meta"):
            shutil.copytree(ROOT / name, collection / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("ansible.cfg", "galaxy.yml"):
            shutil.copy(ROOT / name, collection / name)
        for name, text in (("zones", STUB), ("zone_info", THERE), ("haproxy_server", ROTATION)):
            (collection / f"plugins/modules/{name}.py").write_text(text)
        self.topology = folder / "inventory/x/topology.yml"
        self.topology.parent.mkdir(parents=True)
        self.topology.write_text(TOPOLOGY)
        (self.topology.parent / "host_vars").mkdir()
        for name in ("one", "lx-02", "one-haproxy-1"):
            here = f"ansible_connection: local\nansible_remote_tmp: {folder}/tmp-of-{name}\nansible_python_interpreter: {sys.executable}\n"
            (self.topology.parent / f"host_vars/{name}.yml").write_text(here)
        self.playbook = folder / "show.yml"
        self.playbook.write_text(SHOW.format(zones=collection / "playbooks/zones.yml"))
        self.calls_file = folder / "calls"
        self.cfg = collection / "ansible.cfg"

    def run(self, *arguments: str, broken: str = "nobody", rc: int = 0, there: dict | None = None) -> str:
        self.calls_file.write_text("")
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(self.cfg),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "CALLS": str(self.calls_file),
            "BROKEN": broken,
            "THERE": json.dumps(there or {}),
        }
        argv = [Path(sys.executable).with_name("ansible-playbook"), "--inventory", self.topology, *arguments, self.playbook]
        done = subprocess.run(argv, cwd=self.folder, env=environment, text=True, capture_output=True, timeout=120, check=False)
        assert done.returncode == rc, done.stdout + done.stderr
        assert "[WARNING]" not in done.stdout + done.stderr
        return done.stdout

    @property
    def calls(self) -> list[dict]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    @property
    def together(self) -> list[list[str]]:
        """The names of each call, in the order of their first."""
        return sorted([one["name"] for one in call["zones"]] for call in self.calls)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("zones"))


def test_one_call_makes_all_zones_of_a_host(checkout: Checkout) -> None:
    output = checkout.run()
    assert checkout.together == [["lx-02-galera-1"], ["one-galera-1", "one-galera-2", "one-memcached-1", "one-haproxy-1"]]
    zone = next(one for call in checkout.calls for one in call["zones"] if one["name"] == "one-galera-1")
    assert zone.keys() <= OPTIONS.keys()
    assert zone["disruptive"] is False and zone["networks"][0]["name"] == "eth0" and zone["metadata"]["component"] == "galera"
    assert isinstance(zone["memory"], int) and zone["image"].startswith("galera-")
    assert "stale one-galera-2" in output and "stale one-galera-1" not in output


@pytest.mark.parametrize(
    ("limit", "together"),
    [
        ("galera", [["lx-02-galera-1"], ["one-galera-1", "one-galera-2"]]),
        ("memcached,zone_hosts", [["one-memcached-1"]]),
        ("one-galera-2", [["one-galera-2"]]),
        ("one", []),
    ],
)
def test_a_limit_holds(checkout: Checkout, limit: str, together: list[list[str]]) -> None:
    checkout.run("--limit", limit)
    assert checkout.together == together


def test_check_mode_asks_for_the_same(checkout: Checkout) -> None:
    output = checkout.run("--check")
    assert len(checkout.together) == 2 and all(call["check"] for call in checkout.calls)
    assert "stale one-galera-2" in output


def test_a_failed_zone_fails_the_run(checkout: Checkout) -> None:
    output = checkout.run(broken="one-memcached-1", rc=2)
    assert len(checkout.together) == 2
    assert "broken" in output


def zone(name: str, component: str, *, running: bool = True, **more: object) -> dict:
    described = {"name": name, "uuid": name, "metadata": {"component": component}, "volumes": {}, **more}
    return {name: {"uuid": name, "running": running, "described": described}}


MEMBERS = {**zone("one-galera-1", "galera"), **zone("one-galera-2", "galera"), **zone("one-haproxy-1", "haproxy")}


def test_what_topology_has_no_more_leaves_its_rotation_and_stops(checkout: Checkout) -> None:
    data = {"data": {"path": "/var/lib/mysql"}}
    moved = {**zone("one-galera-3", "galera", volumes=data), **zone("one-memcached-2", "memcached"), **zone("lx-02-memcached-1", "memcached", running=False)}
    checkout.run(there={**MEMBERS, **moved})
    assert [(one["rotation"], one["wait"], one["state"]) for one in checkout.calls if "rotation" in one] == [
        ("one-galera-3", 0, "drained"), ("one-memcached-2", 20, "drained"),
    ]  # fmt: skip
    stopped = [one for call in checkout.calls for one in call["zones"] if one.get("state") == "stopped"]
    assert sorted((one["name"], one["autostart"], one["backend"]) for one in stopped) == [
        ("lx-02-memcached-1", False, "lxc"), ("one-galera-3", False, "lxc"), ("one-memcached-2", False, "lxc"),
    ]  # fmt: skip
    assert checkout.calls[-1]["zones"][0].get("state") != "stopped", "zones are made when those have stopped"


def test_with_a_limit_nothing_is_stopped(checkout: Checkout) -> None:
    checkout.run("--limit", "one,one-galera-1", there={**MEMBERS, **zone("one-memcached-2", "memcached")})
    assert checkout.together == [["one-galera-1"]]


def test_data_that_is_nowhere_else_ends_the_run(checkout: Checkout) -> None:
    said = checkout.run(rc=2, there={**MEMBERS, **zone("lx-02-glance-1", "glance", volumes={"images": {"path": "/var/lib/glance"}})})
    assert "lx-02-glance-1: topology.yml has no such zone any more, and its data is nowhere else. Give glance its hosts" in said
    assert checkout.calls == []


def test_members_without_which_there_is_no_majority_end_the_run(checkout: Checkout) -> None:
    moved = {**zone("one-galera-3", "galera"), **zone("one-galera-4", "galera")}
    said = checkout.run(rc=2, there={**MEMBERS, **moved})
    assert "those which stay (one-galera-1, one-galera-2) are no majority without them" in said
    assert checkout.calls == []
