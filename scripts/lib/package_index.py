# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the index of Python packages answers, before anything is installed: asked as pip and uv will, by this machine's settings.

Standard library alone, for bootstrap.py.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from checks.finding import Finding

INDEX = "https://pypi.org/simple"
"""pip's default."""
PROBED = "uv"
"""A package that each index must have: the first that is installed."""
LIMIT = 15
"""Seconds for an answer."""
ATTEMPTS = 3
"""How often a name is looked up whose name server says that it fails for the moment (EAI_AGAIN, getaddrinfo(3)), a second apart."""
TRUST = "put the CA's certificate into /usr/local/share/ca-certificates as a .crt file, and run update-ca-certificates"


def index_url(environment: Mapping[str, str], home: Path) -> str:
    """The index that packages come from: variables of uv and pip, then pip's configuration files, then PyPI."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if environment.get(name):
            return environment[name]
    parser = configparser.RawConfigParser(strict=False)
    for path in (Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"):
        with contextlib.suppress(configparser.Error, OSError):
            parser.read(path)
    return parser.get("global", "index-url", fallback="").strip() or INDEX


def request_of(url: str) -> tuple[urllib.request.Request, str]:
    """What is asked of an index, with the user and password of its address as a header; and the address without them."""
    parts = urllib.parse.urlsplit(url)
    at = parts.hostname or ""
    shown = urllib.parse.urlunsplit(parts._replace(netloc=f"{at}:{parts.port}" if parts.port else at))
    request = urllib.request.Request(f"{shown.rstrip('/')}/{PROBED}/", headers={"User-Agent": "zonestack"})
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    return request, shown


def _ask(request: urllib.request.Request) -> None:
    """Have an index answer; OSError or ValueError where it does not."""
    for left in reversed(range(ATTEMPTS)):
        try:
            with urllib.request.urlopen(request, timeout=LIMIT, context=ssl.create_default_context()):
                return
        except urllib.error.URLError as why:
            momentary = isinstance(why.reason, socket.gaierror) and why.reason.errno == socket.EAI_AGAIN
            if not (momentary and left):
                raise
        time.sleep(1)


def index_finding(environment: Mapping[str, str], home: Path | None = None) -> Finding | None:
    """What is wrong with the way to the index, None when it answers. One that is a folder is not asked."""
    url = index_url(environment, home or Path.home())
    if not url.startswith(("http:", "https:")):
        return None
    request, shown = request_of(url)
    try:
        _ask(request)
        return None
    except urllib.error.HTTPError as answer:
        return Finding(
            "packages", f"{shown} answers {answer.code} {answer.reason} for {PROBED}", "name the right index in PIP_INDEX_URL or /etc/pip.conf"
        )  # fmt: skip
    except (OSError, ValueError) as why:
        cause = getattr(why, "reason", why)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Finding(
                "packages", f"the certificate of {shown} is not trusted here ({cause.verify_message})", TRUST
            )
        return Finding(
            "packages",
            f"{shown}, where Python packages come from, is not reached ({getattr(cause, 'strerror', None) or cause})",
            "set https_proxy, or name an index that is reached in PIP_INDEX_URL or /etc/pip.conf; or bring a bundle (scripts/bundle.sh)",
        )


def needed(root: Path) -> bool:
    """Whether this checkout still has to install packages, from an index."""
    lock, stamp = root / "locks/control.txt", root / ".venv/zonestack.lock"
    installed = stamp.exists() and stamp.read_bytes() == lock.read_bytes()
    return not installed and not (root / "bundle").is_dir()


def finding(root: Path) -> Finding | None:
    """What is wrong with the way to the index, of a checkout that needs it."""
    return index_finding(os.environ) if needed(root) else None
