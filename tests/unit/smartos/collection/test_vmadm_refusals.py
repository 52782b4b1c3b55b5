# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vmadm's own code refuses, ignores or does otherwise: the module knows, and nothing is stopped or left half done."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import vmadm as module
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import PlanError
from desired_states import IMAGES, Client, make_host
from smartos_sim.main import main

VM = "deadbeef-0000-4000-8000-000000000001"
NIC = {"nic_tag": "admin", "ips": ["10.1.0.5/24"], "mac": "02:00:00:00:00:01"}
DISK = {"size": 1024, "model": "virtio", "boot": True}
Want = t.Callable[..., dict[str, t.Any]]


@pytest.fixture
def want(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Want:
    """Bring a VM to what is described; of what brand, when it is new."""
    monkeypatch.setenv("SMARTOS_SIM_STATE", str(tmp_path))
    make_host(tmp_path)

    def run(brand: str | None = None, **given: t.Any) -> dict[str, t.Any]:
        base: dict[str, t.Any] = {}
        if brand in ("bhyve", "kvm"):
            base = {"brand": brand, "ram": 1024, "vcpus": 1, "disks": [DISK], "nic_driver": "virtio"}
        elif brand:
            base = {"brand": brand, "image_uuid": IMAGES["lx-dataset" if brand == "lx" else "zone-dataset"]}
        if brand == "lx":
            base["kernel_version"] = "5.10.0"
        client = Client()
        result = module.converge(client, module.Want.from_options({"uuid": VM, **base, **given}))
        return {**result, "vm": client.get(VM), "payloads": client.payloads}

    return run


def get() -> dict[str, t.Any]:
    """The VM as vmadm shows it."""
    found = Client().get(VM)
    assert found is not None
    return found


# 1. A running VM is never left down for a change that cannot be.


@pytest.mark.parametrize("change", [{"model": "floppy"}, {"compression": "zstd"}])
def test_a_disk_that_cannot_be_is_refused_before_the_vm_is_stopped(want: Want, change: dict[str, t.Any]) -> None:
    path = want("bhyve")["vm"]["disks"][0]["path"]
    before = get()
    with pytest.raises(PlanError, match=f"{next(iter(change))}.* is not valid"):
        want(disks=[{"path": path, **change}], allow_reboot=True)
    assert get() == before and before["state"] == "running"


@pytest.mark.parametrize("autoboot", [True, False])
def test_what_was_stopped_for_a_change_that_failed_runs_again(want: Want, autoboot: bool) -> None:
    path = want("bhyve", state="running", autoboot=autoboot)["vm"]["disks"][0]["path"]
    assert (
        main("smartos-sim", ["fault", "add", "vmadm update", "--step", "command", "--do", "fail", "--message", "no"])
        == 0
    )
    with pytest.raises(CommandError, match="no; the VM, which was stopped for it, runs again"):
        want(disks=[{"path": path, "model": "nvme"}], allow_reboot=True)
    after = get()
    assert (after["state"], after["autoboot"], after["disks"][0]["model"]) == ("running", autoboot, "virtio")


def test_a_missing_tag_is_found_out_before_the_vm_is_stopped(want: Want) -> None:
    path = want("bhyve", nics=[{**NIC, "nic_tag": "stub0"}])["vm"]["disks"][0]["path"]
    assert main("smartos-sim", ["node", "nic_tags=[]"]) == 0
    with pytest.raises(PlanError, match="nic_tag: 'stub0' is not a tag of this node"):
        want(disks=[{"path": path, "model": "nvme"}], allow_reboot=True)
    assert get()["state"] == "running"


# 2. The name of a new NIC's interface is vmadm's.


def test_a_replaced_nic_has_the_interface_of_the_one_before(want: Want) -> None:
    nics = [{**NIC, "interface": "eth0"}, {"nic_tag": "admin", "ips": ["10.1.0.6/24"], "interface": "eth1"}]
    want("lx", nics=nics)
    nics[1] = {**nics[1], "mac": "02:00:00:00:00:99"}
    result = want(nics=nics)
    assert [(nic["interface"], nic["mac"]) for nic in result["vm"]["nics"]] == [
        ("eth0", "02:00:00:00:00:01"), ("eth1", "02:00:00:00:00:99"),
    ]  # fmt: skip
    assert not want(nics=nics)["changed"]


def test_new_nics_are_added_in_the_order_of_their_interfaces(want: Want) -> None:
    nics = [{"nic_tag": "admin", "ips": ["10.1.0.6/24"], "interface": "net1"}, {**NIC, "interface": "net0"}]
    assert [nic["mac"] == NIC["mac"] for nic in want("joyent", nics=nics)["vm"]["nics"]] == [True, False]
    assert not want(nics=nics)["changed"]


def test_an_interface_that_vmadm_will_not_give_is_refused(want: Want) -> None:
    with pytest.raises(PlanError, match="interface 'net7' is not valid: vmadm takes the first free name, 'net0'"):
        want("joyent", nics=[{**NIC, "interface": "net7"}])


# 3. What ends vmadm without a message.


@pytest.mark.parametrize(
    ("brand", "change", "reason"),
    [
        ("joyent", {"zfs_root_compression": "zstd"}, "zfs_root_compression: 'zstd' is not valid: use one of on, off"),
        ("joyent", {"routes": {"10.9.0.0/16": 5}}, "routes.10.9.0.0/16: 5 is not valid: use an IPv4 address"),
        ("lx", {"filesystems": [{"type": "lofs", "target": "/b"}]}, "filesystems .*: source is needed"),
        ("bhyve", {"disks": [{"path": "/dev/zvol/rdsk/zones/x", "model": "virtio"}], "remove_disks": True, "state": "stopped"},
         "there is no such disk"),
    ],
)  # fmt: skip
def test_what_crashes_vmadm_is_refused(want: Want, brand: str, change: dict[str, t.Any], reason: str) -> None:
    want(brand)
    before = get()
    with pytest.raises(PlanError, match=reason):
        want(**change)
    assert get() == before


# 4. NICs with VRRP.


@pytest.mark.parametrize("brand", ["joyent", "lx", "kvm"])
def test_a_nic_with_vrrp_is_made_with_the_vm_and_taken_away(want: Want, brand: str) -> None:
    virtual = {"nic_tag": "admin", "ips": ["10.1.0.9/24"], "vrrp_vrid": 5, "vrrp_primary_ip": "10.1.0.5"}
    made = want(brand, nics=[NIC, virtual])
    assert [nic["mac"] for nic in made["vm"]["nics"]] == [NIC["mac"], "00:00:5e:00:01:05"]
    assert not want(nics=[NIC, virtual])["changed"]
    moved = want(nics=[{**NIC, "ips": ["10.1.0.7/24"]}])
    assert [nic["ips"] for nic in moved["vm"]["nics"]] == [["10.1.0.7/24"]]


@pytest.mark.parametrize(
    ("nics", "reason"),
    [
        ([NIC, {"nic_tag": "admin", "ips": ["10.1.0.9/24"], "vrrp_vrid": 5}], "vrrp_primary_ip is needed"),
        ([NIC, {"nic_tag": "admin", "vrrp_vrid": 5, "vrrp_primary_ip": "10.9.9.9"}], "an address of a nic of this VM"),
        ([{"nic_tag": "admin", "vrrp_vrid": 5, "vrrp_primary_ip": "10.1.0.5"}], "add a NIC without one"),
    ],
)
def test_vrrp_that_cannot_be_is_refused(want: Want, nics: list[dict[str, t.Any]], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        want("joyent", nics=nics)


# 5. What create and update refuse although validate lets it pass.

LATE: list[tuple[str, dict[str, t.Any], str]] = [
    ("joyent", {"routes": {"fd00::/8": "10.1.0.1"}}, "an IPv4 address, or a network"),
    ("joyent", {"routes": {"0.0.0.0/0": "10.1.0.1"}}, "a default route is the gateways of the primary nic"),
    ("joyent", {"routes": {"10.2.0.0/33": "10.1.0.1"}}, "a network of /8 to /32"),
    ("joyent", {"routes": {"10.2.0.0/16": "nics[4]"}}, "a nic of this VM with a fixed address"),
    ("joyent", {"nics": [{**NIC, "ips": ["10.1.0.5/0"]}]}, "networks of /8 to /32"),
    ("joyent", {"nics": [{**NIC, "ips": ["10.1.0.5/1"]}]}, "networks of /8 to /32"),
    ("joyent", {"nics": [{**NIC, "mtu": 1400}]}, "mtu: 1400 is not valid: use at least 1500"),
    (
        "joyent",
        {"nics": [{**NIC, "ips": [f"10.1.{n}.5/24" for n in range(21)]}]},
        "ips: 21 are too many: use at most 20",
    ),
    (
        "joyent",
        {"nics": [{**NIC, "allowed_ips": [f"10.1.{n}.5" for n in range(14)]}]},
        "14 are too many: use at most 13",
    ),
    ("joyent", {"nics": [{**NIC, "nic_tag": "nosuch"}]}, "'nosuch' is not a tag of this node: use one of admin"),
    ("bhyve", {"disks": [{**DISK, "model": "ide"}]}, "model: 'ide' is not valid: use one of virtio, ahci, nvme"),
    ("bhyve", {"disks": [{**DISK, "block_size": 1000}]}, "block_size: 1000 is not valid: use a power of two"),
    ("kvm", {"disks": [{**DISK, "compression": "zip"}]}, "compression: 'zip' is not valid"),
    ("bhyve", {"disks": [{**DISK, "pci_slot": "0:6:0"}]}, "bhyve uses device 6 itself"),
    ("bhyve", {"disks": [{**DISK, "pci_slot": "0:4:1"}, {**DISK, "boot": False, "pci_slot": "0:4:1"}]}, "another disk"),
    ("bhyve", {"vnc_password": "much too long"}, "at most 8 characters"),
    ("kvm", {"vga": "zz"}, "vga: 'zz' is not valid: use one of cirrus, std"),
]


@pytest.mark.parametrize(("brand", "given", "reason"), LATE, ids=[reason for brand, given, reason in LATE])
def test_what_vmadm_refuses_late_is_refused_first(want: Want, brand: str, given: dict[str, t.Any], reason: str) -> None:
    with pytest.raises(PlanError) as refused:
        want(brand, **given)
    assert reason in str(refused.value)
    assert Client().get(VM) is None


# 6. What becomes of a payload is what is predicted.


@pytest.mark.parametrize(
    ("brand", "given", "reason"),
    [
        ("bhyve", {"ram": 0}, "ram: 0 is not valid"),
        ("kvm", {"ram": 0}, "ram: 0 is not valid"),
        ("joyent", {"max_physical_memory": 0}, "max_physical_memory: 0 is not valid: use at least 1 MiB"),
        ("joyent", {"filesystems": [{"type": "lofs", "source": "create-volume", "target": "/a"}]}, "use a directory"),
        ("joyent", {"zlog_max_size": 2**63 - 1}, "a whole number up to 9007199254740991"),
        ("joyent", {"tags": {"n": 2**60}}, "tags.n: .* a whole number up to"),
        ("kvm", {"bootrom": "uefi"}, "a VM of brand kvm has no such property"),
    ],
)
def test_what_vmadm_would_make_something_else_of_is_refused(
    want: Want, brand: str, given: dict[str, t.Any], reason: str
) -> None:
    with pytest.raises(PlanError, match=reason):
        want(brand, **given)


def test_tmp_grows_together_with_the_memory(want: Want) -> None:
    want("joyent", max_physical_memory=256)
    grown = want(max_physical_memory=1024, tmpfs=700)["vm"]
    assert (grown["max_physical_memory"], grown["tmpfs"]) == (1024, 700)


def test_locked_memory_stays_a_number_when_the_memory_shrinks(want: Want) -> None:
    want("joyent", max_physical_memory=3000, max_locked_memory=512)
    assert want(max_physical_memory=256)["vm"]["max_locked_memory"] == 256


def test_a_docker_container_keeps_its_autoboot_when_it_starts(want: Want) -> None:
    want("lx", docker=True, autoboot=False)
    assert want(docker=True, autoboot=True, state="running")["vm"]["autoboot"] is True
    assert not want(docker=True, autoboot=True, state="running")["changed"]


def test_a_nic_with_an_address_of_chance_may_come_before_another_update(want: Want) -> None:
    want("bhyve", autoboot=False, state="running")
    path = get()["disks"][0]["path"]
    nic = {"nic_tag": "admin", "ips": ["10.1.0.5/24"], "model": "virtio"}
    made = want(
        nics=[nic], disks=[{"path": path, "model": "nvme"}], routes={"10.9.0.0/16": "nics[0]"}, allow_reboot=True
    )
    assert (made["vm"]["state"], made["vm"]["autoboot"], len(made["vm"]["nics"])) == ("running", False, 1)
