# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of three real zones that starts, breaks and recovers by itself, without a word from Ansible.

Needs root, LXC, and the galera image: from this machine's store, or from $ZONESTACK_TEST_GALERA as overlay layers,
topmost first, separated by colons (each shifted by 100000). The zones have a bridge of their own.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import time

import jinja2
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
STORE = pathlib.Path("/var/lib/lxc/zonestack/images")
SHIFT, MYSQL = 100000, "mysql"
BRIDGE, NETWORK = "zsgalera0", "10.78.253"
NODES = ("gal-test-1", "gal-test-2", "gal-test-3")
SYNC_SECONDS = 120


def layers():
    """Overlay layers of the galera image, topmost first; empty when there is none."""
    if given := os.environ.get("ZONESTACK_TEST_GALERA"):
        return given
    found = sorted(STORE.glob("galera-*/manifest.json"), key=lambda path: path.stat().st_mtime)
    chain, image = [], json.loads(found[-1].read_text()) if found else None
    while image:
        chain.append(str(STORE / image["id"] / "rootfs"))
        image = json.loads((STORE / image["parent"] / "manifest.json").read_text()) if image["parent"] else None
    return ":".join(chain)


pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("lxc-start"), reason="needs root and LXC"),
    pytest.mark.skipif(not layers(), reason="needs the galera image (deploy once, or set ZONESTACK_TEST_GALERA)"),
]


def run(*argv, check=True):
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, timeout=600)
    assert not check or done.returncode == 0, f"{argv}: {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout


