# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vmadm(8) can set of a VM, what it makes of a payload, and the smallest one that brings a VM to a description.

Pure: nothing here runs a command; :mod:`.vmadm` does. Three forms of a VM occur:

* what ``vmadm get`` shows, with comma lists, derived values, and defaults left out;
* a *state* (:func:`normal`): the same, each property of :data:`PROPERTIES` present in one form;
* a *description* (:class:`Want`): only what somebody asked for.

The limits that vmadm applies and the values that it drags along are those of its own source (``fixPayloadMemory``,
``normalizePayload``, ``buildZonecfgUpdate`` in VM.js), as the recorded payloads confirm where there are any. Nothing was
ever seen on a running SmartOS host.
"""

from __future__ import annotations

import copy
import ipaddress
import math
import re
import typing as t
from dataclasses import dataclass, field, replace

State = dict[str, t.Any]
Payload = dict[str, t.Any]

ZONES = ("joyent", "joyent-minimal", "builder", "lx")
HVM = ("bhyve", "kvm")
BRANDS = ZONES + HVM
MDATA_FETCH = ("joyent", "joyent-minimal", "builder")  # vmadm runs their mdata:fetch anew when the network changes
STATES = ("present", "running", "stopped", "rebooted", "absent")
SNAPSHOT_STATES = ("present", "absent", "rolled_back")
TRANSIENT = ("provisioning", "stopping", "shutting_down", "receiving")  # states that a VM leaves by itself

# MiB above ``ram``: what vmadm adds for the hypervisor when nothing is said, and what it insists on.
OVERHEAD = {"bhyve": (1280, 256), "kvm": (1024, 256)}
LEAST_SWAP = 256  # MiB
MOST_SHARES = 65535
IDS = {"max_msg_ids": 4096, "max_sem_ids": 4096, "max_shm_ids": 4096}
RECORD_SIZE = 131072  # bytes, the default of ZFS
CONSOLES = {"com1": "/dev/zconsole", "com2": "socket,/tmp/vm.ttyb"}  # what an update that names neither sets
DOCKER_INIT = {"lx": "/native/usr/vm/sbin/dockerinit", "joyent-minimal": "/usr/vm/sbin/dockerinit"}
NOBODY = "00000000-0000-0000-0000-000000000000"
HVM_PRIVILEGES = ["default", "-file_link_any", "-net_access", "-proc_fork", "-proc_info", "-proc_session"]
HIDDEN, HIDDEN_NEW = "(hidden)", "(hidden, another value)"

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9_.:%-]{1,64}")
UNSETTABLE: t.Final = object()


class PlanError(Exception):
    """A VM cannot be made as described; the message says where, what, and what would be right."""


@dataclass(frozen=True)
class Property:
    """One property of a VM or of one of its nics, disks, filesystems or devices.

    :param type: as in an argument spec: str, int, bool, list, dict; ``objects`` for a list of mappings.
    :param elements: of a list.
    :param brands: the brands that may have it.
    :param update: whether ``vmadm update`` can change it.
    :param absent: the value that vmadm shows by leaving the property out.
    :param clear: what an update sends to unset it.
    :param applies: when a change reaches a running VM: ``live``, ``boot`` or ``stored`` (nothing to reach).
    :param least, most: limits of a number.
    :param shown: whether ``vmadm get`` tells it.
    :param secret: whether its value is kept out of logs, diffs and results.
    """

    type: str = "str"
    elements: str | None = None
    brands: tuple[str, ...] = BRANDS
    update: bool = True
    absent: t.Any = None
    clear: t.Any = UNSETTABLE
    applies: str = "boot"
    least: int | None = None
    most: int | None = None
    shown: bool = True
    secret: bool = False


def _text(**more: t.Any) -> Property:
    return Property(**{"clear": "", **more})


def _number(**more: t.Any) -> Property:
    # vmadm takes 0 and nothing for the same in most numbers; null would be read as 0, so "" unsets them.
    return Property(**{"type": "int", "absent": 0, "clear": "", "least": 0, **more})


def _flag(**more: t.Any) -> Property:
    return Property(**{"type": "bool", "absent": False, **more})


def _fixed(**more: t.Any) -> Property:
    return Property(**{"update": False, **more})


def _memory(**more: t.Any) -> Property:
    return Property(**{"type": "int", "least": 0, "applies": "live", **more})


# Brands, types and limits are those of vmadm's own table.
PROPERTIES: dict[str, Property] = {
    "alias": _text(applies="stored"),
    "archive_on_delete": _flag(applies="stored"),
    "autoboot": Property("bool", applies="stored"),
    "bhyve_extra_opts": _text(brands=("bhyve",)),
    "billing_id": _text(applies="stored"),
    "boot": _text(brands=HVM),
    "bootrom": _text(brands=("bhyve",)),
    "brand": _fixed(),
    "com1": _text(brands=("bhyve",)),
    "com2": _text(brands=("bhyve",)),
    "cpu_cap": _number(applies="live"),
    "cpu_shares": _number(applies="live"),
    "cpu_type": _text(brands=("kvm",)),
    "customer_metadata": Property("dict", applies="live", secret=True),
    "delegate_dataset": _fixed(type="bool", brands=ZONES, absent=False),
    "disk_driver": _text(brands=HVM, applies="stored"),
    "disks": Property("objects", brands=HVM),
    "dns_domain": _text(brands=ZONES),
    "do_not_inventory": _flag(applies="stored"),
    "docker": _flag(brands=("joyent-minimal", "lx")),
    "filesystems": Property("objects", brands=ZONES),
    "firewall_enabled": _flag(applies="live"),
    "flexible_disk_size": _number(brands=("bhyve",), applies="stored"),
    "fs_allowed": Property("list", "str", brands=ZONES, clear=[]),
    "hostname": _text(),
    "image_uuid": _fixed(),
    "indestructible_delegated": _flag(applies="live"),
    "indestructible_zoneroot": _flag(applies="live"),
    "init_name": _text(brands=ZONES),
    "internal_metadata": Property("dict", applies="live", secret=True),
    "internal_metadata_namespaces": Property("list", "str", clear=[]),
    "kernel_version": Property(brands=("lx",)),
    "limit_priv": Property("list", "str"),
    "maintain_resolvers": _flag(brands=ZONES, applies="stored"),
    "max_locked_memory": _memory(),
    "max_lwps": _number(applies="live"),
    "max_msg_ids": _number(applies="live"),
    "max_physical_memory": _memory(),
    "max_sem_ids": _number(applies="live"),
    "max_shm_ids": _number(applies="live"),
    "max_shm_memory": _number(applies="live"),
    "max_swap": _memory(least=LEAST_SWAP),
    "mdata_exec_timeout": _fixed(type="int", brands=ZONES, least=0, shown=False),
    "nic_driver": _text(brands=HVM, applies="stored"),
    "nics": Property("objects"),
    "nowait": _fixed(type="bool", brands=ZONES, shown=False),
    "owner_uuid": _text(applies="stored"),
    "package_name": _text(brands=(*ZONES, "kvm"), applies="stored"),
    "package_version": _text(brands=(*ZONES, "kvm"), applies="stored"),
    "pci_devices": Property("objects", brands=("bhyve",)),
    "qemu_extra_opts": _text(brands=("kvm",)),
    "qemu_opts": _text(brands=("kvm",)),
    "quota": _number(applies="live"),
    "ram": Property("int", least=0),
    "resolvers": Property("list", "str", clear=[]),
    "restart_init": _flag(brands=ZONES, absent=True),
    "routes": Property("dict"),
    "spice_opts": _text(brands=("kvm",)),
    "spice_password": _text(brands=("kvm",), secret=True),
    "spice_port": _number(brands=("kvm",), least=-1),
    "tags": Property("dict", applies="live"),
    "tmpfs": Property("int", brands=ZONES, least=0, absent=0),
    "uuid": _fixed(),
    "vcpus": Property("int", brands=HVM, least=1),
    "vga": Property(brands=("kvm",)),
    "virtio_txburst": _number(brands=("kvm",)),
    "virtio_txtimer": _number(brands=("kvm",)),
    "vnc_password": _text(brands=HVM, secret=True),
    "vnc_port": _number(brands=HVM, least=-1),
    # vmadm refuses "" for a compression, and takes 0 for the default of a record size.
    "zfs_data_compression": Property(brands=ZONES, absent="off", clear="off", applies="live"),
    "zfs_data_recsize": _number(brands=ZONES, absent=RECORD_SIZE, clear=0, applies="live"),
    "zfs_filesystem_limit": _number(absent=None, applies="live"),
    "zfs_io_priority": _number(applies="live"),
    "zfs_root_compression": Property(absent="off", clear="off", applies="live"),
    "zfs_root_recsize": _number(absent=RECORD_SIZE, clear=0, applies="live"),
    "zfs_snapshot_limit": _number(absent=None, applies="live"),
    "zlog_max_size": _number(brands=ZONES, most=2**63 - 1),
    "zonename": _fixed(),
    "zpool": _fixed(),
}

# A value of a nic ends up in zonecfg as it is, so only flags and lists can be taken back without a new nic.
NIC: dict[str, Property] = {
    "allow_dhcp_spoofing": _flag(applies="live"),
    "allow_ip_spoofing": _flag(applies="live"),
    "allow_mac_spoofing": _flag(applies="live"),
    "allow_restricted_traffic": _flag(applies="live"),
    "allow_unfiltered_promisc": _flag(brands=HVM, applies="live"),
    "allowed_dhcp_cids": Property("list", "str", brands=(*ZONES, "kvm"), clear=[]),
    "allowed_ips": Property("list", "str", clear=[], applies="live"),
    "blocked_outgoing_ports": Property("list", "int", clear=[]),
    "dhcp_server": _flag(),
    "gateway": Property(shown=False),
    "gateways": Property("list", "str", clear=[]),
    "interface": _fixed(),
    "ip": Property(shown=False),
    "ips": Property("list", "str", clear=[]),
    "mac": _fixed(),
    "model": Property(brands=HVM),
    "mtu": Property("int", least=576, most=9000),
    "netmask": Property(shown=False),
    "network_uuid": Property(applies="stored"),
    "nic_tag": Property(),
    "primary": _flag(),
    "vlan_id": Property("int", absent=0, least=0, most=4095),
    "vrrp_primary_ip": Property(),
    "vrrp_vrid": _fixed(type="int", least=0, most=255),  # the MAC follows from it
}
DISK: dict[str, Property] = {
    "block_size": _fixed(type="int", brands=HVM, least=0),
    "boot": _flag(brands=HVM),
    "compression": Property(brands=HVM, absent="off", applies="live"),
    "dangerous_allow_shrink": Property("bool", brands=("bhyve",), shown=False),
    "guest_block_size": Property(brands=("bhyve",)),
    "image_name": Property(brands=("kvm",)),
    "image_size": _fixed(type="int", brands=HVM, least=0),
    "image_uuid": _fixed(brands=HVM),
    "media": Property(brands=HVM, absent="disk"),
    "model": Property(brands=HVM),
    "nocreate": _fixed(type="bool", brands=HVM, shown=False),
    "notrim": Property("bool", brands=("bhyve",), absent=False),
    "path": _fixed(brands=HVM),
    "pci_slot": Property(brands=("bhyve",)),
    "refreservation": Property("int", brands=HVM, least=0, applies="live"),
    "size": Property("int", brands=HVM, least=0),  # kvm cannot resize: _disk_changes
    "uuid": Property(brands=("bhyve",)),
    "zpool": _fixed(brands=HVM),
}
FILESYSTEM: dict[str, Property] = {
    "options": Property("list", "str", brands=ZONES),
    "raw": Property(brands=ZONES),
    "source": Property(brands=ZONES),
    "target": _fixed(brands=ZONES),
    "type": Property(brands=ZONES),
}
PCI_DEVICE: dict[str, Property] = {
    "path": _fixed(brands=("bhyve",)),
    "pci_slot": Property(brands=("bhyve",)),
}


@dataclass(frozen=True)
class Items:
    """A list of mappings: the properties of one of them, and the one that is its identity."""

    key: str
    properties: dict[str, Property]


ITEMS: dict[str, Items] = {
    "nics": Items("mac", NIC),
    "disks": Items("path", DISK),
    "filesystems": Items("target", FILESYSTEM),
    "pci_devices": Items("path", PCI_DEVICE),
}
ALIASES = {"image_uuid": ["dataset_uuid", "zone_dataset_uuid"], "zpool": ["zfs_storage_pool_name"]}
# Whole: what a description does not name is removed. Of the other mappings, only the keys that it names are touched.
OWNED_WHOLE = ("routes",)
KEYED = ("customer_metadata", "internal_metadata", "tags", *OWNED_WHOLE)
# What ``vmadm update`` can do to a disk of a running VM.
LIVE_DISK = {"path", "compression", "refreservation"}


def argument_spec() -> dict[str, t.Any]:
    """The options of the properties, for an argument spec. That of the module vmadm adds its own."""

    def option(one: Property) -> dict[str, t.Any]:
        spec: dict[str, t.Any] = {"type": one.type}
        if one.elements:
            spec["elements"] = one.elements
        if one.secret:
            spec["no_log"] = True
        return spec

    options: dict[str, t.Any] = {}
    for name, one in PROPERTIES.items():
        if one.type == "objects":
            items = {key: option(each) for key, each in ITEMS[name].properties.items()}
            if name != "nics" and name != "disks":
                items[ITEMS[name].key]["required"] = True
            options[name] = {"type": "list", "elements": "dict", "options": items}
            continue
        options[name] = option(one)
        if name in ALIASES:
            options[name]["aliases"] = ALIASES[name]
    options["brand"]["choices"] = list(BRANDS)
    return options


@dataclass(frozen=True)
class Want:
    """What is asked of one VM.

    ``properties`` holds only what was given, in the form of a state; None for what is to be unset, and in a mapping for
    a key that is to be removed. ``reprovision``, ``allow_reboot``, ``replace_failed`` and ``remove_disks`` allow what
    costs the VM its root, its uptime or data; without them such a change is refused.
    """

    state: str = "present"
    uuid: str | None = None
    properties: t.Mapping[str, t.Any] = field(default_factory=dict)
    reprovision: bool = False
    allow_reboot: bool = False
    replace_failed: bool = False
    remove_disks: bool = False
    force: bool = False
    snapshot: t.Mapping[str, str] | None = None
    signal: str | None = None

    @property
    def alias(self) -> str | None:
        """The alias that was given."""
        return self.properties.get("alias")

    @property
    def who(self) -> str:
        """How messages call the VM."""
        return f"VM {self.uuid or repr(self.alias)}"

    @classmethod
    def from_options(cls, given: t.Mapping[str, t.Any]) -> Want:
        """Read what the module's options say, and refuse what no VM could have."""
        uuid, alias = given.get("uuid"), given.get("alias")
        where = f"VM {uuid or repr(alias)}"
        if not uuid and not alias:
            raise PlanError("neither uuid nor alias is given: one of them says which VM is meant, the uuid for good")
        if uuid and not UUID.fullmatch(uuid):
            raise PlanError(f"{where}: uuid: {uuid!r} is not right: a UUID in lower case with dashes")
        if alias and alias.startswith("~"):
            raise PlanError(
                f"{where}: alias: {alias!r} is not right: vmadm takes what begins with ~ for a pattern; choose another"
            )
        properties = {name: given[name] for name in PROPERTIES if given.get(name) is not None}
        for name in given.get("unset") or ():
            one = PROPERTIES.get(name)
            if one is None or one.clear is UNSETTABLE:
                can = ", ".join(sorted(key for key, each in PROPERTIES.items() if each.clear is not UNSETTABLE))
                raise PlanError(f"{where}: unset: {name!r} is not right: vmadm can unset {can}")
            if properties.get(name) not in (None, "", []):
                raise PlanError(f"{where}: unset: {name!r} is given a value as well: say one of both")
            properties[name] = None
        properties.pop("uuid", None)
        for name, value in properties.items():
            properties[name] = _read(f"{where}: {name}", PROPERTIES[name], value, name)
        _check_together(where, properties)
        snapshot = given.get("snapshot")
        if snapshot and not SNAPSHOT_NAME.fullmatch(snapshot["name"]):
            raise PlanError(
                f"{where}: snapshot.name: {snapshot['name']!r} is not right: 1 to 64 letters, digits, '-', '_', '.', ':', '%'"
            )
        flags = ("reprovision", "allow_reboot", "replace_failed", "remove_disks", "force")
        return cls(
            state=given.get("state") or "present",
            uuid=uuid,
            properties=properties,
            snapshot=snapshot,
            signal=given.get("signal"),
            **{name: bool(given.get(name)) for name in flags},
        )


