# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From ``topology.yml`` and the services' declarations to every host, zone, name and address: a pure function.

Nothing is allocated, so nothing is remembered. An address is arithmetic::

    address = network + host id * block + slot * 8 + (number - 1)

so adding or removing hosts, services or replicas never renumbers any other zone. Where zones are is dealt, see :func:`_deal`:
it is a function of the hosts alone, under which a host that comes takes zones from others, and one that goes leaves them to others,
and nothing else moves.
"""

from __future__ import annotations

import hashlib
import heapq
import ipaddress
import re
import typing as t
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace

from ansible_collections.zonestack.openstack.plugins.plugin_utils.cloud import (
    FLAVORS,
    IMAGES,
    CloudImage,
    Flavor,
    Quota,
    Title,
    flavor_facts,
    image_facts,
    quota_facts,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import Lock, base_image, service_image
from ansible_collections.zonestack.openstack.plugins.plugin_utils.links import NAME as LINK_NAME
from ansible_collections.zonestack.openstack.plugins.plugin_utils.links import Claim, Link, host_links
from ansible_collections.zonestack.openstack.plugins.plugin_utils.regions import Sibling, share, with_own_users
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import (
    Label,
    Name,
    Place,
    Port,
    Rule,
    at_least,
    decode_dataclass,
    encode,
    matching,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Catalogue, Declared

#: Addresses of one component on one host, and so the most zones of a component that a host holds.
SLOT_SIZE = 8
#: Offset of a host's own address in its block: the zones' default gateway.
HOST_OFFSET = 1
#: Offset of the deployment's virtual address in block 0.
VIP_OFFSET = 5

#: The component that images are fetched from.
REPO = "repo"

#: Backends and the stores that each knows, its default first.
STORES = {"lxc": ("overlay", "dir", "btrfs", "zfs"), "smartos": ("zfs",)}
#: Connection plugin and Python interpreter by backend. Modules run with the host's own Python, also where the control
#: machine is the host: Ansible's virtualenv lacks what the distribution gives (python3-apt and the like).
CONNECTIONS = {"lxc": "zonestack.openstack.lxc", "smartos": "zonestack.openstack.zlogin"}
INTERPRETERS = {"lxc": "/usr/bin/python3", "smartos": "/opt/tools/bin/python3"}

# IFNAMSIZ in linux/if.h is 16, with the closing zero byte.
_BRIDGE = matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", "write a bridge name of at most 15 characters")
_POWER = Rule(lambda value: value >= 4 * SLOT_SIZE and value & (value - 1) == 0, "give a power of two, 32 or more")


def _ipv4(value: str) -> bool:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return False
    return True


def _cidr(value: str) -> bool:
    try:
        ipaddress.IPv4Network(value)
    except ValueError:
        return False
    return "/" in value


_INTERFACE = matching(r"[^\s/]{1,15}", "write the name of a network interface, such as eth1")
_ADDRESS = Rule(_ipv4, "write an IPv4 address, such as 192.0.2.10")
# Nova calls the zone of hypervisors without one `nova`, and that of its own services `internal`; : and , separate zones in OVN.
_DOMAIN = matching(
    r"(?!(nova|internal)$)[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
    "write at most 63 letters, digits, _, . and -, and not nova or internal, which Nova means otherwise",
)
_REACHABLE = matching(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*",
    "write a host name or an IPv4 address",
)


# A key is one line.
# fmt: off
@dataclass(frozen=True)
class Network:
    """A network on which zones have addresses; `zone` is the management network that every zone is on."""

    cidr: t.Annotated[str, "The whole network, such as `10.77.0.0/21`", Rule(_cidr, "write an IPv4 network whose host bits are 0, such as 10.77.0.0/21")]
    block: t.Annotated[int, "Addresses of each host, a power of two; block 0 is the deployment's, host id N has block N", _POWER] = 512
    bridge: t.Annotated[str | None, "Bridge or NIC tag of hosts; default `zs-<deployment>`, of a further network `zs-<deployment>-<network>`", _BRIDGE] = None
    interface: t.Annotated[str | None, "Interface of each host that is a port of the bridge, the way to the zones of other hosts", _INTERFACE] = None
    mtu: t.Annotated[int, "Largest packet in bytes", Rule(lambda value: 1280 <= value <= 9216, "give 1280 to 9216 bytes")] = 1500


@dataclass(frozen=True)
class Endpoints:
    """Where the deployment is reached."""

    internal: t.Annotated[str | None, "Virtual address; default address 5 of block 0 of network `zone`", _ADDRESS] = None
    external: t.Annotated[str | None, "Name or address that users know; default `external_address`, without it the internal one", _REACHABLE] = None
    external_address: t.Annotated[str | None, "Second virtual address, in a provider network; default none: users come in by the internal one", _ADDRESS] = None


@dataclass(frozen=True)
class Host:
    """A machine that holds zones, by name."""

    id: t.Annotated[int, "Number of its block in every network; never changes while the host lives", at_least(1)]
    backend: t.Annotated[t.Literal["lxc", "smartos"], "What its zones are"] = "lxc"
    connection: t.Annotated[t.Literal["local", "ssh"], "`local` for the machine that Ansible runs on"] = "ssh"
    address: t.Annotated[str | None, "Where SSH reaches it; must be given unless `connection: local`", _REACHABLE] = None
    user: t.Annotated[str | None, "SSH user; default what ssh_config(5) says"] = None
    port: t.Annotated[Port | None, "SSH port; default what ssh_config(5) says"] = None
    store: t.Annotated[t.Literal["overlay", "dir", "btrfs", "zfs"] | None, "Where zones lie; default `overlay` for lxc, `zfs` for smartos"] = None
    groups: t.Annotated[tuple[Name, ...], "Groups of hosts that it belongs to, for `hosts:` of services and for group_vars"] = ()
    zone: t.Annotated[str | None, "Failure domain: what fails as one, such as a rack, a room or a building; all hosts name theirs, or none", _DOMAIN] = None
    leaving: t.Annotated[bool, "No zone is placed on it any more; `scripts/remove-host.sh` then takes away those that it has"] = False
    addresses: t.Annotated[
        dict[t.Annotated[str, LINK_NAME], t.Annotated[str, _ADDRESS]], "Addresses on its [links](#link), by link, where they are not as computed"
    ] = field(default_factory=dict)


#: How far apart replicas must be: in different failure domains, on different hosts, or just anywhere.
_Spread = t.Literal["zone", "host", "none"]


@dataclass(frozen=True)
class Placement:
    """Where a component's zones are, and what the deployment gives them; under `services:` by service, or by component."""

    count: t.Annotated[int | None, "Zones in the deployment, [spread](#where-zones-are) over the hosts; default the service's", at_least(1)] = None
    per_host: t.Annotated[int | None, "Zones on each host, instead of `count`", at_least(1)] = None
    hosts: t.Annotated[tuple[str, ...] | None, "Hosts or groups of hosts; default all hosts"] = None
    spread: t.Annotated[_Spread | None, "What may be lost and the service lives: a failure domain (`zone`), a `host`, `none`; default the deployment's"] = None
    memory: t.Annotated[int | None, "Memory of each zone in MiB; default the service's", at_least(64, "MiB")] = None
    vcpus: t.Annotated[int | None, "Processors that daemons size themselves for; default the service's", at_least(1)] = None
    cpu_cap: t.Annotated[int | None, "CPU time in per cent of one core; default the service's", at_least(1, "per cent of one core")] = None
    quota: t.Annotated[int | None, "Disk in GiB; default the service's", at_least(1, "GiB")] = None


