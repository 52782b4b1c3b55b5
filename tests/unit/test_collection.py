# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as a user gets it: built from this checkout, installed, and used from elsewhere without its ansible.cfg."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import FUNCTIONS

pytestmark = pytest.mark.xdist_group("collection")  # built and installed once

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
DOCUMENTED = {
    "connection": {path.stem for path in (ROOT / "plugins/connection").glob("*.py")},
    "filter": {path.stem for path in (ROOT / "plugins/filter").glob("*.yml")},
    "inventory": {path.stem for path in (ROOT / "plugins/inventory").glob("*.py")},
    "module": {path.stem for path in (ROOT / "plugins/modules").glob("*.py")},
    "role": {path.parents[1].name for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")},
}

PRIVATE = (
    "inventory/aio/secrets.yml",
    "inventory/aio/topology.yml",
    "inventory/east/group_vars/all.yml",
    "inventory/example/secrets.yml",
    "logs/aio/run.log",
    ".venv/bin/python",
    ".cache/file",
    ".mypy_cache/file",
    "tests/output/file",
)
"""What a checkout in use holds beside the collection."""


class Installed:
    """An installed collection and a user's folder, with no trace of the checkout in the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.collections, self.home = folder, folder / "collections", folder / "home"
        self.home.mkdir()
        (self.home / "ansible.cfg").write_text("[defaults]\n")
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "ZONESTACK_", "PYTHON"))
        }
        self.environment = kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(self.home / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.home / ".ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_NOCOLOR": "1",
            "PYTHONPYCACHEPREFIX": os.environ["PYTHONPYCACHEPREFIX"],
        }

    def run(self, *command: str | Path, where: Path | None = None) -> str:
        """Run a command that must succeed without a word of warning; its stdout."""
        done = subprocess.run(
            command, cwd=where or self.home, env=self.environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    @property
    def archive(self) -> Path:
        return next(self.folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    made = Installed(tmp_path_factory.mktemp("collection"))
    source = made.folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    for name in PRIVATE:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("private\n")
    made.run("ansible-galaxy", "collection", "build", "--output-path", made.folder, where=source)
    made.run(
        "ansible-galaxy", "collection", "install", "--offline", "--collections-path", made.collections, made.archive
    )
    return made


@pytest.fixture(scope="module")
def topology(installed: Installed) -> Path:
    """The example, copied to where a user keeps deployments."""
    path = installed.home / "inventory/mine/topology.yml"
    path.parent.mkdir(parents=True)
    path.write_bytes((ROOT / "inventory/examples/aio/topology.yml").read_bytes())
    return path


def test_archive_holds_the_collection_and_nothing_private(installed: Installed) -> None:
    with tarfile.open(installed.archive) as archive:
        names = set(archive.getnames())
        texts = [archive.extractfile(one) for one in archive.getmembers() if one.isfile()]
        assert [text for text in texts if text and text.read() == b"private\n"] == []
    assert names & set(PRIVATE) == set()
    assert {
        "inventory/examples/aio/topology.yml",
        "locks/2026.2.txt",
        "services/_base.yml",
        "group_vars/zones.yml",
    } <= names
    tests = (
        "browser",
        "host",
        "integration",
        "scenario",
        "smartos_sim",
        "unit/smartos",
    )
    heavy = ("molecule/", "bench/", *(f"tests/{name}/" for name in tests))
    assert sorted(name for name in names if name.startswith(heavy)) == []


@pytest.mark.parametrize("kind", sorted(DOCUMENTED))
def test_documentation_of_every_plugin_and_role(installed: Installed, kind: str) -> None:
    names = {f"zonestack.openstack.{name}" for name in DOCUMENTED[kind]}
    assert names, "nothing to look for"
    listed = json.loads(installed.run("ansible-doc", "--type", kind, "--list", "--json", "zonestack.openstack"))
    assert set(listed) == names
    shown = json.loads(installed.run("ansible-doc", "--type", kind, "--json", *sorted(names)))
    assert set(shown) == names
    assert [name for name, one in shown.items() if not (one.get("doc") or one.get("entry_points"))] == []


def test_every_role_that_does_something_describes_its_arguments() -> None:
    roles = {path.parents[1].name for path in (ROOT / "roles").glob("*/tasks/main.yml")}
    assert roles - DOCUMENTED["role"] == set()


def test_inventory_of_a_deployment_elsewhere(installed: Installed, topology: Path) -> None:
    graph = installed.run("ansible-inventory", "--inventory", topology, "--graph")
    assert "--@keystone:" in graph and "--aio1-keystone-1" in graph and "--aio1-galera-3" in graph
    variables = json.loads(installed.run("ansible-inventory", "--inventory", topology, "--host", "aio1-keystone-1"))
    assert {"zone", "service", "stack"} <= set(variables)


def test_syntax_of_every_playbook_by_its_name(installed: Installed, topology: Path) -> None:
    names = [f"zonestack.openstack.{name}" for name in PLAYBOOKS]
    said = installed.run(
        "ansible-playbook",
        "--inventory",
        topology,
        "--syntax-check",
        "--extra-vars",
        "destroy=zones",
        "--extra-vars",
        "leave_host=aio1 leave_dead=false leave_lose=[]",
        *names,
    )
    folder = installed.collections / "ansible_collections/zonestack/openstack/playbooks"
    assert said.split() == [word for name in PLAYBOOKS for word in ("playbook:", str(folder / f"{name}.yml"))]


def test_who_a_task_is_delegated_to_is_there_in_every_deployment():
    """Ansible asks for that before it asks whether there is a task at all: a group that a deployment may lack needs a default."""
    lines = [
        line
        for file in (ROOT / "playbooks").rglob("*.yml")
        for line in file.read_text().splitlines()
        if "delegate_to:" in line
    ]
    assert len(lines) > 10
    groups = [(group, line.strip()) for line in lines for group in re.findall(r"groups\.(\w+(?: \| default\()?)", line)]
    # Every deployment has zones, hypervisors have conductors, and the inventory makes the group of each function, be it empty.
    there = ("zones", "nova_conductor", *(f"function_{function}" for function in FUNCTIONS))
    assert [line for group, line in groups if " " not in group and group not in there] == []
