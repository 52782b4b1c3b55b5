#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the images that zones are clones of, or remove those that nothing uses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zone_image
short_description: Build and prune the images of zones
version_added: 0.1.0
description:
  - Builds each image once per content hash, the base image first, the others on top of it, several at once.
  - Images of LXC zones lie below I(store). The base image is made with C(mmdebstrap), the others in unprivileged builder containers.
  - Images of SmartOS zones are imgadm's, under UUIDs computed from their IDs. The base image begins as a zone of an image of Debian
    that is there or is fetched (I(seed)), the others as zones of their parents; all are furnished as those of LXC zones are.
  - This has not run on a real SmartOS machine yet.
  - An image whose archive is at hand, here or at another host (I(archives)), is unpacked from it rather than built.
  - An image that is there is never changed. A build that is killed leaves nothing that looks finished; the next call
    removes its remains.
  - The log of each build is kept in C(log/<id>.log) below I(store).
author: the zonestack authors (@zonestack)
options:
  state:
    description:
      - V(present) builds the images of I(images) that are missing.
      - V(pruned) removes the images that no zone uses, neither directly nor as a parent, and that I(keep) does not name.
    type: str
    choices: [present, pruned]
    default: present
  images:
    description: Recipes of the images that must be there. A parent that is not there yet must be among them.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: V(<name>-<12 hexadecimal digits>), which names the recipe's content.
        type: str
        required: true
      name:
        description: Name of the image, the same for all its contents.
        type: str
        required: true
      parent:
        description: ID of the image below. Without it this is a base image.
        type: str
      packages:
        description: Debian packages, installed without what they only recommend.
        type: list
        elements: str
        default: []
      python:
        description: Requirement names for the virtualenv, each of them in I(lock).
        type: list
        elements: str
        default: []
      lock:
        description: Text of the lock, with versions and hashes of everything that I(python) may bring.
        type: str
      venv:
        description: Path of the virtualenv.
        type: path
      adds_to:
        description:
          - Path of the parent's virtualenv, to which the packages of I(python) are added; I(venv) becomes another name of it.
          - Without it the image has a virtualenv of its own.
        type: path
      user:
        description: System user that the daemons run as.
        type: str
      commands:
        description: Shell commands run as root in the image, after packages and virtualenv.
        type: list
        elements: str
        default: []
      files:
        description: Contents by absolute path, written last with mode 0644.
        type: dict
        default: {}
      suite:
        description: Debian release of a base image.
        type: str
      ca_certificates:
        description: PEM texts by file name that a base image trusts beside Debian's own.
        type: dict
        default: {}
  backend:
    description: What the zones are.
    type: str
    choices: [lxc, smartos]
    default: lxc
  store:
    description:
      - Directory of caches and logs, and of the images of LXC zones, whose directories its parent holds.
      - By default C(/var/lib/lxc/zonestack), with O(backend=smartos) C(/zones/zonestack/build).
    type: path
  network:
    description: Where builders stand. Needed as soon as an image must be built.
    type: dict
    suboptions:
      bridge:
        description: The host's bridge or NIC tag.
        type: str
        required: true
      prefix:
        description: Length of the network's prefix, in bits.
        type: int
        required: true
      gateway:
        description: Default gateway.
        type: str
        required: true
      addresses:
        description: Free addresses; as many builders as there are addresses can run at once.
        type: list
        elements: str
        required: true
      mtu:
        description: MTU, in bytes.
        type: int
        default: 1500
  jobs:
    description: How many images are built at once. Default is the number of cores.
    type: int
  mirror:
    description:
      - URI of the Debian archive; security updates are looked for at the same URI with C(-security) appended.
      - By default both are where the host, a Debian of any release, gets its own packages from; with O(backend=smartos) where I(seed)
        does. Proxies are the host's, on SmartOS those of the module's environment.
    type: str
    default: ''
  uv:
    description: C(uv) for Linux on the host, a name on the path or an absolute path; the builders see it, no image holds it.
    type: str
    default: uv
  seed:
    description:
      - The image of Debian, of type C(lx-dataset), that a base image of SmartOS zones begins with. Its release must be that of the recipe.
      - It is fetched from the configured sources when it must and is not installed. Images that are there stay as they are when
        this changes, as they do when the Debian archive does.
    type: dict
    suboptions:
      uuid:
        description: Its UUID.
        type: str
      name:
        description: Its name, instead of the UUID.
        type: str
      version:
        description: Its version, with the name.
        type: str
  archives:
    description:
      - Images on their way between hosts, each a file that is known by its digest.
      - A download that ends early goes on where it ended, also when the call was killed. What has another digest than was said is not used.
    type: dict
    suboptions:
      path:
        description: Folder of archives on this host.
        type: path
        required: true
      keep:
        description:
          - IDs of images whose archives must be in O(archives.path) for others to fetch. They are made there, with O(archives.origins) fetched.
          - Archives that are not named are removed once they are unpacked, if they were fetched, or with V(pruned).
        type: list
        elements: str
        default: []
      origins:
        description: URLs of such folders, asked in this order. With one, nothing is built on this host. No proxy is used for them.
        type: list
        elements: str
        default: []
      ca:
        description: Certificate, in PEM, of the authority that vouches for origins with C(https).
        type: str
  keep:
    description: IDs of images that V(pruned) leaves alone although no zone uses them.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for another call that builds or prunes in the same store.
    type: int
    default: 1800
