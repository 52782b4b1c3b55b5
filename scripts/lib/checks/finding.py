# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check says: a finding, with its fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What is wrong and what to do. ``host`` is empty where it is about none or several; ``check`` is a word to search for."""

    check: str
    what: str
    fix: str
    host: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        where = f"{self.host}: " if self.host else ""
        return f"{'problem' if self.fatal else 'warning'}: {where}{self.check}: {self.what}. Fix: {self.fix}."


def gib(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB"


def names(hosts: Iterable[str], most: int = 4) -> str:
    """``aio1-galera-1, aio1-galera-2`` or, of many, the first few and how many more."""
    listed = list(hosts)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
