# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken from a machine that no longer hosts zones, on a tree of its own."""

from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.host import found
from ansible_collections.zonestack.openstack.plugins.modules import lxc_host

PLACES = {
    "NETWORK_FOLDER": "etc/zonestack/network", "NETWORK_COMMAND": "usr/zonestack-network", "SYSCTL_FILE": "etc/sysctl.conf",
    "ZONES": "lxc", "OURS": "lxc/zonestack", "UNITS": "units", "LOCKS": "run", "FILE": "state/found.json", "APT": "state/apt", "DEBS": "state/debs",
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of deployments x and y, whose zones have gone. Its program for networks notes what it is asked to do."""
    for name, place in PLACES.items():
        monkeypatch.setattr(lxc_host, name, str(tmp_path / place))
    monkeypatch.setattr(found, "FILE", str(tmp_path / PLACES["FILE"]))
    monkeypatch.setattr(lxc_host, "sysctl_path", lambda name: str(tmp_path / "sys" / name))
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


def take(deployment: str, kept: list[str] | None = None) -> list[str]:
    changes = []
    given = {
        "deployment": deployment,
        "units": {"zonestack-network.service": ""},
        "kept": [] if kept is None else kept,
        "check": False,
    }
    plan = lxc_host.removals(given)
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
    assert len(take("y")) == 8
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


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Path]:
    """Kernel settings on a file system that is read-only, as /proc/sys is in a container, where the test may make one."""
    settings = tmp_path / "proc"
    settings.mkdir()
    monkeypatch.setattr(lxc_host, "sysctl_path", lambda name: str(settings / name))
    monkeypatch.setattr(lxc_host, "SYSCTL_FILE", str(tmp_path / "etc/60-zonestack.conf"))
    for name, value in {"fs.inotify.max_user_instances": 136, "fs.inotify.max_user_watches": 190000}.items():
        (settings / name).write_text(f"{value}\n")
    subprocess.run(["mount", "--bind", settings, settings], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", settings], check=True)
        yield settings
    finally:
        subprocess.run(["umount", settings], check=True)


WANTED = {"fs.inotify.max_user_instances": 8192, "fs.inotify.max_user_watches": 524288, "not.there": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a read-only mount")
def test_what_cannot_be_raised_and_is_enough_stays(proc: Path) -> None:
    kept: list[str] = []
    for change in (first := list(lxc_host.sysctl_changes(WANTED, 30, kept))):
        change.apply()
    assert [change.what for change in first] == [f"file {lxc_host.SYSCTL_FILE}"]
    assert kept[0] == (
        "fs.inotify.max_user_instances is 136 and cannot be raised to 8192 (Read-only file system): enough for 30 zones."
    )
    assert list(lxc_host.sysctl_changes(WANTED, 30)) == [], "a second run is silent"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a read-only mount")
def test_what_cannot_be_raised_and_is_too_little_is_refused(proc: Path) -> None:
    with pytest.raises(
        CommandError,
        match="It is 136, and 31 zones need 140.* outer host: sysctl -w fs.inotify.max_user_instances=8192",
    ):
        list(lxc_host.sysctl_changes(WANTED, 31))
    assert not Path(lxc_host.SYSCTL_FILE).exists()


def test_data_of_another_deployment_keeps_its_ground(machine: Path) -> None:
    take("x")
    (machine / "lxc/zonestack/volumes/x1-galera-1/data").mkdir(parents=True)
    before, kept = left(machine), []
    assert len(take("y", kept)) == 2
    assert left(machine) == before - {"etc/zonestack/network/y"}
    assert kept == ["This host keeps what zones need, as it still has data of zones x1-galera-1."]


def test_what_was_there_before_comes_back(machine: Path) -> None:
    take("x")
    (machine / "sys").mkdir()
    for name, value in (("raised", 128), ("changed-since", 5)):
        (machine / "sys" / name).write_text(f"{value}\n")
        lxc_host.raise_sysctl(name, 8192)
        lxc_host.raise_sysctl(name, 9000)
    (machine / "sys/changed-since").write_text("77777\n")
    ids, folder = machine / "subuid", machine / "lxc"
    ids.write_text("someone:200000:65536\n")
    folder.chmod(0o700)
    for change in (*lxc_host.id_changes(str(ids)), *lxc_host.directory_changes({str(folder): "0755"})):
        change.apply()
    assert "root:100000:65536" in ids.read_text() and folder.stat().st_mode & 0o777 == 0o755
    take("y")
    assert (machine / "sys/raised").read_text() == "128\n"
    assert (machine / "sys/changed-since").read_text() == "77777\n", "what somebody else has set stays"
    assert ids.read_text() == "someone:200000:65536\n"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not (machine / "state").exists()


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
