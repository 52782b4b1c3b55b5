# SPDX-License-Identifier: GPL-3.0-or-later
"""What a RabbitMQ node without data decides; that it joins again is shown by the scenarios."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "services/rabbit_mq/rejoin.py"


@pytest.fixture(scope="module")
def rejoin():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("rejoin", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("rejoin", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"rabbit@a": True, "rabbit@b": False}, False),  # a cluster that never knew this node
        ({"rabbit@a": True, "rabbit@me": False}, True),
        ({"rabbit@a": True, "rabbit@me": True}, False),  # never remove a member that runs
        ({}, False),
    ],
)
def test_only_a_member_that_is_down_is_forgotten(rejoin, known, expected):
    assert rejoin.must_forget("rabbit@me", known) is expected


def test_the_login_is_the_administrators(rejoin):
    assert rejoin.login("default_user = admin\ndefault_pass = p4ss\n") == "Basic YWRtaW46cDRzcw=="


def test_a_peer_that_does_not_answer_knows_nobody(rejoin):
    assert rejoin.members("127.0.0.1", "Basic x", "/etc/ssl/certs/ca-certificates.crt") == {}
