# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import inspect
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.verify import belongings, instance_life, waiting
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.belongings import leftovers
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.instance_life import Life, Notes, user_data
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.waiting import Failed, wait_for


def test_wait_returns_what_it_waited_for(monkeypatch):
    monkeypatch.setattr(waiting, "POLL", 0)
    states = iter([(None, "BUILD"), (None, "BUILD"), ("here", "ACTIVE")])
    assert wait_for("it", lambda: next(states), 5) == "here"


def test_wait_names_what_limit_and_last_state():
    with pytest.raises(
        Failed, match="^waited 0 s for instance 7 to become ACTIVE; last state: BUILD, task spawning$"
    ) as failed:
        wait_for("instance 7 to become ACTIVE", lambda: (None, "BUILD, task spawning"), 0, ["nova_compute"])
    assert failed.value.suspects == ["nova_compute"]


def test_notes_are_roots_own_and_come_back(tmp_path: Path):
    notes = Notes(str(tmp_path / "notes"))
    notes.write({"password": "x"})
    assert notes.read() == {"password": "x"}
    assert stat.S_IMODE(notes.folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in notes.folder.iterdir()] == [0o600]
    notes.forget()
    with pytest.raises(Failed, match="the step that boots the instance comes first"):
        notes.read()


def test_leftovers_name_kind_name_and_id():
    things = {
        "instance": [SimpleNamespace(name="a", id="1")],
        "floating IP": [SimpleNamespace(name=None, id="2")],
        "port": [],
    }
    assert leftovers(things) == ["instance a (1)", "floating IP (no name) (2)"]


def test_user_data_is_a_script_of_its_mark():
    assert (
        user_data("abc") == "#!/bin/sh\necho abc >/root/zonestack-verify-abc\necho zonestack-verify abc >/dev/console\n"
    )


def flavor(name: str, ram: int, disk: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, ram=ram, disk=disk, vcpus=1)


def life(tmp_path: Path) -> Life:
    return Life(lambda **_: None, {"name": "v", "wait": 1, "folder": str(tmp_path), "cloud": "aio"})


def test_smallest_flavor_that_holds_the_image(tmp_path: Path):
    flavors = [flavor("big", 4096, 40), flavor("tiny", 64, 0), flavor("small", 256, 1)]
    conn = SimpleNamespace(compute=SimpleNamespace(flavors=lambda: flavors))
    assert life(tmp_path).flavor(conn, SimpleNamespace(name="i", min_ram=128, min_disk=1)).name == "small"
    with pytest.raises(Failed, match=r"memory 9999 MiB, disk 1 GiB; flavors: tiny, small, big"):
        life(tmp_path).flavor(conn, SimpleNamespace(name="i", min_ram=9999, min_disk=1))


def test_request_ids_are_what_services_take(tmp_path: Path):
    # oslo.context and the services' middleware take `req-` and a UUID, and nothing else
    made = life(tmp_path)
    assert made.request() != made.request()
    assert all(len(word) == 40 and word.count("-") == 5 for word in made.words)


def test_what_is_gone_is_not_asked_for_by_a_user_who_is_gone(tmp_path: Path):
    """After a removal that broke, the administrator has removed the rest; what comes to clean up says nothing of a login."""
    identity = SimpleNamespace(find_project=lambda *_a, **_k: None, find_user=lambda *_a, **_k: None)
    made = Life(
        lambda **_: SimpleNamespace(identity=identity),
        {"name": "v", "wait": 1, "folder": str(tmp_path / "notes"), "cloud": "aio"},
    )
    made.notes.write({"password": "x"})
    assert made.remove() == {}
    assert not made.notes.folder.exists()


def test_the_sdk_has_what_is_called():
    """Every ``conn.<service>.<method>`` in the module is there in openstacksdk."""
    import re

    source = inspect.getsource(instance_life) + inspect.getsource(belongings)
    called = set(re.findall(r"\b(?:conn|admin)\.(compute|image|network|identity)\.([a-z_]+)\(", source))
    called |= {("network", name) for name in re.findall(r"\bnetwork\.([a-z_]+)\(", source)}
    proxies = {
        "compute": "openstack.compute.v2._proxy",
        "image": "openstack.image.v2._proxy",
        "network": "openstack.network.v2._proxy",
        "identity": "openstack.identity.v3._proxy",
    }
    assert len(called) > 25
    missing = [
        f"{service}.{name}"
        for service, name in sorted(called)
        if not hasattr(__import__(proxies[service], fromlist=["Proxy"]).Proxy, name)
    ]
    assert missing == []
