# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks, templates and service files read: the nouns ``zone``, ``host``, ``service`` and ``stack``, one line for each field.

``scripts/render-docs.py`` makes docs/reference/variables.md of these lines. :func:`schema.encode` makes the variables of their instances; a field
whose default is None is left out where it has no value, any other is always there.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import encode
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import (
    Api,
    Identity,
    Image,
    Listen,
    Opening,
    ZoneSize,
)


# A field is one line.
# fmt: off
@dataclass(frozen=True, slots=True)
class Attachment:
    """What a zone has on a further network."""

    address: t.Annotated[str, "IPv4 address"]
    mac: t.Annotated[str, "MAC address"]


@dataclass(frozen=True, slots=True)
class Zone:
    """`zone`, of every zone: where it is. What it is, its `service` says."""

    name: t.Annotated[str, "`<host>-<component>-<number>`"]
    uuid: t.Annotated[str, "UUID; a SmartOS host knows the zone by it"]
    host: t.Annotated[str, "The machine that it is on"]
    number: t.Annotated[int, "Counts the component's zones on that host, from 1"]
    ordinal: t.Annotated[int, "Counts the component's zones in the deployment, from 0"]
    address: t.Annotated[str, "IPv4 address on network `zone`"]
    mac: t.Annotated[str, "MAC address on network `zone`"]
    networks: t.Annotated[dict[str, Attachment] | None, "Further networks by name; only where there are any"] = None
    provider: t.Annotated[dict[str, str] | None, "MAC address in each provider network, where it has no address; only where it is in any"] = None

    def variable(self) -> dict[str, t.Any]:
        """The noun as Ansible gets it."""
        return t.cast("dict[str, t.Any]", encode(self))


@dataclass(frozen=True)
class Bridge:
    """A bridge that a host is given; on a SmartOS host, a NIC of the global zone."""

    bridge: t.Annotated[str, "Name of the bridge; on a SmartOS host, of the NIC tag"]
    address: t.Annotated[str | None, "The host's address on it with the prefix length, such as `10.77.2.1/21`; null: none"]
    mtu: t.Annotated[int, "Largest packet in bytes"]
    nat: t.Annotated[str | None, "Network whose packets the host masquerades; null: none"]
    interface: t.Annotated[str | None, "Interface of the host that is a port of it; null: none"]
    provider: t.Annotated[bool, "Whether it is of a provider network"]


@dataclass(frozen=True)
class HostLink:
    """An interface of a host, complete; see [Link](topology.md#link)."""

    name: t.Annotated[str, "Name of the interface"]
    kind: t.Annotated[str, "`physical`, `bond`, `vlan` or `bridge`"]
    mode: t.Annotated[str | None, "Mode of a bond"]
    parent: t.Annotated[str | None, "Link that carries a VLAN"]
    id: t.Annotated[int | None, "Number of a VLAN"]
    master: t.Annotated[str | None, "Bond or bridge that it is a member of"]
    port: t.Annotated[bool, "Whether a network of the deployment makes it a port of its bridge"]
    mtu: t.Annotated[int, "Largest packet in bytes"]
    address: t.Annotated[str | None, "Address with the prefix length"]
    dhcp: t.Annotated[bool, "Whether the address comes from DHCP"]
    gateway: t.Annotated[str | None, "Router of the default route"]
    routes: t.Annotated[dict[str, str], "Further routes: network to router"]


