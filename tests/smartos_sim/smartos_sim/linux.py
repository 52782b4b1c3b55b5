# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine of Linux parts: ZFS by zfs-fuse, zones as LXC containers, a bridge per NIC tag.

Datasets bear SmartOS's names (facts 4.1). What is only Linux's lies in the state directory: ``lxc/UUID/`` has a zone's LXC
configuration, its log and console, and ``init``: process id and start time of the zone's init. LINUX.md lists what behaves as
on SmartOS, how that is known, and what does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal as signals
import subprocess
import time
import typing as t
from pathlib import Path

from . import lxc_config, metadata
from .files import locked, timestamp
from .lxc_config import CODE, JOYENT, MIB, NATIVE, bridge
from .platform import VM, PlatformError, Snapshot

SNAPSHOT = "vmsnap-"
PACKERS = {"gzip": "gzip", "bzip2": "bzip2", "xz": "xz"}
START_LIMIT = (
    600.0  # seconds after which a start or an end hangs; a busy machine may need minutes for what takes a second
)
ZFS, ZPOOL = (f"/usr/lib/smartos-sim/{name}" for name in ("zfs", "zpool"))
"""zfs-fuse's own, which ``smartos-sim init`` moves there: translators stand in their places."""
MOUNTING = Path("/run/smartos-sim-mounting.lock")
"""Held by each zfs that mounts: zfs-fuse hears of a new mount through a pipe of its own, into which each is written in parts. With several at a
time it was seen to wait for the rest of one for good, and with it everybody who opened a file."""
MOUNTS = ("create", "clone", "mount", "receive", "recv", "rename", "rollback", "set", "inherit")
BUSY_LIMIT = 120.0  # seconds for which a dataset may stay busy after its last user
STALE_MOUNT = ("busy", "Device or resource")

PLATFORM_LINKS = {
    "lx": dict.fromkeys(metadata.TOOLS, "/native/usr/sbin"),
    "joyent": {
        **dict.fromkeys((*metadata.TOOLS, "svcadm", "svccfg", "shutdown", "zonename"), "/usr/sbin"),
        **dict.fromkeys(("svcs", "svcprop"), "/usr/bin"),
    },
}
"""Which commands of the platform a zone has, and where (facts 4.2)."""


def run(*argv: str, shown: str | None = None, timeout: float = 600) -> str:
    """Run a command and return what it wrote; its failure is told as node tells it, under the name ``shown``."""
    try:
        with turn(*argv):
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
            )
    except subprocess.TimeoutExpired:
        raise PlatformError(
            f"Command failed: {shown or shlex.join(argv)}\nstill running after {timeout:g} s, killed"
        ) from None
    if done.returncode:
        raise PlatformError(f"Command failed: {shown or shlex.join(argv)}\n{(done.stderr or done.stdout).strip()}")
    return done.stdout


def quiet(*argv: str) -> bool:
    """Run a command of which only the success is of interest."""
    with turn(*argv):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False)
    return done.returncode == 0


def turn(*argv: str) -> contextlib.AbstractContextManager[object]:
    """Wait for the turn of a command: that of a zfs that may mount, ``receive -u`` does not; others have none."""
    mounts = len(argv) > 1 and argv[0] == ZFS and argv[1] in MOUNTS and "-u" not in argv
    return locked(MOUNTING) if mounts else contextlib.nullcontext()


def zfs(*argv: str) -> str:
    """Run zfs; see :func:`run`."""
    return run(ZFS, *argv, shown=shlex.join(["/usr/sbin/zfs", *argv]))


def make_bridge(name: str, mtu: int | None = None, port: str | None = None) -> None:
    """Have a bridge that is up, with the interface ``port`` in it if this system has one of that name."""
    quiet("ip", "link", "add", name, "type", "bridge")  # it may be there, or another command makes it now
    run("ip", "link", "set", name, *(["mtu", str(mtu)] if mtu else []), "up")
    if port and os.path.exists(f"/sys/class/net/{port}"):
        run("ip", "link", "set", port, "master", name, "up")


