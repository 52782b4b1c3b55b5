# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One declaration of a daemon, rendered for the service manager of its zone: systemd units here, SMF manifests in smf.py.

A daemon must restart exactly when something that it read at its start has changed. So beside each unit lies a digest of
all that (files and unit), which the unit copies to ``/run/zonestack`` whenever it starts: what a daemon runs with is
compared with what it should run with, and a run that was killed between writing a file and restarting its reader is
made good by the next one. The digest is no part of the unit, so that a diff shows what a person changed and no more.
"""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass

Daemon = t.Mapping[str, t.Any]

#: Folder inside a zone in which running daemons leave their digests; lost at a restart of the zone, as the daemons are.
RUN_DIRECTORY = "/run/zonestack"

#: Folder inside a zone with the digest of what each daemon should run with.
DIGEST_DIRECTORY = "/etc/zonestack/digests"


@dataclass(frozen=True)
class Rendered:
    """A daemon for its service manager: name of its unit or FMRI, path of the file that we write, that file's text, and :func:`digest`."""

    unit: str
    path: str
    text: str
    digest: str


def is_read(path: str, reads: t.Iterable[str]) -> bool:
    """Whether ``path`` is one of ``reads`` or lies below one of them."""
    return any(path == read or path.startswith(read.rstrip("/") + "/") for read in reads)


def digest(files: t.Mapping[str, str], reads: t.Iterable[str], unit: str) -> str:
    """Digest of the unit's text and of the files that the daemon reads; 16 hexadecimal digits.

    :param files: fingerprint of each file that we render (path to digest of content, mode and owner).
    """
    wanted = list(reads)
    state = hashlib.sha256(unit.encode())
    for path in sorted(files):
        if is_read(path, wanted):
            state.update(f"\0{path}\0{files[path]}".encode())
    return state.hexdigest()[:16]


def digests(files: t.Mapping[str, str], reads: t.Iterable[str], unit: str) -> str:
    """The same for a daemon that takes changed files by a reload: unit and files apart, with a dot between them."""
    return f"{digest({}, [], unit)}.{digest(files, reads, '')}"


SANDBOX = (
    "NoNewPrivileges=true",
    "PrivateTmp=true",
    "ProtectHome=true",
    "ProtectSystem=full",
    "LockPersonality=true",
    "RestrictSUIDSGID=true",
)
"""What an application server cannot do, whoever speaks through it (systemd.exec(5)): it reads its configuration, writes below /var and
/run, and becomes nobody else."""


