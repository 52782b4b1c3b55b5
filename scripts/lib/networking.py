# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of docs/explanation/networking.md: which way the packets of an instance go, and who tells them to."""

from __future__ import annotations

from picture.glyphs import links, server, shield
from svg import Box, Group, Path, Rect, Scene, Text

WIDTH, MARGIN = 1280, 32
HOST_TOP, HOST_WIDE, HOST_TALL = 262, 596, 410
ZONE = HOST_TOP + 48
BARS = HOST_TOP + HOST_TALL + 26
LEGEND = BARS + 112

TENANT, WORLD, METADATA = "net0", "net1", "net3"
FLOWS = (
    (TENANT, "From instance to instance", (
        "Out of the instance's tap into br-int, whose flows hold its security groups. To another hypervisor",
        "it goes in a Geneve tunnel between the compute zones' addresses; its headers cost 58 bytes of MTU.",
    )),
    (WORLD, "From instance to the world", (
        "The router is flows too: br-int swaps fixed and floating address on the spot. br-public and eth1 lead",
        "to the host's provider bridge, and this to the gateway: the host itself, or a router of the site.",
    )),
    (METADATA, "To the metadata service", (
        "169.254.169.254 is answered in the compute zone: the agent has a small HAProxy for each network,",
        "adds who asks, and passes it on to nova-metadata. DHCP is answered by ovn-controller.",
    )),
    ("control", "Who decides", (
        "The Neutron API writes what networks there shall be, northd makes of it what each hypervisor has",
        "to do, ovn-controller turns that into flows. While these are down, what is connected stays so.",
    )),
)  # fmt: skip


