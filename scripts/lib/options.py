# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator's commands take. Standard library only, so that --help is answered before anything is installed.

``python3 scripts/lib/options.py COMMAND`` prints the help of scripts/COMMAND.sh.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model import STATES

STEPS = {
    "hosts": "packages, kernel settings, bridges and NAT on the physical hosts",
    "images": "the base image and one image for each service, built once",
    "zones": "every zone runs with its image, addresses and limits",
    "infrastructure": "files and daemons in the zones; database, queue and load balancer",
    "services": "OpenStack: schemas, daemons, catalog, users",
    "contents": "the cloud's images, flavors, provider networks and quotas",
    "verify": "every front end serves; after a change, an instance is booted, reached, copied and removed",
}
"""The steps in their order, each the playbook of its name, and what it makes so."""


def command(
    name: str, description: str, epilog: str, usage: str | None = None, one: bool = True
) -> argparse.ArgumentParser:
    """The beginning of every command: its name, its words, and, where it is about one, which deployment."""
    made = argparse.ArgumentParser(
        prog=f"scripts/{name}.sh",
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if one:
        made.add_argument("--deployment", default="aio", metavar="NAME", help="folder in inventory/ (default: aio)")
    return made


def shared(made: argparse.ArgumentParser) -> None:
    """The options of every command that changes a deployment."""
    made.add_argument(
        "--wait",
        type=float,
        default=600,
        metavar="SECONDS",
        help="how long to wait for another run of this deployment, from whichever machine (default: 600)",
    )
    made.add_argument(
        "--take-over",
        action="store_true",
        help="go on although the zones were made with other secrets than those of this checkout",
    )


def parser() -> argparse.ArgumentParser:
    """scripts/run-playbooks.sh"""
    made = command(
        "run-playbooks",
        "Deploy, or converge, a deployment. On a fresh machine, prepare the all-in-one host first.",
        f"""\
steps:
{listed(STEPS, 15)}

examples:
  scripts/run-playbooks.sh                      everything
  scripts/run-playbooks.sh --plan               what would it do? Also before the first run
  scripts/run-playbooks.sh --service keystone   only the zones of one service
  scripts/run-playbooks.sh --step zones..       from one step on

exit code: 0 when all is well, Ansible's (1, 2, 4) when not, 130 when interrupted; with --plan 1 when something could not be foreseen
""",
    )
    made.add_argument(
        "--step", action="append", default=[], metavar="STEP", help="only this step, or FROM..TO; repeatable"
    )
    made.add_argument(
        "--service", action="append", default=[], metavar="NAME", help="only the zones of this service; repeatable"
    )
    made.add_argument("--limit", metavar="PATTERN", help="only these hosts and zones (an Ansible pattern)")
    made.add_argument("--check", action="store_true", help="report what would change, change nothing")
    made.add_argument("--diff", action="store_true", help="show differences of files, without secrets")
    made.add_argument(
        "--plan",
        action="store_true",
        help="report for each host and zone what would be created, rebuilt, changed and restarted; change nothing",
    )
    made.add_argument("--json", action="store_true", help="with --plan: print it as JSON")
    made.add_argument("--no-verify", action="store_true", help="omit the step verify; scripts/verify.sh does it later")
    made.add_argument("--resume", action="store_true", help="begin with the step in which the last run failed")
    made.add_argument(
        "--verbose", "-v", action="count", default=0, help="show Ansible's results; -vv and more as for Ansible"
    )
    made.add_argument(
        "--extra-vars", "-e", action="append", default=[], metavar="VARS", help="passed to ansible-playbook"
    )
    made.add_argument("--list-steps", action="store_true", help="list the steps and exit")
    shared(made)
    return made


def destroy() -> argparse.ArgumentParser:
    """scripts/destroy.sh"""
    made = command(
        "destroy",
        "Remove zones, services or a whole deployment. Data volumes stay unless --purge is given; the next run creates the zones again.",
        """\
examples:
  scripts/destroy.sh aio1-keystone-1      one zone
  scripts/destroy.sh keystone             all zones of a service
  scripts/destroy.sh --all                every zone of the deployment, and its bridges
  scripts/destroy.sh --all --purge        everything: the hosts are left as they were found, but for packages
With --all, images and the hosts' settings stay for the next run; --purge removes them with the data, --keep-images leaves them.
inventory/<deployment>/ with the secrets always stays.
""",
    )
    made.add_argument("names", nargs="*", metavar="ZONE|SERVICE", help="what to remove")
    made.add_argument("--all", action="store_true", help="the whole deployment")
    made.add_argument("--purge", action="store_true", help="remove data volumes as well; asks for confirmation")
    made.add_argument(
        "--keep-images",
        action="store_true",
        help="with --all --purge: leave images and the hosts' settings for the next run",
    )
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument("--check", action="store_true", help="report what would be removed, remove nothing")
    shared(made)
    return made


def remove_host() -> argparse.ArgumentParser:
    """scripts/remove-host.sh"""
    made = command(
        "remove-host",
        "Retire a host: remove its zones with their data, and their records on all other hosts. The other hosts go on serving.",
        """\
First say so in topology.yml: `leaving: true` in the host's line. scripts/run-playbooks.sh --plan shows what that means for the others. Then
this sees that no instance is on the host, stops its zones in order, has the others go on without them (the steps of scripts/run-playbooks.sh),
and removes records, members and data. Afterwards delete the host's line. Broken anywhere, it is simply run again.

examples:
  scripts/remove-host.sh --deployment prod cmp3
  scripts/remove-host.sh --deployment prod cmp3 --dead    it is lost: nothing is done on it
A host that is replaced by a machine of the same name and id is not removed, see docs/how-to/operating.md.
exit code: 0 when nothing of it is left, Ansible's (1, 2, 4) when not, 130 when interrupted
""",
    )
    made.add_argument("host", metavar="HOST", help="its name in topology.yml")
    made.add_argument("--dead", action="store_true", help="the host is lost: it does not answer and never will")
    made.add_argument(
        "--lose",
        action="append",
        default=[],
        metavar="COMPONENT",
        help="accept the loss of this component's data that exists on no other host, such as glance; repeatable",
    )
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument(
        "--check",
        action="store_true",
        help="verify that the host can be removed, report what would be done, change nothing",
    )
    shared(made)
    made.add_argument("--no-verify", action="store_true", help="omit the step verify; scripts/verify.sh does it later")
    return made


def zone_shell() -> argparse.ArgumentParser:
    """scripts/zone-shell.sh"""
    made = command(
        "zone-shell",
        "Open a shell in a zone, or run a command there, by the name of its service.",
        """\
examples:
  scripts/zone-shell.sh utility                               a shell in the utility zone
  scripts/zone-shell.sh galera 2                              in the second Galera zone
  scripts/zone-shell.sh aio1-keystone-1 -- journalctl -n 20   a command in one zone
The exit code is the command's.
""",
        "%(prog)s [-h] [--deployment NAME] ZONE|SERVICE [NUMBER] [-- COMMAND ...]",
    )
    made.add_argument("name", metavar="ZONE|SERVICE", nargs="?", default="", help="a zone, a service or a component")
    made.add_argument(
        "number",
        metavar="NUMBER",
        nargs="?",
        type=int,
        default=1,
        help="number of the zone in the service (default: 1)",
    )
    return made


def verify() -> argparse.ArgumentParser:
    """scripts/verify.sh"""
    made = command(
        "verify",
        "Verify that a deployment serves: the life cycle of an instance as an ordinary user, or Tempest. Removes everything it creates.",
        """\
Without --tempest: every front end has its servers; then a user of its own makes network, router, security group, key, instance
and floating IP, the instance is reached by ping and SSH from the host, its metadata, user-data, console log and screen are seen,
it is stopped, copied and started, its copy is booted; all of it is deleted, and it is seen that nothing is left.

With --tempest: the tests that OpenStack itself is accepted by, from the utility zone. Results lie in logs/<deployment>/tempest/:
report.html to read, junit.xml for a CI system, tempest.subunit with all details. What is skipped and why is in
playbooks/files/tempest/skips.txt. docs/how-to/verification.md says more.

examples:
  scripts/verify.sh
  scripts/verify.sh --tempest                                smoke tests and the scenarios
  scripts/verify.sh --tempest --tests 'tempest.scenario.test_network_basic_ops'
exit code: 0 when everything passed, Ansible's (1, 2, 4) when not, 130 when interrupted
""",
    )
    made.add_argument("--tempest", action="store_true", help="run Tempest instead")
    made.add_argument(
        "--tests", action="append", default=[], metavar="REGEX", help="with --tempest: only these tests; repeatable"
    )
    made.add_argument(
        "--concurrency",
        type=int,
        default=0,
        metavar="N",
        help="with --tempest: number of tests at a time (default: number of processors)",
    )
    made.add_argument("--verbose", "-v", action="count", default=0, help="show Ansible's results")
    return made


def topology() -> argparse.ArgumentParser:
    """scripts/topology.sh"""
    made = command(
        "topology",
        "Draw a deployment from its topology.yml: hosts, zones by service, networks, addresses and the way in.",
        f"""\
examples:
  scripts/topology.sh                                   logs/aio/topology.svg and .html, from the topology alone
  scripts/topology.sh --live                            with the state of every zone, as its host and HAProxy report it
  scripts/topology.sh --deployment examples/production  the picture of the production example
  scripts/topology.sh --output /var/www/html            the two files somewhere else

Without --live nothing is asked of any host, nothing needs to be deployed, and the same topology gives the same bytes.
The page holds the picture and a table of all zones to search and sort; neither loads anything from anywhere.

states:
{listed(STATES, 9)}
""",
    )
    made.add_argument(
        "--live", action="store_true", help="ask the hosts for the state of each zone, and show it in colour"
    )
    made.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for topology.svg and topology.html (default: logs/NAME)"
    )
    return made


