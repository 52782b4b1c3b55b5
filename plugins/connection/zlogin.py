# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: zlogin
short_description: Run tasks in a SmartOS zone through its global zone
version_added: 0.1.0
author: the zonestack authors (@zonestack)
description:
  - Runs commands in a zone of brand lx, joyent, joyent-minimal or builder with C(zlogin) in its global zone, which is this machine
    or is reached over SSH. The zone needs neither an SSH daemon nor a route from the controller.
  - Files travel through the command's standard input and output, so that every path is resolved inside the zone.
  - C(zlogin) reports its own failures as exit code 1, which commands use as well, and a command that was killed as 0. So the exit
    code is not taken from it, and when a command did not run to its end the zone's state is asked for and told.
  - A zone's name is its UUID, unless it was given another one; set O(zone_name).
  - This plugin has never run on a real SmartOS machine; what it knows of C(zlogin) is taken from SmartOS' sources.
requirements:
  - C(zlogin) and C(zoneadm) in the global zone, run as root (see O(zone_host_become))
extends_documentation_fragment:
  - zonestack.openstack.zone_connection
"""

EXAMPLES = r"""
# inventory: a zone of this global zone, and one of a global zone that is reached over SSH
all:
  vars:
    ansible_connection: zonestack.openstack.zlogin
  hosts:
    aio1-keystone-1:
      zone_name: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
      zone_transport: local
    gz01-keystone-1:
      zone_name: 0d8d4c1a-3c55-5d29-8a3f-6b1f0c9d7e22
      zone_transport: ssh
      ansible_host: 192.0.2.10
      ansible_user: root
"""

import shlex
import typing as t

from ansible_collections.zonestack.openstack.plugins.plugin_utils.zone_connection import ZoneConnection

#: Where pkgsrc puts commands in joyent zones; lx zones have no such folders.
PKGSRC = "/opt/local/sbin:/opt/local/bin"


class Connection(ZoneConnection):
    """A zone of SmartOS."""

    transport = "zonestack.openstack.zlogin"

    def enter(self, zone: str, argv: list[str], environment: t.Mapping[str, str]) -> list[str]:
        """Enter the zone with nothing but this environment.

        zlogin hands one argument to the login shell of the zone's root as it is, and joins several without quoting them; so
        there is exactly one.
        """
        variables = {**environment, "PATH": f"{environment['PATH']}:{PKGSRC}"}
        words = ["exec", "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *argv]
        return ["zlogin", zone, shlex.join(words)]

    def inspect(self, zone: str) -> list[str]:
        """Show the zone's line of zoneadm's list."""
        return ["zoneadm", "-z", zone, "list", "-p"]

    def explain(self, zone: str, rc: int, answer: str) -> str:
        """Name the zone's state, the third of the fields; an exit code other than 0 means that there is no such zone."""
        fields = answer.split(":")
        if rc != 0 or len(fields) < 6:
            return f"{answer}; is zone_name the name that zoneadm knows, which is the zone's UUID by default?"
        if fields[2] != "running":
            return f"the zone is {fields[2]}, and only a running one can be entered: start it first"
        return f"the zone, of brand {fields[5]}, is running, so the way into it broke"
