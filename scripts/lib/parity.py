# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare two deployments: what differs because they are two, or of two sizes, and what has drifted apart.

Both are rendered as a run would do it, with throw-away secrets. Then the first one is rendered once more as it would be on the
machines of the second: what its topology says of names, addresses, numbers and sizes is replaced by what the other one says
(parity.yml lists what that is). What differs even then is explained by no machine: drift, unless a rule knows the key.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from comparison.differences import Comparison
from comparison.report import html, report
from comparison.rules import RULES, Rules
from deployment import Deployment, DeploymentError, command, write_whole
from options import parity


def find(name: str) -> Deployment:
    """A deployment by the name of its folder; an example where there is no deployment of that name."""
    example = Deployment(f"examples/{name}")
    made = Deployment(name)
    return (example if example.topology.is_file() and not made.topology.is_file() else made).require()


def main() -> int:
    options = parity().parse_args()
    mine, theirs = find(options.mine), find(options.theirs)
    differences = Comparison(mine, theirs, Rules([*options.rules, RULES])).differences
    if options.json:
        print(json.dumps([asdict(one) for one in differences], indent=2, ensure_ascii=False))
        return int(any(one.kind == "drift" for one in differences))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    report(console, mine.name, theirs.name, differences, options.all)
    folder = options.output or Deployment(options.mine).logs
    try:
        write_whole(folder / "parity.html", html(mine.name, theirs.name, differences))
    except OSError as why:
        raise DeploymentError(f"--output {folder}: {why.strerror}: set a folder that can be written to") from None
    console.print(Text(f"wrote {folder / 'parity.html'}"), soft_wrap=True)
    return int(any(one.kind == "drift" for one in differences))


if __name__ == "__main__":
    command(main, refused=2)
