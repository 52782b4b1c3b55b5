# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon's declaration as an SMF manifest: valid by the DTD's structure, run by the simulator's svc.startd, or refused."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.plugin_utils.daemon import render_systemd
from smartos_sim.smf import manifest
from smf_manifest import SmfRenderError, fmri_of, render_smf

ROOT = Path(__file__).resolve().parents[4]

SERVICE = {"name": "keystone", "description": "Identity", "image": {"user": "keystone"}, "zone": {"vcpus": 2}}
RUN = {"command": "/opt/keystone/bin/run --config /etc/keystone"}


def render(daemon, files=None, **further):
    """The manifest, checked; and the groups of its one service."""
    made = render_smf("worker", daemon, SERVICE, files or {}, **further)
    (service,) = manifest.parse(ET.fromstring(made.text))
    return made, service


def line(daemon):
    return render(daemon)[1].groups["start"].first("exec")


def test_a_daemon_in_the_foreground_is_a_child_that_runs_as_its_user():
    made, service = render({**RUN, "environment": {"A": 'say "100%" \\o/'}})
    groups = service.groups
    assert (made.unit, made.path) == ("svc:/zonestack/worker:default", "/opt/custom/smf/zonestack-worker.xml")
    assert (
        str(service.fmri) + ":default" == made.unit
        and service.instances["default"]["general"].first("enabled") == "true"
    )
    assert groups["start"].first("exec") == "/opt/keystone/bin/run --config /etc/keystone"
    assert groups["startd"].first("duration") == "child"
    assert groups["stop"].first("exec") == ":kill" and groups["stop"].first("timeout_seconds") == "30"
    context = groups["method_context"]
    assert [context.first(key) for key in ("user", "group", "supp_groups", "working_directory")] == [
        "keystone",
        "keystone",
        "keystone,zonetls",
        "/",
    ]
    assert 'A=say "100%" \\o/' in context.properties["environment"].values
    assert '<!DOCTYPE service_bundle SYSTEM "/usr/share/lib/xml/dtd/service_bundle.dtd.1">' in made.text


@pytest.mark.parametrize(
    ("kind", "duration", "timeout", "stop"),
    [("simple", "child", "0", ":kill"), ("exec", "child", "0", ":kill"), ("notify", "child", "0", ":kill"),
     ("forking", "contract", "90", ":kill"), ("oneshot", "transient", "90", ":true")],
)  # fmt: skip
def test_durations(kind, duration, timeout, stop):
    groups = render({**RUN, "type": kind})[1].groups
    assert groups["startd"].first("duration") == duration
    assert groups["start"].first("timeout_seconds") == timeout
    assert groups["stop"].first("exec") == stop


def test_without_tls_there_is_no_group_of_the_certificate():
    context = render({**RUN, "tls": False, "user": "nova"})[1].groups["method_context"]
    assert context.first("supp_groups") == "nova"


def test_root_needs_no_credential():
    assert "user" not in render({**RUN, "user": "root"})[1].groups["method_context"].properties


def test_a_wsgi_daemon_makes_its_directory_as_root_and_then_becomes_its_user():
    text = line({"wsgi": "keystone.wsgi.api:application"})
    assert text.startswith(
        "/bin/sh -c 'mkdir -p /run/worker && chown keystone:www-data /run/worker && chmod 0750 /run/worker && exec /opt/keystone/bin/uwsgi "
    )
    assert "--uid keystone --gid www-data --add-gid keystone --add-gid zonetls" in text
    assert "--processes 4 " in text
    assert "user" not in render({"wsgi": "a:b"})[1].groups["method_context"].properties


def test_what_comes_before_a_command_goes_to_a_shell_by_name():
    """Because svc.startd puts exec before the line."""
    text = line(
        {
            **RUN,
            "limits": {"NOFILE": 65536},
            "drop_in": ["ExecStartPre=/bin/wait 80 'a b'", "PrivateTmp=true", "TimeoutStopSec=5"],
        }
    )
    assert (
        text
        == """/bin/sh -c 'ulimit -n 65536 && /bin/wait 80 '"'"'a b'"'"' && exec /opt/keystone/bin/run --config /etc/keystone'"""
    )


def test_a_per_cent_sign_is_no_token():
    text = line({"command": "/bin/x", "user": "root", "drop_in": ["EnvironmentFile=/etc/x.env"]})
    assert "${line%%%%=*}" in text


