# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host container uses, read from its control groups: processor time and memory, as a whole and by zone.

Processor seconds say what a change costs where a wall clock cannot: a machine of which others take a share lets every
wall clock run on. Both layouts of control groups are read, https://docs.kernel.org/admin-guide/cgroup-v1/cpuacct.html
and https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import re
import subprocess
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from host import Host


class Meter(t.NamedTuple):
    """Where a layout of control groups counts processor time."""

    root: Path
    file: str
    pattern: str
    per_second: float

    def read(self, group: Path) -> float:
        """Processor seconds of a group and of all below it."""
        found = re.search(self.pattern, (group / self.file).read_text(), re.MULTILINE)
        return int(found[1]) / self.per_second if found else 0.0


_METERS = (
    Meter(Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage", r"^(\d+)$", 1e9),
    Meter(Path("/sys/fs/cgroup"), "cpu.stat", r"usage_usec (\d+)", 1e6),
)
_STEP = re.compile(r"^\d\d:\d\d:\d\d\s+([a-z]+)\s")


def _group(host: Host) -> tuple[Meter, Path]:
    """The host's group in the layout of this machine; FileNotFoundError when it does not run."""
    for meter in _METERS:
        group = meter.root / f"lxc.payload.{host.name}"
        if (group / meter.file).is_file():
            return meter, group
    raise FileNotFoundError(f"{host.name}: no control group counts its processor time; start the host")


def processor_seconds(host: Host) -> float:
    """Processor time of everything that has run in the host since it started, its zones included."""
    meter, group = _group(host)
    return meter.read(group)


def processor_seconds_by_zone(host: Host) -> dict[str, float]:
    """The same for each zone that runs now; ``host`` is what is left for the host itself."""
    meter, group = _group(host)
    zones = {
        path.name.removeprefix("lxc.payload."): meter.read(path)
        for path in sorted(group.rglob("lxc.payload.*"))
        if path.is_dir()
    }
    return {**zones, "host": meter.read(group) - sum(zones.values())}


def memory(host: Host) -> float:
    """Proportional set size of all processes of the host and its zones in MiB (``Pss`` in proc_pid_smaps(5)): shared pages once."""
    group = _group(host)[1]
    total = 0
    for processes in group.rglob("cgroup.procs"):
        for pid in processes.read_text().split():
            try:
                found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            total += int(found[1]) if found else 0
    return total / 1024


@dataclass
class Usage:
    """What one command took: seconds on the clock, processor seconds, and both for each step of a run."""

    wall: float = 0.0
    processor: float = 0.0
    steps: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {wall:.0f}/{processor:.0f}" for name, (wall, processor) in self.steps.items())
        return f"{self.wall:7.1f} s {self.processor:7.1f} processor seconds" + (f"   ({steps})" if steps else "")


def _step_of(line: str, running: bool) -> str:
    """The step that a line of a run's output ends a part of; empty when it says nothing of that.

    :param running: whether the first step has begun: what is printed before it is bootstrap's.
    """
    found = _STEP.match(line)
    if found:
        return found[1]
    if line.startswith("Took "):
        return "summary"
    return "" if running else "bootstrap"


def measure(host: Host, argv: t.Sequence[str], limit: float = 1800) -> Usage:
    """Run a command in the host and say what it took.

    A run prints a line at the end of each task, with the name of its step: what passed since the line before is that
    step's.

    :param limit: seconds after which the command counts as hanging.
    :raises RuntimeError: it failed; with its last lines.
    """
    result, lines = Usage(), []
    begun = last = time.monotonic()
    used = before = processor_seconds(host)
    process = host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    for raw in process.stdout:
        line = raw.decode(errors="replace").rstrip()
        lines.append(line)
        step = _step_of(line, bool(result.steps.keys() - {"bootstrap"}))
        if not step:
            continue
        now, spent = time.monotonic(), processor_seconds(host)
        wall, processor = result.steps.get(step, (0.0, 0.0))
        result.steps[step] = (wall + now - last, processor + spent - before)
        last, before = now, spent
        if now - begun > limit:
            process.kill()
    if process.wait(limit) != 0:
        raise RuntimeError(f"{host.name}: {' '.join(argv)} ended with {process.returncode}:\n" + "\n".join(lines[-15:]))
    result.wall, result.processor = time.monotonic() - begun, processor_seconds(host) - used
    return result


def at_rest(host: Host, seconds: float = 60) -> tuple[float, dict[str, float]]:
    """Share of one core that the host takes while nobody asks anything of it, in per cent; as a whole, and by zone."""
    begun, first = time.monotonic(), processor_seconds_by_zone(host)
    time.sleep(seconds)
    passed = (time.monotonic() - begun) / 100
    shares = {zone: (spent - first.get(zone, 0.0)) / passed for zone, spent in processor_seconds_by_zone(host).items()}
    return sum(shares.values()), shares
