# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare two deployments: what differs because they are two, or of two sizes, and what has drifted apart.

Both are rendered as a run would do it, with throw-away secrets. Then the first one is rendered once more as it would be on the
machines of the second: what its topology says of names, addresses, numbers and sizes is replaced by what the other one says
(parity.yml lists what that is). What differs even then is explained by no machine: drift, unless a rule knows the key.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from html import escape
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloud import compute
from deployment import ROOT, Deployment, DeploymentError, command, write_whole
from options import parity
from page import cell, document, table
from parse import Settings, Symbols, Value, kinds, leaves, settings
from rendering import Rendering, find_collections

RULES = Path(__file__).with_name("parity.yml")
CLASSES = ("drift", "scale", "identity")
QUESTIONS = {
    "deployed": "Services, components, images, versions",
    "configuration": "Configuration keys",
    "features": "What runs in one only",
}
UNEXPLAINED = "no rule explains it"
SIZES = ("memory", "vcpus", "cpu_cap", "quota")
NOUNS = ("zone", "service", "stack", "groups", "inventory_hostname", "inventory_hostname_short")
REFERENCES = ("hosts", "gateway_host")
"""Keys of a topology that name hosts: without those hosts they cannot be kept."""
OF_A_ZONE = ("networks", "volumes", "devices", "capabilities", "privileged", "autostart")
"""What of a zone itself is compared; its image and sizes are told with the components."""
OF_A_SERVICE = ("api", "listen", "database", "queue", "identity", "steps", "phase", "quorum")
"""What of a service's file does not show in the files of its zones."""

Raw = dict[str, Any]
Files = dict[str, Settings]
"""The settings of a zone by file; what is no file has a name in brackets."""


