# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding zones by name, and the commands that enter them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloud import Cloud, Zone
from deployment import ROOT, DeploymentError
from destroy import zones_of
from zone_shell import command_for, find


def zone(name: str, host: str, address: str | None = None, user: str | None = None, port: int | None = None) -> Zone:
    return Zone(name, "uuid", host, address, user, port, "lxc")


ZONES = {
    made.name: made
    for made in (
        zone("aio1-rabbit-mq-1", "aio1"),
        zone("lx01-rabbit-mq-1", "lx01", "192.0.2.10", "deploy", 2222),
        zone("aio1-keystone-1", "aio1"),
    )
}
CLOUD = Cloud(
    "test", ["aio1", "lx01"], {"rabbit_mq": list(ZONES)[:2], "keystone": ["aio1-keystone-1"]}, ZONES, [], {}, {}
)


@pytest.mark.parametrize(
    ("name", "number", "found"),
    [
        ("aio1-keystone-1", 1, "aio1-keystone-1"),
        ("keystone", 1, "aio1-keystone-1"),
        ("rabbit_mq", 2, "lx01-rabbit-mq-1"),
        ("rabbit-mq", 1, "aio1-rabbit-mq-1"),
    ],
)
def test_find_by_zone_service_and_number(name: str, number: int, found: str) -> None:
    assert find(CLOUD, name, number).name == found


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("nova", 1, "services: keystone, rabbit_mq\nzones: aio1-rabbit-mq-1"),
        ("keystone", 2, "keystone has 1 zones, 1 to 1"),
        ("", 1, "services:"),
    ],
)
def test_find_lists_the_choices(name: str, number: int, message: str) -> None:
    with pytest.raises(DeploymentError, match=re.escape(message)):
        find(CLOUD, name, number)


def test_local_zone_is_entered_at_once() -> None:
    argv = command_for(ZONES["aio1-keystone-1"], ["echo", "a b"], True, 0, "xterm")
    assert argv[:3] == ["lxc-attach", "--name", "aio1-keystone-1"]
    assert argv[-2:] == ["echo", "a b"]
    assert command_for(ZONES["aio1-keystone-1"], [], True, 1000, "xterm")[0] == "sudo"


def test_remote_command_survives_the_remote_shell(tmp_path: Path) -> None:
    argv = command_for(ZONES["lx01-rabbit-mq-1"], ["printf", "%s|", "a  b", "$HOME", "it's"], False, 0, "xterm")
    assert argv[:5] == ["ssh", "-p", "2222", "deploy@192.0.2.10", "--"]
    # what ssh hands to the remote shell, with lxc-attach and sudo replaced by programs that run what follows `--`
    for name in ("sudo", "lxc-attach"):
        (tmp_path / name).write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n')
        (tmp_path / name).chmod(0o755)
    shell = subprocess.run(
        ["sh", "-c", argv[5]], capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False
    )
    assert shell.stdout == "a  b|$HOME|it's|", shell.stderr


def test_zone_of_smartos_is_entered_with_one_argument(tmp_path: Path) -> None:
    """zlogin joins several without quoting them."""
    far = Zone("gz1-keystone-1", "1f0e", "gz1", "192.0.2.11", "root", None, "smartos")
    argv = command_for(far, ["printf", "%s|%s|", "a  b", "it's $HOME"], True, 0, "xterm")
    assert argv[:4] == ["ssh", "-t", "root@192.0.2.11", "--"]
    (tmp_path / "zlogin").write_text('#!/bin/sh\n[ "$1 $2 $#" = "-i 1f0e 3" ] && exec /bin/sh -c "$3"\n')
    (tmp_path / "zlogin").chmod(0o755)
    shell = subprocess.run(
        ["sh", "-c", argv[4]], capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False
    )
    assert shell.stdout == "a  b|it's $HOME|", shell.stderr


def test_destroy_takes_zones_services_or_all() -> None:
    assert zones_of(CLOUD, ["keystone", "aio1-keystone-1"], False) == ["aio1-keystone-1"]
    assert zones_of(CLOUD, [], True) == list(ZONES)
    for names, everything in (([], False), (["keystone"], True)):
        with pytest.raises(DeploymentError, match="name zones or services, or use --all"):
            zones_of(CLOUD, names, everything)
    with pytest.raises(DeploymentError, match="there is no service or zone 'nova'"):
        zones_of(CLOUD, ["nova"], False)


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("bootstrap-aio.sh", [ROOT / "scripts/bootstrap-aio.sh"]),
        ("run-playbooks.sh", [sys.executable, ROOT / "scripts/lib/run.py"]),
        ("zone-shell.sh", [sys.executable, ROOT / "scripts/lib/zone_shell.py"]),
        ("destroy.sh", [sys.executable, ROOT / "scripts/lib/destroy.py"]),
        ("remove-host.sh", [sys.executable, ROOT / "scripts/lib/remove_host.py"]),
        ("verify.sh", [sys.executable, ROOT / "scripts/lib/verify.py"]),
        ("topology.sh", [sys.executable, ROOT / "scripts/lib/topology.py"]),
        ("drift.sh", [sys.executable, ROOT / "scripts/lib/drift.py"]),
        ("parity.sh", [sys.executable, ROOT / "scripts/lib/parity.py"]),
        ("preflight.sh", [sys.executable, ROOT / "scripts/lib/preflight.py"]),
    ],
)
def test_help_says_how_it_is_called(script: str, command: list[Path | str], tmp_path: Path) -> None:
    """From any working directory, with an empty environment, and in a checkout that has no virtualenv yet."""
    done = subprocess.run(
        [*command, "--help"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"scripts/{script}" in done.stdout


@pytest.mark.parametrize(
    "script",
    ["run-playbooks", "zone-shell", "destroy", "remove-host", "verify", "topology", "parity", "drift", "preflight"],
)
def test_help_in_a_checkout_that_is_not_set_up_changes_nothing(script: str, tmp_path: Path) -> None:
    """A newcomer's first question is answered before anything is installed."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(tmp_path.rglob("*"))

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [tmp_path / f"scripts/{script}.sh", *arguments]
        return subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)

    done = call("--deployment", "east", "--help")
    assert done.returncode == 0 and f"usage: scripts/{script}.sh" in done.stdout and "examples:" in done.stdout
    for arguments in (
        (["--plan"], ["--check", "--diff"]) if script == "run-playbooks" else (["utility", "--", "--help"],)
    ):
        done = call(*arguments)
        assert done.returncode == 1 and done.stderr.endswith("run scripts/bootstrap-aio.sh\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_name_is_asked_for_when_none_is_given() -> None:
    with pytest.raises(DeploymentError, match="name a zone or a service of deployment 'test'"):
        find(CLOUD, "", 1)
