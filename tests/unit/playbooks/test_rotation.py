# SPDX-License-Identifier: GPL-3.0-or-later
"""A zone's change through Ansible, as playbooks/infrastructure.yml makes it, with load balancers that answer and such that do not.

The modules only note what they are asked; which load balancer answers, Ansible finds out by itself: one is at a port where nobody listens.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from .conftest import Checkout

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


class Rotation(Checkout):
    """A deployment whose zones' changes are those of playbooks/infrastructure.yml."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"haproxy_server": MODULE, "zones": MODULE}, ACTION)
        plays = yaml.safe_load((self.collection / "playbooks/infrastructure.yml").read_text())
        self.playbook = self.collection / "playbooks/change.yml"
        self.playbook.write_text(
            # the hooks ask the clusters themselves
            yaml.safe_dump([play for play in plays if play["hosts"] != "hook_prepare"], sort_keys=False)
        )
        self.describe(TOPOLOGY, {})

    def run(self, stale: str, *silent: str, arguments: tuple[str, ...] = (), rc: int = 0) -> tuple[list[str], str]:
        """What was asked of the stubs, and what Ansible said.

        :param stale: the zone whose daemon must restart; ``silent`` are the zones that are away.
        """
        away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_args": ""}
        for name in (
            "one",
            "two",
            "one-haproxy-1",
            "two-haproxy-1",
            "one-keystone-1",
            "two-keystone-1",
            "one-galera-1",
            "one-log-1",
        ):
            self.variables(f"host_vars/{name}", **(away if name in silent else {}))
        done = self.ansible(self.playbook, "-e", f"stale={stale}", *arguments, rc=rc, ANSIBLE_SHOW_CUSTOM_STATS="1")
        return self.lines, done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Rotation:
    return Rotation(tmp_path_factory.mktemp("rotation"))


def test_all_load_balancers_take_part(checkout: Rotation) -> None:
    calls, said = checkout.run("one-keystone-1")
    assert calls == [*["one-keystone-1 drained"] * 2, "zone changed", *["one-keystone-1 ready"] * 2]
    assert "silent_balancers" not in said


def test_one_that_is_away_takes_no_part_and_is_named(checkout: Rotation) -> None:
    calls, said = checkout.run("one-keystone-1", "two-haproxy-1")
    assert calls == ["one-keystone-1 drained", "zone changed", "one-keystone-1 ready"]
    assert re.search(r'"silent_balancers": \[\s*"two-haproxy-1"\s*\]', said), said


def test_nothing_is_changed_while_none_answers(checkout: Rotation) -> None:
    calls, said = checkout.run(
        "one-keystone-1", "one-haproxy-1", "two-haproxy-1", arguments=("--limit", "keystone"), rc=2
    )
    assert calls == []
    assert "No load balancer answers (one-haproxy-1, two-haproxy-1), so this zone cannot be drained" in " ".join(
        said.split()
    )


def test_zones_that_nobody_is_led_to_need_no_load_balancer(checkout: Rotation) -> None:
    calls, _said = checkout.run("one-log-1", "one-haproxy-1", "two-haproxy-1", arguments=("--limit", "log"))
    assert calls == ["zone changed"]
