# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan makes of what modules say in check mode. Their results are made by the code of the modules itself.

That a plan changes nothing is tested with the whole run in tests/integration/test_forecast.py.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ansible_collections.zonestack.openstack.plugins.module_utils.zone import converge as zones
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.backend import Current
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import Interface, ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc import LxcBackend
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.tree import apply
from cloud import Cloud, Zone
from deployment import DeploymentError
from forecast import FIRST, REBUILT, Foreseen, Plan, assemble, foresee, show, unified
from options import STEPS
from runner import Mask

NAMES = ("a-db-1", "a-web-1", "b-web-1")
CLOUD = Cloud(
    "test",
    ["a", "b"],
    {"web": list(NAMES[1:])},
    {name: Zone(name, "uuid", name[0], None, None, None, "lxc") for name in NAMES},
    [],
    {},
    {},
)
SPEC = ZoneSpec(
    name="a-db-1", uuid="6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11", image="db-1", memory=512,
    networks=(Interface(name="eth0", bridge="zs-t", mac="02:00:5e:10:00:01", address="10.77.2.8", prefix=21),),
)  # fmt: skip
SECRET = "Xk29-very-secret-value"


def event(step_task: str, action: str, host: str, **result: Any) -> dict[str, Any]:
    return {
        "event": "runner_on_failed" if result.get("failed") else "runner_on_ok",
        "event_data": {
            "host": host,
            "task": step_task,
            "task_uuid": step_task,
            "task_action": f"zonestack.openstack.{action}",
            "res": result,
        },
    }


class Told(Foreseen):
    """A record with short words to feed it."""

    def step_begins(self, name: str) -> Told:
        self.add({"event": "playbook_on_start", "event_data": {"playbook": f"/x/{name}.yml"}})
        return self

    def zone(self, current: Current, want: ZoneSpec, name: str = "a-db-1") -> Told:
        """The module's own plan and result for one zone, in a call that may have made more."""
        todo = zones.plan(current, want, "present", LxcBackend.live, disruptive=False)
        result = {
            "changed": bool(todo.actions),
            "actions": [str(one) for one in todo.actions],
            "pending": list(todo.pending),
            "restarted": todo.restarted,
        }
        sides = [
            zones._shown(current.spec, current.running, (), current),
            zones._shown(todo.after, todo.running, (), None),
        ]
        diff = (
            [{"before_header": name, "after_header": name, "before": sides[0], "after": sides[1]}]
            if todo.actions
            else []
        )
        self.add(event("Ensure the zone", "zones", name, changed=bool(todo.actions), zones={name: result}, diff=diff))
        return self


def told(*steps: str) -> Told:
    return Told(CLOUD, steps or list(STEPS), Mask([SECRET]))


def planned(record: Foreseen, secrets: tuple[str, ...] = ()) -> Plan:
    return assemble(CLOUD, record, list(secrets))


def printed(plan: Plan) -> str:
    console = Console(width=300, record=True, file=open(os.devnull, "w"))
    show(console, plan, len(NAMES))
    return console.export_text()


def action_of(record: Foreseen) -> tuple[str, list[str]]:
    one = record.planned["a-db-1"]
    return one.action, one.reasons


# Zones ---------------------------------------------------------------------------------------------------------------------


def test_zone_that_is_not_there_is_created() -> None:
    record = told().step_begins("zones").zone(Current(), SPEC)
    assert action_of(record) == ("create", ["db-1", "512 MiB", "10.77.2.8"])
    assert record.running == set()


def test_another_image_rebuilds_whether_the_zone_runs_or_not() -> None:
    want = replace(SPEC, image="db-2")
    running = told().step_begins("zones").zone(Current(SPEC, True, 7), want)
    assert action_of(running) == ("rebuild", ["image: db-1 -> db-2"])
    assert running.running == {"a-db-1"}, "so what changes in it is looked at"
    stopped = told().step_begins("zones").zone(Current(SPEC, False), want)
    assert action_of(stopped) == ("rebuild", ["image: db-1 -> db-2"])
    assert stopped.running == set(), "nobody can look into it"


