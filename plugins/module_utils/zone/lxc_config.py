# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The LXC configuration of a zone: a pure function of its description, of where things lie, and of the devices that there are.

See lxc.container.conf(5), and the cgroup documents of the kernel.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import Interface, ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.owners import ID_RANGE

CPU_PERIOD = 100_000  # microseconds; the kernel's own default period of cpu.max and cpu.cfs_period_us
MIB = 1024 * 1024

COMMON_DROPPED = ("mac_admin", "mac_override", "sys_time", "sys_module", "sys_rawio")
"""What LXC's common.conf takes away from a privileged container; ``capabilities`` gives some of it back."""

LIVE_KEYS = ("lxc.start.", "lxc.cgroup.memory.", "lxc.cgroup.cpu.", "lxc.cgroup2.memory.", "lxc.cgroup2.cpu.")
"""The lines of a configuration whose values are applied to a running zone as well."""

Line = tuple[str, object]


def veth_name(uuid: str, index: int) -> str:
    """The host's end of interface ``index``: stable, at most 15 characters, and tells which zone it belongs to."""
    return f"zs{uuid.replace('-', '')[:10]}n{index}"


def render_config(zone: ZoneSpec, root: str, volumes: Path) -> str:
    """The LXC configuration of a zone, with ``root`` as its root file system and its volumes below ``volumes``.

    Limits are written for both cgroup versions; LXC takes those of the version that the host has.
    """
    lines = [
        *_identity_lines(zone, root),
        *_limit_lines(zone),
        *(line for index, interface in enumerate(zone.networks) for line in _interface_lines(zone, index, interface)),
        *(
            ("mount.entry", f"{volumes / volume.name} {volume.path[1:]} none bind,create=dir 0 0")
            for volume in zone.volumes
        ),
        *_device_lines(zone),
        *_capability_lines(zone),
    ]
    heading = ["# Written by zonestack.openstack.zone; a change by hand is found and undone.", "# " + zone.uuid]
    return "\n".join([*heading, *(f"lxc.{key} = {value}" for key, value in lines)]) + "\n"


def _identity_lines(zone: ZoneSpec, root: str) -> list[Line]:
    # The files that LXC itself ships. Debian's variants come with lxc-templates, which nothing else here needs; what they
    # add for systemd's consoles is said below.
    lines: list[Line] = [("include", "/usr/share/lxc/config/common.conf")]
    if not zone.privileged:
        lines += [
            ("include", "/usr/share/lxc/config/userns.conf"),
            ("idmap", f"u 0 {zone.idmap_base} {ID_RANGE}"),
            ("idmap", f"g 0 {zone.idmap_base} {ID_RANGE}"),
        ]
    lines += [("tty.dir", ""), ("apparmor.profile", "unconfined"), ("uts.name", zone.name), ("rootfs.path", root)]
    if root.startswith("overlayfs:"):
        # Layers built in a user namespace carry their marks in user.overlay.*; without it removing a lower directory
        # in an unprivileged zone fails with EIO.
        lines.append(("rootfs.options", "userxattr"))
    return lines


def _limit_lines(zone: ZoneSpec) -> list[Line]:
    lines: list[Line] = [("start.auto", int(zone.autostart))]
    if zone.memory is not None:
        lines += [("cgroup.memory.limit_in_bytes", zone.memory * MIB), ("cgroup2.memory.max", zone.memory * MIB)]
    if zone.cpu_cap is not None:
        quota = zone.cpu_cap * CPU_PERIOD // 100
        lines += [
            ("cgroup.cpu.cfs_period_us", CPU_PERIOD),
            ("cgroup.cpu.cfs_quota_us", quota),
            ("cgroup2.cpu.max", f"{quota} {CPU_PERIOD}"),
        ]
    return lines


def _interface_lines(zone: ZoneSpec, index: int, interface: Interface) -> list[Line]:
    net = f"net.{index}."
    lines: list[Line] = [
        (net + "type", "veth"),
        (net + "link", interface.bridge),
        (net + "veth.pair", veth_name(zone.uuid, index)),
        (net + "name", interface.name),
        (net + "hwaddr", interface.mac),
        (net + "flags", "up"),
    ]
    if interface.mtu is not None:
        lines.append((net + "mtu", interface.mtu))
    lines += [(f"{net}ipv{address.version}.address", address) for address in interface.interfaces()]
    if interface.gateway is not None:
        lines.append((f"{net}ipv{ipaddress.ip_address(interface.gateway).version}.gateway", interface.gateway))
    return lines


def _device_lines(zone: ZoneSpec) -> list[Line]:
    lines: list[Line] = []
    for device in zone.devices:
        if (number := device_number(device)) is not None:
            lines += [
                ("mount.entry", f"{device} {device[1:]} none bind,create=file 0 0"),
                ("cgroup.devices.allow", f"{number} rwm"),
                ("cgroup2.devices.allow", f"{number} rwm"),
            ]
    return lines


def _capability_lines(zone: ZoneSpec) -> list[Line]:
    if not zone.capabilities:
        return []
    cleared: Line = ("cap.drop", "")  # an empty value clears what the included files drop
    if "all" in zone.capabilities:
        return [cleared]
    return [cleared, ("cap.drop", " ".join(one for one in COMMON_DROPPED if one not in zone.capabilities))]


def device_number(device: str) -> str | None:
    """A device of this host as the kernel knows it; none where there is no such device."""
    try:
        info = os.stat(device)
    except OSError:
        return None
    if not stat.S_ISCHR(info.st_mode) and not stat.S_ISBLK(info.st_mode):
        return None
    kind = "b" if stat.S_ISBLK(info.st_mode) else "c"
    return f"{kind} {os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
