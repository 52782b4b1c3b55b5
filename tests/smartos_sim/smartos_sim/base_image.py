# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of a minimal Debian for zones of the simulated node: what images.smartos.org is for a real one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import time
import typing as t
import uuid as uuids
from pathlib import Path

from . import linux, lxc_config
from .files import ToolError, timestamp, write_json
from .state import State

PACKAGES = {
    "lx": ("init", "apt", "dbus", "ca-certificates", "iproute2", "iputils-ping", "netbase", "procps", "python3"),
    "joyent": ("apt", "ca-certificates", "iproute2", "iputils-ping", "netbase", "procps", "python3"),
}

PROVISIONED = """\
[Unit]
Description=Tell vmadm that the zone is provisioned
ConditionPathExists=/var/svc/provisioning
[Service]
Type=oneshot
ExecStart=/bin/mv /var/svc/provisioning /var/svc/provision_success
[Install]
WantedBy=multi-user.target
"""


def make(state: State, brand: str, suite: str, target: Path, include: list[str]) -> Path:
    """Make an image of a minimal Debian for zones of ``brand``, lx or joyent, in the directory ``target``: a manifest and a
    ZFS stream for ``imgadm install``. Returns the manifest's path.

    A joyent image has Debian's programs where SmartOS has its own; its init and its service management are the simulator's.
    """
    target.mkdir(parents=True, exist_ok=True)
    uuid = str(uuids.uuid4())
    dataset = f"zones/{uuid}-partial"
    linux.zfs("create", dataset)
    try:
        root = Path("/zones", f"{uuid}-partial", "root")
        # dpkg writes each file down to the disk, which zfs-fuse does slowly; so the root is made elsewhere.
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            built = Path(scratch, "root")
            argv = ["mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase"]
            argv += [f"--include={','.join([*PACKAGES[brand], *include])}", *_apt_options(), suite, str(built), "-"]
            done = subprocess.run(
                argv, input=_apt_sources(suite), text=True, capture_output=True, timeout=1800, check=False
            )
            if done.returncode:
                raise ToolError(f"mmdebstrap ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
            (_lx_root if brand == "lx" else _joyent_root)(built)
            root.mkdir()
            # Not access control lists, which zfs-fuse has not, and journald's directory has.
            linux.run("bash", "-c", f"set -o pipefail; tar -C {built} -cf - . | tar -C {root} -xf -", timeout=1800)
        linux.zfs("snapshot", f"{dataset}@final")
        name = f"debian-{suite}-{brand}"
        version = time.strftime("%Y%m%d.%H%M%S", time.gmtime())
        stream = target / f"{name}-{version}.zfs.gz"
        send = f"set -o pipefail; {linux.ZFS} send {dataset}@final | gzip -1 >{stream}"
        linux.run("bash", "-c", send, timeout=1800)
    finally:
        linux.Linux(state.directory).image_destroy(f"{uuid}-partial")
    digest = hashlib.sha1(usedforsecurity=False)
    with open(stream, "rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    manifest = {
        "v": 2,
        "uuid": uuid,
        "owner": "00000000-0000-0000-0000-000000000000",
        "name": name,
        "version": version,
        "state": "active",
        "disabled": False,
        "public": True,
        "published_at": timestamp(),
        "type": "lx-dataset" if brand == "lx" else "zone-dataset",
        "os": "linux" if brand == "lx" else "smartos",
        "files": [{"sha1": digest.hexdigest(), "size": stream.stat().st_size, "compression": "gzip"}],
        "description": "A minimal Debian for the simulated SmartOS node",
        "requirements": {"networks": [{"name": "net0", "description": "public"}]},
    }
    if brand == "lx":
        manifest["requirements"] = {**t.cast(dict[str, t.Any], manifest["requirements"]), "brand": "lx"}
    path = target / f"{name}-{version}.imgmanifest"
    write_json(path, manifest)
    return path


def _apt_sources(suite: str) -> str:
    """One-line sources for ``suite`` on the mirrors that this system uses."""
    found = linux.run("apt-get", "indextargets", "--format", "$(REPO_URI)|$(LABEL)", "Created-By: Packages")
    mirrors: dict[str, str] = {}
    for line in found.splitlines():
        uri, label = line.split("|")
        mirrors.setdefault(label, uri)
    lines = [f"deb {mirrors['Debian']} {suite} main", f"deb {mirrors['Debian']} {suite}-updates main"]
    if "Debian-Security" in mirrors:
        lines.append(f"deb {mirrors['Debian-Security']} {suite}-security main")
    return "".join(f"{line}\n" for line in lines)


def _apt_options() -> list[str]:
    """This system's proxies for apt."""
    dump = linux.run("apt-config", "dump").splitlines()
    return [f"--aptopt={line.rstrip(';')}" for line in dump if "::proxy" in line.lower() and '""' not in line]


def _lx_root(root: Path) -> None:
    linux.put(root / "etc/systemd/system/smartos-sim-provisioned.service", PROVISIONED)
    masked = ("console-getty", "getty-static", "systemd-udevd", "systemd-modules-load")
    for words in (["enable", "smartos-sim-provisioned"], ["mask", *(f"{name}.service" for name in masked)]):
        linux.run("chroot", str(root), "systemctl", *words)
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)


def _joyent_root(root: Path) -> None:
    linux.put(root / "var/zoneinit/zoneinit.json", json.dumps({"features": {"var_svc_provisioning": True}}) + "\n")
    python = next(root.glob("usr/bin/python3.[0-9]*"))
    link = root / "opt/local/bin" / python.name
    link.parent.mkdir(parents=True)
    link.symlink_to(f"/usr/bin/{python.name}")
    linux.run(str(lxc_config.CODE / "bin" / "svc.startd"), "--root", str(root), "--seed")
