"""`vaezoo recipes` and `vaezoo train --recipe`."""

import json
import shutil
from pathlib import Path

import pytest

from vaezoo.recipes import FOLDER

SHORT = ("train", "--recipe", "mlp-784-400-20-mse", "--data", "digits", "--epochs", 1, "--batch-size", 3000)


pytestmark = pytest.mark.usefixtures("inside")


def description(run="r"):
    return json.loads((Path(run) / "run.json").read_text())


def test_recipes_are_listed_and_shown(fine):
    assert "mlp-784-400-20-mse" in fine("recipes") and "105.6" in fine("recipes")
    shown = fine("recipes", "mlp-784-400-20-mse")
    assert "gaussian:0.35355339059327373" in shown and "tanh" in shown
    shown = json.loads(fine("recipes", "burda-1l", "--json"))
    assert shown["training"]["binarize"] == "dynamic" and shown["reference"]["value"] == 86.76


def test_a_training_takes_from_the_recipe_what_is_not_given(fine):
    fine(*SHORT, "-o", "latent_dim=3", "--out", "r")
    told = description()
    assert told["options"]["hidden"] == [400] and told["options"]["latent_dim"] == 3
    assert told["data"]["likelihood"] == "gaussian:0.35355339059327373" and told["data"]["name"] == "digits"
    assert (told["training"]["epochs"], told["training"]["batch_size"], told["training"]["lr"]) == (1, 3000, 1e-3)


def test_what_is_given_goes_before_the_recipe_even_if_it_is_the_default(fine, inside):
    Path("mine.toml").write_text(
        'summary = "x"\nmodel = "mlp-vae"\ndata = "digits"\n[options]\nlatent_dim = 3\nhidden = [4]\n'
        '[training]\nlr = 0.5\nsteps = 1\nbatch_size = 7\n[reference]\nsource = "none"\n'
    )
    fine("train", "mlp-vae", "--recipe", "mine.toml", "-o", "latent_dim=20", "--lr", 1e-3, "--out", "r")
    told = description()
    assert told["options"]["latent_dim"] == 20 and told["options"]["hidden"] == [4]
    assert (told["training"]["lr"], told["training"]["steps"], told["training"]["batch_size"]) == (1e-3, 1, 7)
    fine("train", "--recipe", "mine.toml", "--epochs", 1, "--batch-size", 3000, "--out", "epochs")
    assert (description("epochs")["training"]["steps"], description("epochs")["training"]["epochs"]) == (None, 1)


def test_a_queue_begins_a_recipe_and_goes_on_with_it(fine, run):
    command = (*SHORT[:-1], 1000, "--eval-every", 3, "--resume", "r")
    fine(*command)
    result = Path("r/result.json").read_bytes()
    Path("r/result.json").unlink()
    shutil.rmtree("r/checkpoints/step-00000009")
    fine(*command)
    assert Path("r/result.json").read_bytes() == result
    Path("r/result.json").unlink()
    for change in (("--lr", 0.5), ("-o", "hidden=3"), ("--likelihood", "bernoulli")):
        code, _, err = run(*command, *change)
        assert code == 2 and "was begun with" in err
    text = (FOLDER / "mlp-784-400-20-mse.toml").read_text()
    Path("other.toml").write_text(text.replace("epochs = 10", "epochs = 10\nlr = 0.01"))
    code, _, err = run(*command[:2], "other.toml", *command[3:])
    assert code == 2 and "was begun with --lr 0.001, not 0.01" in err


@pytest.mark.parametrize(
    ("code", "arguments", "says"),
    [
        (2, ("train", "conv-vae", "--recipe", "burda-1l"), "recipe 'burda-1l' trains mlp-vae, not conv-vae"),
        (2, ("train", "--recipe", "burda"), "did you mean 'burda-1l'?"),
        (2, ("recipes", "burda"), "did you mean 'burda-1l'?"),
        (3, ("train", "--recipe", "none.toml"), "cannot read none.toml"),
        (2, ("train", "--recipe", "burda-1l", "--milestones", "5"), "--milestones does nothing"),
    ],
)
def test_what_cannot_be_is_refused(code, arguments, says, run, inside):
    got, _, err = run(*arguments)
    assert got == code and says in err and len(err.splitlines()) == 2


def test_a_setting_of_the_recipe_that_would_do_nothing_is_refused(run):
    Path("mine.toml").write_text(
        'summary = "x"\nmodel = "mlp-vae"\ndata = "digits"\n[training]\nschedule = "multistep"\nmilestones = [5]\n'
        '[reference]\nsource = "none"\n'
    )
    code, _, err = run("train", "--recipe", "mine.toml", "--schedule", "constant")
    assert code == 2 and "--milestones does nothing" in err
