# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks run by Ansible itself, in a copy of the collection where stubs stand for what would change a machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]


class Checkout:
    """A copy of the collection, with stubs in the place of some modules, and a deployment, in the folder ``deployment``.

    A stub notes each of its calls as a line of the file ``$CALLS``.

    :param modules: text of each module by name, instead of the collection's own.
    :param action: text of the action zone_tree, which would run a program in a zone; by default the collection's own.
    """

    def __init__(self, folder: Path, modules: Mapping[str, str], action: str | None = None) -> None:
        self.folder = folder
        self.collection = folder / "ansible_collections/zonestack/openstack"
        for name in ("plugins", "playbooks", "services", "locks", "group_vars", "meta", "roles"):
            shutil.copytree(ROOT / name, self.collection / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("ansible.cfg", "galaxy.yml"):
            shutil.copy(ROOT / name, self.collection / name)
        for name, text in modules.items():
            (self.collection / f"plugins/modules/{name}.py").write_text(text)
        if action:
            (self.collection / "plugins/action/zone_tree.py").write_text(action)
        self.deployment = folder / "inventory/x"
        self.deployment.mkdir(parents=True)
        self._calls = folder / "calls"

    def describe(self, topology: str, secrets: Mapping[str, Any] | None = None) -> None:
        """Write the deployment's topology.yml and its secrets.yml, which is not there without ``secrets``."""
        (self.deployment / "topology.yml").write_text(topology)
        (self.deployment / "secrets.yml").unlink(missing_ok=True)
        if secrets is not None:
            (self.deployment / "secrets.yml").write_text(yaml.safe_dump({"secrets": secrets}))

    def variables(self, place: str, **values: object) -> None:
        """Write a file of variables, as ``host_vars/NAME``; they are reached on this machine unless ``values`` say otherwise."""
        path = self.deployment / f"{place}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            yaml.safe_dump({"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **values})
        )

    def ansible(
        self, playbook: str | Path, *arguments: str, rc: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the collection's playbooks, or another file; it must end with ``rc``."""
        self._calls.write_text("")
        where = self.collection / f"playbooks/{playbook}.yml" if isinstance(playbook, str) else playbook
        settings = {
            "ANSIBLE_CONFIG": str(self.collection / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(self.folder), "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "CALLS": str(self._calls),
        }  # fmt: skip
        argv = [
            Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            self.deployment / "topology.yml",
            *arguments,
            where,
        ]
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=os.environ | settings | environment,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == rc, done.stdout + done.stderr
        return done

    @property
    def lines(self) -> list[str]:
        """What the stubs of the last run have noted."""
        return self._calls.read_text().splitlines()

    @property
    def calls(self) -> list[Any]:
        """The same, where each line is JSON."""
        return [json.loads(line) for line in self.lines]
