# SPDX-License-Identifier: GPL-3.0-or-later
"""Can this machine be an all-in-one host? Print one line per problem, each with its fix, and the network to use.

Runs before anything is installed, so it needs nothing but Python's standard library, and it changes nothing: what must be
tried for real (an overlay mount, a bridge, NAT) is tried in namespaces that end with the trial. A check whose tool is not
installed yet is left out; bootstrap-aio.sh runs the preflight again after it has installed the tools.

Exit code 0: standard output is one line of JSON, ``{"network": "10.77.0.0/21", "store": "overlay"}``. Exit code 1: the
problems stand on standard error. Warnings do not fail.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MEMORY_MIB = 8 * 1024
"""What the whole cloud needs: 30 zones with 6.6 GiB in all, and a small instance."""
DISK_MIB = 16 * 1024
"""Images, caches, zones and their data take 7 GiB; the rest is for instances, logs, and room to upgrade once."""
DISK_MIB_DEPLOYED = 2 * 1024
"""What a machine must have left that is deployed already."""
SLACK = 0.93
"""A machine sold with 8 GiB shows some hundred MiB less: firmware and the kernel keep them."""

LXC = Path("/var/lib/lxc")
FIRST_ID, IDS = 100000, 65536
"""The user ids of unprivileged zones on their host (root of a zone is user 100000)."""

CANDIDATES = ("10.77.0.0/21", "10.177.0.0/21", "10.213.8.0/21", "172.29.8.0/21", "172.22.72.0/21", "192.168.200.0/21")
"""Networks tried in turn for the zones: 2,046 addresses each, off the beaten ranges, one of each private block at least."""

CAPABILITIES = {
    0: "chown", 1: "dac_override", 3: "fowner", 5: "kill", 6: "setgid", 7: "setuid", 8: "setpcap", 12: "net_admin",
    13: "net_raw", 18: "sys_chroot", 21: "sys_admin", 27: "mknod", 31: "setfcap",
}  # fmt: skip
"""What starting a container takes, by bit number (linux/capability.h)."""

Network = ipaddress.IPv4Network


@dataclass
class Report:
    """What was found: ``problems`` are fatal, ``warnings`` are not. Each is (what is wrong, what to do)."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    def problem(self, what: str, fix: str) -> None:
        self.problems.append((what, fix))

    def warn(self, what: str, fix: str) -> None:
        self.warnings.append((what, fix))

    def lines(self) -> Iterator[str]:
        for kind, entries in (("problem", self.problems), ("warning", self.warnings)):
            for what, fix in entries:
                yield f"{kind}: {what}. Fix: {fix}."


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


def read(path: str) -> str:
    """A file's text, empty where there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def check_machine(report: Report, deployed: bool) -> None:
    """Memory, disk, capabilities, user ids and control groups."""
    memory = memory_mib(
        read("/proc/meminfo"),
        [read("/sys/fs/cgroup/memory.max"), read("/sys/fs/cgroup/memory/memory.limit_in_bytes")],
    )
    if memory < MEMORY_MIB * SLACK:
        report.problem(
            f"memory: {memory} MiB, and an all-in-one needs {MEMORY_MIB} MiB", "give the machine more memory"
        )
    parent = existing_parent(LXC)
    free = shutil.disk_usage(parent).free // 2**20
    need = DISK_MIB_DEPLOYED if deployed else DISK_MIB
    if free < need:
        report.problem(
            f"disk: {free} MiB are free below {LXC}, and {need} MiB are needed",
            f"free some, or mount a larger disk at {LXC}",
        )
    if missing := missing_capabilities(read("/proc/self/status")):
        report.problem(
            f"privileges: this root may not do everything, it lacks {', '.join(missing)}",
            "run on a machine of your own, or give the surrounding container all capabilities (lxc.cap.drop empty, "
            "docker --privileged)",
        )
    for kind in ("uid_map", "gid_map"):
        if not maps_ids(read(f"/proc/self/{kind}")):
            report.problem(
                f"user ids: {FIRST_ID} to {FIRST_ID + IDS - 1}, which the zones use, do not exist here (/proc/self/{kind})",
                "run in the machine's own user namespace, or map at least 165536 ids into the surrounding container",
            )
            break
    if not cgroups_writable():
        report.problem(
            "control groups: none can be made below /sys/fs/cgroup",
            "mount them writable (in a container: lxc.mount.auto = cgroup:rw:force, docker --privileged)",
        )


def cgroups_writable(base: Path = Path("/sys/fs/cgroup")) -> bool:
    """Make a control group and take it away again: in the one tree of version 2, else in version 1's memory tree."""
    parent = base if (base / "cgroup.controllers").exists() else base / "memory"
    trial = parent / f"zonestack-preflight-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True


