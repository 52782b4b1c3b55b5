# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands in a global zone: what bootstrap-aio.sh refuses there before it makes anything, and that the others hand over.

The node is simulated on paper, where no zone can be entered; that a control zone works is shown in tests/integration/test_control_zone.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
BIN = ROOT / "tests/smartos_sim/bin"
IMAGE = "1a1a1a1a-0b0b-4c0c-8d0d-b00000000001"

Call = t.Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that no command has set up."""
    shutil.copytree(ROOT / "scripts", tmp_path / "checkout/scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "checkout"


@pytest.fixture
def call(checkout: Path, tmp_path: Path) -> Call:
    """Runs a command of the checkout in the global zone of a node with nothing on it."""
    (tmp_path / "usbkey").mkdir()
    (tmp_path / "usbkey/config").write_text("admin_ip=10.88.0.1\n")
    variables = {
        "PATH": f"{BIN}:/usr/bin:/bin", "SMARTOS_SIM_STATE": str(tmp_path / "state"), "USBKEY": str(tmp_path / "usbkey"), "HOME": str(tmp_path),
        "PYTHONPYCACHEPREFIX": os.environ["PYTHONPYCACHEPREFIX"],
    }  # fmt: skip

    def run(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, cwd=checkout, env=variables, input=stdin, capture_output=True, text=True, timeout=600, check=False
        )

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no control zone yet: --image IMAGE says what it begins as"),
        (["--image"], "--image needs a value"),
        (["--network", "10.99.0.0/21"], "unknown argument '--network'"),
        (["--image", IMAGE, "--address", "10.88.0.9"], "give it with the length of its network's prefix"),
        (["--image", IMAGE, "--address", "10.88.0.9/24"], "--address goes with the address of its router"),
        (["--image", IMAGE, "--gateway", "10.88.0.1"], "--gateway goes with --address"),
        (["--image", IMAGE, "--host", "gz1"], "this global zone's address is not known"),
    ],
)
def test_bad_words_are_refused_before_anything_is_made(call: Call, arguments: list[str], message: str) -> None:
    done = call("sh", "scripts/bootstrap-aio.sh", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert call("vmadm", "lookup").stdout == ""


def test_an_image_that_nobody_has_is_named(call: Call) -> None:
    done = call("sh", "scripts/bootstrap-aio.sh", "--image", "debian-99")
    assert (
        done.returncode == 1
        and "--image debian-99: no image for lx zones of that name is installed or offered" in done.stderr
    )
    assert call("vmadm", "lookup").stdout == ""


def test_help_is_that_of_the_global_zone(call: Call) -> None:
    done = call("sh", "scripts/bootstrap-aio.sh", "--help")
    assert done.returncode == 0 and "Make a control zone on this SmartOS host" in done.stdout


def test_two_control_zones_are_none(call: Call) -> None:
    for number in "12":
        payload = {
            "brand": "bhyve",
            "alias": "zonestack-control",
            "uuid": f"5a7e57ab-0000-4000-8000-00000000000{number}",
            "autoboot": False,
        }
        assert call("vmadm", "create", stdin=json.dumps(payload)).returncode == 0
    done = call("bash", "scripts/bootstrap-aio.sh")
    assert done.returncode == 1 and "several zones have the alias zonestack-control" in done.stderr


@pytest.mark.parametrize("script", ["run-playbooks", "preflight"])
def test_the_other_commands_hand_over_to_the_control_zone(call: Call, script: str) -> None:
    done = call("bash", f"scripts/{script}.sh", "--deployment", "aio")
    assert (
        done.returncode == 1
        and "this is a global zone without a control zone: make one, scripts/bootstrap-aio.sh --image" in done.stderr
    )
    payload = {
        "brand": "bhyve",
        "alias": "zonestack-control",
        "uuid": "5a7e57ab-0000-4000-8000-000000000001",
        "autoboot": False,
    }
    assert call("vmadm", "create", stdin=json.dumps(payload)).returncode == 0
    done = call("bash", f"scripts/{script}.sh", "--deployment", "aio")
    assert done.returncode == 1 and "5a7e57ab-0000-4000-8000-000000000001 does not run: vmadm start" in done.stderr


def test_a_control_side_in_a_global_zone_hands_over_nothing(call: Call, checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    done = call("bash", "scripts/run-playbooks.sh", "--plan")
    assert done.returncode == 1 and "this checkout is not set up" in done.stderr


def test_what_is_no_global_zone_is_asked_for_debian(checkout: Path) -> None:
    """Started with any shell."""
    done = subprocess.run(
        ["sh", "scripts/bootstrap-aio.sh", "--help"],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Make this machine an all-in-one development host" in done.stdout
