# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: lxc
short_description: Run tasks in an LXC zone through its host
version_added: 0.1.0
author: the zonestack authors (@zonestack)
description:
  - Runs commands in an LXC container with C(lxc-attach) on the container's host, which is this machine or is reached
    over SSH. The zone needs neither an SSH daemon nor a route from the controller.
  - Files travel through the command's standard input and output, so that every path is resolved inside the zone.
requirements:
  - C(lxc-attach) on the host, run as root (see O(zone_host_become))
extends_documentation_fragment:
  - zonestack.openstack.zone_connection
"""

EXAMPLES = r"""
# inventory: a zone on this machine, and one on a host that is reached over SSH
all:
  vars:
    ansible_connection: zonestack.openstack.lxc
  hosts:
    aio1-keystone-1:
      zone_transport: local
    lx01-keystone-1:
      zone_transport: ssh
      ansible_host: 192.0.2.10
      ansible_user: deploy
"""

import typing as t

from ansible_collections.zonestack.openstack.plugins.plugin_utils.zone_connection import ZoneConnection


class Connection(ZoneConnection):
    """A zone that is an LXC container."""

    transport = "zonestack.openstack.lxc"

    def enter(self, zone: str, argv: list[str], environment: t.Mapping[str, str]) -> list[str]:
        """Enter the container with nothing of the host's environment; see lxc-attach(1)."""
        variables = [word for name, value in environment.items() for word in ("-v", f"{name}={value}")]
        return ["lxc-attach", "-n", zone, "--clear-env", *variables, "--", *argv]

    def inspect(self, zone: str) -> list[str]:
        """Show the container's state; see lxc-info(1)."""
        return ["lxc-info", "-n", zone]
