# SPDX-License-Identifier: GPL-3.0-or-later
"""identity_registry and keystone_bootstrap against a small Keystone that speaks real HTTP."""

from __future__ import annotations

import itertools
import json
import re
import urllib.parse

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils import json_api
from ansible_collections.zonestack.openstack.plugins.modules import identity_registry as registry
from ansible_collections.zonestack.openstack.plugins.modules import keystone_bootstrap as bootstrap

from .conftest import Api, Handler


class Keystone(Api):
    """As much of the identity API as the modules use. Closes each connection unannounced, as uWSGI does."""

    def __init__(self):
        super().__init__(Answers)
        self.url += "/v3"
        self.ids = map(str, itertools.count(100))
        self.starting = 0  # answers 503 so many times
        self.tables = {kind: {} for kind in ("regions", "roles", "projects", "users", "services", "endpoints")}
        self.grants: set[tuple[str, str, str]] = set()  # project, user, role
        for kind, name in (("roles", "admin"), ("projects", "admin")):
            self.add(kind, {"name": name})
        self.add("users", {"name": "admin", "password": "root"})
        self.grants.add((self.id("projects", "admin"), self.id("users", "admin"), self.id("roles", "admin")))

    def add(self, kind, values):
        entry = {"id": next(self.ids), "enabled": True, **values}
        self.tables[kind][entry["id"]] = entry
        return entry

    def id(self, kind, name):
        return next(entry["id"] for entry in self.tables[kind].values() if entry["name"] == name)

    def log_in(self, auth):
        asked = auth["identity"]["password"]["user"]
        user = next((user for user in self.tables["users"].values() if user["name"] == asked["name"]), None)
        if user is None or user["password"] != asked["password"] or not user["enabled"]:
            return None
        token = {"user": {"id": user["id"]}, "roles": []}
        if auth["scope"] != "unscoped":
            project = auth["scope"]["project"]["name"]
            held = [
                role
                for place, who, role in self.grants
                if who == user["id"] and self.tables["projects"][place]["name"] == project
            ]
            if not held:
                return None
            token["roles"] = [self.tables["roles"][role] for role in held]
        return token


class Answers(Handler):
    def reply(self, *answer, **headers):
        super().reply(*answer, **headers)
        self.close_connection = True

    def answer(self, body):
        keystone, parts = self.server, urllib.parse.urlsplit(self.path)
        path, query = parts.path.removeprefix("/v3/"), dict(urllib.parse.parse_qsl(parts.query))
        if keystone.starting:
            keystone.starting -= 1
            return self.reply(503, {"error": "starting"})
        if path == "auth/tokens":
            token = keystone.log_in(body["auth"])
            return self.reply(201, {"token": token}, X_Subject_Token="t") if token else self.reply(401, {"error": "no"})
        if self.headers.get("X-Auth-Token") != "t":
            return self.reply(401, {"error": "no token"})
        if self.command == "GET" and path == "role_assignments":
            held = [
                role
                for place, who, role in keystone.grants
                if (who, place) == (query["user.id"], query["scope.project.id"])
            ]
            return self.reply(200, {"role_assignments": [{"role": keystone.tables["roles"][role]} for role in held]})
        kind, _, rest = path.partition("/")
        if self.command == "GET":
            found = [
                entry
                for entry in keystone.tables[kind].values()
                if query.get("name", entry.get("name")) == entry.get("name")
            ]
            return self.reply(200, {kind: found})
        keystone.writes.append(f"{self.command} {kind}")
        if match := re.fullmatch(r"projects/(\w+)/users/(\w+)/roles/(\w+)", path):
            keystone.grants.add(match.groups())
            return self.reply(204)
        table = keystone.tables[kind]
        if self.command == "POST":
            return self.reply(201, {kind[:-1]: keystone.add(kind, next(iter(body.values())))})
        if self.command == "PATCH":
            table[rest].update(next(iter(body.values())))
            return self.reply(200, {kind[:-1]: table[rest]})
        del table[rest]
        return self.reply(204)

    def log_message(self, *_args):
        pass


@pytest.fixture
def keystone(serve):
    return serve(Keystone())


def params(keystone, **changes):
    auth = {"url": keystone.url, "username": "admin", "password": "root", "project": "admin"}
    auth |= {"user_domain": "default", "project_domain": "default"}
    nova = {
        "name": "nova",
        "type": "compute",
        "description": "Compute",
        "endpoints": {"public": "https://p", "internal": "https://i"},
    }
    user = {"name": "nova", "password": "secret", "project": "service", "roles": ["service", "admin"], "domain": None}
    base = {
        "auth": auth,
        "ca": None,
        "region": "RegionOne",
        "domain": "default",
        "services": [nova],
        "projects": ["service"],
    }
    return {**base, "roles": ["service"], "users": [user], "wait": 5, "parallel": 4, **changes}


@pytest.fixture
def registered(keystone):
    assert registry.register(params(keystone), dry=False)["changed"]
    keystone.writes.clear()
    return keystone


