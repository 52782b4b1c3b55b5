# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NICs of a payload: the older forms made new, what create and update refuse, in their order; and NICs as ``get`` shows them."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from .addresses import (
    NOT_ADDRESSES,
    check_allowed,
    is_cidr,
    is_v4,
    normal_mac,
    prefix_of,
    random_mac,
    vrrp_mac,
)  # fmt: skip
from .files import ToolError
from .javascript import dumps, is_empty
from .platform import HVM_BRANDS, VM
from .properties import PROPERTIES

if t.TYPE_CHECKING:
    from .state import State

Nic = dict[str, t.Any]

MAX_IPS = 20
MAX_ALL_IPS = 32
MAX_CIDS, MAX_CIDS_LENGTH = 20, 1024
LEAST_MTU = 1500  # of a NIC on a tag of type normal


def add_macs(nics: list[Nic]) -> None:
    """What every new NIC has; the name of its interface is not the payload's to choose, and ``primary`` is true or nothing."""
    for nic in nics:
        if "mac" not in nic:
            nic["mac"] = random_mac() if is_empty(nic.get("vrrp_vrid")) else vrrp_mac(nic["vrrp_vrid"])
        elif isinstance(nic["mac"], str) and nic["mac"]:
            nic["mac"] = normal_mac(nic["mac"])
        nic.pop("interface", None)
        if "primary" in nic and nic["primary"] not in (True, "1", 1, "true"):
            del nic["primary"]
        elif "primary" in nic:
            nic["primary"] = True


def upgrade(nic: Nic) -> None:
    """Make ``ips`` and ``gateways`` of the older forms."""
    if "netmask" in nic:
        prefix_of(nic["netmask"])
    if "ip" in nic:
        if "ips" not in nic:
            if nic["ip"] in NOT_ADDRESSES:
                nic["ips"] = [nic["ip"]]
            elif "netmask" in nic:
                nic["ips"] = [f"{nic['ip']}/{prefix_of(nic['netmask'])}"]
            else:
                raise ToolError(f"Missing .netmask option for NIC: {dumps(nic)}")
        del nic["ip"]
    nic.pop("netmask", None)
    if "gateway" in nic:
        gateway = nic.pop("gateway")
        nic.setdefault("gateways", [gateway])


def upgrade_change(nic: Nic, have: list[Nic]) -> None:
    """The same for a change, which may name half of what the NIC has."""
    if "mac" not in nic:
        raise ToolError("NIC object needs a .mac property to update")
    existing = next((one for one in have if one["mac"] == nic["mac"]), None)
    if existing is None:
        raise ToolError("There is no existing NIC with that mac address")
    half = "ips" not in nic and (("netmask" in nic) is not ("ip" in nic)) and nic.get("ip") not in NOT_ADDRESSES
    if half:
        ips = existing.get("ips") or []
        if len(ips) != 1 or not is_cidr(ips[0], v4_only=True):
            raise ToolError("Need a single existing IPv4 address to update .ip or .netmask")
        interface = ipaddress.ip_interface(ips[0])
        nic.setdefault("ip", str(interface.ip))
        nic.setdefault("netmask", str(interface.netmask))
    upgrade(nic)


