# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every zone backend does alike on its host and in a zone: locks, datasets that go, hosts(5), resolv.conf(5)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
import typing as t
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import run
from ansible_collections.zonestack.openstack.plugins.module_utils.files import read_text
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError, ZoneSpec

RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")  # systemd-resolved.service(8)
BUSY_LIMIT = 20  # seconds for the kernel to let go of an unmounted dataset
RUN = Path("/var/run")  # on Linux a link to /run; SmartOS has no other


class Held(threading.local):
    """Descriptors of the locks that this thread holds. Another zone's locks are not kept by what runs for this one."""

    def __init__(self) -> None:
        self.locks: list[int] = []


HELD = Held()


@contextlib.contextmanager
def locked(name: str, limit: float) -> t.Iterator[int]:
    """Hold a lock of this machine for at most one call at a time; wait ``limit`` seconds for it.

    Yields the lock's descriptor: a child process that inherits it keeps the lock when this process is killed.
    """
    try:
        lock = open(RUN / f"zonestack-{name}.lock", "w")  # noqa: SIM115  closed by the next line's block
    except OSError as bad:
        raise ZoneError(f"{name}: its lock cannot be taken: {bad}") from bad
    with lock:
        deadline = time.monotonic() + limit
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ZoneError(
                        f"{name}: another call holds {lock.name} for more than {limit:g} s; see fuser(1)"
                    ) from None
                time.sleep(0.02)
        HELD.locks.append(lock.fileno())
        try:
            yield lock.fileno()
        finally:
            HELD.locks.remove(lock.fileno())


def destroy_dataset(dataset: str) -> None:
    """Destroy a ZFS dataset with what is below it, if it exists; never with clones of it.

    It is busy for a moment after its last user: mount name spaces of ended processes are taken down in the background.
    """
    deadline = time.monotonic() + BUSY_LIMIT
    while True:
        done = run(["zfs", "destroy", "-r", dataset], check=False)
        if done.rc == 0 or "does not exist" in done.err:
            return
        if "busy" not in done.err or time.monotonic() > deadline:
            raise ZoneError(
                f"dataset {dataset} cannot be destroyed: {done.err.strip()}; see grep -l {dataset} /proc/*/mounts"
            )
        time.sleep(0.1)


def hosts(zone: ZoneSpec) -> str:
    """hosts(5) of a zone: itself by its first address; others are found by the deployment's own means."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    address = next((network.address for network in zone.networks if network.address), "127.0.1.1")
    return "\n".join([*lines, f"{address} {zone.name}", ""])


def resolv_conf() -> str:
    """The host's resolv.conf(5), or the upstream file when the host's names only a resolver on itself."""
    text = read_text(RESOLV_CONF)
    servers = re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE)
    if servers and all(one.startswith("127.") or one == "::1" for one in servers):
        return read_text(RESOLVED_UPSTREAM) or text
    return text


def put(root: Path, name: str, content: str, owner: int) -> None:
    """Write ``etc/<name>`` of a zone's root, owned by user and group ``owner``: its root user as the host sees it.

    The zone's own root may have put a symbolic link anywhere in there: no link is followed out of it.
    """
    top = os.open(root, os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        etc = os.open("etc", os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    finally:
        os.close(top)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=etc)
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=etc)
        with os.fdopen(handle, "w") as out:
            out.write(content)
            os.fchmod(handle, 0o644)
            os.fchown(handle, owner, owner)
    finally:
        os.close(etc)


def resolvers() -> list[str]:
    """The addresses of the host's name servers, as zones are to ask them."""
    return re.findall(r"^nameserver\s+(\S+)", resolv_conf(), re.MULTILINE)