# Kernel features, by trial -----------------------------------------------------------------------------------------------


def tried(*argv: str) -> str | None:
    """Run a trial for at most 20 s; None when it went well, else its last line of output."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as why:
        return str(why)
    if done.returncode == 0:
        return None
    return ((done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def overlay_error(parent: Path) -> str | None:
    """Why an unprivileged zone's overlay cannot be mounted below ``parent``; None when it can.

    Mounted as LXC does it: in a user namespace, with the overlay's marks in ``user.*`` attributes. An upper layer that
    lies on another overlay, on NFS or on a file system without such attributes fails here.
    """
    folder = tempfile.mkdtemp(prefix=".zonestack-preflight-", dir=parent)
    try:
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        options = f"userxattr,lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        mount = f"mount -t overlay overlay -o {options} {folder}/merged && touch {folder}/merged/file"
        return tried("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


NETWORK_TRIALS = {
    "bridges": "ip link add zsp-bridge type bridge",
    "veth pairs": "ip link add zsp-a type veth peer name zsp-b",
    "NAT with nftables": (
        "nft -f - <<< 'table ip zsp { chain out { type nat hook postrouting priority srcnat; "
        "ip saddr 192.0.2.0/24 masquerade; }; }'"
    ),
}


def check_kernel(report: Report) -> str:
    """Try what zones need of the kernel. Returns the store to use: ``overlay``, or ``dir`` where overlays do not work."""
    if why := tried("unshare", "--user", "--map-root-user", "true"):
        report.problem(
            f"kernel: no user namespaces ({why})",
            "sysctl user.max_user_namespaces=100000, and kernel.unprivileged_userns_clone=1 where it exists",
        )
    for feature, command in NETWORK_TRIALS.items():
        if not shutil.which(command.split()[0]):
            continue
        if why := tried("unshare", "--net", "bash", "-c", command):
            report.problem(
                f"kernel: no {feature} ({why})",
                "boot Debian's own kernel; in a container, load the module (bridge, veth, nft_masq) on the outer host",
            )
    try:
        why = overlay_error(existing_parent(LXC))
    except OSError as unwritable:
        why = str(unwritable)
    if why is None:
        return "overlay"
    report.warn(
        f"kernel: no overlay can be mounted below {LXC} ({why}), so zones become full copies of their images (store: dir)",
        f"for faster and smaller zones, make {LXC} a bind mount of a folder on ext4, XFS or btrfs",
    )
    return "dir"


# The zones' network ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """A network that something here uses already, and what that is, in words."""

    network: Network
    what: str


def as_network(text: str) -> Network | None:
    """An IPv4 network or address in its usual notation; None for a name, IPv6 or nonsense."""
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return None


def route_uses(routes: list[dict[str, object]], own: str) -> Iterator[Use]:
    """Networks with a route of their own (``ip -j route show table all``), except those of the bridge ``own``."""
    for route in routes:
        network = as_network(str(route.get("dst")))
        if network is None or network.prefixlen == 0 or is_own(route.get("dev"), own) or network.is_loopback:
            continue
        if route.get("type") in ("broadcast", "local", "multicast"):
            continue  # these repeat an address, which address_uses() names better
        via = f"device {route['dev']}" if "dev" in route else "no device"
        yield Use(network, f"the route to {network} ({via})")


def address_uses(links: list[dict[str, object]], own: str) -> Iterator[Use]:
    """Networks of this machine's addresses (``ip -j address``), except those of the bridge ``own``."""
    for link in links:
        infos = link.get("addr_info")
        if is_own(link.get("ifname"), own) or not isinstance(infos, list):
            continue
        for info in infos:
            network = as_network(f"{info.get('local')}/{info.get('prefixlen')}")
            if network and not network.is_loopback:
                yield Use(network, f"address {info['local']}/{info['prefixlen']} of {link['ifname']}")


def resolver_uses(files: Mapping[str, str]) -> Iterator[Use]:
    """Addresses of the name servers in resolv.conf files. A zone network over one of them silences DNS."""
    for name, text in files.items():
        for found in re.finditer(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE):
            network = as_network(found[1])
            if network and not network.is_loopback:
                yield Use(network, f"name server {found[1]} in {name}")


