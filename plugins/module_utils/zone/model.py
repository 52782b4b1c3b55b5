# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a zone is, what a zone backend can do, and how one is brought from what it is to what it should be.

Nothing here knows LXC or SmartOS. :func:`plan` is pure; :func:`converge` runs a plan, or in check mode does not.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import typing as t
import uuid as uuid_lib
from dataclasses import asdict, dataclass, field, fields, replace

STORES = ("overlay", "dir", "btrfs", "zfs")
STATES = ("present", "stopped", "absent", "restarted")

# RFC 1123 section 2.1: a label of a host name.
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Names that become a directory below the store.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}")
# IFNAMSIZ in linux/if.h is 16, with the closing zero byte.
INTERFACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
MAC_ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class ZoneError(Exception):
    """A zone cannot be made as described; the message says where, what, and what would be right."""


@dataclass(frozen=True)
class Network:
    """One interface of a zone: a port of a bridge of its host, with static addresses.

    ``address``/``prefix`` is the first address, ``addresses`` further ones as ``address/prefix``; ``mtu`` is in bytes. ``vips``
    are addresses that a daemon in the zone may take on and give up (VRRP), which a backend must allow where it checks senders.
    """

    name: str
    bridge: str
    mac: str
    address: str | None = None
    prefix: int | None = None
    gateway: str | None = None
    mtu: int | None = None
    addresses: tuple[str, ...] = ()
    vips: tuple[str, ...] = ()

    def interfaces(self) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
        """All addresses with their prefix length, the first address first."""
        first = [f"{self.address}/{self.prefix}"] if self.address else []
        return [ipaddress.ip_interface(one) for one in (*first, *self.addresses)]


@dataclass(frozen=True)
class Volume:
    """A directory that outlives the zone's root, seen in the zone at ``path``.

    ``owner`` (a user of the image, or a numeric uid inside the zone; default root) counts when the volume is made.
    """

    name: str
    path: str
    owner: str | None = None


@dataclass(frozen=True)
class ZoneSpec:
    """The description of one zone. Units as in vmadm(8): memory MiB, quota GiB, CPU cap in per cent of one core."""

    name: str
    uuid: str
    image: str = ""
    store: str = "overlay"
    memory: int | None = None
    cpu_cap: int | None = None
    quota: int | None = None
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    privileged: bool = False
    devices: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    autostart: bool = True
    idmap_base: int = 100000
    metadata: t.Mapping[str, t.Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: t.Mapping[str, t.Any]) -> ZoneSpec:
        """Read a description as module parameters or ``zone.json`` give it; unset keys take their default."""
        known = {one.name for one in fields(cls)}
        values = {key: value for key, value in data.items() if key in known and value is not None}
        values["networks"] = tuple(_network(one) for one in values.get("networks") or ())
        volumes = sorted((values.get("volumes") or {}).items())
        values["volumes"] = tuple(_volume(str(name), one) for name, one in volumes)
        for key in ("devices", "capabilities"):
            values[key] = tuple(values.get(key) or ())
        return cls(**values)

    def to_dict(self) -> dict[str, t.Any]:
        """The description as plain data: what :meth:`from_dict` reads, what ``zone.json`` and the diff show."""
        data = asdict(self)
        data["networks"] = [_plain(one) for one in data["networks"]]
        data["volumes"] = {one.pop("name"): _plain(one) for one in data["volumes"]}
        for key in ("devices", "capabilities"):
            data[key] = list(data[key])
        data["metadata"] = dict(self.metadata)
        return data


def _network(data: t.Mapping[str, t.Any]) -> Network:
    values = {key: value for key, value in data.items() if value is not None}
    for key in ("addresses", "vips"):
        values[key] = tuple(values.get(key) or ())
    values["mac"] = str(values["mac"]).lower()
    return Network(**values)


def _volume(name: str, data: object) -> Volume:
    if not isinstance(data, dict) or not isinstance(data.get("path"), str) or set(data) - {"path", "owner"}:
        raise ZoneError(
            f"volumes.{name}: {data!r} is not right: a mapping with path and optionally owner, nothing else"
        )
    owner = data.get("owner")
    return Volume(name, data["path"], None if owner is None else str(owner))


