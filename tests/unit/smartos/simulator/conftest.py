# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated SmartOS host per test, on paper, in a directory of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from smartos_sim.files import write_json
from smartos_sim.main import main
from smartos_sim.state import State

BIN = Path(__file__).parents[3] / "smartos_sim" / "bin"

ZONE_IMAGE = "c0ffee00-0000-4000-8000-000000000001"
LX_IMAGE = "1a1a1a1a-0000-4000-8000-000000000001"
LX_IMAGE_2 = "1a1a1a1a-0000-4000-8000-000000000002"
VM = "deadbeef-0000-4000-8000-000000000001"
OTHER = "deadbeef-0000-4000-8000-000000000002"


class Said(t.NamedTuple):
    """What a command answered."""

    rc: int
    out: str
    err: str


class Sim:
    """The host: its state, and its commands, run in this process unless said otherwise."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.use(directory)

    def use(self, directory: Path) -> None:
        """Be the host whose state lies in ``directory``."""
        self.directory = directory
        self._monkeypatch.setenv("SMARTOS_SIM_STATE", str(directory))

    @property
    def state(self) -> State:
        return State()

    def run(self, tool: str, *argv: str, stdin: t.Any = "") -> Said:
        """A command; ``stdin`` that is no text goes as JSON."""
        text = stdin if isinstance(stdin, str) else json.dumps(stdin)
        self._capsys.readouterr()
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(text))
            rc = main(tool, [*argv])
        return Said(rc, *self._capsys.readouterr())

    def vmadm(self, *argv: str, stdin: t.Any = "") -> Said:
        return self.run("vmadm", *argv, stdin=stdin)

    def start(self, tool: str, *argv: str, stdin: t.Any = "") -> subprocess.Popen[str]:
        """A command in a process of its own, not waited for."""
        process = subprocess.Popen(
            [str(BIN / tool), *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "SMARTOS_SIM_STATE": str(self.directory)},
        )  # fmt: skip
        assert process.stdin
        process.stdin.write(stdin if isinstance(stdin, str) else json.dumps(stdin))
        process.stdin.close()
        process.stdin = None
        return process

    def get(self, uuid: str = VM) -> dict[str, t.Any]:
        said = self.vmadm("get", uuid)
        assert said.rc == 0, said.err
        return t.cast(dict[str, t.Any], json.loads(said.out))

    def create(self, **properties: t.Any) -> Said:
        """``vmadm create`` of an lx zone, unless the properties say otherwise."""
        payload = {"brand": "lx", "image_uuid": LX_IMAGE, "kernel_version": "5.10.0", "uuid": VM, **properties}
        return self.vmadm("create", stdin=payload)

    def fault(self, call: str, **options: t.Any) -> None:
        words = [f"--{name}={value}" for name, value in options.items()]
        assert self.run("smartos-sim", "fault", "add", call, *words).rc == 0


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sim:
    """A host with three images and a provisioning timeout of 0.3 seconds."""
    host = Sim(tmp_path / "sim", monkeypatch, capsys)
    write_json(host.directory / "node.json", {"provision_timeout": 0.3})
    for uuid, name, kind in (
        (ZONE_IMAGE, "base-64", "zone-dataset"),
        (LX_IMAGE, "debian", "lx-dataset"),
        (LX_IMAGE_2, "debian-new", "lx-dataset"),
    ):
        manifest = {
            "v": 2, "uuid": uuid, "name": name, "version": "1", "type": kind, "os": "other",
            "published_at": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip
        host.state.write_image({"zpool": "zones", "source": None, "manifest": manifest})
    return host
