# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ``ansible_collections.zonestack.openstack`` importable from a checkout that lies anywhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

CHECKOUT = Path(__file__).resolve().parent.parent

# Ansible finds a collection by its folder's name, so the checkout is linked under the name that it has when installed.
_link_root = tempfile.TemporaryDirectory(prefix="zonestack-collections-")
_namespace = Path(_link_root.name, "ansible_collections", "zonestack")
_namespace.mkdir(parents=True)
(_namespace / "openstack").symlink_to(CHECKOUT)
_AnsibleCollectionFinder(paths=[_link_root.name], scan_sys_paths=False)._install()
