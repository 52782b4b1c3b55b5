# SPDX-License-Identifier: GPL-3.0-or-later
"""svcadm(8): ask svc.startd for actions. Silent when it succeeds, and done only when it returns with -s."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from . import graph
from .fmri import Fmri
from .place import Place
from .repository import Repository
from .tool import Tool, is_enabled, nodes

SERVICE_FAILURE, DEPENDENCY_FAILURE = 3, 4

_USAGE = """Usage: svcadm [-S <state>] [-v] [-Z | -z zone] [cmd [args ... ]]

\tsvcadm enable [-rst] [<service> ...]\t- enable and online service(s)
\tsvcadm disable [-c comment] [-st] [<service> ...] - disable and offline service(s)
\tsvcadm restart [-d] [<service> ...]\t- restart specified service(s)
\tsvcadm refresh [<service> ...]\t\t- re-read service configuration
\tsvcadm mark [-It] <state> [<service> ...] - set maintenance state
\tsvcadm clear [<service> ...]\t\t- clear maintenance state"""


class Svcadm(Tool):
    """One svcadm call."""

    def __init__(self) -> None:
        super().__init__("svcadm", _USAGE)
        self.verbose = False
        self.state: str | None = None

    def run(self, words: Sequence[str]) -> int:
        options, words = self.options(words, "S:vz:")
        for option, value in options:
            if option == "-v":
                self.verbose = True
            elif option == "-S":
                self.state = value
            else:
                self.enter_zone(value)
        verbs: dict[str, tuple[str, Callable[[set[str], list[str]], None]]] = {
            "enable": ("rst", self.enable), "disable": ("stc:", self.disable), "restart": ("d", self.restart),
            "refresh": ("", self.refresh), "mark": ("It", self.mark), "clear": ("", self.clear),
        }  # fmt: skip
        if not words or words[0] not in verbs:
            self.usage()
        short, verb = verbs[words[0]]
        options, operands = self.options(words[1:], short)
        self.comment = dict(options).get("-c")
        verb({option for option, _value in options}, operands)
        return self.rc

    def chosen(self, repository: Repository, operands: list[str]) -> list[Fmri]:
        if bool(operands) == bool(self.state):
            self.usage()
        if self.state:
            return [fmri for fmri, node in nodes(repository).items() if node.state == self.state]
        return self.instances(repository, operands, many=False)

    def enable(self, options: set[str], operands: list[str]) -> None:
        self.set_enabled(True, options, operands)

    def disable(self, options: set[str], operands: list[str]) -> None:
        self.set_enabled(False, options, operands)

    def set_enabled(self, value: bool, options: set[str], operands: list[str]) -> None:
        temporary = "-t" in options
        with self.repository() as repository:
            chosen = self.chosen(repository, operands)
            with repository.change():
                for fmri in chosen if "-r" not in options else with_dependencies(chosen, nodes(repository)):
                    set_enabled(repository, fmri, value, temporary, self.comment)
                    if self.verbose:
                        word = "enabled" if value else "disabled"
                        print(f"{fmri} {'temporarily ' if temporary else ''}{word}.")
        self.place.poke()
        if "-s" in options and self.rc == 0:
            for fmri in chosen:
                rc = wait(self, self.place, fmri, value)
                self.rc = rc if rc == SERVICE_FAILURE or self.rc == 0 else self.rc

    def act(self, name: str, fmris: list[Fmri], repository: Repository) -> None:
        with repository.change():
            for fmri in fmris:
                ask(repository, fmri, name)
                if self.verbose:
                    print(f"Action {name} set for {fmri}.")
        self.place.poke()

    def restart(self, _options: set[str], operands: list[str]) -> None:
        with self.repository() as repository:
            self.act("restart", self.chosen(repository, operands), repository)

    def refresh(self, _options: set[str], operands: list[str]) -> None:
        with self.repository() as repository:
            self.act("refresh", self.chosen(repository, operands), repository)

    def mark(self, options: set[str], operands: list[str]) -> None:
        if not operands or operands[0] not in ("maintenance", "degraded"):
            self.usage()
        state, *operands = operands
        if state == "degraded" and "-t" in options:
            self.die("-t may not be used with degraded.", 2)
        with self.repository() as repository:
            chosen = self.chosen(repository, operands)
            if state == "maintenance":
                names = {
                    (): "maint_on",
                    ("-I",): "maint_on_immediate",
                    ("-t",): "maint_on_temporary",
                    ("-I", "-t"): "maint_on_immtemp",
                }
                self.act(names[tuple(sorted(options))], chosen, repository)
                return
            known = nodes(repository)
            for fmri in [one for one in chosen if known[one].state != "online"]:
                self.warn(f'Instance "{fmri}" is not online.')
                self.rc = 1
            self.act("degraded", [one for one in chosen if known[one].state == "online"], repository)

    def clear(self, _options: set[str], operands: list[str]) -> None:
        with self.repository() as repository:
            chosen = self.chosen(repository, operands)
            known = nodes(repository)
            for fmri in chosen:
                if known[fmri].state == "maintenance":
                    self.act("maint_off", [fmri], repository)
                elif known[fmri].state == "degraded":
                    self.act("restore", [fmri], repository)
                else:
                    self.warn(f'Instance "{fmri}" is not in a maintenance or degraded state.')
                    self.rc = 1


def set_enabled(repository: Repository, fmri: Fmri, value: bool, temporary: bool, comment: str | None = None) -> None:
    """Enable or disable an instance; a lasting wish takes back a temporary one."""
    text = str(value).lower()
    if temporary:
        repository.set(fmri, "general_ovr/enabled", "boolean", text, persistent=False)
    else:
        repository.set(fmri, "general/enabled", "boolean", text)
        repository.unset(fmri, "general_ovr/enabled")
    repository.unset(fmri, "general_ovr/comment")
    if comment and not value:
        repository.set(fmri, "general_ovr/comment", "astring", comment, persistent=False)


def ask(repository: Repository, fmri: Fmri, action: str) -> None:
    """Ask svc.startd for an action on an instance."""
    repository.set(fmri, f"restarter_actions/{action}", "integer", str(time.monotonic_ns()), persistent=False)


def with_dependencies(fmris: list[Fmri], known: graph.Nodes) -> list[Fmri]:
    """Instances and all that they need; what is optional or excluded is not followed, nor a choice among several."""
    found: list[Fmri] = []
    todo = list(fmris)
    while todo:
        fmri = todo.pop()
        if fmri in found:
            continue
        found.append(fmri)
        for dependency in known[fmri].dependencies:
            below = [one for entity in dependency.entities for one in graph.means(entity, known)]
            if dependency.grouping == "require_all" or (dependency.grouping == "require_any" and len(below) == 1):
                todo += below
    return found


def wait(tool: Tool, place: Place, fmri: Fmri, online: bool) -> int:
    """-s: wait until an instance is online or disabled, or cannot become so without help. There is no limit of time."""
    while True:
        with place.repository() as repository:
            known = nodes(repository)
            enabled = is_enabled(repository, fmri)[0]
        state = known[fmri].state
        if state in (graph.STARTED if online else ("disabled",)):
            return 0
        if state == "maintenance":
            tool.warn(f'Instance "{fmri}" is in maintenance state.')
            return SERVICE_FAILURE
        if enabled is not online:
            tool.warn(f'Instance "{fmri}" has been {"disabled" if online else "enabled"} by another entity.')
            return SERVICE_FAILURE
        if online and not graph.has_potential(fmri, known, place.root):
            tool.warn(f'Instance "{fmri}" has unsatisfied dependencies.')
            return DEPENDENCY_FAILURE
        time.sleep(0.02)


def main() -> None:
    raise SystemExit(Svcadm().run(sys.argv[1:]))
