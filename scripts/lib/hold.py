# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time for each deployment, from whichever machine, and only with the secrets that its zones were made with.

Both are asked of the hosts: keeper.py works on a few of them while a run goes on. It holds the deployment's lock and tells whose
the deployment is. What only looks (--plan, --check) asks without the lock.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keeper
from checks.unreachable import NO_PYTHON, NO_SUDO
from cloud import compute
from deployment import ROOT, Deployment, DeploymentError
from preflight import CONNECT_SECONDS, Way, way_to

PROGRAM = Path(keeper.__file__)
KEEPERS = 5
"""Hosts that keep the lock of a deployment, those with the lowest ids: each run tries the same ones, and needs those that answer."""
WAIT = 600
"""Seconds for which a run waits for another one by default."""
BEAT = 15.0
"""Seconds between two words to each host, by which it knows that the run lives."""
ANSWER = 3.0 * CONNECT_SECONDS
"""Seconds after which a host that says nothing counts as one that does not answer. Preflight and Ansible say why it does not."""
PYTHON = {"lxc": "/usr/bin/python3", "smartos": "/opt/tools/bin/python3"}

START = """\
test -x {python} || exit {no_python}
test "$(id -u)" = 0 && exec {program}
sudo -n true || exit {no_sudo}
exec sudo -n {program}
"""


def holder() -> str:
    """Who runs, in the words that another run shows."""
    return (
        f"{getpass.getuser()} on {socket.gethostname()}, process {os.getpid()}, {ROOT}, since {time.strftime('%F %T')}"
    )


def program() -> tuple[bytes, bytes]:
    """keeper.py and what it needs, as they go over standard input."""
    from ansible_collections.zonestack.openstack.plugins.module_utils.host import (
        ownership,
    )  # compute() knows where it lies

    return Path(ownership.__file__).read_bytes() + b"\n", PROGRAM.read_bytes() + b"\n"


