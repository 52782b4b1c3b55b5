# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of a payload: their places on the bus, what create and update refuse; and disks as ``get`` shows them."""

from __future__ import annotations

import re
import typing as t
import uuid

from .files import ToolError
from .javascript import Crash, dumps, is_empty
from .platform import VM

Disk = dict[str, t.Any]

MODELS = {"bhyve": ("virtio", "ahci", "nvme"), "kvm": ("virtio", "scsi", "ide")}
COMPRESSIONS = ("on", "off", "gzip", *(f"gzip-{level}" for level in range(1, 10)), "lz4", "lzjb", "zle")
RESERVED_SLOTS = (0, 6, 30, 31)  # host bridge, NICs, frame buffer, LPC
SLOT_CDROM, SLOT_DISK, SLOT_OLDER_DISK = 3, 4, 5
FUNCTIONS = 8  # of one slot
LIVE = {"path", "compression", "refreservation"}
"""What of a disk can be changed while its VM runs."""

Slots = dict[int, dict[int, Disk]]


def is_record_size(value: t.Any) -> bool:
    """Whether ZFS takes a number of bytes for a block or record."""
    return isinstance(value, int) and 512 <= value <= 131072 and value & (value - 1) == 0


# -- places on the bus of bhyve ----------------------------------------------------------------------------------------


def slot_of(text: t.Any) -> tuple[int, int, int]:
    """Bus, device and function of a ``pci_slot``."""
    parts = str(text).split(":")
    if len(parts) <= 3 and all(re.fullmatch(r"\d+", part) for part in parts):
        numbers = [int(part) for part in parts]
        bus, device, function = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
        if bus <= 255 and device <= 31 and function < FUNCTIONS:
            return bus, device, function
    raise ToolError(f'pci_slot "{text}" is not valid')


def place(payload: dict[str, t.Any], vm: VM | None) -> None:
    """Give new disks of a bhyve VM a slot and a UUID of their own; ``vm`` is None at create."""
    if "add_disks" not in payload:
        return
    slots: Slots = {}
    if vm is not None:
        _assign(vm.get("disks", []), slots, older=True)
    _assign(payload["add_disks"], slots, older=False)
    taken = [disk["uuid"] for disk in (vm or {}).get("disks", ()) if "uuid" in disk]
    for disk in payload["add_disks"]:
        if disk.setdefault("uuid", str(uuid.uuid4())) in taken:
            raise ToolError(f"duplicate disk uuid {disk['uuid']}")
        taken.append(disk["uuid"])


def _assign(disks: list[Disk], slots: Slots, older: bool) -> None:
    """Note the slots of disks that name one, and choose for the others; those that a VM has keep theirs unwritten."""
    boots = [disk for disk in disks if disk.get("boot")]
    if len(boots) > 1:
        which = boots[1].get("path") and f"path={boots[1]['path']}"
        raise ToolError(f'multiple boot disks: ""true"" and "{which or dumps(boots[1])}"')
    for disk in disks:
        if "pci_slot" in disk:
            _occupy(disk, slots)
    free = [disk for disk in disks if "pci_slot" not in disk]
    for disk in sorted(free, key=lambda one: not one.get("boot")):
        media = disk.get("media", "disk")
        if media not in ("cdrom", "disk"):
            raise ToolError(
                f"VM has no PCI bus or slot assigned for {media} devices; automatic pci_slot assignment not possible"
            )
        device = SLOT_CDROM if media == "cdrom" else SLOT_OLDER_DISK if older and not disk.get("boot") else SLOT_DISK
        functions = slots.setdefault(device, {})
        function = next(number for number in range(FUNCTIONS + 1) if number not in functions)
        if function == FUNCTIONS:
            raise ToolError(f"VM has more than 8 {disk.get('media')} devices on PCI device {device}")
        functions[function] = disk
        if not older:
            disk["pci_slot"] = f"0:{device}:{function}"


def _occupy(disk: Disk, slots: Slots) -> None:
    bus, device, function = slot_of(disk["pci_slot"])
    if bus:
        return
    if device in RESERVED_SLOTS:
        raise ToolError(f'pci_slot "{disk["pci_slot"]}" invalid: PCI device {device} is reserved')
    other = slots.setdefault(device, {}).get(function)
    if other is not None:
        raise ToolError(
            f'VM has multiple disks in pci_slot "{disk["pci_slot"]}": "{other.get("path", "undefined")}" and '
            f'"{disk.get("path", "undefined")}"'
        )
    slots[device][function] = disk


# -- what is refused ---------------------------------------------------------------------------------------------------