def started_at(pid: int) -> str | None:
    """When a process began, in clock ticks since the machine's boot: with the process id it names a process for good."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def put(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file of a guest, whole, in place of whatever bears its name; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.chmod(mode)
    part.replace(path)


class Linux:
    """The node's :class:`~.platform.Platform`; ``state`` is the simulator's directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.containers = state / "lxc"

    # -- ZFS ---------------------------------------------------------------------------------------------------------

    def pools(self) -> list[str]:
        names = run(ZPOOL, "list", "-H", "-o", "name").split()
        return sorted(names, key=lambda name: (name != "zones", name))

    @staticmethod
    def _exists(dataset: str) -> bool:
        return quiet(ZFS, "list", "-H", "-o", "name", dataset)

    @staticmethod
    def _patiently(*argv: str) -> None:
        """Run zfs on a dataset that is busy until the last name space with it is gone; one that is not there is fine."""
        until = time.monotonic() + BUSY_LIMIT
        while True:
            try:
                zfs(*argv)
                return
            except PlatformError as bad:
                if "does not exist" in str(bad):
                    return
                if not any(word in str(bad) for word in STALE_MOUNT) or time.monotonic() > until:
                    raise
            time.sleep(0.1)

    def _destroy(self, dataset: str) -> None:
        """Destroy a dataset with what is below it, if it exists."""
        self._patiently("destroy", "-r", dataset)

    def _rename(self, old: str, new: str) -> None:
        """Rename a dataset and mount it: zfs-fuse refuses to rename one that is mounted."""
        quiet(ZFS, "unmount", old)
        self._patiently("rename", old, new)
        self._mounted(new)

    @staticmethod
    def _mounted(dataset: str) -> None:
        """Mount a dataset that is not: a receive or a crash leaves some so."""
        if run(ZFS, "get", "-H", "-o", "value", "mounted", dataset).strip() != "yes":
            zfs("mount", dataset)

    # -- images ------------------------------------------------------------------------------------------------------

    def image_install(self, uuid: str, stream: Path | None, compression: str, pool: str = "zones") -> None:
        partial = f"{pool}/{uuid}-partial"
        self._destroy(partial)
        if stream is None:
            zfs("create", partial)
            Path(zfs("get", "-H", "-o", "value", "mountpoint", partial).strip(), "root").mkdir()
            zfs("snapshot", f"{partial}@final")
        else:
            unpack = f"{PACKERS[compression]} -dc" if compression in PACKERS else "cat"
            receive = f"set -o pipefail; {unpack} <{shlex.quote(str(stream))} | {ZFS} receive -u {shlex.quote(partial)}"
            run("bash", "-c", receive, shown=f"/usr/sbin/zfs receive {partial}", timeout=3600)
            self._finalize(partial)
        self._rename(partial, f"{pool}/{uuid}")

    def _finalize(self, dataset: str) -> None:
        """Have @final be the one snapshot of a received image."""
        names = [name for name in zfs("list", "-H", "-t", "snapshot", "-o", "name", "-r", dataset).split() if name]
        if len(names) != 1:
            self._destroy(dataset)
            raise PlatformError(f"image stream must hold exactly one snapshot, found {len(names)}: {', '.join(names)}")
        if names[0] != f"{dataset}@final":
            zfs("rename", names[0], f"{dataset}@final")

    def image_destroy(self, uuid: str, pool: str = "zones") -> None:
        self._destroy(f"{pool}/{uuid}")

    def image_create_from_vm(self, vm: VM, target: Path, compression: str, origin: str | None) -> None:
        snapshot = f"{vm['zfs_filesystem']}@imgadm-create"
        quiet(ZFS, "destroy", snapshot)  # of an interrupted call
        zfs("snapshot", snapshot)
        try:
            since = f"-i {vm['zpool']}/{origin}@final " if origin else ""
            pack = f"{PACKERS[compression]} -c" if compression in PACKERS else "cat"
            send = f"set -o pipefail; {ZFS} send {since}{snapshot} | {pack} >{shlex.quote(str(target))}"
            run("bash", "-c", send, shown=f"/usr/sbin/zfs send {since}{snapshot}", timeout=3600)
        finally:
            zfs("destroy", snapshot)

    # -- a zone's datasets and files ---------------------------------------------------------------------------------

    @staticmethod
    def _root(vm: VM) -> Path:
        return Path(vm["zonepath"], "root")

    @staticmethod
    def _aside(vm: VM) -> str:
        """Where a delegated dataset waits while the root is replaced."""
        return f"{vm['zfs_filesystem']}-reprovision-data"

    def zone_create(self, vm: VM, image_uuid: str | None) -> None:
        self._clone(vm, image_uuid)
        for dataset in vm.get("datasets", ()):
            zfs("create", dataset)
        self._set_properties(vm, {})
        self._first_files(vm)

    def _clone(self, vm: VM, image_uuid: str | None) -> None:
        where = f"mountpoint={vm['zonepath']}"
        if image_uuid is None:
            zfs("create", "-o", where, vm["zfs_filesystem"])
        else:
            zfs("clone", "-o", where, f"{vm['zpool']}/{image_uuid}@final", vm["zfs_filesystem"])
        self._root(vm).mkdir(exist_ok=True)
        if vm["brand"] in ("joyent", "builder") and not self._is_provisionable(vm):
            self._destroy(vm["zfs_filesystem"])
            raise PlatformError(f"provisioning dataset {image_uuid} with brand {vm['brand']} is not supported")

    def _is_provisionable(self, vm: VM) -> bool:
        """Whether the image tells vmadm when it is done (facts 4.2)."""
        try:
            said = json.loads((self._root(vm) / "var/zoneinit/zoneinit.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(said.get("features", {}).get("var_svc_provisioning"))

    @staticmethod
    def _set_properties(vm: VM, before: VM) -> None:
        """Quota, record size and compression, of the root and the delegated datasets; what zfs-fuse has not is left out."""

        def differs(name: str, default: t.Any) -> bool:
            return bool(vm.get(name, default) != before.get(name, default))

        dataset = vm["zfs_filesystem"]
        if differs("quota", 0):
            zfs("set", f"quota={vm['quota']}g" if vm.get("quota") else "quota=none", dataset)
        for kind, targets in (("root", [dataset]), ("data", vm.get("datasets", []))):
            for target in targets:
                if differs(f"zfs_{kind}_recsize", 131072):
                    zfs("set", f"recordsize={vm.get(f'zfs_{kind}_recsize', 131072)}", target)
                if differs(f"zfs_{kind}_compression", "off"):
                    wanted = vm.get(f"zfs_{kind}_compression", "off")
                    zfs("set", f"compression={'on' if wanted == 'lz4' else wanted}", target)

    def _first_files(self, vm: VM) -> None:
        """What vmadm writes when it makes a zone: the marker, and for joyent zones the network's files."""
        config = Path(vm["zonepath"], "config")
        config.mkdir(mode=0o700, exist_ok=True)
        metadata.write_all(vm)
        root = self._root(vm)
        if vm["brand"] in JOYENT:
            put(root / "etc/nodename", f"{self._hostname(vm)}\n")
            self._write_resolvers(vm)
        if vm["brand"] in ("joyent", "builder"):
            # An image without mdata:execute fails here (facts 4.2). The tools keep no mdata_exec_timeout, so it is the default.
            words = ["-s", "svc:/smartdc/mdata:execute", "setprop", "start/timeout_seconds", "=", "count:", "300"]
            svccfg = ["env", f"SMARTOS_SIM_ROOT={root}", str(CODE / "bin" / "svccfg")]
            run(*svccfg, *words, shown=shlex.join(["/usr/sbin/svccfg", *words]))
        put(root / "var/svc/provisioning", "")
        for name in ("provision_success", "provision_failure"):
            (root / "var/svc" / name).unlink(missing_ok=True)

    def _write_resolvers(self, vm: VM) -> None:
        lines = [f"search {vm['dns_domain']}"] if vm.get("dns_domain") else []
        lines += [f"nameserver {address}" for address in vm.get("resolvers", ())]
        put(self._root(vm) / "etc/resolv.conf", "".join(f"{line}\n" for line in lines))

    @staticmethod
    def _hostname(vm: VM) -> str:
        return str(vm.get("hostname") or vm["zonename"])

    def zone_destroy(self, vm: VM) -> None:
        self.zone_halt(vm, True, 0)
        self._destroy(vm["zfs_filesystem"])
        self._destroy(self._aside(vm))
        for path in (self.containers / vm["uuid"], metadata.directory(vm["uuid"])):
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            Path(vm["zonepath"]).rmdir()

    def zone_reprovision(self, vm: VM, image_uuid: str) -> None:
        data, aside = f"{vm['zfs_filesystem']}/data", self._aside(vm)
        # Each step looks whether an interrupted call did it.
        if data in vm.get("datasets", ()) and self._exists(data) and not self._exists(aside):
            self._rename(data, aside)
        kept = metadata.read(vm)
        self._destroy(vm["zfs_filesystem"])
        self._clone(vm, image_uuid)
        if self._exists(aside):
            self._rename(aside, data)
        self._set_properties(vm, {})
        self._first_files({**vm, **kept})

    # -- power -------------------------------------------------------------------------------------------------------

    def zone_boot(self, vm: VM) -> None:
        home = self.containers / vm["uuid"]
        home.mkdir(parents=True, exist_ok=True)
        self._mounted(vm["zfs_filesystem"])
        for dataset in vm.get("datasets", ()):
            self._mounted(dataset)
        shown = f"/usr/sbin/zoneadm -z {vm['zonename']} boot -X"
        for entry in vm.get("filesystems", ()):
            if entry["type"] == "lofs" and not os.path.exists(entry["source"]):
                raise PlatformError(
                    f"Command failed: {shown}\nzone '{vm['zonename']}': unable to mount file system: "
                    f"{entry['source']}: No such file or directory"
                )
        for nic in vm["nics"]:
            make_bridge(bridge(nic["nic_tag"], nic.get("vlan_id", 0)))
        self._boot_files(vm)
        put(
            home / "config",
            lxc_config.config(vm, self._root(vm), self.containers / vm["uuid"], self._hostname(vm)),
            0o600,
        )
        metadata.start(self.state, vm["uuid"])
        log = home / "lxc.log"
        log.write_bytes(b"")
        lxc = ["lxc-start", "-P", str(self.containers), "-n", vm["uuid"], "-d", "-o", str(log), "-l", "ERROR"]
        try:
            run(*lxc, timeout=START_LIMIT)
        except PlatformError:
            said = log.read_text()[-2000:].strip()
            raise PlatformError(f"Command failed: {shown}\nzone '{vm['zonename']}': {said}") from None
        pid = self._ask_lxc(vm["uuid"])
        if pid:
            self._routes(vm, pid)

    def _boot_files(self, vm: VM) -> None:
        """What the brand does to a zone's files at each boot (facts 4.1): lx has its network told to it anew every time."""
        root, brand = self._root(vm), "joyent" if vm["brand"] in JOYENT else "lx"
        for name, folder in PLATFORM_LINKS[brand].items():
            link = root / folder[1:] / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.unlink(missing_ok=True)
                link.symlink_to(f"{NATIVE}/bin/{name}")
        if brand == "lx":
            put(root / "etc/hostname", f"{self._hostname(vm)}\n")
            self._write_resolvers(vm)
        elif vm.get("maintain_resolvers"):
            self._write_resolvers(vm)

    def _routes(self, vm: VM, pid: int) -> None:
        """Static routes; a gateway is an address, nics[N] or macs[M] (facts 3)."""
        for destination, gateway in vm.get("routes", {}).items():
            target = ["via", gateway]
            if gateway.startswith("nics["):
                target = ["dev", vm["nics"][int(gateway[5:-1])]["interface"]]
            elif gateway.startswith("macs["):
                target = ["dev", next(nic["interface"] for nic in vm["nics"] if nic["mac"] == gateway[5:-1].lower())]
            quiet("nsenter", "-n", "-t", str(pid), "ip", "route", "replace", destination, *target)

    def _ask_lxc(self, uuid: str) -> int | None:
        """Ask LXC for the zone's init, and keep the answer for :meth:`zone_running`."""
        known = self.containers / uuid / "init"
        out = subprocess.run(
            ["lxc-info", "-P", str(self.containers), "-n", uuid, "-pH"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_LIMIT, check=False,
        ).stdout.strip()  # fmt: skip
        begun = started_at(int(out)) if out.isdigit() else None
        if begun is None:
            known.unlink(missing_ok=True)
            return None
        put(known, f"{out} {begun}")
        return int(out)

    def zone_running(self, vm: VM) -> int | None:
        known = self.containers / vm["uuid"] / "init"
        try:
            pid, begun = known.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        if started_at(int(pid)) == begun:
            return int(pid)
        return self._ask_lxc(vm["uuid"])  # it has ended, or the guest has rebooted itself

    def zone_halt(self, vm: VM, force: bool, timeout: float) -> None:
        if not (self.containers / vm["uuid"] / "config").exists():
            return
        stop = ["lxc-stop", "-P", str(self.containers), "-n", vm["uuid"]]
        stop += ["-k"] if force or timeout <= 0 else ["-t", str(int(timeout))]
        if self._ask_lxc(vm["uuid"]):
            subprocess.run(
                stop, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout + START_LIMIT, check=False
            )
        until = time.monotonic() + START_LIMIT
        while self._ask_lxc(vm["uuid"]):
            if time.monotonic() > until:
                raise PlatformError(
                    f"Command failed: /usr/sbin/zoneadm -z {vm['zonename']} halt -X\nzone is still running"
                )
            time.sleep(0.05)
        metadata.stop(vm["uuid"])
        Path(vm["zonepath"], "lastexited").write_text(f"{timestamp()}\n")

    def zone_provisioned(self, vm: VM) -> bool:
        return not (self._root(vm) / "var/svc/provisioning").exists()

    def zone_signal(self, vm: VM, signal: str) -> None:
        pid = self.zone_running(vm)
        if pid:
            os.kill(pid, signals.Signals[signal])

    # -- changes -----------------------------------------------------------------------------------------------------

    def zone_configure(self, vm: VM, before: VM) -> None:
        self._set_properties(vm, before)
        metadata.write_changed(vm, before)
        if not self.zone_running(vm):
            return
        for limit in lxc_config.limits(vm):
            if limit not in lxc_config.limits(before):  # one that fails is only logged on SmartOS (facts 1.5)
                quiet("lxc-cgroup", "-P", str(self.containers), "-n", vm["uuid"], limit[0], str(limit[1]))
        if vm["brand"] in JOYENT:
            self._refetch(vm, before)

    def zone_metadata(self, vm: VM) -> dict[str, dict[str, t.Any]]:
        return metadata.read(vm)

    def _refetch(self, vm: VM, before: VM) -> None:
        """A joyent zone that runs takes its resolvers and routes when mdata:fetch starts anew (facts 1.5)."""
        resolvers = vm.get("maintain_resolvers") and vm.get("resolvers") != before.get("resolvers")
        if resolvers:
            self._write_resolvers(vm)
        routes = vm.get("routes") != before.get("routes")
        pid = self.zone_running(vm)
        if routes and pid:
            self._routes(vm, pid)
        if resolvers or routes or vm.get("tmpfs") != before.get("tmpfs"):
            for words in (("disable", "-st"), ("enable", "-s")):
                self.attach(vm, ["/usr/sbin/svcadm", *words, "svc:/smartdc/mdata:fetch"])

    def attach(self, vm: VM, argv: list[str]) -> bool:
        """Run a command in the zone; whether it succeeded."""
        return quiet("lxc-attach", "-P", str(self.containers), "-n", vm["uuid"], "--clear-env", "--", *argv)

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot_create(self, vm: VM, name: str) -> None:
        zfs("snapshot", f"{vm['zfs_filesystem']}@{SNAPSHOT}{name}")

    def snapshot_delete(self, vm: VM, name: str) -> None:
        zfs("destroy", f"{vm['zfs_filesystem']}@{SNAPSHOT}{name}")

    def snapshot_rollback(self, vm: VM, name: str) -> None:
        zfs("rollback", "-r", f"{vm['zfs_filesystem']}@{SNAPSHOT}{name}")

    def snapshots(self, vm: VM) -> list[Snapshot]:
        prefix = f"{vm['zfs_filesystem']}@{SNAPSHOT}"
        done = subprocess.run(
            [ZFS, "get", "-Hp", "-r", "-d", "1", "-o", "name,property,value", "creation,used", vm["zfs_filesystem"]],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found: dict[str, dict[str, int]] = {}
        for line in done.stdout.splitlines():
            name, key, value = line.split("\t")
            if name.startswith(prefix):
                found.setdefault(name[len(prefix) :], {})[key] = int(value)
        # Those of one second stand in the order in which ZFS lists them: of creation.
        oldest = sorted(found.items(), key=lambda item: item[1]["creation"])
        return [
            {"name": name, "size": values["used"] // MIB, "created_at": timestamp(values["creation"])}
            for name, values in reversed(oldest)
        ]

    # -- networks ----------------------------------------------------------------------------------------------------

    def nictag_add(self, name: str, kind: str, link: str | None, mtu: int | None) -> None:
        make_bridge(bridge(name), mtu, link)

    def nictag_delete(self, name: str) -> None:
        quiet("ip", "link", "delete", bridge(name))
