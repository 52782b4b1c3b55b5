# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that a deployment serves: an instance's whole life as an ordinary user, or Tempest. Leaves nothing behind."""

from __future__ import annotations

import argparse
import json

from cloud import load
from deployment import ROOT, Deployment, DeploymentError, command
from run import Run
from runner import locked

EPILOG = """\
Without --tempest: every front end has its servers; then a user of its own makes network, router, security group, key, instance
and floating IP, the instance is reached by ping and SSH from the host, its metadata, user-data, console log and screen are seen,
it is stopped, copied and started, its copy is booted; all of it is deleted, and it is seen that nothing is left.

With --tempest: the tests that OpenStack itself is accepted by, from the utility zone. Results lie in logs/<deployment>/tempest/:
report.html to read, junit.xml for a CI system, tempest.subunit with all details. What is skipped and why is in
playbooks/files/tempest/skips.txt. docs/verification.md says more.

examples:
  scripts/verify.sh
  scripts/verify.sh --tempest                                smoke tests and the scenarios
  scripts/verify.sh --tempest --tests 'tempest.scenario.test_network_basic_ops'
exit code: 0 when everything passed, Ansible's (1, 2, 4) when not, 130 when interrupted
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/verify.sh",
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--deployment", default="aio", metavar="NAME", help="folder below inventory/ (default: aio)")
    parser.add_argument("--tempest", action="store_true", help="run Tempest instead")
    parser.add_argument(
        "--tests", action="append", default=[], metavar="REGEX", help="with --tempest: only these tests; repeatable"
    )
    parser.add_argument(
        "--concurrency", type=int, default=0, metavar="N", help="with --tempest: tests at a time (default: by cores)"
    )
    parser.add_argument("--verbose", "-v", action="count", default=0, help="show Ansible's results")
    options = parser.parse_args()
    if not options.tempest and (options.tests or options.concurrency):
        raise DeploymentError("--tests and --concurrency belong to --tempest")
    if options.concurrency < 0:
        raise DeploymentError("--concurrency: give 1 or more, or leave it out")
    deployment = Deployment(options.deployment).require()
    cloud = load(deployment)
    arguments = [f"-{'v' * options.verbose}"] if options.verbose else []
    playbook = "tempest" if options.tempest else "verify"
    if options.tempest:
        wanted = {"tempest_tests": options.tests, "tempest_concurrency": options.concurrency, "tempest_reports": str(deployment.logs / "tempest")}
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
