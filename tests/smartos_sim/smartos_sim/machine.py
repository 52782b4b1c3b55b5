# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine below the simulated global zone: made once, booted, rebooted, cut from its power.

The Linux system on which it runs *is* the global zone, so it must be one that is made for this (a host container, a virtual
machine). See LINUX.md.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import typing as t
import uuid as uuids
from pathlib import Path

from . import gz_network, linux, lxc_config, metadata
from .files import ToolError, read_json, timestamp
from .platform import HVM_BRANDS
from .state import State

NEEDED = ("zfs-fuse", "zfs", "zpool", "lxc-start", "ip", "nft", "mmdebstrap")
LIBRARY = Path(linux.ZFS).parent
USBKEY = Path("/usbkey")

RAMDISK = ("/etc", "/root")
"""What a reboot puts back to what it was when the machine was made (facts 8), as are the SMF repository and /tmp.
All else stays. The Linux host's own /run, which is /var/run too, cannot be emptied below a systemd that runs."""
KEPT = ("/etc/zones",)
"""Paths below RAMDISK that a reboot leaves as they are."""
VOLATILE = ("/tmp",)

ZFS_PID = Path("/run/zfs-fuse.pid")
NAT = "smartos_sim"
ARCHIVE = "ramdisk.tar"

UNIT = """\
[Unit]
Description=Boot of the simulated SmartOS global zone
After=local-fs.target network.target
[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=none
Environment=SMARTOS_SIM_STATE={state}
ExecStart={code}/bin/smartos-sim boot
[Install]
WantedBy=multi-user.target
"""


# -- making it ---------------------------------------------------------------------------------------------------------


