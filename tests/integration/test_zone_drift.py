# SPDX-License-Identifier: GPL-3.0-or-later
"""What was changed by hand in a zone: found in a real overlay's upper directory, and alike in a whole tree."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.drift import STATE, is_state, zone_drift
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc_root import STORES, Images

pytestmark = [pytest.mark.lxc, pytest.mark.skipif(os.geteuid() != 0, reason="mounts overlays, so it needs to be root")]

UUID = "e803f43e-f2a9-5cf9-8a3d-cf5773e1db6f"
SITE = "/opt/app/lib/python3.13/site-packages"
BASE = {
    "/etc/passwd": "root:x:0:0::/:\napp:x:7:8::/:\n",
    "/etc/group": "root:x:0:\napp:x:8:\n",
    "/etc/app.conf": "a = 1\n",
    "/etc/gone": "gone\n",
    "/etc/hidden-by-the-service": "base\n",
    "/etc/folder/one": "1\n",
    "/etc/folder/two": "2\n",
    "/usr/bin/tool": "tool\n",
    "/usr/share/doc/app/README": "read\n",
    "/var/lib/dpkg/status": "Package: app\n",
    "/var/lib/dpkg/info/app.list": "/.\n/etc/app.conf\n/bin/tool\n/etc/folder/one\n",
    "/var/lib/keeps": "state\n",
}
SERVICE = {
    f"{SITE}/app/main.py": "main\n",
    f"{SITE}/app-1.0.dist-info/RECORD": "app/main.py,sha256=x,5\n",
    "/etc/same": "same\n",
}


def tree(root: Path, files: dict[str, str]) -> None:
    for path, content in files.items():
        target = root / path.strip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(0o644)


def rendered(**more: object) -> dict[str, object]:
    """What a run writes, and the record that it leaves."""
    return {"uuid": UUID, "files": {}, "directories": {}, "units": {"app.service": "0123"}, **more}


def file(content: str, mode: str = "0644", owner: str = "root", group: str = "root") -> dict[str, str]:
    return {"sha256": hashlib.sha256(content.encode()).hexdigest(), "mode": mode, "owner": owner, "group": group}


class Lxc:
    """A folder as LXC's with two images and a zone of the upper one, whose files are changed as in the zone."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store = folder, store
        images = folder / "zonestack/images"
        for name, parent, files in (("base-1", None, BASE), ("app-1", "base-1", SERVICE)):
            tree(images / name / "rootfs", files)
            (images / name / "manifest.json").write_text(json.dumps({"parent": parent}))
        os.mknod(images / "app-1/rootfs/etc/hidden-by-the-service", 0o020000, os.makedev(0, 0))
        (images / "base-1/rootfs/etc/stays").write_text("stays\n")
        zone = folder / "a-1"
        zone.mkdir()
        spec = {
            "name": "a-1",
            "uuid": UUID,
            "image": "app-1",
            "store": store,
            "privileged": True,
            "volumes": {"data": {"path": "/srv/data"}},
        }
        (zone / "zone.json").write_text(json.dumps(spec))
        (folder / "zonestack/volumes/a-1/data").mkdir(parents=True)
        self.images = Images(images)
        self.root = STORES[store](self.images, folder / "roots").build(zone, "a-1", self.images.chain("app-1"), 0)

    def run(self, script: str) -> None:
        """A shell in the zone's root, mounted where nobody else sees it."""
        mount = "mount --bind $1 /mnt"
        if self.store == "overlay":
            lowers = ":".join(str(layer.rootfs) for layer in self.images.chain("app-1"))
            mount = f"mount -t overlay overlay -o userxattr,lowerdir={lowers},upperdir=$1,workdir={self.folder}/a-1/work /mnt"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", f"{mount}\ncd /mnt\n{script}", "sh", str(self.root)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def found(self, want: dict[str, object] | None = None) -> list[tuple[str, ...]]:
        return [tuple(one.plain().values()) for one in zone_drift(self.folder, "a-1", want or rendered())]


@pytest.fixture(params=["overlay", "dir"])
def zone(request: pytest.FixtureRequest, tmp_path: Path) -> Lxc:
    made = Lxc(tmp_path, request.param)
    made.run("mkdir -p etc/zonestack/digests srv/data; echo 0123 >etc/zonestack/digests/app.service")
    return made


def test_a_zone_that_nobody_touched_has_no_findings(zone: Lxc) -> None:
    zone.run(
        "echo x >var/lib/keeps; mkdir -p var/log run tmp; echo x >var/log/app; echo x >etc/resolv.conf; touch etc/.pwd.lock"
    )
    zone.run(f"mkdir .{SITE}/app/__pycache__; echo x >.{SITE}/app/__pycache__/main.pyc")
    zone.run("chmod 0600 etc/same; chmod 0644 etc/same; touch -r etc/passwd etc/stays")
    zone.run(
        "mkdir -p etc/systemd/system/multi-user.target.wants; ln -s /x etc/systemd/system/multi-user.target.wants/app.service"
    )
    (zone.folder / "zonestack/volumes/a-1/data/rows").write_text("data")
    assert zone.found() == []


