# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zones made with vmadm: what a description becomes, read back from the simulator's vmadm. Nothing boots here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.zone import drift as zone_drift
from ansible_collections.zonestack.openstack.plugins.module_utils.zone import smartos as zone_smartos
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.converge import plan
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import (
    Interface,
    Volume,
    ZoneError,
    ZoneSpec,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.smartos import (
    RECORD,
    SmartosBackend,
    image_uuid,
    properties,
)

BIN = Path(__file__).resolve().parents[3] / "smartos_sim/bin"
UUID = "6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11"
IMAGE = "keystone-0123456789ab"

SPEC = ZoneSpec(
    name="ctl1-keystone-1",
    uuid=UUID,
    image=IMAGE,
    store="zfs",
    memory=1024,
    quota=20,
    networks=(
        Interface("eth0", "admin", "02:00:5e:10:00:01", "10.77.2.16", 21, "10.77.0.1"),
        Interface("eth1", "tunnel0", "02:00:5e:10:00:02", "10.78.2.16", 24, mtu=1500),
    ),
    metadata={"deployment": "prod", "component": "keystone"},
)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Path]:
    """A simulated node on paper that has the image and the two nic tags; vmadm and its kin come first on PATH."""
    world = {
        "node": {
            "hostname": "ctl1", "uuid": "00000000-0000-0000-0000-525400000001", "platform": "20260101T000000Z", "memory_mib": 65536,
            "zpools": ["zones"],
            "nic_tags": [
                {"name": "admin", "mac": "52:54:00:00:00:01", "link": "e1000g0", "type": "normal"},
                {"name": "tunnel0", "mac": None, "link": None, "type": "etherstub"},
            ],
        },
        "image_sources": [],
        "images": [
            {
                "zpool": "zones", "source": None,
                "manifest": {"v": 2, "uuid": image_uuid(name), "name": name, "version": "1", "type": "lx-dataset", "os": "linux"},
            }
            for name in (IMAGE, "keystone-ba9876543210")
        ],
        "vms": [],
    }  # fmt: skip
    (tmp_path / "world.json").write_text(json.dumps(world))
    monkeypatch.setenv("SMARTOS_SIM_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    monkeypatch.setattr(zone_smartos, "resolvers", lambda: ["192.0.2.53"])
    subprocess.run(
        [sys.executable, str(BIN / "smartos-sim"), "load-world", str(tmp_path / "world.json")], check=True, timeout=600
    )
    zone_smartos._vms_at_start.cache_clear()
    yield tmp_path
    zone_smartos._vms_at_start.cache_clear()


def again() -> SmartosBackend:
    """The backend of another call of a module."""
    zone_smartos._vms_at_start.cache_clear()
    return SmartosBackend()


def made(spec: ZoneSpec = SPEC) -> None:
    """Make the zone, as far as paper has it."""
    backend = again()
    spec = backend.effective(spec)
    assert backend.read(spec).spec is None
    backend.check(spec)
    backend.create(spec)


@pytest.mark.usefixtures("node")
def test_a_made_zone_is_as_described() -> None:
    """What was made is read back as the same description, without drift: the next run plans nothing."""
    made()
    backend = again()
    want = backend.effective(SPEC)
    current = backend.read(SPEC)
    assert (current.spec, current.running, current.drift) == (want, False, ())
    assert plan(current, want, "stopped", backend.live).actions == ()


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"memory": 4096}, ("memory",)),
        ({"cpu_cap": 200}, ("cpu_cap",)),
        ({"quota": None}, ("quota",)),
        ({"metadata": {"deployment": "prod"}}, ("metadata",)),
        ({"networks": SPEC.networks[:1]}, ("networks",)),
        ({"networks": (replace(SPEC.networks[0], address="10.77.2.17"), SPEC.networks[1])}, ("networks",)),
        ({"networks": (replace(SPEC.networks[0], vips=("10.77.0.5",)), SPEC.networks[1])}, ("networks",)),
        ({"volumes": (Volume("log", "/var/log/keystone"),)}, ("volumes",)),
        ({"image": "keystone-ba9876543210"}, ("image",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_change_is_made_once(
    change: dict[str, t.Any], fields: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, node: Path
) -> None:
    """The changed field alone is planned; once it is made, nothing is left to do."""
    monkeypatch.setattr(SmartosBackend, "_make_volumes", lambda _self, _want: None)  # there is no ZFS on paper
    monkeypatch.setattr(zone_smartos, "volumes_in", lambda _folder: ("log",))
    made()
    backend = again()
    want = backend.effective(replace(SPEC, **change))
    todo = plan(backend.read(want), want, "stopped", backend.live)
    assert [(action.verb, action.fields) for action in todo.actions] == [("update", fields)]
    backend.update(want, fields, running=False)
    backend = again()
    current = backend.read(want)
    assert (current.spec, current.drift) == (want, ())
    assert plan(current, want, "stopped", backend.live).actions == ()


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(("command", "drift"), [("max_physical_memory=512", "limits"), ("hostname=other", "config")])
def test_what_was_changed_by_hand_is_found(command: str, drift: str) -> None:
    """A property that somebody else set is drift, and the next update puts it back."""
    made()
    subprocess.run(["vmadm", "update", UUID, command], check=True, timeout=600, capture_output=True)
    backend = again()
    assert backend.read(SPEC).drift == (drift,)
    backend.update(backend.effective(SPEC), (drift,), running=False)
    assert again().read(SPEC).drift == ()


@pytest.mark.usefixtures("node")
def test_foreign_vms_are_left_alone() -> None:
    """A VM of this UUID without our record, and one of another UUID with this zone's name, are refused."""
    payload = {
        "uuid": UUID,
        "brand": "lx",
        "kernel_version": "5.10.0",
        "image_uuid": image_uuid(IMAGE),
        "autoboot": False,
        "alias": "x",
    }
    subprocess.run(
        ["vmadm", "create"], input=json.dumps(payload), text=True, check=True, timeout=600, capture_output=True
    )
    with pytest.raises(ZoneError, match=RECORD):
        again().read(SPEC)
    with pytest.raises(ZoneError, match="already has this alias"):
        again().read(replace(SPEC, name="x", uuid=UUID.replace("6", "7")))


@pytest.mark.usefixtures("node")
def test_what_a_failed_creation_left_is_swept_away() -> None:
    """A VM that vmadm has marked failed is no zone but debris; making the zone replaces it."""
    made()
    state = Path(os.environ["SMARTOS_SIM_STATE"])
    record = next(path for path in state.rglob(f"{UUID}.json") if "failed" in path.read_text())
    record.write_text(json.dumps({**json.loads(record.read_text()), "failed": True}))
    backend = again()
    current = backend.read(SPEC)
    assert (current.spec, current.debris) == (None, True)
    backend.create(backend.effective(SPEC))
    assert again().read(SPEC).spec == backend.effective(SPEC)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"privileged": True}, "place its service on a host with backend lxc"),
        ({"image": "keystone-ffffffffffff"}, "is not installed; build the images first"),
        ({"networks": (replace(SPEC.networks[0], bridge="nowhere"),)}, "invalid tag: nowhere"),
    ],
)
def test_what_the_host_cannot_give_is_refused(change: dict[str, t.Any], message: str) -> None:
    """Before anything is made, with the reason."""
    with pytest.raises(ZoneError, match=message):
        again().check(replace(SPEC, **change))


