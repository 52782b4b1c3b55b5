#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make, change or remove a NIC tag or etherstub of a SmartOS host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nictagadm
short_description: Create, change or remove a NIC tag or etherstub of a SmartOS host
version_added: 0.1.0
description:
  - A NIC tag names the physical NIC or aggregation that NICs of VMs stand on; an etherstub is a switch inside the host.
  - Drives nictagadm(8) in the global zone of SmartOS, and reads MTUs from the file in which nictagadm keeps them, because it
    does not tell them.
  - Written from nictagadm's source and man page and run against a simulator, not yet on SmartOS. F(docs/how-to/smartos.md) tells
    what that leaves open.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    description: Says exactly what would be done. Only nictagadm itself checks that the host has a NIC with O(mac) or the O(aggr).
    support: full
  diff_mode:
    description: Shows the tag before and after.
    support: full
options:
  name:
    description:
      - Name of the tag, of letters, digits and underscores, at most 30 characters. That of an etherstub ends in a digit and
        has at most 31.
      - A rule of an overlay network has a name with a slash (V(sdc_overlay/1234)) and is not managed here.
    type: str
    required: true
  state:
    description:
      - V(present) makes the tag, and changes its O(mac), O(aggr) and O(mtu) to those that are given.
      - V(absent) removes it. VMs that use it are an error that names them.
    type: str
    choices: [present, absent]
    default: present
  type:
    description: What it is. A tag of a name that exists and is of the other type is an error.
    type: str
    choices: [normal, etherstub]
    default: normal
  mac:
    description:
      - MAC address of the physical NIC, in any case and with or without leading zeroes. Either this or O(aggr) is needed to
        make a normal tag.
      - VMs that run keep the NIC that they have until they are started again.
    type: str
  aggr:
    description: Name of the link aggregation, from the host's configuration, such as V(aggr0).
    type: str
  mtu:
    description:
      - Largest packet of the tag in bytes, 1500 to 9000. A host uses the largest of all tags of a NIC, from its next boot on.
      - Without it a new tag has 1500, and that of an existing one stays.
    type: int
  config:
    description: File in which nictagadm keeps the tags of this host. Hosts without it keep them in F(/tmp/.nic-tags) until they boot.
    type: path
    default: /usbkey/config
  timeout:
    description: Seconds that each command may take before it is killed.
    type: int
    default: 120
requirements:
  - SmartOS, root in its global zone
"""

EXAMPLES = r"""
- name: Have a tag for the storage network, with large packets
  zonestack.openstack.nictagadm:
    name: storage
    mac: 00:0c:29:11:22:34
    mtu: 9000
  register: __storage    # __storage.reboot_required

- name: Have a switch between zones of this host
  zonestack.openstack.nictagadm:
    name: stub0
    type: etherstub

- name: Remove a tag, or hear which VMs still use it
  zonestack.openstack.nictagadm:
    name: external
    state: absent
"""

RETURN = r"""
tag:
  description: The tag at the end (in check mode, as it would be); null when it is not there.
  returned: always
  type: dict
  sample: {name: storage, type: normal, mac: "00:0c:29:11:22:34", aggr: null, mtu: 9000}
reboot_required:
  description: Whether the MTU was changed, which counts from the host's next boot on.
  returned: always
  type: bool
actions:
  description: The commands that were run, or in check mode would be.
  returned: always
  type: list
  elements: str
  sample: ["nictagadm update -p mtu=9000 storage"]
