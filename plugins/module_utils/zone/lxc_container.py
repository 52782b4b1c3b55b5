# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A zone as a running LXC container: its processes, its limits in the kernel, how it starts and how it ends."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import subprocess
import time
import typing as t
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run
from ansible_collections.zonestack.openstack.plugins.module_utils.files import read_text
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError, ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.files import HELD
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc_config import CPU_PERIOD, MIB, veth_name

CGROUP = Path("/sys/fs/cgroup")
PAGE = os.sysconf("SC_PAGE_SIZE")
POLL = 0.02  # seconds between two looks at a file that announces readiness

LIMIT_FILES = {"memory": ("memory.limit_in_bytes", "memory.max"), "cpu": ("cpu.cfs_quota_us", "cpu.max")}
"""The files of a limit: cgroup version 1, version 2."""

PF_EXITING = 0x4
"""linux/sched.h: the process is on its way out, which for a zone's init takes until its last child is gone."""


class Container:
    """One zone of this machine, whether it runs or not."""

    def __init__(self, lxc_path: Path, zone: ZoneSpec, *, start_timeout: float, stop_timeout: float) -> None:
        """Limits in seconds, as :class:`~.lxc.LxcBackend` has them."""
        self.lxc_path = lxc_path
        self.zone = zone
        self.start_timeout = start_timeout
        self.stop_timeout = stop_timeout
        self.log = lxc_path / zone.name / "start.log"

    def _monitored(self) -> bool:
        """Whether LXC's monitor of the zone lives: it listens on a socket. Saves a process for a stopped zone."""
        return f"@{self.lxc_path}/{self.zone.name}/command" in read_text(Path("/proc/net/unix"))

    def pid(self) -> int | None:
        """The zone's init as a process of this machine, or None when it does not run.

        A zone on its way up or down (a host that boots, an init that was killed this moment) is waited for.
        """
        deadline = time.monotonic() + self.start_timeout
        while self._monitored():
            done = run(
                ["lxc-info", "-P", str(self.lxc_path), "-n", self.zone.name, "-s", "-p", "-H"], check=False, timeout=20
            )
            found = dict(line.split(":", 1) for line in done.out.splitlines() if ":" in line)
            state, pid = found.get("State", "").strip(), found.get("PID", "").strip()
            if state in ("RUNNING", "FROZEN") and pid.isdigit() and _alive(int(pid)):
                return int(pid)
            if time.monotonic() > deadline:
                raise ZoneError(
                    f"zone {self.zone.name!r} is {state or 'in no state'} for more than {self.start_timeout:g} s: lxc-info -n {self.zone.name}"
                )
            time.sleep(POLL)
        return None

    def _cgroup_dir(self, pid: int, controller: str) -> Path | None:
        """Where the kernel accounts the zone for ``controller``: above what the zone's own init made below it."""
        for line in read_text(Path(f"/proc/{pid}/cgroup")).splitlines():
            _number, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            parts = path.split("/")
            payload = [index for index, part in enumerate(parts) if part.startswith(f"lxc.payload.{self.zone.name}")]
            if not payload:
                continue
            mount = CGROUP / controller if controllers else CGROUP
            found = mount / "/".join(parts[1 : payload[0] + 1])
            if controllers or (found / LIMIT_FILES[controller][1]).exists():
                return found
        return None

    def limits(self, pid: int) -> dict[str, int | None]:
        """Memory (MiB) and CPU cap (per cent of a core) as the kernel enforces them now."""
        found: dict[str, int | None] = {}
        memory = self._cgroup_dir(pid, "memory")
        if memory is not None:
            text = read_text(memory / "memory.max") or read_text(memory / "memory.limit_in_bytes")
            limit = text.strip()
            # Version 1 has no word for "no limit": it shows the largest multiple of a page.
            unlimited = limit in ("", "max") or int(limit) >= 2**63 - PAGE
            found["memory"] = None if unlimited else int(limit) // MIB
        cpu = self._cgroup_dir(pid, "cpu")
        if cpu is not None:
            text = (
                read_text(cpu / "cpu.max")
                or f"{read_text(cpu / 'cpu.cfs_quota_us')} {read_text(cpu / 'cpu.cfs_period_us')}"
            )
            quota, period = (*text.split(), "", "")[:2]
            found["cpu_cap"] = None if quota in ("", "max", "-1") else int(quota) * 100 // int(period)
        return found

    def set_limits(self, changed: t.Collection[str]) -> None:
        """Write the limits of a running zone into its cgroup (no value: no limit)."""
        want, pid = self.zone, self.pid()
        if pid is None:
            raise ZoneError(f"zone {want.name!r}: it stopped while it was being changed: run again")
        quota = None if want.cpu_cap is None else want.cpu_cap * CPU_PERIOD // 100
        values = {
            "memory": ("-1" if want.memory is None else str(want.memory * MIB), "max"),
            "cpu": ("-1" if quota is None else str(quota), f"max {CPU_PERIOD}"),
        }
        for field_name, controller in (("memory", "memory"), ("cpu_cap", "cpu")):
            folder = self._cgroup_dir(pid, controller) if field_name in changed else None
            if folder is None:
                continue
            value, none = values[controller]
            first, second = (folder / one for one in LIMIT_FILES[controller])
            try:
                if first.exists():
                    if controller == "cpu" and value != "-1":
                        (folder / "cpu.cfs_period_us").write_text(str(CPU_PERIOD))
                    first.write_text(value)
                else:
                    second.write_text(
                        none if value == "-1" else f"{value} {CPU_PERIOD}" if controller == "cpu" else value
                    )
            except OSError as bad:
                raise ZoneError(
                    f"zone {want.name!r}: {field_name}: the kernel refuses {getattr(want, field_name)} in {folder} ({bad.strerror}); "
                    f"the zone may use more than that now: restart it, or set a higher limit"
                ) from None

    def detached(self) -> list[str]:
        """``ports`` when an interface of the running zone lost its bridge, ``networks`` when it is gone altogether."""
        drift = []
        for index, network in enumerate(self.zone.networks):
            device = Path("/sys/class/net") / veth_name(self.zone.uuid, index)
            if not device.exists():
                drift.append("networks")
            elif not (device / "master").exists() or (device / "master").resolve().name != network.bridge:
                drift.append("ports")
        return list(dict.fromkeys(drift))

    def start(self) -> None:
        """Start it; the limit counts until LXC says that its first process runs."""
        log = self.log
        self._clear_remains()
        log.unlink(missing_ok=True)
        argv = ["lxc-start", "-P", str(self.lxc_path), "-n", self.zone.name, "-d", "-l", "ERROR", "-o", str(log)]
        # lxc-start inherits the lock: should this process be killed, the next call waits until the zone has a monitor, and
        # does not take a zone that is just coming up for one that is down. The monitor itself closes what it inherits.
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self.start_timeout,
                check=False,
                pass_fds=tuple(HELD.locks),
            )
        except subprocess.TimeoutExpired:
            raise ZoneError(
                f"zone {self.zone.name!r} does not start within {self.start_timeout:g} s{_errors(log)}"
            ) from None
        if done.returncode != 0:
            raise ZoneError(
                f"zone {self.zone.name!r} does not start: {CommandError(argv, done.returncode, done.stderr)}{_errors(log)}"
            )

    def ready(self) -> int:
        """Wait until init takes requests; the limit counts from here."""
        deadline = time.monotonic() + self.start_timeout
        log = self.log
        while True:
            pid = self.pid()
            if pid is None:
                raise ZoneError(f"zone {self.zone.name!r} stopped before it accepted requests{_errors(log)}")
            while _alive(pid):
                if _answers(pid):
                    return pid
                if time.monotonic() > deadline:
                    raise ZoneError(
                        f"zone {self.zone.name!r} runs for {self.start_timeout:g} s and more, but its init ({_exe(pid)}, process {pid}) does "
                        f"not answer; see its console: lxc-start -F -n {self.zone.name}{_errors(log)}"
                    )
                time.sleep(POLL)

    def _clear_remains(self) -> None:
        """End what a killed monitor left: processes of the zone that nobody watches, and its network interfaces.

        Two inits on one root would destroy it, so this waits until the last of them is gone.
        """
        deadline = time.monotonic() + self.stop_timeout
        while left := self._processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise ZoneError(
                    f"zone {self.zone.name!r}: processes of its last run cannot be killed: {left}; ps(1) shows them in state D"
                )
            time.sleep(POLL)
        for index in range(len(self.zone.networks)):
            device = veth_name(self.zone.uuid, index)
            if Path(f"/sys/class/net/{device}").exists():
                run(["ip", "link", "delete", device], check=False)

    def _processes(self) -> list[int]:
        """The processes of a zone, found by its cgroups and proven by the root that they see.

        LXC adds a number to a cgroup's name when the name is taken, so the name alone may mean another zone.
        """
        inside = f"lxc.payload.{self.zone.name}*/**/cgroup.procs"
        found = glob.glob(f"{CGROUP}/{inside}", recursive=True) + glob.glob(f"{CGROUP}/*/{inside}", recursive=True)
        pids = {int(pid) for procs in found for pid in read_text(Path(procs)).split()}
        # upper directory <zone>/upper, directory <zone>/rootfs, or dataset root.<zone>
        root = re.compile(rf"[/.]{re.escape(self.zone.name)}[/ ,]")
        return sorted(pid for pid in pids if root.search(read_text(Path(f"/proc/{pid}/mountinfo")).partition("\n")[0]))

    def stop(self) -> None:
        """Ask init to halt (the signal that its kind expects), and kill what is left at the limit; without a limit, at once."""
        how = ["-t", str(int(self.stop_timeout))] if self.stop_timeout else ["-k"]
        run(
            ["lxc-stop", "-P", str(self.lxc_path), "-n", self.zone.name, *how],
            timeout=self.stop_timeout + 30,
            check=False,  # it also fails when the zone ended by itself meanwhile; what counts is looked at next
        )
        deadline = time.monotonic() + 10
        while self._monitored():
            if time.monotonic() > deadline:
                raise ZoneError(
                    f"zone {self.zone.name!r} does not stop, even after SIGKILL; look for a process in state D: lxc-info -n {self.zone.name}"
                )
            time.sleep(POLL)


def _answers(pid: int) -> bool:
    """Whether the zone's init takes requests: systemd has its socket; any other init has replaced LXC's process."""
    exe = _exe(pid)
    if os.path.basename(exe) == "systemd":
        return any(
            Path(f"/proc/{pid}/root/run/{one}").exists() for one in ("systemd/private", "dbus/system_bus_socket")
        )
    return bool(exe) and not os.path.basename(exe).startswith("lxc")


def _alive(pid: int) -> bool:
    """Whether the process exists and is neither a zombie nor exiting (proc_pid_stat(5): state and flags)."""
    values = read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(values) and values[0] not in ("Z", "X") and not int(values[6]) & PF_EXITING


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _errors(log: Path) -> str:
    """The ERROR lines of LXC's log, for a message that carries the cause."""
    lines = [line.split(" ERROR ", 1)[1].strip() for line in read_text(log).splitlines() if " ERROR " in line]
    return "".join(f"\n  {line}" for line in lines[:12])
