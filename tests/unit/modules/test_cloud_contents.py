# SPDX-License-Identifier: GPL-3.0-or-later
"""Availability zones through cloud_contents, against as much of Nova and Placement as they need, over real HTTP."""

from __future__ import annotations

import json

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.contents import converge
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import ApiError, NotReady

from .conftest import Api, Handler


class Nova(Api):
    """Host aggregates by Nova's rules: a hypervisor is of one availability zone, and of the same while it has instances."""

    def __init__(self):
        super().__init__(Answers)
        self.aggregates: list[dict] = []
        self.hypervisors = {"c1", "c2", "c3"}
        self.busy: set[str] = set()  # have instances
        self.unknown: dict[str, int] = {}  # Placement answers 404 so many times

    late = 0
    """How often it is not there yet for who comes through the load balancer."""

    def make(self, name, *hosts, zone=None):
        metadata = {"availability_zone": zone} if zone else {}
        self.aggregates.append(
            {"id": len(self.aggregates) + 1, "name": name, "metadata": metadata, "hosts": list(hosts)}
        )
        return self.aggregates[-1]

    def zone_of(self, host):
        zones = [
            one["metadata"]["availability_zone"] for one in self.aggregates if host in one["hosts"] and one["metadata"]
        ]
        return zones[0] if zones else None

    def add(self, aggregate, host):
        """Status, and the words with it."""
        new, old = aggregate["metadata"].get("availability_zone"), self.zone_of(host)
        if host not in self.hypervisors:
            return 404, f"Compute host {host} could not be found."
        if old not in (None, new):
            return 409, f"One or more hosts already in availability zone(s) ['{old}']"
        if new != old and host in self.busy:
            return 409, "the host already has 1 instance(s)"
        aggregate["hosts"].append(host)
        return 200, ""

    def remove(self, aggregate, host):
        if host in self.busy:
            return 409, "the host already has 1 instance(s)"
        aggregate["hosts"].remove(host)
        return 200, ""


class Answers(Handler):
    def answer(self, body):
        nova, path = self.server, self.path
        if path == "/v3/auth/tokens":
            return self.log_in(compute="/v2.1", placement="/placement")
        if path.startswith("/placement/resource_providers/"):
            provider = path.rpartition("/")[2]
            nova.unknown[provider] = nova.unknown.get(provider, 0) - 1
            return self.reply(404 if nova.unknown[provider] >= 0 else 200, {})
        if self.command == "GET" and nova.late:
            nova.late -= 1
            return self.reply(503, "No server is available to handle this request.")
        if self.command == "GET":
            assert path == "/v2.1/os-aggregates" and self.headers["OpenStack-API-Version"] == "compute 2.61"
            return self.reply(200, {"aggregates": nova.aggregates})
        nova.writes.append(f"{path.removeprefix('/v2.1/os-aggregates')} {json.dumps(body)}")
        if path == "/v2.1/os-aggregates":
            made = nova.make(body["aggregate"]["name"], zone=body["aggregate"]["availability_zone"])
            return self.reply(200, {"aggregate": {key: made[key] for key in ("id", "name")}})
        aggregate = nova.aggregates[int(path.split("/")[3]) - 1]
        verb, values = next(iter(body.items()))
        status, words = {"add_host": nova.add, "remove_host": nova.remove}[verb](aggregate, values["host"])
        return self.reply(status, {"conflictingRequest": {"message": words}} if words else {"aggregate": aggregate})

    def log_message(self, *_args):
        pass


@pytest.fixture
def nova(serve):
    return serve(Nova())


def run(nova, dry=False, wait=5, **zones):
    """Have hypervisors be in zones: ``c1="x"``."""
    auth = {"url": f"{nova.url}/v3", "username": "admin", "password": "p", "project": "admin"}
    auth |= {"user_domain": "default", "project_domain": "default"}
    wanted = {name: {"zone": zone, "provider": f"id-of-{name}"} for name, zone in zones.items()}
    nothing = {"images": {}, "flavors": {}, "networks": {}, "quotas": {}, "files": {}}
    return converge(
        {**nothing, "auth": auth, "ca": None, "region": "r", "wait": wait, "parallel": 4, "availability_zones": wanted},
        dry,
    )


