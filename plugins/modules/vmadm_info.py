#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what VMs a SmartOS host has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vmadm_info
short_description: List the VMs of a SmartOS host with all their properties
version_added: 0.1.0
description:
  - Reads all VMs of the host with one call of C(vmadm lookup -j), and returns those that fit all filters.
  - The filters are applied here and not by vmadm, which takes a value that begins with C(~) for a pattern, knows only some
    properties, and would have values of metadata on its command line.
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.only_tells]
options:
  filters:
    description:
      - What a VM must have, by the name of a property. A dot leads into mappings and lists, C(*) stands for any entry of a list or
        mapping, such as C(tags.role), C(nics.*.nic_tag), C(nics.0.ip). A list of values means one of them.
      - Values are compared whole, as text; V(true) and V(false) for booleans. A property that a VM does not have fits null only.
    type: dict
    default: {}
  secrets:
    description: Whether the values of metadata and passwords are returned too. Otherwise only their names are.
    type: bool
    default: false
requirements:
  - SmartOS, root in its global zone, and a Python there.
seealso:
  - module: zonestack.openstack.vmadm
"""

EXAMPLES = r"""
- name: See all VMs
  zonestack.openstack.vmadm_info:
  register: __vms

- name: See the running lx and joyent zones of Keystone
  zonestack.openstack.vmadm_info:
    filters:
      brand: [lx, joyent]
      state: running
      tags.role: keystone

- name: See who has an address
  zonestack.openstack.vmadm_info:
    filters:
      nics.*.ips.*: 10.77.2.72/21
"""

RETURN = r"""
vms:
  description: The VMs as C(vmadm get) shows them, in the order of their UUIDs.
  returned: success
  type: list
  elements: dict
  sample: [{uuid: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11, alias: smart1-keystone-1, brand: lx, state: running}]
by_uuid:
  description: The same by UUID.
  returned: success
  type: dict
cmd:
  description: The command that failed.
  returned: failure of a command
  type: list
  elements: str
rc:
  description: Its exit code.
  returned: failure of a command
  type: int
stderr:
  description: What it said.
  returned: failure of a command
  type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm import Vmadm, redact

OPTIONS: dict[str, t.Any] = {
    "filters": {"type": "dict", "default": {}},
    "secrets": {"type": "bool", "default": False, "no_log": False},
}


def values(data: t.Any, path: t.Sequence[str]) -> list[t.Any]:
    """All that a path leads to. A key of a mapping may have dots itself, so the rest of the path is tried whole, too."""
    if not path:
        return [data]
    first, rest = path[0], path[1:]
    if isinstance(data, dict):
        whole = ".".join(path)
        found = [data[whole]] if rest and whole in data else []
        chosen = list(data.values()) if first == "*" else [data[first]] if first in data else []
    elif isinstance(data, list):
        found = []
        chosen = data if first == "*" else data[int(first) : int(first) + 1] if first.isdigit() else []
    else:
        return []
    return found + [value for each in chosen for value in values(each, rest)]


def text(value: t.Any) -> str | None:
    """A value as it is compared."""
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def fits(vm: t.Mapping[str, t.Any], filters: t.Mapping[str, t.Any]) -> bool:
    """Whether a VM has everything that the filters ask for."""
    for path, wanted in filters.items():
        found = {text(value) for value in values(vm, path.split("."))} or {None}
        if not found & {text(one) for one in (wanted if isinstance(wanted, list) else [wanted])}:
            return False
    return True


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    try:
        everything = Vmadm().lookup()
    except CommandError as bad:
        module.fail_json(msg=str(bad), cmd=bad.argv, rc=bad.rc, stderr=bad.err)
    chosen = sorted((vm for vm in everything if fits(vm, module.params["filters"])), key=lambda vm: vm["uuid"])
    vms = chosen if module.params["secrets"] else [redact(vm) for vm in chosen]
    module.exit_json(changed=False, vms=vms, by_uuid={vm["uuid"]: vm for vm in vms})


if __name__ == "__main__":
    main()
