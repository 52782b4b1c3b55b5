#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: guest_probe
short_description: Verify from outside, by ping and SSH, that instances answer and are the right ones
version_added: 0.2.0
description:
  - Runs on a host that has an address in the provider network. The private key is made there, stays there in a folder that only
    root may enter, and goes with O(step=forget).
  - An address is only tried when this host has a route to its network on a link of its own. The default route would carry the
    packets to wherever that address is somebody else's.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: none
    description: A probe that does not reach out says nothing.
  diff_mode:
    support: none
    description: Nothing of the host differs afterwards.
options:
  step:
    description: V(key) makes a fresh key pair; V(reach) sees every one of O(guests); V(forget) removes the key.
    type: str
    choices: [key, reach, forget]
    required: true
  folder:
    description: Folder of the key.
    type: path
    default: /run/zonestack-verify
  guests:
    description: Instances as M(zonestack.openstack.instance_life) returns them. For O(step=reach).
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: The instance's UUID, which its metadata must say.
        type: str
        required: true
      address:
        description: Its floating address.
        type: str
        required: true
      mark:
        description: What the names of the files in the guest begin with.
        type: str
        required: true
      marks:
        description: Ends of those names; each file must be there, the last one made by the instance's own user-data.
        type: list
        elements: str
        required: true
      boot_id:
        description: The guest's last boot, which must not be its present one.
        type: str
      peers:
        description: Instances that it must reach by ping on the network that they share.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: The hypervisor's host that the peer is on.
            type: str
            required: true
          address:
            description: Its address on that network.
            type: str
            required: true
  user:
    description: User of the guest.
    type: str
    default: root
  wait:
    description: Seconds within which an instance must answer.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Reach the instance
  zonestack.openstack.guest_probe:
    step: reach
    guests: "{{ boot.guests }}"
"""

RETURN = r"""
public_key:
  description: The public half, in OpenSSH's form.
  type: str
  returned: with O(step=key)
boot_ids:
  description: Instance to the id of its present boot.
  type: dict
  returned: with O(step=reach)
answered_at:
  description: When the last instance had answered, in seconds since 1970.
  type: float
  returned: with O(step=reach)
suspects:
  description: Components in whose journals the cause is likely to be.
  type: list
  elements: str
  returned: failure
words:
  description: Ids by which the journals can be searched.
  type: list
  elements: str
  returned: failure
since:
  description: When the step began, in seconds since 1970.
  type: float
  returned: failure
"""

import json
import os
import re
import shutil
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.waiting import Failed, wait_for

Guest = t.Mapping[str, t.Any]

METADATA = "http://169.254.169.254/openstack/latest/meta_data.json"


def make_key(folder: Path) -> str:
    """A key pair that nobody has used before; the public half."""
    forget(folder)
    folder.mkdir(mode=0o700, parents=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "zonestack-verify", "-f", str(folder / "key")])
    return (folder / "key.pub").read_text().strip()


def forget(folder: Path) -> None:
    """Remove the key."""
    shutil.rmtree(folder, ignore_errors=True)


def direct_route(text: str, address: str) -> str:
    """The link on which ``address`` is a neighbour, out of what ``ip -json route get`` says of it."""
    route = json.loads(text)[0]
    if "gateway" in route or not route.get("dev"):
        raise Failed(
            f"this host has no link in the network of {address} (it would send there through {route.get('gateway')}), so the address "
            "was not tried: the bridge of the provider network lacks its address; scripts/run-playbooks.sh --step hosts restores it"
        )
    return str(route["dev"])


def questions(guest: Guest) -> str:
    """The shell script that a guest answers: one ``key value`` line each, and the metadata service's own words."""
    files = " ".join(f"{guest['mark']}-{mark}" for mark in guest["marks"])
    return (
        f"echo boot $(cat /proc/sys/kernel/random/boot_id)\n"
        f"for file in {files}; do [ ! -e $file ] || echo file $file; done\n"
        f"echo metadata $(wget -q -T 5 -O - {METADATA})\n"
        f"for peer in {' '.join(peer['address'] for peer in guest.get('peers', ()))}; do ping -c 1 -W 2 $peer >/dev/null && echo peer $peer; done\n"
        "sync\n"
    )


