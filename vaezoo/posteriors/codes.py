"""The posterior of a quantizer: one code at each position is certain."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaezoo.errors import VaezooError


class Codes(NamedTuple):
    """q(z|x): certainty of one code at each position.

    Attributes:
        z: The codes, `(B, *latent_shape)`, int64.
        features: What they were made of, such as `(B, code_dim, h, w)`.
    """

    z: Tensor
    features: Tensor

    def rsample(self) -> Tensor:
        return self.z

    def log_prob(self, z: Tensor) -> Tensor:
        raise VaezooError("a quantizer has no density q(z|x): its codes are certain", "evaluate the ELBO instead")

    def mode(self) -> Tensor:
        return self.z

    def outputs(self) -> dict[str, Tensor]:
        """Returns the codes alone."""
        return {"z": self.z}
