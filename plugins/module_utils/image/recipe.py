# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of, whatever kind of zone it is for, and how a host is to build it. Pure."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass, field


class ImageError(Exception):
    """A request that cannot be met; ``str()`` says where, what, and what would be right."""


@dataclass(frozen=True)
class Recipe:
    """What an image is made of; ``id`` names the content (``<name>-<hash>``).

    :param parent: id of the image below, or none for a base image.
    :param packages: Debian packages.
    :param python: requirement names for the virtualenv ``venv``, at the versions and hashes of ``lock`` (its text).
    :param adds_to: virtualenv of the parent that this image's packages are added to; ``venv`` is then another name of it.
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
    adds_to: str | None = None
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
        paths = {"venv": self.venv, "adds_to": self.adds_to}
        for key, path in [*(("files", path) for path in self.files), *paths.items()]:
            if path and (not path.startswith("/") or os.path.normpath(path) != path):
                refuse(key, path, "an absolute path without '..'")
        for package in self.packages:
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9]+)?", package):
                refuse("packages", package, "the name of a Debian package")
        for file in self.ca_certificates:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", file):
                refuse("ca_certificates", file, "a plain file name")
        if self.user and not re.fullmatch(r"[a-z_][a-z0-9_-]*", self.user):
            refuse("user", self.user, "the name of a system user")


@dataclass(frozen=True)
class BuilderNetwork:
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

    network: BuilderNetwork | None
    jobs: int
    mirror: str = ""
    uv: str = "uv"
    seed: t.Mapping[str, str | None] = field(default_factory=dict)


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
