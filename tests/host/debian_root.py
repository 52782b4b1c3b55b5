# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A newly installed Debian as a root file system, with what the owner of a machine gives to it: one lies below all host containers.

Uses only the standard library, as host.py does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

BASE = Path(os.environ.get("ZONESTACK_TEST_DIR", "/var/cache/zonestack-test"))
ROOTS = BASE / "roots"
SUITES = ("trixie", "bookworm")
PACKAGES = ("init", "apt", "ca-certificates", "dbus", "iproute2", "iputils-ping", "netbase", "openssh-server", "procps")
"""What a Debian installed from the network installer has and minbase has not. None is there for zonestack's sake."""
LOCAL_CAS = Path("/usr/local/share/ca-certificates")


class HostError(Exception):
    """A host container could not be made or used; the message names the host, the step and what it said."""


class Done(t.NamedTuple):
    """What a command left in a host: exit code and both streams."""

    rc: int
    out: str
    err: str


def run(argv: t.Sequence[str], *, timeout: float = 300, check: bool = True, **options: t.Any) -> Done:
    """Run a command on this machine; ``timeout`` in seconds, after which it is killed and counts as failed (124)."""
    try:
        done = subprocess.run(list(argv), capture_output=True, text=True, errors="replace", timeout=timeout, **options)
        result = Done(done.returncode, done.stdout, done.stderr)
    except FileNotFoundError:
        raise HostError(f"{argv[0]} is not installed on this machine (wanted: lxc, mmdebstrap, nftables)") from None
    except subprocess.TimeoutExpired as late:
        streams = [
            (s or b"").decode(errors="replace") if not isinstance(s, str) else s for s in (late.stdout, late.stderr)
        ]
        result = Done(124, streams[0], f"{streams[1]}\nstill running after {timeout:g} s, killed")
    if check and result.rc:
        raise HostError(f"`{shlex.join(argv)}` ended with {result.rc}: {(result.err or result.out).strip()[-2000:]}")
    return result


@contextlib.contextmanager
def locked() -> t.Iterator[None]:
    """Hold the lock under which roots are built, addresses chosen and the bridge made."""
    BASE.mkdir(parents=True, exist_ok=True)
    with open(BASE / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_VARIABLES = re.compile(
    r"(?i)^(https?_proxy|no_proxy|all_proxy|pip_.*|uv_.*|\w*_ca_(bundle|certs|file)\w*|\w*ssl_\w*|\w*_cert)$"
)


def inherited_environment() -> dict[str, str]:
    """Return the proxy, certificate and package index variables that hold here and can hold in a host.

    A value that names a file or directory of this machine means something in a host only below /etc/ssl, which
    ``update-ca-certificates`` fills in both.
    """

    def usable(value: str) -> bool:
        return not value.startswith("/") or value.startswith("/etc/ssl/")

    return {k: v for k, v in sorted(os.environ.items()) if _VARIABLES.match(k) and usable(v)}


def _apt_sources(suite: str) -> list[str]:
    """Return the one-line sources of ``suite`` on the mirrors this machine uses; empty: mmdebstrap knows one itself."""
    targets = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(LABEL)", "Created-By: Packages"], check=False
    )
    mirrors: dict[str, str] = {}
    for line in targets.out.splitlines():
        uri, origin, label = line.split("|")
        if origin == "Debian" and label in ("Debian", "Debian-Security"):
            mirrors.setdefault(label, uri.rstrip("/"))
    if "Debian" not in mirrors:
        return []
    sources = [f"deb {mirrors['Debian']} {suite} main", f"deb {mirrors['Debian']} {suite}-updates main"]
    if "Debian-Security" in mirrors:
        sources.append(f"deb {mirrors['Debian-Security']} {suite}-security main")
    return sources


def _apt_proxies() -> list[str]:
    """Return this machine's apt proxy settings as configuration lines."""
    dump = run(["apt-config", "dump"], check=False).out
    return [line for line in dump.splitlines() if re.match(r"(?i)acquire::\w+::proxy", line) and '""' not in line]


def root_of(suite: str) -> Path:
    """Return the root file system of ``suite``, made first if this recipe has none yet.

    The directory bears the hash of everything that goes into it, and appears under its name only when it is complete.
    """
    if suite not in SUITES:
        raise HostError(f"unknown suite {suite!r} (known: {', '.join(SUITES)})")
    sources, proxies = _apt_sources(suite), _apt_proxies()
    cas = {ca.name: ca.read_text() for ca in sorted(LOCAL_CAS.glob("*.crt"))}
    environment = inherited_environment()
    resolver = Path("/etc/resolv.conf").read_text()
    hooks = [
        "update-ca-certificates",
        # Siblings may share their SSH host keys, but journals are told apart by the machine id.
        "echo -n > /etc/machine-id",
        # No console is attached, and the machine's own kernel is already set up.
        "systemctl mask console-getty.service getty-static.service systemd-udevd.service systemd-modules-load.service",
    ]
    recipe = json.dumps([suite, PACKAGES, sources, proxies, cas, environment, resolver, hooks])
    root = ROOTS / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked():
        if root.is_dir():
            return root
        ROOTS.mkdir(exist_ok=True)
        for stale in ROOTS.glob(f".{suite}-*"):
            shutil.rmtree(stale)
        building = ROOTS / f".{root.name}"
        with tempfile.TemporaryDirectory() as scratch:
            given = Path(scratch)
            (given / "environment").write_text("".join(f'{k}="{v}"\n' for k, v in environment.items()))
            (given / "99proxy").write_text("".join(f"{line}\n" for line in proxies))
            (given / "resolv.conf").write_text(resolver)
            (given / "cas").mkdir()
            for name, text in cas.items():
                (given / "cas" / name).write_text(text)
            copies = [
                f'cp {given}/environment {given}/resolv.conf "$1/etc/"',
                f'cp {given}/99proxy "$1/etc/apt/apt.conf.d/"',
                f'mkdir -p "$1{LOCAL_CAS}"; cp {given}/cas/* "$1{LOCAL_CAS}/" 2>/dev/null || true',
            ]
            argv = [
                "mmdebstrap",
                "--mode=root",
                "--format=directory",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
            ]
            argv += [f"--aptopt={line.rstrip(';')}" for line in proxies]
            argv += [f"--customize-hook={copy}" for copy in copies]
            argv += [f'--customize-hook=chroot "$1" sh -c {shlex.quote(hook)}' for hook in hooks]
            argv += [suite, str(building), *(["-"] if sources else [])]
            run(argv, timeout=600, input="".join(f"{line}\n" for line in sources))
        building.rename(root)
        return root
