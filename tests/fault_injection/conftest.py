"""The processes that trials are forked from, and the figures at the end.

VAEZOO_FAULTS=all runs every case; without it, a part that takes under a minute.
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
from injector import ALL, CORES

FIGURES: dict[str, list[int]] = defaultdict(lambda: [0, 0])
COUNTED = {  # files whose tests are a case each, by their rows in the matrix of faults
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


class Trials:
    """Does trials in processes that have one thread each, so that they can fork, on two cores."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
        self.idle: Queue[subprocess.Popen[str]] = Queue()
        self.processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(CORES)
        ]
        for process in self.processes:
            self.idle.put(process)

    def one(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does a trial; the answer tells the request."""
        process = self.idle.get()
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            return {**request, **json.loads(process.stdout.readline())}
        finally:
            self.idle.put(process)

    def all(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Does trials side by side."""
        with ThreadPoolExecutor(CORES) as pool:
            return list(pool.map(self.one, requests))

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
            process.wait()


@pytest.fixture(scope="session")
def trials() -> Iterator[Trials]:
    if sys.platform != "linux":
        pytest.skip("the rig reads /proc")
    trials = Trials()
    yield trials
    trials.close()


@pytest.fixture
def tell() -> Callable[[str, int, Sequence[object]], None]:
    """Notes the figures of a matrix id, and fails if a trial was bad."""

    def tell(number: str, count: int, bad: Sequence[object]) -> None:
        FIGURES[number][0] += count
        FIGURES[number][1] += len(bad)
        assert not bad, f"{len(bad)} of {count} bad, such as {bad[0]}"

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = {number: list(figures) for number, figures in FIGURES.items()}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            if number := COUNTED.get(Path(report.nodeid.split("::")[0]).stem):
                count = figures.setdefault(number, [0, 0])
                count[0] += 1
                count[1] += outcome == "failed"
    if figures:
        terminalreporter.section("faults" if ALL else "faults (a part; make faults runs all)")
        terminalreporter.write_line(f"{'id':<12}{'cases':>9}{'bad':>6}")
        for number, (count, bad) in sorted(figures.items()):
            terminalreporter.write_line(f"{number:<12}{count:>9,}{bad:>6}")
