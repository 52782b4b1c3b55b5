# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a zone's files and daemons to a rendered state: the program that the action ``zone_tree`` runs inside the zone.

It is sent and compiled anew for each call, and nearly always finds that there is nothing to do. So it needs the standard
library alone, and imports what is seldom needed where it is used.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import stat
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing as t

    Entry = dict[str, t.Any]

RUN_DIRECTORY = "/run/zonestack"
DIGEST_DIRECTORY = "/etc/zonestack/digests"

#: What is noted in place of a daemon's digest while files that it reads are being written: no daemon's digest.
CHANGING = "changing"


class TreeError(Exception):
    """A state that cannot be reached; the message says where, what, and what would be right."""


def run(argv: list[str], check: bool = True, timeout: float = 60) -> tuple[int, str, str]:
    """Run ``argv`` (no shell, nothing to read): exit code (negative: the signal that ended it), stdout, stderr.

    :param check: raise :class:`TreeError` when the exit code is not 0.
    :param timeout: seconds after which the command is killed (exit code 124, as timeout(1) reports it).
    """
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout,
            env={**os.environ, "LC_ALL": "C"}, check=False,
        )  # fmt: skip
        rc, out, err = done.returncode, done.stdout, done.stderr
    except FileNotFoundError:
        rc, out, err = 127, "", f"there is no program {argv[0]} in this zone"
    except subprocess.TimeoutExpired:
        rc, out, err = 124, "", f"still running after {timeout:g} s, killed"
    if check and rc != 0:
        raise TreeError(
            f"`{shlex.join(argv)}` ended with exit code {rc}: {(err or out).strip() or 'it printed nothing'}"
        )
    return rc, out, err


def without_docstrings(text: str) -> str:
    """What Python understands of a program: no comments, no form, no docstrings."""
    import ast

    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                del node.body[0]
    return ast.dump(tree)


def same_meaning(entry: Entry, old: str) -> bool:
    """Whether the file's new content differs from the ``old`` one in nothing that its reader takes notice of.

    That is known of Python, and of files whose lines with ``#`` in the first column are comments (``comments`` of the entry).
    """
    new: str = entry["content"]
    first = new.partition("\n")[0]
    if entry["path"].endswith(".py") or (first.startswith("#!") and "python" in first):
        try:
            return old.partition("\n")[0].startswith("#!") == first.startswith("#!") and without_docstrings(
                old
            ) == without_docstrings(new)
        except (SyntaxError, ValueError):
            return False
    if not entry.get("comments"):
        return False
    one, other = ([line for line in text.split("\n") if line[:1] != "#" or line[:2] == "#!"] for text in (old, new))
    return one == other


def is_read(path: str, reads: list[str]) -> bool:
    """Whether ``path`` is one of ``reads`` or lies below one of them."""
    return any(path == read or path.startswith(read.rstrip("/") + "/") for read in reads)


