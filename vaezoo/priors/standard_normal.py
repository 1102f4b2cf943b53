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
        latent_shape: Shape of one latent.
    """

    def __init__(self, latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        # Never saved: it only remembers shape and device.
        self.register_buffer("zero", torch.zeros(latent_shape), persistent=False)
        self.zero: Tensor

    def sample(self, n: int) -> Tensor:
        return torch.randn((n, *self.zero.shape), device=self.zero.device, dtype=self.zero.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).flatten(1).sum(1)

    def kl_terms(self, posterior: Posterior, z: Tensor) -> Tensor:
        """The closed form of Kingma and Welling 2014, appendix B, for a diagonal Gaussian posterior."""
        if not isinstance(posterior, DiagonalGaussian):
            return super().kl_terms(posterior, z)
        mu, logvar = posterior
        return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).flatten(1)