class Keeper:
    """keeper.py on one host, as the control machine sees it."""

    def __init__(self, name: str, host: Any, request: Mapping[str, Any], way: Way) -> None:
        self.name = name
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        texts = program()
        reads = "".join(f"exec(compile(r({len(text)}), 'keeper.py', 'exec'));" for text in texts)
        command = [PYTHON[host.backend], "-I", "-c", f"import sys; r = sys.stdin.buffer.read; {reads} main()"]
        start = START.format(python=command[0], program=shlex.join(command), no_python=NO_PYTHON, no_sudo=NO_SUDO)
        # A session of its own: Ctrl-C is for Ansible, which still ends its tasks in order while the lock is held.
        self.process = subprocess.Popen(
            way(host, start),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(b"".join(texts) + json.dumps({**request, "backend": host.backend}).encode() + b"\n")

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            with contextlib.suppress(ValueError):
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _send(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # it ended: that is seen by what it does not answer
            if self.process.stdin:
                self.process.stdin.write(text)
                self.process.stdin.flush()

    def answer(self, limit: float) -> dict[str, Any] | None:
        """What the host says next, None when it says nothing within ``limit`` seconds or has ended."""
        with contextlib.suppress(queue.Empty):
            return self._answers.get(timeout=limit)
        return None

    def ask(self, **word: object) -> bool:
        """Say something; whether the host has answered."""
        self._send(json.dumps(word).encode() + b"\n")
        return self.answer(ANSWER) is not None

    def end(self) -> None:
        """Let go of the lock."""
        with contextlib.suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()
        try:
            self.process.wait(ANSWER)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Hold:
    """The lock of a deployment on those of its hosts that answer."""

    deployment: str
    hosts: dict[str, Any]
    request: dict[str, Any]
    way: Way = way_to
    keepers: list[Keeper] = field(default_factory=list)
    owners: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """What each host says of whose the deployment is."""
    lost: str = ""
    """Who has the lock instead, when it went to somebody else."""
    _over: threading.Event = field(default_factory=threading.Event)
    _talk: threading.Lock = field(default_factory=threading.Lock)
    _beating: threading.Thread | None = None

    def take(self) -> None:
        """Take the lock, one host after another, so that two runs that begin together never wait for each other."""
        deadline = time.monotonic() + self.request["wait"]
        for name, host in self.hosts.items():
            self._take(name, host, deadline)
        if self.request["lock"]:
            self._beating = threading.Thread(target=self._beat, daemon=True)
            self._beating.start()

    def _take(self, name: str, host: Any, deadline: float) -> None:
        left = max(0.0, deadline - time.monotonic())
        one = Keeper(name, host, {**self.request, "wait": left}, self.way)
        limit = ANSWER
        while said := one.answer(limit):
            if said["state"] == "waiting":
                limit = left + ANSWER
                print(
                    f"Another run of deployment '{self.deployment}' is in progress, as host {name} reports: {said['holder']}. Waiting for it, "
                    f"for at most {left:.0f} s (--wait).",
                    file=sys.stderr,
                    flush=True,
                )
            elif said["state"] == "busy":
                one.end()
                raise DeploymentError(
                    f"another run of deployment '{self.deployment}' is in progress, as host {name} reports: {said['holder']}. Nothing was changed. "
                    "Wait for it, or stop its process there: that releases the lock"
                )
            else:
                self.owners[name] = said["owners"]
                if said["state"] == "held":
                    self.keepers.append(one)
                else:
                    one.end()
                return
        one.end()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with self._talk:
                for one in list(self.keepers):
                    if not self._over.is_set() and not one.ask(beat=True):
                        self._again(one)
            if self.lost:
                os.kill(os.getpid(), signal.SIGTERM)  # as if somebody had ended this run: Ansible ends its tasks first
                return

    def _again(self, dead: Keeper) -> None:
        """Take the lock of a host anew that does not answer any more: it was booted, or its network has changed."""
        dead.process.kill()
        dead.process.wait()
        new = Keeper(dead.name, self.hosts[dead.name], {**self.request, "wait": 0.0}, self.way)
        said = new.answer(ANSWER) or {}
        while said.get("state") == "waiting":
            said = new.answer(ANSWER) or {}
        if said.get("state") == "held":
            self.keepers[self.keepers.index(dead)] = new
            return
        new.end()
        if said.get("state") == "busy" and "process" in said["holder"] and said["holder"] != self.request["holder"]:
            self.lost = f"{said['holder']} (says {dead.name})"

    def note(self, told: dict[str, str] | None) -> None:
        """Have the hosts write down whose the deployment is; with None, that it is gone."""
        with self._talk:
            for one in self.keepers:
                one.ask(note=told)

    def release(self) -> None:
        """Let go of all locks."""
        self._over.set()
        if self._beating:
            self._beating.join()
        for one in self.keepers:
            one.end()
        self.keepers = []


def keepers_of(computed: Any) -> dict[str, Any]:
    """The hosts that keep the lock. One that is leaving keeps it as long as it has a low id, for those who do not know yet."""
    hosts = {**computed.topology.hosts, **{name: one[0] for name, one in computed.leaving.items()}}
    return dict(sorted(hosts.items(), key=lambda item: item[1].id)[:KEEPERS])


def fingerprint_here(deployment: Deployment, name: str) -> str:
    """The fingerprint of the secrets of this checkout, empty where there are none yet."""
    from ansible_collections.zonestack.openstack.plugins.module_utils.host.ownership import fingerprint
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.secrets import SecretsError, SecretsFile

    try:
        file = SecretsFile(deployment.secrets, os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE"))
        authority = file.read().secrets.get("pki") or {}
    except SecretsError as why:
        raise DeploymentError(str(why)) from None
    return fingerprint(name, str(authority.get("ca_certificate") or ""))


def foreign(owners: Mapping[str, Collection[Mapping[str, str]]], mine: str) -> list[str]:
    """Where a deployment was made with other secrets, a line for each finding. Pure.

    :param mine: the fingerprint of the secrets here; empty where there are none, so that whatever is found is another's.
    """
    return [
        f"{host}: {one['found']}, with secrets {one['secrets'][:12]}"
        for host, found in owners.items()
        for one in found
        if one["secrets"] != mine
    ]


def refuse_foreign(deployment: Deployment, name: str, found: list[str], mine: str) -> None:
    """Refuse to go on with other secrets than those that the zones were made with."""
    if not found:
        return
    path = deployment.secrets.relative_to(deployment.root)
    here = f"{path} of this checkout has other secrets ({mine[:12]})" if mine else f"this checkout has no {path}"
    lines = "\n".join(f"  {line}" for line in found)
    raise DeploymentError(
        f"deployment '{name}' exists already, and {here}. Nothing was changed. Found:\n{lines}\n"
        f"Copy {path} from the machine that has it (mode 0600), and replace the one here. Without it, the cloud's passwords, keys and\n"
        "certificates would all be replaced. If that is what you want, or to destroy a cloud whose secrets are lost: use --take-over"
    )


@contextlib.contextmanager
def held(
    deployment: Deployment, *, lock: bool = True, wait: float = WAIT, take_over: bool = False, way: Way = way_to
) -> Iterator[Hold]:
    """Be the only run of a deployment whose zones were made with the secrets here, or say why not.

    :param lock: false for what changes nothing: it asks whose the zones are, and waits for nobody.
    :param wait: seconds to wait for another run.
    :param take_over: go on with other secrets than those that the zones were made with.
    """
    computed = compute(deployment.topology)
    name = computed.stack["deployment"]
    request = {"deployment": name, "lock": lock, "wait": float(wait), "holder": holder()}
    hold = Hold(name, keepers_of(computed), request, way)
    try:
        hold.take()
        mine = fingerprint_here(deployment, name)
        if not take_over:
            refuse_foreign(deployment, name, foreign(hold.owners, mine), mine)
        yield hold
    finally:
        hold.release()
    if hold.lost:
        raise DeploymentError(
            f"this run was stopped: while this machine did not reach the host, another run took the lock: {hold.lost}"
        )


def claim(hold: Hold, deployment: Deployment) -> None:
    """Have the hosts note that the deployment is of the secrets here, before the run changes anything."""
    if mine := fingerprint_here(deployment, hold.deployment):
        hold.note(
            {
                "secrets": mine,
                "by": f"{getpass.getuser()} on {socket.gethostname()}, {ROOT}",
                "since": time.strftime("%F"),
            }
        )
