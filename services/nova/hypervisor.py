#!/usr/bin/python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out what this machine can do for instances, and set up Open vSwitch and Nova accordingly.

``switch``  before ovs-vswitchd: choose the datapath, and write Open vSwitch's database, which is empty after a start
``tunnel``  after its start: give Geneve a way out, where the datapath is Open vSwitch's own
``guest``   before nova-compute: choose how instances run, and write it where Nova reads it
``registered``  before Neutron's agent: wait until ovn-controller has made this chassis known
``status``  print what was chosen and why; ``--json`` for programs

Both choices are made by trial. A kernel may have Open vSwitch's datapath or not, or not for Geneve. A /dev/kvm that opens
may belong to a kernel that emulates instructions itself and knows only some: a boot sector runs on it, Linux does not. So a
Linux is booted, up to its first process.

Everything is read from /etc/zonestack/hypervisor.json (see ``Config``). Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import json
import os
import platform
import re
import select
import stat
import struct
import subprocess
import sys
import tempfile
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

CONFIG = Path("/etc/zonestack/hypervisor.json")
RESULT = Path("/run/zonestack/hypervisor.json")
OPTIONS = Path("/run/zonestack/nova.conf.d/hypervisor.conf")
KERNEL = Path("/usr/lib/zonestack/vmlinuz")  # Debian's, put there when the image was made
KVM = Path("/dev/kvm")
NODES = Path("/sys/devices/system/node")
QEMU = "/usr/bin/qemu-system-x86_64"
NETWORK = Path("/sys/class/net")
QEMU_USER, KVM_GROUP = "libvirt-qemu", "kvm"  # as libvirt runs it: root's rights would prove nothing
BOOT_SECONDS = 15.0  # KVM needs about one; where it hangs instead, every first deployment waits so long
COMMAND_SECONDS = 30.0
REGISTRATION_SECONDS = 60.0
TRIAL = "zs-trial"  # name of what is made only to see whether it can be
TUNNEL = "zs-tunnel"  # no provider network's bridge is called so: those begin with br-
TUNNEL_ADDRESS = "169.254.0.1/32"  # of no meaning (RFC 3927, link-local); see tunnel()
OWN_MEMORY = 1024  # MiB that the daemons of the zone itself need
ALIVE = b"zonestack guest: first process"


class Failure(Exception):
    """The machine cannot be a hypervisor; the text says why, and what to do."""


@dataclass(frozen=True)
class Config:
    """The configuration file.

    ``address`` is the tunnels' own, on ``interface``, ``southbound`` are OVN's databases (``ssl:ADDRESS:PORT``), ``bridges``
    the provider networks with the interface that leads to each, ``memory`` the zone's limit in MiB, or null,
    ``availability_zone`` where it is, for Neutron's hints.
    """

    hostname: str
    address: str
    interface: str
    southbound: tuple[str, ...]
    bridges: dict[str, str]
    memory: int | None
    data: Path
    tls: dict[str, str]
    availability_zone: str | None = None


def load_config(path: Path) -> Config:
    """Read the configuration file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Config(**{**data, "southbound": tuple(data["southbound"]), "data": Path(data["data"])})
    except (OSError, ValueError, KeyError, TypeError) as bad:
        raise Failure(f"{path}: {bad}; it is written by zonestack, run scripts/run-playbooks.sh again") from None


def run(*argv: str, timeout: float = COMMAND_SECONDS) -> str:
    """Standard output of a command; its own words when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise Failure(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{argv[0]} {argv[1]} gives no answer within {timeout:g} s") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise Failure(words[-1] if words else f"{argv[0]} {argv[1]} ends with {done.returncode}")
    return done.stdout


def write(path: Path, text: str) -> None:
    """Replace a file; a reader sees the old or the new one, and a link in its place is not followed."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
    os.chmod(name, 0o644)
    os.replace(name, path)


def read_json(path: Path) -> dict[str, t.Any]:
    """A file that we wrote; nothing where there is none, or none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict):
            return data
    return {}


