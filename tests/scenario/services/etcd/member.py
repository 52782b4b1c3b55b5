#!/usr/bin/python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One member of an etcd cluster that no person has to form or mend.

``start``   stands in front of etcd: a member with data goes on, one without makes the cluster or joins the others
``serve``   tells the other members whether this one has data; has it vote, once it has all that was agreed
``whole``   exits with 0 when all members serve; ``--forget`` then removes those that are configured no more
``forget``  removes all members but those at the addresses given
``schema``  ``make`` writes the schema with its users; ``current`` exits with 0 when it is there

The cluster is made by the first configured member alone, and only after each other one has said that it has no data: who does not
answer may have some, and is waited for. Everyone else joins as a new member. So does one that lost its data, after the old member of
its address has been removed: that one has voted, and what it has agreed to is lost. Who joins is a learner first, without a vote: so
the cluster never waits for one that was let in and did not come, and they come one after the other.

Reads /etc/zonestack/etcd.json: {"name": .., "members": {name: address}}, and passwords from etcd-secrets.json beside it.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import typing as t
import urllib.request
from pathlib import Path

CONFIG = Path("/etc/zonestack/etcd.json")
SECRETS = Path("/etc/zonestack/etcd-secrets.json")
TLS = "/etc/zonestack/tls"
DATA = Path("/var/lib/etcd")
CLIENTS, PEERS, STATE = 2379, 2380, 2381
ETCD = "http://127.0.0.1:2382"  # health and figures, for this zone alone
ANSWER_SECONDS = 5.0  # who needs longer counts as silent in this round
POLL_SECONDS = 1.0
SCHEMA = {"/schema/version": "1", "/schema/owner": "app"}
"""Keys of the schema and their values; the user ``app`` reads them, and writes below ``/app/``."""


class Trouble(Exception):
    """What keeps a command from its end; the text says what would be right."""


class Config(t.NamedTuple):
    """This member, and all of them: addresses by name, the one that makes the cluster first."""

    name: str
    members: dict[str, str]

    @property
    def others(self) -> dict[str, str]:
        return {name: address for name, address in self.members.items() if name != self.name}


class Member(t.NamedTuple):
    """A member as the cluster lists it; a ``learner`` has no vote yet."""

    identity: str
    address: str
    learner: bool


def peer_url(address: str) -> str:
    return f"https://{address}:{PEERS}"


def has_data() -> bool:
    """Whether this member has ever begun to take part: then it has a log of what was agreed."""
    return any((DATA / "member" / "wal").glob("*.wal"))


