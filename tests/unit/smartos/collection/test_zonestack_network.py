# SPDX-License-Identifier: GPL-3.0-or-later
"""The global zone's zonestack-network, and the module that keeps it, with the tools of a simulated node on paper."""

from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[4]
BIN = PROJECT / "tests/smartos_sim/bin"
PROGRAM = PROJECT / "roles/zone_host/files/smartos/zonestack-network"
LACKS_ALL = """\
NIC zs_net_t0_gz0 with 10.98.2.1/21: missing
forwarding of IPv4: off
NAT of 10.98.0.0/21: missing
NIC admin_gz0 with 10.97.2.1/24: missing
"""

Net = t.Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a node; its commands are compiled once for all tests."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture
def net(node: Path) -> t.Iterator[Net]:
    """Runs a line of shell on the node; ``net`` in it is the program, which serves one deployment with one NIC tag."""
    variables = {
        **os.environ, "SMARTOS_SIM_STATE": str(node / "state"), "ZONESTACK_NETWORK": str(node / "network"), "PATH": f"{BIN}:{os.environ['PATH']}",
    }  # fmt: skip
    (node / "network").mkdir(exist_ok=True)
    (node / "network/net-t").write_text("# a comment\nzs_net_t0 10.98.2.1/21 1400 10.98.0.0/21 - -\n")

    def run(line: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        script = f'net() {{ bash {PROGRAM} "$@"; }}\n{line}'
        done = subprocess.run(
            ["bash", "-ec", script], env=variables, capture_output=True, text=True, timeout=600, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    run("nictagadm exists zs_net_t0 2>/dev/null || nictagadm add -l zs_net_t0")
    yield run
    run("net stop", check=False)


def test_start_makes_all_and_a_second_one_changes_nothing(net: Net) -> None:
    net("echo 'admin 10.97.2.1/24 1500 - - -' >>$ZONESTACK_NETWORK/net-t")
    first = net(
        "net check || echo lacks; net start; net check; ifconfig zs_net_t0_gz0; ipnat -l; net start; ipnat -l; net check"
    )
    assert first.stdout.startswith(f"{LACKS_ALL}lacks\n")
    assert "inet 10.98.2.1 netmask fffff800" in first.stdout
    assert first.stdout.count("map e1000g0 10.98.0.0/21 -> 0.0.0.0/32\n") == 2  # once in each listing
    assert net("dladm show-vnic -p -o link,over,macaddress").stdout.splitlines() == [
        r"zs_net_t0_gz0:zs_net_t0:02\:7a\:0a\:62\:02\:01",
        r"admin_gz0:e1000g0:02\:7a\:0a\:61\:02\:01",
    ]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("ifconfig zs_net_t0_gz0 unplumb", "NIC zs_net_t0_gz0 with 10.98.2.1/21: missing"),
        ("ifconfig zs_net_t0_gz0 inet 10.98.2.1/24 up", "NIC zs_net_t0_gz0: address 10.98.2.1/21 is missing"),
        ("sed -i 's/ 1400 / 1500 /' $ZONESTACK_NETWORK/net-t", "NIC zs_net_t0_gz0: mtu is not 1500"),
        ("ipnat -l | grep ^map | ipnat -r -f -", "NAT of 10.98.0.0/21: missing"),
    ],
)
def test_what_is_missing_is_named_and_mended(net: Net, damage: str, said: str) -> None:
    net("net start")
    done = net(f"{damage}; net check || echo rc $?; net start; net check")
    assert done.stdout == f"{said}\nrc 1\n"


def test_stop_leaves_nothing_of_ours(net: Net) -> None:
    foreign = "map e1000g0 192.168.0.0/24 -> 0/32"
    net(f"echo '{foreign}' | ipnat -f -; net start; net stop; net stop")
    assert net("dladm show-vnic").stdout.splitlines()[1:] == []
    left = net(f"ipnat -l; echo '{foreign}' | ipnat -r -f -").stdout.splitlines()
    assert [line for line in left if line.startswith("map")] == ["map e1000g0 192.168.0.0/24 -> 0.0.0.0/32"]


def test_what_cannot_be_done_is_said(net: Net) -> None:
    assert "there is no NIC tag zs_net_t0" in net("nictagadm delete zs_net_t0; net start", check=False).stderr
    assert "there is no" in net("net start other", check=False).stderr
    assert net("net", check=False).stderr.startswith("The global zone's addresses")


def test_the_module_keeps_the_program_and_has_it_make_what_is_missing(
    net: Net, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: t.Callable[..., dict[str, t.Any]]
) -> None:
    """In check mode too the program itself says what is missing, before it is there."""
    monkeypatch.setenv("SMARTOS_SIM_STATE", str(node / "state"))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    options = {
        "deployment": "net-t", "network_command": PROGRAM.read_text(), "path": str(tmp_path / "sbin/zonestack-network"),
        "folder": str(tmp_path / "network"), "bridges": [{"bridge": "zs_net_t0", "address": "10.98.2.1/21", "mtu": 1400, "nat": "10.98.0.0/21"}],
    }  # fmt: skip
    told = run_module("zone_network", {**options, "_ansible_check_mode": True})
    assert list(tmp_path.iterdir()) == []
    done = run_module("zone_network", options)
    assert told == done and done["changed"]
    assert done["changes"][2].startswith("network of net-t: NIC zs_net_t0_gz0 with 10.98.2.1/21: missing; ")
    assert (tmp_path / "network/net-t").read_text().splitlines()[1] == "zs_net_t0 10.98.2.1/21 1400 10.98.0.0/21 - -"
    assert run_module("zone_network", options)["changed"] is False
