# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where images come from: ``imgadm sources``, and what the sources offer."""

from __future__ import annotations

import json
import re
import sys
import typing as t

from .img_error import ImgError
from .img_table import Manifest, say, table
from .state import State

DOCKER_HUB = "https://docker.io"
SOURCE_TYPES = ("imgapi", "docker", "dsapi")
LOCAL_SOURCE = ".test"
"""A source on such a host, or one with manifests here, is answered from sources.json; no other is ever contacted."""


def answers(source: dict[str, t.Any]) -> bool:
    host = re.sub(r"^\w+://|[:/].*$", "", re.sub(r"^(\w+://[^/:]*).*$", r"\1", source["url"]))
    return bool(source.get("images")) or host.endswith(LOCAL_SOURCE)


def ask(source: dict[str, t.Any]) -> list[Manifest]:
    """The manifests of a source."""
    if not answers(source) and source.get("images") is None:
        raise ImgError("ECONNREFUSED", f"connect ECONNREFUSED {source['url']}")
    return [manifest for manifest in source.get("images") or () if manifest.get("state", "active") == "active"]


def run(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    if words:
        raise ImgError("Usage", f"unexpected args: {' '.join(words)}")
    sources = state.sources()
    if options.get("add_docker_hub"):
        options.update(add=DOCKER_HUB, type="docker")
    if sum(bool(options.get(name)) for name in ("edit", "add", "delete", "check")) > 1:
        raise ImgError("Usage", 'cannot specify more than one of "-a", "-d", "-e", and "-c"')
    if options.get("edit"):
        raise ImgError("NotSupported", "smartos-sim does not simulate imgadm sources -e")
    if "add" in options or "delete" in options:
        with state.lock_config():
            state.write_sources(_changed_sources(state.sources(), options))
        return
    if options.get("json"):
        shown = [{key: one[key] for key in ("url", "type", "insecure") if one.get(key)} for one in sources]
        say(json.dumps(shown, indent=2))
    elif options.get("check"):
        rows = [{"url": one["url"], "type": one["type"], "ok": answers(one),
                 "error": None if answers(one) else "ECONNREFUSED"} for one in sources]  # fmt: skip
        sys.stdout.write(table(["url", "type", "ok", "error"], rows))
    elif options.get("verbose"):
        sys.stdout.write(table(["url", "type", "insecure"], sources))
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
    if not options.get("force") and not answers(new):
        raise ImgError("SourcePing", f'unexpected ping error on image source "{url}" (connect ECONNREFUSED)')
    say(f'Added "{kind}" image source "{url}"')
    return [*sources, new]


def find(sources: list[dict[str, t.Any]], uuid: str) -> tuple[dict[str, t.Any], Manifest] | None:
    failure = None
    for source in sources:
        try:
            for manifest in ask(source):
                if manifest["uuid"] == uuid:
                    return source, manifest
        except ImgError as error:
            failure = error
    if failure:
        raise failure
    return None
