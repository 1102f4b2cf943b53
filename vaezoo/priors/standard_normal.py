"""The standard normal prior."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import LOG_2PI, DiagonalGaussian
from vaezoo.priors.base import Prior


class StandardNormal(Prior):
    """Independent latents of mean 0 and variance 1.

    Args:
        latent_shape: Shape of one latent z.
    """

    def __init__(self, latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        # Not saved: it only holds shape, type and device.
        self.register_buffer("zero", torch.zeros(latent_shape), persistent=False)
        self.zero: Tensor

    def sample(self, n: int) -> Tensor:
        return torch.randn((n, *self.zero.shape), device=self.zero.device, dtype=self.zero.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).flatten(1).sum(1)

    def kl_terms(self, posterior: Posterior, z: Tensor) -> Tensor:
        """Overridden: a diagonal Gaussian has a closed form (Kingma and Welling 2014, appendix B)."""
        if not isinstance(posterior, DiagonalGaussian):
            return super().kl_terms(posterior, z)
        # For each latent dimension: KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2.
        mu, logvar = posterior
        return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).flatten(1)
