# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The APIs of a cloud with an administrator's token, and what a plan to change what it holds is made of."""

from __future__ import annotations

import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.module_utils.json_api import JsonApi, Reply, wait_until_ready

Json = dict[str, t.Any]

UPLOAD_LIMIT = 900.0
"""Seconds that Glance may take to answer once it has an image's last byte."""


class Contradiction(Exception):
    """What is wanted cannot be made of what is there; ``str()`` says where, what, and what would be right."""


@dataclass(frozen=True)
class Action:
    """One change: how it is told, and the requests that make it."""

    label: str
    run: t.Callable[[CloudApis], t.Any]


Chain = list[Action]


@dataclass
class ContentsPlan:
    """What is to be done, and both sides of the diff."""

    chains: list[Chain] = field(default_factory=list)
    before: Json = field(default_factory=dict)
    after: Json = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    """Images whose file must be brought first."""

    def add(self, name: str, before: t.Any, after: t.Any, chain: Chain) -> None:
        """One thing. Side ``before`` is left out where there is nothing yet."""
        if before is not None:
            self.before[name] = before
        self.after[name] = after
        if chain:
            self.chains.append(chain)


class CloudApis:
    """The APIs, with the administrator's token."""

    def __init__(self, auth: Json, region: str, ca: str | None, wait: float) -> None:
        plain = JsonApi(auth["url"], ca=ca)
        reply = wait_until_ready(lambda: self._log_in(plain, auth), wait)
        token = reply.body["token"]
        self.project: str = token["project"]["id"]
        self._catalog = {entry["type"]: entry["endpoints"] for entry in token["catalog"]}
        self._region, self._ca, self._wait = region, ca, wait
        self._headers = {"X-Auth-Token": reply.headers["x-subject-token"]}
        self.identity = JsonApi(auth["url"], ca=ca, headers=self._headers)

    @staticmethod
    def _log_in(plain: JsonApi, auth: Json) -> Reply:
        user = {"name": auth["username"], "domain": {"id": auth["user_domain"]}, "password": auth["password"]}
        scope = {"project": {"name": auth["project"], "domain": {"id": auth["project_domain"]}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        return plain.call("POST", "/auth/tokens", body)

    def _api(self, kind: str, path: str, headers: t.Mapping[str, str] | None = None, timeout: float = 60) -> JsonApi:
        for endpoint in self._catalog.get(kind, []):
            if (
                endpoint["interface"] == "internal"
                and endpoint.get("region_id", endpoint.get("region")) == self._region
            ):
                url = endpoint["url"].rstrip("/").removesuffix(path) + path
                return JsonApi(
                    url, ca=self._ca, headers={**self._headers, **(headers or {})}, timeout=timeout, patience=self._wait
                )
        raise Contradiction(
            f"the catalog has no internal endpoint of type {kind} in region {self._region}: deploy the service first "
            f"(known types: {', '.join(sorted(self._catalog))})"
        )

    def connect(self, images: bool, compute: bool, network: bool, placement: bool) -> None:
        """Look up the APIs that will be talked to."""
        if images:
            self.images = self._api("image", "/v2")
            self.uploads = self._api("image", "/v2", timeout=UPLOAD_LIMIT)
        if compute:
            # 2.61 brings extra specs along with flavors
            self.compute = self._api("compute", "", {"OpenStack-API-Version": "compute 2.61"})
        if placement:
            self.placement = self._api("placement", "")
        if network:
            self.network = self._api("network", "/v2.0")


def query(path: str, **filters: t.Any) -> str:
    return f"{path}?{urllib.parse.urlencode(filters)}"


def pages(api: JsonApi, path: str, key: str, **filters: t.Any) -> list[Json]:
    """A list's entries, over all its pages."""
    found: list[Json] = []
    while True:
        marker = {"marker": found[-1]["id"]} if found else {}
        body = api.call("GET", query(path, limit=500, **filters, **marker)).body
        found += body[key]
        if not body[key] or not (body.get("next") or body.get(f"{key}_links")):
            return found


def call_of(api: str, method: str, path: str, body: t.Any = None) -> t.Callable[[CloudApis], t.Any]:
    return lambda cloud: getattr(cloud, api).call(method, path, body)
