# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service is: the closed schema of ``services/<service>/service.yml``, and the catalogue of all services.

Templates (``{{ .. }}``) are only carried, never evaluated: they mean something in a zone, not here.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import (
    Absolute,
    Label,
    Mode,
    Name,
    Place,
    Port,
    at_least,
    decode,
    decode_dataclass,
    encode,
)

#: Words that a port's ``from`` knows beside services and components.
EVERYBODY = ("any", "hosts", "users", "zones")


# A key is one line.
# fmt: off
@dataclass(frozen=True)
class Volume:
    """A directory on the host that outlives the zone."""

    path: t.Annotated[Absolute, "Where the zone sees it"]
    owner: t.Annotated[str | None, "User of the image that owns it when it is made; root otherwise"] = None


@dataclass(frozen=True)
class ZoneSize:
    """What a zone may use, and how it lives."""

    memory: t.Annotated[int, "Memory in MiB", at_least(64, "MiB")] = 1024
    vcpus: t.Annotated[int, "Processors that daemons size themselves for", at_least(1)] = 2
    cpu_cap: t.Annotated[int, "CPU time in per cent of one core", at_least(1, "per cent of one core")] = 200
    quota: t.Annotated[int, "Disk in GiB", at_least(1, "GiB")] = 10
    privileged: t.Annotated[bool, "Whether root in the zone is root on its host; only for what cannot do without"] = False
    devices: t.Annotated[tuple[Absolute, ...], "Devices of the host that a privileged zone may use where the host has them, such as `/dev/kvm`"] = ()
    capabilities: t.Annotated[tuple[str, ...], "Capabilities that a privileged zone keeps, without `cap_`, or `all`"] = ()
    autostart: t.Annotated[bool, "Whether the zone starts with its host"] = True
    volumes: t.Annotated[dict[Label, Volume], "Data that outlives the zone, by name"] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """What is on the zone's root file system before anything is configured."""

    packages: t.Annotated[tuple[str, ...], "Distribution packages"] = ()
    python: t.Annotated[tuple[str, ...], "Python requirements for the virtualenv `/opt/<service>`, beside `services/_python.yml`; the lock pins them"] = ()
    user: t.Annotated[str | None, "System user that the daemons run as"] = None
    commands: t.Annotated[tuple[str, ...], "Shell commands that finish the image"] = ()
    files: t.Annotated[dict[Absolute, str], "Files by path, with their content"] = field(default_factory=dict)
    copies: t.Annotated[dict[Absolute, str], "Files by path, each a copy of the named file in the service's folder"] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseImage:
    """The image below every service's image, `services/_base.yml`."""

    suite: t.Annotated[str, "Debian suite"]
    packages: t.Annotated[tuple[str, ...], "Distribution packages"] = ()
    commands: t.Annotated[tuple[str, ...], "Shell commands that finish the image"] = ()
    files: t.Annotated[dict[Absolute, str], "Files by path, with their content"] = field(default_factory=dict)


@dataclass(frozen=True)
class PythonImage:
    """The image between the base and each image with Python packages, `services/_python.yml`: what most of them have in common."""

    packages: t.Annotated[tuple[str, ...], "Distribution packages"] = ()
    python: t.Annotated[tuple[str, ...], "Python requirements; the release's lock pins them"] = ()


@dataclass(frozen=True)
class Api:
    """An HTTP API: a front end of the load balancer with TLS, and an entry in the Keystone catalog."""

    type: t.Annotated[str, "Type in the catalog, such as `identity`"]
    port: t.Annotated[Port, "Port on both sides of the load balancer"]
    path: t.Annotated[str, "What follows the port in the catalog's URL"] = ""
    health: t.Annotated[str, "Path that answers 200 while the API serves"] = "/healthcheck"
    name: t.Annotated[str | None, "Name in the catalog; default the service's"] = None
    public: t.Annotated[bool, "Whether the external address serves it too"] = True


