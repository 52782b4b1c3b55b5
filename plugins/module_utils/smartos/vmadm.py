# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run vmadm(8), and bring one VM to its description.

Payloads travel over stdin, so no secret is in ``argv`` or on disk (vmadm itself logs payloads below ``/var/log/vm/logs``).
The UUID comes before options, because an option that vmadm does not know swallows the next word. Exit codes decide, texts
never: a command that had nothing to do says so with exit code 0. Data is on stdout, except that of ``vmadm validate``.
"""

from __future__ import annotations

import json
import time
import typing as t
import uuid as uuid_lib
from dataclasses import replace

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import (
    CommandError,
    Result,
    run,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_changes import HIDDEN, unlike, view
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import check_tags, new_nics
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_plan import (
    TRANSIENT,
    Plan,
    Step,
    find,
    plan,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    PROPERTIES,
    Payload,
    State,
    normal,
    same,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_want import Want

READ_TIMEOUT = 60  # seconds; vmadm itself waits that long for vminfod
POLL = 1.0  # seconds between two looks at a VM that is in transition
Vm = t.Mapping[str, t.Any]


class InvalidPayload(CommandError):
    """``vmadm validate`` refuses a payload; ``properties`` are its three lists by name."""

    def __init__(self, argv: t.Sequence[str], rc: int, err: str) -> None:
        super().__init__(argv, rc, err)
        try:
            found = json.loads(self.err)
        except ValueError:
            found = {}
        self.properties: dict[str, list[str]] = found if isinstance(found, dict) else {}


class VmError(Exception):
    """A VM is not what a command that ended well should have made of it; the message says what differs."""


class Vmadm:
    """The command vmadm. ``timeout`` is in seconds, for each command that changes something."""

    def __init__(self, timeout: float = 600, program: str = "vmadm") -> None:
        self.timeout = timeout
        self.program = program

    def _run(self, *words: str, payload: Payload | None = None, timeout: float | None = None) -> Result:
        stdin = None if payload is None else json.dumps(payload)
        return run([self.program, *words], stdin=stdin, timeout=timeout or self.timeout)

    def lookup(self, uuid: str | None = None) -> list[dict[str, t.Any]]:
        """All VMs of this host as ``vmadm get`` shows them, or the one of a UUID, in one call."""
        words = ["lookup", "-j"] + ([f"uuid={uuid}"] if uuid else [])
        done = self._run(*words, timeout=READ_TIMEOUT)
        try:
            found = json.loads(done.out or "[]")
        except ValueError as bad:
            raise CommandError([self.program, *words], done.rc, f"its stdout is not JSON: {bad}") from None
        return t.cast("list[dict[str, t.Any]]", found)

    def get(self, uuid: str) -> dict[str, t.Any] | None:
        """One VM, or None. Not ``vmadm get``, which tells a missing VM from other failures only by its text."""
        found = self.lookup(uuid)
        return found[0] if found else None

    def nic_tags(self) -> dict[str, str]:
        """The node's NIC tags with their types; lines of it are name, MAC, link and type."""
        listed = run(["nictagadm", "list", "-p", "-d", ","], timeout=READ_TIMEOUT).out
        rows = [line.split(",") for line in listed.splitlines() if line]
        return {row[0]: row[3] if len(row) > 3 else "" for row in rows}

    def validate(self, action: str, brand: str, payload: Payload) -> None:
        """Have vmadm check a payload; raise :class:`InvalidPayload` with the names of what it would refuse or drop."""
        try:
            self._run("validate", action, brand, payload=payload, timeout=READ_TIMEOUT)
        except CommandError as bad:
            raise InvalidPayload(bad.argv, bad.rc, bad.err) from None

    def settled(self, vm: dict[str, t.Any]) -> dict[str, t.Any]:
        """Wait until a VM has left a state that it leaves by itself, such as ``provisioning``."""
        until = time.monotonic() + self.timeout
        now: dict[str, t.Any] | None = vm
        while now is not None and now.get("state") in TRANSIENT:
            if time.monotonic() > until:
                raise VmError(
                    f"VM {vm['uuid']}: its state is still {now['state']!r} after {self.timeout:g} s: "
                    f"see /var/log/vm/logs, or set a longer timeout"
                )
            time.sleep(POLL)
            now = self.get(vm["uuid"])
        if now is None:
            raise VmError(f"VM {vm['uuid']} disappeared while its state was {vm['state']!r}: look for what deleted it")
        return now

    def do(self, uuid: str, step: Step) -> None:
        """Run one step of a plan."""
        if step.verb == "create":
            self._run("create", payload=step.payload)
        elif step.verb in ("update", "reprovision"):
            self._run(step.verb, uuid, payload=step.payload)
        elif step.verb == "kill":
            self._run("kill", uuid, "-s", step.argument)
        elif step.verb.endswith("-snapshot"):
            self._run(step.verb, uuid, step.argument)
        else:
            self._run(step.verb, uuid, *(["-F"] if step.argument == "force" else []))


