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
        env={**os.environ, "ZONESTACK_NETWORK": str(folder), "ZONESTACK_SITE": f"{folder}-site"},
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


# The site's own bridges --------------------------------------------------------------------------------------------------

SITE = """\
ip link add br0 type bridge
ip link set br0 address 02:51:7e:00:00:01 mtu {mtu} up
ip link set eth9 mtu {mtu} master br0 up
{address}
printf 'br0 10.98.2.1/21 1400 10.98.0.0/21 - -\\n' >$ZONESTACK_NETWORK/net-t
"""
SHOW = "ip -o link show br0 | sed 's/^[0-9]*: //'; ip -o -4 address show br0 | sed 's/^[0-9]*: //'; ip -o link show master br0 | sed 's/^[0-9]*: //'"


def site(folder: Path, script: str, mtu: int = 1400, address: str = "10.98.2.1/21") -> str:
    """The same where br0 is the site's, with an address and a port, and the deployment's only bridge."""
    given = f"ip address add {address} dev br0" if address else ""
    return inside(folder, SITE.format(mtu=mtu, address=given) + script)


@pytest.mark.parametrize(
    ("mtu", "address"), [(1400, "10.98.2.1/21"), (9000, "10.98.2.1/21"), (1500, ""), (1500, "10.98.3.9/21")]
)
def test_a_bridge_of_the_site_stays_as_it_is(tmp_path: Path, mtu: int, address: str) -> None:
    out = site(
        tmp_path,
        f"{SHOW}; echo ==; net start; net check; net start; net check; ip -o -4 address show br0 | grep -c 10.98.2.1/21;"
        f" net stop; echo ==; {SHOW}",
        mtu,
        address,
    )
    before, during, after = (part.strip() for part in out.split("==\n"))
    assert before == after and "02:51:7e:00:00:01" in after and f"mtu {mtu}" in after and "eth9" in after
    assert during == "1"


@pytest.mark.parametrize(
    ("script", "mtu", "address", "said"),
    [
        ("", 1300, "10.98.2.1/21", "its MTU 1300 is smaller than the network's 1400: raise it, or set mtu: 1300"),
        ("", 1500, "192.0.2.7/24", "its address 192.0.2.7/24 is in another network than 10.98.2.1/21"),
        ("", 1500, "10.98.2.1/24", "it has 10.98.2.1/24, where this host needs 10.98.2.1/21"),
        ("sed -i 's/- -$/other -/' $ZONESTACK_NETWORK/net-t;", 1500, "10.98.2.1/21", "other is no port of it"),
    ],
)
def test_a_bridge_of_the_site_that_contradicts_is_refused_unchanged(
    tmp_path: Path, script: str, mtu: int, address: str, said: str
) -> None:
    out = site(
        tmp_path,
        f"{script} {SHOW}; echo ==; net conflicts || echo refused; net start 2>&1 || echo refused; nft list ruleset; echo ==; {SHOW}",
        mtu,
        address,
    )
    before, during, after = out.split("==\n")
    assert before == after
    line = next(line for line in during.splitlines() if line != "refused")
    assert said in line and "stays as it is" in line
    assert during == f"{line}\nrefused\n{line}\nrefused\n"


def test_a_bridge_of_the_site_is_waited_for_and_never_made(tmp_path: Path) -> None:
    out = site(
        tmp_path,
        "net start; ip link delete br0; (sleep 1; ip link add br0 type bridge; ip link set br0 mtu 1500 up) & net start; net check;"
        " ip -o link show br0 | grep -c alias || true; ip link delete br0; ZONESTACK_SITE_WAIT=0 net start 2>&1 || echo rc $?;"
        " ip link show br0 2>&1 | grep -c 'does not exist'",
    )
    lines = out.splitlines()
    assert lines[0] == "0", "one that came late is not marked as ours"
    assert "bridge br0 is the site's" in lines[1] and "does not come up" in lines[1]
    assert lines[2:] == ["rc 1", "1"]


def test_a_bridge_of_a_version_without_marks_is_adopted_by_name_and_mac(tmp_path: Path) -> None:
    shown = "ip -o link show zs-net-t | sed 's/ *\\\\ *alias.*//'; ip -o -4 address show zs-net-t"
    out = inside(
        tmp_path,
        "printf 'zs-net-t 10.98.2.1/21 1400 10.98.0.0/21 - -\\nbr7 - 1500 - - -\\n' >$ZONESTACK_NETWORK/net-t\n"
        "net start; ip link set zs-net-t alias ''; ip link set br7 alias ''\n"
        f"{shown}; echo ==; net check || true; net start; net check; echo ==; {shown}; echo ==; net stop; ip -br link",
    )
    before, lacks, after, left = out.split("==\n")
    assert lacks == "bridge zs-net-t: not marked as made by zonestack\nbridge br7: not noted as the site's\n"
    assert before == after, "it has the number, the MAC address and the address that it had"
    assert "zs-net-t" not in left and "br7" in left, "what may have been the site's before is not deleted"


def test_a_bridge_of_two_deployments_goes_with_the_last_of_them(tmp_path: Path) -> None:
    out = inside(
        tmp_path,
        "printf 'br7 10.98.2.1/21 1400 10.98.0.0/21 - -\\n' >$ZONESTACK_NETWORK/net-t\n"
        "printf 'br7 10.98.2.2/21 1400 10.98.0.0/21 - -\\n' >$ZONESTACK_NETWORK/other\n"
        "net start net-t; net start other; net check; net stop net-t; rm $ZONESTACK_NETWORK/net-t; net check;"
        " ip -br link show br7 | wc -l; net stop other; ip link show br7 2>&1 | grep -c 'does not exist'",
    )
    assert out == "1\n1\n"


def test_rules_of_the_site_about_its_bridge_stay(tmp_path: Path) -> None:
    docker = "nft add table ip filter; nft add chain ip filter DOCKER-USER; nft add rule ip filter DOCKER-USER iifname br0 tcp dport 25 drop;"
    out = site(
        tmp_path,
        f"{docker} nft list table ip filter; echo ==; net start; net check; net stop; nft list table ip filter",
    )
    before, after = out.split("==\n")
    assert before == after and "dport 25" in after
