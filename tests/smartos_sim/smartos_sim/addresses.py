# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which texts vmadm takes for addresses, and which routes for routes (facts 4.3)."""

from __future__ import annotations

import ipaddress
import os
import re
import typing as t

from .files import ToolError
from .javascript import Crash

NOT_ADDRESSES = ("dhcp", "addrconf")
LEAST_PREFIX = 8  # of IPv4
MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")


def is_v4(text: t.Any) -> bool:
    """Whether ``text`` is an IPv4 address in four decimal numbers."""
    return _is(ipaddress.IPv4Address, text)


def is_v6(text: t.Any) -> bool:
    """Whether ``text`` is an IPv6 address."""
    return _is(ipaddress.IPv6Address, text)


def is_address(text: t.Any) -> bool:
    """Whether ``text`` is an address of either kind."""
    return is_v4(text) or is_v6(text)


def _is(kind: t.Callable[[str], t.Any], text: t.Any) -> bool:
    try:
        return isinstance(text, str) and bool(kind(text))
    except ValueError:
        return False


def is_cidr(text: t.Any, *, v4_only: bool = False) -> bool:
    """Whether ``text`` is an address with a prefix length; of IPv4 at least 8. What follows the digits is not looked at."""
    address, mark, rest = str(text).partition("/")
    digits = re.match(r"\s*\+?(\d+)", rest)
    if not mark or "/" in rest or not digits:
        return False
    length = int(digits[1])
    return (is_v4(address) and LEAST_PREFIX <= length <= 32) or (not v4_only and is_v6(address) and length <= 128)


def prefix_of(netmask: t.Any) -> int:
    """The length of a netmask, which must be dotted and of leading ones."""
    if is_v4(netmask):
        bits = f"{int(ipaddress.IPv4Address(netmask)):032b}"
        if "01" not in bits:
            return bits.count("1")
    raise ToolError(f"Specified netmask value is invalid: {netmask}")


def check_allowed(addresses: t.Sequence[t.Any]) -> None:
    """Refuse ``allowed_ips`` that are no addresses or networks, or too many."""
    bad = []
    for one in addresses:
        address, mark, length = str(one).partition("/")
        most = 32 if is_v4(address) else 128 if is_v6(address) else 0
        digits = not length or not length.strip().isdigit() or 1 <= int(length) <= most
        if not most or (mark and ("/" in length or not digits or not length.strip())):
            bad.append(str(one))
    if bad:
        raise ToolError(f"invalid allowed_ips: {', '.join(bad)}")
    if len(addresses) > 13:
        raise ToolError("Maximum of 13 allowed_ips per nic")


def normal_mac(mac: str) -> str:
    """Lower case with two digits each."""
    return ":".join(f"{int(part, 16):02x}" for part in mac.split(":"))


def random_mac() -> str:
    """A unicast address that nobody bought."""
    first, *rest = os.urandom(6)
    return ":".join(f"{one:02x}" for one in ((first & 0xFC) | 0x02, *rest))


def vrrp_mac(vrid: t.Any) -> str:
    """The address that follows from a VRID."""
    return f"00:00:5e:00:01:{int(vrid):02x}"


def check_routes(payload: dict[str, t.Any], have: dict[str, t.Any], nics: list[dict[str, t.Any]]) -> None:
    """Refuse routes to what is no address or network, and those by NICs that will not be there.

    :param have: the routes that the VM has; :param nics: the NICs that it will have.
    """
    routes = dict(have)
    for name in ("routes", "set_routes"):
        for destination, gateway in (payload.get(name) or {}).items():
            if not is_v4(destination) and not is_cidr(destination, v4_only=True):
                raise ToolError(f'Invalid route destination: "{destination}" (must be IP address or CIDR)')
            found = _by_nic(gateway, nics)
            if found is None:
                raise ToolError(f'Invalid route gateway: "{gateway}" (must be IP address, MAC address, or nic)')
            routes[destination] = gateway
            _needs(found, gateway)
    for destination in payload.get("remove_routes") or ():
        routes.pop(destination, None)
    for gateway in routes.values():
        _needs(bool(_by_nic(gateway, nics)), gateway)


def _needs(found: bool, gateway: t.Any) -> None:
    if not found:
        raise ToolError(f'Route gateway: "{gateway}" refers to non-existent or DHCP nic')


def _by_nic(gateway: t.Any, nics: list[dict[str, t.Any]]) -> bool | None:
    """Whether a route can have a gateway; None when it is neither an address nor a NIC."""
    if is_v4(gateway):
        return True
    if not isinstance(gateway, str):
        raise Crash(f"TypeError: {gateway!r} has no match")
    found = re.fullmatch(r"nics\[(\d+)\]|macs\[(.+)\]", gateway)
    if not found or (found[2] and not MAC.fullmatch(found[2])):
        return None
    if found[2]:
        nic = next((one for one in nics if one.get("mac") == normal_mac(found[2])), None)
    else:
        nic = nics[int(found[1])] if int(found[1]) < len(nics) else None
    return nic is not None and any(one not in NOT_ADDRESSES for one in nic.get("ips") or ())
