# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import configparser

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.oslo import Layer, OsloError, render


def read(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(default_section="none", strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_last_layer_wins_and_is_named():
    text = render([Layer("a.yml", {"db": {"pool": 5}}), Layer("user", {"db": {"pool": 9}})])
    assert text == "\n[db]\n# user\npool = 9\n"


def test_null_returns_to_the_upstream_default():
    assert "pool" not in render([Layer("a", {"db": {"pool": 5, "x": 1}}), Layer("b", {"db": {"pool": None}})])


def test_values_are_written_as_oslo_reads_them():
    parsed = read(render([Layer("a", {"DEFAULT": {"on": True, "n": 3, "map": {"a": 1, "b": False}, "pct": "%(x)s"}})]))
    assert dict(parsed["DEFAULT"]) == {"on": "true", "n": "3", "map": "a:1,b:false", "pct": "%(x)s"}


def test_a_list_is_a_multi_valued_option():
    assert render([Layer("a", {"x": {"k": ["one", "two"]}})]).count("k = ") == 2


def test_order_does_not_depend_on_the_data_s_order():
    one = render([Layer("a", {"b": {"y": 1, "x": 2}, "DEFAULT": {"z": 1}})])
    two = render([Layer("a", {"DEFAULT": {"z": 1}, "b": {"x": 2, "y": 1}})])
    assert one == two
    assert one.index("[DEFAULT]") < one.index("[b]")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": 7}, "user: section 'token' holds 7"),
        ([1], "user: [1] is not a mapping of sections"),
        ({"a": {"k": "one\ntwo"}}, r"user: [a] k contains a line break"),
    ],
)
def test_a_wrong_shape_is_refused_by_name(options, message):
    with pytest.raises(OsloError) as error:
        render([Layer("user", options)])
    assert message in str(error.value)
