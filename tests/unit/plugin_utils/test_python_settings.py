# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.python_settings import SettingsError, render


@pytest.mark.parametrize(
    "value",
    [
        True,
        None,
        3,
        1.5,
        "plain",
        'quoted "\\ \n ü \x00',
        "__import__('os')",
        [1, [True]],
        {"a": {"b": None}, "c": ["d"]},
    ],
)
def test_a_value_is_read_back_as_it_was(value):
    found: dict[str, object] = {}
    exec(render("service_conf", {"NAME": value}), found)
    assert found["NAME"] == value


def test_the_origin_is_named():
    assert render("zone_conf", {"A": 1}) == "\n# zone_conf\nA = 1\n"


@pytest.mark.parametrize("settings", [{"lower": 1}, {"A; import os": 1}, {"A B": 1}, {1: 1}, ["A"], "A = 1"])
def test_what_is_no_setting_is_refused_with_its_place(settings):
    with pytest.raises(SettingsError, match=r"service_conf: .* write"):
        render("service_conf", settings)
