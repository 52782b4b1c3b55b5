#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory costs: 10 to 1,000 hosts with 40 zones each, computed alone and through Ansible.

Each size runs in a process of its own, so that no measurement warms or fills another. Prints figures, judges nothing.

    bench/inventory.py [--hosts 10,100,1000] [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = 40  # zones of each host


def write_cloud(folder: Path, hosts: int) -> Path:
    """A deployment of ``hosts`` machines in ten racks, with one zone of each of 40 services on each; its ``topology.yml``. Half of
    the services say what each host holds, half are dealt."""
    services = folder / "bench_services"
    services.mkdir()
    texts = [path.read_text() for path in (ROOT / "services").glob("*/*.yml")]
    taken = max(int(slot) for text in texts for slot in re.findall(r"\bslot: (\d+)", text))
    for number in range(COMPONENTS):
        text = f"description: Service {number} of the benchmark\nslot: {taken + 1 + number}\nports: {{main: {{port: 80, from: [zones]}}}}\n"
        text += "config:\n  /etc/s.conf:\n    options: {DEFAULT: {host: '{{ zone.address }}'}}\n"
        (services / f"bench_{number}").mkdir()
        (services / f"bench_{number}" / "service.yml").write_text(text)
    release = sorted(path.stem for path in (ROOT / "locks").glob("[0-9]*.txt"))[-1]
    lines = [f'release: "{release}"', "deployment: bench", "services_path: [bench_services]"]
    lines += ["networks: {zone: {cidr: 10.0.0.0/8, block: 1024, interface: eth1}}", "services:"]
    placements = ("per_host: 1", f"count: {hosts}")
    lines += [f"  bench_{number}: {{{placements[number % 2]}}}" for number in range(COMPONENTS)]
    lines += ["hosts:"]
    lines += [
        f"  host{number}: {{id: {number}, address: h{number}.example.net, zone: rack-{number % 10}}}"
        for number in range(1, hosts + 1)
    ]
    topology = folder / "topology.yml"
    topology.write_text("\n".join(lines) + "\n")
    return topology


def link_collection(folder: Path) -> Path:
    """A folder in which Ansible finds this checkout as a collection."""
    (folder / "ansible_collections" / "zonestack").mkdir(parents=True)
    (folder / "ansible_collections" / "zonestack" / "openstack").symlink_to(ROOT)
    return folder


def measure(what: str, topology: Path, collections: Path) -> dict[str, float]:
    """One measurement inside a fresh process: seconds, and what it added to the resident memory at its peak, in MiB."""
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    _AnsibleCollectionFinder(paths=[str(collections)], scan_sys_paths=False)._install()
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader, inventory_loader

    from ansible_collections.zonestack.openstack.plugins.inventory import topology as plugin

    result: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if what == "pure":
        start = time.perf_counter()
        cloud = plugin.read_cloud(topology)
        result["seconds"] = time.perf_counter() - start
        zones = [zone for every in cloud.zones.values() for zone in every]
        result["zones"] = len(zones)
        result["bytes"] = sum(len(json.dumps(zone.variable())) for zone in zones) / len(zones)
        result["member_bytes"] = len(json.dumps(cloud.stack["members"])) / len(zones)
    else:
        init_plugin_loader([])
        inventory_loader.get("zonestack.openstack.topology")
        start = time.perf_counter()
        inventory = InventoryManager(loader=DataLoader(), sources=[str(topology)])
        result["seconds"] = time.perf_counter() - start
        result["zones"] = len(inventory.get_hosts("zones"))
    result["mebibytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return result


def fresh(what: str, hosts: int, runs: int, folder: Path) -> dict[str, float]:
    """The fastest of ``runs`` measurements: what the machine's other work added to the rest says nothing about us."""
    work = folder / f"{hosts}"
    if not work.exists():
        work.mkdir()
        write_cloud(work, hosts)
    command = [
        sys.executable,
        __file__,
        "--measure",
        what,
        "--topology",
        str(work / "topology.yml"),
        "--collections",
        str(folder),
    ]
    environment = {
        **os.environ,
        "ANSIBLE_INVENTORY_ENABLED": "zonestack.openstack.topology",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    }
    every = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
        for _ in range(runs)
    ]
    return min(every, key=lambda one: one["seconds"])


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="10,30,100,300,1000", help="numbers of hosts, with commas between")
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement, of which the fastest counts")
    parser.add_argument("--measure", choices=["pure", "ansible"], help=argparse.SUPPRESS)
    parser.add_argument("--topology", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--collections", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.topology, options.collections)))
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}; fastest of {options.runs}"
    )
    print(
        f"{'hosts':>6} {'zones':>7} {'computed':>10} {'in Ansible':>11} {'us/zone':>8} {'zone var':>9} {'members':>8} {'memory':>9}"
    )
    with tempfile.TemporaryDirectory(prefix="zonestack-bench-") as name:
        folder = link_collection(Path(name))
        for hosts in map(int, options.hosts.split(",")):
            pure = fresh("pure", hosts, options.runs, folder)
            ansible = fresh("ansible", hosts, options.runs, folder)
            print(
                f"{hosts:>6} {pure['zones']:>7.0f} {pure['seconds']:>8.3f} s {ansible['seconds']:>9.3f} s"
                f" {ansible['seconds'] / pure['zones'] * 1e6:>8.0f} {pure['bytes']:>7.0f} B {pure['member_bytes']:>6.0f} B"
                f" {ansible['mebibytes']:>5.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