def etcdctl(addresses: t.Iterable[str], *command: str, user: str = "root", given: str = "") -> str:
    """Run etcdctl(1) against members; passwords go by its environment and its input, which nobody else reads."""
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "ETCDCTL_CACERT": f"{TLS}/ca.crt",
        "ETCDCTL_USER": user,
        "ETCDCTL_PASSWORD": json.loads(SECRETS.read_text())[f"{user}_password"],
    }
    problem = "there is no other member"
    for address in addresses:  # one after the other: a learner refuses, and etcdctl would ask no other one
        argv = ["etcdctl", f"--endpoints=https://{address}:{CLIENTS}", "--command-timeout=10s", *command]
        done = subprocess.run(argv, env=environment, input=given, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        problem = f"etcdctl {' '.join(command)}: {''.join(done.stderr.splitlines()[-1:])}"
    raise Trouble(problem)


def listed(addresses: t.Iterable[str]) -> list[Member]:
    """The members that the cluster has, as a majority of it agrees."""
    said = json.loads(etcdctl(addresses, "member", "list", "--write-out=json"))["members"]
    return [
        Member(
            f"{one['ID']:x}",
            one["peerURLs"][0].removeprefix("https://").removesuffix(f":{PEERS}"),
            bool(one.get("isLearner")),
        )
        for one in said
    ]


def get(address: str, port: int, path: str) -> t.Any:
    """What a member says over HTTPS, as JSON; OSError or ValueError where it does not answer so."""
    context = ssl.create_default_context(cafile=f"{TLS}/ca.crt")
    with urllib.request.urlopen(f"https://{address}:{port}{path}", timeout=ANSWER_SECONDS, context=context) as reply:
        return json.load(reply)


# --- start --------------------------------------------------------------------------------------------------------


def may_found(config: Config) -> str:
    """Why this member must not make the cluster; empty when it may."""
    first = next(iter(config.members))
    if config.name != first:
        return f"{first} makes the cluster where there is none"
    for name, address in config.others.items():
        try:
            if get(address, STATE, "/")["data"]:
                return f"{name} has data: joining its cluster"
        except (OSError, ValueError) as problem:
            return f"{name} does not say whether it has data ({problem})"
    return ""


def join(config: Config) -> dict[str, str]:
    """Have the others count this member anew; return all members' addresses by name."""
    mine = config.members[config.name]
    for one in listed(config.others.values()):
        if one.address == mine:
            etcdctl(config.others.values(), "member", "remove", one.identity)
    etcdctl(config.others.values(), "member", "add", config.name, "--learner", f"--peer-urls={peer_url(mine)}")
    names = {address: name for name, address in config.members.items()}
    # A former member that is not removed yet counts too; its name here is of no matter.
    return {names.get(one.address, one.identity): one.address for one in listed(config.others.values())}


def enter(config: Config) -> list[str]:
    """Options of etcd for a member without data, once it may make the cluster or was let into it."""
    told, members, state = "", config.members, "existing"
    while True:
        why = may_found(config)
        if not why:
            members, state = {config.name: config.members[config.name]}, "new"
            break
        try:
            members = join(config)
            break
        except Trouble as problem:
            why = f"{why}; {problem}"
        if why != told:
            told = why
            print(f"waiting: {why}", flush=True)
        time.sleep(POLL_SECONDS)
    cluster = ",".join(f"{name}={peer_url(address)}" for name, address in members.items())
    print(f"{'making' if state == 'new' else 'joining'} the cluster {cluster}", flush=True)
    return [f"--initial-cluster={cluster}", f"--initial-cluster-state={state}"]


def start(config: Config) -> t.NoReturn:
    """Become etcd."""
    mine = config.members[config.name]
    certificate = {"cert-file": f"{TLS}/zone.crt", "key-file": f"{TLS}/zone.key", "trusted-ca-file": f"{TLS}/ca.crt"}
    options = {
        "name": config.name,
        "data-dir": str(DATA),
        "listen-peer-urls": peer_url(mine),
        "initial-advertise-peer-urls": peer_url(mine),
        "listen-client-urls": f"https://{mine}:{CLIENTS}",
        "advertise-client-urls": f"https://{mine}:{CLIENTS}",
        "listen-metrics-urls": ETCD,
        **{key: path for key, path in certificate.items() if key != "trusted-ca-file"},
        **{f"peer-{key}": path for key, path in certificate.items()},
        "peer-client-cert-auth": "true",
        "heartbeat-interval": "500",  # ms; a busy machine must not change its leader all the time
        "election-timeout": "5000",
        "logger": "zap",
        "log-outputs": "stderr",
    }
    further = [] if has_data() else enter(config)
    os.execvp("etcd", ["etcd", *(f"--{key}={value}" for key, value in options.items()), *further])


def learns() -> bool:
    """Whether etcd runs here, and has no vote yet."""
    with urllib.request.urlopen(f"{ETCD}/metrics", timeout=ANSWER_SECONDS) as reply:
        return b"\netcd_server_is_learner 1\n" in reply.read()


def serves() -> bool:
    """Whether etcd serves here; what it calls health itself, a learner has too."""
    try:
        with urllib.request.urlopen(f"{ETCD}/health", timeout=ANSWER_SECONDS):
            return not learns()
    except OSError:
        return False


def watch(config: Config) -> t.NoReturn:
    """Have this member vote once it has caught up; before that it does not serve."""
    mine, told = config.members[config.name], ""
    while True:
        try:
            if learns():
                for one in listed(config.others.values()):
                    if one.address == mine and one.learner:
                        etcdctl(config.others.values(), "member", "promote", one.identity)
                        print("this member votes now", flush=True)
        except (Trouble, OSError) as problem:
            if str(problem) != told:  # such as that it has not caught up yet
                told = str(problem)
                print(problem, flush=True)
        time.sleep(POLL_SECONDS)


class State(http.server.BaseHTTPRequestHandler):
    """``GET /``: whether this member has data; ``GET /health``: 200 while it serves, or 503."""

    timeout = ANSWER_SECONDS

    def do_GET(self) -> None:
        body = json.dumps({"data": has_data()}).encode()
        self.send_response(200 if self.path == "/" or (self.path == "/health" and serves()) else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: t.Any = "-", size: t.Any = "-") -> None:
        """Say nothing of a question that was answered."""


class StateServer(http.server.ThreadingHTTPServer):
    """HTTPS, each handshake in a thread of its own."""

    tls: ssl.SSLContext

    def finish_request(self, request: t.Any, client_address: t.Any) -> None:
        request.settimeout(ANSWER_SECONDS)
        with self.tls.wrap_socket(request, server_side=True) as secure:
            State(secure, client_address, self)

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        problem = sys.exc_info()[1]
        if not isinstance(problem, ConnectionError):  # a load balancer leaves as soon as it knows
            print(f"{client_address[0]}: {problem}", file=sys.stderr, flush=True)


def serve(config: Config) -> None:
    server = StateServer((config.members[config.name], STATE), State)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(f"{TLS}/zone.crt", f"{TLS}/zone.key")
    threading.Thread(target=watch, args=[config], daemon=True).start()
    server.serve_forever()


# --- questions of a run -------------------------------------------------------------------------------------------


def unhealthy(members: t.Mapping[str, str]) -> list[str]:
    """Which of these members do not serve, and why."""
    found = []
    for name, address in members.items():
        try:
            get(address, STATE, "/health")
        except (OSError, ValueError) as problem:
            found.append(f"{name}: {problem}")
    return found


def whole(members: t.Mapping[str, str], wait: float) -> None:
    """Wait until all of these members serve."""
    deadline = time.monotonic() + wait
    while problems := unhealthy(members):
        if time.monotonic() > deadline:
            raise Trouble(f"not whole within {wait:g} s: {'; '.join(problems)}")
        time.sleep(POLL_SECONDS)


def forget(stay: t.Collection[str], spare: bool = False) -> None:
    """Remove all members but those at the addresses ``stay``.

    :param spare: one that runs is left alone; else that is an error.
    """
    for one in listed(stay):
        if one.address in stay:
            continue
        if not unhealthy({one.address: one.address}):
            if spare:
                continue
            raise Trouble(f"the member at {one.address} is configured no more and runs: remove its zone first")
        etcdctl(stay, "member", "remove", one.identity)
        print(f"removed the member at {one.address}", flush=True)


# --- the schema ---------------------------------------------------------------------------------------------------


def schema_is_current(config: Config) -> bool:
    """Whether the schema is there, as the user sees it who works with it, and nobody may do without a password."""
    every = config.members.values()
    try:
        status = json.loads(etcdctl(every, "auth", "status", "--write-out=json"))
        keys = {key: etcdctl(every, "get", key, "--print-value-only", user="app").strip() for key in SCHEMA}
    except Trouble as problem:
        print(problem, file=sys.stderr)
        return False
    return bool(status.get("enabled")) and keys == SCHEMA


def make_schema(config: Config) -> None:
    """Write keys, roles and users; what is there already is written again. Passwords are asked for from the last line on."""
    every, secrets = list(config.members.values()), json.loads(SECRETS.read_text())
    for key, value in SCHEMA.items():
        etcdctl(every, "put", key, value)
    if "app" not in etcdctl(every, "role", "list").split():
        etcdctl(every, "role", "add", "app")
    etcdctl(every, "role", "grant-permission", "app", "--prefix=true", "read", "/schema/")
    etcdctl(every, "role", "grant-permission", "app", "--prefix=true", "readwrite", "/app/")
    users = etcdctl(every, "user", "list").split()
    for user in ("app", "root"):
        verb = "passwd" if user in users else "add"
        etcdctl(every, "user", verb, user, "--interactive=false", given=f"{secrets[f'{user}_password']}\n")
    etcdctl(every, "user", "grant-role", "app", "app")
    etcdctl(every, "auth", "enable")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start", help="become etcd (for its unit)")
    commands.add_parser("serve", help="tell the other members whether this one has data (for its unit)")
    asked = commands.add_parser("whole", help="exit with 0 when all members serve")
    asked.add_argument("--others", action="store_true", help="ask only the other members")
    asked.add_argument(
        "--forget", action="store_true", help="then remove members that are configured no more and do not run"
    )
    asked.add_argument("--wait", type=float, default=0, metavar="S", help="seconds to wait for it; default %(default)s")
    removed = commands.add_parser("forget", help="remove all members but those at these addresses")
    removed.add_argument("addresses", nargs="+", metavar="ADDRESS")
    commands.add_parser("schema", help="the schema").add_argument("what", choices=["current", "make"])
    return parser.parse_args()


def main() -> int:
    given, config = arguments(), Config(**json.loads(CONFIG.read_text()))
    try:
        if given.command == "start":
            start(config)
        elif given.command == "serve":
            serve(config)
        elif given.command == "whole":
            whole(config.others if given.others else config.members, given.wait)
            if given.forget:
                forget(config.members.values(), spare=True)
        elif given.command == "forget":
            forget(given.addresses)
        elif given.what == "make":
            make_schema(config)
        else:
            return 0 if schema_is_current(config) else 1
    except Trouble as trouble:
        print(f"zonestack-etcd: {trouble}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
