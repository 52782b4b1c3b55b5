# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that read the nouns ``zone``, ``service`` and ``stack``; the .yml files beside this one document each."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.zonestack.openstack.plugins.plugin_utils import retirement


def front_ends(stack: t.Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """The front ends of ``stack``, each with its members."""
    return {
        name: {**front, "members": stack["members"][front["component"]]} for name, front in stack["front_ends"].items()
    }


def members(stack: t.Mapping[str, t.Any], function: str) -> list[dict[str, t.Any]]:
    """The zones of who does something for all others, by what it does."""
    return [
        one
        for component, every in stack["members"].items()
        if stack["components"][component].get("function") == function
        for one in every
    ]


def surplus(found: t.Mapping[str, t.Any], stack: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What to do about the zones that topology.yml has no more, see plugin_utils/retirement.py."""
    return retirement.surplus(found, stack).variable()


def leaving(
    found: t.Mapping[str, t.Any], stack: t.Mapping[str, t.Any], host: str, lose: t.Collection[str] = ()
) -> dict[str, t.Any]:
    """What to do about the zones of a host that leaves, see plugin_utils/retirement.py."""
    return retirement.leaving(found, stack, host, lose).variable()


def surplus_here(zones: t.Mapping[str, t.Any], wanted: t.Collection[str]) -> list[t.Mapping[str, t.Any]]:
    """Descriptions of the zones of one host that topology.yml has no more."""
    return retirement.surplus_here(zones, wanted)


def hooks(stack: t.Mapping[str, t.Any], name: str, running: t.Collection[str]) -> list[dict[str, t.Any]]:
    """The task files of a hook, and a running member of each service that has it."""
    return retirement.hooks(stack, name, running)


def source_match(names: t.Sequence[str], stack: t.Mapping[str, t.Any]) -> str | None:
    """Collect the addresses of all who are named. The catalogue knows that they exist; not all need to be deployed."""
    addresses: list[str] = []
    for name in names:
        if name == "any":
            return ""
        if name == "zones":
            addresses.append(stack["networks"]["zone"]["cidr"])
        elif name == "hosts":
            addresses += [host["bridge_address"] for host in stack["hosts"].values()]
        else:
            components = stack["services"][name]["components"] if name in stack["services"] else [name]
            addresses += [
                member["address"] for component in components for member in stack["members"].get(component, [])
            ]
    return f" ip saddr {{ {', '.join(addresses)} }}" if addresses else None


def link_name(network: t.Mapping[str, t.Any], host: t.Mapping[str, t.Any]) -> str:
    """What an interface in a network is attached to on a host: a bridge, or a NIC tag."""
    return str(network["nic_tag" if host["backend"] == "smartos" else "bridge"])


def zone_networks(
    zone: t.Mapping[str, t.Any], service: t.Mapping[str, t.Any], stack: t.Mapping[str, t.Any]
) -> list[dict[str, t.Any]]:
    """A zone's interfaces as the module ``zone`` takes them: ``eth0`` in the zone network, then the further ones, then
    those in provider networks.

    ``vips`` are the virtual addresses, which keepalived gives to one of the HAProxy zones. In a zone of SmartOS no program can
    take on an address (lx has no RTM_NEWADDR), so there a zone that has nobody to share it with has the internal one for good.
    """
    balancer = service.get("function") == "load_balancer"
    alone = balancer and len(stack["members"][service["component"]]) == 1
    fixed = alone and stack["hosts"][zone["host"]]["backend"] == "smartos"
    found: list[dict[str, t.Any]] = []
    further = zone.get("networks") or {}
    for number, (name, here) in enumerate({"zone": zone, **further}.items()):
        network, host = stack["networks"][name], stack["hosts"][zone["host"]]
        found.append(
            {
                "name": f"eth{number}",
                "bridge": link_name(network, host),
                "mac": here["mac"],
                "address": here["address"],
                "prefix": network["prefix"],
                "mtu": network["mtu"],
                "gateway": host["bridge_address"] if name == "zone" else None,
                "addresses": [stack["vip"]["internal"]] if name == "zone" and fixed else [],
                "vips": [stack["vip"]["internal"]] if name == "zone" and balancer else [],
            }
        )
    for name, mac in (zone.get("provider") or {}).items():
        network = stack["cloud"]["networks"][name]
        vips = [network["vip"]] if balancer and network["vip"] else []
        found.append(
            {"name": f"eth{len(found)}", "bridge": network["bridge"], "mac": mac, "mtu": network["mtu"], "vips": vips}
        )
    return found


def builder_network(stack: t.Mapping[str, t.Any], host: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Where the image builders of a host live: the last slot of its block of the zone network."""
    network, here = stack["networks"]["zone"], stack["hosts"][host["name"]]
    return {
        "bridge": link_name(network, here),
        "prefix": network["prefix"],
        "mtu": network["mtu"],
        "gateway": here["bridge_address"],
        "addresses": list(host["builders"]),
    }


def database_accounts(stack: t.Mapping[str, t.Any], secrets: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Databases and their users, from the services' ``database``.

    A user may log in from HAProxy alone, the only way to the database: its password is of no use to whoever reaches a
    database port in another way.
    """
    hosts = [member["address"] for member in members(stack, "load_balancer")]
    return [
        {"database": name, "user": name, "password": secrets["database"][name], "hosts": hosts}
        for service in stack["services"].values()
        for name in service.get("database") or []
    ]


def database_url(database: str, stack: t.Mapping[str, t.Any], secrets: t.Mapping[str, t.Any]) -> str:
    """The URL of a database for SQLAlchemy: through HAProxy, by the user of its name, TLS checked against the deployment's CA."""
    return (
        f"mysql+pymysql://{database}:{secrets['database'][database]}@{stack['vip']['internal']}:3306/{database}"
        "?charset=utf8mb4&ssl_ca=/etc/zonestack/tls/ca.crt"
    )


def queue_users(stack: t.Mapping[str, t.Any], secrets: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """A queue user for each service with ``queue: true``: its own name, its own virtual host, no other."""
    return [
        {"name": name, "password": secrets["queue"][name], "vhosts": [name]}
        for name, service in stack["services"].items()
        if service.get("queue")
    ]


def identity(stack: t.Mapping[str, t.Any], secrets: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What Keystone must know of all services: catalog entries and service users, as ``identity_registry`` takes them."""
    services: list[dict[str, t.Any]] = []
    users: list[dict[str, t.Any]] = []
    shared = stack["identity"]["keystone"]
    if shared:  # clients look for Keystone in their region, wherever it is
        services.append({**shared, "endpoints": dict(stack["endpoint"]["keystone"])})
    for name, service in stack["services"].items():
        api = service.get("api")
        if api:
            services.append(
                {
                    "name": api.get("name") or name,
                    "type": api["type"],
                    "description": service.get("description") or "",
                    "endpoints": {
                        interface: stack["endpoint"][name][interface] for interface in ("public", "internal", "admin")
                    },
                }
            )
        user = service.get("identity")
        if user:
            users.append(
                {
                    "name": user["user"],
                    "password": secrets["identity"][user["user"]],
                    "project": "service",
                    "roles": user["roles"],
                }
            )
    return {"services": services, "users": users}


def mistaken_host(
    zones: t.Mapping[str, t.Mapping[str, t.Any]], host: t.Mapping[str, t.Any], stack: t.Mapping[str, t.Any]
) -> str:
    """Why a machine is another host than C(host), as the zones of the deployment that it has were made for one; empty when it is that one."""
    network = stack["networks"]["zone"]
    cidr = ipaddress.IPv4Network(network["cidr"])
    names: dict[str, list[str]] = {}
    ids: dict[int, list[str]] = {}
    for name, zone in sorted(zones.items()):
        described = zone["described"]
        label = re.escape(str(described.get("metadata", {}).get("component", "")).replace("_", "-"))
        if found := re.fullmatch(rf"(.+)-{label}-[1-8]", name):
            names.setdefault(found[1], []).append(name)
        first = next((one["address"] for one in described.get("networks", []) if one.get("address")), None)
        if first and ipaddress.IPv4Address(first) in cidr:
            number = (int(ipaddress.IPv4Address(first)) - int(cidr.network_address)) // network["block"]
            ids.setdefault(number, []).append(f"{name} {first}")
    where = f"deployment {stack['deployment']!r}"
    for other, mine in names.items():
        if other != host["name"]:
            return (
                f"this machine is host {other!r} of {where}: it has {len(mine)} zones that are named for it ({', '.join(mine[:3])}). topology.yml "
                f"calls it {host['name']!r}. Names, UUIDs and certificates of zones, and what Nova and Neutron know, follow from the host's name, so a "
                f"host is not renamed: write {other!r} again, or take it out under that name (leaving: true, scripts/remove-host.sh) and add it anew"
            )
    for number, mine in ids.items():
        if number != host["id"]:
            return (
                f"this machine has id {number} in {where}: the addresses of its zones are of that block ({', '.join(mine[:3])}). topology.yml gives it "
                f"id {host['id']}. All others know its zones by these addresses, so a host keeps its id: write id: {number} again, or take it out "
                f"under it (leaving: true, scripts/remove-host.sh) and add it anew"
            )
    return ""


class FilterModule:
    """Filters that read the inventory's nouns."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Names of the filters."""
        functions = (
            front_ends,
            hooks,
            leaving,
            members,
            source_match,
            surplus,
            surplus_here,
            zone_networks,
            builder_network,
            database_accounts,
            database_url,
            queue_users,
            identity,
            mistaken_host,
        )
        return {function.__name__: function for function in functions}
