# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who owns what in a zone's file systems: owners shifted for a user name space, users of an image, owners of new volumes."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import typing as t
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import Volume, ZoneError, ZoneSpec

ID_RANGE = 65536  # users of a zone: every 16 bit id

# linux/capability.h: the revision in the first word of the attribute; revision 3 ends with the uid of its name space's root.
VFS_CAP_REVISION_MASK, VFS_CAP_REVISION_2, VFS_CAP_REVISION_3 = 0xFF000000, 0x02000000, 0x03000000

Users = t.Callable[[str], "tuple[int, int] | None"]
"""Looks a user of an image up: uid and gid, None for no such user."""


def shift_owners(root: Path, old: int, new: int) -> None:
    """Move every owner of a tree from the range at ``old`` to the range at ``new``.

    chown(2) takes away set-uid bits and file capabilities, so both are put back; capabilities are rewritten for the root
    user they now belong to (capabilities(7), "File capability extended attribute versioning").
    """
    seen: set[int] = set()  # inodes with several names, already done

    def one(path: str) -> None:
        info = os.lstat(path)
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            if info.st_ino in seen:
                return
            seen.add(info.st_ino)
        capability = None
        if stat.S_ISREG(info.st_mode):
            with contextlib.suppress(OSError):
                capability = os.getxattr(path, "security.capability")
        os.lchown(path, _moved(info.st_uid, old, new), _moved(info.st_gid, old, new))
        if not stat.S_ISLNK(info.st_mode) and info.st_mode & (stat.S_ISUID | stat.S_ISGID):
            os.chmod(path, stat.S_IMODE(info.st_mode))
        if capability is not None:
            os.setxattr(path, "security.capability", capability_for(capability, new))

    one(str(root))
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            one(os.path.join(folder, name))


def _moved(owner: int, old: int, new: int) -> int:
    return owner - old + new if old <= owner < old + ID_RANGE else owner


def capability_for(attribute: bytes, root: int) -> bytes:
    """A file capability attribute (struct vfs_cap_data of linux/capability.h) as valid for the user ``root``."""
    magic = struct.unpack_from("<I", attribute)[0]
    flags, sets = magic & ~VFS_CAP_REVISION_MASK, attribute[4:20]
    if root == 0:
        return struct.pack("<I", VFS_CAP_REVISION_2 | flags) + sets
    return struct.pack("<I", VFS_CAP_REVISION_3 | flags) + sets + struct.pack("<I", root)


def user_of(passwd: str, name: str) -> tuple[int, int] | None:
    """Uid and gid of a user in a passwd(5); None for no such user."""
    for line in passwd.splitlines():
        user = line.split(":")
        if user[0] == name:
            return int(user[2]), int(user[3])
    return None


def owner_of(zone: ZoneSpec, volume: Volume, users: Users) -> tuple[int, int]:
    """Uid and gid, inside the zone, of a new volume; root where its description names nobody.

    :raise ZoneError: the image has no such user.
    """
    if volume.owner is None or volume.owner.isdigit():
        return int(volume.owner or 0), int(volume.owner or 0)
    found = users(volume.owner)
    if found is None:
        raise ZoneError(
            f"zone {zone.name!r}: volumes.{volume.name}.owner: image {zone.image} has no user {volume.owner!r}"
        )
    return found


def volumes_in(folder: Path) -> tuple[str, ...]:
    """The volumes that lie in a folder; none where there is no such folder. A hidden one was not finished."""
    try:
        return tuple(sorted(one.name for one in os.scandir(folder) if one.is_dir() and not one.name.startswith(".")))
    except FileNotFoundError:
        return ()


def make_volumes(zone: ZoneSpec, folder: Path, users: Users, make: t.Callable[[str, int, int], None]) -> None:
    """Make the missing volumes. One that exists keeps its owner and mode: its data belongs to the service.

    :param folder: where the zone's volumes lie.
    :param make: makes a volume of a name, for a uid and a gid inside the zone.
    """
    there = volumes_in(folder)
    for volume in zone.volumes:
        if volume.name not in there:
            make(volume.name, *owner_of(zone, volume, users))
