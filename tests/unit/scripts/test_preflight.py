# SPDX-License-Identifier: GPL-3.0-or-later
"""One planted fault, one line that names it: everything between what hosts tell and what the operator reads.

The hosts are told of here; real ones (sshd, network namespaces, veth pairs) are asked in tests/integration/test_preflight.py.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import preflight
from checks.between import judge_names
from checks.finding import Finding
from checks.unreachable import NO_PYTHON, NO_SUDO, judge_silence
from cloud import compute
from deployment import ROOT
from facts import CAPABILITIES
from kernel_settings import SETTINGS
from preflight import Answer
from probes import PROBES

Told = dict[str, Any]
Plant = Callable[[dict[str, Told]], None]

ROUTER = "52:54:00:00:00:01"
ADDRESSES = {"one": "10.79.2.1", "two": "10.79.4.1"}
NAMES = {"one": "one.example.net", "two": "two.example.net"}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The example of two machines, with names for addresses."""
    text = (ROOT / "inventory/examples/two-hosts/topology.yml").read_text()
    for name, host in {"192.0.2.11": "one.example.net", "192.0.2.12, user: ops": "two.example.net"}.items():
        text = text.replace(f"address: {name.partition(',')[0]}", f"address: {host}")
    text = text.replace("cloud:\n", "endpoints: {external: cloud.example.net}\n\ncloud:\n", 1)
    path = tmp_path_factory.mktemp("two") / "topology.yml"
    path.write_text(text)
    return compute(path)


