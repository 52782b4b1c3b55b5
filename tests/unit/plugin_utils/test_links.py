# SPDX-License-Identifier: GPL-3.0-or-later
"""Host networks as data: what each host gets, and what is said about each declaration that contradicts itself."""

from __future__ import annotations

import typing as t

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import Lock
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, Refused
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import catalogue
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.compute import Cloud, compute
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import decode_topology

FILE = "topology.yml"
CONTROL = """
bond0: {kind: bond, mode: 802.3ad, members: [eno1, eno2], mtu: 9000}
mgmt: {kind: vlan, parent: bond0, id: 10, mtu: 1500, cidr: 192.0.2.0/24, gateway: 192.0.2.1}
tunnel: {kind: vlan, parent: bond0, id: 20}
storage: {kind: vlan, parent: bond0, id: 30, cidr: 198.51.100.0/24, routes: {198.18.0.0/16: 198.51.100.254}}
"""


def computed(links: t.Any, host: str = "", networks: str = "", hosts: str = "") -> Cloud:
    """A cloud with one host ``a`` (id 7, in the groups control and racked) and what is given; ``links`` as YAML or data."""
    text = f"""
release: "2026.2"
networks: {{zone: {{cidr: 10.64.0.0/16, interface: tunnel, mtu: 9000{networks}}}}}
hosts:
  a: {{id: 7, address: 192.0.2.11, groups: [control, racked]{host}}}
{hosts}
services: {{memcached: {{count: 1}}}}
"""
    data = {**yaml.safe_load(text), "links": yaml.safe_load(links) if isinstance(links, str) else links}
    files: dict[str, tuple[dict[str, t.Any], Place]] = {
        "memcached": ({"description": "Cache", "slot": 4}, Place("s/memcached.yml")),
        "_base": ({"suite": "trixie"}, Place("s/_base.yml")),
    }
    place = Place(FILE)
    return compute(decode_topology(data, place), catalogue(files), Lock("l", "", "x"), deployment="t", place=place)


def links_of(cloud: Cloud, host: str = "a") -> dict[str, dict[str, t.Any]]:
    return {link["name"]: link for link in cloud.hosts[host]["links"]}


def group(text: str) -> dict[str, t.Any]:
    return {"control": yaml.safe_load(text)}


def test_links_come_in_the_order_in_which_they_stand_on_one_another_and_are_complete():
    links = links_of(computed(group(CONTROL)))
    assert list(links) == ["eno1", "eno2", "bond0", "mgmt", "tunnel", "storage"]
    assert links["eno1"]["master"] == "bond0" and links["eno1"]["mtu"] == 9000
    assert links["mgmt"]["mtu"] == 1500 and links["storage"]["mtu"] == 9000
    assert links["tunnel"]["port"] is True and links["tunnel"]["address"] is None


def test_address_is_the_hosts_own_then_where_ssh_reaches_it_then_network_and_id():
    links = links_of(computed(group(CONTROL)))
    assert links["mgmt"]["address"] == "192.0.2.11/24"
    assert links["storage"]["address"] == "198.51.100.7/24"
    links = links_of(computed(group(CONTROL), host=", addresses: {storage: 198.51.100.99}"))
    assert links["storage"]["address"] == "198.51.100.99/24"


def test_a_hosts_own_link_outranks_its_groups_and_this_that_of_all():
    layers = {
        "all": {"eno1": {"mtu": 1400}, "eno5": {"mtu": 1400}, "eno6": {"mtu": 1400}},
        "control": {"eno1": {"mtu": 1600}, "eno5": {"mtu": 1600}},
        "a": {"eno1": {"mtu": 1800}},
    }
    assert {name: link["mtu"] for name, link in links_of(computed(layers)).items()} == {
        "eno1": 1800,
        "eno5": 1600,
        "eno6": 1400,
    }


def test_of_a_host_without_links_nothing_is_said():
    cloud = computed(group(CONTROL), hosts="  b: {id: 8, address: 192.0.2.12}")
    assert "links" in cloud.hosts["a"] and "links" not in cloud.hosts["b"]
    assert "links" not in computed({}).hosts["a"]


