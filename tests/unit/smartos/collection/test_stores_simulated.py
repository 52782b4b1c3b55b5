# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules imgadm, imgadm_info and nictagadm against the simulated SmartOS host of tests/smartos_sim.

Numbers in names of tests are those of the shortcomings of public modules (issue 4) that they would show.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

BIN = Path(os.environ.get("SMARTOS_SIM_BIN") or Path(__file__).resolve().parents[3] / "smartos_sim/bin")
pytestmark = pytest.mark.skipif(
    not BIN.is_dir(), reason=f"no simulated SmartOS at {BIN}; SMARTOS_SIM_BIN says where it is"
)

BASE, DEBIAN, APP, UNNAMED, OTHER, NEW, TWIN = (f"0ddba11{n}-0000-4000-8000-00000000000{n}" for n in range(7))
VM, STUB_VM = "d0000000-0000-4000-8000-000000000001", "d0000000-0000-4000-8000-000000000002"
NOBODY = "00000000-1111-4222-8333-444444444444"
SERVER, SPARE = "http://images.zonestack.test", "http://spare.zonestack.test"


def manifest(uuid, name, version, **more):
    file = {"sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709", "size": 5000, "compression": "gzip"}
    kind = {"type": "zone-dataset", "os": "smartos"}
    return {
        "v": 2,
        "uuid": uuid,
        "name": name,
        "version": version,
        "state": "active",
        "public": True,
        **kind,
        "files": [file],
        **more,
    }


OFFERED = [
    manifest(BASE, "base", "24.4.1", tags={"role": "os"}),
    manifest(DEBIAN, "debian", "12.1", type="lx-dataset", os="linux"),
    manifest(NEW, "base", "25.1.0", published_at="2025-05-05T05:05:05.000Z"),
    manifest(OTHER, "twin", "1"),
    manifest(TWIN, "twin", "1"),
]
WORLD = {
    "name": "stores",
    "description": "A VM on an image on an image; an image twice; one without a manifest.",
    "node": {
        "hostname": "gz0",
        "uuid": "564d0b8e-0000-4000-8000-000000000001",
        "platform": "20260305T001837Z",
        "memory_mib": 4096,
        "zpools": ["zones", "data"],
        "nic_tags": [
            {"name": "admin", "mac": "00:0c:29:11:22:33", "link": "e1000g0", "type": "normal"},
            {"name": "stub0", "mac": None, "link": None, "type": "etherstub"},
        ],
        "nics": {"e1000g1": "00:0c:29:11:22:34"},
    },
    "image_sources": [{"url": SERVER, "type": "imgapi", "images": OFFERED}],
    "images": [
        {"zpool": "zones", "source": SERVER, "manifest": OFFERED[0]},
        {"zpool": "data", "source": SERVER, "manifest": OFFERED[0]},
        {"zpool": "zones", "source": SERVER, "manifest": OFFERED[1]},
        {"zpool": "zones", "source": None, "manifest": manifest(APP, "app", "1.0", origin=DEBIAN)},
        {"zpool": "zones", "source": None, "cached": False, "manifest": {"uuid": UNNAMED}},
    ],
    "vms": [],
}

# nictagadm keeps tags in a file of NAME_nic=MAC, NAME_mtu=MTU and etherstub=NAME,NAME; the simulated one keeps them in its state.
TAGS_TO_FILE = """\
#!/bin/sh
{bin}/nictagadm "$@"; status=$?
{bin}/smartos-sim node | python3 -c '
import json, sys
tags = json.load(sys.stdin)["nic_tags"]
for tag in tags:
    for key, value in (("nic", tag["mac"] or tag["link"]), ("mtu", tag.get("mtu"))):
        if value:
            print(tag["name"] + "_" + key + "=" + str(value))
print("etherstub=" + ",".join(tag["name"] for tag in tags if tag["type"] == "etherstub"))' > {config}
exit $status
"""


