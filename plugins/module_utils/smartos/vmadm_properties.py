# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vmadm(8) can set of a VM, and how it shows it.

Pure: nothing here runs a command. What ``vmadm get`` shows has comma lists, derived values, and defaults left out; a *state*
(:func:`normal`) has each property of :data:`PROPERTIES` in one form.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import dataclass

State = dict[str, t.Any]
Payload = dict[str, t.Any]

ZONES = ("joyent", "joyent-minimal", "builder", "lx")
HVM = ("bhyve", "kvm")
BRANDS = ZONES + HVM
MDATA_FETCH = ("joyent", "joyent-minimal", "builder")  # vmadm runs their mdata:fetch anew when the network changes

# MiB above ``ram``: what vmadm adds for the hypervisor when nothing is said, and what it insists on.
OVERHEAD = {"bhyve": (1280, 256), "kvm": (1024, 256)}
LEAST_SWAP = 256  # MiB
MOST_SHARES = 65535
IDS = {"max_msg_ids": 4096, "max_sem_ids": 4096, "max_shm_ids": 4096}
RECORD_SIZE = 131072  # bytes, the default of ZFS
CONSOLES = {"com1": "/dev/zconsole", "com2": "socket,/tmp/vm.ttyb"}  # what an update that names neither sets
DOCKER_INIT = {"lx": "/native/usr/vm/sbin/dockerinit", "joyent-minimal": "/usr/vm/sbin/dockerinit"}
DOCKER_ID = {"docker:id": None}  # a random value that vmadm makes
NOBODY = "00000000-0000-0000-0000-000000000000"
HVM_PRIVILEGES = ["default", "-file_link_any", "-net_access", "-proc_fork", "-proc_info", "-proc_session"]
UNSETTABLE: t.Final = object()


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
    # vmadm refuses "" for a compression and stumbles over it for a record size, so their defaults unset them.
    "zfs_data_compression": Property(brands=ZONES, absent="off", clear="off", applies="live"),
    "zfs_data_recsize": _number(brands=ZONES, absent=RECORD_SIZE, clear=RECORD_SIZE, applies="live"),
    "zfs_filesystem_limit": _number(absent=None, applies="live"),
    "zfs_io_priority": _number(applies="live"),
    "zfs_root_compression": Property(absent="off", clear="off", applies="live"),
    "zfs_root_recsize": _number(absent=RECORD_SIZE, clear=RECORD_SIZE, applies="live"),
    "zfs_snapshot_limit": _number(absent=None, applies="live"),
    "zlog_max_size": _number(brands=ZONES),
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


def normal(vm: t.Mapping[str, t.Any]) -> State:
    """What ``vmadm get`` shows, with every property of :data:`PROPERTIES` present and in one form."""
    state: State = {}
    for name, one in PROPERTIES.items():
        if one.type == "objects":
            state[name] = [_normal_item(name, item) for item in vm.get(name) or ()]
        elif one.type == "dict":
            state[name] = dict(vm.get(name) or {})
        elif one.shown:
            state[name] = as_shown(one, vm.get(name))
    state["nic_order"] = [nic.get("mac") for nic in state["nics"]]  # in which routes count them
    state["nics"].sort(key=place)
    state["datasets"] = list(vm.get("datasets") or ())
    state["delegate_dataset"] = bool(state["datasets"])
    state["snapshots"] = [one["name"] for one in vm.get("snapshots") or ()]
    state["state"] = vm.get("state")
    if vm.get("brand") in ZONES:
        state["ram"] = None  # another name for max_physical_memory, which ``vmadm list`` alone shows
    return state


def as_shown(one: Property, value: t.Any) -> t.Any:
    """A value as :func:`normal` has it: a list for a comma list, the default for nothing."""
    if one.type == "list":
        if isinstance(value, str):
            value = [part for part in value.split(",") if part]
        return [part for part in value or () if part != ""]
    return one.absent if value is None or value == "" else value


def _normal_item(kind: str, item: t.Mapping[str, t.Any]) -> State:
    item = modern_nic(item) if kind == "nics" else item
    return {name: as_shown(one, item.get(name)) for name, one in ITEMS[kind].properties.items() if one.shown}


def place(nic: t.Mapping[str, t.Any]) -> int:
    found = re.search(r"\d+$", nic.get("interface") or "")
    return int(found.group()) if found else 10**6


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
            raise ValueError(
                f"mac: {item['mac']!r} is not valid: use six hexadecimal numbers with colons, as 02:08:20:1a:2b:3c"
            )
        item["mac"] = ":".join(part.zfill(2) for part in parts)
    return item


def same(one: Property, first: t.Any, second: t.Any) -> bool:
    """Whether two values are the same to vmadm; true is not 1."""
    return strict(as_shown(one, first)) == strict(as_shown(one, second))


def strict(value: t.Any) -> t.Any:
    if isinstance(value, (list, tuple)):
        return [strict(each) for each in value]
    return (isinstance(value, bool), value)
