# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest payload and the calls for it, without any vmadm: VMs and descriptions in, plans out."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_changes import update_payload, view
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import PlanError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_plan import find, plan
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_predict import created, updated
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    BRANDS,
    HVM,
    PROPERTIES,
    ZONES,
    normal,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_want import Want

UUID = "6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11"
OTHER = "0d8d4c1a-3c55-5d29-8a3f-6b1f0c9d7e22"
IMAGE, IMAGE_2 = "1a1a1a1a-0b0b-4c0c-8d0d-b00000000001", "1a1a1a1a-0b0b-4c0c-8d0d-b00000000002"
NIC = {"mac": "02:08:20:00:00:01", "nic_tag": "admin", "ips": ["10.1.0.5/24"], "gateways": ["10.1.0.1"]}
NIC_2 = {"mac": "02:08:20:00:00:02", "nic_tag": "external", "ips": ["dhcp"]}
DISK = "/dev/zvol/rdsk/zones/x/disk"


def shown(state: dict[str, t.Any]) -> dict[str, t.Any]:
    """A state as ``vmadm get`` would show it, as far as a description is concerned."""
    vm = {name: value for name, value in state.items() if value is not None}
    return {**vm, "snapshots": [{"name": name} for name in state["snapshots"]]}


def vm(brand: str = "joyent", **payload: t.Any) -> dict[str, t.Any]:
    base: dict[str, t.Any] = {"brand": brand, "uuid": UUID}
    base.update({"image_uuid": IMAGE, "max_physical_memory": 1024} if brand in ZONES else {"ram": 1024, "vcpus": 1})
    if brand == "lx":
        base["kernel_version"] = "6.1.0"
    state = payload.pop("state", None)
    found = shown(created({**base, **payload}))
    return {**found, "state": state} if state else found


def want(**options: t.Any) -> Want:
    return Want.from_options({"uuid": UUID, **options})


def steps(have: dict[str, t.Any] | None, **options: t.Any) -> list[str]:
    return [str(step) for step in plan(have, want(**options)).steps]


def payload(have: dict[str, t.Any], **options: t.Any) -> dict[str, t.Any]:
    return update_payload(normal(have), want(**options))


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "options", "expected"),
    [
        ({"cpu_cap": 100}, {"cpu_cap": 0}, {"cpu_cap": 0}),
        ({}, {"cpu_cap": 0}, {}),
        ({"cpu_cap": 100}, {"unset": ["cpu_cap"]}, {"cpu_cap": ""}),
        ({"alias": "a"}, {"alias": "b"}, {"alias": "b"}),
        ({"package_name": "p"}, {"package_name": ""}, {"package_name": ""}),
        ({"limit_priv": ["default", "sys_time"]}, {"limit_priv": ["default", "sys_time"]}, {}),
        ({"resolvers": ["8.8.8.8"]}, {"resolvers": []}, {"resolvers": []}),
        ({}, {"resolvers": []}, {}),
        ({}, {"firewall_enabled": False, "restart_init": True, "do_not_inventory": False}, {}),
        ({"zfs_filesystem_limit": 0}, {"zfs_filesystem_limit": 0}, {}),
        ({}, {"zfs_filesystem_limit": 0}, {"zfs_filesystem_limit": 0}),
        ({"zfs_filesystem_limit": 5}, {"unset": ["zfs_filesystem_limit"]}, {"zfs_filesystem_limit": ""}),
        ({}, {"zfs_root_recsize": 0}, {}),
        ({"zfs_root_recsize": 512}, {"zfs_root_recsize": 0}, {"zfs_root_recsize": 131072}),
        ({"zfs_root_compression": "lz4"}, {"unset": ["zfs_root_compression"]}, {"zfs_root_compression": "off"}),
        ({"tags": {"a": 1, "b": 2}}, {"tags": {"a": 1, "c": True}}, {"set_tags": {"c": True}}),
        ({"tags": {"a": 1}}, {"tags": {"a": "1"}}, {"set_tags": {"a": "1"}}),
        ({"tags": {"a": 1}}, {"tags": {"a": True}}, {"set_tags": {"a": True}}),
        ({"tags": {"a": 1, "b": 2}}, {"tags": {"b": None, "z": None}}, {"remove_tags": ["b"]}),
        ({"customer_metadata": {"k": "v"}}, {"customer_metadata": {"l": "w"}}, {"set_customer_metadata": {"l": "w"}}),
        ({"routes": {"10.2.0.0/16": "10.1.0.9"}}, {"routes": {}}, {"remove_routes": ["10.2.0.0/16"]}),
    ],
)
def test_the_payload_holds_only_what_differs(have, options, expected):
    assert payload(vm(**have), **options) == expected


