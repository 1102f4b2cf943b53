"""The standard normal prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import LOG_2PI, DiagonalGaussian
from vaezoo.priors.base import Prior, PriorPart

if TYPE_CHECKING:
    from vaezoo.vae import VAE


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
        self.noise_shape = latent_shape

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        return noise

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).flatten(1).sum(1)

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: a diagonal Gaussian has a closed form (Kingma and Welling 2014, appendix B)."""
        if not isinstance(posterior, DiagonalGaussian):
            return super().kl_terms(posterior, z, *given)
        # For each latent dimension: KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2.
        mu, logvar = posterior
        return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).flatten(1)


class ZeroKLPrior(StandardNormal):
    """A standard normal whose KL is zero. A model that is trained with it has no cost of its latents."""

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: returns zeros `(B, 1)`, because the KL of a delta distribution is infinite."""
        return z.new_zeros((len(z), 1))


@dataclass(frozen=True, kw_only=True)
class StandardNormalPart(PriorPart):
    """The standard normal."""

    part = "normal"
    formula = r"p(z) = \mathcal{N}(z; 0, I)"

    def build(self, vae: VAE) -> Prior:
        return StandardNormal(vae.latent_shape)


@dataclass(frozen=True, kw_only=True)
class ZeroKLPart(PriorPart):
    """No prior in training, and the standard normal where z is drawn. It is for posterior=delta."""

    part = "zero-kl"
    formula = r"\mathrm{KL}(q(z \mid x) \,\|\, p(z)) := 0"
    needs_density = False

    def build(self, vae: VAE) -> Prior:
        return ZeroKLPrior(vae.latent_shape)
