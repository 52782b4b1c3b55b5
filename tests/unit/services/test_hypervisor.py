# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hypervisor's start decides and writes; that instances then run is shown by the verification."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "services/nova/hypervisor.py"


@pytest.fixture(scope="module")
def program():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("hypervisor", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("hypervisor", loader))
    sys.modules["hypervisor"] = module  # dataclasses look their module up there
    loader.exec_module(module)
    return module


@pytest.fixture
def config(program):
    return program.Config(
        hostname="aio1-nova-compute-1", address="10.77.2.136", interface="eth0", southbound=("ssl:10.77.2.161:6642", "ssl:10.77.2.162:6642"),
        bridges={"public": "eth1"}, memory=4096, data=Path("/var/lib/nova"), tls={"key": "/k", "certificate": "/c", "ca": "/a"},
    )  # fmt: skip


def test_configuration_is_read_and_a_broken_one_named(program, tmp_path, config):
    path = tmp_path / "hypervisor.json"
    data = {name: getattr(config, name) for name in program.Config.__dataclass_fields__}
    path.write_text(json.dumps({**data, "data": "/var/lib/nova"}))
    assert program.load_config(path) == config
    path.write_text("{")
    with pytest.raises(program.Failure, match=r"hypervisor.json: .*run scripts/run-playbooks.sh again"):
        program.load_config(path)


def test_userspace_datapath_takes_over_segmentation(program, config):
    commands = program.switch_commands(config, "netdev", [])
    assert ["set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true"] in commands
    assert ["set", "Bridge", "br-public", "datapath_type=netdev", "external_ids:zonestack=provider"] in commands
    assert ["--may-exist", "add-port", "br-public", "eth1"] in commands
    assert [
        "set",
        "Open_vSwitch",
        ".",
        'external_ids:ovn-remote="ssl:10.77.2.161:6642,ssl:10.77.2.162:6642"',
    ] in commands


def test_kernel_datapath_leaves_nothing_of_the_other(program, config):
    commands = program.switch_commands(config, "system", [])
    assert ["remove", "Open_vSwitch", ".", "other_config", "userspace-tso-enable"] in commands
    assert not [command for command in commands if "netdev" in " ".join(command)]


def test_tunnels_of_before_are_gone_before_a_start(program, config):
    for datapath in ("netdev", "system"):
        assert ["--if-exists", "del-br", "zs-tunnel"] in program.switch_commands(config, datapath, [])


def test_open_vswitch_takes_from_the_kernels_interface_what_is_the_tunnels(program):
    assert program.tunnel_flows("10.77.2.136", "02:fc:f0:d9:5e:8a") == [
        "in_port=1,udp,nw_dst=10.77.2.136,tp_dst=6081,actions=LOCAL",
        "in_port=1,arp,arp_op=2,arp_tpa=10.77.2.136,actions=LOCAL",
        "in_port=1,dl_src=02:fc:f0:d9:5e:8a,actions=IN_PORT",
    ]


@pytest.fixture
def started(program, tmp_path, monkeypatch):
    """The commands that are run after the start of a switch with a given datapath."""

    def start(config, datapath):
        monkeypatch.setattr(program, "RESULT", tmp_path / "hypervisor.json")
        monkeypatch.setattr(program, "NETWORK", tmp_path)
        (tmp_path / "eth0").mkdir()
        (tmp_path / "eth0" / "address").write_text("02:fc:f0:d9:5e:8a\n")
        program.note("datapath", datapath, "so")
        commands = []
        monkeypatch.setattr(program, "run", lambda *argv, **_: commands.append(argv) or "")
        program.tunnel(config)
        return commands

    return start


def test_tunnels_leave_by_the_kernels_interface(started, config):
    commands = started(config, "netdev")
    assert ("ip", "address", "replace", "169.254.0.1/32", "dev", "zs-tunnel", "scope", "link") in commands
    *_, last = commands
    assert ("--may-exist", "add-port", "zs-tunnel", "eth0") == last[2:6], (
        "the first packet comes when the flows are there"
    )
    assert "ofport_request=1" in last


def test_the_kernels_tunnels_need_no_help(started, config):
    assert started(config, "system") == []


def test_a_provider_network_that_is_gone_takes_its_bridge_along(program, config):
    assert ["del-br", "br-old"] in program.switch_commands(config, "system", ["br-public", "br-old"])
    commands = program.switch_commands(replace(config, bridges={}), "system", ["br-public"])
    assert ["del-br", "br-public"] in commands
    # without a way out it is no gateway
    assert ["remove", "Open_vSwitch", ".", "external_ids", "ovn-cms-options"] in commands
    assert ["remove", "Open_vSwitch", ".", "external_ids", "ovn-bridge-mappings"] in commands


@pytest.mark.parametrize(
    ("bridges", "zone", "expected"),
    [
        ({"public": "eth1"}, None, "enable-chassis-as-gw"),
        ({"public": "eth1"}, "rack-1", "enable-chassis-as-gw,availability-zones=rack-1"),
        ({}, "rack-1", "availability-zones=rack-1"),
    ],
)
def test_neutron_is_told_what_a_chassis_may_be_and_where_it_is(program, config, bridges, zone, expected):
    commands = program.switch_commands(replace(config, bridges=bridges, availability_zone=zone), "system", [])
    assert ["set", "Open_vSwitch", ".", f'external_ids:ovn-cms-options="{expected}"'] in commands


