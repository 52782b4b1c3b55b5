#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: zone_tree
short_description: Bring a zone's files and daemons to a rendered state, in one round trip
version_added: 0.1.0
description:
  - Writes directories and files, keeps the service manager's view of them, starts daemons that do not run, and finds out
    which daemons still run with older files than there are.
  - The action plugin of the same name renders everything from the nouns C(zone), C(service), C(stack) and C(secrets) of the
    inventory; a playbook gives only O(start), O(restart) and O(wait).
  - Each file is written beside its target and renamed over it, so a reader sees the old or the new one. A file that has a
    validator is tried with it before anything in the zone is changed.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: full
    description: Nothing is written, started or restarted; the result is what a run would return.
  diff_mode:
    support: full
    description: Files with secrets are named, never shown.
options:
  directories:
    description: Directories that must be there, parents first.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path in the zone.
        type: path
        required: true
      mode:
        description: Permission bits in octal, as a string.
        type: str
        required: true
      owner:
        description: Name of the owning user.
        type: str
        default: root
      group:
        description: Name of the owning group.
        type: str
        default: root
  files:
    description: Files whose content may be shown.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path in the zone.
        type: path
        required: true
      content:
        description: The whole content.
        type: str
        required: true
      mode:
        description: Permission bits in octal, as a string.
        type: str
        required: true
      owner:
        description: Name of the owning user.
        type: str
        default: root
      group:
        description: Name of the owning group.
        type: str
        default: root
      validate:
        description: Command that must succeed on the candidate before it is put in place; C({path}) stands for the candidate.
        type: list
        elements: str
        default: []
  secret_files:
    description:
      - Files whose content must not be shown.
      - The content comes in Base64, on one line, because what is logged is searched for secrets only after its line breaks were
        escaped.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path in the zone.
        type: path
        required: true
      content:
        description: The whole content, in Base64.
        type: str
        required: true
      mode:
        description: Permission bits in octal, as a string.
        type: str
        required: true
      owner:
        description: Name of the owning user.
        type: str
        default: root
      group:
        description: Name of the owning group.
        type: str
        default: root
      validate:
        description: Command that must succeed on the candidate before it is put in place.
        type: list
        elements: str
        default: []
  exclusive:
    description: Directories in which every file that is not given here is removed, such as key repositories.
    type: list
    elements: path
    default: []
  daemons:
    description: Daemons of the zone, in the order in which they start.
    type: list
    elements: dict
    default: []
    suboptions:
      unit:
        description: Name of the systemd unit, with its suffix.
        type: str
        required: true
      digest:
        description: Digest of all that the daemon reads at its start; see O(restart).
        type: str
        required: true
      clustered:
        description: Whether the daemon becomes ready only together with its peers in other zones; O(wait) does not wait for it.
        type: bool
        default: false
      ready:
        description:
          - How to find out that the daemon serves. C(tcp) is a port that must accept on the C(address) beside it,
            C(http) a URL that must answer 200, C(command) an argument list that must exit with 0.
        type: dict
        default: {}
  start:
    description: Start (and enable) daemons that do not run.
    type: bool
    default: true
  restart:
    description:
      - Restart daemons that run with older files than there are now. When false, those that serve are only returned in
        RV(restart); those that do not are restarted all the same.
    type: bool
    default: false
  wait:
    description: Seconds to wait for each started or restarted daemon to be ready.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Configure every zone, and start what does not run
  zonestack.openstack.zone_tree:
  register: __zone_tree

- name: Restart what runs with older files, one zone at a time
  zonestack.openstack.zone_tree:
    restart: true
  throttle: 1
  when: __zone_tree.restart | length > 0
"""

RETURN = r"""
written:
  description: Paths that were (or in check mode would be) created, changed or removed.
  type: list
  elements: str
  returned: always
started:
  description: Units that were started.
  type: list
  elements: str
  returned: always
restart:
  description: Units that run with older files than there are now, and were not restarted.
  type: list
  elements: str
  returned: always
waiting:
  description: Units that do not run because O(start) is false.
  type: list
  elements: str
  returned: always
restarted:
  description: Units that were restarted.
  type: list
  elements: str
  returned: always
