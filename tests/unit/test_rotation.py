# SPDX-License-Identifier: GPL-3.0-or-later
"""A zone's change through Ansible, as playbooks/infrastructure.yml makes it, with load balancers that answer and such that do not.

The modules only note what they are asked; which load balancer answers, Ansible finds out by itself: one is at a port where nobody listens.
"""

from __future__ import annotations

import os
import re
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
  one: {id: 1, address: 192.0.2.11}
  two: {id: 2, address: 192.0.2.12}
services:
  haproxy: {count: 2}
  galera: {count: 1}
  log:
  memcached:
  keystone: {count: 2}
"""

MODULE = """
import os
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({"name": {"default": ""}, "state": {}, "others": {"type": "int"}, "members": {"type": "list"}, "wait": {"type": "int"}, "zones": {"type": "list"}},
                       supports_check_mode=True)
with open(os.environ["CALLS"], "a") as calls:
    calls.write("%s %s\\n" % (module.params["name"] or "zone", module.params["state"] or "changed"))
module.exit_json(changed=False)
"""

ACTION = """
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        stale = task_vars["zone"]["name"] in task_vars["stale"] and not self._task.args.get("restart")
        return {"changed": False, "waiting": [], "restart": ["x.service"] if stale else []}
"""


class Checkout:
    """The collection with stubs in the place of what would change a zone, and a deployment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.collection = folder / "ansible_collections/zonestack/openstack"
        for name in ("plugins", "playbooks", "services", "locks", "group_vars", "meta", "roles"):
            shutil.copytree(ROOT / name, self.collection / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("ansible.cfg", "galaxy.yml"):
            shutil.copy(ROOT / name, self.collection / name)
        for name in ("haproxy_server", "zones"):
            (self.collection / f"plugins/modules/{name}.py").write_text(MODULE)
        (self.collection / "plugins/action/zone_tree.py").write_text(ACTION)
        plays = yaml.safe_load((self.collection / "playbooks/infrastructure.yml").read_text())
        clusters = ("galera", "rabbit_mq", "ovn")    # their roles ask the clusters themselves
        self.playbook = self.collection / "playbooks/change.yml"
        self.playbook.write_text(yaml.safe_dump([play for play in plays if play["hosts"] not in clusters], sort_keys=False))
        self.topology = folder / "inventory/x/topology.yml"
        self.topology.parent.mkdir(parents=True)
        self.topology.write_text(TOPOLOGY)
        (self.topology.parent / "secrets.yml").write_text("secrets: {}\n")
        (self.topology.parent / "host_vars").mkdir()

    def run(self, stale: str, *silent: str, arguments: tuple[str, ...] = (), rc: int = 0) -> tuple[list[str], str]:
        """What was asked of the stubs, and what Ansible said.

        :param stale: the zone whose daemon must restart; ``silent`` are the zones that are away.
        """
        for zone in ("one-haproxy-1", "two-haproxy-1", "one-keystone-1", "two-keystone-1", "one-galera-1", "one-log-1"):
            away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_args": ""}
            way = away if zone in silent else {"ansible_connection": "local"}
            (self.topology.parent / f"host_vars/{zone}.yml").write_text(yaml.safe_dump({**way, "ansible_python_interpreter": sys.executable}))
        (self.topology.parent / "host_vars/one.yml").write_text("ansible_connection: local\n")
        shutil.copy(self.topology.parent / "host_vars/one.yml", self.topology.parent / "host_vars/two.yml")
        calls = self.folder / "calls"
        calls.write_text("")
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(self.collection / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
            "ANSIBLE_HOME": str(self.folder / "home"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SHOW_CUSTOM_STATS": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "CALLS": str(calls),
        }  # fmt: skip
        argv = [Path(sys.executable).with_name("ansible-playbook"), "-i", self.topology, "-e", f"stale={stale}", *arguments, self.playbook]
        done = subprocess.run(argv, cwd=self.folder, env=environment, text=True, capture_output=True, timeout=120, check=False)
        assert done.returncode == rc, done.stdout + done.stderr
        return calls.read_text().splitlines(), done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("rotation"))


def test_all_load_balancers_take_part(checkout: Checkout) -> None:
    calls, said = checkout.run("one-keystone-1")
    assert calls == [*["one-keystone-1 drained"] * 2, "zone changed", *["one-keystone-1 ready"] * 2]
    assert "silent_balancers" not in said


def test_one_that_is_away_takes_no_part_and_is_named(checkout: Checkout) -> None:
    calls, said = checkout.run("one-keystone-1", "two-haproxy-1")
    assert calls == ["one-keystone-1 drained", "zone changed", "one-keystone-1 ready"]
    assert re.search(r'"silent_balancers": \[\s*"two-haproxy-1"\s*\]', said), said


def test_nothing_is_changed_while_none_answers(checkout: Checkout) -> None:
    calls, said = checkout.run("one-keystone-1", "one-haproxy-1", "two-haproxy-1", arguments=("--limit", "keystone"), rc=2)
    assert calls == []
    assert "no load balancer answers (one-haproxy-1, two-haproxy-1), so this zone cannot be taken out of rotation" in " ".join(said.split())


def test_zones_that_nobody_is_led_to_need_no_load_balancer(checkout: Checkout) -> None:
    calls, _said = checkout.run("one-log-1", "one-haproxy-1", "two-haproxy-1", arguments=("--limit", "log"))
    assert calls == ["zone changed"]
