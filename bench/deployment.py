#!/usr/bin/env python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the all-in-one takes: cold, with images built, a second run, and one zone rebuilt.

Each round makes a fresh host container (tests/host/host.py), so nothing is left over from an earlier one. Prints the
figures, their medians, and the machine's size; it judges nothing. Wants root and an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "host"))

from host import CHECKOUT, SUITES, Host  # noqa: E402


class Timed(t.NamedTuple):
    """One measured command."""

    seconds: float
    steps: str


def timed(host: Host, *arguments: str) -> Timed:
    """Run the playbooks; their own account of the steps comes along."""
    begun = time.monotonic()
    done = host.exec([f"{CHECKOUT}/scripts/run-playbooks.sh", *arguments], timeout=900)
    found = re.search(r"^Took .*$", done.out, re.MULTILINE)
    return Timed(time.monotonic() - begun, found.group(0) if found else "")


def rebuild(host: Host) -> Timed:
    """Destroy a Keystone and build it again; the run ends when HAProxy's health check has passed for every server."""
    host.exec([f"{CHECKOUT}/scripts/destroy.sh", "aio1-keystone-1"], timeout=120)
    return timed(host, "--service", "keystone", "--service", "haproxy")


def free_memory() -> int:
    """Memory that is available, in MiB."""
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    return int(found.group(1)) // 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="fresh hosts to measure (default 3)")
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0], help="Debian of the fresh host")
    options = parser.parse_args()
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    print(
        f"{os.cpu_count()} cores, {int(memory.group(1)) // 2**20 if memory else '?'} GiB, load {os.getloadavg()[0]:.1f}, {options.suite}"
    )
    figures: dict[str, list[float]] = {}
    for number in range(1, options.rounds + 1):
        host = Host("bench").create(options.suite)
        host.copy_project(worktree=True)
        before = free_memory()
        try:
            for name, measure in {
                "cold": timed,
                "second run": timed,
                "one Keystone rebuilt": rebuild,
            }.items():
                result = measure(host)
                figures.setdefault(name, []).append(result.seconds)
                print(f"round {number}: {name:<22}{result.seconds:7.1f} s   {result.steps}", flush=True)
            print(f"round {number}: memory in use         {before - free_memory():7d} MiB", flush=True)
            host.exec([f"{CHECKOUT}/scripts/destroy.sh", "--all", "--purge", "--yes"], timeout=120)
            result = timed(host)
            figures.setdefault("warm (images built)", []).append(result.seconds)
            print(f"round {number}: {'warm (images built)':<22}{result.seconds:7.1f} s   {result.steps}", flush=True)
        finally:
            host.destroy()
    for name, seconds in figures.items():
        print(f"median {name:<24}{statistics.median(seconds):7.1f} s   of {', '.join(f'{one:.1f}' for one in seconds)}")


if __name__ == "__main__":
    main()
