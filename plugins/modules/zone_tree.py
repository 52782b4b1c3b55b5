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
  - Everything is rendered on the controller from the nouns C(zone), C(service), C(stack) and C(secrets) of the inventory, and
    applied by a program that needs nothing in the zone but Python 3.9 or newer.
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
reloaded:
  description: Units that were told to read their files anew.
  type: list
  elements: str
  returned: always
"""