def redact(vm: Vm) -> dict[str, t.Any]:
    """A VM as ``vmadm get`` shows it, without the values of its metadata and passwords."""
    shown = dict(vm)
    for name, one in PROPERTIES.items():
        value = shown.get(name)
        if one.secret and value is not None:
            shown[name] = dict.fromkeys(value, HIDDEN) if isinstance(value, dict) else HIDDEN
    return shown


def read(client: Vmadm, want: Want, vms: t.Sequence[Vm], check_mode: bool = False) -> dict[str, t.Any] | None:
    """The VM that is meant, settled."""
    found = find(vms, want)
    if found is None or found.get("state") not in TRANSIENT or want.state == "absent":
        return None if found is None else dict(found)
    if check_mode:  # nothing waits; the VM is taken for what it is on its way to
        return {**found, "state": "stopped" if found["state"] in ("stopping", "shutting_down") else "running"}
    return client.settled(dict(found))


def converge(
    client: Vmadm, want: Want, *, check_mode: bool = False, vms: t.Sequence[Vm] | None = None
) -> dict[str, t.Any]:
    """Bring one VM to its description and return the module's result; with ``check_mode`` only say what would be done.

    :param vms: all VMs of the host, where they were read already; a VM that is as described then needs no call at all.
    :raise PlanError: the description is refused, before anything was changed.
    :raise CommandError: a command failed; :class:`InvalidPayload` when it is vmadm's own check of the payload.
    :raise VmError: a command ended well, but the VM is not what it should be.
    """
    vms = client.lookup() if vms is None else vms
    vm = read(client, want, vms, check_mode)
    if vm is not None:
        want = replace(want, uuid=vm["uuid"])
    elif want.uuid is None and want.state != "absent" and not check_mode:
        want = replace(want, uuid=str(uuid_lib.uuid4()))  # so that the VM can be found whatever becomes of create
    todo = plan(vm, want, [other for other in vms if other["uuid"] != want.uuid])
    _check(client, todo, want)
    after = vm
    warnings: list[str] = []
    if not check_mode:
        after, warnings = _run_all(client, todo, want, vm)
    shown = after if todo.steps and not check_mode else None
    return _result(todo, want, vm, shown, warnings, check_mode)


def _check(client: Vmadm, todo: Plan, want: Want) -> None:
    """Have the host refuse what it would refuse, before anything is stopped or changed."""
    changes = [step for step in todo.steps if step.payload is not None and new_nics(step.payload)]
    boots = [
        step
        for step in todo.steps
        if step.verb in ("start", "reboot", "reprovision", "rollback-snapshot") and t.cast(State, step.after)["nics"]
    ]
    # The tags of all nics are looked at again when a VM boots, which must not be found out when it is down.
    if changes or boots:
        tags = client.nic_tags()
        for step in (*changes, *boots):
            check_tags(want.who, t.cast(State, step.after)["nics"], tags)
    for step in todo.steps:
        if step.verb in ("create", "update") and step.payload is not None:
            client.validate(step.verb, t.cast(State, step.after)["brand"], step.payload)


