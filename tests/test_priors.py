"""Priors against torch.distributions."""

import torch
from torch import distributions as D

from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior
from vaezoo.priors.standard_normal import StandardNormal

torch.manual_seed(0)
MU, LOGVAR = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
POSTERIOR = DiagonalGaussian(MU, LOGVAR)
PRIOR = StandardNormal((3,)).double()


class EstimatedPrior(Prior):
    """The standard normal without its closed form of the KL."""

    def sample(self, n):
        return PRIOR.sample(n)

    def log_prob(self, z):
        return PRIOR.log_prob(z)


def test_log_prob_is_normal_density():
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = D.Independent(D.Normal(torch.zeros(3, dtype=torch.float64), 1.0), 1).log_prob(z)
    torch.testing.assert_close(PRIOR.log_prob(z), expected)


def test_kl_has_closed_form():
    expected = D.kl_divergence(D.Normal(MU, (0.5 * LOGVAR).exp()), D.Normal(torch.zeros_like(MU), 1.0))
    z = POSTERIOR.rsample()
    torch.testing.assert_close(PRIOR.kl_terms(POSTERIOR, z), expected)
    torch.testing.assert_close(PRIOR.kl(POSTERIOR, z), expected.sum(1))


def test_kl_estimate_is_unbiased():
    wide = DiagonalGaussian(MU[:1].expand(200_000, 3), LOGVAR[:1].expand(200_000, 3))
    estimate = EstimatedPrior().kl(wide, wide.rsample()).mean()
    exact = PRIOR.kl(POSTERIOR, MU)[0]
    assert abs(float(estimate - exact)) < 0.02


def test_prior_samples_and_saves_nothing():
    prior = StandardNormal((2, 3))
    assert prior.sample(4).shape == (4, 2, 3)
    assert prior.state_dict() == {}
