# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploy, or converge, a deployment: the steps in order, what they changed, and how to log in."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from checks.finding import names
from cloud import Cloud, compute, load, require_secrets_of_siblings
from deployment import ROOT, Deployment, DeploymentError, command, write_whole
from forecast import Foreseen, assemble, foresee, missing_secrets, show
from hold import claim, held
from options import STEPS, parser
from progress import Display, Log, Record
from runner import Mask, locked, private_folder, run_playbooks

LONGEST_ARGUMENT = 128 * 1024
"""Bytes of one argument with its closing zero, MAX_ARG_STRLEN: execve(2)."""


@dataclass
class State:
    """What is remembered of the last run, for ``--resume``. Nothing that a deployment depends on."""

    steps: list[str]
    running: str
    rc: int | None = None
    """None while the run goes on, and so also of one that was killed."""
    limit: str | None = None
    log: str = ""

    @staticmethod
    def path(deployment: Deployment) -> Path:
        return deployment.logs / "last-run.json"

    @classmethod
    def read(cls, deployment: Deployment) -> State | None:
        try:
            return cls(**json.loads(cls.path(deployment).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, deployment: Deployment) -> None:
        write_whole(self.path(deployment), json.dumps(self.__dict__), 0o600)


class Proof:
    """That an instance was led through its life, and that no run has changed anything since.

    It is a file with the words of that verification. It is away from the beginning of a run until the step verify begins,
    or the run ends, without a change: a run that was killed anywhere leaves none, and the next one verifies.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.path = deployment.logs / "verified"
        self._words = ""

    def take(self) -> None:
        """Begin a run that may change something."""
        self._words = self.words()
        self.path.unlink(missing_ok=True)

    def give(self, record: Record) -> None:
        """Have the file there when what it says holds."""
        self.path.unlink(missing_ok=True)
        if words := record.said.get("verified"):
            self._words = f"{words} ({time.strftime('%Y-%m-%d %H:%M:%S')})"
        elif record.changed:
            self._words = ""
        if self._words and not record.failures:
            write_whole(self.path, self._words, 0o600)

    def words(self) -> str:
        return self.path.read_text() if self.path.exists() else ""


def chosen_steps(wanted: list[str], verify: bool = True) -> list[str]:
    """The steps that ``--step`` names, in their order: single ones and ranges (``zones..services``, ``zones..``).

    :param verify: whether a step that verifies is among them when it is not named itself.
    """
    order = list(STEPS)
    if not wanted:
        return [step for step in order if verify or step != "verify"]
    chosen: set[str] = set()
    for text in wanted:
        first, dots, last = text.partition("..")
        for name in (first or order[0], (last or order[-1]) if dots else first):
            if name not in STEPS:
                raise DeploymentError(f"--step {text}: there is no step '{name}' (steps: {', '.join(order)})")
        low, high = order.index(first or order[0]), order.index((last or order[-1]) if dots else first)
        if low > high:
            raise DeploymentError(f"--step {text}: '{first}' comes after '{last}' (order: {', '.join(order)})")
        chosen |= set(order[low : high + 1])
    return [step for step in order if step in chosen]


def limit_of(options: argparse.Namespace, cloud: Cloud) -> str | None:
    """Ansible's limit for ``--service`` and ``--limit``. The physical hosts stay: what a zone needs is done on them."""
    for name in options.service:
        if name not in cloud.groups:
            raise DeploymentError(
                f"--service {name}: deployment '{cloud.deployment}' has {', '.join(sorted(cloud.groups))}"
            )
    if options.service and options.limit:
        raise DeploymentError("use --service or --limit, not both")
    return ",".join([*options.service, "zone_hosts"]) if options.service else with_zones(options.limit, cloud)


def with_zones(limit: str | None, cloud: Cloud) -> str | None:
    """A limit in which a host, or a group of hosts, stands for its zones too: who names a host means what is on it.

    An intersection (``&``) is taken at its word, as it could not be widened term by term.
    """
    if limit is None:
        return None
    from ansible.inventory.manager import split_host_pattern

    terms: list[str] = []
    for term in split_host_pattern(limit):
        sign = term[:1] if term[:1] in ("!", "&") else ""
        groups = cloud.fleets.get(term.removeprefix(sign), []) if sign != "&" else []
        terms += [term, *(f"{sign}{group}" for group in groups)]
    return ",".join(terms)


def ensure_secrets(deployment: Deployment) -> None:
    """Generate the secrets of services that were added to the topology since the last run, and say which."""
    program = [
        sys.executable,
        str(ROOT / "scripts/deployment-secrets.py"),
        "ensure",
        "--deployment",
        str(deployment.folder),
    ]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise DeploymentError(done.stderr.strip().removeprefix("error: "))
    if done.stdout:
        print(done.stdout, end="", flush=True)


def ansible_arguments(options: argparse.Namespace, limit: str | None) -> list[str]:
    """Options for ansible-playbook."""
    arguments = []
    if limit:
        arguments += ["--limit", limit]
    arguments += [f"--{name}" for name in ("check", "diff") if getattr(options, name)]
    if options.verbose:
        arguments.append(f"-{'v' * options.verbose}")
    for variables in options.extra_vars:
        arguments += ["--extra-vars", variables]
    return arguments


@dataclass
class Run:
    """One run: its record, its log file and its end."""

    deployment: Deployment
    cloud: Cloud
    playbooks: list[Path]
    arguments: list[str]
    shown: frozenset[str] = frozenset()
    """The events whose output is shown as Ansible prints it."""
    mask: Mask = field(init=False)
    record: Record = field(default_factory=Record)
    log: Path = field(init=False)
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=not sys.stdout.isatty()))

    def __post_init__(self) -> None:
        self.mask = Mask(self.deployment.secret_values())
        self.log = self.deployment.logs / f"{time.strftime('%Y%m%dT%H%M%S')}.log"

    def execute(self, on_step: Any = lambda step: None) -> int:
        """Run the playbooks under their display, with everything in the log. Returns the exit code."""
        steps = [playbook.stem for playbook in self.playbooks]
        proof = None if "--check" in self.arguments else Proof(self.deployment)
        if proof:
            proof.take()
        with (
            os.fdopen(os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "a") as file,
            Display(self.record, steps, self.console, self.shown, self.mask) as display,
        ):
            log = Log(file)
            log.write(self.mask(f"ansible-playbook {shlex.join(self.arguments)} {' '.join(steps)}"))

            def take(event: dict[str, Any]) -> None:
                log.event(event)
                self.record.add(event)
                if event["event"] == "playbook_on_start":
                    on_step(self.record.step)
                    if proof and self.record.step == "verify":
                        proof.give(self.record)
                display.update(event)

            rc = run_playbooks(self.deployment, self.arguments, self.playbooks, take, self.mask)
            self.record.close_step()
            if rc == 0 and self.record.pairs == 0:
                rc = 1
                self.record.last_words.append("no host matched, so nothing was done: check --limit and topology.yml")
            log.write(f"exit code {rc}")
        if proof and rc == 0:
            proof.give(self.record)
        return rc

    def say(self, text: str = "") -> None:
        self.console.out(self.mask(text), highlight=False)

    def report_failures(self, rc: int) -> None:
        """Where, what and what to do, for each failure; Ansible's last words when it did not get as far as a task."""
        log = self.log.relative_to(ROOT)
        if rc in (129, 130, 143):
            self.say(f"\nInterrupted in step {self.record.step or 'none'}. The log: {log}")
            return
        for failure in self.record.failures:
            self.say(f"\nFAILED  {failure.host}: {failure.task} (step {failure.step})")
            for line in failure.message.splitlines():
                self.say(f"        {line}")
            if hint := failure.hint():
                self.say(f"  hint  {hint}")
            if failure.host in self.cloud.zones:
                self.say(f"  look  scripts/zone-shell.sh {failure.host}")
            elif failure.host in self.cloud.hosts:
                self.say(f"  look  scripts/preflight.sh {self.deployment.name}")
        if not self.record.failures:
            self.say("\nFAILED  before any task:")
            for line in self.record.last_words:
                self.say(f"        {line}")
        self.say(f"   log  {log}")

    def summary(self, check: bool) -> None:
        """What changed, what was restarted, what it cost."""
        record = self.record
        self.say()
        if not record.changed:
            self.say("Nothing would change." if check else "Nothing changed.")
        else:
            self.say("Would change:" if check else "Changed:")
            together: dict[tuple[str, ...], list[str]] = {}
            for host, tasks in record.changed.items():
                together.setdefault(tuple(dict.fromkeys(tasks)), []).append(host)
            for done, hosts in together.items():
                self.say(f"  {names(sorted(hosts))}: {'; '.join(done)}")
        for host, daemons in sorted(record.restarted.items()):
            self.say(f"Restarted in {host}: {', '.join(daemons)}")
        for zone in record.said.get("silent_balancers", []):
            self.say(f"{zone} did not answer: zones were changed without being drained there")
        times = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in record.step_seconds.items())
        self.say(
            f"Took {record.seconds():.1f} s: {times}. {record.pairs} tasks x zones ({record.skipped} more skipped)."
        )
        if not check:
            self.verification()
        for zone, found in sorted(record.said.get("hypervisors", {}).items()):
            for what in ("virt_type", "datapath"):
                self.say(f"{zone}: {what} {found[what]}: {found['why'][what]}")
        if self.cloud.privileged:
            self.say(f"Privileged zones (root there is root on the host): {', '.join(self.cloud.privileged)}")

    def verification(self) -> None:
        """What is proved now."""
        said, proof = self.record.said, Proof(self.deployment).words()
        if tempest := said.get("tempest"):
            self.say(f"verified: {tempest}")
        elif verified := said.get("verified"):
            self.say(f"verified: {verified}")
        elif left_out := said.get("left_out"):
            self.say(f"verified: every front end serves; {left_out}")
        elif proof:
            self.say(f"verified: {proof}, and nothing has changed since")
        else:
            self.say(f"not verified since the last change: scripts/verify.sh{self.option()}")

    def how_to_log_in(self) -> None:
        """Where the cloud is reached."""
        for name, url in self.cloud.endpoints.items():
            self.say(f"  {name:<14}{url}")
        self.say(f"  log in        scripts/zone-shell.sh{self.option()} utility, then: openstack user list")
        self.say(
            f"  password      {self.cloud.password.relative_to(ROOT)}, at secrets.keystone.admin_password (user admin)"
        )

    def option(self) -> str:
        """What a command must say to mean this deployment."""
        return "" if self.deployment.name == "aio" else f" --deployment {self.deployment.name}"


