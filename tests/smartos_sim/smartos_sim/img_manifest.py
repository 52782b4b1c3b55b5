# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What imgadm refuses in a manifest: each field in its order, all faults at once; and the platform that an image wants."""

from __future__ import annotations

import re
import typing as t

from .img_error import ImgError
from .javascript import dumps, number_of
from .validate import UUID

Manifest = dict[str, t.Any]
Faults = t.Iterator[str]

REQUIRED = ("v", "uuid", "name", "version", "type", "os")
TYPES = ("zone-dataset", "zvol", "lx-dataset", "docker", "other")
OSES = ("smartos", "linux", "windows", "bsd", "illumos", "other")
STATES = ("active", "unactivated", "disabled", "failed", "creating")
COMPRESSIONS = ("gzip", "bzip2", "xz", "none")
DRIVERS = ("nic_driver", "disk_driver", "cpu_type")
PLATFORM = "7.0"  # what sysinfo calls "SDC Version"
FIRST_YEAR = 2012


def upgrade(manifest: Manifest) -> None:
    """Refuse a manifest whose version is not told; older versions are not simulated."""
    if not manifest.get("v"):
        raise ImgError("InvalidManifest", 'manifest is invalid: manifest does not have a "v" field')
    if (number_of(manifest["v"]) or 0) < 2:
        raise ImgError(
            "InvalidManifest",
            f'manifest is invalid: old DSAPI manifest does not have a "creator_uuid": {dumps(manifest)}',
        )


def validate(manifest: Manifest) -> None:
    """Refuse a manifest that install does not take; all that is wrong at once."""
    faults: list[str] = []
    for name in REQUIRED:
        faults += CHECKS[name](manifest) if name in manifest else [f"{name} (MissingParameter)"]
    for name, check in CHECKS.items():
        if name not in REQUIRED and name in manifest:
            faults += check(manifest)
    faults += [name for name in manifest if name not in CHECKS]
    if faults:
        raise ImgError("ManifestValidation", f"invalid manifest: {', '.join(faults)}")


