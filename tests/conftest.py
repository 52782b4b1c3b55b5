# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ``ansible_collections.zonestack.openstack`` importable from a checkout that lies anywhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

CHECKOUT = Path(__file__).resolve().parent.parent

# Ansible finds a collection by its folder's name, so the checkout is linked under the name that it has when installed.
_link_root = tempfile.TemporaryDirectory(prefix="zonestack-collections-")
_namespace = Path(_link_root.name, "ansible_collections", "zonestack")
_namespace.mkdir(parents=True)
(_namespace / "openstack").symlink_to(CHECKOUT)
_AnsibleCollectionFinder(paths=[_link_root.name], scan_sys_paths=False)._install()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each integration module on one worker: its tests share a bridge and containers."""
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group(f"integration-{item.path.stem}"))
