# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of SmartOS zones, as far as paper has them: what is begun with, what killed calls leave, what is installed. Nothing is built."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.image import smartos as subject
from ansible_collections.zonestack.openstack.plugins.module_utils.image.furnish import Log
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import (
    BuilderNetwork,
    ImageError,
    Recipe,
    Settings,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm import Vmadm
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.smartos import image_uuid

BIN = Path(__file__).resolve().parents[3] / "smartos_sim/bin"
SEED, NATIVE, FAR = (f"5eed0000-0000-4000-8000-00000000000{number}" for number in range(3))
BASE, CHILD = "base-0123456789ab", "keystone-0123456789ab"
RECIPES = {BASE: Recipe(BASE, "base", suite="trixie"), CHILD: Recipe(CHILD, "keystone", parent=BASE)}
NETWORK = BuilderNetwork("admin", 21, "10.77.2.1", ["10.77.3.248"])


def manifest(uuid: str, name: str, kind: str = "lx-dataset", **more: t.Any) -> dict[str, t.Any]:
    return {"v": 2, "uuid": uuid, "name": name, "version": "1", "type": kind, "os": "linux", **more}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's beginning: two installed images, of which one is native, and one that a source offers."""
    folder = tmp_path_factory.mktemp("world")
    source = {"url": "https://images.test", "type": "imgapi", "images": [manifest(FAR, "debian-far")]}
    images = [
        {"zpool": "zones", "source": None, "manifest": one}
        for one in (manifest(SEED, "debian-13"), manifest(NATIVE, "base-64", "zone-dataset"))
    ]
    tags = [{"name": "admin", "mac": "52:54:00:00:00:01", "link": "e1000g0", "type": "normal"}]
    node = {"hostname": "gz1", "uuid": "00000000-0000-0000-0000-525400000001", "platform": "20260101T000000Z", "memory_mib": 65536,
            "zpools": ["zones"], "nic_tags": tags}  # fmt: skip
    (folder / "world.json").write_text(
        json.dumps({"node": node, "image_sources": [source], "images": images, "vms": []})
    )
    return folder


@pytest.fixture
def store(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> subject.SmartosImages:
    monkeypatch.setenv("SMARTOS_SIM_STATE", str(world / "state"))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    monkeypatch.setattr(subject, "resolvers", lambda: ["192.0.2.53"])
    subprocess.run(
        [sys.executable, str(BIN / "smartos-sim"), "load-world", str(world / "world.json")], check=True, timeout=600
    )
    return opened(tmp_path)


def opened(root: Path) -> subject.SmartosImages:
    """The store as another call of the module sees it."""
    store = subject.SmartosImages(str(root))
    store.prepare()
    return store


def settings(**seed: str) -> Settings:
    return Settings(NETWORK, 1, seed=seed)


def draft(store: subject.SmartosImages, image: str, **more: t.Any) -> subject.Draft:
    """What imgadm would have left of a builder."""
    found = subject.Draft(store.drafts / image)
    found.file.write_bytes(b"stream")
    files = [{"sha1": hashlib.sha1(b"stream").hexdigest(), "size": 6, "compression": "none"}]
    tags = {subject.TAG: image}
    found.manifest.write_text(json.dumps(manifest(SEED, f"zonestack-{image}", tags=tags, files=files, **more)))
    return found


@pytest.mark.parametrize(
    ("seed", "uuid"),
    [
        ({"uuid": SEED}, SEED),
        ({"name": "debian-13", "version": "1"}, SEED),
        ({"name": "debian-far", "version": "1"}, FAR),
    ],
)
def test_the_seed_is_found_and_fetched_when_it_must(
    store: subject.SmartosImages, seed: dict[str, str], uuid: str
) -> None:
    assert store.seed(settings(**seed)) == uuid
    assert store.client.get(uuid) is not None


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ({}, "seed: none given: say which image of Debian to begin with.*imgadm avail type=lx-dataset"),
        ({"name": "debian-13"}, "seed: none given"),
        (
            {"name": "debian-99", "version": "1"},
            "seed: no image debian-99 1 is installed, and none of the sources has one",
        ),
        ({"uuid": NATIVE}, f"seed: image {NATIVE} is of type zone-dataset: take one of type lx-dataset"),
        ({"uuid": "x"}, "seed: uuid: 'x' is not valid"),
    ],
)
def test_a_seed_that_cannot_be_is_refused_before_anything_is_built(
    store: subject.SmartosImages, seed: dict[str, str], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        store.check([RECIPES[BASE]], settings(**seed))


def test_what_the_host_lacks_is_refused(store: subject.SmartosImages) -> None:
    recipe = Recipe(CHILD, "keystone", parent=BASE, python=["keystone"], lock="keystone==1", venv="/opt/keystone")
    with pytest.raises(ImageError, match="uv: '/nowhere/uv' is not on this host: give the path of uv for Linux"):
        store.check([recipe], Settings(NETWORK, 1, uv="/nowhere/uv"))
    with pytest.raises(ImageError, match="there is no NIC tag 'nowhere' on this host"):
        store.check([RECIPES[CHILD]], Settings(BuilderNetwork("nowhere", 21, "10.77.2.1", []), 1))


def test_a_whole_draft_is_installed_and_not_built_again(store: subject.SmartosImages, tmp_path: Path) -> None:
    """Killed between `imgadm create` and `imgadm install`: the next call goes on from there, under the computed UUID."""
    made = draft(store, BASE)
    assert store.leftovers() == []
    store.check([RECIPES[BASE]], settings())  # no seed is needed any more
    store.build(RECIPES[BASE], settings(), "10.77.3.248")
    assert store.ids() == opened(tmp_path).ids() == [BASE]
    image = store.client.get(image_uuid(BASE))
    assert image is not None and image.manifest["name"] == f"zonestack-{BASE}"
    assert not made.manifest.exists() and not made.file.exists()


def test_an_image_that_lost_its_manifest_is_installed_anew(store: subject.SmartosImages) -> None:
    """Killed within `imgadm install`: a dataset of this name without our tag is nothing that zones may be clones of."""
    bare = draft(store, BASE)
    content = json.loads(bare.manifest.read_text())
    store.client.install({**content, "uuid": image_uuid(BASE), "tags": {}}, str(bare.file))
    assert opened(store.root).ids() == []
    store.build(RECIPES[BASE], settings(), "10.77.3.248")
    assert opened(store.root).ids() == [BASE]


def test_halves_and_builders_are_removed_and_whole_drafts_stay(store: subject.SmartosImages) -> None:
    whole, done = draft(store, CHILD), draft(store, BASE)
    store.client.install({**json.loads(done.manifest.read_text()), "uuid": image_uuid(BASE)}, str(done.file))
    store = opened(store.root)
    (store.drafts / "galera-0123456789ab.zfs").write_text("half")
    short = draft(store, "haproxy-0123456789ab")
    short.file.write_bytes(b"str")
    (store.builders / "ovn-0123456789ab").touch()
    uuid = subject.builder_uuid("ovn-0123456789ab")
    payload = {
        "uuid": uuid,
        "brand": "lx",
        "kernel_version": "5.10.0",
        "image_uuid": SEED,
        "autoboot": False,
        "alias": "builder",
    }
    subprocess.run(
        ["vmadm", "create"], input=json.dumps(payload), text=True, check=True, timeout=600, capture_output=True
    )
    gone = [f"{BASE}.imgmanifest", f"{BASE}.zfs", "builder of ovn-0123456789ab", "galera-0123456789ab.zfs",
            "haproxy-0123456789ab.imgmanifest", "haproxy-0123456789ab.zfs"]  # fmt: skip
    assert store.leftovers() == store.clean() == gone
    assert store.leftovers() == [] and whole.whole()
    assert Vmadm().get(uuid) is None


def test_a_builder_that_does_not_start_is_removed(
    store: subject.SmartosImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to log into on paper, which is as good as an init that does not answer."""
    monkeypatch.setattr(subject, "START_LIMIT", 1)
    with pytest.raises(ImageError, match=f"(?s)image {BASE}: .*zlogin"):
        store.build(RECIPES[BASE], settings(uuid=SEED), "10.77.3.248")
    assert store.leftovers() == []
    assert Vmadm().lookup() == []


def test_a_builder_stands_where_it_is_told_and_sees_the_cache(
    store: subject.SmartosImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject.Builder, "_run", lambda *_words: None)
    monkeypatch.setattr(subject, "await_init", lambda *_words: None)
    with subject.Builder(store, RECIPES[BASE], SEED, settings(), "10.77.3.248", Log(store.logs / "x.log")) as builder:
        vm = Vmadm().get(builder.uuid)
        assert vm is not None
        assert (vm["alias"], vm["image_uuid"], vm["resolvers"]) == (f"builder-{BASE}", SEED, ["192.0.2.53"])
        assert (vm["nics"][0]["nic_tag"], vm["nics"][0]["ips"], vm["nics"][0]["gateways"]) == (
            "admin",
            ["10.77.3.248/21"],
            ["10.77.2.1"],
        )
        assert vm["filesystems"] == [{"type": "lofs", "source": str(store.cache), "target": "/mnt"}]
        assert 'Dir::State::lists "/mnt/apt/";' in (store.cache / "apt.conf").read_text()


def test_images_that_nothing_is_a_clone_of_are_prunable(store: subject.SmartosImages) -> None:
    names = [BASE, CHILD, "galera-0123456789ab"]
    for name in names:
        origin = {} if name == BASE else {"origin": image_uuid(BASE)}
        made = draft(store, name, **origin)
        store.client.install({**json.loads(made.manifest.read_text()), "uuid": image_uuid(name)}, str(made.file))
    store = opened(store.root)
    assert store.prunable([CHILD]) == ["galera-0123456789ab"]
    store.remove("galera-0123456789ab")
    assert store.ids() == opened(store.root).ids() == [BASE, CHILD]


def test_the_module_says_what_it_would_build_and_remove(
    store: subject.SmartosImages, run_module: t.Callable[..., dict[str, t.Any]]
) -> None:
    images = [{"id": BASE, "name": "base", "suite": "trixie"}, {"id": CHILD, "name": "keystone", "parent": BASE}]
    network = {"bridge": "admin", "prefix": 21, "gateway": "10.77.2.1", "addresses": ["10.77.3.248"]}
    options = {"backend": "smartos", "store": str(store.root), "_ansible_check_mode": True}
    told = run_module("zone_image", {**options, "images": images, "network": network})
    assert ([one["id"] for one in told["built"]], told["present"], told["changed"]) == (
        [BASE, CHILD],
        [BASE, CHILD],
        True,
    )
    made = draft(store, BASE)
    store.client.install({**json.loads(made.manifest.read_text()), "uuid": image_uuid(BASE)}, str(made.file))
    told = run_module("zone_image", {**options, "images": images[:1], "network": network})
    assert (told["built"], told["cleaned"]) == ([], [f"{BASE}.imgmanifest", f"{BASE}.zfs"])
    assert run_module("zone_image", {**options, "state": "pruned", "keep": [BASE]})["removed"] == []
