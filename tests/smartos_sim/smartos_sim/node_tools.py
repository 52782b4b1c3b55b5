# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The small commands of the global zone: nictagadm, sysinfo, zoneadm list, zonename, dladm show-* (facts 7).

None of them was seen running by anybody who wrote the facts: marks C, D and K only.
"""

from __future__ import annotations

import json
import re
import sys
import typing as t

from .state import State

MAX_TAG = 30  # characters
TAG_MTU = (1500, 9000)  # bytes
EPOCH = 1_767_225_600
"""Boot time of the node, seconds: 2026-01-01."""


class Refused(Exception):
    """The command fails with this line on stderr and this exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def run_tool(call: t.Callable[[State, list[str]], None], argv: list[str]) -> int:
    """Run one command on the node's state; its exit status."""
    from .files import ToolError

    try:
        call(State(), argv)
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return refused.status
    except ToolError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    return 0


def getopts(argv: list[str], plain: str, valued: str, usage: str) -> tuple[dict[str, t.Any], list[str]]:
    """POSIX options: letters, then the rest."""
    import getopt

    try:
        found, rest = getopt.gnu_getopt(argv, plain + "".join(f"{letter}:" for letter in valued))
    except getopt.GetoptError as bad:
        raise Refused(f"{bad}\n{usage}", 2) from None
    return {letter[1:]: value or True for letter, value in found}, rest


# -- nictagadm ---------------------------------------------------------------------------------------------------------

NICTAGADM_USAGE = "usage: nictagadm list|exists|add|update|delete|vms ..."


def nictagadm(argv: list[str]) -> int:
    """NIC tags: the names under which VMs ask for networks."""
    commands = {"list": _tag_list, "exists": _tag_exists, "add": _tag_add, "update": _tag_update,
                "delete": _tag_delete, "vms": _tag_vms}  # fmt: skip
    if not argv or argv[0] not in commands:
        sys.stderr.write(NICTAGADM_USAGE + "\n")
        return 2
    return run_tool(commands[argv[0]], argv[1:])


def _tag(node: dict[str, t.Any], name: str) -> dict[str, t.Any] | None:
    return next((tag for tag in node["nic_tags"] if tag["name"] == name), None)


def _tag_list(state: State, argv: list[str]) -> None:
    options, _rest = getopts(argv, "lLpv", "d", NICTAGADM_USAGE)
    tags = state.node["nic_tags"]
    if "l" in options:
        tags = [tag for tag in tags if tag["type"] == "etherstub"]
    elif "L" in options:
        tags = [tag for tag in tags if tag["type"] != "etherstub"]
    rows = [[tag["name"], tag.get("mac") or "-", tag.get("link") or "-", tag["type"].replace("_", " ")] for tag in tags]
    if "p" in options:
        mark = str(options.get("d", ":"))
        for row in rows:
            print(mark.join(cell.replace(":", "\\:") if mark == ":" else cell for cell in row))
        return
    for row in (["NAME", "MACADDRESS", "LINK", "TYPE"], *rows):
        print(f"{row[0]:<14} {row[1]:<18} {row[2]:<18} {row[3]:<10}".rstrip())


def _tag_exists(state: State, argv: list[str]) -> None:
    options, names = getopts(argv, "l", "", NICTAGADM_USAGE)
    missing = [name for name in names if _tag(state.node, name) is None]
    if missing:
        prefix = "" if "l" in options else "invalid tag: "
        raise Refused("\n".join(prefix + name for name in missing))


def _tag_properties(text: t.Any) -> dict[str, str]:
    return dict(one.partition("=")[::2] for one in str(text).split(",")) if text else {}


def _mtu(properties: dict[str, str]) -> int | None:
    text = properties.get("mtu")
    if text is None:
        return None
    least, most = TAG_MTU
    if not text.isdigit() or not least <= int(text) <= most:
        raise Refused(f"Error: mtu must be between {least} and {most}")
    return int(text)


