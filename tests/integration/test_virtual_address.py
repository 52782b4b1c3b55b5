# SPDX-License-Identifier: GPL-3.0-or-later
"""Two real HAProxy zones, with the files and daemons that a run gives them: who has the virtual addresses, and how soon another one.

The image is made from the services' declarations, so this needs root, LXC, mmdebstrap and a Debian archive. How soon an address
moves is measured, which says nothing on a busy machine: so this runs only where ZONESTACK_TEST_FAILOVER is set.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.action.zone_tree import BOOTSTRAP, PROGRAM
from ansible_collections.zonestack.openstack.plugins.module_utils.image.lxc import LxcImages
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import BuilderNetwork, Recipe, Settings
from ansible_collections.zonestack.openstack.plugins.module_utils.image.store import build_all
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.converge import converge
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc import LXC_PATH, LxcBackend, veth_name

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(
        not os.environ.get("ZONESTACK_TEST_FAILOVER"),
        reason="some minutes of failovers: ZONESTACK_TEST_FAILOVER=1; with =measured on an idle machine also their limits",
    ),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("mmdebstrap") or not shutil.which("lxc-start"),
        reason="needs root, LXC and mmdebstrap",
    ),
]

MEASURED = os.environ.get("ZONESTACK_TEST_FAILOVER") == "measured"
"""Whether the times without an answer are held to limits, which wants an idle machine; otherwise they are printed."""
IMAGE = "vipztest-000000000000"
TOPOLOGY = """
release: "2026.2"
deployment: vipztest
networks: {zone: {cidr: 198.18.64.0/21, bridge: vipztest0}}
endpoints: {external: cloud.example.net, external_address: 198.18.80.10}
cloud: {networks: {public: {cidr: 198.18.80.0/24, bridge: vipztest1}}}
hosts: {va: {id: 1, address: 192.0.2.1}, vb: {id: 2, address: 192.0.2.2}}
services: {galera: {count: 3}, memcached: , keystone: , haproxy: {count: 1}}
"""
INTERNAL, EXTERNAL = "198.18.64.5", "198.18.80.10"
BRIDGES = {"vipztest0": ("198.18.66.1/21", "198.18.68.1/21"), "vipztest1": ("198.18.80.1/24",)}


def sh(*argv: object, check: bool = True, **options: t.Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, timeout=600, check=False, **options
    )
    assert not check or done.returncode == 0, f"{argv}: {done.returncode}: {done.stderr}{done.stdout}"
    return done


def until(condition: t.Callable[[], object], limit: float = 180) -> float:
    """Wait; how long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < limit, f"not within {limit} s"
        time.sleep(0.05)
    return time.monotonic() - begun