def _read(where: str, one: Property, value: t.Any, name: str) -> t.Any:
    """One given value in the form of a state, or a refusal."""
    if one.type == "objects":
        return [_read_item(f"{where}[{index}]", ITEMS[name], item) for index, item in enumerate(value)]
    if value is None:
        return None
    if value == "" and one.type == "str":
        if one.clear is UNSETTABLE:
            raise PlanError(f"{where}: '' is not right: vmadm cannot unset it")
        return None
    if one.type == "int":
        most = math.inf if one.most is None else one.most
        if one.least is not None and not one.least <= value <= most:
            limit = f"at least {one.least}" if one.most is None else f"{one.least} to {one.most}"
            raise PlanError(f"{where}: {value!r} is not right: {limit}")
        if name.endswith("_recsize") and value == 0:
            return one.absent
        if name.endswith("_recsize") and (value < 512 or value > RECORD_SIZE or value & (value - 1)):
            raise PlanError(f"{where}: {value!r} is not right: a power of two from 512 to {RECORD_SIZE} bytes")
    if one.type == "dict":
        for key, each in value.items():
            if not isinstance(each, (str, int, float, bool, type(None))):
                raise PlanError(f"{where}.{key}: a string, a number or a boolean is needed; vmadm stores nothing nested")
    return value


