# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that zones run: its file half on real files; its daemon half is tested in zones that run."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.zone import tree as zone_tree
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.tree import Systemd, TreeError, apply, probe, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root, so it needs to be root")


def entry(path, **more):
    return {
        "path": str(path),
        "mode": "0640",
        "owner": "root",
        "group": "root",
        "validate": [],
        "secret": False,
        **more,
    }


def request(check=False, **params):
    rest = {"directories": [], "files": [], "exclusive": [], "daemons": [], "start": True, "restart": False, "wait": 5}
    return {"check": check, **rest, **params}


def done(check=False, **params):
    """What a call returns that does not fail."""
    result = apply(request(check, **params))
    assert "failed" not in result, result["msg"]
    return result


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root, so it needs to be root")


def test_a_new_file_is_written_with_its_mode_and_shown(tmp_path):
    target = tmp_path / "sub" / "a.conf"
    made = done(files=[entry(target, content="x = \u20ac\n")])
    assert target.read_text(encoding="utf-8") == "x = \u20ac\n"
    assert target.stat().st_mode & 0o7777 == 0o640
    assert made["diff"][0]["after"] == "x = \u20ac\n"
    assert made["changed"]


def test_a_second_run_is_silent(tmp_path):
    wanted = {
        "directories": [entry(tmp_path / "d", mode="0750")],
        "files": [entry(tmp_path / "d" / "f", content="x\r\n")],
    }
    done(**wanted)
    assert done(**wanted) == {
        "changed": False,
        "diff": [],
        "written": [],
        "started": [],
        "waiting": [],
        "restart": [],
        "restarted": [],
        "reloaded": [],
    }


def test_check_mode_tells_the_same_and_writes_nothing(tmp_path):
    wanted = {"files": [entry(tmp_path / "f", content="x\n")]}
    dry = done(check=True, **wanted)
    assert not (tmp_path / "f").exists()
    assert dry == done(**wanted)


def test_a_mode_alone_is_a_change(tmp_path):
    target = tmp_path / "f"
    target.write_text("x\n")
    target.chmod(0o644)
    made = done(files=[entry(target, content="x\n")])
    assert target.stat().st_mode & 0o777 == 0o640
    assert "0644" in made["diff"][0]["before"] and "0640" in made["diff"][0]["after"]


def test_what_a_killed_run_left_is_gone_after_the_next(tmp_path):
    wanted, folder = entry(tmp_path / "f", content="x\n"), str(tmp_path)
    left = zone_tree.Tree(check=False).candidate({**wanted, "content": "half"}, folder)
    os.chmod(left, 0o666)
    done(files=[wanted])
    assert os.listdir(folder) == ["f"] and (tmp_path / "f").read_text() == "x\n"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_a_secret_is_written_and_not_shown(tmp_path):
    made = done(files=[entry(tmp_path / "s", content="hunter2\n", secret=True)])
    assert (tmp_path / "s").read_text() == "hunter2\n"
    assert "hunter2" not in str(made)
    made = done(files=[entry(tmp_path / "s", content="hunter3\n", secret=True)])
    assert "hunter" not in str(made) and "(new content, not shown)" in str(made)


def test_a_refused_file_leaves_everything_as_it_was(tmp_path):
    good, bad = (
        entry(tmp_path / "good", content="1\n"),
        entry(tmp_path / "bad", content="2\n", validate=["grep", "-q", "3", "{path}"]),
    )
    made = apply(request(files=[good, bad]))
    assert made["failed"] and "refused by grep; nothing was changed" in made["msg"]
    assert not made["changed"]
    assert list(tmp_path.iterdir()) == []


