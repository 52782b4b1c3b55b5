# SPDX-License-Identifier: GPL-3.0-or-later
"""Which zones go, and why they may not: a table for what is wanted and what is there."""

from __future__ import annotations

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.retirement import (
    hooks,
    leaving,
    surplus,
    surplus_here,
)

FACTS = {"service": "", "function": None, "quorum": False, "shrinks": False, "data": "unique", "drain": 0, "hooks": {}}
COMPONENTS = {
    "db": {"service": "db", "quorum": True, "shrinks": True, "data": "copied", "hooks": {"leave": "/db/leave.yml"}},
    "toy": {"service": "toy", "quorum": True, "data": "copied"},
    "api": {"service": "api", "drain": 20},
    "images": {"service": "images"},
    "repo": {"service": "repo", "data": "renewed"},
    "compute_one": {"service": "compute", "data": "moved", "hooks": {"quiet": "/compute/quiet.yml"}},
    "compute_two": {"service": "compute", "hooks": {"quiet": "/compute/quiet.yml"}},
}


def stack(*names: str) -> dict:
    """The noun, with these zones: ``host/component-number``."""
    members: dict[str, list[dict]] = {}
    for index, name in enumerate(names):
        host, _, rest = name.partition("/")
        component = rest.rpartition("-")[0]
        one = {"name": f"{host}-{rest}", "address": f"10.0.0.{index + 1}", "host": host}
        members.setdefault(component, []).append(one)
    components = {name: {**FACTS, **facts} for name, facts in COMPONENTS.items()}
    return {"members": members, "components": components}


def found(*names: str) -> dict:
    """What the hosts have; ``-`` before a name says that it is stopped, ``+`` after it that it has a volume."""
    hosts: dict[str, dict] = {}
    for text in names:
        host, _, rest = text.strip("-+").partition("/")
        name = f"{host}-{rest}"
        described = {"name": name, "metadata": {"component": rest.rpartition("-")[0]}}
        described["volumes"] = {"data": {"path": "/d"}} if text.endswith("+") else {}
        hosts.setdefault(host, {})[name] = {"running": not text.startswith("-"), "described": described}
    return hosts


def test_nothing_is_too_many() -> None:
    plan = surplus(found("a/db-1+", "b/db-1+"), stack("a/db-1", "b/db-1", "c/db-1"))
    assert (plan.refuse, plan.drain, plan.stop, plan.gone) == ([], [], {}, [])
    assert plan.running == ["a-db-1", "b-db-1"]


def test_what_is_too_many_is_drained_as_long_as_its_service_says_and_stopped_by_host() -> None:
    there = found("a/db-1+", "b/db-1+", "c/db-1+", "c/api-1", "-c/api-2", "b/repo-1+")
    plan = surplus(there, stack("a/db-1", "b/db-1"))
    assert plan.refuse == []
    assert plan.drain == [
        {"name": "b-repo-1", "wait": 0}, {"name": "c-db-1", "wait": 0}, {"name": "c-api-1", "wait": 20},
    ]  # fmt: skip
    assert {host: [one["name"] for one in every] for host, every in plan.stop.items()} == {
        "b": ["b-repo-1"],
        "c": ["c-db-1", "c-api-1", "c-api-2"],
    }
    assert plan.hosts == ["b", "c"] and plan.variable()["gone"] == ["b-repo-1", "c-db-1", "c-api-1", "c-api-2"]


@pytest.mark.parametrize(
    ("there", "wanted", "why"),
    [
        (["a/images-1+"], [], "a-images-1: not in topology.yml any more, but no other zone has its data. To keep the data, restore the hosts and the count of images"),
        (["a/compute_one-1+"], [], "a-compute_one-1: not in topology.yml any more, but no other zone"),
        (["a/unheard_of-1+"], [], "a-unheard_of-1: not in topology.yml any more, but no other zone"),
        (["a/images-1"], [], None),  # no data
        (["-a/images-1+"], ["a/images-1"], None),  # wanted, though it does not run
        (["a/toy-1", "b/toy-1", "c/toy-1"], ["a/toy-1"], "the members of toy that stay (a-toy-1) are not a majority of the cluster"),
        (["a/toy-1", "b/toy-1", "c/toy-1"], ["a/toy-1", "b/toy-1"], None),
        (["a/db-1", "b/db-1"], ["a/db-1"], "b-db-1: not in topology.yml any more, but the members of db that stay"),
        (["a/toy-1", "-b/toy-1"], ["a/toy-1"], None),  # who is stopped does not vote
        (["a/toy-1", "-b/toy-1", "c/toy-1"], ["a/toy-1", "b/toy-1"], "the members of toy that stay (a-toy-1) are not a majority"),
        (["a/toy-1", "b/toy-1", "c/toy-1"], [], None),  # the whole service goes
        (["a/api-1", "b/api-1"], ["a/api-1"], None),
    ],
)  # fmt: skip
def test_surplus_is_refused_with_its_reason(there: list[str], wanted: list[str], why: str | None) -> None:
    refused = surplus(found(*there), stack(*wanted)).refuse
    assert refused == [] if why is None else len(refused) == 1 and why in refused[0]


