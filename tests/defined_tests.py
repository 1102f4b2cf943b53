"""Which tests there are, read from the source without running anything."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


@cache
def tests_of(file: str) -> frozenset[str]:
    """Returns the names of the test functions of a file, given from the root of the tree. Empty if it is missing."""
    path = ROOT / file
    body = ast.parse(path.read_text("utf-8")).body if path.is_file() else []
    return frozenset(n.name for n in body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_"))


def missing_tests(ids):
    """Returns those of the ids, such as `tests/test_rae.py::test_signs_are_fair`, that name no test."""
    parts = [(test, *test.partition("[")[0].split("::")) for test in ids]
    return [test for test, file, name in parts if name not in tests_of(file)]