def box(x: int, y: int, w: int, h: int, title: str, text: str, look: str, *, dashed: bool = False) -> Group:
    """A labelled part."""
    group = Group(Box("part", f"{title} {x}", x, y, w, h))
    group.add(
        Rect(x, y, w, h, "card", 6),
        Rect(x, y, w, h, f"line {look}" + (" dashed" if dashed else ""), 6),
        Text(x + w // 2, y + (18 if text else h // 2 + 5), title, "name", "middle"),
    )
    if text:
        group.add(Text(x + w // 2, y + 34, text, "soft small", "middle"))
    return group


def bar(x: int, y: int, w: int, h: int, title: str, text: str, look: str) -> Group:
    """A bridge or a network."""
    group = Group(Box("part", f"{title} {x}", x, y, w, h))
    group.add(Rect(x, y, w, h, f"bar {look}", 6), Text(x + 12, y + h // 2 + 5, title, "name onbar"))
    if text:
        group.add(Text(x + w - 12, y + h // 2 + 5, text, "small onbar", "end"))
    return group


def badge(x: int, y: int, number: int, look: str) -> list[Rect | Text]:
    kind = f"bar {look}" if look.startswith("net") else f"mark {look}"
    return [Rect(x - 9, y - 9, 18, 18, kind, 9), Text(x, y + 4, str(number), "small strong onbar", "middle")]


def host(scene: Scene, x: int, name: str, first: int) -> None:
    """A host with a compute zone; the same in all of them."""
    zone = x + 14
    scene.add(
        Rect(x, HOST_TOP, HOST_WIDE, HOST_TALL, "host", 12), *server(x + 14, HOST_TOP + 14),
        Text(x + 44, HOST_TOP + 29, f"host {name}", "h2"),
        Rect(zone, ZONE, HOST_WIDE - 28, 272, "band compute", 10),
        Rect(zone, ZONE, HOST_WIDE - 28, 272, "line compute double", 10),
        Text(zone + 14, ZONE + 20, f"ZONE {name.upper()}-NOVA-COMPUTE-1", "tier compute"), *shield(zone + HOST_WIDE - 54, ZONE + 8),
    )  # fmt: skip
    wires = [
        Path(f"M{x + 89} {ZONE + 84}V{ZONE + 124}", f"wire {TENANT}"),
        Path(f"M{x + 135} {ZONE + 160}V{HOST_TOP + HOST_TALL + 30}", f"wire {TENANT}"),
        Path(f"M{x + 224} {ZONE + 84}V{ZONE + 124}", f"wire {WORLD}"),
        Path(f"M{x + 446} {ZONE + 160}V{BARS + 66}", f"wire {WORLD}"),
        Path(f"M{x + 505} {ZONE + 84}V{ZONE + 124}", f"wire {METADATA}"),
        Path(f"M{x + 364} {ZONE + 84}V{ZONE + 124}", "line control double dashed"),
    ]
    scene.add(*wires)
    scene.add(
        box(x + 298, ZONE + 38, 132, 46, "ovn-controller", "makes flows", "control"),
        box(x + 28, ZONE + 38, 122, 46, f"instance {first}", "a tap of br-int", "compute"),
        box(x + 163, ZONE + 38, 122, 46, f"instance {first + 1}", "a tap of br-int", "compute"),
        box(x + 442, ZONE + 38, 126, 46, "metadata agent", "per network", "entry"),
        bar(x + 28, ZONE + 122, HOST_WIDE - 56, 40, "br-int", "security groups · routers · floating addresses · DHCP", TENANT),
        box(x + 60, ZONE + 184, 150, 34, "Geneve tunnels", "", "compute", dashed=True),
        bar(x + 336, ZONE + 184, 220, 34, "br-public", "Open vSwitch", WORLD),
        box(x + 85, ZONE + 256, 100, 30, "eth0", "", "compute"),
        box(x + 396, ZONE + 256, 100, 30, "eth1", "", "compute"),
        bar(x + 28, HOST_TOP + HOST_TALL - 42, 260, 30, "bridge zs-prod", "network zone", TENANT),
        bar(x + 310, HOST_TOP + HOST_TALL - 42, HOST_WIDE - 338, 30, "bridge zs-prod-public", "", WORLD),
        *badge(x + 89, ZONE + 104, 1, TENANT), *badge(x + 224, ZONE + 104, 2, WORLD),
        *badge(x + 505, ZONE + 104, 3, METADATA), *badge(x + 364, ZONE + 104, 4, "control"),
    )  # fmt: skip


def control(scene: Scene) -> None:
    """Who decides, and who answers for metadata."""
    top = 96
    scene.add(
        Rect(MARGIN, top, 846, 124, "band control", 10),
        Text(MARGIN + 14, top + 20, "WHAT NETWORKS THERE SHALL BE", "tier control"),
        Rect(898, top, WIDTH - MARGIN - 898, 124, "band entry", 10),
        Text(912, top + 20, "WHO AM I?", "tier entry"),
    )
    members = [Box("part", f"ovn {n}", 430 + 146 * n, top + 46, 130, 62) for n in range(3)]
    scene.add(
        Rect(416, top + 30, 448, 84, "card", 8), Rect(416, top + 30, 448, 84, "line control double", 8), *links(members, "control"),
    )  # fmt: skip
    for number, place in enumerate(members):
        group = Group(place)
        group.add(
            Rect(place.x, place.y, place.w, place.h, "card", 6),
            Rect(place.x, place.y, place.w, place.h, "line control", 6),
            Text(place.x + 65, place.y + 18, f"ovn-{number + 1}", "name", "middle"),
            Text(place.x + 65, place.y + 35, "northbound 6641", "small", "middle"),
            Text(place.x + 65, place.y + 51, "southbound 6642", "small", "middle"),
        )
        scene.add(group)
    scene.add(
        box(46, top + 34, 132, 46, "neutron-api", "behind HAProxy", "control"),
        box(190, top + 34, 146, 46, "neutron-workers", "RPC, maintenance", "control"),
        Text(189, top + 102, "users' networks, routers, floating addresses", "soft small", "middle"),
        Path(f"M336 {top + 57}H406", "line control double"),
        Path(f"M415 {top + 57}l-10 -6v12z", "mark control"),
        Text(372, top + 49, "TLS", "small control", "middle"),
        Text(640, top + 24, "OVN: databases in two Raft clusters, northd in each zone", "small", "middle"),
        box(914, top + 44, 132, 46, "HAProxy", "port 8775, TLS", "entry"),
        box(1090, top + 44, 142, 46, "nova-metadata", "who has this address?", "entry"),
        Path(f"M1046 {top + 67}H1080", f"wire {METADATA}"),
        Path(f"M1090 {top + 67}l-11 -7v14z", f"bar {METADATA}"),
    )
    # to the hypervisors: decisions from the southbound database, questions to HAProxy
    for x in (MARGIN, WIDTH - MARGIN - HOST_WIDE):
        scene.add(
            Path(f"M{x + 505} {ZONE + 38}V250H1030V{top + 100}", f"wire {METADATA}"),
            Path(f"M640 {top + 114}V234H{x + 364}V{ZONE + 28}", "line control double dashed"),
            Path(f"M{x + 364} {ZONE + 37}l-6 -10h12z", "mark control"),
        )
    scene.add(Path(f"M1030 {top + 91}l-7 11h14z", f"bar {METADATA}"))
    scene.add(Text(652, 230, "TLS 6642: what each hypervisor has to do", "small control"))


def draw() -> Scene:
    """The whole picture."""
    scene = Scene(width=WIDTH, title="How an instance's packets travel")
    scene.description = " ".join(f"{title}: {' '.join(lines)}" for _, title, lines in FLOWS)
    scene.add(
        Text(MARGIN, 56, scene.title, "h1"),
        Text(MARGIN, 80, "Two hypervisors of many; on one host it is the same with one. Names are those of deployment prod.", "h3 soft"),
    )  # fmt: skip
    host(scene, MARGIN, "cmp1", 1)
    host(scene, WIDTH - MARGIN - HOST_WIDE, "cmp2", 3)
    control(scene)
    wide = WIDTH - 2 * MARGIN
    scene.add(
        bar(MARGIN, BARS, wide, 30, "network zone", "every zone's eth0 · Geneve between hypervisors · TLS for all else", TENANT),
        bar(MARGIN, BARS + 42, wide, 30, "provider network public", "floating addresses · no zone has an address here", WORLD),
        Rect(MARGIN + 20, BARS + 88, 230, 32, "pill", 16),
        Text(MARGIN + 135, BARS + 109, "gateway, and the world", "h3 onbar", "middle"),
    )  # fmt: skip
    scene.items.insert(2, Path(f"M{MARGIN + 135} {BARS + 60}V{BARS + 96}", f"wire {WORLD}"))
    for number, (look, title, lines) in enumerate(FLOWS):
        x, y = MARGIN + (number % 2) * (wide // 2 + 4), LEGEND + 44 + (number // 2) * 72
        scene.add(*badge(x + 9, y - 5, number + 1, look), Text(x + 28, y, title, "h3"))
        scene.add(*(Text(x + 28, y + 18 + 16 * at, line, "soft small") for at, line in enumerate(lines)))
    scene.height = LEGEND + 44 + 72 + 60
    return scene
