# SPDX-License-Identifier: GPL-3.0-or-later
"""What a picture of a deployment shows, taken from what the inventory computes: nothing is decided here but what belongs together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

TIERS = {
    "entry": "The way in",
    "control": "OpenStack services",
    "compute": "Hypervisors",
    "base": "Infrastructure",
}
"""What zones are for, in the order in which a request meets them."""

STATES = {
    "running": "runs",
    "stale": "has another image than topology.yml requires: the next run rebuilds it",
    "stopped": "exists and does not run",
    "missing": "is not there",
    "unknown": "its host was not reached",
}


@dataclass(frozen=True)
class Zone:
    """One zone. ``short`` is its name without its host's."""

    name: str
    short: str
    host: str
    service: str
    component: str
    tier: str
    address: str
    further: dict[str, str]
    """Addresses on further networks."""
    provider: tuple[str, ...]
    """Provider networks of which it has a port."""
    memory: int
    vcpus: int
    image: str
    volumes: dict[str, str]
    privileged: bool

    @property
    def size(self) -> str:
        memory = (
            f"{self.memory / 1024:g} GiB" if self.memory >= 1024 and self.memory % 512 == 0 else f"{self.memory} MiB"
        )
        return f"{memory} · {self.vcpus} vCPU"

    @property
    def hint(self) -> str:
        """Everything about it, in words."""
        words = [f"{self.name}: {self.service}", self.address, self.size]
        words += [f"network {name} {address}" for name, address in self.further.items()]
        words += [f"a port of provider network {name}" for name in self.provider]
        words += [f"data volume {name} at {path}" for name, path in self.volumes.items()]
        return ", ".join([*words, "PRIVILEGED: root in it is root on its host"] if self.privileged else words)


@dataclass(frozen=True)
class Frame:
    """The zones of one service that are of one tier. ``cluster``: they vote."""

    service: str
    title: str
    text: str
    tier: str
    cluster: bool
    slot: int

    @property
    def key(self) -> tuple[str, str]:
        return self.service, self.tier


@dataclass(frozen=True)
class Host:
    name: str
    id: int
    backend: str
    store: str
    address: str
    addresses: dict[str, str]
    groups: tuple[str, ...]
    zone: str
    """Failure domain, where the hosts name theirs."""

    @property
    def title(self) -> str:
        return f"{self.name} · {self.zone}" if self.zone else self.name


@dataclass(frozen=True)
class Network:
    """``provider``: instances are on it and zones only carry it, otherwise zones have addresses on it."""

    name: str
    cidr: str
    bridge: str
    mtu: int
    provider: bool = False
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrontEnd:
    """What HAProxy listens for. ``url`` only where it is an API of the catalog."""

    name: str
    port: int
    kind: str
    public: bool
    url: str = ""


@dataclass
class Live:
    """What the hosts said. ``servers``: zone to what HAProxy thinks of it, by front end."""

    when: str
    states: dict[str, str] = field(default_factory=dict)
    servers: dict[str, dict[str, str]] = field(default_factory=dict)

    def down(self, zone: str) -> list[str]:
        """The front ends that do not use a zone, with HAProxy's word for why."""
        return [f"{name} {said}" for name, said in self.servers.get(zone, {}).items() if not said.startswith("UP")]


@dataclass(frozen=True)
class Plan:
    deployment: str
    region: str
    release: str
    internal: str
    external: str
    entry: str
    """The virtual address behind ``external``."""
    hosts: list[Host]
    frames: list[Frame]
    zones: list[Zone]
    networks: list[Network]
    front_ends: list[FrontEnd]
    live: Live | None = None

    def members(self, frame: Frame, host: str | None = None) -> list[Zone]:
        """The zones of a frame, of all hosts or of one."""
        return [zone for zone in self.zones if (zone.service, zone.tier) == frame.key and host in (None, zone.host)]

    def sections(self) -> list[tuple[str, list[Host]]]:
        """Hosts that belong to the same groups, those with the way in first, then those with the most zones on each."""
        sections: dict[str, list[Host]] = {}
        for host in self.hosts:
            sections.setdefault(", ".join(host.groups), []).append(host)
        count = {host.name: sum(zone.host == host.name for zone in self.zones) for host in self.hosts}
        entry = {zone.host for zone in self.zones if zone.tier == "entry"}

        def order(item: tuple[str, list[Host]]) -> tuple[bool, float, int]:
            names = {host.name for host in item[1]}
            return not names & entry, -sum(count[name] for name in names) / len(names), item[1][0].id

        return sorted(sections.items(), key=order)

    def summary(self) -> str:
        def many(number: int, what: str) -> str:
            return f"{number} {what}{'' if number == 1 else 's'}"

        services = len({zone.service for zone in self.zones})
        return f"{many(len(self.hosts), 'host')}, {many(len(self.zones), 'zone')}, {many(services, 'service')}"