class Check:
    """The checks of ``add_nics``, ``update_nics`` and ``remove_nics`` of one payload; ``vm`` is None at create."""

    def __init__(self, payload: dict[str, t.Any], vm: VM | None, brand: str) -> None:
        self.payload, self.vm, self.brand = payload, vm, brand
        self.have: list[Nic] = (vm or {}).get("nics", [])
        self.result: list[Nic] = [dict(nic) for nic in self.have]
        changed = {nic.get("mac"): nic for nic in payload.get("update_nics") or ()}
        self.ips = [
            one for nic in self.have if "ips" not in changed.get(nic["mac"], ()) for one in nic.get("ips") or ()
            if one not in NOT_ADDRESSES
        ]  # fmt: skip
        self.macs = [nic["mac"] for nic in self.have]
        self.vrids = [nic["vrrp_vrid"] for nic in self.have if "vrrp_vrid" in nic]
        self.primary_ips = [nic["vrrp_primary_ip"] for nic in self.have if "vrrp_primary_ip" in nic]
        self.primaries = 0
        self.changed: list[Nic] = []

    def run(self) -> list[Nic]:
        """Refuse what cannot be; the NICs as they will be, in the order in which routes count them."""
        for kind in ("add_nics", "update_nics"):
            for nic in self.payload.get(kind) or ():
                self._one(nic, new=kind == "add_nics")
        self._removed()
        self._together()
        if self.primaries > 1:
            raise ToolError("payload specifies more than 1 primary NIC")
        return self.result

    def _one(self, nic: Nic, new: bool) -> None:
        if "vrrp_vrid" in nic:
            if nic["vrrp_vrid"] in self.vrids:
                raise ToolError(f"Cannot add multiple NICs with the same VRID: {nic['vrrp_vrid']}")
            self.vrids.append(nic["vrrp_vrid"])
        if new:
            if nic["mac"] in self.macs:
                raise ToolError(f"Cannot add multiple NICs with the same MAC: {nic['mac']}")
            self.macs.append(nic["mac"])
        if "primary" in nic:
            if nic["primary"] is not True:
                raise ToolError(f"invalid value for NIC's primary flag: {dumps(nic['primary'])} (must be true)")
            self.primaries += 1
        self.changed.append(nic)
        for gateway in nic.get("gateways") or ():
            if not is_v4(gateway):
                raise ToolError(f"Static gateways must be IPv4 addresses: {gateway}")
        self._addresses(nic)
        if new and "vrrp_vrid" in nic and nic["mac"] != vrrp_mac(nic["vrrp_vrid"]):
            raise ToolError("Cannot set both mac and vrrp_vrid")
        if "vrrp_primary_ip" in nic:
            self.primary_ips.append(nic["vrrp_primary_ip"])
        self._model(nic, new)
        self._tag(nic, new)
        self._merge(nic)
        if "allowed_ips" in nic:
            check_allowed(nic["allowed_ips"])
        cids = nic.get("allowed_dhcp_cids") or ()
        if len(cids) > MAX_CIDS:
            raise ToolError(
                f"nics.*.allowed_dhcp_cids contains {len(cids)} Client Identifiers, but is limited to {MAX_CIDS}"
            )
        if len(",".join(cids)) >= MAX_CIDS_LENGTH:
            raise ToolError("nics.*.allowed_dhcp_cids contains too many long Client Identifiers")

    def _addresses(self, nic: Nic) -> None:
        ips = nic.get("ips") or []
        if len(ips) > MAX_IPS:
            raise ToolError(f"nic.*.ips contains {len(ips)} addresses, but is limited to {MAX_IPS}")
        for one in ips:
            if one in NOT_ADDRESSES:
                continue
            if not is_cidr(one):
                raise ToolError(f"Invalid IP for NIC: {dumps(nic)}")
            if one in self.ips:
                raise ToolError(f"Cannot add multiple NICs with the same IP: {one}")
            self.ips.append(one)

    def _model(self, nic: Nic, new: bool) -> None:
        """A new NIC of a VM that has one takes after the VM: its ``nic_driver``, or its first NIC."""
        if new and self.brand in HVM_BRANDS and nic.get("model") in (None, "", "undefined"):
            vm = self.vm or {}
            if "nic_driver" in vm:
                nic["model"] = vm["nic_driver"]
            elif self.have and self.have[0].get("model"):
                nic["model"] = self.have[0]["model"]
            else:
                raise ToolError(f"missing .model option for NIC: {dumps(nic)}")
        if not new and "model" in nic and nic["model"] in (None, "", "undefined"):
            raise ToolError(f"invalid .model option for NIC: {dumps(nic)}")

    def _tag(self, nic: Nic, new: bool) -> None:
        tag = nic.get("nic_tag")
        if new and (tag is None or not re.fullmatch(r"[a-zA-Z0-9_/]+", str(tag))):
            raise ToolError(f"invalid or missing .nic_tag option for NIC: {dumps(nic)}")
        if not new and "nic_tag" in nic and not re.fullmatch(r"[a-zA-Z0-9_]+", str(tag)):
            raise ToolError(f"invalid .nic_tag option for NIC: {dumps(nic)}")

    def _merge(self, nic: Nic) -> None:
        for one in self.result:
            if one["mac"] == nic["mac"]:
                one.update(nic)
                return
        self.result.append(nic)

    def _removed(self) -> None:
        for mac in self.payload.get("remove_nics") or ():
            gone = next((nic for nic in self.result if nic["mac"] == mac), None)
            if gone is None:
                continue  # zonecfg is asked to remove it all the same
            self.result.remove(gone)
            for one in gone.get("ips") or ():
                if one in self.ips:
                    self.ips.remove(one)

    def _together(self) -> None:
        """What the NICs are to each other."""
        plain = False
        for nic in self.result:
            if "vrrp_vrid" in nic:
                if any(one.partition("/")[0] in self.primary_ips for one in nic.get("ips") or ()):
                    raise ToolError("Cannot set vrrp_primary_ip to the IP of a VRRP nic")
                if "vrrp_primary_ip" not in nic:
                    raise ToolError("vrrp_vrid set but not vrrp_primary_ip")
            else:
                plain = True
            if (
                sum(len(nic.get(name) or ()) for name in ("allowed_ips", "ips")) + ("vrrp_primary_ip" in nic)
                > MAX_ALL_IPS
            ):
                raise ToolError(f"More than {MAX_ALL_IPS} IPs cannot be associated with a NIC")
        if self.result and not plain:
            raise ToolError("VM cannot contain only VRRP nics")
        mine = {one.partition("/")[0] for one in self.ips}
        if any(one not in mine for one in self.primary_ips):
            raise ToolError("vrrp_primary_ip must belong to the same VM")


