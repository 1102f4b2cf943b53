"""Linear models, whose log p(x) is known: each posterior and prior gives it by importance sampling."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from vaezoo.composition import MLPParts, compose, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.data.spec import DataSpec
from vaezoo.evaluation.likelihood import negative_log_likelihood
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.elbo import ELBO
from vaezoo.priors.densities import replace_prior
from vaezoo.priors.kinds import ExemplarKind, FlowKind, GMMKind, KDEKind, VAEKind
from vaezoo.registry import get_model

DATA = DataSpec(name="linear", shape=(3,), kind="real", likelihood="gaussian:0.5")
LATENTS = 2
SAMPLES = 2000


def linear_model(options, seed=0, kind=None):
    """Returns a model with a linear decoder and encoder, trained for a moment so that q(z|x) is near p(z|x)."""
    torch.manual_seed(seed)
    config = configure(MLPParts(hidden=(), latent_dim=LATENTS), options)
    vae, objective = compose(config, DATA), composed_objective(config, DATA)
    if kind is not None:
        fitted_prior(vae, kind)
    with torch.no_grad():
        # An affine flow keeps p(z) Gaussian: without weights in its last layers, only their biases count.
        for name, parameter in vae.prior.named_parameters():
            if name.endswith((".4.weight", "network.second.weight", "encoder.4.bias")):
                parameter.zero_()
            elif name.endswith(("network.4.bias", "network.second.bias", "decoder.4.bias")):
                parameter.normal_(std=0.3)
        if hasattr(vae.prior, "exemplars"):
            vae.prior.exemplars.normal_()
        vae.eval()  # with the prior that evaluation has
    trained = [p for name, p in vae.named_parameters() if not name.startswith(("decoder", "prior"))]
    optimizer = torch.optim.Adam(trained, lr=0.03)
    for _ in range(400):
        with torch.no_grad():
            x = vae.likelihood.sample(vae.decode(vae.prior.sample(64)))
        loss = objective(vae, Batch(x), StepContext.initial()).losses["vae"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vae.eval()


@torch.no_grad()
def fitted_prior(vae, kind):
    """Gives a model a prior as `fit_prior` does, with random weights."""
    density = kind.build(LATENTS)
    for name, tensor in density.state_dict().items():
        if name in ("mu", "points"):
            tensor.normal_()
        elif name == "logvar":
            tensor.normal_(-1, 0.5)
        elif name == "scale_tril":
            below = torch.tril(0.5 * torch.randn(tensor.shape), -1)
            tensor.copy_(below + torch.diag_embed(0.5 + torch.rand(tensor.shape[:2])))
        elif name in ("weight_logits", "raw_logvar"):
            tensor.normal_(std=0.5)
    prior = replace_prior(vae, density)
    prior.code_mean.copy_(torch.tensor([0.5, -0.2]))
    prior.code_std.copy_(torch.tensor([1.5, 0.7]))


def prior_components(vae, prior=None):
    """Returns log-weights, means and covariances of the prior as a mixture of Gaussians."""
    prior = vae.prior if prior is None else prior
    if hasattr(prior, "code_std"):
        log_weights, mu, covariance = prior_components(vae, prior.density)
        scale = torch.diag(prior.code_std)
        return log_weights, prior.code_mean + mu @ scale, scale @ covariance @ scale
    if hasattr(prior, "scale_tril"):
        covariance = prior.scale_tril @ prior.scale_tril.mT
        return torch.log_softmax(prior.weight_logits, 0), prior.mu, covariance
    if hasattr(prior, "raw_logvar"):  # its decoder is a constant
        mu, logvar = prior._given_u(torch.zeros(1, LATENTS))
        return torch.zeros(1), mu, torch.diag_embed(logvar.exp())
    if hasattr(prior, "components"):
        mu, logvar, log_weights = prior.components()
        return log_weights, mu, torch.diag_embed(logvar.exp())
    if hasattr(prior, "couplings") or hasattr(prior, "steps"):
        points = torch.cat([torch.zeros(1, LATENTS), torch.eye(LATENTS)])
        origin, *columns = prior.from_noise(points)
        a = torch.stack([column - origin for column in columns], 1)
        return torch.zeros(1), origin[None], (a @ a.T)[None]
    return torch.zeros(1), torch.zeros(1, LATENTS), torch.eye(LATENTS)[None]


def exact_log_likelihood(vae, x):
    """Returns log p(x): a mixture of Gaussians with the covariances W S W^T + sigma^2 I."""
    layer = next(m for m in vae.decoder if isinstance(m, nn.Linear))
    log_weights, mu, covariance = (t.double() for t in prior_components(vae))
    w, b = layer.weight.double(), layer.bias.double()
    covariances = w @ covariance @ w.T + 0.25 * torch.eye(3, dtype=torch.float64)
    components = MultivariateNormal(mu @ w.T + b, covariances)
    return torch.logsumexp(components.log_prob(x.double()[:, None]) + log_weights, 1)


FITTED = (
    GMMKind(components=3),
    KDEKind(kernels=6),
    ExemplarKind(exemplars=6),
    FlowKind(couplings=2, hidden=8),
    VAEKind(hidden=8),
)


@pytest.mark.parametrize(
    "options",
    [
        *FITTED,
        {"posterior": "diagonal"},
        {"posterior": "full"},
        {"posterior": "iaf", "posterior.hidden": 16},
        {"posterior": "planar", "posterior.steps": 3},
        {"posterior": "radial", "posterior.steps": 3},
        {"posterior": "student"},
        {"posterior": "hamiltonian", "posterior.steps": 2},
        {"prior": "mixture", "prior.components": 3},
        {"prior": "realnvp", "prior.couplings": 2, "prior.hidden": 8},
        {"prior": "maf", "prior.steps": 2, "prior.hidden": 8},
        {"prior": "vamp", "prior.components": 4},
        {"prior": "exemplar", "prior.exemplars": 4},
        {"posterior": "iaf", "posterior.hidden": 16, "prior": "mixture", "prior.components": 3},
    ],
    ids=str,
)
@torch.no_grad()
def test_equals_exact_likelihood(options):
    with torch.enable_grad():
        vae = linear_model(options) if isinstance(options, dict) else linear_model({}, kind=options)
    torch.manual_seed(1)
    x = vae.likelihood.sample(vae.decode(vae.prior.sample(20)))
    assert_estimates(vae, x, exact_log_likelihood(vae, x))


def assert_estimates(vae, x, log_likelihood):
    """Asserts that importance sampling gives the log-likelihood of each example, `(N,)`."""
    exact = -log_likelihood.mean().item()
    estimates = torch.tensor(
        [negative_log_likelihood(vae, TensorSplit(x, None), num_samples=SAMPLES, seed=s).value for s in range(5)]
    )
    assert_near(estimates, exact)


def assert_near(estimates, exact):
    error = max(estimates.std().item() / math.sqrt(len(estimates)), 1e-4)
    assert abs(estimates.mean().item() - exact) < 4 * error + 2e-3, (exact, estimates)
    assert estimates.std() < 0.05  # the samples cover p(z|x), so the comparison means something


def circle():
    """Returns evenly spaced points on the circle, and the length between two of them."""
    angles = torch.arange(10_000, dtype=torch.float64) * (2 * math.pi / 10_000)
    return torch.stack([angles.cos(), angles.sin()], 1), 2 * math.pi / 10_000


def disc():
    """Returns the points of a grid in the unit disc, and the area of a cell."""
    line = (torch.arange(600, dtype=torch.float64) + 0.5) / 300 - 1
    points = torch.cartesian_prod(line, line)
    return points[points.square().sum(1) < 1], (1 / 300) ** 2


def plane():
    """Returns the points of a grid in the plane, which holds all but 1e-6 of the Student-t prior, and a cell's area."""
    line = torch.linspace(-40, 40, 801, dtype=torch.float64)
    return torch.cartesian_prod(line, line), 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({"posterior": "vmf", "prior": "sphere"}, circle),
        ({"posterior": "poincare", "prior": "poincare"}, disc),
        ({"posterior": "student", "prior": "student"}, plane),
    ],
    ids=["sphere", "ball", "student"],
)
@torch.no_grad()
def test_equals_integral_over_latents(options, grid):
    """Where z is not Gaussian, p(x) is the sum of p(x|z) p(z) over a grid of z."""
    with torch.enable_grad():
        vae = linear_model(options)
    torch.manual_seed(1)
    x = vae.likelihood.sample(vae.decode(vae.prior.sample(20).clamp(-2, 2)))  # where q(z|x) was trained
    points, cell = grid()
    mean, log_prior = vae.decode(points.float()).double(), vae.prior.double().log_prob(points)
    log_normal = torch.distributions.Normal(mean[None], 0.5).log_prob(x.double()[:, None]).sum(2)
    vae.prior.float()
    assert_estimates(vae, x, torch.logsumexp(log_normal + log_prior + math.log(cell), 1))


