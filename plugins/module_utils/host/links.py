# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's interfaces: files for what manages them there, and what they lack of what they should be. Pure, but for :func:`manager`.

A link is what the inventory says of it (``plugin_utils/links.py``): a mapping with the keys ``name``, ``kind``, ``mode``, ``parent``,
``id``, ``master``, ``port``, ``mtu``, ``address``, ``dhcp``, ``gateway`` and ``routes``; in a list, each after what it stands on.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.host.changes import HEADER

Link = t.Mapping[str, t.Any]
Files = dict[str, str]

NETWORKD_FOLDER = "/etc/systemd/network"
PREFIX = "05-zonestack-"
"""Of the first file that matches an interface all others are ignored (systemd.network(5)): ours come early."""
IFUPDOWN = "/etc/network/interfaces"
IFUPDOWN_FOLDER = f"{IFUPDOWN}.d"
IFUPDOWN_FILE = f"{IFUPDOWN_FOLDER}/zonestack"
TAKEN = "#zonestack# "
"""Begins each line of other files of ifupdown that a declared link takes the place of."""
MII_MILLISECONDS = 100
"""How often a bond looks whether its members have a carrier. The kernel's default is never (bonding.rst, miimon)."""

_STARTERS = re.compile(
    r"\s*(iface|mapping|auto|allow-\S+|no-auto-down|no-scripts|source|source-directory|rename|template)\s+(.*\S)"
)


class NotOurs(Exception):
    """The interfaces of this host are not to be managed; the message says who does, and what would be right."""


def networkd_files(links: t.Sequence[Link]) -> Files:
    """The links for systemd-networkd: text by path (systemd.netdev(5), systemd.network(5))."""
    kinds = {link["name"]: link["kind"] for link in links}
    files: Files = {}
    for link in links:
        stem = f"{NETWORKD_FOLDER}/{PREFIX}{link['name']}"
        if link["kind"] != "physical":
            files[f"{stem}.netdev"] = HEADER + _sections(_netdev(link))
        files[f"{stem}.network"] = HEADER + _sections(
            _network(link, kinds, [one for one in links if one["parent"] == link["name"]])
        )
    return files


