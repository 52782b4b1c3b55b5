# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/images.yml through Ansible: which host builds, which fetch, and what is done before they do. The modules only say what
they were given."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority

from .conftest import Checkout

TOPOLOGY = """
release: "2026.2"
networks:
  zone: {cidr: 10.77.0.0/20, interface: eth1}
hosts:
  one: {id: 1, connection: local}
  two: {id: 2, address: 192.0.2.12}
  three: {id: 3, address: 192.0.2.13}
  four: {id: 4, address: 192.0.2.14}
services:
  memcached: {count: 1, hosts: [three]}
  haproxy: {count: 1, hosts: [four]}
"""

MODULE = """
import json
import os
from ansible.module_utils.basic import AnsibleModule

names = ("images", "archives", "network", "backend", "uv", "seed", "mirror", "zones", "base", "cache")
module = AnsibleModule({name: {"type": "raw"} for name in names}, supports_check_mode=True)
given = {name: value for name, value in module.params.items() if value is not None}
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps({"call": "NAME", "given": given}) + "\\n")
module.exit_json(changed=False)
"""

ACTION = """
import json
import os
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(json.dumps({"call": "zone_tree", "zone": task_vars["zone"]["name"], "given": self._task.args}) + "\\n")
        return {"changed": False}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    stubs = {name: MODULE.replace("NAME", name) for name in ("zone_image", "zones", "cloud_images")}
    made = Checkout(tmp_path_factory.mktemp("checkout"), stubs, ACTION)
    for name in ("two", "three", "four"):
        made.variables(f"host_vars/{name}")
    return made


def calls(checkout: Checkout, topology: str, *arguments: str, playbook: str = "images") -> list[dict[str, Any]]:
    """What one run of a playbook asks of the modules, in order."""
    given = any("secrets" in argument for argument in arguments)
    checkout.describe(topology, None if given else {"pki": new_authority("x")._asdict()})
    done = checkout.ansible(playbook, *arguments)
    assert "WARNING" not in done.stderr, done.stderr
    return checkout.calls


def test_without_a_repo_every_host_builds_its_own(checkout: Checkout) -> None:
    found = calls(checkout, TOPOLOGY)
    assert [one["call"] for one in found] == ["zone_image"] * 4
    assert all("archives" not in one["given"] for one in found)
    assert all(one["given"]["network"]["addresses"] for one in found)


def test_the_first_repos_host_builds_serves_and_then_the_others_fetch(checkout: Checkout) -> None:
    repos = f"{TOPOLOGY}  repo: {{count: 2, hosts: [one, two]}}\n"
    built, made, started, *fetched = calls(checkout, repos)
    assert (built["call"], made["call"], started["call"], [one["call"] for one in fetched]) == (
        "zone_image", "zones", "zone_tree", ["zone_image"] * 3,
    )  # fmt: skip
    images = sorted(recipe["id"].rpartition("-")[0] for recipe in built["given"]["images"])
    assert images == ["base", "haproxy", "memcached", "repo"]
    keep = sorted(recipe["id"] for recipe in built["given"]["images"])
    folder = "/var/lib/lxc/zonestack/volumes/one-repo-1/images"
    assert built["given"]["archives"] == {"path": folder, "keep": built["given"]["archives"]["keep"]}
    assert sorted(built["given"]["archives"]["keep"]) == keep
    assert [zone["name"] for zone in made["given"]["zones"]] == ["one-repo-1"]
    assert (started["zone"], started["given"]) == ("one-repo-1", {"start": True})
    by_image = {tuple(sorted(recipe["name"] for recipe in one["given"]["images"])): one["given"] for one in fetched}
    assert sorted(by_image) == [("base", "haproxy"), ("base", "memcached"), ("base", "repo")]
    first, second = "https://10.77.2.56/images", "https://10.77.4.56/images"
    two, three, four = by_image["base", "repo"], by_image["base", "memcached"], by_image["base", "haproxy"]
    assert (two["archives"]["origins"], sorted(two["archives"]["keep"])) == ([first], keep)
    assert two["archives"]["path"].endswith("/two-repo-1/images")
    assert three["archives"]["origins"] == [second, first], "hosts begin with different ones"
    assert four["archives"]["origins"] == [first, second]
    assert three["archives"]["path"] == "/var/lib/lxc/zonestack/archives"
    assert "keep" not in three["archives"]
    assert three["archives"]["ca"].startswith("-----BEGIN CERTIFICATE")
    assert "network" not in three, "who fetches does not build"


def test_check_mode_makes_no_zone(checkout: Checkout) -> None:
    """Nor does it need a file of secrets: run-playbooks.sh --plan gives those that a run would make."""
    repos, secrets = (
        f"{TOPOLOGY}  repo: {{hosts: [one]}}\n",
        json.dumps({"secrets": {"pki": new_authority("x")._asdict()}}),
    )
    assert [one["call"] for one in calls(checkout, repos, "--check", "--extra-vars", secrets)] == ["zone_image"] * 4


def test_one_host_with_a_repo_only_keeps_archives(checkout: Checkout) -> None:
    alone = TOPOLOGY.replace("[three]", "[one]").replace("[four]", "[one]")
    alone = "\n".join(line for line in alone.splitlines() if not line.strip().startswith(("two:", "three:", "four:")))
    found = calls(checkout, f"{alone}\n  repo:\n")
    assert [one["call"] for one in found] == ["zone_image"]
    assert found[0]["given"]["archives"]["path"].endswith("/one-repo-1/images")


def test_a_bundle_is_used_where_it_lies_or_brought(checkout: Checkout) -> None:
    bundle = checkout.collection / "bundle/images"
    bundle.mkdir(parents=True)
    (bundle / "base-0123456789ab.json").write_text("{}")
    alone = "\n".join(
        line for line in TOPOLOGY.splitlines() if not line.strip().startswith(("two:", "three:", "four:"))
    )
    try:
        (local,) = calls(checkout, alone.replace("[three]", "[one]").replace("[four]", "[one]"))
        assert local["given"]["archives"] == {"path": str(bundle)}
        builder, *_others = calls(checkout, f"{TOPOLOGY}  repo: {{hosts: [two]}}\n", "--check")
        assert builder["given"]["archives"]["path"].endswith("/two-repo-1/images"), "it was brought there"
    finally:
        shutil.rmtree(bundle.parent)


@pytest.mark.parametrize(
    ("repo", "folder"),
    [("", "/nowhere/images"), ("  repo: {hosts: [one]}\n", "/var/lib/lxc/zonestack/volumes/one-repo-1/images")],
)
def test_a_bundle_takes_the_archives_of_the_host_that_builds(checkout: Checkout, repo: str, folder: str) -> None:
    cloud, images = calls(
        checkout, TOPOLOGY + repo, "--check", "--extra-vars", "bundle_folder=/nowhere", playbook="bundle"
    )
    assert (cloud["call"], cloud["given"]["cache"]) == ("cloud_images", "/nowhere/cloud-images")
    assert images["given"]["archives"]["path"] == folder
    names = sorted(image.rpartition("-")[0] for image in images["given"]["archives"]["keep"])
    assert names == ["base", "haproxy", "memcached", *(["repo"] if repo else [])]
