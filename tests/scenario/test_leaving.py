# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment comes to a machine with a bridge of the site, is kept from strangers, and leaves the machine as it was found."""

from __future__ import annotations

import fnmatch
import json
import shlex
import subprocess
import typing as t

import pytest

from debian_root import Done
from deployed import until
from host import CHECKOUT, Host
from snapshot import differences

pytestmark = pytest.mark.long("leaving")

SECOND = "/opt/second"
"""Another checkout: what another control machine has."""
LOCK = "/var/run/zonestack-run.aio"
"""The deployment's lock on its host."""
LIMIT = 900.0
"""Seconds that tell a hang from an end."""
TOPOLOGY = """\
plugin: zonestack.openstack.topology
deployment: aio
release: "2026.2"
networks: {zone: {cidr: 10.198.0.0/21, bridge: br0}}
hosts: {aio1: {id: 1, connection: local}}
cloud: {networks: {}, images: {}, flavors: {}}
services: {memcached: {count: 2}, log: }
"""
BRIDGE = """\
ip link add br0 type bridge
ip link set br0 address 02:51:7e:00:00:01 up
ip link set eth1 master br0 up
ip address add 10.198.2.9/21 dev br0
"""
EXPLAINED: tuple[tuple[str, str, str], ...] = (
    ("package", "*", "packages stay: others may use them by now"),
    ("user", "dnsmasq", "of a package"),
    ("unit", "lxc*", "of the package lxc"),
    ("unit", "nftables.service", "of the package nftables"),
    ("active unit", "lxc*", "of the package lxc"),
    ("active unit", "*", "units of the system itself that come and go: timers, sessions, mounts of units"),
    ("process", "*lxc-monitord*", "of the package lxc"),
    ("process", "*systemd*", "the system's own, by need"),
    ("process", "sh -c*", "this test's"),
    ("cgroup", "*/lxc.pivot", "where LXC leaves the monitors' cgroups; gone at the next boot"),
    ("cgroup", "*.service", "of units that are listed above"),
    ("cgroup", "/sys/fs/cgroup/cpu/*", "version 1: systemd makes these for all units once one has a limit"),
    ("cgroup", "/sys/fs/cgroup/*.mount", "of units of the system"),
    ("cgroup", "/sys/fs/cgroup/*.s[lc][io][cp]e", "of units of the system"),
    ("sysctl", "fs.*-state", "a counter"),
    ("sysctl", "fs.*-nr", "a counter"),
    ("sysctl", "fs.quota.*", "a counter"),
    ("sysctl", "kernel.*pid", "a counter"),
    ("sysctl", "kernel.pty.nr", "a counter"),
    ("sysctl", "kernel.random.*", "a counter"),
    ("sysctl", "net.netfilter.nf_conntrack_count", "a counter"),
    ("file", f"{CHECKOUT}*", "the checkout: .venv, secrets and logs stay with their owner"),
    ("file", "/root/.ansible*", "Ansible's own folder, with which it works on each host"),
    ("file", "/run/lxc*", "LXC's locks, in memory"),
    ("file", "/run/dnsmasq*", "of a package"),
    ("file", "/run/systemd/*", "the system's own, in memory"),
    ("file", "/run/log/*", "the system's own, in memory"),
    ("file", "/run/user*", "the system's own, in memory"),
    ("file", "/run/sudo*", "the system's own, in memory"),
    ("file", "/tmp*", "the system's own, private folders of units"),
    ("file", "/var/tmp*", "the system's own, private folders of units"),
    ("file", "/etc/default/lxc-net*", "keeps the package lxc from making a bridge of its own at the next boot"),
    *(("file", f"/etc/{name}*", "of packages") for name in ("apparmor.d", "default/lxc", "init.d/", "lxc", "perl", "rc?.d", "ld.so", "inputrc", "mime.types", "nftables.conf", "python3")),
    ("file", "/etc/sysctl.d/30-lxc-inotify.conf", "of the package lxc"),
    ("file", "/etc/systemd/system/multi-user.target.wants/lxc*", "of the package lxc"),
    *(("file", f"/etc/{name}", "the user of a package") for name in ("passwd", "passwd-", "shadow", "shadow-", "group", "group-", "gshadow", "gshadow-")),
    *(("file", f"/var/{name}*", "of packages") for name in ("cache/apt", "cache/debconf", "cache/ldconfig", "cache/lxc", "lib/dpkg", "lib/apt", "lib/systemd", "lib/ucf")),
)  # fmt: skip
"""What may differ afterwards: kind, pattern of the name, and why. What no line explains was left behind."""