def _tag_add(state: State, argv: list[str]) -> None:
    options, words = getopts(argv, "l", "p", NICTAGADM_USAGE)
    if not words:
        raise Refused(NICTAGADM_USAGE, 2)
    name, properties = words[0], _tag_properties(options.get("p"))
    mac, mtu = properties.get("mac") or (words[1] if len(words) > 1 else None), _mtu(properties)
    if not re.match(r"[A-Za-z0-9_]", name) or len(name) > MAX_TAG:
        raise Refused(f"Error: nic tag '{name}' is not valid")
    with state.changed_node() as node:
        if _tag(node, name):
            raise Refused(f"Error: nic tag '{name}' already exists")
        if "l" in options:
            if not name[-1].isdigit():
                raise Refused("Error: etherstub names must end in a number")
            tag: dict[str, t.Any] = {"name": name, "mac": None, "link": None, "type": "etherstub"}
        else:
            tag = {"name": name, **_link(node, mac)}
        if mtu:
            tag["mtu"] = mtu
        state.platform().nictag_add(name, tag["type"], tag["link"], mtu)
        node["nic_tags"].append(tag)


def _link(node: dict[str, t.Any], mac: str | None) -> dict[str, t.Any]:
    """The NIC with that address: of those that tags name, or one of the node's ``nics`` ({link: mac})."""
    links = {tag["mac"]: tag["link"] for tag in node["nic_tags"] if tag.get("mac")}
    links.update({address: link for link, address in node.get("nics", {}).items()})
    wanted = (mac or "").lower()
    if wanted not in links:
        raise Refused(f"Error: No physical nic found with MAC address '{mac or ''}'")
    return {"mac": wanted, "link": links[wanted], "type": "normal"}


def _tag_update(state: State, argv: list[str]) -> None:
    options, words = getopts(argv, "l", "p", NICTAGADM_USAGE)
    if not words:
        raise Refused(NICTAGADM_USAGE, 2)
    properties = _tag_properties(options.get("p"))
    with state.changed_node() as node:
        tag = _tag(node, words[0])
        if tag is None:
            raise Refused(f"Error: nic tag '{words[0]}' does not exist")
        mac, mtu = properties.get("mac") or (words[1] if len(words) > 1 else None), _mtu(properties)
        if mac:
            tag.update(_link(node, mac))
        if mtu:
            tag["mtu"] = mtu


def _users(state: State, name: str) -> list[str]:
    return [
        record["vm"]["uuid"]
        for record in state.records()
        if any(nic.get("nic_tag", "").split("/")[0] == name for nic in record["vm"].get("nics", ()))
    ]


def _tag_delete(state: State, argv: list[str]) -> None:
    options, words = getopts(argv, "fl", "", NICTAGADM_USAGE)
    if not words:
        raise Refused(NICTAGADM_USAGE, 2)
    name = words[0]
    with state.changed_node() as node:
        tag = _tag(node, name)
        if tag is None:
            raise Refused(f"Error: nic tag '{name}' does not exist")
        if "f" not in options and _users(state, name):
            raise Refused(f"Error: nic tag '{name}' is in use")
        state.platform().nictag_delete(name)
        node["nic_tags"].remove(tag)


def _tag_vms(state: State, argv: list[str]) -> None:
    if not argv:
        raise Refused(NICTAGADM_USAGE, 2)
    if _tag(state.node, argv[0]) is None:
        raise Refused(f"Error: nic tag '{argv[0]}' does not exist")
    for uuid in _users(state, argv[0]):
        print(uuid)


# -- sysinfo -----------------------------------------------------------------------------------------------------------


