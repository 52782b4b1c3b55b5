# SPDX-License-Identifier: GPL-3.0-or-later
"""The zlogin connection against a zlogin that does what is known of the real one; its zone is this machine.

Once with Linux' tools, as an lx zone has them, and once with what a native zone has: no timeout(1), no Linux /proc, and a head(1)
that waits for whole blocks.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.zonestack.openstack.plugins.connection.zlogin import Connection
from ansible_collections.zonestack.openstack.plugins.plugin_utils import zone_connection as unit

# Its own failures end with 1, several arguments are joined, the environment is fresh, and a killed command ends with 0.
ZLOGIN = """#!/bin/sh
zone=$1
shift
case $zone in
running) ;;
halted) echo "zlogin: login allowed only to running zones (halted is 'installed')." >&2; exit 1 ;;
broken) exit 0 ;;
*) echo "zlogin: zone '$zone' unknown" >&2; exit 1 ;;
esac
line=
for word in "$@"; do
    case $word in *' '*) [ $# -eq 1 ] || word="'$word'" ;; esac
    line="$line${line:+ }$word"
done
env -i PATH=/usr/sbin:/usr/bin:/bin TERM=dumb HOME=/ SHELL=/bin/sh LOGNAME=root /bin/sh -c "$line"
status=$?
[ $status -le 128 ] || exit 0
exit $status
"""
ZONEADM = """#!/bin/sh
case $2 in
running | broken) echo "5:$2:running:/zones/$2:6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11:joyent:excl:7" ;;
halted) echo "-:halted:installed:/zones/halted:6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b12:lx:excl:-" ;;
*) echo "zoneadm: $2: No such zone configured" >&2; exit 1 ;;
esac
"""
# copyout() of illumos' head.c: stdio's whole blocks of 1024 bytes, whatever is asked for.
HEAD = """#!{python}
import sys
count = int(sys.argv[2])
while count > 0:
    block = b""
    while len(block) < 1024:
        piece = sys.stdin.buffer.raw.read(1024 - len(block))
        if not piece:
            break
        block += piece
    if not block:
        break
    sys.stdout.buffer.raw.write(block[:count])
    count -= len(block)
