# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments that share a Keystone, and with it users, projects and the catalog: regions of one cloud, which share nothing else.

Both sides say so in their ``topology.yml``: the one that has it names the others (``identity: {to: [..]}``), each of these names that one
(``identity: {from: ..}``). So none trusts another's authority without its owner's word, and what would clash is refused on either side.
"""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Catalogue, Service
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology import nouns
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import Topology

KEYSTONE = "keystone"
#: Functions that the one with the Keystone has for all of them.
SHARED = ("identity", "dashboard")


@dataclass(frozen=True)
class Sibling:
    """Another deployment of the family.

    :param deployment: its name, which need not be that of its folder.
    :param known: its catalogue of services.
    :param entry: where its users reach it.
    :param secrets: path of its ``secrets.yml``.
    """

    topology: Topology
    deployment: str
    known: Catalogue
    place: Place
    entry: str
    secrets: str


def named(topology: Topology) -> tuple[str, ...]:
    """The deployments that a topology shares a Keystone with, by their folders."""
    return (topology.identity.from_,) if topology.identity.from_ else topology.identity.to


def share(
    topology: Topology, known: Catalogue, folder: str, deployment: str, siblings: t.Mapping[str, Sibling], place: Place
) -> nouns.SharedIdentity:
    """``stack.identity``: whose Keystone it is.

    :param known: every known service.
    :param folder: the name by which the others know this deployment.
    :param siblings: all of the family but this one, by folder; also those that only share with the same one.
    :raises Refused: when the sides do not agree, or would be in each other's way.
    """
    here, mine = place.at("identity"), topology.identity
    if mine.from_ is not None:
        if mine.to:
            raise here.at("to").refuse(
                list(mine.to),
                f"it uses the Keystone of {mine.from_!r}, so it has none to share: keep one of from and to",
            )
        _agree_from(folder, siblings[mine.from_], mine.from_, here.at("from"))
        for name in topology.services:
            if any(one.merged.function in SHARED for one in known.of(name)):
                right = f"deployment {mine.from_!r} has it for both (identity.from): leave it out here"
                raise place.at("services").at(name).refuse(topology.services[name], right)
    for index, name in enumerate(mine.to):
        if KEYSTONE not in topology.services:
            raise here.at("to").refuse(list(mine.to), "there is no Keystone to share: name keystone under services")
        if siblings[name].topology.identity.from_ != folder:
            right = f"{siblings[name].place.file} does not say that it uses this one's Keystone: add `identity: {{from: {folder}}}` there, or leave it out"
            raise here.at("to").at(index).refuse(name, right)
    for name, other in siblings.items():
        _keep_apart(topology, deployment, name, other, place)
    entry, url = None, None
    if mine.from_ is not None:
        owner = siblings[mine.from_]
        service = owner.known.services[KEYSTONE]
        if service.api is None:
            raise here.at("from").refuse(mine.from_, "its keystone.yml declares no api")
        entry = nouns.CatalogEntry(service.api.name or KEYSTONE, service.api.type, service.description)
        url = f"https://{owner.entry}:{service.api.port}{service.api.path}"
    return nouns.SharedIdentity(
        from_=mine.from_,
        secrets={name: siblings[name].secrets for name in named(topology)},
        keystone=entry,
        url=url,
        regions=[topology.region, *(siblings[name].topology.region for name in named(topology))],
    )


def _agree_from(folder: str, owner: Sibling, name: str, here: Place) -> None:
    """The deployment that a Keystone is taken from has one, and gives it."""
    if owner.topology.identity.from_ is not None:
        raise here.refuse(name, f"it uses the Keystone of {owner.topology.identity.from_!r} itself: name that one")
    if KEYSTONE not in owner.topology.services:
        raise here.refuse(name, f"{owner.place.file} has no keystone under services: name a deployment that has one")
    if folder not in owner.topology.identity.to:
        names = ", ".join([*owner.topology.identity.to, folder])
        raise here.refuse(
            name, f"{owner.place.file} does not name this deployment: write `identity: {{to: [{names}]}}` there"
        )


def _keep_apart(topology: Topology, deployment: str, name: str, other: Sibling, place: Place) -> None:
    """What regions of one cloud may not have in common."""
    if deployment == other.deployment:
        raise place.at("deployment").refuse(
            deployment,
            f"{other.place.file} has this name too, and UUIDs and service users follow from it: choose another",
        )
    if topology.region == other.topology.region:
        raise place.at("region").refuse(
            topology.region, f"deployment {name!r} is this region in the catalog that they share: choose another name"
        )
    for network, one in topology.networks.items():
        for far, theirs in other.topology.networks.items():
            if ipaddress.IPv4Network(one.cidr).overlaps(ipaddress.IPv4Network(theirs.cidr)):
                right = f"overlaps network {far!r} of deployment {name!r} ({theirs.cidr}), which its zones must reach: choose another range"
                raise place.at("networks").at(network).at("cidr").refuse(one.cidr, right)


def with_own_users(known: Catalogue, deployment: str) -> Catalogue:
    """The catalogue with service users of this deployment's own: in a shared Keystone the region that has it has the plain names."""

    def renamed(service: Service) -> Service:
        if service.identity is None:
            return service
        return replace(service, identity=replace(service.identity, user=f"{service.identity.user}-{deployment}"))

    services = {name: renamed(service) for name, service in known.services.items()}
    components = {name: replace(one, merged=renamed(one.merged)) for name, one in known.components.items()}
    return replace(known, services=services, components=components)
