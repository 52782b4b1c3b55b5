# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Keystone holds for a deployment: regions, roles, projects, users, services and endpoints, read, compared and written.

API: https://docs.openstack.org/api-ref/identity/v3/.
"""

from __future__ import annotations

import typing as t
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import (
    ApiError,
    JsonApi,
    Reply,
    wait_until_ready,
)

INTERFACES = ("public", "internal", "admin")
Json = dict[str, t.Any]


@dataclass(frozen=True)
class Wanted:
    """The parameters of the module identity_registry, checked and completed."""

    region: str
    domain: str
    services: tuple[Json, ...]
    projects: tuple[str, ...]
    roles: tuple[str, ...]
    users: tuple[Json, ...]

    @classmethod
    def from_params(cls, params: t.Mapping[str, t.Any]) -> Wanted:
        """Refuse what contradicts itself (``ValueError``), and add what users need."""
        users = tuple({**user, "domain": user["domain"] or params["domain"]} for user in params["users"])
        for kind, key in (("services", "type"), ("users", "name")):
            seen: set[str] = set()
            for number, entry in enumerate(params[kind]):
                if entry[key] in seen:
                    raise ValueError(f"{kind}[{number}].{key}: {entry[key]!r} is named more than once")
                seen.add(entry[key])
        for number, service in enumerate(params["services"]):
            for interface, url in service["endpoints"].items():
                if interface not in INTERFACES:
                    raise ValueError(
                        f"services[{number}].endpoints: unknown interface {interface!r} (known: {', '.join(INTERFACES)})"
                    )
                if not str(url).startswith(("http://", "https://")):
                    raise ValueError(
                        f"services[{number}].endpoints.{interface}: {url!r} is not an http or https address"
                    )
        return cls(
            region=params["region"],
            domain=params["domain"],
            services=tuple(params["services"]),
            projects=tuple(sorted({*params["projects"], *(user["project"] for user in users)})),
            roles=tuple(sorted({*params["roles"], *(role for user in users for role in user["roles"])})),
            users=users,
        )


@dataclass
class UserState:
    """What Keystone holds of one user. ``roles`` are those it has in its project, by name."""

    id: str
    password_right: bool = True
    enabled: bool = True
    roles: frozenset[str] = frozenset()


@dataclass
class Registry:
    """What Keystone holds of the things that are asked for; ids by name."""

    regions: set[str] = field(default_factory=set)
    roles: dict[str, str] = field(default_factory=dict)
    projects: dict[str, str] = field(default_factory=dict)
    users: dict[str, UserState] = field(default_factory=dict)
    services: dict[str, Json] = field(default_factory=dict)  # by type
    endpoints: list[Json] = field(default_factory=list)


@dataclass(frozen=True)
class Action:
    """One request that changes something; ``creates`` names where in the registry the new id belongs."""

    label: str
    method: str
    path: str
    body: Json | None = None
    creates: tuple[str, str] | None = None


# --- reading -----------------------------------------------------------------------------------------------------


def authenticate(api: JsonApi, name: str, password: str, domain: str, scope: Json | None) -> Reply | None:
    """Ask for a token; ``None`` when it is refused."""
    identity = {
        "methods": ["password"],
        "password": {"user": {"name": name, "domain": {"id": domain}, "password": password}},
    }
    body: Json = {"auth": {"identity": identity}}
    body["auth"]["scope"] = scope or "unscoped"
    reply = api.call("POST", "/auth/tokens", body, accept=[401])
    return None if reply.status == 401 else reply


def project_scope(name: str, domain: str) -> Json:
    return {"project": {"name": name, "domain": {"id": domain}}}


def log_in(api: JsonApi, auth: t.Mapping[str, str]) -> str:
    """The administrator's token."""
    scope = project_scope(auth["project"], auth["project_domain"])
    reply = authenticate(api, auth["username"], auth["password"], auth["user_domain"], scope)
    if reply is None:
        raise ApiError(
            f"{api.url} refuses the password of {auth['username']} in project {auth['project']}: is Keystone bootstrapped "
            "(module keystone_bootstrap), and with this deployment's secrets?"
        )
    return str(reply.headers["x-subject-token"])


