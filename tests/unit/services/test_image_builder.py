# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of services/utility/test_image.py that need no packages: archive, modules' order, partition table."""

from __future__ import annotations

import importlib.util
import lzma
import pathlib
import struct
import subprocess
import types

import pytest

FILES = pathlib.Path(__file__).resolve().parents[3] / "services/utility"


@pytest.fixture(scope="module")
def builder() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("test_image", FILES / "test_image.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_file(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def test_modules_come_after_what_they_depend_on(builder: types.ModuleType) -> None:
    files = {
        "usr/lib/modules/6/kernel/net/virtio_net.ko.xz": lzma.compress(module_file("net_failover")),
        "usr/lib/modules/6/kernel/net/net_failover.ko.xz": lzma.compress(module_file("failover-core")),
        "usr/lib/modules/6/kernel/net/failover-core.ko": module_file(""),
        "usr/lib/modules/6/kernel/other.ko": module_file(""),
    }
    found = builder.modules(files, ("virtio_net", "built_in"))
    assert list(found) == ["failover_core", "net_failover", "virtio_net"]
    assert found["virtio_net"] == ("usr/lib/modules/6/kernel/net/virtio_net.ko", module_file("net_failover"))


def test_the_archive_is_what_the_kernel_reads(builder: types.ModuleType) -> None:
    archive = builder.cpio([("bin", 0o40755, b""), ("init", 0o100755, b"#!/bin/sh\n")])
    assert len(archive) % 4 == 0
    assert archive[:6] == b"070701"
    second = archive.index(b"070701", 6)
    size = int(archive[second + 54 : second + 62], 16)
    name = int(archive[second + 94 : second + 102], 16)
    start = second + 110 + name + -(110 + name) % 4
    assert archive[start : start + size] == b"#!/bin/sh\n"
    assert b"TRAILER!!!\0" in archive


def test_the_partitions_follow_one_another_within_the_disk(builder: types.ModuleType) -> None:
    table = builder.partition_table()
    assert len(table) == 66
    assert table[-2:] == b"\x55\xaa"
    first, second = (struct.unpack("<B3sB3sII", table[at : at + 16]) for at in (0, 16))
    assert (first[0], first[2], first[4] * 512, first[5] * 512) == (0x80, 0x0E, builder.FAT_AT, builder.FAT_SIZE)
    assert (second[2], second[4]) == (0x83, first[4] + first[5])
    assert (builder.ROOT_AT + builder.ROOT_SIZE) < 30_000_000


def test_the_guest_script_is_posix_shell() -> None:
    subprocess.run(["sh", "-n", FILES / "test_image.sh"], check=True)
