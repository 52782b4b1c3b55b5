# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reach a zone through its host: the part of a connection plugin that does not depend on the kind of zone.

A command takes this way::

    controller ── ssh (or nothing) ──► host ── enter() ──► zone: SUPERVISOR ──► the command

Neither ssh nor the tool that enters the zone can be trusted with three things, so the supervisor, a few lines of shell that
run beside the command in the zone, does them:

* the exit code: ssh reports its own failures as 255 and lxc-attach its own as 1, which commands use as well. The
  supervisor writes the code on a last line of stderr, marked with a random word. A missing line means that the zone was not reached;
* the end of input: the client says how many bytes the command may read and then keeps the pipe open as a lifeline. It breaks
  when the client ends, however it ends, and the supervisor kills what the command started. No orphans;
* the time limit, because killing the client's end alone would leave the command running.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import re
import secrets
import selectors
import shlex
import subprocess
import threading
import typing as t
from abc import abstractmethod

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display

display = Display()

Feed: t.TypeAlias = "t.Sequence[bytes | mmap.mmap]"
"""What a process is to read, in parts, so that a mapped file need not be copied into memory."""

CHUNK = 65536
"""Bytes moved at once: the capacity of a pipe on Linux, pipe(7)."""

FETCH_PIECE = 8 * 1024 * 1024
"""Bytes asked for at once when a file is fetched, so that memory use does not grow with the file."""

BLOCK = 8192
"""The client fills up what it sends to a multiple of this many bytes: head(1) of illumos waits for whole blocks of its stdio. What
is beyond the command's input is read by the guard and dropped."""

TIMED_OUT = 124
"""Exit code of a command that was killed at its time limit, as timeout(1) has it."""

AS_ROOT = '$(test "$(id -u)" = 0 || echo sudo -n -H --)'
"""Before a shell command: runs it as root, by sudo if the user is not root already. A minimal Debian has no sudo."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
}
"""Everything a command finds in its environment, on every host alike."""

SUPERVISOR = r"""
limit=$1 mark=$2 command=$3
umask 022
cd "$HOME" 2>/dev/null || cd /
IFS= read -r size || exit 1

# Add a process to the family when its parent is in it.
adopt() {
    [ "$pid" != "$self" ] || return
    case $family in *" $pid "*) return ;; esac
    case " $$ $family" in *" $parent "*) family="$family$pid " ;; esac
}