class Tree:
    """Compares the wanted files with those of the zone, then writes the difference.

    :param check: only find out what would be done.

    ``altered`` are the files that change for those who read them, ``reworded`` those of which only comments or form change.
    """

    def __init__(self, check: bool) -> None:
        self.check = check
        self.altered: set[str] = set()
        self.reworded: set[str] = set()
        self.written: list[str] = []
        self.diffs: list[dict[str, str]] = []
        self.known: dict[tuple[str, str], tuple[int, int]] = {}

    def owner(self, entry: Entry) -> tuple[int, int]:
        """Numeric owner and group of an entry."""
        names = entry["owner"], entry["group"]
        try:
            if names not in self.known:
                self.known[names] = pwd.getpwnam(names[0]).pw_uid, grp.getgrnam(names[1]).gr_gid
            return self.known[names]
        except KeyError as missing:
            raise TreeError(
                f"{entry['path']}: owner {entry['owner']!r} or group {entry['group']!r} does not exist in this zone ({missing}). "
                "Set an owner and a group that exist, or create them in the service's image (`user:` or `packages:` of `image:`)"
            ) from None

    def note(self, path: str, before: str, after: str) -> None:
        """Record a change and its diff."""
        self.written.append(path)
        self.diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})

    def attributes(self, entry: Entry) -> tuple[str, str]:
        """Attributes as they are and as they should be, as text; equal when nothing is to be done."""
        uid, gid = self.owner(entry)
        want = f"mode {int(entry['mode'], 8):04o} owner {uid}:{gid}"
        try:
            now = os.lstat(entry["path"])
        except FileNotFoundError:
            return "absent", want
        return f"mode {stat.S_IMODE(now.st_mode):04o} owner {now.st_uid}:{now.st_gid}", want

    def set_attributes(self, path: str, entry: Entry) -> None:
        """Give ``path`` the owner and mode of ``entry``."""
        os.chown(path, *self.owner(entry))
        os.chmod(path, int(entry["mode"], 8))

    def directory(self, entry: Entry) -> None:
        """Make one directory so."""
        path = entry["path"]
        before, want = self.attributes(entry)
        if os.path.lexists(path) and not os.path.isdir(path):
            raise TreeError(
                f"{path} is a file, and the service declares a directory. Remove the file, or correct the path in the service"
            )
        if before == want:
            return
        self.note(path, before + "\n", want + "\n")
        if not self.check:
            os.makedirs(path, exist_ok=True)
            self.set_attributes(path, entry)

    def candidate(self, entry: Entry, folder: str) -> str:
        """The new content in a file of its own in ``folder``, never readable by more people than the target.

        Its name is always the same: what a run that was killed has left is replaced by the next one.
        """
        name = os.path.join(folder, f".{os.path.basename(entry['path'])}.zonestack")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as stream:
            stream.write(entry["content"].encode())
            stream.flush()
            os.fsync(stream.fileno())
        return name

    @staticmethod
    def pending(entry: Entry) -> bool:
        """Whether the file differs in content."""
        try:
            with open(entry["path"], "rb", buffering=0) as stream:
                return stream.read() != entry["content"].encode()
        except FileNotFoundError:
            return True

    def validate(self, entry: Entry) -> None:
        """Try the candidate with the file's own validator, before anything is changed."""
        if not entry["validate"] or not self.pending(entry):
            return
        import tempfile

        with tempfile.TemporaryDirectory(prefix="zonestack-") as folder:
            name = self.candidate(entry, folder)
            argv = [word.replace("{path}", name) for word in entry["validate"]]
            rc, out, err = run(argv, check=False, timeout=120)
            if rc != 0:
                said = (out + err).replace(name, entry["path"]).strip()
                # A validator may chat; what it calls an error is what the reader needs.
                said = "\n".join(line for line in said.splitlines() if "ERROR" in line) or said
                raise TreeError(
                    f"{entry['path']} is refused by {os.path.basename(argv[0])}; nothing was changed. {said or f'It ended with exit code {rc}'}"
                )

    def file(self, entry: Entry) -> None:
        """Make one file so."""
        path = entry["path"]
        if os.path.isdir(path):
            raise TreeError(
                f"{path} is a directory, and the service declares a file. Remove the directory, or correct the path in the service"
            )
        before, want = self.attributes(entry)
        if self.pending(entry):
            if entry["secret"]:
                self.note(path, f"{before}\n", f"{want}\n(new content, not shown)\n")
            else:
                old = b""
                if before != "absent":
                    with open(path, "rb") as stream:
                        old = stream.read()
                self.note(path, old.decode(errors="replace"), entry["content"])
            if not self.check:
                folder = os.path.dirname(path)
                os.makedirs(folder, exist_ok=True)
                name = self.candidate(entry, folder)
                try:
                    self.set_attributes(name, entry)
                    os.rename(name, path)
                except BaseException:
                    os.unlink(name)
                    raise
        elif before != want:
            self.note(path, before + "\n", want + "\n")
            if not self.check:
                self.set_attributes(path, entry)

    def classify(self, entry: Entry) -> None:
        """Find out whether a file changes, and whether that means anything to who reads it."""
        path = entry["path"]
        before, want = self.attributes(entry)
        if before == want and not self.pending(entry):
            return
        if before == want:
            with open(path, encoding="utf-8", errors="replace", newline="") as stream:
                if same_meaning(entry, stream.read()):
                    self.reworded.add(path)
                    return
        self.altered.add(path)

    @staticmethod
    def others(folder: str, keep: set[str]) -> list[str]:
        """The files in ``folder`` that nobody declared."""
        if not os.path.isdir(folder):
            return []
        paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        return [path for path in paths if path not in keep and os.path.isfile(path)]

    def compare(self, files: list[Entry], exclusive: list[str]) -> None:
        """Validate everything, and find out what changes; nothing is written.

        :param exclusive: directories that hold nothing but ``files``.
        """
        for entry in files:
            self.owner(entry)
            self.validate(entry)
        for entry in files:
            if not os.path.isdir(entry["path"]):
                self.classify(entry)
        declared = {entry["path"] for entry in files}
        self.surplus = [path for folder in exclusive for path in self.others(folder, declared)]
        self.altered.update(self.surplus)

    def write(self, directories: list[Entry], files: list[Entry]) -> None:
        """Write everything that :meth:`compare` has seen."""
        for entry in directories:
            self.directory(entry)
        for entry in files:
            self.file(entry)
        for path in self.surplus:
            self.note(path, "present\n", "absent\n")
            if not self.check:
                os.unlink(path)


