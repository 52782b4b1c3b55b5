# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel settings of a host of zones: what they are raised to, and what is enough for so many zones.

A host raises each to its wanted value. In a container that may be impossible (``/proc/sys`` is read-only there by default), and what the
outer host has may do: less than the least for this host's zones is an error, all else is lived with. Standard library alone, because
scripts/lib/bootstrap.py asks the same of a machine that has nothing else yet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A setting: what it is raised to (``wanted``), and what the host itself and each of its zones need at least."""

    wanted: int
    host: int
    zone: float = 0


SETTINGS = {
    # Zones reach the world through their host.
    "net.ipv4.ip_forward": Setting(1, 1),
    # systemd takes four for each zone, its journal included; the limit is for all zones together, as they share one user id.
    "fs.inotify.max_user_instances": Setting(8192, 16, 4),
    # About 60 are watched in a zone of systemd, udev and cron at rest.
    "fs.inotify.max_user_watches": Setting(524288, 1024, 100),
    # A database server asks for about 3,000, and every tenth zone is one.
    "fs.aio-max-nr": Setting(1048576, 4096, 300),
    # A daemon that gets no keyring of its own runs without: systemd goes on.
    "kernel.keys.maxkeys": Setting(20000, 0),
    "kernel.keys.maxbytes": Setting(2000000, 0),
    # Below gc_thresh3 entries none is refused (arp(7)): each zone talks to a score of others. The other two only say when to tidy up.
    "net.ipv4.neigh.default.gc_thresh1": Setting(4096, 0),
    "net.ipv4.neigh.default.gc_thresh2": Setting(8192, 0),
    "net.ipv4.neigh.default.gc_thresh3": Setting(16384, 128, 20),
}


def least(name: str, zones: int) -> int:
    """What is enough of a setting for a host of so many zones; 0 of one that is not known, for nothing fails without it."""
    setting = SETTINGS.get(name)
    return int(setting.host + setting.zone * zones) if setting else 0
