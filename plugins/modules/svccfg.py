#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: svccfg
short_description: Import a manifest into SMF, set properties of a service, or delete it
version_added: 0.1.0
author: the zonestack authors (@zonestack)
description:
  - Configures services of the illumos Service Management Facility. It refreshes what it changes, so that SMF itself uses the
    new values. A service that read the old values at its start needs a restart; RV(restart_needed) names such instances.
  - The module validates a manifest before it changes anything, imports it, and then keeps it in O(path). It imports the
    manifest again when its text differs from the kept one, or when one of its instances is missing.
  - The global zone of SmartOS has its repository on a ramdisk, and imports the manifests of C(/opt/custom/smf) at each boot.
    After a boot a service is as its manifest says, enabled or not. Properties that O(properties) set there are lost; put
    what must stay into the manifest.
  - When a manifest is imported again, SMF keeps what an administrator has changed by other means. It says so on its standard
    error, which this module returns as a warning.
  - This module has never run on a real SmartOS machine; the tools' behaviour is taken from illumos' sources and manuals.
requirements:
  - illumos' C(svccfg), C(svcadm), C(svcs), C(svcprop), C(mktemp) and C(/bin/sh); with O(zone) C(zlogin) and C(zoneadm).
attributes:
  check_mode:
    support: full
    description: The module validates the manifest and reads everything, but changes nothing.
  diff_mode:
    support: full
    description: Shows the manifest and the properties before and after.
options:
  fmri:
    description:
      - Full FMRI of a service, such as V(svc:/site/web), or of an instance, such as V(svc:/site/web:default).
      - The module sets its properties, or deletes it with O(state=absent). Properties of an instance override those of its service.
    type: str
  state:
    description:
      - V(present) means that it is imported and has the properties.
      - V(absent) deletes it, after its instances were disabled and have stopped. The kept manifest is deleted with the service.
    type: str
    choices: [present, absent]
    default: present
  manifest:
    description: The manifest's text, a C(service_bundle) of type C(manifest). No secrets; everybody can read the repository.
    type: str
  path:
    description: File in which the manifest is kept. The default is the name of its first service below C(/opt/custom/smf).
    type: path
  properties:
    description: Properties of O(fmri) itself; others stay as they are.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the group and the property, such as V(application/port).
        type: str
        required: true
      type:
        description: Type of the values; see scf_value_create(3SCF). A property of another type is replaced.
        type: str
        choices: [astring, ustring, boolean, count, integer, fmri, host, hostname, net_address, opaque, time, uri]
        default: astring
      values:
        description: The values, in order.
        type: list
        elements: str
      state:
        description: Whether the property is to be there.
        type: str
        choices: [present, absent]
        default: present
      group_type:
        description: Type of the property group when it has to be made.
        type: str
        default: application
  timeout:
    description: Seconds for all of it, such as for instances to stop before they are deleted.
    type: int
    default: 300
  zone:
    description: Name of a running native zone of this global zone whose SMF is meant, instead of that of this zone.
    type: str
seealso:
  - module: zonestack.openstack.svcadm
"""

EXAMPLES = r"""
- name: Have the web server, also after a boot of the global zone
  zonestack.openstack.svccfg:
    manifest: "{{ lookup('ansible.builtin.template', 'web.xml.j2') }}"
  register: web

- name: Start it anew when what it has read has changed
  zonestack.openstack.svcadm:
    fmri: "{{ item }}"
    state: restarted
  loop: "{{ web.restart_needed }}"

- name: Give the metadata's script more time
  zonestack.openstack.svccfg:
    fmri: svc:/smartdc/mdata:execute
    zone: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
    properties:
      - {name: start/timeout_seconds, type: count, values: [600], group_type: method}

- name: Remove the web server
  zonestack.openstack.svccfg:
    fmri: svc:/site/web
    state: absent
"""

RETURN = r"""
actions:
  description: What was, or in check mode would be, done, in order.
  returned: success
  type: list
  elements: str
  sample: [import, refresh svc:/site/web:default]
