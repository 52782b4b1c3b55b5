# SPDX-License-Identifier: GPL-3.0-or-later
"""Can this machine be an all-in-one host? Print one line per problem, each with its fix, and the network to use.

Runs before anything is installed, so it needs nothing but Python's standard library, and it changes nothing. What is looked at is in
facts.py, what is right in checks/, as for every host of a deployment (preflight.py); here is what only a first host needs: the
choice of a network. A check whose tool is not installed yet is left out; bootstrap-aio.sh runs this again after it has installed the tools.

Exit code 0: standard output is one line of JSON, ``{"network": "10.77.0.0/21", "store": "overlay"}``. Exit code 1: the
problems stand on standard error. Warnings do not fail.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import package_index
from checks.finding import Facts, Finding
from checks.machine import judge_probes, judge_rights, judge_settings, judge_size, no_overlay
from checks.needs import CPUS, DISK_MIB, DISK_MIB_ZONE, Needs
from checks.networks import judge_drops, judge_resolvers
from checks.uses import Network, Use, uses_of
from facts import gather, read
from kernel_settings import SETTINGS
from probes import shared_memory_error

ZONES = 30
ALL_IN_ONE = Needs(
    "an all-in-one",
    memory=8 * 1024,
    disk=DISK_MIB + ZONES * DISK_MIB_ZONE,
    cpus=CPUS,
    store="dir",
    count=ZONES,
    hypervisor=True,
)
"""What the whole cloud needs: 30 zones with 6.6 GiB of memory in all, and a small instance. The store is chosen here."""

CANDIDATES = ("10.77.0.0/21", "10.177.0.0/21", "10.213.8.0/21", "172.29.8.0/21", "172.22.72.0/21", "192.168.200.0/21")
"""Networks tried in turn for the zones: 2,046 addresses each, off the beaten ranges, one of each private block at least."""


def findings(facts: Facts, kept: bool) -> Iterator[Finding]:
    """What keeps this machine from being an all-in-one host. System and user were looked at by bootstrap-aio.sh.

    :param kept: whether it has a deployment already.
    """
    yield from judge_size({**facts, "zones": kept}, ALL_IN_ONE)
    yield from judge_rights(facts)
    yield from judge_probes(facts, ALL_IN_ONE)
    yield from judge_settings(facts, ALL_IN_ONE)
    if why := facts["trials"].get("overlay"):
        yield no_overlay(why, False)


def provider_network(zones: str) -> str:
    """Where instances are reached, beside the zones' network: the /24 behind it, or before it at the end of a block."""
    network = ipaddress.IPv4Network(zones)
    behind = ipaddress.IPv4Network((int(network.broadcast_address) + 1, 24))
    return str(behind if behind.is_private else ipaddress.IPv4Network((int(network.network_address) - 256, 24)))


def choose_network(given: str | None, uses: Iterable[Use]) -> str | Finding:
    """The network ``given`` when nothing uses it, or the first free candidate; what is wrong when there is none.

    It is free when the provider network beside it is free as well.
    """
    uses = list(uses)

    def taken_by(candidate: str) -> str | None:
        pair = [Network(candidate), Network(provider_network(candidate))]
        return next((use.what for use in uses if any(use.network.overlaps(one) for one in pair)), None)

    overlaps = {candidate: taken_by(candidate) for candidate in ([given] if given else CANDIDATES)}
    for candidate, what in overlaps.items():
        if what is None:
            return candidate
    taken = "; ".join(
        f"{candidate} (or {provider_network(candidate)} next to it) overlaps {what}"
        for candidate, what in overlaps.items()
    )
    return Finding("network", taken, "set a free network, for example --network 10.99.0.0/21")


def given_network(text: str) -> str:
    """Read ``--network``: a private IPv4 network of /16 to /22, written with its first address."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as why:
        raise argparse.ArgumentTypeError(f"{why}; use a network such as 10.77.0.0/21") from None
    if not 16 <= network.prefixlen <= 22:
        raise argparse.ArgumentTypeError(
            f"/{network.prefixlen} is not a possible prefix length: the zones of a host need 512 addresses, so /16 to /22 work and /21 is usual"
        )
    if not network.is_private:
        raise argparse.ArgumentTypeError(f"{text} is not private (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16)")
    return str(network)


def written_network(topology: str) -> tuple[str | None, str]:
    """The zone network and the bridge that an existing topology.yml names, read without a YAML library.

    Good enough to leave the deployment's own bridge out of the search; the inventory plugin judges the file properly.
    """
    cidr = re.search(r"\bzone:.*?\bcidr:\s*[\"']?([\d./]+)", topology, re.DOTALL)
    bridge = re.search(r"\bzone:.*?\bbridge:\s*[\"']?([\w.-]+)", topology, re.DOTALL)
    return (cidr[1] if cidr else None), (bridge[1] if bridge else "zs-aio")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--network", type=given_network, help="use this network for the zones (default: the first free one)"
    )
    parser.add_argument(
        "--topology", type=Path, help="the deployment's topology.yml; where it exists, its network is kept"
    )
    options = parser.parse_args(arguments)

    topology = read(options.topology) if options.topology else ""
    facts = gather({"settings": list(SETTINGS)})
    found = list(findings(facts, bool(topology)))
    kept, bridge = written_network(topology)
    if kept and options.network and kept != options.network:
        fix = "omit --network; or run scripts/destroy.sh --all, remove that file, and start again"
        found.append(Finding("network", f"--network {options.network}, but {options.topology} has {kept}", fix))
    found += judge_drops(facts, [bridge, f"{bridge}-public"])
    if why := shared_memory_error():
        fix = "mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm, and the same after a boot"
        found.append(
            Finding("kernel", f"no shared memory ({why}), and Ansible's processes wait for one another through it", fix)
        )
    if lack := package_index.finding(Path(__file__).resolve().parents[2]):
        found.append(lack)
    found += judge_resolvers(facts)
    network = choose_network(kept or options.network, uses_of(facts, [bridge]))
    if isinstance(network, Finding):
        found.append(network)
    for finding in sorted(found, key=lambda one: not one.fatal):
        print(finding, file=sys.stderr)
    if any(finding.fatal for finding in found):
        return 1
    print(json.dumps({"network": network, "store": "dir" if facts["trials"].get("overlay") else "overlay"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
