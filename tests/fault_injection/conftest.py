"""The worker processes that run the cases, and the table of cases at the end.

VAEZOO_FAULTS=all runs every case. Without it the tests run a selection.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from injector import ALL_FAULTS

# A worker takes seconds to start, so a selection has one. Under pytest-xdist each of its processes has its own.
POOL_SIZE = 2 if ALL_FAULTS and "PYTEST_XDIST_WORKER" not in os.environ else 1
ONE_CASE_PER_TEST = {  # test file -> its row in the table
    "test_downloads": "D2",
    "test_fuzz": "fuzz",
    "test_malformed_archives": "D2",
    "test_malformed_arrays": "D1",
    "test_malformed_onnx": "O1",
    "test_malformed_images": "I1",
    "test_launchers": "S2",
    "test_plugins": "P1",
    "test_resume": "R1",
}


class WorkerPool:
    """Runs cases in worker processes, which have one thread each so that they can fork."""

    def __init__(self, size: int) -> None:
        self.size = size
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
        self.idle: Queue[subprocess.Popen[str]] = Queue()
        self.processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(size)
        ]
        for process in self.processes:
            self.idle.put(process)

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs a case. Returns the response together with the request."""
        process = self.idle.get()
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            return {**request, **json.loads(process.stdout.readline())}
        finally:
            self.idle.put(process)

    def run_all(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Runs cases in parallel."""
        with ThreadPoolExecutor(self.size) as executor:
            return list(executor.map(self.run, requests))

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
            process.wait()


@pytest.fixture(scope="session")
def workers() -> Iterator[WorkerPool]:
    if sys.platform != "linux":
        pytest.skip("the injector reads /proc")
    pool = WorkerPool(POOL_SIZE)
    yield pool
    pool.close()


@pytest.fixture
def check_cases(request: pytest.FixtureRequest) -> Callable[[str, int, Sequence[object]], None]:
    """A function that records how many cases ran, for a row of the table, and fails the test if one was bad."""

    def check(row: str, count: int, failures: Sequence[object]) -> None:
        # User properties belong to the test's report, which pytest-xdist sends to the main process.
        request.node.user_properties.append(("cases", [row, count, len(failures)]))
        assert not failures, f"{len(failures)} of {count} bad, such as {failures[0]}"

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            rows = [value for name, value in report.user_properties if name == "cases"]
            if row := ONE_CASE_PER_TEST.get(Path(report.nodeid.split("::")[0]).stem):
                rows.append([row, 1, outcome == "failed"])
            for row, count, failures in rows:
                table[row][0] += count
                table[row][1] += failures
    if table:
        terminalreporter.section("faults" if ALL_FAULTS else "faults (a selection; make faults runs all)")
        terminalreporter.write_line(f"{'id':<12}{'cases':>9}{'bad':>6}")
        for row, (count, failures) in sorted(table.items()):
            terminalreporter.write_line(f"{row:<12}{count:>9,}{failures:>6}")
