# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images, flavors and quotas: the closed schema of ``cloud:`` in ``topology.yml``, beside the provider networks."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import (
    Place,
    Rule,
    at_least,
    encode,
    matching,
)

#: Images that the utility zone's own image holds, and where.
BUILT_IN = {"zonestack-test": "/usr/share/zonestack/zonestack-test.img"}

Title = t.Annotated[
    str, matching(r"\S(.{0,253}\S)?", "write a name of 1 to 255 characters, without a blank at its ends")
]
_CHECKSUM = matching(r"sha256:[0-9a-f]{64}", "write sha256: and 64 hexadecimal digits, as sha256sum(1) prints them")
_URL = matching(r"https?://[^\s/]+/\S+", "write an http or https address of a file")
_LIMIT = Rule(lambda value: value >= -1, "give 0 or more, or -1 for no limit")
_DiskFormat = t.Literal["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ploop", "aki", "ari", "ami"]


# A key is one line.
# fmt: off
@dataclass(frozen=True)
class CloudImage:
    """An image that instances boot from, by its name. Its content comes from one of `file`, `url` and `built_in`."""

    file: t.Annotated[str | None, "Path on the control machine, relative to this file"] = None
    url: t.Annotated[str | None, "Where the control machine fetches it, once for each checksum", _URL] = None
    built_in: t.Annotated[t.Literal["zonestack-test"] | None, "An image that the deployment makes itself"] = None
    checksum: t.Annotated[str | None, "`sha256:` and the digest of the content, given with `file` and `url`; another one means another image", _CHECKSUM] = None
    disk_format: t.Annotated[_DiskFormat | None, "What the content is; default `qcow2`, of a built-in image `raw`"] = None
    container_format: t.Annotated[t.Literal["bare", "ovf", "ova", "docker", "compressed", "aki", "ari", "ami"], "What is around it"] = "bare"
    min_disk: t.Annotated[int, "Disk in GiB that a flavor must have", at_least(0, "GiB")] = 0
    min_ram: t.Annotated[int, "Memory in MiB that a flavor must have", at_least(0, "MiB")] = 0
    visibility: t.Annotated[t.Literal["public", "private", "shared", "community"], "Who may use it"] = "public"
    properties: t.Annotated[dict[str, t.Any], "Further properties, such as `os_distro: debian` or `hw_rng_model: virtio`"] = field(default_factory=dict)


@dataclass(frozen=True)
class Flavor:
    """A size that instances have, by its name."""

    ram: t.Annotated[int, "Memory in MiB", at_least(1, "MiB")]
    vcpus: t.Annotated[int, "Virtual processors", at_least(1)] = 1
    disk: t.Annotated[int, "Root disk in GiB; 0 means the image's own size, and only administrators may boot from an image then", at_least(0, "GiB")] = 1
    ephemeral: t.Annotated[int, "Second, empty disk in GiB", at_least(0, "GiB")] = 0
    swap: t.Annotated[int, "Swap disk in MiB", at_least(0, "MiB")] = 0
    public: t.Annotated[bool, "Whether every project may use it"] = True
    properties: t.Annotated[dict[str, t.Any], "Extra specs, such as `hw:cpu_policy: dedicated`"] = field(default_factory=dict)


