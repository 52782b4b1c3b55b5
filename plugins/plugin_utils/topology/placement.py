# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where zones are. It is dealt: a function of the hosts alone, under which a host that comes takes zones from others, one that goes
leaves them to others, and nothing else moves. See :func:`_deal`."""

from __future__ import annotations

import heapq
import typing as t
from collections import Counter
from dataclasses import dataclass, replace

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, decode_dataclass
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Catalogue, Declared
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.addresses import SLOT_SIZE
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import Host, Placement, Topology


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
        raise place.at("per_host").refuse(placement.per_host, "set count or per_host, not both")
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
    if (
        component.merged.function != "load_balancer"
        or len(fleet.ordered) == 1
        or (placement.spread or fleet.spread) == "none"
    ):
        return
    host, most = Counter(dealt).most_common(1)[0]
    if most > 1:
        right = f"{component.name} would have {most} zones on host {host!r}, of which one can only stand in for the other: take one for each host"
        raise place.refuse(placement.per_host or len(dealt), f"{right}, or set spread: none")


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
        return f"no host names its {unit}: give each its zone, or set spread: {weaker}"
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
    return f"{who} {where}; it may use {len(used)} of {len(there)} {unit}s: {better}, or set spread: {weaker}"


def with_users(placed: t.Sequence[Placed], known: Catalogue) -> list[Placed]:
    """The same, with the deployed services that need one by name where its ports and front ends are open to ``users``."""
    users: dict[str, list[str]] = {}
    for name in sorted({one.component.service for one in placed}):
        for need in known.services[name].needs:
            users.setdefault(need, []).append(name)

    def named(one: Declared, peers: t.Sequence[str]) -> tuple[str, ...]:
        return tuple(name for peer in peers for name in (users.get(one.service, []) if peer == "users" else [peer]))

    def resolved(one: Declared) -> Declared:
        ports = {name: replace(port, from_=named(one, port.from_)) for name, port in one.merged.ports.items()}
        listen = {
            name: replace(front, from_=named(one, front.from_ or (("any",) if front.public else ("users",))))
            for name, front in one.merged.listen.items()
        }
        return replace(one, merged=replace(one.merged, ports=ports, listen=listen))

    return [replace(one, component=resolved(one.component)) for one in placed]


def place_all(
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
            shared = topology.identity.from_ and any(one.merged.function == "identity" for one in known.of(need))
            if need not in topology.services and not shared:
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
