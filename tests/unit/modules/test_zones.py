# SPDX-License-Identifier: GPL-3.0-or-later
"""Many zones in one call: a result for each, a failure that names each, and all side by side."""

from __future__ import annotations

import json
import threading

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.options import OPTIONS
from ansible_collections.zonestack.openstack.plugins.modules import zones

UUID = "6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11"


@pytest.fixture
def made(monkeypatch):
    """What was asked for, by name. ``broken-*`` fail, ``same-*`` are as they should be, all others change."""
    asked = {}

    def make_so(given, check_mode):
        name = given["name"]
        asked[name] = {**given, "check_mode": check_mode}
        if name.startswith("broken"):
            raise ZoneError(f"zone {name!r}: no")
        changed = not name.startswith("same")
        diff = {"before": {"state": "absent" if changed else "running"}, "after": {"state": "running"}}
        return {
            "changed": changed,
            "actions": ["start"] if changed else [],
            "pending": [],
            "restarted": False,
            "pid": 1,
            "diff": diff,
        }

    monkeypatch.setattr(zones, "make_so", make_so)
    return asked


def call(capsys, *names, check_mode=False, **further):
    given = {"zones": [one if isinstance(one, dict) else {"name": one, "uuid": UUID} for one in names], **further}
    with patch_module_args({**given, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
        zones.main()
    return json.loads(capsys.readouterr().out)


def test_each_zone_has_its_result_and_its_diff(capsys, made):
    result = call(capsys, "web", "same-db", {"name": "mail", "uuid": UUID, "memory": "256", "disruptive": False})
    assert result["changed"] and not result.get("failed")
    assert {name: one["changed"] for name, one in result["zones"].items()} == {
        "web": True,
        "same-db": False,
        "mail": True,
    }
    assert result["zones"]["web"] == {
        "changed": True,
        "actions": ["start"],
        "pending": [],
        "restarted": False,
        "pid": 1,
    }
    assert [one["after_header"] for one in result["diff"]] == ["web", "mail"]
    assert result["diff"][0] == {
        "before_header": "web",
        "after_header": "web",
        "before": {"state": "absent"},
        "after": {"state": "running"},
    }
    assert made["mail"]["memory"] == 256 and made["mail"]["disruptive"] is False, (
        "the options are checked as those of `zone`"
    )
    assert made["web"].keys() - {"check_mode"} == OPTIONS.keys() and made["web"]["store"] == "overlay", (
        "with their defaults"
    )


def test_nothing_to_do_is_no_change(capsys, made):
    result = call(capsys, "same-web", "same-db")
    assert (result["changed"], result["diff"]) == (False, [])


def test_check_mode_reaches_each_zone(capsys, made):
    assert call(capsys, "web", "db", check_mode=True)["changed"]
    assert [one["check_mode"] for one in made.values()] == [True, True]


def test_a_failed_zone_stops_no_other_and_is_named(capsys, made):
    wrong = {"name": "mail", "uuid": UUID, "memori": 1}
    result = call(capsys, "broken-1", "web", wrong, "same-db", "broken-2", jobs=1)
    assert result["failed"] and result["changed"]
    assert result["msg"].splitlines()[0] == "3 of 5 zones failed"
    assert [line.split(":")[0] for line in result["msg"].splitlines()[1:]] == [
        "zone 'broken-1'",
        "zone 'mail'",
        "zone 'broken-2'",
    ]
    assert "memori" in result["zones"]["mail"]["msg"]
    assert result["zones"]["broken-1"] == {"changed": False, "failed": True, "msg": "zone 'broken-1': no"}
    assert result["zones"]["web"]["changed"] and "failed" not in result["zones"]["same-db"]
    assert [one["after_header"] for one in result["diff"]] == ["web"]


def test_one_zone_fails_with_its_own_words(capsys, made):
    assert call(capsys, "broken-1")["msg"] == "zone 'broken-1': no"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["web", "db", "web"], "zones: web named more than once: name each zone once"),
        (["web", {"uuid": UUID}], "zones[1].name: a zone needs a name"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(capsys, made, names, message):
    result = call(capsys, *names)
    assert result["failed"] and result["msg"] == message
    assert made == {}


@pytest.mark.parametrize(("further", "together"), [({}, zones.JOBS), ({"jobs": 2}, 2)])
def test_zones_are_made_side_by_side(capsys, monkeypatch, further, together):
    """The barrier lets nobody through until so many zones are being made at a time."""
    barrier = threading.Barrier(together)

    def make_so(given, check_mode):
        barrier.wait(timeout=120)
        return {"changed": False}

    monkeypatch.setattr(zones, "make_so", make_so)
    monkeypatch.setattr(zones.os, "cpu_count", lambda: 1)
    assert not call(capsys, *(f"zone-{number}" for number in range(2 * together)), **further).get("failed")


def test_documentation_is_the_argument_spec():
    documented = yaml.safe_load(zones.DOCUMENTATION)["options"]
    assert {
        name: {key: value for key, value in one.items() if key != "description"} for name, one in documented.items()
    } == zones.ARGUMENTS
