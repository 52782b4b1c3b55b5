# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module zfs decides, also for what a ZFS without volumes and holds cannot be asked: see tests/integration."""

from __future__ import annotations

import struct

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import zfs, zfs_model, zfs_plan
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.zfs_model import (
    Dataset,
    Property,
    Stream,
    Want,
    ZfsError,
)
from ansible_collections.zonestack.openstack.plugins.modules import zfs as module

MIB = 1024**2


def volume(size, **more):
    return Dataset("p/v", "volume", 1, properties={"volsize": Property(str(size), "local"), **more})


def lines(commands):
    return [str(command) for command in commands]


def test_documentation_is_the_argument_spec():
    keys = ("type", "elements", "required", "default", "choices")

    def facts(options):
        return {name: {key: option[key] for key in keys if key in option} for name, option in options.items()}

    assert facts(yaml.safe_load(module.DOCUMENTATION)["options"]) == facts(module.ARGUMENTS)


def test_every_example_is_a_description():
    for task in yaml.safe_load(module.EXAMPLES):
        given = {name: spec.get("default") for name, spec in module.ARGUMENTS.items()} | task["zonestack.openstack.zfs"]
        zfs_plan.validate(module.wanted(given))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("512", 512),
        ("10G", 10 * 1024**3),
        ("10g", 10 * 1024**3),
        ("10GB", 10 * 1024**3),
        ("1.5K", 1536),
        ("1B", 1),
        ("2Z", 2 * 1024**7),
        ("none", None),
        ("gzip-6", None),
        ("10 G", None),
        ("-1", None),
        ("", None),
    ],
)
def test_sizes(text, number):
    assert zfs_model.number(text) == number


@pytest.mark.parametrize(
    ("name", "have", "want", "same"),
    [
        ("quota", "10737418240", "10G", True),
        ("quota", "0", "none", True),
        ("quota", "10737418240", "10.5G", False),
        ("filesystem_limit", "none", "none", True),
        ("filesystem_limit", str(2**64 - 1), "none", True),
        ("filesystem_limit", "0", "none", False),
        ("recordsize", "131072", "128K", True),
        ("copies", "2", "2", True),
        ("compression", "gzip", "gzip-6", True),
        ("compression", "gzip", "gzip-9", False),
        ("mountpoint", "none", "none", True),
        ("org.example:size", "1024", "1K", False),
    ],
)
def test_values_are_compared_as_zfs_understands_them(name, have, want, same):
    assert zfs_model.same(name, have, want) is same


@pytest.mark.parametrize(
    ("want", "message"),
    [
        (Want("-rf"), "name: '-rf' is not valid"),
        (Want("p/../x@a@b"), "name: 'p/../x@a@b' is not valid"),
        (Want("p/a", origin="p/b"), "origin: 'p/b' is not valid: use a snapshot (pool/path@name)"),
        (Want("p/a", origin="q/b@s"), "origin: 'q/b@s' is not valid: use a snapshot of the same pool"),
        (Want("p/a", holds=("t",)), "holds: ('t',) is not valid: use it only for a snapshot"),
        (Want("p/a", send_to="/f"), "send_to: '/f' is not valid: use it only for a snapshot"),
        (
            Want("p/a@s", incremental_from="@r"),
            "incremental_from: '@r' is not valid: use an earlier snapshot of the same dataset, together with send_to",
        ),
        (Want("p/a@s", send_to="/f", incremental_from="p/b@r"), "incremental_from: 'p/b@r' is not valid"),
        (Want("p/a@s", holds=("t",), released=("t",)), "released: 't' is not valid: it is also in holds"),
        (Want("p/a@s", holds=("-r",)), "holds: '-r' is not valid"),
        (Want("p/a", properties={"Quota": "1"}), "properties: 'Quota' is not valid"),
        (Want("p/a", properties={"o": "1=2\t"}), "properties.o: '1=2\\t' is not valid"),
        (Want("p/a", properties={"quota": "1"}, inherited=("quota",)), "inherited: 'quota' is not valid"),
        (
            Want("p/a", properties={"volsize": "10000001"}),
            "properties.volsize: '10000001' is not valid: use a multiple of 128K",
        ),
        (Want("p/a", properties={"volsize": "big"}), "properties.volsize: 'big' is not valid"),
        (Want("p/a", properties={"volsize": "0"}), "properties.volsize: '0' is not valid"),
        (
            Want("p/a", properties={"refreservation": "auto"}),
            "properties.refreservation: 'auto' is not valid: use a size",
        ),
    ],
)
def test_a_wrong_description_is_refused(want, message):
    with pytest.raises(ZfsError) as refusal:
        zfs_plan.validate(want)
    assert message in str(refusal.value)
    assert repr(want.name) in str(refusal.value)


