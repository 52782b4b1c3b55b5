#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: journal_lines
short_description: Find the journal lines of all zones that explain a failure
version_added: 0.2.0
description:
  - Reads the journals that the log zone holds, of one stretch of time, and picks errors, and warnings that name what failed.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  since:
    description: Beginning of the time, in seconds since 1970.
    type: float
    required: true
  words:
    description: Ids of requests and instances. A line that names one comes first.
    type: list
    elements: str
    default: []
  lines:
    description: How many lines at most.
    type: int
    default: 20
  folder:
    description: Where the journals lie.
    type: path
    default: /var/log/journal/remote
"""

EXAMPLES = r"""
- name: Find journal lines about the failure
  zonestack.openstack.journal_lines:
    since: 1795240000.0
    words: [6fe04b5a-7f3c-4e6a-9df4-0ad5f2f8f7ad]
"""

RETURN = r"""
lines:
  description: The lines, in the order of time, as C(HH:MM:SS zone daemon message).
  type: list
  elements: str
  returned: always
zones:
  description: Zones that they come from.
  type: list
  elements: str
  returned: always
"""

import json
import re
import time
import typing as t
from collections.abc import Iterable
from dataclasses import dataclass

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run

LONGEST = 400
"""Characters of a line that are shown."""
BAD = re.compile(r"\b(ERROR|CRITICAL)\b|Traceback \(most recent")
DOUBTFUL = re.compile(r"(?i)\bwarn(ing)?\b|\berror\b|\bfailed\b|\brefused\b")
HARMLESS = ("systemd-tmpfiles",)
"""Daemons whose errors every zone's start has, because a container's file systems know no access lists."""


TRACE = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \d+ [A-Z]+ [\w.]+ ")
"""How oslo.log begins each line of one traceback: the same time, process, level and module."""


@dataclass(frozen=True)
class Line:
    """One line of a journal."""

    when: float
    zone: str
    daemon: str
    text: str
    priority: int

    def weight(self, words: Iterable[str]) -> int:
        """How much it says about the failure: 0 is nothing."""
        named = any(word in self.text for word in words)
        if self.daemon in HARMLESS:
            return 0
        if self.priority <= 3 or BAD.search(self.text):
            return 3 if named else 2
        return 1 if named and DOUBTFUL.search(self.text) else 0

    def __str__(self) -> str:
        text = self.text if len(self.text) <= LONGEST else f"{self.text[:LONGEST]}..."
        return f"{time.strftime('%H:%M:%S', time.localtime(self.when))} {self.zone} {self.daemon} {text}"


def parse(text: str) -> t.Iterator[Line]:
    """Lines out of ``journalctl --output=json``; a message that is no text comes as a list of bytes (systemd.journal-fields(7))."""
    for row in text.splitlines():
        entry = json.loads(row)
        message = entry.get("MESSAGE") or ""
        if isinstance(message, list):
            message = bytes(byte for byte in message if isinstance(byte, int)).decode(errors="replace")
        yield Line(
            int(entry["__REALTIME_TIMESTAMP"]) / 1e6,
            entry.get("_HOSTNAME", "?"),
            entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM", "?"),
            str(message).strip(),
            int(entry.get("PRIORITY", 6)),
        )


def shortened(lines: Iterable[Line]) -> t.Iterator[Line]:
    """The lines with each traceback cut to its first and its last line, which names the exception."""
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for number, line in enumerate(lines):
        begin = TRACE.match(f"{line.text} ")
        if not begin or f"{line.text} "[begin.end() :].strip(" ~^"):  # what only points at code says nothing
            groups.setdefault((line.zone, line.daemon, begin[0] if begin else str(number)), []).append(line)
    for group in groups.values():
        yield group[0]
        if len(group) > 1:
            yield group[-1]


def choose(lines: Iterable[Line], words: list[str], count: int) -> list[Line]:
    """The ``count`` lines that say most, in the order of time; what repeats is taken once."""
    weighed: dict[tuple[str, str], tuple[int, Line]] = {}
    for line in shortened(lines):
        weight = line.weight(words)
        if weight:
            weighed.setdefault((line.zone, re.sub(r"[0-9a-f-]{8,}|\d+", "#", line.text)), (weight, line))
    best = sorted(weighed.values(), key=lambda pair: (-pair[0], pair[1].when))[:count]
    return sorted((line for _weight, line in best), key=lambda line: line.when)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "since": {"type": "float", "required": True},
            "words": {"type": "list", "elements": "str", "default": []},
            "lines": {"type": "int", "default": 20},
            "folder": {"type": "path", "default": "/var/log/journal/remote"},
        },
        supports_check_mode=True,
    )
    params = module.params
    fields = "MESSAGE,_HOSTNAME,SYSLOG_IDENTIFIER,_COMM,PRIORITY"
    command = [
        "journalctl",
        f"--directory={params['folder']}",
        f"--since=@{params['since']:.0f}",
        "--output=json",
        f"--output-fields={fields}",
        "--quiet",
    ]
    try:
        # What can matter at all is picked by journalctl, so that little has to be decoded.
        text = run([*command, "--grep=error|critical|traceback|warn|fail"], timeout=120, check=False).out
    except CommandError as why:
        module.fail_json(msg=str(why))
    found = choose(parse(text), params["words"], params["lines"])
    module.exit_json(changed=False, lines=[str(line) for line in found], zones=sorted({line.zone for line in found}))


if __name__ == "__main__":
    main()