def _read_item(where: str, items: Items, given: t.Mapping[str, t.Any]) -> State:
    item = {name: value for name, value in given.items() if value is not None}
    for name, value in item.items():
        one = items.properties[name]
        item[name] = _read(f"{where}.{name}", one, value, name)
        if item[name] is None and one.clear is UNSETTABLE:
            raise PlanError(f"{where}.{name}: '' is not right: vmadm cannot unset it")
    if items is ITEMS["nics"]:
        try:
            item = modern_nic(item)
        except ValueError as bad:
            raise PlanError(f"{where}: {bad}") from None
        _check_addresses(where, item)
    return item


def modern_nic(nic: t.Mapping[str, t.Any]) -> State:
    """A nic with ``ips`` and ``gateways`` in place of ``ip``, ``netmask`` and ``gateway``, and a MAC as vmadm writes it."""
    item = dict(nic)
    ip, netmask, gateway = item.pop("ip", None), item.pop("netmask", None), item.pop("gateway", None)
    if ip and "ips" not in item:
        if ip in ("dhcp", "addrconf"):
            item["ips"] = [ip]
        elif not netmask:
            raise ValueError(f"ip: {ip!r} needs netmask; or give ips with a prefix length, such as {ip}/24")
        else:
            item["ips"] = [f"{ip}/{ipaddress.ip_network(f'0.0.0.0/{netmask}').prefixlen}"]
    if gateway and "gateways" not in item:
        item["gateways"] = [gateway]
    if "vrrp_vrid" in item and "mac" not in item:
        item["mac"] = f"00:00:5e:00:01:{item['vrrp_vrid']:02x}"
    if item.get("mac"):
        parts = item["mac"].lower().split(":")
        if len(parts) != 6 or not all(re.fullmatch("[0-9a-f]{1,2}", part) for part in parts):
            raise ValueError(f"mac: {item['mac']!r} is not right: six hexadecimal numbers with colons, as 02:08:20:1a:2b:3c")
        item["mac"] = ":".join(part.zfill(2) for part in parts)
    return item


def _check_addresses(where: str, nic: State) -> None:
    """Refuse what ``vmadm validate`` lets pass and ``vmadm create`` refuses, without naming the nic."""
    for address in nic.get("ips") or ():
        if address in ("dhcp", "addrconf"):
            continue
        try:
            if "/" not in address:
                raise ValueError("the prefix length is missing")
            ipaddress.ip_interface(address)
        except ValueError as bad:
            raise PlanError(
                f"{where}.ips: {address!r} is not right: an address with its prefix length, dhcp or addrconf ({bad})"
            ) from None
    for gateway in nic.get("gateways") or ():
        try:
            ipaddress.IPv4Address(gateway)
        except ValueError:
            raise PlanError(f"{where}.gateways: {gateway!r} is not right: an IPv4 address") from None


def _check_together(where: str, properties: t.Mapping[str, t.Any]) -> None:
    """Refuse what no single value is to blame for."""
    for name, items in ITEMS.items():
        keys = [item[items.key] for item in properties.get(name) or () if items.key in item]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise PlanError(f"{where}: {name}: {items.key} {twice[0]!r} is given twice")
    nics = properties.get("nics") or ()
    if sum(bool(nic.get("primary")) for nic in nics) > 1:
        raise PlanError(f"{where}: nics: more than one is primary; a VM has one")
    addresses = [_bare(one) for nic in nics for one in nic.get("ips") or () if "/" in one]
    for address in addresses:
        if addresses.count(address) > 1:
            raise PlanError(f"{where}: nics: the address {address} is given twice")


def _bare(address: str) -> str:
    return str(ipaddress.ip_interface(address).ip)


# ---------------------------------------------------------------------------------------------------------------------
# States


def normal(vm: t.Mapping[str, t.Any]) -> State:
    """What ``vmadm get`` shows, with every property of :data:`PROPERTIES` present and in one form."""
    state: State = {}
    for name, one in PROPERTIES.items():
        if one.type == "objects":
            state[name] = [_normal_item(name, item) for item in vm.get(name) or ()]
        elif one.type == "dict":
            state[name] = dict(vm.get(name) or {})
        elif one.shown:
            state[name] = _shown(one, vm.get(name))
    state["nics"].sort(key=lambda nic: _number_of(nic.get("interface")))
    state["datasets"] = list(vm.get("datasets") or ())
    state["delegate_dataset"] = bool(state["datasets"])
    state["snapshots"] = [one["name"] for one in vm.get("snapshots") or ()]
    state["state"] = vm.get("state")
    if vm.get("brand") in ZONES:
        state["ram"] = None  # another name for max_physical_memory, which ``vmadm list`` alone shows
    return state


