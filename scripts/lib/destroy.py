# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove zones, services or a whole deployment. Data volumes stay unless --purge is given; the next run creates the zones again."""

from __future__ import annotations

from cloud import Cloud, load
from deployment import ROOT, Deployment, DeploymentError, command, confirmed
from hold import held
from options import destroy
from run import Run
from runner import locked


def zones_of(cloud: Cloud, names: list[str], everything: bool) -> list[str]:
    """The zones that the names stand for, or an error that lists the choices."""
    if everything == bool(names):
        raise DeploymentError("name zones or services, or use --all")
    chosen = dict.fromkeys(zone for name in names for zone in cloud.named(name))
    return list(cloud.zones) if everything else list(chosen)


def consequence(zones: list[str], deployment: str) -> str:
    return f"This removes {len(zones)} zones of deployment '{deployment}' AND THEIR DATA: {', '.join(zones)}"


def left(everything: bool, purge: bool, keep_images: bool, again: str) -> list[str]:
    """What stays where it is, and why: a line for each. Pure.

    :param again: the command that deploys anew.
    """
    kept = [] if purge else [f"Their data volumes stay: {again} brings the zones back with them."]
    if everything and (not purge or keep_images):
        kept.append(
            f"Images, packages and kernel settings stay on the hosts, as {again} needs them again (--purge removes all but packages)."
        )
    elif everything:
        kept.append(
            "On the hosts stay: packages, with the users and files that are theirs, as others may use them by now; the hosts' own networks "
            "(links of topology.yml), by which they are reached; and Ansible's folder ~/.ansible."
        )
    if everything:
        kept.append("Here stay: the folder of the deployment with topology.yml and secrets.yml, the logs, and .venv.")
    return kept


def main() -> int:
    options = destroy().parse_args()
    deployment = Deployment(options.deployment).require()
    cloud = load(deployment)
    zones = zones_of(cloud, options.names, options.all)
    if (
        options.purge
        and not (options.yes or options.check)
        and not confirmed(consequence(zones, cloud.deployment), cloud.deployment)
    ):
        print("Nothing was removed.")
        return 1
    arguments = ["--extra-vars", f"destroy={'zones' if options.all else ':'.join(zones)}"]
    arguments += ["--extra-vars", f"destroy_purge={str(options.purge).lower()}"]
    arguments += ["--extra-vars", f"destroy_keep_images={str(options.keep_images).lower()}"]
    if options.check:
        arguments.append("--check")
    with (
        locked(deployment),
        held(deployment, lock=not options.check, wait=options.wait, take_over=options.take_over) as hold,
    ):
        run = Run(deployment, cloud, [ROOT / "playbooks/destroy.yml"], arguments)
        rc = run.execute()
        if options.all and options.purge and not options.check and not rc:
            hold.note(None)  # nothing is left that needs these secrets
    if rc:
        run.report_failures(rc)
        return rc
    run.summary(options.check)
    for line in left(options.all, options.purge, options.keep_images, f"scripts/run-playbooks.sh{run.option()}"):
        run.say(line)
    return 0


if __name__ == "__main__":
    command(main)
