# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all zone backends do alike, with a zfs(8) that answers as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.zone import files as zone_files
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError

ZFS = """#!/bin/sh
cd "{folder}" && echo "$@" >>asked
[ "$(wc -l <asked)" -gt {times} ] || {{ echo "cannot destroy '$3': {why}" >&2; exit 1; }}
"""


@pytest.fixture
def zfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Have a zfs that fails so many times, and why; the file of what it was asked."""

    def make(times: int, why: str) -> Path:
        program = tmp_path / "zfs"
        program.write_text(ZFS.format(folder=tmp_path, times=times, why=why))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "asked"

    return make


def test_a_dataset_that_is_busy_for_a_moment_is_destroyed(zfs):
    asked = zfs(2, "dataset is busy")
    zone_files.destroy_dataset("zones/x")
    assert asked.read_text().splitlines() == ["destroy -r zones/x"] * 3


def test_one_that_is_not_there_is_fine(zfs):
    asked = zfs(9, "dataset does not exist")
    zone_files.destroy_dataset("zones/x")
    assert len(asked.read_text().splitlines()) == 1


def test_one_that_stays_busy_is_named_with_where_to_look(zfs, monkeypatch):
    zfs(99, "dataset is busy")
    monkeypatch.setattr(zone_files, "BUSY_LIMIT", 0.3)
    with pytest.raises(ZoneError, match=r"zones/x cannot be destroyed: .*dataset is busy; see grep -l zones/x"):
        zone_files.destroy_dataset("zones/x")


def test_one_with_clones_is_refused_at_once(zfs):
    asked = zfs(99, "filesystem has dependent clones")
    with pytest.raises(ZoneError, match="dependent clones"):
        zone_files.destroy_dataset("zones/x")
    assert len(asked.read_text().splitlines()) == 1
