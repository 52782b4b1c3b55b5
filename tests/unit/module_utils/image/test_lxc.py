# SPDX-License-Identifier: GPL-3.0-or-later
"""What of zone_image can be said without building: refusals, where packages come from, what may be pruned."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.image import lxc as subject
from ansible_collections.zonestack.openstack.plugins.module_utils.image import store as image_store
from ansible_collections.zonestack.openstack.plugins.module_utils.image import surroundings
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import (
    ImageError,
    Recipe,
    lock_versions,
    pinned,
)

BASE = "base-0123456789ab"
CHILD = {"id": "keystone-0123456789ab", "name": "keystone", "parent": BASE}
LOCK = (
    "Foo.Bar==1.2 \\\n    --hash=sha256:00\npyuwsgi==2.0.30.post1 ; sys_platform == 'linux' \\\n    --hash=sha256:11\n"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "keystone"}, r"id: 'keystone' is wrong: <name>-<12 hexadecimal digits>"),
        ({"id": "../x-0123456789ab"}, "id: "),
        ({"parent": None}, "suite: None is wrong: an image has a parent, or as a base image a Debian suite"),
        ({"suite": "trixie"}, "suite: 'trixie' is wrong"),
        ({"ca_certificates": {"a.crt": "PEM"}}, "only the base image brings CA certificates"),
        ({"python": ["pyuwsgi"]}, "needs `lock`"),
        (
            {"python": ["absent"], "lock": LOCK, "venv": "/opt/x"},
            "python: 'absent' is wrong: a name that the lock pins",
        ),
        ({"files": {"etc/x": ""}}, "files: 'etc/x' is wrong: an absolute path"),
        ({"files": {"/etc/../../x": ""}}, "files: "),
        ({"packages": ["x; reboot"]}, "packages: 'x; reboot' is wrong: the name of a Debian package"),
        ({"packages": ["-oAPT::x"]}, "packages: "),
        ({"user": "key stone"}, "user: 'key stone' is wrong"),
    ],
)
def test_recipe_refuses(change, message):
    recipe = Recipe(**{**CHILD, **change})
    with pytest.raises(ImageError, match=message):
        recipe.check()


def test_recipes_need_their_parent_and_come_once(tmp_path):
    store, child = subject.LxcImages(str(tmp_path)), Recipe(**CHILD)
    with pytest.raises(ImageError, match=f"parent '{BASE}' is neither built nor among"):
        image_store.check_recipes(store, [child])
    base = Recipe(id=BASE, name="base", suite="trixie")
    with pytest.raises(ImageError, match="named more than once"):
        image_store.check_recipes(store, [base, child, child])
    image_store.check_recipes(store, [base, child])


def test_lock_pins_by_normalized_name_and_keeps_extras():
    recipe = Recipe(**CHILD, python=["foo_bar[x]"], lock=LOCK, venv="/opt/x")
    recipe.check()
    assert pinned("foo_bar[x]", recipe) == "foo_bar[x]==1.2"
    assert lock_versions(LOCK)["pyuwsgi"] == "2.0.30.post1"


DEBIAN_12 = {"ID": "debian", "VERSION_CODENAME": "bookworm"}


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (
            "nodistro http://other.example/x/\nbookworm http://a.example/debian/\n"
            "bookworm-updates http://a.example/debian/\nbookworm-security http://b.example/debian-security/\n",
            ("http://a.example/debian", "http://b.example/debian-security"),
        ),
        ("bookworm/updates http://a.example/debian/\n", ("http://a.example/debian", "")),
        ("stable https://a.example/debian\n", ("https://a.example/debian", "")),
    ],
)
def test_mirror_is_the_hosts(listed, expected):
    assert subject.host_mirrors(listed, DEBIAN_12) == expected


def test_mirror_must_be_told_where_the_host_has_none():
    with pytest.raises(ImageError, match="set `mirror`"):
        subject.host_mirrors("nodistro http://other.example/\n", DEBIAN_12)
    with pytest.raises(ImageError, match=r"does not run Debian \(ubuntu\)"):
        subject.host_mirrors("bookworm http://a.example/\n", {"ID": "ubuntu", "VERSION_CODENAME": "bookworm"})


def test_sources_of_a_given_mirror():
    assert subject.sources("trixie", "http://m.example/debian/") == [
        "deb http://m.example/debian trixie main",
        "deb http://m.example/debian trixie-updates main",
        "deb http://m.example/debian-security trixie-security main",
    ]


def test_builder_environment_takes_proxies_and_index_only(monkeypatch):
    monkeypatch.setattr(surroundings, "pip_index", lambda: "https://configured.example/simple")
    host = {"https_proxy": "http://p.example:3128", "NO_PROXY": "x", "AWS_SECRET": "s", "UV_INDEX": "file:///srv"}
    env = surroundings.builder_environment(host)
    assert (env["https_proxy"], env["NO_PROXY"]) == ("http://p.example:3128", "x")
    assert env["UV_DEFAULT_INDEX"] == "https://configured.example/simple"
    assert not {"AWS_SECRET", "UV_INDEX"} & set(env)
    assert (
        surroundings.builder_environment({"PIP_INDEX_URL": "https://e.example/"})["UV_DEFAULT_INDEX"]
        == "https://e.example/"
    )
    own = surroundings.builder_environment(
        {"UV_DEFAULT_INDEX": "https://u.example/", "PIP_INDEX_URL": "https://e.example/"}
    )
    assert own["UV_DEFAULT_INDEX"] == "https://u.example/"


def image(store, name, parent=None):
    directory = store.images / name
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps({"id": name, "parent": parent}))


def test_prunable_spares_zones_kept_images_and_parents(tmp_path):
    store = subject.LxcImages(str(tmp_path / "zonestack"))
    for name, parent in {
        "b": None,
        "zoned": "b",
        "mounted": "b",
        "kept": "b2",
        "b2": None,
        "idle": "b3",
        "b3": None,
    }.items():
        image(store, f"{name}-0123456789ab", parent and f"{parent}-0123456789ab")
    for zone, file, text in (
        ("z1", "zone.json", '{"image": "zoned-0123456789ab"}'),
        ("z2", "config", "x/mounted-0123456789ab/r"),
    ):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / file).write_text(text)
    assert store.prunable(["kept-0123456789ab"]) == ["idle-0123456789ab", "b3-0123456789ab"]


def test_an_unfinished_image_is_not_there(tmp_path):
    store = subject.LxcImages(str(tmp_path))
    (store.images / ".x-0123456789ab.77" / "rootfs").mkdir(parents=True)
    assert store.ids() == []
    assert store.remains() == [".x-0123456789ab.77"]


def test_remains_are_work_in_progress_while_the_store_is_held(tmp_path):
    store = subject.LxcImages(str(tmp_path))
    (store.images / ".x-0123456789ab.77").mkdir(parents=True)
    with store.lock(0):
        assert store.remains() == []
        with pytest.raises(ImageError, match=r"held by process \d+.*for more than 0 s"), store.lock(0):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_trap_killed_build_left_mounts_in_its_draft(tmp_path):
    """What is mounted there is not the image's: a host's /sys can not be deleted, and its /dev must not be."""
    draft = tmp_path / "images/.base-0123456789ab.7"
    outside, inside = tmp_path / "the host's", draft / "rootfs/of dev"
    inside.mkdir(parents=True)
    outside.mkdir()
    (outside / "kept").touch()
    subprocess.run(["mount", "--bind", outside, inside], check=True)
    try:
        assert subject.LxcImages(str(tmp_path)).clean() == [draft.name]
    finally:
        subprocess.run(["umount", "--quiet", inside], stderr=subprocess.DEVNULL, check=False)
    assert (outside / "kept").exists() and not draft.exists()
