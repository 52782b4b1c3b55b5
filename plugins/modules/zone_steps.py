#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: zone_steps
short_description: Apply the one-time steps of a service that are not done yet
version_added: 0.1.0
description:
  - Takes the steps in their order. A step whose guard succeeds is done and is not taken again, so a run that was
    interrupted anywhere is finished by the next one.
  - A step runs as a transient unit of the zone's systemd, C(zonestack-step). So it comes to its end also when the run that began it
    is killed, what it says is in the zone's journal, and the next run waits for it before it asks any guard.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: full
    description: The guards run, for they change nothing; the steps do not.
  diff_mode:
    support: full
    description: Names the steps that were taken.
options:
  steps:
    description: The steps.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the step reaches, for logs and errors.
        type: str
        required: true
      unless:
        description: Command that succeeds when nothing is to be done, as one would type it (no shell).
        type: str
        required: true
      run:
        description: Command that does it.
        type: str
        required: true
      timeout:
        description: Seconds that O(steps[].run) may take, and that one left by a killed run is waited for.
        type: int
        default: 900
  user:
    description: User of the zone that the commands run as.
    type: str
    default: root
  path:
    description: Folder that is searched for commands first, the service's own.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Bring the schema up to date
  zonestack.openstack.zone_steps:
    user: keystone
    path: /opt/keystone/bin
    steps:
      - name: Upgrade the database schema
        unless: keystone-manage db_sync --check
        run: keystone-manage db_sync
"""

RETURN = r"""
taken:
  description: Names of the steps that were taken, or in check mode would be.
  type: list
  elements: str
  returned: always
"""

import os
import shlex
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, as_service, last_words, run

#: One name for all steps of a zone, for they are taken one at a time.
UNIT = "zonestack-step.service"

#: States of a unit (org.freedesktop.systemd1(5)) in which its command runs.
BUSY = ("active", "activating", "deactivating", "reloading")


class Zone:
    """Runs a service's commands: as its user, its own folder first on the search path."""

    def __init__(self, user: str, path: str) -> None:
        self.user = user
        self.env = {"PATH": f"{path}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}", "HOME": "/"}

    def holds(self, line: str) -> bool:
        """Whether a guard says that its step is done."""
        return run(as_service(self.user, shlex.split(line)), env=self.env, timeout=120, check=False).rc == 0

    def settle(self, limit: float) -> None:
        """Wait for a step that an earlier run has begun and did not see the end of."""
        deadline = time.monotonic() + limit
        while self.asked("ActiveState") in BUSY:
            if time.monotonic() > deadline:
                raise CommandError(
                    ["systemctl", "is-active", UNIT],
                    124,
                    f"a step of an earlier run is still running after {limit:g} s",
                )
            time.sleep(0.3)
        run(["systemctl", "reset-failed", UNIT], check=False)  # says no more than its journal, and keeps the name

    def take(self, name: str, line: str, limit: int) -> None:
        """Run a step to its end; the time limit is systemd's, so that it holds also without this run."""
        argv = as_service(self.user, shlex.split(line))
        unit = [
            "--quiet",
            f"--unit={UNIT}",
            f"--description={name}",
            "--service-type=oneshot",
            f"--property=TimeoutStartSec={limit}",
        ]
        variables = [f"--setenv={key}={value}" for key, value in {**self.env, "LC_ALL": "C"}.items()]
        started = run(["systemd-run", *unit, *variables, "--", *argv], timeout=limit + 30, check=False)
        if started.rc == 0:
            return
        run(["journalctl", "--sync"], check=False)
        invocation = self.asked("InvocationID")
        said = (
            run(["journalctl", "--output=cat", "--lines=40", f"_SYSTEMD_INVOCATION_ID={invocation}"], check=False).out
            if invocation
            else ""
        )
        rc = int(self.asked("ExecMainStatus") or 0) or started.rc
        run(["systemctl", "reset-failed", UNIT], check=False)
        raise CommandError(argv, rc, f"{said}{started.err}")

    def asked(self, key: str) -> str:
        """A property of the steps' unit; of one that is not there, systemd knows the defaults."""
        return run(["systemctl", "show", f"--property={key}", "--value", UNIT]).out.strip()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "steps": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "unless": {"type": "str", "required": True},
                    "run": {"type": "str", "required": True},
                    "timeout": {"type": "int", "default": 900},
                },
            },
            "user": {"type": "str", "default": "root"},
            "path": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    zone = Zone(module.params["user"], module.params["path"])
    taken: list[str] = []
    for step in module.params["steps"]:
        try:
            if not module.check_mode:
                zone.settle(step["timeout"])
            if zone.holds(step["unless"]):
                continue
            taken.append(step["name"])
            if not module.check_mode:
                zone.take(step["name"], step["run"], step["timeout"])
        except CommandError as error:
            module.fail_json(msg=f"step '{step['name']}': {last_words(error)}", taken=taken)
    module.exit_json(
        changed=bool(taken), taken=taken, diff={"before": "", "after": "".join(f"{name}\n" for name in taken)}
    )


if __name__ == "__main__":
    main()
