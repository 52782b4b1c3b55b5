# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of, and how it is made of that, whatever kind of zone it is for.

A :class:`Furnisher` turns the root file system of a builder into the image; how a command gets into the builder is what a kind of
host adds (:mod:`.lxc` a container without an init, :mod:`.smartos` a zone of brand lx). An :class:`ImageStore`
is a host's images; how they lie there and how one is built is again the kind's.
"""

from __future__ import annotations

import abc
import concurrent.futures
import configparser
import contextlib
import fcntl
import inspect
import os
import pathlib
import queue
import re
import shlex
import subprocess
import threading
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.module_utils.image import bytecode
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError

STEP_LIMIT = 900
"""Seconds that one step of one build may take."""

LOG_LINES = 30
"""Lines of a failed build's log that its error shows."""

LISTS_AGE = 4 * 3600
"""Seconds after which apt's package lists are fetched anew; an archive drops superseded packages from then on."""

MASKED_UNITS = (
    # Belong to a machine's kernel or consoles; in a zone they fail or wait.
    "console-getty.service",
    "container-getty@.service",
    "dev-hugepages.mount",
    "getty-static.service",
    "getty@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    # The container manager sets the addresses: this unit would wait for something that networkd never does.
    "systemd-networkd-wait-online.service",
    # An image is immutable: it is replaced, not upgraded in place.
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)

DPKG_SETTINGS = """\
# Written at build time. Speed: an image that a power loss cuts short is built anew. Size: zones read no manuals.
force-unsafe-io
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
"""

# dbus's machine-id and the machine's own must differ from zone to zone. What mmdebstrap was told by this host (a proxy,
# perhaps with its password) is not for zones.
FURNISH_BASE = """\
for unit in {masked}; do ln -sf /dev/null /etc/systemd/system/$unit; done
rm -f /var/lib/dbus/machine-id /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap
: > /etc/machine-id
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -type l -delete
find /usr/share/man /usr/share/locale -mindepth 1 -delete
"""

# In a builder /run, /tmp, /var/cache/apt and apt's lists are mounts of their own and never part of the layer.
# Packages enable their daemons; in a zone only what its service declares may start, and only once it is configured.
# systemd compares /usr with these two stamps (ConditionNeedsUpdate=, systemd.unit(5)): newer stamps skip first-boot work.
FINISH = """\
rm -rf /root/.cache /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old /usr/sbin/policy-rc.d
find /var/log -type f -delete
mkdir -p /etc/systemd/system-preset
echo 'disable *' > /etc/systemd/system-preset/00-zonestack.preset
SYSTEMD_OFFLINE=1 systemctl --quiet preset-all
touch /etc/.updated /var/.updated
"""


class ImageError(Exception):
    """A request that cannot be met; ``str()`` says where, what, and what would be right."""


