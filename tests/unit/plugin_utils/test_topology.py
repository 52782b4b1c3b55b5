# SPDX-License-Identifier: GPL-3.0-or-later
"""The computation alone: what comes out of a good topology, and what is said about each bad one."""

from __future__ import annotations

import ipaddress
import random
import textwrap
import typing as t
import uuid
from collections import Counter

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import Lock
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, Refused, parse_yaml
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import catalogue
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.compute import Cloud, compute
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.nouns import Zone
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import decode_topology

SERVICES = {
    "_base": "suite: trixie",
    "galera": "{description: Database, slot: 2, count: 3, quorum: true, listen: {mysql: {port: 3306}}}",
    "memcached": "{description: Cache, slot: 4}",
    "haproxy": "{description: Balancer, slot: 1, function: load_balancer, ports: {statistics: {port: 8404, from: [any]}}}",
    "keystone": """
        description: Identity
        slot: 9
        count: 2
        needs: [galera, memcached]
        api: {type: identity, port: 5000, path: /v3}
        zone: {memory: 1024, cpu_cap: 150}
        image: {python: [keystone], user: keystone}
        config: {/etc/k.conf: {options: {DEFAULT: {host: "{{ zone.address }}"}}}}
        """,
    "swift": "{description: Objects, slot: 12, networks: [storage]}",
    "hypervisor": "{description: Hypervisor, slot: 40, zone: {privileged: true}}",
    "nova": """
        description: Compute
        database: [nova]
        image: {packages: [nova-common]}
        components:
          nova_api: {slot: 20, count: 2, api: {type: compute, port: 8774}}
          nova_conductor: {slot: 21, zone: {memory: 2048}}
        """,
}

GOOD = """
release: "2026.2"
networks:
  zone: {cidr: 10.77.0.0/21, interface: eth1}
hosts:
  aio1: {id: 1, connection: local}
  lx02: {id: 2, address: 192.0.2.12, groups: [control]}
services:
  galera: {count: 3}
  memcached:
  keystone: {count: 2, memory: 2048}
"""

SMARTOS = """
release: "2026.2"
networks:
  zone: {cidr: 10.77.0.0/21, bridge: storage0}
hosts:
  gz1: {id: 1, address: 192.0.2.11, backend: smartos}
  lx02: {id: 2, address: 192.0.2.12}
services:
  memcached:
"""

LOCK = Lock("locks/2026.2.txt", "keystone==30.0.0 \\\n    --hash=sha256:00\n", "{{ the lock }}")
FILE = "inventory/x/topology.yml"


def build(text: str = GOOD, services: t.Mapping[str, str] = SERVICES, deployment: str = "x") -> Cloud:
    """Read and compute, as the plugin does."""
    files = {}
    for name, declaration in services.items():
        file = f"services/{name}.yml"
        files[name] = (parse_yaml(textwrap.dedent(declaration), file), Place(file))
    place = Place(FILE)
    topology = decode_topology(parse_yaml(text, FILE), place)
    return compute(topology, catalogue(files), LOCK, deployment=deployment, place=place)


def zone_names(cloud: Cloud, component: str) -> list[str]:
    return [zone.name for zone in cloud.zones[component]]


def every_zone(cloud: Cloud) -> dict[str, Zone]:
    return {zone.name: zone for zones in cloud.zones.values() for zone in zones}


# What comes out


def test_zone_is_named_addressed_and_numbered_as_the_contract_says():
    zone = build().zones["keystone"][1]
    namespace = uuid.uuid5(uuid.NAMESPACE_DNS, "zonestack.openstack/x")
    expected = uuid.uuid5(namespace, "lx02-keystone-1")
    mac = uuid.uuid5(expected, "zone").bytes
    assert zone.variable() == {
        "name": "lx02-keystone-1",
        "uuid": str(expected),
        "host": "lx02",
        "number": 1,
        "ordinal": 1,
        "address": str(ipaddress.IPv4Address("10.77.0.0") + 2 * 512 + 9 * 8),
        "mac": ":".join(["02", *(f"{byte:02x}" for byte in mac[:5])]),
    }


def test_zone_variable_is_a_few_hundred_bytes():
    assert all(len(str(zone.variable())) < 300 for zone in every_zone(build()).values())


def test_component_names_with_underscores_become_dns_labels():
    assert zone_names(build(GOOD + "  nova:\n"), "nova_api") == ["aio1-nova-api-1", "lx02-nova-api-1"]


def test_count_goes_round_the_hosts_in_the_order_of_their_ids():
    text = GOOD.replace("aio1: {id: 1,", "aio1: {id: 3,").replace("10.77.0.0/21", "10.77.0.0/20")
    assert zone_names(build(text), "galera") == ["lx02-galera-1", "aio1-galera-1", "lx02-galera-2"]


