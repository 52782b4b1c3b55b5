# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets of a deployment, as data, as a file, and by the command."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.zonestack.openstack.plugins.plugin_utils import secrets as unit

ROOT = Path(__file__).resolve().parents[3]
SERVICES: dict[str, dict[str, t.Any]] = {
    "nova": {
        "database": ["nova_api", "nova_cell0"],
        "queue": True,
        "identity": {"user": "nova"},
        "secrets": {"metadata": "hex32"},
    },
    "keystone": {"database": ["keystone"], "secrets": {"admin_password": "password", "fernet_keys": "fernet_keys"}},
    "rabbit_mq": {"secrets": {"erlang_cookie": "erlang_cookie"}, "queue": False, "identity": None},
    "memcached": {},
}
AUTHORITY = {"ca_key": "K\nK\n", "ca_certificate": "C\nC\n"}


def complete(present: dict[str, t.Any]) -> tuple[dict[str, t.Any], list[str]]:
    return unit.complete(present, unit.needed(SERVICES), lambda: AUTHORITY)


def test_needed_names_every_secret_of_the_services() -> None:
    assert unit.needed(SERVICES) == {
        ("database", "nova_api"): "password",
        ("database", "nova_cell0"): "password",
        ("queue", "nova"): "password",
        ("identity", "nova"): "password",
        ("nova", "metadata"): "hex32",
        ("database", "keystone"): "password",
        ("keystone", "admin_password"): "password",
        ("keystone", "fernet_keys"): "fernet_keys",
        ("rabbit_mq", "erlang_cookie"): "erlang_cookie",
    }


def test_complete_makes_values_of_each_kind() -> None:
    made, added = complete({})
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]{42}", made["database"]["keystone"])
    assert re.fullmatch(r"[0-9a-f]{32}", made["nova"]["metadata"])
    assert re.fullmatch(r"[A-Z]{32}", made["rabbit_mq"]["erlang_cookie"])
    assert sorted(made["keystone"]["fernet_keys"]) == ["0", "1"]
    assert all(len(base64.urlsafe_b64decode(key)) == 32 for key in made["keystone"]["fernet_keys"].values())
    assert made["pki"] == AUTHORITY
    assert len(added) == 11 and "secrets.queue.nova" in added and "secrets.pki.ca_key" in added
    assert complete({})[0]["database"] != made["database"]


def test_complete_keeps_what_is_there_and_adds_the_rest() -> None:
    made, _added = complete({})
    del made["queue"], made["database"]["nova_api"]
    made["database"]["keystone"] = "mine"
    made["old_service"] = {"password": "kept"}
    before = yaml.safe_dump(made)
    again, added = complete(made)
    assert added == ["secrets.database.nova_api", "secrets.queue.nova"]
    assert yaml.safe_dump(made) == before, "the input was changed"
    del again["queue"], again["database"]["nova_api"]
    assert again == made


def test_complete_refuses_half_an_authority() -> None:
    with pytest.raises(
        unit.SecretsError, match=r"secrets\.pki\.ca_certificate is missing, but the other half is there"
    ):
        complete({"pki": {"ca_key": "K"}})


def test_complete_refuses_a_group_that_is_no_mapping() -> None:
    with pytest.raises(unit.SecretsError, match=r"secrets\.database: must be a mapping"):
        complete({"database": "x"})


def test_rotate_fernet_makes_the_staged_key_primary() -> None:
    one = unit.rotate_fernet({"0": "staged", "1": "primary"})
    assert {key: one[key] for key in ("1", "2")} == {"1": "primary", "2": "staged"}
    assert sorted(one) == ["0", "1", "2"]
    assert one["0"] not in ("staged", "primary")


def test_rotate_fernet_drops_the_oldest() -> None:
    keys = {"0": "s", "7": "a", "8": "b", "9": "c", "10": "d"}
    rotated = unit.rotate_fernet(keys)
    assert {number: rotated[number] for number in rotated if number != "0"} == {
        "8": "b",
        "9": "c",
        "10": "d",
        "11": "s",
    }
    assert sorted(unit.rotate_fernet(keys, 2)) == ["0", "11"]


@pytest.mark.parametrize("keys", [{}, {"0": "a"}, {"1": "a", "2": "b"}, {"x": "a", "0": "b"}, "text"])
def test_rotate_fernet_refuses_what_is_no_repository(keys: t.Any) -> None:
    with pytest.raises(unit.SecretsError, match="not a repository of fernet keys"):
        unit.rotate_fernet(keys)
    with pytest.raises(unit.SecretsError, match="max_active_keys: 1"):
        unit.rotate_fernet({"0": "a", "1": "b"}, 1)


def test_rotate_fernet_agrees_with_fernet_itself() -> None:
    """A token made before two rotations is still read after them."""
    from cryptography.fernet import Fernet, MultiFernet

    def fernet(keys: dict[str, str]) -> MultiFernet:
        return MultiFernet([Fernet(keys[number]) for number in sorted(keys, key=int, reverse=True)])

    keys = unit.fernet_keys()
    token = fernet(keys).encrypt(b"user")
    for _ in range(2):
        behind, keys = keys, unit.rotate_fernet(keys)
        assert fernet(behind).decrypt(fernet(keys).encrypt(b"new")) == b"new", (
            "a zone without the new keys reads new tokens"
        )
    assert fernet(keys).decrypt(token) == b"user"


