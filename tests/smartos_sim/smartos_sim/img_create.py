# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``imgadm create``: an image of a stopped VM."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from pathlib import Path

from .files import timestamp
from .img_error import ImgError
from .img_options import count_words, uuid_of
from .img_table import Manifest, say
from .payload import NO_UUID, new_uuid
from .state import State

COMPRESSIONS = ("none", "bzip2", "gzip", "xz")
SUFFIXES = {"none": "", "gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}


def run(state: State, options: dict[str, t.Any], words: list[str]) -> None:
    """Make an image of a stopped VM. Of preparing a running one with a script (-s), and of -p, nothing is simulated."""
    compression = options.get("compression", "none")
    if compression not in COMPRESSIONS:
        choices = ", ".join(f'"{one}"' for one in COMPRESSIONS)
        raise ImgError("Usage", f'invalid -c,--compression "{compression}": must be one of {choices}')
    if "output" in options and "publish" in options:
        raise ImgError("Usage", "cannot specify both -o,--output-template and -p,--publish")
    if "depth" in options and int(options["depth"]) < 2:
        raise ImgError("Usage", f'invalid max-origin-depth "{options["depth"]}": must be greater than 1')
    if not words:
        count_words(words, 1)
    uuid = uuid_of(words[0])
    for word in words[1:]:
        if "=" not in word:
            raise ImgError("Usage", f'invalid manifest field arg "{word}": must match "<field>=<value>"')
    record = state.record(uuid)
    if record is None:
        raise ImgError("VmNotFound", f'vm "{uuid}" was not found')
    for name in ("script", "publish"):
        if name in options:
            raise ImgError("NotSupported", f"smartos-sim does not simulate imgadm create --{name}")
    with state.lock_vm(uuid):
        vm = state.view(record)
        if vm["state"] != "stopped":
            raise ImgError("VmNotStopped", f'vm "{uuid}" is not stopped')
        manifest = _new_manifest(state, options, words[1:], vm)
        origin = manifest.get("origin")
        target = _target(options, manifest, vm, compression)
        say("Manifest:\n" + re.sub("^", "    ", json.dumps(manifest, indent=2), flags=re.MULTILINE))
        state.platform(vm["brand"]).image_create_from_vm(vm, target, compression, origin)
    with open(target, "rb") as made:
        digest = hashlib.file_digest(made, "sha1").hexdigest()
    manifest["files"] = [{"sha1": digest, "size": target.stat().st_size, "compression": compression}]
    kept = Path(re.sub(r"\.(zfs|zvol)(\.gz|\.bz2|\.xz)?$", ".imgmanifest", str(target)))
    kept.write_text(json.dumps(manifest, indent=2) + "\n")
    say(f'Saved manifest to "{kept}".\nSaved image file to "{target}".')


def _new_manifest(state: State, options: dict[str, t.Any], fields: list[str], vm: dict[str, t.Any]) -> Manifest:
    """What the origin says and the caller adds; an image of a joyent zone wants at least this platform."""
    root = vm.get("image_uuid") or next(
        (disk["image_uuid"] for disk in vm.get("disks", ()) if "image_uuid" in disk), ""
    )
    origin = state.image(root, vm["zpool"]) if root else None
    parent: Manifest = origin["manifest"] if origin else {}
    given: Manifest = json.loads(Path(options["manifest"]).read_text()) if "manifest" in options else {}
    for word in fields:
        name, _mark, value = word.partition("=")
        given[name] = value
    for name in ("name", "version"):
        if name not in given:
            raise ImgError("ManifestValidation", f"invalid manifest: {name} (MissingParameter)")
    requirements: dict[str, t.Any] = {**parent.get("requirements", {}), **given.pop("requirements", {})}
    if vm["brand"] in ("lx", "bhyve", "kvm"):
        requirements["brand"] = vm["brand"]
    else:
        requirements["min_platform"] = {"7.0": state.node["platform"]}
    kinds = {"lx": "lx-dataset", "bhyve": "zvol", "kvm": "zvol"}
    manifest: Manifest = {
        "v": 2,
        "uuid": new_uuid(),
        "owner": vm["owner_uuid"] or NO_UUID,
        "state": "active",
        "disabled": False,
        "public": False,
        "published_at": timestamp(),
        "type": parent.get("type", kinds.get(vm["brand"], "zone-dataset")),
        "os": parent.get("os", "linux" if vm["brand"] == "lx" else "smartos"),
        **given,
        "requirements": requirements,
    }
    for name in ("nic_driver", "disk_driver", "cpu_type", "image_size"):
        if name in parent:
            manifest.setdefault(name, parent[name])
    if options.get("incremental"):
        if origin is None:
            raise ImgError("VmHasNoOrigin", f'cannot create an incremental image: vm "{vm["uuid"]}" has no origin')
        manifest["origin"] = root
    return manifest


def _target(options: dict[str, t.Any], manifest: Manifest, vm: dict[str, t.Any], compression: str) -> Path:
    prefix = Path(options.get("output", "."))
    if prefix.is_dir():
        prefix = prefix / f"{manifest['name']}-{manifest['version']}"
    return Path(f"{prefix}.{'zvol' if vm['hvm'] else 'zfs'}{SUFFIXES[compression]}")
