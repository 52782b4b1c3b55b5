# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scenario sees of a deployment: the operator's commands, and the facts that only an onlooker knows.

The onlooker sits on the machine that runs the tests, outside of the fresh host: it sees the host's and the zones' processes
in its own /proc and their files below the host's directory, so that nothing it looks with has to be installed there.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import secrets as random
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from debian_root import Done
from host import CHECKOUT, Host

TESTS = Path(__file__).resolve().parents[1]

RUN_LIMIT = 1800.0
"""Seconds after which a run of the playbooks counts as hung; a cold one takes some minutes on two idle cores, and three times as long on busy ones."""

_ASK = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); s.sendall(b'show stat\\n'); print(s.makefile().read())"
SERVERS = f'python3 -c "{_ASK}"'
"""Asks HAProxy in its zone for its servers, as CSV (https://docs.haproxy.org/3.0/management.html, "show stat")."""


def serves(servers: str, zone: str) -> bool:
    """Whether HAProxy sees the zone up behind each of its front ends."""
    states = [row["status"] for row in csv.DictReader(servers.lstrip("# ").splitlines()) if row["svname"] == zone]
    return bool(states) and all(state.startswith("UP") for state in states)


ZONES = frozenset({
    "aio1-galera-1", "aio1-galera-2", "aio1-galera-3",
    "aio1-rabbit-mq-1", "aio1-rabbit-mq-2", "aio1-rabbit-mq-3",
    "aio1-haproxy-1", "aio1-memcached-1", "aio1-log-1", "aio1-utility-1",
    "aio1-ovn-1", "aio1-ovn-2", "aio1-ovn-3", "aio1-horizon-1", "aio1-horizon-2",
    "aio1-keystone-1", "aio1-keystone-2", "aio1-glance-1", "aio1-placement-1", "aio1-placement-2",
    "aio1-nova-api-1", "aio1-nova-api-2", "aio1-nova-metadata-1", "aio1-nova-conductor-1", "aio1-nova-scheduler-1",
    "aio1-nova-novncproxy-1", "aio1-nova-compute-1",
    "aio1-neutron-api-1", "aio1-neutron-api-2", "aio1-neutron-workers-1",
})  # fmt: skip
"""The zones of the all-in-one, as its documentation promises them."""

COMPUTE = "aio1-nova-compute-1"
"""The zone in which instances run: the one whose rebuild stops them, and the only one that is privileged."""

IDLERS = {"systemd-hostnamed.service", "systemd-localed.service", "systemd-timedated.service"}
"""Services that D-Bus starts on demand and that end by themselves."""

_STARTS = r"""
start_of() { sed 's/^.*) //' "/proc/$1/stat" | cut -d ' ' -f 20; }
{ systemctl show --property=Id,MainPID '*.service'; echo; } | while IFS='=' read -r key value; do
  case $key in
    Id) unit=$value ;;
    MainPID) pid=$value ;;
    '') [ "${pid:-0}" = 0 ] || { began=$(start_of "$pid" 2>/dev/null); [ -z "$began" ] || echo "$unit $began"; }; pid=0 ;;
  esac
done
echo "init $(start_of 1)"
"""
"""Prints a line for init and for each daemon: name, and start time in clock ticks since boot (proc(5), stat, field 22)."""

_ZONE_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_EVERYWHERE = r"""
folder=$(mktemp -d) && export folder
lxc-ls -1 --running | xargs -r -P 8 -n 1 sh -c '
  lxc-attach -n "$0" --clear-env --set-var=PATH="$ZONE_PATH" -- /bin/sh -c "$COMMAND" </dev/null >"$folder/$0" || echo "$0" >>"$folder/.failed"
'
cd "$folder" && for zone in $(ls); do echo "$MARK $zone"; cat "$zone"; done
if [ -e .failed ]; then echo "it failed in $(cat .failed)" >&2; rm -r "$folder"; exit 1; fi
rm -r "$folder"
"""
"""Runs $COMMAND in each running zone, some side by side; what it printed follows a line of $MARK and the zone's name."""

Starts = dict[str, dict[str, int]]
"""Zone to daemon to start time."""


def until(condition: t.Callable[[], t.Any], what: str, seconds: float) -> t.Any:
    """Wait until ``condition`` gives something true and return it; fail with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
    return found


def _descendants(parent: int) -> list[int]:
    """Return the pids below ``parent``, as they are now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    found = list(children.get(parent, []))
    for pid in found:
        found += children.get(pid, [])
    return found


