# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd-networkd and ifupdown are told of a host's links, who is in charge, and what links lack."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.host import links as links_of
from ansible_collections.zonestack.openstack.plugins.module_utils.host.changes import HEADER


def link(name: str, kind: str = "physical", **keys: t.Any) -> dict[str, t.Any]:
    empty = dict.fromkeys(("mode", "parent", "id", "master", "address", "gateway"))
    return {"name": name, "kind": kind, "port": False, "dhcp": False, "routes": {}, "mtu": 1500, **empty, **keys}


LINKS = [
    link("eno1", master="bond0", mtu=9000),
    link("bond0", "bond", mode="802.3ad", mtu=9000),
    link(
        "mgmt",
        "vlan",
        parent="bond0",
        id=10,
        address="192.0.2.11/24",
        gateway="192.0.2.1",
        routes={"198.18.0.0/16": "192.0.2.254"},
    ),
    link("tunnel", "vlan", parent="bond0", id=20, mtu=9000, port=True),
]
NETWORKD = {
    "eno1.network": "\n[Match]\nName=eno1\n\n[Link]\nMTUBytes=9000\n\n[Network]\nBond=bond0\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n",
    "bond0.netdev": "\n[NetDev]\nName=bond0\nKind=bond\nMTUBytes=9000\n\n[Bond]\nMode=802.3ad\nMIIMonitorSec=100ms\n",
    "bond0.network": (
        "\n[Match]\nName=bond0\n\n[Link]\nMTUBytes=9000\n\n[Network]\nVLAN=mgmt\nVLAN=tunnel\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n"
    ),
    "mgmt.netdev": "\n[NetDev]\nName=mgmt\nKind=vlan\nMTUBytes=1500\n\n[VLAN]\nId=10\n",
    "mgmt.network": (
        "\n[Match]\nName=mgmt\n\n[Link]\nMTUBytes=1500\n\n[Network]\nAddress=192.0.2.11/24\nConfigureWithoutCarrier=yes\nGateway=192.0.2.1\n"
        "\n[Route]\nDestination=198.18.0.0/16\nGateway=192.0.2.254\n"
    ),
    "tunnel.netdev": "\n[NetDev]\nName=tunnel\nKind=vlan\nMTUBytes=9000\n\n[VLAN]\nId=20\n",
    "tunnel.network": (
        "\n[Match]\nName=tunnel\n\n[Link]\nMTUBytes=9000\n\n[Network]\nKeepMaster=yes\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n"
    ),
}
IFUPDOWN = """
auto eno1
iface eno1 inet manual
    pre-up ip link set dev eno1 mtu 9000 up

auto bond0
iface bond0 inet manual
    pre-up ip link add name bond0 type bond mode 802.3ad miimon 100
    pre-up ip link set dev eno1 down
    pre-up ip link set dev eno1 master bond0
    pre-up ip link set dev eno1 up
    pre-up ip link set dev bond0 mtu 9000 up
    post-down ip link delete dev bond0

auto mgmt
iface mgmt inet static
    address 192.0.2.11/24
    gateway 192.0.2.1
    pre-up ip link add link bond0 name mgmt type vlan id 10
    pre-up ip link set dev mgmt mtu 1500 up
    up ip route replace 198.18.0.0/16 via 192.0.2.254
    post-down ip link delete dev mgmt

auto tunnel
iface tunnel inet manual
    pre-up ip link add link bond0 name tunnel type vlan id 20
    pre-up ip link set dev tunnel mtu 9000 up
    post-down ip link delete dev tunnel
"""
SITE = """\
source /etc/network/interfaces.d/*
auto lo
iface lo inet loopback
# the way in
auto eno1 eno3
iface eno1 inet static
    address 192.0.2.11/24
    # by the owner
iface eno3 inet dhcp
"""


def test_networkd_is_told_of_each_link():
    assert links_of.networkd_files(LINKS) == {
        f"/etc/systemd/network/05-zonestack-{name}": HEADER + text for name, text in NETWORKD.items()
    }


def test_ifupdown_is_told_of_each_link():
    assert links_of.ifupdown_text(LINKS) == HEADER + IFUPDOWN


def test_what_ifupdown_was_told_of_a_link_before_becomes_a_comment():
    files = links_of.ifupdown_files(LINKS, {"/etc/network/interfaces": SITE})
    assert (
        files["/etc/network/interfaces"]
        == """\
source /etc/network/interfaces.d/*
auto lo
iface lo inet loopback
# the way in
#zonestack# auto eno1 eno3
auto eno3
#zonestack# iface eno1 inet static
#zonestack#     address 192.0.2.11/24
    # by the owner
iface eno3 inet dhcp
"""
    )
    again = links_of.ifupdown_files(LINKS, files)
    assert again == files


@pytest.mark.parametrize(
    ("line", "added"),
    [
        ("source /etc/network/interfaces.d/*", False),
        ("source-directory /etc/network/interfaces.d", False),
        ("source /etc/network/interfaces.d/*.cfg", True),
        ("", True),
    ],
)
def test_ifupdown_reads_the_file(line: str, added: bool):
    text = links_of.ifupdown_files(LINKS, {"/etc/network/interfaces": f"{line}\n"})["/etc/network/interfaces"]
    assert ("source /etc/network/interfaces.d/zonestack\n" in text) is added


