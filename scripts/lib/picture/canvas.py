# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture while it grows downwards."""

from __future__ import annotations

from dataclasses import dataclass

from model import Network, Plan
from svg import NETWORK_COLOURS, Scene

MARGIN = 32
GAP = 8
PAD = 10
SPINE = 16
"""Distance between the lines of networks at the picture's sides."""


@dataclass(frozen=True)
class Look:
    """What depends on the number of hosts."""

    width: int
    kind: str


SINGLE, MULTI = Look(1280, "single host"), Look(1480, "multi host")


class Canvas:
    """A scene of a plan. ``y`` is where the next thing begins."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.look = SINGLE if len(plan.hosts) == 1 else MULTI
        self.width = self.look.width
        self.y = MARGIN
        self.scene = Scene()
        self.colour = {network.name: f"net{min(i, NETWORK_COLOURS - 1)}" for i, network in enumerate(ordered(plan))}
        self.inner = [network for network in plan.networks if not network.provider]
        self.provider = [network for network in plan.networks if network.provider]


def ordered(plan: Plan) -> list[Network]:
    """Networks in the order of their colours: `zone`, provider networks, then further ones."""
    return sorted(plan.networks, key=lambda one: (one.name != "zone", not one.provider))
