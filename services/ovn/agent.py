#!/usr/bin/python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and watch one node of OVN's databases, each a Raft cluster, with no node that must never be lost.

``start``   stands in front of ovsdb-server (``nb``, ``sb``) and ovn-northd: makes the database where there is none
``watch``   on the leader of a database: removes servers that lost their data, converts the schema after an upgrade
``ready``   exits with 0 when this node's database is a connected member, or northd runs
``whole``   exits with 0 when every node's databases are
``forget``  removes servers whose address is no node's any more, once they do not answer
``status``  prints what every node says

A node without a database joins the cluster of the others (ovsdb-tool(1), join-cluster), which is always safe: it waits
until somebody lets it in. A cluster is made by the first configured node alone, and only after every other node has
said that it has none. A node says so by serving: an ovsdb-server that waits to join answers questions, and names no
cluster (ovsdb-server(5), table Database of _Server). Who does not answer may hold data, and is waited for.

A member that lost its data joins as a new server, and the old one would count as a voter for ever. An address belongs to
one node and a node has one database, so a server that is listed at a node's address under another identity than the node
itself gives is gone for good; the leader takes it off the list.

Everything is read from /etc/zonestack/ovn.json (see ``Config``). Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CONFIG = "/etc/zonestack/ovn.json"
POLL_SECONDS = 1.0  # between two rounds of questions before a database is made
WATCH_SECONDS = 5.0
ANSWER_SECONDS = 3.0  # a node that needs longer to answer counts as silent in this round
CONVERT_SECONDS = 120.0
NO_UUID = "00000000-0000-0000-0000-000000000000"

#: Milliseconds without word from the leader until a follower stands for election (ovsdb(7)). The default of 1 s makes a
#: busy machine change its leader all the time. A leader that is stopped in order hands over at once.
ELECTION_MS = 10_000
#: Milliseconds of silence after which either side asks whether the other one still lives; the default of 5 s cuts
#: clients that compute for longer.
PROBE_MS = 60_000


class Trouble(Exception):
    """What keeps this node from starting; the text says what would be right."""


# --- configuration -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Database:
    """One of OVN's two databases; the ports are those that OVN's own scripts use."""

    name: str
    schema: str
    port: int
    raft_port: int


DATABASES = {
    "nb": Database("OVN_Northbound", "/usr/share/ovn/ovn-nb.ovsschema", 6641, 6643),
    "sb": Database("OVN_Southbound", "/usr/share/ovn/ovn-sb.ovsschema", 6642, 6644),
}


@dataclass(frozen=True)
class Member:
    """One configured node."""

    name: str
    address: str


@dataclass(frozen=True)
class Config:
    """The configuration file: ``name`` of this node and ``members``, the rest optional.

    ``members`` lists every node including this one, on every node in the same order: the first one makes a cluster.
    ``limit`` is how long (s) to wait for word from all nodes before systemd is told that it failed, and tries again.
    """

    name: str
    members: tuple[Member, ...]
    limit: float = 600
    datadir: Path = Path("/var/lib/ovn")
    rundir: Path = Path("/run/ovn")  # where ovn-nbctl, ovn-sbctl and ovn-appctl look
    certificate: str = "/etc/zonestack/tls/zone.crt"
    key: str = "/etc/zonestack/tls/zone.key"
    ca: str = "/etc/zonestack/tls/ca.crt"

    @property
    def me(self) -> Member:
        return next(member for member in self.members if member.name == self.name)

    @property
    def peers(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.name != self.name)

    @property
    def tls(self) -> list[str]:
        """The certificate as OVN's programs take it."""
        return [f"--private-key={self.key}", f"--certificate={self.certificate}", f"--ca-cert={self.ca}"]

    def file(self, kind: str) -> Path:
        return self.datadir / f"ovn{kind}_db.db"

    def socket(self, kind: str) -> str:
        return str(self.rundir / f"ovn{kind}_db.sock")

    def control(self, what: str) -> str:
        """The control socket (ovs-appctl(8)) of a database's server or of northd."""
        return str(self.rundir / (f"ovn{what}_db.ctl" if what in DATABASES else f"ovn-{what}.ctl"))

    def remotes(self, kind: str) -> str:
        return ",".join(f"ssl:{member.address}:{DATABASES[kind].port}" for member in self.members)


