# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The production example (inventory/examples/production) with three of its controllers and two of its hypervisors, by SSH. Hours.

The controllers are the edge and keep the journals too, and limits are those of a small machine; all else is the example's.
"""

from __future__ import annotations

import re
import typing as t

import pytest

from deployed import until
from instance import Instance
from several import Site, a_site, trust

pytestmark = [pytest.mark.long("production"), pytest.mark.xdist_group("scenario")]

CLUSTERS = ("galera", "rabbit-mq", "ovn", "memcached", "keystone", "placement", "nova-api", "neutron-api", "horizon")
HYPERVISORS = {"cmp1-nova-compute-1", "cmp2-nova-compute-1"}


def smaller(text: str) -> str:
    """The example without the hosts that this machine has no room for."""
    text = re.sub(r"(?m)^  (edge[12]|log1|cmp3): .*\n", "", text)
    text = re.sub(r"(?m)^(  ctl[12]: .*groups: \[)control\]", r"\1control, edge]", text)
    text = re.sub(r"(?m)^(  ctl3: .*groups: \[)control\]", r"\1control, logs]", text)
    text = re.sub(r"(?m)^  external: .*\n", "", text)
    return re.sub(r", (memory|vcpus|cpu_cap|quota): \d+", "", text)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, room: None) -> t.Iterator[Site]:
    with a_site(request.config, "prod", "production", smaller, "cmp1", "ctl1") as made:
        made.route()
        yield made


def test_one_command_deploys_production(site: Site) -> None:
    """It ends in a verified instance on each compute host, with traffic between the two; no cluster has two members on one host."""
    run = site.converge()
    assert run.verified == HYPERVISORS, run.said
    zones = site.starts().keys()
    for one in CLUSTERS:
        assert sorted(zone for zone in zones if zone.endswith(f"-{one}-1")) == [
            f"ctl{number}-{one}-1" for number in (1, 2, 3)
        ]
    assert site.galera() == [3, 3, 3]


def test_a_second_run_changes_nothing(site: Site) -> None:
    site.unchanged()


def holder(site: Site, without: str = "") -> str:
    """The control host that has the virtual address now; one that is lost is not asked."""
    having = [
        name
        for name in ("ctl1", "ctl2")
        if name != without and "10.64.0.5/" in site.inside(f"{name}-haproxy-1", "ip -4 -brief address").out
    ]
    assert len(having) == 1, f"the virtual address is at {having}"
    return having[0]


def test_the_host_with_the_virtual_address_is_lost(site: Site) -> None:
    """Killed without warning: within ten seconds the API answers, an instance runs on. It comes back, and all is whole without help."""
    instance = Instance.make(site, "lives", "tiny", "cmp2-nova-compute-1")
    boot = instance.boot_id()
    name = holder(site)
    gap = site.gap(site.hosts["cmp1"], "https://10.64.0.5:5000/v3", site.hosts[name].stop, 30)
    print(
        f"\nKeystone behind the virtual address, {name} lost: no answer for {gap.seconds} s, {gap.failed} requests failed"
    )
    assert holder(site, without=name)
    assert instance.boot_id() == boot
    site.hosts[name].start(timeout=120)
    site.route()
    until(lambda: site.galera() == [3, 3, 3], "all Galera nodes are in sync", 300)
    until(site.all_up, "Nova sees all its services up, Neutron its agents", 300)
    site.unchanged()
    assert instance.boot_id() == boot
    instance.delete()
    assert gap.seconds <= 10  # last: what comes next wants a whole site


def test_a_dead_control_host_is_replaced(site: Site) -> None:
    """A fresh machine with the old name, id and address: a run, nothing edited; nobody else is started anew."""
    before = site.starts()
    site.hosts["ctl3"].create()
    site.route()
    trust(site.control, site.hosts.values())
    run = site.converge()
    assert run.verified == HYPERVISORS, run.said
    assert site.galera() == [3, 3, 3]
    after = site.starts()
    assert after.keys() == before.keys()
    assert {zone for zone in before if after[zone] != before[zone]} == {
        zone for zone in before if zone.startswith("ctl3-")
    }
    site.unchanged()


def test_a_hypervisor_goes_and_another_comes(site: Site) -> None:
    """Nothing is left of the first, the second serves, and of the others nobody is started anew."""
    before = site.starts()
    line = re.search(r"(?m)^  cmp2: .*\n", site.control.exec(["cat", site.topology]).out)
    assert line
    site.remove("cmp2")
    site.unchanged()
    site.hosts["cmp2"].create()
    site.route()
    trust(site.control, site.hosts.values())
    site.edit(r"^(  cmp1: \{.*\n)", r"\1" + line[0])
    run = site.converge()
    assert run.verified == HYPERVISORS, run.said
    after = site.starts()
    assert {zone for zone in before if after[zone] != before[zone]} == {"cmp2-nova-compute-1"}
    site.unchanged()
