# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run needs of a machine, tried by doing it and taking it back.

A probe says what it is called, what needs it, and the line that mends it; trying it gives None, or why it does not work. What leaves a
trace is tried in namespaces that end with the trial. The few traces outside of them (a folder, a control group) bear the name and the
number of the process that makes them; the next trial removes those whose process has gone.

Standard library alone: facts.py sends this file before itself to whatever Python a host has.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

FIRST_ID, IDS = 100000, 65536
"""The user ids of unprivileged zones on their host (root of a zone is user 100000)."""
LIMIT = 20
"""Seconds after which a trial counts as failed. Each takes milliseconds."""
MARK = "zonestack-preflight-"
"""What the names of all traces begin with; the process's number follows."""
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "cpu")
"""The control group controllers by which a zone's memory and processors are limited."""
SYSCTL = Path("/proc/sys")

BOOT = "boot Debian's own kernel; in a container, load the module ({}) on the outer host"
OUTER = "in a container: add `{}` to its LXC configuration, or docker --privileged; otherwise use a machine of your own"
PROC = "lxc.include = /usr/share/lxc/config/nesting.conf"


@dataclass(frozen=True)
class Probe:
    """One thing that a run does on a machine.

    :param name: what is tried, in a few words.
    :param purpose: what needs it.
    :param fix: the line that mends it.
    :param tool: the program without which it cannot be tried; then it is left out.
    :param hypervisor: whether only hosts with hypervisors need it.
    """

    name: str
    purpose: str
    fix: str
    tool: str = "unshare"
    hypervisor: bool = False


PROBES = (
    Probe(
        "user namespaces",
        "root of a zone is not root of its host",
        f"sysctl user.max_user_namespaces=100000, and kernel.unprivileged_userns_clone=1 where it exists; for the ids {FIRST_ID} to "
        f"{FIRST_ID + IDS - 1} in a container map at least 165536 ids into it",
    ),
    Probe("namespaces", "a zone has its own network and processes", OUTER.format("lxc.cap.drop =")),
    Probe("/proc and /sys in a zone", "a zone has its own", OUTER.format(PROC)),
    Probe("tmpfs in a zone", "a zone has its own /run", OUTER.format(PROC)),
    Probe("terminals in a zone", "a zone has its own /dev/pts", OUTER.format(PROC)),
    Probe("bind mounts", "volumes and package caches are mounted into zones", OUTER.format("lxc.apparmor.profile = unconfined")),
    Probe("overlay", "zones are clones of images", "make {} a bind mount of a folder on ext4, XFS or btrfs"),
    Probe("owners and file capabilities", "files of images belong to the zones' users", "mount an ext4, XFS or btrfs at {}"),
    Probe("device nodes", "an image is installed with its /dev", OUTER.format("lxc.cap.drop =")),
    Probe("bridges", "zones are on a bridge", BOOT.format("bridge"), "ip"),
    Probe("veth pairs", "zones are on a bridge", BOOT.format("veth"), "ip"),
    Probe("NAT with nftables", "zones reach package servers", BOOT.format("nft_masq"), "nft"),
    Probe("packet filter with nftables", "zones and instances are kept apart", BOOT.format("nf_tables, nft_ct"), "nft"),
    Probe(
        "control groups",
        "a zone's memory and processors are limited",
        OUTER.format("lxc.mount.auto = cgroup:rw:force"),
    ),
    Probe(
        "taps",
        "instances are connected through them",
        "modprobe tun, and mknod /dev/net/tun c 10 200; in a container: lxc.cgroup2.devices.allow = c 10:200 rwm, and "
        "lxc.mount.entry = /dev/net/tun dev/net/tun none bind,create=file",
        "ip",
        hypervisor=True,
    ),
)  # fmt: skip

