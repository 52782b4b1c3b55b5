# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build and prune the immutable root file system layers that zones are clones of.

An image is one directory ``images/<id>/`` with ``rootfs/`` (owners shifted for unprivileged zones) and
``manifest.json``. A base image is a whole Debian; any other is the upper directory of an overlay on its parents: what
an unprivileged builder container wrote while it was being furnished. The directory is renamed to its id as the last
act, so what bears an image's name is finished.
"""

from __future__ import annotations

import concurrent.futures
import configparser
import contextlib
import ctypes
import fcntl
import inspect
import json
import os
import pathlib
import queue
import re
import shlex
import shutil
import stat
import struct
import subprocess
import threading
import time
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.zonestack.openstack.plugins.module_utils import bytecode
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run

SHIFT = 100_000
"""What is added to every owner in an image: root of an unprivileged zone is this user on its host (subuid(5))."""

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
    """How to build: what belongs to the host and not to an image's content."""

    network: Network | None
    jobs: int
    mirror: str = ""
    uv: str = "uv"


# --- what the host gives -----------------------------------------------------------------------------------------


def os_release() -> dict[str, str]:
    """This machine's os-release(5)."""
    lines = pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {
        key: "".join(shlex.split(value)) for key, _equals, value in (line.partition("=") for line in lines if "=" in line)
    }


def sources(suite: str, mirror: str) -> list[str]:
    """The ``sources.list`` lines for ``suite``: the archive, its updates and its security updates.

    :param mirror: the archive's URI; security updates are then looked for at the same URI with ``-security`` appended.
        Empty: where this host, a Debian of whatever release, gets its own packages from.
    """
    if mirror:
        archive = mirror.rstrip("/")
        security = f"{archive}-security"
    else:
        listed = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]).out
        archive, security = host_mirrors(listed, os_release())
    lines = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
    return lines + ([f"deb {security} {suite}-security main"] if security else [])


def host_mirrors(listed: str, release: t.Mapping[str, str]) -> tuple[str, str]:
    """The URIs of Debian's archive and of its security archive ('' if unused) in ``apt-get indextargets`` output.

    :param listed: lines of ``$(RELEASE) $(REPO_URI)``.
    :param release: the host's os-release(5); other origins' repositories bear other release names than this Debian's.
    """
    if release.get("ID") != "debian":
        raise ImageError(f"this host is no Debian ({release.get('ID')}): say where its archive is with `mirror`")
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
    """apt.conf(5) text for builders: the host's proxies and time limits, more retries, and no translations."""
    dump = run(["apt-config", "dump"]).out.splitlines()
    kept = [
        line for line in dump if re.match(r"Acquire::(https?|ftp)::(Proxy|Timeout)\b|Acquire::Retries\b", line, re.I)
    ]
    return "\n".join(['Acquire::Retries "8";', *kept, 'Acquire::Languages "none";', 'APT::Install-Recommends "false";', ""])


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


def resolver() -> str:
    """A resolv.conf that also holds inside a builder: not the one that points to a stub on the host's loopback."""
    text = pathlib.Path("/etc/resolv.conf").read_text(encoding="utf-8")
    upstream = pathlib.Path("/run/systemd/resolve/resolv.conf")
    if re.search(r"^nameserver\s+127\.", text, re.M) and upstream.exists():
        return upstream.read_text(encoding="utf-8")
    return text


# --- the store ---------------------------------------------------------------------------------------------------


class Store:
    """The directory that holds a host's images, their logs and the caches; its parent holds the zones."""

    def __init__(self, root: str) -> None:
        self.root = pathlib.Path(root)
        self.images = self.root / "images"
        self.logs = self.root / "log"
        self.cache = self.root / "cache"
        self.builders = self.root / "builders"

    def prepare(self) -> None:
        """Make the store's directories."""
        for path in (self.images, self.logs, self.cache, self.builders):
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

    def remains(self) -> list[str]:
        """What killed builds left; nothing while somebody holds :meth:`lock`, for then it is work in progress."""
        if not self.leftovers():
            return []
        with contextlib.suppress(ImageError), self.lock(0):
            return self.leftovers()
        return []

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
            shutil.rmtree(path)
        return names

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


