# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time and only with the right secrets: the lock and its keepers are real processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
import yaml

import hold
from deployment import ROOT, Deployment, DeploymentError

LIMIT = 60.0
"""Seconds that tell a hang from an end."""
REQUEST = {"deployment": "aio", "lock": True, "wait": 0.0, "holder": "root on a, process 1"}


class Host:
    """A host as topology.yml has it."""

    backend, id = "lxc", 1


def local(_host: t.Any, script: str) -> list[str]:
    return ["sh", "-c", script]


def until(question: t.Callable[[], t.Any]) -> t.Any:
    """Wait for an answer that is true."""
    deadline = time.monotonic() + LIMIT
    while not (found := question()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return found


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hosts' folders below ``tmp_path`` instead of this machine's."""
    hold.compute(ROOT / "inventory/examples/aio/topology.yml")  # makes the collection importable
    texts = [
        text.replace(b'"/var/run"', f'"{tmp_path}"'.encode())
        .replace(b'"/var/lib/', f'"{tmp_path}/'.encode())
        .replace(b"/usr/bin/python3", sys.executable.encode())
        for text in hold.program()
    ]
    monkeypatch.setattr(hold, "program", lambda: texts)
    return tmp_path


def taken(**changes: t.Any) -> hold.Hold:
    one = hold.Hold("aio", {"aio1": Host()}, {**REQUEST, **changes}, local)
    one.take()
    return one


def test_one_run_at_a_time(run_folder: Path) -> None:
    first = taken()
    assert len(first.keepers) == 1 and (run_folder / "zonestack-run.aio").read_text() == REQUEST["holder"]
    with pytest.raises(DeploymentError, match=r"as host aio1 reports: root on a, process 1\. Nothing was changed"):
        taken(holder="root on b, process 2")
    other = taken(deployment="other")
    looking = taken(lock=False)
    assert len(other.keepers) == 1 and looking.owners == {"aio1": []}, (
        "another deployment, and who only looks, wait for nobody"
    )
    for one in (first, other, looking):
        one.release()
    assert list(run_folder.glob("zonestack-run*")) == []
    taken(holder="root on b, process 2").release()


def test_the_second_run_waits_for_the_first(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, ended, said = taken(), [], io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)

    def second() -> None:
        one = taken(holder="second", wait=LIMIT)
        ended.append((run_folder / "zonestack-run.aio").read_text())
        one.release()

    waiting = threading.Thread(target=second)
    waiting.start()
    until(lambda: "root on a, process 1. Waiting for it" in said.getvalue())
    assert ended == []
    first.release()
    waiting.join(LIMIT)
    assert ended == ["second"]


RUN = """\
import os, sys, time
sys.path[:0] = [{lib!r}, {here!r}]
import hold, test_hold
hold.compute(test_hold.ROOT / "inventory/examples/aio/topology.yml")
hold.program = lambda: [open(path, "rb").read() for path in {texts!r}]
one = test_hold.taken(holder="killed")
print("held", flush=True)
time.sleep({limit})
"""


def test_the_lock_dies_with_a_run_that_is_killed(run_folder: Path) -> None:
    texts = []
    for number, text in enumerate(hold.program()):
        texts.append(str(run_folder / f"program{number}"))
        Path(texts[-1]).write_bytes(text)
    lib = str(ROOT / "scripts/lib")
    code = RUN.format(lib=lib, here=str(Path(__file__).parent), texts=texts, limit=10 * LIMIT)
    from ansible_collections.zonestack.openstack.plugins.module_utils.host import ownership

    env = {**os.environ, "PYTHONPATH": str(Path(ownership.__file__).parents[6])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as killed:
        assert killed.stdout and killed.stdout.readline() == "held\n"
        with pytest.raises(DeploymentError, match="as host aio1 reports: killed"):
            taken()
        killed.send_signal(signal.SIGKILL)
    taken(wait=LIMIT).release()


def test_the_lock_dies_when_nothing_is_heard(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text.replace(b"SILENCE = 90.0", b"SILENCE = 1.0") for text in hold.program()]
    monkeypatch.setattr(hold, "program", lambda: texts)
    silent = hold.Keeper("aio1", Host(), REQUEST, local)
    assert (silent.answer(LIMIT) or {})["state"] == "held"
    taken(wait=LIMIT).release()
    silent.end()


def test_a_run_takes_its_lock_again_after_a_boot_of_the_host(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "BEAT", 0.1)
    one = taken()
    before = one.keepers[0].process
    before.kill()
    until(lambda: one.keepers[0].process is not before)
    with pytest.raises(DeploymentError):
        taken(holder="root on b, process 2")
    one.release()


def test_a_run_whose_lock_went_to_another_is_ended(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    first = taken()
    with first._talk:
        first.keepers[0].process.kill()
        second = taken(holder="root on b, process 2", wait=LIMIT)
        first._again(first.keepers[0])
    assert first.lost == "root on b, process 2 (says aio1)"
    monkeypatch.setattr(hold, "BEAT", 0.1)
    first._beat()
    signal.signal(signal.SIGTERM, before)
    assert asked == [signal.SIGTERM]
    for one in (first, second):
        one._over.set()
        for each in one.keepers:
            each.end()


def test_hosts_that_do_not_answer_keep_nobody_from_running(run_folder: Path) -> None:
    def way(host: t.Any, script: str) -> list[str]:
        return ["false"] if host is away else local(host, script)

    away = Host()
    one = hold.Hold("aio", {"a": away, "b": Host()}, REQUEST, way)
    one.take()
    assert [each.name for each in one.keepers] == ["b"]
    one.release()


# Whose the deployment is ------------------------------------------------------------------------------------------------


def checkout(folder: Path, secrets: bool = True) -> Deployment:
    """A checkout with the all-in-one and secrets of its own."""
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority

    deployment = Deployment("aio", folder)
    deployment.folder.mkdir(parents=True)
    deployment.topology.write_text((ROOT / "inventory/examples/aio/topology.yml").read_text())
    if secrets:
        deployment.secrets.write_text(yaml.safe_dump({"secrets": {"pki": new_authority("aio")._asdict()}}))
        deployment.secrets.chmod(0o600)
    return deployment


def test_other_secrets_are_refused_unless_that_is_wanted(run_folder: Path) -> None:
    mine, other, none = (checkout(run_folder / name, name != "none") for name in ("mine", "other", "none"))
    with hold.held(mine, way=local) as first:
        hold.claim(first, mine)
    note = json.loads((run_folder / "zonestack/owners/aio").read_text())
    assert note["secrets"] == hold.fingerprint_here(mine, "aio") and str(ROOT) in note["by"]
    with hold.held(mine, way=local), hold.held(mine, lock=False, way=local):
        pass
    for lock in (True, False):
        with pytest.raises(DeploymentError, match="has other secrets") as said, hold.held(other, lock=lock, way=local):
            pass
        assert "aio1: noted by" in str(said.value) and "Copy inventory/aio/secrets.yml from" in str(said.value)
        with (
            pytest.raises(DeploymentError, match=r"this checkout has no inventory/aio/secrets\.yml"),
            hold.held(none, lock=lock, way=local),
        ):
            pass
    assert json.loads((run_folder / "zonestack/owners/aio").read_text()) == note
    assert not none.secrets.exists() and list(run_folder.glob("zonestack-run*")) == []
    with hold.held(other, take_over=True, way=local) as taker:
        hold.claim(taker, other)
    with hold.held(other, way=local) as last:
        last.note(None)
    assert not (run_folder / "zonestack").exists(), "what belongs to nobody leaves nothing"


def test_zones_of_a_version_without_notes_are_asked(run_folder: Path) -> None:
    mine, other = (checkout(run_folder / name) for name in ("mine", "other"))
    zone = run_folder / "lxc/aio1-galera-1"
    (zone / "upper/etc/zonestack/tls").mkdir(parents=True)
    described = {"name": zone.name, "store": "overlay", "metadata": {"deployment": "aio"}}
    (zone / "zone.json").write_text(json.dumps(described))
    authority = yaml.safe_load(mine.secrets.read_text())["secrets"]["pki"]
    (zone / "upper/etc/zonestack/tls/ca.crt").write_text(authority["ca_certificate"])
    with hold.held(mine, way=local):
        pass
    with pytest.raises(DeploymentError, match="aio1: zones aio1-galera-1, with secrets"), hold.held(other, way=local):
        pass


def test_the_hosts_with_the_lowest_ids_keep_the_lock() -> None:
    computed = hold.compute(ROOT / "inventory/examples/production/topology.yml")
    hosts = hold.keepers_of(computed)
    assert len(hosts) == hold.KEEPERS
    assert [host.id for host in hosts.values()] == sorted(host.id for host in computed.topology.hosts.values())[
        : hold.KEEPERS
    ]
