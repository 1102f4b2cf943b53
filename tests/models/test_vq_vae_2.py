"""VQ-VAE-2 and the usage of codes: levels in z, gradients between levels, usage over a split, and the runtime."""

import math
import warnings

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import DataSpec, TrainConfig, VaezooError
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.errors import VaezooWarning
from vaezoo.models.vq_vae_2 import SPEC
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.vq import count_codes, perplexity
from vaezoo.registry import create_model
from vaezoo.training.validation import evaluate

DATA = DataSpec(name="images", shape=(1, 16, 12))
SMALL = {"codebook_size": 16, "code_dim": 4, "channels": "8,8", "residual_blocks": 1, "residual_channels": 4}


def build(data=DATA, seed=0, **options):
    config = configure(SPEC.config, SMALL | options)
    torch.manual_seed(seed)
    return SPEC.build(config, data), SPEC.objective(config, data)


def images(n=6, seed=0):
    return Batch(torch.rand(n, *DATA.shape, generator=torch.Generator().manual_seed(seed)))


def split(n=60):
    return TensorSplit(images(n).x, None)


@pytest.mark.parametrize(
    ("options", "latents", "names"),
    [
        ({}, 2 * 1 + 4 * 3, ["top", "bottom"]),
        ({"quantizer": "residual", "codebooks": 2}, 28, ["top_1", "top_2", "bottom_1", "bottom_2"]),
    ],
)
@torch.no_grad()
def test_levels_lie_side_by_side(options, latents, names):
    vae, _ = build(**options)
    vae.init_from_data(split())
    posterior = vae.eval().encode(images().x)
    assert posterior.z.shape == (6, latents) and posterior.z.dtype == torch.int64
    assert vae.latent_shape == (latents,) and [level.name for level in vae.latent_levels] == names
    assert sum(level.latents for level in vae.latent_levels) == latents
    top, bottom = vae.codes.split(posterior.z)
    features = vae.vectors.split(posterior.features)
    assert torch.equal(top, vae.top_codebook.nearest(features.top))
    assert torch.equal(bottom, vae.bottom_codebook.nearest(features.bottom))
    torch.testing.assert_close(vae(posterior, images()).params, vae.decode(posterior.z))
    assert vae.prior.log_prob(posterior.z).tolist() == pytest.approx([-latents * math.log(16)] * 6)


@torch.no_grad()
def test_bottom_codes_depend_on_top_codes():
    vae, _ = build()
    vae.init_from_data(split())
    z = vae.encode(images().x).z
    vae.top_codebook.set_vectors(5 - vae.top_codebook.vectors)
    assert not torch.equal(vae.encode(images().x).z[:, 2:], z[:, 2:])
    assert not torch.equal(vae.decode(z), vae.decode(torch.cat([z[:, :2].flip(0), z[:, 2:]], 1)))


def test_gradient_reaches_the_top_through_the_bottom():
    """The bottom features are made of the top vectors, whose gradient goes straight to the top features."""
    vae, _ = build()
    vae.init_from_data(split())
    bottom = vae.vectors.split(vae.encode(images().x).features).bottom
    gradient = torch.autograd.grad(bottom.square().sum(), vae.top_encoder[-1].weight)[0]
    assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize("quantizer", ["vq", "fsq", "lfq"])
def test_losses_of_both_levels_are_added(quantizer):
    vae, objective = build(quantizer="vq") if quantizer == "vq" else _with(quantizer)
    vae.eval()
    posterior = vae.encode(images().x)
    features, z = vae.vectors.split(posterior.features), vae.codes.split(posterior.z)
    output = objective(vae, images(), StepContext.initial())
    loss = output.metrics["reconstruction"] + output.metrics["kl"]
    for level in ("top", "bottom"):
        own = getattr(vae, f"{level}_codebook").learn(getattr(features, level), getattr(z, level))
        loss = loss + (0 if own is None else own.mean())
    torch.testing.assert_close(output.losses["vae"], loss)
    assert {"perplexity_top", "perplexity_bottom"} <= set(output.metrics)


def _with(quantizer):
    config = configure(SPEC.config, {"quantizer": quantizer, "channels": "8,8", "residual_channels": 4})
    return SPEC.build(config, DATA), SPEC.objective(config, DATA)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 31), (1, 28, 28)])
def test_images_keep_their_shape(shape):
    vae, _ = build(DataSpec(name="x", shape=shape))
    x = torch.rand(2, *shape)
    for training in (True, False):
        assert vae.train(training).reconstruct(x).shape == vae.sample(2).shape == x.shape


def test_too_small_images_are_refused():
    with pytest.raises(vaezoo.UnsupportedDataError, match="too small for 4 halvings"):
        build(DataSpec(name="x", shape=(1, 8, 8)), channels="8,8,8")


# --- Usage of codes ---


