# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.zonestack.openstack.plugins.filter.stack import (
    builder_network,
    database_accounts,
    database_url,
    front_ends,
    identity,
    mistaken_host,
    queue_users,
    source_match,
    zone_networks,
)

STACK = {
    "vip": {"internal": "10.0.0.5", "external": "10.0.0.5", "external_address": "10.0.0.5"},
    "networks": {
        "zone": {"cidr": "10.0.0.0/21", "prefix": 21, "bridge": "zs", "nic_tag": "zs_0", "mtu": 1500},
        "storage": {"cidr": "10.9.0.0/21", "prefix": 21, "bridge": "st", "mtu": 9000},
    },
    "hosts": {"h1": {"backend": "lxc", "bridge_address": "10.0.2.1"}},
    "members": {
        "haproxy": [{"name": "h1-haproxy-1", "address": "10.0.2.8"}],
        "galera": [{"name": "h1-galera-1", "address": "10.0.2.16"}, {"name": "h1-galera-2", "address": "10.0.2.17"}],
        "nova_api": [{"name": "h1-nova-api-1", "address": "10.0.2.80"}],
        "nova_novncproxy": [{"name": "h1-nova-novncproxy-1", "address": "10.0.2.88"}],
    },
    "components": {
        "haproxy": {"function": "load_balancer"},
        "galera": {"function": None},
        "nova_api": {"function": None},
        "nova_novncproxy": {"function": None},
    },
    "front_ends": {
        "nova_api": {"component": "nova_api", "port": 8774},
        "console": {"component": "nova_novncproxy", "port": 6080},
    },
    "endpoint": {"nova": {"public": "https://p", "internal": "https://i", "admin": "https://a"}},
    "identity": {"from": None, "secrets": {}, "keystone": None, "url": None, "regions": ["RegionOne"]},
    "services": {
        "galera": {
            "components": {
                "galera": {"listen": {"mysql": {"port": 3306, "sticky": True, "check_port": 9200, "check_path": "/"}}}
            }
        },
        "nova": {
            "component": "nova_api",
            "description": "Compute",
            "api": {"type": "compute", "port": 8774, "health": "/h"},
            "components": {
                "nova_api": {"api": {"type": "compute", "port": 8774, "health": "/h"}},
                "nova_novncproxy": {"listen": {"console": {"port": 6080, "mode": "http"}}},
            },
            "database": ["nova", "nova_api"],
            "queue": True,
            "identity": {"user": "nova", "roles": ["service"]},
        },
    },
}
SECRETS = {"database": {"nova": "d1", "nova_api": "d2"}, "queue": {"nova": "q"}, "identity": {"nova": "i"}}


def test_a_front_end_has_the_members_of_its_component():
    found = front_ends(STACK)
    assert found["nova_api"]["members"] == STACK["members"]["nova_api"]
    assert found["console"] == {
        "component": "nova_novncproxy",
        "port": 6080,
        "members": STACK["members"]["nova_novncproxy"],
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["any"], ""),
        (["zones"], " ip saddr { 10.0.0.0/21 }"),
        (["hosts", "galera"], " ip saddr { 10.0.2.1, 10.0.2.16, 10.0.2.17 }"),
        (["galera", "nova_compute"], " ip saddr { 10.0.2.16, 10.0.2.17 }"),  # not deployed here
        (["nova"], " ip saddr { 10.0.2.80, 10.0.2.88 }"),  # all of its components
        (["nova_compute"], None),
    ],
)
def test_who_may_reach_a_port(names, expected):
    assert source_match(names, STACK) == expected


HAPROXY = {"function": "load_balancer", "component": "haproxy"}


def test_a_haproxy_zone_may_take_the_vip_and_no_other_zone_may():
    zone = {"host": "h1", "address": "10.0.2.8", "mac": "02:00:00:00:00:01"}
    found = zone_networks(zone, HAPROXY, STACK)[0]
    assert (found["vips"], found["addresses"]) == (["10.0.0.5"], [])
    found = zone_networks(zone, {"component": "galera"}, STACK)[0]
    assert (found["vips"], found["addresses"]) == ([], [])


def test_the_one_haproxy_zone_of_a_smartos_host_has_the_vip_for_good():
    zone = {"host": "h1", "address": "10.0.2.8", "mac": "02:00:00:00:00:01"}
    alone = {**STACK, "hosts": {"h1": {"bridge_address": "10.0.2.1", "backend": "smartos"}}}
    assert zone_networks(zone, HAPROXY, alone)[0]["addresses"] == ["10.0.0.5"]
    assert zone_networks(zone, HAPROXY, {**alone, "members": {"haproxy": [{}, {}]}})[0]["addresses"] == []