class Systemd:
    """Daemons as systemd units (systemctl(1))."""

    def __init__(self, daemons: list[Entry]) -> None:
        self.state: dict[str, dict[str, str]] = {}
        if daemons:
            self.read([daemon["unit"] for daemon in daemons])

    def read(self, units: list[str]) -> None:
        """Read what systemd knows of all units, in one call."""
        out = run(
            ["systemctl", "show", "--property=Id,ActiveState,SubState,UnitFileState,LoadState,NeedDaemonReload", *units]
        )[1]
        for block in out.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if "Id" in values:
                self.state[values["Id"]] = values

    def active(self, unit: str) -> bool:
        """Whether the unit runs or is on its way there."""
        return self.state.get(unit, {}).get("ActiveState") in ("active", "activating", "reloading")

    def enabled(self, unit: str) -> bool:
        """Whether the unit starts with the zone. A static or generated unit has no such setting."""
        return self.state.get(unit, {}).get("UnitFileState") in (
            "enabled",
            "static",
            "indirect",
            "generated",
            "alias",
            "enabled-runtime",
        )

    @property
    def outdated(self) -> bool:
        """Whether systemd itself finds that unit files have changed since it read them."""
        return any(values.get("NeedDaemonReload") == "yes" for values in self.state.values())

    @staticmethod
    def running_digest(unit: str, directory: str = "") -> str:
        """The digest that the unit left when it started, or the one that is noted in another directory; empty when there is none."""
        try:
            with open(f"{directory or RUN_DIRECTORY}/{unit}", encoding="utf-8") as stream:
                return stream.read().strip()
        except FileNotFoundError:
            return ""

    @staticmethod
    def note_digest(unit: str, digest: str, directory: str = "") -> None:
        """Leave the wanted digest where the unit takes it from when it starts, or in another directory; bookkeeping, so it is no change."""
        directory = directory or DIGEST_DIRECTORY
        path = f"{directory}/{unit}"
        try:
            with open(path, encoding="utf-8") as stream:
                if stream.read().strip() == digest:
                    return
        except FileNotFoundError:
            os.makedirs(directory, mode=0o755, exist_ok=True)
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            stream.write(f"{digest}\n")
        os.rename(f"{path}.new", path)

    @staticmethod
    def tail(unit: str) -> str:
        """The unit's last journal lines, for an error message."""
        return run(["journalctl", "--no-pager", "-o", "cat", "-n", "15", "-u", unit], check=False)[1].strip()


def probe(ready: Entry) -> str:
    """Try once whether a daemon serves; the empty string, or what is wrong."""
    if "tcp" in ready:
        import socket

        address = ready.get("address", "127.0.0.1")
        try:
            with socket.create_connection((address, int(ready["tcp"])), timeout=2):
                return ""
        except OSError as error:
            return f"port {ready['tcp']} of {address}: {error}"
    if "http" in ready:
        return probe_http(ready)
    if "command" in ready:
        try:
            run(list(ready["command"]), timeout=30)
        except TreeError as error:
            return str(error)
    return ""


