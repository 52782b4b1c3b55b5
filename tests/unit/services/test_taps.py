# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's hook that sees the taps of a guest up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[3] / "services/nova/taps.sh"
DOMAIN = """<domain type='qemu' id='3'>
  <name>instance-00000004</name>
  <devices>
    <disk type='file' device='disk'>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <target dev='tap3c4c2140-8d' managed='no'/>
    </interface>
    <interface type='ethernet'>
      <target dev='tapf223900f-b3'/>
    </interface>
  </devices>
</domain>
"""


def asked(folder: Path, happens: str, status: int = 0) -> list[str]:
    """What the hook asks ip(8) for, which answers with ``status``; the hook itself must end with 0."""
    (folder / "ip").write_text(f'#!/bin/sh\necho "$@" >>{folder}/asked\nexit {status}\n')
    (folder / "ip").chmod(0o755)
    command = [str(HOOK), "instance-00000004", happens, "begin", "-"]
    subprocess.run(
        command, input=DOMAIN, text=True, check=True, timeout=600, env={"PATH": f"{folder}:{os.environ['PATH']}"}
    )
    found = folder / "asked"
    return found.read_text().splitlines() if found.exists() else []


@pytest.mark.parametrize("status", [0, 1])
def test_each_tap_of_a_started_guest_is_set_up_and_nothing_else(tmp_path: Path, status: int) -> None:
    """Also when one of them is gone again: the guest must not die of that."""
    assert asked(tmp_path, "started", status) == ["link set dev tap3c4c2140-8d up", "link set dev tapf223900f-b3 up"]


@pytest.mark.parametrize(
    "happens", ["prepare", "start", "stopped", "release", "migrate", "restore", "reconnect", "attach"]
)
def test_at_any_other_time_nothing_is_asked(tmp_path: Path, happens: str) -> None:
    assert asked(tmp_path, happens) == []
