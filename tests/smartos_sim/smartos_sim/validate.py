# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``vmadm validate`` checks, and create and update before anything else: names, types, limits, images (facts 1.4)."""

from __future__ import annotations

import re
import typing as t

from .addresses import MAC, is_address
from .disks import slot_of
from .files import ToolError
from .javascript import Crash, is_blank, whole
from .platform import HVM_BRANDS
from .properties import BRANDS, LISTS, PROPERTIES, Property, as_list

if t.TYPE_CHECKING:
    from .state import State

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

BOOTROMS = ("bios", "uefi")
DISK_IMAGE = ("zvol",)
ROOT_IMAGES = {"lx": ("docker", "lx-dataset")}
ROOT_IMAGE = ("zone-dataset",)
"""Image types for a zone's root; a brand that is not in ROOT_IMAGES wants the last."""


class Problems(t.NamedTuple):
    """The three lists of ``vmadm validate``, each name once, in the order of finding."""

    bad_values: list[str]
    bad_properties: list[str]
    missing_properties: list[str]

    def __bool__(self) -> bool:
        return any(self)


CHECKS: dict[str, t.Callable[[str], bool]] = {
    "validMacAddress": lambda text: bool(MAC.fullmatch(text)),
    "validResolver": is_address,
    "validAttrValue": lambda text: bool(re.fullmatch(r"[A-Za-z0-9_.-]+", text)),
    "validCID": lambda text: bool(re.fullmatch(r"0x([0-9a-fA-F]{2})+", text)) and len(text) <= 512,
    "validBhyveSectSize": lambda text: bool(re.fullmatch(r"\d+(/\d+)?", text)) and all(
        bin(int(one)).count("1") == 1 for one in text.split("/")
    ),
}  # fmt: skip


def _good(spec: Property, value: t.Any, pools: list[str]) -> bool:
    """Whether a value is one of its property's type, or unsets a property whose type can be unset."""
    kind = spec.type
    if kind == "boolean":
        return isinstance(value, bool) or value in (1, "1", "true", "false")
    if kind == "integer":
        return is_blank(value) or _good_number(spec, value)
    if kind == "uuid":
        return isinstance(value, str) and bool(UUID.fullmatch(value))
    if kind == "zpool":
        return value in pools
    if kind == "flat-object":
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        shaped = value is None or isinstance(value, (dict, list))
        return shaped and all(isinstance(one, (str, int, float)) for one in values)
    if kind == "object-array":
        return isinstance(value, list) and all(one is None or isinstance(one, (dict, list)) for one in value)
    check = CHECKS.get(spec.check or "")
    if kind == "list":
        return isinstance(value, (list, str)) and all(_good_item(one, check) for one in as_list(value))
    return is_blank(value) or (isinstance(value, str) and (not check or check(value)))


def _good_number(spec: Property, value: t.Any) -> bool:
    number = whole(value)
    if number is None:
        return False
    # The largest number is compared as JavaScript does, which cannot tell it from its neighbours.
    return (spec.least is None or number >= spec.least) and (spec.most is None or float(number) <= float(spec.most))


