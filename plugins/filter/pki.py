# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter that computes a zone's certificate; zone_certificate.yml documents it."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.zonestack.openstack.plugins.plugin_utils import pki


def zone_certificate(
    authority: t.Mapping[str, str],
    name: str,
    uuid: str,
    addresses: t.Sequence[str] = (),
    dns: t.Sequence[str] = (),
    usages: t.Sequence[str] = ("server", "client"),
) -> dict[str, str]:
    """Compute a zone's key and certificate from ``secrets.pki``."""
    if pki.MISSING:
        raise AnsibleFilterError(
            f"zone_certificate: the controller's Python needs cryptography 45 or newer: {pki.MISSING}"
        )
    try:
        key, certificate = authority["ca_key"], authority["ca_certificate"]
    except (KeyError, TypeError):
        raise AnsibleFilterError(
            "zone_certificate: the input must have ca_key and ca_certificate; scripts/deployment-secrets.py ensure writes them as secrets.pki"
        ) from None
    try:
        return pki.zone_certificate(key, certificate, name, uuid, addresses, dns, usages)
    except ValueError as error:
        raise AnsibleFilterError(f"zone_certificate: {error}") from None


class FilterModule:
    """Filters about certificates."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Names of the filters."""
        return {"zone_certificate": zone_certificate}