def healthy(computed: Any) -> dict[str, Told]:
    """What the hosts of a deployment tell that is deployed, and where all is well."""
    told = {}
    for number, (name, host) in enumerate(computed.hosts.items(), 1):

        def link(name: str, address: str | None = None, number: int = number, **more: Any) -> dict[str, Any]:
            info = [{"local": address.split("/")[0], "prefixlen": int(address.split("/")[1])}] if address else []
            return {
                "ifname": name,
                "mtu": 1500,
                "address": f"52:54:00:{number:02x}:00:{len(name):02x}",
                "addr_info": info,
                **more,
            }

        bridge = {"linkinfo": {"info_kind": "bridge"}}
        zones = [zone for every in computed.zones.values() for zone in every if zone.host == name]
        told[name] = {
            "system": {"id": "debian", "version": "13", "name": "Debian GNU/Linux 13 (trixie)"},
            "architecture": "x86_64",
            "python": "3.13.5",
            "lxc": "6.0.4",
            "cpus": 16,
            "memory": 96 * 1024,
            "disk": {"free": 400 * 1024, "total": 900 * 1024, "type": "ext2/ext3"},
            "zones": {zone.name: zone.uuid for zone in zones},
            "missing_capabilities": [],
            "unmapped_ids": [],
            "openvswitch": True,
            "devices": {"/dev/kvm": True, "/dev/net/tun": True, "/dev/vhost-net": True},
            "hostname": name,
            "machine": f"boot-{name} net:[1]",
            "machine_id": f"id-{name}",
            "synchronised": True,
            "links": [
                link("lo", "127.0.0.1/8"),
                link("eth0", f"192.0.2.1{number}/24"),
                link("eth2", master="zs-two-public"),
                link("eth1", master="zs-two"),
                link("zs0123456789n0", master="zs-two"),
                link("zs-two", f"{host['addresses']['zone']}/20", **bridge),
                link("zs-two-public", **bridge),
            ],
            "routes": [
                {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
                {"dst": "192.0.2.0/24", "dev": "eth0"},
                {"dst": "10.79.0.0/20", "dev": "zs-two"},
            ],
            "resolvers": {"/etc/resolv.conf": "nameserver 192.0.2.53\n"},
            "proxies": [],
            "listening": [{"protocol": "tcp", "address": "*", "port": 22, "program": "sshd"}],
            "package_hosts": ["packages.example.net"],
            "names": {
                "one.example.net": ["192.0.2.11"],
                "two.example.net": ["192.0.2.12"],
                "cloud.example.net": ["203.0.113.9"],
                "packages.example.net": ["198.51.100.1"],
                name: ["127.0.1.1"],
                f"{name}.example.net": ["127.0.1.1"],  # as Debian's installer has it
            },
            "trials": dict.fromkeys(probe.name for probe in PROBES),
            "settings": {name: {"value": one.wanted, "fixed": None} for name, one in SETTINGS.items()},
            "drops": [],
            "pings": [],
            "answers": {zone.address: zone.mac for zone in zones} | {"203.0.113.1": ROUTER},
        }
    # an instance has a floating address, and HAProxy's zone answers for the deployment
    told["one"]["answers"] |= {"203.0.113.70": "fa:16:3e:00:00:07", "10.79.0.5": computed.zones["haproxy"][0].mac}
    return told


def lines(computed: Any, told: dict[str, Told], ahead: dict[str, float] | None = None, **silent: Finding) -> list[str]:
    """What the operator reads."""
    given = preflight.addresses_of(computed)
    answers = {
        name: Answer(silence=silent[name]) if name in silent else Answer(told[name], (ahead or {}).get(name, 0.0))
        for name in told
    }
    return [str(found) for found in preflight.judged(computed, given, preflight.wanted(computed, given), answers)]


def link(told: Told, name: str) -> dict[str, Any]:
    return next(one for one in told["links"] if one["ifname"] == name)


def given(host: str, **facts: Any) -> Plant:
    """Have a host tell something else."""

    def plant(told: dict[str, Told]) -> None:
        for name, value in facts.items():
            told[host][name] = {**told[host][name], **value} if isinstance(value, dict) else value

    return plant


def changed(host: str, name: str, **values: Any) -> Plant:
    """Have a link of a host be otherwise."""
    return lambda told: link(told[host], name).update(values)


def lost(small: bool, why: str | None = None) -> Plant:
    """Have `one` not reach `two`, or not with large packets."""
    return lambda told: told["one"]["pings"].append(
        {"address": ADDRESSES["two"], "mtu": 1500, "small": small, "large": False, "why": why}
    )


ADDRESS = {"addr_info": [{"local": "192.0.2.77", "prefixlen": 24}]}

FAULTS: dict[str, tuple[Plant, str]] = {
    "system": (
        given("two", system={"version": "24.04", "id": "ubuntu", "name": "Ubuntu 24.04"}),
        "problem: two: system: this is Ubuntu 24.04. Fix: use Debian 12",
    ),
    "architecture": (
        given("two", architecture="aarch64"),
        "problem: two: architecture: aarch64, and the image of hypervisors is for x86_64",
    ),
    "python": (
        given("one", python="3.9.2"),
        "problem: one: python: /usr/bin/python3 is 3.9.2. Fix: install Debian's own Python there, 3.11 or newer",
    ),
    "lxc": (given("one", lxc="4.0.11"), "problem: one: lxc: version 4.0.11 is installed"),
    "cpus": (given("two", cpus=1), "problem: two: cpus: 1, and what topology.yml places there (17 zones) needs 2"),
    "memory of all": (
        given("one", memory=5000),
        "problem: one: memory: 5000 MiB, and what topology.yml places there (23 zones) needs 5657 MiB",
    ),
    "memory of one": (
        given("one", memory=5600),
        "problem: one: memory: 5.5 GiB, and one-nova-compute-1 alone may use 6.0 GiB",
    ),
    "memory promised twice": (
        given("one", memory=16384),
        "warning: one: memory: 16.0 GiB, and its 23 zones may use 27.6 GiB together",
    ),
    "disk of a fresh host": (
        given("two", disk={"free": 9000}, zones=[]),
        "problem: two: disk: /var/lib/lxc has 9000 MiB free and needs 10896 MiB",
    ),
    "disk of a deployed host": (
        given("two", disk={"free": 900}),
        "problem: two: disk: /var/lib/lxc has 900 MiB free and needs 2048 MiB",
    ),
    "disk promised twice": (
        given("two", disk={"total": 100 * 1024}),
        "warning: two: disk: 100.0 GiB at /var/lib/lxc, and its 17 zones may use 152.0 GiB together",
    ),
    "privileges": (
        given("one", missing_capabilities=["CAP_SYS_ADMIN"]),
        "problem: one: privileges: root does not have all capabilities here, it lacks CAP_SYS_ADMIN",
    ),
    "user ids": (
        given("one", unmapped_ids=["gid_map"]),
        "problem: one: user ids: 100000 to 165535, which the zones use, are not mapped here (/proc/self/gid_map)",
    ),
    "control groups": (
        given("one", trials={"control groups": "none can be created in /sys/fs/cgroup: Read-only file system"}),
        "problem: one: kernel: no control groups (none can be created in /sys/fs/cgroup: Read-only file system), and a zone's memory",
    ),
    "too few watches": (
        given("one", settings={"fs.inotify.max_user_instances": {"value": 24, "fixed": "Read-only file system"}}),
        "problem: one: sysctl: fs.inotify.max_user_instances is 24 and cannot be raised here (Read-only file system); ",
    ),
    "enough watches": (
        given("two", settings={"fs.inotify.max_user_watches": {"value": 190000, "fixed": "Read-only file system"}}),
        "warning: two: sysctl: fs.inotify.max_user_watches is 190000 and cannot be raised here (Read-only file system); that is enough for",
    ),
    "resolver on loopback": (
        given("one", resolvers={"/etc/resolv.conf": "nameserver 127.0.0.53\nnameserver ::1\n"}),
        "problem: one: dns: /etc/resolv.conf names 127.0.0.53 alone, which is each zone's own loopback",
    ),
    "somebody's firewall": (
        given(
            "two", drops=[{"table": "inet filter", "chain": "forward", "what": "policy drop", "accepted": "docker0"}]
        ),
        "problem: two: firewall: table inet filter, chain forward (policy drop) drops what zones send through this machine. Fix: nft insert "
        "rule inet filter forward iifname { zs-two } accept; nft insert rule inet filter forward oifname { zs-two } ct state",
    ),
    "namespaces": (
        given("one", trials={"user namespaces": "No space left on device"}),
        "problem: one: kernel: no user namespaces (No space left on device), and root of a zone is not root of its host. Fix: sysctl user.max",
    ),
    "bridges": (
        given("one", trials={"bridges": "Operation not supported"}),
        "problem: one: kernel: no bridges (Operation not supported)",
    ),
    "NAT": (
        given("two", trials={"NAT with nftables": "no nat"}),
        "problem: two: kernel: no NAT with nftables (no nat)",
    ),
    "overlay": (
        given("two", trials={"overlay": "Invalid argument"}),
        "problem: two: kernel: no overlay can be mounted below /var/lib/lxc (Invalid argument). Fix: make",
    ),
    "datapath": (
        given("two", openvswitch=False),
        "warning: two: kernel: the kernel module openvswitch is missing, so Open vSwitch forwards packets of instances in",
    ),
    "tun": (
        given("two", trials={"taps": "No such file or directory"}),
        "problem: two: kernel: no taps (No such file or directory), and instances are connected through them. Fix: modprobe tun",
    ),
    "kvm": (
        given("two", devices={"/dev/kvm": False}),
        "warning: two: device: there is no /dev/kvm, so instances are emulated",
    ),
    "bridge's name": (
        changed("one", "zs-two", linkinfo={"info_kind": "vxlan"}),
        "problem: one: network: zs-two, the bridge of network zone, has the name of vxlan",
    ),
    "ip": (given("two", links=[], routes=[]), "problem: two: network: ip(8) is not installed"),
    "route": (
        lambda told: told["two"]["routes"].append({"dst": "10.79.8.0/22", "dev": "tun0"}),
        "problem: two: network: network zone (10.79.0.0/20) overlaps the route to 10.79.8.0/22 (device tun0)",
    ),
    "name server": (
        given("two", resolvers={"/etc/resolv.conf": "nameserver 10.79.15.53\n"}),
        "problem: two: network: network zone (10.79.0.0/20) overlaps name server 10.79.15.53 in /etc/resolv.conf",
    ),
    "interface": (
        lambda told: told["two"]["links"].remove(link(told["two"], "eth2")),
        "problem: two: network: network public needs interface eth2, which does not exist (there are: lo, eth0, eth1,",
    ),
    "interface in use": (
        changed("two", "eth2", master=None, **ADDRESS),
        "problem: two: network: eth2 becomes a port of bridge zs-two-public and has address 192.0.2.77, which would become unreachable",
    ),
    "port of another bridge": (
        changed("two", "eth1", master="zs-other"),
        "problem: two: network: eth1 becomes a port of bridge zs-two and is one of zs-other, which would lose it",
    ),
    "MTU of a port": (
        changed("two", "eth1", mtu=1400),
        "problem: two: mtu: eth1 carries packets of 1400 bytes, and network zone has an mtu of 1500",
    ),
    "MTU of the wire": (
        lost(True, "10.79.9.9 reports that its next link carries at most 1400 bytes"),
        "problem: two: mtu: network zone: packets of 1500 bytes, the mtu of the network, do not pass between this host and one",
    ),
    "wire": (
        lost(False),
        "problem: two: network: network zone: 10.79.4.1 does not answer one (no answer)",
    ),
    "bridge not made yet": (
        changed("two", "zs-two", addr_info=[]),
        "warning: network: network zone is not on two yet, so connectivity in it cannot be checked",
    ),
    "address of a zone": (
        lambda told: told["one"]["answers"].update({"10.79.2.8": "52:54:00:ab:cd:ef"}),
        "problem: one: address: 10.79.2.8, which is the address of one-haproxy-1, is in use: 52:54:00:ab:cd:ef answers",
    ),
    "virtual address": (
        lambda told: told["one"]["answers"].update({"10.79.0.5": "52:54:00:ab:cd:ef"}),
        "problem: one: address: 10.79.0.5, which is the virtual address, is in use: 52:54:00:ab:cd:ef answers",
    ),
    "address of the pool": (
        lambda told: told["one"]["answers"].update({"203.0.113.99": ROUTER}),
        "problem: one: address: 203.0.113.99, which is of the pool of network public, is in use:",
    ),
    "address of the host itself": (
        changed(
            "two",
            "eth0",
            addr_info=[{"local": "192.0.2.12", "prefixlen": 24}, {"local": "203.0.113.99", "prefixlen": 32}],
        ),
        "problem: two: address: 203.0.113.99, which is of the pool of network public, is an address of this machine on eth0",
    ),
    "gateway": (
        lambda told: [one["answers"].pop("203.0.113.1") for one in told.values()],
        "warning: network: the gateway of network public, 203.0.113.1, does not answer at eth2 of one, two",
    ),
    "port": (
        lambda told: told["one"]["listening"].append(
            {"protocol": "tcp", "address": "10.79.0.5", "port": 5000, "program": "nginx"}
        ),
        "problem: one: port: 10.79.0.5:5000 (tcp), where keystone is to be served, is in use by nginx",
    ),
    "listener at a zone's address": (
        lambda told: told["one"]["listening"].append(
            {"protocol": "udp", "address": "10.79.2.8", "port": 53, "program": "dnsmasq"}
        ),
        "problem: one: port: dnsmasq listens on 10.79.2.8:53 (udp), and the address is the address of one-haproxy-1",
    ),
    "name": (
        given("one", names={"two.example.net": "Name or service not known"}),
        "problem: one: dns: it cannot resolve two.example.net (Name or service not known)",
    ),
    "external name": (
        given("two", names={"cloud.example.net": "no answer within 5 s"}),
        "warning: two: dns: it cannot resolve cloud.example.net (no answer within 5 s)",
    ),
    "own name": (
        given("two", names={"two": "Name or service not known"}),
        "warning: two: dns: it cannot resolve its own name two. Fix: add `127.0.1.1 two` to /etc/hosts",
    ),
    "names of packages": (
        given("two", names={"packages.example.net": "Name or service not known"}),
        "warning: two: dns: it cannot resolve packages.example.net, from which it gets packages, and has no proxy",
    ),
    "clones": (
        lambda told: [one.update(machine_id="same") for one in told.values()],
        "problem: machine-id: one, two have the same /etc/machine-id, as clones",
    ),
    "one host under two names": (
        lambda told: [one.update(machine="m", machine_id="same") for one in told.values()],
        "problem: identity: one and two are the same machine",
    ),
    "clock that nothing keeps": (
        given("two", synchronised=False),
        "warning: clock: no program synchronises the clock on",
    ),
}


def test_where_all_is_well_nothing_is_said(computed: Any) -> None:
    assert lines(computed, healthy(computed)) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_that_names_it(computed: Any, fault: str) -> None:
    plant, said = FAULTS[fault]
    told = copy.deepcopy(healthy(computed))
    plant(told)
    found = lines(computed, told)
    assert len(found) == 1 and found[0].startswith(said), found
    assert ". Fix: " in found[0] and "\n" not in found[0]


def test_all_faults_at_once_are_all_named(computed: Any) -> None:
    """Those that do not exclude one another."""
    apart = {"ip", "memory of one", "memory promised twice", "disk of a fresh host", "disk promised twice", "interface", "wire", "bridge not made yet",
             "name server", "bridge's name", "one host under two names", "address of a zone", "listener at a zone's address", "clock that nothing keeps"}  # fmt: skip
    told = copy.deepcopy(healthy(computed))
    for fault in FAULTS.keys() - apart:
        FAULTS[fault][0](told)
    found = lines(computed, told)
    missing = [
        fault for fault in FAULTS.keys() - apart if not any(line.startswith(FAULTS[fault][1][:40]) for line in found)
    ]
    assert missing == [] and len(FAULTS.keys() - apart) >= 12


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        ({"one": 0.2, "two": -0.3}, []),
        ({"one": 0.0, "two": 75.26}, ["problem: two: clock: 75.3 s ahead of all others; at most 1 s are allowed"]),
        (
            {"one": -40.0, "two": -40.2},
            ["problem: clock: 40.0 s ahead of all others"],
        ),  # of this machine: both hosts agree
        (
            {"one": -3.0, "two": 3.0},
            ["problem: one: clock: 3.0 s behind this machine", "problem: two: clock: 3.0 s ahead of this machine"],
        ),
    ],
)
def test_clocks_are_compared_with_what_most_agree_on(computed: Any, ahead: dict[str, float], said: list[str]) -> None:
    found = lines(computed, healthy(computed), ahead)
    assert len(found) == len(said) and all(line.startswith(words) for line, words in zip(found, said, strict=True)), (
        found
    )


