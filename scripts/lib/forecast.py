# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would create, rebuild, change and restart, told before it does: the run itself, in Ansible's check mode.

A zone that is not there cannot be asked what would change in it, so the plan is made in two parts. The first ends with the zones: which
are to be created, rebuilt or started. The second goes on with those that run. A step that cannot be foreseen (it asks a service that is
not there yet) does not keep the later ones from being looked at.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from cloud import Cloud
from deployment import Deployment, DeploymentError
from options import STEPS
from progress import Record, plain_name

FIRST = ("hosts", "images", "zones")
"""The steps after which all zones are there."""
ACTIONS = ("remove", "create", "rebuild", "start", "restart", "change")
"""What may happen to a zone, the greatest first. ``restart``: it stops and starts with the root that it has."""
REBUILT = ("image", "store", "privileged", "idmap_base")
"""The fields of a zone's description of which its root is made; when one of them changes it is made anew."""
MECHANICS = ("zonestack.openstack.haproxy_server", "ansible.builtin.add_host", "ansible.builtin.set_stats")
"""What a run does on its way: out of rotation and back, and its own lists. Nothing of it stays."""
TREE = "zonestack.openstack.zone_tree"
ZONES = "zonestack.openstack.zones"

COLOURS = {
    "remove": "red",
    "create": "green",
    "rebuild": "red",
    "start": "green",
    "restart": "red",
    "change": "yellow",
    "+": "green",
    "-": "red",
    "@": "cyan",
}


@dataclass
class Planned:
    """What would be done in one place.

    :param action: of a zone, one of :data:`ACTIONS`; empty where nothing is done to it.
    :param reasons: what of its description changes, or what a host lacks.
    :param images: ids of the images that a host would build; ``fetched`` of those that it would have from another, or from a bundle.
    :param files: unified diffs by path; of a secret only that it changes.
    :param tasks: what else would change, by the task that would do it, each with its diff.
    """

    action: str = ""
    reasons: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)

    def raise_to(self, action: str) -> None:
        """Have the greater of two actions."""
        known = [one for one in (self.action, action) if one]
        self.action = min(known, key=ACTIONS.index)

    def __bool__(self) -> bool:
        return any(asdict(self).values())


def as_text(side: Any) -> str:
    """One side of a module's diff."""
    if side is None or side == "":
        return ""
    text = side if isinstance(side, str) else json.dumps(side, indent=2, sort_keys=True, default=str)
    return text if text.endswith("\n") else f"{text}\n"


def unified(diff: Any) -> Iterator[tuple[str, str]]:
    """The diffs of a result, each with the name that it bears (a path, a zone, or none)."""
    for one in diff if isinstance(diff, list) else [diff]:
        if not isinstance(one, dict):
            continue
        if prepared := one.get("prepared"):
            yield "", str(prepared)
            continue
        name = str(one.get("after_header") or one.get("before_header") or "")
        before, after = (as_text(one.get(side)).splitlines(keepends=True) for side in ("before", "after"))
        text = "".join(difflib.unified_diff(before, after, name or "before", name or "after"))
        if text:
            yield name, text


def verbs_of(result: dict[str, Any]) -> set[str]:
    """The calls that the module ``zone`` would make: create, update, start, stop, destroy."""
    return {action.partition(" ")[0] for action in result.get("actions", [])}


