# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of imgadm, which are known by their codes."""

from __future__ import annotations

from .files import ToolError

NOT_FOUND = ("ImageNotInstalled", "OriginNotInstalled")


class ImgError(ToolError):
    """One of imgadm's errors, known by its code."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.code = 3 if name in NOT_FOUND else 1
