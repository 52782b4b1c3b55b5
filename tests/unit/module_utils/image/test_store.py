# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which images are built."""

from __future__ import annotations

from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import Recipe
from ansible_collections.zonestack.openstack.plugins.module_utils.image.store import by_children


def test_what_most_others_stand_on_is_built_first() -> None:
    parents = {"galera": "base", "keystone": "python", "python": "base", "nova": "python", "base": None, "log": "base"}
    recipes = [Recipe(f"{name}-0", name, parent and f"{parent}-0") for name, parent in parents.items()]
    assert [one.name for one in by_children(recipes)] == ["base", "python", "galera", "keystone", "nova", "log"]
