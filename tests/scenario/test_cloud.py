# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cloud boots instances, and they live through what happens to the zones around them. The order counts, see conftest.py."""

from __future__ import annotations

import re
import secrets as random
import shlex
from xml.etree import ElementTree

import pytest

from deployed import COMPUTE, ZONES, Deployed, Run, until
from host import CHECKOUT
from instance import Instance
from journals import findings


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Rebuild every zone in turn."""
    if "rebuilt" in metafunc.fixturenames:
        # the compute zone last: the instance has to run on while the others go
        metafunc.parametrize("rebuilt", [*sorted(ZONES - {COMPUTE}), COMPUTE])


@pytest.fixture(scope="session")
def instances() -> dict[str, Instance]:
    """The instance of each suite, by its name."""
    return {}


@pytest.fixture
def instance(cloud: Deployed, suite: str, instances: dict[str, Instance]) -> Instance:
    """An instance that answers, the same for all scenarios of a suite."""
    if suite not in instances:
        instances[suite] = Instance.make(cloud, f"lives-{random.token_hex(3)}", "tiny")
    instances[suite].wait()
    return instances[suite]


@pytest.mark.every_suite
def test_the_one_command_ended_with_a_verified_instance(fresh: tuple[Deployed, Run]) -> None:
    """The summary of the first run says that an instance was booted and reached."""
    _cloud, run = fresh
    assert run.verified == {"aio1-nova-compute-1"}, run.said


def test_second_run_leaves_instances_alone(cloud: Deployed, instance: Instance) -> None:
    """A run with an instance in the cloud changes nothing, and the instance is not started anew."""
    boot, before = instance.boot_id(), cloud.starts()
    run = cloud.converge("--no-verify")
    assert {name: count for name, count in run.changes.items() if count} == {}
    assert cloud.starts() == before
    assert instance.boot_id() == boot


# -- the dashboard, in a real browser ------------------------------------------------------------------------------------


def test_the_dashboard_shows_the_instance(cloud: Deployed, instance: Instance) -> None:
    """A person logs in over https, sees the instance, its console and its network, and logs out; nothing says error."""
    said = cloud.browse("--instance", instance.name)
    assert re.findall(r"^(\w+): ok$", said, re.MULTILINE) == [
        "login",
        "projects",
        "overview",
        "instances",
        "console",
        "topology",
        "logout",
    ]


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.long("operator"))])
def test_a_session_outlives_either_zone_of_the_dashboard(cloud: Deployed, number: int) -> None:
    """Whoever is logged in stays so when one of the dashboard's zones is gone."""
    zone = f"aio1-horizon-{number}"
    try:
        assert "projects: ok" in cloud.browse("--then", shlex.join(cloud.host.argv(["lxc-stop", "-k", "-n", zone])))
    finally:
        cloud.host.exec(["lxc-start", "-n", zone], check=False)
    # HAProxy may not have missed it yet: its daemon is asked too.
    until(
        lambda: cloud.inside(zone, "systemctl is-active horizon", check=False).rc == 0 and cloud.up(zone),
        f"HAProxy sees {zone} up",
        600,
    )


@pytest.mark.long("operator")
def test_dashboard_setting_that_nobody_reads_is_refused(cloud: Deployed) -> None:
    """A misspelt setting is named, with the right one, before anything is changed."""
    before = cloud.starts()
    try:
        cloud.override("service_conf:\n  local_settings.py: {SITE_BRANDNG: My cloud}\n", "horizon")
        run = cloud.run()
    finally:
        cloud.override(None, "horizon")
    assert run.rc != 0
    assert "did you mean SITE_BRANDING?" in run.out, run.said
    assert cloud.starts() == before


@pytest.mark.long("tempest")
def test_tempest_finds_no_fault(cloud: Deployed) -> None:
    """The project's own interoperability suite passes, whole, and its report can be read."""
    done = cloud.script("verify.sh", "--tempest")
    said = re.search(r"verified: Tempest [\d.]+: (\d+) passed, (\d+) skipped, 0 failed", done.out)
    assert done.rc == 0 and said, done.out + done.err
    passed, skipped = map(int, said.groups())
    assert passed > 80, "that was not the whole suite"
    report = ElementTree.parse(cloud.file(f"{CHECKOUT}/logs/aio/tempest/junit.xml")).getroot()
    assert len(list(report.iter("testcase"))) == passed + skipped
    assert list(report.iter("failure")) == []


