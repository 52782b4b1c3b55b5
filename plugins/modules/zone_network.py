#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have the networks of a host's zones as described, and the program that makes them again at boot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zone_network
short_description: Configure the networks of a host's zones
version_added: 0.1.0
description:
  - Keeps the program C(zonestack-network) and what it reads, asks it what is missing, and has it make that.
  - Meant for the global zone of SmartOS; M(zonestack.openstack.lxc_host) does the same with all else that a host of LXC zones needs.
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.host_network]
options:
  path:
    description: Where the program is kept, mode 0755.
    type: path
    default: /opt/zonestack/sbin/zonestack-network
  folder:
    description: Where it has a file for each deployment.
    type: path
    default: /opt/zonestack/network
requirements:
  - bash, and the tools that the program calls
attributes:
  check_mode:
    support: full
    description: The program itself, in a scratch folder, says what is missing; nothing is changed.
  diff_mode:
    support: full
    description: One line before and one after for each thing that changed.
"""

EXAMPLES = r"""
- name: Have the global zone's address in the zones' network
  zonestack.openstack.zone_network:
    deployment: lab
    bridges: [{bridge: zs_lab0, address: 10.77.2.1/21, mtu: 1500, nat: 10.77.0.0/21}]
    network_command: "{{ lookup('ansible.builtin.file', 'smartos/zonestack-network') }}"
"""

RETURN = r"""
changes:
  description: What was changed (in check mode, what would be), in order.
  returned: always
  type: list
  elements: str
  sample: ["network of lab: NIC zs_lab0_gz0 with 10.77.2.1/21: missing -> as described"]
"""

import itertools

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.host.changes import (
    NETWORK,
    Change,
    network_changes,
    network_files,
    result,
)


def main() -> None:
    """Read the options, end each difference (unless in check mode), and say what they were."""
    module = AnsibleModule(
        argument_spec={
            **NETWORK,
            "path": {"type": "path", "default": "/opt/zonestack/sbin/zonestack-network"},
            "folder": {"type": "path", "default": "/opt/zonestack/network"},
        },
        supports_check_mode=True,
    )
    where = module.params["path"], module.params["folder"]
    done: list[Change] = []
    try:
        for change in itertools.chain(network_files(module.params, *where), network_changes(module.params, *where)):
            if not module.check_mode:
                change.apply()
            done.append(change)
    except (CommandError, OSError) as why:
        module.fail_json(msg=str(why), **result(done))
    module.exit_json(**result(done))


if __name__ == "__main__":
    main()
