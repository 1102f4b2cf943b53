"""Posterior and prior against torch.distributions."""

import torch
from torch import distributions as D

from vaezoo.posteriors.base import Posterior, active_units
from vaezoo.posteriors.gaussian import LOGVAR_BOUND, DiagonalGaussian
from vaezoo.priors.base import Prior
from vaezoo.priors.standard_normal import StandardNormal

torch.manual_seed(0)
MU, LOGVAR = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
POSTERIOR = DiagonalGaussian(MU, LOGVAR)
NORMAL = D.Independent(D.Normal(MU, (0.5 * LOGVAR).exp()), 1)
PRIOR = StandardNormal((3,)).double()


class Sampled(Prior):
    """A prior without a closed form: the standard normal, told by its density alone."""

    def sample(self, n):
        return PRIOR.sample(n)

    def log_prob(self, z):
        return PRIOR.log_prob(z)


def test_log_prob_is_the_normal_density():
    z = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(POSTERIOR.log_prob(z), NORMAL.log_prob(z))
    expected = D.Independent(D.Normal(torch.zeros(3, dtype=torch.float64), 1.0), 1).log_prob(z)
    torch.testing.assert_close(PRIOR.log_prob(z), expected)


def test_kl_is_the_closed_form_by_dimension():
    expected = D.kl_divergence(D.Normal(MU, (0.5 * LOGVAR).exp()), D.Normal(torch.zeros_like(MU), 1.0))
    z = POSTERIOR.rsample()
    torch.testing.assert_close(PRIOR.kl_terms(POSTERIOR, z), expected)
    torch.testing.assert_close(PRIOR.kl(POSTERIOR, z), expected.sum(1))


def test_a_prior_without_closed_form_estimates_the_same_kl():
    wide = DiagonalGaussian(MU[:1].expand(200_000, 3), LOGVAR[:1].expand(200_000, 3))
    estimate = Sampled().kl(wide, wide.rsample()).mean()
    exact = PRIOR.kl(POSTERIOR, MU)[0]
    assert abs(float(estimate - exact)) < 0.02


def test_rsample_has_the_moments_and_passes_gradients():
    mu, logvar = MU.clone().requires_grad_(), LOGVAR.clone().requires_grad_()
    draws = torch.stack([DiagonalGaussian(mu, logvar).rsample() for _ in range(20_000)])
    torch.testing.assert_close(draws.mean(0), MU, atol=0.06, rtol=0)
    torch.testing.assert_close(draws.var(0), LOGVAR.exp(), atol=0.05, rtol=0.05)
    draws.square().sum().backward()
    assert mu.grad.abs().min() > 0 and logvar.grad.abs().min() > 0


def test_logvar_is_bounded_by_construction_with_gradients_that_do_not_vanish():
    raw = torch.tensor([[-1e9, -30.0, -1.0, 0.0, 1.0, 30.0, 1e9]], requires_grad=True)
    posterior = DiagonalGaussian.from_raw(torch.zeros_like(raw), raw)
    assert posterior.logvar.abs().max() <= LOGVAR_BOUND
    torch.testing.assert_close(posterior.logvar[:, 2:5], raw[:, 2:5], atol=0.01, rtol=0)
    posterior.logvar.sum().backward()
    assert raw.grad[0, 1:6].min() > 0


def test_the_posterior_fulfils_the_protocol():
    assert isinstance(POSTERIOR, Posterior)
    assert POSTERIOR.mode() is MU


def test_the_prior_samples_on_its_device_and_saves_nothing():
    prior = StandardNormal((2, 3))
    assert prior.sample(4).shape == (4, 2, 3)
    assert prior.state_dict() == {}


def test_a_dimension_is_active_if_its_code_varies_by_more_than_a_hundredth():
    spread = torch.tensor([0.11, 0.09, 0.0])  # variances 0.0121, 0.0081 and 0
    codes = torch.stack([spread, -spread])
    assert active_units(codes) == 1
    assert active_units(codes.unflatten(1, (3, 1))) == 1
