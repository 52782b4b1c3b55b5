# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of vmadm: its options, its messages, its exit statuses (facts 1 to 1.4)."""

from __future__ import annotations

import json
import os
import sys
import typing as t

from . import vm as vms
from .files import ToolError
from .javascript import Crash
from .state import State

ALIASES = {"boot": "start", "destroy": "delete", "halt": "stop", "json": "get", "recv": "receive"}

FLAGS: dict[str, dict[str, tuple[str, bool | None]]] = {
    "list": {"o": ("order", None), "s": ("sortby", None), "p": ("parsable", True), "h": ("header", True),
             "H": ("header", False)},
    "lookup": {"j": ("json", True), "o": ("output", None), "1": ("unique", True)},
    "stop": {"F": ("force", True), "t": ("timeout", None)},
    "reboot": {"F": ("force", True), "t": ("timeout", None)},
    "kill": {"s": ("signal", None)},
    "create": {"f": ("file", None)},
    "update": {"f": ("file", None)},
    "validate": {"f": ("file", None)},
    "reprovision": {"f": ("file", None)},
    "receive": {"f": ("file", None)},
    "events": {"f": ("full", True), "j": ("json", True), "r": ("ready", True)},
}  # fmt: skip
"""Per subcommand, its letters: the long name, and the value a letter stands for (None: the next word)."""

COMMON: dict[str, tuple[str, bool | None]] = {"v": ("verbose", True), "d": ("debug", True)}

Run = t.Callable[[State, dict[str, t.Any], list[str], str], "str | None"]
"""A subcommand: options, the other words, and the subcommand as it was spelled; what it says when all went well."""

USAGE = """\
Usage: vmadm <command> [options]

  console, create, create-snapshot, delete, delete-snapshot, events, get, info, install, kill, list, lookup, reboot,
  receive, reprovision, rollback-snapshot, send, start, stop, sysrq, update, validate
"""


class UsageError(Exception):
    """The command line is not one: message and usage on stderr, exit status 2."""


def parse(command: str, words: t.Sequence[str]) -> tuple[dict[str, t.Any], list[str]]:
    """Options and the rest. An option that nobody knows swallows the next word, as the real parser has it do."""
    letters = {**COMMON, **FLAGS.get(command, {})}
    flags = {name for name, value in letters.values() if value is not None}
    texts = {name for name, value in letters.values() if value is None}
    options: dict[str, t.Any] = {}
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return options, rest + left
        if len(word) < 2 or word[0] != "-":
            rest.append(word)
            continue
        body = word.lstrip("-")
        short = not word.startswith("--") and body not in flags | texts
        if short and all(letter in letters for letter in body):
            for letter in body:
                name, value = letters[letter]
                options[name] = value
            if value is None:
                options[name] = left.pop(0) if left else ""
            continue
        name, mark, value_text = body.partition("=")
        if mark:
            options[name] = value_text
        elif name in flags:
            options[name] = left.pop(0) == "true" if left and left[0] in ("true", "false") else True
        else:
            options[name] = left.pop(0) if left else True
    return options, rest


def is_uuid(word: str) -> bool:
    """Whether a word looks like a UUID: only its length and dashes are looked at."""
    return len(word) == 36 and all(word[place] == "-" for place in (8, 13, 18, 23))


def take_uuid(command: str, rest: list[str]) -> str:
    """The first word, which must look like a UUID."""
    if rest and is_uuid(rest[0]):
        return rest.pop(0)
    raise UsageError(f"Invalid or missing UUID for {command}")


def read_payload(options: dict[str, t.Any], refusal: str, needs_properties: bool = False) -> dict[str, t.Any]:
    """The JSON object in ``-f FILE`` or stdin. A list has its places for properties, any other value has none.

    :param needs_properties: whether properties are set at once; those of a number or a text cannot be.
    """
    name = options.get("file")
    if name in (None, "-"):
        if name is None and sys.stdin.isatty():
            raise UsageError(refusal)
        text = sys.stdin.read()
    else:
        try:
            with open(str(name)) as source:
                text = source.read()
        except FileNotFoundError:
            raise ToolError(f"File: {name} does not exist.") from None
        except OSError as error:
            raise ToolError(f"Error reading: {name} {json.dumps({'code': error.strerror})}") from None
    try:
        found = json.loads(text)
    except ValueError as bad:
        raise ToolError(f"Invalid JSON payload: {bad}") from None
    if isinstance(found, list):
        return {str(place): one for place, one in enumerate(found)}
    if needs_properties and not isinstance(found, dict):
        raise ToolError("Invalid JSON payload: properties cannot be set on it")
    return found if isinstance(found, dict) else {}


