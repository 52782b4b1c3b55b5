#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_contents
short_description: Images, flavors, provider networks, quotas and availability zones of a cloud, in one call
version_added: 0.2.0
description:
  - Reads what the cloud holds, in parallel, and writes only the difference.
  - Nothing is removed, and what is not named here is not touched. Images are told from others of the same name by their
    owner, the administrator's project, and by the property C(zonestack_sha256).
  - An image whose content is to be another becomes another image of that name; the earlier one is hidden, not deleted,
    because instances may have been made from it. It is shown again when its content is wanted again.
  - A flavor whose size is to be another is replaced under its id. Instances keep the size that they were made with.
  - A hypervisor comes into the host aggregate that bears the name of its availability zone, and out of those of other zones. Nova
    refuses that while instances are on it. An aggregate that has lost its last hypervisor stays, and is no zone any more.
  - Properties of images and extra specs of flavors that are not named here stay.
  - Image files of the control machine are copied to the zone only when they are uploaded, and removed afterwards.
  - Needs nothing but Python's standard library.
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.administrator]
attributes:
  check_mode:
    support: full
    description: Everything is read, nothing is changed.
  diff_mode:
    support: full
    description: Shows what is named here, as it is and as it will be.
  action:
    support: full
    description: Brings the image files that are missing in the cloud to the zone.
options:
  images:
    description: Images by name, as C(stack.cloud.images) has them.
    type: dict
    default: {}
  flavors:
    description: Flavors by name, as C(stack.cloud.flavors) has them.
    type: dict
    default: {}
  networks:
    description: Provider networks by name, as C(stack.cloud.networks) has them; the name is also that of the physical network.
    type: dict
    default: {}
  quotas:
    description: Quotas by project, as C(stack.cloud.quotas) has them.
    type: dict
    default: {}
  availability_zones:
    description:
      - Hypervisors by their name in Nova, as C(stack.cloud.availability_zones) has them; each with C(zone), and C(provider), the UUID of its
        resource provider in Placement.
      - Hypervisors that are not named here stay where they are.
    type: dict
    default: {}
  files:
    description: Path on the control machine of each image that is not built in, by name, as M(zonestack.openstack.cloud_images) returns them.
    type: dict
    default: {}
  wait:
    description: Seconds to wait for each API, and for Placement to learn of a hypervisor that comes into an availability zone.
    type: int
    default: 60
  parallel:
    description: Number of requests at a time.
    type: int
    default: 8
"""

EXAMPLES = r"""
- name: Keep the cloud's contents
  zonestack.openstack.cloud_contents:
    auth: {url: "https://10.77.0.5:5000/v3", password: "{{ secrets.keystone.admin_password }}"}
    ca: /etc/zonestack/tls/ca.crt
    region: RegionOne
    flavors: "{{ stack.cloud.flavors }}"
    images: "{{ stack.cloud.images }}"
"""

RETURN = r"""
actions:
  description: What was done (in check mode would be), in words.
  type: list
  elements: str
  returned: always
  sample: [create network public, create subnet public, create image zonestack-test]
needs:
  description: Images whose file had to be brought first; in check mode, those that would be.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.administrator import OPTIONS
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.apis import Contradiction
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.contents import converge
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import ApiError, NotReady


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "images": {"type": "dict", "default": {}},
            "flavors": {"type": "dict", "default": {}},
            "networks": {"type": "dict", "default": {}},
            "quotas": {"type": "dict", "default": {}},
            "availability_zones": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            "wait": {"type": "int", "default": 60},
            "parallel": {"type": "int", "default": 8},
        },
        supports_check_mode=True,
    )
    try:
        result = converge(module.params, module.check_mode)
    except (ApiError, Contradiction, NotReady, OSError, ValueError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
