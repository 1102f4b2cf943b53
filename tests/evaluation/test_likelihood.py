"""ELBO and NLL of probabilistic PCA, whose log p(x) has a closed form."""

import math
import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from vaezoo import DataSpec, DiagonalGaussian, GaussianVAE, Likelihood, TensorSplit, create_model
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.evaluation import likelihood
from vaezoo.evaluation.batches import iter_batches
from vaezoo.evaluation.likelihood import bernoulli_log_prob, elbo, negative_log_likelihood
from vaezoo.evaluation.metrics import EvalConfig
from vaezoo.likelihoods.bernoulli import Bernoulli

D, K, SIGMA = 6, 2, 0.3


class Normal(Likelihood):
    """A normal distribution whose mean is the decoder's output."""

    def log_prob(self, params, x):
        return torch.distributions.Normal(params, SIGMA).log_prob(x).sum(1)

    def mean(self, params):
        return params

    def sample(self, params):
        return params + SIGMA * torch.randn_like(params)


class LinearGaussian(GaussianVAE):
    """x = W z + b + noise. q(z|x) has the exact mean, but a diagonal covariance."""

    def __init__(self, spread=1.0):
        decoder = nn.Linear(K, D).requires_grad_(False)
        super().__init__(DataSpec(name="linear", shape=(D,)), K, nn.Identity(), decoder)
        self.likelihood = Normal()
        w, b = decoder.weight, decoder.bias
        self.covariance = torch.linalg.inv(torch.eye(K) + w.T @ w / SIGMA**2)
        self.project = lambda x: (x - b) @ w @ self.covariance / SIGMA**2
        self.logvar = self.covariance.diagonal().log() + 2 * math.log(spread)
        self.exact = MultivariateNormal(b, w @ w.T + SIGMA**2 * torch.eye(D))

    def encode(self, x):
        mu = self.project(x)
        return DiagonalGaussian(mu, self.logvar.expand_as(mu))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LinearGaussian(spread=1.3)


@pytest.fixture(scope="module")
def split(model):
    torch.manual_seed(1)
    return TensorSplit(model.exact.sample((700,)), None)


def exact_elbo(model, x):
    """The ELBO in closed form: log p(x) - KL(q(z|x) || p(z|x))."""
    q = model.encode(x)
    true = MultivariateNormal(q.mu, model.covariance)
    approximate = MultivariateNormal(q.mu, torch.diag_embed(q.logvar.exp()))
    return (model.exact.log_prob(x) - torch.distributions.kl_divergence(approximate, true)).mean().item()


def test_elbo_equals_closed_form(model, split):
    estimate = elbo(model, split, num_samples=200)
    assert estimate.elbo.value == pytest.approx(exact_elbo(model, split.x), abs=0.01)
    assert estimate.elbo.value == pytest.approx(-estimate.reconstruction.value - estimate.kl.value)
    assert sum(estimate.kl_terms) == pytest.approx(estimate.kl.value)
    assert estimate.active_units == K
    assert estimate.bits_per_dim == pytest.approx(-estimate.elbo.value / D / math.log(2))


def test_nll_equals_closed_form(model, split):
    estimate = negative_log_likelihood(model, split, num_samples=2000)
    exact = -model.exact.log_prob(split.x)
    assert estimate.value == pytest.approx(exact.mean().item(), abs=0.005)
    assert estimate.error == pytest.approx(exact.std().item() / math.sqrt(700), rel=0.02)


def test_nll_falls_with_samples(model, split):
    estimates = [negative_log_likelihood(model, split, num_samples=n).value for n in (1, 3, 10, 100)]
    assert estimates == sorted(estimates, reverse=True)
    ones = [negative_log_likelihood(model, split, num_samples=1, seed=seed).value for seed in range(30)]
    assert sum(ones) / 30 == pytest.approx(-exact_elbo(model, split.x), abs=0.02)


def test_chunking_keeps_estimate(model, split, monkeypatch):
    split = split.select(torch.arange(100))
    expected = negative_log_likelihood(model, split, num_samples=300).value
    monkeypatch.setattr(likelihood, "CHUNK_ELEMENTS", D * 70)  # five chunks per example
    assert negative_log_likelihood(model, split, num_samples=300).value == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
