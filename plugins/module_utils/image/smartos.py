# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build and prune the images of SmartOS zones: the recipes of LXC zones, furnished in a builder zone of brand lx.

A base image begins as a zone of an image of Debian that somebody else made (the seed), any other as a zone of its parent. Commands
reach it through zlogin(1) in the global zone. The stopped zone is made an image with imgadm(8) and installed under a UUID that is
computed from the image's id, a base image whole, any other as what it adds to its parent.

In the store's directory, on the pool::

    drafts/<id>.imgmanifest, .zfs    what imgadm made of a builder: the manifest comes last, and both go when the image is installed
    builders/<id>                    there as long as the builder may be
    cache/                           what builders share: uv, its cache, byte code, apt's package lists

A call that is killed leaves a builder, half a draft, a whole one, or half an image. The next one removes the halves and the builder,
and installs the whole draft: nothing is built twice.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import shlex
import shutil
import threading
import typing as t
import uuid as uuid_lib

from ansible_collections.zonestack.openstack.plugins.module_utils.smartos import imgadm
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import (
    run,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.image.furnish import (
    DPKG_SETTINGS,
    Furnisher,
    Log,
    StepError,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import (
    ImageError,
    BuilderNetwork,
    Recipe,
    Settings,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.image.store import ImageStore, refresh_lists
from ansible_collections.zonestack.openstack.plugins.module_utils.image.surroundings import (
    apt_conf,
    builder_environment,
    mirror_lines,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm import (
    VmError,
    Vmadm,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_plan import (
    Step,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import Interface as Nic
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.description import ZoneError, ZoneSpec
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.files import (
    resolvers,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.zone.smartos import (
    BRAND,
    KERNEL,
    NAMESPACE,
    POOL,
    ZONES,
    await_init,
    image_uuid,
    properties,
)

TAG = "zonestack_image"
"""Tag of an image's manifest that has its id."""

MEMORY = 2048
"""MiB of a builder: compilers of byte code run side by side in it."""

START_LIMIT = 300
"""Seconds until the init of a builder must answer."""

SHARE = "/mnt"
"""Where a builder sees the cache. A folder that every Debian has, empty: an image keeps nothing of the mount."""

STARTED = f"""\
umask 077
cat >/run/environment
ln -s {SHARE} /run/build
"""

# What a boot leaves is not for clones, nor are the seed's package lists. Not `apt-get clean`: it locks the lists, too, which all builders share.
SEAL = """\
rm -rf /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*
rm -rf /var/lib/apt/lists/* /var/lib/systemd/random-seed /var/svc/provision_success /run/environment
: >/etc/machine-id
"""

RIGHT_DEBIAN = """\
. /etc/os-release
test "$VERSION_CODENAME" = {suite} || {{
  echo "the seed is $PRETTY_NAME and the recipe wants {suite}: choose another seed"
  exit 1
}}
"""

# The seed has a unit for this that does more with the zone's metadata. In our images none starts that its service does not declare.
PROVISIONED = """\
# Written by zonestack: vmadm waits for it.
[Unit]
Description=Tell the global zone that this zone is up
ConditionPathExists=/var/svc/provisioning
[Service]
Type=oneshot
ExecStart=/bin/mv /var/svc/provisioning /var/svc/provision_success
[Install]
WantedBy=multi-user.target
"""
PROVISIONED_UNIT = "zonestack-provisioned.service"

_SHARED = threading.Lock()


class Draft:
    """What imgadm made of a builder, before it is installed."""

    def __init__(self, prefix: pathlib.Path) -> None:
        self.prefix = str(prefix)
        self.manifest = pathlib.Path(f"{prefix}.imgmanifest")
        self.file = pathlib.Path(f"{prefix}.zfs")

    def whole(self, digest: bool = False) -> bool:
        """Whether both are there, and of one another: by the size, with ``digest`` by the content, which a power loss may have taken."""
        with contextlib.suppress(imgadm.ImageError, KeyError, IndexError, TypeError):
            imgadm.check_file(imgadm.read_manifest(str(self.manifest)), str(self.file), digest)
            return True
        return False

    def remove(self) -> None:
        """Remove both, the manifest first: what is left of a killed removal is no draft."""
        self.manifest.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


class SmartosImages(ImageStore):
    """The images that imgadm has, of those that this collection made."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.drafts = self.root / "drafts"
        self.builders = self.root / "builders"
        self.client = imgadm.Imgadm()

    def prepare(self) -> None:
        """Make the store's directories."""
        super().prepare()
        for path in (self.drafts, self.builders, *(self.cache / name for name in ("apt", "bytecode", "uv-cache"))):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)

    @functools.cached_property
    def known(self) -> dict[str, imgadm.Image]:
        """Our images by id, read once and then kept current."""
        tagged = ((image.manifest.get("tags") or {}, image) for image in self.client.installed())
        return {str(tags[TAG]): image for tags, image in tagged if TAG in tags}

    def ids(self) -> list[str]:
        """Ids of all images of ours."""
        return sorted(self.known)

    def has(self, image: str) -> bool:
        """Whether imgadm has it."""
        return image in self.known

    # -- what killed calls left ------------------------------------------------------------------------------------

    def _useless(self) -> list[pathlib.Path]:
        """Files of drafts that are not whole, or whose image is installed; a draft's manifest before its file."""
        useful: set[pathlib.Path] = set()
        for manifest in self.drafts.glob("*.imgmanifest"):
            draft = Draft(manifest.with_suffix(""))
            if draft.whole() and not self.has(manifest.stem):
                useful |= {draft.manifest, draft.file}
        return sorted(set(self.drafts.glob("*")) - useful)

    def leftovers(self) -> list[str]:
        """Builders, and files of drafts that are of no use."""
        return sorted(
            [*(f"builder of {path.name}" for path in self.builders.glob("*")), *(path.name for path in self._useless())]
        )

    def clean(self) -> list[str]:
        """Remove the builders and such files. What is installed may be known since before another call."""
        self.__dict__.pop("known", None)
        names = self.leftovers()
        for mark in self.builders.glob("*"):
            remove_builder(mark)
        for path in self._useless():
            path.unlink()
        return names

    def _sweep(self, uuid: str) -> None:
        """Remove what a killed `imgadm install` left: a dataset that is received, or one that imgadm has no manifest for."""
        there = self.client.get(uuid)
        if there is not None:
            if TAG in (there.manifest.get("tags") or {}):
                return
            self.client.delete(uuid)
        for dataset in (f"{POOL}/{uuid}-partial", f"{POOL}/{uuid}"):
            if run(["zfs", "list", "-H", "-o", "name", dataset], check=False).rc == 0:
                run(["zfs", "destroy", "-r", dataset])  # -r: its snapshot; never -R, which takes clones along

    # -- building --------------------------------------------------------------------------------------------------

    def check(self, missing: t.Sequence[Recipe], settings: Settings) -> None:
        """Refuse to begin without uv, the NIC tag and the seed."""
        if any(recipe.python for recipe in missing) and not shutil.which(settings.uv):
            raise ImageError(
                f"uv: {settings.uv!r} is not on this host: give the path of uv for Linux, which runs in the builders"
            )
        tag = t.cast(BuilderNetwork, settings.network).bridge
        if run(["nictagadm", "exists", tag], check=False).rc != 0:
            raise ImageError(f"network.bridge: there is no NIC tag {tag!r} on this host: prepare the host first")
        if any(recipe.suite and not Draft(self.drafts / recipe.id).whole() for recipe in missing):
            self.seed(settings)

    def seed(self, settings: Settings) -> str:
        """The UUID of the image that a base image begins with, fetched unless it is installed."""
        uuid, name, version = (settings.seed.get(key) for key in ("uuid", "name", "version"))
        if not uuid and not (name and version):
            raise ImageError(
                "seed: none given: say which image of Debian to begin with, by `uuid` or by `name` and `version`;"
                " `imgadm avail type=lx-dataset` shows them"
            )
        try:
            if not uuid:
                label, words = f"{name} {version}", imgadm.filter_words({"name": name, "version": version})
                found = (image.manifest for image in self.client.installed(*words))
                uuid = imgadm.choose(found, str(name), str(version))
                uuid = uuid or imgadm.choose(
                    (one for _url, one in self.client.available(*words)), str(name), str(version)
                )
                if uuid is None:
                    raise ImageError(
                        f"seed: no image {label} is installed, and none of the sources has one (imgadm sources)"
                    )
            with _SHARED:
                image = self.client.get(uuid)
                if image is None:
                    self.client.fetch(uuid)
                    image = self.client.get(uuid)
        except imgadm.ImageError as bad:
            raise ImageError(f"seed: {bad}") from bad
        kind = image.manifest.get("type") if image else None
        if kind not in (None, "lx-dataset"):
            raise ImageError(f"seed: image {uuid} is of type {kind}: take one of type lx-dataset")
        return uuid

    def make(self, recipe: Recipe, settings: Settings, address: str, log: Log) -> None:
        """Furnish a builder and make it a draft, unless there is one; install the draft."""
        draft = Draft(self.drafts / recipe.id)
        try:
            if not draft.whole(digest=True):
                draft.remove()
                origin = image_uuid(recipe.parent) if recipe.parent else self.seed(settings)
                with Builder(self, recipe, origin, settings, address, log) as builder:
                    builder.install_debian(recipe, settings)
                    builder.furnish(recipe)
                    builder.become(draft)
            uuid = image_uuid(recipe.id)
            self._sweep(uuid)
            self.client.install({**imgadm.read_manifest(str(draft.manifest)), "uuid": uuid}, str(draft.file))
            image = self.client.get(uuid)
        except (imgadm.ImageError, VmError, ZoneError) as bad:
            raise ImageError(str(bad)) from bad
        if image is None:
            raise ImageError(f"`imgadm install` ended well, but there is no image {uuid}: see zfs list {POOL}/{uuid}")
        self.known[recipe.id] = image
        draft.remove()

    # -- pruning ---------------------------------------------------------------------------------------------------

    def prunable(self, keep: t.Collection[str]) -> list[str]:
        """Images that nothing is a clone of, and parents of only such, the topmost first."""
        names = {image.uuid: name for name, image in self.known.items()}
        kept = {image_uuid(name) for name in keep}
        parents = {image.manifest.get("origin") for image in self.known.values() if image.uuid in kept}
        idle = imgadm.unused(image for image in self.known.values() if image.uuid not in kept | parents)
        return [names[image.uuid] for image in idle]

    def size(self, image: str) -> int:
        """Bytes of the dataset's own, what it shares with its parent left out."""
        return int(run(["zfs", "get", "-H", "-p", "-o", "value", "used", self.known[image].dataset]).out)

    def remove(self, image: str) -> None:
        """Remove an image and its log."""
        self.client.delete(self.known[image].uuid)
        del self.known[image]
        (self.logs / f"{image}.log").unlink(missing_ok=True)


def builder_uuid(image: str) -> str:
    """The UUID of an image's builder, so that one that was left is found."""
    return str(uuid_lib.uuid5(NAMESPACE, f"builder/{image}"))


def remove_builder(mark: pathlib.Path) -> None:
    """Delete a builder, if it is there, and then the file that says that it may be."""
    uuid = builder_uuid(mark.name)
    client = Vmadm()
    if client.get(uuid) is not None:
        client.do(uuid, Step("delete"))
    mark.unlink(missing_ok=True)


class Builder(Furnisher):
    """A zone of brand lx in which one image is furnished."""

    def __init__(
        self, store: SmartosImages, recipe: Recipe, origin: str, settings: Settings, address: str, log: Log
    ) -> None:
        self.store, self.recipe, self.origin, self.settings, self.log = store, recipe, origin, settings, log
        self.mark = store.builders / recipe.id
        self.uuid = builder_uuid(recipe.id)
        self.status = store.cache / f"status-{recipe.id}"
        network = t.cast(BuilderNetwork, settings.network)
        mac = "02:" + ":".join(f"{byte:02x}" for byte in uuid_lib.UUID(self.uuid).bytes[:5])
        nic = Nic("eth0", network.bridge, mac, address, network.prefix, network.gateway, network.mtu)
        self.spec = ZoneSpec(
            f"builder-{recipe.id}".replace("_", "-")[:63].strip("-"),
            self.uuid,
            memory=MEMORY,
            networks=(nic,),
            metadata={"builder": recipe.id},
        )

    def __enter__(self) -> Builder:
        self.mark.touch()
        try:
            self._share()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.status.unlink(missing_ok=True)
        remove_builder(self.mark)

    def _share(self) -> None:
        """Put what all builders use into the cache. uv is copied where it is needed, as the global zone cannot run it."""
        with _SHARED:
            lists = f'Dir::State::lists "{SHARE}/apt/";'
            # The seed looks for updates by itself soon after it has started, and holds apt's lock meanwhile.
            (self.store.cache / "apt.conf").write_text(
                apt_conf([lists, 'DPkg::Lock::Timeout "300";']), encoding="utf-8"
            )
            if self.recipe.python:
                self.store.program(self.settings.uv, self.store.cache / "uv")

    def _start(self) -> None:
        payload = {
            **{
                key: value
                for key, value in properties(self.spec, resolvers()).items()
                if value is not None and key != "internal_metadata"
            },
            "uuid": self.uuid,
            "brand": BRAND,
            "kernel_version": KERNEL,
            "image_uuid": self.origin,
            "filesystems": [{"type": "lofs", "source": str(self.store.cache), "target": SHARE}],
        }
        client = Vmadm()
        client.validate("create", BRAND, payload)
        client.do(self.uuid, Step("create", payload=payload))
        await_init(self.uuid, f"builder of {self.recipe.id}", START_LIMIT)
        # What may hold a password travels through standard input, into memory.
        variables = {**builder_environment(os.environ), "APT_CONFIG": f"{SHARE}/apt.conf"}
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(variables.items()))
        self._run("start the builder", STARTED, exports)

    def step(self, name: str, script: str, stdin: str | None = None) -> None:
        """Run a shell script as root in the builder."""
        self._run(name, f". /run/environment\ncd /\numask 022\n{script}", stdin)

    def _run(self, name: str, script: str, stdin: str | None) -> None:
        """Give zlogin its one argument, a line for the shell of the zone's root.

        The exit code comes back in a file: zlogin has codes of its own, and reports a command that was killed as 0.
        """
        self.status.unlink(missing_ok=True)
        line = f"/bin/sh -euc {shlex.quote(script)}; echo $? >{SHARE}/{self.status.name}"
        self.log.step(name, ["zlogin", "-Q", self.uuid, line], os.environ, stdin)
        try:
            code = self.status.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise StepError(name, "did not run to its end: did the zone stop?") from None
        if code != "0":
            raise StepError(name, f"exit code {code}")

    def install_debian(self, recipe: Recipe, settings: Settings) -> None:
        """Make the seed the Debian that a base image is, and bring the package lists that the others use."""
        if recipe.suite:
            self.step("see which Debian it is", RIGHT_DEBIAN.format(suite=recipe.suite))
            self.write("/etc/dpkg/dpkg.cfg.d/zonestack", DPKG_SETTINGS)
            if settings.mirror:
                self.step("forget the seed's archives", "rm -f /etc/apt/sources.list.d/*")
                self.write(
                    "/etc/apt/sources.list",
                    "".join(f"{line}\n" for line in mirror_lines(recipe.suite, settings.mirror)),
                )
            self.trust(recipe)
            self.write(f"/etc/systemd/system/{PROVISIONED_UNIT}", PROVISIONED)
            self.write("/etc/systemd/system-preset/00-smartos.preset", f"enable {PROVISIONED_UNIT}\n")
        if recipe.packages:
            refresh_lists(self.store, self)
        if recipe.suite:
            self.install_packages("bring Debian up to date", "dist-upgrade")
            self.install_packages("install Debian's packages", "install", recipe.packages)

    def become(self, draft: Draft) -> None:
        """Stop the builder and have imgadm make it a draft."""
        self.step("seal it", SEAL)
        Vmadm().do(self.uuid, Step("stop"))
        # journald wrote until the end
        for left in (ZONES / self.uuid / "root/var/log/journal").glob("*"):
            shutil.rmtree(left)
        name, _hyphen, version = self.recipe.id.rpartition("-")
        manifest = {
            "name": f"zonestack-{name}",
            "version": version,
            "description": f"Made by zonestack from {self.origin}",
            "tags": {TAG: self.recipe.id},
        }
        self.store.client.create(self.uuid, manifest, draft.prefix, incremental=bool(self.recipe.parent))
