# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done with SMF (smf(7)), as pure functions: instances, wishes, manifests, properties, and the commands between them."""

from __future__ import annotations

import re
import shlex
import typing as t
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace

#: Where the global zone imports manifests from at each boot, since its repository lies on a ramdisk. In other zones just the
#: place where the last imported manifest is kept.
CUSTOM = "/opt/custom/smf"

STARTED = ("online", "degraded")

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.,@+-]*[A-Za-z0-9])?"
SERVICE_FMRI = re.compile(rf"svc:/(?:{_NAME}/)*{_NAME}")
INSTANCE_FMRI = re.compile(rf"{SERVICE_FMRI.pattern}:{_NAME}")
PROPERTY_NAME = re.compile(rf"{_NAME}/{_NAME}")

#: Types of properties (scf_value_create(3SCF)), and those whose values svccfg takes without double quotes.
TYPES = (
    "astring",
    "ustring",
    "boolean",
    "count",
    "integer",
    "fmri",
    "host",
    "hostname",
    "net_address",
    "opaque",
    "time",
    "uri",
)
_BARE = ("boolean", "count", "integer", "time")


class SmfError(Exception):
    """SMF is not, or cannot be brought to be, as wished; the message says where, what, and what would be right."""


@dataclass(frozen=True)
class Property:
    """The type of a property and its values, as text."""

    type: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.type}: {' '.join(shlex.quote(value) for value in self.values)}"


@dataclass(frozen=True)
class Instance:
    """What is known of one instance. ``since`` is the time of its state, as SMF writes it; ``override`` a wish until the boot."""

    fmri: str
    state: str
    next_state: str
    since: str
    lasting: bool
    override: bool | None
    log: str
    properties: t.Mapping[str, Property] = field(default_factory=dict)

    @property
    def enabled(self) -> bool:
        """Whether it is enabled now."""
        return self.lasting if self.override is None else self.override

    def shown(self) -> dict[str, t.Any]:
        """What results and diffs tell."""
        return {"state": self.state, "enabled": self.enabled, "enabled_at_boot": self.lasting}


def parse_properties(text: str) -> dict[str, Property]:
    """What svcprop(1) prints of several properties: ``group/name type values``, one property a line, by ``group/name``.

    Shell metacharacters in values, line ends among them, have a backslash before them, and ``""`` is an empty value.
    """
    found: dict[str, Property] = {}
    words: list[str] = []
    word: list[str] | None = None
    characters = iter(text)
    for character in characters:
        if character in " \n":
            if word is not None:
                words.append("".join(word))
                word = None
            if character == "\n":
                if len(words) >= 2:
                    found[words[0]] = Property(words[1], tuple(words[2:]))
                words = []
            continue
        word = [] if word is None else word
        if character == "\\":
            word.append(next(characters, ""))
        elif character != '"':
            word.append(character)
    return found


def to_instance(fmri: str, properties: t.Mapping[str, Property]) -> Instance:
    """An instance from its current properties, ``svcprop -c``."""

    def first(name: str, default: str) -> str:
        values = properties[name].values if name in properties else ()
        return values[0] if values else default

    override = first("general_ovr/enabled", "")
    return Instance(
        fmri,
        first("restarter/state", "uninitialized"),
        first("restarter/next_state", "none"),
        first("restarter/state_timestamp", ""),
        first("general/enabled", "false") in ("true", "1"),
        override in ("true", "1") if override else None,
        first("restarter/logfile", ""),
        properties,
    )


@dataclass(frozen=True)
class Wish:
    """What svcadm is to bring an instance to; ``state`` is enabled, disabled, restarted or refreshed."""

    state: str
    temporary: bool = False
    clear: bool = False


def actions(now: Instance, wish: Wish) -> list[str]:
    """The subcommands of svcadm(8) that bring an instance to what is wished, in order.

    :raise SmfError: the instance is in maintenance, and nobody has asked to clear that.
    """
    if wish.state == "refreshed":
        return ["refresh"]
    on = wish.state != "disabled"
    differs = now.enabled is not on or (not wish.temporary and now.lasting is not on)
    # Disabling takes an enabled instance out of maintenance by itself.
    stuck = now.state == "maintenance" and (on or not now.enabled)
    if stuck and not wish.clear:
        log = f"; see its log {now.log}" if now.log else ""
        raise SmfError(
            f"{now.fmri} is in maintenance{log}: repair the cause, then set clear: true; enabling or restarting alone does not end it"
        )
    found = ["clear"] if stuck or (wish.clear and on and now.state == "degraded") else []
    if differs:
        found.append("enable" if on else "disable")
    if wish.state == "restarted" and now.state in STARTED and not differs:
        found = ["restart"]
    return found


