# SPDX-License-Identifier: GPL-3.0-or-later
"""Every link between the pages leads somewhere, and every script that they name is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in a link: lower case, without punctuation, - for each space."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_that_are_named_are_there(page: Path) -> None:
    named = set(re.findall(r"\bscripts/[\w/-]+\.(?:sh|py)\b", page.read_text()))
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_pages_that_are_named_are_there() -> None:
    """A path docs/... in a comment, a message or another page is that of a page or picture of today."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    named, wrong = 0, []
    for name in filter(None, listed.stdout.decode().split("\0")):
        file = ROOT / name
        if not file.is_file() or b"\0" in (text := file.read_bytes()):
            continue
        for path in re.findall(r"(?<![\w./-])docs/[\w/.-]+\.(?:md|svg|png|css|py)\b", text.decode(errors="replace")):
            named += 1
            if not (ROOT / path).is_file():
                wrong.append(f"{name}: {path}")
    assert named, "no path was found: the pattern fits nothing any more"
    assert wrong == []
