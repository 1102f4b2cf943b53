"""The posterior of a plain autoencoder: a delta distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Head, PosteriorPart, Shape


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

    def scaled(self, scale: float, shift: float) -> Delta:
        """Returns the distribution of (z - shift) * scale."""
        return Delta((self.z - shift) * scale)


class DeltaHead(Head):
    """The network's output is z.

    Args:
        latent_shape: Shape of one latent z.
    """

    def __init__(self, latent_shape: Shape) -> None:
        super().__init__()
        self.inputs = latent_shape

    def forward(self, h: Tensor) -> Delta:
        return Delta(h)


@dataclass(frozen=True, kw_only=True)
class DeltaPart(PosteriorPart):
    """One latent vector for each example, as in an autoencoder."""

    part = "delta"
    formula = r"q(z \mid x) = \delta(z - \mu(x))"
    density = "none"

    def head(self, latent_shape: Shape) -> Head:
        return DeltaHead(latent_shape)
