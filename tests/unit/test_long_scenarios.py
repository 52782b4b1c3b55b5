# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of long scenarios is whole, and says of a change what to test it with (tests/scenario/long_scenarios.py)."""

from __future__ import annotations

import fnmatch
import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("long_scenarios", ROOT / "tests/scenario/long_scenarios.py")
assert _spec and _spec.loader
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)


@pytest.fixture(scope="module")
def files() -> list[str]:
    """The files of this checkout, also those not yet known to git."""
    argv = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [path for path in listed if (ROOT / path).exists()]


def test_each_mark_is_in_the_table_and_each_name_marks_something() -> None:
    assert table.marked().keys() == table.LONG.keys()


@pytest.mark.parametrize("name", [*table.LONG, *table.PARTS])
def test_each_pattern_matches_a_file(name: str, files: list[str]) -> None:
    patterns = table.LONG[name].paths if name in table.LONG else table.PARTS[name]
    there = {pattern: bool(fnmatch.filter(files, pattern)) for pattern in patterns}
    assert [pattern for pattern, found in there.items() if not found] == []


def test_marks_with_and_without_a_name_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_one_thing.py").write_text("pytestmark = [pytest.mark.long, pytest.mark.xdist_group('x')]\n")
    (tmp_path / "test_two.py").write_text("@pytest.mark.long('second')\ndef test_x():\n    pass\n")
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    assert table.marked() == {"one-thing": {"test_one_thing.py"}, "second": {"test_two.py"}}


def test_a_change_asks_for_what_it_touches() -> None:
    assert table.concerned([]) == ([], [])
    parts, names = table.concerned(["docs/glossary.md"])
    assert (parts, names) == (["lint", "unit"], [])
    parts, names = table.concerned(["tests/scenario/test_regions.py"])
    assert parts == ["lint", "unit", "scenario"] and names == ["regions"]
    parts, names = table.concerned(["tests/smartos_sim/smartos_sim/vmadm.py"])
    assert "integration" in parts and {"smartos", "mixed"} <= {*names} and "production" not in names


def test_the_command_prints_both(tmp_path: Path) -> None:
    def said(*words: str, rc: int = 0) -> str:
        argv = [str(ROOT / "scripts/run-tests.sh"), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == rc, done.stderr
        return done.stdout + done.stderr

    listed = said("--list-long")
    assert all(f"\n{name} " in f"\n{listed}" for name in table.LONG)
    assert said("--changed", "HEAD").splitlines()[0].endswith("changed since HEAD")
    assert "unknown revision" in said("--changed", "no-such-commit", rc=2)
