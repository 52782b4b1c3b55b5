# SPDX-License-Identifier: GPL-3.0-or-later
"""What rabbitmq_broker would send for a given state."""

from __future__ import annotations

import base64
import hashlib

import pytest

from ansible_collections.zonestack.openstack.plugins.modules import rabbitmq_broker as module


def stored(password, salt=b"salt"):
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def held_user(password="secret", tags=()):
    return {"hash": stored(password), "algorithm": "rabbit_password_hashing_sha256", "tags": list(tags)}


def broker(**changes):
    base = {
        "vhosts": {"/": "classic", "nova": "quorum"},
        "users": {"nova": held_user()},
        "permissions": {("nova", "nova"): module.EVERYTHING},
        "policies": {},
    }
    return module.Broker(**{**base, **changes})


NOVA = {"name": "nova", "password": "secret", "vhosts": ["nova"], "tags": []}
POLICY = {"name": "ttl", "pattern": ".*", "apply_to": "queues", "definition": {"expires": 1000}, "priority": 0}
POLICY_HELD = {"pattern": ".*", "apply-to": "queues", "definition": {"expires": 1000}, "priority": 0}


def wanted(**changes):
    return {"vhosts": ["nova"], "users": [NOVA], "policies": [], "members": [], "abandoned": "", **changes}


@pytest.mark.parametrize(
    ("held", "params", "requests"),
    [
        (broker(), wanted(), []),
        (
            module.Broker(users={"guest": held_user("guest", ["administrator"])}),
            wanted(policies=[POLICY]),
            [
                "PUT /api/vhosts/nova",
                "PUT /api/users/nova",
                "PUT /api/permissions/nova/nova",
                "PUT /api/policies/nova/ttl",
                "DELETE /api/users/guest",
            ],
        ),
        (broker(vhosts={"nova": "undefined"}), wanted(), ["PUT /api/vhosts/nova"]),
        (broker(users={"nova": held_user("old")}), wanted(), ["PUT /api/users/nova"]),
        (broker(users={"nova": held_user(tags=["administrator"])}), wanted(), ["PUT /api/users/nova"]),
        (
            broker(permissions={("nova", "nova"): module.EVERYTHING, ("/", "nova"): module.EVERYTHING}),
            wanted(),
            ["DELETE /api/permissions/%2F/nova"],
        ),
        (
            broker(permissions={("nova", "nova"): {**module.EVERYTHING, "write": "^$"}}),
            wanted(),
            ["PUT /api/permissions/nova/nova"],
        ),
        (broker(policies={("nova", "ttl"): POLICY_HELD}), wanted(policies=[POLICY]), []),
        (
            broker(policies={("nova", "ttl"): {**POLICY_HELD, "priority": 1}}),
            wanted(policies=[POLICY]),
            ["PUT /api/policies/nova/ttl"],
        ),
        (
            broker(policies={("nova", "ttl"): POLICY_HELD, ("/", "own"): POLICY_HELD}),
            wanted(),
            ["DELETE /api/policies/nova/ttl"],
        ),
        (
            broker(stopped=["rabbit@b-rabbit-mq-1", "rabbit@c-rabbit-mq-1"]),
            wanted(members=["rabbit@a-rabbit-mq-1", "rabbit@c-rabbit-mq-1"]),
            ["forget rabbit@b-rabbit-mq-1"],
        ),
        (broker(stopped=["rabbit@b-rabbit-mq-1"]), wanted(), []),
        (
            broker(
                idle=[("nova", "compute"), ("nova", "compute.b-nova-compute-1"), ("nova", "compute.bb-nova-compute-1")]
            ),
            wanted(abandoned="(?<![a-z0-9-])b-nova-compute-[1-8](?![a-z0-9-])"),
            ["DELETE /api/queues/nova/compute.b-nova-compute-1"],
        ),
        # Others are left alone.
        (
            broker(users={"nova": held_user(), "admin": held_user()}, vhosts={"nova": "quorum", "x": "classic"}),
            wanted(),
            [],
        ),
    ],
)
def test_plan(held, params, requests):
    actions = module.plan(held, params)
    assert [f"{action.method} {action.path}" for action in actions] == requests
    before, after = (module.shown(held, params, wanted=side) for side in (False, True))
    assert (before == after) is (not requests)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (wanted(users=[NOVA, NOVA]), "users: 'nova' is named more than once"),
        (wanted(users=[{**NOVA, "vhosts": ["nowa"]}]), "users[0].vhosts: unknown vhost 'nowa' (known: nova)"),
        (wanted(users=[{**NOVA, "password": ""}]), "users[0].password: must not be empty"),
        (wanted(abandoned="("), "abandoned: '(' is not a regular expression"),
    ],
)
def test_contradictions_are_refused(params, message):
    with pytest.raises(ValueError, match="users|abandoned") as refusal:
        module.check(params)
    assert message in str(refusal.value)


def test_a_hash_of_another_kind_is_no_match():
    assert module.matches("secret", stored("secret"), "rabbit_password_hashing_sha256")
    assert not module.matches("secret", stored("secret"), "rabbit_password_hashing_md5")
    assert not module.matches("secret", "", "rabbit_password_hashing_sha256")