def _facts(state: State) -> dict[str, t.Any]:
    node = state.node
    links: dict[str, dict[str, t.Any]] = {}
    for tag in node["nic_tags"]:
        if tag.get("link"):
            link = links.setdefault(
                tag["link"], {"MAC Address": tag["mac"], "ip4addr": "", "Link Status": "up", "NIC Names": []}
            )
            link["NIC Names"].append(tag["name"])
    import os

    cores = os.cpu_count() or 1
    return {
        "Live Image": node["platform"],
        "System Type": "SunOS",
        "Boot Time": str(node.get("boot_time", EPOCH)),
        "UUID": node["uuid"],
        "Hostname": node["hostname"],
        "Manufacturer": "smartos-sim",
        "Product": "smartos-sim",
        "Serial Number": "0",
        "VM Capable": True,
        "Bhyve Capable": True,
        "Bhyve Max Vcpus": 32,
        "HVM API": True,
        "CPU Type": "simulated",
        "CPU Virtualization": "none",
        "CPU Physical Cores": 1,
        "CPU Total Cores": cores,
        "CPU Count": cores,
        "CPU Core Count": cores,
        "CPU Online Count": cores,
        "MiB of Memory": str(node["memory_mib"]),
        "Zpool": node["zpools"][0],
        "Zpool Disks": "c0t0d0",
        "Zpool Profile": "striped",
        "Zpool Creation": EPOCH,
        "Zpool Size in GiB": 100,
        "Zpool Encrypted": False,
        "Disks": {"c0t0d0": {"Size in GB": 107}},
        "Boot Parameters": {},
        "SDC Version": "7.0",
        "Network Interfaces": links,
        "Virtual Network Interfaces": {},
        "Link Aggregations": {},
        "Admin NIC Tag": "admin" if _tag(node, "admin") else "",
        "Admin IP": "",
        "Setup": "true",
        "Datacenter Name": "",
    }


def sysinfo(argv: list[str]) -> int:
    """Facts of the node as JSON; -p as NAME='VALUE' lines; -f and -u, which ask the hardware anew, change nothing here."""

    def run(state: State, words: list[str]) -> None:
        options, rest = getopts(words, "fpu", "", "Usage: sysinfo [-f] [-p|-u]")
        if rest:
            raise Refused("Usage: sysinfo [-f] [-p|-u]", 2)
        if "u" in options:
            return
        facts = _facts(state)
        if "p" not in options:
            print(json.dumps(facts, indent=2))
            return
        for name, value in facts.items():
            text = value if isinstance(value, str) else json.dumps(value)
            print(f"{name.replace(' ', '_')}='{text}'")

    return run_tool(run, argv)


# -- zones and links ---------------------------------------------------------------------------------------------------


def zoneadm(argv: list[str]) -> int:
    """``zoneadm [-z NAME | -u UUID] list [-c | -i] [-p] [-v] [-n]``; everything else is vmadm's to do."""
    return run_tool(_zoneadm, argv)


def _zoneadm(state: State, argv: list[str]) -> None:
    options, words = getopts(argv, "cipvn", "zu", "usage: zoneadm [-z name] list [-cipvn]")
    if words[:1] != ["list"]:
        raise Refused(f"zoneadm: smartos-sim does not simulate {' '.join(words) or 'no subcommand'}")
    zones = [
        (
            str(vm["zoneid"]) if vm["zoneid"] else "-",
            vm["zonename"],
            vm["zone_state"],
            vm["zonepath"],
            vm["uuid"],
            vm["brand"],
        )
        for vm in state.views()
    ]
    wanted = options.get("z") or options.get("u")
    if wanted:
        zones = [zone for zone in zones if wanted in (zone[1], zone[4])]
        if not zones and wanted != "global":
            raise Refused(f"zoneadm: {wanted}: No such zone configured")
    elif "c" not in options:
        up = ("running", "installed") if "i" in options else ("running",)
        zones = [zone for zone in zones if zone[2] in up]
    if not wanted or wanted == "global":
        zones.insert(0, ("0", "global", "running", "/", "", "liveimg"))
    if "n" in options:
        zones = [zone for zone in zones if zone[1] != "global"]
    if "p" in options:
        for number, name, status, path, uuid, brand in zones:
            kind, debug = ("shared", "") if name == "global" else ("excl", number)
            print(":".join((number, name, status, path, uuid, brand, kind, debug)))
    elif "v" in options:
        print(f"{'ID':>4} {'NAME':<16} {'STATUS':<10} {'PATH':<30} {'BRAND':<8} IP")
        for number, name, status, path, _uuid, brand in zones:
            kind = "shared" if name == "global" else "excl"
            print(f"{number:>4} {name:<16} {status:<10} {path:<30} {brand:<8} {kind}")
    else:
        for zone in zones:
            print(zone[1])


