"""Linear-Gaussian models, whose log p(x) is known: each posterior and prior gives it by importance sampling."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from vaezoo.composition import MLPParts, compose, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, DataSpec, TensorSplit
from vaezoo.evaluation.likelihood import negative_log_likelihood
from vaezoo.objectives.base import StepContext
from vaezoo.priors.densities import replace_prior
from vaezoo.priors.kinds import FlowKind, GMMKind, KDEKind, VAEKind

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
            if name.endswith(("network.4.weight", "encoder.4.weight", "encoder.4.bias", "decoder.4.weight")):
                parameter.zero_()
            elif name.endswith(("network.4.bias", "decoder.4.bias")):
                parameter.normal_(std=0.3)
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
    if hasattr(prior, "couplings"):
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


FITTED = (GMMKind(components=3), KDEKind(kernels=6), FlowKind(couplings=2, hidden=8), VAEKind(hidden=8))


@pytest.mark.parametrize(
    "options",
    [
        *FITTED,
        {"posterior": "diagonal"},
        {"posterior": "full"},
        {"posterior": "iaf", "posterior.hidden": 16},
        {"prior": "mixture", "prior.components": 3},
        {"prior": "realnvp", "prior.couplings": 2, "prior.hidden": 8},
        {"prior": "vamp", "prior.components": 4},
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
    exact = -exact_log_likelihood(vae, x).mean().item()
    estimates = torch.tensor(
        [negative_log_likelihood(vae, TensorSplit(x, None), num_samples=SAMPLES, seed=s).value for s in range(5)]
    )
    error = max(estimates.std().item() / math.sqrt(len(estimates)), 1e-4)
    assert abs(estimates.mean().item() - exact) < 4 * error + 2e-3, (exact, estimates)
    assert estimates.std() < 0.05  # the samples cover p(z|x), so the comparison means something
