# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render a zone's whole tree from the inventory's nouns and send it in one round trip; see the module of the same name.

What applies the tree is no Ansible module: it would carry the module's framework into each zone, which costs more there than
all the rest. It is a program of the standard library alone (module_utils/zone/tree.py), sent to the zone's Python over
standard input with what it is to do, so that nothing of that is in an argument, a file or a log.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shlex
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader, filter_loader, shell_loader, test_loader
from ansible.template import trust_as_template
from ansible_collections.zonestack.openstack.plugins.plugin_utils import daemon as daemons
from ansible_collections.zonestack.openstack.plugins.plugin_utils import python_settings
from ansible_collections.zonestack.openstack.plugins.plugin_utils.oslo import Layer, OsloError, render
from ansible_collections.zonestack.openstack.plugins.plugin_utils.service_folders import (
    COLLECTION,
    COMMON_TEMPLATES,
    find_file,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.schema import CONNECTIONS

PROGRAM = COLLECTION / "plugins" / "module_utils" / "zone" / "tree.py"
TLS = "/etc/zonestack/tls"
OVERRIDES = ("service_conf", "zone_conf")

#: Suffixes of templates' files in which a line that begins with ``#`` is a comment.
COMMENTED = (".cfg", ".cnf", ".conf")

#: What the zone's Python is told in its arguments: the rest comes over standard input, first so many bytes of program, then
#: the request.
BOOTSTRAP = "import json, sys; read = sys.stdin.buffer.read; exec(compile(read({size}), 'zone_tree.py', 'exec')); print(json.dumps(apply(json.loads(read()))))"

OPTIONS = {
    "start": {"type": "bool", "default": True},
    "restart": {"type": "bool", "default": False},
    "wait": {"type": "int", "default": 300},
}


@functools.cache
def shared_layers() -> dict[str, t.Any]:
    """The layers of services/_oslo.yml."""
    found: dict[str, t.Any] = DataLoader().load_from_file(
        str(COLLECTION / "services" / "_oslo.yml"), trusted_as_template=True
    )
    return found


def load_once() -> None:
    """Load what every zone needs. Ansible imports an action in the process from which it then forks a worker for each zone, and
    each worker would otherwise load it anew: cryptography alone takes half as long as rendering a zone."""
    shared_layers()
    filter_loader.get("ansible.builtin.mandatory")  # any of Ansible's own stands for all of them
    test_loader.get("ansible.builtin.match")
    filter_loader.get("zonestack.openstack.zone_certificate")
    filter_loader.get("zonestack.openstack.source_match")
    for name in CONNECTIONS.values():
        connection_loader.get(name, class_only=True)
    shell_loader.get("sh", class_only=True)


class ActionModule(ActionBase):
    """Turns ``zone``, ``service``, ``stack`` and ``secrets`` into directories, files and daemons, and has the zone apply them."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Render, then have the zone apply what was rendered."""
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(OPTIONS)
        return self.apply({"check": bool(self._task.check_mode), **options, **self.render(task_vars or {})})

    def render(self, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """The zone's ``directories``, ``files``, ``exclusive`` and ``daemons`` as ``apply`` in module_utils/zone/tree.py takes them.

        The zone is not asked for anything, so this is also how to find out what a run would write.

        :param variables: those of the zone, with ``secrets``.
        """
        self.vars = variables
        self.zone: dict[str, t.Any] = self.value("zone")
        self.service: dict[str, t.Any] = self.value("service", evaluate=False)
        self.overrides = {variable: self.read_overrides(variable) for variable in OVERRIDES}
        self.plain: list[dict[str, t.Any]] = []
        self.secret: list[dict[str, t.Any]] = []
        self.exclusive: list[str] = []
        self.commented: set[str] = set()
        declared = {"/etc/zonestack": {}, TLS: {}, **(self.service.get("directories") or {})}
        self.directories = [
            {"path": path, "owner": "root", "group": "root", "mode": "0755", **self.template(entry or {})}
            for path, entry in declared.items()
        ]
        self.common()
        for path, entry in (self.service.get("config") or {}).items():
            self.config(path, entry)
        self.refuse_unused_overrides()
        units = self.daemons()
        files = [
            {**entry, "secret": secret, "comments": entry["path"] in self.commented}
            for secret, entries in ((False, self.plain), (True, self.secret))
            for entry in entries
        ]
        return {"directories": self.directories, "files": files, "exclusive": self.exclusive, "daemons": units}

    def apply(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        """Have the zone's Python do what is asked for: ``apply`` in module_utils/zone/tree.py.

        No failure carries what was sent: that holds secrets.
        """
        program = PROGRAM.read_bytes()
        interpreter = str(self.template(self.vars.get("ansible_python_interpreter") or "auto"))
        if interpreter.startswith("auto"):
            interpreter = "/usr/bin/python3"
        # Neither the environment nor site-packages are looked at, which takes time and may change what the program finds.
        argv = [*shlex.split(interpreter), "-IS", "-c", BOOTSTRAP.format(size=len(program))]
        done = self._low_level_execute_command(
            f"{self._compute_environment_string()} {shlex.join(argv)}".strip(),
            in_data=program + json.dumps(request).encode(),
            executable=False,
        )
        if done["rc"] == 0:
            try:
                return dict(json.loads(done["stdout"]))
            except ValueError:
                why = "its answer cannot be read"
        elif done["rc"] in (126, 127):
            why = f"{interpreter} cannot be run there; set ansible_python_interpreter, or have the image install Python"
        else:
            why = f"exit code {done['rc']}, {(done['stderr_lines'] or ['no message on stderr'])[-1]}"
        return {
            "failed": True,
            "msg": f"zone {self.zone['name']}: the program that applies the zone's files failed: {why}",
            "rc": done["rc"],
            "module_stdout": done["stdout"],
            "module_stderr": done["stderr"],
        }

    def value(self, name: str, evaluate: bool = True) -> t.Any:
        """A variable of the zone; a missing noun means that the host is no zone."""
        if name not in self.vars:
            raise AnsibleActionFail(
                f"{name!r} is not defined: zone_tree runs on zones of the topology inventory, with `secrets` loaded"
            )
        return self.template(self.vars[name]) if evaluate else self.vars[name]

    def template(self, value: t.Any) -> t.Any:
        """Resolve the templates in ``value``, however deep."""
        return self._templar.template(value)

    def file(self, path: str, content: str, entry: dict[str, t.Any] | None = None, comments: bool = False) -> None:
        """Add one file to the tree.

        :param comments: whether lines that begin with ``#`` mean nothing to who reads it.
        """
        if comments:
            self.commented.add(path)
        entry = entry or {}
        into = self.secret if entry.get("secret") else self.plain
        into.append(
            {
                "path": path,
                "content": content if not content or content.endswith("\n") or entry.get("exact") else content + "\n",
                "mode": entry.get("mode") or "0644",
                "owner": entry.get("owner") or "root",
                "group": entry.get("group") or "root",
                "validate": entry.get("check") or self.validator(entry.get("validate") or []),
            }
        )

    def validator(self, namespaces: list[str]) -> list[str]:
        """The command that finds options unknown to the service (oslo-config-validator of its own venv)."""
        if not namespaces:
            return []
        return [
            f"/opt/{self.service['name']}/bin/oslo-config-validator",
            *(f"--namespace={namespace}" for namespace in namespaces),
            "--input-file={path}",
        ]

    def config(self, path: str, raw: dict[str, t.Any]) -> None:
        """Add what one ``config:`` entry of the service declares."""
        entry = {key: raw[key] for key in raw if key not in ("oslo", "options", "template", "content", "file", "keys")}
        entry = self.template(entry)
        if raw.get("keys") is not None:
            self.directories.append(
                {
                    "path": path,
                    "owner": entry.get("owner") or "root",
                    "group": entry.get("group") or "root",
                    "mode": "0700",
                }
            )
            self.exclusive.append(path)
            for name, content in self.template(raw["keys"]).items():
                self.file(f"{path}/{name}", content, {**entry, "secret": True, "exact": True})
        elif raw.get("template") is not None:
            text = self.from_template(raw["template"]) + self.settings(path, raw)
            self.file(path, text, entry, comments=path.endswith(COMMENTED))
        elif raw.get("file") is not None:
            self.file(path, self.source(raw["file"]).read_text(encoding="utf-8"), {"exact": True, **entry})
        elif raw.get("content") is not None:
            self.file(path, self.template(raw["content"]), entry)
        else:
            # Loading all of a service's options takes seconds of each zone, so it is done for what a user changes; that our own
            # are right is what the tests are for.
            if not any(mine.get(os.path.basename(path)) for mine in self.overrides.values()):
                entry["validate"] = []
            try:
                self.file(
                    path,
                    render(
                        self.layers(path, raw), "Written by zonestack; change it through service_conf or zone_conf."
                    ),
                    entry,
                    comments=True,
                )
            except OsloError as error:
                raise AnsibleActionFail(f"{self.zone['name']}: {path}: {error}") from None

    def settings(self, path: str, raw: dict[str, t.Any]) -> str:
        """The user's settings for a file in Python; the last assignment holds there."""
        given = [(variable, mine.get(os.path.basename(path))) for variable, mine in self.overrides.items()]
        try:
            return "".join(
                python_settings.render(variable, mine) for variable, mine in given if mine and raw.get("settings")
            )
        except python_settings.SettingsError as error:
            raise AnsibleActionFail(f"{self.zone['name']}: {path}: {error}") from None

    def layers(self, path: str, raw: dict[str, t.Any]) -> list[Layer]:
        """The layers of an oslo.config file, from the most general to the most particular."""
        shared = shared_layers()
        found = []
        for name in raw.get("oslo") or []:
            if name not in shared:
                raise AnsibleActionFail(
                    f"services/{self.service['name']}/service.yml: config.{path}.oslo: unknown layer {name!r} (known: {', '.join(sorted(shared))})"
                )
            found.append(Layer(f"services/_oslo.yml {name}", self.template(shared[name])))
        if raw.get("options"):
            found.append(Layer(f"services/{self.service['name']}/service.yml", self.template(raw["options"])))
        for variable, files in self.overrides.items():
            mine = files.get(os.path.basename(path))
            if mine and not raw.get("secret"):
                found.append(Layer(variable, mine))
        return found

    def read_overrides(self, variable: str) -> dict[str, t.Any]:
        """The user's layer: ``{file name: {section: {key: value}}}``."""
        value = self.template(self.vars.get(variable) or {})
        if not isinstance(value, dict):
            raise AnsibleActionFail(f"{variable} is {value!r}: write {{file name: {{section: {{key: value}}}}}}")
        return value

    def refuse_unused_overrides(self) -> None:
        """An override for a file that the service does not have is a typing mistake, not a wish."""
        config = self.service.get("config") or {}
        names = sorted(
            os.path.basename(path)
            for path, entry in config.items()
            if entry.get("settings") or entry.get("oslo") is not None or entry.get("options") is not None
        )
        for variable, files in self.overrides.items():
            for name in files:
                if name not in names:
                    raise AnsibleActionFail(
                        f"{variable}.{name}: {self.service['name']} has no such file (known: {', '.join(names) or 'none'}); "
                        "write {file name: {section: {key: value}}}"
                    )

    def source(self, name: str, further: t.Sequence[Path] = ()) -> Path:
        """A file in the service's folder, or else in one of ``further``."""
        folders = [*self.service["folders"], *further]
        found = find_file(folders, name)
        if found is None:
            raise AnsibleActionFail(f"{self.service['name']}: {name!r} is in none of {', '.join(map(str, folders))}")
        return found

    def from_template(self, name: str) -> str:
        """The text of a template of the service, or of one that all services share."""
        text = self.source(name, COMMON_TEMPLATES).read_text(encoding="utf-8")
        return str(self.template(trust_as_template(text)))

    @property
    def has_nftables(self) -> bool:
        """Whether the zone has Linux's packet filter: an lx zone of SmartOS has the system calls of Linux, not its kernel."""
        hosts: dict[str, t.Any] = self.value("stack", evaluate=False)["hosts"]
        return bool(hosts[self.zone["host"]]["backend"] == "lxc")

    def common(self) -> None:
        """What every zone has: its certificate, its firewall, its names, and the way of its journal to the log zone."""
        pair = self.template(trust_as_template("{{ __zone_certificate }}"))
        self.file(f"{TLS}/ca.crt", pair["ca"])
        self.file(f"{TLS}/zone.crt", pair["certificate"])
        self.file(f"{TLS}/zone.key", pair["key"], {"secret": True, "mode": "0640", "group": "zonetls"})
        self.file("/usr/local/share/ca-certificates/zonestack.crt", pair["ca"])
        # Not among the files of TLS, whose change restarts daemons: clients read it for each connection.
        self.file("/etc/zonestack/apis.crt", self.template(trust_as_template("{{ __api_authorities }}")))
        self.file("/etc/hosts", self.from_template("hosts.j2"))
        if self.has_nftables:
            self.file("/etc/nftables.conf", self.from_template("nftables.conf.j2"), comments=True)
        stack = self.value("stack", evaluate=False)
        if any(stack["components"][component].get("function") == "logs" for component in stack["members"]):
            self.file("/etc/systemd/journal-upload.conf", self.from_template("journal-upload.conf.j2"))
        if self.service.get("steps"):
            guard = COLLECTION / "roles" / "openstack_service" / "files" / "schema.py"
            self.file("/usr/local/bin/zonestack-schema", guard.read_text(encoding="utf-8"), {"mode": "0755"})

    def declared_daemons(self) -> dict[str, t.Any]:
        """The daemons of every zone and those of the service, in the order in which they start."""
        found: dict[str, t.Any] = {}
        if self.has_nftables:
            # At once: a new member of a cluster is let in before those that have older files have their turn, for they wait for it.
            found["nftables"] = {"unit": "nftables", "reads": ["/etc/nftables.conf"], "tls": False, "unnoticed": True}
        declared = self.service.get("daemons") or {}
        found.update({name: self.template(entry) for name, entry in declared.items()})
        apis = {name: entry for name, entry in found.items() if entry.get("wsgi")}
        if apis:
            self.file("/etc/nginx/nginx.conf", self.from_template("nginx.conf.j2"), comments=True)
            found["nginx"] = {"unit": "nginx", "reads": ["/etc/nginx/nginx.conf"]}
        if any(entry["path"] == "/etc/systemd/journal-upload.conf" for entry in self.plain):
            found["journal-upload"] = {
                "unit": "systemd-journal-upload",
                "reads": ["/etc/systemd/journal-upload.conf"],
                "drop_in": ["Restart=always", "RestartSec=5"],
                "unnoticed": True,
            }
        return found

    def daemons(self) -> list[dict[str, t.Any]]:
        """Render the units, and say what there is to know of each daemon; see ``apply`` in module_utils/zone/tree.py."""
        declared = self.declared_daemons()
        prints = {
            entry["path"]: hashlib.sha256(repr(sorted(entry.items())).encode()).hexdigest()
            for entry in [*self.plain, *self.secret]
        }
        service = self.template({key: self.service[key] for key in ("name", "description", "image", "zone", "api")})
        found = []
        for name, entry in declared.items():
            made = daemons.render_systemd(name, entry, service, prints, [TLS])
            self.file(made.path, made.text, comments=True)
            ready = {key: value for key, value in (entry.get("ready") or {}).items() if value is not None}
            if "tcp" in ready:
                ready.setdefault("address", self.zone["address"])
            kind = {key: bool(entry.get(key)) for key in ("clustered", "unnoticed", "reload")}
            reads = [*(entry.get("reads") or []), *([TLS] if entry.get("tls", True) else []), made.path]
            found.append({"unit": made.unit, "digest": made.digest, "reads": reads, **kind, "ready": ready})
        return found


load_once()
