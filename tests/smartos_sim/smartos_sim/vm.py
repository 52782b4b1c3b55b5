# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vmadm does to VMs, without its command line: each function is one subcommand and returns the line it prints.

The description is written before the machine is touched. A command that is killed, or fails, leaves what it had done, as
the real one does (facts 1.10); :class:`~.files.ToolError` carries the reason for stderr.
"""

from __future__ import annotations

import re
import time
import typing as t

from . import description
from . import nics as vnics
from . import payload as payloads
from .faults import step
from .files import ToolError, timestamp
from .javascript import dumps
from .platform import HVM_BRANDS, VM, Platform, PlatformError
from .validate import ROOT_IMAGE, ROOT_IMAGES, UUID

if t.TYPE_CHECKING:
    from .state import Record, State

STOP_TIMEOUT = 60.0  # seconds until a guest that was asked to shut down is halted (facts 1.2)
STOP_TIMEOUT_HVM = 180.0
STOP_TIMEOUT_DOCKER = 10.0
POLL = 0.1  # seconds between two looks at the provisioning marker
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9\-_.:%]{1,64}")


class NothingToDo(Exception):
    """The VM is already as asked: the message goes to stderr and the command exits 0."""


def _http(state: State, uuid: str) -> Record:
    """A VM as asked of vminfod, whose answer for a missing one shows through (facts 1.1)."""
    record = state.record(uuid)
    if record is None:
        raise ToolError("bad statusCode: 404")
    return record


def _settle() -> None:
    """Wait until all readers see the change (facts 1, rule 8); in a simulation only a place for faults."""
    with step("vminfod"):
        pass


def _transition(start: str, to: str, seconds: float) -> dict[str, t.Any]:
    return {"from": start, "to": to, "expire": time.time() + seconds}


# -- create ------------------------------------------------------------------------------------------------------------


def create(state: State, given: dict[str, t.Any]) -> str:
    """Make a VM and, unless ``autoboot`` is false, start it and wait until it is provisioned.

    A failure on the way leaves a VM that is provisioning, and fails when its time is over; only a guest that does not
    provision itself in time is called failed at once.
    """
    if "uuid" in given and state.record(str(given["uuid"])) is not None:
        raise ToolError(f"VM with UUID {given['uuid']} already exists")
    effective = payloads.for_create(state, given).payload
    vm = description.created(effective)
    uuid = vm["uuid"]
    timeout = _provision_timeout(state, vm)
    with state.lock_vm(uuid):
        with state.lock_config():
            if state.record(uuid) is not None:
                raise ToolError(f"VM with UUID {uuid} already exists")
            payloads.check_host(state, effective)
            record: Record = {
                "vm": vm,
                "zone": {"installed": False},
                "transition": _transition("provisioning", "running", timeout) if vm["autoboot"] else None,
                "failed": False,
            }
            state.write(record)
        state.platform(vm["brand"]).zone_create(vm, vm.get("image_uuid"))
        record["zone"]["installed"] = True
        state.write(record)
        if vm["autoboot"]:
            _boot(state, record)
            if not effective.get("nowait"):
                _wait_provisioned(state, record, timeout)
    _settle()
    return f"Successfully created VM {uuid}"


def _provision_timeout(state: State, vm: VM) -> float:
    """Seconds; large HVM guests get the node's time once for each 4 GiB of ram."""
    ram = vm.get("ram") if vm["hvm"] else None
    return float(state.node["provision_timeout"]) * max((ram or 0) // 4096, 1)


def _boot(state: State, record: Record) -> None:
    """Start the zone. Its number and time are written first: who reads a running zone finds them."""
    vm = record["vm"]
    vnics.check_tags(state, vm["nics"])
    record["zone"] = {"installed": True, "zoneid": state.next_zone_id(), "boot_timestamp": timestamp()}
    state.write(record)
    try:
        state.platform(vm["brand"]).zone_boot(vm)
    except PlatformError:
        del record["zone"]["boot_timestamp"]
        state.write(record)
        raise


def _wait_provisioned(state: State, record: Record, timeout: float) -> None:
    vm = record["vm"]
    platform = state.platform(vm["brand"])
    until = time.monotonic() + timeout
    while not platform.zone_provisioned(vm):
        if time.monotonic() >= until:
            record["failed"] = True
            record["transition"] = None
            vm["autoboot"] = False  # it is stopped as vmadm stop does
            state.write(record)
            _halt(platform, record, force=True)
            state.write(record)
            raise ToolError(f"timed out waiting for /var/svc/provisioning to move for {vm['uuid']}")
        time.sleep(POLL)
    record["transition"] = None
    state.write(record)


def _halt(platform: Platform, record: Record, *, force: bool, timeout: float | None = None) -> None:
    """Stop the zone and note its end; the caller writes the record."""
    vm = record["vm"]
    if timeout is None:
        timeout = STOP_TIMEOUT_DOCKER if vm.get("docker") else STOP_TIMEOUT_HVM if vm["hvm"] else STOP_TIMEOUT
    platform.zone_halt(vm, force, 0 if force else timeout)
    if record["zone"].get("boot_timestamp"):
        record["zone"].update(exit_status=0, exit_timestamp=timestamp())


# -- update and delete -------------------------------------------------------------------------------------------------


def update(state: State, uuid: str, given: dict[str, t.Any]) -> str:
    """Change a VM's description, and what of it takes effect at once."""
    state.existing(uuid)
    with state.lock_vm(uuid):
        record = state.existing(uuid)
        before = record["vm"]
        shown = state.view(record)
        effective = payloads.for_update(state, {**shown, **before}, given).payload
        unknown = _unknown_nics(before, effective)
        with state.lock_config():
            after = description.updated(before, effective)
            payloads.check_host(state, effective)
            if unknown:
                raise PlatformError(
                    f"Command failed: /usr/sbin/zonecfg -u {uuid}\n"
                    f"remove net: No such resource with that id (mac-addr={unknown[0]})"
                )
            record["vm"] = after
            state.write(record)
        if record["zone"]["installed"]:
            state.platform(after["brand"]).zone_configure(after, before)
    _settle()
    return f"Successfully updated VM {uuid}"


def _unknown_nics(vm: VM, effective: dict[str, t.Any]) -> list[str]:
    have = {nic["mac"] for nic in vm["nics"]}
    return [mac for mac in effective.get("remove_nics", ()) if str(mac).lower() not in have]


def delete(state: State, uuid: str) -> str:
    """Halt and remove a VM with everything that is its own."""
    state.existing(uuid)
    with state.lock_vm(uuid):
        record = state.existing(uuid)
        vm = record["vm"]
        for flag in ("indestructible_zoneroot", "indestructible_delegated"):
            if vm.get(flag):
                raise ToolError(f"{flag} is set, cannot delete")
        users = _volume_users(state, vm)
        if users:
            raise ToolError(f"Unable to delete VM {uuid} the following VMs are sharing its volumes: {dumps(users)}")
        vm["autoboot"] = False
        state.write(record)
        platform = state.platform(vm["brand"])
        _halt(platform, record, force=True)
        platform.zone_destroy(vm)
        state.remove(record)
    _settle()
    return f"Successfully deleted VM {uuid}"


def _volume_users(state: State, vm: VM) -> list[str]:
    volumes = f"{vm['zonepath']}/volumes/"
    return [
        other["vm"]["uuid"]
        for other in state.records()
        if other["vm"]["uuid"] != vm["uuid"]
        and any(str(one.get("source", "")).startswith(volumes) for one in other["vm"].get("filesystems", ()))
    ]


# -- power -------------------------------------------------------------------------------------------------------------


def start(state: State, uuid: str) -> str:
    """Start a stopped VM and have it start with the host."""
    _http(state, uuid)
    with state.lock_vm(uuid):
        record = _http(state, uuid)
        shown = state.view(record)
        if shown["state"] == "running":
            raise NothingToDo(f"VM {uuid} is already 'running'")
        ready = shown["state"] == "stopped" or (shown["state"] == "provisioning" and shown["zone_state"] == "installed")
        if not ready:
            raise ToolError(f'Cannot start vm from state "{shown["state"]}", must be "stopped".')
        _start(state, record)
    _settle()
    return f"Successfully started VM {uuid}"


def _start(state: State, record: Record) -> None:
    """Boot, and then set autoboot; a docker VM without a restart policy keeps its own."""
    vm = record["vm"]
    record["transition"] = None
    _boot(state, record)
    if not vm.get("docker") or vm["internal_metadata"].get("docker:restartpolicy"):
        vm["autoboot"] = True
    state.write(record)


def stop(state: State, uuid: str, *, force: bool, timeout: float | None) -> str:
    """Stop a VM and have it stay down with the host; what is already down still gets autoboot false (facts 1.1)."""
    (_http if force else type(state).existing)(state, uuid)
    with state.lock_vm(uuid):
        record = state.existing(uuid)
        vm = record["vm"]
        if vm["autoboot"]:
            vm["autoboot"] = False
            state.write(record)
        shown = state.view(record)
        if shown["zone_state"] != "running":
            raise NothingToDo(f"VM {uuid} is already not 'running' (currently: {shown['state']})")
        if timeout is not None and not vm["hvm"] and not vm.get("docker"):
            raise ToolError("Timeout option is only supported for bhyve, KVM and docker containers.")
        record["transition"] = _transition("stopping", "stopped", STOP_TIMEOUT_HVM)
        state.write(record)
        _halt(state.platform(vm["brand"]), record, force=force, timeout=timeout)
        record["transition"] = None
        state.write(record)
    _settle()
    return f"Successfully completed stop for VM {uuid}"


def reboot(state: State, uuid: str, *, force: bool) -> str:
    """Stop and start a running VM; autoboot stays."""
    _http(state, uuid)
    with state.lock_vm(uuid):
        record = _http(state, uuid)
        shown = state.view(record)
        if shown["state"] != "running":
            verb, end = ("reset", ".") if force else ("reboot", "")
            raise ToolError(f'Cannot {verb} vm from state "{shown["state"]}", must be "running"{end}')
        vnics.check_tags(state, shown["nics"])
        _halt(state.platform(shown["brand"]), record, force=force)
        _boot(state, record)
    _settle()
    return f"Successfully completed reboot for VM {uuid}"


def kill(state: State, uuid: str, signal: str) -> str:
    """Send a signal to the VM's init."""
    vm = state.view(_http(state, uuid))
    import signal as signals

    name = signal if signal.startswith("SIG") else f"SIG{signal}"
    if signal.isdigit():
        known = {str(one.value): one.name for one in signals.Signals}
        name = known.get(signal, "")
    if name not in signals.Signals.__members__:
        raise ToolError(f'Unknown signal "{signal}"')
    if not vm.get("pid"):
        raise ToolError(f"Cannot find running init PID for VM {uuid}")
    state.platform(vm["brand"]).zone_signal(vm, name)
    return f'Sent signal "{signal}" to init process for VM {uuid}'


# -- reprovision and snapshots -----------------------------------------------------------------------------------------


def reprovision(state: State, uuid: str, given: dict[str, t.Any]) -> str:
    """Replace the root of a VM by another image; it runs afterwards. Delegated datasets stay (facts 1.7)."""
    state.existing(uuid)
    with state.lock_vm(uuid):
        record = state.existing(uuid)
        vm = record["vm"]
        if vm["brand"] == "kvm":
            raise ToolError('brand "kvm" does not yet support reprovision')
        image_uuid = given.get("image_uuid")
        if not image_uuid:
            raise ToolError("payload is missing image_uuid")
        if vm.get("indestructible_zoneroot"):
            raise ToolError("indestructible_zoneroot is set, cannot reprovision")
        _check_datasets(vm)
        types = ("zvol",) if vm["hvm"] else ROOT_IMAGES.get(vm["brand"], ROOT_IMAGE)
        image = _image(state, str(image_uuid), vm["zpool"], types)
        platform = state.platform(vm["brand"])
        timeout = _provision_timeout(state, vm)
        record["transition"] = _transition("provisioning", "running", timeout)
        record["failed"] = False
        state.write(record)
        _halt(platform, record, force=True)
        try:
            platform.zone_reprovision(vm, image_uuid)
            if vm["hvm"]:
                vm["disks"][0].update(image_uuid=image_uuid, image_size=image["manifest"]["image_size"])
            else:
                vm["image_uuid"] = image_uuid
            _boot(state, record)
            vm["autoboot"] = True
            _wait_provisioned(state, record, timeout)
        except ToolError:
            record["transition"] = None
            state.write(record)
            raise
    _settle()
    return f"Successfully reprovisioned VM {uuid}"


def _image(state: State, uuid: str, pool: str, types: t.Sequence[str]) -> dict[str, t.Any]:
    """The installed image that is to be a VM's root, which must be of one of ``types``."""
    image = state.image(uuid, pool) if UUID.fullmatch(uuid) else None
    if image is None:
        reason = f'(ImageNotInstalled): image "{uuid}" was not found on zpool "{pool}"'
        if not UUID.fullmatch(uuid):
            reason = f'(InvalidUUID): invalid uuid: "{uuid}"'
        raise ToolError(f"Command failed: /usr/sbin/imgadm get -P {pool} {uuid}\nimgadm get: error {reason}")
    kind = image["manifest"].get("type", "undefined")
    if kind not in types:
        raise ToolError(f"image {uuid} is type {kind}, but must be one of: {dumps(list(types))}")
    return image


def console(state: State, uuid: str) -> t.NoReturn:
    """Refuse: what is on the other end of a console is not simulated."""
    vm = state.view(_http(state, uuid))
    if vm["state"] != "running":
        raise ToolError(f'cannot connect to console when state is "{vm["state"]}" must be "running".')
    raise ToolError("smartos-sim does not simulate vmadm console")


def _check_datasets(vm: VM) -> None:
    datasets = vm.get("datasets", [])
    if len(datasets) > 1:
        raise ToolError("cannot support reprovision with multiple delegated datasets")
    if datasets and datasets[0] != f"{vm['zfs_filesystem']}/data":
        raise ToolError(f'cannot support reprovision with non-standard "{datasets[0]}" dataset')


def create_snapshot(state: State, uuid: str, name: str) -> str:
    """Snapshot a VM's root."""
    state.existing(uuid)
    with state.lock_vm(uuid):
        vm = _snapshot_vm(state.existing(uuid), name)
        if vm.get("datasets"):
            raise ToolError("Cannot currently snapshot zones that have datasets")
        platform = state.platform(vm["brand"])
        if any(one["name"] == name for one in platform.snapshots(vm)):
            raise ToolError(f'snapshot with name "{name}" already exists.')
        platform.snapshot_create(vm, name)
    _settle()
    return f"Created snapshot {name} for VM {uuid}"


def delete_snapshot(state: State, uuid: str, name: str) -> str:
    """Remove a snapshot."""
    state.existing(uuid)
    with state.lock_vm(uuid):
        vm = _snapshot_vm(state.existing(uuid), name)
        _check_snapshot(state, vm, name)
        state.platform(vm["brand"]).snapshot_delete(vm, name)
    _settle()
    return f"Deleted snapshot {name} for VM {uuid}"


def rollback_snapshot(state: State, uuid: str, name: str) -> str:
    """Put a VM's root back to a snapshot, which removes newer ones; it runs afterwards, whether it ran before or not."""
    _http(state, uuid)
    with state.lock_vm(uuid):
        record = _http(state, uuid)
        vm = _snapshot_vm(record, name)
        _check_snapshot(state, vm, name)
        platform = state.platform(vm["brand"])
        _halt(platform, record, force=True)
        state.write(record)
        platform.snapshot_rollback(vm, name)
        _start(state, record)
    _settle()
    return f"Rolled back snapshot {name} for VM {uuid}"


def _snapshot_vm(record: Record, name: str) -> VM:
    vm = record["vm"]
    if vm["brand"] == "kvm":
        raise ToolError("snapshots for kvm VMs currently unsupported")
    if not SNAPSHOT_NAME.fullmatch(name):
        raise ToolError("Invalid snapshot name")
    return vm


def _check_snapshot(state: State, vm: VM, name: str) -> None:
    if all(one["name"] != name for one in state.platform(vm["brand"]).snapshots(vm)):
        raise ToolError(f'No snapshot named "{name}" for {vm["uuid"]}')


# -- asking a hypervisor -----------------------------------------------------------------------------------------------

INFO_TYPES = {"bhyve": ("all", "vnc"), "kvm": ("all", "block", "blockstats", "chardev", "cpus", "kvm", "pci", "spice",
                                              "status", "version", "vnc")}  # fmt: skip


def info(state: State, uuid: str, types: list[str]) -> dict[str, t.Any]:
    """What a running hypervisor tells about itself; here no more than its VNC address."""
    vm = state.view(_http(state, uuid))
    if vm["state"] not in ("running", "stopping"):
        raise ToolError(f'Unable to get info for vm from state "{vm["state"]}", must be "running" or "stopping".')
    known = INFO_TYPES.get(vm["brand"])
    if known is None:
        raise ToolError(f"no info types supported for brand {vm['brand']}")
    for one in types:
        if one not in known:
            raise ToolError(f"unknown info type {one}")
    port = vm.get("vnc_port") or 5900
    return {"vnc": {"host": "127.0.0.1", "port": port, "display": port - 5900}}


def sysrq(state: State, uuid: str, request: str) -> str:
    """Send an NMI to a hypervisor; screenshot, of kvm only, makes no picture here."""
    vm = state.view(_http(state, uuid))
    if vm["brand"] not in HVM_BRANDS:
        raise ToolError('The sysrq command is only supported for VMs  with brand "bhyve" or "kvm".')
    if vm["state"] not in ("running", "stopping"):
        raise ToolError(f'Unable to send request to vm from state "{vm["state"]}", must be "running" or "stopping".')
    if request == "screenshot" and vm["brand"] == "bhyve":
        raise ToolError('Invalid sysrq "screenshot" valid values: "nmi".')
    return f"Sent {'NMI' if request == 'nmi' else f'{request} sysrq'} to VM {uuid}"
