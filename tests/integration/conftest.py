# SPDX-License-Identifier: GPL-3.0-or-later
"""What several of these tests need of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Sshd:
    """An SSH daemon on loopback. ``folder`` has ``client``, a key that it lets in, and ``known_hosts``, which knows it."""

    folder: Path
    port: int


@pytest.fixture(scope="session")
def free_port() -> t.Callable[[], int]:
    """What gives a port of loopback on which nobody listens, for a daemon that cannot choose one itself."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            return int(free.getsockname()[1])

    return find


def remove_zone(name: str) -> None:
    """Stop a container of this machine, and remove it; one that is not there is no error."""
    subprocess.run(["lxc-stop", "-k", "-n", name], capture_output=True, check=False)
    shutil.rmtree(f"/var/lib/lxc/{name}", ignore_errors=True)


@pytest.fixture(scope="module")
def bridge() -> t.Iterator[t.Callable[..., None]]:
    """Makes a bridge of a name with some addresses, in place of one that a run before this left; it is removed in the end."""
    made = []

    def make(name: str, *addresses: str) -> None:
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
        made.append(name)
        subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
        for address in addresses:
            subprocess.run(["ip", "address", "add", address, "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)

    yield make
    for name in made:
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


@pytest.fixture(scope="session")
def remove() -> t.Callable[[str], None]:
    """Removes a container by its name, whatever state a run before this left it in."""
    return remove_zone


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory, free_port: t.Callable[[], int]) -> t.Iterator[Sshd]:
    """An SSH daemon of our own on this machine."""
    program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
    if not program:
        pytest.skip("needs sshd (Debian: openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    port = free_port()
    (folder / "config").write_text(
        f"""ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/client.pub
StrictModes no
UsePAM no
PasswordAuthentication no
"""
    )
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    with subprocess.Popen([program, "-f", str(folder / "config"), "-D", "-e"], stderr=subprocess.PIPE) as daemon:
        try:
            said = next((line for line in daemon.stderr or () if b"listening" in line), None)
            assert said, "sshd ended before it listened"
            yield Sshd(folder, port)
        finally:
            daemon.terminate()
