# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``vmadm validate`` checks, and create and update before anything else: names, types, limits, images (facts 1.4)."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from .platform import HVM_BRANDS
from .properties import BRANDS, LISTS, PROPERTIES, Property

if t.TYPE_CHECKING:
    from .state import State

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")

DISK_IMAGE = ("zvol",)
ROOT_IMAGES = {"lx": ("lx-dataset", "docker")}
ROOT_IMAGE = ("zone-dataset",)
"""Image types for a zone's root; a brand that is not in ROOT_IMAGES wants the last."""


class Problems(t.NamedTuple):
    """The three lists of ``vmadm validate``, each name once, in the order of finding."""

    bad_values: list[str]
    bad_properties: list[str]
    missing_properties: list[str]

    def __bool__(self) -> bool:
        return any(self)


def as_integer(value: t.Any) -> int | None:
    """The whole number that ``value`` is or spells; None when it is not one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d+\s*", value):
        return int(value)
    return None


def as_boolean(value: t.Any) -> bool | None:
    """The truth value that ``value`` is or spells; None when it is not one."""
    known: dict[t.Any, bool] = {"true": True, "false": False, "1": True, "0": False, 1: True, 0: False}
    return known.get(value) if isinstance(value, (str, bool, int)) else None


def as_list(value: t.Any) -> list[t.Any]:
    """A list as it is, a comma list taken apart."""
    return list(value) if isinstance(value, list) else [one for one in str(value).split(",") if one]


def is_empty(value: t.Any) -> bool:
    """Whether a value only says "none": it is not looked at."""
    return value is None or value == ""


def is_address(text: t.Any, network: bool = False) -> bool:
    """Whether ``text`` is an IP address, or with ``network`` an address with a prefix length."""
    try:
        if network:
            return "/" in text and bool(ipaddress.ip_interface(text))
        return bool(ipaddress.ip_address(text))
    except (ValueError, TypeError):
        return False


CHECKS: dict[str, t.Callable[[str], bool]] = {
    "validMacAddress": lambda text: bool(MAC.fullmatch(text)),
    "validResolver": is_address,
    "validAttrValue": lambda text: bool(re.fullmatch(r"[A-Za-z0-9_.:/-]+", text)),
    "validCID": lambda text: bool(re.fullmatch(r"0x([0-9a-fA-F]{2})+|\d+\.\S+", text)),
    "validBhyveSectSize": lambda text: bool(re.fullmatch(r"\d+(/\d+)?", text)),
}


def _good(spec: Property, value: t.Any, pools: list[str]) -> bool:
    kind = spec.type
    if kind == "boolean":
        return as_boolean(value) is not None
    if kind == "integer":
        number = as_integer(value)
        least, most = spec.least, spec.most
        return number is not None and (least is None or number >= least) and (most is None or number <= most)
    if kind == "uuid":
        return isinstance(value, str) and bool(UUID.fullmatch(value))
    if kind == "zpool":
        return value in pools
    if kind == "flat-object":
        return isinstance(value, (dict, list)) and not any(
            isinstance(one, (dict, list)) for one in (value.values() if isinstance(value, dict) else value)
        )
    if kind == "object-array":
        return isinstance(value, list) and all(isinstance(one, dict) for one in value)
    check = CHECKS.get(spec.check or "")
    if kind == "list":
        return isinstance(value, (list, str)) and all(not check or check(str(one)) for one in as_list(value))
    return isinstance(value, str) and (not check or check(value))


def _list_of(name: str) -> tuple[str | None, str]:
    """Of which list of objects a property holds entries, and in which use: nics and add_nics new ones."""
    verb, mark, rest = name.partition("_")
    if mark and verb in ("add", "update") and rest in LISTS:
        return rest, {"add": "add", "update": "update"}[verb]
    return (name, "add") if name in LISTS else (None, "")


class Validation:
    """One pass over a payload."""

    def __init__(self, state: State, brand: str, action: str, payload: dict[str, t.Any]) -> None:
        self.state, self.brand, self.action, self.payload = state, brand, action, payload
        self.pools = state.pools()
        self.problems = Problems([], [], [])
        pool = payload.get("zpool") or payload.get("zfs_storage_pool_name")
        self.pool = pool if isinstance(pool, str) else self.pools[0]

    def run(self) -> Problems:
        """Check everything."""
        for name, value in self.payload.items():
            self._property(name, value, self.action if self.action in ("create", "update") else None)
            kind, use = _list_of(name)
            if kind and isinstance(value, list):
                for item in value:
                    if isinstance(item, dict):
                        for key, one in item.items():
                            self._property(f"{kind}.*.{key}", one, use)
        image = self.payload.get("image_uuid")
        if not is_empty(image) and not self._image(image, ROOT_IMAGES.get(self.brand, ROOT_IMAGE)):
            self._note(self.problems.bad_values, "image_uuid")
        self._disks()
        if self.action == "create":
            for name, spec in PROPERTIES.items():
                if "!" in spec.allows[self.brand] and "." not in name and self.payload.get(name) is None:
                    self._note(self.problems.missing_properties, name)
        return self.problems

    @staticmethod
    def _note(where: list[str], name: str) -> None:
        if name not in where:
            where.append(name)

    def _property(self, name: str, value: t.Any, use: str | None) -> None:
        spec = PROPERTIES.get(name)
        if spec is None or use is None or not spec.allowed(self.brand, use):
            self._note(self.problems.bad_properties, name)
        if spec is not None and not is_empty(value) and not _good(spec, value, self.pools):
            self._note(self.problems.bad_values, name)

    def _image(self, uuid: t.Any, types: t.Sequence[str], pool: str | None = None) -> dict[str, t.Any] | None:
        """The installed image of one of ``types``; None when there is none such."""
        image = self.state.image(uuid, pool or self.pool) if isinstance(uuid, str) else None
        return image if image and image["manifest"].get("type") in types else None

    def _disks(self) -> None:
        """What one disk's properties mean together. These are named with the disk's number (facts 1.4)."""
        disks = self.payload.get("disks" if self.action == "create" else "add_disks")
        if self.brand not in HVM_BRANDS or not isinstance(disks, list):
            return
        for number, disk in enumerate(one for one in disks if isinstance(one, dict)):
            where = f"disks.{number}."
            if not is_empty(disk.get("image_uuid")):
                self._image_disk(where, disk)
            else:
                for name in ("image_name", "image_size"):
                    if name in disk:
                        self._note(self.problems.bad_properties, where + name)
                if disk.get("media", "disk") == "disk" and disk.get("size") is None:
                    self._note(self.problems.missing_properties, where + "size")

    def _image_disk(self, where: str, disk: dict[str, t.Any]) -> None:
        image = self._image(disk["image_uuid"], DISK_IMAGE, disk.get("zpool"))
        size = image["manifest"].get("image_size") if image else None
        if image is None:
            self._note(self.problems.bad_values, where + "image_uuid")
        if disk.get("image_size") is None:
            if size is None:
                self._note(self.problems.missing_properties, where + "image_size")
        elif size is not None and as_integer(disk["image_size"]) != size:
            self._note(self.problems.bad_values, where + "image_size")
        if "size" in disk:
            if is_empty(self.payload.get("flexible_disk_size")):
                self._note(self.problems.bad_properties, where + "size")
            wanted = as_integer(disk["size"])
            if size is not None and wanted is not None and wanted < size:
                self._note(self.problems.bad_values, "size")


def validate(state: State, brand: str, action: str, payload: dict[str, t.Any]) -> Problems:
    """Check ``payload`` for ``brand`` (one of BRANDS) and ``action`` (any other word makes every property bad)."""
    assert brand in BRANDS
    return Validation(state, brand, action, payload).run()