def side_by_side(function, *items):
    """As a power loss or a boot of the host happens: to all at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(function, items))


def shell(zone, *argv, check=True):
    return run("lxc-attach", "-n", zone, "--", *argv, check=check)


class Cluster:
    """Three zones from the project's own templates, daemon declarations and agent."""

    def __init__(self, work):
        self.pki = work
        self.members = [{"name": name, "address": f"{NETWORK}.{number}"} for number, name in enumerate(NODES, 11)]
        self.daemons = yaml.safe_load((ROOT / "services/galera/service.yml").read_text())["daemons"]
        self.ids = None
        ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        run("openssl", "req", "-x509", *ec, "-subj", "/CN=test", "-keyout", work / "ca.key", "-out", work / "ca.crt")
        for member in self.members:
            self.make(member, ec)

    def home(self, name):
        return pathlib.Path("/var/lib/lxc") / name

    def put(self, name, path, text, mode=0o644, group=0):
        """A file in the zone's upper layer, with its folders."""
        upper = self.home(name) / "upper"
        target = upper / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        os.chown(target, SHIFT, SHIFT + group)
        for parent in target.parents:
            if parent.is_relative_to(upper):
                os.chown(parent, SHIFT, SHIFT)

    def make(self, member, ec):
        name, home, pki = member["name"], self.home(member["name"]), self.pki
        for folder in ("upper", "work", "rootfs", "data"):
            (home / folder).mkdir(parents=True)
            os.chown(home / folder, SHIFT, SHIFT)
        (home / "config").write_text(
            f"""lxc.include = /usr/share/lxc/config/debian.common.conf
lxc.include = /usr/share/lxc/config/debian.userns.conf
lxc.idmap = u 0 {SHIFT} 65536
lxc.idmap = g 0 {SHIFT} 65536
lxc.apparmor.profile = unconfined
lxc.uts.name = {name}
lxc.rootfs.path = overlayfs:{layers()}:{home}/upper
lxc.rootfs.options = userxattr
lxc.mount.entry = {home}/data var/lib/mysql none bind,create=dir 0 0
lxc.net.0.type = veth
lxc.net.0.link = {BRIDGE}
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.ipv4.address = {member["address"]}/24
"""
        )
        (pki / "ext").write_text(
            f"subjectAltName=IP:{member['address']},DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        run("openssl", "req", *ec, "-subj", f"/CN={name}", "-keyout", pki / f"{name}.key", "-out", pki / "csr")
        run("openssl", "x509", "-req", "-in", pki / "csr", "-CA", pki / "ca.crt", "-CAkey", pki / "ca.key",
            "-CAcreateserial", "-extfile", pki / "ext", "-out", pki / f"{name}.crt")  # fmt: skip

        if self.ids is None:  # mysql's numbers as the image has them
            roots = [pathlib.Path(layer) for layer in layers().split(":")]
            passwd = next(root / "etc/passwd" for root in roots if (root / "etc/passwd").exists())
            row = next(line.split(":") for line in passwd.read_text().splitlines() if line.startswith(f"{MYSQL}:"))
            self.ids = int(row[2]), int(row[3])
        user, group = self.ids
        os.chown(home / "data", SHIFT + user, SHIFT + group)

        environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
        environment.filters["to_json"] = json.dumps
        nouns = {
            "zone": member,
            "service": {"zone": {"memory": 512, "vcpus": 2}},
            "stack": {"deployment": "test", "members": {"galera": self.members}},
            "ansible_managed": "test",
        }
        for template, path in (
            ("galera.cnf.j2", "/etc/mysql/mariadb.conf.d/99-zonestack.cnf"),
            ("galera.json.j2", "/etc/zonestack/galera.json"),
        ):
            text = (ROOT / "services/galera" / template).read_text()
            self.put(name, path, environment.from_string(text).render(nouns))
        self.put(name, "/usr/local/sbin/zonestack-galera", (ROOT / "services/galera/agent.py").read_text(), 0o755)
        self.put(name, "/etc/zonestack/tls/ca.crt", (pki / "ca.crt").read_text())
        self.put(name, "/etc/zonestack/tls/zone.crt", (pki / f"{name}.crt").read_text())
        self.put(name, "/etc/zonestack/tls/zone.key", (pki / f"{name}.key").read_text(), 0o640, group)
        agent, server = self.daemons["zonestack-galera"], "\n".join(self.daemons["mariadb"]["drop_in"])
        self.put(
            name,
            "/etc/systemd/system/mariadb.service.d/zonestack.conf",
            f"[Unit]\nWants=zonestack-galera.service\n[Service]\n{server}\n",
        )
        lines = "\n".join(agent.get("drop_in", []))
        unit = f"[Service]\nType=notify\nUser={agent['user']}\nExecStart={agent['command']}\n{lines}\n"
        self.put(name, "/etc/systemd/system/zonestack-galera.service", unit)
        # The package enables mariadb on its own; a zone's link makes it sure in whichever way the image was made.
        wants = self.home(name) / "upper/etc/systemd/system/multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "mariadb.service").symlink_to("/usr/lib/systemd/system/mariadb.service")
        os.chown(wants, SHIFT, SHIFT)
        os.lchown(wants / "mariadb.service", SHIFT, SHIFT)

    def start(self, *names):
        side_by_side(lambda name: run("lxc-start", "-n", name), *names)

    def kill(self, *names):
        side_by_side(lambda name: run("lxc-stop", "-k", "-n", name, check=False), *names)

    def forget(self, name):
        """Lose the data volume."""
        for entry in (self.home(name) / "data").iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def healthy(self):
        """Names of the nodes that HAProxy would send traffic to."""
        good = []
        for member in self.members:
            url = f"https://{member['address']}:9200/"
            code = run(
                "curl",
                "-s",
                "-m",
                "2",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--cacert",
                self.pki / "ca.crt",
                url,
                check=False,
            )
            good += [member["name"]] if code == "200" else []
        return good

    def until_healthy(self, *names):
        end = time.monotonic() + SYNC_SECONDS
        while set(self.healthy()) != set(names):
            assert time.monotonic() < end, (
                f"{self.healthy()} instead of {names} after {SYNC_SECONDS} s\n{self.journals()}"
            )
            time.sleep(0.2)

    def journals(self):
        command = ("journalctl", "--no-pager", "-b", "-u", "mariadb", "-u", "zonestack-galera", "-n", "25")
        return "\n".join(f"== {name}\n{shell(name, *command, check=False)}" for name in NODES)

    def sql(self, name, statement):
        return shell(name, "mariadb", "-BNe", statement).split()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, bridge, remove):
    """A cluster that has just been started for the first time, all nodes at once."""
    for name in NODES:
        remove(name)
    bridge(BRIDGE, f"{NETWORK}.1/24")
    try:
        made = Cluster(tmp_path_factory.mktemp("galera"))
        made.start(*NODES)
        made.until_healthy(*NODES)
        made.sql(NODES[1], "CREATE DATABASE t; CREATE TABLE t.t (i INT PRIMARY KEY)")
        yield made
    finally:
        for name in NODES:
            remove(name)


@pytest.fixture
def row(cluster):
    """A row written just now; it must be there on every node afterwards."""
    cluster.until_healthy(*NODES)
    number = time.time_ns() % 2**31
    cluster.sql(NODES[2], f"INSERT INTO t.t VALUES ({number})")
    return str(number)


def test_first_start_leaves_nothing_open(cluster):
    users = cluster.sql(NODES[0], "SELECT CONCAT(User, '@', Host) FROM mysql.global_priv ORDER BY 1")
    assert users == ["mariadb.sys@localhost", "mysql@localhost", "root@localhost"]
    assert "test" not in cluster.sql(NODES[0], "SHOW DATABASES")


def test_power_loss_of_all(cluster, row):
    cluster.kill(*NODES)
    cluster.start(*NODES)
    cluster.until_healthy(*NODES)
    for name in NODES:
        assert row in cluster.sql(name, "SELECT i FROM t.t")


