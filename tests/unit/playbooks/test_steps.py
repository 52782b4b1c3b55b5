# SPDX-License-Identifier: GPL-3.0-or-later
"""The first play of playbooks/services.yml through Ansible: whose steps are taken. The module only says what it was given."""

from __future__ import annotations

from pathlib import Path

import yaml

from .conftest import Checkout

TOPOLOGY = """
release: "2026.2"
networks: {zone: {cidr: 10.77.0.0/21}}
hosts: {one: {id: 1, connection: local}}
services: {haproxy: , early: {count: 3}, late: {count: 2}}
"""
SERVICE = "description: Test\nslot: %d\nphase: %s\nsteps: [{name: step of %s, unless: 'false', run: 'true'}]\n"
STUB = """
import json
import os
from ansible.module_utils import basic

with open(os.environ["CALLS"], "a") as calls:
    calls.write("".join(one["name"] + "\\n" for one in basic._load_params()["steps"]))
print(json.dumps({"changed": False}))
raise SystemExit(0)
"""


def test_steps_are_taken_once_for_each_service_whenever_its_daemons_start(tmp_path: Path) -> None:
    """A cluster's steps want its daemons, which start with the infrastructure: they are taken like those of an API."""
    checkout = Checkout(tmp_path, {"zone_steps": STUB})
    checkout.describe(TOPOLOGY, {})
    for name, slot, phase in (("early", 40, "infrastructure"), ("late", 41, "control")):
        folder = checkout.deployment / "services" / name
        folder.mkdir(parents=True)
        (folder / "service.yml").write_text(SERVICE % (slot, phase, name))
    checkout.variables("group_vars/zones")
    plays = yaml.safe_load((checkout.collection / "playbooks/services.yml").read_text())
    alone = checkout.collection / "playbooks/alone.yml"
    alone.write_text(yaml.safe_dump(plays[:1]))
    checkout.ansible(alone)
    assert sorted(checkout.lines) == ["step of early", "step of late"]
