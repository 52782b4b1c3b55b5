# SPDX-License-Identifier: GPL-3.0-or-later
"""Zones as real LXC containers: every state and change, foreign containers, and calls that are killed.

The image is made from this machine's own shell and a few tools, so that nothing is downloaded; where the machine has a
base image with systemd, the same life is led with it too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.converge import converge
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError, ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.lxc import LXC_PATH, LxcBackend, veth_name
from ansible_collections.zonestack.openstack.plugins.modules import zones

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("lxc-start") is None, reason="needs root and LXC"),
]

BRIDGE = "lxcztest0"
NAME = "lxc-zonetest-1"
UUID = "5a7e57ab-0000-5000-8000-00000000ab01"
STORE = LXC_PATH / "zonestack"
SHIFT = 100000
TOOLS = ("sh", "sleep", "cat", "touch", "ls", "id", "stat", "hostname", "ip", "dd", "rm")
# An init that ends at the signals with which LXC asks it to, and reaps nothing because it starts nothing else.
INIT = "#!/bin/sh\ntrap 'exit 0' PWR TERM\nwhile :; do sleep 1000 & wait $!; done\n"


def sh(*argv, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done


def inside(command, check=True):
    return sh(
        "lxc-attach",
        "-n",
        NAME,
        "--clear-env",
        "-v",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "--",
        "sh",
        "-c",
        command,
        check=check,
    )


def image(name, parent, files):
    root = STORE / "images" / name / "rootfs"
    for path, content in {"etc/passwd": "root:x:0:0\ndaemon:x:1:1\n", **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)
        (root / path).chmod(0o755)
    for folder in ("proc", "sys", "dev", "run", "tmp", "root", "var/lib"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    sh("chown", "-R", f"{SHIFT}:{SHIFT}", str(root))
    (root.parent / "manifest.json").write_text(json.dumps({"id": name, "name": name, "parent": parent}))


def tiny_root():
    """The tools of this machine and the libraries that ldd(1) names for them."""
    files = {"sbin/init": INIT}
    for tool in TOOLS:
        path = os.path.realpath(shutil.which(tool))
        files[f"bin/{tool}"] = Path(path).read_bytes()
        for library in re.findall(r"(/\S+) \(0x", sh("ldd", path).stdout):
            files[library[1:]] = Path(library).read_bytes()
    return files


def systemd_images():
    found = sorted(STORE.glob("images/base-*/manifest.json"))
    return [one.parent.name for one in found if (one.parent / "rootfs/usr/lib/systemd/systemd").exists()][:1]


@pytest.fixture(scope="module")
def host(bridge, remove):
    for name in (NAME, SECOND):
        remove(name)
        shutil.rmtree(STORE / "volumes" / name, ignore_errors=True)
    for name in ("zonetest-1", "zonetest-2"):
        shutil.rmtree(STORE / "images" / name, ignore_errors=True)
    bridge(BRIDGE, "198.18.77.1/24")
    STORE.mkdir(mode=0o711, exist_ok=True)
    image("zonetest-1", None, tiny_root())
    image("zonetest-2", "zonetest-1", {"etc/version": "2\n"})
    yield
    for name in ("zonetest-1", "zonetest-2"):
        shutil.rmtree(STORE / "images" / name)


@pytest.fixture
def zone(host):
    yield
    sh("lxc-stop", "-k", "-n", NAME, check=False)
    if (LXC_PATH / NAME / "zone.json").exists() or not (LXC_PATH / NAME).exists():
        make("absent", purge=True)
    else:
        shutil.rmtree(LXC_PATH / NAME)


def spec(**changes):
    network = {
        "name": "eth0", "bridge": BRIDGE, "mac": "02:5a:7e:57:ab:01", "address": "198.18.77.10", "prefix": 24, "gateway": "198.18.77.1",
    }  # fmt: skip
    wanted = {"name": NAME, "uuid": UUID, "image": "zonetest-1", "memory": 256, "cpu_cap": 150, "autostart": False}
    return ZoneSpec.from_dict(
        {**wanted, "networks": [network], "volumes": {"data": {"path": "/data", "owner": 1}}, **changes}
    )


def make(state="present", *, backend=None, check_mode=False, purge=False, disruptive=True, **changes):
    backend = backend or LxcBackend(start_timeout=120, stop_timeout=120)
    return converge(backend, spec(**changes), state, check_mode=check_mode, purge=purge, disruptive=disruptive)


def cgroup_value(pid, names):
    """A limit as the kernel has it, on whichever version of cgroups."""
    for controller, name in names:
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                payload = re.match(r".*/lxc\.payload\.[^/]+", path).group()
                file = Path("/sys/fs/cgroup", controller, payload.lstrip("/"), name)
                if file.exists():
                    return file.read_text().split()[0]
    raise AssertionError(f"no cgroup of process {pid} has any of {names}")


MEMORY = (("memory", "memory.limit_in_bytes"), ("", "memory.max"))
CPU = (("cpu", "cpu.cfs_quota_us"), ("", "cpu.max"))


@pytest.mark.parametrize("name", ["zonetest-1", *systemd_images()])
def test_life(zone, name):
    foretold = make(image=name, check_mode=True)
    assert not (LXC_PATH / NAME).exists()
    made = make(image=name)
    assert made["actions"] == foretold["actions"] == ["create", "start"]
    assert made["diff"] == foretold["diff"]
    again = make(image=name)
    assert (again["changed"], again["pid"]) == (False, made["pid"])
    assert again["diff"]["before"] == again["diff"]["after"] == made["diff"]["after"]
    assert inside("hostname; cat /etc/hostname /etc/machine-id; stat -c '%u %g' /data").stdout.split("\n")[:4] == [
        NAME, NAME, UUID.replace("-", ""), "1 1",
    ]  # fmt: skip
    assert "198.18.77.10/24" in inside("ip -o address show eth0").stdout
    assert make("stopped", image=name)["actions"] == ["stop"]
    assert make("stopped", image=name)["changed"] is False
    assert make(image=name)["actions"] == ["start"]
    restarted = make("restarted", image=name)
    assert (restarted["restarted"], restarted["actions"]) == (True, ["stop", "start"])
    assert make("absent", image=name)["actions"] == ["stop", "destroy"]
    assert make("absent", image=name)["changed"] is False
    assert not (LXC_PATH / NAME).exists()
    assert not Path("/sys/class/net", veth_name(UUID, 0)).exists()


def test_root_in_the_zone_is_not_root_on_the_host(zone, tmp_path):
    pid = make()["pid"]
    assert os.stat(f"/proc/{pid}").st_uid == SHIFT
    assert inside("cat /proc/self/uid_map").stdout.split() == ["0", str(SHIFT), "65536"]
    assert inside("dd if=/dev/zero of=/proc/sysrq-trigger count=1", check=False).returncode != 0


def test_limits_change_while_the_zone_runs(zone):
    pid = make()["pid"]
    assert cgroup_value(pid, MEMORY) == str(256 << 20)
    assert cgroup_value(pid, CPU) == "150000"
    changed = make(memory=300, cpu_cap=50)
    assert (changed["actions"], changed["pid"]) == (["update (memory, cpu_cap)"], pid)
    assert cgroup_value(pid, MEMORY) == str(300 << 20)
    assert cgroup_value(pid, CPU) == "50000"
    make(memory=None, cpu_cap=None)
    assert make(memory=None, cpu_cap=None)["changed"] is False
    assert cgroup_value(pid, CPU) in ("-1", "max")


def test_limits_survive_a_restart(zone):
    make(memory=300)
    make(memory=320)
    assert cgroup_value(make("restarted", memory=320)["pid"], MEMORY) == str(320 << 20)


def test_image_change_renews_the_root_and_keeps_volumes(zone):
    pid = make()["pid"]
    inside("touch /etc/mine /data/kept")
    waiting = make(image="zonetest-2", disruptive=False)
    assert (waiting["changed"], waiting["pid"]) == (False, pid)
    assert waiting["pending"] == ["image: zonetest-1 -> zonetest-2; needs the zone to stop"]
    assert waiting["diff"]["before"] == waiting["diff"]["after"]
    changed = make(image="zonetest-2")
    assert changed["actions"] == ["stop", "update (image)", "start"]
    assert inside("cat /etc/version; ls /etc/mine /data", check=False).stdout.split() == ["2", "/data:", "kept"]
    assert make(image="zonetest-2")["changed"] is False


def test_network_change_restarts_with_the_new_addresses(zone):
    make()
    eth0 = spec().to_dict()["networks"][0]
    eth1 = {"name": "eth1", "bridge": BRIDGE, "mac": "02:5a:7e:57:ab:02", "address": "198.18.77.30", "prefix": 24}
    networks = [{**eth0, "address": "198.18.77.20", "addresses": ["198.18.77.21/24"], "mtu": 1400}, eth1]
    assert make(networks=networks)["actions"] == ["stop", "update (networks)", "start"]
    shown = inside("ip -o address; cat /etc/hosts").stdout
    for wanted in ("198.18.77.20/24", "198.18.77.21/24", "198.18.77.30/24", f"198.18.77.20 {NAME}"):
        assert wanted in shown
    assert "198.18.77.10" not in shown
    assert make(networks=networks)["changed"] is False


def test_an_existing_volume_keeps_its_owner(zone):
    make()
    inside("touch /data/kept")
    os.chown(STORE / "volumes" / NAME / "data", SHIFT + 5, SHIFT + 5)
    make("absent")
    make(image="zonetest-2")
    assert inside("stat -c %u /data; ls /data").stdout.split() == ["5", "kept"]


def test_absent_keeps_volumes_until_purged(zone):
    make()
    assert make("absent")["diff"]["after"] == {"state": "absent", "data": ["data"]}
    assert (STORE / "volumes" / NAME / "data").is_dir()
    assert make("absent", purge=True)["changed"] is True
    assert not (STORE / "volumes" / NAME).exists()
    assert make("absent", purge=True)["changed"] is False


@pytest.mark.parametrize("store", ["dir", "overlay"])
def test_store_has_all_layers(zone, store):
    make(image="zonetest-2", store=store)
    assert inside("cat /etc/version; touch /etc/mine").stdout == "2\n"
    assert not list((STORE / "images").glob("zonetest-*/rootfs/etc/mine"))
    assert make(image="zonetest-2", store=store)["changed"] is False


def test_a_privileged_zone_sees_its_own_owners(zone):
    made = make(image="zonetest-2", privileged=True, devices=["/dev/null"], capabilities=["all"])
    assert os.stat(f"/proc/{made['pid']}").st_uid == 0
    assert inside("stat -c %u / /etc/version /bin/sh; cat /proc/self/uid_map").stdout.split()[:5] == [
        "0",
        "0",
        "0",
        "0",
        "0",
    ]
    assert make(image="zonetest-2", privileged=True, devices=["/dev/null"], capabilities=["all"])["changed"] is False


SECOND, SECOND_UUID = "lxc-zonetest-2", "5a7e57ac-0000-5000-8000-00000000ab02"


@pytest.fixture
def together(zone, capsys):
    """Call the module ``zones`` for the two zones of these tests and return its result."""

    def call(first, second, check_mode=False):
        """Each of ``first`` and ``second``: what is to be other than in :func:`spec`."""
        network = {**spec().to_dict()["networks"][0], "mac": "02:5a:7e:57:ab:03", "address": "198.18.77.11"}
        other = {"name": SECOND, "uuid": SECOND_UUID, "networks": [network]}
        wanted = [{**spec().to_dict(), **first}, {**spec().to_dict(), **other, **second}]
        with patch_module_args({"zones": wanted, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            zones.main()
        return json.loads(capsys.readouterr().out)

    yield call
    call({"state": "absent", "purge": True}, {"state": "absent", "purge": True})
    assert not (LXC_PATH / SECOND).exists()


def test_zones_are_made_side_by_side(together):
    # Both need the image with other owners, which is made once: they wait for one another there.
    wanted = {"image": "zonetest-2", "privileged": True, "store": "dir"}
    foretold = together(wanted, wanted, check_mode=True)
    assert not (LXC_PATH / NAME).exists() and not (LXC_PATH / SECOND).exists()
    made = together(wanted, wanted)
    assert not made.get("failed"), made["msg"]
    assert [one["actions"] for one in made["zones"].values()] == [["create", "start"]] * 2
    assert made["diff"] == foretold["diff"] and [one["after_header"] for one in made["diff"]] == [NAME, SECOND]
    again = together(wanted, wanted)
    assert (again["changed"], again["diff"]) == (False, [])
    assert {name: one["pid"] for name, one in again["zones"].items()} == {
        name: one["pid"] for name, one in made["zones"].items()
    }


def test_a_zone_that_fails_stops_no_other(together):
    result = together({"image": "nowhere"}, {})
    assert result["failed"] and result["changed"]
    assert result["msg"].startswith(f"1 of 2 zones failed\nzone '{NAME}': image 'nowhere' is not on this host")
    assert result["zones"][SECOND]["actions"] == ["create", "start"]
    assert [one["after_header"] for one in result["diff"]] == [SECOND]
    waiting = together({}, {"image": "zonetest-2", "disruptive": False})
    assert waiting["zones"][NAME]["actions"] == ["create", "start"]
    assert waiting["zones"][SECOND]["pending"] == ["image: zonetest-1 -> zonetest-2; needs the zone to stop"]


# Only where newuidmap(1) is installed does LXC insist on the ranges.
NO_RANGE = [({"idmap_base": 900000000}, r"/etc/subuid assigns no user ids from 900000000 on to root: add the line")]
NO_RANGE = NO_RANGE if shutil.which("newuidmap") else []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "zonetest-9"}, r"image 'zonetest-9' is not on this host; there are: .*zonetest-1"),
        (
            {"networks": [{"name": "eth0", "bridge": "nobr0", "mac": "02:00:00:00:00:01"}]},
            r"'nobr0' is not a bridge .*lxcztest0",
        ),
        ({"volumes": {"data": {"path": "/data", "owner": "nobodyhere"}}}, r"image zonetest-1 has no user 'nobodyhere'"),
        *NO_RANGE,
    ],
)
@pytest.mark.parametrize("check_mode", [True, False])
def test_refused_before_anything_changes(zone, changes, message, check_mode):
    with pytest.raises(ZoneError, match=message):
        make(check_mode=check_mode, **changes)
    assert not (LXC_PATH / NAME).exists()
    assert not (STORE / "volumes" / NAME).exists()


@pytest.mark.parametrize("state", ["present", "stopped", "restarted", "absent"])
def test_a_foreign_container_is_left_alone(zone, state):
    (LXC_PATH / NAME).mkdir()
    (LXC_PATH / NAME / "config").write_text("# somebody else's\n")
    with pytest.raises(ZoneError, match="not a zone of this collection"):
        make(state, purge=True)
    assert (LXC_PATH / NAME / "config").read_text() == "# somebody else's\n"


def test_what_was_changed_behind_its_back_is_found_and_undone(zone):
    pid = make()["pid"]
    sh("ip", "link", "set", veth_name(UUID, 0), "nomaster")
    assert make(check_mode=True)["actions"] == ["update (ports)"]
    assert (make()["pid"], make()["changed"]) == (pid, False)
    config = LXC_PATH / NAME / "config"
    right = config.read_text()
    config.write_text(right.replace("lxc.start.auto = 0", "lxc.start.auto = 1"))
    assert make()["actions"] == ["update (limits)"]
    config.write_text(right + "lxc.environment = X=1\n")
    assert make(disruptive=False)["pending"] == [
        "config: the running zone differs from its description; needs the zone to stop"
    ]
    assert make()["restarted"] is True
    assert config.read_text() == right


def test_a_start_that_fails_says_why(zone):
    make("stopped")
    (STORE / "images" / "zonetest-1" / "rootfs" / "sbin" / "init").rename(STORE / "images" / "zonetest-1" / "init")
    try:
        with pytest.raises(ZoneError, match=r"(?s)does not start.*init"):
            make()
    finally:
        (STORE / "images" / "zonetest-1" / "init").rename(STORE / "images" / "zonetest-1" / "rootfs" / "sbin" / "init")
    assert make()["actions"] == ["start"]


def test_an_init_that_ignores_the_request_is_killed_at_the_limit(zone):
    deaf = INIT.replace("exit 0", ":")
    image("zonetest-2", "zonetest-1", {"sbin/init": deaf, "etc/version": "2\n"})
    make(image="zonetest-2")
    begun = time.monotonic()
    make("stopped", image="zonetest-2", backend=LxcBackend(stop_timeout=2))
    assert time.monotonic() - begun >= 2
    (STORE / "images" / "zonetest-2" / "rootfs" / "sbin" / "init").unlink()


def monitor(pid):
    return int(re.search(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE).group(1))


@pytest.mark.parametrize("victim", ["init", "monitor", "both"])
def test_after_a_power_loss_one_call_brings_it_back(zone, victim):
    pid = make()["pid"]
    victims = {"init": [pid], "monitor": [monitor(pid)], "both": [monitor(pid), pid]}[victim]
    for one in victims:
        os.kill(one, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while LxcBackend().read(spec()).running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert make()["actions"] == ["start"]
    assert "198.18.77.10/24" in inside("ip -o address show eth0").stdout
    assert make()["changed"] is False
    assert len(LxcBackend()._container(spec())._processes()) >= 1
    status = Path(f"/proc/{pid}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def killed_after(seconds, state, **changes):
    """Run a call in a process of its own and kill it with what it has begun."""
    child = os.fork()
    if child == 0:
        try:
            make(state, **changes)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("delay", [0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
@pytest.mark.parametrize("store", ["overlay", "dir"])
def test_a_killed_call_is_finished_by_the_next(zone, delay, store):
    killed_after(delay, "present", store=store)
    make(store=store)
    assert make(store=store)["changed"] is False
    inside("touch /data/kept")
    killed_after(delay, "present", image="zonetest-2", store=store)
    make(image="zonetest-2", store=store)
    assert inside("cat /etc/version; ls /data").stdout.split() == ["2", "kept"]
    assert make(image="zonetest-2", store=store)["changed"] is False
    killed_after(delay, "absent")
    make("absent")
    assert not (LXC_PATH / NAME).exists()
    assert not list((STORE / "building").glob(f"{NAME}.*"))
    assert make("absent")["changed"] is False


def test_a_call_without_changes_only_asks_for_the_state(zone, monkeypatch):
    make()
    started = []
    init = subprocess.Popen.__init__
    monkeypatch.setattr(
        subprocess.Popen, "__init__", lambda self, argv, *rest, **given: (started.append(argv), init(self, argv, *rest, **given))[1]
    )  # fmt: skip
    assert make()["changed"] is False
    assert {argv[0] for argv in started} == {"lxc-info"}
