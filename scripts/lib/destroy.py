# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove zones, services or a whole deployment. Data stays unless --purge is given; a run brings the zones back."""

from __future__ import annotations

import argparse
import sys

from cloud import Cloud, load
from deployment import ROOT, Deployment, DeploymentError, command
from run import Run
from runner import locked

EPILOG = """\
examples:
  scripts/destroy.sh aio1-keystone-1      one zone
  scripts/destroy.sh keystone             all zones of a service
  scripts/destroy.sh --all                every zone of the deployment, and its bridges
  scripts/destroy.sh --all --purge        and all data
Images stay: they are made from the topology and are needed again. inventory/<deployment>/ stays as well.
"""


def zones_of(cloud: Cloud, names: list[str], everything: bool) -> list[str]:
    """The zones that the names stand for, or an error that lists the choices."""
    if everything == bool(names):
        raise DeploymentError("name zones or services, or give --all")
    chosen: dict[str, None] = {}
    for name in names:
        if name not in cloud.zones and name not in cloud.groups:
            raise DeploymentError(
                f"there is no service or zone '{name}' in deployment '{cloud.deployment}'.\n"
                f"services: {', '.join(sorted(cloud.groups))}\nzones: {', '.join(cloud.zones)}"
            )
        chosen |= dict.fromkeys([name] if name in cloud.zones else cloud.groups[name])
    return list(cloud.zones) if everything else list(chosen)


def confirmed(zones: list[str], deployment: str) -> bool:
    """Ask before data is lost; without a terminal nobody can answer, so that is an error."""
    print(f"This removes {len(zones)} zones of deployment '{deployment}' AND THEIR DATA: {', '.join(zones)}")
    if not sys.stdin.isatty():
        raise DeploymentError("--purge asks, and there is no terminal to ask on: give --yes as well")
    return input(f"Type {deployment} to go on: ").strip() == deployment


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/destroy.sh",
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="ZONE|SERVICE", help="what to remove")
    parser.add_argument("--deployment", default="aio", metavar="NAME", help="folder below inventory/ (default: aio)")
    parser.add_argument("--all", action="store_true", help="the whole deployment")
    parser.add_argument("--purge", action="store_true", help="remove the data as well; asks first")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--check", action="store_true", help="say what would be removed, remove nothing")
    options = parser.parse_args()
    deployment = Deployment(options.deployment).require()
    cloud = load(deployment)
    zones = zones_of(cloud, options.names, options.all)
    if options.purge and not (options.yes or options.check) and not confirmed(zones, cloud.deployment):
        print("Nothing was removed.")
        return 1
    arguments = ["--extra-vars", f"destroy={'zones' if options.all else ':'.join(zones)}"]
    arguments += ["--extra-vars", f"destroy_purge={str(options.purge).lower()}"]
    if options.check:
        arguments.append("--check")
    with locked(deployment):
        run = Run(deployment, cloud, [ROOT / "playbooks/destroy.yml"], arguments)
        rc = run.execute()
    if rc:
        run.report_failures(rc)
        return rc
    run.summary(options.check)
    if not options.purge:
        run.say("Their data is kept: scripts/run-playbooks.sh brings them back with it.")
    return 0


if __name__ == "__main__":
    command(main)
