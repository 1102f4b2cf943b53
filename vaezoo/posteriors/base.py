"""Posterior, the protocol of q(z|x), and a statistic of its codes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Posterior(Protocol):
    """q(z|x) for a batch: a NamedTuple of tensors, whose fields become the outputs of encoder.onnx."""

    def rsample(self) -> Tensor:
        """Draws z, `(B, *latent_shape)`, so that gradients reach the fields."""

    def log_prob(self, z: Tensor, /) -> Tensor:
        """Returns log q(z|x), `(B,)`, in nats; raises VaezooError where there is no density."""

    def mode(self) -> Tensor:
        """Returns the most probable z, `(B, *latent_shape)`: a deterministic code for x."""


def active_units(codes: Tensor) -> int:
    """Returns how many latent dimensions depend on the data: those whose code varies by more than 0.01 over it.

    Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519, section 5.2.

    Args:
        codes: The posteriors' means, `(N, *latent_shape)`.
    """
    return int((codes.flatten(1).var(0, unbiased=False) > 0.01).sum())