def load_config(path: str) -> Config:
    """Read the configuration file; whatever is wrong in it ends the program with a message that names the key."""
    try:
        data = json.loads(Path(path).read_text())
        data["members"] = tuple(Member(**member) for member in data["members"])
        if data["name"] not in {member.name for member in data["members"]}:
            raise ValueError(f"name: {data['name']!r} is none of the members")
        for key in ("datadir", "rundir"):
            if key in data:
                data[key] = Path(data[key])
        return Config(**data)
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise Trouble(f"{path}: {problem}") from None


# --- asking ------------------------------------------------------------------------------------------------------


def call(stream: socket.socket, method: str, params: t.Sequence[t.Any]) -> t.Any:
    """One JSON-RPC call (RFC 7047, 4); what the server asks in between stays unanswered, for the connection ends here."""
    stream.sendall(json.dumps({"id": 1, "method": method, "params": list(params)}).encode())
    received, decoder = b"", json.JSONDecoder()
    while True:
        chunk = stream.recv(65536)
        if not chunk:
            raise ConnectionError("the connection was closed before the answer")
        received += chunk
        while received:
            try:
                message, end = decoder.raw_decode(received.decode())
            except ValueError:  # not all of it yet
                break
            received = received.decode()[end:].encode()
            if message.get("id") == 1 and "result" in message:
                if message.get("error"):
                    raise ValueError(message["error"])
                return message["result"]


def call_unix(path: str, method: str, params: t.Sequence[t.Any]) -> t.Any:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(ANSWER_SECONDS)
        stream.connect(path)
        return call(stream, method, params)


@dataclass(frozen=True)
class Answer:
    """What a server says of a database: the cluster (empty while it waits to join one), itself, and how it stands."""

    cluster: str
    server: str
    connected: bool
    leader: bool
    schema: str = ""


def question(database: Database) -> list[t.Any]:
    columns = ["cid", "sid", "connected", "leader", "schema"]
    return [
        "_Server",
        {"op": "select", "table": "Database", "where": [["name", "==", database.name]], "columns": columns},
    ]


def understand(result: t.Any) -> Answer:
    """The answer to :func:`question`. An optional value is itself or an empty set (RFC 7047, 5.1)."""
    if "error" in result[0]:
        raise ValueError(result[0]["error"])
    if not result[0]["rows"]:
        raise ValueError("the database is not there")
    row = result[0]["rows"][0]
    cid, sid = ("" if row[key] == ["set", []] else row[key][1] for key in ("cid", "sid"))
    schema = row["schema"] if isinstance(row["schema"], str) else ""
    return Answer("" if cid == NO_UUID else cid, sid, row["connected"], row["leader"], schema)


class Nodes:
    """Questions to all nodes at once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and address
        self.tls.load_verify_locations(config.ca)
        self.tls.load_cert_chain(config.certificate, config.key)
        self.pool = ThreadPoolExecutor(max_workers=len(config.members))

    def ask(self, kind: str, members: t.Sequence[Member]) -> dict[str, Answer | str]:
        """Every node's answer, or why there is none, by name."""
        answers = self.pool.map(lambda member: self._ask_one(DATABASES[kind], member), members)
        return dict(zip((member.name for member in members), answers))

    def _ask_one(self, database: Database, member: Member) -> Answer | str:
        try:
            with socket.create_connection((member.address, database.port), timeout=ANSWER_SECONDS) as plain:
                with self.tls.wrap_socket(plain, server_hostname=member.address) as stream:
                    return understand(call(stream, "transact", question(database)))
        except (OSError, ValueError, LookupError, TypeError) as problem:
            return f"no answer from {member.address}:{database.port} ({problem})"


def ask_myself(config: Config, kind: str) -> Answer | str:
    try:
        return understand(call_unix(config.socket(kind), "transact", question(DATABASES[kind])))
    except (OSError, ValueError, LookupError, TypeError) as problem:
        return f"no answer at {config.socket(kind)} ({problem})"


# --- the decisions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """``action``: ``create``, ``join`` or ``wait``; ``reason`` is for people."""

    action: str
    reason: str