@dataclass(frozen=True)
class Listen:
    """A further front end of the load balancer."""

    port: t.Annotated[Port, "Port on both sides"]
    mode: t.Annotated[t.Literal["tcp", "http"], "How it is proxied"] = "tcp"
    sticky: t.Annotated[bool, "Whether all clients go to one member while it lives"] = False
    check_port: t.Annotated[Port | None, "Port of the health check, when it is not the port itself"] = None
    check_path: t.Annotated[str | None, "HTTP path of the health check; otherwise a TCP connection"] = None
    public: t.Annotated[bool, "Whether the external address serves it too"] = False
    from_: t.Annotated[tuple[str, ...], "Who may come in, as in `ports`; default `any` where it is public, `users` otherwise"] = ()
    idle: t.Annotated[int, "Seconds after which a connection on which nobody speaks is cut"] = 300


@dataclass(frozen=True)
class Opening:
    """A port that the zone's own firewall lets in."""

    port: t.Annotated[Port, "Port of the zone, or the first of several"]
    from_: t.Annotated[tuple[str, ...], "Services or components; or `users` (the services that need this one), `zones` (all of them), `hosts`, `any`"]
    last: t.Annotated[Port | None, "Last port, where there are several"] = None
    protocol: t.Annotated[t.Literal["tcp", "udp"], "Protocol"] = "tcp"


@dataclass(frozen=True)
class Identity:
    """A user that Keystone knows the service by."""

    user: t.Annotated[str, "Name of the user, in the project `service`"]
    roles: t.Annotated[tuple[str, ...], "Roles in that project"] = ("service",)


@dataclass(frozen=True)
class Directory:
    """A directory in the zone."""

    mode: t.Annotated[Mode, "Permission bits"] = "0755"
    owner: t.Annotated[str, "User"] = "root"
    group: t.Annotated[str, "Group"] = "root"


@dataclass(frozen=True)
class File:
    """A file in the zone: oslo options, a template, a text, a copy, or a repository of keys."""

    oslo: t.Annotated[tuple[str, ...] | None, "Layers of `services/_oslo.yml`, by name"] = None
    options: t.Annotated[dict[str, dict[str, t.Any]] | None, "oslo options by section, over the layers"] = None
    template: t.Annotated[str | None, "Name of a template in the service's folder, or of one that all services share"] = None
    content: t.Annotated[str | None, "The text itself"] = None
    file: t.Annotated[str | None, "Name of a file in the service's folder, taken as it is"] = None
    keys: t.Annotated[t.Any, "A list of keys; the path is a directory with one file for each"] = None
    mode: t.Annotated[Mode, "Permission bits"] = "0644"
    owner: t.Annotated[str, "User"] = "root"
    group: t.Annotated[str, "Group"] = "root"
    secret: t.Annotated[bool, "Whether the file is never shown, not even as a diff"] = False
    exact: t.Annotated[bool, "Whether no newline is put at the end of the text"] = False
    validate: t.Annotated[tuple[str, ...] | None, "Namespaces for oslo-config-validator"] = None
    check: t.Annotated[tuple[str, ...] | None, "Command that exits with 0 when the file at `{path}` is good; tried before anything is changed"] = None
    settings: t.Annotated[bool, "Whether it is Python, and `service_conf` and `zone_conf` add settings at its end: `{file name: {NAME: value}}`"] = False


@dataclass(frozen=True)
class Ready:
    """How to find out that a daemon serves."""

    tcp: t.Annotated[Port | None, "Port on the zone's address that accepts"] = None
    http: t.Annotated[str | None, "URL that answers 200"] = None
    ca: t.Annotated[Absolute | None, "File with the CA that the URL's certificate is checked against"] = None
    command: t.Annotated[tuple[str, ...] | None, "Command that exits with 0"] = None