def _shown(one: Property, value: t.Any) -> t.Any:
    """A value as :func:`normal` has it: a list for a comma list, the default for nothing."""
    if one.type == "list":
        if isinstance(value, str):
            value = [part for part in value.split(",") if part]
        return [part for part in value or () if part != ""]
    return one.absent if value is None or value == "" else value


def _normal_item(kind: str, item: t.Mapping[str, t.Any]) -> State:
    item = modern_nic(item) if kind == "nics" else item
    return {name: _shown(one, item.get(name)) for name, one in ITEMS[kind].properties.items() if one.shown}


def _number_of(interface: str | None) -> int:
    found = re.search(r"\d+$", interface or "")
    return int(found.group()) if found else 10**6


def same(one: Property, first: t.Any, second: t.Any) -> bool:
    """Whether two values are the same to vmadm; true is not 1."""
    return _strict(_shown(one, first)) == _strict(_shown(one, second))


def _strict(value: t.Any) -> t.Any:
    if isinstance(value, (list, tuple)):
        return [_strict(each) for each in value]
    return (type(value) is bool, value)


def unlike(predicted: State, actual: State, names: t.Iterable[str]) -> list[str]:
    """What of ``names`` is not as predicted. What a prediction cannot know (a random MAC, a path) is left out of it."""
    found = []
    for name in names:
        expected, value = predicted.get(name), actual.get(name)
        if name in ITEMS:
            ok = _items_alike(name, expected or [], value or [])
        elif name in KEYED:
            ok = _strict(sorted((expected or {}).items())) == _strict(
                sorted((key, each) for key, each in (value or {}).items() if key != "docker:id")
            )
        else:
            ok = same(PROPERTIES.get(name, Property()), expected, value)
        if not ok:
            found.append(name)
    return found


def _items_alike(kind: str, expected: list[State], actual: list[State]) -> bool:
    items = ITEMS[kind]
    if len(expected) != len(actual):
        return False
    for item, other in match(kind, expected, actual):
        if other is None or any(not same(items.properties[name], item[name], other.get(name)) for name in item):
            return False
    return True


def view(state: State | None, before: State | None = None) -> State:
    """One side of a diff: what is set, sorted, without the values of secrets; ``before`` marks those that change."""
    if state is None:
        return {"state": "absent"}
    shown: State = {}
    for name in sorted(state):
        value, one = state[name], PROPERTIES.get(name)
        if value in (None, [], {}) or name == "delegate_dataset" or (one and same(one, value, None)):
            continue
        if one and one.secret:
            old = before.get(name) if before else None
            if isinstance(value, dict):
                old = old or {}
                value = {key: _hidden(key in old, _strict(old.get(key)) == _strict(value[key])) for key in sorted(value)}
            else:
                value = _hidden(bool(old), old == value)
        elif name in ITEMS:
            known = ITEMS[name].properties
            value = [
                {key: item[key] for key in sorted(item) if not same(known[key], item[key], None)} for item in value
            ]
        shown[name] = value
    return shown


def _hidden(existed: bool, unchanged: bool) -> str:
    return HIDDEN_NEW if existed and not unchanged else HIDDEN


# ---------------------------------------------------------------------------------------------------------------------
# What vmadm makes of a payload


def memory(brand: str, payload: Payload, have: t.Mapping[str, t.Any]) -> Payload:
    """The payload with the values that vmadm drags along with a limit of memory, and its limits applied. MiB.

    ``max_locked_memory`` and ``max_swap`` keep their distance from ``max_physical_memory``, ``tmpfs`` keeps its ratio;
    swap is never below, locked memory and tmpfs never above it.
    """
    out = dict(payload)
    overhead, least = OVERHEAD.get(brand, (0, 0))
    old: t.Any = have.get("max_physical_memory")
    zone = brand in ZONES
    if "ram" in out and "max_physical_memory" not in out:
        out["max_physical_memory"] = out["ram"] + overhead
    if "max_physical_memory" in out:
        new = out["max_physical_memory"]
        locked, swap = have.get("max_locked_memory"), have.get("max_swap")
        if "max_locked_memory" not in out:
            out["max_locked_memory"] = new if old is None or locked is None else new - (old - locked)
        if "max_swap" not in out:
            tied = old is None or swap is None or (swap == LEAST_SWAP and new >= LEAST_SWAP)
            out["max_swap"] = max(LEAST_SWAP, new if tied else new + (swap - old))
        if zone and "tmpfs" not in out:
            kept = not old or have.get("tmpfs") is None
            out["tmpfs"] = new if kept else math.floor(have["tmpfs"] / old * new + 0.5)
        for name, default in (("max_shm_memory", new), *IDS.items()):
            if name not in out and not have.get(name):
                out[name] = default
    if "tmpfs" in out:
        out["tmpfs"] = min(out["tmpfs"], out.get("max_physical_memory", old))
    if least:
        floor = (out.get("ram") or have.get("ram") or 0) + least
        for name in ("max_physical_memory", "max_locked_memory"):
            if floor > (out[name] if name in out else have.get(name) or 0):
                out[name] = floor
    limit = out.get("max_physical_memory", old)
    if "max_locked_memory" in out:
        out["max_locked_memory"] = min(out["max_locked_memory"], limit)
    if "max_swap" in out:
        out["max_swap"] = max(out["max_swap"], limit)
    return out


def created(payload: Payload) -> State:
    """The state of the VM that ``vmadm create`` makes of a payload, without what only it can know."""
    vm = dict(payload)
    brand, zone = vm["brand"], vm["brand"] in ZONES
    vm["autoboot"] = vm.get("autoboot", True)
    vm["cpu_shares"] = min(vm.get("cpu_shares", 100), MOST_SHARES)
    defaults: Payload = {"owner_uuid": NOBODY, "billing_id": NOBODY, "zpool": "zones", "zfs_io_priority": 100}
    defaults.update(max_lwps=2000, ram=256, quota=1 if brand == "bhyve" else 10)
    defaults.update({"dns_domain": "local", "limit_priv": ["default"]} if zone else {"limit_priv": HVM_PRIVILEGES, "vcpus": 1})
    if vm.get("uuid"):
        defaults["zonename"] = vm["uuid"]
    vm = memory(brand, {**defaults, **vm}, {})
    if zone:
        vm["tmpfs"] = min(vm.get("tmpfs", vm["max_physical_memory"]), vm["max_physical_memory"])
    if vm.get("docker"):
        vm.update(_docker(brand, vm, {}))
    if not vm.get("image_uuid"):
        for name in ("spice_opts", "spice_password", "spice_port"):
            vm.pop(name, None)
    if vm.pop("delegate_dataset", False):
        vm["datasets"] = [f"{vm['zpool']}/{vm['zonename']}/data"] if "zonename" in vm else ["data"]
    state = normal({**vm, "nics": [], "disks": [], "filesystems": [], "pci_devices": []})
    if brand == "bhyve" and "com1" not in vm and "com2" not in vm:
        state.update(CONSOLES)
    for name in ITEMS:
        _add(state, name, payload.get(name) or [])
    if state["nics"] and not any(nic.get("primary") for nic in state["nics"]):
        state["nics"][0]["primary"] = True
    if brand == "bhyve" and not state["bootrom"] and any(disk.get("image_uuid") for disk in state["disks"]):
        del state["bootrom"]  # the image's manifest may name one
    state["state"] = "running" if vm["autoboot"] else "stopped"
    return state


