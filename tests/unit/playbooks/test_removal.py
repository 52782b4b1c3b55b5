# SPDX-License-Identifier: GPL-3.0-or-later
"""The last play of playbooks/services.yml through Ansible: zones that topology.yml has no more stop, are forgotten, and go, in this order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from .conftest import Checkout

TOPOLOGY = """
release: "2026.2"
networks: {zone: {cidr: 10.77.0.0/21}}
hosts: {one: {id: 1, connection: local}}
services: {haproxy: , voters: {count: 3}}
"""
SERVICE = "description: Test\nslot: 40\nquorum: true\ndata: copied\nlisten: {voters: {port: 4711}}\n"
FORGET = """
- name: Forget
  zonestack.openstack.host_records: {host: "{{ gone_zones | join(' ') }}", components: [], members: [], state: absent}
"""
STUB = """
import json
import os
from ansible.module_utils import basic

params = basic._load_params()
given = {key: value for key, value in params.items() if not key.startswith("_ansible")}
name = "NAME"
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([name, given, params["_ansible_check_mode"]]) + "\\n")
print(json.dumps({"changed": False, **({"zones": json.loads(os.environ["THERE"])} if name == "zone_info" else {})}))
raise SystemExit(0)
"""
NAMES = ["one-haproxy-1", *(f"one-voters-{number}" for number in range(1, 6))]
GOING = ["one-voters-4", "one-voters-5"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A deployment with a site's own cluster, whose hook notes what it is to forget; ``alone.yml`` is that play."""
    stubs = {name: STUB.replace("NAME", name) for name in ("zone_info", "zones", "haproxy_server", "host_records")}
    made = Checkout(tmp_path_factory.mktemp("removal"), stubs)
    made.describe(TOPOLOGY, {})
    folder = made.deployment / "services/voters"
    (folder / "tasks").mkdir(parents=True)
    (folder / "service.yml").write_text(SERVICE)
    (folder / "tasks/forget.yml").write_text(FORGET)
    for group in ("zones", "zone_hosts"):
        made.variables(f"group_vars/{group}")
    plays = yaml.safe_load((made.collection / "playbooks/services.yml").read_text())
    (made.collection / "playbooks/alone.yml").write_text(yaml.safe_dump(plays[-1:]))
    return made


def removal(checkout: Checkout, running: list[str], *arguments: str) -> list[str]:
    """What was asked of the stubs, a line for each call."""
    there = {
        name: {
            "uuid": name,
            "running": name in running,
            "described": {
                "name": name,
                "metadata": {"component": name.split("-")[1]},
                "volumes": {"data": {"path": "/v"}},
            },
        }
        for name in NAMES
    }
    checkout.ansible(Path(checkout.collection / "playbooks/alone.yml"), *arguments, THERE=json.dumps(there))
    shown = []
    for name, given, _check in checkout.calls:
        if name == "zones":
            shown += [f"{one['state']} {one['name']}{' purge' if one.get('purge') else ''}" for one in given["zones"]]
        elif name == "haproxy_server":
            shown.append(f"{given['state']} {given['name']}")
        elif name == "host_records":
            shown.append(f"forget {given['host']}")
    return shown


def test_zones_that_run_are_stopped_before_their_cluster_forgets_them(checkout: Checkout) -> None:
    """So the step ``services`` is right alone: it is the step ``zones`` that stops them in a whole run."""
    assert removal(checkout, NAMES) == [
        *(f"drained {name}" for name in GOING),
        *(f"stopped {name}" for name in GOING),
        "forget one-voters-4 one-voters-5",
        *(f"absent {name} purge" for name in GOING),
    ]


def test_zones_that_have_stopped_are_not_drained(checkout: Checkout) -> None:
    running = [name for name in NAMES if name not in GOING]
    assert [line.split()[0] for line in removal(checkout, running)] == [
        "stopped",
        "stopped",
        "forget",
        "absent",
        "absent",
    ]


def test_check_mode_tells_of_the_removal_alone(checkout: Checkout) -> None:
    lines = removal(checkout, NAMES, "--check")
    assert [line for line in lines if line.split()[0] in ("stopped", "absent")] == [
        f"absent {name} purge" for name in GOING
    ]
