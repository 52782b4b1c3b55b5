# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.modules.zone_info import zones


def test_only_zones_of_this_collection_are_told(tmp_path: Path) -> None:
    for name, text in (("a-1", json.dumps({"uuid": "u", "image": "i"})), ("broken", "{"), ("other", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "zone.json").write_text(text)
    assert zones(tmp_path, ["a-1", "other"]) == {
        "a-1": {"uuid": "u", "image": "i", "running": True},
        "broken": {"uuid": None, "image": None, "running": False},
    }