def test_memory_that_is_promised_has_room_to_fork() -> None:
    """Swap is what a zone may reserve; the temporary file systems cannot take all of its memory."""
    made_of = properties(SPEC, [])
    assert made_of["max_swap"] == 2 * made_of["max_physical_memory"]
    assert made_of["tmpfs"] < made_of["max_physical_memory"]
    assert made_of["cpu_cap"] is None


@pytest.mark.usefixtures("node")
def test_zones_of_ours_are_told_and_no_other_vms(run_module: t.Callable[..., dict[str, t.Any]]) -> None:
    made()
    payload = {
        "brand": "lx",
        "kernel_version": "5.10.0",
        "image_uuid": image_uuid(IMAGE),
        "autoboot": False,
        "alias": "foreign",
    }
    subprocess.run(
        ["vmadm", "create"], input=json.dumps(payload), text=True, check=True, timeout=600, capture_output=True
    )
    told = run_module("zone_info", {"backend": "smartos"})
    assert told["zones"] == {SPEC.name: {"uuid": UUID, "image": IMAGE, "running": False}}


@pytest.fixture
def trees(node: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The roots of a made zone and of its image, which has two files."""
    made()
    zone_smartos._vms_at_start.cache_clear()
    monkeypatch.setattr(zone_drift, "ZONES", node / "zones")
    image, zone = (node / "zones" / name / "root" for name in (image_uuid(IMAGE), UUID))
    (image / "etc").mkdir(parents=True)
    (image / "etc/passwd").write_text("root:x:0:0::/:\n")
    (image / "etc/group").write_text("root:x:0:\n")
    (image / "etc/app.conf").write_text("a = 1\n")
    # As a clone of a file system: times are those of the image.
    shutil.copytree(image, zone, symlinks=True)
    return zone, image


WANT: dict[str, t.Any] = {"uuid": UUID, "files": {}, "directories": {}, "units": {}}
HOSTS = {
    "sha256": hashlib.sha256(b"127.0.0.1 localhost\n").hexdigest(),
    "mode": "0644",
    "owner": "root",
    "group": "root",
}


def test_a_zone_as_its_image_has_no_drift(trees: tuple[Path, Path]) -> None:
    """Nor has what the brand, vmadm and the zone write by themselves."""
    zone, _image = trees
    for path in (
        "var/svc/provision_success",
        "etc/network/interfaces",
        "etc/resolv.conf",
        "native/usr/sbin/x",
        "var/log/x",
    ):
        (zone / path).parent.mkdir(parents=True, exist_ok=True)
        (zone / path).write_text("x")
    (zone / "etc/network/interfaces.d").mkdir()
    (zone / "etc/network/interfaces.d/mine").write_text("by hand")
    (zone / "etc/hosts").write_text("127.0.0.1 localhost\n")
    assert [one.path for one in zone_drift.smartos_drift(SPEC.name, {**WANT, "files": {"/etc/hosts": HOSTS}})] == [
        "/etc/network/interfaces.d/"
    ]


def test_drift_is_found_against_image_and_rendering(trees: tuple[Path, Path]) -> None:
    zone, _image = trees
    (zone / "etc/app.conf").write_text("a = 22\n")
    (zone / "etc/added").write_text("x")
    (zone / "etc/hosts").write_text("127.0.0.1 changed\n")
    found = zone_drift.smartos_drift(SPEC.name, {**WANT, "files": {"/etc/hosts": HOSTS}})
    changed = {(one.path, one.kind) for one in found}
    assert changed == {("/etc/added", "added"), ("/etc/app.conf", "changed"), ("/etc/hosts", "changed")}
    hosts = next(one for one in found if one.path == "/etc/hosts")
    assert (hosts.owner, hosts.detail) == ("a run, then changed by hand", "content")


def test_a_zone_without_its_image_is_not_taken_for_right(trees: tuple[Path, Path]) -> None:
    _zone, image = trees
    shutil.rmtree(image)
    with pytest.raises(ZoneError, match=f"its image {IMAGE} is not at"):
        zone_drift.smartos_drift(SPEC.name, WANT)


@pytest.mark.usefixtures("node")
def test_a_zone_that_is_not_there_is_told() -> None:
    with pytest.raises(ZoneError, match="it is not on this host"):
        zone_drift.smartos_drift(SPEC.name, WANT)
