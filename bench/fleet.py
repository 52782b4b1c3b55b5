# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts on one machine, each an SSH daemon in namespaces of its own; bench/hosts.py tells what they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import typing as t
import uuid
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "host"))

from debian_root import BASE, inherited_environment  # noqa: E402

FOLDER = BASE / "bench"
WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""What begins a command that must not outlive the process that began it, whatever ends that."""
PREFIX = "bench"
"""What names of hosts, and so of zones and their cgroups, begin with."""

ENDPOINT = r"""
set -eu
name=$1 home=$2 lower=$3 address=$4
mount --make-rprivate /
hostname "$name"
mount -t overlay -o "lowerdir=$lower,upperdir=$home/upper,workdir=$home/work" overlay "$home/root"
cd "$home/root"
mkdir -p var/lib/lxc
mount --bind "$home/lxc" var/lib/lxc
mount --bind "$home/../images" var/lib/lxc/zonestack/images
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount --bind dev/pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p run/sshd
echo made
read -r _plugged
ip link set lo up
for interface in eth0 eth1 eth2; do ip link set "$interface" up; done
ip address add "$address/15" dev eth0
ip route add default via 198.18.0.1
pivot_root . mnt
exec chroot . /bin/sh -c 'umount -l /mnt; exec /usr/sbin/sshd -D -e -f /etc/ssh/bench_config'
"""
"""A host: the first process of its namespaces. It waits for its wires before it moves into its root."""


def shell(script: str, *arguments: str, **options: t.Any) -> str:
    """Run a shell script; what it says."""
    done = subprocess.run(
        ["/bin/sh", "-euc", script, "sh", *arguments], capture_output=True, text=True, timeout=600, **options
    )
    if done.returncode:
        sys.exit(f"bench/hosts.py: {script.splitlines()[0]} ..: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def packages() -> list[str]:
    """What a run would install on a host."""
    defaults = yaml.safe_load((ROOT / "roles/zone_host/defaults/main.yml").read_text())
    return [*defaults["zone_host_packages"], "python3", "openssh-server"]


def packages_layer(root: Path) -> Path:
    """The overlay layer that holds them, made once for each root; the packages come from where this machine gets its own."""
    wanted = packages()
    layer = FOLDER / f"packages-{root.name}-{uuid.uuid5(uuid.NAMESPACE_DNS, ' '.join(wanted)).hex[:8]}"
    if layer.is_dir():
        return layer
    print(f"installing {' '.join(wanted)} for all hosts, once", flush=True)
    trial, work, merged = (FOLDER / name for name in ("trial", "work", "merged"))
    for path in (trial, work, merged):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    script = """
        mount --make-rprivate /
        mount -t overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" overlay "$4"
        mount -t proc proc "$4/proc"; mount --bind /dev "$4/dev"
        # What apt starts here would be this machine's.
        printf '#!/bin/sh\\nexit 101\\n' > "$4/usr/sbin/policy-rc.d"; chmod 755 "$4/usr/sbin/policy-rc.d"
        mkdir -p "$4/etc/default"; echo 'USE_LXC_BRIDGE="false"' > "$4/etc/default/lxc-net"
        shift 3; merged=$1; shift
        export DEBIAN_FRONTEND=noninteractive
        chroot "$merged" apt-get update
        chroot "$merged" apt-get install --yes --no-install-recommends --option Dpkg::Options::=--force-confold "$@"
        rm "$merged/usr/sbin/policy-rc.d"
    """
    inside = [
        "unshare",
        "--mount",
        "/bin/sh",
        "-euc",
        script,
        "sh",
        str(root),
        str(trial),
        str(work),
        str(merged),
        *wanted,
    ]
    with open(FOLDER / "packages.log", "w") as log:
        done = subprocess.run(
            inside,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **inherited_environment()},
            timeout=900,
        )
    if done.returncode:
        sys.exit(f"bench/hosts.py: the packages cannot be installed, see {FOLDER}/packages.log")
    trial.rename(layer)
    shutil.rmtree(work, ignore_errors=True)
    return layer


def address_of(number: int) -> str:
    """Where SSH reaches a host: RFC 2544's network for benchmarks."""
    return f"198.18.{1 + number // 250}.{number % 250 + 1}"