@pytest.mark.parametrize(
    ("have", "options", "expected"),
    [
        # what a new limit drags along is not sent, what it would undo is
        ({}, {"max_physical_memory": 2048}, {"max_physical_memory": 2048}),
        ({}, {"max_physical_memory": 2048, "tmpfs": 1024}, {"max_physical_memory": 2048, "tmpfs": 1024}),
        (
            {"max_swap": 4096},
            {"max_physical_memory": 2048, "max_swap": 4096},
            {"max_physical_memory": 2048, "max_swap": 4096},
        ),
        # what vmadm limits is compared as it limits it
        ({}, {"max_swap": 512}, {}),
        ({}, {"max_locked_memory": 4096, "tmpfs": 4096}, {}),
        ({}, {"cpu_shares": 70000}, {"cpu_shares": 65535}),
        ({"cpu_shares": 65535}, {"cpu_shares": 70000}, {}),
        ({}, {"ram": 1024}, {}),
        ({}, {"ram": 2048}, {"max_physical_memory": 2048}),
    ],
)
def test_memory_is_compared_as_vmadm_limits_it(have, options, expected):
    sent = payload(vm(**have), **options)
    assert sent == expected
    after = shown(updated(normal(vm(**have)), sent))
    assert payload(after, **options) == {}


def test_what_was_wanted_and_would_be_dragged_is_sent_along():
    have = vm(max_swap=2048, tmpfs=512)
    sent = payload(have, max_physical_memory=1536, max_swap=2048, max_locked_memory=1024, tmpfs=512)
    assert sent == {"max_physical_memory": 1536, "max_swap": 2048, "max_locked_memory": 1024, "tmpfs": 512}


@pytest.mark.parametrize("brand", HVM)
def test_guest_memory_drags_the_limits_and_keeps_its_overhead(brand):
    have = vm(brand)
    after = updated(normal(have), payload(have, ram=4096))
    assert after["max_physical_memory"] == after["max_swap"] == 4096 + {"bhyve": 1280, "kvm": 1024}[brand]
    assert payload(have, max_physical_memory=100) == {"max_physical_memory": 1280}
    assert payload(shown(updated(normal(have), {"max_physical_memory": 1280})), max_physical_memory=100) == {}


def test_serial_ports_of_bhyve_survive_updates_of_something_else():
    have = vm("bhyve", com1="socket,/tmp/a", com2="socket,/tmp/vm.ttyb")
    sent = payload(have, vcpus=2)
    assert sent == {"vcpus": 2, "com1": "socket,/tmp/a"}
    assert updated(normal(have), sent)["com1"] == "socket,/tmp/a"
    assert payload(have, vcpus=1) == {}


def test_docker_brings_what_vmadm_brings_and_converges():
    have = vm("lx", internal_metadata_namespaces=["foo"])
    options = {"docker": True, "restart_init": True}
    sent = payload(have, **options)
    assert sent == {"docker": True, "internal_metadata_namespaces": ["foo", "docker"], "restart_init": False}
    after = updated(normal(have), sent)
    assert (after["restart_init"], after["init_name"]) == (False, "/native/usr/vm/sbin/dockerinit")
    assert payload(shown(after), **options) == {}


# -- items -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nics", "expected"),
    [
        ([NIC, NIC_2], {}),
        ([{**NIC, "mac": "2:8:20:0:0:1"}, NIC_2], {}),
        ([{"nic_tag": "admin"}, {"nic_tag": "external"}], {}),
        ([{"interface": "net1", "nic_tag": "external"}, {"interface": "net0"}], {}),
        ([{"mac": NIC["mac"], "ip": "10.1.0.5", "netmask": "255.255.255.0", "gateway": "10.1.0.1"}, NIC_2], {}),
        ([{**NIC, "vlan_id": 0, "allow_ip_spoofing": False, "allowed_ips": []}, NIC_2], {}),
        (
            [{**NIC, "ips": ["10.1.0.6/24"], "allow_ip_spoofing": True}, NIC_2],
            {"update_nics": [{"mac": NIC["mac"], "ips": ["10.1.0.6/24"], "allow_ip_spoofing": True}]},
        ),
        ([{**NIC, "gateways": []}, NIC_2], {"update_nics": [{"mac": NIC["mac"], "gateways": []}]}),
        ([NIC, {**NIC_2, "primary": True}], {"update_nics": [{"mac": NIC_2["mac"], "primary": True}]}),
        ([NIC, {**NIC_2, "primary": False}], {}),
        ([NIC_2], {"update_nics": [{"mac": NIC_2["mac"], "primary": True}], "remove_nics": [NIC["mac"]]}),
        ([NIC], {"remove_nics": [NIC_2["mac"]]}),
        ([], {"remove_nics": [NIC["mac"], NIC_2["mac"]]}),
        (
            [NIC, NIC_2, {"nic_tag": "stub0", "ips": ["addrconf"], "primary": False}],
            {"add_nics": [{"nic_tag": "stub0", "ips": ["addrconf"]}]},
        ),
    ],
)
def test_nics_are_added_changed_and_removed_by_their_mac(nics, expected):
    assert payload(vm(nics=[NIC, NIC_2]), nics=nics) == expected