@dataclass(frozen=True)
class Recipe:
    """What an image is made of; ``id`` names the content (``<name>-<hash>``).

    :param parent: id of the image below, or none for a base image.
    :param packages: Debian packages.
    :param python: requirement names for the virtualenv ``venv``, at the versions and hashes of ``lock`` (its text).
    :param user: system user that the image's daemons run as.
    :param files: contents by absolute path, mode 0644.
    :param commands: shell commands run as root in the image, after packages, virtualenv and files.
    :param suite: Debian release of a base image.
    :param ca_certificates: PEM texts by file name that a base image trusts beside Debian's.
    """

    id: str
    name: str
    parent: str | None = None
    packages: list[str] = field(default_factory=list)
    python: list[str] = field(default_factory=list)
    lock: str | None = None
    venv: str | None = None
    user: str | None = None
    commands: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    suite: str | None = None
    ca_certificates: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what no build could do right, before anything changes."""

        def refuse(key: str, value: object, right: str) -> t.NoReturn:
            raise ImageError(f"images: {self.id}: {key}: {value!r} is wrong: {right}")

        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*-[0-9a-f]{12}", self.id):
            refuse("id", self.id, "<name>-<12 hexadecimal digits>")
        if bool(self.parent) == bool(self.suite):
            refuse("suite", self.suite, "an image has a parent, or as a base image a Debian suite, never both")
        if self.parent and self.ca_certificates:
            refuse("ca_certificates", sorted(self.ca_certificates), "only the base image brings CA certificates")
        if self.python and not (self.lock and self.venv):
            refuse("python", self.python, "needs `lock` (the lock's text) and `venv` (a path such as /opt/keystone)")
        locked = lock_versions(self.lock or "")
        for requirement in self.python:
            if canonical(requirement.partition("[")[0]) not in locked:
                refuse("python", requirement, "a name that the lock pins: add it with scripts/update-locks.sh")
        for path in [*self.files, *([self.venv] if self.venv else [])]:
            if not path.startswith("/") or os.path.normpath(path) != path:
                refuse("files" if path in self.files else "venv", path, "an absolute path without '..'")
        for package in self.packages:
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9]+)?", package):
                refuse("packages", package, "the name of a Debian package")
        for file in self.ca_certificates:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", file):
                refuse("ca_certificates", file, "a plain file name")
        if self.user and not re.fullmatch(r"[a-z_][a-z0-9_-]*", self.user):
            refuse("user", self.user, "the name of a system user")


@dataclass(frozen=True)
class Network:
    """Where builders stand: one address each, all on one bridge. ``prefix`` in bits, ``mtu`` in bytes."""

    bridge: str
    prefix: int
    gateway: str
    addresses: list[str]
    mtu: int = 1500


@dataclass(frozen=True)
class Settings:
    """How to build: what belongs to the host and not to an image's content.

    :param mirror: the Debian archive's URI, with security updates at the same one with ``-security`` appended.
    :param uv: the program uv, or its name on the path.
    :param seed: of SmartOS, the image of Debian that the base image begins with: ``uuid``, or ``name`` and ``version``.
    """

    network: Network | None
    jobs: int
    mirror: str = ""
    uv: str = "uv"
    seed: t.Mapping[str, str | None] = field(default_factory=dict)


# --- what a builder is given -------------------------------------------------------------------------------------


def source_lines(suite: str, archive: str, security: str) -> list[str]:
    """The ``sources.list`` lines for ``suite``: the archive, its updates and its security updates ('' for none)."""
    lines = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
    return lines + ([f"deb {security} {suite}-security main"] if security else [])


def mirror_lines(suite: str, mirror: str) -> list[str]:
    """The same for a mirror's URI, security updates being at the same one with ``-security`` appended."""
    archive = mirror.rstrip("/")
    return source_lines(suite, archive, f"{archive}-security")


def apt_conf(own: t.Iterable[str]) -> str:
    """apt.conf(5) text for builders: more retries, no translations, nothing that is only recommended, and ``own`` lines.

    Retries come at once: apt 3.0 was seen to wait for ever, without any connection, for one that it had put off.
    """
    return "\n".join(
        [
            'Acquire::Retries "8";',
            'Acquire::Retries::Delay "false";',
            *own,
            'Acquire::Languages "none";',
            'APT::Install-Recommends "false";',
            "",
        ]
    )


def builder_environment(env: t.Mapping[str, str]) -> dict[str, str]:
    """The environment of every command in a builder: the host's proxies and package index, and nothing else of it.

    Addresses of files are left out, a builder cannot see them. What may carry a password (an index's URL) travels in
    the environment only, never in a command line.
    """
    names = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
    kept = {
        key: value for key, value in env.items() if key.lower() in names or key.startswith(("UV_INDEX", "PIP_INDEX"))
    }
    kept |= {key: env[key] for key in ("UV_DEFAULT_INDEX", "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT") if key in env}
    kept = {key: value for key, value in kept.items() if not value.startswith(("file:", "/"))}
    index = kept.pop("PIP_INDEX_URL", "") or pip_index()
    if index and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & set(kept):
        kept["UV_DEFAULT_INDEX"] = index
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    return {
        **kept,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "APT_CONFIG": "/run/build/apt.conf",
        **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"), bundle),
        "UV_CACHE_DIR": "/run/build/uv-cache",
        "UV_LINK_MODE": "copy",  # the cache is another mount than the layer: no hard links across
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_HTTP_RETRIES": "8",  # an index that is away for a minute is no reason to begin again
        "UV_NO_PROGRESS": "1",
        "UV_NO_CONFIG": "1",
    }


