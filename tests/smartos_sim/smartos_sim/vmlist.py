# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``vmadm list`` and ``vmadm lookup``: columns, filters, sorting (facts 1.3)."""

from __future__ import annotations

import functools
import json
import re
import typing as t

from .addresses import MAC, normal_mac
from .files import ToolError
from .javascript import Crash
from .platform import HVM_BRANDS, VM

if t.TYPE_CHECKING:
    from .state import State

TYPES = {"lx": "LX", "kvm": "KVM", "bhyve": "BHYV"}

COLUMNS = {
    "alias": ("ALIAS", 10),
    "autoboot": ("AUTOBOOT", 8),
    "billing_id": ("BILLING_ID", 36),
    "boot_timestamp": ("BOOT_TIMESTAMP", 24),
    "brand": ("BRAND", 14),
    "cpu_cap": ("CPU_CAP", 7),
    "cpu_shares": ("CPU_SHARE", 9),
    "cpu_type": ("CPU_TYPE", 8),
    "create_timestamp": ("CREATE_TIMESTAMP", 24),
    "dns_domain": ("DOMAIN", 32),
    "exit_status": ("EXIT", 4),
    "exit_timestamp": ("EXIT_TIMESTAMP", 24),
    "flexible_disk_size": ("FLEX_DISK_SIZE", 14),
    "free_space": ("FREE_SPACE", 14),
    "do_not_inventory": ("DNI", 5),
    "docker": ("DOCKER", 6),
    "firewall_enabled": ("FIREWALL_ENABLED", 16),
    "hostname": ("HOSTNAME", 32),
    "hvm": ("HVM", 5),
    "image_uuid": ("IMAGE_UUID", 36),
    "indestructible_delegated": ("INDESTR_DATA", 12),
    "indestructible_zoneroot": ("INDESTR_ROOT", 12),
    "max_locked_memory": ("MAX_LOCKED", 10),
    "max_lwps": ("MAX_LWP", 7),
    "max_physical_memory": ("MAX_PHYS", 8),
    "max_swap": ("MAX_SWAP", 8),
    "owner_uuid": ("OWNER_UUID", 36),
    "package_name": ("PACKAGE_NAME", 32),
    "package_version": ("PACKAGE_VER", 11),
    "pid": ("PID", 6),
    "qemu_extra_opts": ("QEMU_EXTRA_OPTS", 15),
    "quota": ("QUOTA", 5),
    "ram": ("RAM", 7),
    "state": ("STATE", 16),
    "tmpfs": ("TMPFS", 5),
    "type": ("TYPE", 4),
    "uuid": ("UUID", 36),
    "vcpus": ("VCPUS", 5),
    "zfs_io_priority": ("IO_PRIORITY", 11),
    "zone_state": ("ZONE_STATE", 10),
    "zoneid": ("ZONEID", 6),
    "zonename": ("ZONENAME", 12),
    "zonepath": ("ZONEPATH", 40),
    "zpool": ("ZPOOL", 12),
}
"""Heading and width. What a column is called and how wide it is are part of the interface that scripts read."""

DOTTED_WIDTH = 20
DISK_KEYS = ("boot", "image_name", "image_size", "image_uuid", "size", "media", "model", "zpool")
NIC_KEYS = ("dhcp_server", "gateway", "interface", "ip", "mac", "model", "netmask", "nic_tag", "vlan_id")
KEYS = re.compile(
    rf"disks\.[*\d]+\.({'|'.join(DISK_KEYS)})|nics\.[*\d]+\.({'|'.join(NIC_KEYS)})"
    r"|(tags|customer_metadata|internal_metadata)\..*"
)


def _column(name: str) -> tuple[str, int] | None:
    """Heading and width of a column; None when there is no such column."""
    if name in COLUMNS:
        return COLUMNS[name]
    first, *rest = name.split(".")
    listed = first in ("nics", "disks") and len(rest) == 2
    keyed = first in ("tags", "customer_metadata", "internal_metadata", "routes") and len(rest) == 1
    return (name.upper(), DOTTED_WIDTH) if listed or keyed else None


def values(vm: VM, name: str) -> list[t.Any]:
    """What a dotted name stands for in a VM: nothing, one value, or with ``*`` one per item."""
    if name in vm:
        return [vm[name]]
    first, _dot, rest = name.partition(".")
    have = vm.get(first)
    if isinstance(have, dict):
        return [have[rest]] if rest in have else []
    if isinstance(have, list):
        which, _dot, key = rest.partition(".")
        items = have if which == "*" else have[int(which) : int(which) + 1] if which.isdigit() else []
        return [item[key] for item in items if isinstance(item, dict) and key in item]
    return []


