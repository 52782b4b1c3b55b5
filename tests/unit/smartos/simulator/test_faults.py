# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that strike where they are asked for, and commands that run side by side."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import typing as t

import pytest

from .conftest import LX_IMAGE, VM


def lx(uuid: str = VM, **more: t.Any) -> dict[str, t.Any]:
    return {"brand": "lx", "image_uuid": LX_IMAGE, "kernel_version": "5.10.0", "uuid": uuid, **more}


def numbered(number: int) -> str:
    return f"deadbeef-0000-4000-8000-0000000001{number:02d}"


# -- faults ------------------------------------------------------------------------------------------------------------


def test_the_nth_call_fails_and_no_other(sim: t.Any) -> None:
    sim.fault("vmadm list", nth=2, message="out of cheese", code=7)
    assert [sim.vmadm("list", "-H") for _call in range(3)] == [(0, "", ""), (7, "", "out of cheese\n"), (0, "", "")]
    assert json.loads(sim.run("smartos-sim", "fault", "list").out)[0]["met"] == 3


def test_a_cleared_fault_strikes_no_more(sim: t.Any) -> None:
    sim.fault("*", times=9)
    assert sim.vmadm("list").rc == 1
    sim.run("smartos-sim", "fault", "clear")
    assert sim.vmadm("list").rc == 0


def test_a_failing_step_is_the_commands_reason_and_leaves_a_vm_that_fails_in_time(sim: t.Any) -> None:
    sim.run("smartos-sim", "node", "provision_timeout=0.01")
    sim.fault("vmadm create", step="zone_create", message="Command failed: zfs clone\ncannot create: no space")
    assert sim.create() == (1, "", "Command failed: zfs clone\ncannot create: no space\n")
    time.sleep(0.02)  # longer than the time to provision; that more may pass does not matter
    assert (sim.get()["state"], sim.get()["zone_state"]) == ("failed", "configured")
    assert sim.vmadm("delete", VM).rc == 0


def test_a_failing_reprovision_leaves_a_stopped_vm(sim: t.Any) -> None:
    sim.create()
    sim.fault("vmadm reprovision", step="zone_reprovision", message="no space")
    said = sim.vmadm("reprovision", VM, stdin={"image_uuid": LX_IMAGE})
    assert said == (1, "", f"Failed to reprovision VM {VM}: no space\n")
    assert sim.get()["state"] == "stopped"


def test_an_update_can_fail_after_it_was_made(sim: t.Any) -> None:
    sim.create()
    sim.fault("vmadm update", step="vminfod", message="timed out waiting for event")
    assert sim.vmadm("update", VM, "quota=33").rc == 1
    assert sim.get()["quota"] == 33


def test_a_fault_after_the_command_hides_that_all_went_well(sim: t.Any) -> None:
    sim.create()
    sim.fault("vmadm stop", when="after", message="connection lost", code=255)
    assert sim.vmadm("stop", VM).rc == 255
    assert sim.get()["state"] == "stopped"


@pytest.mark.parametrize(
    ("step", "when", "left"),
    [
        ("record", "before", None),
        ("zone_create", "before", ("provisioning", "configured")),
        ("zone_boot", "before", ("provisioning", "installed")),
        ("zone_boot", "after", ("running", "running")),
    ],
)
def test_a_killed_create_leaves_what_it_had_made_and_no_lock(
    sim: t.Any, step: str, when: str, left: tuple[str, str] | None
) -> None:
    sim.run("smartos-sim", "node", "provision_timeout=300")
    sim.fault("vmadm create", step=step, when=when, do="kill")
    assert sim.start("vmadm", "create", stdin=lx()).wait(600) == -signal.SIGKILL
    if left is None:
        assert sim.vmadm("get", VM).rc == 1
        assert sim.create().rc == 0
        return
    assert (sim.get()["state"], sim.get()["zone_state"]) == left
    assert sim.vmadm("delete", VM).rc == 0
    assert sim.create().rc == 0


def test_a_create_killed_while_provisioning_counts_as_failed_once_its_time_is_over(sim: t.Any) -> None:
    sim.fault("vmadm create", step="zone_create", do="kill")
    sim.start("vmadm", "create", stdin=lx()).wait(600)
    end = time.monotonic() + 600
    while sim.get()["state"] == "provisioning" and time.monotonic() < end:
        time.sleep(0.02)
    assert sim.get()["state"] == "failed"


def test_a_hanging_step_holds_its_vm_and_nobody_else(sim: t.Any) -> None:
    sim.create()
    sim.fault("vmadm update", step="zone_configure", do="hang")
    hanging = sim.start("vmadm", "update", VM, "alias=slow")
    while sim.get().get("alias") != "slow":
        assert hanging.poll() is None
        time.sleep(0.02)
    assert sim.create(uuid=numbered(1)).rc == 0
    assert sim.get()["state"] == "running"
    waiting = sim.start("vmadm", "update", VM, "alias=after")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    assert hanging.poll() is None
    hanging.kill()
    hanging.communicate()
    assert waiting.communicate(timeout=600) and waiting.returncode == 0
    assert sim.get()["alias"] == "after"


def test_an_injected_image_failure_leaves_no_image(sim: t.Any) -> None:
    sim.fault("imgadm delete", step="image_destroy", message="dataset is busy")
    said = sim.run("imgadm", "delete", LX_IMAGE)
    assert said == (1, "", "imgadm delete: error (InternalError): dataset is busy\n")
    assert sim.run("imgadm", "get", LX_IMAGE).rc == 0


# -- side by side ------------------------------------------------------------------------------------------------------


def test_of_creates_with_one_address_only_one_wins(sim: t.Any) -> None:
    nics = [{"nic_tag": "admin", "ips": ["10.0.0.11/24"]}]
    racing = [sim.start("vmadm", "create", stdin=lx(numbered(n), nics=nics)) for n in range(5)]
    said = [process.communicate(timeout=600)[1] for process in racing]
    assert sorted(process.returncode for process in racing) == [0, 1, 1, 1, 1]
    assert sum(text.startswith("Conflict detected") for text in said) == 4
    assert len(sim.vmadm("lookup").out.split()) == 1


def test_of_creates_with_one_uuid_only_one_wins(sim: t.Any) -> None:
    racing = [sim.start("vmadm", "create", stdin=lx()) for _each in range(4)]
    said = [process.communicate(timeout=600)[1] for process in racing]
    assert sorted(process.returncode for process in racing) == [0, 1, 1, 1]
    assert said.count(f"VM with UUID {VM} already exists\n") == 3


def test_updates_of_one_vm_lose_nothing(sim: t.Any) -> None:
    sim.create()
    racing = [sim.start("vmadm", "update", VM, stdin={"set_tags": {f"t{n}": n}}) for n in range(6)]
    assert [process.communicate(timeout=600) and process.returncode for process in racing] == [0] * 6
    assert sim.get()["tags"] == {f"t{n}": n for n in range(6)}


def test_zones_never_share_a_number(sim: t.Any) -> None:
    racing = [sim.start("vmadm", "create", stdin=lx(numbered(n))) for n in range(4)]
    assert [process.communicate(timeout=600) and process.returncode for process in racing] == [0] * 4
    numbers = [one["zoneid"] for one in json.loads(sim.vmadm("lookup", "-j", "-o", "zoneid").out)]
    assert len(set(numbers)) == 4