def test_the_first_nic_of_a_vm_without_becomes_primary():
    assert payload(vm(), nics=[NIC])["add_nics"][0]["primary"] is True


def test_filesystems_are_known_by_their_target():
    have = vm(
        filesystems=[{"type": "lofs", "source": "/a", "target": "/b"}, {"type": "lofs", "source": "/c", "target": "/d"}]
    )
    wanted = [{"type": "lofs", "source": "/a2", "target": "/b"}, {"type": "lofs", "source": "/e", "target": "/f"}]
    assert payload(have, filesystems=wanted) == {
        "add_filesystems": [{"type": "lofs", "source": "/e", "target": "/f"}],
        "update_filesystems": [{"target": "/b", "source": "/a2"}],
        "remove_filesystems": ["/d"],
    }


def disks(brand: str = "bhyve", **more: t.Any) -> dict[str, t.Any]:
    have = vm(brand, disks=[{"size": 1024, "model": "virtio", "boot": True}, {"size": 2048, "model": "virtio"}], **more)
    for index, disk in enumerate(have["disks"]):
        disk.update(path=f"{DISK}{index}", size=disk["size"])
    return have


def test_disks_are_known_by_path_or_place():
    assert payload(disks(), disks=[{"size": 1024}, {"size": 4096}]) == {
        "update_disks": [{"path": f"{DISK}1", "size": 4096}]
    }
    turned = [{"path": f"{DISK}1"}, {"path": f"{DISK}0", "model": "nvme"}, {"size": 1, "model": "virtio"}]
    assert payload(disks(), disks=turned) == {
        "add_disks": [{"size": 1, "model": "virtio"}],
        "update_disks": [{"path": f"{DISK}0", "model": "nvme"}],
    }


@pytest.mark.parametrize(
    ("brand", "options", "message"),
    [
        ("bhyve", {"disks": [{}]}, "disk1 is not in the list, and removing a disk destroys its data"),
        ("bhyve", {"disks": [{"size": 512}, {}]}, "a size of 512 would destroy data: set dangerous_allow_shrink"),
        (
            "bhyve",
            {"disks": [{"block_size": 512}, {}]},
            "disks[0] (path /dev/zvol/rdsk/zones/x/disk0): block_size is None, not 512",
        ),
        ("kvm", {"disks": [{"size": 4096}, {}]}, "vmadm cannot resize a disk of brand kvm"),
        (
            "bhyve",
            {"disks": [{}, {"size": 4096}]},
            "disks: vmadm can change it only while the VM is stopped: set allow_reboot",
        ),
    ],
)
def test_disks_are_not_lost_by_mistake(brand, options, message):
    with pytest.raises(PlanError) as refusal:
        plan(disks(brand), want(**options))
    assert message in str(refusal.value)


