# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of a SmartOS host: what imgadm(8) is asked, what it answers, and what follows from that.

:class:`Imgadm` asks and acts; everything that decides is pure. Exit codes decide, never the words of a message: imgadm
says progress and results on stdout, and with its option ``-E`` errors as one line of JSON with a code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, Result, run

Manifest = t.Mapping[str, t.Any]

POOL = "zones"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
COMPRESSIONS = ("none", "gzip", "bzip2", "xz")
SOURCE_TYPES = ("imgapi", "docker", "dsapi")
# Exit code of `imgadm get` for an image that is not there (errors ImageNotInstalled and OriginNotInstalled).
NOT_INSTALLED = 3
# What `list` and `avail` put into a manifest once they filter; none of it is the manifest's own.
DERIVED = frozenset(("published_date", "pub", "published", "source", "size", "clones", "zpool"))
ASKING = 120
"""Seconds for a command that only asks, image servers included."""


class ImageError(Exception):
    """An image cannot be had as described; the message says where, what, and what would be right."""


class ImgadmError(CommandError):
    """imgadm failed. ``code`` is its own name of the error, such as ImageNotFound; empty when it gave none."""

    def __init__(self, error: CommandError) -> None:
        self.code, message = "", error.err
        with contextlib.suppress(ValueError, IndexError, KeyError, TypeError):
            last = json.loads(error.err.splitlines()[-1])
            self.code = str(last["err"]["code"])
            message = "\n".join([*error.err.splitlines()[:-1], f"error ({self.code}): {last['err']['message']}"])
        super().__init__(error.argv, error.rc, message)


@dataclass(frozen=True)
class Image:
    """An installed image: the dataset POOL/UUID with what imgadm knows about it.

    ``manifest`` has only the UUID when the image was not brought by imgadm; ``source`` is the URL of the server it came
    from; ``clones`` are the datasets that are clones of it: VMs, their disks, and images made on top of it.
    """

    uuid: str
    pool: str
    manifest: Manifest
    source: str | None = None
    clones: tuple[str, ...] = ()

    @property
    def dataset(self) -> str:
        """Where it lies in ZFS."""
        return f"{self.pool}/{self.uuid}"

    def plain(self) -> dict[str, t.Any]:
        """The image as modules return it."""
        brief = {key: self.manifest.get(key) for key in ("name", "version", "type", "os", "published_at", "origin")}
        return {
            "uuid": self.uuid,
            "pool": self.pool,
            "source": self.source,
            "clones": list(self.clones),
            **brief,
            "manifest": dict(self.manifest),
        }


@dataclass(frozen=True)
class Source:
    """An image server; ``insecure``: its certificate is not checked."""

    url: str
    type: str = "imgapi"
    insecure: bool = False

    def plain(self) -> dict[str, t.Any]:
        """The source as modules take and return it."""
        return {"url": self.url, "type": self.type, "insecure": self.insecure}


# -- decisions ---------------------------------------------------------------------------------------------------------


def check_uuid(uuid: str) -> str:
    """The UUID, if imgadm takes it: it knows lower case only."""
    if not UUID.fullmatch(uuid):
        raise ImageError(f"uuid: {uuid!r} is not valid: use a UUID in lower case with dashes")
    return uuid


def filter_words(filters: t.Mapping[str, t.Any]) -> list[str]:
    """Filters as imgadm takes them, one argument each: FIELD=VALUE, with true and false for booleans, ~TEXT for a part."""
    words = []
    for field, value in filters.items():
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*", str(field)):
            raise ImageError(
                f"filters: {field!r} is not valid: use a field of the manifest, with dots for what is inside (tags.role)"
            )
        if not isinstance(value, (str, int, float)):
            raise ImageError(f"filters.{field}: {value!r} is not valid: use a text, a number or a boolean")
        words.append(f"{field}={str(value).lower() if isinstance(value, bool) else value}")
    return words


