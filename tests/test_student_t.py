"""The Student-t posterior and prior against torch.distributions and scipy."""

import pytest
import torch
from scipy import stats
from torch import distributions as D

from vaezoo.errors import VaezooError
from vaezoo.posteriors.student_t import StudentT, StudentTPart
from vaezoo.priors.student_t import StudentTPrior, StudentTPriorPart


@pytest.mark.parametrize("nu", [3, 5, 40])
def test_densities(nu):
    torch.manual_seed(0)
    mu, logvar, z = (2 * torch.randn(6, 3, 2, dtype=torch.float64) for _ in range(3))
    expected = D.StudentT(nu, mu, (0.5 * logvar).exp()).log_prob(z).flatten(1).sum(1)
    torch.testing.assert_close(StudentT(mu, logvar, nu).log_prob(z), expected)
    expected = D.StudentT(torch.tensor(float(nu), dtype=torch.float64)).log_prob(z).flatten(1).sum(1)
    torch.testing.assert_close(StudentTPrior((3, 2), nu).log_prob(z), expected)


@pytest.mark.parametrize("nu", [3, 8])
def test_draws_have_the_distribution(nu):
    torch.manual_seed(0)
    posterior = StudentT(torch.full((20_000, 1), 2.0), torch.full((20_000, 1), -1.0), nu)
    standard = (posterior.rsample() - 2) / (0.5 * posterior.logvar).exp()
    for t in (standard, StudentTPrior((1,), nu).sample(20_000)):
        assert stats.kstest(t[:, 0].numpy(), stats.t(nu).cdf).pvalue > 1e-3
        assert stats.kstest(t[:, 0].numpy(), stats.t(nu + 3).cdf).pvalue < 1e-2 or nu > 3


@pytest.mark.parametrize("part", [StudentTPart, StudentTPriorPart])
def test_needs_a_variance(part):
    with pytest.raises(VaezooError, match=r"\.nu' is 2, which has no finite variance"):
        part(nu=2)
