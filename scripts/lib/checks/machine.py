# SPDX-License-Identifier: GPL-3.0-or-later
"""One machine: its system, its size, what root may do on it, and its kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator

from checks.finding import Facts, Finding, gib
from checks.needs import DISK_MIB_DEPLOYED, Needs
from facts import LXC
from kernel_settings import SETTINGS, least
from probes import FIRST_ID, IDS, PROBES

SYSTEMS = {"debian": ("12", "13")}
"""Supported systems (os-release(5)): ID, and each VERSION_ID. bootstrap-aio.sh asks the same before there is a Python."""
ARCHITECTURE = "x86_64"
"""What the image of hypervisors is for, and all that was ever tried."""
PYTHON = (3, 11)
"""Debian 12's; modules that run on hosts are tested with no older one."""
LXC_VERSION = 5
"""What the module zone needs."""
SLACK = 0.93
"""A machine sold with 8 GiB shows some hundred MiB less: firmware and the kernel keep them."""
TRIED = ("/dev/net/tun",)
"""Devices that a probe opens, so that it need not be said that they are not there. Others that zones may use make it faster."""


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