def _docker(brand: str, payload: t.Mapping[str, t.Any], have: t.Mapping[str, t.Any]) -> Payload:
    """What comes with ``docker: true``. The id that vmadm makes is left out: it is random."""
    out: Payload = {"restart_init": False}
    names = list(payload.get("internal_metadata_namespaces") or ())
    if "docker" not in (have.get("internal_metadata_namespaces") or ()) and "docker" not in names:
        out["internal_metadata_namespaces"] = [*names, "docker"]
    if not have.get("init_name") and not payload.get("init_name") and brand in DOCKER_INIT:
        out["init_name"] = DOCKER_INIT[brand]
    return out


def updated(have: State, payload: Payload) -> State:
    """The state that ``vmadm update`` makes of another one."""
    after = copy.deepcopy(have)
    brand = have["brand"]
    change = memory(brand, payload, have) if payload else {}
    if change.get("docker"):
        change.update(_docker(brand, change, have))
    if brand == "bhyve" and not {"com1", "com2"} & set(payload):
        change.update(CONSOLES)
    if "zfs_root_compression" in payload and have["datasets"]:
        # A delegated dataset would inherit it, so vmadm sets its own: to off where it did not know of another.
        change.setdefault("zfs_data_compression", "off")
    for name, value in change.items():
        one = PROPERTIES.get(name)
        if one and one.type not in ("objects", "dict") and not (name == "ram" and brand in ZONES):
            after[name] = _shown(one, one.absent if name.endswith("_recsize") and value == 0 else value)
    for name in KEYED:
        after[name].update(payload.get(f"set_{name}") or {})
        for key in payload.get(f"remove_{name}") or ():
            after[name].pop(key, None)
    for name, items in ITEMS.items():
        gone = payload.get(f"remove_{name}") or ()
        after[name] = [item for item in after[name] if item[items.key] not in gone]
        for change_item in payload.get(f"update_{name}") or ():
            for item in after[name]:
                if item[items.key] == change_item[items.key]:
                    item.update({key: value for key, value in change_item.items() if items.properties[key].shown})
        _add(after, name, payload.get(f"add_{name}") or [], [item.get("interface") for item in have[name]])
    new_primary = [nic for name in ("update_nics", "add_nics") for nic in payload.get(name) or () if nic.get("primary")]
    if new_primary:
        for nic in after["nics"]:
            nic["primary"] = _is(nic, new_primary[0])
    return after


def _is(nic: State, other: State) -> bool:
    if other.get("mac"):
        return bool(nic.get("mac") == other["mac"])
    return "mac" not in nic and all(nic.get(key) == value for key, value in other.items())


def _add(state: State, kind: str, items: t.Sequence[State], taken: t.Sequence[str | None] = ()) -> None:
    """Append items as ``add_nics`` and its like do. What vmadm chooses at random is not in them."""
    prefix = "eth" if state["brand"] == "lx" else "net"
    used = {*taken, *(item.get("interface") for item in state[kind])}
    for given in items:
        item = {name: value for name, value in given.items() if ITEMS[kind].properties[name].shown}
        if kind == "nics":
            if "interface" not in item:
                item["interface"] = next(f"{prefix}{n}" for n in range(len(used) + 1) if f"{prefix}{n}" not in used)
            used.add(item["interface"])
            if "model" not in item and state.get("nic_driver"):
                item["model"] = state["nic_driver"]
            elif "model" not in item and state["nics"] and state["nics"][0].get("model"):
                item["model"] = state["nics"][0]["model"]
        if kind == "disks":
            if "model" not in item and state.get("disk_driver"):
                item["model"] = state["disk_driver"]
            item.setdefault("zpool", state["zpool"])
        for name, one in ITEMS[kind].properties.items():
            if one.shown and name not in item and one.absent is not None:
                item[name] = one.absent
        state[kind].append(item)


# ---------------------------------------------------------------------------------------------------------------------
# The smallest payload


def match(kind: str, wanted: t.Sequence[State], have: t.Sequence[State]) -> list[tuple[State, State | None]]:
    """Each wanted item with the existing one that it means.

    By identity where the item tells it. A nic without a MAC means the one with its interface, or else the one at its
    place; a disk without a path the one at its place.
    """
    key = ITEMS[kind].key
    found: dict[int, int] = {}

    def pair(index: int, places: t.Iterable[int]) -> None:
        for place in places:
            if place not in found.values():
                found[index] = place
                return

    for name in (key, "interface"):
        for index, item in enumerate(wanted):
            if index not in found and item.get(name) is not None and (name == key or item.get(key) is None):
                pair(index, [place for place, other in enumerate(have) if other.get(name) == item[name]])
    for index, item in enumerate(wanted):
        if item.get(key) is None and item.get("interface") is None and index < len(have):
            pair(index, [index])
    return [(item, have[found[index]] if index in found else None) for index, item in enumerate(wanted)]


def update_payload(have: State, want: Want) -> Payload:
    """The smallest payload with which ``vmadm update`` brings a VM to its description; empty when it is as described."""
    payload: Payload = {}
    for name in KEYED:
        if name in want.properties:
            payload.update(_mapping_changes(name, have[name], want.properties[name]))
    for name in ITEMS:
        if name in want.properties:
            payload.update(_item_changes(name, have, want))
    # What one value drags along may undo another, so look again with what was found until nothing is left.
    left: Payload = {}
    for _round in range(len(PROPERTIES)):
        after = updated(have, payload)
        goal = _goal(have, after, want, payload)
        left = {name: value for name, value in goal.items() if not same(PROPERTIES[name], after[name], value)}
        if not left:
            return payload
        payload.update({name: _sent(name, value) for name, value in left.items()})
    raise PlanError(f"{want.who}: no payload brings {', '.join(sorted(left))} to the wanted value: a defect of this module")


def _goal(have: State, after: State, want: Want, payload: Payload) -> Payload:
    """The values that the properties are to have at the end: the wanted ones as vmadm limits them, and what must stay."""
    goal = {
        name: value
        for name, value in want.properties.items()
        if PROPERTIES[name].update and PROPERTIES[name].type not in ("objects", "dict")
    }
    if have["brand"] in ZONES and "ram" in goal:
        goal.setdefault("max_physical_memory", goal.pop("ram"))
        goal.pop("ram", None)
    physical = after["max_physical_memory"]
    floor = after["ram"] + OVERHEAD[have["brand"]][1] if have["brand"] in OVERHEAD and after["ram"] is not None else 0
    for name in ("max_physical_memory", "max_locked_memory"):
        if name in goal:
            goal[name] = max(goal[name], floor)
    if "max_locked_memory" in goal:
        goal["max_locked_memory"] = min(goal["max_locked_memory"], physical)
    if "tmpfs" in goal:
        goal["tmpfs"] = min(goal["tmpfs"], physical)
    if "max_swap" in goal:
        goal["max_swap"] = max(goal["max_swap"], physical)
    if goal.get("cpu_shares"):
        goal["cpu_shares"] = min(goal["cpu_shares"], MOST_SHARES)
    if goal.get("docker", have["docker"]):
        if "restart_init" in goal or payload.get("docker"):
            goal["restart_init"] = False
        names = goal.get("internal_metadata_namespaces", have["internal_metadata_namespaces"]) or []
        if "internal_metadata_namespaces" in goal or payload.get("docker"):
            goal["internal_metadata_namespaces"] = names if "docker" in names else [*names, "docker"]
    if payload:
        keep = ["com1", "com2"] if have["brand"] == "bhyve" else []
        keep += ["zfs_data_compression"] if have["datasets"] else []
        for name in keep:
            goal.setdefault(name, have[name])
    return goal


def _sent(name: str, value: t.Any) -> t.Any:
    """How a payload carries a value: what unsets the property for the value that it has when it is left out."""
    one = PROPERTIES[name]
    if value is None or (one.type == "str" and same(one, value, None) and one.clear is not UNSETTABLE):
        return one.clear
    return value