def test_zone_that_topology_has_no_more_is_removed() -> None:
    record = told().step_begins("zones")
    gone = {"changed": True, "actions": ["stop"], "pending": []}
    record.add(event("Stop them", "zones", "b-web-2", changed=True, zones={"b-web-2": gone}, diff=[]))
    plan = planned(record)
    assert plan.data()["hosts"]["b"]["zones"]["b-web-2"]["action"] == "remove"
    said = printed(plan)
    assert "b-web-2" in said and "it is no longer in topology.yml" in said
    assert "zones: 1 remove, 3 unchanged" in said


def test_what_stops_a_zone_is_told_from_what_does_not() -> None:
    network = replace(SPEC.networks[0], address="10.77.2.9")
    stops = told().step_begins("zones").zone(Current(SPEC, True, 7), replace(SPEC, networks=(network,)))
    assert action_of(stops)[0] == "restart"
    live = told().step_begins("zones").zone(Current(SPEC, True, 7), replace(SPEC, memory=1024))
    assert action_of(live) == ("change", ["memory: 512 -> 1024"])
    starts = told().step_begins("zones").zone(Current(SPEC, False), SPEC)
    assert action_of(starts) == ("start", [])


def test_zone_that_stays_is_not_in_the_plan() -> None:
    record = told().step_begins("zones").zone(Current(SPEC, True, 7), SPEC)
    assert planned(record).hosts == {} and record.running == {"a-db-1"}
    assert "zones: 3 unchanged; daemons restarted: 0. Nothing was changed." in printed(planned(record))


def test_fields_of_which_a_root_is_made_are_the_backends() -> None:
    assert set(REBUILT) == set(LxcBackend.rebuilt)


# Files and daemons ---------------------------------------------------------------------------------------------------------


def tree(folder: Path, **daemons: Any) -> dict[str, Any]:
    """A zone's files as the program in the zone finds them in check mode."""
    (folder / "plain.conf").write_text("debug = false\nworkers = 2\n")
    (folder / "secret.conf").write_text("password = old-and-secret\n")
    (folder / "same.conf").write_text("same\n")

    def file(name: str, content: str, secret: bool = False) -> dict[str, Any]:
        mode = f"{(folder / name).stat().st_mode & 0o777:04o}" if (folder / name).exists() else "0644"
        import grp
        import pwd

        owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        return {
            "path": str(folder / name),
            "content": content,
            "mode": mode,
            "owner": owner,
            "group": group,
            "secret": secret,
            "validate": [],
        }

    files = [
        file("plain.conf", "debug = true\nworkers = 2\n"),
        file("secret.conf", f"password = {SECRET}\n", True),
        file("same.conf", "same\n"),
        file("new.conf", "new\n"),
    ]
    request = {
        "check": True,
        "directories": [],
        "files": files,
        "exclusive": [],
        "daemons": [],
        "start": True,
        "restart": False,
        "wait": 5,
    }
    return {**apply(request), **daemons}


