# SPDX-License-Identifier: GPL-3.0-or-later
"""What a description may say, and which calls a difference leads to. No backend, nothing runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.backend import Current
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.converge import differences, plan
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import (
    Interface,
    Volume,
    ZoneError,
    ZoneSpec,
    validate,
)

UUID = "6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11"
NET = Interface("eth0", "br0", "02:00:00:00:00:01", "192.0.2.10", 24, "192.0.2.1")
WANT = ZoneSpec(
    "aio1-keystone-1", UUID, "keystone-1", memory=512, networks=(NET,), volumes=(Volume("data", "/srv", "mysql"),)
)
LIVE = frozenset({"memory", "cpu_cap", "ports"})


def steps(current, state="present", want=WANT, **options):
    made = plan(current, want, state, LIVE, **options)
    return [str(action) for action in made.actions], made


def running(**changes):
    return Current(replace(WANT, **changes), True, 7, ("data",))


def stopped(**changes):
    return Current(replace(WANT, **changes), volumes=("data",))


@pytest.mark.parametrize(
    ("current", "state", "expected"),
    [
        (Current(), "present", ["create", "start"]),
        (Current(), "restarted", ["create", "start"]),
        (Current(), "stopped", ["create"]),
        (Current(), "absent", []),
        (Current(debris=True), "absent", ["destroy"]),
        (Current(debris=True), "present", ["create", "start"]),
        (running(), "present", []),
        (running(), "stopped", ["stop"]),
        (running(), "restarted", ["stop", "start"]),
        (running(), "absent", ["stop", "destroy"]),
        (stopped(), "present", ["start"]),
        (stopped(), "restarted", ["start"]),
        (stopped(), "stopped", []),
        (stopped(), "absent", ["destroy"]),
        (running(memory=256), "present", ["update (memory)"]),
        (running(memory=256), "restarted", ["stop", "update (memory)", "start"]),
        (running(image="keystone-0"), "present", ["stop", "update (image)", "start"]),
        (running(image="keystone-0"), "stopped", ["stop", "update (image)"]),
        (stopped(image="keystone-0", memory=1), "present", ["update (image, memory)", "start"]),
        (replace(running(), drift=("memory",)), "present", ["update (memory)"]),
        (replace(running(), drift=("config",)), "present", ["stop", "update (config)", "start"]),
    ],
)
def test_plan_calls(current, state, expected):
    assert steps(current, state)[0] == expected


def test_plan_without_disruption_does_what_it_can_and_names_the_rest():
    calls, made = steps(running(image="keystone-0", memory=256), disruptive=False)
    assert calls == ["update (memory)"]
    assert made.pending == ("image: keystone-0 -> keystone-1; needs the zone to stop",)
    assert made.after == replace(WANT, image="keystone-0")
    assert not made.restarted


def test_plan_without_disruption_shows_no_change_when_all_waits():
    calls, made = steps(replace(running(networks=()), drift=("config",)), disruptive=False)
    assert calls == []
    assert [reason.split(":")[0] for reason in made.pending] == ["networks", "config"]
    assert made.after == replace(WANT, networks=())


@pytest.mark.parametrize("state", ["stopped", "restarted", "absent"])
def test_plan_without_disruption_obeys_a_state_that_was_asked_for(state):
    assert steps(running(), state, disruptive=False)[0][0] == "stop"


def test_plan_of_a_stopped_zone_needs_no_disruption():
    calls, made = steps(stopped(image="keystone-0"), disruptive=False)
    assert calls == ["update (image)", "start"]
    assert made.pending == ()


def test_plan_purges_only_where_there_is_data():
    assert steps(Current(volumes=("data",)), "absent", purge=True)[0] == ["destroy (with volumes)"]
    assert steps(Current(volumes=("data",)), "absent")[0] == []
    assert steps(Current(), "absent", purge=True)[0] == []


def test_differences_ignore_the_owner_of_a_volume_that_is_made():
    assert differences(WANT, replace(WANT, volumes=(Volume("data", "/srv", "root"),))) == ()
    assert differences(WANT, replace(WANT, volumes=(Volume("data", "/opt", "mysql"),))) == ("volumes",)


def test_spec_survives_its_record():
    spec = replace(WANT, networks=(replace(NET, addresses=("192.0.2.11/24",), mtu=1400),), metadata={"a": [1]}, quota=3)
    assert ZoneSpec.from_dict(spec.to_dict()) == spec


def test_spec_reads_macs_in_any_case():
    network = {"name": "eth0", "bridge": "br0", "mac": "02:AB:00:00:00:01"}
    assert ZoneSpec.from_dict({"name": "a", "uuid": UUID, "networks": [network]}).networks[0].mac == "02:ab:00:00:00:01"


@pytest.mark.parametrize("volume", [{"path": "/srv", "owner": "mysql"}, {"path": "/srv", "owner": 27}])
def test_spec_takes_owners_by_name_and_number(volume):
    spec = ZoneSpec.from_dict({"name": "a", "uuid": UUID, "volumes": {"data": volume}})
    assert spec.volumes[0].owner == str(volume["owner"])


@pytest.mark.parametrize("volume", ["/srv", {"owner": "mysql"}, {"path": "/srv", "size": 3}])
def test_spec_refuses_volumes_of_another_form(volume):
    with pytest.raises(ZoneError, match=r"volumes\.data: .*path"):
        ZoneSpec.from_dict({"name": "a", "uuid": UUID, "volumes": {"data": volume}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Aio1"}, "name: 'Aio1' .* DNS label"),
        ({"name": "a" * 64}, "at most 63"),
        ({"name": "../etc"}, "DNS label"),
        ({"uuid": UUID.upper()}, "uuid: .* lower case"),
        ({"uuid": "7"}, "uuid: '7'"),
        ({"store": "lvm"}, "store: 'lvm' .* overlay, dir, btrfs, zfs"),
        ({"memory": 1}, "memory: 1 .* at least 16"),
        ({"cpu_cap": 0}, "cpu_cap: 0 .* at least 1"),
        ({"quota": 0}, "quota: 0"),
        ({"idmap_base": 0}, "idmap_base: 0 .* no user of the zone is a user of its host"),
        ({"devices": ("/dev/kvm",)}, "devices: .* privileged"),
        ({"capabilities": ("all",)}, "capabilities: .* privileged"),
        ({"privileged": True, "devices": ("/etc/shadow",)}, "devices: '/etc/shadow'"),
        ({"privileged": True, "devices": ("/dev/../etc/shadow",)}, "devices"),
        ({"privileged": True, "capabilities": ("x\nlxc.hook",)}, "capabilities"),
        ({"networks": (replace(NET, name="interface-name-x"),)}, r"networks\[0\].name .* 15 characters"),
        ({"networks": (NET, NET)}, r"networks\[1\].name: 'eth0' .* used once"),
        ({"networks": (replace(NET, bridge="br0\nlxc.hook"),)}, r"networks\[0\].bridge"),
        ({"networks": (replace(NET, mac="01:00:00:00:00:01"),)}, "mac: .* unicast"),
        ({"networks": (replace(NET, prefix=None),)}, "prefix: None"),
        ({"networks": (replace(NET, address="192.0.2.300"),)}, "address: '192.0.2.300'"),
        ({"networks": (replace(NET, vips=("192.0.2.5/24",)),)}, "vips: '192.0.2.5/24' .* without a prefix"),
        ({"networks": (replace(NET, gateway="198.51.100.1"),)}, "gateway: .* inside the network"),
        ({"networks": (replace(NET, mtu=100),)}, "mtu: 100 .* 576"),
        ({"volumes": (Volume("../x", "/srv"),)}, "volumes"),
        ({"volumes": (Volume("x", "srv"),)}, "volumes.x.path: 'srv' .* absolute"),
        ({"volumes": (Volume("x", "/srv/../etc"),)}, "volumes.x.path"),
        ({"volumes": (Volume("x", "/a b"),)}, "volumes.x.path"),
        ({"volumes": (Volume("x", "/srv"), Volume("y", "/srv"))}, "volumes.y.path: '/srv' .* no other volume"),
    ],
)
def test_validate_refuses(changes, message):
    with pytest.raises(ZoneError, match=message.replace(".name ", ".name: ")):
        validate(replace(WANT, **changes))


def test_validate_takes_a_full_description():
    validate(
        replace(WANT, privileged=True, devices=("/dev/net/tun",), capabilities=("sys_time",), cpu_cap=250, quota=1)
    )
