# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to change of a VM: the smallest payload that brings it to its description, and how two states differ. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import PlanError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_predict import free_interfaces, updated
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    DOCKER_ID,
    ITEMS,
    KEYED,
    MOST_SHARES,
    OVERHEAD,
    OWNED_WHOLE,
    PROPERTIES,
    UNSETTABLE,
    ZONES,
    Payload,
    Property,
    State,
    same,
    strict,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_want import Want

MEMORY = ("max_physical_memory", "max_locked_memory", "max_swap", "tmpfs")
HIDDEN, HIDDEN_NEW = "(hidden)", "(hidden, another value)"


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
        if value in (None, [], {}) or name in ("delegate_dataset", "nic_order") or (one and same(one, value, None)):
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
        if after["max_locked_memory"] is not None and after["max_locked_memory"] < 0:
            # It keeps its distance to a limit that shrinks, so far that vmadm refuses what comes of it.
            payload["max_locked_memory"] = min(have["max_locked_memory"], after["max_physical_memory"])
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
        f"{want.who}: no call of vmadm sets {', '.join(sorted(left))} to the wanted value: this is an error in the module, please report it"
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
        if have["max_physical_memory"] < goal["tmpfs"]:
            del goal["tmpfs"]  # vmadm holds it within the limit that was; it takes an update of its own
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
    new = [item for item, other in pairs if other is None]
    if name == "nics":
        new = arranged(want.who, have["brand"], new, have["nics"])
    add = [new_item(item) for item in new]
    update: list[State] = []
    for index, (item, other) in enumerate(pairs):
        if other is None:
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
                f"{want.who}: {name}[{index}] ({items.key} {other[items.key]}): {what}: vmadm cannot change it: "
                f"remove the entry in one run and add it in the next"
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
            f"{want.who}: disks: {', '.join(remove)} is not in the list, and removing a disk destroys its data: "
            f"add it to the list, or set remove_disks: true"
        )
    found = {"add": add, "update": update, "remove": remove}
    return {f"{verb}_{name}": value for verb, value in found.items() if value}


def new_item(item: State) -> State:
    """An item as it is added.

    vmadm takes no ``primary: false``, and no MAC of a nic that has it from its ``vrrp_vrid``; the name of its interface is what
    :func:`arranged` brings about, as vmadm does not look at one.
    """
    drop = {"interface", *(["mac"] if "vrrp_vrid" in item else [])}
    return {
        key: value
        for key, value in item.items()
        if value is not None and key not in drop and (key != "primary" or value)
    }


def arranged(who: str, brand: str, new: t.Sequence[State], taken: t.Sequence[State]) -> list[State]:
    """New nics in the order in which vmadm's numbering gives each the interface that it asks for, or a refusal."""
    asking = {nic["interface"]: nic for nic in new if nic.get("interface") is not None}
    others = [nic for nic in new if nic.get("interface") is None]
    if len(asking) + len(others) < len(new):
        raise PlanError(f"{who}: nics: an interface is given twice")
    placed = []
    for name, _nic in zip(free_interfaces(brand, taken), new):  # noqa: B905 (the names have no end)
        if name in asking:
            placed.append(asking.pop(name))
        elif others:
            placed.append(others.pop(0))
        else:
            raise PlanError(
                f"{who}: nics: interface {sorted(asking)[0]!r} is not valid: vmadm takes the first free name, {name!r}: "
                "give that name, or leave it out"
            )
    return placed


def early_removals(have: State, want: Want) -> list[Payload]:
    """What must be removed in updates of its own, in their order, so that the rest can be one update.

    In one update vmadm holds the names and addresses of nics that it removes to be taken, and the ``vrrp_primary_ip`` of one
    that it removes to be needed.
    """
    if "nics" not in want.properties:
        return []
    pairs = match("nics", want.properties["nics"], have["nics"])
    kept = [id(other) for item, other in pairs]
    gone = [nic for nic in have["nics"] if id(nic) not in kept]
    virtual = [nic for nic in gone if nic.get("vrrp_vrid") is not None]
    names = {nic.get("interface") for nic in gone}
    addresses = {address for nic in gone for address in nic["ips"] if "/" in address}
    stays = {id(other): set(other["ips"]) for item, other in pairs if other is not None}
    clash = any(other is None and item.get("interface") in names for item, other in pairs) or any(
        addresses & (set(item.get("ips") or ()) - stays.get(id(other), set())) for item, other in pairs
    )
    moved = any(
        item.get("ips") is not None and item["ips"] != other["ips"] for item, other in pairs if other is not None
    )
    found: list[Payload] = []
    if virtual and (moved or len(virtual) < len(gone)):
        found.append({"remove_nics": [nic["mac"] for nic in virtual]})
        gone = [nic for nic in gone if nic not in virtual]
    if gone and clash:
        found.append({"remove_nics": [nic["mac"] for nic in gone]})
    stay = [other for item, other in pairs if other is not None] or gone
    there = have["nics"]
    for payload in found:
        left = [nic for nic in stay if nic["mac"] not in payload["remove_nics"]]
        if left and any(nic["primary"] for nic in there if nic["mac"] in payload["remove_nics"]):
            payload["update_nics"] = [{"mac": left[0]["mac"], "primary": True}]
    return found


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
        add[add.index(new_item(first))]["primary"] = True
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
                f"{where}: size is {other['size']} MiB, and a size of {change['size']} would destroy data: "
                f"set dangerous_allow_shrink: true on this disk to shrink it"
            )
    return change