def _text(value: t.Any) -> str:
    """A value as it is joined to a message."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return value if isinstance(value, str) else dumps(value)


def _version(manifest: Manifest) -> Faults:
    number = number_of(manifest["v"])
    if number is None or number < 0:
        yield 'v ("v" must be a positive integer)'


def _uuid(name: str) -> t.Callable[[Manifest], Faults]:
    def check(manifest: Manifest) -> Faults:
        if not isinstance(manifest[name], str) or not UUID.fullmatch(manifest[name]):
            yield name

    return check


def _label(name: str, most: int, signs: str, words: str) -> t.Callable[[Manifest], Faults]:
    def check(manifest: Manifest) -> Faults:
        value = str(manifest[name])
        if len(value) > most:
            yield f"{name} (image {name} is too long, max {most} characters)"
        elif not re.fullmatch(f"[A-Za-z0-9{signs}]+", value):
            yield f"{name} (image {name} has invalid characters (only alpha-numeric characters and {words} are allowed))"

    return check


def _description(manifest: Manifest) -> Faults:
    if len(manifest["description"]) > 10240:
        yield "description (image description is too long, max 10240 characters)"


def _address(name: str, word: str) -> t.Callable[[Manifest], Faults]:
    def check(manifest: Manifest) -> Faults:
        value = str(manifest[name])
        if not re.match(r"https?:", value.strip(), re.IGNORECASE):
            yield f"{name} (invalid image {word} URL protocol)"
        elif len(value) > 1024:
            yield f"{name} (image {word} URL is too long (max 1024 characters))"

    return check


def _truth(name: str, told: bool = False) -> t.Callable[[Manifest], Faults]:
    def check(manifest: Manifest) -> Faults:
        if not isinstance(manifest[name], bool) and manifest[name] not in ("true", "false"):
            fault = f'TypeError: invalid value for "undefined": {dumps(manifest[name])}'
            if not told:
                raise ImgError("InternalError", fault)
            yield f"{name} ({fault})"

    return check


def _published(manifest: Manifest) -> Faults:
    value = manifest["published_at"]
    if value and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", str(value)):
        yield 'published_at (published_at date not in "YYYY-MM-DDTHH:MM:SS(.SSS)Z" format)'


def _state(manifest: Manifest) -> Faults:
    if manifest["state"] not in STATES:
        yield "state"


def _one_of(name: str, known: tuple[str, ...]) -> t.Callable[[Manifest], Faults]:
    def check(manifest: Manifest) -> Faults:
        if manifest[name] == "null":
            if manifest.get("state") not in ("creating", "failed"):
                yield f'{name} (invalid image {name}, "null")'
        elif manifest[name] not in known:
            yield f'{name} (invalid image {name}, "{_text(manifest[name])}", must be one of: {", ".join(known)})'

    return check


def _driver(name: str) -> t.Callable[[Manifest], Faults]:
    def check(manifest: Manifest) -> Faults:
        value = manifest[name]
        if value and manifest.get("type") != "zvol":
            # the recorded tool words it the wrong way round, and one of them with a blank too many
            blank = " " if name == "disk_driver" else ""
            yield f'{name} (invalid image {name}: "{_text(value)}" (cannot have a value {blank}when image type is zvol))'
        elif not isinstance(value, str):
            yield f'{name} (invalid image {name}: "{_text(value)}" (must be a string))'

    return check


def _size(manifest: Manifest) -> Faults:
    value = manifest["image_size"]
    number = number_of(value)
    if value and manifest.get("type") != "zvol":
        yield f'image_size (invalid image image_size: "{_text(value)}" (cannot have a value when image type is zvol))'
    elif number is None or not float(number).is_integer():
        yield f'image_size (invalid image image_size: "{_text(value)}" (must be a positive integer))'


def _files(manifest: Manifest) -> Faults:
    files = manifest["files"]
    if not isinstance(files, list):
        yield f'files (invalid image "files" (not an array): {_text(files)})'
    elif len(files) > 1:
        yield 'files (invalid image "files": too many files)'
    elif files:
        for name in ("sha1", "size", "compression"):
            if not files[0].get(name):
                yield f'files (invalid image "files": file missing "{name}" field)'
        kind = files[0].get("compression")
        if kind and kind not in COMPRESSIONS:
            known = ", ".join(COMPRESSIONS)
            yield f'files (invalid image "files": invalid compression "{kind}" (must be one of {known}))'


def _array(name: str, echo: t.Callable[[t.Any], str]) -> t.Callable[[Manifest], Faults]:
    """A list; what its entries must be is in ENTRIES."""

    def check(manifest: Manifest) -> Faults:
        value = manifest[name]
        if not isinstance(value, list):
            yield f'{name} (invalid image "{name}" (not an array): {echo(value)})'
            return
        yield from ENTRIES[name](value)

    return check


def _acl(entries: list[t.Any]) -> Faults:
    for number, one in enumerate(entries):
        if not isinstance(one, str) or not UUID.fullmatch(one):
            yield f'acl (invalid image "acl" (item {number} is not a UUID): {_text(one)})'
            return


def _users(entries: list[t.Any]) -> Faults:
    for one in entries:
        if not isinstance(one, dict) or "name" not in one or len(one) != 1:
            yield f'users (invalid image "users" entry: {dumps(one)})'


def _billing(entries: list[t.Any]) -> Faults:
    for one in entries:
        if not isinstance(one, str) or len(one) > 128:
            yield f'billing_tags (invalid image "billing_tags" entry : {_text(one)})'


ENTRIES = {"acl": _acl, "users": _users, "billing_tags": _billing}


def _traits(manifest: Manifest) -> Faults:
    traits = manifest["traits"]
    if not isinstance(traits, (dict, list)):
        yield f'traits (invalid image "traits" (not an object): {dumps(traits)})'
        return
    for key, value in traits.items() if isinstance(traits, dict) else enumerate(traits):
        if not isinstance(value, (str, bool, list)):
            yield f'traits (invalid image "traits" entry: ({key}, {dumps(value)}))'


def _tags(manifest: Manifest) -> Faults:
    tags = manifest["tags"]
    if not isinstance(tags, dict):
        yield f'tags (invalid image "tags" (not an object): {dumps(tags)})'
    elif len(dumps(tags)) > 102400:
        yield f'tags (image "tags" object is too big: {len(dumps(tags))} characters (max 102400))'


def _directories(manifest: Manifest) -> Faults:
    name, value = "inherited_directories", manifest["inherited_directories"]
    if manifest.get("type") != "zone-dataset":
        yield f'{name} (invalid image "{name}" (only valid for a type:zone-dataset image): {dumps(value)})'
    elif not isinstance(value, list):
        yield f'{name} (invalid image "{name}" (not an array): {dumps(value)})'
    else:
        for one in value:
            if not isinstance(one, str):
                yield f'{name} (invalid image "{name}" entry: {dumps(one)})'


# -- requirements ------------------------------------------------------------------------------------------------------


def _requirements(manifest: Manifest) -> Faults:
    found = manifest["requirements"]
    # A text or a list has its places for names.
    needs = dict(found) if isinstance(found, dict) else {str(n): one for n, one in enumerate(found or ())}
    networks, brand, key = (needs.pop(name, None) for name in ("networks", "brand", "ssh_key"))
    if networks and not isinstance(networks, list):
        yield _need("networks", "not an array", networks)
    for one in networks if isinstance(networks, list) else ():
        if not isinstance(one, dict) or set(one) != {"name", "description"}:
            name = "requirements.networks"
            yield f'{name} (invalid image "{name}" entry: {dumps(one)})'
    if brand and not isinstance(brand, str):
        yield _need("brand", "not a string", brand)
    if key and not isinstance(key, bool):
        yield _need("ssh_key", "not a boolean", key)
    yield from _memory(needs)
    for name in ("min_platform", "max_platform"):
        yield from _platforms(name, needs.pop(name, None))
    yield from _rom(needs.pop("bootrom", None), brand)
    for name in needs:
        yield f'{name} (unsupported requirement "{name}")'


def _need(name: str, fault: str, value: t.Any) -> str:
    return f'requirements.{name} (invalid image "requirements.{name}" ({fault}): {dumps(value)})'


def _memory(needs: dict[str, t.Any]) -> Faults:
    limits = []
    for name in ("min_ram", "max_ram"):
        value = needs.pop(name, None)
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
        if value and not good:
            yield _need(name, "not a positive integer", value)
        limits.append(value if good else None)
    least, most = limits
    if least and most and most < least:
        yield f"requirements.max_ram (min_ram must be <= max_ram, but:min_ram={least}, max_ram={most})"


def _platforms(name: str, value: t.Any) -> Faults:
    if not value and value != {}:
        return
    if not isinstance(value, (dict, list)) or not value:
        yield _need(name, "not an object", value)
        return
    for version, stamp in value.items() if isinstance(value, dict) else enumerate(value):
        if not _is_stamp(str(stamp)):
            what = f'invalid image "requirements.{name}" entry: "{version}: {stamp}" not a valid platform version'
            yield f"requirements.{name} ({what})"


def _is_stamp(text: str) -> bool:
    """Whether a platform's stamp is one, as 20130308T102805Z."""
    found = re.fullmatch(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", text)
    if not found:
        return False
    year, month, day, hour, minute, second = map(int, found.groups())
    return year >= FIRST_YEAR and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60


def _rom(rom: t.Any, brand: t.Any) -> Faults:
    name = "requirements.bootrom"
    if not rom:
        return
    if not brand:
        yield f'{name} ("requirements.brand" not specified. "{name}" requires "requirements.brand" to be set to "bhyve")'
    elif brand != "bhyve":
        yield (
            f'{name} (invalid bootrom "{name}" not supported with "{_text(brand)}" brand; '
            f'"requirements.brand" must be "bhyve")'
        )
    elif rom not in ("bios", "uefi"):
        yield f'{name} (invalid bootrom "{name}" invalid entry "{_text(rom)}"; must be one of: bios, uefi)'


CHECKS: dict[str, t.Callable[[Manifest], t.Iterable[str]]] = {
    "v": _version,
    "uuid": _uuid("uuid"),
    "urn": lambda manifest: [] if isinstance(manifest["urn"], str) else ["urn"],
    "owner": _uuid("owner"),
    "name": _label("name", 1024, "._/ -", '" ", ".", "-", "_" and "/"'),
    "version": _label("version", 512, "._/+-", '".", "-", "_" and "/"'),
    "description": _description,
    "homepage": _address("homepage", "homepage"),
    "eula": _address("eula", "EULA"),
    "disabled": _truth("disabled"),
    "activated": _truth("activated"),
    "published_at": _published,
    "state": _state,
    "public": _truth("public", told=True),
    "type": _one_of("type", TYPES),
    "os": _one_of("os", OSES),
    "origin": _uuid("origin"),
    "error": lambda manifest: (
        [] if isinstance(manifest["error"], (dict, list, type(None)))
        else [f'error (invalid image "error" (not an object): {dumps(manifest["error"])})']
    ),
    "files": _files,
    "icon": _truth("icon"),
    "acl": _array("acl", _text),
    "requirements": _requirements,
    "users": _array("users", dumps),
    "billing_tags": _array("billing_tags", _text),
    "traits": _traits,
    "tags": _tags,
    "generate_passwords": _truth("generate_passwords"),
    "inherited_directories": _directories,
    **{name: _driver(name) for name in DRIVERS},
    "image_size": _size,
    "channels": lambda manifest: ["channels (channels is invalid with an IMGAPI not configured for channels)"],
}  # fmt: skip
"""Fields in the order in which they are looked at."""


def check_platform(manifest: Manifest, here: str) -> None:
    """``min_platform`` and ``max_platform`` are held against this node's platform stamp."""
    needs = manifest.get("requirements") or {}
    for name, code in (("min_platform", "MinPlatform"), ("max_platform", "MaxPlatform")):
        stamps = needs.get(name)
        if not stamps:
            continue
        versions = sorted(stamps)
        if PLATFORM in stamps:
            wrong = here < stamps[PLATFORM] if name == "min_platform" else here > stamps[PLATFORM]
        else:
            wrong = PLATFORM < versions[0] if name == "min_platform" else PLATFORM > versions[-1]
        if wrong:
            raise ImgError(
                code,
                f"current platform version, {PLATFORM}/{here}, does not satisfy requirements.{name}={dumps(stamps)}",
            )
