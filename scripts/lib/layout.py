# SPDX-License-Identifier: GPL-3.0-or-later
"""Where everything of a deployment's picture stands: a pure function of its plan.

One host is drawn whole, its zones by service in the order in which a request meets them. Of several hosts, those that
belong to the same groups are a section: a few with many zones stand side by side and each service is a lane across them, so
that a cluster is one line; many, or hosts with few zones, are compact cards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from model import STATES, TIERS, Frame, Host, Live, Network, Plan, Zone
from svg import NETWORK_COLOURS, Box, Group, Path, Rect, Scene, Text, fit, width, wrap

MARGIN = 32
GAP = 8
PAD = 10
CARD, WIDEST_CARD = 152, 236
"""Least and greatest width of a zone's card in a frame."""
TALL, FLAT = 64, 44
"""Height of a card with three lines, and with two."""
FLAT_FROM = 236
"""Width from which two lines hold everything."""
HEAD = 42
BAR, SPINE = 30, 16
GUTTER = 190
COLUMNS = 4
"""Most hosts that stand side by side."""
LEAST_ZONES = 5
"""A host with fewer zones needs no column of its own."""
COMPACT = 216
LINE = 19


Item: TypeAlias = Rect | Text | Path | Group


@dataclass(frozen=True)
class Look:
    """What depends on the number of hosts."""

    width: int
    kind: str


SINGLE, MULTI = Look(1280, "single host"), Look(1480, "multi host")