def nova_of(keystone):
    return next(entry for entry in keystone.tables["services"].values() if entry["type"] == "compute")


def test_everything_is_registered_once(keystone):
    first = registry.register(params(keystone), dry=False)
    assert sorted(keystone.writes) == [
        *["POST endpoints"] * 2, "POST projects", "POST regions", "POST roles", "POST services", "POST users",
        *["PUT projects"] * 2,
    ]  # fmt: skip
    assert first["diff"]["before"]["services"] == {}
    keystone.writes.clear()
    again = registry.register(params(keystone), dry=False)
    assert (again["changed"], again["actions"], keystone.writes) == (False, [], [])
    assert again["diff"]["before"] == again["diff"]["after"] == first["diff"]["after"]


def test_check_mode_tells_the_same_and_writes_nothing(keystone):
    told = registry.register(params(keystone), dry=True)
    assert keystone.writes == []
    assert told == registry.register(params(keystone), dry=False)


def duplicate_endpoint(keystone):
    service = {"service_id": nova_of(keystone)["id"], "region_id": "RegionOne"}
    keystone.add("endpoints", {**service, "interface": "public", "url": "https://old"})
    keystone.add("endpoints", {**service, "interface": "admin", "url": "https://admin"})
    keystone.add("endpoints", {**service, "interface": "public", "url": "https://q", "region_id": "RegionTwo"})


def moved_endpoint(keystone):
    next(entry for entry in keystone.tables["endpoints"].values() if entry["interface"] == "public")["url"] = (
        "https://old"
    )


def renamed_service(keystone):
    nova_of(keystone).update(name="compute", enabled=False)


def other_password(keystone):
    keystone.tables["users"][keystone.id("users", "nova")]["password"] = "old"


def disabled_user(keystone):
    keystone.tables["users"][keystone.id("users", "nova")]["enabled"] = False


def lost_role(keystone):
    keystone.grants = {grant for grant in keystone.grants if grant[2] != keystone.id("roles", "service")}


@pytest.mark.parametrize(
    ("drift", "actions", "writes"),
    [
        (
            duplicate_endpoint,
            ["remove duplicate public endpoint of nova", "remove unwanted admin endpoint of nova"],
            ["DELETE endpoints", "DELETE endpoints"],
        ),
        (moved_endpoint, ["change public endpoint of nova"], ["PATCH endpoints"]),
        (renamed_service, ["change enabled, name of service nova"], ["PATCH services"]),
        (other_password, ["change password of user nova"], ["PATCH users"]),
        (disabled_user, ["change enabled and password of user nova"], ["PATCH users"]),
        (lost_role, ["give nova the role service in service"], ["PUT projects"]),
    ],
)
def test_drift_is_found_and_only_that_is_written(registered, drift, actions, writes):
    drift(registered)
    told = registry.register(params(registered), dry=True)
    assert registered.writes == []
    done = registry.register(params(registered), dry=False)
    assert done == told
    assert (done["actions"], registered.writes) == (actions, writes)
    assert done["diff"]["before"] != done["diff"]["after"]
    assert "secret" not in json.dumps(done)
    assert not registry.register(params(registered), dry=False)["changed"]


def test_an_api_that_starts_is_waited_for(keystone):
    keystone.starting = 2
    assert registry.register(params(keystone), dry=True)["changed"]


def test_an_api_that_never_starts_is_named(keystone):
    keystone.starting = 1000
    with pytest.raises(json_api.NotReady) as error:
        registry.register(params(keystone, wait=0), dry=True)
    assert "not ready after 0 s" in str(error.value)
    assert "503" in str(error.value)


def test_a_refused_administrator_is_told_what_to_do(keystone):
    auth = {**params(keystone)["auth"], "password": "wrong"}
    with pytest.raises(json_api.ApiError, match="is Keystone bootstrapped"):
        registry.register(params(keystone, auth=auth), dry=True)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (
            {"endpoints": {"pubic": "https://p"}},
            "services[0].endpoints: unknown interface 'pubic' (known: public, internal, admin)",
        ),
        ({"endpoints": {"public": "cloud"}}, "services[0].endpoints.public: 'cloud' is not an http or https address"),
    ],
)
def test_contradictions_are_refused_before_anything_is_asked(keystone, service, message):
    bad = {**params(keystone)["services"][0], **service}
    with pytest.raises(ValueError, match="services") as refusal:
        registry.register(params(keystone, services=[bad], auth={"url": "http://127.0.0.1:1"}), dry=False)
    assert message in str(refusal.value)


def test_bootstrap_asks_for_a_token_in_the_project(keystone):
    api = json_api.JsonApi(keystone.url)
    admin = {"username": "admin", "password": "root", "project": "admin"}
    assert bootstrap.can_log_in(api, admin)
    assert not bootstrap.can_log_in(api, {**admin, "password": "x"})
    assert not bootstrap.can_log_in(api, {**admin, "project": "service"})
