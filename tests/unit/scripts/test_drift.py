# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command drift asks hosts for, and what it makes of their answers. How zones are compared is tested in tests/integration."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from cloud import compute, load
from comparison.sides import throw_away
from deployment import Deployment, DeploymentError
from drift import Answers, rendered, report

TOPOLOGY = """\
plugin: zonestack.openstack.topology
release: "2026.2"
networks: {zone: {cidr: 10.77.0.0/21, interface: eth1}}
hosts: {a: {id: 1, connection: local}, b: {id: 2, address: 192.0.2.2}}
services: {galera: {count: 1, hosts: [a]}, memcached: {count: 2}, haproxy: , keystone: {count: 1}}
"""
FOUND = {"path": "/etc/x", "kind": "added", "owner": "nobody", "detail": ""}


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = Deployment("dev", tmp_path)
    made.folder.mkdir(parents=True)
    made.topology.write_text(TOPOLOGY)
    return made


def test_hosts_are_told_what_should_be_there_by_digest(deployment: Deployment) -> None:
    cloud = load(deployment)
    with pytest.raises(DeploymentError, match="there is no inventory/dev/secrets.yml"):
        rendered(deployment, cloud, ["a-memcached-1"])
    secrets = throw_away(compute(deployment.topology))
    deployment.secrets.write_text(yaml.safe_dump({"secrets": secrets}))
    wanted = rendered(deployment, cloud, ["a-keystone-1", "b-memcached-1"])
    assert {host: list(zones) for host, zones in wanted.items()} == {"a": ["a-keystone-1"], "b": ["b-memcached-1"]}
    keystone = wanted["a"]["a-keystone-1"]
    key = secrets["keystone"]["fernet_keys"]["0"]
    assert keystone["uuid"] == cloud.zones["a-keystone-1"].uuid
    assert keystone["files"]["/etc/keystone/fernet-keys/0"] == {
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "mode": "0400",
        "owner": "keystone",
        "group": "keystone",
    }
    assert keystone["directories"]["/etc/keystone"] == {"mode": "0750", "owner": "root", "group": "keystone"}
    assert set(keystone["units"]) == {"nftables.service", "keystone-api.service", "nginx.service"}
    assert not [
        one for one in (key, secrets["database"]["keystone"], secrets["pki"]["ca_key"]) if one in json.dumps(wanted)
    ]


def test_every_zone_is_accounted_for(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    cloud, answers = load(deployment), Answers()
    result = {
        "findings": {"a-keystone-1": [FOUND], "a-galera-1": []},
        "unseen": {"a-memcached-1": "it is not on this host"},
    }
    answers.take({"event": "runner_on_ok", "event_data": {"host": "a", "res": result}})
    answers.take({"event": "runner_on_unreachable", "event_data": {"host": "b", "res": {"msg": "no route\nmore"}}})
    unseen = answers.without(cloud, ["a-keystone-1", "a-galera-1", "a-memcached-1", "b-memcached-1", "a-haproxy-1"])
    assert unseen == {
        "a-memcached-1": "it is not on this host",
        "b-memcached-1": "no route",
        "a-haproxy-1": "its host did not answer",
    }
    report(Console(width=120), answers.findings, unseen)
    said = capsys.readouterr().out
    assert (
        "/etc/x" in said
        and "files that differ: 1, in 1 of 2 zones" in said
        and "b-memcached-1 was not checked: no route" in said
    )
    report(Console(width=120), {"a-galera-1": []}, {})
    assert capsys.readouterr().out == "no difference in any zone of 1 zones\n"