def limit_arguments(limit: str | None, folder: Path) -> list[str]:
    """Ansible's limit, in a file of ``folder`` where it is longer than Linux takes an argument: thousands of zones that are not there."""
    if limit and len(limit) >= LONGEST_ARGUMENT:
        (folder / "limit").write_text(limit.replace(",", "\n"))
        limit = f"@{folder}/limit"
    return ["--limit", limit] if limit else []


def plan(deployment: Deployment, cloud: Cloud, options: argparse.Namespace, steps: list[str], limit: str | None) -> int:
    """Print what the steps would do. Returns 0 when all of it could be foreseen, else 1."""
    steps = [step for step in steps if step != "verify"]  # it leaves everything as it was
    if not steps:
        raise DeploymentError("--plan: the step verify changes nothing that stays, so there is no plan of it")
    secrets, added = missing_secrets(deployment, compute(deployment.topology).stack)
    record = Foreseen(cloud, steps, Mask(deployment.secret_values()))
    with private_folder(deployment, "plan") as folder:
        arguments = ["--check", "--diff", *ansible_arguments(options, None)]
        if added:
            # As the run would have made them, or nothing that needs them could be rendered.
            (folder / "secrets.json").write_text(json.dumps({"secrets": secrets}))
            arguments += ["--extra-vars", f"@{folder}/secrets.json"]

        def attempt(these: list[str], within: str | None) -> int:
            playbooks = [ROOT / "playbooks" / f"{step}.yml" for step in these]
            console = Console(stderr=True, highlight=False)
            return Run(
                deployment,
                cloud,
                playbooks,
                [*arguments, *limit_arguments(within, folder)],
                record=record,
                console=console,
            ).execute()

        foresee(cloud, record, steps, limit, attempt)
    found = assemble(cloud, record, added)
    if options.json:
        print(json.dumps(found.data(), indent=2))
    else:
        show(Console(highlight=False, soft_wrap=True), found, len(cloud.zones))
    return 1 if found.unknown else 0


