# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many zones of one host in one call: the zones side by side, a result for each."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: zones
short_description: Create, change, start, stop or remove zones of one host in parallel
version_added: 0.1.0
author: The zonestack authors (@zonestack)
description:
  - Does for each of O(zones) what M(zonestack.openstack.zone) does for one, in one call. A call costs half a second of processor
    time before it looks at a zone, so this is the way to many zones.
  - A zone that fails stops no other one. The call fails when all are done, and names those that failed.
requirements:
  - LXC 5 or newer on the host, and root there.
attributes:
  check_mode:
    support: full
    description: The same plans are made and returned, but not run.
  diff_mode:
    support: full
    description: Shows the description of each zone that changes, before and after.
options:
  zones:
    description: The zones, each with the options of M(zonestack.openstack.zone).
    type: list
    elements: dict
    required: true
  jobs:
    description:
      - At most so many zones are made at a time.
      - By default as many as the host has processors, but at least 4, as a zone that starts is waited for most of the time.
    type: int
"""

EXAMPLES = r"""
- name: Run two zones
  zonestack.openstack.zones:
    zones:
      - name: aio1-memcached-1
        uuid: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
        image: memcached-0123456789ab
        memory: 256
      - name: aio1-galera-1
        uuid: 0d8d4c1a-3c55-5d29-8a3f-6b1f0c9d7e22
        image: galera-ba9876543210
        volumes:
          data: {path: /var/lib/mysql, owner: mysql}
        disruptive: false
"""

RETURN = r"""
zones:
  description:
    - What M(zonestack.openstack.zone) returns for each zone, by the zone's name.
    - A zone that failed has C(failed) and C(msg) instead.
  returned: always
  type: dict
  sample:
    aio1-memcached-1: {changed: true, actions: [create, start], pending: [], restarted: false, pid: 4711}
    aio1-galera-1: {changed: false, failed: true, msg: "zone 'aio1-galera-1': image: none given; there are: memcached-0123456789ab"}
"""

import os
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.options import (
    OPTIONS,
    about,
    make_so,
)

ARGUMENTS: dict[str, t.Any] = {
    "zones": {"type": "list", "elements": "dict", "required": True},
    "jobs": {"type": "int"},
}
JOBS = 4  # at least so many zones at a time by default


def result_of(zone: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Make one zone so and return its result, also when that is a failure."""
    checked = ArgumentSpecValidator(OPTIONS).validate(zone)
    try:
        if checked.error_messages:
            raise ZoneError(about(str(zone["name"]), "; ".join(checked.error_messages)))
        return make_so(checked.validated_parameters, check_mode)
    except ZoneError as bad:
        return {"changed": False, "failed": True, "msg": str(bad)}


def headed(name: str, diff: dict[str, t.Any]) -> dict[str, t.Any]:
    """A zone's diff with the zone's name above it."""
    return {"before_header": name, "after_header": name, **diff}


def main() -> None:
    """Run the module."""
    os.umask(0o022)  # zones pass through the folders that are made here
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    zones = module.params["zones"]
    names = [str(zone.get("name") or "") for zone in zones]
    if not all(names):
        module.fail_json(msg=f"zones[{names.index('')}].name: a zone needs a name", zones={})
    if twice := sorted({name for name in names if names.count(name) > 1}):
        module.fail_json(msg=f"zones: {', '.join(twice)} named more than once: name each zone once", zones={})
    with ThreadPoolExecutor(max(1, module.params["jobs"] or max(JOBS, os.cpu_count() or 1))) as pool:
        running = {str(zone["name"]): pool.submit(result_of, zone, module.check_mode) for zone in zones}
    results = {name: future.result() for name, future in running.items()}
    diffs = {name: result.pop("diff", None) for name, result in results.items()}
    made = {
        "changed": any(result["changed"] for result in results.values()),
        "zones": results,
        "diff": [headed(name, diffs[name]) for name, result in results.items() if result["changed"]],
    }
    failed = [result["msg"] for result in results.values() if result.get("failed")]
    if failed:
        heading = [f"{len(failed)} of {len(zones)} zones failed"] if len(zones) > 1 else []
        module.fail_json(msg="\n".join([*heading, *failed]), **made)
    module.exit_json(**made)


if __name__ == "__main__":
    main()