def _run_all(
    client: Vmadm, todo: Plan, want: Want, vm: dict[str, t.Any] | None
) -> tuple[dict[str, t.Any] | None, list[str]]:
    """Run all steps of a plan. Where one fails, a VM that was stopped on the way runs again, or the message says otherwise."""
    after = vm
    warnings: list[str] = []
    stopped = False
    for place, step in enumerate(todo.steps):
        try:
            after, warning = _run(client, t.cast(str, want.uuid), step, want)
        except (CommandError, VmError) as bad:
            if stopped and any(later.verb == "start" for later in todo.steps[place:]):
                _start_again(client, t.cast(str, want.uuid), todo, bad)
            raise
        stopped = (stopped or step.verb == "stop") and step.verb != "start"
        warnings += warning
    return after, warnings


def _start_again(client: Vmadm, uuid: str, todo: Plan, failure: CommandError | VmError) -> None:
    """Undo a stop that served a change which failed; the failure tells how that ended."""
    try:
        now = client.get(uuid)
        if now is not None and now.get("state") == "stopped":
            client.do(uuid, Step("start"))
        autoboot = todo.before is None or todo.before["autoboot"]
        if not autoboot:
            client.do(uuid, Step("update", {"autoboot": False}))
        said = "the VM, which was stopped for it, runs again"
    except CommandError as bad:
        said = f"this module stopped the VM for this change and could not start it again: {bad}"
    failure.args = (f"{failure}; {said}", *failure.args[1:])


def _run(client: Vmadm, uuid: str, step: Step, want: Want) -> tuple[dict[str, t.Any] | None, list[str]]:
    """Run one step, read the VM again, and compare. A command can fail after it has done its work."""
    failure: CommandError | None = None
    try:
        client.do(uuid, step)
    except CommandError as bad:
        failure = bad
    vm = client.get(uuid)
    if failure is None and vm is not None and vm.get("state") in TRANSIENT and not want.properties.get("nowait"):
        vm = client.settled(vm)
    wrong = _wrong(step, vm, want)
    if failure is not None and (wrong or step.verb in ("kill", "reboot", "rollback-snapshot")):
        raise failure  # of these three, the state of the VM does not tell whether they were done
    if wrong:
        raise VmError(f"VM {uuid}: `vmadm {step.verb}` succeeded, but {wrong}")
    if failure is not None:
        return vm, [f"{failure}; but the VM is as wanted"]
    return vm, []


def _wrong(step: Step, vm: dict[str, t.Any] | None, want: Want) -> str:
    """How a VM differs from what a step must bring about; empty when it does not."""
    if step.after is None:
        return "" if vm is None else f"the VM is still there, {vm.get('state')!r}"
    if vm is None:
        return "there is no such VM"
    state = normal(vm)
    expected = step.after
    if step.verb == "create" and state["state"] != expected["state"] and not want.properties.get("nowait"):
        return f"its state is {state['state']!r}, not {expected['state']!r}"
    found = []
    for name in unlike(expected, state, [name for name in step.names if name in expected]):
        one = PROPERTIES.get(name)
        if one and name in (step.payload or {}) and same(one, state.get(name), t.cast(Payload, step.payload)[name]):
            continue  # it is as asked, where a version of vmadm that drops it was foreseen
        values = "" if one and one.secret else f" is {state.get(name)!r}, not {expected.get(name)!r}"
        found.append(f"{name}{values or ' differs'}")
    return "; ".join(found)


def _result(
    todo: Plan, want: Want, vm: Vm | None, after: Vm | None, warnings: list[str], check_mode: bool
) -> dict[str, t.Any]:
    state = normal(after) if after is not None else (None if todo.after is None else todo.after)
    final: Vm | None = after
    if not todo.steps:
        final = vm
    elif check_mode:
        final = (
            None
            if state is None
            else {name: value for name, value in state.items() if value not in (None, [], {}) and name != "nic_order"}
        )
    return {
        "changed": bool(todo.steps),
        "uuid": want.uuid,
        "actions": [str(step) for step in todo.steps],
        "reboot_needed": list(todo.reboot_needed),
        "rebooted": todo.rebooted,
        "vm": None if final is None else redact(final),
        "diff": {"before": view(todo.before), "after": view(state, todo.before)},
        "warnings": warnings,
    }
