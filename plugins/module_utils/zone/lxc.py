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
import json
import os
import shutil
import stat
import time
import typing as t
from dataclasses import replace
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import run
from ansible_collections.zonestack.openstack.plugins.module_utils.files import read_text, write_atomically
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.backend import Current, fails_as_zone_error
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError, ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.files import hosts, locked, put, resolv_conf
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc_config import (
    LIVE_KEYS,
    device_number,
    render_config,
    veth_name,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc_container import Container
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc_root import (
    STORES,
    Images,
    Store,
    Zfs,
    remove_tree,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.owners import (
    ID_RANGE,
    make_volumes,
    owner_of,
    volumes_in,
)

LXC_PATH = Path("/var/lib/lxc")


@fails_as_zone_error()
class LxcBackend:
    """Zones on this machine as LXC containers; see :class:`~.backend.Backend` for the meaning of the calls."""

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

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self, zone: ZoneSpec) -> t.Iterator[None]:
        """Hold a lock in /run; a call whose controller was killed may still be at work on the same zone."""
        with locked(f"zone-{zone.name}", self.start_timeout + self.stop_timeout):
            yield

    def effective(self, zone: ZoneSpec) -> ZoneSpec:
        """What this host can give of it.

        Plain directories and overlays have no quota of their own; only btrfs and zfs can hold a zone to one. Of the devices,
        a host without KVM, for one, has not all: who needs one in the zone finds it missing there. A bridge asks nobody for
        an address, so that other virtual ones are no change.
        """
        here = replace(
            zone,
            devices=tuple(device for device in zone.devices if device_number(device)),
            networks=tuple(replace(network, vips=()) for network in zone.networks),
        )
        return here if STORES[zone.store].has_quota else replace(here, quota=None)

    def read(self, zone: ZoneSpec) -> Current:
        """Read zone.json, config, the volumes and, of a running zone, its cgroup; one call of lxc-info at most."""
        zone_dir = self.lxc_path / zone.name
        volumes = volumes_in(self._volumes(zone))
        debris = bool(self._debris(zone.name))
        if not zone_dir.exists():
            return Current(volumes=volumes, debris=debris)
        spec = self._recorded(zone_dir, zone.name, zone.uuid)
        container = self._container(spec)
        pid = container.pid()
        drift = self._drift(spec, zone_dir, volumes)
        if pid is not None:
            applied = container.limits(pid)
            drift += [key for key, value in applied.items() if value != getattr(spec, key)]
            drift += container.detached()
            spec = replace(
                spec, memory=applied.get("memory", spec.memory), cpu_cap=applied.get("cpu_cap", spec.cpu_cap)
            )
        return Current(spec, pid is not None, pid, volumes, debris, tuple(drift))

    def _container(self, zone: ZoneSpec) -> Container:
        return Container(self.lxc_path, zone, start_timeout=self.start_timeout, stop_timeout=self.stop_timeout)

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

    def _recorded(self, zone_dir: Path, name: str, uuid: str) -> ZoneSpec:
        """The description as applied; refuse a container that this collection has not made for this zone."""
        try:
            recorded = json.loads((zone_dir / "zone.json").read_text())
            spec = ZoneSpec.from_dict(recorded)
        except FileNotFoundError:
            raise ZoneError(
                f"zone {name!r}: {zone_dir} is there without a zone.json, so it is not a zone of this collection and stays "
                f"as it is; remove or rename that container"
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

    def _volumes(self, zone: ZoneSpec) -> Path:
        """Where the zone's volumes lie."""
        return self.store / "volumes" / zone.name

    def _debris(self, name: str) -> list[Path]:
        """What interrupted calls for this zone left in building/; a zone name holds no dot."""
        found = [Path(one) for one in glob.glob(f"{self.building}/{name}.*")]
        root = self.store / "roots" / name
        return found if (self.lxc_path / name).exists() or not root.exists() else [*found, root]

    def _root(self, store: str) -> Store:
        return STORES[store](self.images, self.store / "roots")

    def check(self, zone: ZoneSpec) -> None:
        """Refuse an image, a bridge, a user or a device that is not there, before anything changes."""
        if not zone.image:
            raise ZoneError(f"zone {zone.name!r}: image: none given; there are: {self.images.present()}")
        layers = self.images.chain(zone.image)
        for index, network in enumerate(zone.networks):
            if not Path(f"/sys/class/net/{network.bridge}/bridge").is_dir():
                bridges = [Path(one).parent.name for one in glob.glob("/sys/class/net/*/bridge")]
                raise ZoneError(
                    f"zone {zone.name!r}: networks[{index}].bridge: {network.bridge!r} is not a bridge of this host; there are: "
                    + (", ".join(sorted(bridges)) or "none")
                )
        for volume in zone.volumes:
            uid, _gid = owner_of(zone, volume, lambda user: self.images.user(layers, user))
            if uid >= ID_RANGE:
                raise ZoneError(f"zone {zone.name!r}: volumes.{volume.name}.owner: {uid} is not below {ID_RANGE}")
        if not self.lxc_path.stat().st_mode & stat.S_IXOTH:
            raise ZoneError(
                f"zone {zone.name!r}: the users of a zone cannot pass through {self.lxc_path} to its files; run chmod o+x "
                f"{self.lxc_path}"
            )
        if not zone.privileged:
            for kind in ("subuid", "subgid"):
                self._check_range(zone, Path("/etc") / kind)
        self._root(zone.store).check(zone.name)

    def _check_range(self, zone: ZoneSpec, path: Path) -> None:
        """newuidmap(1), where installed, maps only ranges that root has in subuid(5) and subgid(5)."""
        if shutil.which("newuidmap") is None:
            return
        for line in read_text(path).splitlines():
            user, _colon, rest = line.partition(":")
            first, _colon, count = rest.partition(":")
            if user not in ("root", "0") or not first.isdigit() or not count.isdigit():
                continue
            if int(first) <= zone.idmap_base and zone.idmap_base + ID_RANGE <= int(first) + int(count):
                return
        raise ZoneError(
            f"zone {zone.name!r}: {path} assigns no user ids from {zone.idmap_base} on to root: add the line "
            f"root:{zone.idmap_base}:{ID_RANGE}"
        )

    # -- changing --------------------------------------------------------------------------------------------------

    def _config(self, spec: ZoneSpec) -> str:
        zone_dir = self.lxc_path / spec.name
        try:
            layers = self.images.chain(spec.image)
        except ZoneError:
            return ""  # its image is gone from the host: nothing on disk can be right
        root = self._root(spec.store).lxc(zone_dir, layers, _base(spec))
        return render_config(spec, root, self._volumes(spec))

    def create(self, zone: ZoneSpec) -> None:
        """Build the zone's directory aside, volumes first, and rename it into place."""
        self._sweep(zone.name)
        self._make_volumes(zone)
        for folder in (self.store, self.building):
            folder.mkdir(mode=0o711, exist_ok=True)
        new = self.building / f"{zone.name}.new"
        new.mkdir()
        # Uid 100000 passes through on its way to its root; nobody else lists or enters what is inside.
        os.chmod(new, 0o711)
        store = self._root(zone.store)
        root = store.build(new, zone.name, self.images.chain(zone.image), _base(zone))
        for name, content in (
            ("hostname", zone.name + "\n"),
            ("hosts", hosts(zone)),
            ("machine-id", zone.uuid.replace("-", "") + "\n"),
            ("resolv.conf", resolv_conf()),
        ):
            put(root, name, content, _base(zone))
        write_atomically(new / "zone.json", _dump(zone))
        write_atomically(new / "config", self._config(zone))
        if zone.quota is not None:
            store.limit(root, zone.quota)
        os.rename(new, self.lxc_path / zone.name)

    def update(self, zone: ZoneSpec, changed: t.Collection[str], running: bool) -> None:
        """Change a zone in place; when its root's ingredients changed, the root is made anew and the volumes stay."""
        if self.rebuilt & set(changed):
            self.destroy(zone, purge=False)
            self.create(zone)
            return
        zone_dir = self.lxc_path / zone.name
        store = self._root(zone.store)
        if "volumes" in changed:
            self._make_volumes(zone)
        if "networks" in changed:
            put(store.path(zone_dir), "hosts", hosts(zone), _base(zone))
        if "quota" in changed:
            store.limit(store.path(zone_dir), zone.quota)
        if running:
            self._container(zone).set_limits(changed)
        if running and "ports" in changed:
            for index, network in enumerate(zone.networks):
                run(["ip", "link", "set", veth_name(zone.uuid, index), "master", network.bridge, "up"])
        # zone.json last: until it says so, a change is not made, and the next call makes it again.
        write_atomically(zone_dir / "config", self._config(zone))
        write_atomically(zone_dir / "zone.json", _dump(zone))

    def _make_volumes(self, zone: ZoneSpec) -> None:
        if not zone.volumes:
            return
        folder, layers, base = self._volumes(zone), self.images.chain(zone.image), _base(zone)
        for parent in (self.store, folder.parent, folder):
            parent.mkdir(mode=0o711, exist_ok=True)

        def make(name: str, uid: int, gid: int) -> None:
            new = folder / f".{name}"
            new.mkdir(mode=0o755, exist_ok=True)
            os.chown(new, base + uid, base + gid)
            os.rename(new, folder / name)

        make_volumes(zone, folder, lambda user: self.images.user(layers, user), make)

    def destroy(self, zone: ZoneSpec, purge: bool) -> None:
        """Move the zone aside, then remove it and any debris; what is moved aside is no zone any more."""
        zone_dir = self.lxc_path / zone.name
        if zone_dir.exists():
            self.building.mkdir(mode=0o711, exist_ok=True)
            os.rename(zone_dir, self.building / f"{zone.name}.{time.time_ns()}")
        self._sweep(zone.name)
        if purge and self._volumes(zone).exists():
            shutil.rmtree(self._volumes(zone))

    def _sweep(self, name: str) -> None:
        for path in self._debris(name):
            if path.parent == self.building:
                remove_tree(path / "rootfs")
                remove_tree(path)
            else:
                Zfs(self.images, path.parent).remove(name)

    # -- power -----------------------------------------------------------------------------------------------------

    def start(self, zone: ZoneSpec) -> None:
        """Start the zone."""
        self._container(zone).start()

    def stop(self, zone: ZoneSpec) -> None:
        """Stop the zone and wait until it is gone."""
        self._container(zone).stop()

    def ready(self, zone: ZoneSpec, pid: int | None) -> int:
        """Wait until the zone's init takes requests; it is looked for anew, as it may have ended meanwhile."""
        return self._container(zone).ready()


def _base(spec: ZoneSpec) -> int:
    """The user of the host that is root in the zone."""
    return 0 if spec.privileged else spec.idmap_base


def _dump(spec: ZoneSpec) -> str:
    return json.dumps(spec.to_dict(), indent=2, sort_keys=True) + "\n"