instances:
  description: FMRIs of the instances that the manifest defines or that O(fmri) means.
  returned: success
  type: list
  elements: str
restart_needed:
  description:
    - Instances that run with another configuration than the one that is in effect now, so that a restart would change something.
    - Known only after the fact, so in check mode it tells what is so before.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.smf import Smf
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.smf_plan import (
    INSTANCE_FMRI,
    PROPERTY_NAME,
    SERVICE_FMRI,
    TYPES,
    Manifest,
    Setting,
    SmfError,
    commands,
    kept_path,
    normalize,
    read_manifest,
    service_of,
)

PROPERTY: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "choices": list(TYPES), "default": "astring"},
    "values": {"type": "list", "elements": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "group_type": {"type": "str", "default": "application"},
}
ARGUMENTS: dict[str, t.Any] = {
    "fmri": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "manifest": {"type": "str"},
    "path": {"type": "path"},
    "properties": {"type": "list", "elements": "dict", "default": [], "options": PROPERTY},
    "timeout": {"type": "int", "default": 300},
    "zone": {"type": "str"},
}


def to_settings(given: t.Sequence[t.Mapping[str, t.Any]]) -> list[Setting]:
    """The wished properties, checked."""
    found = []
    for index, one in enumerate(given):
        if not PROPERTY_NAME.fullmatch(one["name"]):
            raise SmfError(
                f"properties[{index}].name: {one['name']!r} is not valid: use group/property, such as application/port"
            )
        if (one["values"] is None) is (one["state"] == "present"):
            raise SmfError(
                f"properties[{index}].values: give values if the state of the property is present, and none if it is absent"
            )
        value = None
        if one["state"] == "present":
            try:
                value = normalize(one["type"], one["values"])
            except SmfError as bad:
                raise SmfError(f"properties[{index}].values: {bad}") from None
        found.append(Setting(one["name"], value, one["group_type"]))
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SmfError(f"properties: {', '.join(twice)} named more than once: name each property once")
    return found


