# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cells Nova must know, and what is found out without loading Nova; that they are mapped is shown by the scenarios."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = {
    "zonestack-nova-cells": ROOT / "services/nova/cells.py",
    "zonestack-schema": ROOT / "roles/openstack_service/files/schema.py",
}
ONE = "rabbit://nova:p@10.0.0.1:5671/nova"
THREE = "rabbit://nova:p@10.0.0.1:5671,nova:p@10.0.0.2:5671,nova:p@10.0.0.3:5671/nova"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    sys.dont_write_bytecode = True
    folder = tmp_path_factory.mktemp("bin")  # beside one another, as in a zone
    for name, source in PROGRAMS.items():
        (folder / name).write_bytes(source.read_bytes())
    loader = importlib.machinery.SourceFileLoader("nova_cells", str(folder / "zonestack-nova-cells"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("nova_cells", loader))
    sys.modules["nova_cells"] = module  # its dataclass looks itself up
    loader.exec_module(module)
    return module


def test_cell1_is_mapped_by_templates_without_a_secret(cells):
    assert cells.transport_template(ONE) == "{scheme}://{username}:{password}@{hostname}:{port}/{path}"
    assert cells.transport_template(THREE).count("{password") == 3
    assert "{username3}:{password3}@{hostname3}:{port3}/{path}" in cells.transport_template(THREE)
    assert not any(
        "nova:p" in cell.transport_url + cell.database_connection for cell in cells.wanted_cells("c0", THREE)[1:]
    )


def test_cells_are_mapped_once(cells):
    wanted = cells.wanted_cells("mysql://c0", ONE)
    found = [wanted[0], cells.Cell("cell1", "some uuid", wanted[1].transport_url, wanted[1].database_connection)]
    assert cells.unmapped(wanted, found) == []
    assert [cell.name for cell in cells.unmapped(wanted, [])] == ["cell0", "cell1"]


def test_a_changed_password_or_a_further_node_is_mapped_anew(cells):
    found = [cells.Cell("cell0", cells.CELL0, "none:///", "mysql://old"), cells.Cell("cell1", "u", *_urls(cells, ONE))]
    assert [cell.name for cell in cells.unmapped(cells.wanted_cells("mysql://new", ONE), found)] == ["cell0"]
    assert [cell.name for cell in cells.unmapped(cells.wanted_cells("mysql://old", THREE), found)] == ["cell1"]


def _urls(cells, transport):
    cell1 = cells.wanted_cells("", transport)[1]
    return cell1.transport_url, cell1.database_connection


def test_what_is_done_side_by_side_is_waited_for_and_may_fail(cells, tmp_path):
    cells.side_by_side({name: (tmp_path / name).touch for name in ("a", "b")})
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    with pytest.raises(cells.CellsError, match="the schema of bad could"):
        cells.side_by_side({"good": lambda: None, "bad": lambda: os._exit(3)})


def test_a_missing_secret_is_named(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "ETC", tmp_path)
    with pytest.raises(cells.CellsError, match=r"database\.conf"):
        cells.Configuration()


@pytest.mark.parametrize("arguments", [[], ["help"], ["discover"], ["check", "host"]])
def test_a_wrong_call_is_explained(cells, arguments, capsys):
    assert cells.main(arguments) == 2
    assert "zonestack-nova-cells discover HOST" in capsys.readouterr().err