def shift_owners(root: str) -> None:
    """Add :data:`SHIFT` to the owners below ``root``, keeping set-id bits and file capabilities.

    chown(2) drops both. A capability is rewritten in revision 3, which holds only in the user namespace whose root is
    ``SHIFT`` (capabilities(7), struct vfs_ns_cap_data): that is the zone's.
    """

    def one(path: str) -> None:
        info = os.lstat(path)
        if info.st_uid >= SHIFT:  # a hard link of one that was done
            return
        capability = b""
        if stat.S_ISREG(info.st_mode):
            with contextlib.suppress(OSError):
                capability = os.getxattr(path, "security.capability")
        os.lchown(path, info.st_uid + SHIFT, info.st_gid + SHIFT)
        if not stat.S_ISLNK(info.st_mode) and info.st_mode & 0o6000:
            os.chmod(path, stat.S_IMODE(info.st_mode))
        if capability:
            magic, *sets = struct.unpack("<5I", capability[:20])
            os.setxattr(path, "security.capability", struct.pack("<6I", 0x03000000 | magic & 1, *sets, SHIFT))

    one(root)
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            one(os.path.join(directory, name))


def flush(path: pathlib.Path) -> None:
    """Write the file system that holds ``path`` to its disk (syncfs(2)): what looks finished survives a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs({path})")
    finally:
        os.close(descriptor)


# --- building ----------------------------------------------------------------------------------------------------


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


class Builder:
    """An unprivileged container without an init system, in which one image is furnished."""

    def __init__(
        self, store: Store, image: str, rootfs: str, network: Network, address: str, settings: Settings, log: Log
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
        (inside / "resolv.conf").write_text(resolver(), encoding="utf-8")
        (inside / "uv").touch()
        for shared in (store.cache / "uv", store.cache / "apt", store.cache / "bytecode"):
            shared.mkdir(exist_ok=True)
            os.chown(shared, SHIFT, SHIFT)
        uv = shutil.which(settings.uv)
        mounts = [
            "tmpfs run tmpfs mode=0755 0 0",
            "tmpfs tmp tmpfs mode=1777 0 0",
            "tmpfs dev/shm tmpfs mode=1777,create=dir 0 0",  # Python's process pools need it
            "tmpfs var/cache/apt tmpfs mode=0755 0 0",
            f"{inside} run/build none bind,ro,create=dir 0 0",
            f"{store.cache}/uv run/build/uv-cache none bind,create=dir 0 0",
            f"{store.cache}/bytecode run/build/bytecode none bind,create=dir 0 0",
            f"{store.cache}/apt var/lib/apt/lists none bind 0 0",
            f"{inside}/resolv.conf etc/resolv.conf none bind,ro 0 0",
            *([f"{uv} run/build/uv none bind,ro,create=file 0 0"] if uv else []),
        ]
        lines = [
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
        (self.home / "config").write_text("\n".join([*lines, ""]), encoding="utf-8")

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
        for file, pem in recipe.ca_certificates.items():
            self.write(f"/usr/local/share/ca-certificates/{file.removesuffix('.crt')}.crt", pem)
        if recipe.suite:
            self.step("make it a zone's base", FURNISH_BASE.format(masked=" ".join(MASKED_UNITS)))
        if recipe.ca_certificates:
            self.step("trust the CA certificates", "update-ca-certificates")
        if recipe.packages and not recipe.suite:
            # Daemons must not start in a builder: policy-rc.d(8) with 101 forbids it to every maintainer script.
            deny = "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d\nchmod 0755 /usr/sbin/policy-rc.d\n"
            names = " ".join(shlex.quote(name) for name in recipe.packages)
            self.step("install packages", f"{deny}apt-get -qq -o Dpkg::Use-Pty=0 -y install -- {names}")
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


def build(store: Store, recipe: Recipe, settings: Settings, address: str) -> float:
    """Build one image whose parents are there; the seconds it took."""
    started = time.monotonic()
    log = Log(store.logs / f"{recipe.id}.log")
    draft = store.images / f".{recipe.id}.{os.getpid()}"
    rootfs = draft / "rootfs"
    try:
        draft.mkdir(mode=0o755)
        if recipe.suite:
            debootstrap(store, recipe, settings, rootfs, log)
            path = f"dir:{rootfs}"
        else:
            for part in (rootfs, draft / "work"):
                part.mkdir(mode=0o755)
                os.chown(part, SHIFT, SHIFT)
            path = ":".join(["overlayfs", *map(str, store.layers(recipe.parent)), str(rootfs)])
        network = t.cast(Network, settings.network)
        with Builder(store, recipe.id, path, network, address, settings, log) as builder:
            if not recipe.suite and recipe.packages:
                refresh_lists(store, builder)
            builder.furnish(recipe)
        shutil.rmtree(draft / "work", ignore_errors=True)
        made = {"id": recipe.id, "name": recipe.name, "parent": recipe.parent, "recipe": asdict(recipe)}
        made["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        flush(draft)
        manifest = draft / "manifest.json"
        with manifest.open("w", encoding="utf-8") as file:
            json.dump(made, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(store.images / recipe.id)
    except (StepError, CommandError, ImageError, OSError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ImageError(f"image {recipe.id}: {error}\nlast lines of {log.path}:\n{log.tail()}") from error
    return time.monotonic() - started


def debootstrap(store: Store, recipe: Recipe, settings: Settings, rootfs: pathlib.Path, log: Log) -> None:
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
    shift_owners(str(rootfs))
    lists = rootfs / "var/lib/apt/lists"
    shutil.rmtree(store.cache / "apt", ignore_errors=True)
    lists.rename(store.cache / "apt")
    (store.cache / "apt.fetched").touch()
    lists.mkdir(mode=0o755)
    os.chown(lists, SHIFT, SHIFT)


def file_path(rootfs: pathlib.Path, name: str) -> str:
    """A file beside ``rootfs``, as text."""
    return str(rootfs.parent / name)


_REFRESH = threading.Lock()


def refresh_lists(store: Store, builder: Builder) -> None:
    """Fetch apt's shared package lists unless they are recent; the first builder that comes does it for all."""
    stamp = store.cache / "apt.fetched"
    with _REFRESH:
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_AGE:
            builder.step("fetch the package lists", "apt-get -qq update")
            stamp.touch()


