#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what zones a host has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zone_info
short_description: List the zones of a host with image and state
version_added: 0.1.0
description:
  - Lists the zones that M(zonestack.openstack.zone) made on this host, of every deployment. Other containers and VMs are left out.
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.only_tells]
options:
  backend:
    description: What the zones are.
    type: str
    choices: [lxc, smartos]
    default: lxc
  deployment:
    description: Only the zones of this deployment, each with C(described), what it is made as in the options of M(zonestack.openstack.zone).
    type: str
    default: ""
  lxc_path:
    description: Folder of the containers.
    type: path
    default: /var/lib/lxc
requirements:
  - LXC 5 or newer on the host, or C(vmadm) in a global zone, and root there.
"""

EXAMPLES = r"""
- name: See the zones of a host
  zonestack.openstack.zone_info:
  register: __found
"""

RETURN = r"""
zones:
  description: Zones by name.
  returned: always
  type: dict
  sample: {aio1-keystone-1: {uuid: 5c5dfb3c-7f6a-5f2e-8a1c-0a1e6d0c8d11, image: keystone-0123456789ab, running: true}}
"""

import json
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run


def told(recorded: dict[str, t.Any], running: bool) -> dict[str, t.Any]:
    """What is said of a zone, from what was recorded when it was made."""
    return {"uuid": recorded.get("uuid"), "image": recorded.get("image"), "running": running, "described": recorded}


def of_deployment(found: dict[str, dict[str, t.Any]], deployment: str) -> dict[str, dict[str, t.Any]]:
    """The zones of a deployment; without one all of them, in short."""
    if not deployment:
        return {name: {key: one[key] for key in ("uuid", "image", "running")} for name, one in found.items()}
    return {
        name: one for name, one in found.items() if one["described"].get("metadata", {}).get("deployment") == deployment
    }


def zones(lxc_path: Path, running: t.Collection[str]) -> dict[str, dict[str, t.Any]]:
    """What C(zone.json) of each zone says; one that cannot be read is told without an image."""
    found = {}
    for path in sorted(lxc_path.glob("*/zone.json")):
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            recorded = {}
        name = path.parent.name
        found[name] = told(recorded, name in running)
    return found


def lxc_zones(lxc_path: str) -> dict[str, dict[str, t.Any]]:
    """The zones of a host with LXC; none where it is not installed yet."""
    if not any(Path(lxc_path).glob("*/zone.json")):
        return {}
    return zones(Path(lxc_path), run(["lxc-ls", "-P", lxc_path, "--running", "-1"]).out.split())


def smartos_zones() -> dict[str, dict[str, t.Any]]:
    """The zones of a global zone: VMs with our record, which module_utils/zone/smartos.py keeps."""
    # Only here: on a host with LXC nobody needs vmadm's properties and plans.
    from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm import Vmadm
    from ansible_collections.zonestack.openstack.plugins.module_utils.zone.smartos import RECORD

    found = {}
    for vm in Vmadm().lookup():
        if record := vm.get("internal_metadata", {}).get(RECORD):
            recorded = json.loads(record)
            found[recorded["name"]] = told({**recorded, "uuid": vm["uuid"]}, vm["state"] == "running")
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "backend": {"type": "str", "choices": ["lxc", "smartos"], "default": "lxc"},
            "deployment": {"type": "str", "default": ""},
            "lxc_path": {"type": "path", "default": "/var/lib/lxc"},
        },
        supports_check_mode=True,
    )
    try:
        found = lxc_zones(module.params["lxc_path"]) if module.params["backend"] == "lxc" else smartos_zones()
    except CommandError as error:
        module.fail_json(msg=f"{error}: is this host prepared? scripts/run-playbooks.sh --step hosts does it")
    module.exit_json(changed=False, zones=of_deployment(found, module.params["deployment"]))


if __name__ == "__main__":
    main()
