# SPDX-License-Identifier: GPL-3.0-or-later
"""Methods (smf_method(7)): what is run, in which context, with which environment."""

from __future__ import annotations

import grp
import os
import pwd
import re
import signal
import time
import typing as t
from collections.abc import Callable
from dataclasses import dataclass

from .fmri import Fmri
from .place import Place
from .repository import Group, Groups

OK, NODAEMON, FATAL, CONFIG, NOSMF, PERMISSION = 0, 94, 95, 96, 99, 100

#: Exit statuses after which only an administrator can help; all others are tried again.
HOPELESS = (FATAL, CONFIG, NOSMF, PERMISSION)

_METACHARACTERS = ";&()|^<>\n \t\\\"'`"


class ContextError(Exception):
    """A method's context is wrong; the method fails as if it had exited with CONFIG."""


@dataclass(frozen=True)
class Method:
    """One method of an instance. ``timeout`` is in seconds, None for no limit."""

    name: str
    line: str
    timeout: float | None
    group: Group

    @property
    def is_true(self) -> bool:
        return self.line.strip() == ":true"

    @property
    def kill_signal(self) -> int | None:
        """The signal of ``:kill [-SIG]``; None for any other method."""
        words = self.line.split()
        if not words or words[0] != ":kill":
            return None
        name = words[1].lstrip("-") if len(words) > 1 else "TERM"
        return int(name) if name.isdigit() else signal.Signals[f"SIG{name.removeprefix('SIG')}"].value


def find(groups: Groups, name: str) -> Method | None:
    """A method among an instance's groups; None where it has none of that name."""
    group = groups.get(name)
    if group is None or group.type != "method" or not group.first("exec"):
        return None
    seconds = int(group.first("timeout_seconds") or 0)
    return Method(name, group.first("exec") or "", seconds if seconds > 0 else None, group)


def quote(value: str) -> str:
    """Backslashes before what a shell would heed, as svcprop(1) and %{} have it."""
    return "".join(f"\\{one}" if one in _METACHARACTERS else one for one in value)


def expand(line: str, fmri: Fmri, method: str, groups: Groups) -> str:
    """Replace the tokens of a method's line."""
    simple = {"%": "%", "r": "svc.startd", "m": method, "s": fmri.service, "i": fmri.instance, "f": str(fmri)}

    def token(found: re.Match[str]) -> str:
        if found["simple"]:
            if found["simple"] not in simple:
                raise ContextError(f"method token %{found['simple']} is not known")
            return simple[found["simple"]]
        separator = found["name"][-1:] if found["name"][-1:] in ",:" else ""
        group, slash, key = found["name"].removesuffix(separator).rpartition("/")
        one = groups.get(group if slash else "application")
        if one is None or key not in one.properties:
            raise ContextError(f"method token %{{{found['name']}}} names a property that is not there")
        return (separator or " ").join(quote(value) for value in one.properties[key].values)

    return re.sub(r"%(?:\{(?P<name>[^}]*)\}|(?P<simple>.))", token, line)


def log(place: Place, fmri: Fmri, text: str) -> None:
    """One line in an instance's log, in svc.startd's form."""
    path = place.path(f"/var/svc/log/{fmri.log_name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"[ {time.strftime('%b %e %H:%M:%S')} {text} ]\n")


def prepare(place: Place, zonename: str, fmri: Fmri, method: Method, groups: Groups) -> Callable[[], t.NoReturn]:
    """What the method's process does: take on the context and execute the line, ``exec`` put before it, by /bin/sh.

    :raise ContextError: when the context is wrong.
    """
    line = f"exec {expand(method.line, fmri, method.name, groups)}"
    shared = groups["method_context"].properties if "method_context" in groups else {}
    own = {
        name: one for name, one in method.group.properties.items() if name not in ("exec", "timeout_seconds", "type")
    }
    context = Group("", {**shared, **own})
    user, group = context.first("user"), context.first("group")
    entry = _user(user) if user else None
    if entry and os.geteuid() not in (0, entry.pw_uid):
        raise ContextError(f"could not set context for method: setppriv: not the privilege to become {user}")
    gid = _gid(group) if group and group != ":default" else entry.pw_gid if entry else None
    further = context.first("supp_groups")
    others: list[int] | None = None
    if entry:
        wanted = re.split(r"[ ,]+", further.strip()) if further and further != ":default" else None
        others = [_gid(one) for one in wanted] if wanted else os.getgrouplist(entry.pw_name, t.cast("int", gid))
    directory = context.first("working_directory")
    if directory in (None, ":default", ":home"):
        directory = entry.pw_dir if entry and (directory or user or group) else "/"
    if not os.path.isdir(directory):
        raise ContextError(f"could not set context for method: chdir: {directory}: No such file or directory")
    variables = context.properties["environment"].values if "environment" in context.properties else ()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SMF_")},
        "PATH": "/usr/sbin:/usr/bin",
        **dict(one.partition("=")[::2] for one in variables),
        "SMF_FMRI": str(fmri),
        "SMF_METHOD": method.name,
        "SMF_RESTARTER": "svc:/system/svc/restarter:default",
        "SMF_ZONENAME": zonename,
    }
    path = str(place.path(f"/var/svc/log/{fmri.log_name}"))

    def become() -> t.NoReturn:
        null = os.open("/dev/null", os.O_RDONLY)
        out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.closerange(3, 64)
        os.chdir(directory)
        if entry and os.geteuid() == 0:
            os.setgroups(others or [])
            os.setgid(t.cast("int", gid))
            os.setuid(entry.pw_uid)
        os.execve("/bin/sh", ["/bin/sh", "-c", line], environment)

    log(place, fmri, f'Executing {method.name} method ("{method.line}").')
    return become


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise ContextError(f"could not set context for method: Missing passwd entry for user {name}.") from None


def _gid(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ContextError(f"could not set context for method: Missing group entry for {name}.") from None