@dataclass(frozen=True)
class Host:
    """`host`, of every machine."""

    name: t.Annotated[str, "Name in topology.yml"]
    id: t.Annotated[int, "Number of its block in every network"]
    backend: t.Annotated[str, "What its zones are: `lxc` or `smartos`"]
    store: t.Annotated[str, "Where its zones lie: `overlay`, `dir`, `btrfs` or `zfs`"]
    addresses: t.Annotated[dict[str, str], "Its own address on each network; on `zone` it is the zones' gateway"]
    bridges: t.Annotated[list[Bridge], "Bridges that it is given, in the order of the networks; provider networks last, and not on SmartOS hosts"]
    builders: t.Annotated[list[str], "Addresses that image builders use, the last of its block"]
    links: t.Annotated[list[HostLink] | None, "Its interfaces, each after those that it stands on; only where topology.yml declares any"] = None
    archive_zone: t.Annotated[str | None, "The zone on it that keeps archives of images for other hosts; only where there is one"] = None
    origins: t.Annotated[list[str] | None, "URLs that it fetches images from, in this order; empty on the host that builds them; only with repo zones"] = None
    images: t.Annotated[list[str] | None, "Ids of the images that its zones need; without it, the host builds all of `stack.images`"] = None


@dataclass(frozen=True, kw_only=True)
class ServiceImage(Image):
    """The image of a component."""

    id: t.Annotated[str, "Its id, `<name>-<12 hexadecimal digits>`, a key of `stack.images`"]


@dataclass(frozen=True)
class Service:
    """`service`, of every component's group: what its zones are. It has every key of [the service's file](services.md) with its default,
    without `components` and with the component's own keys laid over; `api` and `identity` are null where there is none. Beside them:"""

    name: t.Annotated[str, "Name of the service"]
    component: t.Annotated[str, "Name of the component; where the service has none, the service's"]
    zone: t.Annotated[ZoneSize, "What a zone may use, with the sizes of topology.yml"]
    image: t.Annotated[ServiceImage, "What the zone's image holds, and its `id`"]
    phase: t.Annotated[str, "When its daemons start in a run: `infrastructure`, `control` or `compute`"]
    folders: t.Annotated[tuple[str, ...], "Folders of the service on the control machine; the first one that has a file provides it"]
    hooks: t.Annotated[dict[str, str], "Paths of the service's task files, by name of the hook"]


@dataclass(frozen=True)
class Network:
    """A network on which zones have addresses."""

    cidr: t.Annotated[str, "The whole network"]
    prefix: t.Annotated[int, "Its prefix length in bits"]
    netmask: t.Annotated[str, "Its netmask"]
    bridge: t.Annotated[str, "Bridge on each host with LXC"]
    interface: t.Annotated[str | None, "Interface of each host that is a port of the bridge; null: none"]
    nic_tag: t.Annotated[str, "NIC tag on each SmartOS host"]
    mtu: t.Annotated[int, "Largest packet in bytes"]
    block: t.Annotated[int, "Addresses of each host"]


@dataclass(frozen=True)
class ProviderNetwork:
    """A network outside the cloud in which instances are reached."""

    cidr: t.Annotated[str, "The whole network"]
    prefix: t.Annotated[int, "Its prefix length in bits"]
    gateway: t.Annotated[str, "Its router"]
    gateway_host: t.Annotated[str | None, "Host that is the router; null: a router of the site"]
    pool: t.Annotated[list[str], "First and last address that the cloud gives away"]
    bridge: t.Annotated[str, "Bridge on each host"]
    interface: t.Annotated[str | None, "Interface of each host that is a port of the bridge; null: none"]
    mtu: t.Annotated[int, "Largest packet in bytes"]
    dns: t.Annotated[tuple[str, ...], "Name servers that instances are told"]
    external: t.Annotated[bool, "Whether routers may lead to it, and floating IPs are of it"]
    shared: t.Annotated[bool, "Whether every project may attach instances to it"]
    vip: t.Annotated[str | None, "The second virtual address, where it is of this network; null elsewhere"]


@dataclass(frozen=True)
class AvailabilityZone:
    """A hypervisor's availability zone."""

    zone: t.Annotated[str, "Failure domain of its host"]
    provider: t.Annotated[str, "UUID of its resource provider in Placement, which is the zone's"]


