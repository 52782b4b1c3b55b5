# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of this machine: read where they may be gone, and replaced so that nobody ever sees half of one."""

from __future__ import annotations

import os
from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file, or nothing when it is not there or not readable any more."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file so that a reader, and a call after a crash or a loss of power, sees the old or the new text.

    It has ``mode`` from the beginning, so that nobody reads a secret early. Its folder must be there.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)  # of a call that was killed, with the mode of that time
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), mode)  # whatever the umask says
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, path)
