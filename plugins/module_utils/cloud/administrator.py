# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that ask OpenStack's APIs as an administrator; doc_fragments/administrator.py describes them."""

from __future__ import annotations

import typing as t

OPTIONS: dict[str, t.Any] = {
    "auth": {
        "type": "dict",
        "required": True,
        "options": {
            "url": {"type": "str", "required": True},
            "username": {"type": "str", "default": "admin"},
            "password": {"type": "str", "required": True, "no_log": True},
            "project": {"type": "str", "default": "admin"},
            "user_domain": {"type": "str", "default": "default"},
            "project_domain": {"type": "str", "default": "default"},
        },
    },
    "ca": {"type": "path"},
    "region": {"type": "str", "required": True},
}