def pip_index() -> str:
    """The ``index-url`` of pip's global or root's configuration ('' if none), where pip looks for it on Linux."""
    parser = configparser.RawConfigParser(strict=False)
    home = pathlib.Path.home()
    for path in ("/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"):
        with contextlib.suppress(configparser.Error, OSError):
            parser.read(path)
    index = parser.get("global", "index-url", fallback="").strip()
    return "" if index.startswith(("file:", "/")) else index


# --- furnishing --------------------------------------------------------------------------------------------------


class StepError(Exception):
    """One step of a build failed."""

    def __init__(self, step: str, cause: str) -> None:
        self.step = step
        self.cause = cause
        super().__init__(f"{step}: {cause}")


class Log:
    """The log of one build, kept after it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        path.write_text("", encoding="utf-8")

    def step(self, name: str, argv: t.Sequence[str], env: t.Mapping[str, str], stdin: str | None = None) -> None:
        """Run one step's command; its output goes to the log. Its environment is ``env`` alone."""
        started = time.monotonic()
        with self.path.open("a", encoding="utf-8") as log:
            log.write(f"== {name}\n")
            log.flush()
            try:
                done = subprocess.run(
                    list(argv),
                    input=None if stdin is None else stdin.encode(),
                    stdin=subprocess.DEVNULL if stdin is None else None,
                    stdout=log,
                    stderr=log,
                    env=dict(env),
                    timeout=STEP_LIMIT,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise StepError(name, f"still running after {STEP_LIMIT} s, killed") from None
            except FileNotFoundError:
                raise StepError(name, f"{argv[0]} is not installed on this machine") from None
            log.seek(0, os.SEEK_END)
            log.write(f"== {name}: {time.monotonic() - started:.1f} s\n")
        if done.returncode != 0:
            raise StepError(name, f"exit code {done.returncode}")

    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self.path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])


