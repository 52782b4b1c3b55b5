# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of one machine: what is in the way of the deployment's bridges, addresses and ports."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from checks.finding import Facts, Finding, names
from checks.needs import Bridge, Needs
from checks.uses import Network, addresses_of, is_loopback, is_own, uses_of
from site_bridges import contradictions, is_the_sites

RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""The machine's own resolv.conf(5), and systemd-resolved's with the servers that it asks itself."""
ZONE_PORT = re.compile(r"zs[0-9a-f]{10}n\d+")
"""The host's end of a zone's interface, as module_utils/zone/lxc.py names it."""


def judge_networks(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """What is in the way of the deployment's bridges, their networks and addresses on one machine."""
    if not facts["links"]:
        yield Finding(
            "network", "ip(8) is not installed, so its networks could not be checked", "apt-get install iproute2"
        )
        return
    links = {link["ifname"]: link for link in facts["links"]}
    own = [bridge.name for bridge in needs.bridges]
    for bridge in needs.bridges:
        there = links.get(bridge.name)
        kind = ((there or {}).get("linkinfo") or {}).get("info_kind")
        if there and kind != "bridge":
            yield Finding(
                "network",
                f"{bridge.name}, the bridge of network {bridge.network}, has the name of {kind or 'another device'}",
                f"rename that device, or set another name in networks.{bridge.network}.bridge",
            )
        if there and kind == "bridge" and is_the_sites(there):
            for what, fix in contradictions(there, links.get(bridge.interface or ""), bridge):
                yield Finding(
                    "network", f"{bridge.name} was there before zonestack and stays as it is, but {what}", fix
                )
        use = next((use for use in uses_of(facts, own) if use.network.overlaps(Network(bridge.cidr))), None)
        if use and bridge.made:
            yield Finding(
                "network",
                f"network {bridge.network} ({bridge.cidr}) overlaps {use.what}",
                "before the first run, set another cidr for the network in topology.yml; or remove the other use",
            )
        if bridge.interface not in needs.links and not (there and is_the_sites(there)):
            yield from judge_ports(bridge, links, facts["routes"])
    yield from judge_links(links, needs.links)
    yield from judge_resolvers(facts)
    yield from judge_drops(facts, [bridge.name for bridge in needs.bridges if bridge.made])
    for name, link in links.items():
        for address, _prefix in addresses_of(link):
            owner = needs.taken.get(address)
            if owner and not is_own(name, own):
                yield Finding(
                    "address",
                    f"{address}, which is {owner}, is an address of this machine on {name}",
                    f"ip address del {address} dev {name}",
                )
    yield from judge_listeners(
        facts, needs, {address for link in links.values() for address, _prefix in addresses_of(link)}
    )


def judge_links(links: Mapping[str, Mapping[str, Any]], declared: Mapping[str, str]) -> Iterator[Finding]:
    """Declared interfaces that a run could not make: it refuses, and changes nothing, for the same."""
    for name, kind in declared.items():
        there = links.get(name)
        have = ((there or {}).get("linkinfo") or {}).get("info_kind")
        if kind == "physical" and not there:
            yield Finding(
                "links",
                f"there is no interface {name} (there are: {names(links.keys() - {'lo'}, 8)})",
                "correct links: in topology.yml, or connect the interface",
            )
        elif kind != "physical" and there and have != kind:
            yield Finding(
                "links",
                f"{name} must be a {kind}, and the name belongs to {have or 'an interface of the machine'}",
                "rename the link",
            )


