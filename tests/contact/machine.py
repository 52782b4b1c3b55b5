# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh machine that meets the project for the first time, and what the meeting leaves on it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import typing as t

from debian_root import Done
from host import CHECKOUT, HOSTS, Host

LIMIT = 1800.0
"""Seconds after which a command counts as hung."""
DEPLOYMENT = "tiny"
ZONE = "tiny1-memcached-1"
IMAGE = "memcached"
TOPOLOGY = """\
# One small image, one zone of it, and the load balancer that each deployment has.
plugin: zonestack.openstack.topology
release: "2026.2"
networks: {zone: {cidr: 10.198.0.0/21, bridge: zs-tiny}}
hosts: {tiny1: {id: 1, connection: local}}
cloud: {networks: {}, images: {}, flavors: {}}
services: {memcached: {count: 1}, haproxy: {count: 1}}
"""
STORE = "lxc/zonestack/images"
"""The images of a machine, below its home on the machine that runs the tests."""
VOLATILE = ("./var/log/journal", "./var/log/lastlog", "./var/log/wtmp", "./var/log/btmp", "./run", "./tmp")
"""Folders in which a machine writes without anybody's doing."""
FACTS = (
    "dpkg-query --show",
    "sysctl --all --pattern '^(fs.inotify|fs.aio-max|kernel.keys|net.ipv4.ip_forward|net.ipv4.neigh.default.gc)'",
    "ip -o link | sed 's/@.*//; s/.*: //' | sort",
    "ip -o -4 address | awk '{ print $2, $4 }'",
    "ip -4 route",
    "cat /proc/self/mounts | grep -v cgroup",
)


class Machine:
    """A host container with a checkout; commands run as root without a terminal unless said otherwise."""

    def __init__(self, name: str) -> None:
        self.host = Host(f"contact-{name}")
        self.checkout = CHECKOUT

    def create(self, suite: str = "trixie", **how: t.Any) -> Machine:
        """Make the machine anew, with the images that another one has built: each bears the hash of its content."""
        self.host.create(suite, **how)
        store = HOSTS / self.host.name / STORE
        for image in sorted(HOSTS.glob(f"contact-*/{STORE}/[!.]*")):
            if not (store / image.name).exists():
                store.mkdir(parents=True, exist_ok=True)
                draft = store / f".{image.name}"
                subprocess.run(["cp", "--archive", image, draft], check=True)
                draft.rename(store / image.name)  # another machine may look for one just now
        return self

    def nft(self, *arguments: str, rules: str | None = None) -> str:
        """nft of the outer machine in this one's network namespace: the machine itself may have none yet."""
        argv = ["nsenter", f"--net=/proc/{self.host.pid}/ns/net", "nft", *arguments]
        return subprocess.run(argv, input=rules, capture_output=True, text=True, check=True).stdout

    def place(self, checkout: str = CHECKOUT, umask: str = "022") -> None:
        """Put the checkout somewhere else, as the files lie here now."""
        self.checkout = checkout
        self.host.copy_project(worktree=True, target=checkout)
        if umask != "022":
            self.host.exec(f"chmod -R go-rwx {shlex.quote(checkout)}")

    def run(
        self, script: str, *, before: str = "", check: bool = False, env: t.Mapping[str, str] | None = None
    ) -> Done:
        """Run a command of the checkout. ``before``: shell commands before it; ``check``: whether it must succeed."""
        line = f"{before}\ncd {shlex.quote(self.checkout)} && exec {script}"
        # One cache for all checkouts of the machine, so that each does not fetch the same again.
        given = {"UV_CACHE_DIR": "/var/cache/uv", **(env or {})}
        return self.host.exec(["/bin/bash", "-c", line], timeout=LIMIT, check=check, env=given)

    def state(self) -> dict[str, set[str]]:
        """What somebody would see changed: files outside of the checkout, packages, settings, links, rules, mounts."""
        upper = HOSTS / self.host.name / "upper"
        skipped = [f"./{self.checkout.strip('/')}", *VOLATILE]
        prune = [word for path in skipped for word in ("-path", path, "-prune", "-o")]
        listed = ["find", ".", *prune, "!", "-type", "d", "-printf", "%p %m %U %s %T@\\n"]
        files = subprocess.run(listed, cwd=upper, capture_output=True, text=True, check=True).stdout
        folders = [upper.parent / "lxc"]
        zones = {str(path.relative_to(folders[0])) for path in folders[0].glob("*")}
        seen = {
            "files": set(files.splitlines()),
            "zones": zones,
            "rules": set(self.nft("list", "ruleset").splitlines()),
        }
        return seen | {command: set(self.host.exec(command).out.splitlines()) for command in FACTS}

    def changed(self, before: dict[str, set[str]]) -> list[str]:
        """What is there now and was not, and the other way round."""
        after = self.state()
        return [f"{what}: {line}" for what in before for line in sorted(before[what] ^ after[what])]

    def bootstrap(self, *arguments: str, **how: t.Any) -> Done:
        return self.run(shlex.join(["scripts/bootstrap-aio.sh", *arguments]), **how)

    def deploy(self, *, builds: bool, **how: t.Any) -> None:
        """One small image, and a zone of it that runs.

        :param builds: whether the image is built anew, where a row is about what a builder may miss; then the run is made again
            as well, which changes nothing. Otherwise the image is one that a row before has built.
        """
        folder = f"{self.checkout}/inventory/{DEPLOYMENT}"
        quoted = shlex.quote(folder)
        self.host.exec(
            f"mkdir -p {quoted}; cp -r {shlex.quote(self.checkout)}/inventory/aio/ca-certificates {quoted}/ 2>/dev/null || true"
        )
        self.host.exec(f"cat > {quoted}/topology.yml", input=TOPOLOGY)
        self.run(f"scripts/preflight.sh {DEPLOYMENT}", check=True, **how)
        images = HOSTS / self.host.name / STORE
        if builds:
            for path in images.glob(f"{IMAGE}-*"):
                shutil.rmtree(path)
        steps = f"scripts/run-playbooks.sh --deployment {DEPLOYMENT} --step hosts..zones"
        self.run(steps, check=True, **how)
        assert self.host.exec(f"lxc-info -n {ZONE} -sH").out.strip() == "RUNNING"
        assert len(list(images.glob(f"{IMAGE}-*"))) == 1
        if builds:
            again = self.run(steps, check=True, **how)
            assert "Nothing changed." in again.out, again.out

    def clear(self) -> None:
        """Take the zones, the deployments and the checkout away; images and packages stay."""
        self.host.exec("for zone in $(lxc-ls -1 2>/dev/null); do lxc-stop -k -n $zone; done", check=False)
        for path in (HOSTS / self.host.name / "lxc").glob("*"):
            if path.name != "zonestack":
                shutil.rmtree(path)
        # whose the deployment was is noted on the host: the next checkout has secrets of its own
        self.host.exec(["rm", "-rf", "/var/lib/zonestack/owners", self.checkout])
        self.checkout = CHECKOUT


def nobody_else() -> None:
    """Refuse to run where the tests cannot make a host."""
    if os.geteuid() or not shutil.which("mmdebstrap"):
        raise RuntimeError("first contacts need root, LXC and mmdebstrap on this machine")
