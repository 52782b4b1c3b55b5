# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one key of ``topology.yml`` cannot know of the others: ids, slots, names and ports that must not meet."""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import replace

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import FUNCTIONS
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import (
    HOST_OFFSET,
    SLOT_SIZE,
    Space,
    dotted,
    is_ipv4,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.nouns import Zone
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.zones import zones_group
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.placement import Placed
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import STORES, Host, Topology


def check_hosts(topology: Topology, spaces: dict[str, Space], place: Place) -> None:
    """What one host cannot know of the others."""
    ids: dict[int, str] = {}
    local = None
    named = next((name for name, host in topology.hosts.items() if host.zone is not None), None)
    for name, host in topology.hosts.items():
        here = place.at("hosts").at(name)
        if host.id in ids:
            free = next(
                number
                for number in range(1, len(topology.hosts) + 2)
                if number not in {one.id for one in topology.hosts.values()}
            )
            raise here.at("id").refuse(host.id, f"host {ids[host.id]!r} has this id: {free} is free")
        ids[host.id] = name
        if host.connection == "local":
            if local is not None:
                raise here.at("connection").refuse(
                    "local", f"host {local!r} is already the machine that Ansible runs on: set an address"
                )
            local = name
        elif host.address is None:
            raise here.at("address").missing("set the address that SSH reaches, or connection: local")
        if named is not None and host.zone is None:
            right = f"host {named!r} names its failure domain ({topology.hosts[named].zone}): name this one's too, or take away all"
            raise here.at("zone").missing(right)
        if host.store is not None and host.store not in STORES[host.backend]:
            raise here.at("store").refuse(host.store, f"a store of backend {host.backend}", STORES[host.backend])
        if host.address is not None and is_ipv4(host.address):
            number = int(ipaddress.IPv4Address(host.address))
            for network, space in spaces.items():
                size = ipaddress.IPv4Network(topology.networks[network].cidr).num_addresses
                own = space.first + host.id * space.block + HOST_OFFSET
                if 0 <= number - space.first < size and number != own:
                    raise here.at("address").refuse(
                        host.address,
                        f"lies in network {network!r}, whose addresses are computed: use one outside of it, or {dotted(own)}",
                    )


def without(topology: Topology, leaving: t.Mapping[str, Host], place: Place) -> Topology:
    """The topology as it is when the hosts that are to go have gone: nothing that follows knows of them."""
    if not leaving:
        return topology
    hosts = {name: host for name, host in topology.hosts.items() if name not in leaving}
    if not hosts:
        name = next(iter(leaving))
        raise (
            place.at("hosts")
            .at(name)
            .at("leaving")
            .refuse(True, "no host would be left: scripts/destroy.sh --all removes a whole deployment")
        )
    for network, one in topology.cloud.networks.items():
        if one.gateway_host in leaving:
            right = "this host is leaving, and with it the way to the network: name another host"
            raise place.at("cloud").at("networks").at(network).at("gateway_host").refuse(one.gateway_host, right, hosts)
    return replace(topology, hosts=hosts)


def check_slots(placed: list[Placed], topology: Topology, place: Place) -> None:
    """Every component's slot must lie inside the block of each network it is on."""
    for one in placed:
        component = one.component
        for index, network in enumerate(("zone", *component.merged.networks)):
            if network not in topology.networks:
                here = component.place.at("networks").at(index - 1)
                raise here.refuse(
                    network, f"{place.file} has no such network: add it under networks", topology.networks
                )
            block = topology.networks[network].block
            last = block // SLOT_SIZE - 2
            if component.slot > last:
                need = 1 << ((component.slot + 2) * SLOT_SIZE - 1).bit_length()
                right = f"block too small: slot {component.slot} of {component.name!r} is behind its last slot {last}, take {need}"
                raise place.at("networks").at(network).at("block").refuse(block, right)


def check_groups(placed: list[Placed], groups: dict[str, list[str]], topology: Topology, place: Place) -> None:
    """One name, one meaning: Ansible would silently merge two groups of the same name."""
    owners = dict.fromkeys(
        (
            *("all", "ungrouped", "localhost", "zone_hosts", "lxc_hosts", "smartos_hosts", "leaving_hosts"),
            *("linked_hosts", "image_fetchers", "image_servers"),
            *(f"function_{function}" for function in FUNCTIONS),
            *(
                "zones",
                "zones_first",
                "zones_stale",
                "zones_with_steps",
                "hook_prepare",
                "openstack_services",
                "hypervisors",
            ),
        ),
        "Ansible or this plugin",
    )
    for host in topology.hosts:
        owners[zones_group(host)] = f"the zones of host {host!r}"
    for one in placed:
        for name in (one.component.service, one.component.name):
            if name in owners and owners[name] != f"service {one.component.service!r}":
                raise one.component.place.refuse(name, f"the name belongs to {owners[name]}: choose another")
            owners[name] = f"service {one.component.service!r}"
    for group, members in groups.items():
        if group in owners:
            index = topology.hosts[members[0]].groups.index(group)
            here = place.at("hosts").at(members[0]).at("groups").at(index)
            raise here.refuse(group, f"the name belongs to {owners[group]}: choose another")
        owners[group] = "a group of hosts"
    for host in topology.hosts:
        if host in owners:
            raise place.at("hosts").at(host).refuse(host, f"the name belongs to {owners[host]}: choose another")


def check_names(zones: dict[str, list[Zone]], topology: Topology, place: Place) -> None:
    """Zone names must be DNS labels and unique: host ``a`` with ``b_c`` and host ``a-b`` with ``c`` would meet."""
    longest = max((zone.name for every in zones.values() for zone in every), key=len)
    if len(longest) > 63:
        host = next(zone.host for every in zones.values() for zone in every if zone.name == longest)
        raise (
            place.at("hosts")
            .at(host)
            .refuse(host, f"zone name {longest!r} would be longer than 63 characters: use a shorter host name")
        )
    seen: dict[str, str] = dict.fromkeys(topology.hosts, "a host")
    for component, every in zones.items():
        for zone in every:
            if zone.name in seen:
                right = f"zone {zone.name!r} of {component!r} would bear the name of {seen[zone.name]}: choose another host name"
                raise place.at("hosts").at(zone.host).refuse(zone.host, right)
            seen[zone.name] = f"a zone of {component!r}"