def judge_ports(
    bridge: Bridge, links: Mapping[str, Mapping[str, Any]], routes: Iterable[Mapping[str, Any]]
) -> Iterator[Finding]:
    """The ways out of a bridge: the interface that it is to have, and the ports that it has."""
    label = f"network {bridge.network}"
    if bridge.interface and bridge.interface not in links:
        yield Finding(
            "network",
            f"{label} needs interface {bridge.interface}, which does not exist (there are: {names(links, 8)})",
            f"name the right one in {bridge.network}.interface of topology.yml, or connect it",
        )
    elif bridge.interface and not links[bridge.interface].get("master"):
        if given := [address for address, _prefix in addresses_of(links[bridge.interface])]:
            yield Finding(
                "network",
                f"{bridge.interface} becomes a port of bridge {bridge.name} and has address {given[0]}, which would become unreachable",
                f"name another interface in {bridge.network}.interface, or move the address away from it",
            )
        elif any(route.get("dst") == "default" and route.get("dev") == bridge.interface for route in routes):
            yield Finding(
                "network",
                f"{bridge.interface} becomes a port of bridge {bridge.name} and carries the default route, which would be lost",
                f"name another interface in {bridge.network}.interface",
            )
    elif bridge.interface and links[bridge.interface]["master"] != bridge.name:
        yield Finding(
            "network",
            f"{bridge.interface} becomes a port of bridge {bridge.name} and is one of {links[bridge.interface]['master']}, which would lose it",
            f"name another interface in {bridge.network}.interface, such as a VLAN, or set {bridge.network}.bridge to the bridge that exists",
        )
    for name, link in links.items():
        port = link.get("master") == bridge.name and not ZONE_PORT.fullmatch(name)
        if (port or name == bridge.interface) and link["mtu"] < bridge.mtu:
            yield Finding(
                "mtu",
                f"{name} carries packets of {link['mtu']} bytes, and {label} has an mtu of {bridge.mtu}",
                f"ip link set {name} mtu {bridge.mtu} if the switch carries it, or mtu: {link['mtu']} for the network in topology.yml",
            )


def judge_drops(facts: Facts, bridges: Iterable[str]) -> Iterator[Finding]:
    """Firewall rules of the site that drop what the zones behind ``bridges`` send; a run leaves them as they are."""
    for drop in facts["drops"]:
        accepted = drop["accepted"].split()
        closed = [
            bridge for bridge in bridges
            if not any(bridge == one or (one.endswith("*") and bridge.startswith(one[:-1])) for one in accepted)
        ]  # fmt: skip
        if closed:
            where = f"{drop['table']} {drop['chain']}"
            rules = (
                f"nft insert rule {where} iifname {{ {', '.join(closed)} }} accept; "
                f"nft insert rule {where} oifname {{ {', '.join(closed)} }} ct state established,related accept"
            )
            yield Finding(
                "firewall",
                f"table {drop['table']}, chain {drop['chain']} ({drop['what']}) drops what zones send through this machine",
                f"{rules}; and in the file or the firewall that makes that table",
            )


def judge_resolvers(facts: Facts) -> Iterator[Finding]:
    """Name servers that zones cannot ask, because each machine is its own loopback. A run takes the upstream file where resolved has one."""
    own, upstream = (
        re.findall(r"^\s*nameserver\s+(\S+)", facts["resolvers"].get(path, ""), re.MULTILINE) for path in RESOLVERS
    )
    if own and all(is_loopback(one) for one in own) and not [one for one in upstream if not is_loopback(one)]:
        yield Finding(
            "dns",
            f"{RESOLVERS[0]} names {own[0]} alone, which is each zone's own loopback and no name server there",
            f"name a server that zones reach in {RESOLVERS[0]}: nameserver ADDRESS, on a line of its own; or one in {RESOLVERS[1]}",
        )


def judge_listeners(facts: Facts, needs: Needs, here: Collection[str]) -> Iterator[Finding]:
    """Programs of the host at the front ends' address.

    Zones have a network stack each, so a port of the host is in nobody's way, unless it is one of an address that the deployment gives away.
    """
    for one in facts["listening"]:
        at = one["address"] if one["address"] != "*" else needs.virtual if needs.virtual in here else ""
        if at == needs.virtual and one["port"] in needs.ports:
            yield Finding(
                "port",
                f"{at}:{one['port']} ({one['protocol']}), where {needs.ports[one['port']]} is to be served, is in use by {one['program']}",
                "stop that program, or let it listen on another address or port",
            )
        elif one["address"] != needs.virtual and one["address"] in needs.taken:
            owner = needs.taken[one["address"]]
            if not any(bridge.address == one["address"] for bridge in needs.bridges):
                yield Finding(
                    "port",
                    f"{one['program']} listens on {one['address']}:{one['port']} ({one['protocol']}), and the address is {owner}",
                    "stop that program, or let it listen on another address or port",
                )
