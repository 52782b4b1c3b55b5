# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NICs of the global zone, its forwarding and its NAT: dladm create-vnic and delete-vnic, ifconfig, routeadm, route, ipf, ipnat.

Taken from illumos's manual pages; what the tools say where those are silent is our own (mark K). On a node of Linux parts a NIC is a
pair of veth devices, one of them a port of its tag's bridge, and NAT is a table of nftables. All of it is gone after a boot.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import sys
import typing as t
from pathlib import Path

from .node_tools import Refused, getopts, run_tool
from .state import State

NAT = "smartos_sim_ipnat"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
PAPER_ROUTE = "e1000g0"
RULE = re.compile(r"map\s+(\S+)\s+(\S+)\s+->\s+(\S+)((?:\s+portmap\s+\S+\s+\S+)?)")


def _linux() -> t.Any:
    """The real parts, where a node has them; on paper their import would take longer than all the rest."""
    from . import linux

    return linux


def _device(name: str, side: str = "") -> str:
    """The Linux device of a NIC: at most 15 characters."""
    return name if not side and len(name) <= 15 else f"gz{hashlib.sha1((name + side).encode()).hexdigest()[:12]}"


def _real(state: State) -> bool:
    return bool(state.node["machine"] == "linux")


# -- dladm -------------------------------------------------------------------------------------------------------------


def create_vnic(state: State, argv: list[str]) -> None:
    """``create-vnic [-t] -l LINK [-m MAC] [-p mtu=N] NAME``."""
    given, names = getopts(argv, "t", "lmp", "usage: dladm create-vnic [-t] -l link [-m mac] [-p prop=value] vnic")
    link, name = str(given.get("l", "")), (names or [""])[0]
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]{0,29}\d", name):
        raise Refused(f"dladm: invalid link name '{name}'")
    with state.changed_node() as node:
        tag = next(
            (
                tag
                for tag in node["nic_tags"]
                if link == (tag["name"] if tag["type"] == "etherstub" else tag.get("link"))
            ),
            None,
        )
        if tag is None:
            raise Refused(f"dladm: invalid link name '{link}'")
        nics = node.setdefault("gz_nics", {})
        if name in nics:
            raise Refused(f"dladm: vnic creation over {link} failed: object already exists")
        mtu = int(dict(one.split("=") for one in str(given.get("p") or "mtu=1500").split(",")).get("mtu", 1500))
        mac = str(
            given.get("m") or "02:08:20:" + ":".join(re.findall("..", hashlib.sha1(name.encode()).hexdigest()[:6]))
        )
        nics[name] = {"over": link, "mac": mac, "mtu": mtu, "address": None, "plumbed": False}
        if node["machine"] == "linux":
            here, there = _device(name), _device(name, "peer")
            _linux().run(
                "ip", "link", "add", here, "address", mac, "mtu", str(mtu), "type", "veth", "peer", "name", there
            )
            _linux().run("ip", "link", "set", there, "mtu", str(mtu), "master", _linux().bridge(tag["name"]), "up")


def delete_vnic(state: State, argv: list[str]) -> None:
    """``delete-vnic [-t] NAME``; one that is plumbed is busy."""
    _given, names = getopts(argv, "t", "", "usage: dladm delete-vnic [-t] vnic")
    name = (names or [""])[0]
    with state.changed_node() as node:
        nic = node.get("gz_nics", {}).get(name)
        if nic is None:
            raise Refused(f"dladm: vnic deletion failed: link {name} not found")
        if nic["plumbed"]:
            raise Refused("dladm: vnic deletion failed: link busy")
        del node["gz_nics"][name]
        if node["machine"] == "linux":
            _linux().run("ip", "link", "delete", _device(name))


# -- ifconfig ----------------------------------------------------------------------------------------------------------


def ifconfig(argv: list[str]) -> int:
    """``ifconfig NIC [plumb | unplumb | inet ADDRESS/LENGTH up]``."""
    return run_tool(_ifconfig, argv)


def _ifconfig(state: State, argv: list[str]) -> None:
    if not argv:
        raise Refused("usage: ifconfig <interface> [...]")
    name, words = argv[0], argv[1:]
    if not words:
        nic = state.node.get("gz_nics", {}).get(name)
        if nic is None or not nic["plumbed"]:
            raise Refused(f"ifconfig: status: SIOCGLIFFLAGS: {name}: no such interface")
        own = ipaddress.ip_interface(nic["address"] or "0.0.0.0/0")
        flags = f"{'UP,' if nic['address'] else ''}BROADCAST,RUNNING,MULTICAST,IPv4"
        print(f"{name}: flags=1000843<{flags}> mtu {nic['mtu']} index 3")
        print(f"\tinet {own.ip} netmask {int(own.netmask):x} broadcast {own.network.broadcast_address}")
        return
    with state.changed_node() as node:
        nic = node.get("gz_nics", {}).get(name)
        if nic is None:
            raise Refused(f'ifconfig: cannot open link "{name}": DLPI link does not exist')
        if words == ["plumb"]:
            nic["plumbed"] = True
        elif words == ["unplumb"]:
            nic.update(plumbed=False, address=None)
        elif nic["plumbed"] and words[:1] == ["inet"] and words[2:] == ["up"]:
            nic["address"] = str(ipaddress.ip_interface(words[1]))
        else:
            raise Refused(f"ifconfig: {' '.join(words)}: bad address or interface {name} not plumbed")
        if node["machine"] == "linux":
            _linux().run("ip", "address", "flush", "dev", _device(name))
            _linux().run("ip", "link", "set", _device(name), "up" if nic["address"] else "down")
            if nic["address"]:
                _linux().run("ip", "address", "add", nic["address"], "dev", _device(name))