def probe_http(ready: Entry) -> str:
    """Try once whether a URL answers; the empty string, or what is wrong."""
    import http.client
    import ssl
    import urllib.parse

    url = urllib.parse.urlsplit(ready["http"])
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=ready.get("ca"))
        if ready.get("certificate"):
            context.load_cert_chain(ready["certificate"], ready.get("key"))
        connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)
    try:
        connection.request("GET", url.path or "/")
        answer = connection.getresponse()
        body = answer.read(300).decode(errors="replace").strip()
        return "" if answer.status in (200, 300) else f"{ready['http']} answers {answer.status}: {body}"
    except (OSError, http.client.HTTPException) as error:
        return f"{ready['http']}: {error}"
    finally:
        connection.close()


def wait_ready(daemon: Entry, limit: int) -> None:
    """Wait until the daemon serves, or fail with its own last words.

    The interval between two probes grows from 50 ms to 1 s: most daemons are there after the first few.

    :param limit: seconds.
    """
    deadline = time.monotonic() + limit
    pause = 0.05
    while True:
        # Asked first: one that had to be killed is called failed for a moment, on its way from a restart's stop to its start.
        shown = run(["systemctl", "show", "--property=Job,ActiveState", daemon["unit"]], check=False)[1]
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        pending, state = values.get("Job", "0") not in ("", "0"), values.get("ActiveState", "unknown")
        # An old process may still answer while its stop is under way; the digest tells the new one from it.
        if state == "active" and Systemd.running_digest(daemon["unit"]) == daemon["digest"]:
            wrong = probe(daemon["ready"])
            if not wrong:
                return
        else:
            wrong = f"its state in systemd is {state}"
        failed = state == "failed" and not pending
        if failed or time.monotonic() > deadline:
            cause = "failed to start" if failed else f"is not ready after {limit} s ({wrong})"
            raise TreeError(f"{daemon['unit']} {cause}. The last lines of its journal:\n{Systemd.tail(daemon['unit'])}")
        time.sleep(pause)
        pause = min(1.0, pause * 1.5)


