# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a host's networks with the real systemd-networkd, the real ifupdown and the real kernel: what is right stays, and what
cuts the host off is gone when its time is up.

A machine is a network namespace with a mount namespace around its configuration, and a second network namespace at the other end
of its cable. Process 1 is not in it: two scripts stand in for systemctl and systemd-run. Needs root; ifupdown is unpacked from its
Debian package where it is not installed, and nothing is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NETWORKD = Path("/lib/systemd/systemd-networkd")
LIMIT, SOON = 120, 4
"""Seconds that a change may take to be confirmed: what is right has time, also on a busy machine; of what is wrong the end is waited for."""

SETUP = """
set -e
mount -t sysfs -o ro sysfs /sys
mkdir $WORK/layers
mount -t tmpfs tmpfs $WORK/layers
for folder in etc usr/local; do
  mkdir -p $WORK/layers/$folder/{upper,work}
  mount -t overlay -o lowerdir=/$folder,upperdir=$WORK/layers/$folder/upper,workdir=$WORK/layers/$folder/work overlay /$folder
done
mount -t tmpfs -o mode=0755 tmpfs /run
rm -rf /etc/network /etc/netplan /etc/systemd/network /etc/zonestack
mkdir -p /etc/network/interfaces.d /etc/network/if-{pre-up,up,down,post-down}.d /etc/netplan /etc/systemd/{network,system} /run/network
ip link set lo up
touch $WORK/ready
exec sleep infinity
"""
SYSTEMCTL = """\
#!/bin/bash
echo "systemctl $*" >>$WORK/log
networkd() { test -e $WORK/networkd.pid && kill -0 "$(cat $WORK/networkd.pid)" 2>/dev/null; }
case "$*" in
  *is-active*systemd-networkd*) networkd ;;
  *is-active*zonestack-links-change.service*) test -e $WORK/trial.pid && kill -0 "$(cat $WORK/trial.pid)" 2>/dev/null ;;
  *is-active*) exit 3 ;;
  "restart systemd-networkd.service")
    if networkd; then kill "$(cat $WORK/networkd.pid)"; while networkd; do sleep 0.05; done; fi
    mkdir -p /run/systemd/netif/links /run/systemd/netif/leases; chown -R systemd-network: /run/systemd/netif
    setsid /lib/systemd/systemd-networkd >>$WORK/networkd.log 2>&1 </dev/null & echo $! >$WORK/networkd.pid ;;
  "stop zonestack-links-change"*) kill -- -"$(cat $WORK/trial.pid)" ;;
esac
"""
SYSTEMD_RUN = """\
#!/bin/bash
echo "systemd-run $*" >>$WORK/log
while [[ $1 == --* ]]; do case $1 in --property=ExecStopPost=*) post=${1#--property=ExecStopPost=} ;; esac; shift; done
setsid bash -c 'echo $$ >$WORK/trial.pid; sleep 0.5; "$@"; '"$post" trial "$@" >>$WORK/log 2>&1 </dev/null &
"""


