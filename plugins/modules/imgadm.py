#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install, make and remove the images of a SmartOS host, and say where they come from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: imgadm
short_description: Install, create and remove the images of a SmartOS host, and set their sources
version_added: 0.1.0
description:
  - Drives imgadm(8) in the global zone of SmartOS. What is there is asked as JSON, and exit codes decide, never messages.
  - An image is named by its UUID, or by O(name) and O(version), which must be of one image only.
  - Written from imgadm's source and man page and run against recordings of its own code and a simulator. It was not yet run
    on SmartOS; F(docs/how-to/smartos.md) tells what that leaves open.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    description:
      - Says exactly what would be done. Files are read and checked in full.
      - What only imgadm can know is found when it runs. That is whether this platform is new enough for an image, whether a
        server that O(sources) adds answers, and whether an image is at the server of O(source) or in the O(channel).
    support: full
  diff_mode:
    description: Shows the image, the list of images or the list of sources before and after.
    support: full
options:
  state:
    description:
      - V(present) installs the image unless it is installed, from the sources, or from O(manifest) and O(file). With
        O(sources) it configures these.
      - V(absent) removes the image. VMs and images that are clones of it are an error that names them. With O(sources) it
        removes these from the configuration.
      - V(created) makes O(output).imgmanifest and the file beside it from O(vm), unless they are there complete, with this
        O(name), O(version) and O(fields). What the VM holds is not compared.
      - V(vacuumed) removes all images of all pools that nothing is a clone of, and then those that only these were clones of.
      - V(updated) renews what imgadm knows about installed images (of O(uuid), or of all) from the sources, and makes their
        C(@final) snapshots where they are missing.
    type: str
    choices: [present, absent, created, vacuumed, updated]
    default: present
  uuid:
    description: UUID of the image, in lower case.
    type: str
  name:
    description: Name of the image, together with O(version).
    type: str
  version:
    description: Version of the image, a text (quote V("1.0")).
    type: str
  pool:
    description: ZFS pool that the image is installed on.
    type: str
    default: zones
  source:
    description:
      - URL of the only image server to import from, configured or not. Without it, all configured sources are asked.
      - Only together with O(uuid), as imgadm lists images of configured sources only.
    type: str
  channel:
    description: Channel of the image server, such as V(release) or V(dev). Only together with O(uuid).
    type: str
  manifest:
    description: Path on the host of the manifest (JSON, version 2) of the image to install, together with O(file).
    type: path
  file:
    description:
      - Path on the host of the image's file, a stream of C(zfs send) of one snapshot. Its size and SHA-1 are those in the
        manifest.
    type: path
  vm:
    description: UUID of the VM that the image is made of. It is stopped, unless there is a O(prepare_script).
    type: str
  output:
    description: Path on the host, without ending, to which V(.imgmanifest) and V(.zfs) or V(.zvol) are added.
    type: path
  fields:
    description:
      - Further fields of the manifest, such as C(description), C(os) or C(tags). imgadm takes the others from the image of
        the VM.
    type: dict
    default: {}
  compression:
    description: How the image's file is compressed.
    type: str
    choices: [none, gzip, bzip2, xz]
    default: none
  incremental:
    description: Whether the file only has what differs from the image that the VM is a clone of, which is then needed too.
    type: bool
    default: false
  prepare_script:
    description:
      - Path on the host of a script that imgadm runs in the VM before. imgadm takes a snapshot, starts the VM, runs the
        script, makes the image and rolls back. See imgadm(8), PREPARE IMAGE SCRIPT.
    type: path
  sources:
    description: Image servers. With O(state=present) they are configured as said here, new ones behind those that are there.
    type: list
    elements: dict
    suboptions:
      url:
        description: URL of the server. A slash at its end counts for nothing.
        type: str
        required: true
      type:
        description: Protocol of the server. V(dsapi) is obsolete.
        type: str
        choices: [imgapi, docker, dsapi]
        default: imgapi
      insecure:
        description: Whether its TLS certificate is not checked.
        type: bool
        default: false
  exclusive:
    description: With O(state=present) and O(sources), whether all other sources are removed.
    type: bool
    default: false
  ping:
    description: Whether a server must answer before it is added to the sources.
    type: bool
    default: true
  confirm:
    description:
      - Whether the images that nothing uses are really to be removed with O(state=vacuumed). Without it the task fails and
        says which they are.
    type: bool
    default: false
  timeout:
    description: Seconds that each command that moves images may take before it is killed. Questions may take 120.
    type: int
    default: 3600
requirements:
  - SmartOS, root in its global zone
seealso:
  - module: zonestack.openstack.imgadm_info