def tier_of(service: dict[str, Any]) -> str:
    """What a component is for, from what its file declares."""
    if service.get("function") == "load_balancer":
        return "entry"
    if service["phase"] == "compute" or service["provider"]:
        return "compute"
    shown = any(listen["public"] for listen in service["listen"].values())
    serves = service["api"] or service["identity"] or service["database"] or service["queue"] or shown
    return "control" if serves else "base"


def networks_of(computed: Any) -> list[Network]:
    """The networks, `zone` first and the provider networks last."""
    stack = computed.stack
    found = [
        Network(name, facts["cidr"], facts["bridge"], facts["mtu"])
        for name, facts in sorted(stack["networks"].items(), key=lambda item: item[0] != "zone")
    ]
    for name, facts in stack["cloud"]["networks"].items():
        on = facts["gateway_host"]
        words = [
            f"floating addresses {facts['pool'][0]} – {facts['pool'][1]}"
            if facts["external"]
            else "no floating addresses",
            f"gateway {facts['gateway']}" + (f" on {on}" if on else " of the site"),
            *([f"port {facts['interface']}"] if facts["interface"] else []),
            *([f"virtual address {facts['vip']}"] if facts["vip"] else []),
        ]
        found.append(Network(name, facts["cidr"], facts["bridge"], facts["mtu"], True, tuple(words)))
    return found


def front_ends_of(stack: dict[str, Any]) -> list[FrontEnd]:
    """What the load balancer serves, by port."""
    found = []
    for name, front in stack["front_ends"].items():
        if front["type"] is None:
            found.append(FrontEnd(name, front["port"], front["mode"].upper(), front["public"]))
            continue
        urls = stack["endpoint"].get(front["component"]) or stack["endpoint"].get(front["service"]) or {}
        found.append(FrontEnd(front["type"], front["port"], "API", front["public"], urls.get("public", "")))
    return sorted(found, key=lambda one: one.port)


def zone_of(zone: Any, component: str, service: dict[str, Any], name: str) -> Zone:
    """A zone as the picture has it.

    :param zone: the inventory's; ``service``: the noun of its component; ``name``: its service's name.
    """
    size = service["zone"]
    return Zone(
        name=zone.name,
        short=zone.name.removeprefix(f"{zone.host}-"),
        host=zone.host,
        service=name,
        component=component,
        tier=tier_of(service),
        address=zone.address,
        further={key: one.address for key, one in (zone.networks or {}).items()},
        provider=tuple(zone.provider or ()),
        memory=size["memory"],
        vcpus=size["vcpus"],
        image=service["image"]["id"],
        volumes={key: volume["path"] for key, volume in size["volumes"].items()},
        privileged=size["privileged"],
    )


def hosts_of(computed: Any) -> list[Host]:
    """The hosts in the order of their ids."""
    return [
        Host(
            name,
            host.id,
            host.backend,
            computed.hosts[name]["store"],
            host.address or ("this machine" if host.connection == "local" else ""),
            computed.hosts[name]["addresses"],
            tuple(host.groups),
            host.zone or "",
        )
        for name, host in sorted(computed.topology.hosts.items(), key=lambda item: item[1].id)
    ]


def plan_of(computed: Any, live: Live | None = None) -> Plan:
    """The picture's contents.

    :param computed: the inventory's ``Cloud``.
    """
    stack, topology = computed.stack, computed.topology
    owners = {component: service for service, components in computed.parents.items() for component in components}
    frames: dict[tuple[str, str], Frame] = {}
    zones = []
    for component, service in computed.services.items():
        name, tier = owners.get(component, component), tier_of(service)
        frame = Frame(name, component, service["description"], tier, service["quorum"], service["slot"])
        if before := frames.get(frame.key):
            frame = replace(before, title=name, slot=min(before.slot, frame.slot))
        frames[frame.key] = frame
        for zone in computed.zones[component]:
            zones.append(zone_of(zone, component, service, name))
    slots = {component: service["slot"] for component, service in computed.services.items()}
    ids = {name: host.id for name, host in topology.hosts.items()}
    order = list(TIERS)
    return Plan(
        deployment=stack["deployment"],
        region=stack["region"],
        release=stack["release"],
        internal=stack["vip"]["internal"],
        external=stack["vip"]["external"],
        entry=stack["vip"]["external_address"],
        hosts=hosts_of(computed),
        frames=sorted(frames.values(), key=lambda one: (order.index(one.tier), not one.cluster, one.slot)),
        zones=sorted(zones, key=lambda one: (slots[one.component], ids[one.host], one.name)),
        networks=networks_of(computed),
        front_ends=front_ends_of(stack),
        live=live,
    )


def read_plan(topology: Path, live: Live | None = None) -> Plan:
    """The plan of a ``topology.yml``."""
    from cloud import compute

    return plan_of(compute(topology), live)
