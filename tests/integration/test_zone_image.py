# SPDX-License-Identifier: GPL-3.0-or-later
"""The module zone_image with real mmdebstrap and real builder containers. Needs root, LXC and a Debian archive."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import pathlib
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import typing as t

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.image import lxc as zone_image
from ansible_collections.zonestack.openstack.plugins.module_utils.image.archive import CHUNK
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.owners import shift_owners

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mmdebstrap"), reason="needs root, LXC and mmdebstrap"),
]

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIFT = 100_000
BRIDGE = "zsimgtest0"
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
    "tool": {"id": "tool-000000000000", "name": "tool", "parent": BASE, "commands": ["/run/build/uv > /made-by"]},
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

    def start(self, *names, umask=0o022, **params):
        arguments = {
            "images": [RECIPES[name] for name in names],
            "store": str(self.store),
            "network": self.network,
            "_ansible_remote_tmp": str(self.root),
            **params,
        }
        module = [sys.executable, "-m", "ansible_collections.zonestack.openstack.plugins.modules.zone_image"]
        process = subprocess.Popen(
            module, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.env, text=True, umask=umask
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        process.stdin.close()
        process.stdin = None
        return process

    def call(self, *names, **params):
        out, _ = self.start(*names, **params).communicate(timeout=300)
        return json.loads(out)

    def rootfs(self, name):
        return self.store / "images" / RECIPES[name]["id"] / "rootfs"


def clear(root):
    """Remove the store, and what a run that was killed may have left in it."""
    for builder in root.glob("zonestack/builders/*"):
        subprocess.run(["lxc-stop", "-P", str(builder.parent), "-n", builder.name, "-k"], check=False)
    if root.exists():
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def lab(bridge):
    root = pathlib.Path("/var/lib/lxc/img-test")
    clear(root)
    root.mkdir(mode=0o755)
    bridge(BRIDGE)
    try:
        made = Lab(root, BRIDGE)
        made.first = made.call("base", "good", "bad")
        yield made
    finally:
        clear(root)


def test_one_failure_names_image_step_and_log_and_spares_the_others(lab):
    assert lab.first["failed"] and "built" in lab.first, lab.first
    assert [image["name"] for image in lab.first["built"]] == ["base", "good"], lab.first["msg"]
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
    shift_owners(tmp_path, 0, zone_image.SHIFT)
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


def test_builders_reach_a_program_in_a_closed_folder(lab):
    """As in a checkout below /root, with a umask that closes what is made: root of a builder is nobody on the host."""
    closed = lab.root / "closed"
    closed.mkdir(mode=0o700)
    for text in ("one", "another"):
        shutil.rmtree(lab.store / "images" / RECIPES["tool"]["id"], ignore_errors=True)
        (closed / "uv").write_text(f"#!/bin/sh\necho {text}\n")
        (closed / "uv").chmod(0o700)
        made = lab.call("base", "tool", uv=str(closed / "uv"), umask=0o077)
        assert "msg" not in made, made["msg"]
        assert (lab.rootfs("tool") / "made-by").read_text() == f"{text}\n"
    assert [path.name for path in (lab.store / "cache/bin").iterdir()] == ["uv"]
    shutil.rmtree(lab.store / "images" / RECIPES["tool"]["id"])


def test_nothing_is_done_twice_and_check_mode_is_exact(lab):
    again = lab.call("base", "good")
    assert (again["changed"], again["built"]) == (False, [])
    forecast = lab.call("base", "good", "slow", _ansible_check_mode=True)
    assert [image["name"] for image in forecast["built"]] == ["slow"]
    assert forecast["diff"]["after"].splitlines() == [BASE, "good-000000000000", "slow-000000000000"]
    assert not lab.rootfs("slow").exists()


def until(condition, limit=180):
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


def snapshot(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """All that an image is made of, by path: kind, mode, owners, device, time, links, content, extended attributes."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for directory, names, files in os.walk(root):
        for name in ("", *names, *files):
            path = pathlib.Path(directory, name)
            info = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            same = first.setdefault(info.st_ino, str(path.relative_to(root)))
            found[str(path.relative_to(root))] = (
                info.st_mode,
                info.st_uid,
                info.st_gid,
                info.st_rdev,
                info.st_mtime_ns,
                same,
                content,
                attributes,
            )
    return found


def layer(store: pathlib.Path, image: str, parent: str | None) -> pathlib.Path:
    """An image with one of everything that tar could lose, without a build."""
    rootfs = store / "images" / image / "rootfs"
    (rootfs / "usr/bin").mkdir(parents=True)
    (rootfs / "usr/bin/ping").write_bytes(b"\0" * 50_000 + b"x")
    os.link(rootfs / "usr/bin/ping", rootfs / "usr/bin/ping4")
    (rootfs / "usr/bin/su").write_text("su")
    (rootfs / "naïve file").symlink_to("/absent")
    (rootfs / "opaque").mkdir()
    os.setxattr(rootfs / "opaque", "user.overlay.opaque", b"y")
    os.mknod(rootfs / "gone", stat.S_IFCHR, 0)
    shift_owners(rootfs, 0, zone_image.SHIFT)
    os.chmod(rootfs / "usr/bin/su", 0o4755)
    os.setxattr(rootfs / "usr/bin/ping", "security.capability", struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, SHIFT))
    os.utime(rootfs / "usr", ns=(1, 1_700_000_000_123_456_789))
    (store / "images" / image / "manifest.json").write_text(json.dumps({"id": image, "parent": parent}))
    return rootfs


