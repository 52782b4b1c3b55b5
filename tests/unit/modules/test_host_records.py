# SPDX-License-Identifier: GPL-3.0-or-later
"""host_records against as much of Nova and Neutron as it needs, over real HTTP."""

from __future__ import annotations

import urllib.parse

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.apis import Contradiction
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import ApiError
from ansible_collections.zonestack.openstack.plugins.modules.host_records import LOST, converge, zones_of

from .conftest import Api, Handler

COMPONENTS = ["nova_compute", "nova_conductor"]
MEMBERS = ["a-nova-compute-1", "a-nova-conductor-1"]


class Apis(Api):
    """Nova keeps a hypervisor's service while instances are on it, and whatever Neutron is told to remove goes."""

    def __init__(self):
        super().__init__(Answers)
        self.services = [self.service(host, binary) for host, binary in (
            ("a-nova-compute-1", "nova-compute"), ("b-nova-compute-1", "nova-compute"), ("b-c-nova-compute-1", "nova-compute"),
            ("a-nova-conductor-1", "nova-conductor"), ("b-nova-conductor-1", "nova-conductor"),
        )]  # fmt: skip
        self.agents = [
            {"id": f"{number}/{binary}", "host": host, "binary": binary, "alive": True}
            for number, host in enumerate(("a-nova-compute-1", "b-nova-compute-1", LOST))
            for binary in ("ovn-controller", "neutron-ovn-agent")
        ]
        self.servers: dict[str, list[dict]] = {}
        self.stuck: set[str] = set()

    def service(self, host, binary):
        return {"id": f"{host}/{binary}", "host": host, "binary": binary, "status": "enabled", "state": "up"}


class Answers(Handler):
    def answer(self, body):
        apis, parts = self.server, urllib.parse.urlsplit(self.path)
        path, asked = parts.path, dict(urllib.parse.parse_qsl(parts.query))
        if path == "/v3/auth/tokens":
            return self.log_in(compute="/v2.1", network="")
        if path == "/v2.1/servers":
            assert asked["all_tenants"] == "true"
            every = apis.servers.get(asked["host"], [])
            rest = every[[one["id"] for one in every].index(asked["marker"]) + 1 :] if "marker" in asked else every
            return self.reply(200, {"servers": rest[:1], **({"servers_links": [{}]} if rest[1:] else {})})
        if self.command == "GET":
            return self.reply(
                200, {"/v2.1/os-services": {"services": apis.services}, "/v2.0/agents": {"agents": apis.agents}}[path]
            )
        apis.writes.append(f"{self.command} {path}")
        kind, _slash, identifier = path.removeprefix("/v2.1/").removeprefix("/v2.0/").partition("/")
        held = {"os-services": apis.services, "agents": apis.agents}[kind]
        one = next(one for one in held if one["id"] == identifier)
        if self.command == "PUT":
            one.update(body)
            return self.reply(200, {"service": one})
        if identifier in apis.stuck:
            return self.reply(
                409,
                {"conflictingRequest": {"message": "Unable to delete compute service that has in-progress migrations"}},
            )
        held.remove(one)
        return self.reply(204)

    def log_message(self, *_args):
        pass


@pytest.fixture
def apis(serve):
    return serve(Apis())


def run(apis, state, dry=False, host="b"):
    auth = {
        "url": f"{apis.url}/v3",
        "username": "admin",
        "password": "p",
        "project": "admin",
        "user_domain": "default",
        "project_domain": "default",
    }
    wanted = {"host": host, "components": COMPONENTS, "members": MEMBERS, "network": True, "state": state}
    return converge({"auth": auth, "ca": None, "region": "r", "wait": 5, **wanted}, dry)


def test_names_of_a_host_are_told_from_those_of_others():
    mine = zones_of("b", COMPONENTS, MEMBERS)
    names = [
        "b-nova-compute-1",
        "b-nova-compute-8",
        "b-c-nova-compute-1",
        "a-nova-compute-1",
        "b-nova-compute-11",
        "b-nova-api-1",
        "b",
    ]
    assert [name for name in names if mine(name)] == ["b-nova-compute-1", "b-nova-compute-8"]
    assert not zones_of("a", COMPONENTS, MEMBERS)("a-nova-compute-1")


def test_a_host_becomes_quiet_once(apis):
    told = run(apis, "quiet", dry=True)
    assert apis.writes == []
    assert told == run(apis, "quiet")
    assert told["actions"] == ["disable nova-compute of b-nova-compute-1"]
    assert [one["host"] for one in apis.services if one["status"] == "disabled"] == ["b-nova-compute-1"]
    assert not run(apis, "quiet")["changed"]


def test_all_records_of_a_host_go_once_and_those_of_others_stay(apis):
    told = run(apis, "absent", dry=True)
    assert apis.writes == []
    assert told == run(apis, "absent")
    assert [one["host"] for one in apis.services] == ["a-nova-compute-1", "b-c-nova-compute-1", "a-nova-conductor-1"]
    assert [one["host"] for one in apis.agents] == ["a-nova-compute-1"] * 2
    assert told["diff"]["after"] == {}
    again = run(apis, "absent")
    assert (again["changed"], again["diff"]["before"]) == (False, {})


@pytest.mark.parametrize("state", ["quiet", "absent"])
def test_instances_are_named_and_nothing_is_changed(apis, state):
    apis.servers = {
        "b-nova-compute-1": [{"id": "i1", "name": "web"}, {"id": "i2", "name": "db"}],
        "a-nova-compute-1": [{"id": "i3", "name": "x"}],
    }
    with pytest.raises(Contradiction) as refused:
        run(apis, state)
    lines = str(refused.value).splitlines()
    assert lines[:3] == [
        "instances are on host b, and their disks with them:",
        "  i1 web on b-nova-compute-1",
        "  i2 db on b-nova-compute-1",
    ]
    assert "openstack server delete ID" in lines[3]
    assert apis.writes == []


def test_novas_refusal_is_told_with_what_was_tried(apis):
    apis.stuck = {"b-nova-compute-1/nova-compute"}
    with pytest.raises(
        ApiError,
        match=r"could not remove service nova-compute of b-nova-compute-1: DELETE .*409.*in-progress migrations",
    ):
        run(apis, "absent")
