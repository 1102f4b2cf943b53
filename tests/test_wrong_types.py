"""What programs pass by mistake is a VaezooError with a hint, never a TypeError from inside."""

import pickle
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import TrainConfig, VaezooError


@pytest.mark.parametrize(
    ("settings", "words", "hint"),
    [
        ({"epoch": 3}, "no setting named 'epoch'", "did you mean 'epochs'?"),
        ({"learning_rate": 1e-3}, "no setting named 'learning_rate'", "did you mean 'lr'?"),
        ({"ema": 0.9}, "no setting named 'ema'", "'ema' is now called 'ema_decay'"),
        ({"zebra": 1}, "no setting named 'zebra'", "the settings are: epochs, steps"),
        ({"epochs": 3, "steps": 9}, "'epochs' and 'steps' both set the length", "give one of them"),
    ],
)
def test_wrong_settings_have_a_hint(settings, words, hint):
    with pytest.raises(VaezooError) as e:
        TrainConfig(**settings)
    assert words in e.value.message and hint in e.value.hint
    with pytest.raises(VaezooError) as again:
        vaezoo.train("mlp-vae", config=settings)
    assert str(again.value) == str(e.value)


def test_settings_go_by_name():
    with pytest.raises(VaezooError) as e:
        TrainConfig(3)
    assert "by name" in e.value.message and "epochs=3" in e.value.hint


def test_copies_keep_epochs_and_steps():
    config = TrainConfig(steps=7)
    assert TrainConfig(**asdict(config)) == replace(config) == pickle.loads(pickle.dumps(config)) == config
    assert TrainConfig(epochs=3, steps=None).epochs == 3


def test_settings_may_be_a_dict(digits, tmp_path):
    config = {"steps": 2, "batch_size": 50, "device": "cpu"}
    run = vaezoo.train("mlp-vae", digits, config=config, out=tmp_path / "run")
    assert run.training == TrainConfig(**config, compile="off")
    vae = vaezoo.create_model("mlp-vae", digits.spec)
    assert vaezoo.Trainer(vae, vaezoo.ELBO(), digits, config).steps == 2
    cells = vaezoo.sweep("mlp-vae", digits, settings={"seed": [0]}, config=config, out=tmp_path / "sweep")
    assert [cell.config.steps for cell in cells] == [2]


@pytest.mark.parametrize("config", [5, "epochs=3", TrainConfig, ["epochs"]])
def test_other_settings_are_refused(config):
    with pytest.raises(VaezooError, match="config is a TrainConfig or a dict") as e:
        vaezoo.train("mlp-vae", config=config)
    assert "config={" in e.value.hint


@pytest.mark.parametrize("train", [vaezoo.train, vaezoo.sweep])
@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        ({"model": torch.nn.Linear(2, 2)}, "the name of a model, not a Linear", "make it a vaezoo.VAE"),
        ({"model": vaezoo.VAE}, "the name of a model, not a VAE", "vaezoo.Trainer trains a module"),
        ({"model": None}, "the name of a model, not a NoneType", "vaezoo.Trainer"),
        ({"model": "mlp-vae", "options": "latent_dim=8"}, "options are a dict, not latent_dim=8", "{'latent_dim': 8}"),
    ],
)
def test_models_go_by_name(train, arguments, words, hint):
    with pytest.raises(VaezooError) as e:
        train(**arguments)
    assert words in e.value.message and hint in e.value.hint


@pytest.mark.parametrize(
    "call",
    [
        lambda model: vaezoo.evaluate(model),
        lambda model: vaezoo.score(model, np.zeros((2, 1, 28, 28))),
        lambda model: vaezoo.encode(model, np.zeros((2, 1, 28, 28))),
        lambda model: vaezoo.reconstruct(model, np.zeros((2, 1, 28, 28))),
        lambda model: vaezoo.sample(model, 2),
        lambda model: vaezoo.decode(model, np.zeros((2, 16))),
        lambda model: vaezoo.load_examples(model, "digits"),
    ],
)
@pytest.mark.parametrize("model", [5, torch.nn.Linear(2, 2), None], ids=["number", "module", "none"])
def test_what_is_no_model_is_refused(call, model):
    with pytest.raises(VaezooError, match=r"is not a run, an export or a vaezoo\.VAE") as e:
        call(model)
    assert "vaezoo.load" in e.value.hint


