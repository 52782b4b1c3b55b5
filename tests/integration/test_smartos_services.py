# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One daemon as a service of a joyent zone and of the global zone, by a playbook: deployed, changed, in maintenance, repaired, and back
after the reboot.

The playbook makes the zone (vmadm), writes what the daemon reads, imports its manifest (svccfg) and runs it (svcadm). The manifest is
rendered from a declaration as services/*.yml have them. The host container is global zone and control machine at once; the joyent zone
is reached by zlogin. That the services are up is told by HTTP, from outside of the zone.

    pytest tests/integration/test_smartos_services.py

Cases stand in the order in which they run. With ZONESTACK_SMARTOS_HOST=NAME the host container of that name is taken as it is, and left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import typing as t
from dataclasses import dataclass

import pytest

from host import Host
from smartos import CHECKOUT, a_node, base_image
from smf_manifest import render_smf

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("mmdebstrap") is None, reason="needs root, LXC and mmdebstrap"
    ),
]

ZONE = "5a7e57ab-0000-4000-8000-0000000000a1"
FMRI = "svc:/zonestack/word:default"
PLACES = {"gz": "10.88.0.1", "native": "10.88.0.21"}
"""The two places in which the daemon runs, by their names in the inventory, and their addresses."""
HANG = 600
"""Seconds after which whatever is waited for does not come any more, on the busiest machine."""
FOLDER = "/opt/site"
"""In both places; the global zone keeps it over its boots."""

PROGRAM = """
import http.server
import os
import sys
import uuid

life = uuid.uuid4()  # a process id may come back after a reboot
word = open("/opt/site/word").read().strip()
if not word:
    sys.exit(96)  # a configuration error, smf_method(7): svc.startd does not try again


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{word} {life} {os.getuid()}".encode())


http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""

PLAYBOOK = """
- name: Have the zone
  hosts: gz
  gather_facts: false
  tasks:
    - name: Make it
      zonestack.openstack.vmadm:
        uuid: "{{ hostvars['native'].zone_name }}"
        alias: native
        state: running
        brand: joyent
        image_uuid: "{{ image }}"
        max_physical_memory: 512
        quota: 5
        nics:
          - {mac: "02:08:20:00:00:a1", nic_tag: admin, ips: ["{{ hostvars['native'].address }}/24"], gateways: [10.88.0.1], primary: true}

- name: Have the service
  hosts: gz:native
  gather_facts: false
  tasks:
    - name: Have its folder
      ansible.builtin.file: {path: /opt/site, state: directory, mode: "0755"}
    - name: Have its program
      ansible.builtin.copy: {dest: /opt/site/program.py, content: "{{ program }}", mode: "0644"}
    - name: Have what it reads
      ansible.builtin.copy: {dest: /opt/site/word, content: "{{ word }}", mode: "0644"}
    - name: Have its manifest
      zonestack.openstack.svccfg:
        manifest: "{{ manifests[inventory_hostname] }}"
      register: service
    - name: Run it
      zonestack.openstack.svcadm:
        fmri: "{{ service.instances[0] }}"
        clear: "{{ repaired }}"
        timeout: 600
    - name: Restart it where it runs with what it read before
      zonestack.openstack.svcadm:
        fmri: "{{ item }}"
        state: restarted
        timeout: 600
      loop: "{{ service.restart_needed }}"
"""


def manifest(python: str, word: str) -> str:
    """The daemon's declaration as a manifest, for a place with this Python."""
    daemon = {"command": f"{python} {FOLDER}/program.py", "user": "daemon", "tls": False, "reads": [f"{FOLDER}/word"]}
    service = {"name": "word", "description": "Says a word", "image": {}, "zone": {"vcpus": 1}}
    return render_smf("word", daemon, service, {f"{FOLDER}/word": word}).text


@dataclass(frozen=True)
class Answer:
    """What a daemon says: its word, the name of this life of its process, and its user."""

    word: str
    life: str
    uid: str


@dataclass(frozen=True)
class Play:
    """How a run of the playbook ended: exit code, what was said, and the number of changes in each place."""

    rc: int
    out: str
    changes: dict[str, int]


class Site:
    """The simulated host with a control side on it."""

    def __init__(self, host: Host, image: str) -> None:
        self.host = host
        self.image = image
        version = host.exec(["python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]).out.strip()
        self.pythons = {"gz": f"/opt/tools/bin/{version}", "native": f"/opt/local/bin/{version}"}
        ways: dict[str, dict[str, str]] = {
            "gz": {"ansible_connection": "local"},
            "native": {
                "ansible_connection": "zonestack.openstack.zlogin",
                "zone_name": ZONE,
                "zone_transport": "local",
            },
        }
        hosts = {
            name: {**ways[name], "ansible_python_interpreter": self.pythons[name], "address": PLACES[name]}
            for name in PLACES
        }
        self.write("hosts.yml", json.dumps({"all": {"hosts": hosts}}))
        self.write("services.yml", PLAYBOOK)

    def write(self, name: str, text: str) -> None:
        self.host.exec(f"mkdir -p {FOLDER}/control && cat >{FOLDER}/control/{name}", input=text)

    def play(self, word: str, *, repaired: bool = False) -> Play:
        """Run the playbook, with this word for the daemons to say."""
        manifests = {name: manifest(python, word) for name, python in self.pythons.items()}
        given = {"image": self.image, "program": PROGRAM, "word": word, "repaired": repaired, "manifests": manifests}
        self.write("given.json", json.dumps(given))
        line = (
            f". {CHECKOUT}/scripts/lib/env.sh; export ANSIBLE_INVENTORY_ENABLED=yaml; cd {FOLDER}/control; "
            "ansible-playbook -i hosts.yml -e @given.json services.yml"
        )
        done = self.host.exec(["bash", "-c", line], timeout=HANG, check=False)
        changes = {
            name: int(count) for name, count in re.findall(r"^(\w+)\s*: ok=\d+\s+changed=(\d+)", done.out, re.MULTILINE)
        }
        return Play(done.rc, done.out + done.err, changes)

    def converge(self, word: str, *, repaired: bool = False) -> Play:
        """Run the playbook, and insist that it ends well."""
        play = self.play(word, repaired=repaired)
        assert play.rc == 0, play.out
        return play

    def answer(self, place: str) -> Answer | None:
        """What the daemon says; None when nobody answers."""
        fetch = f"import urllib.request; print(urllib.request.urlopen('http://{PLACES[place]}:8080', timeout={HANG}).read().decode())"
        done = self.host.exec(["python3", "-c", fetch], timeout=HANG, check=False)
        return Answer(*done.out.split()) if done.rc == 0 else None

    def answers(self) -> dict[str, Answer | None]:
        return {place: self.answer(place) for place in PLACES}

    def says(self, word: str) -> dict[str, Answer | None]:
        """Wait until both services are online and both daemons say a word; their answers.

        A daemon may answer before its restarter has noted that it is online, so neither tells the other.
        """
        end = time.monotonic() + HANG
        while True:
            states, found = self.states(), self.answers()
            if set(states.values()) == {"online"} and all(one and one.word == word for one in found.values()):
                return found
            assert time.monotonic() < end, f"{found}: {states}"
            time.sleep(0.5)

    def rest(self, state: str) -> None:
        """Wait until both services are in a state."""
        end = time.monotonic() + HANG
        while set(self.states().values()) != {state}:
            assert time.monotonic() < end, self.states()
            time.sleep(0.5)

    def states(self) -> dict[str, str]:
        """The service's state in each place, as its own zone says."""
        zones = {"gz": [], "native": ["-z", ZONE]}
        return {
            place: self.host.exec(
                ["svcs", *zones[place], "-H", "-o", "state", FMRI], timeout=HANG, check=False
            ).out.strip()
            for place in PLACES
        }


@pytest.fixture(scope="module")
def site() -> t.Iterator[Site]:
    with a_node("smartos-services", "--hostname", "gz1") as host:
        image = base_image(host, "joyent")
        host.exec([f"{CHECKOUT}/scripts/bootstrap-control.sh"], timeout=900)
        yield Site(host, image)


def test_deployed(site: Site) -> None:
    play = site.converge("one")
    assert all(play.changes.values()), play.changes
    before = site.says("one")
    assert {answer and answer.uid for answer in before.values()} == {"1"}, "daemon's"
    again = site.converge("one")
    assert again.changes == {"gz": 0, "native": 0}
    assert site.answers() == before, "the same processes"


def test_changed(site: Site) -> None:
    """What the daemon reads is another, so it is started anew: once."""
    before = site.says("one")
    play = site.converge("two")
    assert all(play.changes.values()), play.changes
    after = site.says("two")
    again = site.converge("two")
    assert again.changes == {"gz": 0, "native": 0}
    assert site.answers() == after
    assert all(after[place] != before[place] for place in PLACES)


def test_in_maintenance(site: Site) -> None:
    """A daemon that cannot run with what it reads is told; it is not started again and again, nor mended by asking again."""
    site.play("")  # a child is online until it ends, so this may go either way
    site.rest("maintenance")
    assert site.answers() == dict.fromkeys(PLACES)
    again = site.play("")
    assert again.rc != 0
    for place in PLACES:
        assert re.search(rf"^{place}\s.*failed=1", again.out, re.MULTILINE), again.out
    said = " ".join(again.out.split())
    assert (
        said.count("is in maintenance") >= len(PLACES)
        and "clear: true" in said
        and "zonestack-word:default.log" in said
    )
    assert set(site.states().values()) == {"maintenance"}


def test_repaired(site: Site) -> None:
    refused = site.play("three")
    assert refused.rc != 0 and set(site.states().values()) == {"maintenance"}, "who says that it is mended must say so"
    site.converge("three", repaired=True)
    site.says("three")
    assert site.converge("three").changes == {"gz": 0, "native": 0}


def test_back_after_the_reboot(site: Site) -> None:
    """The global zone's repository is gone with its ramdisk, and made again from /opt/custom/smf; the zone has its own."""
    before = site.says("three")
    site.host.exec(["smartos-sim", "reboot"], timeout=2 * HANG)  # it ends with the zones that start with the host
    after = site.says("three")
    assert all(after[place] != before[place] for place in PLACES), "other processes"
    assert site.converge("three").changes == {"gz": 0, "native": 0}
