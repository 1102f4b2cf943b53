"""Cases that kill a training or fail one of its operations, and then resume it. Each gets an empty folder."""

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
from forked import Response, run_forked

from vaezoo.errors import StorageError

REMOVALS = {"unlink", "rmdir"}
IGNORABLE = REMOVALS | {"exchange", "mkdir"}  # a leftover stays, there is another way, or the folder exists


@cache
def expected_files() -> dict[str, str]:
    """Returns the file hashes that a training without faults leaves."""
    run = Path(os.environ["FAULTS_FOLDER"]) / "expected" / "run"
    return run_forked(lambda: [toy_run.train_or_resume(run), toy_run.file_hashes(run)][1])  # type: ignore[no-any-return]


def list_operations(folder: Path) -> Response:
    """Returns the operations of a training, each with its kind and its paths relative to the folder."""
    operations: list[list[str]] = []

    def hook(op: injector.Operation) -> None:
        operations.append([op.kind, *(os.path.relpath(p, folder) if p else "" for p in (op.path, op.other))])

    def train() -> list[list[str]]:
        with injector.intercept(folder, hook):
            toy_run.train_or_resume(folder / "run")
        return operations

    return {"error": None, "operations": run_forked(train)}


class SharedProgress:
    """Progress of a training in shared memory, where the parent reads it after a kill.

    An instance is the training's `on_report`: a reported evaluation promises that its checkpoint is safe.
    """

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, 16)).cast("q")
        self.cells[0] = -1

    def __call__(self, report: Any) -> None:
        if report.split == "valid":
            self.cells[0] = report.step

    @property
    def acknowledged(self) -> int:
        """The step of the last reported evaluation, or -1."""
        return self.cells[0]

    @property
    def operations(self) -> int:
        """The number of operations so far."""
        return self.cells[1]

    def reset_operations(self) -> None:
        self.cells[1] = 0

    def count(self, op: injector.Operation) -> None:
        self.cells[1] += 1


def check_recovery(run: Path, acknowledged: int) -> None:
    """Resumes a run after a fault. Asserts that no acknowledged step was lost and that all files end as expected."""
    newest = toy_run.newest_step(run) if run.exists() else -1
    assert newest >= acknowledged, f"step {acknowledged} was acknowledged, the newest is {newest}"
    finished = (run / "result.json").exists()
    started_at: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy_run.train_or_resume(run, on_start=lambda trainer, _: started_at.append(trainer.global_step))
    expected = [] if finished else [max(newest, 0)]
    assert started_at == expected, f"started at {started_at} instead of {expected}"
    if not finished:  # a finished run is not touched again
        assert not toy_run.temp_files(run), toy_run.temp_files(run)
    check_final_files(run)


def check_final_files(run: Path) -> None:
    """Asserts that a finished run equals one without faults, byte for byte."""
    actual, expected = toy_run.file_hashes(run), expected_files()
    differing = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    assert not differing, f"differing files: {differing}"


def kill_at(folder: Path, at: int) -> Response:
    """Kills a training at an operation, then resumes it."""
    run, progress = folder / "run", SharedProgress()
    expected_files()
    finished = run_forked(lambda: _train_with(folder, injector.Fault(at, "kill"), progress))
    run_forked(lambda: check_recovery(run, progress.acknowledged))
    return {"error": None, "finished": finished}


def kill_twice(folder: Path, at: int, then: int) -> Response:
    """Kills a training at an operation, then the resumed one at its operation number `then`, then resumes it."""
    run, progress = folder / "run", SharedProgress()
    expected_files()
    run_forked(lambda: _train_with(folder, injector.Fault(at, "kill"), progress))
    finished = run_forked(lambda: _train_with(folder, injector.Fault(then, "kill"), progress))
    run_forked(lambda: check_recovery(run, progress.acknowledged))
    return {"error": None, "finished": finished}


def _train_with(folder: Path, hook: injector.Hook, progress: SharedProgress) -> bool:
    with injector.intercept(folder, hook):
        toy_run.train_or_resume(folder / "run", progress)
    return True


def fail_at(folder: Path, at: int, how: str, sticky: bool) -> Response:
    """Fails an operation of a training, then resumes the training if it ended."""
    expected_files()

    def train() -> bool:
        run, progress, fault = folder / "run", SharedProgress(), injector.Fault(at, how, sticky)
        try:
            _train_with(folder, fault, progress)
        except StorageError:
            check_no_leftovers(run, fault)
            check_recovery(run, progress.acknowledged)
            return False
        check_no_leftovers(run, fault)
        check_ignorable(fault)
        check_final_files(run)
        return True

    return {"error": None, "finished": run_forked(train)}


def check_ignorable(fault: injector.Fault) -> None:
    """Asserts that none of the failed operations had to be reported as an error."""
    ignorable = IGNORABLE | {"write"} if fault.how == "EINTR" else IGNORABLE  # Python's buffers write again
    unreported = [op for op in fault.failed if op.kind not in ignorable]
    assert not unreported, f"success in spite of {unreported[0][:3]}"


def check_no_leftovers(folder: Path, fault: injector.Fault) -> None:
    """Asserts that no temporary file is left, unless its removal failed."""
    left = toy_run.temp_files(folder) if folder.exists() else []
    if any(op.kind == "fsync" for op in fault.failed):
        left = [name for name in left if "-step-" not in name]  # not removed while its new name may be undone
    assert not left or REMOVALS & {op.kind for op in fault.failed}, left


def kill_randomly(folder: Path, seed: int, kills: int = 1) -> Response:
    """Kills a training several times at random moments, half of them during a save, and resumes it each time."""
    run, rng, progress = folder / "run", random.Random(seed), SharedProgress()
    expected_files()
    for _ in range(kills):
        progress.reset_operations()

        def train() -> None:
            with injector.intercept(folder, progress.count):
                acknowledged = progress.acknowledged
                toy_run.train_or_resume(
                    run, progress, lambda trainer, _: acknowledged <= trainer.global_step or os._exit(9)
                )

        run_forked(train, lambda pid: _kill_soon(pid, progress, rng))
    run_forked(lambda: check_recovery(run, progress.acknowledged))
    return {"error": None}


def _kill_soon(child: int, progress: SharedProgress, rng: random.Random) -> None:
    """Kills a child after a random time. In half of the cases the time begins at an operation of a save."""
    saving, delay = rng.random() < 0.5, rng.uniform(0, 0.25)
    if saving:
        operation, delay = rng.randrange(20, 180), rng.uniform(0, 0.002)
        while (
            progress.operations < operation and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.0002)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)


def resume_finished(folder: Path) -> Response:
    """Resumes a finished run, which must not change any file."""

    def train_and_resume() -> int:
        run, progress = folder / "run", SharedProgress()
        toy_run.train_or_resume(run)
        with injector.intercept(folder, progress.count):
            resumed = toy_run.train_or_resume(run)
        assert resumed.result
        return progress.operations

    changes = run_forked(train_and_resume)
    return {"error": f"{changes} operations" if changes else None}