def zonename(argv: list[str]) -> int:
    """The zone one is in; a joyent zone has this command too."""
    from .smf.place import Place

    print(Place.here().zonename)
    return 0


def dladm(argv: list[str]) -> int:
    """``dladm show-phys|show-link|show-etherstub|show-vnic [-p -o FIELDS]``: what NIC tags, running VMs and the global zone imply."""
    from . import gz_network

    changes = {"create-vnic": gz_network.create_vnic, "delete-vnic": gz_network.delete_vnic}
    if argv and argv[0] in changes:
        return run_tool(changes[argv[0]], argv[1:])
    return run_tool(_dladm, argv)


def _links(state: State, kind: str) -> list[dict[str, str]]:
    tags = state.node["nic_tags"]
    physical = [
        {"LINK": link, "MEDIA": "Ethernet", "STATE": "up", "SPEED": "1000", "DUPLEX": "full", "DEVICE": link,
         "CLASS": "phys", "MTU": "1500", "OVER": "--"}
        for link in dict.fromkeys(tag["link"] for tag in tags if tag.get("link"))
    ]  # fmt: skip
    stubs = [
        {"LINK": tag["name"], "CLASS": "etherstub", "MTU": str(tag.get("mtu", 9000)), "STATE": "unknown", "OVER": "--"}
        for tag in tags
        if tag["type"] == "etherstub"
    ]
    links = {tag["name"]: tag.get("link") or tag["name"] for tag in tags}
    vnics = [
        {"LINK": nic["interface"], "OVER": links.get(nic["nic_tag"], nic["nic_tag"]), "SPEED": "0", "ZONE": vm["zonename"],
         "MACADDRESS": nic["mac"], "MACADDRTYPE": "fixed", "VID": str(nic.get("vlan_id", 0)), "CLASS": "vnic",
         "MTU": str(nic.get("mtu", 1500)), "STATE": "up"}
        for vm in state.views()
        if vm["zone_state"] == "running"
        for nic in vm["nics"]
    ]  # fmt: skip
    vnics += [
        {"LINK": name, "OVER": nic["over"], "SPEED": "0", "ZONE": "global", "MACADDRESS": nic["mac"], "MACADDRTYPE": "fixed",
         "VID": "0", "CLASS": "vnic", "MTU": str(nic["mtu"]), "STATE": "up"}
        for name, nic in state.node.get("gz_nics", {}).items()
    ]  # fmt: skip
    return {
        "show-phys": physical, "show-etherstub": stubs, "show-vnic": vnics, "show-link": physical + stubs + vnics,
    }[kind]  # fmt: skip


DLADM_FIELDS = {
    "show-phys": ("LINK", "MEDIA", "STATE", "SPEED", "DUPLEX", "DEVICE"),
    "show-etherstub": ("LINK",),
    "show-vnic": ("LINK", "OVER", "SPEED", "MACADDRESS", "MACADDRTYPE", "VID", "ZONE"),
    "show-link": ("LINK", "CLASS", "MTU", "STATE", "OVER"),
}


def _dladm(state: State, argv: list[str]) -> None:
    if not argv or argv[0] not in DLADM_FIELDS:
        raise Refused(f"dladm: unrecognized subcommand '{argv[0] if argv else ''}'")
    options, names = getopts(argv[1:], "pZm", "oz", f"usage: dladm {argv[0]} [-p] [-o field,...] [link]")
    rows = _links(state, argv[0])
    if names:
        rows = [row for row in rows if row["LINK"] in names]
        if not rows:
            raise Refused(f"dladm: link {names[0]} is not valid: object not found")
    if "z" in options:
        rows = [row for row in rows if row.get("ZONE") == options["z"]]
    wanted = str(options["o"]).upper().split(",") if "o" in options else list(DLADM_FIELDS[argv[0]])
    cells = [[row.get(field, "--") for field in wanted] for row in rows]
    if "p" in options:
        for row in cells:
            single = len(row) == 1
            print(":".join(cell if single else cell.replace("\\", "\\\\").replace(":", "\\:") for cell in row))
        return
    table = [wanted, *cells]
    widths = [max(len(row[place]) for row in table) for place in range(len(wanted))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