def test_a_disk_may_shrink_or_go_where_it_is_said():
    assert payload(disks(), disks=[{"size": 512, "dangerous_allow_shrink": True}, {}]) == {
        "update_disks": [{"path": f"{DISK}0", "size": 512, "dangerous_allow_shrink": True}]
    }
    assert payload(disks(), disks=[{}], remove_disks=True) == {"remove_disks": [f"{DISK}1"]}
    assert steps(disks(), disks=[{}], remove_disks=True, allow_reboot=True) == ["stop", "update (disks)", "start"]
    assert steps(disks(), disks=[{"compression": "lz4"}, {}]) == ["update (disks)"]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uuid": None}, "neither uuid nor alias is given"),
        ({"uuid": UUID.upper()}, "a UUID in lower case"),
        ({"alias": "~web"}, "alias: '~web' is not valid: vmadm reads a leading ~ as a pattern"),
        ({"unset": ["ram"]}, "unset: 'ram' is not valid: vmadm can unset alias, "),
        ({"unset": ["nosuch"]}, "unset: 'nosuch' is not valid"),
        ({"unset": ["cpu_cap"], "cpu_cap": 100}, "unset: 'cpu_cap' also has a value"),
        ({"max_swap": 100}, "max_swap: 100 is not valid: use at least 256"),
        ({"quota": -1}, "quota: -1 is not valid: use at least 0"),
        ({"zfs_root_recsize": 1000}, "zfs_root_recsize: 1000 is not valid: use a power of two"),
        ({"kernel_version": ""}, "kernel_version: '' is not valid: vmadm cannot unset this property"),
        ({"tags": {"a": {"b": 1}}}, "tags.a: use a string, a number or a boolean"),
        ({"nics": [{"ips": ["10.1.0.9"]}]}, "nics[0].ips: '10.1.0.9' is not valid"),
        ({"nics": [{"ips": ["10.1.0.9/33"]}]}, "nics[0].ips: '10.1.0.9/33' is not valid"),
        ({"nics": [{"ip": "10.1.0.9"}]}, "nics[0]: ip: '10.1.0.9' needs netmask"),
        ({"nics": [{"gateways": ["fd00::1"]}]}, "nics[0].gateways: 'fd00::1' is not valid: use an IPv4 address"),
        ({"nics": [{"mac": "zz"}]}, "nics[0]: mac: 'zz' is not valid"),
        ({"nics": [{"vlan_id": 4096}]}, "nics[0].vlan_id: 4096 is not valid: use a number from 0 to 4095"),
        ({"nics": [NIC, NIC]}, "nics: mac '02:08:20:00:00:01' is given twice"),
        ({"nics": [NIC, {**NIC_2, "ips": ["10.1.0.5/25"]}]}, "nics: the address 10.1.0.5 is given twice"),
        ({"nics": [{**NIC, "primary": True}, {**NIC_2, "primary": True}]}, "nics: more than one is primary"),
        ({"snapshot": {"name": "a b"}}, "snapshot.name: 'a b' is not valid"),
    ],
)
def test_what_no_vm_could_have_is_refused(options, message):
    with pytest.raises(PlanError) as refusal:
        want(**options)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("have", "options", "message"),
    [
        ({}, {"brand": "lx"}, "vmadm cannot change it: brand is 'joyent', not 'lx'"),
        ({}, {"zpool": "data", "zonename": "web"}, f"zonename is '{UUID}', not 'web'; zpool is 'zones', not 'data'"),
        ({}, {"image_uuid": IMAGE_2}, "(reprovision: true changes it in place)"),
        ({}, {"delegate_dataset": True}, "delegate_dataset is False, not True"),
        ({"delegate_dataset": True}, {"delegate_dataset": False}, "delegate_dataset is True, not False"),
        ({}, {"zfs_data_compression": "lz4"}, "zfs_data_compression: the VM has no delegated dataset"),
        ({}, {"vcpus": 2}, "vcpus: a VM of brand joyent has no such property; these have it: bhyve, kvm"),
        ({}, {"nics": [{"model": "virtio"}]}, "nics[0].model: a VM of brand joyent has no such property"),
        ({}, {"ram": 512, "max_physical_memory": 1024}, "for brand joyent both are the same limit"),
        ({"nics": [NIC]}, {"nics": [{"mac": NIC["mac"], "interface": "net7"}]}, "interface is 'net0', not 'net7'"),
        (
            {"delegate_dataset": True},
            {"snapshot": {"name": "s"}},
            "vmadm supports no snapshots of a VM with a delegated dataset",
        ),
        ({}, {"snapshot": {"name": "s", "state": "rolled_back"}}, "there is no snapshot 's'; the VM has: none"),
        ({"state": "stopped"}, {"signal": "SIGHUP"}, "the VM is not running: start it first"),
        ({"state": "failed"}, {}, "set replace_failed: true to delete it"),
        ({"state": "incomplete"}, {}, "its state is 'incomplete', so its creation failed"),
        (
            {"state": "down"},
            {"state": "running"},
            "its state is 'down', in which vmadm can neither start nor stop it: wait until it is running or stopped",
        ),
        (
            {"indestructible_zoneroot": True},
            {"state": "absent"},
            "indestructible_zoneroot protects it from deletion",
        ),
        (
            {"indestructible_zoneroot": True},
            {"image_uuid": IMAGE_2, "reprovision": True},
            "indestructible_zoneroot is set: set indestructible_zoneroot: false first",
        ),
    ],
)
def test_what_this_vm_cannot_become_is_refused_by_name(have, options, message):
    with pytest.raises(PlanError) as refusal:
        plan(vm(**have), want(**options))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "brand is needed to create the VM"),
        ({"brand": "lxd"}, "brand 'lxd' is unknown: use one of joyent"),
        ({"brand": "joyent"}, "image_uuid is needed to create a VM of brand joyent"),
        ({"brand": "lx", "image_uuid": IMAGE}, "kernel_version is needed"),
        ({"brand": "joyent", "image_uuid": IMAGE, "nics": [{"ips": ["dhcp"]}]}, "nics[0].nic_tag is needed"),
        ({"brand": "bhyve", "nics": [{"nic_tag": "admin"}]}, "nics[0].model is needed for brand bhyve"),
        ({"brand": "kvm", "disks": [{"size": 10}]}, "disks[0].model is needed for brand kvm"),
    ],
)
def test_what_a_new_vm_lacks_is_named(options, message):
    with pytest.raises(PlanError) as refusal:
        plan(None, want(**options))
    assert message in str(refusal.value)


