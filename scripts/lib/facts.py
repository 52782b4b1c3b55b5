# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine says of itself: the program that preflight.sh runs on every host, and bootstrap-aio.sh on the one it is on.

It only tells; what that means for a deployment is judged where the topology is, in checks/. Standard library alone,
because it is sent over standard input, after probes.py, to whatever Python a host has. It installs, writes and leaves nothing: what must
be tried for real is tried by probes.py. What a tool tells that is not installed is None.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

from probes import FIRST_ID, IDS, foreign_drops, settings, trials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

LXC = Path("/var/lib/lxc")
LIMIT = 60
"""Seconds after which the program gives up, whatever it waits for."""
CAPABILITIES = {
    0: "chown", 1: "dac_override", 3: "fowner", 5: "kill", 6: "setgid", 7: "setuid", 8: "setpcap", 12: "net_admin",
    13: "net_raw", 18: "sys_chroot", 21: "sys_admin", 27: "mknod", 31: "setfcap",
}  # fmt: skip
"""What starting a container takes, by bit number (linux/capability.h)."""


def read(path: str | Path) -> str:
    """A file's text, empty where there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def output(*argv: str) -> str | None:
    """What a command prints; None where it is not installed, fails, or takes longer than 20 s."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=20, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


# Memory, disk, privileges ------------------------------------------------------------------------------------------------


def memory_mib(meminfo: str, limits: Iterable[str]) -> int:
    """The memory this machine may use: the kernel's figure (kB in /proc/meminfo), or a cgroup's limit (bytes) below it."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    total = int(found[1]) // 1024 if found else 0
    return min([total, *(int(limit) // 2**20 for limit in limits if limit.strip().isdigit())])


def missing_capabilities(status: str) -> list[str]:
    """Names of the capabilities absent from the bounding set in ``/proc/self/status``."""
    found = re.search(r"^CapBnd:\s+([0-9a-f]+)", status, re.MULTILINE)
    have = int(found[1], 16) if found else 0
    return [f"CAP_{name.upper()}" for bit, name in CAPABILITIES.items() if not have >> bit & 1]


def maps_ids(uid_map: str, first: int = FIRST_ID, count: int = IDS) -> bool:
    """Whether the ids of unprivileged zones exist here: one line of ``/proc/self/uid_map`` must cover them all."""
    rows = [[int(number) for number in line.split()] for line in uid_map.splitlines()]
    return any(inside <= first and inside + length >= first + count for inside, _outside, length in rows)


def existing_parent(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return path if path.exists() else existing_parent(path.parent)


def openvswitch() -> bool:
    """Whether the kernel has Open vSwitch's datapath, or a module of it that it could load."""
    return (
        Path("/sys/module/openvswitch").exists()
        or output("modprobe", "--dry-run", "--quiet", "openvswitch") is not None
    )


# The network -------------------------------------------------------------------------------------------------------------


def ip(*arguments: str) -> list[dict[str, Any]]:
    """What ip(8) tells; nothing where it is not installed."""
    found: list[dict[str, Any]] = json.loads(output("ip", "-json", *arguments) or "[]")
    return found


def proxies(environment: Mapping[str, str]) -> list[list[str]]:
    """The proxies of an environment: name of the variable, host, address. A password in one is not told."""
    hosts = {}
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        value = environment.get(name)
        if value and (host := urllib.parse.urlsplit(value if "//" in value else f"//{value}").hostname):
            hosts[name] = host
    known = resolve(set(hosts.values()))
    return [
        [name, host, address]
        for name, host in hosts.items()
        for address in known[host][:1]
        if isinstance(known[host], list)
    ]


def package_hosts(folder: Path = Path("/etc/apt")) -> list[str]:
    """The hosts that Debian's packages come from, as apt's sources name them."""
    files = [
        folder / "sources.list",
        *sorted((folder / "sources.list.d").glob("*.list")),
        *sorted((folder / "sources.list.d").glob("*.sources")),
    ]
    lines = [line for file in files for line in read(file).splitlines() if not line.lstrip().startswith("#")]
    return sorted({found[1] for line in lines for found in re.finditer(r"\bhttps?://(?:[^/\s@]*@)?([\w.-]+)", line)})


