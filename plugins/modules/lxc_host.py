#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a machine able to host LXC zones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lxc_host
short_description: Prepare a machine to host LXC zones
version_added: 0.1.0
description:
  - Installs packages, raises kernel settings, gives root the user ids of unprivileged zones, makes the folders of the zones, and
    brings up the bridges on which zones live with the NAT behind them, so that all of it is also there after a reboot.
  - One module rather than a task for each of these, because a second run then costs one round trip.
  - Settings of the kernel are only ever raised. A machine that needs more for other work keeps it.
  - With O(state=absent), takes the deployment's bridges and NAT away again, and with the last deployment all that was made here. Kernel
    settings, folders and id ranges get back what they were. Packages stay. So does everything while there are zones, or data of zones.
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.host_network]
options:
  packages:
    description: Names of the Debian packages to be installed. The package lists are refreshed only when one is missing.
    type: list
    elements: str
    required: true
  package_folder:
    description:
      - Folder on this machine with the packages and the file C(Packages) that lists them, as C(scripts/bundle.sh) makes it. They are
        then taken from there alone, and trusted as the bundle is. By default from where this machine gets its own.
    type: path
  sysctl:
    description:
      - What each kernel setting is raised to. One that this kernel does not have is left out.
      - One that cannot be written here, as in many containers, stays where it is enough for O(zones).
    type: dict
    required: true
  zones:
    description: How many zones of the deployment the host is for.
    type: int
    default: 0
  directories:
    description: Folders to be made, with the access mode of each as an octal string.
    type: dict
    required: true
  units:
    description: systemd units and drop-ins that run it, by their path below C(/etc/systemd/system). Written where systemd is process 1.
    type: dict
    required: true
  state:
    description: Whether the machine is to host zones of the deployment.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: One line before and one after for each thing that changed.
"""

EXAMPLES = r"""
- name: Prepare the host for zones
  zonestack.openstack.lxc_host:
    packages: [lxc, nftables]
    sysctl: {fs.inotify.max_user_instances: 8192}
    directories: {/var/lib/lxc: "0755"}
    deployment: aio
    bridges: [{bridge: zs-aio, address: 10.77.2.1/21, mtu: 1500, nat: 10.77.0.0/21}]
    network_command: "{{ lookup('ansible.builtin.file', 'zonestack-network') }}"
    units: {zonestack-network.service: "{{ lookup('ansible.builtin.file', 'zonestack-network.service') }}"}
"""

RETURN = r"""
changes:
  description: What was changed (in check mode, what would be), in order.
  returned: always
  type: list
  elements: str
  sample: ["sysctl fs.inotify.max_user_instances: 128 -> 8192"]
warnings:
  description: What an administrator should know.
  returned: when there is something
  type: list
  elements: str
"""

import functools
import os
import shutil
import stat
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run
from ansible_collections.zonestack.openstack.plugins.module_utils.host.changes import (
    HEADER,
    NETWORK,
    Change,
    file_change,
    network_changes,
    network_files,
    read,
    refuse_conflicts,
    result,
    write,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.host.found import FILE, raised, remember, restorations
from ansible_collections.zonestack.openstack.plugins.module_utils.kernel_settings import least

SYSCTL_FILE = "/etc/sysctl.d/60-zonestack.conf"
NETWORK_COMMAND = "/usr/local/sbin/zonestack-network"
NETWORK_FOLDER = "/etc/zonestack/network"
APT = "/var/lib/zonestack/apt"
DEBS = "/var/lib/zonestack/debs"  # group_vars/zone_hosts.yml
UNITS = "/etc/systemd/system"
LXC_NET = "/etc/default/lxc-net"
ZONES = "/var/lib/lxc"
OURS = "/var/lib/lxc/zonestack"
LOCKS = "/run"  # module_utils/zone/files.py

FIRST_ID = 100000
"""First user and group id of unprivileged zones on their host: root of a zone is 100000 (subuid(5))."""
IDS = 65536
"""How many of them there are."""
APT_LIMIT = 1800
"""Seconds for one apt-get, on a slow line."""
FRESH = 900
"""Seconds for which package lists are taken as they are, unless apt cannot install with them."""
LOCK_LIMIT = 300
"""Seconds to wait for an apt that runs already: a fresh machine updates itself."""


def lists_are_fresh() -> bool:
    """Whether apt's package lists are from the last minutes: a bootstrap of this machine has just refreshed them."""
    try:
        return time.time() - os.stat("/var/lib/apt/lists").st_mtime < FRESH
    except FileNotFoundError:
        return False