"""

import base64
import grp
import http.client
import os
import pwd
import re
import socket
import ssl
import stat
import tempfile
import time
import typing as t
import urllib.parse

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, run

RUN_DIRECTORY = "/run/zonestack"
DIGEST_DIRECTORY = "/etc/zonestack/digests"


class TreeError(Exception):
    """A state that cannot be reached; the message says where, what, and what would be right."""


class Tree:
    """Compares the wanted files with those of the zone, then writes the difference."""

    def __init__(self, module: AnsibleModule) -> None:
        self.check = module.check_mode
        self.params = module.params
        self.written: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def owner(self, entry: dict[str, t.Any]) -> tuple[int, int]:
        """Numeric owner and group of an entry."""
        try:
            return pwd.getpwnam(entry["owner"]).pw_uid, grp.getgrnam(entry["group"]).gr_gid
        except KeyError as missing:
            raise TreeError(
                f"{entry['path']}: owner {entry['owner']!r} or group {entry['group']!r} is not known in this zone ({missing}): "
                "the service's image must create it (`user:` or `packages:` of its image)"
            ) from None

    def note(self, path: str, before: str, after: str) -> None:
        """Record a change and its diff."""
        self.written.append(path)
        self.diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})

    def attributes(self, path: str, entry: dict[str, t.Any]) -> tuple[str, str]:
        """Attributes as they are and as they should be, as text; equal when nothing is to be done."""
        uid, gid = self.owner(entry)
        want = f"mode {int(entry['mode'], 8):04o} owner {uid}:{gid}"
        try:
            now = os.lstat(path)
        except FileNotFoundError:
            return "absent", want
        return f"mode {stat.S_IMODE(now.st_mode):04o} owner {now.st_uid}:{now.st_gid}", want

    def set_attributes(self, path: str, entry: dict[str, t.Any]) -> None:
        """Give the path its owner and mode."""
        os.chown(path, *self.owner(entry))
        os.chmod(path, int(entry["mode"], 8))

    def directory(self, entry: dict[str, t.Any]) -> None:
        """Make one directory so."""
        path = entry["path"]
        before, want = self.attributes(path, entry)
        if os.path.lexists(path) and not os.path.isdir(path):
            raise TreeError(f"{path} must be a directory but is a file; remove it, or change the declaration")
        if before == want:
            return
        self.note(path, before + "\n", want + "\n")
        if not self.check:
            os.makedirs(path, exist_ok=True)
            self.set_attributes(path, entry)

    def candidate(self, entry: dict[str, t.Any], folder: str) -> str:
        """The new content in a file of its own in ``folder``, never readable by more people than the target."""
        handle, name = tempfile.mkstemp(dir=folder, prefix="." + os.path.basename(entry["path"]) + ".")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(entry["content"])
            stream.flush()
            os.fsync(stream.fileno())
        return name

    def pending(self, entry: dict[str, t.Any]) -> bool:
        """Whether the file differs in content."""
        try:
            with open(entry["path"], encoding="utf-8", errors="surrogateescape") as stream:
                return stream.read() != entry["content"]
        except FileNotFoundError:
            return True

    def validate(self, entry: dict[str, t.Any]) -> None:
        """Try the candidate with the file's own validator, before anything is changed."""
        if not entry["validate"] or not self.pending(entry):
            return
        with tempfile.TemporaryDirectory(prefix="zonestack-") as folder:
            name = self.candidate(entry, folder)
            argv = [word.replace("{path}", name) for word in entry["validate"]]
            done = run(argv, check=False, timeout=120)
            if done.rc != 0:
                said = (done.out + done.err).replace(name, entry["path"]).strip()
                # A validator may chat; what it calls an error is what the reader needs.
                said = "\n".join(line for line in said.splitlines() if "ERROR" in line) or said
                raise TreeError(f"{entry['path']} is refused by {os.path.basename(argv[0])}; nothing was changed. {said}")

    def file(self, entry: dict[str, t.Any], secret: bool) -> None:
        """Make one file so."""
        path = entry["path"]
        if os.path.isdir(path):
            raise TreeError(f"{path} must be a file but is a directory; remove it, or change the declaration")
        before, want = self.attributes(path, entry)
        if self.pending(entry):
            if secret:
                self.note(path, f"{before}\n", f"{want}\n(new content, not shown)\n")
            else:
                old = ""
                if before != "absent":
                    with open(path, encoding="utf-8", errors="replace") as stream:
                        old = stream.read()
                self.note(path, old, entry["content"])
            if not self.check:
                folder = os.path.dirname(path)
                os.makedirs(folder, exist_ok=True)
                name = self.candidate(entry, folder)
                try:
                    self.set_attributes(name, entry)
                    os.rename(name, path)
                except BaseException:
                    os.unlink(name)
                    raise
        elif before != want:
            self.note(path, before + "\n", want + "\n")
            if not self.check:
                self.set_attributes(path, entry)

    def remove_others(self, folder: str, keep: set[str]) -> None:
        """Remove from ``folder`` each file that nobody declared."""
        if not os.path.isdir(folder):
            return
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if path not in keep and os.path.isfile(path):
                self.note(path, "present\n", "absent\n")
                if not self.check:
                    os.unlink(path)

    def apply(self) -> None:
        """Validate everything, then write everything."""
        plain = self.params["files"]
        secret = [{**entry, "content": base64.b64decode(entry["content"]).decode()} for entry in self.params["secret_files"]]
        for entry in [*plain, *secret]:
            self.owner(entry)
            self.validate(entry)
        for entry in self.params["directories"]:
            self.directory(entry)
        for entry in plain:
            self.file(entry, secret=False)
        for entry in secret:
            self.file(entry, secret=True)
        declared = {entry["path"] for entry in [*plain, *secret]}
        for folder in self.params["exclusive"]:
            self.remove_others(folder, declared)


