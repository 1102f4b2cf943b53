"""The diagonal Gaussian posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaezoo.core.precision import to_float32
from vaezoo.posteriors.base import Head, PosteriorPart, Shape

LOGVAR_BOUND = 10.0  # sigma stays between exp(-5) and exp(5): float32 does not overflow, gradients do not vanish
LOG_2PI = math.log(2 * math.pi)


class DiagonalGaussian(NamedTuple):
    """Independent normal latents.

    Attributes:
        mu: Means, `(B, *latent_shape)`.
        logvar: Logarithms of the variances, `(B, *latent_shape)`.
    """

    mu: Tensor
    logvar: Tensor

    @classmethod
    def from_raw(cls, mu: Tensor, raw: Tensor) -> DiagonalGaussian:
        """Makes the posterior from the outputs of a network, with logvar softly bounded to (-10, 10).

        Args:
            mu: Means, `(B, *latent_shape)`.
            raw: Unbounded log-variances, `(B, *latent_shape)`.
        """
        # logvar = b tanh(raw / b). Between -2 and 2 it differs from raw by less than 0.03. Far outside, its gradient
        # 1 - tanh(raw / b)^2 is small but not zero, as that of a clamp would be.
        return cls(to_float32(mu), LOGVAR_BOUND * torch.tanh(to_float32(raw) / LOGVAR_BOUND))

    def rsample(self) -> Tensor:
        # Not randn_like: it fills memory in the order in which it lies, which a compiler or channels-last changes.
        noise = torch.randn(self.mu.shape, device=self.mu.device, dtype=self.mu.dtype)
        return self.mu + torch.exp(0.5 * self.logvar) * noise

    def log_prob(self, z: Tensor) -> Tensor:
        square = (z - self.mu).square() * torch.exp(-self.logvar)
        return -0.5 * (square + self.logvar + LOG_2PI).flatten(1).sum(1)

    def mode(self) -> Tensor:
        return self.mu

    def scaled(self, scale: float, shift: float) -> DiagonalGaussian:
        """Returns the distribution of (z - shift) * scale."""
        return DiagonalGaussian((self.mu - shift) * scale, self.logvar + 2 * math.log(abs(scale)))


class DiagonalGaussianHead(Head):
    """Means, then raw log-variances, along the first dimension.

    Args:
        latent_shape: Shape of one latent z.
    """

    def __init__(self, latent_shape: Shape) -> None:
        super().__init__()
        self.inputs = (2 * latent_shape[0], *latent_shape[1:])

    def forward(self, h: Tensor) -> DiagonalGaussian:
        mu, raw = h.chunk(2, dim=1)
        return DiagonalGaussian.from_raw(mu, raw)


@dataclass(frozen=True, kw_only=True)
class DiagonalGaussianPart(PosteriorPart):
    """Independent normal latents."""

    part = "diagonal"
    formula = r"q(z \mid x) = \mathcal{N}(z; \mu(x), \mathrm{diag}\,\sigma^2(x))"
    is_diagonal_gaussian = True

    def head(self, latent_shape: Shape) -> Head:
        return DiagonalGaussianHead(latent_shape)
