"""Trials that cut the power at every moment of a training or an export, by replaying what it did to a `Disk`."""

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
import exports
import injector
import toy_run
from forked import Answer, forked
from kills import expected, recovers

from vaezoo.core import atomic
from vaezoo.export import export as exporting
from vaezoo.training import checkpoint, run_dir, run_writer

Event = injector.Operation | int  # or what was acknowledged from then on
State = tuple[int, int, disk.Tree]  # after so many events; acknowledged; what is there


class Killed(BaseException):
    """What a killed process does not get to handle."""


class Recording:
    """Notes operations and acknowledgements. Behind `stop` operations it lets nothing happen."""

    def __init__(self, root: Path, stop: int | None) -> None:
        self.root, self.stop = str(root), stop
        self.events: list[Event] = []

    def __call__(self, op: injector.Operation) -> None:
        if self.stop is not None and sum(not isinstance(e, int) for e in self.events) >= self.stop:
            raise Killed
        short = (path and path[len(self.root) + 1 :] for path in (op.path, op.other))
        self.events.append(injector.Operation(op.kind, *short, *op[3:]))

    def report(self, report: Any) -> None:
        if report.split == "valid":
            self.events.append(report.step)


def train_once(root: Path, run_writer: Recording) -> None:
    """Trains; a recording that stops makes that a kill, behind which the training is resumed."""
    run = root / "run"
    try:
        toy_run.go(run, run_writer.report)
    except Killed:
        run_writer.stop = None
        toy_run.go(run, run_writer.report)
    run_writer.events.append(toy_run.STEPS)


def export_twice(root: Path, run_writer: Recording) -> None:
    """Exports, and again, in the place of the first."""
    for number, version in enumerate(("older", "newer"), 1):
        exports.export(root / "export", version)
        run_writer.events.append(number)


def whole_run(root: Path, acknowledged: int) -> None:
    """Looks that nothing acknowledged was lost, and nothing is damaged, before anything is resumed."""
    run = root / "run"
    newest = toy_run.newest(run) if run.exists() else -1
    assert newest >= acknowledged, f"step {acknowledged} was acknowledged, the newest is {newest}"
    for name in ("run.json", "examples.safetensors", "result.json"):
        if (run / name).exists():
            assert hashlib.sha256((run / name).read_bytes()).hexdigest() == expected()[name], f"half there: {name}"
    if newest >= 0:
        kept = json.loads((run / f"checkpoints/step-{newest:08d}/state.json").read_text())["counters"]["log"]
        log = (run / "metrics.jsonl").read_bytes()[:kept] if kept else b""
        assert len(log) == kept and b"\0" not in log, "the log lacks reports of steps before the checkpoint"


def whole_export(root: Path, acknowledged: int) -> None:
    """Looks that the export that was acknowledged is there, or the one behind it."""
    versions = [{}, exports.version("older"), exports.version("newer")]
    assert exports.whole(root / "export") in versions[acknowledged : acknowledged + 2], "neither old nor new"


WORKS: dict[str, tuple[Callable[..., None], Callable[[Path, int], None], int]] = {
    "train": (train_once, whole_run, -1),
    "export": (export_twice, whole_export, 0),
}


def record(root: Path, what: str, stop: int | None, mutation: str | None) -> list[Event]:
    """Does a work in a child and returns what it did."""
    root.mkdir()
    expected(), exports.version("older"), exports.version("newer")
    run_writer = Recording(root, stop)

    def work() -> list[object]:
        with injector.watched(root, run_writer), mutated(mutation):
            WORKS[what][0](root, run_writer)
        return [e if isinstance(e, int) else [*e[:4], e.data.decode("latin-1")] for e in run_writer.events]

    told = forked(work)
    return [e if isinstance(e, int) else injector.Operation(*e[:4], e[4].encode("latin-1")) for e in told]


def states(events: list[Event], acknowledged: int, first: int, drawn: int) -> Iterator[State]:
    """Yields what a loss of power may leave, behind `first` operations, each once."""
    made, known, done = disk.Disk(), set(), 0
    for number, event in enumerate(events, 1):
        if isinstance(event, int):
            acknowledged = event
        else:
            made.do(event)
            done += 1
        if done <= first:
            continue
        for left in disk.crashes(made, random.Random(number), drawn):
            key = acknowledged, hashlib.sha256(repr(left).encode()).digest()
            if key not in known:
                known.add(key)
                yield number, acknowledged, left


def lose_power(
    folder: Path,
    what: str,
    stop: int | None = None,
    mutation: str | None = None,
    drawn: int = 2,
    every: int = 1,
    part: tuple[int, int] = (0, 1),
) -> Answer:
    """Checks each state that a loss of power may leave, and resumes from some.

    Args:
        folder: Where to.
        what: Of WORKS.
        stop: The training is killed after so many operations, and resumed; the power is lost after that.
        mutation: Of MUTATIONS: what is not done.
        drawn: States at random after each operation.
        every: One of so many states is resumed from; 0: none.
        part: Of the states, this number modulo that.
    """
    _, whole, acknowledged = WORKS[what]
    events = record(folder / "work", what, stop, mutation)
    bad, count = [], 0
    for number, state in enumerate(states(events, acknowledged, stop or 0, drawn)):
        if number % part[1] != part[0]:
            continue
        count += 1
        root = folder / str(number)
        disk.write(state[2], root)
        try:
            whole(root, state[1])
            if what == "train" and every and number % every == 0:
                forked(lambda root=root, state=state: recovers(root / "run", state[1]))
        except Exception as e:
            bad.append(f"state {number}, after event {state[0]}, {str(events[state[0] - 1])[:200]}: {e}")
        shutil.rmtree(root)
    return {"bad": None, "states": count, "bad_states": bad}


def replay(folder: Path, what: str) -> Answer:
    """Compares what the operations make of an empty folder with what is there."""
    made = disk.Disk()
    for event in record(folder / "work", what, None, None):
        if not isinstance(event, int):
            made.do(event)
    there = disk.read(folder / "work")
    return {"bad": None if disk.present(made.root) == there else "something got past the rig"}


def _temporary(path: Path) -> bool:
    return any(part.startswith(atomic.TEMP_PREFIX) for part in path.parts)


SYNCS: dict[str, Callable[[Path], bool]] = {
    "file": lambda path: path.is_file() and _temporary(path),
    "folder": lambda path: path.is_dir() and _temporary(path),
    "parent": lambda path: path.is_dir() and not _temporary(path),
    "log": lambda path: path.name == run_writer.LOG,
}
MUTATIONS = (*SYNCS, "rename")


@contextlib.contextmanager
def mutated(kind: str | None) -> Iterator[None]:
    """Leaves out a kind of sync, or writes folders under their final names."""
    real = atomic.fsync

    def sync(path: Path) -> None:
        if not SYNCS[str(kind)](path):
            real(path)

    @contextlib.contextmanager
    def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        real(target.parent)
        yield target
        for path in (*target.rglob("*"), target, target.parent):
            real(path)

    with contextlib.ExitStack() as stack:
        name, other = ("new_folder", new_folder) if kind == "rename" else ("sync", sync)
        users = (checkpoint, exporting) if kind == "rename" else (atomic, run_writer, run_dir)
        for module in users if kind else ():
            stack.enter_context(mock.patch.object(module, name, other))
        yield