def pairs(words: t.Sequence[str]) -> dict[str, str]:
    """``key=value`` words; one without a mark has an empty value."""
    return {key: value for key, _mark, value in (word.partition("=") for word in words)}


def complain(text: str) -> None:
    """All that vmadm says to people goes to stderr (facts 1, rule 1)."""
    sys.stderr.write(text + "\n")


# -- the subcommands ---------------------------------------------------------------------------------------------------


def _create(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    payload = read_payload(options, "Will not create from stdin when stdin is a tty.", True)
    return vms.create(state, payload)


def _update(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    uuid = take_uuid(word, rest)
    payload = pairs(rest) if rest else read_payload(options, "Will not update from stdin when stdin is a tty.")
    return vms.update(state, uuid, payload)


def _delete(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    uuid = take_uuid(word, rest)
    return _prefixed(f"Failed to delete VM {uuid}: ", lambda: vms.delete(state, uuid))


def _prefixed(prefix: str, call: t.Callable[[], t.Any]) -> t.Any:
    try:
        return call()
    except ToolError as error:
        error.args = (f"{prefix}{error}",)
        raise


def _start(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    uuid = take_uuid(word, rest)
    orders = 0
    for argument in rest:
        key, _mark, value = argument.partition("=")
        if key in ("disk", "cdrom"):
            path, _comma, model = value.partition(",")
            if not path or not model:
                raise UsageError(f"Parameter to {key} must be: path,model")
        elif key != "order":
            raise UsageError(f"Invalid argument to start: {key}")
        else:
            orders += 1
    if orders > 1:
        raise UsageError("You can only specify 'order' once when starting a VM")
    try:
        return t.cast(str, _prefixed(f"Unable to start VM {uuid}: ", lambda: vms.start(state, uuid)))
    except vms.NothingToDo as already:
        raise vms.NothingToDo(f"Unable to start VM {uuid}: {already}") from None


def _stop(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    uuid = take_uuid("stop", rest)
    text = str(options.get("timeout", ""))
    timeout = float(text) if text.isdigit() and int(text) else None  # the parser drops what is no number
    return vms.stop(state, uuid, force=bool(options.get("force")), timeout=timeout)


def _reboot(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    return vms.reboot(state, take_uuid(word, rest), force=bool(options.get("force")))


def _kill(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    """``kill [-s SIGNAL | -SIGNAL] UUID``: in the second form the UUID is the value of an option nobody knows."""
    signal, uuid = str(options.get("signal", "SIGTERM")), ""
    if "signal" in options:
        uuid = take_uuid("kill", rest)
    elif len(rest) == 1 and is_uuid(rest[0]):
        uuid = rest.pop(0)
    else:
        unexpected = []
        for name, value in options.items():
            if uuid or not is_uuid(str(value)):
                unexpected.append(name)
            else:
                signal, uuid = name, str(value)
        if unexpected:
            raise UsageError(f"Unexpected args: {json.dumps(unexpected, separators=(',', ':'))}")
    if rest:
        raise UsageError("Too many arguments.")
    if not uuid:
        raise UsageError("Invalid or missing argument UUID")
    return vms.kill(state, uuid, signal)


def _reprovision(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    uuid = take_uuid(word, rest)
    payload = read_payload(options, "Will not take payload from stdin when stdin is a tty.")
    return t.cast(str, _prefixed(f"Failed to reprovision VM {uuid}: ", lambda: vms.reprovision(state, uuid, payload)))


def _snapshot(command: str) -> Run:
    act = {
        "create-snapshot": vms.create_snapshot,
        "delete-snapshot": vms.delete_snapshot,
        "rollback-snapshot": vms.rollback_snapshot,
    }[command]

    def run(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
        uuid = take_uuid(word, rest)
        if len(rest) != 1:
            raise UsageError(f'Wrong number of parameters to "{command}"')
        return act(state, uuid, rest[0])

    return run


def _info(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> None:
    uuid = take_uuid(word, rest)
    types = [one for word in rest for one in word.split(",")] or ["all"]
    found = _prefixed(f"Unable to get VM info for VM {uuid}: ", lambda: vms.info(state, uuid, types))
    print(json.dumps(found, indent=2))


def _sysrq(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    uuid = take_uuid(word, rest)
    if len(rest) != 1:
        raise UsageError('Wrong number of parameters to "sysrq"')
    request = rest[0]
    if request not in ("nmi", "screenshot"):
        raise UsageError(f"Invalid sysrq type: {request}")
    return vms.sysrq(state, uuid, request)


def _get(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> None:
    uuid = take_uuid(word, rest)
    record = state.record(uuid)
    if record is None:
        raise ToolError(f"zoneadm: {uuid}: No such zone configured")
    print(json.dumps(state.view(record), indent=2, ensure_ascii=False))


def _validate(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
    from .properties import BRANDS
    from .validate import validate

    if not rest:
        raise UsageError("Will not validate without a valid action.")
    action = rest[0]
    if action == "update" and len(rest) != 2:
        raise UsageError("Will not validate without a valid action and brand.")
    payload = read_payload(options, "Will not validate from stdin when stdin is a tty.")
    brand = rest[1] if action == "update" else payload.get("brand")
    problems: dict[str, t.Any]
    if brand not in BRANDS:
        problems = {"bad_brand": brand or "undefined"}
    else:
        found = validate(state, brand, action, payload)
        if not found:
            return f"VALID '{action}' payload for {brand} brand VMs."
        problems = found._asdict()
    raise ToolError(json.dumps(problems, indent=2))


def _unsimulated(command: str) -> Run:
    def run(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> str:
        if command != "receive":
            uuid = take_uuid(word, rest)
            if state.record(uuid) is None:
                raise ToolError(f"VM {uuid} not found")
        raise ToolError(f"smartos-sim does not simulate vmadm {command}")

    return run


def _console(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> None:
    vms.console(state, take_uuid(word, rest))


def _list(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> None:
    from .vmlist import list_vms

    sys.stdout.write(list_vms(state, options, pairs(rest)))


def _lookup(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> None:
    from .vmlist import lookup_vms

    sys.stdout.write(lookup_vms(state, options, pairs(rest)))


def _events(state: State, options: dict[str, t.Any], rest: list[str], word: str) -> t.NoReturn:
    from .events import follow

    uuid = take_uuid("events", rest) if rest else None
    flags = (bool(options.get(name)) for name in ("full", "json", "ready"))
    full, as_json, ready = flags
    follow(state, uuid, full=full, as_json=as_json, ready=ready)


RUN: dict[str, Run] = {
    "create": _create,
    "update": _update,
    "delete": _delete,
    "start": _start,
    "stop": _stop,
    "reboot": _reboot,
    "reprovision": _reprovision,
    "info": _info,
    "console": _console,
    "sysrq": _sysrq,
    "validate": _validate,
    "events": _events,
    "get": _get,
    "kill": _kill,
    "list": _list,
    "lookup": _lookup,
    **{command: _snapshot(command) for command in ("create-snapshot", "delete-snapshot", "rollback-snapshot")},
    **{command: _unsimulated(command) for command in ("install", "receive", "send")},
}


def _dispatch(state: State, word: str, words: list[str]) -> str | None:
    if word in ("-h", "-?", "help", ""):
        raise UsageError("")
    command = ALIASES.get(word, word)
    if command not in RUN:
        raise UsageError(f'Invalid command: "{word}".')
    options, rest = parse(command, words)
    return RUN[command](state, options, rest, word)


def _abort(crash: Crash) -> t.NoReturn:
    """End as node does with --abort-on-uncaught-exception, but for the core file."""
    import resource

    complain(str(crash))
    sys.stderr.flush()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


def main(argv: list[str]) -> int:
    """Run vmadm; the exit status."""
    try:
        said = _dispatch(State(), argv[0] if argv else "", argv[1:])
    except UsageError as error:
        complain("\n".join(line for line in (str(error), USAGE) if line))
        return 2
    except vms.NothingToDo as already:
        complain(str(already))
        return 0
    except Crash as crash:
        return _abort(crash)
    except ToolError as error:
        complain(str(error))
        return error.code
    if said:
        complain(said)
    return 0