def decide(config: Config, answers: t.Mapping[str, Answer | str]) -> Decision:
    """How a node without a database gets one, given what every peer said (an :class:`Answer`, or why there is none)."""
    first = config.members[0]
    if config.name != first.name:
        return Decision("join", f"{first.name} makes the cluster where there is none")
    holders = [name for name, answer in answers.items() if isinstance(answer, Answer) and answer.cluster]
    if holders:
        return Decision("join", f"{', '.join(holders)} belongs to a cluster already")
    silent = [f"{name}: {answer}" for name, answer in answers.items() if not isinstance(answer, Answer)]
    if silent:
        return Decision(
            "wait", f"a cluster may only be made when every node says that it has none; {'; '.join(silent)}"
        )
    return Decision("create", "no node belongs to a cluster")


@dataclass(frozen=True)
class Server:
    """A line of the servers in ``cluster/status``; the identity is only the beginning of the true one."""

    identity: str
    address: str


def cluster_status(text: str) -> tuple[bool, list[Server]]:
    """Whether this server leads, and the other servers, from ``ovs-appctl cluster/status``."""
    servers = [
        Server(found[1], found[2])
        for found in re.finditer(r"^ +(\w+) \(\w+ at (\S+?)\)(.*)$", text.partition("\nServers:\n")[2], re.MULTILINE)
        if "(self)" not in found[3]
    ]
    return "\nRole: leader\n" in text, servers


def gone(
    config: Config, database: Database, cluster: str, servers: t.Sequence[Server], answers: t.Mapping[str, Answer | str]
) -> list[Server]:
    """The servers that lost their data: their node answers from their address, and is another server by now.

    A node that says that it belongs to another cluster is left alone: that is a mistake for people to see.
    """
    nodes = {f"ssl:{member.address}:{database.raft_port}": member.name for member in config.peers}
    found = []
    for server in servers:
        answer = answers.get(nodes.get(server.address, ""))
        if (
            isinstance(answer, Answer)
            and answer.cluster in ("", cluster)
            and not answer.server.startswith(server.identity)
        ):
            found.append(server)
    return found


def strangers(config: Config, database: Database, servers: t.Sequence[Server]) -> list[Server]:
    """The servers at addresses that are no node's."""
    nodes = {f"ssl:{member.address}:{database.raft_port}" for member in config.members}
    return [server for server in servers if server.address not in nodes]


def version(schema: str) -> tuple[int, ...]:
    """The version that a schema in JSON gives itself (RFC 7047, 3.1); nothing when there is none."""
    return tuple(int(part) for part in json.loads(schema or "{}").get("version", "").split(".") if part)


# --- start -------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(f"zonestack-ovn: {text}", file=sys.stderr, flush=True)


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    quiet = ["-vsyslog:off", "-vfile:off", "-vconsole:err"]
    return subprocess.run(["ovsdb-tool", *quiet, *arguments], capture_output=True, text=True, check=False)


def holds_cluster(config: Config, kind: str) -> bool:
    """Whether this node's file belongs to a cluster. One that only waits to join holds nothing, and is made anew."""
    file, address = config.file(kind), f"ssl:{config.me.address}:{DATABASES[kind].raft_port}"
    if not file.exists():
        return False
    local = tool("db-local-address", str(file))
    if local.returncode:
        raise Trouble(
            f"{file} cannot be read: {local.stderr.strip()}. When another node holds the data: move the file away and start "
            "again; this node then gets a copy"
        )
    if local.stdout.strip() != address:
        raise Trouble(
            f"{file} belongs to the server at {local.stdout.strip()}, this one is {address}: a volume of another zone, or the "
            "zone's address has changed. When the other nodes hold the data: move the file away and start again"
        )
    return tool("db-cid", str(file)).returncode == 0