@pytest.mark.long("tempest")
def test_journals_are_clean(cloud: Deployed) -> None:
    """Deployment, verification, a run, visits of the dashboard and Tempest leave no error, no traceback and no secret."""
    found = findings(cloud)
    assert not found, "\n".join(found)


# -- bad input -----------------------------------------------------------------------------------------------------------


BAD = {
    "flavor without RAM": (
        r"  flavors:.*\n",
        "  flavors:\n    broken: {vcpus: 1, disk: 1}\n",
        r"cloud\.flavors\.broken\.ram: the key is missing",
    ),
    "provider network over the zones'": (
        r"public: \{cidr: [\d./]+",
        "public: {cidr: 10.77.4.0/24",
        r"cloud\.networks\.public\.cidr: .*overlaps network 'zone'",
    ),
    "unknown release": (r'release: "[\d.]+"', 'release: "2031.1"', r"release: value '2031\.1': .*known: 2026\.2"),
    "image with a wrong checksum": (
        r"  images:.*\n",
        "  images:\n    broken: {file: /etc/os-release, disk_format: raw, checksum: 'sha256:" + "0" * 64 + "'}\n",
        r"broken.*sha256",
    ),
}


@pytest.mark.long("operator")
@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_before_anything_changes(cloud: Deployed, what: str) -> None:
    """What is wrong in topology.yml ends the run at once, names the key and the fix, and nothing has changed."""
    pattern, instead, said = BAD[what]
    path = f"{CHECKOUT}/inventory/aio/topology.yml"
    good = cloud.host.exec(["cat", path]).out
    bad = re.sub(pattern, lambda _found: instead, good, count=1)
    assert bad != good, f"the topology has nothing like {pattern!r}"
    before = cloud.starts()
    try:
        cloud.host.exec(f"cat > {path}", input=bad)
        run = cloud.run()
    finally:
        cloud.host.exec(f"cat > {path}", input=good)
    assert run.rc != 0
    assert re.search(said, run.out), run.said
    assert sum(run.changes.values()) == 0
    assert cloud.starts() == before


# -- from here on zones die ----------------------------------------------------------------------------------------------


@pytest.mark.long("rebuild-each")
def test_rebuild_under_an_instance(cloud: Deployed, instance: Instance, rebuilt: str) -> None:
    """A zone that was destroyed is back after a run; the API answers, and the instance has not noticed.

    That of the compute zone itself comes back: the same disk, started again.
    """
    boot = instance.boot_id()
    mark = random.token_hex(8)
    instance.ssh(f"echo {mark} > mark && sync")
    cloud.destroy(rebuilt)
    cloud.converge("--no-verify")  # what matters is the instance that is there already
    assert cloud.zones(running=True) == ZONES
    until(lambda: instance.state() == "ACTIVE", "Nova says that the instance runs", 600)
    instance.wait()
    assert instance.ssh("cat mark").strip() == mark
    assert (instance.boot_id() == boot) is (rebuilt != COMPUTE)
    assert "zonestack-test" in {image["Name"] for image in cloud.openstack("image", "list")}


@pytest.mark.long("rebuild-each")
def test_power_loss_with_an_instance(cloud: Deployed, instance: Instance) -> None:
    """Every zone is killed at once; after one run the old instance runs, with its data, and the clusters are whole."""
    mark = random.token_hex(8)
    instance.ssh(f"echo {mark} > mark && sync")
    cloud.host.exec("for z in $(lxc-ls -1 --running); do lxc-stop -k -n $z & done; wait")
    cloud.converge("--no-verify")
    until(lambda: instance.state() == "ACTIVE", "Nova says that the instance runs", 600)
    instance.wait()
    assert instance.ssh("cat mark").strip() == mark
    assert cloud.galera_sizes() == [3, 3, 3]
    assert cloud.rabbit_sizes() == [3, 3, 3]
    assert cloud.raft_sizes() == {"OVN_Northbound": [3, 3, 3], "OVN_Southbound": [3, 3, 3]}


# -- what all of it left in the logs -------------------------------------------------------------------------------------


def test_journals_are_clean_after_all(cloud: Deployed) -> None:
    """Since each zone's last start nothing is in its journal that needs an explanation which nobody has."""
    found = findings(cloud)
    assert not found, "\n".join(found)
