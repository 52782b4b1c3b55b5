# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a host container a simulated SmartOS node with real zones (tests/smartos_sim/LINUX.md), and give it base images.

A base image takes minutes, so each is kept below :data:`host.BASE` for as long as its recipe is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import typing as t

from debian_root import BASE
from host import PROJECT, Host

SIM = PROJECT / "tests" / "smartos_sim"
CHECKOUT = "/opt/zonestack"
"""Where the project lies on a node: on its pool, for /root is a part of its ramdisk and as new after each boot."""
PACKAGES = ("zfs-fuse", "lxc", "python3", "mmdebstrap", "nftables", "xz-utils")
IMAGES = "/var/tmp/images"  # noqa: S108 - of the host container, which is ours alone
CACHE = BASE / "smartos-images"
ADDRESS = "10.88.0.1"
"""Of a node, where its own zones and SSH reach it."""
KEY = f"""
test -e ~/.ssh/id_ed25519 || {{ mkdir -p -m 0700 ~/.ssh; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519; }}
cat ~/.ssh/id_ed25519.pub >>~/.ssh/authorized_keys; ssh-keyscan -t ed25519 {ADDRESS} >~/.ssh/known_hosts
"""


def make_node(name: str, *options: str) -> Host:
    """A fresh host container of Debian 12, the last one with zfs-fuse, that is a node; ``options`` are those of smartos-sim init."""
    host = Host(name).create("bookworm")
    host.copy_project(worktree=True, target=CHECKOUT)
    host.exec("apt-get update -q", timeout=300)
    # The package lxc would lower the limits of the one kernel, below what a deployment in another host container has set.
    install = "apt-get install -qy --no-install-recommends -o 'DPkg::Options::=--path-exclude=/etc/sysctl.d/*'"
    host.exec(f"DEBIAN_FRONTEND=noninteractive {install} {' '.join(PACKAGES)}", timeout=600)
    init_node(host, *options)
    return host


@contextlib.contextmanager
def a_node(name: str, *options: str) -> t.Iterator[Host]:
    """Make a node and remove it in the end; or take the one named in ZONESTACK_SMARTOS_HOST as it is, and leave it."""
    given = os.environ.get("ZONESTACK_SMARTOS_HOST")
    if not given:
        host = make_node(name, *options)
        try:
            yield host
        finally:
            host.destroy()
        return
    host = Host(given)
    host.copy_project(worktree=True, target=CHECKOUT)
    init_node(host, *options)
    yield host


def init_node(host: Host, *options: str) -> None:
    """Have the node's pool, networks and tools, whatever of it is missing."""
    host.exec([f"{CHECKOUT}/tests/smartos_sim/bin/smartos-sim", "init", *options], timeout=300)


def base_image(host: Host, brand: str, suite: str = "bookworm") -> str:
    """Install an image of a minimal Debian for zones of ``brand``, made if there is none yet; its UUID."""
    recipe = [SIM / "smartos_sim" / "base_image.py", *sorted((SIM / "smartos_sim" / "smf").rglob("*.*"))]
    content = b"".join(path.read_bytes() for path in recipe if "__pycache__" not in path.parts)
    cache = CACHE / f"{brand}-{suite}-{hashlib.sha256(content).hexdigest()[:12]}"
    folder = f"{IMAGES}/{brand}-{suite}"
    host.exec(f"rm -rf {folder}; mkdir -p {IMAGES}")
    if cache.is_dir():
        host.copy_tree(cache, folder)
    else:
        host.exec(["smartos-sim", "base-image", "--brand", brand, "--suite", suite, "--output", folder], timeout=1800)
        for old in CACHE.glob(f"{brand}-{suite}-*"):
            shutil.rmtree(old)
        building = CACHE / f".building-{host.name}"  # another host may be given its images meanwhile
        shutil.rmtree(building, ignore_errors=True)
        host.fetch(f"-C {folder} .", building)
        if not cache.is_dir():
            building.rename(cache)
    manifest = host.exec(f"ls {folder}/*.imgmanifest").out.strip()
    host.exec(["imgadm", "install", "-m", manifest, "-f", manifest.replace(".imgmanifest", ".zfs.gz")], timeout=300)
    uuid: str = json.loads(host.exec(["cat", manifest]).out)["uuid"]
    return uuid


def make_control(host: Host, name: str, topology: str) -> None:
    """Make a node the control machine of a deployment too, which reaches the global zone by SSH as it would any other."""
    folder = f"{CHECKOUT}/inventory/{name}"
    host.exec(f"mkdir -p {folder}/group_vars && cat >{folder}/topology.yml", input=topology)
    # YAML as JSON, as this is used without any package
    host.exec(
        f"cat >{folder}/group_vars/smartos_hosts.yml",
        input=json.dumps({"zone_image_seed": {"uuid": base_image(host, "lx", "trixie")}}),
    )
    host.exec(KEY)
    host.exec([f"{CHECKOUT}/scripts/bootstrap-control.sh", name], timeout=900)
