# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and zones as cards."""

from __future__ import annotations

from model import Host, Live, Zone
from picture.canvas import Canvas, ordered
from picture.glyphs import dimmed, marks, server, state_mark
from svg import Box, Group, Path, Rect, Text, fit, width

TALL, FLAT = 64, 44
"""Height of a card with three lines, and with two."""
LINE = 19


class Cards(Canvas):
    """What is drawn of one host, and of one zone."""

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


def host_facts(host: Host) -> str:
    return f"host {host.id} · {host.address} · {host.backend} zones on {host.store}"


def hint_of(zone: Zone, live: Live | None) -> str:
    if live is None:
        return zone.hint
    state = live.states.get(zone.name, "missing")
    servers = [f"HAProxy {name} {said}" for name, said in live.servers.get(zone.name, {}).items()]
    return ", ".join([zone.hint, f"state: {state}", *servers])
