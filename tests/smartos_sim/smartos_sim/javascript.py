# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How JavaScript takes the values of a payload: what is a number to it, what is empty, what it echoes."""

from __future__ import annotations

import json
import math
import typing as t


class Crash(Exception):
    """An error that the real program does not catch; node, told to abort then, ends by SIGABRT without a message of its own."""


def dumps(value: t.Any) -> str:
    """``value`` as JavaScript echoes it in a message."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def number_of(value: t.Any) -> int | float | None:
    """What ``Number()`` makes of a value; None where that is no number."""
    if value is None or isinstance(value, bool):
        return int(bool(value))
    if isinstance(value, list):
        return 0 if not value else number_of(value[0]) if len(value) == 1 else None
    if isinstance(value, str) and not value.strip():
        return 0
    try:
        number = int(value, 0) if isinstance(value, str) and value.strip().lower().startswith("0x") else float(value)
    except (TypeError, ValueError):
        return None
    if math.isnan(number):
        return None
    return int(number) if float(number).is_integer() else number


def whole(value: t.Any) -> int | None:
    """The whole number that ``value`` is or spells; None when it is not one."""
    number = None if isinstance(value, bool) else number_of(value)
    return int(number) if number is not None and float(number).is_integer() else None


def is_empty(value: t.Any) -> bool:
    """Whether a value only says "none": it is not looked at."""
    return value is None or value == ""


def is_blank(value: t.Any) -> bool:
    """Whether a value's text is empty, as that of null and of an empty list is."""
    if isinstance(value, list):
        return not value or (len(value) == 1 and is_blank(value[0]))
    return value is None or (isinstance(value, str) and not value.strip())


def exceeds(one: t.Any, other: t.Any) -> bool:
    """Whether a number is greater than another; what is undefined never is."""
    good = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in (one, other))
    return good and one > other