ZONE = r"""
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
folder = "."  # as the folders above it may be closed to a zone's root
NS, UTS, IPC, USER, PID, NET, RDONLY, BIND, REMOUNT = 0x20000, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30, 1, 4096, 32

def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def mount(source, target, kind, flags=0, options=None):
    os.makedirs(target, exist_ok=True)
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options and options.encode())

def processes():
    mount("proc", folder + "/proc", "proc")
    mount("sysfs", folder + "/sys", "sysfs")

def overlay():
    parts = [folder + "/" + name for name in ("lower", "upper", "work")]
    for part in parts:
        os.makedirs(part + "/inner" if part.endswith("lower") else part)
    mount("overlay", folder + "/merged", "overlay", 0, "userxattr,lowerdir=%s,upperdir=%s,workdir=%s" % tuple(parts))
    os.rmdir(folder + "/merged/inner")
    open(folder + "/merged/file", "w").close()

def bind():
    os.makedirs(folder + "/source")
    mount(folder + "/source", folder + "/target", "", BIND)
    mount("", folder + "/target", "", BIND | REMOUNT | RDONLY)

TRIALS = {
    "/proc and /sys in a zone": processes,
    "tmpfs in a zone": lambda: mount("tmpfs", folder + "/tmpfs", "tmpfs"),
    "terminals in a zone": lambda: mount("devpts", folder + "/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620"),
    "bind mounts": bind,
    "overlay": overlay,
}

def attempt(trial):
    try:
        trial()
    except OSError as why:
        return why.strerror or str(why)

found = {"user namespaces": attempt(lambda: call("unshare", USER))}
print(json.dumps(found["user namespaces"]), flush=True)
if found["user namespaces"] is None and sys.stdin.readline().strip() == "mapped":
    os.setgroups([]), os.setgid(0), os.setuid(0)
    found["namespaces"] = attempt(lambda: call("unshare", NS | UTS | IPC | PID | NET))
    if found["namespaces"] is None:
        if child := os.fork():
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        found.update((name, attempt(trial)) for name, trial in TRIALS.items())
print(json.dumps(found), flush=True)
"""
"""A zone without a system: what LXC does between its user namespace and the zone's first program."""

OUTSIDE = {
    "bridges": "ip link add zsp-bridge type bridge && ip link set zsp-bridge up",
    "veth pairs": "ip link add zsp-a type veth peer name zsp-b",
    "NAT with nftables": (
        "nft -f - <<< 'table ip zsp { chain out { type nat hook postrouting priority srcnat; "
        "ip saddr 192.0.2.0/24 masquerade; }; }'"
    ),
    "packet filter with nftables": (
        "nft -f - <<< 'table ip zsp { chain between { type filter hook forward priority filter; "
        'iifname "a" oifname "b" ct state new drop; }; }\''
    ),
    "taps": "ip tuntap add zsp-tap mode tap",
}
"""What is tried in a network namespace of its own, by bash."""


# Running a trial, and leaving nothing -------------------------------------------------------------------------------------


def tried(*argv: str) -> str | None:
    """Run a trial; None when it went well, else its last line of output. It ends with all that it began."""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as why:
        return str(why)
    said = end_of(process)
    if process.returncode == 0:
        return None
    return (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]


def end_of(process: subprocess.Popen[str], say: str | None = None) -> str:
    """What a process of a session of its own prints until its end; after :data:`LIMIT`, or when this program is ended, it is killed."""
    try:
        return process.communicate(say, timeout=LIMIT)[0] or ""
    except subprocess.TimeoutExpired:
        return f"did not finish within {LIMIT} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def remains(parent: Path) -> Iterator[Path]:
    """Traces of trials whose process has gone: it was killed before it could take them back."""
    for place in (parent, *control_group_parents()):
        for path in place.glob(f"*{MARK}*"):
            found = re.search(rf"{MARK}(\d+)", path.name)
            if found and not Path("/proc", found[1]).exists():
                yield path


def clean(parent: Path) -> None:
    """Take back what trials left that were killed."""
    for path in list(remains(parent)):
        if str(path).startswith(str(CGROUPS)):
            path.rmdir()  # a control group goes as a whole, with the files that seem to be in it
        else:
            shutil.rmtree(path, ignore_errors=True)