# Send a signal to all that this supervisor has started, except the calling branch. What has left for init is spared, unless
# it was there at an earlier call: a process deaf to SIGTERM whose parent was not. Each is stopped where it is found, so that it
# starts no other one after it was looked at.
end() {
    family="$family " found= signal=$1
    while [ "$family" != "$found" ]; do
        found=$family
        if [ -r /proc/self/stat ]; then
            for stat in /proc/[0-9]*/stat; do
                { IFS= read -r line <"$stat"; } 2>/dev/null || continue
                pid=${line%% *} parent=${line##*) ? } parent=${parent%% *}
                adopt
            done
        else
            set -- $(ps -e -o pid= -o ppid=)
            while [ $# -gt 1 ]; do
                pid=$1 parent=$2
                shift 2
                adopt
            done
        fi
        [ "$family" = ' ' ] || kill -s STOP $family 2>/dev/null
    done
    [ "$family" = ' ' ] || kill -s "$signal" $family 2>/dev/null
    [ "$family" = ' ' ] || kill -s CONT $family 2>/dev/null
}

alive() {
    for pid in $family; do
        kill -s 0 "$pid" 2>/dev/null && return
    done
    return 1
}

# Run a command that reads what the client sends, in the background until the limit. illumos has no timeout(1): there a clock
# of our own rings.
within() {
    if [ "$timeout" ]; then
        timeout "$limit" "$@" <&4 &
    else
        "$@" <&4 &
    fi
    job=$!
}

# A shell that forks may lose a signal that it has a trap for before the child has dropped that trap. So the clock is started
# before the guard has one for TERM, and ends its own child by a signal that cannot be lost.
clock() {
    trap 'kill -s KILL $! 2>/dev/null; exit' TERM
    exec >/dev/null # not the command's input
    sleep "$limit" &
    wait $!
    kill -s ALRM "$self"
}

# Wait for it: 124 when the limit came first.
outcome() {
    wait "$job"
    why=$?
    [ ! "$rung" ] || why=124
}

# Left, the guard: feed the command, then watch the lifeline. Right: the command. Whichever is done first ends the other.
{
    job= clock= rung= why=0
    timeout=$(command -v timeout)
    { read -r self rest </proc/self/stat; } 2>/dev/null || self=$(exec /bin/sh -c 'echo "$PPID"')
    if [ ! "$timeout" ] && [ "$limit" != 0 ]; then
        trap 'rung=1; kill $job 2>/dev/null' ALRM
        clock &
        clock=$!
    fi
    # What is waited for runs in the background, because a shell heeds signals only in `wait`.
    trap 'kill $job $clock 2>/dev/null; exit' TERM
    echo "$self" # the command starts, and its end may end this
    if [ "$size" != 0 ]; then
        within head -c "$size"
        exec >/dev/null # only head keeps the command's input open now
        outcome
    fi
    exec >/dev/null
    if [ $why != 124 ]; then
        within cat
        outcome
    fi
    trap '' TERM
    kill $clock 2>/dev/null
    [ $why != 124 ] || printf '\n%s late\n' "$mark" >&2
    end TERM
    for tenth in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        alive || break
        sleep 0.1
    done
    end KILL
} 4<&0 | ( # a subshell by name: ksh, the shell of illumos, runs the last part of a pipeline in the shell itself
    read -r guard
    trap : TERM # outlive the command, whose exit code is wanted
    /bin/sh -c "$command"
    status=$?
    kill "$guard" 2>/dev/null
    exit $status
)
printf '\n%s %d\n' "$mark" $? >&2
"""


class _Lifeline:
    """Mixed into the ssh plugin: feed the command in the background and leave its input open until it ends.

    The plugin's own method writes everything before it reads anything, which locks up with a command that answers before it
    has read all, and then closes the input.
    """

    def _send_initial_data(self, fh: t.IO[bytes], in_data: Feed, ssh_process: subprocess.Popen[bytes]) -> None:
        # A duplicate, because the plugin closes its own when ssh ends, and the number may then mean another file.
        threading.Thread(target=_feed, args=(os.dup(fh.fileno()), in_data), daemon=True).start()


def _feed(fd: int, feed: Feed) -> None:
    """Write all of ``feed`` to ``fd`` and close it; a reader that has gone is no error here."""
    with contextlib.suppress(BrokenPipeError), open(fd, "wb", buffering=0) as pipe:
        for chunk in _chunks(feed):
            while chunk:
                chunk = chunk[pipe.write(chunk) :]


def _chunks(feed: Feed) -> t.Iterator[bytes]:
    """Cut the parts of ``feed`` into pieces of at most CHUNK bytes."""
    for part in feed:
        for start in range(0, len(part), CHUNK):
            yield part[start : start + CHUNK]


def run_local(argv: t.Sequence[str], feed: Feed) -> tuple[int, bytes, bytes]:
    """Run ``argv`` on this machine, feed it, and leave its input open until it has ended.

    Reading ends with the process, not with the end of its output: a daemon that the command has left behind with an
    inherited stdout must not hold the task.

    :returns: exit code (negative: the signal that ended it), stdout, stderr
    """
    # A session of its own: Ctrl-C reaches the controller alone, and a command in the zone cannot signal the controller's group.
    process = subprocess.Popen(
        list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    if not (process.stdin and process.stdout and process.stderr):
        raise AssertionError("Popen gives the pipes that it is asked for")
    output = {process.stdout: bytearray(), process.stderr: bytearray()}
    # Every pipe is closed on the way out, so that the lifeline breaks also when Ansible gives up a task that has run too long.
    with process.stdin, process.stdout, process.stderr, open(os.pidfd_open(process.pid), "rb", buffering=0) as ended:
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdin, *output):
                os.set_blocking(pipe.fileno(), False)
            for stream in (ended, *output):
                selector.register(stream, selectors.EVENT_READ)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            chunks, chunk = _chunks(feed), b""
            while ended in selector.get_map():
                ready = [key.fileobj for key, _events in selector.select()]
                if process.stdin in ready:
                    try:
                        chunk = chunk or next(chunks)
                        chunk = chunk[os.write(process.stdin.fileno(), chunk) :]
                    except (StopIteration, BrokenPipeError):
                        selector.unregister(process.stdin)
                # What a process wrote before it ended is in the pipes by then, so one look after its end finds it all.
                for pipe in output if ended in ready else output.keys() & set(ready):
                    while piece := _read(pipe.fileno()):
                        output[pipe] += piece
                    if piece == b"" and pipe in selector.get_map():
                        selector.unregister(pipe)
                if ended in ready:
                    selector.unregister(ended)
        out, err = (bytes(data) for data in output.values())
    return process.wait(), out, err


def _read(fd: int) -> bytes | None:
    """Read from a non-blocking descriptor: bytes, ``b""`` at the end, None when there is nothing yet."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None


class ZoneConnection(ConnectionBase):
    """Base of the connection plugins that enter a zone from its host.

    A subclass says how to enter a zone and which command shows its state: :meth:`enter` and :meth:`inspect`.
    """

    has_pipelining = True
    has_tty = False
    # The user inside the zone. The user on the host is the ssh plugin's business (ansible_user) and must not be taken for it.
    default_user = "root"

    _variables: tuple[dict[str, t.Any], t.Any] | None = None

    @abstractmethod
    def enter(self, zone: str, argv: list[str], environment: t.Mapping[str, str]) -> list[str]:
        """Return the command that, run on the host by root, runs ``argv`` in ``zone`` with just this ``environment``."""

    @abstractmethod
    def inspect(self, zone: str) -> list[str]:
        """Return the command that, run on the host by root, shows the state of ``zone``: asked when a command did not run."""

    def explain(self, zone: str, rc: int, answer: str) -> str:
        """Say in a few words what :meth:`inspect` has found out, for people: exit code and output of that command."""
        return " ".join(answer.split())

    # What Ansible calls

    def _connect(self) -> ZoneConnection:
        self._play_context.remote_user = self.default_user
        self._connected = True
        return self

    def close(self) -> None:
        self._connected = False

    def reset(self) -> None:
        if self._over_ssh:
            self._host.reset()
        self.close()

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a shell command in the zone: exit code (128+n for signal n, 124 past the limit), stdout and stderr."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        rc, out, err = self._run(to_text(cmd), in_data or b"")
        # Root needs no password to become another user, so the only trace of become in the output is its marker.
        if sudoable and self.become and self.become._id:
            out = self.become.strip_become_success(out)
        return rc, out, err

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file into the zone; it appears there whole or not at all."""
        super().put_file(in_path, out_path)
        if not os.path.exists(to_bytes(in_path)):
            raise AnsibleFileNotFound(f"{to_text(in_path)} does not exist on the controller")
        with open(to_bytes(in_path), "rb") as source:
            size = os.fstat(source.fileno()).st_size
            # Mapped, so that memory use does not grow with the file; an empty one cannot be.
            content = mmap.mmap(source.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        target = shlex.quote(to_text(out_path))
        # The size is checked because a broken connection looks like the end of the file.
        command = (
            f'if [ -d {target} ]; then echo "is a directory" >&2; exit 1; fi; part={target}.$$.part; '
            f'cat >"$part" && [ "$(wc -c <"$part")" -eq {size} ] && mv -f "$part" {target} '
            f'|| {{ rm -f "$part"; exit 1; }}'
        )
        rc, _out, err = self._run(command, content)
        if rc != 0:
            raise AnsibleError(f"cannot write {to_text(out_path)} in zone {self._zone}: {to_text(err).strip()}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file out of the zone."""
        super().fetch_file(in_path, out_path)
        path = shlex.quote(to_text(in_path))
        offset = 0
        with open(to_bytes(out_path), "wb") as target:
            while True:
                rc, out, err = self._run(f"exec <{path}; tail -c +{offset + 1} | head -c {FETCH_PIECE}", b"")
                if rc != 0:
                    raise AnsibleError(f"cannot read {to_text(in_path)} in zone {self._zone}: {to_text(err).strip()}")
                target.write(out)
                offset += len(out)
                if len(out) < FETCH_PIECE:
                    return

    # Ansible hands a plugin just the variables which that plugin documents, so the ssh plugin's are looked up apart.

    def _resolve_option_variables(self, variables: dict[str, t.Any], templar: t.Any) -> dict[str, t.Any]:
        self._variables = (variables, templar)
        return super()._resolve_option_variables(variables, templar)

    def set_options(
        self,
        task_keys: dict[str, t.Any] | None = None,
        var_options: dict[str, t.Any] | None = None,
        direct: dict[str, t.Any] | None = None,
    ) -> None:
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        if self._over_ssh:
            if self._variables:
                var_options = self._host._resolve_option_variables(*self._variables)
            self._host.set_options(task_keys=task_keys, var_options=var_options)

    # The way into the zone

    @property
    def _zone(self) -> str:
        zone = self.get_option("zone_name")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", zone):
            raise AnsibleError(f"zone_name: {zone!r} is not a valid zone name (use letters, digits, '-', '_' and '.')")
        return zone

    @functools.cached_property
    def _host(self) -> t.Any:
        """The ssh plugin, as it would be used for the host itself, but with a lifeline."""
        ssh = connection_loader.get("ansible.builtin.ssh", class_only=True)
        # Named as every connection plugin is: Ansible looks up a plugin's options by the name of its class.
        return type("Connection", (_Lifeline, ssh), {})(self._play_context, shell=self._shell)

    @property
    def _over_ssh(self) -> bool:
        return self.get_option("zone_transport") == "ssh"

    def _by_root(self, argv: list[str]) -> list[str]:
        """Return ``argv`` as what root runs on this machine."""
        chosen: bool | None = self.get_option("zone_host_become")
        return [*(["sudo", "-n", "--"] if (os.geteuid() != 0 if chosen is None else chosen) else []), *argv]

    def _by_root_there(self, argv: list[str]) -> str:
        """Return ``argv`` as a shell command that root runs on the host, whose user may be known to ssh's own configuration only."""
        chosen: bool | None = self.get_option("zone_host_become")
        return f"{AS_ROOT if chosen is None else 'sudo -n --' if chosen else ''} {shlex.join(argv)}".lstrip()

    def _ask(self, zone: str) -> str:
        """Ask the host about a zone that did not run a command."""
        argv = self.inspect(zone)
        try:
            if self._over_ssh:
                rc, out, err = self._host.exec_command(self._by_root_there(argv), sudoable=False)
            else:
                rc, out, err = run_local(self._by_root(argv), ())
        except (AnsibleError, OSError) as bad:
            return f"it cannot be asked: {bad}"
        return self.explain(zone, rc, to_text(out).strip() or to_text(err).strip()) or f"exit code {rc}"

    def _run(self, command: str, feed: bytes | mmap.mmap) -> tuple[int, bytes, bytes]:
        """Run a shell command in the zone with ``feed`` as its standard input."""
        zone, limit, mark = self._zone, self.get_option("zone_command_timeout"), f"zonestack-{secrets.token_hex(8)}"
        supervised = ["/bin/sh", "-c", SUPERVISOR, "zone-command", str(limit), mark, command]
        argv = self.enter(zone, supervised, ENVIRONMENT)
        display.vvv(f"EXEC in zone {zone}: {command}", host=zone)
        parts = (b"%d\n" % len(feed), feed, bytes(-len(feed) % BLOCK))
        if self._over_ssh:
            # Not sudoable: that would ask for a terminal, which spoils binary data, and wait for a password prompt.
            rc, out, err = self._host.exec_command(self._by_root_there(argv), in_data=parts, sudoable=False)
        else:
            rc, out, err = run_local(self._by_root(argv), parts)
        status, err = split_trailer(mark, err)
        if status is None:
            host = self._host.get_option("host") if self._over_ssh else "this machine"
            raise AnsibleConnectionFailure(
                f"zone {zone} on {host} did not finish the command: {to_text(err).strip() or f'exit code {rc}'}"
                f" (`{shlex.join(self.inspect(zone))}` there: {self._ask(zone)})"
            )
        if status == TIMED_OUT:
            err += f"killed after {limit} s, the limit set by zone_command_timeout\n".encode()
        return status, out, err


def split_trailer(mark: str, err: bytes) -> tuple[int | None, bytes]:
    """Take the supervisor's lines out of a command's stderr.

    :returns: the exit code, None where the supervisor did not get to write it, and the command's own stderr
    """
    lines = re.compile(rb"\n%s (late|\d+)\n" % mark.encode())
    words = lines.findall(err)
    if not words or words[-1] == b"late":
        return None, lines.sub(b"", err)
    return (TIMED_OUT if b"late" in words else int(words[-1])), lines.sub(b"", err)
