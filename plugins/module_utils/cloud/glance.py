# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that a cloud holds: read, compared with what is wanted, and made (https://docs.openstack.org/api-ref/image/v2/)."""

from __future__ import annotations

import hashlib
import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.apis import (
    Action,
    Chain,
    CloudApis,
    ContentsPlan,
    Contradiction,
    Json,
    call_of,
    pages,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import ApiError

MARK = "zonestack_sha256"
"""Property of an image that a deployment made: the digest of its content. What bears it not is somebody else's."""

PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
IMAGE_FIELDS = ("visibility", "min_disk", "min_ram")


def read_images(cloud: CloudApis) -> list[Json]:
    """All images of the administrator's project, hidden ones too."""
    found = {}
    for hidden in ("false", "true"):
        for image in pages(cloud.images, "/images", "images", owner=cloud.project, visibility="all", os_hidden=hidden):
            found[image["id"]] = image
    return list(found.values())


def content_of(image: Json) -> tuple[str, str, str]:
    """What makes an image another image: neither can be changed once it is there."""
    return image[MARK], image["disk_format"], image["container_format"]


def shown_image(image: Json, properties: t.Iterable[str]) -> Json:
    """An image of Glance as the diff shows it."""
    return {
        "checksum": image[MARK],
        **{key: image[key] for key in ("disk_format", "container_format", *IMAGE_FIELDS)},
        "properties": {key: image[key] for key in sorted(properties) if key in image},
    }


def plan_images(held: t.Iterable[Json], wanted: t.Mapping[str, Json], files: t.Mapping[str, str]) -> ContentsPlan:
    """
    :param wanted: by name; ``checksum`` is that of the content, of a built-in image too.
    :param files: paths in this zone by name, of those images whose content lies here.
    """
    plan = ContentsPlan()
    held = list(held)
    for name, image in wanted.items():
        wish = {
            **{key: image[key] for key in ("disk_format", "container_format", *IMAGE_FIELDS)},
            **image["properties"],
            MARK: image["checksum"],
        }
        of_name = [one for one in held if one["name"] == name]
        ours = [one for one in of_name if one.get(MARK)]
        for one in of_name:
            if not one.get(MARK) and not one.get("os_hidden"):
                raise Contradiction(
                    f"cloud.images.{name}: image {one['id']} of the administrator's project has this name and was not created "
                    "by a deployment: rename or delete it, or choose another name for this one"
                )
        same = [one for one in ours if content_of(one) == content_of(wish)]
        current = next((one for one in same if one["status"] == "active"), None)
        chain: Chain = [
            Action(f"remove the unfinished image {name}", call_of("images", "DELETE", f"/images/{one['id']}"))
            for one in ours
            if one["status"] in ("queued", "saving", "killed")
        ]
        if current is None:
            chain.append(Action(f"create image {name}", _create_image(name, wish, files.get(name, ""))))
            if name not in files:
                plan.needs.append(name)
        else:
            changes = image_changes(current, wish)
            if changes:
                keys = ", ".join(sorted(change["path"][1:] for change in changes))
                chain.append(Action(f"change {keys} of image {name}", _patch_image(current["id"], changes)))
        earlier = [one for one in ours if one["status"] == "active" and one is not current and not one.get("os_hidden")]
        hide = [{"op": "replace", "path": "/os_hidden", "value": True}]
        chain += [
            Action(f"hide the earlier image {name} ({one['id']})", _patch_image(one["id"], hide)) for one in earlier
        ]
        shown = current or next(iter(earlier), None)
        before = None if shown is None else shown_image(shown, image["properties"])
        plan.add(name, before, shown_image(wish, image["properties"]), chain)
    return plan


def image_changes(current: Json, wish: Json) -> list[Json]:
    """A JSON patch. Properties that are not asked for stay: users and services put theirs there."""
    changes = [{"op": "replace", "path": "/os_hidden", "value": False}] if current.get("os_hidden") else []
    for key, value in wish.items():
        if current.get(key) != value:
            path = "/" + key.replace("~", "~0").replace("/", "~1")
            changes.append({"op": "replace" if key in current else "add", "path": path, "value": value})
    return changes


def _patch_image(image: str, changes: list[Json]) -> t.Callable[[CloudApis], t.Any]:
    return lambda cloud: cloud.images.call("PATCH", f"/images/{image}", changes, headers=PATCH)


def _create_image(name: str, wish: Json, path: str) -> t.Callable[[CloudApis], t.Any]:
    """Create and upload; what Glance says it holds must be what was sent."""

    def run(cloud: CloudApis) -> None:
        expected = file_digests(path)
        if expected["sha256"] != wish[MARK].removeprefix("sha256:"):
            raise Contradiction(
                f"{path}: sha256:{expected['sha256']} is not {wish[MARK]}, so it is not uploaded: run again"
            )
        image = cloud.images.call("POST", "/images", {"name": name, **wish}).body["id"]
        with open(path, "rb") as source:
            cloud.uploads.upload(f"/images/{image}/file", source)
        made = cloud.images.call("GET", f"/images/{image}").body
        if made["status"] != "active" or made.get("os_hash_value") != expected.get(made.get("os_hash_algo")):
            raise ApiError(
                f"image {name} ({image}): after the upload its status is {made['status']} and its {made.get('os_hash_algo')} "
                f"{made.get('os_hash_value')}: look at Glance's log"
            )

    return run


def file_digests(path: str) -> dict[str, str]:
    """SHA-256, by which an image is known, and SHA-512, which Glance computes."""
    digests = {name: hashlib.new(name) for name in ("sha256", "sha512")}
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            for digest in digests.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in digests.items()}
