# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build and prune the immutable root file system layers that LXC zones are clones of.

An image is one directory ``images/<id>/`` with ``rootfs/`` (owners shifted for unprivileged zones) and
``manifest.json``. A base image is a whole Debian; any other is the upper directory of an overlay on its parents: what
an unprivileged builder container wrote while it was being furnished. The directory is renamed to its id as the last
act, so what bears an image's name is finished.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import re
import shlex
import shutil
import time
import typing as t
from dataclasses import asdict

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import run
from ansible_collections.zonestack.openstack.plugins.module_utils.files import write_atomically
from ansible_collections.zonestack.openstack.plugins.module_utils.image.furnish import (
    DPKG_SETTINGS,
    STEP_LIMIT,
    Furnisher,
    Log,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import (
    ImageError,
    BuilderNetwork,
    Recipe,
    Settings,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.image.store import ImageStore, refresh_lists
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.files import resolv_conf
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.owners import shift_owners
from ansible_collections.zonestack.openstack.plugins.module_utils.image.surroundings import (
    apt_conf,
    builder_environment,
    mirror_lines,
    source_lines,
)

SHIFT = 100_000
"""What is added to every owner in an image: root of an unprivileged zone is this user on its host (subuid(5))."""

TAR = ("--numeric-owner", "--xattrs", "--xattrs-include=*")
"""Options of tar(1) with which an image comes out as it went in."""

# --- what the host gives -----------------------------------------------------------------------------------------


def os_release() -> dict[str, str]:
    """This machine's os-release(5)."""
    lines = pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {
        key: "".join(shlex.split(value))
        for key, _equals, value in (line.partition("=") for line in lines if "=" in line)
    }


def sources(suite: str, mirror: str) -> list[str]:
    """The ``sources.list`` lines for ``suite``: the archive, its updates and its security updates.

    :param mirror: the archive's URI; security updates are then looked for at the same URI with ``-security`` appended.
        Empty: where this host, a Debian of whatever release, gets its own packages from.
    """
    if mirror:
        return mirror_lines(suite, mirror)
    listed = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]).out
    return source_lines(suite, *host_mirrors(listed, os_release()))


def host_mirrors(listed: str, release: t.Mapping[str, str]) -> tuple[str, str]:
    """The URIs of Debian's archive and of its security archive ('' if unused) in ``apt-get indextargets`` output.

    :param listed: lines of ``$(RELEASE) $(REPO_URI)``.
    :param release: the host's os-release(5); other origins' repositories bear other release names than this Debian's.
    """
    if release.get("ID") != "debian":
        raise ImageError(
            f"this host does not run Debian ({release.get('ID')}): set `mirror` to the address of a Debian archive"
        )
    names = {release.get("VERSION_CODENAME", ""), *("stable", "oldstable", "testing", "unstable", "sid")} - {""}
    archive = security = ""
    for name, _space, uri in (line.partition(" ") for line in listed.splitlines()):
        suite = name.split("/")[0]
        if suite in names and not archive:
            archive = uri.rstrip("/")
        elif suite.endswith("-security") and suite.removesuffix("-security") in names and not security:
            security = uri.rstrip("/")
    if not archive:
        raise ImageError(
            "`apt-get indextargets` names no Debian archive: set `mirror`, or correct the host's apt sources"
        )
    return archive, security


def apt_settings() -> str:
    """apt.conf(5) text for builders, with the host's proxies, time limits and retries."""
    dump = run(["apt-config", "dump"]).out.splitlines()
    kept = [
        line for line in dump if re.match(r"Acquire::(https?|ftp)::(Proxy|Timeout)\b|Acquire::Retries\b", line, re.I)
    ]
    return apt_conf(kept)


# --- the store ---------------------------------------------------------------------------------------------------


