# SPDX-License-Identifier: GPL-3.0-or-later
"""Several hosts: side by side with a lane for each service across them, or as compact cards."""

from __future__ import annotations

from dataclasses import dataclass

from model import TIERS, Frame, Host, Zone
from picture.canvas import GAP, PAD, ordered
from picture.cards import FLAT, LINE, TALL, Cards
from picture.frames import per_row
from picture.glyphs import Item, arrow, links, server
from svg import Box, Group, Rect, Text, fit, width, wrap

GUTTER = 190
"""Width at the left of hosts that stand side by side, for the names of services."""
COLUMNS = 4
"""Most hosts that stand side by side."""
LEAST_ZONES = 5
"""A host with fewer zones needs no column of its own."""
COMPACT = 216
"""Least width of a host's compact card."""
FLAT_FROM = 236
"""Width from which two lines hold everything."""


@dataclass(frozen=True)
class Columns:
    """Where hosts stand side by side: each one's left edge by its name, and the width of all."""

    left: int
    right: int
    start: dict[str, int]
    wide: int

    @classmethod
    def between(cls, hosts: list[Host], left: int, right: int) -> Columns:
        first, gap = left + GUTTER, 22
        wide = (right - first - gap * (len(hosts) - 1)) // len(hosts)
        return cls(left, right, {host.name: first + n * (wide + gap) for n, host in enumerate(hosts)}, wide)


