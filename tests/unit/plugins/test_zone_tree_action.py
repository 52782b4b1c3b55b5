# SPDX-License-Identifier: GPL-3.0-or-later
"""The action zone_tree: what it renders for every zone of the example, and how it hands that over.

The zone's part is this machine's Python behind a shell, as the connection runs it; what it then does there is tested apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import action_loader
from ansible.template import Templar
from ansible.vars.manager import VariableManager
from cryptography.x509 import IPAddress, SubjectAlternativeName, load_pem_x509_certificate

from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority
from ansible_collections.zonestack.openstack.plugins.plugin_utils.secrets import complete, needed

EXAMPLE = Path(__file__).resolve().parents[3] / "inventory/examples/aio/topology.yml"
NOTHING = {
    "check": False,
    "directories": [],
    "files": [],
    "exclusive": [],
    "daemons": [],
    "start": True,
    "restart": False,
    "wait": 5,
}


def action(variables, check=False, **arguments):
    """The action with a way into a zone that is a shell on this machine; ``sent`` is what went there."""
    loader, task = DataLoader(), Task()
    task.action, task.args, task.check_mode = "zonestack.openstack.zone_tree", arguments, check
    made = action_loader.get(
        task.action,
        task=task,
        connection=SimpleNamespace(_shell=SimpleNamespace(tmpdir="")),
        play_context=PlayContext(),
        loader=loader,
        templar=Templar(loader=loader, variables=variables),
        shared_loader_obj=None,
    )
    made.vars, made.zone, made.sent = variables, {"name": "a-zone"}, []

    def execute(command, in_data=None, executable=None):
        made.sent.append((command, in_data))
        ran = subprocess.run(["/bin/sh", "-c", command], input=in_data, capture_output=True, check=False)
        return {
            "rc": ran.returncode,
            "stdout": ran.stdout.decode(),
            "stderr": ran.stderr.decode(),
            "stderr_lines": ran.stderr.decode().splitlines(),
        }

    made._compute_environment_string = lambda: ""
    made._low_level_execute_command = execute
    return made


def with_file(path, content, **more):
    entry = {
        "path": str(path),
        "mode": "0600",
        "owner": "root",
        "group": "root",
        "validate": [],
        "content": content,
        "secret": True,
    }
    return {**NOTHING, "files": [{**entry, **more}]}


HERE = {"ansible_python_interpreter": sys.executable}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root, so it needs to be root")
def test_a_request_arrives_whole_and_secrets_stay_out_of_arguments_and_answers(tmp_path):
    content = "hunter2 '\"\\ \N{EURO SIGN} \N{GRINNING FACE} {{ no_template }} \0\r\n"
    made = action(HERE)
    result = made.apply(with_file(tmp_path / "f", content))
    assert "msg" not in result and result["changed"] and result["written"] == [str(tmp_path / "f")]
    assert (tmp_path / "f").read_bytes() == content.encode()
    assert "hunter2" not in made.sent[0][0] + str(result)
    assert made.apply(with_file(tmp_path / "f", content))["changed"] is False


def test_a_zone_without_its_python_is_told_what_to_set():
    result = action({"ansible_python_interpreter": "/opt/none/python"}).apply(with_file("/x", "hunter2"))
    assert result["failed"] and result["msg"].startswith("zone a-zone: ")
    assert "/opt/none/python cannot be run there; set ansible_python_interpreter" in result["msg"]
    assert "hunter2" not in str(result)


def test_an_uncaught_error_in_the_zone_is_a_failure_that_names_it_and_shows_no_secret():
    result = action(HERE).apply(with_file("/x", "hunter2", mode="no mode"))
    assert result["failed"] and result["rc"] == 1
    assert "zone a-zone: " in result["msg"] and "ValueError: invalid literal for int()" in result["msg"]
    assert "hunter2" not in str(result)


def test_an_answer_that_is_none_is_a_failure():
    made = action(HERE)
    made._low_level_execute_command = lambda *_words, **_more: {
        "rc": 0,
        "stdout": "bash: warning",
        "stderr": "",
        "stderr_lines": [],
    }
    assert "its answer cannot be read" in made.apply(NOTHING)["msg"]


def test_an_unknown_option_is_refused():
    with pytest.raises(AnsibleActionFail, match="Unsupported parameters.*files"):
        action({}, files=[]).run(task_vars={})


def test_a_host_that_is_no_zone_is_refused():
    with pytest.raises(AnsibleActionFail, match="'zone' is not defined"):
        action({}).run(task_vars={})


@pytest.fixture(scope="module")
def variables():
    """The variables of every zone of the example, and its secrets."""
    loader = DataLoader()
    inventory = InventoryManager(loader, [str(EXAMPLE)])
    manager = VariableManager(loader, inventory)
    found = {host.name: manager.get_vars(host=host) for host in inventory.get_hosts("zones")}
    services = next(iter(found.values()))["stack"]["services"]
    secrets, _added = complete({}, needed(services), lambda: new_authority("aio")._asdict())
    return {name: {**mine, "secrets": secrets} for name, mine in found.items()}, secrets


def leaves(value):
    """The texts in a structure."""
    return [text for one in value.values() for text in leaves(one)] if isinstance(value, dict) else [str(value)]


def rendered(variables, check=False, **arguments):
    """What the zone is asked for."""
    made, asked = action(variables, check, **arguments), []
    made.apply = lambda request: asked.append(request) or {}
    made.run(task_vars=variables)
    return asked[0]


def test_every_zone_of_the_example_is_rendered_and_no_secret_is_in_what_may_be_shown(variables):
    of_zones, secrets = variables
    hidden = [text for text in leaves({**secrets, "pki": secrets["pki"]["ca_key"]}) if len(text) > 8]
    for name, mine in of_zones.items():
        request = rendered(mine)
        shown = [entry for entry in request["files"] if not entry["secret"]]
        text = repr([shown, request["directories"], request["daemons"]])
        assert shown and not [secret for secret in hidden if secret in text], name
        assert any(entry["secret"] for entry in request["files"]), name


def test_a_hypervisor_knows_its_availability_zone_where_there_are_some(variables):
    of_zones, secrets = variables
    loader = DataLoader()
    inventory = InventoryManager(loader, [str(EXAMPLE.parents[1] / "production/topology.yml")])
    far = VariableManager(loader, inventory).get_vars(host=inventory.get_host("cmp2-nova-compute-1"))
    found = []
    for mine in (of_zones["aio1-nova-compute-1"], {**far, "secrets": secrets}):
        files = {entry["path"]: entry for entry in rendered(mine)["files"]}
        found.append(json.loads(files["/etc/zonestack/hypervisor.json"]["content"]))
    assert "availability_zone" not in found[0]
    assert found[1]["availability_zone"] == "rack-2"


def test_each_node_of_the_queue_can_stand_in_for_the_others_and_nobody_else_can(variables):
    of_zones, _secrets = variables
    nodes = {
        name: str(mine["zone"]["address"]) for name, mine in of_zones.items() if name.startswith("aio1-rabbit-mq-")
    }
    for name in (*nodes, "aio1-utility-1"):
        files = {entry["path"]: entry["content"] for entry in rendered(of_zones[name])["files"]}
        names = (
            load_pem_x509_certificate(files["/etc/zonestack/tls/zone.crt"].encode())
            .extensions.get_extension_for_class(SubjectAlternativeName)
            .value
        )
        addresses = {str(one) for one in names.get_values_for_type(IPAddress)}
        assert addresses == (set(nodes.values()) if name in nodes else {str(of_zones[name]["zone"]["address"])})


def test_what_is_rendered_is_the_same_each_time(variables):
    mine = variables[0]["aio1-keystone-1"]
    assert rendered(mine) == rendered(mine)


def test_options_and_check_mode_reach_the_zone(variables):
    mine = variables[0]["aio1-memcached-1"]
    request = rendered(mine, check=True, start="no", wait="7")
    assert [request[key] for key in ("check", "start", "restart", "wait")] == [True, False, False, 7]


def test_an_override_is_a_layer_and_one_for_no_file_is_refused(variables):
    mine = variables[0]["aio1-keystone-1"]
    files = rendered({**mine, "zone_conf": {"keystone.conf": {"token": {"expiration": 1234}}}})["files"]
    made = next(entry for entry in files if entry["path"] == "/etc/keystone/keystone.conf")
    assert "# zone_conf\nexpiration = 1234\n" in made["content"] and made["validate"]
    with pytest.raises(AnsibleActionFail, match="zone_conf.keystone.cnf: keystone has no such file"):
        rendered({**mine, "zone_conf": {"keystone.cnf": {}}})
