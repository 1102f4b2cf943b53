"""Densities of the codes of a trained model, which become its prior. `vaezoo.priors.kinds` fits them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import LOG_2PI, LOGVAR_BOUND, DiagonalGaussian
from vaezoo.priors.base import Prior
from vaezoo.priors.mixture import Components, Mixture, choose_component, normal_cdf
from vaezoo.priors.standard_normal import ZeroKLPrior

if TYPE_CHECKING:
    from vaezoo.vae import VAE


class FittedPrior(Prior):
    """p(z) as a density of standardised codes w = (z - mean) / std.

    Args:
        density: p(w).
        latent_dim: Number of latents.
        zero_kl: Whether the KL is left out, because q(z|x) has no density.

    Attributes:
        density: As given.
        code_mean: The means of the codes, `(latents,)`.
        code_std: Their standard deviations, `(latents,)`.
    """

    def __init__(self, density: Prior, latent_dim: int, *, zero_kl: bool) -> None:
        super().__init__()
        self.density = density
        self.noise_shape = density.noise_shape
        self.zero_kl = zero_kl
        self.register_buffer("code_mean", torch.zeros(latent_dim))
        self.register_buffer("code_std", torch.ones(latent_dim))
        self.code_mean: Tensor
        self.code_std: Tensor

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        # Change of variables: log p(z) = log p(w) - sum log std.
        return self.density.log_prob((z - self.code_mean) / self.code_std, *given) - self.code_std.log().sum()

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        return self.code_mean + self.code_std * self.density.from_noise(noise, *given)

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: zeros `(B, 1)` with `zero_kl`, because the KL of a delta distribution is infinite."""
        return z.new_zeros((len(z), 1)) if self.zero_kl else super().kl_terms(posterior, z, *given)


class LabelledPrior(FittedPrior):
    """p(z|y): a FittedPrior whose density is given labels."""

    inputs = ("y",)


class PerLabel(Prior):
    """A density of its own for each label.

    Args:
        densities: One for each label, of the same kind.
    """

    inputs = ("y",)

    def __init__(self, densities: Sequence[Prior]) -> None:
        super().__init__()
        self.densities = nn.ModuleList(densities)
        self.noise_shape = densities[0].noise_shape

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        (y,) = given
        values = torch.stack([cast("Prior", density).log_prob(z) for density in self.densities], 1)
        return values.gather(1, y.unsqueeze(1)).squeeze(1)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        (y,) = given
        z = torch.stack([cast("Prior", density).from_noise(noise) for density in self.densities], 1)
        return z.gather(1, y.view(-1, 1, 1).expand(-1, 1, z.shape[2])).squeeze(1)


def replace_prior(vae: VAE, density: Prior) -> FittedPrior:
    """Makes a density of codes the prior of a model whose latents are a vector, and returns it."""
    fitted = LabelledPrior if density.inputs else FittedPrior
    prior = fitted(density, vae.latent_shape[0], zero_kl=isinstance(vae.prior, ZeroKLPrior))
    vae.prior = prior
    return prior


class FullMixture(Prior):
    """A mixture of Gaussians with full covariances.

    The first number of the noise chooses the component. The others become z within it.

    Args:
        latent_dim: Number of latents.
        components: Number of components.
    """

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__()
        self.noise_shape = (latent_dim + 1,)
        self.mu = nn.Parameter(torch.zeros(components, latent_dim))
        self.scale_tril = nn.Parameter(torch.eye(latent_dim).repeat(components, 1, 1))  # L of covariances L L^T
        self.weight_logits = nn.Parameter(torch.zeros(components))

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        # log N(z; mu, L L^T) = -(|w|^2 + D log 2 pi) / 2 - sum log diag L, with L w = z - mu, for all pairs `(K, B)`.
        offset = (z - self.mu.unsqueeze(1)).transpose(1, 2)
        w = torch.linalg.solve_triangular(self.scale_tril, offset, upper=False)
        log_det = self.scale_tril.diagonal(dim1=1, dim2=2).log().sum(1, keepdim=True)
        log_weights = torch.log_softmax(self.weight_logits, 0).unsqueeze(1)
        return torch.logsumexp(log_weights - 0.5 * (w.square() + LOG_2PI).sum(1) - log_det, 0)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        chosen = choose_component(noise[:, :1], self.weight_logits)
        return self.mu[chosen] + (self.scale_tril[chosen] @ noise[:, 1:].unsqueeze(2)).squeeze(2)