class Rules:
    """parity.yml, with a site's own rules before ours."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.topology: list[Raw] = []
        self.keys: list[Raw] = []
        self.backends: list[Raw] = []
        self.features: list[Raw] = []
        self.identity: dict[str, str] = {}
        self.consequence: Raw = {}
        for path in paths:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as why:
            raise DeploymentError(f"--rules {path}: cannot be read: {why}") from None
        known = yaml.safe_load(RULES.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or set(data) - set(known):
            raise DeploymentError(f"--rules {path}: must be a mapping with these keys: {', '.join(known)}")
        for name, pattern in (("topology", "path"), ("keys", "key"), ("backends", "key"), ("features", "feature")):
            for index, rule in enumerate(data.get(name) or []):
                if not isinstance(rule, dict) or not {pattern, "class", "why"} <= set(rule) <= {
                    pattern,
                    "class",
                    "why",
                    "file",
                    "component",
                }:
                    raise DeploymentError(
                        f"--rules {path}: {name}[{index}]: write {{{pattern}: .., class: .., why: ..}}"
                    )
                if rule["class"] not in CLASSES:
                    raise DeploymentError(
                        f"--rules {path}: {name}[{index}].class: {rule['class']!r} is none of {', '.join(CLASSES)}"
                    )
            getattr(self, name).extend(data.get(name) or [])
        self.identity = {**(data.get("identity") or {}), **self.identity}
        self.consequence = self.consequence or data.get("consequence") or {}

    def input(self, path: tuple[str, ...]) -> Raw | None:
        """The rule for a key of topology.yml, whether it is for the key itself or for what the key is in."""
        for rule in self.topology:
            words = rule["path"].split(".")
            if len(words) <= len(path) and all(map(fnmatchcase, path, words)):
                return rule
        return None

    def key(self, component: str, file: str, key: str) -> Raw | None:
        """The rule for a key of a file."""
        return self._of_file(self.keys, component, file, key)

    def backend(self, component: str, file: str, key: str) -> Raw | None:
        """The rule for a key of a file that zones of one backend have otherwise."""
        return self._of_file(self.backends, component, file, key)

    @staticmethod
    def _of_file(rules: Iterable[Raw], component: str, file: str, key: str) -> Raw | None:
        for rule in rules:
            if (
                fnmatchcase(component, rule.get("component", "*"))
                and fnmatchcase(file, rule.get("file", "*"))
                and fnmatchcase(key, rule["key"])
            ):
                return rule
        return None

    def feature(self, name: str) -> Raw:
        """The rule for a feature; one that no rule knows is drift."""
        found = next((rule for rule in self.features if fnmatchcase(name, rule["feature"])), None)
        return found or {"class": "drift", "why": "no rule explains it"}

    def identities(self, meaning: str) -> str:
        """What a value holds that belongs to one deployment alone, in words."""
        return "; ".join(self.identity[kind] for kind in kinds(meaning) if kind in self.identity)


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


class Side:
    """A deployment with all that is rendered for it.

    :param secrets: throw-away ones, enough for its services.
    """

    def __init__(self, topology: Path, computed: Any, secrets: Raw) -> None:
        self.computed = computed
        self.secrets = secrets
        # Nor does it read those of deployments that share a Keystone.
        siblings = dict.fromkeys(
            computed.stack["identity"]["secrets"], {**secrets, "keystone": {"admin_password": "of another deployment"}}
        )
        self.rendering = Rendering(topology, {"secrets": secrets, "__siblings": siblings})

    @cached_property
    def symbols(self) -> Symbols:
        """What the deployment's names, addresses and secrets stand for."""
        return Symbols(symbols_of(self.computed, self.secrets))

    def members(self, component: str) -> list[str]:
        return [zone.name for zone in self.computed.zones.get(component, [])]

    def files(self, variables: Raw, symbols: Symbols) -> Files:
        """The settings of the zone that has these variables."""
        tree = self.rendering.tree(variables)
        found: Files = {}
        for entry in tree["directories"]:
            found[entry["path"] + "/"] = _single(
                {"(owner and mode)": f"{entry['owner']}:{entry['group']} {entry['mode']}"}, symbols
            )
        for entry in tree["files"]:
            own = _single({"(owner and mode)": f"{entry['owner']}:{entry['group']} {entry['mode']}"}, symbols)
            found[entry["path"]] = {**own, **settings(entry["content"], symbols, entry["secret"])}
        daemons = {one["unit"]: {"clustered": one["clustered"], "ready": one["ready"]} for one in tree["daemons"]}
        templar = self.rendering.templar(variables)
        zone = templar.template(variables["__zone_wanted"])
        service = variables["service"]
        for name, facts in (
            ("(daemons)", daemons),
            (
                "(zone)",
                {**{key: zone[key] for key in OF_A_ZONE}, "networks": dict(enumerate(map(_network, zone["networks"])))},
            ),
            ("(service)", {key: templar.template(service.get(key)) for key in OF_A_SERVICE}),
        ):
            found[name] = _single(dict(leaves(facts)), symbols)
        return found


def _network(network: Raw) -> Raw:
    """An interface of a zone with the range of its network, which has a meaning, in place of the range's length."""
    facts = {key: value for key, value in network.items() if key != "prefix"}
    return (
        {**facts, "range": str(ip_interface(f"{network['address']}/{network['prefix']}").network)}
        if network.get("address")
        else facts
    )


def _single(facts: Mapping[str, Any], symbols: Symbols) -> Settings:
    """Facts as settings with one value each."""
    texts = {key: item if isinstance(item, str) else json.dumps(item, default=str) for key, item in facts.items()}
    return {symbols(key): [Value(text, symbols(text))] for key, text in texts.items()}


def symbols_of(computed: Any, secrets: Raw) -> dict[str, tuple[str, str]]:
    """Each text that belongs to this deployment alone, its kind, and what it stands for."""
    stack = computed.stack
    found: dict[str, tuple[str, str]] = {str(text): ("secret", path) for path, text in leaves(secrets)}
    found |= {stack["deployment"]: ("deployment", ""), stack["region"]: ("region", "")}
    for name, network in (*stack["networks"].items(), *stack["cloud"]["networks"].items()):
        texts = (network["cidr"], network["bridge"], network.get("gateway"), *network.get("pool", ()))
        found |= {str(text): ("network", f"{name}·{number}") for number, text in enumerate(texts) if text}
    for name, host in stack["hosts"].items():
        found[name] = ("host", "")
        found |= dict.fromkeys((host["address"], *host["addresses"].values()), ("host", "address"))
    for component, zones in computed.zones.items():
        for number, zone in enumerate(zones, start=1):
            found |= dict.fromkeys((zone.name, zone.uuid, zone.mac), ("zone", f"{component}·{number}"))
            found[zone.address] = ("address", f"{component}·{number}")
            for name, one in (zone.networks or {}).items():
                found |= {
                    one.address: ("address", f"{component}·{number}·{name}"),
                    one.mac: ("zone", f"{component}·{number}"),
                }
            found |= dict.fromkeys((zone.provider or {}).values(), ("zone", f"{component}·{number}"))
    found |= dict.fromkeys(stack["vip"].values(), ("entry", ""))
    return found


