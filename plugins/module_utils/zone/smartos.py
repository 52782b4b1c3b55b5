# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zones as SmartOS zones of brand lx: the description of a zone as a payload of vmadm(8), and back.

On disk::

    zones/<uuid>                            the zone: vmadm's, a clone of its image
    zones/zonestack/<uuid>/<volume>         a volume: a dataset of its own, mounted in the zone as a lofs file system

Volumes are no delegated datasets: those go with the zone when vmadm deletes it, and keep vmadm from making snapshots. So a
zone can be deleted and made anew, which is also how it gets another image, while its data stays where it is.

The description as applied is kept in the zone's ``internal_metadata`` under :data:`RECORD`, where the guest does not see it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
import typing as t
import uuid as uuid_lib
from dataclasses import replace
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import run
from ansible_collections.zonestack.openstack.plugins.module_utils.files import read_text
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.imgadm import POOL, ImageError, Imgadm
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm import VmError, Vmadm
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_changes import update_payload
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import PlanError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_plan import BROKEN, Step
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_want import Want
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import normal
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.backend import Current, fails_as_zone_error
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError, ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.files import (
    destroy_dataset,
    hosts,
    locked,
    put,
    resolvers,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.owners import make_volumes, user_of, volumes_in

BRAND = "lx"
ZONES = Path("/", POOL)
VOLUMES = f"{POOL}/zonestack"
RECORD = "zonestack:zone"
"""Key of ``internal_metadata``; no namespace of the guest's, so that mdata-get(1) does not show it."""

KERNEL = "5.10.0"
"""What uname(2) says in a zone: enough for the C library and systemd of today's Debians, and no more than a name."""

MEMORY = 1024
"""MiB of a zone whose description has no limit; vmadm's own default of 256 is too little for any service."""

SWAP = 2
"""Times its memory that a zone may reserve. illumos promises no memory that it does not have, so a Python service that
forks needs room for a second copy of itself, which it never writes to."""

LWPS = 8000
"""Threads of a zone; vmadm's default of 2000 is little for worker processes with native threads."""

LIVE = {
    "alias",
    "cpu_cap",
    "max_locked_memory",
    "max_lwps",
    "max_physical_memory",
    "max_swap",
    "quota",
    "set_tags",
    "tmpfs",
}
"""What of a payload takes effect without a restart, or has none inside the zone."""

POLL = 0.2  # seconds between two looks at a zone that starts

READY = "/bin/systemctl show --property=Version"
"""Succeeds once systemd takes requests."""

NAMESPACE = uuid_lib.uuid5(uuid_lib.NAMESPACE_URL, "https://zonestack.dev/images")


def image_uuid(image: str) -> str:
    """The UUID that an image of ours has in every image store: the same content always has the same one."""
    return str(uuid_lib.uuid5(NAMESPACE, image))


def properties(spec: ZoneSpec, nameservers: t.Sequence[str]) -> dict[str, t.Any]:
    """A zone's description as properties of a VM. Pure.

    Not among them: what counts only when the zone is made (brand, image, kernel version), and ``autoboot``, which starting and
    stopping set.
    """
    memory = spec.memory or MEMORY
    return {
        "alias": spec.name,
        "hostname": spec.name,
        "max_physical_memory": memory,
        "max_locked_memory": memory,
        "max_swap": memory * SWAP,
        "tmpfs": memory // 2,
        "max_lwps": LWPS,
        "cpu_cap": spec.cpu_cap,
        "quota": spec.quota or 0,
        "resolvers": list(nameservers),
        "nics": [
            {
                "mac": network.mac,
                "interface": network.name,
                "nic_tag": network.bridge,
                "ips": [str(one) for one in network.interfaces()],
                **({"allowed_ips": list(network.vips)} if network.vips else {}),
                **({"gateways": [network.gateway]} if network.gateway else {}),
                **({"mtu": network.mtu} if network.mtu else {}),
                **({"primary": True} if index == 0 else {}),
            }
            for index, network in enumerate(spec.networks)
        ],
        "filesystems": [
            {"type": "lofs", "source": str(volume_path(spec.uuid, volume.name)), "target": volume.path}
            for volume in spec.volumes
        ],
        "tags": {f"zonestack.{key}": str(value) for key, value in sorted(spec.metadata.items())},
        "internal_metadata": {RECORD: json.dumps(spec.to_dict(), sort_keys=True)},
    }


def volume_path(uuid: str, volume: str = "") -> Path:
    """Where a zone's volumes, or one of them, are mounted in the global zone."""
    return Path("/", VOLUMES, uuid, volume)


@functools.cache
def _vms_at_start() -> dict[str, dict[str, t.Any]]:
    """All VMs of this host by UUID, read once for all zones of this process."""
    return {str(vm["uuid"]): vm for vm in Vmadm().lookup()}


def await_init(uuid: str, who: str, limit: float) -> None:
    """Wait until the init of a zone takes requests, at most ``limit`` seconds; ``who`` is its name in a message."""
    deadline = time.monotonic() + limit
    while (answer := run(["zlogin", "-Q", uuid, READY], check=False, timeout=limit)).rc != 0:
        if time.monotonic() > deadline:
            raise ZoneError(
                f"{who}: its init does not answer within {limit:g} s ({answer.err.strip() or 'no message'}); "
                f"see its console: zlogin -C {uuid}"
            )
        time.sleep(POLL)


@fails_as_zone_error(VmError, PlanError, ImageError)
class SmartosBackend:
    """Zones of this global zone through vmadm; see :class:`~.backend.Backend` for the meaning of the calls."""

    live: t.ClassVar[frozenset[str]] = frozenset({"memory", "cpu_cap", "quota", "autostart", "metadata", "limits"})

    # vmadm could give a zone another image in place, but then starts it before its files are written.
    rebuilt: t.ClassVar[frozenset[str]] = frozenset({"image"})

    def __init__(self, *, start_timeout: float = 300, stop_timeout: float = 90) -> None:
        """``start_timeout``/``stop_timeout``: seconds until a start or a stop counts as failed."""
        self.client = Vmadm()
        self.start_timeout = start_timeout
        self.stop_timeout = stop_timeout

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self, zone: ZoneSpec) -> t.Iterator[None]:
        """Hold a lock; vmadm has one of its own for each change, but not for several together."""
        with locked(f"zone-{zone.name}", self.start_timeout + self.stop_timeout):
            yield

    def effective(self, zone: ZoneSpec) -> ZoneSpec:
        """No user namespaces, so nothing to shift owners by; ZFS is the only store; no devices of the host."""
        return replace(zone, store="zfs", idmap_base=ZoneSpec.idmap_base, memory=zone.memory or MEMORY, devices=())

    def read(self, zone: ZoneSpec) -> Current:
        """One call of vmadm for all zones that this process is about."""
        name, uuid = zone.name, zone.uuid
        vm = _vms_at_start().get(uuid)
        volumes = volumes_in(volume_path(uuid))
        if vm is None:
            other = next((one for one in _vms_at_start().values() if one.get("alias") == name), None)
            if other is not None:
                raise ZoneError(
                    f"zone {name!r}: the VM {other['uuid']} already has this alias and is another one (of another deployment?); "
                    f"remove it, or give it another alias"
                )
            return Current(volumes=volumes)
        record = vm.get("internal_metadata", {}).get(RECORD)
        if record is None:
            raise ZoneError(
                f"zone {name!r}: the VM {uuid} is there without {RECORD} in its internal_metadata, so it is not a zone of this "
                f"collection and is left alone; remove that VM"
            )
        if vm["state"] in BROKEN:
            return Current(volumes=volumes, debris=True)
        vm = self.client.settled(vm)
        spec = ZoneSpec.from_dict(json.loads(record))
        change = update_payload(normal(vm), Want(uuid=uuid, properties=properties(spec, resolvers())))
        drift = [] if not change else ["limits"] if set(change) <= LIVE else ["config"]
        if any(volume.name not in volumes for volume in spec.volumes):
            drift.append("volumes")
        if bool(vm["autoboot"]) != spec.autostart and vm["state"] == "running":
            drift.append("autostart")
        return Current(spec, vm["state"] == "running", vm.get("pid"), volumes, False, tuple(drift))

    def check(self, zone: ZoneSpec) -> None:
        """Refuse what no lx zone can be, and an image or a nic tag that is not there, before anything changes."""
        if zone.privileged or zone.capabilities:
            raise ZoneError(
                f"zone {zone.name!r}: privileged: a SmartOS zone has no rights on its host; place its service on a host with "
                f"backend lxc"
            )
        if not zone.image:
            raise ZoneError(f"zone {zone.name!r}: image: none given")
        if Imgadm().get(image_uuid(zone.image)) is None:
            raise ZoneError(
                f"zone {zone.name!r}: image: {zone.image} ({image_uuid(zone.image)}) is not installed; build the images first"
            )
        tags = sorted({network.bridge for network in zone.networks})
        if tags and (found := run(["nictagadm", "exists", *tags], check=False)).rc != 0:
            raise ZoneError(f"zone {zone.name!r}: networks: {found.err.strip()}; see nictagadm list")

    # -- changing --------------------------------------------------------------------------------------------------

    def create(self, zone: ZoneSpec) -> None:
        """One call of vmadm: the zone is there as described, or failed and swept away by the next call."""
        self._sweep(zone.uuid)
        self._make_volumes(zone)
        payload = {
            **{key: value for key, value in properties(zone, resolvers()).items() if value is not None},
            "uuid": zone.uuid,
            "brand": BRAND,
            "kernel_version": KERNEL,
            "image_uuid": image_uuid(zone.image),
            "autoboot": False,  # started once its files are in place, by start()
        }
        self.client.validate("create", BRAND, payload)
        self.client.do(zone.uuid, Step("create", payload=payload))

    def update(self, zone: ZoneSpec, changed: t.Collection[str], running: bool) -> None:
        """Change a zone in place; for another image it is made anew, and its volumes stay."""
        if self.rebuilt & set(changed):
            self.create(zone)  # which sweeps away what is there
            return
        if "volumes" in changed:
            self._make_volumes(zone)
        wanted = properties(zone, resolvers())
        if running:
            wanted["autoboot"] = zone.autostart
        for _pass in range(2):  # what must fit into new memory, such as /tmp, takes an update of its own
            payload = update_payload(normal(self._there(zone.uuid)), Want(uuid=zone.uuid, properties=wanted))
            if payload:
                self.client.validate("update", BRAND, payload)
                self.client.do(zone.uuid, Step("update", payload=payload))

    def destroy(self, zone: ZoneSpec, purge: bool) -> None:
        """Delete the VM; with ``purge`` its volumes too."""
        self._sweep(zone.uuid)
        if purge and volume_path(zone.uuid).exists():
            destroy_dataset(f"{VOLUMES}/{zone.uuid}")

    def _sweep(self, uuid: str) -> None:
        if self.client.get(uuid) is not None:
            self.client.do(uuid, Step("delete"))

    def _make_volumes(self, zone: ZoneSpec) -> None:
        def users(name: str) -> tuple[int, int] | None:
            return user_of(read_text(ZONES / image_uuid(zone.image) / "root/etc/passwd"), name)

        def make(name: str, uid: int, gid: int) -> None:
            run(["zfs", "create", "-p", f"{VOLUMES}/{zone.uuid}/{name}"])
            os.chown(volume_path(zone.uuid, name), uid, gid)

        make_volumes(zone, volume_path(zone.uuid), users, make)

    # -- power -----------------------------------------------------------------------------------------------------

    def start(self, zone: ZoneSpec) -> None:
        """Start the zone with its files in place."""
        for file, content in (
            ("hostname", f"{zone.name}\n"),
            ("hosts", hosts(zone)),
            ("machine-id", zone.uuid.replace("-", "") + "\n"),
        ):
            put(ZONES / zone.uuid / "root", file, content, 0)
        Vmadm(self.start_timeout).do(zone.uuid, Step("start"))
        if not zone.autostart:
            self.client.do(zone.uuid, Step("update", payload={"autoboot": False}))  # vmadm start has switched it on

    def stop(self, zone: ZoneSpec) -> None:
        """Stop the zone and wait until it is gone."""
        Vmadm(self.stop_timeout + 60).do(zone.uuid, Step("stop", argument="" if self.stop_timeout else "force"))

    def _there(self, uuid: str) -> dict[str, t.Any]:
        """The VM as it is now."""
        vm = self.client.get(uuid)
        if vm is None:
            raise ZoneError(f"the VM {uuid} is gone while its zone was being changed; call again")
        return vm

    def ready(self, zone: ZoneSpec, pid: int | None) -> int:
        """Wait until the zone's init takes requests; return its process id."""
        await_init(zone.uuid, f"zone {zone.name!r}", self.start_timeout)
        return pid or (self.client.get(zone.uuid) or {}).get("pid") or 0