class Machine:
    """A host at the end of a cable, ``here`` is the other end."""

    def __init__(self, work: Path, manager: str) -> None:
        self.work, self.manager = work, manager
        tools = work / "bin"
        tools.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        package = work / "ansible_collections"  # as Ansible packs it for a host
        (package / "zonestack").mkdir(parents=True)
        for folder in (package, package / "zonestack"):
            (folder / "__init__.py").touch()
        (package / "zonestack" / "openstack").symlink_to(ROOT)
        self.environment = {
            **os.environ, "WORK": str(work), "LC_ALL": "C", "PYTHONPATH": str(work),
            "PATH": f"{tools}:{os.environ['PATH']}:/usr/sbin:/sbin",
        }  # fmt: skip
        unshare = ["unshare", "--net", "--mount", "--propagation", "private"]
        self.host = subprocess.Popen([*unshare, "bash", "-c", SETUP], env=self.environment)
        self.here = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        until((work / "ready").exists, "the namespaces of the machine")
        until(
            lambda: os.readlink(f"/proc/{self.here.pid}/ns/net") != os.readlink("/proc/self/ns/net"),
            "the namespace of the other end",
        )
        subprocess.run(
            [
                "nsenter",
                "-t",
                str(self.host.pid),
                "-n",
                "ip",
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                "far",
                "netns",
                str(self.here.pid),
            ],
            check=True,
        )
        self.exec("ip link add eth1 type veth peer name nowhere; ip link set nowhere up")
        self.there("ip address add 192.0.2.1/24 dev far; ip link set far up")

    def close(self) -> None:
        """End all that runs in the namespaces, whoever started it."""
        spaces: set[str] = set()
        for process in (self.host, self.here):
            with contextlib.suppress(OSError):
                spaces.add(os.readlink(f"/proc/{process.pid}/ns/net"))
        spaces.discard(os.readlink("/proc/self/ns/net"))  # of a process that had not got its own yet
        for path in Path("/proc").glob("[0-9]*/ns/net"):
            with contextlib.suppress(OSError):
                if os.readlink(path) in spaces:
                    os.kill(int(path.parts[2]), signal.SIGKILL)
        for process in (self.host, self.here):
            process.kill()
            process.wait(timeout=120)

    def exec(self, script: str, check: bool = True) -> str:
        """Run a shell script on the machine; its output."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.host.pid), "-n", "-m", "bash", "-c", script],
            env=self.environment, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def there(self, script: str) -> None:
        """Run a shell script at the other end."""
        subprocess.run(
            ["nsenter", "-t", str(self.here.pid), "-n", "bash", "-ec", script],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def answers(self) -> bool:
        """Whether it can be reached at its address."""
        ping = ["nsenter", "-t", str(self.here.pid), "-n", "ping", "-c", "1", "-W", "1", "192.0.2.11"]
        return subprocess.run(ping, check=False, capture_output=True).returncode == 0

    def module(
        self, links: list[dict[str, t.Any]], step: str = "apply", check: bool = False, limit: int = LIMIT
    ) -> dict[str, t.Any]:
        """One call of the module, as Ansible makes it on a host."""
        files = ROOT / "roles/zone_host/files"
        arguments = {
            "links": links, "limit": limit, "step": step, "_ansible_check_mode": check, "_ansible_remote_tmp": str(self.work),
            "command": (files / "zonestack-links").read_text(), "unit": (files / "zonestack-links.service").read_text(),
        }  # fmt: skip
        request = self.work / "arguments.json"
        request.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        out = self.exec(f"{sys.executable} {ROOT}/plugins/modules/host_links.py {request}", check=False)
        assert out, self.exec(f"{sys.executable} {ROOT}/plugins/modules/host_links.py {request} 2>&1; true")
        result: dict[str, t.Any] = json.loads(out)
        return result

    def files(self) -> str:
        """All files that a change may touch, with their texts."""
        return self.exec("cd /etc; find network systemd/network -type f | sort | xargs -r grep -H ''; true")


def until(true: t.Callable[[], t.Any], what: str, seconds: float = 180) -> None:
    """Wait until something is so, with a limit."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def ifupdown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder with ifup, ifdown and ifquery."""
    if found := shutil.which("ifup", path="/usr/sbin:/sbin"):
        return str(Path(found).parent)
    folder = tmp_path_factory.mktemp("ifupdown")
    got = subprocess.run(["apt-get", "download", "ifupdown"], cwd=folder, check=False, capture_output=True, text=True)
    packages = list(folder.glob("*.deb"))
    if not packages:
        pytest.skip(f"needs ifupdown, and apt does not get it: {got.stderr.strip()[-200:]}")
    subprocess.run(["dpkg", "-x", packages[0], folder], check=True)
    programs = next(path.parent for path in folder.rglob("sbin/ifup"))
    return str(programs)


