# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``zlogin``: a command in a zone, as it is there: one shell line, a fresh environment, the exit status (facts 7)."""

from __future__ import annotations

import getopt
import os
import signal
import sys

from .platform import HVM_BRANDS
from .state import State

USAGE = "usage: zlogin [ -inQS ] [ -l user ] zonename [ command [ args ... ] ]"
PATHS = {"lx": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "joyent": "/usr/sbin:/usr/bin"}
FAILSAFE = "/bin/sh"

LOGIN = """\
import os, signal, sys
for one in (signal.SIGPIPE, signal.SIGXFSZ): signal.signal(one, signal.SIG_DFL)
try: os.chdir(os.environ["HOME"])
except OSError: os.chdir("/")
sys.exit(max(0, os.spawnv(os.P_WAIT, sys.argv[1], sys.argv[1:])))
"""
"""What zlogin's own child does in a joyent zone: su there becomes the shell, so a signal that ends the one ends the other, and
zlogin takes the exit bits of the status, which are then 0."""
LOGIN_LX = 'cd "$HOME" 2>/dev/null || cd /; exec su root -c "$1"'


def shell_line(words: list[str]) -> str:
    """The arguments as zlogin hands them to the zone's shell.

    One argument is the line as it stands. Several are joined with blanks; one that has a blank or a tab gets single quotes,
    and a quote inside it stays as it is: such a command breaks, here as there.
    """
    if len(words) == 1:
        return words[0]
    return " ".join(f"'{word}'" if " " in word or "\t" in word else word for word in words)


def environment(brand: str, user: str = "root") -> dict[str, str]:
    """What a command finds in its environment: nothing of the caller's but TERM."""
    home = "/root" if user == "root" else f"/home/{user}"
    return {
        "PATH": PATHS.get(brand, PATHS["joyent"]),
        "TERM": os.environ.get("TERM", "dumb"),
        "HOME": home,
        "SHELL": "/bin/bash" if brand == "lx" else "/bin/sh",
        "LOGNAME": user,
        "MAIL": f"/var/mail/{user}",
    }


def _refuse(text: str, code: int = 1) -> int:
    sys.stderr.write(f"{text}\n")
    return code


def main(argv: list[str]) -> int:
    """Run zlogin; the exit status is the command's, 0 when a signal ended it, and 1 when there was no way in."""
    try:
        found, words = getopt.getopt(argv, "inQSCEe:l:")
    except getopt.GetoptError as bad:
        return _refuse(f"zlogin: illegal option -- {bad.opt}\n{USAGE}", 2)
    options = {letter[1:]: value for letter, value in found}
    if not words:
        return _refuse(USAGE, 2)
    name, command = words[0], words[1:]
    if name == "global":
        return _refuse("zlogin: 'zlogin' not applicable to the global zone")
    state = State()
    record = next((one for one in state.records() if one["vm"]["zonename"] == name), None)
    if record is None:
        return _refuse(f"zlogin: zone '{name}' unknown")
    vm = record["vm"]
    if vm["brand"] in HVM_BRANDS or state.platform(vm["brand"]).zone_running(vm) is None:
        shown = state.view(record)["zone_state"]
        return _refuse(f"zlogin: login allowed only to running zones ({name} is '{shown}').")
    user = options.get("l", "root")
    line = shell_line(command)
    if not command:
        inside = ["su", "-", user]
    elif "S" in options:
        inside = [FAILSAFE, "-c", line]
    elif "l" in options:
        inside = ["su", "-", user, "-c", line]
    elif vm["brand"] == "lx":
        inside = ["/bin/sh", "-c", LOGIN_LX, "sh", line]
    else:
        inside = ["/usr/bin/python3", "-SIc", LOGIN, "/bin/sh", "-c", line]
    return _attach(state, vm["uuid"], inside, environment(vm["brand"], "root"), closed="n" in options)


def _attach(state: State, uuid: str, inside: list[str], variables: dict[str, str], *, closed: bool) -> int:
    """Run ``inside`` in the zone with this process's streams; ``closed``: with nothing on stdin."""
    given = [f"--set-var={name}={value}" for name, value in variables.items()]
    outer = ["lxc-attach", "-P", str(state.directory / "lxc"), "-n", uuid, "--clear-env", *given, "--", *inside]
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.chdir("/")
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python; the command in the zone expects them
            signal.signal(ignored, signal.SIG_DFL)
        if closed:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(outer[0], outer)
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 0
