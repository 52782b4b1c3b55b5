#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tempest
short_description: Test a cloud with Tempest, configured from the cloud's own APIs
version_added: 0.2.0
description:
  - Asks the cloud for its services, networks, images and flavors, writes C(tempest.conf), runs the tests, and writes the
    results as subunit, JUnit XML and a page of HTML.
  - Runs with a Python that has tempest and openstacksdk, in a zone that has C(clouds.yaml) and reaches floating IPs.
  - Tests that fail are part of the result and do not fail the task, so that the reports can be fetched first.
author: the zonestack authors (@zonestack)
attributes:
  check_mode:
    support: none
    description: Tests that do not run say nothing.
  diff_mode:
    support: none
    description: Nothing of the deployment differs afterwards.
options:
  cloud:
    description: The administrator's entry in C(clouds.yaml).
    type: str
    required: true
  network:
    description: Provider network that floating addresses come from.
    type: str
    required: true
  taken:
    description: Networks that those of the tests must not overlap.
    type: list
    elements: str
    default: []
  image:
    description: Image that instances boot from.
    type: str
    required: true
  dashboard:
    description: Address of the dashboard, where there is one.
    type: str
  tests:
    description: Regular expressions of the tests to run, one a line; C(#) begins a comment.
    type: str
    required: true
  skips:
    description: Regular expressions of the tests to leave out, one a line, each with C(# reason).
    type: str
    default: ""
  options:
    description: Sections and options of C(tempest.conf) that go before what is found. An option that Tempest does not have is refused.
    type: dict
    default: {}
  concurrency:
    description: Tests that run at a time; V(0) is one for each core, four at most.
    type: int
    default: 0
  folder:
    description: Folder of configuration and results, which only root may enter.
    type: path
    default: /var/lib/tempest
  wait:
    description: Seconds that all tests together may take.
    type: int
    default: 7200
"""

EXAMPLES = r"""
- name: Run the smoke tests
  zonestack.openstack.tempest:
    cloud: aio
    network: public
    image: zonestack-test
    tests: 'smoke'
  vars:
    ansible_python_interpreter: /opt/utility/bin/python
"""

RETURN = r"""
counts:
  description: How many tests C(passed), C(skipped) and C(failed).
  type: dict
  returned: always
failures:
  description: Each test that failed, with its cause.
  type: list
  elements: str
  returned: always
reports:
  description: Paths of the reports in the zone.
  type: list
  elements: str
  returned: always
seconds:
  description: How long the tests took.
  type: float
  returned: always
release:
  description: Version of Tempest.
  type: str
  returned: always
"""

import importlib.metadata
import io
import os
import subprocess
import sys
import time
import traceback
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.zonestack.openstack.plugins.module_utils.verify import tempest_conf
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError, last_words, run
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.belongings import Belongings
from ansible_collections.zonestack.openstack.plugins.module_utils.verify.test_report import (
    Test,
    cause,
    counts,
    junit,
    page,
    from_record,
)

try:
    import openstack
    import subunit
    import testtools
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    MISSING = None
except ImportError:
    MISSING = traceback.format_exc()


TEST_LIMIT = 900
"""Seconds that a single test may take, so that one that hangs does not take the whole time."""


def cloud_of(conn: t.Any, p: t.Mapping[str, t.Any]) -> tempest_conf.Cloud:
    """Ask the cloud."""
    config = conn.config.config
    image = conn.image.find_image(p["image"])
    network = conn.network.find_network(p["network"])
    for name, found in (("image", image), ("network", network)):
        if found is None:
            raise tempest_conf.Refused(f"the cloud has no {name} named {p[name]!r}")
    flavors = sorted(conn.compute.flavors(), key=lambda flavor: (flavor.ram, flavor.disk, flavor.vcpus))
    fitting = [
        flavor.id
        for flavor in flavors
        if flavor.ram >= (image.min_ram or 0) and (flavor.disk >= (image.min_disk or 0) or not flavor.disk)
    ]
    return tempest_conf.Cloud(
        auth=config["auth"],
        region=conn.config.get_region_name(),
        ca=config.get("cacert"),
        services=frozenset(service.type for service in conn.identity.services()),
        image=image.id,
        flavors=tuple(fitting),
        network=network.id,
        network_name=network.name,
        taken=tuple(p["taken"]),
        extensions=tuple(sorted(extension.alias for extension in conn.network.extensions())),
        hypervisors=sum(1 for service in conn.compute.services(binary="nova-compute") if service.state == "up"),
        import_methods=tuple(conn.image.get_import_info().import_methods.get("value", ())),
        dashboard=p["dashboard"],
        folder=p["folder"],
        more=p["options"],
    )


def known_options() -> dict[str, dict[str, t.Callable[[str], t.Any]]]:
    """Section to the options that this Tempest knows, of itself and of the libraries that read its file, and their types."""
    import oslo_concurrency.opts
    import oslo_log._options
    import tempest.config

    groups = [*tempest.config.list_opts(), *oslo_concurrency.opts.list_opts(), *oslo_log._options.list_opts()]
    known: dict[str, dict[str, t.Callable[[str], t.Any]]] = {}
    for group, found in groups:
        section = getattr(group, "name", group) or "DEFAULT"
        known.setdefault(section, {}).update({option.dest: option.type for option in found})
    return known


def remove_leftovers(conn: t.Any, limit: float) -> list[str]:
    """Projects that a killed run left, with all they own: Tempest names them ``tempest-...``. Their names."""
    users = [user for user in conn.identity.users() if user.name.startswith("tempest-")]
    names = []
    for project in [project for project in conn.identity.projects() if project.name.startswith("tempest-")]:
        for user in users:
            if user.default_project_id == project.id or user.name.removesuffix("-project") == project.name:
                Belongings(conn, project.id, user.id, admin=True).remove(limit)
                break
        else:
            Belongings(conn, project.id, "", admin=True).remove(limit)
        conn.identity.delete_project(project)
        names.append(project.name)
    for user in users:
        conn.identity.delete_user(user)
    return names


def write_private(path: Path, text: str) -> None:
    """A file that only root reads."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def prepare(folder: Path, conf: str, tests: list[str], skips: t.Iterable[str]) -> None:
    """Tempest's working folder, fresh but for the results of earlier runs."""
    for part in (folder, folder / "locks", folder / "results"):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.chmod(0o700)
    (folder / "tempest.log").unlink(missing_ok=True)
    write_private(folder / "tempest.conf", conf)
    write_private(folder / "tests.txt", "".join(f"{line}\n" for line in tests))
    write_private(folder / "skips.txt", "".join(f"{line}\n" for line in skips))
    import tempest

    root = Path(t.cast("str", tempest.__file__)).parent
    # Tests of an API's class share what the class sets up, so they stay together. Scenarios share nothing but a project, and
    # one class has most of the work: they go to whichever worker is free.
    lines = [f"test_path={root}/test_discover", f"top_dir={root.parent}", r"group_regex=tempest\.api\.([^\.]*\.)*"]
    write_private(folder / ".stestr.conf", "[DEFAULT]\n" + "".join(f"{line}\n" for line in lines))


def run_tests(folder: Path, concurrency: int, limit: float) -> bytes:
    """Run what is prepared; the stream of results."""
    bin_folder = Path(sys.executable).parent
    environment = {
        "TEMPEST_CONFIG_DIR": str(folder),
        "TEMPEST_CONFIG": "tempest.conf",
        "PYTHON": sys.executable,
        "HOME": str(folder),
    }
    environment["OS_TEST_TIMEOUT"] = str(TEST_LIMIT)
    environment["PATH"] = f"{bin_folder}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
    os.chdir(folder)
    if not (folder / ".stestr").exists():
        run([str(bin_folder / "stestr"), "init"], env=environment)
    lists = ["--include-list", "tests.txt", "--exclude-list", "skips.txt"]
    done = run(
        [str(bin_folder / "stestr"), "run", *lists, f"--concurrency={concurrency}"],
        env=environment,
        timeout=limit,
        check=False,
    )
    if done.rc not in (0, 1):
        raise CommandError(["stestr", "run"], done.rc, done.err or done.out)
    last = [str(bin_folder / "stestr"), "last", "--subunit"]
    stream = subprocess.run(
        last, env={**os.environ, **environment}, capture_output=True, timeout=300, check=False
    ).stdout
    if not stream:
        raise CommandError(["stestr", "run"], done.rc, f"no results: {done.out[-2000:]}{done.err[-2000:]}")
    return stream


def read_stream(stream: bytes) -> list[Test]:
    """The tests in a stream of subunit."""
    found: list[Test] = []

    def take(record: t.Mapping[str, t.Any]) -> None:
        test = from_record(record)
        if test is not None:
            found.append(test)

    gather = testtools.StreamToDict(take)
    gather.startTestRun()
    subunit.ByteStreamToStreamResult(io.BytesIO(stream), non_subunit_name="output").run(gather)
    gather.stopTestRun()
    return [test for test in found if test.name != "output"]


def wanted_options(conn: t.Any, params: t.Mapping[str, t.Any], release: str) -> tempest_conf.Options:
    """What tempest.conf is to hold.

    :raises Refused: when the installed Tempest, of that release, does not know an option.
    """
    wanted = tempest_conf.options(cloud_of(conn, params))
    strange = tempest_conf.problems(wanted, known_options())
    if strange:
        where = "https://docs.openstack.org/tempest/latest/sampleconf.html"
        raise tempest_conf.Refused(f"tempest.conf of Tempest {release}: {'; '.join(strange)}: see {where}")
    return wanted


def tests_of(text: str) -> list[str]:
    """The tests that a list names: one a line, without what follows a ``#``."""
    tests = [line.partition(" #")[0].strip() for line in text.splitlines()]
    return [line for line in tests if line and not line.startswith("#")]


def write(folder: Path, reports: t.Mapping[str, bytes]) -> list[str]:
    """Write the reports, by the names of their files; their paths."""
    for name, content in reports.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in reports]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cloud": {"type": "str", "required": True},
            "network": {"type": "str", "required": True},
            "taken": {"type": "list", "elements": "str", "default": []},
            "image": {"type": "str", "required": True},
            "dashboard": {"type": "str"},
            "tests": {"type": "str", "required": True},
            "skips": {"type": "str", "default": ""},
            "options": {"type": "dict", "default": {}},
            "concurrency": {"type": "int", "default": 0},
            "folder": {"type": "path", "default": "/var/lib/tempest"},
            "wait": {"type": "int", "default": 7200},
        },
    )
    if MISSING:
        module.fail_json(msg=missing_required_lib("tempest, openstacksdk"), exception=MISSING)
    p = module.params
    folder = Path(p["folder"])
    os.umask(0o077)
    release = importlib.metadata.version("tempest")
    try:
        left_out = tempest_conf.skips(p["skips"], "skips.txt")
        tests = tests_of(p["tests"])
        conn = openstack.connect(cloud=p["cloud"])
        wanted = wanted_options(conn, p, release)
        remove_leftovers(conn, 120)
        prepare(folder, tempest_conf.text(wanted), tests, left_out)
        concurrency = p["concurrency"] or min(4, len(os.sched_getaffinity(0)))
        started = time.time()
        stream = run_tests(folder, concurrency, p["wait"])
        seconds = time.time() - started
        results = read_stream(stream)
    except (tempest_conf.Refused, SDKException, ClientException) as why:
        module.fail_json(msg=str(why))
    except CommandError as why:
        module.fail_json(msg=last_words(why, 30))
    about = {
        "cloud": f"{p['cloud']}, {wanted['identity']['uri_v3']}",
        "tempest": release,
        "when": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(started)),
        "took": f"{seconds:.0f} s, {concurrency} at a time",
        "tests": ", ".join(tests),
    }
    reports = {
        "tempest.subunit": stream,
        "junit.xml": junit(results, "tempest").encode(),
        "report.html": page(results, f"Tempest {release}: {p['cloud']}", about, left_out).encode(),
    }
    written = write(folder / "results", reports)
    # Not changed: Tempest removes the projects that it makes, and the next run those of a run that was killed.
    module.exit_json(
        changed=False,
        counts=counts(results),
        failures=[f"{test.name.partition('[')[0]}: {cause(test)}" for test in results if test.outcome == "failed"],
        reports=written,
        seconds=round(seconds, 1),
        release=release,
    )


if __name__ == "__main__":
    main()
