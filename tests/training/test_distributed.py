"""Several processes train as one: the same gradients, the same weights, one run folder, one error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import RESUMED

from vaezoo import TrainConfig, load, load_data, train

PROGRAM = Path(__file__).with_name("two_processes.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
HANG_SECONDS = 1200  # a program that takes longer hangs: on an idle machine the longest takes about a minute


def run(*command, **options):
    return subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, timeout=HANG_SECONDS, **options
    )


@pytest.mark.slow
def test_gradients_equal_one_process(tmp_path):
    files = [tmp_path / "one", tmp_path / "two"]
    for launcher, file in zip(((sys.executable,), TORCHRUN), files, strict=True):
        done = run(*launcher, PROGRAM, "gradients", file)
        assert done.returncode == 0, done.stderr
    one, two = map(load_file, files)
    assert one.keys() == two.keys() and {name.split("/")[0] for name in one} > {"vae-gan", "optimal sigma", "codebook"}
    for name, expected in one.items():
        assert expected.dtype == torch.float64
        scale = float(expected.abs().max())
        assert float((two[name] - expected).abs().max()) <= 1e-6 * scale, name
    for name, expected in one.items():  # and three micro-batches give the gradients of the whole batch
        if name.startswith("elbo/"):
            torch.testing.assert_close(one[name.replace("elbo", "grad-accum")], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.slow
def test_resume_is_exact(tmp_path):
    done = run(*TORCHRUN, PROGRAM, "resume", tmp_path)
    assert done.returncode == 0, done.stderr
    whole = sorted(tmp_path.glob("*-whole"))
    assert len(whole) == len(RESUMED)
    for path in whole:
        files = [p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file() and p.name != ".lock"]
        other = path.with_name(path.name.replace("-whole", "-parts"))
        assert [f for f in files if (path / f).read_bytes() != (other / f).read_bytes()] == [], path.name
        assert {p.name for p in other.glob("checkpoints/*")} == {p.name for p in path.glob("checkpoints/*")}


@pytest.fixture(scope="module")
def two_process_run(tmp_path_factory):
    """The folder of a run that two processes trained by the command line, and the finished command."""
    folder = tmp_path_factory.mktemp("two")
    settings = ["mlp-vae", "--epochs", "1", "--batch-size", "100", "--eval-every", "45", "--json", "--out", "both"]
    done = run(*TORCHRUN, "-m", "vaezoo_cli", "train", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "both", done


@pytest.mark.slow
def test_only_one_process_reports(two_process_run):
    path, done = two_process_run
    record = json.loads(done.stdout)
    assert record["result"]["split"] == "test" and record["images_per_second"] > 0 and record["peak_memory_mib"] > 50
    assert done.stderr.count("run folder") == 1
    steps = [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [45, 45, 50, 90, 90]


@pytest.mark.slow
def test_result_equals_one_process(two_process_run, tmp_path):
    path, _ = two_process_run
    one = train("mlp-vae", load_data("digits"), config=TrainConfig(epochs=1, batch_size=100), out=tmp_path / "one")
    elbos = [run.result["metrics"]["elbo"] for run in (load(path), one)]
    # The batches are the same, the noise differs. Noise alone spreads the ELBO by 2.5 nats (five trainings); 3 sigma.
    assert elbos[0] == pytest.approx(elbos[1], abs=3 * 2**0.5 * 2.5)


@pytest.mark.slow
def test_indivisible_batch_is_refused(tmp_path):
    done = run(*TORCHRUN, "-m", "vaezoo_cli", "train", "mlp-vae", "--batch-size", "3", cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("vaezoo: error: batch size 3 cannot be divided into 2 equal parts") == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_error_of_rank_0_reaches_all(tmp_path):
    """Only rank 0 looks at the run folder."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a file").touch()
    settings = ["mlp-vae", "--batch-size", "100", "--out", tmp_path / "there"]
    done = run(*TORCHRUN, "-m", "vaezoo_cli", "train", *settings)
    assert done.stderr.count("there exists and is not empty") == 2 and "SIGKILL" not in done.stderr


@pytest.mark.slow
def test_failed_process_stops_all(tmp_path):
    done = run(*TORCHRUN, PROGRAM, "fail", tmp_path / "run")
    assert done.returncode != 0
    resume = f"vaezoo train --resume {tmp_path / 'run'}"
    message = f"StorageError: the disk of one process is full (free some space; then {resume})"
    assert done.stderr.count(message) == 2, done.stderr
