# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a host out of a deployment. What it held elsewhere goes to the others, what it was is forgotten, and nothing is left on it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from checks.finding import names
from checks.unreachable import NO_PYTHON
from cloud import compute, load
from deployment import ROOT, Deployment, DeploymentError, command, confirmed
from hold import claim, held
from options import STEPS, remove_host
from preflight import CONNECT_SECONDS, Way, way_to
from run import Run, ensure_secrets
from runner import locked

ANSWER_LIMIT = 3 * CONNECT_SECONDS
"""Seconds after which a host that says nothing counts as one that does not answer."""


def leaving(computed: Any, name: str) -> Any:
    """The host, once topology.yml says that it is to go; or an error that says what to write."""
    if name in computed.leaving:
        return computed.leaving[name][0]
    hosts = computed.topology.hosts
    if name not in hosts:
        raise DeploymentError(f"topology.yml has no host '{name}' (hosts: {', '.join([*hosts, *computed.leaving])})")
    raise DeploymentError(
        f"host '{name}' is not leaving yet. Set `leaving: true` in its line of topology.yml (hosts.{name}), read\n"
        f"scripts/run-playbooks.sh --plan, and run this again. A removal that the other hosts cannot survive is refused."
    )


def answers(host: Any, way: Way = way_to) -> bool:
    """Whether the host lets us in."""
    argv = way(host, f"exit {NO_PYTHON}")
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == NO_PYTHON


def check_life(name: str, host: Any, dead: bool, way: Way = way_to) -> None:
    """Two machines that both believe to be a member are worse than one that is missing, so what is said must be so."""
    alive = answers(host, way)
    if dead and alive:
        raise DeploymentError(
            f"--dead: {name} answers at {host.address or 'localhost'}: omit --dead, or switch the host off first"
        )
    if not dead and not alive:
        raise DeploymentError(
            f"{name} does not answer at {host.address or 'localhost'}: scripts/preflight.sh shows why. If it is lost for good, use --dead"
        )


def arguments_for(name: str, dead: bool, lose: list[str], check: bool) -> list[str]:
    """Options for ansible-playbook."""
    variables = {"leave_host": name, "leave_dead": dead, "leave_lose": lose}
    return ["--extra-vars", json.dumps(variables), *(["--check"] if check else [])]


def playbooks_for(check: bool, verify: bool) -> list[str]:
    """What is run, in its order. The steps of a deployment are for the others: with --check they would show what only follows."""
    if check:
        return ["leave"]
    return ["leave", *(step for step in STEPS if step != "verify"), "forget", *(["verify"] if verify else [])]


def consequence(name: str, deployment: str, dead: bool) -> str:
    lost = (
        "Its zones AND THEIR DATA are lost with it"
        if dead
        else "This removes all its zones of the deployment AND THEIR DATA"
    )
    return f"Host '{name}' leaves deployment '{deployment}'. {lost}."


def main() -> int:
    options = remove_host().parse_args()
    deployment = Deployment(options.deployment).require()
    host = leaving(compute(deployment.topology), options.host)
    cloud = load(deployment)
    check_life(options.host, host, options.dead)
    if not (options.yes or options.check) and not confirmed(
        consequence(options.host, cloud.deployment, options.dead), options.host
    ):
        print("Nothing was changed.")
        return 1
    with (
        locked(deployment),
        held(deployment, lock=not options.check, wait=options.wait, take_over=options.take_over) as hold,
    ):
        if not options.check:
            ensure_secrets(deployment)
            claim(hold, deployment)
        playbooks = [ROOT / "playbooks" / f"{name}.yml" for name in playbooks_for(options.check, not options.no_verify)]
        run = Run(deployment, cloud, playbooks, arguments_for(options.host, options.dead, options.lose, options.check))
        rc = run.execute()
    if rc:
        run.report_failures(rc)
        run.say(
            f"  next  scripts/remove-host.sh{run.option()} {options.host}{' --dead' if options.dead else ''}, after the cause is repaired"
        )
        return rc
    run.summary(options.check)
    if not options.check:
        run.say(
            f"{options.host} is removed; {names(cloud.hosts)} stay. Now delete hosts.{options.host} from topology.yml; that changes nothing else."
        )
    return 0


if __name__ == "__main__":
    command(main)
