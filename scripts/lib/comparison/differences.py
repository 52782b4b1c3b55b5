# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two deployments, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloud import compute
from comparison.rules import CLASSES, UNEXPLAINED, Raw, Rules, explained
from comparison.sides import Files, Side, moved, symbols_of, throw_away
from deployment import ROOT, Deployment, DeploymentError
from parse import Symbols, Value
from rendering import find_collections

QUESTIONS = {
    "deployed": "Services, components, images, versions",
    "configuration": "Configuration keys",
    "features": "What runs in one only",
}
SIZES = ("memory", "vcpus", "cpu_cap", "quota")
NOUNS = ("zone", "service", "stack", "groups", "inventory_hostname", "inventory_hostname_short")


@dataclass(frozen=True)
class Difference:
    """One difference. ``kind`` is its class; a value is None where the key or thing is missing."""

    question: str
    kind: str
    where: str
    file: str
    key: str
    mine: str | None
    theirs: str | None
    why: str


class Comparison:
    """Two deployments and the first one on the machines of the second."""

    def __init__(self, mine: Deployment, theirs: Deployment, rules: Rules) -> None:
        self.rules = rules
        find_collections()
        computed, other = compute(mine.topology), compute(theirs.topology)
        with moved(mine.topology, theirs.topology, other, rules) as path:
            try:
                between = compute(path)
            except DeploymentError as why:
                text = str(why).replace(str(path), "topology.yml")
                raise DeploymentError(
                    f"{mine.name} as it would be on the machines of {theirs.name} is refused: {text}"
                ) from None
            secrets = throw_away(other, between)
            self.theirs = Side(theirs.topology, other, secrets)
            # The same deployment twice has the same secrets.
            same = mine.topology.resolve() == theirs.topology.resolve()
            self.mine = Side(mine.topology, computed, secrets if same else throw_away(computed))
            self.between = Side(path, between, secrets)
            self.both = Symbols({**symbols_of(computed, self.mine.secrets), **symbols_of(other, secrets)})
            self.differences = sorted(
                {*self._topology(), *self._deployed(), *self._configuration(), *self._features()},
                key=lambda one: (
                    CLASSES.index(one.kind),
                    list(QUESTIONS).index(one.question),
                    one.where,
                    one.file,
                    one.key,
                ),
            )

    @property
    def drift(self) -> list[Difference]:
        return [one for one in self.differences if one.kind == "drift"]

    def _topology(self) -> Iterator[Difference]:
        """What the owners wrote differently; services are told by component."""
        from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import encode

        sides = []
        for computed in (self.mine.computed, self.theirs.computed):
            data = encode(computed.topology)
            data["deployment"] = computed.stack["deployment"]
            sides.append(
                {key: item for key, item in data.items() if key not in ("plugin", "services", "services_path")}
            )
        yield from self._inputs(sides[0], sides[1], ())

    def _inputs(self, mine: Raw, theirs: Raw, path: tuple[str, ...]) -> Iterator[Difference]:
        for key in {**mine, **theirs}:
            here, one, other = (*path, str(key)), mine.get(key), theirs.get(key)
            if one == other:
                continue
            rule = self.rules.input(here)
            if rule is None and isinstance(one, dict) and isinstance(other, dict):
                yield from self._inputs(one, other, here)
                continue
            known = explained(rule, key in mine and key in theirs)
            kind, why = (
                (rule["class"], rule["why"]) if rule and (known or rule["class"] == "drift") else ("drift", UNEXPLAINED)
            )
            yield Difference("deployed", kind, "", "topology.yml", ".".join(here), brief(one), brief(other), why)

    def _deployed(self) -> Iterator[Difference]:
        """Components, their numbers, sizes and images; versions where the releases differ."""
        mine, theirs, between = self.mine.computed, self.theirs.computed, self.between.computed
        for component in {**mine.services, **theirs.services}:
            if component not in mine.services or component not in theirs.services:
                known = self.rules.input(("services", component))
                kind, why = (
                    (known["class"], known["why"]) if known and explained(known, False) else ("drift", UNEXPLAINED)
                )
                yield Difference(
                    "deployed",
                    kind,
                    component,
                    "",
                    "component",
                    *presence(component, mine.services, theirs.services),
                    why,
                )
                continue
            rule = self.rules.input(("services", component)) or {"class": "drift", "why": UNEXPLAINED}
            one, other = (side.services[component] for side in (mine, theirs))
            facts = {"zones": tuple(len(side.zones[component]) for side in (mine, theirs))}
            facts |= {size: (one["zone"][size], other["zone"][size]) for size in SIZES}
            for name, (here, there) in facts.items():
                if here != there:
                    yield Difference("deployed", rule["class"], component, "", name, str(here), str(there), rule["why"])
            images = [side.services[component]["image"]["id"] for side in (mine, between, theirs)]
            if images[1] != images[2]:
                yield Difference("deployed", "drift", component, "", "image", images[1], images[2], UNEXPLAINED)
            elif images[0] != images[2]:
                yield Difference(
                    "deployed",
                    "identity",
                    component,
                    "",
                    "image",
                    images[0],
                    images[2],
                    "certificates that the site trusts",
                )
            placed = [", ".join(zone.name for zone in side.zones[component]) for side in (between, theirs)]
            if placed[0] != placed[1]:
                yield Difference("deployed", "drift", component, "", "zones", placed[0], placed[1], UNEXPLAINED)
        yield from self._versions()

    def _versions(self) -> Iterator[Difference]:
        locks = []
        for side in (self.mine.computed, self.theirs.computed):
            text = (ROOT / "locks" / f"{side.stack['release']}.txt").read_text(encoding="utf-8")
            locks.append(dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)))
        for name in sorted({*locks[0], *locks[1]}):
            if locks[0].get(name) != locks[1].get(name):
                yield Difference(
                    "deployed", "drift", "", "lock", name, locks[0].get(name), locks[1].get(name), "another release"
                )

    def _configuration(self) -> Iterator[Difference]:
        for component in self.mine.computed.zones:
            if component in self.theirs.computed.zones:
                numbers = range(max(len(self.mine.members(component)), len(self.theirs.members(component))))
                between = [self.between.files(self._between(component, number), self.both) for number in numbers]
                yield from self._consequences(component, between[0])
                yield from self._drifted(component, between)

    def _between(self, component: str, number: int) -> Raw:
        """Variables of a zone of the first deployment on the second's machines: which zone it is, and which are the others, is
        the second's to say; what else is set for it is the first's. What has more zones has their last one for the rest."""
        own, there = self.mine.members(component), self.between.members(component)
        variables = self.between.rendering.variables(there[min(number, len(there) - 1)])
        of_the_place = {key: variables[key] for key in NOUNS}
        return {
            **self.mine.rendering.variables(own[min(number, len(own) - 1)]),
            **of_the_place,
            "secrets": self.theirs.secrets,
        }

    def _consequences(self, component: str, after: Files) -> Iterator[Difference]:
        """What names, addresses, secrets, numbers and sizes alone make different, by the component's first zone."""
        before = self.mine.files(self.mine.rendering.variables(self.mine.members(component)[0]), self.mine.symbols)
        backends = {
            side.computed.hosts[side.computed.zones[component][0].host]["backend"] for side in (self.mine, self.between)
        }
        for file, key, mine, theirs in differing(before, after):
            meanings = [[value.meaning for value in values] for values in (mine, theirs)]
            if meanings[0] == meanings[1]:
                why = self.rules.identities(" ".join([key, *meanings[0]]))
                yield Difference("configuration", "identity", component, file, key, shown(mine), shown(theirs), why)
            else:
                rule = (len(backends) > 1 and self.rules.backend(component, file, key)) or self.rules.consequence
                yield Difference(
                    "configuration", rule["class"], component, file, key, shown(mine), shown(theirs), rule["why"]
                )

    def _drifted(self, component: str, between: list[Files]) -> Iterator[Difference]:
        """What differs although the machines are the same, in any zone."""
        found: dict[tuple[Any, ...], list[str]] = {}
        names = self.theirs.members(component)
        files: dict[str, Files] = {}
        for number, mine_there in enumerate(between):
            name = names[min(number, len(names) - 1)]
            if name not in files:
                files[name] = self.theirs.files(self.theirs.rendering.variables(name), self.both)
            for file, key, mine, theirs in differing(mine_there, files[name]):
                meanings = [tuple(value.meaning for value in values) for values in (mine, theirs)]
                rule = self.rules.key(component, file, key)
                if rule and (rule["class"] != "scale" or numeric([*mine, *theirs])):
                    kind, why = rule["class"], rule["why"]
                elif meanings[0] == meanings[1]:
                    kind, why = "identity", self.rules.identities(" ".join([key, *meanings[0]]))
                else:
                    kind, why = "drift", UNEXPLAINED
                found.setdefault((kind, file, key, shown(mine), shown(theirs), why), []).append(name)
        for (kind, file, key, mine, theirs, why), zones in found.items():
            where = component if len(set(zones)) == len(names) else ", ".join(dict.fromkeys(zones))
            yield Difference("configuration", kind, where, file, key, mine, theirs, why)

    def _features(self) -> Iterator[Difference]:
        mine, theirs = features(self.mine.computed), features(self.theirs.computed)
        for name in {**mine, **theirs}:
            if (name in mine) != (name in theirs):
                rule = self.rules.feature(name)
                yield Difference("features", rule["class"], "", "", name, *presence(name, mine, theirs), rule["why"])


