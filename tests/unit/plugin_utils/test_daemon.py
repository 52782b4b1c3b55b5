# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.daemon import digest, is_read, render_systemd

SERVICE = {"name": "keystone", "description": "Identity", "image": {"user": "keystone"}, "zone": {"vcpus": 2}}


@pytest.mark.parametrize(
    ("path", "reads", "expected"),
    [
        ("/etc/a/b.conf", ["/etc/a"], True),
        ("/etc/a", ["/etc/a"], True),
        ("/etc/ab", ["/etc/a"], False),
        ("/etc/a/b", ["/etc/a/"], True),
    ],
)
def test_what_lies_below_a_path_is_read(path, reads, expected):
    assert is_read(path, reads) is expected


def test_digest_changes_with_what_is_read_and_with_nothing_else():
    before = digest({"/etc/a": "1", "/etc/b": "1"}, ["/etc/a"], "unit")
    assert digest({"/etc/a": "1", "/etc/b": "2"}, ["/etc/a"], "unit") == before
    assert digest({"/etc/a": "2", "/etc/b": "1"}, ["/etc/a"], "unit") != before
    assert digest({"/etc/a": "1", "/etc/b": "1"}, ["/etc/a"], "other") != before


def test_a_packaged_unit_gets_a_drop_in():
    made = render_systemd("db", {"unit": "mariadb", "drop_in": ["ExecStart="], "after": ["x.service"]}, SERVICE, {})
    assert made.path == "/etc/systemd/system/mariadb.service.d/zonestack.conf"
    assert "After=x.service" in made.text.split("[Service]")[0]
    assert "[Install]" not in made.text
    # the package's own ExecStartPre may be reset by the drop-in; ours must come after that
    assert made.text.index("ExecStart=\n") < made.text.index("ExecStartPre=+/bin/sh")


def test_a_unit_s_text_does_not_change_with_what_it_reads():
    made = [render_systemd("x", {"command": "c", "reads": ["/etc/a"]}, SERVICE, {"/etc/a": v}) for v in "12"]
    assert made[0].text == made[1].text
    assert made[0].digest != made[1].digest


def test_a_wsgi_daemon_runs_as_the_service_s_user_with_two_workers_a_processor():
    made = render_systemd("keystone-api", {"wsgi": "keystone.wsgi.api:application"}, SERVICE, {})
    assert "User=keystone" in made.text
    assert "--processes 4 " in made.text
    assert "WantedBy=multi-user.target" in made.text


def test_a_lazy_wsgi_daemon_loads_its_application_in_each_of_fewer_processes():
    made = render_systemd("neutron-api", {"wsgi": "neutron.wsgi.api:application", "lazy": True}, SERVICE, {})
    assert " --lazy-apps " in made.text
    assert "--processes 2 " in made.text
    assert "--lazy-apps" not in render_systemd("k", {"wsgi": "m:a"}, SERVICE, {}).text


def test_only_who_takes_bodies_of_any_size_is_spoken_to_in_http():
    """uWSGI's own protocol knows no chunks: nginx would keep a whole body first, whoever sends it."""
    whole = render_systemd("glance-api", {"wsgi": "m:a", "max_body": 0}, SERVICE, {}).text
    assert " --http-socket /run/glance-api/uwsgi.sock " in whole and "--uwsgi-socket" not in whole
    limited = render_systemd("keystone-api", {"wsgi": "m:a", "max_body": 1}, SERVICE, {}).text
    assert " --uwsgi-socket /run/keystone-api/uwsgi.sock " in limited and "--http-socket" not in limited


def test_an_application_server_is_confined():
    made = render_systemd("keystone-api", {"wsgi": "m:a"}, SERVICE, {}).text
    assert {"NoNewPrivileges=true", "ProtectSystem=full", "PrivateTmp=true"} <= set(made.splitlines())


def test_an_environment_value_reaches_the_daemon_as_it_is():
    made = render_systemd("x", {"command": "/bin/x", "environment": {"A": 'say "100%" \\o/'}}, SERVICE, {})
    assert r'Environment="A=say \"100%%\" \\o/"' in made.text


def test_the_certificate_is_read_by_every_daemon_that_has_tls():
    with_tls = [render_systemd("x", {"command": "c"}, SERVICE, {"/tls/a": v}, ["/tls"]).digest for v in "12"]
    without = [
        render_systemd("x", {"command": "c", "tls": False}, SERVICE, {"/tls/a": v}, ["/tls"]).digest for v in "12"
    ]
    assert with_tls[0] != with_tls[1]
    assert without[0] == without[1]


def test_of_a_daemon_that_is_reloaded_unit_and_files_are_told_apart():
    def mark(content, drop_in):
        daemon = {"unit": "a", "tls": False, "reload": True, "reads": ["/etc/a"], "drop_in": [drop_in]}
        return render_systemd("a", daemon, SERVICE, {"/etc/a/b": content}).digest.split(".")

    (unit, files), (same, others), (another, again) = mark("1", "x"), mark("2", "x"), mark("1", "y")
    assert unit == same != another
    assert others != files == again
