# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes with whole coordinates, and SVG made of them: valid XML, the same bytes for the same shapes, nothing external.

A layout puts shapes into a scene and names their classes; what a class looks like, by day and by night, stands here alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

MONO = 0.61
"""Width of a character of DejaVu Sans Mono, the widest of the usual monospaced fonts, in its size."""
WIDTHS = {"ijl.,:;'|!()[]· ": 0.36, "ftr-/*": 0.43, "mwMW@%&—…": 0.96}
"""Widths in DejaVu Sans, the widest of the usual fonts, in its size: what fits in it fits in any."""


class Box(NamedTuple):
    """Where something is drawn. ``kind`` and ``name`` say what it is: tests and the page ask."""

    kind: str
    name: str
    x: int
    y: int
    w: int
    h: int

    def holds(self, other: Box) -> bool:
        inside = self.x <= other.x and other.x + other.w <= self.x + self.w
        return inside and self.y <= other.y and other.y + other.h <= self.y + self.h

    def meets(self, other: Box) -> bool:
        apart = other.x + other.w <= self.x or self.x + self.w <= other.x
        return not (apart or other.y + other.h <= self.y or self.y + self.h <= other.y)


@dataclass(frozen=True)
class Rect:
    x: int
    y: int
    w: int
    h: int
    look: str
    round: int = 0

    def svg(self) -> str:
        corner = f' rx="{self.round}"' if self.round else ""
        return f'<rect class="{self.look}" x="{self.x}" y="{self.y}" width="{self.w}" height="{self.h}"{corner}/>'


@dataclass(frozen=True)
class Text:
    """One line. ``y`` is its base line; ``anchor`` is SVG's: start, middle or end."""

    x: int
    y: int
    text: str
    look: str
    anchor: str = "start"

    def svg(self) -> str:
        anchor = "" if self.anchor == "start" else f' text-anchor="{self.anchor}"'
        return f'<text class="{self.look}" x="{self.x}" y="{self.y}"{anchor}>{escape(self.text)}</text>'


@dataclass(frozen=True)
class Path:
    """A line or an outline, as SVG's path data."""

    data: str
    look: str

    def svg(self) -> str:
        return f'<path class="{self.look}" d="{self.data}"/>'


Shape = Rect | Text | Path


@dataclass
class Group:
    """Shapes that are one thing. ``hint`` is shown where a pointer rests, and read aloud."""

    box: Box | None = None
    hint: str = ""
    items: list[Shape | Group] = field(default_factory=list)

    def add(self, *items: Shape | Group) -> None:
        self.items += items

    def boxes(self) -> Iterator[Box]:
        if self.box:
            yield self.box
        for item in self.items:
            if isinstance(item, Group):
                yield from item.boxes()

    def svg(self) -> str:
        mark = f" data-{self.box.kind}={quoteattr(self.box.name)}" if self.box else ""
        hint = f"<title>{escape(self.hint)}</title>" if self.hint else ""
        return f"<g{mark}>{hint}{chr(10).join(item.svg() for item in self.items)}</g>"


@dataclass
class Scene(Group):
    """A whole picture."""

    title: str = ""
    description: str = ""
    width: int = 0
    height: int = 0

    def svg(self) -> str:
        body = "\n".join(item.svg() for item in self.items)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="zs" role="img" aria-labelledby="zs-title zs-text" '
            f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}">\n'
            f'<title id="zs-title">{escape(self.title)}</title>\n<desc id="zs-text">{escape(self.description)}</desc>\n'
            f"<style>{STYLE}</style>\n"
            f'<rect class="ground" width="{self.width}" height="{self.height}"/>\n{body}\n</svg>\n'
        )


def width(text: str, size: float, *, bold: bool = False, mono: bool = False) -> float:
    """How wide a text may become, in pixels."""
    if mono:
        return len(text) * size * MONO
    wide = sum(
        next((value for letters, value in WIDTHS.items() if one in letters), 0.72 if one.isupper() else 0.63)
        for one in text
    )
    return wide * size * (1.1 if bold else 1.0)


def fit(text: str, room: float, size: float, *, bold: bool = False, mono: bool = False) -> str:
    """The text, or as much of its beginning as there is room for."""
    if width(text, size, bold=bold, mono=mono) <= room:
        return text
    while text and width(text + "…", size, bold=bold, mono=mono) > room:
        text = text[:-1]
    return f"{text.rstrip()}…" if text else ""


def wrap(text: str, room: float, size: float, lines: int) -> list[str]:
    """The text in at most so many lines."""
    done: list[str] = []
    words = text.split()
    while words and len(done) < lines:
        if len(done) == lines - 1:
            return [*done, fit(" ".join(words), room, size)]
        count = next((n for n in range(len(words), 1, -1) if width(" ".join(words[:n]), size) <= room), 1)
        done.append(fit(" ".join(words[:count]), room, size))
        words = words[count:]
    return done


