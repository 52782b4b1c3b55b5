# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules svcadm and svccfg as processes of their own, against the simulator's svc.startd."""

from __future__ import annotations

from pathlib import Path

import pytest

from smf_manifest import render_smf

from .conftest import Zone, dependency, manifest, running

WEB = "svc:/site/web:default"


def change(place, module, **arguments):
    """A call whose check mode foretells it, that changes something, and whose repetition changes nothing."""
    foretold = place.module(module, check=True, **arguments)
    made = place.module(module, **arguments)
    assert not made.get("failed"), made
    assert foretold["changed"] and made["changed"]
    assert foretold["actions"] == made["actions"]
    assert foretold["diff"] == made["diff"]
    again = place.module(module, **arguments)
    assert (again["changed"], again["actions"]) == (False, [])
    return made


@pytest.fixture(params=["zone", "host"])
def place(request):
    """A joyent zone, then the global zone."""
    return request.getfixturevalue(request.param)


def test_a_service_s_life(place):
    """Deployed, changed, in maintenance, repaired, and back after the reboot."""
    path = str(place.path("/opt/custom/smf/site-web.xml"))
    mark = place.root / "mark"
    first = manifest(start=f"/bin/sh -c 'echo one >{mark}; exec /bin/sleep 1000'")
    # deployed
    made = change(place, "svccfg", manifest=first, path=path)
    assert made["actions"] == ["import", f"refresh {WEB}"] and made["instances"] == [WEB]
    assert place.module("svcadm", fmri=WEB)["service"]["state"] == "online"
    place.until(lambda: mark.exists() and mark.read_text() == "one\n", "the service")
    # changed
    second = first.replace("echo one", "echo two")
    made = change(place, "svccfg", manifest=second, path=path)
    assert made["restart_needed"] == [WEB]
    restarted = place.module("svcadm", fmri=WEB, state="restarted")
    assert restarted["actions"] == ["restart"] and restarted["service"]["state"] == "online"
    place.until(lambda: mark.read_text() == "two\n", "the changed service")
    assert place.module("svccfg", manifest=second, path=path)["restart_needed"] == []
    # in maintenance
    broken = manifest(start="/bin/sh -c 'exit 95'", duration="transient")
    change(place, "svccfg", manifest=broken, path=path)
    failed = place.module("svcadm", fmri=WEB, state="restarted", timeout=600)
    assert failed["failed"] and "went into maintenance" in failed["msg"] and "site-web:default.log" in failed["msg"]
    for state in ("enabled", "restarted"):
        refused = place.module("svcadm", fmri=WEB, state=state)
        assert refused["failed"] and "clear: true" in refused["msg"]
        assert place.module("svcadm", check=True, fmri=WEB, state=state)["msg"] == refused["msg"]
    assert place.state() == "maintenance"
    # repaired
    change(place, "svccfg", manifest=second, path=path)
    assert place.state() == "maintenance", "a manifest alone ends no maintenance"
    cleared = place.module("svcadm", fmri=WEB, clear=True)
    assert cleared["actions"] == ["clear"] and cleared["service"]["state"] == "online"
    assert place.module("svcadm", fmri=WEB, clear=True)["changed"] is False
    # back after the reboot
    mark.unlink()
    place.shutdown()
    place.boot(fresh=place.is_global)
    place.until_state("online")
    place.until(lambda: mark.exists() and mark.read_text() == "two\n", "the service after the reboot")
    assert place.module("svccfg", manifest=second, path=path)["changed"] is False
    assert place.module("svcadm", fmri=WEB)["changed"] is False
    # gone
    made = change(place, "svccfg", fmri="svc:/site/web", state="absent", path=path)
    assert made["actions"] == ["delete svc:/site/web", f"remove {path}"]
    assert "site/web" not in place.states()


@pytest.mark.parametrize("temporary", [False, True])
def test_enabled_and_disabled(zone, temporary):
    zone.import_(manifest())
    zone.until_state("online")
    made = change(zone, "svcadm", fmri=WEB, state="disabled", temporary=temporary)
    assert made["service"] == {
        "fmri": WEB, "state": "disabled", "next_state": "none", "enabled": False, "enabled_at_boot": temporary,
        "log": "/var/svc/log/site-web:default.log",
    }  # fmt: skip
    zone.shutdown()
    zone.boot()
    zone.until_state("online" if temporary else "disabled")
    if not temporary:
        made = change(zone, "svcadm", fmri=WEB, state="enabled")
        assert made["diff"] == {
            "before": {"state": "disabled", "enabled": False, "enabled_at_boot": False},
            "after": {"state": "online", "enabled": True, "enabled_at_boot": True},
        }


