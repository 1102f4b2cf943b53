"""Signals to the processes of one training or to their launcher: all end together and resume to the same bytes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from injector import ALL_FAULTS
from processes import ENVIRONMENT, HANG_SECONDS, wait_for

from vaezoo.training.checkpoint import list_checkpoints

pytestmark = pytest.mark.slow
STEPS, EVAL_EVERY, SIGNAL_STEP = 20, 10, 17  # the processes wait for the signal before they take step SIGNAL_STEP
SIGNALLED = [str(Path(__file__).with_name("signalled.py")), f"step {SIGNAL_STEP}", "reached"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a run of two processes without signals."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(folder)


def torchrun(*program, launcher=()):
    settings = ["-o", "hidden=8", "--batch-size", "250", "--steps", str(STEPS), "--eval-every", str(EVAL_EVERY)]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *launcher),
        *(*program, "train", "mlp-vae", *settings, "--resume", "runs/x"),
    ]


def train(folder):
    """Trains or resumes to the end and returns the contents of the run."""
    command = torchrun("-m", "vaezoo_cli")
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True, timeout=HANG_SECONDS)
    return contents(folder / "runs" / "x")


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (".lock", "run.json")
    }


def start_and_wait(folder, *launcher):
    """Starts a training, waits until both processes have reached the step, and returns the launcher and their ids."""
    command = torchrun(*SIGNALLED, launcher=launcher)
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    files = [folder / f"reached-{rank}" for rank in range(2)]
    for file in files:
        wait_for(file, process)
    return process, [int(file.read_text()) for file in files]


WAYS = {
    "TERM to the launcher": (signal.SIGTERM, None),
    "TERM to one process": (signal.SIGTERM, 1),
    "KILL to one process": (signal.SIGKILL, 1),
    "KILL to the launcher": (signal.SIGKILL, None),
}


@pytest.mark.parametrize("way", [*WAYS] if ALL_FAULTS else ["TERM to one process", "KILL to the launcher"])
def test_signalled_training_resumes(way, undisturbed, tmp_path):
    number, rank = WAYS[way]
    process, pids = start_and_wait(tmp_path)
    os.kill(process.pid if rank is None else pids[rank], number)
    if way == "KILL to the launcher":
        process.wait(timeout=HANG_SECONDS)  # then its processes are orphans
    if way != "TERM to the launcher":  # which passes the signal on to both
        (tmp_path / "reached-release").touch()
    stderr = process.communicate(timeout=HANG_SECONDS)[1]  # it ends when all processes have ended
    assert process.returncode != 0
    newest = list_checkpoints(tmp_path / "runs/x/checkpoints")[0][-1].step
    assert newest == (EVAL_EVERY if way == "KILL to one process" else SIGNAL_STEP)
    if number == signal.SIGTERM:
        assert f"step {newest} of {STEPS} is saved" in stderr
    assert train(tmp_path) == undisturbed


@pytest.mark.skipif(not ALL_FAULTS, reason="VAEZOO_FAULTS=all runs the whole matrix")
def test_restarted_processes_finish(undisturbed, tmp_path):
    process, pids = start_and_wait(tmp_path, "--max-restarts", "1")
    os.kill(pids[1], signal.SIGKILL)
    (tmp_path / "reached-release").touch()
    process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
    assert contents(tmp_path / "runs" / "x") == undisturbed
