# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services of a deployment: the noun ``service`` of each component, front ends, URLs and images."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import (
    Lock,
    base_image,
    python_image,
    service_image,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, encode
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Api, Catalogue, Declared, Listen
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology import nouns
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.placement import Placed

#: Seconds after which the load balancer closes an idle connection of an API.
API_IDLE = 300


def service_noun(placed: Placed, image: str) -> dict[str, t.Any]:
    """The noun of a component, as Ansible gets it. ``image`` is the image's id."""
    component = placed.component
    declared = component.variable()
    noun = nouns.Service(
        name=component.service,
        component=component.name,
        zone=dataclasses.replace(component.merged.zone, **placed.size),
        image=nouns.ServiceImage(**vars(component.merged.image), id=image),
        phase=declared["phase"],
        folders=component.folders,
        hooks=dict(component.hooks),
    )
    return {**declared, **encode(noun)}


def front_ends_of(placed: t.Sequence[Placed]) -> dict[str, nouns.FrontEnd]:
    """What the load balancer listens on, by name.

    :raises Refused: when two share a port, or one has a port of the load balancer's own.
    """
    balancers = [one.component for one in placed if one.component.merged.function == "load_balancer"]
    ports = {opening.port: f"{one.name} {name}" for one in balancers for name, opening in one.merged.ports.items()}
    found: dict[str, nouns.FrontEnd] = {}
    for one in placed:
        component = one.component
        for key, (name, place, front) in _front_ends(component).items():
            if front.port in ports:
                right = f"{ports[front.port]} has this port on the load balancer: choose another"
                raise place.at("port").refuse(front.port, right)
            ports[front.port] = f"{component.name} {key}"
            found[name] = front
    return found


def _front_ends(component: Declared) -> dict[str, tuple[str, Place, nouns.FrontEnd]]:
    """A component's own: by what it is called in the declaration, each with its name and where it stands."""
    here, merged = component.place, component.merged
    found = {
        name: (name, here.at("listen").at(name), _of_listen(component, listen))
        for name, listen in merged.listen.items()
    }
    if merged.api is not None:
        found["api"] = (component.name, here.at("api"), _of_api(component, merged.api))
    return found


def _of_api(component: Declared, api: Api) -> nouns.FrontEnd:
    return nouns.FrontEnd(
        service=component.service,
        component=component.name,
        type=api.type,
        port=api.port,
        mode="http",
        health=api.health or "/",
        check_port=api.port,
        sticky=False,
        idle=API_IDLE,
        public=api.public,
        from_=("any",),
    )


def _of_listen(component: Declared, listen: Listen) -> nouns.FrontEnd:
    return nouns.FrontEnd(
        service=component.service,
        component=component.name,
        type=None,
        port=listen.port,
        mode=listen.mode,
        health=listen.check_path,
        check_port=listen.check_port or listen.port,
        sticky=listen.sticky,
        idle=listen.idle,
        public=listen.public,
        from_=listen.from_,
    )


def endpoints(placed: t.Sequence[Placed], vip: nouns.Entry) -> dict[str, nouns.Urls]:
    """URLs of every API by its service, a service's second API by its component. All are https: the load balancer's."""
    urls: dict[str, nouns.Urls] = {}
    for one in placed:
        api = one.component.merged.api
        if api is None:
            continue
        name = one.component.name if one.component.service in urls else one.component.service
        internal = f"https://{vip.internal}:{api.port}{api.path}"
        public = f"https://{vip.external}:{api.port}{api.path}" if api.public else internal
        urls[name] = nouns.Urls(public, internal, internal)
    return urls


def services_of(placed: t.Sequence[Placed], known: Catalogue) -> dict[str, nouns.DeployedService]:
    """What every other service needs to know of one; ``api`` and ``listen`` also by component, which serves them."""
    parts: dict[str, dict[str, nouns.Part]] = {}
    for one in placed:
        merged = one.component.merged
        parts.setdefault(one.component.service, {})[one.component.name] = nouns.Part(
            merged.api, merged.listen, merged.ports
        )
    found = {}
    for name, components in parts.items():
        service = known.services[name]
        serving = next((one for one, part in components.items() if part.api), next(iter(components)))
        found[name] = nouns.DeployedService(
            description=service.description,
            component=serving,
            api=components[serving].api,
            listen={key: item for part in components.values() for key, item in part.listen.items()},
            database=service.database,
            queue=service.queue,
            identity=service.identity,
            secrets=dict(service.secrets),
            components=components,
        )
    return found


def images_of(
    placed: t.Sequence[Placed], known: Catalogue, lock: Lock, certificates: t.Mapping[str, str], base: Place
) -> tuple[dict[str, nouns.StackImage], dict[str, str]]:
    """The images that the deployment needs by id, and each component's image."""
    if "base" not in known.layers:
        raise base.missing("the file is missing: it declares the image below all others")
    parent, entry = base_image(known.layers["base"], base, certificates)
    images, used, parents = {parent: nouns.StackImage(**entry)}, {}, {False: parent}
    if any(one.component.merged.image.python for one in placed):
        place = Place(base.file.replace("_base.yml", "_python.yml"))
        parents[True], entry = python_image(known.layers.get("python", {}), place, parent, lock)
        images[parents[True]] = nouns.StackImage(**entry)
    for one in placed:
        made = service_image(one.component, parents, lock)
        if made is not None:
            images[made[0]] = nouns.StackImage(**made[1])
        used[one.component.name] = parent if made is None else made[0]
    return images, used
