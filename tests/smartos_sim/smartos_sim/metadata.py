# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A zone's metadata: its files, the server in the global zone, and ``mdata-get``, ``-put``, ``-list``, ``-delete`` in the guest.

One server per running zone listens on /var/zonecontrol/UUID/metadata.sock, which the zone sees as
/.zonecontrol/metadata.sock (lx: /native/.zonecontrol/metadata.sock; facts 4.1). A request and its answer are one line of JSON
each, which is this simulator's own protocol. The truth for metadata is /zones/UUID/config/metadata.json, so that a guest can
write while vmadm holds the VM's lock and waits for that guest.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from .files import locked, read_json, write_json
from .platform import PlatformError

TOOLS = ("mdata-get", "mdata-put", "mdata-list", "mdata-delete")
CONTROL = Path("/var/zonecontrol")
SOCKETS = ("/.zonecontrol/metadata.sock", "/native/.zonecontrol/metadata.sock")
KINDS = ("customer_metadata", "internal_metadata")
CHECK = 5.0  # seconds between two looks whether the zone is still there
LIMIT = 600.0  # seconds that a zone may take to start, on the busiest machine
OK, NOT_FOUND, FAILED = 0, 1, 2

VM = dict[str, t.Any]


def directory(uuid: str) -> Path:
    """Where the zone's socket lies in the global zone."""
    return CONTROL / uuid


# -- files -------------------------------------------------------------------------------------------------------------


def _path(vm: VM, name: str = "metadata") -> Path:
    return Path(vm["zonepath"], "config", f"{name}.json")


def _lock(vm: VM) -> contextlib.AbstractContextManager[bool]:
    return locked(_path(vm).with_name(".metadata.lock"))


def read(vm: VM) -> dict[str, dict[str, t.Any]]:
    """``customer_metadata`` and ``internal_metadata`` as they are now; as last described where the file is not readable."""
    try:
        found = read_json(_path(vm), {})
    except (OSError, ValueError):
        found = {}
    return {kind: found.get(kind, vm.get(kind, {})) for kind in KINDS}


def write_all(vm: VM) -> None:
    """Write the three files of a new zone."""
    write_json(_path(vm), {kind: vm.get(kind, {}) for kind in KINDS})
    for name in ("tags", "routes"):
        write_json(_path(vm, name), vm.get(name, {}))


def write_changed(vm: VM, before: VM) -> None:
    """Bring to the files what differs between ``before`` and ``vm``; keys that the guest has put meanwhile stay."""
    with _lock(vm):
        now = read(vm)
        for kind in KINDS:
            old, new = before.get(kind, {}), vm.get(kind, {})
            for key in old.keys() - new.keys():
                now[kind].pop(key, None)
            now[kind].update({key: value for key, value in new.items() if key not in old or old[key] != value})
        write_json(_path(vm), now)
    for name in ("tags", "routes"):
        write_json(_path(vm, name), vm.get(name, {}))


# -- the server --------------------------------------------------------------------------------------------------------


def start(state: Path, uuid: str) -> None:
    """Have a server for the zone; return when its socket is there."""
    home = directory(uuid)
    home.mkdir(parents=True, exist_ok=True)
    (home / "metadata.sock").unlink(missing_ok=True)
    stop(uuid)
    code = str(Path(__file__).resolve().parents[1] / "bin" / "smartos-sim")
    with open(home / "log", "ab") as log:
        server = subprocess.Popen(
            [code, "serve-metadata", uuid],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={**os.environ, "SMARTOS_SIM_STATE": str(state)},
        )  # fmt: skip
    until = time.monotonic() + LIMIT
    while not (home / "metadata.sock").exists():
        if time.monotonic() > until or server.poll() is not None:
            raise PlatformError(f"the metadata server of zone {uuid} does not serve; {home / 'log'} says why")
        time.sleep(0.01)


def stop(uuid: str) -> None:
    """End the zone's server, if there is one. It holds a lock for as long as it lives, so no other process is meant."""
    lock = directory(uuid) / "lock"
    try:
        held = open(lock, "r+")
    except FileNotFoundError:
        return
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.kill(int(held.read()), signal.SIGTERM)