class Zone:
    """A zone as the inventory describes it, on this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.options: dict[str, t.Any] = {}

    def describe(self, rendering: t.Any) -> None:
        variables = rendering.variables(self.name)
        self.options = {
            **rendering.templar(variables).template(variables["__zone_wanted"]),
            "image": IMAGE,
            "autostart": False,
        }
        self.address = variables["zone"]["address"]
        self.tree = rendering.tree(variables)

    def make(self, state: str = "started") -> dict[str, t.Any]:
        return converge(LxcBackend(start_timeout=180, stop_timeout=120), ZoneSpec.from_dict(self.options), state)

    def inside(self, *argv: object, check: bool = True, **options: t.Any) -> str:
        return sh(
            "lxc-attach",
            "-n",
            self.name,
            "--clear-env",
            "-v",
            "PATH=/usr/sbin:/usr/bin",
            "--",
            *argv,
            check=check,
            **options,
        ).stdout

    def apply(self, restart: bool = False) -> dict[str, t.Any]:
        """What the action zone_tree has a zone do, with its own program."""
        request = {"check": False, "start": True, "restart": restart, "wait": 180, **self.tree}
        program = PROGRAM.read_text()
        done = self.inside(
            "python3", "-IS", "-c", BOOTSTRAP.format(size=len(program.encode())), input=program + json.dumps(request)
        )
        result = json.loads(done)
        assert not result.get("failed"), result["msg"]
        return result

    def run(self) -> None:
        self.make()
        self.apply()

    @property
    def held(self) -> list[str]:
        """The virtual addresses that the zone has now."""
        words = self.inside("ip", "-o", "-4", "address", check=False).split()
        return [one for one in (INTERNAL, EXTERNAL) if f"{one}/32" in words]

    def daemon(self, verb: str, *arguments: str) -> None:
        self.inside("systemctl", verb, *arguments)

    def cable(self, state: str) -> None:
        for index in (0, 1):
            sh("ip", "link", "set", veth_name(self.options["uuid"], index), state)

    def haproxy(self, command: str) -> str:
        ask = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); s.sendall({command.encode()!r} + b'\\n'); print(s.makefile().read())"
        return self.inside("python3", "-c", ask)


class Questions(threading.Thread):
    """Asks HAProxy at an address twenty times a second: connect, and TLS with the certificate checked, so the process must answer."""

    def __init__(self, address: str, port: int, ca: str) -> None:
        super().__init__(daemon=True)
        self.target, self.answers = (address, port), [time.monotonic()]
        self.context, self.ended = ssl.create_default_context(cadata=ca), threading.Event()

    def ask(self) -> None:
        with (
            socket.create_connection(self.target, timeout=0.5) as link,
            self.context.wrap_socket(link, server_hostname=self.target[0]),
        ):
            self.answers.append(time.monotonic())

    def run(self) -> None:
        while not self.ended.wait(0.05):
            with contextlib.suppress(OSError):
                self.ask()

    def gap(self, since: float) -> float:
        """The longest time without an answer since then, in seconds."""
        times = [since, *(one for one in list(self.answers) if one > since), time.monotonic()]
        return max(later - earlier for earlier, later in zip(times, times[1:], strict=False))


class Member:
    """What HAProxy sees of a Galera node: a port that says who answers, and the health check of its agent."""

    def __init__(self, name: str, address: str, files: t.Mapping[str, str], folder: Path) -> None:
        self.name, self.up = name, True
        for file in ("zone.crt", "zone.key"):
            (folder / file).write_text(files[f"/etc/zonestack/tls/{file}"])
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "zone.crt", folder / "zone.key")
        self.open: list[socket.socket] = []
        for port, answer in ((3306, self.greet), (9200, self.health)):
            server = socket.create_server((address, port))
            threading.Thread(target=self.serve, args=(server, answer), daemon=True).start()

    def serve(self, server: socket.socket, answer: t.Callable[[socket.socket], None]) -> None:
        while True:
            link, _peer = server.accept()
            threading.Thread(target=answer, args=(link,), daemon=True).start()

    def greet(self, link: socket.socket) -> None:
        link.sendall(f"{self.name}\n".encode())
        self.open.append(link)

    def health(self, link: socket.socket) -> None:
        try:
            with self.context.wrap_socket(link, server_side=True) as tls:
                tls.recv(1000)
                tls.sendall(f"HTTP/1.0 {'200 OK' if self.up else '503 down'}\r\n\r\n".encode())
        except OSError:
            link.close()


class Lab:
    def __init__(self, work: Path) -> None:
        from cloud import compute
        from comparison.sides import throw_away
        from rendering import Rendering, find_collections

        find_collections()
        self.work = work / "vipztest"
        self.work.mkdir()
        self.compute, self.rendering, self.secrets = compute, Rendering, {}
        self.a, self.b = Zone("va-haproxy-1"), Zone("vb-haproxy-1")
        self.computed = self.render(1)
        self.secrets = throw_away(self.computed)
        self.render(1)
        self.questions: list[Questions] = []

    def render(self, count: int) -> t.Any:
        """The deployment with so many HAProxy zones."""
        path = self.work / "topology.yml"
        path.write_text(TOPOLOGY.replace("{count: 1}", f"{{count: {count}}}"))
        computed = self.compute(path)
        if self.secrets:
            self.all = self.rendering(path, {"secrets": self.secrets})
            for zone in (self.a, self.b)[:count]:
                zone.describe(self.all)
            self.ca = next(file["content"] for file in self.a.tree["files"] if file["path"].endswith("tls/ca.crt"))
        return computed

    @property
    def client(self) -> str:
        """The address of a zone that needs the database: this machine has it too."""
        return str(self.computed.stack["members"]["keystone"][0]["address"])

    def writer(self, address: str) -> str:
        """The member that a new client of the database gets."""
        with socket.create_connection((address, 3306), timeout=60, source_address=(self.client, 0)) as link:
            return link.recv(100).decode().strip()

    def pair(self) -> tuple[Zone, Zone]:
        """Who has the addresses, all of them, and who has none."""
        holder, other = sorted((self.a, self.b), key=lambda zone: -len(zone.held))
        assert (holder.held, other.held) == ([INTERNAL, EXTERNAL], [])
        return holder, other

    def moved(self, since: float, what: str, limit: float) -> None:
        """Both addresses answer from now on; how long they did not is printed, and where that is measured held to a limit in seconds."""
        asked = time.monotonic()
        until(lambda: all(one.answers[-1] > asked + 0.5 for one in self.questions))
        internal, external = (one.gap(since) for one in self.questions)
        print(f"{what}: internal address silent for {internal:.2f} s, external for {external:.2f} s")
        assert not MEASURED or max(internal, external) < limit


def build_image(lab: Lab) -> None:
    """One image from what base image and HAProxy declare; made once for this test."""
    base, own = (
        yaml.safe_load((ROOT / "services" / name).read_text()) for name in ("_base.yml", "haproxy/service.yml")
    )
    packages, commands = ([*base[key], *own["image"][key]] for key in ("packages", "commands"))
    recipe = Recipe(
        id=IMAGE, name="vipztest", suite=base["suite"], packages=packages, commands=commands, files=base["files"]
    )
    store = LxcImages(str(LXC_PATH / "zonestack"))
    store.prepare()
    with store.lock(600):
        if IMAGE not in store.ids():
            network = BuilderNetwork("vipztest0", 21, "198.18.66.1", ["198.18.66.2"])
            _built, failed = build_all(store, [recipe], Settings(network, 1, "", "uv"))
            assert not failed, failed


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, bridge: t.Callable[..., None], remove: t.Callable[[str], None]
) -> t.Iterator[Lab]:
    """One zone first, then two; both addresses are asked all the time."""
    made = Lab(tmp_path_factory.mktemp("vip"))
    for zone in (made.a, made.b):
        remove(zone.name)
    for name, addresses in BRIDGES.items():
        bridge(name, *addresses)
    sh("ip", "address", "add", f"{made.client}/21", "dev", "vipztest0")
    try:
        build_image(made)
        yield made
    finally:
        for one in made.questions:
            one.ended.set()
        for zone in (made.a, made.b):
            if zone.options:
                sh("lxc-stop", "-k", "-n", zone.name, check=False)
                zone.make("absent")
        shutil.rmtree(LXC_PATH / "zonestack/images" / IMAGE, ignore_errors=True)


def test_the_only_zone_takes_the_addresses(lab: Lab) -> None:
    lab.a.make()
    begun = time.monotonic()
    lab.a.apply()  # waits until the address answers
    print(f"first start of the daemons to an answer at the address: {time.monotonic() - begun:.1f} s")
    assert lab.a.held == [INTERNAL, EXTERNAL]
    assert lab.a.apply()["changed"] is False
    status = lab.a.inside(
        "cat", f"/proc/{lab.a.inside('systemctl', 'show', '--value', '-P', 'MainPID', 'keepalived').strip()}/status"
    )
    bounding = next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd"))
    names = {5: "kill", 6: "setgid", 7: "setuid", 12: "net_admin", 13: "net_raw"}  # linux/capability.h
    assert int(bounding, 16) == sum(1 << bit for bit in names)
    assert lab.a.inside("cat", "/proc/sys/net/ipv4/tcp_retries2").strip() == "8"
    for address, port in ((INTERNAL, 8404), (EXTERNAL, 5000)):
        lab.questions.append(Questions(address, port, lab.ca))
        lab.questions[-1].ask()
        lab.questions[-1].start()


def test_a_second_zone_comes_without_a_stop_of_the_first(lab: Lab) -> None:
    lab.render(2)
    begun, pid = time.monotonic(), lab.a.make()["pid"]
    lab.b.run()
    told = lab.a.apply()
    assert told["reloaded"] == ["keepalived.service"] and "haproxy.service" in told["restart"]
    until(lambda: not lab.b.held)  # from now on, and not only from its turn on
    lab.a.apply(restart=True)
    lab.moved(begun, "a second zone", 5)
    assert lab.a.make()["pid"] == pid
    lab.pair()


def test_users_reach_the_public_ports_alone(lab: Lab) -> None:
    """From the outside interface nothing but the external address's public ports, whatever the destination; no VRRP either."""
    for address, port, answered in (
        (EXTERNAL, 5000, True),
        (EXTERNAL, 3306, False),
        (EXTERNAL, 8404, False),
        (INTERNAL, 5000, True),
        (INTERNAL, 3306, False),  # this machine is none of the database's users
    ):
        link = socket.socket()
        link.settimeout(60 if answered else 1)
        assert (link.connect_ex((address, port)) == 0) is answered, (address, port)
        link.close()
    holder, _other = lab.pair()
    mac = holder.inside("cat", "/sys/class/net/eth1/address").strip()
    sh("ip", "neighbour", "replace", "198.18.80.77", "lladdr", mac, "dev", "vipztest1")
    sh(
        "ip", "route", "add", f"{holder.address}/32", "via", "198.18.80.77", "dev", "vipztest1"
    )  # into the zone by its outside
    link = socket.socket()
    link.settimeout(1)
    assert link.connect_ex((holder.address, 3306)) != 0
    sh("ip", "route", "delete", f"{holder.address}/32")


