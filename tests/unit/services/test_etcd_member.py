# SPDX-License-Identifier: GPL-3.0-or-later
"""What a member of the example of a clustered service decides; that its cluster forms and heals is shown by the scenario."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.service_folders import COLLECTION, read_services

FOLDER = Path(__file__).resolve().parents[2] / "scenario/services"


def load():
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location("zonestack_etcd", FOLDER / "etcd/member.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["zonestack_etcd"] = module
    spec.loader.exec_module(module)
    return module


member = load()
MEMBERS = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}


def config(name):
    return member.Config(name, MEMBERS)


@pytest.fixture
def cluster(monkeypatch):
    """A cluster as etcdctl shows it: a list of members, to which commands are noted and done."""
    state = {"members": [], "done": []}

    def etcdctl(_addresses, *command, **_more):
        state["done"].append(command)
        if command[:2] == ("member", "list"):
            shown = [{"ID": number, "peerURLs": [f"https://{address}:2380"]} for number, address in state["members"]]
            return json.dumps({"members": shown})
        if command[:2] == ("member", "remove"):
            state["members"] = [one for one in state["members"] if one[0] != int(command[2], 16)]
        if command[:2] == ("member", "add"):
            address = command[4].removeprefix("--peer-urls=https://").removesuffix(":2380")
            state["members"].append((99, address))
        return ""

    monkeypatch.setattr(member, "etcdctl", etcdctl)
    return state


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a", {"10.0.0.2": False, "10.0.0.3": False}, ""),
        ("b", {"10.0.0.1": False, "10.0.0.3": False}, "a makes the cluster where there is none"),
        ("a", {"10.0.0.2": False, "10.0.0.3": True}, "c has data: joining its cluster"),
        ("a", {"10.0.0.2": False}, "c does not say whether it has data (silent)"),
    ],
)
def test_only_the_first_member_makes_a_cluster_and_only_where_all_say_they_have_no_data(monkeypatch, name, data, why):
    def get(address, port, _path):
        assert port == member.STATE
        if address not in data:
            raise OSError("silent")
        return {"data": data[address]}

    monkeypatch.setattr(member, "get", get)
    assert member.may_found(config(name)) == why


def test_member_without_data_takes_its_former_self_off_the_list_first(cluster):
    cluster["members"] = [(10, "10.0.0.1"), (11, "10.0.0.2"), (12, "10.0.0.3")]
    assert member.join(config("a")) == {"b": "10.0.0.2", "c": "10.0.0.3", "a": "10.0.0.1"}
    assert cluster["done"][1:3] == [
        ("member", "remove", "a"),
        ("member", "add", "a", "--learner", "--peer-urls=https://10.0.0.1:2380"),
    ]


def test_former_members_are_removed_unless_they_run(cluster, monkeypatch, capsys):
    runs = {"10.0.0.5"}
    monkeypatch.setattr(
        member, "unhealthy", lambda asked: [name for name, address in asked.items() if address not in runs]
    )
    everybody = [(10, "10.0.0.1"), (11, "10.0.0.2"), (12, "10.0.0.3"), (13, "10.0.0.4"), (14, "10.0.0.5")]
    cluster["members"] = list(everybody)
    stay = config("a").members.values()
    member.forget(stay, spare=True)
    assert [number for number, _address in cluster["members"]] == [10, 11, 12, 14]
    assert capsys.readouterr().out == "removed the member at 10.0.0.4\n"
    with pytest.raises(member.Trouble, match=r"10\.0\.0\.5 is configured no more and runs: remove its zone first"):
        member.forget(stay)


def test_declaration_is_good_in_a_folder_of_its_own():
    declared = read_services([(COLLECTION / "services", "services"), (FOLDER, "site")]).components["etcd"]
    assert declared.hooks.keys() == {"prepare", "whole", "leave", "forget"}
    facts = declared.facts()
    assert facts["quorum"] and facts["data"] == "copied" and not facts["shrinks"] and facts["drain"] == 5
