# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``vmadm create`` and ``vmadm update`` refuse although ``vmadm validate`` lets it pass.

It is refused here, by its name, before anything of the VM is touched: a VM that was stopped for a change would otherwise stay
down for a payload that cannot be. Pure. The rules are those of vmadm's own source (``checkPayloadProperties`` in VM.js).
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    HVM,
    Payload,
    State,
)

AUTOMATIC = ("dhcp", "addrconf")  # what stands for an address that the guest finds out itself
LEAST_PREFIX = 8  # of an IPv4 network
MOST_IPS, MOST_ALLOWED, MOST_ALL = 20, 13, 32  # addresses of one nic
LEAST_MTU = 1500  # on a tag of type normal
MOST_INTEGER = 2**53 - 1  # beyond it vmadm, which is JavaScript, does not tell a number from the next
MOST_VNC_PASSWORD = 8  # characters
COMPRESSIONS = ("on", "off", "gzip", *(f"gzip-{level}" for level in range(1, 10)), "lz4", "lzjb", "zle")
VGAS = ("cirrus", "std", "vmware", "qxl", "xenfb")
DISK_MODELS = {"bhyve": ("virtio", "ahci", "nvme"), "kvm": ("virtio", "scsi", "ide")}
RESERVED_SLOTS = (0, 6, 30, 31)  # of bhyve's bus 0: host bridge, nics, frame buffer, LPC
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class PlanError(Exception):
    """A VM cannot be made as described; the message says where, what, and what would be right."""


Tags = t.Mapping[str, str]
"""The node's NIC tags with their types, as ``nictagadm list`` has them."""


def is_ipv4(text: t.Any) -> bool:
    """Whether a value is an IPv4 address."""
    try:
        return isinstance(text, str) and bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False


def is_network(text: str) -> bool:
    """Whether a text is an IPv4 address with a prefix length that vmadm takes."""
    address, mark, length = text.partition("/")
    return bool(mark) and is_ipv4(address) and length.isdigit() and LEAST_PREFIX <= int(length) <= 32


def check_address(where: str, address: str) -> None:
    """Refuse what is no address of a nic."""
    if address in AUTOMATIC:
        return
    try:
        if "/" not in address:
            raise ValueError("the prefix length is missing")
        found = ipaddress.ip_interface(address)
        if found.version == 4 and found.network.prefixlen < LEAST_PREFIX:
            raise ValueError(f"vmadm takes IPv4 networks of /{LEAST_PREFIX} to /32")
        if "/" in address and not address.partition("/")[2].isdigit():
            raise ValueError("the prefix length is no number")
    except ValueError as bad:
        raise PlanError(
            f"{where}: {address!r} is not valid: use an address with its prefix length, dhcp or addrconf ({bad})"
        ) from None


