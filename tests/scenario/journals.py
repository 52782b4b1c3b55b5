# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment's journals say that nobody wants to read in them; docs/how-to/verification.md explains what is let pass."""

from __future__ import annotations

import re
import typing as t

from deployed import ZONES, Deployed

ERROR = re.compile(
    r"\b(?:ERROR|CRITICAL|FATAL|EMER)\b|Traceback \(most recent call last|Out of memory|oom-kill", re.ASCII
)
"""Lines that somebody should know about."""

EXPLAINED: dict[str, str] = {
    r"WSREP: Foreign key check fail": "two nodes change rows of one parent at once; Galera repeats the one that came later",
    r"nova\.scheduler\.client\.report .*(?:placement\.concurrent_update|Failed to update inventory to .*'reserved')": (
        "two requests change a hypervisor's resources at once; Placement refuses the later one, and Nova asks again"
    ),
    r"ovsdbapp\.event .*StandardAttributeIDNotFound": (
        "a router's port is deleted while OVN tells where it is bound; there is nothing left that Neutron could note it for"
    ),
    r"(?s)schedule_unhosted_gateways.*RowNotFound: Cannot find Logical_Router_Port": (
        "a router is deleted while Neutron, just started, looks for those without a gateway's chassis; it needs none any more"
    ),
    r"WSREP: Receiving IST failed, node restart required: .*IST didn't contain all write sets|WSREP: .* Sending JOIN failed: -103 ": (
        "a node asks one that has itself just come back, and lacks the newest view, for what it missed; started anew, it asks again"
    ),
}
"""What is let pass, and why it is no fault: pattern of the line, or of a bare traceback's lines, to reason. With a line its whole record passes."""

RECORD = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+ \d+ \w+ \S+", re.ASCII)
"""What all lines of one record of oslo.log begin with: time, process, level, logger."""

RESTARTS = 3
"""How often a daemon may have been started anew since its zone started, before that counts as a loop."""


def record_of(line: str) -> str:
    """What tells a line's record from others; of one that does not come from oslo.log, the line itself."""
    found = RECORD.match(line)
    return found[0] if found else line


def explained(text: str) -> bool:
    """Whether a line, or the lines of a bare traceback, have a known, harmless cause."""
    return any(re.search(pattern, text) for pattern in EXPLAINED)


def traceback_at(lines: t.Sequence[str], number: int) -> str:
    """The traceback that begins at a line, to the exception that it ends with: the first line that is not indented."""
    rest = lines[number + 1 :]
    last = next((index for index, line in enumerate(rest) if not line.startswith(" ")), len(rest))
    return "\n".join([lines[number], *rest[: last + 1]])


AROUND = 12
"""Lines before and after a bare traceback that tell whose it is: it has no record that would keep its lines together."""


def unexplained(lines: t.Sequence[str]) -> list[str]:
    """Return the lines about errors, each once, but those of records with a known, harmless cause; a bare traceback with what is around it."""
    known = {record_of(line) for line in lines if explained(line)}
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        if ERROR.search(line) and record_of(line) not in known:
            bare = line.startswith("Traceback")
            if bare and explained(traceback_at(lines, number)):
                continue
            found.setdefault(line, "\n  ".join(lines[max(number - AROUND, 0) : number + AROUND]) if bare else line)
    return list(found.values())


def findings(cloud: Deployed) -> list[str]:
    """Return what is wrong in the journals of all zones since each one's last start, a line for each, the zone first.

    Errors without an explanation, tracebacks, processes killed for memory, daemons in a loop or failed, and secrets.
    """
    found: list[str] = []
    secrets = cloud.secrets()
    command = "systemctl list-units --type=service --plain --no-legend | cut -d ' ' -f 1 | xargs systemctl show --property=Id,NRestarts"
    journals = cloud.everywhere("journalctl --boot --no-pager -o cat")
    restarts, failed = cloud.everywhere(command), cloud.everywhere("systemctl --failed --plain --no-legend")
    for zone in sorted(ZONES):
        text = journals[zone]
        found += [f"{zone}: {line[:4000]}" for line in unexplained(text.splitlines())]
        found += [f"{zone}: shows the secret {name}" for name, value in secrets.items() if value in text]
        found += [f"{zone}: {unit} was started {count} times anew" for unit, count in loops(restarts[zone])]
        found += [f"{zone}: failed: {line}" for line in failed[zone].splitlines()]
    return found


def loops(shown: str) -> list[tuple[str, int]]:
    """Units of ``systemctl show --property=Id,NRestarts`` that were restarted too often; systemd prints either first."""
    found = []
    for block in shown.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        count = int(values.get("NRestarts") or 0)
        if count > RESTARTS:
            found.append((values["Id"], count))
    return found
