#!/usr/bin/env python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment of many hosts costs the machine that it is deployed from: 10, 30 and 100 hosts, reached over SSH.

The hosts are endpoints on this machine: a root of Debian with an overlay of its own, an SSH daemon, and namespaces of its own for
network, mounts, processes and names; two wires join each to all others. What there is no systemd for (units of the host) a run leaves
out by itself. Packages that a host gets from apt are in the root already: hosts do that on processors of their own.

The topology is the production example with that many hosts. Everything is computed and planned with its services; what is
deployed is one small zone on each host, where --zones asks for it.

The control side runs in a network namespace of its own, too, so its processes can be told from those of the hosts: processor time and
memory are its own, the wall clock is of a machine that plays all hosts besides. All is gone when this program ends, but the root with its
packages, in ZONESTACK_TEST_DIR/bench. Wants root.

    bench/hosts.py [--hosts 10,30,100] [--runs 3] [--zones]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "host"))

import host as containers  # noqa: E402
from debian_root import root_of  # noqa: E402
from fleet import FOLDER, PREFIX, WITH_US, Fleet, address_of, packages_layer, shell  # noqa: E402

UPLINK = "zsbench0"
"""The interface of the control side that leads to this machine's network."""
ADDRESS = f"{containers.SUBNET}.250"
"""Its address there; the host containers of the tests have lower ones."""
DEPLOYMENT = "bench-hosts"


def topology(count: int, zones: bool) -> str:
    """The production example with so many hosts.

    :param zones: one small zone on each host in place of its services.
    """
    data = yaml.safe_load((ROOT / "inventory/examples/production/topology.yml").read_text())
    roles = [["control"], ["control"], ["control"], ["edge"], ["edge"], ["logs"]]
    every = ["control", "edge", "logs", "compute"]
    data["hosts"] = {
        f"{PREFIX}{number}": {
            "id": number,
            "address": address_of(number),
            "user": "root",
            "zone": f"rack-{number % 3 + 1}",
            "groups": every if count < 9 else roles[number - 1] if number <= len(roles) else ["compute"],
        }
        for number in range(1, count + 1)
    }
    data["deployment"] = "bench"
    if (count + 1) * 512 > 2**16:
        data["networks"]["zone"]["cidr"] = "10.64.0.0/10"
    if zones:
        data["services"] = {"memcached": {"per_host": 1, "memory": 128}}
    return yaml.safe_dump(data, sort_keys=False)


# What it costs -------------------------------------------------------------------------------------------------------------


def mine() -> list[int]:
    """The processes of the control side: those in this network namespace, which the hosts' have left."""
    here = os.readlink("/proc/self/ns/net")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "ns/net") == here and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def words_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclasses.dataclass
class Cost:
    """What one command took: wall clock and the control side's processor time in seconds, its memory at the peak in MiB, its processes
    then, and what it printed and logged in bytes."""

    seconds: float = 0.0
    processor: float = 0.0
    memory: float = 0.0
    processes: int = 0
    said: int = 0
    rc: int = 0
    out: str = ""


