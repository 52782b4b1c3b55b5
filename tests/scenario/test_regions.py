# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two deployments on one fresh host, the second one a region of the first one's cloud: its Keystone, and nothing else, is shared."""

from __future__ import annotations

import json
import typing as t

import pytest

from debian_root import Done
from deployed import RUN_LIMIT
from host import CHECKOUT, Host

pytestmark = [pytest.mark.long("regions"), pytest.mark.xdist_group("scenario")]

DEPLOYMENTS = {
    "one": (77, "RegionOne", "{to: [two]}", ("keystone: {count: 1}", "placement: {count: 1}")),
    "two": (88, "RegionTwo", "{from: one}", ("glance:",)),
}
"""Octet of the zone network, region, ``identity``, and what is deployed besides what both need."""

TOPOLOGY = """\
release: "2026.2"
region: {region}
identity: {identity}
networks: {{zone: {{cidr: 10.{octet}.0.0/21}}}}
hosts: {{{name}h: {{id: 1, connection: local}}}}
services:
  galera: {{count: 1}}
  memcached:
  haproxy:
  utility:
"""


class Regions:
    """The operator's commands on the host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def command(self, script: str, deployment: str, *arguments: str, check: bool = True) -> Done:
        return self.host.exec(
            [f"{CHECKOUT}/scripts/{script}", "--deployment", deployment, *arguments], timeout=RUN_LIMIT, check=check
        )

    def run(self, deployment: str) -> str:
        return self.command("run-playbooks.sh", deployment).out

    def openstack(self, where: str, *words: str) -> t.Any:
        """What the client in a deployment's utility zone says."""
        return json.loads(
            self.command(
                "zone-shell.sh", where, "utility", "--", "openstack", "--os-cloud", where, *words, "-f", "json"
            ).out
        )


@pytest.fixture(scope="module")
def regions() -> t.Iterator[Regions]:
    host = Host("scenario-regions").create()
    host.copy_project(worktree=True)
    try:
        for name, (octet, region, identity, services) in DEPLOYMENTS.items():
            host.exec([f"{CHECKOUT}/scripts/bootstrap-control.sh", name, "--from", "aio"], timeout=RUN_LIMIT)
            text = TOPOLOGY.format(name=name, octet=octet, region=region, identity=identity) + "".join(
                f"  {one}\n" for one in services
            )
            folder = f"{CHECKOUT}/inventory/{name}"
            host.exec(f"cat > {folder}/topology.yml", input=text)
        for name in DEPLOYMENTS:
            host.exec([f"{CHECKOUT}/scripts/deployment-secrets.py", "ensure", "--deployment", name])
        yield Regions(host)
    finally:
        host.destroy()


def test_two_regions_of_one_cloud(regions: Regions) -> None:
    """One after the other; then each runs again and changes nothing."""
    for name in DEPLOYMENTS:
        regions.run(name)
    for name in DEPLOYMENTS:
        assert "Nothing changed." in regions.run(name)
    assert {one["Region"] for one in regions.openstack("one", "region", "list")} == {"RegionOne", "RegionTwo"}
    endpoints = regions.openstack("two", "endpoint", "list")
    found = {(one["Region"], one["Service Type"], one["URL"]) for one in endpoints if one["Interface"] == "internal"}
    keystone = "https://10.77.0.5:5000/v3"
    assert found == {
        ("RegionOne", "identity", keystone), ("RegionTwo", "identity", keystone),
        ("RegionOne", "placement", "https://10.77.0.5:8778"), ("RegionTwo", "image", "https://10.88.0.5:9292"),
    }  # fmt: skip


def test_each_region_is_served_with_the_same_login(regions: Regions) -> None:
    """Glance of the second one checks tokens at the Keystone of the first; and a client in the first trusts the second one's authority."""
    for where, words in (("two", ()), ("one", ("--os-region-name", "RegionTwo"))):
        assert [one["Name"] for one in regions.openstack(where, *words, "image", "list")] == ["zonestack-test"]
    assert regions.openstack("two", "user", "list") == regions.openstack("one", "user", "list")
    assert {one["Name"] for one in regions.openstack("one", "user", "list")} == {"admin", "placement", "glance-two"}


def test_the_loss_of_a_region_is_not_seen_in_the_other(regions: Regions) -> None:
    regions.command("destroy.sh", "two", "--all", "--purge", "--yes")
    regions.openstack("one", "token", "issue")
    assert "Nothing changed." in regions.run("one")