def choose(candidates: t.Iterable[Manifest], name: str, version: str) -> str | None:
    """The UUID of the one image of that name and version; None when there is none.

    :raise ImageError: there are several, which only their UUIDs tell apart.
    """
    uuids = sorted({one["uuid"] for one in candidates if (one.get("name"), str(one.get("version"))) == (name, version)})
    if len(uuids) > 1:
        raise ImageError(
            f"image {name} {version}: there are {len(uuids)} such images: set uuid to one of: {', '.join(uuids)}"
        )
    return uuids[0] if uuids else None


def unused(images: t.Iterable[Image]) -> list[Image]:
    """The images that nothing is a clone of, and those that only such images are clones of; the topmost first."""
    left = list(images)
    found: list[Image] = []
    while True:
        gone = {image.dataset for image in found}
        free = [image for image in left if gone.issuperset(image.clones)]
        if not free:
            return found
        found += free
        left = [image for image in left if image not in free]


def source_commands(
    have: t.Sequence[Source], want: t.Sequence[Source], state: str, exclusive: bool
) -> tuple[list[list[str]], list[Source]]:
    """The arguments of ``imgadm sources`` that bring the configured sources to the wanted ones, and what is configured then.

    imgadm adds at the end and cannot change a source, so one of another type is removed and added again.

    :param state: present (there, as described) or absent (none of these URLs is there).
    :param exclusive: with present, no others are there.
    """
    urls = [one.url for one in want]
    for url in urls:
        if urls.count(url) > 1:
            raise ImageError(f"sources: {url} is named twice: name it once")
    if state == "absent":
        gone = {one.url for one in have if one.url in urls}
    else:
        gone = {one.url for one in have if one not in want and (exclusive or one.url in urls)}
    kept = [one for one in have if one.url not in gone]
    new = [one for one in want if one not in kept] if state == "present" else []
    commands = [["-d", url] for url in dict.fromkeys(one.url for one in have if one.url in gone)]
    commands += [["-a", one.url, "-t", one.type, *(["-k"] if one.insecure else [])] for one in new]
    return commands, [*kept, *new]


def source_of(given: t.Mapping[str, t.Any]) -> Source:
    """A source as imgadm keeps it: without a slash at the end of its URL.

    :raise ImageError: it is no URL.
    """
    url = str(given["url"]).rstrip("/")
    if not re.fullmatch(r"https?://[^\s/]\S*", url):
        raise ImageError(f"sources: {given['url']!r} is not valid: use the URL of an image server, http:// or https://")
    return Source(url, given.get("type") or "imgapi", bool(given.get("insecure")))


def check_manifest(manifest: Manifest, where: str) -> None:
    """Refuse a manifest that `imgadm install` would not take (imgadm(8) and the node-imgmanifest of its repository)."""

    def refuse(key: str, right: str) -> t.NoReturn:
        raise ImageError(f"{where}: {key}: {manifest.get(key)!r} is not valid: use {right}")

    if manifest.get("v") != 2:
        refuse("v", "2, the version of the format")
    if not UUID.fullmatch(str(manifest.get("uuid"))):
        refuse("uuid", "a UUID in lower case with dashes")
    for key in ("name", "version", "type", "os"):
        if not isinstance(manifest.get(key), str) or not manifest[key]:
            refuse(key, "a text that is not empty")
    files = manifest.get("files")
    if not isinstance(files, list) or len(files) != 1 or not isinstance(files[0], dict):
        refuse("files", "a list of one file with sha1, size and compression")
    file = files[0]
    if (
        not re.fullmatch(r"[0-9a-f]{40}", str(file.get("sha1")))
        or not isinstance(file.get("size"), int)
        or file.get("compression") not in COMPRESSIONS
    ):
        refuse("files", f"sha1 (40 hexadecimal digits), size (bytes) and compression ({', '.join(COMPRESSIONS)})")


def same_image(there: Image, manifest: Manifest) -> None:
    """Refuse to take an installed image for another one with the same UUID."""
    digests = [str(one["files"][0]["sha1"]) if one.get("files") else "" for one in (there.manifest, manifest)]
    if all(digests) and digests[0] != digests[1]:
        raise ImageError(
            f"image {there.uuid} is installed on {there.pool} with other content (sha1 {digests[0]}, the manifest says"
            f" {digests[1]}): an image never changes: give the new image its own uuid"
        )