def note(what: str, chosen: str, why: str) -> None:
    """Keep a choice and its reason, for people and for the deployment's summary."""
    known = read_json(RESULT)
    result = {**known, what: chosen, "why": {**known.get("why", {}), what: why}}
    write(RESULT, json.dumps(result, indent=2, sort_keys=True) + "\n")
    print(f"{what}: {chosen} ({why})", flush=True)


# --- the switch --------------------------------------------------------------------------------------------------


def choose_datapath() -> tuple[str, str]:
    """``system``, the kernel's, where it can be made and can carry Geneve; ``netdev``, Open vSwitch's own, elsewhere.

    Asking for a datapath or a kind of interface makes the kernel load its module, from within a zone too.
    """
    with contextlib.suppress(Failure):
        run("ovs-dpctl", "del-dp", f"system@{TRIAL}")  # of a trial that was killed
    try:
        run("ovs-dpctl", "add-dp", f"system@{TRIAL}")
        run("ovs-dpctl", "del-dp", f"system@{TRIAL}")
    except Failure as why:
        return "netdev", f"the kernel makes no Open vSwitch datapath: {why}"
    with contextlib.suppress(Failure):
        run("ip", "link", "delete", TRIAL)
    try:
        run("ip", "link", "add", TRIAL, "type", "geneve", "external", "dstport", "1")
        run("ip", "link", "delete", TRIAL)
    except Failure as why:
        return "netdev", f"the kernel makes no Geneve device: {why}"
    return "system", "the kernel has Open vSwitch's datapath and Geneve"


def switch_commands(config: Config, datapath: str, there: t.Iterable[str]) -> list[list[str]]:
    """What brings Open vSwitch's database to the configuration, as commands of one ovs-vsctl(8).

    :param there: the bridges of provider networks that the database has already.
    """
    cms = []
    if config.bridges:
        cms.append("enable-chassis-as-gw")  # who has a way out can also be the way out of a router
    if config.availability_zone:
        cms.append(f"availability-zones={config.availability_zone}")
    ids = {
        "hostname": config.hostname,
        "ovn-encap-type": "geneve",
        "ovn-encap-ip": config.address,
        "ovn-remote": ",".join(config.southbound),
        "ovn-bridge-datapath-type": datapath,
        "ovn-bridge-mappings": ",".join(f"{name}:br-{name}" for name in sorted(config.bridges)),
        "ovn-cms-options": ",".join(cms),
    }
    here = ["Open_vSwitch", "."]
    commands = [["set-ssl", *(config.tls[part] for part in ("key", "certificate", "ca"))]]
    for name, value in ids.items():
        commands.append(
            ["set", *here, f"external_ids:{name}={json.dumps(value)}"]
            if value
            else ["remove", *here, "external_ids", name]
        )
    if datapath == "netdev":
        # Without it instances leave checksums to hardware that is not there: ping works, every TCP connection hangs.
        commands.append(["set", *here, "other_config:userspace-tso-enable=true"])
    else:
        commands.append(["remove", *here, "other_config", "userspace-tso-enable"])
    commands.append(["--if-exists", "del-br", TUNNEL])  # tunnel() makes it anew
    commands += [["del-br", bridge] for bridge in sorted(set(there) - {f"br-{name}" for name in config.bridges})]
    for name, interface in sorted(config.bridges.items()):
        bridge = f"br-{name}"
        commands += [
            ["--may-exist", "add-br", bridge],
            ["set", "Bridge", bridge, f"datapath_type={datapath}", "external_ids:zonestack=provider"],
            ["--may-exist", "add-port", bridge, interface],
        ]
    return commands


