"""vaezoo recipes, and vaezoo train --recipe."""

import json
import shutil
from pathlib import Path

import pytest

from vaezoo.recipes import FOLDER

SHORT = ("train", "--recipe", "mlp-784-400-20-mse", "--data", "digits", "--epochs", 1, "--batch-size", 3000)


pytestmark = pytest.mark.usefixtures("inside")


def run_record(run="r"):
    return json.loads((Path(run) / "run.json").read_text())


def test_recipes_are_listed_and_shown(run_ok):
    assert "mlp-784-400-20-mse" in run_ok("recipes") and "105.6" in run_ok("recipes")
    shown = run_ok("recipes", "mlp-784-400-20-mse")
    assert "gaussian:0.35355339059327373" in shown and "tanh" in shown
    shown = json.loads(run_ok("recipes", "burda-1l", "--json"))
    assert shown["training"]["binarize"] == "dynamic" and shown["reference"]["value"] == 86.76


def test_options_override_recipe(run_ok):
    run_ok(*SHORT, "-o", "latent_dim=3", "--out", "r")
    record = run_record()
    assert record["options"]["hidden"] == [400] and record["options"]["latent_dim"] == 3
    assert record["data"]["likelihood"] == "gaussian:0.35355339059327373" and record["data"]["name"] == "digits"
    assert (record["training"]["epochs"], record["training"]["batch_size"], record["training"]["lr"]) == (1, 3000, 1e-3)


def test_defaults_that_are_given_override(run_ok, inside):
    Path("mine.toml").write_text(
        'summary = "x"\nmodel = "mlp-vae"\ndata = "digits"\n[options]\nlatent_dim = 3\nhidden = [4]\n'
        '[training]\nlr = 0.5\nsteps = 1\nbatch_size = 7\n[reference]\nsource = "none"\n'
    )
    run_ok("train", "mlp-vae", "--recipe", "mine.toml", "-o", "latent_dim=20", "--lr", 1e-3, "--out", "r")
    record = run_record()
    assert record["options"]["latent_dim"] == 20 and record["options"]["hidden"] == [4]
    assert (record["training"]["lr"], record["training"]["steps"], record["training"]["batch_size"]) == (1e-3, 1, 7)
    run_ok("train", "--recipe", "mine.toml", "--epochs", 1, "--batch-size", 3000, "--out", "epochs")
    assert (run_record("epochs")["training"]["steps"], run_record("epochs")["training"]["epochs"]) == (None, 1)


@pytest.mark.slow
def test_recipe_starts_and_resumes(run_ok, run):
    command = (*SHORT[:-1], 1000, "--eval-every", 3, "--resume", "r")
    run_ok(*command)
    result = Path("r/result.json").read_bytes()
    Path("r/result.json").unlink()
    shutil.rmtree("r/checkpoints/step-00000009")
    run_ok(*command)
    assert Path("r/result.json").read_bytes() == result
    Path("r/result.json").unlink()
    for change in (("--lr", 0.5), ("-o", "hidden=3"), ("--likelihood", "bernoulli")):
        code, _, err = run(*command, *change)
        assert code == 2 and "was started with" in err
    text = (FOLDER / "mlp-784-400-20-mse.toml").read_text()
    Path("other.toml").write_text(text.replace("epochs = 10", "epochs = 10\nlr = 0.01"))
    code, _, err = run(*command[:2], "other.toml", *command[3:])
    assert code == 2 and "was started with --lr 0.001, not 0.01" in err


@pytest.mark.parametrize(
    ("code", "arguments", "error"),
    [
        (2, ("train", "conv-vae", "--recipe", "burda-1l"), "recipe 'burda-1l' trains mlp-vae, not conv-vae"),
        (2, ("train", "--recipe", "burda"), "did you mean 'burda-1l'?"),
        (2, ("recipes", "burda"), "did you mean 'burda-1l'?"),
        (3, ("train", "--recipe", "none.toml"), "cannot read none.toml"),
        (2, ("train", "--recipe", "burda-1l", "--milestones", "5"), "--milestones does nothing"),
    ],
)
def test_invalid_input_is_refused(code, arguments, error, run, inside):
    actual, _, err = run(*arguments)
    assert actual == code and error in err and len(err.splitlines()) == 2


def test_unused_recipe_setting_is_refused(run):
    Path("mine.toml").write_text(
        'summary = "x"\nmodel = "mlp-vae"\ndata = "digits"\n[training]\nschedule = "multistep"\nmilestones = [5]\n'
        '[reference]\nsource = "none"\n'
    )
    code, _, err = run("train", "--recipe", "mine.toml", "--schedule", "constant")
    assert code == 2 and "--milestones does nothing" in err
