# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of plays and tasks are imperatives that say an outcome, with the verbs of docs/glossary.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(
    path
    for pattern in ("playbooks/**/*.yml", "roles/*/tasks/*.yml", "services/*/tasks/*.yml")
    for path in ROOT.glob(pattern)
    if not {"files", "vars"} & set(path.relative_to(ROOT).parts)
)
BLOCKS = ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always")


def verbs() -> set[str]:
    """The first words that the glossary's table of verbs allows."""
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    section = text.split("## Verbs of task names", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (?!verb|---)(.+?) \| (.+) \|$", section, re.MULTILINE)
    return {word for verb, _use in rows for word in verb.split(", ")}


def names(items: list[dict[str, Any]]) -> Iterator[str]:
    """Every name of plays and tasks, those in blocks included. A file that is imported alone needs none."""
    for item in items:
        if "name" in item:
            yield item["name"]
        for key in BLOCKS:
            yield from names(item.get(key) or [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_name_begins_with_a_verb_of_the_glossary(path: Path) -> None:
    allowed = verbs()
    found = list(names(yaml.safe_load(path.read_text(encoding="utf-8")) or []))
    assert [name for name in found if name.split()[0] not in allowed] == []


def test_the_glossary_allows_no_vague_verbs() -> None:
    assert len(verbs()) > 10
    assert not {"Have", "See", "Make", "Keep", "Take", "Say"} & verbs()
