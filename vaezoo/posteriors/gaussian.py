"""The diagonal Gaussian posterior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaezoo.core.precision import to_float32

LOGVAR_BOUND = 10.0  # sigma stays between exp(-5) and exp(5): no float32 overflow, no vanishing gradient
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
        """Makes the posterior from a network's outputs, with logvar squashed softly into (-10, 10).

        Within -2..2 the squashing changes it by less than 0.03; far out the gradient grows small but does
        not vanish, as it would with a clamp.
        """
        return cls(to_float32(mu), LOGVAR_BOUND * torch.tanh(to_float32(raw) / LOGVAR_BOUND))

    def rsample(self) -> Tensor:
        return self.mu + torch.exp(0.5 * self.logvar) * torch.randn_like(self.mu)

    def log_prob(self, z: Tensor) -> Tensor:
        square = (z - self.mu).square() * torch.exp(-self.logvar)
        return -0.5 * (square + self.logvar + LOG_2PI).flatten(1).sum(1)

    def mode(self) -> Tensor:
        return self.mu
