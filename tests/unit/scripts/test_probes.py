# SPDX-License-Identifier: GPL-3.0-or-later
"""What is tried of a machine: for real, on this one, with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import probes
from deployment import ROOT
from kernel_settings import SETTINGS, least

NAMES = {probe.name for probe in probes.PROBES}


def traces(parent: Path) -> list[Path]:
    places = [parent, *probes.control_group_parents()]
    return [path for place in places for path in place.glob(f"*{probes.MARK}*")]


def test_each_probe_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    """Whatever the answers are here. A trial for which a tool is missing is left out; so is one that another's failure prevents."""
    before = traces(tmp_path)
    found = probes.trials(tmp_path)
    assert set(found) <= NAMES and {"user namespaces", "control groups", "device nodes"} <= set(found)
    assert list(tmp_path.iterdir()) == [] and traces(tmp_path) == before
    if os.geteuid() == 0 and not any(found.values()):
        assert set(found) == NAMES


def test_each_probe_says_what_it_is_for_and_what_mends_it() -> None:
    assert len(NAMES) == len(probes.PROBES)
    for probe in probes.PROBES:
        assert probe.purpose and " " in probe.fix.format("/var/lib/lxc"), probe


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert "No such file" in str(probes.trials(tmp_path / "nowhere")["overlay"])


def test_the_next_trial_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """The trial is killed while its folder is there: by SIGSTOP it is held there first."""
    code = "import os, pathlib, signal, probes\nprobes.owners_error = lambda folder: os.kill(os.getpid(), signal.SIGSTOP)\n"
    code += f"probes.trials(pathlib.Path({str(tmp_path)!r}))"
    held = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path(probes.__file__).parent)}
    )
    try:
        os.waitpid(held.pid, os.WUNTRACED)
        assert len(traces(tmp_path)) == 1
        assert not list(probes.remains(tmp_path)), "one that is at work is left alone"
    finally:
        held.send_signal(signal.SIGKILL)
        held.wait()
    probes.clean(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_settings_say_what_they_are_and_whether_they_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SYSCTL", tmp_path)
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs/free").write_text("7\n")
    (tmp_path / "fs/text").write_text("words\n")
    assert probes.settings(["fs.free", "fs.text", "fs.none"]) == {"fs.free": {"value": 7, "fixed": None}}
    assert (tmp_path / "fs/free").read_text() == "7\n"


def test_the_role_wants_what_the_preflight_asks_for() -> None:
    defaults = yaml.safe_load((ROOT / "roles/zone_host/defaults/main.yml").read_text())
    assert defaults["zone_host_sysctl"] == {name: setting.wanted for name, setting in SETTINGS.items()}
    for name, setting in SETTINGS.items():
        assert least(name, 30) <= setting.wanted
    assert least("fs.inotify.max_user_instances", 30) == 136, (
        "more than the kernel's 128, at which the 27th zone does not start"
    )
    assert least("net.ipv4.neigh.default.gc_thresh3", 30) <= 1024, "the kernel's own does for an all-in-one"


def chain(
    table: str, policy: str, *rules: list[dict[str, Any]], hook: str = "forward", family: str = "inet"
) -> list[dict[str, Any]]:
    at = {"family": family, "table": table}
    made: list[dict[str, Any]] = [
        {"chain": {**at, "name": "forward", "type": "filter", "hook": hook, "prio": 0, "policy": policy}}
    ]
    return made + [{"rule": {**at, "chain": "forward", "handle": 9, "expr": expr}} for expr in rules]


def accept(device: Any) -> list[dict[str, Any]]:
    return [
        {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": device}},
        {"counter": {}},
        {"accept": None},
    ]


def test_chains_that_drop_what_is_forwarded_are_named() -> None:
    drop = {"table": "inet filter", "chain": "forward", "what": "policy drop", "accepted": ""}
    assert probes.foreign_drops(chain("filter", "drop")) == [drop]
    assert probes.foreign_drops(chain("filter", "accept")) == []
    assert probes.foreign_drops(chain("filter", "drop", hook="input")) == []
    let_in = probes.foreign_drops(chain("filter", "drop", accept("br0"), accept({"set": ["zs-a", "zs-b*"]})))
    assert let_in == [{**drop, "accepted": "br0 zs-a zs-b*"}]
    rejecting = chain("firewalld", "accept", accept("br0"), [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}])
    assert probes.foreign_drops(rejecting) == [
        {"table": "inet firewalld", "chain": "forward", "what": "rule handle 9: reject", "accepted": "br0"}
    ]
    docker = chain("filter", "drop", [{"jump": {"target": "DOCKER-USER"}}], family="ip")
    assert probes.foreign_drops(docker) == [], "there the zones have a chain for exceptions"