def only_from(folder: str) -> list[str]:
    """Options by which apt knows the packages of a folder and no others; its lists of this machine's sources stay as they are."""
    work = Path(APT)
    (work / "lists/partial").mkdir(parents=True, exist_ok=True)
    write(str(work / "sources.list"), f"deb [trusted=yes] file:{folder} ./\n")
    settings = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": work / "lists",
    }
    return [
        word
        for key, value in {**settings, "APT::Sandbox::User": "root"}.items()
        for word in ("--option", f"{key}={value}")
    ]


def package_changes(packages: list[str], folder: str | None = None) -> t.Iterator[Change]:
    """Packages that are not installed, as one change: apt resolves them together."""
    listed = run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages], check=False
    ).out
    installed = {
        name for name, _space, status in (line.partition(" ") for line in listed.splitlines()) if status == "installed"
    }
    missing = [package for package in packages if package not in installed]
    if not missing:
        return
    apt = ["apt-get", "--yes", "--option", f"DPkg::Lock::Timeout={LOCK_LIMIT}", "--option", "Acquire::Retries=3"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}

    def install() -> None:
        for package in missing:
            remember("packages", package, None)
        if "lxc" in missing and not os.path.exists(LXC_NET):
            # Debian's package would make a bridge and a NAT of its own, which no zone uses, when it is installed.
            write(LXC_NET, HEADER + 'USE_LXC_BRIDGE="false"\n')
        if folder:
            apt.extend(only_from(folder))
        keep = ["--option", "Dpkg::Options::=--force-confdef", "--option", "Dpkg::Options::=--force-confold"]
        install_now = functools.partial(
            run, [*apt, *keep, "install", "--no-install-recommends", *missing], timeout=APT_LIMIT, env=quiet
        )
        if not folder and lists_are_fresh() and install_now(check=False).rc == 0:
            return
        run([*apt, "update"], timeout=APT_LIMIT, env=quiet)
        install_now()

    yield Change(f"packages {' '.join(missing)}", "missing", "installed", install)


def id_changes(path: str) -> t.Iterator[Change]:
    """A missing line for root in /etc/subuid or /etc/subgid."""
    text = read(path) or ""
    if not any(
        owner == "root" and first <= FIRST_ID and first + count >= FIRST_ID + IDS
        for owner, first, count in ranges(text)
    ):
        line = f"root:{FIRST_ID}:{IDS}"
        rest = text if not text or text.endswith("\n") else text + "\n"

        def add() -> None:
            remember("lines", path, line)
            write(path, f"{rest}{line}\n")

        yield Change(f"file {path}", "no ids for root's zones", line, add)


def ranges(text: str) -> t.Iterator[tuple[str, int, int]]:
    """The (owner, first id, count) rows of a subuid(5) file."""
    for line in text.splitlines():
        owner, _colon, numbers = line.partition(":")
        first, _colon, count = numbers.partition(":")
        if first.isdigit() and count.isdigit():
            yield owner, int(first), int(count)


def shared_ids(text: str) -> list[str]:
    """Owners other than root whose ids overlap those of the zones."""
    return [
        owner for owner, first, count in ranges(text)
        if owner != "root" and first < FIRST_ID + IDS and FIRST_ID < first + count
    ]  # fmt: skip


def directory_changes(directories: t.Mapping[str, str]) -> t.Iterator[Change]:
    """Folders that are missing or have another mode."""
    for path, text in directories.items():
        mode = int(text, 8)

        before = f"{stat.S_IMODE(os.stat(path).st_mode):04o}" if os.path.isdir(path) else "missing"

        def make(path: str = path, mode: int = mode, before: str = before) -> None:
            if before != "missing":
                remember("modes", path, before)
            os.makedirs(path, exist_ok=True)
            os.chmod(path, mode)

        if before != f"{mode:04o}":
            yield Change(f"folder {path}", before, f"{mode:04o}", make)


