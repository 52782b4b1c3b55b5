# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest production deployment (inventory/examples/two-hosts), by SSH from a third machine: the same, on more than one host."""

from __future__ import annotations

import re
import secrets as random
import shutil
import tempfile
import typing as t
from pathlib import Path

import pytest

from debian_root import BASE
from deployed import until
from host import CHECKOUT, Host
from instance import Instance
from several import Site, a_site, trust

pytestmark = pytest.mark.xdist_group("scenario")

HYPERVISORS = {"one-nova-compute-1", "two-nova-compute-1"}


def with_hypervisors_to_come(text: str) -> str:
    """The example with services kept where they are, so that a third host is for instances alone."""
    text = re.sub(r"(?m)^networks:", r"spread: none\n\n\g<0>", text)
    text = re.sub(r"(?m)^(  (?:one|two): .*)\}", r"\1, groups: [control]}", text)
    text = re.sub(r"(?m)^( +\w+: \{count: \d)\}", r"\1, hosts: [control]}", text)
    return re.sub(r"(?m)^(  (?:glance|log|utility)):", r"\1: {hosts: [control]}", text)


def identity_alone(text: str) -> str:
    """The example with what identity stands on, in its shortest form: both hosts, one wire, no instances."""
    kept = ("galera", "rabbit_mq", "memcached", "haproxy", "keystone", "log", "utility", "repo")
    head, _, services = text.partition("\nservices:\n")
    head = re.sub(r"(?m)^cloud:\n(?:(?:  .*)?\n)+", "cloud: {networks: {}, images: {}, flavors: {}}\n", head)
    lines = [line for line in services.splitlines() if line.strip().partition(":")[0] in kept]
    return "\n".join([head, "services:", *lines, ""])


@pytest.fixture(scope="module")
def short(request: pytest.FixtureRequest, room: None) -> t.Iterator[Site]:
    with a_site(request.config, "short", "two-hosts", identity_alone, "one", "one") as made:
        yield made


def test_identity_is_deployed_onto_two_hosts_over_ssh(short: Site) -> None:
    """One command from a third machine, and a second run that changes nothing. Images are built on one host, and fetched by the other."""
    run = short.converge()
    here = {"galera-1", "rabbit-mq-1", "haproxy-1", "keystone-1", "repo-1"}
    assert {f"{host}-{zone}" for host in short.hosts for zone in here} <= short.starts().keys(), run.said
    assert short.galera() == [3, 3, 3]
    short.unchanged()
    for host in short.hosts.values():
        host.destroy()


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, room: None) -> t.Iterator[Site]:
    with a_site(request.config, "two", "two-hosts", with_hypervisors_to_come, "one", "one") as made:
        yield made


@pytest.mark.long("two-hosts")
@pytest.mark.deploys
def test_one_command_deploys_onto_both_hosts(site: Site) -> None:
    """It ends in a verified instance on each of them, with traffic between the two."""
    run = site.converge()
    assert run.verified == HYPERVISORS, run.said
    here = {
        "galera-1",
        "rabbit-mq-1",
        "ovn-1",
        "haproxy-1",
        "keystone-1",
        "nova-api-1",
        "neutron-api-1",
        "nova-compute-1",
    }
    assert {f"{host}-{zone}" for host in site.hosts for zone in here} <= site.starts().keys()
    assert site.galera() == [3, 3, 3]


@pytest.mark.long("two-hosts")
def test_a_second_run_over_ssh_changes_nothing(site: Site) -> None:
    site.unchanged()


@pytest.mark.long("host-lost")
def test_an_api_answers_again_when_a_host_is_lost(site: Site) -> None:
    """A host is killed without warning: within ten seconds the API answers, instances run on. It comes back, and all is whole without help."""
    name = f"before-the-loss-{random.token_hex(4)}"
    instance = Instance.make(site, name, "tiny", "one-nova-compute-1")
    boot = instance.boot_id()
    lost = site.hosts["two"]
    gap = site.gap(site.hosts["one"], "https://10.79.0.5:5000/v3", lost.stop, 30)
    print(f"\nKeystone behind the virtual address: no answer for {gap.seconds} s, {gap.failed} requests failed")
    assert name in {server["Name"] for server in site.openstack("server", "list")}
    instance.wait()
    assert instance.boot_id() == boot
    lost.start(timeout=120)
    until(lambda: site.galera() == [3, 3, 3], "all Galera nodes are in sync", 300)
    until(site.all_up, "Nova sees all its services up, Neutron its agents", 300)
    instance.delete()
    site.unchanged()
    assert gap.seconds <= 10  # last: what comes next wants a whole site


