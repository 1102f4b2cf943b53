"""The von Mises-Fisher posterior and the uniform prior on the sphere, against quadrature and closed forms."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate

from vaezoo.composition import MLPParts, compose, composed
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import repeat
from vaezoo.posteriors.von_mises_fisher import (
    PROPOSALS,
    VonMisesFisher,
    VonMisesFisherHead,
    VonMisesFisherPart,
    angle_slope,
    sample_angle,
)
from vaezoo.priors.sphere import UniformSphere, UniformSpherePart
from vaezoo.registry import create_model
from vaezoo.testing import run_checks
from vaezoo.testing.densities import check_posterior, check_prior

CASES = [(2, 0.0), (2, 3.0), (2, 800.0), (3, 0.5), (3, 50.0), (11, 8.0), (11, 2000.0), (30, 0.2), (30, 300.0)]


def posterior(m, kappa, rows=1):
    generator = torch.Generator().manual_seed(m)
    mu = F.normalize(torch.randn(1, m, generator=generator, dtype=torch.float64), dim=1)
    return repeat(VonMisesFisher(mu, torch.full((1, 1), kappa, dtype=torch.float64)), rows)


def area(m):
    return 2 * math.pi ** (m / 2) / math.gamma(m / 2)


def integrate_angles(m, kappa, values):
    """Integrates values(s) over the angle s to mu, split where the density lies."""
    width = min(math.pi, 12 / math.sqrt(kappa + 1))
    largest = max(abs(values(s)) for s in np.linspace(0, width, 30))
    return sum(
        integrate.quad(values, a, b, epsabs=1e-13 * largest, epsrel=1e-10, limit=200)[0]
        for a, b in ((0, width), (width, math.pi))
    )


def moments(m, kappa):
    """The normaliser of the density of the angle, and the means of the cosine and its square."""

    def values(power):
        return integrate_angles(
            m, kappa, lambda s: math.cos(s) ** power * math.exp(kappa * (math.cos(s) - 1)) * math.sin(s) ** (m - 2)
        )

    zero = values(0)
    return zero, values(1) / zero, values(2) / zero


@pytest.mark.parametrize(("m", "kappa"), CASES)
def test_density_integrates_to_one(m, kappa):
    q = posterior(m, kappa)
    other = F.normalize(torch.randn(1, m, dtype=torch.float64), dim=1)
    tangent = F.normalize(other - (other * q.mu).sum() * q.mu, dim=1)

    def density(s):
        return math.exp(q.log_prob(math.cos(s) * q.mu + math.sin(s) * tangent).item())

    below = area(m - 1) if m > 2 else 2  # a sphere in m - 1 dimensions at each angle. In one dimension it is two points
    total = integrate_angles(m, kappa, lambda s: density(s) * below * math.sin(s) ** (m - 2))
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("m", "kappa"), CASES)
def test_draws(m, kappa):
    """Draws have length 1, the mean and the variance of the cosine, and no direction across mu."""
    torch.manual_seed(0)
    n = 10_000
    q = posterior(m, kappa, n)
    z = q.rsample()
    torch.testing.assert_close(z.square().sum(1), torch.ones(n, dtype=torch.float64))
    cosine, (_, mean, square) = (z * q.mu).sum(1), moments(m, kappa)
    error = math.sqrt((square - mean**2) / n)
    assert abs(cosine.mean().item() - mean) < 5 * error
    assert cosine.square().mean().item() == pytest.approx(square, abs=10 * error)
    across = z - cosine[:, None] * q.mu
    assert (across.mean(0).abs() < 5 * across.std(0) / math.sqrt(n) + 1e-12).all()
    expected = (1 - square) / (m - 1) * (torch.eye(m, dtype=torch.float64) - q.mu[0, :, None] * q.mu[0])
    torch.testing.assert_close(across.T @ across / n, expected, rtol=0, atol=0.05 * (1 - square))


@pytest.mark.parametrize(("m", "kappa"), [(2, 1e-3), (2, 1e4), (11, 20.0), (200, 300.0), (200, 1e4)])
def test_enough_proposals(m, kappa, monkeypatch):
    """At least 65% of the proposals are accepted, so hardly ever are all of them rejected."""
    torch.manual_seed(0)
    accepted = []
    original = torch.Tensor.argmax
    monkeypatch.setattr(torch.Tensor, "argmax", lambda t, *a, **k: accepted.append(t) or original(t, *a, **k))
    sample_angle(torch.full((4_000, 1), kappa), m)
    assert accepted[0].shape == (4_000, PROPOSALS)
    assert accepted[0].float().mean() > 0.65


@pytest.mark.parametrize(("m", "kappa"), CASES)
def test_kl(m, kappa):
    """The closed form is the mean of the estimate, the quadrature of it, and zero for the uniform distribution."""
    torch.manual_seed(0)
    n = 5_000
    q, prior = posterior(m, kappa, n), UniformSphere(m)
    zero, mean, _ = moments(m, kappa)
    below = area(m - 1) if m > 2 else 2
    expected = kappa * (mean - 1) - math.log(zero * below) + math.log(area(m))
    closed = prior.kl_terms(q, q.mu)
    assert closed.shape == (n, 1)
    assert closed[0].item() == pytest.approx(expected, abs=1e-6)
    z = q.rsample()
    estimate = q.log_prob(z) - prior.log_prob(z)
    assert abs(estimate.mean().item() - expected) < 5 * estimate.std().item() / math.sqrt(n) + 1e-6
    if kappa == 0:
        assert closed.abs().max() < 1e-6


@pytest.mark.parametrize("m", [2, 3, 11, 50])
@pytest.mark.parametrize("kappa", [0.1, 5.0, 200.0])
def test_slope_of_the_angle(m, kappa):
    """d angle / d kappa keeps the value of the distribution function, whose derivatives are taken by quadrature."""
    torch.manual_seed(0)
    kappas = torch.full((12, 1), kappa, dtype=torch.float64)
    angles = sample_angle(kappas, m)
    slopes = angle_slope(angles, kappas, m)

    def distribution(s, k):
        def values(t):
            return math.exp(k * (math.cos(t) - 1)) * math.sin(t) ** (m - 2)

        return integrate.quad(values, 0, s, epsabs=1e-30, epsrel=1e-11)[0] / integrate_angles(m, k, values)

    step = 1e-3 * kappa
    for angle, slope in zip(angles.flatten().tolist(), slopes.flatten().tolist(), strict=True):
        by_kappa = (distribution(angle, kappa + step) - distribution(angle, kappa - step)) / (2 * step)
        by_angle = math.exp(kappa * (math.cos(angle) - 1)) * math.sin(angle) ** (m - 2) / moments(m, kappa)[0]
        assert slope == pytest.approx(-by_kappa / by_angle, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("m", "kappa"), [(2, 3.0), (11, 8.0)])
def test_gradient_of_a_mean(m, kappa):
    """The gradient through draws is that of the expectation: of f(z) = (a z)^2 by kappa and by mu.

    E[z z^T] = c I + (1 - m c) mu mu^T with c = E[1 - cos^2] / (m - 1), so both have closed forms.
    """
    torch.manual_seed(0)
    n = 50_000
    q = posterior(m, kappa)
    mu, kappas = q.mu.clone().requires_grad_(), q.kappa.clone().requires_grad_()
    a = torch.randn(m, dtype=torch.float64)
    z = repeat(VonMisesFisher(mu, kappas), n).rsample()
    by_mu, by_kappa = torch.autograd.grad((z @ a).square().mean(), [mu, kappas])
    step = 1e-4
    squares = [moments(m, k)[2] for k in (kappa - step, kappa, kappa + step)]
    c = (1 - squares[1]) / (m - 1)
    dc = -(squares[2] - squares[0]) / (2 * step) / (m - 1)
    along = (q.mu[0] @ a).item()
    assert by_kappa.item() == pytest.approx(dc * (a.square().sum().item() - m * along**2), rel=0.05)
    expected = 2 * (1 - m * c) * along * a
    tangent = expected - (expected @ q.mu[0]) * q.mu[0]
    by_mu = by_mu[0] - (by_mu[0] @ q.mu[0]) * q.mu[0]  # a change of length means nothing
    torch.testing.assert_close(by_mu, tangent, rtol=0, atol=0.05 * tangent.norm().item())


def test_extreme_outputs_of_the_encoder():
    """Draws, densities and gradients stay finite in float32."""
    torch.manual_seed(0)
    for m in (2, 11, 60):
        h = torch.cat([torch.randn(300, m), torch.linspace(-1e4, 1e4, 300)[:, None]], 1).requires_grad_()
        q, prior = VonMisesFisherHead(m)(h), UniformSphere(m)
        z = q.rsample()
        terms = q.log_prob(z) + prior.kl(q, z) + z.sum(1)
        assert terms.isfinite().all() and (prior.kl(q, z) > -1e-3).all()
        assert torch.autograd.grad(terms.sum(), h)[0].isfinite().all()


def test_bounds_of_the_concentration():
    h = torch.cat([torch.randn(3, 5), torch.tensor([[-1e4], [0.0], [1e4]])], 1)
    kappa = VonMisesFisherHead(5)(h).kappa.flatten()
    torch.testing.assert_close(kappa, 5 * torch.tensor([-3.0, 2.0, 7.0]).exp())


@pytest.mark.parametrize("name", ["mlp-vae", "sentence-vae"])
@pytest.mark.parametrize("m", [2, 11])
def test_decoder_gets_values_of_size_one(name, m):
    """A coordinate of the sphere has the mean square 1 / m, and what the decoder is given has 1."""
    data = DataSpec(name="texts", shape=(6,), kind="tokens", vocabulary=5, likelihood="categorical")
    options = {"posterior": "vmf", "prior": "sphere", "latent_dim": m}
    vae = create_model(name, data, options)
    given = []
    vae.decoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    x = torch.ones(4, 6, dtype=torch.int64)
    vae.generate(vae.prior.sample(4), Batch(x))
    torch.testing.assert_close(given[0].square().mean(1), torch.ones(4))


def test_prior_is_uniform():
    torch.manual_seed(0)
    prior = UniformSphere(4)
    z = prior.sample(50_000)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(50_000))
    torch.testing.assert_close(z.T @ z / 50_000, torch.eye(4) / 4, rtol=0, atol=0.01)
    assert prior.log_prob(z[:2]).tolist() == pytest.approx([-math.log(area(4))] * 2)
    assert np.isclose(area(3), 4 * math.pi)


class OtherKappa(VonMisesFisher):
    """The density of another concentration than that of the draws."""

    def log_prob(self, z):
        return VonMisesFisher(self.mu, 2 * self.kappa).log_prob(z)


class OtherConstant(VonMisesFisher):
    """A density that does not integrate to one."""

    def log_prob(self, z):
        return super().log_prob(z) + 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(OtherKappa, "standard errors from those that log_prob implies"), (OtherConstant, "instead of 1")],
)
def test_conformance_finds_wrong_densities(wrong, message):
    """The checks know the densities of a sphere, which are none on R^n."""

    class WrongHead(VonMisesFisherHead):
        def forward(self, h):
            return wrong(*super().forward(h))

    @dataclass(frozen=True, kw_only=True)
    class Part(VonMisesFisherPart):
        def head(self, latent_shape):
            return WrongHead(latent_shape[0])

    config = MLPParts(latent_dim=3, posterior=Part(), prior=UniformSpherePart())
    sound = dataclasses.replace(config, posterior=VonMisesFisherPart())
    checks = [check_posterior, check_prior]
    assert [r.failure for r in run_checks(composed(sound, "", ""), checks)] == [None] * 2
    failures = {r.name: r.failure for r in run_checks(composed(config, "", ""), checks)}
    assert message in failures["posterior"] and failures["prior"] is None


def test_needs_a_sphere():
    data = DataSpec(name="vectors", shape=(3,))
    config = MLPParts(latent_dim=1, posterior=VonMisesFisherPart(), prior=UniformSpherePart())
    with pytest.raises(VaezooError, match="posterior=vmf needs a sphere, and latent_dim=1 has none"):
        compose(config, data)
