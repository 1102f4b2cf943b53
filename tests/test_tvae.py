"""tvae and the likelihood of columns with modes: densities, samples, features, and fitted mixtures."""

import math

import numpy as np
import pytest
import torch
from torch import distributions as D

import vaezoo
from vaezoo import DataSpec, TensorSplit
from vaezoo.errors import UnsupportedDataError
from vaezoo.likelihoods.make import make_likelihood
from vaezoo.likelihoods.table_modes import MODES, ModeTable, fit_modes

COLUMNS = ("a:real?", "b:3", "c:real")


def two_modes(n=400):
    """Returns columns with two modes, three categories and one mode."""
    generator = torch.Generator().manual_seed(0)
    modes = torch.where(torch.rand(n, generator=generator) < 0.3, -2.0, 1.0)
    a = modes + 0.1 * torch.randn(n, generator=generator)
    b = torch.randint(0, 3, (n,), generator=generator).float()
    return torch.stack([a, b, torch.randn(n, generator=generator)], 1)


@pytest.fixture(scope="module")
def likelihood():
    torch.manual_seed(0)
    result = make_likelihood("table:modes", "table", 0, COLUMNS)
    x = two_modes()
    x[::10, 0] = torch.nan
    result.init_from_data(TensorSplit(x, None))
    with torch.no_grad():
        result.log_sigma.copy_(torch.tensor([math.log(0.3), math.log(0.2)]))
    return result


def params_of(likelihood, n=1):
    return torch.randn(n, *likelihood.params_shape((3,)), generator=torch.Generator().manual_seed(1))


def mixture_of(likelihood, params, row, start):
    """Returns p(x|z) of a real column by torch.distributions."""
    has_mode = likelihood.log_weights[row] > -1000
    p = params[0, start : start + MODES].masked_fill(~has_mode, -math.inf)
    width = 4 * likelihood.scales[row]
    means = likelihood.means[row] + width * torch.tanh(params[0, start + MODES])
    components = D.Normal(means, width * likelihood.log_sigma[row].exp())
    return D.MixtureSameFamily(D.Categorical(logits=p), components)


def test_modes_are_found(likelihood):
    weights, means, scales = (
        t[0][likelihood.log_weights[0] > -1000]
        for t in (likelihood.log_weights.exp(), likelihood.means, likelihood.scales)
    )
    assert float(weights.sum()) == pytest.approx(1, abs=1e-4)
    assert float(weights[(means + 2).abs() < 0.3].sum()) == pytest.approx(0.3, abs=0.06)
    assert float(weights[(means - 1).abs() < 0.3].sum()) == pytest.approx(0.7, abs=0.06)
    assert (scales < 0.3).all()  # the prior of the mixture widens small modes
    again = fit_modes(two_modes()[:, 0].double()), fit_modes(two_modes()[:, 0].double())
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))


@torch.no_grad()
def test_density_is_a_mixture_of_the_modes(likelihood):
    params = params_of(likelihood)
    x = torch.tensor([[0.4, 2.0, -0.7]])
    a, c = mixture_of(likelihood, params, 0, 0), mixture_of(likelihood, params, 1, MODES + 1 + 3)
    b = torch.log_softmax(params[:, MODES + 1 : MODES + 4], 1)[0, 2]
    expected = a.log_prob(x[0, 0]) + b + c.log_prob(x[0, 2])
    assert float(likelihood.log_prob(params, x)) == pytest.approx(float(expected), rel=1e-4)
    x[0, 0] = torch.nan
    assert float(likelihood.log_prob(params, x)) == pytest.approx(float(b + c.log_prob(x[0, 2])), rel=1e-4)
    assert likelihood.mean(params)[0].tolist()[::2] == pytest.approx([float(a.mean), float(c.mean)], rel=1e-4)
    outputs = likelihood.outputs(params)["columns"][0]
    assert outputs[[0, 4]].tolist() == pytest.approx([float(a.mean), float(c.mean)], rel=1e-4)


def test_density_integrates_to_one(likelihood):
    x = torch.zeros(80_001, 3)
    x[:, 0], x[:, 2] = torch.linspace(-8, 8, len(x)), torch.nan
    params = params_of(likelihood).expand(len(x), -1)
    density = likelihood.log_prob(params, x).exp() / torch.softmax(params[0, MODES + 1 : MODES + 4], 0)[0]
    assert float(torch.trapezoid(density.double(), x[:, 0].double())) == pytest.approx(1, abs=1e-3)


