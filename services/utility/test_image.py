#!/usr/bin/python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ``zonestack-test``: a disk image whose machine boots in seconds, also where the processor is emulated.

    test_image.py GUEST_SCRIPT IMAGE

Debian's kernel, a static busybox and dropbear, taken out of their packages, none of which is installed. The disk:

======  ========  ==============================================================
from    size      what
======  ========  ==============================================================
0       1 MiB     boot code and partition table (MBR)
1 MiB   13 MiB    FAT: SYSLINUX, the kernel, a RAM disk that mounts what follows
14 MiB  14 MiB    ext4 ``zonestack``: the whole system, all that it writes stays
======  ========  ==============================================================

No loop device and no mount is needed, so an unprivileged builder makes it. Of the same packages come the same bytes:
every time is that of the kernel's file in its package, every UUID and serial number is fixed.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

MIB = 1 << 20
FAT_AT, FAT_SIZE, ROOT_AT, ROOT_SIZE = 1 * MIB, 13 * MIB, 14 * MIB, 14 * MIB
UUID = "7a6f6e65-7374-4163-8b21-746573740001"  # of the file system and of its directories' hashes
SERIAL = "7a6f6e65"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
KERNEL = "linux-image-cloud-amd64"
GUEST_PACKAGES = ("busybox-static", "dropbear-bin", "libtomcrypt1", "libtommath1", "libgmp10")
TOOL_PACKAGES = ("e2fsprogs", "libext2fs2t64", "libcom-err2", "mtools", "syslinux", "syslinux-common")

BLOCK_MODULES = ("virtio_blk",)
"""What the RAM disk loads; ext4 and virtio's PCI part are built into Debian's kernel."""
MODULES = (*BLOCK_MODULES, "virtio_net", "button", "evdev", "ata_piix", "ahci", "virtio_scsi", "sr_mod", "isofs", "nls_utf8")
"""Network, ACPI's power button, and a configuration drive; with what they depend on."""

# The kernel says little, because each letter on an emulated serial line costs time. no_timer_check: a busy host may be
# late with the interrupt that this check waits for.
SYSLINUX = """\
DEFAULT zonestack
PROMPT 0
LABEL zonestack
 LINUX /vmlinuz
 INITRD /initrd
 APPEND console=tty0 console=ttyS0,115200 quiet loglevel=4 no_timer_check nokaslr mitigations=off panic=5
"""

INIT = """\
#!/bin/busybox sh
# Load the disk's driver, and go on with the system that lies there.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
for module in {modules}; do $bb insmod /$module.ko; done
tries=0
until disk=$($bb findfs LABEL=zonestack 2>/dev/null); do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || {{ $bb echo "zonestack: no disk is labelled zonestack"; exec $bb sh; }}
  $bb sleep 0.1
done
$bb mount -t ext4 -o noatime "$disk" /root || exec $bb sh
$bb umount /proc
$bb mount -o move /dev /root/dev
exec $bb switch_root /root /sbin/init
"""

# Nobody logs in by password but at the console, where who stands there owns the instance: dropbear runs with -s.
FILES = {
    "etc/passwd": "root::0:0:root:/root:/bin/sh\nzonestack::1000:1000:zonestack:/home/zonestack:/bin/sh\n",
    "etc/group": "root:x:0:\ntty:x:5:\nzonestack:x:1000:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/issue": "zonestack-test: log in as zonestack, without a password\n\n",
    "etc/profile": "export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n",
    "etc/inittab": "::sysinit:/usr/lib/zonestack/boot\n::once:/usr/lib/zonestack/user-data\n"
    "ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100\ntty1::respawn:/sbin/getty 38400 tty1 linux\n"
    "::ctrlaltdel:/sbin/reboot\n::shutdown:/usr/lib/zonestack/shutdown\n",
}
LINKS = {
    "usr/lib/zonestack/boot": "guest",
    "usr/lib/zonestack/user-data": "guest",
    "usr/lib/zonestack/shutdown": "guest",
    "usr/lib/zonestack/dhcp": "guest",
    "etc/acpi/PWRF/00000080": "../../../usr/lib/zonestack/guest",
    **{f"usr/bin/{name}": "../lib/zonestack/guest" for name in ("blkid", "curl", "lsblk", "mkfs.ext4", "sudo")},
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "usr/sbin": "bin",
    "lib": "usr/lib",
    "lib64": "usr/lib",
    "var/run": "../run",
    "etc/resolv.conf": "../run/resolv.conf",
}
DIRECTORIES = ("dev", "proc", "sys", "run", "tmp", "mnt", "root", "etc/dropbear", "var/log", "home/zonestack", "var/lib/zonestack")


