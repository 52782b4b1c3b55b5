# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps, masks, locks and interrupts of a run; Ansible itself is run for real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import runner
from deployment import ROOT, Deployment, DeploymentError
from options import STEPS
from progress import Record
from run import Proof, chosen_steps, limit_arguments, main

PLAY = "- hosts: all\n  gather_facts: false\n  tasks:\n"


class Small(Deployment):
    """A deployment whose inventory is a plain list, so that no service needs to be declared."""

    @property
    def topology(self) -> Path:
        return self.folder / "hosts.ini"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    deployment = Small("small", tmp_path)
    deployment.folder.mkdir(parents=True)
    deployment.topology.write_text(
        "".join(f"zone{n} ansible_connection=local ansible_python_interpreter={sys.executable}\n" for n in (1, 2))
    )
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    monkeypatch.setenv("ANSIBLE_CONFIG", str(tmp_path / "ansible.cfg"))
    monkeypatch.delenv("ANSIBLE_INVENTORY_ENABLED", raising=False)
    monkeypatch.setenv("ANSIBLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return deployment


def play(deployment: Small, name: str, tasks: str) -> Path:
    path = deployment.root / f"{name}.yml"
    path.write_text(PLAY + tasks)
    return path


def run(deployment: Small, *playbooks: Path, mask: runner.Mask | None = None) -> tuple[int, Record, str]:
    record, output = Record(), []

    def take(event: dict[str, Any]) -> None:
        record.add(event)
        output.append(event["stdout"])

    rc = runner.run_playbooks(deployment, [], list(playbooks), take, mask or runner.Mask([]))
    record.close_step()
    return rc, record, "\n".join(output)


# Steps -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        ([], list(STEPS)),
        (["zones"], ["zones"]),
        (["verify", "hosts"], ["hosts", "verify"]),
        (["zones..services"], ["zones", "infrastructure", "services"]),
        (["services.."], ["services", "contents", "verify"]),
        (["..images"], ["hosts", "images"]),
    ],
)
def test_steps_come_in_their_order(wanted: list[str], steps: list[str]) -> None:
    assert chosen_steps(wanted) == steps


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("zone", "there is no step 'zone' (steps: hosts, "), ("verify..hosts", "'verify' comes after 'hosts'")],
)
def test_wrong_step_is_refused(wanted: str, message: str) -> None:
    with pytest.raises(DeploymentError, match=re.escape(message)):
        chosen_steps([wanted])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--plan", "--check"], "--plan includes --check and --diff"), (["--json"], "--json needs --plan")],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(DeploymentError, match=message):
        main(arguments)


def test_every_step_has_a_playbook() -> None:
    assert [step for step in STEPS if not (ROOT / "playbooks" / f"{step}.yml").exists()] == []


# Secrets -----------------------------------------------------------------------------------------------------------------


def test_mask_hides_every_form_of_a_secret() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg/kq+hkiG9w0B==\n-----END KEY-----\n"
    mask = runner.Mask(['pa"ss/wo rd', "longsecret1", "longsecret12", key, "short"])
    shown = mask(
        'a "pa\\"ss/wo rd" b pa%22ss%2Fwo%20rd c longsecret12 d ' + key + ' e "MIIEvQIBADANBg/kq+hkiG9w0B==\\n" f short'
    )
    assert "ss/wo" not in shown and "ss%2Fwo" not in shown and "MIIE" not in shown and "longsecret" not in shown
    assert "********2" not in shown, "the longer secret is not half masked by the shorter"
    assert shown.endswith("f short")


def test_secret_in_a_result_reaches_no_event(small: Small) -> None:
    secret = "Xk29-very-secret-value"
    playbook = play(
        small,
        "hosts",
        f"    - ansible.builtin.command: echo {secret}\n    - ansible.builtin.debug: {{msg: '{secret}'}}\n",
    )
    rc, _record, output = run(small, playbook, mask=runner.Mask([secret]))
    assert rc == 0
    assert "********" in output and secret not in output
    assert list(Path("/dev/shm").glob(f"{runner.private_prefix(small)}*")) == []


# Results -----------------------------------------------------------------------------------------------------------------