def test_the_external_address_is_taken_in_its_provider_network():
    stack = {**STACK, "cloud": {"networks": {"public": {"bridge": "zs-x-public", "mtu": 1500, "vip": "203.0.113.5"}}}}
    zone = {"host": "h1", "address": "10.0.2.8", "mac": "02:0", "provider": {"public": "02:2"}}
    assert [one["vips"] for one in zone_networks(zone, HAPROXY, stack)] == [["10.0.0.5"], ["203.0.113.5"]]
    hypervisor = {"component": "nova_compute"}
    assert [one["vips"] for one in zone_networks(zone, hypervisor, stack)] == [[], []]


def test_a_further_network_has_no_default_route():
    zone = {
        "host": "h1",
        "address": "10.0.2.16",
        "mac": "02:0",
        "networks": {"storage": {"address": "10.9.2.16", "mac": "02:1"}},
    }
    first, second = zone_networks(zone, {"component": "galera"}, STACK)
    assert (first["name"], first["gateway"]) == ("eth0", "10.0.2.1")
    assert (second["name"], second["bridge"], second["gateway"], second["mtu"]) == ("eth1", "st", None, 9000)


def test_an_interface_in_a_provider_network_has_no_address():
    stack = {**STACK, "cloud": {"networks": {"public": {"bridge": "zs-x-public", "mtu": 1400, "vip": None}}}}
    zone = {"host": "h1", "address": "10.0.2.16", "mac": "02:0", "provider": {"public": "02:2"}}
    found = zone_networks(zone, {"component": "nova_compute"}, stack)
    assert found[1] == {"name": "eth1", "bridge": "zs-x-public", "mac": "02:2", "mtu": 1400, "vips": []}


def test_database_users_come_from_haproxy_alone():
    accounts = database_accounts(STACK, SECRETS)
    assert [one["database"] for one in accounts] == ["nova", "nova_api"]
    assert {tuple(one["hosts"]) for one in accounts} == {("10.0.2.8",)}


def test_a_queue_user_has_its_own_vhost_only():
    assert queue_users(STACK, SECRETS) == [{"name": "nova", "password": "q", "vhosts": ["nova"]}]


def test_the_catalog_and_the_service_users():
    found = identity(STACK, SECRETS)
    assert found["services"][0]["endpoints"] == STACK["endpoint"]["nova"]
    assert found["users"] == [{"name": "nova", "password": "i", "project": "service", "roles": ["service"]}]


def test_on_a_smartos_host_interfaces_are_on_nic_tags():
    stack = {**STACK, "hosts": {"h1": {**STACK["hosts"]["h1"], "backend": "smartos"}}}
    service = {"component": "nova_api"}
    zone = {"name": "h1-nova-api-1", "host": "h1", "address": "10.0.2.80", "mac": "02:00:00:00:00:01"}
    assert zone_networks(zone, service, stack)[0]["bridge"] == "zs_0"
    assert builder_network(stack, {"name": "h1", "builders": []})["bridge"] == "zs_0"


def test_builders_use_the_hosts_own_addresses():
    made = builder_network(STACK, {"name": "h1", "builders": ["10.0.3.248"]})
    assert (made["addresses"], made["gateway"]) == (["10.0.3.248"], "10.0.2.1")


def test_a_database_url_leads_through_the_load_balancer_with_tls():
    url = database_url("nova_api", STACK, SECRETS)
    assert url == "mysql+pymysql://nova_api:d2@10.0.0.5:3306/nova_api?charset=utf8mb4&ssl_ca=/etc/zonestack/tls/ca.crt"


LIFE = {"deployment": "x", "networks": {"zone": {"cidr": "10.0.0.0/16", "block": 512}}}


def there(name: str, component: str, address: str | None) -> dict:
    networks = [{"name": "eth0", **({"address": address} if address else {})}]
    return {
        name: {
            "uuid": "u",
            "described": {"name": name, "metadata": {"deployment": "x", "component": component}, "networks": networks},
        }
    }


@pytest.mark.parametrize(
    ("zones", "words"),
    [
        ({}, None),  # a new machine, or one that replaces a dead one
        (there("a-nova-api-1", "nova_api", "10.0.2.96"), None),
        (there("a-nova-api-1", "nova_api", "192.0.2.96"), None),  # the network was another one
        (there("a-nova-api-1", "nova_api", None), None),
        (
            there("b-nova-api-1", "nova_api", "10.0.2.96"),
            "is host 'b' of deployment 'x': it has 1 zones that are named for it (b-nova-api-1)",
        ),
        (there("a-b-nova-api-1", "nova_api", "10.0.2.96"), "is host 'a-b' of deployment 'x'"),
        (
            there("a-nova-api-1", "nova_api", "10.0.4.96"),
            "has id 2 in deployment 'x': the addresses of its zones are of that block (a-nova-api-1 10.0.4.96)",
        ),
    ],
)
def test_zones_say_which_host_a_machine_is(zones, words):
    said = mistaken_host(zones, {"name": "a", "id": 1}, LIFE)
    assert (said == "") if words is None else (words in said and "scripts/remove-host.sh" in said)
