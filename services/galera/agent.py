#!/usr/bin/python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and watch one node of a MariaDB Galera cluster, with no node that is special.

``serve``      answers HAProxy's health check and tells the other nodes what this one holds
``start``      stands in front of mariadbd: joins a running cluster, or agrees with the others who bootstraps it
``status``     prints what every node says
``bootstrap``  the operator's way out when a node will not come back: bootstrap from here without it

A cluster that was stopped as a whole may be bootstrapped by one node only, the one with the latest data, and only while
nobody else runs. So a node counts as an elector only while its own ``start`` is waiting (phase ``deciding``): then its
mariadbd is down, its position cannot change, and every elector computes the same winner from the same answers. The
winner announces its intention, asks everybody again, and only then bootstraps.

Everything is read from /etc/zonestack/galera.json (see ``Config``). Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import http.client
import http.server
import json
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import typing as t
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

CONFIG = "/etc/zonestack/galera.json"
NO_UUID = "00000000-0000-0000-0000-000000000000"
POLL_SECONDS = 0.5  # between two rounds of questions; an answer costs the asked node about a millisecond
ANSWER_SECONDS = 3.0  # a node that needs longer to answer counts as unreachable in this round
SQL_SECONDS = 2.0  # a server that needs longer for SHOW STATUS takes no traffic
HEALTH_CACHE_SECONDS = 1.0
WATCH_SECONDS = 5.0  # between two looks whether this node has been voted out
CUT_OFF_SECONDS = (
    45.0  # without a connection to the cluster for so long, a mariadbd that answers does not find back by itself
)
GCACHE_MOST = 1 << 40  # bytes; more than anybody gives gcache.size
STOP_SECONDS = 60.0  # a voted-out mariadbd that has not ended by then is killed; its data is worth nothing
REFUSED = 78  # sysexits.h EX_CONFIG; the unit does not restart on it (RestartPreventExitStatus)


class Refusal(Exception):
    """Starting would lose data or cannot work; only a person can decide. The text says what to do."""


# --- configuration and state -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One configured node of the cluster."""

    name: str
    address: str


@dataclass(frozen=True)
class Tls:
    """PEM files; one certificate serves as server and as client certificate and must name the node's address."""

    cert: str
    key: str
    ca: str


@dataclass(frozen=True)
class Config:
    """The configuration file: ``name``, ``members`` and, all optional, ``port``, ``tls``, ``limit`` (s) and the paths.

    ``members`` lists every node including this one, on every node in the same order: ties are decided by it.
    """

    name: str
    members: tuple[Member, ...]
    port: int = 9200
    tls: Tls | None = None
    limit: float = 600
    datadir: Path = Path("/var/lib/mysql")
    rundir: Path = Path("/run/mysqld")
    mariadbd: str = "/usr/sbin/mariadbd"

    @property
    def me(self) -> Member:
        return next(member for member in self.members if member.name == self.name)

    @property
    def peers(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.name != self.name)

    @property
    def socket(self) -> Path:
        return self.rundir / "mysqld.sock"

    @property
    def state_file(self) -> Path:
        return self.rundir / "zonestack-galera.json"

    @property
    def force_file(self) -> Path:
        return self.rundir / "zonestack-galera.force"


def load_config(path: str) -> Config:
    """Read the configuration file; whatever is wrong in it ends the program with a message that names the key."""
    known = {"name", "members", "port", "tls", "limit", "datadir", "rundir", "mariadbd"}
    try:
        data = json.loads(Path(path).read_text())
        if unknown := set(data) - known:
            raise ValueError(f"unknown key {min(unknown)!r} (known: {', '.join(sorted(known))})")
        data["members"] = tuple(Member(**member) for member in data["members"])
        if data["name"] not in {member.name for member in data["members"]}:
            raise ValueError(f"name: {data['name']!r} is none of the members")
        if data.get("tls"):
            data["tls"] = Tls(**data["tls"])
        for key in ("datadir", "rundir"):
            if key in data:
                data[key] = Path(data[key])
        return Config(**data)
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise Refusal(f"{path}: {problem}") from None