@dataclass(frozen=True)
class Daemon:
    """A process that the zone's service manager keeps alive: WSGI application, command, or a packaged unit."""

    wsgi: t.Annotated[str | None, "`module:application`, served by uWSGI behind nginx"] = None
    command: t.Annotated[str | None, "Command line"] = None
    unit: t.Annotated[str | None, "Unit that a distribution package brings"] = None
    port: t.Annotated[Port | None, "Port on which a WSGI application is served"] = None
    workers: t.Annotated[int | None, "Processes of a WSGI application; default two for each of the zone's vcpus, one of a lazy application", at_least(1)] = None
    lazy: t.Annotated[bool, "Whether each process loads the WSGI application itself, because it holds threads or connections from its start"] = False
    max_body: t.Annotated[int, "Largest body of a request, in MiB; 0: any, handed on as it arrives, as tokens are checked first", at_least(0, "MiB")] = 1
    type: t.Annotated[t.Literal["simple", "exec", "forking", "notify", "oneshot"] | None, "systemd.service(5) Type="] = None
    user: t.Annotated[str | None, "User; default the image's"] = None
    reads: t.Annotated[tuple[Absolute, ...] | None, "Files and directories read at start: a change restarts the daemon"] = None
    static: t.Annotated[dict[Absolute, Absolute] | None, "Directories that nginx serves itself, by the path in their URLs; beside a WSGI application"] = None
    ready: t.Annotated[Ready | None, "How to find out that it serves"] = None
    environment: t.Annotated[dict[str, str] | None, "Environment variables"] = None
    limits: t.Annotated[dict[str, t.Any] | None, "Resource limits, `NOFILE: 65536` (systemd.exec(5) without `Limit`)"] = None
    after: t.Annotated[tuple[str, ...] | None, "Units that it starts after, as the zone's service manager names them"] = None
    drop_in: t.Annotated[tuple[str, ...] | None, "Further lines of the unit's [Service] section"] = None
    tls: t.Annotated[bool, "Whether it reads the zone's certificate"] = True
    clustered: t.Annotated[bool, "Whether it becomes ready only together with its peers"] = False
    unnoticed: t.Annotated[bool, "Whether a restart cuts nobody off, so that it has no turn to wait for"] = False
    reload: t.Annotated[bool, "Whether its unit's reload takes changed files (`ExecReload=`): that cuts nobody off, so it has no turn to wait for"] = False


@dataclass(frozen=True)
class Step:
    """A command that is done once its guard says so."""

    name: t.Annotated[str, "What it achieves, in the imperative"]
    run: t.Annotated[str, "Command, without a shell, run as the image's user in one zone for all"]
    unless: t.Annotated[str, "Command that exits with 0 when nothing is to be done"]
    timeout: t.Annotated[int, "Seconds that it may take", at_least(1, "s")] = 900


#: What one service does for all others.
_Function = t.Literal["load_balancer", "identity", "clients", "logs", "images", "dashboard"]
FUNCTIONS: tuple[str, ...] = t.get_args(_Function)

#: Where the data of a zone that goes is besides: nowhere (such a zone is not retired), on all other members, wherever a run makes it
#: anew, or nowhere while the host stays (a host that leaves is asked for it by the hook ``quiet``).
_Data = t.Literal["unique", "copied", "renewed", "moved"]

#: As soon as they are configured; once Keystone knows all services; or last.
_Phase = t.Literal["infrastructure", "control", "compute"]


@dataclass(frozen=True)
class Component:
    """What may differ between the components of one service; laid over the service's own."""

    slot: t.Annotated[int | None, "Its eight addresses in every host's block; unique over all services", at_least(1)] = None
    count: t.Annotated[int, "Zones in a deployment that does not say otherwise", at_least(1)] = 1
    quorum: t.Annotated[bool, "Whether members vote, so that their number must be odd"] = False
    function: t.Annotated[_Function | None, "What it does for all other zones, which then know it by this word and not by its name"] = None
    shrinks: t.Annotated[bool, "Whether a member that stops in order is no longer counted by those that vote"] = False
    data: t.Annotated[_Data, "Where the data on its volumes is besides: `unique`, `copied`, `renewed` or `moved`"] = "unique"
    certifies_members: t.Annotated[bool, "Whether a member's certificate has the addresses of all: some clients check the first one's name everywhere"] = False
    drain: t.Annotated[int | None, "Seconds for its connections to end before it stops; default 20 of HTTP, 0 of TCP", at_least(0, "s")] = None
    phase: t.Annotated[_Phase | None, "When its daemons start in a run; default `control` for what has an API, steps or a queue, or `infrastructure`"] = None
    networks: t.Annotated[tuple[Label, ...], "Networks beside `zone`"] = ()
    provider: t.Annotated[bool, "Whether the zone has an interface, without an address, in each of the cloud's provider networks"] = False
    zone: t.Annotated[ZoneSize, "What the zone may use"] = ZoneSize()
    image: t.Annotated[Image, "What the zone's image holds"] = Image()
    api: t.Annotated[Api | None, "The HTTP API that it serves"] = None
    listen: t.Annotated[dict[Name, Listen], "Further front ends of the load balancer, by name"] = field(default_factory=dict)
    ports: t.Annotated[dict[Name, Opening], "What the zone's firewall lets in, by name"] = field(default_factory=dict)
    directories: t.Annotated[dict[Absolute, Directory], "Directories by path"] = field(default_factory=dict)
    config: t.Annotated[dict[Absolute, File], "Files by path"] = field(default_factory=dict)
    daemons: t.Annotated[dict[str, Daemon], "Daemons by name, in the order in which they start"] = field(default_factory=dict)
    steps: t.Annotated[tuple[Step, ...], "Commands that bring the service up, in order"] = ()


