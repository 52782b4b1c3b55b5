# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of a deployment: the noun ``host`` of each, with its bridges, builders and images."""

from __future__ import annotations

import typing as t

from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology import nouns
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import (
    HOST_OFFSET,
    SLOT_SIZE,
    Space,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.nouns import Zone
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import STORES, Host, Topology


def repo_zones(
    topology: Topology, services: t.Mapping[str, t.Mapping[str, t.Any]], zones: t.Mapping[str, list[Zone]]
) -> list[Zone]:
    """The zones that images of LXC zones are fetched from. The host of the first one builds them.

    :param services: the nouns of the deployed components; those with the function ``images`` are asked for.
    """
    holders = [
        zone for name, service in services.items() if service.get("function") == "images" for zone in zones[name]
    ]
    return [zone for zone in holders if topology.hosts[zone.host].backend == "lxc"]


def images_by_host(
    zones: t.Mapping[str, list[Zone]], used: t.Mapping[str, str], images: t.Mapping[str, nouns.StackImage]
) -> dict[str, list[str]]:
    """Ids of the images that each host's zones are clones of, and of those below them."""
    found: dict[str, dict[str, None]] = {}
    for component, every in zones.items():
        chain: list[str] = []
        image: str | None = used[component]
        while image is not None:
            chain.append(image)
            image = images[image].parent
        for host in dict.fromkeys(zone.host for zone in every):
            found.setdefault(host, {}).update(dict.fromkeys(chain))
    return {host: list(mine) for host, mine in found.items()}


def hosts_of(
    hosts: t.Mapping[str, Host],
    spaces: t.Mapping[str, Space],
    networks: t.Mapping[str, nouns.Network],
    provider: t.Mapping[str, nouns.ProviderNetwork],
    links: t.Mapping[str, list[nouns.HostLink]],
    repos: t.Sequence[Zone],
    images: t.Mapping[str, list[str]],
) -> dict[str, nouns.Host]:
    """The noun of each machine.

    A SmartOS host has ``images``, those that its zones need: what hypervisors are made of it could not even build. So has one that
    fetches its images, and every host where no zone holds images for others.

    :param links: those of each host that has any.
    :param repos: see :func:`repo_zones`.
    :param images: see :func:`images_by_host`.
    """
    found = {}
    for name, host in hosts.items():
        fetches = bool(repos) and host.backend == "lxc"
        origins = _origins(name, host, repos) if fetches else None
        own = not repos or host.backend == "smartos" or origins
        found[name] = nouns.Host(
            name=name,
            id=host.id,
            backend=host.backend,
            store=host.store or STORES[host.backend][0],
            addresses={network: space.address(host.id, HOST_OFFSET) for network, space in spaces.items()},
            bridges=_bridges(name, host, spaces, networks, provider),
            builders=_builders(host, spaces["zone"]),
            links=links.get(name),
            archive_zone=next((zone.name for zone in repos if zone.host == name), None) if fetches else None,
            origins=origins,
            images=images.get(name, []) if own else None,
        )
    return found


def machine(host: nouns.Host, address: str | None) -> nouns.Machine:
    """A host as the others see it; ``address`` is where SSH reaches it."""
    own = host.addresses["zone"]
    return nouns.Machine(host.id, host.backend, host.store, address or own, own, host.addresses)


def _builders(host: Host, zone: Space) -> list[str]:
    """The addresses of image builders: the last slot, but for its last address, which may be the network's broadcast address."""
    return [zone.address(host.id, zone.block - SLOT_SIZE + index) for index in range(SLOT_SIZE - 1)]


def _bridges(
    name: str,
    host: Host,
    spaces: t.Mapping[str, Space],
    networks: t.Mapping[str, nouns.Network],
    provider: t.Mapping[str, nouns.ProviderNetwork],
) -> list[nouns.Bridge]:
    """What ``zonestack-network`` makes on a host; on a SmartOS host NICs of the global zone on NIC tags. Instances are not on those, so
    provider networks are not there."""
    tagged = host.backend == "smartos"
    found = [
        nouns.Bridge(
            bridge=facts.nic_tag if tagged else facts.bridge,
            address=f"{spaces[network].address(host.id, HOST_OFFSET)}/{facts.prefix}",
            mtu=facts.mtu,
            nat=facts.cidr if network == "zone" else None,
            interface=facts.interface,
            provider=False,
        )
        for network, facts in networks.items()
    ]
    for outer in () if tagged else provider.values():
        gateway = outer.gateway_host == name
        found.append(
            nouns.Bridge(
                bridge=outer.bridge,
                address=f"{outer.gateway}/{outer.prefix}" if gateway else None,
                mtu=outer.mtu,
                nat=outer.cidr if gateway else None,
                interface=outer.interface,
                provider=True,
            )
        )
    return found


def _origins(name: str, host: Host, repos: t.Sequence[Zone]) -> list[str]:
    """Where a host fetches images from; the host that builds them has none. Hosts begin with different ones, so that each serves its
    share."""
    others = [zone for zone in repos if zone.host != name] if name != repos[0].host else []
    first = host.id % len(others) if others else 0
    return [f"https://{zone.address}/images" for zone in (*others[first:], *others[:first])]
