#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: instance_life
short_description: Verify the life cycle of one instance as an ordinary user, and remove everything afterwards
version_added: 0.2.0
description:
  - Proves that a cloud serves. Each step is one call, so that what only the outside can see, ping and SSH, is looked at in between.
  - Where several hypervisors take instances, V(boot) makes one on each of them, apart by a server group; the first one has the
    floating address, and the others are its C(peers), on the network that they share.
  - All is done as a user with the role C(member) of a project of its own. Both are made by the first step, which also removes
    what a killed verification left, and removed by the last one.
  - Runs with a Python that has openstacksdk, in a zone that has C(clouds.yaml).
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: none
    description: A verification that does nothing verifies nothing.
  diff_mode:
    support: none
    description: Nothing of the deployment differs afterwards.
options:
  step:
    description:
      - V(boot) makes user, network, router, security group, key pair, instance and floating IP, and waits until the instance is
        active; V(cycle) sees the console log and the screen, stops the instance, makes a snapshot, starts it again and boots a
        second instance from the snapshot; V(remove) deletes everything and sees that nothing is left.
    type: str
    choices: [boot, cycle, remove]
    required: true
  name:
    description: Name of the project, of its user and of all that they own.
    type: str
    default: zonestack-verify
  cloud:
    description: The administrator's entry in C(clouds.yaml).
    type: str
    required: true
  network:
    description: Provider network that floating addresses come from. For O(step=boot).
    type: str
  image:
    description: Image to boot from. For O(step=boot).
    type: str
  public_key:
    description: SSH key that the instances let in, in OpenSSH's form. For O(step=boot).
    type: str
  folder:
    description: Folder that only root may enter, for what a step hands to the next.
    type: path
    default: /run/zonestack-verify
  wait:
    description: Seconds that any one wait may take.
    type: int
    default: 180
"""

EXAMPLES = r"""
- name: Boot an instance as an ordinary user
  zonestack.openstack.instance_life:
    step: boot
    cloud: aio
    network: public
    image: zonestack-test
    public_key: "{{ key.public_key }}"
  vars:
    ansible_python_interpreter: /opt/utility/bin/python
"""

RETURN = r"""
guests:
  description: The instances that should answer now, each with its C(id), floating C(address), the C(marks) that are in it, and its C(peers).
  type: list
  elements: dict
  returned: with O(step=boot) and O(step=cycle)
asked_at:
  description: When the first instance was asked for, in seconds since 1970.
  type: float
  returned: with O(step=boot)
host:
  description: The hypervisor's host that the first instance is on.
  type: str
  returned: with O(step=boot)
active_after:
  description: Seconds until the first instance was active.
  type: float
  returned: with O(step=boot)
removed:
  description: What a killed verification had left.
  type: list
  elements: str
  returned: with O(step=boot)
console:
  description: Address of the console page, without its token.
  type: str
  returned: with O(step=cycle)
suspects:
  description: Components in whose journals the cause is likely to be.
  type: list
  elements: str
  returned: failure
words:
  description: Ids of requests and instances, by which the journals can be searched.
  type: list
  elements: str
  returned: failure
since:
  description: When the step began, in seconds since 1970.
  type: float
  returned: failure
"""

import time
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.instance_life import Life
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.waiting import Failed

try:
    import openstack
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    MISSING = None
except ImportError:
    MISSING = traceback.format_exc()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["boot", "cycle", "remove"], "required": True},
            "name": {"type": "str", "default": "zonestack-verify"},
            "cloud": {"type": "str", "required": True},
            "network": {"type": "str"},
            "image": {"type": "str"},
            "public_key": {"type": "str", "no_log": False},  # a public key is no secret
            "folder": {"type": "path", "default": "/run/zonestack-verify"},
            "wait": {"type": "int", "default": 180},
        },
        required_if=[("step", "boot", ("network", "image", "public_key"))],
    )
    if MISSING:
        module.fail_json(msg=missing_required_lib("openstacksdk"), exception=MISSING)
    step, since = module.params["step"], time.time()
    life = Life(openstack.connect, module.params)
    try:
        result = getattr(life, step)()
    except Failed as why:
        module.fail_json(msg=f"step {step}: {why}", suspects=why.suspects, words=sorted(set(life.words)), since=since)
    except (SDKException, ClientException) as why:
        # The text is the API's own words, with address and status.
        words = {*life.words, getattr(why, "request_id", None)} - {None}
        module.fail_json(msg=f"step {step}: {type(why).__name__}: {why}", suspects=[], words=sorted(words), since=since)
    # Not changed: what the first step makes the last one removes, and the deployment is as it was.
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