def query(path: str, **filters: str) -> str:
    return f"{path}?{urllib.parse.urlencode(filters)}"


def read_user(api: JsonApi, plain: JsonApi, user: Json, domain: str) -> UserState | None:
    """State of one user. The normal case is one request: a token for the project tells user and roles at once.

    :param plain: the API without the administrator's token, to log in as the user.
    """
    scope = project_scope(user["project"], domain)
    reply = authenticate(plain, user["name"], user["password"], user["domain"], scope)
    if reply is not None:
        token = reply.body["token"]
        return UserState(token["user"]["id"], roles=frozenset(role["name"] for role in token["roles"]))
    found = api.call("GET", query("/users", name=user["name"], domain_id=user["domain"])).body["users"]
    if not found:
        return None
    held = UserState(found[0]["id"], enabled=found[0].get("enabled", True))
    held.password_right = authenticate(plain, user["name"], user["password"], user["domain"], None) is not None
    projects = api.call("GET", query("/projects", name=user["project"], domain_id=domain)).body["projects"]
    if projects:
        path = query(
            "/role_assignments", **{"user.id": held.id, "scope.project.id": projects[0]["id"], "include_names": "true"}
        )
        held.roles = frozenset(entry["role"]["name"] for entry in api.call("GET", path).body["role_assignments"])
    return held


def read_registry(api: JsonApi, plain: JsonApi, wanted: Wanted, pool: ThreadPoolExecutor) -> Registry:
    """Read all that is asked for, in parallel; projects and users by name, since a cloud may have many thousands."""
    lists = {kind: pool.submit(api.call, "GET", f"/{kind}") for kind in ("regions", "roles", "services", "endpoints")}
    projects = {
        name: pool.submit(api.call, "GET", query("/projects", name=name, domain_id=wanted.domain))
        for name in wanted.projects
    }
    users = {user["name"]: pool.submit(read_user, api, plain, user, wanted.domain) for user in wanted.users}
    registry = Registry(
        regions={region["id"] for region in lists["regions"].result().body["regions"]},
        roles={
            role["name"]: role["id"] for role in lists["roles"].result().body["roles"] if role.get("domain_id") is None
        },
        projects={
            name: found[0]["id"] for name, reply in projects.items() if (found := reply.result().body["projects"])
        },
        users={name: state for name, reply in users.items() if (state := reply.result()) is not None},
        endpoints=lists["endpoints"].result().body["endpoints"],
    )
    for service in lists["services"].result().body["services"]:
        wish = next((wish for wish in wanted.services if wish["type"] == service["type"]), None)
        # Of several services of one type the one with the right name is ours.
        if wish and (service["type"] not in registry.services or service.get("name") == wish["name"]):
            registry.services[service["type"]] = service
    return registry


# --- deciding ----------------------------------------------------------------------------------------------------


