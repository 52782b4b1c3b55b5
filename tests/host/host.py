#!/usr/bin/env python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fresh hosts for tests: a privileged LXC container that is a newly installed Debian machine.

A host container has its own systemd, network address and ``/var/lib/lxc``, and nests containers of its own; it holds a
minimal Debian and nothing that zonestack needs. What an operator's machine would be given by its owner is copied from
the machine that runs the tests: extra CA certificates, proxy and index variables, apt mirror, resolver.

Everything lives below ``ZONESTACK_TEST_DIR`` (default ``/var/cache/zonestack-test``), which must be on a file system
that can carry an overlay's upper directory (ext4, XFS, btrfs; not an overlay):

``roots/<suite>-<hash>/``  the minimal Debian, made once per content of its recipe (about 20 s)
``hosts/<name>/``          one container: LXC's config, the overlay's upper directory, and ``lxc/`` = its /var/lib/lxc

Needs root, and the packages lxc, mmdebstrap and nftables. Uses only the standard library, so that it runs before any
virtual environment is made.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from debian_root import BASE, SUITES, Done, HostError, locked, root_of, run

HOSTS = BASE / "hosts"
PROJECT = Path(__file__).resolve().parents[2]
CHECKOUT = "/root/zonestack"
"""Where the project lies inside a host: where root's `git clone` puts it, in a folder that is closed to all others."""

BRIDGE = "zstest0"
SEGMENTS = ("zstest1", "zstest2")
"""Wires between all hosts, at their eth1 and eth2: for the zones and for a provider network of deployments of several hosts."""
SUBNET = os.environ.get("ZONESTACK_TEST_SUBNET", "10.99.0")
"""First three octets of the hosts' /24; .1 is the bridge on this machine."""


CONFIG = """\
lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/nesting.conf
lxc.uts.name = {name}
lxc.arch = linux64
lxc.rootfs.path = overlayfs:{root}:{home}/upper
lxc.apparmor.profile = unconfined
# Instances and nested containers need every capability and device that this machine has.
lxc.cap.drop =
lxc.cgroup.devices.allow = a
lxc.cgroup2.devices.allow = a
lxc.mount.auto =
lxc.mount.auto = cgroup:rw:force proc:{proc} sys:rw
lxc.mount.entry = /dev/net/tun dev/net/tun none bind,create=file,optional 0 0
lxc.mount.entry = /dev/fuse dev/fuse none bind,create=file,optional 0 0
lxc.mount.entry = /dev/kvm dev/kvm none bind,create=file,optional 0 0
# The zones' overlays cannot have their upper directories on this container's own overlay.
lxc.mount.entry = {home}/lxc var/lib/lxc none bind,create=dir 0 0
lxc.tty.max = 0
lxc.pty.max = 4096
lxc.signal.halt = SIGRTMIN+3
lxc.net.0.type = veth
lxc.net.0.link = {bridge}
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.hwaddr = 02:99:00:00:00:{octet:02x}
lxc.net.0.ipv4.address = {subnet}.{octet}/24
lxc.net.0.ipv4.gateway = {subnet}.1
{further}"""

FURTHER = """\
lxc.net.{number}.type = veth
lxc.net.{number}.link = {bridge}
lxc.net.{number}.flags = up
lxc.net.{number}.name = eth{number}
lxc.net.{number}.hwaddr = 02:99:00:00:{number:02x}:{octet:02x}
"""


# -- the network between the hosts and this machine --------------------------------------------------------------------


def network() -> None:
    """Make the bridges and the NAT behind which hosts live; left from an earlier run, they are made anew in place."""
    for bridge in (BRIDGE, *SEGMENTS):
        if run(["ip", "link", "show", bridge], check=False).rc:
            run(["ip", "link", "add", bridge, "type", "bridge"])
        run(["ip", "link", "set", bridge, "up"])
    run(["ip", "address", "replace", f"{SUBNET}.1/24", "dev", BRIDGE])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    # "table" before "delete table": deleting what is not there would be an error.
    rules = f"""
        table ip {BRIDGE}
        delete table ip {BRIDGE}
        table ip {BRIDGE} {{
            chain source_nat {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr {SUBNET}.0/24 oifname != "{BRIDGE}" masquerade
            }}
        }}
    """
    run(["nft", "-f", "-"], input=rules)


def _free_octet() -> int:
    """Return the lowest last octet from 10 on that no host has in its configuration."""
    taken = {
        int(found[1])
        for config in HOSTS.glob("*/config")
        if (found := re.search(rf"ipv4\.address = {re.escape(SUBNET)}\.(\d+)/", config.read_text()))
    }
    return next(octet for octet in range(10, 250) if octet not in taken)


# -- one host ----------------------------------------------------------------------------------------------------------


