"""What first weights take from the data: an untrained decoder puts out their mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vaezoo
from vaezoo import GaussianVAE, TensorSplit, TrainConfig, create_model
from vaezoo.data import base
from vaezoo.data.base import mean_example
from vaezoo.errors import PluginError
from vaezoo.vae import example_batch

CONFIG = TrainConfig(steps=4, eval_every=2, batch_size=50)


def at_start(name, data, tmp_path, **options):
    """Returns the model as it is before the first step of a training."""
    seen = {}

    def on_start(trainer, path):
        seen.update({k: v.clone() for k, v in trainer.vae.state_dict().items()})

    vaezoo.train(name, data, options=options, config=CONFIG, out=tmp_path / "run", on_start=on_start)
    vae = create_model(name, data, options).eval()
    vae.load_state_dict(seen)
    return vae


def mean_of(data):
    return data.train.batch(slice(None)).x.double().mean(0)


@pytest.mark.parametrize("name", ["mlp-vae", "autoencoder"])
def test_mlp_decoder_starts_at_mean(name, digits, tmp_path):
    vae = at_start(name, digits, tmp_path)
    bias = vae.decoder[-2].bias.detach()
    expected = mean_of(digits).clamp(0.001, 0.999)
    torch.testing.assert_close(torch.sigmoid(bias), expected.flatten().float())
    image = vae.likelihood.mean(vae.decode(torch.zeros(1, 20)))[0].detach()
    assert float((image - expected).abs().mean()) < 0.02


def test_ema_starts_at_initial_weights(digits, tmp_path):
    def on_start(trainer, path):
        pairs = zip(trainer.train_step.ema.values, trainer.vae.parameters(), strict=True)
        assert all(torch.equal(value, p) for value, p in pairs)

    vaezoo.train("mlp-vae", digits, config=replace(CONFIG, ema_decay=0.9), out=tmp_path / "run", on_start=on_start)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian:optimal"])
def test_conv_decoder_starts_at_mean(likelihood, tmp_path):
    x = torch.rand(200, 16, 16, 3) * torch.tensor([0.2, 0.9, 1.0])
    data = vaezoo.from_arrays((255 * x).byte().numpy(), likelihood=likelihood)
    vae = at_start("conv-vae", data, tmp_path)
    torch.testing.assert_close(torch.sigmoid(vae.decoder[-1].bias).detach(), mean_of(data).mean((1, 2)).float())


def test_gan_decoder_keeps_its_bias(digits):
    vae = create_model("vae-gan", digits)
    before = vae.decoder[-1].bias.clone()
    vae.init_from_data(digits.train)
    assert torch.equal(vae.decoder[-1].bias, before)


def test_other_decoders_keep_their_weights(digits):
    data = vaezoo.from_arrays(digits.train.x.squeeze(1).numpy(), likelihood="continuous-bernoulli")
    networks = [nn.Sequential(nn.Linear(2, 784), nn.Tanh()), nn.Linear(2, 784), nn.Sequential(nn.Unflatten(1, (1, 2)))]
    for vae in [create_model("mlp-vae", data), *(GaussianVAE(digits.spec, 2, nn.Identity(), n) for n in networks)]:
        before = {k: v.clone() for k, v in vae.state_dict().items()}
        vae.init_from_data(digits.train)
        assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())


def test_restarted_training_is_exact(digits, tmp_path):
    def die(trainer, path):
        raise KeyboardInterrupt

    whole = vaezoo.train("mlp-vae", digits, config=CONFIG, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        vaezoo.train("mlp-vae", digits, config=CONFIG, out=tmp_path / "killed", on_start=die)
    again = vaezoo.resume(tmp_path / "killed", digits)
    assert all(torch.equal(v, again.vae.state_dict()[k]) for k, v in whole.vae.state_dict().items())
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "killed/metrics.jsonl").read_bytes()


def test_resume_does_not_initialise(digits, tmp_path, monkeypatch):
    def stop(trainer, path):
        trainer.steps = 2  # its last checkpoint is that of the half

    with monkeypatch.context() as patch:
        patch.setattr("vaezoo.training.train.finish", lambda run, *_: run)
        vaezoo.train("mlp-vae", digits, config=CONFIG, out=tmp_path / "run", on_start=stop)
    model = type(create_model("mlp-vae", digits))
    monkeypatch.setattr(model, "init_from_data", lambda vae, train: pytest.fail("began again"))
    assert vaezoo.resume(tmp_path / "run", digits).result


def test_mean_of_bytes_is_exact(monkeypatch):
    x = torch.randint(0, 256, (1000, 3, 5, 5), dtype=torch.uint8)
    expected = x.numpy().sum(0, dtype=np.int64) / 1000 / 255
    for size in (1, 10_000, 1 << 22):
        monkeypatch.setattr(base, "CHUNK_ELEMENTS", size)
        np.testing.assert_array_equal(mean_example(TensorSplit(x, None)).numpy(), expected)
    np.testing.assert_allclose(mean_example(TensorSplit(x.float() / 255, None)).numpy(), expected, rtol=1e-6)


def test_streamed_mean_uses_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "STREAMED_MEAN_EXAMPLES", 10)
    for i in range(40):
        Image.fromarray(np.full((8, 8), 5 * i, np.uint8)).save(tmp_path / f"{i:02}.png")
    data = vaezoo.load_data(tmp_path, stream=True)
    decoded = []
    subsample = type(data.train).subsample
    monkeypatch.setattr(type(data.train), "subsample", lambda split, n: decoded.append(n) or subsample(split, n))
    assert float(mean_example(data.train).mean()) == pytest.approx(5 * 20 / 255, abs=0.05)
    assert decoded == [10]


def test_failing_plugin_is_named(install, digits, tmp_path):
    code = """
import dataclasses
from vaezoo.models import mlp_vae
def build(config, data):
    vae = mlp_vae.SPEC.build(config, data)
    vae.init_from_data = lambda train: 1 / 0
    return vae
SPEC = dataclasses.replace(mlp_vae.SPEC, build=build)
"""
    install("zoo-odd", "odd-vae", code)
    with pytest.raises(PluginError, match=r"'odd-vae' of zoo-odd 1\.2 cannot be initialised from the data: Zero"):
        vaezoo.train("odd-vae", digits, config=CONFIG, out=tmp_path / "run")


def test_real_data_start_at_mean(tmp_path):
    spec = vaezoo.DataSpec(name="series", shape=(2, 6), kind="real", likelihood="gaussian:optimal")
    x = 5 + 3 * torch.randn(60, 2, 6)
    data = vaezoo.Dataset(spec=spec, train=TensorSplit(x, None), valid=TensorSplit(x[:10], None), test=None)
    vae = at_start("mlp-vae", data, tmp_path)
    torch.testing.assert_close(vae.decoder[-2].bias.detach(), x.double().mean(0).flatten().float())


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "tokens", "likelihood": "categorical", "vocabulary": 4},
        {"kind": "table", "likelihood": "table", "columns": ("a:real", "b:3")},
    ],
)
def test_logits_of_categories_keep_their_bias(fields):
    spec = vaezoo.DataSpec(name="x", shape=(2,), **fields)
    vae = create_model("mlp-vae", spec)
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    vae.init_from_data(TensorSplit(example_batch(spec, 9, torch.Generator().manual_seed(0)).x, None))
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
