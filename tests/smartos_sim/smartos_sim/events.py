# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The changes of VMs as ``vmadm events`` tells them (facts 1.9)."""

from __future__ import annotations

import json
import sys
import time
import typing as t

from .files import locked, timestamp

if t.TYPE_CHECKING:
    from .state import Record, State


MAX_ALIAS = 30  # characters that the text form shows


def _differences(before: t.Any, after: t.Any, path: list[str]) -> t.Iterator[dict[str, t.Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            if key not in after:
                yield {"path": [*path, key], "action": "removed", "oldValue": before[key]}
            elif key not in before:
                yield {"path": [*path, key], "action": "added", "newValue": after[key]}
            else:
                yield from _differences(before[key], after[key], [*path, key])
    elif before != after:
        yield {"path": path, "action": "changed", "oldValue": before, "newValue": after}


def _seen(record: Record) -> dict[str, t.Any]:
    """What of a record a reader of events can see without asking the machine."""
    transition = record.get("transition")
    state = {"transition_to": transition["to"]} if transition else {}
    return {**record["vm"], **state, **({"failed": True} if record.get("failed") else {})}


def note(state: State, kind: str, before: Record | None, after: Record) -> None:
    """Append one event: ``kind`` is create, modify or delete. A modification that changes nothing is none."""
    vm = _seen(after)
    event: dict[str, t.Any] = {"type": kind, "zonename": vm["zonename"], "uuid": vm["uuid"], "date": timestamp()}
    if kind != "delete":
        event["vm"] = vm
    if kind == "modify" and before:
        event["changes"] = list(_differences(_seen(before), vm, []))
        if not event["changes"]:
            return
    event["alias"] = vm.get("alias", "-")
    with locked(state.directory / "locks" / "events"), open(state.directory / "events.jsonl", "a") as log:
        log.write(json.dumps(event) + "\n")


def _lines(event: dict[str, t.Any], full: bool) -> t.Iterator[str]:
    when, uuid = event["date"], event["uuid"]
    if event["type"] == "ready":
        yield f"[{when}] ready (uuid {uuid})" if full else f"[{when[11:]}] ready"
        return
    alias = event.get("alias", "-")
    alias = alias if len(alias) <= MAX_ALIAS else alias[: MAX_ALIAS - 3] + "..."
    head = f"[{when if full else when[11:]}] {uuid if full else uuid[:8]} {alias} {event['type']}"
    if event["type"] != "modify":
        yield head
    for change in event.get("changes", ()):
        path = ".".join(change["path"])
        old, new = (json.dumps(change.get(key)) for key in ("oldValue", "newValue"))
        yield f"{head}: {path} {change['action']} :: {old} -> {new}"


def follow(state: State, uuid: str | None, *, full: bool, as_json: bool, ready: bool) -> t.NoReturn:
    """Print events from now on, for ever; of one VM when ``uuid`` is given."""
    path = state.directory / "events.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as log:
        if ready:
            _tell({"type": "ready", "zonename": "-", "uuid": "-", "date": timestamp()}, full, as_json)
        while True:
            line = log.readline()
            if not line:
                time.sleep(0.05)
                continue
            event = json.loads(line)
            if uuid in (None, event["uuid"]):
                _tell(event, full, as_json)


def _tell(event: dict[str, t.Any], full: bool, as_json: bool) -> None:
    if as_json:
        event.pop("alias", None)
        print(json.dumps(event))
    else:
        for line in _lines(event, full):
            print(line)
    sys.stdout.flush()
