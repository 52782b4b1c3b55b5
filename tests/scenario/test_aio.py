# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The all-in-one keeps its promises, on real LXC in a fresh host. The order counts, see conftest.py."""

from __future__ import annotations

import datetime
import json
import re
import secrets as random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from deployed import COMPUTE, RUN_LIMIT, ZONES, Deployed, Run, holding, kill_tree, readable_by_anyone, until
from host import CHECKOUT


@dataclass(frozen=True)
class Override:
    """A key of a service's file that ours sets otherwise or not at all, and the zones that have the file."""

    file: str
    section: str
    key: str
    value: str
    zones: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the operator writes into group_vars."""
        return f"service_conf:\n  {self.file}:\n    {self.section}:\n      {self.key}: {self.value!r}\n"


OVERRIDES = {
    # seconds; services/keystone/service.yml has 43200
    "keystone": Override("keystone.conf", "token", "expiration", "3601", ("aio1-keystone-1", "aio1-keystone-2")),
    "nova_scheduler": Override("nova.conf", "filter_scheduler", "host_subset_size", "3", ("aio1-nova-scheduler-1",)),
    "neutron_api": Override(
        "ml2_conf.ini", "ml2_type_geneve", "vni_ranges", "1:4000", ("aio1-neutron-api-1", "aio1-neutron-api-2")
    ),
}
"""Overrides by the group that they are given to."""


@pytest.mark.every_suite
def test_fresh_machine(fresh: tuple[Deployed, Run]) -> None:
    """One command on a new Debian ends well, and OpenStack's client in the utility zone is answered over TLS."""
    cloud, run = fresh
    assert run.rc == 0, run.said
    assert cloud.zones(running=True) == ZONES
    assert "admin" in {user["Name"] for user in cloud.openstack("user", "list")}
    endpoints = cloud.openstack("endpoint", "list")
    assert {endpoint["Interface"] for endpoint in endpoints} >= {"public", "internal"}
    assert all(endpoint["URL"].startswith("https://") for endpoint in endpoints), endpoints
    assert cloud.galera_sizes() == [3, 3, 3]
    assert cloud.rabbit_sizes() == [3, 3, 3]


@pytest.mark.every_suite
def test_second_run_changes_nothing(cloud: Deployed) -> None:
    """A second run reports no change in any zone, and neither a zone nor a daemon has been started anew."""
    before = cloud.starts()
    run = cloud.converge()
    assert set(run.changes) >= ZONES, f"zones are missing in the recaps: {ZONES - set(run.changes)}"
    assert {name: count for name, count in run.changes.items() if count} == {}
    assert cloud.starts() == before


def test_check_mode_shows_the_changed_line(cloud: Deployed) -> None:
    """``--check --diff`` on a deployed cloud with a new override shows that line, no other, and leaves the file as it is."""
    before = cloud.starts()
    cloud.override(OVERRIDES["keystone"].text)
    run = cloud.run("--check", "--diff", "--no-verify")
    assert run.rc == 0, run.said
    assert sorted(run.diff) == ["+expiration = 3601", "-expiration = 43200"]
    assert {name for name, count in run.changes.items() if count} == {"aio1-keystone-1", "aio1-keystone-2"}
    assert "expiration = 43200" in cloud.inside("aio1-keystone-1", "cat /etc/keystone/keystone.conf").out
    assert cloud.starts() == before
    cloud.override(None)


@pytest.mark.long("operator")
def test_plan_names_what_a_run_would_do(cloud: Deployed) -> None:
    """``--plan`` with that override and a zone gone names file, daemon and zone; nothing of it is done."""
    cloud.override(OVERRIDES["keystone"].text)
    cloud.destroy("aio1-keystone-2")
    before = cloud.starts()
    done = cloud.script("run-playbooks.sh", "--plan", "--json")
    assert done.rc == 0, done.out + done.err
    zones = json.loads(done.out)["hosts"]["aio1"]["zones"]
    assert {name: zone["action"] for name, zone in zones.items()} == {
        "aio1-keystone-1": "change",
        "aio1-keystone-2": "create",
    }
    (diff,) = zones["aio1-keystone-1"]["files"].values()
    assert "-expiration = 43200\n" in diff and "+expiration = 3601\n" in diff
    assert zones["aio1-keystone-1"]["restarts"] == ["keystone-api.service"]
    assert cloud.starts() == before and "aio1-keystone-2" not in cloud.zones()
    cloud.override(None)
    cloud.converge("--no-verify")