@pytest.mark.parametrize(
    ("active", "texts", "who"),
    [
        (["systemd-networkd"], {}, "networkd"),
        (["systemd-networkd"], {"/etc/network/interfaces": "auto lo\niface lo inet loopback\n"}, "networkd"),
        (["systemd-networkd"], {"/etc/network/interfaces": "iface ens9 inet dhcp\n"}, "networkd"),
        (["systemd-networkd", "networking"], {"/etc/network/interfaces": SITE}, "ifupdown"),
        (["networking"], {"/etc/network/interfaces": "iface ens9 inet dhcp\n"}, "ifupdown"),
    ],
)
def test_who_is_in_charge(active: list[str], texts: dict[str, str], who: str):
    assert links_of.manager(active, False, texts, ["eno1"]) == who


@pytest.mark.parametrize(
    ("active", "netplan", "said"),
    [
        (["systemd-networkd"], True, "netplan manages the networks of this host"),
        (["systemd-networkd", "NetworkManager"], False, "NetworkManager manages the networks of this host"),
        (["networking"], False, "neither systemd-networkd nor ifupdown manages the networks of this host"),
    ],
)
def test_where_somebody_else_is_in_charge_it_is_refused(active: list[str], netplan: bool, said: str):
    with pytest.raises(links_of.NotOurs, match=said):
        links_of.manager(active, netplan, {"/etc/network/interfaces": "auto lo\niface lo inet loopback\n"}, ["eno1"])


def shown() -> list[dict[str, t.Any]]:
    """As iproute2 6 prints it (ip -json -details address show), cut to what is read."""
    up = ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"]
    bond = {"info_kind": "bond", "info_data": {"mode": "802.3ad", "miimon": 100}}
    vlan = {"info_kind": "vlan", "info_data": {"protocol": "802.1Q", "id": 10}}
    return [
        {
            "ifname": "eno1",
            "flags": up,
            "mtu": 9000,
            "master": "bond0",
            "linkinfo": {"info_slave_kind": "bond"},
            "addr_info": [],
        },
        {"ifname": "bond0", "flags": up, "mtu": 9000, "linkinfo": bond, "addr_info": []},
        {
            "ifname": "mgmt",
            "link": "bond0",
            "flags": up,
            "mtu": 1500,
            "linkinfo": vlan,
            "addr_info": [{"family": "inet", "local": "192.0.2.11", "prefixlen": 24}],
        },
        {
            "ifname": "tunnel",
            "link": "bond0",
            "flags": up,
            "mtu": 9000,
            "master": "zs-prod",
            "linkinfo": {**vlan, "info_data": {"id": 20}},
            "addr_info": [],
        },
    ]


ROUTES = [
    {"dst": "default", "gateway": "192.0.2.1", "dev": "mgmt"},
    {"dst": "198.18.0.0/16", "gateway": "192.0.2.254", "dev": "mgmt"},
]


def test_what_is_as_described_lacks_nothing():
    assert links_of.lacks(LINKS, shown(), ROUTES) == []
    assert list(links_of.missing(LINKS, shown())) == [] and links_of.remade(LINKS, shown()) == []


@pytest.mark.parametrize(
    ("index", "key", "value", "said"),
    [
        (0, "master", None, "eno1: is no member of bond0"),
        (0, "flags", ["BROADCAST"], "eno1: is down"),
        (1, "mtu", 1500, "bond0: mtu is 1500, not 9000"),
        (
            1,
            "linkinfo",
            {"info_kind": "bond", "info_data": {"mode": "balance-rr"}},
            "bond0: mode is balance-rr, not 802.3ad",
        ),
        (2, "addr_info", [], "mgmt: has not 192.0.2.11/24"),
        (2, "link", "eno1", "mgmt: is VLAN 10 of eno1, not 10 of bond0"),
        (0, "addr_info", [{"family": "inet", "local": "192.0.2.9", "prefixlen": 24}], "eno1: has 192.0.2.9/24 too"),
        (2, "master", "br0", "mgmt: is a member of br0"),
        (3, "ifname", "other", "tunnel: missing"),
    ],
)
def test_what_a_link_lacks_is_said(index: int, key: str, value: t.Any, said: str):
    changed = shown()
    changed[index][key] = value
    assert links_of.lacks(LINKS, changed, ROUTES) == [said]


def test_a_route_that_is_not_there_is_lacked():
    assert links_of.lacks(LINKS, shown(), ROUTES[:1]) == ["mgmt: has no route to 198.18.0.0/16 by 192.0.2.254"]


def test_what_cannot_be_there_is_said_before_anything_is_changed():
    there = [one for one in shown() if one["ifname"] != "eno1"]
    there[0]["linkinfo"] = {}
    assert list(links_of.missing(LINKS, there)) == [
        "there is no interface eno1 (there are: bond0, mgmt, tunnel)",
        "bond0 must be a bond, and the name belongs to an interface of the machine",
    ]
