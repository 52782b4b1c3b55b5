#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_server
short_description: Take a zone out of HAProxy's rotation, put it back, or verify that all servers are up
version_added: 0.1.0
description:
  - Speaks with HAProxy's administration socket in an haproxy zone, for all front ends at once.
  - See U(https://docs.haproxy.org/3.0/management.html#9.3).
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: full
    description: Nothing is changed and nothing is waited for.
  diff_mode:
    support: none
    description: A zone leaves the rotation only to come back; nothing of the configuration differs.
options:
  name:
    description: Name of the server, which is its zone's name. Empty means all servers.
    type: str
    default: ""
  state:
    description:
      - V(drained) takes no new sessions and waits until the last one has ended; V(ready) takes sessions again and waits until
        the health check has passed; V(up) changes nothing and waits until the servers are up, one of them at least for
        each front end, and all of them with O(all).
      - A front end whose clients stick to the drained server is told to choose another one.
    type: str
    choices: [drained, ready, up]
    required: true
  all:
    description: With O(state=up), whether every server must be up.
    type: bool
    default: true
  others:
    description:
      - With O(state=drained), how many other servers of each of its front ends must be up first, so that a cluster keeps its
        quorum and an API a server. They are waited for as long as O(others_wait) says; too few are an error. Those that
        an earlier run took out of rotation, and ended before it put them back, are put back first.
      - Of a front end to which members come or from which they go, HAProxy learns after them. So never more are asked for than it
        knows of O(members).
    type: int
    default: 0
  members:
    description: With O(others), names of the servers that are to stay; others that HAProxy still knows do not count. Empty means all.
    type: list
    elements: str
    default: []
  others_wait:
    description: Seconds to wait for O(others).
    type: int
    default: 120
  wait:
    description:
      - Seconds to wait. A drain that takes longer is not an error, the sessions that are left are then cut by the
        restart; servers that are not up in time are one.
    type: int
    default: 60
  socket:
    description: Path of the administration socket.
    type: path
    default: /run/haproxy/admin.sock
"""

EXAMPLES = r"""
- name: Drain the zone
  zonestack.openstack.haproxy_server:
    name: "{{ zone.name }}"
    state: drained
    wait: 20
  delegate_to: "{{ groups.haproxy[0] }}"
"""

RETURN = r"""
servers:
  description: Servers as C(front end/server), with their state as HAProxy tells it.
  type: dict
  returned: always
  sample: {keystone/aio1-keystone-1: UP}
"""

import csv
import io
import socket
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule


class Haproxy:
    """HAProxy's administration socket: one command a connection."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, command: str) -> str:
        """Send one command, and return the whole answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(10)
            link.connect(self.path)
            link.sendall(command.encode() + b"\n")
            parts = []
            while part := link.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()

    def servers(self, name: str) -> list[dict[str, str]]:
        """Rows of the servers of that name (all when empty), without front ends and totals."""
        rows = csv.DictReader(io.StringIO(self.ask("show stat").lstrip("# ")))
        return [row for row in rows if row["svname"] not in ("FRONTEND", "BACKEND") and name in ("", row["svname"])]

    def unstick(self, row: t.Mapping[str, str]) -> None:
        """Let new clients of a sticky front end go to another server: to one that is drained those that stick to it still come."""
        if f"server_key={row['svname']}" in self.ask(f"show table {row['pxname']}").split():
            self.ask(f"clear table {row['pxname']}")

    def out_of_rotation(self) -> set[str]:
        """Servers that somebody has drained or put into maintenance, as front end/server.

        Their health hides it in the statistics while they are down, so the administrative state is asked for: bit 0 is
        forced maintenance, bit 3 a forced drain (https://docs.haproxy.org/3.0/management.html, "show servers state").
        """
        lines = [line.split(" ") for line in self.ask("show servers state").splitlines()[1:] if line.strip()]
        header = lines[0][1:]  # the first word is the comment sign
        rows = [dict(zip(header, line, strict=False)) for line in lines[1:]]
        return {f"{row['be_name']}/{row['srv_name']}" for row in rows if int(row["srv_admin_state"]) & 0b1001}


def label(row: t.Mapping[str, str]) -> str:
    """Front end and server, as HAProxy's own commands take them."""
    return f"{row['pxname']}/{row['svname']}"


def missing(rows: list[dict[str, str]], every: bool) -> list[str]:
    """What is not up yet: servers, or front ends that have no server at all."""
    down = [row for row in rows if not row["status"].startswith("UP")]
    if every:
        return [
            f"{label(row)} {row['status']} ({row.get('last_chk') or row.get('check_status') or 'not checked yet'})"
            for row in down
        ]
    alive = {row["pxname"] for row in rows} - {row["pxname"] for row in down}
    alive |= {row["pxname"] for row in rows if row["status"].startswith("UP")}
    return sorted({row["pxname"] for row in rows} - alive)


def too_few(haproxy: Haproxy, name: str, others: int, members: t.Collection[str] = ()) -> str:
    """Which front end of ``name`` would be left with fewer than ``others`` servers that are up; empty when none would.

    Given ``members``, only they count, and where HAProxy knows fewer others, all of those are enough.
    """
    rows = [row for row in haproxy.servers("") if not members or row["svname"] in (*members, name)]
    for front_end in sorted({row["pxname"] for row in rows if row["svname"] == name}):
        rest = [row for row in rows if row["pxname"] == front_end and row["svname"] != name]
        up = sum(row["status"].startswith("UP") for row in rest)
        needed = min(others, len(rest)) if members else others
        if up < needed:
            states = ", ".join(f"{row['svname']} {row['status']}" for row in rest) or "none"
            return f"{front_end} needs {needed} other servers that are up before {name} can be drained, and has {up} ({states})"
    return ""


def left_behind(haproxy: Haproxy, name: str) -> list[str]:
    """Other servers of the front ends of ``name`` that are out of rotation, as front end/server.

    One zone is changed at a time, so a run that ended too early has left them there.
    """
    rows = haproxy.servers("")
    fronts = {row["pxname"] for row in rows if row["svname"] == name}
    others = {label(row) for row in rows if row["pxname"] in fronts and row["svname"] != name}
    return sorted(others & haproxy.out_of_rotation())


def wait_for_others(module: AnsibleModule, haproxy: Haproxy) -> None:
    """Return what a former drain has left behind to rotation, and wait until enough servers would serve without this one."""
    name = module.params["name"]
    for server in left_behind(haproxy, name):
        haproxy.ask(f"set server {server} state ready")
    deadline = time.monotonic() + module.params["others_wait"]
    while reason := too_few(haproxy, name, module.params["others"], module.params["members"]):
        if time.monotonic() > deadline:
            module.fail_json(msg=f"{reason}: repair these servers first, or no server would be left")
        time.sleep(0.5)


def wait_for_servers(module: AnsibleModule, haproxy: Haproxy) -> list[dict[str, str]]:
    """Wait until drained servers have no sessions left, at most as long as they may take, or until the others serve; their rows."""
    state, wait = module.params["state"], module.params["wait"]
    deadline = time.monotonic() + wait
    while True:
        rows = haproxy.servers(module.params["name"])
        if state == "drained":
            left = [label(row) for row in rows if int(row["scur"] or 0) > 0]
            if not left or time.monotonic() > deadline:
                return rows
        else:
            left = missing(rows, every=state == "ready" or module.params["all"])
            if not left:
                return rows
            if time.monotonic() > deadline:
                module.fail_json(msg=f"HAProxy reports these servers as down after {wait} s: {'; '.join(left)}")
        time.sleep(0.2)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["drained", "ready", "up"], "required": True},
            "all": {"type": "bool", "default": True},
            "others": {"type": "int", "default": 0},
            "members": {"type": "list", "elements": "str", "default": []},
            "others_wait": {"type": "int", "default": 120},
            "wait": {"type": "int", "default": 60},
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
        },
        supports_check_mode=True,
    )
    name, state = module.params["name"], module.params["state"]
    haproxy = Haproxy(module.params["socket"])
    try:
        rows = haproxy.servers(name)
        out = haproxy.out_of_rotation()
        wrong = [row for row in rows if state != "up" and (label(row) in out) != (state == "drained")]
        if state == "drained" and module.params["others"] and not module.check_mode:
            wait_for_others(module, haproxy)
        for row in wrong:
            if not module.check_mode:
                said = haproxy.ask(
                    f"set server {label(row)} state {'drain' if state == 'drained' else 'ready'}"
                ).strip()
                if said:
                    module.fail_json(msg=f"HAProxy refuses to change {label(row)}: {said}")
        for row in rows:
            if state == "drained" and not module.check_mode:
                haproxy.unstick(row)
        if not module.check_mode:
            rows = wait_for_servers(module, haproxy)
    except OSError as error:
        module.fail_json(
            msg=f"HAProxy's socket {module.params['socket']}: {error}; does haproxy.service run in this zone?"
        )
    states = {label(row): row["status"] for row in rows}
    module.exit_json(
        changed=bool(wrong),
        servers=states,
    )


if __name__ == "__main__":
    main()