def test_samples_follow_the_density(likelihood):
    torch.manual_seed(0)
    params = params_of(likelihood)
    x = likelihood.sample(params.expand(20_000, -1))
    mixture = mixture_of(likelihood, params, 0, 0)
    assert float(x[:, 0].mean()) == pytest.approx(float(mixture.mean), abs=4 * float(mixture.stddev) / 140)
    assert float(x[:, 0].std()) == pytest.approx(float(mixture.stddev), rel=0.03)
    shares = torch.softmax(params[0, MODES + 1 : MODES + 4], 0)
    assert torch.allclose(torch.bincount(x[:, 1].long(), minlength=3) / len(x), shares, atol=0.015)


def test_sum_over_modes_is_above_the_bound_of_one_mode(likelihood):
    """The published objective is a bound on this density, whatever mode is drawn."""
    params, x = params_of(likelihood), torch.tensor([[0.9, 0.0, 0.1]])
    log_p, means, deviations = likelihood._mixture(0, params[:, : MODES + 1])
    joint = (log_p + D.Normal(means, deviations).log_prob(x[:, :1]))[0]
    x[0, 2] = torch.nan
    density = likelihood.log_prob(params, x) - torch.log_softmax(params[:, MODES + 1 : MODES + 4], 1)[:, 0]
    assert (joint <= density + 1e-4).all()


def test_features_are_modes_and_places(likelihood):
    x = torch.tensor([[-2.0, 1.0, 0.0], [torch.nan, 0.0, 0.0]])
    features = likelihood.normalize(x)
    assert features.shape == (2, likelihood.features_size) and likelihood.features_size == MODES + 2 + 3 + MODES + 1
    probabilities, alpha, observed = features[0, :MODES], features[0, MODES], features[0, MODES + 1]
    near = (likelihood.means[0] + 2).abs() < 0.5
    assert float(probabilities[near].sum()) > 0.99 and abs(float(alpha)) < 0.2 and observed == 1
    assert features[1, : MODES + 2].eq(0).all()
    x[0, 0] = 0.2  # between the modes
    joint = likelihood.log_weights[0] + D.Normal(likelihood.means[0], likelihood.scales[0]).log_prob(x[0, 0])
    torch.testing.assert_close(likelihood.normalize(x)[0, :MODES], torch.softmax(joint, 0), atol=1e-5, rtol=1e-4)
    assert features[:, MODES + 2 : MODES + 5].tolist() == [[0, 1, 0], [1, 0, 0]]


def test_constant_columns_have_one_mode():
    weights, means, scales = fit_modes(torch.full((50,), 0.5, dtype=torch.float64))
    assert len(weights) == 1 and means.item() == pytest.approx(0.5) and scales.item() >= 1e-3


@pytest.mark.slow
def test_model_has_the_likelihood_in_its_run(tmp_path):
    data = vaezoo.load_data("penguins")
    options = {"hidden": "16", "latent_dim": 3}
    run = vaezoo.train("tvae", data, options=options, config={"steps": 5, "device": "cpu"}, out=tmp_path / "run")
    again = vaezoo.load(run.path)
    assert run.data.likelihood == again.data.likelihood == "table:modes"
    assert isinstance(again.vae.likelihood, ModeTable) and (again.vae.likelihood.log_weights[:, 1] > -1000).any()
    assert torch.equal(again.vae.likelihood.means, run.vae.likelihood.means)
    exported = vaezoo.export_onnx(run, tmp_path / "export")
    model, x = vaezoo.runtime.load(exported.path), data.test.x
    np.testing.assert_allclose(model.reconstruct(x.numpy()), run.vae.reconstruct(x).numpy(), atol=1e-4, rtol=1e-4)
    assert vaezoo.resume(run.path, steps=8).result
    with pytest.raises(UnsupportedDataError, match="tvae is a model of tables"):
        vaezoo.create_model("tvae", DataSpec(name="v", shape=(3,)))


def test_other_models_take_the_likelihood(tmp_path):
    data = vaezoo.load_data("penguins", likelihood="table:modes")
    run = vaezoo.train(
        "mlp-vae", data, options={"hidden": "16", "latent_dim": 3}, config={"steps": 3}, out=tmp_path / "r"
    )
    assert (run.vae.likelihood.log_weights[:, 1] > -1000).any()
    assert math.isfinite(run.result["metrics"]["elbo"])