def _quote(value: str) -> str:
    """A value for ``Environment=`` (systemd.exec(5)): in double quotes, with specifiers and escapes disarmed."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _service_lines(daemon: Daemon) -> list[str]:
    lines = []
    if daemon.get("tls", True):
        lines.append("SupplementaryGroups=zonetls")
    lines += [
        f"Environment={_quote(f'{name}={value}')}" for name, value in sorted((daemon.get("environment") or {}).items())
    ]
    lines += [f"Limit{name}={value}" for name, value in sorted((daemon.get("limits") or {}).items())]
    lines += list(daemon.get("drop_in") or [])
    return lines


def _after(daemon: Daemon) -> list[str]:
    """Order and need: the daemon starts after these units, and pulls them in."""
    return [f"{verb}={unit}" for unit in daemon.get("after") or [] for verb in ("Wants", "After")]


def wsgi_command(name: str, daemon: Daemon, venv: str, workers: int, health: str) -> str:
    """uWSGI as the application server of one API, on a socket that only nginx of the same zone opens.

    TLS ends in nginx, because uWSGI's wheel is built without it. One thread a process: the services load policies and
    plugins lazily and without locks, and two first requests at once were seen to be refused with 403. The application is
    loaded once and then forked, so that a start costs one import; unless it is ``lazy``, because it holds threads or
    connections from its start, which do not survive a fork.

    Bodies of any size (``max_body: 0``) come by HTTP instead, as only so they may arrive in chunks of unknown number: nginx would keep all
    of them on disk first, also those of who has no token. uWSGI waits for each piece as long as nginx does.
    https://uwsgi-docs.readthedocs.io/en/latest/Options.html
    """
    lazy = " --lazy-apps" if daemon.get("lazy") else ""
    socket = "--uwsgi-socket"
    if daemon.get("max_body") == 0:
        socket = "--socket-timeout 60 --chunked-input-timeout 60 --http-socket"
    return (
        f"{venv}/bin/uwsgi --module {daemon['wsgi']} {socket} /run/{name}/uwsgi.sock --chmod-socket=660"
        f" --master --need-app{lazy} --die-on-term --enable-threads --processes {workers} --buffer-size 65535 --vacuum"
        # A client that does not wait for its answer is no error of the service.
        " --ignore-sigpipe --ignore-write-errors --disable-write-exception"
        f" --log-x-forwarded-for --route-uri '^{health}$ donotlog:' --procname-prefix-spaced {name}"
    )


def user_of(daemon: Daemon, service: t.Mapping[str, t.Any]) -> str:
    """The user that a daemon of ours runs as."""
    return str(daemon.get("user") or service["image"].get("user") or "root")


def command_of(name: str, daemon: Daemon, service: t.Mapping[str, t.Any]) -> str:
    """The command line of a daemon of ours, which stays in the foreground unless its type says otherwise."""
    if not daemon.get("wsgi"):
        return str(daemon["command"])
    # A lazy application shares no memory between its processes, so there are fewer of them.
    workers = int(daemon.get("workers") or (1 if daemon.get("lazy") else 2) * service["zone"]["vcpus"])
    return wsgi_command(
        name, daemon, f"/opt/{service['name']}", workers, (service.get("api") or {}).get("health") or "/"
    )


def _own_unit(name: str, daemon: Daemon, service: t.Mapping[str, t.Any]) -> tuple[list[str], list[str]]:
    """The unit of a daemon that no package brings: the lines before ``[Service]``, and those of that section."""
    user, command = user_of(daemon, service), command_of(name, daemon, service)
    if daemon.get("wsgi"):
        kind = [
            f"User={user}",
            "Group=www-data",
            f"SupplementaryGroups={user}",
            f"RuntimeDirectory={name}",
            "RuntimeDirectoryMode=0750",
            "Type=notify",
            "NotifyAccess=all",
            "KillMode=mixed",
            *SANDBOX,
        ]
    else:
        kind = [f"User={user}", f"Type={daemon.get('type') or 'simple'}"]
    head = [
        "[Unit]",
        f"Description={service['description']}: {name}",
        "After=network.target",
        "StartLimitIntervalSec=0",
        *_after(daemon),
        "",
    ]
    service_lines = [
        *kind,
        f"ExecStart={command}",
        "Restart=on-failure",
        "RestartSec=2",
        # Killed while it imports, it would only import again: on a machine with too much to do for ever.
        "TimeoutStartSec=300",
        "TimeoutStopSec=30",
        *_service_lines(daemon),
    ]
    return head, service_lines


def render_systemd(
    name: str,
    daemon: Daemon,
    service: t.Mapping[str, t.Any],
    files: t.Mapping[str, str],
    extra_reads: t.Iterable[str] = (),
) -> Rendered:
    """The systemd unit of a daemon of ours, or the drop-in for a packaged one (``unit:``).

    :param service: the service that the daemon belongs to; gives user, description and worker count.
    :param files: fingerprints of the zone's rendered files.
    :param extra_reads: paths that every daemon of the zone reads, such as its certificate.
    """
    reads = [*(daemon.get("reads") or []), *(extra_reads if daemon.get("tls", True) else [])]
    if daemon.get("unit"):
        unit = f"{daemon['unit']}.service"
        path = f"/etc/systemd/system/{unit}.d/zonestack.conf"
        head = ["[Unit]", "StartLimitIntervalSec=0", *_after(daemon), ""]
        service_lines, tail = _service_lines(daemon), []
    else:
        unit = f"{name}.service"
        path = f"/etc/systemd/system/{unit}"
        head, service_lines = _own_unit(name, daemon, service)
        tail = ["", "[Install]", "WantedBy=multi-user.target"]
    body = "\n".join([*head, "[Service]", *service_lines])
    mark = (digests if daemon.get("reload") else digest)(files, reads, "\n".join([body, *tail]))
    copy = f"mkdir -p {RUN_DIRECTORY} && cp {DIGEST_DIRECTORY}/{unit} {RUN_DIRECTORY}/{unit}"
    note = f"ExecStartPre=+/bin/sh -c '{copy}'"
    text = (
        "\n".join(["# Written by zonestack; the next run overwrites what is changed here.", body, note, *tail]) + "\n"
    )
    return Rendered(unit, path, text, mark)