def test_what_somebody_changed_is_listed_with_the_one_it_belongs_to(zone: Lxc) -> None:
    zone.run(f"echo a = 2 >etc/app.conf; chmod u+s usr/bin/tool; chown 7:8 etc/same; echo x >>.{SITE}/app/main.py")
    zone.run(
        "mkdir -p opt/own/deep; echo 1 >opt/own/deep/file; echo 1 >etc/added; rm etc/stays; ln -s /etc/added etc/stays"
    )
    assert zone.found() == [
        ("/etc/added", "added", "nobody", ""),
        ("/etc/app.conf", "changed", "package app", "content"),
        ("/etc/same", "changed", "nobody", "owner 7:8, not 0:0"),
        ("/etc/stays", "changed", "nobody", "is a link, was a file"),
        (f"{SITE}/app/main.py", "changed", "Python package app", "content"),
        ("/opt/own/", "added", "nobody", "2 entries"),
        ("/usr/bin/tool", "changed", "package app", "mode 4644, not 0644"),
    ]


def test_what_somebody_removed_is_listed_also_when_something_took_its_place(zone: Lxc) -> None:
    zone.run("rm etc/gone; rm -r usr/share/doc; rm -r etc/folder; mkdir etc/folder; echo 1 >etc/folder/new")
    assert zone.found() == [
        ("/etc/folder/new", "added", "nobody", ""),
        ("/etc/folder/one", "removed", "package app", ""),
        ("/etc/folder/two", "removed", "nobody", ""),
        ("/etc/gone", "removed", "nobody", ""),
        ("/usr/share/doc", "removed", "nobody", ""),
    ]


def test_a_package_that_somebody_installed_is_told_as_such(zone: Lxc) -> None:
    zone.run(
        "echo Package: strace >>var/lib/dpkg/status; echo x >usr/bin/strace; echo /usr/bin/strace >var/lib/dpkg/info/strace.list"
    )
    assert zone.found() == [
        ("/usr/bin/strace", "added", "package strace, installed by hand", ""),
        ("/var/lib/dpkg/status", "changed", "nobody", "content"),
    ]


def test_what_a_run_wrote_is_compared_with_what_it_would_write(zone: Lxc) -> None:
    zone.run(
        "mkdir -p etc/app.d var/lib/app; for name in right wrong mode; do echo 1 >etc/app.d/$name; done; echo 1 >var/lib/app/cookie"
    )
    zone.run("chmod 0640 etc/app.d/mode; chgrp 8 etc/app.d/mode; chmod 0700 etc/app.d")
    (zone.folder / "zonestack/volumes/a-1/data/key").write_text("2\n")
    files = {
        f"/etc/app.d/{name}": file("1\n", **more)
        for name, more in {
            "right": {},
            "wrong": {"mode": "0600"},
            "mode": {"mode": "0640", "group": "app"},
            "missing": {},
        }.items()
    }
    files |= {
        "/var/lib/app/cookie": file("2\n"),
        "/srv/data/key": file("1\n"),
        "/etc/same": file("same\n"),
        "/etc/gone": file("gone\n"),
        "/etc/app.conf": file("other\n"),
    }
    want = rendered(files=files, directories={"/etc/app.d": {"mode": "0750", "owner": "root", "group": "root"}})
    zone.run("rm etc/gone")
    owner = "a run, then changed by hand"
    expected = [
        ("/etc/app.conf", "changed", owner, "content"),
        ("/etc/app.d", "changed", owner, "mode 0700, not 0750"),
        ("/etc/app.d/missing", "removed", owner, "not there"),
        ("/etc/app.d/wrong", "changed", owner, "mode 0644, not 0600"),
        ("/etc/gone", "removed", owner, ""),
        ("/srv/data/key", "changed", owner, "content"),
        ("/var/lib/app/cookie", "changed", owner, "content"),
    ]
    found = zone.found(want)
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    assert dict.fromkeys(one[3] for one in found if one[0] != "/etc/gone") == dict.fromkeys(
        one[3] for one in expected if one[0] != "/etc/gone"
    )
    # The deployment has changed since: nobody's hand can be told from the run that is to come.
    assert {one[2] for one in zone.found({**want, "units": {"app.service": "4567"}})} == {
        "a run; the next one writes it anew"
    }


def test_a_zone_that_cannot_be_compared_is_refused(zone: Lxc) -> None:
    with pytest.raises(ZoneError, match="it is not on this host: a run creates it"):
        zone_drift(zone.folder, "b-1", rendered())
    with pytest.raises(ZoneError, match="belongs to another deployment"):
        zone_drift(zone.folder, "a-1", rendered(uuid="0"))
    (zone.folder / "zonestack/images/base-1/manifest.json").unlink()
    with pytest.raises(ZoneError, match="'base-1' is not on this host"):
        zone.found()
    (zone.folder / "a-1/zone.json").write_text("{")
    with pytest.raises(ZoneError, match="zone.json cannot be read"):
        zone.found()


@pytest.mark.parametrize(
    ("path", "state"),
    [
        ("/var/lib/mysql/rows", True),
        ("/var/lib", True),
        ("/var/lib/dpkg/status", False),
        ("/var/library", False),
        ("/etc/resolv.conf", True),
        ("/etc/resolv.conf.d/x", False),
        ("/opt/a/__pycache__/b.pyc", True),
        ("/opt/a/b.pyc", False),
        ("/root/.cache/x", True),
        ("/root/.bashrc", False),
    ],
)
def test_state_is_declared(path: str, state: bool) -> None:
    assert is_state(path) is state
    assert all(why is None or why for _pattern, why in STATE)
