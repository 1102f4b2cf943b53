"""Recipes: the packaged ones are complete and train, and errors in a file name the file and the key."""

import json
import math
from dataclasses import replace

import pytest
import torch

import vaezoo
from vaezoo import find_recipe, list_recipes
from vaezoo.errors import InputError, VaezooError
from vaezoo.likelihoods.gaussian import Gaussian
from vaezoo.recipes import FOLDER

NAMES = [file.stem for file in FOLDER.glob("*.toml")]
RECIPE = """
summary = "One"
model = "mlp-vae"
data = "digits"

[options]
hidden = [8]

[training]
epochs = 2
lr = 1

[reference]
source = "none"
"""


@pytest.fixture
def write(tmp_path):
    """A function that writes a recipe and returns its path."""

    def write(text):
        (tmp_path / "mine.toml").write_text(text)
        return str(tmp_path / "mine.toml")

    return write


def test_packaged_recipes_are_complete():
    recipes = list_recipes()
    assert [r.name for r in recipes] == sorted(NAMES)
    for recipe in recipes:
        assert recipe.summary and recipe.reference.source
        assert recipe.reference.value is None or recipe.reference.protocol
        assert recipe.measured is None or recipe.measured.machine


FAST = ("mlp-784-400-20", "conv-mnist", "vae-gan-digits")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_every_recipe_trains_and_resumes(name, digits, tmp_path):
    recipe = find_recipe(name)
    x = digits.train.x[:300].squeeze(1).numpy()
    if recipe.data == "shapes":
        x = torch.nn.functional.interpolate(digits.train.x[:300], (64, 64)).squeeze(1).numpy()
    labels = digits.train.y[:300].numpy() if recipe.model == "cvae" else None
    data = vaezoo.from_arrays(x, labels, likelihood=recipe.likelihood or "bernoulli")
    config = replace(recipe.training, steps=3, eval_every=1, batch_size=min(recipe.training.batch_size, 250))

    def stop(trainer, path):
        trainer.steps = 2

    def train(path, **callbacks):
        return vaezoo.train(recipe.model, data, options=recipe.options, config=config, out=path, **callbacks)

    expected = train(tmp_path / "uninterrupted")
    train(tmp_path / "resumed", on_start=stop)
    (tmp_path / "resumed" / "result.json").unlink()
    resumed = vaezoo.resume(tmp_path / "resumed", data)
    assert all(torch.equal(v, resumed.vae.state_dict()[k]) for k, v in expected.vae.state_dict().items())
    assert expected.result == resumed.result


def test_recipe_from_file(write):
    recipe = find_recipe(write(RECIPE))
    assert (recipe.name, recipe.options, recipe.training.lr, recipe.training.epochs) == ("mine", {"hidden": [8]}, 1, 2)
    assert recipe.evaluation.metric == "elbo" and recipe.measured is None and recipe.likelihood is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("summary", "sumary", "no option named 'sumary'"),
        ('summary = "One"', "", "'summary' is missing"),
        ("mlp-vae", "mlp-vea", "no model named 'mlp-vea'"),
        ('"digits"', '"digit"', "no data set named 'digit'"),
        ('"digits"', "3", "option 'data' takes a text"),
        ('"digits"', '"digits"\nlikelihood = "normal"', "no likelihood named 'normal'"),
        ("hidden", "hiden", "[options] no option named 'hiden'"),
        ("[8]", '["x"]', "[options] option 'hidden' takes integers"),
        ("[8]", '"8"', "[options] 'hidden' is '8', of another type"),
        ("[8]", "[0]", "[options] option 'hidden' is 0"),
        ("epochs", "epoch", "[training] no option named 'epoch'"),
        ("epochs = 2", 'epochs = "2"', "[training] 'epochs' is '2', of another type"),
        ("epochs = 2", "epochs = 0", "[training] 'epochs' is 0"),
        ("epochs = 2", "epochs = 2\nsteps = 5", "[training] 'steps' and 'epochs' both set the length"),
        ("epochs = 2", "epochs = nan", "[training] option 'epochs' takes an integer"),
        ("[options]\nhidden = [8]", "", None),
        ("summary", "options = 3\nsummary", "is not valid TOML"),
        ("[options]\nhidden = [8]", "[[options]]\nhidden = [8]", "is not a table"),
        ('source = "none"', "", "[reference] 'source' is missing"),
        ("[reference]", "[refrence]", "no option named 'refrence'"),
        ('"none"', '"none"\nvalue = true', "[reference] option 'value' takes a number"),
        ('"none"', '"none"\n[measured]\nvalue = 1.0', "[measured] 'protocol' is missing"),
        ('"none"', '"none"\n[evaluation]\nmetric = "fid"', "[evaluation] option 'metric' takes one of"),
        ('"One"', "One", "is not valid TOML"),
    ],
)
def test_errors_name_file_and_key(old, new, message, write):
    file = write(RECIPE.replace(old, new, 1))
    if message is None:
        assert find_recipe(file).options == {}
        return
    with pytest.raises(InputError) as e:
        find_recipe(file)
    assert message in e.value.message and e.value.message.startswith(file) and e.value.hint


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a = " + b"[" * 5000])
def test_binary_file_is_refused(data, tmp_path):
    (tmp_path / "a.toml").write_bytes(data)
    with pytest.raises(InputError):
        find_recipe(str(tmp_path / "a.toml"))


def test_misspelt_name_gets_suggestion():
    with pytest.raises(VaezooError) as e:
        find_recipe("burda1l")
    assert e.value.hint == "did you mean 'burda-1l'?"


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        find_recipe(str(tmp_path / "none.toml"))


def test_tanh_error_equals_gaussian():
    recipe = find_recipe("mlp-784-400-20-mse")
    gaussian = Gaussian(float(recipe.likelihood.partition(":")[2]))
    a, x = torch.randn(5, 784, dtype=torch.float64), torch.rand(5, 784, dtype=torch.float64)
    squared = (torch.tanh(a) - (2 * x - 1)).square().sum(1)
    constant = 784 * math.log(math.sqrt(1 / 8) * math.sqrt(2 * math.pi))
    torch.testing.assert_close(-gaussian.double().log_prob(2 * a, x), squared + constant, rtol=1e-6, atol=1e-6)


def test_recipes_as_json(capsys):
    from vaezoo_cli.main import main

    with pytest.raises(SystemExit):
        main(["recipes", "--json"])
    recipes = json.loads(capsys.readouterr().out)["recipes"]
    assert [r["name"] for r in recipes] == sorted(NAMES)
