#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: keystone_bootstrap
short_description: Ensure that Keystone's administrator can log in
version_added: 0.1.0
description:
  - Runs in a keystone zone. Asks the API for a token; when it is refused, C(keystone-manage bootstrap) creates the administrator
    with project and roles, or gives it the password back, and the module asks again.
  - Endpoints are left to M(zonestack.openstack.identity_registry).
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: full
    description: The administrator's log-in is tried, nothing is changed.
  diff_mode:
    support: full
    description: Shows whether the administrator can log in.
options:
  url:
    description: Identity API with its version, for example V(https://10.77.0.5:5000/v3).
    type: str
    required: true
  password:
    description: The administrator's password.
    type: str
    required: true
  username:
    description: The administrator's name.
    type: str
    default: admin
  project:
    description: The administrator's project.
    type: str
    default: admin
  region:
    description: Region that is created.
    type: str
    required: true
  ca:
    description: File with the authority that the API's certificate is checked against.
    type: path
  user:
    description: System user that runs C(keystone-manage).
    type: str
    default: keystone
  command:
    description: The command, as a path.
    type: path
    default: /opt/keystone/bin/keystone-manage
  wait:
    description: Seconds to wait for the API to answer with anything but an error of its own.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Create the administrator
  zonestack.openstack.keystone_bootstrap:
    url: https://10.77.0.5:5000/v3
    password: "{{ secrets.keystone.admin_password }}"
    region: RegionOne
    ca: /etc/zonestack/tls/ca.crt
"""

RETURN = r"""# nothing beyond changed and diff"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, as_service, last_words, run
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import (
    ApiError,
    JsonApi,
    NotReady,
    wait_until_ready,
)


def can_log_in(api: JsonApi, params: t.Mapping[str, t.Any]) -> bool:
    """Whether the administrator gets a token for its project (https://docs.openstack.org/api-ref/identity/v3/)."""
    domain = {"id": "default"}
    user = {"name": params["username"], "domain": domain, "password": params["password"]}
    scope = {"project": {"name": params["project"], "domain": domain}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    reply = api.call("POST", "/auth/tokens", body, accept=[401])
    return reply.status != 401


def bootstrap(params: t.Mapping[str, t.Any]) -> None:
    """Run ``keystone-manage bootstrap``; it creates what is missing and sets the password, and may be repeated."""
    values = {
        "OS_BOOTSTRAP_USERNAME": params["username"],
        "OS_BOOTSTRAP_PASSWORD": params["password"],
        "OS_BOOTSTRAP_PROJECT_NAME": params["project"],
        "OS_BOOTSTRAP_ROLE_NAME": "admin",
        "OS_BOOTSTRAP_SERVICE_NAME": "keystone",
        "OS_BOOTSTRAP_REGION_ID": params["region"],
    }
    run(as_service(params["user"], [params["command"], "bootstrap"]), env=values, timeout=120)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "username": {"type": "str", "default": "admin"},
            "project": {"type": "str", "default": "admin"},
            "region": {"type": "str", "required": True},
            "ca": {"type": "path"},
            "user": {"type": "str", "default": "keystone"},
            "command": {"type": "path", "default": "/opt/keystone/bin/keystone-manage"},
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        api = JsonApi(params["url"], ca=params["ca"])
        changed = not wait_until_ready(lambda: can_log_in(api, params), params["wait"])
        if changed and not module.check_mode:
            bootstrap(params)
            if not wait_until_ready(lambda: can_log_in(api, params), params["wait"]):
                module.fail_json(
                    msg=f"{params['url']}: {params['username']} still cannot log in after `{params['command']} bootstrap`. "
                    "Does that command read the same database as the API? Is the user enabled?"
                )
    except CommandError as problem:
        module.fail_json(msg=last_words(problem))
    except (ApiError, NotReady, OSError, ValueError) as problem:
        module.fail_json(msg=str(problem))
    diff = {"before": {"administrator logs in": not changed}, "after": {"administrator logs in": True}}
    module.exit_json(changed=changed, diff=diff)


if __name__ == "__main__":
    main()
