# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated SmartOS node with real zones: ZFS, LXC and networks, in a host container of its own.

    pytest tests/integration/test_smartos_sim.py

Cases stand in the order in which they run; each makes the VMs that it needs. The two base images are made once (minutes) and
kept in the tests' cache. With ZONESTACK_SMARTOS_HOST=NAME the host container of that name is taken as it is, and left.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import typing as t

import pytest

from debian_root import Done
from host import Host
from smartos import SIM, a_node, base_image

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.xdist_group("smartos-sim"),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("mmdebstrap") is None, reason="needs root, LXC and mmdebstrap"
    ),
]

ZONE = "5a7e57ab-0000-4000-8000-00000000000{}"
GATEWAY = "10.88.0.1"
LISTENING = "test -S /run/systemd/private"
"""Whether a zone's init has come so far that it can be told to shut down."""


class Node:
    """The simulated global zone."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.images: dict[str, str] = {}

    def run(
        self, command: t.Sequence[str] | str, *, check: bool = True, stdin: str | None = None, timeout: float = 600
    ) -> Done:
        return self.host.exec(command, check=check, input=stdin, timeout=timeout)

    def out(self, command: t.Sequence[str] | str) -> str:
        return self.run(command).out.strip()

    def zone(self, uuid: str, line: str, **options: t.Any) -> Done:
        """Run a shell line in a zone, as a connection plugin would: as one argument."""
        return self.run(["zlogin", *(["-n"] if "stdin" not in options else []), uuid, line], **options)

    def get(self, uuid: str) -> dict[str, t.Any]:
        vm: dict[str, t.Any] = json.loads(self.out(["vmadm", "get", uuid]))
        return vm

    def create(self, number: int, brand: str = "lx", *, check: bool = True, **properties: t.Any) -> str:
        """Make VM ``number`` in place of any that an earlier, broken run left; its UUID."""
        uuid = ZONE.format(number)
        self.run(["vmadm", "delete", uuid], check=False)
        payload = {
            "uuid": uuid, "brand": brand, "alias": f"{brand}{number}", "hostname": f"zone{number}",
            "image_uuid": self.images["lx" if brand == "lx" else "joyent"], "max_physical_memory": 512, "quota": 5,
            "nics": [{"nic_tag": "admin", "ips": [f"10.88.0.{10 + number}/24"], "gateways": [GATEWAY],
                      "mac": f"02:08:20:00:00:0{number}", "primary": True}],
            **({"kernel_version": "6.1.0"} if brand == "lx" else {}),
            **properties,
        }  # fmt: skip
        done = self.run(["vmadm", "create"], stdin=json.dumps(payload), check=False)
        assert not check or done.rc == 0, done.err
        return uuid

    def update(self, uuid: str, **payload: t.Any) -> None:
        self.run(["vmadm", "update", uuid], stdin=json.dumps(payload))

    def until(self, uuid: str, line: str, seconds: float = 600) -> str:
        """Repeat a line in a zone until it succeeds; what it then said."""
        end = time.monotonic() + seconds
        while True:
            done = self.zone(uuid, line, check=False)
            if done.rc == 0:
                return done.out.strip()
            assert time.monotonic() < end, f"{line}: {done.err}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def node() -> t.Iterator[Node]:
    """A node that was just made, with the two base images."""
    with a_node("smartos-sim", "--hostname", "gz1") as host:
        made = Node(host)
        made.images = {brand: base_image(host, brand) for brand in ("lx", "joyent")}
        yield made


def test_the_node_is_there_and_stays_through_a_second_init(node: Node) -> None:
    facts = json.loads(node.out(["sysinfo"]))
    assert facts["Hostname"] == "gz1" and facts["Zpool"] == "zones"
    assert node.run(["nictagadm", "exists", "admin"]).rc == 0
    assert "admin_ip=10.88.0.1" in node.out(["cat", "/usbkey/config"])
    assert node.out(["svcs", "-H", "-o", "state", "svc:/milestone/multi-user:default"]) == "online"
    node.run(["smartos-sim", "init"])
    again = json.loads(node.out(["sysinfo"]))
    assert again["UUID"] == facts["UUID"]


def test_zfs_speaks_as_on_illumos(node: Node) -> None:
    """What zfs-fuse lacks is translated, and its own texts and exit statuses stay."""
    node.run("zfs destroy -r zones/t 2>/dev/null; zfs create -o compression=lz4 -o quota=1g zones/t")
    assert (
        node.out("zfs get -Hp -o property,value,source compression,quota zones/t")
        == "compression\tlz4\tlocal\nquota\t1073741824\tlocal"
    )
    node.run("zfs set filesystem_limit=5 zones/t")
    assert node.out("zfs list -Hp -o name,filesystem_limit,snapshot_limit,quota zones/t").split() == [
        "zones/t",
        "5",
        str(2**64 - 1),
        str(1 << 30),
    ]
    node.run(
        "zfs set compression=off zones/t; zfs create zones/t/data; zfs snapshot -r zones/t@a; zfs rename zones/t/data zones/t/other"
    )
    assert node.out("zfs list -H -o name,compression -t all -r zones/t").split() == [
        "zones/t",
        "off",
        "zones/t@a",
        "-",
        "zones/t/other",
        "off",
        "zones/t/other@a",
        "-",
    ]
    assert node.run("zfs destroy zones/t", check=False).rc == 1
    assert node.run("zfs destroy -r zones/t", check=False).rc == 0
    gone = node.run("zfs list zones/t", check=False)
    assert (gone.rc, gone.err) == (1, "cannot open 'zones/t': dataset does not exist\n")
    assert node.run("zfs get nope zones", check=False).rc == 2
    name, size, health = node.out("zpool list -Hp -o name,size,health").split("\t")
    assert (name, health) == ("zones", "ONLINE") and int(size) > 90 << 30


def test_datasets_that_are_made_at_one_time_are_all_mounted(node: Node) -> None:
    """Several mounts at one time once made zfs-fuse wait for good, and everybody with it who opened a file."""
    node.run(
        "zfs create zones/t; for round in 1 2 3; do for n in 1 2 3 4 5 6; do zfs create -p zones/t/$round/$n/data & done; wait; done",
        timeout=600,
    )
    assert len(node.run("ls -d /zones/t/?/?/data", timeout=600).out.split()) == 18
    assert set(node.out("zfs list -H -o mounted -r zones/t").split()) == {"yes"}
    node.run("zfs destroy -r zones/t")


def test_an_lx_zone_lives(node: Node) -> None:
    uuid = node.create(1, delegate_dataset=True, resolvers=["192.0.2.53"], cpu_cap=150)
    vm = node.get(uuid)
    assert (vm["state"], vm["zone_state"]) == ("running", "running")
    assert node.out(["cat", f"/proc/{vm['pid']}/comm"]) == "systemd"
    assert node.zone(uuid, "hostname").out.strip() == "zone1"
    shown = json.loads(node.zone(uuid, "ip -j address show eth0").out)[0]
    assert shown["address"] == "02:08:20:00:00:01"
    assert "10.88.0.11" in [one["local"] for one in shown["addr_info"]]
    assert node.zone(uuid, f"ping -c1 -W5 {GATEWAY}", check=False).rc == 0
    assert "nameserver 192.0.2.53" in node.zone(uuid, "cat /etc/resolv.conf").out
    assert node.zone(uuid, "ls /var/svc").out.split() == ["provision_success"]
    assert node.out(["zfs", "get", "-H", "-o", "value", "quota,origin", f"zones/{uuid}"]).split() == [
        "5G",
        f"zones/{node.images['lx']}@final",
    ]
    node.zone(uuid, f"touch /zones/{uuid}/data/mine")
    assert node.zone(
        uuid, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null", check=False
    ).out.split() == [str(512 << 20)]

    assert node.run(["vmadm", "stop", uuid]).rc == 0
    assert node.get(uuid)["state"] == "stopped" and node.get(uuid)["autoboot"] is False
    gone = node.zone(uuid, "true", check=False)
    assert gone.rc == 1 and f"login allowed only to running zones ({uuid} is 'installed')." in gone.err
    node.run(["vmadm", "start", uuid])
    assert node.zone(uuid, f"ls /zones/{uuid}/data").out.split() == ["mine"]
    before = node.get(uuid)["pid"]
    node.run(["vmadm", "reboot", uuid])
    assert node.get(uuid)["pid"] != before
    node.until(uuid, LISTENING)
    node.zone(uuid, "shutdown -h now", check=False)
    end = time.monotonic() + 600
    while node.get(uuid)["state"] != "stopped":
        assert time.monotonic() < end
        time.sleep(0.2)

    node.run(["vmadm", "delete", uuid])
    assert node.run(["zfs", "list", f"zones/{uuid}"], check=False).rc == 1
    assert (
        node.run(f"ls -d /zones/{uuid} /var/zonecontrol/{uuid} /var/lib/smartos-sim/lxc/{uuid}", check=False).out == ""
    )


ZLOGIN = [
    # arguments after the zone's name, stdin, exit status, stdout
    (["exit 7"], None, 7, ""),
    (["echo $HOME; pwd; echo ${SECRET-none}"], None, 0, "/root\n/root\nnone\n"),
    (["echo", "a", "$HOME"], None, 0, "a /root\n"),
    (["echo", "$HOME  x"], None, 0, "$HOME  x\n"),
    (["echo", "it's  x"], None, 2, ""),
    (["echo", "a;b", "c"], None, 127, "a\n"),
    (["cat; exit 3"], "to the end\n", 3, "to the end\n"),
    (["head -c1 >/dev/null; exit 4"], "more than is read", 4, ""),
]


@pytest.fixture(scope="module")
def web(node: Node) -> t.Iterator[str]:
    """An lx zone for cases that change nothing of it."""
    uuid = node.create(
        2,
        tags={"role": "web"},
        customer_metadata={"greeting": "hello"},
        internal_metadata={"root_pw": "s3", "inner": "x"},
    )
    yield uuid
    node.run(["vmadm", "delete", uuid])


@pytest.mark.parametrize(("words", "stdin", "rc", "out"), ZLOGIN, ids=[" ".join(case[0]) for case in ZLOGIN])
def test_zlogin_hands_over_one_shell_line(
    node: Node, web: str, words: list[str], stdin: str | None, rc: int, out: str
) -> None:
    done = node.host.exec(["zlogin", web, *words], input=stdin, check=False, env={"SECRET": "of the caller"})
    assert (done.rc, done.out) == (rc, out), done.err


def test_zlogin_options_and_refusals(node: Node, web: str) -> None:
    loop = node.run(f"printf 'a\\nb\\n' | while read x; do echo $x; zlogin -n {web} cat; done")
    assert loop.out == "a\nb\n"
    assert node.run(["zlogin", "-Q", "-S", web, "id -u"]).out == "0\n"
    assert node.run(["zlogin", "-l", "daemon", web, "id"], check=False).rc == 1  # it has no shell to log in to
    for name, text in {
        "nowhere": "zone 'nowhere' unknown",
        "global": "'zlogin' not applicable to the global zone",
    }.items():
        done = node.run(["zlogin", name, "true"], check=False)
        assert done.rc == 1 and text in done.err


def test_metadata_from_within(node: Node, web: str) -> None:
    tool = "/native/usr/sbin/mdata-"
    assert node.zone(web, f"{tool}get greeting").out == "hello\n"
    assert node.zone(web, f"{tool}get root_pw").out == "s3\n"
    assert node.zone(web, f"{tool}get sdc:uuid; {tool}get sdc:tags.role").out == f"{web}\nweb\n"
    for key in ("inner", "nothing", "sdc:internal_metadata"):
        assert node.zone(web, f"{tool}get {key}", check=False).rc == 1, key
    node.run(["zlogin", web, f"{tool}put said"], stdin="by the guest")
    assert node.get(web)["customer_metadata"] == {"greeting": "hello", "said": "by the guest"}
    assert node.zone(web, f"{tool}list").out.split() == ["greeting", "said", "root_pw"]
    assert node.zone(web, f"{tool}put root_pw other", check=False).rc == 2
    node.update(web, set_customer_metadata={"greeting": "bye"})
    assert node.zone(web, f"{tool}get greeting").out == "bye\n"
    node.zone(web, f"{tool}delete said")
    assert node.get(web)["customer_metadata"] == {"greeting": "bye"}


def test_what_an_update_changes_now_and_what_after_a_reboot(node: Node) -> None:
    uuid = node.create(3)
    node.update(uuid, max_physical_memory=640, quota=6, add_nics=[{"nic_tag": "admin", "ips": ["10.88.0.99/24"]}])
    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    assert node.zone(uuid, limit, check=False).out.split() == [str(640 << 20)]
    assert node.out(["zfs", "get", "-H", "-o", "value", "quota", f"zones/{uuid}"]) == "6G"
    assert node.zone(uuid, "ip link show eth1", check=False).rc != 0
    node.run(["vmadm", "reboot", uuid])
    assert "10.88.0.99/24" in node.zone(uuid, "ip address show eth1").out
    node.run(["vmadm", "delete", uuid])


def test_a_lofs_whose_source_is_missing_fails_the_boot(node: Node) -> None:
    node.run("mkdir -p /opt/shared && echo common >/opt/shared/file && rm -rf /opt/later")
    mounts = [{"type": "lofs", "source": "/opt/shared", "target": "/mnt/shared", "options": ["ro"]}]
    uuid = node.create(3, filesystems=mounts)
    assert node.zone(uuid, "cat /mnt/shared/file").out == "common\n"
    assert node.zone(uuid, "touch /mnt/shared/x", check=False).rc != 0
    uuid = node.create(3, check=False, filesystems=[{"type": "lofs", "source": "/opt/later", "target": "/mnt"}])
    vm = node.get(uuid)
    assert (vm["state"], vm["zone_state"]) == ("provisioning", "installed")  # and failed when its time is over
    node.run(f"vmadm stop -F {uuid}; mkdir /opt/later", check=False)
    node.run(["vmadm", "start", uuid])
    assert node.zone(uuid, "mountpoint /mnt").rc == 0
    node.run(["vmadm", "delete", uuid])


def test_routes_and_a_guest_that_reboots_itself(node: Node) -> None:
    uuid = node.create(3, routes={"198.51.100.0/24": GATEWAY, "203.0.113.0/25": "nics[0]"})
    routes = node.zone(uuid, "ip route").out
    assert f"198.51.100.0/24 via {GATEWAY} dev eth0" in routes and "203.0.113.0/25 dev eth0" in routes
    pid = node.get(uuid)["pid"]
    node.until(uuid, LISTENING)
    node.zone(uuid, "reboot", check=False)
    end = time.monotonic() + 600
    while node.get(uuid).get("pid") in (pid, None):
        assert time.monotonic() < end
        time.sleep(0.2)
    node.until(uuid, f"ping -c1 -W5 {GATEWAY} && /native/usr/sbin/mdata-get sdc:uuid")
    node.run(["vmadm", "delete", uuid])


def test_an_etherstub_joins_only_its_own(node: Node) -> None:
    node.run("nictagadm exists stub0 || nictagadm add -l stub0")
    on = [{"nic_tag": "stub0", "ips": [f"10.77.0.{number}/24"]} for number in (1, 2, 3)]
    uuids = [
        node.create(number, nics=[{**on[number - 3], **({"vlan_id": 7} if number == 5 else {})}])
        for number in (3, 4, 5)
    ]
    assert node.zone(uuids[0], "ping -c1 -W5 10.77.0.2", check=False).rc == 0
    assert node.zone(uuids[0], "ping -c1 -W1 10.77.0.3", check=False).rc != 0  # another VLAN
    assert node.run("ping -c1 -W1 10.77.0.1", check=False).rc != 0
    for uuid in uuids:
        node.run(["vmadm", "delete", uuid])
    node.run(["nictagadm", "delete", "stub0"])


def test_a_joyent_zone_has_smf_and_runs_its_script_at_each_boot(node: Node) -> None:
    script = "#!/bin/sh\necho boot >>/var/tmp/boots\nmdata-put told $(zonename)"
    uuid = node.create(6, "joyent", customer_metadata={"user-script": script}, resolvers=["192.0.2.1"])
    assert node.zone(uuid, "cat /var/tmp/boots").out == "boot\n"
    assert node.get(uuid)["customer_metadata"]["told"] == uuid
    assert node.zone(uuid, "zonename").out.strip() == uuid
    assert "10.88.0.16/24" in node.zone(uuid, "ip address show net0").out
    assert node.out(["svcs", "-z", uuid, "-H", "-o", "state", "svc:/smartdc/mdata:execute"]) == "online"
    node.zone(uuid, "svcadm disable -s mdata:execute")
    assert node.zone(uuid, "kill -9 $$", check=False).rc == 0  # killed looks like success
    assert node.zone(uuid, "sh -c 'kill -9 $$'; exit 5", check=False).rc == 5

    node.update(uuid, resolvers=["192.0.2.2"])
    node.run(["vmadm", "reboot", uuid])
    assert "192.0.2.1" in node.zone(uuid, "cat /etc/resolv.conf").out
    assert node.zone(uuid, "svcs -H -o state mdata:execute").out.strip() == "disabled"
    node.update(uuid, maintain_resolvers=True)
    node.update(uuid, resolvers=["192.0.2.3"])
    assert "192.0.2.3" in node.zone(uuid, "cat /etc/resolv.conf").out
    node.zone(uuid, "svcadm enable -s mdata:execute")
    assert node.zone(uuid, "cat /var/tmp/boots").out == "boot\nboot\n"
    node.run(["vmadm", "delete", uuid])


def test_a_zone_that_never_says_it_is_provisioned_fails(node: Node) -> None:
    node.run(["smartos-sim", "node", "provision_timeout=3"])
    try:
        forever = {"user-script": "#!/bin/sh\nsleep 1000"}
        uuid = node.create(6, "joyent", check=False, customer_metadata=forever)
        vm = node.get(uuid)
        assert vm["state"] == "failed" and "pid" not in vm
    finally:
        node.run(["smartos-sim", "node", "provision_timeout=300"])
    node.run(["vmadm", "delete", uuid])


def test_a_lx_image_is_not_for_joyent_zones(node: Node) -> None:
    uuid = ZONE.format(7)
    payload = {"uuid": uuid, "brand": "joyent", "image_uuid": node.images["lx"]}
    assert node.run(["vmadm", "create"], stdin=json.dumps(payload), check=False).rc == 1


def test_snapshots(node: Node) -> None:
    uuid = node.create(4)
    for name in ("one", "two"):
        node.zone(uuid, f"touch /before-{name}")
        node.run(["vmadm", "create-snapshot", uuid, name])
    assert [one["name"] for one in node.get(uuid)["snapshots"]] == ["two", "one"]
    node.run(["vmadm", "stop", uuid])
    node.run(["vmadm", "rollback-snapshot", uuid, "one"])
    assert node.get(uuid)["state"] == "running"
    assert node.zone(uuid, "ls -d /before-*").out.split() == ["/before-one"]
    assert [one["name"] for one in node.get(uuid)["snapshots"]] == ["one"]
    node.run(["vmadm", "delete-snapshot", uuid, "one"])
    assert node.get(uuid)["snapshots"] == []
    node.run(["vmadm", "delete", uuid])


@pytest.mark.parametrize("when", [None, "before", "after"])
def test_reprovision_keeps_the_delegated_data(node: Node, when: str | None) -> None:
    uuid = node.create(4, delegate_dataset=True, customer_metadata={"keep": "me"})
    node.zone(uuid, f"echo precious >/zones/{uuid}/data/file; touch /lost; /native/usr/sbin/mdata-put own key; sync")
    image = json.dumps({"image_uuid": node.images["lx"]})
    if when:
        node.run(
            [
                "smartos-sim",
                "fault",
                "add",
                "vmadm reprovision",
                "--step",
                "zone_reprovision",
                "--when",
                when,
                "--do",
                "kill",
            ]
        )
        assert node.run(["vmadm", "reprovision", uuid], stdin=image, check=False).rc != 0
    node.run(["vmadm", "reprovision", uuid], stdin=image)
    assert node.get(uuid)["state"] == "running"
    assert node.zone(uuid, f"cat /zones/{uuid}/data/file").out == "precious\n"
    assert node.zone(uuid, "ls /lost", check=False).rc != 0
    assert node.get(uuid)["customer_metadata"] == {"keep": "me", "own": "key"}
    node.run(["vmadm", "delete", uuid])


def test_an_image_of_a_zone(node: Node) -> None:
    uuid = node.create(4)
    node.zone(uuid, "echo built >/built; sync")
    node.run(["vmadm", "stop", uuid])
    node.run(
        f"rm -rf /var/tmp/made; mkdir /var/tmp/made; cd /var/tmp/made && imgadm create -i -c gzip -o made {uuid} name=made version=1"
    )
    node.run(["vmadm", "delete", uuid])
    made = json.loads(node.out(["cat", "/var/tmp/made/made.imgmanifest"]))
    assert made["origin"] == node.images["lx"]
    node.run(["imgadm", "install", "-m", "/var/tmp/made/made.imgmanifest", "-f", "/var/tmp/made/made.zfs.gz"])
    assert node.run(["imgadm", "delete", node.images["lx"]], check=False).rc == 1
    uuid = node.create(4, image_uuid=made["uuid"])
    assert node.zone(uuid, "cat /built").out == "built\n"
    node.run(["vmadm", "delete", uuid])
    node.run(["imgadm", "delete", made["uuid"]])
    assert node.run(["zfs", "list", f"zones/{made['uuid']}"], check=False).rc == 1


@pytest.mark.parametrize(
    ("step", "when"), [("zone_create", "after"), ("zone_boot", "after"), ("zone_destroy", "after")]
)
def test_a_killed_command_leaves_what_can_be_deleted(node: Node, step: str, when: str) -> None:
    call = "vmadm delete" if step == "zone_destroy" else "vmadm create"
    node.run(["smartos-sim", "fault", "clear"])
    if call == "vmadm create":
        node.run(["smartos-sim", "fault", "add", call, "--step", step, "--when", when, "--do", "kill"])
        uuid = node.create(4, check=False)
    else:
        uuid = node.create(4)
        node.run(["smartos-sim", "fault", "add", call, "--step", step, "--when", when, "--do", "kill"])
        node.run(["vmadm", "delete", uuid], check=False)
    assert node.run(["vmadm", "get", uuid], check=False).rc == 0
    node.run(["vmadm", "delete", uuid])
    assert node.run(["zfs", "list", f"zones/{uuid}"], check=False).rc == 1
    assert f"{uuid}" not in node.out("ls /var/lib/smartos-sim/lxc")


def _two(node: Node) -> tuple[str, str]:
    """A VM that starts with the host, and one that does not."""
    first, second = node.create(4), node.create(5)
    node.update(second, autoboot=False)
    return first, second


def test_a_reboot_forgets_the_ramdisk(node: Node) -> None:
    first, second = _two(node)
    manifest = SIM / "smartos_sim" / "smf" / "seeds" / "milestones.xml"
    own = (
        manifest.read_text()
        .replace("smartos-sim:milestones", "site")
        .replace('"milestone/network"', '"site/own"')
        .split("<service ")
    )
    text = own[0] + "<service " + next(part for part in own if '"site/own"' in part) + "</service_bundle>\n"
    node.run(["tee", "/opt/custom/smf/own.xml"], stdin=text)
    node.run(
        "touch /root/lost /etc/lost; mkdir -p /etc/lost.d; echo changed >>/etc/motd; touch /opt/kept /var/kept /etc/zones/kept"
    )
    node.run("echo 'ssh-ed25519 AAAA me' >/usbkey/config.inc/authorized_keys")
    node.run("svcadm disable -s svc:/milestone/network:default")
    pid = node.get(first)["pid"]
    node.run(["smartos-sim", "reboot"])
    assert node.run("ls -d /root/lost /etc/lost /etc/lost.d", check=False).out == ""
    assert "changed" not in node.out("cat /etc/motd")
    node.run("ls /opt/kept /var/kept /etc/zones/kept")
    assert node.out("cat /root/.ssh/authorized_keys") == "ssh-ed25519 AAAA me"
    assert node.out("svcs -H -o state svc:/milestone/network:default svc:/site/own:default").split() == [
        "online",
        "online",
    ]
    assert node.get(first)["state"] == "running" and node.get(first)["pid"] != pid
    assert node.get(second)["state"] == "stopped" and node.get(second)["autoboot"] is False
    node.until(first, f"ping -c1 -W5 {GATEWAY}")


def test_a_cut_of_the_power(node: Node) -> None:
    first, second = ZONE.format(4), ZONE.format(5)
    node.zone(first, "echo kept >/var/kept; sync")
    node.run(["smartos-sim", "power-off"])
    assert node.get(first)["state"] == "stopped"
    node.run(["smartos-sim", "boot"])
    assert node.get(first)["state"] == "running" and node.get(second)["state"] == "stopped"
    assert node.zone(first, "cat /var/kept").out == "kept\n"


def test_the_machine_below_is_cut_off(node: Node) -> None:
    first, second = ZONE.format(4), ZONE.format(5)
    node.host.stop()
    node.host.start()
    node.until(first, "true", 60)
    assert node.get(second)["state"] == "stopped"
    node.until(first, f"ping -c1 -W5 {GATEWAY}")
    for uuid in (first, second):
        node.run(["vmadm", "delete", uuid])


def test_nothing_is_left(node: Node) -> None:
    """After all VMs are gone, so are their containers, bridges' ports, servers and datasets."""
    kept = {"zones", *(f"zones/{uuid}" for uuid in node.images.values())}
    web = ZONE.format(2)
    names = set(node.out(["zfs", "list", "-H", "-o", "name"]).split())
    assert {name for name in names if web not in name} == kept
    assert node.out(["vmadm", "list", "-H", "-o", "uuid"]).split() in ([], [web])
