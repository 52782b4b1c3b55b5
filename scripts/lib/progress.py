# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run did: kept from Ansible's events, shown while it goes on and summed up when it ends."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

OUTCOMES = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}
SILENT = "Validating arguments against arg spec"
"""Tasks that Ansible adds itself; worth a line only when they fail."""

HINTS = (
    ("unreachable", "check that the zone runs; scripts/run-playbooks.sh --step zones starts it"),
    ("no_log", "Ansible hides this result because it holds secrets; run the task's command in the zone to see it"),
    ("undefined", "a variable is missing: `ansible-inventory --host ZONE` shows what the zone has"),
)


@dataclass
class TaskRun:
    """One task on all its hosts. ``seconds`` from its start to its last result."""

    step: str
    name: str
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    def counts(self) -> str:
        """``3 ok, 2 changed``: how many hosts had which outcome."""
        return ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items()) or "no host"


@dataclass(frozen=True)
class Failure:
    """A task that failed on a host, with Ansible's message."""

    step: str
    host: str
    task: str
    message: str
    kind: str

    def hint(self) -> str | None:
        text = f"{self.kind} {self.message}".lower()
        return next((hint for word, hint in HINTS if word in text), None)


def plain_name(task: str) -> str:
    """A task's own name, without the role that Ansible puts before it."""
    return task.rpartition(" : ")[2]


def message_of(result: dict[str, Any]) -> str:
    """The words in which a task failed: its message, and what its command said on stderr."""
    if result.get("censored"):
        return f"{result['censored']} (no_log)"
    items = [message_of(item) for item in result.get("results", []) if isinstance(item, dict) and item.get("failed")]
    parts = [str(result[key]).strip() for key in ("msg", "stderr") if result.get(key)]
    return "\n".join(dict.fromkeys(items or parts)) or "no message"


class Record:
    """Takes events and keeps what the display and the summary need."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.tasks: list[TaskRun] = []
        self.failures: list[Failure] = []
        self.changed: dict[str, list[str]] = defaultdict(list)
        self.restarted: dict[str, list[str]] = defaultdict(list)
        self.step_seconds: dict[str, float] = {}
        self.pairs = 0
        self.skipped = 0
        self.said: dict[str, Any] = {}
        """What plays say about the whole run, by ``set_stats``."""
        self.last_words: deque[str] = deque(maxlen=40)
        self._task_by_uuid: dict[str, TaskRun] = {}
        self._step_started = time.monotonic()

    @property
    def step(self) -> str | None:
        """The step that runs, or ran last."""
        return next(reversed(self.step_seconds), None)

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def close_step(self) -> None:
        """Note how long the current step took."""
        if self.step:
            self.step_seconds[self.step] = time.monotonic() - self._step_started

    def add(self, event: dict[str, Any]) -> None:
        kind, data = str(event["event"]), event.get("event_data") or {}
        if kind == "verbose" and event["stdout"]:
            self.last_words.append(str(event["stdout"]))
        if kind == "playbook_on_start":
            self.close_step()
            self.step_seconds[Path(data["playbook"]).stem] = 0.0
            self._step_started = time.monotonic()
        elif kind in ("playbook_on_task_start", "playbook_on_handler_task_start"):
            # a task that several plays or hosts start one by one has one line
            if data["task_uuid"] not in self._task_by_uuid:
                task = TaskRun(self.step or "", plain_name(data["name"]))
                self._task_by_uuid[data["task_uuid"]] = task
                self.tasks.append(task)
        elif kind == "playbook_on_stats":
            self.said |= data.get("artifact_data") or {}
        elif kind in OUTCOMES:
            result = data.get("res") or {}
            if data.get("task_action") == "zonestack.openstack.zones" and result.get("zones"):
                # one call, made for one zone of a host, has made them all: a result each
                for zone, one in result["zones"].items():
                    self._add_result("failed" if one.get("failed") else "ok", zone, one, data)
            else:
                self._add_result(OUTCOMES[kind], data["host"], result, data)

    def _add_result(self, outcome: str, host: str, result: dict[str, Any], data: dict[str, Any]) -> None:
        name = plain_name(data.get("task") or "")
        if outcome == "failed" and data.get("ignore_errors"):
            outcome = "ignored"
        if outcome == "ok" and result.get("changed"):
            outcome = "changed"
            self.changed[host].append(name)
        task = self._task_by_uuid.get(data["task_uuid"])
        if task:
            task.outcomes[outcome] += 1
            task.seconds = time.monotonic() - task.started
        if outcome == "skipped":
            self.skipped += 1
        else:
            self.pairs += 1
        if isinstance(result.get("restarted"), list) and result["restarted"]:
            self.restarted[host] += [str(daemon) for daemon in result["restarted"]]
        if outcome in ("failed", "unreachable"):
            self.failures.append(Failure(self.step or "", host, name, message_of(result), outcome))


class Display:
    """Shows a run: a live line below finished tasks on a terminal, and plain lines with the time anywhere else."""

    def __init__(self, record: Record, steps: list[str], console: Console, shown: Iterable[str], mask: Any) -> None:
        self.record = record
        self.steps = steps
        self.console = console
        self.shown = frozenset(shown)
        self.mask = mask
        self._shown = 0
        self._failures_shown = 0
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._now, transient=True)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._finish(0)
        if self._live.is_started:
            self._live.stop()

    def update(self, event: dict[str, Any]) -> None:
        """Show what the last event finished. The last task is still going, so it is not shown yet."""
        self._finish(1)
        if event["event"] in self.shown and event["stdout"]:
            self.console.print(Text(str(event["stdout"])))
        for failure in self.record.failures[self._failures_shown :]:
            first = self.mask(failure.message).splitlines()[0]
            self._line(f"{failure.kind.upper()}: {failure.host}: {first}", "bold red")
        self._failures_shown = len(self.record.failures)

    def _finish(self, running: int) -> None:
        for task in self.record.tasks[self._shown : max(self._shown, len(self.record.tasks) - running)]:
            self._shown += 1
            said = set(task.outcomes) - {"skipped"}
            if not said or (task.name.startswith(SILENT) and said == {"ok"}):
                continue
            style = (
                "red"
                if task.outcomes["failed"] + task.outcomes["unreachable"]
                else "yellow"
                if task.outcomes["changed"]
                else "green"
            )
            self._line(f"{task.step:<14}  {task.name}  ({task.counts()}, {task.seconds:.1f} s)", style)

    def _line(self, text: str, style: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        if self.console.is_terminal:
            self.console.print(f"[dim]{stamp}[/dim]  [{style}]{escape(text)}[/{style}]", highlight=False)
        else:
            self.console.file.write(f"{stamp}  {text}\n")
            self.console.file.flush()

    def _now(self) -> Table:
        """The live line: step, task, hosts that are done, time."""
        step = self.record.step
        number = self.steps.index(step) + 1 if step in self.steps else 0
        task = self.record.tasks[-1] if self.record.tasks else None
        what = f"{task.name} ({task.counts()})" if task else "starting Ansible"
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Spinner("dots"),
            Text(f"[{number}/{len(self.steps)}] {step or ''}", style="bold"),
            Text(what, overflow="ellipsis", no_wrap=True),
            Text(f"{self.record.seconds():.0f} s", style="dim"),
        )
        return grid


class Log:
    """The full log of a run: Ansible's own output, already masked, each line with its time."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self._file.write("".join(f"{stamp} {line}\n" for line in text.splitlines() if line))

    def event(self, event: dict[str, Any]) -> None:
        if event["stdout"]:
            self.write(str(event["stdout"]))
            self._file.flush()