def test_a_lasting_wish_takes_back_a_temporary_one(zone):
    zone.import_(manifest())
    zone.good("svcadm", "disable", "-st", WEB)
    assert change(zone, "svcadm", fmri=WEB)["actions"] == ["enable"]
    assert zone.value("general_ovr/enabled") == ""
    zone.good("svcadm", "disable", "-s", WEB)
    zone.good("svcadm", "enable", "-st", WEB)
    assert zone.module("svcadm", fmri=WEB, temporary=True)["changed"] is False
    assert change(zone, "svcadm", fmri=WEB)["service"]["enabled_at_boot"] is True


def test_disabling_ends_maintenance_by_itself(zone):
    zone.import_(manifest(start="/bin/sh -c 'exit 96'", duration="transient"))
    zone.until_state("maintenance")
    made = change(zone, "svcadm", fmri=WEB, state="disabled", comment="no need")
    assert made["actions"] == ["disable"] and made["service"]["state"] == "disabled"
    assert zone.value("general_ovr/comment") == "no\\ need"


def test_maintenance_of_a_disabled_service_is_cleared_only_when_asked(zone):
    zone.import_(manifest(enabled="false"))
    zone.until_state("disabled")
    zone.good("svcadm", "mark", "maintenance", WEB)
    zone.until_state("maintenance")
    assert "clear: true" in zone.module("svcadm", fmri=WEB, state="disabled")["msg"]
    assert change(zone, "svcadm", fmri=WEB, state="disabled", clear=True)["service"]["state"] == "disabled"


def test_what_enabling_finds_in_its_way(zone):
    """Maintenance, dependencies that nobody will mend, and a method that takes too long: each with its own words."""
    zone.import_(manifest(start="/bin/sh -c 'exit 95'", duration="transient", enabled="false"))
    zone.until_state("disabled")
    assert "went into maintenance" in zone.module("svcadm", fmri=WEB)["msg"]
    zone.import_(manifest("site/app", dependencies=dependency("web", WEB), enabled="false"))
    zone.until_state("disabled", "svc:/site/app:default")
    message = zone.module("svcadm", fmri="svc:/site/app:default")["msg"]
    assert (
        "exit code 4" in message
        and "svcadm enable -s svc:/site/app:default" in message
        and "unsatisfied dependencies" in message
    )
    zone.import_(manifest("site/slow", start="/bin/sleep 100000", duration="transient", enabled="false", timeout=0))
    slow = "svc:/site/slow:default"
    zone.until_state("disabled", slow)
    assert "after 2 s (timeout)" in zone.module("svcadm", fmri=slow, timeout=2)["msg"]
    zone.until(lambda: zone.value("restarter/next_state", slow) == "online", "the start method")
    message = zone.module("svcadm", fmri=slow, timeout=2)["msg"]
    assert "is still on the way from offline to online after 2 s (timeout)" in message
    assert zone.module("svcadm", fmri=slow, wait=False)["changed"] is False


def test_refreshed_runs_the_refresh_method(zone):
    mark = zone.root / "mark"
    zone.import_(manifest(refresh=f"/bin/sh -c 'echo $SMF_METHOD >>{mark}'"))
    zone.until_state("online")
    made = zone.module("svcadm", fmri=WEB, state="refreshed")
    assert made["changed"] and made["actions"] == ["refresh"]
    zone.until(mark.exists, "refresh")


def test_properties_are_set_refreshed_and_kept(zone):
    zone.import_(
        manifest(
            groups='<property_group name="app" type="application"><propval name="old" type="astring" value="x"/></property_group>'
        )
    )
    zone.until_state("online")
    properties = [
        {"name": "app/port", "type": "count", "values": [8080]},
        {"name": "app/words", "values": ['say "hi" \\o/', "two\nlines", ""]},
        {"name": "app/on", "type": "boolean", "values": [True]},
        {"name": "app/none", "values": []},
        {"name": "start/timeout_seconds", "type": "count", "values": [77], "group_type": "method"},
    ]
    made = change(zone, "svccfg", fmri=WEB, properties=properties)
    assert made["actions"] == [f"set properties of {WEB}", f"refresh {WEB}"] and made["restart_needed"] == [WEB]
    assert made["diff"][0]["after"]["app/port"] == "count: 8080"
    assert zone.good("svcprop", "-p", "start/timeout_seconds", WEB) == "77\n", "in effect, not only current"
    assert zone.good("svcprop", "-p", "app/old", WEB) == "x\n", "others stay"
    change(zone, "svccfg", fmri=WEB, properties=[{"name": "app/port", "values": ["none"]}])
    assert zone.good("svcprop", "-tp", "app/port", WEB) == "app/port astring none\n"
    change(zone, "svccfg", fmri=WEB, properties=[{"name": "app/port", "state": "absent"}])
    assert zone.value("app/port") == ""
    change(zone, "svccfg", fmri="svc:/site/web", properties=[{"name": "app/old", "values": ["y"]}])
    assert zone.good("svcprop", "-p", "app/old", WEB) == "y\n"