def test_a_value_that_is_no_value_is_refused():
    given = {name: spec.get("default") for name, spec in module.ARGUMENTS.items()}
    with pytest.raises(ZfsError, match=r"dataset 'p': properties.quota: \['1G'\] is not valid"):
        module.wanted({**given, "name": "p", "properties": {"quota": ["1G"]}})


def test_volume_is_made_sparse_or_not():
    assert lines(zfs_plan.creation(Want("p/v", properties={"volsize": "1G"}), {})) == ["zfs create -V 1G p/v"]
    sparse = Want("p/v", properties={"volsize": "1G", "refreservation": "none"}, parents=True)
    assert lines(zfs_plan.creation(sparse, {"refreservation": Property("0", "default")})) == [
        "zfs create -p -V 1G -o refreservation=none p/v"
    ]


def test_clone_of_a_volume_is_made_larger_afterwards():
    want = Want("p/c", origin="p/v@s", properties={"volsize": "2G"})
    assert lines(zfs_plan.creation(want, {})) == ["zfs clone p/v@s p/c", "zfs set volsize=2G p/c"]


def test_volume_grows_and_never_shrinks():
    have = volume(10 * MIB)
    assert lines(zfs_plan.changes(have, Want("p/v", properties={"volsize": "20M"}))) == ["zfs set volsize=20M p/v"]
    assert zfs_plan.changes(have, Want("p/v", properties={"volsize": "10240K"})) == []
    with pytest.raises(ZfsError, match="has 10485760 bytes, and 5242880 are wanted: this module shrinks no volume"):
        zfs_plan.changes(have, Want("p/v", properties={"volsize": "5M"}))


def test_volume_grows_before_its_reservation_does():
    have = volume(10 * MIB, refreservation=Property(str(10 * MIB), "local"))
    want = Want("p/v", properties={"refreservation": "20M", "volsize": "20M"})
    assert lines(zfs_plan.changes(have, want)) == ["zfs set volsize=20M p/v", "zfs set refreservation=20M p/v"]


def test_holds_that_others_made_stay():
    have = Dataset("p/a@s", "snapshot", 1, userrefs=2, holds=("do_not_destroy", "mine"))
    want = Want("p/a@s", holds=("new", "mine"), released=("old",))
    assert lines(zfs_plan.changes(have, want)) == ["zfs hold new p/a@s"]
    assert zfs_plan.shown(want, have)["holds"] == ["mine"]
    assert zfs_plan.foretold(want, have)["holds"] == ["mine", "new"]


def test_dependents_are_everything_below_and_clones_elsewhere():
    there = {"p": None, "p/a": None, "p/a/b": None, "p/a@s": None, "p/ab": None, "p/c": "p/a@s", "p/d": "p/ab@s"}
    assert zfs_plan.dependents("p/a", there) == ["p/a/b", "p/a@s", "p/c (a clone of p/a@s)"]
    assert zfs_plan.dependents("p/a@s", there) == ["p/c (a clone of p/a@s)"]
    assert zfs_plan.dependents("p/ab", there) == ["p/d (a clone of p/ab@s)"]
    assert zfs_plan.dependents("p/c", there) == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_head_of_a_stream_in_both_byte_orders(tmp_path, order):
    """As zstreamdump(8) reads it: a sender writes in its own byte order."""
    path = tmp_path / "stream"
    path.write_bytes(struct.pack(order + "IIQQQIIQQ256s", 0, 0, 0x2F5BACBAC, 1, 0, 2, 0, 7, 5, b"p/a@s") + b"more")
    assert zfs.read_stream(str(path)) == Stream("p/a@s", 7, 5)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ZfsError, match="is not a stream of `zfs send`"):
        zfs.read_stream(str(path))
    with pytest.raises(ZfsError, match="No such file or directory"):
        zfs.read_stream(str(tmp_path / "none"))
