# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``smartos-sim``: what no SmartOS host has. It makes the simulated one what a test needs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import base_image, faults, machine, metadata
from .files import ToolError, read_json
from .state import State, load_world


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smartos-sim",
        description="Prepare the simulated SmartOS host in $SMARTOS_SIM_STATE (/var/lib/smartos-sim).",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    world = commands.add_parser("load-world", help="replace the whole state by a recorded world")
    world.add_argument("file", type=Path)
    node = commands.add_parser("node", help="change facts of the node, and print them")
    node.add_argument(
        "facts", nargs="*", metavar="NAME=JSON", help="machine=linux, provision_timeout=5, hostname=gz1, ..."
    )
    source = commands.add_parser(
        "source", help="answer an image source from a directory of NAME.imgmanifest and stream files"
    )
    source.add_argument("url")
    source.add_argument("directory", type=Path)
    fault = commands.add_parser("fault", help="ask for faults, or list or forget them")
    fault.add_argument("action", choices=("add", "list", "clear"))
    fault.add_argument(
        "call", nargs="?", default="*", help='shell pattern of "TOOL SUBCOMMAND", such as "vmadm create"'
    )
    fault.add_argument(
        "--step", default="command", help="command, record, vminfod, or a call of the platform (zone_boot, ...)"
    )
    fault.add_argument("--when", choices=("before", "after"), default="before")
    fault.add_argument("--nth", type=int, default=1, help="strike at this meeting; 1 is the first")
    fault.add_argument("--times", type=int, default=1, help="and this many in all")
    fault.add_argument("--do", choices=faults.FAULT_ACTIONS, default="fail")
    fault.add_argument("--message", default="Command failed: fault injected", help="of fail: what stderr says")
    fault.add_argument("--code", type=int, default=1, help="of fail: the exit status")
    fault.add_argument("--seconds", type=float, default=1e6, help="of hang: how long")
    commands.add_parser("boot", help="bring the host up after its power was cut; start the VMs that start with it")
    init = commands.add_parser("init", help="make this Linux system the node: pool, networks, tools, SMF (LINUX.md)")
    init.add_argument("--pool-size", type=int, default=100, metavar="GIB", help="to which the pool's file may grow")
    init.add_argument(
        "--address", default="10.88.0.1/24", help="of the global zone on the NIC tag admin, with prefix length"
    )
    init.add_argument("--hostname", help="of the node; default: this system's")
    commands.add_parser(
        "reboot", help="reboot the global zone: VMs stop, the ramdisk is as new, VMs with autoboot start"
    )
    commands.add_parser("power-off", help="cut the power: everything is killed at once; boot comes next")
    image = commands.add_parser("base-image", help="make a Debian image: manifest and ZFS stream for imgadm install")
    image.add_argument("--brand", choices=("lx", "joyent"), required=True)
    image.add_argument("--suite", default="bookworm", help="Debian release")
    image.add_argument("--include", action="append", default=[], help="one more package; may be repeated")
    image.add_argument("--output", type=Path, required=True, help="directory for NAME.imgmanifest and NAME.zfs.gz")
    serve = commands.add_parser("serve-metadata", help="of the simulator's own use: answer a zone's mdata- commands")
    serve.add_argument("uuid")
    return parser


def _node(state: State, facts: list[str]) -> None:
    with state.changed_node() as node:
        for fact in facts:
            name, mark, text = fact.partition("=")
            if not mark:
                raise ToolError(f"{fact!r}: NAME=VALUE is wanted, such as provision_timeout=5")
            try:
                node[name] = json.loads(text)
            except ValueError:
                node[name] = text
    print(json.dumps(state.node, indent=1))


def _source(state: State, url: str, directory: Path) -> None:
    manifests, files = [], {}
    for path in sorted(directory.glob("*.imgmanifest")):
        manifest = read_json(path)
        manifests.append(manifest)
        streams = [one for one in directory.glob(f"{path.stem}.*") if one.suffix != ".imgmanifest"]
        if streams:
            files[manifest["uuid"]] = str(streams[0].resolve())
    with state.lock_config():
        others = [one for one in state.sources() if one["url"] != url]
        state.write_sources([*others, {"url": url, "type": "imgapi", "images": manifests, "files": files}])


def _fault(state: State, options: argparse.Namespace) -> None:
    path = state.directory / "faults.json"
    if options.action == "clear":
        path.unlink(missing_ok=True)
    elif options.action == "list":
        print(json.dumps(read_json(path, []), indent=1))
    else:
        names = ("call", "step", "when", "nth", "times", "do", "message", "code", "seconds")
        print(faults.add(state.directory, **{name: getattr(options, name) for name in names}))


def _up(state: State, options: argparse.Namespace) -> int:
    """init, reboot and boot: they end with the VMs that start with the host."""
    if options.command == "init":
        machine.init(state, pool_size=options.pool_size, address=options.address, hostname=options.hostname)
    elif options.command == "reboot":
        machine.shut_down(state)
    if state.node["machine"] == "linux" and options.command != "init":
        machine.boot(state)
    return _boot(state)


def _boot(state: State) -> int:
    """Start every VM with autoboot that is down; the others stay. Failures are told and do not stop the rest."""
    from . import vm as vms

    status = 0
    for shown in state.views():
        if shown["autoboot"] and shown["state"] == "stopped":
            try:
                vms.start(state, shown["uuid"])
            except ToolError as error:
                sys.stderr.write(f"{shown['uuid']}: {error}\n")
                status = 1
    return status


def main(argv: list[str]) -> int:
    """Run smartos-sim; the exit status."""
    options = _parser().parse_args(argv)
    state = State()
    try:
        if options.command == "load-world":
            load_world(state, json.loads(options.file.read_text()))
        elif options.command == "node":
            _node(state, options.facts)
        elif options.command == "source":
            _source(state, options.url, options.directory)
        elif options.command == "fault":
            _fault(state, options)
        elif options.command == "serve-metadata":
            metadata.serve(options.uuid)
        elif options.command == "base-image":
            print(base_image.make(state, options.brand, options.suite, options.output, options.include))
        elif options.command == "power-off":
            machine.power_off(state)
        else:
            return _up(state, options)
    except (OSError, ValueError, ToolError) as error:
        sys.stderr.write(f"smartos-sim {options.command}: {error}\n")
        return 1
    return 0
