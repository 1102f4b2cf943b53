"""Posteriors against torch.distributions."""

import torch
from torch import distributions as D

from vaezoo.posteriors.base import Posterior, active_units
from vaezoo.posteriors.gaussian import LOGVAR_BOUND, DiagonalGaussian

torch.manual_seed(0)
MU, LOGVAR = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
POSTERIOR = DiagonalGaussian(MU, LOGVAR)


def test_log_prob_is_normal_density():
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = D.Independent(D.Normal(MU, (0.5 * LOGVAR).exp()), 1).log_prob(z)
    torch.testing.assert_close(POSTERIOR.log_prob(z), expected)


def test_rsample_moments_and_gradients():
    mu, logvar = MU.clone().requires_grad_(), LOGVAR.clone().requires_grad_()
    samples = torch.stack([DiagonalGaussian(mu, logvar).rsample() for _ in range(20_000)])
    torch.testing.assert_close(samples.mean(0), MU, atol=0.06, rtol=0)
    torch.testing.assert_close(samples.var(0), LOGVAR.exp(), atol=0.05, rtol=0.05)
    samples.square().sum().backward()
    assert mu.grad.abs().min() > 0 and logvar.grad.abs().min() > 0


def test_logvar_is_softly_bounded():
    raw = torch.tensor([[-1e9, -30.0, -1.0, 0.0, 1.0, 30.0, 1e9]], requires_grad=True)
    posterior = DiagonalGaussian.from_raw(torch.zeros_like(raw), raw)
    assert posterior.logvar.abs().max() <= LOGVAR_BOUND
    torch.testing.assert_close(posterior.logvar[:, 2:5], raw[:, 2:5], atol=0.01, rtol=0)
    posterior.logvar.sum().backward()
    assert raw.grad[0, 1:6].min() > 0


def test_gaussian_implements_protocol():
    assert isinstance(POSTERIOR, Posterior)
    assert POSTERIOR.mode() is MU


def test_active_units_vary_enough():
    deviation = torch.tensor([0.11, 0.09, 0.0])  # variances 0.0121, 0.0081 and 0
    codes = torch.stack([deviation, -deviation])
    assert active_units(codes) == 1
    assert active_units(codes.unflatten(1, (3, 1))) == 1
