# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done with SMF: pure functions. That it is done is shown in tests/unit/smartos/smf."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import smf as client
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import smf_plan as unit
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.smf_plan import (
    Instance,
    Property,
    Setting,
    SmfError,
    Wish,
)
from ansible_collections.zonestack.openstack.plugins.modules import svcadm, svccfg

FMRI = "svc:/site/web:default"


def instance(state: str, lasting: bool = True, override: bool | None = None) -> Instance:
    return Instance(FMRI, state, "none", "1.5", lasting, override, "/var/svc/log/x")


@pytest.mark.parametrize(
    ("now", "wish", "expected"),
    [
        (instance("online"), Wish("enabled"), []),
        (instance("offline"), Wish("enabled"), []),
        (instance("disabled", lasting=False), Wish("enabled"), ["enable"]),
        (instance("disabled", override=False), Wish("enabled"), ["enable"]),
        (instance("disabled", override=False), Wish("enabled", temporary=True), ["enable"]),
        (instance("online", lasting=False, override=True), Wish("enabled", temporary=True), []),
        (instance("online", lasting=False, override=True), Wish("enabled"), ["enable"]),
        (instance("online", override=True), Wish("enabled"), []),
        (instance("maintenance"), Wish("enabled", clear=True), ["clear"]),
        (instance("maintenance", override=False), Wish("enabled", clear=True), ["clear", "enable"]),
        (instance("degraded"), Wish("enabled"), []),
        (instance("degraded"), Wish("enabled", clear=True), ["clear"]),
        (instance("online"), Wish("disabled"), ["disable"]),
        (instance("disabled", override=False), Wish("disabled"), ["disable"]),
        (instance("disabled", override=False), Wish("disabled", temporary=True), []),
        (instance("disabled", lasting=False), Wish("disabled"), []),
        (instance("maintenance"), Wish("disabled"), ["disable"]),
        (instance("maintenance", lasting=False), Wish("disabled", clear=True), ["clear"]),
        (instance("online"), Wish("restarted"), ["restart"]),
        (instance("degraded"), Wish("restarted", clear=True), ["restart"]),
        (instance("offline"), Wish("restarted"), []),
        (instance("disabled", lasting=False), Wish("restarted"), ["enable"]),
        (instance("maintenance"), Wish("restarted", clear=True), ["clear"]),
        (instance("maintenance"), Wish("refreshed"), ["refresh"]),
    ],
)
def test_actions(now, wish, expected):
    assert unit.actions(now, wish) == expected


@pytest.mark.parametrize(
    ("now", "wish"),
    [
        (instance("maintenance"), Wish("enabled")),
        (instance("maintenance"), Wish("restarted")),
        (instance("maintenance", lasting=False), Wish("disabled")),
    ],
)
def test_maintenance_is_cleared_only_when_asked(now, wish):
    with pytest.raises(SmfError, match="svc:/site/web:default is in maintenance.*/var/svc/log/x.*clear: true"):
        unit.actions(now, wish)


def test_what_svcprop_prints_is_read_back():
    text = 'app/a astring x\\ y "" \\"q\\"\\\\ l1\\\nl2\napp/none astring \nrestarter/contract count\napp/n count 3\n'
    assert unit.parse_properties(text) == {
        "app/a": Property("astring", ("x y", "", '"q"\\', "l1\nl2")),
        "app/none": Property("astring", ()),
        "restarter/contract": Property("count", ()),
        "app/n": Property("count", ("3",)),
    }


def test_the_smallest_set_of_commands():
    have = {
        "app/same": Property("count", ("1",)),
        "app/type": Property("count", ("1",)),
        "app/gone": Property("astring", ("x",)),
    }
    settings = [
        Setting("app/same", Property("count", ("1",))),
        Setting("app/type", Property("astring", ('a "b" \\',))),
        Setting("app/gone", None),
        Setting("app/never", None),
        Setting("new/list", Property("astring", ("a", "b c")), "framework"),
        Setting("new/empty", Property("astring", ())),
        Setting("new/on", Property("boolean", ("true",))),
    ]
    assert unit.commands(FMRI, have, {"app"}, settings) == [
        f"select {FMRI}",
        "delprop app/type",
        'setprop app/type = astring: "a \\"b\\" \\\\"',
        "delprop app/gone",
        "addpg new framework",
        'setprop new/list = astring: ("a" "b c")',
        "setprop new/empty = astring: ()",
        "setprop new/on = boolean: true",
    ]
    assert unit.commands(FMRI, have, {"app"}, settings[:1]) == []


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("boolean", ["True", "no"], ("true", "false")),
        ("count", ["007"], ("7",)),
        ("integer", ["-5"], ("-5",)),
        ("astring", [""], ("",)),
    ],
)
def test_values_are_compared_as_smf_prints_them(kind, given, expected):
    assert unit.normalize(kind, given) == Property(kind, expected)


@pytest.mark.parametrize(("kind", "value"), [("boolean", "maybe"), ("count", "-1"), ("integer", "1.5")])
def test_a_value_of_another_type_is_refused(kind, value):
    with pytest.raises(SmfError, match=f"'{value}' is not an? {kind}"):
        unit.normalize(kind, [value])


def test_a_command_for_a_zone_is_one_argument(monkeypatch):
    said = []

    def run(argv, **_further):
        said.append(list(argv))
        return client.Result(0, "5:z1:running:/zones/z1:uuid:joyent:excl:7\n", "")

    monkeypatch.setattr(client, "run", run)
    client.Smf("z1").run(["svcprop", "-p", "a b", "it's"])
    assert said == [["zoneadm", "-z", "z1", "list", "-p"], ["zlogin", "z1", """svcprop -p 'a b' 'it'"'"'s'"""]]


def test_a_zone_that_does_not_run_is_told(monkeypatch):
    monkeypatch.setattr(
        client, "run", lambda argv, **_further: client.Result(0, "-:z1:installed:/zones/z1:uuid:joyent:excl:-\n", "")
    )
    with pytest.raises(SmfError, match="zone z1 is installed: start it first"):
        client.Smf("z1")


@pytest.mark.parametrize("module", [svcadm, svccfg])
def test_documentation_is_the_argument_spec(module):
    def plain(options):
        kept = ("type", "required", "default", "choices", "elements")
        found = {}
        for name, one in options.items():
            found[name] = {key: one[key] for key in kept if key in one}
            inner = one.get("suboptions") or one.get("options")
            if inner:
                found[name]["options"] = plain(inner)
        return found

    assert plain(yaml.safe_load(module.DOCUMENTATION)["options"]) == plain(module.ARGUMENTS)
