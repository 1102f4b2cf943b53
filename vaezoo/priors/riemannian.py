"""The uniform distribution of a Riemannian manifold that the posteriors of some training examples span."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaezoo.priors.base import Prior
from vaezoo.priors.densities import choose_equally
from vaezoo.priors.mixture import component_log_probs, normal_cdf

NORMALISER_DRAWS, DRAWS_AT_ONCE = 50_000, 5_000


class Integral(NamedTuple):
    """An estimate of Z by importance sampling.

    Attributes:
        log_value: Its logarithm.
        error: The standard error of the logarithm.
        efficiency: The effective sample size as a share of the draws, in (0, 1].
    """

    log_value: float
    error: float
    efficiency: float


class RiemannianUniform(Prior):
    """p(z) = sqrt(det G(z)) / Z, uniform with respect to the volume of a metric G.

    Chadebec and Allassonniere 2022, arXiv 2209.07370. With N centroids, codes mu_i of training examples with the
    covariances Sigma_i of their posteriors,

        G(z) = sum_i Sigma_i^-1 exp(-m_i(z)) + lambda exp(-tau |z|^2) I
        m_i(z) = (z - mu_i)^T Sigma_i^-1 (z - mu_i) / rho^2

    The sampler of RHVAE (Chadebec et al. 2021, arXiv 2105.00026), which pythae has, is another one. It draws from
    sqrt(det G^-1) of a metric that is trained with the model.

    A term alone has sqrt(det) = |Sigma_i|^-1/2 exp(-n m_i / 2) in n dimensions. This is a Gaussian with the covariance
    rho^2 Sigma_i / n, times (2 pi rho^2 / n)^(n/2), which is the same for all i. So a mixture q of these Gaussians and
    of that of the last term is a proposal. The ratio sqrt(det G) / q is bounded: with A and a the largest and smallest
    of lambda and all precisions, it is at most a constant times ((N + 1) A / a)^(n/2).

    A draw is one of several proposals, chosen with probability proportional to this ratio (sampling-importance
    resampling, Rubin 1987). Its density tends to p(z) as the proposals become more. Z is the mean of the ratio.

    The paper takes 100 steps of Hamiltonian Monte Carlo from training codes instead, and stays near them. It does not
    reach this density, which grows with the power n / 2 of the number of centroids that overlap.

    Args:
        latent_dim: Number of latents, n.
        centroids: Number of centroids, N.
        proposals: Proposals for each draw.
    """

    def __init__(self, latent_dim: int, centroids: int, proposals: int) -> None:
        super().__init__()
        self.proposals = proposals
        self.latent_dim = latent_dim
        self.noise_shape = (
            proposals * (latent_dim + 2) + 1,
        )  # two numbers choose a component, the last one a proposal
        self.register_buffer("mu", torch.zeros(centroids, latent_dim))
        self.register_buffer("logvar", torch.zeros(centroids, latent_dim))
        # log rho, log lambda, log tau, log Z
        for name in ("log_rho", "log_background", "log_decay", "log_normaliser"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("error", torch.zeros(()))  # the standard error of log Z
        self.register_buffer("efficiency", torch.ones(()))  # of the proposal
        self.mu: Tensor
        self.logvar: Tensor
        self.log_rho: Tensor
        self.log_background: Tensor
        self.log_decay: Tensor
        self.log_normaliser: Tensor
        self.error: Tensor
        self.efficiency: Tensor

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return (self.log_volume(wide(z)) - self.log_normaliser).to(z.dtype)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        z = self.propose(noise[:, :-1].reshape(-1, self.latent_dim + 2))
        log_ratio = (self.log_volume(z) - self.log_proposal(z)).view(-1, self.proposals)
        bounds = torch.softmax(log_ratio, 1).cumsum(1)[:, :-1]
        chosen = (wide(normal_cdf(noise[:, -1:])) > bounds).sum(1)
        z = z.view(-1, self.proposals, self.latent_dim)
        return z.gather(1, chosen.view(-1, 1, 1).expand(-1, 1, self.latent_dim)).squeeze(1).to(noise.dtype)

    def log_volume(self, z: Tensor) -> Tensor:
        """Returns log sqrt(det G(z)), `(B,)`, for z `(B, latents)` of the type that `wide` gives."""
        mu, precision = wide(self.mu), torch.exp(-wide(self.logvar))
        square = z.square() @ precision.T - 2 * z @ (mu * precision).T + (mu.square() * precision).sum(1)
        distance = square.clamp(min=0) * torch.exp(-2 * wide(self.log_rho))
        decay = torch.exp(wide(self.log_decay)) * z.square().sum(1, keepdim=True)
        # G is diagonal. The largest exponential becomes 1, so that none of the sums is 0.
        least = torch.minimum(distance.amin(1, keepdim=True), decay)
        kernels = torch.exp(least - distance)
        diagonal = kernels @ precision + torch.exp(wide(self.log_background) + least - decay)
        return 0.5 * (diagonal.log() - least).sum(1)

    def components(self) -> tuple[Tensor, Tensor]:
        """Returns means and log-variances of the proposal's Gaussians, `(N + 1, latents)`. All have the same weight."""
        n = self.latent_dim
        logvar = wide(self.logvar) + 2 * wide(self.log_rho) - math.log(n)
        background = (-wide(self.log_decay) - math.log(n)).expand(1, n)
        return torch.cat([wide(self.mu), torch.zeros_like(background)]), torch.cat([logvar, background])

    def log_proposal(self, z: Tensor) -> Tensor:
        """Returns log q(z), `(B,)`."""
        mu, logvar = self.components()
        return torch.logsumexp(component_log_probs(z, mu, logvar), 1) - math.log(len(mu))

    def propose(self, noise: Tensor) -> Tensor:
        """Returns draws from q, `(B, latents)`, for standard normal noise `(B, latents + 2)`."""
        mu, logvar = self.components()
        chosen = choose_equally(noise[:, :2], len(mu))
        return mu[chosen] + torch.exp(0.5 * logvar[chosen]) * wide(noise[:, 2:])

    def integrate(self, draws: int = NORMALISER_DRAWS) -> Integral:
        """Estimates Z with draws from PyTorch's generator, a multiple of 5,000."""
        ratios = []
        for _ in range(draws // DRAWS_AT_ONCE):
            z = self.propose(torch.randn(DRAWS_AT_ONCE, self.latent_dim + 2))
            ratios.append(self.log_volume(z) - self.log_proposal(z))
        log_ratio = torch.cat(ratios)
        ratio = torch.exp(log_ratio - log_ratio.max())
        mean, efficiency = ratio.mean(), float(ratio.mean() ** 2 / ratio.square().mean())
        error = float(ratio.std() / mean) / math.sqrt(len(ratio))  # that of a logarithm, to first order
        return Integral(float(mean.log() + log_ratio.max()), error, efficiency)


def wide(x: Tensor) -> Tensor:
    """Returns a tensor as float64, where the device has it.

    Which proposal a draw picks is not continuous in the noise. In float32 an export would pick another one too often.
    """
    return x if x.device.type == "mps" else x.double()
