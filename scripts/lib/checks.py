# SPDX-License-Identifier: GPL-3.0-or-later
"""What the facts of machines (facts.py) mean for a deployment: findings, each with its fix. Pure, and of the standard library alone.

A problem would break a run, or the deployment later. A warning costs speed, or is right where somebody wants it so.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from facts import LXC
from kernel_settings import SETTINGS, least
from probes import FIRST_ID, IDS, PROBES
from site_bridges import contradictions, is_the_sites

SYSTEMS = {"debian": ("12", "13")}
"""Supported systems (os-release(5)): ID, and each VERSION_ID. bootstrap-aio.sh asks the same before there is a Python."""
ARCHITECTURE = "x86_64"
"""What the image of hypervisors is for, and all that was ever tried."""
PYTHON = (3, 11)
"""Debian 12's; modules that run on hosts are tested with no older one."""
LXC_VERSION = 5
"""What the module zone needs."""
CPUS = 2
"""What a host needs on which a zone has two (`vcpus`) or more."""
LEAST_SHARE = 0.2
"""Of the memory that zones may use, what a host must have. The all-in-one's may use 36 GiB and need 7 (docs/explanation/performance.md)."""
SLACK = 0.93
"""A machine sold with 8 GiB shows some hundred MiB less: firmware and the kernel keep them."""
DISK_MIB, DISK_MIB_ZONE = 4 * 1024, 400
"""For the base image, caches and logs, and for each zone with its image and room to upgrade it once: 16 GiB for the all-in-one."""
DISK_MIB_DEPLOYED = 2 * 1024
"""What a machine must have left that has its zones already."""
CLOCK_SECONDS = 1.0
"""Clocks may differ by so much, with the time that an answer takes on its way. Fernet tokens are stamped with whole seconds."""
TRIED = ("/dev/net/tun",)
"""Devices that a probe opens, so that it need not be said that they are not there. Others that zones may use make it faster."""
RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""The machine's own resolv.conf(5), and systemd-resolved's with the servers that it asks itself."""
NEUTRON_MACS = "fa:16:3e:"
"""What the addresses of Neutron's ports begin with (its option base_mac): the deployment's own instances and routers."""
ZONE_PORT = re.compile(r"zs[0-9a-f]{10}n\d+")
"""The host's end of a zone's interface, as module_utils/zone/lxc.py names it."""

Facts = Mapping[str, Any]
Network = ipaddress.IPv4Network


@dataclass(frozen=True)
class Finding:
    """What is wrong and what to do. ``host`` is empty where it is about none or several; ``check`` is a word to search for."""

    check: str
    what: str
    fix: str
    host: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        where = f"{self.host}: " if self.host else ""
        return f"{'problem' if self.fatal else 'warning'}: {where}{self.check}: {self.what}. Fix: {self.fix}."


@dataclass(frozen=True)
class Bridge:
    """A bridge that a run makes on a host. ``made``: its whole network lies behind the host, or hosts, and nothing else may use it."""

    name: str
    network: str
    cidr: str
    mtu: int
    interface: str | None = None
    address: str | None = None
    made: bool = True


@dataclass(frozen=True)
class Place:
    """A zone's share of its host: MiB, processors, GiB."""

    name: str
    memory: int = 0
    vcpus: int = 0
    quota: int = 0


