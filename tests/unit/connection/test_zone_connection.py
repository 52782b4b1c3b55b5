# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor that runs beside a command in a zone, here without a zone: the same shell, on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.connection.lxc import Connection
from ansible_collections.zonestack.openstack.plugins.plugin_utils import zone_connection as unit

MARK = "zonestack-0123"


def supervised(command: str, limit: int = 900) -> list[str]:
    return ["/bin/sh", "-c", unit.SUPERVISOR, "zone-command", str(limit), MARK, command]


def run(command: str, data: bytes = b"", limit: int = 900) -> tuple[int | None, bytes, bytes]:
    rc, out, err = unit.run_local(supervised(command, limit), (b"%d\n" % len(data), data))
    assert rc == 0
    status, err = unit.split_trailer(MARK, err)
    return status, out, err


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until_gone(*pids: int) -> None:
    end = time.monotonic() + 120
    while any(map(alive, pids)):
        assert time.monotonic() < end, f"still running: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.02)


@pytest.mark.parametrize("code", [0, 1, 124, 126, 127, 255])
def test_supervisor_reports_the_exit_code(code: int) -> None:
    assert run(f"exit {code}") == (code, b"", b"")


def test_supervisor_reports_a_signal() -> None:
    assert run("kill -9 $$")[0] == 128 + signal.SIGKILL


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_supervisor_feeds_the_command(size: int) -> None:
    data = os.urandom(size)
    assert run("cat", data) == (0, data, b"")


def test_supervisor_lets_a_command_ignore_its_input() -> None:
    assert run("exec <&-; echo x", bytes(1_000_000)) == (0, b"x\n", b"")


def test_supervisor_ends_at_the_limit_also_while_it_feeds() -> None:
    start = time.monotonic()
    assert run("sleep 1000", bytes(1_000_000), limit=1)[0] == unit.TIMED_OUT
    assert run("sleep 1000", limit=1)[0] == unit.TIMED_OUT
    assert time.monotonic() - start < 900


def test_supervisor_ends_everything_at_the_limit() -> None:
    command = "trap '' TERM; sleep 1000 & echo $!; (setsid sleep 1001 & echo $!); echo $$; while :; do sleep 1; done"
    for limit in (1, 10, 100):  # the first one that lets the command come as far as its loop
        status, out, _err = run(command, limit=limit)
        assert status == unit.TIMED_OUT
        if len(out.split()) == 3:
            break
    background, detached, deaf = map(int, out.split())
    until_gone(background, deaf)
    assert alive(detached), "what has left for init is nobody's to end"
    os.kill(detached, signal.SIGKILL)


def test_supervisor_ends_the_command_when_the_client_has_gone() -> None:
    with subprocess.Popen(
        supervised("echo $$; sleep 1000; :"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"0\n")
        process.stdin.flush()
        command = int(process.stdout.readline())
        assert alive(command)
        process.stdin.close()
        process.stdin = None
        until_gone(command)


@pytest.mark.parametrize("turn", range(3))
def test_supervisor_ends_also_what_starts_meanwhile(turn: int) -> None:
    """A command that starts processes without a pause has none that lives on when its client has gone."""
    mark = f"1000.{os.getpid():07d}{turn}"
    command = f"echo; i=0; while [ $i -lt 200 ]; do sleep {mark} & i=$((i + 1)); done; wait"
    with subprocess.Popen(
        supervised(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"0\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdin.close()
        process.stdin = None
        process.wait(timeout=600)
    running = [
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _content(path)
    ]
    try:
        until_gone(*running)
    finally:
        for pid in filter(alive, running):
            os.kill(pid, signal.SIGKILL)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_supervisor_leaves_no_process_behind() -> None:
    limit = 1_000_000 + os.getpid()  # marks the processes that watch over this command
    watching = f"grep -lz '^{limit}$' /proc/[0-9]*/cmdline 2>/dev/null | grep -v self"
    status, out, _err = run(f"until grep -qz '^timeout$' $({watching}); do :; done; {watching}", limit=limit)
    pids = [int(line.split("/")[2]) for line in out.decode().splitlines()]
    assert status == 0
    assert len(pids) >= 2, "the supervisor and its timeout"
    until_gone(*pids)


def test_run_local_does_not_wait_for_a_daemon_with_an_inherited_output() -> None:
    start = time.monotonic()
    status, out, _err = run("sleep 1000 & echo $!")
    assert status == 0
    assert time.monotonic() - start < 900
    os.kill(int(out), signal.SIGKILL)


def test_split_trailer() -> None:
    assert unit.split_trailer("m", b"oops\n\nm 3\n") == (3, b"oops\n")
    assert unit.split_trailer("m", b"a\nm 0\nof a daemon") == (0, b"aof a daemon")
    assert unit.split_trailer("m", b"a\nm late\nb\nm 143\n") == (unit.TIMED_OUT, b"ab")
    assert unit.split_trailer("m", b"a\nm late\n") == (None, b"a")
    assert unit.split_trailer("m", b"lxc-attach: no\nM 0\n") == (None, b"lxc-attach: no\nM 0\n")


def test_lxc_enter_and_inspect() -> None:
    plugin = Connection.__new__(Connection)
    assert plugin.enter("z", ["sh", "-c", "x"], {"LANG": "C.UTF-8", "HOME": "/root"}) == [
        "lxc-attach", "-n", "z", "--clear-env", "-v", "LANG=C.UTF-8", "-v", "HOME=/root", "--", "sh", "-c", "x",
    ]  # fmt: skip
    assert plugin.inspect("z") == ["lxc-info", "-n", "z"]
