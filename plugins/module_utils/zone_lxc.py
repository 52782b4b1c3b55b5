# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zones as LXC containers: the only code that writes their configuration and calls lxc-*.

On disk (all below one directory, so that one bind mount gives a nested host everything)::

    /var/lib/lxc/<zone>/           config, zone.json (the description as applied), and the root: overlay: upper/ work/
                                   rootfs/; dir and btrfs: rootfs/
    /var/lib/lxc/zonestack/        images/<id>/{rootfs/,manifest.json}, volumes/<zone>/<volume>/, building/

A zone is built in ``building/`` and renamed into place, and renamed back before it is removed: under its own name it is
complete or not there. See lxc.container.conf(5), and the overlayfs and cgroup documents of the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import ipaddress
import json
import os
import re
import shutil
import signal
import stat
import struct
import time
import typing as t
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run
from ansible_collections.zonestack.openstack.plugins.module_utils.zone import Current, Volume, ZoneError, ZoneSpec

LXC_PATH = Path("/var/lib/lxc")
CGROUP = Path("/sys/fs/cgroup")
RESOLVED_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")  # systemd-resolved.service(8)
ID_RANGE = 65536  # users of a zone: every 16 bit id, as debian.userns.conf's users expect
CPU_PERIOD = 100_000  # microseconds; the kernel's own default period of cpu.max and cpu.cfs_period_us
MIB = 1024 * 1024
PAGE = os.sysconf("SC_PAGE_SIZE")
POLL = 0.02  # seconds between two looks at a file that announces readiness


@dataclass(frozen=True)
class Layer:
    """One read-only tree of an image and the offset of its owners (0: as a privileged zone sees it)."""

    image: str
    rootfs: Path
    shift: int


def veth_name(uuid: str, index: int) -> str:
    """The host's end of interface ``index``: stable, at most 15 characters, and tells which zone it belongs to."""
    return f"zs{uuid.replace('-', '')[:10]}n{index}"