@dataclass(frozen=True)
class Lane:
    """A service's lane across the hosts: cards in a row of one host, a card's width and height, the lane's height."""

    count: int
    card: int
    each: int
    tall: int

    @classmethod
    def of(cls, most: int, wide: int) -> Lane:
        """
        :param most: zones of the host that has most of them; ``wide``: the hosts' width.
        """
        count = min(most, per_row(wide))
        card = (wide - 2 * PAD - GAP * (count - 1)) // count
        each = FLAT if card >= FLAT_FROM else TALL
        return cls(count, card, each, -(-most // count) * (each + GAP) + GAP)


class Sections(Cards):
    """Hosts of the same groups, one section below the other."""

    def section_head(self, title: str, hosts: list[Host], zones: list[Zone], x: int) -> None:
        name = title or "hosts"
        facts = f"{len(hosts)} host{'s' if len(hosts) > 1 else ''}, {len(zones)} zone{'' if len(zones) == 1 else 's'}"
        self.scene.add(
            Text(x, self.y + 16, name, "h2"),
            Text(x + int(width(name, 17, bold=True)) + 14, self.y + 16, facts, "h3 soft"),
        )
        self.y += 34

    def columns(self, hosts: list[Host], left: int, right: int, arrow_to: int, top: int) -> None:
        """Hosts side by side, each service a lane across them."""
        columns = Columns.between(hosts, left, right)
        heads = self.y
        self.y += 52
        lanes: list[Item] = []
        cards: list[Item] = []
        tier = ""
        for frame in self.plan.frames:
            cells = {host.name: self.plan.members(frame, host.name) for host in hosts}
            if not any(cells.values()):
                continue
            if frame.tier != tier:
                tier = frame.tier
                cards.append(Text(left, self.y + 13, TIERS[tier].upper(), f"tier {tier}"))
                self.y += 22
            lane = Lane.of(max(map(len, cells.values())), columns.wide)
            lanes.append(self.lane_band(frame, columns, lane.tall))
            cards.append(self.lane_label(frame, left))
            if tier == "entry" and arrow_to:
                cards += arrow(arrow_to, top - 34, self.y)
                arrow_to = 0
            cards += self.lane_cards(frame, cells, columns, lane)
            self.y += lane.tall + 6
        self.y += 4
        footer = self.y
        self.y += 24 * len(self.plan.networks) + 6
        for host in hosts:
            self.scene.add(self.column(host, columns, heads))
        self.scene.add(*lanes, *cards)
        for host in hosts:
            self.bridges(host, columns.start[host.name] + PAD, footer, columns.wide - 2 * PAD)

    def lane_band(self, frame: Frame, columns: Columns, tall: int) -> Group:
        """What a lane's cards stand on: one band for a cluster, one in each host for other services."""
        left, wide, tier = columns.left, columns.right - columns.left, frame.tier
        lane = Group(Box("frame", f"{frame.service} {tier}", left, self.y, wide, tall), frame.text)
        if frame.cluster:
            lane.add(Rect(left, self.y, wide, tall, f"band {tier}", 8))
            lane.add(Rect(left, self.y, wide, tall, f"line {tier} double", 8))
        else:
            lane.add(Rect(left, self.y, GUTTER - 12, tall, f"band {tier}", 8))
            for start in columns.start.values():
                lane.add(Rect(start + 1, self.y, columns.wide - 2, tall, f"band {tier}"))
        return lane

    def lane_label(self, frame: Frame, left: int) -> Group:
        """The name of a lane's service, and what it is."""
        label = Group()
        label.add(Text(left + PAD, self.y + 19, fit(frame.title, GUTTER - 40, 14, bold=True), f"h3 {frame.tier}"))
        if frame.cluster:
            text = f"cluster of {len(self.plan.members(frame))}"
            label.add(
                Rect(left + PAD, self.y + 26, int(width(text, 11)) + 14, 17, f"mark {frame.tier}", 8),
                Text(left + PAD + 7, self.y + 38, text, "small onbar"),
            )
        else:
            for number, line in enumerate(wrap(frame.text, GUTTER - 32, 11, 2)):
                label.add(Text(left + PAD, self.y + 34 + 14 * number, line, "soft small"))
        return label

    def lane_cards(self, frame: Frame, cells: dict[str, list[Zone]], columns: Columns, lane: Lane) -> list[Item]:
        """The zones of a lane, with the lines between members of a cluster.

        :param cells: the service's zones, by host.
        """
        places: list[tuple[Zone, Box]] = []
        for name, zones in cells.items():
            for number, zone in enumerate(zones):
                row, column = divmod(number, lane.count)
                x = columns.start[name] + PAD + column * (lane.card + GAP)
                y = self.y + GAP + row * (lane.each + GAP)
                places.append((zone, Box("zone", zone.name, x, y, lane.card, lane.each)))
        found: list[Item] = []
        if frame.cluster:
            found += links(sorted((place for _, place in places), key=lambda box: (box.y, box.x)), frame.tier)
        return found + [self.card(zone, place) for zone, place in places]

    def column(self, host: Host, columns: Columns, top: int) -> Group:
        """A host from its head down to here, without its zones."""
        x, wide = columns.start[host.name], columns.wide
        group = Group(Box("host", host.name, x, top, wide, self.y - top), self.host_hint(host))
        group.add(Rect(x, top, wide, self.y - top, "host", 10))
        self.host_head(group, host, x + 14, top + 10, wide - 28)
        return group

    def bridges(self, host: Host, x: int, y: int, wide: int) -> None:
        """The bridges of a host, with its addresses on them."""
        for network in ordered(self.plan):
            address = host.addresses.get(network.name, "")
            text = fit(f"bridge {network.bridge}", wide - width(address, 11, mono=True) - 24, 11)
            self.scene.add(
                Rect(x, y, wide, 20, f"bar {self.colour[network.name]}", 4),
                Text(x + 8, y + 14, text, "small onbar"),
                Text(x + wide - 8, y + 14, address, "mono small onbar", "end"),
            )
            y += 24

    def compact(self, hosts: list[Host], left: int, right: int) -> None:
        """Hosts as cards, as many in a row as there is room for; hosts of a row are equally tall."""
        plan = self.plan
        count = max(1, (right - left + GAP) // (COMPACT + GAP))
        wide = (right - left + GAP) // count - GAP
        for at in range(0, len(hosts), count):
            row = hosts[at : at + count]
            held = {host.name: [zone for zone in plan.zones if zone.host == host.name] for host in row}
            tall = 50 + LINE * max(1, *map(len, held.values())) + 10
            for number, host in enumerate(row):
                x = left + number * (wide + GAP)
                group = Group(Box("host", host.name, x, self.y, wide, tall), self.host_hint(host))
                group.add(Rect(x, self.y, wide, tall, "host", 8), *server(x + 10, self.y + 9))
                group.add(
                    Text(x + 38, self.y + 20, fit(host.title, wide - 48, 14, bold=True), "h3"),
                    Text(x + 38, self.y + 35, fit(host.address, wide - 48, 11, mono=True), "mono small"),
                )
                for line, zone in enumerate(held[host.name]):
                    group.add(self.line(zone, x + 6, self.y + 46 + LINE * line, wide - 12))
                for index, network in enumerate(ordered(plan)):
                    group.add(
                        Rect(x + 12 + 18 * index, self.y + tall - 4, 14, 7, f"bar {self.colour[network.name]}", 2)
                    )
                self.scene.add(group)
            self.y += tall + GAP + 4
        self.y -= GAP + 4
