# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ``ansible_collections.zonestack.openstack`` importable from a checkout that lies anywhere."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

CHECKOUT = Path(__file__).resolve().parent.parent

# Most tests start Python programs, and compiling what these import takes longer than running it. It is kept, but not beside the
# sources: a checkout stays clean.
sys.dont_write_bytecode = False
sys.pycache_prefix = str(CHECKOUT / ".cache/bytecode")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

# Ansible finds a collection by its folder's name, so the checkout is linked under the name that it has when installed.
_link_root = tempfile.TemporaryDirectory(prefix="zonestack-collections-")
_namespace = Path(_link_root.name, "ansible_collections", "zonestack")
_namespace.mkdir(parents=True)
(_namespace / "openstack").symlink_to(CHECKOUT)
_AnsibleCollectionFinder(paths=[_link_root.name], scan_sys_paths=False)._install()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each integration module on one worker, as its tests share a bridge and containers, and all first contacts."""
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group(f"integration-{item.path.stem}"))
        elif "contact" in item.path.parts and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("contact"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Forget the bytecode of what tests had copied into temporary folders: no other run has use for it."""
    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(f"{sys.pycache_prefix}{tempfile.gettempdir()}", ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the line of scenarios, which takes longest, go before what another worker does beside it; what a test starts inherits it."""
    if "PYTEST_XDIST_WORKER" in os.environ and os.geteuid() == 0:
        group = item.get_closest_marker("xdist_group")
        # Above whatever else the machine has to do, not below it: the rest would hardly come forward there.
        os.setpriority(os.PRIO_PROCESS, 0, -5 if group and group.args[:1] == ("scenario",) else 0)


Module = t.Callable[..., dict[str, t.Any]]
"""Calls a module with options as keywords, and returns its result."""


@pytest.fixture
def run_module(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> t.Callable[..., dict[str, t.Any]]:
    """Run a module's main with options: its name, these, and variables added to the environment."""

    def run(name: str, options: dict[str, t.Any], env: t.Mapping[str, str] | None = None) -> dict[str, t.Any]:
        module = importlib.import_module(f"ansible_collections.zonestack.openstack.plugins.modules.{name}")
        flags = {key.removeprefix("_ansible_"): value for key, value in options.items() if key.startswith("_ansible_")}
        arguments = {key: value for key, value in options.items() if not key.startswith("_ansible_")}
        with monkeypatch.context() as patch:
            for key, value in (env or {}).items():
                patch.setenv(key, value)
            with patch_module_args({**arguments, **{f"_ansible_{key}": value for key, value in flags.items()}}):
                capsys.readouterr()
                with pytest.raises(SystemExit):
                    module.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def run_process() -> t.Callable[..., dict[str, t.Any]]:
    """The same as Ansible does it, in a process of its own."""

    def run(name: str, options: dict[str, t.Any], env: t.Mapping[str, str] | None = None) -> dict[str, t.Any]:
        argv = [sys.executable, "-m", f"ansible_collections.zonestack.openstack.plugins.modules.{name}"]
        with tempfile.TemporaryDirectory() as scratch:
            given = json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_remote_tmp": scratch, **options}})
            variables = {**os.environ, "PYTHONPATH": _link_root.name, **(env or {})}
            done = subprocess.run(
                argv, input=given, env=variables, capture_output=True, text=True, timeout=600, check=False
            )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def settle() -> t.Callable[..., dict[str, t.Any]]:
    """Have a module do something in check mode, really, and once more: what was foretold happens, and happens once."""

    def three_times(call: Module, **options: t.Any) -> dict[str, t.Any]:
        told = call(**options, _ansible_check_mode=True)
        done = call(**options)
        again = call(**options)
        assert "msg" not in done, done["msg"]
        exact = ("changed", "actions", "deleted", "updated", "sources", "diff")
        assert {key: told.get(key) for key in exact} == {key: done.get(key) for key in exact}
        assert done["changed"] is (done["diff"]["before"] != done["diff"]["after"])
        assert again["changed"] is False
        assert again["diff"]["before"] == again["diff"]["after"] == done["diff"]["after"]
        return done

    return three_times


@pytest.fixture
def refusal() -> t.Callable[..., str]:
    """The message of a call that must fail, in check mode with the same words."""

    def twice(call: Module, **options: t.Any) -> str:
        told, done = call(**options, _ansible_check_mode=True), call(**options)
        assert told["failed"] and done["failed"]
        assert told["msg"] == done["msg"]
        return done["msg"]

    return twice


@pytest.fixture
def serve() -> t.Iterator[t.Callable[[socketserver.BaseServer], t.Any]]:
    """Have a server answer in a thread until the test ends; returns the server."""
    with contextlib.ExitStack() as ends:

        def start(server: socketserver.BaseServer) -> socketserver.BaseServer:
            ends.enter_context(server)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            ends.callback(thread.join)
            ends.callback(server.shutdown)
            return server

        yield start