"""

import os
import re
import shlex
import typing as t
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run

ARGUMENTS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "type": {"type": "str", "choices": ["normal", "etherstub"], "default": "normal"},
    "mac": {"type": "str"},
    "aggr": {"type": "str"},
    "mtu": {"type": "int"},
    "config": {"type": "path", "default": "/usbkey/config"},
    "timeout": {"type": "int", "default": 120},
}
NO_USB_KEY = "/tmp/.nic-tags"  # noqa: S108 - where nictagadm keeps them on a host that boots without /usbkey
DEFAULT_MTU = 1500


class TagError(Exception):
    """A tag cannot be made as described; the message says what, and what would be right."""


@dataclass(frozen=True)
class Tag:
    """A NIC tag: ``type`` is normal, aggr, etherstub or ``overlay rule``; ``mtu`` in bytes, None where it has none."""

    name: str
    type: str
    mac: str | None = None
    aggr: str | None = None
    mtu: int | None = None


def canonical_mac(text: str) -> str:
    """A MAC address in lower case with two digits for each byte, as nictagadm stores it."""
    parts = text.strip().lower().split(":")
    if len(parts) != 6 or not all(re.fullmatch("[0-9a-f]{1,2}", part) for part in parts):
        raise TagError(
            f"mac: {text!r} is not valid: use six hexadecimal numbers with colons, such as 00:0c:29:11:22:34"
        )
    return ":".join(part.zfill(2) for part in parts)


def settings(config: str) -> dict[str, str]:
    """The lines KEY=VALUE of the host's configuration; the last of a key counts, as when a shell reads it."""
    pairs = (line.split("=", 1) for line in config.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def tags(listed: str, config: str) -> dict[str, Tag]:
    """The tags of the host by name.

    :param listed: what ``nictagadm list -p -d ,`` prints: name, MAC, link and type, ``-`` for none.
    :param config: the text of the host's configuration, where the MTUs are.
    """
    known = settings(config)
    found = {}
    for line in listed.splitlines():
        name, mac, link, kind = line.split(",")
        mtu = int(known.get(f"{name}_mtu") or DEFAULT_MTU) if kind in ("normal", "aggr") else None
        address = canonical_mac(mac) if kind == "normal" else None
        found[name] = Tag(name, kind, address, link if kind == "aggr" else None, mtu)
    return found


def wanted(given: t.Mapping[str, t.Any], have: Tag | None) -> Tag:
    """The tag as it should be: what is given, on top of what is there.

    :raise TagError: the description is wrong, or what is there is something else.
    """
    name, stub = given["name"], given["type"] == "etherstub"
    if have is not None and ((have.type == "etherstub") != stub or have.type == "overlay rule"):
        raise TagError(
            f"there is {have.type} {name} already, and its type cannot change to {given['type']}: remove it or choose another name"
        )
    if not re.fullmatch(r"\w{1,30}\d" if stub else r"\w{1,30}", name, re.ASCII):
        right = "letters, digits and _, a digit at the end, at most 31" if stub else "letters, digits and _, at most 30"
        raise TagError(f"name: {name!r} is not valid: use {right}")
    for key in ("mac", "aggr", "mtu"):
        if stub and given[key] is not None:
            raise TagError(f"{key}: {given[key]!r} is not valid: an etherstub has none: leave it out")
    if given["mac"] is not None and given["aggr"] is not None:
        raise TagError("mac and aggr: both are given: give mac for a physical NIC or aggr for an aggregation")
    if given["mtu"] is not None and not 1500 <= given["mtu"] <= 9000:
        raise TagError(f"mtu: {given['mtu']} is not valid: use 1500 to 9000 bytes")
    if given["aggr"] is not None and not re.fullmatch(r"\w{0,30}\d", given["aggr"], re.ASCII):
        raise TagError(
            f"aggr: {given['aggr']!r} is not valid: use letters, digits and _, a digit at the end, at most 31"
        )
    if stub:
        return Tag(name, "etherstub")
    mtu = given["mtu"] or (have.mtu if have else DEFAULT_MTU)
    if given["aggr"] is not None:
        return Tag(name, "aggr", aggr=given["aggr"], mtu=mtu)
    if given["mac"] is not None:
        return Tag(name, "normal", mac=canonical_mac(given["mac"]), mtu=mtu)
    if have is None:
        raise TagError("mac: a new tag needs one: give mac or aggr")
    return Tag(name, have.type, have.mac, have.aggr, mtu)


def commands(have: Tag | None, want: Tag | None) -> list[list[str]]:
    """The command that brings one to the other; none when they are the same."""
    if have == want:
        return []
    if want is None:
        return [["nictagadm", "delete", have.name]] if have else []
    if want.type == "etherstub":
        return [["nictagadm", "add", "-l", want.name]]
    before = have or Tag(want.name, "none", mtu=DEFAULT_MTU)
    where = want.mac or want.aggr
    pairs = [f"mac={where}"] if where != (before.mac or before.aggr) else []
    pairs += [f"mtu={want.mtu}"] if want.mtu != before.mtu else []
    return [["nictagadm", "update" if have else "add", "-p", ",".join(pairs), want.name]]


def spoils(name: str, config: str) -> bool:
    """Whether `nictagadm delete` of this etherstub would cut its name out of another's.

    It removes the first text of that name from the line of all etherstubs, and so makes "b0" of "ab0" for a stub "a".
    """
    stubs = settings(config).get("etherstub", "")
    cut = re.sub(f"{re.escape(name)},*", "", stubs, count=1).rstrip(",")
    return bool(stubs) and cut != ",".join(one for one in stubs.split(",") if one != name)


def read_config(path: str) -> str:
    """The text of the file in which nictagadm keeps the tags of this host."""
    for place in (path, NO_USB_KEY):
        if os.path.exists(place):
            return Path(place).read_text(encoding="utf-8", errors="replace")
    raise TagError(
        f"config: neither {path} nor {NO_USB_KEY} exists, and nictagadm does not list MTUs: run this in the global zone of SmartOS"
    )


def make_so(given: t.Mapping[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Bring the tag to what the options say, and return the module's result."""
    timeout, name = given["timeout"], given["name"]

    def look() -> dict[str, Tag]:
        listed = run(["nictagadm", "list", "-p", "-d", ","], timeout=timeout).out
        return tags(listed, read_config(given["config"]))

    there = look()
    have = there.get(name)
    if given["state"] == "absent":
        want = None
        if have is not None:
            if have.type == "overlay rule":
                raise TagError("it is a rule of an overlay network: this module manages none")
            vms = run(["nictagadm", "vms", name], timeout=timeout).out.split()
            if vms:
                raise TagError(f"VMs use it ({', '.join(vms)}): remove their NICs on it first")
            if have.type == "etherstub" and spoils(name, read_config(given["config"])):
                raise TagError(
                    f"nictagadm would damage the name of another etherstub in {given['config']}: remove {name} there by hand"
                )
    else:
        want = wanted(given, have)
    todo = commands(have, want)
    if todo and not check:
        for command in todo:
            run(command, timeout=timeout)
        now = look()
        others = {key: tag for key, tag in there.items() if key != name}
        if now.get(name) != want or {key: tag for key, tag in now.items() if key != name} != others:
            raise TagError(
                f"`{shlex.join(todo[0])}` succeeded, but the tags are now: {', '.join(map(str, now.values()))}"
            )
    sides = [{"state": "absent"} if tag is None else {"state": "present", **asdict(tag)} for tag in (have, want)]
    return {
        "changed": bool(todo),
        "actions": [shlex.join(command) for command in todo],
        "tag": asdict(want) if want is not None else None,
        "reboot_required": bool(want and want.mtu is not None and want.mtu != (have.mtu if have else DEFAULT_MTU)),
        "diff": {"before": sides[0], "after": sides[1]},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = make_so(module.params, module.check_mode)
    except (TagError, CommandError, OSError, ValueError) as error:
        module.fail_json(msg=f"NIC tag {module.params['name']!r}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
