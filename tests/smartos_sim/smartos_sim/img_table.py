# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of images: what they can show beside the manifest, filters, columns, order."""

from __future__ import annotations

import json
import re
import sys
import typing as t

from .img_error import ImgError

Manifest = dict[str, t.Any]


def derived(image: dict[str, t.Any]) -> Manifest:
    """A manifest with what lists can show beside it."""
    manifest: Manifest = dict(image["manifest"])
    published = manifest.get("published_at")
    if published:
        manifest["published_date"] = manifest["pub"] = published[:10]
        manifest["published"] = re.sub(r"\.\d+Z$", "Z", published)
    for name in ("source", "clones", "zpool"):
        if image.get(name) is not None:
            manifest[name] = image[name]
    if manifest.get("files"):
        manifest["size"] = manifest["files"][0].get("size")
    if manifest.get("type") == "docker":
        tags = manifest.get("tags", {})
        manifest.update(docker_id=tags.get("docker:id"), docker_repo=tags.get("docker:repo"))
        manifest["docker_short_id"] = (manifest["docker_id"] or "")[:12]
        manifest["docker_tags"] = [name[11:] for name in tags if name.startswith("docker:tag:")]
    return manifest


def _value(manifest: Manifest, name: str) -> t.Any:
    """A dotted name in a manifest."""
    value: t.Any = manifest
    if name in manifest:
        return manifest[name]
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def filters_of(words: list[str]) -> list[tuple[str, str]]:
    filters = []
    for word in words:
        name, mark, value = word.partition("=")
        if not mark or not name:
            raise ImgError("Usage", f'invalid filter: "{word}" (must be of the form "field=value")')
        filters.append((name, value))
    return filters


def _passes(manifest: Manifest, filters: list[tuple[str, str]]) -> bool:
    for name, wanted in filters:
        value = _value(manifest, name)
        text = json.dumps(value) if isinstance(value, bool) else "" if value is None else str(value)
        if wanted.startswith("~"):
            if wanted[1:] not in text:
                return False
        elif value is None or text != wanted:
            return False
    return True


def _cell(value: t.Any) -> str:
    if value is None or value == "":
        return "-"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def table(
    names: list[str], rows: list[dict[str, t.Any]], heading: bool = True, headings: list[str] | None = None
) -> str:
    """Columns as wide as they and their headings must be, shown or not; nothing at all without rows."""
    if not rows:
        return ""
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    cells.insert(0, headings or [name.upper() for name in names])
    widths = [max(len(row[place]) for row in cells) for place in range(len(names))]
    shown = cells if heading else cells[1:]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in shown)
    return "".join(line.rstrip() + "\n" for line in lines)


def _sorted(rows: list[Manifest], fields: str) -> list[Manifest]:
    """By each field, upwards unless it has a minus; what has no value comes first."""
    for field in reversed(names_of(fields)):
        name = field.lstrip("+-")

        def key(row: Manifest, name: str = name) -> tuple[bool, str]:
            value = _value(row, name)
            return value is not None, str(value)

        rows = sorted(rows, key=key, reverse=field.startswith("-"))
    return rows


def show_list(images: list[dict[str, t.Any]], options: dict[str, t.Any], words: list[str]) -> None:
    """The common part of ``list`` and ``avail``. In JSON the derived fields come along once something looked at them."""
    filters = filters_of(words)
    if options.get("docker"):
        filters.append(("type", "docker"))
    if options.get("json"):
        if filters or "sort" in options:
            by_manifest = [(derived(image), image) for image in images]
            images = [{**image, "manifest": manifest} for manifest, image in by_manifest if _passes(manifest, filters)]
        say(json.dumps(images, indent=2, ensure_ascii=False))
        return
    rows = [row for row in map(derived, images) if _passes(row, filters)]
    if options.get("docker"):
        _show_docker(rows, heading=not options.get("bare"))
        return
    rows = _sorted(rows, str(options.get("sort", "published_at,name")))
    names = names_of(str(options.get("order", "uuid,name,version,os,type,pub")))
    sys.stdout.write(table(names, rows, heading=not options.get("bare")))


def names_of(text: str) -> list[str]:
    """A list of columns, with or without blanks around its commas."""
    return re.split(r"\s*,\s*", text.strip())


def _show_docker(rows: list[Manifest], heading: bool) -> None:
    """One line for each tag of the images that no other one is made from."""
    origins = {row.get("origin") for row in rows}
    shown = [
        {**row, "docker_tag": tag} for row in rows if row["uuid"] not in origins for tag in row["docker_tags"] or [None]
    ]
    names = ["uuid", "docker_repo", "docker_tag", "docker_short_id", "published"]
    headings = ["UUID", "REPOSITORY", "TAG", "IMAGE_ID", "CREATED"]
    sys.stdout.write(table(names, _sorted(shown, "published_at"), heading, headings))


def say(text: str) -> None:
    """One line of progress or result, on stdout."""
    sys.stdout.write(text + "\n")
