#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell which images a SmartOS host has, or could have."""

from __future__ import annotations

DOCUMENTATION = r"""
module: imgadm_info
short_description: List the images that a SmartOS host has or its sources offer
version_added: 0.1.0
description:
  - Asks imgadm(8) in the global zone of SmartOS for the installed images and the configured sources. A list and no mapping,
    because the same image can be on several pools.
author: the zonestack authors (@zonestack)
extends_documentation_fragment: [zonestack.openstack.only_tells]
options:
  filters:
    description:
      - Which images are told, those to which all of these apply, as imgadm(8) matches them. A field of the manifest, with
        dots for what is inside (V(tags.role)), and its value; V(~text) matches every value with that text in it.
      - Other fields are C(zpool), C(source), C(clones) (how many) and C(pub) (the day of publication, V(2026-01-31)).
    type: dict
    default: {}
  available:
    description:
      - Whether the images that the configured sources offer are told instead of the installed ones. It needs the network. A
        source that does not answer is an error.
    type: bool
    default: false
requirements:
  - SmartOS, root in its global zone
seealso:
  - module: zonestack.openstack.imgadm
"""

EXAMPLES = r"""
- name: See the installed images for lx zones that are of Debian
  zonestack.openstack.imgadm_info:
    filters:
      type: lx-dataset
      name: ~debian
  register: __debian

- name: See the images that nothing uses
  zonestack.openstack.imgadm_info:
    filters: {clones: 0}

- name: See what the sources offer
  zonestack.openstack.imgadm_info:
    available: true
    filters: {os: smartos, requirements.brand: joyent-minimal}
"""

RETURN = r"""
images:
  description: The images, ordered by name, version and pool.
  returned: always
  type: list
  elements: dict
  contains:
    uuid:
      description: UUID of the image.
      type: str
    pool:
      description: Pool that it is installed on; null when it is only offered.
      type: str
    name:
      description: Name. Null, as everything from the manifest, when imgadm has no manifest of the dataset.
      type: str
    version:
      description: Version.
      type: str
    type:
      description: V(zone-dataset), V(lx-dataset), V(zvol), V(docker) or V(other).
      type: str
    os:
      description: Operating system, such as V(smartos) or V(linux).
      type: str
    published_at:
      description: When it was published, ISO 8601 in UTC.
      type: str
    origin:
      description: UUID of the image that it stands on; null when it is whole.
      type: str
    source:
      description: URL of the server that it comes from; null when it was installed from a file.
      type: str
    clones:
      description: Datasets that are clones of it, of VMs and other images; empty when it is only offered.
      type: list
      elements: str
    manifest:
      description: The whole manifest.
      type: dict
sources:
  description: The configured sources in the order in which they are asked.
  returned: always
  type: list
  elements: dict
  sample: [{url: https://images.smartos.org, type: imgapi, insecure: false}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.imgadm import (
    Image,
    ImageError,
    Imgadm,
    filter_words,
)


def main() -> None:
    """Run the module."""
    arguments = {"filters": {"type": "dict", "default": {}}, "available": {"type": "bool", "default": False}}
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    imgadm = Imgadm()
    try:
        words = filter_words(module.params["filters"])
        if module.params["available"]:
            offers = imgadm.available(*words)
            images = [{**Image(one["uuid"], "", one, url).plain(), "pool": None} for url, one in offers]
        else:
            images = [one.plain() for one in imgadm.installed(*words)]
        sources = [one.plain() for one in imgadm.sources()]
    except (ImageError, CommandError) as error:
        module.fail_json(msg=f"imgadm_info: {error}")
    images.sort(key=lambda one: [str(one[key] or "") for key in ("name", "version", "pool", "uuid")])
    module.exit_json(changed=False, images=images, sources=sources)


if __name__ == "__main__":
    main()
