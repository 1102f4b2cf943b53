"""Signals S1 and S2: whatever a command does, it ends in time, says so in two lines, and loses nothing."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaezoo.training.checkpoint import list_checkpoints

HERE = Path(__file__).parent
ALL = os.environ.get("VAEZOO_FAULTS") == "all"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
LIMIT = 10  # seconds from a signal to the end

TRAINING = ("compile", "first step", "train", "evaluate", "save")
CELLS = list(
    itertools.product(("import", *TRAINING, "sample", "export"), CODES, ("process", "group"), (0, 2)),
)
# Each moment once, with each signal, one process and whole groups, with threads that load and without.
SOME = [cell for i, cell in enumerate(CELLS) if i % 12 == 5 * (i // 12) % 12]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """An image folder, so that threads decode."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, x in enumerate(np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)):
        Image.fromarray(x).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A small run that is done."""
    where = tmp_path_factory.mktemp("finished")
    subprocess.run(command(pictures, 0), cwd=where, env=ENVIRONMENT, check=True, capture_output=True)
    return where / "runs" / "x"


def command(pictures, workers, *more):
    settings = ["--data", pictures, "--stream", "--steps", "20", "--batch-size", "9", "--eval-every", "10"]
    train = ["train", "mlp-vae", "-o", "hidden=8", *settings, "--workers", workers, "--resume", "runs/x", *more]
    return [sys.executable, "-m", "vaezoo_cli", *map(str, train)]


@pytest.mark.parametrize(("moment", "number", "target", "workers"), CELLS if ALL else SOME)
def test_a_signal_ends_a_command_in_time_and_loses_nothing(
    moment, number, target, workers, pictures, finished, tmp_path
):
    arguments = command(pictures, workers, *(["--compile", "on"] if moment == "compile" else []))[3:]
    if moment in ("sample", "export"):
        shutil.copytree(finished, tmp_path / "runs" / "x")
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
    wait_for(reached, process)
    (os.kill if target == "process" else os.killpg)(process.pid, number)
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == CODES[number], told
    *_, error, hint = told.splitlines()
    assert error.startswith("vaezoo: error: ") and hint.startswith("hint: ") and "Traceback" not in told
    assert [*tmp_path.rglob(".tmp-*")] == [] and not (tmp_path / "exports").exists()
    if moment in TRAINING:
        newest = list_checkpoints(tmp_path / "runs" / "x" / "checkpoints")[0][-1].step
        where_it_was = {"compile": 0, "first step": 1, "train": 7, "evaluate": 0, "save": 1}
        assert newest == where_it_was[moment]
        assert f"step {newest} of 20 is saved" in hint


def wait_for(file, process, seconds=60):
    until = time.monotonic() + seconds
    while not file.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert file.exists(), process.communicate(timeout=5)


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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of two ranks that nobody disturbed."""
    where = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(together(), cwd=where, env=ENVIRONMENT, check=True, capture_output=True, timeout=120)
    return contents(where / "runs" / "x")


def together(*launcher):
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *launcher]
    settings = ["-o", "hidden=600,600", "--batch-size", "250", "--steps", "150", "--eval-every", "30"]
    return [*ranks, "-m", "vaezoo_cli", "train", "mlp-vae", *settings, "--resume", "runs/x"]


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (".lock", "run.json")
    }


def members(pid):
    """The processes that a launcher started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


WAYS = {
    "TERM to the launcher": (signal.SIGTERM, None),
    "TERM to one rank": (signal.SIGTERM, 1),
    "KILL to one rank": (signal.SIGKILL, 1),
    "KILL to the launcher": (signal.SIGKILL, None),
}


@pytest.mark.parametrize("way", [*WAYS] * 3 if ALL else ["TERM to one rank", "KILL to the launcher"])
def test_ranks_end_together_and_go_on_to_the_same_bytes(way, undisturbed, tmp_path):
    number, victim = WAYS[way]
    process = subprocess.Popen(together(), cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "runs/x/checkpoints/step-00000030", process)
    ranks = members(process.pid)
    os.kill(process.pid if victim is None else ranks[victim], number)
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in ranks) and time.monotonic() < until:
        process.poll()
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks), "a rank goes on"
    told = process.communicate(timeout=30)[1]
    assert process.returncode != 0
    if number == signal.SIGTERM:
        step = list_checkpoints(tmp_path / "runs/x/checkpoints")[0][-1].step
        assert step % 30, "saved where it was"
        assert f"step {step} of 150 is saved" in told
    subprocess.run(together(), cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True, timeout=120)
    assert contents(tmp_path / "runs" / "x") == undisturbed


@pytest.mark.skipif(not ALL, reason="VAEZOO_FAULTS=all runs the whole matrix")
def test_a_launcher_that_restarts_ranks_ends_in_the_same_bytes(undisturbed, tmp_path):
    process = subprocess.Popen(
        together("--max-restarts", "1"), cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path / "runs/x/checkpoints/step-00000060", process)
    os.kill(members(process.pid)[1], signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    assert contents(tmp_path / "runs" / "x") == undisturbed