def make(config: Config, kind: str, decision: Decision) -> None:
    """Make this node's file beside its place and move it there, so that an interrupted start leaves nothing behind."""
    file, database = config.file(kind), DATABASES[kind]
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    mine, *others = (f"ssl:{member.address}:{database.raft_port}" for member in (config.me, *config.peers))
    if decision.action == "create":
        done = tool(f"--election-timer={ELECTION_MS}", "create-cluster", str(new), database.schema, mine)
    else:
        done = tool("join-cluster", str(new), database.name, mine, *others)
    if done.returncode:
        raise Trouble(f"{new} cannot be made: {done.stderr.strip()}")
    os.replace(new, file)
    folder = os.open(config.datadir, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def start_database(config: Config, kind: str) -> t.NoReturn:
    """See to it that there is a database, then become its server."""
    file, database = config.file(kind), DATABASES[kind]
    if not holds_cluster(config, kind):
        nodes, deadline, told = Nodes(config), time.monotonic() + config.limit, ""
        while True:
            first = config.name == config.members[0].name
            decision = decide(config, nodes.ask(kind, config.peers) if first else {})
            if decision.reason != told:
                told = decision.reason
                say(f"{database.name}: {decision.action}: {decision.reason}")
            if decision.action != "wait":
                break
            if time.monotonic() > deadline:
                raise Trouble(f"{database.name}: not decided within {config.limit:g} s: {decision.reason}")
            time.sleep(POLL_SECONDS)
        make(config, kind, decision)
    settings = config.rundir / f"ovn{kind}_db.json"
    settings.write_text(
        json.dumps(
            {
                "remotes": {
                    f"pssl:{database.port}:{config.me.address}": {"inactivity-probe": PROBE_MS},
                    f"punix:{config.socket(kind)}": {},
                },
                "databases": {str(file): {}},
            }
        )
    )
    become("ovsdb-server", f"--config-file={settings}", f"--unixctl={config.control(kind)}", *config.tls)


def start_northd(config: Config) -> t.NoReturn:
    """Become ovn-northd. All of them run, and the one that holds a lock in the southbound database works."""
    databases = [f"--ovn{kind}-db={config.remotes(kind)}" for kind in DATABASES]
    become("ovn-northd", *databases, f"--unixctl={config.control('northd')}", *config.tls)


def become(program: str, *arguments: str) -> t.NoReturn:
    """Replace this process; it logs to standard error, and the journal knows the time."""
    logging = ["-vsyslog:off", "-vfile:off", "-vconsole:info", "-vPATTERN:console:%c|%p|%m"]
    os.execvp(program, [program, *logging, *arguments])


# --- watch -------------------------------------------------------------------------------------------------------


def lead(config: Config, nodes: Nodes, kind: str) -> None:
    """What the leader of a database does for it, and nobody else."""
    database = DATABASES[kind]
    mine = ask_myself(config, kind)
    if not isinstance(mine, Answer) or not mine.leader or not mine.connected:
        return
    leads, servers = cluster_status(call_unix(config.control(kind), "cluster/status", [database.name]))
    if not leads:
        return
    for server in gone(config, database, mine.cluster, servers, nodes.ask(kind, config.peers)):
        say(f"{database.name}: {server.identity} at {server.address} lost its data: removing it from the cluster")
        call_unix(config.control(kind), "cluster/kick", [database.name, server.identity])
    if mine.schema and version(mine.schema) < version(Path(database.schema).read_text()):
        say(f"{database.name}: converting it to the schema of {database.schema}")
        subprocess.run(
            ["ovsdb-client", "-vsyslog:off", "-vfile:off", "convert", f"unix:{config.socket(kind)}", database.schema],
            check=True, timeout=CONVERT_SECONDS,
        )  # fmt: skip
    if kind == "nb":
        # northd reads its own patience from here. An entry that is there stays; without a change nothing is written.
        patience = ["map", [["northd_probe_interval", str(PROBE_MS)]]]
        change = {"op": "mutate", "table": "NB_Global", "where": [], "mutations": [["options", "insert", patience]]}
        call_unix(config.socket(kind), "transact", [database.name, change])


def watch(config: Config) -> t.NoReturn:
    nodes, told = Nodes(config), ""
    while True:
        for kind in DATABASES:
            try:
                lead(config, nodes, kind)
            except (OSError, ValueError, LookupError, subprocess.SubprocessError) as problem:
                if str(problem) != told:  # such as a server that stops between two questions
                    told = str(problem)
                    say(f"{DATABASES[kind].name}: {problem}")
        time.sleep(WATCH_SECONDS)


# --- questions of people and of a run ----------------------------------------------------------------------------


def unready(config: Config, what: str) -> str:
    """Why this node's part of the service is not ready; empty when it is."""
    if what == "northd":
        try:
            call_unix(config.control(what), "status", [])
            return ""
        except (OSError, ValueError) as problem:
            return f"northd: no answer at {config.control(what)} ({problem})"
    answer = ask_myself(config, what)
    if isinstance(answer, str):
        return f"{DATABASES[what].name}: {answer}"
    return "" if answer.connected else f"{DATABASES[what].name}: not connected to its cluster"


def missing(config: Config, nodes: Nodes, members: t.Sequence[Member]) -> list[str]:
    """Which databases of these nodes are not connected, and why."""
    found = []
    for kind, database in DATABASES.items():
        for name, answer in nodes.ask(kind, members).items():
            if isinstance(answer, str):
                found.append(f"{name}, {database.name}: {answer}")
            elif not answer.connected:
                found.append(f"{name}, {database.name}: not connected to its cluster")
    return found


def whole(config: Config, members: t.Sequence[Member], wait: float) -> None:
    nodes, deadline = Nodes(config), time.monotonic() + wait
    while problems := missing(config, nodes, members):
        if time.monotonic() > deadline:
            raise Trouble(f"not whole within {wait:g} s: {'; '.join(problems)}")
        time.sleep(POLL_SECONDS)


def forget(config: Config, wait: float, spare: bool = False) -> None:
    """Take servers that no node has any more off the lists, and see them gone. Any server may ask the leader for that.

    :param spare: one that runs is left alone; else that is an error.
    """
    nodes, deadline = Nodes(config), time.monotonic() + wait
    for kind, database in DATABASES.items():
        asked: set[str] = set()
        spared: set[str] = set()
        while left := strangers(
            config, database, cluster_status(call_unix(config.control(kind), "cluster/status", [database.name]))[1]
        ):
            left = [server for server in left if server.identity not in spared]
            if not left:
                break
            for server in left:
                address = server.address.removeprefix("ssl:").rpartition(":")[0]
                here = nodes.ask(kind, [Member(address, address)])[address]
                if isinstance(here, Answer) and here.cluster:
                    if spare:
                        spared.add(server.identity)
                        continue
                    raise Trouble(
                        f"{database.name}: {server.identity} at {server.address} is no node's and runs: remove its zone first"
                    )
                if server.identity not in asked:
                    call_unix(config.control(kind), "cluster/kick", [database.name, server.identity])
                    asked.add(server.identity)
                    print(f"{database.name}: removed server {server.identity} at {server.address}", flush=True)
            if time.monotonic() > deadline:
                listed = ", ".join(f"{server.identity} at {server.address}" for server in left)
                raise Trouble(
                    f"{database.name}: still lists {listed} after {wait:g} s: is there a leader? `zonestack-ovn status` says"
                )
            time.sleep(POLL_SECONDS)


def status(config: Config) -> None:
    nodes = Nodes(config)
    for kind, database in DATABASES.items():
        print(database.name)
        for name, answer in nodes.ask(kind, config.members).items():
            if isinstance(answer, Answer):
                state = "joining" if not answer.cluster else "leader" if answer.leader else "follower"
                line = f"{state:9} {'connected' if answer.connected else 'cut off':10} server {answer.server[:4]} cluster {answer.cluster[:4]}"
            else:
                line = answer
            print(f"  {name:24} {line}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default=CONFIG, help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("start", "become a server (for its unit)"), ("ready", "exit with 0 when it serves")):
        commands.add_parser(name, help=text).add_argument("what", choices=[*DATABASES, "northd"])
    commands.add_parser("watch", help="keep the clusters in order")
    commands.add_parser("status", help="print what every node says")
    asked = commands.add_parser("whole", help="exit with 0 when all databases of all nodes are connected")
    asked.add_argument("--others", action="store_true", help="ask only the other nodes")
    asked.add_argument(
        "--forget",
        action="store_true",
        help="then remove servers at addresses that are no node's any more, but those that run",
    )
    asked.add_argument("--wait", type=float, default=0, metavar="S", help="seconds to wait for it; default %(default)s")
    removed = commands.add_parser("forget", help="remove servers at addresses that are no node's any more")
    removed.add_argument(
        "--wait", type=float, default=60, metavar="S", help="seconds to wait until they are gone; default %(default)s"
    )
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config)
        if arguments.command == "start" and arguments.what == "northd":
            start_northd(config)
        elif arguments.command == "start":
            start_database(config, arguments.what)
        elif arguments.command == "watch":
            watch(config)
        elif arguments.command == "ready":
            if problem := unready(config, arguments.what):
                raise Trouble(problem)
        elif arguments.command == "whole":
            whole(config, config.peers if arguments.others else config.members, arguments.wait)
            if arguments.forget:
                forget(config, arguments.wait, spare=True)
        elif arguments.command == "forget":
            forget(config, arguments.wait)
        else:
            status(config)
    except Trouble as trouble:
        say(str(trouble))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
