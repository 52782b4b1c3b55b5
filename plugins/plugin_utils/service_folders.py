# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where services stand: the folders that hold their declarations, templates, programs and hooks.

A service is a folder. Beside its ``service.yml`` lie the templates, programs and other files that it names, and in ``tasks/`` its
hooks. Every other ``*.yml`` declares a component: ``services/nova/compute.yml`` is component ``nova_compute``, as if it stood under
``components``. Where several folders of services have a service of one name, the last one that has a file provides it.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, read_yaml
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import (
    Catalogue,
    Declaration,
    Declared,
    catalogue,
)

#: What a service may do in Ansible's words, by the name of the file in its folder ``tasks``; docs/how-to/adding-a-service.md says when.
HOOKS = ("prepare", "discover", "whole", "quiet", "leave", "forget")

COLLECTION = Path(__file__).resolve().parents[2]

#: Folders with the templates that every service may name.
COMMON_TEMPLATES = tuple(COLLECTION / "roles" / role / "templates" for role in ("openstack_service", "zone"))


@dataclass
class _Found:
    """What the folders hold of one service: the folders, the last one first, and the paths of its files."""

    folders: list[Path] = field(default_factory=list)
    declarations: dict[str, tuple[Path, str]] = field(default_factory=dict)
    hooks: dict[str, str] = field(default_factory=dict)

    def add(self, folder: Path, shown: str) -> None:
        """Lay one more folder over those before it."""
        self.folders.insert(0, folder)
        for path in sorted(folder.glob("*.yml")):
            self.declarations[path.stem] = (path, f"{shown}/{path.name}")
        for path in sorted((folder / "tasks").glob("*.yml")):
            if path.stem not in HOOKS:
                raise Place(f"{shown}/tasks/{path.name}").refuse(path.stem, "the engine has no such hook", HOOKS)
            self.hooks[path.stem] = str(path.absolute())

    def file(self, name: str) -> Path | None:
        """The file that a declaration means by ``name``."""
        return find_file(self.folders, name)


def find_file(folders: t.Iterable[str | Path], name: str) -> Path | None:
    """The file of that name in the first folder that has one."""
    return next((path for folder in folders if (path := Path(folder) / name).is_file()), None)


def read_services(folders: t.Iterable[tuple[Path, str]]) -> Catalogue:
    """The catalogue of all services in ``folders`` (path, and what messages call it).

    A file replaces the one of the same name in an earlier folder: so a deployment may bring its own declaration, or its own template.
    """
    files: dict[str, Declaration] = {}
    found: dict[str, _Found] = {}
    for folder, shown in folders:
        for path in sorted(folder.glob("*.yml")):
            if not path.name.startswith("_"):
                right = f"a service is a folder: move the file to {shown}/{path.stem}/service.yml, and what it uses beside it"
                raise Place(f"{shown}/{path.name}").missing(right)
            files[path.stem] = (read_yaml(path, f"{shown}/{path.name}"), Place(f"{shown}/{path.name}"))
        for path in sorted(one for one in folder.glob("[!_.]*") if one.is_dir()):
            found.setdefault(path.name, _Found()).add(path, f"{shown}/{path.name}")
    parts: dict[str, dict[str, Declaration]] = {}
    for name, mine in sorted(found.items()):
        if "service" not in mine.declarations:
            raise Place(str(mine.folders[0])).missing("a service's folder holds its declaration: write service.yml")
        for stem, (path, shown) in mine.declarations.items():
            place = Place(shown)
            data = read_yaml(path, shown)
            _find_copies(data, mine, place)
            if stem == "service":
                files[name] = (data, place)
            else:
                parts.setdefault(name, {})[f"{name}_{stem}"] = (data, place)
    known = catalogue(files, parts)
    for component in known.components.values():
        _check_files(component, found[component.service])
    complete = {
        name: replace(one, folders=tuple(map(str, found[one.service].folders)), hooks=found[one.service].hooks)
        for name, one in known.components.items()
    }
    return replace(known, components=complete)


def _check_files(component: Declared, found: _Found) -> None:
    """What a declaration names lies in its folder."""
    for path, item in component.merged.config.items():
        for key, further in (("template", COMMON_TEMPLATES), ("file", ())):
            name = getattr(item, key)
            if name is not None and find_file([*found.folders, *further], name) is None:
                here = component.place.at("config").at(path).at(key)
                raise here.refuse(name, f"no such file in {found.folders[0].name}/", _names(found))


def _names(found: _Found) -> list[str]:
    """The files that lie beside a declaration."""
    return sorted(
        {one.name for folder in found.folders for one in folder.glob("*") if one.suffix != ".yml"} - {"tasks"}
    )


def _find_copies(data: dict[str, t.Any], found: _Found, place: Place) -> None:
    """Put the paths of the files that ``image.copies`` names in place of their names."""
    components = data.get("components")
    owners = [(data, place), *((one, place.at("components").at(name)) for name, one in (components or {}).items())]
    for owner, here in owners:
        image = owner.get("image") if isinstance(owner, dict) else None
        copies = image.get("copies") if isinstance(image, dict) else None
        if not isinstance(copies, dict):
            continue  # nothing there, or something that the schema refuses
        for path, name in copies.items():
            source = found.file(str(name))
            if source is None:
                at = here.at("image").at("copies").at(path)
                raise at.refuse(name, f"no such file in {found.folders[0].name}/", _names(found))
            copies[path] = str(source.absolute())
