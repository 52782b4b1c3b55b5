# SPDX-License-Identifier: GPL-3.0-or-later
"""The real plugin through Ansible's own commands, on a collection whose services, locks and group_vars are the tests'."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.inventory.topology import read_cloud
from ansible_collections.zonestack.openstack.plugins.plugin_utils.topology.compute import Cloud

CHECKOUT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent

SERVICES = {
    "_base": "suite: trixie",
    "galera": "{description: Database, slot: 2, count: 3, quorum: true}",
    "keystone": """
description: Identity
slot: 9
count: 2
needs: [galera]
image: {python: [keystone]}
config: {/etc/k.conf: {options: {DEFAULT: {me: "{{ zone.name }} of {{ stack.deployment }}"}}}}
""",
    "nova": "{description: Compute, components: {nova_api: {slot: 20}, nova_conductor: {slot: 21}}}",
}

GOOD = """
release: "2026.2"
networks:
  zone: {cidr: 10.77.0.0/21, interface: eth1}
hosts:
  aio1: {id: 1, connection: local}
  lx-02: {id: 2, address: 192.0.2.12, user: admin, port: 2222, groups: [control]}
services:
  galera:
  keystone:
  nova:
"""


@dataclass(frozen=True)
class Tree:
    """An installed collection, and a deployment ``x``."""

    collection: Path
    deployment: Path
    collections_path: Path

    def write(self, path: str, text: str) -> Path:
        """Write a file below the deployment."""
        file = self.deployment / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def run(
        self, command: str, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Ansible's commands on the deployment, by default with the project's ansible.cfg."""
        keep = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ANSIBLE_") and name != "ZONESTACK_SERVICES_PATH"
        }
        keep.update(
            ANSIBLE_COLLECTIONS_PATH=str(self.collections_path),
            ANSIBLE_HOME=str(self.collections_path / ".ansible"),
            **environment,
        )
        source = [] if command == "ansible-doc" else ["-i", str(self.deployment / "topology.yml")]
        argv = [str(BIN / command), *source, *arguments]
        return subprocess.run(
            argv, cwd=cwd or self.collection, env=keep, capture_output=True, text=True, timeout=600, check=False
        )

    def inventory(self, **environment: str) -> dict[str, t.Any]:
        """``ansible-inventory --list``."""
        done = self.run("ansible-inventory", "--list", **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def variables(self, host: str) -> dict[str, t.Any]:
        """``ansible-inventory --host``."""
        done = self.run("ansible-inventory", "--host", host)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A copy of the plugins with data of our own, and a good deployment."""
    collection = tmp_path / "ansible_collections" / "zonestack" / "openstack"
    shutil.copytree(CHECKOUT / "plugins", collection / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("ansible.cfg", "galaxy.yml", "meta/runtime.yml"):
        (collection / file).parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / file, collection / file)
    for name, text in SERVICES.items():
        file = collection / "services" / (f"{name}.yml" if name.startswith("_") else f"{name}/service.yml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (collection / "locks").mkdir()
    (collection / "locks" / "2026.2.txt").write_text("keystone==30.0.0 \\\n    --hash=sha256:00\n", encoding="utf-8")
    (collection / "group_vars").mkdir()
    made = Tree(collection, collection / "inventory" / "x", tmp_path)
    made.write("topology.yml", GOOD)
    return made


def test_groups_and_hosts(tree):
    found = tree.inventory()
    assert found["lxc_hosts"]["hosts"] == ["aio1", "lx-02"]
    assert set(found["zone_hosts"]["children"]) == {"lxc_hosts", "smartos_hosts"}
    assert found["control"]["hosts"] == ["lx-02"]
    assert found["zones"]["children"] == [
        "nova",
        "galera",
        "keystone",
        "image_servers",
        "hook_prepare",
        "zones_with_steps",
        "zones_first",
        "zones_stale",
        "openstack_services",
        "hypervisors",
    ]
    assert found["nova"]["children"] == ["nova_api", "nova_conductor"]
    assert found["galera"]["hosts"] == ["aio1-galera-1", "lx-02-galera-1", "aio1-galera-2"]
    assert found["lx_02_zones"]["hosts"] == ["lx-02-galera-1", "lx-02-keystone-1"]
    assert "hosts" not in found["ungrouped"] if "ungrouped" in found else True


def test_hosts_with_links_are_a_group_and_know_them(tree):
    tree.write("topology.yml", GOOD + "links: {control: {eno1: {cidr: 192.0.2.0/24}}}\n")
    assert tree.inventory()["linked_hosts"]["hosts"] == ["lx-02"]
    assert tree.variables("lx-02")["host"]["links"][0]["address"] == "192.0.2.12/24"


def test_zone_is_reached_through_its_host(tree):
    far, near = tree.variables("lx-02-keystone-1"), tree.variables("aio1-keystone-1")
    keys = (
        "ansible_connection",
        "ansible_host",
        "ansible_user",
        "ansible_port",
        "zone_transport",
        "ansible_python_interpreter",
    )
    assert [far.get(key) for key in keys] == [
        "zonestack.openstack.lxc",
        "192.0.2.12",
        "admin",
        2222,
        "ssh",
        "/usr/bin/python3",
    ]
    assert [near.get(key) for key in keys] == [
        "zonestack.openstack.lxc",
        "aio1",
        None,
        None,
        "local",
        "/usr/bin/python3",
    ]


def test_smartos_zone_is_reached_by_its_uuid(tree):
    """zlogin knows zones by their UUIDs, not by the names that the inventory gives them."""
    tree.write(
        "topology.yml",
        GOOD.replace("aio1: {id: 1,", "aio1: {id: 1, backend: smartos,").replace("/21", "/21, bridge: admin"),
    )
    done = tree.run("ansible-playbook", str(tree.write("p.yml", play("{{ zone_name }} {{ ansible_connection }}"))))
    uuid = tree.variables("aio1-keystone-1")["zone"]["uuid"]
    assert f"told: {uuid} zonestack.openstack.zlogin" in done.stdout
    assert tree.variables("aio1")["ansible_python_interpreter"] == "/opt/tools/bin/python3"
    assert "zone_name" not in tree.variables("lx-02-keystone-1")


def test_local_host_uses_its_own_python_and_not_the_control_machines(tree):
    host = tree.variables("aio1")
    assert (host["ansible_connection"], host["ansible_python_interpreter"]) == ("local", "/usr/bin/python3")
    assert [image.rpartition("-")[0] for image in host["host"].pop("images")] == ["base", "keystone", "python"]
    assert host["host"] == {
        "name": "aio1", "id": 1, "backend": "lxc", "store": "overlay", "addresses": {"zone": "10.77.2.1"},
        "builders": [f"10.77.3.{last}" for last in range(248, 255)],
        "bridges": [
            {"bridge": "zs-x", "address": "10.77.2.1/21", "mtu": 1500, "nat": "10.77.0.0/21", "interface": "eth1", "provider": False},
        ],
    }  # fmt: skip


def test_zone_has_three_nouns_and_little_else(tree):
    found = tree.variables("aio1-keystone-1")
    assert {"zone", "service", "stack"} <= found.keys()
    own = {
        "ansible_connection",
        "ansible_host",
        "ansible_python_interpreter",
        "zone_transport",
        "zone",
        "service",
        "stack",
    }
    assert found.keys() == own
    assert found["stack"].keys() == {
        "cloud", "deployment", "region", "release", "networks", "vip", "endpoint", "identity", "hosts", "members", "services", "components",
        "front_ends", "images",
    }  # fmt: skip


def test_lock_text_is_read_when_it_is_used_and_not_carried_about(tree):
    assert "sha256:00" not in tree.run("ansible-inventory", "--list").stdout
    done = tree.run(
        "ansible-playbook", str(tree.write("p.yml", play("{{ stack.images[service.image.id].recipe.lock | length }}")))
    )
    assert (done.returncode, "told: " + str(len("keystone==30.0.0 \\\n    --hash=sha256:00\n")) in done.stdout) == (
        0,
        True,
    ), done.stdout


def test_services_come_from_all_folders(tree, tmp_path):
    service = "{{description: More, slot: {}}}"
    tree.write("services/one/service.yml", service.format(30))
    tree.write("more/two/service.yml", service.format(31))
    (tmp_path / "env" / "three").mkdir(parents=True)
    (tmp_path / "env" / "three" / "service.yml").write_text(service.format(32), encoding="utf-8")
    tree.write("topology.yml", GOOD + "  one:\n  two:\n  three:\nservices_path: [more]\n")
    found = tree.inventory(ZONESTACK_SERVICES_PATH=str(tmp_path / "env"))
    assert [found[name]["hosts"] for name in ("one", "two", "three")] == [
        [f"aio1-{name}-1"] for name in ("one", "two", "three")
    ]


def test_certificates_of_the_deployment_go_into_the_base_image(tree):
    pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    plain = next(name for name in tree.variables("aio1")["stack"]["images"] if name.startswith("base-"))
    tree.write("ca-certificates/company.crt", pem)
    images = tree.variables("aio1")["stack"]["images"]
    base = next(name for name in images if name.startswith("base-"))
    assert base != plain
    assert images[base]["recipe"]["ca_certificates"] == {"company.crt": pem}


def play(message: str, hosts: str = "aio1-keystone-1") -> str:
    """A play that tells a template's value from the control machine."""
    return f"""
- hosts: {hosts}
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {{msg: "told: {message}"}}
"""


# The traps, each of which cost somebody an afternoon.


def test_trap_group_vars_of_the_collection_are_read_and_the_deployments_outrank_them(tree):
    defaults = tree.collection / "group_vars"
    (defaults / "all.yml").write_text("a: default\nb: default\n", encoding="utf-8")
    (defaults / "keystone").mkdir()
    (defaults / "keystone" / "main.yml").write_text("c: default\nd: default\ne: '{{ zone.name }}'\n", encoding="utf-8")
    (defaults / "zone_hosts.yml").write_text("f: default\n", encoding="utf-8")
    tree.write("group_vars/all.yml", "b: mine\n")
    tree.write("group_vars/keystone.yml", "d: mine\n")
    message = "{{ a }} {{ b }} {{ c }} {{ d }} {{ e }}"
    done = tree.run("ansible-playbook", str(tree.write("p.yml", play(message))))
    assert "told: default mine default mine aio1-keystone-1" in done.stdout
    done = tree.run("ansible-playbook", str(tree.write("p.yml", play("{{ a }} {{ f }}", "aio1"))))
    assert "told: default default" in done.stdout


REFUSED = {
    "unknown key": (GOOD.replace("connection", "conection"), "x/topology.yml: hosts.aio1.conection: value 'local': unknown key, did you mean"),
    "duplicate host": (GOOD.replace("  lx-02", "  aio1"), "x/topology.yml: line 7, column 3: duplicate key 'aio1' (first on line 6): keep one"),
    "even Galera": (GOOD.replace("galera:", "galera: {count: 2}"), "x/topology.yml: services.galera.count: value 2: galera votes"),
    "syntax": (GOOD.replace("hosts:", "hosts: ["), "x/topology.yml: line 7, column 3: did not find expected"),
    "empty": ("", "x/topology.yml: the file is empty"),
    "no mapping": ("[a]", "x/topology.yml: value ['a']: write a mapping"),
    "release": (GOOD.replace("2026.2", "1999.1"),
                "x/topology.yml: release: value '1999.1': there is no locks/1999.1.txt: choose a release that has a lock (known: 2026.2)"),
    "services_path": (GOOD + "services_path: [nowhere]\n", "x/topology.yml: services_path[0]: value 'nowhere': no such folder"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_trap_bad_topology_ends_the_command_and_says_why(tree, text, message):
    tree.write("topology.yml", text)
    done = tree.run("ansible-inventory", "--list")
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_trap_play_on_a_bad_topology_does_not_end_well_having_done_nothing(tree):
    tree.write("topology.yml", GOOD.replace("connection", "conection"))
    done = tree.run("ansible-playbook", str(tree.write("p.yml", play("hello", "all"))))
    assert done.returncode != 0
    assert "PLAY" not in done.stdout


def test_trap_templates_of_services_are_templated(tree):
    done = tree.run(
        "ansible-playbook", str(tree.write("p.yml", play("{{ service.config['/etc/k.conf'].options.DEFAULT.me }}")))
    )
    assert "told: aio1-keystone-1 of x" in done.stdout


def test_trap_two_layers_of_overrides_do_not_replace_one_another(tree):
    tree.write("group_vars/keystone.yml", "service_conf: {k.conf: {DEFAULT: {a: group}}}\n")
    tree.write("host_vars/aio1-keystone-1.yml", "zone_conf: {k.conf: {DEFAULT: {b: zone}}}\n")
    found = tree.variables("aio1-keystone-1")
    assert (found["service_conf"], found["zone_conf"]) == (
        {"k.conf": {"DEFAULT": {"a": "group"}}},
        {"k.conf": {"DEFAULT": {"b": "zone"}}},
    )
    assert "hash_behaviour" not in (CHECKOUT / "ansible.cfg").read_text(encoding="utf-8")


# The edges of the plugin itself.


def test_missing_file_is_reported_by_name(tree):
    (tree.deployment / "topology.yml").unlink()
    done = tree.run("ansible-inventory", "--list")
    assert done.returncode != 0
    assert "x/topology.yml: No such file or directory: name a file that can be read" in " ".join(done.stderr.split())


def test_file_that_is_no_utf8_is_refused(tree):
    (tree.deployment / "topology.yml").write_bytes(b"release: \xff\n")
    done = tree.run("ansible-inventory", "--list")
    assert done.returncode != 0
    assert "x/topology.yml: byte 9 is not UTF-8" in " ".join(done.stderr.split())


def test_variables_of_a_group_that_there_is_not_are_refused(tree):
    tree.write("group_vars/keystne.yml", "service_conf: {}\n")
    done = tree.run("ansible-inventory", "--list")
    assert done.returncode != 0
    assert (
        "group_vars/keystne.yml: value 'keystne': no such group, so no zone would read this file (known: keystone"
        in " ".join(done.stderr.split())
    )


def test_certificate_that_is_none_is_refused(tree):
    tree.write("ca-certificates/company.crt", "binary")
    done = tree.run("ansible-inventory", "--list")
    assert done.returncode != 0
    assert "ca-certificates/company.crt: this is not a PEM certificate" in " ".join(done.stderr.split())


def test_error_in_a_service_file_names_that_file(tree):
    tree.write("services/bad/service.yml", "description: Bad\nslott: 1\n")
    done = tree.run("ansible-inventory", "--list")
    assert done.returncode != 0
    assert "inventory/x/services/bad/service.yml: slott: value 1: unknown key, did you mean 'slot'?" in " ".join(
        done.stderr.split()
    )


def test_plugin_key_serves_where_the_projects_configuration_is_not_used(tree, tmp_path):
    tree.write("topology.yml", "plugin: zonestack.openstack.topology\n" + GOOD)
    done = tree.run("ansible-inventory", "--graph", cwd=tmp_path)
    assert done.returncode == 0
    assert "aio1-keystone-1" in done.stdout
    # and a refused topology is not taken by another plugin for something else
    tree.write("topology.yml", "plugin: zonestack.openstack.topology\n" + GOOD.replace("connection", "conection"))
    done = tree.run("ansible-inventory", "--graph", cwd=tmp_path, ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="1")
    assert done.returncode != 0
    assert "unknown key, did you mean 'connection'?" in " ".join(done.stderr.split())


def test_documentation_is_complete(tree):
    done = tree.run("ansible-doc", "-t", "inventory", "--json", "zonestack.openstack.topology")
    doc = json.loads(done.stdout)["zonestack.openstack.topology"]
    assert doc["doc"]["options"]["services_path"]["description"]
    assert doc["examples"]


def test_example_of_the_all_in_one_is_good(tree):
    link = tree.collections_path / "checkout" / "ansible_collections" / "zonestack"
    link.mkdir(parents=True)
    (link / "openstack").symlink_to(CHECKOUT)
    real = Tree(CHECKOUT, CHECKOUT / "inventory" / "examples" / "aio", tree.collections_path / "checkout")
    found = real.inventory()
    counts = {name: len(found[name]["hosts"]) for name in found["zones"]["children"] if "hosts" in found.get(name, {})}
    assert (
        counts.items()
        >= {
            "galera": 3,
            "rabbit_mq": 3,
            "ovn": 3,
            "keystone": 2,
            "haproxy": 1,
            "memcached": 1,
            "log": 1,
            "utility": 1,
        }.items()
    )


# Zones that were there at the first release: whatever is added or spread, they stay. Address, UUID, MAC.
FIRST = {
    "aio1-haproxy-1": ("10.77.2.8", "4eb0b956-b4c8-5004-a8ec-29d019d810f9", "02:13:88:fc:c2:cb"),
    "aio1-galera-3": ("10.77.2.18", "4526e0f2-4030-5d30-8de9-c8f14045eccb", "02:54:67:f3:94:37"),
    "aio1-rabbit-mq-2": ("10.77.2.25", "d64e3b6c-e068-5ec9-b1b4-6569a8cfa9d0", "02:1e:f0:11:79:30"),
    "aio1-keystone-2": ("10.77.2.73", "465edc01-2e43-51a3-b684-e92222476352", "02:6b:04:7b:7c:b5"),
    "aio1-nova-compute-1": ("10.77.2.136", "0e5840c7-2385-53d4-a806-4996d35ad27c", "02:f4:bc:2a:42:8f"),
    "aio1-utility-1": ("10.77.2.48", "4b3c8f1d-bb8b-5634-afd8-89f8901f81e1", "02:c0:80:8e:c8:ae"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST)
def test_zones_of_the_all_in_one_stay_what_they_are(name):
    zones = {zone.name: zone for every in example("aio").zones.values() for zone in every}
    assert (zones[name].address, zones[name].uuid, zones[name].mac) == FIRST[name]


def example(name: str) -> Cloud:
    return read_cloud(CHECKOUT / "inventory/examples" / name / "topology.yml")


def test_example_of_production_survives_the_loss_of_any_host_and_any_rack():
    cloud = example("production")
    racks = {name: host.zone for name, host in cloud.topology.hosts.items()}
    assert sorted(set(racks.values())) == ["rack-1", "rack-2", "rack-3"]
    alone = {"glance", "log", "utility"}
    for component, zones in cloud.zones.items():
        assert len({zone.host for zone in zones}) == len(zones)
        assert len({racks[zone.host] for zone in zones}) == len(zones)
        assert (len(zones) == 1) == (component in alone)
    assert {name: one["zone"] for name, one in cloud.stack["cloud"]["availability_zones"].items()} == {
        f"cmp{number}-nova-compute-1": f"rack-{number}" for number in (1, 2, 3)
    }


def test_example_of_two_hosts_takes_a_third_with_its_line_alone(tmp_path):
    two = example("two-hosts")
    assert [zone.host for zone in two.zones["galera"]] == ["one", "two", "one"]
    assert {component for component, zones in two.zones.items() if len({zone.host for zone in zones}) == 1} == {
        "glance",
        "log",
        "utility",
    }
    text = (CHECKOUT / "inventory/examples/two-hosts/topology.yml").read_text(encoding="utf-8")
    assert "  # three: {" in text
    (tmp_path / "topology.yml").write_text(text.replace("  # three: {", "  three: {"), encoding="utf-8")
    three = read_cloud(tmp_path / "topology.yml")
    moved = {component for component, zones in three.zones.items() if zones != two.zones[component]}
    assert moved == {"galera", "rabbit_mq", "ovn"}
    for component in moved:
        assert [zone.name for zone in three.zones[component]][:2] == [zone.name for zone in two.zones[component]][:2]
        assert three.zones[component][2].host == "three"


def test_example_of_smartos_has_the_placeholder_that_a_control_zone_replaces():
    cloud = example("smartos")
    script = (CHECKOUT / "scripts/lib/control-zone.sh").read_text(encoding="utf-8")
    assert [
        (host.backend, host.user, f"PLACEHOLDER={host.address}" in script.splitlines())
        for host in cloud.topology.hosts.values()
    ] == [("smartos", "root", True)]
    assert "keystone" in cloud.zones and not {"nova_compute", "ovn"} & cloud.zones.keys()


def test_reference_pages_are_current():
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "scripts" / "render-docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_host_that_leaves_is_reached_and_in_no_other_group(tree: Tree) -> None:
    tree.write("topology.yml", GOOD.replace("user: admin", "leaving: true, user: admin"))
    listed = tree.inventory()
    assert listed["leaving_hosts"]["hosts"] == ["lx-02"]
    assert [name for name, group in listed.items() if "lx-02" in group.get("hosts", [])] == ["leaving_hosts"]
    variables = tree.variables("lx-02")
    assert (variables["ansible_host"], variables["ansible_user"], variables["ansible_port"]) == (
        "192.0.2.12",
        "admin",
        2222,
    )
    assert (variables["host"]["id"], variables["ansible_python_interpreter"]) == (2, "/usr/bin/python3")
    assert list(variables["stack"]["hosts"]) == ["aio1"]
