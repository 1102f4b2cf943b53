"""The trials, each in a process forked from one that has imported everything: `python trials.py` serves a line each.

A request is `{"trial": name, "folder": an empty one, ...}`, the answer `{"bad": None or what went wrong, ...}`.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import rehearsal
import rig
import torch

from vaezoo.errors import StorageError

LIMIT = 120  # seconds, after which a child hangs
Answer = dict[str, Any]


def forked(work: Callable[[], object], meddle: Callable[[int], None] = lambda pid: None) -> object:
    """Runs `work` in a child and returns what it returned; None if it was killed. `meddle` is given the child's id.

    Raises:
        AssertionError: If the work raised, with its traceback, or hangs.
    """
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.close(out)
        signal.alarm(LIMIT)
        try:
            answer = {"value": work()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with contextlib.suppress(OSError), open(into, "w") as f:
            json.dump(answer, f)
        os._exit(0)
    os.close(into)
    meddle(child)
    with open(out) as f:
        text = f.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"died of signal {os.WTERMSIG(status)}"
        return None
    answer = json.loads(text)
    assert "error" not in answer, answer["error"]
    return answer["value"]


@cache
def expected() -> dict[str, str]:
    """Returns what a training without faults leaves."""
    folder = Path(os.environ["FAULTS_FOLDER"]) / f"whole-{os.getpid()}"
    return forked(lambda: [rehearsal.go(folder), rehearsal.contents(folder)][1])  # type: ignore[return-value]


def operations(folder: str) -> Answer:
    """Returns the kinds of all operations of a training."""
    seen: list[str] = []

    def before(op: rig.Operation) -> None:
        seen.append(op.kind)

    def work() -> list[str]:
        with rig.watched(Path(folder), before):
            rehearsal.go(Path(folder))
        return seen

    return {"bad": None, "kinds": forked(work)}


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

    def count(self, op: rig.Operation) -> None:
        """Counts operations, for the parent to see."""
        self.cells[1] += 1


def recovers(path: Path, acknowledged: int) -> None:
    """Goes on where a fault left a run, and looks that nothing was lost and all comes out as without it."""
    at = rehearsal.newest(path) if path.exists() else -1
    assert at >= acknowledged, f"step {acknowledged} was acknowledged, the newest is {at}"
    begun: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rehearsal.go(path, on_start=lambda trainer, _: begun.append(trainer.done))
    assert not begun or begun[0] == max(at, 0), f"began at {begun} instead of {at}"
    assert not rehearsal.temporaries(path), rehearsal.temporaries(path)
    assert rehearsal.contents(path) == expected(), f"ends otherwise: {differing(rehearsal.contents(path))}"


def differing(found: dict[str, str]) -> list[str]:
    wanted = expected()
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def kill_at(folder: str, at: int) -> Answer:
    """Kills a training at an operation, and goes on."""
    path, told = Path(folder), Acknowledged()

    def work() -> bool:
        with rig.watched(path, rig.Fault(at, "kill")):
            rehearsal.go(path, told)
        return True

    finished = forked(work)
    expected()
    forked(lambda: recovers(path, told.step))
    return {"bad": None, "finished": finished}


def fail_at(folder: str, at: int, how: str, sticky: bool) -> Answer:
    """Fails an operation of a training, and goes on."""
    expected()

    def work() -> bool:
        path, told, fault = Path(folder), Acknowledged(), rig.Fault(at, how, sticky)
        before = sum(1 for _ in path.rglob("*")) if path.exists() else 0
        assert before == 0
        try:
            with rig.watched(path, fault):
                rehearsal.go(path, told)
            failed = False
        except StorageError:
            failed = True
        cleaning = fault.hit is not None and fault.hit.kind in ("unlink", "rmdir")
        if not failed and fault.hit:
            assert cleaning or fault.hit.kind in ("exchange", "mkdir"), f"success in spite of {fault.hit[:3]}"
        if not (cleaning or (sticky and how not in rig.FULL)):
            assert not rehearsal.temporaries(path), rehearsal.temporaries(path)
        if not failed:
            rest = {name: v for name, v in rehearsal.contents(path).items() if ".tmp-" not in name}
            assert rest == expected(), f"ends otherwise: {differing(rest)}"
            return True
        recovers(path, told.step)
        return False

    return {"bad": None, "finished": forked(work)}


def kill_randomly(folder: str, seed: int, kills: int = 1) -> Answer:
    """Kills a training again and again at random times, half of them while it saves, and goes on each time."""
    path, chance, told = Path(folder), random.Random(seed), Acknowledged()
    expected()
    for _ in range(kills):
        told.cells[1] = 0

        def work() -> None:
            with rig.watched(path, told.count):
                began = told.step
                rehearsal.go(path, told, lambda trainer, _: began <= trainer.done or os._exit(9))

        forked(work, lambda pid: _kill_soon(pid, told, chance))
    forked(lambda: recovers(path, told.step))
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


def limited(folder: str, size: int) -> Answer:
    """Trains where no file can grow beyond `size` bytes, and goes on without the limit."""
    expected()
    told = Acknowledged()

    def work() -> None:
        path = Path(folder)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            rehearsal.go(path, told)
        except StorageError:
            pass
        else:
            raise AssertionError("success although no file can grow")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not rehearsal.temporaries(path), rehearsal.temporaries(path)
        recovers(path, told.step)

    forked(work)
    return {"bad": None}


TRIALS: dict[str, Callable[..., Answer]] = {
    f.__name__: f for f in (operations, kill_at, fail_at, kill_randomly, limited)
}


def main() -> None:
    """Answers requests until there are no more."""
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = TRIALS[request.pop("trial")](**request)
        except Exception as e:
            answer = {"bad": "".join(traceback.format_exception(e)[-1:]) or repr(e)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