def test_record_counts_steps_changes_and_pairs(small: Small) -> None:
    first = play(small, "hosts", "    - name: Say it\n      ansible.builtin.debug: {msg: hello}\n")
    second = play(
        small,
        "zones",
        "    - name: Do it\n      ansible.builtin.command: 'true'\n"
        "    - name: Leave it\n      ansible.builtin.command: 'true'\n      when: false\n",
    )
    rc, record, _output = run(small, first, second)
    assert rc == 0
    assert list(record.step_seconds) == ["hosts", "zones"] and all(record.step_seconds.values())
    assert dict(record.changed) == {"zone1": ["Do it"], "zone2": ["Do it"]}
    assert (record.pairs, record.skipped) == (4, 2)


def event_of_zones(kind: str, zones: dict[str, Any]) -> dict[str, Any]:
    """The end of a call that made many zones, as Ansible has it: a result of the zone that stands for them."""
    data = {"host": "zone1", "task": "Ensure the zone", "task_uuid": "1", "task_action": "zonestack.openstack.zones"}
    return {
        "event": kind,
        "event_data": {**data, "res": {"changed": True, "zones": zones, "msg": "1 of 3 zones failed"}},
    }


def test_one_call_for_many_zones_counts_for_each() -> None:
    record, start = Record(), {"name": "Ensure the zone", "task_uuid": "1"}
    record.add({"event": "playbook_on_start", "event_data": {"playbook": "zones.yml"}})
    record.add({"event": "playbook_on_task_start", "event_data": start})
    record.add(
        event_of_zones("runner_on_ok", {"zone1": {"changed": False}, "zone2": {"changed": True, "restarted": True}})
    )
    assert dict(record.changed) == {"zone2": ["Ensure the zone"]}
    assert (record.pairs, record.failures, dict(record.restarted)) == (2, [], {})
    assert record.tasks[0].counts() == "1 ok, 1 changed"


def test_of_many_zones_those_that_failed_are_named() -> None:
    record = Record()
    zones = {
        "zone1": {"changed": False},
        "zone2": {"changed": True},
        "zone3": {"failed": True, "msg": "zone 'zone3': no"},
    }
    record.add(event_of_zones("runner_on_failed", zones))
    assert [(failure.host, failure.message) for failure in record.failures] == [("zone3", "zone 'zone3': no")]
    assert dict(record.changed) == {"zone2": ["Ensure the zone"]}


def test_failure_ends_the_run_with_ansibles_code(small: Small) -> None:
    broken = play(
        small, "zones", "    - name: Break it\n      ansible.builtin.command: 'sh -c \"echo why >&2; exit 3\"'\n"
    )
    after = play(small, "services", "    - ansible.builtin.debug: {msg: not reached}\n")
    rc, record, _output = run(small, broken, after)
    assert rc == 2
    assert record.step == "zones"
    assert sorted((failure.host, failure.task, failure.step) for failure in record.failures) == [
        ("zone1", "Break it", "zones"),
        ("zone2", "Break it", "zones"),
    ]
    assert "why" in record.failures[0].message


def test_failure_in_one_zone_ends_the_run_with_its_step(small: Small) -> None:
    broken = play(small, "zones", "    - ansible.builtin.command: 'false'\n      when: inventory_hostname == 'zone1'\n")
    after = play(small, "services", "    - ansible.builtin.debug: {msg: not reached}\n")
    rc, record, _output = run(small, broken, after)
    assert (rc, record.step) == (2, "zones")


def test_ignored_failure_is_none(small: Small) -> None:
    playbook = play(small, "zones", "    - ansible.builtin.command: 'false'\n      ignore_errors: true\n")
    rc, record, _output = run(small, playbook)
    assert (rc, record.failures) == (0, [])


# Ends --------------------------------------------------------------------------------------------------------------------


