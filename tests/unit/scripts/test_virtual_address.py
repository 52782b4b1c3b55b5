# SPDX-License-Identifier: GPL-3.0-or-later
"""What HAProxy's zones are given for the virtual addresses, rendered as a run renders it, for two zones and for one."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from cryptography import x509

from cloud import compute
from comparison.sides import throw_away
from rendering import Rendering, find_collections

CHECKOUT = Path(__file__).resolve().parents[3]
KEEPALIVED, NFTABLES, HAPROXY = "/etc/keepalived/keepalived.conf", "/etc/nftables.conf", "/etc/haproxy/haproxy.cfg"
INSIDE, OUTSIDE = "10.64.0.5", "203.0.113.10"


@pytest.fixture(scope="module")
def files() -> t.Callable[[str, str], dict[str, str]]:
    """Example and zone to the content of each file."""
    find_collections()
    renderings: dict[str, Rendering] = {}

    def of(example: str, zone: str) -> dict[str, str]:
        if example not in renderings:
            topology = CHECKOUT / "inventory/examples" / example / "topology.yml"
            renderings[example] = Rendering(topology, {"secrets": throw_away(compute(topology))})
        rendering = renderings[example]
        return {file["path"]: file["content"] for file in rendering.tree(rendering.variables(zone))["files"]}

    return of


def block(text: str, name: str) -> list[str]:
    """The lines of a block of keepalived.conf, without comments; nothing where there is none."""
    found = re.search(rf"^ *{name} {{\n(.*?)\n *}}$", text, re.DOTALL | re.MULTILINE)
    return [line.split("#")[0].strip() for line in found[1].splitlines()] if found else []


def test_two_zones_are_one_anothers_peers(files):
    one, other = (files("production", f"edge{number}-haproxy-1")[KEEPALIVED] for number in (1, 2))
    assert (block(one, "unicast_peer"), block(other, "unicast_peer")) == (
        ["10.64.44.8 min_ttl 255"],
        ["10.64.42.8 min_ttl 255"],
    )
    assert "unicast_src_ip 10.64.42.8\n" in one and "unicast_src_ip 10.64.44.8\n" in other
    priorities = [int(re.search(r"^  priority (\d+)$", text, re.MULTILINE)[1]) for text in (one, other)]
    assert 255 > priorities[0] > priorities[1] > 0
    for text in (one, other):
        assert "  state BACKUP\n  nopreempt\n" in text
        assert block(text, "track_script") == ["haproxy_answers"]
        assert block(text, "virtual_ipaddress") == [f"{INSIDE}/32 dev eth0", f"{OUTSIDE}/32 dev eth1"]
        assert block(text, "virtual_rules") == [f"from {OUTSIDE}/32 table 112 preference 112"]
        assert block(text, "virtual_routes")[1] == f"0.0.0.0/0 via 203.0.113.1 dev eth1 src {OUTSIDE} table 112"


def test_the_only_zone_has_the_same_daemon_and_no_peer(files):
    text = files("aio", "aio1-haproxy-1")[KEEPALIVED]
    assert block(text, "virtual_ipaddress") == ["10.77.0.5/32 dev eth0"]
    assert not any(word in text for word in ("unicast_peer", "track_script", "virtual_rules"))


def test_the_firewall_hears_the_peers_and_nobody_else(files):
    def vrrp(example: str, zone: str) -> list[str]:
        return [line.strip() for line in files(example, zone)[NFTABLES].splitlines() if "protocol 112" in line]

    assert vrrp("production", "edge1-haproxy-1") == ['ip protocol 112 ip saddr { 10.64.44.8 } accept comment "vrrp"']
    assert vrrp("production", "edge2-haproxy-1") == ['ip protocol 112 ip saddr { 10.64.42.8 } accept comment "vrrp"']
    assert vrrp("aio", "aio1-haproxy-1") == vrrp("production", "ctl1-keystone-1") == []


def test_the_external_address_answers_at_public_ports_alone(files):
    rules = files("production", "edge1-haproxy-1")[NFTABLES].splitlines()
    first = next(number for number, line in enumerate(rules) if "eth1" in line)
    assert f'iifname "eth1" ip daddr != {OUTSIDE} drop' in rules[first]
    ports = re.search(rf"ip daddr {re.escape(OUTSIDE)} tcp dport != {{ (.*?) }} drop", rules[first + 1])[1].split(", ")
    assert {"80", "443", "5000"} <= set(ports)
    assert not {"3306", "8404", "8406", "8775"} & set(ports)
    assert all("accept" not in line or re.search("ct state|iifname|l4proto", line) for line in rules[:first]), (
        "before anything that lets in"
    )


def test_haproxy_waits_for_clients_also_without_the_addresses(files):
    text = files("production", "edge2-haproxy-1")[HAPROXY]
    binds = re.findall(r"^  bind (\S+)", text, re.MULTILINE)
    assert len(binds) > 10
    assert {bind.rpartition(":")[0] for bind in binds} == {""}
    assert (
        "  server edge1-haproxy-1 10.64.42.8:8406 verifyhost edge1-haproxy-1\n  server edge2-haproxy-1 verifyhost edge2-haproxy-1\n"
        in text
    )


@pytest.mark.parametrize(
    ("zone", "answers"),
    [("edge1-haproxy-1", True), ("edge2-haproxy-1", True), ("ctl1-galera-1", True), ("ctl1-keystone-1", False)],
)
def test_who_answers_at_the_addresses_has_them_in_its_certificate(files, zone, answers):
    certificate = x509.load_pem_x509_certificate(files("production", zone)["/etc/zonestack/tls/zone.crt"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    shared = {ipaddress.ip_address(one) for one in (INSIDE, OUTSIDE)}
    assert (shared <= set(names.get_values_for_type(x509.IPAddress))) is answers
    assert ("cloud.example.net" in names.get_values_for_type(x509.DNSName)) is answers


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("keepalived"), reason="needs root and keepalived")
@pytest.mark.parametrize(
    ("example", "zone"),
    [("production", "edge1-haproxy-1"), ("production", "edge2-haproxy-1"), ("aio", "aio1-haproxy-1")],
)
def test_keepalived_takes_its_configuration(files, tmp_path, example, zone):
    script = tmp_path / "answers"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    text = files(example, zone)[KEEPALIVED].replace("/usr/local/sbin/zonestack-haproxy-answers", str(script))
    (tmp_path / "keepalived.conf").write_text(text.replace("script_user keepalived_script", "script_user root"))
    links = "ip link add eth0 type veth peer name eth1; exec"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", f"{links} keepalived --config-test --use-file {tmp_path}/keepalived.conf"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
