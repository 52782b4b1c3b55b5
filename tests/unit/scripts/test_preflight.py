# SPDX-License-Identifier: GPL-3.0-or-later
"""What bootstrap-aio.sh refuses, and which network it takes."""

from __future__ import annotations

import argparse
import ipaddress

import pytest

import preflight


def use(network: str, what: str = "something") -> preflight.Use:
    return preflight.Use(ipaddress.IPv4Network(network), what)


def test_memory_is_the_smaller_of_machine_and_cgroup() -> None:
    meminfo = "MemTotal:       16384000 kB\nMemFree:  1 kB\n"
    assert preflight.memory_mib(meminfo, ["max\n", ""]) == 16000
    assert preflight.memory_mib(meminfo, [f"{4 * 2**30}\n"]) == 4096


def test_missing_capabilities_are_named() -> None:
    everything = (1 << 41) - 1
    assert preflight.missing_capabilities(f"CapBnd:\t{everything:016x}\n") == []
    without = everything & ~(1 << 21) & ~(1 << 12)
    assert preflight.missing_capabilities(f"CapBnd:\t{without:016x}\n") == ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]


@pytest.mark.parametrize(
    ("uid_map", "covers"),
    [
        ("         0          0 4294967295\n", True),
        ("0 100000 65536\n", False),
        ("0 0 1000\n1000 5000 200000\n", True),
        ("", False),
    ],
)
def test_zone_ids_must_exist_here(uid_map: str, covers: bool) -> None:
    assert preflight.maps_ids(uid_map) is covers


def test_first_free_network_is_taken() -> None:
    report = preflight.Report()
    assert preflight.choose_network(None, [], report) == preflight.CANDIDATES[0]
    assert preflight.choose_network(None, [use("10.77.4.0/24")], report) == preflight.CANDIDATES[1]
    assert preflight.choose_network(None, [use("10.77.8.0/24", "the provider network")], report) == preflight.CANDIDATES[1]
    assert preflight.choose_network(None, [use("10.0.0.0/8")], report) == "172.29.8.0/21"
    assert report.problems == []


def test_overlap_names_what_it_overlaps() -> None:
    report = preflight.Report()
    assert (
        preflight.choose_network(
            "10.99.0.0/21", [use("10.99.7.53/32", "name server 10.99.7.53 in resolv.conf")], report
        )
        is None
    )
    assert "10.99.0.0/21 (or 10.99.8.0/24 beside it) overlaps name server 10.99.7.53 in resolv.conf" in report.problems[0][0]
    assert "--network" in report.problems[0][1]


def test_all_candidates_taken_names_each() -> None:
    report = preflight.Report()
    taken = [use(block, "a VPN") for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    assert preflight.choose_network(None, taken, report) is None
    assert all(candidate in report.problems[0][0] for candidate in preflight.CANDIDATES)


def test_candidates_are_usable_and_in_every_private_block() -> None:
    networks = [ipaddress.IPv4Network(preflight.given_network(candidate)) for candidate in preflight.CANDIDATES]
    assert all(not a.overlaps(b) for a in networks for b in networks if a is not b)
    for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
        assert any(network.subnet_of(ipaddress.IPv4Network(block)) for network in networks)


@pytest.mark.parametrize(
    ("zones", "provider"),
    [("10.77.0.0/21", "10.77.8.0/24"), ("172.16.0.0/16", "172.17.0.0/24"), ("10.255.248.0/21", "10.255.247.0/24")],
)
def test_provider_network_lies_beside_that_of_the_zones(zones: str, provider: str) -> None:
    assert preflight.provider_network(zones) == provider


def test_routes_and_addresses_of_the_own_bridge_are_no_conflict() -> None:
    routes: list[dict[str, object]] = [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
        {"dst": "10.77.0.0/21", "dev": "zs-aio"},
        {"dst": "10.77.8.0/24", "dev": "zs-aio-public"},
        {"dst": "10.8.0.0/16", "dev": "tun0"},
        {"type": "broadcast", "dst": "192.0.2.255", "dev": "eth0"},
    ]
    assert [str(found.network) for found in preflight.route_uses(routes, "zs-aio")] == ["10.8.0.0/16"]
    links: list[dict[str, object]] = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
        {"ifname": "zs-aio", "addr_info": [{"local": "10.77.2.1", "prefixlen": 21}]},
        {"ifname": "zs-aio-public", "addr_info": [{"local": "10.77.8.1", "prefixlen": 24}]},
        {"ifname": "eth0", "addr_info": [{"local": "192.0.2.7", "prefixlen": 24}]},
    ]
    assert [found.what for found in preflight.address_uses(links, "zs-aio")] == ["address 192.0.2.7/24 of eth0"]


def test_resolvers_and_proxies_are_in_use() -> None:
    found = preflight.resolver_uses(
        {"/etc/resolv.conf": "nameserver 127.0.0.53\nnameserver 10.77.0.53\n# nameserver 10.1.1.1\n"}
    )
    assert [str(one.network) for one in found] == ["10.77.0.53/32"]
    found = preflight.proxy_uses({"https_proxy": "http://user:secret@10.77.1.8:3128", "HTTP_PROXY": "10.177.0.9:80"})
    assert [one.what for one in found] == ["proxy 10.77.1.8 in $https_proxy", "proxy 10.177.0.9 in $HTTP_PROXY"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.77.0.1/21", "host bits"),
        ("10.77.0.0/24", "/16 to /22"),
        ("10.0.0.0/8", "/16 to /22"),
        ("8.8.8.0/21", "not private"),
        ("nonsense", "right would be 10.77.0.0/21"),
    ],
)
def test_unsuitable_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        preflight.given_network(text)


@pytest.mark.parametrize(
    "text",
    [
        "networks:\n  zone:  # all\n    cidr: 10.9.0.0/21\n    bridge: br0\n",
        "networks: {zone: {cidr: '10.9.0.0/21', bridge: br0}}\n",
    ],
)
def test_written_network_is_read_without_a_yaml_library(text: str) -> None:
    # the second form has everything on the line of `networks:`
    assert preflight.written_network(text) == ("10.9.0.0/21", "br0")


def test_overlay_is_tried_for_real(tmp_path: object) -> None:
    """Whatever the answer is here, nothing may be left behind."""
    preflight.overlay_error(tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []  # type: ignore[attr-defined]
