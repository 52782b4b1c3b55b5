# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Closed schemas: YAML in, frozen dataclasses out, or an error that says where, what, and what would be right.

A schema is a dataclass and a key is one line of it::

    count: t.Annotated[int | None, "Zones in the deployment", AT_LEAST_1] = None

The text is the key's documentation (``scripts/render-docs.py`` prints it), a :class:`Rule` is what its value must
satisfy, and a field without a default is a key that must be there. A trailing underscore of a field (``from_``) is not
part of the key.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import operator
import re
import types
import typing as t
from dataclasses import dataclass
from pathlib import Path

import yaml

T = t.TypeVar("T")
_NOTHING = object()
_MAX_KNOWN = 24


class Refused(ValueError):
    """Input that is not acted upon. ``str()`` reads ``file: key.path: value ...: what would be right (known: ...)``."""


def known_names(names: t.Iterable[str], wanted: t.Any = None) -> str:
    """The end of a message that lists what may be written; of a long list the likeliest ``_MAX_KNOWN`` names."""
    every = [str(name) for name in names]
    if not every:
        return " (known: none)"
    close = difflib.get_close_matches(str(wanted), every, _MAX_KNOWN, 0.6) if len(every) <= 2000 else []
    ordered = close + [name for name in every if name not in set(close)]
    rest = len(ordered) - _MAX_KNOWN
    return f" (known: {', '.join(ordered[:_MAX_KNOWN])}{f', and {rest} more' if rest > 0 else ''})"


@dataclass(frozen=True)
class Place:
    """Where a value stands: the file as the user knows it, and the path of keys inside it."""

    file: str
    path: str = ""

    def at(self, key: t.Any) -> Place:
        """The place one step further in: a mapping's key or a list's index."""
        if isinstance(key, int):
            step = f"[{key}]"
        elif re.fullmatch(r"[\w-]+", str(key)):
            step = f".{key}" if self.path else str(key)
        else:
            step = f"[{key}]"
        return Place(self.file, self.path + step)

    def refuse(self, value: t.Any, right: str, known: t.Iterable[str] | None = None) -> Refused:
        """The error for ``value`` at this place; ``known`` are the names that would have been right."""
        parts = [self.file]
        if self.path:
            parts.append(self.path)
        if value is not _NOTHING:
            shown = repr(value)
            parts.append(f"value {shown if len(shown) <= 120 else shown[:117] + '...'}")
        return Refused(": ".join([*parts, right]) + ("" if known is None else known_names(known, value)))

    def missing(self, right: str, known: t.Iterable[str] | None = None) -> Refused:
        """The error for something that is not there at all."""
        return self.refuse(_NOTHING, right, known)


@dataclass(frozen=True)
class Rule:
    """What a value must satisfy, and the words that say so in an error and in the documentation."""

    test: t.Callable[[t.Any], t.Any]
    right: str


def at_least(low: int, unit: str = "") -> Rule:
    """A whole number that is not below ``low``."""
    return Rule(lambda value: value >= low, f"give {low} or more{' ' + unit if unit else ''}")


def matching(pattern: str, right: str) -> Rule:
    """A string that the whole of ``pattern`` matches."""
    return Rule(re.compile(pattern).fullmatch, right)


# RFC 1123 section 2.1, and a letter first, because the name becomes part of a group's name in Ansible.
Label = t.Annotated[
    str, matching(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "write a DNS label: a-z, 0-9 and -, a letter first, at most 63")
]
Name = t.Annotated[str, matching(r"[a-z][a-z0-9_]*", "write a name of a-z, 0-9 and _ that begins with a letter")]
Absolute = t.Annotated[str, matching(r"/[^\0]*", "write an absolute path")]
Mode = t.Annotated[str, matching(r"[0-7]{4}", 'write four octal digits in quotes, such as "0640"')]
Port = t.Annotated[int, Rule(lambda value: 0 < value < 65536, "give a port, 1 to 65535")]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML without surprises: a key that stands twice is an error, not the last one wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[t.Any, t.Any]:
        first: dict[str, int] = {}
        for key, _value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = first.setdefault(key.value, key.start_mark.line + 1)
                if line != key.start_mark.line + 1:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"duplicate key {key.value!r} (first on line {line}): keep one", key.start_mark
                    )
        return t.cast("dict[t.Any, t.Any]", super().construct_mapping(node, deep))


def parse_yaml(text: str, file: str) -> dict[str, t.Any]:
    """The mapping that ``text`` holds; errors name ``file`` with line and column."""
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader by inheritance
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Refused(f"{file}: {where}{broken.problem or broken.context}") from None
    except yaml.YAMLError as broken:
        raise Refused(f"{file}: {broken}: write UTF-8 text in YAML") from None
    if data is None:
        raise Place(file).missing("the file is empty: write a mapping, docs/reference/topology.md shows its keys")
    if not isinstance(data, dict):
        raise Place(file).refuse(data, "write a mapping (key: value) at the top level")
    return data


