# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the root file system of an LXC zone comes from: image layers, and the four stores that clone them.

An image is a chain of layers, each a tree of files whose owners are shifted by the id map of unprivileged zones. What a
zone needs in another form is derived once per image and kept beside the layer, so that it goes when the image goes:
``rootfs.<base>`` has its owners shifted by another base (0: for privileged zones), ``flat.<base>`` is the merged chain.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run
from ansible_collections.zonestack.openstack.plugins.module_utils.files import read_text
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.files import HELD, destroy_dataset, locked
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.owners import shift_owners, user_of

COPY_LIMIT = 900  # seconds for copying an image; gigabytes on a slow disk
SUBVOLUME_INODE = 256  # inode number of the root of every btrfs subvolume (BTRFS_FIRST_FREE_OBJECTID)
BTRFS_MAGIC, ZFS_MAGIC, FUSE_MAGIC = "btrfs", "zfs", "fuse"


@dataclass(frozen=True)
class Layer:
    """One read-only tree of an image; ``shift`` is what its owners are shifted by."""

    image: str
    rootfs: Path
    shift: int

    def shifted(self, base: int) -> Path:
        """Where the layer lies with its owners shifted by ``base``."""
        return self.rootfs if self.shift == base else self.rootfs.with_name(f"rootfs.{base}")


