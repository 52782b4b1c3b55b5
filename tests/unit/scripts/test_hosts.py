# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a host, as far as commands decide it: what a limit to one means in each play, and when one may be removed."""

from __future__ import annotations

import io
import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible import constants
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

import remove_host
from cloud import Cloud, compute, load
from deployment import ROOT, Deployment, DeploymentError, confirmed
from options import STEPS
from run import with_zones

EXAMPLES = sorted(path.parent.name for path in ROOT.glob("inventory/examples/*/topology.yml"))
HOST_GROUPS = {"zone_hosts", "lxc_hosts", "smartos_hosts", "linked_hosts", "image_fetchers"}


def plays() -> list[tuple[str, str]]:
    """Name and host pattern of every play of a run."""
    return [
        (play["name"], play["hosts"])
        for step in STEPS
        for play in yaml.safe_load((ROOT / f"playbooks/{step}.yml").read_text())
    ]


def manager(topology: Path) -> InventoryManager:
    before, constants.INVENTORY_ENABLED = constants.INVENTORY_ENABLED, ["zonestack.openstack.topology"]
    try:
        return InventoryManager(loader=DataLoader(), sources=[str(topology)])
    finally:
        constants.INVENTORY_ENABLED = before


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> tuple[Cloud, InventoryManager]:
    deployment = Deployment(f"examples/{request.param}")
    return load(deployment), manager(deployment.topology)


def matched(inventory: InventoryManager, pattern: str, limit: str | None) -> set[str]:
    inventory.subset(limit)
    return {host.name for host in inventory.get_hosts(pattern)}


def test_a_limit_to_a_host_is_the_host_and_its_zones_in_every_play(example: tuple[Cloud, InventoryManager]) -> None:
    cloud, inventory = example
    assert len(plays()) > 15
    for host in cloud.hosts:
        limit, zones = with_zones(host, cloud), {name for name, zone in cloud.zones.items() if zone.host == host}
        for name, pattern in plays():
            every = matched(inventory, pattern, None)
            own = {host} if pattern.partition(":")[0] in HOST_GROUPS else zones
            # Of the first of a group, Ansible takes the first that the limit leaves.
            whole = matched(inventory, pattern.partition("[")[0], None) if "[" in pattern else every
            found = matched(inventory, pattern, limit)
            assert found <= own, (name, host)
            assert found == whole & own or ("[" in pattern and len(found) <= 1), (name, host)
        assert matched(inventory, "zones", limit) == zones


def test_limits_that_are_no_hosts_stay_as_they_are(example: tuple[Cloud, InventoryManager]) -> None:
    cloud, inventory = example
    zone, first = next(iter(cloud.zones)), cloud.hosts[0]
    for limit in (None, zone, "keystone[0]", f"~{zone}", "keystone,zone_hosts"):
        assert with_zones(limit, cloud) == limit
    assert with_zones(f"all:!{first}", cloud) == f"all,!{first},!{first}_zones"
    rest = matched(inventory, "zones", with_zones(f"all:!{first}", cloud))
    assert rest == {name for name, zone in cloud.zones.items() if zone.host != first}
    assert with_zones(f"keystone:&{first}_zones", cloud) == f"keystone,&{first}_zones"


def test_a_group_of_hosts_stands_for_the_zones_of_all() -> None:
    cloud = load(Deployment("examples/production"))
    assert with_zones("compute", cloud) == "compute,cmp1_zones,cmp2_zones,cmp3_zones"


# Removing -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def prod(tmp_path: Path) -> t.Callable[[str], Deployment]:
    """The production example with some hosts on their way out."""

    def write(*names: str) -> Deployment:
        made = Deployment("prod", tmp_path)
        made.folder.mkdir(parents=True)
        text = (ROOT / "inventory/examples/production/topology.yml").read_text()
        for name in names:
            assert f"  {name}: {{id" in text
            text = text.replace(f"  {name}: {{id", f"  {name}: {{leaving: true, id")
        made.topology.write_text(text)
        return made

    return write


