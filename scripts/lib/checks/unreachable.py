# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that could not be asked: why, and what to do."""

from __future__ import annotations

from checks.finding import Finding

NO_PYTHON, NO_SUDO = 81, 82
"""Exit codes with which the command that starts facts.py says that it could not."""
REFUSALS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key differs from the one in known_hosts",
        "find out why; then ssh-keygen -R {at}, and log in once by hand",
    ),
    (
        "Host key verification failed",
        "its host key is not in known_hosts",
        "log in once by hand, ssh {to}, and compare the key with that of the machine",
    ),
    (
        "Permission denied",
        "it accepts none of the SSH keys of this machine",
        "ssh-copy-id {to}, or set the right user and key (ssh_config(5))",
    ),
    (
        "Could not resolve hostname",
        "the name {at} cannot be resolved",
        "correct the address in topology.yml, or add the name to /etc/hosts",
    ),
    (
        "Connection refused",
        "nothing listens on its SSH port",
        "start sshd on it, or correct the port in topology.yml",
    ),
    (
        "timed out",
        "it does not answer",
        "check that it is on, that {at} is its address, and that no firewall drops SSH",
    ),
    ("No route to host", "it cannot be reached", "check that it is on and that {at} is its address"),
    (
        "Network is unreachable",
        "it cannot be reached",
        "check that {at} is its address and that this machine has a route to it",
    ),
)
"""What ssh(1) says when it does not get in, what that means, and what to do. ``at`` is the host's address, ``to`` with its user."""


def judge_silence(rc: int, said: str, at: str, to: str) -> Finding:
    """Why a host told nothing: what its SSH, its sudo or its Python said."""
    last = (said.strip().splitlines() or ["no message"])[-1]
    if rc < 0:
        return Finding(
            "ssh",
            "SSH logged in, and then the host did not answer in time",
            f"check its load and its disks: ssh {to} uptime",
        )
    if rc == NO_PYTHON:
        return Finding(
            "python", "there is no /usr/bin/python3, so nothing else could be checked", "apt-get install python3"
        )
    if last.startswith("ModuleNotFoundError"):
        return Finding("python", f"/usr/bin/python3 lacks modules of its own ({last})", "apt-get install python3")
    if rc == NO_SUDO:
        return Finding(
            "sudo",
            f"sudo asks for a password, or is not installed ({last})",
            "let that user become root without a password (NOPASSWD in sudoers(5))",
        )
    for words, what, fix in REFUSALS:
        if words in said:
            return Finding("ssh", what.format(at=at, to=to), fix.format(at=at, to=to))
    return Finding(
        "ssh" if rc == 255 else "facts",
        f"the program that checks the host failed ({last})",
        f"try by hand: ssh {to} python3 --version",
    )