def test_name_that_leads_elsewhere_on_one_host_is_found() -> None:
    told = {
        host: {"hostname": host, "package_hosts": [], "proxies": [], "names": {"c.example.net": ["192.0.2.3"]}}
        for host in ("a", "b", "c")
    }
    told["c"]["names"]["c.example.net"] = ["127.0.1.1"]  # of itself, as Debian has it
    assert list(judge_names(told, {"c": "c.example.net"}, [])) == []
    told["d"] = {**told["a"], "names": {"c.example.net": ["198.51.100.3"]}}
    (found,) = judge_names(told, {"c": "c.example.net"}, [])
    assert (
        str(found)
        == "problem: d: dns: it resolves c.example.net to 198.51.100.3, other hosts to 192.0.2.3. Fix: correct /etc/hosts there."
    )


@pytest.mark.parametrize(
    ("rc", "words", "said"),
    [
        (255, "ssh: connect to host h port 22: Connection refused", "ssh: nothing listens on its SSH port"),
        (255, "ssh: connect to host h port 22: Connection timed out", "ssh: it does not answer"),
        (255, "ssh: connect to host h port 22: No route to host", "ssh: it cannot be reached"),
        (255, "ssh: Could not resolve hostname h: Name or service not known", "ssh: the name h cannot be resolved"),
        (
            255,
            "Host key verification failed.",
            "ssh: its host key is not in known_hosts. Fix: log in once by hand, ssh ops@h",
        ),
        (
            255,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "ssh: its host key differs from the one in known_hosts",
        ),
        (
            255,
            "ops@h: Permission denied (publickey).",
            "ssh: it accepts none of the SSH keys of this machine. Fix: ssh-copy-id ops@h",
        ),
        (
            NO_SUDO,
            "sudo: a password is required",
            "sudo: sudo asks for a password, or is not installed (sudo: a password is required)",
        ),
        (NO_PYTHON, "", "python: there is no /usr/bin/python3"),
        (
            1,
            "ModuleNotFoundError: No module named 'shutil'\n",
            "python: /usr/bin/python3 lacks modules of its own (ModuleNotFoundError: No module named 'shutil'). Fix: apt-get install python3",
        ),
        (-9, "", "ssh: SSH logged in, and then the host did not answer in time"),
        (1, "Traceback\nValueError: x", "facts: the program that checks the host failed (ValueError: x)"),
    ],
)
def test_host_that_tells_nothing_is_a_problem_and_the_others_are_judged(
    computed: Any, rc: int, words: str, said: str
) -> None:
    told = healthy(computed)
    told["one"]["cpus"] = 1
    found = lines(computed, told, two=judge_silence(rc, words, "h", "ops@h"))
    assert [line.split(":")[1] for line in found] == [" one", " two"]
    assert found[1].startswith(f"problem: two: {said}")


