#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the reference of all keys from the schemas that refuse anything else, that of all variables from the dataclasses that they are
instances of, and the pictures from the examples, so that none of them can differ from what it shows.

scripts/render-docs.py            write topology.md, services.md, variables.md and commands.md of docs/reference,
                                  docs/pictures/*.svg, and a table of docs/how-to/smartos.md
scripts/render-docs.py --check    write nothing; exit code 1 and a diff when one of them is not current
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import re
import sys
import tempfile
import types
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TOPOLOGY = """\
# topology.yml

The only file that a deployment's owner writes: `inventory/<deployment>/topology.yml`. Everything else follows from it, see
the commented examples: [one host](../../inventory/examples/aio/topology.yml), [two](../../inventory/examples/two-hosts/topology.yml),
[nine in three racks](../../inventory/examples/production/topology.yml). What the inventory makes of it, before anything runs:

```sh
ansible-inventory -i inventory/aio/topology.yml --graph
ansible-inventory -i inventory/aio/topology.yml --host aio1-keystone-1
```

A key that is not listed here, a value that does not fit, and a file that contradicts itself are refused when it is read:
the message names the file, the key, the value and what would be right, and nothing has been touched.

`scripts/render-docs.py` writes this page from the schema in `plugins/plugin_utils/topology/schema.py`.

"""

ARITHMETIC = """\
## Where zones are

`per_host` says what each host holds. `count` is dealt to the component's hosts (`hosts`, default all of them) in rounds, until
all zones have a host: a round gives each host one; the next is always of the failure domain (`zone` of the host) that holds the fewest
of the component so far, and of those the host with the lowest id. So members are on different hosts while there are hosts, and
spread over the failure domains as evenly as their hosts allow. Each component is dealt by itself.

What then must hold, or the file is refused with the numbers and what would be right:

| | when a host is lost | when a failure domain is lost |
|---|---|---|
| what votes (`quorum`: Galera, RabbitMQ, OVN) | a majority is left, where the deployment has three hosts; of two, no host has all | the same, of three and of two named domains |
| anything else with `count` of 2 or more | one zone is left, where the deployment has two hosts | the same, of two named domains |

So three members are never two on one host when there are three hosts, nor two in one failure domain when there are three. On a single
host everything is on it: that is the all-in-one. `hosts` that are too few for this are refused, not packed. `spread` says otherwise, of
one component or of all (at the top of the file): `host` demands the middle column and leaves out the last; `none` demands nothing; `zone`
demands both, however few hosts or domains there are. `per_host` of what does not vote is taken at its word, but for HAProxy: its zones
stand in for one another, so where there are several hosts no two of them may be on one.

What stays where it is:

| change | zones that move |
|---|---|
| none: the same file, in whatever order, anywhere, at any time | none |
| another service, or a component's sizes | none |
| `count` raised | none; the new ones are added. Lowered: the last ones go |
| a host added to those of a component, with any id | only to the new host, as many as it then holds of the component: none with the highest id, unless it makes hosts or failure domains more even |
| a host removed | its own only |
| a host replaced by a machine under the same name and id | none |
| a host gets another failure domain, or a component other `hosts` | dealt anew |

A zone that moves is another zone: its name begins with its host's. Every zone that does not move keeps name, number, address, UUID and
MAC address; its ordinal may change, by which nothing is named.

## Availability zones

Where hosts name more than one failure domain, or with `cloud.availability_zones: true`, those of the hypervisors are availability zones:
of Nova, where each is a host aggregate of its name, and of Neutron, where routers take them as hints. See
[networking](../explanation/networking.md#availability-zones). With `false` the failure domains only decide where zones are.

## Names and addresses

Nothing is allocated and nothing is remembered; each is a function of what stands above.

| what | how |
|---|---|
| zone | `<host>-<component>-<number>`, `_` written as `-`; the number counts the component's zones on that host from 1 |
| address | network + host's `id` × `block` + slot × 8 + number − 1 |
| host's own address, the zones' gateway | network + `id` × `block` + 1 |
| [virtual address](../explanation/networking.md#the-virtual-addresses) | network + 5, unless `endpoints.internal` says otherwise: of block 0, so never a host's or a zone's |
| image builders | the last eight addresses of a host's block |
| UUID | version 5: of the zone's name, in the namespace that is version 5 of `zonestack.openstack/<deployment>` in the DNS namespace |
| MAC address | `02:` and the first five bytes of the version 5 UUID of the network's name in the zone's UUID |

A service's slot stands in its file, so adding or removing hosts, services or replicas never renumbers another zone. A slot
has eight addresses: that many zones of one component fit on one host. Of a block of 512 addresses the slots 1 to 62 are for
components; a network needs room for the highest `id` plus one blocks.

## Variables and groups

[Variables](variables.md) has those that the inventory gives: `zone`, `host`, `service` and `stack`.

Groups: `zone_hosts` with `lxc_hosts` and `smartos_hosts`; `linked_hosts`, those with `links`; the groups of hosts that topology.yml names; `zones` with one group for
each service and component; `<host>_zones`, `-` written as `_`, with the zones of one host.

Variables of a group go to `group_vars/<group>.yml` beside topology.yml. The collection's own `group_vars/` are defaults for all
deployments: for the same group, the deployment's outrank them.
"""

SERVICES = """\
# Service files

A service is a folder: its declaration `service.yml`, beside it the templates, programs and other files that it names, and in
`tasks/` its hooks. The collection's services are in `services/`; a deployment may add its own in
`inventory/<deployment>/services/`, in folders named by `services_path` of topology.yml, and in those of the environment variable
`ZONESTACK_SERVICES_PATH` (with `:` between). A file replaces the file of the same name in an earlier folder, so a deployment may
replace a service's declaration, or one of its templates alone. The order is: the collection's, the deployment's, the variable's,
topology.yml's. Files `_*.yml` beside the folders are layers, not services.

Every other `*.yml` in a service's folder declares one component, with the keys of a component, as if it stood under `components`:
`services/nova/compute.yml` is component `nova_compute`. A deployment may add one to a service of the collection.

Templates (`{{ .. }}`) may stand in `config`, `daemons` and `steps`. They are evaluated in a run, with `zone`, `service`, `stack` and
`secrets`.

`scripts/render-docs.py` writes this page from the schema in `plugins/plugin_utils/services.py`.

"""

VARIABLES = """\
# Variables

What playbooks, templates and service files read. The inventory computes four variables from topology.yml and the services' files:

| variable | of | what it says |
|---|---|---|
| [`zone`](#zone) | every zone | where it is |
| [`service`](#service) | every component's group, so every zone | what it is |
| [`stack`](#stack) | all zones and machines | who the others are |
| [`host`](#host) | every machine | what it holds |

What the inventory makes of a zone is what `ansible-inventory -i inventory/aio/topology.yml --host aio1-keystone-1` prints. An optional
field is left out where it has no value; one that may be null is always there.

`scripts/render-docs.py` writes this page from the dataclasses in `plugins/plugin_utils/topology/nouns.py`.

"""

COMMANDS = """\
# Commands

Every command is in `scripts/` of the checkout and explains itself with `--help`. Unless `--deployment` names another one, a command
is about the deployment `aio`.

`scripts/render-docs.py` writes this page from the commands' own options.

"""


class Modules(t.NamedTuple):
    """What pages are made of, of this checkout."""

    schema: t.Any
    services: t.Any
    topology: t.Any
    nouns: t.Any


def load() -> Modules:
    """Import them."""
    with tempfile.TemporaryDirectory() as folder:
        namespace = Path(folder, "ansible_collections", "zonestack")
        namespace.mkdir(parents=True)
        (namespace / "openstack").symlink_to(ROOT)
        sys.path.insert(0, folder)
        from ansible_collections.zonestack.openstack.plugins.inventory import topology as _inventory  # noqa: F401
        from ansible_collections.zonestack.openstack.plugins.plugin_utils import schema, services
        from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology import nouns
        from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology import schema as topology

        sys.path.remove(folder)
    return Modules(schema, services, topology, nouns)


def type_name(kind: t.Any) -> str:
    """A schema's type in the words of YAML."""
    origin, args = t.get_origin(kind), t.get_args(kind)
    if origin is t.Annotated:
        return type_name(args[0])
    if origin in (t.Union, types.UnionType):
        return type_name(next(arg for arg in args if arg is not type(None)))
    if origin is t.Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if origin in (tuple, list):
        return f"list of {type_name(args[0])}"
    if origin is dict:
        return f"mapping to {type_name(args[1])}"
    if dataclasses.is_dataclass(kind):
        name = t.cast("type", kind).__name__
        return f"[{name}](#{name.lower()})"
    return {str: "string", int: "number", bool: "true or false", dict: "mapping"}.get(kind, "any")


def may_be_null(kind: t.Any, field: dataclasses.Field[t.Any]) -> bool:
    """Whether a noun's field is there without a value, see ``encode``."""
    inner = t.get_args(kind)[0]
    return type(None) in t.get_args(inner) and field.default is dataclasses.MISSING


def nested(kind: t.Any) -> t.Iterator[type]:
    """The schemas that a type mentions."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield kind
    for arg in t.get_args(kind):
        yield from nested(arg)


def rules(kind: t.Any, rule: t.Any) -> list[str]:
    """What a type's values must satisfy, in words."""
    found = [arg.right for arg in t.get_args(kind) if isinstance(arg, rule)]
    return (
        [text for arg in t.get_args(kind) for text in rules(arg, rule)] + found
        if t.get_origin(kind) is not dict
        else found
    )


def default(field: dataclasses.Field[t.Any]) -> str:
    """A field's default, as YAML would write it."""
    if field.default is dataclasses.MISSING:
        return "**required**" if field.default_factory is dataclasses.MISSING else ""
    if field.default in (None, (), "") or dataclasses.is_dataclass(field.default):
        return ""
    value = field.default
    text = (
        str(value).lower()
        if isinstance(value, bool)
        else f"[{', '.join(value)}]"
        if isinstance(value, tuple)
        else str(value)
    )
    return f"`{text}`"


def placed(text: str) -> str:
    """A schema's words with their links leading from docs/reference to the pages, which the words name without a folder."""

    def lead(match: re.Match[str]) -> str:
        page = next((ROOT / "docs").rglob(match[1]))
        return f"]({os.path.relpath(page, ROOT / 'docs/reference')}"

    return re.sub(r"\]\(([a-z-]+\.md)", lead, text)


def table(schema: t.Any, cls: type, seen: list[type]) -> str:
    """One schema as a section; schemas that it mentions are added to ``seen``."""
    hints = t.get_type_hints(cls, include_extras=True)
    lines = [
        f"## {cls.__name__}",
        "",
        placed((cls.__doc__ or "").strip()),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        seen += [one for one in nested(kind) if one not in seen]
        text = "; ".join(
            [next(arg for arg in t.get_args(kind) if isinstance(arg, str)), *dict.fromkeys(rules(kind, schema.Rule))]
        )
        lines.append(
            f"| `{schema.key_of(field)}` | {type_name(kind)} | {default(field)} | {placed(text.replace('|', chr(92) + '|'))} |"
        )
    return "\n".join(lines) + "\n\n"


def tables(schema: t.Any, first: t.Iterable[type]) -> str:
    """The sections of ``first`` and of every schema below."""
    seen = list(first)
    parts = []
    for cls in seen:  # grows while it is walked
        parts.append(table(schema, cls, seen))
    return "".join(parts)


def noun_table(modules: Modules, cls: type, seen: list[type]) -> str:
    """One noun, or a part of one, as a section; those that it mentions are added to ``seen``, but for the keys of services' files."""
    hints = t.get_type_hints(cls, include_extras=True)
    base = next((one for one in cls.__mro__[1:] if dataclasses.is_dataclass(one)), None)
    inherited = {field.name for field in dataclasses.fields(base)} if base else set()
    words = placed((cls.__doc__ or "").strip().replace("\n    ", "\n"))
    if base:
        words += f" It has the keys of [{base.__name__}](services.md#{base.__name__.lower()}), and:"
    lines = [f"## {cls.__name__}", "", words, "", "| field | type | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(cls):
        if field.name in inherited:
            continue
        kind = hints[field.name]
        name = type_name(kind)
        for one in nested(kind):
            if one.__module__ == modules.services.__name__:
                name = name.replace(f"(#{one.__name__.lower()})", f"(services.md#{one.__name__.lower()})")
            elif one not in seen:
                seen.append(one)
        optional = " or null" if may_be_null(kind, field) else ", optional" if field.default is None else ""
        text = placed(next(arg for arg in t.get_args(kind) if isinstance(arg, str)))
        lines.append(f"| `{modules.schema.key_of(field)}` | {name}{optional} | {text} |")
    return "\n".join(lines) + "\n\n"


def noun_tables(modules: Modules) -> str:
    """The sections of every noun and of what each holds, a noun's parts behind it."""
    parts = []
    nouns = [modules.nouns.Zone, modules.nouns.Service, modules.nouns.Host, modules.nouns.Stack]
    done: list[type] = []
    for noun in nouns:
        seen = [*done, noun]
        for cls in seen:  # grows while it is walked
            if cls not in done:
                parts.append(noun_table(modules, cls, seen))
        done = seen
    return "".join(parts).rstrip("\n") + "\n"


def pictures() -> dict[Path, str]:
    """Every generated picture: those of the examples, and that of an instance's network."""
    sys.path.insert(0, str(ROOT / "scripts/lib"))
    import networking
    from layout import draw
    from model import read_plan

    return {ROOT / "docs/pictures/networking.svg": networking.draw().svg()} | {
        ROOT / f"docs/pictures/topology-{name}.svg": draw(
            read_plan(ROOT / f"inventory/examples/{name}/topology.yml")
        ).svg()
        for name in ("aio", "production")
    }


def smartos() -> str:
    """docs/how-to/smartos.md with its table of what differs in zones there, from the rules that a test holds it to."""
    import yaml

    rules = yaml.safe_load((ROOT / "scripts/lib/parity.yml").read_text(encoding="utf-8"))["backends"]
    rows = [
        f"| {one.get('component', 'all')} | {' '.join(f'`{one[part]}`' for part in ('file', 'key') if one[part])} | {one['why']} |"
        for one in rules
    ]
    path = ROOT / "docs/how-to/smartos.md"
    head, begin, rest = path.read_text(encoding="utf-8").partition(
        "<!-- of scripts/lib/parity.yml, by scripts/render-docs.py -->\n"
    )
    _old, end, tail = rest.partition("<!-- end -->\n")
    return "\n".join([f"{head}{begin}| component | what | why |", "|---|---|---|", *rows, f"{end}{tail}"])


def commands() -> str:
    """Every command that takes options, from the parsers that read them."""
    sys.path.insert(0, str(ROOT / "scripts/lib"))
    import options

    made = [
        make()
        for make in vars(options).values()
        if getattr(make, "__module__", "") == "options"
        and t.get_type_hints(make) == {"return": argparse.ArgumentParser}
    ]
    made.sort(key=lambda parser: parser.prog)
    return COMMANDS + "\n".join(line for parser in made for line in described(parser))


def described(parser: argparse.ArgumentParser) -> list[str]:
    """One command as a section: what it does, its arguments, its examples."""
    lines = [f"## {parser.prog}", "", str(parser.description), ""]
    for action in parser._actions:
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest.upper()}`"
        value = f" `{action.metavar or action.dest.upper()}`" if action.option_strings and action.nargs != 0 else ""
        if action.dest != "help":
            lines.append(f"- {names}{value}: {action.help}")
    return [*lines, "", "```text", (parser.epilog or "").strip(), "```", ""]


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    modules = load()
    schema, services, topology, _nouns = modules
    return pictures() | {
        ROOT / "docs/how-to/smartos.md": smartos(),
        ROOT / "docs/reference/topology.md": TOPOLOGY
        + tables(schema, [topology.Topology, topology.Placement])
        + ARITHMETIC,
        ROOT / "docs/reference/commands.md": commands().rstrip("\n") + "\n",
        ROOT / "docs/reference/variables.md": VARIABLES + noun_tables(modules),
        ROOT / "docs/reference/services.md": SERVICES
        + tables(schema, [services.Service, services.BaseImage, services.PythonImage]).rstrip("\n")
        + "\n",
    }


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/render-docs.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page is not current")
    options = parser.parse_args()
    stale = 0
    for path, text in pages().items():
        current = path.read_text(encoding="utf-8") if path.exists() else ""
        if current == text:
            continue
        stale += 1
        if options.check:
            name = str(path.relative_to(ROOT))
            sys.stdout.writelines(
                difflib.unified_diff(current.splitlines(True), text.splitlines(True), name, f"{name} (as it should be)")
            )
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if stale and options.check:
        print("Run scripts/render-docs.py.", file=sys.stderr)
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