TIERS = ("entry", "control", "compute", "base")
DAY = {
    "ground": "#ffffff", "ink": "#16213a", "soft": "#536079", "card": "#ffffff", "host": "#f6f7fa", "edge": "#8791a6",
    "entry": "#0f766e", "entry-tint": "#dff3f0", "control": "#3b53c2", "control-tint": "#e8ecfb",
    "compute": "#b3500a", "compute-tint": "#fdeedd", "base": "#2c7a41", "base-tint": "#e5f3e7",
    "net0": "#1d63d8", "net1": "#c01a68", "net2": "#7a3fd1", "net3": "#0c7891", "net4": "#8a6100",
    "good": "#15803d", "bad": "#c81e1e", "warn": "#a85b00",
}  # fmt: skip
NIGHT = {
    "ground": "#0e1320", "ink": "#e9edf6", "soft": "#a9b4ca", "card": "#1d2638", "host": "#151c2b", "edge": "#5b6883",
    "entry": "#2fd0bd", "entry-tint": "#11302f", "control": "#93a5ff", "control-tint": "#1d2649",
    "compute": "#f5a142", "compute-tint": "#372612", "base": "#74cf88", "base-tint": "#16301e",
    "net0": "#69a8ff", "net1": "#f77fb6", "net2": "#b894ff", "net3": "#4fd0e6", "net4": "#e3b341",
    "good": "#4ade80", "bad": "#ff7b72", "warn": "#fbbf24",
}  # fmt: skip
NETWORK_COLOURS = 5


def colours(palette: dict[str, str]) -> str:
    """The rules that say a colour. Plain colours rather than variables, which not every SVG renderer knows."""
    rules = [
        (".ground,.halo", "fill", "ground"), ("text", "fill", "ink"), ("text.soft", "fill", "soft"),
        (".card", "fill", "card"), (".host", "fill", "host"), (".host", "stroke", "edge"), (".rule", "stroke", "edge"),
        (".glyph", "stroke", "soft"), (".arrow", "stroke", "soft"), (".tip", "fill", "soft"),
        ("text.onbar", "fill", "ground"), (".good", "fill", "good"), (".bad", "fill", "bad"), (".warn", "fill", "warn"),
        ("text.good", "fill", "good"), ("text.bad", "fill", "bad"), ("text.warn", "fill", "warn"),
        (".badline", "stroke", "bad"), (".warnline", "stroke", "warn"), (".pill", "fill", "ink"),
    ]  # fmt: skip
    for tier in TIERS:
        rules += [
            (f".band.{tier}", "fill", f"{tier}-tint"),
            (f".mark.{tier}", "fill", tier),
            (f".line.{tier}", "stroke", tier),
            (f"text.{tier}", "fill", tier),
        ]
    for number in range(NETWORK_COLOURS):
        rules += [(f".bar.net{number}", "fill", f"net{number}"), (f".wire.net{number}", "stroke", f"net{number}")]
        rules.append((f"text.net{number}", "fill", f"net{number}"))
    return "".join(f".zs {where}{{{what}:{palette[name]}}}" for where, what, name in rules)


FONT = 'Inter,"Segoe UI","DejaVu Sans",Roboto,Helvetica,Arial,sans-serif'
MONO_FONT = 'ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace'
SHAPES = (
    f".zs text{{font-family:{FONT};font-size:12px}}"
    f".zs .mono{{font-family:{MONO_FONT};font-size:12px}}.zs .mono.small{{font-size:11px}}"
    ".zs .strong{font-weight:600}.zs .small{font-size:11px}.zs .name{font-size:13px;font-weight:600}"
    ".zs .h1{font-size:28px;font-weight:700}.zs .h2{font-size:17px;font-weight:700}.zs .h3{font-size:14px;font-weight:600}"
    ".zs .tier{font-size:11px;font-weight:700;letter-spacing:1.2px}"
    ".zs .host{stroke-width:1.5}.zs .line{fill:none;stroke-width:1.2}.zs .rule{fill:none;stroke-width:1}"
    ".zs .link{stroke-width:4;stroke-linecap:round}.zs .double{stroke-width:2.2}"
    ".zs .wire{fill:none;stroke-width:3;stroke-linejoin:round}.zs .glyph{fill:none;stroke-width:1.4;stroke-linejoin:round}"
    ".zs .arrow{fill:none;stroke-width:2}.zs .dashed{stroke-dasharray:5 4}.zs .badline,.zs .warnline{fill:none;stroke-width:2}"
    ".zs .off{opacity:.55}"
)
STYLE = f"{SHAPES}{colours(DAY)}@media screen and (prefers-color-scheme:dark){{{colours(NIGHT)}}}"
