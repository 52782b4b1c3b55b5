# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

from ansible_collections.zonestack.openstack.plugins.modules.journal_lines import Line, choose, parse

UUID = "6fe04b5a-7f3c-4e6a-9df4-0ad5f2f8f7ad"


def row(seconds: int, zone: str, text: object, priority: int = 6) -> str:
    return json.dumps(
        {
            "__REALTIME_TIMESTAMP": str(seconds * 1000000),
            "_HOSTNAME": zone,
            "SYSLOG_IDENTIFIER": "d",
            "MESSAGE": text,
            "PRIORITY": str(priority),
        }
    )


def test_what_names_the_instance_comes_before_the_rest_and_all_in_order_of_time():
    text = "\n".join(
        [
            row(1, "nova", "2026 1 INFO nova.x all is well with error counters"),
            row(2, "nova", f"2026 1 WARNING nova.x [{UUID}] odd"),
            row(3, "ovn", "2026 1 WARNING nothing to do with it"),
            row(4, "nova", f"2026 1 ERROR nova.x [{UUID}] no host"),
            row(5, "neutron", "2026 1 ERROR neutron.x refused"),
        ]
    )
    assert [line.when for line in choose(parse(text), [UUID], 20)] == [2, 4, 5]
    assert [line.when for line in choose(parse(text), [UUID], 1)] == [4]


def test_repeated_lines_are_taken_once():
    text = "\n".join(row(second, "nova", f"ERROR attempt {second} of 3") for second in (1, 2, 3))
    assert [line.when for line in choose(parse(text), [], 20)] == [1]


def test_systemds_failures_count_by_priority_and_bytes_are_text():
    lines = list(parse("\n".join([row(1, "nova", "unit has gone", 3), row(2, "nova", list("ERROR ä".encode()))])))
    assert [line.text for line in choose(lines, [], 20)] == ["unit has gone", "ERROR ä"]


def test_long_lines_are_cut():
    assert len(str(Line(0, "z", "d", "x" * 1000, 3))) < 430


def test_errors_of_every_zones_start_are_left_out():
    assert not Line(0, "z", "systemd-tmpfiles", "Setting access ACL failed: Invalid argument", 3).weight([])
    assert Line(0, "z", "systemd", "Failed to start nova-compute.service", 3).weight([])


def test_traceback_is_cut_to_its_ends():
    begin = "2026-11-21 09:40:12.960 563 ERROR ovsdbapp.event"
    said = [
        "[-] Unexpected exception in loop",
        "Traceback (most recent call last):",
        "  File x",
        "    ~~~^^^",
        "neutron_lib.exceptions.Boom: iptables-save",
        "",
    ]
    text = "\n".join(row(1, "compute", f"{begin} {words}") for words in said)
    assert [line.text.removeprefix(f"{begin} ") for line in choose(parse(text), [], 20)] == [said[0], said[4]]
