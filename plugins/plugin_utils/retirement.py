# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which zones go, in what order, and whether they may: a pure function of what is wanted and of what the hosts have.

A zone goes because topology.yml has it no more (:func:`surplus`), or because its host leaves (:func:`leaving`). What becomes of its
data, whether members vote, and how long its connections get to end is declared by its service: ``data``, ``quorum``, ``shrinks`` and
``drain`` of ``stack.components``. A component that no service declares any more has data that is nowhere else.
"""

from __future__ import annotations

import typing as t
from collections import Counter
from dataclasses import dataclass, field, fields, replace

Noun = t.Mapping[str, t.Any]

#: What is known of a component that no service declares any more.
UNKNOWN = {"data": "unique", "quorum": False, "shrinks": False, "drain": 20}


@dataclass(frozen=True)
class Zone:
    """A zone that a host has.

    :param described: what it was made from, see the module ``zone``.
    :param volumes: whether it has data that outlives it.
    """

    name: str
    host: str
    component: str
    running: bool
    volumes: bool
    described: Noun


@dataclass(frozen=True)
class Retirement:
    """What is to be done, in this order.

    :param refuse: why it must not be done, one sentence each; nothing may be changed then.
    :param drain: ``name`` of each zone that is to be taken out of rotation, and for how many seconds at most its connections
        may end by themselves (``wait``).
    :param stop: descriptions of the zones to stop, by host; removed they are the same ones.
    :param hosts: the hosts that lose zones and stay.
    :param running: zones of the deployment that run and stay.
    :param gone: names of the zones that go.
    :param clusters: services that lose members while all of them run: names of the ``going`` and the ``staying`` ones, by service.
    """

    refuse: list[str]
    drain: list[dict[str, t.Any]]
    stop: dict[str, list[Noun]]
    hosts: list[str]
    running: list[str]
    gone: list[str]
    clusters: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def variable(self) -> dict[str, t.Any]:
        """For Ansible. What hosts have said is handed on as it is: Ansible's own containers cannot be copied by type, as asdict does."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def read(found: t.Mapping[str, Noun]) -> list[Zone]:
    """The zones of all hosts, as ``zone_info`` tells those of each; one that two hosts tell of counts once."""
    every = {
        name: Zone(
            name,
            host,
            str(one["described"].get("metadata", {}).get("component", "")),
            bool(one["running"]),
            bool(one["described"].get("volumes")),
            one["described"],
        )
        for host, zones in found.items()
        for name, one in zones.items()
    }
    return list(every.values())


def component_facts(stack: Noun, component: str) -> Noun:
    """What is declared of a component, deployed or not."""
    return t.cast("Noun", stack["components"].get(component, UNKNOWN))


def _plan(going: list[Zone], staying: t.Iterable[Zone], refuse: list[str], stack: Noun) -> Retirement:
    stop: dict[str, list[Noun]] = {}
    for zone in going:
        stop.setdefault(zone.host, []).append(zone.described)
    drain = [
        {"name": zone.name, "wait": component_facts(stack, zone.component)["drain"]} for zone in going if zone.running
    ]
    running = [zone.name for zone in staying if zone.running]
    return Retirement(refuse, drain, stop, list(stop), running, [zone.name for zone in going])


def surplus(found: t.Mapping[str, Noun], stack: Noun) -> Retirement:
    """The zones that topology.yml has no more: another host has them, or fewer are wanted.

    Two members of one number are one too many, so they stop before their successors start. That must leave a majority of each cluster
    whose members vote, and take no data along that no other member has.

    :param found: zones by name, by host.
    :param stack: the noun.
    """
    wanted = {member["name"]: component for component, every in stack["members"].items() for member in every}
    zones = read(found)
    going = [zone for zone in zones if zone.name not in wanted]
    staying = [zone for zone in zones if zone.name in wanted]
    refuse = []
    alone = [
        zone for zone in going if zone.volumes and component_facts(stack, zone.component)["data"] in ("unique", "moved")
    ]
    if alone:
        components = ", ".join(dict.fromkeys(zone.component for zone in alone))
        refuse.append(
            f"{', '.join(zone.name for zone in alone)}: not in topology.yml any more, but no other zone has its data. To keep the data, restore "
            f"the hosts and the count of {components} in topology.yml (a hypervisor is removed together with its host: scripts/remove-host.sh). "
            "To delete it, restore them as well, run scripts/destroy.sh --purge for the zone, and only then change topology.yml"
        )
    for component, number in Counter(zone.component for zone in going if zone.running).items():
        left = [zone.name for zone in staying if zone.running and zone.component == component]
        if component_facts(stack, component)["quorum"] and stack["members"].get(component) and len(left) <= number:
            names = ", ".join(zone.name for zone in going if zone.running and zone.component == component)
            refuse.append(
                f"{names}: not in topology.yml any more, but the members of {component} that stay ({', '.join(left) or 'none'}) are not a "
                "majority of the cluster. Remove one host or one member from topology.yml at a time, with a run after each change"
            )
    return _plan(going, staying, refuse, stack)


