# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask every host of a deployment whether it can be what topology.yml says, and print a line for each thing that is not so.

facts.py runs on all hosts at once, and checks/ says what the answers mean. Here is what lies between: what the topology wants of
each host, and the way to it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

import facts
import global_zone
import probes
from checks import between, machine, networks
from checks.finding import Finding, names
from checks.needs import CPUS, DISK_MIB, DISK_MIB_ZONE, LEAST_SHARE, Bridge, Needs, Place
from checks.unreachable import NO_PYTHON, NO_SUDO, judge_silence
from checks.uses import as_network
from cloud import compute
from deployment import Deployment, command
from kernel_settings import SETTINGS
from options import preflight

PROGRAMS = tuple(Path(one.__file__ or "") for one in (probes, facts))
"""What a host runs: the second finds the first as a module, though neither is ever a file there."""
AT_ONCE = 64
"""Hosts that are asked at a time."""
CONNECT_SECONDS = 10
PROBED = 1024
"""Of a provider network's pool, so many addresses are looked at."""

START = """\
test -x /usr/bin/python3 || exit {no_python}
test "$(id -u)" = 0 && exec {program}
sudo -n true || exit {no_sudo}
exec sudo -n {program}
"""
"""What a host is told: become root, and run the program that comes over standard input, so that nothing of it stays."""

Way = Callable[[Any, str], list[str]]
"""From a host of the topology (its ``Host``) and a shell script to the command that runs the script there."""


def way_to(host: Any, script: str, *ssh: str) -> list[str]:
    """The way that a run takes as well. ``ssh``: further arguments for ssh(1)."""
    if host.connection == "local":
        return ["sh", "-c", script]
    # Nobody is there to answer a question, and known_hosts is not to learn anything by this.
    options = ["BatchMode=yes", f"ConnectTimeout={CONNECT_SECONDS}", "UpdateHostKeys=no", "ControlPath=none"]
    given = [*ssh, *(["-p", str(host.port)] if host.port else []), *(["-l", host.user] if host.user else [])]
    return [
        "ssh",
        *(word for option in options for word in ("-o", option)),
        *given,
        host.address,
        shlex.join(["sh", "-c", script]),
    ]


@dataclass(frozen=True)
class Answer:
    """What came of asking a host: its facts, or why there are none.

    :param ahead: seconds by which its clock is ahead of this machine's; less what the answer took on its way.
    """

    facts: dict[str, Any] | None = None
    ahead: float = 0.0
    silence: Finding | None = None


