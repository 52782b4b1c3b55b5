# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls of vmadm(8) that bring a VM to its description, or a refusal before the first of them.

Pure: nothing here runs a command; :mod:`.vmadm` does. What is asked is in
:mod:`.vmadm_want`, what differs in :mod:`.vmadm_changes`, what vmadm makes of a payload in :mod:`.vmadm_predict`, and what it
refuses in :mod:`.vmadm_checks`.
"""

from __future__ import annotations

import copy
import re
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_changes import (
    MEMORY,
    arranged,
    early_removals,
    match,
    new_item,
    unlike,
    update_payload,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import PlanError, check_payload
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_predict import created, updated
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    BRANDS,
    HVM,
    ITEMS,
    KEYED,
    MDATA_FETCH,
    PROPERTIES,
    ZONES,
    Payload,
    Property,
    State,
    normal,
    same,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_want import Want, bare

TRANSIENT = ("provisioning", "stopping", "shutting_down", "receiving")  # states that a VM leaves by itself
BROKEN = ("failed", "configured", "incomplete")  # what a create that did not end well leaves
# What ``vmadm update`` can do to a disk of a running VM.
LIVE_DISK = {"path", "compression", "refreservation"}


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
            raise PlanError(f"{want.who}: alias {want.alias!r} belongs to VM {others[0]}: choose another")
        return next((vm for vm in vms if vm["uuid"] == want.uuid), None)
    if len(named) > 1:
        raise PlanError(f"alias {want.alias!r} belongs to {len(named)} VMs: set uuid to one of: {', '.join(others)}")
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
            "brand is needed to create the VM: give it"
            if brand is None
            else f"brand {brand!r} is unknown: use one of {', '.join(BRANDS)}"
        )
        raise PlanError(f"{want.who}: {what}")
    _check_brand(brand, want)
    _check_conflicts(have["nics"] if have else [], want, others)
    todo = _plan(have, want)
    before: State | None = None if have is None or have["state"] in BROKEN else have
    for step in todo.steps:
        if step.verb in ("create", "update") and step.payload is not None:
            check_payload(want.who, before, step.payload, t.cast(State, step.after))
        before = step.after or before
    return todo


def _plan(have: State | None, want: Want) -> Plan:
    if have is None or have["state"] in BROKEN:
        if have is not None and not want.replace_failed:
            raise PlanError(
                f"{want.who}: its state is {have['state']!r}, so its creation failed: see /var/log/vm/logs and the logs in its zone; "
                f"set replace_failed: true to delete it with all its data and create it again"
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
                f"{want.who}: {where}: a VM of brand {brand} has no such property; these have it: {', '.join(one.brands)}"
            )
    ram, physical = want.properties.get("ram"), want.properties.get("max_physical_memory")
    if brand in ZONES and None not in (ram, physical) and ram != physical:
        raise PlanError(
            f"{want.who}: ram is {ram} and max_physical_memory is {physical}: for brand {brand} both are the same limit: give one of them"
        )


def _check_conflicts(have: list[State], want: Want, others: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    """Refuse an address or a MAC that another VM of the host has. vmadm compares text only: 10.0.0.1/24 is not 10.0.0.1/25 to it."""
    wanted = [{**(other or {}), **item} for item, other in match("nics", want.properties.get("nics") or [], have)]
    for vm in others:
        if vm.get("state") == "failed":
            continue
        for nic in normal(vm)["nics"]:
            theirs = {bare(one) for one in nic["ips"] if "/" in one}
            for index, mine in enumerate(wanted):
                where = f"{want.who}: nics[{index}]"
                if mine.get("mac") and mine["mac"] == nic["mac"] and mine.get("vrrp_vrid") is None:
                    raise PlanError(f"{where}.mac: {mine['mac']} belongs to VM {vm['uuid']}: choose another")
                if (mine.get("nic_tag"), mine.get("vlan_id") or 0) != (nic["nic_tag"], nic["vlan_id"]):
                    continue
                both = theirs & {bare(one) for one in mine.get("ips") or () if "/" in one}
                if both:
                    raise PlanError(
                        f"{where}.ips: {sorted(both)[0]} belongs to VM {vm['uuid']} on {nic['nic_tag']}: choose another"
                    )


def _plan_absent(have: State | None, want: Want) -> Plan:
    if have is None:
        return Plan(None, None)
    steps: list[Step] = []
    for name in ("indestructible_zoneroot", "indestructible_delegated"):
        if have[name] and want.properties.get(name) is not False:
            raise PlanError(
                f"{want.who}: {name} protects it from deletion: set {name}: false in the same task to delete it"
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
            items = payload[name]
            if name == "nics":
                items = arranged(want.who, payload["brand"], items, ())
            payload[name] = [new_item(item) for item in items]
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
        raise PlanError(f"{want.who}: {', '.join(missing)} is needed to create a VM of brand {brand}")
    for index, nic in enumerate(payload.get("nics") or ()):
        if not nic.get("nic_tag"):
            raise PlanError(f"{want.who}: nics[{index}].nic_tag is needed: use a tag that `nictagadm list` shows")
        if brand in HVM and not nic.get("model") and not payload.get("nic_driver"):
            raise PlanError(
                f"{want.who}: nics[{index}].model is needed for brand {brand}: give it, or nic_driver for all NICs"
            )
    for index, disk in enumerate(payload.get("disks") or ()):
        if not disk.get("model") and not payload.get("disk_driver"):
            raise PlanError(
                f"{want.who}: disks[{index}].model is needed for brand {brand}: give it, or disk_driver for all disks"
            )
    _check_delegated(bool(payload.get("delegate_dataset")), want)


def _check_delegated(delegated: bool, want: Want) -> None:
    for name in ("zfs_data_compression", "zfs_data_recsize", "indestructible_delegated"):
        one = PROPERTIES[name]
        if not delegated and name in want.properties and not same(one, want.properties[name], None):
            raise PlanError(
                f"{want.who}: {name}: the VM has no delegated dataset, which only delegate_dataset at its creation gives: leave {name} out"
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
        raise PlanError(
            f"{want.who}: its state is {have['state']!r}, in which vmadm can neither start nor stop it: wait until it is running or stopped"
        )

    # Power steps change autoboot, so it is compared when they are done.
    first = early_removals(have, want)
    rest = have
    for part in first:
        rest = updated(rest, part)
    payload = update_payload(rest, _without(want, "autoboot"))
    last = update_payload(updated(rest, payload), _without(want, "autoboot", *ITEMS)) if payload else {}
    disruptive = _needs_stop(payload)
    allowed = want.allow_reboot or want.state == "rebooted"
    steps: list[Step] = []
    state = have
    if up and not target:
        steps.append(_power(state, False, want))
    elif up and disruptive:
        if not allowed:
            raise PlanError(
                f"{want.who}: {', '.join(disruptive)}: vmadm can change it only while the VM is stopped: "
                f"set allow_reboot: true to let this module stop and start the VM"
            )
        steps.append(_power(state, False, want))
    state = steps[-1].after or state if steps else state
    start = state
    for part in (*first, payload, last):
        if part:
            steps.append(_update(state, part))
            state = t.cast(State, steps[-1].after)
    running_changes = _unseen(start, state) if start["state"] == "running" else []
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
            raise PlanError(f"{want.who}: signal: cannot send {want.signal}: the VM is not running: start it first")
        steps.append(Step("kill", None, (), state, want.signal))
    return Plan(done.before, state, tuple(steps), done.reboot_needed)


def _power(state: State, up: bool, want: Want) -> Step:
    """Start or stop. vmadm keeps it in autoboot, but for a start of a Docker container without a restart policy."""
    keeps = up and state["docker"] and not state["internal_metadata"].get("docker:restartpolicy")
    after = {
        **state,
        "state": "running" if up else "stopped",
        "autoboot": state["autoboot"] if keeps else up,
    }
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
        raise PlanError(f"{want.who}: snapshot: vmadm supports no snapshots of brand kvm: use zfs")
    if state["datasets"] and (wanted == "rolled_back" or name not in have):
        raise PlanError(
            f"{want.who}: snapshot: vmadm supports no snapshots of a VM with a delegated dataset ({state['datasets'][0]}): use zfs"
        )
    if wanted == "present":
        if name in have:
            return None
        return Step("create-snapshot", None, ("snapshots",), {**state, "snapshots": [name, *have]}, name)
    if name not in have:
        raise PlanError(f"{want.who}: snapshot: there is no snapshot {name!r}; the VM has: {', '.join(have) or 'none'}")
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
        raise PlanError(
            f"{want.who}: reprovision: vmadm does not support it for brand kvm: delete the VM and create it again"
        )
    if want.properties.get("indestructible_zoneroot", have["indestructible_zoneroot"]):
        raise PlanError(
            f"{want.who}: reprovision: indestructible_zoneroot is set: set indestructible_zoneroot: false first"
        )
    other = [name for name in have["datasets"] if name != f"{have['zpool']}/{have['zonename']}/data"]
    if len(have["datasets"]) > 1 or other:
        raise PlanError(
            f"{want.who}: reprovision: vmadm keeps one delegated dataset, named data, but the VM has {', '.join(have['datasets'])}"
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
        raise PlanError(
            f"{want.who}: vmadm cannot change it: {'; '.join(fixed)}: to create the VM again without its data, set state: absent first"
        )


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
