# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The closed schema of ``topology.yml``: each key with its type, its meaning and its rule, on one line."""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import STORES as LXC_STORES
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import Store
from ansible_collections.zonestack.openstack.plugins.plugin_utils.cloud import (
    FLAVORS,
    IMAGES,
    CloudImage,
    Flavor,
    Quota,
    Title,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.links import NAME as LINK_NAME
from ansible_collections.zonestack.openstack.plugins.plugin_utils.links import Link
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import (
    Label,
    Name,
    Place,
    Port,
    Rule,
    at_least,
    decode_dataclass,
    matching,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import (
    SLOT_SIZE,
    VIP_OFFSET,
    is_cidr,
    is_ipv4,
)

#: Connection plugin and Python interpreter by backend. Modules run with the host's own Python, also where the control
#: machine is the host: Ansible's virtualenv lacks what the distribution gives (python3-apt and the like).
CONNECTIONS = {"lxc": "zonestack.openstack.lxc", "smartos": "zonestack.openstack.zlogin"}
INTERPRETERS = {"lxc": "/usr/bin/python3", "smartos": "/opt/tools/bin/python3"}
#: Backends and the stores that each knows, its default first.
STORES = {"lxc": LXC_STORES, "smartos": ("zfs",)}

# IFNAMSIZ in linux/if.h is 16, with the closing zero byte.
_BRIDGE = matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", "write a bridge name of at most 15 characters")
_POWER = Rule(lambda value: value >= 4 * SLOT_SIZE and value & (value - 1) == 0, "give a power of two, 32 or more")


_INTERFACE = matching(r"[^\s/]{1,15}", "write the name of a network interface, such as eth1")
ADDRESS = Rule(is_ipv4, "write an IPv4 address, such as 192.0.2.10")
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

    cidr: t.Annotated[str, "The whole network, such as `10.77.0.0/21`", Rule(is_cidr, "write an IPv4 network whose host bits are 0, such as 10.77.0.0/21")]
    block: t.Annotated[int, "Addresses of each host, a power of two; block 0 is the deployment's, host id N has block N", _POWER] = 512
    bridge: t.Annotated[str | None, "Bridge or NIC tag of hosts; default `zs-<deployment>`, of a further network `zs-<deployment>-<network>`", _BRIDGE] = None
    interface: t.Annotated[str | None, "Interface of each host that is a port of the bridge, the way to the zones of other hosts", _INTERFACE] = None
    mtu: t.Annotated[int, "Largest packet in bytes", Rule(lambda value: 1280 <= value <= 9216, "give 1280 to 9216 bytes")] = 1500


@dataclass(frozen=True)
class Endpoints:
    """Where the deployment is reached."""

    internal: t.Annotated[str | None, "Virtual address; default address 5 of block 0 of network `zone`", ADDRESS] = None
    external: t.Annotated[str | None, "Name or address that users know; default `external_address`, without it the internal one", _REACHABLE] = None
    external_address: t.Annotated[str | None, "Second virtual address, in a provider network; default none: users come in by the internal one", ADDRESS] = None


@dataclass(frozen=True)
class Host:
    """A machine that holds zones, by name."""

    id: t.Annotated[int, "Number of its block in every network; never changes while the host lives", at_least(1)]
    backend: t.Annotated[t.Literal["lxc", "smartos"], "What its zones are"] = "lxc"
    connection: t.Annotated[t.Literal["local", "ssh"], "`local` for the machine that Ansible runs on"] = "ssh"
    address: t.Annotated[str | None, "Where SSH reaches it; must be given unless `connection: local`", _REACHABLE] = None
    user: t.Annotated[str | None, "SSH user; default what ssh_config(5) says"] = None
    port: t.Annotated[Port | None, "SSH port; default what ssh_config(5) says"] = None
    store: t.Annotated[Store | None, "Where zones lie; default `overlay` for lxc, `zfs` for smartos"] = None
    groups: t.Annotated[tuple[Name, ...], "Groups of hosts that it belongs to, for `hosts:` of services and for group_vars"] = ()
    zone: t.Annotated[str | None, "Failure domain: what fails as one, such as a rack, a room or a building; all hosts name theirs, or none", _DOMAIN] = None
    leaving: t.Annotated[bool, "No zone is placed on it any more; `scripts/remove-host.sh` then takes away those that it has"] = False
    addresses: t.Annotated[
        dict[t.Annotated[str, LINK_NAME], t.Annotated[str, ADDRESS]], "Addresses on its [links](#link), by link, where they are not as computed"
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

    cidr: t.Annotated[str, "The whole network, such as `10.78.0.0/24`", Rule(is_cidr, "write an IPv4 network whose host bits are 0, such as 10.78.0.0/24")]
    gateway: t.Annotated[str | None, "Router of the network; default its first address", ADDRESS] = None
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


@dataclass(frozen=True)
class _Deployment:
    deployment: Label


def decode_topology(data: dict[str, t.Any], place: Place) -> Topology:
    """``topology.yml`` as a dataclass: each value is right by itself, not yet together with the others."""
    topology = decode_dataclass(Topology, data, place)
    if not topology.hosts:
        raise place.at("hosts").refuse({}, "name at least one host")
    return topology


def name_of(topology: Topology, folder: str, place: Place) -> str:
    """The deployment's name: what it says, or that of its folder."""
    return topology.deployment or decode_dataclass(_Deployment, {"deployment": folder}, place).deployment


def way_in(topology: Topology, internal: str | None = None) -> str:
    """Name or address by which users reach the deployment."""
    given = topology.endpoints
    if internal is None:
        internal = given.internal or str(ipaddress.IPv4Network(topology.networks["zone"].cidr)[VIP_OFFSET])
    return given.external or given.external_address or internal


def groups_of(topology: Topology) -> dict[str, list[str]]:
    """Groups of hosts, hosts in the order of their ids."""
    groups: dict[str, list[str]] = {}
    for name, host in sorted(topology.hosts.items(), key=lambda item: item[1].id):
        for group in dict.fromkeys(host.groups):
            groups.setdefault(group, []).append(name)
    return groups
