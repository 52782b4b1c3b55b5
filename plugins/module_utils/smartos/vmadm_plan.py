# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest payload, and the calls of vmadm(8), that bring a VM to its description.

Pure: nothing here runs a command; :mod:`.vmadm` does. What vmadm shows and makes of a payload is in :mod:`.vmadm_properties`.
"""

from __future__ import annotations

import copy
import ipaddress
import math
import re
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    BRANDS,
    DOCKER_ID,
    HVM,
    ITEMS,
    KEYED,
    MDATA_FETCH,
    MOST_SHARES,
    OVERHEAD,
    OWNED_WHOLE,
    PROPERTIES,
    RECORD_SIZE,
    UNSETTABLE,
    ZONES,
    Items,
    Payload,
    Property,
    State,
    created,
    modern_nic,
    normal,
    same,
    strict,
    updated,
)

STATES = ("present", "running", "stopped", "rebooted", "absent")
SNAPSHOT_STATES = ("present", "absent", "rolled_back")
TRANSIENT = ("provisioning", "stopping", "shutting_down", "receiving")  # states that a VM leaves by itself
BROKEN = ("failed", "configured", "incomplete")  # what a create that did not end well leaves
# What ``vmadm update`` can do to a disk of a running VM.
LIVE_DISK = {"path", "compression", "refreservation"}
MEMORY = ("max_physical_memory", "max_locked_memory", "max_swap", "tmpfs")
HIDDEN, HIDDEN_NEW = "(hidden)", "(hidden, another value)"

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9_.:%-]{1,64}")


class PlanError(Exception):
    """A VM cannot be made as described; the message says where, what, and what would be right."""


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
            raise PlanError("neither uuid nor alias is given: one of them says which VM is meant, the uuid for good")
        if uuid and not UUID.fullmatch(uuid):
            raise PlanError(f"{where}: uuid: {uuid!r} is not right: a UUID in lower case with dashes")
        if alias and alias.startswith("~"):
            raise PlanError(
                f"{where}: alias: {alias!r} is not right: vmadm takes what begins with ~ for a pattern; choose another"
            )
        properties = {name: given[name] for name in PROPERTIES if given.get(name) is not None}
        for name in given.get("unset") or ():
            one = PROPERTIES.get(name)
            if one is None or one.clear is UNSETTABLE:
                can = ", ".join(sorted(key for key, each in PROPERTIES.items() if each.clear is not UNSETTABLE))
                raise PlanError(f"{where}: unset: {name!r} is not right: vmadm can unset {can}")
            if properties.get(name) not in (None, "", []):
                raise PlanError(f"{where}: unset: {name!r} is given a value as well: say one of both")
            properties[name] = None
        properties.pop("uuid", None)
        for name, value in properties.items():
            properties[name] = _read(f"{where}: {name}", PROPERTIES[name], value, name)
        _check_together(where, properties)
        snapshot = given.get("snapshot")
        if snapshot and not SNAPSHOT_NAME.fullmatch(snapshot["name"]):
            raise PlanError(
                f"{where}: snapshot.name: {snapshot['name']!r} is not right: 1 to 64 letters, digits, '-', '_', '.', ':', '%'"
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


def _read(where: str, one: Property, value: t.Any, name: str) -> t.Any:
    """One given value in the form of a state, or a refusal."""
    if one.type == "objects":
        return [_read_item(f"{where}[{index}]", ITEMS[name], item) for index, item in enumerate(value)]
    if value is None:
        return None
    if value == "" and one.type == "str":
        if one.clear is UNSETTABLE:
            raise PlanError(f"{where}: '' is not right: vmadm cannot unset it")
        return None
    if one.type == "int":
        most = math.inf if one.most is None else one.most
        if one.least is not None and not one.least <= value <= most:
            limit = f"at least {one.least}" if one.most is None else f"{one.least} to {one.most}"
            raise PlanError(f"{where}: {value!r} is not right: {limit}")
        if name.endswith("_recsize") and value == 0:
            return one.absent
        if name.endswith("_recsize") and (value < 512 or value > RECORD_SIZE or value & (value - 1)):
            raise PlanError(f"{where}: {value!r} is not right: a power of two from 512 to {RECORD_SIZE} bytes")
    if one.type == "dict":
        for key, each in value.items():
            if not isinstance(each, (str, int, float, bool, type(None))):
                raise PlanError(
                    f"{where}.{key}: a string, a number or a boolean is needed; vmadm stores nothing nested"
                )
    return value


def _read_item(where: str, items: Items, given: t.Mapping[str, t.Any]) -> State:
    item = {name: value for name, value in given.items() if value is not None}
    for name, value in item.items():
        one = items.properties[name]
        item[name] = _read(f"{where}.{name}", one, value, name)
        if item[name] is None and one.clear is UNSETTABLE:
            raise PlanError(f"{where}.{name}: '' is not right: vmadm cannot unset it")
    if items is ITEMS["nics"]:
        try:
            item = modern_nic(item)
        except ValueError as bad:
            raise PlanError(f"{where}: {bad}") from None
        _check_addresses(where, item)
    return item


def _check_addresses(where: str, nic: State) -> None:
    """Refuse what ``vmadm validate`` lets pass and ``vmadm create`` refuses, without naming the nic."""
    for address in nic.get("ips") or ():
        if address in ("dhcp", "addrconf"):
            continue
        try:
            if "/" not in address:
                raise ValueError("the prefix length is missing")
            ipaddress.ip_interface(address)
        except ValueError as bad:
            raise PlanError(
                f"{where}.ips: {address!r} is not right: an address with its prefix length, dhcp or addrconf ({bad})"
            ) from None
    for gateway in nic.get("gateways") or ():
        try:
            ipaddress.IPv4Address(gateway)
        except ValueError:
            raise PlanError(f"{where}.gateways: {gateway!r} is not right: an IPv4 address") from None


def _check_together(where: str, properties: t.Mapping[str, t.Any]) -> None:
    """Refuse what no single value is to blame for."""
    for name, items in ITEMS.items():
        keys = [item[items.key] for item in properties.get(name) or () if items.key in item]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise PlanError(f"{where}: {name}: {items.key} {twice[0]!r} is given twice")
    nics = properties.get("nics") or ()
    if sum(bool(nic.get("primary")) for nic in nics) > 1:
        raise PlanError(f"{where}: nics: more than one is primary; a VM has one")
    addresses = [_bare(one) for nic in nics for one in nic.get("ips") or () if "/" in one]
    for address in addresses:
        if addresses.count(address) > 1:
            raise PlanError(f"{where}: nics: the address {address} is given twice")


def _bare(address: str) -> str:
    return str(ipaddress.ip_interface(address).ip)


def unlike(predicted: State, actual: State, names: t.Iterable[str]) -> list[str]:
    """What of ``names`` is not as predicted. What a prediction cannot know (a random MAC, a path) is left out of it."""
    found = []
    for name in names:
        expected, value = predicted.get(name), actual.get(name)
        if name in ITEMS:
            ok = _items_alike(name, expected or [], value or [])
        elif name in KEYED:
            mappings = [{**(each or {}), **DOCKER_ID} for each in (expected, value)]
            ok = strict(sorted(mappings[0].items())) == strict(sorted(mappings[1].items()))
        else:
            ok = same(PROPERTIES.get(name, Property()), expected, value)
        if not ok:
            found.append(name)
    return found


def _items_alike(kind: str, expected: list[State], actual: list[State]) -> bool:
    items = ITEMS[kind]
    if len(expected) != len(actual):
        return False
    for item, other in match(kind, expected, actual):
        if other is None or any(not same(items.properties[name], item[name], other.get(name)) for name in item):
            return False
    return True


def view(state: State | None, before: State | None = None) -> State:
    """One side of a diff: what is set, sorted, without the values of secrets; ``before`` marks those that change."""
    if state is None:
        return {"state": "absent"}
    shown: State = {}
    for name in sorted(state):
        value, one = state[name], PROPERTIES.get(name)
        if value in (None, [], {}) or name == "delegate_dataset" or (one and same(one, value, None)):
            continue
        if one and one.secret:
            old = before.get(name) if before else None
            if isinstance(value, dict):
                old = old or {}
                value = {key: _hidden(key in old, strict(old.get(key)) == strict(value[key])) for key in sorted(value)}
            else:
                value = _hidden(bool(old), old == value)
        elif name in ITEMS:
            known = ITEMS[name].properties
            value = [
                {key: item[key] for key in sorted(item) if not same(known[key], item[key], None)} for item in value
            ]
        shown[name] = value
    return shown


def _hidden(existed: bool, unchanged: bool) -> str:
    return HIDDEN_NEW if existed and not unchanged else HIDDEN


def match(kind: str, wanted: t.Sequence[State], have: t.Sequence[State]) -> list[tuple[State, State | None]]:
    """Each wanted item with the existing one that it means.

    By identity where the item tells it. A nic without a MAC means the one with its interface. Those that tell neither, and
    disks without a path, mean those that are left, in their order.
    """
    key = ITEMS[kind].key
    found: dict[int, int] = {}

    def pair(index: int, places: t.Iterable[int]) -> None:
        for place in places:
            if place not in found.values():
                found[index] = place
                return

    for name in (key, "interface"):
        for index, item in enumerate(wanted):
            if index not in found and item.get(name) is not None and (name == key or item.get(key) is None):
                pair(index, [place for place, other in enumerate(have) if other.get(name) == item[name]])
    for index, item in enumerate(wanted):
        if item.get(key) is None and item.get("interface") is None:
            pair(index, range(len(have)))
    return [(item, have[found[index]] if index in found else None) for index, item in enumerate(wanted)]


def update_payload(have: State, want: Want) -> Payload:
    """The smallest payload with which ``vmadm update`` brings a VM to its description; empty when it is as described."""
    payload: Payload = {}
    for name in KEYED:
        if name in want.properties:
            payload.update(_mapping_changes(name, have[name], want.properties[name]))
    for name in ITEMS:
        if name in want.properties:
            payload.update(_item_changes(name, have, want))
    # What one value drags along may undo another, so look again with what was found until nothing is left.
    left: Payload = {}
    for _round in range(len(PROPERTIES)):
        after = updated(have, payload)
        goal = _goal(have, after, want, payload)
        left = {name: value for name, value in goal.items() if not same(PROPERTIES[name], after[name], value)}
        if not left:
            if {"ram", "max_physical_memory"} & set(payload):
                # What is wanted is said, rather than left to what each version of vmadm drags along.
                payload.update({name: goal[name] for name in MEMORY if name in goal})
            return payload
        payload.update({name: _sent(name, value) for name, value in left.items()})
    raise PlanError(
        f"{want.who}: no payload brings {', '.join(sorted(left))} to the wanted value: a defect of this module"
    )


def _goal(have: State, after: State, want: Want, payload: Payload) -> Payload:
    """The values that the properties are to have at the end: the wanted ones as vmadm limits them, and what must stay."""
    goal = {
        name: value
        for name, value in want.properties.items()
        if PROPERTIES[name].update and PROPERTIES[name].type not in ("objects", "dict")
    }
    if have["brand"] in ZONES and "ram" in goal:
        goal.setdefault("max_physical_memory", goal.pop("ram"))
        goal.pop("ram", None)
    physical = after["max_physical_memory"]
    floor = after["ram"] + OVERHEAD[have["brand"]][1] if have["brand"] in OVERHEAD and after["ram"] is not None else 0
    for name in ("max_physical_memory", "max_locked_memory"):
        if name in goal:
            goal[name] = max(goal[name], floor)
    if "max_locked_memory" in goal:
        goal["max_locked_memory"] = min(goal["max_locked_memory"], physical)
    if "tmpfs" in goal:
        goal["tmpfs"] = min(goal["tmpfs"], physical)
    if "max_swap" in goal:
        goal["max_swap"] = max(goal["max_swap"], physical)
    if goal.get("cpu_shares"):
        goal["cpu_shares"] = min(goal["cpu_shares"], MOST_SHARES)
    if goal.get("docker", have["docker"]):
        if "restart_init" in goal or payload.get("docker"):
            goal["restart_init"] = False
        names = goal.get("internal_metadata_namespaces", have["internal_metadata_namespaces"]) or []
        if "internal_metadata_namespaces" in goal or payload.get("docker"):
            goal["internal_metadata_namespaces"] = names if "docker" in names else [*names, "docker"]
    if payload and have["brand"] == "bhyve":
        for name in ("com1", "com2"):
            goal.setdefault(name, have[name])
    return goal


def _sent(name: str, value: t.Any) -> t.Any:
    """How a payload carries a value: what unsets the property for the value that it has when it is left out."""
    one = PROPERTIES[name]
    if value is None or (one.type == "str" and same(one, value, None) and one.clear is not UNSETTABLE):
        return one.clear
    return value


def _mapping_changes(name: str, have: State, want: t.Mapping[str, t.Any]) -> Payload:
    payload: Payload = {}
    put = {key: value for key, value in want.items() if value is not None and strict(have.get(key)) != strict(value)}
    gone = [key for key, value in want.items() if value is None and key in have]
    if name in OWNED_WHOLE:
        gone = sorted(key for key in have if want.get(key) is None)
    if put:
        payload[f"set_{name}"] = put
    if gone:
        payload[f"remove_{name}"] = gone
    return payload


def _item_changes(name: str, have: State, want: Want) -> Payload:
    """``add_``, ``update_`` and ``remove_`` of one kind of items."""
    items, wanted = ITEMS[name], want.properties[name]
    pairs = match(name, wanted, have[name])
    add: list[State] = []
    update: list[State] = []
    for index, (item, other) in enumerate(pairs):
        if other is None:
            add.append(_new_item(item))
            continue
        item = {key: value for key, value in item.items() if key != "primary" or value}
        change = {
            key: items.properties[key].clear if value is None else value
            for key, value in item.items()
            if key != items.key
            and items.properties[key].shown
            and not same(items.properties[key], other.get(key), value)
        }
        if name == "disks":
            change = _disk_changes(index, item, other, change, have, want)
        fixed = [key for key in change if not items.properties[key].update]
        if fixed:
            what = "; ".join(f"{key} is {other.get(key)!r}, not {change[key]!r}" for key in fixed)
            raise PlanError(
                f"{want.who}: {name}[{index}] ({items.key} {other[items.key]}): {what}: vmadm cannot change it; "
                f"take the entry out in one run and add it in another"
            )
        if change:
            if change.get("size") is not None and item.get("dangerous_allow_shrink"):
                change["dangerous_allow_shrink"] = True
            update.append({items.key: other[items.key], **change})
    kept = [id(other) for item, other in pairs]
    remove = [item[items.key] for item in have[name] if id(item) not in kept]
    if name == "nics":
        _keep_primary(pairs, have["nics"], add, update, remove)
    if name == "disks" and remove and not want.remove_disks:
        raise PlanError(
            f"{want.who}: disks: {', '.join(remove)} is not among them, and removing it destroys its data: "
            f"name it, or set remove_disks: true"
        )
    found = {"add": add, "update": update, "remove": remove}
    return {f"{verb}_{name}": value for verb, value in found.items() if value}


def _new_item(item: State) -> State:
    """An item as it is added. vmadm takes no ``primary: false``, and no MAC of a nic that has it from its ``vrrp_vrid``."""
    drop = {"mac"} if "vrrp_vrid" in item else set()
    return {
        key: value
        for key, value in item.items()
        if value is not None and key not in drop and (key != "primary" or value)
    }


def _keep_primary(
    pairs: list[tuple[State, State | None]], have: list[State], add: list[State], update: list[State], remove: list[str]
) -> None:
    """Name the primary nic where vmadm would choose one by itself, or none."""
    if not pairs or any(item.get("primary") for item, other in pairs):
        return
    if any(nic.get("primary") and nic["mac"] not in remove for nic in have):
        return
    first, other = pairs[0]
    if other is None:
        add[add.index(_new_item(first))]["primary"] = True
        return
    for change in update:
        if change["mac"] == other["mac"]:
            change["primary"] = True
            return
    update.append({"mac": other["mac"], "primary": True})


def _disk_changes(index: int, item: State, other: State, change: Payload, have: State, want: Want) -> Payload:
    """The changes of one disk without the image of the first one, which reprovision changes; refuse what is impossible."""
    where = f"{want.who}: disks[{index}] ({other['path']})"
    if index == 0 and want.reprovision and have["brand"] == "bhyve" and "image_uuid" in change:
        change = {key: value for key, value in change.items() if key not in ("image_uuid", "image_size")}
    if "size" in change:
        if have["brand"] == "kvm":
            raise PlanError(
                f"{where}: size is {other['size']} MiB, not {change['size']}: vmadm cannot resize a disk of brand kvm"
            )
        if change["size"] < (other["size"] or 0) and not item.get("dangerous_allow_shrink"):
            raise PlanError(
                f"{where}: size is {other['size']} MiB, and {change['size']} would cut off data: "
                f"set dangerous_allow_shrink: true for this disk if that is meant"
            )
    return change


@dataclass(frozen=True)
class Step:
    """One call of vmadm: its verb, what it reads from stdin, what it must bring about, and the state after it."""

    verb: str
    payload: Payload | None = None
    names: tuple[str, ...] = ()
    after: State | None = None
    argument: str = ""

    def __str__(self) -> str:
        detail = self.argument or (", ".join(sorted(self.names)) if self.verb == "update" else "")
        return f"{self.verb} ({detail})" if detail else self.verb


@dataclass(frozen=True)
class Plan:
    """The calls that bring a VM to what is wanted; ``reboot_needed`` names what a running VM does not see yet."""

    before: State | None
    after: State | None
    steps: tuple[Step, ...] = ()
    reboot_needed: tuple[str, ...] = ()

    @property
    def rebooted(self) -> bool:
        """Whether a running VM is stopped and started."""
        verbs = [step.verb for step in self.steps]
        up = self.before is not None and self.before["state"] == "running"
        return (
            up
            and any(verb in verbs for verb in ("reboot", "reprovision", "rollback-snapshot"))
            or (up and "stop" in verbs and "start" in verbs)
        )


def find(vms: t.Sequence[t.Mapping[str, t.Any]], want: Want) -> t.Mapping[str, t.Any] | None:
    """The VM that a description means, by UUID, or else by an alias that only one VM has."""
    named = [vm for vm in vms if want.alias and vm.get("alias") == want.alias]
    others = [vm["uuid"] for vm in named if vm["uuid"] != want.uuid]
    if want.uuid:
        if others and want.state != "absent":
            raise PlanError(f"{want.who}: alias {want.alias!r} is that of VM {others[0]} already: choose another")
        return next((vm for vm in vms if vm["uuid"] == want.uuid), None)
    if len(named) > 1:
        raise PlanError(f"alias {want.alias!r} is that of {len(named)} VMs: say which by uuid: {', '.join(others)}")
    return named[0] if named else None


def plan(vm: t.Mapping[str, t.Any] | None, want: Want, others: t.Sequence[t.Mapping[str, t.Any]] = ()) -> Plan:
    """Say which calls bring a VM to its description, or refuse. Pure.

    :param vm: what ``vmadm get`` shows of it, None when there is none.
    :param others: the other VMs of the host, for conflicts of addresses.
    """
    have = normal(vm) if vm else None
    if want.state == "absent":
        return _plan_absent(have, want)
    brand: t.Any = have["brand"] if have else want.properties.get("brand")
    if brand not in BRANDS:
        what = (
            "give brand, the VM is to be made" if brand is None else f"brand {brand!r} is none of {', '.join(BRANDS)}"
        )
        raise PlanError(f"{want.who}: {what}")
    _check_brand(brand, want)
    _check_conflicts(have["nics"] if have else [], want, others)
    if have is None or have["state"] in BROKEN:
        if have is not None and not want.replace_failed:
            raise PlanError(
                f"{want.who}: its state is {have['state']!r}, so it was never finished: see /var/log/vm/logs and its zone's own logs; "
                f"set replace_failed: true to have it deleted with all its data and made anew"
            )
        todo = _plan_new(want)
        if have is None:
            return todo
        return Plan(have, todo.after, (Step("delete"), *todo.steps), todo.reboot_needed)
    return _plan_existing(have, want)


def _check_brand(brand: str, want: Want) -> None:
    given = [(name, PROPERTIES[name]) for name in want.properties]
    for kind, items in ITEMS.items():
        for index, item in enumerate(want.properties.get(kind) or ()):
            given += [(f"{kind}[{index}].{name}", items.properties[name]) for name in item]
    for where, one in given:
        if brand not in one.brands:
            raise PlanError(
                f"{want.who}: {where}: a VM of brand {brand} cannot have it, only one of {', '.join(one.brands)}"
            )
    ram, physical = want.properties.get("ram"), want.properties.get("max_physical_memory")
    if brand in ZONES and None not in (ram, physical) and ram != physical:
        raise PlanError(
            f"{want.who}: ram is {ram} and max_physical_memory {physical}: for brand {brand} both are the same limit"
        )


def _check_conflicts(have: list[State], want: Want, others: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    """Refuse an address or a MAC that another VM of the host has. vmadm compares text only: 10.0.0.1/24 is not 10.0.0.1/25 to it."""
    wanted = [{**(other or {}), **item} for item, other in match("nics", want.properties.get("nics") or [], have)]
    for vm in others:
        if vm.get("state") == "failed":
            continue
        for nic in normal(vm)["nics"]:
            theirs = {_bare(one) for one in nic["ips"] if "/" in one}
            for index, mine in enumerate(wanted):
                where = f"{want.who}: nics[{index}]"
                if mine.get("mac") and mine["mac"] == nic["mac"] and mine.get("vrrp_vrid") is None:
                    raise PlanError(f"{where}.mac: {mine['mac']} is that of VM {vm['uuid']}")
                if (mine.get("nic_tag"), mine.get("vlan_id") or 0) != (nic["nic_tag"], nic["vlan_id"]):
                    continue
                both = theirs & {_bare(one) for one in mine.get("ips") or () if "/" in one}
                if both:
                    raise PlanError(
                        f"{where}.ips: {sorted(both)[0]} is an address of VM {vm['uuid']} on {nic['nic_tag']} too"
                    )


def _plan_absent(have: State | None, want: Want) -> Plan:
    if have is None:
        return Plan(None, None)
    steps: list[Step] = []
    for name in ("indestructible_zoneroot", "indestructible_delegated"):
        if have[name] and want.properties.get(name) is not False:
            raise PlanError(
                f"{want.who}: {name} is set, so it is not deleted: give {name}: false as well if that is meant"
            )
        if have[name]:
            steps.append(Step("update", {name: False}, (name,), {**have, name: False}))
    return Plan(have, None, (*steps, Step("delete")))


def _plan_new(want: Want) -> Plan:
    """Create the VM, and update what vmadm does not take over from the payload."""
    asked = {name: value for name, value in want.properties.items() if value is not None}
    up = {"running": True, "rebooted": True, "stopped": False}.get(want.state, asked.get("autoboot", True))
    payload: Payload = {name: value for name, value in asked.items() if name not in KEYED}
    if want.uuid:
        payload["uuid"] = want.uuid
    for name in KEYED:
        values = {key: value for key, value in (asked.get(name) or {}).items() if value is not None}
        if values:
            payload[name] = values
    for name in ITEMS:
        if name in payload:
            payload[name] = [_new_item(item) for item in payload[name]]
    brand = payload["brand"]
    _check_new(brand, payload, want)
    if brand in ZONES and "ram" in payload:
        payload.setdefault("max_physical_memory", payload.pop("ram"))
        payload.pop("ram", None)
    if up is not asked.get("autoboot", True) or "autoboot" in asked:
        payload["autoboot"] = up
    limited = created(payload)
    payload.update({name: limited[name] for name in (*MEMORY, "cpu_shares") if name in payload})
    state = created(payload)
    steps = [Step("create", payload, tuple(name for name in payload if PROPERTIES[name].shown), state)]
    rest = update_payload(state, _without(want, *ITEMS))
    if rest:
        steps.append(_update(state, rest))
        state = t.cast(State, steps[-1].after)
    return _with_extras(Plan(None, state, tuple(steps)), want, up)


def _check_new(brand: str, payload: Payload, want: Want) -> None:
    """Refuse what ``vmadm validate`` would let pass although nothing can come of it."""
    missing = [name for name in ("image_uuid",) if brand in ZONES and not payload.get(name)]
    missing += ["kernel_version"] if brand == "lx" and not payload.get("kernel_version") else []
    if missing:
        raise PlanError(f"{want.who}: {', '.join(missing)} is needed to make a VM of brand {brand}")
    for index, nic in enumerate(payload.get("nics") or ()):
        if not nic.get("nic_tag"):
            raise PlanError(f"{want.who}: nics[{index}].nic_tag is needed: a tag that nictagadm list shows")
        if brand in HVM and not nic.get("model") and not payload.get("nic_driver"):
            raise PlanError(
                f"{want.who}: nics[{index}].model is needed for brand {brand}, or nic_driver for all of them"
            )
    for index, disk in enumerate(payload.get("disks") or ()):
        if not disk.get("model") and not payload.get("disk_driver"):
            raise PlanError(
                f"{want.who}: disks[{index}].model is needed for brand {brand}, or disk_driver for all of them"
            )
    _check_delegated(bool(payload.get("delegate_dataset")), want)


def _check_delegated(delegated: bool, want: Want) -> None:
    for name in ("zfs_data_compression", "zfs_data_recsize", "indestructible_delegated"):
        one = PROPERTIES[name]
        if not delegated and name in want.properties and not same(one, want.properties[name], None):
            raise PlanError(
                f"{want.who}: {name}: the VM has no delegated dataset; one is given with delegate_dataset when it is made"
            )


def _update(state: State, payload: Payload) -> Step:
    names = tuple(sorted({re.sub("^(add|update|remove|set)_", "", name) for name in payload}))
    return Step("update", payload, names, updated(state, payload))


def _plan_existing(have: State, want: Want) -> Plan:
    image = _image_change(have, want)
    _check_fixed(have, want)
    _check_delegated(have["delegate_dataset"], want)
    up = have["state"] == "running"
    target = {"running": True, "rebooted": True, "stopped": False}.get(want.state, up)
    if have["state"] not in ("running", "stopped") and want.state != "present":
        raise PlanError(f"{want.who}: its state is {have['state']!r}, from which vmadm neither starts nor stops it")

    # Power steps change autoboot, so it is compared when they are done.
    payload = update_payload(have, _without(want, "autoboot"))
    disruptive = _needs_stop(payload)
    allowed = want.allow_reboot or want.state == "rebooted"
    steps: list[Step] = []
    state = have
    if up and not target:
        steps.append(_power(state, False, want))
    elif up and disruptive:
        if not allowed:
            raise PlanError(
                f"{want.who}: {', '.join(disruptive)}: vmadm changes it only while the VM is stopped: "
                f"set allow_reboot: true to have it stopped and started"
            )
        steps.append(_power(state, False, want))
    state = steps[-1].after or state if steps else state
    running_changes: list[str] = []
    if payload:
        step = _update(state, payload)
        after = t.cast(State, step.after)
        if state["state"] == "running":
            running_changes = _unseen(state, after)
        steps.append(step)
        state = after
    if image:
        state = _reprovisioned(state, image)
        steps.append(Step("reprovision", {"image_uuid": image}, ("image_uuid", "disks", "state"), state))
        running_changes = []
    extras = _with_extras(Plan(have, state, tuple(steps)), want, target, original=have["autoboot"])
    verbs = [step.verb for step in extras.steps]
    restarts = {"stop", "start", "reprovision", "rollback-snapshot"} & set(verbs)
    if up and target and not restarts and (want.state == "rebooted" or (running_changes and want.allow_reboot)):
        reboot = Step("reboot", None, ("state",), extras.after, "force" if want.force else "")
        last = len(extras.steps) - verbs.count("kill")  # the signal is for the VM as it is at the end
        return Plan(have, extras.after, (*extras.steps[:last], reboot, *extras.steps[last:]))
    return Plan(have, extras.after, extras.steps, () if restarts or not target else tuple(running_changes))


def _without(want: Want, *names: str) -> Want:
    return replace(want, properties={name: value for name, value in want.properties.items() if name not in names})


def _with_extras(done: Plan, want: Want, up: bool, original: bool | None = None) -> Plan:
    """A plan with snapshot, power, autoboot and signal after the configuration."""
    steps, state = list(done.steps), t.cast(State, done.after)
    if want.snapshot:
        step = _snapshot(state, want)
        if step:
            steps.append(step)
            state = t.cast(State, step.after)
    if (state["state"] == "running") is not up and state["state"] in ("running", "stopped"):
        steps.append(_power(state, up, want))
        state = t.cast(State, steps[-1].after)
    autoboot = want.properties.get("autoboot")
    if autoboot is None and want.state != "stopped" and original is not None:
        was_up = done.before is not None and done.before["state"] == "running"
        autoboot = original if was_up is up else None  # stopped and started on the way, as nobody asked
    if autoboot is not None and state["autoboot"] is not autoboot:
        payload = update_payload(state, Want(uuid=want.uuid, properties={"autoboot": autoboot}))
        last = steps[-1] if steps else None
        if last and last.verb == "update" and last.payload is not None and done.before is not None:
            earlier = steps[-2].after if len(steps) > 1 else done.before
            steps[-1] = _update(t.cast(State, earlier), {**last.payload, **payload})
        else:
            steps.append(_update(state, payload))
        state = t.cast(State, steps[-1].after)
    if want.signal:
        if state["state"] != "running":
            raise PlanError(f"{want.who}: signal: {want.signal} cannot be sent to a VM that does not run")
        steps.append(Step("kill", None, (), state, want.signal))
    return Plan(done.before, state, tuple(steps), done.reboot_needed)


def _power(state: State, up: bool, want: Want) -> Step:
    """Start or stop. vmadm keeps it in autoboot; the no-op of a stopped VM would do so too."""
    after = {**state, "state": "running" if up else "stopped", "autoboot": up}
    return Step("start" if up else "stop", None, ("state",), after, "force" if want.force and not up else "")


def _snapshot(state: State, want: Want) -> Step | None:
    asked = t.cast(t.Mapping[str, str], want.snapshot)
    name, wanted, have = asked["name"], asked.get("state") or "present", state["snapshots"]
    if wanted == "absent":
        if name not in have:
            return None
        after = {**state, "snapshots": [one for one in have if one != name]}
        return Step("delete-snapshot", None, ("snapshots",), after, name)
    if state["brand"] == "kvm":
        raise PlanError(f"{want.who}: snapshot: vmadm does not support snapshots of brand kvm; take one with zfs")
    if state["datasets"] and (wanted == "rolled_back" or name not in have):
        raise PlanError(
            f"{want.who}: snapshot: vmadm does not snapshot a VM with a delegated dataset ({state['datasets'][0]}); take one with zfs"
        )
    if wanted == "present":
        if name in have:
            return None
        return Step("create-snapshot", None, ("snapshots",), {**state, "snapshots": [name, *have]}, name)
    if name not in have:
        raise PlanError(
            f"{want.who}: snapshot: there is no {name!r} to roll back to; there are: {', '.join(have) or 'none'}"
        )
    after = {**state, "snapshots": have[have.index(name) :], "state": "running", "autoboot": True}
    return Step("rollback-snapshot", None, ("snapshots", "state"), after, name)


def _image_change(have: State, want: Want) -> str | None:
    """The image that reprovision is to bring, or None; refuse where it cannot."""
    wanted, current = want.properties.get("image_uuid"), have["image_uuid"]
    if have["brand"] == "bhyve":
        disks = want.properties.get("disks") or []
        pairs = match("disks", disks, have["disks"])
        if pairs and pairs[0][1] is not None and pairs[0][1] is have["disks"][0]:
            wanted, current = disks[0].get("image_uuid"), have["disks"][0]["image_uuid"]
    if wanted is None or current is None or wanted == current or not want.reprovision:
        return None
    if have["brand"] == "kvm":
        raise PlanError(f"{want.who}: reprovision: vmadm does not support it for brand kvm; the VM must be made anew")
    if want.properties.get("indestructible_zoneroot", have["indestructible_zoneroot"]):
        raise PlanError(
            f"{want.who}: reprovision: indestructible_zoneroot is set: give indestructible_zoneroot: false first"
        )
    other = [name for name in have["datasets"] if name != f"{have['zpool']}/{have['zonename']}/data"]
    if len(have["datasets"]) > 1 or other:
        raise PlanError(
            f"{want.who}: reprovision: vmadm keeps only one delegated dataset, named data, and the VM has {', '.join(have['datasets'])}"
        )
    return t.cast(str, wanted)


def _reprovisioned(state: State, image: str) -> State:
    after = copy.deepcopy(state)
    after.update(state="running", autoboot=True, snapshots=[])
    if state["brand"] == "bhyve":
        disk = after["disks"][0]
        disk["image_uuid"] = image
        for name in ("image_size", "size", "refreservation", "block_size"):
            disk.pop(name, None)  # as the new image has it
    else:
        after["image_uuid"] = image
    return after


def _check_fixed(have: State, want: Want) -> None:
    """Name every property that only a new VM can have."""
    fixed = []
    for name, value in want.properties.items():
        one = PROPERTIES[name]
        if one.update or not one.shown or value is None or same(one, have[name], value):
            continue
        if name == "image_uuid" and (want.reprovision or have["image_uuid"] is None):
            continue  # vmadm does not tell the image of every VM with disks
        hint = " (reprovision: true changes it in place)" if name == "image_uuid" and have["brand"] != "kvm" else ""
        fixed.append(f"{name} is {have[name]!r}, not {value!r}{hint}")
    if fixed:
        raise PlanError(f"{want.who}: needs a new VM: {'; '.join(fixed)}: set state: absent first if its data may go")


def _needs_stop(payload: Payload) -> list[str]:
    """The items that vmadm changes only while a VM is stopped."""
    found = []
    for name in ("disks", "pci_devices"):
        change = payload.get(f"update_{name}") or []
        live = name == "disks" and all(set(item) <= LIVE_DISK for item in change)
        if payload.get(f"add_{name}") or payload.get(f"remove_{name}") or (change and not live):
            found.append(name)
    return found


def _unseen(before: State, after: State) -> list[str]:
    """What a running VM does not see of a change before its next boot."""
    found = []
    for name, one in PROPERTIES.items():
        if name not in after or not unlike(after, before, [name]):
            continue
        if name in ITEMS:
            if _unseen_items(name, before[name], after[name]):
                found.append(name)
        elif _applies(name, one, before, after) == "boot":
            found.append(name)
    return sorted(found)


def _applies(name: str, one: Property, before: State, after: State) -> str:
    """When a change of a property reaches a running VM; for some it depends on the brand."""
    brand = before["brand"]
    if brand in HVM and (name.startswith("max_") or name in ("cpu_cap", "cpu_shares", "zfs_io_priority")):
        return "boot"  # resource controls are changed live for zones only
    if name == "tmpfs":
        return "live" if brand in MDATA_FETCH and before["tmpfs"] else "boot"
    if brand in MDATA_FETCH:
        if name == "routes":
            return "live"
        if name in ("resolvers", "dns_domain"):
            return "live" if after["maintain_resolvers"] and name == "resolvers" else "stored"
        if name == "hostname":
            return "stored"  # it only names the node at its first boot
    return one.applies


def _unseen_items(kind: str, before: list[State], after: list[State]) -> bool:
    known = ITEMS[kind].properties
    pairs = match(kind, after, before)
    if len(before) != len(after) or any(other is None for item, other in pairs):
        return True
    return any(
        known[name].applies == "boot" and not same(known[name], item[name], t.cast(State, other).get(name))
        for item, other in pairs
        for name in item
    )
