# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a shell in a zone, or run a command there, by the name of its service."""

from __future__ import annotations

import os
import shlex
import sys

from cloud import Cloud, Zone, load
from deployment import Deployment, DeploymentError, command
from options import zone_shell

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(cloud: Cloud, name: str, number: int) -> Zone:
    """The zone of that name, or the ``number``-th of a service or component; else an error that lists the choices."""
    members = cloud.named(name)
    if members == [name]:
        return cloud.zones[name]
    if not 1 <= number <= len(members):
        raise DeploymentError(f"{name} has {len(members)} zones, 1 to {len(members)}: {', '.join(members)}")
    return cloud.zones[members[number - 1]]


def command_for(zone: Zone, command: list[str], terminal: bool, local_user: int, term: str) -> list[str]:
    """The command that enters the zone: a login shell, so that it finds what a person at its console would.

    :param terminal: whether a terminal is to be passed through SSH.
    :param local_user: our user id; who is not root enters by way of sudo.
    """
    variables = [f"TERM={term}", "HOME=/root", "USER=root", "LANG=C.UTF-8"]
    inside = ["/bin/bash", "--login"]
    if command:
        inside += ["-c", 'cd; exec "$@"', "zone-shell", *command]
    else:
        inside += ["-c", "cd; exec /bin/bash --login"]
    if zone.backend == "lxc":
        given = [word for variable in variables for word in ("-v", variable)]
        enter = ["lxc-attach", "--name", zone.name, "--clear-env", *given, "--", *inside]
    else:
        # zlogin gives its one argument to the shell of the zone's root; -i asks for a terminal there.
        line = shlex.join(["exec", "env", "-i", f"PATH={PATH}", *variables, *inside])
        enter = ["zlogin", *(["-i"] if terminal else []), zone.uuid, line]
    if zone.address is None:
        return enter if local_user == 0 else ["sudo", "--", *enter]
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.zone_connection import AS_ROOT

    ssh = ["ssh", *(["-t"] if terminal else []), *(["-p", str(zone.port)] if zone.port else [])]
    return [*ssh, f"{zone.user}@{zone.address}" if zone.user else zone.address, "--", f"{AS_ROOT} {shlex.join(enter)}"]


def main() -> int:
    arguments, command = sys.argv[1:], []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, command = arguments[:split], arguments[split + 1 :]
    options = zone_shell().parse_args(arguments)
    cloud = load(Deployment(options.deployment).require())
    zone = find(cloud, options.name, options.number)
    argv = command_for(zone, command, sys.stdin.isatty(), os.getuid(), os.environ.get("TERM", "dumb"))
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        raise DeploymentError(f"{argv[0]} is not installed here: run scripts/run-playbooks.sh --step hosts") from None


if __name__ == "__main__":
    command(main)
