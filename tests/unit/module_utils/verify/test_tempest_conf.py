# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import configparser
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.verify.tempest_conf import (
    Cloud,
    Refused,
    options,
    problems,
    project_network,
    skips,
    text,
)

FILES = Path(__file__).resolve().parents[4] / "playbooks/files/tempest"
CLOUD = Cloud(
    auth={"auth_url": "https://10.77.0.5:5000/v3", "username": "admin", "password": "a$b%c", "project_name": "admin"},
    region="RegionOne",
    ca=None,
    services=frozenset({"compute", "image", "network"}),
    image="image-id",
    flavors=("small-id", "big-id"),
    network="network-id",
    network_name="public",
    taken=("10.77.0.0/21", "10.78.0.0/24"),
    extensions=("port-security", "router"),
)


def test_what_the_cloud_says_becomes_options():
    made = options(CLOUD)
    assert made["service_available"] == {
        "nova": True,
        "glance": True,
        "neutron": True,
        "cinder": False,
        "swift": False,
        "horizon": False,
    }
    assert (made["compute"]["flavor_ref"], made["compute"]["flavor_ref_alt"]) == ("small-id", "big-id")
    assert made["network"]["public_network_id"] == "network-id"
    assert made["network-feature-enabled"] == {
        "api_extensions": "port-security,router",
        "port_security": True,
        "floating_ips": True,
    }
    assert "ca_certificates_file" not in made["identity"]
    assert "dashboard" not in made


def test_moving_instances_takes_two_hypervisors():
    features = ("cold_migration", "live_migration", "resize")
    assert [options(CLOUD)["compute-feature-enabled"][name] for name in features] == [False] * 3
    assert [options(replace(CLOUD, hypervisors=2))["compute-feature-enabled"][name] for name in features] == [True] * 3


def test_owners_options_come_last():
    made = options(replace(CLOUD, more={"compute": {"flavor_ref": "mine"}, "debug": {"trace_requests": ".*"}}))
    assert made["compute"]["flavor_ref"] == "mine" and made["compute"]["image_ref"] == "image-id"
    assert made["debug"] == {"trace_requests": ".*"}


def test_a_cloud_without_a_fitting_flavor_is_refused():
    with pytest.raises(Refused, match="no flavor"):
        options(replace(CLOUD, flavors=()))


def test_project_network_is_in_nobodys_way():
    assert project_network([]) == "10.100.0.0/16"
    assert project_network(["10.0.0.0/8", "172.16.0.0/12"]) == "192.168.0.0/17"
    with pytest.raises(Refused, match="set network.project_network_cidr"):
        project_network(["0.0.0.0/0"])


def test_text_is_read_back():
    parser = configparser.RawConfigParser(default_section="")
    parser.read_string(text(options(CLOUD)))
    assert parser["auth"]["admin_password"] == "a$$b%c", "oslo.config takes a single $ for the name of an option"
    assert parser["DEFAULT"]["debug"] == "true"


def test_options_that_tempest_would_not_take_are_named():
    known = {"compute": {"image_ref": str, "min_compute_nodes": int}}
    wanted = {"compute": {"image_ref": 1, "imgae_ref": 2, "min_compute_nodes": "two"}, "nowhere": {"x": 3}}
    assert problems({"compute": {"image_ref": 1, "min_compute_nodes": 2}}, known) == []
    unknown, value, section = problems(wanted, known)
    assert unknown == "compute.imgae_ref is no option of it"
    assert value.startswith("compute.min_compute_nodes cannot be 'two' (")
    assert section == "nowhere.x is no option of it"


def test_skip_needs_a_reason():
    assert skips("# comment\n\n^tempest\\.a\\.  # the guest has no such device\n", "f") == {
        "^tempest\\.a\\.": "the guest has no such device"
    }
    for line in ("^tempest", "^tempest # todo", "^tempest #"):
        with pytest.raises(Refused, match=r"^f:1: .* has no reason: write `\^tempest  # why"):
            skips(line, "f")
    with pytest.raises(Refused, match="f:2: 'a' is listed twice"):
        skips("a # because it is so\na # because it is so\n", "f")


def test_the_lists_are_in_order():
    for expression in skips((FILES / "skips.txt").read_text(), "skips.txt"):
        re.compile(expression)
    wanted = [line for line in (FILES / "tests.txt").read_text().splitlines() if line and not line.startswith("#")]
    for name in ("tempest.x.test_y[id-1,smoke]", "tempest.scenario.test_minimum_basic.T.test_z[compute,id-2]"):
        assert any(re.search(expression, name) for expression in wanted)
    assert not any(re.search(expression, "tempest.api.test_y[id-1]") for expression in wanted)