def test_preflight_has_no_problem_with_a_deployed_host(cloud: Deployed) -> None:
    """What the deployment itself has (addresses, bridges, programs) is not in its own way."""
    done = cloud.script("preflight.sh", "--json", timeout=600)
    assert done.rc == 0, done.out + done.err
    assert [one for one in json.loads(done.out)["findings"] if one["kind"] == "problem"] == []


def test_overrides_reach_their_services(cloud: Deployed) -> None:
    """Keys from the operator's group_vars hold in all zones of their services, and only these are restarted."""
    before = cloud.starts()
    for group, override in OVERRIDES.items():
        cloud.override(override.text, group)
    cloud.converge("--no-verify")
    for group, override in OVERRIDES.items():
        for zone in override.zones:
            written = cloud.inside(
                zone, f"find /etc/{group.partition('_')[0]} -name {override.file} -exec cat {{}} +"
            ).out
            assert re.search(rf"^{override.key} = {re.escape(override.value)}$", written, re.MULTILINE), (
                f"{zone}: {written}"
            )
    issued = cloud.openstack("token", "issue")
    left = datetime.datetime.fromisoformat(issued["expires"].replace("+0000", "+00:00")) - datetime.datetime.now(
        datetime.UTC
    )
    assert 3400 < left.total_seconds() <= 3601
    after = cloud.starts()
    restarted = {
        (zone, unit) for zone in before for unit in before[zone] if after[zone].get(unit) != before[zone][unit]
    }
    assert {zone for zone, _unit in restarted} == {
        zone for override in OVERRIDES.values() for zone in override.zones
    }, restarted
    assert not {unit for _zone, unit in restarted} & {"init"}


@pytest.mark.long("operator")
def test_unknown_options_are_refused(cloud: Deployed) -> None:
    """A key that a service does not know is named, with its section, by its own oslo-config-validator; nothing is written."""
    for group, override in OVERRIDES.items():
        cloud.override(override.text.replace(f"{override.key}:", f"{override.key}x:"), group)
    run = cloud.run()
    assert run.rc != 0
    for group, override in OVERRIDES.items():
        assert f"{override.key}x" in run.out, run.said
        wrong = cloud.inside(override.zones[0], f"grep -r {override.key}x /etc/{group.partition('_')[0]}", check=False)
        assert wrong.rc == 1, wrong.out
    for group in OVERRIDES:
        cloud.override(None, group)
    cloud.converge("--no-verify")


def test_rebuild(cloud: Deployed) -> None:
    """Zones that were destroyed come back as they were, and no neighbour is started anew on their account."""
    destroyed = sorted({"aio1-keystone-2", "aio1-galera-1", "aio1-rabbit-mq-1", "aio1-haproxy-1", "aio1-horizon-1"})
    was = {zone: cloud.fingerprint(zone) for zone in destroyed}
    before = cloud.starts()
    cloud.destroy(*destroyed)
    assert not cloud.zones() & set(destroyed)
    run = cloud.converge("--diff", "--no-verify")
    assert "+++" in run.log, "--diff showed no file at all"
    after = cloud.starts()
    for zone in destroyed:
        assert cloud.fingerprint(zone) == was[zone]
        assert after.pop(zone)["init"] != before.pop(zone)["init"]
    assert after == before
    assert cloud.galera_sizes() == [3, 3, 3]
    assert cloud.rabbit_sizes() == [3, 3, 3]
    assert cloud.openstack("user", "list")


def test_secrets_are_not_shown(cloud: Deployed) -> None:
    """No generated secret is in the output, log or diff of a run, in a command line, or in a journal."""
    secrets = cloud.secrets()
    assert len(secrets) >= 5, f"secrets.yml holds only {sorted(secrets)}"
    # All of a zone's files are new after a rebuild, so --diff has everything to show: test_rebuild has done so, unless it was left out.
    if not any("+++" in text for text in cloud.outputs):
        cloud.destroy("aio1-keystone-1", "aio1-rabbit-mq-3")
        assert "+++" in cloud.converge("--diff", "--no-verify").log, "--diff showed no file at all"
    commands = b"\0".join(cloud.argv.seen).decode(errors="replace")
    assert "run-playbooks.sh" in commands, "the watch has not even seen the run itself"
    journals = {"the host's journal": cloud.host.exec("journalctl -o cat --no-pager", timeout=600).out}
    for zone, text in cloud.everywhere("journalctl -o cat --no-pager").items():
        journals[f"the journal of {zone}"] = text
    assert len(journals) == 1 + len(ZONES)
    shown = {"a command line": commands, "the output or log of a run": "\n".join(cloud.outputs), **journals}
    leaks = [f"{name} in {place}" for place, text in shown.items() for name, value in secrets.items() if value in text]
    assert leaks == []


