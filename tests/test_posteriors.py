"""Posteriors against torch.distributions, and what works on every posterior."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D

from vaezoo import Batch
from vaezoo.errors import PluginError, VaezooError
from vaezoo.posteriors.base import Posterior, active_units, draw, map_tensors, named_outputs, repeat
from vaezoo.posteriors.delta import Delta
from vaezoo.posteriors.gaussian import LOGVAR_BOUND, DiagonalGaussian

torch.manual_seed(0)
MU, LOGVAR = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
POSTERIOR = DiagonalGaussian(MU, LOGVAR)


def test_log_prob_is_normal_density():
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = D.Independent(D.Normal(MU, (0.5 * LOGVAR).exp()), 1).log_prob(z)
    torch.testing.assert_close(POSTERIOR.log_prob(z), expected)


@pytest.mark.slow
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


def test_active_units_of_codes():
    codes = torch.tensor([[3, 1, 0], [3, 2, 0], [3, 1, 0]])
    assert active_units(codes) == 1


class Flow(NamedTuple):
    """A posterior whose density is known only of its own draws. A module belongs to no row."""

    base: Tensor
    context: Tensor | None
    flow: nn.Module

    def rsample(self):
        return self.flow(self.base)

    def rsample_and_log_prob(self):
        return self.flow(self.base), self.base.sum(1)

    def log_prob(self, z):
        raise VaezooError("the density is known only of draws", "use rsample_and_log_prob")

    def mode(self):
        return self.flow(self.base)


def flow(rows=3):
    torch.manual_seed(1)
    return Flow(torch.randn(rows, 2), None, nn.Linear(2, 2))


def test_map_tensors_keeps_modules_and_none():
    posterior = flow()
    changed = map_tensors(posterior, lambda tensor: tensor + 1)
    assert type(changed) is Flow and changed.context is None and changed.flow is posterior.flow
    assert torch.equal(changed.base, posterior.base + 1)
    batch = map_tensors(Batch(torch.zeros(2, 3)), lambda tensor: tensor + 1)
    assert torch.equal(batch.x, torch.ones(2, 3)) and batch.y is None


def test_repeated_rows_lie_side_by_side():
    x, y = torch.arange(6.0).view(3, 2), torch.tensor([[5, 6], [7, 8], [9, 10]])
    again = repeat(Batch(x, y), 4)
    assert torch.equal(again.x.view(3, 4, 2), x.unsqueeze(1).expand(3, 4, 2))
    assert torch.equal(again.y.view(3, 4, 2), y.unsqueeze(1).expand(3, 4, 2))
    posterior = flow()
    repeated = repeat(posterior, 4)
    assert repeated.flow is posterior.flow and repeated.context is None
    torch.testing.assert_close(repeated.mode().view(3, 4, 2), posterior.mode().unsqueeze(1).expand(3, 4, 2))


def test_draw_computes_the_density():
    torch.manual_seed(0)
    z, log_q = draw(POSTERIOR, density=True)
    torch.testing.assert_close(log_q, POSTERIOR.log_prob(z))
    torch.manual_seed(0)
    again, nothing = draw(POSTERIOR, density=False)
    assert torch.equal(z, again) and nothing is None


@pytest.mark.parametrize("density", [True, False])
def test_draw_uses_own_density(density):
    posterior = flow()
    z, log_q = draw(posterior, density=density)
    torch.testing.assert_close(z, posterior.mode())
    assert torch.equal(log_q, posterior.base.sum(1))


def test_draw_without_density():
    delta = Delta(torch.zeros(2, 3))
    assert draw(delta, density=False)[1] is None
    with pytest.raises(VaezooError, match="has no density"):
        draw(delta, density=True)


class Named(NamedTuple):
    """A posterior that names its outputs itself."""

    a: Tensor

    def mode(self):
        return 2 * self.a

    def outputs(self):
        return {"center": 2 * self.a, "spread": self.a}


def test_fields_are_outputs():
    fields, mode = named_outputs(POSTERIOR)
    assert list(fields) == ["mu", "logvar"] and mode == "mu" and fields["mu"] is MU


def test_mode_comes_first():
    posterior = flow()
    fields, mode = named_outputs(posterior)
    assert list(fields) == ["mode", "base"] and mode == "mode"  # neither the module nor None
    torch.testing.assert_close(fields["mode"], posterior.mode())


def test_posterior_names_its_outputs():
    fields, mode = named_outputs(Named(MU))
    assert list(fields) == ["center", "spread"] and mode == "center"


@pytest.mark.parametrize("posterior", [[MU, LOGVAR], (MU, LOGVAR)])
def test_outputs_need_a_namedtuple(posterior):
    with pytest.raises(PluginError, match="not a NamedTuple"):
        named_outputs(posterior)
