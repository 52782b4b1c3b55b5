# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify that a deployment serves: the life cycle of an instance as an ordinary user, or Tempest. Removes everything it creates."""

from __future__ import annotations

import json

from cloud import load
from deployment import ROOT, Deployment, DeploymentError, command
from options import verify
from run import Run
from runner import locked


def main() -> int:
    options = verify().parse_args()
    if not options.tempest and (options.tests or options.concurrency):
        raise DeploymentError("--tests and --concurrency need --tempest")
    if options.concurrency < 0:
        raise DeploymentError("--concurrency: use 1 or more, or omit it")
    deployment = Deployment(options.deployment).require()
    cloud = load(deployment)
    arguments = [f"-{'v' * options.verbose}"] if options.verbose else []
    playbook = "tempest" if options.tempest else "verify"
    if options.tempest:
        wanted = {
            "tempest_tests": options.tests,
            "tempest_concurrency": options.concurrency,
            "tempest_reports": str(deployment.logs / "tempest"),
        }
        arguments += ["--extra-vars", json.dumps(wanted)]
    shown = frozenset({"runner_on_ok", "runner_on_failed"} if options.verbose else ())
    with locked(deployment):
        run = Run(deployment, cloud, [ROOT / "playbooks" / f"{playbook}.yml"], arguments, shown)
        rc = run.execute()
    if rc:
        run.report_failures(rc)
        return rc
    run.summary(check=False)
    return 0


if __name__ == "__main__":
    command(main)