@dataclass(frozen=True)
class Quota:
    """What a project may use at most; -1 is no limit. Under `quotas:` by project, or `default` for all that have none of their own."""

    instances: t.Annotated[int | None, "Instances", _LIMIT] = None
    cores: t.Annotated[int | None, "Virtual processors", _LIMIT] = None
    ram: t.Annotated[int | None, "Memory in MiB", _LIMIT] = None
    key_pairs: t.Annotated[int | None, "SSH keys of each user", _LIMIT] = None
    metadata_items: t.Annotated[int | None, "Metadata items of each instance", _LIMIT] = None
    server_groups: t.Annotated[int | None, "Server groups", _LIMIT] = None
    server_group_members: t.Annotated[int | None, "Instances in each server group", _LIMIT] = None
    networks: t.Annotated[int | None, "Networks; not in `default`", _LIMIT] = None
    subnets: t.Annotated[int | None, "Subnets; not in `default`", _LIMIT] = None
    ports: t.Annotated[int | None, "Ports; not in `default`", _LIMIT] = None
    routers: t.Annotated[int | None, "Routers; not in `default`", _LIMIT] = None
    floating_ips: t.Annotated[int | None, "Floating IPs; not in `default`", _LIMIT] = None
    security_groups: t.Annotated[int | None, "Security groups; not in `default`", _LIMIT] = None
    security_group_rules: t.Annotated[int | None, "Rules of all security groups together; not in `default`", _LIMIT] = None
# fmt: on


#: Neutron's part of a quota. Its defaults stand in its configuration; the API has none for all projects.
NETWORK_QUOTAS = ("networks", "subnets", "ports", "routers", "floating_ips", "security_groups", "security_group_rules")
#: The first two are for development: enough for the test image, and so small that many fit a notebook.
FLAVORS = {
    "tiny": Flavor(128),
    "mini": Flavor(256),
    "small": Flavor(2048, disk=20),
    "medium": Flavor(4096, vcpus=2, disk=40),
    "large": Flavor(8192, vcpus=4, disk=80),
}
IMAGES = {"zonestack-test": CloudImage(built_in="zonestack-test", properties={"os_distro": "debian"})}


def image_facts(images: t.Mapping[str, CloudImage], place: Place) -> dict[str, dict[str, t.Any]]:
    """Each image with its defaults, once its source is clear."""
    found = {}
    for name, image in images.items():
        here = place.at(name)
        given = [key for key in ("file", "url", "built_in") if getattr(image, key) is not None]
        if len(given) != 1:
            right = "give one of file, url and built_in" + (f", not {' and '.join(given)}" if given else "")
            raise here.at(given[1]).refuse(getattr(image, given[1]), right) if given else here.missing(right)
        if image.built_in and image.checksum:
            right = f"leave it out: the content of {image.built_in} is what the deployment makes"
            raise here.at("checksum").refuse(image.checksum, right)
        if not image.built_in and not image.checksum:
            right = f"give sha256: and the digest that sha256sum(1) prints of the {given[0]}"
            raise here.at("checksum").missing(right)
        found[name] = {
            **encode(image),
            "disk_format": image.disk_format or ("raw" if image.built_in else "qcow2"),
            "properties": _texts(image.properties, here.at("properties")),
        }
        if image.built_in:
            found[name]["path"] = BUILT_IN[image.built_in]
    return found


def flavor_facts(flavors: t.Mapping[str, Flavor], place: Place) -> dict[str, dict[str, t.Any]]:
    """Each flavor with its defaults."""
    return {
        name: {**encode(flavor), "properties": _texts(flavor.properties, place.at(name).at("properties"))}
        for name, flavor in flavors.items()
    }


def quota_facts(quotas: t.Mapping[str, Quota], place: Place) -> dict[str, dict[str, int]]:
    """Each project's quota, once it says what can be said."""
    for key in NETWORK_QUOTAS:
        value = getattr(quotas["default"], key) if "default" in quotas else None
        if value is not None:
            right = "Neutron has defaults in its configuration only: name the project, or set [quotas] in group_vars/neutron_api.yml"
            raise place.at("default").at(key).refuse(value, right)
    return {name: encode(quota) for name, quota in quotas.items()}


def _texts(properties: t.Mapping[str, t.Any], place: Place) -> dict[str, str]:
    """Properties as the APIs keep them: text."""
    found = {}
    for key, value in properties.items():
        if not isinstance(value, (str, int, float)):
            raise place.at(key).refuse(value, "write a text, a number, true or false")
        found[str(key)] = str(value).lower() if isinstance(value, bool) else str(value)
    return found