def sysctl_path(name: str) -> str:
    """The file of a kernel setting (sysctl(8)): dots separate folders."""
    return "/proc/sys/" + name.replace(".", "/")


def sysctl_changes(wanted: t.Mapping[str, int], zones: int = 0, kept: list[str] | None = None) -> t.Iterator[Change]:
    """Kernel settings below their wanted value, and the file that sets them at boot.

    The file holds the larger of both values, so that it does not lower at the next boot what somebody raised.

    :param zones: how many zones the host is for: what is enough for them stays where it cannot be raised.
    :param kept: takes a sentence for each setting that stays so.
    :raises CommandError: one that cannot be raised is too small.
    """
    values: dict[str, int] = {}
    for name, value in wanted.items():
        text = read(sysctl_path(name))
        if text is None:
            continue  # not in this kernel, or not in this network namespace
        values[name] = max(int(value), int(text))
        if int(text) >= int(value):
            continue
        if why := fixed(name, text):
            refuse_too_little(name, int(text), int(value), zones, why)
            if kept is not None:
                kept.append(
                    f"{name} is {text.strip()} and cannot be raised to {value} ({why}): enough for {zones} zones."
                )
        else:
            yield Change(f"sysctl {name}", text.strip(), str(value), functools.partial(raise_sysctl, name, int(value)))
    yield from file_change(SYSCTL_FILE, HEADER + "".join(f"{name} = {value}\n" for name, value in values.items()))


def fixed(name: str, text: str) -> str | None:
    """Why a kernel setting cannot be written, None when it can: the value that it has is written once more."""
    try:
        Path(sysctl_path(name)).write_text(text)
    except OSError as why:
        return why.strerror
    return None


def refuse_too_little(name: str, value: int, wanted: int, zones: int, why: str) -> None:
    """End with the line that mends it where a setting is too small for the zones of this host."""
    if value < (enough := least(name, zones)):
        raise CommandError(
            ["sysctl", f"{name}={wanted}"],
            1,
            f"{why}. It is {value}, and {zones} zones need {enough}. Where this machine's kernel runs, on the outer host: "
            f"sysctl -w {name}={wanted}",
        )


def raise_sysctl(name: str, value: int) -> None:
    """Set a kernel setting, and note what it was."""
    raised(name, int((read(sysctl_path(name)) or "0").strip()), value)
    Path(sysctl_path(name)).write_text(f"{value}\n")


def unit_changes() -> t.Iterator[Change]:
    """Units that must start at boot; nothing where systemd is not process 1."""
    if not os.path.isdir("/run/systemd/system"):
        return
    for unit in ("zonestack-network.service", "lxc.service"):
        enabled, active = (
            run(["systemctl", question, unit], check=False).out.strip() or "missing"
            for question in ("is-enabled", "is-active")
        )
        if (enabled, active) != ("enabled", "active"):
            start = functools.partial(run, ["systemctl", "enable", "--now", unit])
            yield Change(f"unit {unit}", f"{enabled}, {active}", "enabled, active", start)


def changes(p: dict[str, t.Any]) -> t.Iterator[Change]:
    """All differences in the order in which they must be ended; a later one is looked for when the earlier are done."""
    if shutil.which("ip"):  # without it there is no bridge yet
        refuse_conflicts(p)
    yield from package_changes(p["packages"], p.get("package_folder"))
    for path in ("/etc/subuid", "/etc/subgid"):
        yield from id_changes(path)
    yield from directory_changes(p["directories"])
    yield from sysctl_changes(p["sysctl"], p["zones"], p["kept"])
    yield from network_files(p, NETWORK_COMMAND, NETWORK_FOLDER)
    if os.path.isdir("/run/systemd/system"):
        texts = [change for name, text in p["units"].items() for change in file_change(f"{UNITS}/{name}", text)]
        yield from texts
        if texts and not p["check"]:
            run(["systemctl", "daemon-reload"])
    yield from network_changes(p, NETWORK_COMMAND, NETWORK_FOLDER)
    yield from unit_changes()


