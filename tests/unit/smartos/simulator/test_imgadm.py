# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""imgadm and the small commands of the simulator where no recording reaches."""

from __future__ import annotations

import hashlib
import json
import typing as t
from pathlib import Path

import pytest

from .conftest import LX_IMAGE, VM

NEW = "5e5e5e5e-0000-4000-8000-000000000001"


def manifest(stream: bytes, **changes: t.Any) -> dict[str, t.Any]:
    entry = {"sha1": hashlib.sha1(stream).hexdigest(), "size": len(stream), "compression": "gzip"}
    return {
        "v": 2, "uuid": NEW, "name": "service", "version": "3", "type": "lx-dataset", "os": "linux", "files": [entry],
        **changes,
    }  # fmt: skip


def written(directory: Path, stream: bytes = b"stream", **changes: t.Any) -> list[str]:
    """A manifest and its stream as files; the words that name them."""
    (directory / "a.imgmanifest").write_text(json.dumps(manifest(b"stream", **changes)))
    (directory / "a.zfs.gz").write_bytes(stream)
    return ["-m", str(directory / "a.imgmanifest"), "-f", str(directory / "a.zfs.gz")]


def test_install_makes_an_image_that_vms_can_use(sim: t.Any, tmp_path: Path) -> None:
    words = written(tmp_path)
    assert sim.run("imgadm", "install", *words) == (
        0, f"Installing image {NEW} (service@3)\nInstalled image {NEW} (service@3)\n", ""
    )  # fmt: skip
    assert "source" not in json.loads(sim.run("imgadm", "get", NEW).out)
    assert sim.create(image_uuid=NEW).rc == 0
    assert sim.run("imgadm", "install", *words).out == f"Image {NEW} (service 3) is already installed, skipping\n"


def test_install_checks_the_digest(sim: t.Any, tmp_path: Path) -> None:
    said = sim.run("imgadm", "install", *written(tmp_path, b"strea!"))
    assert said.rc == 1
    assert said.err.startswith("imgadm install: error (DownloadError): image file checksum (sha1) error: ")
    assert sim.run("imgadm", "get", NEW).rc == 3


def test_install_wants_the_origin_first(sim: t.Any, tmp_path: Path) -> None:
    said = sim.run("imgadm", "install", *written(tmp_path, origin=VM))
    assert said.rc == 3
    assert said.err.startswith("imgadm install: error (OriginNotInstalled): ")


def test_an_image_with_clones_stays_until_its_vm_is_gone(sim: t.Any) -> None:
    sim.create()
    said = sim.run("imgadm", "delete", LX_IMAGE)
    assert said == (
        1, "", f'imgadm delete: error (ImageHasDependentClones): image "{LX_IMAGE}" has dependent clones: zones/{VM}\n'
    )  # fmt: skip
    sim.vmadm("delete", VM)
    assert sim.run("imgadm", "delete", LX_IMAGE) == (0, f"Deleted image {LX_IMAGE}\n", "")


def test_import_takes_a_stream_from_a_directory(sim: t.Any, tmp_path: Path) -> None:
    written(tmp_path)
    url = "http://images.lab.test"
    assert sim.run("smartos-sim", "source", url, str(tmp_path)).rc == 0
    assert NEW in sim.run("imgadm", "avail", "-H").out
    said = sim.run("imgadm", "import", "-S", url, NEW)
    assert said.out.endswith(f"Imported image {NEW} (service@3)\n")
    assert json.loads(sim.run("imgadm", "get", NEW).out)["source"] == url
    assert sim.run("imgadm", "import", NEW).out == f"Image {NEW} (service 3) is already installed, skipping\n"


def test_a_source_elsewhere_is_refused_and_partial_results_fail(sim: t.Any, tmp_path: Path) -> None:
    written(tmp_path)
    sim.run("smartos-sim", "source", "http://images.lab.test", str(tmp_path))
    said = sim.run("imgadm", "avail", "-H", "-o", "uuid")
    assert (said.rc, said.out) == (1, f"{NEW}\n")
    assert "error (ECONNREFUSED)" in said.err
    assert sim.run("imgadm", "sources", "-a", "http://images.example.org").rc == 1
    assert sim.run("imgadm", "sources", "-a", "http://images.example.org", "-f").rc == 0


def test_vacuum_asks_and_keeps_what_is_used(sim: t.Any) -> None:
    sim.create()
    said = sim.run("imgadm", "vacuum", stdin="n\n")
    assert said.out.endswith("Aborting.\n")
    assert len(json.loads(sim.run("imgadm", "list", "-j").out)) == 3
    assert sim.run("imgadm", "vacuum", stdin="y\n").rc == 0
    assert [one["manifest"]["uuid"] for one in json.loads(sim.run("imgadm", "list", "-j").out)] == [LX_IMAGE]
    assert sim.run("imgadm", "vacuum").out == ""


