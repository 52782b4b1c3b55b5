# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks that a machine uses already."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from checks.finding import Facts

Network = ipaddress.IPv4Network


@dataclass(frozen=True)
class Use:
    """A network that something on a machine uses already, and what that is, in words."""

    network: Network
    what: str


def as_network(text: str) -> Network | None:
    """An IPv4 network or address in its usual notation; None for a name, IPv6 or nonsense."""
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return None


def route_uses(routes: list[dict[str, Any]], own: Collection[str]) -> Iterator[Use]:
    """Networks with a route of their own (``ip -j route show table all``), except those of the bridges ``own``."""
    for route in routes:
        network = as_network(str(route.get("dst")))
        if network is None or network.prefixlen == 0 or is_own(route.get("dev"), own) or network.is_loopback:
            continue
        if route.get("type") in ("broadcast", "local", "multicast"):
            continue  # these repeat an address, which address_uses() names better
        via = f"device {route['dev']}" if "dev" in route else "no device"
        yield Use(network, f"the route to {network} ({via})")


def addresses_of(link: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """IPv4 addresses of a link (``ip -j address``) with their prefix lengths."""
    for info in link.get("addr_info") or ():
        if as_network(str(info.get("local"))):
            yield info["local"], info["prefixlen"]


def address_uses(links: list[dict[str, Any]], own: Collection[str]) -> Iterator[Use]:
    """Networks of this machine's addresses (``ip -j address``), except those of the bridges ``own``."""
    for link in links:
        for address, prefix in () if is_own(link.get("ifname"), own) else addresses_of(link):
            network = as_network(f"{address}/{prefix}")
            if network and not network.is_loopback:
                yield Use(network, f"address {address}/{prefix} of {link['ifname']}")


def resolver_uses(files: Mapping[str, str]) -> Iterator[Use]:
    """Addresses of the name servers in resolv.conf files. A zone network over one of them silences DNS."""
    for name, text in files.items():
        for found in re.finditer(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE):
            network = as_network(found[1])
            if network and not network.is_loopback:
                yield Use(network, f"name server {found[1]} in {name}")


def proxy_uses(proxies: Iterable[Iterable[str]]) -> Iterator[Use]:
    """Addresses of the proxies named in the environment, as ``proxies`` of facts.py tells them."""
    for variable, host, address in proxies:
        network = as_network(address)
        if network and not network.is_loopback:
            yield Use(network, f"proxy {host} in ${variable}")


def uses_of(facts: Facts, own: Collection[str]) -> list[Use]:
    """All that a machine uses, the most telling first. ``own`` are the bridges of the deployment itself."""
    return [
        *resolver_uses(facts["resolvers"]),
        *proxy_uses(facts["proxies"]),
        *address_uses(facts["links"], own),
        *route_uses(facts["routes"], own),
    ]


def is_own(device: object, bridges: Collection[str]) -> bool:
    """Whether a device is the deployment's own: one of its bridges, or that of a further network (``zs-aio-public``)."""
    return any(device == bridge or str(device).startswith(f"{bridge}-") for bridge in bridges)


def is_loopback(address: str) -> bool:
    """Whether an address, of either version, is a machine's own."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
