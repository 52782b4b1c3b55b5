# SPDX-License-Identifier: GPL-3.0-or-later
"""What explains a difference: parity.yml, and a site's own rules."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from deployment import DeploymentError
from parse import kinds

RULES = Path(__file__).parents[1] / "parity.yml"
CLASSES = ("drift", "scale", "identity")
UNEXPLAINED = "no rule explains it"
Raw = dict[str, Any]


class Rules:
    """parity.yml, with a site's own rules before ours."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.topology: list[Raw] = []
        self.keys: list[Raw] = []
        self.backends: list[Raw] = []
        self.features: list[Raw] = []
        self.identity: dict[str, str] = {}
        self.consequence: Raw = {}
        for path in paths:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as why:
            raise DeploymentError(f"--rules {path}: cannot be read: {why}") from None
        known = yaml.safe_load(RULES.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or set(data) - set(known):
            raise DeploymentError(f"--rules {path}: must be a mapping with these keys: {', '.join(known)}")
        for name, pattern in (("topology", "path"), ("keys", "key"), ("backends", "key"), ("features", "feature")):
            for index, rule in enumerate(data.get(name) or []):
                if not isinstance(rule, dict) or not {pattern, "class", "why"} <= set(rule) <= {
                    pattern,
                    "class",
                    "why",
                    "file",
                    "component",
                }:
                    raise DeploymentError(
                        f"--rules {path}: {name}[{index}]: write {{{pattern}: .., class: .., why: ..}}"
                    )
                if rule["class"] not in CLASSES:
                    raise DeploymentError(
                        f"--rules {path}: {name}[{index}].class: {rule['class']!r} is none of {', '.join(CLASSES)}"
                    )
            getattr(self, name).extend(data.get(name) or [])
        self.identity = {**(data.get("identity") or {}), **self.identity}
        self.consequence = self.consequence or data.get("consequence") or {}

    def input(self, path: tuple[str, ...]) -> Raw | None:
        """The rule for a key of topology.yml, whether it is for the key itself or for what the key is in."""
        for rule in self.topology:
            words = rule["path"].split(".")
            if len(words) <= len(path) and all(map(fnmatchcase, path, words)):
                return rule
        return None

    def key(self, component: str, file: str, key: str) -> Raw | None:
        """The rule for a key of a file."""
        return self._of_file(self.keys, component, file, key)

    def backend(self, component: str, file: str, key: str) -> Raw | None:
        """The rule for a key of a file that zones of one backend have otherwise."""
        return self._of_file(self.backends, component, file, key)

    @staticmethod
    def _of_file(rules: Iterable[Raw], component: str, file: str, key: str) -> Raw | None:
        for rule in rules:
            if (
                fnmatchcase(component, rule.get("component", "*"))
                and fnmatchcase(file, rule.get("file", "*"))
                and fnmatchcase(key, rule["key"])
            ):
                return rule
        return None

    def feature(self, name: str) -> Raw:
        """The rule for a feature; one that no rule knows is drift."""
        found = next((rule for rule in self.features if fnmatchcase(name, rule["feature"])), None)
        return found or {"class": "drift", "why": "no rule explains it"}

    def identities(self, meaning: str) -> str:
        """What a value holds that belongs to one deployment alone, in words."""
        return "; ".join(self.identity[kind] for kind in kinds(meaning) if kind in self.identity)


def explained(rule: Raw | None, both: bool) -> bool:
    """Whether a rule explains a difference. One that ends in ``*`` is for what entries hold, not for which there are."""
    return bool(rule and rule["class"] != "drift" and (both or not rule["path"].endswith("*")))
