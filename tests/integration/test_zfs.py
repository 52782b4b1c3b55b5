# SPDX-License-Identifier: GPL-3.0-or-later
"""The module zfs with a real ZFS: this machine's, or zfs-fuse in a host container where it has none.

What every call must keep to (check mode is exact, the second call changes nothing) is in tests/conftest.py. 33 is the
shortcoming of the public module (issue 4) that a test would show.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ansible
import pytest

from host import Host

ROOT = Path(__file__).resolve().parents[2]
POOL = "zstest"
HERE = (
    shutil.which("zpool") is not None
    and subprocess.run(["zpool", "list"], capture_output=True, check=False).returncode == 0
)
CONTAINER = all(map(shutil.which, ("lxc-start", "mmdebstrap", "nft"))) and Path("/dev/fuse").exists()

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (HERE or CONTAINER), reason="needs root, and ZFS or LXC with /dev/fuse"
    ),
]


class Machine:
    """A machine with ZFS, a pool on a file, and the modules as Ansible would bring them there."""

    def __init__(self, folder, host=None):
        self.folder, self.host = folder, host
        self.fuse = "fuse" in self.sh("readlink -f $(command -v zfs-fuse) || true").stdout
        self.sh(f"truncate -s 256M {folder}/pool.img && zpool create {POOL} {folder}/pool.img")

    def sh(self, command, check=True, given=None):
        argv = ["sh", "-c", command] if self.host is None else self.host.argv(command)
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=600, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done

    def module(self, **options):
        name = "ansible_collections.zonestack.openstack.plugins.modules.zfs"
        python = sys.executable if self.host is None else "python3"
        given = json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_remote_tmp": self.folder, **options}})
        return json.loads(
            self.sh(f"cd / && PYTHONPATH={self.folder}/python {python} -m {name}", check=False, given=given).stdout
        )

    def get(self, name, what):
        return self.sh(f"zfs get -H -p -o value,source {what} {name}").stdout.strip().split("\t")

    def names(self):
        return self.sh(f"zfs list -H -o name -t filesystem,volume,snapshot -r {POOL}").stdout.split()


def lay_out(folder):
    """What a module needs of Ansible and of the collection, below one directory for PYTHONPATH."""
    (folder / "ansible").mkdir(parents=True)
    # Ansible sends its modules along with such a file too; its own would want all of Ansible.
    (folder / "ansible/__init__.py").write_text(
        f"__version__ = {ansible.__version__!r}\n__author__ = 'Ansible, Inc.'\n"
    )
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(ansible.__file__).parent / "module_utils", folder / "ansible/module_utils", ignore=ignored)
    for part in ("modules", "module_utils"):
        shutil.copytree(
            ROOT / "plugins" / part, folder / "ansible_collections/zonestack/openstack/plugins" / part, ignore=ignored
        )


@pytest.fixture(scope="module")
def machine():
    with tempfile.TemporaryDirectory(prefix="zonestack-zfs-") as scratch:
        lay_out(Path(scratch, "python"))
        if HERE:
            try:
                yield Machine(scratch)
            finally:
                subprocess.run(["zpool", "destroy", POOL], check=False)
            return
        host = Host(f"zfs-{os.getpid()}")
        try:
            host.create("bookworm")
            # The package's own start script gives up where it may not change its score for the OOM killer.
            host.exec("printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d")
            quiet = {"DEBIAN_FRONTEND": "noninteractive"}
            host.exec(
                "apt-get update -qq && apt-get install -qq --yes --no-install-recommends zfs-fuse python3",
                timeout=300,
                env=quiet,
            )
            host.exec(
                "systemd-run --quiet --unit=zfs-daemon zfs-fuse --no-daemon && until zpool list; do sleep 0.1; done",
                timeout=120,
            )
            host.copy_tree(Path(scratch), "/opt/zfs-test")
            yield Machine("/opt/zfs-test", host)
        finally:
            host.destroy()


@pytest.fixture
def fs(machine, request):
    """A file system of its own for each test, with whatever it left gone before the next one."""
    name = f"{POOL}/{request.node.name.replace('[', '-').replace(']', '')[:60]}"
    machine.sh(f"zfs create {name}")
    return name


def test_file_system_with_properties(machine, fs, settle):
    done = settle(
        machine.module, name=f"{fs}/a", properties={"quota": "10M", "atime": False, "org.example:why": "it's needed"}
    )
    assert done["actions"] == [f"zfs create -o quota=10M -o atime=off -o 'org.example:why=it'\"'\"'s needed' {fs}/a"]
    assert done["dataset"]["properties"]["quota"] == {"value": 10 * 1024**2, "source": "local"}
    assert machine.get(f"{fs}/a", "org.example:why") == ["it's needed", "local"]


@pytest.mark.parametrize("size", ["10M", "10m", "10MB", "10240K", 10485760, "10485760"])
def test_33_one_size_however_it_is_written(machine, fs, size):
    machine.sh(f"zfs set quota=10M {fs}")
    assert machine.module(name=fs, properties={"quota": size}, _ansible_check_mode=True)["changed"] is False


def test_no_limit_however_it_is_written(machine, fs, settle):
    for nothing in ("none", 0, "0"):
        assert machine.module(name=fs, properties={"quota": nothing, "refreservation": nothing})["changed"] is False
    machine.sh(f"zfs set quota=10M {fs}")
    assert settle(machine.module, name=fs, properties={"quota": "none"})["actions"] == [f"zfs set quota=none {fs}"]


def test_33_what_is_inherited_as_wanted_stays_inherited(machine, fs, settle):
    machine.sh(f"zfs set compression=gzip {fs}; zfs set org.example:team=db {fs}; zfs create {fs}/old")
    wanted = {"compression": "gzip-6", "org.example:team": "db"}
    assert settle(machine.module, name=f"{fs}/old", properties=wanted)["changed"] is False
    assert settle(machine.module, name=f"{fs}/new", properties=wanted)["actions"] == [f"zfs create {fs}/new"]
    for child in ("old", "new"):
        assert machine.get(f"{fs}/{child}", "compression") == ["gzip", f"inherited from {fs}"]


def test_a_value_of_its_own_is_given_up(machine, fs, settle):
    machine.sh(f"zfs set compression=gzip {fs}; zfs create -o compression=off {fs}/a")
    done = settle(machine.module, name=f"{fs}/a", inherited=["compression", "atime"])
    assert done["actions"] == [f"zfs inherit compression {fs}/a"]
    assert done["diff"]["before"]["properties"] == {"compression": "off", "atime": "(inherited)"}
    assert machine.get(f"{fs}/a", "compression") == ["gzip", f"inherited from {fs}"]


def test_quota_and_reservation_move_together(machine, fs, settle):
    both = ("reservation", "quota")
    settle(machine.module, name=fs, properties={"reservation": "8M", "quota": "10M"})
    assert settle(machine.module, name=fs, properties=dict.fromkeys(both, "4M"))["changed"]
    assert settle(machine.module, name=fs, properties=dict.fromkeys(both, "20M"))["changed"]
    assert [machine.get(fs, what)[0] for what in both] == [str(20 * 1024**2)] * 2


def test_parents(machine, fs, settle, refusal):
    assert f"{fs}/x/y does not exist: create it first, or set parents: true" in refusal(
        machine.module, name=f"{fs}/x/y/z"
    )
    assert settle(machine.module, name=f"{fs}/x/y/z", parents=True)["actions"] == [f"zfs create -p {fs}/x/y/z"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "nopool/a"}, "there is no pool 'nopool' on this machine (there are: "),
        ({"name": "nopool/a", "state": "absent"}, "there is no pool 'nopool' on this machine (there are: "),
        ({"name": f"{POOL}/a", "properties": {"no_such": 1}}, "invalid property 'no_such'"),
        ({"name": POOL, "properties": {"no_such": 1}}, "invalid property 'no_such'"),
        ({"name": POOL, "properties": {"used": "5M"}}, "properties.used: cannot be 5M: it is "),
        (
            {"name": POOL, "properties": {"utf8only": True}},
            "properties.utf8only: cannot be on: it is off, and ZFS cannot change it",
        ),
        ({"name": POOL, "properties": {"volsize": "1M"}}, "exists and is a filesystem, which has no volsize"),
        ({"name": POOL, "state": "absent"}, "it is the root of the pool"),
        ({"name": f"{POOL}/none@s"}, f"{POOL}/none does not exist: create it first"),
        (
            {"name": f"{POOL}/c", "origin": f"{POOL}@none"},
            f"origin: there is no snapshot {POOL}@none (there are: none)",
        ),
        ({"name": f"{POOL}@s", "send_to": "/no/such/folder/file"}, "send_to: there is no directory /no/such/folder"),
        (
            {"name": f"{POOL}@s", "receive_from": "/etc/hostname"},
            "/etc/hostname: the file is not a stream of `zfs send`",
        ),
    ],
)
def test_refusals_change_nothing(machine, options, message, refusal):
    before = machine.names()
    assert message in refusal(machine.module, **options)
    assert machine.names() == before


def test_a_value_that_zfs_does_not_take(machine, fs):
    failed = machine.module(name=fs, properties={"compression": "best"})
    assert f"`zfs set compression=best {fs}` ended with exit code 1: cannot set property" in failed["msg"]


def test_33_dependents_are_named_and_live_on(machine, fs, settle, refusal):
    machine.sh(f"zfs create {fs}/child; zfs snapshot {fs}@one; zfs clone {fs}@one {POOL}/clone-of-it")
    before = machine.names()
    assert refusal(machine.module, name=fs, state="absent").endswith(
        f"remove these first: {POOL}/clone-of-it (a clone of {fs}@one), {fs}/child, {fs}@one"
    )
    assert f"remove these first: {POOL}/clone-of-it (a clone of {fs}@one)" in refusal(
        machine.module, name=f"{fs}@one", state="absent"
    )
    assert machine.names() == before
    for name in (f"{POOL}/clone-of-it", f"{fs}@one", f"{fs}/child", fs):
        assert settle(machine.module, name=name, state="absent")["actions"] == [f"zfs destroy {name}"]
    assert not [name for name in machine.names() if name.startswith(fs)]


def test_clone(machine, fs, settle, refusal):
    machine.sh(f"zfs snapshot {fs}@one; zfs snapshot {fs}@two")
    done = settle(machine.module, name=f"{fs}/clone", origin=f"{fs}@one", properties={"quota": "5M"})
    assert done["actions"] == [f"zfs clone -o quota=5M {fs}@one {fs}/clone"]
    assert done["dataset"]["origin"] == f"{fs}@one"
    assert f"exists and is a clone of {fs}@one, not a clone of {fs}@two" in refusal(
        machine.module, name=f"{fs}/clone", origin=f"{fs}@two"
    )
    assert f"exists and is no clone, not a clone of {fs}@two" in refusal(machine.module, name=fs, origin=f"{fs}@two")


def test_snapshot_with_properties_of_ones_own(machine, fs, settle, refusal):
    done = settle(machine.module, name=f"{fs}@one", properties={"org.example:by": "test", "org.example:n": "010"})
    assert done["dataset"]["properties"]["org.example:n"] == {"value": "010", "source": "local"}
    assert settle(machine.module, name=f"{fs}@one", properties={"org.example:n": "10"})["changed"], "texts, not numbers"
    assert "ZFS gives a snapshot only user properties" in refusal(
        machine.module, name=f"{fs}@one", properties={"quota": 0}
    )


def test_holds(machine, fs, settle, refusal):
    held = {"name": f"{fs}@one", "holds": ["keep", "also"]}
    told = machine.module(**held, _ansible_check_mode=True)
    done = machine.module(**held)
    assert told["diff"] == done["diff"]
    assert done["actions"] == [f"zfs snapshot {fs}@one", f"zfs hold keep {fs}@one", f"zfs hold also {fs}@one"]
    assert done["dataset"]["holds"] == ["keep", "also"] if machine.fuse else ["also", "keep"]
    assert machine.get(f"{fs}@one", "userrefs")[0] == "2"
    assert "a hold keeps it (" in refusal(machine.module, name=f"{fs}@one", state="absent")
    if machine.fuse:
        assert "has 2 holds, but this ZFS cannot list their tags: `zfs holds -H " in refusal(machine.module, **held)
        assert settle(machine.module, name=f"{fs}@one")["changed"] is False
        machine.sh(f"zfs release keep {fs}@one; zfs release also {fs}@one")
    else:
        machine.sh(f"zfs hold somebody {fs}@one")
        assert settle(machine.module, **held)["changed"] is False
        done = settle(machine.module, name=f"{fs}@one", holds=["keep"], released=["also", "somebody", "nobody"])
        assert done["actions"] == [f"zfs release also {fs}@one", f"zfs release somebody {fs}@one"]
        settle(machine.module, name=f"{fs}@one", released=["keep"])
    assert settle(machine.module, name=f"{fs}@one", state="absent")["changed"]


def test_volume(machine, fs, settle, refusal):
    wanted = {"name": f"{fs}/volume", "properties": {"volsize": "10M", "refreservation": "none"}}
    if machine.fuse:
        told = machine.module(**wanted)["msg"]
        assert f"`zfs create -V 10M -o refreservation=none {fs}/volume` ended with exit code -6: internal error" in told
        return
    assert settle(machine.module, **wanted)["dataset"]["type"] == "volume"
    grown = settle(machine.module, name=f"{fs}/volume", properties={"volsize": "12M"})
    assert grown["actions"] == [f"zfs set volsize=12M {fs}/volume"]
    assert "this module shrinks no volume" in refusal(machine.module, **wanted)
    machine.sh(f"zfs snapshot {fs}/volume@one")
    clone = settle(machine.module, name=f"{fs}/larger", origin=f"{fs}/volume@one", properties={"volsize": "14M"})
    assert clone["dataset"]["properties"]["volsize"]["value"] == 14 * 1024**2


def test_streams_to_and_from_files(machine, fs, settle, refusal):
    full, more, folder = (
        f"{machine.folder}/full",
        f"{machine.folder}/more",
        machine.sh(f"zfs get -H -o value mountpoint {fs}").stdout.strip(),
    )
    machine.sh(f"echo one > {folder}/file")
    done = settle(machine.module, name=f"{fs}@one", send_to=full)
    assert done["actions"] == [f"zfs snapshot {fs}@one", f"zfs send {fs}@one > {full}"]
    assert machine.sh(f"stat -c %a {full}").stdout.strip() == "600"
    machine.sh(f"echo two > {folder}/file")
    assert settle(machine.module, name=f"{fs}@two", send_to=more, incremental_from="@one")["actions"][-1] == (
        f"zfs send -i {fs}@one {fs}@two > {more}"
    )

    assert "starts from a snapshot with GUID" in refusal(machine.module, name=f"{fs}/r@two", receive_from=more)
    assert f"{fs}/x/y does not exist" in refusal(machine.module, name=f"{fs}/x/y/r@one", receive_from=full)
    done = settle(
        machine.module, name=f"{fs}/x/y/r@one", receive_from=full, parents=True, properties={"org.example:a": "b"}
    )
    assert done["actions"] == [
        f"zfs create -p {fs}/x/y",
        f"zfs receive {fs}/x/y/r@one < {full}",
        f"zfs set org.example:a=b {fs}/x/y/r@one",
    ]
    assert done["dataset"]["guid"] == int(machine.get(f"{fs}@one", "guid")[0])
    # Not even read before: with atime on, that would be a change that the next stream does not know.
    settle(machine.module, name=f"{fs}/x/y/r@two", receive_from=more)
    assert machine.sh(f"cat {folder}/x/y/r/file").stdout == "two\n"

    assert f"is a full stream, which makes a new dataset, but {fs}/x/y/r exists" in refusal(
        machine.module, name=f"{fs}/x/y/r@new", receive_from=full
    )
    assert "which is not the present snapshot" in refusal(machine.module, name=f"{fs}/x/y/r@two", receive_from=full)
    assert f"holds another stream, of {fs}@two" in refusal(machine.module, name=f"{fs}@one", send_to=more)
    assert "is not a stream" in refusal(machine.module, name=f"{fs}@one", send_to=f"{machine.folder}/pool.img")
    assert "there is no snapshot" in refusal(
        machine.module, name=f"{fs}@one", send_to=f"{machine.folder}/new", incremental_from="@zero"
    )


def test_a_stream_that_is_cut_short_leaves_no_file(machine, fs):
    machine.sh(f"zfs snapshot {fs}@one; mkdir -p {machine.folder}/empty")
    failed = machine.module(name=f"{fs}@one", send_to=f"{machine.folder}/empty/file", timeout=0)
    assert "still running after 0 s, killed" in failed["msg"]
    assert machine.sh(f"ls -A {machine.folder}/empty").stdout == ""


def test_a_replication_stream_is_refused(machine, fs, refusal):
    machine.sh(f"zfs snapshot {fs}@one; zfs send -R {fs}@one > {machine.folder}/package")
    assert "the stream has several datasets" in refusal(
        machine.module, name=f"{fs}/r@one", receive_from=f"{machine.folder}/package"
    )


def test_a_zfs_that_does_not_answer_is_no_empty_zfs(machine, fs):
    """Its exit code is the one of a dataset that is not there."""
    machine.sh(
        f"mkdir -p {machine.folder}/bin; printf '#!/bin/sh\\necho gone >&2\\nexit 1\\n' > {machine.folder}/bin/zfs; chmod +x {machine.folder}/bin/zfs"
    )
    machine.sh(f"ln -sf $(command -v zpool) {machine.folder}/bin/zpool")
    given = json.dumps({"ANSIBLE_MODULE_ARGS": {"name": fs, "state": "absent"}})
    name = "ansible_collections.zonestack.openstack.plugins.modules.zfs"
    python = sys.executable if machine.host is None else "python3"
    line = f"cd / && PATH={machine.folder}/bin:$PATH PYTHONPATH={machine.folder}/python {python} -m {name}"
    said = json.loads(machine.sh(line, check=False, given=given).stdout)
    assert said["failed"] and "ended with exit code 1: gone" in said["msg"]
