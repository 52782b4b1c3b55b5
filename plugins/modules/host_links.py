#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a host's bonds, VLANs, bridges and addresses as described, or have it back as it was."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_links
short_description: Configure the interfaces of a host, and revert the change if the host is no longer reached
version_added: 0.1.0
description:
  - Writes what systemd-networkd reads, or ifupdown where that is in charge, and has it in force. Where NetworkManager, netplan or nobody is
    in charge it refuses, and changes nothing.
  - A change is made by the host itself, apart from the connection that asked for it. It stays when a new connection, made after the change,
    finds all links as described. Unless that happens within O(limit) seconds, the host takes the change back, says why in its journal,
    and the task fails. A host that is started anew before comes up with its former networks.
  - Where nothing is to be changed, this is one call of the module.
  - Interfaces that are not named are not touched. What other files of ifupdown say of those that are becomes a comment there.
author: the zonestack authors (@zonestack)
options:
  links:
    description:
      - The interfaces, each after what it stands on, as the inventory plugin P(zonestack.openstack.topology#inventory) gives them in C(host.links).
        It has checked them.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the interface., type: str, required: true}
      kind: {description: What it is., type: str, choices: [physical, bond, vlan, bridge], default: physical}
      mode: {description: Mode of a bond., type: str}
      parent: {description: What carries a VLAN., type: str}
      id: {description: Number of a VLAN., type: int}
      master: {description: Bond or bridge that it is a member of., type: str}
      port: {description: Whether a bridge that is none of these has it as a port and keeps it., type: bool, default: false}
      mtu: {description: Largest packet in bytes., type: int, required: true}
      address: {description: IPv4 address with prefix length., type: str}
      dhcp: {description: Whether the address comes from a DHCP server., type: bool, default: false}
      gateway: {description: Router of the default route., type: str}
      routes: {description: Further networks and the router that leads to each., type: dict, default: {}}
  limit:
    description: Seconds within which a change must be confirmed, once it is in force.
    type: int
    default: 60
  command:
    description: Text of the program C(zonestack-links), which makes a change and takes it back.
    type: str
    required: true
  unit:
    description: Text of the systemd unit that takes back an unconfirmed change when the host starts.
    type: str
    required: true
  step:
    description: For the action plugin; V(look) tells how a change stands, V(confirm) keeps it if all links are as described.
    type: str
    choices: [apply, look, confirm]
    default: apply
requirements:
  - systemd, iproute2, bash
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: The files before and after, and what the links lack where the files are right.
"""

EXAMPLES = r"""
- name: Have the host's networks
  zonestack.openstack.host_links:
    links: "{{ host.links }}"
    command: "{{ lookup('ansible.builtin.file', 'zonestack-links') }}"
    unit: "{{ lookup('ansible.builtin.file', 'zonestack-links.service') }}"
"""

RETURN = r"""
phase:
  description: >-
    How the last change stands. V(none), where there is none or it was confirmed; V(waiting) to be in force; V(applied) and not yet confirmed;
    V(refused) when it was taken back.
  returned: always
  type: str
why:
  description: Why it was taken back.
  returned: when it was
  type: str
lacks:
  description: What the links lack of what they should be.
  returned: always
  type: list
  elements: str
  sample: ["bond0: missing"]
manager:
  description: Who manages the interfaces, networkd or ifupdown.
  returned: when O(step=apply)
  type: str
