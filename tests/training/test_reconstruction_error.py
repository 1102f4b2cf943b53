"""What `train` says about reconstructions, and the default number of latents that they need."""

import json

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import DataSpec, TrainConfig, create_model, from_arrays
from vaezoo.training.validation import reconstruction_error

CONFIG = TrainConfig(steps=30, batch_size=20)


@pytest.fixture(scope="module")
def images():
    noise = np.random.default_rng(0).integers(0, 256, (100, 1, 8, 8), dtype=np.uint8)
    return from_arrays(noise // 2 + np.arange(64, dtype=np.uint8).reshape(1, 8, 8), name="noise")


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    options = {"hidden": [16], "latent_dim": 4}
    return vaezoo.train("mlp-vae", images, options=options, config=CONFIG, out=tmp_path_factory.mktemp("run") / "run")


def test_error_is_that_of_numpy(run, images):
    x = images.valid.x.numpy() / 255.0
    error = np.square(vaezoo.reconstruct(run, images.valid.x.numpy()) - x).mean()
    metrics = run.result["metrics"]
    assert metrics["mse"] == pytest.approx(error, rel=1e-5)
    assert metrics["explained_variance"] == pytest.approx(1 - error / x.var(0).mean(), abs=1e-5)
    assert vaezoo.load(run.path).result["metrics"] == metrics


def test_batch_size_does_not_matter(run, images):
    whole, parts = (reconstruction_error(run.vae, images.valid, n) for n in (100, 3))
    assert whole == pytest.approx(parts, rel=1e-6)


def test_data_that_do_not_vary_have_no_share(run, images):
    constant = vaezoo.TensorSplit(images.valid.x[:1].repeat(5, 1, 1, 1), None)
    assert set(reconstruction_error(run.vae, constant, 10)) == {"mse"}


def test_tokens_have_no_squared_error():
    spec = DataSpec(name="t", shape=(7,), kind="tokens", likelihood="categorical", vocabulary=5)
    texts = vaezoo.TensorSplit(torch.ones(5, 7, dtype=torch.int64), None)
    assert reconstruction_error(create_model("mlp-vae", spec), texts, 10) == {}


@pytest.mark.parametrize("model", ["conv-vae", "resnet-vae"])
def test_colour_images_get_more_latents(model):
    grey, colour = (DataSpec(name="images", shape=(channels, 32, 32)) for channels in (1, 3))
    assert create_model(model, grey).latent_shape == (16,)
    assert create_model(model, colour).latent_shape == (128,)
    assert create_model(model, colour, {"latent_dim": 8}).latent_shape == (8,)


def test_run_keeps_the_default_that_was_chosen(tmp_path):
    colour = from_arrays(np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8))
    run = vaezoo.train("conv-vae", colour, config=TrainConfig(steps=1, batch_size=8), out=tmp_path / "run")
    assert json.loads((run.path / "run.json").read_text())["options"]["latent_dim"] == 128
    assert vaezoo.load(run.path).vae.latent_shape == (128,)
