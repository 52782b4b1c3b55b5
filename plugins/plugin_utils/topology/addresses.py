# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, UUIDs and MAC addresses: arithmetic and digests, nothing is allocated.

An address is::

    address = network + host id * block + slot * 8 + (number - 1)

so adding or removing hosts, services or replicas never renumbers any other zone.
"""

from __future__ import annotations

import hashlib
import ipaddress
import uuid
from dataclasses import dataclass

#: Addresses of one component on one host, and so the most zones of a component that a host holds.
SLOT_SIZE = 8
#: Offset of a host's own address in its block: the zones' default gateway.
HOST_OFFSET = 1
#: Offset of the deployment's virtual address in block 0.
VIP_OFFSET = 5


def is_ipv4(value: str) -> bool:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return False
    return True


def is_cidr(value: str) -> bool:
    try:
        ipaddress.IPv4Network(value)
    except ValueError:
        return False
    return "/" in value


@dataclass(frozen=True)
class Space:
    """A network as arithmetic: first address and block size."""

    name: str
    first: int
    block: int

    def address(self, host_id: int, offset: int) -> str:
        return dotted(self.first + host_id * self.block + offset)


def dotted(number: int) -> str:
    """An IPv4 address from its 32 bits."""
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def uuid5_bytes(namespace: bytes, name: str) -> bytes:
    """RFC 9562 section 5.5, as ``uuid.uuid5`` but without its object: 40,000 of them are made for a large cloud."""
    digest = bytearray(hashlib.sha1(namespace + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def deployment_namespace(deployment: str) -> bytes:
    """The namespace of a deployment's zone UUIDs."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"zonestack.openstack/{deployment}").bytes


def zone_uuid(namespace: bytes, name: str) -> tuple[bytes, str]:
    """A zone's UUID from its name, as bytes and as text."""
    raw = uuid5_bytes(namespace, name)
    text = raw.hex()
    return raw, f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def zone_mac(zone: bytes, network: str) -> str:
    """A zone's MAC address on a network: locally administered (02), then the first five bytes of a UUID from its UUID."""
    # of those bytes the version and the variant of a UUID change none
    return "02:" + hashlib.sha1(zone + network.encode(), usedforsecurity=False).digest()[:5].hex(":")