def remove(path: str) -> None:
    """Remove a file, or a folder with all that is in it."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def still_used(deployment: str) -> list[str]:
    """What on this host keeps the ground of its zones from being removed, besides the deployment that goes."""
    zones = sorted(path.parent.name for path in Path(ZONES).glob("*/zone.json"))
    others = sorted(path.name for path in Path(NETWORK_FOLDER).glob("*") if path.name != deployment)
    data = sorted({path.parent.name for path in Path(OURS, "volumes").glob("*/*")})
    found = {"deployments": others, "zones": zones, "data of zones": [name for name in data if name not in zones]}
    return [f"{what} {', '.join(names)}" for what, names in found.items() if names]


def removals(p: dict[str, t.Any]) -> t.Iterator[Change]:
    """What is left of a deployment, and of all of them when it was the last."""
    own = f"{NETWORK_FOLDER}/{p['deployment']}"
    if os.path.exists(own):
        if os.path.exists(NETWORK_COMMAND):
            stop = functools.partial(run, [NETWORK_COMMAND, "stop", p["deployment"]])
            yield Change(f"network of {p['deployment']}", "there", "gone", stop)
        yield Change(f"file {own}", "there", "gone", functools.partial(remove, own))
    if used := still_used(p["deployment"]):
        p["kept"].append(f"This host keeps what zones need, as it still has {'; '.join(used)}.")
        return
    systemd = os.path.isdir("/run/systemd/system")
    units = [name for name in p["units"] if os.path.exists(f"{UNITS}/{name}")] if systemd else []
    if "zonestack-network.service" in units:
        disable = functools.partial(run, ["systemctl", "disable", "--now", "zonestack-network.service"])
        yield Change("unit zonestack-network.service", "enabled", "disabled", disable)
    yield from restorations(sysctl_path)
    locks = sorted(str(path) for path in Path(LOCKS).glob("zonestack-*.lock"))
    written = (*(f"{UNITS}/{name}" for name in units), NETWORK_COMMAND, SYSCTL_FILE, NETWORK_FOLDER, OURS, FILE)
    gone = [path for path in (*written, APT, DEBS, *locks) if os.path.exists(path)]
    for path in gone:
        kind = "folder" if os.path.isdir(path) else "file"
        yield Change(f"{kind} {path}", "there", "gone", functools.partial(remove, path))
    drop_ins = {f"{UNITS}/{name.partition('/')[0]}" for name in units if "/" in name}
    for folder in (*sorted(drop_ins), os.path.dirname(NETWORK_FOLDER), os.path.dirname(FILE)):
        if os.path.isdir(folder) and {f"{folder}/{name}" for name in os.listdir(folder)} <= set(gone):
            yield Change(f"folder {folder}", "empty", "gone", functools.partial(os.rmdir, folder))
    if units:
        yield Change("units", "as they were", "read anew", functools.partial(run, ["systemctl", "daemon-reload"]))


def main() -> None:
    """Read the parameters, end each difference (unless in check mode), and say what they were."""
    os.umask(0o022)  # zones pass through the folders that are made here
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "package_folder": {"type": "path"},
            "sysctl": {"type": "dict", "required": True},
            "zones": {"type": "int", "default": 0},
            "directories": {"type": "dict", "required": True},
            **NETWORK,
            "units": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    done: list[Change] = []
    kept: list[str] = []
    try:
        plan = changes if module.params["state"] == "present" else removals
        for change in plan({**module.params, "check": module.check_mode, "kept": kept}):
            if not module.check_mode:
                change.apply()
            done.append(change)
    except (CommandError, OSError, ValueError) as why:
        module.fail_json(msg=str(why), **result(done))
    if module.params["state"] == "present" and (owners := shared_ids(read("/etc/subuid") or "")):
        module.warn(
            f"/etc/subuid gives {', '.join(owners)} the ids {FIRST_ID} to {FIRST_ID + IDS - 1}, which the zones use: such a user can "
            "act as a zone's root on its files. Give them other ids (usermod --del-subuids, --add-subuids)."
        )
    for sentence in kept if done else ():  # a run that changes nothing says nothing
        module.warn(sentence)
    module.exit_json(**result(done))


if __name__ == "__main__":
    main()
