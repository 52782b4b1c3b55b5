#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what in zones was changed by hand."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zone_drift
short_description: List files of zones that neither the image nor a run wrote
version_added: 0.1.0
description:
  - Looks at the root file systems of zones on their host, of running and of stopped ones, and lists what somebody added,
    changed or removed. What zones write by themselves (logs, caches, state) and data volumes are left out.
  - With the store C(overlay) the upper directory alone is read; with C(dir), C(btrfs) and C(zfs), and on SmartOS, the whole tree is
    compared with the image.
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.only_tells]
options:
  zones:
    description:
      - Zones by name, each with its C(uuid) and with what a run writes into it. C(files) maps paths to C(sha256), C(mode)
        (octal, as text), C(owner) and C(group) (names); C(directories) likewise without C(sha256); C(units) maps the
        daemons' units to the digests with which they should run.
      - There is no content among it. A digest tells nothing of a secret that is as long as those that are generated.
    type: dict
    required: true
  backend:
    description: What the zones are.
    type: str
    choices: [lxc, smartos]
    default: lxc
  lxc_path:
    description: Folder of the containers of LXC zones.
    type: path
    default: /var/lib/lxc
requirements:
  - root on the host; on SmartOS C(vmadm), in the global zone.
seealso:
  - module: zonestack.openstack.zone_info
"""

EXAMPLES = r"""
- name: See whether somebody has changed a zone's name resolution
  zonestack.openstack.zone_drift:
    zones:
      aio1-keystone-1:
        uuid: e803f43e-f2a9-5cf9-8a3d-cf5773e1db6f
        files: {/etc/hosts: {sha256: "{{ hosts | hash('sha256') }}", mode: "0644", owner: root, group: root}}
        directories: {}
        units: {}
  register: __drift
"""

RETURN = r"""
findings:
  description:
    - What was found, by zone; an empty list for a zone in which everything is as it should be. C(kind) is C(added), C(changed) or
      C(removed), C(owner) says whom the file belongs to (a package, a run, or nobody), C(detail) in what it differs.
  returned: always
  type: dict
  sample: {aio1-keystone-1: [{path: /etc/hosts, kind: changed, owner: "a run, then changed by hand", detail: content}]}
unseen:
  description: The zones that could not be looked at, and why.
  returned: always
  type: dict
  sample: {aio1-keystone-2: "it is not on this host: a run creates it"}
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.drift import smartos_drift, zone_drift

PARTS = {"uuid", "files", "directories", "units"}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "zones": {"type": "dict", "required": True},
            "backend": {"type": "str", "choices": ["lxc", "smartos"], "default": "lxc"},
            "lxc_path": {"type": "path", "default": "/var/lib/lxc"},
        },
        supports_check_mode=True,
    )
    findings: dict[str, list[dict[str, str]]] = {}
    unseen: dict[str, str] = {}
    for name, want in module.params["zones"].items():
        if not isinstance(want, dict) or set(want) != PARTS:
            module.fail_json(
                msg=f"zones.{name}: {sorted(want) if isinstance(want, dict) else want!r}: give {', '.join(sorted(PARTS))}"
            )
        try:
            if module.params["backend"] == "smartos":
                found = smartos_drift(name, want)
            else:
                found = zone_drift(Path(t.cast("str", module.params["lxc_path"])), name, want)
            findings[name] = [one.plain() for one in found]
        except (ZoneError, CommandError, OSError) as why:
            unseen[name] = str(why)
    module.exit_json(changed=False, findings=findings, unseen=unseen)


if __name__ == "__main__":
    main()
