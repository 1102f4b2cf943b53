"""The Student-t posterior, whose tails are heavier than those of a Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Head, PosteriorPart, Shape
from vaezoo.posteriors.gaussian import DiagonalGaussian, DiagonalGaussianHead

TINY = 1e-30  # in place of noise that float32 rounds to 0


class StudentT(NamedTuple):
    """Independent latents z = mu + sigma t, where t has a Student-t distribution.

    Attributes:
        mu: Centres, `(B, *latent_shape)`.
        logvar: Logarithms of the squared scales sigma^2, `(B, *latent_shape)`. The variance is nu / (nu - 2) times it.
        nu: The degrees of freedom.
    """

    mu: Tensor
    logvar: Tensor
    nu: int

    def rsample(self) -> Tensor:
        shape = (len(self.mu), self.nu + 1, *self.mu.shape[1:])
        noise = torch.randn(shape, device=self.mu.device, dtype=self.mu.dtype)
        return self.mu + torch.exp(0.5 * self.logvar) * t_of_noise(noise)

    def log_prob(self, z: Tensor) -> Tensor:
        t = (z - self.mu) * torch.exp(-0.5 * self.logvar)
        return (log_density(t, self.nu) - 0.5 * self.logvar).flatten(1).sum(1)

    def mode(self) -> Tensor:
        return self.mu


def t_of_noise(noise: Tensor) -> Tensor:
    """Returns t, `(B, *latent_shape)`, for standard normal noise, `(B, nu + 1, *latent_shape)`.

    It is one normal number, divided by the root of the mean square of nu others. This is the definition of t.
    """
    return noise[:, 0] * torch.rsqrt(noise[:, 1:].square().mean(1).clamp(min=TINY))


def log_density(t: Tensor, nu: int) -> Tensor:
    """Returns the log-density of the standard Student-t distribution at each value."""
    constant = math.lgamma(0.5 * (nu + 1)) - math.lgamma(0.5 * nu) - 0.5 * math.log(nu * math.pi)
    return constant - 0.5 * (nu + 1) * torch.log1p(t.square() / nu)


class StudentTHead(Head):
    """Centres, then raw logarithms of the squared scales, as those of a DiagonalGaussian.

    Args:
        latent_shape: Shape of one latent z.
        nu: The degrees of freedom.
    """

    def __init__(self, latent_shape: Shape, nu: int) -> None:
        super().__init__()
        self.inputs = DiagonalGaussianHead(latent_shape).inputs
        self.nu = nu

    def forward(self, h: Tensor) -> StudentT:
        return StudentT(*DiagonalGaussian.from_raw(*h.chunk(2, dim=1)), self.nu)


@dataclass(frozen=True, kw_only=True)
class StudentTPart(PosteriorPart):
    """Independent Student-t latents.

    Attributes:
        nu: Degrees of freedom. The fewer, the heavier the tails.

    Raises:
        VaezooError: If there are fewer than 3.
    """

    part = "student"
    formula = (
        r"z_j = \mu_j(x) + \sigma_j(x)\,t_j, \qquad t_j \sim \text{Student-t with } \nu \text{ degrees of freedom}"
    )
    nu: int = 5

    def __post_init__(self) -> None:
        require_variance("posterior.nu", self.nu)

    def head(self, latent_shape: Shape) -> Head:
        return StudentTHead(latent_shape, self.nu)


def require_variance(option: str, nu: int) -> None:
    """Raises VaezooError unless the distribution has a finite variance."""
    if nu < 3:
        raise VaezooError(f"option '{option}' is {nu}, which has no finite variance", f"give '{option}' at least 3")
