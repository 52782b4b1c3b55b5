# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptions of VMs made at random, good ones and wrong ones, and what the module vmadm makes of them on a simulated host.

A description is either refused before anything is touched, or brought about: every payload is accepted, the VM becomes what
was predicted, and a second run has nothing to do. Everything happens in this process; a seed gives the same descriptions.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
import traceback
import typing as t
import uuid
from collections import Counter
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, Result
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import vmadm as module
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import PlanError
from smartos_sim.files import write_json
from smartos_sim.javascript import Crash
from smartos_sim.main import main
from smartos_sim.state import State

BRANDS = ("joyent", "joyent-minimal", "builder", "lx", "bhyve", "kvm")
IMAGES = {
    "zone-dataset": "c0ffee00-0000-4000-8000-000000000001",
    "lx-dataset": "1a1a1a1a-0000-4000-8000-000000000001",
    "zvol": "2b2b2b2b-0000-4000-8000-000000000001",
}
Options = dict[str, t.Any]
LIVE = ("state", "zone_state", "pid", "zoneid", "zonedid", "boot_timestamp", "init_restarts", "last_modified")
"""What a VM shows that no payload changes, or that time changes."""


def make_host(directory: Path) -> None:
    """A simulated host with an image of each type, two physical tags and a stub."""
    os.environ["SMARTOS_SIM_STATE"] = str(directory)
    tags = [
        {"name": "admin", "mac": "00:0c:29:00:00:01", "link": "e1000g0", "type": "normal"},
        {"name": "external", "mac": "00:0c:29:00:00:02", "link": "e1000g1", "type": "normal"},
        {"name": "stub0", "mac": None, "link": None, "type": "etherstub"},
    ]
    write_json(directory / "node.json", {"provision_timeout": 0.3, "nic_tags": tags})
    for kind, name in IMAGES.items():
        size = {"image_size": 10240} if kind == "zvol" else {}
        manifest = {"v": 2, "uuid": name, "name": kind, "version": "1", "type": kind, "os": "other", **size}
        State().write_image({"zpool": "zones", "source": None, "manifest": manifest})


class Client(module.Vmadm):
    """vmadm of the simulated host, called rather than run."""

    def __init__(self) -> None:
        super().__init__(timeout=10)
        self.payloads = 0

    def _run(self, *words: str, payload: t.Any = None, timeout: float | None = None) -> Result:
        if words[0] in ("create", "update"):
            self.payloads += 1
        return _call("vmadm", words, "" if payload is None else json.dumps(payload))

    def nic_tags(self) -> dict[str, str]:
        rows = [line.split(",") for line in _call("nictagadm", ("list", "-p", "-d", ","), "").out.splitlines()]
        return {row[0]: row[3] for row in rows}


