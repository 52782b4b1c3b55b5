# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/zones.yml through Ansible: which zones are made by which call, and which stop. The modules only say what they were given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.options import OPTIONS

from .conftest import Checkout

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


class Zones(Checkout):
    """A deployment, and a playbook that shows what playbooks/zones.yml finds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"zones": STUB, "zone_info": THERE, "haproxy_server": ROTATION})
        self.describe(TOPOLOGY)
        for name in ("one", "lx-02", "one-haproxy-1"):
            self.variables(f"host_vars/{name}", ansible_remote_tmp=f"{folder}/tmp-of-{name}")
        self.playbook = folder / "show.yml"
        self.playbook.write_text(SHOW.format(zones=self.collection / "playbooks/zones.yml"))

    def run(self, *arguments: str, broken: str = "nobody", rc: int = 0, there: dict | None = None) -> str:
        """What Ansible said."""
        done = self.ansible(self.playbook, *arguments, rc=rc, BROKEN=broken, THERE=json.dumps(there or {}))
        assert "[WARNING]" not in done.stdout + done.stderr
        return done.stdout

    @property
    def together(self) -> list[list[str]]:
        """The names of each call, in the order of their first."""
        return sorted([one["name"] for one in call["zones"]] for call in self.calls)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Zones:
    return Zones(tmp_path_factory.mktemp("zones"))


def test_one_call_makes_all_zones_of_a_host(checkout: Zones) -> None:
    output = checkout.run()
    assert checkout.together == [
        ["lx-02-galera-1"],
        ["one-galera-1", "one-galera-2", "one-memcached-1", "one-haproxy-1"],
    ]
    zone = next(one for call in checkout.calls for one in call["zones"] if one["name"] == "one-galera-1")
    assert zone.keys() <= OPTIONS.keys()
    assert (
        zone["disruptive"] is False
        and zone["networks"][0]["name"] == "eth0"
        and zone["metadata"]["component"] == "galera"
    )
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
def test_a_limit_holds(checkout: Zones, limit: str, together: list[list[str]]) -> None:
    checkout.run("--limit", limit)
    assert checkout.together == together


def test_check_mode_asks_for_the_same(checkout: Zones) -> None:
    output = checkout.run("--check")
    assert len(checkout.together) == 2 and all(call["check"] for call in checkout.calls)
    assert "stale one-galera-2" in output


def test_a_failed_zone_fails_the_run(checkout: Zones) -> None:
    output = checkout.run(broken="one-memcached-1", rc=2)
    assert len(checkout.together) == 2
    assert "broken" in output


def zone(name: str, component: str, *, running: bool = True, **more: object) -> dict:
    described = {"name": name, "uuid": name, "metadata": {"component": component}, "volumes": {}, **more}
    return {name: {"uuid": name, "running": running, "described": described}}


MEMBERS = {**zone("one-galera-1", "galera"), **zone("one-galera-2", "galera"), **zone("one-haproxy-1", "haproxy")}


def test_what_topology_has_no_more_leaves_its_rotation_and_stops(checkout: Zones) -> None:
    data = {"data": {"path": "/var/lib/mysql"}}
    moved = {
        **zone("one-galera-3", "galera", volumes=data),
        **zone("one-memcached-2", "memcached"),
        **zone("lx-02-memcached-1", "memcached", running=False),
    }
    checkout.run(there={**MEMBERS, **moved})
    assert [(one["rotation"], one["wait"], one["state"]) for one in checkout.calls if "rotation" in one] == [
        ("one-galera-3", 0, "drained"), ("one-memcached-2", 0, "drained"),
    ]  # fmt: skip
    stopped = [one for call in checkout.calls for one in call["zones"] if one.get("state") == "stopped"]
    assert sorted((one["name"], one["autostart"], one["backend"]) for one in stopped) == [
        ("lx-02-memcached-1", False, "lxc"), ("one-galera-3", False, "lxc"), ("one-memcached-2", False, "lxc"),
    ]  # fmt: skip
    assert checkout.calls[-1]["zones"][0].get("state") != "stopped", "zones are made when those have stopped"


def test_with_a_limit_nothing_is_stopped(checkout: Zones) -> None:
    checkout.run("--limit", "one,one-galera-1", there={**MEMBERS, **zone("one-memcached-2", "memcached")})
    assert checkout.together == [["one-galera-1"]]


def test_data_that_is_nowhere_else_ends_the_run(checkout: Zones) -> None:
    said = checkout.run(
        rc=2, there={**MEMBERS, **zone("lx-02-glance-1", "glance", volumes={"images": {"path": "/var/lib/glance"}})}
    )
    assert (
        "lx-02-glance-1: not in topology.yml any more, but no other zone has its data. To keep the data, restore the hosts"
        in said
    )
    assert checkout.calls == []


def test_members_without_which_there_is_no_majority_end_the_run(checkout: Zones) -> None:
    moved = {**zone("one-galera-3", "galera"), **zone("one-galera-4", "galera")}
    said = checkout.run(rc=2, there={**MEMBERS, **moved})
    assert "the members of galera that stay (one-galera-1, one-galera-2) are not a majority" in said
    assert checkout.calls == []
