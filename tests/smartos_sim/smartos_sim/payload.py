# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What create and update make of a payload before they act: defaults, limits, derived lists, what is dropped silently.

:func:`for_create` and :func:`for_update` give the effective payload; :func:`created` and :func:`updated` make the VM's
description of it. None of them changes the state. Sources: facts 1.5, 2, 3 and 4.3.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import os
import re
import typing as t

from .files import ToolError, timestamp
from .platform import HVM_BRANDS, VM
from .properties import BRANDS, KEYED, LISTS, PROPERTIES
from .validate import MAC, as_boolean, as_integer, as_list, is_address, is_empty, validate

if t.TYPE_CHECKING:
    from .state import State

NO_UUID = "00000000-0000-0000-0000-000000000000"
MIN_SWAP = 256  # MiB, vmadm(8)
MAX_SHARES = 65535
MAX_IPS = 20
MAX_ALLOWED_IPS = 13
HVM_OVERHEAD = {"bhyve": 1280, "kvm": 1024}  # MiB that a hypervisor gets on top of the guest's ram
HVM_LEAST_OVERHEAD = 256
HVM_PRIVILEGES = ["default", "-file_link_any", "-net_access", "-proc_fork", "-proc_info", "-proc_session"]
DISK_MODELS = {"bhyve": ("virtio", "ahci", "nvme"), "kvm": ("virtio", "scsi", "ide")}
DOCKER_INIT = "/native/usr/vm/sbin/dockerinit"
CONSOLES = {"com1": "/dev/zconsole", "com2": "socket,/tmp/vm.ttyb"}
NOT_ADDRESSES = ("dhcp", "addrconf")


class Effective(t.NamedTuple):
    """What is acted on, and the names that were left out without a word."""

    payload: dict[str, t.Any]
    dropped: list[str]


def dumps(value: t.Any) -> str:
    """``value`` as JavaScript echoes it in a message."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# -- both ways ---------------------------------------------------------------------------------------------------------


def _drop_unknown(payload: dict[str, t.Any], brand: str, action: str) -> list[str]:
    """Take out what ``brand`` does not allow in ``action``; list items are called nics.*.name."""
    dropped = []
    for name in list(payload):
        spec = PROPERTIES.get(name)
        verb, mark, rest = name.partition("_")
        kind = name if name in LISTS else rest if mark and verb in ("add", "update") and rest in LISTS else None
        if kind and isinstance(payload[name], list):
            use = "update" if verb == "update" else "add"
            for item in payload[name]:
                for key in [key for key in item if not _item_allowed(kind, key, brand, use)]:
                    del item[key]
                    dropped.append(f"{kind}.*.{key}")
        if spec is None or not spec.allowed(brand, action):
            del payload[name]
            dropped.append(name)
    return sorted(set(dropped))


def _item_allowed(kind: str, key: str, brand: str, use: str) -> bool:
    spec = PROPERTIES.get(f"{kind}.*.{key}")
    return spec is not None and spec.allowed(brand, use)


def _type_values(payload: dict[str, t.Any], prefix: str = "") -> None:
    """Turn what is spelled into what is meant: "false" into false, "5" into 5, "a,b" into a list."""
    for name, value in payload.items():
        spec = PROPERTIES.get(prefix + name)
        if spec is None or is_empty(value):
            continue
        if spec.type == "boolean":
            truth = as_boolean(value)
            payload[name] = value if truth is None else truth
        elif spec.type == "integer":
            number = as_integer(value)
            payload[name] = value if number is None else number
        elif spec.type == "list":
            payload[name] = as_list(value)
        elif spec.type == "object-array" and isinstance(value, list):
            kind = name.partition("_")[2] if name.startswith(("add_", "update_")) else name
            for item in value:
                if isinstance(item, dict):
                    _type_values(item, f"{kind}.*.")


def _as_number(value: t.Any) -> int | float | None:
    """What JavaScript's Number() makes of a value; None where that is no number."""
    if value is None or isinstance(value, bool):
        return int(bool(value))
    if isinstance(value, list):
        return 0 if not value else _as_number(value[0]) if len(value) == 1 else None
    if isinstance(value, str) and not value.strip():
        return 0
    try:
        number = int(value, 0) if isinstance(value, str) and value.strip().lower().startswith("0x") else float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if float(number).is_integer() else number


