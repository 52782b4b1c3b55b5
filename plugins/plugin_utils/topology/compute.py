# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From ``topology.yml`` and the services' declarations to every host, zone, name and address: a pure function. Nothing is allocated, so
nothing is remembered."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.plugin_utils.cloud import flavor_facts, image_facts, quota_facts
from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import Lock
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, encode
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Catalogue
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology import checks, networks, nouns
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import Space, deployment_namespace
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.catalog import (
    endpoints,
    front_ends_of,
    images_of,
    service_noun,
    services_of,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.hosts import (
    hosts_of,
    images_by_host,
    machine,
    repo_zones,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.placement import (
    Placed,
    place_all,
    with_users,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.regions import Sibling, share, with_own_users
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import (
    Host,
    Topology,
    groups_of,
    name_of,
    way_in,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.zones import (
    attached,
    availability_zones,
    zones_of,
)


@dataclass(frozen=True)
class Cloud:
    """All that the inventory says.

    :param hosts: the noun ``host`` of each machine, by name.
    :param zones: every zone, by component; in the order of their ordinals.
    :param services: the noun ``service`` of each component.
    :param parents: service to components, where their names differ.
    :param groups: groups of hosts.
    :param stack: the noun ``stack``.
    :param declared: names of every known service and component, deployed or not: their groups may have variables.
    :param leaving: hosts that are to go, by name: how they are reached, and their noun ``host``. They are in nothing else.
    """

    topology: Topology
    hosts: dict[str, dict[str, t.Any]]
    zones: dict[str, list[nouns.Zone]]
    services: dict[str, dict[str, t.Any]]
    parents: dict[str, list[str]]
    groups: dict[str, list[str]]
    stack: dict[str, t.Any]
    declared: frozenset[str]
    leaving: dict[str, tuple[Host, dict[str, t.Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ground:
    """What there is to place zones on.

    :param topology: without the hosts that are leaving; ``leaving`` has those.
    :param spaces: the networks as arithmetic.
    :param links: those of each host that has any.
    :param internal: the virtual address on network ``zone``.
    """

    deployment: str
    topology: Topology
    leaving: dict[str, Host]
    spaces: dict[str, Space]
    networks: dict[str, nouns.Network]
    provider: dict[str, nouns.ProviderNetwork]
    links: dict[str, list[nouns.HostLink]]
    internal: str


def compute(
    topology: Topology,
    known: Catalogue,
    lock: Lock,
    *,
    deployment: str,
    place: Place,
    base: Place | None = None,
    certificates: t.Mapping[str, str] | None = None,
    siblings: t.Mapping[str, Sibling] | None = None,
) -> Cloud:
    """Everything that the inventory says.

    :param topology: what the user wrote.
    :param known: every known service.
    :param lock: the release's lock.
    :param deployment: the name to use when the topology gives none.
    :param place: the topology's file, for messages; ``base`` likewise for ``_base.yml``.
    :param certificates: further CA certificates for every zone, file name to PEM text.
    :param siblings: the deployments that a Keystone is shared with, see :func:`regions.share`.
    :raises Refused: when anything does not fit; nothing has been changed anywhere then.
    """
    folder, deployment = deployment, name_of(topology, deployment, place)
    identity = share(topology, known, folder, deployment, siblings or {}, place)
    if identity.from_:
        known = with_own_users(known, deployment)
    ground = _survey(topology, deployment, place)
    topology, groups = ground.topology, groups_of(ground.topology)
    placed = _place(ground, known, groups, place)
    fronts = front_ends_of(placed)
    images, used = images_of(placed, known, lock, certificates or {}, base or Place("services/_base.yml"))
    zones = _zones(placed, ground)
    checks.check_names(zones, topology, place)
    services = {one.component.name: service_noun(one, used[one.component.name]) for one in placed}
    hosts = _hosts(topology.hosts, ground, repo_zones(topology, services, zones), images_by_host(zones, used, images))
    contents = _contents(ground, availability_zones(topology, zones, services, place), place.at("cloud"))
    gone = _hosts(ground.leaving, ground, [], {})
    return Cloud(
        topology=topology,
        hosts=encode(hosts),
        zones=zones,
        services=services,
        parents={
            name: [one.name for one in known.of(name)] for name in topology.services if known.services[name].components
        },
        groups=groups,
        stack=encode(_stack(ground, known, placed, identity, hosts, zones, fronts, contents, images)),
        declared=frozenset((*known.services, *known.components)),
        leaving={name: (host, encode(gone[name])) for name, host in ground.leaving.items()},
    )


def _place(ground: _Ground, known: Catalogue, groups: dict[str, list[str]], place: Place) -> list[Placed]:
    """The components with the hosts of their zones, once these have room for them."""
    placed = place_all(ground.topology, known, groups, ground.leaving, place)
    checks.check_slots(placed, ground.topology, place)
    checks.check_groups(placed, groups, ground.topology, place)
    return with_users(placed, known)


def _stack(
    ground: _Ground,
    known: Catalogue,
    placed: t.Sequence[Placed],
    identity: nouns.SharedIdentity,
    hosts: t.Mapping[str, nouns.Host],
    zones: t.Mapping[str, list[nouns.Zone]],
    fronts: dict[str, nouns.FrontEnd],
    contents: nouns.Contents,
    images: dict[str, nouns.StackImage],
) -> nouns.Stack:
    """What every zone may know of the others."""
    topology = ground.topology
    entry = nouns.Entry(
        internal=ground.internal,
        external=way_in(topology, ground.internal),
        external_address=topology.endpoints.external_address or ground.internal,
    )
    urls = endpoints(placed, entry)
    if identity.url:  # another deployment's, reached as its users reach it
        urls["keystone"] = nouns.Urls(identity.url, identity.url, identity.url)
    return nouns.Stack(
        deployment=ground.deployment,
        region=topology.region,
        release=topology.release,
        networks=ground.networks,
        cloud=contents,
        vip=entry,
        endpoint=urls,
        identity=identity,
        hosts={name: machine(host, topology.hosts[name].address) for name, host in hosts.items()},
        members={
            name: [nouns.Member(zone.name, zone.address, zone.host) for zone in every] for name, every in zones.items()
        },
        components={name: nouns.KnownComponent(**one.facts()) for name, one in known.components.items()},
        services=services_of(placed, known),
        front_ends=fronts,
        images=images,
    )


def _survey(topology: Topology, deployment: str, place: Place) -> _Ground:
    """The hosts and networks of a topology, once they fit together."""
    spaces = networks.check_networks(topology, deployment, place)
    checks.check_hosts(topology, spaces, place)
    leaving = {name: host for name, host in topology.hosts.items() if host.leaving}
    topology = checks.without(topology, leaving, place)
    networks.check_nic_tags(topology, place)
    provider = networks.provider_networks(topology, deployment, place)
    networks.check_interfaces(topology, place)
    links = networks.links_by_host(topology, deployment, provider, place)
    internal = networks.internal_address(topology, spaces["zone"], place)
    provider = networks.with_external_address(topology, internal, provider, place)
    inner = networks.networks_of(topology, deployment)
    return _Ground(deployment, topology, leaving, spaces, inner, provider, links, internal)


def _zones(placed: t.Sequence[Placed], ground: _Ground) -> dict[str, list[nouns.Zone]]:
    """Every zone, by component."""
    ids = {name: host.id for name, host in ground.topology.hosts.items()}
    namespace = deployment_namespace(ground.deployment)
    found = {}
    for one in placed:
        spaces = [ground.spaces[name] for name in ("zone", *one.component.merged.networks)]
        found[one.component.name] = zones_of(one, spaces, attached(one.component, ground.provider), ids, namespace)
    return found


def _hosts(
    hosts: t.Mapping[str, Host], ground: _Ground, repos: t.Sequence[nouns.Zone], images: t.Mapping[str, list[str]]
) -> dict[str, nouns.Host]:
    return hosts_of(hosts, ground.spaces, ground.networks, ground.provider, ground.links, repos, images)


def _contents(ground: _Ground, zones: dict[str, nouns.AvailabilityZone], place: Place) -> nouns.Contents:
    """What the cloud holds for its users."""
    cloud = ground.topology.cloud
    return nouns.Contents(
        networks=ground.provider,
        images=image_facts(cloud.images, place.at("images")),
        flavors=flavor_facts(cloud.flavors, place.at("flavors")),
        quotas=quota_facts(cloud.quotas, place.at("quotas")),
        availability_zones=zones,
    )
