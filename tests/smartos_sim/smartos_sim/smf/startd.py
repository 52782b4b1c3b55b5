# SPDX-License-Identifier: GPL-3.0-or-later
"""svc.startd, the master restarter (svc.startd(8)): one process, one event loop, no threads.

What is wished stands in the repository (``general/enabled``, ``general_ovr/enabled``, ``restarter_actions``), and what is so
too (``restarter``). A tool that has changed a wish pokes a pipe; svc.startd then reads all wishes and acts on each instance
that is not just running a method.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import graph, method
from .contract import Contract, become_subreaper
from .fmri import Fmri
from .place import Place
from .repository import Groups, Repository

#: So many failures of a start or stop method in a row, and the instance goes into maintenance.
FAULT_THRESHOLD = 3
#: Starts that are looked at, and the average seconds between them below which a service restarts too quickly.
CRITICAL_COUNT, CRITICAL_PERIOD = 10, 600
#: A child service that has failed so often within a second starts again only after another second.
CHILD_FAILURES = 5


@dataclass
class Instance:
    """What svc.startd knows of one instance."""

    fmri: Fmri
    state: str = "uninitialized"
    next_state: str = "none"
    auxiliary: str = "none"
    enabled: bool = False
    style: str = "contract"
    dependencies: tuple[graph.Dependency, ...] = ()
    contract: Contract | None = None  # of a service that runs
    starting: Contract | None = None  # of a start method that runs
    events: list[Callable[[], None]] = field(default_factory=list)
    on_empty: Callable[[], None] | None = None
    starts: list[float] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    faults: int = 0
    not_before: float = 0.0

    @property
    def started(self) -> bool:
        return self.state in graph.STARTED

    @property
    def in_transition(self) -> bool:
        return self.next_state != "none"


class Startd:
    """The master restarter of one zone."""

    def __init__(self, place: Place, zonename: str) -> None:
        self.place = place
        self.zonename = zonename
        self.instances: dict[Fmri, Instance] = {}
        self.stopping = False
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count(1)
        self._abandoned: list[Contract] = []
        self._moved = False

    # The loop

    def run(self) -> None:
        """Boot, serve until a signal asks to stop, and stop all services in order."""
        self.place.volatile.mkdir(parents=True, exist_ok=True)
        with open(self.place.volatile / "startd.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SystemExit(f"svc.startd: another one serves {self.place.root} already") from None
            os.set_inheritable(lock.fileno(), False)
            become_subreaper()
            with self.repository() as repository:
                repository.forget_transient()
            (self.place.volatile / "zonename").write_text(f"{self.zonename}\n")
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self.place.pipe, 0o600)
            pipe = os.open(self.place.pipe, os.O_RDWR | os.O_NONBLOCK)
            wake, woken = os.pipe()
            for fd in (wake, woken):
                os.set_blocking(fd, False)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPWR, signal.SIGRTMIN + 3):
                signal.signal(number, lambda *_event: self._stop())
            signal.signal(signal.SIGCHLD, lambda *_event: None)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
            self._selector.register(pipe, selectors.EVENT_READ, self.sync)
            self._selector.register(wake, selectors.EVENT_READ, self._reap)
            self.say("started")
            self.sync()
            while not (self.stopping and self._quiet()):
                self._turn()
            self.place.pipe.unlink()
            os.close(pipe)
            self.say("stopped")

    def _turn(self) -> None:
        """Wait for one thing to happen, and act."""
        limit = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, _mask in self._selector.select(limit):
            if isinstance(key.fileobj, int):
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fileobj, 65536)
            key.data()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        self.settle()

    def after(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        """Call ``action`` in so many seconds; returns what calls that off."""
        entry = (time.monotonic() + seconds, next(self._count), action)
        heapq.heappush(self._timers, entry)

        def call_off() -> None:
            if entry in self._timers:
                self._timers.remove(entry)
                heapq.heapify(self._timers)

        return call_off

    def _reap(self) -> None:
        """Reap keepers, and as init of a zone the orphans of others."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _stop(self) -> None:
        self.stopping = True
        for one in self.instances.values():
            if one.starting:
                one.starting.kill(signal.SIGKILL)

    def _quiet(self) -> bool:
        return not any(one.started or one.in_transition for one in self.instances.values())

    def repository(self) -> Repository:
        """Opened for each use, so that no keeper inherits an open one."""
        return self.place.repository()

    def say(self, text: str) -> None:
        """One line in svc.startd's own log."""
        path = self.place.path("/var/svc/log/svc.startd.log")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"{time.strftime('%b %e %H:%M:%S')}/{os.getpid()}: {text}\n")

    def log(self, one: Instance, text: str) -> None:
        method.log(self.place, one.fmri, text)

    # Wishes

    def sync(self) -> None:
        """Read what is wished of every instance."""
        with self.repository() as repository, repository.change():
            present = repository.instances()
            for fmri in present:
                new = fmri not in self.instances
                one = self.instances.setdefault(fmri, Instance(fmri))
                if not repository.has_snapshot(fmri, "running"):
                    repository.take_snapshot(fmri, "running")
                if new:
                    self._read_configuration(repository, one)
                    self._write(repository, one)
                self._read_enabled(repository, one)
                one.events += [functools.partial(self._asked, one, name) for name in _take_actions(repository, fmri)]
        for fmri in set(self.instances) - set(present):
            gone = self.instances.pop(fmri)
            if gone.contract:  # its processes are nobody's from now on, as on illumos
                self._abandoned.append(gone.contract)
        self.settle()

    def _read_enabled(self, repository: Repository, one: Instance) -> None:
        now = repository.composed(one.fmri)
        values = [now[name].first("enabled") for name in ("general_ovr", "general") if name in now]
        wanted = next((value for value in values if value is not None), "false") in ("true", "1")
        if one.enabled and not wanted:
            one.events.append(functools.partial(self._disabled, one))
        one.enabled = wanted

    def _read_configuration(self, repository: Repository, one: Instance) -> None:
        """What takes effect at a refresh: dependencies and style."""
        groups = repository.composed(one.fmri, "running")
        one.dependencies = graph.dependencies(groups)
        style = (groups["startd"].first("duration") if "startd" in groups else None) or "contract"
        one.style = "child" if style == "wait" else style

    # States

    def nodes(self) -> dict[Fmri, graph.Node]:
        return {fmri: graph.Node(one.state, one.enabled, one.dependencies) for fmri, one in self.instances.items()}

    def settle(self) -> None:
        """Act on every instance until nothing moves any more without an event from outside."""
        self._moved = True
        while self._moved:
            self._moved = False
            for one in list(self.instances.values()):
                if not one.in_transition and one.fmri in self.instances:
                    self._act(one)

    def _act(self, one: Instance) -> None:
        """The next step of an instance that is not in transition."""
        if self.stopping:
            nodes = self.nodes()
            if one.started and not any(
                other.started and graph.depends_on(other.fmri, one.fmri, nodes, ("exclude_all",))
                for other in self.instances.values()
                if other is not one
            ):
                self.stop(one, "system is going down", "offline")
            return
        if one.events:
            self._moved = True
            one.events.pop(0)()
        elif not one.enabled:
            if one.started:
                self.stop(one, "service disabled", "disabled")
            elif one.state in ("offline", "uninitialized"):
                self.log(one, "Disabled.")
                self.become(one, "disabled")
        elif one.state in ("uninitialized", "disabled"):
            self.log(one, "Enabled.")
            self.become(one, "offline")
        elif one.state == "offline" and time.monotonic() >= one.not_before:
            nodes = self.nodes()
            if graph.in_cycle(one.fmri, nodes):
                self.become(one, "maintenance", auxiliary="dependency_cycle")
            elif not graph.unsatisfied(one.fmri, nodes, self.place.root):
                self.start(one)

    def _disabled(self, one: Instance) -> None:
        """An administrator's disable also takes an instance out of maintenance."""
        one.starts.clear()
        if one.state == "maintenance":
            self._leave_maintenance(one, "disable requested")

    def _asked(self, one: Instance, name: str) -> None:
        """What svcadm has asked for, by the name of the property of restarter_actions."""
        if name == "maint_off" and one.state == "maintenance":
            self._leave_maintenance(one, "clear requested")
        elif name == "restore" and one.state == "degraded":
            self.become(one, "online")
        elif name == "degraded" and one.state == "online":
            self.become(one, "degraded")
        elif name == "restart" and one.started:
            one.starts.clear()
            self.stop(one, "service restarting", "offline")
        elif name == "refresh":
            self.refresh(one)
        elif name.startswith("maint_on") and one.state != "maintenance":
            self.log(one, "Stopping for maintenance due to administrative_request.")
            if one.started and "imm" not in name:
                self._stop_method(one, "maintenance", "restart", "administrative_request")
            else:
                self._abandon(one)
                self.become(one, "maintenance", auxiliary="administrative_request")

    def _leave_maintenance(self, one: Instance, why: str) -> None:
        self.log(one, f"Leaving maintenance because {why}.")
        one.starts.clear()
        one.faults = 0
        self._abandon(one)
        self.become(one, "uninitialized")

    def become(
        self, one: Instance, state: str, next_state: str = "none", auxiliary: str = "none", error: str = "restart"
    ) -> None:
        """Commit a state, and tell those that depend on the instance when it has stopped or started."""
        was_started = one.started
        same = one.state == state
        one.state, one.next_state, one.auxiliary = state, next_state, auxiliary
        self._moved = True
        with self.repository() as repository, repository.change():
            self._write(repository, one, keep_time=same)
        if was_started and not one.started:
            self._propagate(one, error, ("exclude_all",))
        elif one.started and not was_started:
            self._propagate(one, "restart", ("require_all", "require_any", "optional_all"))

    def _propagate(self, one: Instance, error: str, but: tuple[str, ...]) -> None:
        nodes = self.nodes()
        for other in self.instances.values():
            if other is one or not other.started:
                continue
            for dependency in graph.depends_on(other.fmri, one.fmri, nodes, but):
                if error in graph.STOPPED_BY[dependency.restart_on]:
                    other.events.append(functools.partial(self._dependency_moved, other))
                    break

    def _write(self, repository: Repository, one: Instance, keep_time: bool = False) -> None:
        def put(name: str, kind: str, *values: str) -> None:
            repository.set(one.fmri, f"restarter/{name}", kind, *values, persistent=False)

        put("state", "astring", one.state)
        put("next_state", "astring", one.next_state)
        put("auxiliary_state", "astring", one.auxiliary)
        put("logfile", "astring", f"/var/svc/log/{one.fmri.log_name}")
        if not keep_time or one.next_state == "none":
            put("state_timestamp", "time", f"{time.time():.9f}")
        put("contract", "count", *([str(one.contract.id)] if one.contract and not one.contract.empty else []))

    # Methods

    def start(self, one: Instance) -> None:
        self.become(one, "offline", "online")

        def done() -> None:
            with self.repository() as repository, repository.change():
                repository.take_snapshot(one.fmri, "start", of="running")
            self.become(one, "online")

        self._try(one, "start", done)

    def stop(self, one: Instance, why: str, state: str, error: str = "restart") -> None:
        self.log(one, f"Stopping because {why}.")
        self._stop_method(one, state, error)

    def _stop_method(self, one: Instance, state: str, error: str, auxiliary: str = "none") -> None:
        self.become(one, one.state, state)

        def done() -> None:
            self._abandon(one)
            self.become(one, state, auxiliary=auxiliary, error=error)

        self._try(one, "stop", done)

    def refresh(self, one: Instance) -> None:
        """Take the current configuration for the running one; run the method of an instance that has one."""
        self.log(one, "Rereading configuration.")
        with self.repository() as repository, repository.change():
            repository.take_snapshot(one.fmri, "running")
            self._read_configuration(repository, one)
        if one.started:
            self._propagate(one, "refresh", ("exclude_all",))
            state = one.state
            self.become(one, state, state)
            self._try(one, "refresh", lambda: self.become(one, state))

    def _try(self, one: Instance, name: str, succeeded: Callable[[], None]) -> None:
        """Run a method and call ``succeeded``; otherwise try again, or put the instance into maintenance."""
        with self.repository() as repository:
            groups = repository.composed(one.fmri, "running")
        found = method.find(groups, name)
        if name == "stop" and one.style != "transient" and one.contract is None:
            succeeded()
        elif found is None or found.is_true:
            self.log(
                one, f"Executing {name} method (null)." if found else f"No '{name}' method defined.  Treating as :true."
            )
            succeeded()
        elif found.kill_signal is not None:
            if one.contract is None:
                self.log(one, 'Invalid use of ":kill" as stop method for transient service.')
                self._fail(one, "method_failed")
                return
            self.log(one, f"Executing {name} method (:kill).")
            one.contract.kill(found.kill_signal)
            if name == "stop":
                self._until_empty(one, found.timeout, succeeded)
            else:
                succeeded()
        elif name == "start" and one.style != "child" and self._too_quick(one):
            self.log(one, "Restarting too quickly, changing state to maintenance.")
            self._fail(one, "restarting_too_quickly")
        else:
            self._run(one, found, groups, succeeded)

    def _too_quick(self, one: Instance) -> bool:
        """Whether the last starts, this one included, followed each other too closely."""
        one.starts = [*one.starts, time.monotonic()][-CRITICAL_COUNT:]
        average = (one.starts[-1] - one.starts[0]) / (CRITICAL_COUNT - 1)
        return len(one.starts) == CRITICAL_COUNT and average < CRITICAL_PERIOD

    def _run(self, one: Instance, found: method.Method, groups: Groups, succeeded: Callable[[], None]) -> None:
        """Run a method that is a command."""
        begun = time.monotonic()
        try:
            contract = Contract.run(method.prepare(self.place, self.zonename, one.fmri, found, groups))
        except method.ContextError as bad:
            self.log(one, f"svc.startd {bad}")
            self._fail(one, "method_failed")
            return
        primary = found.name == "start" and one.style != "transient"
        if primary:
            one.contract = contract

        def expired() -> None:
            self.log(one, f"Method or service exit timed out.  Killing contract {contract.id}.")
            contract.kill(signal.SIGKILL)

        def ended(status: int) -> None:
            call_off()
            one.starting = None
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            if code is None:
                self.log(
                    one, f'Method "{found.name}" failed due to signal {signal.Signals(os.WTERMSIG(status)).name[3:]}.'
                )
            else:
                self.log(one, f'Method "{found.name}" exited with status {code}.')
            if code in (method.OK, method.NODAEMON):
                one.faults = 0
                if code == method.NODAEMON and primary:
                    self._abandon(one)
                if found.name == "stop" and one.style != "transient":
                    left = None if found.timeout is None else max(0.0, found.timeout - (time.monotonic() - begun))
                    self._until_empty(one, left, succeeded)
                else:
                    succeeded()
                return
            if primary:
                self._abandon(one)
            one.faults += 1
            if self.stopping and found.name == "start":
                self.become(one, "offline")
            elif code in method.HOPELESS:
                self._fail(one, "method_failed")
            elif one.faults >= FAULT_THRESHOLD:
                self._fail(one, "fault_threshold_reached")
            else:
                self._try(one, found.name, succeeded)

        if primary and one.style == "child":
            self._watch(
                one, contract, lambda status: one.events.append(lambda: self._child_ended(one, contract, status))
            )
            succeeded()
            return
        if found.name == "start":
            one.starting = contract
        call_off = self.after(found.timeout, expired) if found.timeout is not None else lambda: None
        self._watch(one, contract, ended)
        if not primary:
            self._abandoned.append(contract)

    def _watch(self, one: Instance, contract: Contract, ended: Callable[[int], None]) -> None:
        """Hear of a contract's events."""

        def heard() -> None:
            for event in contract.events():
                if "method" in event:
                    ended(event["method"])
                elif "fault" in event and contract is one.contract and one.style == "contract":
                    one.events.append(functools.partial(self._contract_failed, one, contract, event["fault"]))
            if contract.empty:
                self._selector.unregister(contract.socket)
                contract.socket.close()
                if contract in self._abandoned:
                    self._abandoned.remove(contract)
                if contract is one.contract:
                    if one.on_empty:
                        one.on_empty()
                    elif one.style == "contract":
                        one.events.append(lambda: self._contract_failed(one, contract, "exit"))

        self._selector.register(contract.socket, selectors.EVENT_READ, heard)

    def _until_empty(self, one: Instance, seconds: float | None, succeeded: Callable[[], None]) -> None:
        """Wait until the last process of a service has gone; what is left after its time is killed, and that is a failure."""
        contract = one.contract
        if contract is None or contract.empty:
            succeeded()
            return
        late = False

        def expired() -> None:
            nonlocal late
            late = True
            self.log(one, f"Method or service exit timed out.  Killing contract {contract.id}.")
            contract.kill(signal.SIGKILL)

        def emptied() -> None:
            call_off()
            one.on_empty = None
            if late:
                self._fail(one, "method_failed")
            else:
                succeeded()

        one.on_empty = emptied
        call_off = self.after(seconds, expired) if seconds is not None else lambda: None

    def _contract_failed(self, one: Instance, contract: Contract, kind: str) -> None:
        """Processes of a contract service have ended as they should not."""
        if not one.started or one.contract is not contract:
            return
        with self.repository() as repository:
            ignored = repository.value(one.fmri, "startd/ignore_error", "running") or ""
        if kind in ignored.split(","):
            return
        why = {"exit": "all processes in service exited", "core": "process dumped core"}
        text = why.get(kind, "process received fatal signal from outside the service")
        self.stop(one, text, "offline", "restart" if kind == "exit" else "error")

    def _child_ended(self, one: Instance, contract: Contract, status: int) -> None:
        """The process of a child service has ended: start it anew, whatever its exit status, but for CONFIG."""
        if not one.started or one.contract is not contract:
            return
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        self._abandon(one)
        if code == method.CONFIG:
            self.log(one, "Stopping because service exited with a configuration error.")
            self.become(one, "maintenance", auxiliary="method_failed", error="error")
            return
        self.log(
            one, f"Stopping because {'service exited with an error' if code else 'all processes in service exited'}."
        )
        if code:
            now = time.monotonic()
            one.failures = [*(when for when in one.failures if now - when < 1), now]
            if len(one.failures) >= CHILD_FAILURES:
                one.not_before = now + 1
                self.after(1, lambda: None)
        self.become(one, "offline")

    def _dependency_moved(self, one: Instance) -> None:
        if one.started:
            self.stop(one, "dependency activity requires stop", "offline")

    def _abandon(self, one: Instance) -> None:
        """Let a contract go; what may be left in it runs on, and nobody minds it."""
        if one.contract and not one.contract.empty:
            self._abandoned.append(one.contract)
        one.contract = None

    def _fail(self, one: Instance, reason: str) -> None:
        self.log(one, f"Transitioning to maintenance because {reason}.")
        one.faults = 0
        self._abandon(one)
        self.become(one, "maintenance", auxiliary=reason, error="error")


def _take_actions(repository: Repository, fmri: Fmri) -> list[str]:
    """What svcadm has asked for since the last look, in order."""
    group = repository.groups(fmri).get("restarter_actions")
    if group is None:
        return []
    repository.drop(fmri, "restarter_actions")
    return sorted(group.properties, key=lambda name: int(group.first(name) or 0))