@pytest.fixture(params=["networkd", "ifupdown"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, ifupdown: str) -> t.Iterator[Machine]:
    """A machine whose owner gave it 192.0.2.11 on eth0."""
    if os.geteuid() != 0 or not NETWORKD.exists():
        pytest.skip("needs root and systemd-networkd")
    one = Machine(tmp_path, request.param)
    try:
        if request.param == "networkd":
            one.exec(
                "printf '[Match]\\nName=eth0\\n[Network]\\nAddress=192.0.2.11/24\\nGateway=192.0.2.1\\n' >/etc/systemd/network/20-site.network;"
                "systemctl restart systemd-networkd.service"
            )
        else:
            one.environment["PATH"] = f"{one.work}/bin:{ifupdown}:" + one.environment["PATH"]
            text = "auto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet static\n    address 192.0.2.11/24\n    gateway 192.0.2.1\n"
            one.exec(f"echo '{text}' >/etc/network/interfaces; ifup eth0")
        until(one.answers, "the machine as its owner left it")
        yield one
    finally:
        one.close()


def link(name: str, kind: str = "physical", **keys: t.Any) -> dict[str, t.Any]:
    return {"name": name, "kind": kind, "mtu": 1500, "routes": {}, **keys}


ADDRESS = {"address": "192.0.2.11/24", "gateway": "192.0.2.1"}
BRIDGED = [
    link("eth0", master="br-mgmt"),
    link("br-mgmt", "bridge", **ADDRESS, routes={"198.51.100.0/24": "192.0.2.254"}),
]
WRONG_CABLE = [link("eth0"), link("eth1", master="br-mgmt"), link("br-mgmt", "bridge", **ADDRESS)]
WRONG_VLAN = [link("eth0"), link("mgmt", "vlan", parent="eth0", id=10, **ADDRESS)]
WRONG_BOND = [link("eth0", master="bond0"), link("bond0", "bond", mode="802.3ad", address="192.0.3.11/24")]


def test_what_is_right_stays_once_it_is_confirmed(machine: Machine) -> None:
    foreseen = machine.module(BRIDGED, check=True)
    before = machine.files()
    assert foreseen["changed"] and machine.module(BRIDGED, "look")["phase"] == "none" and machine.files() == before
    done = machine.module(BRIDGED)
    assert (done["manager"], done["phase"], done["diff"]) == (machine.manager, "waiting", foreseen["diff"])
    until(lambda: machine.module(BRIDGED, "confirm")["phase"] == "none", "the confirmation")
    assert machine.answers()
    assert "192.0.2.11/24" in machine.exec("ip -br -4 address show br-mgmt")
    after = machine.module(BRIDGED)
    assert not after["changed"] and after["lacks"] == []
    machine.exec(
        "timeout 180 sh -c 'while kill -0 $(cat $WORK/trial.pid) 2>/dev/null; do sleep 0.2; done'"
    )  # nobody is left to take it back


# Whether a bond or a VLAN that nobody else knows cuts the host off at once depends on kernel and manager, whether it can be confirmed does not.
@pytest.mark.parametrize(
    ("wrong", "at_once"), [(WRONG_CABLE, True), (WRONG_VLAN, False), (WRONG_BOND, False)], ids=["cable", "VLAN", "bond"]
)
def test_what_cuts_the_host_off_is_taken_back_in_time(
    machine: Machine, wrong: list[dict[str, t.Any]], at_once: bool
) -> None:
    before = machine.files()
    assert machine.module(wrong, limit=SOON)["phase"] == "waiting"
    if at_once:
        until(lambda: not machine.answers(), "the host is cut off")
    until(lambda: machine.module(wrong, "look")["phase"] == "refused", "the change is taken back", SOON + 180)
    until(machine.answers, "the host is back")
    assert machine.module(wrong, "look")["why"] == f"no new connection confirmed it within {SOON} s"
    assert machine.files() == before
    assert machine.exec("ip -br link | grep -E '^(br-mgmt|mgmt|bond0)' || echo none").split() == ["none"]
    assert "taken back: no new connection confirmed it" in str(machine.module(wrong, check=True)["warnings"])


def test_what_is_not_as_described_is_not_confirmed_although_the_host_answers(machine: Machine) -> None:
    more = [*BRIDGED, link("bond9", "bond", mode="802.3ad", address="203.0.113.9/24")]
    if machine.exec("ip link add bond9 type bond && ip link delete bond9 && echo yes", check=False):
        pytest.skip("this kernel makes bonds, so nothing would lack")
    machine.module(more, limit=30)
    until(machine.answers, "the host with what could be made")
    until(lambda: machine.module(more, "look")["phase"] == "applied", "the change is in force")
    until(lambda: machine.module(more, "confirm")["lacks"] == ["bond9: missing"], "all that this kernel can make")
    until(lambda: machine.module(more, "look")["phase"] == "refused", "it is taken back", 180)
    until(machine.answers, "the host as it was")


def test_power_loss_before_the_confirmation_brings_the_former_files_back(machine: Machine) -> None:
    before = machine.files()
    machine.module(BRIDGED)
    until(lambda: machine.module(BRIDGED, "look")["phase"] == "applied", "the change is in force")
    assert machine.files() != before
    machine.exec("kill -9 -- -$(cat $WORK/trial.pid)")
    machine.exec("/usr/local/sbin/zonestack-links boot")
    assert machine.files() == before
    assert machine.module(BRIDGED, "look")["why"] == "the host was started anew before the change was confirmed"


def test_drift_is_seen_and_mended(machine: Machine) -> None:
    machine.module(BRIDGED)
    until(lambda: machine.module(BRIDGED, "confirm")["phase"] == "none", "the confirmation")
    machine.exec("ip link delete br-mgmt")
    seen = machine.module(BRIDGED, check=True)
    assert seen["changed"] and seen["lacks"][-1] == "br-mgmt: missing"
    machine.module(BRIDGED)
    until(lambda: machine.module(BRIDGED, "confirm")["phase"] == "none", "the confirmation")
    assert machine.answers() and not machine.module(BRIDGED)["changed"]


def test_an_interface_that_is_not_there_is_refused_before_anything_is_changed(machine: Machine) -> None:
    before = machine.files()
    done = machine.module([link("eno7", master="br-mgmt"), link("br-mgmt", "bridge", **ADDRESS)])
    assert done["failed"] and "there is no interface eno7 (there are: eth0, eth1, nowhere)" in done["msg"]
    assert machine.files() == before


def test_where_somebody_else_is_in_charge_nothing_is_touched(machine: Machine) -> None:
    machine.exec("touch /etc/netplan/50-cloud.yaml")
    done = machine.module(BRIDGED)
    assert done["failed"] and "netplan manages the networks of this host" in done["msg"]


SSHD = """
mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f $WORK/host; ssh-keygen -q -t ed25519 -N '' -f $WORK/client
cat >$WORK/sshd_config <<END
ListenAddress 0.0.0.0
HostKey $WORK/host
PidFile $WORK/sshd.pid
AuthorizedKeysFile $WORK/client.pub
StrictModes no
UsePAM no
SetEnv WORK=$WORK PATH=$PATH
END
$(command -v sshd) -f $WORK/sshd_config -E $WORK/sshd.log
"""
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - zonestack.openstack.host_links:
        links: "{{{{ links }}}}"
        limit: {limit}
        command: "{{{{ lookup('ansible.builtin.file', '{files}/zonestack-links') }}}}"
        unit: "{{{{ lookup('ansible.builtin.file', '{files}/zonestack-links.service') }}}}"
    - ansible.builtin.command: echo reached
"""


def play(machine: Machine, links: list[dict[str, t.Any]], limit: int = LIMIT) -> str:
    """Run the module from the other end of the cable, over SSH with a connection that is kept."""
    work = machine.work
    (work / "play.yml").write_text(PLAY.format(limit=limit, files=ROOT / "roles/zone_host/files"))
    (work / "links.json").write_text(json.dumps({"links": links}))
    known = f"-o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={work}/known_hosts -o StrictHostKeyChecking=yes -o IdentityFile={work}/client"
    (work / "known_hosts").write_text(f"192.0.2.11 {(work / 'host.pub').read_text()}")
    environment = {
        **machine.environment, "ANSIBLE_COLLECTIONS_PATH": str(work), "ANSIBLE_SSH_ARGS": known, "ANSIBLE_PIPELINING": "1", "HOME": str(work),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": f"/tmp/zs-{os.getpid()}", "ANSIBLE_TIMEOUT": "3", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    environment.pop("PYTHONPATH")
    command = [
        "ansible-playbook",
        "-i",
        "192.0.2.11,",
        "-e",
        f"@{work}/links.json",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        str(work / "play.yml"),
    ]
    done = subprocess.run(
        ["nsenter", "-t", str(machine.here.pid), "-n", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        cwd=work,
    )
    shutil.rmtree(f"/tmp/zs-{os.getpid()}", ignore_errors=True)
    return done.stdout + done.stderr


def test_over_ssh_what_is_right_is_confirmed_and_what_cuts_it_off_is_told(machine: Machine) -> None:
    if not shutil.which("sshd", path=machine.environment["PATH"]):
        pytest.skip("needs sshd (Debian: openssh-server)")
    machine.exec(SSHD)
    try:
        said = play(machine, WRONG_CABLE, SOON)
        assert (
            f"the change was taken back, no new connection confirmed it within {SOON} s: the host was not reached with the new networks"
            in said
        )
        assert "The host has its former networks" in said
        said = play(machine, BRIDGED)
        assert "It is tried again now" in said
        assert "ok=2    changed=2" in said and "unreachable=0    failed=0" in said, said
        said = play(machine, BRIDGED)
        assert "ok=2    changed=1" in said and "unreachable=0    failed=0" in said  # the command alone
    finally:
        machine.exec("kill $(cat $WORK/sshd.pid)")
