# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one command deploys identity, with all that it stands on, into zones of a simulated SmartOS host.

The host container is at once control machine and global zone, which the control side reaches by SSH as it would any other. With
ZONESTACK_SMARTOS_HOST=NAME the container of that name is taken as it is, and left. In its shortest form each service has one
zone; with ``--long=smartos`` clusters have three members, and Keystone two.
"""

from __future__ import annotations

import json
import re
import time
import typing as t

import pytest

from deployed import RUN_LIMIT, Run, kill_tree, until
from host import Host
from smartos import ADDRESS, CHECKOUT, a_node, make_control

# With nothing in common with the others, it goes beside them.
pytestmark = pytest.mark.xdist_group("smartos")

SHORT = {"galera": 1, "rabbit_mq": 1, "haproxy": 1, "memcached": 1, "keystone": 1}
WHOLE = SHORT | {"galera": 3, "rabbit_mq": 3, "keystone": 2}
TOPOLOGY = f"""
plugin: zonestack.openstack.topology
release: "2026.2"
networks:
  zone: {{cidr: 10.77.0.0/21}}
hosts:
  gz1: {{id: 1, address: {ADDRESS}, user: root, backend: smartos}}
services:
"""
TOKEN = """
import json, ssl, sys, urllib.request, yaml
secrets = yaml.safe_load(open("inventory/gz/secrets.yml"))["secrets"]
user = {"name": "admin", "domain": {"id": "default"}, "password": secrets["keystone"]["admin_password"]}
body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"system": {"all": True}}}}
request = urllib.request.Request("https://10.77.0.5:5000/v3/auth/tokens", json.dumps(body).encode(), {"Content-Type": "application/json"})
context = ssl.create_default_context(cadata=secrets["pki"]["ca_certificate"])
print(len(urllib.request.urlopen(request, context=context, timeout=60).headers["X-Subject-Token"]))
"""
LIMIT = 3 * RUN_LIMIT


class Node:
    """The host container as its operator sees it."""

    def __init__(self, host: Host, counts: dict[str, int]) -> None:
        self.host = host
        self.zones = {
            f"gz1-{name.replace('_', '-')}-{number}" for name, count in counts.items() for number in range(1, count + 1)
        }

    def command(self, *arguments: str) -> list[str]:
        return [f"{CHECKOUT}/scripts/run-playbooks.sh", "--deployment", "gz", *arguments]

    def run(self, *arguments: str) -> Run:
        """Run the playbooks to their end."""
        started = time.monotonic()
        done = self.host.exec(self.command(*arguments), timeout=LIMIT, check=False)
        log = self.host.exec(f"cat $(ls -t {CHECKOUT}/logs/gz/*.log | head -1)", check=False).out
        return Run(done.rc, done.out + done.err, log, time.monotonic() - started)

    def converge(self, *arguments: str) -> Run:
        """Run the playbooks, and insist that it ends well."""
        run = self.run(*arguments)
        assert run.rc == 0, run.said
        return run

    def vms(self) -> dict[str, dict[str, t.Any]]:
        """The VMs by alias."""
        return {vm["alias"]: vm for vm in json.loads(self.host.exec(["vmadm", "lookup", "-j"], timeout=600).out)}

    def images(self) -> list[str]:
        """Names of the images of ours."""
        found = json.loads(self.host.exec(["imgadm", "list", "-j"], timeout=600).out)
        return sorted(one["manifest"]["name"] for one in found if "zonestack_image" in one["manifest"].get("tags", {}))

    def token(self) -> int:
        """The length of a token that Keystone issues through HAProxy."""
        done = self.host.exec(f"cd {CHECKOUT} && .venv/bin/python -", input=TOKEN, timeout=600)
        return int(done.out)


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> t.Iterator[Node]:
    """A node with the seed of the base image, and a control side that knows it."""
    counts = SHORT if request.config.getoption("--long") is None else WHOLE
    with a_node("scenario-identity", "--hostname", "gz1") as host:
        make_control(host, "gz", TOPOLOGY + "".join(f"  {name}: {{count: {n}}}\n" for name, n in counts.items()))
        yield Node(host, counts)


@pytest.mark.long("smartos")
def test_a_run_that_is_killed_while_it_builds_images_leaves_what_the_next_one_goes_on_from(node: Node) -> None:
    """Nothing looks finished that is not, and what is finished is not built again."""
    process = node.host.popen(node.command("--step", "hosts..images"))
    mark = "ls /zones/zonestack/build/builders | grep -v ^base"
    try:
        until(lambda: node.host.exec(mark, check=False).rc == 0, "a builder on top of the base image", LIMIT)
        base = node.host.exec("imgadm list -j name=zonestack-base").out
    finally:
        kill_tree(process)
    node.converge("--step", "images")
    assert node.images() == [
        f"zonestack-{name}" for name in ("base", "galera", "haproxy", "keystone", "memcached", "rabbit-mq")
    ]
    assert json.loads(base)[0]["manifest"]["published_at"] in node.host.exec("imgadm list -j name=zonestack-base").out
    assert node.host.exec("ls /zones/zonestack/build/builders /zones/zonestack/build/drafts").out.split() == [
        "/zones/zonestack/build/builders:", "/zones/zonestack/build/drafts:",
    ]  # fmt: skip


@pytest.mark.deploys
def test_the_one_command_deploys_identity(node: Node) -> None:
    node.converge()
    vms = node.vms()
    assert {name for name, vm in vms.items() if vm["state"] == "running"} == node.zones
    assert {vm["brand"] for vm in vms.values()} == {"lx"}
    assert node.token() > 100


def test_a_second_run_changes_nothing_and_restarts_nothing(node: Node) -> None:
    before = {name: vm["pid"] for name, vm in node.vms().items()}
    run = node.converge()
    assert {name: count for name, count in run.changes.items() if count} == {}
    assert "Nothing changed." in run.out
    assert "Restarted" not in run.out
    assert {name: vm["pid"] for name, vm in node.vms().items()} == before


@pytest.mark.long("smartos")
def test_a_zone_that_was_destroyed_comes_back_with_its_data(node: Node) -> None:
    node.host.exec([f"{CHECKOUT}/scripts/destroy.sh", "--deployment", "gz", "gz1-galera-2"], timeout=300)
    assert "gz1-galera-2" not in node.vms()
    before = {name: vm["pid"] for name, vm in node.vms().items()}
    run = node.converge()
    after = node.vms()
    assert after.keys() == node.zones
    assert {name: after[name]["pid"] for name in before} == before
    assert not re.search(r"FAILED|unreachable=[1-9]", run.log)
    assert node.token() > 100


@pytest.mark.long("smartos")
def test_the_zones_come_back_with_the_global_zone(node: Node) -> None:
    """Its ramdisk is as new, and what makes the network again is on the pool."""
    node.host.exec(["smartos-sim", "reboot"], timeout=900)
    until(
        lambda: {name for name, vm in node.vms().items() if vm["state"] == "running"} == node.zones,
        "all zones run",
        900,
    )

    def issued() -> bool:
        try:
            return node.token() > 100
        except Exception:  # no answer yet, in whichever way
            return False

    until(issued, "Keystone issues tokens", 600)