def test_secrets_are_not_world_readable(cloud: Deployed) -> None:
    """No file that an unprivileged user can open, in the host or in a zone, holds a generated secret."""
    secrets = "\n".join(cloud.secrets().values())
    own = cloud.file(f"{CHECKOUT}/inventory/aio/secrets.yml")
    assert holding(secrets, [own]) == [str(own)], "the search does not even find the secrets where they are"
    assert own.stat().st_mode & 0o077 == 0
    # Overlays and volumes as they lie on the disk, and what the host keeps in memory, seen through its init.
    roots = [cloud.host.home / "upper", cloud.host.home / "lxc"]
    roots += [Path(f"/proc/{cloud.host.pid}/root{folder}") for folder in ("/run", "/tmp", "/dev/shm")]
    files = [path for root in roots for path in readable_by_anyone(root)]
    leaks = holding(secrets, files)
    for zone in ZONES:
        found = cloud.inside(
            zone,
            "setpriv --reuid=65534 --regid=65534 --clear-groups grep -rlsF -f - /run /tmp /dev/shm; true",
            input=secrets,
        ).out.split()
        leaks += [f"{zone}:{path}" for path in found]
    assert len(files) > 1000, "hardly any file was looked at"
    assert leaks == []


# -- isolation ---------------------------------------------------------------------------------------------------------


def test_isolation_files(cloud: Deployed) -> None:
    """Root in a zone cannot read a file of the host, neither by a path nor through the host's disk or control groups."""
    mark = random.token_hex(16)
    cloud.host.exec("umask 077 && cat > /root/planted && cp /root/planted /var/lib/lxc/planted", input=mark)
    assert cloud.host.exec("cat /root/planted").out == mark
    disk = cloud.host.exec("stat -c %d /var/lib/lxc").out.strip()
    device = f"{int(disk) >> 8} {int(disk) & 0xFF}"
    attempts = {
        "make a node of the host's disk": f"mknod /tmp/disk b {device} && head -c 4096 /tmp/disk",
        "mount the host's disk": f"mkdir -p /tmp/m; mknod /tmp/disk b {device}; mount -t ext4 /tmp/disk /tmp/m",
        "read kernel memory": "head -c 1 /proc/kcore",
        "change a host-wide kernel setting": "echo /tmp/x > /proc/sys/kernel/core_pattern",
        "leave a program for the control group's end": "mkdir -p /tmp/c; mount -t cgroup -o memory none /tmp/c && echo /tmp/x > /tmp/c/release_agent",
        "clear the kernel's log": "dmesg --clear",
    }
    succeeded = [
        what for what, command in attempts.items() if cloud.inside("aio1-keystone-1", command, check=False).rc == 0
    ]
    assert succeeded == []
    found = cloud.inside(
        "aio1-keystone-1",
        "for root in / /proc/*/root/ /proc/*/cwd/ /proc/*/fd/; do cat $root/root/planted $root/../../planted $root/planted; done 2>&1; true",
    ).out
    assert mark not in found