class Systemd:
    """Daemons as systemd units (systemctl(1))."""

    def __init__(self, daemons: list[dict[str, t.Any]]) -> None:
        self.daemons = daemons
        self.state: dict[str, dict[str, str]] = {}
        if daemons:
            self.read()

    def read(self) -> None:
        """Read what systemd knows of all daemons, in one call."""
        units = [daemon["unit"] for daemon in self.daemons]
        out = run(["systemctl", "show", "--property=Id,ActiveState,SubState,UnitFileState,LoadState,NeedDaemonReload", *units]).out
        for block in out.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if "Id" in values:
                self.state[values["Id"]] = values

    def active(self, unit: str) -> bool:
        """Whether the unit runs or is on its way there."""
        return self.state.get(unit, {}).get("ActiveState") in ("active", "activating", "reloading")

    def enabled(self, unit: str) -> bool:
        """Whether the unit starts with the zone. A static or generated unit has no such setting."""
        return self.state.get(unit, {}).get("UnitFileState") in ("enabled", "static", "indirect", "generated", "alias", "enabled-runtime")

    @staticmethod
    def running_digest(unit: str) -> str:
        """The digest that the unit left when it started; empty when it never did."""
        try:
            with open(f"{RUN_DIRECTORY}/{unit}", encoding="utf-8") as stream:
                return stream.read().strip()
        except FileNotFoundError:
            return ""

    @staticmethod
    def note_digest(unit: str, digest: str) -> None:
        """Leave the wanted digest where the unit takes it from when it starts; bookkeeping, so it is no change."""
        path = f"{DIGEST_DIRECTORY}/{unit}"
        try:
            with open(path, encoding="utf-8") as stream:
                if stream.read().strip() == digest:
                    return
        except FileNotFoundError:
            os.makedirs(DIGEST_DIRECTORY, mode=0o755, exist_ok=True)
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            stream.write(f"{digest}\n")
        os.rename(f"{path}.new", path)

    @staticmethod
    def reload_manager() -> None:
        """Let systemd read changed unit files."""
        run(["systemctl", "daemon-reload"])

    @staticmethod
    def tail(unit: str) -> str:
        """The unit's last journal lines, for an error message."""
        return run(["journalctl", "--no-pager", "-o", "cat", "-n", "15", "-u", unit], check=False).out.strip()


def probe(ready: dict[str, t.Any]) -> str:
    """Try once whether a daemon serves; the empty string, or what is wrong."""
    if "tcp" in ready:
        address = ready.get("address", "127.0.0.1")
        try:
            with socket.create_connection((address, int(ready["tcp"])), timeout=2):
                return ""
        except OSError as error:
            return f"port {ready['tcp']} of {address}: {error}"
    if "http" in ready:
        url = urllib.parse.urlsplit(ready["http"])
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=ready.get("ca"))
            if ready.get("certificate"):
                context.load_cert_chain(ready["certificate"], ready.get("key"))
            connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=5, context=context)
        else:
            connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)
        try:
            connection.request("GET", url.path or "/")
            answer = connection.getresponse()
            body = answer.read(300).decode(errors="replace").strip()
            return "" if answer.status in (200, 300) else f"{ready['http']} answers {answer.status}: {body}"
        except (OSError, http.client.HTTPException) as error:
            return f"{ready['http']}: {error}"
        finally:
            connection.close()
    if "command" in ready:
        try:
            run(list(ready["command"]), timeout=30)
            return ""
        except CommandError as error:
            return str(error)
    return ""


