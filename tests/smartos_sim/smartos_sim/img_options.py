# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of imgadm's subcommands."""

from __future__ import annotations

import re
import typing as t

from .img_error import ImgError
from .validate import UUID

FLAGS: dict[str, dict[str, str]] = {
    "sources": {"a=": "add", "d=": "delete", "t=": "type", "k": "insecure", "f": "force", "j": "json", "v": "verbose",
                "c": "check", "e": "edit", "add-docker-hub": "add_docker_hub"},
    "avail": {"j": "json", "H": "bare", "o=": "order", "s=": "sort"},
    "list": {"j": "json", "H": "bare", "o=": "order", "s=": "sort", "docker": "docker"},
    "show": {},
    "get": {"P=": "pool", "r": "recursive"},
    "import": {"P=": "pool", "S=": "source", "q": "quiet", "C=": "channel"},
    "install": {"P=": "pool", "m=": "manifest", "f=": "file", "q": "quiet"},
    "create": {"i": "incremental", "c=": "compression", "o=": "output", "s=": "script", "m=": "manifest", "p=": "publish",
               "q": "quiet", "max-origin-depth=": "depth"},
    "delete": {"P=": "pool"},
    "vacuum": {"n": "dry_run", "f": "force"},
    "update": {"n": "dry_run"},
    "ancestry": {"P=": "pool", "j": "json", "H": "bare", "o=": "order"},
    "publish": {"m=": "manifest", "f=": "file", "q": "quiet"},
}  # fmt: skip
"""Per subcommand, its options by letter or long name (with = where it takes a value) and what they are called here."""

LONG = {"a": "add", "d": "delete", "t": "type", "k": "insecure", "f": "force", "j": "json", "v": "verbose", "c": "check",
        "e": "edit", "H": "bare", "n": "dry-run", "P": "zpool", "S": "source", "q": "quiet", "i": "incremental",
        "m": "manifest", "p": "publish", "s": "script", "o": "output-template", "r": "recursive"}  # fmt: skip
LONG_OF = {("create", "c"): "compression", ("avail", "s"): "sort", ("list", "s"): "sort", ("install", "f"): "file",
           ("publish", "f"): "file", ("avail", "o"): "order", ("list", "o"): "order", ("ancestry", "o"): "output", ("import", "C"): "channel"}  # fmt: skip
ALIASES = {"destroy": "delete", "available": "avail", "info": "get"}
NUMBERS = ("depth",)


def parse(command: str, words: t.Sequence[str]) -> tuple[dict[str, t.Any], list[str]]:
    """Options and arguments; unknown options and missing values are refused."""
    known: dict[str, tuple[str, bool]] = {}
    for flag, name in FLAGS[command].items():
        letter = flag.rstrip("=")
        entry = (name, flag.endswith("="))
        if len(letter) == 1:
            known[f"-{letter}"] = entry
            known["--" + LONG_OF.get((command, letter), LONG.get(letter, name))] = entry
        else:
            known[f"--{letter}"] = entry
    known["-h"] = known["--help"] = ("help", False)
    options: dict[str, t.Any] = {}
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return options, rest + left
        if len(word) < 2 or word[0] != "-":
            rest.append(word)
            continue
        flag, mark, text = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if flag not in known:
            raise ImgError("Option", f'unknown option: "{flag}"')
        name, valued = known[flag]
        if not valued:
            options[name] = True
            if text and not mark:
                left.insert(0, f"-{text}")
        elif mark or text:
            options[name] = text
        elif left:
            options[name] = left.pop(0)
        else:
            raise ImgError("Option", f'do not have enough args for "{flag}" option')
        if name in NUMBERS and not re.fullmatch(r"\d+", str(options[name])):
            raise ImgError("Option", f'arg for "{flag}" is not a positive integer: "{options[name]}"')
    return options, rest


def count_words(words: list[str], *right: int) -> None:
    if len(words) not in right:
        raise ImgError("Usage", f'incorrect number of args ({len(words)}): "{" ".join(words)}"')


def uuid_of(text: t.Any) -> str:
    if not isinstance(text, str) or not UUID.fullmatch(text):
        raise ImgError("InvalidUUID", f'invalid uuid: "{"undefined" if text is None else text}"')
    return text