class Images:
    """The images of this host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def chain(self, image: str) -> list[Layer]:
        """The layers of an image, topmost first, from the manifests on disk."""
        layers: list[Layer] = []
        wanted: str | None = image
        while wanted:
            folder = self.folder / wanted
            try:
                manifest = json.loads((folder / "manifest.json").read_text())
                owner = (folder / "rootfs").stat().st_uid
            except (FileNotFoundError, NotADirectoryError):
                who = "image" if not layers else f"image {layers[-1].image!r} needs its parent, which"
                raise ZoneError(f"{who} {wanted!r} is not on this host; there are: {self.present()}") from None
            except ValueError as bad:
                raise ZoneError(
                    f"image {wanted!r}: {folder}/manifest.json cannot be read ({bad}); rebuild the image"
                ) from None
            layers.append(Layer(wanted, folder / "rootfs", owner))
            wanted = manifest.get("parent")
            if wanted in [layer.image for layer in layers]:
                raise ZoneError(f"image {image!r}: its manifest names {wanted!r} as a parent twice; rebuild the image")
        return layers

    def present(self) -> str:
        """The images that are here, for a message."""
        names = [Path(one).parent.name for one in glob.glob(f"{self.folder}/*/manifest.json")]
        return ", ".join(sorted(names)) or f"none in {self.folder}"

    def user(self, layers: list[Layer], name: str) -> tuple[int, int] | None:
        """Uid and gid of a user in the image's passwd(5); the topmost passwd hides those below it."""
        passwd = next((text for layer in layers if (text := read_text(layer.rootfs / "etc/passwd"))), "")
        return user_of(passwd, name)

    def shift(self, layers: list[Layer], base: int) -> None:
        """Make what is missing of the layers with owners shifted by ``base``."""
        for layer in layers:
            target = layer.shifted(base)
            if target.exists():
                continue
            with locked(f"image-{layer.image}", COPY_LIMIT):
                if target.exists():
                    continue
                new = target.with_name(f".{target.name}")
                remove_tree(new)
                copy_tree(layer.rootfs, new)
                shift_owners(new, layer.shift, base)
                os.rename(new, target)

    def flat(self, layers: list[Layer], base: int, make: t.Callable[[Path], None]) -> Path:
        """The merged chain as one tree, made once; ``make`` makes the empty directory (or subvolume) for it."""
        target = layers[0].rootfs.with_name(f"flat.{base}")
        if not target.exists():
            with locked(f"image-{layers[0].image}-flat", COPY_LIMIT):
                if not target.exists():
                    new = target.with_name(f".{target.name}")
                    remove_tree(new)
                    make(new)
                    merge(layers, base, new)
                    os.rename(new, target)
        return target


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree with owners, links, devices and attributes into ``target``; shares blocks where it can (reflink)."""
    target.mkdir(exist_ok=True)
    _copy(["cp", "-a", "--reflink=auto", "-T", f"{source}/", str(target)])


def _copy(argv: list[str]) -> None:
    """Run a cp(1) that may lose access control lists (acl(5)) where the target has none, and nothing else."""
    # When this process is killed the copy ends too, and keeps the locks until it has: the next call begins by removing
    # what it wrote.
    done = run(["setpriv", "--pdeathsig", "KILL", *argv], timeout=COPY_LIMIT, check=False, pass_fds=HELD.locks)
    lost = re.compile(r"cp: preserving permissions for .*: Operation not supported")
    if done.rc != 0 and not (done.err and all(lost.fullmatch(line) for line in done.err.splitlines())):
        raise CommandError(argv, done.rc, done.err)


def merge(layers: list[Layer], base: int, target: Path) -> None:
    """Copy the merged layers into the directory ``target``."""
    lowers = [str(layer.shifted(base)) for layer in layers]
    if len(lowers) == 1:
        copy_tree(Path(lowers[0]), target)
        return
    # The kernel resolves whiteouts and opaque directories: the layers are mounted where only this command sees them, so
    # that nothing stays mounted however it ends.
    target.mkdir(exist_ok=True)
    script = 'mount -t overlay overlay -o "ro,userxattr,lowerdir=$1" /mnt && exec cp -a -T /mnt/ "$2"'
    _copy(["unshare", "--mount", "sh", "-c", script, "sh", ":".join(lowers), str(target)])


def remove_tree(path: Path) -> None:
    """Remove a tree that may be or hold btrfs subvolumes."""
    if not path.exists():
        return
    subvolume = path.stat().st_ino == SUBVOLUME_INODE and shutil.which("btrfs") is not None
    # Deleting a subvolume is seconds faster than its files one by one. It fails with subvolumes inside (systemd makes some);
    # then it is done file by file, as the kernel takes rmdir(2) for an empty subvolume.
    if not subvolume or run(["btrfs", "subvolume", "delete", str(path)], check=False).rc != 0:
        shutil.rmtree(path)


class Store:
    """How roots are made from layers. This one is ``dir``: a full copy per zone."""

    has_quota: t.ClassVar[bool] = False

    def __init__(self, images: Images, roots: Path) -> None:
        """``roots``: where a store that needs mount points of its own keeps them, one per zone name."""
        self.images = images
        self.roots = roots

    def check(self, zone: str) -> None:
        """Refuse when this host cannot have such a store."""

    def path(self, zone_dir: Path) -> Path:
        """The writable tree of the zone."""
        return zone_dir / "rootfs"

    def lxc(self, zone_dir: Path, layers: list[Layer], base: int) -> str:
        """The value of lxc.rootfs.path."""
        return f"dir:{self.path(zone_dir)}"

    def build(self, zone_dir: Path, zone: str, layers: list[Layer], base: int) -> Path:
        """Make the root below ``zone_dir``, which is renamed when all is done; return the writable tree."""
        self.images.shift(layers, base)
        merge(layers, base, zone_dir / "rootfs")
        return zone_dir / "rootfs"

    def limit(self, root: Path, quota: int | None) -> None:
        """Hold the writable tree ``root`` to ``quota`` GiB, or to nothing."""


class Overlay(Store):
    """``overlay``: the layers are shared, only changes are the zone's own."""

    def path(self, zone_dir: Path) -> Path:
        return zone_dir / "upper"

    def lxc(self, zone_dir: Path, layers: list[Layer], base: int) -> str:
        return ":".join(["overlayfs", *(str(layer.shifted(base)) for layer in layers), f"{zone_dir}/upper"])

    def build(self, zone_dir: Path, zone: str, layers: list[Layer], base: int) -> Path:
        self.images.shift(layers, base)
        # What exists in the upper layer decides owner and mode, so `etc` is made as every Debian has it.
        for name in ("upper", "work", "rootfs", "upper/etc"):
            (zone_dir / name).mkdir()
            os.chmod(zone_dir / name, 0o755)
            os.chown(zone_dir / name, base, base)
        return zone_dir / "upper"