def _call(tool: str, words: t.Sequence[str], stdin: str) -> Result:
    out, err = io.StringIO(), io.StringIO()
    before = sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _crashes_raise():
            rc = main(tool, [*words])
    except Crash as crash:
        rc = -6
        err.write(f"SIGABRT: {crash}")
    finally:
        sys.stdin = before
    if rc:
        raise CommandError([tool, *words], rc, err.getvalue() or out.getvalue())
    return Result(rc, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _crashes_raise() -> t.Iterator[None]:
    """Let what would end the process by a signal be an exception."""
    from smartos_sim import vmadm

    def pass_on(crash: Crash) -> t.NoReturn:
        raise crash

    real, vmadm._abort = vmadm._abort, pass_on
    try:
        yield
    finally:
        vmadm._abort = real


# -- descriptions ------------------------------------------------------------------------------------------------------


class Maker:
    """Descriptions of one VM after another; one value in ``wrong`` is one that vmadm or this module refuses."""

    def __init__(self, seed: int, wrong: float = 0.04) -> None:
        self.random = random.Random(seed)
        self.wrong = wrong

    def pick(self, good: t.Sequence[t.Any], bad: t.Sequence[t.Any] = ()) -> t.Any:
        """One of the good values, seldom one of the bad ones."""
        if bad and self.random.random() < self.wrong:
            return self.random.choice(bad)
        return self.random.choice(good)

    def maybe(self, chance: float = 0.3) -> bool:
        """Whether something is given."""
        return self.random.random() < chance

    def new(self, number: int) -> Options:
        """A description of a VM that is to be made."""
        brand = self.random.choice(BRANDS)
        kind = "lx-dataset" if brand == "lx" else "zone-dataset"
        given: Options = {"uuid": str(uuid.UUID(int=self.random.getrandbits(128), version=4)), "brand": brand}
        if brand not in ("bhyve", "kvm"):
            given["image_uuid"] = IMAGES[kind]
        if brand == "lx":
            given["kernel_version"] = "5.10.0"
        if brand not in ("bhyve", "kvm") and self.maybe(0.2):
            given["delegate_dataset"] = True
        given["alias"] = f"vm{number}"
        return {**given, **self.properties(brand), **self.lists(brand, number, [])}

    def change(self, have: dict[str, t.Any], number: int) -> Options:
        """A description of a VM that is there."""
        given = {
            "uuid": have["uuid"],
            **self.properties(have["brand"]),
            **self.lists(have["brand"], number, have["nics"]),
        }
        given.update(allow_reboot=self.maybe(0.6), remove_disks=self.maybe(0.6))
        given["state"] = self.pick(["present", "present", "running", "stopped", "rebooted"])
        if "disks" not in given and have.get("disks") and self.maybe(0.4):
            given["disks"] = self.disks(have["brand"], have["disks"])
        return given

    def properties(self, brand: str) -> Options:
        """Some of the simple properties."""
        hvm = brand in ("bhyve", "kvm")
        big = [2**62, 2**63 - 1]
        choices: dict[str, tuple[list[t.Any], list[t.Any]]] = {
            "max_physical_memory": ([256, 512, 1024, 3000], [0, *big]),
            "max_swap": ([256, 700, 2048], [100]),
            "max_locked_memory": ([128, 512, 4096], []),
            "max_lwps": ([500, 4000], big),
            "cpu_cap": ([0, 100, 350], []),
            "cpu_shares": ([10, 70000], []),
            "quota": ([0, 5, 20], []),
            "zfs_io_priority": ([50, 100], []),
            "hostname": (["a", "b", ""], []),
            "owner_uuid": ([IMAGES["zvol"]], []),
            "resolvers": ([[], ["8.8.8.8"], ["8.8.8.8", "2001:db8::1"]], [["x"]]),
            "routes": (
                [{}, {"10.9.0.0/16": "10.1.0.1"}, {"192.0.2.1": "10.1.0.1"}, {"10.8.0.0/24": "nics[0]"}],
                [{"0.0.0.0/0": "10.1.0.1"}, {"fd00::/8": "10.1.0.1"}, {"10.2.0.0/33": "10.1.0.1"}, {"10.9.0.0/16": 5},
                 {"10.9.0.0/16": "fd00::1"}, {"x": "10.1.0.1"}, {"10.8.0.0/24": "nics[7]"}],
            ),
            "tags": ([{"a": "b"}, {"n": 5, "t": True}, {"a": None}], [{"n": 2**60}]),
            "customer_metadata": ([{"k": "v"}, {"k": None, "l": "w"}], []),
            "autoboot": ([True, False], []),
            "firewall_enabled": ([True, False], []),
            "do_not_inventory": ([True, False], []),
            "limit_priv": ([["default"], ["default", "proc_clock_highres"]], []),
            "zfs_root_compression": (["off", "lz4", "gzip-3"], ["zstd", "zip"]),
            "zfs_root_recsize": ([0, 131072, 8192], [1000, 262144]),
            "zfs_snapshot_limit": ([0, 10], []),
        }  # fmt: skip
        if hvm:
            choices.update(
                ram=([512, 1024, 2048], [0]),
                vcpus=([1, 4], [0]),
                vnc_password=(["secret", ""], ["much too long"]),
                vnc_port=([0, -1], []),
                nic_driver=(["virtio", "e1000"], []),
                disk_driver=(["virtio"], ["ide" if brand == "bhyve" else "ahci"]),
            )
        else:
            choices.update(
                tmpfs=([0, 100, 100000], []),
                dns_domain=(["example.org", ""], []),
                fs_allowed=([[], ["ufs", "pcfs"]], []),
                maintain_resolvers=([True, False], []),
                zlog_max_size=([0, 1000000], [2**63 - 1]),
            )
        if brand == "bhyve":
            choices.update(
                bootrom=(["uefi", "bios"], []), com1=(["socket,/tmp/a"], []), flexible_disk_size=([51200], [])
            )
        if brand == "kvm":
            choices.update(vga=(["std", "qxl"], ["zz"]), cpu_type=(["host"], []))
        if brand in ("lx", "joyent-minimal"):
            choices.update(docker=([True, False], []))
        return {name: self.pick(*choices[name]) for name in choices if self.maybe(0.12)}

    def lists(self, brand: str, number: int, have: list[dict[str, t.Any]]) -> Options:
        """nics, disks, file systems."""
        given: Options = {}
        if self.maybe(0.6) or not have:
            given["nics"] = self.nics(brand, number, have)
        if brand in ("bhyve", "kvm"):
            if not have and self.maybe(0.6):
                given["disks"] = self.disks(brand, [])
        elif self.maybe(0.2):
            given["filesystems"] = [self.filesystem(one) for one in range(self.random.randrange(3))]
        return given

    def filesystem(self, place: int) -> Options:
        """A loopback mount, seldom one without what it needs."""
        one = {"type": "lofs", "target": f"/mnt/{place}", "source": f"/opt/{place}"}
        if self.random.random() < self.wrong:
            one["source"] = "create-volume"
        if self.random.random() < self.wrong:
            del one["source"]
        return one

    def nics(self, brand: str, number: int, have: list[dict[str, t.Any]]) -> list[Options]:
        """Some that are there (by MAC or by interface), some replaced, some new."""
        found: list[Options] = []
        prefix = "eth" if brand == "lx" else "net"
        for nic in have:
            fate = self.random.random()
            if fate < 0.6:
                key = self.random.choice(["mac", "interface"])
                found.append({key: nic[key], **self.nic(brand, number, len(found), new=False)})
            elif fate < 0.8:  # another one in its place, with its address
                keep = {"ips": nic.get("ips") or []} if self.maybe(0.5) else {}
                found.append(
                    {**self.nic(brand, number, len(found)), **keep, "mac": self.mac(), "interface": nic["interface"]}
                )
        for _count in range(self.random.choice([0, 1, 1, 2]) if not have else self.random.choice([0, 0, 1])):
            nic = self.nic(brand, number, len(found) + 4)
            if self.maybe(0.3):
                nic["mac"] = self.mac()
            if self.maybe(0.15):
                nic["interface"] = f"{prefix}{self.pick([len(found), 1], [9])}"
            found.append(nic)
        if found and self.maybe(0.06):
            address = f"10.{number % 250}.77.{len(found)}"
            base = (found[0].get("ips") or ["dhcp"])[0].partition("/")[0]
            found.append({"nic_tag": "admin", "ips": [f"{address}/24"], "vrrp_vrid": number % 250 + 1,
                          **self.model(brand), **({} if self.random.random() < self.wrong else {"vrrp_primary_ip": base})})  # fmt: skip
        if found and self.maybe(0.2):
            self.random.choice(found)["primary"] = True
        return found

    def model(self, brand: str) -> Options:
        """The model that a nic of a hypervisor needs."""
        return {"model": self.random.choice(["virtio", "e1000"])} if brand in ("bhyve", "kvm") else {}

    def mac(self) -> str:
        """An address of its own."""
        return "02:" + ":".join(f"{self.random.randrange(256):02x}" for _byte in range(5))

    def nic(self, brand: str, number: int, place: int, new: bool = True) -> Options:
        """What is said of one nic."""
        address = f"10.{number % 250}.{self.random.randrange(200)}.{place + 1}"
        given: Options = {}
        if new or self.maybe(0.5):
            lists = [
                [f"{address}/24"],
                [f"{address}/16", f"fd00:{number % 9999}::{self.random.randrange(9999):x}/64"],
                ["dhcp"],
            ]
            bad = [[f"{address}/0"], [address], [f"{address}/7"], [f"10.3.{n}.1/24" for n in range(21)]]
            given["ips"] = self.pick(lists, bad)
        if new or self.maybe(0.1):
            given["nic_tag"] = self.pick(["admin", "external", "stub0"], ["nosuch"])
        if new:
            given.update(self.model(brand) if self.random.random() > self.wrong else {})
        if self.maybe(0.2):
            given["gateways"] = self.pick([[], ["10.1.0.1"]], [["fd00::1"]])
        if self.maybe(0.1):
            given["mtu"] = self.pick([1500, 9000], [600, 1400])
        if self.maybe(0.1):
            given["allowed_ips"] = self.pick(
                [[], ["10.4.0.1", "10.5.0.0/24"]], [[f"10.4.0.{n}" for n in range(14)], ["x"]]
            )
        if self.maybe(0.2):
            given[self.random.choice(["allow_ip_spoofing", "dhcp_server", "allow_mac_spoofing"])] = self.maybe(0.5)
        if new and self.maybe(0.1):
            given["vlan_id"] = self.random.choice([0, 5])
        return given

    def disks(self, brand: str, have: list[dict[str, t.Any]]) -> list[Options]:
        """Disks that are there, perhaps changed, and new ones."""
        models = ["virtio", "nvme"] if brand == "bhyve" else ["virtio", "scsi"]
        found: list[Options] = []
        for disk in have:
            if not self.maybe(0.85):
                continue
            change: Options = {"path": disk["path"]}
            if self.maybe(0.3):
                change["compression"] = self.pick(["lz4", "off"], ["zstd"])
            if self.maybe(0.3):
                change["model"] = self.pick(models, ["floppy"])
            if self.maybe(0.2):
                change["size"] = disk.get("size", 1024) + self.pick([0, 512], [-512])
            found.append(change)
        for _count in range(self.random.choice([0, 1, 2]) if not have else self.random.choice([0, 0, 1])):
            disk = {"size": self.random.choice([1024, 2048]), "model": self.pick(models, ["floppy"])}
            if not found and self.maybe(0.3):
                disk = {"image_uuid": IMAGES["zvol"], "model": self.random.choice(models), "boot": True}
            if "size" in disk and self.maybe(0.1):
                disk["block_size"] = self.pick([8192, 65536], [1000])
            if brand == "bhyve" and self.maybe(0.1):
                disk["pci_slot"] = self.pick(["0:4:7", "0:5:0"], ["0:6:0", "0:99", "0:4:0"])
            if self.random.random() < self.wrong:
                disk["path"] = "/dev/zvol/rdsk/zones/nosuch"
            found.append(disk)
        return found


# -- runs --------------------------------------------------------------------------------------------------------------


class Tally:
    """How many descriptions came to which end; ``faults`` tells each bad end."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.faults: list[str] = []
        self.brands: Counter[str] = Counter()
        self.payloads = 0


def run(seed: int, count: int, wrong: float = 0.04) -> Tally:
    """Bring about ``count`` descriptions, about five of each VM, on the host that ``make_host`` made."""
    maker, tally, client = Maker(seed, wrong), Tally(), Client()
    number = 0
    while sum(tally.ends.values()) < count:
        number += 1
        given = maker.new(number)
        _one(client, given, tally)
        for _change in range(4):
            found = client.get(given["uuid"])
            if found is None:
                break
            _one(client, maker.change(found, number), tally)
        if client.get(given["uuid"]) is not None:
            client._run("update", given["uuid"], payload={"indestructible_zoneroot": False})
            client._run("delete", given["uuid"])
    tally.payloads = client.payloads
    return tally


def _one(client: Client, given: Options, tally: Tally) -> None:
    before = client.get(given["uuid"])
    tally.brands[(before or given)["brand"]] += 1
    try:
        module.converge(client, module.Want.from_options(given))
        again = module.converge(client, module.Want.from_options(given))
    except (PlanError, module.InvalidPayload) as refused:
        end = "refused"
        if client.get(given["uuid"]) != before:
            end = "refused late"
            tally.faults.append(_told(end, given, before, refused))
        tally.ends[end] += 1
        return
    except (module.VmError, CommandError) as bad:
        end = "predicted wrongly" if isinstance(bad, module.VmError) else "payload refused"
        asked = given.get("state") == "stopped"
        if (
            not asked
            and before
            and before["state"] == "running"
            and (client.get(given["uuid"]) or {}).get("state") != "running"
        ):
            end += ", VM left down"
        tally.faults.append(_told(end, given, before, bad))
        tally.ends[end] += 1
        return
    except Exception:  # a crash is what is looked for
        tally.faults.append(_told("crash", given, before, traceback.format_exc()))
        tally.ends["crash"] += 1
        return
    repeated = [action for action in again["actions"] if given.get("state") != "rebooted" or action != "reboot"]
    if repeated:
        tally.faults.append(_told("second run", given, before, again["actions"]))
    tally.ends["second run" if repeated else "converged"] += 1


def _told(end: str, given: Options, before: t.Any, reason: t.Any) -> str:
    shown = {key: value for key, value in (before or {}).items() if key not in LIVE}
    return f"{end}: {json.dumps(given)}\n  of {json.dumps(shown)}\n  {reason}"
