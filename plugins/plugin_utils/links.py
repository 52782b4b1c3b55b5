# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interfaces of hosts as data: from ``links:`` of ``topology.yml`` to each host's list, or a refusal. Pure.

What a host's list says is complete: each link has its master, its parent, its own address, and stands after what it stands on.
What makes it so is the module ``host_links``. Of a host without links nothing is said, so nothing of it is touched.
"""

from __future__ import annotations

import ipaddress
import typing as t
from collections import Counter
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, Rule, matching
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.nouns import HostLink

#: The kernel's, Documentation/networking/bonding.rst; systemd.netdev(5) has the same names.
Mode = t.Literal["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"]
#: Bytes that a link takes where nothing else is said.
DEFAULT_MTU = 1500
#: Key of ``links`` for all hosts.
EVERYWHERE = "all"

# IFNAMSIZ in linux/if.h is 16, with the closing zero byte. It is a part of a file's name, and lo is not to be managed.
NAME = matching(
    r"(?!lo$)[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", "write the name of an interface, at most 15 characters, such as eno1"
)
_LinkName = t.Annotated[str, NAME]
_VLAN = Rule(lambda value: 1 <= value <= 4094, "give 1 to 4094 (IEEE 802.1Q keeps 0 and 4095)")
_MTU = Rule(lambda value: 1280 <= value <= 9216, "give 1280 to 9216 bytes")


def _parsed(kind: t.Callable[[str], t.Any], needed: str = "") -> t.Callable[[str], bool]:
    def test(value: str) -> bool:
        try:
            kind(value)
        except ValueError:
            return False
        return needed in value

    return test


_CIDR = Rule(_parsed(ipaddress.IPv4Network, "/"), "write an IPv4 network whose host bits are 0, such as 192.0.2.0/24")
_ADDRESS = Rule(_parsed(ipaddress.IPv4Address), "write an IPv4 address, such as 192.0.2.1")


# A key is one line.
# fmt: off
@dataclass(frozen=True)
class Link:
    """An interface of a host that zonestack keeps so, by its name; see [host networks](networking.md#host-networks)."""

    kind: t.Annotated[t.Literal["physical", "bond", "vlan", "bridge"], "What it is"] = "physical"
    members: t.Annotated[
        tuple[_LinkName, ...] | None,
        "Of a bond its interfaces, of a bridge its ports; what is not a link itself is an interface that the host has",
    ] = None
    mode: t.Annotated[Mode | None, "Of a bond; must be given. `802.3ad` is LACP"] = None
    parent: t.Annotated[_LinkName | None, "Of a VLAN the link that carries it"] = None
    id: t.Annotated[int | None, "Of a VLAN its number", _VLAN] = None
    mtu: t.Annotated[int | None, "Largest packet in bytes; default 1500, of a VLAN the parent's, of a member what it is a member of has", _MTU] = None
    cidr: t.Annotated[
        str | None,
        "Network of the host's address. The address is that of `addresses` of the host; else `address` of the host, "
        "if it is of this network; else network + `id` of the host",
        _CIDR,
    ] = None
    dhcp: t.Annotated[bool, "Whether a DHCP server gives the address, instead of `cidr`"] = False
    gateway: t.Annotated[str | None, "The host's default route; on one link of a host", _ADDRESS] = None
    routes: t.Annotated[
        dict[t.Annotated[str, _CIDR], t.Annotated[str, _ADDRESS]], "Further networks, each with the router in `cidr` that leads there"
    ] = field(default_factory=dict)
# fmt: on


#: Keys that say what a link is, by kind; the first so many must be there.
_KEYS: dict[str, tuple[str, ...]] = {
    "physical": (),
    "bond": ("members", "mode"),
    "vlan": ("parent", "id"),
    "bridge": ("members",),
}
#: What may be a member of what.
_JOINS = {"bond": ("physical",), "bridge": ("physical", "bond", "vlan")}


@dataclass(frozen=True)
class Claim:
    """A link that a network of the deployment makes a port of its own bridge: ``mtu`` is the network's, ``what`` names it."""

    what: str
    mtu: int


class Machine(t.Protocol):
    """What is asked of a host of the topology."""

    id: int
    backend: t.Any
    address: str | None
    groups: tuple[t.Any, ...]
    addresses: dict[str, str]


Declared = dict[str, tuple[Link, Place]]
"""The links of a host by name, each with the place of its declaration."""


def host_links(
    links: t.Mapping[str, t.Mapping[str, Link]],
    hosts: t.Mapping[str, t.Any],
    groups: t.Collection[str],
    ports: t.Mapping[str, Claim],
    bridges: t.Mapping[str, str],
    place: Place,
) -> dict[str, list[HostLink]]:
    """Each host's links, for those that have any.

    :param links: ``links`` of the topology; ``hosts`` and ``groups`` are its names of those.
    :param ports: the links that networks of the deployment make ports of their bridges; ``bridges`` these, with the network's name.
    :param place: the topology's file.
    :raises Refused: when a link contradicts itself or another.
    """
    here = place.at("links")
    for key, layer in links.items():
        if key != EVERYWHERE and key not in groups and key not in hosts:
            raise here.refuse(key, "unknown, name a host, a group of hosts, or all", [EVERYWHERE, *groups, *hosts])
        for name, link in layer.items():
            _check_alone(name, link, here.at(key).at(name))
            if name in bridges:
                right = f"network {bridges[name]!r} makes this bridge itself: give that network its interface, and take the bridge away here"
                raise here.at(key).at(name).refuse(name, right)
    found: dict[str, list[HostLink]] = {}
    taken: dict[str, str] = {}
    for name, host in hosts.items():
        declared = _layers(name, host, links, here)
        for link in host.addresses:
            if link not in declared or declared[link][0].cidr is None:
                right = "the host has no such link with a cidr, name one"
                known = [one for one in declared if declared[one][0].cidr]
                raise place.at("hosts").at(name).at("addresses").at(link).refuse(host.addresses[link], right, known)
        if declared:
            found[name] = _resolve(name, host, declared, ports, taken, place)
    return found


def _layers(name: str, host: Machine, links: t.Mapping[str, t.Mapping[str, Link]], here: Place) -> Declared:
    """What holds for a host: its own outranks its groups', and these all hosts'. Two groups are of one rank."""
    declared: Declared = {one: (link, here.at(EVERYWHERE).at(one)) for one, link in links.get(EVERYWHERE, {}).items()}
    owners: dict[str, str] = {}
    for group in dict.fromkeys(host.groups):
        for one, link in links.get(group, {}).items():
            if one in owners:
                right = f"host {name!r} has it from group {owners[one]!r} too: write it in one of them, or for the host"
                if one not in links.get(name, {}):
                    raise here.at(group).at(one).refuse(one, right)
            owners[one] = group
            declared[one] = (link, here.at(group).at(one))
    if host.backend == "smartos" and (declared or name in links):
        right = "links of SmartOS hosts are not supported yet (/usbkey/config has them): name hosts with backend lxc, or groups of these"
        raise here.refuse(name, f"host {name!r} would have links: {right}")
    return {**declared, **{one: (link, here.at(name).at(one)) for one, link in links.get(name, {}).items()}}


def _check_alone(name: str, link: Link, place: Place) -> None:
    """What is wrong with a link whatever the others are."""
    known = _KEYS[link.kind]
    for key in ("members", "mode", "parent", "id"):
        value = getattr(link, key)
        if value is not None and key not in known:
            right = f"a {link.kind} link has none: take it away, or give the link another kind"
            raise place.at(key).refuse(list(value) if isinstance(value, tuple) else value, right)
        if value is None and key in known:
            raise place.at(key).missing(f"a {link.kind} needs it")
    if link.kind == "bond" and not link.members:
        raise place.at("members").refuse([], "name at least one interface")
    for index, member in enumerate(link.members or ()):
        if (link.members or ()).index(member) != index:
            raise place.at("members").at(index).refuse(member, "it is named twice: remove one")
    if link.dhcp and link.cidr is not None:
        raise place.at("dhcp").refuse(True, "the address comes from cidr or from DHCP: remove one")
    routers = {} if link.gateway is None else {place.at("gateway"): link.gateway}
    routers |= {place.at("routes").at(network): router for network, router in link.routes.items()}
    for at, router in routers.items():
        if link.cidr is None:
            raise at.refuse(router, "a route needs an address of the host in the router's network: give cidr")
        if ipaddress.IPv4Address(router) not in ipaddress.IPv4Network(link.cidr):
            raise at.refuse(router, f"use an address of {link.cidr}, the network of this link")


def _resolve(
    name: str, host: Machine, declared: Declared, ports: t.Mapping[str, Claim], taken: dict[str, str], place: Place
) -> list[HostLink]:
    """The links of a host, complete and in the order in which they stand on one another."""
    masters = _masters(declared)
    order = _order(declared, masters)
    mtus = _mtus(declared, masters, order)
    _check_ports(declared, masters, mtus, ports)
    gateways = [one for one, (link, _place) in declared.items() if link.gateway is not None]
    if len(gateways) > 1:
        link, at = declared[gateways[1]]
        right = f"host {name!r} has one on {gateways[0]!r} too, and one default route: take one away (routes leads to further networks)"
        raise at.at("gateway").refuse(link.gateway, right)
    addresses = _addresses(name, host, declared, taken, place)
    rows = []
    for one in order:
        link = declared[one][0] if one in declared else Link()
        rows.append(
            HostLink(
                name=one,
                kind=link.kind,
                mode=link.mode,
                parent=link.parent,
                id=link.id,
                master=masters.get(one),
                port=one in ports,
                mtu=mtus[one],
                address=addresses.get(one),
                dhcp=link.dhcp,
                gateway=link.gateway,
                routes=link.routes,
            )
        )
    return rows


def _masters(declared: Declared) -> dict[str, str]:
    """What each member is a member of."""
    masters: dict[str, str] = {}
    for name, (link, place) in declared.items():
        for index, member in enumerate(link.members or ()):
            at = place.at("members").at(index)
            if member == name:
                raise at.refuse(member, "a link cannot be a member of itself: remove it from its members")
            if member in masters:
                raise at.refuse(
                    member,
                    f"it is a member of {masters[member]!r} already, and can be a member of one only: remove one",
                )
            inner = declared[member][0] if member in declared else Link()
            if inner.kind not in _JOINS[link.kind]:
                raise at.refuse(
                    member, f"it is a {inner.kind}, and a {link.kind} takes {' and '.join(_JOINS[link.kind])} links"
                )
            if inner.cidr is not None or inner.dhcp:
                key = "dhcp" if inner.dhcp else "cidr"
                right = f"as a member of {name!r} nobody would reach it: give the address to {name!r}"
                raise declared[member][1].at(key).refuse(inner.cidr or True, right)
            masters[member] = name
    for link, place in declared.values():
        if link.parent is None:
            continue
        if link.parent not in declared:
            right = "declare the parent as a link too, with its address if it has one: its configuration becomes zonestack's"
            raise place.at("parent").refuse(link.parent, right, declared)
        if link.parent in masters and declared[masters[link.parent]][0].kind == "bond":
            raise place.at("parent").refuse(
                link.parent, f"it is a member of bond {masters[link.parent]!r}: use that as the parent"
            )
        if declared[link.parent][0].kind == "vlan":
            raise place.at("parent").refuse(link.parent, "it is a VLAN itself: use its own parent")
    numbers = Counter((link.parent, link.id) for link, _place in declared.values() if link.kind == "vlan")
    for link, place in declared.values():
        if link.kind == "vlan" and numbers[link.parent, link.id] > 1:
            raise place.at("id").refuse(link.id, f"{link.parent!r} has another VLAN with this number: remove one")
    return masters


def _order(declared: Declared, masters: t.Mapping[str, str]) -> list[str]:
    """Every name after all that it stands on; what a bond or a bridge is made of is below it, and the parent below a VLAN."""
    names = [*declared, *(member for member in masters if member not in declared)]
    below = {
        one: []
        if one not in declared
        else [*(declared[one][0].members or ()), *filter(None, [declared[one][0].parent])]
        for one in names
    }
    order: list[str] = []

    def visit(one: str, above: tuple[str, ...]) -> None:
        if one in above:
            loop = " > ".join([*above[above.index(one) :], one])
            raise declared[one][1].refuse(one, f"it depends on itself ({loop}): remove one of these")
        if one not in order:
            for lower in below[one]:
                visit(lower, (*above, one))
            order.append(one)

    for one in names:
        visit(one, ())
    return order


def _mtus(declared: Declared, masters: t.Mapping[str, str], order: t.Iterable[str]) -> dict[str, int]:
    """Each link's MTU; what carries others takes at least as much as they."""
    mtus: dict[str, int] = {}

    def mtu(one: str) -> int:
        if one not in mtus:
            link = declared[one][0] if one in declared else Link()
            above = masters.get(one) if link.kind == "physical" else link.parent
            mtus[one] = link.mtu or (mtu(above) if above else DEFAULT_MTU)
        return mtus[one]

    for one in order:
        mtu(one)
    for one, (link, place) in declared.items():
        if link.parent is not None and mtus[one] > mtus[link.parent]:
            right = f"{link.parent!r}, which carries it, takes {mtus[link.parent]} bytes: give that link a larger mtu, or this one a smaller"
            raise place.at("mtu").refuse(mtus[one], right)
        for member in link.members or ():
            if mtus[member] < mtus[one] or (link.kind == "bond" and mtus[member] != mtus[one]):
                right = f"its member {member!r} has {mtus[member]} bytes: give both the same mtu"
                raise place.at("mtu").refuse(mtus[one], right)
    return mtus


def _check_ports(
    declared: Declared, masters: t.Mapping[str, str], mtus: t.Mapping[str, int], ports: t.Mapping[str, Claim]
) -> None:
    """Links that become ports of the deployment's own bridges."""
    for name, port in ports.items():
        if name in masters:
            where = declared[masters[name]][1]
            raise where.at("members").refuse(
                name,
                f"{port.what} makes it a port of its own bridge: remove it here, or set another interface for the network",
            )
        if name not in declared:
            continue
        link, place = declared[name]
        if link.cidr is not None or link.dhcp:
            key = "dhcp" if link.dhcp else "cidr"
            right = f"{port.what} makes it a port of its bridge, where nobody would reach the address: put it on another link"
            raise place.at(key).refuse(link.cidr or True, right)
        if mtus[name] < port.mtu:
            raise place.at("mtu").refuse(
                mtus[name], f"{port.what} has an mtu of {port.mtu}: set that or more, or set less for the network"
            )


def _usable(address: ipaddress.IPv4Address, cidr: ipaddress.IPv4Network) -> bool:
    """Whether a host may have it: of a /31 both, RFC 3021; else not the network's own and not the broadcast address."""
    return address in cidr and (cidr.prefixlen >= 31 or address not in (cidr[0], cidr[-1]))


def _addresses(name: str, host: Machine, declared: Declared, taken: dict[str, str], place: Place) -> dict[str, str]:
    """The host's address on each link that has a cidr, with the prefix length.

    :param taken: whose each address is, of the hosts before; this one's are added.
    """
    found: dict[str, str] = {}
    networks: dict[str, ipaddress.IPv4Network] = {}
    for one, (link, at) in declared.items():
        if link.cidr is None:
            continue
        cidr = ipaddress.IPv4Network(link.cidr)
        for other, known in networks.items():
            if cidr.overlaps(known):
                raise at.at("cidr").refuse(
                    link.cidr,
                    f"overlaps that of {other!r} ({known}), so the host would have two routes to it: choose another",
                )
        networks[one] = cidr
        given, there = host.addresses.get(one), place.at("hosts").at(name).at("addresses").at(one)
        if (
            given is None
            and host.address is not None
            and _ADDRESS.test(host.address)
            and ipaddress.IPv4Address(host.address) in cidr
        ):
            given, there = host.address, place.at("hosts").at(name).at("address")
        if given is None:
            given, there = str(cidr[min(host.id, cidr.num_addresses - 1)]), place.at("hosts").at(name).at("id")
            if not _usable(ipaddress.IPv4Address(given), cidr):
                right = f"its address on {one!r}, {cidr.network_address} + id, would not be of {cidr}: name it in addresses of the host, or take a larger cidr"
                raise there.refuse(host.id, right)
        if not _usable(ipaddress.IPv4Address(given), cidr):
            raise there.refuse(given, f"use an address of {cidr}, the cidr of link {one!r}, but not its first or last")
        if given == link.gateway or given in link.routes.values():
            raise there.refuse(given, f"it is a router of link {one!r}: use another")
        if given in taken:
            raise there.refuse(given, f"host {taken[given]!r} has it: use another")
        taken[given] = name
        found[one] = f"{given}/{cidr.prefixlen}"
    return found