def affine_layer(layer, constant):
    """Returns a layer whose outputs are affine, those of the slice `constant` without weights."""
    with torch.no_grad():
        layer.weight.mul_(0.5)
        layer.weight[constant] = 0
        layer.bias.uniform_(-0.5, 0.5)
    return layer


def hierarchy(name):
    """Returns a hierarchy whose p(x, z) is linear and Gaussian, with the networks of q(z|x) as they are."""
    torch.manual_seed(0)
    if name == "top-down-vae":
        data = DataSpec(name="linear", shape=(1, 8, 8), kind="real", likelihood="gaussian:0.5")
        config = configure(get_model(name).config, {"channels": 8, "latent_channels": 1, "layers": 1})
        vae = get_model(name).build(config, data)
        for layer in vae.decoder.layers:  # mean and log-variance of one channel, and 8 channels of features
            layer.prior, layer.block = affine_layer(nn.Conv2d(8, 10, 1), slice(1, 2)), nn.Identity()
        vae.decoder.out = affine_layer(nn.Conv2d(8, 1, 3, padding=1), slice(0, 0))
        return vae, data
    model, *inference = name.split()
    options = {"latents": "2,2", "hidden": "16"} | ({"inference": inference[0]} if inference else {})
    vae = get_model(model).build(configure(get_model(model).config, options), DATA)
    vae.prior.networks[0] = affine_layer(nn.Linear(2, 4), slice(2, 4))
    vae.decoder = affine_layer(nn.Linear(vae.seen, 3), slice(0, 0))
    return vae, DATA


