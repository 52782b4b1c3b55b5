# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What create and update make of a payload before they act, in their order: defaults, limits, names, checks (facts 1.5, 3, 4.3).

:func:`for_create` and :func:`for_update` give the effective payload, :mod:`.description` makes the VM of it. None of them
changes the state.
"""

from __future__ import annotations

import copy
import os
import typing as t
import uuid

from . import disks, memory, nics
from .addresses import check_routes
from .files import ToolError
from .javascript import Crash, exceeds, number_of
from .platform import HVM_BRANDS, VM
from .properties import BRANDS, LISTS, PROPERTIES, as_boolean, as_list
from .validate import validate

if t.TYPE_CHECKING:
    from .state import State

NO_UUID = "00000000-0000-0000-0000-000000000000"
MAX_SHARES = 65535
HVM_PRIVILEGES = ["default", "-file_link_any", "-net_access", "-proc_fork", "-proc_info", "-proc_session"]
DOCKER_INIT = {"lx": "/native/usr/vm/sbin/dockerinit", "joyent-minimal": "/usr/vm/sbin/dockerinit"}
VGAS = ("cirrus", "std", "vmware", "qxl", "xenfb")
MAX_VNC_PASSWORD = 8


class Effective(t.NamedTuple):
    """What is acted on, and the names that were left out without a word."""

    payload: dict[str, t.Any]
    dropped: list[str]


class UnknownBrand(Crash):
    """create was given a brand that does not exist; its table is needed before anything is checked (facts 1.4)."""


def new_uuid() -> str:
    """A random UUID."""
    return str(uuid.uuid4())


def for_create(state: State, given: dict[str, t.Any]) -> Effective:
    """The effective payload of ``vmadm create``."""
    payload = copy.deepcopy(given)
    payload.setdefault("uuid", new_uuid())
    _numbers(payload)
    brand = payload.setdefault("brand", "joyent")
    if brand not in BRANDS:
        raise UnknownBrand(f"TypeError: Cannot read properties of undefined (reading 'features') [brand {brand}]")
    _defaults(payload, brand)
    return _normal(state, payload, brand, None)


def for_update(state: State, vm: VM, given: dict[str, t.Any]) -> Effective:
    """The effective payload of ``vmadm update`` of ``vm`` (as :meth:`.state.State.view` shows it)."""
    payload = copy.deepcopy(given)
    _numbers(payload)
    memory.hold(payload, vm["brand"], vm)
    return _normal(state, payload, vm["brand"], vm)


def _normal(state: State, payload: dict[str, t.Any], brand: str, vm: VM | None) -> Effective:
    action = "create" if vm is None else "update"
    _old_names(payload, brand)
    _docker(payload, brand, vm)
    problems = validate(state, brand, action, payload)
    if problems.bad_values:
        raise ToolError("Invalid value(s) for: " + ",".join(problems.bad_values))
    if problems.missing_properties:
        raise ToolError("Missing required properties: " + ",".join(problems.missing_properties))
    dropped = _drop_unknown(payload, brand, action)
    if vm is None and payload.get("zonename") is None:
        payload["zonename"] = payload["uuid"]
    for name in LISTS:
        if name in payload:
            if f"add_{name}" in payload:
                raise ToolError(f'Cannot specify both "{name}" and "add_{name}"')
            payload[f"add_{name}"] = payload.pop(name)
    _data_follows_default(payload, vm or {})
    nics.add_macs(payload.get("add_nics") or [])
    if brand == "bhyve":
        disks.place(payload, vm)
    for nic in payload.get("add_nics") or ():
        nics.upgrade(nic)
        nic.setdefault("ips", [])
    for nic in payload.get("update_nics") or ():
        nics.upgrade_change(nic, (vm or {})["nics"])
    _type_values(payload)
    if "zfs_storage_pool_name" in payload:
        payload.setdefault("zpool", payload.pop("zfs_storage_pool_name"))
    if vm is None and "image_uuid" not in payload:
        for name in ("spice_opts", "spice_password", "spice_port"):
            payload.pop(name, None)
    _check(payload, brand, vm)
    return Effective({name: value for name, value in payload.items() if value is not None or vm is not None}, dropped)


def check_host(state: State, effective: dict[str, t.Any]) -> None:
    """What the rest of the host has to say about an effective payload: conflicts, and the tags of its NICs."""
    nics.check_conflicts(effective, state.views())
    nics.check_tags(state, [nic for verb in ("add", "update") for nic in effective.get(f"{verb}_nics") or ()])


# -- values ------------------------------------------------------------------------------------------------------------


def _numbers(payload: dict[str, t.Any]) -> None:
    """Numbers are numbers before anything is looked at: limits are computed with them. An empty text unsets."""
    for name, value in payload.items():
        spec = PROPERTIES.get(name)
        if spec is None:
            continue
        if spec.type == "list" and isinstance(value, str):
            payload[name] = as_list(value)
        if spec.type != "integer":
            continue
        if value is None or value == "":
            payload[name] = 0 if name == "quota" else None
            continue
        payload[name] = number_of(value)
        if payload[name] is None:
            raise ToolError(f"Invalid value for {name}: null:number")


def _type_values(payload: dict[str, t.Any], prefix: str = "") -> None:
    """Turn what is spelled into what is meant: "false" into false, "5" into 5, "a,b" into a list."""
    for name, value in payload.items():
        spec = PROPERTIES.get(prefix + name)
        if spec is None or value is None or value == "":
            continue
        if spec.type == "boolean":
            truth = as_boolean(value)
            payload[name] = value if truth is None else truth
        elif spec.type == "integer":
            payload[name] = value if number_of(value) is None else number_of(value)
        elif spec.type == "list":
            payload[name] = as_list(value)
        elif spec.type == "object-array":
            for item in value:
                if isinstance(item, dict):
                    _type_values(item, f"{name.partition('_')[2]}.*.")


def _drop_unknown(payload: dict[str, t.Any], brand: str, action: str) -> list[str]:
    """Take out what ``brand`` does not allow in ``action``; list items are called nics.*.name."""
    dropped = []
    for name in list(payload):
        spec = PROPERTIES.get(name)
        verb, mark, rest = name.partition("_")
        kind = name if name in LISTS else rest if mark and verb in ("add", "update") and rest in LISTS else None
        if kind and isinstance(payload[name], list):
            use = "update" if verb == "update" else "add"
            for item in payload[name]:
                for key in [key for key in item if not _item_allowed(kind, key, brand, use)]:
                    del item[key]
                    dropped.append(f"{kind}.*.{key}")
        if spec is None or not spec.allowed(brand, action):
            del payload[name]
            dropped.append(name)
    return sorted(set(dropped))


def _item_allowed(kind: str, key: str, brand: str, use: str) -> bool:
    spec = PROPERTIES.get(f"{kind}.*.{key}")
    return spec is not None and spec.allowed(brand, use)


# -- defaults ----------------------------------------------------------------------------------------------------------


def _defaults(payload: dict[str, t.Any], brand: str) -> None:
    hvm = brand in HVM_BRANDS
    defaults: dict[str, t.Any] = {
        "owner_uuid": NO_UUID,
        "autoboot": True,
        "zpool": "zones",
        "dns_domain": "local",
        "cpu_shares": 100,
        "zfs_io_priority": 100,
        "max_lwps": 2000,
        "ram": 256,
        "limit_priv": list(HVM_PRIVILEGES) if hvm else ["default"],
        "quota": 1 if brand == "bhyve" else 10,
        "billing_id": NO_UUID,
    }
    if hvm:
        defaults["vcpus"] = 1
    for name, value in defaults.items():
        payload.setdefault(name, value)
    if exceeds(payload["cpu_shares"], MAX_SHARES):
        payload["cpu_shares"] = MAX_SHARES
    memory.hold(payload, brand, {})
    for kind, driver in (("disks", "disk_driver"), ("nics", "nic_driver")):
        for item in _objects(payload.get(f"add_{kind}", payload.get(kind))):
            if "model" not in item and driver in payload:
                item["model"] = payload[driver]
            if kind == "disks":
                item.setdefault("media", "disk")


def _objects(value: t.Any) -> list[dict[str, t.Any]]:
    """The objects in what should be a list of them; nothing was validated yet."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _old_names(payload: dict[str, t.Any], brand: str) -> None:
    """``dataset_uuid`` of zones, ``zone_dataset_uuid`` of HVM: what ``image_uuid`` was called once."""
    for name in ("dataset_uuid", "zone_dataset_uuid"):
        if name in payload and PROPERTIES[name].allowed(brand, "create"):
            payload.setdefault("image_uuid", payload[name])
            if name == "dataset_uuid":
                del payload[name]


