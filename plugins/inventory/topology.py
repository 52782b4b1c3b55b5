# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: topology
short_description: A deployment's hosts and zones, computed from topology.yml
version_added: 0.1.0
author: the zonestack authors (@zonestack)
description:
  - Reads C(inventory/<deployment>/topology.yml) and the declarations C(services/*.yml), and computes every host, zone, group,
    name, UUID, MAC address and address. Nothing is stored; the same files give the same inventory everywhere.
  - Every zone has the variable C(zone) (where it is), each component's group C(service) (what it is), and all hosts
    C(stack) (who the others are). A physical host has the variable C(host).
  - C(docs/reference/topology.md) lists the keys of C(topology.yml). Anything that it does not list, or that does not fit, is refused.
  - The collection's own C(group_vars/<group>.yml) are loaded too; C(group_vars/) beside C(topology.yml) outrank them.
options:
  services_path:
    description:
      - Folders with further service files, beside the collection's C(services/) and the deployment's own C(services/).
        A file replaces the one of the same name in an earlier folder.
      - The key C(services_path) of C(topology.yml) adds folders after these.
    type: list
    elements: path
    default: []
    env:
      - name: ZONESTACK_SERVICES_PATH
"""

EXAMPLES = r"""
plugin: zonestack.openstack.topology
release: "2026.2"
networks:
  zone: {cidr: 10.77.0.0/21}
hosts:
  aio1: {id: 1, connection: local}
services:
  galera: {count: 3}
  memcached:
  haproxy:
  keystone: {memory: 2048}
"""

import contextlib
import gc
import os
import typing as t
from pathlib import Path

from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.inventory.host import Host
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.zonestack.openstack.plugins.plugin_utils.images import Lock, file_reference
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, Refused, read_yaml
from ansible_collections.zonestack.openstack.plugins.plugin_utils.service_folders import read_services
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import FUNCTIONS
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.compute import Cloud, compute
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.hosts import repo_zones
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.regions import Sibling, named
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import (
    CONNECTIONS,
    INTERPRETERS,
    Topology,
    decode_topology,
    name_of,
    way_in,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.zones import zones_group

COLLECTION = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def collector_paused() -> t.Iterator[None]:
    """Hold Python's cycle collector back: nothing that is made meanwhile is garbage, and of a large cloud it would walk all of it each
    time that a quarter has been added."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def shown(path: Path) -> str:
    """A path as a message shows it: relative where it lies below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def service_folders(
    deployment: Path, further: t.Iterable[str], own: t.Iterable[str], place: Place
) -> list[tuple[Path, str]]:
    """The folders that hold service files, the one that outranks all others last.

    :param further: folders from the plugin's option, relative to the working directory.
    :param own: ``services_path`` of the topology, relative to the deployment's folder.
    """
    folders = [COLLECTION / "services", deployment / "services", *(Path(path).absolute() for path in further if path)]
    for index, path in enumerate(own):
        folder = deployment / Path(path).expanduser()
        if not folder.is_dir():
            raise place.at("services_path").at(index).refuse(path, "no such folder: name one, relative to this file")
        folders.append(folder)
    return [(folder, shown(folder)) for folder in folders]


def read_lock(release: str, place: Place) -> Lock:
    """The lock of a release; in recipes a look-up stands for its text."""
    path = COLLECTION / "locks" / f"{release}.txt"
    if not path.is_file():
        known = sorted(one.stem for one in (COLLECTION / "locks").glob("[0-9]*.txt"))
        raise place.at("release").refuse(release, f"there is no {shown(path)}: choose a release that has a lock", known)
    return Lock(shown(path), path.read_text(encoding="utf-8"), file_reference(str(path)))


def read_certificates(folder: Path) -> dict[str, str]:
    """Further CA certificates of a deployment: file name to PEM text."""
    found = {}
    for path in sorted(folder.glob("*.crt")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise Place(shown(path)).missing(
                "this is not a PEM certificate (-----BEGIN CERTIFICATE-----): convert it with openssl x509"
            )
        found[path.name] = text
    return found


def read_siblings(folder: Path, topology: Topology, place: Place) -> dict[str, Sibling]:
    """The deployments that share a Keystone with this one, by their folders beside its own; see plugin_utils/topology/regions.py.

    Of the others only what they say is read, nothing is computed: each may name this one.
    """
    found: dict[str, Sibling] = {}
    here = place.at("identity").at("from" if topology.identity.from_ else "to")
    wanted = list(named(topology))
    for name in wanted:
        path = folder.parent / name / "topology.yml"
        known = sorted(
            one.parent.name for one in folder.parent.glob("*/topology.yml") if one.parent.name != folder.name
        )
        if name == folder.name:
            raise here.refuse(name, "that is this deployment itself: name another", known)
        if not path.is_file():
            raise here.refuse(name, f"there is no {shown(path)}: name a deployment's folder", known)
        other = Place(shown(path))
        said = decode_topology(read_yaml(path, other.file), other)
        if "zone" not in said.networks:
            raise other.at("networks").missing(
                "network 'zone' is missing: every zone has an address on it", said.networks
            )
        services = read_services(service_folders(path.parent, (), said.services_path, other))
        found[name] = Sibling(
            said,
            name_of(said, name, other),
            services,
            other,
            way_in(said),
            str((path.parent / "secrets.yml").absolute()),
        )
        if topology.identity.from_ == name:  # and those that share it as well
            wanted += [
                one
                for one in said.identity.to
                if one not in (folder.name, *wanted) and (folder.parent / one / "topology.yml").is_file()
            ]
    return found


