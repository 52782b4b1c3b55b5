# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What in a zone is neither its image's nor what a run writes: found on the host, from the files of its root, running or not.

Of an LXC zone and of a SmartOS zone alike; what is done there is nothing but reading files, which takes no tool of the host's.

With an overlay only its upper directory is read: the kernel keeps there what was written, an attribute changed, and a mark for
what was removed (https://docs.kernel.org/filesystems/overlayfs.html, "Whiteouts and opaque directories"). Other stores hold whole
trees, which are compared with the image: a clone or copy keeps the modification times, so that only what changed is read.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import stat
import typing as t
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.files import read_text
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError, ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc_root import STORES, Images
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.smartos import (
    ZONES,
    SmartosBackend,
    image_uuid,
    volume_path,
)

DIGESTS = "/etc/zonestack/digests"
WANTS = "/etc/systemd/system/*.wants/*"
PACKAGES = "/var/lib/dpkg/info/*.list"
GONE = "not there"
OPAQUE = ("user.overlay.opaque", "trusted.overlay.opaque")

#: What a zone writes by itself, and why that is no drift; None where it counts nevertheless. The first match decides; a pattern
#: stands for what lies below it as well. Data volumes are no part of a zone's root, so they are not looked at anyway.
STATE = (
    ("/var/lib/dpkg/status", None),
    ("/dev", "devices, which LXC or the brand makes"),
    ("/native", "SmartOS' own, which the brand lx mounts"),
    ("/.zonecontrol", "SmartOS' own, which the brand lx mounts"),
    ("/proc", "the kernel's"),
    ("/sys", "the kernel's"),
    ("/run", "lost when the zone stops"),
    ("/tmp", "for a moment"),
    ("/var/tmp", "for a moment"),
    ("/var/cache", "can be made again"),
    ("/var/log", "logs"),
    ("/var/spool", "work under way"),
    ("/var/lib", "what services keep for themselves"),
    ("/var/svc", "marks by which vmadm(8) sees that a zone is provisioned"),
    ("/root/.cache", "can be made again"),
    ("*/__pycache__/*.pyc", "Python's bytecode, made again from its source"),
    ("/etc/.pwd.lock", "lock of passwd(5), made when it is read by systemd"),
    ("/etc/hostname", "given to the zone when it is made"),
    ("/etc/machine-id", "given to the zone when it is made"),
    ("/etc/resolv.conf", "given to the zone when it is made"),
    ("/etc/network/interfaces", "written by the brand lx at each boot"),
    ("/etc/ssl/certs/*.0", "update-ca-certificates(8), from /usr/local/share/ca-certificates"),
    ("/etc/ssl/certs/zonestack.pem", "update-ca-certificates(8), from /usr/local/share/ca-certificates"),
    ("/etc/ssl/certs/ca-certificates.crt", "update-ca-certificates(8), from /usr/local/share/ca-certificates"),
)

#: What is looked at among the state.
EXCEPTIONS = tuple(pattern for pattern, why in STATE if why is None)

Wanted = t.Mapping[str, t.Mapping[str, t.Any]]


@dataclass(frozen=True)
class Finding:
    """A file that is not as it should be.

    :param kind: ``added``, ``changed`` or ``removed``, each against the image, or against what a run writes.
    :param owner: what it belongs to: a package, a run, or nobody.
    :param detail: in what it differs.
    """

    path: str
    kind: str
    owner: str
    detail: str = ""

    def plain(self) -> dict[str, str]:
        """For a module's result."""
        return asdict(self)


def is_state(path: str) -> bool:
    """Whether a zone writes it by itself."""
    for pattern, why in STATE:
        if fnmatchcase(path, pattern) or path.startswith(f"{pattern}/"):
            return why is not None
    return False


def whiteout(info: os.stat_result) -> bool:
    """Whether an entry of an upper directory, or of a layer, says that there is nothing."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def opaque(path: Path) -> bool:
    """Whether a directory hides what the layers below hold in it."""
    if not hasattr(os, "getxattr"):  # Linux has it, and overlays
        return False
    for name in OPAQUE:
        try:
            if os.getxattr(path, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        while part := stream.read(1 << 20):
            found.update(part)
    return found.hexdigest()


class Layers:
    """The read-only trees of an image as one; the topmost first."""

    def __init__(self, roots: t.Sequence[Path]) -> None:
        self.roots = roots

    def find(self, path: str) -> tuple[Path, os.stat_result] | None:
        """Where the image has ``path``, and what it is; the topmost layer that says something decides."""
        for root in self.roots:
            here, hides = root, False
            for name in path.strip("/").split("/"):
                hides = hides or (here != root and opaque(here))
                here = here / name
                try:
                    info = os.lstat(here)
                except NotADirectoryError:
                    return None
                except FileNotFoundError:
                    break
                if whiteout(info):
                    return None
            else:
                return here, info
            if hides:
                return None
        return None

    def names(self, path: str) -> set[str]:
        """What the image has in a directory."""
        every = {
            one
            for root in self.roots
            if (root / path.strip("/")).is_dir()
            for one in os.listdir(root / path.strip("/"))
        }
        return {name for name in every if self.find(f"{path}/{name}")}


class Drift:
    """Compares one zone with its image and with what a run writes.

    :param root: the zone's writable tree.
    :param layers: the image.
    :param base: user of the host that is root in the zone.
    :param overlay: whether ``root`` holds only what differs from the image.
    :param files: what a run writes: path to ``sha256``, ``mode`` (octal, as text), ``owner`` and ``group`` (names).
    :param directories: likewise, without ``sha256``.
    :param units: the units of the daemons and the digest with which each should run.
    :param volumes: where the data volumes lie, by their path in the zone. A run may write there, everything else is data.
    """

    def __init__(
        self,
        root: Path,
        layers: Layers,
        base: int,
        overlay: bool,
        files: Wanted,
        directories: Wanted,
        units: t.Mapping[str, str],
        volumes: t.Mapping[str, Path],
    ) -> None:
        self.volumes = volumes
        self.seen: set[str] = set()
        self.root = root
        self.layers = layers
        self.base = base
        self.overlay = overlay
        self.files = files
        self.directories = directories
        self.units = units
        self.users, self.groups = self._names("passwd"), self._names("group")
        # A run leaves these digests, so others mean that the deployment has changed since the last one.
        recorded = {unit: read_text(root / DIGESTS.strip("/") / unit).strip() for unit in units}
        self.owner = "a run, then changed by hand" if recorded == dict(units) else "a run; the next one writes it anew"

    def find(self) -> list[Finding]:
        """Everything that is not explained, by path."""
        found, _explained = self._directory("")
        # What a run wrote among a service's state or on a volume; what is gone; and what the image may hold just so.
        for path, wanted in {**self.directories, **self.files}.items():
            detail = "" if path in self.seen else self._unlike_rendered(path, wanted)
            if detail:
                found.append(Finding(path, "removed" if detail == GONE else "changed", self.owner, detail))
        owners = Owners(self.root, self.layers.roots, [one.path for one in found if not one.owner])
        named = [one if one.owner else Finding(one.path, one.kind, owners.of(one.path), one.detail) for one in found]
        return sorted(named, key=lambda one: one.path)

    def _own(self, path: str) -> Path:
        """Where a path of the zone lies on the host."""
        for mount, folder in self.volumes.items():
            if path == mount or path.startswith(f"{mount}/"):
                return folder / path[len(mount) :].strip("/")
        return self.root / path.strip("/")

    def _names(self, database: str) -> dict[str, int]:
        """Users or groups of the zone, by name (passwd(5), group(5))."""
        own = self.root / "etc" / database
        found = None if own.is_file() else self.layers.find(f"/etc/{database}")
        lines = read_text(found[0] if found else own).splitlines()
        fields = [line.split(":") for line in lines]
        return {one[0]: int(one[2]) for one in fields if len(one) > 2 and one[2].isdigit()}

    def _directory(self, path: str) -> tuple[list[Finding], int]:
        """What is not explained below a directory of the writable tree, and how many entries are."""
        found: list[Finding] = []
        explained = 0
        own = self._own(path)
        present = sorted(os.listdir(own))
        for name in present:
            here = f"{path}/{name}"
            info = os.lstat(own / name)
            if is_state(here) or here in self.volumes:
                if stat.S_ISDIR(info.st_mode) and any(one.startswith(f"{here}/") for one in EXCEPTIONS):
                    found += self._directory(here)[0]
                explained += 1
                continue
            self.seen.add(here)
            if stat.S_ISDIR(info.st_mode):
                more, known = self._subdirectory(here, info)
            else:
                more, known = self._entry(here, info)
            found += more
            explained += known
        # An overlay has no entry for what is as in the image, unless its directory hides the image's.
        if not self.overlay or (path and opaque(own)):
            for name in sorted(self.layers.names(path) - set(present)):
                if not is_state(f"{path}/{name}"):
                    self.seen.add(f"{path}/{name}")
                    found.append(self._removed(f"{path}/{name}"))
        return found, explained

    def _subdirectory(self, path: str, info: os.stat_result) -> tuple[list[Finding], int]:
        """A directory that is nobody's is one finding, however much is in it."""
        found, explained = self._directory(path)
        wanted, image = self.directories.get(path), self.layers.find(path)
        if wanted is not None:
            detail = self._unlike_rendered(path, wanted)
            return found + ([Finding(path, "changed", self.owner, detail)] if detail else []), explained + 1
        if image is None or not stat.S_ISDIR(image[1].st_mode):
            if explained:
                return found, explained
            entries = sum(len(folders) + len(files) for _folder, folders, files in os.walk(self._own(path)))
            return [Finding(f"{path}/", "added", "", f"{entries} entries")], 0
        detail = "" if path == "/etc" else self._attributes(info, image[1])
        return found + ([Finding(path, "changed", "", detail)] if detail else []), explained + 1

    def _entry(self, path: str, info: os.stat_result) -> tuple[list[Finding], int]:
        """A file, a link, a whiteout or what else is no directory."""
        if path in self.files:
            detail = "" if whiteout(info) else self._unlike_rendered(path, self.files[path])
            if whiteout(info):
                return [Finding(path, "removed", self.owner)], 0
            return ([Finding(path, "changed", self.owner, detail)] if detail else []), 1
        if self._made_by_a_run(path, info):
            return [], 1
        image = self.layers.find(path)
        if whiteout(info):
            return ([self._removed(path)] if image else []), 0 if image else 1
        if image is None:
            return [Finding(path, "added", "", self._kind(info))], 0
        detail = self._unlike_image(self._own(path), info, *image)
        return ([Finding(path, "changed", "", detail)] if detail else []), 0 if detail else 1

    def _removed(self, path: str) -> Finding:
        return Finding(path, "removed", self.owner if path in self.files else "")

    def _made_by_a_run(self, path: str, info: os.stat_result) -> bool:
        """Whether it is a trace of a run itself: the record of a daemon, or that its unit is enabled (systemctl(1))."""
        name = os.path.basename(path)
        if os.path.dirname(path) == DIGESTS:
            return name in self.units
        stems = {unit.rpartition(".")[0] for unit in self.units}
        return stat.S_ISLNK(info.st_mode) and fnmatchcase(path, WANTS) and name.rpartition(".")[0] in stems

    def _unlike_rendered(self, path: str, wanted: t.Mapping[str, t.Any]) -> str:
        """In what a path is not as a run writes it; nothing when it is."""
        own = self._own(path)
        image = self.layers.find(path)
        where = own if os.path.lexists(own) or image is None else image[0]
        try:
            info = os.lstat(where)
        except FileNotFoundError:
            return GONE
        regular = stat.S_ISREG(info.st_mode) if "sha256" in wanted else stat.S_ISDIR(info.st_mode)
        if not regular:
            return f"is {self._kind(info) or 'a file'}"
        said = []
        if "sha256" in wanted and digest(where) != wanted["sha256"]:
            said.append("content")
        owners = [str(names.get(wanted[key], "?")) for names, key in ((self.users, "owner"), (self.groups, "group"))]
        said += self._differs(info, int(str(wanted["mode"]), 8), ":".join(owners))
        return ", ".join(said)

    def _unlike_image(self, own: Path, info: os.stat_result, image: Path, other: os.stat_result) -> str:
        """In what a file is not as the image has it."""
        if stat.S_IFMT(info.st_mode) != stat.S_IFMT(other.st_mode):
            return f"is {self._kind(info) or 'a file'}, was {self._kind(other) or 'a file'}"
        said = []
        if stat.S_ISLNK(info.st_mode):
            if os.readlink(own) != os.readlink(image):
                said.append(f"leads to {os.readlink(own)}, not to {os.readlink(image)}")
        elif stat.S_ISREG(info.st_mode):
            same = (info.st_size, info.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
            if not same and (info.st_size != other.st_size or digest(own) != digest(image)):
                said.append("content")
        return ", ".join(filter(None, [*said, self._attributes(info, other)]))

    def _attributes(self, info: os.stat_result, other: os.stat_result) -> str:
        mode = None if stat.S_ISLNK(info.st_mode) else stat.S_IMODE(other.st_mode)
        return ", ".join(self._differs(info, mode, f"{other.st_uid - self.base}:{other.st_gid - self.base}"))

    def _differs(self, info: os.stat_result, mode: int | None, owner: str) -> list[str]:
        """Mode and owner, where they are not as they should be; owners are numbers, as the zone has them."""
        said = []
        if mode is not None and stat.S_IMODE(info.st_mode) != mode:
            said.append(f"mode {stat.S_IMODE(info.st_mode):04o}, not {mode:04o}")
        found = f"{info.st_uid - self.base}:{info.st_gid - self.base}"
        if found != owner:
            said.append(f"owner {found}, not {owner}")
        return said

    @staticmethod
    def _kind(info: os.stat_result) -> str:
        """What an entry is, when it is no regular file."""
        names = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a link", stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe"}
        return "" if stat.S_ISREG(info.st_mode) else names.get(stat.S_IFMT(info.st_mode), "a device")


class Owners:
    """What files belong to: Debian's packages (dpkg-query(1)) and Python's (RECORD files) say which files they brought.

    :param roots: the zone's tree and the image's, where any package may have been installed.
    :param paths: those that are asked for.
    """

    def __init__(self, root: Path, layers: t.Sequence[Path], paths: t.Collection[str]) -> None:
        self.known: dict[str, str] = {}
        wanted = {path.rstrip("/") for path in paths}
        if not wanted:
            return
        # Since /usr was merged, a list may name a file by its old path.
        old = {path.removeprefix("/usr"): path for path in wanted if path.startswith("/usr/")}
        brought = {
            os.path.basename(name) for layer in layers for name in glob.glob(f"{glob.escape(str(layer))}{PACKAGES}")
        }
        # What was installed into the zone itself comes last, and so is what counts.
        for where in [*reversed(layers), root]:
            for name in glob.glob(f"{glob.escape(str(where))}{PACKAGES}"):
                package = os.path.basename(name).removesuffix(".list").partition(":")[0]
                by_hand = "" if os.path.basename(name) in brought else ", installed by hand"
                for line in read_text(Path(name)).splitlines():
                    path = line if line in wanted else old.get(line)
                    if path:
                        self.known[path] = f"package {package}{by_hand}"
            self._python(where, wanted)

    def _python(self, root: Path, wanted: t.Collection[str]) -> None:
        for folder in {match[0] for path in wanted if (match := re.match(r"/opt/.*?/site-packages", path))}:
            for record in glob.glob(f"{glob.escape(str(root))}{folder}/*.dist-info/RECORD"):
                package = os.path.basename(os.path.dirname(record)).partition("-")[0]
                for line in read_text(Path(record)).splitlines():
                    path = os.path.normpath(f"{folder}/{line.split(',')[0]}")
                    if path in wanted:
                        self.known[path] = f"Python package {package}"

    def of(self, path: str) -> str:
        """What a path belongs to."""
        return self.known.get(path.rstrip("/"), "nobody")


def zone_drift(lxc_path: Path, name: str, want: t.Mapping[str, t.Any]) -> list[Finding]:
    """What in an LXC zone of this host is neither its image's nor a run's.

    :param want: ``uuid`` of the zone, and ``files``, ``directories`` and ``units`` as :class:`Drift` takes them.
    :raises ZoneError: when there is no such zone, or its image is gone.
    """
    try:
        spec = ZoneSpec.from_dict(json.loads((lxc_path / name / "zone.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ZoneError("it is not on this host: a run creates it") from None
    except (ValueError, TypeError, KeyError) as bad:
        raise ZoneError(f"{lxc_path}/{name}/zone.json cannot be read ({bad})") from None
    if spec.uuid != want["uuid"]:
        raise ZoneError(f"the zone of that name on this host belongs to another deployment (uuid {spec.uuid})")
    images = Images(lxc_path / "zonestack" / "images")
    base = 0 if spec.privileged else spec.idmap_base
    layers = Layers([layer.shifted(base) for layer in images.chain(spec.image)])
    root = STORES[spec.store](images, lxc_path / "zonestack" / "roots").path(lxc_path / name)
    volumes = {volume.path: lxc_path / "zonestack" / "volumes" / name / volume.name for volume in spec.volumes}
    wanted = want["files"], want["directories"], want["units"]
    return Drift(root, layers, base, spec.store == "overlay", *wanted, volumes).find()


def smartos_drift(name: str, want: t.Mapping[str, t.Any]) -> list[Finding]:
    """The same of a SmartOS zone of this global zone, whose tree and image's are those of ZFS datasets.

    vmadm is asked once for all zones of a process.
    """
    spec = SmartosBackend().read(ZoneSpec(name, want["uuid"])).spec
    if spec is None:
        raise ZoneError("it is not on this host: a run creates it")
    image = ZONES / image_uuid(spec.image) / "root"
    if not image.is_dir():
        raise ZoneError(f"its image {spec.image} is not at {image}, so there is nothing to compare it with")
    volumes = {volume.path: volume_path(spec.uuid, volume.name) for volume in spec.volumes}
    wanted = want["files"], want["directories"], want["units"]
    return Drift(ZONES / spec.uuid / "root", Layers([image]), 0, False, *wanted, volumes).find()
