# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vmadm of the simulator where no recording reaches: what happens to VMs over time."""

from __future__ import annotations

import json
import re
import signal
import time
import typing as t
from pathlib import Path

import pytest

from .conftest import LX_IMAGE, LX_IMAGE_2, OTHER, VM, ZONE_IMAGE

NEVER = {"sim:guest": "never-provisions"}


def nic(address: str, mac: str | None = None, **more: t.Any) -> dict[str, t.Any]:
    return {"nic_tag": "admin", "ips": [address], **({"mac": mac} if mac else {}), **more}


# -- create ------------------------------------------------------------------------------------------------------------


def test_create_starts_and_speaks_on_stderr_only(sim: t.Any) -> None:
    said = sim.create()
    assert said == (0, "", f"Successfully created VM {VM}\n")
    assert sim.get()["state"] == "running"
    assert sim.get()["pid"] and sim.get()["zoneid"]


def test_create_drops_unknown_properties_without_a_word(sim: t.Any) -> None:
    assert sim.create(nosuch=1, vcpus=2).rc == 0
    assert not {"nosuch", "vcpus"} & set(sim.get())


def test_create_holds_values_within_their_limits(sim: t.Any) -> None:
    sim.create(max_physical_memory=1024, max_swap=512, max_locked_memory=4096, tmpfs=2048, cpu_shares=70000)
    vm = sim.get()
    assert (vm["max_swap"], vm["max_locked_memory"], vm["tmpfs"], vm["cpu_shares"]) == (1024, 1024, 1024, 65535)


def test_create_without_autoboot_leaves_the_vm_stopped(sim: t.Any) -> None:
    assert sim.create(autoboot=False, customer_metadata=NEVER).rc == 0
    vm = sim.get()
    assert (vm["state"], vm["zone_state"], vm["zoneid"], vm["autoboot"]) == ("stopped", "installed", None, False)
    assert "exit_status" not in vm


def test_create_that_never_provisions_leaves_a_failed_vm(sim: t.Any) -> None:
    said = sim.create(customer_metadata=NEVER)
    assert said == (1, "", f"timed out waiting for /var/svc/provisioning to move for {VM}\n")
    vm = sim.get()
    assert (vm["state"], vm["zone_state"], vm["failed"]) == ("failed", "installed", "provisioning")
    assert vm["autoboot"] is False
    assert "transition_to" not in vm
    assert sim.create().err == f"VM with UUID {VM} already exists\n"
    assert sim.vmadm("start", VM).err.startswith(f'Unable to start VM {VM}: Cannot start vm from state "failed"')
    assert sim.vmadm("delete", VM).rc == 0