def test_create_of_a_stopped_vm_can_be_installed(sim: t.Any, tmp_path: Path) -> None:
    sim.create()
    sim.vmadm("stop", VM)
    said = sim.run("imgadm", "create", "-i", "-c", "gzip", "-o", str(tmp_path), VM, "name=made", "version=9")
    assert said.rc == 0, said.err
    kept = json.loads((tmp_path / "made-9.imgmanifest").read_text())
    assert (kept["origin"], kept["type"], kept["requirements"]) == (LX_IMAGE, "lx-dataset", {"brand": "lx"})
    words = ["-m", str(tmp_path / "made-9.imgmanifest"), "-f", str(tmp_path / "made-9.zfs.gz")]
    assert sim.run("imgadm", "install", *words).rc == 0
    assert "has dependent clones" in sim.run("imgadm", "delete", LX_IMAGE).err


# -- nictagadm, sysinfo, zoneadm ---------------------------------------------------------------------------------------


def test_nic_tags_come_and_go(sim: t.Any) -> None:
    assert sim.run("nictagadm", "add", "-l", "stub0").rc == 0
    assert sim.run("nictagadm", "list", "-p", "-d", ",").out.splitlines()[-1] == "stub0,-,-,etherstub"
    assert sim.run("nictagadm", "add", "-l", "stub0") == (1, "", "Error: nic tag 'stub0' already exists\n")
    sim.create(nics=[{"nic_tag": "stub0", "ips": ["10.0.0.1/24"]}])
    assert sim.run("nictagadm", "vms", "stub0").out == f"{VM}\n"
    assert sim.run("nictagadm", "delete", "stub0") == (1, "", "Error: nic tag 'stub0' is in use\n")
    assert sim.run("nictagadm", "delete", "-f", "stub0").rc == 0
    sim.vmadm("stop", VM)
    assert sim.vmadm("start", VM).err == f'Unable to start VM {VM}: Invalid nic tag "stub0"\n'


@pytest.mark.parametrize(
    ("words", "rc", "err"),
    [
        (["exists", "admin"], 0, ""),
        (["exists", "admin", "x", "y"], 1, "invalid tag: x\ninvalid tag: y\n"),
        (["exists", "-l", "x"], 1, "x\n"),
        (["delete", "x"], 1, "Error: nic tag 'x' does not exist\n"),
        (["add", "x", "00:00:00:00:00:09"], 1, "Error: No physical nic found with MAC address '00:00:00:00:00:09'\n"),
    ],
)
def test_nic_tag_errors(sim: t.Any, words: list[str], rc: int, err: str) -> None:
    assert sim.run("nictagadm", *words) == (rc, "", err)


def test_nic_tag_lists_escape_colons_unless_told_another_mark(sim: t.Any) -> None:
    assert sim.run("nictagadm", "list", "-p").out.splitlines()[0] == r"admin:00\:0c\:29\:00\:00\:01:e1000g0:normal"


def test_zoneadm_shows_eight_fields(sim: t.Any) -> None:
    sim.create()
    number = sim.get()["zoneid"]
    assert sim.run("zoneadm", "list", "-p").out.splitlines() == [
        "0:global:running:/::liveimg:shared:",
        f"{number}:{VM}:running:/zones/{VM}:{VM}:lx:excl:{number}",
    ]
    sim.vmadm("stop", VM)
    assert sim.run("zoneadm", "list").out == "global\n"
    assert sim.run("zoneadm", "-z", VM, "list", "-p").out == f"-:{VM}:installed:/zones/{VM}:{VM}:lx:excl:-\n"
    assert sim.run("zoneadm", "-z", "x", "list") == (1, "", "zoneadm: x: No such zone configured\n")


def test_links_are_those_of_the_tags_and_of_running_zones(sim: t.Any) -> None:
    sim.create(nics=[{"nic_tag": "admin", "ips": ["10.0.0.1/24"], "mac": "02:00:00:00:00:01", "vlan_id": 7}])
    fields = "link,over,macaddress,vid,zone"
    said = sim.run("dladm", "show-vnic", "-p", "-o", fields)
    assert said.out == f"eth0:e1000g0:02\\:00\\:00\\:00\\:00\\:01:7:{VM}\n"
    assert sim.run("dladm", "show-phys", "-p", "-o", "link").out == "e1000g0\ne1000g1\n"
    assert sim.run("dladm", "show-phys", "x").rc == 1
    sim.vmadm("stop", VM)
    assert sim.run("dladm", "show-vnic", "-p", "-o", fields).out == ""
    assert sim.run("zonename").out == "global\n"


def test_sysinfo_says_what_kind_of_host_this_is(sim: t.Any) -> None:
    facts = json.loads(sim.run("sysinfo").out)
    assert facts["Live Image"] == "20260305T001837Z"
    assert facts["MiB of Memory"] == "16384"
    assert facts["Network Interfaces"]["e1000g0"]["NIC Names"] == ["admin"]
    assert "Live_Image='20260305T001837Z'\n" in sim.run("sysinfo", "-p").out