class LxcImages(ImageStore):
    """Images as directories below the store's; its parent holds the zones."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.images = self.root / "images"
        self.builders = self.root / "builders"

    def prepare(self) -> None:
        """Make the store's directories."""
        super().prepare()
        for path in (self.images, self.builders):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)

    def has(self, image: str) -> bool:
        """Whether the image is there, finished."""
        return (self.images / image / "manifest.json").is_file()

    def ids(self) -> list[str]:
        """Ids of all finished images."""
        return sorted(path.parent.name for path in self.images.glob("[!.]*/manifest.json"))

    def manifests(self) -> dict[str, dict[str, t.Any]]:
        """The manifests of all finished images by id."""
        found = {}
        for path in sorted(self.images.glob("[!.]*/manifest.json")):
            found[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def layers(self, image: str | None) -> list[pathlib.Path]:
        """Root directories of the image and its parents, topmost first, as overlayfs wants them."""
        found = []
        while image:
            path = self.images / image
            found.append(path / "rootfs")
            image = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["parent"]
        return found

    def leftovers(self) -> list[str]:
        """What killed builds left: unfinished images and builders. True only for who holds :meth:`lock`."""
        return sorted(path.name for path in (*self.images.glob(".*"), *self.builders.glob("builder-*")))

    def clean(self) -> list[str]:
        """Stop and remove what killed builds left; their names."""
        names = self.leftovers()
        for path in self.builders.glob("builder-*"):
            run(["lxc-stop", "-P", str(self.builders), "-n", path.name, "-k"], check=False)
            shutil.rmtree(path)
        for path in self.images.glob(".*"):
            unmount_below(path)
            shutil.rmtree(path)
        return names

    def check(self, missing: t.Sequence[Recipe], settings: Settings) -> None:
        """Refuse to begin without the tools and the bridge."""
        tools = {"lxc-start": "the package lxc"}
        if any(recipe.suite for recipe in missing):
            tools["mmdebstrap"] = "the package mmdebstrap"
        if any(recipe.python for recipe in missing):
            tools[settings.uv] = "uv, or its path as `uv`"
        for tool, remedy in tools.items():
            if not shutil.which(tool):
                raise ImageError(f"{tool} is not installed on this host: install {remedy}")
        bridge = pathlib.Path("/sys/class/net", t.cast(BuilderNetwork, settings.network).bridge)
        if not bridge.exists():
            raise ImageError(f"network.bridge: {bridge.name!r} does not exist on this host: prepare the host first")

    def make(self, recipe: Recipe, settings: Settings, address: str, log: Log) -> None:
        """Build one image in a directory that is renamed to its id as the last act."""
        draft = self.images / f".{recipe.id}.{os.getpid()}"
        rootfs = draft / "rootfs"
        try:
            draft.mkdir(mode=0o755)
            if recipe.suite:
                debootstrap(self, recipe, settings, rootfs, log)
                path = f"dir:{rootfs}"
            else:
                for part in (rootfs, draft / "work"):
                    part.mkdir(mode=0o755)
                    os.chown(part, SHIFT, SHIFT)
                path = ":".join(["overlayfs", *map(str, self.layers(recipe.parent)), str(rootfs)])
            network = t.cast(BuilderNetwork, settings.network)
            with Builder(self, recipe.id, path, network, address, settings, log) as builder:
                if not recipe.suite and recipe.packages:
                    refresh_lists(self, builder)
                builder.furnish(recipe)
            shutil.rmtree(draft / "work", ignore_errors=True)
            made = {"id": recipe.id, "name": recipe.name, "parent": recipe.parent, "recipe": asdict(recipe)}
            made["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            flush(draft)
            manifest = draft / "manifest.json"
            write_atomically(manifest, json.dumps(made, indent=1, sort_keys=True))
            draft.rename(self.images / recipe.id)
        except Exception:
            unmount_below(draft)
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def prunable(self, keep: t.Collection[str]) -> list[str]:
        """Finished images that neither ``keep`` nor a zone needs, children before parents.

        A zone uses every image whose id stands in its ``config`` or ``zone.json``; an image uses its parent.
        """
        manifests = self.manifests()
        texts = []
        for pattern in ("*/config", "*/zone.json"):
            for path in self.root.parent.glob(pattern):
                with contextlib.suppress(FileNotFoundError):  # a zone that is being destroyed just now
                    texts.append(path.read_text(encoding="utf-8"))
        used = {image for image in manifests if image in keep or any(image in text for text in texts)}
        for image in list(used):
            parent = manifests[image]["parent"]
            while parent:
                used.add(parent)
                parent = manifests.get(parent, {}).get("parent")
        idle = [image for image in manifests if image not in used]
        return sorted(idle, key=lambda image: (manifests[image]["parent"] is None, image))

    def size(self, image: str) -> int:
        """Bytes that an image occupies on disk; a hard-linked file counts once."""
        seen = {}
        for directory, names, files in os.walk(self.images / image):
            for name in (*names, *files):
                info = os.lstat(os.path.join(directory, name))
                seen[info.st_ino] = info.st_blocks * 512
        return sum(seen.values())

    def remove(self, image: str) -> None:
        """Remove an image; the name goes first, so that a half-removed one never looks finished."""
        doomed = self.images / f".{image}.{os.getpid()}"
        (self.images / image).rename(doomed)
        shutil.rmtree(doomed)
        (self.logs / f"{image}.log").unlink(missing_ok=True)

    def pack(self, image: str, target: pathlib.Path) -> None:
        """Write an image's directory as tar does, with all that a layer is made of (owners, file capabilities, opaque folders).

        gzip is on every Debian, and its lowest level packs at the speed of a disk.
        """
        argv = ["tar", "--create", f"--file={target}", "--use-compress-program=gzip -1", "--format=posix", *TAR]
        run([*argv, f"--directory={self.images / image}", "manifest.json", "rootfs"], timeout=STEP_LIMIT)

    def unpack(self, image: str, source: pathlib.Path) -> None:
        """Fill a directory that is renamed to the image's id as the last act."""
        draft = self.images / f".{image}.{os.getpid()}"
        try:
            draft.mkdir(mode=0o755)
            argv = ["tar", "--extract", f"--file={source}", "--gzip", "--same-owner", "--same-permissions", *TAR]
            run([*argv, f"--directory={draft}"], timeout=STEP_LIMIT)
            made = json.loads((draft / "manifest.json").read_text(encoding="utf-8"))
            if made["id"] != image:
                raise ImageError(f"image {image}: {source} holds {made['id']}: its source has mixed up the images")
            flush(draft)
            draft.rename(self.images / image)
        except Exception:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def flush(path: pathlib.Path) -> None:
    """Write the file system that holds ``path`` to its disk (syncfs(2)): what looks finished survives a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs({path})")
    finally:
        os.close(descriptor)


# --- building ----------------------------------------------------------------------------------------------------


class Builder(Furnisher):
    """An unprivileged container without an init system, in which one image is furnished."""

    def __init__(
        self,
        store: LxcImages,
        image: str,
        rootfs: str,
        network: BuilderNetwork,
        address: str,
        settings: Settings,
        log: Log,
    ):
        self.name = f"builder-{image}"
        self.store = store
        self.log = log
        self.home = store.builders / self.name
        self.env = builder_environment(os.environ)
        self._lxc = ["-P", str(store.builders), "-n", self.name]
        self.home.mkdir(mode=0o755)
        inside = self.home / "build"
        for path in (self.home / "rootfs", inside, inside / "uv-cache", inside / "bytecode"):
            path.mkdir(mode=0o755)
            os.chown(path, SHIFT, SHIFT)
        (inside / "apt.conf").write_text(apt_settings(), encoding="utf-8")
        (inside / "resolv.conf").write_text(resolv_conf(), encoding="utf-8")
        (inside / "uv").touch()
        for shared in (store.cache / "uv", store.cache / "apt", store.cache / "bytecode"):
            shared.mkdir(exist_ok=True)
            os.chown(shared, SHIFT, SHIFT)
        uv = store.program(settings.uv, store.cache / "bin/uv")
        config = "\n".join([*self._config(rootfs, network, address, self._mounts(inside, uv)), ""])
        (self.home / "config").write_text(config, encoding="utf-8")

    def _mounts(self, inside: pathlib.Path, uv: pathlib.Path | None) -> list[str]:
        """What is mounted in the builder, as lines of fstab(5) with relative targets."""
        cache = self.store.cache
        return [
            "tmpfs run tmpfs mode=0755 0 0",
            "tmpfs tmp tmpfs mode=1777 0 0",
            "tmpfs dev/shm tmpfs mode=1777,create=dir 0 0",  # Python's process pools need it
            "tmpfs var/cache/apt tmpfs mode=0755 0 0",
            f"{inside} run/build none bind,ro,create=dir 0 0",
            f"{cache}/uv run/build/uv-cache none bind,create=dir 0 0",
            f"{cache}/bytecode run/build/bytecode none bind,create=dir 0 0",
            f"{cache}/apt var/lib/apt/lists none bind 0 0",
            f"{inside}/resolv.conf etc/resolv.conf none bind,ro 0 0",
            *([f"{uv} run/build/uv none bind,ro,create=file 0 0"] if uv else []),
        ]

    def _config(self, rootfs: str, network: BuilderNetwork, address: str, mounts: t.Sequence[str]) -> list[str]:
        """Lines of LXC's configuration (lxc.container.conf(5))."""
        return [
            "lxc.include = /usr/share/lxc/config/common.conf",
            "lxc.include = /usr/share/lxc/config/userns.conf",
            f"lxc.uts.name = {re.sub('[^a-z0-9-]', '-', self.name)[:63]}",
            f"lxc.idmap = u 0 {SHIFT} 65536",
            f"lxc.idmap = g 0 {SHIFT} 65536",
            "lxc.apparmor.profile = unconfined",
            "lxc.init.cmd = /bin/sleep infinity",
            f"lxc.rootfs.path = {rootfs}",
            # volatile: no fsync while building, one at the end (flush)
            *(["lxc.rootfs.options = userxattr,volatile"] if rootfs.startswith("overlayfs:") else []),
            *(f"lxc.mount.entry = {mount}" for mount in mounts),
            "lxc.net.0.type = veth",
            "lxc.net.0.flags = up",
            "lxc.net.0.name = eth0",
            f"lxc.net.0.link = {network.bridge}",
            f"lxc.net.0.mtu = {network.mtu}",
            f"lxc.net.0.ipv4.address = {address}/{network.prefix}",
            f"lxc.net.0.ipv4.gateway = {network.gateway}",
        ]

    def __enter__(self) -> Builder:
        self.log.step(
            "start the builder", ["lxc-start", *self._lxc, "-o", str(self.log.path), "-l", "ERROR"], os.environ
        )
        return self

    def __exit__(self, *_: object) -> None:
        run(["lxc-stop", *self._lxc, "-k"], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def step(self, name: str, script: str, stdin: str | None = None) -> None:
        """Run a shell script as root in the builder."""
        argv = ["lxc-attach", *self._lxc, "--keep-env", "--", "/bin/sh", "-euc", f"cd /\numask 022\n{script}"]
        self.log.step(name, argv, self.env, stdin)


def unmount_below(folder: pathlib.Path) -> None:
    """Take away what a killed mmdebstrap has mounted in ``folder``: /proc and /sys of this host, which are none of the image's files."""
    mounts = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in mounts]
    # From the last one on: it may lie on one before it.
    for point in reversed([one for one in points if one.startswith(f"{folder.resolve()}/")]):
        run(["umount", "--lazy", "--", point])


def debootstrap(store: LxcImages, recipe: Recipe, settings: Settings, rootfs: pathlib.Path, log: Log) -> None:
    """Install a minimal Debian below ``rootfs``, owners shifted, and hand its package lists to all builders.

    dpkg's path-exclude is set after mmdebstrap's own extraction, which would otherwise pass each file through a filter
    (7 of 29 s); the few manuals that get in so are removed later.
    """
    with (rootfs.parent / "dpkg.cfg").open("w", encoding="ascii") as file:
        file.write(DPKG_SETTINGS)
    with (rootfs.parent / "apt.conf").open("w", encoding="utf-8") as file:
        file.write(apt_settings())
    configure = f'install -D -m 0644 {shlex.quote(file_path(rootfs, "dpkg.cfg"))} "$1/etc/dpkg/dpkg.cfg.d/zonestack"'
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--skip=cleanup/apt/lists"]
    argv += [f"--aptopt={file_path(rootfs, 'apt.conf')}", "--dpkgopt=force-unsafe-io", f"--extract-hook={configure}"]
    argv += [f"--include={name}" for name in recipe.packages]
    argv += [t.cast(str, recipe.suite), str(rootfs), *sources(t.cast(str, recipe.suite), settings.mirror)]
    log.step("install Debian", argv, {**os.environ, "LC_ALL": "C.UTF-8"})
    for leftover in ("dpkg.cfg", "apt.conf"):
        (rootfs.parent / leftover).unlink()
    for copied in ("resolv.conf", "hostname"):  # mmdebstrap's copies of this host's: a zone gets its own
        (rootfs / "etc" / copied).unlink(missing_ok=True)
    (rootfs / "etc/resolv.conf").touch()
    shift_owners(rootfs, 0, SHIFT)
    lists = rootfs / "var/lib/apt/lists"
    shutil.rmtree(store.cache / "apt", ignore_errors=True)
    # Not a rename: a site may have the images on a file system of their own.
    run(["mv", str(lists), str(store.cache / "apt")])
    (store.cache / "apt.fetched").touch()
    lists.mkdir(mode=0o755)
    os.chown(lists, SHIFT, SHIFT)


def file_path(rootfs: pathlib.Path, name: str) -> str:
    """A file beside ``rootfs``, as text."""
    return str(rootfs.parent / name)