def test_nobody_but_a_peer_is_heard(lab: Lab) -> None:
    """An advertisement of the highest priority, well formed, from an address that is no peer's: the holder does not give way."""
    holder, _other = lab.pair()
    sender = "198.18.66.1"
    body = struct.pack(
        "!BBBBH", 0x31, 1, 255, 2, 50
    )  # RFC 5798, 5.2: version and type, VRID, priority, addresses, interval in 1/100 s
    addresses = socket.inet_aton(INTERNAL) + socket.inet_aton(EXTERNAL)
    pseudo = socket.inet_aton(sender) + socket.inet_aton(holder.address) + struct.pack("!BBH", 0, 112, 16)
    total = sum(struct.unpack("!14H", pseudo + body + b"\0\0" + addresses))
    total = (total & 0xFFFF) + (total >> 16)
    packet = body + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + addresses
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 112) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
        raw.bind((sender, 0))
        for _number in range(10):
            raw.sendto(packet, (holder.address, 0))
            time.sleep(0.1)
    assert lab.pair()[0] is holder


def test_a_zone_that_dies_is_replaced_and_takes_nothing_back(lab: Lab) -> None:
    holder, other = lab.pair()
    begun = time.monotonic()
    sh("lxc-stop", "-k", "-n", holder.name)
    until(lambda: other.held == [INTERNAL, EXTERNAL])
    lab.moved(begun, "zone killed", 5)
    begun = time.monotonic()
    holder.run()
    assert lab.pair() == (other, holder)
    lab.moved(begun, "it comes back", 2)


