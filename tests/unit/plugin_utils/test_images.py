# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import (
    Lock,
    base_image,
    image_id,
    normalise,
    python_image,
    service_image,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, Refused
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Declared, catalogue

LOCK = Lock("locks/x.txt", "keystone==30.0.0 \\\n    --hash=sha256:00\noslo.config==1\n", "{{ reference }}")
BASE = Place("services/_base.yml")


def declared(image: dict[str, object], name: str = "a") -> Declared:
    data = {"description": "A", "slot": 1, "image": image}
    return catalogue({name: (data, Place(f"services/{name}.yml"))}).components[name]


def made(
    image: dict[str, object], parent: str = "base-0", lock: Lock = LOCK, name: str = "a"
) -> tuple[str, dict[str, object]]:
    result = service_image(declared(image, name), {False: parent, True: f"python-{parent}"}, lock)
    assert result is not None
    return result


def test_id_is_the_name_and_the_digest_of_the_recipe():
    # sha256 of {"a":1,"b":[2]}, whatever the order of the keys
    assert (
        image_id("rabbit_mq", {"b": [2], "a": 1})
        == image_id("rabbit_mq", {"a": 1, "b": [2]})
        == "rabbit-mq-0855bfc20eb6"
    )


@pytest.mark.parametrize(
    "other",
    [
        made({"packages": ["c"]}),
        made({"packages": ["b", "a"]}),
        made({"packages": ["a", "b"], "commands": ["x"]}),
        made({"packages": ["a", "b"], "files": {"/x": "y"}}),
        made({"packages": ["a", "b"], "user": "u"}),
        made({"packages": ["a", "b"], "python": ["keystone"]}),
        made({"packages": ["a", "b"]}, parent="base-1"),
    ],
)
def test_every_part_of_a_recipe_changes_the_id(other):
    same = made({"packages": ["a", "b"]})
    assert same == made({"packages": ["a", "b"]})
    assert re.fullmatch(r"a-[0-9a-f]{12}", same[0])
    assert other[0] != same[0]


def test_lock_counts_only_where_python_is_used():
    other = Lock("locks/x.txt", LOCK.text.replace("30", "31"), LOCK.reference)
    assert made({"python": ["keystone"]})[0] != made({"python": ["keystone"]}, lock=other)[0]
    assert made({"packages": ["a"]})[0] == made({"packages": ["a"]}, lock=other)[0]


def test_where_the_lock_lies_does_not_count():
    moved = Lock("elsewhere/x.txt", LOCK.text, "{{ another }}")
    identity, entry = made({"python": ["keystone"]}, lock=moved)
    assert identity == made({"python": ["keystone"]})[0]
    assert entry["recipe"]["lock"] == "{{ another }}"  # type: ignore[index]


def test_recipe_is_complete():
    identity, entry = made({"python": ["keystone"], "packages": ["p"], "user": "u"})
    assert entry == {
        "name": "a",
        "parent": "python-base-0",
        "recipe": {
            "id": identity, "name": "a", "parent": "python-base-0", "packages": ["p"], "python": ["keystone"],
            "lock": "{{ reference }}", "venv": "/opt/a", "adds_to": "/opt/openstack", "user": "u", "commands": [], "files": {},
        },
    }  # fmt: skip


def test_service_that_adds_nothing_uses_its_parent():
    assert service_image(declared({}), {False: "base-0"}, LOCK) is None


def test_certificates_are_part_of_the_base_image():
    plain, entry = base_image({"suite": "trixie"}, BASE, {})
    trusted, with_ca = base_image({"suite": "trixie"}, BASE, {"ca.crt": "-----BEGIN CERTIFICATE-----"})
    assert plain != trusted
    assert entry["parent"] is None and entry["recipe"]["ca_certificates"] == {}
    assert with_ca["recipe"]["ca_certificates"] == {"ca.crt": "-----BEGIN CERTIFICATE-----"}


def test_requirement_that_the_lock_does_not_pin_is_refused():
    with pytest.raises(Refused) as refused:
        made({"python": ["keystone", "glance"]})
    assert str(refused.value) == (
        "services/a.yml: image.python[1]: value 'glance': locks/x.txt does not pin it: add it with scripts/update-locks.sh "
        "(known: keystone, oslo-config)"
    )


@pytest.mark.parametrize(
    "written",
    ["oslo.config", "Oslo_Config", "oslo-config[extra]", "oslo.config>=1", "oslo.config ; python_version>'3'"],
)
def test_names_are_compared_normalised(written):
    assert normalise(written) == "oslo-config"
    assert made({"python": [written]})


def test_unknown_key_of_the_base_image_is_refused():
    with pytest.raises(Refused, match=r"services/_base.yml: suit: value 'trixie': unknown key, did you mean 'suite'\?"):
        base_image({"suit": "trixie"}, BASE, {})


def test_what_python_images_share_is_an_image_below_them():
    identity, entry = python_image(
        {"python": ["oslo.config"], "packages": ["p"]}, Place("services/_python.yml"), "base-0", LOCK
    )
    assert entry == {
        "name": "python",
        "parent": "base-0",
        "recipe": {
            "id": identity, "name": "python", "parent": "base-0", "packages": ["p"], "python": ["oslo.config"],
            "lock": "{{ reference }}", "venv": "/opt/openstack",
        },
    }  # fmt: skip
    with pytest.raises(Refused, match=r"services/_python.yml: python\[0\]: value 'nova': locks/x.txt does not pin it"):
        python_image({"python": ["nova"]}, Place("services/_python.yml"), "base-0", LOCK)