def test_nova_must_not_give_away_what_lies_beyond_the_zone(program):
    assert program.reserved_memory(24000, 4096) == 24000 - 4096 + program.OWN_MEMORY
    assert program.reserved_memory(24000, None) == program.OWN_MEMORY
    assert program.reserved_memory(2000, 4096) == program.OWN_MEMORY


def test_the_machine_has_what_its_nodes_have(program, tmp_path):
    for node, kib in enumerate((8 * 2**20, 4 * 2**20)):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "meminfo").write_text(
            f"Node {node} MemTotal:       {kib} kB\nNode {node} MemFree:  1 kB\n"
        )
    assert program.machine_memory(tmp_path) == 12 * 1024
    assert program.machine_memory(tmp_path / "none") > 256


@pytest.mark.parametrize(("virt_type", "model"), [("kvm", "host-model"), ("qemu", "custom")])
def test_options_for_nova(program, virt_type, model):
    lines = program.options(virt_type, 1024).splitlines()
    assert (
        f"virt_type = {virt_type}" in lines
        and f"cpu_mode = {model}" in lines
        and "reserved_host_memory_mb = 1024" in lines
    )
    assert ("skip_cpu_compare_at_startup = true" in lines) is (virt_type == "qemu")


def test_first_process_is_a_program_that_says_so(program, tmp_path):
    """Run on this machine it writes its line; reboot(2) is refused to a user, and it stays."""
    path = tmp_path / "init"
    path.write_bytes(program.first_process())
    path.chmod(0o755)
    tmp_path.chmod(0o755)
    with subprocess.Popen(["setpriv", "--bounding-set=-sys_boot", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == program.ALIVE + b"\n"
        process.kill()


def test_initramfs_is_what_the_kernel_unpacks(program):
    data = program.archive({"init": (0o100755, b"12345"), "etc": (0o40755, b"")})
    assert len(data) % 4 == 0 and data.count(b"070701") == 3
    header = data[: data.index(b"init")]
    assert int(header[14:22], 16) == 0o100755 and int(header[54:62], 16) == 5 and int(header[94:102], 16) == 5
    assert data[112 + 4 : 112 + 9] == b"12345"


@pytest.mark.parametrize(
    ("script", "limit", "expected"),
    [
        ("printf 'zonestack guest: first process\\n'; exec sleep 1000", 900.0, (True, "in ")),
        (
            "echo 'KVM internal error. Suberror: 1'; exec sleep 1000",
            900.0,
            (False, "QEMU reports a KVM internal error"),
        ),
        ("echo first; echo 'kvm: Permission denied'; exit 1", 900.0, (False, "kvm: Permission denied")),
        ("exit 3", 900.0, (False, "QEMU ended with 3")),
        ("exec sleep 1000", 1.0, (False, "it did not reach its first process within 1 s")),
    ],
)
def test_a_trial_ends_as_soon_as_it_is_decided(program, script, limit, expected):
    begun = time.monotonic()
    with subprocess.Popen(["sh", "-c", f"exec 2>&1; {script}"], stdout=subprocess.PIPE) as guest:
        booted, detail = program.watch(guest, begun, limit)
        guest.kill()
    assert (booted, detail.startswith(expected[1])) == (expected[0], True)
    assert time.monotonic() - begun < 800


def test_trial_is_made_once_for_the_same_circumstances(program, tmp_path, monkeypatch):
    trials = []
    now = {"kernel": "6.12", "qemu": "10", "processor": "x"}
    kvm, cache = tmp_path / "kvm", tmp_path / "cache.json"
    monkeypatch.setattr(program, "KVM", kvm)
    assert program.choose_virt_type(cache)[0] == "qemu" and not cache.exists()
    kvm.touch()
    monkeypatch.setattr(program, "own_kvm", lambda: None)
    monkeypatch.setattr(program, "circumstances", lambda: dict(now))
    monkeypatch.setattr(program, "boot", lambda accelerator: trials.append(accelerator) or (True, "in 1.0 s"))
    assert program.choose_virt_type(cache) == ("kvm", "a guest booted with KVM in 1.0 s")
    assert program.choose_virt_type(cache)[0] == "kvm" and trials == ["kvm"]
    now["kernel"] = "6.13"
    program.choose_virt_type(cache)
    assert trials == ["kvm", "kvm"]
    cache.write_text("{broken")
    program.choose_virt_type(cache)
    assert len(trials) == 3


def test_both_choices_stand_in_one_result(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "RESULT", tmp_path / "run" / "hypervisor.json")
    assert program.status(as_json=False) == 1
    program.note("datapath", "netdev", "no module")
    assert program.status(as_json=True) == 1
    program.note("virt_type", "qemu", "no KVM")
    capsys.readouterr()
    assert program.status(as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {
        "datapath": "netdev", "virt_type": "qemu", "why": {"datapath": "no module", "virt_type": "no KVM"},
    }  # fmt: skip