def check_tags(state: State, nics: t.Iterable[Nic]) -> None:
    """Refuse NICs on tags that the node has not, one line per tag, and those with too small a packet for a physical link.

    An overlay tag is named RULE/NUMBER.
    """
    changed = [nic for nic in nics if nic.get("nic_tag")]
    known = {tag["name"]: tag for tag in state.node["nic_tags"]}
    unknown = [nic["nic_tag"] for nic in changed if nic["nic_tag"].split("/")[0] not in known]
    if unknown:
        raise ToolError("\n".join(f'Invalid nic tag "{tag}"' for tag in dict.fromkeys(unknown)))
    least: dict[str, tuple[int, Nic]] = {}
    for index, nic in enumerate(changed):
        small = least.get(nic["nic_tag"])
        if nic.get("mtu") is not None and (small is None or nic["mtu"] < small[1]["mtu"]):
            least[nic["nic_tag"]] = (index, nic)
    bad = [
        f'nic {index} ({nic["mac"]}): MTU is below the supported MTU ({LEAST_MTU}) of nic tag "{name}"'
        for name, (index, nic) in least.items()
        if known.get(name, {}).get("type") == "normal" and nic["mtu"] < LEAST_MTU
    ]
    if bad:
        raise ToolError("\n".join(bad))


