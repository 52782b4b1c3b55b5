# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks, templates and service files read: the nouns ``zone``, ``host``, ``service`` and ``stack``."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import Lock, base_image, service_image
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, encode
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Catalogue, Declared
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import (
    HOST_OFFSET,
    SLOT_SIZE,
    Space,
    dotted,
    zone_mac,
    zone_uuid,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.placement import Placed
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import STORES, Host, Topology

#: The component that images are fetched from.
REPO = "repo"
#: Connection plugin and Python interpreter by backend. Modules run with the host's own Python, also where the control
#: machine is the host: Ansible's virtualenv lacks what the distribution gives (python3-apt and the like).
CONNECTIONS = {"lxc": "zonestack.openstack.lxc", "smartos": "zonestack.openstack.zlogin"}
INTERPRETERS = {"lxc": "/usr/bin/python3", "smartos": "/opt/tools/bin/python3"}


class Zone(t.NamedTuple):
    """One zone: the noun ``zone``. ``networks`` holds further networks only: name to address and MAC; ``provider`` the
    MAC in each provider network, where the zone has no address."""

    name: str
    uuid: str
    host: str
    number: int
    ordinal: int
    address: str
    mac: str
    networks: dict[str, dict[str, str]] | None = None
    provider: dict[str, str] | None = None

    def variable(self) -> dict[str, t.Any]:
        """The noun as Ansible gets it."""
        data = self._asdict()
        for key in ("networks", "provider"):
            if data[key] is None:
                del data[key]
        return data


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
    zones: dict[str, list[Zone]]
    services: dict[str, dict[str, t.Any]]
    parents: dict[str, list[str]]
    groups: dict[str, list[str]]
    stack: dict[str, t.Any]
    declared: frozenset[str]
    leaving: dict[str, tuple[Host, dict[str, t.Any]]] = field(default_factory=dict)


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
                space.name: {"address": space.address(ids[host], offset + number), "mac": zone_mac(raw, space.name)}
                for space in further
            }
        macs = {network: zone_mac(raw, network) for network in provider}
        address = dotted(first.first + ids[host] * first.block + offset + number)
        zones.append(Zone(name, text, host, number, ordinal, address, zone_mac(raw, "zone"), networks, macs or None))
    return zones


def attached(component: Declared, provider: t.Mapping[str, t.Any]) -> list[str]:
    """The provider networks that a component's zones are in: all, or, of the load balancer, the one with the second virtual address."""
    balancer = component.merged.function == "load_balancer"
    return [name for name, network in provider.items() if component.merged.provider or (balancer and network["vip"])]


def availability_zones(
    topology: Topology, zones: dict[str, list[Zone]], services: dict[str, dict[str, t.Any]], place: Place
) -> dict[str, dict[str, str]]:
    """``stack.cloud.availability_zones``: each hypervisor's, by the hypervisor's name; ``provider`` is what Placement calls it."""
    domains = {name: host.zone for name, host in topology.hosts.items() if host.zone is not None}
    wanted = topology.cloud.availability_zones
    if wanted and not domains:
        right = "no host names its failure domain: give each its zone"
        raise place.at("cloud").at("availability_zones").refuse(wanted, right)
    if wanted is False or (wanted is None and len({*domains.values()}) < 2):
        return {}
    return {
        zone.name: {"zone": domains[zone.host], "provider": zone.uuid}
        for component, every in zones.items()
        if services[component]["phase"] == "compute"
        for zone in every
    }


def host_noun(
    name: str,
    host: Host,
    spaces: dict[str, Space],
    networks: t.Mapping[str, t.Any],
    provider: t.Mapping[str, t.Any],
) -> dict[str, t.Any]:
    """The noun ``host``. ``builders`` are the addresses of image builders, the last slot (the network's broadcast
    address may be the last of all, so there are seven); ``bridges`` is what ``zonestack-network`` makes on it, on a SmartOS host
    NICs of the global zone on NIC tags. Instances are not on those, so provider networks are not there.

    A SmartOS host also has ``images``, those that its zones need: what hypervisors are made of it could not even build. So has one that
    fetches its images; see :func:`share_of_repos`."""
    zone, tagged = spaces["zone"], host.backend == "smartos"
    builders = [zone.address(host.id, zone.block - SLOT_SIZE + index) for index in range(SLOT_SIZE - 1)]
    bridges = [
        {
            "bridge": facts["nic_tag" if tagged else "bridge"],
            "address": f"{spaces[network].address(host.id, HOST_OFFSET)}/{facts['prefix']}",
            "mtu": facts["mtu"],
            "nat": facts["cidr"] if network == "zone" else None,
            "interface": facts["interface"],
            "provider": False,
        }
        for network, facts in networks.items()
    ]
    for facts in () if tagged else provider.values():
        gateway = facts["gateway_host"] == name
        bridges.append(
            {
                "bridge": facts["bridge"],
                "address": f"{facts['gateway']}/{facts['prefix']}" if gateway else None,
                "mtu": facts["mtu"],
                "nat": facts["cidr"] if gateway else None,
                "interface": facts["interface"],
                "provider": True,
            }
        )
    return {
        "name": name,
        "id": host.id,
        "backend": host.backend,
        "store": host.store or STORES[host.backend][0],
        "addresses": {network: space.address(host.id, HOST_OFFSET) for network, space in spaces.items()},
        "bridges": bridges,
        "builders": builders,
    }