# -- routes, forwarding and NAT ----------------------------------------------------------------------------------------


def routeadm(argv: list[str]) -> int:
    """``routeadm -p ipv4-forwarding`` tells, ``routeadm -u -e ipv4-forwarding`` enables at once and for good."""
    return run_tool(_routeadm, argv)


def _routeadm(state: State, argv: list[str]) -> None:
    def current() -> bool:
        return FORWARDING.read_text().strip() == "1" if _real(state) else bool(state.node.get("forwarding"))

    if argv == ["-p", "ipv4-forwarding"]:
        word = {True: "enabled", False: "disabled"}
        print(f"persistent={word[bool(state.node.get('forwarding'))]} default=disabled current={word[current()]}")
    elif argv == ["-u", "-e", "ipv4-forwarding"]:
        with state.changed_node() as node:
            node["forwarding"] = True
        if _real(state):
            FORWARDING.write_text("1\n")
    else:
        raise Refused(f"routeadm: smartos-sim does not simulate {' '.join(argv)}")


def route(argv: list[str]) -> int:
    """``route -n get default``."""
    return run_tool(_route, argv)


def _route(state: State, argv: list[str]) -> None:
    if argv != ["-n", "get", "default"]:
        raise Refused(f"route: smartos-sim does not simulate {' '.join(argv)}")
    found = [{"dev": PAPER_ROUTE, "gateway": "192.0.2.1"}]
    if _real(state):
        found = json.loads(_linux().run("ip", "-j", "route", "show", "default"))
    if not found:
        raise Refused("get host default: gateway default: not in table")
    for key, value in (
        ("route to", "default"),
        ("gateway", found[0].get("gateway", "-")),
        ("interface", found[0]["dev"]),
    ):
        print(f"{key:>11}: {value}")


def ipf(argv: list[str]) -> int:
    """``ipf -E``; no packet is filtered here."""

    def run(_state: State, words: list[str]) -> None:
        if words != ["-E"]:
            raise Refused(f"ipf: smartos-sim does not simulate {' '.join(words)}")

    return run_tool(run, argv)


def ipnat(argv: list[str]) -> int:
    """``ipnat -l``; ``ipnat [-r] -f FILE``, - for standard input: add rules, or with -r remove them. Only map rules to 0/32."""
    return run_tool(_ipnat, argv)


def _ipnat(state: State, argv: list[str]) -> None:
    given, _rest = getopts(argv, "lr", "f", "usage: ipnat [-lr] [-f filename]")
    if "l" in given:
        print("List of active MAP/Redirect filters:")
        for rule in state.node.get("ipnat", ()):
            print(rule)
        print("\nList of active sessions:")
        return
    text = sys.stdin.read() if given.get("f") == "-" else Path(str(given.get("f"))).read_text()
    rules = [_rule(line) for line in text.splitlines() if line.split("#")[0].strip()]
    with state.changed_node() as node:
        have: list[str] = node.setdefault("ipnat", [])
        for rule in rules:
            if (rule in have) is not ("r" in given):
                raise Refused(f"ipnat: {'no such rule' if 'r' in given else 'File exists'}: {rule}")
            (have.remove if "r" in given else have.append)(rule)
        if node["machine"] == "linux":
            _translate(have)


def _rule(line: str) -> str:
    """A rule as ipnat keeps and prints it: addresses written out."""
    found = RULE.fullmatch(line.strip())
    if found is None or found[3] not in ("0/32", "0.0.0.0/32"):
        raise Refused(f"ipnat: syntax error: {line}")
    return f"map {found[1]} {ipaddress.ip_network(found[2])} -> 0.0.0.0/32{found[4]}"


def _translate(rules: t.Sequence[str]) -> None:
    import subprocess

    pairs = sorted({(rule.split()[1], rule.split()[2]) for rule in rules})
    lines = "".join(f'ip saddr {network} oifname "{link}" masquerade\n' for link, network in pairs)
    chain = f"chain out {{\ntype nat hook postrouting priority srcnat; policy accept;\n{lines}}}"
    subprocess.run(
        ["nft", "-f", "-"], input=f"table ip {NAT}\ndelete table ip {NAT}\ntable ip {NAT} {{\n{chain}\n}}\n",
        text=True, capture_output=True, check=True,
    )  # fmt: skip


def forget(state: State) -> None:
    """A boot knows nothing of all this."""
    with state.changed_node() as node:
        for name in node.pop("gz_nics", {}):
            if node["machine"] == "linux":
                _linux().quiet("ip", "link", "delete", _device(name))
        if node.pop("ipnat", None) and node["machine"] == "linux":
            _translate([])
        node.pop("forwarding", None)