def plan_objects(registry: Registry, wanted: Wanted) -> list[Action]:
    """Everything that stands on its own: regions, roles, projects, users, services."""
    actions = []
    if wanted.region not in registry.regions:
        body: Json = {"region": {"id": wanted.region}}
        actions.append(Action(f"create region {wanted.region}", "POST", "/regions", body, ("regions", wanted.region)))
    for role in wanted.roles:
        if role not in registry.roles:
            actions.append(Action(f"create role {role}", "POST", "/roles", {"role": {"name": role}}, ("roles", role)))
    for project in wanted.projects:
        if project not in registry.projects:
            body = {"project": {"name": project, "domain_id": wanted.domain}}
            actions.append(Action(f"create project {project}", "POST", "/projects", body, ("projects", project)))
    for user in wanted.users:
        held = registry.users.get(user["name"])
        if held is None:
            body = {"user": {"name": user["name"], "password": user["password"], "domain_id": user["domain"]}}
            actions.append(Action(f"create user {user['name']}", "POST", "/users", body, ("users", user["name"])))
        else:
            changes: Json = {} if held.enabled else {"enabled": True}
            # The password of a disabled user cannot be tried, so it is written along.
            if not (held.password_right and held.enabled):
                changes["password"] = user["password"]
            if changes:
                label = f"change {' and '.join(sorted(changes))} of user {user['name']}"
                actions.append(Action(label, "PATCH", f"/users/{held.id}", {"user": changes}))
    for wish in wanted.services:
        fields = {"name": wish["name"], "type": wish["type"], "description": wish["description"], "enabled": True}
        service = registry.services.get(wish["type"])
        if service is None:
            label = f"create service {wish['name']}"
            actions.append(Action(label, "POST", "/services", {"service": fields}, ("services", wish["type"])))
        else:
            changes = {key: value for key, value in fields.items() if service_field(service, key) != value}
            if changes:
                label = f"change {', '.join(sorted(changes))} of service {wish['name']}"
                actions.append(Action(label, "PATCH", f"/services/{service['id']}", {"service": changes}))
    return actions


def service_field(service: Json, key: str) -> t.Any:
    """A service's field; Keystone leaves out a name or description that was never given."""
    return service.get(key, {"enabled": True}.get(key, ""))


def plan_links(registry: Registry, wanted: Wanted) -> list[Action]:
    """What needs the ids of other objects: endpoints and role assignments."""
    actions = []
    for wish in wanted.services:
        service_id = registry.services[wish["type"]]["id"]
        for interface in INTERFACES:
            url = wish["endpoints"].get(interface)
            held = endpoints_of(registry, service_id, interface, wanted.region)
            label = f"{interface} endpoint of {wish['name']}"
            keep = None
            if url is not None:
                keep = next((entry for entry in held if entry["url"] == url), held[0] if held else None)
                fields = {"url": url, "enabled": True}
                if keep is None:
                    body = {"service_id": service_id, "interface": interface, "region_id": wanted.region, **fields}
                    actions.append(Action(f"create {label}", "POST", "/endpoints", {"endpoint": body}))
                elif any(keep.get(key, True) != value for key, value in fields.items()):
                    actions.append(Action(f"change {label}", "PATCH", f"/endpoints/{keep['id']}", {"endpoint": fields}))
            for entry in held:
                if entry is not keep:
                    what = "unwanted" if url is None else "duplicate"
                    actions.append(Action(f"remove {what} {label}", "DELETE", f"/endpoints/{entry['id']}"))
    for user in wanted.users:
        state, project_id = registry.users[user["name"]], registry.projects[user["project"]]
        for role in sorted(set(user["roles"]) - state.roles):
            path = f"/projects/{project_id}/users/{state.id}/roles/{registry.roles[role]}"
            actions.append(Action(f"give {user['name']} the role {role} in {user['project']}", "PUT", path))
    return actions


def endpoints_of(registry: Registry, service_id: str, interface: str, region: str) -> list[Json]:
    """Endpoints of one service and interface in one region, in a stable order."""
    return sorted(
        (
            entry
            for entry in registry.endpoints
            if entry["service_id"] == service_id
            and entry["interface"] == interface
            and entry.get("region_id") == region
        ),
        key=lambda entry: str(entry["id"]),
    )


def enter(registry: Registry, kind: str, key: str, made: Json) -> None:
    """Note a created object, so that what depends on it finds its id."""
    if kind == "regions":
        registry.regions.add(key)
    elif kind == "users":
        registry.users[key] = UserState(made["id"])
    elif kind == "services":
        registry.services[key] = made
    else:
        getattr(registry, kind)[key] = made["id"]


# --- doing -------------------------------------------------------------------------------------------------------