@pytest.mark.parametrize(
    "name",
    [
        "hvae",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("ladder-vae ladder", "ladder-vae networks", "top-down-vae")
        ),
    ],
)
def test_hierarchy_equals_exact_likelihood(name):
    """With p(x|z) and all p(z_i|...) linear, x is an affine function of noise, and so Gaussian."""
    vae, data = hierarchy(name)
    optimizer = torch.optim.Adam([*vae.encoder.parameters(), *vae.head.parameters()], lr=0.01)
    for _ in range(300):
        with torch.no_grad():
            x = vae.likelihood.sample(vae.decode(vae.prior.sample(64)))
        loss = ELBO()(vae, Batch(x), StepContext.initial()).losses["vae"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vae.eval()
    with torch.no_grad():
        n = vae.prior.noise_shape[0]
        points = torch.cat([torch.zeros(1, n), torch.eye(n)])
        origin, *columns = vae.likelihood.mean(vae.decode(vae.prior.from_noise(points))).flatten(1).double()
        a = torch.stack([column - origin for column in columns], 1)
        covariance = a @ a.T + 0.25 * torch.eye(data.dims, dtype=torch.float64)
        x = vae.likelihood.sample(vae.decode(vae.prior.sample(20)))
        exact = -MultivariateNormal(origin, covariance).log_prob(x.double().flatten(1)).mean().item()
        split = TensorSplit(x, None)
        estimates = [negative_log_likelihood(vae, split, num_samples=SAMPLES, seed=s).value for s in range(5)]
    assert_near(torch.tensor(estimates), exact)
