# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools do to the machine: the one seam between their logic and a file system, containers and networks.

The tools decide (validation, defaults, conflicts, messages, the stored description of each VM); a platform acts and is
asked for what only the machine knows (is the zone up, which snapshots are there). :class:`Paper` acts on nothing but a
file per zone. It serves the comparison with recorded transcripts, fast tests, and the HVM brands on every node.

``vm`` is always the VM object as ``vmadm get`` shows it, without what the platform itself knows. It tells where things
lie: ``zfs_filesystem`` (zones/UUID), ``zonepath`` (/zones/UUID), ``datasets`` (the delegated ones), ``quota`` (GiB, 0: none),
``nics``, ``resolvers``, ``routes``, ``filesystems``, ``customer_metadata``, ``internal_metadata``, ``tags``.

Every call is made under the VM's (or the image's) lock, so a platform needs none of its own for one VM; calls for
different VMs come at the same time from different processes. A platform keeps no state in memory between commands.
"""

from __future__ import annotations

import typing as t
from pathlib import Path

from .files import ToolError, read_json, timestamp, write_json

VM = dict[str, t.Any]

HVM_BRANDS = ("bhyve", "kvm")


class PlatformError(ToolError):
    """The machine refused. The message is printed as the command's reason and the command exits 1.

    What a child command said is reported as node does: ``Command failed: CMD ARGS``, a line break, its stderr.
    """


class Snapshot(t.TypedDict):
    """One snapshot of a VM: its name without ``@vmsnap-``, size in MiB, time as 2026-02-20T00:00:00.000Z."""

    name: str
    size: int
    created_at: str


class Platform(t.Protocol):
    """A machine that can hold images and zones. Errors are :class:`PlatformError` unless a call says otherwise."""

    def pools(self) -> list[str]:
        """Names of the ZFS pools, the system pool first."""

    def image_install(self, uuid: str, stream: Path | None, compression: str, pool: str = "zones") -> None:
        """Receive the ZFS stream (``compression``: gzip, bzip2, xz, none) into POOL/UUID-partial, have its one
        snapshot be @final, rename to POOL/UUID. ``stream`` None: an image that consists of its name only (imported from
        a source that is no more than a list of manifests); make an empty one."""

    def image_destroy(self, uuid: str, pool: str = "zones") -> None:
        """Remove POOL/UUID with @final. The tools have made sure that nothing is cloned from it."""

    def image_create_from_vm(self, vm: VM, target: Path, compression: str, origin: str | None) -> None:
        """Write a stream of the stopped VM's root to ``target``; with ``origin`` (an image's UUID) only what differs
        from that image's @final."""

    def zone_create(self, vm: VM, image_uuid: str | None) -> None:
        """Clone POOL/IMAGE@final to ``zfs_filesystem``, with quota, delegated datasets, /zones/UUID/config and, for the
        brands that have it, the marker /var/svc/provisioning in the root. Nothing is started."""

    def zone_destroy(self, vm: VM) -> None:
        """Remove everything :meth:`zone_create` made, also when it was interrupted; halt what runs. Nothing there: fine."""

    def zone_boot(self, vm: VM) -> None:
        """Start the zone's init with the description as it is now; return when it runs, not when it is ready."""

    def zone_halt(self, vm: VM, force: bool, timeout: float) -> None:
        """Stop the zone: ask its init to shut down, after ``timeout`` seconds (at once with ``force``) end it. Return
        when nothing of it runs. A zone that is not running: fine."""

    def zone_running(self, vm: VM) -> int | None:
        """The process id of the zone's init as the host sees it; None when the zone is down. Called often: be quick."""

    def zone_provisioned(self, vm: VM) -> bool:
        """Whether the guest has moved or removed /var/svc/provisioning. Polled while a VM is created or reprovisioned."""

    def zone_configure(self, vm: VM, before: VM) -> None:
        """Make true on the machine what an update of ``before`` to ``vm`` changes: quota and limits now, files in
        /zones/UUID/config now, networks and file systems at the next boot. Called for running and stopped VMs."""

    def zone_metadata(self, vm: VM) -> dict[str, dict[str, t.Any]]:
        """``customer_metadata`` and ``internal_metadata`` as they are now, where the guest can change them; else nothing."""

    def zone_reprovision(self, vm: VM, image_uuid: str) -> None:
        """Replace the root of the stopped zone with a clone of the image; keep delegated datasets; set the marker."""

    def zone_signal(self, vm: VM, signal: str) -> None:
        """Send ``signal`` (SIGTERM, ...) to the zone's init."""

    def snapshot_create(self, vm: VM, name: str) -> None:
        """Make zones/UUID@vmsnap-NAME. The tools have made sure that the name is good and free."""

    def snapshot_delete(self, vm: VM, name: str) -> None:
        """Remove it."""

    def snapshot_rollback(self, vm: VM, name: str) -> None:
        """Put the stopped zone's root back to it, removing newer ones."""

    def snapshots(self, vm: VM) -> list[Snapshot]:
        """The VM's @vmsnap- snapshots, newest first."""

    def nictag_add(self, name: str, kind: str, link: str | None, mtu: int | None) -> None:
        """Have networks for the tag: an etherstub (``kind`` etherstub) is made, a normal tag uses the NIC ``link``."""

    def nictag_delete(self, name: str) -> None:
        """Remove what :meth:`nictag_add` made. Nothing there: fine."""


