# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One entry for all commands: the name under which the program was called says which."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path

from . import faults
from .state import DEFAULT_DIRECTORY, State

TOOLS = {
    "vmadm": "vmadm:main",
    "imgadm": "imgadm:main",
    "nictagadm": "node_tools:nictagadm",
    "sysinfo": "node_tools:sysinfo",
    "zoneadm": "node_tools:zoneadm",
    "zonename": "node_tools:zonename",
    "dladm": "node_tools:dladm",
    "ifconfig": "gz_network:ifconfig",
    "ipf": "gz_network:ipf",
    "ipnat": "gz_network:ipnat",
    "route": "gz_network:route",
    "routeadm": "gz_network:routeadm",
    "zlogin": "zlogin:main",
    "zfs": "zfs_cli:zfs",
    "zpool": "zfs_cli:zpool",
    "mdata-get": "metadata:get",
    "mdata-put": "metadata:put",
    "mdata-list": "metadata:list_keys",
    "mdata-delete": "metadata:delete",
    "smartos-sim": "control:main",
}
"""Command -> module:function; the function gets the words after the command and returns the exit status."""


ROOT_ONLY = ("vmadm", "imgadm")
"""Commands that refuse other users with exit status 2 (facts 1 and 5); on paper there is nothing to protect."""


def main(name: str, argv: list[str]) -> int:
    """Run the command ``name``; the exit status."""
    if name not in TOOLS:
        sys.stderr.write(f"smartos-sim: no command {name!r}; known: {', '.join(TOOLS)}\n")
        return 2
    if name in ROOT_ONLY and os.geteuid() != 0 and State().node["machine"] != "paper":
        sys.stderr.write("FATAL: cannot run because: must be run as root\n")
        return 2
    module, function = TOOLS[name].split(":")
    state = Path(os.environ.get("SMARTOS_SIM_STATE") or DEFAULT_DIRECTORY)
    words = [word for word in argv if not word.startswith("-")]
    faults.begin(state, None if name == "smartos-sim" else " ".join([name, *words[:1]]))
    try:
        with faults.step("command"):
            status: int = getattr(importlib.import_module(f".{module}", __package__), function)(argv)
            sys.stdout.flush()
        return status
    except faults.InjectedFault as fault:
        sys.stderr.write(f"{fault}\n")
        return fault.code
    except BrokenPipeError:
        # The reader went away; let the interpreter's own flush at exit not say so again.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
