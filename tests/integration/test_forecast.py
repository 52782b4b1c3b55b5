# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a first run on this machine: Ansible, the playbooks and the modules are the real ones, and nothing may be other than before.

Needs root, as a run does. What lies beyond the first zones needs a cloud: tests/unit/scripts/test_forecast.py has it from the modules' code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

import ansible_collections.zonestack.openstack as openstack
from cloud import load
from deployment import ROOT, Deployment
from options import STEPS, parser
from run import plan

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

TOPOLOGY = """\
plugin: zonestack.openstack.topology
release: "2026.2"
networks: {zone: {cidr: 10.97.0.0/21, bridge: zs-plan}}
hosts: {here: {id: 1, connection: local, store: dir}}
services: {memcached: {count: 2}, haproxy: , galera: {count: 1}}
"""
FOLDERS = ("/etc", "/usr/local", "/var/lib/lxc", "/var/lib/dpkg", "/root")


def machine() -> dict[str, t.Any]:
    """What a run would change here: files, packages, network, kernel settings."""
    found: dict[str, t.Any] = {}
    for folder in FOLDERS:
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name not in ("proc", ".ansible", ".cache", ".pyenv", ".npm")]
            for name in names:
                now = os.lstat(os.path.join(parent, name))
                found[os.path.join(parent, name)] = (now.st_mtime_ns, now.st_size, now.st_mode)
            found[parent] = os.lstat(parent).st_mode
    for command in (
        ["ip", "-oneline", "link"],
        ["ip", "-oneline", "-4", "address"],
        ["nft", "list", "tables"],
        ["sysctl", "fs.inotify", "net.ipv4.ip_forward"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        # Host containers of scenarios come and go beside this, and with them their interfaces and the address of their bridge.
        found[" ".join(command)] = [
            line for line in done.stdout.splitlines() if "veth" not in line and "zstest" not in line
        ]
    return found


def test_plan_of_a_first_run_tells_all_of_it_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "ANSIBLE_CONFIG": ROOT / "ansible.cfg",
        "ANSIBLE_COLLECTIONS_PATH": Path(openstack.__path__[0]).parents[2],
        "ANSIBLE_HOME": tmp_path / "home",
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
    }.items():
        monkeypatch.setenv(name, str(value))
    deployment = Deployment("plan", tmp_path)
    deployment.folder.mkdir(parents=True)
    deployment.topology.write_text(TOPOLOGY)
    deployment.logs.mkdir(parents=True)
    before = machine()
    rc = plan(deployment, load(deployment), parser().parse_args(["--plan", "--json"]), list(STEPS), None)
    after = machine()
    found = json.loads(capsys.readouterr().out)

    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == set()
    assert [path.name for path in deployment.folder.iterdir()] == ["topology.yml"], "no secret is generated"
    assert {path.suffix for path in deployment.logs.iterdir()} == {".log"}, (
        "nothing is remembered of it, for --resume or as a proof"
    )
    assert rc == 0 and found["unknown"] == []
    assert found["counts"] == {
        "create": 4,
        "rebuild": 0,
        "start": 0,
        "restart": 0,
        "change": 0,
        "daemons": 0,
        "remove": 0,
    }
    here = found["hosts"]["here"]
    assert any(
        reason.startswith("network of plan: bridge zs-plan with 10.97.2.1/21: missing") for reason in here["reasons"]
    )
    assert {image.partition("-")[0] for image in here["images"]} == {"base", "galera", "haproxy", "memcached"}
    assert list(here["zones"]) == ["here-memcached-1", "here-memcached-2", "here-haproxy-1", "here-galera-1"]
    galera = here["zones"]["here-galera-1"]
    assert galera["action"] == "create" and galera["reasons"][1:] == ["2048 MiB", "10.97.2.16"]
    assert "secrets.haproxy.statistics_password" in found["secrets"]
    assert not any("/etc/haproxy" in path for zone in here["zones"].values() for path in zone["files"])