def render_config(spec: ZoneSpec, zone_dir: Path, root: str, volumes: Path) -> str:
    """The LXC configuration of a zone: a pure function of its description and of where things lie.

    Limits are written for both cgroup versions; LXC takes those of the version that the host has.
    """
    lines = ["# Written by zonestack.openstack.zone; a change by hand is found and undone.", "# " + spec.uuid]

    def put(key: str, value: object) -> None:
        lines.append(f"lxc.{key} = {value}")

    put("include", "/usr/share/lxc/config/debian.common.conf")
    if not spec.privileged:
        put("include", "/usr/share/lxc/config/debian.userns.conf")
        put("idmap", f"u 0 {spec.idmap_base} {ID_RANGE}")
        put("idmap", f"g 0 {spec.idmap_base} {ID_RANGE}")
    put("apparmor.profile", "unconfined")
    put("uts.name", spec.name)
    put("rootfs.path", root)
    if root.startswith("overlayfs:"):
        # Layers built in a user namespace carry their marks in user.overlay.*; without it removing a lower directory
        # in an unprivileged zone fails with EIO.
        put("rootfs.options", "userxattr")
    put("start.auto", int(spec.autostart))
    if spec.memory is not None:
        put("cgroup.memory.limit_in_bytes", spec.memory * MIB)
        put("cgroup2.memory.max", spec.memory * MIB)
    if spec.cpu_cap is not None:
        put("cgroup.cpu.cfs_period_us", CPU_PERIOD)
        put("cgroup.cpu.cfs_quota_us", spec.cpu_cap * CPU_PERIOD // 100)
        put("cgroup2.cpu.max", f"{spec.cpu_cap * CPU_PERIOD // 100} {CPU_PERIOD}")
    for index, network in enumerate(spec.networks):
        net = f"net.{index}."
        put(net + "type", "veth")
        put(net + "link", network.bridge)
        put(net + "veth.pair", veth_name(spec.uuid, index))
        put(net + "name", network.name)
        put(net + "hwaddr", network.mac)
        put(net + "flags", "up")
        if network.mtu is not None:
            put(net + "mtu", network.mtu)
        for address in network.interfaces():
            put(f"{net}ipv{address.version}.address", address)
        if network.gateway is not None:
            put(f"{net}ipv{ipaddress.ip_address(network.gateway).version}.gateway", network.gateway)
    for volume in spec.volumes:
        put("mount.entry", f"{volumes / volume.name} {volume.path[1:]} none bind,create=dir 0 0")
    for device in spec.devices:
        put("mount.entry", f"{device} {device[1:]} none bind,create=file 0 0")
        number = _device_number(device)
        put("cgroup.devices.allow", f"{number} rwm")
        put("cgroup2.devices.allow", f"{number} rwm")
    if "all" in spec.capabilities:
        put("cap.drop", "")  # an empty value clears what the included files drop
    elif spec.capabilities:
        dropped = [one for one in COMMON_DROPPED if one not in spec.capabilities]
        put("cap.drop", "")
        put("cap.drop", " ".join(dropped))
    return "\n".join(lines) + "\n"


# What LXC's common.conf takes away from a privileged container; `capabilities` gives some of it back.
COMMON_DROPPED = ("mac_admin", "mac_override", "sys_time", "sys_module", "sys_rawio")


def _device_number(device: str) -> str:
    try:
        info = os.stat(device)
    except OSError:
        return "a 0:0"  # check() has refused, or will refuse, a device that is not there
    kind = "b" if stat.S_ISBLK(info.st_mode) else "c"
    return f"{kind} {os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"


class LxcBackend:
    """Zones on this machine as LXC containers; see :class:`~.zone.Backend` for the meaning of the calls."""

    live: t.ClassVar[frozenset[str]] = frozenset({"memory", "cpu_cap", "autostart", "metadata"})

    # The fields that a root file system is made from: when one changes, it is made anew (volumes stay).
    rebuilt: t.ClassVar[frozenset[str]] = frozenset({"image", "store", "privileged", "idmap_base", "quota"})

    def __init__(self, lxc_path: Path = LXC_PATH, *, start_timeout: float = 60, stop_timeout: float = 90) -> None:
        """``start_timeout``/``stop_timeout``: seconds until a start fails, or a graceful stop becomes a kill."""
        self.lxc_path = lxc_path
        self.store = lxc_path / "zonestack"
        self.images = self.store / "images"
        self.building = self.store / "building"
        self.start_timeout = start_timeout
        self.stop_timeout = stop_timeout

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self, name: str) -> t.Iterator[None]:
        """Hold a lock in /run; a call whose controller was killed may still be at work on the same zone."""
        limit = self.start_timeout + self.stop_timeout
        with open(f"/run/zonestack-zone-{name}.lock", "w") as lock:
            deadline = time.monotonic() + limit
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ZoneError(f"zone {name!r}: another call works on it since {limit:g} s: {lock.name}") from None
                    time.sleep(POLL)
            yield

    def effective(self, want: ZoneSpec) -> ZoneSpec:
        """Plain directories and overlays have no quota of their own; only btrfs and zfs can hold a zone to one."""
        return want if want.store in ("btrfs", "zfs") else replace(want, quota=None)

    def read(self, name: str, uuid: str) -> Current:
        """Read zone.json, config, the volumes and, of a running zone, its cgroup; one call of lxc-info at most."""
        zone_dir = self.lxc_path / name
        volumes = self._volumes(name)
        debris = bool(self._debris(name))
        if not zone_dir.exists():
            return Current(volumes=volumes, debris=debris)
        spec = self._recorded(zone_dir, name, uuid)
        pid = self._pid(name)
        drift = []
        if not self._root_complete(spec):
            # Something removed the root but not the zone. It is made anew as for another image.
            drift.append("image")
        if _read(zone_dir / "config") != self._config(spec):
            drift.append("config")
        if pid is not None:
            applied = self._limits(name, pid)
            spec_limits = {"memory": spec.memory, "cpu_cap": spec.cpu_cap}
            drift += [key for key, value in applied.items() if value != spec_limits[key]]
            spec = replace(spec, **applied)
        return Current(spec, pid is not None, pid, volumes, debris, tuple(drift))

    def _recorded(self, zone_dir: Path, name: str, uuid: str) -> ZoneSpec:
        """The description as applied; refuse a container that this collection has not made for this zone."""
        try:
            recorded = json.loads((zone_dir / "zone.json").read_text())
            spec = ZoneSpec.from_dict(recorded)
        except FileNotFoundError:
            raise ZoneError(
                f"zone {name!r}: {zone_dir} is there without a zone.json, so it is not a zone of this collection and is left "
                f"alone; remove or rename that container"
            ) from None
        except (ValueError, TypeError, KeyError) as bad:
            raise ZoneError(
                f"zone {name!r}: {zone_dir}/zone.json cannot be read ({bad}); restore it, or remove the container by hand"
            ) from None
        if spec.uuid != uuid:
            raise ZoneError(
                f"zone {name!r}: {zone_dir} belongs to the zone with uuid {spec.uuid}, not {uuid} (another deployment on this "
                f"host?); remove that zone first, or give this host another name"
            )
        return spec

    def _pid(self, name: str) -> int | None:
        """The zone's init as a process of this machine, or None when it does not run."""
        # Without the command socket there is no monitor; that saves the process for a stopped zone.
        if f"@{self.lxc_path}/{name}/command" not in _read(Path("/proc/net/unix")):
            return None
        done = run(["lxc-info", "-P", str(self.lxc_path), "-n", name, "-p", "-H"], check=False, timeout=20)
        out = done.out.strip()
        return int(out) if out.isdigit() and int(out) > 0 else None

    def _volumes(self, name: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(one.name for one in os.scandir(self.store / "volumes" / name) if one.is_dir()))
        except FileNotFoundError:
            return ()

    def _debris(self, name: str) -> list[Path]:
        """What interrupted calls for this zone left in building/; a zone name holds no dot."""
        return [Path(one) for one in glob.glob(f"{self.building}/{name}.*")]

    def _root_complete(self, spec: ZoneSpec) -> bool:
        zone_dir = self.lxc_path / spec.name
        return (zone_dir / ("upper" if spec.store == "overlay" else "rootfs")).is_dir() or spec.store == "zfs"

    def _cgroup_dir(self, name: str, pid: int, controller: str) -> Path | None:
        """Where the kernel accounts the zone for ``controller``: above what the zone's own init made below it."""
        for line in _read(Path(f"/proc/{pid}/cgroup")).splitlines():
            _number, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            parts = path.split("/")
            payload = [index for index, part in enumerate(parts) if part.startswith(f"lxc.payload.{name}")]
            if not payload:
                continue
            mount = CGROUP / controller if controllers else CGROUP
            found = mount / "/".join(parts[1 : payload[0] + 1])
            if controllers or (found / _LIMIT_FILES[controller][1]).exists():
                return found
        return None

    def _limits(self, name: str, pid: int) -> dict[str, int | None]:
        """Memory (MiB) and CPU cap (per cent of a core) as the kernel enforces them now."""
        found: dict[str, int | None] = {}
        memory = self._cgroup_dir(name, pid, "memory")
        if memory is not None:
            text = _read(memory / "memory.max") or _read(memory / "memory.limit_in_bytes")
            limit = text.strip()
            # Version 1 has no word for "no limit": it shows the largest multiple of a page.
            unlimited = limit in ("", "max") or int(limit) >= 2**63 - PAGE
            found["memory"] = None if unlimited else int(limit) // MIB
        cpu = self._cgroup_dir(name, pid, "cpu")
        if cpu is not None:
            text = _read(cpu / "cpu.max") or f"{_read(cpu / 'cpu.cfs_quota_us')} {_read(cpu / 'cpu.cfs_period_us')}"
            quota, period = (*text.split(), "", "")[:2]
            found["cpu_cap"] = None if quota in ("", "max", "-1") else int(quota) * 100 // int(period)
        return found

    # -- images ----------------------------------------------------------------------------------------------------

    def _chain(self, image: str) -> list[Layer]:
        """The layers of an image, topmost first, from the manifests on disk."""
        layers: list[Layer] = []
        wanted: str | None = image
        while wanted:
            folder = self.images / wanted
            try:
                manifest = json.loads((folder / "manifest.json").read_text())
                owner = (folder / "rootfs").stat().st_uid
            except (FileNotFoundError, NotADirectoryError):
                role = "image" if not layers else f"image {layers[-1].image!r} needs its parent, which"
                raise ZoneError(f"{role} {wanted!r} is not on this host; there are: {self._present()}") from None
            except ValueError as bad:
                raise ZoneError(f"image {wanted!r}: {folder}/manifest.json cannot be read ({bad}); build the image anew") from None
            layers.append(Layer(wanted, folder / "rootfs", owner))
            wanted = manifest.get("parent")
            if wanted in [layer.image for layer in layers]:
                raise ZoneError(f"image {image!r}: its manifest names {wanted!r} as a parent twice; build the image anew")
        return layers

    def _present(self) -> str:
        names = [Path(one).parent.name for one in glob.glob(f"{self.images}/*/manifest.json")]
        return ", ".join(sorted(names)) or f"none in {self.images}"

    def _lower(self, layer: Layer, base: int) -> Path:
        """Where the layer lies with its owners shifted by ``base``."""
        return layer.rootfs if layer.shift == base else layer.rootfs.with_name(f"rootfs.{base}")

    def check(self, want: ZoneSpec) -> None:
        """Refuse an image, a bridge, a user or a device that is not there, before anything changes."""
        if not want.image:
            raise ZoneError(f"zone {want.name!r}: image: none given; there are: {self._present()}")
        try:
            layers = self._chain(want.image)
        except ZoneError as bad:
            raise ZoneError(f"zone {want.name!r}: {bad}") from None
        for index, network in enumerate(want.networks):
            if not Path(f"/sys/class/net/{network.bridge}/bridge").is_dir():
                bridges = [Path(one).parent.name for one in glob.glob("/sys/class/net/*/bridge")]
                raise ZoneError(
                    f"zone {want.name!r}: networks[{index}].bridge: {network.bridge!r} is no bridge of this host; there are: "
                    + (", ".join(sorted(bridges)) or "none")
                )
        for volume in want.volumes:
            self._owner(want, volume, layers)
        for device in want.devices:
            mode = os.stat(device).st_mode if os.path.exists(device) else 0
            if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
                raise ZoneError(f"zone {want.name!r}: devices: {device!r} is no device of this host")
        if not want.privileged:
            for kind in ("subuid", "subgid"):
                self._check_range(want, Path("/etc") / kind)
        self._check_store(want)

    def _check_range(self, want: ZoneSpec, path: Path) -> None:
        """newuidmap(1), where installed, maps only ranges that root has in subuid(5) and subgid(5)."""
        if shutil.which("newuidmap") is None:
            return
        for line in _read(path).splitlines():
            user, _, rest = line.partition(":")
            first, _, count = rest.partition(":")
            if user in ("root", "0") and first.isdigit() and count.isdigit():
                if int(first) <= want.idmap_base and want.idmap_base + ID_RANGE <= int(first) + int(count):
                    return
        raise ZoneError(
            f"zone {want.name!r}: {path} gives root no users from {want.idmap_base} on; add the line "
            f"root:{want.idmap_base}:{ID_RANGE}"
        )

    def _check_store(self, want: ZoneSpec) -> None:
        if want.store != "overlay" and want.store != "dir":
            raise ZoneError(f"zone {want.name!r}: store: {want.store!r} is not there yet; take overlay or dir")

    def _owner(self, spec: ZoneSpec, volume: Volume, layers: list[Layer]) -> tuple[int, int]:
        """Uid and gid, inside the zone, of a new volume; a name is looked up in the image's passwd(5)."""
        if volume.owner is None:
            return 0, 0
        if volume.owner.isdigit():
            if int(volume.owner) >= ID_RANGE:
                raise ZoneError(f"zone {spec.name!r}: volumes.{volume.name}.owner: {volume.owner} is not below {ID_RANGE}")
            return int(volume.owner), int(volume.owner)
        for layer in layers:
            text = _read(layer.rootfs / "etc/passwd")
            for line in text.splitlines():
                user = line.split(":")
                if user[0] == volume.owner:
                    return int(user[2]), int(user[3])
            if text:  # the topmost passwd hides those below it
                break
        raise ZoneError(f"zone {spec.name!r}: volumes.{volume.name}.owner: image {spec.image} has no user {volume.owner!r}")

    # -- changing --------------------------------------------------------------------------------------------------

    def _config(self, spec: ZoneSpec) -> str:
        zone_dir = self.lxc_path / spec.name
        if spec.store == "overlay":
            try:
                layers = self._chain(spec.image)
            except ZoneError:
                return ""  # its image is gone from the host: nothing on disk can be right
            base = 0 if spec.privileged else spec.idmap_base
            root = "overlayfs:" + ":".join(str(self._lower(layer, base)) for layer in layers) + f":{zone_dir}/upper"
        else:
            root = f"dir:{zone_dir}/rootfs"
        return render_config(spec, zone_dir, root, self.store / "volumes" / spec.name)

    def create(self, want: ZoneSpec) -> None:
        """Build the zone's directory aside, volumes first, and rename it into place."""
        self._sweep(want.name)
        self._make_volumes(want)
        base = 0 if want.privileged else want.idmap_base
        for folder in (self.store, self.building):
            folder.mkdir(mode=0o711, exist_ok=True)
        new = self.building / f"{want.name}.new"
        new.mkdir(mode=0o711)
        self._make_root(want, new, base)
        _write(new / "zone.json", _dump(want))
        _write(new / "config", self._config(want))
        os.rename(new, self.lxc_path / want.name)

    def update(self, want: ZoneSpec, changed: t.Collection[str], running: bool) -> None:
        """Change a zone in place; when its root's ingredients changed, the root is made anew and the volumes stay."""
        if self.rebuilt & set(changed):
            self.destroy(want.name, purge=False)
            self.create(want)
            return
        zone_dir = self.lxc_path / want.name
        if "volumes" in changed:
            self._make_volumes(want)
        if "networks" in changed:
            root = zone_dir / ("upper" if want.store == "overlay" else "rootfs")
            _put(root, "hosts", _hosts(want), 0 if want.privileged else want.idmap_base)
        if running:
            self._set_limits(want, changed)
        # zone.json last: until it says so, a change is not made, and the next call makes it again.
        _write(zone_dir / "config", self._config(want))
        _write(zone_dir / "zone.json", _dump(want))

    def _set_limits(self, want: ZoneSpec, changed: t.Collection[str]) -> None:
        """Write the limits of a running zone into its cgroup (no value: no limit)."""
        pid = self._pid(want.name)
        if pid is None:
            raise ZoneError(f"zone {want.name!r}: it ended while it was being changed; call again")
        quota = None if want.cpu_cap is None else want.cpu_cap * CPU_PERIOD // 100
        values = {
            "memory": ("-1" if want.memory is None else str(want.memory * MIB), "max"),
            "cpu": ("-1" if quota is None else str(quota), f"max {CPU_PERIOD}"),
        }
        for field_name, controller in (("memory", "memory"), ("cpu_cap", "cpu")):
            folder = self._cgroup_dir(want.name, pid, controller) if field_name in changed else None
            if folder is None:
                continue
            value, none = values[controller]
            first, second = (folder / one for one in _LIMIT_FILES[controller])
            try:
                if first.exists():
                    if controller == "cpu" and value != "-1":
                        (folder / "cpu.cfs_period_us").write_text(str(CPU_PERIOD))
                    first.write_text(value)
                else:
                    second.write_text(none if value == "-1" else f"{value} {CPU_PERIOD}" if controller == "cpu" else value)
            except OSError as bad:
                raise ZoneError(
                    f"zone {want.name!r}: {field_name}: the kernel refuses {getattr(want, field_name)} in {folder} ({bad.strerror}); "
                    f"the zone may use more than that now: restart it or give more"
                ) from None

    def _make_volumes(self, want: ZoneSpec) -> None:
        """Make the missing volumes. One that exists keeps its owner and mode: its data belongs to the service."""
        if not want.volumes:
            return
        base = 0 if want.privileged else want.idmap_base
        layers = self._chain(want.image)
        folder = self.store / "volumes" / want.name
        for parent in (self.store, folder.parent, folder):
            parent.mkdir(mode=0o711, exist_ok=True)
        for volume in want.volumes:
            path = folder / volume.name
            if path.exists():
                continue
            uid, gid = self._owner(want, volume, layers)
            new = folder / f".{volume.name}"
            new.mkdir(mode=0o755, exist_ok=True)
            os.chown(new, base + uid, base + gid)
            os.rename(new, path)

    def _make_root(self, want: ZoneSpec, new: Path, base: int) -> None:
        """Make the zone's writable root in ``new`` and write what tells it who it is."""
        layers = self._chain(want.image)
        if want.store == "overlay":
            for name in ("upper", "work", "rootfs"):
                (new / name).mkdir(mode=0o755)
                os.chown(new / name, base, base)
            root = new / "upper"
            (root / "etc").mkdir(mode=0o755)
            os.chown(root / "etc", base, base)
        else:
            root = new / "rootfs"
            self._flatten(layers, base, root)
        for name, content in (
            ("hostname", want.name + "\n"),
            ("hosts", _hosts(want)),
            ("machine-id", want.uuid.replace("-", "") + "\n"),
            ("resolv.conf", _resolver()),
        ):
            _put(root, name, content, base)

    def _flatten(self, layers: list[Layer], base: int, target: Path) -> None:
        """Copy the merged layers to ``target``; shares blocks where the file system can (reflink)."""
        lowers = [str(self._lower(layer, base)) for layer in layers]
        copy = ["cp", "-a", "--reflink=auto"]
        if len(lowers) == 1:
            run([*copy, lowers[0], str(target)], timeout=600)
            return
        # Whiteouts and opaque directories are resolved by the kernel: mount the layers where only this command sees them,
        # so that nothing stays mounted however it ends.
        merged = target.with_name("merged")
        merged.mkdir()
        script = 'mount -t overlay overlay -o "ro,userxattr,lowerdir=$1" "$2" && exec cp -a "$2" "$3"'
        run(["unshare", "-m", "sh", "-c", script, "sh", ":".join(lowers), str(merged), str(target)], timeout=600)
        merged.rmdir()

    def destroy(self, name: str, purge: bool) -> None:
        """Move the zone aside, then remove it and any debris; what is moved aside is no zone any more."""
        zone_dir = self.lxc_path / name
        if zone_dir.exists():
            self.building.mkdir(mode=0o711, exist_ok=True)
            os.rename(zone_dir, self.building / f"{name}.{time.time_ns()}")
        self._sweep(name)
        if purge:
            shutil.rmtree(self.store / "volumes" / name, ignore_errors=False)

    def _sweep(self, name: str) -> None:
        for path in self._debris(name):
            shutil.rmtree(path)

    # -- power -----------------------------------------------------------------------------------------------------

    def power(self, name: str, on: bool) -> None:
        """Start the zone and wait until it answers, or stop it and wait until it is gone."""
        if on:
            self._start(name)
        else:
            self._stop(name)

    def _start(self, name: str) -> None:
        spec = ZoneSpec.from_dict(json.loads((self.lxc_path / name / "zone.json").read_text()))
        self._clear_remains(spec)
        log = self.lxc_path / name / "start.log"
        log.unlink(missing_ok=True)
        deadline = time.monotonic() + self.start_timeout
        try:
            run(
                ["lxc-start", "-P", str(self.lxc_path), "-n", name, "-d", "-l", "ERROR", "-o", str(log)],
                timeout=self.start_timeout,
            )
        except CommandError as bad:
            raise ZoneError(f"zone {name!r} does not start: {bad}{_errors(log)}") from None
        pid = self._pid(name)
        while not (pid and _answers(pid)):
            if pid is None or not Path(f"/proc/{pid}").exists():
                raise ZoneError(f"zone {name!r} ended right after its start{_errors(log)}")
            if time.monotonic() > deadline:
                raise ZoneError(
                    f"zone {name!r} runs since {self.start_timeout:g} s, but its init ({_exe(pid)}, process {pid}) does not answer; "
                    f"see what it says on its console: lxc-start -F -n {name}{_errors(log)}"
                )
            time.sleep(POLL)

    def _clear_remains(self, spec: ZoneSpec) -> None:
        """Remove what a killed monitor left: processes of the zone that nobody watches, and its network interfaces."""
        for procs in glob.glob(f"{CGROUP}/**/lxc.payload.{spec.name}/cgroup.procs", recursive=False) + glob.glob(
            f"{CGROUP}/lxc.payload.{spec.name}/cgroup.procs"
        ):
            for pid in _read(Path(procs)).split():
                if f"/{spec.name}/" in _read(Path(f"/proc/{pid}/mountinfo")):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        for index in range(len(spec.networks)):
            device = veth_name(spec.uuid, index)
            if Path(f"/sys/class/net/{device}").exists():
                run(["ip", "link", "delete", device], check=False)

    def _stop(self, name: str) -> None:
        """Ask init to halt (the signal that its kind expects), and kill what is left at the limit."""
        run(
            ["lxc-stop", "-P", str(self.lxc_path), "-n", name, "-t", str(int(self.stop_timeout))],
            timeout=self.stop_timeout + 30,
            check=False,  # it also fails when the zone ended by itself meanwhile; what counts is looked at next
        )
        deadline = time.monotonic() + 10
        while self._pid(name) is not None or self._monitored(name):
            if time.monotonic() > deadline:
                raise ZoneError(f"zone {name!r} does not stop, not even killed; look for a process in state D: lxc-info -n {name}")
            time.sleep(POLL)

    def _monitored(self, name: str) -> bool:
        return f"@{self.lxc_path}/{name}/command" in _read(Path("/proc/net/unix"))