def _good_item(one: t.Any, check: t.Callable[[str], bool] | None) -> bool:
    """Whether a value can stand in a list, which is kept as one text with commas."""
    plain = isinstance(one, (str, int, float)) and not isinstance(one, bool)
    return plain and (not check or check(str(one))) and "," not in str(one)


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
        if self.brand in HVM_BRANDS:
            for kind in ("disks", "add_disks"):
                self._disk_sources(kind)
        if self.brand == "bhyve":
            for kind in ("pci_devices", "add_pci_devices"):
                self._devices(kind)
        if self.action == "create":
            for name, spec in PROPERTIES.items():
                if "!" in spec.allows[self.brand] and "." not in name and name not in self.payload:
                    self._note(self.problems.missing_properties, name)
        self._images()
        return self.problems

    @staticmethod
    def _note(where: list[str], name: str) -> None:
        if name not in where:
            where.append(name)

    def _property(self, name: str, value: t.Any, use: str | None) -> None:
        spec = PROPERTIES.get(name)
        if spec is None or use is None or not spec.allowed(self.brand, use):
            self._note(self.problems.bad_properties, name)
        if spec is not None and not _good(spec, value, self.pools):
            self._note(self.problems.bad_values, name)

    def _items(self, kind: str) -> list[dict[str, t.Any]]:
        """The entries of a list; what is no list ends the real program."""
        found = self.payload.get(kind) if kind in self.payload else []
        if not isinstance(found, list):
            raise Crash(f"TypeError: {kind} has no forEach")
        return [one if isinstance(one, dict) else {} for one in found]

    def _disk_sources(self, kind: str) -> None:
        """What one disk's properties mean together. These are named with the disk's number (facts 1.4)."""
        if not isinstance(self.payload.get(kind), list):
            return
        for number, disk in enumerate(self._items(kind)):
            if disk.get("media", "disk") != "disk":
                continue
            if "image_uuid" in disk:
                missing, bad = ["image_size"], ["block_size"]
                bad += [] if "flexible_disk_size" in self.payload else ["size"]
            else:
                missing, bad = ["size"], ["image_name", "image_size"]
            for name in missing:
                if name not in disk:
                    self._note(self.problems.missing_properties, f"{kind}.{number}.{name}")
            for name in bad:
                if name in disk:
                    self._note(self.problems.bad_properties, f"{kind}.{number}.{name}")

    def _devices(self, kind: str) -> None:
        if not isinstance(self.payload.get(kind), list):
            return
        for number, device in enumerate(self._items(kind)):
            where = f"{kind}.{number}"
            for name in ("path", "pci_slot"):
                if name not in device:
                    self._note(self.problems.missing_properties, f"{where}.{name}")
            if "path" in device and not str(device["path"]).startswith("/devices"):
                self._note(self.problems.bad_values, f"{where}.path")
            try:
                slot_of(device.get("pci_slot", "0"))
            except ToolError:
                self._note(self.problems.bad_values, f"{where}.pci_slot")
            if device.get("model", "passthru") != "passthru":
                self._note(self.problems.bad_values, f"{where}.model")

    def _images(self) -> None:
        """Images must be installed, of the type that their use needs; what they know is added to the payload."""
        uuid = self.payload.get("image_uuid")
        if isinstance(uuid, str) and UUID.fullmatch(uuid):
            self._image(self.payload, "", ROOT_IMAGES.get(self.brand, ROOT_IMAGE))
        for kind in ("disks", "add_disks"):
            for number, disk in enumerate(self._items(kind)):
                if "image_uuid" in disk:
                    self._image(disk, f"{kind}.{number}.", DISK_IMAGE)

    def _image(self, where: dict[str, t.Any], prefix: str, types: t.Sequence[str]) -> None:
        """One image that ``where``, the payload or a disk of it, names."""
        uuid, pool = where["image_uuid"], where.get("zpool", "zones")
        image = self.state.image(uuid, str(pool)) if isinstance(uuid, str) else None
        if image is None or image["manifest"].get("type") not in types:
            self._note(self.problems.bad_values, f"{prefix}image_uuid")
            return
        size = image["manifest"].get("image_size")
        if "image_size" in where and size is not None and whole(where["image_size"]) != size:
            self._note(self.problems.bad_values, f"{prefix}image_size")
            return
        rom = image["manifest"].get("requirements", {}).get("bootrom")
        asked = self.payload.get("bootrom") if where.get("boot") else None
        if asked and (asked != rom if rom else asked not in BOOTROMS):
            self._note(self.problems.bad_values, "bootrom")
            return
        if size is not None and "image_size" not in where:
            where["image_size"] = size
            if f"{prefix}image_size" in self.problems.missing_properties:
                self.problems.missing_properties.remove(f"{prefix}image_size")
            if whole(where.get("size", size)) is not None and (whole(where.get("size", size)) or 0) < size:
                self._note(self.problems.bad_values, "size")
        if rom and not self.payload.get("bootrom"):
            self.payload["bootrom"] = rom


def validate(state: State, brand: str, action: str, payload: dict[str, t.Any]) -> Problems:
    """Check ``payload`` for ``brand`` (one of BRANDS) and ``action`` (any other word makes every property bad)."""
    assert brand in BRANDS
    return Validation(state, brand, action, payload).run()