def explained(rule: Raw | None, both: bool) -> bool:
    """Whether a rule explains a difference. One that ends in ``*`` is for what entries hold, not for which there are."""
    return bool(rule and rule["class"] != "drift" and (both or not rule["path"].endswith("*")))


def transplanted(mine: Raw, theirs: Raw, rules: Rules, machines: set[str], path: tuple[str, ...] = ()) -> Raw:
    """A topology as it is written, with what rules explain taken from the other one.

    :param machines: hosts and groups of hosts of the other.
    """
    made: Raw = {}
    for key in {**mine, **theirs}:
        here, both = (*path, str(key)), key in mine and key in theirs
        if explained(rules.input(here), both):
            if key in theirs:
                made[key] = theirs[key]
        elif both and isinstance(mine[key], dict) and isinstance(theirs[key], dict):
            made[key] = transplanted(mine[key], theirs[key], rules, machines, here)
        elif key in mine:
            made[key] = _without_hosts(mine[key], machines)
    return made


def _without_hosts(value: Any, machines: set[str]) -> Any:
    """A part of a topology without references to hosts that are not there."""
    if not isinstance(value, dict):
        return value

    def dangling(key: str, item: Any) -> bool:
        return key in REFERENCES and not set([item] if isinstance(item, str) else item or []) <= machines

    return {key: _without_hosts(item, machines) for key, item in value.items() if not dangling(key, item)}


@contextlib.contextmanager
def moved(mine: Path, theirs: Path, other: Any, rules: Rules) -> Iterator[Path]:
    """The first deployment on the machines of the second: a ``topology.yml`` in a folder that goes with the context.

    :param other: what the second one's inventory computes.
    """
    written, machines = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (mine, theirs))
    data = transplanted(written, machines, rules, {*other.hosts, *other.groups})
    data |= {"plugin": "zonestack.openstack.topology", "deployment": other.stack["deployment"]}
    # A region is compared as if it were alone: the others' folders are not beside it there.
    data.pop("identity", None)
    # Service files stay where they are, because recipes name the files beside them by their paths.
    folders = [
        mine.parent / "services",
        *(mine.parent / Path(path).expanduser() for path in written.get("services_path") or []),
    ]
    data["services_path"] = [str(folder.resolve()) for folder in folders if folder.is_dir()]
    with tempfile.TemporaryDirectory(prefix="zonestack-parity-") as folder:
        path = Path(folder, "topology.yml")
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        certificates = theirs.parent / "ca-certificates"
        if certificates.is_dir():
            Path(folder, certificates.name).symlink_to(certificates.resolve())
        yield path


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


def throw_away(*sides: Any) -> Raw:
    """Secrets that are enough for all of these, and are no deployment's."""
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.secrets import complete, needed

    wanted = {place: kind for side in sides for place, kind in needed(side.stack["services"]).items()}
    return complete({}, wanted, lambda: new_authority(sides[0].stack["deployment"])._asdict())[0]


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


STYLE = """
main>p{max-width:100ch}td{vertical-align:top}tr.drift td:first-child{color:#c22;font-weight:600}details{margin:8px 0 24px}summary{cursor:pointer}
td.code{white-space:pre-wrap;overflow-wrap:anywhere;min-width:24ch}
"""


def summary(mine: str, theirs: str, differences: list[Difference]) -> str:
    """The outcome in one sentence."""
    counts = {kind: sum(one.kind == kind for one in differences) for kind in CLASSES}
    if not differences:
        return f"{mine} and {theirs}: no difference"
    drift = f"{counts['drift']} of drift" if counts["drift"] else "no drift"
    return f"{mine} and {theirs}: {drift}; differences of scale: {counts['scale']}, of identity: {counts['identity']}"


