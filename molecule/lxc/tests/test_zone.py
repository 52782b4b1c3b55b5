# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The zone as the host's administrator sees it, after it was made, removed, made again and given more memory."""

from __future__ import annotations

import pytest
import testinfra
from testinfra.host import Host

ZONE = "molecule-zone-1"


@pytest.fixture(scope="module")
def machine() -> Host:
    return testinfra.get_host("local://")


def inside(machine: Host, command: str) -> str:
    return str(machine.check_output("lxc-attach -n %s --clear-env -- /bin/sh -c %s", ZONE, command)).strip()


def test_zone_runs(machine: Host) -> None:
    assert machine.check_output("lxc-info -n %s -sH", ZONE) == "RUNNING"
    assert inside(machine, "systemctl is-system-running --wait") == "running"
    assert inside(machine, "cat /proc/sys/kernel/hostname") == ZONE


def test_root_in_the_zone_is_not_root_of_the_host(machine: Host) -> None:
    assert inside(machine, "cat /proc/self/uid_map").split() == ["0", "100000", "65536"]


def test_limits_hold(machine: Host) -> None:
    legacy = machine.run("lxc-cgroup -n %s memory.limit_in_bytes", ZONE)
    memory = legacy if legacy.rc == 0 else machine.run("lxc-cgroup -n %s memory.max", ZONE)
    assert int(memory.stdout) == 320 * 2**20
    legacy = machine.run("lxc-cgroup -n %s cpu.cfs_quota_us", ZONE)
    quota = legacy.stdout if legacy.rc == 0 else machine.check_output("lxc-cgroup -n %s cpu.max", ZONE).split()[0]
    assert int(quota) == 150000


def test_address_and_way_to_the_host(machine: Host) -> None:
    assert "10.98.0.10/24" in inside(machine, "ip -brief address show dev eth0")
    assert "default via 10.98.0.1" in inside(machine, "ip route")
    # Nothing listens there: to be refused is to have been reached.
    assert "refused" in machine.run("timeout 5 bash -c 'echo > /dev/tcp/10.98.0.10/9'").stderr


def test_data_outlives_the_root(machine: Host) -> None:
    assert inside(machine, "cat /srv/data/mark") == "mark"
    assert inside(machine, "test -e /etc/mark || echo gone") == "gone"