def test_addresses_of_other_vms_are_refused_whatever_their_prefix():
    others = [{**vm(nics=[NIC]), "uuid": OTHER}]
    new = {"brand": "joyent", "image_uuid": IMAGE}
    with pytest.raises(PlanError, match=f"nics.0..ips: 10.1.0.5 belongs to VM {OTHER} on admin"):
        plan(None, want(**new, nics=[{"nic_tag": "admin", "ips": ["10.1.0.5/25"], "vlan_id": 0}]), others)
    with pytest.raises(PlanError, match=f"nics.0..mac: 02:08:20:00:00:01 belongs to VM {OTHER}"):
        plan(None, want(**new, nics=[{"nic_tag": "stub0", "mac": "2:8:20:0:0:1"}]), others)
    assert plan(None, want(**new, nics=[{"nic_tag": "admin", "ips": ["10.1.0.5/25"], "vlan_id": 9}]), others).steps
    assert plan(None, want(**new, nics=[NIC]), [{**others[0], "state": "failed"}]).steps
    with pytest.raises(PlanError, match="10.1.0.5 belongs to VM"):
        plan(vm(nics=[{**NIC_2, "nic_tag": "admin"}]), want(nics=[{"ips": ["10.1.0.5/16"]}]), others)


# -- identity ----------------------------------------------------------------------------------------------------------


def test_a_vm_is_found_by_uuid_or_by_an_alias_of_its_own():
    mine, other = vm(alias="web"), {**vm(alias="db"), "uuid": OTHER}
    assert find([mine, other], want()) is mine
    assert find([mine, other], want(uuid=None, alias="db")) is other
    assert find([mine, other], want(uuid=None, alias="d.")) is None
    with pytest.raises(PlanError, match=f"alias 'db' belongs to VM {OTHER}"):
        find([mine, other], want(alias="db"))
    with pytest.raises(PlanError, match="alias 'web' belongs to 2 VMs: set uuid to one of"):
        find([mine, {**other, "alias": "web"}], want(uuid=None, alias="web"))


# -- power -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "options", "expected"),
    [
        ({}, {}, []),
        ({"state": "stopped"}, {}, []),
        ({}, {"state": "running"}, []),
        ({"state": "stopped", "autoboot": False}, {"state": "running"}, ["start"]),
        ({}, {"state": "stopped"}, ["stop"]),
        ({}, {"state": "stopped", "force": True}, ["stop (force)"]),
        ({"state": "stopped", "autoboot": False}, {"state": "stopped"}, []),
        ({}, {"state": "rebooted"}, ["reboot"]),
        ({"state": "stopped"}, {"state": "rebooted"}, ["start"]),
        ({}, {"state": "absent"}, ["delete"]),
        ({"state": "failed"}, {"state": "absent"}, ["delete"]),
        # vmadm stop and start set autoboot
        ({}, {"state": "stopped", "autoboot": True}, ["stop", "update (autoboot)"]),
        ({"state": "stopped", "autoboot": False}, {"state": "running", "autoboot": False}, ["start", "update (autoboot)"]),
        ({}, {"state": "stopped", "autoboot": True, "alias": "x"}, ["stop", "update (alias, autoboot)"]),
        ({"state": "stopped", "autoboot": False}, {"state": "running", "alias": "x"}, ["update (alias)", "start"]),
        ({}, {"autoboot": False}, ["update (autoboot)"]),
        # a reboot only where it is needed and allowed
        ({}, {"fs_allowed": ["ufs"]}, ["update (fs_allowed)"]),
        ({}, {"fs_allowed": ["ufs"], "allow_reboot": True}, ["update (fs_allowed)", "reboot"]),
        ({}, {"cpu_cap": 100, "allow_reboot": True}, ["update (cpu_cap)"]),
        ({"state": "stopped"}, {"fs_allowed": ["ufs"], "allow_reboot": True}, ["update (fs_allowed)"]),
        ({}, {"signal": "SIGHUP"}, ["kill (SIGHUP)"]),
        ({}, {"signal": "SIGHUP", "state": "rebooted"}, ["reboot", "kill (SIGHUP)"]),
        ({"indestructible_zoneroot": True}, {"state": "absent", "indestructible_zoneroot": False},
         ["update (indestructible_zoneroot)", "delete"]),
    ],
)  # fmt: skip
def test_power_and_configuration_are_kept_apart(have, options, expected):
    assert steps(vm(**have), **options) == expected