def init(state: State, *, pool_size: int, address: str, hostname: str | None) -> None:
    """Make this Linux system a SmartOS node. A second call brings back what is missing and keeps pool and VMs.

    ``pool_size``: GiB that the pool's file may grow to; ``address``: of the global zone on the NIC tag ``admin``, with the
    length of its network's prefix.
    """
    missing = [name for name in NEEDED if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    if missing:
        raise ToolError(
            f"not installed here: {', '.join(missing)} (Debian 12: zfs-fuse lxc iproute2 nftables mmdebstrap)"
        )
    own = ipaddress.ip_interface(address)
    state.directory.mkdir(parents=True, exist_ok=True)
    _tools()
    _start_zfs()
    if "zones" not in linux.run(linux.ZPOOL, "list", "-H", "-o", "name").split():
        file = state.directory / "zones.img"
        if file.exists():
            linux.run(linux.ZPOOL, "import", "-d", str(state.directory), "-m", "zones")
        else:
            with open(file, "wb") as sparse:
                sparse.truncate(pool_size << 30)
            linux.run(linux.ZPOOL, "create", "-m", "/zones", "zones", str(file))
    mac = "02:08:20:" + ":".join(f"{byte:02x}" for byte in own.ip.packed[-3:])
    with state.changed_node() as node:
        node["machine"] = "linux"
        node["zpools"] = ["zones"]
        node["memory_mib"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        node["hostname"] = hostname or os.uname().nodename
        node["uuid"] = node.get("machine_uuid") or str(uuids.uuid4())
        node["machine_uuid"] = node["uuid"]
        node["admin_address"] = address
        node["nics"] = {"net0": mac, **_further_nics()}
        tags = read_json(state.directory / "node.json", {}).get("nic_tags")
        node["nic_tags"] = tags or [{"name": "admin", "mac": mac, "link": "net0", "type": "normal"}]
    _files(state, own, mac)
    if not (state.directory / ARCHIVE).exists():
        unit = Path("/etc/systemd/system/smartos-sim.service")
        linux.put(unit, UNIT.format(state=state.directory, code=lxc_config.CODE))
        linux.quiet("systemctl", "enable", "smartos-sim.service")
        with tarfile.open(state.directory / ARCHIVE, "w") as archive:
            for folder in RAMDISK:
                archive.add(folder)
    boot(state)


def _files(state: State, own: ipaddress.IPv4Interface | ipaddress.IPv6Interface, mac: str) -> None:
    """What a SmartOS node keeps on its disks and its USB key."""
    for folder in (
        "/usbkey/config.inc",
        "/usbkey/ssh",
        "/opt/custom/smf",
        "/opt/tools/bin",
        "/etc/zones",
        "/var/zonecontrol",
    ):
        Path(folder).mkdir(parents=True, exist_ok=True)
    config = USBKEY / "config"
    if not config.exists():
        lines = {
            "hostname": state.node["hostname"],
            "admin_nic": mac,
            "admin_ip": own.ip,
            "admin_netmask": own.netmask,
            "admin_network": own.network.network_address,
            "root_authorized_keys_file": "authorized_keys",
        }
        config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    # pkgsrc brings Python to a global zone, which has none (facts 8). The simulator's own lies where Debian has it.
    link = Path(f"/opt/tools/bin/python{sys.version_info[0]}.{sys.version_info[1]}")
    if not link.exists():
        link.symlink_to(os.path.realpath(sys.executable))


def _tools() -> None:
    """Put the commands where SmartOS has them, and the translators before zfs-fuse's own zfs and zpool."""
    for tool in sorted((lxc_config.CODE / "bin").iterdir()):
        if tool.name in ("smartos-sim", "svc.startd", "shutdown", *metadata.TOOLS):
            continue
        folder = "/usr/bin" if tool.name in ("svcs", "svcprop") else "/usr/sbin"
        if tool.name in ("zfs", "zpool") and not (LIBRARY / tool.name).exists():
            LIBRARY.mkdir(parents=True, exist_ok=True)
            linux.run(
                "dpkg-divert", "--quiet", "--local", "--rename", "--divert", str(LIBRARY / tool.name), "--add",
                f"/sbin/{tool.name}",
            )  # fmt: skip
        _link(Path(folder, tool.name), tool)
    _link(Path("/usr/sbin/smartos-sim"), lxc_config.CODE / "bin" / "smartos-sim")


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(target)


# -- booting it --------------------------------------------------------------------------------------------------------


def _start_zfs() -> None:
    if linux.quiet(linux.ZPOOL, "list"):
        return
    linux.quiet("systemctl", "mask", "zfs-fuse.service")
    ZFS_PID.unlink(missing_ok=True)  # of one that was killed: the next would not start
    linux.run("zfs-fuse", "--pidfile", str(ZFS_PID))
    until = time.monotonic() + linux.START_LIMIT
    while not linux.quiet(linux.ZPOOL, "list"):
        if time.monotonic() > until:
            raise ToolError("zfs-fuse does not answer; is /dev/fuse there?")
        time.sleep(0.1)


def boot(state: State) -> None:
    """Bring up pool, networks, SMF and the VMs that start with the host, whatever of it is missing."""
    _start_zfs()
    if "zones" not in linux.run(linux.ZPOOL, "list", "-H", "-o", "name").split():
        linux.run(linux.ZPOOL, "import", "-d", str(state.directory), "zones")
    linux.quiet(linux.ZFS, "mount", "-a")
    _network(state)
    _from_usbkey()
    _start_smf(state)


def _network(state: State) -> None:
    own = ipaddress.ip_interface(state.node["admin_address"])
    admin = lxc_config.bridge("admin")
    for tag in state.node["nic_tags"]:
        linux.make_bridge(lxc_config.bridge(tag["name"]), tag.get("mtu"), tag.get("link"))
    linux.run("ip", "address", "replace", str(own), "dev", admin)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    # Frames on a wire between VMs are none of ipf's business; seen by netfilter there, they would never be translated afterwards.
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if bridged.exists():
        bridged.write_text("0\n")
    rules = f"""
        table ip {NAT}
        delete table ip {NAT}
        table ip {NAT} {{
            chain out {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr {own.network} oifname != "{admin}" masquerade
            }}
        }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, capture_output=True, check=True)


def _further_nics() -> dict[str, str]:
    """Interfaces of this system that lead elsewhere than its default route: NICs that a tag may be given to, with their MACs."""
    way_out = json.loads(linux.run("ip", "-json", "route", "show", "default"))
    taken = {route.get("dev") for route in way_out}
    nics = sorted(
        path
        for path in Path("/sys/class/net").iterdir()
        if path.name.startswith(("eth", "en")) and path.name not in taken
    )
    return {path.name: (path / "address").read_text().strip() for path in nics}


def _from_usbkey() -> None:
    """What the global zone takes from its USB key at boot (facts 8): root's keys, shadow, SSH host keys."""
    config = USBKEY / "config"
    settings = (
        dict(line.split("=", 1) for line in config.read_text().splitlines() if "=" in line) if config.exists() else {}
    )
    keys = USBKEY / "config.inc" / settings.get("root_authorized_keys_file", "none")
    if keys.is_file():
        linux.put(Path("/root/.ssh/authorized_keys"), keys.read_text(), 0o600)
    if (USBKEY / "shadow").is_file():
        linux.put(Path("/etc/shadow"), (USBKEY / "shadow").read_text(), 0o640)
    for key in (USBKEY / "ssh").glob("ssh_host_*"):
        shutil.copy2(key, "/etc/ssh/")


def _smf_pid(state: State) -> int | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid, begun = (state.directory / "smf.pid").read_text().split()
        if linux.started_at(int(pid)) == begun:
            return int(pid)
    return None


def _start_smf(state: State) -> None:
    """Start the global zone's svc.startd with a fresh repository; it imports /opt/custom/smf."""
    startd = lxc_config.CODE / "bin" / "svc.startd"
    if not startd.exists() or _smf_pid(state):
        return
    with open(state.directory / "smf.log", "ab") as log:
        done = subprocess.Popen(
            [str(startd), "--global", "--fresh"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"},
        )  # fmt: skip
    begun = linux.started_at(done.pid)
    linux.put(state.directory / "smf.pid", f"{done.pid} {begun}")
    until = time.monotonic() + linux.START_LIMIT
    while not Path("/etc/svc/volatile/startd.fifo").exists():
        if time.monotonic() > until or done.poll() is not None:
            raise ToolError(f"svc.startd of the global zone does not serve; {log.name} says why")
        time.sleep(0.05)


# -- ending it ---------------------------------------------------------------------------------------------------------


def _check(state: State) -> None:
    """Refuse where there is nothing to end, before anything of this system is put back to what it was."""
    if state.node["machine"] != "linux" or not (state.directory / ARCHIVE).exists():
        raise ToolError("this node is not made of Linux parts: smartos-sim init makes it (LINUX.md)")


def _zones(state: State) -> list[dict[str, t.Any]]:
    return [record["vm"] for record in state.records() if record["vm"]["brand"] not in HVM_BRANDS]


def shut_down(state: State, timeout: float = 20) -> None:
    """Stop all zones, the graceful way until ``timeout`` seconds, and SMF; what lies in memory only is forgotten."""
    import concurrent.futures

    _check(state)
    machine = linux.Linux(state.directory)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda vm: machine.zone_halt(vm, False, timeout), _zones(state)))
    _note_ends(state)
    pid = _smf_pid(state)
    if pid:
        os.kill(pid, signal.SIGTERM)
        _await_end(pid, linux.START_LIMIT)  # its services have times of their own to stop in
    _forget(state)


def _note_ends(state: State) -> None:
    """In each VM's record: when its zone ended. Its autoboot stays."""
    for record in state.records():
        zone = record["zone"]
        if zone.get("boot_timestamp") and not zone.get("exit_timestamp"):
            with state.lock_vm(record["vm"]["uuid"]):
                zone.update(exit_status=0, exit_timestamp=timestamp())
                state.write(record)


def _await_end(pid: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while linux.started_at(pid) and time.monotonic() < until:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _forget(state: State) -> None:
    """Put the ramdisk back to what it is after a boot."""
    gz_network.forget(state)
    # Debian 12's Python knows no filters, Python 3.14 takes a strict one unless told.
    trusted: dict[str, t.Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    with tarfile.open(state.directory / ARCHIVE) as archive:
        members = {f"/{member.name}" for member in archive.getmembers()}
        for folder in RAMDISK:
            for place, folders, files in os.walk(folder, topdown=True):
                folders[:] = [name for name in folders if os.path.join(place, name) not in KEPT]
                for name in list(folders):
                    path = os.path.join(place, name)
                    if path not in members:
                        folders.remove(name)
                        (os.unlink if os.path.islink(path) else shutil.rmtree)(path)
                for name in files:
                    path = os.path.join(place, name)
                    if path not in members and not os.path.ismount(path):
                        os.unlink(path)
        for member in archive.getmembers():
            path = f"/{member.name}"
            if any(path == kept or path.startswith(f"{kept}/") for kept in KEPT) or os.path.ismount(path):
                continue
            if not member.isdir():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            archive.extract(member, "/", **trusted)
    for folder in VOLATILE:
        for entry in os.scandir(folder):
            if entry.name.startswith("systemd-private"):
                continue
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def power_off(state: State) -> None:
    """Cut the power: every zone, daemon and command of the simulator is killed at once. ``smartos-sim boot`` comes after it.

    What had been written to the pool stays written. A real pool may lose what nobody had asked it to keep (fsync) in the
    last seconds; zfs-fuse, when killed, loses even what had been asked for, so it is not.
    """
    _check(state)
    machine = linux.Linux(state.directory)
    zones = _zones(state)
    for command in _commands():
        with contextlib.suppress(ProcessLookupError):
            os.kill(command, signal.SIGKILL)
    for vm in zones:
        pid = machine.zone_running(vm)
        if pid:
            os.kill(pid, signal.SIGKILL)
            linux.quiet("lxc-stop", "-P", str(machine.containers), "-n", vm["uuid"], "-k")
        metadata.stop(vm["uuid"])
    pid = _smf_pid(state)
    if pid:
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + linux.BUSY_LIMIT
    while not linux.quiet(linux.ZPOOL, "export", "zones") and time.monotonic() < until:
        time.sleep(0.2)
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        zfs_fuse = int(ZFS_PID.read_text())
        os.kill(zfs_fuse, signal.SIGTERM)
        _await_end(zfs_fuse, linux.START_LIMIT)  # killed before its time it would lose what is written
    _forget(state)


def _commands() -> t.Iterator[int]:
    """The simulator's commands that run now, this one aside."""
    from .main import TOOLS

    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), os.getppid()):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if len(words) > 2 and b"python" in words[0] and os.path.basename(words[2]).decode() in TOOLS:
                    yield int(entry.name)