# Trials ------------------------------------------------------------------------------------------------------------------


def zone_trials(folder: Path) -> dict[str, str | None]:
    """What is done in a zone's namespaces, by the user that is root of a zone, below a folder that it may pass."""
    for path in (folder, *folder.iterdir()):
        os.chown(path, FIRST_ID, FIRST_ID)
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", ZONE], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    if not (process.stdin and process.stdout):
        raise AssertionError("Popen gives the pipes that it is asked for")
    said = process.stdout.readline()
    why = None
    if said == "null\n":
        try:
            for kind in ("uid_map", "gid_map"):
                Path("/proc", str(process.pid), kind).write_text(f"0 {FIRST_ID} {IDS}\n")
        except OSError as refused:
            why = f"the ids {FIRST_ID} to {FIRST_ID + IDS - 1} cannot be mapped: {refused.strerror}"
    lines = end_of(process, "no\n" if why else "mapped\n").splitlines()
    try:
        found: dict[str, str | None] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"user namespaces": (lines or [said or "no answer"])[-1].strip()}
    return {**found, "user namespaces": found["user namespaces"] or why}


def owners_error(folder: Path) -> str | None:
    """Why a file cannot belong to a zone's user and bear a capability of its (capabilities(7), revision 3)."""
    path = folder / "file"
    try:
        path.write_text("")
        os.chown(path, FIRST_ID + IDS - 1, FIRST_ID + IDS - 1)
        capability = (0x03000001, 1 << 10, 0, 0, 0, FIRST_ID)
        os.setxattr(path, "security.capability", b"".join(word.to_bytes(4, "little") for word in capability))
    except OSError as why:
        return why.strerror
    return None


def device_error(folder: Path) -> str | None:
    """Why no device can be made below ``folder``, and used."""
    path = folder / "null"
    try:
        os.mknod(path, 0o020666, os.makedev(1, 3))
        path.write_text("x")
    except OSError as why:
        return why.strerror
    return None


def shared_memory_error() -> str | None:
    """Why processes of this machine cannot share a lock (sem_overview(7)); it is in /dev/shm, and goes with this call."""
    try:
        multiprocessing.get_context().Lock()
    except OSError as why:
        return why.strerror
    return None