def endpoints(placed: t.Sequence[Placed], vip: t.Mapping[str, str]) -> dict[str, dict[str, str]]:
    """URLs of every API by its service, a service's second API by its component. All are https: the load balancer's."""
    urls: dict[str, dict[str, str]] = {}
    for one in placed:
        api = one.component.merged.api
        if api is None:
            continue
        name = one.component.name if one.component.service in urls else one.component.service
        internal = f"https://{vip['internal']}:{api.port}{api.path}"
        public = f"https://{vip['external']}:{api.port}{api.path}" if api.public else internal
        urls[name] = {"public": public, "internal": internal, "admin": internal}
    return urls


def service_facts(name: str, placed: list[Placed], known: Catalogue) -> dict[str, t.Any]:
    """What every other service needs to know of one; ``api`` and ``listen`` also by component, which serves them."""
    service = known.services[name]
    mine = [one.component for one in placed if one.component.service == name]
    components = {
        one.name: {
            "api": encode(one.merged.api),
            "listen": encode(one.merged.listen),
            "ports": encode(one.merged.ports),
        }
        for one in mine
    }
    return {
        "description": service.description,
        "component": next((one for one, part in components.items() if part["api"]), next(iter(components))),
        "api": next((part["api"] for part in components.values() if part["api"]), None),
        "listen": {key: item for part in components.values() for key, item in part["listen"].items()},
        "database": list(service.database),
        "queue": service.queue,
        "identity": encode(service.identity),
        "secrets": dict(service.secrets),
        "components": components,
    }


def images_of(
    placed: list[Placed], known: Catalogue, lock: Lock, certificates: t.Mapping[str, str], base: Place
) -> tuple[dict[str, t.Any], dict[str, str]]:
    """The images that the deployment needs by id, and each component's image."""
    if "base" not in known.layers:
        raise base.missing("the file is missing: it declares the image below all others")
    parent, entry = base_image(known.layers["base"], base, certificates)
    images, used = {parent: entry}, {}
    for one in placed:
        made = service_image(one.component, parent, lock)
        if made is not None:
            images[made[0]] = made[1]
        used[one.component.name] = parent if made is None else made[0]
    return images, used


def images_by_host(
    zones: t.Mapping[str, list[Zone]], used: t.Mapping[str, str], images: t.Mapping[str, t.Any]
) -> dict[str, list[str]]:
    """Ids of the images that each host's zones are clones of, and of those below them."""
    found: dict[str, dict[str, None]] = {}
    for component, every in zones.items():
        chain: list[str] = []
        image: str | None = used[component]
        while image is not None:
            chain.append(image)
            image = images[image]["parent"]
        for host in dict.fromkeys(zone.host for zone in every):
            found.setdefault(host, {}).update(dict.fromkeys(chain))
    return {host: list(mine) for host, mine in found.items()}


def repo_zones(topology: Topology, zones: t.Mapping[str, list[Zone]]) -> list[Zone]:
    """The zones that images of LXC zones are fetched from. The host of the first one builds them."""
    return [zone for zone in zones.get(REPO, ()) if topology.hosts[zone.host].backend == "lxc"]


def share_of_repos(host: t.Mapping[str, t.Any], repos: t.Sequence[Zone]) -> dict[str, t.Any]:
    """What a host has to do with them: ``repo``, the one on it, whose archives it keeps, and ``origins``, where it fetches images
    from; the host that builds them has none. Hosts begin with different ones, so that each serves its share."""
    others = [zone for zone in repos if zone.host != host["name"]] if host["name"] != repos[0].host else []
    first = host["id"] % len(others) if others else 0
    return {
        "repo": next((zone.name for zone in repos if zone.host == host["name"]), None),
        "origins": [f"https://{zone.address}/images" for zone in (*others[first:], *others[:first])],
    }
