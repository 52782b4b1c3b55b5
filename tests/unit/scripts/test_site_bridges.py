# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is against using a bridge of the site as it is."""

from __future__ import annotations

from typing import Any

import pytest

from checks.needs import Bridge, Needs
from checks.networks import judge_networks
from site_bridges import contradictions, is_the_sites

NEEDED = Bridge("br0", "zone", "10.98.0.0/21", 1500, "eth1", "10.98.2.9")


def link(address: str | None = "10.98.2.9/21", mtu: int = 1500, **more: Any) -> dict[str, Any]:
    info = [{"local": address.partition("/")[0], "prefixlen": int(address.partition("/")[2])}] if address else []
    return {"ifname": "br0", "mtu": mtu, "linkinfo": {"info_kind": "bridge"}, "addr_info": info, **more}


PORT = {"ifname": "eth1", "mtu": 1500, "master": "br0", "addr_info": []}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None, list[str]]] = {
    "as it is needed": (link(), PORT, []),
    "a larger MTU": (link(mtu=9000), PORT, []),
    "no address yet": (link(None), PORT, []),
    "another address of the same network": (link("10.98.0.1/21"), PORT, []),
    "a smaller MTU": (link(mtu=1300), PORT, ["its MTU 1300 is smaller than the network's 1500"]),
    "a port of another bridge": (link(), {**PORT, "master": "br1"}, ["eth1 is not a port of it"]),
    "a port that is none": (link(), {**PORT, "master": None}, ["eth1 is not a port of it"]),
    "a port that does not exist": (link(), None, ["eth1 is not a port of it"]),
    "another prefix length": (link("10.98.2.9/24"), PORT, ["it has 10.98.2.9/24, where this host needs 10.98.2.9/21"]),
    "another network": (link("10.99.0.1/21"), PORT, ["its address 10.99.0.1/21 is in another network than 10.98.2.9/21"]),
}  # fmt: skip


@pytest.mark.parametrize(("bridge", "port", "said"), CASES.values(), ids=CASES)
def test_a_bridge_of_the_site_is_used_only_where_it_fits(
    bridge: dict[str, Any], port: dict[str, Any] | None, said: list[str]
) -> None:
    assert [what for what, _fix in contradictions(bridge, port, NEEDED)] == said
    links = [bridge, *([port] if port else [])]
    facts = {"links": links, "routes": [], "resolvers": {}, "proxies": [], "drops": [], "listening": []}
    found = [
        one.what for one in judge_networks(facts, Needs("this test", 1, 1, bridges=(NEEDED,))) if "br0" in one.what
    ]
    assert found == [f"br0 was there before zonestack and stays as it is, but {what}" for what in said]


@pytest.mark.parametrize(
    ("more", "sites"), [({}, True), ({"ifalias": "zonestack:aio"}, False), ({"ifname": "zs-aio"}, False)]
)
def test_whose_bridge_it_is(more: dict[str, Any], sites: bool) -> None:
    assert is_the_sites(link(**more)) is sites