def _mapping_changes(name: str, have: State, want: t.Mapping[str, t.Any]) -> Payload:
    payload: Payload = {}
    put = {key: value for key, value in want.items() if value is not None and _strict(have.get(key)) != _strict(value)}
    gone = [key for key, value in want.items() if value is None and key in have]
    if name in OWNED_WHOLE:
        gone = sorted(key for key in have if want.get(key) is None)
    if put:
        payload[f"set_{name}"] = put
    if gone:
        payload[f"remove_{name}"] = gone
    return payload


def _item_changes(name: str, have: State, want: Want) -> Payload:
    """``add_``, ``update_`` and ``remove_`` of one kind of items."""
    items, wanted = ITEMS[name], want.properties[name]
    pairs = match(name, wanted, have[name])
    add: list[State] = []
    update: list[State] = []
    for index, (item, other) in enumerate(pairs):
        item = {key: value for key, value in item.items() if key != "primary" or value}
        if other is None:
            add.append(item)
            continue
        change = {
            key: items.properties[key].clear if value is None else value
            for key, value in item.items()
            if key != items.key and items.properties[key].shown and not same(items.properties[key], other.get(key), value)
        }
        if name == "disks":
            change = _disk_changes(index, item, other, change, have, want)
        fixed = [key for key in change if not items.properties[key].update]
        if fixed:
            what = "; ".join(f"{key} is {other.get(key)!r}, not {change[key]!r}" for key in fixed)
            raise PlanError(
                f"{want.who}: {name}[{index}] ({items.key} {other[items.key]}): {what}: vmadm cannot change it; "
                f"take the entry out in one run and add it in another"
            )
        if change:
            if change.get("size") is not None and item.get("dangerous_allow_shrink"):
                change["dangerous_allow_shrink"] = True
            update.append({items.key: other[items.key], **change})
    kept = [id(other) for item, other in pairs]
    remove = [item[items.key] for item in have[name] if id(item) not in kept]
    if name == "nics":
        _keep_primary(pairs, have["nics"], add, update, remove)
    if name == "disks" and remove and not want.remove_disks:
        raise PlanError(
            f"{want.who}: disks: {', '.join(remove)} is not among them, and removing it destroys its data: "
            f"name it, or set remove_disks: true"
        )
    found = {"add": add, "update": update, "remove": remove}
    return {f"{verb}_{name}": value for verb, value in found.items() if value}


def _keep_primary(
    pairs: list[tuple[State, State | None]], have: list[State], add: list[State], update: list[State], remove: list[str]
) -> None:
    """Name the primary nic where vmadm would choose one by itself, or none."""
    if not pairs or any(item.get("primary") for item, other in pairs):
        return
    if any(nic.get("primary") and nic["mac"] not in remove for nic in have):
        return
    first, other = pairs[0]
    if other is None:
        add[add.index({key: value for key, value in first.items() if key != "primary"})]["primary"] = True
        return
    for change in update:
        if change["mac"] == other["mac"]:
            change["primary"] = True
            return
    update.append({"mac": other["mac"], "primary": True})


def _disk_changes(index: int, item: State, other: State, change: Payload, have: State, want: Want) -> Payload:
    """The changes of one disk without the image of the first one, which reprovision changes; refuse what is impossible."""
    where = f"{want.who}: disks[{index}] ({other['path']})"
    if index == 0 and want.reprovision and have["brand"] == "bhyve" and "image_uuid" in change:
        change = {key: value for key, value in change.items() if key not in ("image_uuid", "image_size")}
    if "size" in change:
        if have["brand"] == "kvm":
            raise PlanError(f"{where}: size is {other['size']} MiB, not {change['size']}: vmadm cannot resize a disk of brand kvm")
        if change["size"] < (other["size"] or 0) and not item.get("dangerous_allow_shrink"):
            raise PlanError(
                f"{where}: size is {other['size']} MiB, and {change['size']} would cut off data: "
                f"set dangerous_allow_shrink: true for this disk if that is meant"
            )
    return change


# ---------------------------------------------------------------------------------------------------------------------
# Plans


@dataclass(frozen=True)
class Step:
    """One call of vmadm: its verb, what it reads from stdin, what it must bring about, and the state after it."""

    verb: str
    payload: Payload | None = None
    names: tuple[str, ...] = ()
    after: State | None = None
    argument: str = ""

    def __str__(self) -> str:
        detail = self.argument or (", ".join(sorted(self.names)) if self.verb == "update" else "")
        return f"{self.verb} ({detail})" if detail else self.verb


@dataclass(frozen=True)
class Plan:
    """The calls that bring a VM to what is wanted; ``reboot_needed`` names what a running VM does not see yet."""

    before: State | None
    after: State | None
    steps: tuple[Step, ...] = ()
    reboot_needed: tuple[str, ...] = ()

    @property
    def rebooted(self) -> bool:
        """Whether a running VM is stopped and started."""
        verbs = [step.verb for step in self.steps]
        up = self.before is not None and self.before["state"] == "running"
        return up and any(verb in verbs for verb in ("reboot", "reprovision", "rollback-snapshot")) or (
            up and "stop" in verbs and "start" in verbs
        )


def find(vms: t.Sequence[t.Mapping[str, t.Any]], want: Want) -> t.Mapping[str, t.Any] | None:
    """The VM that a description means, by UUID, or else by an alias that only one VM has."""
    named = [vm for vm in vms if want.alias and vm.get("alias") == want.alias]
    others = [vm["uuid"] for vm in named if vm["uuid"] != want.uuid]
    if want.uuid:
        if others and want.state != "absent":
            raise PlanError(f"{want.who}: alias {want.alias!r} is that of VM {others[0]} already: choose another")
        return next((vm for vm in vms if vm["uuid"] == want.uuid), None)
    if len(named) > 1:
        raise PlanError(f"alias {want.alias!r} is that of {len(named)} VMs: say which by uuid: {', '.join(others)}")
    return named[0] if named else None


def plan(vm: t.Mapping[str, t.Any] | None, want: Want, others: t.Sequence[t.Mapping[str, t.Any]] = ()) -> Plan:
    """Say which calls bring a VM to its description, or refuse. Pure.

    :param vm: what ``vmadm get`` shows of it, None when there is none.
    :param others: the other VMs of the host, for conflicts of addresses.
    """
    have = normal(vm) if vm else None
    if want.state == "absent":
        return _plan_absent(have, want)
    brand = have["brand"] if have else want.properties.get("brand")
    if brand not in BRANDS:
        what = "give brand, the VM is to be made" if brand is None else f"brand {brand!r} is none of {', '.join(BRANDS)}"
        raise PlanError(f"{want.who}: {what}")
    _check_brand(brand, want)
    _check_conflicts(want, others)
    if have is None or have["state"] == "failed":
        if have is not None and not want.replace_failed:
            raise PlanError(
                f"{want.who}: its provisioning failed, and vmadm marked it failed: see /var/log/vm/logs and its zone's own logs; "
                f"set replace_failed: true to have it deleted with all its data and made anew"
            )
        todo = _plan_new(want)
        if have is None:
            return todo
        return Plan(have, todo.after, (Step("delete"), *todo.steps), todo.reboot_needed)
    return _plan_existing(have, want)


