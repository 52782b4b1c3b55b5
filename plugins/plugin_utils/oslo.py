# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""oslo.config files as data: layers of ``{section: {key: value}}`` in, INI text with origins out.

The format is that of https://docs.openstack.org/oslo.config/latest/reference/defining.html: ``key = value`` below
``[section]``, a key that may be given several times stands on several lines, ``$`` starts a reference.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Options = t.Mapping[str, t.Mapping[str, t.Any]]


class OsloError(ValueError):
    """A layer is not of the form ``{section: {key: value}}``; the message names layer, section and key."""


@dataclass(frozen=True)
class Layer:
    """One source of options.

    :param origin: where the values stand, as a reader would look for them (``services/_oslo.yml database``).
    :param options: the values, by section and key.
    """

    origin: str
    options: Options


def scalar(value: t.Any) -> str:
    """One value as oslo.config reads it: booleans lower case, ``None`` as the empty string.

    A mapping becomes oslo's dict form ``key:value,key:value``.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, t.Mapping):
        return ",".join(f"{key}:{scalar(item)}" for key, item in value.items())
    return str(value)


def merge(layers: t.Iterable[Layer]) -> dict[str, dict[str, tuple[t.Any, str]]]:
    """Lay the layers over one another; the last one that names a key wins and is its origin.

    A key that is set to ``null`` in a later layer is taken out again, so that a user can return to upstream's default.
    """
    merged: dict[str, dict[str, tuple[t.Any, str]]] = {}
    for layer in layers:
        if not isinstance(layer.options, t.Mapping):
            raise OsloError(
                f"{layer.origin}: {layer.options!r} is not a mapping of sections: write {{section: {{key: value}}}}"
            )
        for section, options in layer.options.items():
            if not isinstance(options, t.Mapping):
                raise OsloError(
                    f"{layer.origin}: section {section!r} holds {options!r}: write {{{section}: {{key: value}}}}"
                )
            into = merged.setdefault(str(section), {})
            for key, value in options.items():
                if value is None:
                    into.pop(str(key), None)
                else:
                    into[str(key)] = (value, layer.origin)
    return {section: options for section, options in merged.items() if options}


def render(layers: t.Iterable[Layer], header: str = "") -> str:
    """INI text of the merged layers; the line above each run of keys from one source names it.

    ``DEFAULT`` comes first, the other sections follow by name, and keys by name, so that the same data always gives
    the same bytes. A list is a multi-valued option: one line for each item.
    """
    merged = merge(layers)
    lines = [f"# {line}" for line in header.splitlines()]
    for section in sorted(merged, key=lambda name: (name != "DEFAULT", name)):
        lines += ["", f"[{section}]"]
        for key, (value, origin) in sorted(merged[section].items()):
            lines.append(f"# {origin}")
            items = value if isinstance(value, (list, tuple)) else [value]
            for item in items:
                text = scalar(item)
                if "\n" in text:
                    raise OsloError(
                        f"{origin}: [{section}] {key} contains a line break; oslo.config accepts one line per value"
                    )
                lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"