def _numbers(payload: dict[str, t.Any]) -> None:
    """Numbers are numbers before anything is looked at: limits are computed with them. An empty text unsets."""
    for name, value in payload.items():
        spec = PROPERTIES.get(name)
        if spec is None or spec.type != "integer" or value == "":
            continue
        number = _as_number(value)
        if number is None:
            raise ToolError(f"Invalid value for {name}: null:number")
        payload[name] = number
    if payload.get("quota") == "":
        payload["quota"] = 0


def _old_names(payload: dict[str, t.Any], brand: str) -> None:
    """``dataset_uuid`` of zones, ``zone_dataset_uuid`` of HVM: what ``image_uuid`` was called once."""
    for name in ("dataset_uuid", "zone_dataset_uuid"):
        if name in payload and PROPERTIES[name].allowed(brand, "create"):
            payload.setdefault("image_uuid", payload[name])
            if name == "dataset_uuid":
                del payload[name]


def _data_follows_default(payload: dict[str, t.Any], vm: VM) -> None:
    """ZFS properties of the root would fall through to the delegated dataset; they are held off by explicit ones."""
    for name, default in (("compression", "off"), ("recsize", 131072)):
        if f"zfs_root_{name}" in payload:
            payload.setdefault(f"zfs_data_{name}", vm.get(f"zfs_data_{name}", default))


def _record_sizes(payload: dict[str, t.Any]) -> None:
    for name in ("zfs_root_recsize", "zfs_data_recsize"):
        value = payload.get(name)
        if isinstance(value, int) and value and not (512 <= value <= 131072 and value & (value - 1) == 0):
            raise ToolError(f"invalid {name} ({value}), must be 512-131072 and a power of 2. (0 to disable)")


def _refuse_bad_values(problems: t.Any) -> None:
    if problems.bad_values:
        raise ToolError("Invalid value(s) for: " + ",".join(problems.bad_values))
    if problems.missing_properties:
        raise ToolError("Missing required properties: " + ",".join(problems.missing_properties))


def _docker(payload: dict[str, t.Any], brand: str, metadata: str, vm: VM) -> None:
    """``docker: true`` brings four others along, also where the brand then drops ``docker`` itself (facts 1.5).

    What ``vm`` has already stays; namespaces of an existing VM other than docker are lost unless the payload repeats them.
    """
    if as_boolean(payload.get("docker")) is not True:
        return
    if "docker" not in vm.get("internal_metadata_namespaces", ()):
        names = as_list(payload.get("internal_metadata_namespaces") or [])
        payload["internal_metadata_namespaces"] = names if "docker" in names else [*names, "docker"]
    if vm.get("restart_init") is not False:
        payload["restart_init"] = False
    if brand == "lx" and not vm.get("init_name") and not payload.get("init_name"):
        payload["init_name"] = DOCKER_INIT
    if "docker:id" not in vm.get("internal_metadata", ()):
        payload.setdefault(metadata, {}).setdefault("docker:id", os.urandom(32).hex())


# -- NICs --------------------------------------------------------------------------------------------------------------


def normal_mac(mac: str) -> str:
    """Lower case with two digits each."""
    return ":".join(f"{int(part, 16):02x}" for part in mac.split(":"))


def random_mac() -> str:
    """A unicast address that nobody bought."""
    first, *rest = os.urandom(6)
    return ":".join(f"{one:02x}" for one in ((first & 0xFC) | 0x02, *rest))


def _prefix(netmask: t.Any) -> int:
    """The length of a netmask, which must be dotted and of leading ones."""
    if re.fullmatch(r"\d+(\.\d+){3}", str(netmask)):
        try:
            return ipaddress.IPv4Network(f"0.0.0.0/{netmask}").prefixlen
        except ValueError:
            pass
    raise ToolError(f"Specified netmask value is invalid: {netmask}")


