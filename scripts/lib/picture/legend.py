# SPDX-License-Identifier: GPL-3.0-or-later
"""What the signs of a picture mean."""

from __future__ import annotations

from model import STATES, TIERS
from picture.canvas import MARGIN, SINGLE, Canvas, ordered
from picture.glyphs import Item, cylinder, moved, shield, state_mark
from svg import Path, Rect, Text, width


class Legend(Canvas):
    """Explains those signs only that the picture has."""

    def legend(self) -> None:
        plan = self.plan
        self.y += 8
        self.scene.add(Path(f"M{MARGIN} {self.y}H{self.width - MARGIN}", "rule"))
        x, self.y = MARGIN, self.y + 14
        entries: list[tuple[list[Item], str]] = []
        y = 0

        def entry(text: str, *shapes: Item) -> None:
            entries.append((list(shapes), text))

        for tier, text in TIERS.items():
            if any(zone.tier == tier for zone in plan.zones):
                entry(text, Rect(2, y + 3, 14, 12, f"mark {tier}", 3))
        if any(frame.cluster for frame in plan.frames):
            entry(
                "cluster: members vote",
                Rect(0, y + 4, 7, 10, "card", 2), Rect(0, y + 4, 7, 10, "line base", 2),
                Rect(13, y + 4, 7, 10, "line base", 2), Path(f"M7 {y + 9}H13", "line base link"),
            )  # fmt: skip
        if any(zone.volumes for zone in plan.zones):
            entry("data volume: outlives the zone", *cylinder(3, y + 2))
        if any(zone.privileged for zone in plan.zones):
            entry("privileged: root in it is root on its host", *shield(3, y + 2))
        for network in ordered(plan):
            entry(
                f"port of {'provider network' if network.provider else 'network'} {network.name}",
                Rect(2, y + 6, 14, 7, f"bar {self.colour[network.name]}", 2),
            )
        if any(not one.public for one in plan.front_ends) and self.look is SINGLE:
            entry("front end for zones only", Rect(0, y + 3, 20, 13, "line entry dashed", 6))
        if plan.live:
            for state, text in STATES.items():
                entry(f"{state}: {text}", *state_mark(state, "", 16, 9))
        for shapes, text in entries:
            wide = 28 + int(width(text, 12)) + 18
            if x + wide > self.width - MARGIN + 18:
                x, self.y = MARGIN, self.y + 24
            self.scene.add(*(moved(shape, x, self.y) for shape in shapes), Text(x + 26, self.y + 14, text, "soft"))
            x += wide
        self.y += 24
        example = plan.zones[0]
        text = f"A zone's full name begins with its host's: {example.short} on {example.host} is {example.name}."
        self.scene.add(Text(MARGIN, self.y + 14, text, "soft"))
        self.y += 18
