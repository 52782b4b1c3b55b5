# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the Linux machine needs no machine: lines, names, metadata files, translations."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from smartos_sim import control, lxc_config, metadata, zfs_cli, zlogin


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a 'b' \"c\" $D; e"], "a 'b' \"c\" $D; e"),
        (["echo", "a b", "c\td", "$e"], "echo 'a b' 'c\td' $e"),
        (["echo", "it's here"], "echo 'it's here'"),
        (["echo", ""], "echo "),
    ],
)
def test_zlogin_joins_as_the_real_one(words: list[str], line: str) -> None:
    assert zlogin.shell_line(words) == line


def test_bridges_have_names_that_linux_takes() -> None:
    names = [
        lxc_config.bridge(tag, vlan) for tag in ("admin", "external", "a_very_long_tag_0") for vlan in (0, 7, 4094)
    ]
    assert len(set(names)) == len(names) and all(len(name) <= 15 for name in names)


@pytest.fixture
def vm(tmp_path: Path) -> dict[str, t.Any]:
    made = {
        "zonepath": str(tmp_path), "customer_metadata": {"a": "1", "b": "2"}, "internal_metadata": {"root_pw": "x", "ns:k": "y", "in": "z"},
        "internal_metadata_namespaces": ["ns"], "tags": {"role": "db"}, "nics": [], "uuid": "u", "max_physical_memory": 256,
    }  # fmt: skip
    metadata.write_all(made)
    return made


def _said(vm: dict[str, t.Any], call: str, key: str = "", value: str = "") -> tuple[int, str]:
    answer = metadata._answer(vm, {"call": call, "key": key, "value": value})
    return answer["code"], answer["text"]


def test_a_guest_sees_its_own_metadata_and_passwords(vm: dict[str, t.Any]) -> None:
    assert _said(vm, "get", "a") == (0, "1")
    assert _said(vm, "get", "root_pw") == (0, "x")
    assert _said(vm, "get", "ns:k") == (0, "y")
    assert _said(vm, "get", "in")[0] == 1
    assert _said(vm, "list") == (0, "a\nb\nroot_pw\nns:k\n")
    assert _said(vm, "get", "sdc:tags.role") == (0, "db")
    assert _said(vm, "get", "sdc:max_physical_memory") == (0, "256")
    for key in ("root_pw", "ns:new", "sdc:alias"):
        assert _said(vm, "put", key, "v")[0] == 2
        assert _said(vm, "delete", key)[0] == 2


def test_an_update_leaves_what_the_guest_put(vm: dict[str, t.Any]) -> None:
    assert _said(vm, "put", "own", "3")[0] == 0
    after = {**vm, "customer_metadata": {"a": "9", "c": "4"}}
    metadata.write_changed(after, vm)
    assert metadata.read(vm)["customer_metadata"] == {"a": "9", "own": "3", "c": "4"}


def test_metadata_without_its_file_is_what_was_described(vm: dict[str, t.Any], tmp_path: Path) -> None:
    (tmp_path / "config" / "metadata.json").write_text("")
    assert metadata.read(vm)["customer_metadata"] == vm["customer_metadata"]


def test_what_zfs_fuse_lacks_becomes_a_user_property() -> None:
    assert zfs_cli._assignments("quota=1g") == ["quota=1g"]
    assert zfs_cli._assignments("zoned=on") == ["smartos-sim:zoned=on"]
    assert zfs_cli._assignments("compression=lz4") == ["compression=on", "smartos-sim:compression=lz4"]
    assert zfs_cli._assignments("compression=gzip") == ["compression=gzip", "smartos-sim:compression=none"]


@pytest.mark.parametrize(
    ("cell", "plain"),
    [("99.5G", str(int(99.5 * 2**30))), ("0", "0"), ("12%", "12"), ("1.00x", "1.00"), ("ONLINE", "ONLINE")],
)
def test_sizes_of_pools_become_bytes(cell: str, plain: str) -> None:
    assert zfs_cli._bytes(cell) == plain


@pytest.mark.parametrize("command", ["reboot", "power-off"])
def test_a_node_on_paper_has_no_power_to_cut(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMARTOS_SIM_STATE", str(tmp_path))
    assert control.main([command]) == 1
    assert "smartos-sim init" in capsys.readouterr().err
