# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cloud holds for its users: read all of it, compare it with what is wanted, and write the difference.

Each kind of thing is planned by a function of its own from what is held and what is wanted, without any request; a plan
is a list of chains. A chain is one thing's actions in their order; chains do not depend on one another.
"""

from __future__ import annotations

import os
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.apis import (
    Action,
    Chain,
    CloudApis,
    ContentsPlan,
    Contradiction,
    Json,
    call_of,
    pages,
    query,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.glance import (
    file_digests,
    plan_images,
    read_images,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import ApiError, NotReady, wait_until_ready

FLAVOR_FIELDS = {
    "ram": "ram",
    "vcpus": "vcpus",
    "disk": "disk",
    "ephemeral": "OS-FLV-EXT-DATA:ephemeral",
    "swap": "swap",
    "public": "os-flavor-access:is_public",
}
NETWORK_FIELDS = {"name": "name", "mtu": "mtu", "external": "router:external", "shared": "shared"}
NETWORK_QUOTAS = {
    "networks": "network",
    "subnets": "subnet",
    "ports": "port",
    "routers": "router",
    "floating_ips": "floatingip",
    "security_groups": "security_group",
    "security_group_rules": "security_group_rule",
}


# --- flavors: https://docs.openstack.org/api-ref/compute/ ---------------------------------------------------------


def flavor_fields(flavor: Json) -> Json:
    """A flavor of Nova with our keys; no swap is an empty text there."""
    return {key: flavor[theirs] or (False if key == "public" else 0) for key, theirs in FLAVOR_FIELDS.items()}


def plan_flavors(held: t.Iterable[Json], wanted: t.Mapping[str, Json]) -> ContentsPlan:
    """A flavor's size cannot be changed in place; instances keep the one that they were made with."""
    plan = ContentsPlan()
    by_name = {flavor["name"]: flavor for flavor in held}
    for name, wish in wanted.items():
        sizes = {key: wish[key] for key in FLAVOR_FIELDS}
        flavor = by_name.get(name)
        now = None if flavor is None else flavor_fields(flavor)
        specs = {} if flavor is None else flavor["extra_specs"]
        lacking = {key: value for key, value in wish["properties"].items() if specs.get(key) != value}
        chain: Chain = []
        if now != sizes:
            label = "create flavor" if flavor is None else "replace flavor"
            keep = {**specs, **wish["properties"]}
            chain.append(
                Action(f"{label} {name}", _make_flavor(name, sizes, keep, None if flavor is None else flavor["id"]))
            )
        elif flavor is not None and lacking:
            path = f"/flavors/{flavor['id']}/os-extra_specs"
            label = f"set {', '.join(sorted(lacking))} of flavor {name}"
            chain.append(Action(label, call_of("compute", "POST", path, {"extra_specs": lacking})))
        shown = {key: specs[key] for key in sorted(wish["properties"]) if key in specs}
        plan.add(
            name,
            None if now is None else {**now, "properties": shown},
            {**sizes, "properties": wish["properties"]},
            chain,
        )
    return plan


def _make_flavor(name: str, sizes: Json, specs: Json, old: str | None) -> t.Callable[[CloudApis], t.Any]:
    def run(cloud: CloudApis) -> None:
        body = {"name": name, **{FLAVOR_FIELDS[key]: value for key, value in sizes.items()}}
        if old is not None:
            cloud.compute.call("DELETE", f"/flavors/{old}")
            body["id"] = old
        flavor = cloud.compute.call("POST", "/flavors", {"flavor": body}).body["flavor"]["id"]
        if specs:
            cloud.compute.call("POST", f"/flavors/{flavor}/os-extra_specs", {"extra_specs": specs})

    return run


# --- provider networks: https://docs.openstack.org/api-ref/network/v2/ --------------------------------------------


def subnet_wish(wish: Json) -> Json:
    """Only instances that are attached to the network itself need DHCP there."""
    first, last = wish["pool"]
    return {
        "gateway_ip": wish["gateway"],
        "allocation_pools": [{"start": first, "end": last}],
        "dns_nameservers": list(wish["dns"]),
        "enable_dhcp": wish["shared"],
    }


