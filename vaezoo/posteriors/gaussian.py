"""The diagonal Gaussian posterior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaezoo.core.precision import to_float32

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
        return self.mu + torch.exp(0.5 * self.logvar) * torch.randn_like(self.mu)

    def log_prob(self, z: Tensor) -> Tensor:
        square = (z - self.mu).square() * torch.exp(-self.logvar)
        return -0.5 * (square + self.logvar + LOG_2PI).flatten(1).sum(1)

    def mode(self) -> Tensor:
        return self.mu
