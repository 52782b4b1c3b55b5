# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment asks of one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CPUS = 2
"""What a host needs on which a zone has two (`vcpus`) or more."""
LEAST_SHARE = 0.2
"""Of the memory that zones may use, what a host must have. The all-in-one's may use 36 GiB and need 7 (docs/explanation/performance.md)."""
DISK_MIB, DISK_MIB_ZONE = 4 * 1024, 400
"""For the base image, caches and logs, and for each zone with its image and room to upgrade it once: 16 GiB for the all-in-one."""
DISK_MIB_DEPLOYED = 2 * 1024
"""What a machine must have left that has its zones already."""


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
