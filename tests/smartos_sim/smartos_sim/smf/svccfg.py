# SPDX-License-Identifier: GPL-3.0-or-later
"""svccfg(8): import, export and change the configuration of services; what takes effect takes a refresh."""

from __future__ import annotations

import fnmatch
import os
import re
import sys
import typing as t
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import manifest
from .fmri import Fmri, select
from .repository import TYPES, Group, Property, Repository
from .svcadm import ask
from .tool import NO_INSTANCE_OR_SERVICE, Tool

_USAGE = "Usage:\tsvccfg [-v] [-z zone] [-s FMRI] [-f file]\n\tsvccfg [-v] [-z zone] [-s FMRI] <command> [args]"

#: A command line's words are joined by blanks and cut here, MAX_CMD_LINE_SZ of svccfg_main.c.
LINE = 2048 - 1

_TOKEN = re.compile(
    r'[ \t]+|#[^\n]*|(?P<string>"(?:[^"\\]|\\.)*")|(?P<sign>[=()>\n])|(?P<word>[^ \t\n">=()]+)', re.DOTALL
)


class SyntaxFault(Exception):
    """A command that svccfg cannot parse."""


class Word(t.NamedTuple):
    """One token: ``quoted`` ones are never numbers, types or signs."""

    text: str
    quoted: bool = False