@pytest.mark.parametrize(
    ("options", "expected", "running", "autoboot"),
    [
        ({}, ["create"], True, True),
        ({"autoboot": False}, ["create"], False, False),
        ({"state": "running"}, ["create"], True, True),
        ({"state": "running", "autoboot": False}, ["create", "update (autoboot)"], True, False),
        ({"state": "stopped"}, ["create"], False, False),
        ({"state": "stopped", "autoboot": True}, ["create", "update (autoboot)"], False, True),
        ({"state": "absent"}, [], None, None),
    ],
)
def test_a_new_vm_runs_as_it_is_wanted(options, expected, running, autoboot):
    todo = plan(None, want(brand="joyent", image_uuid=IMAGE, **options))
    assert [str(step) for step in todo.steps] == expected
    if running is None:
        assert todo.after is None
    else:
        assert todo.after["state"] == ("running" if running else "stopped")
        assert todo.after["autoboot"] is autoboot


@pytest.mark.parametrize(
    ("brand", "options", "expected"),
    [
        ("joyent", {"alias": "x", "cpu_cap": 1, "quota": 1, "tags": {"a": 1}, "firewall_enabled": True}, ()),
        ("joyent", {"max_physical_memory": 2048}, ()),
        ("lx", {"max_physical_memory": 2048}, ("tmpfs",)),
        ("bhyve", {"ram": 2048}, ("max_locked_memory", "max_physical_memory", "max_swap", "ram")),
        ("lx", {"resolvers": ["8.8.8.8"], "hostname": "x"}, ("hostname", "resolvers")),
        ("joyent", {"resolvers": ["8.8.8.8"], "hostname": "x", "routes": {"10.9.0.0/16": "10.1.0.9"}}, ()),
        ("joyent", {"nics": [{**NIC, "allow_ip_spoofing": True, "allowed_ips": ["10.1.0.9"]}]}, ()),
        ("joyent", {"nics": [{**NIC, "ips": ["10.1.0.6/24"]}]}, ("nics",)),
        ("joyent", {"nics": []}, ("nics",)),
        ("lx", {"kernel_version": "5.10.0", "filesystems": [{"type": "lofs", "source": "/a", "target": "/b"}]},
         ("filesystems", "kernel_version")),
    ],
)  # fmt: skip
def test_what_a_running_vm_does_not_see_yet_is_told(brand, options, expected):
    nics = [NIC] if brand in ZONES else []
    todo = plan(vm(brand, nics=nics), want(**options))
    assert todo.reboot_needed == expected
    assert plan(vm(brand, nics=nics, state="stopped"), want(**options)).reboot_needed == ()
    again = plan(vm(brand, nics=nics), want(**options, allow_reboot=True))
    assert again.reboot_needed == () and again.rebooted == bool(expected)


# -- reprovision, failed, snapshots ------------------------------------------------------------------------------------


def test_reprovision_brings_an_image_and_keeps_the_data():
    have = vm(delegate_dataset=True, cpu_cap=100)
    todo = plan(have, want(image_uuid=IMAGE_2, reprovision=True, cpu_cap=200))
    assert [str(step) for step in todo.steps] == ["update (cpu_cap)", "reprovision"]
    assert todo.steps[1].payload == {"image_uuid": IMAGE_2}
    assert todo.after["image_uuid"] == IMAGE_2 and todo.after["datasets"] == have["datasets"] and todo.rebooted
    assert steps({**have, "state": "stopped", "autoboot": False}, image_uuid=IMAGE_2, reprovision=True) == [
        "reprovision",
        "stop",
    ]
    assert steps({**have, "state": "stopped"}, image_uuid=IMAGE_2, reprovision=True) == [
        "reprovision",
        "stop",
        "update (autoboot)",
    ]
    assert steps(have, image_uuid=IMAGE, reprovision=True) == []


