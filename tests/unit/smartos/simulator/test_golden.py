# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator against what the upstream tools' own code answered.

The recordings are no part of the repository: $SMARTOS_GOLDEN names their directory (worlds/, transcripts.jsonl,
shapes.jsonl, normalize.jsonl and check.py, whose rules of comparison are used).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from smartos_sim import payload, vm
from smartos_sim.files import ToolError
from smartos_sim.state import State, load_world

ROOT = Path(__file__).parents[4]
GOLDEN = Path(os.environ.get("SMARTOS_GOLDEN") or ROOT.parent / "shared" / "smartos" / "golden")
BIN = ROOT / "tests" / "smartos_sim" / "bin"

if not GOLDEN.is_dir():
    pytest.skip(f"no recordings in {GOLDEN}; $SMARTOS_GOLDEN names their directory", allow_module_level=True)

Item = dict[str, t.Any]

UNSTABLE = {
    "<uuid>": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "<mac>": r"[0-9a-f]{2}(:[0-9a-f]{2}){5}",
    "<time>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "<hex64>": r"[0-9a-f]{64}",
    "<int>": r"\d+",
}


def recorded(kind: str) -> list[t.Any]:
    """The items of a recording as test parameters; several recordings where the name is a pattern."""
    items = [
        json.loads(line) for path in sorted(GOLDEN.glob(f"{kind}.jsonl")) for line in path.read_text().splitlines()
    ]
    assert items
    return [pytest.param(item, id=item["id"]) for item in items]


def rules() -> t.Any:
    """check.py as a module."""
    spec = importlib.util.spec_from_file_location("golden_check", GOLDEN / "check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECK = rules()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each world, loaded once."""
    loaded = {}
    for path in sorted((GOLDEN / "worlds").glob("*.json")):
        loaded[path.stem] = tmp_path_factory.mktemp("world") / "state"
        load_world(State(loaded[path.stem]), json.loads(path.read_text()))
    return loaded


@pytest.fixture
def world(worlds: dict[str, Path], sim: t.Any) -> t.Callable[..., t.Any]:
    """Put the simulated host into the named world, of its own unless the test only looks."""

    def load(name: str, *, shared: bool = False) -> t.Any:
        if shared:
            sim.use(worlds[name])
        else:
            shutil.rmtree(sim.directory)
            shutil.copytree(worlds[name], sim.directory)
        return sim

    return load


def masked(want: t.Any, got: t.Any) -> t.Any:
    """``got``, with the recording's placeholders where it has what they stand for."""
    if isinstance(want, dict) and isinstance(got, dict):
        return {key: masked(want[key], value) if key in want else value for key, value in got.items()}
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return [masked(one, other) for one, other in zip(want, got, strict=True)]
    if isinstance(want, str) and "<" in want and got is not None:
        pattern = "".join(UNSTABLE.get(part, re.escape(part)) for part in re.split(r"(<\w+>)", want))
        return want if re.fullmatch(pattern, str(got)) else got
    return got


def as_numbers(value: t.Any) -> t.Any:
    """Numbers where digits are spelled: the recordings say to compare these as numbers."""
    if isinstance(value, dict):
        return {key: as_numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_numbers(one) for one in value]
    return int(value) if isinstance(value, str) and value.isdigit() else value


@pytest.mark.parametrize("item", recorded("transcripts*"))
def test_transcript(item: Item, world: t.Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = world(item["world"], shared=not item.get("changes"))
    here = tmp_path / "cwd"
    here.mkdir()
    monkeypatch.chdir(here)
    for name, text in item.get("files", {}).items():
        (here / name).write_text(text)
    if item["rc"] < 0:  # it ends by a signal, which must not be this process'
        process = sim.start(item["tool"], *item["argv"], stdin=item["stdin"] or "")
        out, err = process.communicate(timeout=600)
        assert not CHECK.compare(item, process.returncode, out, err, 40)
        return
    said = sim.run(item["tool"], *item["argv"], stdin=item["stdin"] or "")
    out, err = (text.replace(f"{here}/", "") for text in (said.out, said.err))
    assert not CHECK.compare(item, said.rc, out, err, 40)


def test_transcripts_through_the_executables(tmp_path: Path) -> None:
    command = [
        sys.executable, str(GOLDEN / "check.py"), "--bin-dir", str(BIN), "--load-world", f"{BIN}/smartos-sim load-world",
        "--covers", "vmadm-power", str(GOLDEN / "transcripts.jsonl"),
    ]  # fmt: skip
    env = {**os.environ, "SMARTOS_SIM_STATE": str(tmp_path / "state")}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed", done.stdout.splitlines()[-1])


@pytest.mark.parametrize("item", recorded("shapes"))
def test_shape(item: Item, world: t.Any) -> None:
    sim = world(item["world"])
    uuid = vm.create(sim.state, item["payload"]).split()[-1]
    shown = sim.get(uuid)
    if item["state"] == "running" and shown["state"] == "stopped":
        # An update without com1 and com2 would reset them.
        vm.start(sim.state, uuid)
        consoles = {name: shown[name] for name in ("com1", "com2") if name in shown}
        vm.update(sim.state, uuid, {"autoboot": False, **consoles})
    if item["state"] == "stopped":
        sim.state.platform(shown["brand"]).zone_halt(shown, force=True, timeout=0)
    assert masked(item["get"], sim.get(uuid)) == item["get"]


@pytest.mark.parametrize("item", recorded("normalize"))
def test_normalize(item: Item, world: t.Any) -> None:
    state = world(item["world"]).state
    effective, message = None, None
    try:
        if item["action"] == "create":
            effective = payload.for_create(state, item["payload"])
            payload.check_host(state, effective.payload)
        else:
            record = state.existing(item["existing_vm"])
            effective = payload.for_update(state, state.view(record), item["payload"])
            payload.check_host(state, effective.payload)
    except ToolError as error:
        message = str(error)
    if not item["ok"]:
        wanted = item["message"]
        assert message is not None
        assert message.startswith(wanted) if item["message_is_prefix"] else message == wanted
        return
    assert message is None and effective is not None
    assert sorted(effective.dropped) == sorted(item["dropped"])
    wanted = as_numbers(item["effective"])
    got = as_numbers(json.loads(json.dumps(effective.payload)))
    assert CHECK.same(wanted, masked(wanted, got)), (wanted, got)
