#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_images
short_description: Fetch and verify the image files of a cloud
version_added: 0.1.0
description:
  - Runs on the control machine before anything else is done. An image whose content is not what its checksum says is
    refused, with both digests.
  - A download is kept under its checksum and never made twice; one that broke off goes on where it ended.
  - A file of the user's is read when its size, time or inode changed, and stays where it is.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: full
    description: Users' files are checked; nothing is downloaded.
  diff_mode:
    support: none
    description: Only the cache of the control machine changes.
options:
  images:
    description: >-
      Images by name, as C(stack.cloud.images) has them: C(file) or C(url) with C(checksum). One that has neither is
      built in, and left out here.
    type: dict
    required: true
  base:
    description: Folder that relative paths begin at.
    type: path
    required: true
  cache:
    description: Folder that keeps downloads.
    type: path
    default: ~/.cache/zonestack/images
"""

EXAMPLES = r"""
- name: Ensure the image files
  zonestack.openstack.cloud_images:
    images: "{{ stack.cloud.images }}"
    base: "{{ inventory_dir }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
files:
  description: Path on the control machine of each image that is not built in, by name.
  type: dict
  returned: success
  sample: {debian-13: /root/.cache/zonestack/images/sha256-ab12}
fetched:
  description: Names of the images that were downloaded (in check mode would be).
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.image_files import (
    Cache,
    ImageRefused,
    fetch_all,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "dict", "required": True},
            "base": {"type": "path", "required": True},
            "cache": {"type": "path", "default": "~/.cache/zonestack/images"},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        files, fetched = fetch_all(given["images"], given["base"], Cache(given["cache"]), module.check_mode)
    except (ImageRefused, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=bool(fetched), files=files, fetched=fetched)


if __name__ == "__main__":
    main()
