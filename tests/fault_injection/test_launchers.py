"""Signals to several ranks and to what launched them: all end together, and go on to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from injector import ALL
from processes import ENVIRONMENT, wait_for

from vaezoo.training.checkpoint import list_checkpoints


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


@pytest.mark.parametrize("way", [*WAYS] * 2 if ALL else ["TERM to one rank", "KILL to the launcher"])
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
