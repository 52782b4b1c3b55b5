# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options common to the connection plugins that reach a zone through its host."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by every subclass of ZoneConnection."""

    DOCUMENTATION = r"""
options:
  zone_name:
    description:
      - Name of the zone on its host.
      - C(inventory_hostname) names the play's host also in a task that is delegated to another, so its short form, which
        does not, goes before it. A zone whose name has dots needs C(zone_name).
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: inventory_hostname_short
      - name: zone_name
  zone_transport:
    description:
      - How the zone's host is reached.
      - V(local) means that the host is this machine.
      - V(ssh) goes through P(ansible.builtin.ssh#connection) to the address in C(ansible_host); every option of that
        plugin holds, set by its usual variables (C(ansible_user), C(ansible_port), C(ansible_ssh_common_args), ...)
        and configuration. One persistent SSH connection serves all zones of a host.
    type: str
    choices: [local, ssh]
    default: ssh
    vars:
      - name: zone_transport
  zone_host_become:
    description:
      - Whether the command that enters the zone runs under C(sudo -n) on the host.
      - By default it does when the user on the host is not root, which the host is asked in that very command.
    type: bool
    vars:
      - name: zone_host_become
  zone_command_timeout:
    description:
      - Seconds after which a command is killed inside the zone, with all that it started. It then ends with exit
        code 124 and a message on stderr. V(0) means no limit.
      - This is the last fence against a command that hangs; give tasks that may hang a C(timeout) of their own.
    type: int
    default: 3600
    vars:
      - name: zone_command_timeout
    env:
      - name: ZONESTACK_COMMAND_TIMEOUT
  pipelining:
    description:
      - Send modules through the command's standard input instead of copying them first.
      - On by default, because no terminal and no password is ever needed to become another user inside a zone.
    type: bool
    default: true
    env:
      - name: ANSIBLE_PIPELINING
    ini:
      - section: defaults
        key: pipelining
      - section: connection
        key: pipelining
    vars:
      - name: ansible_pipelining
notes:
  - The user inside the zone is root; C(become_user) makes it another.
  - A zone that is missing or not running is reported as unreachable. A command's own exit code, 255 included, never is.
  - When the controller is killed or the connection breaks, the command is killed inside the zone with all that it started;
    only what has detached itself (C(async) tasks, services) goes on.
  - The zone needs C(/bin/sh) and the commands C(cat), C(head), C(timeout) and C(sleep) of coreutils, nothing else; where there is no
    C(timeout) or no Linux C(/proc), as in native zones of illumos, also C(ps).
"""
