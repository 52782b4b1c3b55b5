# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on their way from the host that built them to those that did not: a file for each, known by its digest.

In a folder, here or at the URL of one::

    <id>.archive      the image, as its kind of host packs it
    <id>.json         {"sha256": <hexadecimal>, "size": <bytes>} of it, written last: what has this file is whole

What is fetched lies in ``.<sha256>.part`` until it is whole. It goes on where it ended, after a lost connection and after a killed
call, from this origin or from another that has the same content.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import ssl
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from ansible_collections.zonestack.openstack.plugins.module_utils.files import write_atomically
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import ImageError
from ansible_collections.zonestack.openstack.plugins.module_utils.image.store import ImageStore

CHUNK = 1 << 20
"""Bytes read at a time."""

STALL = 30
"""Seconds without an answer or a byte after which an origin is given up."""

NOTE_LIMIT = 4096
"""Bytes that a note may have."""


class Note(t.NamedTuple):
    """What an archive must be: SHA-256 in hexadecimal, and bytes."""

    sha256: str
    size: int


def read_note(text: str | bytes) -> Note | None:
    """A note, or nothing where the text is none."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        data = json.loads(text)
        if re.fullmatch("[0-9a-f]{64}", data["sha256"]) and isinstance(data["size"], int):
            return Note(data["sha256"], data["size"])
    return None


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()  # hashlib.file_digest is newer than the Python of some global zones
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


class Archives:
    """A folder of archives on this host, and where those that it lacks come from.

    :param path: the folder. It is made when something is put there.
    :param keep: ids of the images whose archives are to be there, for other hosts to fetch.
    :param origins: URLs of such folders, asked one after the other. Without one, an archive that is to be here is made here.
    :param ca: certificate of the authority, in PEM, that vouches for https origins.
    """

    def __init__(
        self, path: str, keep: t.Iterable[str] = (), origins: t.Iterable[str] = (), ca: str | None = None
    ) -> None:
        self.folder = pathlib.Path(path)
        self.keep = list(keep)
        self.origins = list(origins)
        self.silent: dict[str, str] = {}
        # A proxy of this host is for the way out, and the origins are within.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if ca:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=ca)))
        self._opener = urllib.request.build_opener(*handlers)

    # -- here ------------------------------------------------------------------------------------------------------

    def file(self, image: str) -> pathlib.Path:
        """Where an image's archive lies."""
        return self.folder / f"{image}.archive"

    def _note(self, image: str) -> pathlib.Path:
        return self.folder / f"{image}.json"

    def note(self, image: str) -> Note | None:
        """What the image's archive must be, when there is one of that size."""
        with contextlib.suppress(OSError):
            note = read_note(self._note(image).read_bytes())
            if note and self.file(image).stat().st_size == note.size:
                return note
        return None

    def offers(self, image: str) -> bool:
        """Whether an image that is missing comes from an archive rather than being built."""
        return bool(self.origins) or self.note(image) is not None

    def lacking(self) -> list[str]:
        """Ids of those to be kept here that are not."""
        return [image for image in self.keep if self.note(image) is None]

    def prepare(self) -> None:
        """Make the folder. It may be a volume of a zone that is yet to be made, which has a folder of its own around it."""
        self.folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o755, exist_ok=True)

    def _finish(self, image: str, part: pathlib.Path, note: Note) -> None:
        """Give a whole archive its name, and then its note."""
        part.chmod(0o644)
        self._note(image).unlink(missing_ok=True)
        part.rename(self.file(image))
        write_atomically(self._note(image), json.dumps(note._asdict()))

    def pack(self, store: ImageStore, image: str) -> None:
        """Make the archive of an image that is there."""
        part = self.folder / f".{image}.packing"
        part.unlink(missing_ok=True)
        store.pack(image, part)
        sync(part)
        self._finish(image, part, Note(digest(part), part.stat().st_size))

    def unpack(self, store: ImageStore, image: str) -> None:
        """Make an image of its archive, fetched when it is not here, and only when its content is what its note says."""
        note = self.note(image)
        if note and digest(self.file(image)) != note.sha256:
            self.remove(image)  # a power loss took blocks of it, or somebody changed it
            if not self.origins:
                raise ImageError(
                    f"image {image}: {self.file(image)} does not match the digest in its note: replace the file, or remove it"
                )
            note = None
        if note is None:
            self.fetch(image)
        store.unpack(image, self.file(image))
        if self.origins and image not in self.keep:
            self.remove(image)

    def remove(self, image: str) -> None:
        """Remove an archive, its note first: what is left of a killed removal is none."""
        self._note(image).unlink(missing_ok=True)
        self.file(image).unlink(missing_ok=True)

    def unfinished(self) -> list[str]:
        """Names of the files that killed calls and broken downloads left."""
        return sorted(path.name for path in self.folder.glob(".*"))

    def surplus(self, images: t.Container[str]) -> list[str]:
        """Ids of the archives here that are of none of the images, and names of what was left unfinished."""
        found = {path.stem for pattern in ("[!.]*.json", "[!.]*.archive") for path in self.folder.glob(pattern)}
        return sorted([*(image for image in found if image not in images), *self.unfinished()])

    def drop(self, surplus: t.Iterable[str]) -> None:
        """Remove such."""
        for name in surplus:
            if name.startswith("."):
                (self.folder / name).unlink(missing_ok=True)
            else:
                self.remove(name)

    # -- from elsewhere --------------------------------------------------------------------------------------------

    def fetch(self, image: str) -> None:
        """Bring an archive from the first origin that gives it whole and right."""
        why: list[str] = []
        for origin in self.origins:
            if origin in self.silent:
                why.append(f"{origin}: {self.silent[origin]}")
                continue
            url = f"{origin}/{urllib.parse.quote(image)}"
            try:
                note = self._ask(f"{url}.json")
                part = self.folder / f".{note.sha256}.part"
                self._download(f"{url}.archive", part, note)
                found = digest(part)
            except urllib.error.HTTPError as refused:
                why.append(f"{url}: {refused.code} {refused.reason}")
                continue
            except (OSError, http.client.HTTPException) as problem:
                cause = str(getattr(problem, "reason", problem)) or type(problem).__name__
                self.silent[origin] = cause
                why.append(f"{origin}: {cause}")
                continue
            if found == note.sha256:
                sync(part)
                self._finish(image, part, note)
                return
            part.unlink()
            why.append(f"{url}.archive: holds sha256 {found}, and its note says {note.sha256}")
        told = "; ".join(why)
        raise ImageError(
            f"image {image}: no server delivered it: {told}. What was received is kept: make sure that one of them answers, then run again"
        )

    def _ask(self, url: str) -> Note:
        with self._opener.open(url, timeout=STALL) as answer:
            note = read_note(answer.read(NOTE_LIMIT))
        if note is None:
            raise http.client.HTTPException(f"{url} contains no digest and size")
        return note

    def _download(self, url: str, part: pathlib.Path, note: Note) -> None:
        """Append what is missing; after a connection that ended early go on, as long as each brings something."""
        with part.open("ab") as file:
            if file.tell() > note.size:
                file.truncate(0)
                file.seek(0)
            while (have := file.tell()) < note.size:
                request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
                try:
                    with self._opener.open(request, timeout=STALL) as answer:
                        if have and answer.status != http.client.PARTIAL_CONTENT:
                            file.truncate(0)
                            file.seek(0)
                        while file.tell() < note.size and (chunk := answer.read(min(CHUNK, note.size - file.tell()))):
                            file.write(chunk)
                            file.flush()
                except urllib.error.HTTPError:
                    raise
                except (OSError, http.client.HTTPException):
                    if file.tell() <= have:
                        raise
                else:
                    if file.tell() <= have:
                        raise http.client.HTTPException(f"{url} ends after {file.tell()} of {note.size} bytes")


def sync(path: pathlib.Path) -> None:
    """Have a file's content on its disk before it gets a name that says that it is whole."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
