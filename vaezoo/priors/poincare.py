"""The wrapped normal prior in the Poincare ball (Mathieu et al. 2019, arXiv 1901.06033)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaezoo.posteriors.gaussian import LOG_2PI
from vaezoo.posteriors.poincare import (
    ball_name,
    log_volume_ratio,
    require_ball,
    require_curvature,
    unwrap,
    wrap_origin,
)
from vaezoo.priors.base import Prior, PriorPart

if TYPE_CHECKING:
    from vaezoo.vae import VAE


class WrappedNormalPrior(Prior):
    """The wrapped normal around the origin: the distance of z in each direction is that of a standard normal.

    Args:
        n: Number of latents.
        curvature: c.
    """

    def __init__(self, n: int, curvature: float) -> None:
        super().__init__()
        self.noise_shape = (n,)
        self.curvature = curvature
        self.space = ball_name(curvature)
        self.register_buffer("zero", torch.zeros(1, n), persistent=False)  # the origin, which holds type and device
        self.zero: Tensor

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        """Returns the density with respect to the volume dz, as `WrappedNormal` does."""
        v = unwrap(self.zero, z, self.curvature)
        return log_volume_ratio(v, z, self.curvature) - 0.5 * (v.square() + LOG_2PI).sum(1)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        return wrap_origin(noise, self.curvature)


@dataclass(frozen=True, kw_only=True)
class PoincarePriorPart(PriorPart):
    """A wrapped normal around the origin of the Poincare ball. It is for posterior=poincare of the same curvature.

    Attributes:
        curvature: c > 0, as of the posterior.

    Raises:
        VaezooError: If it is not positive.
    """

    part = "poincare"
    formula = r"z = \exp_0\left(\frac{v}{2}\right), \qquad v \sim \mathcal{N}(0, I)"
    curvature: float = 1.0

    def __post_init__(self) -> None:
        require_curvature("prior.curvature", self.curvature)

    @property
    def space(self) -> str:
        return ball_name(self.curvature)

    def build(self, vae: VAE) -> Prior:
        n = require_ball("prior=poincare", vae.latent_shape, self.curvature)
        return WrappedNormalPrior(n, self.curvature)
