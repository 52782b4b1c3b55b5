# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of services and instances, and the ways in which the tools let people shorten them (smf(7), svcs(1))."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.,@+-]*[A-Za-z0-9])?"
_FULL = re.compile(rf"svc:/(?:/localhost/)?((?:{_NAME}/)*{_NAME})(?::({_NAME}))?")


@dataclass(frozen=True, order=True)
class Fmri:
    """A service (``instance`` is empty) or one of its instances."""

    service: str
    instance: str = ""

    def __str__(self) -> str:
        return f"svc:/{self.service}" + (f":{self.instance}" if self.instance else "")

    @property
    def parent(self) -> Fmri:
        """The service."""
        return Fmri(self.service)

    @property
    def log_name(self) -> str:
        """Name of the log file below /var/svc/log."""
        return f"{self.service.replace('/', '-')}:{self.instance}.log"

    @classmethod
    def parse(cls, text: str) -> Fmri | None:
        """A full FMRI; None for anything else."""
        found = _FULL.fullmatch(text)
        return cls(found[1], found[2] or "") if found else None


def is_glob(pattern: str) -> bool:
    """Whether fnmatch(7) characters make it a pattern for many."""
    return any(character in pattern for character in "*?[")


def select(pattern: str, instances: Iterable[Fmri]) -> list[Fmri]:
    """The instances that an operand means: a full FMRI, a glob pattern, or an abbreviation."""
    known = sorted(instances)
    if is_glob(pattern):
        whole = pattern if pattern.startswith(("svc:", "*")) else f"svc:/{pattern}"
        return [one for one in known if fnmatch.fnmatchcase(str(one), whole)]
    full = Fmri.parse(pattern)
    if full:
        return [one for one in known if one == full or (not full.instance and one.parent == full)]
    service, colon, instance = pattern.partition(":")

    def ends_with(one: Fmri) -> bool:
        return not service or one.service == service or one.service.endswith(f"/{service}")

    if colon:
        return [one for one in known if ends_with(one) and instance in ("", one.instance)]
    return [one for one in known if ends_with(one) or one.instance == service]