class Host:
    """One host container, by name. Creating the object does nothing yet."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?", name):
            raise HostError(
                f"host name {name!r}: must be a DNS label of at most 30 characters, beginning with a letter"
            )
        self.name = name
        self.home = HOSTS / name

    def _configured(self, pattern: str) -> str:
        """Return the first group of ``pattern`` as found in the host's LXC configuration."""
        config = self.home / "config"
        found = re.search(pattern, config.read_text()) if config.is_file() else None
        if not found:
            known = ", ".join(host.name for host in hosts()) or "none"
            raise HostError(f"{self.name}: no such host, or one half made: create it (there are: {known})")
        return found[1]

    @property
    def address(self) -> str:
        """The IPv4 address on the test bridge."""
        return self._configured(r"ipv4\.address = ([\d.]+)/")

    @property
    def pid(self) -> int:
        """The process id on this machine of the host's init; 0 while it is stopped."""
        out = run(["lxc-info", "-P", str(HOSTS), "-n", self.name, "-pH"], check=False).out.strip()
        return int(out) if out.isdigit() else 0

    @property
    def state(self) -> str:
        """``RUNNING``, ``STOPPED``, ... as LXC says, or ``ABSENT``."""
        if not (self.home / "config").is_file():
            return "ABSENT"
        return run(["lxc-info", "-P", str(HOSTS), "-n", self.name, "-sH"], check=False).out.strip() or "ABSENT"

    def create(self, suite: str = "trixie", *, proc: str = "rw", init: str = "", further: t.Sequence[str] = ()) -> Host:
        """Make and start a fresh host of this name, in place of any left from an earlier run; wait until it is up.

        One that takes another's place has its address, as a machine has that replaces a dead one.

        :param proc: ``rw``, or ``mixed`` for a /proc/sys that is read-only but for the network's, as LXC makes it by default.
        :param init: what is process 1 instead of systemd.
        :param further: lines of LXC's configuration (lxc.container.conf(5)).
        """
        root = root_of(suite)
        former = 0
        with contextlib.suppress(HostError):
            former = int(self.address.rpartition(".")[2])
        self.destroy()
        with locked():
            network()
            for part in ("upper", "lxc"):
                (self.home / part).mkdir(parents=True)
            octet = former or _free_octet()
            segments = "".join(
                FURTHER.format(number=n, bridge=bridge, octet=octet) for n, bridge in enumerate(SEGMENTS, 1)
            )
            config = CONFIG.format(
                name=self.name,
                root=root,
                home=self.home,
                bridge=BRIDGE,
                subnet=SUBNET,
                octet=octet,
                further=segments,
                proc=proc,
            )
            lines = [*([f"lxc.init.cmd = {init}"] if init else []), *further]
            config += "".join(f"{line}\n" for line in lines)
            (self.home / "config").write_text(config)
        for path, text in {
            "etc/hostname": f"{self.name}\n",
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n::1 localhost ip6-localhost ip6-loopback\n",
        }.items():
            target = self.home / "upper" / path
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
        self.start()
        return self

    def start(self, timeout: float = 300) -> None:
        """Start the host and wait until its systemd has finished starting; ``timeout`` in seconds."""
        log = self.home / "lxc.log"
        run(["lxc-start", "-P", str(HOSTS), "-n", self.name, "-o", str(log), "-l", "INFO"])
        if "lxc.init.cmd" in (self.home / "config").read_text():
            return  # lxc-start waited for it; nothing else is started
        deadline = time.monotonic() + timeout
        state = ""
        while time.monotonic() < deadline:
            # Until init has its bus, systemctl fails; from then on --wait holds it until the start is over.
            answer = self.exec(["systemctl", "is-system-running", "--wait"], timeout=timeout, check=False)
            state = answer.out.strip() or answer.err.strip()
            if state in ("running", "degraded"):
                return
            time.sleep(0.1)
        raise HostError(f"{self.name}: systemd is {state!r} after {timeout:g} s; see {log} and its journal")

    def stop(self) -> None:
        """Cut the host's power."""
        run(["lxc-stop", "-P", str(HOSTS), "-n", self.name, "-k"], check=False)

    def destroy(self) -> None:
        """Remove the host and all it holds; one that is absent or half made is no error."""
        if not self.home.exists():
            return
        if self.state not in ("ABSENT", "STOPPED"):
            self.stop()
        shutil.rmtree(self.home)

    def environment(self) -> dict[str, str]:
        """Return what a login on this host would have in its environment."""
        given = self.home / "upper/etc/environment"
        if not given.exists():
            given = Path(self._configured(r"overlayfs:([^:]+):"), "etc/environment")
        pairs = (line.split("=", 1) for line in given.read_text().splitlines() if "=" in line)
        return {
            "HOME": "/root",
            "USER": "root",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **{name: value.strip('"') for name, value in pairs},
        }

    def argv(self, command: t.Sequence[str] | str, env: t.Mapping[str, str] | None = None) -> list[str]:
        """Return the command line on this machine that runs ``command`` in the host; a text is given to a shell."""
        inner = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        variables = [f"--set-var={name}={value}" for name, value in {**self.environment(), **(env or {})}.items()]
        return ["lxc-attach", "-P", str(HOSTS), "-n", self.name, "--clear-env", *variables, "--", *inner]

    def exec(
        self,
        command: t.Sequence[str] | str,
        *,
        timeout: float = 300,
        check: bool = True,
        input: str | None = None,
        env: t.Mapping[str, str] | None = None,
    ) -> Done:
        """Run a command in the host; ``timeout`` in seconds. A text is given to ``/bin/sh``, a list is run as it is."""
        options: dict[str, t.Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        return run(self.argv(command, env), timeout=timeout, check=check, cwd="/", **options)

    def popen(self, command: t.Sequence[str] | str, **options: t.Any) -> subprocess.Popen[bytes]:
        """Start a command in the host and return at once; ``options`` are those of ``subprocess.Popen``."""
        return subprocess.Popen(self.argv(command), cwd="/", stdin=subprocess.DEVNULL, **options)

    def copy_project(self, *, worktree: bool = False, target: str = CHECKOUT) -> None:
        """Put the project at ``target``: a clean clone of HEAD, or with ``worktree`` the files as they lie here now.

        Neither carries what .gitignore names, so no virtual environment, cache or deployment comes along.
        """
        with tempfile.TemporaryDirectory(prefix="zonestack-clone-") as scratch:
            clone = Path(scratch, "clone")
            run(["git", "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", str(PROJECT), str(clone)])
            if worktree:
                listed = run(
                    ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                    cwd=PROJECT,
                ).out.split("\0")
                run(["git", "rm", "-rqf", "--cached", "."], cwd=clone)
                for path in clone.iterdir():
                    if path.name != ".git":
                        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                for name in filter(lambda name: name and os.path.lexists(PROJECT / name), listed):
                    (clone / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(PROJECT / name, clone / name, follow_symlinks=False)
                run(["git", "add", "-A"], cwd=clone)
            self.copy_tree(clone, target)

    def copy_tree(self, source: Path, target: str) -> None:
        """Copy the contents of a directory of this machine into ``target`` in the host, as root's files."""
        pack = subprocess.Popen(
            ["tar", "-C", str(source), "--owner=0", "--group=0", "-cf", "-", "."], stdout=subprocess.PIPE
        )
        unpack = f"mkdir -p {shlex.quote(target)} && tar -C {shlex.quote(target)} -xf -"
        try:
            run(self.argv(unpack), timeout=600, stdin=pack.stdout)
        finally:
            assert pack.stdout is not None
            pack.stdout.close()
            pack.wait(timeout=60)

    def fetch(self, pattern: str, target: Path) -> bool:
        """Copy the files that a shell pattern names from the host to ``target`` here; false when there are none."""
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as archive:
            subprocess.run(
                self.argv(f"tar -cf - --ignore-failed-read {pattern} 2>/dev/null"),
                stdout=archive,
                check=False,
                timeout=120,
            )
            archive.seek(0)
            return subprocess.run(["tar", "-C", str(target), "-xf", "-"], stdin=archive, check=False).returncode == 0


def hosts() -> list[Host]:
    """Return the hosts that exist, running or not, by name."""
    return [Host(home.name) for home in sorted(HOSTS.glob("*")) if home.is_dir()]


def remove_network() -> None:
    """Remove bridges and NAT when the last host is gone."""
    if not hosts():
        for bridge in (BRIDGE, *SEGMENTS):
            run(["ip", "link", "delete", bridge], check=False)
        run(["nft", "delete", "table", "ip", BRIDGE], check=False)


def _main(argv: t.Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Make, use and remove fresh host containers for tests.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create", help="make and start a fresh host, in place of any of that name")
    create.add_argument("--suite", choices=SUITES, default="trixie")
    create.add_argument(
        "--worktree", action="store_true", help="copy the working tree's files instead of a clone of HEAD"
    )
    copy = verbs.add_parser("copy", help=f"put the project at {CHECKOUT} (again)")
    copy.add_argument("--worktree", action="store_true", help="the working tree's files instead of a clone of HEAD")
    execute = verbs.add_parser("exec", help="run a command in a host; without one, a shell")
    destroy = verbs.add_parser("destroy", help="remove a host, or with --all every host and the network")
    destroy.add_argument("--all", action="store_true")
    verbs.add_parser("list", help="show the hosts")
    for verb in (create, copy, execute, destroy):
        verb.add_argument("--name", required=verb is not destroy, default=None)
    execute.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    try:
        if options.verb == "create":
            started = time.monotonic()
            host = Host(options.name).create(options.suite)
            host.copy_project(worktree=options.worktree)
            print(
                f"{host.name}: {options.suite} at {host.address}, project in {CHECKOUT}, {time.monotonic() - started:.1f} s"
            )
        elif options.verb == "copy":
            Host(options.name).copy_project(worktree=options.worktree)
        elif options.verb == "exec":
            command = options.command[1:] if options.command[:1] == ["--"] else options.command
            return subprocess.run(
                Host(options.name).argv(command or ["/bin/bash", "-l"]), cwd="/", check=False
            ).returncode
        elif options.verb == "destroy":
            if not options.all and not options.name:
                parser.error("destroy: give --name NAME or --all")
            for host in hosts() if options.all else [Host(options.name)]:
                host.destroy()
            remove_network()
        else:
            for host in hosts():
                print(f"{host.name:30} {host.state:8} {host.address if host.state != 'ABSENT' else 'half made'}")
    except HostError as wrong:
        print(f"host.py: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
