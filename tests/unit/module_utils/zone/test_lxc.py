# SPDX-License-Identifier: GPL-3.0-or-later
"""The LXC configuration as text, and what is read from files. Nothing starts; that is tests/integration/test_zone_lxc.py."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.zone import files as zone_files
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import (
    Interface,
    Volume,
    ZoneError,
    ZoneSpec,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc import LxcBackend, render_config, veth_name
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc_root import Images
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.owners import capability_for, shift_owners

UUID = "6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11"
SPEC = ZoneSpec(
    "aio1-galera-1",
    UUID,
    "galera-1",
    memory=512,
    cpu_cap=150,
    networks=(Interface("eth0", "br0", "02:00:00:00:00:01", "192.0.2.10", 24, "192.0.2.1", 1400, ("2001:db8::2/64",)),),
    volumes=(Volume("data", "/var/lib/mysql"),),
)


def config(**changes):
    return render_config(replace(SPEC, **changes), "overlayfs:/low:/up", Path("/volumes/aio1-galera-1")).splitlines()


def test_config_of_an_unprivileged_zone():
    assert [line for line in config() if not line.startswith("#")] == [
        "lxc.include = /usr/share/lxc/config/common.conf",
        "lxc.include = /usr/share/lxc/config/userns.conf",
        "lxc.idmap = u 0 100000 65536",
        "lxc.idmap = g 0 100000 65536",
        "lxc.tty.dir = ",
        "lxc.apparmor.profile = unconfined",
        "lxc.uts.name = aio1-galera-1",
        "lxc.rootfs.path = overlayfs:/low:/up",
        "lxc.rootfs.options = userxattr",
        "lxc.start.auto = 1",
        "lxc.cgroup.memory.limit_in_bytes = 536870912",
        "lxc.cgroup2.memory.max = 536870912",
        "lxc.cgroup.cpu.cfs_period_us = 100000",
        "lxc.cgroup.cpu.cfs_quota_us = 150000",
        "lxc.cgroup2.cpu.max = 150000 100000",
        "lxc.net.0.type = veth",
        "lxc.net.0.link = br0",
        "lxc.net.0.veth.pair = zs6b1b7f0e5dn0",
        "lxc.net.0.name = eth0",
        "lxc.net.0.hwaddr = 02:00:00:00:00:01",
        "lxc.net.0.flags = up",
        "lxc.net.0.mtu = 1400",
        "lxc.net.0.ipv4.address = 192.0.2.10/24",
        "lxc.net.0.ipv6.address = 2001:db8::2/64",
        "lxc.net.0.ipv4.gateway = 192.0.2.1",
        "lxc.mount.entry = /volumes/aio1-galera-1/data var/lib/mysql none bind,create=dir 0 0",
    ]


def test_config_of_a_privileged_zone_maps_no_users():
    lines = config(privileged=True, devices=("/dev/null",), capabilities=("sys_time",))
    assert not [line for line in lines if "idmap" in line or "userns" in line]
    assert "lxc.mount.entry = /dev/null dev/null none bind,create=file 0 0" in lines
    assert "lxc.cgroup2.devices.allow = c 1:3 rwm" in lines
    assert lines[-2:] == ["lxc.cap.drop = ", "lxc.cap.drop = mac_admin mac_override sys_module sys_rawio"]


def test_devices_that_the_host_does_not_have_are_left_out():
    want = replace(SPEC, privileged=True, devices=("/dev/null", "/dev/nosuch", "/dev/shm"))
    assert LxcBackend().effective(want).devices == ("/dev/null",)


def test_config_without_limits_has_none():
    assert not [line for line in config(memory=None, cpu_cap=None) if "lxc.cgroup" in line]


def test_veth_names_fit_the_kernel_and_differ():
    names = {veth_name(UUID, index) for index in range(100)}
    assert len(names) == 100
    assert max(map(len, names)) <= 15


@pytest.mark.parametrize(
    ("host", "upstream", "expected"),
    [
        ("nameserver 192.0.2.53\n", "nameserver 198.51.100.1\n", "nameserver 192.0.2.53\n"),
        ("nameserver 127.0.0.53\noptions edns0\n", "nameserver 198.51.100.1\n", "nameserver 198.51.100.1\n"),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", "x\n", "nameserver 127.0.0.1\nnameserver 192.0.2.53\n"),
        ("nameserver ::1\n", "", "nameserver ::1\n"),
    ],
)
def test_resolver_is_one_that_a_zone_reaches(tmp_path, monkeypatch, host, upstream, expected):
    (tmp_path / "host").write_text(host)
    (tmp_path / "upstream").write_text(upstream)
    monkeypatch.setattr(zone_files, "RESOLV_CONF", tmp_path / "host")
    monkeypatch.setattr(zone_files, "RESOLVED_UPSTREAM", tmp_path / "upstream")
    assert zone_files.resolv_conf() == expected


def test_files_are_not_written_through_a_link_of_the_zone(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "etc").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="etc"):
        zone_files.put(tmp_path / "root", "hosts", "x", os.getuid())
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_in_place_of_a_file_is_replaced_not_followed(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "host-file").write_text("untouched")
    (tmp_path / "etc" / "hosts").symlink_to(tmp_path / "host-file")
    zone_files.put(tmp_path, "hosts", "new", os.getuid())
    assert (tmp_path / "host-file").read_text() == "untouched"
    assert (tmp_path / "etc" / "hosts").read_text() == "new"
    assert not (tmp_path / "etc" / "hosts").is_symlink()


@pytest.fixture
def images(tmp_path):
    for name, parent, users in (
        ("base-1", None, "root:x:0:0\n"),
        ("galera-1", "base-1", "root:x:0:0\nmysql:x:27:28\n"),
    ):
        (tmp_path / name / "rootfs" / "etc").mkdir(parents=True)
        (tmp_path / name / "rootfs" / "etc" / "passwd").write_text(users)
        (tmp_path / name / "manifest.json").write_text(json.dumps({"id": name, "parent": parent}))
    return Images(tmp_path)


def test_chain_has_the_topmost_layer_first(images):
    assert [layer.image for layer in images.chain("galera-1")] == ["galera-1", "base-1"]


def test_chain_names_the_images_that_are_there(images):
    with pytest.raises(ZoneError, match="image 'nova-1' is not on this host; there are: base-1, galera-1"):
        images.chain("nova-1")


def test_chain_names_a_missing_parent(images):
    (images.folder / "base-1" / "manifest.json").unlink()
    with pytest.raises(ZoneError, match="image 'galera-1' needs its parent, which 'base-1' is not on this host"):
        images.chain("galera-1")


def test_chain_refuses_a_ring(images):
    (images.folder / "base-1" / "manifest.json").write_text('{"parent": "galera-1"}')
    with pytest.raises(ZoneError, match="names 'galera-1' as a parent twice"):
        images.chain("galera-1")


def test_users_come_from_the_topmost_passwd(images):
    layers = images.chain("galera-1")
    assert images.user(layers, "mysql") == (27, 28)
    assert images.user(layers, "nova") is None


@pytest.mark.parametrize(("root", "expected"), [(0, 0x02000001), (100000, 0x03000001)])
def test_capabilities_follow_their_root(root, expected):
    sets = bytes(range(16))
    moved = capability_for(struct.pack("<I", 0x03000001) + sets + struct.pack("<I", 77), root)
    assert struct.unpack_from("<I", moved)[0] == expected
    assert moved[4:20] == sets
    assert moved[20:] == (struct.pack("<I", root) if root else b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, so it needs to be root")
def test_shift_keeps_set_uid_capabilities_and_hard_links(tmp_path):
    tool, other = tmp_path / "tool", tmp_path / "other"
    tool.write_text("x")
    os.link(tool, other)
    os.chown(tool, 100005, 100006)
    os.chmod(tool, 0o4755)
    os.setxattr(tool, "security.capability", struct.pack("<5I", 0x02000001, 1, 0, 0, 0))
    (tmp_path / "foreign").symlink_to("nowhere")
    shift_owners(tmp_path, 100000, 150000)
    info = tool.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (150005, 150006, 0o4755)
    assert struct.unpack_from("<I", os.getxattr(tool, "security.capability"))[0] == 0x03000001
    assert os.lstat(tmp_path / "foreign").st_uid == 0


def test_read_leaves_a_foreign_container_alone(tmp_path):
    (tmp_path / "web").mkdir()
    with pytest.raises(ZoneError, match="without a zone.json, so it is not a zone of this collection"):
        LxcBackend(tmp_path).read(replace(SPEC, name="web"))


def test_read_leaves_the_zone_of_another_uuid_alone(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "zone.json").write_text(json.dumps({"name": "web", "uuid": UUID.replace("6b", "7c")}))
    with pytest.raises(ZoneError, match="belongs to the zone with uuid 7c1b7f0e"):
        LxcBackend(tmp_path).read(replace(SPEC, name="web"))


def test_read_finds_volumes_and_debris_of_a_zone_that_is_gone(tmp_path):
    (tmp_path / "zonestack" / "volumes" / "web" / "data").mkdir(parents=True)
    (tmp_path / "zonestack" / "building" / "web.new").mkdir(parents=True)
    current = LxcBackend(tmp_path).read(replace(SPEC, name="web"))
    assert (current.spec, current.volumes, current.debris) == (None, ("data",), True)


def test_virtual_addresses_are_nothing_that_a_bridge_asks_for():
    network = replace(SPEC.networks[0], vips=("192.0.2.5",))
    assert LxcBackend().effective(replace(SPEC, networks=(network,))).networks == (replace(network, vips=()),)


def test_effective_drops_a_quota_that_the_store_has_not():
    backend = LxcBackend()
    assert backend.effective(replace(SPEC, quota=3)).quota is None
    assert backend.effective(replace(SPEC, quota=3, store="zfs")).quota == 3