def _addresses(nic: dict[str, t.Any], existing: list[str] | None) -> None:
    """Make ``ips`` out of the older ``ip`` and ``netmask``, and check it. ``existing``: the ips of the NIC to update."""
    shown = dumps(nic)
    address, netmask = nic.pop("ip", None), nic.pop("netmask", None)
    if "ips" not in nic and (address or netmask):
        if address in NOT_ADDRESSES:
            nic["ips"] = [address]
        elif address and netmask:
            nic["ips"] = [f"{address}/{_prefix(netmask)}"]
        elif existing is None:
            if address:
                raise ToolError(f"Missing .netmask option for NIC: {shown}")
        elif len(existing) != 1 or "/" not in existing[0] or ":" in existing[0]:
            raise ToolError("Need a single existing IPv4 address to update .ip or .netmask")
        else:
            old_address, old_prefix = existing[0].split("/")
            nic["ips"] = [f"{address or old_address}/{_prefix(netmask) if netmask else old_prefix}"]
    if "ips" not in nic and existing is None:
        nic["ips"] = []
    for one in nic.get("ips", ()):
        if one not in NOT_ADDRESSES and not is_address(one, network=True):
            raise ToolError(f"Invalid IP for NIC: {shown}")
    if len(nic.get("ips", ())) > MAX_IPS:
        raise ToolError(f"nic.*.ips contains {len(nic['ips'])} addresses, but is limited to {MAX_IPS}")


def _gateways(nic: dict[str, t.Any]) -> None:
    gateway = nic.pop("gateway", None)
    if "gateways" not in nic and gateway is not None:
        nic["gateways"] = [gateway] if gateway else []
    for one in nic.get("gateways") or ():
        if not is_address(one) or ":" in one:
            raise ToolError(f"Static gateways must be IPv4 addresses: {one}")


def _nic(nic: dict[str, t.Any], brand: str, driver: t.Any, existing: dict[str, t.Any] | None = None) -> None:
    """Normalise one NIC of a payload in place; ``existing`` is the NIC that it updates."""
    if existing is None and not isinstance(nic.get("nic_tag"), str):
        raise ToolError(f"invalid or missing .nic_tag option for NIC: {dumps(nic)}")
    if existing is None and "mac" in nic and not is_empty(nic.get("vrrp_vrid")):
        raise ToolError("Cannot set both mac and vrrp_vrid")
    if nic.get("primary") is False:
        del nic["primary"]
    if existing is None:
        if not is_empty(nic.get("vrrp_vrid")):
            nic["mac"] = f"00:00:5e:00:01:{nic['vrrp_vrid']:02x}"
        nic["mac"] = normal_mac(nic["mac"]) if nic.get("mac") else random_mac()
    _addresses(nic, existing.get("ips", []) if existing else None)
    _gateways(nic)
    for one in nic.get("allowed_ips") or ():
        if not is_address(one) and not is_address(one, network=True):
            raise ToolError(f"invalid allowed_ips: {one}")
    if len(nic.get("allowed_ips") or ()) > MAX_ALLOWED_IPS:
        raise ToolError(
            f"nic.*.allowed_ips contains {len(nic['allowed_ips'])} addresses, but is limited to {MAX_ALLOWED_IPS}"
        )
    if brand in HVM_BRANDS and existing is None and not nic.get("model"):
        if not driver:
            raise ToolError(f"missing .model option for NIC: {dumps(nic)}")
        nic["model"] = driver


def _new_nics(nics: list[dict[str, t.Any]], brand: str, driver: t.Any, taken: t.Iterable[str] = ()) -> None:
    seen = set(taken)
    for nic in nics:
        _nic(nic, brand, driver)
        if nic["mac"] in seen:
            raise ToolError(f"Cannot add multiple NICs with the same MAC: {nic['mac']}")
        seen.add(nic["mac"])
    if sum(nic.get("primary") is True for nic in nics) > 1:
        raise ToolError("payload specifies more than 1 primary NIC")


def shown_nic(nic: dict[str, t.Any]) -> dict[str, t.Any]:
    """A NIC as ``get`` shows it: the old single forms beside the lists, and nothing that has its default (facts 2)."""
    shown = {key: value for key, value in nic.items() if key not in ("ip", "netmask", "gateway", "gateways", "ips")}
    for key in list(shown):
        spec = PROPERTIES.get(f"nics.*.{key}")
        if is_empty(shown[key]) or (spec and spec.type == "boolean" and shown[key] is False):
            del shown[key]
    ips, gateways = nic.get("ips") or [], nic.get("gateways") or []
    if gateways:
        shown["gateway"], shown["gateways"] = gateways[0], gateways
    first = next((one for one in ips if one == "dhcp" or ("/" in one and ":" not in one)), None)
    if first == "dhcp":
        shown["ip"] = "dhcp"
    elif first:
        interface = ipaddress.ip_interface(first)
        shown["netmask"], shown["ip"] = str(interface.netmask), str(interface.ip)
    if ips:
        shown["ips"] = ips
    return shown


