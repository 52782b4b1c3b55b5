# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With which secrets a deployment's zones on a host were made, told by a fingerprint that is no secret.

The fingerprint is a digest of the deployment's name and of its authority's certificate, which every zone holds and shows. A run
notes it on the host before it changes anything. Versions before that left no note: then the certificate in the zones' own files
is taken. Only the standard library is used, and nothing of this collection: the control machine also sends this text to hosts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import typing as t
from pathlib import Path

FOLDERS = {"lxc": Path("/var/lib/zonestack/owners"), "smartos": Path("/opt/zonestack/owners")}
"""Where the note of each deployment lies, by backend."""

LXC_PATH = Path("/var/lib/lxc")
CERTIFICATE = ("etc", "zonestack", "tls", "ca.crt")
RECORD = "zonestack:zone"
"""Key of a VM's internal_metadata, as in the backend for SmartOS."""

LONGEST = 64 * 1024
"""Bytes that are read of a certificate: the file is the zone's own and may be anything."""

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LIMIT = 60
"""Seconds for one vmadm."""


def fingerprint(deployment: str, certificate: str) -> str:
    """What tells one deployment's secrets from another's: 32 hexadecimal digits, empty where ``certificate`` (PEM) is none.

    Only the first certificate counts; blanks and line ends do not.
    """
    found = re.search(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", certificate, re.DOTALL)
    try:
        der = base64.b64decode("".join(found[1].split()), validate=True) if found else b""
    except ValueError:
        der = b""
    return hashlib.sha256(b"zonestack owner\0" + deployment.encode() + b"\0" + der).hexdigest()[:32] if der else ""


def certificate_of(root: Path) -> str:
    """The authority's certificate in a zone's root, empty where it has none.

    The zone's own root may have put a symbolic link anywhere in there: none is followed.
    """
    folder = -1
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        for name in CERTIFICATE[:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # A named pipe would be waited for.
        file = os.open(CERTIFICATE[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with open(file, "rb") as opened:
            return opened.read(LONGEST).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        if folder >= 0:
            os.close(folder)


def lxc_roots(deployment: str, lxc_path: Path = LXC_PATH) -> dict[str, Path]:
    """What a deployment's zones have written into their roots, by zone name."""
    found = {}
    for path in sorted(lxc_path.glob("*/zone.json")):
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (recorded.get("metadata") or {}).get("deployment") == deployment:
            name, store = path.parent.name, recorded.get("store")
            inside = {"overlay": path.parent / "upper", "zfs": lxc_path / "zonestack/roots" / name}
            found[name] = inside.get(store, path.parent / "rootfs")
    return found


def smartos_roots(deployment: str) -> dict[str, Path]:
    """The same in a global zone."""
    try:
        done = subprocess.run(
            ["vmadm", "lookup", "-j"], capture_output=True, timeout=LIMIT, check=True, env={**os.environ, "PATH": PATH}
        )
        vms = json.loads(done.stdout or b"[]")
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    found = {}
    for vm in vms:
        recorded = json.loads((vm.get("internal_metadata") or {}).get(RECORD) or "{}")
        if (recorded.get("metadata") or {}).get("deployment") == deployment:
            found[recorded["name"]] = Path("/zones") / vm["uuid"] / "root"
    return found


def note_of(deployment: str, backend: str, folder: Path | None = None) -> dict[str, str]:
    """The note that a run left: ``secrets`` (a fingerprint), ``by`` and ``since``; empty where there is none."""
    try:
        note = json.loads(((folder or FOLDERS[backend]) / deployment).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and note.get("secrets") else {}


def owners(deployment: str, backend: str) -> list[dict[str, str]]:
    """Whose the deployment on this host is: ``secrets`` (a fingerprint) and ``found``, in words, for each one found.

    The note counts alone where there is one. Zones of a deployment whose secrets are being replaced still have the old ones.
    """
    if note := note_of(deployment, backend):
        by = f"noted by {note.get('by', 'a run')} on {note.get('since', 'an unknown day')}"
        return [{"secrets": note["secrets"], "found": by}]
    roots = lxc_roots(deployment) if backend == "lxc" else smartos_roots(deployment)
    zones: dict[str, list[str]] = {}
    for name, root in roots.items():
        if found := fingerprint(deployment, certificate_of(root)):
            zones.setdefault(found, []).append(name)
    return [{"secrets": one, "found": f"zones {shortened(names)}"} for one, names in zones.items()]


def shortened(names: t.Sequence[str], most: int = 3) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
