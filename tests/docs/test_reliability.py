"""docs/reliability.md names a test for each of its cases; every one of them exists."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_case_is_there_once():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 56))


def test_every_case_names_tests_that_exist():
    for number, case, _, tests in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert named, f"case {number}, {case}, names no test"
        for file, name in named:
            assert name in functions_of(file), f"case {number}: {file} has no {name}"
