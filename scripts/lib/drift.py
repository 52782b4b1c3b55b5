# SPDX-License-Identifier: GPL-3.0-or-later
"""List what in zones differs from their image together with what a run writes, each file with the one it belongs to."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloud import Cloud, load, require_secrets_of_siblings
from deployment import ROOT, Deployment, DeploymentError, command
from options import drift
from rendering import Rendering, Tree, find_collections

ATTRIBUTES = ("mode", "owner", "group")


def expected(uuid: str, tree: Tree) -> dict[str, Any]:
    """What the module zone_drift needs to know of a zone: digests in place of contents."""

    def attributes(entry: dict[str, Any]) -> dict[str, str]:
        return {key: entry[key] for key in ATTRIBUTES}

    return {
        "uuid": uuid,
        "files": {
            entry["path"]: {"sha256": hashlib.sha256(entry["content"].encode()).hexdigest(), **attributes(entry)}
            for entry in tree["files"]
        },
        "directories": {entry["path"]: attributes(entry) for entry in tree["directories"]},
        "units": {daemon["unit"]: daemon["digest"] for daemon in tree["daemons"]},
    }


def rendered(deployment: Deployment, cloud: Cloud, zones: list[str]) -> dict[str, dict[str, Any]]:
    """What should be in the zones, by host and zone, rendered with the deployment's own secrets."""
    from ansible.errors import AnsibleError

    rendering = Rendering(deployment.topology, {})
    if not deployment.secrets.is_file():
        raise DeploymentError(
            f"there is no {deployment.secrets.relative_to(deployment.root)}, so no run has written anything yet"
        )
    require_secrets_of_siblings(cloud)
    try:
        # as `vars_files` of a play reads them
        rendering.further = rendering.loader.load_from_file(str(deployment.secrets), trusted_as_template=True)
    except AnsibleError as why:
        raise DeploymentError(
            f"{deployment.secrets}: cannot be read: {getattr(why, 'message', 'is it encrypted?')}"
        ) from None
    found: dict[str, dict[str, Any]] = {}
    for name in zones:
        zone = cloud.zones[name]
        found.setdefault(zone.host, {})[name] = expected(zone.uuid, rendering.tree(rendering.variables(name)))
    return found


class Answers:
    """What the hosts answered, taken from Ansible's events."""

    def __init__(self) -> None:
        self.findings: dict[str, list[dict[str, str]]] = {}
        self.unseen: dict[str, str] = {}
        self.silent: dict[str, str] = {}

    def take(self, event: dict[str, Any]) -> None:
        data = event.get("event_data") or {}
        result = data.get("res") or {}
        if event["event"] == "runner_on_ok" and "findings" in result:
            self.findings |= result["findings"]
            self.unseen |= result["unseen"]
        elif event["event"] in ("runner_on_failed", "runner_on_unreachable"):
            self.silent[data["host"]] = (str(result.get("msg") or "no answer").strip().splitlines() or ["no answer"])[0]

    def without(self, cloud: Cloud, zones: list[str]) -> dict[str, str]:
        """The zones that were not looked at, and why."""
        missing = [name for name in zones if name not in self.findings and name not in self.unseen]
        why = {name: self.silent.get(cloud.zones[name].host, "its host did not answer") for name in missing}
        return {**self.unseen, **why}


def ask(deployment: Deployment, wanted: dict[str, dict[str, Any]]) -> Answers:
    """Have the hosts look at their zones, all at once."""
    from runner import Mask, locked, private_folder, run_playbooks

    answers = Answers()
    with locked(deployment, "drift"), private_folder(deployment, "rendered") as folder:
        variables = folder / "zones.json"
        variables.write_text(json.dumps({"drift_zones": wanted}))
        arguments = ["--limit", ",".join(wanted), "--extra-vars", f"@{variables}"]
        mask = Mask(deployment.secret_values())
        run_playbooks(deployment, arguments, [ROOT / "playbooks/drift.yml"], answers.take, mask, "drift")
    return answers


def report(console: Console, findings: dict[str, list[dict[str, str]]], unseen: dict[str, str]) -> None:
    """The table of the terminal, and the outcome in one sentence."""
    rows = [(zone, one) for zone, every in sorted(findings.items()) for one in every]
    if rows:
        table = Table(*("zone", "what", "path", "belongs to", "detail"))
        for zone, one in rows:
            table.add_row(*map(Text, (zone, one["kind"], one["path"], one["owner"], one["detail"])))
        console.print(table)
    for zone, why in sorted(unseen.items()):
        console.print(Text(f"warning: {zone} was not checked: {why}"), soft_wrap=True)
    count = (
        f"files that differ: {len(rows)}, in {len({zone for zone, _one in rows})}"
        if rows
        else "no difference in any zone"
    )
    console.print(Text(f"{count} of {len(findings)} zones" if findings else "no zone was checked"), soft_wrap=True)


def main() -> int:
    options = drift().parse_args()
    find_collections()
    deployment = Deployment(options.deployment).require()
    cloud = load(deployment)
    zones = list(dict.fromkeys(zone for name in options.names for zone in cloud.named(name))) or list(cloud.zones)
    answers = ask(deployment, rendered(deployment, cloud, zones))
    unseen = answers.without(cloud, zones)
    if options.json:
        print(json.dumps({"findings": answers.findings, "unseen": unseen}, indent=2, sort_keys=True))
    else:
        report(Console(highlight=False, width=None if sys.stdout.isatty() else 200), answers.findings, unseen)
    return 1 if any(answers.findings.values()) else 2 if unseen else 0


if __name__ == "__main__":
    command(main, refused=2)