def test_a_thousand_hosts_share_a_declaration_of_four_lines():
    hosts = "\n".join(
        f"  h{number}: {{id: {number}, address: h{number}.example.net, groups: [many]}}" for number in range(8, 1008)
    )
    links = {"many": {"eno1": {"cidr": "10.9.0.0/16"}, "eno2": {"cidr": "10.10.0.0/16"}}}
    cloud = computed(links, hosts=hosts, networks=", block: 64")
    assert links_of(cloud, "h1007")["eno2"]["address"] == "10.10.3.239/16"
    assert len({link["address"] for name in cloud.hosts if name != "a" for link in cloud.hosts[name]["links"]}) == 2000


@pytest.mark.parametrize(
    ("links", "where", "right"),
    [
        ("{nobody: {eno1: {}}}", "links: value 'nobody'", "name a host, a group of hosts, or all (known: all, control, racked, a)"),
        ("{a: {lo: {}}}", "links.a.lo", "write the name of an interface"),
        ("{a: {averylonginterface: {}}}", "links.a.averylonginterface", "at most 15 characters"),
        ("{a: {b: {kind: bond, members: [e1], mode: lacp}}}", "links.a.b.mode: value 'lacp'", "802.3ad"),
        ("{a: {b: {kind: bond, members: [e1]}}}", "links.a.b.mode", "a bond needs it"),
        ("{a: {b: {kind: bond, members: [], mode: 802.3ad}}}", "links.a.b.members: value []", "at least one"),
        ("{a: {b: {kind: bond, members: [e1, e1], mode: 802.3ad}}}", "links.a.b.members[1]", "named twice"),
        ("{a: {v: {kind: vlan, id: 5}}}", "links.a.v.parent", "a vlan needs it"),
        ("{a: {v: {kind: vlan, parent: e1}}}", "links.a.v.id", "a vlan needs it"),
        ("{a: {v: {kind: vlan, parent: e1, id: 5}}}", "links.a.v.parent: value 'e1'", "declare the parent"),
        ("{a: {e1: {}, v: {kind: vlan, parent: e1, id: 4095}}}", "links.a.v.id: value 4095", "give 1 to 4094"),
        ("{a: {e1: {}, v: {kind: vlan, parent: e1, id: 5}, w: {kind: vlan, parent: e1, id: 5}}}", "links.a.v.id", "another VLAN with this number"),
        ("{a: {e1: {}, v: {kind: vlan, parent: e1, id: 5}, w: {kind: vlan, parent: v, id: 6}}}", "links.a.w.parent", "a VLAN itself"),
        ("{a: {e1: {id: 5}}}", "links.a.e1.id: value 5", "a physical link has none"),
        ("{a: {e1: {members: [e2]}}}", "links.a.e1.members: value ['e2']", "give the link another kind"),
        ("{a: {b: {kind: bridge, members: [b]}}}", "links.a.b.members[0]", "cannot be a member of itself"),
        ("{a: {b: {kind: bridge, members: [e1]}, c: {kind: bridge, members: [e1]}}}", "links.a.c.members[0]: value 'e1'", "a member of 'b' already"),
        ("{a: {b: {kind: bridge, members: [c]}, c: {kind: bridge, members: []}}}", "links.a.b.members[0]", "it is a bridge"),
        ("{a: {b: {kind: bond, mode: 802.3ad, members: [v]}, e1: {}, v: {kind: vlan, parent: e1, id: 5}}}", "links.a.b.members[0]", "it is a vlan"),
        ("{a: {b: {kind: bridge, members: [v]}, v: {kind: vlan, parent: b, id: 5}}}", "links.a.b", "it depends on itself (b > v > b)"),
        ("{a: {b: {kind: bond, mode: 802.3ad, members: [e1]}, e1: {}, v: {kind: vlan, parent: e1, id: 5}}}", "links.a.v.parent", "use that as the parent"),
        ("{a: {b: {kind: bridge, members: [e1]}, e1: {cidr: 192.0.2.0/24}}}", "links.a.e1.cidr", "give the address to 'b'"),
        ("{a: {e1: {dhcp: true, cidr: 192.0.2.0/24}}}", "links.a.e1.dhcp", "remove one"),
        ("{a: {e1: {}, v: {kind: vlan, parent: e1, id: 5, mtu: 9000}}}", "links.a.v.mtu: value 9000", "takes 1500 bytes"),
        ("{a: {e1: {mtu: 1500}, b: {kind: bond, mode: 802.3ad, members: [e1], mtu: 9000}}}", "links.a.b.mtu: value 9000", "'e1' has 1500 bytes"),
        ("{a: {e1: {mtu: 100}}}", "links.a.e1.mtu: value 100", "give 1280 to 9216"),
        ("{a: {e1: {cidr: 192.0.2.1/24}}}", "links.a.e1.cidr", "host bits are 0"),
        ("{a: {e1: {cidr: 192.0.2.0/24, gateway: 192.0.3.1}}}", "links.a.e1.gateway: value '192.0.3.1'", "use an address of 192.0.2.0/24"),
        ("{a: {e1: {gateway: 192.0.3.1}}}", "links.a.e1.gateway", "give cidr"),
        ("{a: {e1: {cidr: 192.0.2.0/24, gateway: 192.0.2.11}}}", "hosts.a.address: value '192.0.2.11'", "a router of link 'e1'"),
        ("{a: {e1: {cidr: 192.0.2.0/24, routes: {10.0.0.0/8: 10.1.1.1}}}}", "links.a.e1.routes[10.0.0.0/8]", "use an address of 192.0.2.0/24"),
        (
            "{a: {e1: {cidr: 192.0.2.0/24, gateway: 192.0.2.1}, e2: {cidr: 198.51.100.0/24, gateway: 198.51.100.1}}}",
            "links.a.e2.gateway", "has one on 'e1' too",
        ),
        ("{a: {e1: {cidr: 192.0.2.0/24}, e2: {cidr: 192.0.2.0/25}}}", "links.a.e2.cidr", "overlaps that of 'e1'"),
        ("{a: {e1: {cidr: 198.51.100.0/29}}}", "hosts.a.id: value 7", "would not be of 198.51.100.0/29"),
        ("{control: {e1: {}}, racked: {e1: {}}}", "links.racked.e1", "from group 'control' too"),
        ("{a: {zs-t: {kind: bridge, members: [e1]}}}", "links.a.zs-t", "network 'zone' makes this bridge itself"),
        ("{a: {tunnel: {mtu: 9000, cidr: 198.51.100.0/24}}}", "links.a.tunnel.cidr", "makes it a port of its bridge"),
        ("{a: {tunnel: {}}}", "links.a.tunnel.mtu: value 1500", "network 'zone' has an mtu of 9000"),
        ("{a: {b: {kind: bridge, members: [tunnel]}}}", "links.a.b.members: value 'tunnel'", "a port of its own bridge"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(links: str, where: str, right: str):
    with pytest.raises(Refused) as refused:
        computed(links)
    assert str(refused.value).startswith(f"{FILE}: {where}")
    assert right in str(refused.value)


@pytest.mark.parametrize(
    ("host", "where", "right"),
    [
        (
            ", addresses: {storage: 198.51.101.1}",
            "hosts.a.addresses.storage: value '198.51.101.1'",
            "use an address of 198.51.100.0/24",
        ),
        (", addresses: {storage: 198.51.100.255}", "hosts.a.addresses.storage", "not its first or last"),
        (
            ", addresses: {tunnel: 198.51.100.5}",
            "hosts.a.addresses.tunnel",
            "no such link with a cidr, name one (known: mgmt, storage)",
        ),
        (", addresses: {storage: 198.51.100.254}", "hosts.a.addresses.storage", "a router of link 'storage'"),
    ],
)
def test_addresses_of_a_host_are_of_its_links(host: str, where: str, right: str):
    with pytest.raises(Refused) as refused:
        computed(group(CONTROL), host=host)
    assert str(refused.value).startswith(f"{FILE}: {where}")
    assert right in str(refused.value)


def test_two_hosts_have_no_address_in_common():
    hosts = "  b: {id: 8, address: 192.0.2.12, groups: [control], addresses: {storage: 198.51.100.7}}"
    with pytest.raises(Refused, match="hosts.b.addresses.storage: value '198.51.100.7': host 'a' has it"):
        computed(group(CONTROL), hosts=hosts)


def test_smartos_hosts_are_told_that_theirs_are_not_kept():
    hosts = "  b: {id: 8, address: 192.0.2.12, backend: smartos}"
    with pytest.raises(Refused, match="/usbkey/config"):
        computed({"b": {"e1": {}}}, hosts=hosts, networks=", bridge: zones0")