def test_fresh_hosts_are_no_problem(computed: Any) -> None:
    """Nothing is installed, no bridge is there; nobody can tell yet who reaches whom."""
    told = healthy(computed)
    for one in told.values():
        one["links"] = [row for row in one["links"] if not row["ifname"].startswith("zs")]
        for row in one["links"]:
            row.pop("master", None)
        one["routes"] = one["routes"][:2]
        one["lxc"], one["zones"] = None, {}
        one["pings"] = [
            {"address": address, "mtu": 1500, "small": False, "large": False, "why": "Network is unreachable"}
            for address in ADDRESSES.values()
        ]
        one["answers"] = {"203.0.113.1": ROUTER}
    assert lines(computed, told) == [
        "warning: network: network zone is not on one, two yet, so connectivity in it cannot be checked. Fix: scripts/run-playbooks.sh --step "
        "hosts creates bridge zs-two; connect a port of it to the other hosts, and run this again."
    ]


def test_bridge_that_leads_nowhere_is_told_as_the_cause(computed: Any) -> None:
    told = healthy(computed)
    for name, other in (("one", "two"), ("two", "one")):
        link(told[name], "eth1").pop("master")
        told[name]["pings"] = [{"address": ADDRESSES[other], "mtu": 1500, "small": False, "large": False, "why": None}]
    found = lines(computed, told)
    assert found == [
        "problem: one: network: network zone: 10.79.2.1 and two do not reach each other (no answer). "
        "Fix: on one, two, add the interface that leads to the other hosts to zs-two."
    ]