def expected(now: Instance, wish: Wish, todo: t.Sequence[str]) -> Instance:
    """What an instance is after ``todo``, for check mode."""
    if "enable" in todo or "disable" in todo:
        on = "enable" in todo
        lasting, override = (now.lasting, on) if wish.temporary else (on, None)
        return replace(now, state="online" if on else "disabled", lasting=lasting, override=override)
    if "clear" in todo:
        return replace(now, state="online" if now.enabled else "disabled")
    return now


@dataclass(frozen=True)
class Manifest:
    """A service manifest: its text, and the FMRIs of what it defines."""

    text: str
    services: tuple[str, ...]
    instances: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where it is kept unless somebody says otherwise."""
        return kept_path(self.services[0])


def kept_path(fmri: str) -> str:
    """The file in which a service's manifest is kept."""
    return f"{CUSTOM}/{service_of(fmri)[len('svc:/') :].replace('/', '-')}.xml"


def service_of(fmri: str) -> str:
    """The service of an instance's FMRI."""
    return ":".join(fmri.split(":")[:2])


def read_manifest(text: str) -> Manifest:
    """Read as much of a manifest as one must know; the rest is for ``svccfg validate``."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError as bad:
        raise SmfError(f"the manifest is not XML: {bad}") from None
    if root.tag != "service_bundle" or root.get("type") != "manifest":
        raise SmfError(
            f"<{root.tag} type={root.get('type')!r}> is not a manifest: give a <service_bundle type='manifest'>"
        )
    services, instances = [], []
    for service in root.iter("service"):
        fmri = f"svc:/{service.get('name')}"
        services.append(fmri)
        if service.find("create_default_instance") is not None:
            instances.append(f"{fmri}:default")
        instances += [f"{fmri}:{one.get('name')}" for one in service.findall("instance")]
    if not instances:
        raise SmfError(
            "the manifest defines no instance: add <create_default_instance enabled='true'/> or an <instance>"
        )
    wrong = [fmri for fmri in instances if not INSTANCE_FMRI.fullmatch(fmri)]
    if wrong:
        raise SmfError(
            f"{wrong[0]!r} in the manifest is not the FMRI of an instance: write it as svc:/site/web:default"
        )
    return Manifest(text, tuple(services), tuple(instances))


@dataclass(frozen=True)
class Setting:
    """A property that is to be there with these values, or with None is not to be there. ``group_type`` counts when the group is made."""

    name: str
    value: Property | None
    group_type: str = "application"

    @property
    def group(self) -> str:
        """The property group."""
        return self.name.split("/")[0]


def normalize(kind: str, values: t.Sequence[str]) -> Property:
    """Values as SMF prints them, so that they can be compared."""
    if kind == "boolean":
        words = {"true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false"}
        wrong = [value for value in values if value.lower() not in words]
        if wrong:
            raise SmfError(f"{wrong[0]!r} is not a boolean: write true or false")
        return Property(kind, tuple(words[value.lower()] for value in values))
    if kind in ("count", "integer"):
        pattern, right = (r"\d+", "a count: write a whole number that is not negative")
        if kind == "integer":
            pattern, right = (r"-?\d+", "an integer: write a whole number")
        wrong = [value for value in values if not re.fullmatch(pattern, value)]
        if wrong:
            raise SmfError(f"{wrong[0]!r} is not {right}")
        return Property(kind, tuple(str(int(value)) for value in values))
    return Property(kind, tuple(values))


def quoted(kind: str, value: str) -> str:
    """A value for svccfg(8): strings in double quotes, with backslashes before quotes and backslashes."""
    return value if kind in _BARE else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def commands(
    fmri: str, have: t.Mapping[str, Property], groups: t.Collection[str], settings: t.Sequence[Setting]
) -> list[str]:
    """The svccfg commands that bring the properties of one entity to what is wished; none when all is so already.

    :param have: properties that are attached to the entity itself, ``svcprop -C``.
    :param groups: property groups that are attached to it, also those without properties.
    """
    lines: list[str] = []
    made = set(groups)
    for one in settings:
        now = have.get(one.name)
        if now == one.value:
            continue
        if one.value is not None and one.group not in made:
            lines.append(f"addpg {one.group} {one.group_type}")
            made.add(one.group)
        # A property keeps its type as long as it is there.
        if now is not None and (one.value is None or one.value.type != now.type):
            lines.append(f"delprop {one.name}")
        if one.value is not None:
            values = [quoted(one.value.type, value) for value in one.value.values]
            text = values[0] if len(values) == 1 else f"({' '.join(values)})"
            lines.append(f"setprop {one.name} = {one.value.type}: {text}")
    return [f"select {fmri}", *lines] if lines else []


def configuration(properties: t.Mapping[str, Property]) -> dict[str, Property]:
    """What of an instance's properties its configuration is: without state and wishes, which no snapshot minds."""
    groups = ("general", "general_ovr", "restarter", "restarter_actions")
    return {name: one for name, one in properties.items() if name.split("/")[0] not in groups}
