# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to a cloud's contents, from what is held and what is wanted."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.apis import ContentsPlan, Contradiction
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.contents import (
    plan_availability_zones,
    plan_flavors,
    plan_networks,
    plan_quotas,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.glance import MARK, image_changes, plan_images

WISH = {
    "checksum": "sha256:aa",
    "disk_format": "raw",
    "container_format": "bare",
    "visibility": "public",
    "min_disk": 0,
    "min_ram": 0,
    "properties": {"os_distro": "debian"},
}
FLAVOR = {"ram": 128, "vcpus": 1, "disk": 1, "ephemeral": 0, "swap": 0, "public": True, "properties": {}}
NETWORK = {
    "cidr": "192.0.2.0/24",
    "gateway": "192.0.2.1",
    "pool": ["192.0.2.128", "192.0.2.254"],
    "mtu": 1500,
    "dns": [],
    "external": True,
    "shared": False,
}


def held_image(**changes: t.Any) -> dict[str, t.Any]:
    image = {
        "id": "i1",
        "name": "one",
        "status": "active",
        "os_hidden": False,
        MARK: "sha256:aa",
        **WISH,
        "os_distro": "debian",
    }
    for ours in ("checksum", "properties"):
        del image[ours]
    return {**image, **changes}


def held_flavor(**changes: t.Any) -> dict[str, t.Any]:
    flavor = {
        "id": "7",
        "name": "tiny",
        "ram": 128,
        "vcpus": 1,
        "disk": 1,
        "swap": "",
        "extra_specs": {"left": "alone"},
    }
    return {**flavor, "OS-FLV-EXT-DATA:ephemeral": 0, "os-flavor-access:is_public": True, **changes}


def labels(plan: ContentsPlan) -> list[str]:
    return [action.label for chain in plan.chains for action in chain]


def images(*held: dict[str, t.Any], files: dict[str, str] | None = None, **wish: t.Any) -> ContentsPlan:
    return plan_images(held, {"one": {**WISH, **wish}}, files or {})


def test_an_image_that_is_right_costs_nothing() -> None:
    plan = images(held_image())
    assert labels(plan) == []
    assert plan.needs == []
    assert plan.before == plan.after


def test_a_missing_image_needs_its_file() -> None:
    plan = images()
    assert labels(plan) == ["create image one"]
    assert plan.needs == ["one"]
    assert plan.before == {}
    assert images(files={"one": "/x"}).needs == []


def test_properties_change_in_place() -> None:
    plan = images(
        held_image(min_ram=5, os_distro="other", user_made="stays"), properties={"os_distro": "debian", "new": "x"}
    )
    assert labels(plan) == ["change min_ram, new, os_distro of image one"]
    assert plan.before["one"]["properties"] == {"os_distro": "other"}
    changes = image_changes(held_image(), {"os_distro": "x", "a/b": "1"})
    assert changes == [
        {"op": "replace", "path": "/os_distro", "value": "x"},
        {"op": "add", "path": "/a~1b", "value": "1"},
    ]


def test_another_content_is_another_image_and_the_earlier_one_is_hidden() -> None:
    plan = images(held_image(), checksum="sha256:bb")
    assert labels(plan) == ["create image one", "hide the earlier image one (i1)"]
    assert plan.before["one"]["checksum"] == "sha256:aa"
    assert plan.after["one"]["checksum"] == "sha256:bb"


def test_an_earlier_content_is_shown_again() -> None:
    plan = images(held_image(os_hidden=True), held_image(id="i2", **{MARK: "sha256:bb"}))
    assert labels(plan) == ["change os_hidden of image one", "hide the earlier image one (i2)"]


def test_an_upload_that_broke_off_is_made_anew() -> None:
    assert labels(images(held_image(status="saving"))) == ["remove the unfinished image one", "create image one"]


def test_an_image_of_somebody_else_is_not_taken_over() -> None:
    foreign = held_image()
    del foreign[MARK]
    with pytest.raises(Contradiction, match="cloud.images.one: image i1 of the administrator's project has this name"):
        images(foreign)


@pytest.mark.parametrize(
    ("held", "wish", "expected"),
    [
        ([], {}, ["create flavor tiny"]),
        ([held_flavor()], {}, []),
        ([held_flavor(ram=64)], {}, ["replace flavor tiny"]),
        ([held_flavor()], {"public": False}, ["replace flavor tiny"]),
        ([held_flavor()], {"properties": {"hw:x": "1"}}, ["set hw:x of flavor tiny"]),
        ([held_flavor(extra_specs={"hw:x": "1"})], {"properties": {"hw:x": "1"}}, []),
    ],
)
def test_flavors(held: list[dict[str, t.Any]], wish: dict[str, t.Any], expected: list[str]) -> None:
    plan = plan_flavors(held, {"tiny": {**FLAVOR, **wish}})
    assert labels(plan) == expected
    assert (plan.before == plan.after) == (not expected)


def neutron(**changes: t.Any) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    network = {"id": "n1", "name": "public", "mtu": 1500, "router:external": True, "shared": False}
    subnet = {
        "id": "s1",
        "name": "public",
        "cidr": "192.0.2.0/24",
        "gateway_ip": "192.0.2.1",
        "allocation_pools": [{"start": "192.0.2.128", "end": "192.0.2.254"}],
        "dns_nameservers": [],
        "enable_dhcp": False,
    }
    for key, value in changes.items():
        (network if key in network else subnet)[key] = value
    return {"public": [network]}, {"n1": [subnet]}


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (({}, {}), ["create network public", "create subnet public"]),
        (neutron(), []),
        (neutron(mtu=1400), ["change mtu of network public"]),
        (neutron(gateway_ip="192.0.2.9"), ["change gateway_ip of subnet public"]),
        ((neutron()[0], {}), ["create subnet public"]),
    ],
)
def test_networks(held: tuple[dict[str, t.Any], dict[str, t.Any]], expected: list[str]) -> None:
    plan = plan_networks(*held, {"public": NETWORK})
    assert labels(plan) == expected
    assert (plan.before == plan.after) == (not expected)


def test_the_range_of_a_subnet_cannot_change() -> None:
    with pytest.raises(
        Contradiction, match="cloud.networks.public.cidr: 192.0.2.0/24: Neutron's subnet s1 has 198.51.100.0/24"
    ):
        plan_networks(*neutron(cidr="198.51.100.0/24"), {"public": NETWORK})


def test_quotas_are_set_where_they_differ() -> None:
    held = {"default": {"id": None, "cores": 20, "ram": 1}, "demo": {"id": "p1", "ports": 5}}
    plan = plan_quotas(held, {"default": {"cores": 20}, "demo": {"ports": 9}})
    assert labels(plan) == ["change quota of project demo: ports"]
    assert plan.before == {"default": {"cores": 20}, "demo": {"ports": 5}}
    assert plan.after == {"default": {"cores": 20}, "demo": {"ports": 9}}


def test_an_aggregate_of_a_zones_name_that_is_none_is_not_taken_over() -> None:
    aggregate = {"id": 7, "name": "rack-1", "hosts": [], "metadata": {"ssd": "true"}}
    with pytest.raises(
        Contradiction,
        match="availability zone rack-1: host aggregate 7 has this name and does not define the zone: rename it",
    ):
        plan_availability_zones([aggregate], {"c1": {"zone": "rack-1", "provider": "u"}}, 1)
