# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM's description: what create and update make of it with an effective payload (facts 2). Nothing here changes the state."""

from __future__ import annotations

import copy
import re
import typing as t
import uuid

from . import disks, nics
from .files import timestamp
from .javascript import Crash, is_empty
from .platform import HVM_BRANDS, VM
from .properties import KEYED, LISTS, PROPERTIES, as_list

CONSOLES = {"com1": "/dev/zconsole", "com2": "socket,/tmp/vm.ttyb"}
NEVER_SHOWN = frozenset({"delegate_dataset", "nowait", "mdata_exec_timeout", "create_only", "transition"})
ALWAYS_SHOWN = frozenset({"firewall_enabled", "autoboot", "zfs_root_recsize", "resolvers"})
COMMA_LISTS = ("limit_priv", "fs_allowed")
ATTRIBUTES = ("cpu_cap", "flexible_disk_size", "ram", "spice_port", "vcpus", "virtio_txburst", "virtio_txtimer", "vnc_port",
              "zlog_max_size")  # fmt: skip
"""Numbers that are not stored when they are 0."""
KEY_OF = {"filesystems": "target", "pci_devices": "path"}


def created(effective: dict[str, t.Any]) -> VM:
    """The description of a new VM."""
    brand, pool, zonename = effective["brand"], effective["zpool"], effective["zonename"]
    vm: VM = {
        "v": 1,
        "create_timestamp": timestamp(),
        "zonepath": f"/{pool}/{zonename}",
        "zfs_filesystem": f"{pool}/{zonename}",
        "hvm": brand in HVM_BRANDS,
        "resolvers": [],
        "firewall_enabled": False,
        "customer_metadata": {},
        "internal_metadata": {},
        "routes": {},
        "tags": {},
        "nics": [],
        "zfs_root_recsize": 131072,
    }
    if brand in HVM_BRANDS:
        vm["disks"] = []
    if brand == "bhyve":
        vm.update(zlog_mode="g--", zlog_name="platform.log")
        if "com1" not in effective and "com2" not in effective:
            vm.update(CONSOLES)
    if effective.get("delegate_dataset"):
        vm["datasets"] = [f"{pool}/{zonename}/data"]
        vm["zfs_data_recsize"] = 131072
    return _applied(vm, effective, new=True)


def updated(vm: VM, effective: dict[str, t.Any]) -> VM:
    """The description of ``vm`` after an update."""
    payload = dict(effective)
    if vm["brand"] == "bhyve" and "com1" not in payload and "com2" not in payload:
        payload.update(CONSOLES)
    return _applied(copy.deepcopy(vm), payload, new=False)


def _applied(vm: VM, payload: dict[str, t.Any], new: bool) -> VM:
    """Change ``vm`` by an effective payload."""
    for name, value in payload.items():
        verb, mark, rest = name.partition("_")
        if name in KEYED:
            vm[name] = dict(value) if isinstance(value, dict) else {}
        elif mark and rest in KEYED:
            _apply_keys(vm[rest], verb, value)
        elif mark and rest in LISTS:
            pass  # below, together
        elif name not in NEVER_SHOWN:
            _apply_property(vm, name, value)
    for kind in LISTS:
        if any(f"{verb}_{kind}" in payload for verb in ("add", "update", "remove")):
            _apply_list(vm, kind, payload, new)
    if vm.get("docker"):
        vm["zlog_mode"] = "g--"
    if vm["hvm"]:
        vm.pop("device", None)
        if vm["disks"]:
            vm["device"] = None
        if vm.get("flexible_disk_size"):
            vm["free_space"] = vm["flexible_disk_size"] - sum(disk.get("size", 0) for disk in vm["disks"])
    else:
        vm.pop("ram", None)
    return vm


def _apply_keys(have: dict[str, t.Any], verb: str, value: t.Any) -> None:
    if verb == "set":
        have.update(value)
    elif verb == "remove":
        for key in as_list(value):
            have.pop(key, None)


def _apply_property(vm: VM, name: str, value: t.Any) -> None:
    spec = PROPERTIES[name]
    if is_empty(value):
        fallback = {"quota": 0, "resolvers": [], "firewall_enabled": False}.get(name)
        if fallback is None:
            vm.pop(name, None)
            return
        value = fallback
    if name in COMMA_LISTS:
        value = ",".join(value)
    vanishes = (spec.absent is not None and value == spec.absent) or (name in ATTRIBUTES and value == 0)
    if (vanishes or value == "") and name not in ALWAYS_SHOWN:
        vm.pop(name, None)
    else:
        vm[name] = value


def _apply_list(vm: VM, kind: str, payload: dict[str, t.Any], new: bool) -> None:
    if kind == "nics":
        vm[kind] = nics.changed(vm, payload)
        return
    if kind == "disks":
        vm[kind] = disks.changed(vm, payload)
        return
    key = KEY_OF[kind]
    gone = set(payload.get(f"remove_{kind}") or ())
    changes = {one.get(key): one for one in payload.get(f"update_{kind}") or ()}
    items = [{**item, **changes.get(item.get(key), {})} for item in vm.get(kind, []) if item.get(key) not in gone]
    added = copy.deepcopy(payload.get(f"add_{kind}") or [])
    if kind == "filesystems":
        added = [one for one in added if _has_source(vm, one, new)]
    vm[kind] = [*items, *added]
    if not vm[kind]:
        del vm[kind]


def _has_source(vm: VM, filesystem: dict[str, t.Any], new: bool) -> bool:
    """Whether a file system is added. Create makes a volume where the source asks for one; update passes over it."""
    source = filesystem.get("source")
    if not isinstance(source, str):
        raise Crash("TypeError: Cannot read properties of undefined (reading 'match')")
    if source == "create-volume":
        source = str(uuid.uuid4())
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", source):
        filesystem["source"] = f"{vm['zonepath']}/volumes/{source}"
        return new
    return new or not re.match(r"https?://", source)
