# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From ``topology.yml`` and the services' declarations to every host, zone, name and address: a pure function. Nothing is allocated, so
nothing is remembered."""

from __future__ import annotations

import typing as t

from ansible_collections.zonestack.openstack.plugins.plugin_utils.cloud import flavor_facts, image_facts, quota_facts
from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import Lock
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Catalogue
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import deployment_namespace
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.checks import (
    check_front_ends,
    check_groups,
    check_hosts,
    check_names,
    check_slots,
    without,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.networks import (
    check_interfaces,
    check_networks,
    check_nic_tags,
    give_external_address,
    internal_address,
    links_by_host,
    network_facts,
    provider_networks,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.nouns import (
    Cloud,
    attached,
    availability_zones,
    endpoints,
    host_noun,
    images_by_host,
    images_of,
    repo_zones,
    service_facts,
    share_of_repos,
    zones_of,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.placement import place_all
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.regions import Sibling, share, with_own_users
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import (
    Topology,
    groups_of,
    name_of,
    way_in,
)


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
    identity = share(topology, folder, deployment, siblings or {}, place)
    if identity["from"]:
        known = with_own_users(known, deployment)
    spaces = check_networks(topology, deployment, place)
    check_hosts(topology, spaces, place)
    leaving = {name: host for name, host in topology.hosts.items() if host.leaving}
    topology = without(topology, leaving, place)
    check_nic_tags(topology, place)
    provider = provider_networks(topology, deployment, place)
    check_interfaces(topology, place)
    links = links_by_host(topology, deployment, provider, place)
    internal = internal_address(topology, spaces["zone"], place)
    give_external_address(topology, internal, provider, place)
    groups = groups_of(topology)
    placed = place_all(topology, known, groups, leaving, place)
    check_slots(placed, topology, place)
    check_groups(placed, groups, topology, place)
    check_front_ends(placed)
    images, used = images_of(placed, known, lock, certificates or {}, base or Place("services/_base.yml"))

    ids = {name: host.id for name, host in topology.hosts.items()}
    namespace = deployment_namespace(deployment)
    zones = {
        one.component.name: zones_of(
            one,
            [spaces[name] for name in ("zone", *one.component.merged.networks)],
            attached(one.component, provider),
            ids,
            namespace,
        )
        for one in placed
    }
    check_names(zones, topology, place)

    services = {}
    for one in placed:
        variable = one.component.variable()
        variable["zone"] = {**variable["zone"], **one.size}
        variable["image"] = {**variable["image"], "id": used[one.component.name]}
        services[one.component.name] = variable
    facts = {name: network_facts(topology, deployment, name) for name in topology.networks}
    hosts = {name: host_noun(name, host, spaces, facts, provider) for name, host in topology.hosts.items()}
    repos, needed = repo_zones(topology, zones), images_by_host(zones, used, images)
    for name, host in hosts.items():
        if name in links:
            host["links"] = links[name]
        if repos and host["backend"] == "lxc":
            host.update(share_of_repos(host, repos))
        if not repos or host["backend"] == "smartos" or host.get("origins"):
            host["images"] = needed.get(name, [])  # those of its zones; who has the first repo builds for all
    vip = {
        "internal": internal,
        "external": way_in(topology, internal),
        "external_address": topology.endpoints.external_address or internal,
    }
    endpoint = endpoints(placed, vip)
    if identity["url"]:  # another deployment's, reached as its users reach it
        endpoint["keystone"] = dict.fromkeys(("public", "internal", "admin"), identity["url"])
    stack = {
        "deployment": deployment,
        "region": topology.region,
        "release": topology.release,
        "networks": facts,
        "cloud": {
            "networks": provider,
            "images": image_facts(topology.cloud.images, place.at("cloud").at("images")),
            "flavors": flavor_facts(topology.cloud.flavors, place.at("cloud").at("flavors")),
            "quotas": quota_facts(topology.cloud.quotas, place.at("cloud").at("quotas")),
            "availability_zones": availability_zones(topology, zones, services, place),
        },
        "vip": vip,
        "endpoint": endpoint,
        "identity": identity,
        "hosts": {
            name: {
                "id": host.id,
                "backend": host.backend,
                "store": hosts[name]["store"],
                "address": host.address or hosts[name]["addresses"]["zone"],
                "bridge_address": hosts[name]["addresses"]["zone"],
                "addresses": hosts[name]["addresses"],
            }
            for name, host in topology.hosts.items()
        },
        "members": {
            name: [{"name": zone.name, "address": zone.address, "host": zone.host} for zone in every]
            for name, every in zones.items()
        },
        "services": {name: service_facts(name, placed, known) for name in topology.services},
        "images": images,
    }
    parents = {
        name: [one.name for one in known.of(name)] for name in topology.services if known.services[name].components
    }
    declared = frozenset((*known.services, *known.components))
    gone = {name: (host, host_noun(name, host, spaces, facts, provider)) for name, host in leaving.items()}
    return Cloud(topology, hosts, zones, services, parents, groups, stack, declared, gone)