def resolve(names: Iterable[str], seconds: float = 5.0) -> dict[str, list[str] | str]:
    """IPv4 addresses of names, all looked up at once; of one that has none, why."""
    names = list(names)
    found: dict[str, list[str] | str] = {}

    def ask(name: str) -> None:
        try:
            found[name] = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)})
        except (OSError, UnicodeError) as why:
            found[name] = str(getattr(why, "strerror", None) or why)

    together(ask, names)(seconds)
    return {name: found.get(name, f"no answer within {seconds:g} s") for name in names}


def together(work: Callable[[Any], None], items: Iterable[Any]) -> Callable[[float], None]:
    """Begin ``work`` on all items at once. Call what is returned to wait until all is done, or so many seconds are up."""
    threads = [threading.Thread(target=work, args=(item,), daemon=True) for item in items]
    for thread in threads:
        thread.start()

    def wait(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    return wait


def listening(lines: str) -> Iterator[dict[str, Any]]:
    """Who listens where, from ``ss -Hlntup`` (ss(8)): protocol, address (``*`` is any), port, program."""
    for line in lines.splitlines():
        fields = line.split()
        if len(fields) < 5:
            continue
        address, _colon, port = fields[4].rpartition(":")
        address = address.split("%")[0].strip("[]").replace("::ffff:", "")
        program = re.search(r'users:\(\("([^"]*)"', line)
        yield {
            "protocol": fields[0],
            "address": "*" if address in ("0.0.0.0", "::", "*") else address,
            "port": int(port),
            "program": program[1] if program else "a program",
        }


IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3
"""ip(7): never cut a packet to pieces, whatever is known of the way. Python has no names for them, nor for the next two."""
SOL_RAW, ICMP_FILTER = 255, 1
"""raw(7): which types of ICMP messages do not come in, a bit each."""
SO_RCVBUFFORCE = 33
"""socket(7): room for what comes in, beyond what others than root may have. A thousand answers of 1,500 bytes come at once."""
ICMP_REPLY, ICMP_UNREACHABLE, ICMP_TOO_LARGE = 0, 3, 4
"""Two types, and the code of the second that says that a packet is larger than the next wire takes (RFC 792, RFC 1191)."""


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(targets: list[dict[str, Any]], rounds: int = 3, seconds: float = 0.7) -> list[dict[str, Any]]:
    """Send each target a small packet and one as large as ``mtu`` claims, never to be cut, as ``ping -M do -s`` does (ping(8)).

    One socket for all of them: a hundred hosts cost no more time than one.

    :param targets: ``address`` and ``mtu``, the size of the large packet in bytes with its headers.
    :returns: the targets that did not answer both, each with ``small`` and ``large`` (whether that was answered) and ``why`` not.
    """
    found = [{**target, "small": False, "large": False, "why": None} for target in targets]
    if not found:
        return found
    identifier = secrets.randbits(16)
    try:
        icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except OSError as why:
        return [{**one, "why": str(why.strerror)} for one in found]
    with icmp:
        icmp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        icmp.setsockopt(
            SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << ICMP_REPLY | 1 << ICMP_UNREACHABLE))
        )
        icmp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 2**24)
        for _round in range(rounds):
            for index, one in enumerate(found):
                for large in (False, True):
                    if one["large" if large else "small"]:
                        continue
                    # 20 bytes are IP's, 8 those of ICMP
                    body = bytes(one["mtu"] - 28 if large else 56)
                    header = struct.pack("!BBHHH", 8, 0, 0, identifier, index * 2 + large)
                    header = struct.pack("!BBHHH", 8, 0, checksum(header + body), identifier, index * 2 + large)
                    try:
                        icmp.sendto(header + body, (one["address"], 0))
                    except OSError as why:
                        one["why"] = str(why.strerror)
            deadline = time.monotonic() + seconds
            while not all(one["small"] and one["large"] for one in found) and (left := deadline - time.monotonic()) > 0:
                icmp.settimeout(left)
                try:
                    packet, sender = icmp.recvfrom(65535)
                except OSError:
                    break
                hear(found, packet[(packet[0] & 15) * 4 :], sender[0], identifier)
    return [one for one in found if not (one["small"] and one["large"])]


