# SPDX-License-Identifier: GPL-3.0-or-later
"""The file half of zone_tree, on real files; its daemon half is tested in zones that run."""

from __future__ import annotations

import base64
import os
import types

import pytest

from ansible_collections.zonestack.openstack.plugins.modules.zone_tree import Tree, TreeError, probe


def entry(path, **more):
    return {"path": str(path), "mode": "0640", "owner": "root", "group": "root", "validate": [], **more}


def tree(check=False, **params):
    empty = {"directories": [], "files": [], "secret_files": [], "exclusive": []}
    made = Tree(types.SimpleNamespace(check_mode=check, params={**empty, **params}))
    return made


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root, so it needs to be root")


def test_a_new_file_is_written_with_its_mode_and_shown(tmp_path):
    target = tmp_path / "sub" / "a.conf"
    made = tree(files=[entry(target, content="x = 1\n")])
    made.apply()
    assert target.read_text() == "x = 1\n"
    assert target.stat().st_mode & 0o7777 == 0o640
    assert made.diffs[0]["after"] == "x = 1\n"


def test_a_second_run_is_silent(tmp_path):
    wanted = {"directories": [entry(tmp_path / "d", mode="0750")], "files": [entry(tmp_path / "d" / "f", content="x\n")]}
    tree(**wanted).apply()
    again = tree(**wanted)
    again.apply()
    assert again.written == []


def test_check_mode_tells_the_same_and_writes_nothing(tmp_path):
    wanted = {"files": [entry(tmp_path / "f", content="x\n")]}
    dry = tree(check=True, **wanted)
    dry.apply()
    assert not (tmp_path / "f").exists()
    real = tree(**wanted)
    real.apply()
    assert dry.diffs == real.diffs


def test_a_mode_alone_is_a_change(tmp_path):
    target = tmp_path / "f"
    target.write_text("x\n")
    target.chmod(0o644)
    made = tree(files=[entry(target, content="x\n")])
    made.apply()
    assert target.stat().st_mode & 0o777 == 0o640
    assert "0644" in made.diffs[0]["before"] and "0640" in made.diffs[0]["after"]


def hidden(text):
    return base64.b64encode(text.encode()).decode()


def test_a_secret_is_written_and_not_shown(tmp_path):
    made = tree(secret_files=[entry(tmp_path / "s", content=hidden("hunter2\n"))])
    made.apply()
    assert (tmp_path / "s").read_text() == "hunter2\n"
    assert "hunter2" not in str(made.diffs)


def test_a_refused_file_leaves_everything_as_it_was(tmp_path):
    good, bad = entry(tmp_path / "good", content="1\n"), entry(tmp_path / "bad", content="2\n", validate=["grep", "-q", "3", "{path}"])
    made = tree(files=[good, bad])
    with pytest.raises(TreeError, match="refused by grep; nothing was changed"):
        made.apply()
    assert list(tmp_path.iterdir()) == []


def test_an_exclusive_directory_loses_what_is_not_declared(tmp_path):
    (tmp_path / "7").write_text("old")
    made = tree(secret_files=[entry(tmp_path / "0", content=hidden("new"))], exclusive=[str(tmp_path)])
    made.apply()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]
    assert str(tmp_path / "7") in made.written


def test_an_unknown_owner_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TreeError, match="'nobody-here'.*image must create it"):
        tree(files=[entry(tmp_path / "a", content="1"), entry(tmp_path / "b", content="1", owner="nobody-here")]).apply()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_port_is_named():
    assert "port 1 of 127.0.0.1" in probe({"tcp": 1})