def kill_tree(process: subprocess.Popen[bytes]) -> int:
    """Kill a process and all below it at once, without a chance to tidy up; return how many they were.

    They are stopped first: one that is killed alone would let its parent react. Daemons that have detached themselves (the
    zones) are no descendants any more, and live on.
    """
    stopped: set[int] = set()
    while new := {process.pid, *_descendants(process.pid)} - stopped:
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(timeout=120)
    return len(stopped)


class ArgvWatch:
    """Remembers every command line that any process of this machine, its containers included, showed meanwhile."""

    INTERVAL = 0.1
    """Seconds between two looks, about a twentieth of a core's work with 500 processes."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._end.wait(self.INTERVAL):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                    self.seen.add(cmdline.read())

    def __enter__(self) -> ArgvWatch:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end.set()
        self._thread.join()


@dataclass(frozen=True)
class Run:
    """A finished run: exit code, what the operator saw, and the log it wrote."""

    rc: int
    out: str
    log: str
    seconds: float

    @property
    def said(self) -> str:
        """The end of what the operator saw, for a failed assertion."""
        return f"exit code {self.rc} after {self.seconds:.0f} s:\n{self.out[-6000:]}"

    @property
    def changes(self) -> dict[str, int]:
        """How much each host changed, summed over all recaps of the log (``name : ok=3 changed=0 ...``)."""
        found: dict[str, int] = {}
        for name, changed in re.findall(r"(\S+)\s+: ok=\d+\s+changed=(\d+)", self.log):
            found[name] = found.get(name, 0) + int(changed)
        return found

    @property
    def verified(self) -> set[str]:
        """The hypervisors' zones whose instances the summary calls verified: one was reached from outside, the others from it."""
        said = re.search(
            r"verified: instance on (\S+) reached by floating IP in [\d.]+ s(?:, and from it those on (.+))?", self.out
        )
        return {said[1], *(said[2] or "").split(", ")} - {""} if said else set()

    @property
    def diff(self) -> list[str]:
        """The lines that ``--diff`` shows as added or removed, without file headers, the origins' comments and repeats."""
        lines = re.findall(r"^\S+ \s*([+-](?![+-]{2}).*)$", self.log, re.MULTILINE)
        return list(
            dict.fromkeys(line.rstrip() for line in lines if not re.match(r"[+-]\s*#", line) and line.strip("+- "))
        )


