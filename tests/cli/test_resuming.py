"""vaezoo train --resume: what it resumes, and what it refuses."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

START = ("train", "mlp-vae", "-o", "hidden=8", "--steps", 6, "--eval-every", 2, "--batch-size", 50, "--resume")


@pytest.fixture
def stopped(run, inside):
    """A run, r, that was killed after four of six steps. Returns its result without the interruption."""
    assert run(*START, "r")[0] == 0
    result = Path("r/result.json").read_bytes()
    Path("r/result.json").unlink()
    shutil.rmtree("r/checkpoints/step-00000006")
    return result


@pytest.mark.parametrize("arguments", [("train", "--resume", "r"), ("train", "--resume", "r/"), (*START, "r")])
def test_killed_run_is_resumed(arguments, stopped, run):
    code, out, err = run(*arguments)
    assert code == 0 and "vaezoo sample r" in out
    assert Path("r/result.json").read_bytes() == stopped
    assert "resuming after step 4" in err


@pytest.mark.parametrize(
    ("name", "hint"), [("examples.safetensors", "delete it"), ("result.json", "delete it, and resume the run")]
)
def test_hint_for_damaged_file_works(name, hint, stopped, run):
    before = Path("r/metrics.jsonl").read_bytes()
    Path("r", name).write_bytes(stopped[:-9])
    code, _, err = run("train", "--resume", "r")
    assert code == 3 and f"r/{name} is damaged" in err and err.endswith(f"hint: {hint}\n")
    assert Path("r/metrics.jsonl").read_bytes() == before  # the error comes before the training
    Path("r", name).unlink()
    assert run("train", "--resume", "r")[0] == 0
    assert Path("r/result.json").read_bytes() == stopped


def test_run_without_intact_checkpoint(stopped, run):
    for file in Path("r").rglob("model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    for command in (("sample", "r"), ("train", "--resume", "r")):
        code, _, err = run(*command)
        assert code == 3 and err.endswith("hint: train again: no other checkpoint is complete\n")


def test_missing_record_is_not_overwritten(stopped, run):
    Path("r/run.json").unlink()
    code, _, err = run("train", "--resume", "r")
    assert code == 3 and "hint: restore its run.json" in err


@pytest.mark.slow
def test_latest_is_newest_run(run, inside):
    for model in ("mlp-vae", "conv-vae"):
        assert run("train", model, "--steps", 1, "--batch-size", 16)[0] == 0
    os.utime("runs/mlp-vae-digits-1/run.json", (1, 1))
    for arguments, name in (((), "conv-vae"), (("mlp-vae",), "mlp-vae")):
        code, out, _ = run("train", *arguments, "--resume", "latest", "--json")
        assert code == 0 and json.loads(out)["model"] == name


def test_finished_run_stays_unchanged(run, inside):
    assert run(*START, "r")[0] == 0
    before = {file: file.read_bytes() for file in Path("r").rglob("*") if file.is_file()}
    code, out, _ = run(*START, "r")
    assert code == 0 and "the training was already finished" in out and "vaezoo sample r" in out
    assert {file: file.read_bytes() for file in Path("r").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("train", "--resume", "r", "--lr", 0.5), "r was started with --lr 0.001, not 0.5"),
        (("train", "--resume", "r", "--steps", 3), "r has 4 steps already, more than 3"),
        (("train", "--resume", "r", "--init-from", "r"), "r was started without --init-from"),
        (("train", "--resume", "r", "--data", "shapes"), "r was started with --data digits, not shapes"),
        (("train", "conv-vae", "--resume", "r"), "r was started with MODEL vaezoo/mlp-vae, not vaezoo/conv-vae"),
        (("train", "mlp-vae", "--resume", "r", "-o", "hidden=9,7"), "r was started with -o hidden 8, not 9,7"),
        (("train", "--resume", "r", "-o", "latent_dim=2"), "r was started with -o latent_dim 20, not 2"),
        (
            ("train", "--resume", "r", "--likelihood", "gaussian"),
            "r was started with --likelihood bernoulli, not gaussian",
        ),
        (("train", "--resume", "r", "--clip-grad", 5), "r was started with --clip-grad none, not 5.0"),
    ],
)
def test_changed_settings_are_refused(arguments, error, stopped, run):
    code, _, err = run(*arguments)
    assert code == 2 and error in err.splitlines()[-2]


def test_equal_settings_are_accepted(stopped, run):
    same = ("--log-csv", "--likelihood", "bernoulli", "--data", "digits", "--compile", "auto")
    assert run("train", "--resume", "r", "--device", "cpu", "--workers", 0, *same)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("train", "--resume", "latest"), 3, "no run in runs/"),
        (("train", "--resume", "nowhere"), 3, "nowhere is not a run folder"),
        (("train", "mlp-vae", "--resume", "a", "--out", "b"), 2, "--resume and --out both name a run folder"),
        (
            ("train", "mlp-vae", "--steps", 5, "--epochs", 2),
            2,
            "--steps and --epochs both set the length of the training",
        ),
        (("train",), 2, "there is no MODEL to train"),
    ],
)
def test_impossible_resumes_are_refused(arguments, code, error, run, inside):
    actual, _, err = run(*arguments)
    assert actual == code and error in err
    assert not any(Path().iterdir())


def test_finished_run_gets_longer(run, inside):
    assert run(*START, "whole")[0] == 0
    assert run(*START[:4], "--steps", 4, *START[6:], "parts")[0] == 0
    code, out, err = run("train", "--resume", "parts", "--steps", 6)
    assert code == 0 and "resuming after step 4" in err and "6 steps on" in err
    for name in ("run.json", "result.json", "metrics.jsonl", "checkpoints/step-00000006/model.safetensors"):
        assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()
    code, out, _ = run("train", "--resume", "parts", "--steps", 6)
    assert code == 0 and "the training was already finished" in out


def test_moved_data_are_named(run, inside):
    np.save("old.npy", np.random.default_rng(0).random((60, 5), np.float32))
    assert run("train", "mlp-vae", "--data", "old.npy", "--epochs", 1, "--batch-size", 20, "--out", "r")[0] == 0
    Path("old.npy").rename("new.npy")
    code, _, err = run("train", "--resume", "r", "--epochs", 2)
    assert code == 3 and "are no longer at" in err and "--data" in err.splitlines()[-1]
    code, _, err = run("train", "--resume", "r", "--data", "nowhere.npy")
    assert code == 3 and "no file or folder" in err
    assert run("train", "--resume", "r", "--epochs", 2, "--data", "new.npy")[0] == 0
    assert run("eval", "r", "--elbo-samples", 1)[0] == 0 and len([*Path("r/eval").iterdir()]) == 1


def test_warm_start(run, inside):
    assert run(*START, "first")[0] == 0
    command = ("train", "mlp-vae", "-o", "hidden=8", "--steps", 2, "--batch-size", 50, "--init-from", "first")
    assert run(*command, "--resume", "second")[0] == 0
    assert json.loads(Path("second/run.json").read_text())["init_from"]["step"] == 6
    assert run(*command, "--resume", "second")[0] == 0  # the same line again
    code, _, err = run("train", "mlp-vae", "--init-from", "first", "--out", "third")
    assert code == 3 and "do not fit mlp-vae" in err and not Path("third").exists()


def test_options_of_parts_are_compared(run, inside):
    start = ("train", "mlp-vae", "-o", "hidden=8", "--steps", 2, "--batch-size", 50, "--objective", "iwae", "-o", "k=2")
    assert run(*start, "--resume", "r")[0] == 0
    assert json.loads(Path("r/run.json").read_text())["options"]["objective.k"] == 2
    assert run(*start[:-1], "objective.k=2", "--resume", "r")[0] == 0
    code, _, err = run(*start[:-1], "k=3", "--resume", "r")
    assert code == 2 and "was started with -o objective.k 2, not 3" in err