def _check_brand(brand: str, want: Want) -> None:
    given = [(name, PROPERTIES[name]) for name in want.properties]
    for kind, items in ITEMS.items():
        for index, item in enumerate(want.properties.get(kind) or ()):
            given += [(f"{kind}[{index}].{name}", items.properties[name]) for name in item]
    for where, one in given:
        if brand not in one.brands:
            raise PlanError(f"{want.who}: {where}: a VM of brand {brand} cannot have it, only one of {', '.join(one.brands)}")
    ram, physical = want.properties.get("ram"), want.properties.get("max_physical_memory")
    if brand in ZONES and None not in (ram, physical) and ram != physical:
        raise PlanError(f"{want.who}: ram is {ram} and max_physical_memory {physical}: for brand {brand} both are the same limit")


def _check_conflicts(want: Want, others: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    """Refuse an address or a MAC that another VM of the host has. vmadm compares text only: 10.0.0.1/24 is not 10.0.0.1/25 to it."""
    for vm in others:
        if vm.get("state") == "failed":
            continue
        for nic in normal(vm)["nics"]:
            theirs = {_bare(one) for one in nic["ips"] if "/" in one}
            for index, mine in enumerate(want.properties.get("nics") or ()):
                where = f"{want.who}: nics[{index}]"
                if mine.get("mac") and mine["mac"] == nic["mac"] and mine.get("vrrp_vrid") is None:
                    raise PlanError(f"{where}.mac: {mine['mac']} is that of VM {vm['uuid']}")
                if (mine.get("nic_tag"), mine.get("vlan_id") or 0) != (nic["nic_tag"], nic["vlan_id"]):
                    continue
                both = theirs & {_bare(one) for one in mine.get("ips") or () if "/" in one}
                if both:
                    raise PlanError(f"{where}.ips: {sorted(both)[0]} is an address of VM {vm['uuid']} on {nic['nic_tag']} too")


def _plan_absent(have: State | None, want: Want) -> Plan:
    if have is None:
        return Plan(None, None)
    steps: list[Step] = []
    for name in ("indestructible_zoneroot", "indestructible_delegated"):
        if have[name] and want.properties.get(name) is not False:
            raise PlanError(f"{want.who}: {name} is set, so it is not deleted: give {name}: false as well if that is meant")
        if have[name]:
            steps.append(Step("update", {name: False}, (name,), {**have, name: False}))
    return Plan(have, None, (*steps, Step("delete")))


def _plan_new(want: Want) -> Plan:
    """Create the VM, and update what vmadm does not take over from the payload."""
    asked = {name: value for name, value in want.properties.items() if value is not None}
    up = {"running": True, "rebooted": True, "stopped": False}.get(want.state, asked.get("autoboot", True))
    payload: Payload = {name: value for name, value in asked.items() if name not in KEYED}
    if want.uuid:
        payload["uuid"] = want.uuid
    for name in KEYED:
        values = {key: value for key, value in (asked.get(name) or {}).items() if value is not None}
        if values:
            payload[name] = values
    for name in ITEMS:
        if name in payload:
            payload[name] = [
                {key: value for key, value in item.items() if value is not None and (key != "primary" or value)}
                for item in payload[name]
            ]
    brand = payload["brand"]
    _check_new(brand, payload, want)
    if brand in ZONES and "ram" in payload:
        payload.setdefault("max_physical_memory", payload.pop("ram"))
        payload.pop("ram", None)
    if up is not asked.get("autoboot", True) or "autoboot" in asked:
        payload["autoboot"] = up
    state = created(payload)
    steps = [Step("create", payload, tuple(name for name in payload if PROPERTIES[name].shown), state)]
    rest = update_payload(state, want)
    if rest:
        steps.append(_update(state, rest))
        state = t.cast(State, steps[-1].after)
    return _with_extras(Plan(None, state, tuple(steps)), want, up)


def _check_new(brand: str, payload: Payload, want: Want) -> None:
    """Refuse what ``vmadm validate`` would let pass although nothing can come of it."""
    missing = [name for name in ("image_uuid",) if brand in ZONES and not payload.get(name)]
    missing += ["kernel_version"] if brand == "lx" and not payload.get("kernel_version") else []
    if missing:
        raise PlanError(f"{want.who}: {', '.join(missing)} is needed to make a VM of brand {brand}")
    for index, nic in enumerate(payload.get("nics") or ()):
        if not nic.get("nic_tag"):
            raise PlanError(f"{want.who}: nics[{index}].nic_tag is needed: a tag that nictagadm list shows")
        if brand in HVM and not nic.get("model") and not payload.get("nic_driver"):
            raise PlanError(f"{want.who}: nics[{index}].model is needed for brand {brand}, or nic_driver for all of them")
    for index, disk in enumerate(payload.get("disks") or ()):
        if not disk.get("model") and not payload.get("disk_driver"):
            raise PlanError(f"{want.who}: disks[{index}].model is needed for brand {brand}, or disk_driver for all of them")
    _check_delegated(bool(payload.get("delegate_dataset")), want)


def _check_delegated(delegated: bool, want: Want) -> None:
    for name in ("zfs_data_compression", "zfs_data_recsize", "indestructible_delegated"):
        one = PROPERTIES[name]
        if not delegated and name in want.properties and not same(one, want.properties[name], None):
            raise PlanError(f"{want.who}: {name}: the VM has no delegated dataset; one is given with delegate_dataset when it is made")


def _update(state: State, payload: Payload) -> Step:
    names = tuple(sorted({re.sub("^(add|update|remove|set)_", "", name) for name in payload}))
    return Step("update", payload, names, updated(state, payload))


def _plan_existing(have: State, want: Want) -> Plan:
    image = _image_change(have, want)
    _check_fixed(have, want)
    _check_delegated(have["delegate_dataset"], want)
    up = have["state"] == "running"
    target = {"running": True, "rebooted": True, "stopped": False}.get(want.state, up)
    if have["state"] not in ("running", "stopped") and want.state != "present":
        raise PlanError(f"{want.who}: its state is {have['state']!r}, from which vmadm neither starts nor stops it")

    # Power steps change autoboot, so it is compared when they are done.
    payload = update_payload(have, _without(want, "autoboot"))
    disruptive = _needs_stop(payload)
    allowed = want.allow_reboot or want.state == "rebooted"
    steps: list[Step] = []
    state = have
    if up and not target:
        steps.append(_power(state, False, want))
    elif up and disruptive:
        if not allowed:
            raise PlanError(
                f"{want.who}: {', '.join(disruptive)}: vmadm changes it only while the VM is stopped: "
                f"set allow_reboot: true to have it stopped and started"
            )
        steps.append(_power(state, False, want))
    state = steps[-1].after or state if steps else state
    running_changes: list[str] = []
    if payload:
        step = _update(state, payload)
        after = t.cast(State, step.after)
        if state["state"] == "running":
            running_changes = _unseen(state, after)
        steps.append(step)
        state = after
    if image:
        state = _reprovisioned(state, image)
        steps.append(Step("reprovision", {"image_uuid": image}, ("image_uuid", "disks", "state"), state))
        running_changes = []
    extras = _with_extras(Plan(have, state, tuple(steps)), want, target, original=have["autoboot"])
    verbs = [step.verb for step in extras.steps]
    restarts = {"stop", "start", "reprovision", "rollback-snapshot"} & set(verbs)
    if up and target and not restarts and (want.state == "rebooted" or (running_changes and want.allow_reboot)):
        reboot = Step("reboot", None, ("state",), extras.after, "force" if want.force else "")
        return Plan(have, extras.after, (*extras.steps, reboot))
    return Plan(have, extras.after, extras.steps, () if restarts or not target else tuple(running_changes))


def _without(want: Want, *names: str) -> Want:
    return replace(want, properties={name: value for name, value in want.properties.items() if name not in names})


def _with_extras(done: Plan, want: Want, up: bool, original: bool | None = None) -> Plan:
    """A plan with snapshot, power, autoboot and signal after the configuration."""
    steps, state = list(done.steps), t.cast(State, done.after)
    if want.snapshot:
        step = _snapshot(state, want)
        if step:
            steps.append(step)
            state = t.cast(State, step.after)
    if (state["state"] == "running") is not up and state["state"] in ("running", "stopped"):
        steps.append(_power(state, up, want))
        state = t.cast(State, steps[-1].after)
    autoboot = want.properties.get("autoboot")
    if autoboot is None and want.state != "stopped" and original is not None:
        was_up = done.before is not None and done.before["state"] == "running"
        autoboot = original if was_up is up else None  # stopped and started on the way, as nobody asked
    if autoboot is not None and state["autoboot"] is not autoboot:
        payload = update_payload(state, Want(uuid=want.uuid, properties={"autoboot": autoboot}))
        last = steps[-1] if steps else None
        if last and last.verb == "update" and last.payload is not None and done.before is not None:
            earlier = steps[-2].after if len(steps) > 1 else done.before
            steps[-1] = _update(t.cast(State, earlier), {**last.payload, **payload})
        else:
            steps.append(_update(state, payload))
        state = t.cast(State, steps[-1].after)
    if want.signal:
        if state["state"] != "running":
            raise PlanError(f"{want.who}: signal: {want.signal} cannot be sent to a VM that does not run")
        steps.append(Step("kill", None, (), state, want.signal))
    return Plan(done.before, state, tuple(steps), done.reboot_needed)


def _power(state: State, up: bool, want: Want) -> Step:
    """Start or stop. vmadm keeps it in autoboot; the no-op of a stopped VM would do so too."""
    after = {**state, "state": "running" if up else "stopped", "autoboot": up}
    return Step("start" if up else "stop", None, ("state",), after, "force" if want.force and not up else "")


def _snapshot(state: State, want: Want) -> Step | None:
    asked = t.cast(t.Mapping[str, str], want.snapshot)
    name, wanted, have = asked["name"], asked.get("state") or "present", state["snapshots"]
    if wanted == "absent":
        if name not in have:
            return None
        after = {**state, "snapshots": [one for one in have if one != name]}
        return Step("delete-snapshot", None, ("snapshots",), after, name)
    if state["brand"] == "kvm":
        raise PlanError(f"{want.who}: snapshot: vmadm does not support snapshots of brand kvm; take one with zfs")
    if state["datasets"] and (wanted == "rolled_back" or name not in have):
        raise PlanError(
            f"{want.who}: snapshot: vmadm does not snapshot a VM with a delegated dataset ({state['datasets'][0]}); take one with zfs"
        )
    if wanted == "present":
        if name in have:
            return None
        return Step("create-snapshot", None, ("snapshots",), {**state, "snapshots": [name, *have]}, name)
    if name not in have:
        raise PlanError(f"{want.who}: snapshot: there is no {name!r} to roll back to; there are: {', '.join(have) or 'none'}")
    after = {**state, "snapshots": have[have.index(name):], "state": "running", "autoboot": True}
    return Step("rollback-snapshot", None, ("snapshots", "state"), after, name)


def _image_change(have: State, want: Want) -> str | None:
    """The image that reprovision is to bring, or None; refuse where it cannot."""
    wanted, current = want.properties.get("image_uuid"), have["image_uuid"]
    if have["brand"] == "bhyve":
        disks = want.properties.get("disks") or []
        pairs = match("disks", disks, have["disks"])
        if pairs and pairs[0][1] is not None and pairs[0][1] is have["disks"][0]:
            wanted, current = disks[0].get("image_uuid"), have["disks"][0]["image_uuid"]
    if wanted is None or current is None or wanted == current or not want.reprovision:
        return None
    if have["brand"] == "kvm":
        raise PlanError(f"{want.who}: reprovision: vmadm does not support it for brand kvm; the VM must be made anew")
    if want.properties.get("indestructible_zoneroot", have["indestructible_zoneroot"]):
        raise PlanError(f"{want.who}: reprovision: indestructible_zoneroot is set: give indestructible_zoneroot: false first")
    other = [name for name in have["datasets"] if name != f"{have['zpool']}/{have['zonename']}/data"]
    if len(have["datasets"]) > 1 or other:
        raise PlanError(
            f"{want.who}: reprovision: vmadm keeps only one delegated dataset, named data, and the VM has {', '.join(have['datasets'])}"
        )
    return t.cast(str, wanted)


def _reprovisioned(state: State, image: str) -> State:
    after = copy.deepcopy(state)
    after.update(state="running", autoboot=True, snapshots=[])
    if state["brand"] == "bhyve":
        disk = after["disks"][0]
        disk["image_uuid"] = image
        for name in ("image_size", "size", "refreservation", "block_size"):
            disk.pop(name, None)  # as the new image has it
    else:
        after["image_uuid"] = image
    return after


def _check_fixed(have: State, want: Want) -> None:
    """Name every property that only a new VM can have."""
    fixed = []
    for name, value in want.properties.items():
        one = PROPERTIES[name]
        if one.update or not one.shown or value is None or same(one, have[name], value):
            continue
        if name == "image_uuid" and (want.reprovision or have["image_uuid"] is None):
            continue  # vmadm does not tell the image of every VM with disks
        hint = " (reprovision: true changes it in place)" if name == "image_uuid" and have["brand"] != "kvm" else ""
        fixed.append(f"{name} is {have[name]!r}, not {value!r}{hint}")
    if fixed:
        raise PlanError(f"{want.who}: needs a new VM: {'; '.join(fixed)}: set state: absent first if its data may go")


def _needs_stop(payload: Payload) -> list[str]:
    """The items that vmadm changes only while a VM is stopped."""
    found = []
    for name in ("disks", "pci_devices"):
        change = payload.get(f"update_{name}") or []
        live = name == "disks" and all(set(item) <= LIVE_DISK for item in change)
        if payload.get(f"add_{name}") or payload.get(f"remove_{name}") or (change and not live):
            found.append(name)
    return found


def _unseen(before: State, after: State) -> list[str]:
    """What a running VM does not see of a change before its next boot."""
    found = []
    for name, one in PROPERTIES.items():
        if name not in after or not unlike(after, before, [name]):
            continue
        if name in ITEMS:
            if _unseen_items(name, before[name], after[name]):
                found.append(name)
        elif _applies(name, one, before, after) == "boot":
            found.append(name)
    return sorted(found)


def _applies(name: str, one: Property, before: State, after: State) -> str:
    """When a change of a property reaches a running VM; for some it depends on the brand."""
    brand = before["brand"]
    if brand in HVM and (name.startswith("max_") or name in ("cpu_cap", "cpu_shares", "zfs_io_priority")):
        return "boot"  # resource controls are changed live for zones only
    if name == "tmpfs":
        return "live" if brand in MDATA_FETCH and before["tmpfs"] else "boot"
    if brand in MDATA_FETCH:
        if name == "routes":
            return "live"
        if name in ("resolvers", "dns_domain"):
            return "live" if after["maintain_resolvers"] and name == "resolvers" else "stored"
        if name == "hostname":
            return "stored"  # it only names the node at its first boot
    return one.applies


def _unseen_items(kind: str, before: list[State], after: list[State]) -> bool:
    known = ITEMS[kind].properties
    pairs = match(kind, after, before)
    if len(before) != len(after) or any(other is None for item, other in pairs):
        return True
    return any(
        known[name].applies == "boot" and not same(known[name], item[name], t.cast(State, other).get(name))
        for item, other in pairs
        for name in item
    )
