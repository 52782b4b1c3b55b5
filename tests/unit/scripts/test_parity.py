# SPDX-License-Identifier: GPL-3.0-or-later
"""Parity: the shipped examples have not drifted apart, and a planted difference of each class is found as that class."""

from __future__ import annotations

import functools
import html.parser
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

import parity
from cloud import compute
from comparison.differences import Comparison, Difference, differing, shown
from comparison.report import html as page_of
from comparison.rules import RULES, Rules
from comparison.sides import Side, throw_away, transplanted
from deployment import ROOT, Deployment, DeploymentError
from parse import Symbols, leaves, settings
from rendering import find_collections

TOPOLOGY = """\
plugin: zonestack.openstack.topology
deployment: dev
release: "2026.2"
networks: {zone: {cidr: 10.77.0.0/21, interface: eth1}}
hosts: {dev1: {id: 1, connection: local}}
services: {galera: {count: 1}, memcached: , haproxy: , keystone: {count: 2}}
"""
RULES_OF_OURS = Rules([RULES])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout's folder with two deployments that are the same: ``one`` and ``other``."""
    for name in ("one", "other"):
        folder = tmp_path / "inventory" / name
        (folder / "group_vars").mkdir(parents=True)
        (folder / "topology.yml").write_text(TOPOLOGY)
    return tmp_path


def compare(root: Path, *rules: Path, one: str = "one", other: str = "other") -> list[Difference]:
    return Comparison(Deployment(one, root), Deployment(other, root), Rules([*rules, RULES])).differences


def change(root: Path, *edits: tuple[str, str], name: str = "other") -> None:
    path = root / "inventory" / name / "topology.yml"
    text = path.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def write(root: Path, path: str, data: object, name: str = "other") -> None:
    target = root / "inventory" / name / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(data))


def of(differences: list[Difference], kind: str) -> list[tuple[str, str, str, str | None, str | None]]:
    return [(one.where, one.file, one.key, one.mine, one.theirs) for one in differences if one.kind == kind]


def test_the_examples_have_not_drifted_apart() -> None:
    """The claim that all rests on: what a developer ran on one host is what production runs on many."""
    found = Comparison(Deployment("examples/aio"), Deployment("examples/production"), RULES_OF_OURS).differences
    assert of(found, "drift") == []
    # It has looked: the classes that are no drift are there, and so is every part of the configuration.
    assert {one.kind for one in found} == {"identity", "scale"}
    assert {"/etc/nova/nova.conf", "/etc/nftables.conf", "/etc/haproxy/haproxy.cfg", "(zone)"} <= {
        one.file for one in found
    }


def on_backend(folder: Path, backend: str) -> Path:
    """The example of the all-in-one as topology.yml, its control plane on a host of this backend, beside a hypervisor with Linux's kernel."""
    data = yaml.safe_load((ROOT / "inventory/examples/aio/topology.yml").read_text())
    data |= {
        "spread": "none",
        "hosts": {
            "ctl1": {"id": 1, "address": "192.0.2.11", "user": "root", "backend": backend},
            "cmp1": {"id": 2, "address": "192.0.2.12"},
        },
    }
    data["networks"]["zone"]["bridge"] = "zones0"  # a NIC tag there, a bridge here
    data["cloud"]["networks"]["public"]["gateway_host"] = "cmp1"
    parts = {
        "nova": ("nova_api", "nova_metadata", "nova_conductor", "nova_scheduler", "nova_novncproxy", "nova_compute"), "neutron": ("neutron_api", "neutron_workers"),
    }  # fmt: skip
    for name, placed in data["services"].items():
        here = {part: {"hosts": ["cmp1" if part == "nova_compute" else "ctl1"]} for part in parts.get(name, ())}
        data["services"][name] = here or {**(placed or {}), "hosts": ["ctl1"]}
    path = folder / backend / "topology.yml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(data))
    return path