def test_an_exclusive_directory_loses_what_is_not_declared(tmp_path):
    (tmp_path / "7").write_text("old")
    made = done(files=[entry(tmp_path / "0", content="new", secret=True)], exclusive=[str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]
    assert str(tmp_path / "7") in made["written"]


def test_an_unknown_owner_is_refused_before_anything_is_written(tmp_path):
    made = apply(
        request(files=[entry(tmp_path / "a", content="1"), entry(tmp_path / "b", content="1", owner="nobody-here")])
    )
    assert made["failed"] and "'nobody-here'" in made["msg"] and "create them in the service's image" in made["msg"]
    assert list(tmp_path.iterdir()) == []


def test_a_closed_port_is_named():
    assert "port 1 of 127.0.0.1" in probe({"tcp": 1})
    assert "http://127.0.0.1:1/: " in probe({"http": "http://127.0.0.1:1/"})
    assert "`false` ended with exit code 1" in probe({"command": ["false"]})
    assert probe({"command": ["true"]}) == ""


def test_a_command_tells_its_exit_code_and_both_streams():
    argv = ["sh", "-c", "head -c 300000 /dev/zero; echo wrong >&2; cat; exit 3"]
    rc, out, err = run(argv, check=False)
    assert (rc, len(out), err) == (3, 300000, "wrong\n")
    with pytest.raises(TreeError, match="ended with exit code 3: wrong"):
        run(argv)


def test_a_command_that_is_late_is_killed_and_one_that_is_missing_named():
    begun = time.monotonic()
    with pytest.raises(TreeError, match="`sleep 1000` ended with exit code 124: still running after 0.2 s, killed"):
        run(["sleep", "1000"], timeout=0.2)
    assert time.monotonic() - begun < 900
    with pytest.raises(TreeError, match="127: there is no program no-such-command in this zone"):
        run(["no-such-command"])


SYSTEMCTL = """#!/bin/sh
echo "${SYSTEMCTL_SKIP_SYSV:+no init scripts: }$*" >>{calls}
case "$1 $2" in
  "show --property=Job,ActiveState") printf 'Job={job}\nActiveState={later}\n'; exit ;;
esac
case $1 in
  show) for unit; do case $unit in *.service) printf 'Id=%s\nActiveState={active}\nUnitFileState={enabled}\nNeedDaemonReload=no\n\n' "$unit";; esac; done ;;
esac
"""


class Zone:
    """A zone whose systemctl is a script."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        monkeypatch.setattr(zone_tree, "RUN_DIRECTORY", str(folder))
        monkeypatch.setattr(zone_tree, "DIGEST_DIRECTORY", str(folder / "digests"))
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def call(
        self,
        digest="new",
        ready=None,
        running="",
        active="active",
        enabled="enabled",
        later="active",
        unnoticed=False,
        reload=False,
        job="",
        **params,
    ):
        """Apply one daemon that runs with the digest ``running``."""
        calls = self.folder / "calls"
        calls.write_text("")
        script = self.folder / "systemctl"
        script.write_text(
            SYSTEMCTL.replace("{calls}", str(calls))
            .replace("{active}", active)
            .replace("{enabled}", enabled)
            .replace("{later}", later)
            .replace("{job}", job)
        )
        script.chmod(0o755)
        (self.folder / "journalctl").write_text("#!/bin/sh\necho it is broken\n")
        (self.folder / "journalctl").chmod(0o755)
        (self.folder / "a.service").write_text(f"{running}\n")
        daemon = {
            "unit": "a.service",
            "digest": digest,
            "reads": [str(self.folder / "etc"), str(self.folder / "program")],
            "clustered": False,
            "unnoticed": unnoticed,
            "reload": reload,
            "ready": ready or {},
        }
        result = apply(request(**{"daemons": [daemon], **params}))
        return result, [line for line in calls.read_text().splitlines() if not line.startswith("show")]


@pytest.fixture
def zone(tmp_path, monkeypatch):
    return Zone(tmp_path, monkeypatch)


def test_a_daemon_that_runs_with_its_files_is_left_alone(zone):
    result, calls = zone.call(running="new")
    assert (result["changed"], calls) == (False, [])
    assert (zone.folder / "digests/a.service").read_text() == "new\n"


def test_a_daemon_with_older_files_waits_for_its_turn(zone):
    result, calls = zone.call(running="old")
    assert (result["changed"], result["restart"], calls) == (False, ["a.service"], [])


def test_a_daemon_that_does_not_serve_needs_no_turn(zone):
    result, calls = zone.call(running="old", ready={"command": ["false"]}, check=True)
    assert (result["changed"], result["restarted"], calls) == (True, ["a.service"], [])
    assert not (zone.folder / "digests").exists()


def test_a_daemon_whose_restart_cuts_nobody_off_has_no_turn(zone):
    result, calls = zone.call(running="old", unnoticed=True)
    assert (result["changed"], result["restart"], result["restarted"]) == (True, [], ["a.service"])
    assert calls[0] == "--no-block restart a.service"


def test_a_daemon_that_reads_its_files_anew_is_not_restarted(zone):
    result, calls = zone.call(running="unit.old", digest="unit.new", reload=True)
    assert (result["changed"], result["restart"], result["restarted"], result["reloaded"]) == (
        True,
        [],
        [],
        ["a.service"],
    )
    assert calls == ["reload a.service"]
    assert (zone.folder / "a.service").read_text() == "unit.new\n"


def test_a_daemon_whose_unit_changed_is_not_reloaded(zone):
    result, calls = zone.call(running="old.same", digest="new.same", reload=True)
    assert (result["changed"], result["restart"], result["reloaded"], calls) == (False, ["a.service"], [], [])


def test_a_daemon_that_is_not_to_be_started_is_named(zone):
    result, calls = zone.call(active="inactive", start=False)
    assert (result["changed"], result["waiting"], calls) == (False, ["a.service"], [])


def test_a_daemon_is_started_and_one_that_fails_has_its_last_words_told(zone):
    result, calls = zone.call(active="inactive", later="failed")
    assert calls == [
        "reset-failed a.service",
        "no init scripts: enable --quiet --no-reload a.service",
        "--no-block start a.service",
    ]
    assert result["failed"] and result["started"] == ["a.service"]
    assert result["msg"] == "a.service failed to start. The last lines of its journal:\nit is broken"


def test_a_daemon_that_was_killed_on_its_way_to_a_start_has_not_failed(zone):
    result, _calls = zone.call(running="old", restart=True, later="failed", job="4711", wait=0)
    assert result["msg"].startswith("a.service is not ready after 0 s (its state in systemd is failed)")


def test_a_daemon_that_is_not_ready_in_time_is_a_failure(zone):
    result, _calls = zone.call(running="old", restart=True, wait=0)
    assert result["msg"].startswith("a.service is not ready after 0 s (its state in systemd is active)")


def test_a_changed_unit_file_is_told_to_systemd(zone, monkeypatch):
    assert not Systemd([]).outdated
    monkeypatch.setattr(
        zone_tree.Tree, "write", lambda self, *rest: self.written.append("/etc/systemd/system/a.service")
    )
    assert zone.call(running="new")[1] == ["daemon-reload"]


PROGRAM = '#!/usr/bin/python3\n"""What it is."""\n\nX = {"a": 1}\n\ndef f(x):\n    """Why."""\n    return [x,\n            X]\n'
OPTIONS = "# Written by zonestack.\n\n[DEFAULT]\n# services/a.yml\nkey = 1\n"


def noted(zone, digest="old"):
    """What was noted before: the zone's daemon runs with the files that are there."""
    (zone.folder / "digests").mkdir(exist_ok=True)
    (zone.folder / "digests/a.service").write_text(f"{digest}\n")


def reword(zone, name, old, new, **more):
    """A daemon whose file was ``old``, and is to be ``new``."""
    path = zone.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(old)
    path.chmod(0o640)
    files = [entry(path, content=new, comments=name.endswith(".conf"))]
    return zone.call(running="old", files=[*files, *more.pop("others", [])], **more)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("etc/a.conf", OPTIONS, OPTIONS.replace("services/a.yml", "services/a/service.yml")),
        ("etc/a.conf", OPTIONS, OPTIONS.replace("# services/a.yml\n", "")),
        ("program", PROGRAM, PROGRAM.replace("[x,\n            X]", "[x, X]  # both").replace("Why.", "Because.")),
        ("etc/a.py", "A = 1\n", "# one\nA = 1\n"),
    ],
)
def test_a_change_of_comments_and_form_restarts_nobody(zone, name, old, new):
    noted(zone)
    dry = reword(zone, name, old, new, check=True)
    assert (dry[0]["restart"], (zone.folder / name).read_text()) == ([], old)
    result, calls = reword(zone, name, old, new)
    assert (result["written"], result["restart"], calls) == ([str(zone.folder / name)], [], [])
    assert (zone.folder / name).read_text() == new
    assert (zone.folder / "a.service").read_text() == (zone.folder / "digests/a.service").read_text() == "new\n"
    assert zone.call(running="new")[0]["restart"] == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("etc/a.conf", OPTIONS, OPTIONS.replace("key = 1", "key = 2")),
        ("etc/a.conf", OPTIONS, OPTIONS.replace("# services/a.yml", "services = a.yml")),
        ("etc/a.conf", OPTIONS, OPTIONS.replace("key = 1\n", "key = 1\n  # a second line of the value\n")),
        (
            "etc/a.json",
            OPTIONS,
            OPTIONS.replace("services/a.yml", "services/a/service.yml"),
        ),  # nobody said that it has comments
        ("program", PROGRAM, PROGRAM.replace('"a": 1', '"a": 2')),
        ("program", PROGRAM, PROGRAM.replace("#!/usr/bin/python3\n", "")),
        ("program", PROGRAM, PROGRAM + "def\n"),
        ("program", "#!/bin/sh\n# one\ntrue\n", "#!/bin/sh\n# two\ntrue\n"),
    ],
)
def test_a_change_that_a_daemon_may_notice_restarts_it(zone, name, old, new):
    noted(zone)
    assert reword(zone, name, old, new)[0]["restart"] == ["a.service"]
    assert (zone.folder / "a.service").read_text() == "old\n"