def check_conflicts(payload: dict[str, t.Any], vms: t.Iterable[VM]) -> None:
    """Refuse a MAC, VRID or VNC port that a VM has, or an IP text on the same tag and VLAN (facts 4.3).

    The comparison is of text: 10.0.0.11/24 is not 10.0.0.11/25, VLAN 0 is not "no VLAN". It is with the tag and VLAN that the
    payload tells, so a change of addresses alone meets nobody; and with the VM itself. Failed VMs that are down do not count.
    """
    added = payload.get("add_nics") or []
    news = [*added, *(payload.get("update_nics") or ())]
    macs = {nic["mac"] for nic in added}
    vrids = {nic["vrrp_vrid"] for nic in news if "vrrp_vrid" in nic}
    port = payload.get("vnc_port")
    for vm in vms:
        if vm.get("failed") and vm.get("zone_state") != "running":
            continue
        have = vm.get("nics", ())
        same = isinstance(port, int) and port > 0 and vm.get("vnc_port") == port
        same = same or any(nic["mac"] in macs or nic.get("vrrp_vrid") in vrids for nic in have)
        if same or any(_same_address(mine, theirs) for mine in news for theirs in have):
            raise ToolError("Conflict detected with another vm, please check the MAC, IP, and VRID")


def _same_address(mine: Nic, theirs: Nic) -> bool:
    if mine.get("vlan_id") != theirs.get("vlan_id") or mine.get("nic_tag") != theirs.get("nic_tag"):
        return False
    return bool({one for one in mine.get("ips") or () if one not in NOT_ADDRESSES} & set(theirs.get("ips") or ()))


# -- as get shows them -------------------------------------------------------------------------------------------------


def shown(nic: Nic) -> Nic:
    """A NIC as ``get`` shows it: the old single forms beside the lists, and nothing that has its default (facts 2)."""
    said = {key: value for key, value in nic.items() if key not in ("ip", "netmask", "gateway", "gateways", "ips")}
    for key in list(said):
        spec = PROPERTIES.get(f"nics.*.{key}")
        if is_empty(said[key]) or (spec and spec.type == "boolean" and said[key] is False):
            del said[key]
    ips, gateways = nic.get("ips") or [], nic.get("gateways") or []
    if gateways:
        said["gateway"], said["gateways"] = gateways[0], gateways
    first = next((one for one in ips if one == "dhcp" or ("/" in one and ":" not in one)), None)
    if first == "dhcp":
        said["ip"] = "dhcp"
    elif first:
        interface = ipaddress.ip_interface(first)
        said["netmask"], said["ip"] = str(interface.netmask), str(interface.ip)
    if ips:
        said["ips"] = ips
    return said


def changed(vm: VM, payload: dict[str, t.Any]) -> list[Nic]:
    """The NICs of ``vm`` after a payload."""
    gone = set(payload.get("remove_nics") or ())
    changes = {
        one["mac"]: {k: v for k, v in one.items() if k != "interface"} for one in payload.get("update_nics") or ()
    }
    items = [{**nic, **changes.get(nic["mac"], {})} for nic in vm["nics"] if nic["mac"] not in gone]
    for nic in items:
        if nic["mac"] in changes and "vrrp_vrid" in nic:
            nic["mac"] = vrrp_mac(nic["vrrp_vrid"])
    added = [dict(nic) for nic in payload.get("add_nics") or ()]
    primary = [nic["mac"] for nic in (*added, *changes.values()) if nic.get("primary") is True]
    if primary:
        for nic in items:
            nic["primary"] = nic["mac"] == primary[-1]
    # The names of NICs that go with this payload are still taken.
    used = {nic.get("interface") for nic in vm["nics"]}
    stem = "eth" if vm["brand"] == "lx" else "net"
    free = (f"{stem}{number}" for number in range(1000) if f"{stem}{number}" not in used)
    for nic in added:
        nic["interface"] = next(free)
    placed = [*items, *added]
    if placed and not any(nic.get("primary") for nic in placed):
        _successor(placed)["primary"] = True
    return [{"interface": nic["interface"], "mac": nic["mac"], **shown(nic)} for nic in placed]


def _successor(nics: list[Nic]) -> Nic:
    """The NIC that becomes primary when none is: at best one with a public address, else the first."""

    def public(nic: Nic) -> bool:
        return any("/" in one and not ipaddress.ip_interface(one).ip.is_private for one in nic.get("ips") or ())

    return next((nic for nic in nics if nic.get("interface") and public(nic)), nics[0])
