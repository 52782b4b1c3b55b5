# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance as svc.startd knows it, and what of it stands in the repository: its state, its configuration, what is asked of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import graph
from .contract import Contract
from .fmri import Fmri
from .repository import Repository


@dataclass
class Instance:
    """What svc.startd knows of one instance."""

    fmri: Fmri
    state: str = "uninitialized"
    next_state: str = "none"
    auxiliary: str = "none"
    enabled: bool = False
    style: str = "contract"
    dependencies: tuple[graph.Dependency, ...] = ()
    contract: Contract | None = None  # of a service that runs
    starting: Contract | None = None  # of a start method that runs
    events: list[Callable[[], None]] = field(default_factory=list)
    on_empty: Callable[[], None] | None = None
    starts: list[float] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    faults: int = 0
    not_before: float = 0.0

    @property
    def started(self) -> bool:
        return self.state in graph.STARTED

    @property
    def in_transition(self) -> bool:
        return self.next_state != "none"


def read_configuration(repository: Repository, one: Instance) -> None:
    """What takes effect at a refresh: dependencies and style."""
    groups = repository.composed(one.fmri, "running")
    one.dependencies = graph.dependencies(groups)
    style = (groups["startd"].first("duration") if "startd" in groups else None) or "contract"
    one.style = "child" if style == "wait" else style


def write_state(repository: Repository, one: Instance, keep_time: bool = False) -> None:
    """Put the state of an instance into the repository; ``keep_time``: it has been in this state before."""

    def put(name: str, kind: str, *values: str) -> None:
        repository.set(one.fmri, f"restarter/{name}", kind, *values, persistent=False)

    put("state", "astring", one.state)
    put("next_state", "astring", one.next_state)
    put("auxiliary_state", "astring", one.auxiliary)
    put("logfile", "astring", f"/var/svc/log/{one.fmri.log_name}")
    if not keep_time or one.next_state == "none":
        put("state_timestamp", "time", f"{time.time():.9f}")
    put("contract", "count", *([str(one.contract.id)] if one.contract and not one.contract.empty else []))


def take_actions(repository: Repository, fmri: Fmri) -> list[str]:
    """What svcadm has asked for since the last look, in order."""
    group = repository.groups(fmri).get("restarter_actions")
    if group is None:
        return []
    repository.drop(fmri, "restarter_actions")
    return sorted(group.properties, key=lambda name: int(group.first(name) or 0))
