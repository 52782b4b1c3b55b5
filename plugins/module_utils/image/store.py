# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's images, and the directory that holds the logs, caches and remains of their builds.

How images lie there and how one is built is the kind's of host: :mod:`.lxc`, :mod:`.smartos`.
"""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import queue
import shutil
import tempfile
import threading
import time
import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.image.furnish import Furnisher, Log, StepError
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import ImageError, Recipe, Settings

LISTS_AGE = 4 * 3600
"""Seconds after which apt's package lists are fetched anew; an archive drops superseded packages from then on."""


class ImageStore(abc.ABC):
    """The images of a host, and the directory that holds the logs, caches and remains of their builds."""

    def __init__(self, root: str) -> None:
        self.root = pathlib.Path(root)
        self.logs = self.root / "log"
        self.cache = self.root / "cache"

    def prepare(self) -> None:
        """Make the store's directories."""
        for path in (self.logs, self.cache):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)

    def program(self, name: str, copy: pathlib.Path) -> pathlib.Path | None:
        """A copy of a program of this host, for builders; None where the host has no such program.

        Root of an LXC builder is an ordinary user of the host, and passes no folder that is closed to others: a checkout in
        ``/root`` is in one. A builder on SmartOS sees the cache alone. The copy is made anew when the program is another one, and
        appears as a whole, because builders that work side by side ask for it.
        """
        found = shutil.which(name)
        if found is None or pathlib.Path(found) == copy:
            return copy if found else None
        copy.parent.mkdir(mode=0o755, exist_ok=True)
        there, wanted = (path.stat() if path.exists() else None for path in (copy, pathlib.Path(found)))
        if there is None or wanted is None or (there.st_size, there.st_mtime) != (wanted.st_size, wanted.st_mtime):
            with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
                draft = pathlib.Path(scratch, copy.name)
                shutil.copy2(found, draft)  # with its time, by which the next builder knows it
                draft.chmod(0o755)
                draft.rename(copy)
        return copy

    @abc.abstractmethod
    def ids(self) -> list[str]:
        """Ids of all finished images."""

    @abc.abstractmethod
    def has(self, image: str) -> bool:
        """Whether the image is there, finished."""

    @abc.abstractmethod
    def leftovers(self) -> list[str]:
        """What killed builds left: unfinished images and builders. True only for who holds :meth:`lock`."""

    @abc.abstractmethod
    def clean(self) -> list[str]:
        """Stop and remove what killed builds left; their names."""

    @abc.abstractmethod
    def check(self, missing: t.Sequence[Recipe], settings: Settings) -> None:
        """Refuse to begin without what a build needs on this host."""

    @abc.abstractmethod
    def make(self, recipe: Recipe, settings: Settings, address: str, log: Log) -> None:
        """Build an image whose parents are there. What bears its name is finished, whenever this is killed."""

    @abc.abstractmethod
    def prunable(self, keep: t.Collection[str]) -> list[str]:
        """Finished images that neither ``keep`` nor a zone needs, children before parents."""

    @abc.abstractmethod
    def size(self, image: str) -> int:
        """Bytes that an image occupies on disk."""

    @abc.abstractmethod
    def remove(self, image: str) -> None:
        """Remove an image that nothing needs, and its log."""

    def pack(self, image: str, target: pathlib.Path) -> None:
        """Write a finished image to a file, for another host."""
        raise ImageError(f"image {image}: images of this kind of host are built on each host, and cannot be copied yet")

    def unpack(self, image: str, source: pathlib.Path) -> None:
        """Make an image of what :meth:`pack` wrote, elsewhere. What bears its name is finished, whenever this is killed."""
        raise ImageError(f"image {image}: images of this kind of host are built on each host, and cannot be copied yet")

    def remains(self) -> list[str]:
        """What killed builds left; nothing while somebody holds :meth:`lock`, for then it is work in progress."""
        if not self.leftovers():
            return []
        with contextlib.suppress(ImageError), self.lock(0):
            return self.leftovers()
        return []

    def build(self, recipe: Recipe, settings: Settings, address: str) -> float:
        """Build one image; the seconds it took. A failure tells the last lines of its log."""
        started = time.monotonic()
        log = Log(self.logs / f"{recipe.id}.log")
        try:
            self.make(recipe, settings, address, log)
        except (StepError, CommandError, ImageError, OSError) as error:
            raise ImageError(f"image {recipe.id}: {error}\nlast lines of {log.path}:\n{log.tail()}") from error
        return time.monotonic() - started

    @contextlib.contextmanager
    def lock(self, limit: float) -> t.Iterator[None]:
        """Hold the store alone. The kernel lets go of it with the holder's death, so it is never stale.

        :param limit: seconds to wait for another holder.
        """
        deadline = time.monotonic() + limit
        with open(self.root / "lock", "a+", encoding="ascii") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        file.seek(0)
                        raise ImageError(
                            f"{self.root}/lock: held by process {file.read().strip() or '?'}, which builds or prunes images,"
                            f" for more than {limit:g} s: wait for it, or raise `timeout`"
                        ) from None
                    time.sleep(0.1)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield


