#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: zone_steps
short_description: Take a service's one-time steps, each guarded by a command that can say that it is done
version_added: 0.1.0
description:
  - Takes the steps in their order. A step whose guard succeeds is done and is not taken again, so a run that was
    interrupted anywhere is finished by the next one.
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
        description: Seconds that O(steps[].run) may take.
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, Result, as_service, last_words, run


def command(line: str, user: str, path: str, timeout: float, check: bool) -> Result:
    """Run one line as ``user``, the service's own commands first on the search path."""
    env = {"PATH": f"{path}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}", "HOME": "/"}
    return run(as_service(user, shlex.split(line)), env=env, timeout=timeout, check=check)


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
    user, path = module.params["user"], module.params["path"]
    taken: list[str] = []
    for step in module.params["steps"]:
        try:
            if command(step["unless"], user, path, 120, check=False).rc == 0:
                continue
            taken.append(step["name"])
            if not module.check_mode:
                command(step["run"], user, path, step["timeout"], check=True)
        except CommandError as error:
            module.fail_json(msg=f"step '{step['name']}': {last_words(error)}", taken=taken)
    module.exit_json(changed=bool(taken), taken=taken, diff={"before": "", "after": "".join(f"{name}\n" for name in taken)})


if __name__ == "__main__":
    main()