def execute(run: Run, deployment: Deployment, options: argparse.Namespace, steps: list[str], limit: str | None) -> int:
    """Run the steps, and remember for ``--resume`` how far they came. Returns the exit code."""
    state = State(steps, steps[0], limit=limit, log=str(run.log.relative_to(ROOT)))

    def on_step(step: str | None) -> None:
        state.running = step or state.running
        if not options.check:
            state.write(deployment)

    rc = run.execute(on_step)
    if not options.check:
        state.rc = rc
        state.write(deployment)
    return rc


def report(run: Run, options: argparse.Namespace, steps: list[str], rc: int) -> int:
    """Say how the run ended and what comes next. Returns the exit code."""
    if rc:
        run.report_failures(rc)
        if not options.check:
            run.say(f"  next  scripts/run-playbooks.sh{run.option()} --resume")
        return rc
    run.summary(options.check)
    if not options.check and (steps[-1] == list(STEPS)[-1] or options.no_verify and not options.step):
        run.how_to_log_in()
    elif options.check:
        run.say(f"  next  scripts/run-playbooks.sh{run.option()}")
    elif steps[-1] in STEPS:
        run.say(
            f"  next  scripts/run-playbooks.sh{run.option()} --step {list(STEPS)[list(STEPS).index(steps[-1]) + 1]}.."
        )
    return 0


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.plan and (options.check or options.diff):
        raise DeploymentError("--plan includes --check and --diff: omit them")
    if options.json and not options.plan:
        raise DeploymentError("--json needs --plan")
    if options.list_steps:
        for name, text in STEPS.items():
            print(f"{name:<15} {text}")
        return 0
    deployment = Deployment(options.deployment).require()
    steps = chosen_steps(options.step, not options.no_verify)
    changes = not (options.plan or options.check)
    with contextlib.ExitStack() as until:
        until.enter_context(locked(deployment))
        last = State.read(deployment)
        limit = None
        if options.resume:
            if last and last.rc != 0 and last.running in last.steps:
                steps, limit = last.steps[last.steps.index(last.running) :], last.limit
                print(f"Resuming with step {last.running} (log of the failed run: {last.log})", file=sys.stderr)
            else:
                print("The last run was successful: running all steps.", file=sys.stderr)
        cloud = load(deployment)
        require_secrets_of_siblings(cloud)
        limit = limit_of(options, cloud) or limit
        hold = until.enter_context(held(deployment, lock=changes, wait=options.wait, take_over=options.take_over))
        if options.plan:
            return plan(deployment, cloud, options, steps, limit)
        if changes:
            ensure_secrets(deployment)
            claim(hold, deployment)
        playbooks = [ROOT / "playbooks" / f"{step}.yml" for step in steps]
        shown = {"runner_on_file_diff"} if options.diff else set()
        if options.verbose:
            shown |= {"runner_on_ok", "runner_item_on_ok", "runner_on_failed", "runner_item_on_failed"}
        given = ["--extra-vars", f"verify_passed={Proof(deployment).path}"]
        run = Run(deployment, cloud, playbooks, [*ansible_arguments(options, limit), *given], frozenset(shown))
        rc = execute(run, deployment, options, steps, limit)
    return report(run, options, steps, rc)


if __name__ == "__main__":
    command(main)