def run(*command: str, **env: str) -> str:
    """A command's output; its failure ends the build with its words."""
    done = subprocess.run(command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"test_image: {' '.join(command)}: exit code {done.returncode}")
    return done.stdout


def fetch(folder: Path) -> dict[str, bytes | str]:
    """All that is used of the packages: path to content, or to the target of a link."""
    depends = run("apt-cache", "depends", "--important", KERNEL)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if not found:
        sys.exit(f"test_image: {KERNEL} depends on no kernel: {depends!r}")
    folder.mkdir()
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", found[1], *GUEST_PACKAGES, *TOOL_PACKAGES]
    subprocess.run(command, cwd=folder, check=True)
    files: dict[str, bytes | str] = {}
    for package in sorted(folder.glob("*.deb")):
        with (
            subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpack,
            tarfile.open(fileobj=unpack.stdout, mode="r|") as archive,
        ):
            for member in archive:
                path = member.name.removeprefix("./")
                if member.issym():
                    files[path] = member.linkname
                elif member.isfile() and not path.startswith("usr/share/doc"):
                    files[path] = archive.extractfile(member).read()
                if path.startswith("boot/vmlinuz-"):
                    os.environ["SOURCE_DATE_EPOCH"] = str(int(member.mtime))
        package.unlink()
    return files


def only(files: dict[str, bytes | str], pattern: str) -> bytes:
    """The one file whose path matches."""
    names = [name for name in files if re.fullmatch(pattern, name) and isinstance(files[name], bytes)]
    if len(names) != 1:
        sys.exit(f"test_image: {len(names)} files match {pattern} in the packages, one was expected: {names}")
    return files[names[0]]


def modules(files: dict[str, bytes | str], wanted: tuple[str, ...]) -> dict[str, tuple[str, bytes]]:
    """The named modules and what they depend on, dependencies first: name to path and content, decompressed.

    A module's ``.modinfo`` says what it depends on; ``-`` and ``_`` are the same in a module's name.
    """
    known = {
        re.sub(r"\.ko(\.xz)?$", "", name.rpartition("/")[2]).replace("-", "_"): name
        for name in files
        if re.search(r"\.ko(\.xz)?$", name)
    }
    found: dict[str, tuple[str, bytes]] = {}

    def add(name: str) -> None:
        if name in found:
            return
        path = known[name]
        content = lzma.decompress(files[path]) if path.endswith(".xz") else files[path]
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in depends[1].decode().split(",") if depends and depends[1] else []:
            add(other.replace("-", "_"))
        found[name] = (path.removesuffix(".xz"), content)

    for name in wanted:
        # What a kernel has built in is no file of it.
        if name in known:
            add(name)
    return found


def cpio(entries: list[tuple[str, int, bytes]]) -> bytes:
    """An archive as the kernel's RAM disks are (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    out = io.BytesIO()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")]):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out.write(b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0")
        out.write(b"\0" * (-out.tell() % 4) + content)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def ram_disk(files: dict[str, bytes | str]) -> bytes:
    """What the kernel starts with: busybox, the disk's driver and a few lines of shell."""
    drivers = modules(files, BLOCK_MODULES)
    entries = [(name, 0o40755, b"") for name in ("bin", "dev", "proc", "root")]  # /dev/console is in the kernel
    entries.append(("init", 0o100755, INIT.format(modules=" ".join(drivers)).encode()))
    entries.append(("bin/busybox", 0o100755, only(files, "(usr/)?bin/busybox")))
    entries += [(f"{name}.ko", 0o100644, content) for name, (_path, content) in drivers.items()]
    return gzip.compress(cpio(entries), 9, mtime=0)


