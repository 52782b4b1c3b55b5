# SPDX-License-Identifier: GPL-3.0-or-later
"""svcprop(1): print properties in a form that a shell can read."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .fmri import Fmri, is_glob, select
from .method import quote
from .repository import Groups, Property, Repository
from .tool import NO_INSTANCE_OR_SERVICE, Tool

_USAGE = """Usage: svcprop [-fqtv] [-C | -c | -s snapshot] [-z zone] [-p [name/]name]...
         {FMRI | pattern}..."""


class Svcprop(Tool):
    """One svcprop call."""

    def __init__(self) -> None:
        super().__init__("svcprop", _USAGE)

    def run(self, words: Sequence[str]) -> int:
        options, operands = self.options(words, "Ccfp:qs:tvz:")
        given = {option for option, _value in options}
        self.view = "".join(sorted(given & {"-C", "-c", "-s"}))
        self.snapshot = next((value for option, value in options if option == "-s"), "running")
        wanted = [value for option, value in options if option == "-p"]
        if not operands or len(self.view) > 2:
            self.usage()
        for value in wanted:
            if value.count("/") > 1:
                self.warn(f"-p argument `{value}' has too many components.")
                self.usage()
        self.quiet = "-q" in given
        self.telling = not self.quiet or "-v" in given
        for option, value in options:
            if option == "-z":
                self.enter_zone(value)
        with self.repository() as repository:
            entities = [one for operand in operands for one in self.entities(repository, operand)]
            several = len(entities) > 1
            self.with_fmri = "-f" in given or several
            self.with_type = "-t" in given or self.with_fmri or len({"/" in value for value in wanted}) > 1
            for fmri in entities:
                self.show(repository, fmri, wanted)
        return self.rc

    def entities(self, repository: Repository, operand: str) -> list[Fmri]:
        """Services by their full FMRI, otherwise instances."""
        full = Fmri.parse(operand)
        known = repository.entities()
        if full and not full.instance and full in known:
            return [full]
        found = select(operand, [one for one in known if one.instance])
        if not found and not is_glob(operand):
            found = [
                one
                for one in known
                if not one.instance and (one.service == operand or one.service.endswith(f"/{operand}"))
            ]
        if not found:
            if self.telling:
                self.warn(NO_INSTANCE_OR_SERVICE.format(operand))
            self.rc = 1
        return found

    def groups(self, repository: Repository, fmri: Fmri) -> Groups:
        if self.view == "-C" or not fmri.instance:
            if self.view == "-s":
                self.die("Only instances have snapshots.")
            return repository.groups(fmri)
        if self.view == "-c":
            return repository.composed(fmri)
        if not repository.has_snapshot(fmri, self.snapshot):
            if self.view == "-s":
                self.die("No such snapshot.")
            return repository.composed(fmri)
        if self.view == "-s":
            return repository.groups(fmri, self.snapshot)
        return repository.composed(fmri, self.snapshot)

    def show(self, repository: Repository, fmri: Fmri, wanted: list[str]) -> None:
        groups = self.groups(repository, fmri)
        kind = "instance" if fmri.instance else "service"
        if not wanted:
            for name in groups:
                self.show_group(fmri, groups, name)
        for path in wanted:
            name, slash, key = path.partition("/")
            if name not in groups:
                self.missing(f"Couldn't find property group `{name}' for {kind} `{fmri}'.")
            elif not slash:
                self.show_group(fmri, groups, name)
            elif key not in groups[name].properties:
                self.missing(f"Couldn't find property `{path}' for {kind} `{fmri}'.")
            else:
                self.print(fmri, path, groups[name].properties[key], self.with_type)

    def show_group(self, fmri: Fmri, groups: Groups, name: str) -> None:
        for key, one in groups[name].properties.items():
            self.print(fmri, f"{name}/{key}", one, True)

    def missing(self, text: str) -> None:
        if self.telling:
            self.warn(text)
        self.rc = 1

    def print(self, fmri: Fmri, path: str, one: Property, with_type: bool) -> None:
        if self.quiet:
            return
        name, _slash, key = path.partition("/")
        values = " ".join(quote(value) if value else '""' for value in one.values)
        designator = f"{fmri}/:properties/{name}/{key}" if self.with_fmri else path
        print(f"{designator} {one.type} {values}" if with_type else values)


def main() -> None:
    raise SystemExit(Svcprop().run(sys.argv[1:]))
