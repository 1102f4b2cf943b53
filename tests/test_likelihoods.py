"""Likelihoods against torch.distributions, integrals and their own samples."""

import math

import pytest
import torch
from torch import distributions as D

from vaezoo.errors import VaezooError
from vaezoo.likelihoods.gaussian import Gaussian
from vaezoo.likelihoods.make import make_likelihood

torch.manual_seed(0)
LOGITS = torch.linspace(-12, 12, 97, dtype=torch.float64).reshape(-1, 1)
X = torch.rand(97, 1, dtype=torch.float64)


def test_bernoulli_is_binary_cross_entropy():
    expected = D.Bernoulli(logits=LOGITS, validate_args=False).log_prob(X).sum(1)
    torch.testing.assert_close(make_likelihood("bernoulli").log_prob(LOGITS, X), expected)


def test_continuous_bernoulli_equals_pytorch():
    likelihood = make_likelihood("continuous-bernoulli")
    expected = D.ContinuousBernoulli(logits=LOGITS, lims=(0.4999, 0.5001))
    torch.testing.assert_close(likelihood.log_prob(LOGITS, X), expected.log_prob(X).sum(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(likelihood.mean(LOGITS), expected.mean, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("logit", [-80.0, -3.0, -1e-4, 0.0, 1e-4, 0.4, 0.6, 3.0, 80.0])
@pytest.mark.parametrize("name", ["continuous-bernoulli"])
def test_density_integrates_to_one(name, logit):
    n = 200_001
    x = torch.linspace(0, 1, n, dtype=torch.float64).reshape(-1, 1)
    params = torch.full_like(x, logit)
    density = make_likelihood(name).log_prob(params, x).exp()
    assert float(torch.trapezoid(density, x[:, 0])) == pytest.approx(1, abs=1e-5)
    assert float(torch.trapezoid(density * x[:, 0], x[:, 0])) == pytest.approx(
        float(make_likelihood(name).mean(params)[0]), abs=1e-5
    )


@pytest.mark.parametrize("logit", [-1000.0, -0.5, 0.0, 1e-12, 1.0, 1000.0])
def test_continuous_bernoulli_stays_finite(logit):
    params = torch.tensor([[logit]], requires_grad=True)
    likelihood = make_likelihood("continuous-bernoulli")
    value = likelihood.log_prob(params, torch.tensor([[0.3]])) + likelihood.mean(params).sum()
    value.sum().backward()
    assert value.isfinite().all() and params.grad.isfinite().all()


@pytest.mark.parametrize("name", ["bernoulli", "continuous-bernoulli", "gaussian:0.2"])
@pytest.mark.parametrize("logit", [-4.0, 0.0, 2.0])
def test_samples_average_to_mean(name, logit):
    torch.manual_seed(1)
    likelihood, params = make_likelihood(name), torch.full((1, 200_000), logit)
    assert float(likelihood.sample(params).mean()) == pytest.approx(float(likelihood.mean(params)[0, 0]), abs=5e-3)


def test_gaussian_is_normal_density():
    expected = D.Normal(torch.sigmoid(LOGITS), 0.3).log_prob(X).sum(1)
    torch.testing.assert_close(make_likelihood("gaussian:0.3").double().log_prob(LOGITS, X), expected)


def test_default_gaussian_is_squared_error():
    zero = make_likelihood("gaussian").log_prob(torch.zeros(1, 4), torch.full((1, 4), 0.5))
    one = make_likelihood("gaussian").log_prob(torch.zeros(1, 4), torch.full((1, 4), 1.0))
    assert float(zero - one) == pytest.approx(0.5 * 4 * 0.25)


def test_optimal_sigma_maximises_likelihood():
    params, x = torch.randn(64, 10), torch.rand(64, 10)
    best = Gaussian("optimal").log_prob(params, x).mean()
    error = float((x - torch.sigmoid(params)).square().mean().sqrt())
    assert float(best) == pytest.approx(float(Gaussian(error).log_prob(params, x).mean()), rel=1e-5)
    for other in (0.9 * error, 1.1 * error):
        assert float(best) > float(Gaussian(other).log_prob(params, x).mean())


def test_optimal_sigma_is_saved():
    likelihood = Gaussian("optimal")
    params, x = torch.zeros(64, 10), torch.full((64, 10), 0.6)
    for _ in range(2000):
        likelihood.log_prob(params, x)
    restored = Gaussian("optimal")
    restored.load_state_dict(likelihood.state_dict())
    restored.eval()
    assert float(restored.log_sigma.exp()) == pytest.approx(0.1, rel=1e-3)
    single = restored.log_prob(params[:1], x[:1])
    torch.testing.assert_close(single, restored.log_prob(params, x)[:1])


def test_learned_sigma_fits_error():
    likelihood = Gaussian("learned")
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    params, x = torch.zeros(64, 10), 0.5 + 0.05 * torch.randn(64, 10)
    for _ in range(400):
        optimizer.zero_grad()
        (-likelihood.log_prob(params, x).mean()).backward()
        optimizer.step()
    assert math.exp(likelihood.log_sigma.item()) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("text", ["bernouli", "gaussian:x", "gaussian:-1", "gaussian:0", "gaussian:nan", "bernoulli:2"])
def test_unknown_likelihoods_are_refused(text):
    with pytest.raises(VaezooError) as e:
        make_likelihood(text)
    assert text.partition(":")[2] in e.value.message and e.value.hint