def control_group_parents() -> list[Path]:
    """Where the control groups of zones begin: the one tree of version 2, or a tree for each controller of version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [CGROUPS / name for name in CONTROLLERS]


def control_group_error() -> str | None:
    """Why a group cannot be made that limits memory and processors, as LXC makes one for each zone."""
    for parent in control_group_parents():
        trial = parent / f"{MARK}{os.getpid()}"
        try:
            trial.mkdir()
        except OSError as why:
            return f"none can be made below {parent}: {why.strerror}"
        try:
            if lack := controller_error(parent, trial):
                return lack
        finally:
            trial.rmdir()
    return None


def controller_error(parent: Path, group: Path) -> str | None:
    """Why a new group does not limit what its controllers are for; of version 2 they must be given to it by the group above."""
    if parent.name in CONTROLLERS:
        return None
    have = (parent / "cgroup.controllers").read_text().split()
    if lack := [name for name in CONTROLLERS if name not in have]:
        return f"there is no controller {' and no '.join(lack)} below {parent}"
    given = (parent / "cgroup.subtree_control").read_text().split()
    try:
        # LXC asks for the same when it starts a zone; what is given already stays so
        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
    except OSError as why:
        return f"controllers cannot be given to groups below {parent}: {why.strerror}"
    try:
        limit = group / "memory.max"
        limit.write_text(str(1 << 30))
    except OSError as why:
        return f"memory cannot be limited below {parent}: {why.strerror}"
    finally:
        added = [name for name in CONTROLLERS if name not in given]
        if added:
            group.rmdir()
            (parent / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in added))
            group.mkdir()
    return None


def trials(parent: Path) -> dict[str, str | None]:
    """Try all probes; of each None, or why it does not work. One whose tool is not installed is left out.

    :param parent: the folder that zones will lie below, or the nearest above it that is there.
    """
    clean(parent)
    found: dict[str, str | None] = {}
    tools = {probe.name for probe in PROBES if shutil.which(probe.tool)}
    for name, command in OUTSIDE.items():
        if name in tools:
            found[name] = tried("unshare", "--net", "--mount", "bash", "-c", command)
    found["control groups"] = control_group_error()
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{MARK}{os.getpid()}-", dir=parent))
    except OSError as unwritable:
        return {**found, "overlay": str(unwritable)}
    try:
        for name, trial in {"owners and file capabilities": owners_error, "device nodes": device_error}.items():
            found[name] = trial(folder)
        return {**zone_trials(folder), **found}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Settings of the kernel ---------------------------------------------------------------------------------------------------


def sysctl_path(name: str) -> Path:
    """The file of a kernel setting (sysctl(8)): dots separate folders."""
    return SYSCTL / name.replace(".", "/")


def settings(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The ``value`` of each kernel setting that is there, and why it cannot be written (``fixed``, None where it can).

    The value that it has is written once more.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        path = sysctl_path(name)
        try:
            text = path.read_text()
            found[name] = {"value": int(text), "fixed": None}
        except (OSError, ValueError):
            continue  # not in this kernel, or not in this network namespace
        try:
            path.write_text(text)
        except OSError as why:
            found[name]["fixed"] = why.strerror
    return found


# Rules of others -----------------------------------------------------------------------------------------------------------


def foreign_drops(ruleset: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """Chains that drop what is forwarded unless a rule in them lets it pass: table, chain, and which rule or policy it is.

    :param ruleset: ``nftables`` of ``nft --json list ruleset`` (libnftables-json(5)).

    Docker's are left out: it has a chain for exceptions, and zonestack-network puts the bridges there.
    """
    items = list(ruleset)
    rules = [item["rule"] for item in items if "rule" in item]
    jumps = {json.dumps(rule["expr"]): rule for rule in rules}
    docker = any('"DOCKER-USER"' in text for text in jumps)
    found = []
    for chain in (item["chain"] for item in items if "chain" in item):
        if chain.get("hook") != "forward" or chain["family"] not in ("ip", "inet"):
            continue
        here = [rule for rule in rules if (rule["family"], rule["table"]) == (chain["family"], chain["table"])]
        own = [rule for rule in here if rule["chain"] == chain["name"]]
        last = next((verdict for verdict in ("drop", "reject") if own and list(own[-1]["expr"][-1]) == [verdict]), None)
        everything = last and len([part for part in own[-1]["expr"] if "counter" not in part]) == 1
        if (chain.get("policy") != "drop" and not everything) or (
            docker and chain["family"] == "ip" and chain["table"] == "filter"
        ):
            continue
        accepted = sorted({name for rule in here for name in accepted_devices(rule["expr"])})
        what = "policy drop" if not everything else f"rule handle {own[-1]['handle']}: {last}"
        found.append(
            {
                "table": f"{chain['family']} {chain['table']}",
                "chain": chain["name"],
                "what": what,
                "accepted": " ".join(accepted),
            }
        )
    return found


def accepted_devices(expressions: list[dict[str, Any]]) -> Iterator[str]:
    """The devices (a trailing ``*`` for all that begin so) whose incoming packets a rule accepts, whatever else they are."""
    words = [part for part in expressions if "counter" not in part]
    if len(words) == 1 and "accept" in words[0]:
        yield "*"
    if len(words) != 2 or "accept" not in words[1] or "match" not in words[0]:
        return
    match = words[0]["match"]
    if match.get("op") == "==" and match["left"] == {"meta": {"key": "iifname"}}:
        right = match["right"]
        yield from right["set"] if isinstance(right, dict) and "set" in right else [str(right)]
