"""The computations of benchmarks/: statistics, tables, operation counts and workers. No test asserts a time."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo.data.sound.sound_files import write_wav

SHORT = vaezoo.TrainConfig(steps=1, batch_size=5, device="cpu")
FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that imports a module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.fixture
def job(script: Any) -> Any:
    """A small job for the backend "plain"."""
    return script("reference_model").Job(
        backend="plain",
        network="mlp",
        batch=2,
        device="cpu",
        threads=torch.get_num_threads(),
        data="digits",
        data_dir=None,
        warm_up=100,
        seconds=1.0,
    )


def test_ratios_pair_rounds(script: Any) -> None:
    tables = script("tables")
    # The second round was slow for both, and in the third only one ran.
    assert tables.ratios({0: 200.0, 1: 20.0, 2: 300.0}, {0: 100.0, 1: 10.0}) == [2.0, 2.0]
    assert tables.ratios({0: 1.0}, {1: 1.0}) == []


def test_quartiles_use_all_values(script: Any) -> None:
    quartiles = script("tables").quartiles
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == {"p25": 2.0, "p50": 3.0, "p75": 4.0, "n": 5}
    assert quartiles([]) == {"n": 0}


def test_peak_is_largest_median(script: Any) -> None:
    rounds = [{"fp32 1": 1.0, "fp32 2": 3.0, "bf16 1": 9.0, "bf16 2": 4.0} for _ in range(2)]
    rounds.append({"fp32 1": 50.0, "fp32 2": 3.0, "bf16 1": 9.0, "bf16 2": 4.0})
    assert script("train_results").peaks(rounds) == {"fp32": 3.0, "bf16": 9.0}
    assert script("train_results").peaks([]) == {}


def test_rows_compare_backends(script: Any) -> None:
    rates = {"plain": {0: 100.0, 1: 50.0}, "vaezoo compiled bf16": {0: 300.0, 1: 150.0}, "jax": {}}
    info = {name: {"parameters": 5, "loss": 100.0} for name in rates}
    plain, compiled, jax = script("train_results").make_rows(rates, 10, {"fp32": 1000.0, "bf16": 5000.0}, info)
    assert compiled["over"]["plain"]["p50"] == 3.0
    assert compiled["over"]["jax"] == {"n": 0}
    assert compiled["of_peak"] == pytest.approx(225 * 10 / 5000)
    assert plain["of_peak"] == pytest.approx(75 * 10 / 1000)
    assert "plain" not in plain["over"]
    assert "of_peak" not in jax


def test_deviating_loss_is_reported(script: Any) -> None:
    losses = {"a": 100.0, "b": 101.0, "c": 130.0, "d": float("nan"), "e": 100.5}
    rows = [{"backend": name, "precision": "fp32", "loss": loss} for name, loss in losses.items()]
    lines = script("train_results").check_losses([*rows, {"backend": "x", "precision": "bf16", "loss": 0.0}])
    assert [line.partition(":")[0] for line in lines] == ["c", "d"]


def test_mlp_flops_match_closed_form(script: Any) -> None:
    reference_model = script("reference_model")
    forward = 2 * (784 * 512 + 512 * 40 + 20 * 512 + 512 * 784)
    first = 2 * 784 * 512  # the gradient of the image is not computed
    assert reference_model.flops_per_image("mlp") == 3 * forward - first


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_plain_network_matches_zoo(script: Any, network: str) -> None:
    reference_model = script("reference_model")
    name, options = reference_model.MODELS[network]
    vae = vaezoo.create_model(name, vaezoo.DataSpec(name="digits", shape=(1, 28, 28)), options)
    expected = [tuple(p.shape) for p in reference_model.PlainVAE(network).parameters()]
    assert [tuple(p.shape) for p in vae.parameters()] == expected


def test_new_cases_replace_old(script: Any) -> None:
    def case(network: str, batch: int, version: str, mark: int) -> dict[str, Any]:
        return {"network": network, "batch": batch, "environment": {"versions": {"torch": version}}, "mark": mark}

    merge = script("train_results").merge
    old = merge(None, [case("conv", 512, "2", 1), case("mlp", 128, "2", 2)])
    assert [c["mark"] for c in old["cases"]] == [2, 1]
    assert [c["mark"] for c in merge(old, [case("mlp", 128, "2", 3)])["cases"]] == [3, 1]
    assert [c["mark"] for c in merge(old, [case("mlp", 128, "3", 3)])["cases"]] == [3]


def test_tables_replace_marked_text(script: Any, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- a: written by b.py -->\nold\n<!-- /a -->\nafter\n")
    for _ in range(2):
        script("tables").put_tables("a", "b.py", ["| x |"], readme)
    assert readme.read_text() == "before\n<!-- a: written by b.py -->\n\n| x |\n\n<!-- /a -->\nafter\n"


def test_readme_has_current_tables(script: Any) -> None:
    overhead = script("checkpoint_overhead")
    tables = {
        "train-throughput": script("train_results").tables(FOLDER / "results"),
        "train-distributed": script("train_distributed").tables(FOLDER / "results"),
        "checkpoint-overhead": overhead.tables(json.loads(overhead.FILE.read_text("utf-8"))),
    }
    readme = (FOLDER / "README.md").read_text("utf-8")
    for name, lines in tables.items():
        (text,) = re.findall(rf"<!-- {name}: written by \w+\.py -->\n\n(.*?)\n\n<!-- /{name} -->", readme, re.DOTALL)
        assert text == "\n".join(lines).strip("\n")


def test_channel_answers_after_turns(script: Any, job: Any) -> None:
    answers = io.StringIO()
    channel = script("train_workers").WorkerChannel(job, io.StringIO('{"seconds": 1.0}\n'), answers)
    channel.info["parameters"] = 7
    channel.record_window(50, 100, 0.6, 3.0)
    assert not answers.getvalue()
    channel.record_window(50, 100, 0.6, 2.0)
    channel.record_window(50, 100, 0.6, 1.5)
    with pytest.raises(SystemExit):  # the parent closed the pipe
        channel.record_window(50, 100, 0.6, 1.0)
    ready, turn = (json.loads(line) for line in answers.getvalue().splitlines())
    assert ready == {"ready": True, "loss": 2.0, "parameters": 7}
    assert turn == {"images": 200, "seconds": 1.2, "loss": 1.0}


@pytest.mark.parametrize("backend", ["tutorial", "plain", "vaezoo"])
def test_backend_trains(script: Any, job: Any, backend: str) -> None:
    answers = io.StringIO()
    channel = script("train_workers").WorkerChannel(job, io.StringIO('{"seconds": 1e-9}\n'), answers)
    with pytest.raises(SystemExit):
        script("baselines").BACKENDS[backend](job, channel)
    ready, turn = (json.loads(line) for line in answers.getvalue().splitlines())
    assert ready["parameters"] == 835_384
    assert turn["images"] == 100
    assert 0 < turn["loss"] < 784 * math.log(2)  # the loss of a decoder whose logits are all zero


@pytest.mark.parametrize("backend", ["pythae", "vaezoo"])
@pytest.mark.parametrize("name", ["autoencoder", "vae, dense"])
def test_models_of_both_zoos_train(script: Any, job: Any, name: str, backend: str) -> None:
    if backend == "pythae":
        pytest.importorskip("pythae")
    answers = io.StringIO()
    channel = script("train_workers").WorkerChannel(job, io.StringIO('{"seconds": 1e-9}\n'), answers)
    with pytest.raises(SystemExit):
        script("train_zoo").train(dataclasses.replace(job, network=name, backend=backend), channel)
    ready, turn = (json.loads(line) for line in answers.getvalue().splitlines())
    assert ready["parameters"] == {"autoencoder": 473_636, "vae, dense": 476_216}[name]
    assert turn["images"] == 100


def test_silent_worker_is_ended(script: Any, job: Any, tmp_path: Path) -> None:
    workers, file = script("train_workers"), tmp_path / "worker.py"
    file.write_text("import time; time.sleep(600)")
    with pytest.raises(workers.WorkerDiedError, match="code -9"):
        workers.Worker(file, job, start_seconds=0.1)


def test_worker_reports_skip_and_death(script: Any, job: Any, tmp_path: Path) -> None:
    workers, file = script("train_workers"), tmp_path / "worker.py"
    file.write_text("""print('{"skipped": "no such device"}', flush=True)""")
    with pytest.raises(workers.SkippedError, match="no such device"):
        workers.Worker(file, job)
    file.write_text("""print('{"ready": true}', flush=True); input(); raise SystemExit("out of luck")""")
    worker = workers.Worker(file, job)
    with pytest.raises(workers.WorkerDiedError, match="code 1\nout of luck"):
        worker.turn(1.0)
    worker.stop()


def test_table_of_large_images(script: Any) -> None:
    def row(backend: str, batch: int, **extra: Any) -> dict[str, Any]:
        own = {"task": "decoder", "size": 512, "batch": batch, "backend": backend, "p50": 1234.5, "max_abs": 2.1e-6}
        return {**own, "memory": 1500.4, **extra}

    rows = [row("eager", 1), row("compile", 1, memory=None), row("ort-cpu", 1, over_eager=1.312, over_best=1.1)]
    first, second = script("large_images").table_rows([*rows, row("eager", 4)])
    eager, compiled = "1234 ms, 1,500 MB, 2e-06", "1234 ms, 2e-06"
    assert first == ["decoder", "512", "1", eager, "", compiled, eager, "1.31", "1.10"]
    assert second == ["decoder", "512", "4", eager, "", "", "", "", ""]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "ort-cpu"])
def test_peak_memory_is_that_of_the_activations(script: Any, tmp_path: Path, backend: str) -> None:
    """The decoder of 512x512 pixels with 4 channels has activations of 4 MiB, and two of them at a time at least."""
    memory, large_images = script("large_images_memory"), script("large_images")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc")
    run = large_images.train_a_step("tiny-autoencoder", large_images.SMALL["tiny-autoencoder"], tmp_path)
    workload = importlib.import_module("vaezoo.bench.models").from_run(run, 512)
    peaks = [memory.peak_memory(run.path, workload, "decoder", batch, backend, 1) for batch in (1, 4)]
    assert 8 < peaks[0] < 200 and 3 * 8 < peaks[1] - peaks[0] < 300


def test_speech_holds_out_a_speaker(script: Any, tmp_path: Path) -> None:
    speech = script("speech")
    (tmp_path / "recordings").mkdir()
    rng = np.random.default_rng(0)
    for speaker in (speech.SPEAKER, "ann"):
        for digit in range(3):
            for index in (0, 5, 6):
                sound = write_wav(0.1 * rng.standard_normal(4_000), 8_000)
                (tmp_path / "recordings" / f"{digit}_{speaker}_{index}.wav").write_bytes(sound)
    data = speech.load(tmp_path / "recordings", tmp_path / "parts")
    assert {name.split("_")[1] for name in (*data.train.names, *data.valid.names)} == {"ann"}
    found = speech.groups(data)
    assert [len(found[name].x) for name in ("train", "speaker", "others")] == [5, 9, 3]
    assert found["others"].digit.tolist() == [0, 1, 2]
    run = vaezoo.train(
        "spectrogram-vae", data, options={"channels": "4", "latent_dim": 2}, config=SHORT, out=tmp_path / "r"
    )
    for row in speech.figures(run, data).values():
        assert row["error"] > 0 and 0 <= row["heard"] <= 1 and row["pca_error"] > 0
