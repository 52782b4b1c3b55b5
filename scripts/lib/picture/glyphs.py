# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs: a host, a data volume, a privileged zone, the state of a zone, an arrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from model import Zone
from svg import Box, Group, Path, Rect, Text

Item: TypeAlias = Rect | Text | Path | Group


def links(places: list[Box], tier: str) -> list[Item]:
    """What makes a cluster visible: a line from member to member."""
    return [
        Path(f"M{a.x + a.w} {a.y + a.h // 2}L{b.x} {b.y + b.h // 2}", f"line {tier} link")
        for a, b in zip(places, places[1:], strict=False)
    ]


def arrow(x: int, top: int, bottom: int) -> list[Item]:
    return [Path(f"M{x} {top}V{bottom - 8}", "arrow"), Path(f"M{x} {bottom - 1}l-6 -10h12z", "tip")]


def server(x: int, y: int) -> list[Item]:
    """A machine: three units in a rack."""
    units = "".join(f"M{x} {y + 6 * n}h20v5h-20zM{x + 14} {y + 6 * n + 2.5:g}h3" for n in range(3))
    return [Path(units, "glyph")]


def cylinder(x: int, y: int) -> list[Item]:
    return [
        Path(f"M{x} {y + 3}v8c0 4 12 4 12 0v-8c0-4-12-4-12 0zM{x} {y + 3}c0 4 12 4 12 0", "glyph"),
    ]


def shield(x: int, y: int) -> list[Item]:
    return [
        Path(f"M{x + 6} {y}l6 2v4c0 4-3 7-6 8c-3-1-6-4-6-8v-4z", "badline"),
        Path(f"M{x + 6} {y + 4}v4M{x + 6} {y + 10}v1", "badline"),
    ]


def marks(zone: Zone) -> Sequence[Callable[[int, int], list[Item]]]:
    return [shield] * zone.privileged + [cylinder] * bool(zone.volumes)


def state_mark(state: str, word: str, right: int, middle: int) -> list[Item]:
    """A sign that differs in shape as well as in colour, and the word for it at its left."""
    x, y = right - 5, middle
    signs: dict[str, list[Item]] = {
        "running": [Path(f"M{x} {y - 4}a4 4 0 1 0 .1 0z", "good")],
        "stopped": [Rect(x - 4, y - 4, 8, 8, "badline")],
        "missing": [Path(f"M{x - 4} {y - 4}l8 8M{x + 4} {y - 4}l-8 8", "badline")],
        "stale": [Path(f"M{x} {y - 5}l5 9h-10z", "warn")],
        "unknown": [Path(f"M{x - 4} {y}h8", "warnline")],
        "bad": [Path(f"M{x - 5} {y - 4}h10l-5 9z", "bad")],
    }
    look = {"running": "good", "stale": "warn", "unknown": "warn"}.get(state, "bad")
    return [*signs[state], *([Text(right - 14, y + 4, word, f"small {look}", "end")] if word else [])]


def dimmed(items: list[Item]) -> Group:
    """A zone that does not serve, paler."""

    def pale(one: Item) -> Item:
        if isinstance(one, Group) or "bad" in one.look or "warn" in one.look:
            return one
        return replace(one, look=f"{one.look} off")

    return Group(items=[pale(one) for one in items])


def moved(shape: Item, x: int, y: int) -> Item:
    """A legend's sign, drawn at the origin, where it belongs."""
    if isinstance(shape, Path):
        return Moved(shape.data, shape.look, x, y)
    assert not isinstance(shape, Group)
    return replace(shape, x=shape.x + x, y=shape.y + y)


@dataclass(frozen=True)
class Moved(Path):
    dx: int = 0
    dy: int = 0

    def svg(self) -> str:
        return f'<path class="{self.look}" d="{self.data}" transform="translate({self.dx} {self.dy})"/>'
