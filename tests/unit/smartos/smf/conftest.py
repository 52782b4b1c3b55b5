# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated zone of one's own: the real svc.startd below a temporary root, and the real tools and modules against it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[4]
BIN = ROOT / "tests/smartos_sim/bin"
sys.path.insert(0, str(BIN.parent))

from smartos_sim.smf.fmri import Fmri  # noqa: E402
from smartos_sim.smf.method import quote  # noqa: E402
from smartos_sim.smf.place import Place  # noqa: E402

MANIFEST = """<?xml version="1.0"?>
<!DOCTYPE service_bundle SYSTEM "/usr/share/lib/xml/dtd/service_bundle.dtd.1">
<service_bundle type="manifest" name="test">
  <service name="{name}" type="service" version="1">
    <create_default_instance enabled="{enabled}"/>
    {dependencies}
    <method_context working_directory="/">{environment}</method_context>
    {methods}
    <property_group name="startd" type="framework"><propval name="duration" type="astring" value="{duration}"/>{startd}</property_group>
    {groups}
    <template><common_name><loctext xml:lang="C">{name}</loctext></common_name></template>
  </service>
</service_bundle>
"""


def exec_method(name: str, line: str, timeout: int = 10) -> str:
    escaped = line.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<exec_method type="method" name="{name}" exec="{escaped}" timeout_seconds="{timeout}"/>'


def dependency(
    name: str, fmri: str, grouping: str = "require_all", restart_on: str = "none", kind: str = "service"
) -> str:
    return (
        f'<dependency name="{name}" grouping="{grouping}" restart_on="{restart_on}" type="{kind}">'
        f'<service_fmri value="{fmri}"/></dependency>'
    )


def manifest(
    name: str = "site/web", *, start: str = "/bin/sleep 1000", stop: str = ":kill", refresh: str = "", duration: str = "child",
    enabled: str = "true", dependencies: str = "", environment: str = "", timeout: int = 10, groups: str = "", startd: str = "",
) -> str:  # fmt: skip
    """A manifest with one instance, ``svc:/NAME:default``."""
    lines = [("start", start), ("stop", stop), ("refresh", refresh)]
    methods = "\n".join(exec_method(kind, line, timeout) for kind, line in lines if line)
    return MANIFEST.format(
        name=name, enabled=enabled, dependencies=dependencies, environment=environment, methods=methods, duration=duration,
        groups=groups, startd=startd,
    )  # fmt: skip


class Zone:
    """One zone with its svc.startd."""

    def __init__(self, root: Path, *, is_global: bool) -> None:
        self.root = root
        self.is_global = is_global
        self.place = Place(root)
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SMF_", "PYTHON"))},
            "SMARTOS_SIM_ROOT": str(root), "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPYCACHEPREFIX": os.environ["PYTHONPYCACHEPREFIX"],
        }  # fmt: skip

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def boot(self, *, fresh: bool = False) -> None:
        """Start svc.startd, and wait until it listens and what there is at every boot is online."""
        words = ["--global", *(["--fresh"] if fresh else [])] if self.is_global else ["--zone", "z1"]
        self.place.pipe.unlink(missing_ok=True)  # a killed one has left it
        self.process = subprocess.Popen([BIN / "svc.startd", *words], env=self.environment, start_new_session=True)
        self.until(
            lambda: self.place.pipe.exists() and "svc:/milestone/multi-user:default online" in self.states(),
            "milestone multi-user",
        )

    def shutdown(self) -> None:
        """Ask svc.startd to stop, as a zone's or the machine's shutdown does, and wait until it has."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(timeout=600) == 0
            self.process = None

    def crash(self) -> None:
        """Kill svc.startd."""
        assert self.process
        self.process.kill()
        self.process.wait(timeout=600)
        self.process = None

    def states(self) -> str:
        """Lines of FMRI and state, read where the tools read them, but without a process for each look."""
        with self.place.repository() as repository:
            return "".join(f"{one} {repository.value(one, 'restarter/state')}\n" for one in repository.instances())

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, env=self.environment, input=stdin, text=True, capture_output=True, timeout=timeout, check=False
        )

    def good(self, *argv: str, stdin: str | None = None) -> str:
        """Run what must succeed; its stdout."""
        done = self.run(*argv, stdin=stdin)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def import_(self, text: str) -> None:
        path = self.root / "manifest.xml"
        path.write_text(text)
        self.good("svccfg", "import", str(path))

    def state(self, fmri: str = "svc:/site/web:default") -> str:
        """The state of an instance; empty as long as svc.startd has not seen it."""
        return self.value("restarter/state", fmri)

    def value(self, path: str, fmri: str = "svc:/site/web:default") -> str:
        """The first current value of a property, as svcprop -c prints it; empty where there is none."""
        with self.place.repository() as repository:
            name = Fmri.parse(fmri)
            assert name
            return quote(repository.value(name, path) or "")

    def log(self, fmri: str = "svc:/site/web:default") -> str:
        return self.path(f"/var/svc/log/{fmri.removeprefix('svc:/').replace('/', '-')}.log").read_text()

    def until(self, what: Callable[[], bool], name: str, seconds: float = 600) -> None:
        """Wait until something is so, with an upper limit."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, f"{name} did not come within {seconds} s:\n{self.states()}"
            assert not self.process or self.process.poll() is None, "svc.startd has ended"
            time.sleep(0.02)

    def until_state(self, state: str, fmri: str = "svc:/site/web:default") -> None:
        self.until(
            lambda: self.state(fmri) == state and self.value("restarter/next_state", fmri) == "none", f"{fmri} {state}"
        )

    def module(self, name: str, *, check: bool = False, **arguments: object) -> dict:
        """Call a module in a process of its own, forked from this one, which has loaded what all modules need."""
        module = importlib.import_module(f"ansible_collections.zonestack.openstack.plugins.modules.{name}")
        with tempfile.TemporaryFile() as out:
            child = os.fork()
            if child == 0:
                try:
                    os.dup2(out.fileno(), 1)
                    sys.stdout = os.fdopen(1, "w", closefd=False)
                    os.environ.clear()
                    os.environ.update(self.environment)
                    _internal.is_controller = (
                        False  # another test may have loaded the other side, which prints warnings itself
                    )
                    with (
                        patch_module_args({**arguments, "_ansible_check_mode": check}),
                        contextlib.suppress(SystemExit),
                    ):
                        module.main()
                    sys.stdout.flush()
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            out.seek(0)
            said = out.read().decode()
        assert said, f"{name} has said nothing"
        result: dict = json.loads(said)
        return result


@pytest.fixture
def zone(tmp_path):
    """A running joyent zone, or so it believes."""
    yield from running(Zone(tmp_path / "zone", is_global=False))


@pytest.fixture
def host(tmp_path):
    """A running global zone."""
    yield from running(Zone(tmp_path / "host", is_global=True))


def running(made: Zone):
    made.root.mkdir()
    # The zone's metadata is asked for with a command that the test replaces; without it there is none.
    get = made.root / "mdata-get"
    get.write_text('#!/bin/sh\n[ -f "$SMARTOS_SIM_ROOT/metadata/$1" ] || exit 1\ncat "$SMARTOS_SIM_ROOT/metadata/$1"\n')
    get.chmod(0o755)
    made.environment["MDATA_GET"] = str(get)
    made.boot()
    try:
        yield made
        made.shutdown()
    finally:
        if made.process and made.process.poll() is None:
            made.crash()