class Btrfs(Store):
    """``btrfs``: the merged image is one subvolume, a zone is a snapshot of it."""

    has_quota = True

    def check(self, zone: str) -> None:
        _expect_file_system(zone, "btrfs", self.images.folder, (BTRFS_MAGIC,), "btrfs")

    def build(self, zone_dir: Path, zone: str, layers: list[Layer], base: int) -> Path:
        self.images.shift(layers, base)

        def make(path: Path) -> None:
            run(["btrfs", "subvolume", "create", str(path)])

        flat = self.images.flat(layers, base, make)
        run(["btrfs", "subvolume", "snapshot", str(flat), str(zone_dir / "rootfs")])
        return zone_dir / "rootfs"

    def limit(self, root: Path, quota: int | None) -> None:
        if quota is not None:
            run(["btrfs", "quota", "enable", str(root)])  # does nothing when it is enabled
        # Without quotas enabled there is no limit that could be lifted.
        run(["btrfs", "qgroup", "limit", f"{quota}G" if quota else "none", str(root)], check=quota is not None)


class Zfs(Store):
    """``zfs``: the merged image is a dataset with a snapshot, a zone's root is a clone, mounted below ``roots``."""

    has_quota = True

    def check(self, zone: str) -> None:
        _expect_file_system(zone, "zfs", self.images.folder, (ZFS_MAGIC, FUSE_MAGIC), "zfs")
        self._parent()

    def path(self, zone_dir: Path) -> Path:
        return self.roots / zone_dir.name

    def build(self, zone_dir: Path, zone: str, layers: list[Layer], base: int) -> Path:
        self.images.shift(layers, base)
        parent = self._parent()
        flat = f"{parent}/flat.{layers[0].image}.{base}"
        mount = self.roots.with_name("flat") / f"{layers[0].image}.{base}"
        with locked(f"image-{layers[0].image}-flat", COPY_LIMIT):
            if run(["zfs", "list", "-H", "-t", "snapshot", f"{flat}@done"], check=False).rc != 0:
                destroy_dataset(flat)  # of an interrupted call, if any
                run(["zfs", "create", "-o", f"mountpoint={mount}", flat])
                # Access control lists, as systemd's journal has them; zfs-fuse has no such property and goes without.
                run(["zfs", "set", "acltype=posixacl", flat], check=False)
                merge(layers, base, mount)
                run(["zfs", "snapshot", f"{flat}@done"])
        self.remove(zone)
        root = self.roots / zone
        run(["zfs", "clone", "-o", f"mountpoint={root}", f"{flat}@done", self._dataset(zone)])
        return root

    def limit(self, root: Path, quota: int | None) -> None:
        run(["zfs", "set", f"quota={quota}G" if quota else "quota=none", self._dataset(root.name)])

    def remove(self, zone: str) -> None:
        """Destroy the root of a zone, also one that an interrupted call left without its zone."""
        root = self.roots / zone
        if not root.exists():
            return
        destroy_dataset(self._dataset(zone))
        with contextlib.suppress(FileNotFoundError):
            root.rmdir()

    def _dataset(self, zone: str) -> str:
        return f"{self._parent()}/root.{zone}"

    def _parent(self) -> str:
        """The dataset that the store's directory lies in."""
        try:
            return run(["zfs", "list", "-H", "-o", "name", str(self.images.folder.parent)]).out.strip()
        except CommandError as bad:
            raise ZoneError(f"store zfs: {self.images.folder.parent} must lie in a ZFS dataset: {bad}") from None


def _expect_file_system(zone: str, store: str, folder: Path, kinds: tuple[str, ...], tool: str) -> None:
    kind = run(["stat", "-f", "-c", "%T", str(folder)]).out.strip()
    # stat(1) of older coreutils knows zfs-fuse only as a FUSE file system.
    if not kind.startswith(kinds):
        raise ZoneError(
            f"zone {zone!r}: store: {store!r} needs {folder} on {kinds[0]}, but it is on {kind}: use overlay or dir"
        )
    if shutil.which(tool) is None:
        raise ZoneError(
            f"zone {zone!r}: store: {store!r} needs the command {tool}, which is not installed on this host"
        )


STORES: dict[str, type[Store]] = {"overlay": Overlay, "dir": Store, "btrfs": Btrfs, "zfs": Zfs}