def test_reprovision_of_bhyve_goes_by_its_first_disk():
    have = disks()
    have["disks"][0].update(image_uuid=IMAGE, image_size=1024)
    todo = plan(have, want(disks=[{"image_uuid": IMAGE_2}, {}], reprovision=True))
    assert [str(step) for step in todo.steps] == ["reprovision"]
    with pytest.raises(PlanError, match="image_uuid is .*, not .*: vmadm cannot change it"):
        plan(have, want(disks=[{"image_uuid": IMAGE_2}, {}]))
    with pytest.raises(PlanError, match="image_uuid is .*, not .*: vmadm cannot change it"):
        plan({**have, "brand": "kvm"}, want(disks=[{"image_uuid": IMAGE_2}, {}], reprovision=True))


def test_a_failed_vm_is_made_anew_only_where_that_is_allowed():
    todo = plan(vm(state="failed"), want(brand="joyent", image_uuid=IMAGE, replace_failed=True))
    assert [str(step) for step in todo.steps] == ["delete", "create"]


@pytest.mark.parametrize(
    ("have", "snapshot", "expected", "left"),
    [
        (["a"], {"name": "b"}, ["create-snapshot (b)"], ["b", "a"]),
        (["a"], {"name": "a", "state": "present"}, [], ["a"]),
        (["a"], {"name": "a", "state": "absent"}, ["delete-snapshot (a)"], []),
        ([], {"name": "a", "state": "absent"}, [], []),
        (["c", "b", "a"], {"name": "b", "state": "rolled_back"}, ["rollback-snapshot (b)"], ["b", "a"]),
    ],
)
def test_snapshots(have, snapshot, expected, left):
    todo = plan({**vm(), "snapshots": [{"name": name} for name in have]}, want(snapshot=snapshot))
    assert [str(step) for step in todo.steps] == expected
    assert todo.after["snapshots"] == left


def test_a_rollback_of_a_stopped_vm_leaves_it_stopped():
    have = {**vm(state="stopped", autoboot=False), "snapshots": [{"name": "a"}]}
    assert steps(have, snapshot={"name": "a", "state": "rolled_back"}) == ["rollback-snapshot (a)", "stop"]


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_a_diff_tells_that_a_secret_changes_but_not_its_value():
    have = vm(customer_metadata={"key": "hush-1", "same": "hush-2"}, internal_metadata={"root_pw": "hush-3"})
    todo = plan(have, want(customer_metadata={"key": "hush-4", "same": "hush-2", "new": "hush-5"}))
    before, after = view(todo.before), view(todo.after, todo.before)
    assert before["customer_metadata"] == {"key": "(hidden)", "same": "(hidden)"}
    assert after["customer_metadata"] == {"key": "(hidden, another value)", "new": "(hidden)", "same": "(hidden)"}
    assert "hush" not in repr((before, after))


def test_a_diff_of_nothing_is_empty():
    todo = plan(vm(nics=[NIC], tags={"a": 1}), want(nics=[NIC]))
    assert view(todo.before) == view(todo.after, todo.before)


# -- any sequence ------------------------------------------------------------------------------------------------------

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:
    st = None

if st is None:

    @pytest.mark.skip(reason="hypothesis is not installed here; pip install hypothesis")
    def test_any_sequence_of_descriptions_converges() -> None:
        """Told as skipped, not left out."""

