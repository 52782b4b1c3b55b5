# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seam between what a zone should be and the kind of host that makes it: what every backend offers, and how it fails.

A backend is handed the zone's whole description and keeps nothing of it from one call to the next. Whatever goes wrong on its
host, it raises :class:`~.description.ZoneError` with a message that names the zone; :func:`fails_as_zone_error` sees to that.
"""

from __future__ import annotations

import contextlib
import functools
import typing as t
from dataclasses import dataclass

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError, ZoneSpec


@dataclass(frozen=True)
class Current:
    """What exists under a zone's name.

    ``spec`` is None when there is no zone. ``volumes`` are the volumes with data on disk, which a destroyed zone
    leaves behind; ``debris`` says that an interrupted call left a half-made or half-removed zone.
    """

    spec: ZoneSpec | None = None
    running: bool = False
    pid: int | None = None
    volumes: tuple[str, ...] = ()
    debris: bool = False
    drift: tuple[str, ...] = ()  # fields whose applied value is not the recorded one, such as a config edited by hand


class Backend(t.Protocol):
    """What a zone backend must offer. ``live`` are the fields of a zone that it changes while the zone runs.

    Of ``zone``, a description, ``stop``, ``destroy`` and ``exclusive`` use the name and the UUID alone: there may be no more.
    """

    live: t.ClassVar[frozenset[str]]

    def exclusive(self, zone: ZoneSpec) -> contextlib.AbstractContextManager[None]:
        """Hold off other calls for the same zone."""

    def effective(self, zone: ZoneSpec) -> ZoneSpec:
        """The description without what this backend cannot do, so that nothing is reported that was not done."""

    def read(self, zone: ZoneSpec) -> Current:
        """What exists under the zone's name; refuse a zone that is not ours. Changes nothing."""

    def check(self, zone: ZoneSpec) -> None:
        """Refuse what this host cannot give (image, bridge, ...). Changes nothing."""

    def create(self, zone: ZoneSpec) -> None:
        """Make the zone, not started. Either it is complete afterwards or :meth:`read` does not see it."""

    def update(self, zone: ZoneSpec, changed: t.Collection[str], running: bool) -> None:
        """Change ``changed`` fields; only fields in ``live`` while the zone is ``running``."""

    def start(self, zone: ZoneSpec) -> None:
        """Start the zone, which is what its description says by now."""

    def stop(self, zone: ZoneSpec) -> None:
        """Stop the zone and wait until it is gone."""

    def ready(self, zone: ZoneSpec, pid: int | None) -> int:
        """Wait until the running zone answers; return the process id of its init (``pid``, where it is known to run already)."""

    def destroy(self, zone: ZoneSpec, purge: bool) -> None:
        """Remove the stopped zone and any debris of it, with ``purge`` its volumes too."""


BACKENDS = ("lxc", "smartos")
CALLS = ("read", "check", "create", "update", "start", "stop", "ready", "destroy")
Made = t.TypeVar("Made")


def open_backend(kind: str, *, start_timeout: float, stop_timeout: float) -> Backend:
    """The backend of one of :data:`BACKENDS`; limits are in seconds.

    Only the one that is asked for is imported: a host of LXC zones has no use for what is known of vmadm(8).
    """
    if kind == "smartos":
        from ansible_collections.zonestack.openstack.plugins.module_utils.zone.smartos import SmartosBackend

        return SmartosBackend(start_timeout=start_timeout, stop_timeout=stop_timeout)
    from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc import LxcBackend

    return LxcBackend(start_timeout=start_timeout, stop_timeout=stop_timeout)


def fails_as_zone_error(*own: type[Exception]) -> t.Callable[[type[Made]], type[Made]]:
    """Decorate a backend: what its calls raise is a :class:`ZoneError` that names the zone.

    :param own: what the backend's own tools raise, beside a failed command and an error of the operating system.
    """
    causes = (ZoneError, CommandError, OSError, *own)

    def wrapped(call: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        @functools.wraps(call)
        def one(self: object, zone: ZoneSpec, *rest: t.Any, **named: t.Any) -> t.Any:
            try:
                return call(self, zone, *rest, **named)
            except causes as bad:
                raise ZoneError(about(zone.name, str(bad))) from bad

        return one

    def decorate(backend: type[Made]) -> type[Made]:
        for name in CALLS:
            setattr(backend, name, wrapped(getattr(backend, name)))
        return backend

    return decorate


def about(name: str, message: str) -> str:
    """A message that says which zone it is about."""
    who = f"zone {name!r}"
    return message if message.startswith(who) else f"{who}: {message}"
