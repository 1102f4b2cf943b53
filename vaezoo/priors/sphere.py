"""The uniform prior on the unit sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.von_mises_fisher import VonMisesFisher, require_sphere
from vaezoo.priors.base import Prior, PriorPart

if TYPE_CHECKING:
    from vaezoo.vae import VAE


class UniformSphere(Prior):
    """All directions are equally probable. The density is 1 / area (Davidson et al. 2018).

    Args:
        m: Number of dimensions.
    """

    space = "sphere"

    def __init__(self, m: int) -> None:
        super().__init__()
        self.noise_shape = (m,)
        # The area of the unit sphere is 2 pi^(m/2) / Gamma(m/2).
        self.log_area = math.log(2) + 0.5 * m * math.log(math.pi) - math.lgamma(0.5 * m)
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # only holds the device

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return z.new_full((len(z),), -self.log_area)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        return F.normalize(noise, dim=1)

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: the closed form kappa I_(m/2)(kappa) / I_(m/2 - 1)(kappa) + log C_m(kappa) + log area."""
        if not isinstance(posterior, VonMisesFisher):
            return super().kl_terms(posterior, z, *given)
        return (posterior.log_density_at_mean() + self.log_area).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class UniformSpherePart(PriorPart):
    """The uniform distribution on the unit sphere. It is for posterior=vmf."""

    part = "sphere"
    formula = r"p(z) = \frac{\Gamma(m / 2)}{2 \pi^{m / 2}}, \qquad |z| = 1"
    space = "sphere"

    def build(self, vae: VAE) -> Prior:
        return UniformSphere(require_sphere("prior=sphere", vae.latent_shape))
