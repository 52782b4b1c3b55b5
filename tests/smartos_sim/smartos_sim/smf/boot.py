# SPDX-License-Identifier: GPL-3.0-or-later
"""What svc.startd finds or makes when it boots: the platform's own services, and in the global zone /opt/custom/smf.

``svc.startd --seed`` makes a repository with the platform's services below a root that is not running, as an image has one;
``svc.startd`` serves it. A joyent zone keeps its repository. The global zone's lies on a ramdisk: ``--fresh`` says that
the machine has booted, and everything that was ever changed in it is gone but for what /opt/custom/smf brings back.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import xml.etree.ElementTree as ET
from pathlib import Path

from . import manifest
from .place import ROOT_VARIABLE, Place
from .startd import Startd

SEEDS = Path(__file__).parent / "seeds"

#: Shell functions and numbers that methods source (smf_method(7)), and what the seeds' methods run.
FILES = {"smf_include.sh": "/lib/svc/share", "mdata-fetch": "/lib/svc/method", "mdata-execute": "/lib/svc/method"}

CUSTOM = "/opt/custom/smf"


def seed(place: Place, joyent: bool) -> None:
    """Make a repository with the platform's services, and the files that they need, where they are missing."""
    for name, folder in FILES.items():
        target = place.path(folder) / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(SEEDS / name, target)
            target.chmod(0o755 if folder.endswith("method") else 0o644)
    bundles = [SEEDS / "milestones.xml", *([SEEDS / "smartdc.xml"] if joyent else [])]
    with place.repository(create=True) as repository:
        for bundle in bundles:
            manifest.install(repository, manifest.parse(ET.parse(bundle).getroot()))


def import_custom(place: Place, startd: Startd) -> None:
    """What the global zone does at each boot; a manifest that is wrong is told to the log and passed over."""
    for path in sorted(place.path(CUSTOM).glob("*.xml")):
        try:
            with place.repository() as repository:
                manifest.install(repository, manifest.load(path))
        except manifest.ManifestError as bad:
            startd.say(f"import of {path} failed: {bad}")


def main() -> None:
    """Run as init of a joyent zone, or as a daemon of the simulated global zone."""
    parser = argparse.ArgumentParser(prog="svc.startd", description="The simulated master restarter.")
    parser.add_argument("--root", type=Path, help="root directory of the zone (default: $SMARTOS_SIM_ROOT, or /)")
    parser.add_argument("--global", dest="is_global", action="store_true", help="serve the global zone")
    parser.add_argument("--zone", help="name of the zone (default: the host's name)")
    parser.add_argument(
        "--fresh", action="store_true", help="with --global: the machine has booted, so the repository is gone"
    )
    parser.add_argument("--seed", action="store_true", help="only make the repository of a zone that does not run")
    # An init is given words of its own by what starts it.
    options, _further = parser.parse_known_args()
    if options.root:
        os.environ[ROOT_VARIABLE] = str(options.root)  # methods, and the tools that they call, find the same root
    place = Place.here()
    if options.fresh:
        place.repository_file.unlink(missing_ok=True)
    if options.seed or not place.repository_file.exists():
        seed(place, joyent=not options.is_global)
    if options.seed:
        return
    startd = Startd(place, "global" if options.is_global else options.zone or socket.gethostname())
    if options.is_global:
        import_custom(place, startd)
    startd.run()