class Node:
    def __init__(self, folder, run_module):
        self.folder, self.run_module = folder, run_module
        self.env = {"SMARTOS_SIM_STATE": str(folder / "state"), "PATH": f"{folder / 'bin'}:{BIN}:{os.environ['PATH']}"}

    def fill(self):
        (self.folder / "state").mkdir()
        (self.folder / "world.json").write_text(json.dumps(WORLD))
        self.tool("smartos-sim", "load-world", str(self.folder / "world.json"))
        for uuid, nics in ((VM, []), (STUB_VM, [{"nic_tag": "stub0", "ips": ["10.0.0.5/24"]}])):
            vm = {
                "uuid": uuid,
                "brand": "joyent-minimal",
                "image_uuid": BASE,
                "autoboot": False,
                "max_physical_memory": 64,
                "nics": nics,
            }
            self.tool("vmadm", "create", stdin=json.dumps(vm))

    def tool(self, *argv, stdin=None):
        env = {**os.environ, **self.env}
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def imgadm(self, **options):
        return self.run_module("imgadm", options, self.env)

    def imgadm_info(self, **options):
        return self.run_module("imgadm_info", options, self.env)

    def nictagadm(self, **options):
        return self.run_module("nictagadm", {"config": str(self.folder / "config"), **options}, self.env)

    def images(self):
        return sorted(
            f"{one['zpool']}/{one['manifest']['uuid']}" for one in json.loads(self.tool("imgadm", "list", "-j"))
        )


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The state of the host as every test finds it, with the simulator's compiled code."""
    made = Node(tmp_path_factory.mktemp("host"), None)
    made.fill()
    return made.folder / "state"


@pytest.fixture
def node(filled, tmp_path, run_module):
    shutil.copytree(filled, tmp_path / "state")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nictagadm").write_text(TAGS_TO_FILE.format(bin=BIN, config=tmp_path / "config"))
    (tmp_path / "bin/nictagadm").chmod(0o755)
    return Node(tmp_path, run_module)


# -- imgadm_info -------------------------------------------------------------------------------------------------------


def found(result):
    assert "msg" not in result, result
    return [(one["name"], one["version"], one["pool"]) for one in result["images"]]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"type": "zone-dataset", "name": "base"}, [("base", "24.4.1", "data"), ("base", "24.4.1", "zones")]),
        ({"name": "~as", "zpool": "zones"}, [("base", "24.4.1", "zones")]),
        ({"tags.role": "os", "zpool": "data"}, [("base", "24.4.1", "data")]),
        ({"public": True, "os": "linux"}, [("debian", "12.1", "zones")]),
        ({"clones": 0, "zpool": "zones"}, [(None, None, "zones"), ("app", "1.0", "zones")]),
        ({"name": "none"}, []),
    ],
)
def test_28_every_filter_counts(node, filters, names):
    assert found(node.imgadm_info(filters=filters)) == names


def test_29_images_without_a_source_and_on_two_pools(node):
    told = node.imgadm_info()
    assert len(told["images"]) == 5
    assert {one["source"] for one in told["images"]} == {SERVER, None}
    app = next(one for one in told["images"] if one["name"] == "app")
    assert (app["origin"], app["clones"], app["manifest"]["v"]) == (DEBIAN, [], 2)
    assert next(one for one in told["images"] if one["uuid"] == DEBIAN)["clones"] == [f"zones/{APP}"]
    assert told["sources"] == [{"url": SERVER, "type": "imgapi", "insecure": False}]


def test_29_a_failure_fails(node):
    node.tool("smartos-sim", "fault", "add", "imgadm list", "--message", "the pool is gone", "--code", "1")
    told = node.imgadm_info()
    assert (
        told["failed"]
        and "`imgadm -E list -j` ended with exit code 1" in told["msg"]
        and "the pool is gone" in told["msg"]
    )


@pytest.mark.parametrize("filters", [{"a=b": 1}, {"-P": "x"}, {"name": ["base"]}, {"": "x"}])
def test_a_filter_that_is_none_is_refused(node, filters):
    assert "filters" in node.imgadm_info(filters=filters)["msg"]


def test_offered_images_have_their_own_manifest_only(node):
    told = node.imgadm_info(available=True, filters={"name": "base", "version": "25.1.0"})
    assert [(one["uuid"], one["pool"], one["source"], one["manifest"]) for one in told["images"]] == [
        (NEW, None, SERVER, OFFERED[2])
    ]


# -- imgadm: present ---------------------------------------------------------------------------------------------------


