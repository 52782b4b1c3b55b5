# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""First contacts end in a table: a line for each machine, what came of it, and the line that mends it where it was refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

_LINES: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Rows come from the worker in which the tests ran."""
    if report.when == "call" or report.failed:
        _LINES.extend(str(value) for name, value in report.user_properties if name == "contact")
        if report.failed and "contact" in report.nodeid:
            _LINES.append(f"{report.nodeid.rpartition('::')[2]:<58} FAILED")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _LINES:
        terminalreporter.section("first contacts")
        for line in _LINES:
            terminalreporter.write_line(line)
