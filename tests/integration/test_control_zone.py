# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bootstrap-aio.sh in the global zone of a simulated SmartOS host: a control zone that reaches it, and the run from there.

    pytest tests/integration/test_control_zone.py

Cases stand in the order in which they run. With ZONESTACK_SMARTOS_HOST=NAME the host container of that name is taken as it is, and left.
"""

from __future__ import annotations

import json
import os
import shutil
import typing as t

import pytest

from debian_root import Done
from host import Host
from smartos import CHECKOUT, a_node, base_image

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("mmdebstrap") is None, reason="needs root, LXC and mmdebstrap"
    ),
]

CONTROL = "/opt/zonestack"
"""Where the control zone has its copy of the checkout."""

WAY = "--address 10.88.0.9/24 --gateway 10.88.0.1 --certificates /usr/local/share/ca-certificates"


class Node:
    """The host as its operator sees it."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def command(self, line: str, check: bool = True) -> Done:
        return self.host.exec(f"cd {CHECKOUT} && {line}", timeout=1800, check=check)

    @property
    def zone(self) -> str:
        (found,) = json.loads(self.host.exec(["vmadm", "lookup", "-j", "alias=zonestack-control"]).out)
        assert found["state"] == "running"
        return str(found["uuid"])

    def inside(self, line: str) -> str:
        """What a shell line in the control zone prints."""
        return self.host.exec(["zlogin", self.zone, line], timeout=120).out


@pytest.fixture(scope="module")
def node() -> t.Iterator[Node]:
    with a_node("control-zone", "--hostname", "gz1") as host:
        base_image(host, "lx", "trixie")
        # What the owner of a machine has: other lines in these files, the last of them without an end.
        host.exec(
            "printf 'ssh-ed25519 AAAA owner' >/usbkey/config.inc/authorized_keys; mkdir -p -m 0700 ~/.ssh; cp /usbkey/config.inc/authorized_keys ~/.ssh/"
        )
        yield Node(host)


def test_the_control_zone_is_made_and_reaches_the_global_zone(node: Node) -> None:
    done = node.command(f"sh scripts/bootstrap-aio.sh --image debian-trixie-lx {WAY}")
    assert "Changed here:" in done.out
    assert node.zone in node.inside("ssh -o BatchMode=yes root@10.88.0.1 vmadm lookup")
    assert node.host.exec("grep -c . /usbkey/config.inc/authorized_keys").out.strip() == "2"
    topology = node.inside(f"cat {CONTROL}/inventory/aio/topology.yml")
    assert "address: 10.88.0.1," in topology and "192.0.2.11" not in topology
    assert not node.host.exec(f"ls -d {CHECKOUT}/.venv {CHECKOUT}/inventory/aio", check=False).out, (
        "nothing of it is in the global zone"
    )


def test_a_second_time_changes_nothing(node: Node) -> None:
    before = node.inside(f"find {CONTROL} /root/.ssh -not -path '*/.cache*' -printf '%p %T@\n' | sort")
    done = node.command("bash scripts/bootstrap-aio.sh")
    assert "Nothing to change: there is a control zone already." in done.out
    after = node.inside(f"find {CONTROL} /root/.ssh -not -path '*/.cache*' -printf '%p %T@\n' | sort")
    changed = {line.split()[0] for line in set(before.splitlines()) ^ set(after.splitlines())}
    assert changed <= {"/root/.ssh", "/root/.ssh/known_hosts"}


def test_a_changed_checkout_goes_there(node: Node) -> None:
    node.command("echo '# changed' >>README.md")
    node.command("sh scripts/bootstrap-aio.sh")
    assert node.inside(f"tail -1 {CONTROL}/README.md") == "# changed\n"
    assert "gz1:" in node.inside(f"cat {CONTROL}/inventory/aio/topology.yml"), "what is described there stays"


def test_the_run_goes_from_there(node: Node) -> None:
    """Up to the prepared host: Python in its global zone, the network and its NAT. Its words, its exit codes."""
    done = node.command("scripts/run-playbooks.sh --deployment aio --step hosts")
    assert "hosts" in done.out
    assert "zs_aio0" in node.host.exec("nictagadm list").out
    assert node.command("scripts/topology.sh --deployment 'no such'", check=False).rc != 0


def test_it_gets_in_after_a_boot_of_the_global_zone(node: Node) -> None:
    node.host.exec(["smartos-sim", "reboot"], timeout=600)
    assert node.zone in node.inside("ssh -o BatchMode=yes root@10.88.0.1 vmadm lookup")
    assert "Nothing to change" in node.command("sh scripts/bootstrap-aio.sh").out