def test_timeouts_and_signal():
    groups = render(
        {**RUN, "type": "forking", "drop_in": ["TimeoutStartSec=15min", "TimeoutStopSec=5", "KillSignal=SIGQUIT"]}
    )[1].groups
    assert groups["start"].first("timeout_seconds") == "900"
    assert (groups["stop"].first("exec"), groups["stop"].first("timeout_seconds")) == (":kill -QUIT", "5")


def test_dependencies():
    known = {"agent.service": fmri_of("agent")}
    groups = render({**RUN, "after": ["agent.service", "svc:/network/ssh:default"]}, known=known)[1].groups
    found = {
        name: (group.first("grouping"), group.first("restart_on"), group.first("entities"))
        for name, group in groups.items()
        if group.type == "dependency"
    }
    assert found == {
        "filesystem": ("require_all", "none", "svc:/system/filesystem/local:default"),
        "network": ("optional_all", "none", "svc:/milestone/network:default"),
        "after_0": ("optional_all", "none", "svc:/zonestack/agent:default"),
        "after_1": ("optional_all", "none", "svc:/network/ssh:default"),
    }


@pytest.mark.parametrize(
    ("daemon", "message"),
    [
        ({"unit": "mariadb"}, "daemons.worker.unit: mariadb is a unit that a Linux package brings"),
        ({**RUN, "limits": {"NPROC": 5}}, "daemons.worker.limits.NPROC"),
        ({**RUN, "limits": {"NOFILE": "infinity"}}, "daemons.worker.limits.NOFILE"),
        (
            {**RUN, "drop_in": ["Slice=x.slice"]},
            r"daemons.worker.drop_in Slice=: SMF has no counterpart \(known: Environment, ",
        ),
        ({**RUN, "drop_in": ["EnvironmentFile=/etc/x"]}, "only root can do that"),
        ({**RUN, "drop_in": ["RuntimeDirectory=x"]}, "only root can do that"),
        ({**RUN, "drop_in": ["TimeoutStopSec=2h 3s"]}, "write whole seconds"),
        ({**RUN, "drop_in": ["ExecStartPre=+/bin/x"]}, "write it out"),
        ({"command": "/bin/x $HOME"}, "write it out"),
        ({"command": "/bin/x %n"}, "write it out"),
        ({**RUN, "after": ["libvirtd.service"]}, r"daemons.worker.after\[0\]: 'libvirtd.service' is unknown"),
    ],
)
def test_what_smf_cannot_do_is_refused(daemon, message):
    with pytest.raises(SmfRenderError, match=message):
        render_smf("worker", daemon, SERVICE, {})


def test_the_digest_changes_with_what_is_read_and_with_the_manifest():
    daemon = {**RUN, "reads": ["/etc/a"]}
    marks = [
        render(daemon, {"/etc/a": a, "/etc/b": b})[1].groups["zonestack"].first("digest") for a, b in ("11", "12", "21")
    ]
    assert marks[0] == marks[1] != marks[2]
    assert render({**daemon, "environment": {"A": "b"}}, {"/etc/a": "1"})[0].digest != marks[0]
    certificate = [render_smf("x", RUN, SERVICE, {"/tls/a": v}, ["/tls"]).digest for v in "12"]
    assert certificate[0] != certificate[1]


def services_daemons():
    """Every daemon of every service, as declared; templates in it do not matter here."""
    for path in sorted((ROOT / "services").glob("*/*.yml")):
        data = yaml.safe_load(path.read_text())
        for part in [data, *(data.get("components") or {}).values()]:
            for name, daemon in (part.get("daemons") or {}).items():
                yield pytest.param(data, part, name, daemon, id=f"{path.parent.name}-{name}")


@pytest.mark.parametrize(("data", "part", "name", "daemon"), services_daemons())
def test_every_daemon_that_is_declared_is_rendered_or_refused_with_its_reason(data, part, name, daemon):
    service = {
        "name": "x", "description": "d", "image": {**(data.get("image") or {}), **(part.get("image") or {})}, "zone": {"vcpus": 2},
    }  # fmt: skip
    assert render_systemd(name, daemon, service, {}).text
    known = {f"{unit}.service": fmri_of(unit) for unit in part.get("daemons") or {}}
    try:
        made = render_smf(name, daemon, service, {}, known=known)
    except SmfRenderError as refused:
        assert str(refused).startswith(f"daemons.{name}.")
        return
    manifest.parse(ET.fromstring(made.text))
