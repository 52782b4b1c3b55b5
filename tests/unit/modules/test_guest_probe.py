# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.verify.waiting import Failed
from ansible_collections.zonestack.openstack.plugins.modules.guest_probe import direct_route, judge, make_key, questions

UUID = "6fe04b5a-7f3c-4e6a-9df4-0ad5f2f8f7ad"
BOOT = "0b2ce10c-3b3d-4d5c-a0a3-2cb06b06ab11"
GUEST = {"id": UUID, "address": "10.78.0.130", "mark": "/root/v", "marks": ["old", "new"]}
SAID = f'boot {BOOT}\nfile /root/v-old\nfile /root/v-new\nmetadata {{"uuid": "{UUID}"}}\n'
PEERS = [{"host": "one", "address": "198.18.77.7"}, {"host": "two", "address": "198.18.77.8"}]


def test_neighbour_is_a_direct_route():
    assert (
        direct_route('[{"dst":"10.78.0.130","dev":"zs-aio-public","prefsrc":"10.78.0.1"}]', "10.78.0.130")
        == "zs-aio-public"
    )


def test_address_behind_the_default_route_is_not_tried():
    with pytest.raises(
        Failed, match=r"no link in the network of 10.78.0.130 \(it would send there through 192.0.2.1\)"
    ):
        direct_route('[{"dst":"10.78.0.130","gateway":"192.0.2.1","dev":"eth0"}]', "10.78.0.130")


def test_guest_that_says_all_is_taken():
    assert judge(GUEST, SAID) == BOOT


@pytest.mark.parametrize(
    ("said", "guest", "message"),
    [
        (SAID.replace(UUID, "other"), {}, "the metadata service did not answer with this instance's UUID"),
        (SAID.replace("metadata ", "x "), {}, "no answer from 169.254.169.254"),
        (SAID.replace("v-new", "v-x"), {}, "its user-data did not run"),
        (SAID.replace("v-old", "v-x"), {}, "a file in it was lost: /root/v-old"),
        (SAID, {"boot_id": BOOT}, "has not booted again since it was stopped"),
        (SAID.replace("boot ", ""), {}, "did not report its boot id"),
        (
            SAID + "peer 198.18.77.7\n",
            {"peers": PEERS},
            "cannot reach the instance 198.18.77.8 on two: no connection between the hypervisors",
        ),
    ],
)
def test_what_a_guest_lacks_is_named(said: str, guest: dict[str, str], message: str):
    with pytest.raises(Failed, match=message):
        judge({**GUEST, **guest}, said)


def test_guest_that_reaches_its_peers_is_taken():
    assert judge({**GUEST, "peers": PEERS}, SAID + "peer 198.18.77.8\npeer 198.18.77.7\n") == BOOT


@pytest.mark.parametrize("peers", [[], PEERS])
def test_questions_are_a_script(peers: list[dict[str, str]]):
    done = subprocess.run(
        ["sh", "-n"], input=questions({**GUEST, "peers": peers}), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_key_is_its_owners_and_fresh(tmp_path: Path):
    folder = tmp_path / "key"
    first = make_key(folder)
    assert first.startswith("ssh-ed25519 ")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert make_key(folder) != first