def test_file_is_private_and_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    made, _added = complete({})
    old = os.umask(0)
    try:
        unit.SecretsFile(path).write(made)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert unit.SecretsFile(path).read().secrets == made
    assert list(tmp_path.iterdir()) == [path]


def test_file_keeps_other_keys_and_vaulted_values(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    path.write_text("mine: 1\nsecrets:\n  a:\n    b: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6162\n")
    path.chmod(0o600)
    file = unit.SecretsFile(path).read()
    file.write({**file.secrets, "c": {"d": "e"}})
    assert "b: !vault |" in path.read_text() and "$ANSIBLE_VAULT;1.1;AES256\n      6162\n" in path.read_text()
    assert unit.SecretsFile(path).read().document["mine"] == 1


def test_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    path.write_text("secrets: {}\n")
    path.chmod(0o640)
    with pytest.raises(unit.SecretsError, match=f"mode 0640 .*run `chmod 600 {path}`"):
        unit.SecretsFile(path).read()


@pytest.mark.parametrize("text", ["secrets: [1]\n", "- 1\n", "secrets: hunter2\n"])
def test_file_that_holds_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.yml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(unit.SecretsError, match="must be a mapping with the one key `secrets`"):
        unit.SecretsFile(path).read()


def test_file_with_a_syntax_error_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    path.write_text("secrets:\n  a: {hunter2\n")
    path.chmod(0o600)
    with pytest.raises(unit.SecretsError, match="line 3: not valid YAML") as caught:
        unit.SecretsFile(path).read()
    assert "hunter2" not in str(caught.value)


# The command


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    text = (ROOT / "inventory/examples/aio/topology.yml").read_text()
    (folder / "topology.yml").write_text(text)
    return folder


def command(*arguments: str | Path, rc: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/deployment-secrets.py", *arguments],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == rc, done.stderr
    return done.stderr if rc else done.stdout


def scalars(value: t.Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in scalars(inner)]
    return [str(value)]


def test_command_ensure_adds_once_and_names_no_value(deployment: Path) -> None:
    path = deployment / "secrets.yml"
    said = command("ensure", "--deployment", deployment)
    assert "secrets.keystone.admin_password" in said and "secrets.pki.ca_key" in said
    made = yaml.safe_load(path.read_text())["secrets"]
    assert not [text for text in scalars(made) if text in said]
    before = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
    assert command("ensure", "--deployment", deployment) == ""
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert command("show-path", "--deployment", deployment) == f"{path}\n"


def test_command_rotate(deployment: Path) -> None:
    command("ensure", "--deployment", deployment)
    before = yaml.safe_load((deployment / "secrets.yml").read_text())["secrets"]
    said = command("rotate", "fernet", "keystone.fernet_keys", "--deployment", deployment)
    assert "secrets.keystone.fernet_keys has 3 keys now" in said and "run-playbooks.sh" in said
    after = yaml.safe_load((deployment / "secrets.yml").read_text())["secrets"]
    assert after["keystone"]["fernet_keys"]["2"] == before["keystone"]["fernet_keys"]["0"]
    assert {**after["keystone"], "fernet_keys": 0} == {**before["keystone"], "fernet_keys": 0}
    assert after["pki"] == before["pki"]
    wrong = command("rotate", "fernet", "keystone.admin_password", "--deployment", deployment, rc=1)
    assert "secrets.keystone.admin_password is not a repository of keys (known: keystone.fernet_keys" in wrong


def test_command_refuses_what_is_no_deployment(tmp_path: Path) -> None:
    said = command("ensure", "--deployment", tmp_path, rc=1)
    assert (
        said
        == f"error: {tmp_path}/topology.yml: no such file: set --deployment to the name of a folder in inventory/, such as aio, or to a path\n"
    )
    (tmp_path / "topology.yml").write_text("networks: {}\nnonsense: 1\n")
    assert "nonsense" in command("ensure", "--deployment", tmp_path, rc=1)
    assert not (tmp_path / "secrets.yml").exists()


def test_command_keeps_a_vaulted_file_vaulted(deployment: Path, tmp_path: Path) -> None:
    key, path = tmp_path / "key", deployment / "secrets.yml"
    key.write_text("correct horse")
    path.write_text("secrets: {keystone: {admin_password: mine}}\n")
    vault = Path(sys.executable).with_name("ansible-vault")
    subprocess.run([vault, "encrypt", "--vault-password-file", key, path], check=True, capture_output=True)
    path.chmod(0o600)
    assert "set --vault-password-file FILE" in command("ensure", "--deployment", deployment, rc=1)
    command("ensure", "--deployment", deployment, "--vault-password-file", key)
    assert path.read_text().startswith("$ANSIBLE_VAULT")
    shown = subprocess.run(
        [vault, "view", "--vault-password-file", key, path], check=True, capture_output=True, text=True
    )
    values = yaml.safe_load(shown.stdout)["secrets"]
    assert values["keystone"]["admin_password"] == "mine" and values["pki"]["ca_key"]
    key.write_text("wrong")
    assert "cannot be decrypted with that password" in command(
        "ensure", "--deployment", deployment, "--vault-password-file", key, rc=1
    )
