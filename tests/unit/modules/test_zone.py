# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's documentation, argument spec and description say the same."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.options import NETWORK, OPTIONS
from ansible_collections.zonestack.openstack.plugins.modules import zone

DOCUMENTED = yaml.safe_load(zone.DOCUMENTATION)["options"]


@pytest.mark.parametrize(
    ("spec", "documented"),
    [(OPTIONS, DOCUMENTED), (NETWORK, DOCUMENTED["networks"]["suboptions"])],
    ids=["module", "networks"],
)
def test_documentation_is_the_argument_spec(spec, documented):
    def facts(options):
        keys = ("type", "elements", "required", "default", "choices")
        return {name: {key: option[key] for key in keys if key in option} for name, option in options.items()}

    assert facts(documented) == facts(spec)


def test_every_field_of_a_zone_is_an_option_with_the_same_default():
    for field in fields(ZoneSpec):
        assert field.name in OPTIONS
        default = OPTIONS[field.name].get("default")
        if isinstance(default, (bool, int, str)):
            assert field.default == default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Web"}, "zone 'Web': name: 'Web' is not right: a DNS label"),
        ({"volumes": {"data": {"owner": "x"}}}, "volumes.data: {'owner': 'x'} is not right"),
        ({"image": None}, "zone 'web': image: none given; there are: "),
    ],
)
def test_a_bad_description_fails_the_task(capsys, arguments, message):
    given = {"name": "web", "uuid": "6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11", "image": "x", **arguments}
    with patch_module_args(given), pytest.raises(SystemExit):
        zone.main()
    result = json.loads(capsys.readouterr().out)
    assert result["failed"]
    assert message in result["msg"]


def test_what_the_run_makes_before_is_taken_as_there_in_check_mode_only(run_module):
    given = {"name": "web", "uuid": "6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11", "image": "not-built-yet", "foreseen": True}
    told = run_module("zone", {**given, "_ansible_check_mode": True})
    assert told["actions"] == ["create", "start"] and told["diff"]["after"]["image"] == "not-built-yet"
    for refused in ({**given, "foreseen": False, "_ansible_check_mode": True}, given):
        done = run_module("zone", refused)
        assert done["failed"] and "not-built-yet" in done["msg"]