@dataclass(frozen=True)
class ProviderNetwork:
    """A network outside the cloud in which instances are reached, by its name; also a network of that name in Neutron."""

    cidr: t.Annotated[str, "The whole network, such as `10.78.0.0/24`", Rule(_cidr, "write an IPv4 network whose host bits are 0, such as 10.78.0.0/24")]
    gateway: t.Annotated[str | None, "Router of the network; default its first address", _ADDRESS] = None
    gateway_host: t.Annotated[str | None, "Host that has the gateway's address on its bridge and masquerades; without it, a router of the site has it"] = None
    pool: t.Annotated[tuple[str, ...] | None, "First and last address that instances and floating IPs get; default the upper half"] = None
    bridge: t.Annotated[str | None, "Bridge on each host; default `zs-<deployment>-<network>`", _BRIDGE] = None
    interface: t.Annotated[str | None, "Interface of each host that is a port of the bridge; none where the host is the gateway", _INTERFACE] = None
    mtu: t.Annotated[int, "Largest packet in bytes", Rule(lambda value: 1280 <= value <= 9216, "give 1280 to 9216 bytes")] = 1500
    dns: t.Annotated[tuple[str, ...], "Name servers that instances in it are told"] = ()
    external: t.Annotated[bool, "Whether routers may lead to it, and floating IPs are of it"] = True
    shared: t.Annotated[bool, "Whether every project may attach instances to it"] = False


@dataclass(frozen=True)
class Contents:
    """What the cloud holds for its users, kept so by every run. What users make themselves is not touched."""

    networks: t.Annotated[dict[Label, ProviderNetwork], "Provider networks, by name"] = field(default_factory=dict)
    images: t.Annotated[dict[Title, CloudImage], "Images, by name; default the built-in `zonestack-test`"] = field(default_factory=IMAGES.copy)
    flavors: t.Annotated[dict[Title, Flavor], "Flavors, by name; default tiny, mini, small, medium and large"] = field(default_factory=FLAVORS.copy)
    quotas: t.Annotated[dict[Title, Quota], "Quotas by project; `default` is for all that have none of their own"] = field(default_factory=dict)
    availability_zones: t.Annotated[bool | None, "Whether hypervisors' failure domains are availability zones; default where hosts name more than one"] = None


@dataclass(frozen=True)
class SharedIdentity:
    """A Keystone for several deployments, each a [region](operating.md#regions) of one cloud. Both sides say so."""

    from_: t.Annotated[Label | None, "Deployment (its folder beside this one) whose Keystone and dashboard serve this one too; default its own"] = None
    to: t.Annotated[tuple[Label, ...], "Deployments that use this one's Keystone"] = ()


