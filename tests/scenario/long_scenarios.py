#!/usr/bin/env python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The long scenarios: their names, times and the paths that concern them; and what a change to the project should be tested with.

A scenario that is too long for every run has the mark ``long`` with its name here (``@pytest.mark.long("tempest")``); without a
name it has that of its file (``test_mixed.py``: mixed). ``pytest tests/scenario --long=NAME`` runs it, and before it what it
stands on; ``scripts/run-tests.sh --list-long`` and ``--changed`` print what this program prints. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import subprocess
import sys
import typing as t
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER.parents[1]


class Long(t.NamedTuple):
    """One name under which long scenarios are selected."""

    minutes: int
    """About so many on two idle cores, with the deployment that the scenario stands on."""
    what: str
    paths: tuple[str, ...]
    """What concerns it, as patterns of paths in the project (fnmatch: ``*`` stands for any characters, ``/`` included)."""


LONG: dict[str, Long] = {
    "tempest": Long(
        25,
        "Tempest's interoperability suite against the all-in-one, whole",
        ("services/*", "locks/*", "*tempest*", "*test_report*", "scripts/verify.sh"),
    ),
    "rebuild-each": Long(
        40,
        "each of 30 zones destroyed and made again under a running instance; all zones killed under it",
        ("roles/*", "services/*", "plugins/*zone*", "plugins/*daemon*"),
    ),
    "operator": Long(
        20,
        "plan, refused options, wrong topologies, lost volumes, the dashboard's second zone, on the all-in-one",
        ("scripts/lib/*", "plugins/*oslo*", "plugins/*topology*", "plugins/*python_settings*", "*galera*", "*rabbit*", "*horizon*"),
    ),
    "bookworm": Long(
        12,
        "the one command, a second run and a loss of power again on Debian 12",
        ("scripts/bootstrap*", "roles/zone_host/*", "plugins/*lxc*", "plugins/*image*"),
    ),
    "smartos": Long(
        30,
        "on the simulated SmartOS host: a killed build of images, a zone rebuilt, the global zone rebooted",
        ("*smartos*", "*vmadm*", "*imgadm*", "*zfs*", "*global_zone*"),
    ),
    "mixed": Long(
        120,
        "a SmartOS and a Linux host in one cloud: Tempest's smoke tests, rebuilds, reboots, killed runs",
        ("*smartos*", "*vmadm*", "*imgadm*", "plugins/connection/*"),
    ),
    "two-hosts": Long(
        12,
        "the whole cloud on two hosts over SSH, an instance on each, a second run",
        ("*several*", "*ovn*", "*neutron*", "plugins/connection/*", "inventory/examples/two-hosts/*"),
    ),
    "host-lost": Long(
        15,
        "one of two hosts loses its power: the API answers within ten seconds (wants an idle machine), instances run on",
        ("*haproxy*", "*galera*", "*rabbit*", "*ovn*", "*virtual_address*"),
    ),
    "hypervisor": Long(
        25,
        "a third host is added to two for instances alone, and removed",
        ("scripts/*host*", "playbooks/*leave*", "*nova*", "*neutron*", "*ovn*"),
    ),
    "control-host": Long(
        30,
        "one of two hosts with half of the control plane is removed, and another machine takes its place",
        ("scripts/*host*", "playbooks/*leave*", "*galera*", "*rabbit*", "*ovn*", "plugins/*topology*"),
    ),
    "bundle": Long(
        25,
        "two hosts without a way out, deployed from one archive",
        ("*bundle*", "plugins/*image*", "scripts/bootstrap-control.sh", "locks/*"),
    ),
    "production": Long(
        75,
        "five hosts of the production example: loss of the virtual address, a dead host replaced, a hypervisor changed",
        ("inventory/examples/production/*", "*haproxy*", "plugins/*topology*", "playbooks/*", "plugins/connection/*"),
    ),
    "regions": Long(
        15,
        "two deployments on one host, the second a region of the first one's cloud",
        ("*region*", "*keystone*", "*identity*"),
    ),
    "leaving": Long(
        6,
        "a bridge of the site stays as it is; other secrets are refused; destroy --all --purge leaves the machine as it was found",
        ("roles/zone_host/*", "playbooks/destroy.yml", "scripts/lib/hold.py", "scripts/lib/keeper.py", "plugins/*lxc_host*", "*ownership*", "tests/host/*"),
    ),
    "clustered-service": Long(
        12,
        "a site's own clustered service, etcd in a folder outside the checkout: deployed, rebuilt without its data, members added and retired",
        ("services/galera/*", "services/ovn/*", "plugins/*services*", "plugins/*retirement*", "playbooks/*", "roles/*", "tests/scenario/services/*"),
    ),
}  # fmt: skip

