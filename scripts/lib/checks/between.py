# SPDX-License-Identifier: GPL-3.0-or-later
"""Several hosts: their clocks, identities and names, and whether they reach each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from checks.finding import Facts, Finding, names
from checks.networks import ZONE_PORT
from checks.uses import addresses_of

CLOCK_SECONDS = 1.0
"""Clocks may differ by so much, with the time that an answer takes on its way. Fernet tokens are stamped with whole seconds."""
NEUTRON_MACS = "fa:16:3e:"
"""What the addresses of Neutron's ports begin with (its option base_mac): the deployment's own instances and routers."""


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
        yield cut_off(facts, "no host reaches any other host", next(iter(lost.values())))
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