@dataclass(frozen=True)
class Topology:
    """A deployment: the only file that its owner must write."""

    release: t.Annotated[str, "OpenStack release; `locks/<release>.txt` says which versions that means"]
    networks: t.Annotated[dict[Label, Network], "Networks by name; `zone` must be there"]
    hosts: t.Annotated[dict[Label, Host], "Machines by name"]
    services: t.Annotated[dict[str, t.Any], "What is deployed and where, each a [Placement](#placement); a name alone takes the service's own defaults"]
    plugin: t.Annotated[t.Literal["zonestack.openstack.topology"] | None, "Lets Ansible find the plugin without this project's ansible.cfg"] = None
    deployment: t.Annotated[Label | None, "Name; default the name of the file's folder"] = None
    links: t.Annotated[
        dict[str, dict[t.Annotated[str, LINK_NAME], Link]],
        "Interfaces of hosts, by host, group of hosts or `all`, then by name. Those of hosts without any are managed elsewhere and not touched",
    ] = field(default_factory=dict)
    region: t.Annotated[str, "Region in the catalog", matching(r"[A-Za-z0-9_.-]{1,255}", "write letters, digits, _, . and -")] = "RegionOne"
    endpoints: t.Annotated[Endpoints, "Where the deployment is reached"] = Endpoints()
    identity: t.Annotated[SharedIdentity, "With which deployments it shares a Keystone"] = SharedIdentity()
    cloud: t.Annotated[Contents, "What the cloud holds for its users"] = Contents()
    services_path: t.Annotated[tuple[str, ...], "Folders with further service files, relative to this file"] = ()
    spread: t.Annotated[_Spread | None, "`spread` of services that do not say; default [what the hosts make possible](#where-zones-are)"] = None
# fmt: on


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


@dataclass(frozen=True)
class Placed:
    """A component with the host of each of its zones, in the order of their ordinals."""

    component: Declared
    hosts: list[str]
    size: dict[str, int]


@dataclass(frozen=True)
class _Fleet:
    """The machines as placement sees them.

    :param ordered: names, in the order of their ids.
    :param groups: groups of hosts.
    :param domains: failure domain of each; the same, nameless one where none is named.
    :param spread: what to demand where a placement does not say.
    :param smartos: those whose zones are SmartOS zones.
    :param leaving: those that placements may still name, and that get nothing.
    """

    ordered: list[str]
    groups: dict[str, list[str]]
    domains: dict[str, str]
    spread: str | None
    smartos: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Space:
    """A network as arithmetic: first address and block size."""

    name: str
    first: int
    block: int

    def address(self, host_id: int, offset: int) -> str:
        return dotted(self.first + host_id * self.block + offset)