def parity() -> argparse.ArgumentParser:
    """scripts/parity.sh"""
    made = command(
        "parity",
        "Compare two deployments: what they deploy, and every file that a run would write. Contacts no host and reads no secrets.",
        """\
Each difference is of one class: identity (names, addresses, secrets), scale (counts, workers, sizes), or drift: what no rule
of scripts/lib/parity.yml explains. docs/how-to/parity.md says how that is found out.

examples:
  scripts/parity.sh aio production                  logs/aio/parity.html, and a table of what matters
  scripts/parity.sh examples/aio examples/production --all
  scripts/parity.sh aio east --rules east-rules.yml    with rules for what the site wants otherwise
  scripts/parity.sh aio production --json | jq '.[] | select(.kind == "drift")'
exit code: 0 without drift, 1 with drift, 2 when they cannot be compared
""",
        one=False,
    )
    made.add_argument("mine", metavar="DEPLOYMENT", help="folder in inventory/ or inventory/examples/")
    made.add_argument("theirs", metavar="OTHER", help="the same; its machines, names and sizes are used for both")
    made.add_argument(
        "--all", action="store_true", help="print every difference on a line of its own, with both values"
    )
    made.add_argument("--json", action="store_true", help="print all differences as JSON, and write no page")
    made.add_argument(
        "--rules",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="file with further rules, which have priority; repeatable",
    )
    made.add_argument("--output", type=Path, metavar="DIR", help="folder for parity.html (default: logs/DEPLOYMENT)")
    return made