"""

EXAMPLES = r"""
- name: Install an image by its UUID
  zonestack.openstack.imgadm:
    uuid: c0ffee00-64aa-4b64-9001-a00000000001

- name: Install an image by name and version
  zonestack.openstack.imgadm:
    name: base-64-lts
    version: "24.4.1"
  register: __image    # __image.uuid, __image.manifest

- name: Install an image that was made elsewhere
  zonestack.openstack.imgadm:
    manifest: /zones/images/keystone.imgmanifest
    file: /zones/images/keystone.zfs.gz

- name: Make an image of a stopped VM
  zonestack.openstack.imgadm:
    state: created
    vm: 20000000-aaaa-4bbb-8ccc-000000000002
    name: keystone
    version: "2026.2.1"
    output: /zones/images/keystone
    compression: gzip
    fields:
      description: Keystone and its web server
      tags: {role: keystone}

- name: Have our own image server and no other
  zonestack.openstack.imgadm:
    sources:
      - url: https://images.example.com
    exclusive: true

- name: Remove an image, or hear what still uses it
  zonestack.openstack.imgadm:
    state: absent
    uuid: c0ffee00-64aa-4b64-9001-a00000000001

- name: Remove all images that nothing uses
  zonestack.openstack.imgadm:
    state: vacuumed
    confirm: true
"""

RETURN = r"""
uuid:
  description: UUID of the image; null for one that check mode would make.
  returned: when the task is about one image and that one is known
  type: str
manifest:
  description:
    - Manifest of the image that was found, installed, made or removed.
    - Null where only imgadm could get it, that is in check mode with O(source), O(channel) or O(state=created).
  returned: when the task is about one image
  type: dict
  sample: {v: 2, uuid: c0ffee00-64aa-4b64-9001-a00000000001, name: base-64-lts, version: 24.4.1, type: zone-dataset, os: smartos}
manifest_path:
  description: Path of the manifest that was made.
  returned: when state is created
  type: str
file:
  description: Path of the image's file; null in check mode when it is to be made.
  returned: when state is created
  type: str
sources:
  description: The configured sources in their order, at the end.
  returned: when the task has sources
  type: list
  elements: dict
  sample: [{url: https://images.smartos.org, type: imgapi, insecure: false}]
deleted:
  description: The images that were removed.
  returned: when state is vacuumed
  type: list
  elements: dict
  sample: [{uuid: c0ffee00-64aa-4b64-9001-a00000000003, name: web-app, version: 1.0.2, pool: zones}]
updated:
  description: What imgadm says that it updated, a line each.
  returned: when state is updated
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.imgadm import (
    COMPRESSIONS,
    POOL,
    SOURCE_TYPES,
    Image,
    ImageError,
    Imgadm,
    Manifest,
    check_file,
    check_manifest,
    check_uuid,
    choose,
    made,
    output_files,
    read_manifest,
    same_image,
    source_commands,
    source_of,
    unused,
    vm_state,
)

SOURCE: dict[str, t.Any] = {
    "url": {"type": "str", "required": True},
    "type": {"type": "str", "choices": list(SOURCE_TYPES), "default": "imgapi"},
    "insecure": {"type": "bool", "default": False},
}
ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent", "created", "vacuumed", "updated"], "default": "present"},
    "uuid": {"type": "str"},
    "name": {"type": "str"},
    "version": {"type": "str"},
    "pool": {"type": "str", "default": POOL},
    "source": {"type": "str"},
    "channel": {"type": "str"},
    "manifest": {"type": "path"},
    "file": {"type": "path"},
    "vm": {"type": "str"},
    "output": {"type": "path"},
    "fields": {"type": "dict", "default": {}},
    "compression": {"type": "str", "choices": list(COMPRESSIONS), "default": "none"},
    "incremental": {"type": "bool", "default": False},
    "prepare_script": {"type": "path"},
    "sources": {"type": "list", "elements": "dict", "options": SOURCE},
    "exclusive": {"type": "bool", "default": False},
    "ping": {"type": "bool", "default": True},
    "confirm": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
}
# What each state speaks of: one of the lists, all of it.
SUBJECTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "present": (("uuid",), ("name", "version"), ("manifest", "file"), ("sources",)),
    "absent": (("uuid",), ("name", "version"), ("sources",)),
    "created": (("vm", "output", "name", "version"),),
    "vacuumed": ((),),
    "updated": ((), ("uuid",)),
}
Given = t.Mapping[str, t.Any]
Result = dict[str, t.Any]


