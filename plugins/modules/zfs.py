#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make, change or remove one dataset or snapshot of ZFS."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs
short_description: Create, change, send, receive or remove one file system, volume, clone or snapshot of ZFS
version_added: 0.1.0
description:
  - Works with the ZFS of illumos (SmartOS), OpenZFS and zfs-fuse. What exists is compared with what is wanted as ZFS
    understands it. V(10G) is the same as 10737418240, V(none) the same as no quota, and a value that is inherited as
    wanted is not set.
  - Nothing is ever destroyed with what it was made from. Neither C(-r) nor C(-R) nor C(-F) is given to ZFS. What others
    depend on is left alone, and the error names them.
  - After every change the dataset is read again. When it is not as wanted then, the task fails.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    description:
      - Says exactly which commands would be run. That ZFS takes a value of a property is known only when it is set; that it
        has such a property, and whether it can be changed, is checked before.
    support: full
  diff_mode:
    description: Shows type, origin, holds, and those properties that the task speaks of, sizes in bytes.
    support: full
options:
  name:
    description:
      - V(pool/path) of a file system or volume, or V(pool/path@name) of a snapshot.
      - Letters, digits, underscores, dots, colons and hyphens, at most 255 characters.
    type: str
    required: true
  state:
    description:
      - V(present) makes what is not there and changes what is.
      - V(absent) destroys it. Datasets below, snapshots, clones of them and holds are each an error that names them.
    type: str
    choices: [present, absent]
    default: present
  origin:
    description:
      - Snapshot that the file system or volume is a clone of.
      - It is an error when a dataset of that name exists and is no clone of it.
    type: str
  properties:
    description:
      - Values by name as zfs(8) has them, sizes in bytes or with a unit of 1024 (V(10G), V(1.5T)). V(true) and V(false) are
        C(on) and C(off).
      - With C(volsize) the dataset is a volume. Its size is a multiple of 128 KiB. It is made larger, never smaller. With
        C(refreservation) V(none) it is sparse.
      - Names with a colon are properties of your own, whose values are compared as texts. A snapshot has no others.
      - Where an equal value is inherited, it stays inherited. What is not named is left as it is.
    type: dict
    default: {}
  inherited:
    description: Names of properties that are not set on the dataset itself, so that its parent or the default counts.
    type: list
    elements: str
    default: []
  parents:
    description: Whether file systems above that are not there are made too, with nothing but what they inherit.
    type: bool
    default: false
  holds:
    description:
      - Tags that hold the snapshot, so that nobody can destroy it. Other tags are left alone.
      - zfs-fuse cannot tell the tags of a snapshot that has any, which is an error then.
    type: list
    elements: str
    default: []
  released:
    description: Tags that do not hold the snapshot.
    type: list
    elements: str
    default: []
  receive_from:
    description:
      - Path of a file of C(zfs send), of one snapshot and not compressed, that the snapshot is received from when it is not
        there. A full stream makes the dataset as well; an incremental one needs the snapshot that it starts from.
      - A snapshot that is there must be the one of the file. They are told by their GUIDs, which sending keeps.
    type: path
  send_to:
    description:
      - Path of a file that holds the snapshot's stream, as C(zfs send) writes it. It appears when it is complete, with mode
        0600. Its directory exists.
      - A file with the stream of this very snapshot is left alone, told by the GUIDs in it. Any other file is an error.
    type: path
  incremental_from:
    description: Earlier snapshot of the dataset, V(@name) or in full; O(send_to) then has only what differs from it.
    type: str
  timeout:
    description: Seconds that each command of ZFS may take before it is killed. Sending and receiving may want hours.
    type: int
    default: 300
requirements:
  - ZFS
seealso:
  - module: zonestack.openstack.imgadm
    description: Images of SmartOS, which are datasets that this module must not touch.
"""

EXAMPLES = r"""
- name: Have a data set for the database, whatever its parents are like
  zonestack.openstack.zfs:
    name: zones/data/mariadb
    parents: true
    properties:
      recordsize: 16K
      quota: 50G
      atime: false

- name: Let compression be what the pool says
  zonestack.openstack.zfs:
    name: zones/data/mariadb
    inherited: [compression]

- name: Have a sparse volume of 20 GiB
  zonestack.openstack.zfs:
    name: zones/disk0
    properties:
      volsize: 20G
      refreservation: none

- name: Keep the state before the upgrade, safe from being destroyed
  zonestack.openstack.zfs:
    name: zones/data/mariadb@before-upgrade
    holds: [upgrade]

- name: Look at that state without touching it
  zonestack.openstack.zfs:
    name: zones/data/mariadb-old
    origin: zones/data/mariadb@before-upgrade

- name: Write what changed since the upgrade to a file, in at most two hours
  zonestack.openstack.zfs:
    name: zones/data/mariadb@today
    send_to: /zones/backup/mariadb-today.zfs
    incremental_from: "@before-upgrade"
    timeout: 7200

- name: Have the state of a file on another machine
  zonestack.openstack.zfs:
    name: zones/restored/mariadb@before-upgrade
    receive_from: /zones/backup/mariadb.zfs
    parents: true

- name: Remove the snapshot, or hear what still needs it
  zonestack.openstack.zfs:
    name: zones/data/mariadb@today
    state: absent
"""

RETURN = r"""
actions:
  description: The commands that were run, or in check mode would be, in their order.
  returned: always
  type: list
  elements: str
  sample: [zfs set quota=50G zones/data/mariadb]
dataset:
  description:
    - What is there at the end, in check mode now; null when it is not there.
    - Of its properties those that the task speaks of, numbers as numbers (sizes in bytes), each with where it comes from.
    - C(holds) are told when the task speaks of holds, C(userrefs) is their number.
  returned: always
  type: dict
  sample:
    name: zones/data/mariadb
    type: filesystem
    guid: 8336705126247006591
    origin: null
    properties: {quota: {value: 53687091200, source: local}, compression: {value: lz4, source: inherited from zones}}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.zfs import Zfs, converge, remove
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.zfs_model import Want, ZfsError, text

ARGUMENTS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "origin": {"type": "str"},
    "properties": {"type": "dict", "default": {}},
    "inherited": {"type": "list", "elements": "str", "default": []},
    "parents": {"type": "bool", "default": False},
    "holds": {"type": "list", "elements": "str", "default": []},
    "released": {"type": "list", "elements": "str", "default": []},
    "receive_from": {"type": "path"},
    "send_to": {"type": "path"},
    "incremental_from": {"type": "str"},
    "timeout": {"type": "int", "default": 300},
}


def wanted(given: t.Mapping[str, t.Any]) -> Want:
    """The description that the options give."""
    properties = {}
    for name, value in given["properties"].items():
        try:
            properties[str(name)] = text(value)
        except ValueError as bad:
            raise ZfsError(f"dataset {given['name']!r}: properties.{name}: {bad}") from bad
    lists = {key: tuple(given[key]) for key in ("inherited", "holds", "released")}
    same = {key: given[key] for key in ("name", "origin", "parents", "receive_from", "send_to", "incremental_from")}
    return Want(properties=properties, **lists, **same)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    zfs = Zfs(given["timeout"])
    try:
        if given["state"] == "absent":
            result = remove(zfs, given["name"], check_mode=module.check_mode)
        else:
            result = converge(zfs, wanted(given), check_mode=module.check_mode)
    except (ZfsError, CommandError, OSError) as bad:
        about = f"dataset {given['name']!r}"
        message = str(bad)
        module.fail_json(msg=message if message.startswith(about) else f"{about}: {message}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
