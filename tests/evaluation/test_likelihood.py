"""The bound and the likelihood against a model whose log p(x) is known: probabilistic PCA."""

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
from vaezoo.evaluation.likelihood import bernoulli_log_prob, elbo, negative_log_likelihood
from vaezoo.evaluation.metrics import EvalConfig
from vaezoo.likelihoods.bernoulli import Bernoulli

D, K, SIGMA = 6, 2, 0.3


class Normal(Likelihood):
    """A normal whose mean is the decoder's output itself."""

    def log_prob(self, params, x):
        return torch.distributions.Normal(params, SIGMA).log_prob(x).sum(1)

    def mean(self, params):
        return params

    def sample(self, params):
        return params + SIGMA * torch.randn_like(params)


class LinearGaussian(GaussianVAE):
    """x = W z + b + noise. q(z|x) has the exact mean, and a diagonal instead of the exact covariance."""

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
def part(model):
    torch.manual_seed(1)
    return TensorSplit(model.exact.sample((700,)), None)


def exact_bound(model, x):
    """The ELBO in closed form: log p(x) - KL(q(z|x) || p(z|x))."""
    q = model.encode(x)
    true = MultivariateNormal(q.mu, model.covariance)
    own = MultivariateNormal(q.mu, torch.diag_embed(q.logvar.exp()))
    return (model.exact.log_prob(x) - torch.distributions.kl_divergence(own, true)).mean().item()


def test_the_bound_is_that_of_the_closed_form(model, part):
    found = elbo(model, part, num_samples=200)
    assert found.elbo.value == pytest.approx(exact_bound(model, part.x), abs=0.01)
    assert found.elbo.value == pytest.approx(-found.reconstruction.value - found.kl.value)
    assert sum(found.kl_by_part) == pytest.approx(found.kl.value)
    assert found.active_units == K
    assert found.bits_per_dim == pytest.approx(-found.elbo.value / D / math.log(2))


def test_the_likelihood_is_that_of_the_closed_form(model, part):
    found = negative_log_likelihood(model, part, samples=2000)
    exact = -model.exact.log_prob(part.x)
    assert found.value == pytest.approx(exact.mean().item(), abs=0.005)
    assert found.error == pytest.approx(exact.std().item() / math.sqrt(700), rel=0.02)


def test_the_estimate_falls_with_the_samples_from_the_bound_to_the_likelihood(model, part):
    estimates = [negative_log_likelihood(model, part, samples=n).value for n in (1, 3, 10, 100)]
    assert estimates == sorted(estimates, reverse=True)
    ones = [negative_log_likelihood(model, part, samples=1, seed=seed).value for seed in range(30)]
    assert sum(ones) / 30 == pytest.approx(-exact_bound(model, part.x), abs=0.02)


def test_neither_memory_nor_compiling_changes_the_estimate(model, part, monkeypatch):
    expected = negative_log_likelihood(model, part, samples=300).value
    monkeypatch.setattr(likelihood, "MANY", 1)
    assert negative_log_likelihood(model, part, samples=300).value == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(likelihood, "ROOM", D * 70)  # the samples of an example in five parts
    assert negative_log_likelihood(model, part, samples=300).value == pytest.approx(expected, abs=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_examples(digits, monkeypatch):
    monkeypatch.setattr(likelihood, "MANY", 1)  # compiled, as where there are many
    vae, sizes = create_model("mlp-vae", digits, {"hidden": (300, 300), "activation": "gated", "latent_dim": 40}), []

    def note(done, total):
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())

    negative_log_likelihood(vae, digits.valid.select(torch.arange(40)), on_progress=note)
    assert sizes[-1] - sizes[10] < 30e6  # a list of the results made it 100e6


def test_bits_follow_the_seed_and_are_those_of_every_model(digits):
    part = digits.valid
    fixed, again = (torch.cat([*likelihood.iter_batches(part, "fixed", 0, torch.device("cpu"))]) for _ in range(2))
    assert torch.equal(fixed, again) and set(fixed.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(fixed, torch.cat([*likelihood.iter_batches(part, "fixed", 1, torch.device("cpu"))]))
    grey = part.batch(slice(None)).x
    assert (fixed - grey).mean().abs() < 1e-3 and torch.equal(fixed[grey == 1], grey[grey == 1])


def test_dynamic_bits_are_drawn_anew_for_each_z(digits):
    vae = create_model("mlp-vae", digits)
    part = digits.valid.select(torch.arange(20))
    once = [elbo(vae, part, num_samples=1, binarize=how).elbo for how in ("fixed", "dynamic")]
    twice = [elbo(vae, part, num_samples=2, binarize=how).elbo for how in ("fixed", "dynamic")]
    assert once[0] == once[1] and twice[0] != twice[1]


def test_the_callers_chance_and_mode_are_left_alone(digits):
    vae = create_model("mlp-vae", digits).train()
    part = digits.valid.select(torch.arange(5))
    state = torch.get_rng_state()
    told = []
    elbo(vae, part)
    negative_log_likelihood(vae, part, samples=3, on_progress=lambda *numbers: told.append(numbers))
    assert torch.equal(torch.get_rng_state(), state) and vae.training and told[-1] == (5, 5)


def test_what_is_no_protocol_is_refused(digits):
    vae = create_model("mlp-vae", digits)
    for call in (
        lambda: elbo(vae, digits.valid, num_samples=0),
        lambda: negative_log_likelihood(vae, digits.valid, samples=0),
        lambda: elbo(vae, digits.valid, binarize="static"),
    ):
        with pytest.raises(VaezooError):
            call()


def test_an_autoencoder_has_no_likelihood(digits):
    vae = create_model("autoencoder", digits)
    with pytest.raises(VaezooError, match="a point, which has no density") as e:
        negative_log_likelihood(vae, digits.valid)
    assert e.value.hint
    part = digits.valid.select(torch.arange(5))
    found = elbo(vae, part, num_samples=2)
    assert found.kl.value == 0 and found.elbo.value == -found.reconstruction.value
    told = {figure.name: figure for figure in likelihood.elbo_metrics(vae, part, EvalConfig("none", 1, 1, 0))}
    assert told["active units"].protocol.startswith("of 20:")  # codes, though the KL has one part


def test_weights_that_are_not_finite_give_an_error_instead_of_a_number(digits):
    vae = create_model("mlp-vae", digits)
    part = digits.valid.select(torch.arange(5))
    with torch.no_grad():
        next(vae.decoder.parameters()).fill_(math.nan)
    for estimate in (elbo, negative_log_likelihood):
        with pytest.raises(DivergedError, match="for 5 of 5 examples"):
            estimate(vae, part)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (35,), (1, 3, 5)])
def test_logarithms_taken_together_are_those_of_each_pixel(shape):
    torch.manual_seed(0)
    logits, x = 20 * torch.randn(50, *shape), torch.rand(50, *shape)
    logits[0], logits[1], logits[2] = 200.0, -200.0, 1e-4  # the second and third: each factor is 1, and each is 2
    exact = Bernoulli().log_prob(logits.double(), x.double())
    torch.testing.assert_close(bernoulli_log_prob(logits, x).double(), exact, rtol=1e-6, atol=1e-4)