def made(manifest: Manifest, wanted: Manifest, where: str) -> None:
    """Refuse to take an image that was made before for the wanted one, which has another name, version or other fields."""
    for key, value in wanted.items():
        # imgadm adds to the requirements what the VM's brand needs.
        there = manifest.get(key)
        agree = (
            isinstance(there, dict) and value.items() <= there.items() if isinstance(value, dict) else there == value
        )
        if not agree:
            raise ImageError(
                f"{where} belongs to another image: {key} is {there!r}, and {value!r} is wanted: remove the file or choose another output"
            )


# -- files -------------------------------------------------------------------------------------------------------------


def read_manifest(path: str) -> dict[str, t.Any]:
    """The manifest in a file.

    :raise ImageError: it cannot be read, or is none.
    """
    try:
        manifest = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as bad:
        raise ImageError(f"{path}: {bad}: name an image manifest (JSON)") from bad
    if not isinstance(manifest, dict):
        raise ImageError(
            f"{path}: the file holds a {type(manifest).__name__}: name an image manifest, which is a mapping"
        )
    return manifest


def check_file(manifest: Manifest, path: str, digest: bool) -> None:
    """Refuse a file that is not the one of the manifest: by its size, with ``digest`` by its content too.

    imgadm looks at both; the digest takes some seconds for each GiB.
    """
    file = manifest["files"][0]
    try:
        size = os.path.getsize(path)
    except OSError as bad:
        raise ImageError(f"{path}: {bad.strerror}: name the file of the image") from bad
    if size != file["size"]:
        raise ImageError(
            f"{path}: the file has {size} bytes, the manifest says {file['size']}: name the complete file of this image"
        )
    if digest:
        sha1 = hashlib.sha1(usedforsecurity=False)
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                sha1.update(block)
        if sha1.hexdigest() != file["sha1"]:
            raise ImageError(
                f"{path}: the file has the SHA-1 {sha1.hexdigest()}, the manifest says {file['sha1']}: name the file of this image, undamaged"
            )