@dataclass(frozen=True)
class Contents:
    """What the cloud holds for its users: `cloud` of topology.yml with its defaults."""

    networks: t.Annotated[dict[str, ProviderNetwork], "Provider networks by name"]
    images: t.Annotated[dict[str, dict[str, t.Any]], "Images, each a [CloudImage](topology.md#cloudimage); a built-in one has its `path` in the utility zone"]
    flavors: t.Annotated[dict[str, dict[str, t.Any]], "Flavors by name, each a [Flavor](topology.md#flavor)"]
    quotas: t.Annotated[dict[str, dict[str, int]], "Quotas by project, each a [Quota](topology.md#quota)"]
    availability_zones: t.Annotated[dict[str, AvailabilityZone], "By the hypervisor's name; empty where the deployment has none"]


@dataclass(frozen=True)
class Entry:
    """Where the load balancer answers."""

    internal: t.Annotated[str, "Virtual address on network `zone`, which zones use"]
    external: t.Annotated[str, "Name or address that users know"]
    external_address: t.Annotated[str, "Virtual address behind `external`; the internal one, unless topology.yml gives a second"]


@dataclass(frozen=True)
class Urls:
    """The URLs of an API."""

    public: t.Annotated[str, "For users; the internal one, where the API is not public"]
    internal: t.Annotated[str, "For zones"]
    admin: t.Annotated[str, "For zones; the same as `internal`"]


@dataclass(frozen=True)
class CatalogEntry:
    """A service as the Keystone's catalog has it."""

    name: t.Annotated[str, "Name"]
    type: t.Annotated[str, "Type"]
    description: t.Annotated[str, "One line"]


@dataclass(frozen=True)
class SharedIdentity:
    """Whose Keystone it is, see [regions](operating.md#regions)."""

    from_: t.Annotated[str | None, "Deployment whose Keystone this one uses; null: its own"]
    secrets: t.Annotated[dict[str, str], "Deployments that share the Keystone with this one: name to the path of `secrets.yml`"]
    keystone: t.Annotated[CatalogEntry | None, "The other's Keystone in the catalog; null: its own"]
    url: t.Annotated[str | None, "URL of the other's Keystone; null: its own"]
    regions: t.Annotated[list[str], "Regions that share the Keystone, this one's first"]


@dataclass(frozen=True)
class Machine:
    """A host as the others see it."""

    id: t.Annotated[int, "Number of its block in every network"]
    backend: t.Annotated[str, "What its zones are: `lxc` or `smartos`"]
    store: t.Annotated[str, "Where its zones lie"]
    address: t.Annotated[str, "Where SSH reaches it; the local machine's on network `zone`"]
    bridge_address: t.Annotated[str, "Its own address on network `zone`"]
    addresses: t.Annotated[dict[str, str], "Its own address on each network"]


@dataclass(frozen=True, slots=True)
class Member:
    """A zone as the others see it."""

    name: t.Annotated[str, "Name of the zone"]
    address: t.Annotated[str, "IPv4 address on network `zone`"]
    host: t.Annotated[str, "The machine that it is on"]


@dataclass(frozen=True)
class Part:
    """A component as the others see it; the keys are those of [its declaration](services.md)."""

    api: t.Annotated[Api | None, "The HTTP API that it serves; null: none"]
    listen: t.Annotated[dict[str, Listen], "Further front ends of the load balancer, by name"]
    ports: t.Annotated[dict[str, Opening], "What the zone's firewall lets in, by name"]


@dataclass(frozen=True)
class DeployedService:
    """A service as the others see it; the keys are those of [its declaration](services.md#service)."""

    description: t.Annotated[str, "One line"]
    component: t.Annotated[str, "The component with the API, otherwise the first"]
    api: t.Annotated[Api | None, "The API of that component; null: none"]
    listen: t.Annotated[dict[str, Listen], "Further front ends of all components, by name"]
    database: t.Annotated[tuple[str, ...], "Databases, each with a user of its name"]
    queue: t.Annotated[bool, "Whether RabbitMQ holds a virtual host and a user of the service's name"]
    identity: t.Annotated[Identity | None, "User that Keystone knows the service by; null: none"]
    secrets: t.Annotated[dict[str, str], "Kinds of further generated secrets, by name"]
    components: t.Annotated[dict[str, Part], "Its components by name"]