@pytest.mark.parametrize(
    ("mine", "others", "lose", "why"),
    [
        (["d/images-1+"], [], [], "d: no other host has the data of images"),
        (["d/images-1+"], [], ["images"], None),
        (["d/compute_one-1+", "d/repo-1+", "d/db-1+"], ["a/db-1"], [], None),
        (
            ["d/toy-1"],
            ["a/toy-1"],
            [],
            "d: 1 of the 2 members of toy that run are on it, and the other 1 are not a majority",
        ),
        (["d/toy-1"], ["a/toy-1", "b/toy-1"], [], None),
        (
            ["d/toy-1"],
            ["a/toy-1", "-b/toy-1"],
            [],
            "d: 1 of the 2 members of toy that run are on it, and the other 1 are not a majority",
        ),
        (["d/db-1", "d/db-2"], ["a/db-1"], [], None),  # they are counted out one by one
        (["d/toy-1", "-d/api-1"], ["a/toy-1"], [], None),  # the first has stopped: this was asked before
    ],
)
def test_a_host_is_kept_with_its_reason(mine: list[str], others: list[str], lose: list[str], why: str | None) -> None:
    refused = leaving(found(*mine, *others), stack(*(one.strip("-") for one in others)), "d", lose).refuse
    assert refused == [] if why is None else len(refused) == 1 and why in refused[0]


def test_a_host_that_leaves_says_whose_members_it_takes_along() -> None:
    wanted = stack("a/db-1", "b/db-1", "a/api-1")
    plan = leaving(found("d/db-1+", "d/api-1", "a/db-1+", "-b/db-1+", "a/old-1"), wanted, "d")
    assert plan.clusters == {
        "db": {"going": ["d-db-1"], "staying": ["a-db-1"]},
        "api": {"going": ["d-api-1"], "staying": []},
    }
    assert plan.running == ["a-db-1"]  # not what topology.yml has no more
    assert [one["name"] for one in plan.stop["d"]] == ["d-db-1", "d-api-1"]
    assert leaving(found("d/db-1+", "-d/api-1", "a/db-1+"), wanted, "d").clusters == {}


def test_a_dead_host_has_nothing_to_ask() -> None:
    plan = leaving(found("a/db-1+"), stack("a/db-1"), "d")
    assert (plan.refuse, plan.stop, plan.clusters, plan.running) == ([], {}, {}, ["a-db-1"])


def test_zones_of_one_host() -> None:
    there = found("a/db-1", "a/db-2")["a"]
    assert [one["name"] for one in surplus_here(there, ["a-db-1"])] == ["a-db-2"]


def test_a_hook_runs_in_a_member_that_runs_or_in_a_zone_that_stands_in() -> None:
    wanted = stack("a/db-1", "b/db-1", "a/compute_one-1", "b/compute_two-1")
    assert hooks(wanted, "forget", ["a-db-1"]) == []
    [one] = hooks(wanted, "leave", ["b-db-1"])
    assert (one["service"], one["file"], one["name"], one["address"]) == ("db", "/db/leave.yml", "b-db-1", "10.0.0.2")
    assert [one["name"] for one in hooks(wanted, "quiet", ["a-db-1", "b-compute_two-1"])] == ["b-compute_two-1"]
    assert [one["name"] for one in hooks(wanted, "quiet", ["a-db-1"])] == ["a-db-1"]
    assert [one["name"] for one in hooks(wanted, "quiet", [])] == ["a-compute_one-1"]
