# SPDX-License-Identifier: GPL-3.0-or-later
"""What facts.py reads out of a machine. What it asks of networks is tested with real ones, in tests/integration/test_preflight.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import facts
import preflight


def test_memory_is_the_smaller_of_machine_and_cgroup() -> None:
    meminfo = "MemTotal:       16384000 kB\nMemFree:  1 kB\n"
    assert facts.memory_mib(meminfo, ["max\n", ""]) == 16000
    assert facts.memory_mib(meminfo, [f"{4 * 2**30}\n"]) == 4096


def test_missing_capabilities_are_named() -> None:
    everything = (1 << 41) - 1
    assert facts.missing_capabilities(f"CapBnd:\t{everything:016x}\n") == []
    without = everything & ~(1 << 21) & ~(1 << 12)
    assert facts.missing_capabilities(f"CapBnd:\t{without:016x}\n") == ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]


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
    assert facts.maps_ids(uid_map) is covers


def test_proxies_are_told_without_their_passwords() -> None:
    found = facts.proxies(
        {"https_proxy": "http://user:secret@10.77.1.8:3128", "HTTP_PROXY": "10.177.0.9:80", "no_proxy": "*"}
    )
    assert found == [["https_proxy", "10.77.1.8", "10.77.1.8"], ["HTTP_PROXY", "10.177.0.9", "10.177.0.9"]]


def test_package_hosts_are_those_of_all_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://old.example.org/debian bookworm main\ndeb http://deb.example.org/debian bookworm main\n"
    )
    (tmp_path / "sources.list.d/a.sources").write_text(
        "Types: deb\nURIs: https://user:pw@one.example.org/x http://two.example.org:8080\n"
    )
    assert facts.package_hosts(tmp_path) == ["deb.example.org", "one.example.org", "two.example.org"]


def test_listeners_are_read_from_ss() -> None:
    lines = (
        'tcp   LISTEN 0 511    10.77.0.5:443   0.0.0.0:*  users:(("nginx",pid=7,fd=6),("nginx",pid=8,fd=6))\n'
        "udp   UNCONN 0 0      127.0.0.53%lo:53 0.0.0.0:*\n"
        'tcp   LISTEN 0 128    [::]:22         [::]:*     users:(("sshd",pid=1,fd=3))\n'
        'tcp   LISTEN 0 128    [::ffff:10.0.0.1]:80 *:*     users:(("java",pid=1,fd=3))\n'
    )
    assert [tuple(one.values()) for one in facts.listening(lines)] == [
        ("tcp", "10.77.0.5", 443, "nginx"),
        ("udp", "127.0.0.53", 53, "a program"),
        ("tcp", "*", 22, "sshd"),
        ("tcp", "10.0.0.1", 80, "java"),
    ]


def test_names_are_looked_up_at_once_and_one_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = facts.threading.Event()
    real = facts.socket.getaddrinfo

    def lookup(name: str, *rest: object) -> object:
        if name == "slow.example.org":
            waits.wait()
        return real("127.0.0.1" if name == "fast" else "nope.invalid", *rest)

    monkeypatch.setattr(facts.socket, "getaddrinfo", lookup)
    try:
        for seconds in (0.3, 3, 30):  # the first limit within which the machine comes to the others
            found = facts.resolve(["fast", "lost", "slow.example.org"], seconds=seconds)
            assert found["slow.example.org"] == f"no answer within {seconds:g} s"
            if found["fast"] == ["127.0.0.1"] and "within" not in found["lost"]:
                break
    finally:
        waits.set()
    assert found["fast"] == ["127.0.0.1"] and isinstance(found["lost"], str)


def test_checksum_of_a_whole_packet_is_zero() -> None:
    for data in (b"\x08\x00\x12\x34abc", b"\xff" * 1001):
        padded = data + bytes(len(data) % 2)
        assert facts.checksum(padded + facts.checksum(data).to_bytes(2, "big")) == 0


def test_program_runs_from_standard_input_alone(tmp_path: Path) -> None:
    """As a host runs it: nothing but Python's standard library, no module of ours on any path, nothing written beside it."""
    given, program = preflight.program_of(
        {"names": ["localhost"], "devices": ["/dev/null", "/dev/nope"], "settings": ["kernel.pid_max"]}
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", program], input=given,
        capture_output=True, cwd=tmp_path, timeout=600, check=True,
    )  # fmt: skip
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["now"] > 1.7e9
    assert second["names"]["localhost"] == ["127.0.0.1"] and second["devices"] == {
        "/dev/null": True,
        "/dev/nope": False,
    }
    assert second["cpus"] >= 1 and second["memory"] > 100 and "user namespaces" in second["trials"]
    assert second["settings"]["kernel.pid_max"]["value"] > 300 and isinstance(second["drops"], list)
    assert list(tmp_path.iterdir()) == []
