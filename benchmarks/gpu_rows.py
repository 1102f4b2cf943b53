"""Run the rows of gpu.py as processes with time limits. What a row did is known as soon as it ends.

A row may fail, hang or be skipped, and the next one runs. A row that prints a JSON object as its last line has that
object as its result. With the key "skipped", the object says why the row could not run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NotRequired, TypedDict

ROOT = Path(__file__).parents[1]
GRACE = 20.0  # seconds between asking a row to end and ending it
POLL_SECONDS = 0.1
TAIL = 2_000  # characters of a row's output that are kept if it did not succeed

Status = Literal["done", "failed", "timed out", "skipped", "not started", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Something to measure, by a process of its own.

    Attributes:
        name: Name of the row.
        command: Arguments of the Python interpreter. "{limit}" stands for the seconds after which the row should begin
            nothing new.
        least: Seconds that it needs. If less time is left, it is not started.
        most: Seconds after which it is ended.
        missing: What this machine lacks to run it, or "".
        beside: Whether it may run beside its neighbours in the list. Rows that are timed run alone.
    """

    name: str
    command: Sequence[str]
    least: float
    most: float
    missing: str = ""
    beside: bool = False


class Outcome(TypedDict):
    """What a row did. `output` is the end of its output, or why it did not run."""

    row: str
    status: Status
    seconds: float
    output: str
    result: NotRequired[dict[str, Any]]


class RunningRow:
    """The process of a row, with all processes that it starts.

    Args:
        row: The row.
        seconds: The process is ended after this time.
    """

    def __init__(self, row: Row, seconds: float) -> None:
        self.row, self.seconds, self.start = row, seconds, time.monotonic()
        self.files: list[IO[str]] = [tempfile.TemporaryFile("w+", errors="replace") for _ in range(2)]  # noqa: SIM115
        arguments = [a.replace("{limit}", f"{max(1.0, seconds - GRACE):.0f}") for a in row.command]
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdout=self.files[0], stderr=self.files[1], start_new_session=True
        )

    def poll(self) -> Outcome | None:
        """Returns the outcome if the row has ended or its time is over, else None."""
        if self.process.poll() is not None:
            return self.stop("failed" if self.process.returncode else "done")
        return self.stop("timed out") if time.monotonic() - self.start > self.seconds else None

    def stop(self, status: Status) -> Outcome:
        """Ends the processes if they still run. They may save their work first. Returns the outcome."""
        if self.process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        self._signal(signal.SIGKILL)
        self.process.wait()
        out, errors = (self._read(file) for file in self.files)
        result = last_object(out)
        if status == "done" and "skipped" in result:
            return make_outcome(self.row, "skipped", str(result["skipped"]), time.monotonic() - self.start)
        output = out[-TAIL // 4 :] if status == "done" else f"{out[-TAIL:]}\n{errors[-TAIL:]}"
        outcome = make_outcome(self.row, status, output.strip(), time.monotonic() - self.start)
        return {**outcome, "output": "", "result": result} if result else outcome

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _read(self, file: IO[str]) -> str:
        with file:
            file.seek(0)
            return file.read()


def make_outcome(row: Row, status: Status, output: str, seconds: float = 0.0) -> Outcome:
    """Returns what a row did."""
    return {"row": row.name, "status": status, "seconds": round(seconds, 1), "output": output}


def last_object(text: str) -> dict[str, Any]:
    """Returns the JSON object in the last line of a text, or an empty one. Numbers that are not finite become text."""
    try:
        value = json.loads((text.strip().splitlines() or [""])[-1], parse_constant=str)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def run_rows(rows: Sequence[Row], budget: float, report: Callable[[Outcome], None]) -> None:
    """Runs the rows in their order and reports each as soon as it ends.

    Args:
        rows: The rows.
        budget: Seconds for all of them. The last `GRACE` seconds belong to a row that has to be ended.
        report: Called with the outcome of each row.

    Raises:
        KeyboardInterrupt: If it is interrupted. By then the running rows have ended, and all rows are reported.
    """
    deadline = time.monotonic() + budget - GRACE
    waiting, running = list(rows), list[RunningRow]()
    try:
        for beside, group in itertools.groupby(rows, key=lambda row: row.beside):
            for batch in [list(group)] if beside else [[row] for row in group]:
                for row in batch:
                    waiting.remove(row)
                    left = deadline - time.monotonic()
                    if row.missing:
                        report(make_outcome(row, "skipped", row.missing))
                    elif left <= row.least:
                        report(make_outcome(row, "not started", f"{max(0.0, left):.0f} s were left"))
                    else:
                        running.append(RunningRow(row, min(row.most, left)))
                wait_for(running, report)
    except KeyboardInterrupt:
        while running:
            report(running.pop().stop("interrupted"))
        for row in waiting:
            report(make_outcome(row, "not started", "interrupted"))
        raise
    finally:
        for process in running:  # the report itself failed
            process.stop("interrupted")


def wait_for(running: list[RunningRow], report: Callable[[Outcome], None]) -> None:
    """Waits until all rows have ended, and removes each from the list."""
    while running:
        for process in list(running):
            if outcome := process.poll():
                running.remove(process)
                report(outcome)
        time.sleep(POLL_SECONDS)
