# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a builder is given of its host: package archives, apt's settings, proxies and the package index."""

from __future__ import annotations

import configparser
import contextlib
import pathlib
import typing as t


def source_lines(suite: str, archive: str, security: str) -> list[str]:
    """The ``sources.list`` lines for ``suite``: the archive, its updates and its security updates ('' for none)."""
    lines = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
    return lines + ([f"deb {security} {suite}-security main"] if security else [])


def mirror_lines(suite: str, mirror: str) -> list[str]:
    """The same for a mirror's URI, security updates being at the same one with ``-security`` appended."""
    archive = mirror.rstrip("/")
    return source_lines(suite, archive, f"{archive}-security")


def apt_conf(own: t.Iterable[str]) -> str:
    """apt.conf(5) text for builders: more retries, no translations, nothing that is only recommended, and ``own`` lines.

    Retries come at once: apt 3.0 was seen to wait for ever, without any connection, for one that it had put off.
    """
    return "\n".join(
        [
            'Acquire::Retries "8";',
            'Acquire::Retries::Delay "false";',
            *own,
            'Acquire::Languages "none";',
            'APT::Install-Recommends "false";',
            "",
        ]
    )


def builder_environment(env: t.Mapping[str, str]) -> dict[str, str]:
    """The environment of every command in a builder: the host's proxies and package index, and nothing else of it.

    Addresses of files are left out, a builder cannot see them. What may carry a password (an index's URL) travels in
    the environment only, never in a command line.
    """
    names = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
    kept = {
        key: value for key, value in env.items() if key.lower() in names or key.startswith(("UV_INDEX", "PIP_INDEX"))
    }
    kept |= {key: env[key] for key in ("UV_DEFAULT_INDEX", "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT") if key in env}
    kept = {key: value for key, value in kept.items() if not value.startswith(("file:", "/"))}
    index = kept.pop("PIP_INDEX_URL", "") or pip_index()
    if index and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & set(kept):
        kept["UV_DEFAULT_INDEX"] = index
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    return {
        **kept,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "APT_CONFIG": "/run/build/apt.conf",
        **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"), bundle),
        "UV_CACHE_DIR": "/run/build/uv-cache",
        "UV_LINK_MODE": "copy",  # the cache is another mount than the layer: no hard links across
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_HTTP_RETRIES": "8",  # an index that is away for a minute is no reason to begin again
        "UV_NO_PROGRESS": "1",
        "UV_NO_CONFIG": "1",
    }


def pip_index() -> str:
    """The ``index-url`` of pip's global or root's configuration ('' if none), where pip looks for it on Linux."""
    parser = configparser.RawConfigParser(strict=False)
    home = pathlib.Path.home()
    for path in ("/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"):
        with contextlib.suppress(configparser.Error, OSError):
            parser.read(path)
    index = parser.get("global", "index-url", fallback="").strip()
    return "" if index.startswith(("file:", "/")) else index