@dataclass(frozen=True)
class Service(Component):
    """One service: `services/<service>/service.yml`."""

    description: t.Annotated[str, "One line"] = ""
    needs: t.Annotated[tuple[Name, ...], "Services that must be deployed too"] = ()
    database: t.Annotated[tuple[Name, ...], "Databases, each with a user of its name"] = ()
    queue: t.Annotated[bool, "Whether RabbitMQ holds a virtual host and a user of the service's name"] = False
    identity: t.Annotated[Identity | None, "User that Keystone knows the service by"] = None
    secrets: t.Annotated[
        dict[Name, t.Literal["password", "hex32", "fernet_keys", "erlang_cookie"]],
        "Further generated secrets, by name; `secrets.<service>.<name>` holds them",
    ] = field(default_factory=dict)
    components: t.Annotated[dict[Name, dict[str, t.Any]], "Parts in zones of their own, by name"] = field(default_factory=dict)
# fmt: on


@dataclass(frozen=True)
class Declared:
    """A component with everything that its service says laid under it, and where that stands.

    :param folders: those of its service; the first one that has a file provides it.
    :param hooks: paths of the service's task files, by name of the hook.
    """

    name: str
    service: str
    slot: int
    merged: Service
    place: Place
    folders: tuple[str, ...] = ()
    hooks: t.Mapping[str, str] = field(default_factory=dict)

    @property
    def drain(self) -> int:
        """Seconds that its connections get to end by themselves before a zone stops."""
        one = self.merged
        if one.drain is not None:
            return one.drain
        return 20 if one.api or any(listen.mode == "http" for listen in one.listen.values()) else 0

    def facts(self) -> dict[str, t.Any]:
        """What others have to know of it, deployed or not: its zones may be there although topology.yml has them no more."""
        one = self.merged
        keys = {"service": self.service, "function": one.function, "quorum": one.quorum, "shrinks": one.shrinks}
        return {**keys, "data": one.data, "drain": self.drain, "hooks": dict(self.hooks)}

    def variable(self) -> dict[str, t.Any]:
        """The noun ``service`` without what the topology adds: every key of the schema at the first level."""
        data: dict[str, t.Any] = {"api": None, "identity": None}
        data.update(encode(self.merged))
        one = self.merged
        serves = one.api or one.steps or one.queue
        data["drain"] = self.drain
        data.setdefault("phase", "control" if serves else "infrastructure")
        del data["components"]
        return data


@dataclass(frozen=True)
class Catalogue:
    """Every known service; ``layers`` are the files whose name begins with ``_``, by that name without it."""

    services: dict[str, Service]
    components: dict[str, Declared]
    places: dict[str, Place]
    layers: dict[str, dict[str, t.Any]]

    def of(self, service: str) -> list[Declared]:
        """The components of one service."""
        return [one for one in self.components.values() if one.service == service]


def _lay_over(under: t.Any, over: t.Any) -> t.Any:
    """Mappings merge key by key; anything else is replaced."""
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{key: _lay_over(under[key], item) if key in under else item for key, item in over.items()}}
    return over