def output_files(prefix: str, manifest: Manifest) -> tuple[str, str]:
    """Where `imgadm create -o PREFIX` leaves the manifest and the file of an image of this type and compression."""
    endings = {"none": "", "gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}
    stream = "zvol" if manifest.get("type") == "zvol" else "zfs"
    return f"{prefix}.imgmanifest", f"{prefix}.{stream}{endings[manifest['files'][0]['compression']]}"


# -- the tool ----------------------------------------------------------------------------------------------------------


class Imgadm:
    """imgadm(8) of this host. Every call raises :class:`ImgadmError` when it fails.

    ``timeout`` is the limit, in seconds, of each command that moves an image. What one that is killed leaves of an image,
    POOL/UUID-partial, imgadm does not take for an image.
    """

    def __init__(self, timeout: float = 3600) -> None:
        self.timeout = timeout

    def run(self, *words: str, timeout: float = ASKING) -> Result:
        """Run one command of imgadm."""
        try:
            return run(["imgadm", "-E", *words], timeout=timeout)
        except CommandError as error:
            raise ImgadmError(error) from None

    def ask(self, *words: str) -> t.Any:
        """Run one command that answers in JSON."""
        result = self.run(*words)
        try:
            return json.loads(result.out)
        except ValueError:
            raise CommandError(
                ["imgadm", "-E", *words], result.rc, f"JSON was expected on stdout: {result.out[:200]!r}"
            ) from None

    def installed(self, *filters: str) -> list[Image]:
        """The installed images of all pools, with their clones; ``filters`` as :func:`filter_words` makes them."""
        return [_image(one, one.get("cloneNames") or ()) for one in self.ask("list", "-j", *filters)]

    def get(self, uuid: str, pool: str = POOL) -> Image | None:
        """One installed image with its clones; None when it is not installed on that pool."""
        try:
            found = self.ask("get", "-r", "-P", pool, check_uuid(uuid))
        except ImgadmError as error:
            if error.rc != NOT_INSTALLED:
                raise
            return None
        return _image(found, (found.get("children") or {}).get("clones") or ())

    def available(self, *filters: str) -> list[tuple[str, Manifest]]:
        """URL and manifest of the images that the configured sources offer; one source that does not answer is an error."""
        return [(one["source"], _own(one["manifest"])) for one in self.ask("avail", "-j", *filters)]

    def show(self, uuid: str) -> Manifest:
        """The manifest of an image that the configured sources offer."""
        return t.cast("Manifest", self.ask("show", check_uuid(uuid)))

    def sources(self) -> list[Source]:
        """The configured sources in their order."""
        return [source_of(one) for one in self.ask("sources", "-j")]

    def change_source(self, words: t.Sequence[str], ping: bool = True) -> None:
        """Run one of :func:`source_commands`; with ``ping`` a server that is added must answer."""
        self.run("sources", *words, *([] if ping or words[0] == "-d" else ["-f"]))

    def fetch(self, uuid: str, pool: str = POOL, source: str | None = None, channel: str | None = None) -> None:
        """Install an image, and the images that it stands on, from the configured sources or from that one only."""
        where = [*(["-S", source] if source else []), *(["-C", channel] if channel else [])]
        self.run("import", "-q", "-P", pool, *where, check_uuid(uuid), timeout=self.timeout)

    def install(self, manifest: Manifest, file: str, pool: str = POOL) -> None:
        """Install an image from its manifest and its file."""
        with _written(manifest) as path:
            self.run("install", "-q", "-P", pool, "-m", path, "-f", file, timeout=self.timeout)

    def create(
        self,
        vm: str,
        manifest: Manifest,
        prefix: str,
        *,
        compression: str = "none",
        incremental: bool = False,
        script: str | None = None,
    ) -> Manifest:
        """Make an image of a stopped VM, or with a prepare ``script`` of any; return its manifest.

        :param manifest: what is given of it (name, version, ...); imgadm adds the rest. It is read from a file, because
            imgadm reads a version of 1.0 on its command line as the number 1.
        :param prefix: path to which imgadm adds .imgmanifest, written last, and .zfs or .zvol with the compression.
        """
        options = [
            "-c",
            compression,
            "-o",
            prefix,
            *(["-i"] if incremental else []),
            *(["-s", script] if script else []),
        ]
        with _written(manifest) as path:
            self.run("create", *options, "-m", path, check_uuid(vm), timeout=self.timeout)
        return read_manifest(f"{prefix}.imgmanifest")

    def delete(self, uuid: str, pool: str = POOL) -> None:
        """Remove an installed image that nothing is a clone of."""
        self.run("delete", "-P", pool, check_uuid(uuid), timeout=self.timeout)

    def vacuum(self) -> None:
        """Remove the images of all pools that nothing is a clone of now."""
        self.run("vacuum", "-f", timeout=self.timeout)

    def refresh(self, uuids: t.Sequence[str] = (), *, dry_run: bool = False) -> list[str]:
        """Renew stored manifests and missing @final snapshots; what imgadm says that it did, or with ``dry_run`` would do."""
        return self.run(
            "update", *(["-n"] if dry_run else []), *map(check_uuid, uuids), timeout=self.timeout
        ).out.splitlines()


def vm_state(uuid: str) -> str | None:
    """The state of a VM of this host as vmadm(8) tells it (running, stopped, ...); None when there is no such VM."""
    argv = ["vmadm", "lookup", "-j", "-o", "uuid,state", f"uuid={check_uuid(uuid)}"]
    found = json.loads(run(argv, timeout=ASKING).out)
    return str(found[0]["state"]) if found else None


@contextlib.contextmanager
def _written(manifest: Manifest) -> t.Iterator[str]:
    """A file with the manifest, for as long as a command reads it."""
    with tempfile.NamedTemporaryFile("w", suffix=".imgmanifest", encoding="utf-8") as file:
        json.dump(manifest, file)
        file.flush()
        yield file.name


def _own(manifest: Manifest) -> dict[str, t.Any]:
    return {key: value for key, value in manifest.items() if key not in DERIVED}


def _image(found: t.Mapping[str, t.Any], clones: t.Iterable[str]) -> Image:
    manifest = _own(found["manifest"])
    return Image(manifest["uuid"], found["zpool"], manifest, found.get("source"), tuple(clones))
