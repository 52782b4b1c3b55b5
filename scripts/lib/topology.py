# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw a deployment from its topology.yml: hosts, zones by service, networks, addresses and the way in."""

from __future__ import annotations

import sys
import time
from typing import Any

from cloud import compute
from deployment import ROOT, Deployment, DeploymentError, command, write_whole
from layout import draw
from model import Live, plan_of
from options import topology
from page import page


def wanted(zone: Any, image: str, found: dict[str, Any] | None, state: str) -> str:
    """A zone's state. ``found``: what its host said of it; ``state``: what to say when it said nothing."""
    if found is None or found.get("uuid") != zone.uuid:
        return state
    if found.get("image") != image:
        return "stale"
    return "running" if found["running"] else "stopped"


class Answers:
    """What the hosts and HAProxy answered, taken from Ansible's events."""

    def __init__(self) -> None:
        self.zones: dict[str, dict[str, Any]] = {}
        self.servers: dict[str, str] = {}
        self.silent: dict[str, str] = {}

    def take(self, event: dict[str, Any]) -> None:
        data = event.get("event_data") or {}
        result = data.get("res") or {}
        if event["event"] == "runner_on_ok":
            if "zones" in result:
                self.zones[data["host"]] = result["zones"]
            for server, status in (result.get("servers") or {}).items():
                if self.servers.get(server, "UP").startswith(
                    "UP"
                ):  # of several HAProxies, the one that misses it is heard
                    self.servers[server] = status
        elif event["event"] in ("runner_on_failed", "runner_on_unreachable"):
            words = str(result.get("msg") or "no answer").strip().splitlines()
            self.silent[data["host"]] = words[0]

    def live(self, computed: Any, when: str) -> Live:
        """The answers in terms of the deployment: of a host that said nothing, nothing is known."""
        found = Live(when)
        for component, zones in computed.zones.items():
            image = computed.services[component]["image"]["id"]
            for zone in zones:
                said = self.zones.get(zone.host)
                state = "unknown" if said is None else "missing"
                found.states[zone.name] = wanted(zone, image, (said or {}).get(zone.name), state)
        for label, status in sorted(self.servers.items()):
            front_end, _, zone = label.partition("/")
            found.servers.setdefault(zone, {})[front_end] = status
        return found


def ask(deployment: Deployment, computed: Any) -> Live:
    """Ask the hosts, all at once. Who does not answer is named, and drawn as unknown."""
    from runner import Mask, locked, run_playbooks

    answers = Answers()
    with locked(deployment, "topology"):
        playbooks = [ROOT / "playbooks/state.yml"]
        run_playbooks(deployment, [], playbooks, answers.take, Mask(deployment.secret_values()), "topology")
    for host, why in sorted(answers.silent.items()):
        print(f"warning: {host} does not answer: {why}", file=sys.stderr)
    if not answers.zones:
        raise DeploymentError("no host answered, so there is no state to draw; omit --live to draw the topology")
    return answers.live(computed, time.strftime("%Y-%m-%d %H:%M %Z"))


def main() -> int:
    options = topology().parse_args()
    deployment = Deployment(options.deployment).require()
    computed = compute(deployment.topology)
    plan = plan_of(computed, ask(deployment, computed) if options.live else None)
    scene = draw(plan)
    svg = scene.svg()
    folder = options.output or deployment.logs
    try:
        for name, text in (("topology.svg", svg), ("topology.html", page(plan, svg))):
            write_whole(folder / name, text)
            print(f"wrote {folder / name}")
    except OSError as why:
        raise DeploymentError(f"--output {folder}: {why.strerror}: set a folder that can be written to") from None
    if plan.live:
        for zone in plan.zones:
            state, down = plan.live.states[zone.name], plan.live.down(zone.name)
            if state != "running" or down:
                print(f"  {zone.name:<32} {state}{', HAProxy: ' + ', '.join(down) if down else ''}")
    print(scene.title)
    return 0


if __name__ == "__main__":
    command(main)
