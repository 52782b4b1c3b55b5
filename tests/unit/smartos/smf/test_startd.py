# SPDX-License-Identifier: GPL-3.0-or-later
"""svc.startd runs real methods: durations, failures, timeouts, dependencies, boots; see the table in the simulator's smf/README.md."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from smartos_sim.smf.contract import family

from .conftest import Zone, dependency, manifest

WEB = "svc:/site/web:default"
APP = "svc:/site/app:default"


def sh(script: str) -> str:
    return f"/bin/sh -c '{script}'"


def pids(zone: Zone, fmri: str = WEB) -> list[int]:
    lines = zone.good("svcs", "-Hp", fmri).splitlines()[1:]
    return [int(line.split()[0]) for line in lines]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


# Durations


def test_a_child_is_online_at_once_and_starts_again_whatever_its_exit_code(zone):
    mark = zone.root / "mark"
    zone.import_(manifest(start=sh(f"echo x >>{mark}; exec /bin/sleep 1000")))
    zone.until_state("online")
    for times in (2, 3, 4, 5):
        zone.until(lambda times=times: count(mark) == times - 1 and len(pids(zone)) == 1, f"start {times - 1}")
        os.kill(pids(zone)[0], signal.SIGKILL)
    zone.until(lambda: count(mark) == 5, "fifth start")
    zone.until_state("online")


def test_a_child_s_exit_code_96_leads_to_maintenance(zone):
    zone.import_(manifest(start=sh("exit 96")))
    zone.until_state("maintenance")
    zone.import_(manifest("site/app", start=sh("exit 95")))
    zone.until(lambda: zone.log(APP).count("exited with an error") > 5, "restarts")
    assert zone.state(APP) != "maintenance"


def test_a_contract_lives_until_its_last_process_and_then_starts_again(zone):
    mark = zone.root / "mark"
    zone.import_(manifest(start=sh(f"echo x >>{mark}; setsid sleep 1000 & sleep 1001 & exit 0"), duration="contract"))
    zone.until_state("online")
    zone.until(lambda: len(pids(zone)) == 2, "both processes")
    first, second = pids(zone)
    os.kill(first, signal.SIGKILL)
    zone.until(lambda: count(mark) == 2, "restart after a fatal signal")
    assert "received fatal signal from outside" in zone.log()
    zone.until(lambda: not alive(second), "the stop method's kill")


def test_a_contract_with_signals_ignored_ends_with_its_last_process(zone):
    ignore = '<propval name="ignore_error" type="astring" value="core,signal"/>'
    zone.import_(manifest(start=sh("sleep 1000 & sleep 1001 & exit 0"), duration="contract", startd=ignore))
    zone.until_state("online")
    zone.until(lambda: len(pids(zone)) == 2, "both processes")
    first, second = pids(zone)
    os.kill(first, signal.SIGKILL)
    zone.until(lambda: pids(zone) == [second], "the other one")
    assert "Stopping" not in zone.log()
    os.kill(second, signal.SIGKILL)
    zone.until(lambda: "all processes in service exited" in zone.log(), "the restart")


def test_a_transient_service_is_online_without_processes(zone):
    zone.import_(manifest(start="/bin/true", stop=":true", duration="transient"))
    zone.until_state("online")
    assert zone.good("svcs", "-Ho", "ctid", WEB).strip() == "-"


def test_a_service_that_restarts_too_quickly_goes_into_maintenance(zone):
    zone.import_(manifest(start="/bin/true", stop=":true", duration="contract"))
    zone.until_state("maintenance")
    assert zone.value("restarter/auxiliary_state") == "restarting_too_quickly"
    assert zone.log().count("Executing start method") == 9


# Failures


def test_a_failing_start_method_is_tried_three_times(zone):
    mark = zone.root / "mark"
    zone.import_(manifest(start=sh(f"echo x >>{mark}; exit 1"), duration="contract"))
    zone.until_state("maintenance")
    assert count(mark) == 3
    assert zone.value("restarter/auxiliary_state") == "fault_threshold_reached"
    assert "Start method failed repeatedly" in zone.good("svcs", "-x", WEB)


@pytest.mark.parametrize("code", [95, 96, 99, 100])
def test_some_exit_codes_are_not_tried_again(zone, code):
    mark = zone.root / "mark"
    zone.import_(manifest(start=sh(f"echo x >>{mark}; exit {code}"), duration="transient"))
    zone.until_state("maintenance")
    assert count(mark) == 1


def test_a_start_method_is_killed_with_all_its_processes_at_its_timeout(zone):
    mark = zone.root / "mark"
    zone.import_(manifest(start=sh(f"sleep 1000 & echo $! >>{mark}; wait"), duration="contract", timeout=1))
    zone.until_state("maintenance")
    assert zone.log().count("Executing start method") == 3
    zone.until(lambda: not any(alive(int(pid)) for pid in mark.read_text().split()), "their end")


def test_a_stop_method_that_leaves_processes_past_its_timeout_leads_to_maintenance(zone):
    zone.import_(manifest(start=sh('trap "" TERM; while :; do sleep 1; done'), timeout=1))
    zone.until_state("online")
    zone.until(lambda: len(pids(zone)) == 2, "the trap")
    left = pids(zone)
    assert zone.run("svcadm", "disable", "-s", WEB).returncode == 3
    assert zone.state() == "maintenance"
    zone.until(lambda: not any(map(alive, left)), "their end")


def test_the_method_s_line_has_exec_before_it(zone):
    """So a line of several commands ends with its first one; whoever wants more names a shell."""
    mark = zone.root / "mark"
    zone.import_(manifest(start=f"/bin/true && echo x >{mark}", stop=":true", duration="transient"))
    zone.until_state("online")
    assert not mark.exists()


# Context


def test_a_method_s_environment_directory_and_tokens(zone):
    mark = zone.root / "mark"
    group = '<property_group name="app" type="application"><property name="words" type="astring"><astring_list><value_node value="a b"/>'
    group += '<value_node value="c"/></astring_list></property></property_group>'
    environment = '<method_environment><envvar name="GREETING" value="say &quot;100%&quot; = x"/></method_environment>'
    line = sh(
        f'(pwd; echo "$GREETING"; echo $SMF_FMRI $SMF_METHOD $SMF_ZONENAME; echo %f %m %s %i %%; printf "[%%s]" %{{app/words:}}) >{mark}'
    )
    zone.import_(manifest(start=line, stop=":true", duration="transient", environment=environment, groups=group))
    zone.until_state("online")
    assert mark.read_text().splitlines() == [
        "/",
        'say "100%" = x',
        f"{WEB} start z1",
        f"{WEB} start site/web default %",
        "[a b:c]",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_method_runs_as_its_credential_says(zone):
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    folder.chmod(0o777)
    mark = folder / "mark"
    text = manifest(start=sh(f"id -u >{mark}; id -G >>{mark}"), stop=":true", duration="transient")
    zone.import_(
        text.replace(
            'working_directory="/">',
            'working_directory="/"><method_credential user="65534" group="7" supp_groups="7,8"/>',
        )
    )
    zone.until_state("online")
    assert mark.read_text() == "65534\n7 8\n"
    shutil.rmtree(folder)


def test_a_credential_that_is_not_there_leads_to_maintenance(zone):
    text = manifest(duration="transient")
    zone.import_(
        text.replace('working_directory="/">', 'working_directory="/"><method_credential user="nobody-knows"/>')
    )
    zone.until_state("maintenance")
    assert "Missing passwd entry" in zone.log()


# Dependencies


def online(zone: Zone, name: str, text: str) -> None:
    zone.import_(text)
    zone.until_state("online", f"svc:/{name}:default")


@pytest.mark.parametrize(
    ("grouping", "with_web_disabled", "with_web_online"),
    [("require_all", "offline", "online"), ("require_any", "offline", "online"), ("optional_all", "online", "online"),
     ("exclude_all", "online", "offline")],
)  # fmt: skip
def test_groupings(zone, grouping, with_web_disabled, with_web_online):
    zone.import_(manifest(enabled="false"))
    zone.until_state("disabled")
    zone.import_(manifest("site/app", dependencies=dependency("web", WEB, grouping, "restart")))
    zone.until_state(with_web_disabled, APP)
    zone.good("svcadm", "enable", "-s", WEB)
    zone.until_state(with_web_online, APP)


def test_an_optional_dependency_that_comes_is_waited_for(zone):
    gate = zone.root / "gate"
    zone.import_(manifest("site/app", dependencies=dependency("web", WEB, "optional_all"), enabled="false"))
    zone.import_(manifest(start=sh(f"until [ -e {gate} ]; do sleep 0.05; done"), stop=":true", duration="transient"))
    zone.until(lambda: zone.value("restarter/next_state") == "online", "its start")
    zone.good("svcadm", "enable", APP)
    zone.until_state("offline", APP)
    gate.touch()
    zone.until_state("online", APP)


def test_a_dependency_on_a_file_is_looked_at_when_something_moves(zone):
    zone.import_(manifest(dependencies=dependency("file", "file://localhost/etc/there", kind="path")))
    zone.until_state("offline")
    assert zone.run("svcadm", "enable", "-s", WEB).returncode == 4
    zone.path("/etc/there").touch()
    zone.good("svcadm", "refresh", WEB)
    zone.until_state("online")


@pytest.mark.parametrize(
    ("restart_on", "on_error", "on_restart", "on_refresh"),
    [("none", 1, 1, 1), ("error", 2, 2, 2), ("restart", 2, 3, 3), ("refresh", 2, 3, 4)],
)
def test_restart_on(zone, restart_on, on_error, on_restart, on_refresh):
    """How often the dependent has been started after the dependency failed, was restarted, was refreshed."""
    mark = zone.root / "mark"
    online(zone, "site/web", manifest(start=sh("sleep 1000 & exit 0"), duration="contract"))
    online(
        zone,
        "site/app",
        manifest(
            "site/app",
            start=sh(f"echo x >>{mark}; exec sleep 1000"),
            dependencies=dependency("web", WEB, restart_on=restart_on),
        ),
    )
    zone.until(lambda: count(mark) == 1, "the first start")
    os.kill(pids(zone)[0], signal.SIGKILL)
    zone.until(lambda: zone.log().count("Executing start") == 2, "restart after the error")
    for expected, verb in ((on_error, "restart"), (on_restart, "refresh"), (on_refresh, "")):
        zone.until_state("online")
        zone.until_state("online", APP)
        zone.until(lambda expected=expected: count(mark) == expected, f"start {expected}")
        if verb:
            zone.good("svcadm", verb, WEB)
            done = "Executing start" if verb == "restart" else "Rereading"
            zone.until(lambda done=done: zone.log().count(done) == (3 if done != "Rereading" else 2), verb)


def test_a_dependency_cycle_leads_to_maintenance(zone):
    zone.import_(manifest("site/app", dependencies=dependency("web", WEB)))
    zone.import_(manifest(dependencies=dependency("app", APP)))
    zone.until(lambda: "maintenance" in (zone.state(), zone.state(APP)), "maintenance")


def test_a_dependent_in_a_manifest_makes_another_service_wait(zone):
    text = manifest(enabled="false", dependencies=dependency("net", "svc:/milestone/network:default"))
    dependent = f'<dependent name="web-first" grouping="require_all" restart_on="none"><service_fmri value="{APP}"/></dependent>'
    zone.import_(manifest("site/app", enabled="false"))
    zone.import_(text.replace("<method_context", f"{dependent}<method_context"))
    zone.good("svcadm", "enable", APP)
    zone.until_state("offline", APP)
    assert zone.run("svcadm", "enable", "-s", APP).returncode == 4
    zone.good("svcadm", "enable", "-s", WEB)
    zone.until_state("online", APP)


# Boots


def test_services_stop_in_order_and_temporary_wishes_end_with_the_boot(zone):
    mark = zone.root / "mark"
    stop = [sh(f"echo {name} >>{mark}") for name in ("web", "app")]
    online(zone, "site/web", manifest(start="/bin/true", stop=stop[0], duration="transient"))
    online(
        zone,
        "site/app",
        manifest(
            "site/app", start="/bin/true", stop=stop[1], duration="transient", dependencies=dependency("web", WEB)
        ),
    )
    online(zone, "site/other", manifest("site/other"))
    left = pids(zone, "svc:/site/other:default")
    zone.good("svcadm", "disable", "-st", APP)
    zone.good("svcadm", "enable", "-s", APP)
    zone.good("svcadm", "disable", "-st", "svc:/site/other:default")
    mark.unlink()
    zone.shutdown()
    assert mark.read_text() == "app\nweb\n"
    assert not any(map(alive, left))
    assert zone.run("svcadm", "restart", WEB).returncode == 0, "the repository can be written while nobody serves"
    zone.boot()
    for fmri in (WEB, APP, "svc:/site/other:default"):
        zone.until_state("online", fmri)


def test_nothing_outlives_a_killed_svc_startd(zone):
    online(zone, "site/web", manifest(start=sh("setsid sleep 1000 & exit 0"), duration="contract"))
    left = pids(zone)
    zone.crash()
    zone.until(lambda: not any(map(alive, left)), "their end")
    zone.boot()
    zone.until_state("online")


def test_two_svc_startd_do_not_serve_one_zone(zone):
    done = zone.run("svc.startd")
    assert done.returncode == 1 and "another one serves" in done.stderr


def test_the_global_zone_forgets_all_but_opt_custom_smf(host):
    kept = host.path("/opt/custom/smf")
    kept.mkdir(parents=True)
    (kept / "web.xml").write_text(manifest())
    (kept / "broken.xml").write_text("<service_bundle")
    host.import_(manifest("site/app"))
    host.until_state("online", APP)
    host.shutdown()
    host.boot(fresh=True)
    host.until_state("online")
    assert APP not in host.states()
    assert "broken.xml failed" in host.path("/var/svc/log/svc.startd.log").read_text()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, to be init of a process namespace"
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGPWR, signal.SIGRTMIN + 3])
def test_as_init_it_reaps_what_is_not_its_own_and_stops_in_order(zone, number):
    mark = zone.root / "mark"
    zone.import_(manifest(start="/bin/true", stop=sh(f"echo stopped >{mark}"), duration="transient"))
    zone.shutdown()
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "svc.startd", "--zone", "z1"]
    with subprocess.Popen(command, env=zone.environment, start_new_session=True) as outer:
        try:
            zone.until_state("online")
            (init,) = [int(pid) for pid in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()]
            # What lxc-attach leaves behind: a child of nobody in the zone, which then ends.
            enter = ["nsenter", f"--pid=/proc/{init}/ns/pid_for_children", f"--mount=/proc/{init}/ns/mnt"]
            script = "(sleep 0.1; exit 3) & exit 0"
            subprocess.run([*enter, "/bin/sh", "-c", script], check=True)
            zone.until(lambda: not [one for one in family(init) if one not in (init,)], "the orphan's end")
            zone.until(lambda: "Z" not in states(init), "its reaping")
            os.kill(init, number)
            assert outer.wait(timeout=600) == 0
        finally:
            if outer.poll() is None:
                outer.kill()
    assert mark.read_text() == "stopped\n"


def states(parent: int) -> set[str]:
    """States of a process' children, zombies among them."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = set()
    for pid in children:
        with contextlib.suppress(FileNotFoundError):
            found.add(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
    return found


# Provisioning


@pytest.fixture
def provisioned(zone):
    """A zone whose first boot is over: what a test then says of it is for the next one."""
    zone.until_state("online", "svc:/smartdc/mdata:execute")
    return zone


def metadata(zone: Zone, **keys: str) -> None:
    for name, value in keys.items():
        path = zone.root / "metadata" / name.replace("_", "-")
        path.parent.mkdir(exist_ok=True)
        path.write_text(value)


def reboot(zone: Zone, end: str) -> None:
    zone.shutdown()
    zone.boot()
    zone.until_state(end, "svc:/smartdc/mdata:execute")


def test_a_zone_tells_that_it_is_provisioned_and_runs_user_script_at_every_boot(provisioned):
    mark, marker = provisioned.root / "mark", provisioned.path("/var/svc/provisioning")
    assert not provisioned.path("/var/svc/provision_success").exists()
    metadata(
        provisioned,
        user_script=f"#!/bin/sh\ncat {provisioned.path('/var/db/mdata-user-data')} >>{mark}\n",
        user_data="hello\n",
    )
    marker.touch()
    reboot(provisioned, "online")
    assert mark.read_text() == "hello\n"
    assert not marker.exists() and provisioned.path("/var/svc/provision_success").exists()
    assert oct(provisioned.path("/var/db/mdata-user-data").stat().st_mode & 0o777) == "0o600"
    reboot(provisioned, "online")
    assert mark.read_text() == "hello\nhello\n"


def test_a_user_script_that_fails_still_ends_the_provisioning(provisioned):
    metadata(provisioned, user_script="#!/bin/sh\nexit 3\n")
    provisioned.path("/var/svc/provisioning").touch()
    reboot(provisioned, "maintenance")
    assert provisioned.path("/var/svc/provision_failure").exists()


def test_a_user_script_past_its_timeout_never_ends_the_provisioning(provisioned):
    provisioned.good(
        "svccfg", "-s", "svc:/smartdc/mdata:execute", "setprop", "start/timeout_seconds", "=", "count:", "1"
    )
    provisioned.good("svcadm", "refresh", "svc:/smartdc/mdata:execute")
    metadata(provisioned, user_script="#!/bin/sh\nsleep 1000\n")
    provisioned.path("/var/svc/provisioning").touch()
    reboot(provisioned, "maintenance")
    assert provisioned.path("/var/svc/provisioning").exists()