class Change:
    """One call: what is found, what is done, and what is told of it."""

    def __init__(self, smf: Smf, check_mode: bool) -> None:
        self.smf = smf
        self.check_mode = check_mode
        self.actions: list[str] = []
        self.diff: list[dict[str, t.Any]] = []
        self.warnings: list[str] = []
        self.restart_needed: list[str] = []
        self.instances: list[str] = []

    def present(self, fmri: str | None, manifest: Manifest | None, path: str | None, settings: list[Setting]) -> None:
        """Import what differs, set what differs, refresh what has changed."""
        there = self.smf.states()
        changed: set[str] = set()
        if manifest:
            self.instances += manifest.instances
            if self.import_manifest(manifest, path or manifest.path, there):
                changed.update(manifest.instances)
        if fmri:
            mine = [one for one in {**there, **dict.fromkeys(self.instances)} if fmri in (one, service_of(one))]
            self.instances += [one for one in mine if one not in self.instances]
            if self.set_properties(fmri, settings, there):
                changed.update(mine)
        for one in self.instances:
            exists = one in there or not self.check_mode
            if one in changed or self.smf.unread(one):
                self.actions.append(f"refresh {one}")
                if not self.check_mode:
                    self.smf.act("refresh", one)
                    self.smf.refreshed(one)
            if exists and self.smf.stale(one):
                self.restart_needed.append(one)

    def import_manifest(self, manifest: Manifest, path: str, there: t.Collection[str]) -> bool:
        """Import a manifest unless that is done; whether there was something to do."""
        kept = self.smf.kept(path)
        missing = [one for one in manifest.instances if one not in there]
        if kept == manifest.text and not missing:
            return False
        self.smf.validate(manifest)
        self.actions.append("import")
        if kept != manifest.text:
            self.diff.append(
                {"before_header": path, "after_header": path, "before": kept or "", "after": manifest.text}
            )
        else:
            self.diff.append({"before": {"missing": missing}, "after": {"missing": []}})
        if not self.check_mode:
            said = self.smf.install(manifest, path)
            self.warnings += [said] if said else []
            still = [one for one in manifest.instances if one not in self.smf.states()]
            if still:
                raise SmfError(
                    f"svccfg imported the manifest, but it did not create {', '.join(still)}: {said or 'it said nothing'}"
                )
        return True

    def set_properties(self, fmri: str, settings: list[Setting], there: t.Collection[str]) -> bool:
        """Set what differs, and see that it is so; whether there was something to do."""
        known = set(there) if self.check_mode else {*there, *self.instances}
        exists = fmri in known if INSTANCE_FMRI.fullmatch(fmri) else self.smf.has_service(fmri)
        if not exists and fmri not in {*self.instances, *map(service_of, self.instances)}:
            raise SmfError(f"there is no {fmri}: import its manifest first, or find its name with `svcs -a`")
        have = self.smf.properties(fmri, "-C") if exists and settings else {}
        groups = self.smf.group_names(fmri) if exists and settings else set()
        todo = commands(fmri, have, groups, settings)
        if not todo:
            return False
        changed = [one for one in settings if have.get(one.name) != one.value]
        self.actions.append(f"set properties of {fmri}")
        self.diff.append(
            {
                "before_header": fmri,
                "after_header": fmri,
                "before": {one.name: str(have[one.name]) for one in changed if one.name in have},
                "after": {one.name: str(one.value) for one in changed if one.value is not None},
            }
        )
        if not self.check_mode:
            self.smf.configure(todo)
            now = self.smf.properties(fmri, "-C")
            for one in settings:
                if now.get(one.name) != one.value:
                    raise SmfError(
                        f"{fmri}: svccfg set {one.name} to {one.value}, but its value is {now.get(one.name)}: look for what else sets it"
                    )
        return True

    def absent(self, fmri: str, path: str | None) -> None:
        """Delete a service or an instance, and with a service the manifest that is kept."""
        states = self.smf.states()
        self.instances = [one for one in states if fmri in (one, service_of(one))]
        whole = bool(SERVICE_FMRI.fullmatch(fmri))
        if self.instances or (whole and self.smf.has_service(fmri)):
            self.actions.append(f"delete {fmri}")
            self.diff.append({"before": {one: states[one] for one in self.instances} or {fmri: "present"}, "after": {}})
            if not self.check_mode:
                self.smf.delete(fmri)
        path = path or kept_path(fmri)
        kept = self.smf.kept(path) if whole else None
        if kept is not None:
            self.actions.append(f"remove {path}")
            self.diff.append({"before_header": path, "after_header": path, "before": kept, "after": ""})
            if not self.check_mode:
                self.smf.run(["rm", "-f", path])


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("fmri", "manifest")],
        supports_check_mode=True,
    )
    given = module.params
    fmri = given["fmri"]
    try:
        if fmri and not SERVICE_FMRI.fullmatch(fmri) and not INSTANCE_FMRI.fullmatch(fmri):
            raise SmfError(
                f"fmri: {fmri!r} is not a full FMRI: write a service as svc:/site/web, an instance as svc:/site/web:default"
            )
        manifest = read_manifest(given["manifest"]) if given["manifest"] else None
        settings = to_settings(given["properties"])
        if settings and not fmri:
            raise SmfError("properties: set fmri to the service or instance that they belong to")
        change = Change(Smf(given["zone"], given["timeout"]), module.check_mode)
        if given["state"] == "present":
            change.present(fmri, manifest, given["path"], settings)
        elif settings:
            raise SmfError("properties: they cannot be set when state is absent: remove either of the two")
        else:
            for one in [fmri] if fmri else manifest.services if manifest else []:
                change.absent(one, given["path"])
    except (SmfError, CommandError) as bad:
        module.fail_json(msg=str(bad))
    for said in change.warnings:
        module.warn(said)
    module.exit_json(
        changed=bool(change.actions),
        actions=change.actions,
        instances=change.instances,
        restart_needed=change.restart_needed,
        diff=change.diff,
    )


if __name__ == "__main__":
    main()
