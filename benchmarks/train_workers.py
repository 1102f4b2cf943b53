"""Two ends of a pipe: Worker, with which the parent gives a process its turns, and WorkerChannel, with which that takes them.

A line of JSON each way. The worker says {"ready": ...} when it is warm, or {"left_out": "why"}; the parent sends
{"seconds": 1.0}, for which the worker trains and answers with images and seconds, then waits for its next turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from reference_model import Job

TAIL = 2_000  # characters of a dead worker's stderr that are shown


class DiedError(Exception):
    """A worker has ended; the text is the end of its stderr."""


class LeftOutError(Exception):
    """A contestant cannot take part here; the text says why."""


class WorkerChannel:
    """The worker's end. A training calls `window` after some steps; it returns when the next turn begins.

    Args:
        job: What the worker does.
        inward: Where commands come from.
        outward: Where answers go.
    """

    def __init__(self, job: Job, inward: TextIO, outward: TextIO) -> None:
        self.job = job
        self.inward, self.outward = inward, outward
        self.steps = 0
        self.warm = False
        self.asked = 0.0
        self.images, self.seconds = 0, 0.0
        self.profiler: Any = None
        self.facts: dict[str, object] = {}

    def window(self, steps: int, images: int, seconds: float, loss: float | None) -> None:
        """Notes what was trained; at the end of the warm-up or of a turn it answers and waits, else returns at once.

        Args:
            steps: Optimizer steps.
            images: Images in them.
            seconds: What they took.
            loss: The mean loss of the last 50 of them, nats an image; the one that ends the warm-up is compared.
        """
        self.steps += steps
        if not self.warm:
            if self.steps < self.job.warm_up:
                return
            self.warm = True
            self.answer({"ready": True, "loss": loss, **self.facts})
            self.wait()
            return
        self.images += images
        self.seconds += seconds
        if self.seconds >= self.asked:
            self.answer({"images": self.images, "seconds": self.seconds, "loss": loss, **self._busy()})
            self.wait()

    def answer(self, message: Mapping[str, object]) -> None:
        """Sends a line."""
        self.outward.write(json.dumps(message) + "\n")
        self.outward.flush()

    def wait(self) -> None:
        """Blocks until the next turn; ends the process when there is none."""
        line = self.inward.readline()
        if not line:
            raise SystemExit(0)
        command = json.loads(line)
        self.asked = command["seconds"]
        self.images, self.seconds = 0, 0.0
        if command.get("profile"):
            import torch

            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profiler.start()

    def _busy(self) -> dict[str, float]:
        """Returns the share of a profiled turn in which the GPU ran kernels or copies; they follow each other."""
        if self.profiler is None:
            return {}
        from torch.autograd import DeviceType

        self.profiler.stop()
        events = [e for e in self.profiler.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        self.profiler = None
        return {"busy": sum(e.time_range.elapsed_us() for e in events) / 1e6 / self.seconds}


class Worker:
    """The parent's end: a process that has been set up and warmed up when this returns.

    Args:
        script: What to run with `--worker JOB`.
        job: What the worker does.

    Raises:
        LeftOutError: If the contestant cannot take part.
        DiedError: If the process ended.
    """

    def __init__(self, script: Path, job: Job) -> None:
        self.job = job
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # it lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, str(script), "--worker", json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ
            | {
                "OMP_NUM_THREADS": str(job.threads),
                "MKL_NUM_THREADS": str(job.threads),
                "TQDM_DISABLE": "1",
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            },
        )
        self.ready = self._read()
        if "left_out" in self.ready:
            self.stop()
            raise LeftOutError(self.ready["left_out"])

    def turn(self, seconds: float, *, profile: bool = False) -> dict[str, Any]:
        """Lets the worker train for about that long and returns its answer.

        Raises:
            DiedError: If the process ended.
        """
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"seconds": seconds, "profile": profile}) + "\n")
            self.process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if line:
            return dict(json.loads(line))
        code = self.process.wait()
        self.log.seek(0)
        raise DiedError(f"ended with code {code}\n{self.log.read()[-TAIL:]}")


def serve(job: Job) -> None:
    """Runs a worker to its end. What others print goes to stderr, so that stdout holds only answers."""
    outward = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from baselines import CONTESTANTS

    turns = WorkerChannel(job, sys.stdin, outward)
    try:
        CONTESTANTS[job.contestant](job, turns)
    except LeftOutError as error:
        turns.answer({"left_out": str(error)})
    except ModuleNotFoundError as error:
        turns.answer({"left_out": f"the package {error.name} is not installed"})