class Paper:
    """A machine that exists on paper: one file per zone says what would be there.

    What the guest would do is told by the VM's ``customer_metadata["sim:guest"]``: ``never-provisions`` leaves the
    provisioning marker where it is, ``exits`` ends right after each boot.
    """

    def __init__(self, directory: Path, pools: list[str]) -> None:
        """``directory`` holds the zones' files; ``pools`` are the pool names to report."""
        self.directory = directory
        self._pools = pools

    def _path(self, vm: VM) -> Path:
        return self.directory / f"{vm['uuid']}.json"

    def _read(self, vm: VM) -> dict[str, t.Any]:
        found: dict[str, t.Any] | None = read_json(self._path(vm))
        return found or {"pid": None, "boots": 0, "snapshots": []}

    def _write(self, vm: VM, **changes: t.Any) -> None:
        write_json(self._path(vm), {**self._read(vm), **changes})

    @staticmethod
    def _guest(vm: VM) -> t.Any:
        return vm.get("customer_metadata", {}).get("sim:guest")

    def adopt(self, vm: VM) -> None:
        """Take a VM as a recorded world describes it: running or not, and its snapshots."""
        self._write(vm, pid=vm.get("pid"), snapshots=vm["snapshots"])

    def pools(self) -> list[str]:
        return self._pools

    def image_install(self, uuid: str, stream: Path | None, compression: str, pool: str = "zones") -> None:
        pass

    def image_destroy(self, uuid: str, pool: str = "zones") -> None:
        pass

    def image_create_from_vm(self, vm: VM, target: Path, compression: str, origin: str | None) -> None:
        target.write_bytes(b"a stream on paper")  # of some size: that of a file is never 0

    def zone_create(self, vm: VM, image_uuid: str | None) -> None:
        self._write(vm, image=image_uuid)

    def zone_destroy(self, vm: VM) -> None:
        self._path(vm).unlink(missing_ok=True)

    def zone_boot(self, vm: VM) -> None:
        boots = self._read(vm)["boots"] + 1
        self._write(vm, boots=boots, pid=None if self._guest(vm) == "exits" else 10000 + boots)

    def zone_halt(self, vm: VM, force: bool, timeout: float) -> None:
        self._write(vm, pid=None)

    def zone_running(self, vm: VM) -> int | None:
        pid: int | None = self._read(vm)["pid"]
        return pid

    def zone_provisioned(self, vm: VM) -> bool:
        return bool(self._guest(vm) != "never-provisions")

    def zone_configure(self, vm: VM, before: VM) -> None:
        pass

    def zone_metadata(self, vm: VM) -> dict[str, dict[str, t.Any]]:
        return {}

    def zone_reprovision(self, vm: VM, image_uuid: str) -> None:
        self._write(vm, image=image_uuid)

    def zone_signal(self, vm: VM, signal: str) -> None:
        # An init that dies is started again, in place, unless the zone is told otherwise (restart_init).
        if signal in ("SIGKILL", "SIGTERM") and vm.get("restart_init") is False:
            self._write(vm, pid=None)

    def snapshot_create(self, vm: VM, name: str) -> None:
        made: Snapshot = {"name": name, "size": 0, "created_at": timestamp()}
        self._write(vm, snapshots=[made, *self.snapshots(vm)])

    def snapshot_delete(self, vm: VM, name: str) -> None:
        self._write(vm, snapshots=[one for one in self.snapshots(vm) if one["name"] != name])

    def snapshot_rollback(self, vm: VM, name: str) -> None:
        kept = self.snapshots(vm)
        while kept and kept[0]["name"] != name:
            kept.pop(0)
        self._write(vm, snapshots=kept)

    def snapshots(self, vm: VM) -> list[Snapshot]:
        found: list[Snapshot] = self._read(vm)["snapshots"]
        return found

    def nictag_add(self, name: str, kind: str, link: str | None, mtu: int | None) -> None:
        pass

    def nictag_delete(self, name: str) -> None:
        pass


def of_node(node: dict[str, t.Any], state: Path, brand: str | None = None) -> Platform:
    """The platform that the node's ``machine`` names, ``paper`` or ``linux``; HVM brands live on paper everywhere."""
    paper = Paper(state / "paper", node["zpools"])
    if node["machine"] == "paper" or brand in HVM_BRANDS:
        return paper
    import importlib  # what drives ZFS and LXC is loaded only where it is used

    machine: Platform = importlib.import_module(".linux", __package__).Linux(state)
    return machine