def _docker(payload: dict[str, t.Any], brand: str, vm: VM | None) -> None:
    """``docker: true`` brings four others along, also where the brand then drops ``docker`` itself (facts 1.5).

    What ``vm`` has already stays; namespaces of an existing VM other than docker are lost unless the payload repeats them.
    """
    if as_boolean(payload.get("docker")) is not True:
        return
    have = vm or {}
    if "docker" not in have.get("internal_metadata_namespaces", ()):
        names = as_list(payload.get("internal_metadata_namespaces") or [])
        payload["internal_metadata_namespaces"] = names if "docker" in names else [*names, "docker"]
    if have.get("restart_init") is not False:
        payload["restart_init"] = False
    if brand in DOCKER_INIT and not have.get("init_name") and not payload.get("init_name"):
        payload["init_name"] = DOCKER_INIT[brand]
    if "docker:id" not in have.get("internal_metadata", ()):
        metadata = "internal_metadata" if vm is None else "set_internal_metadata"
        payload.setdefault(metadata, {}).setdefault("docker:id", os.urandom(32).hex())


def _data_follows_default(payload: dict[str, t.Any], vm: VM) -> None:
    """ZFS properties of the root would fall through to the delegated dataset; they are held off by explicit ones."""
    for name, default in (("compression", "off"), ("recsize", 131072)):
        if f"zfs_root_{name}" in payload:
            payload.setdefault(f"zfs_data_{name}", vm.get(f"zfs_data_{name}", default))