attributes:
  check_mode:
    description: Says exactly what would be built or removed.
    support: full
  diff_mode:
    description: Shows the list of images before and after.
    support: full
requirements:
  - mmdebstrap and lxc; with O(backend=smartos) the global zone of SmartOS
  - uv, when an image has Python packages
"""

EXAMPLES = r"""
- name: Build the missing images
  zonestack.openstack.zone_image:
    images: "{{ stack.images.values() | map(attribute='recipe') | list }}"
    network:
      bridge: zs-aio
      prefix: 21
      gateway: 10.77.2.1
      addresses: [10.77.3.248, 10.77.3.249]

- name: Remove images that nothing uses
  zonestack.openstack.zone_image:
    state: pruned
    keep: "{{ stack.images | list }}"
"""

RETURN = r"""
built:
  description: The images that were built and the seconds each took (none in check mode).
  returned: when state is present
  type: list
  elements: dict
  sample: [{id: keystone-0123456789ab, name: keystone, seconds: 11.2}]
fetched:
  description: The images that were made of archives and the seconds each took (none in check mode).
  returned: when state is present
  type: list
  elements: dict
  sample: [{id: keystone-0123456789ab, name: keystone, seconds: 2.5}]
archived:
  description: IDs of images whose archives were put into O(archives.path) for others.
  returned: when state is present
  type: list
  elements: str
present:
  description: IDs of all images in the store afterwards.
  returned: always
  type: list
  elements: str
cleaned:
  description: Remains of killed builds that were removed.
  returned: always
  type: list
  elements: str
removed:
  description: The images that were removed and the bytes each occupied.
  returned: when state is pruned
  type: list
  elements: dict
  sample: [{id: keystone-0123456789ab, bytes: 183500800}]
"""

import concurrent.futures
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.image.archive import Archives
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import (
    ImageError,
    BuilderNetwork,
    Recipe,
    Settings,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.image.store import (
    ImageStore,
    build_all,
    check_recipes,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.image.lxc import LxcImages

RECIPE: dict[str, t.Any] = {
    "id": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "parent": {"type": "str"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "list", "elements": "str", "default": []},
    "lock": {"type": "str"},
    "venv": {"type": "path"},
    "adds_to": {"type": "path"},
    "user": {"type": "str"},
    "commands": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "dict", "default": {}},
    "suite": {"type": "str"},
    "ca_certificates": {"type": "dict", "default": {}},
}
NETWORK: dict[str, t.Any] = {
    "bridge": {"type": "str", "required": True},
    "prefix": {"type": "int", "required": True},
    "gateway": {"type": "str", "required": True},
    "addresses": {"type": "list", "elements": "str", "required": True},
    "mtu": {"type": "int", "default": 1500},
}
SEED: dict[str, t.Any] = {"uuid": {"type": "str"}, "name": {"type": "str"}, "version": {"type": "str"}}
ARCHIVES: dict[str, t.Any] = {
    "path": {"type": "path", "required": True},
    "keep": {"type": "list", "elements": "str", "default": []},
    "origins": {"type": "list", "elements": "str", "default": []},
    "ca": {"type": "str"},
}
ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "pruned"], "default": "present"},
    "images": {"type": "list", "elements": "dict", "default": [], "options": RECIPE},
    "backend": {"type": "str", "choices": ["lxc", "smartos"], "default": "lxc"},
    "store": {"type": "path"},
    "network": {"type": "dict", "options": NETWORK},
    "jobs": {"type": "int"},
    "mirror": {"type": "str", "default": ""},
    "uv": {"type": "str", "default": "uv"},
    "seed": {"type": "dict", "options": SEED},
    "archives": {"type": "dict", "options": ARCHIVES},
    "keep": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 1800},
}


def open_store(backend: str, root: str | None) -> ImageStore:
    """The images of this host."""
    if backend == "lxc":
        return LxcImages(root or "/var/lib/lxc/zonestack")
    # Only here: a host of LXC zones would read vmadm's properties and plans for nothing.
    from ansible_collections.zonestack.openstack.plugins.module_utils.image.smartos import SmartosImages

    return SmartosImages(root or "/zones/zonestack/build")


def present(store: ImageStore, params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Have the missing images, built or from archives, and the archives that others fetch; what was done."""
    recipes = [Recipe(**image) for image in params["images"]]
    check_recipes(store, recipes)
    archives = Archives(**params["archives"]) if params["archives"] else None
    before = store.ids()
    missing = [recipe for recipe in recipes if recipe.id not in before]
    archived = {recipe.id for recipe in missing if archives and archives.offers(recipe.id)}
    lacking = archives.lacking() if archives else []
    to_build = [recipe for recipe in missing if recipe.id not in archived]
    if to_build and not (params["network"] or {}).get("addresses"):
        raise ImageError(
            f"network: is missing, and {to_build[0].id} must be built: set bridge, prefix, gateway and addresses for builders"
        )
    nowhere = sorted({*lacking} - {*before} - {recipe.id for recipe in recipes})
    if nowhere and archives and not archives.origins:
        raise ImageError(
            f"archives.keep: {', '.join(nowhere)}: there is no such image on this host or among `images`, so no archive of it can be created"
        )
    made: list[dict[str, t.Any]] = []
    failed: list[str] = []
    cleaned: list[str] = []
    if check:
        made = [{"id": recipe.id, "name": recipe.name, "seconds": None} for recipe in missing]
        cleaned = store.remains()
    elif missing or lacking or store.remains():
        store.prepare()
        with store.lock(params["timeout"] if missing or lacking else 0):
            cleaned = store.clean()
            # Another call may have built some while this one waited.
            before = store.ids()
            missing = [recipe for recipe in missing if recipe.id not in before]
            network = BuilderNetwork(**params["network"]) if params["network"] else None
            jobs = params["jobs"] or os.cpu_count() or 1
            if archives and (archived or lacking):
                archives.prepare()
            if missing:
                settings = Settings(network, jobs, params["mirror"], params["uv"], params["seed"] or {})
                to_build = [recipe for recipe in to_build if recipe.id not in before]
                if to_build:
                    store.check(to_build, settings)
                unpack = (lambda image: archives.unpack(store, image)) if archives else None
                made, failed = build_all(store, missing, settings, unpack, archived)
            if archives:
                failed += keep_archives(store, archives, jobs)
                lacking = [image for image in lacking if archives.note(image)]
                if not failed:
                    archives.drop(archives.unfinished())  # of downloads that nobody goes on with
    result = {
        "built": [one for one in made if one["id"] not in archived],
        "fetched": [one for one in made if one["id"] in archived],
    }
    after = sorted({*before, *(image["id"] for image in made)})
    return {**result, "archived": lacking, "failed": failed, "cleaned": cleaned, "before": before, "present": after}