def test_27_import_by_uuid_returns_the_manifest(node, settle):
    done = settle(node.imgadm, uuid=NEW)
    assert done["changed"] and done["uuid"] == NEW and done["manifest"] == OFFERED[2]
    assert node.imgadm(uuid=NEW, _ansible_check_mode=True)["manifest"] == OFFERED[2]
    assert f"zones/{NEW}" in node.images()


def test_27_import_by_name_and_version(node, settle):
    assert settle(node.imgadm, name="base", version="25.1.0", pool="data")["uuid"] == NEW
    assert f"data/{NEW}" in node.images()
    # Installed images are found without asking a source.
    node.tool("imgadm", "sources", "-d", SERVER)
    assert settle(node.imgadm, name="base", version="24.4.1")["changed"] is False


def test_27_import_from_one_source(node, settle):
    node.tool("imgadm", "sources", "-d", SERVER)
    (node.folder / "images").mkdir()
    (node.folder / "images/new.imgmanifest").write_text(json.dumps(OFFERED[2]))
    node.tool("smartos-sim", "source", SPARE, str(node.folder / "images"))
    assert settle(node.imgadm, uuid=NEW, source=SPARE, channel="dev")["changed"]
    assert node.imgadm_info(filters={"uuid": NEW})["images"][0]["source"] == SPARE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uuid": NOBODY.upper() + "A"}, "is not valid: use a UUID in lower case"),
        ({"uuid": NEW.upper()}, "is not valid: use a UUID in lower case"),
        (
            {},
            "the options that name the image are missing: give uuid, or name and version, or manifest and file, or sources",
        ),
        ({"name": "base"}, "the options that name the image are name"),
        ({"uuid": NEW, "name": "base", "version": "1"}, "the options that name the image are name, uuid, version"),
        (
            {"name": "base", "version": "9"},
            "it is neither installed nor offered: the sources offer only these versions of base: 24.4.1, 25.1.0",
        ),
        ({"name": "bas", "version": "9"}, "it is neither installed nor offered: the sources offer no bas"),
        ({"name": "twin", "version": "1"}, f"there are 2 such images: set uuid to one of: {OTHER}, {TWIN}"),
        ({"name": "base", "version": "25.1.0", "source": SERVER}, "source and channel: give them only with uuid"),
        (
            {"state": "created", "uuid": NEW},
            "the options that name the image are uuid: give vm and output and name and version",
        ),
    ],
)
def test_refusals_change_nothing(node, refusal, options, message):
    before = node.images()
    assert message in refusal(node.imgadm, **options)
    assert node.images() == before


def test_23_an_error_has_command_exit_code_and_the_tools_own_code(node):
    told = node.imgadm(uuid=NOBODY)
    assert told["msg"] == (
        f"imgadm: `imgadm -E import -q -P zones {NOBODY}` ended with exit code 1: error (ActiveImageNotFound):"
        f' an active image "{NOBODY}" was not found in image sources'
    )
    checked = node.imgadm(uuid=NOBODY, _ansible_check_mode=True)
    assert f"`imgadm -E show {NOBODY}` ended with exit code 1: error (ImageNotFound)" in checked["msg"]


def test_25_a_tool_that_says_nothing_and_one_that_hangs(node):
    node.tool("smartos-sim", "fault", "add", "imgadm import", "--message", "", "--code", "1")
    assert "ended with exit code 1: no message on stderr" in node.imgadm(uuid=NEW)["msg"]
    node.tool("smartos-sim", "fault", "clear")
    node.tool("smartos-sim", "fault", "add", "imgadm import", "--do", "hang", "--seconds", "30")
    assert "ended with exit code 124: still running after 2 s, killed" in node.imgadm(uuid=NEW, timeout=2)["msg"]


