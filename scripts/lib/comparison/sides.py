# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment with all that is rendered for it, and the first one on the machines of the second."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import yaml

from comparison.rules import Raw, Rules, explained
from parse import Settings, Symbols, Value, leaves, settings
from rendering import Rendering

REFERENCES = ("hosts", "gateway_host")
"""Keys of a topology that name hosts: without those hosts they cannot be kept."""
OF_A_ZONE = ("networks", "volumes", "devices", "capabilities", "privileged", "autostart")
"""What of a zone itself is compared; its image and sizes are told with the components."""
OF_A_SERVICE = ("api", "listen", "database", "queue", "identity", "steps", "phase", "quorum")
"""What of a service's file does not show in the files of its zones."""
Files = dict[str, Settings]
"""The settings of a zone by file; what is no file has a name in brackets."""


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


def throw_away(*sides: Any) -> Raw:
    """Secrets that are enough for all of these, and are no deployment's."""
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.secrets import complete, needed

    wanted = {place: kind for side in sides for place, kind in needed(side.stack["services"]).items()}
    return complete({}, wanted, lambda: new_authority(sides[0].stack["deployment"])._asdict())[0]