def test_a_comment_beside_a_change_restarts(zone):
    noted(zone)
    other = entry(zone.folder / "etc/b.conf", content="new\n", comments=True)
    assert reword(zone, "etc/a.conf", "#1\n", "#2\n", others=[other])[0]["restart"] == ["a.service"]


def test_a_file_that_the_daemon_does_not_read_has_no_say(zone):
    noted(zone)
    other = entry(zone.folder / "elsewhere", content="new\n")
    assert reword(zone, "etc/a.conf", "#1\n", "#2\n", others=[other])[0]["restart"] == []


@pytest.mark.parametrize("digest", ["", "an older one"])
def test_a_daemon_that_ran_with_older_files_is_restarted_all_the_same(zone, digest):
    if digest:
        noted(zone, digest)
    assert reword(zone, "etc/a.conf", "#1\n", "#2\n")[0]["restart"] == ["a.service"]


def test_a_run_that_is_killed_after_a_change_is_not_forgotten_by_a_comment(zone, monkeypatch):
    noted(zone)
    with monkeypatch.context() as patch:
        patch.setattr(zone_tree.Daemons, "apply", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert reword(zone, "etc/a.conf", "x = 1\n", "x = 2\n")[0]["failed"]
    assert (zone.folder / "etc/a.conf").read_text() == "x = 2\n"
    assert reword(zone, "etc/a.conf", "x = 2\n", "#\nx = 2\n")[0]["restart"] == ["a.service"]


def test_a_run_that_is_killed_after_a_comment_costs_a_restart_at_most(zone, monkeypatch):
    noted(zone)
    with monkeypatch.context() as patch:
        patch.setattr(zone_tree.Daemons, "apply", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert reword(zone, "etc/a.conf", "#1\n", "#2\n")[0]["failed"]
    assert zone.call(running="old")[0]["restart"] == ["a.service"]
