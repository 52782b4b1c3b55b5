# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One fresh host and one deployment for each Debian, shared by the scenarios in the order in which they are written.

The order is part of the suite: the cloud is made by the first scenario, looked at by those that change nothing, and then
broken by the others. One that fails is followed by a converging run, so that the next one starts from a whole cloud.
"""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from debian_root import SUITES  # noqa: E402
from deployed import Deployed, Run  # noqa: E402
from host import CHECKOUT, Host  # noqa: E402
from long_scenarios import LONG, file_name  # noqa: E402

OUTPUT = Path(__file__).resolve().parents[1] / "output"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", action="append", choices=SUITES, help="only on this Debian; repeatable")
    parser.addoption(
        "--long",
        nargs="?",
        const="",
        metavar="NAME,...",
        help="also all long scenarios, hours; or only those named, with what they stand on (tests/scenario/long_scenarios.py)",
    )
    parser.addoption("--reuse-hosts", action="store_true", help="go on with host containers that --keep-hosts left")
    parser.addoption(
        "--keep-hosts",
        action="store_true",
        help="leave the host containers for a look (tests/host/host.py) or for --reuse-hosts",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "long(name): too long for every run, wants --long; without a name, that of its file"
    )
    config.addinivalue_line("markers", "deploys: what long scenarios of the same file stand on")
    config.addinivalue_line("markers", "every_suite: on each Debian; other scenarios run on the first one only")
    unknown = set(_wanted(config) or ()) - LONG.keys()
    if unknown:
        raise pytest.UsageError(f"--long: unknown {', '.join(sorted(unknown))} (known: {', '.join(LONG)})")


def _wanted(config: pytest.Config) -> list[str] | None:
    """The names that --long gives; empty when it gives none and so means all; None without it."""
    given: str | None = config.getoption("--long", None)
    return None if given is None else [name for name in given.split(",") if name]


def _name(item: pytest.Item) -> str:
    """The name under which a long scenario is selected; empty for one that is part of every run."""
    mark = item.get_closest_marker("long")
    return (mark.args[0] if mark.args else file_name(item.path)) if mark else ""


def _is_left_out(item: pytest.Item, wanted: list[str] | None, files: set[Path]) -> bool:
    """Whether a scenario is none of those to run; ``files`` are those with a wanted one."""
    name = _name(item)
    if not wanted:
        return wanted is None and bool(name)
    stands_under = item.path in files and item.get_closest_marker("deploys") is not None
    return name not in wanted and not stands_under


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "suite" in metafunc.fixturenames:
        given = metafunc.config.getoption("--suite", None)
        suites = given or list(SUITES)
        if not metafunc.definition.get_closest_marker("every_suite"):
            suites = suites[:1]
        # One worker for all: a host's scenarios share it, and two deployments at once would only wait for one another.
        here = pytest.mark.xdist_group("scenario")
        further = [] if given else [pytest.mark.long("bookworm")]
        marked = [pytest.param(suite, marks=[here, *(further if suite != suites[0] else [])]) for suite in suites]
        metafunc.parametrize("suite", marked, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the order in which scenarios are written, one suite after the other; leave out what takes too long.

    pytest would put the first cases of all scenarios before their second ones, because a fixture of the session has cases.
    """
    here = [item for item in items if isinstance(item, pytest.Function) and "suite" in item.fixturenames]
    written = iter(sorted(here, key=lambda item: (SUITES.index(str(item.callspec.params["suite"])), item.location[:2])))
    items[:] = [next(written) if item in here else item for item in items]
    wanted = _wanted(config)
    scenarios = [item for item in items if "scenario" in item.path.parts]
    files = {item.path for item in scenarios if wanted and _name(item) in wanted}
    left_out = {item for item in scenarios if _is_left_out(item, wanted, files)}
    if left_out:
        config.hook.pytest_deselected(items=sorted(left_out, key=items.index))
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> t.Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and isinstance(item, pytest.Function) and "suite" in item.fixturenames:
        suite = str(item.callspec.params["suite"])
        item.session.stash.setdefault(_BROKEN, set()).add(suite)
        item.session.stash.setdefault(_FAILED, set()).add(suite)


_BROKEN = pytest.StashKey[set[str]]()
"""Suites whose last scenario failed: their clouds need a converging run first."""
_FAILED = pytest.StashKey[set[str]]()
"""Suites of which any scenario failed: their logs are kept."""


def keep_logs(host: Host) -> None:
    """Save what tells why something failed on a host, unless it was switched off: then that has been done."""
    if host.state != "RUNNING":
        return
    kept = OUTPUT / host.name
    host.exec("journalctl --no-pager > /var/log/journal.txt; lxc-ls -f > /var/log/zones.txt", check=False)
    host.exec(
        "for z in $(lxc-ls -1 --running); do lxc-attach -n $z -- journalctl --no-pager > /var/log/journal-$z.txt; done",
        check=False,
        timeout=120,
    )
    host.fetch(f"{CHECKOUT}/logs {CHECKOUT}/.cache/apt.log /var/log/*.txt", kept)
    print(f"\nlogs of {host.name}: {kept}")


@pytest.fixture(scope="module")
def room(request: pytest.FixtureRequest) -> None:
    """Memory for a deployment of several hosts: the all-in-ones of the scenarios before are switched off. Their images stay."""
    for suite in SUITES:
        if suite in request.session.stash.get(_FAILED, set()):
            keep_logs(Host(f"scenario-{suite}"))
        Host(f"scenario-{suite}").stop()


@pytest.fixture(scope="session")
def fresh(suite: str, request: pytest.FixtureRequest) -> t.Iterator[tuple[Deployed, Run]]:
    """A fresh host, and the first run of the one command on it, whatever came of it."""
    host = Host(f"scenario-{suite}")
    if not request.config.getoption("--reuse-hosts") or host.state != "RUNNING":
        host.create(suite)
    host.copy_project(worktree=True)
    cloud = Deployed(host)
    with cloud.argv:
        run = cloud.run()
    yield cloud, run
    if suite in request.session.stash.get(_FAILED, set()):
        keep_logs(host)
    if not request.config.getoption("--keep-hosts"):
        host.destroy()


@pytest.fixture
def cloud(fresh: tuple[Deployed, Run], suite: str, request: pytest.FixtureRequest) -> Deployed:
    """The deployed cloud, whole: made so again when the scenario before has failed."""
    deployed, run = fresh
    assert run.rc == 0, "the first run failed, see test_fresh_machine"
    broken = request.session.stash.get(_BROKEN, set())
    if suite in broken:
        deployed.override(None)
        deployed.converge("--no-verify")
        broken.discard(suite)
    return deployed