def test_zones_of_smartos_differ_from_those_of_lxc_in_what_a_table_names_and_in_no_other_key(tmp_path: Path) -> None:
    """The same topology, names, addresses and secrets: every key of every file of every zone."""
    find_collections()
    made = {path: compute(path) for path in (on_backend(tmp_path, backend) for backend in ("lxc", "smartos"))}
    secrets = throw_away(*made.values())
    lxc, smartos = (Side(path, computed, secrets) for path, computed in made.items())
    assert len(lxc.computed.zones) == len(smartos.computed.zones) > 15
    none, unnamed, used, compared = Symbols({}), [], [], 0
    for component in lxc.computed.zones:
        assert lxc.members(component) == smartos.members(component)
        for zone in lxc.members(component):
            files = [side.files(side.rendering.variables(zone), none) for side in (lxc, smartos)]
            compared += sum(map(len, files[0].values()))
            for file, key, mine, theirs in differing(*files):
                rule = RULES_OF_OURS.backend(component, file, key)
                if rule and lxc.computed.zones[component][0].host == "ctl1":
                    used.append(rule)
                else:
                    unnamed.append((zone, file, key, shown(mine), shown(theirs)))
    assert unnamed == []
    assert [rule for rule in RULES_OF_OURS.backends if rule not in used] == [], "no rule without a difference"
    assert compared > 2000


def test_a_deployment_does_not_differ_from_itself(root: Path) -> None:
    assert compare(root, other="one") == []


def test_secrets_of_two_deployments_are_their_own_and_never_shown(root: Path) -> None:
    found = compare(root)
    assert {one.kind for one in found} == {"identity"}
    assert (
        "keystone",
        "/etc/keystone/keystone.conf.d/secrets.conf",
        "[database] connection",
        "(secret)",
        "(secret)",
    ) in of(found, "identity")
    made = Comparison(Deployment("one", root), Deployment("other", root), RULES_OF_OURS)
    hidden = [
        text
        for side in (made.mine, made.theirs)
        for path, text in leaves(side.secrets)
        if not path.endswith("certificate")
    ]
    assert hidden and not [
        text for text in hidden if text in repr(made.differences) + page_of("one", "other", made.differences)
    ]


def test_names_and_addresses_are_identity(root: Path) -> None:
    change(
        root,
        ("deployment: dev", "deployment: prod"),
        ("10.77.0.0/21", "10.64.0.0/16"),
        ("hosts: {dev1: {id: 1", "hosts: {ctl1: {id: 5"),
    )
    change(root, ("release:", "region: North\nendpoints: {external: cloud.example.net}\nrelease:"))
    found = compare(root)
    assert of(found, "drift") == []
    assert [row[2] for row in of(found, "scale")] == ["hosts"]
    assert (
        "keystone",
        "/etc/keystone/keystone.conf",
        "[DEFAULT] public_endpoint",
        "https://10.77.0.5:5000",
        "https://cloud.example.net:5000",
    ) in of(found, "identity")


def test_numbers_and_sizes_are_scale(root: Path) -> None:
    change(
        root,
        ("galera: {count: 1}", "galera: {count: 1, memory: 8192}"),
        ("keystone: {count: 2}", "keystone: {count: 3, vcpus: 4}"),
    )
    found = compare(root)
    assert of(found, "drift") == []
    scale = of(found, "scale")
    assert ("galera", "", "memory", "2048", "8192") in scale and ("keystone", "", "zones", "2", "3") in scale
    assert (
        "galera",
        "/etc/mysql/mariadb.conf.d/99-zonestack.cnf",
        "[mariadbd] innodb_buffer_pool_size",
        "1024M",
        "4096M",
    ) in scale
    assert {"/etc/haproxy/haproxy.cfg", "/etc/systemd/system/keystone-api.service"} <= {row[1] for row in scale}


def test_an_override_is_drift_unless_it_is_a_number_whose_key_a_rule_knows(root: Path) -> None:
    mine = {"token": {"expiration": 60}, "database": {"max_pool_size": 8, "max_overflow": "many"}}
    write(root, "group_vars/keystone.yml", {"service_conf": {"keystone.conf": mine}})
    found, file = compare(root), ("keystone", "/etc/keystone/keystone.conf")
    assert of(found, "drift") == [
        (*file, "[database] max_overflow", "20", "many"),
        (*file, "[token] expiration", "43200", "60"),
    ]
    assert of(found, "scale") == [(*file, "[database] max_pool_size", "5", "8")]


def test_an_override_of_one_zone_counts_on_other_machines_too(root: Path) -> None:
    change(root, ("dev1: {id: 1", "ctl1: {id: 2"))
    write(root, "host_vars/dev1-keystone-2.yml", {"zone_conf": {"keystone.conf": {"DEFAULT": {"debug": True}}}}, "one")
    write(root, "group_vars/dev1_zones.yml", {"of_a_host_that_the_other_has_not": 1}, "one")
    assert of(compare(root), "drift") == [
        ("ctl1-keystone-2", "/etc/keystone/keystone.conf", "[DEFAULT] debug", "true", None)
    ]


