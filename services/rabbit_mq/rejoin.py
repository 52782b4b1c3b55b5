#!/usr/bin/python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Before a RabbitMQ node without data starts: let the cluster that still counts it as a member forget it.

A member that lost its volume finds its peers, and they refuse it: to them it is a member already, to itself it is none. It
would then make a cluster of its own, beside theirs. So a blank node asks each running peer first, over the management API,
and has itself removed there (rabbitmqctl(8), forget_cluster_node); peer discovery then joins it like a new one.

A node with data has nothing to do here, and neither has a new cluster, whose peers know nobody yet. Reads
/etc/zonestack/rabbitmq.json: {"node": .., "peers": {node: address}, "ca": path} and the administrator's log-in from
RabbitMQ's own configuration. Ends with 0 also where no peer answers: whether to start is RabbitMQ's question.
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

CONFIG = Path("/etc/zonestack/rabbitmq.json")
LOGIN = Path("/etc/rabbitmq/conf.d/secrets.conf")
DATA = Path("/var/lib/rabbitmq/mnesia")
PORT = 15671
ANSWER_SECONDS = 3.0  # a peer that needs longer counts as one that does not run
FORGET_SECONDS = 60.0


def login(text: str) -> str:
    """The Authorization header for the administrator, from ``default_user`` and ``default_pass`` of rabbitmq.conf."""
    values = dict(line.replace(" ", "").split("=", 1) for line in text.splitlines() if "=" in line)
    pair = f"{values['default_user']}:{values['default_pass']}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def members(address: str, authorization: str, ca: str) -> dict[str, bool]:
    """What the node at ``address`` takes for its cluster: node names, and whether each runs. Empty when it does not answer."""
    request = urllib.request.Request(f"https://{address}:{PORT}/api/nodes", headers={"Authorization": authorization})
    try:
        with urllib.request.urlopen(
            request, timeout=ANSWER_SECONDS, context=ssl.create_default_context(cafile=ca)
        ) as reply:
            return {node["name"]: bool(node["running"]) for node in json.load(reply)}
    except (OSError, ValueError, KeyError):
        return {}


def must_forget(node: str, known: t.Mapping[str, bool]) -> bool:
    """Whether a peer that knows these nodes still counts ``node`` as a member that is down."""
    return node in known and not known[node]


def main() -> int:
    config = json.loads(CONFIG.read_text())
    node = config["node"]
    if (DATA / node).exists():
        return 0
    authorization = login(LOGIN.read_text())
    for peer, address in config["peers"].items():
        if must_forget(node, members(address, authorization, config["ca"])):
            print(f"{peer} still counts this node as a member, but its data is gone: leaving, to join anew", flush=True)
            done = subprocess.run(
                ["rabbitmqctl", "--quiet", "--node", peer, "forget_cluster_node", node],
                timeout=FORGET_SECONDS,
                check=False,
            )
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
