# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scenario sees of a deployment of several hosts: its operator's commands on a control machine, and the hosts from outside."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import time
import typing as t
from dataclasses import dataclass

import pytest
import yaml

from debian_root import Done
from deployed import RUN_LIMIT, Run
from host import CHECKOUT, HOSTS, PROJECT, Host

PUBLIC = "198.51.100"
"""Network in which instances are reached: that of the examples may hold addresses that the hosts need."""

KEYS = """
test -e ~/.ssh/id_ed25519 || {{ mkdir -p -m 0700 ~/.ssh; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519; }}
ssh-keyscan -t ed25519 {addresses} 2>/dev/null >~/.ssh/known_hosts
cat ~/.ssh/id_ed25519.pub
"""
PROBE = """
import json, ssl, sys, time, urllib.error, urllib.request
who = {"name": "nobody-of-this-name", "domain": {"id": "default"}, "password": "none"}
body = json.dumps({"auth": {"identity": {"methods": ["password"], "password": {"user": who}}}}).encode()
login = urllib.request.Request(sys.argv[1] + "/auth/tokens", body, {"Content-Type": "application/json"})
context = ssl.create_default_context(cafile=sys.argv[2])
end = time.time() + float(sys.argv[3])
while time.time() < end:
    began = time.time()
    try:
        said = urllib.request.urlopen(login, context=context, timeout=5).status
    except urllib.error.HTTPError as answer:
        said = answer.code
    except Exception as why:
        said = type(why).__name__
    print(f"{began:.3f} {time.time():.3f} {said}", flush=True)
    time.sleep(0.1)
"""
"""Logs in at Keystone as nobody, some times a second for so many seconds, and tells when it asked, when it had an answer, and what.

401 is the answer that HAProxy, Keystone, its cache and its database have to agree on.
"""
ANSWER = "401"
PROVIDERS = (
    'import openstack, sys; print(openstack.connect(cloud=sys.argv[1]).placement.get("/resource_providers").text)'
)


class Gap(t.NamedTuple):
    """How long an API did not answer, in seconds, and how many requests failed or waited."""

    seconds: float
    failed: int


