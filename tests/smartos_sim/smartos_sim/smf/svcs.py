# SPDX-License-Identifier: GPL-3.0-or-later
"""svcs(1): tell the states of instances."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import graph
from .contract import family
from .fmri import Fmri
from .repository import Groups, Repository
from .tool import Tool, is_enabled, nodes

_USAGE = """Usage: svcs [-aHpv] [-o col[,col ... ]] [-R restarter] [-sS col] [-z zone] [<service> ...]
       svcs -d | -D [-Hpv] [-o col[,col ... ]] [-sS col] [-z zone] [<service> ...]
       svcs [-l | -L] [-z zone] [<service> ...]
       svcs -x [-v] [-z zone] [<service> ...]"""

_SHORT = {
    "degraded": "DGD",
    "disabled": "DIS",
    "maintenance": "MNT",
    "offline": "OFF",
    "online": "ON",
    "uninitialized": "UN",
}


@dataclass(frozen=True)
class Row:
    """What is to be told of one instance."""

    fmri: Fmri
    groups: Groups
    enabled: bool
    temporary: bool

    def restarter(self, name: str, default: str = "") -> str:
        return (self.groups["restarter"].first(name) if "restarter" in self.groups else None) or default

    @property
    def state(self) -> str:
        return self.restarter("state", "uninitialized")

    @property
    def next_state(self) -> str:
        found = self.restarter("next_state", "none")
        return "-" if found == "none" else found

    @property
    def since(self) -> float:
        return float(self.restarter("state_timestamp", "0"))

    @property
    def stime(self) -> str:
        moment = time.localtime(self.since)
        if time.time() - self.since < 24 * 3600:
            return time.strftime("%H:%M:%S", moment)
        return time.strftime("%b_%d", moment)

    @property
    def description(self) -> str:
        return (self.groups["tm_common_name"].first("C") if "tm_common_name" in self.groups else None) or "-"


def _starred(text: str, row: Row, columns: Sequence[str]) -> str:
    shown = {"nstate", "nsta"} & set(columns)
    return f"{text}*" if row.next_state != "-" and not shown else text


#: Width and content of each column. The text of STATE depends on the other columns.
COLUMNS: dict[str, tuple[int, Callable[[Row, Sequence[str]], str]]] = {
    "ctid": (6, lambda row, _c: row.restarter("contract", "-").rjust(6)),
    "desc": (20, lambda row, _c: row.description),
    "fmri": (50, lambda row, _c: str(row.fmri)),
    "inst": (16, lambda row, _c: row.fmri.instance),
    "nsta": (4, lambda row, _c: _SHORT.get(row.next_state, row.next_state)),
    "nstate": (14, lambda row, _c: row.next_state),
    "scope": (8, lambda row, _c: "localhost"),
    "sta": (4, lambda row, columns: _starred(_SHORT.get(row.state, "?"), row, columns)),
    "state": (14, lambda row, columns: _starred(row.state, row, columns)),
    "stime": (8, lambda row, _c: row.stime),
    "svc": (30, lambda row, _c: row.fmri.service),
}
_ORDER = ("uninitialized", "disabled", "maintenance", "offline", "degraded", "online")


class Svcs(Tool):
    """One svcs call."""

    def __init__(self) -> None:
        super().__init__("svcs", _USAGE)

    def run(self, words: Sequence[str]) -> int:
        options, operands = self.options(words, "aHpvo:R:s:S:z:dDlLx")
        given = {option for option, _value in options}
        columns = [one.strip().lower() for option, value in options if option == "-o" for one in value.split(",")]
        columns = columns or (
            ["state", "nstate", "stime", "ctid", "fmri"] if "-v" in given else ["state", "stime", "fmri"]
        )
        orders = [(option, value.lower()) for option, value in options if option in ("-s", "-S")]
        for name in [*columns, *(value for _option, value in orders)]:
            if name not in COLUMNS:
                self.warn(f'Unknown column "{name}".')
                self.usage()
        for option, value in options:
            if option == "-z":
                self.enter_zone(value)
        with self.repository() as repository:
            chosen = self.instances(repository, operands) if operands else repository.instances()
            if operands and not chosen:
                return self.rc
            rows = [row(repository, fmri) for fmri in chosen]
            if "-x" in given:
                self.explain(repository, rows, bool(operands), "-v" in given)
            elif "-l" in given:
                print("\n".join(self.details(repository, one) for one in rows), end="")
            elif "-L" in given:
                for one in rows:
                    print(one.restarter("logfile"))
            else:
                if given & {"-d", "-D"}:
                    rows = self.related(repository, chosen, "-d" in given)
                elif not operands and "-a" not in given:
                    rows = [one for one in rows if one.enabled or one.temporary]
                for option, name in reversed(orders or [("-s", "state"), ("-s", "stime"), ("-s", "fmri")]):
                    rows.sort(key=functools.partial(_key, name=name), reverse=option == "-S")
                self.table(rows, columns, "-H" not in given, "-p" in given)
        return self.rc

    def table(self, rows: list[Row], columns: list[str], header: bool, processes: bool) -> None:
        def line(cells: list[str]) -> str:
            padded = [cell.ljust(COLUMNS[name][0]) for cell, name in zip(cells, columns, strict=True)]
            return " ".join(padded).rstrip()

        if header:
            print(line([name.upper() for name in columns]))
        for one in rows:
            print(line([COLUMNS[name][1](one, columns) for name in columns]))
            contract = one.restarter("contract")
            for pid in family(int(contract)) if processes and contract.isdigit() else []:
                with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                    command = Path(f"/proc/{pid}/comm").read_text().strip()
                    print(f"               {'':8} {pid:8d} {command}")

    def related(self, repository: Repository, chosen: list[Fmri], below: bool) -> list[Row]:
        known = nodes(repository)
        found: list[Fmri] = []
        for fmri in chosen:
            if below:
                entities = [entity for one in known[fmri].dependencies for entity in one.entities]
                found += [one for entity in entities for one in graph.means(entity, known)]
            else:
                found += [one for one in known if graph.depends_on(one, fmri, known)]
        return [row(repository, fmri) for fmri in dict.fromkeys(found)]

    def details(self, repository: Repository, one: Row) -> str:
        known = nodes(repository)
        since = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(one.since))
        lines = [
            ("fmri", str(one.fmri)), ("name", one.description),
            ("enabled", f"{str(one.enabled).lower()}{' (temporary)' if one.temporary else ''}"), ("state", one.state),
            ("next_state", one.restarter("next_state", "none")), ("state_time", since), ("logfile", one.restarter("logfile")),
            ("restarter", "svc:/system/svc/restarter:default"), ("contract_id", one.restarter("contract")),
        ]  # fmt: skip
        for dependency in known[one.fmri].dependencies:
            for entity in dependency.entities:
                found = [known[fmri].state for fmri in graph.means(entity, known)]
                if dependency.kind == "path":
                    path = entity.removeprefix("file://localhost").removeprefix("file://")
                    found = ["online" if os.path.exists(self.place.path(path)) else "absent"]
                state = found[0] if len(found) == 1 else "multiple" if found else "absent"
                lines.append(("dependency", f"{dependency.grouping}/{dependency.restart_on} {entity} ({state})"))
        return "".join(f"{name:<12} {value}".rstrip() + "\n" for name, value in lines)

    def explain(self, repository: Repository, rows: list[Row], named: bool, verbose: bool) -> None:
        """-x: why an instance is not running; a part of what illumos tells."""
        known = nodes(repository)
        for one in rows:
            healthy = one.state == "online" or (one.state == "disabled" and not one.enabled)
            if healthy and not named:
                continue
            since = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(one.since))
            print(
                f"{one.fmri} ({one.description})\n State: {one.state} since {since}\nReason: {self.reason(one, known)}."
            )
            print(f"   See: {one.restarter('logfile')}")
            waiting = [
                fmri for fmri in known if graph.depends_on(fmri, one.fmri, known) and known[fmri].state == "offline"
            ]
            if not waiting:
                print(f"Impact: This service is {'' if one.state == 'online' else 'not '}running.")
            else:
                print(
                    f"Impact: {len(waiting)} dependent service{'s are' if len(waiting) > 1 else ' is'} not running"
                    f"{':' if verbose else '.  (Use -v for list.)'}"
                )
                for fmri in waiting if verbose else []:
                    print(f"        {fmri}")
            print()

    def reason(self, one: Row, known: graph.Nodes) -> str:
        if one.state == "maintenance":
            return {
                "fault_threshold_reached": "Start method failed repeatedly", "restarting_too_quickly": "Restarting too quickly",
                "administrative_request": "Maintenance requested by an administrator", "dependency_cycle": "Completes a dependency cycle",
            }.get(one.restarter("auxiliary_state"), "Method failed")  # fmt: skip
        if one.state == "disabled":
            return f"{'Temporarily d' if one.temporary else 'D'}isabled by an administrator"
        if one.state == "offline":
            for dependency in graph.unsatisfied(one.fmri, known, self.place.root):
                for entity in dependency.entities:
                    found = graph.means(entity, known)
                    state = known[found[0]].state if found else "absent"
                    return f"Dependency {entity} is {state}"
            return "Start method is running"
        return "None" if one.state == "online" else "Unknown"


def row(repository: Repository, fmri: Fmri) -> Row:
    enabled, temporary = is_enabled(repository, fmri)
    return Row(fmri, repository.composed(fmri), enabled, temporary)


def _key(one: Row, name: str) -> tuple[float, str]:
    if name in ("state", "sta"):
        return (float(_ORDER.index(one.state)) if one.state in _ORDER else -1, "")
    if name == "stime":
        return (one.since, "")
    return (0, COLUMNS[name][1](one, [name]))


def main() -> None:
    raise SystemExit(Svcs().run(sys.argv[1:]))
