# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose the zones on a host are, told from a note or from their own certificates."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.host import ownership
from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority

MINE, OTHER = new_authority("aio"), new_authority("aio")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without zones and notes."""
    monkeypatch.setattr(ownership, "FOLDERS", {"lxc": tmp_path / "owners"})
    monkeypatch.setattr(ownership.lxc_roots, "__defaults__", (tmp_path / "lxc",))
    return tmp_path


def zone(host: Path, name: str, certificate: str, deployment: str = "aio", store: str = "overlay") -> Path:
    place = {"overlay": f"lxc/{name}/upper", "dir": f"lxc/{name}/rootfs", "zfs": f"lxc/zonestack/roots/{name}"}[store]
    file = host / place / "etc/zonestack/tls/ca.crt"
    file.parent.mkdir(parents=True)
    if certificate:
        file.write_text(certificate)
    (host / "lxc" / name).mkdir(exist_ok=True)
    described = {"name": name, "store": store, "metadata": {"deployment": deployment}}
    (host / "lxc" / name / "zone.json").write_text(json.dumps(described))
    return file


def test_a_fingerprint_tells_deployment_and_authority_and_nothing_else() -> None:
    mine = ownership.fingerprint("aio", MINE.ca_certificate)
    assert len(mine) == 32 and int(mine, 16)
    assert mine == ownership.fingerprint(
        "aio", "# ours\n" + MINE.ca_certificate.replace("\n", "\r\n") + OTHER.ca_certificate
    )
    assert (
        len({mine, ownership.fingerprint("aio", OTHER.ca_certificate), ownership.fingerprint("b", MINE.ca_certificate)})
        == 3
    )


@pytest.mark.parametrize("text", ["", "none", "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_has_no_fingerprint(text: str) -> None:
    assert ownership.fingerprint("aio", text) == ""


@pytest.mark.parametrize("store", ["overlay", "dir", "zfs"])
def test_zones_without_a_note_tell_it_themselves(host: Path, store: str) -> None:
    zone(host, "aio1-galera-1", MINE.ca_certificate, store=store)
    zone(host, "aio1-galera-2", "", store=store)
    zone(host, "b1-galera-1", OTHER.ca_certificate, deployment="b", store=store)
    mine = ownership.fingerprint("aio", MINE.ca_certificate)
    assert ownership.owners("aio", "lxc") == [{"secrets": mine, "found": "zones aio1-galera-1"}]


def test_zones_of_two_authorities_are_told_both(host: Path) -> None:
    for number in range(1, 6):
        zone(host, f"a-{number}", MINE.ca_certificate)
    zone(host, "a-9", OTHER.ca_certificate)
    assert [one["found"] for one in ownership.owners("aio", "lxc")] == ["zones a-1, a-2, a-3 and 2 more", "zones a-9"]


def test_a_note_counts_alone(host: Path) -> None:
    zone(host, "a-1", MINE.ca_certificate)
    (host / "owners").mkdir()
    (host / "owners/aio").write_text(json.dumps({"secrets": "f" * 32, "by": "root on m", "since": "2026-11-30"}))
    assert ownership.owners("aio", "lxc") == [{"secrets": "f" * 32, "found": "noted by root on m on 2026-11-30"}]
    (host / "owners/aio").write_text("{broken")
    assert len(ownership.owners("aio", "lxc")) == 1, "a note that cannot be read hides no zone"


def test_a_zone_leads_nobody_out_of_its_root(host: Path) -> None:
    file = zone(host, "a-1", "")
    (host / "outside").mkdir()
    (host / "outside/ca.crt").write_text(MINE.ca_certificate)
    file.symlink_to(host / "outside/ca.crt")
    assert ownership.owners("aio", "lxc") == []
    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to(host / "outside")
    assert ownership.owners("aio", "lxc") == []
    file.parent.unlink()
    file.parent.mkdir()
    os.mkfifo(file)
    assert ownership.owners("aio", "lxc") == [], "a named pipe is not waited for"
