# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vmadm(8) makes of a payload: the state of a new VM, and that of a changed one. Pure.

The limits that vmadm applies and the values that it drags along are those of its own source (``fixPayloadMemory``,
``normalizePayload``, ``buildZonecfgUpdate`` in VM.js), as recordings confirm where there are any. Nothing was ever seen on a
running SmartOS host.
"""

from __future__ import annotations

import copy
import itertools
import math
import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    CONSOLES,
    DOCKER_ID,
    DOCKER_INIT,
    HVM_PRIVILEGES,
    IDS,
    ITEMS,
    KEYED,
    LEAST_SWAP,
    MOST_SHARES,
    NOBODY,
    OVERHEAD,
    PROPERTIES,
    ZONES,
    Payload,
    State,
    as_shown,
    modern_nic,
    normal,
    place,
)


def memory(brand: str, payload: Payload, have: t.Mapping[str, t.Any]) -> Payload:
    """The payload with the values that vmadm drags along with a limit of memory, and its limits applied. MiB.

    ``max_locked_memory`` and ``max_swap`` keep their distance from ``max_physical_memory``, ``tmpfs`` keeps its ratio;
    swap is never below, locked memory and tmpfs never above it.
    """
    out = dict(payload)
    overhead, least = OVERHEAD.get(brand, (0, 0))
    old: t.Any = have.get("max_physical_memory")
    zone = brand in ZONES
    if "ram" in out and "max_physical_memory" not in out:
        out["max_physical_memory"] = out["ram"] + overhead
    if "max_physical_memory" in out:
        new = out["max_physical_memory"]
        locked, swap = have.get("max_locked_memory"), have.get("max_swap")
        if "max_locked_memory" not in out:
            out["max_locked_memory"] = new if old is None or locked is None else new - (old - locked)
        if "max_swap" not in out:
            tied = old is None or swap is None or (swap == LEAST_SWAP and new >= LEAST_SWAP)
            out["max_swap"] = max(LEAST_SWAP, new if tied else new + (swap - old))
        if zone and "tmpfs" not in out:
            kept = not old or have.get("tmpfs") is None
            out["tmpfs"] = new if kept else math.floor(have["tmpfs"] / old * new + 0.5)
        for name, default in (("max_shm_memory", new), *IDS.items()):
            if name not in out and not have.get(name):
                out[name] = default
    if "tmpfs" in payload:
        # Held within the new limit if it exceeds that, and else within the old one, also where the limit grows.
        limits = [limit for limit in (out.get("max_physical_memory"), old) if limit is not None]
        out["tmpfs"] = next((limit for limit in limits if out["tmpfs"] > limit), out["tmpfs"])
    if least:
        floor = (out.get("ram") or have.get("ram") or 0) + least
        for name in ("max_physical_memory", "max_locked_memory"):
            if floor > (out[name] if name in out else have.get(name) or 0):
                out[name] = floor
    limit = out.get("max_physical_memory", old)
    if "max_locked_memory" in out:
        out["max_locked_memory"] = min(out["max_locked_memory"], limit)
    if "max_swap" in out:
        out["max_swap"] = max(out["max_swap"], limit)
    return out


def created(payload: Payload) -> State:
    """The state of the VM that ``vmadm create`` makes of a payload, without what only it can know."""
    vm = dict(payload)
    brand, zone = vm["brand"], vm["brand"] in ZONES
    vm["autoboot"] = vm.get("autoboot", True)
    vm["cpu_shares"] = min(vm.get("cpu_shares", 100), MOST_SHARES)
    defaults: Payload = {"owner_uuid": NOBODY, "billing_id": NOBODY, "zpool": "zones", "zfs_io_priority": 100}
    defaults.update(max_lwps=2000, ram=256, quota=1 if brand == "bhyve" else 10)
    defaults.update(
        {"dns_domain": "local", "limit_priv": ["default"]} if zone else {"limit_priv": HVM_PRIVILEGES, "vcpus": 1}
    )
    if vm.get("uuid"):
        defaults["zonename"] = vm["uuid"]
    vm = memory(brand, {**defaults, **vm}, {})
    if zone:
        vm["tmpfs"] = min(vm.get("tmpfs", vm["max_physical_memory"]), vm["max_physical_memory"])
    if vm.get("docker"):
        vm.update(_docker(brand, vm, {}))
        vm["internal_metadata"] = {**DOCKER_ID, **vm.get("internal_metadata", {})}
    if not vm.get("image_uuid"):
        for name in ("spice_opts", "spice_password", "spice_port"):
            vm.pop(name, None)
    if vm.get("delegate_dataset") and "zonename" in vm:
        vm["datasets"] = [f"{vm['zpool']}/{vm['zonename']}/data"]
    state = normal({**vm, "nics": [], "disks": [], "filesystems": [], "pci_devices": []})
    state["delegate_dataset"] = bool(vm.get("delegate_dataset"))
    if brand == "bhyve" and "com1" not in vm and "com2" not in vm:
        state.update(CONSOLES)
    for name in ITEMS:
        _add(state, name, payload.get(name) or [], state)
    if state["nics"] and not any(nic.get("primary") for nic in state["nics"]):
        state["nics"][0]["primary"] = True  # they are numbered in their order
    if brand == "bhyve" and not state["bootrom"] and any(disk.get("image_uuid") for disk in state["disks"]):
        del state["bootrom"]  # the image's manifest may name one
    state["state"] = "running" if vm["autoboot"] else "stopped"
    return state


def _docker(brand: str, payload: t.Mapping[str, t.Any], have: t.Mapping[str, t.Any]) -> Payload:
    """What comes with ``docker: true``."""
    out: Payload = {"restart_init": False}
    names = list(payload.get("internal_metadata_namespaces") or ())
    if "docker" not in (have.get("internal_metadata_namespaces") or ()) and "docker" not in names:
        out["internal_metadata_namespaces"] = [*names, "docker"]
    if not have.get("init_name") and not payload.get("init_name") and brand in DOCKER_INIT:
        out["init_name"] = DOCKER_INIT[brand]
    return out


def updated(have: State, payload: Payload) -> State:
    """The state that ``vmadm update`` makes of another one."""
    after = copy.deepcopy(have)
    if not payload:
        return after
    brand = have["brand"]
    change = memory(brand, payload, have)
    if change.get("docker"):
        change.update(_docker(brand, change, have))
        after["internal_metadata"] = {**DOCKER_ID, **after["internal_metadata"]}
    if brand == "bhyve" and not {"com1", "com2"} & set(payload):
        change.update(CONSOLES)
    for name, value in change.items():
        one = PROPERTIES.get(name)
        if one and one.type not in ("objects", "dict") and not (name == "ram" and brand in ZONES):
            after[name] = as_shown(one, one.absent if name.endswith("_recsize") and value == 0 else value)
    for name in KEYED:
        after[name].update(payload.get(f"set_{name}") or {})
        for key in payload.get(f"remove_{name}") or ():
            after[name].pop(key, None)
    for name, items in ITEMS.items():
        gone = payload.get(f"remove_{name}") or ()
        after[name] = [item for item in after[name] if item.get(items.key) not in gone]
        for change_item in payload.get(f"update_{name}") or ():
            for item in after[name]:
                if item.get(items.key) == change_item[items.key]:
                    item.update({key: value for key, value in change_item.items() if items.properties[key].shown})
        _add(after, name, payload.get(f"add_{name}") or [], have)
    kept = [mac for mac in have["nic_order"] if mac not in (payload.get("remove_nics") or ())]
    after["nic_order"] = kept + [nic.get("mac") for nic in after["nics"] if nic.get("mac") not in kept]
    new_primary = [nic for name in ("update_nics", "add_nics") for nic in payload.get(name) or () if nic.get("primary")]
    if new_primary:
        for nic in after["nics"]:
            nic["primary"] = _is(nic, new_primary[0])
    return after


def _is(nic: State, other: State) -> bool:
    if other.get("vrrp_vrid") is not None or other.get("mac"):
        return bool(nic.get("mac") == modern_nic(other)["mac"])
    return "mac" not in nic and all(nic.get(key) == value for key, value in other.items())


def free_interfaces(brand: str, taken: t.Iterable[State]) -> t.Iterator[str]:
    """The names that vmadm gives to new nics, in their order: the first free numbers, whatever a payload says.

    :param taken: the nics that the VM has, those included that the same payload removes.
    """
    prefix = "eth" if brand == "lx" else "net"
    used = {nic.get("interface") for nic in taken}
    return (f"{prefix}{number}" for number in itertools.count() if f"{prefix}{number}" not in used)


def _add(state: State, kind: str, items: t.Sequence[State], have: State) -> None:
    """Append items as ``add_nics`` and its like do. What vmadm chooses at random is not in them.

    :param have: the VM before; a new nic or disk without a model takes after it.
    """
    names = free_interfaces(state["brand"], have["nics"])
    driver = have.get({"nics": "nic_driver", "disks": "disk_driver"}.get(kind, "")) or None
    if driver is None and have[kind] and have is not state:
        driver = have[kind][0].get("model")
    for given in items:
        item = {name: value for name, value in given.items() if ITEMS[kind].properties[name].shown}
        if kind == "nics":
            item = {**modern_nic(item), "interface": next(names)}
        if kind == "disks":
            item.setdefault("zpool", state["zpool"])
        if kind in ("nics", "disks") and item.get("model") is None and driver:
            item["model"] = driver
        for name, one in ITEMS[kind].properties.items():
            if one.shown and name not in item and one.absent is not None:
                item[name] = one.absent
        state[kind].append(item)
    if kind == "nics":
        state[kind].sort(key=place)
