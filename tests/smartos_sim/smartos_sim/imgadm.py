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

from . import img_create, img_sources
from .files import ToolError, timestamp
from .img_error import ImgError
from .img_manifest import check_platform, upgrade, validate
from .img_options import ALIASES, count_words, parse, uuid_of
from .img_sources import answers, ask, find
from .img_table import Manifest, derived, filters_of, names_of, say, show_list, table
from .state import State


def _avail(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    filters_of(words)
    found, failure = [], None
    for source in state.sources():
        try:
            found += [{"manifest": manifest, "source": source["url"]} for manifest in ask(source)]
        except ImgError as error:
            failure = error
    show_list(found, options, words)
    if failure:
        raise failure


def _show(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    count_words(words, 1)
    found = find(state.sources(), words[0])
    if found is None:
        raise ImgError("ImageNotFound", f'image "{words[0]}" was not found')
    say(json.dumps(found[1], indent=2, ensure_ascii=False))


# -- installed images --------------------------------------------------------------------------------------------------


def _pool(options: dict[str, t.Any]) -> str:
    return str(options.get("pool", "zones"))


def _installed(state: State, uuid: str, pool: str) -> dict[str, t.Any]:
    image = state.image(uuid_of(uuid), pool)
    if image is None:
        raise ImgError("ImageNotInstalled", f'image "{uuid}" was not found on zpool "{pool}"')
    return image


def _shown(image: dict[str, t.Any]) -> dict[str, t.Any]:
    source = {"source": image["source"]} if image.get("source") else {}
    return {"manifest": image["manifest"], "zpool": image["zpool"], **source}


def _list(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    filters_of(words)
    images = []
    for image in state.images():
        names = state.clones(image)
        images.append({**_shown(image), "cloneNames": names, "clones": len(names)})
    show_list(images, options, words)


def _get(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    count_words(words, 1)
    image = _installed(state, words[0], _pool(options))
    shown = _shown(image)
    if options.get("recursive"):
        snapshot = f"{image['zpool']}/{image['manifest']['uuid']}@final"
        shown["children"] = {"snapshots": [snapshot], "clones": state.clones(image)}
    say(json.dumps(shown, indent=2, ensure_ascii=False))


def _delete(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    count_words(words, 1)
    uuid, pool = uuid_of(words[0]), _pool(options)
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
    count_words(words, 1)
    image: dict[str, t.Any] | None = _installed(state, words[0], _pool(options))
    line = []
    while image is not None:
        line.append(_shown(image))
        origin = image["manifest"].get("origin")
        image = state.image(origin, image["zpool"]) if origin else None
    if options.get("json"):
        say(json.dumps(line, indent=2, ensure_ascii=False))
        return
    rows = [derived(one) for one in line]
    names = names_of(str(options.get("order", "uuid,name,version,published")))
    sys.stdout.write(table(names, rows, heading=not options.get("bare")))


def _update(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    images = state.images()
    unknown = [word for word in words if all(image["manifest"]["uuid"] != word for image in images)]
    if unknown:
        raise ImgError("Usage", f"no installed image with the given UUID(s): {', '.join(unknown)}")
    for image in images:
        uuid = image["manifest"]["uuid"]
        if words and uuid not in words:
            continue
        found = find([one for one in state.sources() if answers(one)], uuid)
        if found is None and image["manifest"].get("type") != "docker":
            say(f"warning: Could not find image {uuid} in image sources (skipping)")
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
    count_words(words, 1)
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
        found = find(sources, uuid)
        if found is None:
            raise ImgError("ActiveImageNotFound", f'an active image "{uuid}" was not found in image sources')
        source, manifest = found
        _import_origin(state, options, manifest, pool)
        check_platform(manifest, state.node["platform"])
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
    count_words(words, 0)
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
    uuid, pool = uuid_of(manifest.get("uuid")), _pool(options)
    with state.lock_image(uuid, pool):
        if _skip(state, uuid, pool):
            return
        say(f"Installing image {uuid} ({_name_at(manifest)})")
        upgrade(manifest)
        validate(manifest)
        check_platform(manifest, state.node["platform"])
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
        raise ImgError(
            "DownloadError",
            f'image file checksum (sha1) error: manifest says "{entry["sha1"]}", {path} is "{digest}"',
        )


def _publish(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    count_words(words, 1)
    for name in ("manifest", "file"):
        if name not in options:
            raise ImgError("Usage", f"missing -{name[0]}, --{name} option")
        if not os.path.exists(options[name]):
            raise ImgError("Usage", f'{name} path does not exist: "{options[name]}"')
    raise ImgError("NotSupported", "smartos-sim does not simulate imgadm publish")


COMMANDS: dict[str, t.Callable[[State, dict[str, t.Any], list[str]], None]] = {
    "sources": img_sources.run, "avail": _avail, "list": _list, "show": _show, "get": _get, "import": _import,
    "install": _install, "create": img_create.run, "delete": _delete, "vacuum": _vacuum, "update": _update,
    "ancestry": _ancestry, "publish": _publish,
}  # fmt: skip

HELP = """\
Manage SmartOS virtual machine images.

Usage:
    imgadm [OPTIONS] COMMAND [ARGS...]

Commands:
    """ + ", ".join(COMMANDS)


SUMMARIES = {"list": "List locally installed images."}


def _help(words: list[str]) -> int:
    if words and ALIASES.get(words[0], words[0]) not in COMMANDS:
        sys.stderr.write(f'imgadm help: error (UnknownCommand): unknown command: "{words[0]}"\n')
        return 1
    say(SUMMARIES.get(words[0], HELP) if words else HELP)
    return 0


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
        if options.get("help"):
            say(SUMMARIES.get(command, HELP))
            return 0
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
    if not argv:
        say(HELP)
        return 1
    if argv[0] in ("help", "-h", "--help"):
        return _help(argv[1:])
    return _run(argv, errors_as_json)
