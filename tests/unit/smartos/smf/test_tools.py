# SPDX-License-Identifier: GPL-3.0-or-later
"""svcs, svcadm, svccfg and svcprop: texts and exit codes, and manifests in and out."""

from __future__ import annotations

import os
import signal
import xml.etree.ElementTree as ET

import pytest

from smartos_sim.smf import manifest as manifests
from smartos_sim.smf.fmri import Fmri, select

from .conftest import Zone, dependency, manifest, running

WEB = "svc:/site/web:default"


@pytest.fixture
def web(zone):
    zone.import_(manifest())
    zone.until_state("online")
    return zone


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One for all that leave the service as it is."""
    for zone in running(Zone(tmp_path_factory.mktemp("shared") / "zone", is_global=False)):
        zone.import_(manifest())
        zone.until_state("online")
        yield zone


NONE = "doesn't match any instances"


@pytest.mark.parametrize(
    ("argv", "rc", "out", "err"),
    [
        (["svcs", "-Ho", "state,nstate,fmri", WEB], 0, f"online         -              {WEB}\n", ""),
        (["svcs", "-o", "state,fmri", "web"], 0, f"STATE          FMRI\nonline         {WEB}\n", ""),
        (["svcs", "-Ho", "inst,svc,sta,desc", WEB], 0, "default          site/web                       ON   site/web\n", ""),
        (["svcs", "none"], 1, "", f"svcs: Pattern 'none' {NONE}\n"),
        (["svcs", "-q"], 2, "", None),
        (["svcs", "-o", "color"], 2, "", None),
        (["svcadm", "enable", WEB], 0, "", ""),
        (["svcadm", "-v", "enable", "-t", WEB], 0, f"{WEB} temporarily enabled.\n", ""),
        (["svcadm", "enable", "none"], 1, "", f"svcadm: Pattern 'none' {NONE}\n"),
        (["svcadm", "clear", WEB], 1, "", f'svcadm: Instance "{WEB}" is not in a maintenance or degraded state.\n'),
        (["svcadm", "jump", WEB], 2, "", None),
        (["svcadm", "enable"], 2, "", None),
        (["svcadm", "mark", "-t", "degraded", WEB], 2, "", "svcadm: -t may not be used with degraded.\n"),
        (["svcadm", "-z", "z9", "enable", WEB], 1, "", "svcadm: svcadm -z may only be used from the global zone\n"),
        (["svcprop", "-p", "start/exec", WEB], 0, "/bin/sleep\\ 1000\n", ""),
        (["svcprop", "-tp", "start/timeout_seconds", WEB], 0, "start/timeout_seconds count 10\n", ""),
        (["svcprop", "-p", "stop", WEB], 0, "stop/exec astring :kill\nstop/timeout_seconds count 10\nstop/type astring method\n", ""),
        (["svcprop", "-p", "no/such", WEB], 1, "", f"svcprop: Couldn't find property group `no' for instance `{WEB}'.\n"),
        (["svcprop", "-p", "stop/such", WEB], 1, "", f"svcprop: Couldn't find property `stop/such' for instance `{WEB}'.\n"),
        (["svcprop", "-qp", "stop/such", WEB], 1, "", ""),
        (["svcprop", "-Cp", "stop/exec", WEB], 1, "", None),
        (["svcprop", "-fp", "stop/exec", WEB], 0, f"{WEB}/:properties/stop/exec astring :kill\n", ""),
        (["svcprop", "-p", "a/b", "none"], 1, "", f"svcprop: Pattern 'none' {NONE} or services\n"),
        (["svccfg", "-s", "none", "listprop"], 1, "", f"svccfg: Pattern 'none' {NONE} or services\n"),
        (["svccfg", "-s", "site/web", "listprop", "stop/e*"], 0, "stop/exec  astring :kill\n", ""),
        (["svccfg", "-s", WEB, "listprop", "stop/e*"], 0, "", ""),
        (["svccfg", "-s", WEB, "setprop", "a/b", "=", "count:", "1"], 1, "", 'svccfg: No such property group "a".\n'),
        (["svccfg", "-s", "site/web", "setprop", "stop/n", "=", "count:", "x"], 1, "", 'svccfg: Invalid "count" value "x".\n'),
        (["svccfg", "-s", "site/web", "setprop", "stop/n"], 1, "", "svccfg: Syntax error.\n"),
        (["svccfg", "setprop", "a/b", "=", "count:", "1"], 1, "", "svccfg: An entity is not selected.\n"),
        (["svccfg", "-s", "site/web", "delprop", "stop/none"], 1, "", 'svccfg: No such property "stop/none".\n'),
        (["svccfg", "import", "/none.xml"], 1, "", None),
        (["svccfg", "-f", "/none"], 1, "", "svccfg: Could not open /none: No such file or directory.\n"),
        (["svccfg", "list", "site/*"], 0, "site/web\n", ""),
        (["svccfg", "-x"], 2, "", None),
    ],
)  # fmt: skip
def test_texts_and_exit_codes(shared, argv, rc, out, err):
    done = shared.run(*argv)
    assert (done.returncode, done.stdout) == (rc, out), done.stderr
    assert done.stderr == err if err is not None else done.stderr


def test_the_state_has_a_star_while_it_changes_unless_the_next_one_is_shown(zone):
    zone.import_(manifest(start="/bin/sleep 1000", duration="transient", timeout=0))
    zone.until(lambda: zone.value("restarter/next_state") == "online", "its start")
    assert zone.good("svcs", "-Ho", "state", WEB) == "offline*\n"
    assert zone.good("svcs", "-Ho", "state,nstate", WEB).split() == ["offline", "online"]
    zone.good("svcadm", "disable", WEB)


def test_only_enabled_ones_are_listed_unless_asked(zone):
    zone.import_(manifest(enabled="false"))
    zone.until_state("disabled")
    assert "site/web" not in zone.good("svcs") and "site/web" in zone.good("svcs", "-a")


def test_svcs_explains_and_tells_dependencies(web):
    web.import_(manifest("site/app", dependencies=dependency("web", WEB)))
    web.until_state("online", "svc:/site/app:default")
    assert web.good("svcs", "-Hdo", "fmri", "app").split() == [WEB]
    assert web.good("svcs", "-HDo", "fmri", WEB).split() == ["svc:/site/app:default"]
    assert f"dependency   require_all/none {WEB} (online)" in web.good("svcs", "-l", "app")
    assert web.good("svcs", "-x") == ""
    web.good("svcadm", "disable", "-st", WEB)
    web.good("svcadm", "restart", "app")
    web.until_state("offline", "svc:/site/app:default")
    assert f"Reason: Dependency {WEB} is disabled." in web.good("svcs", "-x")
    assert web.good("svcs", "-L", WEB) == "/var/svc/log/site-web:default.log\n"


def test_properties_take_effect_only_with_a_refresh(web):
    web.good("svccfg", "-s", "svc:/site/web", "setprop", "start/timeout_seconds", "=", "count:", "99")
    assert web.good("svcprop", "-p", "start/timeout_seconds", WEB) == "10\n"
    assert web.good("svcprop", "-cp", "start/timeout_seconds", WEB) == "99\n"
    assert web.good("svcprop", "-p", "start/timeout_seconds", "svc:/site/web") == "99\n", "a service has no snapshot"
    web.good("svcadm", "refresh", WEB)
    web.until(lambda: web.good("svcprop", "-p", "start/timeout_seconds", WEB) == "99\n", "the refresh")
    assert web.good("svcprop", "-s", "start", "-p", "start/timeout_seconds", WEB) == "10\n", "what it was started with"


def test_commands_over_standard_input(web):
    commands = 'select site/web\n# a comment\naddpg app application\nsetprop app/a = astring: ("x y" "q\\"\\\\" "l1\nl2")\nsetprop app/n = count: 3\n'
    web.good("svccfg", "-f", "-", stdin=commands)
    assert web.good("svcprop", "-p", "app/a", "svc:/site/web") == 'x\\ y q\\"\\\\ l1\\\nl2\n'
    done = web.run("svccfg", "-f", "-", stdin="select site/web\nsetprop app/n = astring: x\nsetprop app/m = count: 1\n")
    assert done.returncode == 1 and done.stderr.startswith("svccfg (<stdin>, line 2): ")
    assert web.run("svcprop", "-p", "app/m", "svc:/site/web").returncode == 1, "the first error ends it"


def test_a_command_line_is_cut(web):
    web.good("svccfg", "-s", "site/web", "addpg", "app", "application")
    done = web.run("svccfg", "-s", "site/web", "setprop", "app/a", "=", "astring:", '"' + "x" * 3000 + '"')
    assert done.returncode == 1


def test_deleting_what_runs_takes_force_and_leaves_it_running(web):
    assert web.run("svccfg", "delete", WEB).returncode == 1
    (line,) = web.good("svcs", "-Hp", WEB).splitlines()[1:]
    web.good("svccfg", "delete", "-f", "svc:/site/web")
    assert web.run("svcs", WEB).returncode == 1
    os.kill(int(line.split()[0]), signal.SIGKILL)


def test_an_operand_that_means_several_is_passed_over(zone):
    zone.import_(manifest().replace("<template>", '<instance name="b" enabled="false"/><template>'))
    zone.until_state("online")
    done = zone.run("svcadm", "disable", "web")
    assert done.returncode == 1 and "matches multiple instances:\n    svc:/site/web:b" in done.stderr
    zone.good("svcadm", "disable", "svc:/site/web:*")
    zone.until_state("disabled")


def test_enable_r_enables_what_is_needed(zone):
    zone.import_(manifest(enabled="false"))
    zone.import_(manifest("site/app", enabled="false", dependencies=dependency("web", WEB)))
    zone.good("svcadm", "enable", "-rs", "site/app")
    assert zone.state() == "online"


def test_another_zone_of_a_global_zone(host, tmp_path):
    inner = Zone(host.root / "zones/z1/root", is_global=False)
    inner.root.mkdir(parents=True)
    inner.environment["MDATA_GET"] = "/bin/false"
    inner.boot()
    try:
        inner.import_(manifest())
        inner.until_state("online")
        assert host.good("svcs", "-z", "z1", "-Ho", "state", WEB).strip() == "online"
        assert host.good("svcprop", "-z", "z1", "-p", "restarter/state", WEB) == "online\n"
        host.good("svcadm", "-z", "z1", "disable", "-s", WEB)
        assert inner.state() == "disabled"
        assert host.run("svcadm", "-z", "z9", "enable", WEB).stderr == "svcadm: invalid zone 'z9'\n"
    finally:
        inner.shutdown()


def test_a_repository_that_nobody_serves(tmp_path):
    """What vmadm does before a zone's first boot."""
    zone = Zone(tmp_path / "z", is_global=False)
    zone.root.mkdir()
    zone.good("svc.startd", "--seed")
    zone.environment["SVCCFG_REPOSITORY"] = str(zone.path("/etc/svc/repository.db"))
    del zone.environment["SMARTOS_SIM_ROOT"]
    zone.good("svccfg", "-s", "svc:/smartdc/mdata:execute", "setprop", "start/timeout_seconds", "=", "count:", "30")
    zone.good("svccfg", "-s", "svc:/smartdc/mdata:execute", "refresh")
    zone.environment["SMARTOS_SIM_ROOT"] = str(zone.root)
    assert zone.good("svcprop", "-p", "start/timeout_seconds", "svc:/smartdc/mdata:execute") == "30\n"
    zone.environment["SVCCFG_REPOSITORY"] = str(tmp_path / "none")
    assert zone.run("svccfg", "list").returncode == 1


