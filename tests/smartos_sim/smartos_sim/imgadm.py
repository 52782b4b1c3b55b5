# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""imgadm (facts 5). What it reports goes to stdout, errors as ``imgadm SUBCOMMAND: error (CODE): MESSAGE`` to stderr."""

from __future__ import annotations

import json
import os
import re
import sys
import typing as t
from pathlib import Path

from .files import ToolError, timestamp
from .state import State
from .validate import UUID

Manifest = dict[str, t.Any]

NOT_FOUND = ("ImageNotInstalled", "OriginNotInstalled")
COMPRESSIONS = ("none", "bzip2", "gzip", "xz")
SUFFIXES = {"none": "", "gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}
OSES = ("smartos", "linux", "windows", "bsd", "illumos", "other")
DOCKER_HUB = "https://docker.io"
SOURCE_TYPES = ("imgapi", "docker", "dsapi")
LOCAL_SOURCE = ".test"
"""A source on such a host, or one with manifests here, is answered from sources.json; no other is ever contacted."""


class ImgError(ToolError):
    """One of imgadm's errors, known by its code."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.code = 3 if name in NOT_FOUND else 1


# -- options -----------------------------------------------------------------------------------------------------------

FLAGS: dict[str, dict[str, str]] = {
    "sources": {"a=": "add", "d=": "delete", "t=": "type", "k": "insecure", "f": "force", "j": "json", "v": "verbose",
                "c": "check", "e": "edit", "add-docker-hub": "add_docker_hub"},
    "avail": {"j": "json", "H": "bare", "o=": "order", "s=": "sort"},
    "list": {"j": "json", "H": "bare", "o=": "order", "s=": "sort"},
    "show": {},
    "get": {"P=": "pool", "r": "recursive"},
    "import": {"P=": "pool", "S=": "source", "q": "quiet", "C=": "channel"},
    "install": {"P=": "pool", "m=": "manifest", "f=": "file", "q": "quiet"},
    "create": {"i": "incremental", "c=": "compression", "o=": "output", "s=": "script", "m=": "manifest", "p=": "publish",
               "q": "quiet", "max-origin-depth=": "depth"},
    "delete": {"P=": "pool"},
    "vacuum": {"n": "dry_run", "f": "force"},
    "update": {"n": "dry_run"},
    "ancestry": {"P=": "pool", "j": "json", "H": "bare"},
    "publish": {"m=": "manifest", "f=": "file", "q": "quiet"},
}  # fmt: skip
"""Per subcommand, its options by letter or long name (with = where it takes a value) and what they are called here."""

LONG = {"a": "add", "d": "delete", "t": "type", "k": "insecure", "f": "force", "j": "json", "v": "verbose", "c": "check",
        "e": "edit", "H": "bare", "n": "dry-run", "P": "zpool", "S": "source", "q": "quiet", "i": "incremental",
        "m": "manifest", "p": "publish", "s": "script", "o": "output-template", "r": "recursive"}  # fmt: skip
LONG_OF = {("create", "c"): "compression", ("avail", "s"): "sort", ("list", "s"): "sort", ("install", "f"): "file",
           ("publish", "f"): "file", ("avail", "o"): "order", ("list", "o"): "order", ("import", "C"): "channel"}  # fmt: skip
ALIASES = {"destroy": "delete"}


def parse(command: str, words: t.Sequence[str]) -> tuple[dict[str, t.Any], list[str]]:
    """Options and arguments; unknown options and missing values are refused."""
    known: dict[str, tuple[str, bool]] = {}
    for flag, name in FLAGS[command].items():
        letter = flag.rstrip("=")
        entry = (name, flag.endswith("="))
        if len(letter) == 1:
            known[f"-{letter}"] = entry
            known["--" + LONG_OF.get((command, letter), LONG.get(letter, name))] = entry
        else:
            known[f"--{letter}"] = entry
    options: dict[str, t.Any] = {}
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return options, rest + left
        if len(word) < 2 or word[0] != "-":
            rest.append(word)
            continue
        flag, mark, text = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if flag not in known:
            raise ImgError("Option", f'unknown option: "{flag}"')
        name, valued = known[flag]
        if not valued:
            options[name] = True
            if text and not mark:
                left.insert(0, f"-{text}")
        elif mark or text:
            options[name] = text
        elif left:
            options[name] = left.pop(0)
        else:
            raise ImgError("Option", f'do not have enough args for "{flag}" option')
    return options, rest


def _count(words: list[str], *right: int) -> None:
    if len(words) not in right:
        raise ImgError("Usage", f'incorrect number of args ({len(words)}): "{" ".join(words)}"')


def _uuid(text: t.Any) -> str:
    if not isinstance(text, str) or not UUID.fullmatch(text):
        raise ImgError("InvalidUUID", f'invalid uuid: "{"undefined" if text is None else text}"')
    return text


def say(text: str) -> None:
    """One line of progress or result, on stdout."""
    sys.stdout.write(text + "\n")


# -- tables ------------------------------------------------------------------------------------------------------------


def _derived(image: dict[str, t.Any]) -> Manifest:
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
    return manifest


def _value(manifest: Manifest, name: str) -> t.Any:
    """A dotted name in a manifest."""
    value: t.Any = manifest
    if name in manifest:
        return manifest[name]
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _filter(words: list[str]) -> list[tuple[str, str]]:
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


def _table(names: list[str], rows: list[dict[str, t.Any]], heading: bool = True) -> str:
    """Columns as wide as they must be; nothing at all, not even a heading, without rows."""
    if not rows:
        return ""
    cells = [[_cell(_value(row, name)) for name in names] for row in rows]
    if heading:
        cells.insert(0, [name.upper() for name in names])
    widths = [max(len(row[place]) for row in cells) for place in range(len(names))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "".join(line.rstrip() + "\n" for line in lines)


def _sorted(rows: list[Manifest], fields: str) -> list[Manifest]:
    """By each field, upwards unless it has a minus; what has no value comes first."""
    for field in reversed(fields.split(",")):
        name = field.lstrip("+-")

        def key(row: Manifest, name: str = name) -> tuple[bool, str]:
            value = _value(row, name)
            return value is not None, str(value)

        rows = sorted(rows, key=key, reverse=field.startswith("-"))
    return rows


def _show_list(images: list[dict[str, t.Any]], options: dict[str, t.Any], words: list[str]) -> None:
    """The common part of ``list`` and ``avail``. In JSON the derived fields come along once something looked at them."""
    filters = _filter(words)
    if options.get("json"):
        if filters or "sort" in options:
            by_manifest = [(_derived(image), image) for image in images]
            images = [{**image, "manifest": manifest} for manifest, image in by_manifest if _passes(manifest, filters)]
        say(json.dumps(images, indent=2, ensure_ascii=False))
        return
    rows = [row for row in map(_derived, images) if _passes(row, filters)]
    rows = _sorted(rows, str(options.get("sort", "published_at,name")))
    names = str(options.get("order", "uuid,name,version,os,type,pub")).split(",")
    sys.stdout.write(_table(names, rows, heading=not options.get("bare")))


# -- sources -----------------------------------------------------------------------------------------------------------


def _answers(source: dict[str, t.Any]) -> bool:
    host = re.sub(r"^\w+://|[:/].*$", "", re.sub(r"^(\w+://[^/:]*).*$", r"\1", source["url"]))
    return bool(source.get("images")) or host.endswith(LOCAL_SOURCE)


def _ask(source: dict[str, t.Any]) -> list[Manifest]:
    """The manifests of a source."""
    if not _answers(source) and source.get("images") is None:
        raise ImgError("ECONNREFUSED", f"connect ECONNREFUSED {source['url']}")
    return [manifest for manifest in source.get("images") or () if manifest.get("state", "active") == "active"]


def _sources(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _count(words, 0)
    sources = state.sources()
    if options.get("add_docker_hub"):
        options.update(add=DOCKER_HUB, type="docker")
    if "add" in options or "delete" in options:
        with state.lock_config():
            state.write_sources(_changed_sources(state.sources(), options))
        return
    if options.get("json"):
        shown = [{key: one[key] for key in ("url", "type", "insecure") if one.get(key)} for one in sources]
        say(json.dumps(shown, indent=2))
    elif options.get("check"):
        rows = [{"url": one["url"], "type": one["type"], "ok": _answers(one),
                 "error": None if _answers(one) else "ECONNREFUSED"} for one in sources]  # fmt: skip
        sys.stdout.write(_table(["url", "type", "ok", "error"], rows))
    elif options.get("verbose"):
        sys.stdout.write(_table(["url", "type", "insecure"], sources))
    else:
        for one in sources:
            say(one["url"])


def _changed_sources(sources: list[dict[str, t.Any]], options: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    if "delete" in options:
        url = options["delete"].rstrip("/")
        gone = [one for one in sources if one["url"] == url]
        for one in gone:
            say(f'Deleted "{one["type"]}" image source "{url}"')
        if not gone:
            say(f'Do not have image source "{url}", no change')
        return [one for one in sources if one not in gone]
    url, kind = options["add"].rstrip("/"), options.get("type", "imgapi")
    if kind not in SOURCE_TYPES:
        raise ImgError("Usage", f'invalid source type "{kind}": must be one of {", ".join(SOURCE_TYPES)}')
    for one in sources:
        if one["url"] == url and one["type"] == kind:
            say(f'Already have "{kind}" image source "{url}", no change')
            return sources
    new = {"url": url, "type": kind, **({"insecure": True} if options.get("insecure") else {})}
    if not options.get("force") and not _answers(new):
        raise ImgError("SourcePing", f'unexpected ping error on image source "{url}" (connect ECONNREFUSED)')
    say(f'Added "{kind}" image source "{url}"')
    return [*sources, new]


def _avail(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _filter(words)
    found, failure = [], None
    for source in state.sources():
        try:
            found += [{"manifest": manifest, "source": source["url"]} for manifest in _ask(source)]
        except ImgError as error:
            failure = error
    _show_list(found, options, words)
    if failure:
        raise failure


def _show(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _count(words, 1)
    found = _find(state.sources(), words[0])
    if found is None:
        raise ImgError("ImageNotFound", f'image "{words[0]}" was not found')
    say(json.dumps(found[1], indent=2, ensure_ascii=False))


def _find(sources: list[dict[str, t.Any]], uuid: str) -> tuple[dict[str, t.Any], Manifest] | None:
    failure = None
    for source in sources:
        try:
            for manifest in _ask(source):
                if manifest["uuid"] == uuid:
                    return source, manifest
        except ImgError as error:
            failure = error
    if failure:
        raise failure
    return None


# -- installed images --------------------------------------------------------------------------------------------------


def _pool(options: dict[str, t.Any]) -> str:
    return str(options.get("pool", "zones"))


def _installed(state: State, uuid: str, pool: str) -> dict[str, t.Any]:
    image = state.image(_uuid(uuid), pool)
    if image is None:
        raise ImgError("ImageNotInstalled", f'image "{uuid}" was not found on zpool "{pool}"')
    return image


def _shown(image: dict[str, t.Any]) -> dict[str, t.Any]:
    source = {"source": image["source"]} if image.get("source") else {}
    return {"manifest": image["manifest"], "zpool": image["zpool"], **source}


def _list(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _filter(words)
    images = []
    for image in state.images():
        names = state.clones(image)
        images.append({**_shown(image), "cloneNames": names, "clones": len(names)})
    _show_list(images, options, words)


def _get(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _count(words, 1)
    image = _installed(state, words[0], _pool(options))
    shown = _shown(image)
    if options.get("recursive"):
        snapshot = f"{image['zpool']}/{image['manifest']['uuid']}@final"
        shown["children"] = {"snapshots": [snapshot], "clones": state.clones(image)}
    say(json.dumps(shown, indent=2, ensure_ascii=False))


def _delete(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _count(words, 1)
    uuid, pool = _uuid(words[0]), _pool(options)
    with state.lock_image(uuid, pool):
        image = _installed(state, uuid, pool)
        clones = state.clones(image)
        if clones:
            more = f" and {len(clones) - 1} others..." if len(clones) > 1 else ""
            raise ImgError("ImageHasDependentClones", f'image "{uuid}" has dependent clones: {clones[0]}{more}')
        _remove(state, image)
    say(f"Deleted image {uuid}")


def _remove(state: State, image: dict[str, t.Any]) -> None:
    state.platform().image_destroy(image["manifest"]["uuid"], image["zpool"])
    state.remove_image(image)


def _vacuum(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    if words:
        raise ImgError("Usage", f"unexpected arguments: {' '.join(words)}")
    unused = [image for image in state.images() if not state.clones(image)]
    if not unused:
        return
    if not options.get("force") and not options.get("dry_run"):
        for image in unused:
            say(f"    {image['manifest']['uuid']} ({_name_at(image['manifest'])})")
        sys.stdout.write(f"Delete {len(unused)} images? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("Aborting.")
            return
    prefix = "[dry-run] " if options.get("dry_run") else ""
    for image in unused:
        if not options.get("dry_run"):
            _remove(state, image)
        say(f"{prefix}Deleted image {image['manifest']['uuid']} ({_name_at(image['manifest'])})")


def _name_at(manifest: Manifest, mark: str = "@") -> str:
    """NAME@VERSION, as JavaScript joins it."""
    return f"{manifest.get('name', 'undefined')}{mark}{manifest.get('version', 'undefined')}"


def _ancestry(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _count(words, 1)
    image: dict[str, t.Any] | None = _installed(state, words[0], _pool(options))
    line = []
    while image is not None:
        line.append(_shown(image))
        origin = image["manifest"].get("origin")
        image = state.image(origin, image["zpool"]) if origin else None
    if options.get("json"):
        say(json.dumps(line, indent=2, ensure_ascii=False))
        return
    rows = [_derived(one) for one in line]
    sys.stdout.write(_table(["uuid", "name", "version", "published"], rows, heading=not options.get("bare")))


def _update(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    images = state.images()
    unknown = [word for word in words if all(image["manifest"]["uuid"] != word for image in images)]
    if unknown:
        raise ImgError("Usage", f"no installed image with the given UUID(s): {', '.join(unknown)}")
    for image in images:
        uuid = image["manifest"]["uuid"]
        if words and uuid not in words:
            continue
        found = _find([one for one in state.sources() if _answers(one)], uuid)
        if found is None or found[1] == image["manifest"]:
            continue
        say(f"{'[dry-run] ' if options.get('dry_run') else ''}Updated image {uuid} ({_name_at(found[1])})")
        if not options.get("dry_run"):
            state.write_image({**image, "manifest": found[1], "source": found[0]["url"]})


# -- import and install ------------------------------------------------------------------------------------------------


def _skip(state: State, uuid: str, pool: str) -> bool:
    """Say that an image is there already, with its own name and version."""
    image = state.image(uuid, pool)
    if image is None:
        return False
    name = f" ({_name_at(image['manifest'], ' ')})" if "name" in image["manifest"] else ""
    say(f"Image {uuid}{name} is already installed, skipping")
    return True


def _import(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _count(words, 1)
    uuid, pool = words[0], _pool(options)
    if not re.fullmatch(r"\S+", uuid):
        raise ImgError("Usage", f'invalid image-id arg: "{uuid}"')
    with state.lock_image(uuid.replace("/", "_"), pool):
        if _skip(state, uuid, pool):
            return
        sources = state.sources()
        if "source" in options:
            url = options["source"].rstrip("/")
            sources = [one for one in sources if one["url"] == url] or [{"url": url, "type": "imgapi"}]
        found = _find(sources, uuid)
        if found is None:
            raise ImgError("ActiveImageNotFound", f'an active image "{uuid}" was not found in image sources')
        source, manifest = found
        _import_origin(state, options, manifest, pool)
        _check_platform(state, manifest)
        say(f'Importing {uuid} ({_name_at(manifest)}) from "{source["url"]}"')
        stream = source.get("files", {}).get(uuid)
        _receive(state, manifest, Path(stream) if stream else None, pool, source["url"])
    say(f"Imported image {uuid} ({_name_at(manifest)})")


def _import_origin(state: State, options: dict[str, t.Any], manifest: Manifest, pool: str) -> None:
    origin = manifest.get("origin")
    if origin and state.image(origin, pool) is None:
        _import(state, options, [origin])


def _receive(state: State, manifest: Manifest, stream: Path | None, pool: str, source: str | None) -> None:
    compression = manifest["files"][0]["compression"] if manifest.get("files") else "none"
    state.platform().image_install(manifest["uuid"], stream, compression, pool)
    state.write_image({"zpool": pool, "source": source, "manifest": manifest})


def _install(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _count(words, 0)
    for name in ("manifest", "file"):
        if name not in options:
            raise ImgError("Usage", f"missing -{name[0]}, --{name} option")
        if not os.path.exists(options[name]):
            raise ImgError("Usage", f'{name} path does not exist: "{options[name]}"')
    try:
        found = json.loads(Path(options["manifest"]).read_text())
    except ValueError as bad:
        raise ImgError("InvalidManifest", f'manifest "{options["manifest"]}" is invalid: {bad}') from None
    manifest: Manifest = found if isinstance(found, dict) else {}
    uuid, pool = _uuid(manifest.get("uuid")), _pool(options)
    with state.lock_image(uuid, pool):
        if _skip(state, uuid, pool):
            return
        say(f"Installing image {uuid} ({_name_at(manifest)})")
        validate_manifest(manifest)
        _check_platform(state, manifest)
        origin = manifest.get("origin")
        if origin and state.image(origin, pool) is None:
            raise ImgError("OriginNotInstalled", f'origin image "{origin}" was not found on zpool "{pool}"')
        _check_file(manifest["files"][0], options["file"])
        if pool not in state.pools():
            raise ImgError("InternalError", f"cannot open '{pool}': no such pool")
        _receive(state, manifest, Path(options["file"]), pool, None)
    say(f"Installed image {uuid} ({_name_at(manifest)})")


def _check_file(entry: dict[str, t.Any], path: str) -> None:
    """Size and digest are those of the compressed file."""
    size = os.path.getsize(path)
    if entry["size"] != size:
        wanted = entry["size"] if isinstance(entry["size"], int) else "NaN"
        raise ImgError("DownloadError", f"image file size error: manifest says {wanted} bytes, {path} is {size} bytes")
    import hashlib

    with open(path, "rb") as source:
        digest = hashlib.file_digest(source, "sha1").hexdigest()
    if digest != entry["sha1"]:
        raise ImgError("DownloadError", f"image file sha1 error: manifest says {entry['sha1']}, {path} is {digest}")


def validate_manifest(manifest: Manifest) -> None:
    """Refuse a manifest that install does not take; all that is wrong at once."""
    if manifest.get("v") == 1 or "v" not in manifest:
        raise ImgError(
            "InvalidManifest",
            f'manifest is invalid: old DSAPI manifest does not have a "creator_uuid": {json.dumps(manifest)}',
        )
    problems = [
        f"{name} (MissingParameter)" for name in ("name", "version", "type", "os") if manifest.get(name) is None
    ]
    problems += _manifest_values(manifest)
    files = _manifest_files(manifest.get("files"))
    if files:
        problems.append(f"files ({files})")
    if problems:
        raise ImgError("ManifestValidation", f"invalid manifest: {', '.join(problems)}")


def _manifest_values(manifest: Manifest) -> t.Iterator[str]:
    if manifest.get("os") is not None and manifest["os"] not in OSES:
        yield f'os (invalid image os, "{manifest["os"]}", must be one of: {", ".join(OSES)})'
    published = manifest.get("published_at")
    if published is not None and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", str(published)):
        yield 'published_at (published_at date not in "YYYY-MM-DDTHH:MM:SS(.SSS)Z" format)'
    if not isinstance(manifest.get("tags", {}), dict):
        yield f'tags (invalid image "tags" (not an object): {json.dumps(manifest["tags"])})'
    for version, stamp in manifest.get("requirements", {}).get("min_platform", {}).items():
        if not re.fullmatch(r"\d{8}T\d{6}Z", str(stamp)):
            yield (
                f'requirements.min_platform (invalid image "requirements.min_platform" entry: "{version}: {stamp}" '
                "not a valid platform version)"
            )
    size = manifest.get("image_size")
    if size is not None and manifest.get("type") != "zvol":
        # the recorded tool words it the wrong way round
        yield f'image_size (invalid image image_size: "{size}" (cannot have a value when image type is zvol))'
    elif size is not None and (not isinstance(size, int) or size <= 0):
        yield f'image_size (invalid image image_size: "{size}" (must be a positive integer))'
    for name in ("nic_driver", "disk_driver", "cpu_type"):
        if name in manifest and not isinstance(manifest[name], str):
            yield f'{name} (invalid image {name}: "{manifest[name]}" (must be a string))'


def _manifest_files(files: t.Any) -> str | None:
    if not isinstance(files, list):
        return "MissingParameter" if files is None else f'invalid image "files" (not an array): {files}'
    if len(files) != 1:
        return f'invalid image "files": {"too many files" if files else "no files"}'
    for name in ("sha1", "size", "compression"):
        if files[0].get(name) is None:
            return f'invalid image "files": file missing "{name}" field'
    compression = files[0]["compression"]
    if compression not in COMPRESSIONS:
        return f'invalid image "files": invalid compression "{compression}" (must be one of gzip, bzip2, xz, none)'
    return None


def _check_platform(state: State, manifest: Manifest) -> None:
    """``min_platform`` is held against this node's platform stamp."""
    here = state.node["platform"]
    for stamp in manifest.get("requirements", {}).get("min_platform", {}).values():
        if here < stamp:
            raise ImgError(
                "MinPlatform",
                f"image {manifest['uuid']} ({_name_at(manifest)}) requires platform {stamp} or later, this is {here}",
            )


# -- create ------------------------------------------------------------------------------------------------------------


def _create(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    """Make an image of a stopped VM. Of preparing a running one with a script (-s), and of -p, nothing is simulated."""
    compression = options.get("compression", "none")
    if compression not in COMPRESSIONS:
        choices = ", ".join(f'"{one}"' for one in COMPRESSIONS)
        raise ImgError("Usage", f'invalid -c,--compression "{compression}": must be one of {choices}')
    if "output" in options and "publish" in options:
        raise ImgError("Usage", "cannot specify both -o,--output-template and -p,--publish")
    if not words:
        _count(words, 1)
    uuid = _uuid(words[0])
    record = state.record(uuid)
    if record is None:
        raise ImgError("VmNotFound", f'vm "{uuid}" was not found')
    for name in ("script", "publish"):
        if name in options:
            raise ImgError("NotSupported", f"smartos-sim does not simulate imgadm create --{name}")
    with state.lock_vm(uuid):
        vm = state.view(record)
        if vm["state"] != "stopped":
            raise ImgError("VmNotStopped", f'vm "{uuid}" is not stopped')
        manifest = _new_manifest(state, options, words[1:], vm)
        origin = manifest.get("origin")
        target = _target(options, manifest, vm, compression)
        say("Manifest:\n" + re.sub("^", "    ", json.dumps(manifest, indent=2), flags=re.MULTILINE))
        state.platform(vm["brand"]).image_create_from_vm(vm, target, compression, origin)
    import hashlib

    with open(target, "rb") as made:
        digest = hashlib.file_digest(made, "sha1").hexdigest()
    manifest["files"] = [{"sha1": digest, "size": target.stat().st_size, "compression": compression}]
    kept = Path(re.sub(r"\.(zfs|zvol)(\.gz|\.bz2|\.xz)?$", ".imgmanifest", str(target)))
    kept.write_text(json.dumps(manifest, indent=2) + "\n")
    say(f'Saved manifest to "{kept}".\nSaved image file to "{target}".')


def _new_manifest(state: State, options: dict[str, t.Any], fields: list[str], vm: dict[str, t.Any]) -> Manifest:
    """What the origin says and the caller adds; an image of a joyent zone wants at least this platform."""
    from .payload import NO_UUID, new_uuid

    root = vm.get("image_uuid") or next(
        (disk["image_uuid"] for disk in vm.get("disks", ()) if "image_uuid" in disk), ""
    )
    origin = state.image(root, vm["zpool"]) if root else None
    parent: Manifest = origin["manifest"] if origin else {}
    given: Manifest = json.loads(Path(options["manifest"]).read_text()) if "manifest" in options else {}
    for word in fields:
        name, _mark, value = word.partition("=")
        given[name] = value
    for name in ("name", "version"):
        if name not in given:
            raise ImgError("ManifestValidation", f"invalid manifest: {name} (MissingParameter)")
    requirements: dict[str, t.Any] = {**parent.get("requirements", {}), **given.pop("requirements", {})}
    if vm["brand"] in ("lx", "bhyve", "kvm"):
        requirements["brand"] = vm["brand"]
    else:
        requirements["min_platform"] = {"7.0": state.node["platform"]}
    kinds = {"lx": "lx-dataset", "bhyve": "zvol", "kvm": "zvol"}
    manifest: Manifest = {
        "v": 2,
        "uuid": new_uuid(),
        "owner": vm["owner_uuid"] or NO_UUID,
        "state": "active",
        "disabled": False,
        "public": False,
        "published_at": timestamp(),
        "type": parent.get("type", kinds.get(vm["brand"], "zone-dataset")),
        "os": parent.get("os", "linux" if vm["brand"] == "lx" else "smartos"),
        **given,
        "requirements": requirements,
    }
    for name in ("nic_driver", "disk_driver", "cpu_type", "image_size"):
        if name in parent:
            manifest.setdefault(name, parent[name])
    if options.get("incremental"):
        if origin is None:
            raise ImgError("VmHasNoOrigin", f'vm "{vm["uuid"]}" has no origin image')
        manifest["origin"] = root
    return manifest


def _target(options: dict[str, t.Any], manifest: Manifest, vm: dict[str, t.Any], compression: str) -> Path:
    prefix = Path(options.get("output", "."))
    if prefix.is_dir():
        prefix = prefix / f"{manifest['name']}-{manifest['version']}"
    return Path(f"{prefix}.{'zvol' if vm['hvm'] else 'zfs'}{SUFFIXES[compression]}")


def _publish(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    _count(words, 1)
    for name in ("manifest", "file"):
        if name not in options:
            raise ImgError("Usage", f"missing -{name[0]}, --{name} option")
        if not os.path.exists(options[name]):
            raise ImgError("Usage", f'{name} path does not exist: "{options[name]}"')
    raise ImgError("NotSupported", "smartos-sim does not simulate imgadm publish")


COMMANDS: dict[str, t.Callable[[State, dict[str, t.Any], list[str]], None]] = {
    "sources": _sources, "avail": _avail, "list": _list, "show": _show, "get": _get, "import": _import,
    "install": _install, "create": _create, "delete": _delete, "vacuum": _vacuum, "update": _update,
    "ancestry": _ancestry, "publish": _publish,
}  # fmt: skip

HELP = """\
Manage SmartOS virtual machine images.

Usage:
    imgadm [OPTIONS] COMMAND [ARGS...]

Commands:
    """ + ", ".join(COMMANDS)


def _run(argv: list[str], errors_as_json: bool) -> int:
    word, words = argv[0], argv[1:]
    command = ALIASES.get(word, word)
    prefix = f"imgadm {word}"
    try:
        if word.startswith("-"):
            prefix = "imgadm"
            raise ImgError("Option", f'unknown option: "{word}"')
        if command not in COMMANDS:
            raise ImgError("UnknownCommand", f'unknown command: "{word}"')
        state = State()
        options, rest = parse(command, words)
        COMMANDS[command](state, options, rest)
    except ToolError as error:
        sys.stdout.flush()
        name = error.name if isinstance(error, ImgError) else "InternalError"
        if errors_as_json:
            _bunyan(name, str(error), error.code)
        else:
            sys.stderr.write(f"{prefix}: error ({name}): {error}\n")
        return error.code
    return 0


def _bunyan(name: str, message: str, status: int) -> None:
    """The error as one line of JSON, for programs (-E)."""
    entry = {
        "name": "imgadm", "hostname": State().node["hostname"], "pid": os.getpid(), "level": 50,
        "err": {"message": message, "name": "ImgadmError", "code": name, "exitStatus": status},
        "msg": message, "time": timestamp(), "v": 0,
    }  # fmt: skip
    sys.stderr.write(json.dumps(entry) + "\n")


def main(argv: list[str]) -> int:
    """Run imgadm; the exit status."""
    errors_as_json = False
    while argv and argv[0] in ("-E", "-v", "--verbose", "-d", "--debug"):
        errors_as_json = errors_as_json or argv[0] == "-E"
        argv = argv[1:]
    if not argv or argv[0] in ("help", "-h", "--help"):
        say(HELP)
        return 0 if argv else 1
    return _run(argv, errors_as_json)
