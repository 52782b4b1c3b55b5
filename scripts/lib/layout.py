# SPDX-License-Identifier: GPL-3.0-or-later
"""Where everything of a deployment's picture stands: a pure function of its plan.

One host is drawn whole, its zones by service in the order in which a request meets them. Of several hosts, those that
belong to the same groups are a section: a few with many zones stand side by side and each service is a lane across them, so
that a cluster is one line; many, or hosts with few zones, are compact cards.
"""

from __future__ import annotations

from model import STATES, TIERS, Plan
from picture.canvas import MARGIN, SINGLE, SPINE
from picture.cards import host_facts
from picture.frames import Frames
from picture.glyphs import arrow
from picture.legend import Legend
from picture.networks import Networks
from picture.sections import COLUMNS, GUTTER, LEAST_ZONES, Sections
from svg import Box, Group, Rect, Scene, Text, width


class Drawing(Frames, Sections, Networks, Legend):
    """The picture of a plan, from its title down to its legend."""

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


def draw(plan: Plan) -> Scene:
    """The picture of a plan."""
    return Drawing(plan).draw()
