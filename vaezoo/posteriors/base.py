"""Posterior, the protocol of q(z|x), and the number of active units."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Posterior(Protocol):
    """q(z|x) for a batch: a NamedTuple of tensors. Its fields are the outputs of encoder.onnx."""

    def rsample(self) -> Tensor:
        """Draws z, `(B, *latent_shape)`. Gradients reach the fields (reparameterization)."""

    def log_prob(self, z: Tensor, /) -> Tensor:
        """Returns log q(z|x), `(B,)`, in nats. Raises VaezooError if there is no density."""

    def mode(self) -> Tensor:
        """Returns the most probable z, `(B, *latent_shape)`."""


def active_units(codes: Tensor) -> int:
    """Returns the number of active latent dimensions: their mean varies by more than 0.01 over the data.

    Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519, section 5.2.

    Args:
        codes: Means of q(z|x), `(N, *latent_shape)`.
    """
    return int((codes.flatten(1).var(0, unbiased=False) > 0.01).sum())