def test_per_host_puts_that_many_on_each_host():
    cloud = build(GOOD.replace("memcached:", "memcached: {per_host: 2}"))
    assert zone_names(cloud, "memcached") == [
        f"{host}-memcached-{number}" for host in ("aio1", "lx02") for number in (1, 2)
    ]
    assert [zone.ordinal for zone in cloud.zones["memcached"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("chosen", ["[lx02]", "[control]", "[control, lx02]"])
def test_hosts_are_chosen_by_name_or_group(chosen):
    cloud = build(GOOD.replace("{count: 3}", f"{{count: 3, hosts: {chosen}, spread: none}}"))
    assert zone_names(cloud, "galera") == ["lx02-galera-1", "lx02-galera-2", "lx02-galera-3"]


@pytest.mark.parametrize(
    "more",
    [
        {"  lx02:": "  lx03: {id: 3, address: 192.0.2.13}\n  lx02:"},  # a further host
        {"services:\n": "services:\n  haproxy:\n"},  # a further service
        {"memcached:": "memcached: {count: 4}"},  # further replicas
    ],
)
def test_growth_never_changes_a_zone_that_stays(more):
    text = GOOD
    for old, new in more.items():
        assert old in text
        text = text.replace(old, new)
    before, after = every_zone(build()), every_zone(build(text))
    assert len(after) > len(before) or "lx03" in text
    stay = before.keys() & after.keys()
    assert len(stay) >= len(before) - 1

    def identity(zone: Zone) -> tuple[str, ...]:
        return (zone.name, zone.uuid, zone.address, zone.mac)

    assert {identity(before[name]) for name in stay} == {identity(after[name]) for name in stay}


def test_full_slots_on_all_hosts_never_share_an_address():
    text = (
        GOOD.replace("count: 3", "per_host: 7")
        .replace("count: 2", "per_host: 8")
        .replace("memcached:", "memcached: {per_host: 8}")
    )
    text = text.replace(
        "  lx02: {id: 2, address: 192.0.2.12, groups: [control]}\n",
        "  lx02: {id: 2, address: 192.0.2.12}\n  c: {id: 3, address: d}\n",
    )
    cloud = build(text)
    zones = every_zone(cloud).values()
    taken = [zone.address for zone in zones]
    taken += [address for host in cloud.hosts.values() for address in (*host["builders"], host["addresses"]["zone"])]
    taken += [cloud.stack["vip"]["internal"]]
    assert len(zones) == 3 * (7 + 8 + 8)
    assert len(set(taken)) == len(taken)
    network = ipaddress.ip_network("10.77.0.0/21")
    assert all(ipaddress.ip_address(one) in network for one in taken)
    assert not {str(network[0]), str(network[-1])} & set(taken)
    assert len({zone.mac for zone in zones}) == len({zone.uuid for zone in zones}) == len(zones)


def test_deployments_of_the_same_shape_have_other_uuids_and_macs():
    one, other = every_zone(build()), every_zone(build(deployment="y"))
    assert one.keys() == other.keys()
    assert not {zone.uuid for zone in one.values()} & {zone.uuid for zone in other.values()}


def test_further_network_gives_a_second_address_and_mac():
    text = GOOD.replace("services:", "  \nservices:\n  swift:").replace(
        "hosts:\n  aio1", "  storage: {cidr: 10.99.0.0/24, block: 64, bridge: br-st}\nhosts:\n  aio1", 1
    )
    text = text.replace("block: 64", "block: 128").replace("10.99.0.0/24", "10.99.0.0/23")
    zone = build(text).zones["swift"][0]
    assert zone.networks is not None
    assert zone.networks["storage"].address == str(ipaddress.ip_address("10.99.0.0") + 128 + 12 * 8)
    assert zone.networks["storage"].mac != zone.mac


def test_service_variable_has_the_deployments_sizes():
    service = build().services["keystone"]
    assert service["zone"] == {
        "memory": 2048,
        "vcpus": 2,
        "cpu_cap": 150,
        "quota": 10,
        "privileged": False,
        "devices": [],
        "capabilities": [],
        "autostart": True,
        "volumes": {},
    }
    assert (service["name"], service["component"]) == ("keystone", "keystone")
    assert service["config"]["/etc/k.conf"]["options"] == {"DEFAULT": {"host": "{{ zone.address }}"}}
    assert service["image"]["id"] in build().stack["images"]


def test_components_lie_over_their_service():
    cloud = build(GOOD + "  nova: {nova_conductor: {count: 1, quota: 20}}\n")
    assert cloud.parents == {"nova": ["nova_api", "nova_conductor"]}
    conductor = cloud.services["nova_conductor"]
    assert (conductor["name"], conductor["component"], conductor["database"]) == ("nova", "nova_conductor", ["nova"])
    assert (conductor["zone"]["memory"], conductor["zone"]["quota"]) == (2048, 20)
    # equal recipes of one service are one image
    assert conductor["image"]["id"] == cloud.services["nova_api"]["image"]["id"]
    assert cloud.stack["services"]["nova"]["component"] == "nova_api"


def test_stack_names_endpoints_and_members():
    stack = build(GOOD + "endpoints: {external: cloud.example.net}\n").stack
    assert stack["vip"] == {"internal": "10.77.0.5", "external": "cloud.example.net", "external_address": "10.77.0.5"}
    assert stack["endpoint"]["keystone"] == {
        "public": "https://cloud.example.net:5000/v3",
        "internal": "https://10.77.0.5:5000/v3",
        "admin": "https://10.77.0.5:5000/v3",
    }
    assert stack["members"]["memcached"] == [{"name": "aio1-memcached-1", "address": "10.77.2.32", "host": "aio1"}]
    assert stack["hosts"]["lx02"] == {
        "id": 2,
        "backend": "lxc",
        "store": "overlay",
        "address": "192.0.2.12",
        "bridge_address": "10.77.4.1",
        "addresses": {"zone": "10.77.4.1"},
    }
    assert stack["networks"]["zone"] == {
        "cidr": "10.77.0.0/21", "prefix": 21, "netmask": "255.255.248.0", "bridge": "zs-x", "interface": "eth1", "nic_tag": "zs_x0",
        "mtu": 1500, "block": 512,
    }  # fmt: skip


def test_bridge_of_several_hosts_has_the_interface_or_is_the_sites():
    assert build().hosts["lx02"]["bridges"][0]["interface"] == "eth1"
    own = build(GOOD.replace("interface: eth1", "bridge: br-mgmt"))
    assert (own.hosts["lx02"]["bridges"][0]["bridge"], own.hosts["lx02"]["bridges"][0]["interface"]) == (
        "br-mgmt",
        None,
    )


def test_provider_network_is_a_bridge_on_each_host_and_an_interface_of_the_zones_that_want_one():
    services = {**SERVICES, "hypervisor": "{description: Instances, slot: 30, provider: true}"}
    cloud = {"networks": {"public": {"cidr": "10.9.0.0/24", "gateway_host": "aio1"}}}
    found = build(f"{GOOD}  hypervisor: {{per_host: 1}}\ncloud: {cloud}\n", services)
    assert found.stack["cloud"]["networks"]["public"] == {
        "cidr": "10.9.0.0/24", "prefix": 24, "gateway": "10.9.0.1", "gateway_host": "aio1", "pool": ["10.9.0.128", "10.9.0.254"],
        "bridge": "zs-x-public", "interface": None, "mtu": 1500, "dns": [], "external": True, "shared": False, "vip": None,
    }  # fmt: skip
    bridges = {name: host["bridges"] for name, host in found.hosts.items()}
    assert [one["address"] for one in bridges["aio1"]] == ["10.77.2.1/21", "10.9.0.1/24"]
    assert [(one["address"], one["nat"]) for one in bridges["lx02"]] == [("10.77.4.1/21", "10.77.0.0/21"), (None, None)]
    assert [one["provider"] for one in bridges["aio1"]] == [False, True]
    first, second = found.zones["hypervisor"]
    assert first.provider and second.provider and first.provider["public"] != second.provider["public"]
    assert "provider" not in found.zones["galera"][0].variable()


PUBLIC = "cloud: {networks: {other: {cidr: 10.8.0.0/24}, public: {cidr: 10.9.0.0/24, dns: [10.9.0.53]}}}"


@pytest.mark.parametrize(
    ("endpoints", "external"), [("", "10.9.0.10"), ("external: cloud.example.net, ", "cloud.example.net")]
)
def test_external_address_is_of_its_provider_network_and_only_the_load_balancer_is_there(endpoints, external):
    found = build(f"{GOOD}  haproxy: {{count: 2}}\n{PUBLIC}\nendpoints: {{{endpoints}external_address: 10.9.0.10}}\n")
    assert found.stack["vip"] == {"internal": "10.77.0.5", "external": external, "external_address": "10.9.0.10"}
    assert {name: network["vip"] for name, network in found.stack["cloud"]["networks"].items()} == {
        "other": None,
        "public": "10.9.0.10",
    }
    assert [list(zone.provider or ()) for zone in found.zones["haproxy"]] == [["public"], ["public"]]
    assert not any(zone.provider for zone in found.zones["keystone"])
    assert found.stack["endpoint"]["keystone"] == {
        "public": f"https://{external}:5000/v3", "internal": "https://10.77.0.5:5000/v3", "admin": "https://10.77.0.5:5000/v3",
    }  # fmt: skip


def test_load_balancer_is_in_no_provider_network_without_an_external_address():
    assert not any(zone.provider for zone in build(f"{GOOD}  haproxy:\n{PUBLIC}\n").zones["haproxy"])


def test_same_input_gives_the_same_inventory():
    assert build() == build()


# Where zones are. A fleet is written "a b c", or with failure domains "a=r1 b=r1 c=r2"; ids are 1 and up unless given, "a:7=r1".


def fleet(hosts: str, services: str, more: str = "") -> str:
    """A topology of such hosts."""
    lines = []
    for number, text in enumerate(hosts.split(), 1):
        head, _, domain = text.partition("=")
        name, _, own = head.partition(":")
        zone = f", zone: {domain}" if domain else ""
        lines.append(f"  {name}: {{id: {own or number}, address: {name}.example.net, groups: [all_{name[0]}]{zone}}}")
    network = "networks: {zone: {cidr: 10.64.0.0/10, interface: eth1}}"
    return "\n".join(['release: "2026.2"', network, "hosts:", *lines, f"services: {services}", more, ""])


def holders(cloud: Cloud, component: str) -> list[str]:
    """The hosts of a component's zones, in the order of their ordinals."""
    assert [zone.ordinal for zone in cloud.zones[component]] == list(range(len(cloud.zones[component])))
    return [zone.host for zone in cloud.zones[component]]


@pytest.mark.parametrize(
    ("hosts", "placement", "expected"),
    [
        ("a", "count: 3", "a a a"),  # the all-in-one
        ("a b", "count: 3", "a b a"),
        ("a b c", "count: 3", "a b c"),
        ("a b c d", "count: 3", "a b c"),
        ("a b c", "count: 5", "a b c a b"),
        ("c b:9 a:4", "count: 3", "c a b"),  # the order of ids, not that of names nor of the file
        ("a=x b=x c=y", "count: 3", "a c b"),
        ("a=x b=x c=y d=z", "count: 3", "a c d"),
        ("a=x b=x c=x d=y e=z", "count: 3", "a d e"),
        ("a=x b=x c=y d=y e=z f=z", "count: 5", "a c e b d"),
        ("a=x b=y c=z", "count: 7", "a b c a b c a"),
        ("a=x b=y c=y", "count: 5", "a b c a b"),  # hosts before domains
        ("a=x b=x c=x", "count: 3", "a b c"),  # one domain: there is nothing to spread over
        ("a=x b=y", "count: 3, hosts: [a], spread: none", "a a a"),
        ("a=x b=x c=x d=y e=z", "count: 3, hosts: [a, b, c], spread: host", "a b c"),
        ("a b c", "per_host: 3, hosts: [b], spread: none", "b b b"),
    ],
)
def test_members_of_a_cluster_are_as_far_apart_as_the_hosts_allow(hosts, placement, expected):
    assert " ".join(holders(build(fleet(hosts, f"{{galera: {{{placement}}}}}")), "galera")) == expected


@pytest.mark.parametrize(
    ("hosts", "placement", "expected"),
    [
        ("e1=x e2=y c1=x c2=y c3=z", "count: 2, hosts: [all_e]", "e1 e2"),
        ("e1=x e2=x e3=y", "count: 2, hosts: [all_e]", "e1 e3"),
        ("a b", "count: 1", "a"),
        ("a=x b=x c=y", "count: 2, hosts: [a, b], spread: host", "a b"),
        ("a=x b=x c=y", "per_host: 1, hosts: [a, b]", "a b"),  # so many on each: no word of replicas
        ("a", "count: 2", "a a"),  # on a single host all are on it
        ("a b", "count: 3, spread: none", "a b a"),
    ],
)
def test_load_balancers_are_apart(hosts, placement, expected):
    assert " ".join(holders(build(fleet(hosts, f"{{haproxy: {{{placement}}}}}")), "haproxy")) == expected


def test_spread_of_the_deployment_is_that_of_services_that_do_not_say():
    text = fleet("a=x b=x c=y", "{haproxy: {count: 2, hosts: [a, b]}, galera: {hosts: [a]}}", "spread: none")
    assert holders(build(text), "galera") == ["a", "a", "a"]
    with pytest.raises(Refused, match="galera.hosts: .* galera votes and would have 3 of its 3 members on host 'a'"):
        build(text.replace("spread: none", "spread: host"))
    with pytest.raises(Refused, match="haproxy.hosts: .* all its 2 zones in failure domain 'x'"):
        build(text.replace("{hosts: [a]}", "{count: 1}").replace("spread: none", "spread: zone"))


def random_fleet(dice: random.Random) -> tuple[list[str], int, bool]:
    """Hosts as :func:`fleet` takes them, a count, and whether it votes."""
    size = dice.randint(1, 8)
    domains = dice.choice(["", "x", "xy", "xyz", "wxyz"])
    ids = dice.sample(range(1, 60), size)
    hosts = [f"h{number}:{own}" + (f"=d{dice.choice(domains)}" if domains else "") for number, own in enumerate(ids)]
    votes = dice.random() < 0.5
    count = dice.randint(1, min(2 * size + 3, 8 * size))
    return hosts, count - (count % 2 == 0) if votes else count, votes


def placed(hosts: list[str], count: int, votes: bool) -> dict[str, tuple[str, str, str, str]] | None:
    """Name to host, UUID, address and MAC of every zone; nothing where it is refused."""
    component = "galera" if votes else "memcached"
    try:
        cloud = build(fleet(" ".join(hosts), f"{{{component}: {{count: {count}}}}}"))
    except Refused:
        return None
    return {zone.name: (zone.host, zone.uuid, zone.address, zone.mac) for zone in cloud.zones[component]}


@pytest.mark.parametrize("seed", range(150))
def test_any_placement_is_even_and_survives_what_it_can(seed):
    hosts, count, votes = random_fleet(random.Random(seed))
    domain = {text.split(":")[0]: text.partition("=")[2] for text in hosts}
    there = len({*domain.values()} - {""})
    zones = placed(hosts, count, votes)
    if zones is None:
        # Only a vote can be impossible, and only because the hosts of the other domains are too few for a minority's rest.
        sizes = Counter(domain.values())
        assert votes and there >= 3
        assert sum(min(size, (count - 1) // 2) for size in sizes.values()) < min(count, len(hosts))
        return
    on = Counter(host for host, *_rest in zones.values())
    assert sum(on.values()) == count
    assert max(on.values()) - min(on.get(host, 0) for host in domain) <= 1
    within = Counter(domain[host] for host in on.elements())
    if count <= len(hosts):
        room = Counter(domain.values())
        assert all(within[some] >= within[other] - 1 for some in room for other in room if within[some] < room[some])
    if votes and count > 1:
        minority = (count - 1) // 2
        assert max(on.values()) <= {1: count, 2: count - 1}.get(len(hosts), minority)
        assert max(within.values()) <= (minority if there >= 3 else count - 1 if there == 2 else count)
    if not votes and count > 1 and len(hosts) > 1:
        assert len(on) > 1 and (there < 2 or len(within) > 1)


@pytest.mark.parametrize("seed", range(100))
def test_zones_stay_where_they_are_while_hosts_and_counts_change(seed):
    dice = random.Random(seed)
    hosts, count, votes = random_fleet(dice)
    before = placed(hosts, count, votes)
    if before is None:
        return
    assert placed(dice.sample(hosts, len(hosts)), count, votes) == before  # the order of the file means nothing

    more = placed(hosts, count + 2, votes)
    assert more is None or before.items() <= more.items()

    gone = dice.choice(hosts)
    rest = [host for host in hosts if host != gone]
    after = placed(rest, count, votes) if rest else None
    if after is not None:
        stay = {name: zone for name, zone in before.items() if zone[0] != gone.split(":")[0]}
        assert stay.items() <= after.items()

    new = f"new:{dice.choice([60, *({*range(1, 60)} - {int(host.split(':')[1].split('=')[0]) for host in hosts})])}"
    new += f"=d{dice.choice('wxyz')}" if "=" in hosts[0] else ""
    after = placed([*hosts, new], count, votes)
    if after is not None:
        moved = {name: zone for name, zone in after.items() if zone[0] == "new"}
        assert {name: zone for name, zone in after.items() if name not in moved}.items() <= before.items()
        if "=" not in new and new == "new:60" and count <= len(hosts):
            assert not moved  # nothing is evened out by it


def test_many_hosts_are_dealt_evenly():
    """1,000 hosts, eight zones each."""
    hosts = " ".join(f"h{number}=d{number % 7}" for number in range(1, 1001))
    cloud = build(fleet(hosts, "{memcached: {count: 8000}}"))
    assert Counter(holders(cloud, "memcached")) == dict.fromkeys(cloud.hosts, 8)


HYPERVISOR = {**SERVICES, "hypervisor": "{description: Instances, slot: 30, phase: compute}"}


@pytest.mark.parametrize(
    ("hosts", "more", "expected"),
    [
        ("a b", "", {}),
        ("a=x b=x", "", {}),
        ("a=x b=x", "cloud: {availability_zones: true}", {"a": "x", "b": "x"}),
        ("a=x b=y", "", {"a": "x", "b": "y"}),
        ("a=x b=y", "cloud: {availability_zones: false}", {}),
    ],
)
def test_availability_zones_are_the_failure_domains_of_hypervisors(hosts, more, expected):
    cloud = build(fleet(hosts, "{hypervisor: {per_host: 1}, memcached: {count: 2}}", more), HYPERVISOR)
    uuids = {zone.host: zone.uuid for zone in cloud.zones["hypervisor"]}
    assert cloud.stack["cloud"]["availability_zones"] == {
        f"{host}-hypervisor-1": {"zone": zone, "provider": uuids[host]} for host, zone in expected.items()
    }


@pytest.mark.parametrize(
    ("hosts", "services", "more", "message"),
    [
        ("a b c d", "{galera: {hosts: [a, b]}}", "",
         "services.galera.hosts: value ['a', 'b']: galera votes and would have 2 of its 3 members on host 'a', whose loss would stop it; "
         "it may use 2 of 4 hosts: let it use 3 or more, or set spread: none"),
        ("a b", "{galera: {hosts: [b]}}", "",
         "services.galera.hosts: value ['b']: galera votes and would have 3 of its 3 members on host 'b', whose loss would stop it; "
         "it may use 1 of 2 hosts: let it use 2 or more, or set spread: none"),
        ("a b", "{galera: {spread: host}}", "",
         "services.galera.spread: value 'host': galera votes and would have 2 of its 3 members on host 'a', whose loss would stop it; "
         "it may use 2 of 2 hosts: let it use 3 or more, or set spread: none"),
        ("a b c", "{galera: {per_host: 3, hosts: [all_a]}}", "",
         "services.galera.hosts: value ['all_a']: galera votes and would have 3 of its 3 members on host 'a', whose loss would stop it; "
         "it may use 1 of 3 hosts: let it use 3 or more, or set spread: none"),
        ("e1 c1", "{haproxy: {count: 2, hosts: [all_e]}}", "",
         "services.haproxy.hosts: value ['all_e']: haproxy would have all its 2 zones on host 'e1', whose loss would stop it; "
         "it may use 1 of 2 hosts: let it use 2 or more, or set spread: none"),
        ("e1=x e2=x c1=y", "{haproxy: {count: 2, hosts: [all_e]}}", "",
         "services.haproxy.hosts: value ['all_e']: haproxy would have all its 2 zones in failure domain 'x', whose loss would stop it; "
         "it may use 1 of 2 failure domains: let it use 2 or more, or set spread: host"),
        ("a b", "{haproxy: {count: 3}}", "",
         "services.haproxy.count: value 3: haproxy would have 2 zones on host 'a', of which one can only stand in for the other: "
         "take one for each host, or set spread: none"),
        ("a b", "{haproxy: {per_host: 2, hosts: [all_b]}}", "",
         "services.haproxy.per_host: value 2: haproxy would have 2 zones on host 'b', of which one can only stand in for the other: "
         "take one for each host, or set spread: none"),
        ("a=x b=x c=y d=z", "{galera: {hosts: [a, b, c]}}", "",
         "services.galera.hosts: value ['a', 'b', 'c']: galera votes and would have 2 of its 3 members in failure domain 'x', whose loss would "
         "stop it; it may use 2 of 3 failure domains: let it use 3 or more, or set spread: host"),
        ("a=x b=x c=x d=y e=z", "{galera: {count: 5}}", "",
         "services.galera.count: value 5: galera votes and would have 3 of its 5 members in failure domain 'x', whose loss would stop it; "
         "it may use 3 of 3 failure domains: give the others more hosts, or take a count of 3, or set spread: host"),
        ("a=x b=x c=x d=y e=z", "{galera: {per_host: 1}}", "",
         "services.galera.per_host: value 1: galera votes and would have 3 of its 5 members in failure domain 'x', whose loss would stop it; "
         "it may use 3 of 3 failure domains: give the others more hosts, or take a count of 3, or set spread: host"),
        ("a b c", "{galera: {count: 3}}", "spread: zone",
         "services.galera.count: value 3: no host names its failure domain: give each its zone, or set spread: host"),
        ("a=x b", "{memcached: }", "", "hosts.b.zone: host 'a' names its failure domain (x): name this one's too, or take away all"),
        ("a=nova", "{memcached: }", "",
         "hosts.a.zone: value 'nova': write at most 63 letters, digits, _, . and -, and not nova or internal, which Nova means otherwise"),
        ("a b", "{memcached: }", "cloud: {availability_zones: true}",
         "cloud.availability_zones: value True: no host names its failure domain: give each its zone"),
        ("a b", "{memcached: {spread: rack}}", "",
         "services.memcached.spread: value 'rack': write one of the known values (known: zone, host, none)"),
    ],
)  # fmt: skip
def test_placement_that_would_be_packed_is_refused(hosts, services, more, message):
    with pytest.raises(Refused) as refused:
        build(fleet(hosts, services, more))
    assert str(refused.value) == f"{FILE}: {message}"


# SmartOS hosts


def test_smartos_host_has_nic_tags_where_others_have_bridges():
    cloud = build(
        SMARTOS.replace("services:", "cloud: {networks: {public: {cidr: 10.9.0.0/24, gateway_host: lx02}}}\nservices:")
    )
    assert [one["bridge"] for one in cloud.hosts["gz1"]["bridges"]] == ["storage0"]
    assert [one["bridge"] for one in cloud.hosts["lx02"]["bridges"]] == ["storage0", "zs-x-public"]


def test_smartos_host_by_itself_has_an_etherstub():
    """Its name cannot be that of the bridge: an etherstub's has no hyphens and ends in a digit."""
    alone = SMARTOS.replace(", bridge: storage0", "").replace("  lx02: {id: 2, address: 192.0.2.12}\n", "")
    cloud = build(alone, deployment="my-lab")
    assert [one["bridge"] for one in cloud.hosts["gz1"]["bridges"]] == ["zs_my_lab0"]
    assert cloud.stack["networks"]["zone"]["nic_tag"] == "zs_my_lab0"


def test_smartos_host_has_the_images_of_its_own_zones():
    services = {**SERVICES, "cache": "{description: Cache, slot: 41, image: {packages: [memcached]}}"}
    text = SMARTOS + "  cache: {hosts: [gz1]}\n  hypervisor: {hosts: [lx02]}\n"
    services["hypervisor"] = services["hypervisor"].replace("slot: 40,", "slot: 40, image: {packages: [qemu]},")
    cloud = build(text, services)
    assert [name.rpartition("-")[0] for name in cloud.hosts["gz1"]["images"]] == ["base", "cache"]
    assert len(cloud.stack["images"]) == 3


def test_privileged_zones_are_dealt_to_the_hosts_that_are_named():
    cloud = build(SMARTOS + "  hypervisor: {hosts: [lx02]}\n")
    assert zone_names(cloud, "hypervisor") == ["lx02-hypervisor-1"]


# What is refused. Each row: what is wrong, a change to GOOD (old text, new text), and the whole message.

T = FILE
REFUSED_TOPOLOGIES = [
    ("empty file", None, "", f"{T}: the file is empty: write a mapping, docs/reference/topology.md shows its keys"),
    ("only a comment", None, "# nothing\n", f"{T}: the file is empty: write a mapping, docs/reference/topology.md shows its keys"),
    ("a list", None, "- a\n- b\n", f"{T}: value ['a', 'b']: write a mapping (key: value) at the top level"),
    ("a text", None, "hello", f"{T}: value 'hello': write a mapping (key: value) at the top level"),
    ("YAML syntax", "hosts:\n", "hosts: [\n", f"{T}: line 7, column 3: did not find expected ',' or ']'"),
    ("tab in YAML", "  memcached:", "\tmemcached:", f"{T}: line 10, column 1: found character that cannot start any token"),
    ("duplicate host name", "  lx02:", "  aio1:", f"{T}: line 7, column 3: duplicate key 'aio1' (first on line 6): keep one"),
    ("duplicate service", "  memcached:", "  galera:", f"{T}: line 10, column 3: duplicate key 'galera' (first on line 9): keep one"),
    ("unknown key at the top", "release:", "relaese: x\nrelease:",
     f"{T}: relaese: value 'x': unknown key, did you mean 'release'? (known: release, networks, hosts, services, plugin, deployment, links, region, "
     "endpoints, identity, cloud, services_path, spread)"),
    ("provider network over the zones'", "services:", "cloud: {networks: {public: {cidr: 10.77.4.0/24}}}\nservices:",
     f"{T}: cloud.networks.public.cidr: value '10.77.4.0/24': overlaps network 'zone' (10.77.0.0/21): choose another range"),
    ("two provider networks overlap", "services:", "cloud: {networks: {a: {cidr: 10.9.0.0/24}, b: {cidr: 10.9.0.128/25}}}\nservices:",
     f"{T}: cloud.networks.b.cidr: value '10.9.0.128/25': overlaps provider network 'a' (10.9.0.0/24): choose another range"),
    ("gateway elsewhere", "services:", "cloud: {networks: {public: {cidr: 10.9.0.0/24, gateway: 10.8.0.1}}}\nservices:",
     f"{T}: cloud.networks.public.gateway: value '10.8.0.1': use an address of 10.9.0.0/24, 10.9.0.1 to 10.9.0.254"),
    ("gateway is given away", "services:", "cloud: {networks: {public: {cidr: 10.9.0.0/24, pool: [10.9.0.1, 10.9.0.9]}}}\nservices:",
     f"{T}: cloud.networks.public.pool: value ['10.9.0.1', '10.9.0.9']: choose a pool without the gateway, 10.9.0.1"),
    ("pool of one", "services:", "cloud: {networks: {public: {cidr: 10.9.0.0/24, pool: [10.9.0.5]}}}\nservices:",
     f"{T}: cloud.networks.public.pool: value ['10.9.0.5']: write two IPv4 addresses, the first and the last"),
    ("gateway is no host", "services:", "cloud: {networks: {public: {cidr: 10.9.0.0/24, gateway_host: x}}}\nservices:",
     f"{T}: cloud.networks.public.gateway_host: value 'x': name a host (known: aio1, lx02)"),
    ("two networks, one bridge", "services:", "cloud: {networks: {public: {cidr: 10.9.0.0/24, bridge: zs-x}}}\nservices:",
     f"{T}: cloud.networks.public.bridge: value 'zs-x': network 'zone' uses this bridge: choose another"),
    ("unknown key of a host", "connection: local", "conection: local",
     f"{T}: hosts.aio1.conection: value 'local': unknown key, did you mean 'connection'? (known: id, backend, connection, address, user, port, "
     "store, groups, zone, leaving, addresses)"),
    ("unknown key of a network", "cidr: 10.77.0.0/21", "cidr: 10.77.0.0/21, vlan: 7",
     f"{T}: networks.zone.vlan: value 7: unknown key (known: cidr, block, bridge, interface, mtu)"),
    ("unknown key of a placement", "{count: 3}", "{cuont: 3}",
     f"{T}: services.galera.cuont: value 3: unknown key, did you mean 'count'? (known: count, per_host, hosts, spread, memory, vcpus, cpu_cap, quota)"),
    ("unknown key of endpoints", "services:", "endpoints: {intern: 1}\nservices:",
     f"{T}: endpoints.intern: value 1: unknown key, did you mean 'internal'? (known: internal, external, external_address)"),
    ("missing release", 'release: "2026.2"\n', "", f"{T}: release: the key is missing and has no default"),
    ("release as a number", '"2026.2"', "2026.2", f"{T}: release: value 2026.2: write a string in quotes"),
    ("release without a value", '"2026.2"', "", f"{T}: release: value None: write a string"),
    ("missing id", "{id: 1, connection: local}", "{connection: local}", f"{T}: hosts.aio1.id: the key is missing and has no default"),
    ("id 0", "id: 1", "id: 0", f"{T}: hosts.aio1.id: value 0: give 1 or more"),
    ("id as text", "id: 1", "id: one", f"{T}: hosts.aio1.id: value 'one': give a whole number"),
    ("id as true", "id: 1", "id: yes", f"{T}: hosts.aio1.id: value True: give a whole number"),
    ("duplicate id", "id: 2", "id: 1", f"{T}: hosts.lx02.id: value 1: host 'aio1' has this id: 2 is free"),
    ("no hosts", None, GOOD[: GOOD.index("hosts:")] + "hosts: {}\nservices: {memcached: }\n", f"{T}: hosts: value {{}}: name at least one host"),
    ("host is no mapping", "{id: 1, connection: local}", "1",
     f"{T}: hosts.aio1: value 1: write a mapping with the keys of host (known: id, backend, connection, address, user, port, store, groups, zone, leaving, addresses)"),
    ("host name in capitals", "aio1:", "AIO1:",
     f"{T}: hosts.AIO1: value 'AIO1': write a DNS label: a-z, 0-9 and -, a letter first, at most 63"),
    ("host name with _", "aio1:", "a_1:", f"{T}: hosts.a_1: value 'a_1': write a DNS label: a-z, 0-9 and -, a letter first, at most 63"),
    ("host name with a dot", "aio1:", "aio1.net:",
     f"{T}: hosts[aio1.net]: value 'aio1.net': write a DNS label: a-z, 0-9 and -, a letter first, at most 63"),
    ("host name that ends in -", "aio1:", "aio-:",
     f"{T}: hosts.aio-: value 'aio-': write a DNS label: a-z, 0-9 and -, a letter first, at most 63"),
    ("host name too long for a zone's", "aio1:", "a" * 60 + ":",
     f"{T}: hosts.{'a' * 60}: value '{'a' * 60}': zone name '{'a' * 60}-memcached-1' would be longer than 63 characters: use a shorter host name"),
    ("host name is a service's", "aio1:", "galera:",
     f"{T}: hosts.galera: value 'galera': the name belongs to service 'galera': choose another"),
    ("host name is Ansible's", "aio1:", "localhost:",
     f"{T}: hosts.localhost: value 'localhost': the name belongs to Ansible or this plugin: choose another"),
    ("host has a zone's name", "lx02:", "aio1-galera-1:",
     f"{T}: hosts.aio1: value 'aio1': zone 'aio1-galera-1' of 'galera' would bear the name of a host: choose another host name"),
    ("deployment no DNS label", "release:", "deployment: My Cloud\nrelease:",
     f"{T}: deployment: value 'My Cloud': write a DNS label: a-z, 0-9 and -, a letter first, at most 63"),
    ("unknown backend", "id: 1,", "id: 1, backend: docker,",
     f"{T}: hosts.aio1.backend: value 'docker': write one of the known values (known: lxc, smartos)"),
    ("store of another backend", "id: 1,", "id: 1, backend: smartos, store: overlay,",
     f"{T}: hosts.aio1.store: value 'overlay': a store of backend smartos (known: zfs)"),
    ("no NIC tag to the other hosts", "id: 2,", "id: 2, backend: smartos,",
     f"{T}: networks.zone.bridge: SmartOS host 'lx02' is not alone: name the NIC tag of its way to the others (nictagadm list), "
     "on hosts with LXC the bridge"),
    ("bridge that is no NIC tag", None, SMARTOS.replace("storage0", "zs-x"),
     f"{T}: networks.zone.bridge: value 'zs-x': on SmartOS host 'gz1' it is a NIC tag: write letters, digits and _"),
    ("instances are reached through a SmartOS host", None,
     SMARTOS + "cloud: {networks: {public: {cidr: 10.9.0.0/24, gateway_host: gz1}}}\n",
     f"{T}: cloud.networks.public.gateway_host: value 'gz1': a SmartOS host has no bridge that instances are on: name a host with backend lxc "
     "(known: lx02)"),
    ("hypervisor on a SmartOS host", None, SMARTOS + "  hypervisor:\n",
     f"{T}: services.hypervisor.hosts: hypervisor needs a privileged zone with Linux's kernel, which host 'gz1' with backend smartos has not: "
     "name hosts with backend lxc (known: lx02)"),
    ("hypervisor on every host", None, SMARTOS + "  hypervisor: {per_host: 1, hosts: [lx02, gz1]}\n",
     f"{T}: services.hypervisor.hosts: value ['lx02', 'gz1']: hypervisor needs a privileged zone with Linux's kernel, which host 'gz1' with "
     "backend smartos has not: name hosts with backend lxc (known: lx02)"),
    ("host without a way", "address: 192.0.2.12, ", "", f"{T}: hosts.lx02.address: set the address that SSH reaches, or connection: local"),
    ("two local hosts", "address: 192.0.2.12", "connection: local",
     f"{T}: hosts.lx02.connection: value 'local': host 'aio1' is already the machine that Ansible runs on: set an address"),
    ("address inside a zone network", "192.0.2.12", "10.77.4.9",
     f"{T}: hosts.lx02.address: value '10.77.4.9': lies in network 'zone', whose addresses are computed: use one outside of it, or 10.77.4.1"),
    ("address that is none", "192.0.2.12", '"not an address"',
     f"{T}: hosts.lx02.address: value 'not an address': write a host name or an IPv4 address"),
    ("SSH port", "192.0.2.12,", "192.0.2.12, port: 70000,", f"{T}: hosts.lx02.port: value 70000: give a port, 1 to 65535"),
    ("group is a service's", "[control]", "[memcached]",
     f"{T}: hosts.lx02.groups[0]: value 'memcached': the name belongs to service 'memcached': choose another"),
    ("group is a host's zones", "[control]", "[aio1_zones]",
     f"{T}: hosts.lx02.groups[0]: value 'aio1_zones': the name belongs to the zones of host 'aio1': choose another"),
    ("group name", "[control]", "[front-end]",
     f"{T}: hosts.lx02.groups[0]: value 'front-end': write a name of a-z, 0-9 and _ that begins with a letter"),
    ("groups no list", "[control]", "control", f"{T}: hosts.lx02.groups: value 'control': write a list, [..]"),
    ("no network zone", "zone: {cidr", "other: {cidr", f"{T}: networks: network 'zone' is missing: every zone has an address on it (known: other)"),
    ("several hosts without a way between them", ", interface: eth1", "",
     f"{T}: networks.zone.interface: its zones are on several hosts: name the interface of each host that leads to the others,"
     " or a bridge that is there already"),
    ("interface of two networks", "hosts:\n", "  storage: {cidr: 10.1.0.0/21, interface: eth1}\nhosts:\n",
     f"{T}: networks.storage.interface: value 'eth1': network 'zone' has it already, and an interface is a port of one bridge:"
     " take another, such as a VLAN's"),
    ("cidr with host bits", "10.77.0.0/21", "10.77.0.1/21",
     f"{T}: networks.zone.cidr: value '10.77.0.1/21': write an IPv4 network whose host bits are 0, such as 10.77.0.0/21"),
    ("cidr without a length", "10.77.0.0/21", "10.77.0.0",
     f"{T}: networks.zone.cidr: value '10.77.0.0': write an IPv4 network whose host bits are 0, such as 10.77.0.0/21"),
    ("IPv6", "10.77.0.0/21", '"fd00::/64"',
     f"{T}: networks.zone.cidr: value 'fd00::/64': write an IPv4 network whose host bits are 0, such as 10.77.0.0/21"),
    ("overlapping networks", "hosts:\n", "  storage: {cidr: 10.77.4.0/22, block: 64}\nhosts:\n",
     f"{T}: networks.storage.cidr: value '10.77.4.0/22': overlaps network 'zone' (10.77.0.0/21): choose another range"),
    ("network too small", "10.77.0.0/21", "10.77.0.0/22",
     f"{T}: networks.zone.cidr: value '10.77.0.0/22': too small: block 2 of 512 addresses (host 'lx02') ends behind it, take a /21 or smaller blocks"),
    ("no network is large enough", "id: 2", "id: 9000000",
     f"{T}: networks.zone.cidr: value '10.77.0.0/21': too small: no IPv4 network holds block 9000000 of 512 addresses: give hosts smaller ids"),
    ("block no power of two", "10.77.0.0/21", "10.77.0.0/21, block: 500", f"{T}: networks.zone.block: value 500: give a power of two, 32 or more"),
    ("block too small for a slot", "10.77.0.0/21", "10.77.0.0/21, block: 64",
     f"{T}: networks.zone.block: value 64: block too small: slot 9 of 'keystone' is behind its last slot 6, take 128"),
    ("bridge name", "10.77.0.0/21", "10.77.0.0/21, bridge: a-very-long-bridge",
     f"{T}: networks.zone.bridge: value 'a-very-long-bridge': write a bridge name of at most 15 characters"),
    ("default bridge name", "release:", "deployment: thirteen-long\nrelease:",
     f"{T}: networks.zone.bridge: value 'zs-thirteen-long': give a bridge name of at most 15 characters (this is the default)"),
    ("one bridge for two networks", "hosts:\n", "  storage: {cidr: 10.99.0.0/20, bridge: zs-x}\nhosts:\n",
     f"{T}: networks.storage.bridge: value 'zs-x': network 'zone' uses this bridge: choose another"),
    ("mtu", "10.77.0.0/21", "10.77.0.0/21, mtu: 100", f"{T}: networks.zone.mtu: value 100: give 1280 to 9216 bytes"),
    ("internal address no address", "services:", "endpoints: {internal: vip}\nservices:",
     f"{T}: endpoints.internal: value 'vip': write an IPv4 address, such as 192.0.2.10"),
    ("internal address of a host", "services:", "endpoints: {internal: 10.77.2.5}\nservices:",
     f"{T}: endpoints.internal: value '10.77.2.5': use an address of block 0 of network zone, 10.77.0.1 to 10.77.1.255"),
    ("external address", "services:", "endpoints: {external: 'https://x'}\nservices:",
     f"{T}: endpoints.external: value 'https://x': write a host name or an IPv4 address"),
    ("external address that nobody has", "services:", "endpoints: {external: 10.77.0.6}\nservices:",
     f"{T}: endpoints.external: value '10.77.0.6': lies in network 'zone', where only 10.77.0.5 is the load balancer's: leave it out, or give another"),
    ("second address in no provider network", "services:", f"endpoints: {{external_address: 10.77.0.6}}\n{PUBLIC}\nservices:",
     f"{T}: endpoints.external_address: value '10.77.0.6': use an address of a provider network (cloud.networks) (known: 10.9.0.0/24, 10.8.0.0/24)"),
    *((f"second address that {why}", "192.0.2.12, groups: [control]}\nservices:",
       f"10.9.0.12, groups: [control]}}\n{PUBLIC}\nendpoints: {{external_address: {address}}}\nservices:",
       f"{T}: endpoints.external_address: value '{address}': {why}: use another address of 10.9.0.0/24")
      for address, why in (
          ("10.9.0.0", "is the network itself"), ("10.9.0.1", "is the gateway"), ("10.9.0.12", "is the address of host 'lx02'"),
          ("10.9.0.53", "is the address of a name server"), ("10.9.0.254", "is of the pool 10.9.0.128 to 10.9.0.254, which the cloud gives away"),
          ("10.9.0.255", "is the broadcast address"))),
    ("unknown service", "  memcached:", "  memcachd:",
     f"{T}: services.memcachd: value 'memcachd': unknown service: name one, or add its file to the services folder (known: memcached, galera, "
     "haproxy, keystone, swift, hypervisor, nova)"),
    ("no service", None, GOOD[: GOOD.index("services:")] + "services: {}\n",
     f"{T}: services: value {{}}: name at least one service (known: galera, memcached, haproxy, keystone, swift, hypervisor, nova)"),
    ("unknown host in a placement", "{count: 3}", "{hosts: [aio1, lx2]}",
     f"{T}: services.galera.hosts[1]: value 'lx2': unknown host, name a host or a group of hosts (known: lx02, aio1, control)"),
    ("group without hosts", "{count: 3}", "{hosts: [computes]}",
     f"{T}: services.galera.hosts[0]: value 'computes': unknown host, name a host or a group of hosts (known: aio1, lx02, control)"),
    ("no hosts in a placement", "{count: 3}", "{hosts: []}",
     f"{T}: services.galera.hosts: value []: name at least one host or group of hosts (known: aio1, lx02, control)"),
    ("needs not deployed", "  memcached:\n", "",
     f"{T}: services.memcached: service 'keystone' needs it (services/keystone.yml: needs[1]): add `memcached:` under services "
     "(known: galera, keystone)"),
    ("even Galera", "{count: 3}", "{count: 4}",
     f"{T}: services.galera.count: value 4: galera votes, 4 members cannot outvote a lost half: take an odd number, 3 or 5"),
    ("two-node Galera", "{count: 3}", "{count: 2}",
     f"{T}: services.galera.count: value 2: galera votes, 2 members cannot outvote a lost half: take an odd number, 1 or 3"),
    ("even Galera by hosts", "{count: 3}", "{per_host: 1}",
     f"{T}: services.galera.per_host: value 1: galera votes, 2 members cannot outvote a lost half: take an odd number, 1 or 3"),
    ("replicas beyond the slot", "memcached:", "memcached: {count: 17}",
     f"{T}: services.memcached.count: value 17: replicas beyond the slot: a host holds at most 8 zones of a component, this would be 9"),
    ("replicas of a host beyond the slot", "memcached:", "memcached: {per_host: 9}",
     f"{T}: services.memcached.per_host: value 9: replicas beyond the slot: a host holds at most 8 zones of a component, this would be 9"),
    ("count 0", "{count: 3}", "{count: 0}", f"{T}: services.galera.count: value 0: give 1 or more"),
    ("count and per_host", "{count: 3}", "{count: 3, per_host: 1}", f"{T}: services.galera.per_host: value 1: set count or per_host, not both"),
    ("count as text", "{count: 3}", "{count: three}", f"{T}: services.galera.count: value 'three': give a whole number"),
    ("placement is no mapping", "{count: 3}", "3",
     f"{T}: services.galera: value 3: write a mapping with the keys of placement (known: count, per_host, hosts, spread, memory, vcpus, cpu_cap, quota)"),
    ("memory", "memory: 2048", "memory: 1", f"{T}: services.keystone.memory: value 1: give 64 or more MiB"),
    ("placement of a service with components", "  memcached:", "  nova: {count: 2}\n  memcached:",
     f"{T}: services.nova.count: value 2: unknown component (known: nova_api, nova_conductor)"),
    ("unknown component", "  memcached:", "  nova: {nova_apis: {}}\n  memcached:",
     f"{T}: services.nova.nova_apis: value {{}}: unknown component (known: nova_api, nova_conductor)"),
    ("service on an unknown network", "  memcached:", "  swift:\n  memcached:",
     f"services/swift.yml: networks[0]: value 'storage': {T} has no such network: add it under networks (known: zone)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"), [row[1:] for row in REFUSED_TOPOLOGIES], ids=[row[0] for row in REFUSED_TOPOLOGIES]
)
def test_topology_is_refused_with_where_what_and_what_would_be_right(old, new, message):
    if old is not None:
        assert old in GOOD
    with pytest.raises(Refused) as refused:
        build(new if old is None else GOOD.replace(old, new, 1))
    assert str(refused.value) == message


def test_zones_of_two_hosts_that_would_share_a_name_are_refused():
    services = {**SERVICES, "b_c": "{description: One, slot: 30}", "c": "{description: Two, slot: 31}"}
    text = GOOD.replace("aio1:", "a:").replace("lx02:", "a-b:") + "  b_c:\n  c: {hosts: [a-b]}\n"
    with pytest.raises(Refused, match="zone 'a-b-c-1' of 'c' would bear the name of a zone of 'b_c'"):
        build(text, services)


def test_name_of_the_folder_must_serve_as_the_deployments():
    with pytest.raises(Refused, match="deployment: value 'My Cloud': write a DNS label"):
        build(deployment="My Cloud")


def test_service_named_as_a_group_of_ansible_is_refused():
    with pytest.raises(
        Refused, match="services/zones.yml: value 'zones': the name belongs to Ansible or this plugin: choose another"
    ):
        build(GOOD + "  zones:\n", {**SERVICES, "zones": "{description: Zones, slot: 30}"})


def test_front_ends_are_those_of_apis_and_listeners():
    services = {
        **SERVICES,
        "other": "{description: Other, slot: 30, api: {type: x, port: 9}, listen: {web: {port: 8, mode: http, public: true}}}",
    }
    fronts = build(GOOD + "  other:\n", services).stack["front_ends"]
    assert fronts["other"] == {
        "service": "other",
        "component": "other",
        "type": "x",
        "port": 9,
        "mode": "http",
        "health": "/healthcheck",
        "check_port": 9,
        "sticky": False,
        "idle": 300,
        "public": True,
        "from": ["any"],
    }
    assert fronts["web"] == {**fronts["other"], "type": None, "port": 8, "check_port": 8, "health": None}
    assert (fronts["mysql"]["component"], fronts["mysql"]["public"]) == ("galera", False)


def test_users_are_the_deployed_services_that_need_one():
    """A front end that is not public is theirs alone, unless it says otherwise; ports may be open to them too."""
    services = {
        **SERVICES,
        "memcached": "{description: Cache, slot: 4, listen: {cache: {port: 7, from: [hosts]}}, ports: {own: {port: 7, from: [haproxy, users]}}}",
        "other": "{description: Other, slot: 30, needs: [galera]}",
        "absent": "{description: Not deployed, slot: 31, needs: [galera, memcached]}",
    }
    made = build(GOOD + "  other:\n", services)
    fronts = made.stack["front_ends"]
    assert (fronts["mysql"]["from"], fronts["cache"]["from"]) == (["keystone", "other"], ["hosts"])
    assert made.services["memcached"]["ports"]["own"]["from"] == ["haproxy", "keystone"]
    with pytest.raises(
        Refused, match=r"galera.yml: listen.mysql.from\[0\]: value 'keystome': name a service or component, or users"
    ):
        build(
            GOOD,
            {**SERVICES, "galera": "{description: Database, slot: 2, listen: {mysql: {port: 3306, from: [keystome]}}}"},
        )


def test_front_ends_that_share_a_port_are_refused():
    services = {**SERVICES, "haproxy": "{description: Other, slot: 1, api: {type: x, port: 3306}}"}
    with pytest.raises(
        Refused,
        match="services/haproxy.yml: api.port: value 3306: galera mysql has this port on the load balancer: choose another",
    ):
        build(GOOD + "  haproxy:\n", services)


def test_front_end_on_a_port_of_the_load_balancer_is_refused():
    services = {**SERVICES, "other": "{description: Other, slot: 30, listen: {web: {port: 8404}}}"}
    with pytest.raises(
        Refused,
        match="listen.web.port: value 8404: haproxy statistics has this port on the load balancer: choose another",
    ):
        build(GOOD + "  other:\n  haproxy:\n", services)


def test_long_lists_of_known_names_begin_with_the_likeliest():
    many = "".join(f"  lx{number:03}: {{id: {number}, address: h{number}}}\n" for number in range(3, 103))
    text = (
        GOOD.replace("services:", f"{many}services:", 1)
        .replace("{count: 3}", "{hosts: [lx0777]}")
        .replace("10.77.0.0/21", "10.0.0.0/8")
    )
    with pytest.raises(Refused, match=r"\(known: lx077, .*, and \d+ more\)$") as refused:
        build(text)
    assert len(str(refused.value)) < 500


def shape(value: t.Any) -> t.Any:
    """What data is made of, whatever stands in it."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, (list, tuple)) else type(value).__name__


def test_a_large_network_costs_what_a_small_one_does():
    small, large = (build(GOOD.replace("10.77.0.0/21,", f"10.77.0.0/{prefix}, block: 128,")) for prefix in (23, 16))
    assert shape([small.hosts, small.stack, small.zones]) == shape([large.hosts, large.stack, large.zones])
    assert [zone.address for zone in every_zone(small).values()] == [
        zone.address for zone in every_zone(large).values()
    ]


LEAVING = """
release: "2026.2"
networks:
  zone: {cidr: 10.77.0.0/20, interface: eth1}
hosts:
  a: {id: 1, address: 192.0.2.1, groups: [control]}
  b: {id: 2, address: 192.0.2.2, groups: [control]}
  c: {id: 3, address: 192.0.2.3, groups: [control]}
  d: {id: 4, address: 192.0.2.4, groups: [control]}
  e: {id: 5, address: 192.0.2.5}
services:
  galera: {hosts: [control]}
  memcached: {per_host: 1, hosts: [d, e]}
"""


def test_host_that_leaves_is_as_good_as_gone():
    marked = build(
        LEAVING.replace("192.0.2.5}", "192.0.2.5, leaving: true}").replace("id: 2,", "id: 2, leaving: true,")
    )
    lines = [line for line in LEAVING.splitlines() if not line.startswith(("  b:", "  e:"))]
    deleted = build("\n".join(lines).replace("[d, e]", "[d]"))
    assert (marked.zones, marked.stack, marked.hosts, marked.groups) == (
        deleted.zones,
        deleted.stack,
        deleted.hosts,
        deleted.groups,
    )
    assert [zone.host for zone in marked.zones["galera"]] == ["a", "c", "d"]
    assert {name: noun["id"] for name, (_host, noun) in marked.leaving.items()} == {"b": 2, "e": 5}
    assert deleted.leaving == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[control]}\n  b", "[control], leaving: true}\n  b", None),
        ("[d, e]", "[e]", r"services.memcached.hosts: value .* all of these are leaving: name another host"),
        (
            "galera: {hosts: [control]}",
            "galera: {hosts: [a, b, e]}",
            r"galera votes and would have 2 of its 3 members on host 'a'",
        ),
    ],
)
def test_host_may_leave_where_the_others_do_without_it(old, new, message):
    text = LEAVING.replace("192.0.2.5}", "192.0.2.5, leaving: true}")
    if message is None:
        build(text.replace(old, new))
        return
    with pytest.raises(Refused, match=message):
        build(text.replace(old, new))


def test_last_host_and_the_way_to_a_network_do_not_leave():
    lonely = LEAVING.replace("address:", "leaving: true, address:")
    with pytest.raises(Refused, match=r"hosts.a.leaving: .*no host would be left: scripts/destroy.sh --all"):
        build(lonely)
    way = (
        LEAVING.replace("192.0.2.5}", "192.0.2.5, leaving: true}")
        + "cloud: {networks: {out: {cidr: 192.0.3.0/24, gateway_host: e}}}\n"
    )
    with pytest.raises(
        Refused, match=r"cloud.networks.out.gateway_host: .*leaving, and with it the way to the network"
    ):
        build(way)
