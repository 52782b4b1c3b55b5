# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cloud on two kinds of hosts: its control plane in zones of a simulated SmartOS host; hypervisor, journals and the second zone of
some APIs on a Linux host.

The Linux host is the control machine too, and reaches the global zone by SSH; eth1 of both is the zones' network. Hours.
"""

from __future__ import annotations

import re
import typing as t
from subprocess import DEVNULL, Popen

import pytest
import yaml

from deployed import SERVERS, kill_tree, serves, until
from host import CHECKOUT, Host
from several import Site, trust
from smartos import a_node, base_image

pytestmark = [pytest.mark.long("mixed"), pytest.mark.xdist_group("scenario")]

NAME = "mixed"
LIMIT = 5400.0
"""Seconds for a run that builds images on zfs-fuse."""

TOPOLOGY = """
plugin: zonestack.openstack.topology
release: "2026.2"
spread: none
networks:
  zone: {{cidr: 10.77.0.0/21, bridge: zonenet, interface: eth1}}
hosts:
  gz1: {{id: 1, address: {address}, user: root, backend: smartos, groups: [control]}}
  lx1: {{id: 2, connection: local, groups: [compute]}}
cloud:
  networks:
    public: {{cidr: 10.77.8.0/24, gateway_host: lx1}}
services:
  galera: {{hosts: [control]}}
  rabbit_mq: {{hosts: [control]}}
  haproxy: {{hosts: [control]}}
  memcached: {{hosts: [control]}}
  keystone: {{hosts: [control, compute]}}
  placement: {{hosts: [control]}}
  glance: {{hosts: [control]}}
  ovn: {{hosts: [control]}}
  nova:
    nova_api: {{hosts: [control, compute]}}
    nova_metadata: {{hosts: [control]}}
    nova_conductor: {{hosts: [control]}}
    nova_scheduler: {{hosts: [control]}}
    nova_novncproxy: {{hosts: [control]}}
    nova_compute: {{hosts: [compute]}}
  neutron:
    neutron_api: {{hosts: [control]}}
    neutron_workers: {{hosts: [control]}}
  horizon: {{hosts: [control, compute]}}
  utility: {{hosts: [control]}}
  log: {{hosts: [compute]}}
"""
SMOKE = ["tempest.api.identity.*smoke", "tempest.api.image.*smoke", "tempest.api.compute.*smoke"]
KEPT = """
cat >>/usbkey/config.inc/authorized_keys
grep -q ^root_authorized_keys_file= /usbkey/config || echo root_authorized_keys_file=authorized_keys >>/usbkey/config
"""


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> t.Iterator[Site]:
    """A simulated node and a fresh Linux host on one wire."""
    lx1 = Host("scenario-lx1")
    if not request.config.getoption("--reuse-hosts") or lx1.state != "RUNNING":
        lx1.create()
    with a_node("scenario-smartos", "--hostname", "gz1") as gz1:
        seed = base_image(gz1, "lx", "trixie")
        lx1.copy_project(worktree=True)
        key = trust(lx1, [gz1])
        gz1.exec(f"mkdir -p /usbkey/config.inc; {KEPT}", input=key)  # or the ramdisk forgets it
        mac = gz1.exec(["cat", "/sys/class/net/eth1/address"]).out.strip()
        gz1.exec(f"nictagadm exists zonenet || nictagadm add zonenet {mac}")
        folder = f"{CHECKOUT}/inventory/{NAME}"
        variables = yaml.safe_dump({"zone_image_seed": {"uuid": seed}})
        lx1.exec(
            f"mkdir -p {folder}/group_vars && cat >{folder}/topology.yml", input=TOPOLOGY.format(address=gz1.address)
        )
        lx1.exec(f"cat >{folder}/group_vars/smartos_hosts.yml", input=variables)
        lx1.exec([f"{CHECKOUT}/scripts/bootstrap-control.sh", NAME], timeout=900)
        made = Site(NAME, lx1, {"gz1": gz1, "lx1": lx1}, limit=LIMIT, gateway="lx1")
        made.route("10.77.8.0/24")
        yield made
    if not request.config.getoption("--keep-hosts"):
        lx1.destroy()


def test_one_command_deploys_onto_both_kinds_of_hosts(site: Site) -> None:
    """It ends in a verified instance: control plane on the one, hypervisor on the other."""
    run = site.converge()
    assert run.verified == {"lx1-nova-compute-1"}, run.said
    hosts: dict[str, set[str]] = {}
    for zone in site.starts():
        hosts.setdefault(zone.partition("-")[0], set()).add(zone)
    both = {"keystone-1", "nova-api-1", "horizon-1"}
    assert {f"gz1-{zone}" for zone in both | {"glance-1", "placement-1", "neutron-api-1"}} < hosts["gz1"]
    assert hosts["lx1"] == {f"lx1-{zone}" for zone in both | {"nova-compute-1", "log-1"}}
    servers = site.inside("gz1-haproxy-1", SERVERS).out
    assert [zone for host in ("gz1", "lx1") for zone in sorted(both) if not serves(servers, f"{host}-{zone}")] == []
    assert site.galera() == [3, 3, 3]


def test_a_second_run_changes_nothing(site: Site) -> None:
    site.unchanged()


def test_tempest_finds_no_fault(site: Site) -> None:
    """OpenStack's own smoke tests of identity, image and compute."""
    wanted = [word for regex in SMOKE for word in ("--tests", regex)]
    done = site.script("verify.sh", "--deployment", NAME, "--tempest", *wanted)
    said = re.search(r"verified: Tempest [\d.]+: (\d+) passed, (\d+) skipped, 0 failed", done.out)
    assert done.rc == 0 and said, done.out + done.err
    assert int(said[1]) > 20, "that was not all of them"