def apply(api: JsonApi, actions: t.Sequence[Action], registry: Registry, pool: ThreadPoolExecutor, dry: bool) -> None:
    """Carry the actions out side by side and enter the new ids; ``dry`` enters placeholders and sends nothing.

    All are waited for before the first error is raised, so that none is still on its way when the module ends.
    """

    def one(action: Action) -> Json:
        if dry:
            return {"id": f"(new {action.label})"}
        return next(
            iter((api.call(action.method, action.path, action.body, accept=accepted(action)).body or {"": {}}).values())
        )

    running = [pool.submit(one, action) for action in actions]
    for reply in running:
        reply.exception()
    for action, reply in zip(actions, running, strict=True):
        made = reply.result()
        if action.creates:
            enter(registry, *action.creates, made)


def accepted(action: Action) -> tuple[int, ...]:
    """What is already gone need not be removed."""
    return (404,) if action.method == "DELETE" else ()


def shown_now(registry: Registry, wanted: Wanted) -> Json:
    """The diff's left side: what is held of the things that are asked for."""
    services: Json = {}
    for wish in wanted.services:
        service = registry.services.get(wish["type"])
        if service is None:
            continue
        urls = {
            interface: [
                entry["url"] if entry.get("enabled", True) else f"{entry['url']} (disabled)"
                for entry in endpoints_of(registry, service["id"], interface, wanted.region)
            ]
            for interface in INTERFACES
        }
        services[wish["type"]] = {
            **{key: service_field(service, key) for key in ("name", "description", "enabled")},
            "endpoints": {interface: held for interface, held in urls.items() if held},
        }
    users = {
        user["name"]: {
            "password": "as wanted" if held.password_right and held.enabled else "another one",
            "enabled": held.enabled,
            "project": user["project"],
            "roles": sorted(held.roles & set(user["roles"])),
        }
        for user in wanted.users
        if (held := registry.users.get(user["name"]))
    }
    return {
        "region": [wanted.region] if wanted.region in registry.regions else [],
        "roles": [role for role in wanted.roles if role in registry.roles],
        "projects": [project for project in wanted.projects if project in registry.projects],
        "services": services,
        "users": users,
    }


def shown_wanted(wanted: Wanted) -> Json:
    """The diff's right side."""
    return {
        "region": [wanted.region],
        "roles": list(wanted.roles),
        "projects": list(wanted.projects),
        "services": {
            wish["type"]: {
                "name": wish["name"],
                "description": wish["description"],
                "enabled": True,
                "endpoints": {
                    name: [wish["endpoints"][name]] for name in INTERFACES if wish["endpoints"].get(name) is not None
                },
            }
            for wish in wanted.services
        },
        "users": {
            user["name"]: {
                "password": "as wanted",
                "enabled": True,
                "project": user["project"],
                "roles": sorted(set(user["roles"])),
            }
            for user in wanted.users
        },
    }


def register(params: t.Mapping[str, t.Any], dry: bool) -> Json:
    """The whole call: read, plan, apply; what ``exit_json`` takes."""
    wanted = Wanted.from_params(params)
    plain = JsonApi(params["auth"]["url"], ca=params["ca"])
    token = wait_until_ready(lambda: log_in(plain, params["auth"]), params["wait"])
    api = JsonApi(params["auth"]["url"], ca=params["ca"], headers={"X-Auth-Token": token})
    with ThreadPoolExecutor(max_workers=max(1, params["parallel"])) as pool:
        registry = read_registry(api, plain, wanted, pool)
        before = shown_now(registry, wanted)
        objects = plan_objects(registry, wanted)
        apply(api, objects, registry, pool, dry)
        links = plan_links(registry, wanted)
        apply(api, links, registry, pool, dry)
    actions = [action.label for action in (*objects, *links)]
    return {"changed": bool(actions), "actions": actions, "diff": {"before": before, "after": shown_wanted(wanted)}}