def hear(found: list[dict[str, Any]], message: bytes, sender: str, identifier: int) -> None:
    """Note what one ICMP message says of the packets that were sent."""
    kind, code = message[0], message[1]
    about = message
    if kind == ICMP_UNREACHABLE and len(message) >= 36:
        about = message[8 + (message[8] & 15) * 4 :]  # it carries the beginning of the packet that it is about
    elif kind != ICMP_REPLY:
        return
    mine, number = struct.unpack("!HH", about[4:8])
    if mine != identifier or number // 2 >= len(found):
        return
    one = found[number // 2]
    if kind == ICMP_REPLY:
        one["large" if number % 2 else "small"] = True
    elif code == ICMP_TOO_LARGE:
        one["why"] = f"{sender} reports that its next link carries at most {struct.unpack('!H', message[6:8])[0]} bytes"
    else:
        one["why"] = f"{sender} reports that the address cannot be reached"


ETH_P_ARP = 0x0806


def who_has(device: str, addresses: Iterable[str], rounds: int = 3, seconds: float = 0.3) -> dict[str, str]:
    """The MAC address of whoever has an address, for those that somebody has, on the wire behind ``device``.

    Asked with ARP probes (RFC 5227): they name no sender, so nobody's neighbour table changes. A machine does not answer itself.
    """
    left, found = {socket.inet_aton(address): address for address in addresses}, {}
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ARP)) as wire:
        wire.bind((device, ETH_P_ARP))
        mac = wire.getsockname()[4]
        for _round in range(rounds):
            for address in left:
                question = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, bytes(4), bytes(6), address)
                wire.sendto(question, (device, ETH_P_ARP, 0, 0, b"\xff" * 6))
            deadline = time.monotonic() + seconds
            while left and (more := deadline - time.monotonic()) > 0:
                wire.settimeout(more)
                try:
                    answer = wire.recv(128)
                except OSError:
                    break
                sender, address = struct.unpack("!6s4s", answer[8:18])
                if sender != mac and address in left:
                    found[left.pop(address)] = ":".join(f"{byte:02x}" for byte in sender)
    return found


def answers(probes: list[dict[str, Any]]) -> dict[str, str]:
    """Who has which of the addresses in ``probes`` (each ``device`` and ``addresses``), asked on all devices at once."""
    found: dict[str, str] = {}

    def ask(probe: dict[str, Any]) -> None:
        try:
            found.update(who_has(probe["device"], probe["addresses"]))
        except OSError:
            return  # no such device, or it is down: then nobody is behind it

    together(ask, probes)(5)
    return found


# All together ------------------------------------------------------------------------------------------------------------


def synchronised() -> bool | None:
    """Whether something keeps the clock right, as adjtimex(2) tells."""
    try:
        import ctypes

        # struct timex is smaller; zeroes in it mean that nothing is to be set
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (ImportError, OSError, AttributeError):
        return None
    time_error = 5
    return None if state < 0 else bool(state != time_error)