@dataclass(frozen=True)
class FrontEnd:
    """What the load balancer listens on, for the zones of a component."""

    service: t.Annotated[str, "The service behind it"]
    component: t.Annotated[str, "The component behind it, a key of `members`"]
    type: t.Annotated[str | None, "Type of the API in the catalog; null: it is none"]
    port: t.Annotated[int, "Port of the load balancer, and of the zones"]
    mode: t.Annotated[str, "`http` or `tcp`"]
    health: t.Annotated[str | None, "Path that tells whether a zone serves; null: a connection is enough"]
    check_port: t.Annotated[int, "Port that is asked for it"]
    sticky: t.Annotated[bool, "Whether one zone gets everything until it fails"]
    idle: t.Annotated[int, "Seconds after which an idle connection is closed"]
    public: t.Annotated[bool, "Whether users reach it, not only zones"]
    from_: t.Annotated[tuple[str, ...], "Who may come in: services, components, `zones`, `hosts`, or `any`"]


@dataclass(frozen=True)
class StackImage:
    """An image that the deployment needs."""

    name: t.Annotated[str, "Service that it is of, or `base`, or `python`: what all with Python packages stand on"]
    parent: t.Annotated[str | None, "Id of the image below it; null: none"]
    recipe: t.Annotated[dict[str, t.Any], "What it is made of, as the module `zone_image` takes it"]


@dataclass(frozen=True)
class KnownComponent:
    """What is declared of a component, deployed or not: zones of it may be there although topology.yml has them no more."""

    service: t.Annotated[str, "Name of its service"]
    function: t.Annotated[str | None, "What it does for all other zones; null: nothing"]
    quorum: t.Annotated[bool, "Whether members vote"]
    shrinks: t.Annotated[bool, "Whether a member that stops in order is no longer counted by those that vote"]
    data: t.Annotated[str, "Where the data on its volumes is besides: `unique`, `copied`, `renewed` or `moved`"]
    drain: t.Annotated[int, "Seconds for its connections to end before it stops"]
    hooks: t.Annotated[dict[str, str], "Paths of the service's task files, by name of the hook"]


@dataclass(frozen=True)
class Stack:
    """`stack`, of all zones and machines: who the others are."""

    deployment: t.Annotated[str, "Name of the deployment"]
    region: t.Annotated[str, "Region in the catalog"]
    release: t.Annotated[str, "OpenStack release"]
    networks: t.Annotated[dict[str, Network], "Networks by name"]
    cloud: t.Annotated[Contents, "What the cloud holds for its users"]
    vip: t.Annotated[Entry, "Where the load balancer answers"]
    endpoint: t.Annotated[dict[str, Urls], "URLs of every API by its service, a service's second API by its component"]
    identity: t.Annotated[SharedIdentity, "Whose Keystone it is"]
    hosts: t.Annotated[dict[str, Machine], "Machines by name"]
    members: t.Annotated[dict[str, list[Member]], "Zones by component, in the order of their ordinals"]
    components: t.Annotated[dict[str, KnownComponent], "Every known component by name, deployed or not"]
    services: t.Annotated[dict[str, DeployedService], "Services by name"]
    front_ends: t.Annotated[dict[str, FrontEnd], "What the load balancer listens on, by name: an API's is its component"]
    images: t.Annotated[dict[str, StackImage], "Images by id"]
# fmt: on


#: The nouns, by the variables that hold them.
NOUNS = {"zone": Zone, "host": Host, "service": Service, "stack": Stack}