@pytest.mark.long("hypervisor")
def test_a_hypervisor_is_added(site: Site) -> None:
    """A fresh machine, two lines, a run: it ends in a verified instance on each, and nobody else is started anew."""
    before = site.starts()
    three = Host("scenario-three").create()
    site.hosts["three"] = three
    trust(site.control, site.hosts.values())
    site.edit(r"^(  two: \{.*\n)", rf"\1  three: {{id: 3, address: {three.address}}}\n")
    site.edit(r"hosts: \[one, two\]", "hosts: [one, two, three]")
    run = site.converge()
    assert run.verified == {*HYPERVISORS, "three-nova-compute-1"}, run.said
    after = site.starts()
    assert after.pop("three-nova-compute-1")
    assert after == before


@pytest.mark.long("hypervisor")
def test_a_hypervisor_is_removed(site: Site) -> None:
    """Nobody knows it any more, nobody else is started anew, and the next run has nothing to do."""
    before = site.starts()
    site.remove("three", "--no-verify")
    site.edit(r"hosts: \[one, two, three\]", "hosts: [one, two]")
    site.hosts.pop("three").destroy()
    before.pop("three-nova-compute-1")
    assert site.starts() == before
    site.unchanged("--no-verify")


@pytest.mark.long("control-host")
def test_a_control_host_is_removed_and_nothing_is_left_of_it(site: Site) -> None:
    """Its members go to the other one; nobody knows it any more, and the next run has nothing to do."""
    site.remove("two", "--no-verify")
    site.edit(r"hosts: \[one, two\]", "hosts: [one]")
    assert site.galera() == [3, 3, 3]
    site.unchanged("--no-verify")  # adding it ends in one


@pytest.mark.long("control-host")
def test_a_control_host_is_added(site: Site) -> None:
    """A fresh machine, a line, a run: it ends in a verified instance on each. Members move to it, and nothing is left where they were."""
    two = site.hosts["two"].create()
    trust(site.control, site.hosts.values())
    site.edit(r"^(  one: \{.*\n)", rf"\1  two: {{id: 2, address: {two.address}, groups: [control]}}\n")
    site.edit(r"hosts: \[one\]", "hosts: [one, two]")
    run = site.converge()
    assert run.verified == HYPERVISORS, run.said
    assert site.galera() == [3, 3, 3]
    assert (
        not {"one-galera-3", "one-rabbit-mq-3", "one-ovn-3", "one-haproxy-2", "one-keystone-2", "one-nova-scheduler-2"}
        & site.starts().keys()
    )
    assert site.all_up()
    site.unchanged()


@pytest.mark.long("bundle")
def test_a_site_without_a_way_out_is_deployed_from_a_bundle(site: Site) -> None:
    """All three machines anew, without any route; what there is comes from one archive."""
    archive = "/root/two.tar"
    site.control.exec("apt-get install -y --no-install-recommends git", timeout=300)
    done = site.script("bundle.sh", site.name, archive)
    assert done.rc == 0, done.out + done.err
    topology = site.control.exec(["cat", site.topology]).out
    with tempfile.TemporaryDirectory(dir=BASE) as medium:
        for file in (archive, f"{archive}.sha256"):
            shutil.move(site.control.home / "upper" / file.lstrip("/"), medium)
        for host in (site.control, *site.hosts.values()):
            host.create()
            if host != site.control:
                host.exec(
                    "apt-get update && apt-get install -y --no-install-recommends python3", timeout=300
                )  # what docs/explanation/images.md asks for
            host.exec(["ip", "route", "delete", "default"])
        for kept in Path(medium).iterdir():
            shutil.move(kept, f"/proc/{site.control.pid}/root/root/")
    trust(site.control, site.hosts.values())
    site.control.exec(
        f"cd /root && sha256sum --check {archive}.sha256 && tar --extract --file {archive} --directory /opt && rm {archive}",
        timeout=300,
    )
    site.control.exec([f"{CHECKOUT}/scripts/bootstrap-control.sh", site.name], timeout=600)
    assert site.control.exec(["cat", site.topology]).out == topology
    run = site.converge()
    assert run.verified == HYPERVISORS, run.said
    for host in (site.control, *site.hosts.values()):
        assert "default" not in host.exec(["ip", "route"]).out
    site.unchanged()
