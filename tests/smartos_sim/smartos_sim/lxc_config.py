# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What LXC is told of a zone: its configuration, of which the limits can also change while the zone runs."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import typing as t
from pathlib import Path

from . import metadata
from .platform import VM

CODE = Path(__file__).resolve().parents[1]
"""This simulator, which zones see below /native as real ones see the platform."""
NATIVE = "/native/usr/lib/smartos-sim"
JOYENT = ("joyent", "joyent-minimal", "builder")

CGROUP = "cgroup" if os.path.exists("/sys/fs/cgroup/memory") else "cgroup2"
CPU_PERIOD = 100_000  # microseconds
MIB = 1024 * 1024


def bridge(tag: str, vlan: int = 0) -> str:
    """The bridge of a NIC tag and VLAN: there are no 802.1Q devices here, so each VLAN is a wire of its own."""
    name = f"nt-{tag}" + (f".{vlan}" if vlan else "")
    return name if len(name) <= 15 else f"nt-{hashlib.sha1(name.encode()).hexdigest()[:12]}"


def config(vm: VM, root: Path, home: Path, hostname: str) -> str:
    """A zone's LXC configuration, see lxc.container.conf(5); ``home``: where LXC's files of the zone lie."""
    joyent = vm["brand"] in JOYENT
    name = (root / "etc/nodename").read_text().strip() if joyent else hostname
    lines: list[tuple[str, t.Any]] = [
        ("include", "/usr/share/lxc/config/common.conf"),
        ("tty.dir", ""),
        ("apparmor.profile", "unconfined"),
        ("uts.name", name),
        ("rootfs.path", f"dir:{root}"),
        ("signal.halt", "SIGTERM" if joyent else "SIGRTMIN+3"),
        ("console.logfile", home / "console.log"),
        ("console.rotate", 1),
    ]
    if joyent:
        lines.append(("init.cmd", f"{NATIVE}/bin/svc.startd --zone {vm['zonename']}"))
    elif vm.get("init_name"):
        lines.append(("init.cmd", vm["init_name"]))
    lines += [(f"{CGROUP}.{key}", value) for key, value in limits(vm)]
    for index, nic in enumerate(vm["nics"]):
        lines += [(f"net.{index}.{key}", value) for key, value in _nic(vm, nic, index)]
    lines += [("mount.entry", mount) for mount in _mounts(vm, joyent)]
    return "".join(f"lxc.{key} = {value}\n" for key, value in lines)


def _mounts(vm: VM, joyent: bool) -> list[str]:
    """What a zone sees of the global zone: the platform, its control directory, delegated datasets, and file systems."""
    control = "" if joyent else "native/"
    mounts = [
        f"{CODE} {NATIVE[1:]} none bind,ro,create=dir 0 0",
        f"{metadata.directory(vm['uuid'])} {control}.zonecontrol none bind,create=dir 0 0",
    ]
    if vm.get("tmpfs"):
        mounts.append(f"tmpfs tmp tmpfs size={vm['tmpfs']}m,mode=1777,create=dir 0 0")
    # A delegated dataset appears in the zone below the path that it has as a dataset.
    mounts += [f"/{dataset} {dataset} none bind,create=dir 0 0" for dataset in vm.get("datasets", ())]
    for entry in vm.get("filesystems", ()):
        if entry["type"] == "lofs":
            kind = "dir" if os.path.isdir(entry["source"]) else "file"
            options = ",".join(["bind", *(one for one in entry.get("options", ()) if one == "ro"), f"create={kind}"])
            mounts.append(f"{entry['source']} {entry['target'].lstrip('/')} none {options} 0 0")
    return mounts


def _nic(vm: VM, nic: dict[str, t.Any], index: int) -> t.Iterator[tuple[str, t.Any]]:
    yield "type", "veth"
    yield "link", bridge(nic["nic_tag"], nic.get("vlan_id", 0))
    # At most 15 characters; UUIDs that people make up differ in their last digits only.
    yield "veth.pair", f"z{hashlib.sha1(vm['uuid'].encode()).hexdigest()[:10]}n{index}"
    yield "name", nic["interface"]
    yield "hwaddr", nic["mac"]
    yield "flags", "up"
    if nic.get("mtu"):
        yield "mtu", nic["mtu"]
    for text in nic.get("ips", ()):
        if "/" in text:
            yield f"ipv{ipaddress.ip_interface(text).version}.address", text
    if nic.get("primary"):
        for gateway in nic.get("gateways", ())[:1]:
            yield "ipv4.gateway", gateway


def limits(vm: VM) -> list[tuple[str, t.Any]]:
    """Limits as control files of the version of cgroups that this system has, with their values."""
    memory = vm["max_physical_memory"] * MIB
    lwps = ("pids.max", vm.get("max_lwps", "max"))
    cap = vm.get("cpu_cap", 0) * CPU_PERIOD // 100
    shares = vm.get("cpu_shares", 100)
    # Linux's even share is 1024 (of the second version: weight 100), where zones have 100.
    if CGROUP == "cgroup2":
        weight = min(10000, max(1, shares))
        return [("memory.max", memory), ("cpu.max", f"{cap or 'max'} {CPU_PERIOD}"), ("cpu.weight", weight), lwps]
    return [
        ("memory.limit_in_bytes", memory),
        ("cpu.cfs_quota_us", cap or -1),
        ("cpu.shares", max(2, shares * 1024 // 100)),
        lwps,
    ]
