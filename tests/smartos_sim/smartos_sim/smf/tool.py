# SPDX-License-Identifier: GPL-3.0-or-later
"""What svcs, svcadm, svccfg and svcprop have in common."""

from __future__ import annotations

import getopt
import sys
import typing as t
from collections.abc import Sequence

from . import graph
from .fmri import Fmri, is_glob, select
from .place import Place
from .repository import Repository

USAGE = 2

NO_INSTANCE = "Pattern '{}' doesn't match any instances"
NO_INSTANCE_OR_SERVICE = "Pattern '{}' doesn't match any instances or services"


class Tool:
    """One run of a tool: its name for messages, its place, and the exit code that it will end with."""

    def __init__(self, name: str, usage: str) -> None:
        self.name = name
        self.usage_text = usage
        self.place = Place.here()
        self.rc = 0

    def warn(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr)

    def die(self, text: str, rc: int = 1) -> t.NoReturn:
        self.warn(text)
        raise SystemExit(rc)

    def usage(self) -> t.NoReturn:
        print(self.usage_text, file=sys.stderr)
        raise SystemExit(USAGE)

    def options(self, words: Sequence[str], short: str) -> tuple[list[tuple[str, str]], list[str]]:
        """Options up to the first operand, as getopt(3C) takes them."""
        try:
            return getopt.getopt(list(words), short)
        except getopt.GetoptError as bad:
            print(f"{self.name}: illegal option -- {bad.opt}", file=sys.stderr)
            self.usage()

    def enter_zone(self, name: str) -> None:
        """-z: the SMF of a running zone of this global zone."""
        if self.place.zonename != "global":
            self.die(f"{self.name} -z may only be used from the global zone")
        self.place = self.place.zone(name)
        if not self.place.repository_file.is_file():
            self.die(f"invalid zone '{name}'")

    def repository(self) -> Repository:
        try:
            return self.place.repository()
        except FileNotFoundError:
            self.die("Couldn't bind to configuration repository: repository server unavailable.")

    def instances(self, repository: Repository, operands: Sequence[str], many: bool = True) -> list[Fmri]:
        """The instances that the operands mean. What means none, or without ``many`` what means several though it is no
        pattern, is told and passed over."""
        known = repository.instances()
        found: list[Fmri] = []
        for operand in operands:
            mine = select(operand, known)
            if not mine:
                self.warn(NO_INSTANCE.format(operand))
                self.rc = 1
            elif len(mine) > 1 and not many and not is_glob(operand):
                self.warn(f"Pattern '{operand}' matches multiple instances:")
                for one in mine:
                    print(f"    {one}", file=sys.stderr)
                self.rc = 1
            else:
                found += mine
        return list(dict.fromkeys(found))


def nodes(repository: Repository) -> dict[Fmri, graph.Node]:
    """The dependency graph as svc.startd has told it to the repository."""
    made = {}
    for fmri in repository.instances():
        groups = repository.composed(fmri)
        running = repository.composed(fmri, "running") if repository.has_snapshot(fmri, "running") else groups
        state = (groups["restarter"].first("state") if "restarter" in groups else None) or "uninitialized"
        made[fmri] = graph.Node(state, is_enabled(repository, fmri)[0], graph.dependencies(running))
    return made


def is_enabled(repository: Repository, fmri: Fmri) -> tuple[bool, bool]:
    """Whether an instance is enabled, and whether only until the next boot."""
    override = repository.value(fmri, "general_ovr/enabled")
    lasting = repository.value(fmri, "general/enabled")
    return (override if override is not None else lasting) in ("true", "1"), override is not None