def test_a_zone_without_a_cable_is_replaced(lab: Lab) -> None:
    holder, other = lab.pair()
    begun = time.monotonic()
    holder.cable("down")
    until(lambda: other.held == [INTERNAL, EXTERNAL])
    lab.moved(begun, "cable pulled", 5)
    holder.cable("up")
    until(lambda: not holder.held)
    assert lab.pair() == (other, holder)


@pytest.mark.parametrize(
    ("what", "verb", "repair", "limit"),
    [
        ("keepalived restarted", ("restart", "keepalived"), None, 3),
        ("zone stopped in order", (), None, 3),
        ("HAProxy hangs", ("kill", "--signal=STOP", "haproxy"), ("kill", "--signal=CONT", "haproxy"), 8),
        ("HAProxy stopped", ("stop", "haproxy"), ("start", "haproxy"), 6),
    ],
)
def test_who_cannot_serve_gives_the_addresses_away(
    lab: Lab, what: str, verb: tuple[str, ...], repair: tuple[str, ...] | None, limit: float
) -> None:
    holder, other = lab.pair()
    begun = time.monotonic()
    if verb:
        holder.daemon(*verb)
    else:
        holder.make("stopped")
    until(lambda: other.held == [INTERNAL, EXTERNAL])
    lab.moved(begun, what, limit)
    if repair:
        holder.daemon(*repair)
    holder.run()
    time.sleep(2)  # as long as it takes a zone that preempts
    assert lab.pair() == (other, holder)


def test_a_restart_of_haproxy_moves_nothing(lab: Lab) -> None:
    holder, _other = lab.pair()
    begun = time.monotonic()
    holder.daemon("restart", "haproxy")
    lab.moved(begun, "HAProxy restarted", 3)
    assert lab.pair()[0] is holder


def test_all_clients_of_the_database_have_one_writer(lab: Lab) -> None:
    """Through whichever zone: also when a member comes back, and when only one zone sees a member down."""
    members = []
    for member in lab.computed.stack["members"]["galera"]:
        sh("ip", "address", "add", f"{member['address']}/32", "dev", "vipztest0")
        folder = lab.work / member["name"]
        folder.mkdir()
        files = {file["path"]: file["content"] for file in lab.all.tree(lab.all.variables(member["name"]))["files"]}
        members.append(Member(member["name"], member["address"], files, folder))
    zones = (lab.a, lab.b)

    def seen(zone: Zone, number: int, state: str) -> bool:
        return any(
            row.startswith(f"mysql,{members[number].name},") and f",{state}," in row
            for row in zone.haproxy("show stat").splitlines()
        )

    until(lambda: all(seen(zone, number, "UP") for zone in zones for number in range(3)))
    assert {lab.writer(zone.address) for zone in zones} == {members[0].name}
    members[0].up = False
    until(lambda: all(seen(zone, 0, "DOWN") for zone in zones))
    assert lab.writer(zones[0].address) == members[1].name
    members[0].up = True
    until(lambda: all(seen(zone, 0, "UP") for zone in zones))
    assert [lab.writer(zone.address) for zone in zones] == [members[1].name] * 2, "who came back waits for its turn"
    holder, other = lab.pair()
    lost = lab.computed.stack["members"]["galera"][1]["address"]
    holder.inside("ip", "route", "add", "blackhole", f"{lost}/32")
    until(lambda: seen(holder, 1, "DOWN"))
    assert seen(other, 1, "UP")
    assert lab.writer(INTERNAL) == members[0].name
    until(lambda: lab.writer(other.address) == members[0].name)
    holder.inside("ip", "route", "delete", "blackhole", f"{lost}/32")
