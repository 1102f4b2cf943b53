"""The uniform distribution of a Riemannian manifold: its metric, its normaliser, and draws."""

import math

import pytest
import torch

from vaezoo.errors import VaezooError, VaezooWarning
from vaezoo.posteriors.delta import Delta
from vaezoo.priors.riemannian import RiemannianUniform
from vaezoo.priors.riemannian_kind import RiemannianKind, central_rows, nearest_distance


def codes(n=200, latents=2):
    """Codes in four groups, and log-variances between -3 and 0."""
    generator = torch.Generator().manual_seed(0)
    groups = 2 * torch.randint(0, 2, (n, latents), generator=generator)
    mu = groups + 0.5 * torch.randn(n, latents, generator=generator)
    return mu, -3 * torch.rand(n, latents, generator=generator)


def fit(latents=2, **options):
    torch.manual_seed(0)
    mu, logvar = codes(latents=latents)
    return RiemannianKind(**options).fit(mu, 0, logvar)


def metric(density, z):
    """G(z), from its definition."""
    rho, background, decay = (float(t.exp()) for t in (density.log_rho, density.log_background, density.log_decay))
    g = background * math.exp(-decay * float(z @ z)) * torch.eye(len(z), dtype=torch.float64)
    for mu, logvar in zip(density.mu.double(), density.logvar.double(), strict=True):
        precision = torch.diag(torch.exp(-logvar))
        g = g + precision * torch.exp(-(z - mu) @ precision @ (z - mu) / rho**2)
    return g


def test_density_is_the_volume_of_the_metric():
    density = fit(latents=3, centroids=8, background=0.1, decay=0.2)
    z = 3 * torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([0.5 * torch.logdet(metric(density, row)) for row in z])
    torch.testing.assert_close(density.log_prob(z) + density.log_normaliser, expected, rtol=1e-5, atol=1e-5)
    far = 1e3 * torch.ones(1, 3, dtype=torch.float64)  # where all terms underflow
    assert density.log_volume(far).item() == pytest.approx(1.5 * (math.log(0.1) - 0.2 * 3e6), rel=1e-5)


@pytest.mark.parametrize("latents", [1, 2, 5])
def test_one_centroid_is_a_gaussian(latents):
    """With the covariance rho^2 Sigma / n. Its density and its draws are known."""
    density = RiemannianUniform(latents, 1, 64)
    generator = torch.Generator().manual_seed(0)
    density.mu.copy_(torch.randn(1, latents, generator=generator))
    density.logvar.copy_(torch.randn(1, latents, generator=generator))
    density.log_rho.fill_(math.log(0.8))
    density.log_background.fill_(-60.0)
    torch.manual_seed(0)
    integral = density.integrate()
    assert integral.log_value == pytest.approx(
        latents / 2 * math.log(2 * math.pi * 0.64 / latents), abs=5 * integral.error
    )
    assert 0.001 < integral.error < 0.02
    density.log_normaliser.fill_(integral.log_value)
    normal = torch.distributions.Normal(density.mu[0], 0.8 / math.sqrt(latents) * torch.exp(0.5 * density.logvar[0]))
    z = normal.sample((50,))
    torch.testing.assert_close(density.log_prob(z), normal.log_prob(z).sum(1), rtol=1e-4, atol=5 * integral.error)
    draws = density.sample(20_000)
    assert ((draws.mean(0) - normal.loc).abs() < 0.04 * normal.scale).all()
    assert ((draws.std(0) / normal.scale - 1).abs() < 0.03).all()


def test_error_is_that_of_the_estimate():
    """Estimates with other draws scatter by it."""
    density = fit(centroids=10)
    integrals = []
    for seed in range(12):
        torch.manual_seed(seed)
        integrals.append(density.integrate())
    values = torch.tensor([i.log_value for i in integrals])
    error = sum(i.error for i in integrals) / 12
    assert 0.4 * error < float(values.std()) < 2 * error
    assert all(0 < i.efficiency <= 1 for i in integrals)


def test_draws_have_the_density():
    """A histogram over a grid of 2-D cells, against the integral of the density over each."""
    density = fit(centroids=12, proposals=64)
    cells, fine, low, high = 12, 20, -4.0, 6.0
    x = low + (torch.arange(cells * fine) + 0.5) * (high - low) / (cells * fine)
    p = density.log_prob(torch.cartesian_prod(x, x).double()).exp().view(cells, fine, cells, fine).sum((1, 3))
    p = (p * ((high - low) / (cells * fine)) ** 2).flatten()
    assert float(p.sum()) == pytest.approx(1, abs=0.02)
    n = 100_000
    torch.manual_seed(1)
    index = ((density.sample(n) - low) / (high - low) * cells).floor().long()
    inside = ((index >= 0) & (index < cells)).all(1)
    counts = (index[inside, 0] * cells + index[inside, 1]).bincount(minlength=cells**2)
    # Five standard errors, and 2 % for a finite number of proposals.
    assert ((counts / n - p).abs() < 5 * (p / n).sqrt() + 0.02 * p + 1e-4).all()


