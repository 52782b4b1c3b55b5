# SPDX-License-Identifier: GPL-3.0-or-later
"""What a SmartOS host says of itself, and what that means for a deployment: facts.py and checks/ of such hosts.

A global zone that no run has prepared has no Python, so it is asked by a script for its shell, and only by tools that every SmartOS
has. The script tells and changes nothing; what its answers mean is judged here, in pure functions.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Any

from checks.finding import Facts, Finding, gib, names
from checks.machine import PYTHON, judge_memory
from checks.needs import DISK_MIB_DEPLOYED, Needs
from checks.uses import as_network

POOL = "zones"
"""Where vmadm(8) and imgadm(8) keep everything, and a run too."""
PLATFORM = "20220101T000000Z"
"""Platforms before this (sysinfo's `Live Image`, the time of its making) lack what the systemd of today's Debians asks of lx zones."""
UNPREPARED = "none"
"""Python's version where there is none yet, but pkgsrc or what brings it, with which a run installs one."""

SCRIPT = f"""\
PATH=/opt/tools/sbin:/opt/tools/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH
LC_ALL=C; export LC_ALL
tell() {{ echo "@ $1"; shift; "$@" </dev/null 2>/dev/null; }}
python() {{
  for one in /opt/tools/bin/python3 $(ls -r /opt/tools/bin/python3.* 2>/dev/null); do
    "$one" -c 'import platform; print(platform.python_version())' 2>/dev/null && return
  done
  for one in /opt/tools/bin/pkgin /smartdc/bin/pkgsrc-setup; do test ! -x "$one" || {{ echo {UNPREPARED}; return; }}; done
}}
tell user id -u
tell zone zonename
tell python python
tell sysinfo sysinfo
tell pool zpool list -H -p -o name,size,free,health {POOL}
tell tags nictagadm list -p -d ,
tell clock svcs -H -o state svc:/network/ntp:default
tell vms vmadm lookup -j -o uuid,alias,tags
tell now date +%s
echo "@ end"
"""
"""What a host is asked: each answer begins with a line `@ NAME`. The time comes last, in whole seconds, as illumos' date(1) has no parts of them."""


def read_answer(text: str) -> dict[str, Any]:
    """The facts, of what :data:`SCRIPT` printed.

    They have the keys of facts.py that hosts are compared by; those that nobody has asked for are empty.

    :raises ValueError: the answer is incomplete.
    """
    parts: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("@ "):
            name = line[2:].strip()
            parts[name] = ""
        else:
            parts[name] = parts.get(name, "") + line
    if name != "end":
        raise ValueError("the answer is incomplete")
    system = json.loads(parts["sysinfo"] or "{}")
    pool = parts["pool"].split()
    links = {**system.get("Network Interfaces", {}), **system.get("Virtual Network Interfaces", {})}
    clock = parts["clock"].strip()
    return {
        "now": int(parts["now"]),
        "root": parts["user"].strip() == "0",
        "zone": parts["zone"].strip(),
        "python": parts["python"].strip() or None,
        "platform": system.get("Live Image"),
        "cpus": int(system.get("CPU Online Count") or system.get("CPU Count") or 0),
        "memory": int(system.get("MiB of Memory") or 0),
        "pool": {"size": _bytes(pool[1]) >> 20, "free": _bytes(pool[2]) >> 20, "health": pool[3]}
        if len(pool) == 4
        else None,
        "tags": {
            fields[0]: fields[3]
            for fields in (line.split(",") for line in parts["tags"].splitlines())
            if len(fields) > 3
        },
        "ips": {link: one["ip4addr"] for link, one in links.items() if as_network(str(one.get("ip4addr")))},
        "zones": {
            vm.get("alias", vm["uuid"]): vm["uuid"]
            for vm in json.loads(parts["vms"] or "[]")
            if "zonestack.deployment" in vm.get("tags", {})
        },
        "hostname": system.get("Hostname", ""),
        "machine": system.get("UUID") or parts["sysinfo"],
        "machine_id": "",
        "synchronised": clock == "online" if clock else None,
        "links": [],
        "names": {},
        "answers": {},
        "pings": [],
        "package_hosts": [],
        "proxies": [],
    }


def _bytes(text: str) -> int:
    """A size of zpool(8): a number, or one with a unit where -p is not known."""
    found = re.fullmatch(r"([\d.]+)([KMGTP]?)", text)
    return int(float(found[1]) * 1024 ** " KMGTP".index(found[2] or " ")) if found else 0


def judge_global_zone(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """Everything of one host that is not as the topology wants it."""
    if facts["zone"] != "global" or not facts["platform"]:
        what = f"this is zone {facts['zone']}" if facts["zone"] not in ("", "global") else "this is not SmartOS"
        yield Finding(
            "system",
            f"{what}, and backend is smartos",
            "set address to that of a global zone of SmartOS, or set backend: lxc",
        )
        return
    if not facts["root"]:
        yield Finding(
            "user", "the user is not root", "set user: root for this host in topology.yml; a global zone has no sudo"
        )
        return
    if facts["platform"] < PLATFORM:
        yield Finding(
            "system",
            f"its platform is of {facts['platform']}; lx zones of platforms this old may not boot the systemd of current Debian releases",
            "boot a newer platform (piadm(8))",
            fatal=False,
        )
    yield from judge_python(facts)
    yield from judge_pool(facts, needs)
    yield from judge_size(facts, needs)
    yield from judge_tags(facts, needs)
    for bridge in needs.bridges:
        for link, address in facts["ips"].items():
            # what a run makes is named after its NIC tag
            if (
                link != f"{bridge.name}_gz0"
                and address != bridge.address
                and ipaddress.IPv4Address(address) in ipaddress.IPv4Network(bridge.cidr)
            ):
                what = f"network {bridge.network} ({bridge.cidr}) overlaps address {address} of {link}"
                yield Finding("network", what, "set another cidr for the network in topology.yml")


def judge_python(facts: Facts) -> Iterator[Finding]:
    """A run installs Python, where there is something to install it with."""
    if facts["python"] is None:
        yield Finding(
            "python",
            "there is neither Python nor pkgsrc below /opt/tools, nor /smartdc/bin/pkgsrc-setup",
            "install pkgsrc's tools set there",
        )
    elif (
        facts["python"] != UNPREPARED
        and tuple(int(number) for number in re.findall(r"\d+", facts["python"])[:2]) < PYTHON
    ):
        least = ".".join(map(str, PYTHON))
        yield Finding(
            "python",
            f"the Python in /opt/tools is {facts['python']}",
            f"install {least} or newer, and link /opt/tools/bin/python3 to it",
        )


def judge_pool(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """The pool against what is placed on the host."""
    pool, quotas = facts["pool"], sum(zone.quota for zone in needs.zones) * 1024
    need = DISK_MIB_DEPLOYED if facts["zones"] else needs.disk
    if pool is None:
        yield Finding(
            "disk",
            f"there is no pool {POOL}",
            "set the machine up as SmartOS asks at its first boot; not as one without disks (noimport)",
        )
        return
    if pool["health"] != "ONLINE":
        yield Finding(
            "disk",
            f"pool {POOL} is {pool['health']}",
            f"zpool status {POOL}",
            fatal=pool["health"] not in ("DEGRADED",),
        )
    if pool["free"] < need:
        yield Finding(
            "disk",
            f"pool {POOL} has {pool['free']} MiB free and needs {need} MiB",
            "free space (imgadm vacuum), or add disks",
        )
    elif pool["size"] < quotas:
        yield Finding(
            "disk",
            f"pool {POOL} has {gib(pool['size'])}, and its {len(needs.zones)} zones may use {gib(quotas)} together",
            "on a development host, ignore this; otherwise add disks, or lower `quota` of zones",
            fatal=False,
        )


def judge_size(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """Memory and processors against what is placed on the host. Memory that is not there is paged out, which is slow."""
    yield from judge_memory(facts["memory"], needs, "the host pages")
    if facts["cpus"] < needs.cpus:
        yield Finding(
            "cpus", f"{facts['cpus']}, and {needs.purpose} needs {needs.cpus}", "add processors to the machine"
        )


def judge_tags(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """NIC tags that the owner of the host makes: a run makes etherstubs, whose names are its own."""
    for bridge in needs.bridges:
        kind = facts["tags"].get(bridge.name)
        if kind is None and not bridge.name.startswith("zs_"):
            known = names(sorted(facts["tags"])) or "none"
            fix = f"nictagadm add {bridge.name} MAC, with the MAC address of the NIC that leads to the other hosts; or set bridge in topology.yml to an existing tag"
            yield Finding(
                "network", f"network {bridge.network}: there is no NIC tag {bridge.name} (there are: {known})", fix
            )
        elif kind == "etherstub" and not bridge.name.startswith("zs_"):
            yield Finding(
                "network",
                f"network {bridge.network}: NIC tag {bridge.name} is an etherstub, which does not leave its host",
                "set bridge in topology.yml to the tag of a NIC",
            )