@dataclass(frozen=True)
class Position:
    """Where a node's data stands: the cluster it belongs to and the last transaction it holds.

    A zero ``uuid`` is an empty node, or one that Galera itself marked as inconsistent: it may join, never lead.
    ``seqno`` -1 beside a real uuid: unknown (not shut down cleanly, not yet recovered).
    """

    uuid: str = NO_UUID
    seqno: int = -1
    safe_to_bootstrap: bool = False

    @property
    def empty(self) -> bool:
        return self.uuid == NO_UUID


@dataclass(frozen=True)
class Answer:
    """What a node says about itself at ``/position``.

    ``phase``: ``stopped``, ``deciding`` (its ``start`` waits), ``starting`` (mariadbd runs, not yet serving) or
    ``running``. ``attempt`` names the ``start`` that is waiting, ``bootstrapping`` its announced intention.
    """

    name: str
    phase: str
    uuid: str
    seqno: int
    safe_to_bootstrap: bool
    running: bool
    primary: bool
    cluster_size: int
    attempt: str
    bootstrapping: bool
    members: list[str]


def read_grastate(datadir: Path) -> Position | None:
    """Galera's own record of the position, ``None`` without one (never started, or the volume is new)."""
    try:
        text = (datadir / "grastate.dat").read_text()
    except FileNotFoundError:
        return None
    found = dict(re.findall(r"^(uuid|seqno|safe_to_bootstrap):\s*(\S+)", text, re.MULTILINE))
    return Position(found.get("uuid", NO_UUID), int(found.get("seqno", -1)), found.get("safe_to_bootstrap", "0") == "1")


