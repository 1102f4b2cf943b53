"""Signals: whatever a command does, it ends before its work is done, says so in two lines, and loses nothing."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from injector import ALL_FAULTS
from PIL import Image
from processes import ENVIRONMENT, HANG_SECONDS, wait_for

from vaezoo.training.checkpoint import list_checkpoints

HERE = Path(__file__).parent
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
# Moment of a training of 20 steps -> the newest checkpoint afterwards.
NEWEST_STEP = {"compile": 0, "step 1": 1, "step 7": 7, "evaluate": 0, "save": 1}
MOMENTS = ("import", *NEWEST_STEP, "sample", "export")
CASES = [*itertools.product(MOMENTS, EXIT_CODES, ("process", "group"), (0, 2))]
# One case for each moment, with all signals, both targets, and with and without threads that load data.
SELECTION = [case for i, case in enumerate(CASES) if i % 12 == 5 * (i // 12) % 12]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image folder, which makes threads decode."""
    folder = tmp_path_factory.mktemp("images")
    for i, x in enumerate(np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)):
        Image.fromarray(x).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """The run folder of a small finished training."""
    folder = tmp_path_factory.mktemp("finished")
    command = [sys.executable, "-m", "vaezoo_cli", *train_arguments(images, 0)]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    return folder / "runs" / "x"


def train_arguments(images, workers):
    settings = ["--data", images, "--stream", "--steps", "20", "--batch-size", "9", "--eval-every", "10"]
    return ["train", "mlp-vae", "-o", "hidden=8", *map(str, settings), "--workers", str(workers), "--resume", "runs/x"]


@pytest.mark.parametrize(
    ("moment", "number", "target", "workers"),
    [
        pytest.param(
            *case,
            id=f"{case[0]}-{case[1].name}-{case[2]}-{case[3]}",
            marks=[] if case in SELECTION and case[0] == "step 7" else pytest.mark.slow,
        )
        for case in (CASES if ALL_FAULTS else SELECTION)
    ],
)
def test_signal_ends_command(moment, number, target, workers, images, tmp_path, check_cases, request):
    arguments = train_arguments(images, workers) + (["--compile", "on"] if moment == "compile" else [])
    if moment in ("sample", "export"):
        shutil.copytree(request.getfixturevalue("finished"), tmp_path / "runs" / "x")
        arguments = [moment, "runs/x", *(["--onnx"] if moment == "export" else [])]
    reached = tmp_path / "reached"
    process = subprocess.Popen(
        [sys.executable, HERE / "signalled.py", moment, reached, *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(reached, process)
        (os.kill if target == "process" else os.killpg)(process.pid, number)
        _, stderr = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
    assert process.returncode == EXIT_CODES[number], stderr  # 0 would mean that the work was finished
    *_, error, hint = stderr.splitlines()
    assert error.startswith("vaezoo: error: ") and hint.startswith("hint: ") and "Traceback" not in stderr, stderr
    assert [*tmp_path.rglob(".tmp-*")] == [] and not (tmp_path / "exports").exists()
    if moment in NEWEST_STEP:
        newest = list_checkpoints(tmp_path / "runs" / "x" / "checkpoints")[0][-1].step
        assert newest == NEWEST_STEP[moment], newest
        assert f"step {newest} of 20 is saved" in hint, stderr
    check_cases("S1", 1, [])


def test_second_interrupt_ends_process():
    """It ends even where signals are deferred. The program's clock is a variable, so nothing depends on real time."""
    program = """
import signal, time
from vaezoo.core import signals

now = 0.0
time.monotonic = lambda: now
with signals.handle_signals(), signals.defer_signals():
    signal.raise_signal(signal.SIGINT)
    now = 0.9 * signals.REPEAT_WINDOW  # the echo of a launcher
    signal.raise_signal(signal.SIGINT)
    print("alive", flush=True)
    now = 1.1 * signals.REPEAT_WINDOW
    signal.raise_signal(signal.SIGINT)
    print("still alive", flush=True)
"""
    result = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert (result.returncode, result.stdout) == (130, "alive\n")


def test_ignored_signals_stay_ignored():
    program = """
import os, signal
from vaezoo.core import signals

signal.signal(signal.SIGHUP, signal.SIG_IGN)
with signals.handle_signals():
    os.kill(os.getpid(), signal.SIGHUP)
assert not signals.pending_signal()
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
