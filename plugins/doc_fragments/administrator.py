# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that ask OpenStack's APIs as an administrator; module_utils/cloud/administrator.py has the same as a spec."""

from __future__ import annotations


class ModuleDocFragment:
    """Who asks, and whom."""

    DOCUMENTATION = r"""
options:
  auth:
    description: How to log in as an administrator.
    type: dict
    required: true
    suboptions:
      url:
        description: Identity API with its version, for example V(https://10.77.0.5:5000/v3).
        type: str
        required: true
      username:
        description: Name of the administrator.
        type: str
        default: admin
      password:
        description: The administrator's password.
        type: str
        required: true
      project:
        description: The administrator's project. What belongs to the cloud as a whole, such as its images, belongs to it.
        type: str
        default: admin
      user_domain:
        description: Id of the administrator's domain.
        type: str
        default: default
      project_domain:
        description: Id of the domain of the administrator's project.
        type: str
        default: default
  ca:
    description: File with the authority that the APIs' certificates are checked against.
    type: path
  region:
    description: Region whose services are meant.
    type: str
    required: true
"""