def _plain(data: dict[str, t.Any]) -> dict[str, t.Any]:
    """Drop what is not set, so that a description reads as somebody would write it."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in data.items()
        if value not in (None, ())
    }


def validate(spec: ZoneSpec) -> None:
    """Refuse a description that no backend could make, before anything is read or changed."""

    def refuse(where: str, value: object, right: str) -> t.NoReturn:
        raise ZoneError(f"zone {spec.name!r}: {where}: {value!r} is not right: {right}")

    if not DNS_LABEL.fullmatch(spec.name):
        refuse("name", spec.name, "a DNS label of at most 63 characters: lower case letters, digits, inner hyphens")
    try:
        canonical = str(uuid_lib.UUID(spec.uuid))
    except ValueError:
        canonical = ""
    if canonical != spec.uuid:
        refuse("uuid", spec.uuid, "a UUID in lower case with dashes")
    if spec.store not in STORES:
        refuse("store", spec.store, "one of " + ", ".join(STORES))
    for key, least in (("memory", 16), ("cpu_cap", 1), ("quota", 1)):
        value = getattr(spec, key)
        if value is not None and value < least:
            refuse(key, value, f"at least {least}, or nothing for no limit")
    if spec.idmap_base < 65536:
        refuse("idmap_base", spec.idmap_base, "65536 or more, so that no user of the zone is a user of its host")
    if (spec.devices or spec.capabilities) and not spec.privileged:
        key = "devices" if spec.devices else "capabilities"
        refuse(
            key, list(getattr(spec, key)), "only a privileged zone may have any; set privileged: true or leave it out"
        )
    for device in spec.devices:
        if not re.fullmatch(r"/dev/[A-Za-z0-9_./-]+", device) or ".." in device:
            refuse("devices", device, "the path of a device of the host, such as /dev/net/tun")
    for capability in spec.capabilities:
        if not re.fullmatch(r"[a-z_]+", capability):
            refuse("capabilities", capability, "a name as in capabilities(7), lower case without cap_, or all")
    _validate_networks(spec, refuse)
    _validate_volumes(spec, refuse)


def _validate_networks(spec: ZoneSpec, refuse: t.Callable[[str, object, str], t.NoReturn]) -> None:
    names: set[str] = set()
    for index, network in enumerate(spec.networks):
        where = f"networks[{index}]"
        if not INTERFACE_NAME.fullmatch(network.name) or network.name in names or network.name == "lo":
            refuse(
                f"{where}.name", network.name, "an interface name of at most 15 characters, used once (eth0, eth1, ...)"
            )
        names.add(network.name)
        if not INTERFACE_NAME.fullmatch(network.bridge):
            refuse(f"{where}.bridge", network.bridge, "the name of a bridge of the host, at most 15 characters")
        if not MAC_ADDRESS.fullmatch(network.mac) or int(network.mac[:2], 16) & 1:
            refuse(f"{where}.mac", network.mac, "a unicast MAC address such as 02:00:5e:10:00:01")
        if network.address is not None and network.prefix is None:
            refuse(f"{where}.prefix", network.prefix, "the prefix length that belongs to address, such as 24")
        try:
            interfaces = network.interfaces()
        except ValueError as bad:
            refuse(f"{where}.address", network.address, f"an address and a prefix length ({bad})")
        for vip in network.vips:
            try:
                ipaddress.ip_address(vip)
            except ValueError:
                refuse(f"{where}.vips", vip, "an IP address without a prefix length")
        if network.gateway is not None:
            try:
                gateway = ipaddress.ip_address(network.gateway)
            except ValueError:
                refuse(f"{where}.gateway", network.gateway, "an IP address")
            if not any(gateway in one.network for one in interfaces):
                refuse(
                    f"{where}.gateway", network.gateway, "an address inside the network of one of the zone's addresses"
                )
        if network.mtu is not None and not 576 <= network.mtu <= 65535:
            refuse(f"{where}.mtu", network.mtu, "576 to 65535 bytes")


def _validate_volumes(spec: ZoneSpec, refuse: t.Callable[[str, object, str], t.NoReturn]) -> None:
    paths: set[str] = set()
    for volume in spec.volumes:
        where = f"volumes.{volume.name}"
        if not FILE_NAME.fullmatch(volume.name):
            refuse(where, volume.name, "a name of letters, digits, '.', '_' and '-'")
        parts = volume.path.split("/")
        if not re.fullmatch(r"(/[A-Za-z0-9_.+@-]+)+", volume.path) or {".", ".."} & set(parts):
            refuse(f"{where}.path", volume.path, "an absolute path below / without '..', blanks or a closing slash")
        if volume.path in paths:
            refuse(f"{where}.path", volume.path, "a path that no other volume of the zone has")
        paths.add(volume.path)


@dataclass(frozen=True)
class Current:
    """What exists under a zone's name.

    ``spec`` is None when there is no zone. ``volumes`` are the volumes with data on disk, which a destroyed zone
    leaves behind; ``debris`` says that an interrupted call left a half-made or half-removed zone.
    """

    spec: ZoneSpec | None = None
    running: bool = False
    pid: int | None = None
    volumes: tuple[str, ...] = ()
    debris: bool = False
    drift: tuple[str, ...] = ()  # fields whose applied value is not the recorded one, such as a config edited by hand


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
class Plan:
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


class Backend(t.Protocol):
    """What a zone backend must offer. ``live`` are the fields of a zone that it changes while the zone runs."""

    live: t.ClassVar[frozenset[str]]

    def exclusive(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold off other calls for the same zone."""

    def effective(self, want: ZoneSpec) -> ZoneSpec:
        """The description without what this backend cannot do, so that nothing is reported that was not done."""

    def read(self, name: str, uuid: str) -> Current:
        """What exists under ``name``; refuse a zone that is not ours. Changes nothing."""

    def check(self, want: ZoneSpec) -> None:
        """Refuse what this host cannot give (image, bridge, ...). Changes nothing."""

    def create(self, want: ZoneSpec) -> None:
        """Make the zone, not started. Either it is complete afterwards or :meth:`read` does not see it."""

    def update(self, want: ZoneSpec, changed: t.Collection[str], running: bool) -> None:
        """Change ``changed`` fields; only fields in ``live`` while the zone is ``running``."""

    def power(self, name: str, on: bool) -> None:
        """Start the zone, or stop it and wait until it is gone."""

    def ready(self, name: str) -> int:
        """Wait until the running zone answers; return the process id of its init."""

    def destroy(self, name: str, purge: bool) -> None:
        """Remove the stopped zone and any debris of it, with ``purge`` its volumes too."""


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
) -> Plan:
    """Say which calls bring ``current`` to ``want`` and ``state``. Pure.

    A change outside ``live`` is made on a stopped zone: stop, update, start. A call that is killed in between leaves a
    stopped zone that still differs, so the next call finishes it. With ``disruptive`` false such a change of a running
    zone is not planned but named in ``pending``; what can be done while it runs is done.
    """
    stop, start = Action("stop", want), Action("start", want)
    if state == "absent":
        purge = purge and bool(current.volumes)
        if current.spec is None and not current.debris and not purge:
            return Plan((), None, False)
        destroy = Action("destroy", want, purge=purge)
        return Plan((stop, destroy) if current.running else (destroy,), None, False)

    up = state != "stopped"
    if current.spec is None:
        create = Action("create", want)
        return Plan((create, start) if up else (create,), want, up)

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
    return Plan(tuple(actions), after, up, pending)


def _reason(have: ZoneSpec, want: ZoneSpec, key: str) -> str:
    """Why a change waits: in full where both values are short."""
    before, after = getattr(have, key, None), getattr(want, key, None)
    if isinstance(before, (str, int)) and isinstance(after, (str, int)):
        what = f"{before} -> {after}" if before != after else f"{after} is to be made anew"
    else:
        what = "what runs is not what is described"
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
    with contextlib.nullcontext() if check_mode else backend.exclusive(want.name):
        current = backend.read(want.name, want.uuid)
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
            pid = backend.ready(want.name)
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
    if action.verb in ("start", "stop"):
        backend.power(action.spec.name, action.verb == "start")
        return action.verb == "start"
    if action.verb == "create":
        backend.create(action.spec)
    elif action.verb == "update":
        backend.update(action.spec, action.fields, running)
    else:
        backend.destroy(action.spec.name, action.purge)
    return running


def _volumes_after(todo: Plan, current: Current) -> tuple[str, ...]:
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
