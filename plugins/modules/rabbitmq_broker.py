#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_broker
short_description: Virtual hosts, users, permissions, policies and members of a RabbitMQ cluster in one call
version_added: 0.1.0
description:
  - Speaks with the management API of one node; what it writes holds in the whole cluster.
  - Waits until the expected number of nodes run, so that nothing is written to a part of the cluster.
  - Named users have exactly the permissions that are asked for; a policy that is not asked for is removed from the named virtual
    hosts; the user C(guest) is removed. Other users and virtual hosts are not touched.
  - Nodes that do not run and are none of O(members) are forgotten by the cluster, and with them their replicas of queues.
  - A password is compared with the salted hash that the broker keeps, so C(changed) is true only when it really differs.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: full
    description: Shows what differs; of a password only that it changes.
options:
  url:
    description: Management API, for example V(https://10.77.2.24:15671).
    type: str
    required: true
  ca:
    description: File with the authority that the API's certificate is checked against.
    type: path
  username:
    description: Administrator that the module logs in as.
    type: str
    default: admin
  password:
    description: The administrator's password.
    type: str
    required: true
  nodes:
    description: Number of nodes that must run before anything is read or written.
    type: int
    default: 1
  members:
    description:
      - Names of all nodes that belong to the cluster, such as V(rabbit@aio1-rabbit-mq-1). Others that do not run are forgotten with
        C(rabbitmqctl forget_cluster_node), so the module must run in a zone of the cluster then. Those that run stay.
      - By default no node is forgotten.
    type: list
    elements: str
    default: []
  abandoned:
    description: Regular expression. Queues whose name has a match and from which nobody takes messages are removed.
    type: str
    default: ""
  vhosts:
    description: Virtual hosts that must exist. Their queues are quorum queues unless a client asks for another type.
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
      vhosts:
        description: Virtual hosts that the user may use, all of each.
        type: list
        elements: str
        required: true
      tags:
        description: Tags, for example V(administrator).
        type: list
        elements: str
        default: []
  policies:
    description: Policies that hold in each of O(vhosts).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the policy.
        type: str
        required: true
      pattern:
        description: Regular expression of the names it applies to.
        type: str
        required: true
      apply_to:
        description: What it applies to.
        type: str
        choices: [all, queues, exchanges, classic_queues, quorum_queues, streams]
        default: all
      definition:
        description: Keys and values, see U(https://www.rabbitmq.com/docs/parameters#policies).
        type: dict
        required: true
      priority:
        description: The highest wins.
        type: int
        default: 0
  wait:
    description: Seconds to wait for the API and the nodes.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Create Nova's virtual host and user
  zonestack.openstack.rabbitmq_broker:
    url: "https://{{ zone.address }}:15671"
    ca: /etc/zonestack/tls/ca.crt
    password: "{{ secrets.rabbit_mq.admin_password }}"
    nodes: 3
    vhosts: [nova]
    users: [{name: nova, password: "{{ secrets.queue.nova }}", vhosts: [nova]}]
"""

RETURN = r"""
actions:
  description: What was done (in check mode would be), in words.
  type: list
  elements: str
  returned: always
  sample: [create vhost nova, create user nova]
"""

import base64
import hashlib
import re
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import (
    ApiError,
    JsonApi,
    NotReady,
    wait_until_ready,
)

DEFAULT_QUEUE_TYPE = "quorum"
FORGET = "forget"
"""Method of the one action that the management API does not offer; its path is the name of a node."""
FORGET_SECONDS = 120
REMOVALS = {"nodes": "forget node ", "queues": "remove queue "}
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
HASHES = {"rabbit_password_hashing_sha256": "sha256", "rabbit_password_hashing_sha512": "sha512"}


@dataclass(frozen=True)
class Action:
    """One request that changes something, and what it does in words."""

    label: str
    method: str
    path: str
    body: t.Any = None


@dataclass
class Broker:
    """What the broker holds, as its API lists it, reduced to what this module decides."""

    vhosts: dict[str, str] = field(default_factory=dict)  # name: default queue type
    users: dict[str, dict[str, t.Any]] = field(default_factory=dict)  # name: hash, algorithm, tags
    permissions: dict[tuple[str, str], dict[str, str]] = field(
        default_factory=dict
    )  # (vhost, user): the three patterns
    policies: dict[tuple[str, str], dict[str, t.Any]] = field(default_factory=dict)  # (vhost, name)
    stopped: list[str] = field(default_factory=list)  # nodes of the cluster that do not run
    idle: list[tuple[str, str]] = field(
        default_factory=list
    )  # (vhost, name) of queues without a consumer; only where they are asked for


def quoted(*parts: str) -> str:
    """Path segments of a request."""
    return "/".join(urllib.parse.quote(part, safe="") for part in parts)


def matches(password: str, stored: str, algorithm: str) -> bool:
    """Whether the broker's hash is that of ``password``: base64 of 4 bytes of salt and the salted hash.

    See https://www.rabbitmq.com/docs/passwords#computing-password-hash.
    """
    raw = base64.b64decode(stored or "")
    return algorithm in HASHES and hashlib.new(HASHES[algorithm], raw[:4] + password.encode()).digest() == raw[4:]


def policy_body(policy: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {
        "pattern": policy["pattern"],
        "apply-to": policy["apply_to"],
        "definition": policy["definition"],
        "priority": policy["priority"],
    }


def require_nodes(api: JsonApi, expected: int) -> None:
    """Raise :class:`NotReady` unless that many nodes run; a refused log-in may still be a node that is only starting."""
    reply = api.call("GET", "/api/nodes?columns=name,running", accept=[401])
    if reply.status == 401:
        raise NotReady(f"{api.url} refuses the administrator's password")
    running = [node["name"] for node in reply.body if node.get("running")]
    if len(running) < expected:
        raise NotReady(f"{len(running)} of {expected} nodes run ({', '.join(running)})")


def read_broker(api: JsonApi, params: t.Mapping[str, t.Any]) -> Broker:
    """Read everything, in four requests and one for each of the two further questions."""
    broker = Broker()
    if params["members"]:
        nodes = api.call("GET", "/api/nodes?columns=name,running").body
        broker.stopped = sorted(node["name"] for node in nodes if not node.get("running"))
    if params["abandoned"]:
        queues = api.call("GET", "/api/queues?columns=name,vhost,consumers").body
        broker.idle = sorted((queue["vhost"], queue["name"]) for queue in queues if not queue.get("consumers"))
    for vhost in api.call("GET", "/api/vhosts?columns=name,default_queue_type").body:
        broker.vhosts[vhost["name"]] = vhost.get("default_queue_type") or "undefined"
    for user in api.call("GET", "/api/users").body:
        tags = user.get("tags") or []
        broker.users[user["name"]] = {
            "hash": user.get("password_hash") or "",
            "algorithm": user.get("hashing_algorithm") or "",
            "tags": tags.split(",") if isinstance(tags, str) else tags,
        }
    for entry in api.call("GET", "/api/permissions").body:
        broker.permissions[entry["vhost"], entry["user"]] = {key: entry[key] for key in EVERYTHING}
    for policy in api.call("GET", "/api/policies").body:
        broker.policies[policy["vhost"], policy["name"]] = {
            key: policy.get(key) for key in ("pattern", "apply-to", "definition", "priority")
        }
    return broker


def user_actions(broker: Broker, user: t.Mapping[str, t.Any]) -> list[Action]:
    """Requests that lead to one user, with access to exactly the vhosts that are asked for."""
    actions = []
    name, held_user = user["name"], broker.users.get(user["name"])
    body = {"password": user["password"], "tags": ",".join(user["tags"])}
    path = f"/api/users/{quoted(name)}"
    if held_user is None:
        actions.append(Action(f"create user {name}", "PUT", path, body))
    elif not matches(user["password"], held_user["hash"], held_user["algorithm"]):
        actions.append(Action(f"change the password of user {name}", "PUT", path, body))
    elif set(held_user["tags"]) != set(user["tags"]):
        actions.append(Action(f"change the tags of user {name}", "PUT", path, body))
    for vhost in user["vhosts"]:
        if broker.permissions.get((vhost, name)) != EVERYTHING:
            actions.append(
                Action(
                    f"let user {name} use vhost {vhost}",
                    "PUT",
                    f"/api/permissions/{quoted(vhost, name)}",
                    EVERYTHING,
                )
            )
    for vhost, other in sorted(broker.permissions):
        if other == name and vhost not in user["vhosts"]:
            actions.append(
                Action(f"keep user {name} out of vhost {vhost}", "DELETE", f"/api/permissions/{quoted(vhost, name)}")
            )
    return actions


def plan(broker: Broker, params: t.Mapping[str, t.Any]) -> list[Action]:
    """Requests that lead from what the broker holds to what is asked for, in an order that works."""
    actions = [
        Action(f"forget node {node}", FORGET, node)
        for node in broker.stopped
        if params["members"] and node not in params["members"]
    ]
    for vhost, name in broker.idle:
        if params["abandoned"] and re.search(params["abandoned"], name):
            # Without `if-unused`, which quorum queues refuse; a moment ago nobody listened, and who did is gone.
            actions.append(
                Action(f"remove queue {name} from vhost {vhost}", "DELETE", f"/api/queues/{quoted(vhost, name)}")
            )
    for vhost in params["vhosts"]:
        held = broker.vhosts.get(vhost)
        if held != DEFAULT_QUEUE_TYPE:
            label = f"create vhost {vhost}" if held is None else f"change the default queue type of vhost {vhost}"
            actions.append(
                Action(label, "PUT", f"/api/vhosts/{quoted(vhost)}", {"default_queue_type": DEFAULT_QUEUE_TYPE})
            )
    for user in params["users"]:
        actions += user_actions(broker, user)
    wanted = {
        (vhost, policy["name"]): policy_body(policy) for vhost in params["vhosts"] for policy in params["policies"]
    }
    for (vhost, name), body in wanted.items():
        if broker.policies.get((vhost, name)) != body:
            actions.append(
                Action(f"set policy {name} in vhost {vhost}", "PUT", f"/api/policies/{quoted(vhost, name)}", body)
            )
    for vhost, name in sorted(broker.policies):
        if vhost in params["vhosts"] and (vhost, name) not in wanted:
            actions.append(
                Action(f"remove policy {name} from vhost {vhost}", "DELETE", f"/api/policies/{quoted(vhost, name)}")
            )
    if "guest" in broker.users and "guest" not in {user["name"] for user in params["users"]}:
        actions.append(Action("remove user guest", "DELETE", "/api/users/guest"))
    return actions


def shown(broker: Broker, params: t.Mapping[str, t.Any], wanted: bool) -> dict[str, t.Any]:
    """One side of the diff, limited to what this call decides."""
    vhosts = {vhost: DEFAULT_QUEUE_TYPE if wanted else broker.vhosts.get(vhost) for vhost in params["vhosts"]}
    users: dict[str, t.Any] = {}
    for user in params["users"]:
        held = broker.users.get(user["name"])
        if wanted:
            users[user["name"]] = {
                "password": "as wanted",
                "tags": sorted(user["tags"]),
                "vhosts": sorted(user["vhosts"]),
            }
        elif held is not None:
            good = matches(user["password"], held["hash"], held["algorithm"])
            rights = {vhost: granted for (vhost, name), granted in broker.permissions.items() if name == user["name"]}
            users[user["name"]] = {
                "password": "as wanted" if good else "another one",
                "tags": sorted(held["tags"]),
                "vhosts": sorted(
                    vhost if granted == EVERYTHING else f"{vhost} {granted}" for vhost, granted in rights.items()
                ),
            }
    if not wanted and "guest" in broker.users:
        users.setdefault("guest", {})
    policies = {f"{vhost}/{name}": body for (vhost, name), body in broker.policies.items() if vhost in params["vhosts"]}
    if wanted:
        policies = {
            f"{vhost}/{policy['name']}": policy_body(policy)
            for vhost in params["vhosts"]
            for policy in params["policies"]
        }
    found: dict[str, t.Any] = {
        "vhosts": {name: kind for name, kind in vhosts.items() if kind},
        "users": users,
        "policies": policies,
    }
    if not wanted:
        gone = {
            kind: [action.label for action in plan(broker, params) if action.label.startswith(verb)]
            for kind, verb in REMOVALS.items()
        }
        found |= {kind: labels for kind, labels in gone.items() if labels}
    return found


def check(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what contradicts itself before anything is asked."""
    try:
        re.compile(params["abandoned"])
    except re.error as bad:
        raise ValueError(f"abandoned: {params['abandoned']!r} is not a regular expression ({bad})") from None
    names = [user["name"] for user in params["users"]]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"users: {name!r} is named more than once")
    for number, user in enumerate(params["users"]):
        if not user["password"]:
            raise ValueError(f"users[{number}].password: must not be empty: {user['name']} could not log in")
        for vhost in user["vhosts"]:
            if vhost not in params["vhosts"]:
                raise ValueError(
                    f"users[{number}].vhosts: unknown vhost {vhost!r} (known: {', '.join(params['vhosts'])})"
                )


ARGUMENTS = {
    "url": {"type": "str", "required": True},
    "ca": {"type": "path"},
    "username": {"type": "str", "default": "admin"},
    "password": {"type": "str", "required": True, "no_log": True},
    "nodes": {"type": "int", "default": 1},
    "members": {"type": "list", "elements": "str", "default": []},
    "abandoned": {"type": "str", "default": ""},
    "vhosts": {"type": "list", "elements": "str", "default": []},
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "vhosts": {"type": "list", "elements": "str", "required": True},
            "tags": {"type": "list", "elements": "str", "default": []},
        },
    },
    "policies": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "pattern": {"type": "str", "required": True},
            "apply_to": {
                "type": "str",
                "choices": ["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"],
                "default": "all",
            },
            "definition": {"type": "dict", "required": True},
            "priority": {"type": "int", "default": 0},
        },
    },
    "wait": {"type": "int", "default": 120},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
    )
    params = module.params
    token = base64.b64encode(f"{params['username']}:{params['password']}".encode()).decode()
    try:
        check(params)
        api = JsonApi(params["url"], ca=params["ca"], headers={"Authorization": f"Basic {token}"})
        wait_until_ready(lambda: require_nodes(api, params["nodes"]), params["wait"])
        broker = read_broker(api, params)
        actions = plan(broker, params)
        if not module.check_mode:
            for action in actions:
                if action.method == FORGET:
                    run(["rabbitmqctl", "--quiet", "forget_cluster_node", action.path], timeout=FORGET_SECONDS)
                else:
                    api.call(action.method, action.path, action.body, accept=[404] if action.method == "DELETE" else ())
    except (ApiError, CommandError, NotReady, OSError, ValueError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(
        changed=bool(actions),
        actions=[action.label for action in actions],
        diff={"before": shown(broker, params, wanted=False), "after": shown(broker, params, wanted=True)},
    )


if __name__ == "__main__":
    main()