def subject(given: Given) -> tuple[str, ...]:
    """The options that say what the task is about, checked to be the right ones for its state."""
    known = {key for lists in SUBJECTS.values() for one in lists for key in one}
    there = {key for key in known if given[key] is not None}
    choices = SUBJECTS[given["state"]]
    for one in choices:
        if there == {*one}:
            return one
    right = ", or ".join(" and ".join(one) or "nothing of these" for one in choices)
    raise ImageError(
        f"state {given['state']}: the options that name the image are {', '.join(sorted(there)) or 'missing'}: give {right}"
    )


def present(imgadm: Imgadm, given: Given, check: bool) -> Result:
    """Install an image unless it is installed."""
    about, pool = subject(given), given["pool"]
    manifest: Manifest | None = None
    if "manifest" in about:
        manifest = read_manifest(given["manifest"])
        check_manifest(manifest, given["manifest"])
        uuid = manifest["uuid"]
    elif "uuid" in about:
        uuid = check_uuid(given["uuid"])
    else:
        if given["source"] or given["channel"]:
            raise ImageError(
                "source and channel: give them only with uuid, because imgadm looks for names in its configured sources"
            )
        there = choose(
            (one.manifest for one in imgadm.installed() if one.pool == pool), given["name"], given["version"]
        )
        uuid = there or _offered(imgadm, given["name"], given["version"])

    have = imgadm.get(uuid, pool)
    if have is not None and manifest is not None:
        same_image(have, manifest)
    now = have
    if have is None and manifest is not None:
        check_file(manifest, given["file"], digest=check)
        origin = manifest.get("origin")
        if origin and imgadm.get(origin, pool) is None:
            raise ImageError(
                f"image {uuid}: the image {origin}, from which it is cloned, is not installed on {pool}: install that image first"
            )
        if not check:
            imgadm.install(manifest, given["file"], pool)
    elif have is None:
        if not check:
            imgadm.fetch(uuid, pool, given["source"], given["channel"])
        elif not given["source"] and not given["channel"]:
            manifest = imgadm.show(uuid)
    if have is None and not check:
        now = imgadm.get(uuid, pool)
        if now is None:
            raise ImageError(
                f"image {uuid}: imgadm succeeded, but the image is not on {pool}: look for what removes it"
            )
    return _about_one(
        uuid, pool, have, {"state": "present", "uuid": uuid, "pool": pool}, now.manifest if now else manifest
    )


def _offered(imgadm: Imgadm, name: str, version: str) -> str:
    """The UUID of the image of that name and version that the sources offer."""
    offers = [manifest for _url, manifest in imgadm.available() if manifest.get("state", "active") == "active"]
    uuid = choose(offers, name, version)
    if uuid is None:
        others = sorted({str(one.get("version")) for one in offers if one.get("name") == name})
        what = f"only these versions of {name}: {', '.join(others)}" if others else f"no {name}"
        raise ImageError(f"image {name} {version}: it is neither installed nor offered: the sources offer {what}")
    return uuid


def absent(imgadm: Imgadm, given: Given, check: bool) -> Result:
    """Remove an image that nothing uses."""
    about, pool = subject(given), given["pool"]
    uuid: str | None
    if "uuid" in about:
        uuid = check_uuid(given["uuid"])
    else:
        uuid = choose((one.manifest for one in imgadm.installed() if one.pool == pool), given["name"], given["version"])
    have = imgadm.get(uuid, pool) if uuid else None
    if have is not None:
        if have.clones:
            raise ImageError(f"image {have.uuid} on {pool} has clones: remove these first: {', '.join(have.clones)}")
        if not check:
            imgadm.delete(have.uuid, pool)
            if imgadm.get(have.uuid, pool) is not None:
                raise ImageError(
                    f"image {have.uuid}: imgadm succeeded, but the image is still on {pool}: look for what installs it"
                )
    return _about_one(uuid, pool, have, {"state": "absent"}, have.manifest if have else None)


def _about_one(
    uuid: str | None, pool: str, have: Image | None, after: dict[str, t.Any], manifest: Manifest | None
) -> Result:
    before = {"state": "absent"} if have is None else {"state": "present", "uuid": uuid, "pool": pool}
    known = {} if uuid is None else {"uuid": uuid}
    return {**known, "changed": before != after, "manifest": manifest, "diff": {"before": before, "after": after}}