@collector_paused()
def read_cloud(path: Path, further: t.Iterable[str] = ()) -> Cloud:
    """All that ``path`` (a ``topology.yml``) and the services say."""
    place = Place(shown(path))
    topology: Topology = decode_topology(read_yaml(path, place.file), place)
    known = read_services(service_folders(path.parent, further, topology.services_path, place))
    return compute(
        topology,
        known,
        read_lock(topology.release, place),
        deployment=path.parent.name,
        place=place,
        base=Place(shown(COLLECTION / "services" / "_base.yml")),
        certificates=read_certificates(path.parent / "ca-certificates"),
        siblings=read_siblings(path.parent, topology, place),
    )


class InventoryModule(BaseInventoryPlugin):
    """Reads, calls :func:`compute`, hands over."""

    NAME = "zonestack.openstack.topology"

    # Service files are the deployment's own, and their templates are meant: without this `{{ .. }}` would be written
    # into a configuration as it stands.
    trusted_by_default = True

    def verify_file(self, path: str) -> bool:
        """By name alone, so that a file that cannot be read is reported by :meth:`parse`, with its cause."""
        return os.path.basename(path) in ("topology.yml", "topology.yaml")

    @collector_paused()
    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Fill the inventory from ``path``."""
        super().parse(inventory, loader, path, cache)
        self.set_options()
        self.folder = Path(path).parent
        try:
            cloud = read_cloud(Path(path), self.get_option("services_path"))
        except Refused as refused:
            raise AnsibleParserError(str(refused)) from None
        self._add_hosts(cloud)
        self._add_zones(cloud)
        self._set_stack(cloud)
        self._load_group_vars()
        self._check_group_vars(cloud.declared)

    def _group(self, name: str, variables: t.Mapping[str, t.Any] | None = None, parent: str | None = None) -> None:
        self.inventory.add_group(name)
        for key, value in (variables or {}).items():
            self.inventory.set_variable(name, key, value)
        if parent:
            self.inventory.add_child(parent, name)

    def _add_hosts(self, cloud: Cloud) -> None:
        self._group("zone_hosts")
        for backend in CONNECTIONS:
            self._group(f"{backend}_hosts", {"ansible_python_interpreter": INTERPRETERS[backend]}, "zone_hosts")
        self._group("linked_hosts")
        self._group("image_fetchers")
        # Of a host that is to go only scripts/remove-host.sh knows: no play of a run is for its group.
        self._group("leaving_hosts")
        present = {name: (host, cloud.hosts[name]) for name, host in cloud.topology.hosts.items()}
        for name, (host, noun) in {**present, **cloud.leaving}.items():
            self.inventory.add_host(name, group="leaving_hosts" if name in cloud.leaving else f"{host.backend}_hosts")
            if name in present and "links" in noun:
                self.inventory.add_host(name, group="linked_hosts")
            if name in present and noun.get("origins"):
                self.inventory.add_host(name, group="image_fetchers")
            self.inventory.set_variable(name, "host", noun)
            reach = {
                "ansible_connection": host.connection if host.connection == "local" else None,
                "ansible_host": host.address,
                "ansible_user": host.user,
                "ansible_port": host.port,
                "ansible_python_interpreter": INTERPRETERS[host.backend] if name in cloud.leaving else None,
            }
            for key, value in reach.items():
                if value is not None:
                    self.inventory.set_variable(name, key, value)
        for group, members in cloud.groups.items():
            self._group(group)
            for name in members:
                self.inventory.add_child(group, name)

    def _add_zones(self, cloud: Cloud) -> None:
        self._group("zones", {"ansible_python_interpreter": "/usr/bin/python3"})
        for name, host in cloud.topology.hosts.items():
            reach = {
                "ansible_connection": CONNECTIONS[host.backend],
                "ansible_host": host.address or name,
                "ansible_user": host.user,
                "ansible_port": host.port,
                "zone_transport": host.connection,
            }
            self._group(zones_group(name), {key: value for key, value in reach.items() if value is not None})
        # Zones do not go through the inventory's add_host and set_variable. A large cloud has 40,000 of them, and those
        # look at the source's folder on disk for each host, and walk each value to mark templates, of which a zone has
        # none: twice the time of everything else together.
        source = {"inventory_file": self.inventory.current_source, "inventory_dir": str(self.folder)}
        hosts, groups = self.inventory.hosts, self.inventory.groups
        for component, zones in cloud.zones.items():
            self._group(component, {"service": cloud.services[component]})
            for zone in zones:
                hosts[zone.name] = host = Host(zone.name)
                host.vars = {**source, "zone": zone.variable()}
                if cloud.topology.hosts[zone.host].backend == "smartos":
                    host.vars["zone_name"] = zone.uuid  # the only name that zlogin knows
                groups[component].add_host(host)
                groups[zones_group(zone.host)].add_host(host)
        for service, components in cloud.parents.items():
            self._group(service, parent="zones")
            for component in components:
                self.inventory.add_child(service, component)
        children = {component for components in cloud.parents.values() for component in components}
        for component in cloud.zones:
            if component not in children:
                self.inventory.add_child("zones", component)
        # The zone with images that is made before the others, because the hosts of those fetch their images from it.
        self._group("image_servers", parent="zones")
        fetchers = groups["image_fetchers"].hosts
        if fetchers:
            for zone in repo_zones(cloud.topology, cloud.services, cloud.zones):
                if cloud.hosts[zone.host].get("origins") == []:
                    groups["image_servers"].add_host(hosts[zone.name])
        self._group_by_declaration(cloud)

    def _group_by_declaration(self, cloud: Cloud) -> None:
        """Groups of components by what they declare: a hook, steps, a function, a phase. Each is there, also where nobody is in it."""
        services = cloud.services.items()
        of_zones: dict[str, list[str]] = {
            # Components that bring a task file for what comes once their daemons run; see HOOKS in plugin_utils/service_folders.py.
            "hook_prepare": [name for name, one in services if "prepare" in one["hooks"]],
            "zones_with_steps": [name for name, one in services if one["steps"]],
            # The run itself fills these two: one zone of each host, and the zones that must stop for a change.
            "zones_first": [],
            "zones_stale": [],
            "openstack_services": [name for name, one in services if one["phase"] == "control"],
            "hypervisors": [name for name, one in services if one["phase"] == "compute"],
        }
        # Who does something for all others is found by what it does, not by its name.
        functions = {
            f"function_{function}": [name for name, one in services if one.get("function") == function]
            for function in FUNCTIONS
        }
        for group, components in (of_zones | functions).items():
            self._group(group, parent="zones" if group in of_zones else None)
            for component in components:
                self.inventory.add_child(group, component)

    def _set_stack(self, cloud: Cloud) -> None:
        bulk = {key: cloud.stack[key] for key in ("hosts", "members")}
        self.inventory.set_variable(
            "all", "stack", {key: value for key, value in cloud.stack.items() if key not in bulk}
        )
        self.inventory.groups["all"].vars["stack"].update(bulk)  # no templates in it, see above

    def _load_group_vars(self) -> None:
        """The collection's defaults. Ansible lays ``group_vars/`` of the deployment over them afterwards.

        Ansible itself would read them only beside a playbook, where they would outrank the deployment's.
        """
        folder = str(COLLECTION / "group_vars")
        for group in list(self.inventory.groups):
            for file in self.loader.find_vars_files(folder, group):
                for key, value in (self.loader.load_from_file(file, trusted_as_template=True) or {}).items():
                    self.inventory.set_variable(group, key, value)

    def _check_group_vars(self, declared: t.Collection[str]) -> None:
        """Variables of a group that there is not would be ignored, and with them what the deployment's owner wanted."""
        known = sorted({*self.inventory.groups, *declared})
        for path in sorted((self.folder / "group_vars").glob("*")):
            group = path.name.removesuffix(path.suffix) if path.suffix in (".yml", ".yaml", ".json") else path.name
            if group not in known and not group.startswith(".") and not group.endswith("~"):
                raise AnsibleParserError(
                    str(Place(shown(path)).refuse(group, "no such group, so no zone would read this file", known))
                )