def switch(config: Config) -> None:
    """Choose the datapath and write the database; ovs-vswitchd comes next and finds all that it needs."""
    if not Path("/dev/net/tun").exists():
        raise Failure(
            "/dev/net/tun is missing, and instances have no network without it: load the module tun on the host"
        )
    datapath, why = choose_datapath()
    marked = run(
        "ovs-vsctl", "--no-wait", "--bare", "--columns=name", "find", "Bridge", "external_ids:zonestack=provider"
    )
    argv = ["ovs-vsctl", "--no-wait"]
    for command in switch_commands(config, datapath, marked.split()):
        argv += ["--", *command]
    run(*argv)
    note("datapath", datapath, why)


def tunnel_flows(address: str, mac: str) -> list[str]:
    """The flows of the tunnels' bridge (ovs-fields(7), ovs-actions(7)); its port 1 is the interface with ``address``.

    What arrives for the tunnels, and the answers of ARP that say where their other ends are, go to the bridge's own port, where
    Open vSwitch takes them. What it sends itself comes in at port 1 too, as the route leads there. All else is the kernel's.
    """
    return [
        f"in_port=1,udp,nw_dst={address},tp_dst=6081,actions=LOCAL",
        f"in_port=1,arp,arp_op=2,arp_tpa={address},actions=LOCAL",
        f"in_port=1,dl_src={mac},actions=IN_PORT",
    ]


def tunnel(config: Config) -> None:
    """Let Open vSwitch send and receive Geneve by itself at an interface that stays the kernel's.

    Its own datapath sends tunnels' packets only to ports of its bridges, and finds them by the kernel's routes. So the interface
    becomes a port of one: it has copies of all that arrives there, of which it takes what is the tunnels'; address, routes and
    all other traffic stay with the kernel. That answers the copies that it sees with "port unreachable", one a second, for
    which the other side has no use. The kernel's firewall does not see what Open vSwitch takes, and need not: a tunnel takes packets of
    its one other end, and OVN makes one for each hypervisor that is registered.

    Open vSwitch looks for tunnels in what leaves by a port with an address, any address; the bridge's own port is down, so nothing
    of that reaches the kernel a second time. The flows are there before the first packet is: an answer of ARP that was dropped
    once is not learned from when later ones meet the flow of the first.
    """
    if read_json(RESULT).get("datapath") != "netdev":
        return
    mac = (NETWORK / config.interface / "address").read_text(encoding="ascii").strip()
    vsctl = ("ovs-vsctl", f"--timeout={int(COMMAND_SECONDS)}")
    run(
        *vsctl,
        "--may-exist",
        "add-br",
        TUNNEL,
        "--",
        "set",
        "Bridge",
        TUNNEL,
        "datapath_type=netdev",
        "fail_mode=secure",
    )
    run("ip", "address", "replace", TUNNEL_ADDRESS, "dev", TUNNEL, "scope", "link")
    for flow in tunnel_flows(config.address, mac):
        run("ovs-ofctl", "add-flow", TUNNEL, flow)
    run(
        *vsctl,
        "--may-exist",
        "add-port",
        TUNNEL,
        config.interface,
        "--",
        "set",
        "Interface",
        config.interface,
        "ofport_request=1",
    )


def registered(config: Config) -> None:
    """Wait until OVN's southbound database has this chassis."""
    chassis = run("ovs-vsctl", "--timeout=10", "get", "Open_vSwitch", ".", "external_ids:system-id").strip().strip('"')
    argv = ["ovn-sbctl", "--no-leader-only", f"--db={','.join(config.southbound)}"]
    argv += ["-p", config.tls["key"], "-c", config.tls["certificate"], "-C", config.tls["ca"]]
    deadline = time.monotonic() + REGISTRATION_SECONDS
    while True:
        left = max(1, int(deadline - time.monotonic()))
        try:
            run(*argv, f"--timeout={left}", "wait-until", "Chassis_Private", chassis, timeout=left + 10)
            return
        except (
            Failure
        ):  # it waits for the record, but not for a database that does not answer yet, as after a loss of power
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


# --- the guest ---------------------------------------------------------------------------------------------------


