# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken from a machine that no longer hosts zones, on a tree of its own."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.modules import lxc_host

PLACES = {
    "NETWORK_FOLDER": "etc/zonestack/network", "NETWORK_COMMAND": "usr/zonestack-network", "SYSCTL_FILE": "etc/sysctl.conf",
    "ZONES": "lxc", "OURS": "lxc/zonestack", "UNITS": "units", "LOCKS": "run",
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of deployments x and y, whose zones have gone. Its program for networks notes what it is asked to do."""
    for name, place in PLACES.items():
        monkeypatch.setattr(lxc_host, name, str(tmp_path / place))
    for path in (
        "etc/zonestack/network/x",
        "etc/zonestack/network/y",
        "etc/sysctl.conf",
        "lxc/zonestack/log/a.log",
        "lxc/other/config",
        "run/zonestack-zone-a.lock",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    command = tmp_path / "usr/zonestack-network"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\ntest -e {tmp_path}/etc/zonestack/network/"$2" && echo "$@" >>{tmp_path}/asked\n')
    command.chmod(0o755)
    return tmp_path


def take(deployment: str) -> list[str]:
    changes = []
    plan = lxc_host.removals({"deployment": deployment, "units": {"zonestack-network.service": ""}})
    for change in plan:
        change.apply()
        changes.append(str(change))
    return changes


def left(machine: Path) -> set[str]:
    return {str(path.relative_to(machine)) for path in machine.rglob("*") if path.is_file()} - {"asked"}


def test_a_deployment_goes_and_what_others_need_stays(machine: Path) -> None:
    before = left(machine)
    assert take("x") == ["network of x: there -> gone", f"file {machine}/etc/zonestack/network/x: there -> gone"]
    assert (machine / "asked").read_text() == "stop x\n"
    assert left(machine) == before - {"etc/zonestack/network/x"}
    assert take("x") == []


def test_with_the_last_one_all_that_is_ours_goes(machine: Path) -> None:
    take("x")
    assert len(take("y")) == 7
    assert left(machine) == {"lxc/other/config"}
    assert not (machine / "etc/zonestack").exists() and not (machine / "lxc/zonestack").exists()
    assert take("y") == []


def test_while_there_is_a_zone_its_ground_stays(machine: Path) -> None:
    take("x")
    (machine / "lxc/z-1").mkdir()
    (machine / "lxc/z-1/zone.json").write_text("{}")
    before = left(machine)
    assert len(take("y")) == 2
    assert left(machine) == before - {"etc/zonestack/network/y"}


def test_nothing_is_done_before_it_is_asked_for(machine: Path, run_module: t.Callable[..., dict[str, t.Any]]) -> None:
    options = {
        "packages": [],
        "sysctl": {},
        "directories": {},
        "deployment": "x",
        "bridges": [],
        "network_command": "",
        "units": {},
    }
    before = left(machine)
    told = run_module("lxc_host", {**options, "state": "absent", "_ansible_check_mode": True})
    assert told["changed"] and left(machine) == before
    done = run_module("lxc_host", {**options, "state": "absent"})
    assert done["diff"] == told["diff"] and left(machine) != before
    assert not run_module("lxc_host", {**options, "state": "absent"})["changed"]