@dataclass
class Deployed:
    """The all-in-one on one fresh host."""

    host: Host
    name: str = "aio"
    argv: ArgvWatch = field(default_factory=ArgvWatch)
    outputs: list[str] = field(default_factory=list)
    """What every run so far showed and logged."""

    # -- the operator's commands ---------------------------------------------------------------------------------------

    def script(self, name: str, *arguments: str, timeout: float = RUN_LIMIT) -> Done:
        """Run one of the project's commands, as an operator would."""
        return self.host.exec([f"{CHECKOUT}/scripts/{name}", *arguments], timeout=timeout, check=False)

    def run(self, *arguments: str) -> Run:
        """Run the playbooks to their end."""
        started, finished = time.monotonic(), self.latest_log()
        done = self.script("run-playbooks.sh", *arguments)
        log = self.latest_log()
        text = (
            log.read_text(errors="replace") if log and log != finished else ""
        )  # one that is refused at once writes none
        run = Run(done.rc, done.out + done.err, text, time.monotonic() - started)
        self.outputs += [run.out, run.log]
        return run

    def converge(self, *arguments: str) -> Run:
        """Run the playbooks, and insist that it ends well."""
        run = self.run(*arguments)
        assert run.rc == 0, run.said
        return run

    def destroy(self, *names: str) -> None:
        """Destroy zones or services, or with ``--all --purge`` everything."""
        done = self.script("destroy.sh", *names, timeout=120)
        assert done.rc == 0, f"destroy.sh {' '.join(names)}: {done.out}{done.err}"

    def openstack(self, *arguments: str) -> t.Any:
        """Run the client in the utility zone the way the README says; return its JSON."""
        done = self.script(
            "zone-shell.sh", "utility", "--", "openstack", "--os-cloud", "aio", *arguments, "-f", "json", timeout=300
        )
        assert done.rc == 0, f"openstack {' '.join(arguments)}: {done.out}{done.err}"
        return json.loads(done.out)

    def utility(self, command: str, *, timeout: float = 300, input: str | None = None) -> Done:
        """Run a shell command in the utility zone the way the README says, whatever comes of it."""
        line = [f"{CHECKOUT}/scripts/zone-shell.sh", "utility", "--", "/bin/bash", "-c", command]
        return self.host.exec(line, timeout=timeout, check=False, input=input)

    def answers(self) -> bool:
        """Whether Keystone, its database and HAProxy together can issue a token."""
        line = [
            "lxc-attach",
            "-n",
            "aio1-utility-1",
            "--",
            "/bin/bash",
            "-lc",
            "openstack --os-cloud aio token issue -f value -c id",
        ]
        return self.host.exec(line, timeout=300, check=False).rc == 0

    def up(self, zone: str) -> bool:
        """Whether HAProxy sees the zone up behind each of its front ends."""
        return serves(self.inside("aio1-haproxy-1", SERVERS).out, zone)

    def browse(self, *arguments: str) -> str:
        """Use the dashboard with a real browser in the host's network, tests/browser/dashboard.py; return what it says.

        Its pictures are kept in tests/output/dashboard.
        """
        secrets = yaml.safe_load(self.file(f"{CHECKOUT}/inventory/aio/secrets.yml").read_text())["secrets"]
        with tempfile.NamedTemporaryFile("w", suffix=".crt") as ca:
            ca.write(secrets["pki"]["ca_certificate"])
            ca.flush()
            line = [sys.executable, str(TESTS / "browser/dashboard.py"), "https://10.77.0.5/", "--ca", ca.name]
            line += ["--namespace", str(self.host.pid), "--pictures", str(TESTS / "output/dashboard"), *arguments]
            done = subprocess.run(
                line,
                input=secrets["keystone"]["admin_password"],
                text=True,
                capture_output=True,
                timeout=900,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # -- zones ---------------------------------------------------------------------------------------------------------

    def zones(self, *, running: bool = False) -> set[str]:
        """Return the names of the containers on the host."""
        return set(self.host.exec(["lxc-ls", "-1", *(["--running"] if running else [])]).out.split())

    def inside(
        self, zone: str, command: str, *, timeout: float = 300, check: bool = True, input: str | None = None
    ) -> Done:
        """Run a shell command as root in a zone."""
        argv = ["lxc-attach", "-n", zone, "--clear-env", f"--set-var=PATH={_ZONE_PATH}", "--", "/bin/sh", "-c"]
        return self.host.exec([*argv, command], timeout=timeout, check=check, input=input)

    def everywhere(self, command: str, *, timeout: float = 600) -> dict[str, str]:
        """Run a shell command as root in each running zone, some side by side; what it printed, by the zone."""
        mark = f"--- {random.token_hex(8)}"
        done = self.host.exec(
            _EVERYWHERE, timeout=timeout, env={"COMMAND": command, "MARK": mark, "ZONE_PATH": _ZONE_PATH}
        )
        parts = (part.partition("\n") for part in done.out.split(f"{mark} ")[1:])
        return {zone: text for zone, _newline, text in parts}

    def starts(self) -> Starts:
        """Return when the init and each daemon of every running zone was started."""
        found: Starts = {}
        for zone, text in self.everywhere(_STARTS).items():
            lines = (line.split() for line in text.splitlines())
            found[zone] = {unit: int(ticks) for unit, ticks in lines if unit not in IDLERS}
        return found

    def fingerprint(self, zone: str) -> dict[str, str]:
        """Return what must be the same after a rebuild: container configuration, addresses, and checksum of each file.

        Of the files those below /etc count that the image did not bring, except those a machine makes for itself.
        """
        address = self.inside(
            zone,
            "cat /sys/class/net/eth0/address; ip -brief address show dev eth0 scope global | awk '{$1 = $2 = \"\"; print}'",
        ).out
        upper = self.host.home / "lxc" / zone / "upper" / "etc"
        own = re.compile(r"\.updated$|-$|^ld\.so\.cache|^mtab|^ssl/")
        names = sorted(
            str(path.relative_to(upper)) for path in upper.rglob("*") if path.is_file() and not path.is_symlink()
        )
        files = [f"/etc/{name}" for name in names if not own.search(name)]
        assert files, f"{zone}: no file below /etc is its own"
        sums = self.inside(zone, shlex.join(["sha256sum", "--", *files])).out.splitlines()
        config = (self.host.home / "lxc" / zone / "config").read_text()
        return {"address": " ".join(address.split()), "config": config, **dict(zip(files, sums, strict=True))}

    def galera_sizes(self) -> list[int]:
        """Return the size of the cluster as each Galera node sees it; a node that is not in sync counts as 0."""
        query = "SHOW STATUS WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_local_state_comment')"
        sizes = []
        for number in (1, 2, 3):
            done = self.inside(f"aio1-galera-{number}", f'mariadb -NBe "{query}"', check=False)
            status = dict(line.split("\t") for line in done.out.splitlines())
            synced = status.get("wsrep_local_state_comment") == "Synced"
            sizes.append(int(status["wsrep_cluster_size"]) if synced else 0)
        return sizes

    def rabbit_sizes(self) -> list[int]:
        """Return the number of running nodes as each RabbitMQ node sees it; 0 for one that does not answer."""
        sizes = []
        for number in (1, 2, 3):
            done = self.inside(
                f"aio1-rabbit-mq-{number}", "rabbitmqctl -q cluster_status --formatter json", check=False
            )
            sizes.append(len(json.loads(done.out)["running_nodes"]) if done.rc == 0 else 0)
        return sizes

    def raft_sizes(self) -> dict[str, list[int]]:
        """Return the number of servers of each OVN database as each node sees it; 0 for one that is no connected member."""
        sizes: dict[str, list[int]] = {}
        for database, socket in (("OVN_Northbound", "ovnnb_db"), ("OVN_Southbound", "ovnsb_db")):
            for number in (1, 2, 3):
                command = f"ovs-appctl -t /run/ovn/{socket}.ctl cluster/status {database}"
                done = self.inside(f"aio1-ovn-{number}", command, check=False)
                member = (
                    done.rc == 0
                    and "Status: cluster member" in done.out
                    and re.search(r"^Leader: (?!unknown)", done.out, re.MULTILINE)
                )
                servers = re.findall(r"^    \w+ \(\w+ at ", done.out, re.MULTILINE)
                sizes.setdefault(database, []).append(len(servers) if member else 0)
        return sizes

    # -- files ---------------------------------------------------------------------------------------------------------

    def file(self, path: str) -> Path:
        """Return where a file that was written in the host lies on this machine."""
        return self.host.home / "upper" / path.lstrip("/")

    def latest_log(self) -> Path | None:
        """Return the log of the newest run."""
        return max(self.file(f"{CHECKOUT}/logs/aio").glob("*.log"), default=None, key=lambda log: log.stat().st_mtime)

    def secrets(self) -> dict[str, str]:
        """Return every generated secret by its path in secrets.yml; of a key in PEM form its second line."""
        found: dict[str, str] = {}

        def collect(path: str, value: t.Any) -> None:
            if isinstance(value, dict | list):
                for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                    collect(f"{path}.{key}" if path else str(key), inner)
            elif isinstance(value, str) and "BEGIN CERTIFICATE" not in value and len(value) >= 12:
                found[path] = value.splitlines()[1] if "-----BEGIN" in value else value

        collect("", yaml.safe_load(self.file(f"{CHECKOUT}/inventory/aio/secrets.yml").read_text()))
        return found

    def override(self, text: str | None, group: str = "keystone") -> None:
        """Write the operator's own file of variables of a group, or with None remove it."""
        path = f"{CHECKOUT}/inventory/aio/group_vars/{group}.yml"
        if text is None:
            self.host.exec(["rm", "-f", path])
        else:
            self.host.exec(f"mkdir -p {Path(path).parent} && cat > {path}", input=text)


def readable_by_anyone(root: Path) -> t.Iterator[Path]:
    """Yield the regular files below ``root`` that a user without any rights could open, path included."""
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if _mode(Path(folder, name)) & stat.S_IXOTH]
        for name in files:
            path = Path(folder, name)
            mode = _mode(path)
            if stat.S_ISREG(mode) and mode & stat.S_IROTH:
                yield path


def holding(texts: str, paths: t.Iterable[Path]) -> list[str]:
    """Return those of ``paths`` that hold one of ``texts``, one a line; files that have gone meanwhile hold nothing."""
    with tempfile.NamedTemporaryFile("w") as patterns:
        patterns.write(texts)
        patterns.flush()
        argv = ["xargs", "-0", "--no-run-if-empty", "grep", "-lsF", "-f", patterns.name, "--"]
        done = subprocess.run(
            argv,
            input="\0".join(map(str, paths)).encode(errors="surrogateescape"),
            capture_output=True,
            timeout=300,
            check=False,
        )
    assert done.returncode in (0, 1, 123), done.stderr  # 123: some grep found nothing
    return done.stdout.decode(errors="surrogateescape").splitlines()


def _mode(path: Path) -> int:
    """Return the mode of a file itself, links not followed; 0 of one that has gone meanwhile."""
    try:
        return path.lstat().st_mode
    except OSError:
        return 0