def test_an_image_arrives_at_another_host_as_it_was(tmp_path):
    """One store packs, another unpacks; between them is a folder over HTTP, and a call that is killed on the way."""
    one, two = Lab(tmp_path / "one", "none"), Lab(tmp_path / "two", "none")
    ids = [RECIPES[name]["id"] for name in ("base", "good")]
    for image, parent in zip(ids, (None, BASE), strict=True):
        layer(one.store, image, parent)
    served = tmp_path / "volumes/repo/images"
    keep = {"path": str(served), "keep": ids}
    forecast = one.call("base", "good", archives=keep, network=None, _ansible_check_mode=True)
    assert (forecast["archived"], forecast["built"], served.exists()) == (ids, [], False)
    packed = one.call("base", "good", archives=keep, network=None)
    assert (packed["archived"], packed["changed"]) == (ids, True)
    assert not one.call("base", "good", archives=keep, network=None)["changed"]

    argv = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(served.parent), "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            origin = server.stdout.readline().split("(")[1].split(")")[0] + "images"
            fetch = {"path": str(tmp_path / "two/archives"), "origins": ["http://127.0.0.1:1/images", origin]}
            left = two.store / "images/.good-000000000000.1"
            left.mkdir(parents=True)
            (left / "half").write_text("")
            forecast = two.call("base", "good", archives=fetch, network=None, _ansible_check_mode=True)
            got = two.call("base", "good", archives=fetch, network=None)
        finally:
            server.terminate()
    assert [image["id"] for image in forecast["fetched"]] == [image["id"] for image in got["fetched"]] == ids
    assert (got["built"], got["cleaned"], got["present"]) == ([], [left.name], ids)
    for image in ids:
        assert snapshot(two.store / "images" / image / "rootfs") == snapshot(one.store / "images" / image / "rootfs")
    assert list((tmp_path / "two/archives").iterdir()) == [], "nobody fetches from this host"
    assert not two.call("base", "good", archives=fetch, network=None)["changed"], (
        "an origin that is away is not asked in vain"
    )

    removed = one.call(state="pruned", keep=[BASE], archives={"path": str(served)})
    assert sorted(removed["cleaned"]) == ["good-000000000000"]
    assert sorted(path.name for path in served.iterdir()) == [f"{BASE}.archive", f"{BASE}.json"]


class Stalling(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; as long as ``half`` is set, only the first half of an archive. ``ranges`` says what was asked for."""

    half = True
    ranges: t.ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        if not self.path.endswith(".archive"):
            return super().do_GET()
        data, wanted = pathlib.Path(self.translate_path(self.path)).read_bytes(), self.headers.get("Range")
        self.ranges.append(wanted)
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if not self.half:
            self.wfile.write(data[begin:])
            return None
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        return time.sleep(60)


def test_a_killed_fetch_goes_on_where_it_ended(tmp_path):
    one, two = Lab(tmp_path / "one", "none"), Lab(tmp_path / "two", "none")
    rootfs = layer(one.store, BASE, None)
    (rootfs / "noise").write_bytes(os.urandom(3_000_000))
    served = tmp_path / "images"
    one.call(archives={"path": str(served), "keep": [BASE]})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Stalling, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fetch = {"path": str(tmp_path / "two/archives"), "origins": [f"http://127.0.0.1:{server.server_port}/images"]}
    assert (served / f"{BASE}.archive").stat().st_size > 2 * CHUNK, "half of it is more than one piece"
    process = two.start("base", archives=fetch, network=None)
    try:
        until(lambda: sum(path.stat().st_size for path in (tmp_path / "two/archives").glob(".*.part")) == CHUNK)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (two.store / "images" / BASE).exists()
    Stalling.half = False
    try:
        got = two.call("base", archives=fetch, network=None)
    finally:
        server.shutdown()
        server.server_close()
    assert [image["id"] for image in got["fetched"]] == [BASE]
    assert Stalling.ranges == [None, f"bytes={CHUNK}-"]
    assert snapshot(two.store / "images" / BASE / "rootfs") == snapshot(rootfs)


def test_what_no_archive_is_does_not_become_an_image(tmp_path):
    lab, image = Lab(tmp_path / "one", "none"), RECIPES["base"]["id"]
    folder = tmp_path / "bundle"
    layer(lab.store, "other-000000000000", None)
    lab.call(archives={"path": str(folder), "keep": ["other-000000000000"]})
    for suffix in ("archive", "json"):
        (folder / f"other-000000000000.{suffix}").rename(folder / f"{image}.{suffix}")
    refused = lab.call("base", archives={"path": str(folder)}, network=None)
    assert "holds other-000000000000" in refused["msg"]
    assert refused["present"] == ["other-000000000000"]
    (folder / f"{image}.archive").write_bytes(b"x" * (folder / f"{image}.archive").stat().st_size)
    assert (
        "does not match the digest in its note" in lab.call("base", archives={"path": str(folder)}, network=None)["msg"]
    )
    assert sorted(path.name for path in (lab.store / "images").iterdir()) == ["other-000000000000"]
