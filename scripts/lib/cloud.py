# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment consists of, as far as the commands need it: read with the inventory plugin's own code."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployment import ROOT, Deployment, DeploymentError


@dataclass(frozen=True)
class Zone:
    """A zone and where it lives. ``address`` is None where its host is the machine that Ansible runs on."""

    name: str
    uuid: str
    host: str
    address: str | None
    user: str | None
    port: int | None
    backend: str


@dataclass(frozen=True)
class Cloud:
    """A deployment, computed from its topology."""

    deployment: str
    hosts: list[str]
    groups: dict[str, list[str]]
    """Zone names of every service and every component, in their order."""
    zones: dict[str, Zone]
    privileged: list[str]
    fleets: dict[str, list[str]]
    """Groups of zones of every host and every group of hosts, in Ansible's inventory."""
    endpoints: dict[str, str]
    """Public URL of each service with an API, and of what people open in a browser."""
    siblings: dict[str, Path] = field(default_factory=dict)
    """The ``secrets.yml`` of each deployment that shares a Keystone with this one."""
    password: Path = Path("secrets.yml")
    """The ``secrets.yml`` that has the administrator's password: that of the deployment whose Keystone it is."""

    def named(self, name: str) -> list[str]:
        """The zones that a name stands for: one, or those of a service or component; an error lists the choices."""
        if name in self.zones:
            return [name]
        if members := self.groups.get(name) or self.groups.get(name.replace("-", "_")):
            return members
        problem = f"there is no service or zone '{name}' in" if name else "name a zone or a service of"
        raise DeploymentError(
            f"{problem} deployment '{self.deployment}'.\n"
            f"services: {', '.join(sorted(self.groups))}\nzones: {', '.join(self.zones)}"
        )


def compute(topology: Path) -> Any:
    """The inventory's own ``Cloud``; a topology that is refused raises a DeploymentError with the plugin's message."""
    if str(ROOT / ".collections") not in sys.path:
        sys.path.insert(0, str(ROOT / ".collections"))
    from ansible_collections.zonestack.openstack.plugins.inventory.topology import read_cloud
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Refused

    try:
        return read_cloud(topology)
    except Refused as why:
        raise DeploymentError(str(why)) from None


def require_secrets_of_siblings(cloud: Cloud) -> None:
    """Refuse to go on without what zones are given of deployments that share a Keystone with this one."""
    for name, path in cloud.siblings.items():
        if not path.is_file():
            keys = "secrets.pki.ca_certificate" + (
                " and secrets.keystone.admin_password" if path == cloud.password else ""
            )
            raise DeploymentError(
                f"there is no {path}: zones must trust the CA of deployment '{name}', which shares a Keystone with this one (identity of "
                f"topology.yml).\nIf '{name}' is deployed from this machine, run scripts/deployment-secrets.py ensure --deployment {name}; otherwise copy {keys} from there, with mode 0600"
            )


def load(deployment: Deployment) -> Cloud:
    """What the commands need to know of a deployment."""
    computed = compute(deployment.topology)
    hosts = computed.topology.hosts
    zones = {}
    groups: dict[str, list[str]] = {}
    for component, members in computed.zones.items():
        groups[component] = [zone.name for zone in members]
        for zone in members:
            host = hosts[zone.host]
            address = None if host.connection == "local" else host.address
            zones[zone.name] = Zone(zone.name, zone.uuid, zone.host, address, host.user, host.port, host.backend)
    for service, components in computed.parents.items():
        groups[service] = [name for component in components for name in groups.get(component, [])]
    privileged = [
        name
        for component, service in computed.services.items()
        if service["zone"]["privileged"]
        for name in groups[component]
    ]
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.zones import (
        zones_group,  # compute() knows where it lies
    )

    members = {**computed.groups, **{name: [name] for name in hosts}}
    fleets = {name: [zones_group(host) for host in of] for name, of in members.items()}
    endpoints = {name: urls["public"] for name, urls in computed.stack["endpoint"].items()}
    for name, front in computed.stack["front_ends"].items():
        if front["mode"] == "http" and front["public"] and front["port"] == 443:
            endpoints[name] = f"https://{computed.stack['vip']['external']}/"
    identity = computed.stack["identity"]
    siblings = {name: Path(path) for name, path in identity["secrets"].items()}
    password = siblings.get(identity["from"], deployment.secrets)
    return Cloud(
        computed.stack["deployment"], list(hosts), groups, zones, privileged, fleets, endpoints, siblings, password
    )
