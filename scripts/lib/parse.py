# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration files of any format as keys with values, and values with what they stand for in place of names and addresses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

COMMENTS = ("#", ";", "%%", "//")
SECTION = re.compile(r"\[([^\[\]]+)\]")
ASSIGNMENT = re.compile(r"""(?:export\s+)?["']?([\w.@/$‹·›-]+)["']?\s*[:=]\s*(.*)""")
PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----\n.*?-----END \1-----\n?", re.DOTALL)


@dataclass(frozen=True)
class Value:
    """One value of a key: as it is written, and ``meaning``, the same for every deployment that means the same."""

    text: str
    meaning: str
    secret: bool = False

    def shown(self) -> str:
        return "(secret)" if self.secret else self.text


Settings = dict[str, list[Value]]
"""Values by key; a key that stands in several lines has several."""


class Symbols:
    """Puts what a text stands for in place of names, addresses and secrets: ``‹address·galera·1›`` for 10.77.2.16.

    :param known: text to its kind (see ``identity`` of parity.yml) and what it stands for.
    """

    def __init__(self, known: Mapping[str, tuple[str, str]]) -> None:
        self.known = {text: f"‹{kind}·{what}›" for text, (kind, what) in known.items() if text}
        words = sorted(map(re.escape, self.known), key=len, reverse=True)
        # Not within a longer name, number or address.
        self.pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(words)})(?![\w-]|\.\w)") if words else None

    def __call__(self, text: str) -> str:
        found = self.pattern.sub(lambda match: self.known[match[0]], text) if self.pattern else text
        found = re.sub(r"‹certificate·\w*›", "‹certificate·›", found)
        # The way in may have one name or two.
        return re.sub(r"(‹entry·›)(?:\W{1,4}\1)+", r"\1", found)


def kinds(meaning: str) -> list[str]:
    """The kinds of what a meaning holds."""
    return list(dict.fromkeys(re.findall(r"‹(\w+)·", meaning)))


def without_pem(text: str, symbols: Symbols) -> str:
    """A text with a line that describes each PEM block in its place."""
    return PEM.sub(lambda match: f"{match[1].lower().replace(' ', '_')} = {_described(match, symbols)}\n", text)


def _described(match: re.Match[str], symbols: Symbols) -> str:
    mark = f"‹certificate·{hashlib.sha256(match[0].encode()).hexdigest()[:8]}›"
    if match[1] != "CERTIFICATE":
        return mark
    from cryptography import x509

    found = x509.load_pem_x509_certificate(match[0].encode())
    names: list[str] = []
    usages: list[str] = []
    for extension in found.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += [str(name.value) for name in extension.value]
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            usages += [str(usage._name) for usage in extension.value]
    subject = ", ".join(str(attribute.value) for attribute in found.subject)
    days = (found.not_valid_after_utc - found.not_valid_before_utc).days
    # In the order of what they stand for, which is the same in every deployment.
    return f"{subject}, for {' '.join(sorted(names, key=symbols)) or 'nobody'}, as {' '.join(usages) or 'authority'}, {days} days {mark}"


def settings(text: str, symbols: Symbols, secret: bool = False) -> Settings:
    """The keys of a file in their order, whatever its format: INI, systemd, JSON, YAML, nftables, HAProxy, Python ...

    A key is an assignment's left side, otherwise the first word of its line; the lines that it is indented below, or its
    section, stand before it. So a format may be misunderstood, but no line that differs is lost. Comments do not count.
    """
    found: Settings = {}
    above: list[tuple[int, str]] = []
    section = ""
    raw = without_pem(text, symbols).splitlines()
    for line, plain in zip([symbols(one) for one in raw], raw, strict=True):
        bare = line.strip()
        if not bare or bare.startswith(COMMENTS):
            continue
        if match := SECTION.fullmatch(bare):
            section, above = match[1], []
            continue
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] >= indent:
            above.pop()
        match = ASSIGNMENT.match(bare)
        key, value = (match[1], match[2]) if match else (bare.partition(" ")[0], bare.partition(" ")[2])
        path = [*([f"[{section}]"] if section else []), *(name for _indent, name in above), key]
        matched = ASSIGNMENT.match(plain.strip())
        shown = matched[2] if match and matched else plain.strip()
        found.setdefault(" ".join(path), []).append(Value(shown, value, secret))
        above.append((indent, key if match else bare))
    return found


def leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """The values of nested mappings by dotted path; a list is one value."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