class Fleet:
    """So many hosts, wired to the control side."""

    def __init__(self, count: int, lower: str) -> None:
        self.names = [f"{PREFIX}{number}" for number in range(1, count + 1)]
        self.held: list[subprocess.Popen[str]] = []
        self.lower = lower
        self.home = FOLDER / "hosts"

    def __enter__(self) -> Fleet:
        self._make_folders()
        for number, name in enumerate(self.names, 1):
            self._start(number, name)
        self._wire()
        self._await_ssh()
        return self

    def _make_folders(self) -> None:
        """An empty home, and the images of the runs before."""
        shutil.rmtree(self.home, ignore_errors=True)
        (FOLDER / "images").mkdir(parents=True, exist_ok=True)
        self.home.mkdir(parents=True)
        (self.home / "images").symlink_to(FOLDER / "images")

    def _start(self, number: int, name: str) -> None:
        """Write what a host finds in its /etc, and start its first process."""
        variables = [f'"{name}={value}"' for name, value in inherited_environment().items()]
        key = (FOLDER / "client.pub").read_text()
        home = self.home / name
        for folder in ("root", "work", "upper/etc/ssh", "lxc/zonestack/images"):
            (home / folder).mkdir(parents=True)
        files = {
            "hostname": f"{name}\n",
            "hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n",
            "machine-id": f"{uuid.uuid4().hex}\n",
            "ssh/bench_key": key,
            "ssh/bench_config": "AuthorizedKeysFile /etc/ssh/bench_key\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            + "PrintMotd no\n"
            + (f"SetEnv {' '.join(variables)}\n" if variables else ""),
        }
        for path, text in files.items():
            (home / "upper/etc" / path).write_text(text)
        command = [
            *WITH_US,
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "/bin/sh",
            "-c",
            ENDPOINT,
        ]
        command += ["sh", name, str(home), self.lower, address_of(number)]
        with open(home / "log", "w") as log:
            self.held.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
            )

    def _wire(self) -> None:
        """Connect each host by three wires, and let it go on."""
        lines = []
        for number, process in enumerate(self.held, 1):
            if not process.stdout or process.stdout.readline() != "made\n":
                sys.exit(
                    f"bench/hosts.py: {self.names[number - 1]} was not made: {(self.home / self.names[number - 1] / 'log').read_text()}"
                )
            for index, bridge in enumerate(("ssh0", "wire1", "wire2")):
                wire = f"b{number}e{index}"
                lines += [
                    f"link add {wire} type veth peer name eth{index} netns {process.pid}",
                    f"link set {wire} master {bridge} up",
                ]
        shell("ip -batch -", input="\n".join(lines))
        for process in self.held:
            if process.stdin:
                process.stdin.write("\n")
                process.stdin.flush()

    def _await_ssh(self) -> None:
        """Wait until each host listens."""
        deadline = time.monotonic() + 60
        for name, number in zip(self.names, range(1, len(self.names) + 1), strict=True):
            log = self.home / name / "log"
            while "listening" not in log.read_text():
                if time.monotonic() > deadline or self.held[number - 1].poll() is not None:
                    sys.exit(f"bench/hosts.py: {name} does not listen for SSH: {log.read_text()}")
                time.sleep(0.05)

    def __exit__(self, *_exception: object) -> None:
        for process in self.held:
            process.kill()
        for process in self.held:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        deadline = time.monotonic() + 30
        while not self.gone():  # the kernel takes a moment after the last process
            if time.monotonic() > deadline:
                sys.exit(f"bench/hosts.py: {self.home}, or a cgroup of its zones, cannot be removed")
            time.sleep(0.2)

    def gone(self) -> bool:
        """Remove what hosts and zones leave; LXC would have removed the cgroups of zones that it ends itself."""
        for folder in Path("/sys/fs/cgroup").glob(f"**/lxc.*.{PREFIX}[0-9]*-*"):
            for path, _folders, _files in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            if folder.exists():
                return False
        with contextlib.suppress(OSError):
            shutil.rmtree(self.home)
        return not self.home.exists()
