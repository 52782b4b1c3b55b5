# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight against real machines: this one through a real SSH daemon, and network namespaces joined by wires of their own.

Needs root. All that is made is in namespaces that end with the test, and on loopback.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import typing as t
from pathlib import Path

import pytest

import preflight
from cloud import compute

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

TOPOLOGY = """\
plugin: zonestack.openstack.topology
release: "2026.2"
networks: {zone: {cidr: 10.98.0.0/20, bridge: zs-t, mtu: 1500}}
hosts:
  a: {id: 1, address: 192.0.2.1}
  b: {id: 2, address: 192.0.2.2}
  c: {id: 3, address: 192.0.2.3}
cloud: {networks: {public: {cidr: 203.0.113.0/24, interface: eth9, bridge: zs-p, pool: [203.0.113.64, 203.0.113.66]}}}
services: {memcached: {count: 3}, haproxy: {hosts: [a]}}
"""
STRANGER = "52:54:00:00:00:99"


@pytest.fixture
def computed(tmp_path: Path) -> t.Any:
    path = tmp_path / "t" / "topology.yml"
    path.parent.mkdir()
    path.write_text(TOPOLOGY)
    return compute(path)


class Machines:
    """Network namespaces, each held by a process that sleeps, on the switch ``wire``: a bridge in a namespace of its own."""

    def __init__(self, names: t.Iterable[str]) -> None:
        self.held = {
            name: subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE
            )
            for name in names
        }
        for process in self.held.values():
            assert process.stdout and process.stdout.readline() == b"\n", "unshare made no namespace"

    def way(self, host: t.Any, script: str) -> list[str]:
        """As ``preflight.way_to``: the machine is the one whose number the address ends with."""
        name = {"192.0.2.1": "a", "192.0.2.2": "b", "192.0.2.3": "c"}[host.address]
        return ["nsenter", f"--net=/proc/{self.held[name].pid}/ns/net", "sh", "-c", script]

    def run(self, name: str, script: str) -> None:
        subprocess.run(
            ["nsenter", f"--net=/proc/{self.held[name].pid}/ns/net", "sh", "-ec", script], check=True, timeout=600
        )

    def plug(self, name: str, device: str) -> None:
        """A wire from a device of the machine to the switch."""
        self.run(
            "wire",
            f"ip link add {name}-{device} type veth peer name {device} netns {self.held[name].pid}; ip link set {name}-{device} master sw up",
        )

    def end(self) -> None:
        for process in self.held.values():
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def machines() -> t.Iterator[Machines]:
    """a, b and c as a run leaves them, and a stranger without an address."""
    made = Machines(["wire", "a", "b", "c", "stranger"])
    try:
        made.run("wire", "ip link add sw type bridge; ip link set sw up")
        for number, name in enumerate("abc", 1):
            made.plug(name, "eth1")
            made.run(
                name,
                f"ip link set lo up; ip link add zs-t type bridge; ip link set eth1 master zs-t up; ip link add eth9 type veth peer name end9; ip link set end9 up; ip link set eth9 up; "
                f"ip address add 10.98.{number * 2}.1/20 dev zs-t; ip link set zs-t up; ip address add 192.0.2.{number}/24 dev lo",
            )
        made.plug("stranger", "eth0")
        made.run("stranger", f"ip link set eth0 address {STRANGER} up")
        yield made
    finally:
        made.end()


def said(computed: t.Any, machines: Machines) -> list[str]:
    """Findings, without those of this machine's size and kernel, and without those that every machine here must give: one /etc/machine-id
    for all, and no router behind eth9."""
    checks = ("network", "mtu", "address", "port", "identity", "ssh", "sudo", "facts")
    found = [str(one) for one in preflight.look(computed, machines.way) if one.check in checks]
    return [line for line in found if "does not answer at eth9" not in line]


def test_hosts_that_reach_one_another_are_silent(computed: t.Any, machines: Machines) -> None:
    assert said(computed, machines) == []
    found = [str(one) for one in preflight.look(computed, machines.way) if one.check in ("machine-id", "network")]
    assert found[0].startswith("problem: machine-id: a, b, c have the same /etc/machine-id"), (
        "clones are told from one machine under several names"
    )
    assert found[1].startswith(
        "warning: network: the gateway of network public, 203.0.113.1, does not answer at eth9 of a, b, c"
    )


def test_small_mtu_on_the_way_is_found_and_its_host_named(computed: t.Any, machines: Machines) -> None:
    """A switch drops what is too large and says nothing."""
    machines.run("wire", "ip link set b-eth1 mtu 1400")
    found = said(computed, machines)
    assert found == [
        "problem: b: mtu: network zone: packets of 1500 bytes, the mtu of the network, do not pass between this host and a, c (no answer); small ones do. "
        "Fix: raise the MTU of the switches between them, or set a smaller mtu for the network in topology.yml."
    ]


