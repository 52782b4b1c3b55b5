# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps the engine apart from the services: it names none, and what it decides is not hidden in variables."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SERVICES = PROJECT / "services"
BUDGET, COLUMNS = 140, 120
"""Lines of a service's file, each counted as often as it would be broken at so many columns: density is no way out."""

EXCEPTIONS: dict[str, str] = {
    "roles/identity/tasks/*": "about OpenStack's identity: Keystone's API registers all others",
    "roles/cloud/tasks/*": "logs in at Keystone, as everybody does",
    "roles/openstack_service/templates/*": "how a person logs in at Keystone",
    "group_vars/zones.yml": "the administrator's password in Keystone",
    "plugins/modules/keystone_bootstrap.py": "about OpenStack's identity",
    "plugins/modules/guest_probe.py": "about instances: which zones to look in when one does not answer",
    "plugins/module_utils/verify/*": "about instances: the same, and Tempest's configuration, whose sections are named after projects",
    "plugins/module_utils/cloud/*": "about OpenStack's APIs",
    "plugins/plugin_utils/topology/regions.py": "about OpenStack's identity: regions share a Keystone",
    "plugins/plugin_utils/topology/compute.py": "about OpenStack's identity: the URL of a Keystone that is shared",
    "plugins/filter/stack.py": "about OpenStack's identity: the catalog entry of a Keystone that is shared",
    "plugins/modules/svcadm.py": "`log` is a field of an SMF service's state, svcs(1)",
    "plugins/module_utils/image/store.py": "`log` is a folder",
}
"""Files of the engine that may name a service, and why; docs/explanation/architecture.md says the same in prose."""


def names() -> list[str]:
    """The services, and those of their components that have names of their own."""
    folders = [path.parent.name for path in SERVICES.glob("*/service.yml")]
    text = "\n".join(path.read_text() for path in SERVICES.glob("*/service.yml"))
    components = re.findall(r"(?m)^  ([a-z]+_[a-z_]+):$", text)
    own = [f"{path.parent.name}_{path.stem}" for path in SERVICES.glob("*/*.yml") if path.name != "service.yml"]
    return sorted({*folders, *own, *(name for name in components if name.split("_")[0] in folders)})


def named(text: str, services: list[str]) -> list[str]:
    """Lines of YAML or a template, without comments and task names, that name a service."""
    word = re.compile(rf"(?<![\w/-])({'|'.join(services)})(?![\w/-])")
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())
    return [line.strip() for line in lines if word.search(line) and not line.strip().startswith("- name:")]


def quoted(text: str, services: list[str]) -> list[str]:
    """Lines of Python with a service's name as a string."""
    word = re.compile(rf"[\"']({'|'.join(services)})[\"']")
    return [line.strip() for line in text.splitlines() if word.search(line)]


def without_reason(text: str) -> list[str]:
    """Lines that read other hosts' variables and have no comment on the lines just above that says why."""
    lines, found = text.splitlines(), []
    for number, line in enumerate(lines):
        above = "".join(lines[max(0, number - 3) : number])
        if "hostvars" in re.sub(r"#.*", "", line) and "hostvars" not in "".join(re.findall(r"#.*", above)):
            found.append(line.strip())
    return found


def budget(text: str) -> int:
    """Lines, each counted as often as it would be broken."""
    return sum(max(1, math.ceil(len(line) / COLUMNS)) for line in text.splitlines())


def engine(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in PROJECT.glob(pattern) if path.is_file())


def excepted(path: Path) -> bool:
    return any(path.relative_to(PROJECT).match(pattern) for pattern in EXCEPTIONS)


YAML = engine("playbooks/**/*.yml", "roles/*/tasks/*.yml", "roles/*/vars/*.yml", "roles/*/defaults/*.yml", "roles/*/templates/*", "group_vars/*.yml")  # fmt: skip
PYTHON = engine("plugins/plugin_utils/**/*.py", "plugins/module_utils/**/*.py", "plugins/action/*.py", "plugins/inventory/*.py", "plugins/filter/*.py", "plugins/modules/*.py")  # fmt: skip


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_playbook_names_a_service(path: Path) -> None:
    assert excepted(path) or named(path.read_text(), names()) == []


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_plugin_names_a_service(path: Path) -> None:
    assert excepted(path) or quoted(path.read_text(), names()) == []


def test_each_exception_is_needed() -> None:
    found = {path: named(path.read_text(), names()) for path in YAML} | {
        path: quoted(path.read_text(), names()) for path in PYTHON
    }
    used = [path.relative_to(PROJECT) for path, lines in found.items() if lines]
    assert [pattern for pattern in EXCEPTIONS if not any(path.match(pattern) for path in used)] == []


@pytest.mark.parametrize("path", engine("playbooks/**/*.yml", "roles/**/*.yml", "group_vars/*.yml", "services/**/*.yml"), ids=lambda path: str(path.relative_to(PROJECT)))  # fmt: skip
def test_decisions_are_made_in_python(path: Path) -> None:
    text = path.read_text()
    assert "set_fact" not in text
    assert without_reason(text) == []


def test_a_role_reads_nothing_that_a_playbook_registers() -> None:
    """It gets it as one of its options."""
    registered = {
        name for path in engine("playbooks/**/*.yml") for name in re.findall(r"register: (\w+)", path.read_text())
    }
    roles = {path: set(re.findall(r"\b__\w+", path.read_text())) & registered for path in engine("roles/**/*.yml")}
    own = {
        path: set(
            re.findall(r"register: (\w+)", "".join(other.read_text() for other in engine(f"roles/{path.parts[-3]}/**/*.yml")))
        )
        for path in roles
    }  # fmt: skip
    assert {path.name: used - own[path] for path, used in roles.items() if used - own[path]} == {}


@pytest.mark.parametrize("path", engine("services/*.yml", "services/*/*.yml"), ids=lambda path: str(path.relative_to(PROJECT)))  # fmt: skip
def test_a_services_file_is_short(path: Path) -> None:
    assert budget(path.read_text()) <= BUDGET


def test_the_rules_see_what_breaks_them() -> None:
    assert named("  hosts: galera", ["galera"]) and named("{{ groups.galera }}", ["galera"])
    assert named("when: \"'glance' in stack.services\"", ["glance"])
    assert not named("# galera has two", ["galera"]) and not named("url: /v3/galera/x", ["galera"])
    assert quoted('if name == "galera":', ["galera"]) and not quoted("galera = 1", ["galera"])
    assert without_reason("a: 1\nb: \"{{ x | map('extract', hostvars) }}\"")
    assert not without_reason("# hostvars: because\nb: \"{{ x | map('extract', hostvars) }}\"")
    assert budget("x" * 121) == 2 and budget("") == 0
