# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give the modules of a virtualenv their byte code, each source of a release being compiled once for all images.

Images of OpenStack share most of their libraries, and compiling was the largest part of building them. The byte code is of the
kind that carries its source's hash (PEP 552, checked), so it holds wherever that source lies, and a source that somebody
edits in a zone wins over it. The file name in it is corrected by the interpreter when it is imported.

A program of its own, standard library only: ``zone_image`` hands its text to the Python of the image.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import importlib.util
import multiprocessing
import os
import py_compile
import re
import sys

TESTS = re.compile(r"/tests?(/|$)")
"""Folders whose modules no daemon imports: a quarter of all files."""


def sources(root: str) -> list[str]:
    """Paths of the modules below ``root``, those of tests left out."""
    found = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if name != "__pycache__" and not TESTS.search(f"/{name}")]
        found += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    return sorted(found)


def kept_at(source: bytes, cache: str) -> str:
    """Where the cache keeps the byte code of a source, for this interpreter alone."""
    name = hashlib.sha256(source).hexdigest()
    return os.path.join(cache, f"{sys.implementation.cache_tag}-{importlib.util.MAGIC_NUMBER.hex()}", name[:2], name)


def recall(path: str) -> bytes | None:
    """Byte code that the cache holds, unless a power loss has cut it short: its own digest comes before it."""
    try:
        with open(path, "rb") as stream:
            digest, code = stream.read(32), stream.read()
    except FileNotFoundError:
        return None
    return code if hashlib.sha256(code).digest() == digest else None


def write(path: str, *parts: bytes) -> None:
    """Write a file so that others see it whole or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draft = f"{path}.{os.getpid()}"
    with open(draft, "wb") as stream:
        stream.writelines(parts)
    os.rename(draft, path)


def is_of(path: str, source: bytes) -> bool:
    """Whether a file is the byte code of a source: the image below has brought both. What it has is not written again."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(16)
    except FileNotFoundError:
        return False
    return head[:4] == importlib.util.MAGIC_NUMBER and head[8:] == importlib.util.source_hash(source)


def give(path: str, cache: str) -> bool:
    """Give one module its byte code; whether it had to be compiled. What is no Python for this interpreter stays as it is."""
    with open(path, "rb") as stream:
        source = stream.read()
    target, kept = importlib.util.cache_from_source(path), kept_at(source, cache)
    if is_of(target, source):
        return False
    if (code := recall(kept)) is not None:
        write(target, code)
        return False
    try:
        py_compile.compile(path, target, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    except (py_compile.PyCompileError, ValueError, RecursionError):
        return False
    with open(target, "rb") as stream:
        code = stream.read()
    write(kept, hashlib.sha256(code).digest(), code)
    return True


def main(root: str, cache: str) -> None:
    """Compile what lies below ``root`` on all processors, and say how much of it was new."""
    paths = sources(root)
    # Forked: this program has no file that a fresh interpreter could read.
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        compiled = sum(pool.map(functools.partial(give, cache=cache), paths, chunksize=64))
    sys.stdout.write(f"{len(paths)} modules, {compiled} compiled\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