# -- checks ------------------------------------------------------------------------------------------------------------


def _check(payload: dict[str, t.Any], brand: str, vm: VM | None) -> None:
    """Refuse what cannot be, in the order in which create and update look."""
    if vm is not None:
        disks.check_state(payload, vm)
    disks.check(payload, vm, brand)
    after = nics.Check(payload, vm, brand).run()
    if "vga" in payload and payload["vga"] not in VGAS:
        raise ToolError(f'Invalid VGA type: "{payload["vga"]}", supported types are: {",".join(VGAS)}')
    check_routes(payload, (vm or {}).get("routes", {}), after)
    if len(payload.get("vnc_password") or "") > MAX_VNC_PASSWORD:
        raise ToolError(f"VNC password is too long, maximum length is {MAX_VNC_PASSWORD} characters.")
    _check_datasets(payload)
    if vm is not None:
        disks.check_changes(payload, vm)


def _check_datasets(payload: dict[str, t.Any]) -> None:
    for name in ("zfs_root_recsize", "zfs_data_recsize"):
        if name not in payload:
            continue
        if payload[name] in (0, ""):
            payload[name] = 131072
        elif not disks.is_record_size(payload[name]):
            shown = "undefined" if payload[name] is None else payload[name]
            raise ToolError(f"invalid {name} ({shown}), must be 512-131072 and a power of 2. (0 to disable)")
    for name in ("zfs_root_compression", "zfs_data_compression"):
        if name in payload and payload[name] not in disks.COMPRESSIONS:
            # The refusal is told, and the work goes on: its end is told too, which is one answer too many.
            raise Crash(f"invalid compression type for {payload[name]}")
