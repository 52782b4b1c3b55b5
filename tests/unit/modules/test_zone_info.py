# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.modules.zone_info import lxc_zones, of_deployment, zones


def test_only_zones_of_this_collection_are_told(tmp_path: Path) -> None:
    for name, text in (("a-1", json.dumps({"uuid": "u", "image": "i"})), ("broken", "{"), ("other", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "zone.json").write_text(text)
    assert of_deployment(zones(tmp_path, ["a-1", "other"]), "") == {
        "a-1": {"uuid": "u", "image": "i", "running": True},
        "broken": {"uuid": None, "image": None, "running": False},
    }


def test_zones_of_one_deployment_are_told_as_they_were_made(tmp_path: Path) -> None:
    made = {name: {"uuid": name, "image": "i", "memory": 64, "metadata": {"deployment": name}} for name in ("x", "y")}
    for name, described in made.items():
        (tmp_path / f"{name}-1").mkdir()
        (tmp_path / f"{name}-1" / "zone.json").write_text(json.dumps(described))
    assert of_deployment(zones(tmp_path, ["x-1"]), "x") == {
        "x-1": {"uuid": "x", "image": "i", "running": True, "described": made["x"]}
    }
    assert of_deployment(zones(tmp_path, []), "z") == {}


def test_a_machine_without_lxc_has_no_zones(tmp_path: Path) -> None:
    assert lxc_zones(str(tmp_path)) == {}