def test_what_is_exported_can_be_imported(web):
    web.import_(
        manifest(
            groups='<property_group name="app" type="application"><propval name="a" type="astring" value="&lt;&amp;&quot;"/></property_group>',
            environment='<method_environment><envvar name="A" value="b=c"/></method_environment>',
            dependencies=dependency("net", "svc:/milestone/network:default"),
        )
    )
    text = web.good("svccfg", "export", "svc:/site/web")
    before = sorted(web.good("svcprop", "-C", "svc:/site/web").splitlines())
    web.good("svcadm", "disable", "-s", WEB)
    web.good("svccfg", "delete", "site/web")
    web.import_(text)
    assert sorted(web.good("svcprop", "-C", "svc:/site/web").splitlines()) == before
    web.until_state("online")


# Manifests


def test_an_import_upgrades_what_nobody_has_changed(web):
    web.good("svccfg", "-s", "site/web", "setprop", "stop/timeout_seconds", "=", "count:", "20")
    done = web.root / "new.xml"
    done.write_text(manifest(start="/bin/sleep 2", timeout=30, enabled="false"))
    said = web.run("svccfg", "import", str(done))
    assert said.returncode == 0 and '"stop/timeout_seconds"' in said.stderr
    assert web.value("start/exec") == "/bin/sleep\\ 2" and web.value("start/timeout_seconds") == "30"
    assert web.value("stop/timeout_seconds") == "20"
    assert web.value("general/enabled") == "true", "the administrator's preference"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("timeout_seconds", "timeout", "does not carry attribute timeout_seconds"),
        ('timeout_seconds="10"', 'timeout_seconds="ten"', 'Invalid "count" value'),
        ('value="child"', 'value="child" colour="red"', "No declaration for attribute colour"),
        ("<template>", "<unknown/><template>", "does not follow the DTD"),
        ('enabled="true"', 'enabled="yes"', "is not among the enumerated set"),
        ('name="site/web"', 'name="/site"', "is no name of a service"),
        ('version="1"', 'version="one"', "is no integer"),
        ("</service>", "</services>", "couldn't parse document"),
        ('type="manifest"', 'type="profile"', "is not a manifest"),
        ("<method_context", "text<method_context", "it holds text"),
    ],
)
def test_validate_refuses_what_the_dtd_does_not_allow(zone, old, new, message):
    path = zone.root / "wrong.xml"
    path.write_text(manifest().replace(old, new, 1))
    for verb in ("validate", "import"):
        done = zone.run("svccfg", verb, str(path))
        assert done.returncode == 1 and message in done.stderr
    assert "site/web" not in zone.states()


def test_elements_in_a_wrong_order_are_refused():
    root = ET.fromstring(manifest())
    service = root[0]
    template = service.find("template")
    service.remove(template)
    service.insert(0, template)
    with pytest.raises(manifests.ManifestError, match="does not follow the DTD"):
        manifests.check(root)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("svc:/network/smtp:sendmail", True), ("svc:/network/smtp", True), ("sendmail", True), (":sendmail", True), ("smtp", True),
        ("smtp:sendmail", True), ("network/smtp", True), ("network/*mail", True), ("*smtp*", True), ("mail", False),
        ("network", False), ("network/smt", False), ("svc:/network/smtp:other", False),
    ],
)  # fmt: skip
def test_abbreviations(pattern, expected):
    assert bool(select(pattern, [Fmri("network/smtp", "sendmail")])) is expected