def _check(component: Service, place: Place) -> None:
    """What a type cannot say."""
    for path, item in component.config.items():
        kinds = [kind for kind in ("template", "content", "file", "keys") if getattr(item, kind) is not None]
        if item.oslo is not None or item.options is not None:
            kinds.append("oslo/options")
        if len(kinds) != 1:
            right = "say what the file holds with exactly one of the known keys"
            raise (
                place.at("config")
                .at(path)
                .refuse(kinds, right, ["oslo/options", "template", "content", "file", "keys"])
            )
    for name, daemon in component.daemons.items():
        kinds = [kind for kind in ("wsgi", "command", "unit") if getattr(daemon, kind) is not None]
        if len(kinds) != 1:
            right = "say what the daemon is with exactly one of the known keys"
            raise place.at("daemons").at(name).refuse(kinds, right, ["wsgi", "command", "unit"])
        if daemon.wsgi and daemon.port is None:
            raise place.at("daemons").at(name).at("port").missing("a WSGI application needs a port")


def _declare(
    name: str, data: dict[str, t.Any], place: Place, further: t.Mapping[str, tuple[dict[str, t.Any], Place]]
) -> tuple[Service, list[Declared]]:
    """One file as a service and its components; ``further`` are those that stand in files of their own."""
    service = decode_dataclass(Service, data, place)
    for component in further:
        if component in service.components:
            right = f"{further[component][1].file} declares it too: keep one"
            raise place.at("components").at(component).refuse(component, right)
    service = replace(service, components={**service.components, **{key: item[0] for key, item in further.items()}})
    if not service.description:
        raise place.at("description").missing("write in one line what the service is")
    _check(service, place)
    if not service.components:
        if service.slot is None:
            raise place.at("slot").missing("the key is missing and has no default")
        return service, [Declared(name, name, service.slot, service, place)]
    if service.slot is not None:
        raise place.at("slot").refuse(service.slot, "set a slot in each component instead")
    shared = {key: item for key, item in data.items() if key != "components"}
    components = []
    for component, own in service.components.items():
        here = further[component][1] if component in further else place.at("components").at(component)
        if component == name:
            raise here.refuse(component, "use a name that is not the service's")
        if decode_dataclass(Component, own, here).slot is None:
            raise here.at("slot").missing("the key is missing and has no default")
        merged = decode_dataclass(Service, _lay_over(shared, own), here)
        _check(merged, here)
        components.append(Declared(component, name, t.cast("int", merged.slot), merged, here))
    return service, components


Declaration = tuple[dict[str, t.Any], Place]
"""What a file declares, and its path."""


def catalogue(
    files: t.Mapping[str, Declaration], parts: t.Mapping[str, t.Mapping[str, Declaration]] | None = None
) -> Catalogue:
    """All services, checked against one another.

    :param files: data and place of each service, by name, and of each layer, by its name with ``_`` before it.
    :param parts: those of components that stand in files of their own, by service and name.
    """
    result = Catalogue({}, {}, {}, {})
    slots: dict[int, Declared] = {}
    parts = parts or {}
    for name, (data, place) in files.items():
        if name.startswith("_"):
            result.layers[name[1:]] = data
            continue
        decode(Name, name, Place(place.file))
        service, components = _declare(name, data, place, parts.get(name, {}))
        result.services[name] = service
        result.places[name] = place
        for one in components:
            twin = result.components.get(one.name)
            if twin is not None or (one.name != name and one.name in files):
                other = twin.place.file if twin is not None else files[one.name][1].file
                raise one.place.refuse(one.name, f"the name is in use by {other}: choose another")
            result.components[one.name] = one
            if one.slot in slots:
                free = next(slot for slot in range(1, 10_000) if slot not in slots)
                other_place = slots[one.slot].place
                raise one.place.at("slot").refuse(
                    one.slot,
                    f"slot collision with {slots[one.slot].name!r} ({other_place.file}): slot {free} is the first free one",
                )
            slots[one.slot] = one
    for name, service in result.services.items():
        for index, need in enumerate(service.needs):
            if need not in result.services:
                raise result.places[name].at("needs").at(index).refuse(need, "name a service", result.services)
    peers = {*EVERYBODY, *result.services, *result.components}
    for one in result.components.values():
        open_to: dict[str, t.Mapping[str, Opening | Listen]] = {"ports": one.merged.ports, "listen": one.merged.listen}
        for key, declared in open_to.items():
            for port, opening in declared.items():
                for index, peer in enumerate(opening.from_):
                    if peer not in peers:
                        here = one.place.at(key).at(port).at("from").at(index)
                        raise here.refuse(
                            peer, "name a service or component, or users, zones, hosts, any", sorted(peers)
                        )
    return result