def _place_nics(nics: list[dict[str, t.Any]], brand: str) -> list[dict[str, t.Any]]:
    """Give each NIC an interface name and see that one of them is primary."""
    used = {nic.get("interface") for nic in nics}
    stem = "eth" if brand == "lx" else "net"
    free = (f"{stem}{number}" for number in range(1000) if f"{stem}{number}" not in used)
    for nic in nics:
        if not nic.get("interface"):
            nic["interface"] = next(free)
    if nics and not any(nic.get("primary") for nic in nics):
        _successor(nics)["primary"] = True
    return [{"interface": nic["interface"], "mac": nic["mac"], **shown_nic(nic)} for nic in nics]


def _successor(nics: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """The NIC that becomes primary when none is: at best one with a public address, else the first."""

    def public(nic: dict[str, t.Any]) -> bool:
        return any("/" in one and not ipaddress.ip_interface(one).ip.is_private for one in nic.get("ips") or ())

    return next((nic for nic in nics if nic.get("interface") and public(nic)), nics[0])


def check_tags(state: State, nics: t.Iterable[dict[str, t.Any]]) -> None:
    """Refuse NICs on tags that the node has not; one line per tag. An overlay tag is named RULE/NUMBER."""
    known = state.nic_tags()
    unknown = [nic["nic_tag"] for nic in nics if nic.get("nic_tag") and nic["nic_tag"].split("/")[0] not in known]
    if unknown:
        raise ToolError("\n".join(f'Invalid nic tag "{tag}"' for tag in dict.fromkeys(unknown)))


def check_routes(routes: dict[str, t.Any], nics: list[dict[str, t.Any]]) -> None:
    """Refuse routes whose gateway is no address and no NIC with a fixed address."""
    for gateway in routes.values():
        found = re.fullmatch(r"nics\[(\d+)\]|macs\[(.*)\]", str(gateway))
        if not found:
            if not is_address(gateway):
                raise ToolError(f'Invalid route gateway: "{gateway}" (must be IP address, MAC address, or nic)')
            continue
        number, mac = found.groups()
        if number is not None:
            nic = nics[int(number)] if int(number) < len(nics) else None
        else:
            same = MAC.fullmatch(mac) and normal_mac(mac)
            nic = next((one for one in nics if one["mac"] == same), None)
        if nic is None or not any("/" in one for one in nic.get("ips") or ()):
            raise ToolError(f'Route gateway: "{gateway}" refers to non-existent or DHCP nic')


def check_conflicts(vm: VM, others: t.Iterable[VM]) -> None:
    """Refuse a MAC, VRID or VNC port that another VM has, or an IP text on the same tag and VLAN (facts 4.3).

    The comparison is of text: 10.0.0.11/24 is not 10.0.0.11/25, VLAN 0 is not "no VLAN". Failed VMs that are down do not
    count.
    """
    nics = vm["nics"]
    port = vm.get("vnc_port")
    for other in others:
        if other["uuid"] == vm["uuid"] or (other.get("failed") and other.get("zone_state") != "running"):
            continue
        same_port = isinstance(port, int) and port > 0 and other.get("vnc_port") == port
        if same_port or any(_same(mine, theirs) for mine in nics for theirs in other.get("nics", ())):
            raise ToolError("Conflict detected with another vm, please check the MAC, IP, and VRID")


def _same(mine: dict[str, t.Any], theirs: dict[str, t.Any]) -> bool:
    if mine["mac"] == theirs["mac"]:
        return True
    if mine.get("vlan_id") != theirs.get("vlan_id") or mine.get("nic_tag") != theirs.get("nic_tag"):
        return False
    fixed = {one for one in mine.get("ips") or () if one not in NOT_ADDRESSES}
    return bool(fixed & set(theirs.get("ips") or ())) or (
        mine.get("vrrp_vrid") is not None and mine.get("vrrp_vrid") == theirs.get("vrrp_vrid")
    )


# -- disks -------------------------------------------------------------------------------------------------------------


def _new_disks(
    state: State, disks: list[dict[str, t.Any]], brand: str, pool: str, driver: t.Any, present: list[dict[str, t.Any]]
) -> None:
    """Normalise new disks in place; ``present`` are those that the VM has."""
    slots = {disk.get("pci_slot") for disk in (*present, *disks)}
    uuids = {disk.get("uuid") for disk in present}
    for disk in disks:
        if "model" not in disk and driver:
            disk["model"] = driver
        if not disk.get("model"):
            raise ToolError(f"missing .model option for disk: {dumps(disk)}")
        if disk["model"] not in DISK_MODELS[brand]:
            raise ToolError(
                f'"{disk["model"]}" is not a valid disk model for {brand} brand. Valid are: {",".join(DISK_MODELS[brand])}'
            )
        if disk.get("image_uuid") and "image_size" not in disk:
            image = state.image(disk["image_uuid"], disk.get("zpool") or pool)
            if image:
                disk["image_size"] = image["manifest"]["image_size"]
        if brand == "bhyve":
            if not disk.get("pci_slot"):
                bus = "0:3" if disk.get("media") == "cdrom" else "0:4"
                disk["pci_slot"] = next(f"{bus}:{n}" for n in range(256) if f"{bus}:{n}" not in slots)
                slots.add(disk["pci_slot"])
            disk.setdefault("uuid", new_uuid())
            if disk["uuid"] in uuids:
                raise ToolError(f"duplicate disk uuid {disk['uuid']}")
            uuids.add(disk["uuid"])
    boots = [disk for disk in (*present, *disks) if disk.get("boot") is True]
    if len(boots) > 1:
        raise ToolError(f"multiple boot disks: {dumps(boots)}")


def _place_disks(vm: VM, disks: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Give new disks their volumes and show all as ``get`` does."""
    separator = "/" if vm["brand"] == "bhyve" else "-"
    taken = {disk.get("zfs_filesystem") for disk in disks}
    placed = []
    for disk in disks:
        pool = disk.get("zpool") or vm["zpool"]
        if not disk.get("zfs_filesystem") and not disk.get("nocreate") and disk.get("media", "disk") == "disk":
            names = (f"{pool}/{vm['zonename']}{separator}disk{n}" for n in range(256))
            disk["zfs_filesystem"] = next(name for name in names if name not in taken)
            taken.add(disk["zfs_filesystem"])
            disk["path"] = f"/dev/zvol/rdsk/{disk['zfs_filesystem']}"
        disk["zpool"] = pool
        size = disk.get("size", disk.get("image_size"))
        ready = {"path": disk.get("path"), "boot": False, "media": "disk", "compression": "off"}
        if size is not None:
            ready.update(size=size, refreservation=size, block_size=8192)
        placed.append({**ready, **{k: v for k, v in disk.items() if k != "nocreate" and not is_empty(v)}})
    return placed


# -- create ------------------------------------------------------------------------------------------------------------


def _objects(value: t.Any) -> list[dict[str, t.Any]]:
    """The objects in what should be a list of them; nothing was validated yet."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


class UnknownBrand(Exception):
    """create was given a brand that does not exist; the real command crashes here (facts 1.4)."""


def new_uuid() -> str:
    """A random UUID."""
    import uuid

    return str(uuid.uuid4())


def for_create(state: State, given: dict[str, t.Any]) -> Effective:
    """The effective payload of ``vmadm create``."""
    payload = copy.deepcopy(given)
    _numbers(payload)
    payload = {name: value for name, value in payload.items() if value is not None and not _unset(name, value)}
    brand = payload.setdefault("brand", "joyent")
    if brand not in BRANDS:
        raise UnknownBrand(brand)
    if payload.get("zfs_storage_pool_name") and "zpool" not in payload:
        payload["zpool"] = payload.pop("zfs_storage_pool_name")
    _old_names(payload, brand)
    payload.setdefault("uuid", new_uuid())
    _create_defaults(state, payload, brand)
    _create_memory(payload, brand)
    _docker(payload, brand, "internal_metadata", {})
    _refuse_bad_values(validate(state, brand, "create", payload))
    _type_values(payload)
    _record_sizes(payload)
    for disk in payload.get("disks", ()):
        disk.setdefault("media", "disk")
    dropped = _drop_unknown(payload, brand, "create")
    if "image_uuid" not in payload:
        for name in ("spice_opts", "spice_password", "spice_port"):
            payload.pop(name, None)
    _data_follows_default(payload, {})
    disks = payload.pop("disks", [])
    _new_disks(state, disks, brand, payload["zpool"], payload.get("disk_driver"), [])
    nics = payload.pop("nics", [])
    _new_nics(nics, brand, payload.get("nic_driver"))
    check_tags(state, nics)
    check_routes(payload.get("routes") or {}, nics)
    lists = {"disks": disks, "nics": nics, **{name: payload.pop(name, []) for name in ("filesystems", "pci_devices")}}
    payload.update({f"add_{name}": items for name, items in lists.items() if items})
    return Effective(payload, dropped)


def _unset(name: str, value: t.Any) -> bool:
    return value == "" and name in PROPERTIES and PROPERTIES[name].type == "integer"


def _create_defaults(state: State, payload: dict[str, t.Any], brand: str) -> None:
    hvm = brand in HVM_BRANDS
    defaults: dict[str, t.Any] = {
        "owner_uuid": NO_UUID,
        "billing_id": NO_UUID,
        "autoboot": True,
        "zpool": "zones",
        "dns_domain": "local",
        "cpu_shares": 100,
        "zfs_io_priority": 100,
        "max_lwps": 2000,
        "max_msg_ids": 4096,
        "max_sem_ids": 4096,
        "max_shm_ids": 4096,
        "limit_priv": HVM_PRIVILEGES if hvm else ["default"],
        "quota": 1 if brand == "bhyve" else 10,
        "zonename": payload["uuid"],
    }
    if hvm:
        defaults["vcpus"] = 1
    if brand == "bhyve":
        images = (
            state.image(disk["image_uuid"], disk.get("zpool") or payload.get("zpool") or "zones")
            for disk in _objects(payload.get("disks"))
            if isinstance(disk.get("image_uuid"), str)
        )
        roms = [image["manifest"].get("requirements", {}).get("bootrom") for image in images if image]
        if any(roms):
            defaults["bootrom"] = next(rom for rom in roms if rom)
    for name, value in defaults.items():
        if is_empty(payload.get(name)):
            payload[name] = value
    payload["cpu_shares"] = min(payload["cpu_shares"], MAX_SHARES)


def _create_memory(payload: dict[str, t.Any], brand: str) -> None:
    """Memory, all MiB: what was not said follows max_physical_memory, and what was said is held within its limits."""
    hvm = brand in HVM_BRANDS
    asked_ram = payload.get("ram")
    ram = payload.setdefault("ram", 256)
    if "max_physical_memory" not in payload:
        payload["max_physical_memory"] = ram + (HVM_OVERHEAD[brand] if hvm else 0)
    elif asked_ram is not None and not hvm:
        payload["ram"] = asked_ram
    payload.setdefault("max_shm_memory", payload["max_physical_memory"])
    if hvm:
        payload["max_physical_memory"] = max(payload["max_physical_memory"], ram + HVM_LEAST_OVERHEAD)
    physical = payload["max_physical_memory"]
    payload.setdefault("max_locked_memory", physical)
    payload.setdefault("max_swap", max(physical, MIN_SWAP))
    if not hvm:
        payload.setdefault("tmpfs", physical)
    _hold_limits(payload, physical)


def _hold_limits(payload: dict[str, t.Any], physical: int) -> None:
    """max_swap never below physical memory, max_locked_memory and tmpfs never above; silently (facts 1.5)."""
    if isinstance(payload.get("max_swap"), int):
        payload["max_swap"] = max(payload["max_swap"], physical)
    for name in ("max_locked_memory", "tmpfs"):
        if isinstance(payload.get(name), int):
            payload[name] = min(payload[name], physical)


def created(state: State, effective: dict[str, t.Any]) -> VM:
    """The description of a new VM."""
    brand, pool, zonename = effective["brand"], effective["zpool"], effective["zonename"]
    vm: VM = {
        "v": 1,
        "create_timestamp": timestamp(),
        "zonepath": f"/{pool}/{zonename}",
        "zfs_filesystem": f"{pool}/{zonename}",
        "hvm": brand in HVM_BRANDS,
        "resolvers": [],
        "firewall_enabled": False,
        "customer_metadata": {},
        "internal_metadata": {},
        "routes": {},
        "tags": {},
        "nics": [],
        "zfs_root_recsize": 131072,
    }
    if brand in HVM_BRANDS:
        vm["disks"] = []
    if brand == "bhyve":
        vm.update(zlog_mode="g--", zlog_name="platform.log")
        if "com1" not in effective and "com2" not in effective:
            vm.update(CONSOLES)
    if effective.get("delegate_dataset"):
        vm["datasets"] = [f"{pool}/{zonename}/data"]
        vm["zfs_data_recsize"] = 131072
    return _applied(vm, effective)


# -- update ------------------------------------------------------------------------------------------------------------


def for_update(state: State, vm: VM, given: dict[str, t.Any]) -> Effective:
    """The effective payload of ``vmadm update`` of ``vm`` (as :meth:`.state.State.view` shows it)."""
    payload = copy.deepcopy(given)
    brand = vm["brand"]
    _check_disk_state(vm, payload)
    _numbers(payload)
    _update_memory(payload, vm)
    _docker(payload, brand, "set_internal_metadata", vm)
    problems = validate(state, brand, "update", {"zpool": vm["zpool"], **payload})
    _refuse_bad_values(problems._replace(missing_properties=[]))
    _type_values(payload)
    _record_sizes(payload)
    dropped = _drop_unknown(payload, brand, "update")
    _data_follows_default(payload, vm)
    _update_nics(payload, vm)
    if "add_disks" in payload:
        driver = payload.get("disk_driver") or vm.get("disk_driver")
        _new_disks(state, payload["add_disks"], brand, vm["zpool"], driver, vm.get("disks", []))
    for disk in payload.get("update_disks", ()):
        _check_shrink(vm, disk)
    nics = (*payload.get("add_nics", ()), *payload.get("update_nics", ()))
    check_tags(state, nics)
    if payload.get("set_routes"):
        check_routes(payload["set_routes"], updated(vm, payload)["nics"])
    return Effective(payload, dropped)


def _check_disk_state(vm: VM, payload: dict[str, t.Any]) -> None:
    where = f'only allowed when state is "stopped", currently: {vm["state"]} ({vm["zone_state"]})'
    if vm["state"] == "stopped" or vm["brand"] not in HVM_BRANDS:
        return
    for kind in ("disks", "pci_devices"):
        if payload.get(f"add_{kind}") or payload.get(f"remove_{kind}"):
            raise ToolError(f"updates to {kind} are {where}")
        live = {"path", "compression", "refreservation"} if kind == "disks" else {"path"}
        items = payload.get(f"update_{kind}")
        if isinstance(items, list) and any(isinstance(one, dict) and set(one) - live for one in items):
            raise ToolError(f"at least one specified update to {kind} is {where}")


def _check_shrink(vm: VM, disk: dict[str, t.Any]) -> None:
    have = next((one for one in vm.get("disks", ()) if one.get("path") == disk.get("path")), None)
    if have is None:
        raise ToolError(f"Cannot find disk with path: {disk.get('path')}")
    if disk.get("size", have.get("size", 0)) < have.get("size", 0) and not disk.get("dangerous_allow_shrink"):
        raise ToolError(
            f"cannot reduce disk size of {have['path']} without dangerous_allow_shrink: {have['size']} -> {disk['size']}"
        )


def _update_memory(payload: dict[str, t.Any], vm: VM) -> None:
    """A change of memory drags along what is not in the payload (facts 1.5); all MiB."""
    hvm = vm["brand"] in HVM_BRANDS
    old = vm["max_physical_memory"]
    if isinstance(payload.get("ram"), int) and "max_physical_memory" not in payload:
        payload["max_physical_memory"] = int(payload["ram"]) + (old - vm["ram"] if hvm else 0)
    if not isinstance(payload.get("max_physical_memory"), int):
        _hold_limits(payload, old)
        return
    new: int = payload["max_physical_memory"]
    if hvm:
        new = payload["max_physical_memory"] = max(new, int(payload.get("ram") or vm["ram"]) + HVM_LEAST_OVERHEAD)
    payload.setdefault("max_locked_memory", new + vm["max_locked_memory"] - old)
    payload.setdefault("max_swap", max(new + vm["max_swap"] - old, MIN_SWAP))
    if not hvm and old:
        payload.setdefault("tmpfs", vm.get("tmpfs", 0) * new // old)
    _hold_limits(payload, new)


def _update_nics(payload: dict[str, t.Any], vm: VM) -> None:
    have = {nic["mac"]: nic for nic in vm["nics"]}
    for nic in payload.get("update_nics", ()):
        if is_empty(nic.get("mac")):
            raise ToolError("NIC object needs a .mac property to update")
        nic["mac"] = normal_mac(nic["mac"])
        if nic["mac"] not in have:
            raise ToolError("There is no existing NIC with that mac address")
        _nic(nic, vm["brand"], None, have[nic["mac"]])
    driver = payload.get("nic_driver") or vm.get("nic_driver")
    removed = {normal_mac(mac) for mac in payload.get("remove_nics", ()) if MAC.fullmatch(str(mac))}
    _new_nics(payload.get("add_nics", []), vm["brand"], driver, set(have) - removed)


def updated(vm: VM, effective: dict[str, t.Any]) -> VM:
    """The description of ``vm`` after an update."""
    payload = dict(effective)
    if vm["brand"] == "bhyve" and "com1" not in payload and "com2" not in payload:
        payload.update(CONSOLES)
    return _applied(copy.deepcopy(vm), payload)


# -- the description ---------------------------------------------------------------------------------------------------

NEVER_SHOWN = frozenset({"delegate_dataset", "nowait", "mdata_exec_timeout", "create_only", "transition"})
ALWAYS_SHOWN = frozenset({"firewall_enabled", "autoboot", "zfs_root_recsize", "resolvers"})
COMMA_LISTS = ("limit_priv", "fs_allowed")
ZERO_IS_NONE = ("cpu_cap", "vnc_port")


def _applied(vm: VM, payload: dict[str, t.Any]) -> VM:
    """Change ``vm`` by an effective payload."""
    for name, value in payload.items():
        verb, mark, rest = name.partition("_")
        if name in KEYED:
            vm[name] = dict(value) if isinstance(value, dict) else {}
        elif mark and rest in KEYED:
            _apply_keys(vm[rest], verb, value)
        elif mark and rest in LISTS:
            pass  # below, together: what is removed makes room for what is added
        elif name not in NEVER_SHOWN:
            _apply_property(vm, name, value)
    for kind in LISTS:
        if any(f"{verb}_{kind}" in payload for verb in ("add", "update", "remove")):
            _apply_list(vm, kind, payload)
    if vm.get("docker"):
        vm["zlog_mode"] = "g--"
    if vm["hvm"]:
        vm.pop("device", None)
        if vm["disks"]:
            vm["device"] = None
        if vm.get("flexible_disk_size"):
            vm["free_space"] = vm["flexible_disk_size"] - sum(disk.get("size", 0) for disk in vm["disks"])
    else:
        vm.pop("ram", None)
    return vm


def _apply_keys(have: dict[str, t.Any], verb: str, value: t.Any) -> None:
    if verb == "set":
        have.update(value)
    elif verb == "remove":
        for key in as_list(value):
            have.pop(key, None)


def _apply_property(vm: VM, name: str, value: t.Any) -> None:
    spec = PROPERTIES[name]
    if is_empty(value):
        fallback = {"quota": 0, "resolvers": [], "firewall_enabled": False}.get(name)
        if fallback is None:
            vm.pop(name, None)
            return
        value = fallback
    if name in COMMA_LISTS:
        value = ",".join(value)
    vanishes = (spec.absent is not None and value == spec.absent) or (name in ZERO_IS_NONE and value == 0)
    if (vanishes or value == "") and name not in ALWAYS_SHOWN:
        vm.pop(name, None)
    else:
        vm[name] = value


_KEY_OF = {"nics": "mac", "disks": "path", "filesystems": "target", "pci_devices": "path"}


def _apply_list(vm: VM, kind: str, payload: dict[str, t.Any]) -> None:
    key = _KEY_OF[kind]
    gone = {
        normal_mac(one) if kind == "nics" and MAC.fullmatch(one) else one for one in payload.get(f"remove_{kind}", ())
    }
    added = copy.deepcopy(payload.get(f"add_{kind}", []))
    changes = {one[key]: one for one in payload.get(f"update_{kind}", ())}
    items = [{**item, **changes.get(item.get(key), {})} for item in vm.get(kind, []) if item.get(key) not in gone]
    if kind == "nics":
        primary = [one["mac"] for one in (*added, *changes.values()) if one.get("primary") is True]
        if primary:
            for item in items:
                item["primary"] = item["mac"] == primary[-1]
        vm[kind] = _place_nics([*items, *added], vm["brand"])
    elif kind == "disks":
        vm[kind] = _place_disks(vm, [*items, *added])
        for disk in vm[kind]:
            disk.pop("dangerous_allow_shrink", None)
    else:
        vm[kind] = [*items, *added]
        if not vm[kind]:
            del vm[kind]
