"""Signals: whatever a command does, it ends in time, says so in two lines, and loses nothing."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from injector import ALL, CORES
from PIL import Image
from processes import ENVIRONMENT, wait_for

from vaezoo.training.checkpoint import list_checkpoints

HERE = Path(__file__).parent
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
LIMIT = 10  # seconds from a signal to the end

TRAINING = ("compile", "first step", "train", "evaluate", "save")
CELLS = list(
    itertools.product(("import", *TRAINING, "sample", "export"), CODES, ("process", "group"), (0, 2)),
)
# Each moment once, with each signal, one process and whole groups, with threads that load and without.
SOME = [cell for i, cell in enumerate(CELLS) if i % 12 == 5 * (i // 12) % 12]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image folder, so that threads decode."""
    folder = tmp_path_factory.mktemp("images")
    for i, x in enumerate(np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)):
        Image.fromarray(x).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A small run that is done."""
    where = tmp_path_factory.mktemp("finished")
    subprocess.run(command(images, 0), cwd=where, env=ENVIRONMENT, check=True, capture_output=True)
    return where / "runs" / "x"


def command(images, workers, *more):
    settings = ["--data", images, "--stream", "--steps", "20", "--batch-size", "9", "--eval-every", "10"]
    train = ["train", "mlp-vae", "-o", "hidden=8", *settings, "--workers", workers, "--resume", "runs/x", *more]
    return [sys.executable, "-m", "vaezoo_cli", *map(str, train)]


def test_a_signal_ends_any_command_in_time_and_loses_nothing(images, finished, tmp_path, tell):
    def trial(numbered):
        number, cell = numbered
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            interrupt(*cell, images, finished, folder)
        except (AssertionError, subprocess.TimeoutExpired) as e:
            return f"{cell}: {e}"

    cells = CELLS if ALL else SOME
    with ThreadPoolExecutor(CORES) as pool:
        told = list(pool.map(trial, enumerate(cells)))
    tell("S1", len(cells), [bad for bad in told if bad])


def interrupt(moment, number, target, workers, images, finished, folder):
    """Sends a signal to a command at a moment, and looks at how it ends."""
    arguments = command(images, workers, *(["--compile", "on"] if moment == "compile" else []))[3:]
    if moment in ("sample", "export"):
        shutil.copytree(finished, folder / "runs" / "x")
        arguments = [moment, "runs/x", *(["--onnx"] if moment == "export" else [])]
    reached = folder / "reached"
    process = subprocess.Popen(
        [sys.executable, HERE / "signalled.py", moment, reached, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(reached, process)
    (os.kill if target == "process" else os.killpg)(process.pid, number)
    try:
        _, told = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == CODES[number], told
    *_, error, hint = told.splitlines()
    assert error.startswith("vaezoo: error: ") and hint.startswith("hint: ") and "Traceback" not in told, told
    assert [*folder.rglob(".tmp-*")] == [] and not (folder / "exports").exists()
    if moment in TRAINING:
        newest = list_checkpoints(folder / "runs" / "x" / "checkpoints")[0][-1].step
        where_it_was = {"compile": 0, "first step": 1, "train": 7, "evaluate": 0, "save": 1}
        assert newest == where_it_was[moment], newest
        assert f"step {newest} of 20 is saved" in hint, told


def test_a_second_interrupt_ends_a_command_at_once(tmp_path):
    program = (
        "import time; from vaezoo import stopping\n"
        "with stopping.listening(), stopping.held():\n"
        "    open('reached', 'w').close()\n"
        "    until = time.monotonic() + 60\n"
        "    while time.monotonic() < until: time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=ENVIRONMENT)
    wait_for(tmp_path / "reached", process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # the echo of a launcher
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130


def test_what_a_process_was_started_to_ignore_stays_ignored(tmp_path):
    program = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from vaezoo import stopping\n"
        "with stopping.listening():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "assert not stopping.asked()\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