class Svccfg(Tool):
    """One svccfg call."""

    def __init__(self) -> None:
        super().__init__("svccfg", _USAGE)
        self.selection: Fmri | None = None
        self.source = ""
        self.alternate = os.environ.get("SVCCFG_REPOSITORY")

    def run(self, words: Sequence[str]) -> int:
        options, words = self.options(words, "f:s:vz:")
        for option, value in options:
            if option == "-z":
                self.enter_zone(value)
        given = dict(options)
        with self.repository() as self.opened:
            if "-s" in given:
                self.select([Word(given["-s"])])
            if "-f" in given or not words:
                name = given.get("-f", "-")
                if name != "-" and not Path(name).is_file():
                    problem = "is not a regular file." if Path(name).exists() else None
                    self.die(f"{name} {problem}" if problem else f"Could not open {name}: No such file or directory.")
                text = sys.stdin.read() if name == "-" else Path(name).read_text()
                self.source = "<stdin>" if name == "-" else name
            else:
                text = "".join(f"{word} " for word in words)[:LINE]
            try:
                for self.line, command in commands(text):
                    self.execute(command)
            except SyntaxFault:
                self.die("Syntax error.")
        return 0

    def repository(self) -> Repository:
        if self.alternate is None:
            return super().repository()
        try:
            return Repository(Path(self.alternate))
        except FileNotFoundError as bad:
            self.die(str(bad))

    def warn(self, text: str) -> None:
        where = f" ({self.source}, line {self.line})" if self.source else ""
        print(f"{self.name}{where}: {text}", file=sys.stderr)

    # Commands

    def execute(self, words: list[Word]) -> None:
        verb = getattr(self, f"do_{words[0].text}", None) if not words[0].quoted else None
        if verb is None:
            raise SyntaxFault
        verb(words[1:])

    def poke(self) -> None:
        if self.alternate is None:
            self.place.poke()

    def entity(self, text: str) -> Fmri:
        """The one entity that an operand means: a child of the selection, a full FMRI, or an abbreviation, services first."""
        entities = self.opened.entities()
        child = Fmri.parse(f"{self.selection}:{text}") if self.selection and not self.selection.instance else None
        exact = [one for one in (child, Fmri.parse(text)) if one in entities]
        services = [one for one in entities if not one.instance]
        named = [one for one in services if one.service == text or one.service.endswith(f"/{text}")]
        found = exact[:1] or named or (select(text, self.opened.instances()) if Fmri.parse(text) is None else [])
        if not found:
            self.die(NO_INSTANCE_OR_SERVICE.format(text))
        if len(found) > 1:
            self.die(f"Pattern '{text}' matches multiple instances:\n" + "\n".join(f"    {one}" for one in found))
        return found[0]

    def select(self, words: list[Word]) -> None:
        (word,) = exactly(1, words)
        self.selection = self.entity(word.text)

    do_select = select

    def do_unselect(self, _words: list[Word]) -> None:
        self.selection = self.chosen.parent if self.chosen.instance else None

    def do_end(self, _words: list[Word]) -> None:
        raise SystemExit(0)

    do_exit = do_quit = do_end

    @property
    def chosen(self) -> Fmri:
        if self.selection is None:
            self.die("An entity is not selected.")
        return self.selection

    def do_validate(self, words: list[Word]) -> None:
        (word,) = exactly(1, words)
        self.load(word.text)

    def load(self, name: str) -> list[manifest.Service]:
        path = Path(name)
        if not path.exists():
            self.die(f"Unable to stat file {name}.  No such file or directory")
        try:
            return manifest.load(path)
        except manifest.ManifestError as bad:
            self.die(f"{name}: {bad}")

    def do_import(self, words: list[Word]) -> None:
        (word,) = exactly(1, [one for one in words if one.text != "-V"])
        touched, conflicts = manifest.install(self.opened, self.load(word.text))
        for conflict in conflicts:
            self.warn(conflict)
        with self.opened.change():
            for fmri in touched:
                if self.alternate:
                    self.opened.take_snapshot(fmri, "running")
                else:
                    ask(self.opened, fmri, "refresh")
        self.poke()

    def do_export(self, words: list[Word]) -> None:
        operands = [one for one in words if one.text != "-a"]
        text = manifest.export(self.opened, self.entity(exactly(1, operands[:1])[0].text).parent)
        if len(operands) == 3 and operands[1] == Word(">"):
            Path(operands[2].text).write_text(text)
        else:
            print(text, end="")

    def do_inventory(self, words: list[Word]) -> None:
        (word,) = exactly(1, words)
        for service in self.load(word.text):
            for name in service.instances:
                print(f"{service.fmri}:{name}")
            print(service.fmri)

    def do_list(self, words: list[Word]) -> None:
        pattern = words[0].text if words else "*"
        if self.selection is None:
            names = [one.service for one in self.opened.entities() if not one.instance]
        else:
            names = [":properties", *(one.instance for one in self.opened.instances() if one.parent == self.selection)]
        for name in names:
            if fnmatch.fnmatchcase(name, pattern):
                print(name)

    def do_add(self, words: list[Word]) -> None:
        (word,) = exactly(1, words)
        fmri = Fmri.parse(f"{self.selection}:{word.text}" if self.selection else f"svc:/{word.text}")
        if fmri is None:
            self.die(f'Invalid name "{word.text}".')
        self.opened.add(fmri)
        self.poke()

    def do_delete(self, words: list[Word]) -> None:
        force = words[:1] == [Word("-f")]
        (word,) = exactly(1, words[force:])
        fmri = self.entity(word.text)
        for one in self.opened.instances():
            if fmri in (one, one.parent) and not force:
                state = self.opened.value(one, "restarter/state")
                if state in ("online", "degraded"):
                    self.die(f"Instance {one} is in {state} state.")
        self.opened.remove(fmri)
        self.poke()

    # Properties

    def do_listpg(self, words: list[Word]) -> None:
        pattern = words[0].text if words else "*"
        groups = {
            name: group for name, group in self.opened.groups(self.chosen).items() if fnmatch.fnmatchcase(name, pattern)
        }
        self.columns(
            [(name, group.type, "" if group.persistent else "NONPERSISTENT") for name, group in groups.items()]
        )

    def do_listprop(self, words: list[Word]) -> None:
        pattern = words[0].text if words else "*"
        rows = []
        for name, group in self.opened.groups(self.chosen).items():
            if fnmatch.fnmatchcase(name, pattern):
                rows.append((name, group.type, "" if group.persistent else "NONPERSISTENT"))
            for key, one in group.properties.items():
                if fnmatch.fnmatchcase(f"{name}/{key}", pattern):
                    values = " ".join(_shown(value, one.type, len(one.values) > 1) for value in one.values)
                    rows.append((f"{name}/{key}", one.type, values))
        self.columns(rows)

    @staticmethod
    def columns(rows: list[tuple[str, str, str]]) -> None:
        widths = [max((len(row[index]) for row in rows), default=0) for index in (0, 1)]
        for row in rows:
            print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}} {row[2]}".rstrip())

    def do_addpg(self, words: list[Word]) -> None:
        if len(words) not in (2, 3):
            raise SyntaxFault
        name = words[0].text
        if name in self.opened.groups(self.chosen):
            self.die(f'The "{name}" property group already exists.')
        persistent = len(words) < 3 or "P" not in words[2].text
        self.opened.put(self.chosen, name, Group(words[1].text, persistent=persistent))

    def do_delpg(self, words: list[Word]) -> None:
        (word,) = exactly(1, words)
        self.group(word.text)
        self.opened.drop(self.chosen, word.text)

    def group(self, name: str) -> Group:
        groups = self.opened.groups(self.chosen)
        if name not in groups:
            self.die(f'No such property group "{name}".')
        return groups[name]

    def do_setprop(self, words: list[Word]) -> None:
        path, kind, values = _assignment(words)
        name, key = self.path(path)
        group = self.group(name)
        have = group.properties.get(key)
        if kind is None:
            if have is None:
                self.die("Type required for new properties.")
            kind = have.type
        if kind not in TYPES:
            self.die(f'Unknown type "{kind}".')
        if have is not None and have.type != kind:
            self.die(f'Property "{path}" has type "{have.type}", not "{kind}".')
        for value in values:
            try:
                manifest.check_value(kind, value)
            except manifest.ManifestError as bad:
                self.die(str(bad))
        group.properties[key] = Property(kind, tuple(values))
        self.opened.put(self.chosen, name, group)
        if path == "general/enabled":
            self.poke()

    def do_addpropvalue(self, words: list[Word]) -> None:
        name, key = self.path(words[0].text if words else "")
        have = self.group(name).properties.get(key)
        kind = words[1].text.rstrip(":") if len(words) == 3 else have.type if have else None
        if kind is None:
            self.die("Type required for new properties.")
        self.do_setprop(
            [
                words[0],
                Word("="),
                Word(f"{kind}:"),
                Word("("),
                *(Word(value, True) for value in (*(have.values if have else ()), words[-1].text)),
                Word(")"),
            ]
        )

    def do_delprop(self, words: list[Word]) -> None:
        (word,) = exactly(1, words)
        if "/" not in word.text:
            self.do_delpg(words)
            return
        name, key = self.path(word.text)
        group = self.group(name)
        if group.properties.pop(key, None) is None:
            self.die(f'No such property "{word.text}".')
        self.opened.put(self.chosen, name, group)

    def path(self, path: str) -> tuple[str, str]:
        name, slash, key = path.partition("/")
        if not slash or not key:
            raise SyntaxFault
        return name, key

    def do_listsnap(self, _words: list[Word]) -> None:
        for name in ("initial", "last-import", "running", "start"):
            if self.opened.has_snapshot(self.chosen, name):
                print(name)

    def do_refresh(self, words: list[Word]) -> None:
        exactly(0, words)
        if not self.chosen.instance:
            raise SyntaxFault
        if self.alternate:
            self.opened.take_snapshot(self.chosen, "running")
        else:
            ask(self.opened, self.chosen, "refresh")
        self.poke()


