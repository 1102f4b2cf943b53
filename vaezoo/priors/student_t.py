"""The Student-t prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaezoo.posteriors.base import Shape
from vaezoo.posteriors.student_t import log_density, require_variance, t_of_noise
from vaezoo.priors.base import Prior, PriorPart

if TYPE_CHECKING:
    from vaezoo.vae import VAE


class StudentTPrior(Prior):
    """Independent latents with standard Student-t distributions.

    Args:
        latent_shape: Shape of one latent z.
        nu: The degrees of freedom.
    """

    def __init__(self, latent_shape: Shape, nu: int) -> None:
        super().__init__()
        self.noise_shape = (nu + 1, *latent_shape)
        self.nu = nu
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # only holds the device

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return log_density(z, self.nu).flatten(1).sum(1)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        return t_of_noise(noise)


@dataclass(frozen=True, kw_only=True)
class StudentTPriorPart(PriorPart):
    """Independent latents with Student-t distributions.

    Attributes:
        nu: Degrees of freedom. The fewer, the heavier the tails.

    Raises:
        VaezooError: If there are fewer than 3.
    """

    part = "student"
    formula = r"z_j \sim \text{Student-t with } \nu \text{ degrees of freedom}"
    nu: int = 5

    def __post_init__(self) -> None:
        require_variance("prior.nu", self.nu)

    def build(self, vae: VAE) -> Prior:
        return StudentTPrior(vae.latent_shape, self.nu)
