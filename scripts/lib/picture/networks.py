# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks below the hosts: a bar each, and where provider networks lead."""

from __future__ import annotations

from model import Network
from picture.canvas import MARGIN, SINGLE, SPINE, Canvas
from svg import Box, Group, Path, Rect, Text, fit, width

BAR = 30
"""Height of a network's bar."""


class Networks(Canvas):
    """The networks, and what is on each."""

    def rails(self, left: int, right: int, taps: list[tuple[str, int]]) -> None:
        """The networks: a bar each, and a line from it to all that is on it."""
        plan = self.plan
        on: dict[str, set[str]] = {network.name: set() for network in plan.networks}
        for zone in plan.zones:
            for name in ("zone", *zone.further, *zone.provider):
                on.setdefault(name, set()).add(zone.tier)
        wires: list[Path] = []
        bars: list[Group] = []
        for index, network in enumerate([*self.inner, *self.provider]):
            colour = self.colour[network.name]
            if network.provider:
                x, end = self.spine(network, right), right
                box = Box("network", network.name, left, self.y, x + 2 - left, BAR)
            else:
                x, end = left - SPINE * (self.inner.index(network) + 1), left
                box = Box("network", network.name, x - 2, self.y, right - x + 2, BAR)
            heights = sorted({y + 6 * index for tier, y in taps if tier in on[network.name]})
            for y in heights:
                wires.append(Path(f"M{x} {y}H{end}", f"wire {colour}"))
            if heights:
                wires.append(Path(f"M{x} {heights[0]}V{self.y + BAR // 2}", f"wire {colour}"))
            group = Group(box, "")
            kind = "provider network" if network.provider else "network"
            facts = [network.cidr, f"bridge {network.bridge}", f"MTU {network.mtu}", *network.facts]
            if network.name == "zone":
                facts.append(f"virtual address {plan.internal}")
            if len(plan.hosts) == 1 and network.name in plan.hosts[0].addresses:
                facts.append(f"host {plan.hosts[0].addresses[network.name]}")
            label = f"{kind} {network.name}"
            start = left + 14 + int(width(label, 14, bold=True)) + 16
            text = fit(" · ".join(facts), box.x + box.w - start - 10, 12, mono=False)
            group.add(
                Rect(box.x, box.y, box.w, box.h, f"bar {colour}", 6),
                Text(left + 14, self.y + 20, label, "h3 onbar"),
                Text(start, self.y + 20, text, "onbar"),
            )
            bars.append(group)
            self.y += BAR + 8
        self.scene.add(*wires, *bars)

    def spine(self, network: Network, right: int) -> int:
        """Where a provider network's line is: the first one outermost, so that on its way down it crosses no other's bar."""
        return right + SPINE * (len(self.provider) - self.provider.index(network))

    def outside(self, right: int) -> None:
        """Where provider networks lead."""
        if not self.provider:
            self.y += 12
            return
        self.y += 16
        text = "The world: floating addresses of instances"
        wide = int(width(text, 14, bold=True)) + 36
        x = self.width - MARGIN - wide
        for number, network in enumerate(self.provider):
            at = self.spine(network, right)
            up = BAR + 8 + 16 + (16 if self.look is SINGLE else 0) + (len(self.provider) - number - 1) * (BAR + 8)
            self.scene.add(Path(f"M{at} {self.y - up + BAR}V{self.y + 8}", f"wire {self.colour[network.name]}"))
        self.scene.add(
            Rect(x, self.y, wide, 32, "pill", 16), Text(x + wide // 2, self.y + 21, text, "h3 onbar", "middle")
        )
        self.y += 40
