# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the simulated host remembers, in one directory that outlives every command::

    node.json              host name, UUID, platform stamp, memory, pools, NIC tags, which machine (paper or linux)
    sources.json           image sources and, for those that answer without a network, their manifests
    images/POOL-UUID.json  one installed image
    vms/UUID.json          one VM: its description, whether its zone is there, transition, last boot and exit
    paper/UUID.json        what Platform Paper holds of a zone
    events.jsonl           one line per change of a VM
    faults.json            see faults.py
    locks/                 vm.UUID, image.POOL-UUID, config (all that may conflict between VMs), faults

A VM's description is written before the machine is touched, so that a command killed anywhere leaves a VM that is seen.
What only the machine knows (does the zone run, its snapshots) is never written here but asked each time.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from pathlib import Path

from . import faults
from .files import ToolError, locked, read_json, timestamp, write_json
from .platform import HVM_BRANDS, VM, Paper, Platform, of_node

DEFAULT_DIRECTORY = "/var/lib/smartos-sim"

DEFAULT_NODE: dict[str, t.Any] = {
    "hostname": "smartos0",
    "uuid": "564d0000-0000-4000-8000-000000000001",
    "platform": "20260305T001837Z",
    "memory_mib": 16384,
    "zpools": ["zones"],
    "nic_tags": [
        {"name": "admin", "mac": "00:0c:29:00:00:01", "link": "e1000g0", "type": "normal"},
        {"name": "external", "mac": "00:0c:29:00:00:02", "link": "e1000g1", "type": "normal"},
    ],
    "machine": "paper",
    "provision_timeout": 300,
}
"""A node of which nothing was said. ``provision_timeout`` is in seconds (facts 1.10); memory is in MiB."""

ORDER = (
    "zonename",
    "autoboot",
    "brand",
    "limit_priv",
    "fs_allowed",
    "v",
    "create_timestamp",
    "image_uuid",
    "billing_id",
    "owner_uuid",
    "package_name",
    "package_version",
    "tmpfs",
    "hostname",
    "dns_domain",
    "do_not_inventory",
    "docker",
    "archive_on_delete",
    "restart_init",
    "init_name",
    "kernel_version",
    "maintain_resolvers",
    "internal_metadata_namespaces",
    "zlog_mode",
    "zlog_name",
    "resolvers",
    "alias",
    "ram",
    "com1",
    "com2",
    "bootrom",
    "vcpus",
    "cpu_shares",
    "max_lwps",
    "max_msg_ids",
    "max_sem_ids",
    "max_shm_ids",
    "max_shm_memory",
    "zfs_io_priority",
    "max_physical_memory",
    "max_locked_memory",
    "max_swap",
    "cpu_cap",
    "datasets",
    "filesystems",
    "nics",
    "device",
    "disks",
    "uuid",
    "zone_state",
    "zonepath",
    "hvm",
    "zoneid",
    "zonedid",
    "last_modified",
    "exit_status",
    "exit_timestamp",
    "firewall_enabled",
    "server_uuid",
    "platform_buildstamp",
    "state",
    "boot_timestamp",
    "init_restarts",
    "pid",
    "customer_metadata",
    "internal_metadata",
    "routes",
    "tags",
    "quota",
    "zfs_root_recsize",
    "zfs_filesystem",
    "zpool",
    "zfs_data_recsize",
    "snapshots",
)
"""The order in which ``vmadm get`` shows properties; others come before ``uuid``. Only the eye cares."""

_PLACE = {name: place for place, name in enumerate(ORDER)}

LIVE = frozenset(
    {"zone_state", "zoneid", "zonedid", "exit_status", "exit_timestamp", "state", "boot_timestamp", "init_restarts",
     "pid", "snapshots", "server_uuid", "platform_buildstamp", "transition_to", "transition_expire", "provisioning",
     "failed", "last_modified"}
)  # fmt: skip
"""Properties that :meth:`State.view` finds, so that no description holds them."""