def check_recipes(store: Store, recipes: t.Sequence[Recipe]) -> None:
    """Refuse recipes that are wrong by themselves, or whose parent is neither there nor among them."""
    known = {recipe.id for recipe in recipes}
    if len(known) != len(recipes):
        twice = sorted({recipe.id for recipe in recipes if [other.id for other in recipes].count(recipe.id) > 1})
        raise ImageError(f"images: {', '.join(twice)} given more than once: give each image once")
    for recipe in recipes:
        recipe.check()
        if recipe.parent and recipe.parent not in known and not store.has(recipe.parent):
            raise ImageError(f"images: {recipe.id}: parent {recipe.parent!r} is neither built nor among `images`")


def check_tools(missing: t.Sequence[Recipe], settings: Settings) -> None:
    """Refuse to begin without what a build needs on this host."""
    tools = {"lxc-start": "the package lxc"}
    if any(recipe.suite for recipe in missing):
        tools["mmdebstrap"] = "the package mmdebstrap"
    if any(recipe.python for recipe in missing):
        tools[settings.uv] = "uv, or its path as `uv`"
    for tool, remedy in tools.items():
        if not shutil.which(tool):
            raise ImageError(f"{tool} is not installed on this host: install {remedy}")
    bridge = pathlib.Path("/sys/class/net", t.cast(Network, settings.network).bridge)
    if not bridge.exists():
        raise ImageError(f"network.bridge: {bridge.name!r} does not exist on this host: prepare the host first")


def build_all(
    store: Store, missing: t.Sequence[Recipe], settings: Settings
) -> tuple[list[dict[str, t.Any]], list[str]]:
    """Build ``missing``, parents before children, as many at once as there are jobs and addresses.

    A failed image stops only its own children; all others are finished.

    :return: what was built (id, name, seconds), and a message for each image that was not.
    """
    built: list[dict[str, t.Any]] = []
    failed: list[str] = []
    network = t.cast(Network, settings.network)
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    for address in network.addresses:
        addresses.put(address)
    waiting = {recipe.id: recipe for recipe in missing}

    def one(recipe: Recipe) -> float:
        address = addresses.get()
        try:
            return build(store, recipe, settings, address)
        finally:
            addresses.put(address)

    with concurrent.futures.ThreadPoolExecutor(max(1, min(settings.jobs, len(network.addresses)))) as pool:
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
                except ImageError as error:
                    failed.append(str(error))
                else:
                    built.append({"id": recipe.id, "name": recipe.name, "seconds": seconds})
    failed += [f"image {recipe.id}: not built, its parent {recipe.parent} is missing" for recipe in waiting.values()]
    return built, failed


# --- pruning -----------------------------------------------------------------------------------------------------


def prunable(store: Store, keep: t.Collection[str]) -> list[str]:
    """Finished images that neither ``keep`` nor a zone needs, children before parents.

    A zone uses every image whose id stands in its ``config`` or ``zone.json``; an image uses its parent.
    """
    manifests = store.manifests()
    texts = []
    for pattern in ("*/config", "*/zone.json"):
        for path in store.root.parent.glob(pattern):
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


def size(path: pathlib.Path) -> int:
    """Bytes that a tree occupies on disk; a hard-linked file counts once."""
    seen = {}
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            info = os.lstat(os.path.join(directory, name))
            seen[info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


def remove(store: Store, image: str) -> None:
    """Remove an image; the name goes first, so that a half-removed one never looks finished."""
    doomed = store.images / f".{image}.{os.getpid()}"
    (store.images / image).rename(doomed)
    shutil.rmtree(doomed)
    (store.logs / f"{image}.log").unlink(missing_ok=True)
