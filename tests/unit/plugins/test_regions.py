# SPDX-License-Identifier: GPL-3.0-or-later
"""Two deployments that share a Keystone: what each computes, what its zones are given, and what is refused."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.filter.stack import identity
from ansible_collections.zonestack.openstack.plugins.inventory.topology import read_cloud
from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority
from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Refused
from ansible_collections.zonestack.openstack.plugins.plugin_utils.secrets import complete, needed
from cloud import load, require_secrets_of_siblings  # noqa: E402
from deployment import Deployment, DeploymentError  # noqa: E402
from rendering import Rendering  # noqa: E402

SERVICES = ["galera", "rabbit_mq", "ovn", "memcached", "haproxy", "utility", "placement", "glance", "nova", "neutron"]


class Family:
    """Folders of deployments side by side; ``one`` has the Keystone, ``two`` uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data: dict[str, dict[str, t.Any]] = {}
        self.add("one", 77, [*SERVICES, "keystone", "horizon"], identity={"to": ["two"]}, region="RegionOne")
        self.add("two", 88, SERVICES, identity={"from": "one"}, region="RegionTwo")

    def add(self, name: str, octet: int, services: list[str], **more: t.Any) -> None:
        self.data[name] = {
            "release": "2026.2",
            "networks": {"zone": {"cidr": f"10.{octet}.0.0/21"}},
            "hosts": {f"{name}h": {"id": 1, "connection": "local"}},
            "services": dict.fromkeys(services),
            **more,
        }

    def write(self) -> None:
        for name, data in self.data.items():
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name / "topology.yml").write_text(yaml.safe_dump(data))

    def cloud(self, name: str) -> t.Any:
        self.write()
        return read_cloud(self.folder / name / "topology.yml")

    def secrets(self, name: str) -> dict[str, t.Any]:
        """The deployment's secrets, also in its file."""
        made = complete({}, needed(self.cloud(name).stack["services"]), lambda: new_authority(name)._asdict())[0]
        (self.folder / name / "secrets.yml").write_text(yaml.safe_dump({"secrets": made}))
        return made


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return Family(tmp_path)


def test_a_region_registers_with_the_shared_keystone_under_users_of_its_own(family: Family) -> None:
    cloud, own = family.cloud("two"), family.secrets("two")
    url = "https://10.77.0.5:5000/v3"
    assert cloud.stack["endpoint"]["keystone"] == {"public": url, "internal": url, "admin": url}
    assert "keystone" not in cloud.zones and "keystone" not in own
    found = identity(cloud.stack, own)
    assert {user["name"] for user in found["users"]} == {
        f"{name}-two" for name in ("glance", "neutron", "nova", "placement")
    }
    catalog = {service["type"]: service["endpoints"]["public"] for service in found["services"]}
    assert catalog["identity"] == url, "clients look for Keystone in their region"
    assert catalog["image"] == "https://10.88.0.5:9292"
    theirs = identity(family.cloud("one").stack, family.secrets("one"))
    shared = next(service for service in found["services"] if service["type"] == "identity")
    same = next(service for service in theirs["services"] if service["type"] == "identity")
    assert {**shared, "endpoints": None} == {**same, "endpoints": None}, (
        "two descriptions of one service would take turns"
    )
    assert not {user["name"] for user in found["users"]} & {user["name"] for user in theirs["users"]}


def test_the_one_with_the_keystone_computes_as_if_alone_but_for_whom_it_trusts(family: Family) -> None:
    shared = family.cloud("one").stack
    del family.data["one"]["identity"], family.data["two"]["identity"]
    alone = family.cloud("one").stack
    assert json.dumps({**shared, "identity": None}) == json.dumps({**alone, "identity": None})
    assert shared["identity"]["secrets"].keys() == {"two"} and alone["identity"]["secrets"] == {}


def test_the_keystone_is_asked_where_its_users_ask_it(family: Family) -> None:
    family.data["one"]["endpoints"] = {"external": "cloud.example.net"}
    assert family.cloud("two").stack["endpoint"]["keystone"]["internal"] == "https://cloud.example.net:5000/v3"


def test_zones_are_given_the_other_ones_login_and_authority(family: Family) -> None:
    secrets = {name: family.secrets(name) for name in ("one", "two")}
    for name, other in (("one", "two"), ("two", "one")):
        rendering = Rendering(family.folder / name / "topology.yml", {"secrets": secrets[name]})
        files = {entry["path"]: entry for entry in rendering.tree(rendering.variables(f"{name}h-utility-1"))["files"]}
        login = yaml.safe_load(files["/root/.config/openstack/clouds.yaml"]["content"])["clouds"][name]
        assert login["auth"] == {
            "auth_url": "https://10.77.0.5:5000/v3", "username": "admin", "password": secrets["one"]["keystone"]["admin_password"],
            "project_name": "admin", "user_domain_name": "Default", "project_domain_name": "Default",
        }  # fmt: skip
        own = family.data[name]["region"]
        assert login["regions"] == [own, family.data[other]["region"]] and "region_name" not in login, (
            "its own unless another one is named"
        )
        assert files["/root/.config/openstack/clouds.yaml"]["secret"]
        trusted = files[login["cacert"]]["content"]
        assert trusted == secrets[name]["pki"]["ca_certificate"] + secrets[other]["pki"]["ca_certificate"]
        assert files["/etc/zonestack/tls/ca.crt"]["content"] == secrets[name]["pki"]["ca_certificate"], (
            "between zones its own alone"
        )
    neutron = rendering.tree(rendering.variables("twoh-neutron-api-1"))["files"]
    text = {entry["path"]: entry["content"] for entry in neutron}
    assert text["/etc/neutron/neutron.conf"].count("username = neutron-two") == 3
    assert secrets["two"]["identity"]["neutron-two"] in text["/etc/neutron/neutron.conf.d/secrets.conf"]


