"""Priors that are not the standard normal, in exports: a hierarchy of latents, and codes drawn one by one."""

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import TrainConfig, export_onnx, train, verify_onnx
from vaezoo.errors import VaezooError
from vaezoo.evaluation import latents
from vaezoo.priors.base import Prior
from vaezoo.priors.standard_normal import StandardNormal
from vaezoo.vae import is_standard_normal, prior_graph

NAMES = ["own-two-levels", "own-codes"]
N = 40_000


@pytest.fixture(scope="module")
def runs(own_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("priors")
    data = vaezoo.from_arrays(np.random.default_rng(0).random((80, 6)), name="vectors")
    runs = {n: train(n, data, config=TrainConfig(steps=20, batch_size=20, lr=0.02), out=folder / n) for n in NAMES}
    exports = {n: export_onnx(run, folder / f"{n}-export") for n, run in runs.items()}
    return data, runs, exports


def moments(z):
    """The mean and the covariance of samples, and their standard errors."""
    z = np.asarray(z, np.float64)
    centred = z - z.mean(0)
    products = centred[:, :, None] * centred[:, None]
    return (
        (z.mean(0), z.std(0) / np.sqrt(len(z))),
        (products.mean(0), products.std(0) / np.sqrt(len(z))),
    )


def assert_same_moments(a, b):
    for (mean_a, error_a), (mean_b, error_b) in zip(moments(a), moments(b), strict=True):
        assert (np.abs(mean_a - mean_b) <= 5 * np.sqrt(error_a**2 + error_b**2) + 1e-12).all()


@pytest.mark.slow
def test_hierarchy_is_a_graph(runs):
    _, _, exports = runs
    exported = exports["own-two-levels"]
    assert exported.manifest["prior"] == "graph"
    assert list(exported.manifest["graphs"]) == ["encoder", "decoder", "prior"]
    assert exported.manifest["graphs"]["prior"] == {
        "inputs": [{"name": "noise", "dtype": "float32", "shape": ["batch", 5]}],
        "outputs": [{"name": "z", "dtype": "float32", "shape": ["batch", 5]}],
    }
    assert {row.graph for row in verify_onnx(exported.path).parity} == {"encoder", "decoder", "prior", "round trip"}
    assert (exported.path / "golden" / "prior" / "test_data_set_1" / "output_0.pb").exists()


@pytest.mark.slow
def test_hierarchy_has_equal_moments(runs):
    _, all_runs, exports = runs
    vae, model = all_runs["own-two-levels"].vae, vaezoo.runtime.load(exports["own-two-levels"].path)
    noise = np.random.default_rng(0).standard_normal((N, 5), dtype=np.float32)
    actual = model.run("prior", {"noise": noise})["z"]
    torch.manual_seed(0)
    with torch.no_grad():
        assert_same_moments(actual, vae.prior.sample(N))
        np.testing.assert_allclose(actual, vae.prior.from_noise(torch.from_numpy(noise)), atol=1e-5, rtol=1e-4)
    (mean, _), (covariance, _) = moments(actual)
    assert np.abs(covariance - np.eye(5)).max() > 0.02 or np.abs(mean).max() > 0.02  # not the noise itself
    z = model.run("prior", {"noise": np.random.default_rng(3).standard_normal((7, 5), dtype=np.float32)})["z"]
    np.testing.assert_array_equal(model.sample(7, seed=3), model.decode(z))


def test_hierarchy_is_evaluated(runs):
    data, all_runs, _ = runs
    result = vaezoo.evaluate(all_runs["own-two-levels"], data, metrics=["elbo", "nll"], nll_samples=20)
    values = {metric.name: metric.value for metric in result.metrics}
    assert values["NLL-20"] <= values["-ELBO"] + 0.1  # two estimates with other z
    assert len(values["KL by dimension"]) == 1  # an estimate has one term


def test_card_program_draws_noise(runs):
    _, _, exports = runs
    card = (exports["own-two-levels"].path / "README.md").read_text()
    assert 'ort.InferenceSession("prior.onnx"' in card and "standard_normal((16, 5))" in card


def test_codes_are_whole_numbers(runs):
    _, all_runs, exports = runs
    run, exported = all_runs["own-codes"], exports["own-codes"]
    graphs = exported.manifest["graphs"]
    assert exported.manifest["prior"] == "autoregressive" and exported.manifest["mode"] == "codes"
    assert graphs["encoder"]["outputs"] == [{"name": "codes", "dtype": "int64", "shape": ["batch", 3]}]
    assert graphs["prior"]["inputs"] == [{"name": "z", "dtype": "int64", "shape": ["batch", 3]}]
    assert graphs["prior"]["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 3, 5]}]
    verify_onnx(exported.path)
    model, x = vaezoo.runtime.load(exported.path), run.examples.x
    np.testing.assert_array_equal(model.encode(x.numpy())["codes"], run.vae.encode(x).mode())
    np.testing.assert_allclose(model.reconstruct(x.numpy()), run.vae.reconstruct(x).detach(), atol=1e-5, rtol=1e-4)


def test_codes_have_equal_moments(runs):
    _, all_runs, exports = runs
    vae, model = all_runs["own-codes"].vae, vaezoo.runtime.load(exports["own-codes"].path)
    torch.manual_seed(0)
    codes = vae.prior.sample(N)
    assert codes.dtype == torch.int64 and 0 <= codes.min() <= codes.max() < 5
    drawn = model.sample_prior(N, None, np.random.default_rng(0))
    one_hot = [np.eye(5)[np.asarray(z)].reshape(N, 15)[:, 1:] for z in (codes, drawn)]
    assert_same_moments(*one_hot)
    np.testing.assert_array_equal(model.sample(6, seed=2), model.sample(6, seed=2))
    assert model.sample(6).shape == (6, 6) == vae.sample(6).shape


def test_prior_learns_the_codes(runs):
    data, all_runs, _ = runs
    result = vaezoo.evaluate(all_runs["own-codes"], data, metrics=["elbo", "nll"], nll_samples=3)
    values = {metric.name: metric.value for metric in result.metrics}
    assert 0 < values["KL"] < 3 * np.log(5) + 1
    assert values["NLL-3"] == pytest.approx(values["-ELBO"], rel=1e-5)  # all samples of a point are equal


def test_nothing_lies_between_codes(runs):
    _, all_runs, _ = runs
    run = all_runs["own-codes"]
    batch = vaezoo.Batch(run.examples.x[:1])
    for call in (
        lambda: latents.traversal(run.vae, batch, [0], torch.zeros(2)),
        lambda: latents.interpolation(run.vae, batch, batch, 3),
        lambda: latents.edit(run.vae, batch, torch.zeros(3), torch.zeros(2)),
    ):
        with pytest.raises(VaezooError, match="latents of this model are whole numbers"):
            call()


class Wide(StandardNormal):
    """A prior that says how to draw, but not from which noise."""

    def sample(self, n, *given):
        return 2 * super().sample(n)


class NoSamples(Prior):
    def log_prob(self, z, *given):
        return -z.square().sum(1)


def test_own_samples_are_not_noise(digits):
    vae = vaezoo.create_model("mlp-vae", digits)
    assert is_standard_normal(vae.prior) and prior_graph(vae) is None
    for prior in (Wide(vae.latent_shape), NoSamples()):
        vae.prior = prior
        assert not is_standard_normal(prior) and prior_graph(vae) is None


def test_prior_without_samples():
    with pytest.raises(VaezooError, match="the prior NoSamples cannot be sampled") as e:
        NoSamples().sample(2)
    assert "from_noise" in e.value.hint