@torch.no_grad()
def test_usage_is_that_of_the_whole_split():
    """Batches of ten have a lower perplexity than all examples together, and use fewer codes."""
    vae, objective = build()
    vae.init_from_data(split())
    data = split(200)
    found = evaluate(vae, objective, data, TrainConfig(batch_size=10))
    z = vae.eval().encode(data.x).z
    for name, codes in (("top", z[:, :2]), ("bottom", z[:, 2:])):
        counts = count_codes(codes, 16)
        assert found[f"perplexity_{name}"] == pytest.approx(float(perplexity(counts)), rel=1e-5)
        assert found[f"codes_used_{name}"] == pytest.approx(float((counts > 0).float().mean()))
    batches = [objective(vae, Batch(x), StepContext.initial()).metrics["perplexity_top"] for x in data.x.split(10)]
    assert found["perplexity_top"] > 1.05 * float(torch.stack(batches).mean())


@torch.no_grad()
def test_evaluation_counts_codes_by_level():
    vae, _ = build()
    vae.init_from_data(split())
    found = {m.name: m for m in vaezoo.evaluate(vae, images(700).x.numpy(), metrics=["codebook"]).metrics}
    assert list(found) == ["perplexity_top", "codes_used_top", "perplexity_bottom", "codes_used_bottom"]
    counts = count_codes(vae.encode(images(700).x).z[:, 2:], 16)
    assert found["perplexity_bottom"].value == pytest.approx(float(perplexity(counts)), rel=1e-3)
    assert "700 examples with 12 codes each, of 16" in found["perplexity_bottom"].protocol


@torch.no_grad()
def test_codes_that_never_vary_warn():
    vae, _ = build()
    vae.init_from_data(split())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vaezoo.evaluate(vae, images(20).x.numpy(), metrics=["codebook"])
    vae.top_codebook.vectors[1:] = 1e3
    with pytest.warns(VaezooWarning, match="the codes of top are the same for all examples.*try a lower --lr"):
        (perplexity, used, *_) = vaezoo.evaluate(vae, images(20).x.numpy(), metrics=["codebook"]).metrics
    assert perplexity.value == pytest.approx(1) and used.value == 1 / 16


def test_models_without_codes_have_no_usage():
    with pytest.raises(VaezooError, match="metric 'codebook' needs the codes") as e:
        vaezoo.evaluate(create_model("mlp-vae", DATA), images().x.numpy(), metrics=["codebook"])
    assert e.value.hint


def test_training_records_usage(digits, tmp_path):
    config = TrainConfig(steps=4, batch_size=50, compile="off")
    options = {"quantizer": "fsq", "levels": "4,4", "channels": "8,8", "residual_channels": 4}
    metrics = vaezoo.train("vq-vae", digits, options=options, config=config, out=tmp_path / "run").result["metrics"]
    assert 1 <= metrics["perplexity"] <= 16 and 1 / 16 <= metrics["codes_used"] <= 1


@pytest.mark.parametrize("code", [-1, 16])
def test_codes_that_do_not_exist_are_refused(code):
    vae, _ = build()
    z = np.zeros((2, 14), np.int64)
    assert vaezoo.decode(vae, z).shape == (2, *DATA.shape)
    z[1, 5] = code
    with pytest.raises(VaezooError, match=f"there is no code {code}") as e:
        vaezoo.decode(vae, z)
    assert e.value.hint == "those of bottom are 0 to 15"


@pytest.mark.parametrize("quantizer", [{}, {"quantizer": "residual", "codebooks": 2}], ids=str)
def test_a_prior_is_fitted_to_all_levels(quantizer, digits, tmp_path):
    options = {"codebook_size": 8, "code_dim": 4, "channels": "8,8", "residual_channels": 4} | quantizer
    config = TrainConfig(steps=2, batch_size=50, compile="off")
    run = vaezoo.train("vq-vae-2", digits, options=options, config=config, out=tmp_path / "run")
    small = {"hidden": 16, "layers": 1}
    fitted = vaezoo.fit_prior(run, "autoregressive", options=small, steps=2, data=digits, out=tmp_path / "prior")
    assert fitted.vae.prior.sample(3).shape == (3, *run.vae.latent_shape)
    assert fitted.result["metrics"]["log_prior"] < 0


# --- Export ---


@pytest.mark.slow
def test_export_runs_without_torch(digits, tmp_path):
    config = TrainConfig(steps=2, batch_size=50, compile="off")
    run = vaezoo.train("vq-vae-2", digits, options=SMALL, config=config, out=tmp_path / "run")
    vaezoo.export_onnx(run, tmp_path / "export")
    model = vaezoo.runtime.load(tmp_path / "export")
    x = digits.test.batch(slice(0, 3)).x
    z = model.encode(x.numpy())["z"]
    assert z.dtype == np.int64 and z.shape == (3, 49 + 9)
    with torch.no_grad():
        assert np.array_equal(z, run.vae.eval().encode(x).z.numpy())
        torch.testing.assert_close(torch.from_numpy(model.decode(z)), run.vae.reconstruct(x))
    assert model.sample(5).shape == (5, 1, 28, 28)
