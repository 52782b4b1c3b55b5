# SPDX-License-Identifier: GPL-3.0-or-later
"""Images, flavors and quotas of topology.yml: what comes of good ones, and what is said about each bad one."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.cloud import (
    flavor_facts,
    image_facts,
    quota_facts,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, Refused, decode, parse_yaml
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import Contents

DIGEST = "a" * 64
GOOD = f"""
images:
  debian-13: {{url: "https://mirror.example/debian-13.qcow2", checksum: "sha256:{DIGEST}", properties: {{os_distro: debian, hw_vif_multiqueue_enabled: true}}}}
  mine: {{file: images/mine.raw, checksum: "sha256:{DIGEST}", disk_format: raw, min_disk: 3, visibility: private}}
  zonestack-test: {{built_in: zonestack-test}}
flavors:
  "m1.small": {{ram: 2048, properties: {{"hw:cpu_policy": dedicated}}}}
quotas:
  default: {{instances: -1}}
  demo: {{floating_ips: 3}}
"""


def read(text: str) -> dict[str, t.Any]:
    place = Place("topology.yml").at("cloud")
    contents: Contents = decode(Contents, parse_yaml(text, "topology.yml"), place)
    return {
        "images": image_facts(contents.images, place.at("images")),
        "flavors": flavor_facts(contents.flavors, place.at("flavors")),
        "quotas": quota_facts(contents.quotas, place.at("quotas")),
    }


def test_good_contents_have_their_defaults() -> None:
    found = read(GOOD)
    assert found["images"]["debian-13"]["disk_format"] == "qcow2"
    assert found["images"]["debian-13"]["properties"] == {"os_distro": "debian", "hw_vif_multiqueue_enabled": "true"}
    assert found["images"]["mine"]["disk_format"] == "raw"
    assert found["images"]["zonestack-test"]["disk_format"] == "raw"
    assert found["images"]["zonestack-test"]["path"] == "/usr/share/zonestack/zonestack-test.img"
    assert found["flavors"]["m1.small"] == {
        "ram": 2048,
        "vcpus": 1,
        "disk": 1,
        "ephemeral": 0,
        "swap": 0,
        "public": True,
        "properties": {"hw:cpu_policy": "dedicated"},
    }
    assert found["quotas"] == {"default": {"instances": -1}, "demo": {"floating_ips": 3}}


def test_without_a_word_there_are_the_test_image_and_flavors() -> None:
    found = read("networks: {}")
    assert list(found["images"]) == ["zonestack-test"]
    assert found["flavors"]["tiny"]["ram"] == 128
    assert found["quotas"] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flavors: {big: {vcpus: 4}}", "topology.yml: cloud.flavors.big.ram: the key is missing and has no default"),
        ("flavors: {big: {ram: 0}}", "topology.yml: cloud.flavors.big.ram: value 0: give 1 or more MiB"),
        ("flavors: {big: {ram: 64, memory: 1}}", "cloud.flavors.big.memory: value 1: unknown key"),
        (
            "images: {one: {}}",
            "topology.yml: cloud.images.one: give one of file, url and built_in",
        ),
        (
            f'images: {{one: {{file: a, url: "https://h/b", checksum: "sha256:{DIGEST}"}}}}',
            "cloud.images.one.url: value 'https://h/b': give one of file, url and built_in, not file and url",
        ),
        (
            'images: {one: {url: "https://h/b"}}',
            "cloud.images.one.checksum: give sha256: and the digest that sha256sum(1) prints of the url",
        ),
        (
            "images: {one: {file: a, checksum: abc}}",
            "cloud.images.one.checksum: value 'abc': write sha256: and 64 hexadecimal digits",
        ),
        (
            f'images: {{one: {{built_in: zonestack-test, checksum: "sha256:{DIGEST}"}}}}',
            "cloud.images.one.checksum: value 'sha256:",
        ),
        (
            "images: {one: {built_in: other}}",
            "cloud.images.one.built_in: value 'other': write one of the known values (known: zonestack-test)",
        ),
        (
            f'images: {{one: {{url: "ftp://h/b", checksum: "sha256:{DIGEST}"}}}}',
            "cloud.images.one.url: value 'ftp://h/b': write an http or https address of a file",
        ),
        (
            "images: {one: {built_in: zonestack-test, properties: {a: [1]}}}",
            "cloud.images.one.properties.a: value [1]: write a text, a number, true or false",
        ),
        ("quotas: {demo: {cores: -2}}", "cloud.quotas.demo.cores: value -2: give 0 or more, or -1 for no limit"),
        ("quotas: {default: {ports: 5}}", "cloud.quotas.default.ports: value 5: Neutron has defaults"),
        ("images: {' x': {built_in: zonestack-test}}", "write a name of 1 to 255 characters"),
    ],
)
def test_what_does_not_fit_is_refused_with_place_and_remedy(text: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        read(text)
    assert message in str(refused.value)
