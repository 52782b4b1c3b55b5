# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site adds a clustered service by a folder of its own: deployed, a member rebuilt without its data, members added and retired.

The folder is ``services/etcd`` beside this file; docs/how-to/adding-a-service.md explains it. It lies outside the checkout on the host,
and nothing of the checkout is edited for it.
"""

from __future__ import annotations

import json
import re
import shlex
import typing as t
from pathlib import Path

import pytest

from deployed import Deployed, Run
from host import CHECKOUT, Done, Host
from several import give_images

pytestmark = pytest.mark.long("clustered-service")

FOLDER = Path(__file__).resolve().parent / "services"
SITE = "/srv/site/services"
"""Where the site keeps its own services on the control machine."""
TOPOLOGY = f"""\
plugin: zonestack.openstack.topology
deployment: aio
release: "2026.2"
networks: {{zone: {{cidr: 10.197.0.0/21}}}}
hosts: {{aio1: {{id: 1, connection: local}}}}
cloud: {{networks: {{}}, images: {{}}, flavors: {{}}}}
services_path: [{SITE}]
services: {{haproxy: , log: , etcd: {{count: 3}}}}
"""
LIMIT = 900.0
"""Seconds that tell a hang from an end."""
SCHEMA = {"/schema/version": "1", "/schema/owner": "app"}
CLIENT = f"""
import base64, json, ssl, sys, urllib.request, yaml

def ask(path, token="", **body):
    headers = {{"Content-Type": "application/json", **({{"Authorization": token}} if token else {{}})}}
    request = urllib.request.Request("https://10.197.0.5:2379/v3/" + path, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request, context=context, timeout=30))

def coded(text):
    return base64.b64encode(text.encode()).decode()

def text(coded):
    return base64.b64decode(coded).decode()

secrets = yaml.safe_load(open("{CHECKOUT}/inventory/aio/secrets.yml"))["secrets"]
context = ssl.create_default_context(cadata=secrets["pki"]["ca_certificate"])
user, verb, key, *value = sys.argv[1:]
token = ask("auth/authenticate", name=user, password=secrets["etcd"][user + "_password"])["token"] if user != "nobody" else ""
if verb == "put":
    ask("kv/put", token, key=coded(key), value=coded(value[0]))
else:
    found = ask("kv/range", token, key=coded(key), range_end=coded(key[:-1] + "0"))     # 0 follows /
    print(json.dumps({{text(one["key"]): text(one["value"]) for one in found.get("kvs", [])}}))
"""
"""A client on the host, at the virtual address, which trusts the deployment's authority: USER get PREFIX/, or USER put KEY VALUE."""


class Site:
    """The host, and what its operator sees of the cluster."""

    def __init__(self, *, reuse: bool) -> None:
        self.host = Host("clustered-service")
        if not reuse or self.host.state != "RUNNING":
            self.host.create()
        give_images(self.host)
        self.host.copy_project(worktree=True)
        self.host.exec(f"rm -r {CHECKOUT}/tests/scenario/services {SITE}", check=False)
        self.host.copy_tree(FOLDER, SITE)
        self.cloud = Deployed(self.host)
        self.host.exec(f"mkdir -p {CHECKOUT}/inventory/aio")
        self.count(3)
        done = self.cloud.script("bootstrap-aio.sh", timeout=LIMIT)
        assert done.rc == 0, done.out + done.err

    def count(self, members: int) -> None:
        """Write topology.yml with so many members."""
        text = TOPOLOGY.replace("count: 3", f"count: {members}")
        self.host.exec(f"printf %s {shlex.quote(text)} >{CHECKOUT}/inventory/aio/topology.yml")

    def converge(self, what: str, *arguments: str) -> Run:
        """Run the playbooks to a good end, and tell how long it took."""
        run = self.cloud.converge(*arguments)
        print(f"{what}: {run.seconds:.0f} s")
        return run

    def unchanged(self, what: str, *arguments: str) -> Run:
        """Run the playbooks; insist that nothing changes and nothing is started anew."""
        before = self.cloud.starts()
        run = self.converge(what, *arguments)
        assert {name: count for name, count in run.changes.items() if count} == {}
        assert self.cloud.starts() == before
        return run

    def refused(self, *arguments: str) -> str:
        """What a run says that is refused; insist that no zone has changed."""
        before = self.cloud.starts()
        run = self.cloud.run(*arguments)
        assert run.rc != 0, run.said
        assert self.cloud.starts() == before
        return " ".join(run.out.split())

    def client(self, *words: str, check: bool = True) -> Done:
        """Have a client ask at the virtual address."""
        return self.host.exec([f"{CHECKOUT}/.venv/bin/python", "-c", CLIENT, *words], timeout=120, check=check)

    def keys(self, prefix: str) -> dict[str, str]:
        """Keys and values below a prefix, as the service's user reads them."""
        return t.cast("dict[str, str]", json.loads(self.client("app", "get", prefix).out))

    def members(self) -> dict[str, dict[str, str]]:
        """Identity by name of the cluster's members, as each running one says, by its zone; only of members that serve."""
        ask = (
            'PASSWORD=$(python3 -c \'import json; print(json.load(open("/etc/zonestack/etcd-secrets.json"))["root_password"])\')\n'
            "export ETCDCTL_USER=root ETCDCTL_PASSWORD=$PASSWORD ETCDCTL_CACERT=/etc/zonestack/tls/ca.crt\n"
            "ETCDCTL_ENDPOINTS=https://$(hostname -I | cut -d' ' -f1):2379 etcdctl {}"
        )
        found = {}
        for zone in sorted(one for one in self.cloud.zones(running=True) if "-etcd-" in one):
            self.cloud.inside(zone, ask.format("endpoint health"))
            said = json.loads(self.cloud.inside(zone, ask.format("member list -w json")).out)["members"]
            assert all(one.get("clientURLs") for one in said), f"{zone} knows a member that never started: {said}"
            found[zone] = {one["name"]: f"{one['ID']:x}" for one in said}
        return found


