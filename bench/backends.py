#!/usr/bin/env python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same deployment in LXC containers and in zones of a simulated SmartOS host, in turn: identity and all that it stands on.

Images are built once on each. A round deploys onto each host, with no zone and no data there, and runs again. Prints the
figures, their medians, and the ratio; it judges nothing. Wants root and an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "host"))

from host import CHECKOUT, Host  # noqa: E402
from smartos import ADDRESS, make_control, make_node  # noqa: E402

TOPOLOGY = """
plugin: zonestack.openstack.topology
release: "2026.2"
networks:
  zone: {{cidr: 10.77.0.0/21}}
hosts:
  {host}
services: {{galera: , rabbit_mq: , haproxy: , memcached: , keystone: }}
"""
HOSTS = {
    "lxc": "lx1: {id: 1, connection: local}",
    "smartos": f"gz1: {{id: 1, address: {ADDRESS}, user: root, backend: smartos}}",
}
LIMIT = 3600


def run(host: Host, backend: str, script: str, *arguments: str) -> float:
    """Run one of the project's commands; its seconds."""
    begun = time.monotonic()
    host.exec([f"{CHECKOUT}/scripts/{script}", "--deployment", backend, *arguments], timeout=LIMIT)
    return time.monotonic() - begun


def linux() -> Host:
    """A fresh host of LXC containers that is its own control machine."""
    host = Host("bench-lxc").create()
    host.copy_project(worktree=True)
    topology = f"{CHECKOUT}/inventory/lxc/topology.yml"
    host.exec([f"{CHECKOUT}/scripts/bootstrap-control.sh", "lxc", "--from", "aio"], timeout=LIMIT)
    host.exec(f"cat >{topology}", input=TOPOLOGY.format(host=HOSTS["lxc"]))
    return host


def node() -> Host:
    """A simulated SmartOS host that is its own control machine."""
    host = make_node("bench-smartos", "--hostname", "gz1")
    make_control(host, "smartos", TOPOLOGY.format(host=HOSTS["smartos"]))
    return host


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="deployments onto each (default 3)")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    figures: dict[tuple[str, str], list[float]] = {}
    hosts: dict[str, Host] = {}
    try:
        for backend, make in {"lxc": linux, "smartos": node}.items():
            hosts[backend] = make()
            print(
                f"{backend}: hosts and images {run(hosts[backend], backend, 'run-playbooks.sh', '--step', 'hosts..images'):.1f} s",
                flush=True,
            )
        for number in range(1, options.rounds + 1):
            for backend, host in hosts.items():
                for what in ("deploy", "second run"):
                    seconds = run(host, backend, "run-playbooks.sh")
                    figures.setdefault((what, backend), []).append(seconds)
                    print(f"round {number}: {what:<12}{backend:<9}{seconds:7.1f} s", flush=True)
                run(host, backend, "destroy.sh", "--all", "--purge", "--keep-images", "--yes")
    finally:
        for host in hosts.values():
            host.destroy()
    for what in ("deploy", "second run"):
        medians = {backend: statistics.median(figures[what, backend]) for backend in HOSTS}
        print(
            f"median {what:<12}"
            + "".join(f"{backend} {seconds:.1f} s, " for backend, seconds in medians.items())
            + f"ratio {medians['smartos'] / medians['lxc']:.2f}"
        )


if __name__ == "__main__":
    main()