@dataclass(frozen=True)
class Needs:
    """What is asked of one machine.

    :param purpose: what it is for, in words that follow "and".
    :param memory: MiB; ``disk``: MiB that must be free below /var/lib/lxc.
    :param zones: what its zones may use; ``count`` how many they are.
    :param devices: those of the host that its zones may use; ``hypervisor``: whether instances run in one of them.
    :param taken: addresses that the deployment gives to somebody, and to whom.
    :param ports: ports of front ends at ``virtual``, the deployment's virtual address.
    :param links: kinds of the interfaces that a run makes as `topology.yml` declares them, by name.
    """

    purpose: str
    memory: int
    disk: int
    cpus: int = 1
    store: str = "overlay"
    zones: tuple[Place, ...] = ()
    count: int = 0
    bridges: tuple[Bridge, ...] = ()
    devices: tuple[str, ...] = ()
    hypervisor: bool = False
    taken: Mapping[str, str] = field(default_factory=dict)
    virtual: str = ""
    ports: Mapping[int, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def gib(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB"


def names(hosts: Iterable[str], most: int = 4) -> str:
    """``aio1-galera-1, aio1-galera-2`` or, of many, the first few and how many more."""
    listed = list(hosts)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


# One machine -------------------------------------------------------------------------------------------------------------


def judge_system(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """The system, and the versions of what a run finds there."""
    system = facts["system"]
    if system["version"] not in SYSTEMS.get(system["id"], ()):
        yield Finding(
            "system", f"this is {system['name']}", "use Debian 12 or 13 (other distributions are not supported yet)"
        )
    if facts["architecture"] != ARCHITECTURE:
        yield Finding(
            "architecture",
            f"{facts['architecture']}, and {'the image of hypervisors is' if needs.hypervisor else 'everything was tried'} for {ARCHITECTURE}",
            "place hypervisors on hosts of that architecture"
            if needs.hypervisor
            else "use a machine of that architecture, or try it and report the result",
            fatal=needs.hypervisor,
        )
    least = ".".join(map(str, PYTHON))
    if tuple(int(number) for number in re.findall(r"\d+", facts["python"])[:2]) < PYTHON:
        yield Finding(
            "python", f"/usr/bin/python3 is {facts['python']}", f"install Debian's own Python there, {least} or newer"
        )
    if facts["lxc"] and int(facts["lxc"].split(".")[0]) < LXC_VERSION:
        yield Finding(
            "lxc",
            f"version {facts['lxc']} is installed",
            f"install {LXC_VERSION} or newer (Debian 12 and 13 have it)",
        )


def judge_memory(memory: int, needs: Needs, otherwise: str) -> Iterator[Finding]:
    """Memory in MiB against what is placed there; ``otherwise`` is what the host does when its zones use more together."""
    zones = needs.zones
    largest = max(zones, key=lambda zone: zone.memory, default=None)
    together = sum(zone.memory for zone in zones)
    if memory < needs.memory * SLACK:
        yield Finding(
            "memory", f"{memory} MiB, and {needs.purpose} needs {needs.memory} MiB", "add memory to the machine"
        )
    elif largest and memory < largest.memory * SLACK:
        yield Finding(
            "memory",
            f"{gib(memory)}, and {largest.name} alone may use {gib(largest.memory)}",
            "add memory to the machine, or lower `memory` of that zone (services: of topology.yml)",
        )
    elif memory < together * SLACK:
        yield Finding(
            "memory",
            f"{gib(memory)}, and its {len(zones)} zones may use {gib(together)} together: if they do, {otherwise}",
            "on a development host, ignore this; otherwise add memory to the machine, or place fewer zones on it",
            fatal=False,
        )


def judge_size(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """Processors, memory and disk against what is placed there."""
    widest = max(
        (zone for zone in needs.zones if zone.vcpus > facts["cpus"]), key=lambda zone: zone.vcpus, default=None
    )
    if facts["cpus"] < needs.cpus:
        yield Finding(
            "cpus", f"{facts['cpus']}, and {needs.purpose} needs {needs.cpus}", "add processors to the machine"
        )
    elif widest:
        yield Finding(
            "cpus",
            f"{facts['cpus']}, and {widest.name} sizes its daemons for {widest.vcpus}",
            "add processors to the machine, or lower `vcpus` of that zone (services: of topology.yml)",
            fatal=False,
        )
    yield from judge_memory(facts["memory"], needs, "the kernel kills some of their processes")
    zones = needs.zones
    disk, quotas = facts["disk"], sum(zone.quota for zone in zones) * 1024
    need = DISK_MIB_DEPLOYED if facts["zones"] else needs.disk
    if disk["free"] < need:
        yield Finding(
            "disk",
            f"{LXC} has {disk['free']} MiB free and needs {need} MiB",
            f"free space, or mount a larger disk at {LXC}",
        )
    elif disk["total"] < quotas:
        yield Finding(
            "disk",
            f"{gib(disk['total'])} at {LXC}, and its {len(zones)} zones may use {gib(quotas)} together",
            "on a development host, ignore this; otherwise mount a larger disk there, or lower `quota` of zones",
            fatal=False,
        )


def judge_rights(facts: Facts) -> Iterator[Finding]:
    """What root may do here: in a container it may be less than all."""
    if missing := facts["missing_capabilities"]:
        yield Finding(
            "privileges",
            f"root does not have all capabilities here, it lacks {', '.join(missing)}",
            "use a physical or virtual machine, or give the surrounding container all capabilities (lxc.cap.drop empty, docker --privileged)",
        )
    if kinds := facts["unmapped_ids"]:
        yield Finding(
            "user ids",
            f"{FIRST_ID} to {FIRST_ID + IDS - 1}, which the zones use, are not mapped here (/proc/self/{kinds[0]})",
            "run in the initial user namespace, or map at least 165536 ids into the surrounding container",
        )


def judge_probes(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """What was tried on a machine and did not work."""
    for probe in PROBES:
        why = facts["trials"].get(probe.name)
        if why is None or (probe.hypervisor and not needs.hypervisor):
            continue
        if probe.name != "overlay":
            yield Finding("kernel", f"no {probe.name} ({why}), and {probe.purpose}", probe.fix.format(LXC))
        elif needs.store == "overlay":
            yield no_overlay(why, True)


def judge_settings(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """Settings of the kernel that a run could not raise: too small is a problem, enough for these zones is lived with."""
    for name, setting in SETTINGS.items():
        told = facts["settings"].get(name)
        if told is None or told["fixed"] is None or told["value"] >= setting.wanted:
            continue
        enough = least(name, needs.count)
        what = f"{name} is {told['value']} and cannot be raised here ({told['fixed']})"
        raised = f"sysctl -w {name}={setting.wanted} where this machine's kernel runs, on the outer host"
        if told["value"] < enough:
            yield Finding("sysctl", f"{what}; {needs.count} zones need {enough}", raised)
        else:
            yield Finding(
                "sysctl",
                f"{what}; that is enough for {needs.count} zones",
                f"nothing now; for more zones, {raised}",
                fatal=False,
            )


def judge_drops(facts: Facts, bridges: Iterable[str]) -> Iterator[Finding]:
    """Firewall rules of the site that drop what the zones behind ``bridges`` send; a run leaves them as they are."""
    for drop in facts["drops"]:
        accepted = drop["accepted"].split()
        closed = [
            bridge for bridge in bridges
            if not any(bridge == one or (one.endswith("*") and bridge.startswith(one[:-1])) for one in accepted)
        ]  # fmt: skip
        if closed:
            where = f"{drop['table']} {drop['chain']}"
            rules = (
                f"nft insert rule {where} iifname {{ {', '.join(closed)} }} accept; "
                f"nft insert rule {where} oifname {{ {', '.join(closed)} }} ct state established,related accept"
            )
            yield Finding(
                "firewall",
                f"table {drop['table']}, chain {drop['chain']} ({drop['what']}) drops what zones send through this machine",
                f"{rules}; and in the file or the firewall that makes that table",
            )


def judge_kernel(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """What zones, their stores and their networks need of the kernel."""
    if needs.store == "btrfs" and facts["disk"]["type"] != "btrfs":
        yield Finding(
            "store",
            f"topology.yml sets store: btrfs, and {LXC} is on {facts['disk']['type']}",
            f"mount a btrfs file system at {LXC}, or set another store",
        )
    if not needs.hypervisor:
        return
    if not facts["openvswitch"]:
        yield Finding(
            "kernel",
            "the kernel module openvswitch is missing, so Open vSwitch forwards packets of instances in user space, which is slower",
            "boot Debian's own kernel; in a container, load the module on the outer host",
            fatal=False,
        )
    for device in (path for path in needs.devices if path not in TRIED and not facts["devices"].get(path)):
        slower = "instances are emulated, which is slow" if device == "/dev/kvm" else "instances are slower"
        fix = (
            "use a machine with KVM, or turn on nested virtualisation, and load the module"
            if device == "/dev/kvm"
            else "load its module"
        )
        yield Finding("device", f"there is no {device}, so {slower}", fix, fatal=False)


def no_overlay(why: str, wanted: bool) -> Finding:
    """That images cannot be shared; ``wanted`` where the topology says that they are."""
    if wanted:
        fix = f"make {LXC} a bind mount of a folder on ext4, XFS or btrfs, or set store: dir for this host"
        return Finding("kernel", f"no overlay can be mounted below {LXC} ({why})", fix)
    return Finding(
        "kernel",
        f"no overlay can be mounted below {LXC} ({why}), so zones become full copies of their images (store: dir)",
        f"for faster and smaller zones, make {LXC} a bind mount of a folder on ext4, XFS or btrfs",
        fatal=False,
    )


# The networks of one machine ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """A network that something on a machine uses already, and what that is, in words."""

    network: Network
    what: str


def as_network(text: str) -> Network | None:
    """An IPv4 network or address in its usual notation; None for a name, IPv6 or nonsense."""
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return None


def route_uses(routes: list[dict[str, Any]], own: Collection[str]) -> Iterator[Use]:
    """Networks with a route of their own (``ip -j route show table all``), except those of the bridges ``own``."""
    for route in routes:
        network = as_network(str(route.get("dst")))
        if network is None or network.prefixlen == 0 or is_own(route.get("dev"), own) or network.is_loopback:
            continue
        if route.get("type") in ("broadcast", "local", "multicast"):
            continue  # these repeat an address, which address_uses() names better
        via = f"device {route['dev']}" if "dev" in route else "no device"
        yield Use(network, f"the route to {network} ({via})")


def addresses_of(link: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """IPv4 addresses of a link (``ip -j address``) with their prefix lengths."""
    for info in link.get("addr_info") or ():
        if as_network(str(info.get("local"))):
            yield info["local"], info["prefixlen"]


def address_uses(links: list[dict[str, Any]], own: Collection[str]) -> Iterator[Use]:
    """Networks of this machine's addresses (``ip -j address``), except those of the bridges ``own``."""
    for link in links:
        for address, prefix in () if is_own(link.get("ifname"), own) else addresses_of(link):
            network = as_network(f"{address}/{prefix}")
            if network and not network.is_loopback:
                yield Use(network, f"address {address}/{prefix} of {link['ifname']}")


def resolver_uses(files: Mapping[str, str]) -> Iterator[Use]:
    """Addresses of the name servers in resolv.conf files. A zone network over one of them silences DNS."""
    for name, text in files.items():
        for found in re.finditer(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE):
            network = as_network(found[1])
            if network and not network.is_loopback:
                yield Use(network, f"name server {found[1]} in {name}")


def judge_resolvers(facts: Facts) -> Iterator[Finding]:
    """Name servers that zones cannot ask, because each machine is its own loopback. A run takes the upstream file where resolved has one."""
    own, upstream = (
        re.findall(r"^\s*nameserver\s+(\S+)", facts["resolvers"].get(path, ""), re.MULTILINE) for path in RESOLVERS
    )
    if own and all(is_loopback(one) for one in own) and not [one for one in upstream if not is_loopback(one)]:
        yield Finding(
            "dns",
            f"{RESOLVERS[0]} names {own[0]} alone, which is each zone's own loopback and no name server there",
            f"name a server that zones reach in {RESOLVERS[0]}: nameserver ADDRESS, on a line of its own; or one in {RESOLVERS[1]}",
        )


def is_loopback(address: str) -> bool:
    """Whether an address, of either version, is a machine's own."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def proxy_uses(proxies: Iterable[Iterable[str]]) -> Iterator[Use]:
    """Addresses of the proxies named in the environment, as ``proxies`` of facts.py tells them."""
    for variable, host, address in proxies:
        network = as_network(address)
        if network and not network.is_loopback:
            yield Use(network, f"proxy {host} in ${variable}")


def uses_of(facts: Facts, own: Collection[str]) -> list[Use]:
    """All that a machine uses, the most telling first. ``own`` are the bridges of the deployment itself."""
    return [
        *resolver_uses(facts["resolvers"]),
        *proxy_uses(facts["proxies"]),
        *address_uses(facts["links"], own),
        *route_uses(facts["routes"], own),
    ]


def is_own(device: object, bridges: Collection[str]) -> bool:
    """Whether a device is the deployment's own: one of its bridges, or that of a further network (``zs-aio-public``)."""
    return any(device == bridge or str(device).startswith(f"{bridge}-") for bridge in bridges)


def judge_networks(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """What is in the way of the deployment's bridges, their networks and addresses on one machine."""
    if not facts["links"]:
        yield Finding(
            "network", "ip(8) is not installed, so its networks could not be checked", "apt-get install iproute2"
        )
        return
    links = {link["ifname"]: link for link in facts["links"]}
    own = [bridge.name for bridge in needs.bridges]
    for bridge in needs.bridges:
        there = links.get(bridge.name)
        kind = ((there or {}).get("linkinfo") or {}).get("info_kind")
        if there and kind != "bridge":
            yield Finding(
                "network",
                f"{bridge.name}, the bridge of network {bridge.network}, has the name of {kind or 'another device'}",
                f"rename that device, or set another name in networks.{bridge.network}.bridge",
            )
        if there and kind == "bridge" and is_the_sites(there):
            for what, fix in contradictions(there, links.get(bridge.interface or ""), bridge):
                yield Finding(
                    "network", f"{bridge.name} was there before zonestack and stays as it is, but {what}", fix
                )
        use = next((use for use in uses_of(facts, own) if use.network.overlaps(Network(bridge.cidr))), None)
        if use and bridge.made:
            yield Finding(
                "network",
                f"network {bridge.network} ({bridge.cidr}) overlaps {use.what}",
                "before the first run, set another cidr for the network in topology.yml; or remove the other use",
            )
        if bridge.interface not in needs.links and not (there and is_the_sites(there)):
            yield from judge_ports(bridge, links, facts["routes"])
    yield from judge_links(links, needs.links)
    yield from judge_resolvers(facts)
    yield from judge_drops(facts, [bridge.name for bridge in needs.bridges if bridge.made])
    for name, link in links.items():
        for address, _prefix in addresses_of(link):
            owner = needs.taken.get(address)
            if owner and not is_own(name, own):
                yield Finding(
                    "address",
                    f"{address}, which is {owner}, is an address of this machine on {name}",
                    f"ip address del {address} dev {name}",
                )
    yield from judge_listeners(
        facts, needs, {address for link in links.values() for address, _prefix in addresses_of(link)}
    )


def judge_links(links: Mapping[str, Mapping[str, Any]], declared: Mapping[str, str]) -> Iterator[Finding]:
    """Declared interfaces that a run could not make: it refuses, and changes nothing, for the same."""
    for name, kind in declared.items():
        there = links.get(name)
        have = ((there or {}).get("linkinfo") or {}).get("info_kind")
        if kind == "physical" and not there:
            yield Finding(
                "links",
                f"there is no interface {name} (there are: {names(links.keys() - {'lo'}, 8)})",
                "correct links: in topology.yml, or connect the interface",
            )
        elif kind != "physical" and there and have != kind:
            yield Finding(
                "links",
                f"{name} must be a {kind}, and the name belongs to {have or 'an interface of the machine'}",
                "rename the link",
            )


def judge_ports(
    bridge: Bridge, links: Mapping[str, Mapping[str, Any]], routes: Iterable[Mapping[str, Any]]
) -> Iterator[Finding]:
    """The ways out of a bridge: the interface that it is to have, and the ports that it has."""
    label = f"network {bridge.network}"
    if bridge.interface and bridge.interface not in links:
        yield Finding(
            "network",
            f"{label} needs interface {bridge.interface}, which does not exist (there are: {names(links, 8)})",
            f"name the right one in {bridge.network}.interface of topology.yml, or connect it",
        )
    elif bridge.interface and not links[bridge.interface].get("master"):
        if given := [address for address, _prefix in addresses_of(links[bridge.interface])]:
            yield Finding(
                "network",
                f"{bridge.interface} becomes a port of bridge {bridge.name} and has address {given[0]}, which would become unreachable",
                f"name another interface in {bridge.network}.interface, or move the address away from it",
            )
        elif any(route.get("dst") == "default" and route.get("dev") == bridge.interface for route in routes):
            yield Finding(
                "network",
                f"{bridge.interface} becomes a port of bridge {bridge.name} and carries the default route, which would be lost",
                f"name another interface in {bridge.network}.interface",
            )
    elif bridge.interface and links[bridge.interface]["master"] != bridge.name:
        yield Finding(
            "network",
            f"{bridge.interface} becomes a port of bridge {bridge.name} and is one of {links[bridge.interface]['master']}, which would lose it",
            f"name another interface in {bridge.network}.interface, such as a VLAN, or set {bridge.network}.bridge to the bridge that exists",
        )
    for name, link in links.items():
        port = link.get("master") == bridge.name and not ZONE_PORT.fullmatch(name)
        if (port or name == bridge.interface) and link["mtu"] < bridge.mtu:
            yield Finding(
                "mtu",
                f"{name} carries packets of {link['mtu']} bytes, and {label} has an mtu of {bridge.mtu}",
                f"ip link set {name} mtu {bridge.mtu} if the switch carries it, or mtu: {link['mtu']} for the network in topology.yml",
            )


def judge_listeners(facts: Facts, needs: Needs, here: Collection[str]) -> Iterator[Finding]:
    """Programs of the host at the front ends' address.

    Zones have a network stack each, so a port of the host is in nobody's way, unless it is one of an address that the deployment gives away.
    """
    for one in facts["listening"]:
        at = one["address"] if one["address"] != "*" else needs.virtual if needs.virtual in here else ""
        if at == needs.virtual and one["port"] in needs.ports:
            yield Finding(
                "port",
                f"{at}:{one['port']} ({one['protocol']}), where {needs.ports[one['port']]} is to be served, is in use by {one['program']}",
                "stop that program, or let it listen on another address or port",
            )
        elif one["address"] != needs.virtual and one["address"] in needs.taken:
            owner = needs.taken[one["address"]]
            if not any(bridge.address == one["address"] for bridge in needs.bridges):
                yield Finding(
                    "port",
                    f"{one['program']} listens on {one['address']}:{one['port']} ({one['protocol']}), and the address is {owner}",
                    "stop that program, or let it listen on another address or port",
                )


# Several machines --------------------------------------------------------------------------------------------------------


def judge_clocks(offsets: Mapping[str, float], synchronised: Mapping[str, bool | None]) -> Iterator[Finding]:
    """Clocks that differ.

    :param offsets: by how many seconds each host's clock is ahead of this machine's.
    :param synchronised: whether something keeps it right; None where nobody knows.
    """
    here = "this machine"
    every = {here: 0.0, **offsets}
    # What most agree on is the right time; where as many say one thing as another, this machine's.
    right = max(every.values(), key=lambda one: sum(abs(one - other) <= CLOCK_SECONDS for other in every.values()))
    wrong = {name: seconds - right for name, seconds in every.items() if abs(seconds - right) > CLOCK_SECONDS}
    for name, seconds in sorted(wrong.items()):
        others = "all others" if len(every) - len(wrong) > 1 or name == here else here
        yield Finding(
            "clock",
            f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} {others}; at most {CLOCK_SECONDS:g} s are allowed",
            "install chrony or systemd-timesyncd there, and make sure that it reaches a time server",
            host="" if name == here else name,
        )
    alone = [name for name, kept in synchronised.items() if kept is False and name not in wrong]
    if alone and len(offsets) > 1:
        yield Finding(
            "clock",
            f"no program synchronises the clock on {names(alone)}, so the clocks will differ",
            "install chrony or systemd-timesyncd there, and make sure that it reaches a time server",
            fatal=False,
        )


def judge_identities(facts: Mapping[str, Facts]) -> Iterator[Finding]:
    """Machines that are one, and clones that were not told so."""
    machines: dict[str, list[str]] = {}
    for name, told in facts.items():
        machines.setdefault(told["machine"], []).append(name)
    for same in machines.values():
        if len(same) > 1:
            yield Finding(
                "identity",
                f"{' and '.join(same)} are the same machine",
                "set a different address for each host of topology.yml, or remove one of them",
            )
    ids: dict[str, list[str]] = {}
    for same in machines.values():
        ids.setdefault(facts[same[0]]["machine_id"], []).append(same[0])
    for identifier, clones in ids.items():
        if len(clones) > 1 and identifier:
            yield Finding(
                "machine-id",
                f"{names(clones)} have the same /etc/machine-id, as clones do, so they get the same MAC addresses and DHCP leases",
                "on all hosts but one: rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup; reboot",
            )


def judge_names(facts: Mapping[str, Facts], hosts: Mapping[str, str], further: Collection[str]) -> Iterator[Finding]:
    """Names that do not lead where they should.

    :param hosts: hosts with the name at which topology.yml says that they are, where that is no address.
    :param further: other names of the deployment.
    """
    meant: dict[str, list[str]] = {}
    for name in hosts.values():
        told: list[list[str]] = [
            one["names"][name]
            for host, one in facts.items()
            if hosts.get(host) != name and isinstance(one["names"].get(name), list)
        ]
        if told:
            meant[name] = max(told, key=told.count)
    for host, one in facts.items():
        for name in (*hosts.values(), *further):
            known = one["names"].get(name)
            if isinstance(known, str):
                yield Finding(
                    "dns",
                    f"it cannot resolve {name} ({known})",
                    "correct /etc/resolv.conf, or add the name to /etc/hosts",
                    host=host,
                    fatal=name not in further,
                )
            elif known and name in meant and hosts.get(host) != name and known != meant[name]:
                yield Finding(
                    "dns",
                    f"it resolves {name} to {', '.join(known)}, other hosts to {', '.join(meant[name])}",
                    "correct /etc/hosts there",
                    host=host,
                )
        if isinstance(one["names"].get(one["hostname"]), str):
            yield Finding(
                "dns",
                f"it cannot resolve its own name {one['hostname']}",
                f"add `127.0.1.1 {one['hostname']}` to /etc/hosts",
                host=host,
                fatal=False,
            )
        lost = [name for name in one["package_hosts"] if isinstance(one["names"].get(name), str)]
        if lost and not one["proxies"]:
            yield Finding(
                "dns",
                f"it cannot resolve {names(lost)}, from which it gets packages, and has no proxy",
                "correct /etc/resolv.conf; the zones use it too",
                host=host,
                fatal=False,
            )


def judge_reach(
    facts: Mapping[str, Facts], networks: Mapping[str, Mapping[str, str]], bridges: Mapping[str, str]
) -> Iterator[Finding]:
    """Hosts that do not reach each other on a network, or not with packets of the size that the network claims.

    :param networks: by network, the hosts' own addresses in it; ``bridges`` the network's bridge.
    """
    facts = {name: one for name, one in facts.items() if one["links"]}
    have = {
        name: {address for link in one["links"] for address, _prefix in addresses_of(link)}
        for name, one in facts.items()
    }
    for network, addresses in networks.items():
        there = [host for host in facts if addresses.get(host) in have[host]]
        if len(facts) > 1 and len(there) < len(facts):
            lack = [host for host in facts if host not in there]
            yield Finding(
                "network",
                f"network {network} is not on {names(lack)} yet, so connectivity in it cannot be checked",
                f"scripts/run-playbooks.sh --step hosts creates bridge {bridges[network]}; connect a port of it to the other hosts, "
                "and run this again",
                fatal=False,
            )
        yield from judge_network(network, addresses, {host: facts[host] for host in there}, bridges[network])


def judge_network(
    network: str, addresses: Mapping[str, str], facts: Mapping[str, Facts], bridge: str
) -> Iterator[Finding]:
    """One network, on which these hosts have their addresses. A host tells of those only that it did not reach, or not with large packets."""
    hosts = {addresses[host]: host for host in facts}
    pings = {
        (host, hosts[one["address"]]): one
        for host, told in facts.items()
        for one in told["pings"]
        if one["address"] in hosts
    }
    lost = {pair: one["why"] or "no answer" for pair, one in pings.items() if not one["small"]}
    short = {pair: one["why"] or "no answer" for pair, one in pings.items() if one["small"]}

    def cut_off(who: Iterable[str], what: str, why: str, host: str = "") -> Finding:
        blind = [one for one in who if not uplinks(facts[one], bridge)]
        fix = f"on {names(blind)}, add the interface that leads to the other hosts to {bridge}"
        look = "check the cables and switches between them, and firewalls that drop ICMP"
        return Finding("network", f"network {network}: {what} ({why})", fix if blind else look, host)

    if len(facts) > 2 and len(lost) == len(facts) * (len(facts) - 1):
        yield cut_off(facts, "no host reaches any other host host", next(iter(lost.values())))
        return
    for host, others, every in in_common(lost, list(facts)):
        what = (
            f"{addresses[host]} and {names(others)} do not reach each other"
            if every
            else f"{addresses[host]} does not answer {names(others)}"
        )
        yield cut_off([host, *(others if not every or len(facts) == 2 else [])], what, lost[others[0], host], host)
    for host, others, _every in in_common(short, list(facts)):
        size = pings[others[0], host]["mtu"]
        yield Finding(
            "mtu",
            f"network {network}: packets of {size} bytes, the mtu of the network, do not pass between this host and {names(others)} ({short[others[0], host]}); small ones do",
            "raise the MTU of the switches between them, or set a smaller mtu for the network in topology.yml",
            host,
        )


def in_common(pairs: Collection[tuple[str, str]], hosts: list[str]) -> Iterator[tuple[str, list[str], bool]]:
    """The hosts that pairs have in common, so that one bad cable is one line: a host, its partners, and whether these are all and both ways."""
    rest, left = set(pairs), set(hosts)
    for host in hosts:
        mine = {pair for pair in rest if host in pair}
        if mine and len(mine) == 2 * (len(left) - 1):
            yield host, sorted(left - {host}), True
            rest -= mine
            left.remove(host)
    for host in hosts:
        if sources := [source for source in hosts if (source, host) in rest]:
            yield host, sources, False


def uplinks(facts: Facts, bridge: str) -> list[str]:
    """The ports of a bridge that are no zone's."""
    return [
        link["ifname"]
        for link in facts["links"]
        if link.get("master") == bridge and not ZONE_PORT.fullmatch(link["ifname"])
    ]


def judge_answers(
    facts: Mapping[str, Facts], owners: Mapping[str, str], macs: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    """Addresses that the deployment gives away, and that somebody else has.

    :param owners: whose each address is, in words.
    :param macs: the MAC addresses that its owner may answer with; a prefix ends with a colon.
    """
    heard: dict[tuple[str, str], list[str]] = {}
    for host, one in facts.items():
        for address, mac in one["answers"].items():
            right = macs.get(address, ())
            if (
                address in owners
                and mac not in right
                and not any(one.endswith(":") and mac.startswith(one) for one in right)
            ):
                heard.setdefault((address, mac), []).append(host)
    for (address, mac), hosts in sorted(heard.items()):
        yield Finding(
            "address",
            f"{address}, which is {owners[address]}, is in use: {mac} answers",
            "find that machine and change its address, or set another cidr or pool for the network in topology.yml",
            host=hosts[0],
        )


def judge_gateways(facts: Mapping[str, Facts], gateways: Mapping[str, tuple[str, str]]) -> Iterator[Finding]:
    """Routers of the site that a provider network counts on. ``gateways``: by address, the network and the interface that leads to it."""
    for address, (network, interface) in gateways.items():
        silent = [
            host for host, one in facts.items()
            if address not in one["answers"] and any(link["ifname"] == interface for link in one["links"])
        ]  # fmt: skip
        if silent:
            yield Finding(
                "network",
                f"the gateway of network {network}, {address}, does not answer at {interface} of {names(silent)}",
                f"check the cable and VLAN of {interface} and that it is up; or correct the gateway in topology.yml",
                fatal=False,
            )


# A machine that was not asked --------------------------------------------------------------------------------------------

NO_PYTHON, NO_SUDO = 81, 82
"""Exit codes with which the command that starts facts.py says that it could not."""

REFUSALS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key differs from the one in known_hosts",
        "find out why; then ssh-keygen -R {at}, and log in once by hand",
    ),
    (
        "Host key verification failed",
        "its host key is not in known_hosts",
        "log in once by hand, ssh {to}, and compare the key with that of the machine",
    ),
    (
        "Permission denied",
        "it accepts none of the SSH keys of this machine",
        "ssh-copy-id {to}, or set the right user and key (ssh_config(5))",
    ),
    (
        "Could not resolve hostname",
        "the name {at} cannot be resolved",
        "correct the address in topology.yml, or add the name to /etc/hosts",
    ),
    (
        "Connection refused",
        "nothing listens on its SSH port",
        "start sshd on it, or correct the port in topology.yml",
    ),
    (
        "timed out",
        "it does not answer",
        "check that it is on, that {at} is its address, and that no firewall drops SSH",
    ),
    ("No route to host", "it cannot be reached", "check that it is on and that {at} is its address"),
    (
        "Network is unreachable",
        "it cannot be reached",
        "check that {at} is its address and that this machine has a route to it",
    ),
)
"""What ssh(1) says when it does not get in, what that means, and what to do. ``at`` is the host's address, ``to`` with its user."""


def judge_silence(rc: int, said: str, at: str, to: str) -> Finding:
    """Why a host told nothing: what its SSH, its sudo or its Python said."""
    last = (said.strip().splitlines() or ["no message"])[-1]
    if rc < 0:
        return Finding(
            "ssh",
            "SSH logged in, and then the host did not answer in time",
            f"check its load and its disks: ssh {to} uptime",
        )
    if rc == NO_PYTHON:
        return Finding(
            "python", "there is no /usr/bin/python3, so nothing else could be checked", "apt-get install python3"
        )
    if last.startswith("ModuleNotFoundError"):
        return Finding("python", f"/usr/bin/python3 lacks modules of its own ({last})", "apt-get install python3")
    if rc == NO_SUDO:
        return Finding(
            "sudo",
            f"sudo asks for a password, or is not installed ({last})",
            "let that user become root without a password (NOPASSWD in sudoers(5))",
        )
    for words, what, fix in REFUSALS:
        if words in said:
            return Finding("ssh", what.format(at=at, to=to), fix.format(at=at, to=to))
    return Finding(
        "ssh" if rc == 255 else "facts",
        f"the program that checks the host failed ({last})",
        f"try by hand: ssh {to} python3 --version",
    )