"""

import glob
import json
import os
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.host import links as host_links
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run
from ansible_collections.zonestack.openstack.plugins.module_utils.host.changes import file_change, read, write

PROGRAM = "/usr/local/sbin/zonestack-links"
UNIT = "/etc/systemd/system/zonestack-links.service"
FOLDER = "/etc/zonestack/links"
TRIAL = "zonestack-links-change"
"""Name of the transient unit that makes a change."""
START_SECONDS = 2
"""Until it starts, for the answer of this module to leave by the networks that are."""
STEPS_SECONDS = 600
"""The longest that a change may last beside its limit; then systemd ends it, and so takes it back."""

LINK: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["physical", "bond", "vlan", "bridge"], "default": "physical"},
    "mode": {"type": "str"},
    "parent": {"type": "str"},
    "id": {"type": "int"},
    "master": {"type": "str"},
    "port": {"type": "bool", "default": False},
    "mtu": {"type": "int", "required": True},
    "address": {"type": "str"},
    "dhcp": {"type": "bool", "default": False},
    "gateway": {"type": "str"},
    "routes": {"type": "dict", "default": {}},
}
ARGUMENTS: dict[str, t.Any] = {
    "links": {"type": "list", "elements": "dict", "required": True, "options": LINK},
    "limit": {"type": "int", "default": 60},
    "command": {"type": "str", "required": True},
    "unit": {"type": "str", "required": True},
    "step": {"type": "str", "choices": ["apply", "look", "confirm"], "default": "apply"},
}


def phase() -> tuple[str, str | None]:
    """How the last change stands, and why it was taken back if it was."""
    if os.path.isdir(f"{FOLDER}/change"):
        return ("applied" if os.path.exists(f"{FOLDER}/change/applied") else "waiting"), None
    if os.path.isdir(f"{FOLDER}/settling"):
        return "waiting", None
    why = read(f"{FOLDER}/refused/why")
    return ("none", None) if why is None else ("refused", why.strip())


def told(*words: str) -> list[dict[str, t.Any]]:
    """What ip(8) tells."""
    found: list[dict[str, t.Any]] = json.loads(run(["ip", "-json", *words]).out or "[]")
    return found


def lacks(links: list[dict[str, t.Any]]) -> list[str]:
    """What the links lack now."""
    return host_links.lacks(links, told("-details", "address", "show"), told("-4", "route", "show"))


def ifupdown_texts() -> dict[str, str]:
    """Every file of ifupdown, text by path; none where it is not installed."""
    if not shutil.which("ifup", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or not os.path.exists(
        host_links.IFUPDOWN
    ):
        return {}
    return {
        path: read(path) or ""
        for path in (host_links.IFUPDOWN, *sorted(glob.glob(f"{host_links.IFUPDOWN_FOLDER}/*")))
        if os.path.isfile(path)
    }


def file_names(paths: t.Iterable[str]) -> set[str]:
    """Names of the links that files of systemd-networkd are about."""
    return {os.path.basename(path).removeprefix(host_links.PREFIX).rpartition(".")[0] for path in paths}


def files(links: list[dict[str, t.Any]]) -> tuple[str, dict[str, tuple[str | None, str | None]], set[str]]:
    """Who manages the interfaces, the files that are not as they should be (before and after), and names that the former ones had."""
    services = ("NetworkManager", "systemd-networkd", "networking")
    active = [
        name for name in services if run(["systemctl", "is-active", "--quiet", f"{name}.service"], check=False).rc == 0
    ]
    there = ifupdown_texts()
    manager = host_links.manager(
        active, bool(glob.glob("/etc/netplan/*.yaml")), there, [link["name"] for link in links]
    )
    if manager == "ifupdown":
        before: dict[str, str] = there
        after = host_links.ifupdown_files(links, there)
        names = host_links.stanzas(there.get(host_links.IFUPDOWN_FILE, ""))
    else:
        before = {path: read(path) or "" for path in glob.glob(f"{host_links.NETWORKD_FOLDER}/{host_links.PREFIX}*")}
        after = host_links.networkd_files(links)
        names = file_names(before)
    paths = sorted(before.keys() | after.keys())
    return (
        manager,
        {path: (before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)},
        names,
    )


def prepare(
    manager: str,
    changed: dict[str, tuple[str | None, str | None]],
    names: list[str],
    remove: list[str],
    renew: list[str],
) -> None:
    """Lay out a change for the program: completely, or not at all."""
    trial = f"{FOLDER}/change.new"
    shutil.rmtree(trial, ignore_errors=True)
    for path, sides in changed.items():
        for side, text in zip(("old", "new"), sides, strict=True):
            if text is not None:
                # a secret of an operator's own may stand in the old text
                mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
                write(f"{trial}/{side}{path}", text, mode)
    rows = {"paths": list(changed), "links": names, "remove": remove, "renew": renew, "manager": [manager]}
    for name, lines in rows.items():
        write(f"{trial}/{name}", "".join(f"{line}\n" for line in lines))
    os.chmod(trial, 0o700)
    run(["sync", "-f", trial])
    os.rename(trial, f"{FOLDER}/change")


def remade(
    manager: str,
    changed: t.Iterable[str],
    names: list[str],
    links: list[dict[str, t.Any]],
    shown: list[dict[str, t.Any]],
) -> list[str]:
    """Devices that are made again by a change. ifupdown makes all again."""
    if manager == "ifupdown":
        made = {one["ifname"] for one in shown if host_links.kind_of(one) in ("bond", "vlan", "bridge")}
        return [
            *(link["name"] for link in links if link["kind"] != "physical"),
            *(name for name in names[len(links) :] if name in made),
        ]
    return sorted({*file_names(path for path in changed if path.endswith(".netdev")), *host_links.remade(links, shown)})


def settled_phase(check: bool) -> tuple[str, str | None]:
    """The phase of the last change and why, once a change that was left waiting is taken back.

    :raises NotOurs: when another change waits to be confirmed.
    """
    last, why = phase()
    if last in ("waiting", "applied"):
        if any(
            run(["systemctl", "is-active", "--quiet", f"{TRIAL}.{kind}"], check=False).rc == 0
            for kind in ("timer", "service")
        ):
            raise host_links.NotOurs(
                "a change of this host's networks waits to be confirmed or taken back: run again in a minute"
            )
        if not check:
            run([PROGRAM, "settle", "what asked for it ended before it began"], timeout=STEPS_SECONDS)
        last, why = phase()
    return last, why


def diff_of(changed: t.Mapping[str, tuple[str | None, str | None]], lacking: list[str]) -> list[dict[str, str]]:
    """The changed files; where none changes, what the interfaces lack."""
    diff = [
        {"before_header": path, "after_header": path, "before": old or "", "after": new or ""}
        for path, (old, new) in changed.items()
    ]
    if lacking and not changed:
        diff.append(
            {
                "before_header": "interfaces",
                "after_header": "interfaces",
                "before": "".join(f"{line}\n" for line in lacking),
                "after": "",
            }
        )
    return diff


def apply(module: AnsibleModule) -> dict[str, t.Any]:
    """Have a change made, where one is needed. It is not yet in force when this returns."""
    links, check = module.params["links"], module.check_mode
    last, why = settled_phase(check)
    shown = told("-details", "address", "show")
    if absent := list(host_links.missing(links, shown)):
        raise host_links.NotOurs(f"{'; '.join(absent)}: correct links: in topology.yml")
    manager, changed, former = files(links)
    lacking = lacks(links)
    result: dict[str, t.Any] = {
        "changed": bool(changed or lacking),
        "phase": "none",
        "lacks": lacking,
        "manager": manager,
        "diff": diff_of(changed, lacking),
    }
    if not result["changed"]:
        return result
    if last == "refused":
        module.warn(f"the last change of this host's networks was taken back: {why}. It is tried again now")
    if check:
        return result
    for change in (*file_change(PROGRAM, module.params["command"], 0o755), *file_change(UNIT, module.params["unit"])):
        change.apply()
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "enable", "--quiet", os.path.basename(UNIT)])
    declared = [link["name"] for link in links]
    names = [*declared, *sorted(former - {*declared})]
    renew = {*file_names(changed), *(line.partition(":")[0] for line in lacking)}
    prepare(
        manager,
        changed,
        names,
        remade(manager, changed, names, links, shown),
        [name for name in declared if name in renew],
    )
    run(
        [
            "systemd-run", "--quiet", "--collect", f"--unit={TRIAL}", f"--on-active={START_SECONDS}", "--timer-property=AccuracySec=100ms",
            "--description=A change of the networks, until it is confirmed", f"--property=ExecStopPost={PROGRAM} settle",
            f"--property=RuntimeMaxSec={module.params['limit'] + STEPS_SECONDS}", f"--property=TimeoutStopSec={STEPS_SECONDS}",
            PROGRAM, "apply", str(module.params["limit"]),
        ]
    )  # fmt: skip
    return {**result, "phase": "waiting"}


def look(module: AnsibleModule) -> dict[str, t.Any]:
    """How the change stands."""
    now, why = phase()
    return {"changed": False, "phase": now, "why": why, "lacks": lacks(module.params["links"])}


def confirm(module: AnsibleModule) -> dict[str, t.Any]:
    """Keep the change if it is in force and all is as described."""
    found = look(module)
    if found["phase"] != "applied" or found["lacks"]:
        return found
    run([PROGRAM, "confirm"])
    run(["systemctl", "stop", f"{TRIAL}.timer", f"{TRIAL}.service"], check=False)
    return {**found, "changed": True, "phase": "none"}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = {"apply": apply, "look": look, "confirm": confirm}[module.params["step"]](module)
    except (host_links.NotOurs, CommandError, OSError) as why:
        module.fail_json(msg=f"host networks: {why}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