class KernelDensity(Mixture):
    """A Gaussian kernel of one width around each of some codes.

    Args:
        latent_dim: Number of latents.
        kernels: Number of codes.
    """

    def __init__(self, latent_dim: int, kernels: int) -> None:
        super().__init__(latent_dim)
        self.noise_shape = (latent_dim + 2,)
        self.register_buffer("points", torch.zeros(kernels, latent_dim))
        self.register_buffer("log_bandwidth", torch.zeros(()))
        self.points: Tensor
        self.log_bandwidth: Tensor

    def components(self) -> Components:
        n = len(self.points)
        logvar = (2 * self.log_bandwidth).expand(self.points.shape)
        return Components(self.points, logvar, self.points.new_full((n,), -math.log(n)))

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        """Overridden: two numbers choose the code."""
        chosen = choose_equally(noise[:, :2], len(self.points))
        return self.points[chosen] + self.log_bandwidth.exp() * noise[:, 2:]


class PosteriorMixture(Mixture):
    """The mixture of the posteriors of some examples, 1/N sum_n q(z|x_n). Each is a diagonal Gaussian.

    Args:
        latent_dim: Number of latents.
        exemplars: Number of examples.
    """

    def __init__(self, latent_dim: int, exemplars: int) -> None:
        super().__init__(latent_dim)
        self.noise_shape = (latent_dim + 2,)
        self.register_buffer("mu", torch.zeros(exemplars, latent_dim))
        self.register_buffer("logvar", torch.zeros(exemplars, latent_dim))
        self.mu: Tensor
        self.logvar: Tensor

    def components(self) -> Components:
        n = len(self.mu)
        return Components(self.mu, self.logvar, self.mu.new_full((n,), -math.log(n)))

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        """Overridden: two numbers choose the example."""
        chosen = choose_equally(noise[:, :2], len(self.mu))
        return self.mu[chosen] + torch.exp(0.5 * self.logvar[chosen]) * noise[:, 2:]


def choose_equally(noise: Tensor, n: int) -> Tensor:
    """Returns which of n points noise chooses, `(B,)`, int64, each as often.

    The first number chooses a row of a table of points, the second a point in it. One number among thousands of points
    would choose another one after the least rounding, in an export.

    Args:
        noise: Standard normal, `(B, 2)`.
        n: Number of points.
    """
    width = math.isqrt(n - 1) + 1
    uniform = normal_cdf(noise)
    row = (uniform[:, 0] * (n / width)).floor().clamp(max=(n - 1) // width)
    size = (n - row * width).clamp(max=width)  # the last row may be shorter
    column = torch.minimum((uniform[:, 1] * size).floor(), size - 1)
    return (row * width + column).long()


class SecondStage(Prior):
    """The marginal of a second VAE, on codes: p(z) = integral of p(u) p(z|u) (Dai and Wipf 2019, arXiv 1903.05789).

    p(u) is standard normal, with as many latents as the model has. p(z|u) is a Gaussian around a network of u with one
    learned variance. `log_prob` is log [p(u) p(z|u) / r(u|z)] at one draw u of the second encoder r(u|z). Its
    exponential has the mean p(z). So the ELBO and importance sampling stay bounds of log p(x), with u as a second level
    of latents.

    Args:
        latent_dim: Number of latents.
        hidden: Hidden units of both layers of each network.
    """

    def __init__(self, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.noise_shape = (2 * latent_dim,)  # u, then the noise of p(z|u)
        self.encoder = two_layers(latent_dim, hidden, 2 * latent_dim)
        self.decoder = two_layers(latent_dim, hidden, latent_dim)
        self.raw_logvar = nn.Parameter(torch.zeros(()))

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        second = DiagonalGaussian.from_raw(*self.encoder(z).chunk(2, 1))
        u = second.rsample()
        log_p_u = -0.5 * (u.square() + LOG_2PI).sum(1)
        return log_p_u + self._given_u(u).log_prob(z) - second.log_prob(u)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        u, rest = noise.chunk(2, 1)
        mu, logvar = self._given_u(u)
        return mu + torch.exp(0.5 * logvar) * rest

    def _given_u(self, u: Tensor) -> DiagonalGaussian:
        """Returns p(z|u). Its variance is bounded as that of q(z|x)."""
        mu = self.decoder(u)
        logvar = LOGVAR_BOUND * torch.tanh(self.raw_logvar / LOGVAR_BOUND)
        return DiagonalGaussian(mu, logvar.expand(mu.shape))


def two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Returns a network with two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )
