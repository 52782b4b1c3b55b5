# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of scripts/lib are no package: they run from their own folder, and so do their tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts" / "lib"))
