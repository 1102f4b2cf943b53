"""Several processes that train as one: the same gradients, the same weights, one run folder, one fate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vaezoo import TrainConfig, list_models, load, load_data, train

PROGRAM = Path(__file__).with_name("two_processes.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def run(*command, timeout=120, **settings):
    """Runs a program; one that hangs fails the test."""
    return subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, **settings
    )


def test_two_processes_find_the_gradients_of_one(tmp_path):
    files = [tmp_path / "one", tmp_path / "two"]
    for launcher, file in zip(((sys.executable,), TORCHRUN), files, strict=True):
        done = run(*launcher, PROGRAM, "gradients", file)
        assert done.returncode == 0, done.stderr
    one, two = map(load_file, files)
    assert one.keys() == two.keys() and {name.split("/")[0] for name in one} > {"vae-gan", "optimal sigma"}
    for name, expected in one.items():
        assert expected.dtype == torch.float64
        scale = float(expected.abs().max())
        assert float((two[name] - expected).abs().max()) <= 1e-6 * scale, name
    for name, expected in one.items():  # and three parts of a batch give the gradients of the whole
        if name.startswith("elbo/"):
            torch.testing.assert_close(one[name.replace("elbo", "grad-accum")], expected, rtol=1e-6, atol=1e-12)


def test_two_processes_that_were_stopped_end_in_the_same_bytes(tmp_path):
    done = run(*TORCHRUN, PROGRAM, "resume", tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    whole = sorted(tmp_path.glob("*-whole"))
    assert len(whole) == 2 * sum(r.distribution == "vaezoo" for r in list_models())
    for path in whole:
        files = [p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file() and p.name != ".lock"]
        other = path.with_name(path.name.replace("-whole", "-parts"))
        assert [f for f in files if (path / f).read_bytes() != (other / f).read_bytes()] == [], path.name
        assert {p.name for p in other.glob("checkpoints/*")} == {p.name for p in path.glob("checkpoints/*")}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A run of two ranks by the command line, and what it printed."""
    where = tmp_path_factory.mktemp("ranks")
    settings = ["mlp-vae", "--epochs", "1", "--batch-size", "100", "--eval-every", "45", "--json", "--out", "both"]
    done = run(*TORCHRUN, "-m", "vaezoo_cli", "train", *settings, cwd=where)
    assert done.returncode == 0, done.stderr
    return where / "both", done


def test_two_processes_write_one_run_and_speak_with_one_voice(together):
    path, done = together
    told = json.loads(done.stdout)
    assert told["result"]["split"] == "test" and told["images_per_second"] > 0 and told["peak_memory_mib"] > 50
    assert done.stderr.count("run folder") == 1
    steps = [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [45, 45, 50, 90, 90]


def test_two_processes_train_as_well_as_one(together, tmp_path):
    path, _ = together
    alone = train("mlp-vae", load_data("digits"), config=TrainConfig(epochs=1, batch_size=100), out=tmp_path / "one")
    bounds = [run.result["metrics"]["elbo"] for run in (load(path), alone)]
    # The same batches, other noise, which alone spreads the bound by 2.5 nats (five trainings): three sigma.
    assert bounds[0] == pytest.approx(bounds[1], abs=3 * 2**0.5 * 2.5)


def test_ranks_that_cannot_share_a_batch_are_refused(tmp_path):
    done = run(*TORCHRUN, "-m", "vaezoo_cli", "train", "mlp-vae", "--batch-size", "3", cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("vaezoo: error: batch size 3 cannot be divided into 2 equal parts") == 2
    assert not (tmp_path / "runs").exists()


def test_what_the_first_rank_alone_can_see_is_told_by_all(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a file").touch()
    done = run(
        *TORCHRUN,
        "-m",
        "vaezoo_cli",
        "train",
        "mlp-vae",
        "--batch-size",
        "100",
        "--out",
        tmp_path / "there",
        timeout=60,
    )
    assert done.stderr.count("there is in the way: it exists and is not empty") == 2 and "SIGKILL" not in done.stderr


def test_a_rank_that_fails_stops_all_with_its_error(tmp_path):
    done = run(*TORCHRUN, PROGRAM, "fail", tmp_path / "run", timeout=60)
    assert done.returncode != 0
    told = f"StorageError: the disk of one rank is full (free some; then vaezoo train --resume {tmp_path / 'run'})"
    assert done.stderr.count(told) == 2, done.stderr