def test_27_install_from_manifest_and_file(node, settle, refusal):
    file, path = node.folder / "app.zfs.gz", node.folder / "app.imgmanifest"
    file.write_bytes(gzip.compress(b"stream"))
    entry = {"sha1": hashlib.sha1(file.read_bytes()).hexdigest(), "size": file.stat().st_size, "compression": "gzip"}
    whole = manifest(NOBODY, "app", "2.0", files=[entry])
    path.write_text(json.dumps(whole))
    given = {"manifest": str(path), "file": str(file)}

    path.write_text(json.dumps({**whole, "files": [{**entry, "sha1": "0" * 40}]}))
    assert "name the file of this image, undamaged" in node.imgadm(**given, _ansible_check_mode=True)["msg"]
    assert "error (DownloadError)" in node.imgadm(**given)["msg"]
    path.write_text(json.dumps({**whole, "files": [{**entry, "size": 1}]}))
    assert "the manifest says 1: name the complete file of this image" in refusal(node.imgadm, **given)
    path.write_text(json.dumps({**whole, "origin": TWIN}))
    assert f"the image {TWIN}, from which it is cloned, is not installed on zones" in refusal(node.imgadm, **given)
    assert f"zones/{NOBODY}" not in node.images()

    path.write_text(json.dumps(whole))
    assert settle(node.imgadm, **given)["manifest"].items() >= whole.items()
    assert f"zones/{NOBODY}" in node.images()
    path.write_text(json.dumps({**whole, "files": [{**entry, "sha1": "0" * 40}]}))
    assert "is installed on zones with other content" in refusal(node.imgadm, **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": 1}, "v: 1 is not valid: use 2, the version of the format"),
        ({"uuid": NOBODY.replace("a", "A").upper() + "F"}, "uuid: "),
        ({"version": 1}, "version: 1 is not valid: use a text that is not empty"),
        ({"files": []}, "files: [] is not valid: use a list of one file"),
        (
            {"files": [{"sha1": "x", "size": 1, "compression": "gzip"}]},
            "is not valid: use sha1 (40 hexadecimal digits)",
        ),
    ],
)
def test_a_manifest_that_is_none_is_refused(node, refusal, change, message):
    path = node.folder / "bad.imgmanifest"
    path.write_text(json.dumps({**manifest(NOBODY, "app", "2.0"), **change}))
    assert message in refusal(node.imgadm, manifest=str(path), file="/dev/null")


# -- imgadm: absent, vacuumed, updated ---------------------------------------------------------------------------------


def test_21_clones_are_an_error_that_names_them(node, refusal):
    before = node.images()
    said = refusal(node.imgadm, uuid=BASE, state="absent")
    assert f"zones/{VM}" in said and f"zones/{STUB_VM}" in said and "has clones: remove these first" in said
    assert node.images() == before


def test_21_a_delete_that_fails_fails(node):
    node.tool("smartos-sim", "fault", "add", "imgadm delete", "--message", "dataset is busy", "--code", "1")
    assert "dataset is busy" in node.imgadm(uuid=APP, state="absent")["msg"]


def test_delete_on_one_pool(node, settle):
    done = settle(node.imgadm, uuid=BASE, pool="data", state="absent")
    assert done["manifest"] == OFFERED[0]
    assert f"zones/{BASE}" in node.images() and f"data/{BASE}" not in node.images()
    assert settle(node.imgadm, name="app", version="1.0", state="absent")["uuid"] == APP
    assert settle(node.imgadm, name="app", version="1.0", state="absent")["changed"] is False


def test_22_vacuum_removes_what_nothing_uses_and_no_more(node, settle, refusal):
    said = refusal(node.imgadm, state="vacuumed")
    assert (
        "would remove 4 images for good" in said and f"{APP} (app 1.0, zones)" in said and "set confirm: true" in said
    )
    done = settle(node.imgadm, state="vacuumed", confirm=True)
    assert {(one["uuid"], one["pool"]) for one in done["deleted"]} == {
        (APP, "zones"),
        (DEBIAN, "zones"),  # free once app is gone
        (UNNAMED, "zones"),
        (BASE, "data"),
    }
    assert node.images() == [f"zones/{BASE}"]


def test_22_vacuum_takes_no_uuid(node, refusal):
    assert "the options that name the image are uuid" in refusal(node.imgadm, state="vacuumed", uuid=APP, confirm=True)


