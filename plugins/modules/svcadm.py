#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: svcadm
short_description: Enable, disable, restart, refresh and clear one instance of an SMF service
version_added: 0.1.0
author: the zonestack authors (@zonestack)
description:
  - Brings one service instance of the illumos Service Management Facility to a state, and waits until it has that state.
  - In the global zone of SmartOS the repository is on a ramdisk. After the next boot every instance is as its manifest says,
    even if it was enabled permanently; see M(zonestack.openstack.svccfg).
  - A service of duration C(child) is online as soon as its process runs, and does not go into maintenance when that process
    ends. Only the service itself can tell whether it serves.
  - This module has never run on a real SmartOS machine; the tools' behaviour is taken from illumos' sources and manuals.
requirements:
  - illumos' C(svcadm), C(svcs) and C(svcprop); with O(zone) C(zlogin) and C(zoneadm), in the global zone.
attributes:
  check_mode:
    support: full
    description: The module reads the instance and returns the same actions, but does not run them.
  diff_mode:
    support: full
    description: Shows state, whether it is enabled, and whether it will be after the next boot.
options:
  fmri:
    description:
      - Full FMRI of the instance, such as V(svc:/network/ssh:default).
      - Abbreviations, patterns and services are refused, because they may name several instances.
    type: str
    required: true
  state:
    description:
      - V(enabled) means that the instance is enabled and runs, V(disabled) that it is neither.
      - V(restarted) means V(enabled), and restarts an instance that runs.
      - V(refreshed) reads the configuration again and runs the refresh method, in every state.
    type: str
    choices: [enabled, disabled, restarted, refreshed]
    default: enabled
  temporary:
    description: Whether the instance is enabled or disabled only until the next boot.
    type: bool
    default: false
  clear:
    description:
      - Whether to end maintenance first, and to restore a degraded instance. Set it only after you have repaired the cause.
      - Without it, an instance in maintenance is an error. Disabling an enabled instance always ends its maintenance.
    type: bool
    default: false
  comment:
    description: Reason to show with a disabled instance, until it is enabled again or until the next boot.
    type: str
  wait:
    description: Whether to wait until the instance is online or degraded, or disabled.
    type: bool
    default: true
  timeout:
    description:
      - Seconds to wait. What has been asked for goes on after that.
      - SMF itself waits for ever for a method without a timeout.
    type: int
    default: 300
  zone:
    description: Name of a running native zone of this global zone whose instance it is, instead of one of this zone.
    type: str
seealso:
  - module: zonestack.openstack.svccfg
"""

EXAMPLES = r"""
- name: Run the web server, now and after each boot
  zonestack.openstack.svcadm:
    fmri: svc:/site/web:default

- name: Restart a service that was repaired
  zonestack.openstack.svcadm:
    fmri: svc:/site/web:default
    state: restarted
    clear: true
    timeout: 60

- name: Stop a service of a zone until the zone boots
  zonestack.openstack.svcadm:
    fmri: svc:/network/smtp:sendmail
    state: disabled
    temporary: true
    comment: moving the mail queue
    zone: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
"""

RETURN = r"""
actions:
  description: Subcommands of svcadm that were, or in check mode would be, run, in order.
  returned: success
  type: list
  elements: str
  sample: [clear, enable]
service:
  description: The instance as it is now; in check mode as it would be.
  returned: success
  type: dict
  contains:
    fmri:
      description: Its FMRI.
      type: str
    state:
      description: Its state, such as V(online); see smf(7).
      type: str
    next_state:
      description: The state that it is on its way to, V(none) when it rests.
      type: str
    enabled:
      description: Whether it is enabled now.
      type: bool
    enabled_at_boot:
      description: Whether it is enabled after the next boot of its zone, if its repository outlives that.
      type: bool
    log:
      description: Path of its log in its zone.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.smf import Smf
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.smf_plan import (
    INSTANCE_FMRI,
    SmfError,
    Wish,
    actions,
    expected,
)

ARGUMENTS = {
    "fmri": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["enabled", "disabled", "restarted", "refreshed"], "default": "enabled"},
    "temporary": {"type": "bool", "default": False},
    "clear": {"type": "bool", "default": False},
    "comment": {"type": "str"},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 300},
    "zone": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    wish = Wish(given["state"], given["temporary"], given["clear"])
    if not INSTANCE_FMRI.fullmatch(given["fmri"]):
        module.fail_json(
            msg=f"fmri: {given['fmri']!r} is not the full FMRI of an instance: write it as svc:/network/ssh:default"
        )
    try:
        smf = Smf(given["zone"], given["timeout"])
        before = smf.instance(given["fmri"])
        todo = actions(before, wish)
        if module.check_mode:
            after = expected(before, wish, todo)
        else:
            after = smf.bring(before, wish, todo, given["wait"], given["comment"])
    except (SmfError, CommandError) as bad:
        module.fail_json(msg=str(bad))
    module.exit_json(
        changed=bool(todo),
        actions=todo,
        service={"fmri": after.fmri, **after.shown(), "next_state": after.next_state, "log": after.log},
        diff={"before": before.shown(), "after": after.shown()},
    )


if __name__ == "__main__":
    main()
