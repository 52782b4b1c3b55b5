# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of a zone: what may be said of one, and what no backend could make. Pure, and the same for every backend."""

from __future__ import annotations

import ipaddress
import re
import typing as t
import uuid as uuid_lib
from dataclasses import asdict, dataclass, field, fields

Store = t.Literal["overlay", "dir", "btrfs", "zfs"]
STORES: tuple[str, ...] = t.get_args(Store)

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
class Interface:
    """A network interface of a zone: a port of a bridge of its host, with static addresses.

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
    networks: tuple[Interface, ...] = ()
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
        values["networks"] = tuple(_interface(one) for one in values.get("networks") or ())
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


def _interface(data: t.Mapping[str, t.Any]) -> Interface:
    values = {key: value for key, value in data.items() if value is not None}
    for key in ("addresses", "vips"):
        values[key] = tuple(values.get(key) or ())
    values["mac"] = str(values["mac"]).lower()
    return Interface(**values)


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