def keep_archives(store: ImageStore, archives: Archives, jobs: int) -> list[str]:
    """Have the archives that others fetch; a message for each that could not be had. An image that was not built has its own."""

    def one(image: str) -> str | None:
        try:
            if archives.origins:
                archives.fetch(image)
            elif store.has(image):
                archives.pack(store, image)
        except (ImageError, CommandError, OSError) as error:
            return str(error)
        return None

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return [why for why in pool.map(one, archives.lacking()) if why]


def pruned(store: ImageStore, params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Remove the images that nothing uses; what was done."""
    if not store.root.is_dir():
        return {"removed": [], "cleaned": [], "before": [], "present": []}
    archives = Archives(**params["archives"]) if params["archives"] else None
    surplus = archives.surplus(params["keep"]) if archives else []
    if check:
        cleaned, before, doomed = store.remains(), store.ids(), store.prunable(params["keep"])
        removed = [{"id": image, "bytes": store.size(image)} for image in doomed]
    else:
        store.prepare()
        with store.lock(params["timeout"]):
            cleaned, before, removed = store.clean(), store.ids(), []
            for image in store.prunable(params["keep"]):
                removed.append({"id": image, "bytes": store.size(image)})
                store.remove(image)
            if archives:
                archives.drop(surplus)
    cleaned = [*cleaned, *surplus]
    gone = {image["id"] for image in removed}
    return {"removed": removed, "cleaned": cleaned, "before": before, "present": [i for i in before if i not in gone]}


def main() -> None:
    """Run the module."""
    os.umask(0o022)  # zones pass through the folders that are made here
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    # Of what it was given a result repeats no locks: megabytes, which the runner drops together with the message.
    invocation = {"module_args": {**params, "images": [str(image.get("id")) for image in params["images"] or []]}}
    store = open_store(params["backend"], params["store"])
    try:
        action = present if params["state"] == "present" else pruned
        result = action(store, params, module.check_mode)
    except (ImageError, CommandError, OSError) as error:
        module.fail_json(msg=f"zone_image: {error}", invocation=invocation)
    before = result.pop("before")
    result["changed"] = before != result["present"] or bool(result["cleaned"] or result.get("archived"))
    result["diff"] = {"before": listing(before), "after": listing(result["present"])}
    result["invocation"] = invocation
    failed = result.pop("failed", [])
    if failed:
        module.fail_json(msg="zone_image: " + "\n\n".join(failed), **result)
    module.exit_json(**result)


def listing(ids: list[str]) -> str:
    """Image ids, one a line, for a diff."""
    return "".join(f"{image}\n" for image in ids)


if __name__ == "__main__":
    main()