def features(computed: Any) -> dict[str, str]:
    """What a deployment has running that a smaller or other one has not."""
    found = {}
    for component, zones in computed.zones.items():
        if len(zones) > 1:
            kind = "cluster" if computed.services[component]["quorum"] else "several zones"
            found[f"{kind} of {component}"] = f"{len(zones)} zones"
    hosts = computed.stack["hosts"].values()
    if len(hosts) > 1:
        found["several hosts"] = f"{len(hosts)} hosts"
    for backend in sorted({host["backend"] for host in hosts}):
        found[f"zones of backend {backend}"] = "yes"
    networks = computed.stack["cloud"]["networks"].values()
    for feature, key in (("floating addresses", "external"), ("instances in provider networks", "shared")):
        if any(network[key] for network in networks):
            found[feature] = "yes"
    return found


def differing(mine: Files, theirs: Files) -> Iterator[tuple[str, str, list[Value], list[Value]]]:
    """File, key and those values that only one side has."""
    for file in {**mine, **theirs}:
        if file not in mine or file not in theirs:
            here, there = ([Value("there", "there")] if file in side else [] for side in (mine, theirs))
            yield file, "", here, there
            continue
        for key in {**mine[file], **theirs[file]}:
            here, there = mine[file].get(key, []), theirs[file].get(key, [])
            if [value.text for value in here] != [value.text for value in there]:
                yield file, key, *only(here, there)


def only(mine: list[Value], theirs: list[Value]) -> tuple[list[Value], list[Value]]:
    """Two lists without what both have; as they are when that leaves nothing but another order."""
    texts = [{value.text for value in values} for values in (theirs, mine)]
    left = (
        [value for value in mine if value.text not in texts[0]],
        [value for value in theirs if value.text not in texts[1]],
    )
    return left if left[0] or left[1] else (mine, theirs)


def numeric(values: Iterable[Value]) -> bool:
    return all(value.text.strip().isdigit() for value in values)


def shown(values: list[Value]) -> str | None:
    return "\n".join(value.shown() for value in values) if values else None


def presence(name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Something in one only, with what there is to say of it."""
    texts = [
        None if name not in side else str(side[name]) if isinstance(side[name], str) else "deployed"
        for side in (mine, theirs)
    ]
    return texts[0], texts[1]


def brief(value: Any) -> str | None:
    """A part of a topology in one line; of a mapping its keys."""
    if value is None:
        return None
    if isinstance(value, dict):
        return f"{len(value)}: {', '.join(map(str, value))}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