def allow_bootstrap(datadir: Path) -> None:
    """Set ``safe_to_bootstrap: 1``: without it Galera refuses a node that was not the last to leave."""
    path = datadir / "grastate.dat"
    if path.exists():
        write_atomically(path, re.sub(r"(?m)^safe_to_bootstrap:.*$", "safe_to_bootstrap: 1", path.read_text()), 0o660)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace ``path`` so that a reader sees the old or the new content, never half of it."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def process_started(pid: int) -> str:
    """When ``pid`` was started (clock ticks since boot, proc(5)), ``""`` when there is no such process.

    Together with the pid it names one process for good; it survives execve, so mariadbd inherits the name of ``start``.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@dataclass(frozen=True)
class StartState:
    """What ``start`` tells ``serve`` through a file: its process, its phase, and the position it found."""

    pid: int
    started: str
    phase: str
    attempt: str
    position: Position
    bootstrapping: bool = False

    def save(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> StartState | None:
        """The state of a ``start`` (or of the mariadbd that it became) that still lives."""
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        data["position"] = Position(**data["position"])
        state = cls(**data)
        return state if process_started(state.pid) == state.started != "" else None


# --- the decision ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """``action``: ``join``, ``bootstrap`` or ``wait``; ``reason`` is for people."""

    action: str
    reason: str


def decide(
    config: Config,
    mine: Position,
    answers: t.Mapping[str, Answer | str],
    *,
    has_view: bool = False,
    force: bool = False,
) -> Decision:
    """What this node should do, given what every peer said (an :class:`Answer`, or why there is none).

    :param has_view: this node still holds the last primary view (``gvwstate.dat``): with the other members of that view
        Galera restores the primary component by itself.
    :param force: the operator lets this node bootstrap without the peers that do not take part.
    :raise Refusal: the nodes hold data of different clusters, or leading from here would lose data.
    """
    heard = [answers[peer.name] for peer in config.peers]
    said = [answer for answer in heard if isinstance(answer, Answer)]
    primary = [answer for answer in said if answer.primary]
    if primary:
        check_same_cluster(config, mine, primary)
        return Decision("join", f"{names(primary)} runs the cluster")

    # From here on nobody that answers serves. Never bootstrap while a peer's mariadbd lives: it may become primary.
    alive = [answer for answer in said if answer.phase in ("starting", "running")]
    if alive:
        if has_view and not force and any(answer.running for answer in alive):
            return Decision("join", f"{names(alive)} runs without quorum; the last primary view is known here")
        return Decision("wait", f"{names(alive)} is up but not yet primary")

    electors = [answer for answer in said if answer.phase == "deciding"]
    if not force:
        missing = [
            f"{peer.name} ({peer.address}): {answer if isinstance(answer, str) else 'mariadb is not being started there'}"
            for peer in config.peers
            if not (isinstance(answer := answers[peer.name], Answer) and answer.phase == "deciding")
        ]
        if missing:
            return Decision(
                "wait",
                "nobody runs the cluster, and it may only be bootstrapped when every node takes part; missing: "
                + "; ".join(missing)
                + ". If that node is lost for good: `zonestack-galera bootstrap --force` on the node with the latest data",
            )
        ours = [member.name for member in config.members]
        for answer in electors:
            if answer.members != ours:
                return Decision(
                    "wait",
                    f"{answer.name} is configured with the members {', '.join(answer.members)}, this node with "
                    f"{', '.join(ours)}; they must agree (run the deployment again)",
                )

    check_same_cluster(config, mine, electors)
    order = {member.name: number for number, member in enumerate(config.members)}
    ranks = {answer.name: (answer.uuid != NO_UUID, answer.seqno, -order[answer.name]) for answer in electors}
    ranks[config.name] = (not mine.empty, mine.seqno, -order[config.name])
    winner = max(ranks, key=lambda name: ranks[name])
    if winner == config.name:
        other = [answer.name for answer in electors if answer.bootstrapping]
        if other:
            return Decision("wait", f"{', '.join(other)} has announced to bootstrap")
        return Decision("bootstrap", "no node holds data" if mine.empty else f"latest data: seqno {mine.seqno}")
    if force and ranks[winner][:2] > ranks[config.name][:2]:
        raise Refusal(
            f"{winner} holds later data (seqno {ranks[winner][1]}, here {mine.seqno}): bootstrap from {winner} instead"
        )
    if force:
        return Decision("bootstrap", f"forced, with the same data as {winner}")
    return Decision("wait", f"{winner} is to bootstrap (seqno {ranks[winner][1]}, here {mine.seqno})")


def check_same_cluster(config: Config, mine: Position, answers: t.Sequence[Answer]) -> None:
    """Refuse when two nodes hold data of different clusters: joining would replace one of them."""
    holders: dict[str, list[str]] = {}
    if not mine.empty:
        holders.setdefault(mine.uuid, []).append(config.name)
    for answer in answers:
        if answer.uuid != NO_UUID:
            holders.setdefault(answer.uuid, []).append(answer.name)
    if len(holders) > 1:
        held = "; ".join(f"{', '.join(who)}: {cluster}" for cluster, who in holders.items())
        raise Refusal(
            f"the nodes hold data of different clusters ({held}). Decide whose data is right, save the other, empty "
            f"{config.datadir} of the nodes that hold the wrong data, and start mariadb there again"
        )


def names(answers: t.Sequence[Answer]) -> str:
    return ", ".join(answer.name for answer in answers)


# --- asking the server of this node ------------------------------------------------------------------------------


class Server:
    """Status of the local mariadbd over its unix socket, through one client process that stays connected."""

    QUERY = (
        "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_local_state_comment', 'wsrep_cluster_status', 'wsrep_ready',"
        " 'wsrep_connected', 'wsrep_cluster_size', 'wsrep_cluster_state_uuid', 'wsrep_last_committed');"
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('wsrep_sst_method', 'read_only'); SELECT 'end', 'end';\n"
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.client: subprocess.Popen[bytes] | None = None

    def status(self) -> dict[str, str]:
        """The variables of ``QUERY`` by name; empty when no server answers within ``SQL_SECONDS``."""
        with self.lock:
            try:
                return self._ask()
            except (OSError, EOFError, TimeoutError):
                self._drop()
                return {}

    def _ask(self) -> dict[str, str]:
        if self.client is None or self.client.poll() is not None:
            if not self.path.exists():  # cheaper than a client that finds nobody there
                raise EOFError
            self.client = subprocess.Popen(
                ["mariadb", "--no-defaults", f"--socket={self.path}", "--batch", "--skip-column-names", "--unbuffered",
                 "--skip-reconnect"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            )  # fmt: skip
        assert self.client.stdin and self.client.stdout
        self.client.stdin.write(self.QUERY.encode())
        data, deadline = b"", time.monotonic() + SQL_SECONDS
        while not data.endswith(b"end\tend\n"):
            if not select.select([self.client.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            chunk = self.client.stdout.read(65536)
            if not chunk:
                raise EOFError
            data += chunk
        rows = (line.split("\t", 1) for line in data.decode().splitlines())
        return {name: value for name, value in rows if name != "end"}

    def _drop(self) -> None:
        if self.client is not None:
            self.client.kill()
            self.client.communicate()
            self.client = None


def health(status: t.Mapping[str, str]) -> tuple[bool, str]:
    """May this node take traffic, and why (not).

    A donor serves on while it is copied with mariadb-backup; rsync and mysqldump block it.
    """
    if not status:
        return False, "mariadbd does not answer"
    if status.get("wsrep_cluster_status") != "Primary":
        return False, f"the cluster component is {status.get('wsrep_cluster_status')}, not Primary"
    if status.get("wsrep_ready") != "ON":
        return False, "wsrep_ready is OFF"
    if status.get("read_only") not in ("OFF", "0"):
        return False, "the server is read-only"
    state = status.get("wsrep_local_state_comment", "")
    if state == "Synced" or (state.startswith("Donor") and status.get("wsrep_sst_method") == "mariabackup"):
        return True, state
    return False, f"the node is {state}, not Synced"


def answer_for(config: Config, status: t.Mapping[str, str]) -> Answer:
    """This node's answer at ``/position`` from the server's status and from what ``start`` left."""
    state = StartState.load(config.state_file)
    if status:
        phase = "running"
        position = Position(
            status.get("wsrep_cluster_state_uuid") or NO_UUID, int(status.get("wsrep_last_committed") or -1)
        )
    elif state:
        phase, position = state.phase, state.position
    else:
        phase, position = "stopped", read_grastate(config.datadir) or Position()
    return Answer(
        name=config.name,
        phase=phase,
        **asdict(position),
        running=phase == "running",
        primary=status.get("wsrep_cluster_status") == "Primary" and status.get("wsrep_ready") == "ON",
        cluster_size=int(status.get("wsrep_cluster_size") or 0),
        attempt=state.attempt if state else "",
        bootstrapping=bool(state and state.bootstrapping),
        members=[member.name for member in config.members],
    )


# --- serve -------------------------------------------------------------------------------------------------------


class Agent(http.server.ThreadingHTTPServer):
    """HTTP server of one node; with TLS a client certificate is asked for, and ``/position`` insists on one."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, config: Config) -> None:
        self.config = config
        self.mariadb = Server(config.socket)
        self.complaints: dict[str, str] = {}  # the last one of each address
        self.tls = None
        if config.tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(config.tls.cert, config.tls.key)
            self.tls.load_verify_locations(config.tls.ca)
            self.tls.verify_mode = ssl.CERT_OPTIONAL
        self._health: tuple[float, dict[str, str]] = (-HEALTH_CACHE_SECONDS, {})
        self._health_lock = threading.Lock()
        super().__init__((config.me.address, config.port), Handler)

    def recent_status(self) -> dict[str, str]:
        """The server's status, at most ``HEALTH_CACHE_SECONDS`` old; many askers cost one query."""
        with self._health_lock:
            taken, status = self._health
            if time.monotonic() - taken >= HEALTH_CACHE_SECONDS:
                status = self.mariadb.status()
                self._health = (time.monotonic(), status)
            return status

    def watch(self) -> t.NoReturn:
        """End a mariadbd that Galera left running good for nothing, so that systemd starts it anew.

        That is one whose data differs from the cluster's, which it then copies
        (https://galeracluster.com/library/documentation/inconsistency-voting.html); and one that has closed its connection to
        the cluster for good, as Galera does when a state transfer fails ("node restart required").
        """
        ended, since, connected = 0, 0.0, time.monotonic()
        while True:
            time.sleep(WATCH_SECONDS)
            state = StartState.load(self.config.state_file)
            if self.recent_status().get("wsrep_connected") != "OFF":  # also when there is no server that could say so
                connected = time.monotonic()
            if state and state.pid == ended and time.monotonic() - since > STOP_SECONDS:
                say(f"mariadbd {state.pid} has not ended within {STOP_SECONDS:g} s: killing it")
                os.kill(state.pid, signal.SIGKILL)
            elif (
                state and state.pid != ended and self.recent_status().get("wsrep_local_state_comment") == "Inconsistent"
            ):
                say(
                    "the data of this node differs from the cluster's: ending mariadbd; it starts anew with a full copy"
                )
                ended, since = state.pid, time.monotonic()
                os.kill(state.pid, signal.SIGTERM)
            elif state and state.pid != ended and time.monotonic() - connected > CUT_OFF_SECONDS:
                say(
                    f"mariadbd has had no connection to the cluster for {CUT_OFF_SECONDS:g} s: ending it, so that it starts anew"
                )
                ended, since = state.pid, time.monotonic()
                os.kill(state.pid, signal.SIGTERM)

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that hangs up or fails the handshake: one line when it changes, no traceback."""
        error, host = repr(sys.exc_info()[1]), client_address[0]
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)) and self.complaints.get(host) != error:
            self.complaints[host] = error
            print(f"{host}: {error}", file=sys.stderr, flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """``GET /``: 200 or 503 with the reason; ``GET /position``: see :class:`Answer`."""

    server: Agent
    timeout = 5  # seconds for one client's handshake and request

    def setup(self) -> None:
        if self.server.tls:  # here, in the connection's own thread: a silent client must not hold up the others
            self.request.settimeout(self.timeout)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        if self.server.tls:  # wrap_socket took the file descriptor over; the server would close an empty shell
            self.request.close()

    def do_GET(self) -> None:
        if self.path == "/":
            good, reason = health(self.server.recent_status())
            self.reply(200 if good else 503, "text/plain", reason)
        elif self.path == "/position":
            if self.server.tls and not self.request.getpeercert():
                self.reply(403, "text/plain", "a client certificate of this deployment is needed")
            else:
                answer = answer_for(self.server.config, self.server.mariadb.status())
                self.reply(200, "application/json", json.dumps(asdict(answer)))
        else:
            self.reply(404, "text/plain", "known: / and /position")

    do_HEAD = do_GET
    do_OPTIONS = do_GET

    def reply(self, code: int, kind: str, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_args: t.Any) -> None:
        """Health checks come several times a second: nothing to log."""


def serve(config: Config) -> None:
    with Agent(config) as agent:
        threading.Thread(target=agent.watch, daemon=True).start()
        notify("READY=1")
        agent.serve_forever()


# --- asking the peers --------------------------------------------------------------------------------------------


class Peers:
    """Questions to all other nodes at once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.pool = ThreadPoolExecutor(max_workers=max(1, len(config.peers)))
        self.tls = None
        if config.tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and address; as strict as mariadbd is
            self.tls.load_verify_locations(config.tls.ca)
            self.tls.load_cert_chain(config.tls.cert, config.tls.key)

    def ask(self) -> dict[str, Answer | str]:
        """Every peer's answer, or why there is none, by name."""
        peers = self.config.peers
        return dict(zip((peer.name for peer in peers), self.pool.map(self._ask_one, peers)))

    def _ask_one(self, peer: Member) -> Answer | str:
        connection: http.client.HTTPConnection
        if self.tls:
            connection = http.client.HTTPSConnection(
                peer.address, self.config.port, timeout=ANSWER_SECONDS, context=self.tls
            )
        else:
            connection = http.client.HTTPConnection(peer.address, self.config.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/position")
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                return f"answered {response.status}: {body.decode(errors='replace').strip()}"
            return Answer(**json.loads(body))
        except (OSError, http.client.HTTPException, ValueError, TypeError) as problem:
            return f"no answer at port {self.config.port} ({problem})"
        finally:
            connection.close()


# --- start -------------------------------------------------------------------------------------------------------


def notify(text: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens where it does not listen."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify_socket:
            notify_socket.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)


def say(text: str) -> None:
    """One line in the journal, and the unit's status text."""
    print(f"zonestack-galera: {text}", file=sys.stderr, flush=True)
    notify(f"STATUS={text}")


def own_position(config: Config) -> tuple[Position, bool]:
    """This node's position and whether it had to be recovered from InnoDB (mariadbd must not run).

    A server that was not shut down cleanly leaves ``seqno: -1`` in grastate.dat; InnoDB knows the true number.
    """
    if unfinished_marker(config).exists() or not (config.datadir / "ibdata1").exists():
        return Position(), False
    recorded = read_grastate(config.datadir)
    if recorded and (recorded.empty or recorded.seqno >= 0):
        return recorded, False
    done = subprocess.run(
        [config.mariadbd, "--wsrep-recover", "--skip-networking"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    found = re.search(r"Recovered position:\s*([0-9a-f-]{36}):(-?\d+)", done.stdout)
    if found is None:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise Refusal(
            f"the position cannot be recovered (mariadbd --wsrep-recover, exit code {done.returncode}):\n{tail}"
        )
    position = Position(found[1], int(found[2]), bool(recorded and recorded.safe_to_bootstrap))
    if recorded and recorded.uuid != position.uuid:
        raise Refusal(
            f"grastate.dat names cluster {recorded.uuid}, InnoDB {position.uuid}: restore or empty {config.datadir}"
        )
    return position, True


def unfinished_marker(config: Config) -> Path:
    return config.datadir / "zonestack-initialising"


def initialise(config: Config) -> None:
    """Fill an empty data directory: no test database, no anonymous user, root and mysql by unix socket only.

    Only the node that bootstraps needs it, a joining one receives everything. A marker makes it safe to interrupt.
    """
    marker = unfinished_marker(config)
    if (config.datadir / "mysql").exists() and not marker.exists():
        return
    say(f"initialising {config.datadir}")
    marker.touch()
    for entry in config.datadir.iterdir():
        if entry.name not in (marker.name, "lost+found"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    subprocess.run(
        ["mariadb-install-db", f"--datadir={config.datadir}", "--skip-test-db",
         "--auth-root-authentication-method=socket", "--auth-root-socket-user=mysql", "--wsrep-on=OFF"],
        stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    marker.unlink()


def can_reserve(descriptor: int) -> bool:
    """Whether the file's file system reserves space at once (fallocate(2)); the C library's own call would hide that it does not."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(descriptor, 0, ctypes.c_long(0), ctypes.c_long(1))
    return done == 0 or ctypes.get_errno() != errno.EOPNOTSUPP


def lay_out_gcache(config: Config) -> None:
    """Where space cannot be reserved (ZFS), make the file of Galera's write-set cache a sparse one before Galera makes it.

    Galera reserves ``gcache.size`` for a file that is too small, and cuts one that is too large. On ZFS the C library then
    writes into every block of it instead, which reserves nothing there, as a write always goes to a new place.
    """
    path = config.datadir / "galera.cache"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o660)
    except FileExistsError:
        return
    try:
        if can_reserve(descriptor):
            path.unlink()
        else:
            os.ftruncate(descriptor, GCACHE_MOST)
    finally:
        os.close(descriptor)


def start(config: Config, options: t.Sequence[str]) -> t.NoReturn:
    """Decide how to start, then become mariadbd. Fails after ``config.limit`` seconds with the last reason."""
    deadline = time.monotonic() + config.limit
    position, recovered = own_position(config)
    state = StartState(
        os.getpid(), process_started(os.getpid()), "deciding", uuid.uuid4().hex, position, bootstrapping=False
    )
    config.force_file.unlink(missing_ok=True)
    state.save(config.state_file)
    has_view = (config.datadir / "gvwstate.dat").exists()
    peers = Peers(config)
    told = ""
    while True:
        answers = peers.ask()
        force = config.force_file.exists()
        decision = decide(config, position, answers, has_view=has_view, force=force)
        if decision.action == "bootstrap" and config.peers:
            # Announce, then look again: of two nodes that both announce at least one sees the other and steps back.
            replace(state, bootstrapping=True).save(config.state_file)
            again = peers.ask()
            decision = decide(config, position, again, has_view=has_view, force=force)
            if decision.action == "bootstrap" and not force and attempts(again) != attempts(answers):
                decision = Decision("wait", "a peer was started anew meanwhile")
            if decision.action != "bootstrap":
                state.save(config.state_file)
        if decision.action != "wait":
            break
        if decision.reason != told:
            say(f"waiting: {decision.reason}")
            told = decision.reason
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up after {config.limit:g} s: {decision.reason}")
        time.sleep(POLL_SECONDS)

    arguments = [config.mariadbd, *options]
    if recovered and not position.empty:
        arguments.append(f"--wsrep-start-position={position.uuid}:{position.seqno}")
    if decision.action == "bootstrap":
        initialise(config)
        allow_bootstrap(config.datadir)
        arguments.append("--wsrep-new-cluster")
    elif unfinished_marker(config).exists():
        unfinished_marker(config).unlink()  # what an interrupted initialisation left is replaced by the transfer
    lay_out_gcache(config)
    replace(state, phase="starting", bootstrapping=decision.action == "bootstrap").save(config.state_file)
    say(f"{decision.action}: {decision.reason}")
    os.execv(arguments[0], arguments)


def attempts(answers: t.Mapping[str, Answer | str]) -> dict[str, str]:
    return {name: answer.attempt for name, answer in answers.items() if isinstance(answer, Answer)}


# --- the operator's commands -------------------------------------------------------------------------------------


def ask_self(config: Config) -> Answer:
    return answer_for(config, Server(config.socket).status())


def status(config: Config) -> None:
    """Print one line per node."""
    answers: dict[str, Answer | str] = {config.name: ask_self(config), **Peers(config).ask()}
    for member in config.members:
        answer = answers[member.name]
        if isinstance(answer, str):
            print(f"{member.name:24} {member.address:16} {answer}")
        else:
            role = "primary" if answer.primary else answer.phase
            held = "empty" if answer.uuid == NO_UUID else f"{answer.uuid}:{answer.seqno}"
            print(f"{member.name:24} {member.address:16} {role:9} {held}")


def bootstrap(config: Config, *, force: bool) -> None:
    """Make this node lead without the peers that do not take part. Data that only they hold is lost."""
    mine, answers = ask_self(config), Peers(config).ask()
    silent = [name for name, answer in answers.items() if isinstance(answer, str) or answer.phase == "stopped"]
    if mine.primary:
        raise Refusal("this node already belongs to a running cluster")
    if not force:
        raise Refusal(
            f"would bootstrap from {mine.uuid}:{mine.seqno} without {', '.join(silent) or 'nobody'}; what only they hold "
            "would be lost. Make sure that mariadb does not run there, then add --force"
        )
    primary = [answer for answer in answers.values() if isinstance(answer, Answer) and answer.primary]
    if primary:
        raise Refusal(f"{names(primary)} runs the cluster: this node joins it by itself")
    if mine.running:  # a node that lost its quorum: only the component has to be declared primary again
        subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={config.socket}"],
            input="SET GLOBAL wsrep_provider_options = 'pc.bootstrap=true';", text=True, check=True,
        )  # fmt: skip
        print("this node is primary again; the others join when they start")
        return
    if mine.phase != "deciding":
        raise Refusal("mariadb is not being started here: `systemctl start --no-block mariadb` first")
    decision = decide(config, Position(mine.uuid, mine.seqno, mine.safe_to_bootstrap), answers, force=True)
    if decision.action != "bootstrap":
        raise Refusal(decision.reason)
    config.force_file.touch()
    print(f"mariadb here will bootstrap ({decision.reason}); follow it with `journalctl -fu mariadb`")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default=CONFIG, help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer the health check and the other nodes")
    commands.add_parser("start", help="decide how to start, then become mariadbd (for mariadb.service)").add_argument(
        "options", nargs=argparse.REMAINDER, help="handed to mariadbd"
    )
    commands.add_parser("status", help="print what every node says")
    commands.add_parser("bootstrap", help="bootstrap from this node without the missing ones").add_argument(
        "--force", action="store_true", help="really do it"
    )
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config)
        if arguments.command == "serve":
            serve(config)
        elif arguments.command == "start":
            start(config, arguments.options)
        elif arguments.command == "status":
            status(config)
        else:
            bootstrap(config, force=arguments.force)
    except Refusal as refusal:
        say(str(refusal))
        return REFUSED
    except TimeoutError as late:
        say(str(late))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
