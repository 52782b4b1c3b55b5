# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Service Management Facility (smf(7)) of illumos: its four tools as a client.

Exit codes decide, never texts. A tool that fails because there is no such service has the same exit code as one that fails
otherwise, so existence is read from a listing of everything. svcadm(8) returns before anything has happened; what came of
it is read from the instance's own state, and only a state with a new timestamp is news.
"""

from __future__ import annotations

import shlex
import time
import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, Result, run
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.smf_plan import (
    Instance,
    Manifest,
    Property,
    STARTED,
    SmfError,
    Wish,
    configuration,
    parse_properties,
    service_of,
    to_instance,
)

#: svcadm's exit code for an instance that cannot come online because of its dependencies, and for one in a wrong state.
BAD_DEPENDENCIES, BAD_INSTANCE = 4, 3

#: Exit code of a command that was killed at its limit; see cli.py.
TIMED_OUT = 124

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
                    f"zone {zone} is {' '.join(state) or 'unknown'}: start it first; only a running zone can be entered"
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
                    f"there is no instance {fmri}{where}: import its manifest first, or find its name with `svcs -a`"
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
                        f"{now.fmri} went into maintenance; see its log {now.log}. {self.explanation(now.fmri)}".strip()
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