PARTS: dict[str, tuple[str, ...]] = {
    "sanity": ("plugins/*", "meta/*", "galaxy.yml"),
    "unit": ("*.py", "*.sh", "*.yml", "*.j2", "*.md", "locks/*", "roles/*", "services/*"),
    "molecule": ("plugins/modules/zone*", "plugins/module_utils/*", "molecule/*"),
    "contact": ("scripts/*", "roles/zone_host/*", "tests/contact/*", "tests/host/*", "locks/*"),
    "integration": ("plugins/*", "roles/*", "services/*", "scripts/*", "tests/integration/*", "tests/smartos_sim/*", "tests/host/*"),
    "scenario": ("playbooks/*", "roles/*", "services/*", "plugins/*", "scripts/*", "group_vars/*", "inventory/*", "locks/*", "tests/scenario/*", "tests/host/*"),
}  # fmt: skip
"""Parts of scripts/run-tests.sh beside lint, which always runs, and the paths that they look at."""


def file_name(file: Path) -> str:
    """The name of a file's long scenarios where their mark has none."""
    return file.stem.removeprefix("test_").replace("_", "-")


def marked() -> dict[str, set[str]]:
    """The names that are in use as marks, each with the files where it stands; read, not imported."""
    found: dict[str, set[str]] = {}
    for file in sorted(FOLDER.glob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        names = {node.func: node.args for node in nodes if isinstance(node, ast.Call)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.long":
                given = names.get(node)
                found.setdefault(ast.literal_eval(given[0]) if given else file_name(file), set()).add(file.name)
    return found


def concerned(paths: t.Iterable[str]) -> tuple[list[str], list[str]]:
    """The parts and the long scenarios that changed files, given by their paths in the project, ask for."""
    changed = list(paths)

    def touched(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for path in changed for pattern in patterns)

    parts = [part for part, patterns in PARTS.items() if touched(patterns)]
    own = {name: tuple(f"tests/scenario/{file}" for file in files) for name, files in marked().items()}
    names = [name for name, long in LONG.items() if touched((*long.paths, *own.get(name, ())))]
    return (["lint", *parts] if changed else []), names


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()


def base_of() -> str:
    """Where the work on HEAD left the branch main, or the commit before HEAD on main itself."""
    head = _git("rev-parse", "HEAD")
    for main in ("main", "origin/main"):
        if (
            subprocess.run(
                ["git", "rev-parse", "-q", "--verify", main], cwd=PROJECT, capture_output=True, check=False
            ).returncode
            == 0
        ):
            base = _git("merge-base", main, "HEAD")
            return base if base != head else "HEAD~1"
    return "HEAD~1"


def changed_since(base: str) -> list[str]:
    """Paths of the files that differ from a commit, those not yet committed and not yet known to git included."""
    listed = _git("diff", "--name-only", "-z", base) + "\0" + _git("ls-files", "-z", "--others", "--exclude-standard")
    return sorted({path for path in listed.split("\0") if path})


def table() -> str:
    """The long scenarios, one a line."""
    lines = [f"{name:<14}{long.minutes:>4} min  {long.what}" for name, long in LONG.items()]
    return "\n".join(
        [*lines, "", "select: scripts/run-tests.sh scenario -- --long=NAME[,NAME ...]    all of them: --long"]
    )


def advice(base: str) -> str:
    """What to run for the changes since a commit."""
    files = changed_since(base)
    parts, names = concerned(files)
    if not files:
        return f"nothing changed since {base}"
    lines = [f"{len(files)} files changed since {base}", f"scripts/run-tests.sh {' '.join(parts)}"]
    if names:
        minutes = sum(LONG[name].minutes for name in names if name in LONG)
        lines += [f"scripts/run-tests.sh scenario -- --long={','.join(names)}    # about {minutes} min"]
        lines += [f"  {name:<14}{LONG[name].minutes:>4} min  {LONG[name].what}" for name in names if name in LONG]
    else:
        lines += ["no long scenario"]
    return "\n".join(lines)


def main(argv: t.Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--changed", nargs="?", const="", metavar="BASE", help="what the changes since a commit ask for"
    )
    options = parser.parse_args(argv)
    if options.changed is None:
        print(table())
        return 0
    try:
        print(advice(options.changed or base_of()))
    except subprocess.CalledProcessError as wrong:
        print(f"error: {wrong.stderr.strip()}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
