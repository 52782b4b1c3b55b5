# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs, as tables of the terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comparison.differences import QUESTIONS, Difference
from comparison.rules import CLASSES
from page import cell, document, table

STYLE = """
main>p{max-width:100ch}td{vertical-align:top}tr.drift td:first-child{color:#c22;font-weight:600}details{margin:8px 0 24px}summary{cursor:pointer}
td.code{white-space:pre-wrap;overflow-wrap:anywhere;min-width:24ch}
"""


def summary(mine: str, theirs: str, differences: list[Difference]) -> str:
    """The outcome in one sentence."""
    counts = {kind: sum(one.kind == kind for one in differences) for kind in CLASSES}
    if not differences:
        return f"{mine} and {theirs}: no difference"
    drift = f"{counts['drift']} of drift" if counts["drift"] else "no drift"
    return f"{mine} and {theirs}: {drift}; differences of scale: {counts['scale']}, of identity: {counts['identity']}"


def html(mine: str, theirs: str, differences: list[Difference]) -> str:
    """All differences as a page: what has drifted by itself, what is explained to be opened."""
    parts = []
    for question, title in QUESTIONS.items():
        parts.append(f"<h2>{title}</h2>")
        for kind in CLASSES:
            rows = [
                f'<tr class="{one.kind}">{cell(one.kind)}{cell(one.where, "wide")}{cell(f"{one.file} {one.key}".strip(), "code")}'
                f"{cell(absent(one.mine), 'code')}{cell(absent(one.theirs), 'code')}{cell(one.why, 'wide')}</tr>"
                for one in differences
                if (one.question, one.kind) == (question, kind)
            ]
            made = table(f"{question}-{kind}", ["Class", "Where", "What", escape(mine), escape(theirs), "Why"], rows)
            if not rows:
                parts += ["<p>No drift.</p>"] if kind == "drift" else []
            elif kind == "drift":
                parts.append(made)
            else:
                parts.append(f"<details><summary>{kind}: {len(rows)}</summary>{made}</details>")
    text = summary(mine, theirs, differences)
    return document(text, f"<main>\n<h1>Parity</h1><p>{escape(text)}.</p>\n{chr(10).join(parts)}\n</main>", STYLE)


def absent(text: str | None) -> str:
    return "—" if text is None else text


def several(words: Iterable[str], most: int = 3) -> str:
    """The first of several words, and how many more there are."""
    every = list(dict.fromkeys(word for word in words if word))
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def report(console: Console, mine: str, theirs: str, differences: list[Difference], everything: bool) -> None:
    """The tables of the terminal: each drift with its values, and what is explained by its reason, or each by itself."""
    for question, title in QUESTIONS.items():
        rows = [one for one in differences if one.question == question]
        if not rows:
            continue
        made = Table(title=title, title_justify="left", title_style="bold", expand=False)
        for head in ("class", "where", "what", mine, theirs, "why"):
            made.add_column(head, overflow="fold")
        grouped: dict[tuple[Any, ...], list[Difference]] = {}
        for number, one in enumerate(rows):
            alone = everything or one.kind == "drift"
            grouped.setdefault((number,) if alone else (one.kind, one.why), []).append(one)
        for group in grouped.values():
            one, alone = group[0], len(group) == 1
            what = (
                f"{one.file} {one.key or '(the file)'}"
                if alone
                else several(other.file or other.key for other in group)
            )
            values = [absent(one.mine), absent(one.theirs)] if alone else [f"{len(group)} differences", ""]
            cells = [one.kind, several(other.where for other in group), what.strip(), *values, one.why]
            made.add_row(*map(Text, cells), style="bold red" if one.kind == "drift" else "")
        console.print(made)
    console.print(Text(summary(mine, theirs, differences)), soft_wrap=True)