def plan_networks(
    networks: t.Mapping[str, list[Json]], subnets: t.Mapping[str, list[Json]], wanted: t.Mapping[str, Json]
) -> ContentsPlan:
    """
    :param networks: what Neutron has on each physical network.
    :param subnets: IPv4 subnets by id of their network.
    """
    plan = ContentsPlan()
    for name, wish in wanted.items():
        fields = {theirs: name if key == "name" else wish[key] for key, theirs in NETWORK_FIELDS.items()}
        network = next(iter(networks.get(name, [])), None)
        chain: Chain = []
        ids = {"network": network and network["id"]}
        before = None
        if network is None:
            physical = {"provider:network_type": "flat", "provider:physical_network": name}
            chain.append(Action(f"create network {name}", _create("networks", "network", {**fields, **physical}, ids)))
        else:
            changes = {key: value for key, value in fields.items() if network[key] != value}
            if changes:
                label = f"change {', '.join(sorted(changes))} of network {name}"
                chain.append(
                    Action(label, call_of("network", "PUT", f"/networks/{network['id']}", {"network": changes}))
                )
            before = {key: network[key] for key in fields}
        held = subnets.get(network["id"], []) if network else []
        subnet = next((one for one in held if one["cidr"] == wish["cidr"]), None)
        details = subnet_wish(wish)
        if subnet is None:
            if other := next((one for one in held if one["name"] == name), None):
                raise Contradiction(
                    f"cloud.networks.{name}.cidr: {wish['cidr']}: Neutron's subnet {other['id']} has {other['cidr']}, which "
                    "cannot be changed: write that, or delete the subnet once no instance and no router uses it"
                )
            body = {"name": name, "ip_version": 4, "cidr": wish["cidr"], **details}
            chain.append(Action(f"create subnet {name}", _create("subnets", "subnet", body, ids)))
        else:
            changes = {key: value for key, value in details.items() if subnet[key] != value}
            if changes:
                label = f"change {', '.join(sorted(changes))} of subnet {name}"
                chain.append(Action(label, call_of("network", "PUT", f"/subnets/{subnet['id']}", {"subnet": changes})))
            before = {**(before or {}), "cidr": subnet["cidr"], **{key: subnet[key] for key in details}}
        plan.add(name, before, {**fields, "cidr": wish["cidr"], **details}, chain)
    return plan


def _create(path: str, kind: str, body: Json, ids: dict[str, t.Any]) -> t.Callable[[CloudApis], t.Any]:
    """Create a network or a subnet of it."""

    def run(cloud: CloudApis) -> None:
        network = {} if kind == "network" else {"network_id": ids["network"]}
        made = cloud.network.call("POST", f"/{path}", {kind: {**body, **network}}).body[kind]
        ids.setdefault(kind, None)
        ids[kind] = made["id"]

    return run


def read_networks(
    cloud: CloudApis, names: t.Iterable[str], pool: ThreadPoolExecutor
) -> tuple[dict[str, list[Json]], dict[str, list[Json]]]:
    """Networks by physical network, and the IPv4 subnets of each."""
    asked = {
        name: pool.submit(cloud.network.call, "GET", query("/networks", **{"provider:physical_network": name}))
        for name in names
    }
    networks = {name: reply.result().body["networks"] for name, reply in asked.items()}
    ids = [network["id"] for every in networks.values() for network in every]
    replies = {
        one: pool.submit(cloud.network.call, "GET", query("/subnets", network_id=one, ip_version=4)) for one in ids
    }
    return networks, {one: reply.result().body["subnets"] for one, reply in replies.items()}


# --- quotas -------------------------------------------------------------------------------------------------------


def plan_quotas(held: t.Mapping[str, Json], wanted: t.Mapping[str, Json]) -> ContentsPlan:
    """
    :param held: by project, what it may use now, with our keys; and ``id``, which ``default`` has not.
    """
    plan = ContentsPlan()
    for project, wish in wanted.items():
        now = held[project]
        changes = {key: value for key, value in wish.items() if now[key] != value}
        chain: Chain = []
        if changes:
            label = f"change quota of {'all projects' if project == 'default' else f'project {project}'}: {', '.join(sorted(changes))}"
            chain.append(Action(label, _set_quota(now.get("id"), changes)))
        plan.add(project, {key: now[key] for key in wish}, dict(wish), chain)
    return plan