def what_happens(result: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> tuple[str, list[str]]:
    """What would happen to a zone itself, and why, from what the module ``zones`` says that it would do.

    :param before: its description as it is, ``after`` as it would be, where they differ.
    """
    verbs = verbs_of(result)
    if "destroy" in verbs or "stop" in verbs and "start" not in verbs:
        return "remove", ["it is no longer in topology.yml"]
    if "create" in verbs:
        addresses = [network.get("address") for network in after.get("networks", [])]
        words = [after.get("image"), f"{after['memory']} MiB" if after.get("memory") else None, *addresses]
        return "create", [str(word) for word in words if word]
    # `update (image, memory)`; and, of what waits for a stop, `image: a -> b; needs the zone to stop`
    fields = [
        name
        for action in result.get("actions", [])
        for name in action.partition("(")[2].rstrip(")").split(", ")
        if name
    ]
    simple = (str, int, type(None))
    told = [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        if before.get(name) != after.get(name)
        and isinstance(before.get(name), simple)
        and isinstance(after.get(name), simple)
        else name
        for name in fields
    ]
    pending = list(result.get("pending", []))
    reasons = [*told, *(reason.partition("; ")[0] for reason in pending)]
    if any(reason.partition(":")[0] in REBUILT for reason in reasons):
        return "rebuild", reasons
    if pending or result.get("restarted"):
        return "restart", reasons
    return ("start" if "start" in verbs else "change" if fields else ""), reasons


class Foreseen(Record):
    """Takes the events of runs in check mode, and keeps what they would do, by host and zone.

    :param cloud: whose zones are on which hosts.
    :param chosen: the steps that are asked for; what others would do is only looked at.
    :param mask: hides secrets, should one have come so far.
    """

    def __init__(self, cloud: Cloud, chosen: Iterable[str], mask: Callable[[str], str]) -> None:
        super().__init__()
        self.cloud = cloud
        self.chosen = frozenset(chosen)
        self.mask = mask
        self.planned: dict[str, Planned] = {}
        self.running: set[str] = set()
        """Zones that are there and run, as the step ``zones`` has found them."""

    def _add_result(self, outcome: str, host: str, result: dict[str, Any], data: dict[str, Any]) -> None:
        super()._add_result(outcome, host, result, data)
        action = str(data.get("task_action"))
        if outcome not in ("ok", "failed"):
            return
        if action == ZONES and outcome == "ok" and not {"create", "start"} & verbs_of(result):
            self.running.add(host)
        if self.step not in self.chosen or action in MECHANICS:
            return
        one = self.planned.setdefault(host, Planned())
        if action == ZONES:
            shown: dict[str, Any] = next(
                (one for one in data["res"].get("diff") or [] if one.get("after_header") == host), {}
            )
            what, reasons = what_happens(result, shown.get("before") or {}, shown.get("after") or {})
            if what:
                one.raise_to(what)
                one.reasons += [self.mask(reason) for reason in reasons if reason not in one.reasons]
            return
        if action == TREE:
            self._add_tree(one, result)
        elif result.get("changed"):
            self._add_task(one, plain_name(data.get("task") or ""), result)
        if host in self.cloud.zones and one and not one.action:
            one.action = "change"

    def _add_tree(self, one: Planned, result: dict[str, Any]) -> None:
        """A zone's files and daemons."""
        one.files |= {path: self.mask(text) for path, text in unified(result.get("diff"))}
        for into, keys in ((one.starts, ("started",)), (one.restarts, ("restart", "restarted"))):
            into += [unit for key in keys for unit in result.get(key) or [] if unit not in into]

    def _add_task(self, one: Planned, name: str, result: dict[str, Any]) -> None:
        """Anything else that would change."""
        if isinstance(result.get("built"), list):
            one.images += [str(image["id"]) for image in result["built"]]
            one.fetched += [str(image["id"]) for image in result.get("fetched", [])]
            if archived := len(result.get("archived", [])):
                one.reasons.append(f"archives of images for other hosts: {archived}")
        elif isinstance(result.get("changes"), list):
            one.reasons += [self.mask(str(change)) for change in result["changes"]]
        else:
            one.tasks[name] = one.tasks.get(name, "") + self.mask(
                "".join(text for _name, text in unified(result.get("diff")))
            )


@dataclass
class Plan:
    """All that a run would do, and what of it could not be foreseen, each with where and why."""

    deployment: str
    hosts: dict[str, dict[str, Any]]
    secrets: list[str]
    unknown: list[dict[str, str]]

    def zones(self) -> Iterator[tuple[str, Planned]]:
        for host in self.hosts.values():
            yield from host["zones"].items()

    def counts(self) -> dict[str, int]:
        """How many zones each action is for, and how many daemons are restarted in zones that stay."""
        found = {action: sum(one.action == action for _name, one in self.zones()) for action in ACTIONS}
        return {**found, "daemons": sum(len(one.restarts) for _name, one in self.zones())}

    def data(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        hosts = {
            name: {**asdict(host["itself"]), "zones": {zone: asdict(one) for zone, one in host["zones"].items()}}
            for name, host in self.hosts.items()
        }
        for host in hosts.values():
            for key in ("action", "files", "starts", "restarts"):
                del host[key]
            for zone in host["zones"].values():
                del zone["images"], zone["fetched"]
        return {
            "deployment": self.deployment,
            "counts": self.counts(),
            "secrets": self.secrets,
            "hosts": hosts,
            "unknown": self.unknown,
        }


def assemble(cloud: Cloud, record: Foreseen, secrets: list[str]) -> Plan:
    """The plan, host by host. What is done on the control machine stands under its own name."""
    hosts: dict[str, dict[str, Any]] = {name: {"itself": Planned(), "zones": {}} for name in cloud.hosts}
    for name, one in record.planned.items():
        if not one:
            continue
        former = next((host for host in cloud.hosts if one.action == "remove" and name.startswith(f"{host}-")), None)
        if name in cloud.zones or former:
            hosts[former or cloud.zones[name].host]["zones"][name] = one
        else:
            hosts.setdefault(name, {"itself": Planned(), "zones": {}})["itself"] = one
    for host in hosts.values():
        order = [*cloud.zones, *(name for name in host["zones"] if name not in cloud.zones)]
        host["zones"] = {name: host["zones"][name] for name in order if name in host["zones"]}
    unknown = [
        {"host": failure.host, "step": failure.step, "task": failure.task, "why": record.mask(failure.message)}
        for failure in record.failures
    ]
    return Plan(
        cloud.deployment,
        {name: host for name, host in hosts.items() if host["itself"] or host["zones"]},
        secrets,
        unknown,
    )


Attempt = Callable[[list[str], str | None], int]
"""Runs steps in check mode under a limit; returns the exit code."""


def foresee(cloud: Cloud, record: Foreseen, steps: list[str], limit: str | None, attempt: Attempt) -> None:
    """Have ``record`` see everything that the steps would do.

    :param attempt: runs steps into ``record``.
    :raises DeploymentError: when Ansible does not get as far as a task.
    :raises KeyboardInterrupt: when somebody interrupts.
    """

    def through(steps: list[str], limit: str | None) -> None:
        while steps:
            before = len(record.step_seconds)
            rc = attempt(steps, limit)
            if rc in (129, 130, 143):
                raise KeyboardInterrupt
            if rc == 0:
                return
            if len(record.step_seconds) == before:
                raise DeploymentError("\n".join(record.last_words) or "Ansible ended before any task")
            steps = steps[steps.index(str(record.step)) + 1 :]

    through(
        [step for step in STEPS if step in steps and step in FIRST or step == "zones" and set(steps) - set(FIRST)],
        limit,
    )
    later = [step for step in steps if step not in FIRST]
    if later and record.running:
        away = [f"!{name}" for name in cloud.zones if name not in record.running]
        through(later, ",".join([limit or "all", *away]))


# Printed -----------------------------------------------------------------------------------------------------------------


def show(console: Console, plan: Plan, everything: int) -> None:
    """The plan for people: by host and zone.

    :param everything: how many zones there are.
    """
    for name, host in plan.hosts.items():
        console.print(Text(name, style="bold"))
        itself: Planned = host["itself"]
        for reason in itself.reasons:
            console.print(Text(f"  {reason}", style="yellow"))
        for verb, images in (("built", itself.images), ("fetched", itself.fetched)):
            if images:
                console.print(Text(f"  images to be {verb}: {', '.join(images)}", style="green"))
        show_details(console, itself, "  ")
        for zone, one in host["zones"].items():
            words = [", ".join(one.reasons)] if one.reasons else []
            console.print(
                Text.assemble("  ", f"{zone:<34} ", (f"{one.action:<8}", COLOURS[one.action]), " " + "; ".join(words))
            )
            show_details(console, one, "      ")
    if plan.secrets:
        console.print(Text(f"secrets to be generated: {', '.join(plan.secrets)}", style="green"))
    for one in plan.unknown:
        first, *rest = one["why"].splitlines() or ["no message"]
        console.print(Text(f"not predicted: {one['host']}: {one['task']} (step {one['step']}): {first}", style="red"))
        for line in rest:
            console.print(Text(f"    {line}", style="red"))
    counts = plan.counts()
    said = ", ".join(f"{counts[action]} {action}" for action in ACTIONS if counts[action])
    stay = everything - sum(counts[action] for action in ACTIONS if action != "remove")
    console.print(
        f"zones: {said + ', ' if said else ''}{stay} unchanged; daemons restarted: {counts['daemons']}. Nothing was changed."
    )


def show_details(console: Console, one: Planned, indent: str) -> None:
    """Files, daemons and tasks of one place."""
    for text in one.files.values():
        show_diff(console, text, indent)
    for verb, units in (("start", one.starts), ("restart", one.restarts)):
        if units:
            console.print(Text(f"{indent}{verb} {', '.join(units)}", style="yellow"))
    for task, text in one.tasks.items():
        console.print(Text(f"{indent}{task}", style="yellow"))
        show_diff(console, text, f"{indent}  ")


def show_diff(console: Console, text: str, indent: str) -> None:
    for line in text.splitlines():
        console.print(Text(f"{indent}{line}", style=COLOURS.get(line[:1], "")))


def missing_secrets(deployment: Deployment, stack: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The secrets as a run would have them, and the names of those that it would generate. Written nowhere."""
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.secrets import (
        SecretsError,
        SecretsFile,
        complete,
        needed,
    )

    try:
        file = SecretsFile(deployment.secrets, os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE")).read()
        return complete(file.secrets, needed(stack["services"]), lambda: new_authority(stack["deployment"])._asdict())
    except SecretsError as why:
        raise DeploymentError(str(why)) from None