def ask_global_zone(host: Any, way: Way) -> Answer:
    """Ask a SmartOS host, which may have no Python yet."""
    try:
        done = subprocess.run(
            way(host, global_zone.SCRIPT), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=facts.LIMIT + 2 * CONNECT_SECONDS, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        rc, said, out, arrived = done.returncode, done.stderr, done.stdout, time.time()
    except subprocess.TimeoutExpired:
        rc, said, out, arrived = -1, "", "", 0.0
    try:
        found = global_zone.read_answer(out)
    except (ValueError, KeyError):
        at = host.address or "localhost"
        return Answer(silence=judge_silence(rc, said, at, f"{host.user}@{at}" if host.user else at))
    return Answer(
        found, found["now"] + 0.5 - arrived
    )  # it tells whole seconds: of the last one half is over, on average


def program_of(request: Mapping[str, Any]) -> tuple[bytes, str]:
    """What a host's Python is given on standard input, and the line that makes it run that: probes.py, facts.py and the request."""
    first, second = (path.read_bytes() for path in PROGRAMS)
    line = (
        "import sys, types; take = lambda size, name: compile(sys.stdin.buffer.read(size), name, 'exec'); "
        "probes = sys.modules['probes'] = types.ModuleType('probes'); "
        f"exec(take({len(first)}, 'probes.py'), probes.__dict__); exec(take({len(second)}, 'facts.py')); main()"
    )
    return first + second + json.dumps(request).encode(), line


def ask(host: Any, request: Mapping[str, Any], way: Way) -> Answer:
    """Run facts.py on a host."""
    if host.backend == "smartos":
        return ask_global_zone(host, way)
    given, program = program_of(request)
    start = START.format(
        program=shlex.join(["/usr/bin/python3", "-I", "-c", program]),
        no_python=NO_PYTHON,
        no_sudo=NO_SUDO,
    )
    environment = {**os.environ, "LC_ALL": "C"}  # what ssh and sudo say is read
    first, out, arrived = b"", b"", 0.0
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            way(host, start), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        if not (process.stdin and process.stdout):
            raise AssertionError("Popen gives the pipes that it is asked for")
        guard = threading.Timer(facts.LIMIT + 2 * CONNECT_SECONDS, process.kill)
        guard.start()
        with process:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(given)
            first, arrived = process.stdout.readline(), time.time()
            out = process.stdout.read()
        guard.cancel()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    try:
        return Answer(json.loads(out), json.loads(first)["now"] - arrived)
    except ValueError:
        at = host.address or "localhost"
        return Answer(silence=judge_silence(process.returncode, said, at, f"{host.user}@{at}" if host.user else at))


# What the topology wants -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """Of one host: what it is asked, and what is asked of it."""

    needs: Needs
    request: dict[str, Any]


@dataclass
class Addresses:
    """The addresses that a deployment gives away: whose each is, in words, and with which MAC addresses that one may answer."""

    owners: dict[str, str] = field(default_factory=dict)
    macs: dict[str, set[str]] = field(default_factory=dict)

    def give(self, address: str, owner: str, macs: Collection[str] = ()) -> None:
        self.owners[address] = owner
        self.macs.setdefault(address, set()).update(macs)


def is_name(text: str | None) -> bool:
    """Whether this is a name for which an address has to be looked up."""
    return bool(text) and as_network(str(text)) is None


def addresses_of(computed: Any) -> Addresses:
    """Every address of the deployment's own networks and of its pools. Hosts answer with MAC addresses that they tell themselves."""
    given, stack = Addresses(), computed.stack
    for every in computed.zones.values():
        for zone in every:
            given.give(zone.address, f"the address of {zone.name}", [zone.mac])
            for network, one in (zone.networks or {}).items():
                given.give(one.address, f"the address of {zone.name} in network {network}", [one.mac])
    ways_in = [
        zone.mac
        for component, every in computed.zones.items()
        if computed.services[component].get("function") == "load_balancer"
        for zone in every
    ]
    given.give(stack["vip"]["internal"], "the virtual address", ways_in)
    for name, host in computed.hosts.items():
        for network, address in host["addresses"].items():
            given.give(address, f"the address of host {name} in network {network}")
    for name, network in stack["cloud"]["networks"].items():
        for address in pool(network):
            given.give(address, f"of the pool of network {name}", [between.NEUTRON_MACS])
        if network["gateway_host"]:
            given.give(network["gateway"], f"the gateway of network {name}")
    return given


def pool(network: Mapping[str, Any]) -> list[str]:
    """The first addresses of a provider network's pool."""
    first, last = (int(ipaddress.IPv4Address(address)) for address in network["pool"])
    return [str(ipaddress.IPv4Address(number)) for number in range(first, min(last, first + PROBED - 1) + 1)]


def front_ends(stack: Mapping[str, Any]) -> dict[int, str]:
    """What the load balancer serves at the virtual address, by port: front ends, and what is its own."""
    found = {front["port"]: name for name, front in stack["front_ends"].items()}
    for service in stack["services"].values():
        for component, part in service["components"].items():
            if stack["components"][component]["function"] == "load_balancer":
                found |= {opening["port"]: f"{component} {name}" for name, opening in part["ports"].items()}
    return found


def bridges_of(computed: Any, name: str) -> list[Bridge]:
    """The bridges that a run makes on a host."""
    stack = computed.stack
    networks = {**stack["networks"], **(stack["cloud"]["networks"] if computed.hosts[name]["backend"] == "lxc" else {})}
    found = []
    for (network, facts_of), one in zip(networks.items(), computed.hosts[name]["bridges"], strict=True):
        address = one["address"].partition("/")[0] if one["address"] else None
        # the network of a site's own router is there already, and hosts may know a way to it
        made = not one["provider"] or facts_of["gateway_host"] == name
        found.append(Bridge(one["bridge"], network, facts_of["cidr"], one["mtu"], one["interface"], address, made))
    return found


def probes_of(computed: Any, name: str, bridges: list[Bridge], zones: list[Any], pools: bool) -> list[dict[str, Any]]:
    """Which addresses a host asks for, and where. ``pools``: whether it asks for those of the pools, which one host does for all."""
    stack, host = computed.stack, computed.hosts[name]
    found = []
    for bridge in bridges:
        if provider := stack["cloud"]["networks"].get(bridge.network):
            mine = [*(pool(provider) if pools else []), provider["gateway"]]
        elif bridge.network == "zone":
            mine = [
                *(zone.address for zone in zones),
                host["addresses"]["zone"],
                stack["vip"]["internal"],
                *host["builders"],
            ]
        else:
            further = [
                zone.networks[bridge.network].address for zone in zones if bridge.network in (zone.networks or {})
            ]
            mine = [*further, host["addresses"][bridge.network]]
        found.append({"device": bridge.interface or bridge.name, "addresses": mine})
    return found


def wanted(computed: Any, given: Addresses) -> dict[str, Wanted]:
    """What each host is asked, and what is asked of it."""
    stack, hosts = computed.stack, computed.topology.hosts
    placed: dict[str, list[tuple[Any, dict[str, Any]]]] = {name: [] for name in hosts}
    for component, every in computed.zones.items():
        for zone in every:
            placed[zone.host].append((zone, computed.services[component]))
    hypervisors = [name for name, zones in placed.items() if any(service["provider"] for _zone, service in zones)]
    names = sorted(
        {*filter(is_name, (host.address for host in hosts.values())), *filter(is_name, [stack["vip"]["external"]])}
    )
    ports = front_ends(stack)
    # The same list for all: of a thousand hosts it would otherwise be a million rows. A host answers itself.
    pings = [
        {"address": host["addresses"][network], "mtu": one["mtu"]}
        for network, one in stack["networks"].items()
        for host in computed.hosts.values()
    ]
    found = {}
    for name, zones in placed.items():
        bridges = bridges_of(computed, name)
        sizes = tuple(
            Place(zone.name, service["zone"]["memory"], service["zone"]["vcpus"], service["zone"]["quota"])
            for zone, service in zones
        )
        devices = tuple(sorted({device for _zone, service in zones for device in service["zone"]["devices"]}))
        needs = Needs(
            f"what topology.yml places there ({len(zones)} zones)",
            memory=int(sum(zone.memory for zone in sizes) * LEAST_SHARE),
            disk=DISK_MIB + len(zones) * DISK_MIB_ZONE,
            cpus=min(CPUS, max((zone.vcpus for zone in sizes), default=1)),
            store=computed.hosts[name]["store"],
            zones=sizes,
            count=len(zones),
            bridges=tuple(bridges),
            devices=devices,
            hypervisor=name in hypervisors,
            taken=given.owners,
            virtual=stack["vip"]["internal"],
            ports=ports,
            links={link["name"]: link["kind"] for link in computed.hosts[name].get("links", ())},
        )
        asked = probes_of(computed, name, bridges, [zone for zone, _service in zones], name in hypervisors[:1])
        found[name] = Wanted(
            needs,
            {"names": names, "pings": pings, "probes": asked, "devices": list(devices), "settings": list(SETTINGS)},
        )
    return found


# What the answers mean ---------------------------------------------------------------------------------------------------


def judged(
    computed: Any, given: Addresses, wants: Mapping[str, Wanted], answers: Mapping[str, Answer]
) -> Iterator[Finding]:
    """Everything that is not as the topology wants it, host by host and then between them."""
    told = {name: answer.facts for name, answer in answers.items() if answer.facts is not None}
    for name, answer in answers.items():
        if answer.silence:
            yield of_host(name, answer.silence)
        elif answer.facts is not None:
            needs = wants[name].needs
            if computed.hosts[name]["backend"] == "smartos":
                yield from (of_host(name, finding) for finding in global_zone.judge_global_zone(answer.facts, needs))
                continue
            for judgement in (
                machine.judge_system,
                machine.judge_size,
                machine.judge_probes,
                machine.judge_settings,
                machine.judge_kernel,
                networks.judge_networks,
            ):
                for finding in judgement(answer.facts, needs):
                    yield of_host(name, finding)
            for finding in machine.judge_rights(answer.facts):
                yield of_host(name, finding)
    stack, hosts = computed.stack, computed.topology.hosts
    yield from between.judge_identities(told)
    yield from between.judge_clocks(
        {name: answers[name].ahead for name in told}, {name: one["synchronised"] for name, one in told.items()}
    )
    external = stack["vip"]["external"]
    names = {name: host.address for name, host in hosts.items() if is_name(host.address)}
    yield from between.judge_names(told, names, [external] if is_name(external) else [])
    own = {
        network: {name: host["addresses"][network] for name, host in computed.hosts.items()}
        for network in stack["networks"]
    }
    yield from between.judge_reach(told, own, {network: one["bridge"] for network, one in stack["networks"].items()})
    for name, one in told.items():
        macs = [link["address"] for link in one["links"] if link.get("address")]
        for address in computed.hosts[name]["addresses"].values():
            given.give(address, given.owners[address], macs)
        for network in stack["cloud"]["networks"].values():
            if network["gateway_host"] == name:
                given.give(network["gateway"], given.owners[network["gateway"]], macs)
        if not one["zones"]:  # later they may be at work
            for address in computed.hosts[name]["builders"]:
                given.give(address, "kept for image builders")
    yield from between.judge_answers(told, given.owners, given.macs)
    gateways = {
        network["gateway"]: (name, network["interface"])
        for name, network in stack["cloud"]["networks"].items()
        if network["interface"] and not network["gateway_host"]
    }
    yield from between.judge_gateways(told, gateways)


def of_host(name: str, finding: Finding) -> Finding:
    return Finding(finding.check, finding.what, finding.fix, name, finding.fatal)


def look(computed: Any, way: Way = way_to) -> list[Finding]:
    """Ask all hosts and judge what they tell; problems first."""
    given = addresses_of(computed)
    wants = wanted(computed, given)
    machines = computed.topology.hosts
    with ThreadPoolExecutor(min(AT_ONCE, len(machines) or 1)) as pool:
        asked = {name: pool.submit(ask, host, wants[name].request, way) for name, host in machines.items()}
    answers = {name: one.result() for name, one in asked.items()}
    return sorted(judged(computed, given, wants, answers), key=lambda finding: not finding.fatal)


def main() -> int:
    options = preflight().parse_args()
    deployment = Deployment(options.deployment).require()
    computed = compute(deployment.topology)
    began = time.monotonic()
    found = look(computed)
    problems = [finding for finding in found if finding.fatal]
    hosts = list(computed.topology.hosts)
    if options.json:
        rows = [
            {
                "kind": "problem" if one.fatal else "warning",
                "host": one.host or None,
                "check": one.check,
                "what": one.what,
                "fix": one.fix,
            }
            for one in found
        ]
        print(json.dumps({"deployment": computed.stack["deployment"], "hosts": hosts, "findings": rows}, indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for finding in found:
            console.print(Text(str(finding), style="red" if finding.fatal else "yellow"))
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}, {len(found) - len(problems)} warning{'s' * (len(found) - len(problems) != 1)}"
        console.print(f"{count}: {names(hosts)} checked in {time.monotonic() - began:.1f} s; nothing was changed")
    return 1 if problems else 0


if __name__ == "__main__":
    command(main, refused=2)