def check_number(where: str, value: t.Any) -> None:
    """Refuse a whole number that vmadm would round."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MOST_INTEGER:
        raise PlanError(f"{where}: {value} is not valid: use a whole number up to {MOST_INTEGER}")


def check_choice(where: str, value: t.Any, known: t.Sequence[str]) -> None:
    """Refuse a value that is none of those that vmadm knows."""
    if value is not None and value not in known:
        raise PlanError(f"{where}: {value!r} is not valid: use one of {', '.join(known)}")


def check_values(where: str, properties: t.Mapping[str, t.Any]) -> None:
    """Refuse values that are wrong whatever else a VM is."""
    for name in ("zfs_root_compression", "zfs_data_compression"):
        check_choice(f"{where}: {name}", properties.get(name), COMPRESSIONS)
    check_choice(f"{where}: vga", properties.get("vga"), VGAS)
    if len(properties.get("vnc_password") or "") > MOST_VNC_PASSWORD:
        raise PlanError(f"{where}: vnc_password: it is too long: use at most {MOST_VNC_PASSWORD} characters")
    for name in ("ram", "max_physical_memory"):
        if properties.get(name) == 0:
            raise PlanError(f"{where}: {name}: 0 is not valid: use at least 1 MiB")
    for name, value in properties.items():
        if isinstance(value, dict):
            for key, each in value.items():
                check_number(f"{where}: {name}.{key}", each)
        else:
            check_number(f"{where}: {name}", value)
    for destination, gateway in (properties.get("routes") or {}).items():
        if gateway is not None:
            _check_route(f"{where}: routes.{destination}", destination, gateway)
    for index, nic in enumerate(properties.get("nics") or ()):
        _check_nic(f"{where}: nics[{index}]", nic)
    for index, disk in enumerate(properties.get("disks") or ()):
        _check_disk(f"{where}: disks[{index}]", disk)
    for index, filesystem in enumerate(properties.get("filesystems") or ()):
        _check_filesystem(f"{where}: filesystems[{index}]", filesystem)
    for index, device in enumerate(properties.get("pci_devices") or ()):
        if device.get("pci_slot") is not None:
            slot_of(f"{where}: pci_devices[{index}].pci_slot", device["pci_slot"])


def _check_route(where: str, destination: str, gateway: t.Any) -> None:
    if not is_ipv4(destination) and not is_network(destination):
        raise PlanError(
            f"{where}: {destination!r} is not valid: use an IPv4 address, or a network of /{LEAST_PREFIX} to /32 "
            "(a default route is the gateways of the primary nic)"
        )
    if not is_ipv4(gateway) and not (isinstance(gateway, str) and re.fullmatch(r"nics\[\d+\]|macs\[.+\]", gateway)):
        raise PlanError(f"{where}: {gateway!r} is not valid: use an IPv4 address, nics[N] or macs[MAC]")


def _check_nic(where: str, nic: State) -> None:
    for name, most in (("ips", MOST_IPS), ("allowed_ips", MOST_ALLOWED)):
        count = len(nic.get(name) or ())
        if count > most:
            raise PlanError(f"{where}.{name}: {count} are too many: use at most {most}")
    for address in nic.get("ips") or ():
        check_address(f"{where}.ips", address)
    for address in nic.get("allowed_ips") or ():
        _check_allowed(f"{where}.allowed_ips", address)
    for gateway in nic.get("gateways") or ():
        if not is_ipv4(gateway):
            raise PlanError(f"{where}.gateways: {gateway!r} is not valid: use an IPv4 address")


def _check_allowed(where: str, address: str) -> None:
    try:
        least = 1 if "/" in address else 0
        if ipaddress.ip_network(address, strict=False).prefixlen < least:
            raise ValueError("a network of /1 or longer")
    except ValueError as bad:
        raise PlanError(f"{where}: {address!r} is not valid: use an address or a network ({bad})") from None


def _check_disk(where: str, disk: State) -> None:
    check_choice(f"{where}.compression", disk.get("compression"), COMPRESSIONS)
    size = disk.get("block_size")
    if size is not None and (size < 512 or size > 131072 or size & (size - 1)):
        raise PlanError(f"{where}.block_size: {size} is not valid: use a power of two from 512 to 131072 bytes")
    for name in ("size", "image_size", "refreservation"):
        check_number(f"{where}.{name}", disk.get(name))
    if disk.get("pci_slot") is not None:
        slot = slot_of(f"{where}.pci_slot", disk["pci_slot"])
        if slot[0] == 0 and slot[1] in RESERVED_SLOTS:
            raise PlanError(
                f"{where}.pci_slot: {disk['pci_slot']!r} is not valid: bhyve uses device {slot[1]} itself: choose another"
            )


def slot_of(where: str, text: str) -> tuple[int, int, int]:
    """Bus, device and function of a ``pci_slot``."""
    parts = text.split(":")
    if len(parts) <= 3 and all(re.fullmatch(r"[0-9]+", part) for part in parts):
        numbers = [int(part) for part in parts]
        bus, device, function = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
        if bus <= 255 and device <= 31 and function <= 7:
            return bus, device, function
    raise PlanError(f"{where}: {text!r} is not valid: use device, device:function or bus:device:function, as 0:4:1")


def _check_filesystem(where: str, filesystem: State) -> None:
    source = filesystem.get("source")
    if source is not None and (
        source == "create-volume" or re.fullmatch(UUID, source) or re.match("https?://", source)
    ):
        raise PlanError(
            f"{where}.source: {source!r} is not valid: vmadm would create a volume elsewhere: use a directory"
        )


# -- payloads against the VM that they are for -------------------------------------------------------------------------


def check_payload(where: str, have: State | None, payload: Payload, after: State) -> None:
    """Refuse a payload whose parts do not go together, or not with the VM.

    :param have: the VM before, None for a new one; :param after: as it is expected to be.
    """
    _check_filesystems(where, payload)
    _check_disks(where, have, payload, after)
    for nic in payload.get("update_nics") or ():
        if "/" in (nic.get("nic_tag") or ""):
            what = f"nic_tag: {nic['nic_tag']!r}: vmadm sets the tag of an overlay on new NICs only"
            raise PlanError(f"{where}: nics ({nic['mac']}): {what}: remove the entry in one run and add it in the next")
    if new_nics(payload) or payload.get("remove_nics"):
        _check_nics(where, after["nics"])
        _check_primaries(where, have["nics"] if have else [], after["nics"])
        if after["brand"] in HVM and any(nic.get("model") is None for nic in after["nics"]):
            raise PlanError(
                f"{where}: nics: model is needed for brand {after['brand']}: give it, or nic_driver for all NICs"
            )
    _check_gateways(where, have, after)


def _check_filesystems(where: str, payload: Payload) -> None:
    for filesystem in payload.get("add_filesystems") or payload.get("filesystems") or ():
        missing = [name for name in ("type", "source") if not filesystem.get(name)]
        if missing:
            raise PlanError(f"{where}: filesystems ({filesystem['target']}): {missing[0]} is needed for a new one")


def _check_disks(where: str, have: State | None, payload: Payload, after: State) -> None:
    brand = after["brand"]
    if brand not in HVM:
        return
    for disk in payload.get("add_disks") or payload.get("disks") or ():
        name = f"{where}: disks ({disk.get('path') or 'a new one'})"
        if disk.get("path") and not disk.get("nocreate") and disk.get("media") != "cdrom":
            what = "there is no such disk, and vmadm chooses the path of a new one"
            raise PlanError(f"{name}: {what}: leave path out, or set nocreate: true for one that exists")
        if disk.get("block_size") and disk.get("image_uuid"):
            raise PlanError(f"{name}: its image sets the block_size: leave it out")
    for disk in after["disks"]:
        if disk.get("model") is not None:
            check_choice(
                f"{where}: disks ({disk.get('path') or 'a new one'}): model", disk["model"], DISK_MODELS[brand]
            )
        elif disk.get("media") != "cdrom" or disk.get("path"):
            raise PlanError(f"{where}: disks: model is needed for a new disk: give it, or disk_driver for all disks")
    new = payload.get("add_disks") or payload.get("disks") or ()
    if sum(bool(disk.get("boot")) for disk in new) > 1:
        raise PlanError(f"{where}: disks: more than one new disk has boot: true: set it on one disk")
    if brand == "bhyve" and new:
        _check_slots(where, new, [] if have is None else have["disks"])


def _check_slots(where: str, new: t.Sequence[State], have: t.Sequence[State]) -> None:
    taken = {slot_of(where, disk["pci_slot"]) for disk in have if disk.get("pci_slot")}
    for disk in new:
        if not disk.get("pci_slot"):
            continue
        slot = slot_of(where, disk["pci_slot"])
        if slot in taken:
            raise PlanError(f"{where}: disks: another disk has pci_slot {disk['pci_slot']!r}: choose another")
        taken.add(slot)


def _check_nics(where: str, nics: t.Sequence[State]) -> None:
    """What the nics of a VM are to each other."""
    vrids = [nic["vrrp_vrid"] for nic in nics if nic.get("vrrp_vrid") is not None]
    if vrids and len(vrids) == len(nics):
        raise PlanError(f"{where}: nics: all of them have a vrrp_vrid: add a NIC without one")
    twice = next((vrid for vrid in vrids if vrids.count(vrid) > 1), None)
    if twice is not None:
        raise PlanError(f"{where}: nics: vrrp_vrid {twice} is given twice")
    own = {address.partition("/")[0]: nic for nic in nics for address in nic.get("ips") or () if "/" in address}
    for nic in nics:
        name, primary = f"{where}: nics ({nic.get('interface')})", nic.get("vrrp_primary_ip")
        if nic.get("vrrp_vrid") is not None and primary is None:
            raise PlanError(
                f"{name}: vrrp_primary_ip is needed with vrrp_vrid: use an address of another NIC of this VM"
            )
        if primary is not None and primary not in own:
            raise PlanError(f"{name}: vrrp_primary_ip: {primary!r} is not valid: use an address of a nic of this VM")
        if primary is not None and own[primary].get("vrrp_vrid") is not None:
            raise PlanError(
                f"{name}: vrrp_primary_ip: {primary!r} belongs to a NIC with a vrrp_vrid: use an address of a NIC without one"
            )
        count = sum(len(nic.get(key) or ()) for key in ("ips", "allowed_ips")) + (primary is not None)
        if count > MOST_ALL:
            raise PlanError(
                f"{name}: {count} addresses are too many: use at most {MOST_ALL} in ips and allowed_ips together"
            )


def _check_primaries(where: str, have: t.Sequence[State], after: t.Sequence[State]) -> None:
    """An address that was a ``vrrp_primary_ip`` must outlive the update that changes it, as vmadm has it."""
    own = {address.partition("/")[0] for nic in after for address in nic.get("ips") or () if "/" in address}
    for nic in have:
        primary = nic.get("vrrp_primary_ip")
        if primary is not None and primary not in own:
            raise PlanError(
                f"{where}: nics: {primary} is the vrrp_primary_ip of {nic.get('interface')}: vmadm cannot remove it in the "
                "run that changes that NIC: add the new address in one run, and remove the old one in the next"
            )


def new_nics(payload: Payload) -> list[State]:
    """The nics that a payload adds or changes."""
    return [*(payload.get("add_nics") or payload.get("nics") or ()), *(payload.get("update_nics") or ())]


def check_tags(where: str, nics: t.Iterable[State], tags: Tags) -> None:
    """Refuse nics on tags that the node has not, and those with too small packets for a physical link."""
    for nic in nics:
        tag = nic.get("nic_tag")
        if tag is None:
            continue
        name = f"{where}: nics ({nic.get('interface') or nic.get('mac')})"
        if tag.partition("/")[0] not in tags or not re.fullmatch(r"\w+(/\w+)?", tag):
            raise PlanError(f"{name}: nic_tag: {tag!r} is not a tag of this node: use one of {', '.join(sorted(tags))}")
        if tags.get(tag) == "normal" and nic.get("mtu") is not None and nic["mtu"] < LEAST_MTU:
            raise PlanError(
                f"{name}: mtu: {nic['mtu']} is not valid: use at least {LEAST_MTU} on {tag}, which has a physical link"
            )


def _check_gateways(where: str, have: State | None, after: State) -> None:
    """Routes by a nic need one that has an address of its own. They count nics as vmadm lists them, new ones last."""
    order = [] if have is None else have["nic_order"]
    nics = sorted(after["nics"], key=lambda nic: order.index(nic.get("mac")) if nic.get("mac") in order else len(order))
    for destination, gateway in after["routes"].items():
        found = re.fullmatch(r"nics\[(\d+)\]|macs\[(.+)\]", str(gateway))
        if not found:
            continue
        if found[1]:
            nic = nics[int(found[1])] if int(found[1]) < len(nics) else None
        else:
            nic = next((one for one in nics if one.get("mac") == found[2].lower()), None)
        if nic is None or not any(address not in AUTOMATIC for address in nic.get("ips") or ()):
            raise PlanError(
                f"{where}: routes.{destination}: {gateway!r} is not valid: use a nic of this VM with a fixed address"
            )
