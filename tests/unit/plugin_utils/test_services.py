# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Place, Refused, parse_yaml
from ansible_collections.zonestack.openstack.plugins.plugin_utils.service_folders import (
    COMMON_TEMPLATES,
    find_file,
    read_services,
)
from ansible_collections.zonestack.openstack.plugins.plugin_utils.services import Catalogue, catalogue

CHECKOUT = Path(__file__).resolve().parents[3]

FULL = """
    description: A service
    slot: 7
    image: {packages: [a]}
    ports: {main: {port: 80, from: [zones]}}
    config: {/etc/a.conf: {template: a.j2, mode: "0640"}}
    daemons: {a: {command: /bin/a}}
    steps: [{name: Do it, run: do, unless: done}]
    """


def known(**files: str) -> Catalogue:
    parsed = {}
    for name, text in files.items():
        file = f"services/{name}.yml"
        parsed[name] = (parse_yaml(textwrap.dedent(text), file), Place(file))
    return catalogue(parsed)


def write(root: Path, **files: str) -> list[tuple[Path, str]]:
    """A folder of services; in names ``__`` stands for ``/``, and ``_yml`` at the end for ``.yml``."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_yml", ".yml").replace("_j2", ".j2")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return [(root, root.name)]


def test_variable_has_every_key_of_the_first_level_and_no_empty_ones_below():
    variable = known(a=FULL).components["a"].variable()
    assert variable["api"] is None
    assert variable["listen"] == {} and variable["queue"] is False and variable["needs"] == []
    # what a file holds is told by the key that it has, so absent ones must be absent
    assert variable["config"]["/etc/a.conf"] == {
        "template": "a.j2", "mode": "0640", "owner": "root", "group": "root", "secret": False, "exact": False,
        "settings": False,
    }  # fmt: skip
    assert variable["ports"]["main"]["from"] == ["zones"]
    assert "components" not in variable


def test_component_merges_mappings_and_replaces_lists():
    parts = known(
        a="""
        description: Parts
        zone: {memory: 512, volumes: {data: {path: /d}}}
        image: {packages: [a, b]}
        components:
          a_one: {slot: 1, zone: {memory: 1024}, image: {packages: [c]}}
          a_two: {slot: 2}
        """
    ).components
    assert parts["a_one"].merged.zone.memory == 1024
    assert list(parts["a_one"].merged.zone.volumes) == ["data"]
    assert parts["a_one"].merged.image.packages == ("c",)
    assert parts["a_two"].merged.zone.memory == 512
    assert parts["a_two"].merged.image.packages == ("a", "b")


OWNED = """
    description: Parts
    image: {packages: [a]}
    components: {a_one: {slot: 1}}
    """


def test_a_component_may_have_a_file_of_its_own(tmp_path):
    found = read_services(write(tmp_path, a__service_yml=OWNED, a__two_yml="{slot: 2, zone: {memory: 512}}"))
    assert list(found.services) == ["a"] and list(found.services["a"].components) == ["a_one", "a_two"]
    assert found.components["a_two"].service == "a"
    assert found.components["a_two"].merged.image.packages == ("a",)
    assert found.components["a_two"].merged.zone.memory == 512


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("two", "{}", "services/a/two.yml: slot: the key is missing and has no default"),
        ("two", "{slot: 1}", "services/a/two.yml: slot: value 1: slot collision with 'a_one' (services/a/service.yml)"),
        ("two", "{slot: 2, queue: true}", "services/a/two.yml: queue: value True: unknown key"),
        (
            "one",
            "{slot: 2}",
            "services/a/service.yml: components.a_one: value 'a_one': services/a/one.yml declares it too",
        ),
    ],
)
def test_a_component_s_file_is_refused_with_its_own_place(tmp_path, name, text, message):
    with pytest.raises(Refused, match=re.escape(message)):
        read_services(write(tmp_path / "services", a__service_yml=OWNED, **{f"a__{name}_yml": text}))


def test_later_folder_replaces_a_file_of_the_same_name(tmp_path):
    declared = "{{description: A, slot: {}, config: {{/a: {{template: x.j2}}, /b: {{template: y.j2}}}}}}"
    one = write(tmp_path / "one", a__service_yml=declared.format(1), a__x_j2="", a__y_j2="", a__tasks__whole_yml="")
    two = write(tmp_path / "two", a__service_yml=declared.format(2), a__x_j2="")
    found = read_services([*one, *two])
    assert (found.components["a"].slot, found.places["a"].file) == (2, "two/a/service.yml")
    part = found.components["a"]
    assert [find_file(part.folders, name) for name in ("x.j2", "y.j2", "z.j2")] == [
        tmp_path / "two/a/x.j2",
        tmp_path / "one/a/y.j2",
        None,
    ]
    assert part.hooks == {"whole": str(tmp_path / "one/a/tasks/whole.yml")}
    only = write(tmp_path / "three", a__y_j2="")  # one file alone may be replaced
    assert find_file(read_services([*one, *only]).components["a"].folders, "y.j2") == tmp_path / "three/a/y.j2"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a_yml": "{description: A, slot: 1}"},
            "services/a.yml: a service is a folder: move the file to services/a/service.yml, and what it uses beside it",
        ),
        ({"a__x_j2": ""}, "services/a: a service's folder holds its declaration: write service.yml"),
        (
            {"a__service_yml": "{description: A, slot: 1}", "a__tasks__hole_yml": ""},
            "services/a/tasks/hole.yml: value 'hole': the engine has no such hook",
        ),
        (
            {"a__service_yml": "{description: A, slot: 1, config: {/x: {template: x.j2}}}", "a__y_j2": ""},
            "services/a/service.yml: config[/x].template: value 'x.j2': no such file in a/ (known: y.j2)",
        ),
        (
            {"a__service_yml": "{description: A, slot: 1, config: {/x: {file: nginx.conf.j2}}}"},
            "services/a/service.yml: config[/x].file: value 'nginx.conf.j2': no such file in a/",
        ),
        (
            {"a__service_yml": "{description: A, slot: 1, image: {copies: {/x: x.py}}}", "a__y_j2": ""},
            "services/a/service.yml: image.copies[/x]: value 'x.py': no such file in a/ (known: y.j2)",
        ),
    ],
)
def test_a_folder_that_is_no_service_is_refused(tmp_path, monkeypatch, files, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "services", **files)
    with pytest.raises(Refused, match=re.escape(message)):
        read_services([(Path("services"), "services")])


REFUSED = [
    ("unknown key", {"slot: 7": "slot: 7\n    solt: 8"}, "services/a.yml: solt: value 8: unknown key, did you mean 'slot'? (known: slot, count, "),
    ("unknown key below", {"packages": "package"},
     "services/a.yml: image.package: value ['a']: unknown key, did you mean 'packages'? (known: packages, python, user, commands, files, copies)"),
    ("unknown key of a daemon", {"command: /bin/a": "command: /bin/a, usr: b"}, "services/a.yml: daemons.a.usr: value 'b': unknown key"),
    ("no slot", {"slot: 7": ""}, "services/a.yml: slot: the key is missing and has no default"),
    ("slot 0", {"slot: 7": "slot: 0"}, "services/a.yml: slot: value 0: give 1 or more"),
    ("no description", {"description: A service": ""}, "services/a.yml: description: write in one line what the service is"),
    ("mode without quotes", {'"0640"': "0640"},
     "services/a.yml: config[/etc/a.conf].mode: value 416: write a string in quotes"),
    ("mode of three digits", {'"0640"': '"640"'},
     "services/a.yml: config[/etc/a.conf].mode: value '640': write four octal digits in quotes, such as \"0640\""),
    ("relative path", {"/etc/a.conf": "etc/a.conf"}, "services/a.yml: config[etc/a.conf]: value 'etc/a.conf': write an absolute path"),
    ("file with two contents", {"template: a.j2": "template: a.j2, content: b"},
     "services/a.yml: config[/etc/a.conf]: value ['template', 'content']: say what the file holds with exactly one of the known keys "
     "(known: oslo/options, template, content, file, keys)"),
    ("file without content", {"template: a.j2, ": ""}, "services/a.yml: config[/etc/a.conf]: value []: say what the file holds"),
    ("daemon of two kinds", {"command: /bin/a": "command: /bin/a, unit: b"},
     "services/a.yml: daemons.a: value ['command', 'unit']: say what the daemon is with exactly one of the known keys"),
    ("WSGI without a port", {"command: /bin/a": '"wsgi": "a:b"'}, "services/a.yml: daemons.a.port: a WSGI application needs a port"),
    ("port", {"port: 80": "port: 0"}, "services/a.yml: ports.main.port: value 0: give a port, 1 to 65535"),
    ("nobody of that name", {"[zones]": "[zone]"},
     "services/a.yml: ports.main.from[0]: value 'zone': name a service or component, or users, zones, hosts, any (known: zones, a, any, hosts, users)"),
    ("unknown need", {"slot: 7": "slot: 7\n    needs: [b]"}, "services/a.yml: needs[0]: value 'b': name a service (known: a)"),
    ("step without a guard", {", unless: done": ""}, "services/a.yml: steps[0].unless: the key is missing and has no default"),
    ("secret of an unknown kind", {"slot: 7": "slot: 7\n    secrets: {b: pin}"},
     "services/a.yml: secrets.b: value 'pin': write one of the known values (known: password, hex32, fernet_keys, erlang_cookie)"),
    ("slot beside components", {"slot: 7": "slot: 7\n    components: {b: {slot: 8}}"},
     "services/a.yml: slot: value 7: set a slot in each component instead"),
    ("component without a slot", {"slot: 7": "components: {b: {}}"}, "services/a.yml: components.b.slot: the key is missing"),
    ("component with a service's key", {"slot: 7": "components: {b: {slot: 8, database: [b]}}"},
     "services/a.yml: components.b.database: value ['b']: unknown key"),
    ("component named as its service", {"slot: 7": "components: {a: {slot: 8}}"},
     "services/a.yml: components.a: value 'a': use a name that is not the service's"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_declaration_is_refused_with_where_what_and_what_would_be_right(changes, message):
    text = FULL
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(Refused) as refused:
        known(a=text)
    assert str(refused.value).startswith(message)


def test_slot_collision_names_both_services_and_a_free_slot():
    with pytest.raises(Refused) as refused:
        known(a="{description: A, slot: 1}", b="{description: B, slot: 1}")
    assert str(refused.value) == (
        "services/b.yml: slot: value 1: slot collision with 'a' (services/a.yml): slot 2 is the first free one"
    )


def test_component_with_the_name_of_another_service_is_refused():
    with pytest.raises(Refused, match="components.b: value 'b': the name is in use by services/b.yml: choose another"):
        known(a="{description: A, components: {b: {slot: 1}}}", b="{description: B, slot: 2}")


def test_file_name_that_is_no_name_is_refused():
    with pytest.raises(Refused, match="services/My-Service.yml: value 'My-Service': write a name"):
        known(**{"My-Service": "{description: A, slot: 1}"})


def test_templates_are_carried_and_never_evaluated():
    part = known(a=FULL.replace("/bin/a}", "'{{ 1 // 0 }}'}")).components["a"]
    assert part.merged.daemons["a"].command == "{{ 1 // 0 }}"


def test_collections_own_services_are_right_and_short():
    folder = CHECKOUT / "services"
    found = read_services([(folder, "services")])
    assert {"galera", "haproxy", "keystone", "log", "memcached", "rabbit_mq", "utility"} <= found.services.keys()


def test_what_holds_a_secret_is_marked_so_that_no_diff_shows_it():
    found = read_services([(CHECKOUT / "services", "services")])
    # a certificate is public, its key is not
    secret = re.compile(r"\bsecrets\.|__zone_certificate\.key")
    checked = 0
    for part in found.components.values():
        for path, item in part.merged.config.items():
            text = f"{item.options} {item.content}"
            for layer in item.oslo or ():
                text += str(found.layers["oslo"][layer])
            if item.template:
                text += find_file([*part.folders, *COMMON_TEMPLATES], item.template).read_text(encoding="utf-8")
            if secret.search(text):
                checked += 1
                assert item.secret, f"{part.place.file}: config.{path} holds a secret and is not marked `secret: true`"
    assert checked
