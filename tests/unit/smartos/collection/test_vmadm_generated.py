# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated descriptions: whatever is asked, a payload is accepted, the outcome is the predicted one, and a run ends.

A few hundred by fixed seeds; SMARTOS_DESIRED=5000 makes as many of one seed, SMARTOS_SEED.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from desired_states import BRANDS, make_host, run

LONG = int(os.environ.get("SMARTOS_DESIRED") or 0)
SEEDS = [int(os.environ.get("SMARTOS_SEED") or 1)] if LONG else [1, 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_generated_descriptions_are_refused_early_or_brought_about(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTOS_SIM_STATE", str(tmp_path))
    make_host(tmp_path)
    tally = run(seed, LONG or 150)
    print(
        f"{sum(tally.ends.values())} descriptions, {tally.payloads} payloads: {dict(tally.ends)}, {dict(tally.brands)}"
    )
    assert not tally.faults, "\n\n".join(tally.faults)
    assert set(tally.ends) == {"converged", "refused"}
    assert set(tally.brands) == set(BRANDS)
