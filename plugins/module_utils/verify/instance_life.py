# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance's life as an ordinary user sees it: made, looked at, stopped, copied, and removed without a trace.

All of it belongs to a project and a user of its own, which are made for it and go with it. So what a killed
verification left is what that project owns, and nobody else's things can be meant. What one step must hand to the next
(the user's password among it) lies in a folder of the zone that only root reads.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import time
import typing as t
from pathlib import Path

from ansible_collections.zonestack.openstack.plugins.module_utils.files import write_atomically
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.belongings import Belongings, leftovers
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.waiting import Failed, wait_for

CIDR = "198.18.77.0/24"
"""The instance's network: of the block for benchmarks (RFC 2544), which no site's provider network overlaps."""
MARK = "/root/zonestack-verify"
"""File in the guest that its user-data writes, and that must survive."""

Fact = dict[str, t.Any]


def user_data(token: str) -> str:
    """A script that the guest runs when it boots for the first time: what it writes proves that user-data arrived."""
    return f"#!/bin/sh\necho {token} >{MARK}-{token}\necho zonestack-verify {token} >/dev/console\n"


class Notes:
    """What steps hand on: a JSON file below ``folder``, which only root may enter."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def write(self, facts: Fact) -> None:
        """Replace the notes."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        write_atomically(self.folder / "facts.json", json.dumps(facts), 0o600)

    def read(self) -> Fact:
        """What the step before wrote."""
        try:
            return t.cast("Fact", json.loads((self.folder / "facts.json").read_text()))
        except FileNotFoundError:
            raise Failed(f"{self.folder}/facts.json is missing: the step that boots the instance comes first") from None

    def forget(self) -> None:
        """Remove them."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Life:
    """The steps; each is one call of the module, and none needs anything of the one before but its notes."""

    def __init__(self, connect: t.Callable[..., t.Any], params: t.Mapping[str, t.Any]) -> None:
        """``connect`` is ``openstack.connect``."""
        self.connect, self.params = connect, params
        self.name: str = params["name"]
        self.limit: float = params["wait"]
        self.notes = Notes(params["folder"])
        self.words: list[str] = []
        """What the journals are searched for when this fails: ids of requests and instances."""

    # Connections

    def admin(self) -> t.Any:
        """The administrator's connection, from clouds.yaml."""
        return self.connect(cloud=self.params["cloud"], global_request_id=self.request())

    def request(self) -> str:
        """An id of this step's own, which services write to their logs beside each line that it causes."""
        request = (
            f"req-{secrets.token_hex(4)}-{'-'.join(secrets.token_hex(2) for part in range(3))}-{secrets.token_hex(6)}"
        )
        self.words.append(request)
        return request

    def user(self, facts: Fact) -> t.Any:
        """The ordinary user's connection, out of nothing but his own login."""
        return self.connect(
            **facts["auth"], load_yaml_config=False, load_envvars=False, global_request_id=self.request()
        )

    # Steps

    def boot(self) -> Fact:
        """Remove what a killed verification left; make the user, the network and an instance; return where it answers."""
        admin = self.admin()
        removed = self.remove_project(admin)
        facts = self.make_user(admin)
        self.notes.write(facts)
        conn = self.user(facts)
        image = conn.image.find_image(self.params["image"])
        if image is None:
            raise Failed(f"there is no image named {self.params['image']}", ["glance"])
        facts["flavor"] = self.flavor(conn, image).id
        self.make_network(conn, facts)
        hypervisors = self.hypervisors(admin)
        group = self.apart(admin, conn, facts["project"], len(hypervisors)) if len(hypervisors) > 1 else None
        asked_at = time.time()
        server = self.make_instances(conn, facts, image, len(hypervisors) - 1, group)
        active_after = round(time.time() - asked_at, 1)
        self.note_peers(admin, conn, facts)
        self.notes.write(facts)
        peers = [{"host": peer["host"], "address": peer["address"]} for peer in facts["peers"]]
        return {
            "removed": removed,
            "asked_at": asked_at,
            "active_after": active_after,
            "host": admin.compute.get_server(server.id).compute_host,
            "guests": [{**self.guest(facts, 0), "peers": peers}],
        }

    def make_user(self, admin: t.Any) -> Fact:
        """A project and a user of its own: what the user logs in with, and the ids."""
        project = admin.identity.create_project(
            name=self.name, domain_id="default", description="zonestack's verification; goes when it ends"
        )
        password = secrets.token_urlsafe(24)
        user = admin.identity.create_user(
            name=self.name, domain_id="default", default_project_id=project.id, password=password
        )
        role = admin.identity.find_role("member", ignore_missing=False)
        admin.identity.assign_project_role_to_user(project, user, role)
        config = admin.config
        return {
            "project": project.id,
            "user": user.id,
            "auth": {
                "auth_url": config.config["auth"]["auth_url"],
                "username": self.name,
                "password": password,
                "project_name": self.name,
                "user_domain_id": "default",
                "project_domain_id": "default",
                "region_name": config.get_region_name(),
                "interface": config.config.get("interface", "internal"),
                "cacert": config.config.get("cacert"),
            },
        }

    def make_network(self, conn: t.Any, facts: Fact) -> None:
        """A network behind a router to the outside, a security group for ping and SSH, and the key pair."""
        outside = conn.network.find_network(self.params["network"])
        if outside is None:
            raise Failed(f"a user sees no network named {self.params['network']}", ["neutron_api"])
        network = conn.network.create_network(name=self.name)
        subnet = conn.network.create_subnet(name=self.name, network_id=network.id, ip_version=4, cidr=CIDR)
        router = conn.network.create_router(name=self.name, external_gateway_info={"network_id": outside.id})
        conn.network.add_interface_to_router(router, subnet_id=subnet.id)
        group = conn.network.create_security_group(name=self.name)
        for rule in ({"protocol": "icmp"}, {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}):
            conn.network.create_security_group_rule(
                security_group_id=group.id, direction="ingress", ether_type="IPv4", **rule
            )
        conn.compute.create_keypair(name=self.name, public_key=self.params["public_key"])
        facts.update(network=network.id, outside=outside.id, group=group.id)

    def make_instances(self, conn: t.Any, facts: Fact, image: t.Any, peers: int, group: str | None) -> t.Any:
        """The instance with its floating address, and so many peers of it; return the instance.

        :param group: the server group that puts each on a hypervisor of its own, if any.
        """
        facts["marks"] = [secrets.token_hex(6)]
        there: Fact = {"networks": [{"uuid": facts["network"]}], "security_groups": [{"name": facts["group"]}]}
        if group:
            there["scheduler_hints"] = {"group": group}
        server = conn.compute.create_server(**self.common(facts, image.id, facts["marks"][0]), **there)
        facts["servers"] = [server.id]
        facts["peers"] = []
        for mark in (secrets.token_hex(6) for _peer in range(peers)):
            peer = conn.compute.create_server(**self.common(facts, image.id, mark), **there)
            facts["peers"].append({"id": peer.id, "mark": mark})
        self.notes.write(facts)
        server = self.until(conn, server, "ACTIVE")
        port = next(iter(conn.network.ports(device_id=server.id)), None)
        if port is None:
            raise Failed(
                f"instance {server.id} is ACTIVE, and Neutron knows no port of it", ["nova_compute", "neutron_api"]
            )
        floating = conn.network.create_ip(floating_network_id=facts["outside"], port_id=port.id)
        facts["addresses"] = [floating.floating_ip_address]
        return server

    def note_peers(self, admin: t.Any, conn: t.Any, facts: Fact) -> None:
        """Wait for the peers, and note their addresses and hosts."""
        for peer in facts["peers"]:
            now = self.until(conn, self.server(conn, peer["id"]), "ACTIVE")
            peer["address"] = next(conn.network.ports(device_id=now.id)).fixed_ips[0]["ip_address"]
            peer["host"] = admin.compute.get_server(now.id).compute_host

    def cycle(self) -> Fact:
        """Look at the console; stop, copy and start the instance, and boot another one from the copy."""
        facts = self.notes.read()
        conn = self.user(facts)
        server = self.server(conn, facts["servers"][0])
        self.console_log(conn, server, facts["marks"][0])
        for peer in facts["peers"]:  # metadata comes from the host that an instance is on
            self.console_log(conn, self.server(conn, peer["id"]), peer["mark"])
        url = self.console_page(conn, server)

        conn.compute.stop_server(server)
        self.until(conn, server, "SHUTOFF")
        image = conn.compute.create_server_image(server, name=self.name, wait=False)

        def look() -> tuple[t.Any | None, str]:
            found, now = conn.image.get_image(image.id), self.server(conn, server.id)
            done = found.status == "active" and now.task_state is None
            return (found if done else None), f"image {found.status}, instance {now.status} {now.task_state}"

        snapshot = wait_for(f"the snapshot of instance {server.id}", look, self.limit, ["nova_compute", "glance"])
        # Both boot at the same time; what is waited for afterwards is the slower one.
        conn.compute.start_server(server)
        port = conn.network.create_port(name=self.name, network_id=facts["network"], security_groups=[facts["group"]])
        floating = conn.network.create_ip(floating_network_id=facts["outside"], port_id=port.id)
        facts["marks"].append(secrets.token_hex(6))
        other = conn.compute.create_server(
            **self.common(facts, snapshot.id, facts["marks"][1]), networks=[{"port": port.id}]
        )
        facts["servers"].append(other.id)
        facts["addresses"].append(floating.floating_ip_address)
        self.notes.write(facts)
        self.until(conn, server, "ACTIVE")
        self.until(conn, other, "ACTIVE")
        return {"console": url, "guests": [self.guest(facts, 0), self.guest(facts, 1)]}

    def remove(self) -> Fact:
        """Delete everything as the user who made it, then the user; see that nothing is left. Of one that is gone already there is nothing to do."""
        admin = self.admin()
        if not any(
            find(self.name, domain_id="default") for find in (admin.identity.find_project, admin.identity.find_user)
        ):
            self.notes.forget()
            return {}
        servers: list[str] = []
        refused: Exception | None = None
        try:
            facts = self.notes.read()
            servers = facts.get("servers", []) + [peer["id"] for peer in facts.get("peers", [])]
            self.words += servers
            Belongings(self.user(facts), facts["project"], facts["user"], admin=False).remove(self.limit)
        except Exception as why:  # whatever it was, the administrator removes the rest before it is told
            refused = why
        self.remove_project(admin)
        if refused:
            raise refused
        # Placement answers for every consumer id, with an empty set when it holds nothing.
        held = [server for server in servers if admin.placement.get(f"/allocations/{server}").json().get("allocations")]
        if held:
            raise Failed(
                f"Placement still holds resources for the deleted instances {', '.join(held)}",
                ["placement", "nova_compute"],
            )
        self.notes.forget()
        return {}

    # Parts

    def remove_project(self, admin: t.Any) -> list[str]:
        """Remove the project and the user with all they own, if they are there; return what was found."""
        project = admin.identity.find_project(self.name, domain_id="default")
        user = admin.identity.find_user(self.name, domain_id="default")
        found: list[str] = []
        if project is not None:
            owner = user.id if user is not None else ""
            belongings = Belongings(admin, project.id, owner, admin=True)
            found = leftovers(belongings.all())
            if found:
                belongings.remove(self.limit)
            left = leftovers(belongings.all())
            if left:
                raise Failed(
                    f"still there after it was deleted: {', '.join(left)}", ["neutron_api", "nova_api", "glance"]
                )
            admin.delete_compute_quotas(project.id)  # what :meth:`apart` raised; Nova keeps it when a project goes
            admin.identity.delete_project(project)
        if user is not None:
            admin.identity.delete_user(user)
        return found

    def hypervisors(self, admin: t.Any) -> list[str]:
        """The hosts that take instances now: one which an operator has disabled, or which is lost, is no part of it."""
        services = admin.compute.services(binary="nova-compute")
        found = sorted(service.host for service in services if service.state == "up" and service.status == "enabled")
        if not found:
            raise Failed("Nova has no hypervisor that is enabled and up", ["nova_compute", "nova_conductor"])
        return found

    def apart(self, admin: t.Any, conn: t.Any, project: str, number: int) -> str:
        """A server group of which each hypervisor takes one instance, and room for so many; its id."""
        admin.set_compute_quotas(project, instances=number + 1, cores=-1, ram=-1, server_group_members=number)
        return str(conn.compute.create_server_group(name=self.name, policy="anti-affinity").id)

    def flavor(self, conn: t.Any, image: t.Any) -> t.Any:
        """The smallest flavor that holds the image."""
        flavors = sorted(conn.compute.flavors(), key=lambda flavor: (flavor.ram, flavor.disk, flavor.vcpus))
        fitting = [
            flavor
            for flavor in flavors
            if flavor.ram >= (image.min_ram or 0) and (flavor.disk >= (image.min_disk or 0) or not flavor.disk)
        ]
        if not fitting:
            raise Failed(
                f"no flavor is large enough for image {image.name} (memory {image.min_ram} MiB, disk {image.min_disk} GiB; "
                f"flavors: {', '.join(flavor.name for flavor in flavors) or 'none'})"
            )
        return fitting[0]

    def common(self, facts: Fact, image: str, mark: str) -> Fact:
        """What both instances are created with."""
        return {
            "name": f"{self.name}-{mark}",
            "image_id": image,
            "flavor_id": facts["flavor"],
            "key_name": self.name,
            "user_data": base64.b64encode(user_data(mark).encode()).decode(),
        }

    def server(self, conn: t.Any, server_id: str) -> t.Any:
        self.words.append(server_id)
        return conn.compute.get_server(server_id)

    def until(self, conn: t.Any, server: t.Any, status: str) -> t.Any:
        """Wait until the instance has that status and no task; an instance in ERROR has failed at once."""
        self.words.append(server.id)

        def look() -> tuple[t.Any | None, str]:
            now = conn.compute.get_server(server.id)
            if now.status == "ERROR":
                fault = (now.fault or {}).get("message", "no fault recorded")
                raise Failed(
                    f"instance {now.id} is in ERROR while it should become {status}: {fault}",
                    ["nova_conductor", "nova_scheduler", "nova_compute"],
                )
            state = f"{now.status}, task {now.task_state}"
            return (now if now.status == status and not now.task_state else None), state

        return wait_for(
            f"instance {server.id} to become {status}",
            look,
            self.limit,
            ["nova_compute", "nova_conductor", "nova_scheduler"],
        )

    def guest(self, facts: Fact, number: int) -> Fact:
        """An instance as the host needs it to see that it is the right one."""
        return {
            "id": facts["servers"][number],
            "address": facts["addresses"][number],
            "marks": facts["marks"][: number + 1],
            "mark": MARK,
        }

    def console_log(self, conn: t.Any, server: t.Any, mark: str) -> None:
        """What the guest's user-data wrote to the console must come out of the API."""

        def look() -> tuple[str | None, str]:
            text = conn.compute.get_server_console_output(server, length=400)["output"] or ""
            last = (text.strip().splitlines() or ["nothing"])[-1]
            return (
                text if mark in text else None
            ), f"{len(text)} characters without the line of its user-data; the last one: {last[:200]}"

        wait_for(f"the console log of instance {server.id}", look, 30, ["nova_compute"])

    def console_page(self, conn: t.Any, server: t.Any) -> str:
        """The address that Nova gives for the screen must answer with a page, and lead to the instance's screen."""
        from ansible_collections.zonestack.openstack.plugins.module_utils.verify import novnc

        url: str = conn.compute.create_console(server, console_type="novnc")["url"]
        cacert = conn.config.config.get("cacert")
        try:
            novnc.see_page(url, cacert)
            novnc.see_screen(url, cacert)
        except novnc.NoScreen as why:
            raise Failed(str(why), ["nova_novncproxy", "haproxy", "nova_compute"]) from None
        return url.split("?", 1)[0]
