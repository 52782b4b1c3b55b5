# SPDX-License-Identifier: GPL-3.0-or-later
"""Service manifests: checked against the structure of service_bundle(5)'s DTD, imported, and exported again."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .fmri import Fmri
from .repository import TYPES, Group, Groups, Property, Repository

DOCTYPE = "<!DOCTYPE service_bundle SYSTEM '/usr/share/lib/xml/dtd/service_bundle.dtd.1'>"

_BOOL = ("true", "false")
_GROUPING = ("require_all", "require_any", "exclude_all", "optional_all")
_RESTART_ON = ("error", "restart", "refresh", "none")
_MANIFEST_TYPES = tuple(kind for kind in TYPES if kind != "net_address")
_LISTS = "|".join(f"{kind}_list" for kind in _MANIFEST_TYPES)
_PROPERTIES = "(?:propval |property )*"

#: Structure of the DTD (usr/src/cmd/svc/dtd/service_bundle.dtd.1): for each element the order of its children, each name
#: followed by a blank, and its attributes. An attribute's value is None where any text will do; "?" marks optional ones.
DTD: dict[str, tuple[str, dict[str, tuple[str, ...] | None]]] = {
    "service_bundle": ("(?:service_bundle |service )*", {"type": None, "name": None}),
    "service": (
        "(?:create_default_instance )?(?:single_instance )?(?:restarter )?(?:dependency )*(?:dependent )*(?:method_context )?"
        "(?:exec_method )*(?:property_group )*(?:instance )*(?:stability )?(?:template )?",
        {"name": None, "version": None, "type": ("service", "restarter", "milestone")},
    ),
    "create_default_instance": ("", {"enabled": _BOOL}),
    "single_instance": ("", {}),
    "instance": (
        "(?:restarter )?(?:dependency )*(?:dependent )*(?:method_context )?(?:exec_method )*(?:property_group )*(?:template )?",
        {"name": None, "enabled": _BOOL},
    ),
    "restarter": ("service_fmri ", {}),
    "service_fmri": ("", {"value": None}),
    "dependency": (
        f"(?:service_fmri )*(?:stability )?{_PROPERTIES}",
        {"name": None, "grouping": _GROUPING, "restart_on": _RESTART_ON, "type": None, "?delete": _BOOL},
    ),
    "dependent": (
        f"service_fmri (?:stability )?{_PROPERTIES}",
        {"name": None, "grouping": _GROUPING, "restart_on": _RESTART_ON, "?delete": _BOOL, "?override": _BOOL},
    ),
    "method_context": (
        "(?:method_profile |method_credential )?(?:method_environment )?",
        {"?working_directory": None, "?project": None, "?resource_pool": None},
    ),
    "method_profile": ("", {"name": None}),
    "method_credential": (
        "",
        {"user": None, "?group": None, "?supp_groups": None, "?privileges": None, "?limit_privileges": None},
    ),  # fmt: skip
    "method_environment": ("(?:envvar )+", {}),
    "envvar": ("", {"name": None, "value": None}),
    "exec_method": (
        f"(?:method_context )?(?:stability )?{_PROPERTIES}",
        {"type": ("method", "monitor"), "name": None, "exec": None, "timeout_seconds": None, "?delete": _BOOL},
    ),
    "property_group": (f"(?:stability )?{_PROPERTIES}", {"name": None, "type": None, "?delete": _BOOL}),
    "propval": ("", {"name": None, "type": _MANIFEST_TYPES, "value": None, "?override": _BOOL}),
    "property": (f"(?:(?:{_LISTS}) )?", {"name": None, "type": _MANIFEST_TYPES, "?override": _BOOL}),
    **{f"{kind}_list": ("(?:value_node )+", {}) for kind in _MANIFEST_TYPES},
    "value_node": ("", {"value": None}),
    "stability": ("", {"value": ("Standard", "Stable", "Evolving", "Unstable", "External", "Obsolete")}),
    "template": ("common_name (?:description )?(?:documentation )?(?:pg_pattern )*", {}),
    "common_name": ("(?:loctext )+", {}),
    "description": ("(?:loctext )+", {}),
    "loctext": ("", {"{http://www.w3.org/XML/1998/namespace}lang": None}),
    "documentation": ("(?:doc_link |manpage )*", {}),
    "doc_link": ("", {"name": None, "uri": None}),
    "manpage": ("", {"title": None, "section": None, "?manpath": None}),
}

#: Properties of a method's context, as attributes of method_credential and method_context.
_CREDENTIAL = ("user", "group", "supp_groups", "privileges", "limit_privileges")
_CONTEXT = ("working_directory", "project", "resource_pool")


class ManifestError(Exception):
    """A manifest cannot be imported; the message names the element."""


@dataclass
class Service:
    """One service of a manifest: its groups, those of its instances, and the dependencies it puts upon others."""

    fmri: Fmri
    groups: Groups = field(default_factory=dict)
    instances: dict[str, Groups] = field(default_factory=dict)
    dependents: list[tuple[Fmri, str, Group]] = field(default_factory=list)
    deleted: set[tuple[str, str]] = field(default_factory=set)  # instance (or ""), group


def check(element: ET.Element) -> None:
    """Refuse an element, or one below it, that the DTD does not allow."""
    if element.tag not in DTD:
        raise ManifestError(f"No declaration for element {element.tag}")
    children, attributes = DTD[element.tag]
    found = "".join(f"{child.tag} " for child in element)
    if not re.fullmatch(children, found):
        raise ManifestError(f"Element {element.tag} content does not follow the DTD, got ({found.strip()})")
    if element.tag != "loctext" and any(
        (text or "").strip() for text in (element.text, *(child.tail for child in element))
    ):
        raise ManifestError(f"Element {element.tag} content does not follow the DTD, it holds text")
    allowed = {name.lstrip("?"): values for name, values in attributes.items()}
    for name in attributes:
        if not name.startswith("?") and name not in element.attrib:
            raise ManifestError(f"Element {element.tag} does not carry attribute {name}")
    for name, value in element.attrib.items():
        if name not in allowed:
            raise ManifestError(f"No declaration for attribute {name} of element {element.tag}")
        among = allowed[name]
        if among is not None and value not in among:
            raise ManifestError(
                f'Value "{value}" for attribute {name} of {element.tag} is not among the enumerated set'
            )
    for child in element:
        check(child)


def check_value(kind: str, value: str) -> None:
    """Refuse a value that is not of its type."""
    right = {
        "boolean": r"true|false|0|1", "count": r"-1|\d+", "integer": r"-?\d+", "time": r"-?\d+(\.\d{0,9})?",
        "opaque": r"([0-9a-fA-F]{2})*",
    }.get(kind)  # fmt: skip
    if kind not in TYPES or (right and not re.fullmatch(right, value)):
        raise ManifestError(f'Invalid "{kind}" value "{value}".')


def load(path: Path) -> list[Service]:
    """Read and check a manifest file."""
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as bad:
        raise ManifestError(f"couldn't parse document: {bad}") from None
    return parse(root)


def parse(root: ET.Element) -> list[Service]:
    """The services of a manifest."""
    check(root)
    if root.tag != "service_bundle" or root.get("type") != "manifest":
        raise ManifestError(f'bundle type "{root.get("type")}" is not a manifest')
    services = [_service(element) for element in root.iter("service")]
    if not services:
        raise ManifestError("the bundle holds no service")
    return services


def _service(element: ET.Element) -> Service:
    fmri = Fmri.parse(f"svc:/{element.get('name')}")
    if fmri is None or fmri.instance:
        raise ManifestError(f'"{element.get("name")}" is no name of a service')
    if not str(element.get("version")).isdigit():
        raise ManifestError(f'service {fmri.service}: version "{element.get("version")}" is no integer')
    made = Service(fmri)
    made.groups = _entity(element, "", made)
    if element.find("single_instance") is not None:
        general = made.groups.setdefault("general", Group("framework"))
        general.properties["single_instance"] = Property("boolean", ("true",))
    default = element.find("create_default_instance")
    if default is not None:
        made.instances["default"] = {}
        _enable(made.instances["default"], str(default.get("enabled")))
    for one in element.findall("instance"):
        name = str(one.get("name"))
        if Fmri.parse(f"{fmri}:{name}") is None:
            raise ManifestError(f'"{name}" is no name of an instance of {fmri}')
        made.instances[name] = _entity(one, name, made)
        _enable(made.instances[name], str(one.get("enabled")))
    return made


def _enable(groups: Groups, value: str) -> None:
    groups.setdefault("general", Group("framework")).properties["enabled"] = Property("boolean", (value,))


def _entity(element: ET.Element, instance: str, made: Service) -> Groups:
    """The property groups that the children of a service or an instance stand for."""
    groups: Groups = {}

    def add(name: str, group: Group) -> None:
        if name in groups:
            raise ManifestError(f'{made.fmri}: property group "{name}" is defined twice')
        groups[name] = group

    for child in element:
        name = str(child.get("name"))
        if child.get("delete") == "true":
            made.deleted.add((instance, name))
        elif child.tag == "restarter":
            add("general", Group("framework", {"restarter": Property("fmri", (_target(child),))}))
        elif child.tag == "dependency":
            add(name, _dependency(child, child.findall("service_fmri"), str(child.get("type"))))
        elif child.tag == "dependent":
            other = Fmri.parse(_target(child))
            if other is None:
                raise ManifestError(f'dependent "{name}" names no service or instance')
            mine = ET.Element("service_fmri", value=str(Fmri(made.fmri.service, instance)))
            group = _dependency(child, [mine], "service")
            group.properties["external"] = Property("boolean", ("true",))
            made.dependents.append((other, name, group))
        elif child.tag == "method_context":
            add("method_context", Group("framework", _context(child)))
        elif child.tag == "exec_method":
            timeout = str(child.get("timeout_seconds"))
            check_value("count", timeout)
            context = child.find("method_context")
            properties = {
                "exec": Property("astring", (str(child.get("exec")),)),
                "timeout_seconds": Property("count", (timeout,)),
                "type": Property("astring", (str(child.get("type")),)),
                **(_context(context) if context is not None else {}),
                **_properties(child),
            }
            add(name, Group("method", properties))
        elif child.tag == "property_group":
            add(name, Group(str(child.get("type")), _properties(child)))
        elif child.tag == "template":
            for tag in ("common_name", "description"):
                for text in child.iterfind(f"{tag}/loctext"):
                    language = str(text.get("{http://www.w3.org/XML/1998/namespace}lang"))
                    value = Property("ustring", (" ".join((text.text or "").split()),))
                    groups.setdefault(f"tm_{tag}", Group("template")).properties[language] = value
    return groups


def _target(element: ET.Element) -> str:
    found = element.find("service_fmri")
    return str(found.get("value")) if found is not None else ""


def _dependency(element: ET.Element, entities: list[ET.Element], kind: str) -> Group:
    properties = {
        "entities": Property("fmri", tuple(str(one.get("value")) for one in entities)),
        "grouping": Property("astring", (str(element.get("grouping")),)),
        "restart_on": Property("astring", (str(element.get("restart_on")),)),
        "type": Property("astring", (kind,)),
    }
    return Group("dependency", {**properties, **_properties(element)})


def _context(element: ET.Element) -> dict[str, Property]:
    found = {name: Property("astring", (str(element.get(name)),)) for name in _CONTEXT if element.get(name) is not None}
    credential = element.find("method_credential")
    if credential is not None:
        found["use_profile"] = Property("boolean", ("false",))
        for name in _CREDENTIAL:
            if credential.get(name) is not None:
                found[name] = Property("astring", (str(credential.get(name)),))
    profile = element.find("method_profile")
    if profile is not None:
        found["use_profile"] = Property("boolean", ("true",))
        found["profile"] = Property("astring", (str(profile.get("name")),))
    variables = element.findall("method_environment/envvar")
    if variables:
        found["environment"] = Property("astring", tuple(f"{one.get('name')}={one.get('value')}" for one in variables))
    return found


def _properties(element: ET.Element) -> dict[str, Property]:
    found = {}
    values: tuple[str, ...]
    for child in element:
        if child.tag == "propval":
            values = (str(child.get("value")),)
        elif child.tag == "property":
            if len(child) and child[0].tag != f"{child.get('type')}_list":
                raise ManifestError(
                    f'property "{child.get("name")}" of type {child.get("type")} holds a {child[0].tag}'
                )
            values = tuple(str(one.get("value")) for one in child.iter("value_node"))
        else:
            continue
        for value in values:
            check_value(str(child.get("type")), value)
        found[str(child.get("name"))] = Property(str(child.get("type")), values)
    return found


# Import

#: What an import never changes once it is there, since it is the administrator's (svccfg(8)).
_PREFERENCES = {("general", "enabled"), ("general", "restarter")}
_LAST = "last-import"


def install(repository: Repository, services: list[Service]) -> tuple[list[Fmri], list[str]]:
    """Bring services into the repository, or upgrade what the administrator left as the last import had it.

    :returns: the instances to refresh, and what was left alone because both sides had changed it
    """
    touched: list[Fmri] = []
    conflicts: list[str] = []
    with repository.change():
        for service in services:
            entities = [(service.fmri, service.groups)]
            entities += [(Fmri(service.fmri.service, name), groups) for name, groups in service.instances.items()]
            for fmri, groups in entities:
                repository.add(fmri)
                conflicts += _upgrade(repository, fmri, groups)
                for instance, name in service.deleted:
                    if instance == fmri.instance:
                        repository.drop(fmri, name)
            for other, name, group in service.dependents:
                repository.add(other)
                repository.put(other, name, group)
                touched += [one for one in repository.instances() if other in (one, one.parent)]
            touched += [one for one in repository.instances() if one.parent == service.fmri]
    return list(dict.fromkeys(touched)), conflicts


def _upgrade(repository: Repository, fmri: Fmri, new: Groups) -> Iterator[str]:
    """Merge three states of each property: as last imported, as it is, as the manifest has it."""
    base, now = repository.groups(fmri, _LAST), repository.groups(fmri)
    conflicts = []
    for name in sorted({*base, *new}):
        group = now.get(name) or Group(new[name].type if name in new else base[name].type)
        was = base[name].properties if name in base else {}
        wanted = new[name].properties if name in new else {}
        for key in sorted({*was, *wanted}):
            before, have, want = was.get(key), group.properties.get(key), wanted.get(key)
            if have == want or (want == before and before is not None):
                continue
            if have is not None and (name, key) in _PREFERENCES:
                continue
            if have != before:
                conflicts.append(
                    f'Conflict upgrading {fmri} (not upgrading property "{name}/{key}", which was changed).'
                )
            elif want is None:
                group.properties.pop(key)
            else:
                group.properties[key] = want
        if group.properties or name in new:
            repository.put(fmri, name, group)
        elif name in now:
            repository.drop(fmri, name)
    repository.drop(fmri, None, _LAST)
    for name, group in new.items():
        repository.put(fmri, name, group, _LAST)
    return iter(conflicts)


# Export


def export(repository: Repository, service: Fmri) -> str:
    """A service with its instances as a manifest."""
    bundle = ET.Element("service_bundle", type="manifest", name="export")
    element = ET.SubElement(bundle, "service", name=service.service, type="service", version="0")
    groups = {name: group for name, group in repository.groups(service).items() if group.persistent}
    if "general" in groups and groups["general"].first("single_instance") == "true":
        ET.SubElement(element, "single_instance")
    template = _export_entity(element, groups)
    for fmri in (one for one in repository.instances() if one.parent == service):
        mine = {name: group for name, group in repository.groups(fmri).items() if group.persistent}
        enabled = mine["general"].first("enabled") if "general" in mine else None
        inner = ET.SubElement(element, "instance", name=fmri.instance, enabled=enabled or "false")
        own = _export_entity(inner, mine)
        if own is not None:
            inner.append(own)
    if template is not None:
        element.append(template)
    ET.indent(bundle)
    return f"<?xml version='1.0'?>\n{DOCTYPE}\n{ET.tostring(bundle, encoding='unicode')}\n"


def _export_entity(parent: ET.Element, groups: Groups) -> ET.Element | None:
    """Add what a DTD puts before the instances; return the template, which comes last."""
    restarter = groups["general"].first("restarter") if "general" in groups else None
    if restarter:
        ET.SubElement(ET.SubElement(parent, "restarter"), "service_fmri", value=restarter)
    for name, group in groups.items():
        if group.type == "dependency" and group.first("external") != "true":
            words = {key: group.first(key) or "" for key in ("grouping", "restart_on", "type")}
            element = ET.SubElement(parent, "dependency", {"name": name, **words})
            for value in group.properties["entities"].values if "entities" in group.properties else ():
                ET.SubElement(element, "service_fmri", value=value)
            _export_properties(element, group, {"entities", *words})
    if "method_context" in groups:
        _export_context(parent, groups["method_context"])
    for name, group in groups.items():
        if group.type == "method":
            words = {key: group.first(key) or "" for key in ("type", "exec", "timeout_seconds")}
            element = ET.SubElement(parent, "exec_method", {"name": name, **words})
            context = {*_CREDENTIAL, *_CONTEXT, "environment", "use_profile", "profile"}
            if context & set(group.properties):
                _export_context(element, group)
            _export_properties(element, group, {*words, *context})
    for name, group in groups.items():
        if group.type not in ("dependency", "method", "template") and name not in ("general", "method_context"):
            element = ET.SubElement(parent, "property_group", name=name, type=group.type)
            _export_properties(element, group, set())
    if "tm_common_name" not in groups:
        return None
    template = ET.Element("template")
    for tag in ("common_name", "description"):
        if f"tm_{tag}" in groups:
            inner = ET.SubElement(template, tag)
            for language, text in groups[f"tm_{tag}"].properties.items():
                ET.SubElement(
                    inner, "loctext", {"{http://www.w3.org/XML/1998/namespace}lang": language}
                ).text = text.values[0]
    return template


def _export_context(parent: ET.Element, group: Group) -> None:
    words = {name: group.first(name) or "" for name in _CONTEXT if name in group.properties}
    element = ET.SubElement(parent, "method_context", words)
    if "user" in group.properties:
        credential = {name: group.first(name) or "" for name in _CREDENTIAL if name in group.properties}
        ET.SubElement(element, "method_credential", credential)
    if "environment" in group.properties:
        environment = ET.SubElement(element, "method_environment")
        for value in group.properties["environment"].values:
            name, _equals, text = value.partition("=")
            ET.SubElement(environment, "envvar", name=name, value=text)


def _export_properties(parent: ET.Element, group: Group, but: set[str]) -> None:
    for name, one in group.properties.items():
        if name in but:
            continue
        if len(one.values) == 1:
            ET.SubElement(parent, "propval", name=name, type=one.type, value=one.values[0])
        else:
            element = ET.SubElement(parent, "property", name=name, type=one.type)
            if one.values:
                inner = ET.SubElement(element, f"{one.type}_list")
                for value in one.values:
                    ET.SubElement(inner, "value_node", value=value)