def test_router_that_says_what_it_takes_is_quoted(computed: t.Any, machines: Machines) -> None:
    """Asked of the program: between bridges of one network there is none."""
    machines.run("wire", "ip address add 192.168.250.1/24 dev sw")
    machines.run("a", "ip address add 192.168.250.2/24 dev zs-t; ip route add 192.168.251.0/24 via 192.168.250.1")
    machines.run(
        "wire",
        "sysctl -qw net.ipv4.ip_forward=1; ip link add far type veth peer name end netns "
        + str(machines.held["stranger"].pid),
    )
    machines.run("wire", "ip address add 192.168.251.1/24 dev far; ip link set far mtu 1400 up")
    machines.run(
        "stranger",
        "ip address add 192.168.251.2/24 dev end; ip link set end up; ip route add 192.168.250.0/24 via 192.168.251.1",
    )
    answer = preflight.ask(
        computed.topology.hosts["a"], {"pings": [{"address": "192.168.251.2", "mtu": 1500}]}, machines.way
    )
    assert answer.facts and [(one["small"], one["large"], one["why"]) for one in answer.facts["pings"]] == [
        (True, False, "192.168.250.1 reports that its next link carries at most 1400 bytes")
    ]


def test_small_mtu_of_a_port_is_named_as_the_cause(computed: t.Any, machines: Machines) -> None:
    machines.run("b", "ip link set eth1 mtu 1400")
    found = said(computed, machines)
    assert "problem: b: mtu: eth1 carries packets of 1400 bytes, and network zone has an mtu of 1500" in found[0]


def test_host_that_is_cut_off_is_one_line(computed: t.Any, machines: Machines) -> None:
    machines.run("wire", "ip link set c-eth1 nomaster")
    found = said(computed, machines)
    assert len(found) == 1 and found[0].startswith(
        "problem: c: network: network zone: 10.98.6.1 and a, b do not reach each other ("
    ), found


def test_bridge_without_a_port_is_named(computed: t.Any, machines: Machines) -> None:
    machines.run("c", "ip link set eth1 nomaster")
    found = said(computed, machines)
    assert len(found) == 1 and found[0].endswith("Fix: on c, add the interface that leads to the other hosts to zs-t.")


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("10.98.2.33", "the address of a-memcached-1"),
        ("10.98.0.5", "the virtual address"),
        ("10.98.4.1", "the address of host b in network zone"),
    ],
)
def test_address_that_a_stranger_has_is_found(computed: t.Any, machines: Machines, address: str, whose: str) -> None:
    owners = preflight.addresses_of(computed).owners
    address = next((one for one, owner in owners.items() if owner == whose), address)
    machines.run("stranger", f"ip address add {address}/20 dev eth0")
    found = said(computed, machines)
    assert any(f"address: {address}, which is {whose}, is in use: {STRANGER} answers" in line for line in found), found


def test_floating_address_that_a_stranger_has_is_found(computed: t.Any, machines: Machines, tmp_path: Path) -> None:
    """Hosts without hypervisors do not look, so this asks the program itself; also that Neutron's own MAC address is no stranger."""
    import facts
    from checks.between import judge_answers

    machines.run("stranger", "ip address add 203.0.113.65/24 dev eth0")
    request = {
        "probes": [
            {"device": "eth1", "addresses": ["203.0.113.64", "203.0.113.65"]},
            {"device": "nope", "addresses": ["203.0.113.66"]},
        ]
    }
    answer = preflight.ask(computed.topology.hosts["a"], request, machines.way)
    assert answer.facts and answer.facts["answers"] == {"203.0.113.65": STRANGER}
    given = preflight.addresses_of(computed)
    assert [one.what for one in judge_answers({"a": answer.facts}, given.owners, given.macs)] == [
        f"203.0.113.65, which is of the pool of network public, is in use: {STRANGER} answers"
    ]
    neutron = {"answers": {"203.0.113.65": "fa:16:3e:12:34:56"}}
    assert list(judge_answers({"a": neutron}, given.owners, given.macs)) == []
    assert facts.answers([]) == {}


def test_program_at_the_virtual_address_is_named(computed: t.Any, machines: Machines) -> None:
    machines.run("a", "ip address add 10.98.0.5/32 dev lo")
    code = "import socket, time; s = socket.create_server(('', 8404)); print(flush=True); time.sleep(3600)"
    argv = machines.way(computed.topology.hosts["a"], f'exec /usr/bin/python3 -c "{code}"')
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as listener:
        try:
            assert listener.stdout and listener.stdout.readline() == b"\n"
            found = said(computed, machines)
        finally:
            listener.kill()
    assert (
        "problem: a: address: 10.98.0.5, which is the virtual address, is an address of this machine on lo. Fix: ip address del 10.98.0.5 dev lo."
        in found
    )
    assert any(
        line.startswith(
            "problem: a: port: 10.98.0.5:8404 (tcp), where haproxy statistics is to be served, is in use by python3"
        )
        for line in found
    )