def html(mine: str, theirs: str, differences: list[Difference]) -> str:
    """All differences as a page: what has drifted by itself, what is explained to be opened."""
    parts = []
    for question, title in QUESTIONS.items():
        parts.append(f"<h2>{title}</h2>")
        for kind in CLASSES:
            rows = [
                f'<tr class="{one.kind}">{cell(one.kind)}{cell(one.where, "wide")}{cell(f"{one.file} {one.key}".strip(), "code")}'
                f"{cell(absent(one.mine), 'code')}{cell(absent(one.theirs), 'code')}{cell(one.why, 'wide')}</tr>"
                for one in differences
                if (one.question, one.kind) == (question, kind)
            ]
            made = table(f"{question}-{kind}", ["Class", "Where", "What", escape(mine), escape(theirs), "Why"], rows)
            if not rows:
                parts += ["<p>No drift.</p>"] if kind == "drift" else []
            elif kind == "drift":
                parts.append(made)
            else:
                parts.append(f"<details><summary>{kind}: {len(rows)}</summary>{made}</details>")
    text = summary(mine, theirs, differences)
    return document(text, f"<main>\n<h1>Parity</h1><p>{escape(text)}.</p>\n{chr(10).join(parts)}\n</main>", STYLE)


def absent(text: str | None) -> str:
    return "—" if text is None else text


def several(words: Iterable[str], most: int = 3) -> str:
    """The first of several words, and how many more there are."""
    every = list(dict.fromkeys(word for word in words if word))
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def report(console: Console, mine: str, theirs: str, differences: list[Difference], everything: bool) -> None:
    """The tables of the terminal: each drift with its values, and what is explained by its reason, or each by itself."""
    for question, title in QUESTIONS.items():
        rows = [one for one in differences if one.question == question]
        if not rows:
            continue
        made = Table(title=title, title_justify="left", title_style="bold", expand=False)
        for head in ("class", "where", "what", mine, theirs, "why"):
            made.add_column(head, overflow="fold")
        grouped: dict[tuple[Any, ...], list[Difference]] = {}
        for number, one in enumerate(rows):
            alone = everything or one.kind == "drift"
            grouped.setdefault((number,) if alone else (one.kind, one.why), []).append(one)
        for group in grouped.values():
            one, alone = group[0], len(group) == 1
            what = (
                f"{one.file} {one.key or '(the file)'}"
                if alone
                else several(other.file or other.key for other in group)
            )
            values = [absent(one.mine), absent(one.theirs)] if alone else [f"{len(group)} differences", ""]
            cells = [one.kind, several(other.where for other in group), what.strip(), *values, one.why]
            made.add_row(*map(Text, cells), style="bold red" if one.kind == "drift" else "")
        console.print(made)
    console.print(Text(summary(mine, theirs, differences)), soft_wrap=True)


def find(name: str) -> Deployment:
    """A deployment by the name of its folder; an example where there is no deployment of that name."""
    example = Deployment(f"examples/{name}")
    made = Deployment(name)
    return (example if example.topology.is_file() and not made.topology.is_file() else made).require()


def main() -> int:
    options = parity().parse_args()
    mine, theirs = find(options.mine), find(options.theirs)
    differences = Comparison(mine, theirs, Rules([*options.rules, RULES])).differences
    if options.json:
        print(json.dumps([asdict(one) for one in differences], indent=2, ensure_ascii=False))
        return int(any(one.kind == "drift" for one in differences))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    report(console, mine.name, theirs.name, differences, options.all)
    folder = options.output or Deployment(options.mine).logs
    try:
        write_whole(folder / "parity.html", html(mine.name, theirs.name, differences))
    except OSError as why:
        raise DeploymentError(f"--output {folder}: {why.strerror}: set a folder that can be written to") from None
    console.print(Text(f"wrote {folder / 'parity.html'}"), soft_wrap=True)
    return int(any(one.kind == "drift" for one in differences))


if __name__ == "__main__":
    command(main, refused=2)
