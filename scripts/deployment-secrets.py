#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets of a deployment: inventory/<deployment>/secrets.yml.

    scripts/deployment-secrets.py ensure --deployment aio
        Generate what the deployed services need and the file lacks. Never touches a value that is there; says what it
        added, by name; says nothing when nothing was missing.
    scripts/deployment-secrets.py rotate fernet keystone.fernet_keys --deployment aio
        Rotate a repository of fernet keys. Deploy afterwards, and before the next rotation. After rotating keystone's
        credential_keys and deploying, run `keystone-manage credential_migrate` in a Keystone zone as well: what the old
        keys have encrypted stays in the database, and the oldest keys go.
    scripts/deployment-secrets.py show-path --deployment aio
        Print the path of the file.

A file that ansible-vault has encrypted stays so; give --vault-password-file (or set ANSIBLE_VAULT_PASSWORD_FILE).
Exit code 0 when all is well, 1 with one line on stderr otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# An operator's command runs with the checkout's own packages, whichever Python it is started with.
PYTHON = ROOT / ".venv/bin/python"
if importlib.util.find_spec("ansible") is None:
    if not PYTHON.exists() or Path(sys.prefix) == PYTHON.parents[1]:
        sys.exit("error: this checkout is not set up: run scripts/bootstrap-aio.sh")
    os.execv(PYTHON, [str(PYTHON), *sys.argv])

# A collection's modules are found by its folder's name, so the checkout gets the name that it has when installed.
with tempfile.TemporaryDirectory() as folder:
    namespace = Path(folder, "ansible_collections", "zonestack")
    namespace.mkdir(parents=True)
    (namespace / "openstack").symlink_to(ROOT)
    sys.path.insert(0, folder)
    from ansible_collections.zonestack.openstack.plugins.inventory.topology import read_cloud
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.pki import new_authority
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.schema import Refused
    from ansible_collections.zonestack.openstack.plugins.plugin_utils.secrets import (
        SecretsError,
        SecretsFile,
        complete,
        needed,
        rotate_fernet,
    )

    sys.path.remove(folder)


def folder_of(text: str) -> Path:
    """The folder of a deployment: below ``inventory/`` by its name, as for every command, or by its path."""
    return ROOT / "inventory" / text if "/" not in text else Path(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--deployment",
        default="aio",
        type=folder_of,
        metavar="NAME",
        help="folder in inventory/, or a path (default: aio)",
    )
    common.add_argument("--vault-password-file", metavar="FILE", default=os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE"))
    made = argparse.ArgumentParser(
        prog="scripts/deployment-secrets.py",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("ensure", parents=[common], help="generate what is missing")
    rotate = commands.add_parser("rotate", parents=[common], help="rotate a repository of keys")
    rotate.add_argument("kind", choices=["fernet"])
    rotate.add_argument("name", metavar="SERVICE.NAME", help="for example keystone.fernet_keys")
    rotate.add_argument(
        "--max-active-keys",
        type=int,
        default=5,
        metavar="N",
        help="number of keys, including the staged and the primary one; the same as in keystone.conf (default 5)",
    )
    commands.add_parser("show-path", parents=[common], help="print the path of the file")
    return made


def ensure(file: SecretsFile, topology: Path) -> None:
    """Add what is missing, and say what."""
    cloud = read_cloud(topology)
    deployment = cloud.stack["deployment"]
    values, added = complete(
        file.read().secrets, needed(cloud.stack["services"]), lambda: new_authority(deployment)._asdict()
    )
    if added:
        file.write(values)
        print(f"{file.path}: added {', '.join(added)}")


def rotate(file: SecretsFile, name: str, max_active_keys: int) -> None:
    """Rotate one repository of fernet keys."""
    values = file.read().secrets
    service, _, secret = name.removeprefix("secrets.").partition(".")
    keys = (values.get(service) or {}).get(secret)
    if not isinstance(keys, dict):
        known = [
            f"{one}.{key}" for one, group in values.items() for key, value in group.items() if isinstance(value, dict)
        ]
        raise SecretsError(
            f"{file.path}: secrets.{name} is not a repository of keys (known: {', '.join(known) or 'none'})"
        )
    values[service][secret] = rotated = rotate_fernet(keys, max_active_keys)
    file.write(values)
    print(
        f"{file.path}: secrets.{service}.{secret} has {len(rotated)} keys now. Run scripts/run-playbooks.sh to deploy them, "
        "and do not rotate again before that run succeeds."
    )


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    options = parser().parse_args(arguments)
    topology = options.deployment / "topology.yml"
    try:
        if not topology.is_file():
            raise SecretsError(
                f"{topology}: no such file: set --deployment to the name of a folder in inventory/, such as aio, or to a path"
            )
        file = SecretsFile(options.deployment / "secrets.yml", options.vault_password_file)
        if options.command == "ensure":
            ensure(file, topology)
        elif options.command == "rotate":
            rotate(file, options.name, options.max_active_keys)
        else:
            print(file.path.resolve())
    except (SecretsError, Refused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