def test_an_override_with_the_deployments_own_address_is_identity(root: Path) -> None:
    change(root, ("10.77.0.0/21", "10.64.0.0/16"))
    for name, address in (("one", "10.77.0.5"), ("other", "10.64.0.5")):
        write(
            root,
            "group_vars/keystone.yml",
            {"service_conf": {"keystone.conf": {"cors": {"allowed_origin": f"https://{address}"}}}},
            name,
        )
    found = compare(root)
    assert of(found, "drift") == []
    assert (
        "keystone",
        "/etc/keystone/keystone.conf",
        "[cors] allowed_origin",
        "https://10.77.0.5",
        "https://10.64.0.5",
    ) in of(found, "identity")


def test_a_declaration_of_its_own_is_drift_in_image_files_and_service(root: Path) -> None:
    service = yaml.safe_load((ROOT / "services/memcached/service.yml").read_text())
    service["image"]["packages"].append("strace")
    service["config"]["/etc/memcached.conf"]["mode"] = "0600"
    service["ports"]["memcached"]["from"] = ["any"]
    write(root, "services/memcached/service.yml", service)
    drift = of(compare(root), "drift")
    assert ("memcached", "/etc/memcached.conf", "(owner and mode)", "root:root 0644", "root:root 0600") in drift
    assert [row[0] for row in drift if row[2] == "image"] == ["memcached"]
    assert [
        row
        for row in drift
        if row[1] == "/etc/nftables.conf" and row[4] == 'tcp dport 11211 accept comment "memcached"'
    ]


def test_what_only_one_deploys_is_drift(root: Path) -> None:
    change(root, ("keystone: {count: 2}", "keystone: {count: 2}, log: "))
    drift = of(compare(root), "drift")
    assert ("log", "", "component", None, "deployed") in drift
    # and so is what follows from it in the zones of all others
    assert ("galera", "/etc/systemd/journal-upload.conf", "", None, "there") in drift


def test_a_cluster_in_one_only_is_drift_though_its_size_is_scale(root: Path) -> None:
    change(root, ("galera: {count: 1}", "galera: {count: 3}"))
    found = compare(root)
    assert of(found, "drift") == [("", "", "cluster of galera", None, "3 zones")]
    assert ("galera", "", "zones", "1", "3") in of(found, "scale")


def test_topology_that_no_rule_explains_is_drift(root: Path) -> None:
    change(root, ("cidr: 10.77.0.0/21", "cidr: 10.77.0.0/21, mtu: 9000"))
    drift = of(compare(root), "drift")
    assert ("", "topology.yml", "networks.zone.mtu", "1500", "9000") in drift
    assert ("keystone", "(zone)", "networks.0.mtu", "1500", "9000") in drift


def test_a_certificate_that_the_site_trusts_is_identity(root: Path) -> None:
    made = Comparison(Deployment("one", root), Deployment("other", root), RULES_OF_OURS)
    folder = root / "inventory/other/ca-certificates"
    folder.mkdir()
    (folder / "site.crt").write_text(made.theirs.secrets["pki"]["ca_certificate"])
    found = compare(root)
    assert of(found, "drift") == []
    assert {row[0] for row in of(found, "identity") if row[2] == "image"} == {
        "galera",
        "memcached",
        "haproxy",
        "keystone",
    }


def test_a_sites_rules_come_first(root: Path, tmp_path: Path) -> None:
    write(root, "group_vars/keystone.yml", {"service_conf": {"keystone.conf": {"token": {"expiration": 60}}}})
    rules = tmp_path / "rules.yml"
    rules.write_text(
        'keys: [{component: keystone, key: "[[]token] expiration", class: identity, why: the law there}]\n'
    )
    found = compare(root, rules)
    assert of(found, "drift") == []
    assert [one.why for one in found if one.key == "[token] expiration"] == ["the law there"]
    rules.write_text("topology: [{path: deployment, class: drift, why: they must bear one name}]\n")
    change(root, ("deployment: dev", "deployment: prod"))
    assert ("", "topology.yml", "deployment", "dev", "prod") in of(compare(root, rules), "drift")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key: []\n", "must be a mapping with these keys: topology, keys, backends, identity"),
        ("keys: [{key: a, class: fine, why: b}]\n", "keys[0].class: 'fine' is none of drift, scale, identity"),
        ("keys: [{key: a, class: drift}]\n", "keys[0]: write {key: .., class: .., why: ..}"),
        ("keys: [\n", "cannot be read"),
    ],
)
def test_bad_rules_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(text)
    with pytest.raises(DeploymentError, match=re.escape(message)):
        Rules([path, RULES])