# The files of a limit: cgroup version 1, version 2.
_LIMIT_FILES = {"memory": ("memory.limit_in_bytes", "memory.max"), "cpu": ("cpu.cfs_quota_us", "cpu.max")}


def _answers(pid: int) -> bool:
    """Whether the zone's init takes requests: systemd has its socket; any other init has replaced LXC's process."""
    exe = _exe(pid)
    if os.path.basename(exe) == "systemd":
        return any(Path(f"/proc/{pid}/root/run/{one}").exists() for one in ("systemd/private", "dbus/system_bus_socket"))
    return bool(exe) and not os.path.basename(exe).startswith("lxc")


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _errors(log: Path) -> str:
    """The ERROR lines of LXC's log, for a message that carries the cause."""
    lines = [line.split(" ERROR ", 1)[1].strip() for line in _read(log).splitlines() if " ERROR " in line]
    return "".join(f"\n  {line}" for line in lines[:12])


def _hosts(spec: ZoneSpec) -> str:
    """hosts(5) of a zone: itself by its first address; others are found by the deployment's own means."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    address = next((network.address for network in spec.networks if network.address), "127.0.1.1")
    return "\n".join([*lines, f"{address} {spec.name}", ""])


def _resolver() -> str:
    """The host's resolv.conf(5), or the upstream file when the host's names only a resolver on itself."""
    text = _read(Path("/etc/resolv.conf"))
    servers = re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE)
    if servers and all(one.startswith("127.") or one == "::1" for one in servers):
        return _read(RESOLVED_UPSTREAM) or text
    return text


def _put(root: Path, name: str, content: str, base: int) -> None:
    """Write ``etc/<name>`` of a zone's root, owned by its root user.

    The zone's own root may have put a symbolic link anywhere in there: no link is followed out of it.
    """
    top = os.open(root, os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        etc = os.open("etc", os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    finally:
        os.close(top)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=etc)
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=etc)
        with os.fdopen(handle, "w") as out:
            out.write(content)
            os.fchmod(handle, 0o644)
            os.fchown(handle, base, base)
    finally:
        os.close(etc)


def _dump(spec: ZoneSpec) -> str:
    return json.dumps(spec.to_dict(), indent=2, sort_keys=True) + "\n"


def _write(path: Path, content: str) -> None:
    """Replace a file so that a reader, or a call after a crash, sees the old or the new content."""
    new = path.with_name(f".{path.name}.new")
    with open(new, "w") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, path)


def _read(path: Path) -> str:
    """The text of a file, or nothing when it is not there or not readable any more."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
