# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program of schema steps reads from a service's revisions and configuration; what it does to a database the scenarios show."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "roles/openstack_service/files/schema.py"


@pytest.fixture(scope="module")
def guard():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("zonestack_schema", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("zonestack_schema", loader))
    loader.exec_module(module)
    return module


def test_the_newest_revisions_are_those_that_no_other_follows(guard):
    sources = [
        "revision = 'a'\ndown_revision = None\n",
        "revision: str = 'b'\ndown_revision: str | None = 'a'\n",
        "revision = 'c'\ndown_revision = 'a'\nbranch_labels = ('expand',)\n",
        "revision = 'd'\ndown_revision = ('b',)\ndepends_on = ('x',)\n",
        "from alembic import op\n",
    ]
    assert guard.newest(sources) == {"c", "d"}
    assert guard.newest([*sources, "revision = 'e'\ndown_revision = ('c', 'd')\n"]) == {"e"}


def test_a_revision_that_is_computed_is_none(guard):
    assert guard.revision("revision = name()\n") == (None, set())


def test_an_option_is_read_from_its_own_section(guard):
    text = "[DEFAULT]\nconnection = no\n\n[database]\n# origin\nconnection = mysql+pymysql://u:p@h:1/d?charset=utf8mb4&ssl_ca=/x\n"
    assert guard.option(text, "database", "connection") == "mysql+pymysql://u:p@h:1/d?charset=utf8mb4&ssl_ca=/x"
    with pytest.raises(LookupError, match=r"\[api_database\] connection is not set"):
        guard.option(text, "api_database", "connection")


def test_a_folder_without_revisions_is_never_current(guard):
    assert "holds no revisions" in guard.lacks("mysql://h/d", "no/such/folder")


@pytest.mark.parametrize(
    "arguments", [[], ["help"], ["current", "file", "section"], ["current", "f", "s", "v", "more"], ["make", "f", "s"]]
)
def test_called_otherwise_it_tells_how_and_touches_nothing(guard, arguments, capsys):
    assert guard.main(arguments) == 2
    assert "zonestack-schema make FILE SECTION COMMAND" in capsys.readouterr().err