def test_ratio_is_bounded():
    """Far from the centroids, between them and on them the proposal covers the target."""
    density = fit(centroids=10)
    z = torch.cat([torch.cartesian_prod(*2 * [torch.linspace(-30, 30, 201)]), density.mu]).double()
    precision = torch.exp(-density.logvar)
    background = density.log_background.exp()
    largest, smallest = max(precision.max(), background), min(precision.min(), background)
    ratio = density.log_volume(z) - density.log_proposal(z)
    constant = math.log(11) + math.log(2 * math.pi / 2) + max(2 * float(density.log_rho), -float(density.log_decay))
    assert float(ratio.max()) < constant + math.log(11 * float(largest / smallest))


def test_more_proposals_come_nearer():
    """The mean of the log-density of draws tends to that of the density."""
    density = fit(centroids=30, rho=3.0)
    torch.manual_seed(0)
    z = density.propose(torch.randn(200_000, 4))
    weights = torch.softmax(density.log_volume(z) - density.log_proposal(z), 0)
    expected = float(weights @ density.log_prob(z))
    errors = []
    for proposals in (1, 4, 64):
        other = RiemannianUniform(2, 30, proposals)
        other.load_state_dict(density.state_dict())
        errors.append(abs(float(other.log_prob(other.sample(40_000)).mean()) - expected))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.03


def test_centroids_are_codes_near_the_means():
    mu, logvar = codes()
    density = fit(centroids=4)
    rows = central_rows(mu, 4, 0)
    assert len(set(rows.tolist())) == 4
    assert torch.equal(density.mu, mu[rows]) and torch.equal(density.logvar, logvar[rows])
    corners = torch.tensor([[0.0, 0.0], [0, 2], [2, 0], [2, 2]])
    assert torch.cdist(corners, density.mu).amin(1).max() < 0.6
    assert torch.equal(central_rows(mu, 200, 0).sort().values, torch.arange(200))
    same = central_rows(torch.zeros(5, 2), 3, 0)
    assert len(set(same.tolist())) == 3


def test_scale_is_the_largest_distance_of_neighbours():
    points = torch.tensor([[0.0, 0], [1, 0], [4, 0], [4, 5]])
    assert nearest_distance(points) == 5 and nearest_distance(points[:3]) == 3
    assert float(fit(centroids=4).log_rho.exp()) == pytest.approx(nearest_distance(fit(centroids=4).mu))
    assert float(fit(centroids=4, rho=0.7).log_rho.exp()) == pytest.approx(0.7)
    assert float(fit(latents=4, centroids=4).log_decay.exp()) == pytest.approx(0.25)
    with pytest.raises(VaezooError, match="all centroids are the same code") as e:
        nearest_distance(torch.zeros(3, 2))
    assert e.value.hint == "give rho"


def test_scale_shrinks_until_the_proposal_is_efficient():
    """Where many centroids overlap, nearly all proposals at the first scale are in vain."""
    generator = torch.Generator().manual_seed(0)
    mu = torch.cat([0.3 * torch.randn(8, 8, generator=generator), 6 * torch.randn(92, 8, generator=generator)])
    logvar = torch.full((100, 8), -2.0)
    torch.manual_seed(0)
    density = RiemannianKind(centroids=100).fit(mu, 0, logvar)
    assert float(density.log_rho.exp()) < nearest_distance(mu) and density.efficiency > 0.35
    measured = RiemannianKind().measured([density, density])
    assert measured == {
        "largest_rho": float(density.log_rho.exp()),
        "log_normaliser_error": float(density.error),
        "efficiency": float(density.efficiency),
    }
    with pytest.warns(VaezooWarning, match=r"only \d+\.\d% of the proposals count, so 16 for each draw are too few"):
        RiemannianKind(centroids=100, rho=nearest_distance(mu)).fit(mu, 0, logvar)
    with pytest.warns(VaezooWarning, match="smaller rho, or more proposals"):  # the same code twice
        RiemannianKind(centroids=31).fit(torch.eye(30)[[0, *range(30)]], 0, torch.zeros(31, 30))


def test_posteriors_without_variances_are_refused():
    with pytest.raises(VaezooError, match="kind riemannian takes the variances of posterior=diagonal") as e:
        RiemannianKind().logvar(Delta(torch.zeros(2, 3)))
    assert "gmm" in e.value.hint
