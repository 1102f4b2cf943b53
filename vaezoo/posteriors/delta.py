"""The posterior of a plain autoencoder: a delta distribution."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaezoo.errors import VaezooError


class Delta(NamedTuple):
    """All probability on one latent vector.

    Attributes:
        z: The latents, `(B, *latent_shape)`.
    """

    z: Tensor

    def rsample(self) -> Tensor:
        return self.z

    def log_prob(self, z: Tensor) -> Tensor:
        raise VaezooError("an autoencoder encodes to a point, which has no density", "use a variational model")

    def mode(self) -> Tensor:
        return self.z
