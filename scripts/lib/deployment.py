# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment's files on the control machine: where they lie, and the first writing of the all-in-one's.

``python scripts/lib/deployment.py write-aio '{"network": ..., "store": ...}'`` is the part of bootstrap-aio.sh that writes
``inventory/aio/``. It prints one line per file written, and nothing when all was there.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from bootstrap import provider_network

ROOT = Path(__file__).resolve().parents[2]
EXTRA_CA = Path("/usr/local/share/ca-certificates")
"""Where Debian keeps the certificates that an administrator added to those it trusts (update-ca-certificates(8))."""
VIP_OFFSET = 5
"""Where the deployment's virtual address lies in its network unless topology.yml says otherwise."""


class DeploymentError(Exception):
    """A deployment that is not there or not usable; the text says what would be right."""


def command(main: Callable[[], int], refused: int = 1) -> NoReturn:
    """Run an operator's command to its end: exit code as ``main`` says, ``refused`` with the words of a refusal, 130 on Ctrl-C."""
    try:
        sys.exit(main())
    except DeploymentError as why:
        print(f"error: {why}", file=sys.stderr)
        sys.exit(refused)
    except KeyboardInterrupt:
        sys.exit(130)


def confirmed(consequence: str, word: str) -> bool:
    """Say what would be lost, and have ``word`` typed; without a terminal nobody can answer, so that is an error."""
    print(consequence)
    if not sys.stdin.isatty():
        raise DeploymentError("this command asks for confirmation, and there is no terminal: add --yes")
    return input(f"Type {word} to continue: ").strip() == word


@dataclass(frozen=True)
class Deployment:
    """The folders and files of one deployment. ``name`` is the name of its folder below ``inventory/``."""

    name: str
    root: Path = ROOT

    @property
    def folder(self) -> Path:
        return self.root / "inventory" / self.name

    @property
    def topology(self) -> Path:
        return self.folder / "topology.yml"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets.yml"

    @property
    def logs(self) -> Path:
        return self.root / "logs" / self.name

    def require(self) -> Deployment:
        """Refuse a deployment without a topology, naming those that there are."""
        if not self.topology.is_file():
            known = sorted(path.parent.name for path in self.root.glob("inventory/*/topology.yml"))
            raise DeploymentError(
                f"there is no {self.topology.relative_to(self.root)} "
                f"(deployments here: {', '.join(known) or 'none'}; scripts/bootstrap-aio.sh creates one named aio)"
            )
        return self

    def secret_values(self) -> list[str]:
        """Every scalar of secrets.yml as text, which no log may show; and of those of the deployments that it shares a Keystone with."""
        found: list[str] = []

        def collect(value: object) -> None:
            if isinstance(value, dict):
                for inner in value.values():
                    collect(inner)
            elif isinstance(value, list):
                for inner in value:
                    collect(inner)
            elif value is not None and not isinstance(value, bool):
                found.append(str(value))

        said = yaml.safe_load(self.topology.read_text()) if self.topology.exists() else None
        shared = (said.get("identity") if isinstance(said, dict) else None) or {}
        for name in {self.folder.name, shared.get("from"), *(shared.get("to") or [])} - {None}:
            file = self.folder.parent / str(name) / self.secrets.name
            if file.exists():
                collect(yaml.safe_load(file.read_text()))
        return found


def write_whole(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that it is there completely or not at all, whenever the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = path.with_name(f".{path.name}.new")
    trial.write_text(text)
    trial.chmod(mode)
    os.replace(trial, path)


def aio_topology(example: str, network: str, store: str) -> str:
    """The example's topology with this machine's network and store; its comments stay as they are."""
    text, networks = re.subn(r"(\bcidr:\s*)[\d./]+", rf"\g<1>{network}", example, count=1)
    provider = provider_network(network)
    text = re.sub(r"(\bpublic:.*\bcidr:\s*)[\d./]+", rf"\g<1>{provider}", text, count=1)
    virtual = ipaddress.IPv4Network(network)[VIP_OFFSET]
    text = re.sub(r"^(\s*internal:\s*)[\d.]+", rf"\g<1>{virtual}", text, count=1, flags=re.MULTILINE)
    if store != "overlay":
        text = re.sub(r"(\bstore:\s*)\w+", rf"\g<1>{store}", text)
    topology = yaml.safe_load(text)
    if networks != 1 or topology["networks"]["zone"]["cidr"] != network:
        raise DeploymentError("inventory/examples/aio/topology.yml: the first `cidr:` must be that of networks.zone")
    if topology["cloud"]["networks"]["public"]["cidr"] != provider:
        raise DeploymentError("inventory/examples/aio/topology.yml: write `public: {cidr: ...` on one line")
    return text


def write_aio(network: str, store: str, root: Path = ROOT, extra_ca: Path = EXTRA_CA) -> list[str]:
    """Write what is missing of ``inventory/aio``; return a line for each file written.

    A file that is there is its owner's and stays, except the copies of the machine's extra certificates, which follow
    the machine: a renewed company certificate must reach the images.
    """
    aio = Deployment("aio", root)
    written: list[str] = []

    def write(path: Path, text: str, why: str) -> None:
        write_whole(path, text)
        written.append(f"{path.relative_to(root)} ({why})")

    aio.folder.mkdir(parents=True, exist_ok=True)
    aio.folder.chmod(0o700)  # secrets.yml lies here
    if not aio.topology.exists():
        example = (root / "inventory/examples/aio/topology.yml").read_text()
        write(aio.topology, aio_topology(example, network, store), f"zones in {network}, store {store}")
    overrides = aio.folder / "group_vars/all.yml"
    if not overrides.exists():
        text = (
            "# SPDX-License-Identifier: GPL-3.0-or-later\n"
            "# Overrides for all zones of this deployment; <group>.yml beside this file holds those of one service or host.\n"
            "---\n{}\n"
        )
        write(overrides, text, "your overrides")
    for source in sorted(extra_ca.glob("*.crt")):
        target = aio.folder / "ca-certificates" / source.name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            write(target, source.read_text(), "extra certificate of this machine")
    return written


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write-aio", settings]:
            try:
                for line in write_aio(**json.loads(settings)):
                    print(line)
            except (DeploymentError, OSError) as why:
                print(f"error: {why}", file=sys.stderr)
                return 1
            return 0
        case _:
            print((__doc__ or "").strip(), file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
