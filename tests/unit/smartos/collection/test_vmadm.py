# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules vmadm and vmadm_info against the simulated SmartOS host (tests/smartos_sim), which behaves as the facts say.

Tables and sequences call the simulator's program in this process, for speed; everything else runs the module in a process of
its own with the simulator's commands in its path.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, Result
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import vmadm as engine
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import (
    BRANDS,
    HVM,
    ITEMS,
    PROPERTIES,
    UNSETTABLE,
    ZONES,
    Property,
    normal,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_want import Want
from ansible_collections.zonestack.openstack.plugins.modules import vmadm, vmadm_info

CHECKOUT = Path(__file__).resolve().parents[4]
SIM = Path(os.environ.get("SMARTOS_SIM") or CHECKOUT / "tests/smartos_sim")
needs_sim = pytest.mark.skipif(
    not (SIM / "bin/vmadm").exists(), reason=f"no simulated SmartOS host at {SIM}; SMARTOS_SIM says where it is"
)

UUID = "6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11"
OTHER = "0d8d4c1a-3c55-5d29-8a3f-6b1f0c9d7e22"
IMAGES = {
    "zone-dataset": ["aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"],
    "lx-dataset": ["bbbbbbbb-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"],
    "zvol": ["cccccccc-0000-4000-8000-000000000001", "cccccccc-0000-4000-8000-000000000002"],
}
WORLD = {
    "description": "one node with two pools and two images of each type, and no VMs",
    "node": {
        "hostname": "gz1",
        "uuid": "564d0b8e-7a1a-4c3c-9d3f-2c8d1f5a7e10",
        "platform": "20260305T001837Z",
        "memory_mib": 16384,
        "zpools": ["zones", "data"],
        "nic_tags": [
            {"name": "admin", "mac": "00:0c:29:11:22:33", "link": "e1000g0", "type": "normal"},
            {"name": "external", "mac": "00:0c:29:11:22:34", "link": "e1000g1", "type": "normal"},
            {"name": "stub0", "mac": None, "link": None, "type": "etherstub"},
        ],
    },
    "image_sources": [],
    "images": [
        {
            "zpool": pool,
            "source": None,
            "cached": True,
            "manifest": {
                "v": 2, "uuid": uuid, "name": kind, "version": str(index), "type": kind, "owner": OTHER,
                "os": "smartos" if kind == "zone-dataset" else "linux", "state": "active", "public": True,
                "files": [{"sha1": "0" * 40, "size": 1024, "compression": "gzip"}],
                **({"image_size": 10240, "nic_driver": "virtio", "disk_driver": "virtio", "cpu_type": "host"}
                   if kind == "zvol" else {}),
            },
        }
        for pool in ("zones", "data")
        for kind, uuids in IMAGES.items()
        for index, uuid in enumerate(uuids)
    ],
    "vms": [],
}  # fmt: skip


def base(brand: str) -> dict[str, t.Any]:
    """The least that a VM of a brand needs."""
    if brand in HVM:
        return {"brand": brand, "ram": 1024}
    image = IMAGES["lx-dataset" if brand == "lx" else "zone-dataset"][0]
    return {"brand": brand, "image_uuid": image, **({"kernel_version": "6.1.0"} if brand == "lx" else {})}


# -- running it --------------------------------------------------------------------------------------------------------

RUN_MODULE = """\
import json, sys
from ansible.module_utils.testing import patch_module_args
import importlib
module = importlib.import_module("ansible_collections.zonestack.openstack.plugins.modules." + sys.argv[1])
with patch_module_args(json.load(sys.stdin)):
    module.main()
"""
LOGGING = """\
#!/bin/sh
printf '%s\\n' "$(basename "$0") $*" >>{log}
exec {sim}/bin/"$(basename "$0")" "$@"
"""


class Host:
    """A simulated host with a state directory of its own, and a log of the command lines that it was given."""

    def __init__(self, directory: Path, world: Path | None = None) -> None:
        self.state = directory / "state"
        self.log = directory / "argv.log"
        self.bin = directory / "bin"
        self.bin.mkdir()
        (self.bin / "vmadm").write_text(LOGGING.format(log=shlex.quote(str(self.log)), sim=shlex.quote(str(SIM))))
        (self.bin / "vmadm").chmod(0o755)
        collections = directory / "collections/ansible_collections/zonestack"
        collections.mkdir(parents=True)
        (collections / "openstack").symlink_to(CHECKOUT)
        self.collections = collections.parents[1]
        self.environ = {
            **os.environ,
            "SMARTOS_SIM_STATE": str(self.state),
            "PATH": f"{self.bin}:{SIM}/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.collections}:{os.environ.get('PYTHONPATH', '')}",
        }
        if world is not None:
            shutil.copytree(world, self.state)
            return
        description = directory / "world.json"
        description.write_text(json.dumps(WORLD))
        self.tool("smartos-sim", "load-world", str(description))
        self.tool("smartos-sim", "node", "recorded=false")  # ZFS answers, which the recordings did not have

    def tool(self, *argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            [str(SIM / "bin" / argv[0]), *argv[1:]],
            input=stdin,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fault(self, call: str, **options: str) -> None:
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.tool("smartos-sim", "fault", "add", call, *words)

    def vms(self) -> list[dict[str, t.Any]]:
        return json.loads(self.tool("vmadm", "lookup", "-j") or "[]")

    def calls(self) -> list[str]:
        """The command lines since the last time this was asked."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def run(self, name: str = "vmadm", check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """The module in a process of its own; what it printed."""
        options = {**({"uuid": UUID} if name == "vmadm" else {}), **options}
        options["_ansible_check_mode"] = check_mode
        done = subprocess.run(
            [sys.executable, "-c", RUN_MODULE, name],
            input=json.dumps({key: value for key, value in options.items() if value is not None}),
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            found = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            pytest.fail(f"no result: {done.stdout}{done.stderr}")
        found["stdout_of_module"] = done.stdout
        return found

    def ok(self, name: str = "vmadm", **options: t.Any) -> dict[str, t.Any]:
        found = self.run(name, **options)
        assert not found.get("failed"), found["msg"]
        return found

    def converges(self, **options: t.Any) -> dict[str, t.Any]:
        """Check mode, the run, and a second run: predicted, done, silent. The result of the run."""
        before = self.vms()
        predicted = self.ok(check_mode=True, **options)
        assert self.vms() == before
        done = self.ok(**options)
        for key in ("changed", "actions", "reboot_needed", "rebooted"):
            assert done[key] == predicted[key]
        assert_predicted(predicted["diff"], done["diff"])
        again = self.ok(**options)
        assert (again["changed"], again["actions"]) == (False, [])
        assert again["diff"]["before"] == again["diff"]["after"]
        return done


def assert_predicted(predicted: dict[str, t.Any], actual: dict[str, t.Any]) -> None:
    """A diff of check mode holds, but for what only vmadm can choose: a MAC, a path, a UUID, sizes of an image."""
    chosen = {"mac", "path", "uuid", "pci_slot", "image_size", "size", "refreservation", "block_size", "bootrom"}
    assert predicted["before"] == actual["before"]
    left, right = predicted["after"], actual["after"]
    for name in set(left) | set(right) - {"bootrom"}:
        if name in ITEMS:
            for mine, theirs in zip(left.get(name, []), right.get(name, []), strict=True):
                assert mine.items() <= theirs.items()
                assert set(theirs) - set(mine) <= chosen
        elif name not in ("uuid", "zonename", "datasets") or name in left:
            assert left.get(name) == right.get(name), name


class InProcess(engine.Vmadm):
    """The client, with the simulator's program called in this process; ``calls`` counts."""

    def __init__(self, host: Host) -> None:
        super().__init__(timeout=120)
        self.calls = 0
        sys.path.insert(0, str(SIM))
        try:
            from smartos_sim.main import main
            from smartos_sim.state import State
        finally:
            sys.path.remove(str(SIM))
        self.main, self.State = main, State

    def nic_tags(self) -> dict[str, str]:
        return {tag["name"]: tag["type"] for tag in self.State().node["nic_tags"]}

    def _run(self, *words: str, payload: t.Any = None, timeout: float | None = None) -> Result:
        self.calls += 1
        out, err, stdin = io.StringIO(), io.StringIO(), sys.stdin
        sys.stdin = io.StringIO("" if payload is None else json.dumps(payload))
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = self.main("vmadm", list(words))
        finally:
            sys.stdin = stdin
        if code:
            raise CommandError(["vmadm", *words], code, err.getvalue())
        return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a fresh host, which each test gets a copy of."""
    return Host(tmp_path_factory.mktemp("world")).state


@pytest.fixture
def host(tmp_path: Path, world: Path) -> Host:
    return Host(tmp_path, world)


@pytest.fixture
def client(host: Host, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.setenv("SMARTOS_SIM_STATE", str(host.state))
    return InProcess(host)


def bring(client: InProcess, **options: t.Any) -> dict[str, t.Any]:
    """Check mode, run and second run of one description, as :meth:`Host.converges`; the second must take one call."""
    want = Want.from_options({"uuid": UUID, **options})
    predicted = engine.converge(client, want, check_mode=True)
    done = engine.converge(client, want)
    assert done["warnings"] == []
    assert (done["actions"], done["reboot_needed"]) == (predicted["actions"], predicted["reboot_needed"])
    assert_predicted(predicted["diff"], done["diff"])
    calls = client.calls
    again = engine.converge(client, want)
    assert again["actions"] == []
    assert client.calls == calls + 1
    return done


# -- documentation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [vmadm, vmadm_info], ids=["vmadm", "vmadm_info"])
def test_documentation_is_the_argument_spec(module):
    keys = ("type", "elements", "required", "default", "choices", "aliases")

    def facts(options: dict, nested: str) -> dict:
        return {
            name: {
                **{key: option[key] for key in keys if key in option},
                "of": facts(option[nested], nested) if nested in option else None,
            }
            for name, option in options.items()
        }

    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert facts(documented, "suboptions") == facts(module.OPTIONS, "options")
    assert all(option["description"] for option in documented.values())


def test_examples_are_options_of_the_modules():
    for module, name in ((vmadm, "vmadm"), (vmadm_info, "vmadm_info")):
        for task in yaml.safe_load(module.EXAMPLES):
            assert set(task[f"zonestack.openstack.{name}"] or {}) <= set(module.OPTIONS)


def test_secrets_are_marked():
    hidden = {name for name, option in vmadm.OPTIONS.items() if option.get("no_log")}
    assert hidden == {"customer_metadata", "internal_metadata", "vnc_password", "spice_password"}


# -- every property of every brand ---------------------------------------------------------------------------------------

# Two values of each; the VM is given the first and then the second. Other types have their values in VALUE_OF_TYPE.
VALUES: dict[str, tuple[t.Any, t.Any]] = {
    "alias": ("web", "db"),
    "archive_on_delete": (True, False),
    "autoboot": (False, True),
    "billing_id": (OTHER, UUID),
    "bootrom": ("bios", "uefi"),
    "cpu_cap": (100, 250),
    "customer_metadata": ({"k": "v", "n": 1, "b": False}, {"k": "w", "n": None}),
    "dns_domain": ("a.test", "b.test"),
    "fs_allowed": (["ufs"], ["ufs", "pcfs"]),
    "internal_metadata": ({"k": "v"}, {"k": None, "l_pw": "x"}),
    "internal_metadata_namespaces": (["foo"], ["foo", "bar"]),
    "kernel_version": ("5.10.0", "6.1.0"),
    "limit_priv": (["default", "proc_clock_highres"], ["default"]),
    "max_locked_memory": (512, 99999),
    "max_physical_memory": (4096, 2048),
    "max_swap": (8192, 300),
    "owner_uuid": (OTHER, UUID),
    "quota": (20, 0),
    "ram": (2048, 3072),
    "resolvers": (["8.8.8.8"], ["8.8.4.4", "2001:4860:4860::8888"]),
    "restart_init": (False, True),
    "routes": ({"10.8.0.0/16": "10.1.0.9"}, {"10.9.0.0/16": "10.1.0.9"}),
    "spice_port": (5902, -1),
    "tags": ({"a": 1, "b": "x", "c": True}, {"a": "1", "b": None}),
    "tmpfs": (100, 0),
    "vcpus": (2, 1),
    "vga": ("std", "cirrus"),
    "vnc_password": ("hush-01", "hush-02"),
    "vnc_port": (5901, -1),
    "zfs_data_compression": ("lz4", "gzip"),
    "zfs_data_recsize": (8192, 16384),
    "zfs_filesystem_limit": (5, 0),
    "zfs_root_compression": ("lz4", "gzip"),
    "zfs_root_recsize": (8192, 16384),
    "zfs_snapshot_limit": (5, 0),
    "nics": (
        [{"nic_tag": "admin", "mac": "02:08:20:00:00:01", "ips": ["10.1.0.5/24"]}],
        [{"nic_tag": "external", "mac": "02:08:20:00:00:01", "ips": ["10.1.0.6/24"]},
         {"nic_tag": "stub0", "mac": "02:08:20:00:00:02", "ips": ["addrconf"]}],
    ),
    "disks": ([{"size": 1024, "model": "virtio"}], [{"size": 1024, "model": "virtio"}, {"size": 512, "model": "virtio"}]),
    "filesystems": (
        [{"type": "lofs", "source": "/a", "target": "/x"}],
        [{"type": "lofs", "source": "/b", "target": "/x"}, {"type": "lofs", "source": "/c", "target": "/y"}],
    ),
    "pci_devices": ([{"path": "/devices/a", "pci_slot": "0:8:0"}], [{"path": "/devices/b", "pci_slot": "0:8:0"}]),
}  # fmt: skip
VALUE_OF_TYPE = {"str": ("one", "two"), "int": (300, 400), "bool": (True, False)}
CLEARED = {
    "tags": {"a": None, "c": None},
    "customer_metadata": {"k": None, "b": None},
    "internal_metadata": {"l_pw": None},
}
# These are chosen when a VM is made, and tested there.
ONCE = {"brand", "uuid", "image_uuid", "zpool", "zonename", "delegate_dataset", "nowait", "mdata_exec_timeout"}


def values(name: str) -> tuple[t.Any, t.Any]:
    return VALUES.get(name) or VALUE_OF_TYPE[PROPERTIES[name].type]


def with_model(name: str, brand: str, value: t.Any) -> t.Any:
    return [{**nic, "model": "virtio"} for nic in value] if name == "nics" and brand in HVM else value


SETTABLE = [
    (brand, name)
    for brand in BRANDS
    for name, one in PROPERTIES.items()
    # A VM with disks has no delegated dataset to protect, so there that is refused: test_vmadm_plan.
    if brand in one.brands
    and name not in ONCE
    and (brand, name) not in [(hvm, "indestructible_delegated") for hvm in HVM]
]


@needs_sim
@pytest.mark.parametrize(("brand", "name"), SETTABLE, ids=[f"{brand}-{name}" for brand, name in SETTABLE])
def test_a_property_is_set_changed_and_cleared(client, brand, name):
    """Set, unchanged, changed, unchanged, cleared, unchanged, and check mode predicts each."""
    one = PROPERTIES[name]
    delegated = name.startswith("zfs_data_") or name == "indestructible_delegated"
    bring(client, **base(brand), **({"max_physical_memory": 1024} if brand in ZONES else {}),
          **({"delegate_dataset": True} if delegated else {}))  # fmt: skip
    fresh = normal(t.cast("dict[str, t.Any]", client.get(UUID)))
    allowed = {"allow_reboot": True, "remove_disks": True}
    if name == "docker":
        allowed["init_name"] = "/sbin/init"  # what comes with it otherwise is nowhere recorded for joyent-minimal
    first, second = (with_model(name, brand, value) for value in values(name))
    changes = [bool(bring(client, **allowed, **{name: value})["actions"]) for value in (first, second)]
    assert all(changes)
    if one.type == "dict":
        assert bring(client, **{name: CLEARED.get(name, {})})["actions"]
    elif one.type == "objects":
        assert bring(client, **allowed, **{name: []})["actions"]
    elif one.clear is not UNSETTABLE:
        if normal(t.cast("dict[str, t.Any]", client.get(UUID)))[name] not in (one.absent, [], None):
            assert bring(client, unset=[name])["actions"]
    else:
        return
    cleared = normal(t.cast("dict[str, t.Any]", client.get(UUID)))[name]
    assert cleared in (one.absent, [], {}, None) or (name == "internal_metadata" and fresh[name] == cleared)


ITEM = {
    "nics": {"nic_tag": "admin", "mac": "02:08:20:00:00:01", "ips": ["10.1.0.5/24"]},
    "disks": {"size": 1024, "model": "virtio"},
    "filesystems": {"type": "lofs", "source": "/a", "target": "/x"},
    "pci_devices": {"path": "/devices/a", "pci_slot": "0:8:0"},
}
ITEM_VALUES: dict[str, tuple[t.Any, t.Any]] = {
    "nics.allowed_dhcp_cids": (["0x01aa"], ["0x01bb"]),
    "nics.allowed_ips": (["10.1.0.99"], ["10.1.1.0/24"]),
    "nics.blocked_outgoing_ports": ([25], [25, 587]),
    "nics.gateway": ("10.1.0.1", "10.1.0.2"),
    "nics.gateways": (["10.1.0.1"], ["10.1.0.2"]),
    "nics.ips": (["10.1.0.7/24", "fd00::7/64"], ["dhcp"]),
    "nics.model": ("e1000", "virtio"),
    "nics.mtu": (9000, 1500),
    "nics.network_uuid": (UUID, OTHER),
    "nics.nic_tag": ("external", "stub0"),
    "nics.vlan_id": (5, 6),
    "disks.compression": ("lz4", "gzip"),
    "disks.guest_block_size": ("512", "512/4096"),
    "disks.image_name": ("one", "two"),
    "disks.media": ("cdrom", "disk"),
    "disks.model": ("ahci", "virtio"),
    "disks.pci_slot": ("0:5:0", "0:5:1"),
    "disks.refreservation": (512, 0),
    "disks.size": (2048, 4096),
    "disks.uuid": (UUID, OTHER),
    "filesystems.options": (["ro"], ["ro", "nodevices"]),
    "filesystems.raw": ("/dev/rdsk/a", "/dev/rdsk/b"),
    "filesystems.source": ("/b", "/c"),
    "filesystems.type": ("ufs", "lofs"),
    "pci_devices.pci_slot": ("0:9:0", "0:10:0"),
}
# The identity of an item, what is fixed when it is added, and what only means something with others (tested below).
NOT_ALONE = {
    "nics.mac", "nics.interface", "nics.vrrp_vrid", "nics.vrrp_primary_ip", "nics.ip", "nics.netmask", "nics.primary",
    "disks.dangerous_allow_shrink", "disks.path", "disks.nocreate", "disks.zpool", "disks.block_size", "disks.image_uuid",
    "disks.image_size", "filesystems.target", "pci_devices.path",
}  # fmt: skip
SETTABLE_ITEMS = [
    (brand, kind, name)
    for kind, items in ITEMS.items()
    for name, one in items.properties.items()
    for brand in one.brands
    if f"{kind}.{name}" not in NOT_ALONE and (brand, kind, name) != ("kvm", "disks", "size")
]


@needs_sim
@pytest.mark.parametrize(
    ("brand", "kind", "name"), SETTABLE_ITEMS, ids=[f"{brand}-{kind}.{name}" for brand, kind, name in SETTABLE_ITEMS]
)
def test_a_property_of_an_item_is_set_changed_and_cleared(client, brand, kind, name):
    one: Property = ITEMS[kind].properties[name]
    item = with_model(kind, brand, [ITEM[kind]])[0]
    bring(client, **base(brand), **{kind: [item]})
    first, second = ITEM_VALUES.get(f"{kind}.{name}") or VALUE_OF_TYPE[one.type]
    if f"{kind}.{name}" == "disks.model" and brand == "kvm":
        first = "scsi"
    for value in (first, second):
        assert bring(client, allow_reboot=True, **{kind: [{**item, name: value}]})["actions"]
    if one.clear is not UNSETTABLE and isinstance(one.clear, list):
        done = bring(client, allow_reboot=True, **{kind: [{**item, name: []}]})
        assert done["actions"]
        assert not normal(t.cast("dict[str, t.Any]", client.get(UUID)))[kind][0][name]


@needs_sim
@pytest.mark.parametrize("brand", BRANDS)
def test_all_properties_at_once(host, brand):
    """The module in a process of its own: a VM is made with everything, changed in everything, and everything taken away."""
    names = [name for settable, name in SETTABLE if settable == brand]
    names = [name for name in names if name not in ("docker", "ram" if brand in ZONES else "", "disks", "pci_devices")]
    first, second = ({name: with_model(name, brand, values(name)[index]) for name in names} for index in (0, 1))
    delegated = {"delegate_dataset": True} if brand in ZONES else {}
    flags = {"allow_reboot": True}
    made = host.converges(**{**base(brand), **delegated, **first}, **flags)
    assert made["actions"][0] == "create"
    changed = host.converges(**second, **flags)
    assert changed["changed"]
    unset = [name for name in second if PROPERTIES[name].clear is not UNSETTABLE]
    gone = host.converges(
        unset=unset, **{name: [] for name in ("nics", "filesystems") if name in names}, routes={}, **flags
    )
    state = normal(host.vms()[0])
    assert gone["changed"]
    assert [name for name in unset if state[name] not in (PROPERTIES[name].absent, [], None)] == []


@needs_sim
@pytest.mark.parametrize(
    ("brand", "options"),
    [
        ("joyent", {"zpool": "data"}),
        ("lx", {"zonename": "web"}),
        ("joyent", {"delegate_dataset": True, "mdata_exec_timeout": 60}),
        ("joyent-minimal", {"docker": True, "restart_init": True, "init_name": "/sbin/init"}),
        ("lx", {"docker": True, "internal_metadata_namespaces": ["foo"]}),
        ("lx", {"nics": [{"nic_tag": "admin", "ip": "10.1.0.9", "netmask": "255.255.255.0", "gateway": "10.1.0.1"}]}),
        ("joyent", {"nics": [{"nic_tag": "admin", "interface": "net1"}, {"nic_tag": "stub0", "primary": True}]}),
        ("joyent", {"nics": [{"nic_tag": "admin", "ips": ["10.1.0.9/24"]},
                             {"nic_tag": "admin", "ips": ["10.1.0.10/24"], "vrrp_vrid": 5, "vrrp_primary_ip": "10.1.0.9"}]}),
        ("bhyve", {"disks": [{"image_uuid": IMAGES["zvol"][0], "model": "virtio", "boot": True},
                             {"size": 100, "model": "nvme", "block_size": 512, "zpool": "data"}], "bootrom": "uefi"}),
        ("bhyve", {"com1": "/dev/zconsole"}),
        ("kvm", {"disks": [{"image_uuid": IMAGES["zvol"][0], "image_size": 10240, "model": "virtio"}], "vnc_port": 0}),
        ("kvm", {"spice_port": 5902, "spice_opts": "x"}),
        ("kvm", {"nic_driver": "e1000", "disk_driver": "ide", "nics": [{"nic_tag": "admin"}], "disks": [{"size": 10}]}),
        ("bhyve", {"ram": 4096, "max_physical_memory": 100}),
        ("joyent", {"max_physical_memory": 2048, "max_swap": 512, "max_locked_memory": 4096, "tmpfs": 4096, "cpu_shares": 70000}),
    ],
)  # fmt: skip
def test_a_vm_is_made_as_described(client, brand, options):
    assert bring(client, **base(brand) | options)["actions"][0] == "create"


@needs_sim
def test_a_disk_grows_and_goes_while_the_vm_is_stopped_for_it(client):
    disks = [{"size": 1024, "model": "virtio"}, {"size": 512, "model": "virtio"}]
    bring(client, **base("bhyve"), disks=disks)
    done = bring(client, disks=[{"size": 2048}, {"size": 256, "dangerous_allow_shrink": True}], allow_reboot=True)
    assert done["actions"] == ["stop", "update (disks)", "start"]
    assert bring(client, disks=[{}], remove_disks=True, state="stopped")["actions"] == ["stop", "update (disks)"]


@needs_sim
def test_the_primary_nic_is_handed_on(client):
    nics = [{"nic_tag": "admin", "mac": f"02:08:20:00:00:0{n}", "ips": [f"10.1.0.{n}/24"]} for n in (1, 2, 3)]
    bring(client, **base("joyent"), nics=nics)
    bring(client, nics=[nics[0], nics[1], {**nics[2], "primary": True}])
    assert [nic.get("primary", False) for nic in normal(client.get(UUID))["nics"]] == [False, False, True]
    bring(client, nics=[nics[1], nics[0]])
    assert [nic["mac"] for nic in normal(client.get(UUID))["nics"] if nic["primary"]] == ["02:08:20:00:00:02"]


# -- any sequence ------------------------------------------------------------------------------------------------------

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:
    st = None

if st is None:

    @pytest.mark.skip(reason="hypothesis is not installed here; pip install hypothesis")
    def test_any_sequence_converges_in_one_run_each() -> None:
        """Told as skipped, not left out."""

else:

    def _one_of(brand: str, name: str) -> st.SearchStrategy:
        found = st.sampled_from([with_model(name, brand, value) for value in values(name)])
        return found if PROPERTIES[name].type != "objects" else st.one_of(found, st.just([]))

    def sequences(brand: str) -> st.SearchStrategy:
        names = [name for settable, name in SETTABLE if settable == brand]
        skip = {"ram"} if brand in ZONES else set()
        given_ones = st.fixed_dictionaries(
            {}, optional={name: _one_of(brand, name) for name in names if name not in skip}
        )
        return st.tuples(
            st.just(brand),
            st.lists(
                st.tuples(st.sampled_from(["present", "running", "stopped", "rebooted"]), given_ones),
                min_size=1,
                max_size=4,
            ),
        )

    @needs_sim
    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(BRANDS).flatmap(sequences))
    def test_any_sequence_converges_in_one_run_each(tmp_path_factory, world, sequence):
        brand, wanted = sequence
        host = Host(tmp_path_factory.mktemp("host"), world)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SMARTOS_SIM_STATE", str(host.state))
            client = InProcess(host)
            zone = {"delegate_dataset": True} if brand in ZONES else {}
            bring(client, **base(brand), **zone)
            for state, properties in wanted:
                want = Want.from_options(
                    {"uuid": UUID, "state": state, "allow_reboot": True, "remove_disks": True, **properties}
                )
                engine.converge(client, want)
                again = engine.converge(
                    client, Want(**{**want.__dict__, "state": "running" if state == "rebooted" else state})
                )
                assert again["actions"] == []


# -- what goes wrong -----------------------------------------------------------------------------------------------------


@needs_sim
def test_a_failed_create_is_told_found_and_replaced_only_where_that_is_allowed(host):
    host.tool("smartos-sim", "node", "provision_timeout=1")  # after which what is left is failed
    host.fault("vmadm create", step="zone_boot")
    failed = host.run(**base("joyent"))
    assert (
        failed["failed"] and failed["cmd"][1:] == ["create"] and failed["rc"] == 1 and failed["stderr"] in failed["msg"]
    )
    refused = host.run(**base("joyent"), state="running")
    assert "set replace_failed: true" in refused["msg"]
    assert host.ok(**base("joyent"), replace_failed=True)["actions"] == ["delete", "create"]
    assert host.vms()[0]["state"] == "running"
    host.fault("vmadm create", step="zone_boot")
    host.run(uuid=OTHER, **base("joyent"))
    until = time.monotonic() + 180
    while "failed" not in [vm["state"] for vm in host.vms()] and time.monotonic() < until:
        time.sleep(0.1)
    assert host.converges(uuid=OTHER, state="absent")["actions"] == ["delete"]


@needs_sim
def test_a_vm_in_transition_is_waited_for(host):
    host.fault("vmadm create", step="zone_boot", do="hang")
    process = subprocess.Popen([str(SIM / "bin/vmadm"), "create"], stdin=subprocess.PIPE, env=host.environ, text=True)
    try:
        t.cast(t.IO[str], process.stdin).write(json.dumps({**base("joyent"), "uuid": UUID}))
        t.cast(t.IO[str], process.stdin).close()
        until = time.monotonic() + 120
        while [vm["state"] for vm in host.vms()] != ["provisioning"]:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.1)
        assert "its state is still 'provisioning' after 1 s" in host.run(timeout=1, alias="x")["msg"]
        assert host.ok(check_mode=True, alias="x")["actions"] == ["update (alias)"]
        with ThreadPoolExecutor(1) as beside:
            waiting = beside.submit(host.ok, timeout=600, alias="x")
            host.tool("smartos-sim", "fault", "clear")
            assert waiting.result()["actions"] == ["update (alias)"]
    finally:
        host.tool("smartos-sim", "fault", "clear")
        assert process.wait(timeout=120) == 0


@needs_sim
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_update_that_fails_is_a_failure_only_if_it_changed_nothing(host, when):
    host.ok(**base("joyent"))
    host.fault("vmadm update", step="record" if when == "before" else "vminfod", when="before")
    done = host.run(alias="web")
    if when == "before":
        assert done["failed"] and done["rc"] == 1 and f"`vmadm update {UUID}` ended with exit code 1" in done["msg"]
        assert "alias" not in host.vms()[0]
    else:
        assert done["changed"] and "but the VM is as wanted" in str(done["warnings"])
    assert host.ok(alias="web")["changed"] is (when == "before")


@needs_sim
def test_a_command_that_hangs_is_ended(host):
    host.ok(**base("joyent"))
    host.fault("vmadm stop", do="hang", seconds="60")
    failed = host.run(state="stopped", timeout=1)
    assert failed["failed"] and failed["rc"] == 124 and "still running after 1 s, killed" in failed["msg"]
    assert host.ok(state="stopped")["actions"] == ["stop"]


@needs_sim
def test_a_bad_value_is_refused_by_vmadm_validate_in_check_mode_too(host):
    missing = {**base("joyent"), "image_uuid": OTHER}
    for check_mode in (True, False):
        failed = host.run(check_mode=check_mode, **missing)
        assert (
            failed["failed"]
            and failed["bad_values"] == ["image_uuid"]
            and failed["cmd"][1:] == ["validate", "create", "joyent"]
        )
    assert host.vms() == []


@needs_sim
def test_reprovision_keeps_the_data(host):
    host.ok(**base("joyent"), delegate_dataset=True, tags={"a": 1}, nics=[ITEM["nics"]])
    second = {"image_uuid": IMAGES["zone-dataset"][1]}
    assert "reprovision: true changes it in place" in host.run(**second)["msg"]
    done = host.converges(**second, reprovision=True)
    vm = host.vms()[0]
    assert (done["actions"], done["rebooted"]) == (["reprovision"], True)
    assert (vm["image_uuid"], vm["tags"], len(vm["datasets"]), len(vm["nics"])) == (
        second["image_uuid"],
        {"a": 1},
        1,
        1,
    )
    host.ok(uuid=OTHER, **base("kvm"), disks=[{"image_uuid": IMAGES["zvol"][0], "model": "virtio"}])
    refused = host.run(uuid=OTHER, disks=[{"image_uuid": IMAGES["zvol"][1]}], reprovision=True)
    assert "vmadm cannot change it" in refused["msg"]


@needs_sim
def test_reprovision_of_a_bhyve_vm(host):
    disks = [{"image_uuid": IMAGES["zvol"][0], "model": "virtio", "boot": True}, {"size": 100, "model": "virtio"}]
    host.ok(**base("bhyve"), disks=disks)
    disks[0]["image_uuid"] = IMAGES["zvol"][1]
    assert host.converges(disks=disks, reprovision=True)["actions"] == ["reprovision"]


@needs_sim
def test_snapshots_are_made_removed_and_rolled_back_to(host):
    host.ok(**base("joyent"))
    for name in ("a", "b"):
        assert host.converges(snapshot={"name": name})["actions"] == [f"create-snapshot ({name})"]
    assert host.converges(snapshot={"name": "b", "state": "absent"})["actions"] == ["delete-snapshot (b)"]
    host.ok(snapshot={"name": "c"})
    predicted = host.ok(check_mode=True, snapshot={"name": "a", "state": "rolled_back"})
    done = host.ok(snapshot={"name": "a", "state": "rolled_back"})
    assert done["actions"] == predicted["actions"] == ["rollback-snapshot (a)"]
    assert_predicted(predicted["diff"], done["diff"])
    assert [one["name"] for one in host.vms()[0]["snapshots"]] == ["a"]


# -- the shortcomings of the public module, numbered as in the facts, section 10 -------------------------------------------


@needs_sim
def test_01_an_alias_is_kept_and_finds_the_vm_again(host):
    first = host.ok(uuid=None, alias="web", **base("joyent"))
    second = host.ok(uuid=None, alias="web", **base("joyent"))
    assert (first["changed"], second["changed"]) == (True, False)
    assert [vm["alias"] for vm in host.vms()] == ["web"]
    assert first["uuid"] == second["uuid"] == host.vms()[0]["uuid"]


@needs_sim
def test_02_false_and_zero_reach_vmadm(host):
    host.ok(**base("joyent"), autoboot=False, tmpfs=0, quota=0, cpu_cap=0)
    vm = host.vms()[0]
    assert (vm["autoboot"], vm["tmpfs"], vm["quota"], vm["state"]) == (False, 0, 0, "stopped")


@needs_sim
def test_03_an_existing_vm_is_updated(host):
    host.ok(**base("joyent"), max_physical_memory=512)
    assert host.converges(max_physical_memory=2048)["actions"] == ["update (max_physical_memory)"]
    assert host.vms()[0]["max_physical_memory"] == 2048


@needs_sim
@pytest.mark.parametrize("state", ["present", "running", "stopped"])
def test_04_check_mode_compares_with_the_vm_itself(host, state):
    host.ok(**base("joyent"), state=state)
    assert host.ok(check_mode=True, state=state)["changed"] is False


@needs_sim
def test_05_a_vm_is_deleted_whether_by_force_or_not(host):
    for force in (True, False):
        host.ok(**base("joyent"))
        assert host.converges(state="absent", force=force)["actions"] == ["delete"]
        assert host.vms() == []


@needs_sim
def test_06_an_alias_is_never_a_pattern(host):
    host.ok(**base("joyent"), alias="web")
    assert "vmadm reads a leading ~ as a pattern" in host.run(uuid=None, alias="~we", state="absent")["msg"]
    assert host.ok(uuid=None, alias="we.", state="absent")["changed"] is False
    assert len(host.vms()) == 1


@needs_sim
def test_07_an_alias_that_two_vms_have_is_refused(host):
    for uuid in (UUID, OTHER):
        host.tool("vmadm", "create", stdin=json.dumps({**base("joyent"), "uuid": uuid, "alias": "web"}))
    assert (
        "alias 'web' belongs to 2 VMs: set uuid to one of" in host.run(uuid=None, alias="web", state="stopped")["msg"]
    )
    assert [vm["state"] for vm in host.vms()] == ["running", "running"]


@needs_sim
def test_08_nothing_is_sent_that_was_not_asked_for(client, monkeypatch):
    sent = []
    validate = client.validate
    monkeypatch.setattr(
        client, "validate", lambda action, brand, payload: (sent.append(payload), validate(action, brand, payload))
    )
    bring(client, **base("joyent"))
    assert all(payload == {**base("joyent"), "uuid": UUID} for payload in sent) and sent


@needs_sim
def test_09_namespaces_reach_the_vm(host):
    host.converges(**base("joyent"), internal_metadata_namespaces=["foo", "bar"])
    assert host.vms()[0]["internal_metadata_namespaces"] == ["foo", "bar"]


@needs_sim
@pytest.mark.parametrize("wrong", [{"nics": [{"nic_tga": "admin"}]}, {"max_ram": 512}, {"disks": [{"sice": 1}]}])
def test_10_a_property_that_does_not_exist_is_refused(host, wrong):
    failed = host.run(**base("joyent"), **wrong)
    assert failed["failed"] and next(iter((wrong.get("nics") or wrong.get("disks") or [wrong])[0])) in failed["msg"]
    assert host.vms() == []


@needs_sim
def test_10_what_vmadm_would_drop_in_silence_is_refused_by_name(client):
    want = Want.from_options({"uuid": UUID, **base("joyent")})
    engine.converge(client, want)
    with pytest.raises(engine.InvalidPayload) as refusal:
        client.validate("update", "joyent", {"nics": [], "nosuch": 1})
    assert refusal.value.properties["bad_properties"] == ["nics", "nosuch"]
    assert refusal.value.rc == 1 and "nosuch" in str(refusal.value)


@needs_sim
def test_11_12_a_command_that_had_nothing_to_do_is_no_failure(host):
    host.ok(**base("joyent"), state="stopped")
    assert host.ok(state="stopped")["changed"] is False
    assert host.ok(state="running")["changed"] is True
    assert host.ok(state="running")["changed"] is False


@needs_sim
def test_13_14_secrets_are_neither_on_disk_nor_on_a_command_line_nor_in_the_output(host, tmp_path):
    secrets = {"customer_metadata": {"user-script": "hush-script"}, "internal_metadata": {"root_pw": "hush-password"}}
    host.tool("smartos-sim", "node", "provision_timeout=1")
    outputs = [host.run(**base("joyent") | {"image_uuid": OTHER}, **secrets)]  # refused
    host.fault("vmadm create", step="zone_boot")
    outputs.append(host.run(**base("joyent"), **secrets))  # failed
    outputs.append(host.ok(**base("joyent"), **secrets, replace_failed=True))
    secrets["internal_metadata"] = {"root_pw": "hush-other"}
    outputs += [host.ok(**secrets, check_mode=True), host.ok(**secrets), host.ok(**secrets)]
    outputs.append(host.ok("vmadm_info"))
    assert [done.get("changed") for done in outputs[2:]] == [True, True, True, False, False]
    assert "hush" not in "".join(done["stdout_of_module"] for done in outputs)
    assert "hush" not in "\n".join(host.calls())
    written = [path for path in tmp_path.rglob("*") if path.is_file() and host.state not in path.parents]
    assert not any(b"hush" in path.read_bytes() for path in written)
    assert host.vms()[0]["internal_metadata"] == {"root_pw": "hush-other"}
    assert outputs[4]["diff"]["after"]["internal_metadata"] == {"root_pw": "(hidden, another value)"}


def test_14_a_wrong_argument_does_not_print_the_secrets_beside_it(capsys):
    from ansible.module_utils.testing import patch_module_args

    given = {"uuid": UUID, "cpu_cap": "many", "customer_metadata": {"key": "hush-hush"}}
    with patch_module_args(given), pytest.raises(SystemExit):
        vmadm.main()
    out = capsys.readouterr().out
    assert "cpu_cap" in out and "hush-hush" not in out


def test_14_short_values_of_metadata_do_not_spoil_the_result(capsys):
    from ansible.module_utils.testing import patch_module_args

    given = {"uuid": UUID, "alias": "~x", "customer_metadata": {"key": "a", "other": 1}}
    with patch_module_args(given), pytest.raises(SystemExit):
        vmadm.main()
    assert "alias: '~x' is not valid: vmadm reads a leading ~" in json.loads(capsys.readouterr().out)["msg"]


def test_15_what_was_missing_is_there():
    missing = {
        "tags", "alias", "billing_id", "package_name", "package_version", "bootrom", "init_name", "max_shm_ids",
        "max_shm_memory", "do_not_inventory", "pci_devices", "customer_metadata", "internal_metadata", "reprovision",
        "snapshot", "signal",
    }  # fmt: skip
    assert missing <= set(vmadm.OPTIONS)


@needs_sim
def test_15_a_signal_is_sent(host):
    host.ok(**base("joyent"))
    host.calls()
    assert host.ok(signal="SIGHUP")["actions"] == ["kill (SIGHUP)"]
    assert f"vmadm kill {UUID} -s SIGHUP" in host.calls()


@needs_sim
def test_16_no_call_means_more_than_one_vm(host):
    host.ok(**base("joyent"))
    assert "a UUID in lower case" in host.run(uuid="*", state="absent")["msg"]
    assert len(host.vms()) == 1


@needs_sim
def test_17_present_leaves_the_power_alone(host):
    host.ok(**base("joyent"), state="stopped")
    assert host.converges(state="present", alias="web")["actions"] == ["update (alias)"]
    assert host.vms()[0]["state"] == "stopped"


@needs_sim
def test_18_the_vm_itself_is_returned(host):
    done = host.ok(**base("joyent"), state="stopped")
    assert done["vm"]["state"] == host.vms()[0]["state"] == "stopped"
    assert done["vm"]["uuid"] == UUID and isinstance(done["vm"]["max_physical_memory"], int)


@needs_sim
def test_19_the_diff_is_there_and_only_known_words_are_used(host):
    host.ok(**base("joyent"))
    host.calls()
    done = host.ok(cpu_cap=100)
    assert "cpu_cap" not in done["diff"]["before"] and done["diff"]["after"]["cpu_cap"] == 100
    missing = host.ok(uuid=None, alias="nobody", state="absent")
    assert missing["changed"] is False and missing["uuid"] is None
    assert host.calls() == [
        "vmadm lookup -j",
        "vmadm validate update joyent",
        f"vmadm update {UUID}",
        f"vmadm lookup -j uuid={UUID}",
        "vmadm lookup -j",
    ]


# -- speed, and vmadm_info -----------------------------------------------------------------------------------------------


@needs_sim
def test_a_vm_as_described_takes_one_call_and_none_where_all_were_read(host, client):
    description = {**base("lx"), "nics": [ITEM["nics"]], "tags": {"a": 1}, "quota": 20}
    host.ok(**description)
    host.calls()
    host.ok(**description)
    assert host.calls() == ["vmadm lookup -j"]
    vms = client.lookup()
    calls = client.calls
    assert engine.converge(client, Want.from_options({"uuid": UUID, **description}), vms=vms)["changed"] is False
    assert client.calls == calls


@needs_sim
def test_vmadm_info_filters_by_any_property(host):
    host.ok(**base("joyent"), alias="web", tags={"role": "keystone", "a.b": 1}, nics=[ITEM["nics"]], autoboot=False)
    host.ok(uuid=OTHER, **base("lx"), alias="db", customer_metadata={"key": "hush-hush"})

    def found(**filters: t.Any) -> list[str]:
        return [vm["alias"] for vm in host.ok("vmadm_info", filters=filters)["vms"]]

    assert sorted(found()) == ["db", "web"]
    assert found(brand="lx") == ["db"]
    assert sorted(found(brand=["lx", "joyent"])) == ["db", "web"]
    assert found(**{"tags.role": "keystone", "state": "stopped"}) == ["web"]
    assert found(**{"tags.a.b": 1}) == ["web"]
    assert found(**{"nics.*.ips.*": "10.1.0.5/24"}) == ["web"]
    assert found(**{"nics.0.nic_tag": "admin"}) == ["web"]
    assert found(autoboot=True) == ["db"]
    assert found(**{"tags.role": None}) == ["db"]
    assert found(alias="~w") == found(alias="we") == []
    told = host.ok("vmadm_info", filters={"alias": "db"})
    assert told["vms"][0]["customer_metadata"] == {"key": "(hidden)"} and told["by_uuid"][OTHER]["alias"] == "db"
    assert host.ok("vmadm_info", secrets=True)["by_uuid"][OTHER]["customer_metadata"] == {"key": "hush-hush"}
    host.fault("vmadm lookup", message="vminfod is down")
    failed = host.run("vmadm_info")
    assert failed["failed"] and failed["rc"] == 1 and failed["stderr"] == "vminfod is down"
