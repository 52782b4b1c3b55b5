# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance that scenarios keep running while they break the cloud around it."""

from __future__ import annotations

import shlex
import typing as t
from dataclasses import dataclass

from debian_root import Done
from deployed import until
from host import Host

KEY = "/root/scenario-key"
"""The instance's private key, on the host."""

MAKE = """
set -e
export OS_CLOUD={cloud}
openstack network create {name} -f value -c id
openstack subnet create {name} --network {name} --subnet-range 192.168.77.0/24 -f value -c id
openstack router create {name} --external-gateway public -f value -c id
openstack router add subnet {name} {name}
openstack security group create {name} -f value -c id
openstack security group rule create {name} --protocol icmp -f value -c id
openstack security group rule create {name} --protocol tcp --dst-port 22 -f value -c id
cat > /root/{name}.pub
openstack keypair create {name} --public-key /root/{name}.pub -f value -c id
openstack --os-compute-api-version 2.74 server create {name} {place} --image zonestack-test --flavor {flavor} --network {name} --key-name {name} --security-group {name} --wait -f value -c id
openstack floating ip create public -f value -c floating_ip_address > /root/{name}.ip
openstack server add floating ip {name} "$(cat /root/{name}.ip)"
"""
"""What a user types for a first instance, README.md."""


class Cloud(t.Protocol):
    """A deployment, of one host or of several."""

    name: str

    @property
    def host(self) -> Host:
        """From where floating IPs are reached."""

    def utility(self, command: str, *, timeout: float = 60, input: str | None = None) -> Done:
        """Run a shell command in the utility zone."""

    def openstack(self, *arguments: str) -> t.Any:
        """Run the client there; return its JSON."""


@dataclass(frozen=True)
class Instance:
    """A server with a floating IP, made with OpenStack's client the way the README says."""

    cloud: Cloud
    name: str
    address: str

    @classmethod
    def make(cls, cloud: Cloud, name: str, flavor: str, hypervisor: str = "") -> Instance:
        """Make the instance with a network, a router, a key and rules of its own, and see it answer.

        Nova chooses where, unless a ``hypervisor`` is given, by the name of its zone.
        """
        cloud.host.exec(f"rm -f {KEY} {KEY}.pub; ssh-keygen -q -t ed25519 -N '' -f {KEY}")
        public = cloud.host.exec(["cat", f"{KEY}.pub"]).out
        words = {
            "cloud": cloud.name,
            "name": name,
            "flavor": flavor,
            "place": f"--host {hypervisor}" if hypervisor else "",
        }
        done = cloud.utility(MAKE.format(**words), input=public, timeout=900)
        assert done.rc == 0, done.out + done.err
        instance = cls(cloud, name, cloud.utility(f"cat /root/{name}.ip").out.strip())
        instance.wait()
        return instance

    def ssh(self, command: str, *, check: bool = True) -> str:
        """Run a command in the instance, from the host."""
        options = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ConnectTimeout=3",
        ]
        line = ["ssh", "-n", "-i", KEY, *options, f"zonestack@{self.address}", command]
        done = self.cloud.host.exec(shlex.join(line), timeout=120, check=False)
        assert not check or done.rc == 0, f"ssh to {self.name}: {done.err}"
        return done.out if done.rc == 0 else ""

    def wait(self, seconds: float = 600) -> None:
        """Wait until SSH answers at the floating IP."""
        until(lambda: self.ssh("echo up", check=False), f"{self.name} answers SSH at {self.address}", seconds)

    def boot_id(self) -> str:
        """Return what is another value after each boot of the instance (random(4))."""
        return self.ssh("cat /proc/sys/kernel/random/boot_id").strip()

    def pings(self) -> bool:
        """Whether one ping is answered."""
        return self.cloud.host.exec(["ping", "-c", "1", "-W", "2", self.address], check=False).rc == 0

    def state(self) -> str:
        """Return what Nova says of it, such as ACTIVE."""
        shown: dict[str, t.Any] = self.cloud.openstack("server", "show", self.name)
        return str(shown["status"])

    def delete(self) -> None:
        """Remove the server; its network and address may stay for as long as the test's cloud does."""
        done = self.cloud.utility(
            f"openstack --os-cloud {self.cloud.name} server delete --wait {self.name}", timeout=600
        )
        assert done.rc == 0, done.out + done.err
