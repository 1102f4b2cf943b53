"""Cases that lose power at any moment of a training or an export: they replay the operations on a model disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import disk
import export_faults
import injector
import toy_run
from forked import Response, run_forked
from kills import check_recovery, expected_files

from vaezoo.core import atomic
from vaezoo.export import export as exporting
from vaezoo.training import checkpoint, run_dir, run_writer

Event = injector.Operation | int  # an operation, or the step or export that is acknowledged from here on
State = tuple[int, int, disk.Tree]  # number of events so far, last acknowledgement, files


class Killed(BaseException):
    """Ends the process like a kill: no handler may catch it."""


class Recording:
    """Records operations and acknowledgements. After `stop` operations it lets nothing else happen."""

    def __init__(self, root: Path, stop: int | None) -> None:
        self.root, self.stop = str(root), stop
        self.events: list[Event] = []

    def __call__(self, op: injector.Operation) -> None:
        if self.stop is not None and sum(not isinstance(e, int) for e in self.events) >= self.stop:
            raise Killed
        relative = (path and path[len(self.root) + 1 :] for path in (op.path, op.other))
        self.events.append(injector.Operation(op.kind, *relative, *op[3:]))

    def report(self, report: Any) -> None:
        if report.split == "valid":
            self.events.append(report.step)


def train_once(root: Path, recording: Recording) -> None:
    """Trains. If the recording stops, that is a kill, and the training is resumed."""
    run = root / "run"
    try:
        toy_run.train_or_resume(run, recording.report)
    except Killed:
        recording.stop = None
        toy_run.train_or_resume(run, recording.report)
    recording.events.append(toy_run.STEPS)


def export_twice(root: Path, recording: Recording) -> None:
    """Exports, then replaces the export with a newer one."""
    for number, version in enumerate(("older", "newer"), 1):
        export_faults.export(root / "export", version)
        recording.events.append(number)


def check_run(root: Path, acknowledged: int) -> None:
    """Asserts, before the run is resumed, that nothing acknowledged was lost and no file is incomplete."""
    run = root / "run"
    newest = toy_run.newest_step(run) if run.exists() else -1
    assert newest >= acknowledged, f"step {acknowledged} was acknowledged, the newest is {newest}"
    for name in ("run.json", "examples.safetensors", "result.json"):
        if (run / name).exists():
            assert hashlib.sha256((run / name).read_bytes()).hexdigest() == expected_files()[name], (
                f"incomplete: {name}"
            )
    if newest >= 0:
        counters = json.loads((run / f"checkpoints/step-{newest:08d}/state.json").read_text())["counters"]
        length = counters["log_bytes"]
        log = (run / "metrics.jsonl").read_bytes()[:length] if length else b""
        assert len(log) == length and b"\0" not in log, "the log lacks reports of steps before the checkpoint"


def check_export(root: Path, acknowledged: int) -> None:
    """Asserts that the acknowledged export is there, or the next one."""
    versions = [{}, export_faults.version("older"), export_faults.version("newer")]
    assert export_faults.whole(root / "export") in versions[acknowledged : acknowledged + 2], "neither old nor new"


# Name -> the work, the check of the files that it leaves, and what is acknowledged at the beginning.
WORKS: dict[str, tuple[Callable[..., None], Callable[[Path, int], None], int]] = {
    "train": (train_once, check_run, -1),
    "export": (export_twice, check_export, 0),
}


def record(root: Path, work: str, stop: int | None, mutation: str | None) -> list[Event]:
    """Does a work in a child process and returns its events."""
    root.mkdir()
    expected_files(), export_faults.version("older"), export_faults.version("newer")
    recording = Recording(root, stop)

    def run() -> list[object]:
        with injector.intercept(root, recording), mutated(mutation):
            WORKS[work][0](root, recording)
        return [e if isinstance(e, int) else [*e[:4], e.data.decode("latin-1")] for e in recording.events]

    events = run_forked(run)
    return [e if isinstance(e, int) else injector.Operation(*e[:4], e[4].encode("latin-1")) for e in events]


def possible_states(events: list[Event], acknowledged: int, first: int, draws: int) -> Iterator[State]:
    """Yields each distinct state that a loss of power may leave, after more than `first` operations."""
    model, known, done = disk.Disk(), set(), 0
    for number, event in enumerate(events, 1):
        if isinstance(event, int):
            acknowledged = event
        else:
            model.do(event)
            done += 1
        if done <= first:
            continue
        for files in disk.trees_after_power_loss(model, random.Random(number), draws):
            key = acknowledged, hashlib.sha256(repr(files).encode()).digest()
            if key not in known:
                known.add(key)
                yield number, acknowledged, files


def lose_power(
    folder: Path,
    work: str,
    stop: int | None = None,
    mutation: str | None = None,
    draws: int = 2,
    resume_every: int = 1,
    part: tuple[int, int] = (0, 1),
) -> Response:
    """Checks each state that a loss of power may leave, and resumes the training from some of them.

    Args:
        folder: The folder to work in.
        work: A key of WORKS.
        stop: Kill the training after this number of operations, resume it, and lose power after that.
        mutation: One of MUTATIONS, a protection that is left out.
        draws: Random states after each operation.
        resume_every: Resume from every n-th state, or from none if 0.
        part: A remainder and a divisor: of the states, check those whose number has this remainder.
    """
    _, check, acknowledged = WORKS[work]
    events = record(folder / "work", work, stop, mutation)
    bad, count = [], 0
    for number, state in enumerate(possible_states(events, acknowledged, stop or 0, draws)):
        if number % part[1] != part[0]:
            continue
        count += 1
        root = folder / str(number)
        disk.write(state[2], root)
        try:
            check(root, state[1])
            if work == "train" and resume_every and number % resume_every == 0:
                run_forked(lambda root=root, state=state: check_recovery(root / "run", state[1]))
        except Exception as e:
            bad.append(f"state {number}, after event {state[0]}, {str(events[state[0] - 1])[:200]}: {e}")
        shutil.rmtree(root)
    return {"error": None, "states": count, "bad_states": bad}


def replay(folder: Path, work: str) -> Response:
    """Replays the recorded operations on an empty model disk, and compares the result with the real folder."""
    model = disk.Disk()
    for event in record(folder / "work", work, None, None):
        if not isinstance(event, int):
            model.do(event)
    actual = disk.read(folder / "work")
    return {"error": None if disk.present(model.root) == actual else "an operation was not intercepted"}


def _is_temporary(path: Path) -> bool:
    return any(part.startswith(atomic.TEMP_PREFIX) for part in path.parts)


SYNCS: dict[str, Callable[[Path], bool]] = {
    "file": lambda path: path.is_file() and _is_temporary(path),
    "folder": lambda path: path.is_dir() and _is_temporary(path),
    "parent": lambda path: path.is_dir() and not _is_temporary(path),
    "log": lambda path: path.name == run_writer.LOG,
}
MUTATIONS = (*SYNCS, "rename")


@contextlib.contextmanager
def mutated(kind: str | None) -> Iterator[None]:
    """Leaves out one kind of fsync, or writes folders directly under their final names."""
    real = atomic.fsync

    def fsync(path: Path) -> None:
        if not SYNCS[str(kind)](path):
            real(path)

    @contextlib.contextmanager
    def atomic_dir(target: Path, replace: bool = False) -> Iterator[Path]:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        real(target.parent)
        yield target
        for path in (*target.rglob("*"), target, target.parent):
            real(path)

    with contextlib.ExitStack() as stack:
        name, function = ("atomic_dir", atomic_dir) if kind == "rename" else ("fsync", fsync)
        users = (checkpoint, exporting) if kind == "rename" else (atomic, run_writer, run_dir)
        for module in users if kind else ():
            stack.enter_context(mock.patch.object(module, name, function))
        yield
