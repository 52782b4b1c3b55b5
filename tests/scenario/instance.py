# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance that scenarios keep running while they break the cloud around it."""

from __future__ import annotations

import shlex
import typing as t
from dataclasses import dataclass

from deployed import Deployed, until

KEY = "/root/scenario-key"
"""The instance's private key, on the host."""

MAKE = """
set -e
export OS_CLOUD=aio
openstack network create {name} -f value -c id
openstack subnet create {name} --network {name} --subnet-range 192.168.77.0/24 -f value -c id
openstack router create {name} --external-gateway public -f value -c id
openstack router add subnet {name} {name}
openstack security group create {name} -f value -c id
openstack security group rule create {name} --protocol icmp -f value -c id
openstack security group rule create {name} --protocol tcp --dst-port 22 -f value -c id
cat > /root/{name}.pub
openstack keypair create {name} --public-key /root/{name}.pub -f value -c id
openstack server create {name} --image zonestack-test --flavor {flavor} --network {name} --key-name {name} --security-group {name} --wait -f value -c id
openstack floating ip create public -f value -c floating_ip_address > /root/{name}.ip
openstack server add floating ip {name} "$(cat /root/{name}.ip)"
"""
"""What a user types for a first instance, README.md."""


@dataclass(frozen=True)
class Instance:
    """A server with a floating IP, made with OpenStack's client the way the README says."""

    cloud: Deployed
    name: str
    address: str

    @classmethod
    def make(cls, cloud: Deployed, name: str, flavor: str) -> Instance:
        """Make the instance with a network, a router, a key and rules of its own, and see it answer."""
        cloud.host.exec(f"rm -f {KEY} {KEY}.pub; ssh-keygen -q -t ed25519 -N '' -f {KEY}")
        public = cloud.host.exec(["cat", f"{KEY}.pub"]).out
        done = cloud.host.exec(
            ["/opt/zonestack/scripts/zone-shell.sh", "utility", "--", "bash", "-c", MAKE.format(name=name, flavor=flavor)],
            input=public,
            timeout=300,
            check=False,
        )
        assert done.rc == 0, done.out + done.err
        instance = cls(cloud, name, cloud.inside("aio1-utility-1", f"cat /root/{name}.ip").out.strip())
        instance.wait()
        return instance

    def ssh(self, command: str, *, check: bool = True) -> str:
        """Run a command in the instance, from the host."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=3"]
        line = ["ssh", "-n", "-i", KEY, *options, f"zonestack@{self.address}", command]
        done = self.cloud.host.exec(shlex.join(line), timeout=30, check=False)
        assert not check or done.rc == 0, f"ssh to {self.name}: {done.err}"
        return done.out if done.rc == 0 else ""

    def wait(self, seconds: float = 120) -> None:
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