class Daemons:
    """Starts what does not run, and finds out what runs with older files than there are.

    :param request: what :func:`apply` was asked for.
    """

    def __init__(self, request: Entry) -> None:
        self.request = request
        self.check: bool = request["check"]
        self.units: dict[str, list[str]] = {
            "started": [],
            "waiting": [],
            "restart": [],
            "restarted": [],
            "reloaded": [],
        }

    def before_writing(self, tree: Tree) -> None:
        """Note of each daemon whose files are about to change that it runs with others from here on.

        Killed between this and the note of the new digest, the next run finds another note than the daemon runs with, and
        restarts it. So a note that is the running daemon's says that it has read the files that are there.
        """
        for daemon in self.request["daemons"]:
            if not self.check and any(is_read(path, daemon["reads"]) for path in tree.altered):
                Systemd.note_digest(daemon["unit"], CHANGING)

    def only_reworded(self, daemon: Entry, tree: Tree) -> bool:
        """Whether the daemon runs with what there was, and nothing but comments and form of that has changed."""
        noted = Systemd.running_digest(daemon["unit"], DIGEST_DIRECTORY)
        return (
            Systemd.running_digest(daemon["unit"]) == noted != ""
            and any(is_read(path, daemon["reads"]) for path in tree.reworded)
            and not any(is_read(path, daemon["reads"]) for path in tree.altered)
        )

    def apply(self, tree: Tree) -> None:
        """Start and restart, then wait for what was begun."""
        unit_files_changed = any(path.startswith("/etc/systemd/system/") for path in tree.written)
        manager = Systemd(self.request["daemons"])
        if not self.check and (unit_files_changed or manager.outdated):
            run(["systemctl", "daemon-reload"])
        begun = [daemon for daemon in self.request["daemons"] if self.begin(daemon, manager, tree)]
        if not self.check:
            for daemon in begun:
                if not daemon["clustered"] or daemon["unit"] in self.units["restarted"]:
                    wait_ready(daemon, self.request["wait"])

    def begin(self, daemon: Entry, manager: Systemd, tree: Tree) -> bool:
        """Start or restart one daemon where it takes that, without waiting; whether it did."""
        unit = daemon["unit"]
        running, reworded = manager.running_digest(unit), self.only_reworded(daemon, tree)
        if not self.check:
            if reworded:  # before the other note, or that of a run that is killed here would be older than the daemon
                manager.note_digest(unit, daemon["digest"], RUN_DIRECTORY)
            manager.note_digest(unit, daemon["digest"])
        current = reworded or running == daemon["digest"]
        if not manager.active(unit) or not manager.enabled(unit):
            if not self.request["start"]:
                self.units["waiting"].append(unit)
                return False
            self.units["started"].append(unit)
            if not self.check:
                run(["systemctl", "reset-failed", unit], check=False)
                # Systemd needs to read all its units again (a second on a busy machine) only where some have changed; see apply().
                # Debian's hook for init scripts would have it do so twice, and its links mean nothing beside a unit.
                run(["env", "SYSTEMCTL_SKIP_SYSV=1", "systemctl", "enable", "--quiet", "--no-reload", unit])
                # A unit that was active before it was enabled may still run with older files.
                run(["systemctl", "--no-block", "start" if current or not manager.active(unit) else "restart", unit])
            return True
        if current:
            return False
        # Of two parts the first is the unit's own: a changed unit takes a restart.
        if daemon["reload"] and running.partition(".")[0] == daemon["digest"].partition(".")[0]:
            self.units["reloaded"].append(unit)
            if not self.check:
                run(["systemctl", "reload", unit])
                manager.note_digest(unit, daemon["digest"], RUN_DIRECTORY)
            return True
        # A daemon that does not serve has no turn to wait for: nobody would miss it, and others may wait for it.
        if not self.request["restart"] and not daemon["unnoticed"] and not probe(daemon["ready"]):
            self.units["restart"].append(unit)
            return False
        self.units["restarted"].append(unit)
        if not self.check:
            run(["systemctl", "--no-block", "restart", unit])
        return True


def apply(request: Entry) -> Entry:
    """Do what is asked for and return an Ansible result, also where it has failed.

    :param request: ``check`` (bool), ``start``, ``restart`` and ``wait`` as the action documents them;
        ``directories`` and ``files``: what must be there (``path``; ``mode``: octal, as text; ``owner``; ``group``), the
        parents first; of files also ``content``, ``secret`` (bool: never to be shown) and ``validate`` (the command that
        must succeed on the candidate, for whose path ``{path}`` stands; may be empty), and ``comments`` (bool: lines that begin
        with ``#`` are comments);
        ``exclusive``: directories in which every other file is removed;
        ``daemons``: in the order in which they start, ``unit``, ``digest`` of all that it reads at its start, ``reads`` (the paths of
        that: files, directories, its unit), ``clustered``
        (bool: ready only together with its peers, so it is not waited for), ``unnoticed`` (bool: its restart cuts nobody off, so
        it is done without ``restart``), ``reload`` (bool: it takes changed files by a reload; its digest has the unit's part before a
        dot) and ``ready``: how to find out that it serves:
        ``tcp`` is a port that must accept on the ``address`` beside it, ``http`` a URL that must answer 200 (with ``ca``,
        ``certificate`` and ``key``), ``command`` an argument list that must exit with 0.
    """
    tree, daemons = Tree(request["check"]), Daemons(request)
    result: Entry = {}
    try:
        tree.compare(request["files"], request["exclusive"])
        daemons.before_writing(tree)
        tree.write(request["directories"], request["files"])
        daemons.apply(tree)
    except (TreeError, OSError) as error:
        result = {"failed": True, "msg": str(error)}
    units = daemons.units
    return {
        **result,
        "changed": bool(tree.written or units["started"] or units["restarted"] or units["reloaded"]),
        "diff": tree.diffs,
        "written": tree.written,
        **units,
    }