def test_what_was_set_but_never_refreshed_is_refreshed(zone):
    zone.import_(manifest())
    zone.until_state("online")
    zone.good("svccfg", "-f", "-", stdin=f"select {WEB}\naddpg app application\nsetprop app/port = count: 1\n")
    wish = [{"name": "app/port", "type": "count", "values": [1]}]
    assert change(zone, "svccfg", fmri=WEB, properties=wish)["actions"] == [f"refresh {WEB}"]


def test_an_administrator_s_change_outlives_an_import_and_is_told(zone):
    path = str(zone.root / "kept.xml")
    zone.module("svccfg", manifest=manifest(), path=path)
    zone.until_state("online")
    zone.good("svccfg", "-s", "svc:/site/web", "setprop", "start/exec", "=", "astring:", '"/bin/sleep', '500"')
    made = zone.module("svccfg", manifest=manifest(start="/bin/sleep 2000"), path=path)
    assert made["changed"] and "start/exec" in str(made["warnings"])
    assert zone.value("start/exec") == "/bin/sleep\\ 500"


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("svcadm", {"fmri": "web"}, "full FMRI"),
        ("svcadm", {"fmri": "svc:/site/web"}, "full FMRI"),
        ("svcadm", {"fmri": "svc:/site/*:default"}, "full FMRI"),
        ("svcadm", {"fmri": WEB}, "there is no instance svc:/site/web:default: import its manifest first"),
        ("svccfg", {"fmri": "site/web"}, "full FMRI"),
        (
            "svccfg",
            {"fmri": WEB, "properties": [{"name": "a/b", "values": ["c"]}]},
            "there is no svc:/site/web:default",
        ),
        ("svccfg", {"manifest": "<a>"}, "is not XML"),
        ("svccfg", {"manifest": "<service_bundle type='profile' name='x'/>"}, "is not a manifest"),
        (
            "svccfg",
            {"manifest": manifest().replace('<create_default_instance enabled="true"/>', "")},
            "defines no instance",
        ),
        ("svccfg", {"manifest": manifest().replace("timeout_seconds", "timeout")}, "svccfg validate"),
        ("svccfg", {"fmri": WEB, "properties": [{"name": "port", "values": ["1"]}]}, "properties[0].name"),
        (
            "svccfg",
            {"fmri": WEB, "properties": [{"name": "a/b", "type": "count", "values": ["-1"]}]},
            "properties[0].values: '-1' is not a count",
        ),
        ("svccfg", {"fmri": WEB, "properties": [{"name": "a/b"}]}, "properties[0].values"),
        ("svccfg", {"fmri": WEB, "properties": [{"name": "a/b", "values": ["1"]}] * 2}, "more than once"),
        ("svccfg", {"properties": [], "manifest": manifest(), "state": "absent", "fmri": "x"}, "full FMRI"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_bad_input_is_refused_before_anything_is_changed(shared, module, arguments, message, check):
    result = shared.module(module, check=check, **arguments)
    assert result["failed"] and message in result["msg"]
    assert "site/web" not in shared.states() and not shared.path("/opt/custom/smf").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One for all that change nothing."""
    yield from running(Zone(tmp_path_factory.mktemp("shared") / "zone", is_global=False))


def test_a_rendered_daemon_runs_and_is_named_when_it_has_read_something_else(zone):
    """The same declaration as for systemd, through both modules."""
    secrets = zone.root / "secrets.env"
    secrets.write_text("KEY=a b=$HOME'\\n\n# no\n")
    daemon = {
        "command": "/bin/sleep 1000", "user": "root", "reads": ["/etc/a"], "environment": {"A": 'x "y" %f'}, "limits": {"NOFILE": 64},
        "drop_in": [f"EnvironmentFile={secrets}", "ExecStartPre=/bin/true 'a b'"],
    }  # fmt: skip
    service = {"name": "x", "description": "X", "image": {}, "zone": {"vcpus": 1}}

    def rendered(content):
        made = render_smf("worker", daemon, service, {"/etc/a": content})
        return made, {"manifest": made.text, "path": str(zone.path(made.path))}

    made, wish = rendered("1")
    change(zone, "svccfg", **wish)
    assert zone.module("svcadm", fmri=made.unit)["service"]["state"] == "online"
    zone.until(lambda: "sleep" in zone.good("svcs", "-Hp", made.unit), "the command")
    (process,) = zone.good("svcs", "-Hp", made.unit).splitlines()[1:]
    pid = process.split()[0]
    environment = dict(one.partition("=")[::2] for one in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    assert (environment["KEY"], environment["A"]) == ("a b=$HOME'\\n", 'x "y" %f')
    assert "Max open files            64" in Path(f"/proc/{pid}/limits").read_text()
    assert change(zone, "svccfg", **rendered("2")[1])["restart_needed"] == [made.unit]
    zone.module("svcadm", fmri=made.unit, state="restarted")
    assert zone.module("svccfg", **rendered("2")[1])["restart_needed"] == []
