# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of a deployment: everything is drawn once, where it belongs, and the same input gives the same bytes."""

from __future__ import annotations

import html.parser
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import networking
import svg
from cloud import compute
from deployment import ROOT
from layout import draw
from model import Live, Plan, plan_of, read_plan
from page import page
from svg import DAY, NIGHT, TIERS, Box, Scene
from topology import Answers

HEAD = 'release: "2026.2"\nspread: none\nnetworks: {zone: {cidr: 10.64.0.0/13, interface: eth1}, storage: {cidr: 10.1.0.0/16, interface: eth3}}\n'
SERVICES = """\
services:
  galera: {count: 3, hosts: [control]}
  rabbit_mq: {count: 5, hosts: [control]}
  memcached: {per_host: 2, hosts: [control]}
  haproxy: {hosts: [control]}
  keystone: {count: 3, hosts: [control]}
  every: {per_host: 1}
"""
EVERY = """\
description: On every host, with <all> & everything that a picture marks
slot: 50
phase: compute
provider: true
networks: [storage]
zone: {privileged: true, volumes: {data: {path: /srv}}}
"""


def topology(folder: Path, control: int, compute: int) -> Path:
    """A deployment with so many hosts of each group, in three failure domains where they are many."""
    zones = [f", zone: a-room-with-a-long-name-{n}" for n in range(3)] if compute > 5 else [""] * 3
    hosts = [
        f"  ctl{n}: {{id: {n}, address: 192.0.2.{n}, groups: [control]{zones[n % 3]}}}" for n in range(1, control + 1)
    ]
    hosts += [
        f"  cmp{n}: {{id: {10 + n}, address: 198.51.100.{n}, groups: [compute]{zones[n % 3]}}}"
        for n in range(1, compute + 1)
    ]
    (folder / "services/every").mkdir(parents=True)
    (folder / "services/every/service.yml").write_text(EVERY)
    path = folder / "topology.yml"
    networks = "cloud: {networks: {public: {cidr: 203.0.113.0/24}, lab: {cidr: 198.18.0.0/24}}}\n"
    path.write_text(f"deployment: pic\n{HEAD}hosts:\n" + "\n".join(hosts) + f"\n{networks}{SERVICES}")
    return path


@pytest.fixture(params=[(1, 0), (3, 0), (3, 97), (8, 2), (2, 7)], ids=lambda pair: f"{pair[0]}+{pair[1]}")
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> Plan:
    return read_plan(topology(tmp_path, *request.param))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return topology(tmp_path, 3, 1)


def of(scene: Scene, kind: str) -> list[Box]:
    return [box for box in scene.boxes() if box.kind == kind]


def test_every_zone_and_host_is_drawn_once(plan: Plan) -> None:
    scene = draw(plan)
    assert sorted(box.name for box in of(scene, "zone")) == sorted(zone.name for zone in plan.zones)
    assert sorted(box.name for box in of(scene, "host")) == sorted(host.name for host in plan.hosts)
    assert [box.name for box in of(scene, "network")] == [network.name for network in plan.networks]


@pytest.mark.parametrize("kind", ["zone", "host", "section", "tier", "network", "frame"])
def test_nothing_lies_over_another_of_its_kind(plan: Plan, kind: str) -> None:
    pairs = itertools.combinations(sorted(of(draw(plan), kind), key=lambda box: box.y), 2)
    assert [(a.name, b.name) for a, b in pairs if a.meets(b)] == []


def test_everything_is_inside_what_it_belongs_to(plan: Plan) -> None:
    scene = draw(plan)
    hosts = {box.name: box for box in of(scene, "host")}
    owners = {zone.name: zone.host for zone in plan.zones}
    assert [box.name for box in of(scene, "zone") if not hosts[owners[box.name]].holds(box)] == []
    sheet = Box("sheet", "", 0, 0, scene.width, scene.height)
    assert [box for box in scene.boxes() if not sheet.holds(box)] == []
    frames = {box.name: box for box in of(scene, "frame")}
    if len(plan.hosts) == 1:
        lane = {zone.name: frames[f"{zone.service} {zone.tier}"] for zone in plan.zones}
        assert [box.name for box in of(scene, "zone") if not lane[box.name].holds(box)] == []