def test_address_for_image_builders_may_be_in_use_once_there_are_zones(computed: Any) -> None:
    told = healthy(computed)
    builder = computed.hosts["one"]["builders"][0]
    told["one"]["answers"][builder] = "00:16:3e:00:00:01"
    assert lines(computed, told) == []
    told["one"]["zones"] = {}
    assert [
        line
        for line in lines(computed, told)
        if line.startswith(f"problem: one: address: {builder}, which is kept for image builders, is in use")
    ]


def test_what_is_asked_of_a_host_grows_with_the_deployment_no_faster_than_it_must(computed: Any) -> None:
    given = preflight.addresses_of(computed)
    wants = preflight.wanted(computed, given)
    one, two = (wants[name].request for name in ("one", "two"))
    assert one["pings"] == [{"address": address, "mtu": 1500} for address in ADDRESSES.values()] and one[
        "names"
    ] == sorted([*NAMES.values(), "cloud.example.net"])
    zone, public = one["probes"]
    assert zone["device"] == "eth1" and len(zone["addresses"]) == 23 + 1 + 1 + 7  # zones, host, virtual, builders
    assert public["device"] == "eth2" and len(public["addresses"]) == 191 + 1
    assert two["probes"][1]["addresses"] == ["203.0.113.1"], "one host looks for the floating addresses"


