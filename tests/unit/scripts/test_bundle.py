# SPDX-License-Identifier: GPL-3.0-or-later
"""scripts/bundle.sh before it begins: what it refuses, and that it does so before anything is written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deployment import ROOT


def bundle(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/bundle.sh", *arguments], capture_output=True, text=True, timeout=600, check=False
    )


def test_help_needs_nothing() -> None:
    done = bundle("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: scripts/bundle.sh DEPLOYMENT FILE\n")


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        ((), 2, "usage: scripts/bundle.sh"),
        (("examples/aio",), 2, "usage: scripts/bundle.sh"),
        (("nowhere", "x.tar"), 1, "there is no inventory/nowhere/topology.yml"),
        (("examples/aio", "x.zip"), 1, "x.zip: give a name that ends in .tar, .tar.gz or .tar.zst"),
        (("examples/aio", "{tmp}/there.tar"), 1, "there.tar is there already"),
        (("examples/aio", "{tmp}/absent/x.tar"), 1, "there is no folder {tmp}/absent"),
    ],
)
def test_refusals(tmp_path: Path, arguments: tuple[str, ...], code: int, why: str) -> None:
    (tmp_path / "there.tar").write_text("somebody's")
    done = bundle(*(one.format(tmp=tmp_path) for one in arguments))
    assert (done.returncode, why.format(tmp=tmp_path) in done.stderr) == (code, True), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.tar"]
