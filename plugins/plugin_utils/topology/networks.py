# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of a deployment: bridges, NIC tags, virtual addresses and provider networks, with what is refused about them."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import replace

from ansible_collections.zonestack.openstack.plugins.plugin_utils.links import Claim, host_links
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology import nouns
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import (
    HOST_OFFSET,
    VIP_OFFSET,
    Space,
    is_ipv4,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import (
    ADDRESS,
    Network,
    ProviderNetwork,
    Topology,
    groups_of,
)


def check_networks(topology: Topology, deployment: str, place: Place) -> dict[str, Space]:
    """The networks as arithmetic, once none is too small or in another's way."""
    here = place.at("networks")
    if "zone" not in topology.networks:
        raise here.missing("network 'zone' is missing: every zone has an address on it", topology.networks)
    spaces: dict[str, Space] = {}
    taken: dict[str, ipaddress.IPv4Network] = {}
    bridges: dict[str, str] = {}
    last = max(topology.hosts.items(), key=lambda item: item[1].id)
    for name, network in topology.networks.items():
        cidr = ipaddress.IPv4Network(network.cidr)
        for other, known in taken.items():
            if cidr.overlaps(known):
                raise (
                    here.at(name)
                    .at("cidr")
                    .refuse(network.cidr, f"overlaps network {other!r} ({known}): choose another range")
                )
        need = (last[1].id + 1) * network.block
        if need > cidr.num_addresses:
            prefix = 32 - (need - 1).bit_length()
            block = f"block {last[1].id} of {network.block} addresses"
            right = f"too small: {block} (host {last[0]!r}) ends behind it, take a /{prefix} or smaller blocks"
            if prefix < 0:
                right = f"too small: no IPv4 network holds {block}: give hosts smaller ids"
            raise here.at(name).at("cidr").refuse(network.cidr, right)
        bridge = bridge_name(topology, deployment, name)
        _check_bridge(bridge, bridges, here.at(name))
        bridges[bridge], taken[name] = name, cidr
        spaces[name] = Space(name, int(cidr.network_address), network.block)
    return spaces


def check_interfaces(topology: Topology, place: Place) -> None:
    """Zones of several hosts must reach each other, and an interface is a port of one bridge only."""
    ports: dict[str, str] = {}
    inner, outer = place.at("networks"), place.at("cloud").at("networks")
    several = len(topology.hosts) > 1 and any(host.backend == "lxc" for host in topology.hosts.values())
    for here, networks in ((inner, topology.networks), (outer, topology.cloud.networks)):
        for name, network in networks.items():
            if here is inner and several and not network.interface and not network.bridge:
                right = "its zones are on several hosts: name the interface of each host that leads to the others, or a bridge that is there already"
                raise here.at(name).at("interface").missing(right)
            if not network.interface:
                continue
            if network.interface in ports:
                right = f"network {ports[network.interface]!r} has it already, and an interface is a port of one bridge: take another, such as a VLAN's"
                raise here.at(name).at("interface").refuse(network.interface, right)
            ports[network.interface] = name


def links_by_host(
    topology: Topology, deployment: str, provider: t.Mapping[str, nouns.ProviderNetwork], place: Place
) -> dict[str, list[nouns.HostLink]]:
    """The links of each host that has any; what networks of the deployment make of them is told."""
    bridges = {bridge_name(topology, deployment, name): name for name in topology.networks}
    bridges |= {facts.bridge: name for name, facts in provider.items()}
    both: dict[str, Network | ProviderNetwork] = {**topology.networks, **topology.cloud.networks}
    ports = {one.interface: Claim(f"network {name!r}", one.mtu) for name, one in both.items() if one.interface}
    return host_links(topology.links, topology.hosts, groups_of(topology), ports, bridges, place)


def provider_networks(topology: Topology, deployment: str, place: Place) -> dict[str, nouns.ProviderNetwork]:
    """``stack.cloud.networks``: each provider network with its defaults, once none is in another's way."""
    here = place.at("cloud").at("networks")
    taken = {f"network {name!r}": ipaddress.IPv4Network(one.cidr) for name, one in topology.networks.items()}
    bridges = {bridge_name(topology, deployment, name): name for name in topology.networks}
    found: dict[str, nouns.ProviderNetwork] = {}
    for name, network in topology.cloud.networks.items():
        at, cidr = here.at(name), ipaddress.IPv4Network(network.cidr)
        _check_range(network, cidr, taken, at)
        gateway = _gateway(network, cidr, topology, at)
        for index, server in enumerate(network.dns):
            if not is_ipv4(server):
                raise at.at("dns").at(index).refuse(server, ADDRESS.right)
        bridge = network.bridge or f"zs-{deployment}-{name}"
        _check_bridge(bridge, bridges, at)
        taken[f"provider network {name!r}"], bridges[bridge] = cidr, name
        found[name] = nouns.ProviderNetwork(
            cidr=network.cidr,
            prefix=cidr.prefixlen,
            gateway=str(gateway),
            gateway_host=network.gateway_host,
            pool=_pool(network, cidr, gateway, at),
            bridge=bridge,
            interface=network.interface,
            mtu=network.mtu,
            dns=network.dns,
            external=network.external,
            shared=network.shared,
            vip=None,
        )
    return found


def _check_range(
    network: ProviderNetwork, cidr: ipaddress.IPv4Network, taken: t.Mapping[str, ipaddress.IPv4Network], place: Place
) -> None:
    """A provider network lies in no other network's way, and is large enough."""
    for other, known in taken.items():
        if cidr.overlaps(known):
            raise place.at("cidr").refuse(network.cidr, f"overlaps {other} ({known}): choose another range")
    if cidr.num_addresses < 8:
        raise place.at("cidr").refuse(network.cidr, "too small for a gateway and instances: use a /29 or larger")


def _gateway(
    network: ProviderNetwork, cidr: ipaddress.IPv4Network, topology: Topology, place: Place
) -> ipaddress.IPv4Address:
    """The router of a provider network, once it is of that network and its host can be one."""
    gateway = ipaddress.IPv4Address(network.gateway) if network.gateway else cidr[1]
    if gateway not in cidr or gateway in (cidr[0], cidr[-1]):
        raise place.at("gateway").refuse(network.gateway, f"use an address of {cidr}, {cidr[1]} to {cidr[-2]}")
    host = network.gateway_host
    if host is not None and host not in topology.hosts:
        raise place.at("gateway_host").refuse(host, "name a host", topology.hosts)
    if host is not None and topology.hosts[host].backend == "smartos":
        right = "a SmartOS host has no bridge that instances are on: name a host with backend lxc"
        others = [name for name, one in topology.hosts.items() if one.backend == "lxc"]
        raise place.at("gateway_host").refuse(host, right, others)
    return gateway


def _check_bridge(bridge: str, bridges: t.Mapping[str, str], place: Place) -> None:
    """A bridge has a name that Linux takes, and one network; ``bridges`` has the network of each that is taken."""
    if len(bridge) > 15:
        right = "give a bridge name of at most 15 characters (this is the default)"
        raise place.at("bridge").refuse(bridge, right)
    if bridge in bridges:
        raise place.at("bridge").refuse(bridge, f"network {bridges[bridge]!r} uses this bridge: choose another")


def _pool(
    network: ProviderNetwork, cidr: ipaddress.IPv4Network, gateway: ipaddress.IPv4Address, place: Place
) -> list[str]:
    """First and last address that the cloud gives away; by default the upper half, so that the site keeps the lower."""
    here = place.at("pool")
    if network.pool is None:
        first, last = cidr[cidr.num_addresses // 2], cidr[-2]
        if gateway == last:
            last -= 1
        return [str(first), str(last)]
    if len(network.pool) != 2 or not all(map(is_ipv4, network.pool)):
        raise here.refuse(list(network.pool), "write two IPv4 addresses, the first and the last")
    first, last = map(ipaddress.IPv4Address, network.pool)
    if not (first in cidr and last in cidr and first <= last) or cidr[0] == first or cidr[-1] == last:
        raise here.refuse(list(network.pool), f"use addresses of {cidr}, {cidr[1]} to {cidr[-2]}, the lower one first")
    if first <= gateway <= last:
        raise here.refuse(list(network.pool), f"choose a pool without the gateway, {gateway}")
    return list(network.pool)


def bridge_name(topology: Topology, deployment: str, network: str) -> str:
    """The bridge of a network on every host."""
    default = f"zs-{deployment}" if network == "zone" else f"zs-{deployment}-{network}"
    return topology.networks[network].bridge or default


def nic_tag(topology: Topology, deployment: str, network: str) -> str:
    """The NIC tag of a network on SmartOS hosts. The name of an etherstub ends in a digit, nictagadm(8)."""
    given = topology.networks[network].bridge
    return given or bridge_name(topology, deployment, network).replace("-", "_") + "0"


def check_nic_tags(topology: Topology, place: Place) -> None:
    """On SmartOS hosts a network is a NIC tag: an etherstub of ours, which does not leave its host, or one that is there."""
    host = next((name for name, one in topology.hosts.items() if one.backend == "smartos"), None)
    if host is None:
        return
    for name, network in topology.networks.items():
        here = place.at("networks").at(name).at("bridge")
        if network.bridge is None and len(topology.hosts) > 1:
            right = f"SmartOS host {host!r} is not alone: name the NIC tag of its way to the others (nictagadm list), on hosts with LXC the bridge"
            raise here.missing(right)
        if network.bridge is not None and not re.fullmatch(r"\w+", network.bridge, re.ASCII):
            raise here.refuse(network.bridge, f"on SmartOS host {host!r} it is a NIC tag: write letters, digits and _")


def internal_address(topology: Topology, zone: Space, place: Place) -> str:
    """The internal virtual address, which must be of block 0: every other address belongs to a host."""
    internal = topology.endpoints.internal
    if internal is None:
        return zone.address(0, VIP_OFFSET)
    offset = int(ipaddress.IPv4Address(internal)) - zone.first
    if not HOST_OFFSET <= offset < zone.block:
        low, high = zone.address(0, HOST_OFFSET), zone.address(0, zone.block - 1)
        right = f"use an address of block 0 of network zone, {low} to {high}"
        raise place.at("endpoints").at("internal").refuse(internal, right)
    return internal


def with_external_address(
    topology: Topology, internal: str, provider: dict[str, nouns.ProviderNetwork], place: Place
) -> dict[str, nouns.ProviderNetwork]:
    """The provider networks with the second virtual address as ``vip`` of its own, once nobody else has it, and users are not sent astray."""
    here, external = place.at("endpoints"), topology.endpoints.external
    if external is not None and external != internal and is_ipv4(external):
        for name, network in topology.networks.items():
            if ipaddress.IPv4Address(external) in ipaddress.IPv4Network(network.cidr):
                right = f"lies in network {name!r}, where only {internal} is the load balancer's: leave it out, or give another"
                raise here.at("external").refuse(external, right)
    wanted = topology.endpoints.external_address
    if wanted is None:
        return provider
    at, address = here.at("external_address"), ipaddress.IPv4Address(wanted)
    own = next((name for name, one in provider.items() if address in ipaddress.IPv4Network(one.cidr)), None)
    if own is None:
        right = "use an address of a provider network (cloud.networks)"
        raise at.refuse(wanted, right, [one.cidr for one in provider.values()])
    why = _taken_by(wanted, provider[own], topology)
    if why is not None:
        raise at.refuse(wanted, f"{why}: use another address of {provider[own].cidr}")
    return {**provider, own: replace(provider[own], vip=wanted)}


def _taken_by(wanted: str, network: nouns.ProviderNetwork, topology: Topology) -> str | None:
    """What an address of a provider network is already, in words; nothing where it is free."""
    cidr, (first, last) = ipaddress.IPv4Network(network.cidr), map(ipaddress.IPv4Address, network.pool)
    if first <= ipaddress.IPv4Address(wanted) <= last:
        return f"is of the pool {first} to {last}, which the cloud gives away"
    taken = {host.address: f"is the address of host {name!r}" for name, host in topology.hosts.items()}
    taken |= dict.fromkeys(network.dns, "is the address of a name server")
    taken |= {
        network.gateway: "is the gateway",
        str(cidr[0]): "is the network itself",
        str(cidr[-1]): "is the broadcast address",
    }
    return taken.get(wanted)


def networks_of(topology: Topology, deployment: str) -> dict[str, nouns.Network]:
    """``stack.networks``: each network with its defaults."""
    found = {}
    for name, network in topology.networks.items():
        cidr = ipaddress.IPv4Network(network.cidr)
        found[name] = nouns.Network(
            cidr=network.cidr,
            prefix=cidr.prefixlen,
            netmask=str(cidr.netmask),
            bridge=bridge_name(topology, deployment, name),
            interface=network.interface,
            nic_tag=nic_tag(topology, deployment, name),
            mtu=network.mtu,
            block=network.block,
        )
    return found
