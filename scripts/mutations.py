"""Breaks one formula at a time in a copy of the source tree, and checks that the tests named for it fail.

    python scripts/mutations.py                      all mutations, about 15 minutes
    python scripts/mutations.py --only vmf prior     those whose part contains one of these words

mutations.toml beside this script holds the table. Exit code 1 means that a mutation survived, that its text is no
longer found exactly once, or that its tests do not pass without it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest
import torch  # noqa: F401  # before processes are forked

ROOT = Path(__file__).parents[1]
COPIED = ("vaezoo", "cli", "tests", "scripts", "examples", "pyproject.toml")


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A formula made wrong.

    Attributes:
        part: What it belongs to, such as `objective=iwae`.
        file: The source file, from the root of the tree.
        old: Text of that file, which occurs once.
        new: What replaces it.
        tests: The tests that must fail, such as `tests/test_parts.py::test_iaf_determinant`.
    """

    part: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Replaces the text below a root, and returns the file's text before. Raises ValueError if it is not there."""
        path = root / self.file
        text = path.read_text("utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file} has the text {count} times: {self.old.strip()}")
        path.write_text(text.replace(self.old, self.new), "utf-8")
        return text

    def __str__(self) -> str:
        """Returns the part and the first line that differs."""
        return f"{self.part}: {self.new.strip().splitlines()[0] if self.new.strip() else 'without ' + self.old.strip()}"


def load_mutations() -> list[Mutation]:
    """Reads the table."""
    table = tomllib.loads((ROOT / "scripts" / "mutations.toml").read_text("utf-8"))
    return [Mutation(**row | {"tests": tuple(row["tests"])}) for row in table["mutation"]]


class Failures:
    """A plugin of pytest that collects the tests that fail, without their parameters."""

    def __init__(self) -> None:
        self.tests: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tests.add(report.nodeid.partition("[")[0])


def failing_tests(root: Path, tests: list[str]) -> set[str]:
    """Runs tests below a root and returns those that fail, without their parameters.

    Raises:
        RuntimeError: If pytest cannot run them.
    """
    # A process that is forked has torch already, which takes most of the time of a small test.
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=run_pytest, args=(root, tests, results))
    process.start()
    process.join()
    code, failed, output = results.get() if not results.empty() else (process.exitcode, [], "")
    if code not in (0, 1):
        raise RuntimeError(f"pytest ends with exit code {code}\n{output}")
    return set(failed)


def run_pytest(root: Path, tests: list[str], results: SimpleQueue[tuple[int, list[str], str]]) -> None:
    """Runs tests below a root in this process, and puts the exit code, the failing tests and the last output."""
    os.chdir(root)
    sys.path[:0] = [str(root), str(root / "cli")]
    failures = Failures()
    with tempfile.TemporaryFile("w+") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        arguments = ["--tb=no", "-p", "no:cacheprovider", "--show-capture=no", "-p", "no:xdist"]
        code = int(pytest.main([*tests, *arguments], plugins=[failures]))
        sys.stdout.flush()
        log.seek(0)
        results.put((code, sorted(failures.tests), log.read()[-2000:]))


def survived(mutation: Mutation, root: Path) -> list[str]:
    """Returns the mutation's tests that pass with it."""
    original = mutation.apply(root)
    try:
        failed = failing_tests(root, list(mutation.tests))
    finally:
        (root / mutation.file).write_text(original, "utf-8")
    return [test for test in mutation.tests if test not in failed]


def run(mutations: list[Mutation]) -> int:
    """Tests mutations in a temporary copy of the tree, and returns how many problems there were."""
    problems = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
            else:
                shutil.copy(source, root / name)
        tests = sorted({test for mutation in mutations for test in mutation.tests})
        for test in sorted(failing_tests(root, tests)):
            print(f"fails without a mutation: {test}", flush=True)
            problems += 1
        for mutation in mutations:
            try:
                passing = survived(mutation, root)
            except (ValueError, RuntimeError) as e:
                print(f"error     {mutation}\n{e}", flush=True)
                problems += 1
                continue
            problems += bool(passing)
            print(f"{'SURVIVED ' if passing else 'caught   '} {mutation}", *passing, sep="\n    ", flush=True)
    return problems


def main() -> int:
    """Parses the arguments, and returns 1 if there was a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run the mutations whose part contains one of these")
    names = parser.parse_args().only
    mutations = [m for m in load_mutations() if not names or any(name in m.part for name in names)]
    if not mutations:
        parser.error(f"no part contains {' or '.join(names)}")
    problems = run(mutations)
    print(f"{len(mutations)} mutations, {problems} problems")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
