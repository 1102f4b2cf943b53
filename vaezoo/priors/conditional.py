"""The label-conditional prior: a diagonal Gaussian for each label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vaezoo.errors import UnsupportedDataError
from vaezoo.posteriors.base import Posterior, require_flat
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior, PriorPart

if TYPE_CHECKING:
    from vaezoo.vae import VAE


class ConditionalNormal(Prior):
    """p(z|y), a diagonal Gaussian with its own mean and variance for each label.

    Args:
        latent_dim: Number of latents.
        classes: Number of labels.
    """

    inputs = ("y",)

    def __init__(self, latent_dim: int, classes: int) -> None:
        super().__init__()
        self.noise_shape = (latent_dim,)
        self.mu = nn.Embedding(classes, latent_dim)
        self.logvar = nn.Embedding(classes, latent_dim)
        nn.init.zeros_(self.logvar.weight)

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return self._gaussian(*given).log_prob(z)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        mu, logvar = self._gaussian(*given)
        return mu + torch.exp(0.5 * logvar) * noise

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: the closed form between two diagonal Gaussians."""
        if not isinstance(posterior, DiagonalGaussian):
            return super().kl_terms(posterior, z, *given)
        (mu, logvar), (prior_mu, prior_logvar) = posterior, self._gaussian(*given)
        # For each latent: (((mu - m)^2 + sigma^2) / s^2 - 1 - log sigma^2 + log s^2) / 2.
        square = (mu - prior_mu).square() + logvar.exp()
        return 0.5 * (square * torch.exp(-prior_logvar) - 1 - logvar + prior_logvar)

    def _gaussian(self, y: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.mu(y), self.logvar(y))


@dataclass(frozen=True, kw_only=True)
class ConditionalNormalPart(PriorPart):
    """A diagonal Gaussian for each label."""

    part = "conditional"
    formula = r"p(z \mid y) = \mathcal{N}(z; \mu_y, \mathrm{diag}\,\sigma_y^2)"

    def build(self, vae: VAE) -> Prior:
        """Builds the prior. Raises UnsupportedDataError unless the data have one label per example."""
        if len(vae.data.classes) != 1:
            raise UnsupportedDataError("prior=conditional needs data with one label per example", "use prior=normal")
        return ConditionalNormal(require_flat("prior=conditional", vae.latent_shape), vae.data.classes[0])
