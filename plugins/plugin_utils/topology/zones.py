# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The zones of a deployment: name, number, addresses, UUID and MAC address of each."""

from __future__ import annotations

import typing as t

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Declared
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology import nouns
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import (
    SLOT_SIZE,
    Space,
    dotted,
    zone_mac,
    zone_uuid,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.nouns import Zone
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.placement import Placed
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import Topology


def zones_group(host: str) -> str:
    """The group of a host's zones."""
    return f"{host.replace('-', '_')}_zones"


def zones_of(
    one: Placed, spaces: list[Space], provider: t.Iterable[str], ids: dict[str, int], namespace: bytes
) -> list[Zone]:
    """The zones of a component. Their number counts those of a host; ordinals are in the order in which they were dealt."""
    label = one.component.name.replace("_", "-")
    offset = one.component.slot * SLOT_SIZE - 1
    numbers: dict[str, int] = {}
    first, *further = spaces
    zones = []
    for ordinal, host in enumerate(one.hosts):
        numbers[host] = number = numbers.get(host, 0) + 1
        name = f"{host}-{label}-{number}"
        raw, text = zone_uuid(namespace, name)
        networks = None
        if further:
            networks = {
                space.name: nouns.Attachment(space.address(ids[host], offset + number), zone_mac(raw, space.name))
                for space in further
            }
        macs = {network: zone_mac(raw, network) for network in provider}
        address = dotted(first.first + ids[host] * first.block + offset + number)
        zones.append(Zone(name, text, host, number, ordinal, address, zone_mac(raw, "zone"), networks, macs or None))
    return zones


def attached(component: Declared, provider: t.Mapping[str, nouns.ProviderNetwork]) -> list[str]:
    """The provider networks that a component's zones are in: all, or, of the load balancer, the one with the second virtual address."""
    balancer = component.merged.function == "load_balancer"
    return [name for name, network in provider.items() if component.merged.provider or (balancer and network.vip)]


def availability_zones(
    topology: Topology, zones: t.Mapping[str, list[Zone]], services: t.Mapping[str, t.Mapping[str, t.Any]], place: Place
) -> dict[str, nouns.AvailabilityZone]:
    """``stack.cloud.availability_zones``: each hypervisor's, by the hypervisor's name; ``provider`` is what Placement calls it."""
    domains = {name: host.zone for name, host in topology.hosts.items() if host.zone is not None}
    wanted = topology.cloud.availability_zones
    if wanted and not domains:
        right = "no host names its failure domain: give each its zone"
        raise place.at("cloud").at("availability_zones").refuse(wanted, right)
    if wanted is False or (wanted is None and len({*domains.values()}) < 2):
        return {}
    return {
        zone.name: nouns.AvailabilityZone(domains[zone.host], zone.uuid)
        for component, every in zones.items()
        if services[component]["phase"] == "compute"
        for zone in every
    }
