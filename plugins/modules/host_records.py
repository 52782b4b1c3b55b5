#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_records
short_description: Remove the records of Nova and Neutron about a host that is retired
version_added: 0.4.0
description:
  - With O(state=quiet), sees that no instance is on the host's hypervisors, and has Nova put none there any more.
  - With O(state=absent), removes the records of the host's zones. With the service of a hypervisor Nova removes the hypervisor, its mapping
    to a cell, its place in host aggregates and its resource provider; with an agent Neutron removes its chassis from OVN.
  - Needs nothing but Python's standard library.
  - See U(https://docs.openstack.org/api-ref/compute/#delete-compute-service) and U(https://docs.openstack.org/api-ref/network/v2/#delete-agent).
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.administrator]
attributes:
  check_mode:
    support: full
    description: Everything is read, nothing is changed. Instances are refused all the same.
  diff_mode:
    support: full
    description: Shows the records of the host's zones.
options:
  host:
    description: Name of the host.
    type: str
    required: true
  components:
    description: Components whose zones have records. A zone is called by its host, its component and a number.
    type: list
    elements: str
    required: true
  members:
    description: Zones that stay, whatever their names look like.
    type: list
    elements: str
    required: true
  network:
    description: Whether Neutron is deployed.
    type: bool
    default: true
  state:
    description: What is wanted.
    type: str
    choices: [quiet, absent]
    required: true
  wait:
    description: Seconds to wait for the identity API.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: See that no instance is on the host, and that none comes
  zonestack.openstack.host_records:
    auth: {url: "https://10.64.0.5:5000/v3", password: "{{ secrets.keystone.admin_password }}"}
    ca: /etc/zonestack/tls/ca.crt
    region: RegionOne
    host: cmp3
    components: [nova_compute, nova_conductor, nova_scheduler]
    members: [cmp1-nova-compute-1, cmp2-nova-compute-1]
    state: quiet
"""

RETURN = r"""
actions:
  description: What was done (in check mode would be), in words.
  type: list
  elements: str
  returned: always
  sample: [remove service nova-compute of cmp3-nova-compute-1, remove agent ovn-controller of cmp3-nova-compute-1]
"""

import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.administrator import OPTIONS
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.apis import (
    CloudApis,
    Contradiction,
    Json,
    pages,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import ApiError, NotReady

COMPUTE = "nova-compute"
REASON = "zonestack: its host is leaving"
"""What Nova shows for a hypervisor that gets no instances any more."""
LOST = '("Chassis" register deleted)'
"""What Neutron calls the host of an agent whose chassis is gone, because its zone was stopped (ml2/ovn/agent/neutron_agent.py)."""


def zones_of(host: str, components: t.Iterable[str], members: t.Collection[str]) -> t.Callable[[str], bool]:
    """Whether a name is that of a zone which the host has, or had."""
    labels = "|".join(re.escape(component.replace("_", "-")) for component in components)
    name = re.compile(rf"{re.escape(host)}-(?:{labels})-[1-8]")
    return lambda text: bool(name.fullmatch(text)) and text not in members


def refusal(host: str, found: t.Mapping[str, list[Json]]) -> str:
    """What to say when instances (by hypervisor) are in the way; empty when there are none."""
    lines = [f"  {one['id']} {one['name']} on {hypervisor}" for hypervisor, every in found.items() for one in every]
    if not lines:
        return ""
    return "\n".join(
        [
            f"instances are on host {host}, and their disks with them:",
            *lines,
            "In the utility zone, for each: `openstack server delete ID`; to keep what it is, first `openstack server image create ID` and boot that",
            "elsewhere. Of a host that is dead: `openstack server evacuate ID` boots it elsewhere from its image, what it has written is lost.",
        ]
    )


class Action(t.NamedTuple):
    """One change: how it is told, and the request that makes it. ``api``: compute or network."""

    label: str
    api: str
    method: str
    path: str
    body: t.Any = None


def quiet(services: t.Iterable[Json]) -> list[Action]:
    """Disable what may get instances."""
    body = {"status": "disabled", "disabled_reason": REASON}
    return [
        Action(f"disable {one['binary']} of {one['host']}", "compute", "PUT", f"/os-services/{one['id']}", body)
        for one in services
        if one["binary"] == COMPUTE and one["status"] != "disabled"
    ]


def absent(services: t.Iterable[Json], agents: t.Iterable[Json]) -> list[Action]:
    """Remove all records. Agents last: what they are of is stopped, and their chassis may be gone already."""
    found = [
        Action(f"remove service {one['binary']} of {one['host']}", "compute", "DELETE", f"/os-services/{one['id']}")
        for one in services
    ]
    return [
        *found,
        *(
            Action(f"remove agent {one['binary']} of {one['host']}", "network", "DELETE", f"/agents/{one['id']}")
            for one in agents
        ),
    ]


def shown(services: t.Iterable[Json], agents: t.Iterable[Json]) -> dict[str, str]:
    """One side of the diff."""
    found = {f"{one['binary']} of {one['host']}": str(one["status"]) for one in services}
    return {**found, **{f"{one['binary']} of {one['host']}": "agent" for one in agents}}


def converge(params: t.Mapping[str, t.Any], dry: bool) -> Json:
    """The whole call; what ``exit_json`` takes."""
    cloud = CloudApis(params["auth"], params["region"], params["ca"], params["wait"])
    cloud.connect(images=False, compute=True, network=params["network"], placement=False)
    mine = zones_of(params["host"], params["components"], params["members"])
    services = [one for one in cloud.compute.call("GET", "/os-services").body["services"] if mine(one["host"])]
    hypervisors = sorted(one["host"] for one in services if one["binary"] == COMPUTE)
    instances = {
        name: pages(cloud.compute, "/servers", "servers", all_tenants="true", host=name) for name in hypervisors
    }
    if words := refusal(params["host"], instances):
        raise Contradiction(words)
    agents: list[Json] = []
    if params["state"] == "quiet":
        actions = quiet(services)
        after = [{**one, "status": "disabled"} if one["binary"] == COMPUTE else one for one in services]
    else:
        if params["network"]:
            agents = [
                one
                for one in cloud.network.call("GET", "/agents").body["agents"]
                if mine(one["host"]) or one["host"] == LOST
            ]
        actions, after = absent(services, agents), []
    if not dry:
        for action in actions:
            try:
                getattr(cloud, action.api).call(
                    action.method, action.path, action.body, accept=[404] if action.method == "DELETE" else ()
                )
            except (ApiError, NotReady) as problem:
                raise type(problem)(f"could not {action.label}: {problem}") from None
    diff = {"before": shown(services, agents), "after": shown(after, [])}
    return {"changed": bool(actions), "actions": [action.label for action in actions], "diff": diff}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "host": {"type": "str", "required": True},
            "components": {"type": "list", "elements": "str", "required": True},
            "members": {"type": "list", "elements": "str", "required": True},
            "network": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["quiet", "absent"], "required": True},
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        result = converge(module.params, module.check_mode)
    except (ApiError, Contradiction, NotReady, OSError, ValueError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