def test_what_is_explained_comes_from_the_other_topology_and_no_host_is_left_behind() -> None:
    mine = {
        "deployment": "a",
        "endpoints": {"internal": "10.0.0.5"},
        "hosts": {"a1": {"id": 1}},
        "services": {"keystone": {"count": 2}, "own": {"hosts": ["a1"]}},
    }
    mine["cloud"] = {
        "networks": {
            "public": {"cidr": "1", "gateway_host": "a1", "mtu": 9000},
            "lab": {"cidr": "2", "gateway_host": "a1"},
        }
    }
    theirs = {
        "deployment": "b",
        "hosts": {"b1": {"id": 4}},
        "services": {"keystone": {"count": 5}, "log": None},
        "cloud": {"networks": {"public": {"cidr": "3", "interface": "eth1"}}},
    }
    assert transplanted(mine, theirs, RULES_OF_OURS, {"b1"}) == {
        "deployment": "b",
        "hosts": {"b1": {"id": 4}},
        "services": {"keystone": {"count": 5}, "own": {}},
        "cloud": {"networks": {"public": {"cidr": "3", "mtu": 9000, "interface": "eth1"}, "lab": {"cidr": "2"}}},
    }


NAMES = Symbols(
    {
        "10.0.0.7": ("address", "a·1"),
        "a-1": ("zone", "a·1"),
        "s3cret": ("secret", "a"),
        "10.0.0.5": ("entry", ""),
        "a.example": ("entry", ""),
    }
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a]\nb = 1\nb = 2\n# c = 3\n", {"[a] b": ["1", "2"]}),
        (
            "DEBUG = True\nCACHES = {\n    \"default\": {\n        'x': 1,\n",
            {"DEBUG": ["True"], "CACHES": ["{"], "CACHES default": ["{"], "CACHES default x": ["1,"]},
        ),
        ("listen a\n  mode http\n  option b\n", {"listen": ["a"], "listen a mode": ["http"], "listen a option": ["b"]}),
        ("clouds:\n  x:\n    y: z\n", {"clouds": [""], "clouds x": [""], "clouds x y": ["z"]}),
        ("export A='b'\nuser ALL=(root)\n", {"A": ["'b'"], "user": ["ALL=(root)"]}),
        ("10.0.0.7 a-1\n", {"‹address·a·1›": ["‹zone·a·1›"]}),
        ("u: p://x:s3cret@10.0.0.7:1\n", {"u": ["p://x:‹secret·a›@‹address·a·1›:1"]}),
        # no part of a longer address or name, and one way in is as good as two
        ("a: 10.0.0.71 a-10 b-a-1 10.0.0.7.example\n", {"a": ["10.0.0.71 a-10 b-a-1 10.0.0.7.example"]}),
        ('a: ["10.0.0.5", "a.example"]\n', {"a": ['["‹entry·›"]']}),
    ],
)
def test_settings_of_any_format(text: str, found: dict[str, list[str]]) -> None:
    assert {key: [value.meaning for value in values] for key, values in settings(text, NAMES).items()} == found


class Page(html.parser.HTMLParser):
    """Which elements are open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_command_prints_writes_and_says_by_its_exit_code(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity, "Deployment", functools.partial(Deployment, root=root))

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["parity", *arguments])
        with pytest.raises(SystemExit) as ended:
            parity.command(parity.main, refused=2)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    assert call("one", "one") == (0, f"one and one: no difference\nwrote {root}/logs/one/parity.html\n")
    write(
        root,
        "group_vars/keystone.yml",
        {"service_conf": {"keystone.conf": {"token": {"expiration": 60, "note": "<b>"}}}},
    )
    rc, text = call("one", "other", "--output", str(root))
    assert rc == 1 and "[token] expiration" in text and "43200" in text and "2 of drift" in text
    page = (root / "parity.html").read_text()
    parser = Page()
    parser.feed(page)
    assert parser.open == [] and "&lt;b&gt;" in page and not re.findall(r"(?:src=|@import|url\(|<link|href=)", page)
    rc, text = call("one", "other", "--json")
    assert rc == 1 and {(one["file"], one["key"]) for one in json.loads(text) if one["kind"] == "drift"} == {
        ("/etc/keystone/keystone.conf", "[token] expiration"),
        ("/etc/keystone/keystone.conf", "[token] note"),
    }
    change(root, ("release:", "releases:"))
    rc, text = call("one", "other")
    assert rc == 2 and "releases" in text
    rc, text = call("one", "nowhere")
    assert rc == 2 and "there is no inventory/nowhere/topology.yml" in text
