# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which secrets a deployment needs, how each kind is made, and how they are kept in one YAML file.

Everything here works on data; ``scripts/deployment-secrets.py`` is the command. What exists is never changed: only missing values are
added, and fernet keys are rotated when somebody asks for it.
"""

from __future__ import annotations

import base64
import copy
import os
import secrets
import stat
import string
import tempfile
import typing as t
from pathlib import Path

import yaml

Secrets = dict[str, t.Any]
Where = tuple[str, ...]
"""Where a secret stands: ``("database", "x")`` is ``secrets.database.x``."""

PKI = "pki"
ALPHANUMERIC = string.ascii_letters + string.digits

HEADER = """\
# The secrets of this deployment, written by scripts/deployment-secrets.py. Keep a copy in a safe place, never in version control:
# they cannot be made a second time. Values may be replaced by your own; comments are not kept.
"""


class SecretsError(Exception):
    """The secrets cannot be read or written; the text says where, what, and what would be right."""


def password() -> str:
    """43 letters and digits: 256 bits, and nothing that a URL, a shell or a configuration file would take for its own.

    The first is a letter, because a few parsers take what begins with a digit for a number.
    """
    return secrets.choice(string.ascii_letters) + "".join(secrets.choice(ALPHANUMERIC) for _index in range(42))


def hex32() -> str:
    """32 hexadecimal digits (128 bits)."""
    return secrets.token_hex(16)


def erlang_cookie() -> str:
    """32 capital letters: 150 bits, all that an Erlang cookie (an atom of at most 255 characters) may hold unquoted."""
    return "".join(secrets.choice(string.ascii_uppercase) for _index in range(32))


def fernet_key() -> str:
    """32 random bytes in URL-safe Base64 (https://github.com/fernet/spec)."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def fernet_keys() -> dict[str, str]:
    """A key repository as keystone's: file name to key. 0 is staged, the highest is primary, the others only decrypt."""
    return {"0": fernet_key(), "1": fernet_key()}


KINDS: dict[str, t.Callable[[], t.Any]] = {
    "password": password,
    "hex32": hex32,
    "erlang_cookie": erlang_cookie,
    "fernet_keys": fernet_keys,
}


def needed(services: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[Where, str]:
    """Return place and kind of every secret that ``services`` (the inventory's ``stack.services``) need, without the CA's."""
    found: dict[Where, str] = {}
    for name, service in services.items():
        found.update({("database", database): "password" for database in service.get("database") or ()})
        if service.get("queue"):
            found["queue", name] = "password"
        if service.get("identity"):
            found["identity", service["identity"]["user"]] = "password"
        found.update({(name, secret): kind for secret, kind in (service.get("secrets") or {}).items()})
    return found


def complete(
    present: Secrets, wanted: t.Mapping[Where, str], new_authority: t.Callable[[], t.Mapping[str, str]]
) -> tuple[Secrets, list[str]]:
    """Add what is missing.

    :param new_authority: makes ``secrets.pki``; called only when there is none.
    :returns: the completed secrets (``present`` is left as it is), and the names of what was added
    """
    secret, added = copy.deepcopy(present), []
    for place, kind in wanted.items():
        group, name = place
        values = secret.setdefault(group, {})
        if not isinstance(values, dict):
            raise SecretsError(f"secrets.{group}: must be a mapping of names to values")
        if values.get(name) in (None, "", {}):
            values[name] = KINDS[kind]()
            added.append(f"secrets.{group}.{name}")
    authority = secret.setdefault(PKI, {})
    missing = [key for key in ("ca_key", "ca_certificate") if not authority.get(key)]
    if len(missing) == 1:
        raise SecretsError(
            f"secrets.pki.{missing[0]} is missing, but the other half is there: restore it, or remove secrets.pki to get a new authority"
        )
    if missing:
        authority.update(new_authority())
        added += [f"secrets.pki.{key}" for key in missing]
    return secret, added


def rotate_fernet(keys: t.Mapping[str, str], max_active_keys: int = 5) -> dict[str, str]:
    """Rotate a key repository as ``keystone-manage fernet_rotate`` does.

    The staged key 0 becomes the primary, a new one is staged, and of the others the oldest go until ``max_active_keys`` are
    left, staged and primary included. Zones that have not got the new keys yet can still read the new tokens: the new primary is
    the key that was staged there before. See https://docs.openstack.org/keystone/latest/admin/fernet-token-faq.html
    """
    if max_active_keys < 2:
        raise SecretsError(f"max_active_keys: {max_active_keys}: at least 2, one key to encrypt with and one staged")
    try:
        numbered = {int(name): key for name, key in keys.items()}
    except (ValueError, AttributeError):
        numbered = {}
    if 0 not in numbered or len(numbered) < 2:
        raise SecretsError(
            'not a repository of fernet keys: it must map "0" (staged) and at least one more number to keys'
        )
    numbered[max(numbered) + 1] = numbered.pop(0)
    kept = sorted(numbered)[-(max_active_keys - 1) :]
    return {"0": fernet_key(), **{str(number): numbered[number] for number in kept}}


class _Vaulted(str):
    """A value that ansible-vault has encrypted inside the file; kept as it is."""


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Loader.add_constructor(
    "!vault", lambda loader, node: _Vaulted(loader.construct_scalar(t.cast("yaml.ScalarNode", node)))
)
_Dumper.add_representer(_Vaulted, lambda dumper, text: dumper.represent_scalar("!vault", str(text), style="|"))
_Dumper.add_representer(str, _represent_text)


class SecretsFile:
    """A deployment's ``secrets.yml``: mode 0600, written whole or not at all, and possibly encrypted as a whole.

    :param vault_password_file: what ``--vault-password-file`` of ansible-playbook takes; needed for an encrypted file only.
    """

    def __init__(self, path: Path, vault_password_file: str | None = None) -> None:
        self.path = path
        self.vault_password_file = vault_password_file
        self.encrypted = False
        self.document: dict[str, t.Any] = {}

    @property
    def secrets(self) -> Secrets:
        """What the file holds under its key ``secrets``."""
        return t.cast("Secrets", self.document.get("secrets") or {})

    def read(self) -> SecretsFile:
        """Read the file; one that is not there has no secrets yet."""
        try:
            with self.path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise SecretsError(
                        f"{self.path}: mode {mode:04o} lets other users read the secrets: run `chmod 600 {self.path}`"
                    )
                data = file.read()
        except FileNotFoundError:
            return self
        if data.startswith(b"$ANSIBLE_VAULT"):
            self.encrypted = True
            data = self._vault().decrypt(data)
        try:
            document = yaml.load(data, Loader=_Loader)  # noqa: S506  # a SafeLoader with one more tag
        except yaml.YAMLError as error:
            # The mark's line number only: the message itself would show the line, and with it a secret.
            line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
            raise SecretsError(
                f"{self.path}: line {line}: not valid YAML: {getattr(error, 'problem', 'unreadable')}"
            ) from None
        if document is not None and not (
            isinstance(document, dict) and isinstance(document.get("secrets", {}) or {}, dict)
        ):
            raise SecretsError(f"{self.path}: must be a mapping with the one key `secrets`, itself a mapping")
        self.document = document or {}
        return self

    def write(self, values: Secrets) -> None:
        """Replace the secrets, keeping everything else in the file."""
        self.document["secrets"] = values
        text = HEADER + yaml.dump(self.document, Dumper=_Dumper, sort_keys=False, width=1000)
        data = self._vault().encrypt(text) if self.encrypted else text.encode()
        # mkstemp makes the file with mode 0600, so that nobody else can read it at any time.
        number, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise

    def _vault(self) -> t.Any:
        # Needed for encrypted files alone, and slow to import.
        from ansible.parsing.dataloader import DataLoader
        from ansible.parsing.vault import VaultLib, get_file_vault_secret

        if not self.vault_password_file:
            raise SecretsError(f"{self.path}: is encrypted with ansible-vault: set --vault-password-file FILE")
        secret = get_file_vault_secret(filename=self.vault_password_file, loader=DataLoader())
        secret.load()
        return _CheckedVault(self.path, VaultLib([("default", secret)]))


class _CheckedVault:
    """VaultLib with an error that names the file."""

    def __init__(self, path: Path, vault: t.Any) -> None:
        self.path = path
        self.vault = vault

    def decrypt(self, data: bytes) -> bytes:
        from ansible.errors import AnsibleError

        try:
            return t.cast("bytes", self.vault.decrypt(data))
        except AnsibleError as error:
            raise SecretsError(f"{self.path}: cannot be decrypted with that password: {error}") from None

    def encrypt(self, text: str) -> bytes:
        return t.cast("bytes", self.vault.encrypt(text))