def test_a_folder_is_opened_first(trained):
    with pytest.raises(VaezooError) as e:
        vaezoo.sample(str(trained.path), 2)
    assert e.value.hint == "open it with vaezoo.load, or an export with vaezoo.runtime.load"


def test_modules_must_know_their_data(trained):
    class Own(type(trained.vae)):
        def __init__(self):
            torch.nn.Module.__init__(self)

    with pytest.raises(VaezooError, match="the Own does not know the data") as e:
        vaezoo.evaluate(Own(), trained.examples.x)
    assert "super().__init__(data, latent_shape)" in e.value.hint


def test_load_takes_names_and_steps(trained):
    for source in (5, trained, trained.vae):
        with pytest.raises(VaezooError, match="load takes a run folder or a name, not an") as e:
            vaezoo.load(source)
        assert e.value.hint
    step = trained.checkpoint.step
    assert vaezoo.load(trained.path, step).checkpoint.step == step


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: vaezoo.evaluate(run, "digits", metrics="elbo"), "metrics is the text 'elbo', not a list"),
        (lambda run: vaezoo.evaluate(run, "digits", limit="5"), "limit is '5', not a whole number"),
        (lambda run: vaezoo.evaluate(run, "digits", seed=-1), "seed is -1"),
        (lambda run: vaezoo.evaluate(run, "digits", elbo_samples=1.5), "is 1.5, not a whole number"),
        (lambda run: vaezoo.evaluate(run, "digits", device=5), "device '5' was not found"),
        (lambda run: vaezoo.evaluate(run, 5), "x has the shape ()"),
        (lambda run: vaezoo.score(run, run.examples.x, seed="a"), "seed is 'a', not a whole number"),
        (lambda run: vaezoo.score(run, run.examples.x, nll_samples="a"), "is 'a', not a whole number"),
        (lambda run: vaezoo.score(run, run.examples.x, quantile="0.9"), "quantile 0.9 is out of range"),
        (lambda run: vaezoo.sample(run, "4"), "n is '4', not a whole number"),
        (lambda run: run.sample(2, seed=-1), "seed is -1"),
        (lambda run: run.sample(2, y=np.zeros(2, int)), "takes no labels"),
        (lambda run: run.sample(2, label=3), "takes no labels"),
        (lambda run: vaezoo.decode(run, "abc"), "the latents have shape ()"),
        (lambda run: vaezoo.decode(run, np.zeros((2, 16)), y=[0, 1]), "takes no labels"),
        (lambda run: vaezoo.reconstruct(run, run.examples.x, seed=0.5), "seed is 0.5, not a whole number"),
        (lambda run: vaezoo.export_onnx(run, opset="18"), "opset 18 is out of range"),
        (lambda run: vaezoo.export_onnx(run, dtype=["fp16"]), "unknown dtype"),
        (lambda run: vaezoo.export_onnx(run, parts="decoder"), "parts is the text 'decoder', not a list"),
        (lambda run: vaezoo.verify_onnx(5), "5 is not the path of an export"),
        (lambda run: vaezoo.verify_onnx("exports/x", seconds="a"), "seconds is 'a', not a whole number"),
        (lambda run: vaezoo.verify_onnx("exports/x", tolerance="a"), "a tolerance of a is out of range"),
    ],
)
def test_wrong_arguments_are_refused(trained, call, words):
    with pytest.raises(VaezooError) as e:
        call(trained)
    assert words in e.value.message and e.value.hint


def test_counts_may_be_integers_of_numpy(trained):
    np.testing.assert_array_equal(trained.sample(np.int64(2), seed=np.uint8(3)), trained.sample(2, seed=3))