def drift() -> argparse.ArgumentParser:
    """scripts/drift.sh"""
    made = command(
        "drift",
        "List files in zones that were added, changed or removed by hand: neither the image nor a run wrote them.",
        """\
Each file with the one it belongs to: a package of the image, a run (rendered, then changed by hand), or nobody. What zones write
by themselves is left out: logs, caches, state; plugins/module_utils/zone/drift.py lists it, each with its reason.

examples:
  scripts/drift.sh                       all zones of inventory/aio
  scripts/drift.sh keystone              the zones of one service
  scripts/drift.sh aio1-galera-2 --json
exit code: 0 when nothing is found, 1 when something is, 2 when a zone could not be looked at
""",
    )
    made.add_argument("names", nargs="*", metavar="ZONE|SERVICE", help="zones to check (default: all)")
    made.add_argument("--json", action="store_true", help="print the findings as JSON")
    return made


def preflight() -> argparse.ArgumentParser:
    """scripts/preflight.sh"""
    made = command(
        "preflight",
        "Check all hosts of a deployment against topology.yml, without a change. One line for each problem, with its fix.",
        """\
Changes nothing on any host and leaves nothing there; needs no earlier run. Looked at: SSH and sudo; system, versions, architecture; kernel
features; processors, memory and disk against what is placed there; clocks, names and identities; the networks: interfaces, MTU, who
reaches whom, addresses and ports that somebody else has. docs/how-to/preflight.md lists every check with its limit.

examples:
  scripts/preflight.sh                     the hosts of inventory/aio
  scripts/preflight.sh production          those of inventory/production
  scripts/preflight.sh production --json | jq '.findings[] | select(.kind == "problem")'
exit code: 0 without problems, warnings or not; 1 with problems; 2 when topology.yml is refused
""",
        one=False,
    )
    made.add_argument(
        "deployment", nargs="?", default="aio", metavar="DEPLOYMENT", help="folder in inventory/ (default: aio)"
    )
    made.add_argument("--json", action="store_true", help="print the findings as JSON")
    return made


def listed(words: dict[str, str], wide: int) -> str:
    return "\n".join(f"  {name:<{wide}} {text}" for name, text in words.items())


COMMANDS = {
    "run-playbooks": parser,
    "destroy": destroy,
    "remove-host": remove_host,
    "zone-shell": zone_shell,
    "verify": verify,
    "topology": topology,
    "parity": parity,
    "drift": drift,
    "preflight": preflight,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]]().print_help()
