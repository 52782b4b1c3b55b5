# SPDX-License-Identifier: GPL-3.0-or-later
"""What module_utils/smartos/vmadm_properties.py predicts is what the recordings of vmadm's own code show."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import vmadm_changes as changes
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import vmadm_plan as plan
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import vmadm_predict as predict
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import vmadm_properties as vp

CHECKOUT = Path(__file__).resolve().parents[4]
GOLDEN = Path(os.environ.get("SMARTOS_GOLDEN") or CHECKOUT.parent / "shared/smartos/golden")
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"no recordings of vmadm at {GOLDEN}; SMARTOS_GOLDEN says where they are"
)
MASKED = re.compile(r"<(uuid|mac|time|hex64|int)>")


def recorded(name: str) -> list[dict]:
    path = GOLDEN / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def world_vms(world: str) -> dict[str, dict]:
    return {vm["uuid"]: vm for vm in json.loads((GOLDEN / "worlds" / f"{world}.json").read_text())["vms"]}


def masked(value: object) -> bool:
    return isinstance(value, str) and bool(MASKED.search(value))


def without_masked(items: list[dict]) -> list[dict]:
    return [{key: value for key, value in item.items() if not masked(value)} for item in items]


def given(payload: dict) -> dict:
    """A payload as the module makes it, with the items as descriptions have them."""
    out = dict(payload)
    if "nics" in out:
        out["nics"] = [
            {key: value for key, value in vp.modern_nic(nic).items() if key != "primary" or value}
            for nic in out["nics"]
        ]
    if isinstance(out.get("fs_allowed"), str):
        out["fs_allowed"] = out["fs_allowed"].split(",")
    return out


@pytest.mark.parametrize("item", recorded("shapes.jsonl"), ids=lambda item: item["id"])
def test_a_created_vm_is_predicted(item):
    predicted = predict.created(given(item["payload"]))
    shown = {
        **item["get"],
        "nics": without_masked(item["get"]["nics"]),
        "disks": without_masked(item["get"].get("disks", [])),
    }
    actual = vp.normal(shown)
    for name in set(item["payload"]) & {"zfs_data_compression", "indestructible_zoneroot"}:
        assert name not in item["get"]  # these two live in ZFS alone, which the recordings do not have
        actual[name] = item["payload"][name]
    for kind in ("nics", "disks"):
        for mine, theirs in zip(predicted[kind], shown[kind], strict=True):
            for name in set(mine) - set(theirs):
                if name in ("mac", "path", "uuid", "size", "refreservation", "block_size"):
                    del mine[name]
            mine.pop("compression", None)  # in ZFS alone as well
    names = [name for name in vp.PROPERTIES if name in predicted and not masked(actual.get(name))]
    if item["state"] == "stopped":
        names.remove("autoboot")  # these were stopped after they were made, as vmadm stop does it
    else:
        assert predicted["state"] == "running" or item["payload"]["autoboot"] is False
    assert {name: (predicted[name], actual[name]) for name in changes.unlike(predicted, actual, names)} == {}


def _numbers(payload: dict) -> dict:
    return {
        name: int(value)
        for name, value in payload.items()
        if name in vp.PROPERTIES and vp.PROPERTIES[name].type == "int" and value is not None
    }


@pytest.mark.parametrize("item", [one for one in recorded("normalize.jsonl") if one["ok"]], ids=lambda item: item["id"])
def test_what_vmadm_makes_of_a_payload_is_predicted(item):
    dropped = set(item["dropped"])
    payload = {name: value for name, value in given(item["payload"]).items() if name not in dropped}
    for kind in vp.ITEMS:
        gone = {name.rpartition(".")[2] for name in dropped if name.startswith(f"{kind}.*.")}
        if kind in payload:
            payload[kind] = [{key: value for key, value in one.items() if key not in gone} for one in payload[kind]]
    if item["action"] == "update":
        have = vp.normal(world_vms(item["world"])[item["existing_vm"]])
        predicted = predict.memory(item["brand"], {k: v for k, v in payload.items() if k in vp.PROPERTIES}, have)
        assert _numbers(predicted) == _numbers(item["effective"])
        if item["payload"].get("docker") and "docker" not in dropped:
            assert item["effective"].items() >= predict._docker(item["brand"], payload, have).items()
        return
    if payload.get("cpu_shares") == 0 or item["payload"].get("autoboot") == "false":
        pytest.skip("a value that the module does not send in this form")
    state = predict.created(payload)
    expected = _numbers(item["effective"])
    if item["brand"] in vp.ZONES:
        expected.pop("ram", None)
    shown = {name for name in expected if vp.PROPERTIES[name].shown}
    if item["effective"].get("cpu_shares", 0) > vp.MOST_SHARES:
        shown.remove("cpu_shares")  # the limit is applied on its way to zonecfg
    assert {name: state[name] for name in shown} == {name: expected[name] for name in shown}
    for kind in vp.ITEMS:
        for mine, theirs in zip(state[kind], item["effective"].get(f"add_{kind}", []), strict=True):
            for name, value in theirs.items():
                if not masked(value) and name in mine:
                    assert mine[name] == value


@pytest.mark.parametrize("world", ["bare", "empty", "mixed", "pools"])
def test_a_vm_described_as_it_is_needs_nothing(world):
    for vm in world_vms(world).values():
        state = vp.normal(vm)
        properties = {name: value for name, value in state.items() if name in vp.PROPERTIES and value is not None}
        properties = {
            name: [
                {
                    key: each
                    for key, each in item.items()
                    if each is not None and state["brand"] in vp.ITEMS[name].properties[key].brands
                }
                for item in value
            ]
            if name in vp.ITEMS
            else value
            for name, value in properties.items()
            if state["brand"] in vp.PROPERTIES[name].brands and name != "uuid"
        }
        todo = plan.plan(vm, plan.Want(uuid=vm["uuid"], properties=properties))
        assert [str(step) for step in todo.steps] == []
        assert changes.update_payload(state, plan.Want(properties=properties)) == {}


def matrix() -> dict[str, dict[str, str]]:
    """The property matrix of the facts, from property to brand to the letters of its cell."""
    path = GOLDEN.parent / "facts.md"
    if not path.is_file():
        return {}
    rows = [line.strip("| \n").split("|") for line in path.read_text().splitlines() if line.startswith("| `")]
    brands = ["joyent", "joyent-minimal", "builder", "lx", "bhyve", "kvm"]
    return {
        row[0].strip(" `"): {
            "type": row[1].strip(),
            "limits": row[2].strip(),
            **dict(zip(brands, map(str.strip, row[3:]), strict=True)),
        }
        for row in rows
        if len(row) == 9
    }


TYPES = {
    "string": "str", "uuid": "str", "zpool": "str", "integer": "int", "boolean": "bool", "list": "list",
    "flat-object": "dict", "object-array": "objects",
}  # fmt: skip


@pytest.mark.skipif(not matrix(), reason="the facts with the property matrix are not beside the recordings")
def test_the_table_of_properties_is_the_matrix_of_the_facts():
    rows = matrix()
    assert len(rows) > 150
    flat = dict(vp.PROPERTIES)
    for kind, items in vp.ITEMS.items():
        flat.update({f"{kind}.*.{name}": one for name, one in items.properties.items()})
    settable = {}
    for name, row in rows.items():
        brands = tuple(brand for brand in vp.BRANDS if set(row[brand]) & set("CA"))
        updates = any("U" in row[brand] for brand in vp.BRANDS)
        if brands and not name.startswith("add_"):
            settable[name] = (TYPES[row["type"]], set(brands), updates)
    other_names = {alias for aliases in vp.ALIASES.values() for alias in aliases}
    assert set(settable) - other_names - {"disks.*.dangerous_allow_shrink"} == set(flat) - {
        "disks.*.dangerous_allow_shrink"
    }
    for name, (kind, brands, updates) in settable.items():
        if name in other_names:
            continue
        one = flat[name]
        assert one.type == kind, name
        assert set(one.brands) == brands, name
        # The items of a list and whole mappings are updated by add_, update_, remove_ and set_.
        if one.type not in ("objects", "dict") and name not in NOT_CHANGED:
            assert one.update == updates, name
        limits = rows[name]["limits"]
        least = re.search(r"min (-?\d+)", limits)
        assert (one.least is None) == (least is None) and (least is None or int(least.group(1)) == one.least), name
        absent = re.search(r"absent=(\w+)", limits)
        if absent and absent.group(1) != "none":
            assert str(one.absent).lower() == absent.group(1), name


# vmadm takes these in an update, but they are what it knows the item by, or it leaves them as they are (UPDATABLE_NIC_PROPS).
NOT_CHANGED = {
    "nics.*.mac", "nics.*.interface", "nics.*.vrrp_vrid", "disks.*.path", "filesystems.*.target", "pci_devices.*.path",
}  # fmt: skip
