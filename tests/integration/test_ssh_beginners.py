# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's SSH daemon that drops who begins a connection while others do: a run reaches it all the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ALIASES = 12
PLACES = 2


def test_forks_that_begin_at_once_all_reach_the_host(
    sshd: t.Any, free_port: t.Callable[[], int], tmp_path: Path
) -> None:
    """Two may be at their beginning, all others are dropped, as sshd does at random from the tenth on by itself.

    The test holds both places itself until the first fork has been dropped: how close together forks begin is the machine's affair.
    """
    port = free_port()
    text = (sshd.folder / "config").read_text().replace(f"Port {sshd.port}", f"Port {port}")
    (sshd.folder / "strict").write_text(text + f"MaxStartups {PLACES}:100:{PLACES}\n")
    (tmp_path / "known_hosts").write_text(
        (sshd.folder / "known_hosts").read_text().replace(f":{sshd.port} ", f":{port} ")
    )
    ssh = f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={tmp_path}/known_hosts"
    command = [
        str(Path(sys.executable).with_name("ansible")),
        "--inventory",
        ",".join(f"h{n}" for n in range(ALIASES)) + ",",
        "all",
        "--forks",
        str(ALIASES),
    ]
    given = {
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "ansible_private_key_file": sshd.folder / "client",
        "ansible_ssh_common_args": f'"{ssh}"',
    }
    command += [word for name, value in given.items() for word in ("--extra-vars", f"{name}={value}")]
    command += ["--module-name", "raw", "--args", "true"]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
    }
    environment["ANSIBLE_SSH_ARGS"] = "-o ControlMaster=auto -o ControlPersist=2s"  # as ansible.cfg, but sooner gone
    program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
    assert program
    with subprocess.Popen(
        [program, "-f", str(sshd.folder / "strict"), "-D", "-e"], stderr=subprocess.PIPE, text=True
    ) as daemon:
        limit = threading.Timer(
            120, daemon.terminate
        )  # ends what waits for the daemon's words, and the run's connections
        limit.start()
        try:
            assert daemon.stderr and any("listening" in line for line in daemon.stderr)
            with contextlib.ExitStack() as places:
                for _place in range(PLACES):
                    beginner = places.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
                    assert beginner.recv(4) == b"SSH-", "the daemon has let the beginner in"
                run = subprocess.Popen(
                    command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                dropped = any("MaxStartups" in line for line in daemon.stderr)
            said, _nothing = run.communicate(timeout=120)
        finally:
            limit.cancel()
            daemon.terminate()
    assert dropped, "the daemon has dropped nobody, so nothing was tested"
    assert run.returncode == 0, said
    assert said.count("| CHANGED |") == ALIASES, said