def test_one_machine_under_two_names_is_named_once(computed: t.Any, machines: Machines) -> None:
    machines.held["c"], kept = machines.held["b"], machines.held["c"]
    try:
        found = [one for one in preflight.look(computed, machines.way) if one.check in ("identity", "machine-id")]
    finally:
        machines.held["c"] = kept
    assert found[0].what == "b and c are the same machine"
    assert found[1].check == "machine-id" and found[1].what.startswith("a, b have the same /etc/machine-id")


# Over SSH ----------------------------------------------------------------------------------------------------------------


def over_ssh(sshd: t.Any, *further: str) -> preflight.Way:
    """The way that preflight.sh takes, with the daemon's key and its known_hosts."""
    options = [
        "-i",
        str(sshd.folder / "client"),
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        f"UserKnownHostsFile={sshd.folder}/known_hosts",
        "-F",
        "none",
    ]
    return lambda host, script: preflight.way_to(host, script, *further, *options)


def ask(sshd: t.Any, port: int | None = None, *further: str) -> preflight.Answer:
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import Host

    host = Host(id=1, address="127.0.0.1", user="root", port=port or sshd.port)
    return preflight.ask(host, {"names": ["localhost"]}, over_ssh(sshd, *further))


def test_host_tells_its_facts_over_ssh_and_nothing_is_left_there(sshd: t.Any) -> None:
    before = {path: sorted(os.listdir(path)) for path in ("/tmp", "/var/lib", "/root", str(sshd.folder))}
    start = time.time()
    answer = ask(sshd)
    took = time.time() - start
    assert answer.silence is None and answer.facts
    assert answer.facts["names"]["localhost"] == ["127.0.0.1"] and answer.facts["hostname"] == socket.gethostname()
    assert -took <= answer.ahead <= 0, "it is this machine's own clock, read on the way"
    after = {path: sorted(os.listdir(path)) for path in before}
    assert {
        path: set(after[path]) - set(before[path])
        for path in before
        if "zonestack-preflight" in str(set(after[path]) - set(before[path]))
    } == {}
    assert after[str(sshd.folder)] == before[str(sshd.folder)], "known_hosts has learned nothing"


def test_unknown_host_key_is_a_line_and_is_not_taken(sshd: t.Any, tmp_path: Path) -> None:
    known = sshd.folder / "known_hosts"
    text = known.read_text()
    try:
        known.write_text("")
        answer = ask(sshd)
        assert (
            answer.silence and answer.silence.what == "its host key is not in known_hosts" and known.read_text() == ""
        )
        known.write_text(
            text.replace(
                (sshd.folder / "host.pub").read_text().split()[1], (sshd.folder / "client.pub").read_text().split()[1]
            )
        )
        answer = ask(sshd)
        assert answer.silence and answer.silence.what == "its host key differs from the one in known_hosts"
    finally:
        known.write_text(text)


def test_key_that_is_not_let_in_is_a_line(sshd: t.Any, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    keys, allowed = sshd.folder / "client.pub", (sshd.folder / "client.pub").read_text()
    try:
        keys.write_text((tmp_path / "other.pub").read_text())
        answer = ask(sshd)
    finally:
        keys.write_text(allowed)
    assert answer.silence and answer.silence.what == "it accepts none of the SSH keys of this machine"
    assert answer.silence.fix.startswith("ssh-copy-id root@127.0.0.1")


def test_nobody_at_the_port_is_a_line(sshd: t.Any) -> None:
    with socket.socket() as reserved:  # bound and not listening, so nobody else takes it
        reserved.bind(("127.0.0.1", 0))
        answer = ask(sshd, reserved.getsockname()[1])
    assert answer.silence and answer.silence.what == "nothing listens on its SSH port"


@pytest.mark.parametrize(("hidden", "check"), [("sudo", "sudo"), ("python3", "python")])
def test_host_without_sudo_or_python_is_a_line(computed: t.Any, hidden: str, check: str) -> None:
    """As an ordinary user, for whom one of them is not there: what the host runs is the same."""

    def way(_host: t.Any, script: str) -> list[str]:
        script = script.replace("/usr/bin/python3", "/usr/bin/nope") if hidden == "python3" else script
        return [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "env",
            "PATH=/nowhere:/usr/bin",
            "sh",
            "-c",
            script,
        ]

    answer = preflight.ask(computed.topology.hosts["a"], {}, way)
    assert answer.silence and answer.silence.check == check, answer