def zones(count: int) -> set[str]:
    """The names of so many members' zones."""
    return {f"aio1-etcd-{number}" for number in range(1, count + 1)}


def agreed(site: Site, count: int) -> dict[str, str]:
    """Identity by name of the members, when there are so many, all serve, and all say the same."""
    said = site.members()
    assert said.keys() == zones(count)
    first = next(iter(said.values()))
    assert first.keys() == zones(count) and all(one == first for one in said.values()), said
    return first


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> t.Iterator[Site]:
    made = Site(reuse=request.config.getoption("--reuse-hosts"))
    yield made
    if not request.config.getoption("--keep-hosts"):
        made.host.destroy()


def test_a_clustered_service_of_a_site_lives_its_whole_life(site: Site) -> None:
    """Each part goes on with what the one before has left."""
    deployed(site)
    parts_of_a_run(site)
    rebuilt(site)
    refused(site)
    grown_and_retired(site)


def deployed(site: Site) -> None:
    """Three members agree, the front end has the schema, strangers see nothing, and a second run changes nothing."""
    site.converge("deployed")
    agreed(site, 3)
    assert site.keys("/schema/") == SCHEMA
    site.client("app", "put", "/app/greeting", "good day")
    assert site.keys("/app/") == {"/app/greeting": "good day"}
    for who, verb, *what in (
        ("nobody", "get", "/schema/"),
        ("app", "put", "/schema/version", "2"),
        ("app", "get", "/other/"),
    ):
        done = site.client(who, verb, *what, check=False)
        assert done.rc and re.search("HTTP Error 40[0-9]", done.err), f"{who} may {verb} {what}: {done.out}{done.err}"
    assert site.keys("/schema/") == SCHEMA
    site.unchanged("second run")


def parts_of_a_run(site: Site) -> None:
    """The step ``services`` alone, check mode, and a schema that lacks something: foretold by check mode, made by that step."""
    site.unchanged("only services", "--step", "services")
    site.unchanged("check mode", "--check")
    site.client("root", "put", "/schema/version", "0")
    foretold = site.converge("check mode, with a step to take", "--check", "--step", "services")
    assert {name: count for name, count in foretold.changes.items() if count} == {"aio1-etcd-1": 1}
    assert site.keys("/schema/") == {**SCHEMA, "/schema/version": "0"}
    site.converge("only services, with a step to take", "--step", "services")
    assert site.keys("/schema/") == SCHEMA


def rebuilt(site: Site) -> None:
    """The member that made the cluster loses zone and volume, and joins the others as a new member; these go on meanwhile."""
    before, starts = agreed(site, 3), site.cloud.starts()
    site.cloud.destroy("--purge", "--yes", "aio1-etcd-1")
    assert site.keys("/app/") == {"/app/greeting": "good day"}
    site.converge("rebuilt without its volume")
    after = agreed(site, 3)
    assert after["aio1-etcd-1"] != before.pop("aio1-etcd-1") and before.items() <= after.items()
    again = site.cloud.starts()
    assert {zone: again[zone] for zone in starts if zone != "aio1-etcd-1"} == {
        zone: starts[zone] for zone in starts if zone != "aio1-etcd-1"
    }
    assert site.keys("/app/") == {"/app/greeting": "good day"}
    site.unchanged("after the rebuild")


def refused(site: Site) -> None:
    """An even number is no cluster, and of three no two go at once."""
    site.count(2)
    assert "etcd votes, 2 members cannot outvote a lost half: take an odd number, 1 or 3" in site.refused()
    site.count(1)
    said = site.refused("--no-verify")
    assert "the members of etcd that stay (aio1-etcd-1) are not a majority of the cluster" in said
    site.count(3)
    agreed(site, 3)


def grown_and_retired(site: Site) -> None:
    """Two members more, then two less, by the step ``services`` alone: a majority of five stays, and nobody's daemon is started anew."""
    stay = site.cloud.starts()
    site.count(5)
    site.converge("grown to five")
    agreed(site, 5)
    site.count(3)
    site.converge("shrunk to three", "--step", "services")
    agreed(site, 3)
    now = site.cloud.starts()
    assert now.keys() == stay.keys() and not site.cloud.zones() & {"aio1-etcd-4", "aio1-etcd-5"}
    assert {zone: now[zone] for zone in zones(3)} == {zone: stay[zone] for zone in zones(3)}
    assert site.keys("/schema/") == SCHEMA and site.keys("/app/") == {"/app/greeting": "good day"}
    site.converge("the files of those that stay")
    agreed(site, 3)
    site.unchanged("after the retirement")