def dotted(number: int) -> str:
    """An IPv4 address from its 32 bits."""
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def uuid5_bytes(namespace: bytes, name: str) -> bytes:
    """RFC 9562 section 5.5, as ``uuid.uuid5`` but without its object: 40,000 of them are made for a large cloud."""
    digest = bytearray(hashlib.sha1(namespace + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def deployment_namespace(deployment: str) -> bytes:
    """The namespace of a deployment's zone UUIDs."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"zonestack.openstack/{deployment}").bytes


def zone_uuid(namespace: bytes, name: str) -> tuple[bytes, str]:
    """A zone's UUID from its name, as bytes and as text."""
    raw = uuid5_bytes(namespace, name)
    text = raw.hex()
    return raw, f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def zone_mac(zone: bytes, network: str) -> str:
    """A zone's MAC address on a network: locally administered (02), then five bytes from its UUID."""
    text = uuid5_bytes(zone, network).hex()
    return f"02:{text[:2]}:{text[2:4]}:{text[4:6]}:{text[6:8]}:{text[8:10]}"


def _check_networks(topology: Topology, deployment: str, place: Place) -> dict[str, _Space]:
    """The networks as arithmetic, once none is too small or in another's way."""
    here = place.at("networks")
    if "zone" not in topology.networks:
        raise here.missing("network 'zone' is missing: every zone has an address on it", topology.networks)
    spaces: dict[str, _Space] = {}
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
        if len(bridge) > 15:
            raise (
                here.at(name)
                .at("bridge")
                .refuse(bridge, "give a bridge name of at most 15 characters (this is the default)")
            )
        if bridge in bridges:
            raise (
                here.at(name)
                .at("bridge")
                .refuse(bridge, f"network {bridges[bridge]!r} has this bridge: choose another")
            )
        bridges[bridge], taken[name] = name, cidr
        spaces[name] = _Space(name, int(cidr.network_address), network.block)
    return spaces


def _check_interfaces(topology: Topology, place: Place) -> None:
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


def _host_links(
    topology: Topology, deployment: str, provider: t.Mapping[str, t.Any], place: Place
) -> dict[str, list[dict[str, t.Any]]]:
    """The links of each host that has any; what networks of the deployment make of them is told."""
    bridges = {bridge_name(topology, deployment, name): name for name in topology.networks}
    bridges |= {facts["bridge"]: name for name, facts in provider.items()}
    both: dict[str, Network | ProviderNetwork] = {**topology.networks, **topology.cloud.networks}
    ports = {one.interface: Claim(f"network {name!r}", one.mtu) for name, one in both.items() if one.interface}
    return host_links(topology.links, topology.hosts, _groups(topology), ports, bridges, place)


def _check_provider_networks(topology: Topology, deployment: str, place: Place) -> dict[str, t.Any]:
    """``stack.cloud.networks``: each provider network with its defaults, once none is in another's way."""
    here = place.at("cloud").at("networks")
    taken = {f"network {name!r}": ipaddress.IPv4Network(one.cidr) for name, one in topology.networks.items()}
    bridges = {bridge_name(topology, deployment, name): name for name in topology.networks}
    found: dict[str, t.Any] = {}
    for name, network in topology.cloud.networks.items():
        at, cidr = here.at(name), ipaddress.IPv4Network(network.cidr)
        for other, known in taken.items():
            if cidr.overlaps(known):
                right = f"overlaps {other} ({known}): choose another range"
                raise at.at("cidr").refuse(network.cidr, right)
        if cidr.num_addresses < 8:
            raise at.at("cidr").refuse(network.cidr, "too small for a gateway and instances: take a /29 or larger")
        gateway = ipaddress.IPv4Address(network.gateway) if network.gateway else cidr[1]
        if gateway not in cidr or gateway in (cidr[0], cidr[-1]):
            raise at.at("gateway").refuse(network.gateway, f"take an address of {cidr}, {cidr[1]} to {cidr[-2]}")
        if network.gateway_host is not None and network.gateway_host not in topology.hosts:
            raise at.at("gateway_host").refuse(network.gateway_host, "name a host", topology.hosts)
        if network.gateway_host is not None and topology.hosts[network.gateway_host].backend == "smartos":
            right = "a SmartOS host has no bridge that instances are on: name a host with backend lxc"
            others = [host for host, one in topology.hosts.items() if one.backend == "lxc"]
            raise at.at("gateway_host").refuse(network.gateway_host, right, others)
        for index, server in enumerate(network.dns):
            if not _ipv4(server):
                raise at.at("dns").at(index).refuse(server, _ADDRESS.right)
        bridge = network.bridge or f"zs-{deployment}-{name}"
        if len(bridge) > 15:
            right = "give a bridge name of at most 15 characters (this is the default)"
            raise at.at("bridge").refuse(bridge, right)
        if bridge in bridges:
            raise at.at("bridge").refuse(bridge, f"network {bridges[bridge]!r} has this bridge: choose another")
        taken[f"provider network {name!r}"], bridges[bridge] = cidr, name
        found[name] = {
            **encode(network),
            "gateway": str(gateway),
            "gateway_host": network.gateway_host,
            "interface": network.interface,
            "pool": _pool(network, cidr, gateway, at),
            "bridge": bridge,
            "prefix": cidr.prefixlen,
            "vip": None,
        }
    return found


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
    if len(network.pool) != 2 or not all(map(_ipv4, network.pool)):
        raise here.refuse(list(network.pool), "write two IPv4 addresses, the first and the last")
    first, last = map(ipaddress.IPv4Address, network.pool)
    if not (first in cidr and last in cidr and first <= last) or cidr[0] == first or cidr[-1] == last:
        raise here.refuse(list(network.pool), f"take addresses of {cidr}, {cidr[1]} to {cidr[-2]}, the lower one first")
    if first <= gateway <= last:
        raise here.refuse(list(network.pool), f"leave out the gateway, {gateway}")
    return list(network.pool)


def bridge_name(topology: Topology, deployment: str, network: str) -> str:
    """The bridge of a network on every host."""
    default = f"zs-{deployment}" if network == "zone" else f"zs-{deployment}-{network}"
    return topology.networks[network].bridge or default


def nic_tag(topology: Topology, deployment: str, network: str) -> str:
    """The NIC tag of a network on SmartOS hosts. The name of an etherstub ends in a digit, nictagadm(8)."""
    given = topology.networks[network].bridge
    return given or bridge_name(topology, deployment, network).replace("-", "_") + "0"


def _check_hosts(topology: Topology, spaces: dict[str, _Space], place: Place) -> None:
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
                    "local", f"host {local!r} is already the machine that Ansible runs on: give an address"
                )
            local = name
        elif host.address is None:
            raise here.at("address").missing("give the address that SSH reaches, or connection: local")
        if named is not None and host.zone is None:
            right = f"host {named!r} names its failure domain ({topology.hosts[named].zone}): name this one's too, or take away all"
            raise here.at("zone").missing(right)
        if host.store is not None and host.store not in STORES[host.backend]:
            raise here.at("store").refuse(host.store, f"a store of backend {host.backend}", STORES[host.backend])
        if host.address is not None and _ipv4(host.address):
            number = int(ipaddress.IPv4Address(host.address))
            for network, space in spaces.items():
                size = ipaddress.IPv4Network(topology.networks[network].cidr).num_addresses
                own = space.first + host.id * space.block + HOST_OFFSET
                if 0 <= number - space.first < size and number != own:
                    raise here.at("address").refuse(
                        host.address,
                        f"lies in network {network!r}, whose addresses are computed: take one outside, or {dotted(own)}",
                    )


def _check_nic_tags(topology: Topology, place: Place) -> None:
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


def _without(topology: Topology, leaving: t.Mapping[str, Host], place: Place) -> Topology:
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


def _groups(topology: Topology) -> dict[str, list[str]]:
    """Groups of hosts, hosts in the order of their ids."""
    groups: dict[str, list[str]] = {}
    for name, host in sorted(topology.hosts.items(), key=lambda item: item[1].id):
        for group in dict.fromkeys(host.groups):
            groups.setdefault(group, []).append(name)
    return groups


def _vip(topology: Topology, zone: _Space, place: Place) -> str:
    """The internal virtual address, which must be of block 0: every other address belongs to a host."""
    internal = topology.endpoints.internal
    if internal is None:
        return zone.address(0, VIP_OFFSET)
    offset = int(ipaddress.IPv4Address(internal)) - zone.first
    if not HOST_OFFSET <= offset < zone.block:
        low, high = zone.address(0, HOST_OFFSET), zone.address(0, zone.block - 1)
        right = f"take an address of block 0 of network zone, {low} to {high}"
        raise place.at("endpoints").at("internal").refuse(internal, right)
    return internal


def _give_external_address(topology: Topology, internal: str, provider: dict[str, t.Any], place: Place) -> None:
    """Note the second virtual address as ``vip`` of its provider network, once nobody else has it, and users are not sent astray."""
    here, external = place.at("endpoints"), topology.endpoints.external
    if external is not None and external != internal and _ipv4(external):
        for name, network in topology.networks.items():
            if ipaddress.IPv4Address(external) in ipaddress.IPv4Network(network.cidr):
                right = f"lies in network {name!r}, where only {internal} is the load balancer's: leave it out, or give another"
                raise here.at("external").refuse(external, right)
    wanted = topology.endpoints.external_address
    if wanted is None:
        return
    at, address = here.at("external_address"), ipaddress.IPv4Address(wanted)
    own = next((one for one in provider.values() if address in ipaddress.IPv4Network(one["cidr"])), None)
    if own is None:
        raise at.refuse(
            wanted, "take an address of a provider network (cloud.networks)", [one["cidr"] for one in provider.values()]
        )
    cidr, (first, last) = ipaddress.IPv4Network(own["cidr"]), map(ipaddress.IPv4Address, own["pool"])
    taken = {host.address: f"is the address of host {name!r}" for name, host in topology.hosts.items()}
    taken |= dict.fromkeys(own["dns"], "is the address of a name server")
    taken |= {
        own["gateway"]: "is the gateway",
        str(cidr[0]): "is the network itself",
        str(cidr[-1]): "is the broadcast address",
    }
    why = (
        f"is of the pool {first} to {last}, which the cloud gives away"
        if first <= address <= last
        else taken.get(wanted)
    )
    if why is not None:
        raise at.refuse(wanted, f"{why}: take another address of {cidr}")
    own["vip"] = wanted


def _chosen(placement: Placement, fleet: _Fleet, place: Place) -> list[str]:
    """The hosts of a placement, in the order of their ids."""
    if placement.hosts is None:
        return fleet.ordered
    here = place.at("hosts")
    if not placement.hosts:
        raise here.refuse([], "name at least one host or group of hosts", [*fleet.ordered, *fleet.groups])
    chosen: set[str] = set()
    for index, name in enumerate(placement.hosts):
        if name in fleet.groups:
            chosen.update(fleet.groups[name])
        elif name in fleet.domains:
            chosen.add(name)
        elif name not in fleet.leaving:
            known = [*fleet.ordered, *fleet.groups]
            raise here.at(index).refuse(name, "unknown host, name a host or a group of hosts", known)
    if not chosen:
        raise here.refuse(
            list(placement.hosts), "all of these are leaving: name another host", [*fleet.ordered, *fleet.groups]
        )
    return [name for name in fleet.ordered if name in chosen]


def _deal(hosts: list[str], domains: t.Mapping[str, str], total: int) -> list[str]:
    """The hosts of ``total`` zones. A round gives every host one; the next is of the failure domain that holds the fewest, and of
    those with the lowest id.

    The first so many are the same for any greater ``total``. A host more, whatever its id, takes zones and gives none to another.
    """
    members: dict[str, list[tuple[int, str]]] = {}
    for rank, host in enumerate(hosts):
        members.setdefault(domains[host], []).append((rank, host))
    held = dict.fromkeys(members, 0)
    dealt: list[str] = []
    while len(dealt) < total:
        queue = [(held[domain], every[0][0], domain, 0) for domain, every in members.items()]
        heapq.heapify(queue)
        while queue and len(dealt) < total:
            number, _rank, domain, index = heapq.heappop(queue)
            dealt.append(members[domain][index][1])
            held[domain] = number + 1
            if index + 1 < len(members[domain]):
                heapq.heappush(queue, (number + 1, members[domain][index + 1][0], domain, index + 1))
    return dealt


def _place_one(component: Declared, placement: Placement, fleet: _Fleet, place: Place) -> Placed:
    """The host of each zone of a component."""
    hosts = _chosen(placement, fleet, place)
    if placement.count is not None and placement.per_host is not None:
        raise place.at("per_host").refuse(placement.per_host, "give count or per_host, not both")
    key = "count" if placement.per_host is None else "per_host"
    if placement.per_host is not None:
        total, most = placement.per_host * len(hosts), placement.per_host
    else:
        total = component.merged.count if placement.count is None else placement.count
        most = -(-total // len(hosts))
    if most > SLOT_SIZE:
        right = f"replicas beyond the slot: a host holds at most {SLOT_SIZE} zones of a component, this would be {most}"
        raise place.at(key).refuse(placement.per_host or total, right)
    if component.merged.quorum and total % 2 == 0:
        right = f"{component.name} votes, {total} members cannot outvote a lost half: take an odd number, {total - 1} or {total + 1}"
        raise place.at(key).refuse(placement.per_host or total, right)
    if placement.per_host is not None:
        dealt = [host for host in hosts for _number in range(most)]
    else:
        dealt = _deal(hosts, fleet.domains, total)
    _check_rights(component, placement, dealt, fleet, place)
    if key == "count" or component.merged.quorum:
        _check_spread(component, placement, hosts, dealt, fleet, place)
    _check_stand_in(component, placement, dealt, fleet, place.at(key))
    sizes = {name: getattr(placement, name) for name in ("memory", "vcpus", "cpu_cap", "quota")}
    return Placed(component, dealt, {name: size for name, size in sizes.items() if size is not None})


def _check_rights(component: Declared, placement: Placement, dealt: list[str], fleet: _Fleet, place: Place) -> None:
    """What needs rights on its host's kernel, as hypervisors do (Open vSwitch, OVN's datapath, KVM), cannot be in a SmartOS zone."""
    host = next((name for name in dealt if name in fleet.smartos), None)
    if host is None or not component.merged.zone.privileged:
        return
    right = (
        f"{component.name} needs a privileged zone with Linux's kernel, which host {host!r} with backend smartos has not: "
        f"name hosts with backend lxc"
    )
    known = [name for name in fleet.ordered if name not in fleet.smartos]
    here = place.at("hosts")
    raise here.missing(right, known) if placement.hosts is None else here.refuse(list(placement.hosts), right, known)


def _check_spread(
    component: Declared, placement: Placement, hosts: list[str], dealt: list[str], fleet: _Fleet, place: Place
) -> None:
    """Losing one host, or one failure domain, must leave a majority of what votes, and one zone of anything else.

    Unless the operator says otherwise, that is asked for as far as the deployment has what to spread over.
    """
    spread = placement.spread or fleet.spread
    if len(dealt) == 1 or spread == "none":
        return
    right = _complaint("host", {host: host for host in fleet.ordered}, component, hosts, dealt, spread is not None)
    if right is None and spread != "host":
        right = _complaint("failure domain", fleet.domains, component, hosts, dealt, spread == "zone")
    if right is None:
        return
    wrong = {
        "hosts": list(placement.hosts or ()),
        "spread": placement.spread,
        "per_host": placement.per_host,
        "count": len(dealt),
    }
    key = next(key for key, value in wrong.items() if value)
    raise place.at(key).refuse(wrong[key], right)


def _check_stand_in(component: Declared, placement: Placement, dealt: list[str], fleet: _Fleet, place: Place) -> None:
    """One load balancer works, the others stand in for it, so a second one on a host is of no use where there are further hosts."""
    if component.merged.role != "haproxy" or len(fleet.ordered) == 1 or (placement.spread or fleet.spread) == "none":
        return
    host, most = Counter(dealt).most_common(1)[0]
    if most > 1:
        right = f"{component.name} would have {most} zones on host {host!r}, of which one can only stand in for the other: take one for each host"
        raise place.refuse(placement.per_host or len(dealt), f"{right}, or say spread: none")


def _complaint(
    unit: str, owners: t.Mapping[str, str], component: Declared, hosts: list[str], dealt: list[str], demanded: bool
) -> str | None:
    """Why the loss of one ``unit`` would stop a component, and what would be right; nothing where all is well.

    :param owners: the unit of every host of the deployment; "" is none.
    :param hosts: those that the component may use, ``dealt`` those of its zones.
    :param demanded: whether to ask for it even where the deployment has too few units.
    """
    there, used = {*owners.values()} - {""}, {owners[host] for host in hosts} - {""}
    total, votes = len(dealt), component.merged.quorum
    needed = 3 if votes else 2
    if not demanded:
        needed = min(needed, len(there))
    # Of three, any two hold a majority; of two, one is left.
    bearable = {3: (total - 1) // 2, 2: total - 1}.get(needed, total)
    lost, most = Counter(owners[host] for host in dealt).most_common(1)[0]
    if most <= bearable:
        return None
    weaker = "none" if unit == "host" else "host"
    if not there:
        return f"no host names its {unit}: give each its zone, or say spread: {weaker}"
    if votes:
        who = f"{component.name} votes and would have {most} of its {total} members"
    else:
        who = f"{component.name} would have all its {total} zones"
    where = f"{'on' if unit == 'host' else 'in'} {unit} {lost!r}, whose loss would stop it"
    better = f"let it use {needed} or more"
    if len(used) >= needed:
        # Only where members are more than hosts of the other domains can take.
        fits = range(total - 2, 2, -2)
        count = next(
            n
            for n in fits
            if Counter(owners[host] for host in _deal(hosts, owners, n)).most_common(1)[0][1] <= (n - 1) // 2
        )
        better = f"give the others more hosts, or take a count of {count}"
    return f"{who} {where}; it may use {len(used)} of {len(there)} {unit}s: {better}, or say spread: {weaker}"


def _place_all(
    topology: Topology, known: Catalogue, groups: dict[str, list[str]], leaving: t.Mapping[str, Host], place: Place
) -> list[Placed]:
    """Every deployed component with its hosts."""
    ordered = sorted(topology.hosts, key=lambda name: topology.hosts[name].id)
    domains = {name: topology.hosts[name].zone or "" for name in ordered}
    smartos = frozenset(name for name in ordered if topology.hosts[name].backend == "smartos")
    names = frozenset((*leaving, *(group for host in leaving.values() for group in host.groups)))
    fleet = _Fleet(ordered, groups, domains, topology.spread, smartos, names)
    placed = []
    for name, value in topology.services.items():
        here = place.at("services").at(name)
        if name not in known.services:
            raise here.refuse(name, "unknown service: name one, or add its file to the services folder", known.services)
        components = known.of(name)
        for index, need in enumerate(known.services[name].needs):
            if need not in topology.services and not (need == "keystone" and topology.identity.from_):
                right = f"service {name!r} needs it ({known.places[name].file}: needs[{index}]): add `{need}:` under services"
                raise place.at("services").at(need).missing(right, topology.services)
        if not known.services[name].components:
            placed.append(
                _place_one(
                    components[0], decode_dataclass(Placement, {} if value is None else value, here), fleet, here
                )
            )
            continue
        if not isinstance(value, (dict, type(None))):
            raise here.refuse(value, "write a mapping with the service's components", [one.name for one in components])
        for key in value or {}:
            if key not in [one.name for one in components]:
                raise here.at(key).refuse((value or {})[key], "unknown component", [one.name for one in components])
        for one in components:
            at = here.at(one.name)
            placed.append(
                _place_one(one, decode_dataclass(Placement, (value or {}).get(one.name) or {}, at), fleet, at)
            )
    if not placed:
        raise place.at("services").refuse(topology.services, "name at least one service", known.services)
    return placed


def _check_slots(placed: list[Placed], topology: Topology, place: Place) -> None:
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


def _claim_groups(placed: list[Placed], groups: dict[str, list[str]], topology: Topology, place: Place) -> None:
    """One name, one meaning: Ansible would silently merge two groups of the same name."""
    owners = dict.fromkeys(
        (
            *("all", "ungrouped", "localhost", "zone_hosts", "lxc_hosts", "smartos_hosts", "leaving_hosts"),
            *("linked_hosts", "image_fetchers", "image_servers"),
            *("zones", "zones_first", "zones_stale", "openstack_services", "hypervisors"),
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


def zones_group(host: str) -> str:
    """The group of a host's zones."""
    return f"{host.replace('-', '_')}_zones"


def _zones(
    one: Placed, spaces: list[_Space], provider: t.Iterable[str], ids: dict[str, int], namespace: bytes
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


def _attached(component: Declared, provider: t.Mapping[str, t.Any]) -> list[str]:
    """The provider networks that a component's zones are in: all, or, of the load balancer, the one with the second virtual address."""
    balancer = component.merged.role == "haproxy"
    return [name for name, network in provider.items() if component.merged.provider or (balancer and network["vip"])]


def _check_names(zones: dict[str, list[Zone]], topology: Topology, place: Place) -> None:
    """Zone names must be DNS labels and unique: host ``a`` with ``b_c`` and host ``a-b`` with ``c`` would meet."""
    longest = max((zone.name for every in zones.values() for zone in every), key=len)
    if len(longest) > 63:
        host = next(zone.host for every in zones.values() for zone in every if zone.name == longest)
        raise (
            place.at("hosts")
            .at(host)
            .refuse(host, f"zone name {longest!r} would be longer than 63 characters: take a shorter host name")
        )
    seen: dict[str, str] = dict.fromkeys(topology.hosts, "a host")
    for component, every in zones.items():
        for zone in every:
            if zone.name in seen:
                right = f"zone {zone.name!r} of {component!r} would bear the name of {seen[zone.name]}: choose another host name"
                raise place.at("hosts").at(zone.host).refuse(zone.host, right)
            seen[zone.name] = f"a zone of {component!r}"


def _availability_zones(
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


def _host_variable(
    name: str,
    host: Host,
    spaces: dict[str, _Space],
    networks: t.Mapping[str, t.Any],
    provider: t.Mapping[str, t.Any],
) -> dict[str, t.Any]:
    """The noun ``host``. ``builders`` are the addresses of image builders, the last slot (the network's broadcast
    address may be the last of all, so there are seven); ``bridges`` is what ``zonestack-network`` makes on it, on a SmartOS host
    NICs of the global zone on NIC tags. Instances are not on those, so provider networks are not there.

    A SmartOS host also has ``images``, those that its zones need: what hypervisors are made of it could not even build. So has one that
    fetches its images; see :func:`_share_of_repos`."""
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


def _front_ends(placed: list[Placed]) -> None:
    """Two front ends of the load balancer cannot share a port, and none can have one of its own."""
    balancers = [one.component for one in placed if one.component.merged.role == "haproxy"]
    ports = {opening.port: f"{one.name} {name}" for one in balancers for name, opening in one.merged.ports.items()}
    for one in placed:
        merged, here = one.component.merged, one.component.place
        mine = [(here.at("listen").at(name).at("port"), listen.port, name) for name, listen in merged.listen.items()]
        if merged.api is not None:
            mine.append((here.at("api").at("port"), merged.api.port, "api"))
        for at, port, name in mine:
            if port in ports:
                raise at.refuse(port, f"{ports[port]} has this port on the load balancer: choose another")
            ports[port] = f"{one.component.name} {name}"


def _endpoints(placed: t.Sequence[Placed], vip: t.Mapping[str, str]) -> dict[str, dict[str, str]]:
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


def _service_facts(name: str, placed: list[Placed], known: Catalogue) -> dict[str, t.Any]:
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


def _images(
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


def _images_by_host(
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


def _repos(topology: Topology, zones: t.Mapping[str, list[Zone]]) -> list[Zone]:
    """The zones that images of LXC zones are fetched from. The host of the first one builds them."""
    return [zone for zone in zones.get(REPO, ()) if topology.hosts[zone.host].backend == "lxc"]


def _share_of_repos(host: t.Mapping[str, t.Any], repos: t.Sequence[Zone]) -> dict[str, t.Any]:
    """What a host has to do with them: ``repo``, the one on it, whose archives it keeps, and ``origins``, where it fetches images
    from; the host that builds them has none. Hosts begin with different ones, so that each serves its share."""
    others = [zone for zone in repos if zone.host != host["name"]] if host["name"] != repos[0].host else []
    first = host["id"] % len(others) if others else 0
    return {
        "repo": next((zone.name for zone in repos if zone.host == host["name"]), None),
        "origins": [f"https://{zone.address}/images" for zone in (*others[first:], *others[:first])],
    }


def decode_topology(data: dict[str, t.Any], place: Place) -> Topology:
    """``topology.yml`` as a dataclass: each value is right by itself, not yet together with the others."""
    topology = decode_dataclass(Topology, data, place)
    if not topology.hosts:
        raise place.at("hosts").refuse({}, "name at least one host")
    return topology


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
    spaces = _check_networks(topology, deployment, place)
    _check_hosts(topology, spaces, place)
    leaving = {name: host for name, host in topology.hosts.items() if host.leaving}
    topology = _without(topology, leaving, place)
    _check_nic_tags(topology, place)
    provider = _check_provider_networks(topology, deployment, place)
    _check_interfaces(topology, place)
    links = _host_links(topology, deployment, provider, place)
    internal = _vip(topology, spaces["zone"], place)
    _give_external_address(topology, internal, provider, place)
    groups = _groups(topology)
    placed = _place_all(topology, known, groups, leaving, place)
    _check_slots(placed, topology, place)
    _claim_groups(placed, groups, topology, place)
    _front_ends(placed)
    images, used = _images(placed, known, lock, certificates or {}, base or Place("services/_base.yml"))

    ids = {name: host.id for name, host in topology.hosts.items()}
    namespace = deployment_namespace(deployment)
    zones = {
        one.component.name: _zones(
            one,
            [spaces[name] for name in ("zone", *one.component.merged.networks)],
            _attached(one.component, provider),
            ids,
            namespace,
        )
        for one in placed
    }
    _check_names(zones, topology, place)

    services = {}
    for one in placed:
        variable = one.component.variable()
        variable["zone"] = {**variable["zone"], **one.size}
        variable["image"] = {**variable["image"], "id": used[one.component.name]}
        services[one.component.name] = variable
    facts = {name: _network_facts(topology, deployment, name) for name in topology.networks}
    hosts = {name: _host_variable(name, host, spaces, facts, provider) for name, host in topology.hosts.items()}
    repos, images_by_host = _repos(topology, zones), _images_by_host(zones, used, images)
    for name, host in hosts.items():
        if name in links:
            host["links"] = links[name]
        if repos and host["backend"] == "lxc":
            host.update(_share_of_repos(host, repos))
        if not repos or host["backend"] == "smartos" or host.get("origins"):
            host["images"] = images_by_host.get(name, [])  # those of its zones; who has the first repo builds for all
    vip = {
        "internal": internal,
        "external": way_in(topology, internal),
        "external_address": topology.endpoints.external_address or internal,
    }
    endpoint = _endpoints(placed, vip)
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
            "availability_zones": _availability_zones(topology, zones, services, place),
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
        "services": {name: _service_facts(name, placed, known) for name in topology.services},
        "images": images,
    }
    parents = {
        name: [one.name for one in known.of(name)] for name in topology.services if known.services[name].components
    }
    declared = frozenset((*known.services, *known.components))
    gone = {name: (host, _host_variable(name, host, spaces, facts, provider)) for name, host in leaving.items()}
    return Cloud(topology, hosts, zones, services, parents, groups, stack, declared, gone)


def name_of(topology: Topology, folder: str, place: Place) -> str:
    """The deployment's name: what it says, or that of its folder."""
    return topology.deployment or decode_dataclass(_Deployment, {"deployment": folder}, place).deployment


def way_in(topology: Topology, internal: str | None = None) -> str:
    """Name or address by which users reach the deployment."""
    given = topology.endpoints
    if internal is None:
        internal = given.internal or str(ipaddress.IPv4Network(topology.networks["zone"].cidr)[VIP_OFFSET])
    return given.external or given.external_address or internal


@dataclass(frozen=True)
class _Deployment:
    deployment: Label


def _network_facts(topology: Topology, deployment: str, name: str) -> dict[str, t.Any]:
    network = topology.networks[name]
    cidr = ipaddress.IPv4Network(network.cidr)
    return {
        "cidr": network.cidr,
        "prefix": cidr.prefixlen,
        "netmask": str(cidr.netmask),
        "bridge": bridge_name(topology, deployment, name),
        "interface": network.interface,
        "nic_tag": nic_tag(topology, deployment, name),
        "mtu": network.mtu,
        "block": network.block,
    }
