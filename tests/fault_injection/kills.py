"""Trials that kill a training, or fail one of its operations, and go on. Each is given an empty folder."""

from __future__ import annotations

import mmap
import os
import random
import signal
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import injector
import toy_run
from forked import Answer, forked

from vaezoo.errors import StorageError

REMOVALS = {"unlink", "rmdir"}
MAY_FAIL = REMOVALS | {"exchange", "mkdir"}  # leaves a leftover; there is another way; the folder was there


@cache
def expected() -> dict[str, str]:
    """Returns what a training without faults leaves."""
    run = Path(os.environ["FAULTS_FOLDER"]) / "whole" / "run"
    return forked(lambda: [toy_run.go(run), toy_run.contents(run)][1])  # type: ignore[no-any-return]


def operations(folder: Path) -> Answer:
    """Returns the operations of a training: kind and paths, from its folder on."""
    seen: list[list[str]] = []

    def before(op: injector.Operation) -> None:
        seen.append([op.kind, *(os.path.relpath(p, folder) if p else "" for p in (op.path, op.other))])

    def work() -> list[list[str]]:
        with injector.watched(folder, before):
            toy_run.go(folder / "run")
        return seen

    return {"bad": None, "operations": forked(work)}


class Acknowledged:
    """The step that the training last said was safe, kept where a killed child leaves it behind."""

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, 16)).cast("q")
        self.cells[0] = -1

    def __call__(self, report: Any) -> None:
        if report.split == "valid":
            self.cells[0] = report.step

    @property
    def step(self) -> int:
        return self.cells[0]

    def count(self, op: injector.Operation) -> None:
        """Counts operations, for the parent to see."""
        self.cells[1] += 1


def recovers(run: Path, acknowledged: int) -> None:
    """Goes on where a fault left a run, and looks that nothing was lost and all comes out as without it."""
    at = toy_run.newest(run) if run.exists() else -1
    assert at >= acknowledged, f"step {acknowledged} was acknowledged, the newest is {at}"
    over = (run / "result.json").exists()
    begun: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy_run.go(run, on_start=lambda trainer, _: begun.append(trainer.done))
    assert begun == ([] if over else [max(at, 0)]), f"began at {begun} instead of {at}"
    if not over:  # nobody touches a finished run again
        assert not toy_run.temporaries(run), toy_run.temporaries(run)
    ends_as_expected(run)


def ends_as_expected(run: Path) -> None:
    """Looks that a finished run holds what one without faults holds, byte for byte."""
    found, wanted = toy_run.contents(run), expected()
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    assert not differing, f"ends otherwise: {differing}"


def kill_at(folder: Path, at: int) -> Answer:
    """Kills a training at an operation, and goes on."""
    run, told = folder / "run", Acknowledged()
    expected()
    finished = forked(lambda: _go(folder, injector.Fault(at, "kill"), told))
    forked(lambda: recovers(run, told.step))
    return {"bad": None, "finished": finished}


def kill_twice(folder: Path, at: int, then: int) -> Answer:
    """Kills a training at an operation, and what resumes it at one of its own."""
    run, told = folder / "run", Acknowledged()
    expected()
    forked(lambda: _go(folder, injector.Fault(at, "kill"), told))
    finished = forked(lambda: _go(folder, injector.Fault(then, "kill"), told))
    forked(lambda: recovers(run, told.step))
    return {"bad": None, "finished": finished}


def _go(folder: Path, before: injector.Before, told: Acknowledged) -> bool:
    with injector.watched(folder, before):
        toy_run.go(folder / "run", told)
    return True


def fail_at(folder: Path, at: int, how: str, sticky: bool) -> Answer:
    """Fails an operation of a training, and goes on."""
    expected()

    def work() -> bool:
        run, told, fault = folder / "run", Acknowledged(), injector.Fault(at, how, sticky)
        try:
            _go(folder, fault, told)
        except StorageError:
            no_leftovers(run, fault)
            recovers(run, told.step)
            return False
        no_leftovers(run, fault)
        may_succeed(fault)
        ends_as_expected(run)
        return True

    return {"bad": None, "finished": forked(work)}


def may_succeed(fault: injector.Fault) -> None:
    """Looks that nothing failed that would have to be told."""
    may_fail = MAY_FAIL | {"write"} if fault.how == "EINTR" else MAY_FAIL  # Python's buffers write again
    told = [op for op in fault.hit if op.kind not in may_fail]
    assert not told, f"success in spite of {told[0][:3]}"


def no_leftovers(folder: Path, fault: injector.Fault) -> None:
    """Looks that what was not finished was removed, unless it was the removal that failed."""
    left = toy_run.temporaries(folder) if folder.exists() else []
    if any(op.kind == "fsync" for op in fault.hit):
        left = [name for name in left if "-step-" not in name]  # was to be removed, but its new name may not last
    assert not left or REMOVALS & {op.kind for op in fault.hit}, left


def kill_randomly(folder: Path, seed: int, kills: int = 1) -> Answer:
    """Kills a training again and again at random times, half of them while it saves, and goes on each time."""
    run, chance, told = folder / "run", random.Random(seed), Acknowledged()
    expected()
    for _ in range(kills):
        told.cells[1] = 0

        def work() -> None:
            with injector.watched(folder, told.count):
                began = told.step
                toy_run.go(run, told, lambda trainer, _: began <= trainer.done or os._exit(9))

        forked(work, lambda pid: _kill_soon(pid, told, chance))
    forked(lambda: recovers(run, told.step))
    return {"bad": None}


def _kill_soon(child: int, told: Acknowledged, chance: random.Random) -> None:
    """Kills a child after a time; in half of the cases that runs from an operation that writes a checkpoint."""
    saving, delay = chance.random() < 0.5, chance.uniform(0, 0.25)
    if saving:
        operation, delay = chance.randrange(20, 180), chance.uniform(0, 0.002)
        while told.cells[1] < operation and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.0002)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)


def finished(folder: Path) -> Answer:
    """Resumes a run that is over."""

    def work() -> int:
        run, told = folder / "run", Acknowledged()
        toy_run.go(run)
        with injector.watched(folder, told.count):
            again = toy_run.go(run)
        assert again.result
        return told.cells[1]

    changes = forked(work)
    return {"bad": f"{changes} operations" if changes else None}
