# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

from ansible_collections.zonestack.openstack.plugins.module_utils.verify.test_report import (
    Test,
    cause,
    counts,
    from_record,
    junit,
    page,
)

TRACE = """traceback-1:
Traceback (most recent call last):
  File "x.py", line 1, in test
    self.fail("a < b")
tempest.lib.exceptions.SSHTimeout: Connection to 10.78.0.9 timed out. User: root\x00\x1b
"""
TESTS = [
    Test("tempest.api.A.test_one[id-1,smoke]", "passed", 1.5),
    Test("tempest.api.B.test_two[id-2]", "failed", 20.25, TRACE),
    Test("setUpClass (tempest.api.C)", "skipped", 0.0, "swift <is> not available"),
]


def record(status: str, **details: str) -> dict[str, Any]:
    begin = datetime(2026, 11, 21)
    as_details = {
        name: SimpleNamespace(as_text=lambda text=text: text, content_type=SimpleNamespace(type="text"))
        for name, text in details.items()
    }
    return {
        "id": "a.B.test_c",
        "status": status,
        "timestamps": [begin, begin + timedelta(seconds=2)],
        "details": as_details,
        "tags": set(),
    }


def test_ends_of_a_stream_are_outcomes():
    assert from_record(record("exists")) is None
    assert from_record(record("success", pythonlogging="much")) == Test("a.B.test_c", "passed", 2.0)
    assert from_record(record("skip", reason="why")) == Test("a.B.test_c", "skipped", 2.0, "why")
    assert from_record(record("fail", traceback="T")) == Test("a.B.test_c", "failed", 2.0, "traceback:\nT")


def test_a_test_that_never_ended_has_failed():
    found = from_record(record("inprogress"))
    assert found and found.outcome == "failed" and "the process that ran it died" in found.words


def test_cause_is_the_exception():
    assert cause(TESTS[1]).startswith("tempest.lib.exceptions.SSHTimeout: Connection to 10.78.0.9")
    assert cause(Test("a", "failed", 0)) == "no words"
    details = "  File x\ntempest.lib.exceptions.IdentityError: Got identity error\nDetails: None\n"
    assert (
        cause(Test("a", "failed", 0, details))
        == "tempest.lib.exceptions.IdentityError: Got identity error Details: None"
    )
    assert cause(Test("a", "failed", 0, "t:\nAssertionError: 1 != 2\n")) == "AssertionError: 1 != 2"


def test_counts_have_every_outcome():
    assert counts(TESTS) == {"failed": 1, "skipped": 1, "passed": 1}
    assert counts([]) == {"failed": 0, "skipped": 0, "passed": 0}


def test_junit_is_xml_that_counts():
    suite = ET.fromstring(junit(TESTS, "tempest").partition("\n")[2])[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped", "time")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
        "time": "21.750",
    }
    failed = suite[1]
    assert (failed.get("classname"), failed.get("name")) == ("tempest.api.B", "test_two")
    assert 'self.fail("a < b")' in (failed[0].text or "")
    assert suite[2][0].get("message") == "swift <is> not available"


class Balanced(HTMLParser):
    """Counts tags that are still open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_escaped():
    text = page(TESTS, "Tempest & more", {"took": "3 s"}, {"^a<b": "cannot <work> here"})
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "1 failed" in text and "Tempest &amp; more" in text
    assert "a &lt; b" in text and "swift &lt;is&gt;" in text and "cannot &lt;work&gt; here" in text
