"""Densities of codes: exact values, integrals, moments of samples, and how they are fitted."""

import math
import sys

import numpy as np
import pytest
import torch

from vaezoo import VaezooError
from vaezoo.errors import VaezooWarning
from vaezoo.posteriors.delta import Delta
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors import kinds
from vaezoo.priors.densities import FittedPrior, KernelDensity, PerLabel, PosteriorMixture, SecondStage
from vaezoo.priors.density_kind import DensityKind
from vaezoo.priors.kinds import KINDS, ExemplarKind, FlowKind, GMMKind, KDEKind, VAEKind, best_bandwidth, make_kind
from vaezoo.priors.riemannian_kind import RiemannianKind

SMALL = {
    "gmm": GMMKind(components=3),
    "gmm diagonal": GMMKind(components=3, covariance="diagonal"),
    "kde": KDEKind(kernels=60),
    "exemplar": ExemplarKind(exemplars=60),
    "flow": FlowKind(couplings=2, hidden=8),
    "vae": VAEKind(hidden=8),
    "riemannian": RiemannianKind(centroids=6, proposals=64),
}
DENSITIES = [kind for kind in KINDS.values() if isinstance(kind, DensityKind)]
EXACT = [name for name in SMALL if name != "vae"]


def codes(n=300, seed=0):
    """Codes in two groups, correlated, standardised: `(n, 2)`."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 2)) @ [[1.0, 0.8], [0.0, 0.3]] + 3 * (rng.random((n, 1)) < 0.4)
    return torch.tensor((z - z.mean(0)) / z.std(0), dtype=torch.float32)


def logvar(n=300):
    """Log-variances of codes, between -3 and -1: `(n, 2)`."""
    return -1 - 2 * torch.rand(n, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def fitted():
    """Each kind, fitted to the codes, behind a mean and a standard deviation."""
    priors = {}
    for name, kind in SMALL.items():
        torch.manual_seed(0)
        prior = FittedPrior(kind.fit(codes(), 0, logvar()), 2, zero_kl=False)
        prior.code_mean.copy_(torch.tensor([1.0, -2.0]))
        prior.code_std.copy_(torch.tensor([2.0, 0.5]))
        priors[name] = prior.requires_grad_(False)
    priors["vae"].density.raw_logvar.fill_(-1.0)  # p(z|u) is no longer as wide as p(u)
    return priors


def grid():
    """Points on which all priors have nearly all of their mass, and the area of each: `(N, 2)`, a number."""
    x, y = torch.linspace(-15, 17, 321), torch.linspace(-6, 2, 321)
    return torch.cartesian_prod(x, y), float((x[1] - x[0]) * (y[1] - y[0]))


@pytest.mark.parametrize("name", EXACT)
def test_density_integrates_to_one(fitted, name):
    points, area = grid()
    tolerance = 0.015 if name == "riemannian" else 2e-3  # its normaliser is an estimate
    assert float(fitted[name].log_prob(points).double().exp().sum()) * area == pytest.approx(1, abs=tolerance)


def test_second_stage_estimates_the_density(fitted):
    """Its exponential is p(z) in expectation, which is compared with the mean of p(z|u) over draws of u."""
    torch.manual_seed(0)
    prior = fitted["vae"]
    points = prior.from_noise(torch.randn(5, 4))
    estimates = torch.stack([prior.log_prob(points).double().exp() for _ in range(4000)])
    second = prior.density
    assert isinstance(second, SecondStage)
    mu, logvar = second._given_u(torch.randn(40_000, 2))
    w = (points - prior.code_mean) / prior.code_std
    p = torch.stack([DiagonalGaussian(mu, logvar).log_prob(row).double().exp() for row in w]).mean(1)
    error = (estimates.std(0) / math.sqrt(len(estimates))).clamp(min=1e-4)
    assert (estimates.mean(0) - p).abs().div(error).max() < 6
    assert estimates.std(0).min() > 0  # it is an estimate


@pytest.mark.parametrize("name", SMALL)
def test_samples_have_the_density(fitted, name):
    """The moments of samples are those of the density on a grid."""
    prior = fitted[name]
    points, area = grid()
    torch.manual_seed(0)
    samples = prior.sample(60_000).double()
    assert samples.shape == (60_000, 2)
    if name == "vae":  # its density is an estimate, whose mean is taken over several draws
        p = torch.stack([prior.log_prob(points).double().exp() for _ in range(40)]).mean(0) * area
    else:
        p = prior.log_prob(points).double().exp() * area
    for power in (lambda z: z, lambda z: z.square(), lambda z: z[:, :1] * z[:, 1:]):
        expected = (p[:, None] * power(points.double())).sum(0)
        values = power(samples)
        error = values.std(0) / math.sqrt(len(values))
        assert ((values.mean(0) - expected).abs() < 5 * error + 0.01).all(), name


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_mixture_is_that_of_scikit_learn(covariance):
    from sklearn.mixture import GaussianMixture

    x, held_out = codes(), codes(50, seed=1)
    density = GMMKind(components=4, covariance=covariance).fit(x, seed=3)
    reference = GaussianMixture(4, covariance_type="full" if covariance == "full" else "diag", reg_covar=1e-4)
    reference.set_params(random_state=kinds.derive_seed(3, "weights") % 2**32, max_iter=200)
    reference.fit(x.double().numpy())
    with torch.no_grad():
        np.testing.assert_allclose(density.log_prob(held_out), reference.score_samples(held_out), atol=2e-3)
        # Expectation maximisation keeps the mean and the variances of the codes.
        samples = density.from_noise(torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0)))
        np.testing.assert_allclose(samples.mean(0), 0, atol=0.03)
        if covariance == "full":
            np.testing.assert_allclose(np.cov(samples.T), np.cov(x.T), atol=0.05)
    again = GMMKind(components=4, covariance=covariance).fit(x, 3)
    assert torch.equal(again.log_prob(held_out), density.log_prob(held_out))


def test_kernels_are_those_of_scikit_learn():
    from sklearn.neighbors import KernelDensity as Reference

    x, held_out = codes(), codes(50, seed=1)
    density = KDEKind(kernels=100, bandwidth=0.3).fit(x, seed=0)
    reference = Reference(bandwidth=0.3).fit(density.points)
    np.testing.assert_allclose(density.log_prob(held_out), reference.score_samples(held_out), rtol=1e-4, atol=1e-3)
    assert all((x == point).all(1).any() for point in density.points)


def test_bandwidth_has_the_highest_likelihood_of_left_out_codes(monkeypatch):
    monkeypatch.setattr(kinds, "KERNELS_AT_ONCE", 16)
    x = codes(50)
    widths = kinds.SCALES.double() * 50 ** (-1 / 6)

    def left_out(width):
        logs = []
        for i in range(50):
            square = (x[i] - x[torch.arange(50) != i]).double().square().sum(1)
            logs.append(torch.logsumexp(-0.5 * square / width**2, 0) - 2 * width.log())
        return sum(logs)

    scores = torch.stack([left_out(width) for width in widths])
    assert best_bandwidth(x) == float(widths[scores.argmax()]) and 0 < scores.argmax() < 20
    chosen = KDEKind(kernels=50).fit(x, seed=0).log_bandwidth.exp()
    assert float(chosen) == pytest.approx(best_bandwidth(x), rel=0.4)


def test_exemplars_are_posteriors_of_examples():
    """The density is the mean of their Gaussians, each with its own mean and variances."""
    x, variances, held_out = codes(), logvar(), codes(50, seed=1)
    density = ExemplarKind(exemplars=100).fit(x, 3, variances)
    rows = [int((x == mu).all(1).nonzero()) for mu in density.mu]
    assert len(set(rows)) == 100 and torch.equal(density.logvar, variances[rows])
    gaussians = torch.distributions.Normal(x[rows], torch.exp(0.5 * variances[rows]))
    expected = gaussians.log_prob(held_out[:, None]).sum(2).double().exp().mean(1).log()
    np.testing.assert_allclose(density.log_prob(held_out), expected, rtol=1e-4, atol=1e-3)
    everyone = ExemplarKind().for_codes(300).fit(x, 3, variances)
    assert len(everyone.mu) == 300 and not torch.equal(everyone.mu, x)  # all of them, in another order


def test_variance_of_exemplars():
    q = DiagonalGaussian(torch.randn(4, 2), torch.randn(4, 2))
    assert ExemplarKind().logvar(q) is q.logvar
    assert torch.equal(ExemplarKind(variance=0.25).logvar(q), torch.full((4, 2), math.log(0.25)))
    assert torch.equal(ExemplarKind(variance=0.25).logvar(Delta(q.mu)), torch.full((4, 2), math.log(0.25)))
    with pytest.raises(VaezooError, match="kind exemplar takes the variances of posterior=diagonal") as e:
        ExemplarKind().logvar(Delta(q.mu))
    assert "variance=NUMBER" in e.value.hint and "kde" in e.value.hint
    assert all(kind.logvar(q) is None for kind in DENSITIES if not kind.takes_posterior)


@pytest.mark.parametrize("kind", [KernelDensity, PosteriorMixture])
@pytest.mark.parametrize("n", [2, 7, 9, 60])
def test_each_kernel_is_drawn_as_often(kind, n):
    density = kind(1, n)
    if isinstance(density, KernelDensity):
        density.points.copy_(torch.arange(n)[:, None])
        density.log_bandwidth.fill_(-20)
    else:
        density.mu.copy_(torch.arange(n)[:, None])
        density.logvar.fill_(-40)
    noise = torch.randn(100_000, 3, generator=torch.Generator().manual_seed(0))
    counts = density.from_noise(noise)[:, 0].round().long().bincount(minlength=n)
    assert len(counts) == n
    assert ((counts - 1e5 / n).abs() < 5 * math.sqrt(1e5 / n)).all()
    edges = torch.tensor([[-9.0, -9.0, 0.0], [9.0, 9.0, 0.0], [9.0, -9.0, 0.0]])
    assert (density.from_noise(edges).round() < n).all()


def test_standardised_density_is_that_of_the_codes():
    """A change of variables, against a Gaussian in closed form."""
    prior = FittedPrior(KernelDensity(2, 2), 2, zero_kl=False)  # both kernels are N(0, I)
    prior.code_mean.copy_(torch.tensor([3.0, 1.0]))
    prior.code_std.copy_(torch.tensor([2.0, 0.1]))
    z = torch.randn(6, 2)
    expected = torch.distributions.Normal(prior.code_mean, prior.code_std).log_prob(z).sum(1)
    np.testing.assert_allclose(prior.log_prob(z), expected, rtol=1e-4)


def test_no_kl_without_a_density(fitted):
    z = torch.randn(3, 2)
    point = FittedPrior(KernelDensity(2, 2), 2, zero_kl=True)
    assert torch.equal(point.kl_terms(Delta(z), z), torch.zeros(3, 1))
    q = DiagonalGaussian(torch.zeros(3, 2), torch.zeros(3, 2))
    prior = fitted["gmm"]
    np.testing.assert_allclose(prior.kl(q, z), q.log_prob(z) - prior.log_prob(z), rtol=1e-5)


def test_each_label_has_its_density(fitted):
    first, second = fitted["gmm"].density, fitted["gmm diagonal"].density
    prior = PerLabel([first, second])
    z, y = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    expected = torch.where(y == 0, first.log_prob(z), second.log_prob(z))
    assert torch.equal(prior.log_prob(z, y), expected)
    noise = torch.randn(4, 3)
    expected = torch.where((y == 0)[:, None], first.from_noise(noise), second.from_noise(noise))
    assert torch.equal(prior.from_noise(noise, y), expected)


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("gm", {}, "no kind of prior named 'gm'"),
        ("gmm", {"components": 0}, "'components' is 0"),
        ("gmm", {"covariance": "round"}, "'covariance' takes one of full, diagonal, not 'round'"),
        ("gmm", {"kernels": 3}, "no option named 'kernels'"),
        ("kde", {"bandwidth": 0}, "'bandwidth' is 0"),
        ("kde", {"bandwidth": "wide"}, "'bandwidth' takes a number or none, not 'wide'"),
        ("exemplar", {"exemplars": 0}, "'exemplars' is 0"),
        ("exemplar", {"variance": -1}, "'variance' is -1"),
        ("exemplar", {"bandwidth": 1}, "no option named 'bandwidth'"),
        ("flow", {"couplings": 0}, "'couplings' is 0"),
        ("vae", {"hidden": -1}, "'hidden' is -1"),
        ("riemannian", {"centroids": 0}, "'centroids' is 0"),
        ("riemannian", {"proposals": 0}, "'proposals' is 0"),
        ("riemannian", {"rho": 0}, "'rho' is 0"),
        ("riemannian", {"background": -1}, "'background' is -1"),
        ("riemannian", {"decay": 0}, "'decay' is 0"),
    ],
)
def test_bad_options(kind, options, error):
    with pytest.raises(VaezooError, match=error) as e:
        make_kind(kind, options)
    assert e.value.hint


def test_too_few_codes():
    for kind in DENSITIES:
        if kind.trained:
            assert kind.for_codes(1) == kind
            continue
        if kind.kind == "exemplar":  # one Gaussian has a density
            assert kind.for_codes(1).exemplars == 1
            continue
        with pytest.raises(VaezooError, match=r"for 1 codes|one code|one centroid"):
            kind.for_codes(1)
    with pytest.raises(VaezooError, match="10 components are too many for 19 codes") as e:
        GMMKind().for_codes(19)
    assert e.value.hint == "give components at most 9"
    assert KDEKind().for_codes(30).kernels == ExemplarKind().for_codes(30).exemplars == 30
    assert RiemannianKind().for_codes(30).centroids == 30 and RiemannianKind(rho=1.0).for_codes(1).centroids == 1


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(VaezooError, match="kind gmm needs a package that is missing") as e:
        GMMKind(components=2).fit(codes(), 0)
    assert "eval" in e.value.hint


def test_unfinished_mixture_is_a_warning(monkeypatch):
    monkeypatch.setattr(kinds, "EM_STEPS", 1)
    with pytest.warns(VaezooWarning, match="still changed after 1 steps"):
        GMMKind(components=5).fit(codes(), 0)