def test_zones_come_back_from_destruction(site: Site) -> None:
    """One with data and one without; nobody else is started anew."""
    before = site.starts()
    gone = ["gz1-keystone-1", "gz1-galera-3", "gz1-rabbit-mq-2"]
    done = site.script("destroy.sh", "--deployment", NAME, *gone)
    assert done.rc == 0, done.out + done.err
    site.converge()
    after = site.starts()
    assert after.keys() == before.keys()
    assert {zone: start for zone, start in after.items() if zone not in gone} == {
        zone: start for zone, start in before.items() if zone not in gone
    }
    assert site.galera() == [3, 3, 3]


@pytest.mark.parametrize("verb", ["reboot", "power-off"])
def test_the_cloud_comes_back_with_the_global_zone(site: Site, verb: str) -> None:
    """Its ramdisk is as new; no run is needed, and the next one has nothing to do."""
    gz1 = site.hosts["gz1"]
    zones = site.starts().keys()
    gz1.exec(["smartos-sim", verb], timeout=900)
    if verb == "power-off":
        gz1.exec(["smartos-sim", "boot"], timeout=900)
    until(lambda: site.starts().keys() == zones, "all zones run", 300)

    def whole() -> bool:
        try:
            return site.galera() == [3, 3, 3] and site.all_up()
        except AssertionError:  # no API answers yet
            return False

    until(whole, "the database is whole, Nova and Neutron see all that is theirs", 900)
    site.unchanged()


def test_runs_that_are_killed_are_followed_by_one_that_ends_well(site: Site) -> None:
    """From no zones at all to a cloud, each killed further on than the one before."""
    done = site.script("destroy.sh", "--deployment", NAME, "--all", "--purge", "--keep-images", "--yes")
    assert done.rc == 0, done.out + done.err
    killed: list[str] = []
    for play in (
        "Create the zones",
        "Configure the zones",
        "Prepare the clusters",
        "Create the first identity",
        "Start the services",
    ):
        finished = site.latest_log()
        command = [f"{CHECKOUT}/scripts/run-playbooks.sh", "--deployment", NAME, "--no-verify"]
        with site.control.popen(command, stdout=DEVNULL, stderr=DEVNULL) as process:

            def reached(play: str = play, finished: str = finished, process: Popen[bytes] = process) -> bool:
                assert process.poll() is None, f"the run ended with {process.returncode} before `{play}`"
                log = site.latest_log()
                return log != finished and f"PLAY [{play}]" in site.control.exec(["cat", log]).out

            try:
                until(reached, f"a run reaches `{play}`", LIMIT)
            finally:
                killed.append(f"{play} ({kill_tree(process)} processes)")
    run = site.run()
    assert run.rc == 0, "killed in: " + "; ".join(killed) + "\n" + run.said
    assert site.galera() == [3, 3, 3]
    site.unchanged()