def system(files: dict[str, bytes | str], guest: Path, root: Path) -> None:
    """The whole system as a tree below ``root``."""

    def write(path: str, content: bytes, mode: int = 0o644) -> None:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)

    for name in DIRECTORIES:
        (root / name).mkdir(parents=True)
    for path, text in FILES.items():
        write(path, text.encode())
    busybox = only(files, "(usr/)?bin/busybox")
    write("usr/bin/busybox", busybox, 0o4755)  # which drops the privilege at once for all applets but su, ping and the like
    write("usr/lib/zonestack/guest", guest.read_bytes(), 0o755)
    for name in ("usr/sbin/dropbear", "usr/bin/dropbearkey"):
        write(f"usr/bin/{name.rpartition('/')[2]}", only(files, name), 0o755)
    # Libraries: those of the packages where they have them, or of this machine, which is the same Debian.
    scratch = root.parent / "libraries"
    scratch.mkdir()
    for path, content in files.items():
        if path.startswith(LIBRARIES) and ".so" in path:
            target = scratch / path.rpartition("/")[2]
            target.symlink_to(content) if isinstance(content, str) else target.write_bytes(content)
    listed = run("ldd", str(root / "usr/bin/dropbear"), str(root / "usr/bin/dropbearkey"), LD_LIBRARY_PATH=str(scratch))
    for name in sorted(set(re.findall(r"(/\S+) \(0x", listed))):
        write(f"usr/lib/{name.rpartition('/')[2]}", Path(name).read_bytes(), 0o755)
    release = next(name for name in files if name.startswith("boot/vmlinuz-")).removeprefix("boot/vmlinuz-")
    chosen = modules(files, MODULES)
    depends = []
    for path, content in chosen.values():
        write(path if path.startswith("usr/") else f"usr/{path}", content)
        needs = re.search(rb"\0depends=([^\0]*)\0", content)[1].decode().replace("-", "_")
        closure = list(modules(files, tuple(needs.split(",")))) if needs else []
        inside = path.partition(f"{release}/")[2]
        depends.append(
            f"{inside}: " + " ".join(chosen[name][0].partition(f"{release}/")[2] for name in reversed(closure))
        )
    write(f"usr/lib/modules/{release}/modules.dep", "\n".join([*depends, ""]).encode())
    for path, target in LINKS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    applets = run(str(root / "usr/bin/busybox"), "--list").split()
    for name in applets:
        link = root / "usr/bin" / name
        if not link.is_symlink() and not link.exists():
            link.symlink_to("busybox")
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    os.chown(root / "home/zonestack", 1000, 1000)
    when = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in (root, *root.rglob("*")):
        os.utime(path, (when, when), follow_symlinks=False)


def partition_table() -> bytes:
    """The last 66 bytes of the first sector; LBA only, which is what SYSLINUX's boot code and Linux read."""
    table = b""
    for active, kind, start, size in ((0x80, 0x0E, FAT_AT, FAT_SIZE), (0, 0x83, ROOT_AT, ROOT_SIZE)):
        table += struct.pack("<B3sB3sII", active, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start // 512, size // 512)
    return table.ljust(64, b"\0") + b"\x55\xaa"


def main(guest: str, image: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        files = fetch(work / "packages")
        tools = work / "tools"
        for path, content in files.items():
            if path in ("usr/sbin/mke2fs", "sbin/mke2fs", "usr/bin/mtools", "usr/bin/syslinux", "etc/mke2fs.conf") or (
                path.startswith(LIBRARIES) and ".so" in path
            ):
                target = tools / path.rpartition("/")[2]
                target.parent.mkdir(exist_ok=True)
                target.symlink_to(content) if isinstance(content, str) else target.write_bytes(content)
                if not isinstance(content, str):
                    target.chmod(0o755)
        for applet in ("mattrib", "mcopy", "mformat", "mmove"):
            (tools / applet).symlink_to("mtools")
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(tools),
            "MKE2FS_CONFIG": str(tools / "mke2fs.conf"),
            "MTOOLS_SKIP_CHECK": "1",
        }

        fat = work / "fat"
        fat.write_bytes(b"\0" * FAT_SIZE)
        contents = {
            "vmlinuz": only(files, "boot/vmlinuz-.*"),
            "initrd": ram_disk(files),
            "syslinux.cfg": SYSLINUX.encode(),
        }
        run("mformat", "-i", str(fat), "-N", SERIAL, "-v", "ZONESTACK", "-H", str(FAT_AT // 512), "::", **environment)
        for file, content in contents.items():
            (work / file).write_bytes(content)
            run("mcopy", "-i", str(fat), str(work / file), f"::/{file}", **environment)
        run("syslinux", "--install", str(fat), **environment)

        root = work / "root"
        root.mkdir(mode=0o755)
        system(files, Path(guest), root)
        ext4 = work / "ext4"
        options = ["-q", "-F", "-t", "ext4", "-b", "1024", "-m", "0", "-L", "zonestack", "-U", UUID, "-O", "^metadata_csum_seed"]
        options += ["-E", f"hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0", "-J", "size=1", "-N", "1024"]
        run("mke2fs", *options, "-d", str(root), str(ext4), f"{ROOT_SIZE // 1024}k", **environment)

        Path(image).parent.mkdir(parents=True, exist_ok=True)
        with open(image, "wb") as disk:
            disk.write(only(files, "usr/lib/(syslinux|SYSLINUX)/mbr/mbr.bin").ljust(446, b"\0") + partition_table())
            for start, part in ((FAT_AT, fat), (ROOT_AT, ext4)):
                disk.seek(start)
                with part.open("rb") as source:
                    shutil.copyfileobj(source, disk)
            disk.truncate(ROOT_AT + ROOT_SIZE)


if __name__ == "__main__":
    main(*sys.argv[1:])