def created(imgadm: Imgadm, given: Given, check: bool) -> Result:
    """Make an image of a VM unless it was made before."""
    subject(given)
    vm, prefix = check_uuid(given["vm"]), given["output"]
    wanted = {**given["fields"], "name": given["name"], "version": given["version"]}
    path = f"{prefix}.imgmanifest"
    if os.path.isdir(prefix) or not os.path.isdir(os.path.dirname(os.path.abspath(prefix))):
        raise ImageError(f"output: {prefix!r} is not valid: use a path without ending, in a directory that exists")
    manifest = read_manifest(path) if os.path.exists(path) else None
    complete = False
    if manifest is not None:
        check_manifest(manifest, path)
        made(manifest, wanted, path)
        file = output_files(prefix, manifest)[1]
        complete = os.path.exists(file) and os.path.getsize(file) == manifest["files"][0]["size"]
    before = {"state": "created" if complete else "absent"}
    if not complete:
        state = vm_state(vm)
        if state is None:
            raise ImageError(f"vm: there is no VM {vm} on this host")
        if state != "stopped" and not given["prepare_script"]:
            raise ImageError(f"vm: {vm} is {state}: stop it first, or give a prepare_script that prepares it")
        if given["prepare_script"] and not os.path.isfile(given["prepare_script"]):
            raise ImageError(f"prepare_script: there is no file {given['prepare_script']} on this host")
        manifest = None
        if not check:
            options = {
                "compression": given["compression"],
                "incremental": given["incremental"],
                "script": given["prepare_script"],
            }
            manifest = dict(imgadm.create(vm, wanted, prefix, **options))
            check_manifest(manifest, path)
            made(manifest, wanted, path)
            check_file(manifest, output_files(prefix, manifest)[1], digest=False)
    return {
        "changed": not complete,
        "uuid": manifest["uuid"] if manifest else None,
        "manifest": manifest,
        "manifest_path": path,
        "file": output_files(prefix, manifest)[1] if manifest else None,
        "diff": {"before": before, "after": {"state": "created"}},
    }


def vacuumed(imgadm: Imgadm, given: Given, check: bool) -> Result:
    """Remove the images that nothing uses, until none is left."""
    subject(given)
    before = imgadm.installed()
    doomed = unused(before)
    if not given["confirm"]:
        names = ", ".join(
            f"{one.uuid} ({one.manifest.get('name')} {one.manifest.get('version')}, {one.pool})" for one in doomed
        )
        raise ImageError(
            f"state vacuumed would remove {len(doomed)} images for good ({names or 'none'}): set confirm: true to remove them"
        )
    after = [one for one in before if one not in doomed]
    if not check:
        last = len(before) + 1
        after = before
        # An image on which only one that was just removed stood is free for the next round.
        while unused(after) and len(after) < last:
            last = len(after)
            imgadm.vacuum()
            after = imgadm.installed()
        if unused(after):
            raise ImageError(
                f"imgadm vacuum succeeded, but left these: {', '.join(one.dataset for one in unused(after))}"
            )
    left = {one.dataset for one in after}
    gone = [one for one in before if one.dataset not in left]
    brief = [{key: one.plain()[key] for key in ("uuid", "name", "version", "pool")} for one in gone]
    return {
        "changed": bool(gone),
        "deleted": brief,
        "diff": {"before": _listing(one.dataset for one in before), "after": _listing(left)},
    }


def _listing(names: t.Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in sorted(names))


def updated(imgadm: Imgadm, given: Given, check: bool) -> Result:
    """Renew what imgadm knows about installed images."""
    uuids = [check_uuid(given["uuid"])] if subject(given) else []
    said = imgadm.refresh(uuids, dry_run=check)
    # An image that no source has is no update: imgadm says so on stdout, among what it did.
    done = [line.replace("[dry-run] ", "") for line in said if line.strip() and not line.startswith("warning: ")]
    return {
        "changed": bool(done),
        "updated": done,
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in done)},
    }


def configured(imgadm: Imgadm, given: Given, check: bool) -> Result:
    """Add and remove sources."""
    want = [source_of(one) for one in given["sources"]]
    have = imgadm.sources()
    commands, after = source_commands(have, want, given["state"], given["exclusive"])
    if commands and not check:
        for words in commands:
            imgadm.change_source(words, given["ping"])
        now = imgadm.sources()
        if now != after:
            raise ImageError(
                f"sources: imgadm succeeded, but has {[one.plain() for one in now]} instead of {[one.plain() for one in after]}"
            )
    sides = [[one.plain() for one in side] for side in (have, after)]
    return {
        "changed": bool(commands),
        "sources": sides[1],
        "diff": {"before": {"sources": sides[0]}, "after": {"sources": sides[1]}},
    }


STATES: dict[str, t.Callable[[Imgadm, Given, bool], Result]] = {
    "present": present,
    "absent": absent,
    "created": created,
    "vacuumed": vacuumed,
    "updated": updated,
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    try:
        action = configured if "sources" in subject(given) else STATES[given["state"]]
        result = action(Imgadm(given["timeout"]), given, module.check_mode)
    except (ImageError, CommandError, OSError) as error:
        module.fail_json(msg=f"imgadm: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