def test_24_updated_only_when_something_was(node):
    old = json.loads(node.tool("imgadm", "get", UNNAMED))
    assert old["manifest"] == {"uuid": UNNAMED}
    assert node.imgadm(state="updated")["changed"] is False
    (node.folder / "images").mkdir()
    (node.folder / "images/found.imgmanifest").write_text(json.dumps(manifest(UNNAMED, "found", "3")))
    node.tool("smartos-sim", "source", SPARE, str(node.folder / "images"))
    told = node.imgadm(state="updated", uuid=UNNAMED, _ansible_check_mode=True)
    assert json.loads(node.tool("imgadm", "get", UNNAMED))["manifest"] == {"uuid": UNNAMED}
    done = node.imgadm(state="updated", uuid=UNNAMED)
    assert told["changed"] and done["changed"] and told["updated"] == done["updated"] and told["diff"] == done["diff"]
    assert node.imgadm(state="updated")["changed"] is False


# -- imgadm: created ---------------------------------------------------------------------------------------------------


def test_27_an_image_of_a_vm_is_made_once(node, settle, refusal):
    given = {
        "state": "created",
        "vm": VM,
        "output": str(node.folder / "made"),
        "name": "made",
        "version": "1.0",
        "compression": "gzip",
    }
    told = node.imgadm(**given, _ansible_check_mode=True)
    assert (told["changed"], told["uuid"], told["file"]) == (True, None, None)
    done = settle(node.imgadm, **given, fields={"description": "From a VM", "tags": {"by": "test"}})
    assert done["manifest"]["version"] == "1.0" and done["manifest"]["tags"] == {"by": "test"}
    assert Path(done["file"]).stat().st_size == done["manifest"]["files"][0]["size"]
    assert json.loads(Path(done["manifest_path"]).read_text()) == done["manifest"]
    assert "belongs to another image: version is '1.0', and '1.1' is wanted" in refusal(
        node.imgadm, **{**given, "version": "1.1"}
    )
    with open(done["file"], "ab") as stream:
        stream.write(b"more")
    done = settle(node.imgadm, **given)
    assert done["changed"], "the file is not the one of the manifest"
    assert settle(node.imgadm, manifest=done["manifest_path"], file=done["file"], pool="data")["changed"]


def test_an_image_is_made_of_a_stopped_vm_only(node, refusal):
    given = {"state": "created", "output": str(node.folder / "made"), "name": "made", "version": "1"}
    assert f"there is no VM {NOBODY}" in refusal(node.imgadm, **given, vm=NOBODY)
    node.tool("vmadm", "start", VM)
    assert f"vm: {VM} is running: stop it first" in refusal(node.imgadm, **given, vm=VM)
    assert "there is no file /no/script" in refusal(node.imgadm, **given, vm=VM, prepare_script="/no/script")
    assert "a path without ending, in a directory that exists" in refusal(
        node.imgadm, **{**given, "output": "/no/folder/x"}, vm=VM
    )
    assert not list(node.folder.glob("made*"))


# -- imgadm: sources ---------------------------------------------------------------------------------------------------


def test_20_sources_are_added_changed_and_removed(node, settle):
    new = {"url": f"{SPARE}/", "type": "imgapi", "insecure": False}
    done = settle(node.imgadm, sources=[new])
    assert [one["url"] for one in done["sources"]] == [SERVER, SPARE]
    insecure = settle(node.imgadm, sources=[{**new, "insecure": True}])
    assert insecure["sources"][1] == {"url": SPARE, "type": "imgapi", "insecure": True}
    assert (
        settle(node.imgadm, sources=[{**new, "insecure": True}], exclusive=True)["sources"] == insecure["sources"][1:]
    )
    assert settle(node.imgadm, sources=[new], state="absent")["sources"] == []
    assert node.tool("imgadm", "sources") == ""


def test_26_a_source_is_compared_whole(node, settle, refusal):
    assert settle(node.imgadm, sources=[{"url": "http://images.zonestackXtest"}], state="absent")["changed"] is False
    assert "is not valid: use the URL of an image server" in refusal(
        node.imgadm, sources=[{"url": "images.zonestack.test"}]
    )
    assert f"{SPARE} is named twice" in refusal(node.imgadm, sources=[{"url": SPARE}, {"url": f"{SPARE}/"}])