def check_state(payload: dict[str, t.Any], vm: VM) -> None:
    """Refuse what a running VM cannot take."""
    if vm["state"] == "stopped" or (vm["state"] == "provisioning" and vm["zone_state"] == "installed"):
        return
    where = f'only allowed when state is "stopped", currently: {vm["state"]} ({vm["zone_state"]})'
    if "add_disks" in payload or "remove_disks" in payload:
        raise ToolError(f"updates to disks are {where}")
    if any(set(disk) - LIVE for disk in payload.get("update_disks") or ()):
        raise ToolError(f"at least one specified update to disks is {where}")
    if any(f"{verb}_pci_devices" in payload for verb in ("add", "update", "remove")):
        raise ToolError(f"updates to pci_devices are {where}")


def check(payload: dict[str, t.Any], vm: VM | None, brand: str) -> None:
    """Refuse disks that cannot be, in the order in which create and update look at them."""
    for disk in payload.get("add_disks") or ():
        _check_new(disk, vm, brand)
    for disk in payload.get("update_disks") or ():
        _check_compression(disk, "type")
        if "block_size" in disk:
            raise ToolError("cannot change .block_size for a disk after creation")
        _check_model(disk, brand)


def _check_new(disk: Disk, vm: VM | None, brand: str) -> None:
    if "path" in disk and disk.get("media") != "cdrom" and not disk.get("nocreate"):
        raise ToolError("you cannot specify a path for a disk unless you set nocreate=true")
    if "block_size" in disk and not is_record_size(disk["block_size"]):
        raise ToolError(f"invalid .block_size({disk['block_size']}), must be 512-131072 and a power of 2.")
    if "block_size" in disk and "image_uuid" in disk:
        raise ToolError("setting both .block_size and .image_uuid on a volume is invalid")
    _check_compression(disk, "setting")
    if disk.get("model", "undefined") == "undefined":
        have = (vm or {}).get("disks") or [{}]
        model = (vm or {}).get("disk_driver", have[0].get("model"))
        if not model:
            raise ToolError(f"missing .model option for disk: {dumps(disk)}")
        disk["model"] = model
        return
    _check_model(disk, brand)


def _check_model(disk: Disk, brand: str) -> None:
    if "model" in disk and disk["model"] not in MODELS[brand]:
        raise ToolError(
            f'"{disk["model"]}" is not a valid disk model for {brand} brand. Valid are: {",".join(MODELS[brand])}'
        )


def _check_compression(disk: Disk, what: str) -> None:
    if "compression" in disk and disk["compression"] not in COMPRESSIONS:
        raise ToolError(f"invalid compression {what} for disk, must be one of: {', '.join(COMPRESSIONS)}")


def check_changes(payload: dict[str, t.Any], vm: VM) -> None:
    """What comes to light after all checks: a disk that is not there, and one that would lose data."""
    have = {disk.get("path"): disk for disk in vm.get("disks", ())}
    for change in payload.get("update_disks") or ():
        disk = have.get(change.get("path"))
        if disk is None:
            raise Crash("AssertionError: index (number) is required")
        size = disk.get("size", 0)
        if change.get("size", size) < size and not change.get("dangerous_allow_shrink"):
            raise ToolError(
                f"cannot reduce disk size of {disk['path']} without dangerous_allow_shrink: {size} -> {change['size']}"
            )


# -- as get shows them -------------------------------------------------------------------------------------------------


def changed(vm: VM, payload: dict[str, t.Any]) -> list[Disk]:
    """The disks of ``vm`` after a payload, new ones with their volumes."""
    gone = set(payload.get("remove_disks") or ())
    changes = {one["path"]: one for one in payload.get("update_disks") or ()}
    disks = [
        {**disk, **changes.get(disk.get("path"), {})} for disk in vm.get("disks", []) if disk.get("path") not in gone
    ]
    disks += [dict(disk) for disk in payload.get("add_disks") or ()]
    separator = "/" if vm["brand"] == "bhyve" else "-"
    taken = {disk.get("zfs_filesystem") for disk in disks}
    placed = []
    for disk in disks:
        pool = disk.get("zpool") or vm["zpool"]
        if not disk.get("zfs_filesystem") and not disk.get("nocreate") and disk.get("media", "disk") == "disk":
            names = (f"{pool}/{vm['zonename']}{separator}disk{n}" for n in range(256))
            disk["zfs_filesystem"] = next(name for name in names if name not in taken)
            taken.add(disk["zfs_filesystem"])
            disk["path"] = f"/dev/zvol/rdsk/{disk['zfs_filesystem']}"
        disk["zpool"] = pool
        size = disk.get("size", disk.get("image_size"))
        ready = {"path": disk.get("path"), "boot": False, "media": "disk", "compression": "off"}
        if size is not None:
            ready.update(size=size, refreservation=size, block_size=8192)
        not_kept = ("nocreate", "dangerous_allow_shrink")
        placed.append({**ready, **{k: v for k, v in disk.items() if k not in not_kept and not is_empty(v)}})
    return placed