def zones(folder: Path) -> dict[str, str]:
    """UUIDs of the zones that are here, by name."""
    found = {}
    for path in folder.glob("*/zone.json"):
        try:
            found[path.parent.name] = str(json.loads(path.read_text())["uuid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def network_namespace() -> str:
    """What tells this machine from all others: the run of its kernel, and its network there. Containers share the first."""
    return read("/proc/sys/kernel/random/boot_id").strip() + " " + os.readlink("/proc/self/ns/net")


def system() -> dict[str, str]:
    """os-release(5), as far as it matters."""
    rows = (line.partition("=") for line in read("/etc/os-release").splitlines())
    values = {key: value.strip("\"'") for key, _equals, value in rows}
    return {
        "id": values.get("ID", ""),
        "version": values.get("VERSION_ID", ""),
        "name": values.get("PRETTY_NAME", "an unknown system"),
    }


def own_facts(parent: Path, hostname: str, request: dict[str, Any]) -> dict[str, Any]:
    """What the machine knows without asking another one.

    :param parent: the folder that is, or will hold, that of the zones.
    :param request: ``devices`` and ``settings`` as :func:`gather` takes them.
    """
    disk = shutil.disk_usage(parent)
    return {
        "system": system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "lxc": (output("lxc-info", "--version") or "").strip() or None,
        "cpus": len(os.sched_getaffinity(0)),
        "memory": memory_mib(
            read("/proc/meminfo"),
            [read("/sys/fs/cgroup/memory.max"), read("/sys/fs/cgroup/memory/memory.limit_in_bytes")],
        ),
        "disk": {
            "free": disk.free // 2**20,
            "total": disk.total // 2**20,
            "type": (output("stat", "-f", "-c", "%T", str(parent)) or "").strip(),
        },
        "zones": zones(LXC),
        "missing_capabilities": missing_capabilities(read("/proc/self/status")),
        "unmapped_ids": [kind for kind in ("uid_map", "gid_map") if not maps_ids(read(f"/proc/self/{kind}"))],
        "openvswitch": openvswitch(),
        "devices": {path: os.path.exists(path) for path in request.get("devices", [])},
        "hostname": hostname,
        "machine": network_namespace(),
        "machine_id": read("/etc/machine-id").strip(),
        "synchronised": synchronised(),
        "links": ip("-details", "address", "show"),
        "routes": ip("-4", "route", "show", "table", "all"),
        "resolvers": {path: read(path) for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")},
        "proxies": proxies(os.environ),
        "listening": list(listening(output("ss", "-Hlntup") or "")),
        "package_hosts": package_hosts(),
        "settings": settings(request.get("settings", [])),
        "drops": foreign_drops(json.loads(output("nft", "--json", "list", "ruleset") or "{}").get("nftables", [])),
    }


def gather(request: dict[str, Any]) -> dict[str, Any]:
    """Everything that checks/ asks for.

    :param request: ``names`` to be resolved, ``pings`` as :func:`ping` takes them, ``probes`` as :func:`answers` does, ``devices`` that
        may be there or not, ``settings`` of the kernel by name. All may be left out.
    """
    parent, hostname = existing_parent(LXC), socket.gethostname()
    found = own_facts(parent, hostname, request)
    # A bridge takes the answers that come in at its ports.
    masters = {link["ifname"]: link.get("master") for link in found["links"]}
    probes = [
        {**probe, "device": masters.get(probe["device"]) or probe["device"]} for probe in request.get("probes", [])
    ]
    # What waits for others does so all at once, and while the trials are made; these in the thread that cleans up after itself.
    waits: dict[str, Callable[[], Any]] = {
        "names": lambda: resolve({hostname, *request.get("names", []), *found["package_hosts"]}),
        "pings": lambda: ping(request.get("pings", [])),
        "answers": lambda: answers(probes),
    }

    def note(name: str) -> None:
        try:
            found[name] = waits[name]()
        except Exception as why:  # noqa: BLE001  # told by the main thread
            failed.append(why)

    failed: list[Exception] = []
    wait = together(note, waits)
    found["trials"] = trials(parent)
    wait(LIMIT)
    if failed:
        raise failed[0]
    if late := waits.keys() - found.keys():
        raise TimeoutError(
            f"{', '.join(sorted(late))}: did not finish within {LIMIT} s"
        )  # nothing is taken for right that was not looked at
    return found


def main() -> None:
    """Answer the request on standard input: first the time, at once, then the facts; a line of JSON each."""

    def give_up(number: int, _frame: object) -> None:
        sys.exit(f"stopped by signal {number}")  # by an exception, so that what was tried is taken away

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, give_up)
    signal.alarm(LIMIT)
    print(json.dumps({"now": time.time()}), flush=True)
    print(json.dumps(gather(json.loads(sys.stdin.read()))), flush=True)