else:
    SIZES = st.integers(min_value=0, max_value=3).map(lambda n: 2**n * 256)
    WORDS = st.sampled_from(["", "a", "b"])
    NUMBERS = st.sampled_from([0, 1, 7, 100])
    MAPPING = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from([None, "x", 1, True, 1.5]))
    FIXED = {
        "vga": st.sampled_from(["std", "cirrus"]), "kernel_version": st.sampled_from(["6.1.0", "5.10"]),
        "resolvers": st.lists(st.sampled_from(["8.8.8.8", "8.8.4.4"]), unique=True),
        "routes": st.dictionaries(st.sampled_from(["10.8.0.0/16", "10.9.0.0/16"]), st.just("10.1.0.9")),
        "limit_priv": st.sampled_from([["default"], ["default", "sys_time"]]),
        "zfs_root_compression": st.sampled_from(["off", "lz4"]), "zfs_data_compression": st.sampled_from(["off", "gzip"]),
        "zfs_root_recsize": st.sampled_from([0, 512, 131072]), "zfs_data_recsize": st.sampled_from([0, 512]),
        "owner_uuid": st.sampled_from([UUID, OTHER]), "billing_id": st.sampled_from([UUID, OTHER]),
        "vcpus": st.sampled_from([1, 2]), "vnc_port": st.sampled_from([-1, 0, 5901]),
        "bootrom": st.sampled_from(["bios", "uefi"]),
    }  # fmt: skip

    def _nics(brand: str) -> st.SearchStrategy:
        model = {"model": st.sampled_from(["virtio", "e1000"])} if brand in HVM else {}
        nic = st.fixed_dictionaries(
            {"nic_tag": st.sampled_from(["admin", "external"]), **model},
            optional={
                "ips": st.sampled_from([["dhcp"], ["10.1.0.{}/24"], ["10.1.0.{}/24", "fd00::{}/64"]]),
                "gateways": st.sampled_from([[], ["10.1.0.1"]]),
                "vlan_id": st.sampled_from([0, 5]),
                "allow_ip_spoofing": st.booleans(),
                "allowed_ips": st.sampled_from([[], ["10.1.0.99"]]),
                "mtu": st.sampled_from([1500, 9000]),
            },
        )

        def numbered(chosen: list[tuple[int, dict]], first: int | None) -> list[dict]:
            nics = []
            for place, (number, item) in enumerate(chosen):
                item = {**item, "mac": f"02:08:20:00:00:0{number}"}
                if "ips" in item:
                    item["ips"] = [one.format(number) for one in item["ips"]]
                if place == first:
                    item["primary"] = True
                nics.append(item)
            return nics

        numbers = st.lists(st.tuples(st.integers(1, 3), nic), max_size=3, unique_by=lambda pair: pair[0])
        return st.builds(numbered, numbers, st.sampled_from([None, 0, 1]))

    def descriptions(brand: str, delegated: bool) -> st.SearchStrategy:
        """Properties that a VM of a brand may be given, most of them at random."""
        options: dict[str, st.SearchStrategy] = {}
        for name, one in PROPERTIES.items():
            if brand not in one.brands or not one.update or name in ("disks", "pci_devices"):
                continue
            if not delegated and (name.startswith("zfs_data_") or name == "indestructible_delegated"):
                continue
            if name in FIXED:
                options[name] = FIXED[name]
            elif name == "nics":
                options[name] = _nics(brand)
            elif name == "filesystems":
                options[name] = st.lists(
                    st.fixed_dictionaries(
                        {
                            "type": st.just("lofs"),
                            "source": st.sampled_from(["/a", "/b"]),
                            "target": st.sampled_from(["/x", "/y"]),
                        }
                    ),
                    max_size=2,
                    unique_by=lambda item: item["target"],
                )
            elif name in ("ram", "max_physical_memory", "max_swap", "max_locked_memory", "tmpfs"):
                if not (name == "ram" and brand in ZONES):
                    options[name] = SIZES
            elif one.type == "dict":
                options[name] = MAPPING
            elif one.type == "list":
                options[name] = st.lists(st.sampled_from(["ufs", "pcfs"]), unique=True)
            elif one.type == "bool":
                options[name] = st.booleans()
            else:
                options[name] = NUMBERS if one.type == "int" else WORDS
        return st.fixed_dictionaries({}, optional=options)

    SEQUENCES = st.tuples(st.sampled_from(BRANDS), st.booleans()).flatmap(
        lambda pair: st.tuples(
            st.just(pair[0]),
            st.just(pair[1] and pair[0] in ZONES),
            st.lists(
                st.tuples(
                    st.sampled_from(["present", "running", "stopped"]),
                    descriptions(pair[0], pair[1] and pair[0] in ZONES),
                ),
                min_size=1,
                max_size=4,
            ),
        )
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(SEQUENCES)
    def test_any_sequence_of_descriptions_converges(sequence):
        brand, delegated, wanted = sequence
        have: dict[str, t.Any] | None = None
        base: dict[str, t.Any] = {"brand": brand}
        base.update({"image_uuid": IMAGE, "delegate_dataset": delegated} if brand in ZONES else {})
        for state, properties in wanted:
            options = {**base, **properties, "state": state, "allow_reboot": True}
            if brand == "lx" and have is None:
                options.setdefault("kernel_version", "6.1.0")
            todo = plan(have, want(**options))
            assert todo.after is not None
            have = shown(todo.after)
            assert [str(step) for step in plan(have, want(**options)).steps] == []
