# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Service Management Facility (smf(7)) of illumos: its four tools as a client, and what is to be done as pure functions.

Exit codes decide, never texts. A tool that fails because there is no such service is not told from one that fails otherwise by
its exit code, so existence is read from a listing of everything. svcadm(8) returns before anything has happened; what came of
it is read from the instance's own state, and only a state with a new timestamp is news.
"""

from __future__ import annotations

import re
import shlex
import time
import typing as t
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, Result, run

#: Where the global zone imports manifests from at each boot, since its repository lies on a ramdisk. In other zones just the
#: place where the last imported manifest is kept.
CUSTOM = "/opt/custom/smf"

STARTED = ("online", "degraded")

#: svcadm's exit code for an instance that cannot come online because of its dependencies, and for one in a wrong state.
BAD_DEPENDENCIES, BAD_INSTANCE = 4, 3

#: Exit code of a command that was killed at its limit; see cli.py.
TIMED_OUT = 124

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


# What is to be done: pure


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
        log = f"; its log {now.log} says why" if now.log else ""
        raise SmfError(
            f"{now.fmri} is in maintenance, which enabling or restarting does not end{log}: mend it, then clear it with clear: true"
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
        raise SmfError(f"the manifest is no XML: {bad}") from None
    if root.tag != "service_bundle" or root.get("type") != "manifest":
        raise SmfError(
            f"<{root.tag} type={root.get('type')!r}> is no manifest: give a <service_bundle type='manifest'>"
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
        raise SmfError(f"{wrong[0]!r} in the manifest is no FMRI of an instance")
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
            raise SmfError(f"{wrong[0]!r} is no boolean: write true or false")
        return Property(kind, tuple(words[value.lower()] for value in values))
    if kind in ("count", "integer"):
        wrong = [value for value in values if not re.fullmatch(r"\d+" if kind == "count" else r"-?\d+", value)]
        if wrong:
            raise SmfError(
                f"{wrong[0]!r} is no {kind}: write a {'whole number that is not negative' if kind == 'count' else 'whole number'}"
            )
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


# The client

QUESTION = 10.0
"""Seconds that any command may take, however little of the time for everything is left."""


class Smf:
    """SMF of the zone in which this runs, or with ``zone`` of a native zone of this global zone, through zlogin(1)."""

    def __init__(self, zone: str | None = None, timeout: float = 300) -> None:
        """
        :param timeout: seconds for everything together, counted from here.
        :raise SmfError: the zone does not run.
        """
        self.zone = zone
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        if zone:
            # zlogin's own failures have exit code 1, as those of commands, so what could be wrong is looked at first.
            state = run(["zoneadm", "-z", zone, "list", "-p"]).out.split(":")[2:3]
            if state != ["running"]:
                raise SmfError(
                    f"zone {zone} is {' '.join(state) or 'unknown'}: only a running zone can be entered, start it first"
                )

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least one."""
        return max(1.0, self.deadline - time.monotonic())

    def run(
        self, argv: t.Sequence[str], stdin: str | None = None, check: bool = True, timeout: float | None = None
    ) -> Result:
        """Run a command in the zone. One that has begun in time has :data:`QUESTION` seconds at least: a busy machine does not hang."""
        if self.zone:
            argv = ["zlogin", self.zone, shlex.join(argv)]  # exactly one argument: zlogin does not quote several
        return run(argv, stdin=stdin, check=check, timeout=max(QUESTION, self.left) if timeout is None else timeout)

    def states(self) -> dict[str, str]:
        """The state of every instance, by FMRI."""
        lines = self.run(["svcs", "-aH", "-o", "state,nstate,fmri"]).out.splitlines()
        return {words[2]: words[0] for words in map(str.split, lines) if len(words) == 3}

    def instance(self, fmri: str) -> Instance:
        """An instance with its current properties.

        :raise SmfError: there is none.
        """
        done = self.run(["svcprop", "-c", fmri], check=False)
        if done.rc != 0:
            if fmri not in self.states():
                where = f" in zone {self.zone}" if self.zone else ""
                raise SmfError(
                    f"there is no instance {fmri}{where}: import its manifest first, or look for its name with `svcs -a`"
                )
            raise CommandError(["svcprop", "-c", fmri], done.rc, done.err)
        return to_instance(fmri, parse_properties(done.out))

    def properties(self, fmri: str, view: str) -> dict[str, Property]:
        """Properties of an entity: ``-C`` its own, ``-c`` as composed now, empty the effective ones; see svcprop(1)."""
        return parse_properties(self.run(["svcprop", *([view] if view else []), fmri]).out)

    def snapshot(self, fmri: str, name: str) -> dict[str, Property]:
        """What an instance's snapshot holds; nothing where it has none of that name, as before its first start."""
        done = self.run(["svcprop", "-s", name, fmri], check=False)
        return parse_properties(done.out) if done.rc == 0 else {}

    # svcadm

    def act(self, verb: str, fmri: str, *options: str) -> None:
        """Ask for one action; it has only begun when this returns."""
        self.run(["svcadm", verb, *options, fmri])

    def enable(self, before: Instance, temporary: bool) -> None:
        """Enable an instance and wait until svcadm says that it is online, or cannot be."""
        argv = ["svcadm", "enable", "-s", *(["-t"] if temporary else []), before.fmri]
        try:
            done = self.run(argv, check=False, timeout=self.left)
        except CommandError as error:
            if error.rc == TIMED_OUT:
                raise self.too_late(before.fmri) from error
            raise
        if done.rc == BAD_DEPENDENCIES:
            raise SmfError(f"{CommandError(argv, done.rc, done.err)} {self.explanation(before.fmri)}".strip())
        # The state may still be the one from before a clear, so what BAD_INSTANCE means is for settle() to see.
        if done.rc not in (0, BAD_INSTANCE):
            raise CommandError(argv, done.rc, done.err)

    def settle(self, before: Instance, goal: t.Collection[str], moved: bool = False) -> Instance:
        """Wait until an instance rests in one of the states of ``goal``.

        :param before: the instance before anything was asked for.
        :param moved: whether it must have left its state meanwhile, as for a restart.
        :raise SmfError: it went into maintenance, or the time was over.
        """
        while True:
            now = self.instance(before.fmri)
            new = now.since != before.since
            if now.next_state == "none":
                if now.state in goal and (new or not moved):
                    return now
                if now.state == "maintenance" and new:
                    raise SmfError(
                        f"{now.fmri} went into maintenance; its log {now.log} says why. {self.explanation(now.fmri)}".strip()
                    )
            if time.monotonic() >= self.deadline:
                raise self.too_late(now.fmri, now)
            time.sleep(0.1)

    def too_late(self, fmri: str, now: Instance | None = None) -> SmfError:
        """The error for an instance that did not get there in time; what was asked for goes on."""
        now = now or self.instance(fmri)
        where = now.state if now.next_state == "none" else f"on the way from {now.state} to {now.next_state}"
        return SmfError(f"{fmri} is still {where} after {self.timeout:g} s (timeout). {self.explanation(fmri)}".strip())

    def explanation(self, fmri: str) -> str:
        """What svcs(1) has to say about an instance, for people."""
        done = self.run(["svcs", "-x", fmri], check=False, timeout=30)
        return " ".join(done.out.split())

    def bring(
        self, now: Instance, wish: Wish, todo: t.Sequence[str], wait: bool, comment: str | None = None
    ) -> Instance:
        """Do what :func:`actions` has said; return the instance as it is then."""
        for verb in todo:
            options = ["-t"] if wish.temporary and verb in ("enable", "disable") else []
            if verb == "enable" and wait:
                self.enable(now, wish.temporary)
            else:
                self.act(verb, now.fmri, *options, *(["-c", comment] if comment and verb == "disable" else []))
        if not wait:
            return self.instance(now.fmri)
        if wish.state == "refreshed":
            self.refreshed(now.fmri)
            return self.instance(now.fmri)
        return self.settle(now, STARTED if wish.state != "disabled" else ("disabled",), moved="restart" in todo)

    def refreshed(self, fmri: str) -> None:
        """Wait until an instance runs with its current configuration, and is not on its way somewhere."""
        while True:
            now = self.instance(fmri)
            if now.next_state in ("none", "online") and not self.unread(fmri):
                return
            if time.monotonic() >= self.deadline:
                raise self.too_late(fmri, now)
            time.sleep(0.1)

    # svccfg

    def unread(self, fmri: str) -> bool:
        """Whether an instance's configuration has changed since its last refresh."""
        return configuration(self.properties(fmri, "")) != configuration(self.properties(fmri, "-c"))

    def stale(self, fmri: str) -> bool:
        """Whether an instance is running with another configuration than it was started with."""
        started = self.snapshot(fmri, "start")
        return bool(started) and configuration(started) != configuration(self.snapshot(fmri, "running"))

    def kept(self, path: str) -> str | None:
        """The manifest that is kept in a file, None where there is none."""
        done = self.run(["/bin/sh", "-c", '[ ! -f "$1" ] || { echo kept && cat "$1"; }', "sh", path])
        return done.out[len("kept\n") :] if done.out.startswith("kept\n") else None

    def validate(self, manifest: Manifest) -> None:
        """Have svccfg check a manifest; changes nothing."""
        self._with_file(manifest, 'svccfg validate "$file"')

    def install(self, manifest: Manifest, path: str) -> str:
        """Import a manifest, then keep it; return what svccfg had to say.

        It is imported from a place of its own, because svccfg remembers files below /var/svc/manifest and does not import
        again what it remembers.
        """
        script = 'svccfg import "$file" && mkdir -p "$(dirname "$1")" && cat "$file" >"$1.part" && chmod 0644 "$1.part" && mv "$1.part" "$1"'
        return self._with_file(manifest, script, path).err.strip()

    def _with_file(self, manifest: Manifest, script: str, *words: str) -> Result:
        """Run a script with the manifest in ``$file``, which is gone afterwards."""
        head = 'umask 077; file=$(mktemp /var/tmp/zonestack-smf.XXXXXX) || exit 1; trap \'rm -f "$file"\' EXIT; cat >"$file" && '
        done = self.run(["/bin/sh", "-c", head + script, "sh", *words], stdin=manifest.text, check=False)
        if done.rc != 0:
            raise CommandError(["/bin/sh", "-c", script], done.rc, done.err or done.out)
        return done

    def has_service(self, fmri: str) -> bool:
        """Whether there is a service of this FMRI, with or without instances."""
        name = service_of(fmri)[len("svc:/") :]
        return name in self.run(["svccfg", "list", name]).out.split()

    def configure(self, lines: t.Sequence[str]) -> None:
        """Run svccfg commands over standard input: a command line would be cut at 2 KiB."""
        self.run(["svccfg", "-f", "-"], stdin="".join(f"{line}\n" for line in lines))

    def group_names(self, fmri: str) -> set[str]:
        """The property groups that are attached to an entity itself."""
        lines = self.run(["svccfg", "-s", fmri, "listpg"]).out.splitlines()
        return {line.split()[0] for line in lines if line.split()}

    def delete(self, fmri: str) -> None:
        """Delete a service or an instance. What runs is stopped first: svccfg would leave it running, and nobody would mind it."""
        mine = [one for one in self.states() if fmri in (one, service_of(one))]
        for one in mine:
            now = self.instance(one)
            if now.enabled:
                self.act("disable", one)
            self.settle(now, ("disabled",) if now.enabled or now.state != "maintenance" else ("maintenance",))
        self.run(["svccfg", "delete", "-f", fmri])
