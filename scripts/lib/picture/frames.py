# SPDX-License-Identifier: GPL-3.0-or-later
"""Services with their zones, in bands by tier: one host is drawn in these."""

from __future__ import annotations

from model import TIERS, Frame
from picture.canvas import GAP, PAD
from picture.cards import TALL, Cards
from picture.glyphs import links
from svg import Box, Group, Rect, Text, fit, width

CARD, WIDEST_CARD = 152, 236
"""Least and greatest width of a zone's card in a frame."""
HEAD = 42


class Frames(Cards):
    """A frame for each service, as many in a row as there is room for."""

    def tier(self, tier: str, frames: list[Frame], left: int, right: int) -> None:
        """A band with all services of one tier, in rows that fill it."""
        top = self.y
        at = len(self.scene.items)
        self.scene.add(Text(left + 12, top + 18, TIERS[tier].upper(), f"tier {tier}"))
        self.y += 26
        room = right - left - 2 * PAD
        if tier == "entry":
            self.entry(frames, left + PAD, room)
        else:
            for row in rows(frames, [self.natural(frame, room) for frame in frames], room):
                cards = sum(min(len(self.plan.members(frame)), per_row(room)) for frame in row)
                used = sum(self.natural(frame, room) for frame in row) + GAP * (len(row) - 1)
                card = min(WIDEST_CARD, CARD + (room - used) // cards)
                x, tallest = left + PAD, 0
                for number, frame in enumerate(row):
                    count = min(len(self.plan.members(frame)), per_row(room))
                    wide = frame_width(count, card)
                    if number == len(row) - 1 and card < WIDEST_CARD:
                        wide = left + PAD + room - x
                    tallest = max(tallest, self.frame(frame, x, self.y, wide, count))
                    x += wide + GAP
                if tier == "compute" and frames[-1] in row:
                    self.instances(x + 10, self.y, left + PAD + room - x - 10)
                self.y += tallest + GAP
            self.y += PAD - GAP
        band = Group(Box("tier", tier, left, top, right - left, self.y - top))
        band.add(Rect(left, top, right - left, self.y - top, f"band {tier}", 10))
        self.scene.items.insert(at, band)

    def instances(self, x: int, y: int, room: int) -> None:
        """What the hypervisors are for, where there is room to say it."""
        lines = ["Users' instances run in here. Their networks are OVN's, in Geneve tunnels over network zone."]
        if self.provider:
            lines.append(f"Floating addresses reach them through {', '.join(one.name for one in self.provider)}.")
        if room < max(width(line, 12) for line in lines):
            return
        for number in range(3):
            at = x + number * 120
            self.scene.add(
                Rect(at, y + HEAD, 110, 34, "card", 6),
                Rect(at, y + HEAD, 110, 34, "line compute dashed", 6),
                Text(at + 55, y + HEAD + 22, "instance", "soft", "middle"),
            )
        for number, line in enumerate(lines):
            self.scene.add(Text(x, y + 12 + 16 * number, line, "soft"))

    def natural(self, frame: Frame, room: int) -> int:
        return frame_width(min(len(self.plan.members(frame)), per_row(room)), CARD)

    def entry(self, frames: list[Frame], x: int, room: int) -> None:
        """HAProxy, and at its right what it listens for."""
        for frame in frames:
            count = min(len(self.plan.members(frame)), per_row(room // 2))
            wide = frame_width(count, 168)
            tall = self.frame(frame, x, self.y, wide, count)
            bottom = self.chips(x + wide + 18, self.y + 16, x + room)
            self.y = max(self.y + tall, bottom) + PAD

    def chips(self, x: int, y: int, right: int) -> int:
        """The front ends, one chip each; the lower edge of the last row."""
        self.scene.add(Text(x, y, "listens for", "soft small"))
        at, y = x, y + 8
        for one in self.plan.front_ends:
            wide = int(width(str(one.port), 12, mono=True) + width(one.name, 12)) + 26
            if at + wide > right:
                at, y = x, y + 30
            group = Group(None, f"{one.name}: {one.kind}, port {one.port}. {one.url}".strip())
            group.add(
                Rect(at, y, wide, 24, "card", 12),
                Rect(at, y, wide, 24, "line entry" + ("" if one.public else " dashed"), 12),
                Text(at + 10, y + 16, str(one.port), "mono"),
                Text(at + 16 + int(width(str(one.port), 12, mono=True)), y + 16, one.name, ""),
            )
            self.scene.add(group)
            at += wide + GAP
        return y + 24

    def frame(self, frame: Frame, x: int, y: int, wide: int, count: int) -> int:
        """A service with its zones, so many in a row; its height."""
        members = self.plan.members(frame)
        card = (wide - 2 * PAD - GAP * (count - 1)) // count
        lines = -(-len(members) // count)
        tall = HEAD + lines * (TALL + GAP) + 4
        group = Group(Box("frame", f"{frame.service} {frame.tier}", x, y, wide, tall), frame.text)
        group.add(Rect(x, y, wide, tall, "card", 8), Rect(x, y, wide, tall, self.border(frame), 8))
        room = wide - 2 * PAD
        if frame.cluster:
            self.cluster_chip(group, frame, x + wide - PAD, y + 6)
            room -= 84
        group.add(Text(x + PAD, y + 18, fit(frame.title, room, 14, bold=True), f"h3 {frame.tier}"))
        group.add(Text(x + PAD, y + 33, fit(frame.text, wide - 2 * PAD, 11), "soft small"))
        places = []
        for number, zone in enumerate(members):
            row, column = divmod(number, count)
            places.append(
                Box("zone", zone.name, x + PAD + column * (card + GAP), y + HEAD + row * (TALL + GAP), card, TALL)
            )
        if frame.cluster:
            group.add(*links(places, frame.tier))
        for zone, place in zip(members, places, strict=True):
            group.add(self.card(zone, place))
        self.scene.add(group)
        return tall

    @staticmethod
    def border(frame: Frame) -> str:
        return f"line {frame.tier}" + (" double" if frame.cluster else "")

    def cluster_chip(self, into: Group, frame: Frame, right: int, y: int) -> None:
        text = f"cluster of {len(self.plan.members(frame))}"
        wide = int(width(text, 11)) + 14
        into.add(
            Rect(right - wide, y, wide, 17, f"mark {frame.tier}", 8),
            Text(right - wide // 2, y + 12, text, "small onbar", "middle"),
        )


def frame_width(count: int, card: int) -> int:
    return 2 * PAD + count * card + GAP * (count - 1)


def per_row(room: int) -> int:
    """How many cards of the least width fit into a frame of that width."""
    return max(1, (room - 2 * PAD + GAP) // (CARD + GAP))


def rows(frames: list[Frame], widths: list[int], room: int) -> list[list[Frame]]:
    """Break frames into rows, in their order, so that the room that is left over is spread most evenly."""
    best: list[tuple[int, int]] = [(0, 0)]  # for the first n frames: least sum of squares, where the last row begins
    for end in range(1, len(frames) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            left = room - sum(widths[start:end]) - GAP * (end - start - 1)
            if left < 0 and end - start > 1:
                break
            options.append((best[start][0] + max(left, 0) ** 2, start))
        best.append(min(options))
    found: list[list[Frame]] = []
    end = len(frames)
    while end:
        start = best[end][1]
        found.insert(0, frames[start:end])
        end = start
    return found