@dataclass
class Site:
    """The control machine and the hosts of a deployment, as their operator sees them."""

    name: str
    control: Host
    hosts: dict[str, Host]
    limit: float = RUN_LIMIT
    """Seconds after which a run counts as hung."""
    gateway: str = ""
    """The host that leads to floating IPs."""

    @property
    def host(self) -> Host:
        """From where floating IPs are reached."""
        return self.hosts[self.gateway]

    @property
    def topology(self) -> str:
        """Its topology.yml on the control machine."""
        return f"{CHECKOUT}/inventory/{self.name}/topology.yml"

    def route(self, network: str = f"{PUBLIC}.0/24") -> None:
        """Be the site's router: lead all hosts to the network that users come in by. A host forgets it when it is made anew, or boots."""
        for host in self.hosts.values():
            if host is not self.host:
                host.exec(["ip", "route", "replace", network, "via", self.host.address])

    def edit(self, pattern: str, replacement: str) -> None:
        """Change the one place of topology.yml that a regular expression finds."""
        text, count = re.subn(pattern, replacement, self.control.exec(["cat", self.topology]).out, flags=re.MULTILINE)
        assert count == 1, f"{pattern} is {count} times in {self.topology}"
        self.control.exec(f"cat >{self.topology}", input=text)

    def script(self, name: str, *arguments: str, timeout: float | None = None, input: str | None = None) -> Done:
        """Run one of the project's commands on the control machine."""
        return self.control.exec(
            [f"{CHECKOUT}/scripts/{name}", *arguments], timeout=timeout or self.limit, check=False, input=input
        )

    def latest_log(self) -> str:
        """Path of the newest run's log on the control machine; empty where there is none yet."""
        return self.control.exec(f"ls -t {CHECKOUT}/logs/{self.name}/*.log | head -1", check=False).out.strip()

    def run(self, *arguments: str) -> Run:
        """Run the playbooks to their end."""
        started = time.monotonic()
        done = self.script("run-playbooks.sh", "--deployment", self.name, *arguments)
        log = self.control.exec(["cat", self.latest_log()], check=False).out
        return Run(done.rc, done.out + done.err, log, time.monotonic() - started)

    def converge(self, *arguments: str) -> Run:
        """Run the playbooks, and insist that it ends well."""
        run = self.run(*arguments)
        assert run.rc == 0, run.said
        return run

    def unchanged(self, *arguments: str) -> Run:
        """Run the playbooks, and insist that nothing changes and nothing is started anew."""
        before = self.starts()
        run = self.converge(*arguments)
        assert {name: count for name, count in run.changes.items() if count} == {}
        assert self.starts() == before
        return run

    def starts(self) -> dict[str, str]:
        """When the init of each running zone was started, by the zone; of a SmartOS host its process."""
        found = {}
        for host in self.hosts.values():
            if host.exec("test -e /usbkey", check=False).rc == 0:
                vms = json.loads(host.exec(["vmadm", "lookup", "-j", "state=running"], timeout=120).out)
                found.update({vm["alias"]: str(vm["pid"]) for vm in vms})
                continue
            for line in host.exec(
                "for z in $(lxc-ls -1 --running); do echo $z $(stat -c %Y /proc/$(lxc-info -n $z -pH)); done"
            ).out.splitlines():
                zone, began = line.split()
                found[zone] = began
        return found

    def inside(self, zone: str, command: str, *, check: bool = True, timeout: float = 300) -> Done:
        """Run a shell command as root in a zone, the way its operator would."""
        done = self.script(
            "zone-shell.sh", "--deployment", self.name, zone, "--", "/bin/sh", "-c", command, timeout=timeout
        )
        assert not check or done.rc == 0, f"{zone}: {command}: {done.out}{done.err}"
        return done

    def utility(self, command: str, *, timeout: float = 300, input: str | None = None) -> Done:
        """Run a shell command in the utility zone, whatever comes of it."""
        return self.script(
            "zone-shell.sh",
            "--deployment",
            self.name,
            "utility",
            "--",
            "/bin/bash",
            "-c",
            command,
            timeout=timeout,
            input=input,
        )

    def openstack(self, *arguments: str) -> t.Any:
        """Run the client in the utility zone; return its JSON."""
        command = shlex.join(["openstack", "--os-cloud", self.name, *arguments, "-f", "json"])
        return json.loads(self.inside("utility", command).out)

    def galera(self) -> list[int]:
        """The size of the cluster as each running node that is in sync sees it."""
        query = "SHOW STATUS WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_local_state_comment')"
        sizes = []
        for zone in sorted(zone for zone in self.starts() if "-galera-" in zone):
            status = dict(
                line.split("\t") for line in self.inside(zone, f'mariadb -NBe "{query}"', check=False).out.splitlines()
            )
            sizes.append(
                int(status["wsrep_cluster_size"]) if status.get("wsrep_local_state_comment") == "Synced" else 0
            )
        return sizes

    def all_up(self) -> bool:
        """Whether Nova sees all its services up, and Neutron its agents."""
        services = self.openstack("compute", "service", "list")
        agents = self.openstack("network", "agent", "list")
        return all(service["State"] == "up" for service in services) and all(agent["Alive"] for agent in agents)

    def addresses(self, name: str) -> list[str]:
        """The addresses of the zones on a host."""
        own = "lxc-attach -n $z -- ip -4 -brief address show eth0 | awk '{print $3}' | cut -d / -f 1"  # the first: a virtual one is another's soon
        return self.hosts[name].exec(f"for z in $(lxc-ls -1 --running); do {own}; done").out.split()

    def traces(self, name: str, addresses: t.Sequence[str]) -> dict[str, list[str]]:
        """What anyone still knows of a host: its zones' names and ``addresses``, by who knows them; who knows nothing is left out."""
        zone = "|".join([rf"{name}-[a-z][a-z-]*-[1-8]", *map(re.escape, addresses)])
        ask = {
            "Nova's services": ["compute", "service", "list"],
            "hypervisors": ["hypervisor", "list"],
            "Neutron's agents": ["network", "agent", "list"],
            "aggregates": ["aggregate", "list", "--long"],
        }
        found = {system: json.dumps(self.openstack(*words)) for system, words in ask.items()}
        found["Placement"] = self.utility(f"/opt/utility/bin/python -c '{PROVIDERS}' {self.name}").out
        assert "-nova-compute-" in found["Placement"], "Placement has no resource providers at all"
        for component, commands in {
            "rabbit-mq": (
                "rabbitmqctl -q cluster_status --formatter json",
                "rabbitmqctl -q eval '[rabbit_misc:rs(amqqueue:get_name(Q)) || Q <- rabbit_amqqueue:list()].'",
            ),
            "galera": (
                "mariadb -NBe \"SHOW STATUS LIKE 'wsrep_incoming_addresses'\"",
                # Rows of APIs are Nova's own notes, which it shows and deletes nowhere (docs/how-to/operating.md).
                "mariadb -NBe \"SELECT host FROM services WHERE deleted = 0 AND NOT \\`binary\\` IN ('nova-osapi_compute', 'nova-metadata');"
                ' SELECT host FROM compute_nodes WHERE deleted = 0" nova_cell1',
                'mariadb -NBe "SELECT host FROM host_mappings" nova_api',
            ),
            "ovn": (
                "ovs-appctl -t /run/ovn/ovnnb_db.ctl cluster/status OVN_Northbound",
                "ovs-appctl -t /run/ovn/ovnsb_db.ctl cluster/status OVN_Southbound",
                "ovsdb-client -t 10 --no-leader-only dump unix:/run/ovn/ovnsb_db.sock OVN_Southbound Chassis",
            ),
        }.items():
            member = next(one for one in sorted(self.starts()) if f"-{component}-" in one)
            found.update({f"{member}: {command}": self.inside(member, command).out for command in commands})
        for one in sorted(self.starts()):
            found[f"files of {one}"] = self.inside(
                one, f"grep -rhoEw '{zone}' /etc 2>/dev/null | sort -u", check=False
            ).out
        matches = {
            system: sorted(set(re.findall(rf"(?<![\w-])(?:{zone})(?![\w-])", said))) for system, said in found.items()
        }
        return {system: names for system, names in matches.items() if names}

    def leftovers(self, name: str) -> str:
        """What a host that was removed still has of the deployment: zones, files, bridges, rules, units; one a line."""
        look = """
        lxc-ls -1
        find /etc /usr/local /var/lib /run -xdev -iname '*zonestack*' -not -path '/var/lib/dpkg/*'
        ip -brief link show type bridge
        nft list tables | grep -i zone
        systemctl list-units --all --plain --no-legend '*zonestack*' '*zs-*'
        true
        """
        return self.hosts[name].exec(look).out

    def remove(self, name: str, *arguments: str) -> None:
        """Remove a host by its operator's command; insist that nobody knows it any more, and that it has nothing left; then take its line away."""
        self.edit(rf"^(  {name}: \{{.*)\}}", r"\1, leaving: true}")
        known = self.addresses(name)
        done = self.script("remove-host.sh", "--deployment", self.name, "--yes", *arguments, name)
        assert done.rc == 0, done.out + done.err
        assert self.traces(name, known) == {}
        assert self.leftovers(name) == ""
        self.edit(rf"^  {name}: .*\n", "")

    def gap(self, onlooker: Host, keystone: str, event: t.Callable[[], object], seconds: float) -> Gap:
        """What a client on a host sees of Keystone, given as URL, for ``seconds`` from the beginning of an event."""
        ca = "/root/ca.crt"
        onlooker.exec("cat >/root/probe.py", input=PROBE)
        onlooker.exec(f"cat >{ca}", input=self.inside("utility", "cat /etc/zonestack/tls/ca.crt").out)
        with onlooker.popen(["python3", "/root/probe.py", keystone, ca, str(seconds)], stdout=subprocess.PIPE) as probe:
            assert probe.stdout is not None
            first = probe.stdout.readline().decode().split()
            assert first[2:] == [ANSWER], f"it does not answer before the event: {first}"
            began = time.time()
            event()
            answers = [line.decode().split() for line in probe.stdout.read().splitlines()]
        good = [began, *(float(done) for asked, done, said in answers if said == ANSWER), began + seconds]
        longest = max(later - earlier for earlier, later in zip(good, good[1:], strict=False))
        return Gap(round(longest, 1), sum(said != ANSWER for asked, done, said in answers))


