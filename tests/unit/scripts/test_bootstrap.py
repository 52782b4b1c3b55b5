# SPDX-License-Identifier: GPL-3.0-or-later
"""What bootstrap-aio.sh refuses, and which network it takes."""

from __future__ import annotations

import argparse
import ipaddress
import re

import pytest

import bootstrap
from checks.finding import Finding
from checks.machine import SYSTEMS
from checks.uses import Use
from deployment import ROOT


def use(network: str, what: str = "something") -> Use:
    return Use(ipaddress.IPv4Network(network), what)


def test_first_free_network_is_taken() -> None:
    assert bootstrap.choose_network(None, []) == bootstrap.CANDIDATES[0]
    assert bootstrap.choose_network(None, [use("10.77.4.0/24")]) == bootstrap.CANDIDATES[1]
    assert bootstrap.choose_network(None, [use("10.77.8.0/24", "the provider network")]) == bootstrap.CANDIDATES[1]
    assert bootstrap.choose_network(None, [use("10.0.0.0/8")]) == "172.29.8.0/21"


def test_overlap_names_what_it_overlaps() -> None:
    found = bootstrap.choose_network("10.99.0.0/21", [use("10.99.7.53/32", "name server 10.99.7.53 in resolv.conf")])
    assert isinstance(found, Finding)
    assert str(found) == (
        "problem: network: 10.99.0.0/21 (or 10.99.8.0/24 next to it) overlaps name server 10.99.7.53 in resolv.conf. "
        "Fix: set a free network, for example --network 10.99.0.0/21."
    )


def test_all_candidates_taken_names_each() -> None:
    found = bootstrap.choose_network(
        None, [use(block, "a VPN") for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    )
    assert isinstance(found, Finding) and all(candidate in found.what for candidate in bootstrap.CANDIDATES)


def test_candidates_are_usable_and_in_every_private_block() -> None:
    networks = [ipaddress.IPv4Network(bootstrap.given_network(candidate)) for candidate in bootstrap.CANDIDATES]
    assert all(not a.overlaps(b) for a in networks for b in networks if a is not b)
    for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
        assert any(network.subnet_of(ipaddress.IPv4Network(block)) for network in networks)


@pytest.mark.parametrize(
    ("zones", "provider"),
    [("10.77.0.0/21", "10.77.8.0/24"), ("172.16.0.0/16", "172.17.0.0/24"), ("10.255.248.0/21", "10.255.247.0/24")],
)
def test_provider_network_lies_beside_that_of_the_zones(zones: str, provider: str) -> None:
    assert bootstrap.provider_network(zones) == provider


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.77.0.1/21", "host bits"),
        ("10.77.0.0/24", "/16 to /22"),
        ("10.0.0.0/8", "/16 to /22"),
        ("8.8.8.0/21", "not private"),
        ("nonsense", "use a network such as 10.77.0.0/21"),
    ],
)
def test_unsuitable_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        bootstrap.given_network(text)


@pytest.mark.parametrize(
    "text",
    [
        "networks:\n  zone:  # all\n    cidr: 10.9.0.0/21\n    bridge: br0\n",
        "networks: {zone: {cidr: '10.9.0.0/21', bridge: br0}}\n",
    ],
)
def test_written_network_is_read_without_a_yaml_library(text: str) -> None:
    # the second form has everything on the line of `networks:`
    assert bootstrap.written_network(text) == ("10.9.0.0/21", "br0")


def test_shell_and_python_support_the_same_systems() -> None:
    """The shell must know before there is a Python to ask."""
    asked = re.search(
        r"^ *((?:\w+:\d+(?: \| )?)+)\) ;;$", (ROOT / "scripts/bootstrap-aio.sh").read_text(), re.MULTILINE
    )
    assert asked and asked[1].split(" | ") == [
        f"{name}:{version}" for name, versions in SYSTEMS.items() for version in versions
    ]