class Furnisher(abc.ABC):
    """Commands in a builder, as root, and what an image's recipe makes of its root file system."""

    @abc.abstractmethod
    def step(self, name: str, script: str, stdin: str | None = None) -> None:
        """Run a shell script as root in the builder; its output goes to the log.

        :raise StepError: it failed, or ran past :data:`STEP_LIMIT`.
        """

    def write(self, path: str, content: str) -> None:
        """Write a file, mode 0644, from within: a link in the image cannot lead out to the host."""
        quoted = shlex.quote(path)
        self.step(
            f"write {path}",
            f"mkdir -p {shlex.quote(os.path.dirname(path))}\ncat > {quoted}\nchmod 0644 {quoted}",
            content,
        )

    def furnish(self, recipe: Recipe) -> None:
        """Turn the builder's root into the image: the same steps, in the same order, for every image."""
        if recipe.suite:
            self.step("make it a zone's base", FURNISH_BASE.format(masked=" ".join(MASKED_UNITS)))
        self.trust(recipe)
        if recipe.packages and not recipe.suite:
            self.install_packages("install packages", "install", recipe.packages)
        if recipe.user:
            user = shlex.quote(recipe.user)
            add = f"useradd --system --user-group --home-dir /var/lib/{user} --create-home --shell /usr/sbin/nologin {user}"
            self.step("create the user", f"getent passwd {user} > /dev/null || {add}")
        if recipe.python:
            self.install_python(recipe)
        for path, content in recipe.files.items():
            self.write(path, content)
        for number, command in enumerate(recipe.commands, 1):
            self.step(f"run command {number}", command)
        self.step("finish", FINISH)

    def trust(self, recipe: Recipe) -> None:
        """Have the builder trust the recipe's CA certificates."""
        for file, pem in recipe.ca_certificates.items():
            self.write(f"/usr/local/share/ca-certificates/{file.removesuffix('.crt')}.crt", pem)
        if recipe.ca_certificates:
            self.step("trust the CA certificates", "update-ca-certificates")

    def install_packages(self, name: str, verb: str, packages: t.Sequence[str] = ()) -> None:
        """Run apt-get, with no daemon started: policy-rc.d(8) with 101 forbids it to every maintainer script."""
        deny = "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d\nchmod 0755 /usr/sbin/policy-rc.d\n"
        names = " ".join(shlex.quote(package) for package in packages)
        self.step(name, f"{deny}apt-get -qq -o Dpkg::Use-Pty=0 -y {verb} -- {names}")

    def install_python(self, recipe: Recipe) -> None:
        """Make the virtualenv: the named requirements and what they need, at the lock's versions and hashes only.

        Byte code is compiled here because a zone's unprivileged daemons cannot write it, and start slowly without.
        """
        directory = t.cast(str, recipe.venv)
        venv = shlex.quote(directory)
        self.step("make the virtualenv", f"/run/build/uv venv -q --python /usr/bin/python3 {venv}")
        self.step("write the lock", "cat > /tmp/lock.txt", recipe.lock)
        requirements = "".join(f"{pinned(name, recipe)}\n" for name in recipe.python)
        self.step("write the requirements", "cat > /tmp/requirements.txt", requirements)
        options = "--require-hashes --no-progress -r /tmp/requirements.txt -c /tmp/lock.txt"
        self.step("install Python packages", f"/run/build/uv pip install --python {venv}/bin/python {options}")
        program = inspect.getsource(bytecode)
        self.step("compile byte code", f"{venv}/bin/python - {venv}/lib /run/build/bytecode", program)


def pinned(requirement: str, recipe: Recipe) -> str:
    """``name[extras]==version`` as the recipe's lock says it."""
    name, bracket, extras = requirement.partition("[")
    return f"{name}{bracket}{extras}=={lock_versions(recipe.lock or '')[canonical(name)]}"


def canonical(name: str) -> str:
    """The normalized name of a Python distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock_versions(lock: str) -> dict[str, str]:
    """Versions by normalized name in a lock's text."""
    return {canonical(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.M)}


# --- a host's images ---------------------------------------------------------------------------------------------


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
        raise ImageError(f"image {image}: images of this kind of host are built on each, and not carried yet")

    def unpack(self, image: str, source: pathlib.Path) -> None:
        """Make an image of what :meth:`pack` wrote, elsewhere. What bears its name is finished, whenever this is killed."""
        raise ImageError(f"image {image}: images of this kind of host are built on each, and not carried yet")

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
        raise ImageError(f"images: {', '.join(twice)} given more than once: give each image once")
    for recipe in recipes:
        recipe.check()
        if recipe.parent and recipe.parent not in known and not store.has(recipe.parent):
            raise ImageError(f"images: {recipe.id}: parent {recipe.parent!r} is neither built nor among `images`")


def build_all(
    store: ImageStore,
    missing: t.Sequence[Recipe],
    settings: Settings,
    unpack: t.Callable[[str], None] | None = None,
    archived: t.Container[str] = (),
) -> tuple[list[dict[str, t.Any]], list[str]]:
    """Build ``missing``, parents before children, as many at once as there are jobs and addresses.

    A failed image stops only its own children; all others are finished.

    :param unpack: makes an image of its archive, for those of ``archived``.
    :return: what was made (id, name, seconds), and a message for each image that was not.
    """
    built: list[dict[str, t.Any]] = []
    failed: list[str] = []
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    for address in settings.network.addresses if settings.network else ():
        addresses.put(address)
    waiting = {recipe.id: recipe for recipe in missing}

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
            for recipe in [recipe for recipe in waiting.values() if not recipe.parent or store.has(recipe.parent)]:
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
