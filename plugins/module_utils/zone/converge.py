# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a zone is brought from what it is to what it should be.

Nothing here knows LXC or SmartOS. :func:`plan` is pure; :func:`converge` runs a plan, or in check mode does not.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import asdict, dataclass, replace

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.backend import Backend, Current
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneSpec, validate

STATES = ("present", "stopped", "absent", "restarted")


@dataclass(frozen=True)
class Action:
    """One call of a backend: ``verb`` is create, update, start, stop or destroy."""

    verb: str
    spec: ZoneSpec
    fields: tuple[str, ...] = ()
    purge: bool = False

    def __str__(self) -> str:
        detail = ", ".join(self.fields) or ("with volumes" if self.purge else "")
        return f"{self.verb} ({detail})" if detail else self.verb


@dataclass(frozen=True)
class ZonePlan:
    """The calls that bring a zone to its wanted state, and the reasons for which more is still to be done."""

    actions: tuple[Action, ...]
    after: ZoneSpec | None
    running: bool
    pending: tuple[str, ...] = ()

    @property
    def restarted(self) -> bool:
        """Whether a running zone is stopped and started again."""
        verbs = [action.verb for action in self.actions]
        return "stop" in verbs and "start" in verbs


def differences(have: ZoneSpec, want: ZoneSpec) -> tuple[str, ...]:
    """The fields in which two descriptions differ; of a volume, the owner counts only when it is made."""

    def comparable(spec: ZoneSpec) -> dict[str, t.Any]:
        return asdict(replace(spec, volumes=tuple(replace(one, owner=None) for one in spec.volumes)))

    before, after = comparable(have), comparable(want)
    return tuple(key for key in after if before[key] != after[key])


def plan(
    current: Current,
    want: ZoneSpec,
    state: str,
    live: t.Collection[str],
    *,
    disruptive: bool = True,
    purge: bool = False,
) -> ZonePlan:
    """Say which calls bring ``current`` to ``want`` and ``state``. Pure.

    A change outside ``live`` is made on a stopped zone: stop, update, start. A call that is killed in between leaves a
    stopped zone that still differs, so the next call finishes it. With ``disruptive`` false such a change of a running
    zone is not planned but named in ``pending``; what can be done while it runs is done.
    """
    stop, start = Action("stop", want), Action("start", want)
    if state == "absent":
        purge = purge and bool(current.volumes)
        if current.spec is None and not current.debris and not purge:
            return ZonePlan((), None, False)
        destroy = Action("destroy", want, purge=purge)
        return ZonePlan((stop, destroy) if current.running else (destroy,), None, False)

    up = state != "stopped"
    if current.spec is None:
        create = Action("create", want)
        return ZonePlan((create, start) if up else (create,), want, up)

    changed = tuple(dict.fromkeys((*differences(current.spec, want), *current.drift)))
    hard = tuple(key for key in changed if key not in live)
    down = current.running and (state in ("stopped", "restarted") or (bool(hard) and disruptive))
    pending: tuple[str, ...] = ()
    after = want
    if current.running and not down and hard:
        pending = tuple(_reason(current.spec, want, key) for key in hard)
        after = replace(want, **{key: getattr(current.spec, key) for key in hard if key in asdict(want)})
        changed = tuple(key for key in changed if key in live)
    actions: list[Action] = []
    if down:
        actions.append(stop)
    if changed:
        actions.append(Action("update", after, changed))
    if up and (down or not current.running):
        actions.append(start)
    return ZonePlan(tuple(actions), after, up, pending)


def _reason(have: ZoneSpec, want: ZoneSpec, key: str) -> str:
    """Why a change waits: in full where both values are short."""
    before, after = getattr(have, key, None), getattr(want, key, None)
    if isinstance(before, (str, int)) and isinstance(after, (str, int)):
        what = f"{before} -> {after}" if before != after else f"{after} is to be made anew"
    else:
        what = "the running zone differs from its description"
    return f"{key}: {what}; needs the zone to stop"


def converge(
    backend: Backend,
    want: ZoneSpec,
    state: str,
    *,
    disruptive: bool = True,
    purge: bool = False,
    check_mode: bool = False,
    foreseen: bool = False,
) -> dict[str, t.Any]:
    """Bring one zone to its wanted state and return the module's result; with ``check_mode`` only say what would be done.

    :param foreseen: in check mode, do not ask the host for what earlier tasks of the same run would have made by then.
    """
    validate(want)
    want = backend.effective(want)
    with contextlib.nullcontext() if check_mode else backend.exclusive(want):
        current = backend.read(want)
        todo = plan(current, want, state, backend.live, disruptive=disruptive, purge=purge)
        if any(action.verb in ("create", "update", "start") for action in todo.actions) and not (
            check_mode and foreseen
        ):
            backend.check(want)
        if not check_mode:
            running = current.running
            for action in todo.actions:
                running = _run(backend, action, running)
        pid = current.pid if todo.running and not todo.restarted else None
        if todo.running and not check_mode:
            # Also for a zone that runs already: the call that started it may have been killed before it was ready.
            pid = backend.ready(want, pid)
    return {
        "changed": bool(todo.actions),
        "actions": [str(action) for action in todo.actions],
        "pending": list(todo.pending),
        "restarted": todo.restarted,
        "pid": pid,
        "diff": {
            "before": _shown(current.spec, current.running, current.volumes, current),
            "after": _shown(todo.after, todo.running, _volumes_after(todo, current), None),
        },
    }


def _run(backend: Backend, action: Action, running: bool) -> bool:
    """Run one action and say whether the zone runs afterwards."""
    if action.verb == "start":
        backend.start(action.spec)
        return True
    if action.verb == "stop":
        backend.stop(action.spec)
        return False
    if action.verb == "create":
        backend.create(action.spec)
    elif action.verb == "update":
        backend.update(action.spec, action.fields, running)
    else:
        backend.destroy(action.spec, action.purge)
    return running


def _volumes_after(todo: ZonePlan, current: Current) -> tuple[str, ...]:
    if any(action.purge for action in todo.actions):
        return ()
    made = [one.name for one in todo.after.volumes] if todo.after else []
    return tuple(sorted({*current.volumes, *made}))


def _shown(spec: ZoneSpec | None, running: bool, volumes: tuple[str, ...], current: Current | None) -> dict[str, t.Any]:
    """One side of the diff: the description, its state, and what lies on disk."""
    shown: dict[str, t.Any] = {"state": "absent"} if spec is None else {"state": "running" if running else "stopped"}
    if spec is not None:
        shown.update(spec.to_dict())
    if volumes:
        shown["data"] = list(volumes)
    if current is not None and current.debris:
        shown["debris"] = True
    if current is not None and current.drift:
        shown["drift"] = list(current.drift)
    return shown
