# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images by content: an image's id is the digest of all that it is made from, its parent's id included.

Whatever changes a recipe changes the id, so an image never has to be asked whether it is current.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, decode_dataclass, encode
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import BaseImage, Declared, PythonImage

SHARED_VENV = "/opt/openstack"
"""The virtualenv that all images with Python packages have, each under the name of its service too."""

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """The lock of a release: which version of each Python distribution an image may hold.

    :param text: the file's content, in pip's requirements format; it is part of what an id is made from.
    :param reference: what stands in a recipe for the text, which is too long to be carried in every variable listing.
    """

    name: str
    text: str
    reference: str

    def pins(self) -> set[str]:
        """Normalised names (https://packaging.python.org/en/latest/specifications/name-normalization/) it pins."""
        return {normalise(name) for name in _PIN.findall(self.text)}


def file_reference(path: str) -> str:
    """What stands in a variable for the text of a file of the control machine."""
    return f"{{{{ lookup('ansible.builtin.file', {path!r}, rstrip=false) }}}}"


def normalise(requirement: str) -> str:
    """The distribution's normalised name in a requirement, its extras left out."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[;<>=!~ ]", requirement, maxsplit=1)[0]).lower()


def image_id(name: str, recipe: t.Mapping[str, t.Any]) -> str:
    """``<name>-<12 hexadecimal digits>``: SHA-256 of the recipe as canonical JSON."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{name.replace('_', '-')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def base_image(data: dict[str, t.Any], place: Place, certificates: t.Mapping[str, str]) -> tuple[str, dict[str, t.Any]]:
    """Id and entry of the base image.

    :param data: ``services/_base.yml``.
    :param certificates: further CA certificates that every zone trusts, file name to PEM text.
    """
    base = decode_dataclass(BaseImage, data, place)
    recipe = {**encode(base), "ca_certificates": dict(certificates)}
    identity = image_id("base", recipe)
    return identity, {
        "name": "base",
        "parent": None,
        "recipe": {"id": identity, "name": "base", "parent": None, **recipe},
    }


def python_image(data: dict[str, t.Any], place: Place, parent: str, lock: Lock) -> tuple[str, dict[str, t.Any]]:
    """Id and entry of the image that all images with Python packages stand on: its virtualenv is the one that they add to.

    :param data: ``services/_python.yml``.
    :param parent: id of the base image.
    """
    declared = decode_dataclass(PythonImage, data, place)
    _check_pins(declared.python, lock, place.at("python"))
    recipe = {**encode(declared), "parent": parent, "venv": SHARED_VENV, "lock": lock.text}
    identity = image_id("python", recipe)
    recipe = {"id": identity, "name": "python", **recipe, "lock": lock.reference}
    return identity, {"name": "python", "parent": parent, "recipe": recipe}


def service_image(
    component: Declared, parents: t.Mapping[bool, str], lock: Lock
) -> tuple[str, dict[str, t.Any]] | None:
    """Id and entry of a component's image, or nothing where the parent already holds all that it needs.

    Components of one service whose recipes are equal get one image, because it bears the service's name.

    :param parents: id of the image below it, by whether it has Python packages.
    """
    image = component.merged.image
    if not (image.packages or image.python or image.commands or image.files or image.copies or image.user):
        return None
    parent = parents[bool(image.python)]
    recipe = {"user": None, **encode(image), "parent": parent}
    copies = recipe.pop("copies")
    recipe["files"] = {**image.files, **{path: Path(source).read_text("utf-8") for path, source in copies.items()}}
    recipe["venv"] = f"/opt/{component.service}" if image.python else None
    recipe["lock"] = None
    if image.python:
        _check_pins(image.python, lock, component.place.at("image").at("python"))
        recipe |= {"adds_to": SHARED_VENV, "lock": lock.text}
    identity = image_id(component.service, recipe)
    if image.python:
        recipe["lock"] = lock.reference
    # like the lock, too long to be carried in every listing of variables
    recipe["files"] = {**image.files, **{path: file_reference(source) for path, source in copies.items()}}
    name = component.service
    return identity, {"name": name, "parent": parent, "recipe": {"id": identity, "name": name, **recipe}}


def _check_pins(requirements: t.Iterable[str], lock: Lock, place: Place) -> None:
    """Refuse a requirement that the lock does not pin."""
    pins = lock.pins()
    for index, requirement in enumerate(requirements):
        if normalise(requirement) not in pins:
            raise place.at(index).refuse(
                requirement, f"{lock.name} does not pin it: add it with scripts/update-locks.sh", sorted(pins)
            )
