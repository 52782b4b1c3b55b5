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
import re
import time
import typing as t
import uuid as uuid_lib
from dataclasses import replace
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import run
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.imgadm import (
    POOL,
    Imgadm,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm import (
    Vmadm,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_plan import (
    BROKEN,
    Step,
    Want,
    update_payload,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    normal,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.model import (
    Current,
    Volume,
    ZoneError,
    ZoneSpec,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.files import (
    destroy_dataset,
    hosts,
    locked,
    put,
    resolvers,
)

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


class SmartosBackend:
    """Zones of this global zone through vmadm; see :class:`~.zone.Backend` for the meaning of the calls."""

    live: t.ClassVar[frozenset[str]] = frozenset({"memory", "cpu_cap", "quota", "autostart", "metadata", "limits"})

    # vmadm could give a zone another image in place, but then starts it before its files are written.
    rebuilt: t.ClassVar[frozenset[str]] = frozenset({"image"})

    def __init__(self, *, start_timeout: float = 300, stop_timeout: float = 90) -> None:
        """``start_timeout``/``stop_timeout``: seconds until a start or a stop counts as failed."""
        self.client = Vmadm()
        self.start_timeout = start_timeout
        self.stop_timeout = stop_timeout
        self._uuids: dict[str, str] = {}  # by zone name; what only a name is given for was read before
        self._pid: int | None = None

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self, name: str) -> t.Iterator[None]:
        """Hold a lock; vmadm has one of its own for each change, but not for several together."""
        with locked(f"zone-{name}", self.start_timeout + self.stop_timeout):
            yield

    def effective(self, want: ZoneSpec) -> ZoneSpec:
        """No user namespaces, so nothing to shift owners by; ZFS is the only store; no devices of the host."""
        return replace(want, store="zfs", idmap_base=ZoneSpec.idmap_base, memory=want.memory or MEMORY, devices=())

    def read(self, name: str, uuid: str) -> Current:
        """One call of vmadm for all zones that this process is about."""
        self._uuids[name] = uuid
        vm = _vms_at_start().get(uuid)
        volumes = self._volumes(uuid)
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
        self._pid = vm.get("pid")
        return Current(spec, vm["state"] == "running", self._pid, volumes, False, tuple(drift))

    def _volumes(self, uuid: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(one.name for one in os.scandir(volume_path(uuid)) if one.is_dir()))
        except FileNotFoundError:
            return ()

    def check(self, want: ZoneSpec) -> None:
        """Refuse what no lx zone can be, and an image or a nic tag that is not there, before anything changes."""
        if want.privileged or want.capabilities:
            raise ZoneError(
                f"zone {want.name!r}: privileged: a SmartOS zone has no rights on its host; place its service on a host with "
                f"backend lxc"
            )
        if not want.image:
            raise ZoneError(f"zone {want.name!r}: image: none given")
        if Imgadm().get(image_uuid(want.image)) is None:
            raise ZoneError(
                f"zone {want.name!r}: image: {want.image} ({image_uuid(want.image)}) is not installed; build the images first"
            )
        tags = sorted({network.bridge for network in want.networks})
        if tags and (found := run(["nictagadm", "exists", *tags], check=False)).rc != 0:
            raise ZoneError(f"zone {want.name!r}: networks: {found.err.strip()}; see nictagadm list")

    # -- changing --------------------------------------------------------------------------------------------------

    def create(self, want: ZoneSpec) -> None:
        """One call of vmadm: the zone is there as described, or failed and swept away by the next call."""
        self._sweep(want.uuid)
        self._make_volumes(want)
        payload = {
            **{key: value for key, value in properties(want, resolvers()).items() if value is not None},
            "uuid": want.uuid,
            "brand": BRAND,
            "kernel_version": KERNEL,
            "image_uuid": image_uuid(want.image),
            "autoboot": False,  # started once its files are in place, by power()
        }
        self.client.validate("create", BRAND, payload)
        self.client.do(want.uuid, Step("create", payload=payload))

    def update(self, want: ZoneSpec, changed: t.Collection[str], running: bool) -> None:
        """Change a zone in place; for another image it is made anew, and its volumes stay."""
        if self.rebuilt & set(changed):
            self.create(want)  # which sweeps away what is there
            return
        if "volumes" in changed:
            self._make_volumes(want)
        wanted = properties(want, resolvers())
        if running:
            wanted["autoboot"] = want.autostart
        payload = update_payload(normal(self._there(want.uuid)), Want(uuid=want.uuid, properties=wanted))
        if payload:
            self.client.validate("update", BRAND, payload)
            self.client.do(want.uuid, Step("update", payload=payload))

    def destroy(self, name: str, purge: bool) -> None:
        """Delete the VM; with ``purge`` its volumes too."""
        uuid = self._uuids[name]
        self._sweep(uuid)
        if purge and volume_path(uuid).exists():
            destroy_dataset(f"{VOLUMES}/{uuid}")

    def _sweep(self, uuid: str) -> None:
        if self.client.get(uuid) is not None:
            self.client.do(uuid, Step("delete"))

    def _make_volumes(self, want: ZoneSpec) -> None:
        """Make the missing volumes. One that exists keeps its owner and mode: its data belongs to the service."""
        for volume in want.volumes:
            if volume_path(want.uuid, volume.name).exists():
                continue
            uid, gid = self._owner(want, volume)
            dataset = f"{VOLUMES}/{want.uuid}/{volume.name}"
            run(["zfs", "create", "-p", dataset])
            os.chown(volume_path(want.uuid, volume.name), uid, gid)

    def _owner(self, spec: ZoneSpec, volume: Volume) -> tuple[int, int]:
        """Uid and gid of a new volume; a name is looked up in the image's passwd(5)."""
        if volume.owner is None or volume.owner.isdigit():
            return int(volume.owner or 0), int(volume.owner or 0)
        image = ZONES / image_uuid(spec.image) / "root/etc/passwd"
        found = re.search(rf"^{re.escape(volume.owner)}:[^:]*:(\d+):(\d+):", image.read_text(), re.MULTILINE)
        if found is None:
            raise ZoneError(
                f"zone {spec.name!r}: volumes.{volume.name}.owner: image {spec.image} has no user {volume.owner!r}"
            )
        return int(found[1]), int(found[2])

    # -- power -----------------------------------------------------------------------------------------------------

    def power(self, name: str, on: bool) -> None:
        """Start the zone with its files in place, or stop it and wait until it is gone."""
        uuid, self._pid = self._uuids[name], None
        if not on:
            Vmadm(self.stop_timeout + 60).do(uuid, Step("stop"))
            return
        spec = ZoneSpec.from_dict(json.loads(self._there(uuid)["internal_metadata"][RECORD]))
        for file, content in (
            ("hostname", f"{name}\n"),
            ("hosts", hosts(spec)),
            ("machine-id", uuid.replace("-", "") + "\n"),
        ):
            put(ZONES / uuid / "root", file, content, 0)
        Vmadm(self.start_timeout).do(uuid, Step("start"))
        if not spec.autostart:
            self.client.do(uuid, Step("update", payload={"autoboot": False}))  # vmadm start has switched it on

    def _there(self, uuid: str) -> dict[str, t.Any]:
        """The VM as it is now."""
        vm = self.client.get(uuid)
        if vm is None:
            raise ZoneError(f"the VM {uuid} is gone while its zone was being changed; call again")
        return vm

    def ready(self, name: str) -> int:
        """Wait until the zone's init takes requests; return its process id."""
        uuid = self._uuids[name]
        await_init(uuid, f"zone {name!r}", self.start_timeout)
        if self._pid is None:
            self._pid = (self.client.get(uuid) or {}).get("pid")
        return self._pid or 0