def test_a_host_that_is_to_stay_is_not_removed(prod: t.Callable[..., Deployment]) -> None:
    computed = compute(prod("cmp3").topology)
    assert remove_host.leaving(computed, "cmp3").id == 103
    with pytest.raises(
        DeploymentError,
        match=r"host 'cmp2' is not leaving yet. Set `leaving: true` in its line of topology.yml \(hosts.cmp2\)",
    ):
        remove_host.leaving(computed, "cmp2")
    with pytest.raises(DeploymentError, match=r"topology.yml has no host 'cmp9' \(hosts: ctl1, .*cmp3\)"):
        remove_host.leaving(computed, "cmp9")


def test_hosts_that_others_cannot_do_without_are_refused_by_the_topology(prod: t.Callable[..., Deployment]) -> None:
    with pytest.raises(
        DeploymentError, match=r"services.galera.hosts: .*galera votes and would have 2 of its 3 members .* host 'ctl1'"
    ):
        compute(prod("ctl2").topology)


def test_inventory_without_a_host_names_it_nowhere_but_to_be_reached(prod: t.Callable[..., Deployment]) -> None:
    deployment = prod("cmp3")
    inventory = manager(deployment.topology)
    assert matched(inventory, "leaving_hosts", None) == {"cmp3"}
    assert all("cmp3" not in matched(inventory, pattern, None) for _name, pattern in plays())
    assert "cmp3" not in load(deployment).hosts


@pytest.mark.parametrize(
    ("script", "dead", "message", "limit"),
    [
        ("exit 81", False, None, 60),
        ("exit 255", True, None, 60),
        ("exit 81", True, "--dead: h answers at 192.0.2.1: omit --dead, or switch the host off first", 60),
        (
            "exit 255",
            False,
            "h does not answer at 192.0.2.1: scripts/preflight.sh shows why. If it is lost for good, use --dead",
            60,
        ),
        ("exec sleep 1000", False, "h does not answer", 1),
    ],
)
def test_what_is_said_of_its_life_must_be_so(
    monkeypatch: pytest.MonkeyPatch, script: str, dead: bool, message: str | None, limit: int
) -> None:
    monkeypatch.setattr(remove_host, "ANSWER_LIMIT", limit)

    class Host:
        address = "192.0.2.1"

    def check() -> None:
        remove_host.check_life("h", Host(), dead, lambda _host, _script: ["sh", "-c", script])

    if message is None:
        check()
    else:
        with pytest.raises(DeploymentError) as refused:
            check()
        assert str(refused.value).startswith(message)


def test_what_is_run_has_all_steps_between_its_two_ends() -> None:
    everything = remove_host.playbooks_for(False, True)
    assert everything == [
        "leave",
        "hosts",
        "images",
        "zones",
        "infrastructure",
        "services",
        "contents",
        "forget",
        "verify",
    ]
    assert set(everything) == {"leave", "forget", *STEPS}
    assert remove_host.playbooks_for(False, False) == everything[:-1]
    assert remove_host.playbooks_for(True, True) == ["leave"]
    assert all((ROOT / f"playbooks/{name}.yml").is_file() for name in everything)
    option, variables, check = remove_host.arguments_for("cmp3", True, ["glance"], True)
    assert (option, check) == ("--extra-vars", "--check")
    assert json.loads(variables) == {"leave_host": "cmp3", "leave_dead": True, "leave_lose": ["glance"]}


@pytest.mark.parametrize(("typed", "goes_on"), [("cmp3", True), (" cmp3 ", True), ("yes", False), ("", False)])
def test_what_would_be_lost_is_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, goes_on: bool
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{typed}\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert confirmed(remove_host.consequence("cmp3", "prod", dead=False), "cmp3") is goes_on
    assert "'cmp3' leaves deployment 'prod'" in capsys.readouterr().out


def test_nothing_is_lost_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(DeploymentError, match="there is no terminal: add --yes"):
        confirmed("All is lost.", "cmp3")