def running(marker: str) -> list[str]:
    """Command lines of processes that name ``marker``."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if marker in line]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_ends_ansible_and_all_below_it(small: Small, number: signal.Signals, code: int) -> None:
    marker = f"61{os.getpid()}{number}"  # seconds that nobody else sleeps
    playbook = play(small, "zones", f"    - ansible.builtin.command: sleep {marker}\n")

    ended = threading.Event()
    late: list[str] = []

    def interrupt() -> None:
        limit = time.monotonic() + 300
        while not running(f"sleep {marker}"):
            if ended.wait(0.1) or time.monotonic() > limit:
                late.append("the task has not been running within 300 s")
                break
        os.kill(os.getpid(), number)

    before = signal.signal(number, lambda *_: None)  # one that comes after the run must not end pytest
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        rc, _record, _output = run(small, playbook)
    finally:
        ended.set()
        thread.join()
        signal.signal(number, before)
    assert late == []
    assert rc == code
    assert running(f"sleep {marker}") == []


def test_two_runs_do_not_collide(small: Small) -> None:
    message = rf"another run of deployment 'small' is running \(process {os.getpid()} since"
    with runner.locked(small), pytest.raises(DeploymentError, match=message), runner.locked(small):
        pytest.fail("the lock was taken twice")
    with runner.locked(small):
        pass


def test_lock_of_a_killed_run_is_free(small: Small) -> None:
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); import runner; from pathlib import Path\n"
        "from deployment import Deployment\n"
        "with runner.locked(Deployment('small', Path(sys.argv[2]))): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "scripts/lib"), str(small.root)], check=False)
    assert done.returncode == -signal.SIGKILL
    with runner.locked(small):
        pass


# Proof of a verification ---------------------------------------------------------------------------------------------------


def proof_after(deployment: Small, **record_says: Any) -> str:
    """What is proved after a run whose record says this."""
    proof, record = Proof(deployment), Record()
    deployment.logs.mkdir(parents=True, exist_ok=True)
    proof.take()
    assert proof.words() == "", "while a run goes on nothing is proved"
    for name, value in record_says.items():
        setattr(record, name, value)
    proof.give(record)
    return proof.words()


def test_verification_holds_until_something_changes(small: Small) -> None:
    assert proof_after(small) == ""
    assert proof_after(small, changed={"zone1": ["Do it"]}, said={"verified": "reached in 9 s"}).startswith(
        "reached in 9 s (20"
    )
    assert proof_after(small).startswith("reached in 9 s (20")
    assert proof_after(small, changed={"zone1": ["Do it"]}) == ""
    assert proof_after(small) == ""


def test_failed_run_proves_nothing(small: Small) -> None:
    proof_after(small, said={"verified": "reached"})
    assert proof_after(small, failures=["one"]) == ""


def test_what_plays_say_reaches_the_record(small: Small) -> None:
    playbook = play(
        small, "verify", "    - ansible.builtin.set_stats: {aggregate: false, data: {verified: reached in 9 s}}\n"
    )
    rc, record, _output = run(small, playbook)
    assert (rc, record.said) == (0, {"verified": "reached in 9 s"})


def test_what_hypervisors_found_is_put_together(small: Small) -> None:
    tasks = "    - ansible.builtin.set_stats: {data: {hypervisors: \"{{ {inventory_hostname: {'virt_type': 'qemu'}} }}\"}}\n"
    rc, record, _output = run(
        small, play(small, "services", tasks), play(small, "verify", tasks.replace("}} }", "}, 'z9': {}} }"))
    )
    assert rc == 0 and record.said["hypervisors"].pop("z9") == {}
    assert record.said["hypervisors"] and all(
        one == {"virt_type": "qemu"} for one in record.said["hypervisors"].values()
    )


def test_steps_without_verification() -> None:
    assert chosen_steps([], verify=False) == [step for step in STEPS if step != "verify"]
    assert chosen_steps(["verify"], verify=False) == ["verify"]


def test_a_limit_of_thousands_of_zones_reaches_ansible(tmp_path: Path) -> None:
    """As one argument Linux takes no more than 128 KiB; from a file, Ansible makes the same choice of it."""
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader

    names = [f"a-host-with-a-long-name-{number}-memcached-1" for number in range(4000)]
    limit = ",".join(["all", *(f"!{name}" for name in names[1:])])
    option, given = limit_arguments(limit, tmp_path)
    assert subprocess.run(["true", option, given], check=True).returncode == 0
    inventory = InventoryManager(DataLoader(), [",".join([names[0], names[-1], "other"])])
    inventory.subset(given)
    assert [host.name for host in inventory.get_hosts()] == [names[0], "other"]
    assert limit_arguments("all,!a", tmp_path) == ["--limit", "all,!a"]
    assert limit_arguments(None, tmp_path) == []
