#!/usr/bin/env python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the all-in-one takes: cold, a second run, one Keystone rebuilt, at rest, going, and with images built.

Each round makes a fresh host container (tests/host/host.py), so nothing is left over from an earlier one. Prints clock
seconds and processor seconds (of the whole host container), for each step of a run too, and their medians; it judges
nothing. With --against, two commits take turns in one sitting. Wants root and an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "host"))

from debian_root import SUITES  # noqa: E402
from host import CHECKOUT, PROJECT, Host  # noqa: E402
from usage import Usage, at_rest, measure, memory, processor_seconds_by_zone  # noqa: E402

RUN = f"{CHECKOUT}/scripts/run-playbooks.sh"
DESTROY = f"{CHECKOUT}/scripts/destroy.sh"
KEYSTONE = "aio1-keystone-1"


def give_project(host: Host, commit: str | None) -> None:
    """Put the working tree's files into the host, or those of a commit."""
    if commit is None:
        host.copy_project(worktree=True)
        return
    with tempfile.TemporaryDirectory(prefix="zonestack-bench-") as scratch:
        archive = subprocess.run(["git", "-C", str(PROJECT), "archive", commit], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-C", scratch, "-xf", "-"], input=archive, check=True)
        host.copy_tree(Path(scratch), CHECKOUT)


def together(first: Usage, second: Usage) -> Usage:
    """Two commands as one."""
    return Usage(first.wall + second.wall, first.processor + second.processor, second.steps)


def most(shares: dict[str, float], count: int = 8) -> str:
    """The largest of them, as text."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{zone} {share:.1f}" for zone, share in ordered[:count])


class Figures:
    """What was measured: by what it was of, and by side."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[float]] = {}

    def note(self, what: str, side: str, value: float) -> None:
        """Keep one figure."""
        self.found.setdefault((what, side), []).append(value)

    def note_usage(self, what: str, side: str, usage: Usage) -> None:
        """Keep the figures of a command and of its steps, and print them."""
        print(f"{side}: {what:<24}{usage}", flush=True)
        self.note(f"{what}, s", side, usage.wall)
        self.note(f"{what}, processor s", side, usage.processor)
        for step, (wall, processor) in usage.steps.items():
            self.note(f"{what}: {step}, s", side, wall)
            self.note(f"{what}: {step}, processor s", side, processor)

    def table(self, sides: t.Sequence[str]) -> None:
        """Print medians, and with two sides the second one as a part of the first one."""
        print(
            f"{'median':<40}" + "".join(f"{side:>14}" for side in sides) + ("         ratio" if len(sides) == 2 else "")
        )
        for what in dict.fromkeys(name for name, _side in self.found):
            medians = [statistics.median(self.found[what, side]) for side in sides if (what, side) in self.found]
            ratio = f"{medians[0] / medians[1]:14.2f}" if len(medians) == 2 and medians[1] else ""
            print(f"{what:<40}" + "".join(f"{median:14.1f}" for median in medians) + ratio)


def round_of(host: Host, side: str, figures: Figures) -> None:
    """Measure a deployment's whole life on a fresh host."""
    figures.note_usage("cold", side, measure(host, [RUN]))
    print(f"{side}: cold, processor seconds by zone: {most(processor_seconds_by_zone(host))}", flush=True)
    figures.note_usage("second run", side, measure(host, [RUN]))
    gone = measure(host, [DESTROY, KEYSTONE])
    figures.note_usage(
        "one Keystone rebuilt",
        side,
        together(gone, measure(host, [RUN, "--service", "keystone", "--service", "haproxy"])),
    )
    share, shares = at_rest(host)
    print(f"{side}: at rest {share:.1f} % of a core: {most(shares)}", flush=True)
    figures.note("at rest, % of a core", side, share)
    figures.note("memory (PSS), MiB", side, memory(host))
    figures.note(
        "images, MiB", side, float(host.exec("du -sxm /var/lib/lxc/zonestack/images | cut -f 1").out.split()[0])
    )
    # Older commits leave the images without being asked.
    keep = ["--keep-images"] if "--keep-images" in host.exec([DESTROY, "--help"]).out else []
    figures.note_usage("destroyed with its data", side, measure(host, [DESTROY, "--all", "--purge", *keep, "--yes"]))
    figures.note_usage("warm (images built)", side, measure(host, [RUN]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="fresh hosts to measure for each side (default 3)")
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0], help="Debian of the fresh host")
    parser.add_argument(
        "--against", metavar="COMMIT", help="measure this commit too, in turn with the files as they lie here"
    )
    options = parser.parse_args()
    size = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    gib = int(size.group(1)) // 2**20 if size else "?"
    print(f"{os.cpu_count()} cores, {gib} GiB, load {os.getloadavg()[0]:.1f}, {options.suite}")
    sides: dict[str, str | None] = {"here": None, **({options.against: options.against} if options.against else {})}
    figures = Figures()
    for number in range(options.rounds):
        # Who goes first changes with each round: caches of packages favour the second one.
        for side, commit in list(sides.items())[:: -1 if number % 2 else 1]:
            host = Host("bench").create(options.suite)
            try:
                give_project(host, commit)
                round_of(host, side, figures)
            finally:
                host.destroy()
    figures.table(list(sides))


if __name__ == "__main__":
    main()