"""


class Plain:
    def template(self, value: Any) -> Any:
        return value


def connect(zone: str) -> Any:
    connection = connection_loader.get(
        "zonestack.openstack.zlogin", PlayContext(), task_uuid="0", ansible_playbook_pid="0"
    )
    names = {"inventory_hostname": "web", "zone_name": zone, "zone_transport": "local", "zone_host_become": False}
    connection.set_options(var_options=connection._resolve_option_variables(names, Plain()), task_keys={"timeout": 10})
    return connection


@pytest.fixture(autouse=True, params=["lx", "joyent"])
def brand(request, tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("zlogin", ZLOGIN), ("zoneadm", ZONEADM), ("head", HEAD.replace("{python}", sys.executable))):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    if request.param == "joyent":
        text = unit.SUPERVISOR.replace("/proc/", "/no/proc/").replace("command -v timeout", "command -v no-timeout")
        monkeypatch.setattr(unit, "SUPERVISOR", text.replace("head -c", f"{tools}/head -c"))
    return request.param


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until_gone(pid: int) -> None:
    end = time.monotonic() + 120
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_exactly_one_argument_with_a_fresh_environment():
    plugin = Connection.__new__(Connection)
    argv = plugin.enter("z", ["sh", "-c", "echo 'a b'"], {"PATH": "/usr/bin", "HOME": "/root"})
    assert argv[:2] == ["zlogin", "z"] and len(argv) == 3
    assert shlex.split(argv[2]) == [
        "exec",
        "env",
        "-i",
        "PATH=/usr/bin:/opt/local/sbin:/opt/local/bin",
        "HOME=/root",
        "sh",
        "-c",
        "echo 'a b'",
    ]
    assert plugin.inspect("z") == ["zoneadm", "-z", "z", "list", "-p"]


@pytest.mark.parametrize("code", [0, 1, 126, 255])
def test_exit_codes_are_the_command_s(code):
    assert connect("running").exec_command(f"exit {code}") == (code, b"", b"")


def test_a_killed_command_does_not_look_successful():
    assert connect("running").exec_command("kill -9 $$")[0] == 128 + signal.SIGKILL


def test_quoting_survives_also_one_more_shell():
    words = [
        "'",
        '"',
        "$HOME",
        "`id`",
        "$(id)",
        "a  b",
        "new\nline",
        "tab\t",
        "*",
        "~",
        "\\",
        "!",
        "ä€𝄞",
        "",
        "-n",
        "; exit 3",
        "#",
        "%",
    ]
    connection = connect("running")
    expected = "".join(f"<{word}>" for word in words).encode()
    assert connection.exec_command("printf '<%s>' " + shlex.join(words)) == (0, expected, b"")
    # What the ssh plugin does: the whole line goes to a shell of the global zone.
    line = shlex.join(connection.enter("running", ["printf", "<%s>", *words], unit.ENVIRONMENT))
    assert subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout == expected


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 8193, 1_000_001])
def test_input_arrives_whole_and_ends(size):
    data = os.urandom(size)
    assert connect("running").exec_command("cat", in_data=data) == (0, data, b"")


def test_files_go_there_and_back(tmp_path):
    connection = connect("running")
    source, there, back = tmp_path / "source", tmp_path / "a 'b' $c", tmp_path / "back"
    for size in (0, 1, 300_001):
        source.write_bytes(os.urandom(size))
        connection.put_file(str(source), str(there))
        connection.fetch_file(str(there), str(back))
        assert there.read_bytes() == back.read_bytes() == source.read_bytes()
    assert list(tmp_path.glob("*.part")) == []
    with pytest.raises(AnsibleError, match="cannot write /nowhere/x in zone running"):
        connection.put_file(str(source), "/nowhere/x")
    with pytest.raises(AnsibleError, match="cannot read /nowhere/x in zone running"):
        connection.fetch_file("/nowhere/x", str(back))


def test_a_command_past_its_limit_is_killed_with_what_it_started():
    connection = connect("running")
    for limit in (1, 10, 100):  # the first one that lets the command come as far as its output
        connection.set_option("zone_command_timeout", limit)
        rc, out, err = connection.exec_command(
            "sleep 1000 & echo $!; trap '' TERM; while :; do sleep 1; done", in_data=bytes(100_000)
        )
        assert rc == unit.TIMED_OUT and f"killed after {limit} s".encode() in err
        if out:
            break
    until_gone(int(out))


def test_what_the_client_leaves_behind_is_ended(brand):
    argv = connect("running").enter(
        "running",
        ["/bin/sh", "-c", unit.SUPERVISOR, "zone-command", "1000", "m", "echo $$; sleep 1000; :"],
        unit.ENVIRONMENT,
    )
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"0\n")
        process.stdin.flush()
        command = int(process.stdout.readline())
        assert alive(command)
        process.stdin.close()
        process.stdin = None
        until_gone(command)


def test_no_clock_is_left_behind(brand):
    limit = 2_000_000 + os.getpid()
    connection = connect("running")
    connection.set_option("zone_command_timeout", limit)
    assert connection.exec_command("exit 0")[0] == 0
    end = time.monotonic() + 120
    while (
        subprocess.run(["pgrep", "-f", f"^(sleep|timeout) {limit}"], stdout=subprocess.DEVNULL, check=False).returncode
        == 0
    ):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        (
            "nonesuch",
            r"zlogin: zone 'nonesuch' unknown \(`zoneadm -z nonesuch list -p` there: zoneadm: nonesuch: No such zone configured; is zone_name",
        ),
        ("halted", r"the zone is installed, and only a running one can be entered"),
        (
            "broken",
            r"exit code 0 \(`zoneadm -z broken list -p` there: the zone, of brand joyent, is running, so the way into it broke\)",
        ),
    ],
)
def test_a_zone_that_cannot_be_entered_is_unreachable_and_its_state_is_told(zone, message):
    with pytest.raises(
        AnsibleConnectionFailure, match=f"zone {zone} on this machine did not finish the command: .*{message}"
    ):
        connect(zone).exec_command("exit 1")


def test_a_command_s_own_exit_code_1_is_no_failure_of_the_connection():
    assert connect("running").exec_command("echo no >&2; exit 1") == (1, b"", b"no\n")
