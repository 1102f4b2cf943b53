"""`vaezoo train --resume`: what it goes on with, what it refuses."""

import json
import os
import shutil
from pathlib import Path

import pytest

BEGIN = ("train", "mlp-vae", "-o", "hidden=8", "--steps", 6, "--eval-every", 2, "--batch-size", 50, "--resume")


@pytest.fixture
def stopped(run, inside):
    """A run, r, that was killed after four of six steps."""
    assert run(*BEGIN, "r")[0] == 0
    result = Path("r/result.json").read_bytes()
    Path("r/result.json").unlink()
    shutil.rmtree("r/checkpoints/step-00000006")
    return result


@pytest.mark.parametrize("arguments", [("train", "--resume", "r"), ("train", "--resume", "r/"), (*BEGIN, "r")])
def test_a_killed_run_goes_on(arguments, stopped, run):
    code, out, err = run(*arguments)
    assert code == 0 and "vaezoo sample r" in out
    assert Path("r/result.json").read_bytes() == stopped
    assert "going on after step 4" in err


@pytest.mark.parametrize(
    ("name", "hint"), [("examples.safetensors", "delete it"), ("result.json", "delete it, and resume the run")]
)
def test_what_a_damaged_file_s_hint_says_mends_the_run(name, hint, stopped, run):
    before = Path("r/metrics.jsonl").read_bytes()
    Path("r", name).write_bytes(stopped[:-9])
    code, _, err = run("train", "--resume", "r")
    assert code == 3 and f"r/{name} is damaged" in err and err.endswith(f"hint: {hint}\n")
    assert Path("r/metrics.jsonl").read_bytes() == before  # told before the training, not after
    Path("r", name).unlink()
    assert run("train", "--resume", "r")[0] == 0
    assert Path("r/result.json").read_bytes() == stopped


def test_a_run_of_which_no_checkpoint_is_whole_is_to_be_trained_again(stopped, run):
    for file in Path("r").rglob("model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    for command in (("sample", "r"), ("train", "--resume", "r")):
        code, _, err = run(*command)
        assert code == 3 and err.endswith("hint: train again: no other checkpoint is whole\n")


def test_a_run_without_its_description_is_not_begun_anew(stopped, run):
    Path("r/run.json").unlink()
    code, _, err = run("train", "--resume", "r")
    assert code == 3 and "hint: restore its run.json" in err


def test_latest_is_the_newest_run_of_the_model_or_of_any(run, inside):
    for model in ("mlp-vae", "conv-vae"):
        assert run("train", model, "--steps", 1, "--batch-size", 16)[0] == 0
    os.utime("runs/mlp-vae-digits-1/run.json", (1, 1))
    for arguments, name in (((), "conv-vae"), (("mlp-vae",), "mlp-vae")):
        code, out, _ = run("train", *arguments, "--resume", "latest", "--json")
        assert code == 0 and json.loads(out)["model"] == name


def test_a_finished_run_stays_as_it_is(run, inside):
    assert run(*BEGIN, "r")[0] == 0
    before = {file: file.read_bytes() for file in Path("r").rglob("*") if file.is_file()}
    code, out, _ = run(*BEGIN, "r")
    assert code == 0 and "the training was finished before" in out and "vaezoo sample r" in out
    assert {file: file.read_bytes() for file in Path("r").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("train", "--resume", "r", "--lr", 0.5), "r was begun with --lr 0.001, not 0.5"),
        (("train", "--resume", "r", "--steps", 9), "r was begun with --steps 6, not 9"),
        (("train", "--resume", "r", "--epochs", 9), "r was begun with --steps 6, not none"),
        (("train", "--resume", "r", "--data", "shapes"), "r was begun with --data digits, not shapes"),
        (("train", "conv-vae", "--resume", "r"), "r was begun with MODEL vaezoo/mlp-vae, not vaezoo/conv-vae"),
        (("train", "mlp-vae", "--resume", "r", "-o", "hidden=9,7"), "r was begun with -o hidden 8, not 9,7"),
        (("train", "--resume", "r", "-o", "latent_dim=2"), "r was begun with -o latent_dim 20, not 2"),
        (
            ("train", "--resume", "r", "--likelihood", "gaussian"),
            "r was begun with --likelihood bernoulli, not gaussian",
        ),
        (("train", "--resume", "r", "--clip-grad", 5), "r was begun with --clip-grad none, not 5.0"),
    ],
)
def test_other_settings_are_refused(arguments, error, stopped, run):
    code, _, err = run(*arguments)
    assert code == 2 and error in err.splitlines()[-2]


def test_what_is_the_same_or_changes_no_result_is_not(stopped, run):
    same = ("--likelihood", "bernoulli", "--data", "digits", "--compile", "auto")
    assert run("train", "--resume", "r", "--device", "cpu", "--workers", 0, *same)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("train", "--resume", "latest"), 3, "no run in runs/"),
        (("train", "--resume", "nowhere"), 3, "nowhere is no run folder"),
        (("train", "mlp-vae", "--resume", "a", "--out", "b"), 2, "--resume and --out name two run folders"),
        (("train", "mlp-vae", "--steps", 5, "--epochs", 2), 2, "--steps and --epochs both say how long to train"),
        (("train",), 2, "there is no MODEL to train"),
    ],
)
def test_what_cannot_be_resumed_is_told(arguments, code, error, run, inside):
    found, _, err = run(*arguments)
    assert found == code and error in err
    assert not any(Path().iterdir())