class Drawing:
    """The picture while it grows downwards. ``y`` is where the next thing begins."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.look = SINGLE if len(plan.hosts) == 1 else MULTI
        self.width = self.look.width
        self.y = MARGIN
        self.scene = Scene()
        self.colour = {network.name: f"net{min(i, NETWORK_COLOURS - 1)}" for i, network in enumerate(ordered(plan))}
        self.inner = [network for network in plan.networks if not network.provider]
        self.provider = [network for network in plan.networks if network.provider]

    # Whole pictures ---------------------------------------------------------------------------------------------------

    def draw(self) -> Scene:
        self.header()
        if self.look is SINGLE:
            self.single()
        else:
            self.multi()
        self.legend()
        scene, plan = self.scene, self.plan
        scene.width, scene.height = self.width, self.y + MARGIN
        scene.title = f"Deployment {plan.deployment}, {self.look.kind}: {plan.summary()}"
        lines = [f"OpenStack {plan.release}, region {plan.region}, reached at {plan.external}."]
        lines += [
            f"Network {one.name}: {one.cidr}, bridge {one.bridge}{', provider' if one.provider else ''}."
            for one in plan.networks
        ]
        lines += [
            f"{frame.title} ({frame.text}): {len(plan.members(frame))} zones"
            f"{', a cluster that votes' if frame.cluster else ''}, on {', '.join(dict.fromkeys(z.host for z in plan.members(frame)))}."
            for frame in plan.frames
        ]
        scene.description = " ".join(lines)
        return scene

    def single(self) -> None:
        host = self.plan.hosts[0]
        left = MARGIN + SPINE * (len(self.inner) + 1)
        right = self.width - MARGIN - (SPINE * (len(self.provider) + 1) if self.provider else SPINE)
        head = left + 44 + int(width(host.title, 17, bold=True) + width(host_facts(host), 12))
        world = self.world(min(max(left + 110, head + 120), self.width // 2))
        top = self.y
        box = Group(Box("host", host.name, MARGIN, top, self.width - 2 * MARGIN, 0), self.host_hint(host))
        at = len(self.scene.items)
        self.y += 16
        self.host_head(self.scene, host, left, self.y, right - left)
        self.y += 38
        taps: list[tuple[str, int]] = []
        for tier in TIERS:
            frames = [frame for frame in self.plan.frames if frame.tier == tier]
            if frames:
                start = self.y
                self.tier(tier, frames, left, right)
                taps.append((tier, start + 24))
                if tier == "entry":
                    self.scene.add(*arrow(world, top - 34, start))
                self.y += 14
        self.rails(left, right, taps)
        self.y += 16
        assert box.box
        box.box = box.box._replace(h=self.y - top)
        box.add(Rect(MARGIN, top, self.width - 2 * MARGIN, self.y - top, "host", 12))
        self.scene.items.insert(at, box)
        self.outside(right)

    def multi(self) -> None:
        left = MARGIN + SPINE * (len(self.inner) + 1)
        right = self.width - MARGIN - (SPINE * (len(self.provider) + 1) if self.provider else 0)
        world = self.world(left + GUTTER - 22)
        taps: list[tuple[str, int]] = []
        for index, (title, hosts) in enumerate(self.plan.sections()):
            top = self.y
            zones = [zone for zone in self.plan.zones if zone.host in {host.name for host in hosts}]
            many = len(zones) >= LEAST_ZONES * len(hosts)
            frame = Group(Box("section", title or "hosts", left, top, right - left, 0))
            at = len(self.scene.items)
            self.y += 14
            side_by_side = many and len(hosts) <= COLUMNS
            self.section_head(title, hosts, zones, left + 16 + (GUTTER if side_by_side else 0))
            if side_by_side:
                self.columns(hosts, left + 16, right - 16, arrow_to=world if index == 0 else 0, top=top)
            else:
                self.compact(hosts, left + 16, right - 16)
                if index == 0:
                    self.scene.add(*arrow(world, top - 34, top))
            self.y += 16
            assert frame.box
            frame.box = frame.box._replace(h=self.y - top)
            frame.add(Rect(left, top, right - left, self.y - top, "rule", 12))
            self.scene.items.insert(at, frame)
            taps += [(tier, top + 26) for tier in TIERS if any(zone.tier == tier for zone in zones)]
            self.y += 18
        self.rails(left, right, taps)
        self.outside(right)

    # Their parts ------------------------------------------------------------------------------------------------------

    def header(self) -> None:
        plan = self.plan
        self.scene.add(
            Text(MARGIN, self.y + 24, plan.deployment, "h1"),
            Text(MARGIN, self.y + 48, f"OpenStack {plan.release} · region {plan.region} · {plan.summary()}", "h3 soft"),
        )
        if plan.live:
            count = {state: list(plan.live.states.values()).count(state) for state in STATES}
            words = " · ".join(f"{number} {state}" for state, number in count.items() if number)
            self.scene.add(
                Text(self.width - MARGIN, self.y + 24, f"as of {plan.live.when}", "h3", "end"),
                Text(self.width - MARGIN, self.y + 48, words, "h3 soft", "end"),
            )
        self.y += 72

    def world(self, x: int) -> int:
        """Who comes from outside, and to which address; the arrow's place."""
        plan = self.plan
        wide = 200
        self.scene.add(
            Rect(x - wide // 2, self.y, wide, 32, "pill", 16),
            Text(x, self.y + 21, "Users and operators", "h3 onbar", "middle"),
        )
        same = plan.external == plan.entry
        where = f"https://{plan.external}" + ("" if same else f" (virtual address {plan.entry})")
        self.scene.add(
            Text(x + wide // 2 + 16, self.y + 15, where, "mono strong"),
            Text(
                x + wide // 2 + 16,
                self.y + 30,
                "The only entry: HAProxy holds this address, ends TLS and sends requests to healthy servers.",
                "soft",
            ),
        )
        self.y += 66
        return x

    def host_hint(self, host: Host) -> str:
        domain = f", failure domain {host.zone}" if host.zone else ""
        return f"Host {host.name}, id {host.id}, reached at {host.address}, {host.backend} zones in store {host.store}{domain}"

    def host_head(self, into: Group, host: Host, x: int, y: int, room: int) -> None:
        into.add(*server(x, y + 2), Text(x + 30, y + 16, fit(host.title, room - 30, 17, bold=True), "h2"))
        facts = host_facts(host)
        start = x + 30 + int(width(host.title, 17, bold=True)) + 14
        if width(facts, 12) <= x + room - start:
            into.add(Text(start, y + 16, facts, "soft"))
        else:
            into.add(Text(x + 30, y + 32, fit(facts, room - 30, 11), "soft small"))

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

    def card(self, zone: Zone, place: Box) -> Group:
        """One zone."""
        _, _, x, y, wide, tall = place
        live = self.plan.live
        state = live.states.get(zone.name, "missing") if live else ""
        group = Group(place, hint_of(zone, live))
        group.add(
            Rect(x, y, wide, tall, "card", 6),
            Rect(x, y, wide, tall, f"line {zone.tier}" + (" dashed" if state == "missing" else ""), 6),
            Path(f"M{x + 6} {y}a6 6 0 0 0-6 6v{tall - 12}a6 6 0 0 0 6 6z", f"mark {zone.tier}"),
        )
        right = x + wide - 8
        for glyph in marks(zone):
            group.add(*glyph(right - 12, y + 8))
            right -= 18
        room = right - x - 14
        size = zone.size
        if state:
            down = live.down(zone.name) if live and state in ("running", "stale") else []
            word = "HAProxy: down" if down else "" if state == "running" else state
            group.add(*state_mark("bad" if down else state, word, x + wide - 8, y + tall - 12))
            if width(size + word, 11) > wide - 50:
                size = ""
        if tall == FLAT:
            start = right - int(width(zone.address, 12, mono=True))
            group.add(
                Text(x + 14, y + 18, fit(zone.short, start - x - 20, 13, bold=True), "name"),
                Text(start, y + 18, zone.address, "mono"),
                Text(x + 14, y + 34, size, "soft small"),
            )
        else:
            group.add(
                Text(x + 14, y + 18, fit(zone.short, room, 13, bold=True), "name"),
                Text(x + 14, y + 36, zone.address, "mono"),
                Text(x + 14, y + 52, size, "soft small"),
            )
        port = x + 14
        for network in ordered(self.plan):
            if network.name == "zone" or network.name in zone.further or network.name in zone.provider:
                group.add(Rect(port, y + tall - 4, 12, 6, f"bar {self.colour[network.name]}", 2))
                port += 16
        if state in ("stopped", "missing", "unknown"):
            group.items = [*group.items[:2], dimmed(group.items[2:])]
        return group

    # Several hosts ----------------------------------------------------------------------------------------------------

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
        plan, gap = self.plan, 22
        first = left + GUTTER
        wide = (right - first - gap * (len(hosts) - 1)) // len(hosts)
        start = {host.name: first + n * (wide + gap) for n, host in enumerate(hosts)}
        heads = self.y
        self.y += 52
        lanes: list[Item] = []
        cards: list[Item] = []
        tier = ""
        names = [host.name for host in hosts]
        for frame in plan.frames:
            cells = {name: plan.members(frame, name) for name in names}
            most = max(map(len, cells.values()))
            if not most:
                continue
            if frame.tier != tier:
                tier = frame.tier
                cards.append(Text(left, self.y + 13, TIERS[tier].upper(), f"tier {tier}"))
                self.y += 22
            count = min(most, per_row(wide))
            card = (wide - 2 * PAD - GAP * (count - 1)) // count
            each = FLAT if card >= FLAT_FROM else TALL
            tall = -(-most // count) * (each + GAP) + GAP
            lane = Group(Box("frame", f"{frame.service} {frame.tier}", left, self.y, right - left, tall), frame.text)
            if frame.cluster:
                lane.add(Rect(left, self.y, right - left, tall, f"band {tier}", 8))
                lane.add(Rect(left, self.y, right - left, tall, f"line {tier} double", 8))
            else:
                lane.add(Rect(left, self.y, GUTTER - 12, tall, f"band {tier}", 8))
                for name in names:
                    lane.add(Rect(start[name] + 1, self.y, wide - 2, tall, f"band {tier}"))
            lanes.append(lane)
            label = Group()
            label.add(Text(left + PAD, self.y + 19, fit(frame.title, GUTTER - 40, 14, bold=True), f"h3 {tier}"))
            if frame.cluster:
                text = f"cluster of {len(plan.members(frame))}"
                label.add(
                    Rect(left + PAD, self.y + 26, int(width(text, 11)) + 14, 17, f"mark {tier}", 8),
                    Text(left + PAD + 7, self.y + 38, text, "small onbar"),
                )
            else:
                for number, line in enumerate(wrap(frame.text, GUTTER - 32, 11, 2)):
                    label.add(Text(left + PAD, self.y + 34 + 14 * number, line, "soft small"))
            cards.append(label)
            if tier == "entry" and arrow_to:
                cards += arrow(arrow_to, top - 34, self.y)
                arrow_to = 0
            places: list[tuple[Zone, Box]] = []
            for name in names:
                for number, zone in enumerate(cells[name]):
                    row, column = divmod(number, count)
                    x = start[name] + PAD + column * (card + GAP)
                    y = self.y + GAP + row * (each + GAP)
                    places.append((zone, Box("zone", zone.name, x, y, card, each)))
            if frame.cluster:
                cards += links(sorted((place for _, place in places), key=lambda box: (box.y, box.x)), tier)
            cards += [self.card(zone, place) for zone, place in places]
            self.y += tall + 6
        self.y += 4
        footer = self.y
        self.y += 24 * len(plan.networks) + 6
        for host in hosts:
            x = start[host.name]
            group = Group(Box("host", host.name, x, heads, wide, self.y - heads), self.host_hint(host))
            group.add(Rect(x, heads, wide, self.y - heads, "host", 10))
            self.host_head(group, host, x + 14, heads + 10, wide - 28)
            self.scene.add(group)
        self.scene.add(*lanes, *cards)
        for host in hosts:
            self.bridges(host, start[host.name] + PAD, footer, wide - 2 * PAD)

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

    def line(self, zone: Zone, x: int, y: int, wide: int) -> Group:
        """One zone on a compact card."""
        live = self.plan.live
        state = live.states.get(zone.name, "missing") if live else ""
        group = Group(Box("zone", zone.name, x, y, wide, LINE), hint_of(zone, live))
        group.add(Rect(x + 4, y + 3, 4, 13, f"mark {zone.tier}", 2))
        right = x + wide - 4
        address = int(width(zone.address, 11, mono=True))
        if state and state != "running":
            group.add(*state_mark(state, state, right, y + 9))
        else:
            group.add(Text(right, y + 14, zone.address, "mono small", "end"))
        room = wide - 20 - address
        for glyph in marks(zone):
            room -= 16
            group.add(*glyph(right - address - 20 - 16 * marks(zone).index(glyph), y + 3))
        group.add(Text(x + 13, y + 14, fit(zone.short, room, 12), ""))
        return group

    # Networks ---------------------------------------------------------------------------------------------------------

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

    # Legend -----------------------------------------------------------------------------------------------------------

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


def ordered(plan: Plan) -> list[Network]:
    """Networks in the order of their colours: `zone`, provider networks, then further ones."""
    return sorted(plan.networks, key=lambda one: (one.name != "zone", not one.provider))


def host_facts(host: Host) -> str:
    return f"host {host.id} · {host.address} · {host.backend} zones on {host.store}"


def hint_of(zone: Zone, live: Live | None) -> str:
    if live is None:
        return zone.hint
    state = live.states.get(zone.name, "missing")
    servers = [f"HAProxy {name} {said}" for name, said in live.servers.get(zone.name, {}).items()]
    return ", ".join([zone.hint, f"state: {state}", *servers])


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


def draw(plan: Plan) -> Scene:
    """The picture of a plan."""
    return Drawing(plan).draw()