_REFRESH = threading.Lock()


def refresh_lists(store: ImageStore, builder: Furnisher) -> None:
    """Fetch apt's shared package lists unless they are recent; the first builder that comes does it for all."""
    stamp = store.cache / "apt.fetched"
    with _REFRESH:
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_AGE:
            builder.step("fetch the package lists", "apt-get -qq update")
            stamp.touch()


def check_recipes(store: ImageStore, recipes: t.Sequence[Recipe]) -> None:
    """Refuse recipes that are wrong by themselves, or whose parent is neither there nor among them."""
    known = {recipe.id for recipe in recipes}
    if len(known) != len(recipes):
        twice = sorted({recipe.id for recipe in recipes if [other.id for other in recipes].count(recipe.id) > 1})
        raise ImageError(f"images: {', '.join(twice)} named more than once: name each image once")
    for recipe in recipes:
        recipe.check()
        if recipe.parent and recipe.parent not in known and not store.has(recipe.parent):
            raise ImageError(f"images: {recipe.id}: parent {recipe.parent!r} is neither built nor among `images`")


def by_children(recipes: t.Sequence[Recipe]) -> list[Recipe]:
    """The recipes, those first on which most others stand directly; otherwise in the order in which they come."""
    children = collections.Counter(recipe.parent for recipe in recipes)
    return sorted(recipes, key=lambda recipe: -children[recipe.id])


def build_all(
    store: ImageStore,
    missing: t.Sequence[Recipe],
    settings: Settings,
    unpack: t.Callable[[str], None] | None = None,
    archived: t.Container[str] = (),
) -> tuple[list[dict[str, t.Any]], list[str]]:
    """Build ``missing``, parents before children, as many at once as there are jobs and addresses.

    What most others wait for goes first, so that no job is idle while there is work. A failed image stops only its own children; all others are finished.

    :param unpack: makes an image of its archive, for those of ``archived``.
    :return: what was made (id, name, seconds), and a message for each image that was not.
    """
    built: list[dict[str, t.Any]] = []
    failed: list[str] = []
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    for address in settings.network.addresses if settings.network else ():
        addresses.put(address)
    waiting = {recipe.id: recipe for recipe in missing}
    in_order = by_children(missing)

    def one(recipe: Recipe) -> float:
        started = time.monotonic()
        if unpack and recipe.id in archived:
            unpack(recipe.id)
            return time.monotonic() - started
        address = addresses.get()
        try:
            return store.build(recipe, settings, address)
        finally:
            addresses.put(address)

    with concurrent.futures.ThreadPoolExecutor(max(1, settings.jobs)) as pool:
        running: dict[concurrent.futures.Future[float], Recipe] = {}
        while True:
            for recipe in [one for one in in_order if one.id in waiting and (not one.parent or store.has(one.parent))]:
                running[pool.submit(one, waiting.pop(recipe.id))] = recipe
            if not running:
                break
            for done in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                recipe = running.pop(done)
                try:
                    seconds = round(done.result(), 1)
                except (ImageError, CommandError, OSError) as error:
                    failed.append(str(error))
                else:
                    built.append({"id": recipe.id, "name": recipe.name, "seconds": seconds})
    failed += [f"image {recipe.id}: not built, its parent {recipe.parent} is missing" for recipe in waiting.values()]
    return built, failed