def first_process() -> bytes:
    """A program for x86-64 that says that it runs and ends the guest: an ELF executable without any library.

    write(1, ALIVE); reboot(2)
    """
    text = ALIVE + b"\n"
    rest = b"".join(
        [
            b"\xba" + struct.pack("<I", len(text)),  # mov edx, length
            b"\xb8\x01\x00\x00\x00\x0f\x05",  # mov eax, SYS_write; syscall
            b"\xbf" + struct.pack("<I", 0xFEE1DEAD),  # mov edi, LINUX_REBOOT_MAGIC1
            b"\xbe" + struct.pack("<I", 0x28121969),  # mov esi, LINUX_REBOOT_MAGIC2
            b"\xba" + struct.pack("<I", 0x01234567),  # mov edx, LINUX_REBOOT_CMD_RESTART
            b"\xb8\xa9\x00\x00\x00\x0f\x05",  # mov eax, SYS_reboot; syscall
            b"\xeb\xfe",  # should that fail: stay here
        ]
    )
    # mov edi, 1 (standard output); lea rsi, [rip + the rest's length], where the text lies
    code = b"\xbf\x01\x00\x00\x00\x48\x8d\x35" + struct.pack("<i", len(rest)) + rest
    size = 64 + 56 + len(code) + len(text)
    base = 0x400000
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    return header + segment + code + text


def archive(files: t.Mapping[str, tuple[int, bytes]]) -> bytes:
    """An initramfs of files (name to mode and content) in the kernel's format, cpio "newc"."""
    out = b""
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4)
        out += content
        out += bytes(-len(out) % 4)
    return out


def boot(accelerator: str, limit: float = BOOT_SECONDS) -> tuple[bool, str]:
    """Whether Linux reaches its first process, and in what time or why not."""
    with tempfile.NamedTemporaryFile(prefix="zonestack-guest-") as initramfs:
        initramfs.write(archive({"init": (stat.S_IFREG | 0o755, first_process())}))
        initramfs.flush()
        os.chmod(initramfs.name, 0o644)
        argv = [
            QEMU,
            "-accel",
            accelerator,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-m",
            "256",
        ]
        argv += ["-cpu", "host" if accelerator == "kvm" else "max", "-kernel", str(KERNEL), "-initrd", initramfs.name]
        argv += ["-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio"]
        begun = time.monotonic()
        try:
            guest = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
                user=QEMU_USER, group=KVM_GROUP, extra_groups=[],
            )  # fmt: skip
        except OSError as why:
            return False, str(why)
        with guest, contextlib.ExitStack() as ended:
            ended.callback(guest.kill)
            return watch(guest, begun, limit)


def watch(guest: subprocess.Popen[bytes], begun: float, limit: float) -> tuple[bool, str]:
    """Follow what the guest and QEMU say until it is clear how the trial ends."""
    assert guest.stdout is not None
    said = b""
    while True:
        left = begun + limit - time.monotonic()
        if left <= 0 or not select.select([guest.stdout], [], [], left)[0]:
            return False, f"it did not reach its first process within {limit:g} s"
        more = os.read(guest.stdout.fileno(), 65536)
        said += more
        seconds = time.monotonic() - begun
        if ALIVE in said:
            return True, f"in {seconds:.1f} s"
        if b"KVM internal error" in said:  # QEMU then waits, for a debugger
            return False, "QEMU reports a KVM internal error"
        if not more:
            lines = said.decode(errors="replace").strip().splitlines()
            return False, lines[-1] if lines else f"QEMU ended with {guest.wait()}"


