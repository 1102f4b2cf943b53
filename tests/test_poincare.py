"""The wrapped normal in the Poincare ball: maps, densities and bounds."""

import math

import pytest
import torch

from vaezoo.composition import MLPParts, compose
from vaezoo.core.options import configure
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.posteriors.poincare import PoincarePart, WrappedNormal, WrappedNormalHead, unwrap, wrap, wrap_origin
from vaezoo.priors.poincare import PoincarePriorPart, WrappedNormalPrior

DATA = DataSpec(name="vectors", shape=(3,))


def random_points(n, c, rows=50, spread=1.0):
    return wrap_origin(spread * torch.randn(rows, n, dtype=torch.float64), c)


def distance(a, b, c):
    """The geodesic distance by its textbook form, `(B,)`."""
    square = (a - b).square().sum(1)
    gaps = (1 - c * a.square().sum(1)) * (1 - c * b.square().sum(1))
    return torch.acosh(1 + 2 * c * square / gaps) / math.sqrt(c)


def moebius_sum(a, b, c):
    """The textbook form of the sum."""
    ab, aa, bb = (a * b).sum(1, keepdim=True), a.square().sum(1, keepdim=True), b.square().sum(1, keepdim=True)
    return ((1 + 2 * c * ab + c * bb) * a + (1 - c * aa) * b) / (1 + 2 * c * ab + c * c * aa * bb)


def disc(c, cells=1200):
    """Points of a grid over the disc, and the area of a cell."""
    line = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * 2 - 1
    points = torch.cartesian_prod(line, line) / math.sqrt(c)
    return points[c * points.square().sum(1) < 1], (2 / cells) ** 2 / c


@pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_exponential_map(n, c):
    torch.manual_seed(0)
    mu, v = random_points(n, c), torch.randn(50, n, dtype=torch.float64)
    z = wrap(mu, v, c)
    torch.testing.assert_close(distance(mu, z, c), v.norm(dim=1))
    torch.testing.assert_close(unwrap(mu, z, c), v)
    r = math.sqrt(c) * v.norm(dim=1, keepdim=True)
    torch.testing.assert_close(z, moebius_sum(mu, torch.tanh(r / 2) * v / r, c))
    torch.testing.assert_close(wrap_origin(v, c), wrap(torch.zeros_like(mu), v, c))


@pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
def test_densities_integrate_to_one(c):
    points, cell = disc(c)
    prior = WrappedNormalPrior(2, c).double()
    assert float(prior.log_prob(points).exp().sum() * cell) == pytest.approx(1, abs=1e-4)
    mu = torch.tensor([[0.5, -0.3]], dtype=torch.float64) / math.sqrt(c)
    q = WrappedNormal(mu, torch.tensor([[-1.0, 0.2]], dtype=torch.float64), c)
    assert float(q.log_prob(points).exp().sum() * cell) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("n", "c"), [(1, 1.0), (2, 0.3), (5, 1.5)])
def test_density_is_the_change_of_variables(n, c):
    """log q(z) = log N(v) - log |det dz/dv|, with autograd's Jacobian."""
    torch.manual_seed(0)
    mu, logvar, noise = random_points(n, c), torch.randn(50, n).double(), torch.randn(50, n).double()
    scale = torch.exp(0.5 * logvar)
    one = torch.func.jacrev(lambda e, mu, scale: wrap(mu[None], (scale * e)[None], c)[0])
    log_det = torch.linalg.slogdet(torch.func.vmap(one)(noise, mu, scale)).logabsdet
    expected = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1) - log_det
    z = wrap(mu, scale * noise, c)
    torch.testing.assert_close(WrappedNormal(mu, logvar, c).log_prob(z), expected, rtol=1e-6, atol=1e-6)
    origin = WrappedNormal(torch.zeros_like(mu), torch.zeros_like(mu), c)
    torch.testing.assert_close(WrappedNormalPrior(n, c).double().log_prob(z), origin.log_prob(z))


def test_flat_limit():
    """At a small curvature the ball is R^n in which z is v / 2."""
    torch.manual_seed(0)
    c, mu, v = 1e-6, 0.1 * torch.randn(9, 3).double(), torch.randn(9, 3).double()
    torch.testing.assert_close(wrap(mu, v, c), mu + v / 2, rtol=0, atol=1e-5)
    prior = torch.distributions.Normal(0, 0.5).log_prob(mu).sum(1)
    torch.testing.assert_close(WrappedNormalPrior(3, c).double().log_prob(mu), prior, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [2, 20])
def test_float32_is_near_float64(n):
    """At the distances of the prior, float32 gives the density to a hundredth of a nat."""
    torch.manual_seed(0)
    c = 1.0
    mu, z, logvar = (t.float() for t in (random_points(n, c, 2000), random_points(n, c, 2000), torch.randn(2000, n)))
    q, prior = WrappedNormal(mu, logvar, c), WrappedNormalPrior(n, c)
    ratio = q.log_prob(z) - prior.log_prob(z)
    exact = WrappedNormal(mu.double(), logvar.double(), c).log_prob(z.double()) - prior.double().log_prob(z.double())
    torch.testing.assert_close(ratio.double(), exact, rtol=1e-4, atol=0.01)


def test_extreme_outputs_of_the_encoder():
    """Draws stay in the ball. Densities and gradients are finite in float32."""
    torch.manual_seed(0)
    for n, c in ((1, 1.0), (2, 4.0), (20, 1.0)):
        scale = torch.logspace(-8, 4, 500)[:, None]
        h = (scale * torch.randn(500, 2 * n)).requires_grad_()
        q, prior = WrappedNormalHead(n, c)(h), WrappedNormalPrior(n, c)
        z = q.rsample()
        assert (c * z.square().sum(1) < 1).all() and (c * q.mode().square().sum(1) < 1).all()
        terms = q.log_prob(z) - prior.log_prob(z) + z.sum(1)
        assert terms.isfinite().all()
        assert torch.autograd.grad(terms.sum(), h)[0].isfinite().all()
    assert WrappedNormalHead(2, 1.0)(torch.zeros(1, 4)).mode().tolist() == [[0, 0]]


def test_prior_draws_have_their_density():
    torch.manual_seed(0)
    prior = WrappedNormalPrior(2, 1.0)
    points, cell = disc(1.0)
    log_p = prior.double().log_prob(points)
    entropy = -float((log_p.exp() * log_p).sum() * cell)
    z = prior.sample(100_000)
    assert -prior.log_prob(z).mean().item() == pytest.approx(entropy, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"posterior.curvature": 0.5},
            "posterior=poincare lies in the space 'ball of curvature -0.5', but prior=poincare in "
            "'ball of curvature -1.0'",
        ),
        ({"posterior.curvature": 3, "prior.curvature": 3, "latent_dim": 20}, "with 20 latents and curvature 3"),
        ({"posterior.curvature": 0}, "option 'posterior.curvature' is 0"),
        ({"prior.curvature": -1}, "option 'prior.curvature' is -1"),
        ({"prior": "normal"}, "posterior=poincare lies in the space 'ball of curvature -1.0', but prior=normal in"),
    ],
)
def test_bad_options(options, message):
    config = MLPParts(latent_dim=2, posterior=PoincarePart(), prior=PoincarePriorPart())
    with pytest.raises(VaezooError) as e:
        compose(configure(config, options), DATA)
    assert message in e.value.message and e.value.hint
