# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the cloud first, and bring only the image files that it lacks; see the module of the same name."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

MODULE = "zonestack.openstack.cloud_contents"


class ActionModule(ActionBase):
    """One round trip when no file has to be brought, which is nearly always."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Call the module; where it asks for files, bring them and call it again."""
        super().run(tmp, task_vars)
        here: dict[str, str] = self._task.args.get("files") or {}
        arguments = {**self._task.args, "files": {}}
        result: dict[str, t.Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        needs = result.get("needs")
        if result.get("failed") or not needs or self._task.check_mode:
            return result
        # Files come into a folder of their own below Ansible's remote_tmp, which is gone when the task ends.
        folder = self._make_tmp_path()
        try:
            arguments["files"] = {
                name: self._transfer_file(here[name], self._connection._shell.join_path(folder, f"image-{number}"))
                for number, name in enumerate(needs)
            }
            return t.cast(
                "dict[str, t.Any]",
                self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars),
            )
        finally:
            self._remove_tmp_path(folder)
