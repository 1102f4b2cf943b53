"""The worker processes of train_throughput.py and the protocol between them and the parent.

Each message is one line of JSON. A worker sends {"ready": ...} when it is warm, or {"skipped": "reason"}. The parent
sends {"seconds": 1.0} to start a turn. The worker trains for that time, answers with its images and seconds, and waits
for its next turn. `Worker` is the parent's end of the pipe, and `WorkerChannel` is the worker's end.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from reference_model import Job

STDERR_TAIL = 2_000  # characters of stderr that are shown if a worker died
START_SECONDS = 1_200.0  # a worker that is not warm by then is ended
TURN_SECONDS = 300.0  # a worker that has not answered by then is ended


class WorkerDiedError(Exception):
    """A worker process ended early. The message contains the end of its stderr."""


class SkippedError(Exception):
    """A backend cannot run on this machine. The message is the reason."""


class WorkerChannel:
    """The worker's end of the pipe. A training calls `record_window` after every few steps.

    Args:
        job: The worker's task.
        commands: Stream of the parent's commands.
        answers: Stream to the parent.

    Attributes:
        info: Further entries of the first answer, such as the number of weights.
        warm: Whether the warm-up is over.
        turn_seconds: Requested length of the current turn.
    """

    def __init__(self, job: Job, commands: TextIO, answers: TextIO) -> None:
        self.job = job
        self.commands, self.answers = commands, answers
        self.steps = 0
        self.warm = False
        self.turn_seconds = 0.0
        self.images, self.seconds = 0, 0.0
        self.profiler: Any = None
        self.info: dict[str, object] = {}

    def record_window(self, steps: int, images: int, seconds: float, loss: float | None) -> None:
        """Adds some steps to the current turn.

        At the end of the warm-up or of a turn, this sends an answer and blocks until the next turn.

        Args:
            steps: Number of optimizer steps.
            images: Number of images in these steps.
            seconds: Time that the steps took.
            loss: Mean loss of the last 50 steps in nats per image. The loss at the end of the warm-up is compared.
        """
        self.steps += steps
        if not self.warm:
            if self.steps < self.job.warm_up:
                return
            self.warm = True
            self.send({"ready": True, "loss": loss, **self.info})
            self.wait_for_turn()
            return
        self.images += images
        self.seconds += seconds
        if self.seconds >= self.turn_seconds:
            self.send({"images": self.images, "seconds": self.seconds, "loss": loss, **self._busy_share()})
            self.wait_for_turn()

    def send(self, message: Mapping[str, object]) -> None:
        """Sends a message to the parent."""
        self.answers.write(json.dumps(message) + "\n")
        self.answers.flush()

    def wait_for_turn(self) -> None:
        """Blocks until the next turn. Ends the process if the parent closed the pipe."""
        line = self.commands.readline()
        if not line:
            raise SystemExit(0)
        command = json.loads(line)
        self.turn_seconds = command["seconds"]
        self.images, self.seconds = 0, 0.0
        if command.get("profile"):
            import torch

            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profiler.start()

    def _busy_share(self) -> dict[str, float]:
        """Returns the share of a profiled turn in which the GPU ran kernels or copies. These do not overlap."""
        if self.profiler is None:
            return {}
        from torch.autograd import DeviceType

        self.profiler.stop()
        events = [e for e in self.profiler.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        self.profiler = None
        return {"busy": sum(e.time_range.elapsed_us() for e in events) / 1e6 / self.seconds}


class Worker:
    """The parent's end of the pipe. The constructor starts a process and returns when it is warm.

    Args:
        script: Script that is run with `--worker JOB`.
        job: The worker's task.
        start_seconds: A worker that is not warm by then is ended.

    Raises:
        SkippedError: If the backend cannot run on this machine.
        WorkerDiedError: If the process ended.
    """

    def __init__(self, script: Path, job: Job, start_seconds: float = START_SECONDS) -> None:
        self.job = job
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # open as long as the process runs
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
        self.ready = self._read(start_seconds)
        if "skipped" in self.ready:
            self.stop()
            raise SkippedError(self.ready["skipped"])

    def turn(self, seconds: float, *, profile: bool = False) -> dict[str, Any]:
        """Lets the worker train for about `seconds` and returns its answer.

        Raises:
            WorkerDiedError: If the process ended.
        """
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"seconds": seconds, "profile": profile}) + "\n")
            self.process.stdin.flush()
        return self._read(TURN_SECONDS)

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def _read(self, seconds: float) -> dict[str, Any]:
        """Returns the next answer. Ends the process if there is none within some seconds."""
        assert self.process.stdout
        timer, start = threading.Timer(seconds, self.process.kill), time.monotonic()
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if line:
            return dict(json.loads(line))
        code = self.process.wait()
        self.log.seek(0)
        waited = f"after {time.monotonic() - start:.0f} s"
        raise WorkerDiedError(f"{waited} the worker ended with code {code}\n{self.log.read()[-STDERR_TAIL:]}")


def serve(job: Job, backend: Callable[[Job, WorkerChannel], None]) -> None:
    """Runs a backend in a worker process. Output of other code goes to stderr, so stdout contains only answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    channel = WorkerChannel(job, sys.stdin, answers)
    try:
        backend(job, channel)
    except SkippedError as error:
        channel.send({"skipped": str(error)})
    except ModuleNotFoundError as error:
        channel.send({"skipped": f"the package {error.name} is not installed"})
