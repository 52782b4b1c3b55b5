# SPDX-License-Identifier: GPL-3.0-or-later
"""The module zone_image with real mmdebstrap and real builder containers. Needs root, LXC and a Debian archive."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils import zone_image

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mmdebstrap"), reason="needs root, LXC and mmdebstrap"),
]

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIFT = 100_000
BASE = "base-000000000000"
RECIPES = {
    "base": {
        "id": BASE,
        "name": "base",
        "suite": "trixie",
        "packages": ["systemd"],
        "commands": ["touch /base"],
    },
    "good": {
        "id": "good-000000000000",
        "name": "good",
        "parent": BASE,
        "user": "keeper",
        "commands": ["rm -r /usr/share/perl5/Debconf", "echo noise > /var/log/noise"],
        "files": {"/etc/good/file": "it's\n$HOME\n"},
    },
    "bad": {"id": "bad-000000000000", "name": "bad", "parent": BASE, "commands": ["echo told-why >&2; exit 3"]},
    "slow": {"id": "slow-000000000000", "name": "slow", "parent": BASE, "commands": ["sleep 300"]},
}


class Lab:
    """A store of its own and a bridge without a way out, which is all that these recipes need."""

    def __init__(self, root: pathlib.Path, bridge: str):
        self.root, self.store = root, root / "zonestack"
        self.network = {
            "bridge": bridge,
            "prefix": 24,
            "gateway": "10.254.253.1",
            "addresses": ["10.254.253.2", "10.254.253.3"],
        }
        links = root / "python/ansible_collections/zonestack"
        links.mkdir(parents=True)
        (links / "openstack").symlink_to(ROOT)
        self.env = {**os.environ, "PYTHONPATH": f"{root}/python"}

    def start(self, *names, **params):
        arguments = {
            "images": [RECIPES[name] for name in names],
            "store": str(self.store),
            "network": self.network,
            "_ansible_remote_tmp": str(self.root),
            **params,
        }
        module = [sys.executable, "-m", "ansible_collections.zonestack.openstack.plugins.modules.zone_image"]
        process = subprocess.Popen(module, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.env, text=True)
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        process.stdin.close()
        process.stdin = None
        return process

    def call(self, *names, **params):
        out, _ = self.start(*names, **params).communicate(timeout=300)
        return json.loads(out)

    def rootfs(self, name):
        return self.store / "images" / RECIPES[name]["id"] / "rootfs"


@pytest.fixture(scope="module")
def lab():
    root = pathlib.Path(f"/var/lib/lxc/img-test-{os.getpid()}")
    root.mkdir(mode=0o755)
    bridge = f"zsi{os.getpid()}"
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
        made = Lab(root, bridge)
        made.first = made.call("base", "good", "bad")
        yield made
    finally:
        for builder in root.glob("zonestack/builders/*"):
            subprocess.run(["lxc-stop", "-P", str(builder.parent), "-n", builder.name, "-k"], check=False)
        subprocess.run(["ip", "link", "del", bridge], check=True)
        shutil.rmtree(root)


def test_one_failure_names_image_step_and_log_and_spares_the_others(lab):
    assert lab.first["failed"]
    assert [image["name"] for image in lab.first["built"]] == ["base", "good"]
    message = lab.first["msg"]
    assert "image bad-000000000000: run command 1: exit code 3" in message
    assert "told-why" in message
    assert str(lab.store / "log/bad-000000000000.log") in message
    assert sorted(path.name for path in (lab.store / "images").iterdir()) == [BASE, "good-000000000000"]
    assert list((lab.store / "builders").iterdir()) == []


def test_base_belongs_to_the_zones_root(lab):
    root = lab.rootfs("base")
    owners = {os.lstat(os.path.join(d, n)).st_uid for d, names, files in os.walk(root) for n in (*names, *files)}
    assert min(owners) == SHIFT
    su = os.stat(root / "usr/bin/su")
    assert (su.st_uid, bool(su.st_mode & stat.S_ISUID)) == (SHIFT, True)


def test_shift_keeps_set_id_bits_capabilities_and_hard_links(tmp_path):
    (tmp_path / "file").write_text("")
    os.link(tmp_path / "file", tmp_path / "link")
    os.chown(tmp_path / "file", 5, 6)
    os.chmod(tmp_path / "file", 0o6755)
    # CAP_NET_RAW, permitted and effective, in revision 2 (capabilities(7))
    os.setxattr(tmp_path / "file", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    (tmp_path / "dangling").symlink_to("/absent")
    zone_image.shift_owners(str(tmp_path))
    info = os.stat(tmp_path / "link")
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (SHIFT + 5, SHIFT + 6, 0o6755)
    shifted = struct.unpack("<6I", os.getxattr(tmp_path / "link", "security.capability"))
    assert shifted == (0x03000001, 1 << 13, 0, 0, 0, SHIFT)
    assert os.lstat(tmp_path / "dangling").st_uid == SHIFT


def test_base_is_ready_to_be_cloned(lab):
    root = lab.rootfs("base")
    assert os.readlink(root / "etc/systemd/system/systemd-networkd-wait-online.service") == "/dev/null"
    assert (root / "etc/machine-id").read_text() == ""
    assert not (root / "etc/hostname").exists()
    assert list((root / "var/lib/apt/lists").iterdir()) == []
    assert not (root / "etc/apt/apt.conf.d/99mmdebstrap").exists()
    assert os.stat(root / "etc/.updated").st_mtime >= os.stat(root / "usr").st_mtime
    assert (root / "base").exists()


def test_child_is_a_layer_of_its_own_changes(lab):
    root = lab.rootfs("good")
    assert (root / "etc/good/file").read_text() == "it's\n$HOME\n"
    assert "keeper:" in (root / "etc/passwd").read_text()
    assert stat.S_ISCHR(os.lstat(root / "usr/share/perl5/Debconf").st_mode), "a removed directory is a whiteout"
    assert not (root / "usr/bin/su").exists()
    assert not (root / "var/log/noise").exists()
    assert not (root / "run").exists()
    assert (root / "var/.updated").exists()
    assert os.stat(root).st_uid == SHIFT


def test_nothing_is_done_twice_and_check_mode_is_exact(lab):
    again = lab.call("base", "good")
    assert (again["changed"], again["built"]) == (False, [])
    forecast = lab.call("base", "good", "slow", _ansible_check_mode=True)
    assert [image["name"] for image in forecast["built"]] == ["slow"]
    assert forecast["diff"]["after"].splitlines() == [BASE, "good-000000000000", "slow-000000000000"]
    assert not lab.rootfs("slow").exists()


def until(condition, limit=30):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit} s"
        time.sleep(0.05)


def test_a_killed_build_leaves_nothing_and_holds_nobody_up(lab):
    log = lab.store / "log/slow-000000000000.log"
    process = lab.start("slow")
    try:
        until(lambda: log.exists() and "run command 1" in log.read_text())
        blocked = lab.call("bad", timeout=0)
        assert f"lock: held by process {process.pid}" in blocked["msg"]
        assert lab.call("good")["cleaned"] == [], "what is being built is no leftover"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not lab.rootfs("slow").exists()
    builders = ["lxc-ls", "-P", str(lab.store / "builders"), "--running", "-1"]
    assert subprocess.check_output(builders, text=True).split() == ["builder-slow-000000000000"]
    forecast = lab.call("good", _ansible_check_mode=True)["cleaned"]
    cleaned = lab.call("good")
    assert cleaned["changed"]
    assert cleaned["cleaned"] == forecast == [f".slow-000000000000.{process.pid}", "builder-slow-000000000000"]
    assert subprocess.check_output(builders, text=True).split() == []
    assert not lab.call("good")["changed"]


def test_prune_spares_what_a_zone_uses(lab):
    zone = lab.root / "zone"
    zone.mkdir()
    (zone / "zone.json").write_text('{"image": "good-000000000000"}')
    assert lab.call(state="pruned")["removed"] == []
    shutil.rmtree(zone)
    assert [image["id"] for image in lab.call(state="pruned", keep=[BASE], _ansible_check_mode=True)["removed"]] == [
        "good-000000000000"
    ]
    assert lab.rootfs("good").exists()
    removed = lab.call(state="pruned")["removed"]
    assert [image["id"] for image in removed] == ["good-000000000000", BASE]
    assert removed[1]["bytes"] > 50_000_000
    with contextlib.suppress(FileNotFoundError):
        assert list((lab.store / "images").iterdir()) == []