class Site:
    """A machine with a bridge of its own, and two checkouts."""

    def __init__(self) -> None:
        self.host = Host("leaving").create("trixie")
        self.host.copy_project(worktree=True)
        apt = "apt-get -qq update && apt-get -qq install -y --no-install-recommends python3-minimal"
        self.host.exec(f"set -e\n{BRIDGE}{apt}", timeout=LIMIT)
        self.found = self.look()
        self.host.exec(
            f"mkdir {CHECKOUT}/inventory/aio && printf %s {shlex.quote(TOPOLOGY)} >{CHECKOUT}/inventory/aio/topology.yml"
        )
        self.script("bootstrap-aio.sh")

    def script(self, name: str, *arguments: str, rc: int = 0, checkout: str = CHECKOUT) -> Done:
        """Run a command, and insist on its exit code."""
        done = self.host.exec([f"{checkout}/scripts/{name}", *arguments], timeout=LIMIT, check=False)
        assert done.rc == rc, f"{name} {' '.join(arguments)} ended with {done.rc}: {done.out}{done.err}"
        return done

    def look(self) -> dict[str, dict[str, str]]:
        """Everything that could be changed."""
        said = self.host.exec(["python3", "-B", f"{CHECKOUT}/tests/host/snapshot.py"], timeout=LIMIT).out
        return t.cast("dict[str, dict[str, str]]", json.loads(said))

    def bridge(self) -> list[str]:
        """The site's bridge with its addresses and ports, without what only counts packets or moves."""
        shown = "ip -o link show br0; ip -o -4 address show br0; ip -o link show master br0 type veth | grep eth1"
        return self.host.exec(shown).out.splitlines()


@pytest.fixture(scope="module")
def site() -> t.Iterator[Site]:
    made = Site()
    yield made
    made.host.destroy()


def test_what_is_the_sites_stays_and_nothing_of_ours(site: Site) -> None:
    """From the first contact to the end: strangers are refused, and the machine is what it was."""
    bridge, before = site.bridge(), site.look()
    site.host.exec("ip link set br0 mtu 1300")
    refused = site.script("run-playbooks.sh", "--no-verify", "--step", "hosts", rc=2)
    assert "its MTU 1300 is smaller than the network's 1500" in " ".join(refused.out.split())
    assert [one for one in differences(before, site.look()) if one[0] in ("package", "nft")] == []
    site.host.exec("ip link set br0 mtu 1500; ip link set eth1 mtu 1500")
    assert site.bridge() == bridge

    two_at_once(site)
    strangers(site)
    gone = site.script("destroy.sh", "--all", "--purge", "--yes")
    assert "On the hosts stay: packages" in gone.out

    assert site.bridge() == bridge
    left = differences(site.found, site.look())
    unexplained = []
    for kind, name, what in left:
        why = next((why for of, pattern, why in EXPLAINED if of == kind and fnmatch.fnmatchcase(name, pattern)), "")
        print(f"{kind}: {name}: {what[:80]}: {why or 'NOT EXPLAINED'}")
        if not why:
            unexplained.append(f"{kind}: {name}: {what}")
    assert unexplained == []
    assert {kind for kind, _name, _what in left} & {"nft", "network", "mount"} == set()


def two_at_once(site: Site) -> None:
    """Two checkouts with the same secrets run at once: the second one is refused, or waits and finds nothing to do."""
    run = ("run-playbooks.sh", "--no-verify", "--step", "hosts..infrastructure")
    site.host.exec(f"cp -a {CHECKOUT} {SECOND}")
    first = site.host.argv([f"{CHECKOUT}/scripts/{run[0]}", *run[1:]])
    with subprocess.Popen(first, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        locked = [f"grep -s process {LOCK}"]
        until(
            lambda: running.poll() is not None or site.host.exec(*locked, check=False).rc == 0,
            "the first run's lock",
            LIMIT,
        )
        refused = site.script(*run, "--wait", "0", rc=1, checkout=SECOND)
        assert "another run of deployment 'aio' is in progress" in refused.err and "Nothing was changed." in refused.err
        waited = site.script(*run, "--wait", f"{LIMIT:.0f}", checkout=SECOND)
        said, _ = running.communicate(timeout=LIMIT)
    assert running.returncode == 0, said.decode()
    assert "Waiting for it" in waited.err and "Nothing changed." in waited.out
    site.host.exec(f"rm -r {SECOND}")


def strangers(site: Site) -> None:
    """Another checkout, first without secrets, then with others: nothing is changed by run, plan and destroy."""
    site.host.exec(f"cp -a {CHECKOUT} {SECOND}; rm {SECOND}/inventory/aio/secrets.yml")
    zones = "cat /var/lib/lxc/*/zone.json /var/lib/zonestack/owners/aio; lxc-ls -f; ls /var/lib/lxc/*"
    before = site.host.exec(zones).out
    for _others in range(2):
        for command in (
            ("run-playbooks.sh", "--plan"),
            ("run-playbooks.sh", "--no-verify"),
            ("destroy.sh", "--all", "--purge", "--yes"),
        ):
            refused = site.script(*command, rc=1, checkout=SECOND)
            assert (
                "deployment 'aio' exists already, and" in refused.err
                and "Copy inventory/aio/secrets.yml" in refused.err
            )
        site.host.exec([f"{SECOND}/.venv/bin/python", f"{SECOND}/scripts/deployment-secrets.py", "ensure"])
    assert site.host.exec(zones).out == before
    site.host.exec(f"rm -r {SECOND}")
