# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-playbook through ansible-runner: events in, exit code out, nothing left behind.

One process runs all playbooks of a run, so that Ansible's start and the inventory are paid once. ansible-runner hands its
events over in files; they lie in memory (/dev/shm), in a folder that only root can enter and that goes with the run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import tempfile
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ansible_runner import Runner, RunnerConfig

from deployment import ROOT, Deployment, DeploymentError

GRACE = 10.0
"""Seconds that Ansible has to end its tasks after an interrupt, before everything below it is killed."""
POLL = 0.2
"""Seconds after which an interrupt is seen at the latest."""

Event = dict[str, object]


class Mask:
    """Replaces secrets in text. Also in the forms in which they show up in JSON and in URLs, and line by line."""

    SHORTEST = 8
    """Shorter values are no generated secrets; masking them would hide ordinary words."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            for part in {secret, *secret.splitlines()}:
                part = part.strip()
                forms |= {part, json.dumps(part)[1:-1], repr(part)[1:-1], urllib.parse.quote(part, safe="")}
        forms = {form for form in forms if len(form) >= self.SHORTEST and not form.startswith("-----")}
        # The longest first, or a secret that begins another would leave the other's tail to be read.
        self._pattern = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
        self._empty = not forms

    def __call__(self, text: str) -> str:
        return text if self._empty else self._pattern.sub("********", text)


@contextlib.contextmanager
def locked(deployment: Deployment, purpose: str = "run") -> Iterator[None]:
    """Hold the deployment's lock. The kernel lets go of it when the process ends, however it ends.

    :param purpose: who only looks has a lock of its own, and need not wait for who changes.
    """
    deployment.logs.mkdir(parents=True, exist_ok=True)
    deployment.logs.chmod(0o700)
    with open(deployment.logs / ("lock" if purpose == "run" else f"lock-{purpose}"), "a+") as file:  # noqa: SIM117
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DeploymentError(
                f"another run of deployment '{deployment.name}' is running ({file.read().strip() or 'just started'}): wait until it ends"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} since {time.strftime('%H:%M:%S')}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def processes_below(parent: int) -> list[int]:
    """Process ids of all that descend from ``parent``, children before grandchildren.

    Ansible's workers lead sessions of their own, so that a signal to its process group does not reach them.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (comm) state ppid ...; comm may hold spaces and brackets (proc(5))
            fields = entry.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = list(children.get(parent, []))
    for pid in found:
        found += children.get(pid, [])
    return found


class Interrupt:
    """Turns SIGINT, SIGTERM and SIGHUP into an orderly end of Ansible, and a second one into a quick end."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._asked = 0.0
        self._count = 0

    def __enter__(self) -> Interrupt:
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.signal = self.signal or number
        self._count += 1

    @property
    def exit_code(self) -> int | None:
        """128 + the signal's number, as shells have it: 130 after Ctrl-C."""
        return None if self.signal is None else 128 + self.signal

    def __call__(self) -> bool:
        """ansible-runner's cancel callback: True makes it kill ansible-playbook itself."""
        if self.signal is None:
            return False
        if not self._asked:
            self._asked = time.monotonic()
            # Ansible passes SIGTERM on to its workers and what they started, and takes the zones' sessions down.
            self._send(signal.SIGTERM, processes_below(os.getpid())[:1])
        if self._count < 2 and time.monotonic() - self._asked < GRACE:
            return False
        self._send(signal.SIGKILL, processes_below(os.getpid()))
        return True

    @staticmethod
    def _send(number: int, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def private_prefix(deployment: Deployment, purpose: str = "run") -> str:
    """What the names of a deployment's folders in memory begin with, for those who hold the same lock.

    The lock is one checkout's, and another checkout may have a deployment of the same name.
    """
    checkout = zlib.crc32(bytes(deployment.root.resolve()))
    return f"zonestack-{deployment.name.replace('/', '.')}-{checkout:08x}-{purpose}-"


@contextlib.contextmanager
def private_folder(deployment: Deployment, purpose: str) -> Iterator[Path]:
    """A folder in memory for ansible-runner, mode 0700, gone at the end; also those that killed runs left."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    prefix = private_prefix(deployment, purpose)
    for stale in parent.glob(f"{prefix}*"):  # the lock is ours, so none of these is in use
        if stale.stat().st_uid == os.getuid():
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_playbooks(
    deployment: Deployment,
    arguments: list[str],
    playbooks: list[Path],
    on_event: Callable[[Event], None],
    mask: Mask,
    purpose: str = "run",
) -> int:
    """Run the playbooks one after another in one ansible-playbook; the exit code is Ansible's, or 128 + a signal.

    :param arguments: options for ansible-playbook, without secrets.
    :param on_event: called with each event, its ``stdout`` masked.
    :param purpose: that of the lock which is held.
    """

    def handle(event: Event) -> bool:
        event["stdout"] = mask(str(event.get("stdout") or ""))
        event.setdefault(
            "event", "verbose"
        )  # ansible-runner could not read what else belongs to these lines; they are shown as such
        on_event(event)
        return False  # do not write the event to a file

    with private_folder(deployment, purpose) as folder, Interrupt() as interrupt:
        settings = folder / "env/settings"
        settings.parent.mkdir()
        settings.write_text(json.dumps({"suppress_output_file": True, "pexpect_timeout": POLL, "idle_timeout": None}))
        config = RunnerConfig(
            private_data_dir=str(folder),
            project_dir=str(ROOT),
            playbook=str(playbooks[0]),
            ident="run",
            quiet=True,
            envvars={"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )
        config.prepare()
        # ansible-runner knows one playbook only; the command is ours to complete.
        inventory = ["--inventory", str(deployment.topology)]
        config.command = ["ansible-playbook", *inventory, *arguments, *map(str, playbooks)]
        _status, rc = Runner(config, event_handler=handle, cancel_callback=interrupt).run()
        return interrupt.exit_code or rc