@contextlib.contextmanager
def a_site(
    config: pytest.Config, name: str, example: str, change: t.Callable[[str], str], gateway: str, builder: str
) -> t.Iterator[Site]:
    """A control machine with the checkout and the keys, and fresh hosts with nothing but SSH, for each that an example names.

    What leads from one to the other are eth1 (the zones' network) and eth2 (the provider network, of which one host is the
    ``gateway``), wires of their own. The ``builder`` of images has those that other scenarios have built. Addresses of hosts and that network are put into the example, and what else ``change`` does.
    """
    reuse = config.getoption("--reuse-hosts")
    text = change((PROJECT / f"inventory/examples/{example}/topology.yml").read_text())
    text = text.replace("203.0.113", PUBLIC).replace("interface: eth2}", f"gateway_host: {gateway}, interface: eth2}}")
    control, hosts = (
        Host(f"scenario-{name}-control"),
        {one: Host(f"scenario-{one}") for one in yaml.safe_load(text)["hosts"]},
    )
    for host in (control, *hosts.values()):
        if not reuse or host.state != "RUNNING":
            host.create()
    for one, host in hosts.items():
        text = re.sub(rf"(?m)^(  {one}: .*address: )[\d.]+", rf"\g<1>{host.address}", text)
    control.copy_project(worktree=True)
    trust(control, hosts.values())
    give_images(hosts[builder])
    site = Site(name, control, hosts, gateway=gateway)
    control.exec(
        f"test -e {site.topology} || {CHECKOUT}/scripts/bootstrap-control.sh {name} --from {example}", timeout=600
    )
    control.exec(f"cat >{site.topology}", input=text)
    yield site
    if not config.getoption("--keep-hosts"):
        for host in (control, *hosts.values()):
            host.destroy()


def give_images(host: Host) -> None:
    """Give a host the images that another host container has built: the same content under the same id, as hard links."""
    store = host.home / "lxc/zonestack/images"
    store.mkdir(parents=True, exist_ok=True)
    for image in HOSTS.glob("*/lxc/zonestack/images/[a-z]*"):
        if not (store / image.name).exists():
            subprocess.run(["cp", "--archive", "--link", str(image), str(store)], check=True, timeout=120)


def trust(control: Host, hosts: t.Iterable[Host]) -> str:
    """Let root of the control machine in as root of the hosts; the public key, for what forgets it at a boot."""
    addresses = [host.address for host in hosts]
    key = control.exec(KEYS.format(addresses=" ".join(addresses))).out
    for host in hosts:
        host.exec("mkdir -p -m 0700 ~/.ssh; cat >>~/.ssh/authorized_keys; systemctl start ssh", input=key)
    return key