def read_yaml(path: Path, file: str) -> dict[str, t.Any]:
    """:func:`parse_yaml` of a file on disk, which messages call ``file``."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), file)
    except OSError as problem:
        raise Place(file).missing(f"{problem.strerror}: name a file that can be read") from None
    except UnicodeDecodeError as problem:
        raise Place(file).missing(f"byte {problem.start} is not UTF-8: save the file as UTF-8 text") from None


def key_of(field: dataclasses.Field[t.Any]) -> str:
    """The YAML key of a dataclass field."""
    return field.name.rstrip("_")


@functools.cache
def _fields(cls: t.Any) -> dict[str, tuple[str, t.Any, bool]]:
    """Key to (field name, type, required) of a schema."""
    hints = t.get_type_hints(cls, include_extras=True)
    return {
        key_of(field): (
            field.name,
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)
    }


def keys_of(cls: type) -> list[str]:
    """The keys that a schema knows, in its order."""
    return list(_fields(cls))


_SCALARS: dict[t.Any, str] = {str: "write a string", int: "give a whole number", bool: "write true or false"}


def _scalar(kind: t.Any, value: t.Any, place: Place) -> t.Any:
    # bool is an int in Python, not in YAML; a number where a string is meant usually lost something (2026.10, 0640)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    hint = " in quotes" if kind is str and isinstance(value, (int, float)) else ""
    raise place.refuse(value, _SCALARS[kind] + hint)


def decode(kind: t.Any, value: t.Any, place: Place) -> t.Any:
    """``value`` as ``kind``, which is a dataclass or a type as this module's schemas use them.

    :raises Refused: when it does not fit, with the place of the innermost value that is wrong.
    """
    if dataclasses.is_dataclass(kind):
        return decode_dataclass(t.cast("type", kind), value, place)
    origin, args = t.get_origin(kind), t.get_args(kind)
    if origin is t.Annotated:
        result = decode(args[0], value, place)
        if result is not None:
            for rule in args[1:]:
                if isinstance(rule, Rule) and not rule.test(result):
                    raise place.refuse(value, rule.right)
        return result
    if origin in (t.Union, types.UnionType):
        if value is None:
            return None
        return decode(next(arg for arg in args if arg is not type(None)), value, place)
    if origin is t.Literal:
        if value not in args or isinstance(value, bool):
            raise place.refuse(value, "write one of the known values", map(str, args))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise place.refuse(value, "write a list, [..]")
        return tuple(decode(args[0], item, place.at(index)) for index, item in enumerate(value))
    if kind is dict or origin is dict:
        if not isinstance(value, dict):
            raise place.refuse(value, "write a mapping, {key: value}")
        if not args:
            return value
        return {
            decode(args[0], key, place.at(key)): decode(args[1], item, place.at(key)) for key, item in value.items()
        }
    return value if kind is t.Any else _scalar(kind, value, place)


def decode_dataclass(cls: type[T], value: t.Any, place: Place) -> T:
    """A mapping as an instance of the schema ``cls``; an unknown key and a missing one are refused."""
    if not isinstance(value, dict):
        raise place.refuse(value, f"write a mapping with the keys of {cls.__name__.lower()}", keys_of(cls))
    fields = _fields(t.cast("t.Any", cls))
    for key in value:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, 1)
            raise place.at(key).refuse(
                value[key], f"unknown key{f', did you mean {close[0]!r}?' if close else ''}", fields
            )
    found = {}
    for key, (name, kind, required) in fields.items():
        if key in value:
            found[name] = decode(kind, value[key], place.at(key))
            if found[name] is None and required:
                raise place.at(key).refuse(None, "give it a value")
        elif required:
            raise place.at(key).missing("the key is missing and has no default")
    # a null means "as if the key were not there", so that a key may stand without a value
    return cls(**{name: item for name, item in found.items() if item is not None})


@functools.cache
def _encoded(cls: t.Any) -> tuple[list[str], list[str], t.Callable[[t.Any], tuple[t.Any, ...]]]:
    """The keys of a schema, those that are left out without a value, and what gets all values of an instance."""
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    getter = operator.attrgetter(*names)
    values = getter if len(names) > 1 else lambda value: (getter(value),)
    return [key_of(field) for field in fields], [key_of(field) for field in fields if field.default is None], values


#: Types of which an instance is plain already. They are told apart before a call is made: a large cloud has half a million.
_PLAIN = frozenset((str, int, bool, type(None)))


def encode(value: t.Any) -> t.Any:
    """A dataclass's instance as plain data for Ansible. A field whose default is None is left out where it has no value."""
    kind = type(value)
    if kind is dict:
        return {key: item if type(item) in _PLAIN else encode(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [item if type(item) in _PLAIN else encode(item) for item in value]
    if kind in _PLAIN or not dataclasses.is_dataclass(kind):
        return value
    keys, optional, values_of = _encoded(kind)
    values = values_of(value)
    found = dict(zip(keys, values, strict=True))
    if not _PLAIN.issuperset(map(type, values)):
        found = {key: item if type(item) in _PLAIN else encode(item) for key, item in found.items()}
    for key in optional:
        if found[key] is None:
            del found[key]
    return found