def leaving(found: t.Mapping[str, Noun], stack: Noun, host: str, lose: t.Collection[str] = ()) -> Retirement:
    """The zones of a host that leaves.

    :param found: zones by name, by host; without those of ``host`` where it is dead.
    :param stack: the noun, of the deployment without the host.
    :param lose: components whose data may be lost although it is nowhere else.
    """
    zones = read(found)
    going = [zone for zone in zones if zone.host == host]
    wanted = {member["name"] for every in stack["members"].values() for member in every}
    staying = [zone for zone in zones if zone.host != host and zone.name in wanted]
    refuse = []
    alone = [
        component
        for component in dict.fromkeys(zone.component for zone in going if zone.volumes)
        if component_facts(stack, component)["data"] == "unique" and component not in lose
    ]
    if alone:
        refuse.append(
            f"{host}: no other host has the data of {', '.join(alone)}, and on another host it would start empty. Save what is needed (images of "
            "glance with `openstack image save`, other files from the volume in /var/lib/lxc/zonestack/volumes), then add "
            f"{' '.join(f'--lose {component}' for component in alone)}"
        )
    # Once the first of its zones is stopped, this has been asked.
    if going and all(zone.running for zone in going):
        for component, number in Counter(zone.component for zone in going).items():
            facts = component_facts(stack, component)
            left = sum(zone.running and zone.component == component for zone in staying)
            if facts["quorum"] and not facts["shrinks"] and left <= number:
                refuse.append(
                    f"{host}: {number} of the {number + left} members of {component} that run are on it, and the other {left} are not a majority. "
                    f"First add another host to those of {component} in topology.yml, and start a run, which places members there"
                )
    return replace(_plan(going, staying, refuse, stack), clusters=_clusters(going, staying, stack))


def _clusters(going: list[Zone], staying: list[Zone], stack: Noun) -> dict[str, dict[str, list[str]]]:
    """Whom a host takes members away from, unless it has begun to: then they were all there when it did."""
    if not all(zone.running for zone in going):
        return {}
    found: dict[str, dict[str, list[str]]] = {}
    for key, zones in (("going", going), ("staying", [zone for zone in staying if zone.running])):
        for zone in zones:
            service = component_facts(stack, zone.component).get("service", zone.component)
            if key == "going" or service in found:
                found.setdefault(service, {"going": [], "staying": []})[key].append(zone.name)
    return found


def surplus_here(zones: Noun, wanted: t.Collection[str]) -> list[Noun]:
    """Descriptions of those zones of one host that topology.yml has no more.

    :param zones: what the host has, by name.
    :param wanted: names of the zones that it is to have.
    """
    return [one["described"] for name, one in zones.items() if name not in wanted]


def hooks(stack: Noun, name: str, running: t.Collection[str]) -> list[dict[str, t.Any]]:
    """The task files of a hook, one for each service that has it and a member that runs.

    Where none of its members runs yet, another zone stands in for it: any may ask the APIs.

    :return: ``service``, ``file``, and ``name`` and ``address`` of the zone in which its tasks run.
    """
    found: dict[str, dict[str, t.Any]] = {}
    for component, every in stack["members"].items():
        facts = component_facts(stack, component)
        if name not in facts["hooks"]:
            continue
        first = next((member for member in every if member["name"] in running), None)
        if first is None and facts["service"] in found:
            continue
        chosen = {"service": facts["service"], "file": facts["hooks"][name], "runs": first is not None}
        if facts["service"] not in found or not found[facts["service"]]["runs"]:
            stand_in = next(iter(running), every[0]["name"])
            at = first or {"name": stand_in, "address": every[0]["address"]}
            found[facts["service"]] = {**chosen, "name": at["name"], "address": at["address"]}
    return list(found.values())
