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
import glob
import ipaddress
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
import typing as t
from dataclasses import replace
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import (
    CommandError,
    run,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.model import (
    Current,
    Volume,
    ZoneError,
    ZoneSpec,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.files import (
    hosts,
    locked,
    put,
    read_text,
    resolv_conf,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc_root import (
    ID_RANGE,
    STORES,
    Images,
    Layer,
    Store,
    Zfs,
    remove_tree,
)

LXC_PATH = Path("/var/lib/lxc")
CGROUP = Path("/sys/fs/cgroup")
CPU_PERIOD = 100_000  # microseconds; the kernel's own default period of cpu.max and cpu.cfs_period_us
MIB = 1024 * 1024
PAGE = os.sysconf("SC_PAGE_SIZE")
POLL = 0.02  # seconds between two looks at a file that announces readiness


def veth_name(uuid: str, index: int) -> str:
    """The host's end of interface ``index``: stable, at most 15 characters, and tells which zone it belongs to."""
    return f"zs{uuid.replace('-', '')[:10]}n{index}"


def render_config(spec: ZoneSpec, root: str, volumes: Path) -> str:
    """The LXC configuration of a zone: a pure function of its description and of where things lie.

    Limits are written for both cgroup versions; LXC takes those of the version that the host has.
    """
    lines = ["# Written by zonestack.openstack.zone; a change by hand is found and undone.", "# " + spec.uuid]

    def put(key: str, value: object) -> None:
        lines.append(f"lxc.{key} = {value}")

    # The files that LXC itself ships. Debian's variants come with lxc-templates, which nothing else here needs; what they
    # add for systemd's consoles is said below.
    put("include", "/usr/share/lxc/config/common.conf")
    if not spec.privileged:
        put("include", "/usr/share/lxc/config/userns.conf")
        put("idmap", f"u 0 {spec.idmap_base} {ID_RANGE}")
        put("idmap", f"g 0 {spec.idmap_base} {ID_RANGE}")
    put("tty.dir", "")
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
        number = _device_number(device)
        if number is None:
            continue
        put("mount.entry", f"{device} {device[1:]} none bind,create=file 0 0")
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


def _device_number(device: str) -> str | None:
    """A device of this host as the kernel knows it; none where there is no such device."""
    try:
        info = os.stat(device)
    except OSError:
        return None
    if not stat.S_ISCHR(info.st_mode) and not stat.S_ISBLK(info.st_mode):
        return None
    kind = "b" if stat.S_ISBLK(info.st_mode) else "c"
    return f"{kind} {os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"


class LxcBackend:
    """Zones on this machine as LXC containers; see :class:`~.zone.Backend` for the meaning of the calls."""

    live: t.ClassVar[frozenset[str]] = frozenset(
        {"memory", "cpu_cap", "quota", "autostart", "metadata", "limits", "ports"}
    )

    # The fields that a root file system is made from: when one changes, it is made anew (volumes stay).
    rebuilt: t.ClassVar[frozenset[str]] = frozenset({"image", "store", "privileged", "idmap_base"})

    def __init__(self, lxc_path: Path = LXC_PATH, *, start_timeout: float = 60, stop_timeout: float = 90) -> None:
        """``start_timeout``/``stop_timeout``: seconds until a start fails, or a graceful stop becomes a kill."""
        self.lxc_path = lxc_path
        self.store = lxc_path / "zonestack"
        self.images = Images(self.store / "images")
        self.building = self.store / "building"
        self.start_timeout = start_timeout
        self.stop_timeout = stop_timeout
        self._lock: int | None = None

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self, name: str) -> t.Iterator[None]:
        """Hold a lock in /run; a call whose controller was killed may still be at work on the same zone."""
        with locked(f"zone-{name}", self.start_timeout + self.stop_timeout) as lock:
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None

    def effective(self, want: ZoneSpec) -> ZoneSpec:
        """What this host can give of it.

        Plain directories and overlays have no quota of their own; only btrfs and zfs can hold a zone to one. Of the devices,
        a host without KVM, for one, has not all: who needs one in the zone finds it missing there. A bridge asks nobody for
        an address, so that other virtual ones are no change.
        """
        here = replace(
            want,
            devices=tuple(device for device in want.devices if _device_number(device)),
            networks=tuple(replace(network, vips=()) for network in want.networks),
        )
        return here if STORES[want.store].has_quota else replace(here, quota=None)

    def read(self, name: str, uuid: str) -> Current:
        """Read zone.json, config, the volumes and, of a running zone, its cgroup; one call of lxc-info at most."""
        zone_dir = self.lxc_path / name
        volumes = self._volumes(name)
        debris = bool(self._debris(name))
        if not zone_dir.exists():
            return Current(volumes=volumes, debris=debris)
        spec = self._recorded(zone_dir, name, uuid)
        pid = self._pid(name)
        drift = self._drift(spec, zone_dir, volumes)
        if pid is not None:
            applied = self._limits(name, pid)
            drift += [key for key, value in applied.items() if value != getattr(spec, key)]
            drift += self._detached(spec)
            spec = replace(
                spec, memory=applied.get("memory", spec.memory), cpu_cap=applied.get("cpu_cap", spec.cpu_cap)
            )
        return Current(spec, pid is not None, pid, volumes, debris, tuple(drift))

    def _drift(self, spec: ZoneSpec, zone_dir: Path, volumes: tuple[str, ...]) -> list[str]:
        """In what the files of a zone are not what its description says.

        Besides fields of the description: ``config``, its lines that count at the next start, and ``limits``, those that
        are applied to a running zone anyway.
        """
        drift = []
        if not self._root(spec.store).path(zone_dir).is_dir():
            drift.append("image")  # the root is gone but not the zone: it is made anew, as for another image
        if any(volume.name not in volumes for volume in spec.volumes):
            drift.append("volumes")
        found, right = read_text(zone_dir / "config").splitlines(), self._config(spec).splitlines()
        if [one for one in found if not one.startswith(LIVE_KEYS)] != [
            one for one in right if not one.startswith(LIVE_KEYS)
        ]:
            drift.append("config")
        elif found != right:
            drift.append("limits")
        return drift

    def _detached(self, spec: ZoneSpec) -> list[str]:
        """``ports`` when an interface of the running zone lost its bridge, ``networks`` when it is gone altogether."""
        drift = []
        for index, network in enumerate(spec.networks):
            device = Path("/sys/class/net") / veth_name(spec.uuid, index)
            if not device.exists():
                drift.append("networks")
            elif not (device / "master").exists() or (device / "master").resolve().name != network.bridge:
                drift.append("ports")
        return list(dict.fromkeys(drift))

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

    def _monitored(self, name: str) -> bool:
        """Whether LXC's monitor of the zone lives: it listens on a socket. Saves a process for a stopped zone."""
        return f"@{self.lxc_path}/{name}/command" in read_text(Path("/proc/net/unix"))

    def _pid(self, name: str) -> int | None:
        """The zone's init as a process of this machine, or None when it does not run.

        A zone on its way up or down (a host that boots, an init that was killed this moment) is waited for.
        """
        deadline = time.monotonic() + self.start_timeout
        while self._monitored(name):
            done = run(["lxc-info", "-P", str(self.lxc_path), "-n", name, "-s", "-p", "-H"], check=False, timeout=20)
            found = dict(line.split(":", 1) for line in done.out.splitlines() if ":" in line)
            state, pid = found.get("State", "").strip(), found.get("PID", "").strip()
            if state in ("RUNNING", "FROZEN") and pid.isdigit() and _alive(int(pid)):
                return int(pid)
            if time.monotonic() > deadline:
                raise ZoneError(
                    f"zone {name!r} is {state or 'in no state'} for more than {self.start_timeout:g} s: lxc-info -n {name}"
                )
            time.sleep(POLL)
        return None

    def _volumes(self, name: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(one.name for one in os.scandir(self.store / "volumes" / name) if one.is_dir()))
        except FileNotFoundError:
            return ()

    def _debris(self, name: str) -> list[Path]:
        """What interrupted calls for this zone left in building/; a zone name holds no dot."""
        found = [Path(one) for one in glob.glob(f"{self.building}/{name}.*")]
        root = self.store / "roots" / name
        return found if (self.lxc_path / name).exists() or not root.exists() else [*found, root]

    def _root(self, store: str) -> Store:
        return STORES[store](self.images, self.store / "roots")

    def _cgroup_dir(self, name: str, pid: int, controller: str) -> Path | None:
        """Where the kernel accounts the zone for ``controller``: above what the zone's own init made below it."""
        for line in read_text(Path(f"/proc/{pid}/cgroup")).splitlines():
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
            text = read_text(memory / "memory.max") or read_text(memory / "memory.limit_in_bytes")
            limit = text.strip()
            # Version 1 has no word for "no limit": it shows the largest multiple of a page.
            unlimited = limit in ("", "max") or int(limit) >= 2**63 - PAGE
            found["memory"] = None if unlimited else int(limit) // MIB
        cpu = self._cgroup_dir(name, pid, "cpu")
        if cpu is not None:
            text = (
                read_text(cpu / "cpu.max")
                or f"{read_text(cpu / 'cpu.cfs_quota_us')} {read_text(cpu / 'cpu.cfs_period_us')}"
            )
            quota, period = (*text.split(), "", "")[:2]
            found["cpu_cap"] = None if quota in ("", "max", "-1") else int(quota) * 100 // int(period)
        return found

    def check(self, want: ZoneSpec) -> None:
        """Refuse an image, a bridge, a user or a device that is not there, before anything changes."""
        if not want.image:
            raise ZoneError(f"zone {want.name!r}: image: none given; there are: {self.images.present()}")
        try:
            layers = self.images.chain(want.image)
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
        if not self.lxc_path.stat().st_mode & stat.S_IXOTH:
            raise ZoneError(
                f"zone {want.name!r}: the users of a zone cannot pass through {self.lxc_path} to its files; run chmod o+x "
                f"{self.lxc_path}"
            )
        if not want.privileged:
            for kind in ("subuid", "subgid"):
                self._check_range(want, Path("/etc") / kind)
        self._root(want.store).check(want.name)

    def _check_range(self, want: ZoneSpec, path: Path) -> None:
        """newuidmap(1), where installed, maps only ranges that root has in subuid(5) and subgid(5)."""
        if shutil.which("newuidmap") is None:
            return
        for line in read_text(path).splitlines():
            user, _colon, rest = line.partition(":")
            first, _colon, count = rest.partition(":")
            if user not in ("root", "0") or not first.isdigit() or not count.isdigit():
                continue
            if int(first) <= want.idmap_base and want.idmap_base + ID_RANGE <= int(first) + int(count):
                return
        raise ZoneError(
            f"zone {want.name!r}: {path} gives root no users from {want.idmap_base} on; add the line "
            f"root:{want.idmap_base}:{ID_RANGE}"
        )

    def _owner(self, spec: ZoneSpec, volume: Volume, layers: list[Layer]) -> tuple[int, int]:
        """Uid and gid, inside the zone, of a new volume; a name is looked up in the image's passwd(5)."""
        if volume.owner is None:
            return 0, 0
        if volume.owner.isdigit():
            if int(volume.owner) >= ID_RANGE:
                raise ZoneError(
                    f"zone {spec.name!r}: volumes.{volume.name}.owner: {volume.owner} is not below {ID_RANGE}"
                )
            return int(volume.owner), int(volume.owner)
        user = self.images.user(layers, volume.owner)
        if user is not None:
            return user
        raise ZoneError(
            f"zone {spec.name!r}: volumes.{volume.name}.owner: image {spec.image} has no user {volume.owner!r}"
        )

    # -- changing --------------------------------------------------------------------------------------------------

    def _config(self, spec: ZoneSpec) -> str:
        zone_dir = self.lxc_path / spec.name
        try:
            layers = self.images.chain(spec.image)
        except ZoneError:
            return ""  # its image is gone from the host: nothing on disk can be right
        root = self._root(spec.store).lxc(zone_dir, layers, _base(spec))
        return render_config(spec, root, self.store / "volumes" / spec.name)

    def create(self, want: ZoneSpec) -> None:
        """Build the zone's directory aside, volumes first, and rename it into place."""
        self._sweep(want.name)
        self._make_volumes(want)
        for folder in (self.store, self.building):
            folder.mkdir(mode=0o711, exist_ok=True)
        new = self.building / f"{want.name}.new"
        new.mkdir()
        # Uid 100000 passes through on its way to its root; nobody else lists or enters what is inside.
        os.chmod(new, 0o711)
        store = self._root(want.store)
        root = store.build(new, want.name, self.images.chain(want.image), _base(want))
        for name, content in (
            ("hostname", want.name + "\n"),
            ("hosts", hosts(want)),
            ("machine-id", want.uuid.replace("-", "") + "\n"),
            ("resolv.conf", resolv_conf()),
        ):
            put(root, name, content, _base(want))
        _write(new / "zone.json", _dump(want))
        _write(new / "config", self._config(want))
        if want.quota is not None:
            store.limit(root, want.quota)
        os.rename(new, self.lxc_path / want.name)

    def update(self, want: ZoneSpec, changed: t.Collection[str], running: bool) -> None:
        """Change a zone in place; when its root's ingredients changed, the root is made anew and the volumes stay."""
        if self.rebuilt & set(changed):
            self.destroy(want.name, purge=False)
            self.create(want)
            return
        zone_dir = self.lxc_path / want.name
        store = self._root(want.store)
        if "volumes" in changed:
            self._make_volumes(want)
        if "networks" in changed:
            put(store.path(zone_dir), "hosts", hosts(want), _base(want))
        if "quota" in changed:
            store.limit(store.path(zone_dir), want.quota)
        if running:
            self._set_limits(want, changed)
        if running and "ports" in changed:
            for index, network in enumerate(want.networks):
                run(["ip", "link", "set", veth_name(want.uuid, index), "master", network.bridge, "up"])
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
                    second.write_text(
                        none if value == "-1" else f"{value} {CPU_PERIOD}" if controller == "cpu" else value
                    )
            except OSError as bad:
                raise ZoneError(
                    f"zone {want.name!r}: {field_name}: the kernel refuses {getattr(want, field_name)} in {folder} ({bad.strerror}); "
                    f"the zone may use more than that now: restart it or give more"
                ) from None

    def _make_volumes(self, want: ZoneSpec) -> None:
        """Make the missing volumes. One that exists keeps its owner and mode: its data belongs to the service."""
        if not want.volumes:
            return
        base = _base(want)
        layers = self.images.chain(want.image)
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

    def destroy(self, name: str, purge: bool) -> None:
        """Move the zone aside, then remove it and any debris; what is moved aside is no zone any more."""
        zone_dir = self.lxc_path / name
        if zone_dir.exists():
            self.building.mkdir(mode=0o711, exist_ok=True)
            os.rename(zone_dir, self.building / f"{name}.{time.time_ns()}")
        self._sweep(name)
        if purge and (self.store / "volumes" / name).exists():
            shutil.rmtree(self.store / "volumes" / name)

    def _sweep(self, name: str) -> None:
        for path in self._debris(name):
            if path.parent == self.building:
                remove_tree(path / "rootfs")
                remove_tree(path)
            else:
                Zfs(self.images, path.parent).remove(name)

    # -- power -----------------------------------------------------------------------------------------------------

    def power(self, name: str, on: bool) -> None:
        """Start the zone, or stop it and wait until it is gone."""
        if on:
            self._start(name)
        else:
            self._stop(name)

    def _log(self, name: str) -> Path:
        return self.lxc_path / name / "start.log"

    def _start(self, name: str) -> None:
        spec = ZoneSpec.from_dict(json.loads((self.lxc_path / name / "zone.json").read_text()))
        self._clear_remains(spec)
        log = self._log(name)
        log.unlink(missing_ok=True)
        argv = ["lxc-start", "-P", str(self.lxc_path), "-n", name, "-d", "-l", "ERROR", "-o", str(log)]
        # lxc-start inherits the lock: should this process be killed, the next call waits until the zone has a monitor, and
        # does not take a zone that is just coming up for one that is down. The monitor itself closes what it inherits.
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self.start_timeout,
                check=False,
                pass_fds=() if self._lock is None else (self._lock,),
            )
        except subprocess.TimeoutExpired:
            raise ZoneError(f"zone {name!r} does not start within {self.start_timeout:g} s{_errors(log)}") from None
        if done.returncode != 0:
            raise ZoneError(
                f"zone {name!r} does not start: {CommandError(argv, done.returncode, done.stderr)}{_errors(log)}"
            )

    def ready(self, name: str) -> int:
        """Wait until init takes requests; the limit counts from here."""
        deadline = time.monotonic() + self.start_timeout
        log = self._log(name)
        while True:
            pid = self._pid(name)
            if pid is None:
                raise ZoneError(f"zone {name!r} ended before it took requests{_errors(log)}")
            while _alive(pid):
                if _answers(pid):
                    return pid
                if time.monotonic() > deadline:
                    raise ZoneError(
                        f"zone {name!r} runs for {self.start_timeout:g} s and more, but its init ({_exe(pid)}, process {pid}) does "
                        f"not answer; see its console: lxc-start -F -n {name}{_errors(log)}"
                    )
                time.sleep(POLL)

    def _clear_remains(self, spec: ZoneSpec) -> None:
        """End what a killed monitor left: processes of the zone that nobody watches, and its network interfaces.

        Two inits on one root would destroy it, so this waits until the last of them is gone.
        """
        deadline = time.monotonic() + self.stop_timeout
        while left := self._processes(spec.name):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise ZoneError(
                    f"zone {spec.name!r}: processes of its last run cannot be killed: {left}; see ps(1), state D"
                )
            time.sleep(POLL)
        for index in range(len(spec.networks)):
            device = veth_name(spec.uuid, index)
            if Path(f"/sys/class/net/{device}").exists():
                run(["ip", "link", "delete", device], check=False)

    def _processes(self, name: str) -> list[int]:
        """The processes of a zone, found by its cgroups and proven by the root that they see.

        LXC adds a number to a cgroup's name when the name is taken, so the name alone may mean another zone.
        """
        inside = f"lxc.payload.{name}*/**/cgroup.procs"
        found = glob.glob(f"{CGROUP}/{inside}", recursive=True) + glob.glob(f"{CGROUP}/*/{inside}", recursive=True)
        pids = {int(pid) for procs in found for pid in read_text(Path(procs)).split()}
        # upper directory <zone>/upper, directory <zone>/rootfs, or dataset root.<zone>
        root = re.compile(rf"[/.]{re.escape(name)}[/ ,]")
        return sorted(pid for pid in pids if root.search(read_text(Path(f"/proc/{pid}/mountinfo")).partition("\n")[0]))

    def _stop(self, name: str) -> None:
        """Ask init to halt (the signal that its kind expects), and kill what is left at the limit."""
        run(
            ["lxc-stop", "-P", str(self.lxc_path), "-n", name, "-t", str(int(self.stop_timeout))],
            timeout=self.stop_timeout + 30,
            check=False,  # it also fails when the zone ended by itself meanwhile; what counts is looked at next
        )
        deadline = time.monotonic() + 10
        while self._monitored(name):
            if time.monotonic() > deadline:
                raise ZoneError(
                    f"zone {name!r} does not stop, not even killed; look for a process in state D: lxc-info -n {name}"
                )
            time.sleep(POLL)


# The files of a limit: cgroup version 1, version 2.
_LIMIT_FILES = {"memory": ("memory.limit_in_bytes", "memory.max"), "cpu": ("cpu.cfs_quota_us", "cpu.max")}


# The lines of a configuration whose values are applied to a running zone as well.
LIVE_KEYS = ("lxc.start.", "lxc.cgroup.memory.", "lxc.cgroup.cpu.", "lxc.cgroup2.memory.", "lxc.cgroup2.cpu.")


def _base(spec: ZoneSpec) -> int:
    """The user of the host that is root in the zone."""
    return 0 if spec.privileged else spec.idmap_base


def _answers(pid: int) -> bool:
    """Whether the zone's init takes requests: systemd has its socket; any other init has replaced LXC's process."""
    exe = _exe(pid)
    if os.path.basename(exe) == "systemd":
        return any(
            Path(f"/proc/{pid}/root/run/{one}").exists() for one in ("systemd/private", "dbus/system_bus_socket")
        )
    return bool(exe) and not os.path.basename(exe).startswith("lxc")


PF_EXITING = (
    0x4  # linux/sched.h: the process is on its way out, which for a zone's init takes until its last child is gone
)


def _alive(pid: int) -> bool:
    """Whether the process exists and is neither a zombie nor exiting (proc_pid_stat(5): state and flags)."""
    values = read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(values) and values[0] not in ("Z", "X") and not int(values[6]) & PF_EXITING


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _errors(log: Path) -> str:
    """The ERROR lines of LXC's log, for a message that carries the cause."""
    lines = [line.split(" ERROR ", 1)[1].strip() for line in read_text(log).splitlines() if " ERROR " in line]
    return "".join(f"\n  {line}" for line in lines[:12])


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
