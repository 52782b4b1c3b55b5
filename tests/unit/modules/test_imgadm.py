# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the modules for images and NIC tags, and what they decide; tests/unit/smartos runs them."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.imgadm import (
    Image,
    ImageError,
    Source,
    source_commands,
    unused,
)
from ansible_collections.zonestack.openstack.plugins.modules import imgadm, nictagadm
from ansible_collections.zonestack.openstack.plugins.modules.nictagadm import Tag

A, B = Source("https://a.example.com"), Source("https://b.example.com")


def facts(options):
    keys = ("type", "elements", "required", "default", "choices")
    return {name: {key: option[key] for key in keys if key in option} for name, option in options.items()}


@pytest.mark.parametrize("module", [imgadm, nictagadm])
def test_documentation_is_the_argument_spec(module):
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert facts(documented) == facts(module.ARGUMENTS)
    for name, option in module.ARGUMENTS.items():
        if "options" in option:
            assert facts(documented[name]["suboptions"]) == facts(option["options"])


def test_every_example_is_about_something():
    for task in yaml.safe_load(imgadm.EXAMPLES):
        given = {name: spec.get("default") for name, spec in imgadm.ARGUMENTS.items()} | task[
            "zonestack.openstack.imgadm"
        ]
        assert imgadm.subject(given) in imgadm.SUBJECTS[given["state"]]
    for task in yaml.safe_load(nictagadm.EXAMPLES):
        given = {name: spec.get("default") for name, spec in nictagadm.ARGUMENTS.items()} | task[
            "zonestack.openstack.nictagadm"
        ]
        assert given["state"] == "absent" or nictagadm.wanted(given, None)


@pytest.mark.parametrize(
    ("have", "want", "state", "exclusive", "commands", "after"),
    [
        ([A], [A], "present", False, [], [A]),
        ([A], [B], "present", False, [["-a", B.url, "-t", "imgapi"]], [A, B]),
        ([A], [B], "present", True, [["-d", A.url], ["-a", B.url, "-t", "imgapi"]], [B]),
        (
            [A, B],
            [Source(A.url, "docker")],
            "present",
            False,
            [["-d", A.url], ["-a", A.url, "-t", "docker"]],
            [B, Source(A.url, "docker")],
        ),
        (
            [A],
            [Source(A.url, insecure=True)],
            "present",
            False,
            [["-d", A.url], ["-a", A.url, "-t", "imgapi", "-k"]],
            [Source(A.url, insecure=True)],
        ),
        # One URL with two types: removing it removes both.
        ([A, Source(A.url, "docker")], [A], "present", False, [["-d", A.url], ["-a", A.url, "-t", "imgapi"]], [A]),
        ([A, B], [Source(B.url, "docker")], "absent", False, [["-d", B.url]], [A]),
        ([A], [], "present", True, [["-d", A.url]], []),
    ],
)
def test_20_sources(have, want, state, exclusive, commands, after):
    assert source_commands(have, want, state, exclusive) == (commands, after)
    assert source_commands(after, want, state, exclusive) == ([], after)


def image(name, *clones):
    return Image(name, "zones", {"uuid": name}, clones=tuple(f"zones/{clone}" for clone in clones))


def test_22_unused_images_are_those_under_unused_ones_too():
    images = [image("base", "app"), image("app", "app2"), image("app2"), image("used", "vm", "idle"), image("idle")]
    assert [one.uuid for one in unused(images)] == ["app2", "idle", "app", "base"]


def test_an_image_on_another_pool_is_no_clone_of_this_one():
    images = [image("base", "app"), Image("app", "data", {"uuid": "app"})]
    assert [one.dataset for one in unused(images)] == ["data/app"]


@pytest.mark.parametrize("state", ["present", "absent", "created", "updated"])
def test_nothing_is_done_by_halves(state):
    given = {name: spec.get("default") for name, spec in imgadm.ARGUMENTS.items()} | {"state": state, "name": "base"}
    with pytest.raises(ImageError, match=f"state {state}: the options that name the image are name: give"):
        imgadm.subject(given)


CONFIG = """\
# comment with stub_mtu=1
admin_nic=0:c:29:11:22:33
storage_nic=aggr0
storage_mtu=1500
storage_mtu=9000
etherstub=stub0,my_stub0
"""
LISTED = (
    "admin,00:0c:29:11:22:33,e1000g0,normal\nstorage,-,aggr0,aggr\nstub0,-,-,etherstub\nsdc_overlay,-,-,overlay rule\n"
)


def test_32_tags_and_their_mtu():
    assert nictagadm.tags(LISTED, CONFIG) == {
        "admin": Tag("admin", "normal", mac="00:0c:29:11:22:33", mtu=1500),
        "storage": Tag("storage", "aggr", aggr="aggr0", mtu=9000),
        "stub0": Tag("stub0", "etherstub"),
        "sdc_overlay": Tag("sdc_overlay", "overlay rule"),
    }


def test_a_tag_moves_from_a_nic_to_an_aggregation_and_back():
    given = {name: spec.get("default") for name, spec in nictagadm.ARGUMENTS.items()} | {"name": "admin"}
    tag = nictagadm.tags(LISTED, CONFIG)["admin"]
    onto = nictagadm.wanted({**given, "aggr": "aggr1"}, tag)
    assert nictagadm.commands(tag, onto) == [["nictagadm", "update", "-p", "mac=aggr1", "admin"]]
    back = nictagadm.wanted({**given, "mac": "0:c:29:11:22:33"}, onto)
    assert back == tag
    with pytest.raises(nictagadm.TagError, match="there is overlay rule"):
        nictagadm.wanted(given, nictagadm.tags(LISTED, CONFIG)["sdc_overlay"])


@pytest.mark.parametrize(
    ("name", "stubs", "spoils"),
    [
        ("stub0", "stub0,my_stub0", False),
        ("stub0", "my_stub0,stub0", False),  # what is left of the first and the second make the first again
        ("stub0", "my_stub0,b0,stub0", True),
        ("my_stub0", "stub0,my_stub0", False),
        ("stub1", "stub10,stub1", True),
        ("stub1", "stub0", False),
        ("stub1", "", False),
    ],
)
def test_an_etherstub_whose_removal_would_spoil_another(name, stubs, spoils):
    """nictagadm removes the text of the name wherever it is first found."""
    assert nictagadm.spoils(name, f"etherstub={stubs}\n") is spoils
