# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Confirm a change of a host's networks over a connection made after it, or tell that it was taken back; see the module of the same name."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

MODULE = "zonestack.openstack.host_links"
DEFAULT_LIMIT = 60
TAKING_BACK = 120
"""Seconds that a host is given to begin with a change, and to take it back."""
PAUSE = 1.0
"""Seconds between two questions."""


class ActionModule(ActionBase):
    """One call of the module where nothing is to be changed."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Have the change made, and see to its end."""
        super().run(tmp, task_vars)
        self.vars = task_vars
        result = self.step("apply")
        if result.get("failed") or result.get("phase") != "waiting":
            return result
        limit = int(self._task.args.get("limit", DEFAULT_LIMIT))
        deadline = time.monotonic() + limit + TAKING_BACK
        found: dict[str, t.Any] = {}
        seen, lacks = False, list[str]()
        while time.monotonic() < deadline:
            time.sleep(PAUSE)
            try:
                # What was connected before the change says nothing of whether one can connect after it.
                if self._connection.transport != "local":
                    self._connection.reset()
                found = self.step("confirm" if seen else "look")
            except AnsibleConnectionFailure as silence:
                found = {"silence": str(silence)}
                continue
            if found.get("failed"):
                return found
            if found["phase"] == "none":
                return {**result, "phase": "none", "lacks": []}
            if found["phase"] == "refused":
                cause = f"these were not as described: {'; '.join(lacks)}" if lacks else "the host was reached too late"
                cause = cause if seen else "the host was not reached with the new networks"
                return {**result, "changed": False, "failed": True, "phase": "refused", "lacks": lacks, "msg": (
                    f"host networks: the change was taken back, {found['why']}: {cause}. The host has its former networks; "
                    "correct links: in topology.yml, or the switch, and run again"
                )}  # fmt: skip
            if found["phase"] == "applied":
                seen, lacks = True, found["lacks"]
        return {**result, "failed": True, "phase": "unknown", "msg": (
            f"host networks: the host does not answer {limit + TAKING_BACK} s after a change, and had taken it back by then "
            f"({found.get('silence') or 'it waits still'}): look at its console, `journalctl -u zonestack-links-change`"
        )}  # fmt: skip

    def step(self, name: str) -> dict[str, t.Any]:
        """One call of the module."""
        arguments = {**self._task.args, "step": name}
        return t.cast(
            "dict[str, t.Any]", self._execute_module(module_name=MODULE, module_args=arguments, task_vars=self.vars)
        )
