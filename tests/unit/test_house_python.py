# SPDX-License-Identifier: GPL-3.0-or-later
"""Python stays readable: no module over 500 lines, no function over 60. What is longer stands in a list that can only shrink."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE, FUNCTION = 500, 60
"""Most lines of a module, without its manual, and of a function with its decorators and docstring."""
MANUAL = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
"""What Ansible has a plugin's manual in: YAML, whose length its options decide."""
TESTS = ("tests/unit/", "tests/integration/", "tests/scenario/")
"""Tests are read one by one."""

IN_ZONES = {
    "services/galera/agent.py": {"module", "decide"},
    "services/nova/hypervisor.py": {"module"},
    "services/ovn/agent.py": {"module"},
}
"""Programs that are written into zones, each as one file. Other code would restart their daemons in every cloud that is deployed."""
LEFT: dict[str, set[str]] = {
    "plugins/module_utils/zone/tree.py": {"module"},
}
"""What is not split yet."""


def manual_lines(tree: ast.Module) -> int:
    """How many lines of a module are its manual."""
    return sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and any(isinstance(target, ast.Name) and target.id in MANUAL for target in node.targets)
    )


def functions(node: ast.AST, prefix: str = "") -> dict[str, int]:
    """The length of each function in lines, by its qualified name."""
    found: dict[str, int] = {}
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            inner = f"{prefix}{child.name}."
            if not isinstance(child, ast.ClassDef):
                first = min(one.lineno for one in (child, *child.decorator_list))
                length = (child.end_lineno or first) - first + 1
                name = prefix + child.name
                found[name] = max(length, found.get(name, 0))
        for name, length in functions(child, inner).items():
            found[name] = max(length, found.get(name, 0))
    return found


def too_long(text: str) -> dict[str, int]:
    """What is too long in a module: ``module`` or the names of functions, with their lines."""
    tree = ast.parse(text)
    lines = len(text.splitlines()) - manual_lines(tree)
    found = {"module": lines} if lines > MODULE else {}
    return found | {name: length for name, length in functions(tree).items() if length > FUNCTION}


def complaints(path: str, text: str, allowed: set[str]) -> list[str]:
    """What is wrong with a file: what is too long and not allowed to be, and what is allowed although it is not too long."""
    found = too_long(text)
    longer = [
        f"{path}: {name} has {lines} lines; at most {MODULE if name == 'module' else FUNCTION} are allowed: split it by meaning"
        for name, lines in found.items()
        if name not in allowed
    ]
    return longer + [
        f"{path}: {name} is not too long any more: remove it from the list in {Path(__file__).name}"
        for name in sorted(allowed - set(found))
    ]


def files() -> list[str]:
    """Every Python file of the project that these limits are for."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard", "--", "*.py"],
        cwd=ROOT, text=True, capture_output=True, check=True,
    )  # fmt: skip
    return sorted(
        name
        for name in set(filter(None, listed.stdout.split("\0")))
        if not name.startswith(TESTS) and (ROOT / name).is_file()
    )


def test_every_file_keeps_the_limits() -> None:
    found = [
        complaint
        for name in files()
        for complaint in complaints(
            name, (ROOT / name).read_text(encoding="utf-8"), LEFT.get(name, set()) | IN_ZONES.get(name, set())
        )
    ]
    assert found == []


def test_the_files_are_found() -> None:
    found = files()
    assert "plugins/modules/zone.py" in found
    assert not [name for name in found if name.startswith(TESTS)]


def test_every_exception_is_a_file() -> None:
    assert {*LEFT, *IN_ZONES} - set(files()) == set()


def test_exceptions_are_documented() -> None:
    text = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    assert [name for name in {**IN_ZONES, **LEFT} if f"`{name}`" not in text] == []


BODY = "    pass\n"
LINE = "x = 1\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(LINE * MODULE, {}, id="module"),
        pytest.param(LINE * (MODULE + 1), {"module": MODULE + 1}, id="long module"),
        pytest.param('DOCUMENTATION = """\n' + LINE * 600 + '"""\n', {}, id="manual"),
        pytest.param(
            'RETURN = r"""\n' + LINE * 600 + '"""\n' + LINE * 501, {"module": 501}, id="manual and long module"
        ),
        pytest.param('TEXT = """\n' + LINE * MODULE + '"""\n', {"module": MODULE + 2}, id="another text"),
        pytest.param("def f():\n" + BODY * (FUNCTION - 1), {}, id="function"),
        pytest.param("def f():\n" + BODY * FUNCTION, {"f": FUNCTION + 1}, id="long function"),
        pytest.param("@one\n@two\ndef f():\n" + BODY * (FUNCTION - 2), {"f": FUNCTION + 1}, id="decorators"),
        pytest.param(
            "class A:\n    async def f(self):\n" + ("    " + BODY) * FUNCTION, {"A.f": FUNCTION + 1}, id="method"
        ),
        pytest.param(
            "def f():\n    def g():\n" + ("    " + BODY) * FUNCTION,
            {"f": FUNCTION + 2, "f.g": FUNCTION + 1},
            id="function in a function",
        ),
        pytest.param(
            "if x:\n    def f():\n" + ("    " + BODY) * FUNCTION + "else:\n    def f(): pass\n",
            {"f": FUNCTION + 1},
            id="the longer one of two",
        ),
    ],
)
def test_what_is_too_long_is_found(text: str, found: dict[str, int]) -> None:
    assert too_long(text) == found


def test_a_violation_is_told_with_its_place_and_an_exception_must_be_needed() -> None:
    long = "def f():\n" + BODY * FUNCTION
    assert complaints("a.py", long, {"f"}) == []
    assert complaints("a.py", long, set()) == ["a.py: f has 61 lines; at most 60 are allowed: split it by meaning"]
    assert complaints("a.py", "x = 1\n", {"f"}) == [
        "a.py: f is not too long any more: remove it from the list in test_house_python.py"
    ]