def test_a_server_that_does_not_answer(node, settle):
    silent = [{"url": "https://images.example.com"}]
    assert "error (SourcePing)" in node.imgadm(sources=silent)["msg"]
    assert settle(node.imgadm, sources=silent, ping=False)["changed"]


# -- nictagadm ---------------------------------------------------------------------------------------------------------

ADMIN = "00:0c:29:11:22:33"
FREE = "00:0c:29:11:22:34"


def test_32_a_tag_is_made_and_removed_without_its_mac(node, settle):
    done = settle(node.nictagadm, name="storage", mac="0:C:29:11:22:34")
    assert done["actions"] == [f"nictagadm add -p mac={FREE} storage"]
    assert done["tag"] == {"name": "storage", "type": "normal", "mac": FREE, "aggr": None, "mtu": 1500}
    assert settle(node.nictagadm, name="storage")["changed"] is False
    assert settle(node.nictagadm, name="storage", state="absent")["actions"] == ["nictagadm delete storage"]
    assert settle(node.nictagadm, name="storage", state="absent")["changed"] is False


def test_32_mac_and_mtu_are_reconciled(node, settle):
    settle(node.nictagadm, name="storage", mac=ADMIN)
    done = settle(node.nictagadm, name="storage", mac=FREE, mtu=9000)
    assert done["actions"] == [f"nictagadm update -p mac={FREE},mtu=9000 storage"]
    assert done["reboot_required"] is True
    assert settle(node.nictagadm, name="storage", mac=FREE)["reboot_required"] is False
    assert settle(node.nictagadm, name="storage", mtu=1500)["actions"] == ["nictagadm update -p mtu=1500 storage"]


def test_etherstub(node, settle):
    assert settle(node.nictagadm, name="stub7", type="etherstub")["actions"] == ["nictagadm add -l stub7"]
    assert settle(node.nictagadm, name="stub7", state="absent")["changed"]


def test_tags_in_use_are_an_error_that_names_the_vms(node, refusal):
    assert (
        refusal(node.nictagadm, name="stub0", state="absent")
        == f"NIC tag 'stub0': VMs use it ({STUB_VM}): remove their NICs on it first"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "storage"}, "mac: a new tag needs one: give mac or aggr"),
        ({"name": "sto-rage", "mac": FREE}, "name: 'sto-rage' is not valid"),
        ({"name": "s" * 31, "mac": FREE}, "at most 30"),
        ({"name": "stub", "type": "etherstub"}, "a digit at the end"),
        ({"name": "stub1", "type": "etherstub", "mtu": 9000}, "mtu: 9000 is not valid: an etherstub has none"),
        ({"name": "storage", "mac": "00:0c:29"}, "mac: '00:0c:29' is not valid"),
        (
            {"name": "storage", "mac": FREE, "aggr": "aggr0"},
            "both are given: give mac for a physical NIC or aggr for an aggregation",
        ),
        ({"name": "storage", "mac": FREE, "mtu": 1400}, "mtu: 1400 is not valid: use 1500 to 9000 bytes"),
        ({"name": "stub0", "mac": FREE}, "there is etherstub stub0 already, and its type cannot change to normal"),
        (
            {"name": "admin", "type": "etherstub"},
            "there is normal admin already, and its type cannot change to etherstub",
        ),
    ],
)
def test_tags_that_cannot_be_are_refused(node, refusal, options, message):
    before = node.tool("nictagadm", "list")
    assert message in refusal(node.nictagadm, **options)
    assert node.tool("nictagadm", "list") == before


def test_a_nic_that_is_not_there(node):
    said = node.nictagadm(name="storage", mac="02:00:00:00:00:01")["msg"]
    assert "`nictagadm add -p mac=02:00:00:00:00:01 storage` ended with exit code 1" in said


# -- as Ansible runs them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("imgadm_info", {}, "images"),
        ("imgadm", {"uuid": NEW}, "manifest"),
        ("nictagadm", {"name": "admin", "mtu": 9000}, "tag"),
    ],
)
def test_in_a_process_of_its_own(node, run_process, name, options, key):
    extra = {"config": str(node.folder / "config")} if name == "nictagadm" else {}
    told = run_process(name, {**options, **extra}, node.env)
    assert told[key] and told["changed"] is (name != "imgadm_info")