def test_files_are_shown_as_unified_diffs_and_secrets_only_as_changed(tmp_path: Path) -> None:
    result = tree(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    record = told().step_begins("infrastructure")
    record.add(event("Write files and start daemons", "zone_tree", "a-web-1", **result))
    plan = planned(record)
    text = printed(plan)
    assert "-debug = false\n" in text and "+debug = true\n" in text and "  workers = 2" in text and "+new\n" in text
    assert f"+++ {tmp_path}/secret.conf" in text and "+(new content, not shown)" in text and "same.conf" not in text
    for shown in (text, json.dumps(plan.data())):
        assert SECRET not in shown and "old-and-secret" not in shown
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before, "check mode writes nothing"
    web = plan.data()["hosts"]["a"]["zones"]["a-web-1"]
    assert web["action"] == "change" and [Path(path).name for path in web["files"]] == [
        "plain.conf",
        "secret.conf",
        "new.conf",
    ]


def test_secret_that_a_module_did_not_hide_is_hidden_here() -> None:
    """The last line of defence: nothing of secrets.yml reaches the plan, whoever brings it."""
    record = told().step_begins("services")
    record.add(
        event(
            "Do it",
            "zone_tree",
            "a-web-1",
            changed=True,
            diff={"before": "", "after": f"x = {SECRET}\n", "after_header": "/x"},
        )
    )
    record.add(
        event("Other", "identity_registry", "a-web-1", changed=True, diff={"before": "", "after": {"password": SECRET}})
    )
    record.add(event("Third", "lxc_host", "a", changed=True, changes=[f"file x: {SECRET}"]))
    record.add(event("Fourth", "zone_steps", "b-web-1", failed=True, msg=f"cannot log in with {SECRET}"))
    plan = planned(record)
    assert SECRET not in printed(plan) + json.dumps(plan.data())
    assert printed(plan).count("********") == 4


def test_daemons_are_counted_once_however_often_they_are_told(tmp_path: Path) -> None:
    record = told().step_begins("infrastructure")
    record.add(
        event(
            "Write files and start daemons",
            "zone_tree",
            "a-web-1",
            changed=False,
            diff=[],
            restart=["web.service"],
            started=["nginx.service"],
        )
    )
    record.add(
        event(
            "Write files, restart", "zone_tree", "a-web-1", changed=True, diff=[], restarted=["web.service"], restart=[]
        )
    )
    plan = planned(record)
    web = plan.data()["hosts"]["a"]["zones"]["a-web-1"]
    assert (web["action"], web["restarts"], web["starts"]) == ("change", ["web.service"], ["nginx.service"])
    assert plan.counts() == {
        "remove": 0,
        "create": 0,
        "rebuild": 0,
        "start": 0,
        "restart": 0,
        "change": 1,
        "daemons": 1,
    }
    assert "restart web.service" in printed(plan)


def test_files_of_a_rebuilt_zone_do_not_make_less_of_it(tmp_path: Path) -> None:
    record = (
        told()
        .step_begins("zones")
        .zone(Current(SPEC, True, 7), replace(SPEC, image="db-2"))
        .step_begins("infrastructure")
    )
    record.add(event("Write files and start daemons", "zone_tree", "a-db-1", **tree(tmp_path)))
    assert record.planned["a-db-1"].action == "rebuild" and len(record.planned["a-db-1"].files) == 3


# Hosts and tasks -----------------------------------------------------------------------------------------------------------


def test_hosts_show_what_they_lack_and_which_images_are_built() -> None:
    record = told().step_begins("hosts")
    record.add(
        event(
            "Prepare the host for zones",
            "lxc_host",
            "b",
            changed=True,
            changes=["packages lxc: missing -> installed"],
            diff={},
        )
    )
    record.step_begins("images")
    record.add(
        event(
            "Build",
            "zone_image",
            "b",
            changed=True,
            built=[{"id": "web-1", "name": "web", "seconds": None}],
            archived=["web-1"],
            diff={},
        )
    )
    record.add(
        event(
            "Fetch",
            "zone_image",
            "a",
            changed=True,
            built=[],
            fetched=[{"id": "web-1", "name": "web", "seconds": None}],
            diff={},
        )
    )
    plan = planned(record, ("secrets.web.password",))
    reasons = ["packages lxc: missing -> installed", "archives of images for other hosts: 1"]
    assert plan.data()["hosts"] == {
        "a": {"reasons": [], "images": [], "fetched": ["web-1"], "tasks": {}, "zones": {}},
        "b": {"reasons": reasons, "images": ["web-1"], "fetched": [], "tasks": {}, "zones": {}},
    }
    assert printed(plan).startswith(
        "a\n  images to be fetched: web-1\nb\n  packages lxc: missing -> installed\n  archives of images for other hosts: 1\n"
        "  images to be built: web-1\nsecrets to be generated: secrets.web.password\n"
    )


def test_what_a_run_does_only_on_its_way_is_left_out() -> None:
    record = told().step_begins("infrastructure")
    record.add(event("Drain the zone", "haproxy_server", "a-web-1", changed=True, diff={}))
    assert planned(record).hosts == {}


def test_other_tasks_are_named_with_their_diff() -> None:
    record = told().step_begins("services")
    diff = {"before": {}, "after": {"service": "image"}}
    record.add(
        event(
            "zonestack.openstack.identity : Register services", "identity_registry", "a-web-1", changed=True, diff=diff
        )
    )
    assert list(record.planned["a-web-1"].tasks) == ["Register services"]
    assert '+  "service": "image"' in printed(planned(record))


def test_what_another_step_would_do_is_only_looked_at() -> None:
    record = told("services").step_begins("zones").zone(Current(), SPEC)
    assert planned(record).hosts == {}


def test_diffs_of_every_form_are_unified() -> None:
    assert list(unified({"before": "a\n", "after": "a\n"})) == []
    assert list(unified([{"prepared": "- a"}, "nonsense", None])) == [("", "- a")]
    ((name, text),) = unified({"before": None, "after": {"b": 1}, "after_header": "x"})
    assert name == "x" and text.endswith('+{\n+  "b": 1\n+}\n')


# The two parts -------------------------------------------------------------------------------------------------------------


class Attempts:
    """Runs that the test answers for: what was asked of them, and the zones that they find."""

    def __init__(self, record: Told, running: tuple[str, ...] = NAMES, broken: dict[str, int] | None = None) -> None:
        self.record, self.running, self.broken = record, running, broken or {}
        self.made: list[tuple[list[str], str | None]] = []

    def __call__(self, steps: list[str], limit: str | None) -> int:
        self.made.append((steps, limit))
        for step in steps:
            self.record.step_begins(step)
            if step == "zones":
                for name in NAMES:
                    self.record.zone(Current(SPEC, True, 7) if name in self.running else Current(), SPEC, name)
            if step in self.broken:
                return self.broken[step]
        return 0


WITHOUT_VERIFY = [step for step in STEPS if step != "verify"]


@pytest.mark.parametrize(
    ("running", "limit", "made"),
    [
        (NAMES, None, [(list(FIRST), None), (["infrastructure", "services", "contents"], "all")]),
        (NAMES[:2], None, [(list(FIRST), None), (["infrastructure", "services", "contents"], "all,!b-web-1")]),
        (
            NAMES[:1],
            "web,zone_hosts",
            [
                (list(FIRST), "web,zone_hosts"),
                (["infrastructure", "services", "contents"], "web,zone_hosts,!a-web-1,!b-web-1"),
            ],
        ),
        ((), None, [(list(FIRST), None)]),
    ],
)
def test_zones_that_do_not_run_are_asked_nothing(running: tuple[str, ...], limit: str | None, made: list[Any]) -> None:
    record = told(*WITHOUT_VERIFY)
    attempts = Attempts(record, running)
    foresee(CLOUD, record, WITHOUT_VERIFY, limit, attempts)
    assert attempts.made == made


def test_step_alone_is_planned_with_the_zones_that_run() -> None:
    record = told("services")
    attempts = Attempts(record, NAMES[1:])
    foresee(CLOUD, record, ["services"], None, attempts)
    assert attempts.made == [(["zones"], None), (["services"], "all,!a-db-1")]
    attempts = Attempts(told("hosts"))
    foresee(CLOUD, attempts.record, ["hosts"], None, attempts)
    assert attempts.made == [(["hosts"], None)]


def test_broken_step_does_not_hide_the_later_ones() -> None:
    record = told(*WITHOUT_VERIFY)
    attempts = Attempts(record, broken={"images": 2, "infrastructure": 2})
    foresee(CLOUD, record, WITHOUT_VERIFY, None, attempts)
    assert [steps for steps, _limit in attempts.made] == [
        list(FIRST),
        ["zones"],
        ["infrastructure", "services", "contents"],
        ["services", "contents"],
    ]


def test_what_could_not_be_foreseen_is_said() -> None:
    record = told().step_begins("services")
    record.add(event("Register services", "identity_registry", "a-web-1", failed=True, msg="no answer\nfrom keystone"))
    plan = planned(record)
    assert plan.unknown == [
        {"host": "a-web-1", "step": "services", "task": "Register services", "why": "no answer\nfrom keystone"}
    ]
    assert "not predicted: a-web-1: Register services (step services): no answer\n    from keystone\n" in printed(plan)


def test_interrupt_and_broken_inventory_end_the_plan() -> None:
    record = told()
    with pytest.raises(KeyboardInterrupt):
        foresee(CLOUD, record, ["hosts"], None, lambda _steps, _limit: 130)
    record.last_words.append("topology.yml: no such key")
    with pytest.raises(DeploymentError, match="no such key"):
        foresee(CLOUD, record, ["hosts"], None, lambda _steps, _limit: 4)
