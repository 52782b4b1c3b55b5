# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridges of the site that zonestack uses as they are, and what is against that. ``zonestack-network conflicts`` asks a host the same."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

MARK = "zonestack:"
"""What the alias of a bridge begins with that zonestack made; ``zs-`` is the beginning of the names that it gives."""


def is_the_sites(link: Mapping[str, Any]) -> bool:
    """Whether a bridge was there before zonestack.

    :param link: the bridge as ``ip -json -details address show`` prints it.
    """
    return not str(link.get("ifalias", "")).startswith(MARK) and not str(link["ifname"]).startswith("zs-")


def contradictions(link: Mapping[str, Any], port: Mapping[str, Any] | None, bridge: Any) -> Iterator[tuple[str, str]]:
    """What a bridge of the site has otherwise than the network needs it, each with what mends it.

    :param link: the bridge; ``port``: the interface that is to be a port of it, where it exists.
    :param bridge: what the network needs: its ``name``, ``network``, ``cidr``, ``mtu``, ``interface`` and ``address``.
    """
    if link["mtu"] < bridge.mtu:
        yield (
            f"its MTU {link['mtu']} is smaller than the network's {bridge.mtu}",
            f"raise it, or set networks.{bridge.network}.mtu: {link['mtu']} in topology.yml",
        )
    if bridge.interface and (port or {}).get("master") != bridge.name:
        yield (
            f"{bridge.interface} is not a port of it",
            f"add the port, or remove networks.{bridge.network}.interface from topology.yml",
        )
    if not bridge.address:
        return
    needed = ipaddress.ip_interface(f"{bridge.address}/{bridge.cidr.partition('/')[2]}")
    there = [
        ipaddress.ip_interface(f"{one['local']}/{one['prefixlen']}")
        for one in link.get("addr_info", ())
        if ":" not in one["local"]
    ]
    for one in there:
        if one.ip == needed.ip and one != needed:
            yield f"it has {one}, where this host needs {needed}", "correct the prefix length on one side"
    if there and not any(one.network == needed.network or one.ip in needed.network for one in there):
        yield (
            f"its address {', '.join(map(str, there))} is in another network than {needed}",
            f"set networks.{bridge.network}.cidr in topology.yml to the bridge's network, or name another bridge there",
        )
