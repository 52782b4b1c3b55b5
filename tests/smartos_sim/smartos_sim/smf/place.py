# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an SMF lives: the root of a zone, its files, and the pipe that wakes its svc.startd."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .repository import Repository

#: The root directory of the zone in which a tool runs; tests and the simulator set it.
ROOT_VARIABLE = "SMARTOS_SIM_ROOT"


@dataclass(frozen=True)
class Place:
    """One zone's SMF."""

    root: Path

    @classmethod
    def here(cls) -> Place:
        """The zone in which this process runs."""
        return cls(Path(os.environ.get(ROOT_VARIABLE) or "/"))

    def zone(self, name: str) -> Place:
        """A zone of this global zone, by its name."""
        return Place(self.root / "zones" / name / "root")

    def path(self, absolute: str) -> Path:
        """A path of the zone, as this process reaches it."""
        return self.root / absolute.lstrip("/")

    @property
    def repository_file(self) -> Path:
        return self.path("/etc/svc/repository.db")

    @property
    def volatile(self) -> Path:
        """What only a running svc.startd has."""
        return self.path("/etc/svc/volatile")

    @property
    def pipe(self) -> Path:
        return self.volatile / "startd.fifo"

    @property
    def zonename(self) -> str:
        """The name that svc.startd was given; ``global`` before it ran."""
        try:
            return (self.volatile / "zonename").read_text().strip()
        except FileNotFoundError:
            return "global"

    def repository(self, create: bool = False) -> Repository:
        return Repository(self.repository_file, create)

    def poke(self) -> bool:
        """Tell svc.startd that the repository has changed; False where none runs."""
        try:
            pipe = os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            os.write(pipe, b"!")
        except BlockingIOError:
            pass  # it is full of wishes to be woken already
        finally:
            os.close(pipe)
        return True
