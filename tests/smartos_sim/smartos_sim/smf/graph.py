# SPDX-License-Identifier: GPL-3.0-or-later
"""Dependencies between instances (smf(7), "Dependencies"): pure functions of what the repository holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .fmri import Fmri
from .repository import Groups

#: Events of a dependency for which restart_on stops those that depend on it.
STOPPED_BY = {
    "none": (),
    "error": ("error",),
    "restart": ("error", "restart"),
    "refresh": ("error", "restart", "refresh"),
}

STARTED = ("online", "degraded")


@dataclass(frozen=True)
class Dependency:
    """One dependency group: ``entities`` are FMRIs, or ``file://localhost/...`` where ``kind`` is path."""

    grouping: str
    restart_on: str
    kind: str
    entities: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """What the graph must know of an instance."""

    state: str
    enabled: bool
    dependencies: tuple[Dependency, ...] = field(default=())


Nodes = Mapping[Fmri, Node]


def dependencies(groups: Groups) -> tuple[Dependency, ...]:
    """The dependency groups among an instance's property groups."""
    return tuple(
        Dependency(
            group.first("grouping") or "require_all",
            group.first("restart_on") or "none",
            group.first("type") or "service",
            group.properties["entities"].values if "entities" in group.properties else (),
        )
        for group in groups.values()
        if group.type == "dependency"
    )


def means(entity: str, nodes: Nodes) -> list[Fmri]:
    """The instances that an FMRI in a dependency means."""
    wanted = Fmri.parse(entity)
    return [one for one in nodes if wanted and wanted in (one, one.parent)]


def _file(entity: str, root: Path) -> bool:
    return (root / entity.removeprefix("file://localhost").removeprefix("file://").lstrip("/")).exists()


def _running(dependency: Dependency, entity: str, nodes: Nodes, root: Path) -> bool:
    if dependency.kind == "path":
        return _file(entity, root)
    return any(nodes[one].state in STARTED for one in means(entity, nodes))


def _may_run(entity: str, nodes: Nodes, root: Path, seen: frozenset[Fmri]) -> bool:
    """Whether an entity runs or will without an administrator's help."""
    return any(has_potential(one, nodes, root, seen) for one in means(entity, nodes))


def has_potential(fmri: Fmri, nodes: Nodes, root: Path, seen: frozenset[Fmri] = frozenset()) -> bool:
    """Whether an instance is online, or will come online without an administrator's help."""
    node = nodes[fmri]
    if node.state in STARTED:
        return True
    if not node.enabled or node.state == "maintenance" or fmri in seen:
        return False
    return all(_can_be(dependency, nodes, root, seen | {fmri}) for dependency in node.dependencies)


def _can_be(dependency: Dependency, nodes: Nodes, root: Path, seen: frozenset[Fmri]) -> bool:
    if dependency.grouping in ("optional_all", "exclude_all"):
        return dependency.grouping == "optional_all" or satisfied(dependency, nodes, root)
    able = [
        _file(entity, root) if dependency.kind == "path" else _may_run(entity, nodes, root, seen)
        for entity in dependency.entities
    ]
    return all(able) if dependency.grouping == "require_all" else any(able)


def satisfied(dependency: Dependency, nodes: Nodes, root: Path) -> bool:
    """Whether a dependency lets its instance start now."""
    running = [_running(dependency, entity, nodes, root) for entity in dependency.entities]
    if dependency.grouping == "require_all":
        return all(running)
    if dependency.grouping == "require_any":
        return any(running) or not running
    if dependency.kind == "path":
        return dependency.grouping == "optional_all" or not any(running)
    may = [_may_run(entity, nodes, root, frozenset()) for entity in dependency.entities]
    if dependency.grouping == "optional_all":
        return all(is_up or not may_run for is_up, may_run in zip(running, may, strict=True))
    return not any(may)


def unsatisfied(fmri: Fmri, nodes: Nodes, root: Path) -> list[Dependency]:
    """The dependencies that keep an instance from starting."""
    return [one for one in nodes[fmri].dependencies if not satisfied(one, nodes, root)]


def depends_on(fmri: Fmri, other: Fmri, nodes: Nodes, but: tuple[str, ...] = ()) -> list[Dependency]:
    """The dependencies of ``fmri`` that name ``other``, without the groupings in ``but``."""
    return [
        one
        for one in nodes[fmri].dependencies
        if one.grouping not in but
        and one.kind != "path"
        and any(other in means(entity, nodes) for entity in one.entities)
    ]


def in_cycle(fmri: Fmri, nodes: Nodes) -> bool:
    """Whether an instance depends, over any number of steps, on itself."""
    seen: set[Fmri] = set()
    todo = [fmri]
    while todo:
        for dependency in nodes[todo.pop()].dependencies:
            if dependency.grouping == "exclude_all" or dependency.kind == "path":
                continue
            for entity in dependency.entities:
                for one in means(entity, nodes):
                    if one == fmri:
                        return True
                    if one not in seen:
                        seen.add(one)
                        todo.append(one)
    return False
