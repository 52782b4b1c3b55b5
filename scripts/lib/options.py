# SPDX-License-Identifier: GPL-3.0-or-later
"""What scripts/run-playbooks.sh takes. Standard library only, so that its help needs nothing to be installed."""

from __future__ import annotations

import argparse

STEPS = {
    "hosts": "packages, kernel settings, bridges and NAT on the physical hosts",
    "images": "the base image and one image per service, built once",
    "zones": "every zone exists, with its image, addresses and limits, and runs",
    "infrastructure": "files and daemons in the zones; database, queue and load balancer",
    "services": "OpenStack: schemas, daemons, catalog, users",
    "verify": "every front end serves; when something has changed, an instance is booted, reached, copied and removed",
}
"""The steps in their order, each the playbook of its name, and what it makes so."""


def parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<15} {text}" for name, text in STEPS.items())
    made = argparse.ArgumentParser(
        prog="scripts/run-playbooks.sh",
        description="Deploy, or converge, a deployment. On a fresh machine, prepare the all-in-one host first.",
        epilog=f"steps:\n{lines}\n\nexit code: 0 when all is well, Ansible's (1, 2, 4) when not, 130 when interrupted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--deployment", default="aio", metavar="NAME", help="folder below inventory/ (default: aio)")
    made.add_argument(
        "--step", action="append", default=[], metavar="STEP", help="only this step, or FROM..TO; repeatable"
    )
    made.add_argument(
        "--service", action="append", default=[], metavar="NAME", help="only the zones of this service; repeatable"
    )
    made.add_argument("--limit", metavar="PATTERN", help="only these hosts and zones, in Ansible's notation")
    made.add_argument("--check", action="store_true", help="say what would change, change nothing")
    made.add_argument("--diff", action="store_true", help="show the changes (secrets never)")
    made.add_argument(
        "--no-verify", action="store_true", help="without the step verify; scripts/verify.sh makes up for it"
    )
    made.add_argument("--resume", action="store_true", help="begin with the step in which the last run broke")
    made.add_argument(
        "--verbose", "-v", action="count", default=0, help="show Ansible's results; -vv and more as for Ansible"
    )
    made.add_argument(
        "--extra-vars", "-e", action="append", default=[], metavar="VARS", help="passed to ansible-playbook"
    )
    made.add_argument("--list-steps", action="store_true", help="list the steps and end")
    return made


if __name__ == "__main__":
    parser().parse_args()
