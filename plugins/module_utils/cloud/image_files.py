# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image files on the control machine: fetched once for each checksum, and never used before they were checked."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import typing as t
import urllib.error

from ansible.module_utils.urls import open_url
from ansible_collections.zonestack.openstack.plugins.module_utils.files import write_atomically

CHUNK = 1 << 20
"""Bytes read at a time."""

STALL = 60
"""Seconds without a byte after which a download is given up; the next one goes on where it ended."""


class ImageRefused(Exception):
    """An image whose content cannot be had or is another; ``str()`` names the image, what is wrong, and the remedy."""


def digest(path: pathlib.Path) -> str:
    """``sha256:`` and the digest of a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class Cache:
    """A folder with one file for each checksum, whole and right, and a note of the digests of users' own files."""

    def __init__(self, folder: str) -> None:
        self.folder = pathlib.Path(folder).expanduser()
        self._notes = self.folder / "files.json"

    def of_url(self, name: str, url: str, checksum: str, dry: bool = False) -> tuple[str, bool]:
        """The path of the content of ``url``, and whether it was fetched (dry: would be)."""
        target = self.folder / checksum.replace(":", "-")
        if target.exists():
            return str(target), False
        if dry:
            return str(target), True
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two deployments, one download
            if target.exists():
                return str(target), False
            self._download(name, url, file)
            found = digest(part)
            if found != checksum:
                part.unlink()
                raise ImageRefused(
                    f"cloud.images.{name}.checksum: {url} holds {found}, topology.yml says {checksum}: "
                    "correct the checksum if the publisher names this one, otherwise do not use the file"
                )
            os.fsync(file.fileno())
            part.rename(target)
        return str(target), True

    def _download(self, name: str, url: str, file: t.BinaryIO) -> None:
        """Append what is missing of ``url``; begin anew where the server cannot go on in the middle."""
        have = file.tell()
        try:
            with open_url(url, headers={"Range": f"bytes={have}-"} if have else {}, timeout=STALL) as answer:
                if have and answer.status != 206:
                    file.truncate(0)
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                file.flush()
        except urllib.error.HTTPError as refused:
            # 416: nothing is missing (or the file there is shorter, which the digest tells)
            if refused.code != 416:
                raise ImageRefused(f"cloud.images.{name}.url: {url}: {refused}: use an address that answers") from None
        except (OSError, urllib.error.URLError) as problem:
            cause = getattr(problem, "reason", problem)
            raise ImageRefused(
                f"cloud.images.{name}.url: {url}: {cause}: run again, what was received is kept"
            ) from None

    def of_file(self, name: str, path: pathlib.Path, checksum: str, dry: bool = False) -> str:
        """The path of a user's file, once its content is known to be right. An unchanged file is not read again."""
        try:
            info = path.stat()
        except OSError as problem:
            raise ImageRefused(
                f"cloud.images.{name}.file: {path}: {problem.strerror}: use a path relative to topology.yml, or an absolute one"
            ) from None
        state = [info.st_size, info.st_mtime_ns, info.st_ino]
        notes = self._read_notes()
        note = notes.get(str(path))
        found = note[1] if note and note[0] == state else digest(path)
        if found != checksum:
            raise ImageRefused(
                f"cloud.images.{name}.checksum: {path} holds {found}, topology.yml says {checksum}: "
                "correct the checksum if the file is the right one, otherwise the file"
            )
        if not dry and note != [state, found]:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_atomically(self._notes, json.dumps({**notes, str(path): [state, found]}))
        return str(path)

    def _read_notes(self) -> dict[str, t.Any]:
        with contextlib.suppress(OSError, ValueError):
            return t.cast("dict[str, t.Any]", json.loads(self._notes.read_text(encoding="utf-8")))
        return {}


def fetch_all(
    images: t.Mapping[str, t.Mapping[str, t.Any]], base: str, cache: Cache, dry: bool
) -> tuple[dict[str, str], list[str]]:
    """Path by name of each image that is not built in, and the names of those that were fetched (dry: would be)."""
    files: dict[str, str] = {}
    fetched = []
    for name, image in images.items():
        if image.get("file"):
            path = pathlib.Path(base, os.path.expanduser(image["file"]))
            files[name] = cache.of_file(name, path, image["checksum"], dry)
        elif image.get("url"):
            files[name], new = cache.of_url(name, image["url"], image["checksum"], dry)
            if new:
                fetched.append(name)
    return files, fetched
