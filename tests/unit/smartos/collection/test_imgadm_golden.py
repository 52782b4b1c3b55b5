# SPDX-License-Identifier: GPL-3.0-or-later
"""What module_utils/smartos/imgadm.py makes of answers that imgadm's own code was recorded to give."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, Result
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import imgadm

CHECKOUT = Path(__file__).resolve().parents[4]
GOLDEN = Path(os.environ.get("SMARTOS_GOLDEN") or CHECKOUT.parent / "shared/smartos/golden")
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"no recordings of imgadm at {GOLDEN}; SMARTOS_GOLDEN says where they are"
)

BASE = "c0ffee00-64aa-4b64-9001-a00000000001"


def recorded() -> list[dict]:
    path = GOLDEN / "transcripts.jsonl"
    every = map(json.loads, path.read_text().splitlines()) if path.is_file() else ()
    return [one for one in every if one["tool"] == "imgadm"]


def answer(world: str, *argv: str) -> dict:
    return next(one for one in recorded() if one["world"] == world and one["argv"] == list(argv))


class Recorded(imgadm.Imgadm):
    """Gives the recorded answer to a command in a world, with errors as they are without -E."""

    def __init__(self, world: str) -> None:
        super().__init__()
        self.world = world

    def run(self, *words: str, timeout: float = 0) -> Result:
        one = answer(self.world, *words)
        if one["rc"]:
            raise imgadm.ImgadmError(CommandError(["imgadm", *words], one["rc"], one["stderr"]))
        return Result(0, one["stdout"], one["stderr"])


@pytest.mark.parametrize("one", [one for one in recorded() if one["argv"][:1] == ["-E"]], ids=lambda one: one["id"])
def test_errors_have_their_code(one):
    error = imgadm.ImgadmError(CommandError(["imgadm", *one["argv"]], one["rc"], one["stderr"]))
    said = json.loads(one["stderr"])["err"]
    assert error.code == said["code"]
    assert (
        str(error)
        == f"{str(error).split(' ended with')[0]} ended with exit code {one['rc']}: error ({said['code']}): {said['message']}"
    )
    assert (error.rc == imgadm.NOT_INSTALLED) is (said["code"] in ("ImageNotInstalled", "OriginNotInstalled"))


def test_an_error_without_json_is_told_as_it_is():
    error = imgadm.ImgadmError(CommandError(["imgadm", "list"], 1, "Segmentation fault\n"))
    assert (error.code, str(error)) == ("", "`imgadm list` ended with exit code 1: Segmentation fault")


@pytest.mark.parametrize("world", ["bare", "mixed", "empty"])
def test_installed_images(world):
    installed = Recorded(world).installed()
    shown = json.loads(answer(world, "list", "-j")["stdout"])
    assert [(one.uuid, one.pool, one.source, list(one.clones)) for one in installed] == [
        (one["manifest"]["uuid"], one["zpool"], one.get("source"), one["cloneNames"]) for one in shown
    ]


def test_a_filtered_list_has_the_same_manifests():
    filtered = Recorded("mixed").installed(f"uuid={BASE}")
    assert filtered == [one for one in Recorded("mixed").installed() if one.uuid == BASE]


def test_clones_of_one_image():
    found = json.loads(answer("mixed", "get", "-r", BASE)["stdout"])
    listed = next(one for one in Recorded("mixed").installed() if one.uuid == BASE)
    assert imgadm._image(found, found["children"]["clones"]) == listed


def test_vacuum_is_foretold():
    """imgadm removes what has no clones; in that world nothing becomes free by it."""
    removed = set(re.findall(imgadm.UUID.pattern.replace("(-", "(?:-"), answer("mixed", "vacuum", "-f")["stdout"]))
    assert {one.uuid for one in imgadm.unused(Recorded("mixed").installed())} == removed


def test_sources():
    assert Recorded("pools").sources() == [
        imgadm.Source("http://images.example.test"),
        imgadm.Source("https://images.smartos.org", insecure=True),
    ]


@pytest.mark.parametrize(
    "one",
    [one for one in recorded() if one["argv"][:1] == ["install"] and one.get("files", {}).get("m.json")],
    ids=lambda one: one["id"],
)
def test_manifests_that_install_refuses(one, tmp_path):
    """What is refused here before imgadm runs, imgadm refuses; the reverse is not wanted, it knows more."""
    path = tmp_path / "m.json"
    path.write_text(one["files"]["m.json"])
    try:
        imgadm.check_manifest(imgadm.read_manifest(str(path)), "m.json")
    except imgadm.ImageError:
        # It looks whether the image is there before it looks at the rest of the manifest.
        assert one["rc"] != 0 or "already installed" in one["stdout"]
