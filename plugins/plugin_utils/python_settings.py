# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of a program that is configured in Python (Django): a user's data in, assignments with their origin out."""

from __future__ import annotations

import json
import re
import typing as t

NAME = re.compile(r"[A-Z][A-Z0-9_]*")


class SettingsError(ValueError):
    """What a user wrote is not of the form ``{NAME: value}``; the message names its place."""


def literal(value: t.Any) -> str:
    """A value of YAML as Python writes it; never a name or a call, so that data stays data."""
    if isinstance(value, t.Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    return json.dumps(str(value), ensure_ascii=False)


def render(origin: str, settings: t.Any) -> str:
    """One assignment a line below a comment with their origin.

    :param origin: where the values stand, as a reader would look for them (``service_conf``).
    """
    if not isinstance(settings, t.Mapping):
        raise SettingsError(f"{origin}: {settings!r} is not a mapping of settings: write {{NAME: value}}")
    for name in settings:
        if not NAME.fullmatch(str(name)):
            raise SettingsError(
                f"{origin}: {name!r} is not the name of a setting: write capital letters, as in SITE_BRANDING"
            )
    return "".join(["\n", f"# {origin}\n", *(f"{name} = {literal(value)}\n" for name, value in settings.items())])
