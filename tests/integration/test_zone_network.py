# SPDX-License-Identifier: GPL-3.0-or-later
"""zonestack-network against the real kernel, in a network namespace that ends with each test. Needs root and nft."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/zone_host/files/zonestack-network"
LACKS_ALL = """\
bridge zs-t with 10.98.2.1/21: missing
bridge zs-p with 10.98.9.1/24: missing
bridge zs-q: missing
nftables table zonestack_net_t: missing or different
"""


def inside(folder: Path, script: str) -> str:
    """Run a shell script in a fresh network namespace; ``net`` is the program. Returns its output."""
    (folder / "net-t").write_text(
        "# a comment\nzs-t 10.98.2.1/21 1400 10.98.0.0/21 - -\n"
        "zs-p 10.98.9.1/24 1500 10.98.9.0/24 eth9 provider\nzs-q - 1500 - - provider\n"
    )
    done = subprocess.run(
        [
            "unshare",
            "--net",
            "bash",
            "-ec",
            f'net() {{ bash {PROGRAM} "$@"; }}\nip link add eth9 type veth peer name other\n{script}',
        ],
        env={**os.environ, "ZONESTACK_NETWORK": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_start_makes_all_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    out = inside(
        tmp_path, "net check || echo lacks; net start; net check; net start; net check; ip -br -4 address show zs-t"
    )
    assert out.startswith(f"{LACKS_ALL}lacks\n")
    assert out.count("missing") == 4 and out.rstrip().endswith("10.98.2.1/21")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("ip link set zs-t mtu 1500", "bridge zs-t: mtu is not 1400"),
        ("ip link set zs-t down", "bridge zs-t: down"),
        ("ip link set zs-t address 02:00:00:00:00:01", "bridge zs-t: MAC address is not 02:"),
        ("ip address flush dev zs-t", "bridge zs-t: address 10.98.2.1/21 is missing"),
        ("nft flush ruleset", "nftables table zonestack_net_t: missing or different"),
        ("nft add rule ip zonestack_net_t out counter", "nftables table zonestack_net_t: missing or different"),
        ("nft flush chain ip zonestack_net_t between", "nftables table zonestack_net_t: missing or different"),
        ("ip link set eth9 nomaster", "bridge zs-p: eth9 is no port of it"),
        ("ip link delete zs-q", "bridge zs-q: missing"),
        ("ip link delete zs-t", "bridge zs-t with 10.98.2.1/21: missing"),
        (
            "nft add table ip filter; nft add chain ip filter DOCKER-USER;"
            " for b in zs-p zs-q; do for d in i o; do nft add rule ip filter DOCKER-USER ${d}ifname $b counter accept; done; done",
            "bridge zs-t: Docker drops what it forwards",
        ),
    ],
)
def test_every_damage_is_seen_and_mended(tmp_path: Path, damage: str, said: str) -> None:
    out = inside(tmp_path, f"net start; {damage}; net check || true; net start; echo mended; net check")
    before, _mended, after = out.partition("mended\n")
    assert said in before and len(before.splitlines()) == 1
    assert after == ""


@pytest.mark.parametrize("docker", ["", "nft add table ip filter; nft add chain ip filter DOCKER-USER;"])
def test_stop_removes_what_start_made_and_nothing_else(tmp_path: Path, docker: str) -> None:
    out = inside(
        tmp_path,
        f"{docker} nft list ruleset; echo ==; net start; net stop; nft list ruleset; net stop; ip -o link | grep zs-t || echo gone",
    )
    before, _mark, after = out.partition("==\n")
    assert after == f"{before}gone\n"


def test_unknown_deployment_is_an_error(tmp_path: Path) -> None:
    out = inside(tmp_path, "net start nope 2>&1 || echo rc $?")
    assert out == f"zonestack-network: there is no {tmp_path}/nope\nrc 2\n"