def _text(value: t.Any) -> str:
    """A value as JavaScript makes a string of it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return "[object Object]" if isinstance(value, dict) else "" if value is None else str(value)


def _listed(state: State, filters: dict[str, str], what: str) -> list[VM]:
    """The VMs that match, with the properties that only lists have: type, and ram for zones."""
    for key in filters:
        if key not in COLUMNS and not KEYS.fullmatch(key):
            raise ToolError(f'Invalid {what} key: "{key}"')
    found = []
    for vm in state.views():
        vm["type"] = TYPES.get(vm["brand"], "OS")
        if vm["brand"] not in HVM_BRANDS:
            vm["ram"] = vm["max_physical_memory"]
        if all(_has(vm, key, wanted) for key, wanted in filters.items()):
            found.append(vm)
    return found


def _has(vm: VM, key: str, wanted: str) -> bool:
    """Whether one of the values of ``key`` is as wanted; what begins with ~ is a pattern. The real one stumbles over null."""
    pattern = None
    if wanted.startswith("~"):
        try:
            pattern = re.compile(wanted[1:], re.IGNORECASE)
        except re.error as bad:
            raise Crash(f"SyntaxError: Invalid regular expression: {bad}") from None
    elif re.fullmatch(r"nics\..*\.mac", key) and MAC.fullmatch(wanted):
        wanted = normal_mac(wanted)
    found = False
    for value in values(vm, key):
        if value is None:
            raise Crash("TypeError: Cannot read properties of null (reading 'toString')")
        text = _text(value)
        found = found or bool(pattern.search(text) if pattern else text == wanted)
    return found


def _first(vm: VM, name: str) -> t.Any:
    return next(iter(values(vm, name)), None)


def _truthy(value: t.Any) -> bool:
    """What JavaScript takes for true; an empty list is."""
    return value is not None and value is not False and value != 0 and value != ""


def _greater(one: t.Any, other: t.Any) -> bool:
    """Whether JavaScript finds ``one`` greater: text by text, numbers by number, nothing else."""
    if isinstance(one, str) and isinstance(other, str):
        return one > other
    return isinstance(one, (int, float)) and isinstance(other, (int, float)) and one > other


def _compare(fields: list[str], one: VM, other: VM) -> int:
    """By each field in turn, upwards unless it has a minus; what has no value, or none to speak of, comes last."""
    for field in fields:
        direction = -1 if field.startswith("-") else 1
        name = field.lstrip("+-")
        mine, theirs = _first(one, name), _first(other, name)
        if _greater(mine, theirs) or (not _truthy(mine) and _truthy(theirs)):
            return direction
        if _greater(theirs, mine) or (_truthy(mine) and not _truthy(theirs)):
            return -direction
    return 0


def _show(value: t.Any) -> str:
    """A cell: what is not true is not shown, but for the number 0."""
    return _text(value) if _truthy(value) or (value == 0 and value is not False) else ""


def _check_columns(order: list[str], sort: list[str]) -> None:
    for names, what in ((order, "order"), (sort, "sort")):
        for name in names:
            if re.match(r"(disks|filesystems|nics)\.\*", name):
                raise ToolError(f'Invalid {what} key: "{name}"')
    for names, what in ((sort, "sort"), (order, "order")):
        for name in names:
            if _column(name.lstrip("+-") if what == "sort" else name) is None:
                raise ToolError(f"invalid {what} field: {name}")


def list_vms(state: State, options: dict[str, t.Any], filters: dict[str, str]) -> str:
    """The table of VMs; with ``parsable`` values joined by colons, which are not escaped.

    Only the properties of the columns are loaded: sorting by any other has no effect, and a VM with none of them is not
    listed.
    """
    order = str(options.get("order", "uuid,type,ram,state,alias")).split(",")
    sort = str(options.get("sortby", "ram,uuid")).split(",")
    found = _listed(state, filters, "filter")
    _check_columns(order, sort)
    columns = [_column(name) or ("", 0) for name in order]
    parsable = bool(options.get("parsable"))
    rows = [[heading for heading, _width in columns]] if options.get("header", not parsable) else []
    loaded = {name.split(".")[0] for name in order}
    sort = [name for name in sort if name.lstrip("+-").split(".")[0] in loaded]
    for vm in sorted(found, key=functools.cmp_to_key(functools.partial(_compare, sort))):
        if loaded.isdisjoint(vm):
            continue
        cells = [_show(_first(vm, name)) for name in order]
        rows.append(cells if parsable else [cell or "-" for cell in cells])
    if parsable:
        return "".join(":".join(row) + "\n" for row in rows)
    lines = ("  ".join(cell.ljust(width) for cell, (_heading, width) in zip(row, columns, strict=True)) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)


def lookup_vms(state: State, options: dict[str, t.Any], filters: dict[str, str]) -> str:
    """UUIDs, or with ``json`` whole objects, or of those the properties in ``output``."""
    output = options.get("output")
    if output is not None and not options.get("json"):
        raise ToolError("Cannot specify -o without -j")
    found = _listed(state, filters, "lookup")
    if options.get("unique") and len(found) != 1:
        raise ToolError(f"Requested unique lookup but found {len(found)} results.")
    if not options.get("json"):
        return "".join(vm["uuid"] + "\n" for vm in found)
    if output is not None:
        names = str(output).split(",")
        shown = ({name: vm[name] for name in names if name in vm} for vm in found)
        found = [vm for vm in shown if vm]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