def test_compiling_keeps_estimate(model, split, monkeypatch):
    expected = negative_log_likelihood(model, split, num_samples=300).value
    monkeypatch.setattr(likelihood, "COMPILE_FROM", 1)
    assert negative_log_likelihood(model, split, num_samples=300).value == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(likelihood, "CHUNK_ELEMENTS", D * 70)
    assert negative_log_likelihood(model, split, num_samples=300).value == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_constant(digits, monkeypatch):
    monkeypatch.setattr(likelihood, "COMPILE_FROM", 1)
    vae, sizes = create_model("mlp-vae", digits, {"hidden": (300, 300), "activation": "gated", "latent_dim": 40}), []

    def record_size(done, total):
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())

    negative_log_likelihood(vae, digits.valid.select(torch.arange(40)), on_progress=record_size)
    assert sizes[-1] - sizes[10] < 30e6  # 100e6 with a list of results


def all_bits(split, seed):
    return torch.cat([batch.x for batch in iter_batches(split, "fixed", seed, torch.device("cpu"))])


def test_bits_depend_on_seed_only(digits):
    split = digits.valid
    fixed, again = (all_bits(split, 0) for _ in range(2))
    assert torch.equal(fixed, again) and set(fixed.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(fixed, all_bits(split, 1))
    grey = split.batch(slice(None)).x
    assert (fixed - grey).mean().abs() < 1e-3 and torch.equal(fixed[grey == 1], grey[grey == 1])


def test_dynamic_bits_change_per_sample(digits):
    vae = create_model("mlp-vae", digits)
    split = digits.valid.select(torch.arange(20))
    once = [elbo(vae, split, num_samples=1, binarize=mode).elbo for mode in ("fixed", "dynamic")]
    twice = [elbo(vae, split, num_samples=2, binarize=mode).elbo for mode in ("fixed", "dynamic")]
    assert once[0] == once[1] and twice[0] != twice[1]


def test_rng_and_mode_are_restored(digits):
    vae = create_model("mlp-vae", digits).train()
    split = digits.valid.select(torch.arange(5))
    state = torch.get_rng_state()
    calls = []
    elbo(vae, split)
    negative_log_likelihood(vae, split, num_samples=3, on_progress=lambda *numbers: calls.append(numbers))
    assert torch.equal(torch.get_rng_state(), state) and vae.training and calls[-1] == (5, 5)


def test_bad_settings_are_refused(digits):
    vae = create_model("mlp-vae", digits)
    for call in (
        lambda: elbo(vae, digits.valid, num_samples=0),
        lambda: negative_log_likelihood(vae, digits.valid, num_samples=0),
        lambda: elbo(vae, digits.valid, binarize="static"),
    ):
        with pytest.raises(VaezooError):
            call()


def test_an_autoencoder_has_no_likelihood(digits):
    vae = create_model("autoencoder", digits)
    with pytest.raises(VaezooError, match="a point, which has no density") as e:
        negative_log_likelihood(vae, digits.valid)
    assert e.value.hint
    split = digits.valid.select(torch.arange(5))
    estimate = elbo(vae, split, num_samples=2)
    assert estimate.kl.value == 0 and estimate.elbo.value == -estimate.reconstruction.value
    metrics = {metric.name: metric for metric in likelihood.elbo_metrics(vae, split, EvalConfig("none", 1, 1, 0))}
    assert metrics["active units"].protocol.startswith("of 20:")  # latents, although the KL has one term


def test_nonfinite_weights_are_refused(digits):
    vae = create_model("mlp-vae", digits)
    split = digits.valid.select(torch.arange(5))
    with torch.no_grad():
        next(vae.decoder.parameters()).fill_(math.nan)
    for estimate in (elbo, negative_log_likelihood):
        with pytest.raises(DivergedError, match="for 5 of 5 examples"):
            estimate(vae, split)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (35,), (1, 3, 5)])
def test_grouped_logarithms(shape):
    torch.manual_seed(0)
    logits, x = 20 * torch.randn(50, *shape), torch.rand(50, *shape)
    logits[0], logits[1], logits[2] = 200.0, -200.0, 1e-4  # the factors are 1 in the first two, and 2 in the third
    expected = Bernoulli().log_prob(logits.double(), x.double())
    torch.testing.assert_close(bernoulli_log_prob(logits, x).double(), expected, rtol=1e-6, atol=1e-4)