def judge(guest: Guest, said: str) -> str:
    """The boot id of a guest that says all it should; else a :class:`Failed` that names what is missing."""
    lines = dict.fromkeys(said.splitlines())
    metadata = next((line.partition(" ")[2] for line in lines if line.startswith("metadata ")), "")
    if guest["id"] not in metadata:
        raise Failed(
            f"the metadata service did not answer with this instance's UUID: {metadata[:200] or 'no answer from 169.254.169.254'}",
            ["nova_compute", "nova_metadata"],
        )
    missing = [mark for mark in guest["marks"] if f"file {guest['mark']}-{mark}" not in lines]
    if guest["marks"][-1] in missing:
        raise Failed("its user-data did not run: the file that it writes is missing", ["nova_metadata", "nova_compute"])
    if missing:
        raise Failed(f"a file in it was lost: {guest['mark']}-{missing[0]}", ["nova_compute", "glance"])
    for peer in guest.get("peers", ()):
        if f"peer {peer['address']}" not in lines:
            raise Failed(
                f"it cannot reach the instance {peer['address']} on {peer['host']}: no connection between the hypervisors",
                ["nova_compute", "ovn"],
            )
    boot = re.search(r"^boot ([0-9a-f-]{36})$", said, re.MULTILINE)
    if not boot:
        raise Failed(f"it did not report its boot id: {said[:200]!r}")
    if boot[1] == guest.get("boot_id"):
        raise Failed("it has not booted again since it was stopped", ["nova_compute"])
    return boot[1]


def reach(guest: Guest, folder: Path, user: str, limit: float) -> str:
    """Ping, then SSH, until the guest says all that it should; its boot id."""
    address = guest["address"]
    direct_route(run(["ip", "-json", "-4", "route", "get", address]).out, address)
    deadline = time.monotonic() + limit

    def ping() -> tuple[bool | None, str]:
        done = run(["ping", "-n", "-c", "1", "-W", "1", address], check=False)
        return (done.rc == 0 or None), (done.out + done.err).strip().splitlines()[-1]

    wait_for(f"a ping's answer from {address}", ping, limit, ["nova_compute", "ovn"])
    ssh = ["ssh", "-F", "/dev/null", "-i", str(folder / "key"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    # The guest is new and its address is used by many in turn, so there is no host key to know it by; its metadata tells.
    ssh += [
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "ConnectTimeout=5",
    ]

    def ask() -> tuple[str | None, str]:
        try:
            done = run([*ssh, f"{user}@{address}", "sh -s"], stdin=questions(guest), timeout=30, check=False)
        except CommandError as late:
            return None, f"SSH: {late.err}"
        if done.rc:
            return None, f"SSH ended with {done.rc}: {done.err.strip()}"
        try:
            return judge(guest, done.out), "answered"
        except Failed as why:
            if time.monotonic() >= deadline:
                raise
            return None, str(why)

    return wait_for(
        f"the instance to answer by SSH at {address}",
        ask,
        max(5, deadline - time.monotonic()),
        ["nova_compute", "nova_metadata", "ovn"],
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["key", "reach", "forget"], "required": True},
            "folder": {"type": "path", "default": "/run/zonestack-verify"},
            "guests": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "id": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "mark": {"type": "str", "required": True},
                    "marks": {"type": "list", "elements": "str", "required": True},
                    "boot_id": {"type": "str"},
                    "peers": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "host": {"type": "str", "required": True},
                            "address": {"type": "str", "required": True},
                        },
                    },
                },
            },
            "user": {"type": "str", "default": "root"},
            "wait": {"type": "int", "default": 120},
        },
    )
    params, since = module.params, time.time()
    folder = Path(params["folder"])
    os.umask(0o077)
    result: dict[str, t.Any] = {}
    try:
        if params["step"] == "key":
            result["public_key"] = make_key(folder)
        elif params["step"] == "forget":
            forget(folder)
        else:
            result["boot_ids"] = {
                guest["id"]: reach(guest, folder, params["user"], params["wait"]) for guest in params["guests"]
            }
            result["answered_at"] = time.time()
    except (Failed, CommandError) as why:
        words = [guest["id"] for guest in params["guests"]]
        suspects = why.suspects if isinstance(why, Failed) else []
        module.fail_json(msg=f"step {params['step']}: {why}", suspects=suspects, words=words, since=since)
    # Not changed: the key that the first step makes the last one removes, and nothing else is touched.
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
