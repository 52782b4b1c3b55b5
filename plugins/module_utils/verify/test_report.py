# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of tests as JUnit XML, which CI systems read, and as a page for people."""

from __future__ import annotations

import html
import re
import typing as t
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass

OUTCOMES = ("failed", "skipped", "passed")
"""In the order in which a reader wants them."""
STATUSES = {"success": "passed", "xfail": "passed", "skip": "skipped", "fail": "failed", "uxsuccess": "failed"}
"""What subunit calls an end. Any other is one that never came: the worker died, and that is a failure."""


@dataclass(frozen=True)
class Test:
    """One test: its id, outcome (of :data:`OUTCOMES`), seconds, and what it says of a failure or a skip."""

    __test__ = False  # pytest is not to take it for one of its own

    name: str
    outcome: str
    seconds: float
    words: str = ""

    @property
    def suite(self) -> str:
        """Module and class, of which JUnit makes its class name."""
        return self.name.partition("[")[0].rpartition(".")[0] or self.name

    @property
    def short(self) -> str:
        """The test's own name, without the attributes that Tempest adds in brackets."""
        return self.name.partition("[")[0].rpartition(".")[2] or self.name


def from_record(record: t.Mapping[str, t.Any]) -> Test | None:
    """A test of what ``testtools.StreamToDict`` gathers of a stream. ``None`` for a mere listing.

    A class that skips as a whole is one record, of its ``setUpClass``.
    """
    if record["status"] == "exists":
        return None
    outcome = STATUSES.get(record["status"], "failed")
    begin, end = record["timestamps"]
    details = record["details"]
    if outcome == "skipped":
        words = details["reason"].as_text() if "reason" in details else ""
    elif outcome == "failed":
        words = "\n".join(
            f"{name}:\n{detail.as_text()}"
            for name, detail in sorted(details.items())
            if detail.content_type.type == "text"
        )
        if record["status"] not in STATUSES:
            words = f"never ended ({record['status']}): the process that ran it died\n{words}"
    else:
        words = ""
    return Test(record["id"], outcome, (end - begin).total_seconds() if begin and end else 0.0, words.strip())


def counts(tests: t.Iterable[Test]) -> dict[str, int]:
    """How many of each outcome."""
    found = Counter(test.outcome for test in tests)
    return {outcome: found[outcome] for outcome in OUTCOMES}


def cause(test: Test) -> str:
    """A failure in one line: the last exception of its traceback, with Tempest's details."""
    lines = test.words.splitlines()
    found = [number for number, line in enumerate(lines) if _EXCEPTION.match(line)]
    if not found:
        return next(iter(lines), "no words")[:300]
    more = lines[found[-1] + 1 : found[-1] + 2]
    return " ".join([lines[found[-1]], *(line for line in more if line.startswith("Details:"))])[:500]


_EXCEPTION = re.compile(r"^[a-z_]\w*(\.\w+)*\.[A-Z]\w+(: |$)|^[A-Z]\w*(Error|Exception|Timeout)(: |$)")
"""How the last line of a traceback begins: an exception's name, most often with its module."""


# A character that XML 1.0 cannot hold at all, even escaped (https://www.w3.org/TR/xml/#charsets); guests' consoles have them.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(tests: t.Sequence[Test], name: str) -> str:
    """The results as JUnit XML."""
    found = counts(tests)
    suite = ET.Element(
        "testsuite",
        name=name,
        tests=str(len(tests)),
        failures=str(found["failed"]),
        skipped=str(found["skipped"]),
        errors="0",
        time=f"{sum(test.seconds for test in tests):.3f}",
    )
    for test in tests:
        case = ET.SubElement(suite, "testcase", classname=test.suite, name=test.short, time=f"{test.seconds:.3f}")
        words = _NO_XML.sub("?", test.words)
        if test.outcome == "failed":
            ET.SubElement(case, "failure", message=_NO_XML.sub("?", cause(test))).text = words
        elif test.outcome == "skipped":
            ET.SubElement(case, "skipped", message=words)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; border-bottom: 1px solid #ddd }
td.seconds { text-align: right; white-space: nowrap }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; background: #f5f5f5; padding: .5rem }
.failed { color: #a00 } .skipped { color: #765 } .passed { color: #060 } code { overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } pre { background: #262626 } td, th { border-color: #444 }
 .failed { color: #f77 } .skipped { color: #cb9 } .passed { color: #7c7 } }
"""


def page(tests: t.Sequence[Test], title: str, about: t.Mapping[str, str], left_out: t.Mapping[str, str]) -> str:
    """The results as one page that needs nothing beside it.

    :param about: what was tested, as rows of a table.
    :param left_out: the skip list: expression to reason.
    """
    text = html.escape
    found = counts(tests)
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title><style>{STYLE}</style></head><body>',
        f"<h1>{text(title)}</h1>",
        "<p>" + ", ".join(f'<b class="{outcome}">{found[outcome]} {outcome}</b>' for outcome in OUTCOMES) + "</p>",
        "<table>"
        + "".join(f"<tr><th>{text(key)}</th><td>{text(value)}</td></tr>" for key, value in about.items())
        + "</table>",
    ]
    for outcome in OUTCOMES:
        rows = sorted((test for test in tests if test.outcome == outcome), key=lambda test: (test.suite, test.short))
        if not rows:
            continue
        parts.append(f'<h2 class="{outcome}">{outcome}: {len(rows)}</h2><table>')
        for test in rows:
            if outcome == "failed":
                words = f"<details><summary>{text(cause(test))}</summary><pre>{text(test.words)}</pre></details>"
            else:
                words = text(test.words)
            name = f"<code>{text(test.suite)}.<b>{text(test.short)}</b></code>"
            parts.append(f'<tr><td>{name}</td><td>{words}</td><td class="seconds">{test.seconds:.1f} s</td></tr>')
        parts.append("</table>")
    if left_out:
        parts.append("<h2>Left out by the skip list</h2><table>")
        parts += [
            f"<tr><td><code>{text(expression)}</code></td><td>{text(reason)}</td></tr>"
            for expression, reason in left_out.items()
        ]
        parts.append("</table>")
    parts.append("</body></html>\n")
    return "\n".join(parts)