def test_parts_of_the_network_picture_lie_apart_and_hold_their_texts() -> None:
    scene = networking.draw()
    assert [(a.name, b.name) for a, b in itertools.combinations(of(scene, "part"), 2) if a.meets(b)] == []
    for group in (item for item in scene.items if isinstance(item, svg.Group) and item.box):
        for text in (item for item in group.items if isinstance(item, svg.Text)):
            size = 13 if "name" in text.look else 11
            room = group.box.w if text.anchor == "middle" else group.box.w - 24
            assert svg.width(text.text, size) <= room, text.text


def test_every_text_is_on_the_sheet(plan: Plan) -> None:
    on_the_sheet(draw(plan))


def test_every_text_of_the_network_picture_is_on_the_sheet() -> None:
    on_the_sheet(networking.draw())


def on_the_sheet(scene: Scene) -> None:
    for text in ElementTree.fromstring(scene.svg()).iter("{http://www.w3.org/2000/svg}text"):
        look = text.get("class", "")
        size = (
            28
            if "h1" in look
            else 17
            if "h2" in look
            else 14
            if "h3" in look
            else 13
            if "name" in look
            else 11
            if "small" in look
            else 12
        )
        wide = svg.width(text.text or "", size, mono="mono" in look)
        start = float(text.get("x", "0")) - {"end": wide, "middle": wide / 2}.get(text.get("text-anchor", ""), 0)
        assert start >= 0 and start + wide <= scene.width, text.text


def test_failure_domain_of_each_host_is_drawn(tmp_path: Path, three: Path) -> None:
    assert "failure domain" not in draw(read_plan(three)).svg()
    plan = read_plan(topology(tmp_path / "more", 3, 7))
    text = draw(plan).svg()
    assert plan.hosts and all(f"zones in store overlay, failure domain {host.zone}" in text for host in plan.hosts)
    assert "cmp1 · a-room-" in text and "ctl1 · a-room-" in text


def test_same_topology_same_bytes(tmp_path: Path, three: Path) -> None:
    """Also in another process, where every hash differs."""
    code = "import sys, pathlib; sys.path[:0] = sys.argv[1:3]; from model import read_plan; from layout import draw; from page import page; "
    code += "p = read_plan(pathlib.Path(sys.argv[3])); s = draw(p).svg(); sys.stdout.write(s + page(p, s))"
    link = tmp_path / "link/ansible_collections/zonestack"
    link.mkdir(parents=True)
    (link / "openstack").symlink_to(ROOT)
    argv = [sys.executable, "-c", code, str(ROOT / "scripts/lib"), str(tmp_path / "link"), str(three)]
    found = {
        subprocess.run(argv, check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }
    drawn = read_plan(three)
    text = draw(drawn).svg()
    assert found == {text + page(drawn, text)}


def test_svg_is_whole_and_accessible_and_needs_nothing(plan: Plan) -> None:
    text = draw(plan).svg()
    root = ElementTree.fromstring(text)
    names = {element.get("id"): element.text for element in root if element.get("id")}
    assert root.get("role") == "img" and [names[one] for one in root.get("aria-labelledby", "").split()]
    assert "3 zones, a cluster that votes" in (names["zs-text"] or "")
    assert re.findall(r"(?:href|src|url\(|@import|https?://(?!www\.w3\.org|10\.))", text) == []
    assert "&lt;all&gt; &amp; everything" in text


def test_every_class_has_a_look(plan: Plan) -> None:
    """A misspelt class would be black on black at night."""
    known = set(re.findall(r"\.([a-z0-9-]+)", svg.STYLE))
    text = draw(plan).svg() + networking.draw().svg()
    used = {word for words in re.findall(r'class="([^"]*)"', text) for word in words.split()}
    assert used - known == set()


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [DAY, NIGHT], ids=["day", "night"])
def test_text_can_be_read(palette: dict[str, str]) -> None:
    grounds = ["ground", "card", "host", *(f"{tier}-tint" for tier in TIERS)]
    pairs = [(text, ground) for text in ("ink", "soft") for ground in grounds]
    pairs += [(tier, ground) for tier in TIERS for ground in ("card", f"{tier}-tint")]
    pairs += [("ground", bar) for bar in (*TIERS, *(f"net{n}" for n in range(svg.NETWORK_COLOURS)), "ink")]
    pairs += [(state, "card") for state in ("good", "bad", "warn")]
    assert [(a, b) for a, b in pairs if contrast(palette[a], palette[b]) < 4.5] == []


