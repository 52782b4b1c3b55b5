# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of modules that make the networks of a host's zones."""

from __future__ import annotations


class ModuleDocFragment:
    """What a deployment's networks are on one host, and the program that makes and checks them."""

    DOCUMENTATION = r"""
options:
  deployment:
    description: Name of the deployment whose networks these are. A host may serve several.
    type: str
    required: true
  bridges:
    description: The deployment's networks on this host.
    type: list
    elements: dict
    required: true
    suboptions:
      bridge:
        description: Name of the bridge, on a SmartOS host of the NIC tag.
        type: str
        required: true
      address:
        description: The host's own address in that network, with the prefix length; none where it only passes packets on.
        type: str
      mtu:
        description: Largest packet in bytes.
        type: int
        required: true
      nat:
        description: Network whose packets to elsewhere are masqueraded, such as V(10.77.0.0/21); none without.
        type: str
      interface:
        description: Interface of the host that is a port of the bridge, the way to the site's own network.
        type: str
      provider:
        description: Whether instances are on it. What they begin does not reach the networks of the zones.
        type: bool
        default: false
  network_command:
    description: Text of the program C(zonestack-network), which makes and checks them.
    type: str
    required: true
"""
