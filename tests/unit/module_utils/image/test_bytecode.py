# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Byte code that two virtualenvs share, run the way the builder runs it: as a text that an interpreter is given."""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.image import bytecode


def run(root: Path, cache: Path) -> str:
    """Give the modules below ``root`` their byte code; what the program says."""
    line = [sys.executable, "-E", "-", str(root), str(cache)]
    return subprocess.run(
        line, input=inspect.getsource(bytecode), text=True, capture_output=True, check=True
    ).stdout.strip()


def answer(root: Path) -> str:
    """What ``library.where()`` below ``root`` says to an interpreter that may write no byte code."""
    line = [sys.executable, "-E", "-B", "-c", "import library.core; print(library.core.where())"]
    return subprocess.run(line, cwd=root, text=True, capture_output=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def _beside_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte code lies where a zone's Python looks for it, and not where the tests keep their own."""
    monkeypatch.setattr(sys, "pycache_prefix", None)


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    """Two virtualenvs with the same library, tests and a template among it."""
    made = [tmp_path / "one", tmp_path / "two"]
    for root in made:
        for path, text in {
            "library/__init__.py": "",
            "library/core.py": "def where():\n    return 'first ' + where.__code__.co_filename\n",
            "library/tests/test_core.py": "import library\n",
            "library/template.py": "class {{ name }}:\n",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
    return made


def compiled(root: Path) -> set[str]:
    """Names of the modules that have byte code."""
    return {path.name.split(".")[0] for path in root.rglob("*.pyc")}


def test_a_source_is_compiled_once_for_all(roots: list[Path], tmp_path: Path) -> None:
    said = [run(root, tmp_path / "cache") for root in roots]
    assert said == ["3 modules, 2 compiled", "3 modules, 0 compiled"]
    for root in roots:
        assert compiled(root) == {"__init__", "core"}
        assert answer(root) == f"first {root}/library/core.py"


def test_what_the_image_below_has_is_not_written_again(roots: list[Path], tmp_path: Path) -> None:
    """A file that is written again is one more file in the layer above."""
    root = roots[0]
    run(root, tmp_path / "cache")
    before = {path: path.stat().st_ino for path in root.rglob("*.pyc")}
    (root / "library/more.py").write_text("")
    (root / "library/core.py").write_text("def where():\n    return 'newer'\n")
    assert run(root, tmp_path / "cache") == "4 modules, 1 compiled"
    after = {path: path.stat().st_ino for path in root.rglob("*.pyc")}
    assert {path.name.partition(".")[0] for path in after if after[path] != before.get(path)} == {"core", "more"}


def test_an_edited_source_wins(roots: list[Path], tmp_path: Path) -> None:
    run(roots[0], tmp_path / "cache")
    source = roots[0] / "library/core.py"
    before = source.stat()
    source.write_text(source.read_text().replace("first", "other"))
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time: only its content tells
    assert answer(roots[0]).startswith("other ")


def test_a_damaged_cache_is_not_believed(roots: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(roots[0], cache)
    for kept in filter(Path.is_file, cache.rglob("*")):
        kept.write_bytes(kept.read_bytes()[:40])
    assert run(roots[1], cache) == "3 modules, 2 compiled"
    path = roots[1] / "library/core.py"
    assert Path(importlib.util.cache_from_source(str(path))).stat().st_size > 100
    assert answer(roots[1]).startswith("first ")