class Watch(threading.Thread):
    """Looks at the control side's memory: the sum of proportional set sizes (a page that so many share counts for each with its part)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.processes = 0.0, 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.5):
            total, count = 0, 0
            for pid in mine():
                with contextlib.suppress(OSError):
                    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                    total, count = total + (int(found[1]) if found else 0), count + 1
            self.peak, self.processes = max(self.peak, total / 1024), max(self.processes, count)


def masters() -> float:
    """Processor seconds of SSH's shared connections, which outlive the command that made them."""
    ticks = 0
    for pid in mine():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "ssh":
                ticks += sum(map(int, words_of(pid)[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def environment() -> dict[str, str]:
    """As scripts/lib/env.sh makes it, with the Python that runs this."""
    collections = ROOT / ".collections/ansible_collections/zonestack"
    if not (collections / "openstack").exists():
        collections.mkdir(parents=True, exist_ok=True)
        (collections / "openstack").symlink_to("../../..")
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        "ANSIBLE_HOME": str(FOLDER / "ansible"),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def cost(command: t.Sequence[str], logs: Path) -> Cost:
    """Run a command of the control side."""
    before = {path: path.stat().st_size for path in logs.glob("*.log")}
    watch, shared, begun = Watch(), masters(), time.monotonic()
    watch.start()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment()
    )
    out = process.stdout.read() if process.stdout else ""
    _pid, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    watch.done.set()
    watch.join()
    logged = sum(path.stat().st_size - before.get(path, 0) for path in logs.glob("*.log"))
    processor = used.ru_utime + used.ru_stime + masters() - shared
    return Cost(
        seconds,
        processor,
        max(watch.peak, used.ru_maxrss / 1024),
        watch.processes,
        len(out) + logged,
        os.waitstatus_to_exitcode(status),
        out,
    )


class Bench:
    """The measurements of one size."""

    def __init__(self, count: int, runs: int, zones: bool) -> None:
        self.count, self.runs, self.zones = count, runs, zones
        self.figures: dict[str, list[Cost]] = {}
        self.folder = ROOT / "inventory" / DEPLOYMENT
        self.logs = ROOT / "logs" / DEPLOYMENT

    def take(self, name: str, *command: str, runs: int = 1, rc: t.Container[int] = (0,), says: str = "") -> None:
        """Measure a command so many times; one that ends with another exit code, or does not say what it must, ends all."""
        for _run in range(runs):
            found = cost(command, self.logs)
            self.figures.setdefault(name, []).append(found)
            print(
                f"{self.count:>5} {name:<28} {found.seconds:8.1f} s {found.processor:8.1f} s {found.memory:8.0f} MiB {found.processes:>5}"
                f" {found.said / 1024:9.0f} KiB", flush=True
            )  # fmt: skip
            if found.rc not in rc or says not in found.out:
                sys.exit(
                    f"bench/hosts.py: {' '.join(command)} ended with {found.rc}, to say {says!r}:\n{found.out[-6000:]}"
                )

    def write(self, zones: bool) -> None:
        """The deployment, with the production example's services or with the small zones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "topology.yml").write_text(topology(self.count, zones))
        shell(
            '"$@"',
            sys.executable,
            str(ROOT / "scripts/deployment-secrets.py"),
            "ensure",
            "--deployment",
            str(self.folder),
            env=environment(),
        )

    def measure(self) -> None:
        """Everything, in the order in which a deployment begins."""
        python, scripts, silent = sys.executable, ROOT / "scripts/lib", "Nothing changed."
        run = [python, str(scripts / "run.py"), "--deployment", DEPLOYMENT]
        self.write(zones=False)
        path = str(self.folder / "topology.yml")
        self.take(
            "inventory, as a list", "ansible-inventory", "--inventory", path, "--list", "--export", runs=self.runs
        )
        self.take("preflight", python, str(scripts / "preflight.py"), DEPLOYMENT, runs=self.runs, rc=(0, 1))
        self.take("plan of everything", *run, "--plan", runs=self.runs, rc=(0, 1))
        self.take("hosts prepared", *run, "--step", "hosts", says="Changed:")
        self.take("hosts prepared, second run", *run, "--step", "hosts", runs=self.runs, says=silent)
        self.take(
            "preflight of prepared hosts", python, str(scripts / "preflight.py"), DEPLOYMENT, runs=self.runs, rc=(0, 1)
        )
        if self.zones:
            self.write(zones=True)
            # Images are shared here and built by one: how they come to many hosts is another question.
            self.take("images built by one host", *run, "--step", "images", "--limit", f"{PREFIX}1")
            self.take("a zone on each host", *run, "--step", "images..infrastructure", says="Changed:")
            self.take("second run", *run, "--step", "hosts..infrastructure", runs=self.runs, says=silent)
            self.take("plan, nothing to do", *run, "--plan", "--step", "hosts..infrastructure", runs=self.runs)

    def __enter__(self) -> Bench:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_exception: object) -> None:
        for folder in (self.folder, self.logs):
            shutil.rmtree(folder, ignore_errors=True)


def median(costs: t.Sequence[Cost], field: str) -> float:
    return statistics.median(getattr(one, field) for one in costs)


def show(benches: t.Sequence[Bench]) -> None:
    """Medians of all sizes, and what a host more costs between the smallest and the largest."""
    print(
        f"\n{'median of all runs':<28} "
        + " ".join(f"{f'{bench.count} hosts':>34}" for bench in benches)
        + f" {'one host more':>26}"
    )
    print(
        f"{'':<28} "
        + " ".join(f"{'wall s':>8} {'cpu s':>8} {'MiB':>7} {'KiB':>8}" for _bench in benches)
        + f" {'wall s':>8} {'cpu s':>8} {'MiB':>8}"
    )
    first, last = benches[0], benches[-1]
    for name in first.figures:
        cells = [
            f"{median(bench.figures[name], 'seconds'):8.1f} {median(bench.figures[name], 'processor'):8.1f}"
            f" {median(bench.figures[name], 'memory'):7.0f} {median(bench.figures[name], 'said') / 1024:8.0f}"
            for bench in benches
        ]
        growth = ""
        if last.count > first.count:
            growth = " ".join(
                f"{(median(last.figures[name], field) - median(first.figures[name], field)) / (last.count - first.count):8.2f}"
                for field in ("seconds", "processor", "memory")
            )
        print(f"{name:<28} {' '.join(cells)} {growth}")


# The control side's network --------------------------------------------------------------------------------------------------


def enter() -> None:
    """Run this program again in namespaces of its own: with a way out, and bridges that the hosts' wires end at."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    containers.network()
    command = [*WITH_US, "unshare", "--net", "--mount", sys.executable, *sys.argv]
    inner = subprocess.Popen(command, env={**os.environ, "ZONESTACK_BENCH": "inside"}, stdin=subprocess.PIPE)
    here = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{inner.pid}/ns/net") == here:
        time.sleep(0.01)
    shell(
        'ip link add "$1" type veth peer name up0 netns "$2"; ip link set "$1" master "$3" up',
        UPLINK,
        str(inner.pid),
        containers.BRIDGE,
    )
    if inner.stdin:
        inner.stdin.write(b"\n")
        inner.stdin.flush()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: inner.send_signal(number))
    while True:
        try:
            sys.exit(inner.wait())
        except KeyboardInterrupt:  # it has heard it as well
            continue


def prepare() -> str:
    """The control side's network and keys; the lower layers of the hosts' roots."""
    sys.stdin.readline()
    shell(
        f"""
        mount --make-rprivate /
        ip link set lo up; ip link set up0 up; ip address add {ADDRESS}/24 dev up0; ip route add default via {containers.SUBNET}.1
        for bridge in ssh0 wire1 wire2; do ip link add $bridge type bridge; ip link set $bridge up; done
        ip address add 198.18.0.1/15 dev ssh0
        echo 1 > /proc/sys/net/ipv4/ip_forward
        """
    )
    rules = 'table ip bench { chain out { type nat hook postrouting priority srcnat;\nip saddr 198.18.0.0/15 oifname "up0" masquerade\n}\n}\n'
    shell("nft -f -", input=rules)
    root = root_of("trixie")
    layer = packages_layer(root)
    if not (FOLDER / "client").exists():
        shell('ssh-keygen -q -t ed25519 -N "" -f "$1"', str(FOLDER / "client"))
    key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    (FOLDER / "known_hosts").write_text(f"198.18.*,198.19.* {key}")
    (FOLDER / "ssh_config").write_text(
        f"Host 198.18.*\n  IdentityFile {FOLDER}/client\n  IdentitiesOnly yes\n  UserKnownHostsFile {FOLDER}/known_hosts\n"
    )
    shell('mount --bind "$1" /etc/ssh/ssh_config', str(FOLDER / "ssh_config"))
    return f"{layer}:{root}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--hosts", default="10,30,100", help="numbers of hosts, with commas between (default 10,30,100)"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of what can be repeated (default 3)")
    parser.add_argument("--zones", action="store_true", help="also a memcached zone on each host, for real")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("needs root: namespaces, mounts")
    if "ZONESTACK_BENCH" not in os.environ:
        enter()
    # In the end everything in this network namespace is told to go.
    if os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{os.getppid()}/ns/net"):
        parser.error("ZONESTACK_BENCH is set, and this is no namespace of its own: unset it")
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    lower = prepare()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"{os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}")
    print(f"hosts {'':<28} {'wall':>10} {'control':>10} {'peak':>12} {'procs':>5} {'said':>13}")
    benches = []
    try:
        for count in map(int, options.hosts.split(",")):
            with Fleet(count, lower), Bench(count, options.runs, options.zones) as bench:
                bench.measure()
                benches.append(bench)
    finally:
        for pid in mine():  # SSH's shared connections, which would keep all this for another five minutes
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
    show(benches)
    if options.json:
        rows = [
            {"hosts": bench.count, "what": name, **{field: getattr(one, field) for field in ("seconds", "processor", "memory", "processes", "said")}}
            for bench in benches for name, costs in bench.figures.items() for one in costs
        ]  # fmt: skip
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