def proxy_uses(environment: Mapping[str, str]) -> Iterator[Use]:
    """Addresses of the proxies named in the environment; a host name is looked up."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        value = environment.get(name)
        if not value:
            continue
        host = urllib.parse.urlsplit(value if "//" in value else f"//{value}").hostname or ""
        network = as_network(host)
        if network is None:
            try:
                network = as_network(socket.gethostbyname(host))
            except OSError:
                continue
        if network and not network.is_loopback:
            yield Use(network, f"proxy {host} in ${name}")


def uses_here(own: str) -> list[Use]:
    """All that this machine uses, the most telling first. ``own`` is the bridge of the deployment itself."""

    def ip(*arguments: str) -> list[dict[str, object]]:
        if not shutil.which("ip"):
            return []
        done = subprocess.run(["ip", "-4", "-j", *arguments], capture_output=True, text=True, timeout=20, check=False)
        found: list[dict[str, object]] = json.loads(done.stdout or "[]")
        return found

    resolvers = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
    return [
        *resolver_uses({name: read(name) for name in resolvers}),
        *proxy_uses(os.environ),
        *address_uses(ip("address"), own),
        *route_uses(ip("route", "show", "table", "all"), own),
    ]


def is_own(device: object, bridge: str) -> bool:
    """Whether a device is the deployment's own: its bridge, or that of a further network (``zs-aio-public``)."""
    return device == bridge or str(device).startswith(f"{bridge}-")


def provider_network(zones: str) -> str:
    """Where instances are reached, beside the zones' network: the /24 behind it, or before it at the end of a block."""
    network = ipaddress.IPv4Network(zones)
    behind = ipaddress.IPv4Network((int(network.broadcast_address) + 1, 24))
    return str(behind if behind.is_private else ipaddress.IPv4Network((int(network.network_address) - 256, 24)))


def choose_network(given: str | None, uses: Iterable[Use], report: Report) -> str | None:
    """The network ``given`` when nothing uses it, or the first free candidate; None (and a problem) when there is none.

    It is free when the provider network beside it is free as well.
    """
    uses = list(uses)

    def taken_by(candidate: str) -> str | None:
        pair = [Network(candidate), Network(provider_network(candidate))]
        return next((use.what for use in uses if any(use.network.overlaps(one) for one in pair)), None)

    overlaps = {candidate: taken_by(candidate) for candidate in ([given] if given else CANDIDATES)}
    for candidate, what in overlaps.items():
        if what is None:
            return candidate
    taken = "; ".join(f"{candidate} (or {provider_network(candidate)} beside it) overlaps {what}" for candidate, what in overlaps.items())
    report.problem(f"network: {taken}", "give a free one with --network, for example --network 10.99.0.0/21")
    return None


def given_network(text: str) -> str:
    """Read ``--network``: a private IPv4 network of /16 to /22, written with its first address."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as why:
        raise argparse.ArgumentTypeError(f"{why}; right would be 10.77.0.0/21") from None
    if not 16 <= network.prefixlen <= 22:
        raise argparse.ArgumentTypeError(
            f"/{network.prefixlen} does not suit: a host's zones take 512 addresses, so /21 is usual and /16 to /22 work"
        )
    if not network.is_private:
        raise argparse.ArgumentTypeError(f"{text} is not private (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16)")
    return str(network)


def written_network(topology: str) -> tuple[str | None, str]:
    """The zone network and the bridge that an existing topology.yml names, read without a YAML library.

    Good enough to leave the deployment's own bridge out of the search; the inventory plugin judges the file properly.
    """
    cidr = re.search(r"\bzone:.*?\bcidr:\s*[\"']?([\d./]+)", topology, re.DOTALL)
    bridge = re.search(r"\bzone:.*?\bbridge:\s*[\"']?([\w.-]+)", topology, re.DOTALL)
    return (cidr[1] if cidr else None), (bridge[1] if bridge else "zs-aio")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--network", type=given_network, help="use this network for the zones (default: the first free one)"
    )
    parser.add_argument(
        "--topology", type=Path, help="the deployment's topology.yml; where it exists, its network is kept"
    )
    options = parser.parse_args(arguments)

    report = Report()
    topology = read(str(options.topology)) if options.topology else ""
    check_machine(report, deployed=bool(topology))
    store = check_kernel(report)
    kept, bridge = written_network(topology)
    if kept and options.network and kept != options.network:
        report.problem(
            f"network: --network {options.network}, but {options.topology} has {kept}",
            "leave --network out; or scripts/destroy.sh --all, remove that file, and begin again",
        )
    network = choose_network(kept or options.network, uses_here(bridge), report)
    for line in report.lines():
        print(line, file=sys.stderr)
    if report.problems:
        return 1
    print(json.dumps({"network": network, "store": store}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