def serve(uuid: str) -> int:
    """Answer the zone's requests until the zone is gone."""
    from .state import State

    state = State()
    home = directory(uuid)
    with open(home / "lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        listener = socket.socket(socket.AF_UNIX)
        place = home / "metadata.sock"
        part = home / ".metadata.sock"
        part.unlink(missing_ok=True)
        listener.bind(str(part))
        listener.listen(64)
        part.rename(place)
        listener.settimeout(CHECK)
        missed, begun = 0, False
        while missed < (3 if begun else LIMIT / CHECK):
            try:
                peer, _address = listener.accept()
            except TimeoutError:
                record = state.record(uuid)
                up = record is not None and state.platform(record["vm"]["brand"]).zone_running(record["vm"])
                missed, begun = 0 if up else missed + 1, begun or bool(up)
                continue
            with peer, contextlib.suppress(OSError, ValueError):
                peer.settimeout(CHECK)
                with peer.makefile("rw") as stream:
                    request = json.loads(stream.readline())
                    record = state.record(uuid)
                    answer = _answer(record["vm"], request) if record else {"code": FAILED, "text": "no such VM"}
                    stream.write(json.dumps(answer) + "\n")
    return 0


def _answer(vm: VM, request: dict[str, t.Any]) -> dict[str, t.Any]:
    """What one request gives: ``code`` as the tool's exit status, and ``text``."""
    call, key = request["call"], request.get("key", "")
    with _lock(vm):
        found = read(vm)
        namespaces = vm.get("internal_metadata_namespaces", ())
        is_internal = key.endswith("_pw") or key.partition(":")[0] in namespaces
        if call == "list":
            inner = [
                one for one in found["internal_metadata"] if one.endswith("_pw") or one.partition(":")[0] in namespaces
            ]
            return {"code": OK, "text": "".join(f"{one}\n" for one in [*found["customer_metadata"], *inner])}
        if call == "get":
            value = _sdc(vm, key[4:]) if key.startswith("sdc:") else found[KINDS[is_internal]].get(key)
            if value is None:
                return {"code": NOT_FOUND, "text": f"No metadata for '{key}'"}
            return {"code": OK, "text": _text(value)}
        if key.startswith("sdc:") or is_internal:
            return {"code": FAILED, "text": f"cannot change '{key}': read-only"}
        if call == "put":
            found["customer_metadata"][key] = request["value"]
        else:
            found["customer_metadata"].pop(key, None)
        write_json(_path(vm), found)
        return {"code": OK, "text": ""}


def _text(value: t.Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _sdc(vm: VM, name: str) -> t.Any:
    """A read-only view of the VM object: sdc:uuid, sdc:nics, sdc:tags.ROLE, ..."""
    head, dot, rest = name.partition(".")
    if head == "tags" and dot:
        return vm.get("tags", {}).get(rest)
    if name in KINDS:
        return None
    return vm.get(name)


# -- the guest's tools -------------------------------------------------------------------------------------------------


def guest(tool: str, argv: list[str]) -> int:
    """Run an ``mdata-`` command in a guest; the exit status: 0, 1 (no such key), 2 (anything else)."""
    call = tool.partition("-")[2]
    words = {"get": 1, "put": (1, 2), "list": 0, "delete": 1}[call]
    if len(argv) not in (words if isinstance(words, tuple) else (words,)):
        sys.stderr.write(
            f"Usage: {tool}{'' if call == 'list' else ' <keyname>'}{' [ <value> ]' if call == 'put' else ''}\n"
        )
        return FAILED
    request: dict[str, str] = {"call": call}
    if argv:
        request["key"] = argv[0]
    if call == "put":
        request["value"] = argv[1] if len(argv) > 1 else sys.stdin.read()
    place = next((one for one in SOCKETS if os.path.exists(one)), SOCKETS[0])
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(60)
            server.connect(place)
            with server.makefile("rw") as stream:
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{tool}: cannot reach the metadata service at {place}: {error}\n")
        return FAILED
    if answer["code"] == OK:
        text = answer["text"]
        sys.stdout.write(text if not text or text.endswith("\n") or call == "list" else f"{text}\n")
    else:
        sys.stderr.write(f"{answer['text']}\n")
    return int(answer["code"])


get, put, list_keys, delete = (functools.partial(guest, tool) for tool in TOOLS)