def _set_quota(project: str | None, changes: Json) -> t.Callable[[CloudApis], t.Any]:
    compute = {key: value for key, value in changes.items() if key not in NETWORK_QUOTAS}
    network = {NETWORK_QUOTAS[key]: value for key, value in changes.items() if key in NETWORK_QUOTAS}

    def run(cloud: CloudApis) -> None:
        if project is None:
            cloud.compute.call("PUT", "/os-quota-class-sets/default", {"quota_class_set": compute})
            return
        if compute:
            cloud.compute.call("PUT", f"/os-quota-sets/{project}", {"quota_set": compute})
        if network:
            cloud.network.call("PUT", f"/quotas/{project}", {"quota": network})

    return run


def read_quota(cloud: CloudApis, project: str, wish: Json) -> Json:
    """What a project (or ``default``) may use now."""
    if project == "default":
        return t.cast(Json, cloud.compute.call("GET", "/os-quota-class-sets/default").body["quota_class_set"]) | {
            "id": None
        }
    found = cloud.identity.call("GET", query("/projects", name=project, domain_id="default")).body["projects"]
    if not found:
        raise Contradiction(
            f"cloud.quotas.{project}: there is no project {project!r} in domain default: create it, or correct the name"
        )
    held: Json = {"id": found[0]["id"]}
    if set(wish) - set(NETWORK_QUOTAS):
        held |= cloud.compute.call("GET", f"/os-quota-sets/{held['id']}").body["quota_set"] | {"id": held["id"]}
    if set(wish) & set(NETWORK_QUOTAS):
        quota = cloud.network.call("GET", f"/quotas/{held['id']}").body["quota"]
        held |= {ours: quota[theirs] for ours, theirs in NETWORK_QUOTAS.items() if theirs in quota}
    return held


# --- availability zones: https://docs.openstack.org/nova/latest/admin/availability-zones.html ---------------------


def plan_availability_zones(held: t.Iterable[Json], wanted: t.Mapping[str, Json], wait: float) -> ContentsPlan:
    """A zone is what Nova knows of it: that a host aggregate says so, here one of its name. A hypervisor is in one at most.

    :param held: all host aggregates.
    :param wanted: hypervisors by their name in Nova, with ``zone`` and ``provider``, the UUID of its resource provider.
    :param wait: seconds that Placement has to learn of a hypervisor.
    """
    plan = ContentsPlan()
    by_name = {aggregate["name"]: aggregate for aggregate in held}
    zoned = [aggregate for aggregate in by_name.values() if aggregate["metadata"].get("availability_zone")]
    for zone in sorted({wish["zone"] for wish in wanted.values()}):
        aggregate = by_name.get(zone)
        if aggregate is not None and aggregate["metadata"].get("availability_zone") != zone:
            raise Contradiction(
                f"availability zone {zone}: host aggregate {aggregate['id']} has this name and does not define the zone: rename it, "
                "or choose another name for the failure domain"
            )
        chain: Chain = []
        ids = {"aggregate": aggregate and aggregate["id"]}
        names = sorted(name for name, wish in wanted.items() if wish["zone"] == zone)
        before = []
        for name in names:
            current = [one for one in zoned if name in one["hosts"]]
            if any(one["metadata"]["availability_zone"] == zone for one in current):
                before.append(name)
                continue
            label = f"put {name} into availability zone {zone}"
            if current:
                label += f", out of {', '.join(one['metadata']['availability_zone'] for one in current)}"
            chain.append(
                Action(label, _enter(name, wanted[name]["provider"], ids, [one["id"] for one in current], wait))
            )
        if chain and aggregate is None:
            chain.insert(0, Action(f"create availability zone {zone}", _create_aggregate(zone, ids)))
        plan.add(zone, before if aggregate or before else None, names, chain)
    return plan


def _create_aggregate(zone: str, ids: dict[str, t.Any]) -> t.Callable[[CloudApis], t.Any]:
    def run(cloud: CloudApis) -> None:
        body = {"aggregate": {"name": zone, "availability_zone": zone}}
        ids["aggregate"] = cloud.compute.call("POST", "/os-aggregates", body).body["aggregate"]["id"]

    return run


