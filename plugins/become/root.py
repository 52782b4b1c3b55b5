# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The become plugin of hosts: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = """
name: root
short_description: Be root on a host, by sudo only where the user is not root already
version_added: "1.0.0"
author: the zonestack authors (@zonestack)
description:
  - A minimal Debian has no sudo, and root needs none. Whether the user is root may be known to ssh_config(5) only, so the host
    itself is asked, in the command that it is given anyway.
  - Any other user needs a rule of sudoers(5) without a password (C(NOPASSWD)). Sites that want another way set
    C(ansible_become_method) for their hosts.
options:
  become_user:
    description: Ignored; it is always root.
    type: str
    default: root
"""

from ansible.plugins.become import BecomeBase

from ansible_collections.zonestack.openstack.plugins.plugin_utils.zone_connection import AS_ROOT


class BecomeModule(BecomeBase):
    """Puts sudo before a command, if the host says that it is wanted."""

    name = "zonestack.openstack.root"

    def build_become_command(self, cmd: str, shell: object) -> str:
        """Return ``cmd`` as a shell command that runs as root."""
        super().build_become_command(cmd, shell)
        return f"{AS_ROOT} {self._build_success_command(cmd, shell)}" if cmd else cmd
