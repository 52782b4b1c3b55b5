# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the root file system of a builder becomes an image: the same steps, in the same order, for every kind of zone.

How a command gets into the builder is what a kind of host adds: :mod:`.lxc` a container without an init, :mod:`.smartos` a zone of
brand lx.
"""

from __future__ import annotations

import abc
import inspect
import os
import pathlib
import shlex
import subprocess
import time
import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.image import bytecode
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import Recipe, pinned

STEP_LIMIT = 900
"""Seconds that one step of one build may take."""

LOG_LINES = 30
"""Lines of a failed build's log that its error shows."""

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
        """Make the virtualenv, or add to the parent's: the named requirements and what they need, at the lock's versions and hashes only.

        Byte code is compiled here because a zone's unprivileged daemons cannot write it, and start slowly without.
        """
        venv = shlex.quote(t.cast(str, recipe.adds_to or recipe.venv))
        if recipe.adds_to:
            self.step("name the virtualenv", f"ln -s {venv} {shlex.quote(t.cast(str, recipe.venv))}")
        else:
            self.step("make the virtualenv", f"/run/build/uv venv -q --python /usr/bin/python3 {venv}")
        self.step("write the lock", "cat > /tmp/lock.txt", recipe.lock)
        requirements = "".join(f"{pinned(name, recipe)}\n" for name in recipe.python)
        self.step("write the requirements", "cat > /tmp/requirements.txt", requirements)
        options = "--require-hashes --no-progress -r /tmp/requirements.txt -c /tmp/lock.txt"
        self.step("install Python packages", f"/run/build/uv pip install --python {venv}/bin/python {options}")
        program = inspect.getsource(bytecode)
        self.step("compile byte code", f"{venv}/bin/python - {venv}/lib /run/build/bytecode", program)