def test_isolation_processes(cloud: Deployed) -> None:
    """Root in a zone neither sees nor can signal a process of the host."""
    with cloud.host.popen(["sleep", "86399"]) as bystander:
        try:
            pid = int(
                until(
                    lambda: cloud.host.exec(["pgrep", "-x", "-f", "sleep 86399"], check=False).out,
                    "the process runs",
                    60,
                )
            )
            assert cloud.host.exec(["kill", "-0", str(pid)]).rc == 0
            seen = cloud.inside("aio1-keystone-1", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out
            assert "systemd" in seen
            assert "86399" not in seen
            # The number may by chance be one of the zone's own; those are left alone.
            refused = cloud.inside("aio1-keystone-1", f"[ -d /proc/{pid} ] || kill -KILL {pid}", check=False)
            assert refused.rc != 0 or cloud.inside("aio1-keystone-1", f"[ -d /proc/{pid} ]", check=False).rc == 0
            assert bystander.poll() is None
        finally:
            kill_tree(bystander)


def test_isolation_root_is_not_the_hosts_root(cloud: Deployed) -> None:
    """Root of every zone is an ordinary user id on the host, but for the zone that runs instances: QEMU's devices want more."""
    maps = cloud.everywhere("cat /proc/self/uid_map")
    for zone in sorted(ZONES - {COMPUTE}):
        inside, outside, count = maps[zone].split()
        assert (inside, int(outside) >= 100000, count) == ("0", True, "65536"), zone


DATABASE = """
import sys, urllib.parse, configparser, pymysql
conf = configparser.RawConfigParser(strict=False)
conf.read("/etc/keystone/keystone.conf.d/secrets.conf")
url = urllib.parse.urlsplit(conf["database"]["connection"])
query = dict(urllib.parse.parse_qsl(url.query))
tls = {"ca": query["ssl_ca"]} if "ssl_ca" in query else None
address, statement = sys.argv[1] or url.hostname, sys.argv[2]
link = pymysql.connect(host=address, port=url.port or 3306, user=urllib.parse.unquote(url.username),
                       password=urllib.parse.unquote(url.password), connect_timeout=5, ssl=tls)
with link.cursor() as cursor:
    cursor.execute(statement)
    print("got", cursor.fetchall())
"""
"""Log in to a database as Keystone does, at its own address (empty) or another, and run a statement."""


def test_isolation_database(cloud: Deployed) -> None:
    """Keystone's credentials open its own database through HAProxy, no Galera zone directly, and nobody else's data."""

    def query(address: str, statement: str) -> str:
        command = f"/opt/keystone/bin/python - '{address}' \"{statement}\" 2>&1"
        return cloud.inside("aio1-keystone-1", command, input=DATABASE, check=False).out

    own = "SELECT count(*) FROM keystone.project"
    assert query("", own).startswith("got"), query("", own)
    for number in (1, 2, 3):
        address = cloud.host.exec(["lxc-info", "-n", f"aio1-galera-{number}", "-iH"]).out.split()[0]
        answer = query(address, own)
        assert "got" not in answer, answer
        assert "OperationalError" in answer, answer
    answer = query("", "SELECT count(*) FROM mysql.global_priv")
    assert "got" not in answer, answer
    assert "denied" in answer, answer


REACH = """
import socket, sys
for port in sys.argv[2:]:
    link = socket.socket()
    link.settimeout(3)
    print(port, "open" if link.connect_ex((sys.argv[1], int(port))) == 0 else "closed")
    link.close()
"""
"""Which ports of an address let this zone in."""


def test_isolation_front_ends(cloud: Deployed) -> None:
    """At the virtual address the database, the cache, instances' metadata and statistics let in who needs them, the APIs everybody."""

    def reach(zone: str, *ports: int) -> dict[int, str]:
        done = cloud.inside(zone, f"python3 - 10.77.0.5 {' '.join(map(str, ports))}", input=REACH)
        return {int(port): state for port, state in (line.split() for line in done.out.splitlines())}

    inner = (3306, 11211, 8775, 8404)
    assert reach("aio1-log-1", 5000, *inner) == {5000: "open", **dict.fromkeys(inner, "closed")}
    assert reach("aio1-keystone-1", *inner) == {3306: "open", 11211: "open", 8775: "closed", 8404: "closed"}
    assert reach(COMPUTE, 8775, 8404) == {8775: "open", 8404: "closed"}
    for zone, port in (("aio1-galera-1", 3306), ("aio1-rabbit-mq-1", 5671), ("aio1-memcached-1", 11211)):
        address = cloud.host.exec(["lxc-info", "-n", zone, "-iH"]).out.split()[0]
        done = cloud.inside("aio1-log-1", f"python3 - {address} {port}", input=REACH)
        assert done.out.split() == [str(port), "closed"], zone


BODY = """
import http.client, ssl, sys
context = ssl.create_default_context(cafile="/etc/zonestack/apis.crt")

def pieces():
    for number in range(64):
        sent.append(number)
        yield b"x" * (1 << 20)

for port, method, path in (("5000", "POST", "/v3/auth/tokens"), ("8774", "POST", "/v2.1/servers"), ("443", "POST", "/auth/login/"),
                           ("9292", "PUT", "/v2/images/00000000-0000-0000-0000-000000000000/file")):
    for headers in ({"Content-Length": str(64 << 20)}, {"Transfer-Encoding": "chunked"}):
        sent, link = [], http.client.HTTPSConnection(sys.argv[1], int(port), context=context, timeout=60)
        try:
            chunked = "Transfer-Encoding" in headers
            link.putrequest(method, path)
            for key, value in {"Content-Type": "application/octet-stream", **headers}.items():
                link.putheader(key, value)
            link.endheaders()
            for piece in pieces():
                link.send((b"%x\\r\\n" % len(piece) + piece + b"\\r\\n") if chunked else piece)
            if chunked:
                link.send(b"0\\r\\n\\r\\n")
        except OSError:
            pass  # who answers before it has read everything closes the way for the rest
        try:
            answer = link.getresponse().status
        except (OSError, http.client.HTTPException):
            answer = "closed"
        print(port, "chunked" if chunked else "whole", answer)
"""
"""Large bodies from somebody without a token."""


PIECES = """
import hashlib, openstack, os
cloud, content = openstack.connect(cloud="aio"), os.urandom(5 << 20)
image = cloud.image.create_image(name="in-pieces", disk_format="raw", container_format="bare")
pieces = (content[at:at + 70000] for at in range(0, len(content), 70000))
sent = cloud.image.put(f"/images/{image.id}/file", data=pieces, headers={"Content-Type": "application/octet-stream"})
print(sent.status_code)
print(cloud.image.get_image(image.id).checksum == hashlib.md5(content).hexdigest())
cloud.image.delete_image(image.id)
"""
"""Upload an image as requests does it when nobody knows its size: chunked."""


def test_nobody_without_a_token_hands_in_a_large_body(cloud: Deployed) -> None:
    """It is refused, and no zone keeps it. An image of some MiB, sent in pieces by one who may, arrives."""

    def disk() -> int:
        return int(cloud.host.exec("df --output=used -B 1M /var/lib/lxc | tail -1").out)

    before = disk()
    answers = cloud.inside("aio1-utility-1", "python3 - 10.77.0.5", input=BODY, timeout=600).out.splitlines()
    assert len(answers) == 8
    # 502: nginx, when the service answers before it has read what is still being sent
    assert {line.split()[2] for line in answers} <= {"401", "413", "502", "closed"}, answers
    assert disk() - before < 64, "something was kept"
    done = cloud.utility("/opt/utility/bin/python -", input=PIECES, timeout=600)
    assert done.out.splitlines() == ["204", "True"], done.out + done.err


# -- from here on zones die --------------------------------------------------------------------------------------------


@pytest.mark.long("operator")
def test_rebuild_without_data(cloud: Deployed) -> None:
    """A database and a queue node that lost their volumes copy the data from their peers, and nobody is restarted for it."""
    lost = ("aio1-galera-2", "aio1-rabbit-mq-1")
    before = {zone: starts for zone, starts in cloud.starts().items() if zone not in lost}
    cloud.destroy(*lost, "--purge", "--yes")
    cloud.converge("--no-verify")
    assert {zone: starts for zone, starts in cloud.starts().items() if zone not in lost} == before
    assert cloud.galera_sizes() == [3, 3, 3]
    assert cloud.rabbit_sizes() == [3, 3, 3]
    rows = cloud.inside("aio1-galera-2", "mariadb -NBe 'SELECT count(*) FROM keystone.user'").out
    assert int(rows) >= 1


SCHEMA = """
import importlib.machinery, os, signal, time
schema = importlib.machinery.SourceFileLoader("schema", "/usr/local/bin/zonestack-schema").load_module()
own = schema.option(open("/etc/keystone/keystone.conf.d/secrets.conf").read(), "database", "connection")
url = "mysql+pymysql://scratch:{secret}@" + own.rpartition("@")[2].replace("/keystone?", "/scratch?")

def database(statement):
    with schema.connect(url) as link, link.cursor() as cursor:
        cursor.execute(statement)
        return sorted(row[0] for row in cursor.fetchall())

def in_a_child(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return child

def show(what):
    print(what, *database("SHOW TABLES"), "|", schema.lacks(url, "keystone/common/sql/migrations/versions"), flush=True)

def is_killed():
    with schema.making(url):
        database("CREATE TABLE half (a INT)")
        os.kill(os.getpid(), signal.SIGKILL)

def takes_its_time():
    with schema.making(url):
        database("CREATE TABLE whole (a INT)")
        time.sleep(3)

os.waitpid(in_a_child(is_killed), 0)
show("cut short:")
slow = in_a_child(takes_its_time)
while "whole" not in database("SHOW TABLES"):
    time.sleep(0.1)
with schema.making(url):
    os.waitpid(slow, 0)  # which removes the mark itself a moment after it lets others go on
    show("waited:")
try:
    with schema.making(url):
        raise ValueError
except ValueError:
    show("upgraded in vain:")
"""
"""Make a first schema that is cut short, make it anew while another one waits for that, then fail to upgrade it."""


def test_schema_cut_short(cloud: Deployed) -> None:
    """A first schema that was cut short is made anew; one that came to its end is never dropped, whoever fails afterwards."""
    secret = random.token_hex(16)
    grant = f"CREATE DATABASE scratch; GRANT ALL ON scratch.* TO scratch@'%' IDENTIFIED BY '{secret}' REQUIRE SSL"
    cloud.inside("aio1-galera-1", "mariadb", input=grant)
    try:
        done = cloud.inside("aio1-keystone-1", "/opt/keystone/bin/python -", input=SCHEMA.replace("{secret}", secret))
    finally:
        cloud.inside("aio1-galera-1", "mariadb", input="DROP DATABASE scratch; DROP USER scratch@'%'")
    said = done.out.splitlines()
    assert (
        said[0]
        == "cut short: half zonestack_first_schema | scratch: its first schema is being made, or its making was cut short"
    )
    assert said[1] == "scratch: the making of its first schema was cut short; dropping 1 tables"
    assert [line.split(" |")[0] for line in said[2:]] == ["waited: whole", "upgraded in vain: whole"]


@pytest.mark.every_suite
def test_power_loss_of_the_host(cloud: Deployed) -> None:
    """The host loses its power and boots again: its zones come back by themselves, without a run, and nothing is lost."""
    name = f"before-the-outage-{random.token_hex(4)}"
    cloud.openstack("project", "create", name)
    cloud.host.stop()
    cloud.host.start()
    until(lambda: cloud.zones(running=True) == ZONES, "all zones run", 600)
    until(cloud.answers, "Keystone issues a token through HAProxy", 900)
    assert name in {project["Name"] for project in cloud.openstack("project", "list")}
    until(lambda: cloud.galera_sizes() == [3, 3, 3], "all Galera nodes are in sync", 600)
    until(lambda: cloud.rabbit_sizes() == [3, 3, 3], "all RabbitMQ nodes are in the cluster", 600)


def progress_of(cloud: Deployed) -> list[str]:
    """Return the lines of the newest log that show progress: tasks begun, and their results zone by zone."""
    log = cloud.latest_log()
    return (
        re.findall(r"^\S+ ((?:TASK \[|ok: |changed: |skipping: ).*)$", log.read_text(errors="replace"), re.MULTILINE)
        if log
        else []
    )


def _has_reached(cloud: Deployed, process: Popen[bytes], finished: Path | None, point: int) -> bool:
    """Whether the run has shown ``point`` lines of progress; its log is another one than ``finished``."""
    assert process.poll() is None, f"the run ended with {process.returncode} before its line {point}"
    return cloud.latest_log() != finished and len(progress_of(cloud)) >= point


def test_broken_run(cloud: Deployed, request: pytest.FixtureRequest) -> None:
    """Runs are killed at several points on the way from no zone to a whole cloud; the run after that ends well.

    Each run starts from what the one before left behind, gets a share further, and dies with all its processes. So each
    point is reached over the ruins of the earlier ones, and the whole costs little more than two deployments. That a run after
    them changes nothing is test_second_run_leaves_instances_alone.
    """
    kills = 2 if request.config.getoption("--long") is None else 10
    whole = len(progress_of(cloud))
    assert whole > 2 * kills, f"only {whole} lines of progress: not enough to be killed at {kills} of them"
    cloud.destroy("--all", "--purge", "--keep-images", "--yes")
    assert cloud.zones() == set()
    killed_in: list[str] = []
    for kill in range(1, kills + 1):
        point = whole * kill // (kills + 1)
        finished = cloud.latest_log()
        with cloud.host.popen(
            [f"{CHECKOUT}/scripts/run-playbooks.sh", "--no-verify"], stdout=DEVNULL, stderr=DEVNULL
        ) as process:
            try:
                until(
                    partial(_has_reached, cloud, process, finished, point),
                    f"line {point} of {whole} (kill {kill}; so far {killed_in})",
                    RUN_LIMIT,
                )
            finally:
                count = kill_tree(process)
        killed_in.append(f"{progress_of(cloud)[-1]} ({count} processes)")
    run = cloud.run("--no-verify")  # instances are what the next scenarios make
    assert run.rc == 0, "killed in: " + "; ".join(killed_in) + "\n" + run.said
    assert cloud.zones(running=True) == ZONES
    assert cloud.openstack("user", "list")
    assert cloud.galera_sizes() == [3, 3, 3]
    assert cloud.rabbit_sizes() == [3, 3, 3]