def _sections(rows: t.Iterable[tuple[str, list[tuple[str, t.Any]]]]) -> str:
    return "".join(f"\n[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys) for name, keys in rows if keys)


def _netdev(link: Link) -> t.Iterator[tuple[str, list[tuple[str, t.Any]]]]:
    yield "NetDev", [("Name", link["name"]), ("Kind", link["kind"]), ("MTUBytes", link["mtu"])]
    if link["kind"] == "bond":
        yield "Bond", [("Mode", link["mode"]), ("MIIMonitorSec", f"{MII_MILLISECONDS}ms")]
    if link["kind"] == "vlan":
        yield "VLAN", [("Id", link["id"])]


def _network(
    link: Link, kinds: t.Mapping[str, str], vlans: t.Iterable[Link]
) -> t.Iterator[tuple[str, list[tuple[str, t.Any]]]]:
    yield "Match", [("Name", link["name"])]
    yield "Link", [("MTUBytes", link["mtu"])]
    keys: list[tuple[str, t.Any]] = []
    if link["master"]:
        keys.append(("Bond" if kinds[link["master"]] == "bond" else "Bridge", link["master"]))
    keys += [("VLAN", one["name"]) for one in vlans]
    if link["port"]:
        keys.append(("KeepMaster", "yes"))  # its bridge is zonestack-network's
    if link["dhcp"]:
        keys.append(("DHCP", "ipv4"))
    elif link["address"]:
        # A bridge without a port that is up has no carrier, and a cable that is pulled is no reason to forget an address.
        keys += [("Address", link["address"]), ("ConfigureWithoutCarrier", "yes")]
    else:
        keys += [("LinkLocalAddressing", "no"), ("ConfigureWithoutCarrier", "yes")]
    if link["gateway"]:
        keys.append(("Gateway", link["gateway"]))
    yield "Network", keys
    for network, router in link["routes"].items():
        yield "Route", [("Destination", network), ("Gateway", router)]


def ifupdown_text(links: t.Sequence[Link]) -> str:
    """The links for ifupdown (interfaces(5)). What makes a device is iproute2's, so no further packages have a say in it."""
    members = {link["name"]: [one["name"] for one in links if one["master"] == link["name"]] for link in links}
    texts = ("".join(f"{line}\n" for line in _stanza(link, members[link["name"]])) for link in links)
    return HEADER + "".join(f"\n{text}" for text in texts)


def _stanza(link: Link, members: t.Iterable[str]) -> t.Iterator[str]:
    name, kind = link["name"], link["kind"]
    yield f"auto {name}"
    yield f"iface {name} inet {'dhcp' if link['dhcp'] else 'static' if link['address'] else 'manual'}"
    if link["address"]:
        yield f"    address {link['address']}"
    if link["gateway"]:
        yield f"    gateway {link['gateway']}"
    if kind != "physical":
        what = {
            "bond": f"type bond mode {link['mode']} miimon {MII_MILLISECONDS}",
            "vlan": f"type vlan id {link['id']}",
            "bridge": "type bridge",
        }[kind]
        lower = f"link {link['parent']} " if link["parent"] else ""
        yield f"    pre-up ip link add {lower}name {name} {what}"
    for member in members:
        if kind == "bond":
            yield f"    pre-up ip link set dev {member} down"  # or the kernel refuses it
        yield f"    pre-up ip link set dev {member} master {name}"
        yield f"    pre-up ip link set dev {member} up"
    yield f"    pre-up ip link set dev {name} mtu {link['mtu']} up"
    yield from (f"    up ip route replace {network} via {router}" for network, router in link["routes"].items())
    if kind != "physical":
        yield f"    post-down ip link delete dev {name}"


def ifupdown_files(links: t.Sequence[Link], there: t.Mapping[str, str]) -> Files:
    """The links for ifupdown, and the other files of it without what they said of these.

    :param there: every file of ifupdown on the host, text by path.
    """
    names = {link["name"] for link in links}
    files = {path: without(text, names) for path, text in there.items() if path != IFUPDOWN_FILE}
    if not any(
        re.match(rf"\s*source(-directory)?\s+{IFUPDOWN_FOLDER}(/\*|/zonestack)?/?\s*$", line)
        for line in files[IFUPDOWN].splitlines()
    ):
        files[IFUPDOWN] = files[IFUPDOWN].rstrip("\n") + f"\n\nsource {IFUPDOWN_FILE}\n"
    return {**files, IFUPDOWN_FILE: ifupdown_text(links)}


def stanzas(text: str) -> set[str]:
    """Names of the interfaces that a file of ifupdown configures."""
    return {
        found[2].split()[0] for line in text.splitlines() if (found := _STARTERS.match(line)) and found[1] == "iface"
    } - {"lo"}


def without(text: str, names: t.Collection[str]) -> str:
    """A file of ifupdown with what it says of ``names`` turned into comments, so that its owner sees what was there."""
    lines, dropping = [], False
    for line in text.splitlines():
        found = _STARTERS.match(line)
        if found:
            words = found[2].split()
            dropping = found[1] == "iface" and words[0] in names
            if found[1] == "auto" or found[1].startswith("allow-"):
                rest = [word for word in words if word not in names]
                if rest != words:
                    lines.append(TAKEN + line)
                    if rest:
                        lines.append(f"{found[1]} {' '.join(rest)}")
                    continue
        keep = not dropping or not line.strip() or line.lstrip().startswith("#")
        lines.append(line if keep else TAKEN + line)
    return "".join(f"{line}\n" for line in lines)


def manager(active: t.Collection[str], netplan: bool, ifupdown: t.Mapping[str, str], names: t.Collection[str]) -> str:
    """Who manages the interfaces of this host: ``networkd`` or ``ifupdown``.

    :param active: those of NetworkManager, systemd-networkd and networking that run (``systemctl is-active``).
    :param netplan: whether netplan has files; ``ifupdown`` its files, none where it is not installed.
    :param names: of the links that are declared.
    :raises NotOurs: when it is somebody else.
    """
    advice = "take its links out of topology.yml, and they are checked and never touched; or hand the host to systemd-networkd"
    if netplan:
        raise NotOurs(f"netplan manages the networks of this host (/etc/netplan): {advice}")
    if "NetworkManager" in active:
        raise NotOurs(f"NetworkManager manages the networks of this host: {advice}")
    configured = set().union(*(stanzas(text) for text in ifupdown.values()))
    if configured & set(names) or (configured and "systemd-networkd" not in active):
        return "ifupdown"
    if "systemd-networkd" in active:
        return "networkd"
    raise NotOurs(
        "neither systemd-networkd nor ifupdown manages the networks of this host, so nothing could undo a change: "
        "let systemd-networkd manage the present ones (systemctl enable --now systemd-networkd), or remove its links from topology.yml"
    )


# What is, as `ip -json -details address show` and `ip -json -4 route show` tell it (ip-address(8), ip-route(8)) ---------------


def missing(links: t.Sequence[Link], shown: t.Sequence[t.Mapping[str, t.Any]]) -> t.Iterator[str]:
    """Why the links cannot be on this host at all: an interface that it has not, or a name that something else has."""
    there = {one["ifname"]: one for one in shown}
    for link in links:
        name, have = link["name"], there.get(link["name"])
        kind = kind_of(have) if have else None
        if link["kind"] == "physical" and have is None:
            yield f"there is no interface {name} (there are: {', '.join(sorted(there.keys() - {'lo'}))})"
        elif link["kind"] != "physical" and have is not None and kind != link["kind"]:
            yield f"{name} must be a {link['kind']}, and the name belongs to {'a ' + kind if kind else 'an interface of the machine'}"


def kind_of(shown: t.Mapping[str, t.Any]) -> str | None:
    """The kind of a device that was made (bond, vlan, veth ..); None of a machine's own."""
    return t.cast("str | None", (shown.get("linkinfo") or {}).get("info_kind"))


def remade(links: t.Sequence[Link], shown: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """Links that are there with what cannot be changed while they live: a bond's mode, a VLAN's number and parent."""
    there = {one["ifname"]: one for one in shown}
    return [link["name"] for link in links if link["name"] in there and any(_identity(link, there[link["name"]]))]


def _identity(link: Link, have: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    data = (have.get("linkinfo") or {}).get("info_data") or {}
    if link["kind"] == "bond" and data.get("mode") != link["mode"]:
        yield f"mode is {data.get('mode')}, not {link['mode']}"
    if link["kind"] == "vlan" and (data.get("id"), have.get("link")) != (link["id"], link["parent"]):
        yield f"is VLAN {data.get('id')} of {have.get('link')}, not {link['id']} of {link['parent']}"


def lacks(
    links: t.Sequence[Link], shown: t.Sequence[t.Mapping[str, t.Any]], routes: t.Sequence[t.Mapping[str, t.Any]]
) -> list[str]:
    """What the links lack of what they should be, a line for each. A carrier is not asked for: cables come and go."""
    there = {one["ifname"]: one for one in shown}
    ways = {(str(route.get("dst")), route.get("gateway"), route.get("dev")) for route in routes}
    found = []
    for link in links:
        name, have = link["name"], there.get(link["name"])
        if have is None:
            found.append(f"{name}: missing")
            continue
        addresses = [
            f"{one['local']}/{one['prefixlen']}" for one in have.get("addr_info") or () if one.get("family") == "inet"
        ]
        wrong = list(_identity(link, have))
        if "UP" not in have["flags"]:
            wrong.append("is down")
        if have["mtu"] != link["mtu"]:
            wrong.append(f"mtu is {have['mtu']}, not {link['mtu']}")
        if link["master"] and have.get("master") != link["master"]:
            wrong.append(f"is no member of {link['master']}")
        elif have.get("master") and not link["master"] and not link["port"]:
            wrong.append(f"is a member of {have['master']}")
        if link["address"] and link["address"] not in addresses:
            wrong.append(f"has not {link['address']}")
        wrong += [f"has {address} too" for address in addresses if address != link["address"] and not link["dhcp"]]
        if link["dhcp"] and not addresses:
            wrong.append("has no address from DHCP")
        wanted = [("default", link["gateway"])] if link["gateway"] else []
        wanted += link["routes"].items()
        lost = [way for way in wanted if (way[0].removesuffix("/32"), way[1], name) not in ways]
        wrong += [f"has no route to {network} by {router}" for network, router in lost]
        found += [f"{name}: {text}" for text in wrong]
    return found
