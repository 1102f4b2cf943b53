"""Likelihoods of counts: the formulas against exact sums, their limits, and what is drawn."""

import math

import numpy as np
import pytest
import torch

from vaezoo.core.precision import to_float32
from vaezoo.data.base import TensorSplit
from vaezoo.errors import VaezooError
from vaezoo.likelihoods.counts import MAX_DISPERSION, negative_binomial_log_prob, poisson_log_prob, stirling_rest
from vaezoo.likelihoods.make import BUILT_IN, make_likelihood

NAMES = ("poisson", "nb", "zinb")
MEANS = (1e-8, 1e-4, 0.1, 1.0, 10.0, 1e3, 1e5)
DISPERSIONS = (1e-4, 1e-2, 1.0, 10.0, 1e3, 1e6)
COUNTS = (0.0, 1.0, 2.0, 5.0, 30.0, 300.0, 1e4, 1e5, 1e6)


def grid(dtype=torch.float64):
    return [
        t.to(dtype).flatten() for t in torch.meshgrid(*map(torch.tensor, (MEANS, DISPERSIONS, COUNTS)), indexing="ij")
    ]


def exact_negative_binomial(mean, theta, x):
    """log p by its definition, with 40 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(40):
        m, t, k = (mpmath.mpf(float(v)) for v in (mean, theta, x))
        binomial = mpmath.loggamma(k + t) - mpmath.loggamma(t) - mpmath.loggamma(k + 1)
        return float(binomial + t * mpmath.log(t / (t + m)) + k * mpmath.log(m / (t + m)))


@pytest.fixture(scope="module")
def exact():
    return torch.tensor([exact_negative_binomial(*point) for point in zip(*grid(), strict=True)], dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 3e-6)])
def test_negative_binomial_is_exact(exact, dtype, tolerance):
    """Also where lgamma(x + theta) - lgamma(theta) would lose all digits in float32."""
    mean, theta, x = grid(dtype)
    value = negative_binomial_log_prob(mean.log(), theta.log(), x).double()
    assert ((value - exact).abs() / (1 + exact.abs())).max() < tolerance


def test_scipy_agrees():
    stats = pytest.importorskip("scipy.stats")
    mean, theta, x = (t[(grid()[0] > 1e-3) & (grid()[2] < 1e4)] for t in grid())
    ours = negative_binomial_log_prob(mean.log(), theta.log(), x)
    theirs = torch.from_numpy(stats.nbinom.logpmf(x.numpy(), theta.numpy(), (theta / (theta + mean)).numpy()))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    poisson = torch.from_numpy(stats.poisson.logpmf(x.numpy(), mean.numpy()))
    torch.testing.assert_close(poisson_log_prob(mean.log(), x), poisson, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(poisson_log_prob(mean.log().float(), x.float()).double(), poisson, rtol=1e-6, atol=1e-5)


def test_stirling_rest():
    a = torch.cat([torch.logspace(-6, 6, 200, dtype=torch.float64), torch.tensor([7.999, 8.0, 8.001])])
    expected = torch.lgamma(a) - (a - 0.5) * a.log() + a
    torch.testing.assert_close(stirling_rest(a), expected, rtol=1e-9, atol=1e-8)


def test_gradients_are_finite_and_exact():
    for dtype in (torch.float64, torch.float32):
        mean, theta, x = grid(dtype)
        log_mean, log_theta = mean.log().requires_grad_(), theta.log().requires_grad_()
        negative_binomial_log_prob(log_mean, log_theta, x).sum().backward()
        assert log_mean.grad.isfinite().all() and log_theta.grad.isfinite().all()
        if dtype == torch.float64:  # x - (x + theta) mu / (mu + theta)
            expected = theta * (x - mean) / (mean + theta)
            torch.testing.assert_close(log_mean.grad, expected, rtol=1e-6, atol=1e-6)
            by_theta = theta * (
                torch.digamma(x + theta)
                - torch.digamma(theta)
                + (theta / (theta + mean)).log()
                + (mean - x) / (theta + mean)
            )
            moderate = (theta < 1e3) & (theta > 1e-3) & (x < 1e4)
            torch.testing.assert_close(log_theta.grad[moderate], by_theta[moderate], rtol=1e-5, atol=1e-5)


def test_large_dispersion_is_poisson():
    x, log_mean = torch.arange(60.0), torch.full((60,), math.log(20.0))
    close = negative_binomial_log_prob(log_mean, torch.full((60,), math.log(MAX_DISPERSION)), x)
    torch.testing.assert_close(close, poisson_log_prob(log_mean, x), rtol=0, atol=1e-3)
    far = negative_binomial_log_prob(log_mean, torch.zeros(60), x)
    assert (far - poisson_log_prob(log_mean, x)).abs().max() > 1


def likelihood_of(name, size, library=(2.0, 0.5)):
    likelihood = make_likelihood(name, "count", shape=(size,)).double()
    likelihood.library.copy_(torch.tensor(library))
    if name != "poisson":
        likelihood.raw_dispersion.data = torch.linspace(-1, 2, size, dtype=torch.float64)
    return likelihood


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_of_a_count_add_up_to_one(name):
    likelihood = likelihood_of(name, 1)
    params = torch.full((1, *likelihood.params_shape((1,))), 0.3, dtype=torch.float64).expand(4_000, -1)
    log_mean = torch.full((4_000, 1), math.log(6.0), dtype=torch.float64)
    log_p = likelihood.count_log_prob(params, log_mean, torch.arange(4_000, dtype=torch.float64)[:, None])
    assert float(log_p.detach().exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_that_of_its_definition(name):
    """l is the sum of x, the means are l softmax(params), and zeros have two sources."""
    stats = pytest.importorskip("scipy.stats")
    likelihood, x = likelihood_of(name, 3), torch.tensor([[4.0, 0, 9], [0, 0, 1]], dtype=torch.float64)
    logits, dropout = np.array([[0.1, -1, 2], [3, 0, 0]]), np.array([[-1, 0.5, -2], [2, 1, 0]])
    mean = x.numpy().sum(1, keepdims=True) * np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    params = np.concatenate([logits, dropout], 1) if name == "zinb" else logits
    theta = np.exp([-1, 0.5, 2])
    p = stats.poisson.pmf(x, mean) if name == "poisson" else stats.nbinom.pmf(x, theta, theta / (theta + mean))
    if name == "zinb":
        pi = 1 / (1 + np.exp(-dropout))
        p = (1 - pi) * p + pi * (x.numpy() == 0)
    expected = torch.from_numpy(np.log(p).sum(1))
    torch.testing.assert_close(likelihood.log_prob(torch.from_numpy(params), x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_their_mean_and_variance(name):
    likelihood, size = likelihood_of(name, 3), 50_000
    params = torch.tensor([[0.5, -1, 0.3, -1, 0.5, -2]], dtype=torch.float64)[:, : likelihood.params_shape((3,))[0]]
    torch.manual_seed(0)
    samples, mean = likelihood.sample(params.expand(size, -1)), likelihood.mean(params)[0]
    errors = (samples.mean(0) - mean).abs() / (samples.std(0) / math.sqrt(size))
    assert errors.max() < 4.5 and torch.equal(samples, samples.round())
    fractions = torch.softmax(params[0, :3], 0)
    second = fractions.square() * math.exp(2 * 2 + 2 * 0.25)  # E l^2 of a log-normal variable
    theta = torch.tensor(math.inf) if name == "poisson" else likelihood.log_dispersion.exp()
    kept = torch.sigmoid(-params[0, 3:]) if name == "zinb" else 1.0
    variance = mean + kept * second * (1 + 1 / theta) - mean.square()
    torch.testing.assert_close(samples.var(0), variance, rtol=0.1, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_library_sizes_are_those_of_the_training(name):
    likelihood = make_likelihood(name, "count", shape=(2,))
    x = torch.tensor([[1.0, 9], [50, 50], [400, 600]])
    likelihood.init_from_data(TensorSplit(x, None))
    assert float(likelihood.library[0]) == pytest.approx(math.log(100)) and "library" in likelihood.state_dict()
    assert float(likelihood.library[1]) == pytest.approx(math.log(10) * math.sqrt(2 / 3))
    params = likelihood.params_of_mean(torch.tensor([30.0, 90.0]))[None]
    fractions = likelihood.log_fractions(params).exp()[0]
    torch.testing.assert_close(fractions, torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_give_the_parameters_again(name):
    likelihood, other = likelihood_of(name, 4), make_likelihood(name, "count", shape=(4,)).double()
    params = torch.randn(5, *likelihood.params_shape((4,)), dtype=torch.float64)
    x = torch.poisson(3 * torch.rand(5, 4, dtype=torch.float64))
    again = other.params_of_outputs({key: value.detach() for key, value in likelihood.outputs(params).items()})
    torch.testing.assert_close(other.log_prob(again, x), likelihood.log_prob(params, x))
    torch.testing.assert_close(other.mean(again), likelihood.mean(params))


@pytest.mark.parametrize("name", NAMES)
def test_extreme_parameters_stay_finite(name):
    likelihood = make_likelihood(name, "count", shape=(3,))
    params = torch.tensor([[90.0, -90, 0, 60, -60, 0]])[:, : likelihood.params_shape((3,))[0]].repeat(3, 1)
    x = torch.tensor([[0.0, 7, 1e6], [0, 0, 0], [1e6, 0, 0]])
    params = to_float32(params.bfloat16()).requires_grad_()
    log_p = likelihood.log_prob(params, x)
    log_p.sum().backward()
    assert log_p.isfinite().all() and params.grad.isfinite().all()
    assert float(log_p.detach()[1]) == pytest.approx(0, abs=1e-4)  # without a count, all means are 0


def test_arguments_and_other_kinds_are_refused():
    for name in NAMES:
        assert name in BUILT_IN
        with pytest.raises(VaezooError, match="no likelihood named"):
            make_likelihood(f"{name}:3", "count")
        with pytest.raises(VaezooError, match="is not for data of kind unit"):
            make_likelihood(name)