def commands(text: str) -> Iterator[tuple[int, list[Word]]]:
    """Split into commands as svccfg.l does, each with the number of its line; a quoted string may hold line ends."""
    words: list[Word] = []
    at, number = 0, 1
    while match := _TOKEN.match(text, at):
        at = match.end()
        if match["string"] is not None:
            words.append(Word(re.sub(r"\\(.)", r"\1", match["string"][1:-1], flags=re.DOTALL), True))
        elif match["sign"] == "\n":
            if words:
                yield number, words
            words = []
        elif match["sign"] or match["word"]:
            words.append(Word(match["sign"] or match["word"]))
        number += match[0].count("\n")
    if at < len(text):
        raise SyntaxFault
    if words:
        yield number, words


def exactly(count: int, words: list[Word]) -> list[Word]:
    if len(words) != count:
        raise SyntaxFault
    return words


def _assignment(words: list[Word]) -> tuple[str, str | None, list[str]]:
    """``pg/name = [type:] value`` or ``pg/name = [type:] ( values )``."""
    if len(words) < 3 or words[1] != Word("="):
        raise SyntaxFault
    rest = words[2:]
    kind = None
    if not rest[0].quoted and rest[0].text.endswith(":") and len(rest) > 1:
        kind, rest = rest[0].text[:-1], rest[1:]
    if rest[0] == Word("("):
        if rest[-1] != Word(")"):
            raise SyntaxFault
        rest = rest[1:-1]
    elif len(rest) != 1:
        raise SyntaxFault
    if any(word.text in "()=>" and not word.quoted for word in rest):
        raise SyntaxFault
    return words[0].text, kind, [word.text for word in rest]


def _shown(value: str, kind: str, several: bool) -> str:
    """A value as listprop prints it: in double quotes where it could be misread."""
    if kind in ("astring", "ustring", "opaque") and (several or not value or re.search(r'[ \t\n"\\();]', value)):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return value


def main() -> None:
    raise SystemExit(Svccfg().run(sys.argv[1:]))
