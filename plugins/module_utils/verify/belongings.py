# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a project owns in a cloud: listed, and removed without a trace."""

from __future__ import annotations

import typing as t

from ansible_collections.zonestack.openstack.plugins.module_utils.verify.waiting import wait_for


def leftovers(things: t.Mapping[str, t.Iterable[t.Any]]) -> list[str]:
    """``kind name (id)`` of everything in ``things``, which maps a kind to what is there of it."""
    return [
        f"{kind} {getattr(thing, 'name', None) or '(no name)'} ({thing.id})"
        for kind, found in things.items()
        for thing in found
    ]


class Belongings:
    """What a project owns, seen and removed through ``conn`` (an ``openstack.connection.Connection``).

    :param conn: the user's own connection, or an administrator's, who sees all projects.
    :param admin: whether it is an administrator's.
    """

    def __init__(self, conn: t.Any, project: str, user: str, admin: bool) -> None:
        self.conn, self.project, self.user, self.admin = conn, project, user, admin

    def servers(self) -> list[t.Any]:
        found = (
            self.conn.compute.servers(all_projects=True, project_id=self.project)
            if self.admin
            else self.conn.compute.servers()
        )
        return [server for server in found if server.project_id == self.project]

    def images(self) -> list[t.Any]:
        return list(self.conn.image.images(owner=self.project))

    def keypairs(self) -> list[t.Any]:
        return list(self.conn.compute.keypairs(user_id=self.user) if self.admin else self.conn.compute.keypairs())

    def security_groups(self) -> list[t.Any]:
        # Every project has a group named default, which its user cannot delete: it goes with the project. To ask for a project's
        # groups would make it again, so an administrator asks for all and picks.
        if self.admin:
            return [group for group in self.conn.network.security_groups() if group.project_id == self.project]
        return [
            group for group in self.conn.network.security_groups(project_id=self.project) if group.name != "default"
        ]

    def server_groups(self) -> list[t.Any]:
        found = self.conn.compute.server_groups(**({"all_projects": True} if self.admin else {}))
        return [group for group in found if group.project_id == self.project]

    def networking(self) -> dict[str, list[t.Any]]:
        network = self.conn.network
        return {
            "floating IP": list(network.ips(project_id=self.project)),
            "router": list(network.routers(project_id=self.project)),
            "port": list(network.ports(project_id=self.project)),
            "subnet": list(network.subnets(project_id=self.project)),
            "network": list(network.networks(project_id=self.project)),
        }

    def all(self) -> dict[str, list[t.Any]]:
        """Kind of thing to what is there of it."""
        return {
            "instance": self.servers(),
            "image": self.images(),
            "key pair": self.keypairs(),
            **self.networking(),
            "security group": self.security_groups(),
            "server group": self.server_groups(),
        }

    def remove(self, limit: float) -> None:
        """Delete all of it, in the order in which one thing holds another."""
        servers = self.servers()
        for server in servers:
            self.conn.compute.delete_server(server, ignore_missing=True)
        for image in self.images():
            self.conn.image.delete_image(image, ignore_missing=True)
        ips = self.networking()["floating IP"]
        for address in ips:
            self.conn.network.delete_ip(address, ignore_missing=True)
        if servers:

            def look() -> tuple[bool | None, str]:
                left = self.servers()
                return (None if left else True), ", ".join(
                    f"{server.name} {server.status} {server.task_state}" for server in left
                )

            wait_for("the instances to be deleted", look, limit, ["nova_compute", "nova_conductor"])
        network = self.conn.network
        things = self.networking()
        for router in things["router"]:
            for port in network.ports(device_id=router.id, device_owner="network:router_interface"):
                network.remove_interface_from_router(router, port_id=port.id)
            network.delete_router(router, ignore_missing=True)
        for port in self.networking()["port"]:
            if not (port.device_owner or "").startswith("network:"):
                network.delete_port(port, ignore_missing=True)
        for found in things["network"]:
            network.delete_network(found, ignore_missing=True)
        for group in self.security_groups():
            network.delete_security_group(group, ignore_missing=True)
        for together in self.server_groups():
            self.conn.compute.delete_server_group(together, ignore_missing=True)
        for keypair in self.keypairs():
            who = {"user_id": self.user} if self.admin else {}
            self.conn.compute.delete_keypair(keypair, ignore_missing=True, **who)