def shown(result, side):
    return result["diff"][side]["availability_zones"]


def test_hypervisors_come_into_their_zones_once(nova):
    told = run(nova, dry=True, c1="x", c2="y", c3="x")
    assert nova.writes == []
    assert told == run(nova, c1="x", c2="y", c3="x")
    assert told["actions"] == [
        "create availability zone x", "put c1 into availability zone x", "put c3 into availability zone x",
        "create availability zone y", "put c2 into availability zone y",
    ]  # fmt: skip
    assert (shown(told, "before"), shown(told, "after")) == ({}, {"x": ["c1", "c3"], "y": ["c2"]})
    assert {host: nova.zone_of(host) for host in nova.hypervisors} == {"c1": "x", "c2": "y", "c3": "x"}
    nova.writes.clear()
    nova.busy = {"c1", "c2", "c3"}
    again = run(nova, c1="x", c2="y", c3="x")
    assert (again["changed"], again["actions"], nova.writes) == (False, [], [])
    assert shown(again, "before") == shown(again, "after") == shown(told, "after")


def test_nothing_is_asked_of_a_cloud_without_failure_domains(nova):
    nova.shutdown()
    nova.server_close()
    assert run(nova) == {"changed": False, "actions": [], "needs": [], "diff": {"before": {}, "after": {}}}


def test_a_hypervisor_changes_its_zone_and_others_stay(nova):
    run(nova, c1="x", c2="x", c3="y")
    fast = nova.make("fast", "c1")
    result = run(nova, c1="y", c2="x")
    assert result["actions"] == ["put c1 into availability zone y, out of x"]
    assert {host: nova.zone_of(host) for host in nova.hypervisors} == {"c1": "y", "c2": "x", "c3": "y"}
    assert fast["hosts"] == ["c1"]  # an aggregate that is no zone is somebody else's
    assert not run(nova, c1="y", c2="x")["changed"]


def test_two_hypervisors_change_places(nova):
    run(nova, c1="x", c2="y")
    assert run(nova, c1="y", c2="x")["changed"]
    assert (nova.zone_of("c1"), nova.zone_of("c2")) == ("y", "x")


def test_a_zone_that_another_aggregate_makes_is_as_good(nova):
    nova.make("the first rack", "c1", zone="x")
    assert run(nova, c1="x")["actions"] == []
    assert run(nova, c1="x", c2="x")["actions"] == ["create availability zone x", "put c2 into availability zone x"]
    assert (nova.zone_of("c1"), nova.zone_of("c2")) == ("x", "x")


def test_an_api_that_the_load_balancer_does_not_know_yet_is_waited_for(nova):
    nova.late = 2
    assert run(nova, c1="x")["changed"] and nova.late == 0
    nova.late = 1000
    with pytest.raises(
        NotReady,
        match=r"not ready after 0.5 s: GET http://.*/os-aggregates: 503 Service Unavailable: .*No server is available",
    ):
        run(nova, c1="x", wait=0.5)


def test_placement_is_waited_for(nova):
    nova.unknown["id-of-c1"] = 2
    run(nova, c1="x")
    assert nova.zone_of("c1") == "x"
    nova.unknown["id-of-c2"] = 1000
    with pytest.raises(
        NotReady,
        match=r"could not put c2 into availability zone x: not ready after 0 s: Placement has no resource provider for hypervisor c2",
    ):
        run(nova, wait=0, c2="x")
    assert nova.zone_of("c2") is None


def test_novas_refusal_is_told_with_what_was_tried(nova):
    nova.busy = {"c1"}
    with pytest.raises(
        ApiError, match=r"could not put c1 into availability zone x: POST .*409.*already has 1 instance"
    ):
        run(nova, c1="x")
