# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README's first command on machines of all kinds: it works, or refuses before it changes anything with the line that mends it.

"Works" is shown without a whole cloud: bootstrap (which looks at the machine for a whole all-in-one), preflight, one small image and a
zone of it running. Where the row is about what a builder may miss, the image is built anew, and a second run changes nothing. "Refused" is shown by comparing the machine before and after: files, packages,
kernel settings, links, addresses, routes, rules, mounts. Refusals come first, on a machine that has nothing of ours yet, not even Python.
"""

from __future__ import annotations

import os
import re
import shlex
import ssl
import threading
import typing as t
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from machine import DEPLOYMENT, LIMIT, Machine, nobody_else

from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority, zone_certificate
from host import BRIDGE, SUBNET

pytestmark = [pytest.mark.lxc, pytest.mark.xdist_group("contact")]

Record = t.Callable[[str, object], None]


@pytest.fixture(scope="module")
def plain() -> t.Iterator[Machine]:
    """A fresh Debian 13 that several rows share; each leaves it as it was."""
    nobody_else()
    machine = Machine("plain").create()
    machine.place()
    yield machine
    machine.host.destroy()


@pytest.fixture
def row(request: pytest.FixtureRequest, record_property: Record) -> t.Callable[[str, str], None]:
    """Put a line into the table."""

    def put(machine: str, outcome: str) -> None:
        record_property("contact", f"{machine:<58} {outcome}")

    return put


Row = t.Callable[[str, str], None]


# Refused, and nothing is changed ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    """A machine that cannot be an all-in-one host.

    :param make: shell commands that make the machine so, ``undo`` those that take it back.
    :param rules: rules of nftables that somebody else has.
    :param said: what the refusal says, ``fix`` the line that mends it; both regular expressions.
    :param env: variables of the operator.
    """

    make: str
    undo: str
    said: str
    fix: str
    arguments: tuple[str, ...] = ()
    rules: str = ""
    env: tuple[tuple[str, str], ...] = ()


FIREWALL = """\
table inet site {
  chain input { type filter hook input priority 0; policy accept; }
  chain forward { type filter hook forward priority 0; policy drop; iifname "br9" accept; }
}
"""
REJECTING = """\
table inet site {
  chain forward { type filter hook forward priority 0; policy accept; ct state established accept; reject; }
}
"""
REFUSALS = {
    "a disk that is too small": Refusal(
        "mount -t tmpfs -o size=6g tmpfs /var/lib/lxc",
        "umount /var/lib/lxc",
        r"problem: disk: /var/lib/lxc has 6\d\d\d MiB free and needs \d{5} MiB",
        r"free space, or mount a larger disk at /var/lib/lxc",
    ),
    "a subnet in use, asked for": Refusal(
        "ip address add 10.77.3.1/24 dev eth1",
        "ip address delete 10.77.3.1/24 dev eth1",
        r"problem: network: 10.77.0.0/21 \(or 10.77.8.0/24 next to it\) overlaps address 10.77.3.1/24 of eth1",
        r"set a free network, for example --network 10.99.0.0/21",
        ("--network", "10.77.0.0/21"),
    ),
    "somebody's firewall with a forward policy of drop": Refusal(
        "true",
        "true",
        r"problem: firewall: table inet site, chain forward \(policy drop\) drops what zones send through this machine",
        r"nft insert rule inet site forward iifname \{ zs-aio, zs-aio-public \} accept; nft insert rule inet site forward oifname",
        rules=FIREWALL,
    ),
    "somebody's firewall that rejects the rest": Refusal(
        "true",
        "true",
        r"problem: firewall: table inet site, chain forward \(rule handle \d+: reject\)",
        r"nft insert rule inet site forward iifname \{ zs-aio, zs-aio-public \} accept",
        rules=REJECTING,
    ),
    "a resolver on loopback that zones cannot ask": Refusal(
        "cp /etc/resolv.conf /root/resolv.kept; echo 'nameserver 127.0.0.1' > /etc/resolv.conf",
        "cat /root/resolv.kept > /etc/resolv.conf; rm /root/resolv.kept",
        r"problem: dns: /etc/resolv.conf names 127.0.0.1 alone",
        r"name a server that zones reach in /etc/resolv.conf: nameserver ADDRESS",
    ),
    "a /proc/sys that is read-only, and too small a value": Refusal(
        "echo 128 > /run/value; f=/proc/sys/fs/inotify/max_user_instances; mount --bind /run/value $f; mount -o remount,bind,ro $f",
        "umount /proc/sys/fs/inotify/max_user_instances",
        r"problem: sysctl: fs.inotify.max_user_instances is 128 and cannot be raised here \(Read-only file system\); 30 zones need 136",
        r"sysctl -w fs.inotify.max_user_instances=8192 where this machine's kernel runs, on the outer host",
    ),
    "control groups that are read-only": Refusal(
        "for path in /sys/fs/cgroup/*/ /sys/fs/cgroup; do mountpoint -q $path && mount -o remount,bind,ro $path; done; true",
        "for path in /sys/fs/cgroup/*/ /sys/fs/cgroup; do mountpoint -q $path && mount -o remount,bind,rw $path; done; true",
        r"problem: kernel: no control groups \(none can be made below /sys/fs/cgroup.*: Read-only file system\)",
        r"lxc.mount.auto = cgroup:rw:force",
    ),
    "no /dev/shm": Refusal(
        "umount /dev/shm; rmdir /dev/shm",
        "mkdir /dev/shm; mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
        r"problem: kernel: no shared memory \(No such file or directory\), and Ansible's processes wait for one another through it",
        r"mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm",
    ),
    "no /dev/net/tun": Refusal(
        "umount /dev/net/tun; rm -f /dev/net/tun",
        "mknod /dev/net/tun c 10 200",
        r"problem: kernel: no taps \(.*\), and instances are connected through them",
        r"modprobe tun, and mknod /dev/net/tun c 10 200",
    ),
}  # fmt: skip


def refused(machine: Machine, case: Refusal) -> str:
    """Have the command refused: the line that says why, with the machine as it was."""
    if case.rules:
        machine.nft("-f", "-", rules=case.rules)
    machine.host.exec(case.make)
    try:
        before = machine.state()
        done = machine.bootstrap(*case.arguments, env=dict(case.env))
        changed = machine.changed(before)
    finally:
        machine.host.exec(case.undo)
        if case.rules:
            machine.nft("delete", "table", "inet", "site")
    assert done.rc == 1, f"it was not refused:\n{done.out}{done.err}"
    assert changed == []
    line = next((line for line in done.err.splitlines() if re.search(case.said, line)), "")
    assert line, done.err
    assert re.search(case.fix, line), line
    assert "nothing was changed" in done.err
    return line


@pytest.mark.parametrize("name", REFUSALS)
def test_it_is_refused_before_anything_is_changed(name: str, plain: Machine, row: Row) -> None:
    line = refused(plain, REFUSALS[name])
    row(name, f"refused: {line.partition(' Fix: ')[2]}")


def test_all_that_is_wrong_is_said_at_once(plain: Machine, row: Row) -> None:
    names = ("a disk that is too small", "a resolver on loopback that zones cannot ask", "a subnet in use, asked for")
    cases = [REFUSALS[name] for name in names]
    together = Refusal(
        "\n".join(case.make for case in cases), "\n".join(case.undo for case in cases), cases[0].said, cases[0].fix, cases[2].arguments
    )  # fmt: skip
    plain.host.exec(together.make)
    try:
        done = plain.bootstrap(*together.arguments)
    finally:
        plain.host.exec(together.undo)
    assert all(re.search(case.said, done.err) for case in cases), done.err
    row("three things at once", "refused: all three are said")


class Index(BaseHTTPRequestHandler):
    """An index that is behind a certificate of a CA of the site; nobody gets as far as to ask it anything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_an_index_whose_ca_is_not_trusted(plain: Machine, row: Row, tmp_path: Path) -> None:
    """What a company's proxy does to HTTPS, before its certificate was added to those that the machine trusts."""
    authority = new_authority("site")
    address = f"{SUBNET}.1"
    assert Path("/sys/class/net", BRIDGE).exists()
    signed = zone_certificate(*authority, "index", "index", [address])
    for name, text in {name: signed[name] for name in ("key", "certificate")}.items():
        (tmp_path / name).write_text(text)
    server = HTTPServer((address, 0), Index)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = dict.fromkeys(("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), f"https://{address}:{server.server_port}/simple")
    given |= dict.fromkeys(("no_proxy", "NO_PROXY"), address)
    said = rf"problem: packages: the certificate of https://{address}:\d+/simple is not trusted here"
    fix = "into /usr/local/share/ca-certificates as a .crt file, and run update-ca-certificates"
    try:
        line = refused(plain, Refusal("true", "true", said, fix, env=tuple(given.items())))
    finally:
        server.shutdown()
    row("a proxy that needs a CA which is not trusted yet", f"refused: {line.partition(' Fix: ')[2]}")


def test_no_root(plain: Machine, row: Row) -> None:
    """Anybody else is told what to type. The checkout is one that they can read."""
    plain.place("/srv/anybody")
    before = plain.state()
    done = plain.host.exec(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/srv/anybody/scripts/bootstrap-aio.sh"],
        check=False,
    )
    assert (
        done.rc == 1
        and "problem: not root: this is user nobody. Fix: sudo /srv/anybody/scripts/bootstrap-aio.sh" in done.err
    )
    assert plain.changed(before) == []
    plain.clear()
    plain.place()
    row("a user who is not root", "refused: sudo scripts/bootstrap-aio.sh")


# It works -----------------------------------------------------------------------------------------------------------------


def test_debian_13_where_root_cloned_it(plain: Machine, row: Row) -> None:
    """In /root, which is closed to others; the site's CAs are those of the machine that runs the tests."""
    assert plain.host.exec("stat -c %a /root").out.strip() == "700"
    plain.bootstrap(check=True)
    plain.deploy(builds=True)
    again = plain.bootstrap(check=True)
    assert "Nothing to change" in again.out, again.out
    row("Debian 13, checkout in /root", "works")
    if list(Path("/usr/local/share/ca-certificates").glob("*.crt")):
        row("a proxy that needs an extra CA, which the machine trusts", "works")


def test_a_second_checkout_of_the_same_deployment(plain: Machine, row: Row) -> None:
    """Goes on with the machine of the row before. Without the secrets of the first it is refused; with them nothing changes."""
    first = plain.checkout
    plain.place("/srv/second")
    plain.bootstrap(check=True)
    plain.host.exec(
        f"cp -r {first}/inventory/{DEPLOYMENT} /srv/second/inventory/ && rm /srv/second/inventory/{DEPLOYMENT}/secrets.yml"
    )
    command = f"scripts/run-playbooks.sh --deployment {DEPLOYMENT} --step hosts..zones"
    before = plain.state()
    done = plain.run(command)
    assert (
        done.rc == 1
        and f"deployment '{DEPLOYMENT}' exists already, and this checkout has no inventory/{DEPLOYMENT}/secrets.yml"
        in done.err
    ), done.err
    assert plain.changed(before) == []
    plain.host.exec(f"cp -p {first}/inventory/{DEPLOYMENT}/secrets.yml /srv/second/inventory/{DEPLOYMENT}/")
    assert "Nothing changed." in plain.run(command, check=True).out
    plain.clear()
    plain.host.exec(["rm", "-rf", first])
    row(
        "a second checkout of the same deployment", "refused: copy secrets.yml from the machine that has it; then works"
    )


@pytest.mark.parametrize(
    ("name", "before", "umask", "builds"),
    [
        ("umask 077", "umask 077", "077", True),
        ("LANG=C, LC_ALL=POSIX", "export LANG=C LC_ALL=POSIX LANGUAGE=", "022", False),
    ],
)
def test_a_login_of_another_kind(name: str, before: str, umask: str, builds: bool, plain: Machine, row: Row) -> None:
    plain.place(umask=umask)
    plain.bootstrap(before=before, check=True)
    plain.deploy(builds=builds, before=before)
    plain.clear()
    row(name, "works")


def test_a_path_with_a_space_and_a_letter_beyond_ascii(plain: Machine, row: Row) -> None:
    plain.place("/srv/Wölkchen und mehr/zone stack")
    plain.bootstrap(before="export LANG=C LC_ALL=C", check=True)
    plain.deploy(builds=True, before="export LANG=C LC_ALL=C")
    plain.clear()
    row("a path with a space and a letter beyond ASCII", "works")


def test_a_user_who_says_sudo(plain: Machine, row: Row) -> None:
    plain.host.exec(
        "apt-get -qq install -y --no-install-recommends sudo && useradd --create-home op && echo 'op ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/op",
        timeout=300,
    )
    plain.place("/home/op/zonestack")
    plain.host.exec("chown -R op: /home/op && chmod 700 /home/op")
    variables = ",".join(plain.host.environment())
    sudo = f'exec su op -s /bin/bash -c \'sudo --preserve-env={variables} "$0" "$@"\' -- '
    done = plain.run(f"{sudo.removeprefix('exec ')} scripts/bootstrap-aio.sh", check=True)
    assert "Deploy it: scripts/run-playbooks.sh" in done.out
    plain.deploy(builds=False)
    plain.clear()
    row("a checkout of a user who says sudo", "works")


def test_a_subnet_in_use(plain: Machine, row: Row) -> None:
    """Without --network the next one that is free is taken."""
    plain.place()
    plain.host.exec("ip address add 10.77.3.1/24 dev eth1")
    try:
        plain.bootstrap(check=True)
        assert "cidr: 10.177.0.0/21" in plain.host.exec(f"cat {plain.checkout}/inventory/aio/topology.yml").out
    finally:
        plain.host.exec("ip address delete 10.77.3.1/24 dev eth1")
    row("a subnet in use", "works: the next one is taken")


def test_a_terminal_of_80_columns(plain: Machine, row: Row) -> None:
    """All other rows have none. Goes on with the checkout of the row before."""
    plain.deploy(builds=False)
    run = f"cd {plain.checkout} && stty cols 80 rows 24 && scripts/run-playbooks.sh --deployment {DEPLOYMENT} --step hosts"
    # script(1) is of bsdutils, which each Debian has
    done = plain.host.exec(
        ["script", "--quiet", "--return", "--command", run, "/dev/null"], timeout=LIMIT, env={"TERM": "xterm"}
    )
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.out)
    assert "Nothing changed." in said, said
    assert "\x1b[" in done.out, "it was no terminal"
    plain.clear()
    row("a terminal of 80 columns, and none", "works")


def test_a_firewall_that_lets_the_zones_pass(plain: Machine, row: Row) -> None:
    """With the rules that the refusal names the machine is one that works, and these rules stay as they are."""
    plain.place()
    plain.nft("-f", "-", rules=FIREWALL)
    said = plain.bootstrap(before="true")
    rules = re.findall(r"nft (insert rule inet site forward [^;]*?)(?:;| and in the file)", said.err)
    for rule in rules:
        plain.nft(*shlex.split(rule.rstrip("; ")))
    try:
        assert len(rules) == 2, said.err
        before = plain.nft("list", "table", "inet", "site")
        plain.bootstrap(check=True)
        plain.nft("insert", "rule", "inet", "site", "forward", "iifname", "zs-tiny", "accept")
        plain.nft(
            "insert",
            "rule",
            "inet",
            "site",
            "forward",
            "oifname",
            "zs-tiny",
            "ct",
            "state",
            "established,related",
            "accept",
        )
        kept = plain.nft("list", "table", "inet", "site")
        plain.deploy(builds=True)
        assert plain.nft("list", "table", "inet", "site") == kept != before
    finally:
        plain.nft("delete", "table", "inet", "site")
    plain.clear()
    row("that firewall, with the rules that the refusal names", "works")


DOCKER = """\
table ip filter {
  chain DOCKER-USER { counter return; }
  chain FORWARD { type filter hook forward priority 0; policy drop; counter jump DOCKER-USER; iifname "docker0" accept; }
}
"""


def test_docker_beside_the_zones(plain: Machine, row: Row) -> None:
    """Docker drops what is forwarded, and has a chain for exceptions; its own rules stay as they are."""
    plain.place()
    plain.nft("-f", "-", rules=DOCKER)
    try:
        own = plain.nft("list", "chain", "ip", "filter", "FORWARD")
        plain.bootstrap(check=True)
        plain.deploy(builds=True)
        now = plain.nft("list", "chain", "ip", "filter", "FORWARD")
        assert re.sub(r"packets \d+ bytes \d+", "", now) == re.sub(r"packets \d+ bytes \d+", "", own)
    finally:
        plain.nft("delete", "table", "ip", "filter")
    plain.clear()
    row("Docker's forward policy of drop", "works: its chain for exceptions has the bridges")


# Machines of their own ----------------------------------------------------------------------------------------------------

FEW_WATCHES = "echo 190000 > /run/value; f=/proc/sys/fs/inotify/max_user_watches; mount --bind /run/value $f; mount -o remount,bind,ro $f"
MACHINES: dict[str, tuple[str, dict[str, t.Any], str, str, bool]] = {
    "a container with a read-only /proc/sys, checkout in /root": (
        "fixed",
        {"proc": "mixed"},
        FEW_WATCHES,
        "works: the setting is named",
        True,
    ),
    "process 1 is no systemd": (
        "bare",
        {"init": "/bin/sleep infinity", "further": ["lxc.mount.entry = tmpfs dev/shm tmpfs mode=1777,create=dir 0 0"]},
        "true",
        "works",
        False,
    ),
    "Debian 12": ("bookworm", {"suite": "bookworm"}, "true", "works", True),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_of_another_kind(name: str, row: Row) -> None:
    nobody_else()
    short, how, prepare, outcome, builds = MACHINES[name]
    machine = Machine(short).create(**how)
    try:
        machine.host.exec(prepare)
        machine.place()
        done = machine.bootstrap(check=True)
        if "named" in outcome:
            assert "warning: sysctl: fs.inotify.max_user_watches is 190000 and cannot be raised here" in done.err
        machine.deploy(builds=builds)
    finally:
        if not os.environ.get("ZONESTACK_KEEP_CONTACTS"):
            machine.host.destroy()
    row(name, outcome)