def own_kvm() -> None:
    """Give the zone a node of its own for the host's KVM: the host's belongs to a group with another number here."""
    wanted = (0, grp.getgrnam(KVM_GROUP).gr_gid, 0o660)
    info = os.stat(KVM)
    if (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == wanted:
        return
    if any(line.split()[4] == str(KVM) for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        run("umount", str(KVM))
    KVM.unlink(missing_ok=True)
    os.mknod(KVM, stat.S_IFCHR, info.st_rdev)
    os.chown(KVM, *wanted[:2])
    os.chmod(KVM, wanted[2])


def circumstances() -> dict[str, str]:
    """What the outcome of the trial depends on."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    return {
        "kernel": platform.release(),
        "qemu": run(QEMU, "--version").splitlines()[0],
        "processor": model[1] if model else "unknown",
    }


def choose_virt_type(cache: Path) -> tuple[str, str]:
    """``kvm`` where a guest boots with it, otherwise ``qemu``. The trial is made once for each kernel, QEMU and processor."""
    if not KVM.exists():
        return (
            "qemu",
            f"the host has no {KVM}: no processor support, switched off in its firmware, or a module not loaded",
        )
    own_kvm()
    now, known = circumstances(), read_json(cache)
    if known.get("circumstances") != now or not {"booted", "detail"} <= known.keys():
        booted, detail = boot("kvm")
        known = {"circumstances": now, "booted": booted, "detail": detail}
        write(cache, json.dumps(known, indent=2, sort_keys=True) + "\n")
    if known["booted"]:
        return "kvm", f"a guest booted with KVM {known['detail']}"
    return "qemu", f"the host has {KVM}, but no guest boots with it: {known['detail']}"


def reserved_memory(total: int, limit: int | None) -> int:
    """MiB that Nova must not give away: it sees the memory of the whole machine, and not the zone's limit."""
    return OWN_MEMORY + (max(0, total - limit) if limit is not None else 0)


def machine_memory(nodes: Path = NODES) -> int:
    """MiB that libvirt, and so Nova, takes for the machine's: the sum of its NUMA nodes.

    On a virtual machine whose memory comes in pieces (balloon, hot plug) the nodes may have much less than /proc/meminfo
    says. Reserving more than libvirt's total would have Placement refuse the hypervisor's whole inventory.
    """
    found = [
        re.search(r"MemTotal:\s+(\d+) kB", path.read_text(encoding="ascii")) for path in nodes.glob("node*/meminfo")
    ]
    if sizes := [int(size[1]) for size in found if size]:
        return sum(sizes) // 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def options(virt_type: str, reserved: int) -> str:
    """What Nova reads, as oslo.config has it."""
    if virt_type == "kvm":
        processor = "cpu_mode = host-model\n"
    else:
        # An emulated processor may be any: the least that today's distributions run on (x86-64-v2). The machine's own does
        # not matter, so it must not be compared.
        processor = "cpu_mode = custom\ncpu_models = Nehalem\n\n[workarounds]\nskip_cpu_compare_at_startup = true\n"
    return (
        "# Written by zonestack-hypervisor at each start of the zone.\n"
        f"[DEFAULT]\nreserved_host_memory_mb = {reserved}\n\n[libvirt]\nvirt_type = {virt_type}\n{processor}"
    )


def guest(config: Config) -> None:
    """Choose how instances run, and tell Nova."""
    virt_type, why = choose_virt_type(config.data / "zonestack-hypervisor.json")
    write(OPTIONS, options(virt_type, reserved_memory(machine_memory(), config.memory)))
    note("virt_type", virt_type, why)


def status(as_json: bool) -> int:
    """Print the choices; 1 when they are not made yet."""
    result = read_json(RESULT)
    if as_json:
        print(json.dumps(result))
    else:
        for what in ("datapath", "virt_type"):
            print(
                f"{what}: {result.get(what, 'not chosen yet')}"
                + (f"\n  {result['why'][what]}" if what in result else "")
            )
    return 0 if {"datapath", "virt_type"} <= result.keys() else 1


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("switch")
    verbs.add_parser("tunnel")
    verbs.add_parser("guest")
    verbs.add_parser("registered")
    verbs.add_parser("status").add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    if arguments.verb == "status":
        return status(arguments.json)
    try:
        {"switch": switch, "tunnel": tunnel, "guest": guest, "registered": registered}[arguments.verb](
            load_config(CONFIG)
        )
    except Failure as why:
        print(f"zonestack-hypervisor: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