def test_nowait_returns_while_the_vm_is_provisioning_and_it_fails_in_time(
    sim: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.run("smartos-sim", "node", "provision_timeout=300")
    assert sim.create(customer_metadata=NEVER, nowait=True).rc == 0
    vm = sim.get()
    assert (vm["state"], vm["transition_to"], vm["provisioning"]) == ("provisioning", "running", True)
    assert "nowait" not in vm
    assert vm["transition_expire"] > 1000 * (time.time() + 200)
    monkeypatch.setattr(time, "time", lambda: vm["transition_expire"] / 1000 + 1)
    assert sim.get()["state"] == "failed"


def test_an_unknown_brand_ends_create_by_a_signal(sim: t.Any) -> None:
    done = sim.start("vmadm", "create", stdin={"brand": "lxd"})
    _out, err = done.communicate(timeout=600)
    assert done.returncode == -signal.SIGABRT
    assert "TypeError" in err


def test_a_delegated_dataset_shows_as_datasets_and_blocks_snapshots(sim: t.Any) -> None:
    sim.create(delegate_dataset=True)
    vm = sim.get()
    assert vm["datasets"] == [f"zones/{VM}/data"]
    assert "delegate_dataset" not in vm
    assert sim.vmadm("create-snapshot", VM, "a").err == "Cannot currently snapshot zones that have datasets\n"


@pytest.mark.parametrize(
    ("address", "tag", "vlan", "conflict"),
    [
        ("10.0.0.11/24", "admin", None, True),
        ("10.0.0.11/25", "admin", None, False),
        ("10.0.0.11/24", "external", None, False),
        ("10.0.0.11/24", "admin", 0, False),
        ("dhcp", "admin", None, False),
    ],
)
def test_address_conflicts_are_a_comparison_of_text(
    sim: t.Any, address: str, tag: str, vlan: int | None, conflict: bool
) -> None:
    sim.create(nics=[nic("10.0.0.11/24")])
    vlans = {} if vlan is None else {"vlan_id": vlan}
    said = sim.create(uuid=OTHER, nics=[{"nic_tag": tag, "ips": [address], **vlans}])
    text = "Conflict detected with another vm, please check the MAC, IP, and VRID\n"
    assert said == ((1, "", text) if conflict else (0, "", f"Successfully created VM {OTHER}\n"))


def test_a_failed_vm_that_is_down_conflicts_with_nobody(sim: t.Any) -> None:
    sim.create(nics=[nic("10.0.0.11/24", "02:00:00:00:00:01")], customer_metadata=NEVER)
    assert sim.create(uuid=OTHER, nics=[nic("10.0.0.11/24", "02:00:00:00:00:01")]).rc == 0


# -- update ------------------------------------------------------------------------------------------------------------


def test_update_reports_success_for_what_it_drops(sim: t.Any) -> None:
    sim.create(tags={"a": 1})
    assert sim.vmadm("update", VM, stdin={"tags": {"b": 2}, "nosuch": 1, "image_uuid": LX_IMAGE_2}) == (
        0, "", f"Successfully updated VM {VM}\n"
    )  # fmt: skip
    assert sim.get()["tags"] == {"a": 1}
    assert sim.get()["image_uuid"] == LX_IMAGE


def test_update_by_pairs_does_not_read_stdin(sim: t.Any) -> None:
    sim.create()
    assert sim.vmadm("update", VM, "quota=7", "alias=null", "autoboot=false", stdin="no JSON").rc == 0
    vm = sim.get()
    assert (vm["quota"], vm["alias"], vm["autoboot"]) == (7, "null", False)


def test_update_of_memory_drags_its_followers_along(sim: t.Any) -> None:
    sim.create(max_physical_memory=1000, max_swap=1500, tmpfs=500, max_locked_memory=900)
    sim.vmadm("update", VM, stdin={"max_physical_memory": 2000})
    vm = sim.get()
    assert (vm["max_swap"], vm["tmpfs"], vm["max_locked_memory"], vm["max_shm_memory"]) == (2500, 1000, 1900, 1000)


def test_numbers_are_read_as_javascript_reads_them_before_anything_is_checked(sim: t.Any) -> None:
    sim.create(max_physical_memory="1024", max_swap=1, quota=None)
    vm = sim.get()
    assert (vm["max_physical_memory"], vm["max_swap"], vm["quota"]) == (1024, 1024, 0)
    assert sim.vmadm("validate", "update", "lx", stdin={"max_swap": 1}).rc == 1
    assert sim.vmadm("update", VM, stdin={"max_swap": 1, "quota": "0x10"}).rc == 0
    assert (sim.get()["max_swap"], sim.get()["quota"]) == (1024, 16)
    assert sim.vmadm("update", VM, stdin={"quota": {}}).err == "Invalid value for quota: null:number\n"
    assert sim.vmadm("create", stdin={"quota": "x"}).err == "Invalid value for quota: null:number\n"


def test_docker_on_an_existing_vm_keeps_its_id_and_replaces_its_namespaces(sim: t.Any) -> None:
    sim.create(internal_metadata={"docker:id": "mine"}, internal_metadata_namespaces=["foo"])
    sim.vmadm("update", VM, "docker=true")
    vm = sim.get()
    assert (vm["docker"], vm["restart_init"], vm["internal_metadata"]) == (True, False, {"docker:id": "mine"})
    assert vm["internal_metadata_namespaces"] == ["docker"]


def test_compression_of_the_root_does_not_fall_through_to_the_data(sim: t.Any) -> None:
    sim.create(delegate_dataset=True, zfs_root_compression="lz4", zfs_root_recsize=8192)
    vm = sim.get()
    assert (vm["zfs_root_recsize"], vm["zfs_data_recsize"]) == (8192, 131072)
    assert "zfs_data_compression" not in vm


def test_the_old_name_of_the_image_still_works(sim: t.Any) -> None:
    payload = {"uuid": VM, "dataset_uuid": ZONE_IMAGE}
    assert sim.vmadm("create", stdin=payload).rc == 0
    assert sim.get()["image_uuid"] == ZONE_IMAGE


@pytest.mark.parametrize(
    ("change", "name", "after"),
    [
        ({"cpu_cap": 0}, "cpu_cap", None),
        ({"alias": ""}, "alias", None),
        ({"alias": None}, "alias", None),
        ({"resolvers": []}, "resolvers", []),
        ({"quota": 0}, "quota", 0),
        ({"tmpfs": 0}, "tmpfs", 0),
        ({"do_not_inventory": False}, "do_not_inventory", None),
        ({"firewall_enabled": False}, "firewall_enabled", False),
        ({"fs_allowed": ["ufs", "tmpfs"]}, "fs_allowed", "ufs,tmpfs"),
        ({"set_tags": {"b": 2}, "remove_tags": ["a"]}, "tags", {"b": 2}),
        ({"set_customer_metadata": {"x": "y"}}, "customer_metadata", {"x": "y"}),
    ],
)
def test_update_clears_and_sets(sim: t.Any, change: dict[str, t.Any], name: str, after: t.Any) -> None:
    sim.create(
        cpu_cap=100, alias="a", resolvers=["192.0.2.1"], quota=5, do_not_inventory=True, firewall_enabled=True,
        tags={"a": 1},
    )  # fmt: skip
    assert sim.vmadm("update", VM, stdin=change).rc == 0
    assert sim.get().get(name) == after


def test_update_of_nics_keeps_one_primary_and_derives_the_old_forms(sim: t.Any) -> None:
    first, second = "02:00:00:00:00:01", "02:00:00:00:00:02"
    sim.create(nics=[nic("10.0.0.11/24", first, gateways=["10.0.0.1"])])
    sim.vmadm("update", VM, stdin={"add_nics": [nic("10.0.1.11/25", second, primary=True)]})
    one, two = sim.get()["nics"]
    assert ("primary" in one, two["primary"], two["interface"]) == (False, True, "eth1")
    assert (two["ip"], two["netmask"]) == ("10.0.1.11", "255.255.255.128")
    sim.vmadm("update", VM, stdin={"update_nics": [{"mac": first, "ips": ["dhcp"]}], "remove_nics": [second]})
    (left,) = sim.get()["nics"]
    assert left == {
        "interface": "eth0", "mac": first, "nic_tag": "admin", "ip": "dhcp", "ips": ["dhcp"], "primary": True,
        "gateway": "10.0.0.1", "gateways": ["10.0.0.1"],
    }  # fmt: skip


def test_removing_a_nic_that_is_not_there_fails_in_zonecfg_and_changes_nothing(sim: t.Any) -> None:
    sim.create(alias="before")
    said = sim.vmadm("update", VM, stdin={"remove_nics": ["02:00:00:00:00:99"], "alias": "after"})
    assert said.rc == 1
    assert "Command failed: " in said.err and "No such resource with that id" in said.err
    assert sim.get()["alias"] == "before"


def test_every_update_of_a_bhyve_vm_resets_its_consoles(sim: t.Any) -> None:
    sim.vmadm("create", stdin={"brand": "bhyve", "uuid": VM, "ram": 512, "com1": "socket,/tmp/a"})
    assert sim.get()["com1"] == "socket,/tmp/a"
    sim.vmadm("update", VM, stdin={"alias": "x"})
    assert (sim.get()["com1"], sim.get()["com2"]) == ("/dev/zconsole", "socket,/tmp/vm.ttyb")


def test_a_bhyve_disk_shrinks_only_on_request(sim: t.Any) -> None:
    disk = {"size": 1024, "model": "virtio"}
    sim.vmadm("create", stdin={"brand": "bhyve", "uuid": VM, "ram": 512, "disks": [disk], "autoboot": False})
    path = sim.get()["disks"][0]["path"]
    assert path == f"/dev/zvol/rdsk/zones/{VM}/disk0"
    assert sim.vmadm("update", VM, stdin={"update_disks": [{"path": path, "size": 512}]}).rc == 1
    change = {"path": path, "size": 512, "dangerous_allow_shrink": True}
    assert sim.vmadm("update", VM, stdin={"update_disks": [change]}).rc == 0
    assert sim.get()["disks"][0]["size"] == 512


# -- power -------------------------------------------------------------------------------------------------------------


def test_stop_and_start_change_autoboot(sim: t.Any) -> None:
    sim.create()
    assert sim.vmadm("stop", VM).err == f"Successfully completed stop for VM {VM}\n"
    vm = sim.get()
    assert (vm["state"], vm["autoboot"], vm["exit_status"], vm["zoneid"]) == ("stopped", False, 0, None)
    sim.vmadm("update", VM, "autoboot=true")
    assert (sim.get()["state"], sim.get()["autoboot"]) == ("stopped", True)
    said = sim.vmadm("stop", VM)
    assert said == (0, "", f"VM {VM} is already not 'running' (currently: stopped)\n")
    assert sim.get()["autoboot"] is False
    assert sim.vmadm("start", VM).err == f"Successfully started VM {VM}\n"
    assert (sim.get()["state"], sim.get()["autoboot"]) == ("running", True)
    assert "exit_status" not in sim.get()


def test_a_docker_vm_without_a_restart_policy_keeps_its_autoboot_at_start(sim: t.Any) -> None:
    sim.create(docker=True, autoboot=False)
    sim.vmadm("start", VM)
    assert sim.get()["autoboot"] is False


def test_reboot_keeps_autoboot_and_makes_a_new_zone(sim: t.Any) -> None:
    sim.create()
    sim.vmadm("update", VM, "autoboot=false")
    before = sim.get()
    assert sim.vmadm("reboot", VM, "-F").err == f"Successfully completed reboot for VM {VM}\n"
    after = sim.get()
    assert after["zoneid"] > before["zoneid"]
    assert (after["state"], after["autoboot"]) == ("running", False)


def test_a_timeout_is_not_for_zones(sim: t.Any) -> None:
    sim.create()
    said = sim.vmadm("stop", VM, "-t", "5")
    assert said == (1, "", "Timeout option is only supported for bhyve, KVM and docker containers.\n")
    assert sim.get()["state"] == "running"


def test_an_option_before_the_uuid_swallows_it(sim: t.Any) -> None:
    sim.create()
    assert sim.vmadm("delete", "-F", VM).rc == 2
    assert sim.vmadm("delete", VM, "-F").rc == 0


def test_a_zone_that_ends_by_itself_is_stopped_and_keeps_autoboot(sim: t.Any) -> None:
    sim.create(restart_init=False)
    assert sim.vmadm("kill", "-s", "9", VM).rc == 0
    vm = sim.get()
    assert (vm["state"], vm["autoboot"], vm["exit_status"]) == ("stopped", True, 0)
    time.sleep(0.01)
    assert sim.get()["exit_timestamp"] == vm["exit_timestamp"]


def test_boot_starts_what_starts_with_the_host(sim: t.Any) -> None:
    sim.create()
    sim.create(uuid=OTHER, autoboot=False)
    for uuid in (VM, OTHER):
        sim.state.platform("lx").zone_halt(sim.get(uuid), force=True, timeout=0)
    assert sim.run("smartos-sim", "boot").rc == 0
    assert (sim.get(VM)["state"], sim.get(OTHER)["state"]) == ("running", "stopped")


# -- delete, reprovision, snapshots ------------------------------------------------------------------------------------


def test_delete_forgets_everything(sim: t.Any) -> None:
    sim.create()
    assert sim.vmadm("delete", VM) == (0, "", f"Successfully deleted VM {VM}\n")
    assert sim.vmadm("lookup", "-j", f"uuid={VM}").out == "[]\n"
    assert not [*sim.directory.glob(f"*/{VM}.json")]
    assert sim.create().rc == 0


@pytest.mark.parametrize("flag", ["indestructible_zoneroot", "indestructible_delegated"])
def test_what_is_indestructible_is_not_deleted(sim: t.Any, flag: str) -> None:
    sim.create(**{flag: True})
    assert sim.get()[flag] is True
    assert sim.vmadm("delete", VM) == (1, "", f"Failed to delete VM {VM}: {flag} is set, cannot delete\n")
    sim.vmadm("update", VM, f"{flag}=false")
    assert sim.vmadm("delete", VM).rc == 0


def test_shared_volumes_keep_a_vm(sim: t.Any) -> None:
    sim.create()
    sim.create(uuid=OTHER, filesystems=[{"type": "lofs", "source": f"/zones/{VM}/volumes/a", "target": "/a"}])
    assert sim.vmadm("delete", VM).err == (
        f'Failed to delete VM {VM}: Unable to delete VM {VM} the following VMs are sharing its volumes: ["{OTHER}"]\n'
    )


def test_reprovision_replaces_the_image_and_ends_running(sim: t.Any) -> None:
    sim.create(delegate_dataset=True, tags={"a": 1}, nics=[nic("10.0.0.11/24", "02:00:00:00:00:01")])
    sim.vmadm("stop", VM)
    before = sim.get()
    said = sim.vmadm("reprovision", VM, stdin={"image_uuid": LX_IMAGE_2})
    assert said == (0, "", f"Successfully reprovisioned VM {VM}\n")
    after = sim.get()
    assert (after["image_uuid"], after["state"], after["autoboot"]) == (LX_IMAGE_2, "running", True)
    assert all(after[name] == before[name] for name in ("datasets", "tags", "nics", "quota"))


@pytest.mark.parametrize(
    ("properties", "image", "reason"),
    [
        ({"indestructible_zoneroot": True}, LX_IMAGE_2, "indestructible_zoneroot is set, cannot reprovision"),
        ({}, None, "payload is missing image_uuid"),
        ({}, ZONE_IMAGE, f'image {ZONE_IMAGE} is type zone-dataset, but must be one of: ["docker","lx-dataset"]'),
    ],
)
def test_reprovision_refuses_before_it_stops_anything(
    sim: t.Any, properties: dict[str, t.Any], image: str | None, reason: str
) -> None:
    sim.create(**properties)
    said = sim.vmadm("reprovision", VM, stdin={"image_uuid": image})
    assert said == (1, "", f"Failed to reprovision VM {VM}: {reason}\n")
    assert sim.get()["state"] == "running"


def test_rollback_starts_the_vm_and_loses_newer_snapshots(sim: t.Any) -> None:
    sim.create()
    for name in ("one", "two"):
        assert sim.vmadm("create-snapshot", VM, name).err == f"Created snapshot {name} for VM {VM}\n"
    assert [one["name"] for one in sim.get()["snapshots"]] == ["two", "one"]
    assert sim.vmadm("create-snapshot", VM, "one").err == 'snapshot with name "one" already exists.\n'
    sim.vmadm("stop", VM)
    assert sim.vmadm("rollback-snapshot", VM, "one").err == f"Rolled back snapshot one for VM {VM}\n"
    assert [one["name"] for one in sim.get()["snapshots"]] == ["one"]
    assert (sim.get()["state"], sim.get()["autoboot"]) == ("running", True)
    assert sim.vmadm("delete-snapshot", VM, "one").rc == 0
    assert sim.get()["snapshots"] == []


# -- reading -----------------------------------------------------------------------------------------------------------


def test_an_alias_with_a_tilde_is_a_pattern_and_no_name(sim: t.Any) -> None:
    sim.create(alias="web")
    sim.create(uuid=OTHER, alias="~web")
    assert sim.vmadm("lookup", "alias=~web").out.split() == [VM, OTHER]


def test_events_tell_changes(sim: t.Any) -> None:
    watch, text = sim.start("vmadm", "events", "-j", "-r"), sim.start("vmadm", "events", "-r", VM)
    assert json.loads(watch.stdout.readline())["type"] == "ready"
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\.\d{3}Z\] ready\n", text.stdout.readline())
    sim.create(autoboot=False)
    sim.vmadm("update", VM, "alias=x")
    sim.vmadm("delete", VM)
    seen = []
    while not seen or seen[-1]["type"] != "delete":
        seen.append(json.loads(watch.stdout.readline()))
    lines = [text.stdout.readline()]
    while not lines[-1].endswith(" delete\n"):
        lines.append(text.stdout.readline())
    for process in (watch, text):
        process.kill()
        process.communicate()
    assert lines[0].endswith("] deadbeef - create\n")
    assert any(line.endswith('] deadbeef x modify: alias added :: null -> "x"\n') for line in lines)
    assert [seen[0]["type"], seen[0]["uuid"]] == ["create", VM]
    assert {"path": ["alias"], "action": "added", "newValue": "x"} in [
        one for e in seen for one in e.get("changes", [])
    ]


def test_the_table_in_the_readme_names_tests_that_exist() -> None:
    here = Path(__file__).parent
    named = set(re.findall(r"`(test_\w+)`", (here.parents[2] / "smartos_sim" / "README.md").read_text()))
    there = {name for path in here.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)}
    assert len(named) > 20
    assert named <= there
