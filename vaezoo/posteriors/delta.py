"""The posterior of a plain autoencoder: all mass on one point."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaezoo.errors import VaezooError


class Delta(NamedTuple):
    """All on one latent: what a plain autoencoder's encoder gives.

    Attributes:
        z: The latents, `(B, *latent_shape)`.
    """

    z: Tensor

    def rsample(self) -> Tensor:
        return self.z

    def log_prob(self, z: Tensor) -> Tensor:
        raise VaezooError("the code of an autoencoder is a point, which has no density", "take a variational model")

    def mode(self) -> Tensor:
        return self.z
