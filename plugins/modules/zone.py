# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's door to module_utils/zone/converge.py: documentation and result."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: zone
short_description: Create, change, start, stop or remove one zone
version_added: 0.1.0
author: The zonestack authors (@zonestack)
description:
  - Brings one zone of this host from what it is to what is described. A zone is an LXC container that shares a read-only image.
  - A zone's root is disposable. When I(image), I(store), I(privileged), I(idmap_base) or I(quota) changes, it is made anew;
    what is to be kept belongs in I(volumes).
  - A zone under construction is not visible under its name, so a call that is killed is simply made again.
  - A container that this module has not made for the same I(uuid) is never touched.
requirements:
  - LXC 5 or newer on the host, and root there.
attributes:
  check_mode:
    support: full
    description: The same plan is made and returned, but not run.
  diff_mode:
    support: full
    description: Shows the zone's description before and after.
options:
  name:
    description: Name of the zone, a DNS label. It is the container's name and the zone's host name.
    type: str
    required: true
  uuid:
    description: The zone's UUID in lower case; it also becomes the machine id and names the host's end of the interfaces.
    type: str
    required: true
  state:
    description:
      - V(present) is described as wanted and running.
      - V(stopped) is described as wanted and not running.
      - V(restarted) is V(present), started anew even when it runs.
      - V(absent) is gone; its volumes stay unless I(purge) is set.
    type: str
    choices: [present, stopped, absent, restarted]
    default: present
  backend:
    description:
      - What makes the zone. V(lxc) is an LXC container, V(smartos) a zone of brand lx, by C(vmadm) in the global zone.
      - The latter has O(store=zfs) whatever is given, cannot be O(privileged), and was never run on SmartOS so far.
    type: str
    choices: [lxc, smartos]
    default: lxc
  image:
    description: Id of an image of this host. Required unless O(state=absent).
    type: str
  store:
    description:
      - How the root comes from the image. V(overlay) shares the image's files and starts at once; V(dir) copies them.
      - V(btrfs) and V(zfs) clone a snapshot.
    type: str
    choices: [overlay, dir, btrfs, zfs]
    default: overlay
  memory:
    description: Limit of memory in MiB; no limit when not given. Changed while the zone runs.
    type: int
  cpu_cap:
    description: Limit of processor time in per cent of one core (200 is two cores); no limit when not given. Changed while the zone runs.
    type: int
  quota:
    description: Limit of the root's size in GiB, where I(store) has one (btrfs, zfs); the others have none and ignore it.
    type: int
  networks:
    description: The zone's interfaces with static addresses.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the interface in the zone, such as V(eth0).
        type: str
        required: true
      bridge:
        description: Bridge of the host that it is a port of.
        type: str
        required: true
      mac:
        description: MAC address, unicast.
        type: str
        required: true
      address:
        description: First address, without prefix length.
        type: str
      prefix:
        description: Prefix length of I(address).
        type: int
      gateway:
        description: Default gateway.
        type: str
      mtu:
        description: Largest packet in bytes; the bridge's own when not given.
        type: int
      addresses:
        description: Further addresses, each with its prefix length.
        type: list
        elements: str
        default: []
      vips:
        description:
          - Addresses that a daemon in the zone takes on and gives up by itself, such as keepalived. The zone is not given them.
          - On SmartOS they are C(allowed_ips) of the NIC, without which the host drops what is sent from them. LXC lets every
            address pass.
        type: list
        elements: str
        default: []
  volumes:
    description:
      - Directories that outlive the zone's root, by name. Each is a mapping of C(path), where the zone sees it, and optionally
        C(owner), a user of the image or a numeric user id in the zone.
      - The owner is set when the volume is made. A volume that exists is mounted as it is.
    type: dict
    default: {}
  privileged:
    description:
      - Whether root in the zone is root on its host. Only for zones that cannot work otherwise.
      - Such a zone needs a copy of the image's layers with other owners, which its first use on a host makes.
      - A volume keeps the owners that it has, so a zone with data cannot change this without a change of owners by hand.
    type: bool
    default: false
  devices:
    description: Devices of the host that the zone may use, by path, where the host has them. Only with O(privileged=true).
    type: list
    elements: str
    default: []
  capabilities:
    description:
      - Capabilities that LXC would take from a privileged zone and that it keeps, without C(cap_), or V(all).
      - Only with O(privileged=true).
    type: list
    elements: str
    default: []
  autostart:
    description: Whether the zone starts with its host.
    type: bool
    default: true
  idmap_base:
    description: The user of the host that is root of an unprivileged zone; 65536 users from there on are the zone's.
    type: int
    default: 100000
  metadata:
    description: Anything that is to be kept with the zone's description. No secrets.
    type: dict
    default: {}
  disruptive:
    description: When false, a change that a running zone would have to stop for is not made but returned in RV(pending).
    type: bool
    default: true
  purge:
    description: With O(state=absent), remove the zone's volumes too.
    type: bool
    default: false
  foreseen:
    description:
      - In check mode, take as there what earlier tasks of the same run make on the host, such as image, bridges and folders. So what a
        whole run would do can be told of a host on which nothing is made yet.
      - Outside check mode it means nothing. What is not there is refused.
    type: bool
    default: false
  start_timeout:
    description: Seconds within which a started zone must answer.
    type: int
    default: 60
  stop_timeout:
    description: Seconds that a zone has to shut down before it is killed; with V(0) it is killed at once.
    type: int
    default: 90
"""

EXAMPLES = r"""
- name: Run the first Keystone of aio1
  zonestack.openstack.zone:
    name: aio1-keystone-1
    uuid: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
    image: keystone-0123456789ab
    memory: 1024
    cpu_cap: 200
    networks:
      - name: eth0
        bridge: zs-aio
        mac: "02:6b:1b:7f:0e:5d"
        address: 10.77.2.72
        prefix: 21
        gateway: 10.77.2.1

- name: Move a database zone to a new image; its data stays
  zonestack.openstack.zone:
    name: aio1-galera-1
    uuid: 0d8d4c1a-3c55-5d29-8a3f-6b1f0c9d7e22
    image: galera-ba9876543210
    volumes:
      data: {path: /var/lib/mysql, owner: mysql}

- name: Remove a zone and its data
  zonestack.openstack.zone:
    name: aio1-galera-1
    uuid: 0d8d4c1a-3c55-5d29-8a3f-6b1f0c9d7e22
    state: absent
    purge: true
"""

RETURN = r"""
actions:
  description: What was done (in check mode, would be done), in order.
  returned: success
  type: list
  elements: str
  sample: [stop, "update (image)", start]
pending:
  description: Changes that wait for a stop of the zone, with O(disruptive=false).
  returned: success
  type: list
  elements: str
  sample: ["image: keystone-0123456789ab -> keystone-ba9876543210 needs the zone to stop"]
restarted:
  description: Whether a running zone was stopped and started again.
  returned: success
  type: bool
pid:
  description: Process id of the zone's init on its host; none when it does not run or, in check mode, is not known yet.
  returned: success
  type: int
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.options import (
    OPTIONS,
    make_so,
)


def main() -> None:
    """Run the module."""
    os.umask(0o022)  # zones pass through the folders that are made here
    module = AnsibleModule(
        argument_spec=OPTIONS,
        supports_check_mode=True,
    )
    try:
        result = make_so(module.params, module.check_mode)
    except ZoneError as bad:
        module.fail_json(msg=str(bad))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
