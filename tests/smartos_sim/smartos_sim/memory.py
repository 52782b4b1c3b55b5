# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limits of memory in a payload, all MiB: what follows what, and within which bounds; silently (facts 1.5)."""

from __future__ import annotations

import math
import typing as t

from .javascript import exceeds, number_of
from .platform import HVM_BRANDS, VM

MIN_SWAP = 256  # MiB, vmadm(8)
OVERHEAD = {"bhyve": 1280, "kvm": 1024}  # what a hypervisor gets above the guest's ram when nothing is said
LEAST_OVERHEAD = 256  # and what it has at least
IDS = {"max_msg_ids": 4096, "max_sem_ids": 4096, "max_shm_ids": 4096}


def hold(payload: dict[str, t.Any], brand: str, vm: VM) -> None:
    """Complete and limit the memory of a payload in place; ``vm`` is {} at create."""
    hvm = brand in HVM_BRANDS
    if payload.get("ram") is not None and "max_physical_memory" not in payload:
        payload["max_physical_memory"] = payload["ram"] + (OVERHEAD[brand] if hvm else 0)
    if payload.get("max_physical_memory") is not None:
        _follow(payload, vm)
    if "tmpfs" in payload:
        for limit in (payload.get("max_physical_memory"), vm.get("max_physical_memory")):
            if exceeds(number_of(payload["tmpfs"]), limit):
                payload["tmpfs"] = limit
                break
    elif not hvm and payload.get("max_physical_memory") is not None:
        payload["tmpfs"] = _same_ratio(payload["max_physical_memory"], vm)
    if payload.get("max_physical_memory") is not None:
        for name, default in (("max_shm_memory", payload["max_physical_memory"]), *IDS.items()):
            if name not in vm:
                payload.setdefault(name, default)
    if hvm:
        _leave_room(payload, vm)
    limit = payload.get("max_physical_memory", vm.get("max_physical_memory"))
    if exceeds(payload.get("max_locked_memory"), limit):
        payload["max_locked_memory"] = limit
    if exceeds(limit, payload.get("max_swap")):
        payload["max_swap"] = limit


def _follow(payload: dict[str, t.Any], vm: VM) -> None:
    """Locked memory and swap keep their distance to the limit that changes."""
    new: int = payload["max_physical_memory"]
    old, locked, swap = (vm.get(name) for name in ("max_physical_memory", "max_locked_memory", "max_swap"))
    if "max_locked_memory" not in payload:
        payload["max_locked_memory"] = new if old is None or locked is None else new - (old - locked)
    if "max_swap" not in payload:
        tied = old is None or swap is None or (swap == MIN_SWAP and new >= MIN_SWAP)
        payload["max_swap"] = max(new if tied or swap is None or old is None else new + (swap - old), MIN_SWAP)


def _same_ratio(new: t.Any, vm: VM) -> t.Any:
    """The size of /tmp in the ratio that it had; a ratio to nothing is no number."""
    if "tmpfs" not in vm or "max_physical_memory" not in vm:
        return new
    old = vm["max_physical_memory"]
    return math.floor(vm["tmpfs"] / old * new + 0.5) if old else "NaN"


def _leave_room(payload: dict[str, t.Any], vm: VM) -> None:
    ram = payload["ram"] if "ram" in payload else vm.get("ram")
    if ram is None:
        return
    for name in ("max_physical_memory", "max_locked_memory"):
        if exceeds(ram + LEAST_OVERHEAD, payload[name] if name in payload else vm.get(name)):
            payload[name] = ram + LEAST_OVERHEAD