def wait_ready(daemon: dict[str, t.Any], limit: int) -> None:
    """Wait until the daemon serves, or fail with its own last words.

    The interval between two probes grows from 50 ms to 1 s: most daemons are there after the first few.
    """
    deadline = time.monotonic() + limit
    pause = 0.05
    while True:
        state = run(["systemctl", "is-active", daemon["unit"]], check=False).out.strip()
        # An old process may still answer while its stop is under way; the digest tells the new one from it.
        if state == "active" and Systemd.running_digest(daemon["unit"]) == daemon["digest"]:
            wrong = probe(daemon["ready"])
            if not wrong:
                return
        else:
            wrong = f"systemd calls it {state}"
        failed = state == "failed"
        if failed or time.monotonic() > deadline:
            cause = "has failed" if failed else f"is not ready after {limit} s ({wrong})"
            raise TreeError(f"{daemon['unit']} {cause}. Its last words:\n{Systemd.tail(daemon['unit'])}")
        time.sleep(pause)
        pause = min(1.0, pause * 1.5)


def main() -> None:
    entry = {
        "path": {"type": "path", "required": True},
        "mode": {"type": "str", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    validate = {"validate": {"type": "list", "elements": "str", "default": []}}
    content = {"content": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "dict", "default": [], "options": entry},
            "files": {"type": "list", "elements": "dict", "default": [], "options": {**entry, **content, **validate}},
            "secret_files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,  # the paths may be shown; the contents, one level below, may not
                "options": {**entry, **validate, "content": {"type": "str", "required": True, "no_log": True}},
            },
            "exclusive": {"type": "list", "elements": "path", "default": []},
            "daemons": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "unit": {"type": "str", "required": True},
                    "digest": {"type": "str", "required": True},
                    "clustered": {"type": "bool", "default": False},
                    "ready": {"type": "dict", "default": {}},
                },
            },
            "start": {"type": "bool", "default": True},
            "restart": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    tree = Tree(module)
    started: list[str] = []
    restart: list[str] = []
    restarted: list[str] = []
    waiting: list[str] = []
    try:
        tree.apply()
        manager = Systemd(params["daemons"])
        stale_units = any(re.match(r"/etc/systemd/system/", path) for path in tree.written)
        if not module.check_mode and (stale_units or any(s.get("NeedDaemonReload") == "yes" for s in manager.state.values())):
            manager.reload_manager()
        begun: list[dict[str, t.Any]] = []
        for daemon in params["daemons"]:
            unit = daemon["unit"]
            if not module.check_mode:
                manager.note_digest(unit, daemon["digest"])
            current = manager.running_digest(unit) == daemon["digest"]
            if not manager.active(unit) or not manager.enabled(unit):
                if params["start"]:
                    started.append(unit)
                    begun.append(daemon)
                    if not module.check_mode:
                        run(["systemctl", "reset-failed", unit], check=False)
                        run(["systemctl", "enable", "--quiet", unit])
                        # A unit that was active before it was enabled may still run with older files.
                        verb = "start" if current or not manager.active(unit) else "restart"
                        run(["systemctl", "--no-block", verb, unit])
                else:
                    waiting.append(unit)
            elif not current:
                # A daemon that does not serve has no turn to wait for: nobody would miss it, and others may wait for it.
                if params["restart"] or probe(daemon["ready"]):
                    restarted.append(unit)
                    begun.append(daemon)
                    if not module.check_mode:
                        run(["systemctl", "--no-block", "restart", unit])
                else:
                    restart.append(unit)
        if not module.check_mode:
            for daemon in begun:
                if not daemon["clustered"] or daemon["unit"] in restarted:
                    wait_ready(daemon, params["wait"])
    except (TreeError, CommandError, OSError) as error:
        module.fail_json(msg=str(error), written=tree.written, started=started, restart=restart, restarted=restarted)
    module.exit_json(
        changed=bool(tree.written or started or restarted),
        diff=tree.diffs,
        written=tree.written,
        started=started,
        waiting=waiting,
        restart=restart,
        restarted=restarted,
    )


if __name__ == "__main__":
    main()