class Tags(html.parser.HTMLParser):
    """Which elements are open at the end, and the rows of each table."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.zones: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input"):
            self.open.append(tag)
        if tag == "tr" and (name := dict(attributes).get("data-zone")):
            self.zones.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_lists_every_zone_and_loads_nothing(plan: Plan) -> None:
    text = page(plan, draw(plan).svg())
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.zones == [zone.name for zone in plan.zones]
    assert re.findall(r'(?:src=|@import|url\(|<link|href="(?!https://10\.))', text) == []


def test_live_states_follow_from_what_hosts_say(three: Path) -> None:
    computed = compute(three)
    said = {
        zone.name: {"uuid": zone.uuid, "image": computed.services[component]["image"]["id"], "running": True}
        for component, zones in computed.zones.items()
        for zone in zones
        if zone.host == "ctl1"
    }
    said["ctl1-galera-1"]["running"] = False
    said["ctl1-keystone-1"]["image"] = "keystone-old"
    said["ctl1-haproxy-1"]["uuid"] = "of another deployment"
    del said["ctl1-every-1"]
    answers = Answers()
    answers.take({"event": "runner_on_ok", "event_data": {"host": "ctl1", "res": {"zones": said}}})
    answers.take({"event": "runner_on_ok", "event_data": {"host": "ctl2", "res": {"zones": {}}}})
    answers.take({"event": "runner_on_unreachable", "event_data": {"host": "ctl3", "res": {"msg": "no route\nmore"}}})
    answers.take(
        {
            "event": "runner_on_ok",
            "event_data": {
                "host": "ctl1-haproxy-1",
                "res": {"servers": {"mysql/ctl1-galera-1": "DOWN", "mysql/ctl2-galera-1": "UP 1/2"}},
            },
        }
    )
    other = {"mysql/ctl1-galera-1": "UP", "mysql/ctl2-galera-1": "UP"}
    answers.take({"event": "runner_on_ok", "event_data": {"host": "ctl2-haproxy-1", "res": {"servers": other}}})
    live = answers.live(computed, "now")
    assert answers.silent == {"ctl3": "no route"}
    assert {
        name: live.states[f"ctl1-{name}-1"] for name in ("galera", "keystone", "haproxy", "every", "rabbit-mq")
    } == {
        "galera": "stopped",
        "keystone": "stale",
        "haproxy": "missing",
        "every": "missing",
        "rabbit-mq": "running",
    }
    assert (live.states["ctl2-galera-1"], live.states["ctl3-galera-1"]) == ("missing", "unknown")
    assert (live.down("ctl1-galera-1"), live.down("ctl2-galera-1")) == (["mysql DOWN"], [])


def test_state_is_drawn_and_said(three: Path) -> None:
    computed = compute(three)
    names = [zone.name for zone in plan_of(computed).zones]
    live = Live("now", dict.fromkeys(names, "running"), {names[4]: {"mysql": "DOWN"}})
    live.states |= {names[0]: "stopped", names[1]: "missing", names[2]: "stale", names[3]: "unknown"}
    plan = plan_of(computed, live)
    text = draw(plan).svg()
    for word in ("stopped", "missing", "stale", "unknown", "HAProxy: down"):
        assert f">{word}</text>" in text
    assert f"{len(names) - 4} running" in text
    assert f"<td>{names[0]}</td><td>stopped</td>" in page(plan, text)