class Record(t.TypedDict, total=False):
    """One VM as stored. ``zone``: what its zone went through; ``transition``: to which state, until when (seconds)."""

    vm: VM
    zone: dict[str, t.Any]
    transition: dict[str, t.Any] | None
    failed: bool
    last_modified: str


class State:
    """The state directory, read from $SMARTOS_SIM_STATE unless given."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path(os.environ.get("SMARTOS_SIM_STATE") or DEFAULT_DIRECTORY)
        self._node: dict[str, t.Any] | None = None
        self._platforms: dict[bool, Platform] = {}

    # -- the node ----------------------------------------------------------------------------------------------------

    @property
    def node(self) -> dict[str, t.Any]:
        """The node's facts; a directory without any is an idle node with two NIC tags, on paper."""
        if self._node is None:
            self._node = {**DEFAULT_NODE, **read_json(self.directory / "node.json", {})}
        return self._node

    @contextlib.contextmanager
    def changed_node(self) -> t.Iterator[dict[str, t.Any]]:
        """The node's facts, read and written again under the lock for everything that may conflict."""
        with self.lock_config():
            self._node = None
            yield self.node
            write_json(self.directory / "node.json", self.node)

    def platform(self, brand: str | None = None) -> Platform:
        """The machine below zones of ``brand``, each call of it a step for faults."""
        paper = brand in HVM_BRANDS
        if paper not in self._platforms:
            self._platforms[paper] = faults.stepped(of_node(self.node, self.directory, brand))
        return self._platforms[paper]

    def pools(self) -> list[str]:
        """Names of the pools, the system pool first."""
        return self.platform().pools()

    def nic_tags(self) -> set[str]:
        """Names of the NIC tags."""
        return {tag["name"] for tag in self.node["nic_tags"]}

    def next_zone_id(self) -> int:
        """A number no zone had since the state was made."""
        path = self.directory / "zoneid.json"
        with locked(self.directory / "locks" / "zoneid"):
            number: int = read_json(path, 0) + 1
            write_json(path, number)
        return number

    # -- locks -------------------------------------------------------------------------------------------------------

    def lock_vm(self, uuid: str, wait: bool = True) -> contextlib.AbstractContextManager[bool]:
        """Only one command changes a VM at a time."""
        return locked(self.directory / "locks" / f"vm.{uuid}", wait)

    def lock_image(self, uuid: str, pool: str) -> contextlib.AbstractContextManager[bool]:
        """Only one command installs or removes an image at a time."""
        return locked(self.directory / "locks" / f"image.{pool}-{uuid}")

    def lock_config(self) -> contextlib.AbstractContextManager[bool]:
        """Held from a check for conflicts between VMs until the result of it is written; never while the machine works."""
        return locked(self.directory / "locks" / "config")

    # -- VMs ---------------------------------------------------------------------------------------------------------

    def _vm_path(self, uuid: str) -> Path:
        return self.directory / "vms" / f"{uuid}.json"

    def record(self, uuid: str) -> Record | None:
        """What is stored of a VM; None when there is none."""
        if "/" in uuid:
            return None
        found: Record | None = read_json(self._vm_path(uuid))
        if found is not None and found["zone"]["installed"]:
            found["vm"].update(self.platform(found["vm"]["brand"]).zone_metadata(found["vm"]))
        return found

    def existing(self, uuid: str) -> Record:
        """What is stored of a VM that must be there."""
        record = self.record(uuid)
        if record is None:
            raise ToolError(f"VM {uuid} not found")
        return record

    def records(self) -> list[Record]:
        """All VMs, by UUID. One that is removed meanwhile is left out."""
        try:
            names = sorted(name for name in os.listdir(self.directory / "vms") if name.endswith(".json"))
        except FileNotFoundError:
            return []
        found = (self.record(name[: -len(".json")]) for name in names if not name.startswith("."))
        return [record for record in found if record is not None]

    def write(self, record: Record) -> None:
        """Store a VM and note what changed for ``vmadm events``."""
        from . import events

        uuid = record["vm"]["uuid"]
        before = self.record(uuid)
        record["last_modified"] = timestamp()
        with faults.step("record"):
            write_json(self._vm_path(uuid), record)
        events.note(self, "modify" if before else "create", before, record)

    def remove(self, record: Record) -> None:
        """Forget a VM."""
        from . import events

        self._vm_path(record["vm"]["uuid"]).unlink(missing_ok=True)
        events.note(self, "delete", record, record)

    def view(self, record: Record) -> VM:
        """The VM as ``vmadm get`` shows it: the description, and what the machine says now."""
        vm = dict(record["vm"])
        zone = record["zone"]
        platform = self.platform(vm["brand"])
        pid = platform.zone_running(vm) if zone["installed"] else None
        if pid is None and zone.get("boot_timestamp") and not zone.get("exit_timestamp"):
            zone = self._exited(record)
        vm["zone_state"] = "running" if pid else "installed" if zone["installed"] else "configured"
        vm["zoneid"] = vm["zonedid"] = zone.get("zoneid") if pid else None
        if pid:
            vm["pid"] = pid
            vm["boot_timestamp"] = zone.get("boot_timestamp")
            vm["init_restarts"] = 0
        elif zone.get("exit_timestamp"):
            vm["exit_status"] = zone["exit_status"]
            vm["exit_timestamp"] = zone["exit_timestamp"]
        vm["state"] = {"installed": "stopped"}.get(vm["zone_state"], vm["zone_state"])
        self._show_transition(record, vm)
        vm["last_modified"] = record["last_modified"]
        vm["server_uuid"] = self.node["uuid"]
        vm["platform_buildstamp"] = self.node["platform"]
        vm["snapshots"] = platform.snapshots(vm) if zone["installed"] else []
        if self.node.get("recorded"):
            _as_recorded(vm)
        return dict(sorted(vm.items(), key=lambda item: _PLACE.get(item[0], _PLACE["uuid"])))

    def _show_transition(self, record: Record, vm: VM) -> None:
        transition = record.get("transition")
        if record.get("failed"):
            vm["state"] = "failed"
            vm["failed"] = "provisioning"
        elif transition:
            done = vm["state"] == transition["to"] and transition["from"] == "provisioning" and self._provisioned(vm)
            if done or (transition["from"] == "stopping" and vm["state"] == "stopped"):
                return
            if time.time() > transition["expire"] and transition["from"] == "provisioning":
                vm["state"] = "failed"
                vm["failed"] = "provisioning"
                return
            vm["state"] = transition["from"]
            vm["transition_to"] = transition["to"]
            vm["transition_expire"] = int(transition["expire"] * 1000)
            if transition["from"] == "provisioning":
                vm["provisioning"] = True

    def _provisioned(self, vm: VM) -> bool:
        return self.platform(vm["brand"]).zone_provisioned(vm)

    def _exited(self, record: Record) -> dict[str, t.Any]:
        """The zone ended by itself: note when that was seen, unless a command is at work on the VM."""
        uuid = record["vm"]["uuid"]
        seen = {"exit_status": 0, "exit_timestamp": timestamp()}
        with self.lock_vm(uuid, wait=False) as held:
            now = self.record(uuid) if held else None
            if now is not None and now == record:
                now["zone"].update(seen)
                write_json(self._vm_path(uuid), now)
        return {**record["zone"], **seen}

    def views(self) -> list[VM]:
        """All VMs as ``vmadm get`` shows them, by UUID."""
        return [self.view(record) for record in self.records()]

    # -- images ------------------------------------------------------------------------------------------------------

    def _image_path(self, uuid: str, pool: str) -> Path:
        return self.directory / "images" / f"{pool}-{uuid}.json"

    def image(self, uuid: str, pool: str) -> dict[str, t.Any] | None:
        """The installed image: zpool, source (a URL or None), manifest (only the UUID when none was kept)."""
        if "/" in uuid:
            return None
        found: dict[str, t.Any] | None = read_json(self._image_path(uuid, pool))
        return found

    def images(self) -> list[dict[str, t.Any]]:
        """All installed images, by UUID and pool; those of a recorded world in its order."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory / "images"):
                if name.endswith(".json") and not name.startswith("."):
                    found.append(read_json(self.directory / "images" / name))
        return sorted(
            (one for one in found if one), key=lambda one: (one.get("place", 0), one["manifest"]["uuid"], one["zpool"])
        )

    def write_image(self, image: dict[str, t.Any]) -> None:
        """Store an installed image."""
        write_json(self._image_path(image["manifest"]["uuid"], image["zpool"]), image)

    def remove_image(self, image: dict[str, t.Any]) -> None:
        """Forget an image."""
        self._image_path(image["manifest"]["uuid"], image["zpool"]).unlink(missing_ok=True)

    def clones(self, image: dict[str, t.Any]) -> list[str]:
        """The datasets made from an image's @final: roots of VMs, disks of VMs, and images that build on it."""
        uuid, pool = image["manifest"]["uuid"], image["zpool"]
        names = []
        for record in self.records():
            vm = record["vm"]
            if vm.get("image_uuid") == uuid and vm["zpool"] == pool:
                names.append(vm["zfs_filesystem"])
            for disk in vm.get("disks", ()):
                if disk.get("image_uuid") == uuid and disk.get("zpool", vm["zpool"]) == pool:
                    names.append(disk["zfs_filesystem"])
        for other in self.images():
            if other["manifest"].get("origin") == uuid and other["zpool"] == pool:
                names.append(f"{pool}/{other['manifest']['uuid']}")
        return sorted(names)

    def sources(self) -> list[dict[str, t.Any]]:
        """The image sources in order: url, type, insecure, and ``images``, the manifests of one that is answered here."""
        found: list[dict[str, t.Any]] | None = read_json(self.directory / "sources.json")
        return [{"url": "https://images.smartos.org", "type": "imgapi"}] if found is None else found

    def write_sources(self, sources: list[dict[str, t.Any]]) -> None:
        """Store the image sources."""
        write_json(self.directory / "sources.json", sources)


