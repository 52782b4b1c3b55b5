#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: identity_registry
short_description: Catalog, projects, roles and service users of all services in Keystone, in one call
version_added: 0.1.0
description:
  - Reads what Keystone holds with a handful of requests, computes the difference and writes only that, in parallel where
    the parts do not depend on one another.
  - Each user is tried with its password; a user that gets a token for its project with its roles costs that one request.
  - Nothing is removed but endpoints of the named services in the named region that are duplicate or not asked for.
  - Needs nothing but Python's standard library.
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.administrator]
attributes:
  check_mode:
    support: full
    description: Everything is read, nothing is changed.
  diff_mode:
    support: full
    description: Shows catalog, projects, roles and users; of a password only that it changes.
options:
  domain:
    description: Id of the domain that projects and users belong to.
    type: str
    default: default
  services:
    description: Catalog entries.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      type:
        description: Type of the service; one service of each type.
        type: str
        required: true
      description:
        description: A line for people.
        type: str
        default: ""
      endpoints:
        description: Addresses by interface (C(public), C(internal), C(admin)).
        type: dict
        required: true
  projects:
    description: Projects that must exist, beside those of O(users).
    type: list
    elements: str
    default: []
  roles:
    description: Roles that must exist, beside those of O(users).
    type: list
    elements: str
    default: []
  users:
    description: Users that must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      password:
        description: The user's password.
        type: str
        required: true
      project:
        description: Project that the user has its roles in.
        type: str
        required: true
      roles:
        description: Roles in the project.
        type: list
        elements: str
        required: true
      domain:
        description: Id of the user's domain, default O(domain).
        type: str
  wait:
    description: Seconds to wait for the API.
    type: int
    default: 60
  parallel:
    description: Number of requests at a time.
    type: int
    default: 8
"""

EXAMPLES = r"""
- name: Register Placement
  zonestack.openstack.identity_registry:
    auth: {url: "https://10.77.0.5:5000/v3", password: "{{ secrets.keystone.admin_password }}"}
    ca: /etc/zonestack/tls/ca.crt
    region: RegionOne
    services:
      - name: placement
        type: placement
        endpoints: {public: "https://cloud.example.net:8778", internal: "https://10.77.0.5:8778"}
    users:
      - {name: placement, password: "{{ secrets.identity.placement }}", project: service, roles: [service]}
"""

RETURN = r"""
actions:
  description: What was done (in check mode would be), in words.
  type: list
  elements: str
  returned: always
  sample: [create service placement, create public endpoint of placement]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.administrator import OPTIONS
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.registry import register
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import ApiError, NotReady


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "domain": {"type": "str", "default": "default"},
            "services": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "type": {"type": "str", "required": True},
                    "description": {"type": "str", "default": ""},
                    "endpoints": {"type": "dict", "required": True},
                },
            },
            "projects": {"type": "list", "elements": "str", "default": []},
            "roles": {"type": "list", "elements": "str", "default": []},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "project": {"type": "str", "required": True},
                    "roles": {"type": "list", "elements": "str", "required": True},
                    "domain": {"type": "str"},
                },
            },
            "wait": {"type": "int", "default": 60},
            "parallel": {"type": "int", "default": 8},
        },
        supports_check_mode=True,
    )
    try:
        result = register(module.params, module.check_mode)
    except (ApiError, NotReady, OSError, ValueError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
