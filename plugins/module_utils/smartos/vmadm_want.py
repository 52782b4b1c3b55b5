# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of one VM, read from the options of the module vmadm. Pure."""

from __future__ import annotations

import ipaddress
import math
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import PlanError, check_values
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    ITEMS,
    PROPERTIES,
    RECORD_SIZE,
    UNSETTABLE,
    Items,
    Property,
    State,
    modern_nic,
)

STATES = ("present", "running", "stopped", "rebooted", "absent")
SNAPSHOT_STATES = ("present", "absent", "rolled_back")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9_.:%-]{1,64}")


@dataclass(frozen=True)
class Want:
    """What is asked of one VM.

    ``properties`` holds only what was given, in the form of a state; None for what is to be unset, and in a mapping for
    a key that is to be removed. ``reprovision``, ``allow_reboot``, ``replace_failed`` and ``remove_disks`` allow what
    costs the VM its root, its uptime or data; without them such a change is refused.
    """

    state: str = "present"
    uuid: str | None = None
    properties: t.Mapping[str, t.Any] = field(default_factory=dict)
    reprovision: bool = False
    allow_reboot: bool = False
    replace_failed: bool = False
    remove_disks: bool = False
    force: bool = False
    snapshot: t.Mapping[str, str] | None = None
    signal: str | None = None

    @property
    def alias(self) -> str | None:
        """The alias that was given."""
        return self.properties.get("alias")

    @property
    def who(self) -> str:
        """How messages call the VM."""
        return f"VM {self.uuid or repr(self.alias)}"

    @classmethod
    def from_options(cls, given: t.Mapping[str, t.Any]) -> Want:
        """Read what the module's options say, and refuse what no VM could have."""
        uuid, alias = given.get("uuid"), given.get("alias")
        where = f"VM {uuid or repr(alias)}"
        if not uuid and not alias:
            raise PlanError("neither uuid nor alias is given: give one of them; the uuid never changes")
        if uuid and not UUID.fullmatch(uuid):
            raise PlanError(f"{where}: uuid: {uuid!r} is not valid: use a UUID in lower case with dashes")
        if alias and alias.startswith("~"):
            raise PlanError(
                f"{where}: alias: {alias!r} is not valid: vmadm reads a leading ~ as a pattern: choose another"
            )
        properties = {name: given[name] for name in PROPERTIES if given.get(name) is not None}
        _unset(where, given.get("unset") or (), properties)
        properties.pop("uuid", None)
        for name, value in properties.items():
            properties[name] = _read(f"{where}: {name}", PROPERTIES[name], value, name)
        check_values(where, properties)
        _check_together(where, properties)
        snapshot = given.get("snapshot")
        if snapshot and not SNAPSHOT_NAME.fullmatch(snapshot["name"]):
            raise PlanError(
                f"{where}: snapshot.name: {snapshot['name']!r} is not valid: use 1 to 64 letters, digits, '-', '_', '.', ':', '%'"
            )
        flags = ("reprovision", "allow_reboot", "replace_failed", "remove_disks", "force")
        return cls(
            state=given.get("state") or "present",
            uuid=uuid,
            properties=properties,
            snapshot=snapshot,
            signal=given.get("signal"),
            **{name: bool(given.get(name)) for name in flags},
        )


def _unset(where: str, names: t.Iterable[str], properties: dict[str, t.Any]) -> None:
    """Note what is to be unset, or refuse it."""
    for name in names:
        one = PROPERTIES.get(name)
        if one is None or one.clear is UNSETTABLE:
            can = ", ".join(sorted(key for key, each in PROPERTIES.items() if each.clear is not UNSETTABLE))
            raise PlanError(f"{where}: unset: {name!r} is not valid: vmadm can unset {can}")
        if properties.get(name) not in (None, "", []):
            raise PlanError(f"{where}: unset: {name!r} also has a value: either unset it or give the value")
        properties[name] = None


def _read(where: str, one: Property, value: t.Any, name: str) -> t.Any:
    """One given value in the form of a state, or a refusal."""
    if one.type == "objects":
        return [_read_item(f"{where}[{index}]", ITEMS[name], item) for index, item in enumerate(value)]
    if value is None:
        return None
    if value == "" and one.type == "str":
        if one.clear is UNSETTABLE:
            raise PlanError(f"{where}: '' is not valid: vmadm cannot unset this property: leave it out")
        return None
    if one.type == "int":
        most = math.inf if one.most is None else one.most
        if one.least is not None and not one.least <= value <= most:
            limit = f"at least {one.least}" if one.most is None else f"a number from {one.least} to {one.most}"
            raise PlanError(f"{where}: {value!r} is not valid: use {limit}")
        if name.endswith("_recsize") and value == 0:
            return one.absent
        if name.endswith("_recsize") and (value < 512 or value > RECORD_SIZE or value & (value - 1)):
            raise PlanError(f"{where}: {value!r} is not valid: use a power of two from 512 to {RECORD_SIZE} bytes")
    if one.type == "dict":
        for key, each in value.items():
            if not isinstance(each, (str, int, float, bool, type(None))):
                raise PlanError(
                    f"{where}.{key}: use a string, a number or a boolean, because vmadm stores nothing nested"
                )
    return value


def _read_item(where: str, items: Items, given: t.Mapping[str, t.Any]) -> State:
    item = {name: value for name, value in given.items() if value is not None}
    for name, value in item.items():
        one = items.properties[name]
        item[name] = _read(f"{where}.{name}", one, value, name)
        if item[name] is None and one.clear is UNSETTABLE:
            raise PlanError(f"{where}.{name}: '' is not valid: vmadm cannot unset this property: leave it out")
    if items is ITEMS["nics"]:
        try:
            item = modern_nic(item)
        except ValueError as bad:
            raise PlanError(f"{where}: {bad}") from None
    return item


def _check_together(where: str, properties: t.Mapping[str, t.Any]) -> None:
    """Refuse what no single value is to blame for."""
    for name, items in ITEMS.items():
        keys = [item[items.key] for item in properties.get(name) or () if items.key in item]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise PlanError(f"{where}: {name}: {items.key} {twice[0]!r} is given twice")
    nics = properties.get("nics") or ()
    if sum(bool(nic.get("primary")) for nic in nics) > 1:
        raise PlanError(f"{where}: nics: more than one is primary: set primary: true on one")
    addresses = [bare(one) for nic in nics for one in nic.get("ips") or () if "/" in one]
    for address in addresses:
        if addresses.count(address) > 1:
            raise PlanError(f"{where}: nics: the address {address} is given twice")


def bare(address: str) -> str:
    return str(ipaddress.ip_interface(address).ip)
