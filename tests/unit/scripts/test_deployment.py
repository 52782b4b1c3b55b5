# SPDX-License-Identifier: GPL-3.0-or-later
"""What bootstrap-aio.sh writes, and that it writes it once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from deployment import ROOT, Deployment, DeploymentError, aio_topology, write_aio

EXAMPLE = "inventory/examples/aio/topology.yml"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / EXAMPLE).parent.mkdir(parents=True)
    shutil.copy(ROOT / EXAMPLE, tmp_path / EXAMPLE)
    return tmp_path


def test_topology_gets_network_address_and_store() -> None:
    text = aio_topology((ROOT / EXAMPLE).read_text(), "172.29.8.0/21", "dir")
    topology = yaml.safe_load(text)
    assert topology["networks"]["zone"]["cidr"] == "172.29.8.0/21"
    assert topology["cloud"]["networks"]["public"]["cidr"] == "172.29.16.0/24"
    assert topology["endpoints"]["internal"] == "172.29.8.5"
    assert topology["hosts"]["aio1"]["store"] == "dir"
    assert text.count("#") == (ROOT / EXAMPLE).read_text().count("#"), "the comments stay"


def test_second_writing_changes_nothing(checkout: Path) -> None:
    authorities = checkout / "ca"
    authorities.mkdir()
    (authorities / "company.crt").write_text("first")
    assert len(write_aio("10.9.0.0/21", "overlay", checkout, authorities)) == 3
    assert write_aio("10.99.0.0/21", "dir", checkout, authorities) == [], "an existing deployment is its owner's"
    assert Deployment("aio", checkout).folder.stat().st_mode & 0o777 == 0o700


def test_renewed_certificate_is_taken_over(checkout: Path) -> None:
    authorities = checkout / "ca"
    authorities.mkdir()
    (authorities / "company.crt").write_text("first")
    write_aio("10.9.0.0/21", "overlay", checkout, authorities)
    (authorities / "company.crt").write_text("second")
    assert write_aio("10.9.0.0/21", "overlay", checkout, authorities) == [
        "inventory/aio/ca-certificates/company.crt (extra certificate of this machine)"
    ]


def test_unknown_deployment_names_those_there_are(checkout: Path) -> None:
    write_aio("10.9.0.0/21", "overlay", checkout, checkout / "none")
    with pytest.raises(DeploymentError, match=r"inventory/prod/topology.yml \(deployments here: aio;"):
        Deployment("prod", checkout).require()


def test_every_secret_is_found(checkout: Path) -> None:
    deployment = Deployment("aio", checkout)
    deployment.folder.mkdir(parents=True)
    deployment.secrets.write_text("secrets: {a: one, b: {c: [two, 3]}, d: null, e: true}\n")
    assert deployment.secret_values() == ["one", "two", "3"]