def test_a_run_without_the_secrets_of_the_other_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    family = Family(tmp_path / "inventory")
    family.write()
    two = load(Deployment("two", tmp_path))
    with pytest.raises(
        DeploymentError, match="one/secrets.yml.*\n.*secrets.pki.ca_certificate and secrets.keystone.admin_password"
    ):
        require_secrets_of_siblings(two)
    family.secrets("one")
    require_secrets_of_siblings(two)
    assert two.password == tmp_path / "inventory/one/secrets.yml", (
        "where the summary says that the administrator's password is"
    )
    with pytest.raises(DeploymentError, match="otherwise copy secrets.pki.ca_certificate from there"):
        require_secrets_of_siblings(load(Deployment("one", tmp_path)))


def test_logs_hide_the_secrets_of_both(tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    family = Family(tmp_path / "inventory")
    admin, two = family.secrets("one")["keystone"]["admin_password"], family.secrets("two")["identity"]["nova-two"]
    for name in ("one", "two"):
        assert {admin, two} <= set(Deployment(name, tmp_path).secret_values())


@pytest.mark.parametrize(
    ("read", "path", "value", "where", "right"),
    [
        ("two", "two.identity", {"from": "three"}, "two/topology.yml: identity.from: value 'three'", "three/topology.yml: name a deployment's folder (known: one)"),
        ("two", "two.identity", {"from": "two"}, "identity.from: value 'two'", "that is this deployment itself: name another (known: one)"),
        ("two", "two.identity", {"from": "one", "to": ["one"]}, "identity.to", "it uses the Keystone of 'one', so it has none to share"),
        ("two", "one.identity", {"to": ["three"]}, "identity.from: value 'one'", "write `identity: {to: [three, two]}` there"),
        ("two", "one.identity", {"from": "three"}, "identity.from: value 'one'", "it uses the Keystone of 'three' itself: name that one"),
        ("two", "one.services", {"galera": None}, "identity.from: value 'one'", "one/topology.yml has no keystone under services"),
        ("two", "two.services.keystone", {"count": 2}, "services.keystone", "deployment 'one' has it for both (identity.from): leave it out here"),
        ("two", "two.services.horizon", {"count": 2}, "services.horizon", "deployment 'one' has it for both"),
        ("two", "two.region", "RegionOne", "region: value 'RegionOne'", "deployment 'one' is this region in the catalog that they share"),
        ("one", "one.region", "RegionTwo", "region: value 'RegionTwo'", "deployment 'two' is this region"),
        ("two", "two.deployment", "one", "deployment: value 'one'", "one/topology.yml has this name too"),
        ("two", "two.networks.zone.cidr", "10.77.4.0/22", "networks.zone.cidr: value '10.77.4.0/22'", "overlaps network 'zone' of deployment 'one' (10.77.0.0/21)"),
        ("one", "two.identity", None, "identity.to[0]: value 'two'", "does not say that it uses this one's Keystone: add `identity: {from: one}` there"),
        ("one", "one.services", {"galera": None}, "identity.to: value ['two']", "there is no Keystone to share: name keystone under services"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    family: Family, read: str, path: str, value: t.Any, where: str, right: str
) -> None:
    *way, last = path.split(".")
    data: t.Any = family.data
    for key in way:
        data = data[key]
    data[last] = value
    if value is None:
        del data[last]
    with pytest.raises(Refused) as refused:
        family.cloud(read)
    assert where in str(refused.value) and right in str(refused.value), str(refused.value)


def test_regions_of_the_same_keystone_are_told_apart_too(family: Family) -> None:
    family.add("three", 99, SERVICES, identity={"from": "one"}, region="RegionTwo")
    family.data["one"]["identity"]["to"].append("three")
    with pytest.raises(Refused, match="region: value 'RegionTwo': deployment 'two' is this region"):
        family.cloud("three")
    family.data["three"]["region"] = "RegionThree"
    assert family.cloud("three").stack["identity"]["secrets"].keys() == {"one"}
    assert family.cloud("three").stack["identity"]["regions"] == ["RegionThree", "RegionOne"], (
        "whose authority it trusts"
    )


def test_deployments_share_nothing_unless_they_say_so(family: Family) -> None:
    for data in family.data.values():
        data.pop("identity")
    family.data["two"]["services"]["keystone"] = None
    one, two = family.cloud("one"), family.cloud("two")
    zones = [{zone.uuid for every in cloud.zones.values() for zone in every} for cloud in (one, two)]
    assert not zones[0] & zones[1]
    assert {bridge["bridge"] for bridge in one.hosts["oneh"]["bridges"]} == {"zs-one"}
    assert {bridge["bridge"] for bridge in two.hosts["twoh"]["bridges"]} == {"zs-two"}
    assert two.stack["endpoint"]["keystone"]["internal"] == "https://10.88.0.5:5000/v3"