def _as_recorded(vm: VM) -> None:
    """In a recorded world, hide what its recorder could not see: it had no ZFS, so no holds and few properties."""
    for name in ("indestructible_zoneroot", "indestructible_delegated", "zfs_data_compression"):
        vm.pop(name, None)
    if "disks" in vm:
        vm["disks"] = [{**disk, "compression": "off"} for disk in vm["disks"]]


def load_world(state: State, world: dict[str, t.Any]) -> None:
    """Replace everything in the state by a recorded world, on paper."""
    import shutil

    for name in ("vms", "images", "paper"):
        shutil.rmtree(state.directory / name, ignore_errors=True)
    for name in ("faults.json", "events.jsonl"):
        (state.directory / name).unlink(missing_ok=True)
    write_json(state.directory / "node.json", {**DEFAULT_NODE, **world["node"], "machine": "paper", "recorded": True})
    state.write_sources(world["image_sources"])
    for place, image in enumerate(world["images"]):
        manifest = image["manifest"] if image.get("cached", True) else {"uuid": image["manifest"]["uuid"]}
        state.write_image({"zpool": image["zpool"], "source": image["source"], "manifest": manifest, "place": place})
    paper = Paper(state.directory / "paper", world["node"]["zpools"])
    for vm in world["vms"]:
        zone = {key: vm[key] for key in ("zoneid", "boot_timestamp", "exit_status", "exit_timestamp") if key in vm}
        record: Record = {
            "vm": {key: value for key, value in vm.items() if key not in LIVE},
            "zone": {"installed": True, **zone},
            "transition": None,
            "failed": False,
            "last_modified": vm["last_modified"],
        }
        write_json(state.directory / "vms" / f"{vm['uuid']}.json", record)
        paper.adopt(vm)
    write_json(state.directory / "zoneid.json", max((vm["zoneid"] or 0 for vm in world["vms"]), default=0))