def test_stopped_in_turn_the_last_one_leads(cluster, row):
    shell(NODES[2], "systemctl", "stop", "mariadb")
    cluster.sql(NODES[0], f"INSERT INTO t.t VALUES ({int(row) + 1})")
    shell(NODES[0], "systemctl", "stop", "mariadb")
    shell(NODES[1], "systemctl", "stop", "mariadb")
    side_by_side(lambda name: shell(name, "systemctl", "start", "--no-block", "mariadb"), *NODES)
    cluster.until_healthy(*NODES)
    assert str(int(row) + 1) in cluster.sql(NODES[2], "SELECT i FROM t.t")
    assert "bootstrap: latest data" in shell(NODES[1], "journalctl", "--no-pager", "-u", "mariadb")


def test_power_loss_with_the_first_nodes_volume_lost(cluster, row):
    cluster.kill(*NODES)
    cluster.forget(NODES[0])
    cluster.start(*NODES)
    cluster.until_healthy(*NODES)
    assert row in cluster.sql(NODES[0], "SELECT i FROM t.t")


def test_a_rebuilt_node_joins_the_running_cluster(cluster, row):
    cluster.kill(NODES[1])
    cluster.forget(NODES[1])
    cluster.start(NODES[1])
    cluster.until_healthy(*NODES)
    assert row in cluster.sql(NODES[1], "SELECT i FROM t.t")


def test_two_of_three_wait_until_the_operator_speaks(cluster, row):
    cluster.kill(*NODES)
    cluster.start(*NODES[:2])
    end = time.monotonic() + SYNC_SECONDS
    while shell(NODES[0], "zonestack-galera", "status").count("deciding") < 2:
        assert time.monotonic() < end, cluster.journals()
        time.sleep(0.2)
    end = time.monotonic() + 5  # long enough for a bootstrap that must not happen
    while time.monotonic() < end:
        assert cluster.healthy() == []
    assert f"missing: {NODES[2]}" in shell(NODES[0], "systemctl", "status", "mariadb", check=False)
    # Without --force it only says what it would do.
    run("lxc-attach", "-n", NODES[0], "--", "sh", "-c", "! zonestack-galera bootstrap")
    shell(NODES[0], "zonestack-galera", "bootstrap", "--force")
    cluster.until_healthy(*NODES[:2])
    assert row in cluster.sql(NODES[1], "SELECT i FROM t.t")
    cluster.start(NODES[2])
    cluster.until_healthy(*NODES)


def test_two_crash_and_come_back_to_a_survivor(cluster, row):
    cluster.kill(*NODES[:2])
    cluster.start(*NODES[:2])
    cluster.until_healthy(*NODES)
    assert row in cluster.sql(NODES[0], "SELECT i FROM t.t")


def test_a_node_that_was_voted_out_comes_back_with_a_full_copy(cluster, row):
    """Its data differs, so it cannot apply what the others do; Galera would leave it running, good for nothing."""
    cluster.sql(NODES[0], "CREATE TABLE t.other (i INT PRIMARY KEY) ENGINE=InnoDB")
    cluster.sql(NODES[1], "SET SESSION wsrep_on=OFF; DROP TABLE t.other")
    cluster.sql(NODES[0], "INSERT INTO t.other VALUES (1)")
    end = time.monotonic() + SYNC_SECONDS
    while "starts anew with a full copy" not in shell(NODES[1], "journalctl", "--no-pager", "-u", "zonestack-galera"):
        assert time.monotonic() < end, cluster.journals()
        time.sleep(0.2)
    cluster.until_healthy(*NODES)
    assert cluster.sql(NODES[1], "SELECT i FROM t.other") == cluster.sql(NODES[0], "SELECT i FROM t.other")


def test_foreign_data_is_refused(cluster, row):
    """A node whose volume belongs to another cluster is not emptied by joining."""
    cluster.kill(NODES[0])
    state = cluster.home(NODES[0]) / "data/grastate.dat"
    text = state.read_text()
    state.write_text(
        "# GALERA saved state\nversion: 2.1\nuuid:    7ff533a4-e521-11f1-9ea0-468acff1d92b\nseqno:   5\nsafe_to_bootstrap: 0\n"
    )
    cluster.start(NODES[0])
    end = time.monotonic() + SYNC_SECONDS
    while shell(NODES[0], "systemctl", "is-failed", "mariadb", check=False).strip() != "failed":
        assert time.monotonic() < end, cluster.journals()
        time.sleep(0.2)
    assert "data of different clusters" in shell(NODES[0], "journalctl", "--no-pager", "-b", "-u", "mariadb")
    assert set(cluster.healthy()) == set(NODES[1:])
    state.write_text(text)
    shell(NODES[0], "systemctl", "reset-failed", "mariadb")
    shell(NODES[0], "systemctl", "start", "mariadb")
    cluster.until_healthy(*NODES)
