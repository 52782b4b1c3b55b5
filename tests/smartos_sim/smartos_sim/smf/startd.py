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
import os
import signal
import time
from collections.abc import Callable

from . import graph, method
from .contract import Contract, become_subreaper
from .fmri import Fmri
from .instance import Instance, read_configuration, take_actions, write_state
from .loop import Loop
from .place import Place
from .repository import Groups, Repository

#: So many failures of a start or stop method in a row, and the instance goes into maintenance.
FAULT_THRESHOLD = 3
#: Starts that are looked at, and the average seconds between them below which a service restarts too quickly.
CRITICAL_COUNT, CRITICAL_PERIOD = 10, 600
#: A child service that has failed so often within a second starts again only after another second.
CHILD_FAILURES = 5


class Startd:
    """The master restarter of one zone."""

    def __init__(self, place: Place, zonename: str) -> None:
        self.place = place
        self.zonename = zonename
        self.instances: dict[Fmri, Instance] = {}
        self.stopping = False
        self.loop = Loop()
        self._abandoned: list[Contract] = []
        self._moved = False

    # Its life

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
            self.loop.watch(pipe, self.sync)
            self.loop.catch(self._stop, self._reap)
            self.say("started")
            self.sync()
            while not (self.stopping and self._quiet()):
                self.loop.turn()
                self.settle()
            self.place.pipe.unlink()
            os.close(pipe)
            self.say("stopped")

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
                    read_configuration(repository, one)
                    write_state(repository, one)
                self._read_enabled(repository, one)
                one.events += [functools.partial(self._asked, one, name) for name in take_actions(repository, fmri)]
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
            write_state(repository, one, keep_time=same)
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
            read_configuration(repository, one)
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
            if self._succeeds(one, found, status):
                if primary and os.WEXITSTATUS(status) == method.NODAEMON:
                    self._abandon(one)
                if found.name == "stop" and one.style != "transient":
                    left = None if found.timeout is None else max(0.0, found.timeout - (time.monotonic() - begun))
                    self._until_empty(one, left, succeeded)
                else:
                    succeeded()
                return
            if primary:
                self._abandon(one)
            self._after_failure(one, found.name, status, succeeded)

        if primary and one.style == "child":
            self._watch(
                one, contract, lambda status: one.events.append(lambda: self._child_ended(one, contract, status))
            )
            succeeded()
            return
        if found.name == "start":
            one.starting = contract
        call_off = self.loop.after(found.timeout, expired) if found.timeout is not None else lambda: None
        self._watch(one, contract, ended)
        if not primary:
            self._abandoned.append(contract)

    def _succeeds(self, one: Instance, found: method.Method, status: int) -> bool:
        """Log how a method ended; whether that is a success."""
        if not os.WIFEXITED(status):
            name = signal.Signals(os.WTERMSIG(status)).name[3:]
            self.log(one, f'Method "{found.name}" failed due to signal {name}.')
            return False
        self.log(one, f'Method "{found.name}" exited with status {os.WEXITSTATUS(status)}.')
        if os.WEXITSTATUS(status) not in (method.OK, method.NODAEMON):
            return False
        one.faults = 0
        return True

    def _after_failure(self, one: Instance, name: str, status: int, succeeded: Callable[[], None]) -> None:
        """Try a method again that has failed, or put the instance into maintenance."""
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        one.faults += 1
        if self.stopping and name == "start":
            self.become(one, "offline")
        elif code in method.HOPELESS:
            self._fail(one, "method_failed")
        elif one.faults >= FAULT_THRESHOLD:
            self._fail(one, "fault_threshold_reached")
        else:
            self._try(one, name, succeeded)

    def _watch(self, one: Instance, contract: Contract, ended: Callable[[int], None]) -> None:
        """Hear of a contract's events."""

        def heard() -> None:
            for event in contract.events():
                if "method" in event:
                    ended(event["method"])
                elif "fault" in event and contract is one.contract and one.style == "contract":
                    one.events.append(functools.partial(self._contract_failed, one, contract, event["fault"]))
            if contract.empty:
                self.loop.forget(contract.socket)
                contract.socket.close()
                if contract in self._abandoned:
                    self._abandoned.remove(contract)
                if contract is one.contract:
                    if one.on_empty:
                        one.on_empty()
                    elif one.style == "contract":
                        one.events.append(lambda: self._contract_failed(one, contract, "exit"))

        self.loop.watch(contract.socket, heard)

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
        call_off = self.loop.after(seconds, expired) if seconds is not None else lambda: None

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
                self.loop.after(1, lambda: None)
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
