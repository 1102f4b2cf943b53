"""The Gaussian posterior with a full covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaezoo.core.precision import to_float32
from vaezoo.posteriors.base import Head, PosteriorPart, Shape, require_flat
from vaezoo.posteriors.gaussian import LOG_2PI, LOGVAR_BOUND


class FullGaussian(NamedTuple):
    """Normal latents with the covariance L L^T.

    Attributes:
        mu: Means, `(B, latents)`.
        scale: L, lower triangular with a positive diagonal, `(B, latents, latents)`.
    """

    mu: Tensor
    scale: Tensor

    def rsample(self) -> Tensor:
        noise = torch.randn(self.mu.shape, device=self.mu.device, dtype=self.mu.dtype)
        return self.mu + torch.bmm(self.scale, noise.unsqueeze(2)).squeeze(2)

    def log_prob(self, z: Tensor) -> Tensor:
        # With e = L^-1 (z - mu): log N(z; mu, L L^T) = -(|e|^2 + n log 2 pi) / 2 - sum_i log L_ii.
        noise: Tensor = torch.linalg.solve_triangular(self.scale, (z - self.mu).unsqueeze(2), upper=False).squeeze(2)
        log_det = self.scale.diagonal(dim1=1, dim2=2).log().sum(1)
        log_normal: Tensor = -0.5 * (noise.square() + LOG_2PI).sum(1)
        return log_normal - log_det

    def mode(self) -> Tensor:
        return self.mu


class FullGaussianHead(Head):
    """Means, raw log-variances of the diagonal of L, and the entries below it, side by side.

    Args:
        latent_shape: Shape of one latent z, a vector.
    """

    def __init__(self, latent_shape: Shape) -> None:
        super().__init__()
        n = require_flat("posterior=full", latent_shape)
        self.sizes = (n, n, n * (n - 1) // 2)
        self.inputs = (sum(self.sizes),)
        rows, columns = torch.tril_indices(n, n, -1)
        # A product with this matrix places the entries below the diagonal. Index assignment would not export to ONNX.
        placement = torch.zeros(self.sizes[2], n * n)
        placement[torch.arange(self.sizes[2]), rows * n + columns] = 1.0
        self.register_buffer("placement", placement, persistent=False)
        self.placement: Tensor

    def forward(self, h: Tensor) -> FullGaussian:
        mu, raw, below = torch.split(to_float32(h), list(self.sizes), 1)
        n = self.sizes[0]
        # The diagonal of L is a standard deviation, bounded as that of DiagonalGaussian.
        diagonal = torch.diag_embed(torch.exp(0.5 * LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)))
        # Divided by sqrt(n), so that a row of L keeps its length when there are more latents.
        return FullGaussian(mu, diagonal + (below @ self.placement).view(-1, n, n) / n**0.5)


@dataclass(frozen=True, kw_only=True)
class FullGaussianPart(PosteriorPart):
    """Normal latents with a full covariance."""

    part = "full"
    formula = r"q(z \mid x) = \mathcal{N}(z; \mu(x), L(x) L(x)^\top)"

    def head(self, latent_shape: Shape) -> Head:
        return FullGaussianHead(latent_shape)
