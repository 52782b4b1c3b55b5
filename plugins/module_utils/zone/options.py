# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules ``zone`` and ``zones`` share: the options of a zone, and one zone made as they say."""

from __future__ import annotations

import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.backend import BACKENDS, about, open_backend
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.converge import STATES, converge
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import STORES, ZoneError, ZoneSpec

NETWORK: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "bridge": {"type": "str", "required": True},
    "mac": {"type": "str", "required": True},
    "address": {"type": "str"},
    "prefix": {"type": "int"},
    "gateway": {"type": "str"},
    "mtu": {"type": "int"},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "vips": {"type": "list", "elements": "str", "default": []},
}
OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "uuid": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "backend": {"type": "str", "choices": list(BACKENDS), "default": "lxc"},
    "image": {"type": "str"},
    "store": {"type": "str", "choices": list(STORES), "default": "overlay"},
    "memory": {"type": "int"},
    "cpu_cap": {"type": "int"},
    "quota": {"type": "int"},
    "networks": {"type": "list", "elements": "dict", "default": [], "options": NETWORK},
    "volumes": {"type": "dict", "default": {}},
    "privileged": {"type": "bool", "default": False},
    "devices": {"type": "list", "elements": "str", "default": []},
    "capabilities": {"type": "list", "elements": "str", "default": []},
    "autostart": {"type": "bool", "default": True},
    "idmap_base": {"type": "int", "default": 100000},
    "metadata": {"type": "dict", "default": {}},
    "disruptive": {"type": "bool", "default": True},
    "purge": {"type": "bool", "default": False},
    "foreseen": {"type": "bool", "default": False},
    "start_timeout": {"type": "int", "default": 60},
    "stop_timeout": {"type": "int", "default": 90},
}


def make_so(given: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Make the zone that the options describe; return what was done as :func:`~.converge.converge` does.

    :param given: all options, checked against :data:`OPTIONS`.
    :raise ZoneError: whatever the cause, the message names the zone.
    """
    backend = open_backend(given["backend"], start_timeout=given["start_timeout"], stop_timeout=given["stop_timeout"])
    try:
        return converge(
            backend,
            ZoneSpec.from_dict(given),
            given["state"],
            disruptive=given["disruptive"],
            purge=given["purge"],
            check_mode=check_mode,
            foreseen=given["foreseen"],
        )
    except ZoneError as bad:
        raise ZoneError(about(given["name"], str(bad))) from bad
