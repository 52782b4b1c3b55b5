# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon's declaration rendered as an SMF manifest, for joyent zones and SmartOS' global zone; systemd's are in daemon.py.

What differs from the systemd unit of the same declaration:

* A daemon in the foreground is a service of duration ``child``. It is online as soon as its process runs, is started again
  whatever that process' exit code (but for 96), and never goes into maintenance for it; svc.startd(8). So ``Restart=`` and
  ``RestartSec=`` mean nothing, and readiness, ``Type=notify`` included, is only what ``ready:`` finds out.
* svc.startd puts ``exec`` before a method's line, so one that is more than a command is given to a shell by name.
* A method becomes its user before it runs. What needs root first, such as a directory below /run, is there only for daemons
  that run as root; uWSGI starts as root and becomes its user by itself.
* SMF keeps what a service was started with (its ``start`` snapshot). The digest of what the daemon reads is a property of the
  service, so ``restart_needed`` of the module svccfg names a daemon that runs with older files; no copy in /run is needed.
* ``limits`` knows ``NOFILE`` only; a zone's other limits are vmadm's. Sandboxing is dropped, for the zone is the sandbox.
  A packaged unit and any other line of a unit are refused.
"""

from __future__ import annotations

import re
import shlex
import typing as t
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.smf_plan import INSTANCE_FMRI, kept_path
from ansible_collections.zonestack.openstack.plugins.plugin_utils.daemon import (
    Daemon,
    Rendered,
    command_of,
    digest,
    user_of,
)

DOCTYPE = '<?xml version="1.0"?>\n<!DOCTYPE service_bundle SYSTEM "/usr/share/lib/xml/dtd/service_bundle.dtd.1">\n'

#: Where a daemon finds commands: pkgsrc's and the platform's. svc.startd's own default is /usr/sbin:/usr/bin.
PATH = "/usr/local/sbin:/usr/local/bin:/opt/local/sbin:/opt/local/bin:/usr/sbin:/usr/bin:/sbin"

#: startd/duration for systemd.service(5) Type=.
DURATIONS = {"simple": "child", "exec": "child", "notify": "child", "forking": "contract", "oneshot": "transient"}

#: Lines of a unit that have a counterpart.
TRANSLATED = (
    "Environment",
    "EnvironmentFile",
    "ExecStartPre",
    "KillSignal",
    "RuntimeDirectory",
    "TimeoutStartSec",
    "TimeoutStopSec",
)

#: Lines of a unit that need no counterpart, and why.
DROPPED = {
    "Restart": "SMF starts every service again",
    "RestartSec": "svc.startd waits a second where a child fails five times a second",
    "RemainAfterExit": "a transient service is online without processes",
    "NoNewPrivileges": "the zone is the sandbox",
    "PrivateTmp": "the zone is the sandbox",
    "ProtectHome": "the zone is the sandbox",
    "ProtectSystem": "the zone is the sandbox",
}

#: Seconds that a start method (of a service that is no child) and a stop method have: systemd's default, and our units'.
START_TIMEOUT, STOP_TIMEOUT = 90, 30


class SmfRenderError(Exception):
    """A daemon cannot be expressed as an SMF service; the message names the key, and what would be right."""


@dataclass
class _Plan:
    """What the lines of ``drop_in`` and the other keys come to."""

    before: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    start_timeout: int = START_TIMEOUT
    stop_timeout: int = STOP_TIMEOUT
    stop: str = ":kill"


def fmri_of(name: str) -> str:
    """The FMRI of a daemon of ours."""
    return f"svc:/zonestack/{name}:default"


def _seconds(where: str, value: str) -> int:
    """A time span of systemd.time(7) as far as units of ours use it; 0 and infinity are no limit, as in SMF."""
    if value == "infinity":
        return 0
    found = re.fullmatch(r"(\d+)\s*(s|sec|m|min)?", value)
    if not found:
        raise SmfRenderError(f"{where}: {value!r} is not understood: write whole seconds")
    return int(found[1]) * (60 if found[2] in ("m", "min") else 1)


def _plan(name: str, daemon: Daemon, as_root: bool) -> _Plan:
    """Translate what the declaration has beside its command, or refuse it."""
    made = _Plan(environment={"PATH": PATH, **(daemon.get("environment") or {})})
    for limit, value in sorted((daemon.get("limits") or {}).items()):
        if limit != "NOFILE" or not re.fullmatch(r"\d+", str(value)):
            raise SmfRenderError(
                f"daemons.{name}.limits.{limit}: SMF knows no such limit; only NOFILE, a number, can be given: ask vmadm for others"
            )
        made.before.append(f"ulimit -n {value}")
    for line in daemon.get("drop_in") or []:
        key, _equals, value = line.partition("=")
        where = f"daemons.{name}.drop_in {key}="
        if key in DROPPED or (key.startswith("Exec") and not value):
            continue
        if key == "Environment":
            made.environment.update(dict(word.partition("=")[::2] for word in shlex.split(value)))
        elif key == "ExecStartPre":
            made.before.append(_words(where, value))
        elif key == "TimeoutStartSec":
            made.start_timeout = _seconds(where, value)
        elif key == "TimeoutStopSec":
            made.stop_timeout = _seconds(where, value)
        elif key == "KillSignal":
            made.stop = f":kill -{value.removeprefix('SIG')}"
        elif key in ("EnvironmentFile", "RuntimeDirectory"):
            if not as_root:
                raise SmfRenderError(
                    f"{where}: only root can do that, and an SMF method is not root unless the daemon is: use user: root, or do without"
                )
            made.before.append(
                _read_environment(value) if key == "EnvironmentFile" else f"mkdir -p {shlex.quote(f'/run/{value}')}"
            )
        else:
            raise SmfRenderError(f"{where}: SMF has no counterpart (known: {', '.join([*TRANSLATED, *DROPPED])})")
    return made


def _read_environment(path: str) -> str:
    """Shell that exports the lines ``NAME=value`` of a file as they stand, nothing in them expanded."""
    return f'while IFS= read -r line; do case $line in [A-Za-z_]*=*) export "${{line%%=*}}=${{line#*=}}";; esac; done <{shlex.quote(path)}'


def _words(where: str, command: str) -> str:
    """A systemd command line as a line for a shell, each word quoted."""
    if re.search(r"\$[A-Za-z_{]|%", command) or command[:1] in "@-:+!|":
        raise SmfRenderError(
            f"{where}: {command!r} uses prefixes, variables or specifiers of systemd.service(5), which SMF lacks: write it out"
        )
    return shlex.join(shlex.split(command))


def _line(name: str, daemon: Daemon, service: t.Mapping[str, t.Any], plan: _Plan) -> str:
    """The start method: the command alone where that is all, otherwise a shell that ends as the command."""
    command = _words(f"daemons.{name}.command", command_of(name, daemon, service))
    before = list(plan.before)
    if daemon.get("wsgi"):
        user, folder = user_of(daemon, service), shlex.quote(f"/run/{name}")
        before = [f"mkdir -p {folder}", f"chown {user}:www-data {folder}", f"chmod 0750 {folder}", *before]
        groups = [user, *(["zonetls"] if daemon.get("tls", True) else [])]
        command += f" --uid {user} --gid www-data {' '.join(f'--add-gid {group}' for group in groups)}"
    if not before:
        return command.replace("%", "%%")
    return f"/bin/sh -c {shlex.quote(' && '.join([*before, f'exec {command}']))}".replace("%", "%%")


def render_smf(
    name: str,
    daemon: Daemon,
    service: t.Mapping[str, t.Any],
    files: t.Mapping[str, str],
    extra_reads: t.Iterable[str] = (),
    *,
    known: t.Mapping[str, str] | None = None,
    enabled: bool = True,
) -> Rendered:
    """The SMF manifest of a daemon of ours, from what :func:`~.daemon.render_systemd` takes. Pure.

    :param known: FMRIs by the names that ``after`` has for them, such as those of the zone's own daemons by their units' names.
    :param enabled: whether the instance is enabled when it is imported for the first time, and after each boot of a global zone.
    :raise SmfRenderError: the declaration says what SMF cannot do.
    """
    if daemon.get("unit"):
        raise SmfRenderError(
            f"daemons.{name}.unit: {daemon['unit']} is a unit that a Linux package brings: give its command instead"
        )
    kind = "simple" if daemon.get("wsgi") else daemon.get("type") or "simple"
    user = user_of(daemon, service)
    plan = _plan(name, daemon, as_root=bool(daemon.get("wsgi")) or user == "root")
    bundle = ET.Element("service_bundle", type="manifest", name=f"zonestack:{name}")
    element = ET.SubElement(bundle, "service", name=f"zonestack/{name}", type="service", version="1")
    ET.SubElement(element, "create_default_instance", enabled=str(enabled).lower())
    _dependencies(element, name, daemon, known or {})
    context = ET.SubElement(element, "method_context", working_directory="/")
    if not daemon.get("wsgi") and user != "root":
        groups = [user, *(["zonetls"] if daemon.get("tls", True) else [])]
        ET.SubElement(context, "method_credential", user=user, group=user, supp_groups=",".join(groups))
    environment = ET.SubElement(context, "method_environment")
    for key, value in sorted(plan.environment.items()):
        ET.SubElement(environment, "envvar", name=key, value=value)
    duration = DURATIONS[kind]
    # svc.startd does not watch the time of a child's start method.
    _method(element, "start", _line(name, daemon, service, plan), 0 if duration == "child" else plan.start_timeout)
    _method(element, "stop", ":true" if duration == "transient" else plan.stop, plan.stop_timeout)
    _property(ET.SubElement(element, "property_group", name="startd", type="framework"), "duration", duration)
    reads = [*(daemon.get("reads") or []), *(extra_reads if daemon.get("tls", True) else [])]
    mark = digest(files, reads, ET.tostring(bundle, encoding="unicode"))
    _property(ET.SubElement(element, "property_group", name="zonestack", type="application"), "digest", mark)
    title = ET.SubElement(
        ET.SubElement(ET.SubElement(element, "template"), "common_name"), "loctext", {"xml:lang": "C"}
    )
    title.text = f"{service['description']}: {name}"
    ET.indent(bundle)
    note = "<!-- Written by zonestack; the next run overwrites what is changed here. -->\n"
    text = f"{DOCTYPE}{note}{ET.tostring(bundle, encoding='unicode')}\n"
    fmri = fmri_of(name)
    return Rendered(fmri, kept_path(fmri), text, mark)


def _dependencies(parent: ET.Element, name: str, daemon: Daemon, known: t.Mapping[str, str]) -> None:
    """What the daemon starts after: its zone's file systems and network, and what its declaration names."""
    _dependency(parent, "filesystem", "require_all", "svc:/system/filesystem/local:default")
    _dependency(parent, "network", "optional_all", "svc:/milestone/network:default")
    for index, unit in enumerate(daemon.get("after") or []):
        fmri = unit if INSTANCE_FMRI.fullmatch(unit) else known.get(unit)
        if fmri is None:
            names = ", ".join(sorted(known)) or "none"
            raise SmfRenderError(
                f"daemons.{name}.after[{index}]: {unit!r} is unknown: give a full FMRI, or one of the zone's own daemons ({names})"
            )
        # Wants= and After=: in order where it runs, and no worse where it does not.
        _dependency(parent, f"after_{index}", "optional_all", fmri)


def _dependency(parent: ET.Element, name: str, grouping: str, fmri: str) -> None:
    element = ET.SubElement(parent, "dependency", name=name, grouping=grouping, restart_on="none", type="service")
    ET.SubElement(element, "service_fmri", value=fmri)


def _method(parent: ET.Element, name: str, line: str, timeout: int) -> None:
    ET.SubElement(
        parent, "exec_method", {"type": "method", "name": name, "exec": line, "timeout_seconds": str(timeout)}
    )


def _property(parent: ET.Element, name: str, value: str) -> None:
    ET.SubElement(parent, "propval", name=name, type="astring", value=value)