def test_least_share_is_what_the_all_in_one_was_measured_with() -> None:
    """README and bootstrap say 8 GiB of memory and 16 GiB of disk for the example; the rule for any host must agree."""
    from bootstrap import ALL_IN_ONE

    made = compute(ROOT / "inventory/examples/aio/topology.yml")
    needs = preflight.wanted(made, preflight.addresses_of(made))["aio1"].needs
    assert 0.85 * ALL_IN_ONE.memory < needs.memory <= ALL_IN_ONE.memory == 8192
    assert needs.disk == ALL_IN_ONE.disk <= 16 * 1024
    assert len(CAPABILITIES) > 10


def test_json_has_what_the_lines_have(
    computed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = [Finding("cpus", "1", "more", "one"), Finding("dns", "no name", "say it", fatal=False)]
    monkeypatch.setattr(preflight, "look", lambda _computed: found)
    monkeypatch.setattr("sys.argv", ["preflight.sh", "examples/two-hosts", "--json"])
    assert preflight.main() == 1
    said = json.loads(capsys.readouterr().out)
    assert said["hosts"] == ["one", "two"]
    assert said["findings"] == [
        {"kind": "problem", "host": "one", "check": "cpus", "what": "1", "fix": "more"},
        {"kind": "warning", "host": None, "check": "dns", "what": "no name", "fix": "say it"},
    ]
    monkeypatch.setattr("sys.argv", ["preflight.sh", "examples/two-hosts"])
    found.pop(0)
    assert preflight.main() == 0, "warnings do not fail"
    assert "0 problems, 1 warning: one, two checked in" in capsys.readouterr().out
