# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tempest.conf out of what a cloud says of itself: pure functions from facts to options, and from options to text.

What each option means: https://docs.openstack.org/tempest/latest/sampleconf.html
"""

from __future__ import annotations

import configparser
import io
import ipaddress
import typing as t
from dataclasses import dataclass, field

Options = dict[str, dict[str, t.Any]]
"""Section to option to value."""

PROJECT_NETWORKS = ("10.100.0.0/16", "172.30.0.0/16", "192.168.0.0/17", "198.18.0.0/16")
"""Where Tempest may take its projects' subnets from; the first that is in nobody's way is taken."""


class Refused(ValueError):
    """A cloud on which Tempest cannot run, or a file that is not what it should be."""


@dataclass(frozen=True)
class Cloud:
    """What is asked of a cloud, so that its ``tempest.conf`` follows."""

    auth: dict[str, str]
    """``auth_url``, ``username``, ``password``, ``project_name`` of the administrator."""
    region: str
    ca: str | None
    services: frozenset[str]
    """Types of service in the catalog."""
    image: str
    flavors: tuple[str, ...]
    """Ids, the smallest one first."""
    network: str
    network_name: str
    taken: tuple[str, ...]
    """Networks (CIDR) that a project's must not overlap."""
    extensions: tuple[str, ...]
    """Aliases of Neutron's extensions."""
    hypervisors: int = 1
    import_methods: tuple[str, ...] = ()
    dashboard: str | None = None
    folder: str = "/var/lib/tempest"
    more: Options = field(default_factory=dict)
    """What the deployment's owner sets beside, or instead."""


def project_network(taken: t.Iterable[str]) -> str:
    """The first network that overlaps none of ``taken``."""
    used = [ipaddress.IPv4Network(one) for one in taken]
    for candidate in PROJECT_NETWORKS:
        if not any(ipaddress.IPv4Network(candidate).overlaps(one) for one in used):
            return candidate
    raise Refused(
        f"every network that Tempest could use for its projects overlaps {', '.join(map(str, used))}: set network.project_network_cidr"
    )


def _common(cloud: Cloud) -> Options:
    """Where Tempest works, as whom, and which services there are."""
    return {
        "DEFAULT": {"debug": True, "log_file": f"{cloud.folder}/tempest.log", "use_stderr": False},
        "oslo_concurrency": {"lock_path": f"{cloud.folder}/locks"},
        "auth": {
            "use_dynamic_credentials": True,
            "admin_username": cloud.auth["username"],
            "admin_password": cloud.auth["password"],
            "admin_project_name": cloud.auth["project_name"],
            "admin_domain_name": "Default",
        },
        "identity": {
            "uri_v3": cloud.auth["auth_url"],
            "v3_endpoint_type": "internalURL",
            "region": cloud.region,
            "ca_certificates_file": cloud.ca,
        },
        "service_available": {
            "nova": "compute" in cloud.services,
            "glance": "image" in cloud.services,
            "neutron": "network" in cloud.services,
            "cinder": bool({"block-storage", "volumev3"} & cloud.services),
            "swift": "object-store" in cloud.services,
            "horizon": cloud.dashboard is not None,
        },
    }


def _compute(cloud: Cloud) -> Options:
    """What is known of Nova."""
    several = cloud.hypervisors > 1
    return {
        "compute": {
            "endpoint_type": "internalURL",
            "region": cloud.region,
            "image_ref": cloud.image,
            "image_ref_alt": cloud.image,
            "flavor_ref": cloud.flavors[0],
            "flavor_ref_alt": cloud.flavors[1] if len(cloud.flavors) > 1 else cloud.flavors[0],
            "hypervisor_type": "QEMU",
            "min_compute_nodes": cloud.hypervisors,
            "max_microversion": "latest",
        },
        "compute-feature-enabled": {
            "vnc_console": True,
            "cold_migration": several,
            "live_migration": several,
            "resize": several,
            "attach_encrypted_volume": False,
        },
    }


def _network(cloud: Cloud) -> Options:
    """What is known of Neutron."""
    return {
        "network": {
            "endpoint_type": "internalURL",
            "region": cloud.region,
            "public_network_id": cloud.network,
            "floating_network_name": cloud.network_name,
            "project_network_cidr": project_network(cloud.taken),
            "project_network_mask_bits": 26,
        },
        "network-feature-enabled": {
            "api_extensions": ",".join(cloud.extensions),
            "port_security": "port-security" in cloud.extensions,
            "floating_ips": "router" in cloud.extensions,
        },
    }


def options(cloud: Cloud) -> Options:
    """All that is set; what is not keeps Tempest's default."""
    if not cloud.flavors:
        raise Refused("the cloud has no flavor that holds the image; Tempest needs one, better two")
    # Clients are told the internal front ends: a public name need not be known in the zone that Tempest runs in.
    found: Options = {
        **_common(cloud),
        **_compute(cloud),
        **_network(cloud),
        "image": {"endpoint_type": "internalURL", "region": cloud.region},
        "image-feature-enabled": {"import_image": "glance-direct" in cloud.import_methods},
        "placement": {"endpoint_type": "internal", "region": cloud.region},
        "validation": {
            "run_validation": True,
            "connect_method": "floating",
            "image_ssh_user": "root",
            "ssh_timeout": 180,
        },
        "scenario": {"dhcp_client": "udhcpc"},
    }
    if cloud.dashboard:
        found["dashboard"] = {"dashboard_url": cloud.dashboard}
    for section, values in cloud.more.items():
        found.setdefault(section, {}).update(values)
    return {
        section: {name: value for name, value in values.items() if value is not None}
        for section, values in found.items()
    }


def shown(value: t.Any) -> str:
    """A value as it stands in the file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def problems(wanted: Options, known: t.Mapping[str, t.Mapping[str, t.Callable[[str], t.Any]]]) -> list[str]:
    """What this Tempest would not take, or would ignore without a word.

    :param known: section to option to what makes a value of its text, and raises ``ValueError`` for one that is none.
    """
    found = []
    for section, values in wanted.items():
        for name, value in values.items():
            take = known.get(section, {}).get(name)
            if take is None:
                found.append(f"{section}.{name} is no option of it")
                continue
            try:
                take(shown(value))
            except ValueError as why:
                found.append(f"{section}.{name} cannot be {shown(value)!r} ({why})")
    return found


def text(wanted: Options) -> str:
    """The file. A ``$`` is doubled, because oslo.config puts another option's value in its place."""
    # Sections are written in their order; DEFAULT is one as any other here.
    parser = configparser.RawConfigParser(default_section="")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    for section, values in wanted.items():
        parser.add_section(section)
        for name, value in values.items():
            parser.set(section, name, shown(value).replace("$", "$$"))
    out = io.StringIO()
    parser.write(out)
    return out.getvalue()


def skips(lines: str, file: str) -> dict[str, str]:
    """A list of skipped tests: regular expression to reason.

    One test a line, ``expression  # reason``. A line without a reason is refused: nobody could judge later whether it may go.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        expression, sign, reason = line.partition(" #")
        if not sign or len(reason.strip()) < 10:
            raise Refused(
                f"{file}:{number}: {line.strip()!r} has no reason: write `{expression.strip()}  # why this test cannot pass here`"
            )
        if expression.strip() in found:
            raise Refused(f"{file}:{number}: {expression.strip()!r} is listed twice: keep one")
        found[expression.strip()] = reason.strip()
    return found