def _enter(
    name: str, provider: str, ids: dict[str, t.Any], others: list[int], wait: float
) -> t.Callable[[CloudApis], t.Any]:
    """Put a hypervisor into an aggregate. Nova tells Placement, which the scheduler asks, and only logs when it cannot."""

    def known(cloud: CloudApis) -> None:
        if cloud.placement.call("GET", f"/resource_providers/{provider}", accept=(404,)).status == 404:
            raise NotReady(
                f"Placement has no resource provider for hypervisor {name} ({provider}): does its nova-compute run?"
            )

    def run(cloud: CloudApis) -> None:
        wait_until_ready(lambda: known(cloud), wait)
        for other in others:
            cloud.compute.call("POST", f"/os-aggregates/{other}/action", {"remove_host": {"host": name}})
        cloud.compute.call("POST", f"/os-aggregates/{ids['aggregate']}/action", {"add_host": {"host": name}})

    return run


# --- all of it ----------------------------------------------------------------------------------------------------


def with_checksums(images: t.Mapping[str, Json]) -> dict[str, Json]:
    """Built-in images with the checksum of what lies in this zone."""
    found = {}
    for name, image in images.items():
        if image.get("path"):
            if not os.path.exists(image["path"]):
                raise Contradiction(f"cloud.images.{name}: {image['path']} is missing: rebuild this zone's image")
            image = {**image, "checksum": "sha256:" + file_digests(image["path"])["sha256"]}
        found[name] = image
    return found


def converge(params: t.Mapping[str, t.Any], dry: bool) -> Json:
    """The whole call; what ``exit_json`` takes."""
    wanted = {kind: params[kind] for kind in ("images", "flavors", "networks", "quotas", "availability_zones")}
    if not any(wanted.values()):
        return {"changed": False, "actions": [], "needs": [], "diff": {"before": {}, "after": {}}}
    wanted["images"] = with_checksums(wanted["images"])
    files = {
        **params["files"],
        **{name: image["path"] for name, image in wanted["images"].items() if image.get("path")},
    }
    cloud = CloudApis(params["auth"], params["region"], params["ca"], params["wait"])
    quota_keys = {key for wish in wanted["quotas"].values() for key in wish}
    cloud.connect(
        images=bool(wanted["images"]),
        compute=bool(wanted["flavors"] or wanted["availability_zones"] or quota_keys - set(NETWORK_QUOTAS)),
        network=bool(wanted["networks"] or quota_keys & set(NETWORK_QUOTAS)),
        placement=bool(wanted["availability_zones"]),
    )
    plans: dict[str, ContentsPlan] = {}
    with ThreadPoolExecutor(max_workers=max(1, params["parallel"])) as pool:
        images = pool.submit(read_images, cloud) if wanted["images"] else None
        flavors = (
            pool.submit(pages, cloud.compute, "/flavors/detail", "flavors", is_public="None")
            if wanted["flavors"]
            else None
        )
        aggregates = pool.submit(cloud.compute.call, "GET", "/os-aggregates") if wanted["availability_zones"] else None
        quotas = {name: pool.submit(read_quota, cloud, name, wish) for name, wish in wanted["quotas"].items()}
        networks, subnets = read_networks(cloud, wanted["networks"], pool) if wanted["networks"] else ({}, {})
        plans["networks"] = plan_networks(networks, subnets, wanted["networks"])
        plans["images"] = plan_images(images.result() if images else [], wanted["images"], files)
        plans["flavors"] = plan_flavors(flavors.result() if flavors else [], wanted["flavors"])
        plans["quotas"] = plan_quotas({name: reply.result() for name, reply in quotas.items()}, wanted["quotas"])
        plans["availability_zones"] = plan_availability_zones(
            aggregates.result().body["aggregates"] if aggregates else [], wanted["availability_zones"], params["wait"]
        )
        chains = [chain for plan in plans.values() for chain in plan.chains]
        actions = [action.label for chain in chains for action in chain]
        needs = plans["images"].needs
        if not dry and not needs:
            done = [pool.submit(_follow, chain, cloud) for chain in chains]
            for one in done:
                one.result()
    diff = {side: {kind: getattr(plan, side) for kind, plan in plans.items()} for side in ("before", "after")}
    return {"changed": bool(actions), "actions": actions, "needs": needs, "diff": diff}


def _follow(chain: Chain, cloud: CloudApis) -> None:
    for action in chain:
        try:
            action.run(cloud)
        except (ApiError, NotReady) as problem:
            raise type(problem)(f"could not {action.label}: {problem}") from None
